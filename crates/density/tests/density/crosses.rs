//! Cross interpolation: the golden functions, and what the specification says about failures.

use nneinfact_density::{Cross, CrossTrain, Indices};

use crate::npz::Case;

/// Uniform random tuples, by a generator of the tests' own.
pub fn random_tuples(sizes: &[usize], rows: usize, mut state: u64) -> Indices {
    let mut next = |n: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % n
    };
    let data = (0..rows).flat_map(|_| sizes.to_vec()).map(&mut next).collect();
    Indices::new(sizes.len(), data).unwrap()
}

/// The relative Frobenius error on 2000 uniform random entries.
fn error(found: &CrossTrain, sizes: &[usize], log_f: impl Fn(&[usize]) -> f64) -> f64 {
    let tuples = random_tuples(sizes, 2000, 5);
    let got = found.train.log_entries(&tuples).unwrap();
    let logs: Vec<f64> = tuples.iter().map(log_f).collect();
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (mut off, mut all) = (0.0, 0.0);
    for (&(sign, log), want) in got.iter().zip(&logs) {
        let want = (want - top).exp();
        off += (sign * (log - top).exp() - want).powi(2);
        all += want * want;
    }
    (off / all).sqrt()
}

struct Golden {
    sizes: Vec<usize>,
    tol: f64,
    rank: Option<usize>,
    limit: Option<usize>,
    error: f64,
    log_z: Option<f64>,
}

fn golden(start: &str) -> Golden {
    let case = Case::read("07_cross");
    let cases = case.json["cases"].as_array().unwrap().clone();
    let mut found = cases.iter().filter(|c| c["function"].as_str().unwrap().starts_with(start));
    let case = found.next().unwrap();
    let number = |key: &str| case[key].as_f64();
    let sizes = case["n"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize);
    Golden {
        sizes: sizes.collect(),
        tol: number("tol").unwrap(),
        rank: number("ranks_at_most").map(|r| r as usize),
        limit: number("rank_limit").map(|r| r as usize),
        error: number("max_relative_error").unwrap(),
        log_z: number("log_z"),
    }
}

fn check(golden: &Golden, found: &CrossTrain, log_f: impl Fn(&[usize]) -> f64) {
    if let Some(rank) = golden.rank {
        assert!(found.train.ranks().iter().all(|&r| r <= rank), "{:?}", found.train.ranks());
    }
    let error = error(found, &golden.sizes, log_f);
    assert!(error <= golden.error, "{error} {:?} {:?}", found.errors, found.ranks.last());
}

#[test]
fn a_sine_of_a_sum() {
    let golden = golden("2.5 + sin");
    let d = golden.sizes.len() as f64;
    let f = |x: &[usize]| {
        let terms = x.iter().enumerate();
        let sum: f64 = terms.map(|(k, &i)| 0.11 * (1.0 + (k + 1) as f64 / d) * i as f64).sum();
        2.5 + (0.3 + sum).sin()
    };
    for seed in 0..3 {
        let cross = Cross::new(golden.sizes.clone()).tol(golden.tol).seed(seed);
        check(&golden, &cross.run(f).unwrap(), |x| f(x).ln());
    }
}

#[test]
fn a_reciprocal_of_a_sum() {
    let golden = golden("1 / (1");
    let f = |x: &[usize]| 1.0 / (1.0 + x.iter().sum::<usize>() as f64);
    let cross = Cross::new(golden.sizes.clone()).tol(golden.tol).max_rank(golden.limit.unwrap());
    let found = cross.run(f).unwrap();
    check(&golden, &found, |x| f(x).ln());
    assert!(found.evaluations < 3_000_000, "{}", found.evaluations);
}

#[test]
fn a_product() {
    let golden = golden("product_k");
    let f = |x: &[usize]| x.iter().map(|&i| 1.0 + i as f64).product::<f64>();
    let found = Cross::new(golden.sizes.clone()).tol(golden.tol).run(f).unwrap();
    check(&golden, &found, |x| f(x).ln());
    assert!(found.converged && !found.truncated);
}

/// A long-range term, which is missed without enrichment.
fn ising(x: &[usize]) -> f64 {
    let spin = |k: usize| 2.0 * x[k % x.len()] as f64 - 1.0;
    0.7 * (0..x.len()).map(|k| spin(k) * spin(k + 1)).sum::<f64>()
}

#[test]
fn a_periodic_chain() {
    let golden = golden("exp(0.7");
    for seed in 0..3 {
        let cross = Cross::new(golden.sizes.clone()).tol(golden.tol).seed(seed);
        check(&golden, &cross.run(|x| ising(x).exp()).unwrap(), ising);
        check(&golden, &cross.run_log(ising).unwrap(), ising);
    }
}

