//! The step of a factor, from what tensors, penalties and smooth modes say of its entries.

use crate::structure::Simplex;
use nneinfact_core::algebra::update::Bounded;
use nneinfact_core::engine::Constraint;
use nneinfact_core::loss::{Majorizer, Separable, Share};
use nneinfact_core::parallel;

/// Entries of a factor that are worth another thread.
const ENTRIES_PER_THREAD: usize = 1 << 12;

/// What tensors and smooth modes say of every entry of a factor.
pub(super) struct Terms {
    /// Of each tensor that has the factor.
    pub losses: Vec<LossTerm>,
    /// Of the differences between neighbours, what falls and what rises in the derivative; empty where the
    /// factor is not smooth.
    pub rough: Vec<[f64; 2]>,
}

/// What a tensor says of every entry of a factor.
pub(super) struct LossTerm {
    pub majorizer: Majorizer,
    /// Whether the loss's curvature constant is negative.
    pub falling: bool,
    /// The numerators, times |c| and the weight of the loss.
    pub a: Vec<f64>,
    /// The denominators, likewise.
    pub b: Vec<f64>,
}

impl LossTerm {
    fn at(&self, entry: usize) -> Share {
        let LossTerm { majorizer, falling, .. } = *self;
        Share { majorizer, falling, a: self.a[entry], b: self.b[entry] }
    }
}

impl Terms {
    /// What the tensors say of an entry.
    pub fn shares(&self, entry: usize) -> impl Iterator<Item = Share> + Clone + '_ {
        self.losses.iter().map(move |term| term.at(entry))
    }

    /// What its neighbours say of an entry.
    fn beside(&self, entry: usize) -> Separable {
        match self.rough.get(entry) {
            Some(&[fall, rise]) => Separable { square: rise, constant: -fall },
            None => Separable::default(),
        }
    }
}

/// What holds for a factor that is updated.
pub(super) struct Step<'a> {
    pub constraint: Constraint,
    /// Whether its group has this factor only.
    pub single: bool,
    pub simplex: Option<&'a Simplex>,
}

impl Step<'_> {
    /// The factor of change of every entry, from what is said of each.
    pub fn changes(&self, theta: &[f64], terms: &Terms) -> Vec<f64> {
        let Step { constraint, single, simplex } = *self;
        let bounded = Bounded { single, constraint };
        let penalty = |theta: f64| match constraint.penalty {
            Some(penalty) => (penalty.derivative(theta), penalty.power()),
            None => (0.0, 1.0),
        };
        let beside = |entry: usize, multiplier: f64| {
            let (gradient, power) = penalty(theta[entry]);
            let mut beside = terms.beside(entry);
            beside.constant += multiplier;
            let step = Share::joint_step_beside(terms.shares(entry), gradient, power, beside);
            bounded.change(theta[entry], step)
        };
        if let Some(simplex) = simplex {
            return simplex.changes(theta, beside);
        }
        let mut changes = vec![0.0; theta.len()];
        parallel::chunks(&mut changes, ENTRIES_PER_THREAD, &|first, changes| {
            let entries = (first..).zip(changes);
            if !terms.rough.is_empty() {
                return entries.for_each(|(entry, to)| *to = beside(entry, 0.0));
            }
            let mut shares: Vec<Share> = Vec::new();
            for (entry, to) in entries {
                shares.clear();
                shares.extend(terms.shares(entry));
                let (gradient, power) = penalty(theta[entry]);
                *to = bounded.change(theta[entry], Share::joint_step(&shares, gradient, power));
            }
        });
        changes
    }
}
