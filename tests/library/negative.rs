//! Negative data under half the squared distance.

use crate::common::{Random, deviation, entry};
use ndarray::{ArrayD, IxDyn};
use nneinfact::fit::{Format, Start};
use nneinfact::model::Shapes;
use nneinfact::reference::{Problem, predict};
use nneinfact::{Algorithm, Device, Error, Fit, Loss, NNEinFact, Observations, Precision};

const FLOOR: f64 = 1e-9;

/// A model's values with noise of the size of the data around them, half of it below 0.
fn noisy(shapes: &Shapes, seed: u64, shift: f64) -> (ArrayD<f64>, Vec<ArrayD<f64>>) {
    let mut random = Random::new(seed);
    let truth = random.factors(shapes);
    let noise = random.tensor(&shapes.data(), -2.0, 2.0);
    let y = predict(shapes, &truth);
    let mean = y.mean().expect("entries");
    (y / mean + noise + shift, random.factors(shapes))
}

fn settings(shapes: &Shapes, algorithm: Algorithm) -> NNEinFact {
    let model = shapes.model();
    let ranks = model.latent().iter().map(|x| (char::from(x), shapes.size(x)));
    NNEinFact::new(model.text())
        .expect("a model")
        .ranks(ranks.collect::<Vec<_>>())
        .loss(Loss::euclidean())
        .device(Device::cpu())
        .precision(Precision::F64)
        .algorithm(algorithm)
        .prediction_floor(FLOOR)
        .tolerance(0.0)
}

fn rise(fit: &Fit) -> f64 {
    let losses = &fit.history().loss;
    losses.windows(2).map(|w| (w[1] - w[0]) / losses[0]).fold(0.0, f64::max)
}

#[test]
fn sweeps_are_those_of_the_reference_and_never_let_the_loss_rise() {
    for (n, name) in ["NMF", "CP, 3 modes", "Tucker"].into_iter().enumerate() {
        let shape = [6, 7, 5];
        let shapes = entry(name).shapes(&shape[..entry(name).modes()]);
        let (y, start) = noisy(&shapes, n as u64, -0.2);
        assert!(y.iter().any(|&x| x < 0.0));
        let loss = Loss::euclidean().for_negative_data();
        let problem = Problem { shapes: &shapes, loss: &loss, y: &y, weights: None, floor: FLOOR };
        let mut expected = start.clone();
        (0..4).for_each(|_| problem.sweep(&mut expected));
        for form in [Format::Dense, Format::Sparse] {
            let run = |sweeps| {
                settings(&shapes, Algorithm::Block)
                    .start(Start::Factors(start.clone()))
                    .max_iter(sweeps)
                    .data_as(form)
                    .fit(&y)
                    .expect("it fits")
            };
            let apart = deviation(run(4).factors(), &expected);
            assert!(apart < 1e-9, "{name} {form:?}: {apart:e}");
            let long = run(60);
            assert!(rise(&long) < 1e-12, "{name} {form:?}: {:e}", rise(&long));
        }
    }
}

#[test]
fn exact_and_majorized_steps_end_at_the_same_loss() {
    let shapes = entry("NMF").shapes(&[12, 15]);
    let (y, start) = noisy(&shapes, 7, 0.0);
    // With one factor fixed the problem is convex.
    let run = |algorithm, observations: &Observations| {
        settings(&shapes, algorithm)
            .start(Start::Factors(start.clone()))
            .fix("theta_2", start[1].clone())
            .max_iter(4000)
            .fit(observations)
            .expect("it fits")
    };
    for observations in
        [Observations::new(&y), Observations::new(&y).held_out(0.2, 3).expect("a fraction")]
    {
        let exact = run(Algorithm::Accelerated, &observations);
        let majorized = run(Algorithm::Grouped, &observations);
        let last = |fit: &Fit| fit.history().loss.last().copied().expect("a loss");
        let (e, m) = (last(&exact), last(&majorized));
        assert!((e - m).abs() <= 1e-5 * m, "{e} {m}");
        assert!(e <= m * (1.0 + 1e-12), "{e} {m}");
    }
}

#[test]
fn data_of_a_mean_below_zero_have_a_start() {
    let shapes = entry("NMF").shapes(&[20, 30]);
    for unit in [1e-9, 1.0, 1e9] {
        let mut random = Random::new(3);
        let truth = random.factors(&shapes);
        let noise = random.tensor(&shapes.data(), -2.0, 2.0);
        let y = (predict(&shapes, &truth) + noise + -1.5) * unit;
        assert!(y.sum() < 0.0);
        for (algorithm, precision) in [
            (Algorithm::Accelerated, Precision::F32),
            (Algorithm::Grouped, Precision::F32),
            (Algorithm::Grouped, Precision::F64),
        ] {
            let fit = settings(&shapes, algorithm)
                .precision(precision)
                .prediction_floor(1e-9 * unit)
                .max_iter(60)
                .fit(&y)
                .expect("it fits");
            let history = fit.history();
            // A model of zeros has half the mean square.
            let zero = 0.5 * y.mapv(|x| x * x).mean().expect("entries");
            let last = history.loss.last().copied().expect("a loss");
            assert!(last < 0.95 * zero, "{unit} {algorithm:?} {precision:?}: {last} of {zero}");
            assert!(rise(&fit) < 1e-5, "{unit} {algorithm:?}: {}", rise(&fit));
        }
    }
}

#[test]
fn data_below_zero_everywhere_leave_nothing() {
    let shapes = entry("NMF").shapes(&[5, 6]);
    let y = ArrayD::from_elem(IxDyn(&[5, 6]), -2.0);
    let fit = settings(&shapes, Algorithm::Accelerated).max_iter(20).fit(&y).expect("it fits");
    let largest = fit.reconstruct().expect("small").iter().copied().fold(0.0, f64::max);
    assert!(largest < 1e-6, "{largest}");
}

#[test]
fn other_losses_still_refuse_negative_data() {
    let shapes = entry("NMF").shapes(&[5, 6]);
    let mut y = ArrayD::from_elem(IxDyn(&[5, 6]), 1.0);
    y[[2, 3]] = -1.0;
    let refused = settings(&shapes, Algorithm::Grouped).loss(Loss::kl()).fit(&y);
    match refused {
        Err(Error::Domain { index, value, help, .. }) => {
            assert_eq!((index.as_slice(), value), ([2, 3].as_slice(), -1.0));
            assert!(help.contains("euclidean"), "{help}");
        }
        other => panic!("{other:?}"),
    }
    y[[2, 3]] = f64::INFINITY;
    let refused = settings(&shapes, Algorithm::Grouped).fit(&y);
    assert!(matches!(refused, Err(Error::Domain { .. })), "{refused:?}");
}
