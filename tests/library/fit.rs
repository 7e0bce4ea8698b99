//! Fits with known answers, at the edges of what is allowed, and beyond them.

use std::sync::{Arc, Mutex};

use crate::common::{
    CORPUS, Configuration, Random, array_deviation, cpu_configurations, data, deviation, entry,
    largest_rise, losses, mean_term,
};
use ndarray::{Array2, Array3, ArrayD, Axis, Dimension as _, IxDyn, array};
use nneinfact::fit::{Cancel, Flow, Format, Norm, ScalesInto, Start, StoppedBy, Sweep};
use nneinfact::loss::Domain;
use nneinfact::model::{ModelError, Shapes};
use nneinfact::reference;
use nneinfact::{Algorithm, Device, Error, Fit, Loss, NNEinFact, Observations, Precision};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Block, Algorithm::Grouped];

/// A fit of the model of these shapes, in double precision, without an early stop.
fn settings(shapes: &Shapes) -> NNEinFact {
    crate::common::settings(shapes).tolerance(0.0)
}

fn configured(shapes: &Shapes, configuration: &Configuration) -> NNEinFact {
    settings(shapes).device(configuration.device.clone()).precision(configuration.precision)
}

fn sum(array: &ArrayD<f64>) -> f64 {
    array.iter().sum()
}

// ---- Known answers ----

#[test]
fn kl_of_rank_1_is_the_product_of_the_marginals() {
    let models = [
        ("ir,jr->ij", vec![6, 9]),
        ("ir,jr,ar->ija", vec![4, 5, 6]),
        ("ir,jr,ar,tr->ijat", vec![4, 3, 5, 2]),
    ];
    for (text, shape) in models {
        let y = Random::new(1).tensor(&shape, 0.0, 5.0);
        let total = sum(&y);
        let expected = ArrayD::from_shape_fn(y.raw_dim(), |at| {
            let marginals =
                (0..shape.len()).map(|axis| sum(&y.index_axis(Axis(axis), at[axis]).to_owned()));
            marginals.product::<f64>() / total.powi(shape.len() as i32 - 1)
        });
        for algorithm in ALGORITHMS {
            let fit = NNEinFact::new(text)
                .expect("a model")
                .ranks([('r', 1)])
                .algorithm(algorithm)
                .precision(Precision::F64)
                .tolerance(0.0)
                .max_iter(200)
                .fit(&y)
                .expect("it fits");
            let apart = array_deviation(&fit.reconstruct().expect("small"), &expected);
            assert!(apart < 1e-9, "{text}, {}: {apart:e}", algorithm.name());
        }
    }
}

#[test]
fn a_block_sweep_under_kl_makes_the_totals_agree() {
    for entry in CORPUS {
        let mut random = Random::new(2);
        let shapes = entry.shapes(&[5, 4, 6, 3, 4, 3][..entry.modes()]);
        let y = random.tensor(&shapes.data(), 0.0, 3.0);
        let fit = settings(&shapes)
            .algorithm(Algorithm::Block)
            .start(Start::Factors(random.factors(&shapes)))
            .factor_floor(0.0)
            .max_iter(1)
            .fit(&y)
            .expect("it fits");
        let (fitted, total) = (sum(&fit.reconstruct().expect("small")), sum(&y));
        assert!((fitted - total).abs() < 1e-11 * total, "{}: {fitted} and {total}", entry.name);
    }
}

#[test]
fn factors_that_made_the_data_stay() {
    for configuration in cpu_configurations() {
        let allowed = configuration.tolerance;
        for loss in losses().into_iter().filter(|loss| *loss.domain() != Domain::Binary) {
            for name in ["CP, 3 modes", "Tucker", "Uber, second"] {
                let entry = entry(name);
                let shapes = entry.shapes(&[4, 5, 3, 4, 3][..entry.modes()]);
                let start = Random::new(3).factors(&shapes);
                let y = reference::predict(&shapes, &start).mapv(|y| {
                    // The datum that a value of the model fits best.
                    if loss.is_odds() { 5.0 * y / (1.0 + y) } else { y }
                });
                for algorithm in ALGORITHMS {
                    let fit = configured(&shapes, &configuration)
                        .loss(loss.clone())
                        .algorithm(algorithm)
                        .start(Start::Factors(start.clone()))
                        .max_iter(5)
                        .fit(&y)
                        .expect("it fits");
                    let apart = deviation(fit.factors(), &start);
                    let what = format!(
                        "{}, {name}, {}, {}: {apart:e}",
                        configuration.name,
                        loss.name(),
                        algorithm.name()
                    );
                    assert!(apart <= allowed, "{what}");
                }
            }
        }
    }
}

// ---- Empty and missing slices ----

/// Checks that a fit went well: finite numbers, and a loss that does not rise.
fn check_sane(fit: &Fit, rise: f64, term: f64, what: &str) {
    for (l, factor) in fit.factors().iter().enumerate() {
        assert!(factor.iter().all(|x| x.is_finite() && *x >= 0.0), "{what}: factor {l}: {factor}");
    }
    assert!(fit.history().loss.iter().all(|f| f.is_finite()), "{what}: {:?}", fit.history().loss);
    let found = largest_rise(&fit.history().loss, term);
    assert!(found <= rise, "{what}: rise {found:e}");
}

