//! One of the tensors of a coupled fit.

use nneinfact_core::engine::Engine;
use nneinfact_core::loss::Loss;

/// One of the tensors.
pub(crate) struct Member {
    pub engine: Box<dyn Engine>,
    pub loss: Loss,
    pub weight: f64,
    /// The factors of its model among all factors.
    pub factors: Vec<usize>,
    /// For each group of all factors its own groups of those that it has: none, one, or for a factor
    /// with several places one for each place.
    pub groups: Vec<Vec<usize>>,
    /// For each of its own groups its factors, counted in its own model.
    pub own: Vec<Vec<usize>>,
}

impl Member {
    /// A tensor with these own groups of factors, whose places among all factors are `factors`.
    pub fn new(
        engine: Box<dyn Engine>,
        (loss, weight): (Loss, f64),
        factors: Vec<usize>,
        own: Vec<Vec<usize>>,
        joint: &[Vec<usize>],
        ties: &[usize],
    ) -> Member {
        let of = |group: &Vec<usize>| -> Vec<usize> {
            let has = |g: &usize| own[*g].iter().any(|&m| group.contains(&ties[factors[m]]));
            (0..own.len()).filter(has).collect()
        };
        let groups = joint.iter().map(of).collect();
        Member { engine, loss, weight, factors, groups, own }
    }

    /// Whether its last group is the last to have a pass in this group of all factors.
    pub fn ends_with(&self, group: usize) -> bool {
        self.own.len() > 1 && self.groups[group].last() == Some(&(self.own.len() - 1))
    }
}
