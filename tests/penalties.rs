//! Penalties, bounds, fixed factors and balancing.

mod common;

#[path = "../examples/regularized/cp.rs"]
mod cp;
#[path = "../examples/regularized/nmf.rs"]
mod nmf;
#[path = "../examples/regularized/problem.rs"]
mod problem;
#[path = "../examples/regularized/tucker.rs"]
mod tucker;

use common::{
    CORPUS, Entry, Random, array_deviation, cpu_configurations, data, deviation, largest_rise,
    losses, mean_term,
};
use ndarray::{Array2, ArrayD, array};
use nneinfact::fit::{Balance, DataAs, Start, balanced};
use nneinfact::loss::{Majorizer, Penalty};
use nneinfact::model::{Model, Shapes};
use nneinfact::reference::{Problem, predict};
use nneinfact::{Algorithm, Device, Error, Loss, NNEinFact, Observations, Precision};

/// The majorizers of all losses, each once, with the sign of the slope.
fn majorizers() -> Vec<(Majorizer, bool)> {
    let mut all: Vec<(Majorizer, bool)> = Vec::new();
    for loss in losses() {
        let found = (loss.majorizer(), loss.slope() < 0.0);
        if !all.contains(&found) {
            all.push(found);
        }
    }
    assert!(all.len() > 8 && all.iter().any(|(_, falling)| *falling));
    all
}

/// The derivative in λ of an entry's surrogate and penalty, per |c|.
fn derivative(
    (majorizer, falling): (Majorizer, bool),
    [a, b, pull, power]: [f64; 4],
    lambda: f64,
) -> f64 {
    // What has no weight has none at 0 and ∞ either.
    let term = |weight: f64, p: f64| if weight == 0.0 { 0.0 } else { weight * lambda.powf(p) };
    let sign = if falling { -1.0 } else { 1.0 };
    let data = match majorizer {
        Majorizer::Power { p_a, p_b } => sign * (term(b, p_b) - term(a, p_a)),
        Majorizer::Log => (if b == 0.0 { 0.0 } else { b * lambda.ln() }) - a,
    };
    data + term(pull, power - 1.0)
}

fn surrogate(
    (majorizer, falling): (Majorizer, bool),
    [a, b, pull, power]: [f64; 4],
    lambda: f64,
) -> f64 {
    let sign = if falling { -1.0 } else { 1.0 };
    sign * majorizer.rise(a, b, lambda) + pull * (lambda.powf(power) - 1.0) / power
}