#[test]
fn empty_and_missing_slices_leave_everything_finite() {
    for configuration in cpu_configurations() {
        for loss in losses() {
            for name in ["NMF", "CP, 3 modes", "Tucker", "Uber, second"] {
                let mut random = Random::new(4);
                let entry = entry(name);
                let shapes = entry.shapes(&[5, 4, 6, 4, 3][..entry.modes()]);
                let mut y = data(&mut random, &shapes, &loss);
                let mut mask = random.mask(&shapes.data(), 0.9);
                for axis in 0..entry.modes() {
                    if loss.domain().contains(0.0, &[]) {
                        y.index_axis_mut(Axis(axis), 1).fill(0.0);
                    }
                    y.index_axis_mut(Axis(axis), 2).fill(f64::NAN);
                    mask.index_axis_mut(Axis(axis), 2).fill(false);
                }
                mask[&*vec![0; entry.modes()]] = true;
                let observations =
                    Observations::new(&y).mask(&mask).expect("the mask has the data's shape");
                let weights = mask.mapv(|m| f64::from(u8::from(m)));
                let start = random.factors(&shapes);
                let predicted = reference::predict(&shapes, &start);
                let term = mean_term(&loss, &y, Some(&weights), &predicted, 1e-6);
                for algorithm in ALGORITHMS {
                    for floor in [0.0, NNEinFact::FACTOR_FLOOR] {
                        let what = format!(
                            "{}, {name}, {}, {}, floor {floor}",
                            configuration.name,
                            loss.name(),
                            algorithm.name()
                        );
                        let fit = configured(&shapes, &configuration)
                            .loss(loss.clone())
                            .algorithm(algorithm)
                            .factor_floor(floor)
                            .start(Start::Factors(start.clone()))
                            .max_iter(15)
                            .fit(&observations)
                            .unwrap_or_else(|error| panic!("{what}: {error}"));
                        check_sane(&fit, configuration.rise, term, &what);
                    }
                }
            }
        }
    }
}

#[test]
fn data_that_are_all_zero_can_be_fitted() {
    let y = Array2::<f64>::zeros((4, 5));
    for loss in losses().into_iter().filter(|loss| loss.domain().contains(0.0, &[])) {
        for configuration in cpu_configurations() {
            let what = format!("{}, {}", configuration.name, loss.name());
            let fit = NNEinFact::new("ir,jr->ij")
                .expect("a model")
                .ranks([('r', 2)])
                .loss(loss.clone())
                .precision(configuration.precision)
                .device(configuration.device.clone())
                .max_iter(10)
                .fit(&y)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            check_sane(&fit, configuration.rise, fit.history().loss[0].abs().max(1e-12), &what);
        }
    }
}

// ---- Scale ----

#[test]
fn scaled_data_give_scaled_fits() {
    let shapes = entry("CP, 3 modes").shapes(&[6, 5, 7]);
    for configuration in cpu_configurations() {
        // f32 data of this scale are not those of scale 1 times a number.
        let allowed = if configuration.precision == Precision::F64 { 1e-8 } else { 2e-3 };
        for loss in losses().into_iter().filter(|loss| loss.homogeneity().is_some()) {
            let y = data(&mut Random::new(5), &shapes, &loss);
            let run = |scale: f64| {
                configured(&shapes, &configuration)
                    .loss(loss.clone())
                    .seed(1)
                    .max_iter(15)
                    .fit(&y.mapv(|x| x * scale))
                    .unwrap_or_else(|e| panic!("{}, scale {scale:e}: {e}", loss.name()))
            };
            let expected = run(1.0);
            let whole = expected.reconstruct().expect("small");
            for exponent in [-12, -9, -6, -3, 3, 6, 9, 12] {
                let scale = 10f64.powi(exponent);
                let fit = run(scale);
                let what = format!("{}, {}, 1e{exponent}", configuration.name, loss.name());
                let scaled = fit.reconstruct().expect("small").mapv(|x| x / scale);
                let apart = array_deviation(&scaled, &whole);
                assert!(apart <= allowed, "{what}: ŷ {apart:e}");
                let degree = loss.homogeneity().unwrap_or(0.0);
                let unit = scale.powf(degree);
                let first = expected.history().loss[0].abs();
                for (found, expected) in fit.history().loss.iter().zip(&expected.history().loss) {
                    let apart = (found / unit - expected).abs() / first;
                    assert!(apart <= allowed, "{what}: loss {found} is not {expected} scaled");
                }
            }
        }
    }
}

#[test]
fn data_too_small_for_the_precision_count_as_zero() {
    for configuration in cpu_configurations() {
        // From numbers that are 0 in this precision to numbers whose quotient with ŷ is.
        let tiny: &[f64] = match configuration.precision {
            Precision::F32 => &[1e-60, 1e-45, 1e-42, 1e-38, 3e-38],
            Precision::F64 => &[5e-324, 1e-320, 1e-310, 3e-308],
        };
        let zeros = |loss: &Loss| matches!(loss.domain(), Domain::Any | Domain::NonNegative);
        for loss in losses().into_iter().filter(zeros) {
            let shapes = entry("NMF").shapes(&[5, 6]);
            let mut y = data(&mut Random::new(17), &shapes, &loss);
            let zeros: Vec<usize> = (0..y.len()).filter(|i| i % 3 == 0).collect();
            let mut run = |value: f64| {
                let cells = y.as_slice_mut().expect("in order");
                zeros.iter().for_each(|&i| cells[i] = value);
                configured(&shapes, &configuration)
                    .loss(loss.clone())
                    .max_iter(5)
                    .fit(&y)
                    .unwrap_or_else(|e| panic!("{}, {value:e}: {e}", configuration.name))
            };
            let expected = run(0.0);
            for &value in tiny {
                let apart = deviation(run(value).factors(), expected.factors());
                let what = format!("{}, {}, {value:e}", configuration.name, loss.name());
                assert!(apart <= 1e-4, "{what}: {apart:e}");
            }
        }
    }
}

