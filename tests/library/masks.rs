//! Closed forms where entries have roles, and exact steps under masks, hold-outs and weights.

use crate::common::{Random, deviation, entry};
use ndarray::{ArrayD, IxDyn, Zip};
use nneinfact::fit::{Format, Start};
use nneinfact::model::Shapes;
use nneinfact::reference::{Problem, predict};
use nneinfact::{Algorithm, Device, Fit, Loss, NNEinFact, Observations, Precision};

const FLOOR: f64 = 1e-9;

/// Counts, two thirds of them 0.
fn counts(random: &mut Random, shape: &[usize]) -> ArrayD<f64> {
    random.tensor(shape, -6.0, 3.0).mapv(|x| x.max(0.0).ceil())
}

/// What is left of each row of the first mode.
#[derive(Clone, Copy, Debug)]
enum Left {
    One,
    AllButOne,
    All,
    Mixed,
}

/// Where an entry is trained on.
fn train(shape: &[usize], left: Left) -> ArrayD<bool> {
    let mut at = vec![0usize; shape[0]];
    let per_row: usize = shape[1..].iter().product();
    ArrayD::from_shape_fn(IxDyn(shape), |index| {
        let row = index[0];
        let one = at[row] == (7 * row + 3) % per_row;
        at[row] += 1;
        match left {
            Left::One => one,
            Left::AllButOne => !one,
            Left::All => true,
            Left::Mixed if row % 3 == 0 => one,
            Left::Mixed if row % 3 == 1 => !one,
            Left::Mixed => at[row] % 7 != 2,
        }
    })
}

fn ones(flags: &ArrayD<bool>) -> ArrayD<f64> {
    flags.mapv(|b| f64::from(u8::from(b)))
}

/// The settings of a fit from given factors.
fn settings(shapes: &Shapes, loss: &Loss, start: &[ArrayD<f64>]) -> NNEinFact {
    let model = shapes.model();
    let ranks = model.latent().iter().map(|x| (char::from(x), shapes.size(x)));
    NNEinFact::new(model.text())
        .expect("a model")
        .ranks(ranks.collect::<Vec<_>>())
        .loss(loss.clone())
        .device(Device::cpu())
        .start(Start::Factors(start.to_vec()))
        .prediction_floor(FLOOR)
        .tolerance(0.0)
}

#[test]
fn sweeps_under_masks_are_those_of_the_reference() {
    let cases = [("NMF", vec![9, 300]), ("NMF", vec![300, 9]), ("CP, 3 modes", vec![6, 7, 20])];
    let losses = [Loss::kl(), Loss::hellinger(), Loss::jensen_shannon()];
    for (n, (name, shape)) in cases.iter().enumerate() {
        let shapes = entry(name).shapes(shape);
        for (m, left) in
            [Left::One, Left::AllButOne, Left::All, Left::Mixed].into_iter().enumerate()
        {
            let loss = &losses[(n + m) % losses.len()];
            let mut random = Random::new((10 * n + m) as u64);
            // Where a row's only entry is 0, its factors go to 0, and to floors.
            let y = counts(&mut random, shape) + ones(&train(shape, Left::One));
            let start = random.factors(&shapes);
            let flags = train(shape, left);
            let weights = ones(&flags);
            let problem =
                Problem { shapes: &shapes, loss, y: &y, weights: Some(&weights), floor: FLOOR };
            let mut expected = start.clone();
            (0..3).for_each(|_| problem.sweep(&mut expected));
            for (form, precision) in [
                (Format::Dense, Precision::F64),
                (Format::Sparse, Precision::F64),
                (Format::Dense, Precision::F32),
                (Format::Sparse, Precision::F32),
            ] {
                let observations = Observations::new(&y);
                let observations = match m % 2 {
                    0 => observations.mask(&flags),
                    _ => observations.held_out_mask(&flags.mapv(|b| !b)),
                };
                let fit = settings(&shapes, loss, &start)
                    .precision(precision)
                    .algorithm(Algorithm::Block)
                    .max_iter(3)
                    .data_as(form)
                    .fit(observations.expect("observations"))
                    .expect("it fits");
                let apart = deviation(fit.factors(), &expected);
                let most = if precision == Precision::F64 { 1e-9 } else { 3e-4 };
                let what =
                    format!("{name} {shape:?} {left:?} {} {form:?} {precision:?}", loss.name());
                assert!(apart <= most, "{what}: {apart:e}");
            }
        }
    }
}

