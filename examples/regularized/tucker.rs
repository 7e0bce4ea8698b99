//! Sparse nonnegative Tucker under KL with a core that is too large.

use ndarray::Axis;
use nneinfact::fit::{Balance, Start};
use nneinfact::loss::Penalty;
use nneinfact::{Algorithm, Device, Error, Loss, NNEinFact, Precision};

use super::problem::{Random, data, shapes};

/// What came of a fit.
pub struct Outcome {
    pub objective: Vec<f64>,
    /// For the first mode, the share of each slice of the core in ŷ, over the largest.
    pub slices: Vec<f64>,
}

impl Outcome {
    /// How many slices are over 1e-3 of the largest.
    pub fn alive(&self) -> usize {
        self.slices.iter().filter(|&&share| share > 1e-3).count()
    }
}

/// 30 × 30 × 30 with a core of 4 × 4 × 4, 70 % of it zero; fitted with 6 in the place of the first 4. The penalty is `weight` (‖G‖₁ + Σ ‖X‖²).
pub fn run(
    seed: u64,
    weight: f64,
    balance: Balance,
    algorithm: Algorithm,
) -> Result<Outcome, Error> {
    let mut random = Random::new(seed);
    let model = "ia,jb,kc,abc->ijk";
    let true_shapes = shapes(model, &[30; 3], &[('a', 4), ('b', 4), ('c', 4)]);
    let mut truth: Vec<_> = (0..3).map(|_| random.tensor(&[30, 4], 0.0)).collect();
    truth.push(random.tensor(&[4; 3], 0.7));
    let y = data(&true_shapes, &truth, 40.0, &mut random);
    let ranks = [('a', 6), ('b', 4), ('c', 4)];
    let start = random.factors(&shapes(model, &[30; 3], &ranks));
    let ridge = Penalty::l2(weight);
    let fit = NNEinFact::new(model)?
        .ranks(ranks)
        .loss(Loss::kl())
        .algorithm(algorithm)
        .precision(Precision::F64)
        .device(Device::cpu())
        .start(Start::Factors(start))
        .penalty_on_all(ridge)
        .penalty("abc", Penalty::l1(weight))
        .balance(balance)
        .max_iter(500)
        .tolerance(0.0)
        .fit(&y)?;
    let [x, core] = [&fit.factors()[0], &fit.factors()[3]];
    let share = |a: usize| x.index_axis(Axis(1), a).sum() * core.index_axis(Axis(0), a).sum();
    let shares: Vec<f64> = (0..6).map(share).collect();
    let largest = shares.iter().copied().fold(0.0, f64::max);
    let entries = y.len() as f64;
    Ok(Outcome {
        objective: fit.history().objective().iter().map(|mean| mean * entries).collect(),
        slices: shares.iter().map(|share| share / largest).collect(),
    })
}