// ---- Missing, weighted and withheld cells ----

#[test]
fn what_stands_in_a_missing_cell_changes_nothing() {
    let shapes = entry("Tucker").shapes(&[5, 6, 7]);
    for loss in [Loss::kl(), Loss::itakura_saito(), Loss::euclidean()] {
        let mut random = Random::new(6);
        let y = data(&mut random, &shapes, &loss);
        let mask = random.mask(&shapes.data(), 0.7);
        let weights = mask.mapv(|m| if m { 1.5 } else { 0.0 });
        for configuration in cpu_configurations() {
            for algorithm in ALGORITHMS {
                let run = |in_missing: f64| {
                    let mut y = y.clone();
                    ndarray::Zip::from(&mut y).and(&mask).for_each(|y, &m| {
                        if !m {
                            *y = in_missing;
                        }
                    });
                    let fit = |observations: &Observations| {
                        let fit = configured(&shapes, &configuration)
                            .loss(loss.clone())
                            .algorithm(algorithm)
                            .max_iter(4)
                            .fit(observations)
                            .expect("it fits");
                        (fit.factors().to_vec(), fit.history().loss.clone())
                    };
                    let masked = Observations::new(&y).mask(&mask).expect("a mask");
                    let weighted = Observations::new(&y).weights(&weights).expect("weights");
                    (fit(&masked), fit(&weighted))
                };
                let expected = run(1.0);
                for value in [f64::NAN, f64::INFINITY, -3.0, 0.0] {
                    assert_eq!(run(value), expected, "{value}, {}", configuration.name);
                }
            }
        }
    }
}

#[test]
fn nan_can_mean_missing() {
    let mut random = Random::new(7);
    let y = random.tensor(&[6, 7], 0.5, 2.0);
    let mask = random.mask(&[6, 7], 0.8);
    let holed = ArrayD::from_shape_fn(y.raw_dim(), |at| if mask[&at] { y[&at] } else { f64::NAN });
    let shapes = entry("NMF").shapes(&[6, 7]);
    let masked =
        settings(&shapes).max_iter(3).fit(Observations::new(&y).mask(&mask).expect("a mask"));
    let nan = settings(&shapes).max_iter(3).fit(Observations::new(&holed).nan_missing());
    assert_eq!(masked.expect("it fits").factors(), nan.expect("it fits").factors());
}

#[test]
fn integer_weights_are_replication() {
    let times = [1usize, 3, 2, 1, 4];
    let mut random = Random::new(8);
    let y = random.tensor(&[6, 5], 0.0, 4.0);
    let (theta_i, theta_j) = (random.tensor(&[6, 2], 0.1, 1.0), random.tensor(&[5, 2], 0.1, 1.0));
    let weights = ArrayD::from_shape_fn(IxDyn(&[6, 5]), |at| times[at[1]] as f64);
    let columns: Vec<usize> = (0..5).flat_map(|j| vec![j; times[j]]).collect();
    let (many_y, many_theta) = (y.select(Axis(1), &columns), theta_j.select(Axis(0), &columns));
    for loss in [Loss::kl(), Loss::euclidean(), Loss::hellinger()] {
        for algorithm in ALGORITHMS {
            let run = |observations: &Observations, theta_j: &ArrayD<f64>| {
                NNEinFact::new("ir,jr->ij")
                    .expect("a model")
                    .ranks([('r', 2)])
                    .loss(loss.clone())
                    .precision(Precision::F64)
                    .algorithm(algorithm)
                    // The planner may choose otherwise for more columns.
                    .groups(vec![vec![0], vec![1]])
                    .start(Start::Factors(vec![theta_i.clone(), theta_j.clone()]))
                    .max_iter(6)
                    .tolerance(0.0)
                    .fit(observations)
                    .expect("it fits")
            };
            let weighted =
                run(&Observations::new(&y).weights(&weights).expect("weights"), &theta_j);
            let replicated = run(&Observations::new(&many_y), &many_theta);
            let expected =
                [weighted.factors()[0].clone(), weighted.factors()[1].select(Axis(0), &columns)];
            assert!(deviation(replicated.factors(), &expected) < 1e-12, "{}", loss.name());
            let losses = weighted.history().loss.iter().zip(&replicated.history().loss);
            losses.for_each(|(a, b)| assert!((a - b).abs() < 1e-12 * a.abs(), "{a} and {b}"));
        }
    }
}

#[test]
fn withheld_cells_do_not_influence_the_fit() {
    let shapes = entry("CP, 3 modes").shapes(&[6, 7, 8]);
    let mut random = Random::new(9);
    let y = random.tensor(&shapes.data(), 0.5, 4.0);
    let held_out = random.mask(&shapes.data(), 0.2);
    let changed =
        ArrayD::from_shape_fn(
            y.raw_dim(),
            |at| {
                if held_out[&at] { 1000.0 * y[&at] } else { y[&at] }
            },
        );
    for configuration in cpu_configurations() {
        for algorithm in ALGORITHMS {
            let run = |y: &ArrayD<f64>| {
                let observations = Observations::new(y).held_out_mask(&held_out).expect("a mask");
                configured(&shapes, &configuration)
                    .algorithm(algorithm)
                    .max_iter(4)
                    .fit(&observations)
                    .expect("it fits")
            };
            let (one, other) = (run(&y), run(&changed));
            assert_eq!(one.factors(), other.factors(), "{}", configuration.name);
            assert_eq!(one.history().loss, other.history().loss);
            assert_ne!(one.history().heldout_loss, other.history().heldout_loss);
            // The same as not having seen them at all.
            let unseen = Observations::new(&y).mask(&held_out.mapv(|h| !h)).expect("a mask");
            let unseen = configured(&shapes, &configuration)
                .algorithm(algorithm)
                .max_iter(4)
                .fit(&unseen)
                .expect("it fits");
            assert!(deviation(one.factors(), unseen.factors()) <= configuration.tolerance);
        }
    }
}