#[test]
fn every_scalar_step_is_the_minimum() {
    let sums = [0.0, 1e-8, 1e-3, 0.7, 1.0, 42.0, 1e5];
    let pulls = [0.0, 1e-12, 1e-7, 1e-3, 0.3, 1.0, 50.0, 1e7];
    let mut solved = 0;
    for majorizer in majorizers() {
        for power in [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 6.0] {
            for (a, b) in sums.iter().flat_map(|&a| sums.map(|b| (a, b))) {
                // Only a logarithm can be negative.
                let signs: &[f64] =
                    if majorizer.0 == Majorizer::Log { &[1.0, -1.0] } else { &[1.0] };
                for (pull, a) in pulls.iter().flat_map(|&m| signs.iter().map(move |s| (m, s * a))) {
                    let problem = [a, b, pull, power];
                    let found = majorizer.0.penalized(a, b, pull, power, majorizer.1);
                    let slope = |u: f64| derivative(majorizer, problem, u.exp());
                    let message = || format!("{majorizer:?}, a {a}, b {b}, pull {pull}, p {power}");
                    let (low, high) = (-690.0, 690.0);
                    if slope(low) >= 0.0 && slope(high) <= 0.0 {
                        // With a penalty that is as large as all else, no entry is wanted.
                        let least = if pull > 0.0 { 0.0 } else { 1.0 };
                        assert!(found == 1.0 || found == least, "flat: {found}: {}", message());
                    } else if slope(low) >= 0.0 {
                        assert!(found <= 1e-290, "to zero: {found}: {}", message());
                    } else if slope(high) <= 0.0 {
                        assert!(found >= 1e290, "to infinity: {found}: {}", message());
                    } else {
                        let (mut below, mut above) = (low, high);
                        for _ in 0..200 {
                            let middle = 0.5 * (below + above);
                            if slope(middle) < 0.0 { below = middle } else { above = middle }
                        }
                        let expected = (0.5 * (below + above)).exp();
                        let error = (found - expected).abs() / expected;
                        // Where the derivative is a small difference of large numbers, rounding moves
                        // its root, and that of the bisection too.
                        let u = expected.ln();
                        let curvature = (slope(u + 1e-3) - slope(u - 1e-3)) / 2e-3;
                        let rounding = 4e-16 * (a.abs() + pull) / curvature.abs();
                        let allowed =
                            1e-10 + if majorizer.0 == Majorizer::Log { rounding } else { 0.0 };
                        assert!(error <= allowed, "{found} for {expected}: {}", message());
                        let least = surrogate(majorizer, problem, found);
                        for i in -300..=300 {
                            let other = found * (f64::from(i) * 0.02).exp();
                            let value = surrogate(majorizer, problem, other);
                            let size = surrogate(majorizer, [a.abs(), 0.0, 0.0, power], found)
                                .abs()
                                + surrogate(majorizer, [0.0, b, pull, power], found).abs();
                            assert!(
                                value.is_nan() || value >= least - 1e-12 * size,
                                "{other} is below {found} by {}: {}",
                                least - value,
                                message()
                            );
                        }
                        solved += 1;
                    }
                }
            }
        }
    }
    assert!(solved > 10_000, "{solved}");
}

/// A random problem: data of a corpus model with a start.
fn drawn(
    entry: &Entry,
    loss: &Loss,
    random: &mut Random,
) -> (Shapes, ArrayD<f64>, Vec<ArrayD<f64>>) {
    let model = Model::parse(entry.model).unwrap();
    let sizes: Vec<usize> = (0..model.output().len()).map(|_| 3 + random.below(3)).collect();
    let shapes = Shapes::new(&model, &sizes, entry.ranks).unwrap();
    let y = data(random, &shapes, loss);
    let start = random.factors(&shapes);
    (shapes, y, start)
}

fn penalties() -> [Penalty; 5] {
    [
        Penalty::l1(0.3),
        Penalty::l2(0.2),
        Penalty::new(0.1, 1.5),
        Penalty::new(0.05, 3.0),
        Penalty::l1(1e-6),
    ]
}

#[test]
fn block_updates_with_penalties_are_those_of_the_reference() {
    let mut random = Random::new(51);
    for (n, entry) in CORPUS.iter().enumerate() {
        for (m, loss) in losses().iter().enumerate().filter(|(m, _)| (n + m) % 3 == 0) {
            let (shapes, y, start) = drawn(entry, loss, &mut random);
            let count = start.len();
            let chosen: Vec<Penalty> = (0..count).map(|l| penalties()[(n + m + l) % 5]).collect();
            let problem = Problem { shapes: &shapes, loss, y: &y, weights: None, floor: 1e-10 };
            let mut expected = start.clone();
            for _ in 0..3 {
                for (l, penalty) in chosen.iter().enumerate() {
                    problem.update_penalized(l, &mut expected, *penalty);
                }
            }
            let mut settings = NNEinFact::new(entry.model)
                .unwrap()
                .ranks(entry.ranks.iter().copied())
                .loss(loss.clone())
                .algorithm(Algorithm::Block)
                .balance(Balance::Never)
                .device(Device::cpu())
                .precision(Precision::F64)
                .start(Start::Factors(start))
                .prediction_floor(1e-10)
                .factor_floor(0.0)
                .tolerance(0.0)
                .max_iter(3);
            for (l, penalty) in chosen.iter().enumerate() {
                settings = settings.penalty(&format!("theta_{}", l + 1), *penalty);
            }
            let fit = settings.fit(&y).unwrap();
            let found = deviation(fit.factors(), &expected);
            assert!(found <= 1e-9, "{}, {}: {found}", entry.name, loss.name());
        }
    }
}

