//! The step of a factor, from what tensors, penalties and smooth modes say of its entries.

use crate::structure::Simplex;
use nneinfact_core::algebra::update::Bounded;
use nneinfact_core::engine::Constraint;
use nneinfact_core::loss::{Majorizer, Share};

/// What holds for a factor that is updated.
pub(super) struct Step<'a> {
    pub constraint: Constraint,
    /// Whether its group has this factor only.
    pub single: bool,
    pub simplex: Option<&'a Simplex>,
}

impl Step<'_> {
    /// The factor of change of every entry, from what is said of each.
    pub fn changes(&self, theta: &[f64], shares: &[Vec<Share>]) -> Vec<f64> {
        let Step { constraint, single, simplex } = *self;
        let bounded = Bounded { single, constraint };
        let best = |entry: usize, shares: &[Share]| {
            let theta = theta[entry];
            let (gradient, power) = match constraint.penalty {
                Some(penalty) => (penalty.derivative(theta), penalty.power()),
                None => (0.0, 1.0),
            };
            bounded.change(theta, Share::joint_step(shares, gradient, power))
        };
        let Some(simplex) = simplex else {
            return shares.iter().enumerate().map(|(entry, shares)| best(entry, shares)).collect();
        };
        simplex.changes(theta, |entry, multiplier| {
            // A constant in the derivative, of either sign.
            let majorizer = Majorizer::Power { p_a: -1.0, p_b: 0.0 };
            let constant = Share { majorizer, falling: false, a: 0.0, b: multiplier };
            let mut all = shares[entry].clone();
            all.push(constant);
            best(entry, &all)
        })
    }
}