#[test]
fn withheld_losses_are_those_of_the_reference() {
    let shapes = entry("CP, 3 modes").shapes(&[6, 7, 8]);
    let mut random = Random::new(10);
    let loss = Loss::kl();
    let y = data(&mut random, &shapes, &loss);
    let held_out = random.mask(&shapes.data(), 0.3);
    let observations = Observations::new(&y).held_out_mask(&held_out).expect("a mask");
    let fit = settings(&shapes).max_iter(5).fit(&observations).expect("it fits");
    let of = |cells: &ArrayD<bool>| {
        let weights = cells.mapv(|c| f64::from(u8::from(c)));
        let problem = reference::Problem {
            shapes: &shapes,
            loss: &loss,
            y: &y,
            weights: Some(&weights),
            floor: 1e-10,
        };
        problem.loss(fit.factors())
    };
    let close = |found: f64, expected: f64| (found - expected).abs() < 1e-10 * expected;
    let history = fit.history();
    assert_eq!(history.heldout_loss.len(), history.loss.len());
    assert!(history.validation_loss.is_empty());
    assert!(close(history.last_loss(), of(&held_out.mapv(|h| !h))));
    assert!(close(history.heldout_loss[5], of(&held_out)));
}

// ---- Stopping ----

#[test]
fn early_stopping_returns_the_iterate_of_lowest_validation_loss() {
    // Noise and more parameters than data: it overfits soon.
    let y =
        Random::new(11).tensor(&[12, 10], 0.0, 1.0).mapv(|u| if u < 0.7 { 0.0 } else { 9.0 * u });
    let shapes = Shapes::new(
        &nneinfact::model::Model::parse("ir,jr->ij").expect("a model"),
        &[12, 10],
        &[('r', 8)],
    )
    .expect("ranks");
    let observations = Observations::new(&y).validation(0.3, 1).expect("a fraction");
    for algorithm in ALGORITHMS {
        let run = || settings(&shapes).algorithm(algorithm).seed(2).max_iter(1000);
        let fit = run().early_stopping(true).fit(&observations).expect("it fits");
        let history = fit.history();
        assert_eq!(history.stopped_by, StoppedBy::Validation);
        let validation = &history.validation_loss;
        let least = validation.iter().copied().fold(f64::INFINITY, f64::min);
        assert_eq!(validation[history.returned], least);
        assert!(history.returned < history.iterations, "the last is not the best");
        assert_eq!(validation.len(), history.iterations + 1);
        // Five rises in a row at the end, and never before.
        let rises: Vec<bool> = validation.windows(2).map(|w| w[1] > w[0]).collect();
        let five: Vec<usize> =
            (4..rises.len()).filter(|&n| rises[n - 4..=n].iter().all(|&r| r)).collect();
        assert_eq!(five, [rises.len() - 1]);
        let again = run().max_iter(history.returned).fit(&observations).expect("it fits");
        assert_eq!(fit.factors(), again.factors(), "the factors are those of that iteration");
        assert_eq!(history.returned_loss(), again.history().last_loss());
    }
}

#[test]
fn the_tolerance_stops_at_the_third_slow_sweep_in_a_row() {
    let shapes = entry("CP, 3 modes").shapes(&[6, 7, 8]);
    let y = data(&mut Random::new(12), &shapes, &Loss::kl());
    for tolerance in [1e-2, 1e-4, 1e-6] {
        let fit = settings(&shapes).tolerance(tolerance).max_iter(5000).fit(&y).expect("it fits");
        let history = fit.history();
        assert_eq!(history.stopped_by, StoppedBy::Tolerance, "{tolerance}");
        let f = &history.loss;
        assert_eq!(f.len(), history.iterations + 1);
        assert_eq!(history.returned, history.iterations);
        let slow: Vec<bool> = (1..f.len())
            .map(|n| f[n - 1] - f[n] <= tolerance * f[n].abs().max(f[0] - f[n]))
            .collect();
        let three: Vec<usize> =
            (2..slow.len()).filter(|&n| slow[n - 2..=n].iter().all(|&s| s)).collect();
        assert_eq!(three, [slow.len() - 1], "{tolerance}");
    }
}