#[test]
fn losses_of_withheld_zeros_are_summed_in_closed_form() {
    let shapes = entry("NMF").shapes(&[20, 400]);
    let mut random = Random::new(4);
    let y = counts(&mut random, &[20, 400]);
    let start = random.factors(&shapes);
    for loss in [Loss::kl(), Loss::jensen_shannon()] {
        let observations =
            Observations::new(&y).held_out(0.2, 1).and_then(|o| o.validation(0.4, 2));
        let observations = observations.expect("fractions");
        let run = |form| {
            settings(&shapes, &loss, &start)
                .precision(Precision::F64)
                .algorithm(Algorithm::Grouped)
                .max_iter(2)
                .data_as(form)
                .fit(&observations)
                .expect("it fits")
        };
        let (dense, sparse) = (run(Format::Dense), run(Format::Sparse));
        let (d, s) = (dense.history(), sparse.history());
        for (d, s) in [
            (&d.loss, &s.loss),
            (&d.validation_loss, &s.validation_loss),
            (&d.heldout_loss, &s.heldout_loss),
        ] {
            assert!(!d.is_empty() && d.len() == s.len());
            for (d, s) in d.iter().zip(s) {
                assert!((d - s).abs() <= 1e-8 * d.abs(), "{}: {d} {s}", loss.name());
            }
        }
    }
}

/// Half the squared distance's gradient by each entry of a factor, and its size without cancellation.
fn gradient(
    shapes: &Shapes,
    y: &ArrayD<f64>,
    weights: &ArrayD<f64>,
    factors: &[ArrayD<f64>],
    l: usize,
) -> Vec<[f64; 2]> {
    let mut off = predict(shapes, factors) - y;
    Zip::from(&mut off).and(weights).for_each(|off, &w| *off *= w);
    let mut changed = factors.to_vec();
    (0..factors[l].len())
        .map(|i| {
            // ŷ is linear in a factor: its derivative is ŷ at a unit entry.
            changed[l].fill(0.0);
            *changed[l].iter_mut().nth(i).expect("an entry") = 1.0;
            let v = predict(shapes, &changed);
            let sum: f64 = off.iter().zip(&v).map(|(off, v)| off * v).sum();
            let size: f64 = off.iter().zip(&v).map(|(off, v)| (off * v).abs()).sum();
            [sum, size]
        })
        .collect()
}

/// The ways that a fit is told what an entry counts.
fn observed(y: &ArrayD<f64>, flags: &ArrayD<bool>, weights: Option<&ArrayD<f64>>) -> Observations {
    let observations = Observations::new(y).mask(flags).expect("a mask");
    match weights {
        Some(weights) => observations.weights(weights).expect("weights"),
        None => observations,
    }
}

#[test]
fn exact_steps_find_the_optimum_under_masks_and_weights() {
    let shape = [12, 40];
    let shapes = entry("NMF").shapes(&shape);
    for (seed, share) in [(1, 0.9), (2, 0.5), (3, 0.15)] {
        for weighted in [false, true] {
            for form in [Format::Dense, Format::Sparse] {
                if weighted && form == Format::Sparse {
                    continue;
                }
                let mut random = Random::new(seed);
                let y = counts(&mut random, &shape);
                let start = random.factors(&shapes);
                let mut flags = random.mask(&shape, share);
                flags.iter_mut().step_by(40).for_each(|flag| *flag = true);
                let weights = weighted.then(|| random.tensor(&shape, 0.5, 3.0));
                let fit = settings(&shapes, &Loss::euclidean(), &start)
                    .precision(Precision::F64)
                    .algorithm(Algorithm::Accelerated)
                    .fix("theta_2", start[1].clone())
                    .max_iter(200)
                    .data_as(form)
                    .fit(observed(&y, &flags, weights.as_ref()))
                    .expect("it fits");
                let mut counted = ones(&flags);
                if let Some(weights) = &weights {
                    counted *= weights;
                }
                let found = fit.factors();
                let gradient = gradient(&shapes, &y, &counted, found, 0);
                for (x, [sum, size]) in found[0].iter().zip(gradient) {
                    let what = format!("{seed} {weighted} {form:?}: {x} {sum:e} of {size:e}");
                    assert!(sum >= -1e-6 * size, "{what}");
                    assert!(*x == 0.0 || sum <= 1e-6 * size, "{what}");
                }
            }
        }
    }
}

/// A model's values with noise, and a start elsewhere.
fn planted(shapes: &Shapes, seed: u64) -> (ArrayD<f64>, Vec<ArrayD<f64>>) {
    let mut random = Random::new(seed);
    let truth = random.factors(shapes);
    let noise = random.tensor(&shapes.data(), 0.9, 1.1);
    (predict(shapes, &truth) * noise, random.factors(shapes))
}