#[test]
fn the_penalised_objective_never_rises() {
    let mut random = Random::new(52);
    let algorithms = [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated];
    let balances = [Balance::Never, Balance::AtStart, Balance::EverySweep];
    for configuration in cpu_configurations() {
        for (n, entry) in CORPUS.iter().enumerate() {
            for (m, loss) in losses().iter().enumerate() {
                let turn = n + 2 * m;
                if turn % 4 != 0 {
                    continue;
                }
                let (shapes, y, start) = drawn(entry, loss, &mut random);
                let mut settings = NNEinFact::new(entry.model)
                    .unwrap()
                    .ranks(entry.ranks.iter().copied())
                    .loss(loss.clone())
                    .algorithm(algorithms[turn / 4 % 3])
                    .balance(balances[m % 3])
                    .device(Device::cpu())
                    .precision(configuration.precision)
                    .start(Start::Factors(start.clone()))
                    .inner_cycles(1 + turn % 2)
                    .tolerance(0.0)
                    .max_iter(12);
                for l in 0..start.len() {
                    settings =
                        settings.penalty(&format!("theta_{}", l + 1), penalties()[(turn + l) % 5]);
                }
                let mask = random.mask(y.shape(), 0.8);
                let observations = match m % 2 {
                    0 => Observations::new(&y),
                    _ => Observations::new(&y).mask(&mask).unwrap(),
                };
                let fit = settings.fit(&observations).unwrap();
                let history = fit.history();
                assert_eq!(history.penalty.len(), history.loss.len());
                let objective = history.objective();
                let size = mean_term(loss, &y, None, &predict(&shapes, &start), 1e-10);
                let rise = largest_rise(&objective, size);
                assert!(
                    rise <= configuration.rise,
                    "{}, {}, {}: {rise} {objective:?}",
                    configuration.name,
                    entry.name,
                    loss.name()
                );
                assert!(objective.last() < objective.first(), "{objective:?}");
            }
        }
    }
}

#[test]
fn the_history_holds_loss_and_penalty_in_the_same_units() {
    let y = array![[4.0, 2.0, 8.0], [2.0, 1.0, 4.0]];
    let weights = array![[1.0, 0.5, 2.0], [0.0, 1.0, 1.5]];
    let observations = Observations::new(&y).weights(&weights).unwrap();
    let fit = NNEinFact::new("ir,jr->ij")
        .unwrap()
        .ranks([('r', 2)])
        .device(Device::cpu())
        .penalty("ir", Penalty::l1(0.5))
        .penalty("jr", Penalty::new(0.25, 3.0))
        .max_iter(7)
        .fit(&observations)
        .unwrap();
    let sum = 0.5 * fit.factors()[0].sum() + 0.25 * fit.factors()[1].mapv(|x| x * x * x).sum();
    let expected = sum / weights.sum();
    let found = fit.history().penalty.last().copied().unwrap();
    assert!((found - expected).abs() < 1e-9 * expected, "{found} {expected}");
}

#[test]
fn balancing_leaves_the_model_as_it_is_and_lowers_the_penalty() {
    let mut random = Random::new(53);
    for entry in CORPUS {
        for turn in 0..5 {
            let (shapes, _, mut start) = drawn(entry, &Loss::kl(), &mut random);
            // Far from balance, a zero here and there.
            for (l, factor) in start.iter_mut().enumerate() {
                let scale = 10f64.powi((l as i32 % 3 - 1) * 2);
                factor.mapv_inplace(|x| if x < 0.35 { 0.0 } else { x * scale });
            }
            let chosen: Vec<Option<Penalty>> =
                (0..start.len()).map(|l| Some(penalties()[(turn + l) % 5])).collect();
            let value = |factors: &[ArrayD<f64>]| -> f64 {
                let of = |(f, p): (&ArrayD<f64>, &Option<Penalty>)| -> f64 {
                    f.iter().map(|&x| p.unwrap().value(x)).sum()
                };
                factors.iter().zip(&chosen).map(of).sum()
            };
            let after = balanced(&shapes, &chosen, &start).unwrap();
            let (before_y, after_y) = (predict(&shapes, &start), predict(&shapes, &after));
            let change = array_deviation(&after_y, &before_y);
            assert!(change < 1e-12, "{}: ŷ changed by {change}", entry.name);
            let (before, lower) = (value(&start), value(&after));
            if start.len() > 1 {
                assert!(lower < before, "{}: {before} to {lower}", entry.name);
            } else {
                assert_eq!(lower, before);
            }
            // Nothing is left to gain.
            let again = balanced(&shapes, &chosen, &after).unwrap();
            assert!((value(&again) - lower).abs() < 1e-9 * lower, "{}", entry.name);
        }
    }
}

