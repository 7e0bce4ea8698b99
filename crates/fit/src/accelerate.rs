//! Acceleration: the weights of extrapolations, and the guard that gives up one that does not pay.

use nneinfact_core::engine::Extrapolation;

/// The weights of the optimized gradient method (Kim & Fessler 2016), in log space: Nesterov's
/// momentum, and a share of the sweep's own step once more. It has the guard that lets an
/// extrapolated point stand only if its loss is not above that in the middle of the sweep before.
/// Losses on this path fall monotonically: the loss at the plain result is at most that in the
/// middle of its sweep.
#[derive(Clone)]
pub(crate) struct Momentum {
    pub t: f64,
    /// The plain sweeps before the first extrapolation.
    pub plain: usize,
    /// Whether the point is an extrapolated one.
    extrapolated: bool,
}

impl Momentum {
    /// Weights of the momentum stay below 1.
    const MOST: f64 = 0.99;
    /// What is left of t after a rejection: a new start from 1 forgets too much
    /// (docs/acceleration.md).
    const LEFT: f64 = 0.5;

    /// The sweeps of a fit that stay plain. Early steps are long, and longer ones drive entries to
    /// zero that would have come back: fits of sparse counts ended a percent above block sweeps
    /// (docs/acceleration.md).
    pub const PLAIN: usize = 5;

    /// Up to this sweep an extrapolation multiplies an entry with e^−0.1 at least, for the same reason, and
    /// with e^−0.4 after it.
    const GENTLE: usize = 12;
    const LEAST_AT_FIRST: f64 = 0.904_837_418_035_959_6;
    const LEAST: f64 = 0.670_320_046_035_639_3;

    pub fn new(plain: usize) -> Momentum {
        Momentum { t: 1.0, plain, extrapolated: false }
    }

    /// The extrapolation after so many sweeps. `None` while sweeps stay plain.
    pub fn next(&mut self, sweeps: usize) -> Option<Extrapolation> {
        if sweeps <= self.plain {
            return None;
        }
        let t = (1.0 + (1.0 + 4.0 * self.t * self.t).sqrt()) / 2.0;
        let momentum = ((self.t - 1.0) / t).min(Self::MOST);
        let relaxation = self.t / t;
        self.t = t;
        self.extrapolated = true;
        let least = if sweeps <= Self::GENTLE { Self::LEAST_AT_FIRST } else { Self::LEAST };
        Some(Extrapolation { momentum, relaxation, least })
    }

    /// Whether a point with this loss is given up for the plain result; the momentum is lowered
    /// then. `bound` is the loss in the middle of the sweep before, or at its plain result.
    pub fn rejects(&mut self, loss: f64, bound: f64) -> bool {
        // An extrapolation that overflowed has no loss.
        let rejected = std::mem::take(&mut self.extrapolated) && (loss > bound || loss.is_nan());
        if rejected {
            self.t = (Self::LEFT * self.t).max(1.0);
        }
        rejected
    }
}
