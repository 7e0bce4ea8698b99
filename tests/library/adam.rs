//! Adam: gradients against finite differences of the loss, steps against its formula, and where it ends
//! against multiplicative updates.

use crate::common::{CORPUS, Case, Random, data, deviation, entry, losses, partitions};
use ndarray::{Array2, ArrayD};
use nneinfact::fit::{Balance, Cancel, Coupled, Flow, Format, Part, Start, StoppedBy, Sweep};
use nneinfact::loss::Penalty;
use nneinfact::model::Shapes;
use nneinfact::reference::Problem;
use nneinfact::{Algorithm, Device, Error, Loss, NNEinFact, Observations, Precision};

/// ŷ is raised to this, in engine and reference alike; no ŷ here is as small.
const FLOOR: f64 = 1e-6;

fn settings(shapes: &Shapes, start: &[ArrayD<f64>]) -> NNEinFact {
    crate::common::settings(shapes)
        .algorithm(Algorithm::Adam)
        .prediction_floor(FLOOR)
        .start(Start::Factors(start.to_vec()))
        .tolerance(0.0)
}

/// The shape of the data of a model of the corpus: small, and different for each mode.
fn shape(model: usize) -> Vec<usize> {
    let modes = CORPUS[model].modes();
    (0..modes).map(|m| if modes > 4 { 2 + m % 2 } else { 3 + (m + model) % 3 }).collect()
}

fn total(penalty: Option<Penalty>, factors: &[ArrayD<f64>]) -> f64 {
    penalty.map_or(0.0, |penalty| factors.iter().flatten().map(|&x| penalty.value(x)).sum())
}

