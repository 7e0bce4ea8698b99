//! Penalties, bounds, fixed factors and balancing.

use std::collections::BTreeSet;

#[path = "../../examples/regularized/cp.rs"]
mod cp;
#[path = "../../examples/regularized/nmf.rs"]
mod nmf;
#[path = "../../examples/regularized/problem.rs"]
mod problem;
#[path = "../../examples/regularized/tucker.rs"]
mod tucker;

use crate::common::{
    CORPUS, Entry, Random, array_deviation, cpu_configurations, data, deviation, largest_rise,
    losses, mean_term,
};
use ndarray::{Array2, ArrayD, array};
use nneinfact::fit::{Balance, Format, Start, balanced};
use nneinfact::loss::{Majorizer, Penalty};
use nneinfact::model::{Model, Shapes};
use nneinfact::reference::{Problem, predict};
use nneinfact::{Algorithm, Device, Error, Loss, NNEinFact, Observations, Precision};

/// The majorizers of all losses, each once, with the sign of the slope.
fn majorizers() -> Vec<(Majorizer, bool)> {
    let mut all: Vec<(Majorizer, bool)> = Vec::new();
    for loss in losses() {
        let found = (loss.majorizer(), loss.curvature_constant() < 0.0);
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
            // All cells, some of them, or all in different measure.
            let seen = random.mask(y.shape(), 0.7);
            let counts = random.tensor(y.shape(), 0.1, 3.0);
            let (observations, weights) = match m / 3 % 3 {
                0 => (Observations::new(&y), None),
                1 => (
                    Observations::new(&y).mask(&seen).unwrap(),
                    Some(seen.mapv(|seen| f64::from(u8::from(seen)))),
                ),
                _ => (Observations::new(&y).weights(&counts).unwrap(), Some(counts)),
            };
            let weights = weights.as_ref();
            let problem = Problem { shapes: &shapes, loss, y: &y, weights, floor: 1e-10 };
            let mut expected = start.clone();
            for _ in 0..3 {
                for (l, penalty) in chosen.iter().enumerate() {
                    problem.update_penalized(l, &mut expected, *penalty);
                }
            }
            for configuration in cpu_configurations() {
                let mut settings = NNEinFact::new(entry.model)
                    .unwrap()
                    .ranks(entry.ranks.iter().copied())
                    .loss(loss.clone())
                    .algorithm(Algorithm::Block)
                    .balance(Balance::Never)
                    .device(Device::cpu())
                    .precision(configuration.precision)
                    .start(Start::Factors(start.clone()))
                    .prediction_floor(1e-10)
                    .factor_floor(0.0)
                    .tolerance(0.0)
                    .max_iter(3);
                for (l, penalty) in chosen.iter().enumerate() {
                    settings = settings.penalty(&format!("theta_{}", l + 1), *penalty);
                }
                let fit = settings.fit(&observations).unwrap();
                let found = deviation(fit.factors(), &expected);
                assert!(
                    found <= configuration.tolerance,
                    "{}, {}, {}: {found}",
                    configuration.name,
                    entry.name,
                    loss.name()
                );
            }
        }
    }
}