/// Half the squared distance, all cells observed: the exact objective of each group.
#[test]
fn exact_fits_fall_where_components_die_and_slices_are_empty() {
    for (name, shape) in [
        ("Uber, first", vec![5, 4, 3, 7, 6]),
        ("NMF", vec![12, 9]),
        ("CP, 3 modes", vec![7, 6, 5]),
        ("Tucker", vec![6, 5, 4]),
        ("tensor train", vec![6, 5, 4]),
    ] {
        let case = entry(name);
        let shapes = case.shapes(&shape);
        for seed in 0..6 {
            let mut random = Random::new(seed);
            // Few counts, and slices without any: with the ranks of the corpus, more components
            // than they need.
            let y = ArrayD::from_shape_fn(IxDyn(&shape), |at| {
                let empty = at[0] == 1 || at[shape.len() - 1] == 2 || random.uniform() < 0.9;
                if empty { 0.0 } else { (6.0 * random.uniform()).ceil() }
            });
            for configuration in cpu_configurations() {
                for form in [Format::Dense, Format::Sparse] {
                    let fit = configured(&shapes, &configuration)
                        .loss(Loss::euclidean())
                        .data_as(form)
                        .seed(seed)
                        .max_iter(60)
                        .fit(&y)
                        .unwrap_or_else(|e| panic!("{name}, seed {seed}: {e}"));
                    let history = fit.history();
                    let most = if configuration.precision == Precision::F64 { 1e-9 } else { 1e-4 };
                    // A term of the loss is of the size of half the square of a datum.
                    let term = 0.5 * y.iter().map(|x| x * x).sum::<f64>() / y.len() as f64;
                    let rise = largest_rise(&history.loss, term);
                    assert!(rise <= most, "{name}, seed {seed}: rise {rise:e}, {:?}", history.loss);
                    let whole = fit.reconstruct().expect("small");
                    let loss = mean_term(&Loss::euclidean(), &y, None, &whole, 0.0);
                    let apart = (loss - history.returned_loss()).abs() / term;
                    assert!(apart <= most, "{name}, seed {seed}: {loss} {:?}", history.loss);
                }
            }
        }
    }
}

#[test]
fn a_tolerance_of_zero_never_stops_early() {
    let y = array![[4.0, 2.0], [2.0, 1.0]];
    let fit = NNEinFact::new("ir,jr->ij")
        .expect("a model")
        .ranks([('r', 1)])
        .tolerance(0.0)
        .max_iter(50)
        .fit(&y)
        .expect("it fits");
    assert_eq!(fit.history().stopped_by, StoppedBy::MaxIter);
    assert_eq!(fit.history().iterations, 50);
}

#[test]
fn no_sweeps_evaluate_the_start() {
    let shapes = entry("CP, 3 modes").shapes(&[3, 4, 5]);
    let mut random = Random::new(13);
    let start = random.factors(&shapes);
    let y = random.tensor(&shapes.data(), 0.0, 1.0);
    let fit = settings(&shapes)
        .start(Start::Factors(start.clone()))
        .max_iter(0)
        .fit(&y)
        .expect("it fits");
    assert_eq!(fit.factors(), start, "a start is taken as it is");
    assert_eq!(fit.history().loss.len(), 1);
    assert_eq!(fit.history().seconds.len(), 1);
    assert_eq!((fit.history().iterations, fit.history().returned), (0, 0));
    assert_eq!(fit.history().stopped_by, StoppedBy::MaxIter);
}

#[test]
fn a_random_start_has_the_mean_of_the_data() {
    for name in ["NMF", "Tucker", "many-body", "Uber, first"] {
        let entry = entry(name);
        let shapes = entry.shapes(&[5, 4, 6, 3, 4][..entry.modes()]);
        let y = Random::new(14).tensor(&shapes.data(), 2.0, 9.0);
        let fit = settings(&shapes).max_iter(0).fit(&y).expect("it fits");
        let whole = fit.reconstruct().expect("small");
        let (mean, expected) = (sum(&whole) / whole.len() as f64, sum(&y) / y.len() as f64);
        assert!((mean - expected).abs() < 1e-9 * expected, "{name}: {mean} and {expected}");
    }
}

