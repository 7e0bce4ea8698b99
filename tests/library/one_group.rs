//! Models with one group of free factors: all others are fixed, or there is one factor only. A fit
//! ends at a point that is no worse than any that was evaluated, and convex problems end at their
//! optimum.

use crate::common::Random;
use ndarray::{Array2, ArrayD, Ix2};
use nneinfact::{Device, Loss, NNEinFact, Precision};

/// Counts of 40 × 12, close to a product of rank 5, and its known factor. Some entries are 0.
fn problem(seed: u64) -> (Array2<f64>, Array2<f64>) {
    let mut random = Random::new(seed);
    let two = |a: ArrayD<f64>| a.into_dimensionality::<Ix2>().expect("two modes");
    let w = two(random.tensor(&[40, 5], 0.0, 1.0)).mapv(|x| if x < 0.3 { 0.0 } else { x });
    let h = two(random.tensor(&[12, 5], 0.0, 6.0)).mapv(|x| if x < 2.0 { 0.0 } else { x });
    let noise = two(random.tensor(&[40, 12], 0.0, 3.0));
    let y = (w.dot(&h.t()) + noise).mapv(f64::floor);
    (y, w)
}

fn transform(w: &Array2<f64>, loss: &Loss, precision: Precision) -> NNEinFact {
    NNEinFact::new("ir,jr->ij")
        .expect("a model")
        .ranks([('r', w.ncols())])
        .fix("ir", w.clone())
        .loss(loss.clone())
        .device(Device::cpu())
        .precision(precision)
}

/// The least ½ Σ (y − W h)² of every column, by cyclic coordinate descent until nothing moves: the
/// problem is convex, and where no coordinate can move it is solved.
fn least_squares(y: &Array2<f64>, w: &Array2<f64>) -> f64 {
    let gram = w.t().dot(w);
    let mut total = 0.0;
    for column in y.columns() {
        let linear = w.t().dot(&column);
        let mut h = vec![0.0; w.ncols()];
        for _ in 0..100_000 {
            let mut moved: f64 = 0.0;
            for r in 0..h.len() {
                let others: f64 =
                    (0..h.len()).filter(|&s| s != r).map(|s| gram[[r, s]] * h[s]).sum();
                let next = ((linear[r] - others) / gram[[r, r]]).max(0.0);
                moved = moved.max((next - h[r]).abs());
                h[r] = next;
            }
            if moved < 1e-14 {
                break;
            }
        }
        let fitted = w.dot(&ndarray::Array1::from(h));
        total += column.iter().zip(&fitted).map(|(x, y)| 0.5 * (x - y).powi(2)).sum::<f64>();
    }
    total / y.len() as f64
}

/// The least KL divergence of every column, by Newton steps on one coordinate after another, each
/// guarded by halving: the problem is convex.
fn least_divergence(y: &Array2<f64>, w: &Array2<f64>) -> f64 {
    let value = |x: f64, p: f64| if x > 0.0 { x * (x / p).ln() - x + p } else { p };
    let mut total = 0.0;
    for column in y.columns() {
        let objective =
            |p: &[f64]| -> f64 { column.iter().zip(p).map(|(&x, &p)| value(x, p)).sum() };
        let mut h = vec![1.0; w.ncols()];
        let predict = |h: &[f64]| -> Vec<f64> {
            w.rows().into_iter().map(|row| row.iter().zip(h).map(|(a, b)| a * b).sum()).collect()
        };
        let mut best = objective(&predict(&h));
        for _ in 0..2000 {
            let before = best;
            for r in 0..h.len() {
                let p = predict(&h);
                let (mut first, mut second) = (0.0, 0.0);
                for ((&x, &p), row) in column.iter().zip(&p).zip(w.rows()) {
                    if row[r] > 0.0 {
                        first += row[r] * (1.0 - x / p);
                        second += row[r] * row[r] * x / (p * p);
                    }
                }
                let mut step = if second > 0.0 { -first / second } else { -h[r] };
                for _ in 0..60 {
                    let mut next = h.clone();
                    next[r] = (h[r] + step).max(0.0);
                    let found = objective(&predict(&next));
                    if found <= best {
                        (h, best) = (next, found);
                        break;
                    }
                    step *= 0.5;
                }
            }
            if before - best <= 1e-15 * before {
                break;
            }
        }
        total += best;
    }
    total / y.len() as f64
}