#[test]
fn sets_of_letters_balance_further_than_single_letters() {
    // irk and jrk share (r, k) jointly: the least penalty over all scalings, found by brute force on
    // a model where only one pair of letters trades.
    let model = Model::parse("irk,jrk->ij").unwrap();
    let shapes = Shapes::new(&model, &[3, 4], &[('r', 2), ('k', 3)]).unwrap();
    let start = Random::new(3).factors(&shapes);
    let ridge = Some(Penalty::l2(1.0));
    let after = balanced(&shapes, &[ridge, ridge], &start).unwrap();
    let norms = |f: &ArrayD<f64>| f.mapv(|x| x * x).sum_axis(ndarray::Axis(0));
    let (left, right) = (norms(&after[0]), norms(&after[1]));
    for (x, y) in left.iter().zip(&right) {
        assert!((x - y).abs() < 1e-9 * x, "{left} {right}");
    }
}

#[test]
fn fixed_factors_stay_and_the_rest_is_found() {
    // A mixture of known spectra.
    let mut random = Random::new(8);
    let model = Model::parse("ma,ar,pr->mp").unwrap();
    let shapes = Shapes::new(&model, &[20, 15], &[('a', 6), ('r', 2)]).unwrap();
    let mut truth = random.factors(&shapes);
    truth[0].mapv_inplace(|x| if x < 0.6 { 0.0 } else { x });
    let y = predict(&shapes, &truth);
    for algorithm in [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated] {
        for loss in [Loss::kl(), Loss::euclidean(), Loss::hellinger()] {
            for form in [DataAs::Dense, DataAs::Sparse] {
                let fit = NNEinFact::new("ma,ar,pr->mp")
                    .unwrap()
                    .ranks([('a', 6), ('r', 2)])
                    .loss(loss.clone())
                    .algorithm(algorithm)
                    .data_as(form)
                    .device(Device::cpu())
                    .precision(Precision::F64)
                    .fix("ma", truth[0].clone())
                    .tolerance(0.0)
                    .max_iter(600)
                    .fit(&y)
                    .unwrap();
                assert_eq!(fit.factors()[0], truth[0], "the dictionary is as it was given");
                let found = array_deviation(&fit.reconstruct().unwrap(), &y);
                let most = if algorithm == Algorithm::Accelerated { 0.01 } else { 0.08 };
                assert!(found < most, "{algorithm:?}, {}: {found}", loss.name());
            }
        }
    }
}

#[test]
fn bounds_hold_and_the_objective_still_falls() {
    let mut random = Random::new(9);
    for loss in [Loss::kl(), Loss::euclidean(), Loss::itakura_saito(), Loss::reverse_kl()] {
        let y = random.tensor(&[12, 10, 8], 0.5, 4.0);
        for algorithm in [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated] {
            let fit = NNEinFact::new("ir,jr,kr->ijk")
                .unwrap()
                .ranks([('r', 3)])
                .loss(loss.clone())
                .algorithm(algorithm)
                .device(Device::cpu())
                .precision(Precision::F64)
                .bounds("ir", 0.5, 0.6)
                .bounds("kr", 0.1, f64::INFINITY)
                .penalty("jr", Penalty::l2(0.01))
                .tolerance(0.0)
                .max_iter(40)
                .fit(&y)
                .unwrap();
            assert!(fit.factors()[0].iter().all(|x| (0.5..=0.6).contains(x)));
            assert!(fit.factors()[2].iter().all(|x| *x >= 0.1));
            // Bounds that do not bind would show nothing.
            assert!(fit.factors()[0].iter().any(|&x| x == 0.5 || x == 0.6));
            let rise = largest_rise(&fit.history().objective(), 1.0);
            assert!(rise <= 1e-9, "{algorithm:?}, {}: {rise}", loss.name());
        }
    }
}