#[test]
fn what_no_cell_tells_of_stays_without_a_penalty_and_goes_with_one() {
    let mut random = Random::new(58);
    let shapes = Shapes::new(&Model::parse("ir,jr->ij").unwrap(), &[7, 6], &[('r', 2)]).unwrap();
    // Nobody looked at the third row.
    let seen = ArrayD::from_shape_fn(ndarray::IxDyn(&[7, 6]), |at| at[0] != 2);
    for (loss, algorithm) in [Loss::kl(), Loss::euclidean(), Loss::reverse_kl(), Loss::neyman()]
        .into_iter()
        .flat_map(|loss| {
            [Algorithm::Block, Algorithm::Grouped].map(move |algorithm| (loss.clone(), algorithm))
        })
    {
        let y = data(&mut random, &shapes, &loss);
        let start = random.factors(&shapes);
        for configuration in cpu_configurations() {
            for penalty in [Penalty::l1(0.0), Penalty::l1(0.1), Penalty::l2(0.1)] {
                let fit = NNEinFact::new("ir,jr->ij")
                    .unwrap()
                    .ranks([('r', 2)])
                    .loss(loss.clone())
                    .algorithm(algorithm)
                    .balance(Balance::Never)
                    .device(Device::cpu())
                    .precision(configuration.precision)
                    .start(Start::Factors(start.clone()))
                    .penalty("ir", penalty)
                    .penalty("jr", Penalty::l2(0.1))
                    .tolerance(0.0)
                    .max_iter(4)
                    .fit(Observations::new(&y).mask(&seen).unwrap())
                    .unwrap();
                let found = fit.factors()[0].index_axis(ndarray::Axis(0), 2).to_owned();
                let before = start[0].index_axis(ndarray::Axis(0), 2).to_owned();
                let largest = fit.factors()[0].iter().fold(0.0, |m: f64, &x| m.max(x));
                let what = format!("{}, {}, {penalty:?}", configuration.name, loss.name());
                match penalty.weight() > 0.0 {
                    true => {
                        let floor = NNEinFact::FACTOR_FLOOR * largest;
                        assert!(found.iter().all(|&x| x <= 1.0001 * floor), "{what}: {found}");
                    }
                    false => {
                        let apart = array_deviation(&found, &before);
                        assert!(apart <= 1e-7, "{what}: {found} {before}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_penalised_objective_never_rises() {
    let mut random = Random::new(52);
    let algorithms = [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated];
    let balances = [Balance::Never, Balance::AtStart, Balance::EverySweep];
    let all = losses();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (c, configuration) in cpu_configurations().into_iter().enumerate() {
        for (n, entry) in CORPUS.iter().enumerate() {
            // Every model by every algorithm, with all cells and with some; all else in turns.
            for k in 0..6 {
                let (masked, algorithm) = (k % 2 == 1, (k / 2 + n) % 3);
                let (balance, cycles) = ((n + k + k / 3 + c) % 3, 1 + (n / 3 + k / 2 + c) % 2);
                let loss = &all[(5 * n + 4 * k + 11 * c) % all.len()];
                let (shapes, y, start) = drawn(entry, loss, &mut random);
                let mut settings = NNEinFact::new(entry.model)
                    .unwrap()
                    .ranks(entry.ranks.iter().copied())
                    .loss(loss.clone())
                    .algorithm(algorithms[algorithm])
                    .balance(balances[balance])
                    .device(Device::cpu())
                    .precision(configuration.precision)
                    .start(Start::Factors(start.clone()))
                    .inner_cycles(cycles)
                    .tolerance(0.0)
                    .max_iter(12);
                for l in 0..start.len() {
                    settings =
                        settings.penalty(&format!("theta_{}", l + 1), penalties()[(n + k + l) % 5]);
                }
                let mask = random.mask(y.shape(), 0.8);
                let observations = match masked {
                    false => Observations::new(&y),
                    true => Observations::new(&y).mask(&mask).unwrap(),
                };
                let fit = settings.fit(&observations).unwrap();
                let history = fit.history();
                assert_eq!(history.penalty.len(), history.loss.len());
                let objective = history.objective();
                // As at the end, where terms are as small as they become; where the model fits exactly
                // they are rounding errors of what they were.
                let weights = mask.mapv(|seen| f64::from(u8::from(seen || !masked)));
                let term = |factors: &[ArrayD<f64>]| {
                    mean_term(loss, &y, Some(&weights), &predict(&shapes, factors), 1e-10)
                };
                let size = term(fit.factors()).max(1e-2 * term(&start));
                let rise = largest_rise(&objective, size);
                assert!(
                    rise <= configuration.rise,
                    "{}, {}, {}, {:?}, {:?}, {cycles} cycles, masked: {masked}: {rise} {objective:?}",
                    configuration.name,
                    entry.name,
                    loss.name(),
                    algorithms[algorithm],
                    balances[balance],
                );
                assert!(objective.last() < objective.first(), "{objective:?}");
                seen.insert(format!("{n} by {algorithm}, {masked}"));
                seen.insert(format!("{algorithm} and {balance}, {masked}"));
                seen.insert(format!("{algorithm}, {cycles} cycles, {masked}"));
                seen.insert(loss.name().to_string());
            }
        }
    }
    assert_eq!(seen.len(), CORPUS.len() * 6 + 18 + 12 + names(&all).len());
}

/// What losses are called, each once.
fn names(losses: &[Loss]) -> BTreeSet<String> {
    losses.iter().map(|loss| loss.name().to_string()).collect()
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
    // irk and jrk share (r, k) jointly.
    let model = Model::parse("irk,jrk->ij").unwrap();
    let shapes = Shapes::new(&model, &[3, 4], &[('r', 2), ('k', 3)]).unwrap();
    let mut start = Random::new(3).factors(&shapes);
    for (at, x) in start[0].indexed_iter_mut() {
        // No product of a scale for r and one for k.
        *x *= if (at[1] + at[2]) % 2 == 0 { 4.0 } else { 0.25 };
    }
    for (at, x) in start[1].indexed_iter_mut() {
        *x *= if (at[1] + at[2]) % 2 == 0 { 0.25 } else { 4.0 };
    }
    let ridge = Some(Penalty::l2(1.0));
    let after = balanced(&shapes, &[ridge, ridge], &start).unwrap();
    let norms = |f: &ArrayD<f64>| f.mapv(|x| x * x).sum_axis(ndarray::Axis(0));
    let (left, right) = (norms(&after[0]), norms(&after[1]));
    for (x, y) in left.iter().zip(&right) {
        assert!((x - y).abs() < 1e-9 * x, "{left} {right}");
    }
    // With a scale s for each (r, k), Σ s² left + right / s² is least at 2 √(left · right).
    let (left, right) = (norms(&start[0]), norms(&start[1]));
    let least: f64 = left.iter().zip(&right).map(|(x, y)| 2.0 * (x * y).sqrt()).sum();
    let total = |factors: &[ArrayD<f64>]| factors.iter().map(|f| norms(f).sum()).sum::<f64>();
    assert!((total(&after) - least).abs() < 1e-9 * least, "{} {least}", total(&after));
    // Index by letter, until nothing moves.
    let mut single = start.clone();
    for turn in 0..400 {
        let letter = turn % 2;
        for index in 0..[2, 3][letter] {
            let axis = ndarray::Axis(1 + letter);
            let sum = |f: &ArrayD<f64>| f.index_axis(axis, index).mapv(|x| x * x).sum();
            let scale = (sum(&single[1]) / sum(&single[0])).powf(0.25);
            single[0].index_axis_mut(axis, index).mapv_inplace(|x| x * scale);
            single[1].index_axis_mut(axis, index).mapv_inplace(|x| x / scale);
        }
    }
    assert!(total(&single) < total(&start) && least < 0.7 * total(&single), "{}", total(&single));
}

#[test]
fn fixed_factors_stay_and_the_rest_is_found() {
    // A mixture of known spectra: with these given the product of the other two is identified.
    let mut random = Random::new(8);
    let model = Model::parse("ma,ar,pr->mp").unwrap();
    let shapes = Shapes::new(&model, &[20, 15], &[('a', 6), ('r', 2)]).unwrap();
    let mut truth = random.factors(&shapes);
    truth[0].mapv_inplace(|x| if x < 0.6 { 0.0 } else { x });
    let y = predict(&shapes, &truth);
    let mixed = |factors: &[ArrayD<f64>]| -> ArrayD<f64> {
        let model = Model::parse("ar,pr->ap").unwrap();
        let shapes = Shapes::new(&model, &[6, 15], &[('r', 2)]).unwrap();
        predict(&shapes, &factors[1..])
    };
    for algorithm in [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated] {
        for loss in [Loss::kl(), Loss::euclidean(), Loss::hellinger()] {
            for form in [Format::Dense, Format::Sparse] {
                let sweeps = if algorithm == Algorithm::Accelerated { 600 } else { 6000 };
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
                    .max_iter(sweeps)
                    .fit(&y)
                    .unwrap();
                assert_eq!(fit.factors()[0], truth[0], "the dictionary is as it was given");
                let found = array_deviation(&mixed(fit.factors()), &mixed(&truth));
                let most = if algorithm == Algorithm::Accelerated { 0.005 } else { 0.02 };
                assert!(found < most, "{algorithm:?}, {}, {form:?}: {found}", loss.name());
            }
        }
    }
}

#[test]
fn a_penalty_takes_what_no_data_depend_on() {
    // Nothing of the third spectrum is in the dictionary, so only the penalty speaks of its row.
    let mut random = Random::new(59);
    let mut dictionary = random.tensor(&[12, 4], 0.2, 1.2);
    dictionary.index_axis_mut(ndarray::Axis(1), 2).fill(0.0);
    let y = random.tensor(&[12, 9], 1.0, 3.0);
    for penalty in [Penalty::l1(0.05), Penalty::l2(0.05)] {
        for algorithm in [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated] {
            for lower in [0.0, 0.25] {
                let fit = NNEinFact::new("ma,ap->mp")
                    .unwrap()
                    .ranks([('a', 4)])
                    .loss(Loss::euclidean())
                    .algorithm(algorithm)
                    .device(Device::cpu())
                    .precision(Precision::F64)
                    .data_as(Format::Dense)
                    .fix("ma", dictionary.clone())
                    .penalty("ap", penalty)
                    .bounds("ap", lower, f64::INFINITY)
                    .tolerance(0.0)
                    .max_iter(5)
                    .fit(&y)
                    .unwrap();
                let row = fit.factors()[1].index_axis(ndarray::Axis(0), 2).to_owned();
                assert!(
                    row.iter().all(|&x| (x - lower).abs() < 1e-9),
                    "{algorithm:?}, {penalty:?}: {row}"
                );
                // The others are wanted.
                assert!(fit.factors()[1].iter().filter(|x| **x > lower + 1e-9).count() > 9);
            }
        }
    }
}

#[test]
fn bounds_hold_and_the_objective_still_falls() {
    let mut random = Random::new(9);
    for (m, loss) in [Loss::kl(), Loss::euclidean(), Loss::itakura_saito(), Loss::reverse_kl()]
        .into_iter()
        .enumerate()
    {
        let y = random.tensor(&[12, 10, 8], 0.5, 4.0);
        let mask = random.mask(y.shape(), 0.7);
        for (n, algorithm) in
            [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated].into_iter().enumerate()
        {
            for (c, configuration) in cpu_configurations().into_iter().enumerate() {
                let observations = match (m + n + c) % 2 {
                    0 => Observations::new(&y),
                    _ => Observations::new(&y).mask(&mask).unwrap(),
                };
                let fit = NNEinFact::new("ir,jr,kr->ijk")
                    .unwrap()
                    .ranks([('r', 3)])
                    .loss(loss.clone())
                    .algorithm(algorithm)
                    .device(Device::cpu())
                    .precision(configuration.precision)
                    .bounds("ir", 0.5, 0.6)
                    .bounds("kr", 0.1, f64::INFINITY)
                    .penalty("jr", Penalty::l2(0.01))
                    .tolerance(0.0)
                    .max_iter(40)
                    .fit(&observations)
                    .unwrap();
                assert!(fit.factors()[0].iter().all(|x| (0.5..=0.6).contains(x)));
                assert!(fit.factors()[2].iter().all(|x| *x >= 0.1));
                // Bounds that do not bind would show nothing.
                assert!(fit.factors()[0].iter().any(|&x| x == 0.5 || x == 0.6));
                let rise = largest_rise(&fit.history().objective(), 1.0);
                let what = format!("{}, {algorithm:?}, {}", configuration.name, loss.name());
                assert!(rise <= configuration.rise, "{what}: {rise}");
            }
        }
    }
}

/// Penalties are in the units of data and factors: data on another scale, with weights to match, have
/// the same fit on that scale.
#[test]
fn penalties_follow_the_unit_of_the_data() {
    let mut random = Random::new(57);
    let shapes =
        Shapes::new(&Model::parse("ir,jr,kr->ijk").unwrap(), &[7, 6, 5], &[('r', 2)]).unwrap();
    let alpha_beta = |alpha, beta| Loss::alpha_beta(alpha, beta).unwrap();
    for (m, loss) in [
        Loss::kl(),
        Loss::euclidean(),
        Loss::itakura_saito(),
        Loss::reverse_kl(),
        alpha_beta(-1.0, 0.4),
        alpha_beta(0.7, 0.5),
    ]
    .into_iter()
    .enumerate()
    {
        let y = data(&mut random, &shapes, &loss);
        let start = random.factors(&shapes);
        let degree = loss.homogeneity().unwrap();
        for (n, configuration) in cpu_configurations().into_iter().enumerate() {
            for (k, algorithm) in [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated]
                .into_iter()
                .enumerate()
            {
                let balance = [Balance::Never, Balance::EverySweep][(m + n + k) % 2];
                let run = |scale: f64| {
                    let share = scale.powf(1.0 / 3.0);
                    let start = start.iter().map(|f| f * share).collect();
                    let mut settings = NNEinFact::new("ir,jr,kr->ijk")
                        .unwrap()
                        .ranks([('r', 2)])
                        .loss(loss.clone())
                        .algorithm(algorithm)
                        .balance(balance)
                        .device(Device::cpu())
                        .precision(configuration.precision)
                        .start(Start::Factors(start))
                        .prediction_floor(1e-9 * scale)
                        .tolerance(0.0)
                        .max_iter(5);
                    for (name, p) in [("ir", 1.0), ("jr", 2.0), ("kr", 3.0)] {
                        let weight = 0.2 * scale.powf(degree) / share.powf(p);
                        settings = settings.penalty(name, Penalty::new(weight, p));
                    }
                    let fit = settings.fit(&(&y * scale)).unwrap();
                    let objective = fit.history().objective();
                    let objective: Vec<f64> =
                        objective.iter().map(|f| f / scale.powf(degree)).collect();
                    (fit.factors().iter().map(|f| f / share).collect::<Vec<_>>(), objective)
                };
                let (factors, objective) = run(1.0);
                for scale in [1e-9, 1e9] {
                    let (moved, same) = run(scale);
                    let apart = deviation(&moved, &factors);
                    let what = format!(
                        "{}, {}, {algorithm:?}, {balance:?}, times {scale:e}",
                        configuration.name,
                        loss.name()
                    );
                    let tolerance = configuration.tolerance;
                    assert!(apart <= tolerance, "{what}: {apart}");
                    for (found, expected) in same.iter().zip(&objective) {
                        let most = tolerance * expected.abs().max(0.1);
                        assert!((found - expected).abs() <= most, "{what}: {found} {expected}");
                    }
                }
            }
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
    // A lower bound does not keep scale from going there; on the penalised factor it does.
    let lower = |name: &str, bound: f64| {
        new().penalty("ir", Penalty::l1(1.0)).bounds(name, bound, f64::INFINITY)
    };
    assert_eq!(warnings(lower("jr", 0.1)), found);
    assert_eq!(warnings(lower("ir", 0.1)), Vec::<String>::new());
    // A fit tells it, too.
    let y = Array2::from_shape_fn((4, 5), |(i, j)| (1 + i + 2 * j) as f64);
    let fit = lower("jr", 0.1).ranks([('r', 2)]).device(Device::cpu()).max_iter(2).fit(&y);
    assert_eq!(fit.unwrap().warnings(), found);
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
fn a_model_that_ends_at_zero_is_told() {
    let y = Array2::from_shape_fn((8, 7), |(i, j)| (1 + (i * j) % 3) as f64);
    for (algorithm, loss) in [
        (Algorithm::Accelerated, Loss::euclidean()),
        (Algorithm::Block, Loss::euclidean()),
        (Algorithm::Grouped, Loss::beta(1.5).unwrap()),
    ] {
        for configuration in cpu_configurations() {
            let run = |weight| {
                let fit = NNEinFact::new("ir,jr->ij")
                    .unwrap()
                    .ranks([('r', 2)])
                    .loss(loss.clone())
                    .algorithm(algorithm)
                    .device(Device::cpu())
                    .precision(configuration.precision)
                    .penalty_on_all(Penalty::l1(weight))
                    .max_iter(60)
                    .fit(&y)
                    .unwrap();
                fit.warnings().iter().any(|warning| warning.contains("ended at zero"))
            };
            let what = format!("{}, {algorithm:?}, {}", configuration.name, loss.name());
            assert!(run(500.0) && !run(0.01), "{what}");
        }
    }
}

#[test]
fn of_data_that_are_zero_no_penalty_is_accused() {
    let y = Array2::<f64>::zeros((6, 5));
    for loss in [Loss::kl(), Loss::euclidean(), Loss::geometric(), Loss::jensen_shannon()] {
        let fit = NNEinFact::new("ir,jr->ij")
            .unwrap()
            .ranks([('r', 2)])
            .loss(loss.clone())
            .device(Device::cpu())
            .penalty_on_all(Penalty::l1(0.01))
            .max_iter(3)
            .fit(&y)
            .unwrap();
        assert_eq!(fit.warnings(), Vec::<String>::new(), "{}", loss.name());
    }
}

#[test]
fn a_start_that_is_far_too_large_or_small_comes_to_its_best_scale() {
    let mut random = Random::new(60);
    let model = Model::parse("ir,jr->ij").unwrap();
    let shapes = Shapes::new(&model, &[9, 8], &[('r', 2)]).unwrap();
    for loss in [
        Loss::negative_binomial(0.02).unwrap(),
        Loss::negative_binomial(2.0).unwrap(),
        Loss::bernoulli(),
        Loss::binomial(5.0).unwrap(),
        Loss::jensen_shannon(),
        Loss::reverse_kl(),
        Loss::kl(),
    ] {
        let y = data(&mut random, &shapes, &loss);
        let start = random.factors(&shapes);
        let best = |by: f64| {
            let fit = NNEinFact::new("ir,jr->ij")
                .unwrap()
                .ranks([('r', 2)])
                .loss(loss.clone())
                .device(Device::cpu())
                .precision(Precision::F64)
                .penalty_on_all(Penalty::l2(0.1))
                .start(Start::Factors(start.iter().map(|f| f * by).collect()))
                .max_iter(0)
                .fit(&y)
                .unwrap();
            assert!(fit.warnings().is_empty(), "{}: {:?}", loss.name(), fit.warnings());
            (fit.history().objective()[0], fit.into_factors())
        };
        let (expected, factors) = best(1.0);
        for by in [100.0, 1e4, 1e-3] {
            let (found, same) = best(by);
            let apart = deviation(&same, &factors);
            assert!(apart < 1e-3, "{} times {by:e}: {apart}", loss.name());
            assert!((found - expected).abs() < 1e-5 * expected.abs(), "{found} {expected}");
        }
    }
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
    for exponent in -6..=0 {
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
    let seeds = [1, 2, 3];
    let mut alive = Vec::new();
    for seed in seeds {
        let mut found = Vec::new();
        for weight in [0.003, 0.01, 0.02, 0.03, 0.05] {
            let run = |balance| tucker::run(seed, weight, balance, Algorithm::Block);
            let (every, never) = (run(Balance::EverySweep)?, run(Balance::Never)?);
            let last = |run: &tucker::Outcome| run.objective.last().copied().unwrap();
            assert!(last(&every) < last(&never), "{weight}, seed {seed}");
            found.push(
                tucker::run(seed, weight, Balance::EverySweep, Algorithm::Accelerated)?.alive(),
            );
        }
        alive.push(found);
    }
    assert!(
        alive.iter().all(|found| found.contains(&4)),
        "no weight leaves four slices: {alive:?}"
    );
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