#[test]
fn every_observer_sees_every_sweep() {
    let shapes = entry("NMF").shapes(&[6, 7]);
    let y = Random::new(15).tensor(&[6, 7], 0.5, 2.0);
    let observations = Observations::new(&y).held_out(0.2, 1).expect("a fraction");
    let seen: Arc<Mutex<Vec<Sweep>>> = Arc::default();
    let keep = Arc::clone(&seen);
    let fit = settings(&shapes)
        .observe(|sweep: &Sweep| if sweep.iteration == 4 { Flow::Stop } else { Flow::Continue })
        .observe(move |sweep: &Sweep| {
            keep.lock().expect("no panic").push(*sweep);
            Flow::Continue
        })
        .max_iter(20)
        .fit(&observations)
        .expect("it fits");
    assert_eq!(fit.history().stopped_by, StoppedBy::Observer);
    assert_eq!(fit.history().iterations, 4);
    let seen = seen.lock().expect("no panic");
    assert_eq!(seen.iter().map(|s| s.iteration).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(seen.iter().map(|s| s.loss).collect::<Vec<_>>(), fit.history().loss);
    assert_eq!(
        seen.iter().filter_map(|s| s.heldout_loss).collect::<Vec<_>>(),
        fit.history().heldout_loss
    );
    assert!(seen.iter().all(|s| s.max_iter == 20 && s.validation_loss.is_none()));
    assert!(seen.windows(2).all(|w| w[0].seconds <= w[1].seconds));
}

#[test]
fn a_cancelled_fit_returns_the_last_whole_sweep() {
    let shapes = entry("NMF").shapes(&[6, 7]);
    let y = Random::new(16).tensor(&[6, 7], 0.5, 2.0);
    let cancel = Cancel::new();
    let switch = cancel.clone();
    // Grouped: an accelerated fit that is told to end after three sweeps ends in a plain one.
    let fit = settings(&shapes)
        .algorithm(Algorithm::Grouped)
        .cancel(&cancel)
        .observe(move |sweep: &Sweep| {
            if sweep.iteration == 3 {
                switch.cancel();
            }
            Flow::Continue
        })
        .fit(&y)
        .expect("a cancelled fit is no error");
    assert_eq!(fit.history().stopped_by, StoppedBy::Interrupted);
    assert_eq!(fit.history().iterations, 3);
    let expected =
        settings(&shapes).algorithm(Algorithm::Grouped).max_iter(3).fit(&y).expect("it fits");
    assert_eq!(fit.factors(), expected.factors());

    let at_once = settings(&shapes).cancel(&cancel).fit(&y).expect("a cancelled fit is no error");
    assert_eq!(at_once.history().iterations, 0);
    assert_eq!(at_once.history().loss.len(), 1);
}

// ---- Bad input ----

fn nmf() -> NNEinFact {
    NNEinFact::new("ir,jr->ij").expect("a model").ranks([('r', 2)]).max_iter(2)
}

fn ones() -> Array2<f64> {
    Array2::ones((3, 4))
}

/// Checks an error: its kind, that it says what is given, and that it is the caller's fault.
#[track_caller]
fn refused<T>(result: nneinfact::Result<T>, kind: fn(&Error) -> bool, says: &[&str]) {
    let error = match result {
        Ok(_) => panic!("accepted, but should say {says:?}"),
        Err(error) => error,
    };
    let message = error.to_string();
    assert!(kind(&error), "another kind of error: {error:?}");
    for part in says {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
    assert!(error.is_input(), "{message}");
}

#[test]
fn ranks_and_modes_that_do_not_fit_the_model_are_refused() {
    let model = |e: &Error| matches!(e, Error::Model(_));
    refused(nmf().fit(&Array3::<f64>::ones((3, 4, 5))), model, &["3 modes", "ir,jr->ij"]);
    refused(nmf().fit(&Array2::<f64>::ones((0, 4))), |e| !matches!(e, Error::Numeric(_)), &["0"]);
    let bare = || NNEinFact::new("ir,jr->ij").expect("a model");
    refused(bare().fit(&ones()), model, &["latent index r"]);
    refused(bare().ranks([('r', 0)]).fit(&ones()), model, &["rank of r is 0"]);
    refused(nmf().ranks([('i', 3)]).fit(&ones()), model, &["index i", "observed"]);
    refused(nmf().ranks([('q', 3)]).fit(&ones()), model, &["q", "not in the model", "r"]);
    refused(nmf().ranks([('r', 3)]).fit(&ones()), model, &["two ranks", "2 and 3"]);
    refused(NNEinFact::new("ir,jr->ijk"), model, &["index k", "^"]);
    assert!(matches!(
        NNEinFact::new("iir,jr->ij"),
        Err(Error::Model(ModelError::TwiceInFactor { index: 'i', factor: 1, .. }))
    ));
}

#[test]
fn data_outside_the_domain_are_refused() {
    let mut y = ones();
    y[(1, 2)] = -2.0;
    y[(2, 3)] = -1.0;
    match nmf().fit(&y) {
        Err(Error::Domain { count: 2, index, value, .. }) => {
            assert_eq!((index, value), (vec![1, 2], -2.0));
        }
        other => panic!("expected Error::Domain, found {other:?}"),
    }
    let domain = |e: &Error| matches!(e, Error::Domain { .. });
    refused(nmf().fit(&y), domain, &["2 observed entries", "[1, 2]", "-2", "kl", "mask"]);
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut y = ones();
        y[(0, 1)] = value;
        refused(nmf().fit(&y), domain, &["1 observed entry is", "[0, 1]", "mask"]);
    }
    let mut y = ones();
    y[(2, 0)] = f64::NAN;
    refused(nmf().fit(&y), domain, &["missing"]);
    y[(2, 0)] = 0.0;
    for loss in losses().into_iter().filter(|loss| *loss.domain() == Domain::Positive) {
        refused(nmf().loss(loss).fit(&y), domain, &["[2, 0]", "x > 0", "loss that accepts zeros"]);
    }
    y[(2, 0)] = 0.5;
    refused(nmf().loss(Loss::bernoulli()).fit(&y), domain, &["0.5", "binomial"]);
    y[(2, 0)] = 7.0;
    let binomial = Loss::binomial(5.0).expect("5 trials");
    refused(nmf().loss(binomial).fit(&y), domain, &["7", "trials"]);
    let trials = Loss::binomial(Array2::from_elem((3, 4), 6.0)).expect("trials per entry");
    refused(nmf().loss(trials).fit(&y), domain, &["[2, 0]", "trials"]);
    // Withheld cells count too: their loss is reported.
    y[(2, 0)] = -1.0;
    let held_out = y.mapv(|x| x < 0.0);
    let observations = Observations::new(&y).held_out_mask(&held_out).expect("a mask");
    refused(nmf().fit(&observations), domain, &["[2, 0]"]);
}

#[test]
fn side_tensors_of_another_shape_are_refused() {
    let loss = Loss::negative_binomial(Array2::from_elem((4, 3), 2.0)).expect("dispersions");
    refused(
        nmf().loss(loss).fit(&ones()),
        |e| matches!(e, Error::Shape { .. }),
        &["[4, 3]", "[3, 4]"],
    );
}

#[test]
fn masks_and_weights_that_cannot_be_used_are_refused() {
    let (y, of) = (ones(), |y: &Array2<f64>| Observations::new(y));
    let shape = |e: &Error| matches!(e, Error::Shape { .. });
    let observations = |e: &Error| matches!(e, Error::Observations(_));
    let transposed = Array2::from_elem((4, 3), true);
    refused(of(&y).mask(&transposed), shape, &["mask", "[4, 3]", "[3, 4]"]);
    refused(of(&y).held_out_mask(&transposed), shape, &["held-out mask", "[4, 3]", "[3, 4]"]);
    refused(of(&y).weights(Array2::<f64>::ones((4, 3))), shape, &["weights", "[4, 3]"]);
    refused(of(&y).mask(&y.mapv(|_| false)), observations, &["every entry", "true"]);
    refused(of(&y).weights(y.mapv(|_| 0.0)), observations, &["0"]);
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        let mut weights = y.clone();
        weights[(1, 1)] = bad;
        refused(of(&y).weights(&weights), observations, &["[1, 1]", "at least 0"]);
    }
    for bad in [-0.1, 1.0, 1.5, f64::NAN] {
        refused(of(&y).held_out(bad, 0), observations, &["held-out fraction", "below 1"]);
        refused(of(&y).validation(bad, 0), observations, &["validation fraction", "below 1"]);
    }
    let nothing_left = of(&y).held_out_mask(&y.mapv(|_| true)).expect("a mask");
    refused(nmf().fit(&nothing_left), observations, &["train"]);
    let all_nan = Observations::new(y.mapv(|_| f64::NAN)).nan_missing();
    refused(nmf().fit(&all_nan), observations, &[]);
}

