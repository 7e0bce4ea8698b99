//! The barriers of the cores. NTT.md, section 4.4.

use super::settings::{Resolved, Schedule};

/// The share of the squared distance that the barrier of `hybrid` may cost each core.
const HYBRID: f64 = 0.01;

/// A barrier μ_k for each core, and how it falls.
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
        let mu = first(settings.schedule, settings.barrier, &sizes, squared_norm);
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
        let mu = first(schedule, barrier, &sizes, squared_norm);
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

/// The first barrier of each core.
fn first(schedule: Schedule, barrier: f64, sizes: &[f64], squared_norm: f64) -> Vec<f64> {
    match schedule {
        // A stationary point needs μ_k N_k equal for all cores: with one μ and cores of different
        // sizes the scale drifts from the small cores to the large ones.
        Schedule::Balanced => sizes.iter().map(|n| barrier * squared_norm / n).collect(),
        Schedule::Fixed | Schedule::Adaptive | Schedule::Hybrid => vec![barrier; sizes.len()],
    }
}