#[test]
fn a_transform_under_euclid_ends_at_the_least_squares() {
    for seed in 0..4 {
        let (y, w) = problem(seed);
        let expected = least_squares(&y, &w);
        let fit = transform(&w, &Loss::euclidean(), Precision::F64);
        let loss =
            fit.tolerance(1e-10).max_iter(2000).fit(&y).expect("it fits").history().last_loss();
        assert!((loss - expected).abs() < 1e-6 * expected, "{seed}: {loss} is not {expected}");
    }
}

#[test]
fn a_transform_under_kl_ends_at_the_least_divergence() {
    for seed in 0..4 {
        let (mut y, mut w) = problem(seed);
        // Every row can be reached, so that the divergence is finite.
        w.column_mut(0).mapv_inplace(|x| x.max(0.05));
        y.mapv_inplace(|x| x.max(0.0));
        let expected = least_divergence(&y, &w);
        let fit = transform(&w, &Loss::kl(), Precision::F64);
        let fit = fit.tolerance(1e-10).max_iter(5000).fit(&y).expect("it fits");
        let loss = fit.history().last_loss();
        assert!((loss - expected).abs() < 1e-6 * expected, "{seed}: {loss} is not {expected}");
    }
}

/// What is returned is the last point of the history, and no evaluated point is better; a fit that may
/// run longer ends no higher.
#[test]
fn nothing_that_was_evaluated_is_better_than_what_is_returned() {
    let losses = [
        Loss::kl(),
        Loss::euclidean(),
        Loss::alpha_beta(0.7, 0.0).expect("a loss"),
        Loss::pearson(),
        Loss::hellinger(),
        Loss::negative_binomial(2.0).expect("a loss"),
    ];
    let single = Random::new(7).tensor(&[30], 0.5, 9.0);
    for loss in losses {
        for (precision, rise) in [(Precision::F64, 1e-9), (Precision::F32, 1e-4)] {
            let (y, mut w) = problem(3);
            w.column_mut(0).mapv_inplace(|x| x.max(0.05));
            let y = y.mapv(|x| x.max(1.0));
            let one_factor = || {
                NNEinFact::new("ir->i")
                    .expect("a model")
                    .ranks([('r', 2)])
                    .loss(loss.clone())
                    .device(Device::cpu())
                    .precision(precision)
            };
            let ends = |fit: &dyn Fn(usize) -> nneinfact::Fit, what: &str| {
                let mut before = f64::INFINITY;
                for sweeps in [5, 20, 50, 200, 1000] {
                    let fit = fit(sweeps);
                    let history = fit.history();
                    let scale = history.loss[0].abs().max(1.0);
                    let last = history.last_loss();
                    let least = history.loss.iter().copied().fold(f64::INFINITY, f64::min);
                    assert!(
                        last <= least + rise * scale,
                        "{what}, {sweeps}: {last} is above {least}"
                    );
                    assert!(
                        last <= before + rise * scale,
                        "{what}, {sweeps}: {last} after {before}"
                    );
                    before = last;
                }
            };
            let what = format!("{} in {}", loss.name(), precision.name());
            ends(
                &|sweeps| {
                    transform(&w, &loss, precision).max_iter(sweeps).fit(&y).expect("it fits")
                },
                &format!("a transform, {what}"),
            );
            ends(
                &|sweeps| one_factor().max_iter(sweeps).fit(&single).expect("it fits"),
                &format!("one factor, {what}"),
            );
        }
    }
}