/// Values at random are a small share of the peak here, so that a share of the values around a bond can be more than
/// all of them; and a rank that cuts off is not tried again in vain.
#[test]
fn a_heavy_tail() {
    let x = |i: usize| 2.0 * i as f64 / 15.0 - 1.0;
    let square = |i: &[usize]| i.iter().map(|&i| x(i) * x(i)).sum::<f64>();
    let log_f = |i: &[usize]| -9.0 * (square(i) / 2.0).ln_1p();
    let sizes = vec![16; 16];
    for (rank, largest, evaluations) in [(8, 1e-5, 130_000), (64, 2e-8, 260_000)] {
        let found = Cross::new(sizes.clone()).max_rank(rank).run_log(log_f).unwrap();
        let error = error(&found, &sizes, log_f);
        assert!(error <= largest, "rank {rank}: {error} {:?}", found.errors);
        assert!(found.evaluations <= evaluations, "rank {rank}: {}", found.evaluations);
        assert_eq!(found.truncated, rank == 8);
    }
}

#[test]
fn a_function_by_its_logarithm() {
    let golden = golden("exp(-800");
    let log_f = |x: &[usize]| -800.0 - x.iter().sum::<usize>() as f64 / 7.0;
    let found = Cross::new(golden.sizes.clone()).tol(golden.tol).run_log(log_f).unwrap();
    check(&golden, &found, log_f);
    let (sign, log_z) = found.train.log_sum();
    assert_eq!(sign, 1.0);
    assert!((log_z - golden.log_z.unwrap()).abs() < 1e-9, "{log_z}");
}

#[test]
fn the_reference_moves_when_a_peak_is_found_late() {
    // Start and check points see a floor; the blocks around the start meet a peak e^200 higher.
    let log_f = |x: &[usize]| if x[0] == 3 && x[1] == 2 { 200.0 } else { -(x[2] as f64) };
    let starts = Indices::new(4, vec![0, 0, 0, 0]).unwrap();
    let found = Cross::new(vec![5, 4, 6, 3]).starts(starts).check(3).tol(1e-10).run_log(log_f);
    let found = found.unwrap();
    let at = Indices::new(4, vec![3, 2, 1, 1]).unwrap();
    assert!((found.train.log_entries(&at).unwrap()[0].1 - 200.0).abs() < 1e-9);
}

#[test]
fn batches_and_points_are_the_same() {
    let f = |x: &[usize]| 1.0 / (1.0 + x.iter().sum::<usize>() as f64);
    let cross = Cross::new(vec![6; 5]).tol(1e-6);
    let one = cross.run(f).unwrap();
    let many = cross
        .run_batched(|x, out| out.iter_mut().zip(x.iter()).for_each(|(out, x)| *out = f(x)))
        .unwrap();
    assert_eq!(one.train, many.train);
    let logs = cross
        .run_log_batched(|x, out| {
            out.iter_mut().zip(x.iter()).for_each(|(out, x)| *out = f(x).ln());
        })
        .unwrap();
    assert!(one.train.relative_squared_distance(&logs.train).unwrap() < 1e-9);
}

#[test]
fn rounding_lowers_ranks_that_enrichment_raised() {
    let f = |x: &[usize]| 1.0 + x.iter().sum::<usize>() as f64;
    let found = Cross::new(vec![4; 6]).tol(1e-10).round(true).run(f).unwrap();
    assert_eq!(found.train.ranks(), [2; 5]);
}

#[test]
fn one_mode_is_a_vector_and_modes_of_size_one_are_no_trouble() {
    let found = Cross::new(vec![4]).run(|x| x[0] as f64 - 1.0).unwrap();
    let got = found.train.to_dense().unwrap();
    assert_eq!(got, [-1.0, 0.0, 1.0, 2.0]);
    let found = Cross::new(vec![1, 3, 1, 2]).run(|x| (x[1] + 2 * x[3]) as f64).unwrap();
    let got = found.train.to_dense().unwrap();
    for (got, want) in got.iter().zip([0.0, 2.0, 1.0, 3.0, 2.0, 4.0]) {
        assert!((got - want).abs() < 1e-12);
    }
}

#[test]
fn evaluations_are_limited() {
    let f = |x: &[usize]| 1.0 / (1.0 + x.iter().sum::<usize>() as f64);
    let cross = Cross::new(vec![8; 8]).tol(1e-13);
    let free = cross.clone().run(f).unwrap();
    assert!(free.errors.len() > 1, "{:?}", free.errors);
    let bound = cross.clone().max_evaluations(free.evaluations - 1).run(f).unwrap();
    assert!(bound.evaluations < free.evaluations && !bound.notices.is_empty());
    assert!(cross.max_evaluations(1500).run(f).is_err());
}
