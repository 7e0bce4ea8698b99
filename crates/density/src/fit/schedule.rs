//! The barriers of the cores. NTT.md, section 4.4.

use super::settings::{Resolved, Schedule};

/// The share of the squared distance that the barrier of `hybrid` may cost each core.
const HYBRID: f64 = 0.01;

/// A barrier μ_k for each core, and how it falls.
#[derive(Clone, Debug)]
pub(crate) struct Barriers {
    schedule: Schedule,
    sigma: f64,
    decay: f64,
    min: f64,
    switch: usize,
    /// Entries of each core.
    sizes: Vec<f64>,
    pub mu: Vec<f64>,
}

impl Barriers {
    /// `squared_norm` is that of the target.
    pub fn new(settings: &Resolved, sizes: &[usize], squared_norm: f64) -> Barriers {
        let sizes: Vec<f64> = sizes.iter().map(|&n| n as f64).collect();
        let mu = first(settings.barrier, settings.barrier_is_share, &sizes, squared_norm);
        Barriers {
            schedule: settings.schedule,
            sigma: settings.sigma,
            decay: settings.decay,
            min: settings.barrier_min,
            switch: settings.switch,
            sizes,
            mu,
        }
    }

    /// Barriers that do not follow gradients: `Fixed` or `Balanced`.
    pub fn steady(
        schedule: Schedule,
        barrier: f64,
        min: f64,
        decay: f64,
        sizes: &[usize],
        squared_norm: f64,
    ) -> Barriers {
        let sizes: Vec<f64> = sizes.iter().map(|&n| n as f64).collect();
        let mu = first(barrier, schedule == Schedule::Balanced, &sizes, squared_norm);
        Barriers { schedule, sigma: 0.1, decay, min, switch: 1, sizes, mu }
    }

    /// Whether the barrier follows the gradient in this sweep, counted from 0.
    pub fn adapts(&self, sweep: usize) -> bool {
        match self.schedule {
            Schedule::Adaptive => true,
            Schedule::Hybrid => sweep < self.switch,
            Schedule::Fixed | Schedule::Balanced => false,
        }
    }

    /// The adaptive rule, given the mean of |entry · gradient| of core k: at a stationary point
    /// entry times gradient is μ everywhere.
    pub fn adapt(&mut self, k: usize, mean: f64) {
        self.mu[k] = self.mu[k].min(self.sigma * mean).max(self.min);
    }

    /// After a sweep, counted from 0; `squared_distance` is that between model and target.
    pub fn after(&mut self, sweep: usize, squared_distance: f64) {
        if self.schedule == Schedule::Hybrid && sweep + 1 == self.switch {
            for (mu, n) in self.mu.iter_mut().zip(&self.sizes) {
                *mu = (HYBRID * squared_distance / n).max(self.min);
            }
        } else if !self.adapts(sweep) {
            self.mu.iter_mut().for_each(|mu| *mu = (self.decay * *mu).max(self.min));
        }
    }

    /// The largest μ_k.
    pub fn largest(&self) -> f64 {
        self.mu.iter().copied().fold(0.0, f64::max)
    }

    /// The largest μ_k N_k.
    pub fn largest_share(&self) -> f64 {
        self.mu.iter().zip(&self.sizes).map(|(mu, n)| mu * n).fold(0.0, f64::max)
    }
}

/// The first barrier of each core: μ_0 for all of them, or in proportion to 1/N_k the share τ_0 of the
/// target's squared norm. A stationary point needs μ_k N_k equal for all cores: with one μ and cores of
/// different sizes the scale drifts from the small cores to the large ones.
fn first(barrier: f64, is_share: bool, sizes: &[f64], squared_norm: f64) -> Vec<f64> {
    if is_share {
        sizes.iter().map(|n| barrier * squared_norm / n).collect()
    } else {
        vec![barrier; sizes.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::settings::TrainFit;

    #[test]
    fn a_given_barrier_is_a_share_where_barriers_are_balanced() {
        let first = |fit: TrainFit<'_>| Barriers::new(&fit.resolved().unwrap(), &[4, 8], 2.0).mu;
        let share = vec![0.1 * 2.0 / 4.0, 0.1 * 2.0 / 8.0];
        let of = |schedule| TrainFit::new().schedule(schedule);
        assert_eq!(first(of(Schedule::Balanced).barrier(0.1)), share);
        assert_eq!(first(of(Schedule::Hybrid).barrier(0.1)), share);
        assert_eq!(first(of(Schedule::Adaptive).barrier(0.1)), [0.1; 2]);
        assert_eq!(first(of(Schedule::Fixed).barrier(0.1)), [0.1; 2]);
        // Where none is given, hybrid begins as adaptive does.
        assert_eq!(first(of(Schedule::Hybrid)), first(of(Schedule::Adaptive)));
        assert_eq!(first(of(Schedule::Fixed)), [1e-3; 2]);
    }
}
