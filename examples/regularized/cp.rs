//! Ridge nonnegative CP with two components too many.

use ndarray::{ArrayD, Axis};
use nneinfact::fit::Balance;
use nneinfact::loss::Penalty;
use nneinfact::{Algorithm, Device, Error, Loss, NNEinFact, Precision};

use super::problem::{Random, data, shapes};

/// What came of a fit.
pub struct Outcome {
    /// The product of each component's column norms, over the largest.
    pub sizes: Vec<f64>,
    /// The column norms of each factor, component by component.
    pub norms: Vec<Vec<f64>>,
}

impl Outcome {
    /// The components whose size is over 1e-3 of the largest.
    pub fn alive(&self) -> Vec<usize> {
        (0..self.sizes.len()).filter(|&r| self.sizes[r] > 1e-3).collect()
    }
}

/// 30 × 30 × 30 of true rank 4, fitted with rank 6, next to no noise (200 dB). Every factor has the
/// penalty `weight` Σ θ².
pub fn run(seed: u64, weight: f64, balance: Balance) -> Result<Outcome, Error> {
    let mut random = Random::new(seed);
    let model = "ir,jr,kr->ijk";
    let true_shapes = shapes(model, &[30; 3], &[('r', 4)]);
    let truth = random.factors(&true_shapes);
    let y = data(&true_shapes, &truth, 200.0, &mut random);
    let fit = NNEinFact::new(model)?
        .ranks([('r', 6)])
        .loss(Loss::euclidean())
        .algorithm(Algorithm::Accelerated)
        .precision(Precision::F64)
        .device(Device::cpu())
        .seed(seed)
        .penalty_on_all(Penalty::l2(weight))
        .balance(balance)
        .max_iter(500)
        .tolerance(0.0)
        .fit(&y)?;
    let norms: Vec<Vec<f64>> = fit.factors().iter().map(columns).collect();
    let sizes: Vec<f64> = (0..6).map(|r| norms.iter().map(|n| n[r]).product()).collect();
    let largest = sizes.iter().copied().fold(0.0, f64::max);
    Ok(Outcome { sizes: sizes.iter().map(|size| size / largest).collect(), norms })
}

fn columns(factor: &ArrayD<f64>) -> Vec<f64> {
    let norm =
        |column: ndarray::ArrayViewD<'_, f64>| column.iter().map(|x| x * x).sum::<f64>().sqrt();
    factor.axis_iter(Axis(1)).map(norm).collect()
}