#[test]
fn a_hold_out_costs_half_the_squared_distance_no_sweeps() {
    let shapes = entry("CP, 3 modes").shapes(&[20, 18, 16]);
    let (y, start) = planted(&shapes, 8);
    let run = |observations: &Observations| {
        settings(&shapes, &Loss::euclidean(), &start)
            .precision(Precision::F64)
            .tolerance(1e-6)
            .max_iter(500)
            .fit(observations)
            .expect("it fits")
    };
    let all = run(&Observations::new(&y));
    let held = run(&Observations::new(&y).held_out(0.1, 3).expect("a fraction"));
    let sweeps = |fit: &Fit| fit.history().loss.len();
    assert!(held.warnings().is_empty(), "{:?}", held.warnings());
    assert!(sweeps(&held) <= 2 * sweeps(&all) + 5, "{} and {}", sweeps(&held), sweeps(&all));
}

#[test]
fn exact_steps_under_masks_never_let_the_loss_rise() {
    for (name, shape) in [("NMF", vec![30, 25]), ("CP, 3 modes", vec![9, 8, 10])] {
        let shapes = entry(name).shapes(&shape);
        let (y, start) = planted(&shapes, 2);
        for share in [0.9, 0.4] {
            let flags = Random::new(6).mask(&shape, share);
            let fit = settings(&shapes, &Loss::euclidean(), &start)
                .precision(Precision::F64)
                .max_iter(30)
                .fit(observed(&y, &flags, None))
                .expect("it fits");
            let losses = &fit.history().loss;
            let rise = losses.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
            assert!(rise <= 1e-12 * losses[0], "{name} {share}: {rise:e} of {}", losses[0]);
        }
    }
}

#[test]
fn without_memory_for_exact_steps_a_fit_says_so() {
    let shape = [3000, 40];
    let shapes = entry("NMF").shapes(&shape);
    let (y, start) = planted(&shapes, 5);
    let observations = Observations::new(&y).held_out(0.1, 1).expect("a fraction");
    let run = |memory: u64| {
        settings(&shapes, &Loss::euclidean(), &start)
            .max_iter(3)
            .memory_limit(memory)
            .data_as(Format::Dense)
            .fit(&observations)
            .expect("it fits")
    };
    assert!(run(1 << 30).warnings().is_empty());
    let told = run(300 << 10).warnings().join("\n");
    assert!(told.contains("majorization") && told.contains("quadratic form"), "{told}");
}

#[test]
fn threads_do_not_change_a_bit_under_masks() {
    let shape = [300, 18, 40];
    let shapes = entry("CP, 3 modes").shapes(&shape);
    let mut random = Random::new(3);
    let y = counts(&mut random, &shape);
    let start = random.factors(&shapes);
    let observations = Observations::new(&y)
        .held_out(0.15, 1)
        .and_then(|o| o.validation(0.1, 2))
        .expect("fractions");
    for (loss, form) in [
        (Loss::kl(), Format::Sparse),
        (Loss::kl(), Format::Dense),
        (Loss::euclidean(), Format::Sparse),
        (Loss::euclidean(), Format::Dense),
    ] {
        let run = |threads: usize| -> Vec<u64> {
            let fit = settings(&shapes, &loss, &start)
                .device(Device::cpu().threads(threads).expect("threads start"))
                .max_iter(3)
                .data_as(form)
                .fit(&observations)
                .expect("it fits");
            let history = fit.history();
            let losses = history.loss.iter().chain(&history.validation_loss);
            fit.factors().iter().flatten().chain(losses).map(|x| x.to_bits()).collect()
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3), "{} {form:?}", loss.name());
    }
}

#[test]
fn data_that_are_mostly_zeros_stay_sparse_under_a_split() {
    let shape = [300, 400];
    let shapes = entry("NMF").shapes(&shape);
    let mut random = Random::new(12);
    let y = random.tensor(&shape, -99.0, 1.0).mapv(|x| (9.0 * x.max(0.0)).ceil());
    let observations = Observations::new(&y).held_out(0.1, 4).expect("a fraction");
    for loss in [Loss::kl(), Loss::euclidean()] {
        let fit = settings(&shapes, &loss, &random.factors(&shapes))
            .max_iter(2)
            .fit(&observations)
            .expect("it fits");
        let told = fit.plan().implicit_entries().unwrap_or("dense passes");
        assert!(told.contains("less sums over the withheld ones"), "{}: {told}", loss.name());
    }
}