/// Every loss and every model, with masks, weights and penalties, in all groupings, dense and as lists.
#[test]
fn gradients_are_those_of_finite_differences() {
    let mut wrong = Vec::new();
    for (turn, loss) in losses().into_iter().enumerate() {
        for (model, entry) in CORPUS.iter().enumerate() {
            let n = turn + model;
            let mut random = Random::new((31 * turn + model) as u64);
            let shapes = entry.shapes(&shape(model));
            let y = data(&mut random, &shapes, &loss);
            let start = random.factors(&shapes);
            let weights = match n % 3 {
                0 => None,
                1 => Some(random.mask(y.shape(), 0.7).mapv(|seen| f64::from(u8::from(seen)))),
                _ => Some(random.tensor(y.shape(), 0.0, 2.0)),
            };
            let weights = weights.map(|mut w: ArrayD<f64>| {
                w.iter_mut().take(1).for_each(|w| *w = 1.0);
                w
            });
            let penalty = [None, Some(Penalty::l1(0.3)), Some(Penalty::new(0.2, 1.5))][n / 3 % 3];
            let every = partitions(start.len());
            let mut settings = settings(&shapes, &start)
                .loss(loss.clone())
                .groups(every[(7 * turn + 3 * model) % every.len()].clone())
                .balance(Balance::Never);
            if let Some(penalty) = penalty {
                settings = settings.penalty_on_all(penalty);
            }
            // Weights other than 0 and 1 are no list.
            let listed = n % 3 != 2 && loss.domain().contains(0.0, &[]);
            if listed && n % 2 == 0 {
                settings = settings.data_as(Format::Sparse);
            }
            let mut observations = Observations::new(&y);
            if let Some(weights) = &weights {
                observations = match n % 3 {
                    1 => observations.mask(&weights.mapv(|w| w > 0.0)).unwrap(),
                    _ => observations.weights(weights).unwrap(),
                };
            }
            let what = format!("{}, {}", loss.name(), entry.name);
            let gradient =
                settings.gradient(&observations).unwrap_or_else(|e| panic!("{what}: {e}"));

            let problem = Problem {
                shapes: &shapes,
                loss: &loss,
                y: &y,
                weights: weights.as_ref(),
                floor: FLOOR,
            };
            let sum = weights.as_ref().map_or(y.len() as f64, |w| w.sum());
            let objective =
                |factors: &[ArrayD<f64>]| problem.loss(factors) + total(penalty, factors) / sum;
            let largest = gradient.iter().flatten().fold(0.0, |m: f64, g| m.max(g.abs()));
            assert!(largest > 0.0, "{what}: no gradient");
            for (l, gradient) in gradient.iter().enumerate() {
                assert_eq!(gradient.shape(), start[l].shape());
                // Some entries of each factor: all would take long.
                for e in (0..gradient.len()).step_by(1 + gradient.len() / 5) {
                    let moved = |by: f64| {
                        let mut factors = start.clone();
                        let x = factors[l].iter_mut().nth(e).unwrap();
                        *x *= by.exp();
                        objective(&factors)
                    };
                    let h = 1e-4;
                    // Of fourth order, so that h can be large enough for the digits of the loss.
                    let expected = (8.0 * (moved(h) - moved(-h))
                        - (moved(2.0 * h) - moved(-2.0 * h)))
                        / (12.0 * h);
                    let found = *gradient.iter().nth(e).unwrap();
                    if (found - expected).abs() > 1e-7 * largest + 1e-10 {
                        wrong.push(format!("{what}, factor {l}, {e}: {found} and not {expected}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Adam as it is written in Kingma & Ba 2015, on the logarithms, from gradients at given points.
#[test]
fn steps_are_those_of_the_formula() -> Result<(), Error> {
    let rate = 0.03;
    for (n, name) in ["NMF", "CP, 3 modes", "Tucker", "Uber, second"].into_iter().enumerate() {
        let mut random = Random::new(5 + n as u64);
        let shapes = entry(name).shapes(&[5, 4, 6, 3, 4][..entry(name).modes()]);
        let loss = [Loss::kl(), Loss::reverse_kl(), Loss::alpha_beta(-0.6, -0.7)?][n % 3].clone();
        let y = data(&mut random, &shapes, &loss);
        let mut start = random.factors(&shapes);
        // The first factor is given; the second one is bounded, at first by nothing.
        start[1].iter_mut().for_each(|x| *x = x.max(0.5));
        let observations = Observations::new(&y).held_out(0.2, 1)?;
        let configured = |start: &[ArrayD<f64>]| {
            settings(&shapes, start)
                .loss(loss.clone())
                .fix("theta_1", start[0].clone())
                .bounds("theta_2", 0.45, 2.0)
                .learning_rate(rate)
        };
        let mut factors = start.clone();
        let mut first: Vec<ArrayD<f64>> = start.iter().map(|f| f * 0.0).collect();
        let mut second = first.clone();
        for t in 1..=6 {
            let gradient = configured(&factors).gradient(&observations)?;
            assert!(gradient[0].iter().all(|&g| g == 0.0), "{name}: the first factor is fixed");
            for l in 0..factors.len() {
                first[l] = &first[l] * 0.9 + &gradient[l] * 0.1;
                second[l] = &second[l] * 0.999 + gradient[l].mapv(|g| g * g) * 0.001;
                let (m, v) =
                    (&first[l] / (1.0 - 0.9f64.powi(t)), &second[l] / (1.0 - 0.999f64.powi(t)));
                let log = factors[l].mapv(f64::ln) - rate * m / (v.mapv(f64::sqrt) + 1e-8);
                factors[l] = log.mapv(f64::exp);
            }
            factors[1].mapv_inplace(|x| x.clamp(0.45, 2.0));
        }
        let fit = configured(&start).max_iter(6).fit(&observations)?;
        let history = fit.history();
        assert_eq!((history.iterations, history.returned), (6, 6), "{name}: {:?}", history.loss);
        assert_eq!((history.algorithm.as_str(), history.stopped_by), ("adam", StoppedBy::MaxIter));
        assert_eq!(history.heldout_loss.len(), 7);
        let apart = deviation(fit.factors(), &factors);
        assert!(apart < 1e-9, "{name}: {apart:e}");
        assert_eq!(fit.factors()[0], start[0]);
        assert!(fit.factors()[1].iter().all(|&x| (0.45..=2.0).contains(&x)));
    }
    Ok(())
}

#[test]
fn small_steps_end_where_multiplicative_updates_do() -> Result<(), Error> {
    let mut random = Random::new(9);
    for loss in [Loss::kl(), Loss::euclidean(), Loss::hellinger(), Loss::geometric()] {
        // Rank one: there is one minimum.
        let model = || NNEinFact::new("ir,jr,kr->ijk");
        let y = random.tensor(&[6, 5, 4], 0.5, 3.0);
        let common = |fit: NNEinFact| {
            fit.ranks([('r', 1)]).loss(loss.clone()).precision(Precision::F64).device(Device::cpu())
        };
        let adam = common(model()?)
            .algorithm(Algorithm::Adam)
            .learning_rate(0.02)
            .tolerance(1e-12)
            .max_iter(4000)
            .fit(&y)?;
        let updates = common(model()?).tolerance(1e-12).max_iter(4000).fit(&y)?;
        let (found, expected) = (adam.history().returned_loss(), updates.history().last_loss());
        assert!(
            (found - expected).abs() < 1e-6 * expected.abs(),
            "{}: {found} and not {expected}, {:?}",
            loss.name(),
            adam.history().stopped_by
        );
        let falls = adam.history().loss.windows(2).take(20).all(|pair| pair[1] < pair[0]);
        assert!(falls, "{}: {:?}", loss.name(), &adam.history().loss[..20]);
    }
    Ok(())
}

#[test]
fn penalties_lead_to_the_same_end() -> Result<(), Error> {
    let mut random = Random::new(10);
    let y = random.tensor(&[8, 7], 0.5, 3.0);
    for (penalty, balance) in [
        (Penalty::l1(0.3), Balance::EverySweep),
        (Penalty::l2(0.3), Balance::EverySweep),
        (Penalty::l2(0.3), Balance::Never),
    ] {
        let run = |algorithm: Algorithm| {
            NNEinFact::new("ir,jr->ij")?
                .ranks([('r', 1)])
                .penalty_on_all(penalty)
                .balance(balance)
                .algorithm(algorithm)
                .precision(Precision::F64)
                .device(Device::cpu())
                .tolerance(1e-13)
                .max_iter(5000)
                .fit(&y)
        };
        let (adam, updates) = (run(Algorithm::Adam)?, run(Algorithm::Accelerated)?);
        let best = |objective: Vec<f64>| objective.into_iter().fold(f64::INFINITY, f64::min);
        let found = best(adam.history().objective());
        let expected = best(updates.history().objective());
        assert!(
            (found - expected).abs() < 1e-6 * expected,
            "{penalty:?} {balance:?}: {found} {expected}"
        );
    }
    Ok(())
}

/// Long steps rise and fall. What is returned is the best, and its losses are those of the history.
#[test]
fn the_best_point_is_returned() -> Result<(), Error> {
    let mut random = Random::new(11);
    let shapes = entry("CP, 3 modes").shapes(&[9, 8, 7]);
    let y = data(&mut random, &shapes, &Loss::kl());
    let start = random.factors(&shapes);
    let observations = Observations::new(&y).held_out(0.1, 1)?.validation(0.2, 1)?;
    for early_stopping in [false, true] {
        let fit = settings(&shapes, &start)
            .learning_rate(1.0)
            .early_stopping(early_stopping)
            .max_iter(40)
            .fit(&observations)?;
        let history = fit.history();
        let losses = if early_stopping { &history.validation_loss } else { &history.loss };
        assert!(losses.windows(2).any(|pair| pair[1] > pair[0]), "{losses:?}");
        let best = (0..losses.len()).min_by(|&i, &j| losses[i].total_cmp(&losses[j])).unwrap();
        assert_eq!(history.returned, best, "{losses:?}");
        let again = settings(&shapes, fit.factors()).max_iter(0).fit(&observations)?;
        for (found, expected) in [
            (again.history().loss[0], history.loss[best]),
            (again.history().validation_loss[0], history.validation_loss[best]),
            (again.history().heldout_loss[0], history.heldout_loss[best]),
        ] {
            assert!((found - expected).abs() < 1e-12 * expected, "{found} {expected}");
        }
    }
    Ok(())
}

#[test]
fn a_fit_that_is_cancelled_or_diverges_keeps_its_best_point() -> Result<(), Error> {
    let mut random = Random::new(12);
    let shapes = entry("Tucker").shapes(&[6, 5, 4]);
    let y = data(&mut random, &shapes, &Loss::kl());
    let start = random.factors(&shapes);
    let cancel = Cancel::new();
    let stop = cancel.clone();
    let fit = settings(&shapes, &start)
        .cancel(&cancel)
        .observe(move |sweep: &Sweep| {
            if sweep.iteration == 5 {
                stop.cancel();
            }
            Flow::Continue
        })
        .fit(&y)?;
    assert_eq!(fit.history().stopped_by, StoppedBy::Interrupted);
    assert_eq!((fit.history().iterations, fit.history().loss.len()), (5, 6));

    // exp(±1000) is no number: nothing but the start is left.
    let error = settings(&shapes, &start).learning_rate(1000.0).fit(&y).unwrap_err();
    assert!(!error.is_input());
    assert!(error.to_string().contains("lower learning rate"), "{error}");
    let Error::Broken { last, .. } = error else { panic!("{error}") };
    assert_eq!((last.history.returned, last.history.sweeps.as_slice()), (0, [0].as_slice()));
    assert!(deviation(&last.factors, &start) < 1e-14);
    Ok(())
}

#[test]
fn threads_and_the_order_of_starts_change_nothing() -> Result<(), Error> {
    let case = Case::new("Uber, first", &[5, 4, 6, 7, 8], Loss::kl(), 4);
    let run = |threads: usize| {
        let device = Device::cpu().threads(threads)?;
        case.settings(&device).algorithm(Algorithm::Adam).max_iter(8).fit(case.observations())
    };
    let (one, two) = (run(1)?, run(2)?);
    assert_eq!(one.factors(), two.factors());
    assert_eq!(one.history().loss, two.history().loss);

    // Of several starts the best after multiplicative sweeps is taken, and then nothing else differs.
    let several = |starts: usize, seed: u64| {
        NNEinFact::new("ir,jr->ij")?
            .ranks([('r', 2)])
            .device(Device::cpu())
            .algorithm(Algorithm::Adam)
            .seed(seed)
            .starts(starts)
            .max_iter(5)
            .fit(&Array2::from_shape_fn((9, 8), |(i, j)| ((i * j) % 5) as f64))
    };
    let best = several(4, 0)?;
    assert_eq!(best.factors(), several(1, best.history().seed)?.factors());
    Ok(())
}

#[test]
fn zeros_stay_where_no_floor_lifts_them() -> Result<(), Error> {
    let y = Array2::from_shape_fn((6, 5), |(i, j)| ((i + 2 * j) % 4) as f64);
    let mut random = Random::new(13);
    let mut start = vec![random.tensor(&[6, 2], 0.5, 1.0), random.tensor(&[5, 2], 0.5, 1.0)];
    start[0][[2, 1]] = 0.0;
    let fit = NNEinFact::new("ir,jr->ij")?
        .ranks([('r', 2)])
        .algorithm(Algorithm::Adam)
        .start(Start::Factors(start))
        .factor_floor(0.0)
        .max_iter(20)
        .fit(&y)?;
    assert_eq!(fit.factors()[0][[2, 1]], 0.0);
    assert!(fit.factors().iter().flatten().all(|x| x.is_finite() && *x >= 0.0));
    Ok(())
}

#[test]
#[cfg(feature = "gpu")]
fn a_gpu_agrees() -> Result<(), Error> {
    let Some(gpu) = crate::common::gpu() else { return Ok(()) };
    let cases = [
        ("Uber, second", vec![4, 5, 3, 7, 6], Loss::kl(), Format::Dense),
        ("CP, 3 modes", vec![9, 8, 7], Loss::alpha_beta(0.7, 0.0)?, Format::Sparse),
        ("Tucker", vec![6, 5, 8], Loss::euclidean(), Format::Dense),
        ("tensor train", vec![7, 6, 5], Loss::jensen_shannon(), Format::Dense),
        ("NMF", vec![12, 9], Loss::negative_binomial(2.0)?, Format::Sparse),
    ];
    for n in crate::common::gpu_cases(cases.len()) {
        let (name, shape, loss, form) = cases[n].clone();
        let case = Case::new(name, &shape, loss, n as u64);
        let observations = case.observations().held_out(0.2, 1)?;
        let settings = |device: &Device, precision: Precision| {
            case.settings(device)
                .data_as(form)
                .precision(precision)
                .penalty_on_all(Penalty::l2(0.1))
        };
        let on_gpu = || settings(&gpu, Precision::F32);
        let on_cpu = || settings(&Device::cpu(), Precision::F64);
        let what = format!("{name} under {}", case.loss.name());
        let apart =
            deviation(&on_gpu().gradient(&observations)?, &on_cpu().gradient(&observations)?);
        assert!(apart < 2e-4, "{what}: gradients {apart:e} apart");
        let run = |settings: NNEinFact| {
            settings.algorithm(Algorithm::Adam).max_iter(20).fit(&observations)
        };
        let (found, expected) = (run(on_gpu())?, run(on_cpu())?);
        // Entries whose gradient is next to nothing step by its sign, so losses are what to compare.
        let losses = |fit: &nneinfact::Fit| fit.history().objective();
        for (found, expected) in losses(&found).into_iter().zip(losses(&expected)) {
            assert!((found - expected).abs() < 1e-3 * expected.abs(), "{what}: {found} {expected}");
        }
        assert_eq!(found.history().loss.len(), 21);
    }
    Ok(())
}

#[test]
fn what_does_not_go_with_adam_is_refused() -> Result<(), Error> {
    let y = Array2::from_elem((4, 3), 1.0);
    let settings = || NNEinFact::new("ir,jr->ij").map(|fit| fit.ranks([('r', 1)]));
    for rate in [0.0, -0.1, f64::NAN, f64::INFINITY] {
        let fit = settings()?.algorithm(Algorithm::Adam).learning_rate(rate);
        let error = fit.fit(&y).unwrap_err();
        assert!(error.is_input() && error.to_string().contains("learning rate"), "{error}");
    }
    for algorithm in [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated] {
        let error = settings()?.algorithm(algorithm).learning_rate(0.1).fit(&y).unwrap_err();
        assert!(error.is_input() && error.to_string().contains(algorithm.name()), "{error}");
    }
    let coupled = Coupled::new([Part::new("ir,jr->ij", &y)?])
        .settings(|all| all.ranks([('r', 1)]).algorithm(Algorithm::Adam));
    let error = coupled.fit().unwrap_err();
    assert!(error.is_input() && error.to_string().contains("adam"), "{error}");
    Ok(())
}