#[test]
fn void_penalties_are_warned_about() {
    let warnings = |settings: NNEinFact| settings.ranks([('r', 2)]).warnings(&[4, 5]).unwrap();
    let new = || NNEinFact::new("ir,jr->ij").unwrap();
    let found = warnings(new().penalty("ir", Penalty::l1(1.0)));
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("1 (ir) is void") && found[0].contains("2 (jr)"), "{}", found[0]);
    let values = ArrayD::from_elem(ndarray::IxDyn(&[5, 2]), 1.0);
    for fine in [
        new(),
        new().penalty_on_all(Penalty::l2(0.1)),
        new().penalty("ir", Penalty::l1(1.0)).fix("jr", values),
        new().penalty("ir", Penalty::l1(1.0)).bounds("jr", 0.0, 1.0),
        new().penalty("ir", Penalty::l1(0.0)),
    ] {
        assert_eq!(warnings(fine), Vec::<String>::new());
    }
}

#[test]
fn a_start_that_penalties_would_send_to_zero_is_told() {
    let y = Array2::from_elem((6, 5), 1e-3);
    let fit = NNEinFact::new("ir,jr->ij")
        .unwrap()
        .ranks([('r', 2)])
        .loss(Loss::euclidean())
        .device(Device::cpu())
        .penalty_on_all(Penalty::l1(10.0))
        .max_iter(3)
        .fit(&y)
        .unwrap();
    assert!(fit.warnings().iter().any(|w| w.contains("zero")), "{:?}", fit.warnings());
}