#[test]
fn starts_that_do_not_fit_are_refused() {
    let (shape, init) =
        (|e: &Error| matches!(e, Error::Shape { .. }), |e: &Error| matches!(e, Error::Init(_)));
    let good =
        || vec![ArrayD::from_elem(IxDyn(&[3, 2]), 1.0), ArrayD::from_elem(IxDyn(&[4, 2]), 1.0)];
    let with = |factors: Vec<ArrayD<f64>>| nmf().start(Start::Factors(factors)).fit(&ones());
    with(good()).expect("a good start");
    refused(with(good()[..1].to_vec()), init, &["1 factor", "has 2"]);
    refused(with(good().into_iter().rev().collect()), shape, &["theta_1", "[4, 2]", "[3, 2]"]);
    let mut transposed = good();
    transposed[1].swap_axes(0, 1);
    refused(with(transposed), shape, &["theta_2", "[2, 4]", "[4, 2]", "jr"]);
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        let mut factors = good();
        factors[1][[2, 1]] = bad;
        refused(with(factors), init, &["theta_2", "[2, 1]", "at least 0"]);
    }
    let mut factors = good();
    factors[0].fill(0.0);
    refused(with(factors), init, &["theta_1", "zero everywhere"]);
}

#[test]
fn a_rank_beyond_memory_is_refused_before_anything_is_allocated() {
    let memory = |e: &Error| matches!(e, Error::Memory { .. });
    refused(nmf_of_rank(1 << 36).fit(&ones()), memory, &["parameters", "lower the ranks"]);
    refused(nmf_of_rank(1 << 36).plan(&[3, 4], 8), memory, &["lower the ranks"]);
    refused(nmf().memory_limit(10).fit(&ones()), memory, &["10 B", "memory limit"]);
    let too_large = |e: &Error| matches!(e, Error::Model(ModelError::TooLarge { .. }));
    refused(nmf_of_rank(usize::MAX / 2).fit(&ones()), too_large, &["factor 1 (ir)"]);
}

fn nmf_of_rank(rank: usize) -> NNEinFact {
    NNEinFact::new("ir,jr->ij").expect("a model").ranks([('r', rank)])
}

#[test]
fn settings_outside_their_range_are_refused() {
    let setting = |e: &Error| matches!(e, Error::Setting(_));
    for bad in [-1e-9, f64::NAN, f64::INFINITY] {
        refused(nmf().tolerance(bad).fit(&ones()), setting, &["tolerance", "at least 0"]);
        refused(nmf().factor_floor(bad).fit(&ones()), setting, &["factor floor", "1e-3"]);
        refused(
            nmf().prediction_floor(bad).fit(&ones()),
            setting,
            &["prediction floor", "positive"],
        );
    }
    refused(nmf().factor_floor(0.1).fit(&ones()), setting, &["0.1"]);
    refused(nmf().prediction_floor(0.0).fit(&ones()), setting, &["positive"]);
    refused(nmf().inner_cycles(0).fit(&ones()), setting, &["inner cycles", "at least 1"]);
    refused(nmf().early_stopping(true).fit(&ones()), setting, &["validation"]);
    refused(nmf().groups(vec![vec![0]]).fit(&ones()), setting, &["missing"]);
    refused(nmf().groups(vec![vec![0, 1], vec![1]]).fit(&ones()), setting, &["twice"]);
    refused(Device::cpu().threads(0), setting, &["at least 1"]);
    refused(Device::named("abacus"), |e| matches!(e, Error::Device(_)), &["abacus", "cpu"]);
}

#[test]
fn an_index_outside_the_data_is_refused() {
    let fit = nmf().fit(&ones()).expect("it fits");
    let shape = |e: &Error| matches!(e, Error::Shape { .. });
    refused(fit.predict(&[3, 0]), shape, &["[3, 0]", "[3, 4]"]);
    refused(fit.predict(&[1]), shape, &["[1]", "2 indices"]);
    refused(fit.slice(&[None, Some(4)]), shape, &["[all, 4]"]);
}

