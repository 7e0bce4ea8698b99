//! Sparse NMF under KL from a start of unbalanced scales.

use ndarray::ArrayD;
use nneinfact::fit::{Balance, Start};
use nneinfact::loss::Penalty;
use nneinfact::{Algorithm, Device, Error, Loss, NNEinFact, Precision};

use super::problem::{Random, data, shapes};

/// What came of a fit.
pub struct Outcome {
    /// Loss and penalty together, as sums, sweep by sweep.
    pub objective: Vec<f64>,
    /// The entries of each factor that are not zero: above 1e-6 of the largest.
    pub nonzeros: Vec<usize>,
}

/// 30 × 30 of rank 4, 30 % of the true factors zero, noise at 40 dB. The start of the first factor is
/// 100 times too large; both factors have an ℓ1 penalty, of weights 1 and `weight`.
pub fn run(seed: u64, weight: f64, balance: Balance) -> Result<Outcome, Error> {
    let mut random = Random::new(seed);
    let shapes = shapes("ir,jr->ij", &[30, 30], &[('r', 4)]);
    let truth = [random.tensor(&[30, 4], 0.3), random.tensor(&[30, 4], 0.3)];
    let y = data(&shapes, &truth, 40.0, &mut random);
    let mut start = random.factors(&shapes);
    start[0] *= 100.0;
    let fit = NNEinFact::new("ir,jr->ij")?
        .ranks([('r', 4)])
        .loss(Loss::kl())
        .algorithm(Algorithm::Block)
        .precision(Precision::F64)
        .device(Device::cpu())
        .start(Start::Factors(start))
        .penalty("ir", Penalty::l1(1.0))
        .penalty("jr", Penalty::l1(weight))
        .balance(balance)
        .max_iter(500)
        .tolerance(0.0)
        .fit(&y)?;
    let entries = y.len() as f64;
    let objective = fit.history().objective().iter().map(|mean| mean * entries).collect();
    Ok(Outcome { objective, nonzeros: fit.factors().iter().map(nonzeros).collect() })
}

fn nonzeros(factor: &ArrayD<f64>) -> usize {
    let largest = factor.iter().copied().fold(0.0, f64::max);
    factor.iter().filter(|&&x| x > 1e-6 * largest).count()
}