#[test]
fn the_start_is_at_its_best_scale() {
    let mut random = Random::new(54);
    for loss in losses() {
        let model = Model::parse("ir,jr,kr->ijk").unwrap();
        let shapes = Shapes::new(&model, &[6, 5, 4], &[('r', 2)]).unwrap();
        let y = data(&mut random, &shapes, &loss);
        let start = random.factors(&shapes);
        let run = |start: Vec<ArrayD<f64>>, balance| {
            let fit = NNEinFact::new("ir,jr,kr->ijk")
                .unwrap()
                .ranks([('r', 2)])
                .loss(loss.clone())
                .device(Device::cpu())
                .precision(Precision::F64)
                .penalty_on_all(Penalty::l2(0.3))
                .start(Start::Factors(start))
                .balance(balance)
                .max_iter(0)
                .fit(&y)
                .unwrap();
            (fit.history().objective()[0], fit.into_factors())
        };
        let (best, factors) = run(start, Balance::AtStart);
        for scale in [0.7, 0.9, 0.97, 1.03, 1.1, 1.5] {
            let moved = factors.iter().map(|f| f * scale).collect();
            let (other, _) = run(moved, Balance::Never);
            assert!(other > best - 1e-4 * best.abs(), "{}: {scale}: {other} {best}", loss.name());
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let y = array![[1.0, 2.0], [3.0, 4.0]];
    let message = |settings: NNEinFact| -> String {
        let error = settings.ranks([('r', 2)]).device(Device::cpu()).fit(&y).unwrap_err();
        assert!(error.is_input(), "{error}");
        error.to_string()
    };
    let new = || NNEinFact::new("ir,jr->ij").unwrap();
    let values = |rows| ArrayD::from_elem(ndarray::IxDyn(&[rows, 2]), 1.0);
    let cases: [(NNEinFact, &str); 12] = [
        (new().penalty("kr", Penalty::l1(1.0)), "no factor kr"),
        (new().penalty("ir", Penalty::l1(-1.0)), "at least 0"),
        (new().penalty("ir", Penalty::l1(f64::NAN)), "at least 0"),
        (new().penalty("ir", Penalty::new(1.0, 0.5)), "at least 1"),
        (new().penalty_on_all(Penalty::new(1.0, f64::INFINITY)), "at least 1"),
        (new().bounds("ir", 2.0, 1.0), "bounds"),
        (new().bounds("ir", -1.0, 1.0), "bounds"),
        (new().bounds("ir", 0.0, 0.0), "bounds"),
        (new().fix("ir", values(3)), "wrong shape"),
        (new().fix("ir", values(2) * -1.0), "at least 0"),
        (new().fix("ir", values(2)).fix("jr", values(2)), "nothing to fit"),
        (new().fix("ir", values(2)).penalty("ir", Penalty::l1(1.0)), "fixed"),
    ];
    for (settings, expected) in cases {
        let found = message(settings);
        assert!(found.contains(expected), "{found} does not say {expected}");
    }
    let twice = NNEinFact::new("ir,ir,jr->ij").unwrap().penalty("ir", Penalty::l1(1.0));
    let found = message(twice);
    assert!(found.contains("theta_1, theta_2"), "{found}");
}

#[test]
fn balancing_rescues_sparse_nmf_from_an_unbalanced_start() -> Result<(), Error> {
    let mean = |weight: f64, balance| -> Result<f64, Error> {
        let runs: Result<Vec<_>, Error> =
            (0..3).map(|seed| nmf::run(seed, weight, balance)).collect();
        Ok(runs?.iter().map(|run| run.objective.last().unwrap()).sum::<f64>() / 3.0)
    };
    for (weight, most) in [(1e-6, 0.5), (1e-5, 0.9)] {
        let never = mean(weight, Balance::Never)?;
        let start = mean(weight, Balance::AtStart)?;
        let every = mean(weight, Balance::EverySweep)?;
        assert!(every <= most * never, "{weight}: {every} for {never}");
        assert!((start - every).abs() <= 0.1 * every, "{weight}: {start} and {every}");
    }
    // Of several weights only the product counts: both factors become as sparse as each other.
    for exponent in -5..=0 {
        let runs: Result<Vec<_>, Error> =
            (0..4).map(|seed| nmf::run(seed, 10f64.powi(exponent), Balance::EverySweep)).collect();
        let ratio =
            runs?.iter().map(|r| r.nonzeros[0] as f64 / r.nonzeros[1] as f64).sum::<f64>() / 4.0;
        assert!((0.8..=1.25).contains(&ratio), "10^{exponent}: {ratio}");
    }
    Ok(())
}

#[test]
fn ridge_prunes_components_of_cp_and_evens_their_norms() -> Result<(), Error> {
    // Of a loss without the ½ of this one the weights would be 1e-4 to 1e-2.
    for weight in [5e-5, 5e-4, 5e-3] {
        for seed in 0..2 {
            let run = cp::run(seed, weight, Balance::EverySweep)?;
            let alive = run.alive();
            assert_eq!(alive.len(), 4, "{weight}, seed {seed}: {:?}", run.sizes);
            for r in alive {
                let norms: Vec<f64> = run.norms.iter().map(|n| n[r]).collect();
                let (most, least) =
                    norms.iter().fold((0f64, f64::MAX), |(m, l), &x| (m.max(x), l.min(x)));
                assert!(most <= least * (1.0 + 1e-6), "{norms:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn balancing_lowers_sparse_tucker_and_some_weight_finds_its_rank() -> Result<(), Error> {
    for weight in [0.01, 0.05] {
        let last = |balance| -> Result<f64, Error> {
            let run = tucker::run(1, weight, balance, Algorithm::Block)?;
            Ok(run.objective.last().copied().unwrap())
        };
        let (every, never) = (last(Balance::EverySweep)?, last(Balance::Never)?);
        assert!(every < 0.9 * never, "{weight}: {every} {never}");
    }
    let mut found = Vec::new();
    for weight in [0.05, 0.07, 0.1] {
        let run = tucker::run(1, weight, Balance::EverySweep, Algorithm::Accelerated)?;
        found.push(run.alive());
    }
    assert!(found.contains(&4), "no weight leaves four slices: {found:?}");
    Ok(())
}

#[test]
fn several_starts_end_where_the_best_of_them_does() -> Result<(), Error> {
    let mut random = Random::new(55);
    let model = Model::parse("ir,jr,kr->ijk").unwrap();
    let shapes = Shapes::new(&model, &[12, 10, 8], &[('r', 4)]).unwrap();
    let y = predict(
        &shapes,
        &random.factors(&shapes).iter().map(|f| f.mapv(|x| x.powi(4))).collect::<Vec<_>>(),
    );
    let new = |max_iter| -> Result<NNEinFact, Error> {
        Ok(NNEinFact::new("ir,jr,kr->ijk")?
            .ranks([('r', 4)])
            .device(Device::cpu())
            .precision(Precision::F64)
            .tolerance(0.0)
            .max_iter(max_iter))
    };
    for penalty in [None, Some(Penalty::l2(0.01))] {
        let with = |fit: NNEinFact| match penalty {
            Some(penalty) => fit.penalty_on_all(penalty),
            None => fit,
        };
        let trials = NNEinFact::TRIAL_SWEEPS;
        let objective = |seed| -> Result<f64, Error> {
            let fit = with(new(trials)?).seed(seed).fit(&y)?;
            Ok(fit.history().objective()[trials])
        };
        let each: Result<Vec<f64>, Error> = (3..8).map(objective).collect();
        let each = each?;
        let best = (0..5).min_by(|&i, &j| each[i].total_cmp(&each[j])).unwrap() as u64 + 3;
        let found = with(new(20)?).seed(3).starts(5).fit(&y)?;
        assert_eq!(found.history().seed, best, "{each:?}");
        let single = with(new(20)?).seed(best).fit(&y)?;
        assert_eq!(found.factors(), single.factors());
        assert_eq!(found.history().loss, single.history().loss);
    }
    let given = vec![ArrayD::from_elem(ndarray::IxDyn(&[12, 4]), 1.0); 3];
    let refused = new(1)?.starts(2).start(Start::Factors(given)).fit(&y).unwrap_err();
    assert!(refused.to_string().contains("2 starts"), "{refused}");
    let refused = new(1)?.starts(0).fit(&y).unwrap_err();
    assert!(refused.to_string().contains("at least 1"), "{refused}");
    Ok(())
}

#[test]
fn a_fit_is_taken_to_new_data() -> Result<(), Error> {
    let mut random = Random::new(56);
    let model = "ma,ar,pr->mp";
    let shapes =
        Shapes::new(&Model::parse(model).unwrap(), &[15, 40], &[('a', 4), ('r', 3)]).unwrap();
    let y = predict(&shapes, &random.factors(&shapes));
    let new = || -> Result<NNEinFact, Error> {
        Ok(NNEinFact::new(model)?.device(Device::cpu()).precision(Precision::F64))
    };
    let (old, more) = y.view().split_at(ndarray::Axis(1), 30);
    let fit = new()?.ranks([('a', 4), ('r', 3)]).fit(&old)?;
    let moved = new()?.transform(&fit, "p")?.fit(&more)?;
    assert_eq!(moved.factors()[..2], fit.factors()[..2]);
    let found = array_deviation(&moved.reconstruct()?, &more.to_owned());
    assert!(found < 0.1, "{found}");
    for (wrong, expected) in [("x", "not a mode"), ("a", "not a mode")] {
        let error = new()?.transform(&fit, wrong).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let other = NNEinFact::new("ir,jr->ij")?.transform(&fit, "j").unwrap_err().to_string();
    assert!(other.contains("not of ir,jr->ij"), "{other}");
    Ok(())
}