#[test]
fn many_predictions_are_those_of_single_ones() {
    for name in ["CP, 3 modes", "Tucker"] {
        let shapes = entry(name).shapes(&[4, 5, 3]);
        let y = Random::new(31).tensor(&[4, 5, 3], 0.5, 2.0);
        let fit = settings(&shapes).max_iter(3).fit(&y).expect("it fits");
        let weighted = fit.normalize(Norm::L1, ScalesInto::Weights).expect("weights");
        for fit in [&fit, &weighted] {
            let all: Vec<Vec<usize>> =
                y.indexed_iter().map(|(at, _)| at.slice().to_vec()).collect();
            let many = fit.predict_many(&all).expect("inside");
            let one: Vec<f64> = all.iter().map(|at| fit.predict(at).expect("inside")).collect();
            assert_eq!(many, one, "{name}");
            let whole = fit.reconstruct().expect("small");
            for (at, found) in all.iter().zip(&many) {
                assert!((found / whole[at.as_slice()] - 1.0).abs() < 1e-12, "{name}: {at:?}");
            }
            assert!(fit.predict_many(&[]).expect("nothing").is_empty());
            let shape = |e: &Error| matches!(e, Error::Shape { .. });
            for bad in [vec![0, 5, 0], vec![0, 0], vec![], vec![0; 4]] {
                let said = format!("{bad:?}");
                refused(fit.predict_many(&[vec![0; 3], bad]), shape, &[&said, "[4, 5, 3]"]);
            }
        }
    }
}

#[test]
fn starts_beyond_the_largest_seed_go_on_at_0() {
    let mut later = 0;
    for n in 0..4 {
        let y = Random::new(40 + n).tensor(&[9, 8], 0.0, 3.0);
        let fit = |seed: u64, starts: usize| {
            let fit = NNEinFact::new("ir,jr->ij").expect("a model").ranks([('r', 3)]);
            let fit = fit.algorithm(Algorithm::Grouped).precision(Precision::F64);
            let fit = fit.tolerance(0.0).max_iter(NNEinFact::TRIAL_SWEEPS).device(Device::cpu());
            fit.seed(seed).starts(starts).fit(&y).expect("it fits")
        };
        let losses = [u64::MAX, 0, 1].map(|seed| (fit(seed, 1).history().last_loss(), seed));
        let (least, best) = losses.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("three");
        let several = fit(u64::MAX, 3);
        assert_eq!(several.history().seed, best, "{losses:?}");
        assert_eq!(several.history().last_loss(), least);
        later += usize::from(best != u64::MAX);
    }
    assert!(later > 0, "the first start is always the best: this shows nothing");
}

#[test]
fn models_of_more_than_32_factors_fit() {
    // Vectors, each of them many times, between two factors that share a rank. With the vectors in one
    // group, the objective of each of them is a product of 67 tensors.
    let vectors: Vec<&str> = (0..34).map(|n| ["i", "j", "k"][n % 3]).collect();
    let model = format!("ir,{},jr->ijk", vectors.join(","));
    let y = ArrayD::from_shape_fn(IxDyn(&[3, 4, 2]), |at| {
        (1.0 + at[0] as f64) * (2.0 + at[1] as f64) * (1.0 + 3.0 * at[2] as f64)
    });
    for loss in [Loss::kl(), Loss::euclidean()] {
        for data_as in [Format::Dense, Format::Sparse] {
            let name = format!("{} {data_as}", loss.name());
            let fit = NNEinFact::new(&model).expect("a model").ranks([('r', 2)]);
            let fit = fit.loss(loss.clone()).precision(Precision::F64).data_as(data_as);
            let fit = fit.groups(vec![vec![0, 35], (1..35).collect()]).max_iter(200);
            let fit = fit.device(Device::cpu()).fit(&y).expect(&name);
            let losses = &fit.history().loss;
            let rises = losses.windows(2).filter(|w| w[1] > w[0] + 1e-9 * losses[0].abs());
            assert_eq!(rises.count(), 0, "{name}: {losses:?}");
            let predicted = fit.reconstruct().expect("small");
            assert!(array_deviation(&predicted, &y) < 0.02, "{name}: {losses:?}");
            let expected = reference::predict(fit.shapes(), fit.factors());
            assert!(array_deviation(&predicted, &expected) < 1e-12, "{name}");
        }
    }
}

#[test]
fn a_memory_limit_above_what_there_is_does_not_help() {
    let y = Array2::<f64>::ones((100, 100));
    for data_as in [Format::Auto, Format::Dense, Format::Sparse] {
        // Numerator and denominator of the first two factors together have 4e10 entries.
        let fit = NNEinFact::new("ia,jb,ab->ij").expect("a model");
        let fit = fit.ranks([('a', 2000), ('b', 2000)]).groups(vec![vec![0, 1], vec![2]]);
        let fit = fit.device(Device::cpu()).memory_limit(u64::MAX).data_as(data_as);
        refused(fit.fit(&y), |e| matches!(e, Error::Memory { .. }), &["memory", "GiB"]);
    }
}

#[test]
fn looking_less_often_changes_nothing_but_the_history() {
    let y = Array2::from_shape_fn((9, 8), |(i, j)| ((i * j + 2 * i) % 7) as f64 + 0.5);
    for algorithm in [Algorithm::Block, Algorithm::Grouped] {
        let run = |every: usize, sweeps: usize| {
            let fit = NNEinFact::new("ir,jr->ij").unwrap().ranks([('r', 3)]);
            let fit = fit.algorithm(algorithm).max_iter(sweeps).tolerance(0.0);
            fit.eval_every(every).fit(&y).unwrap()
        };
        let all = run(1, 17);
        assert_eq!(all.history().sweeps, (0..=17).collect::<Vec<_>>());
        let some = run(5, 17);
        assert_eq!(some.history().sweeps, [0, 5, 10, 15, 17]);
        assert_eq!(some.history().iterations, 17);
        assert_eq!(some.factors(), all.factors());
        for (at, &sweep) in some.history().sweeps.iter().enumerate() {
            assert_eq!(some.history().loss[at], all.history().loss[sweep]);
        }
    }
    refused(nmf().eval_every(0).fit(&y), |e| matches!(e, Error::Setting(_)), &["0"]);
}
