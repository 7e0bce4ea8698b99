//! What a fit did, sweep by sweep.

/// Why a fit stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoppedBy {
    /// The error that was asked for is reached.
    Target,
    /// All sweeps were done.
    Sweeps,
    /// The error no longer falls, and the barrier is small against it.
    Stalled,
    /// The time was up.
    Time,
    /// Someone interrupted it: the observer, or the flag it was given.
    Interrupted,
}

impl StoppedBy {
    /// The reason as a word: `target`, `sweeps`, `stalled`, `time` or `interrupted`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            StoppedBy::Target => "target",
            StoppedBy::Sweeps => "sweeps",
            StoppedBy::Stalled => "stalled",
            StoppedBy::Time => "time",
            StoppedBy::Interrupted => "interrupted",
        }
    }
}

/// What is known after one sweep.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SweepReport {
    /// The sweep, from 1; 0 is the start.
    pub sweep: usize,
    /// `‖P_H − P_G‖² / ‖P_G‖²`, with a meaning down to about 1e-30: small ones are measured by QR of
    /// the difference.
    pub error: f64,
    /// The largest barrier of a core, μ_k.
    pub barrier: f64,
    /// The largest `μ_k N_k / ‖P_G‖²`, which is free of scale.
    pub tau: f64,
    /// The smallest step length of the sweep.
    pub step: f64,
    /// Steps of conjugate gradients, over all visits.
    pub cg_steps: usize,
    /// Seconds since the fit began.
    pub seconds: f64,
}

/// The history of a fit: one entry for the start and one for each sweep.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// `‖P_H − P_G‖² / ‖P_G‖²`, entry 0 at the start.
    pub error: Vec<f64>,
    /// The largest barrier μ_k after the sweep; 0 without barrier.
    pub barrier: Vec<f64>,
    /// The largest `μ_k N_k / ‖P_G‖²` after the sweep.
    pub tau: Vec<f64>,
    /// The smallest step length of the sweep.
    pub step: Vec<f64>,
    /// Steps of conjugate gradients of the sweep.
    pub cg_steps: Vec<usize>,
    /// Seconds since the fit began.
    pub seconds: Vec<f64>,
    /// How many sweeps were completed. One that was broken off has an entry of its own at the end.
    pub sweeps: usize,
    /// Why the fit stopped.
    pub stopped_by: StoppedBy,
}

impl History {
    pub(crate) fn new() -> History {
        History {
            error: Vec::new(),
            barrier: Vec::new(),
            tau: Vec::new(),
            step: Vec::new(),
            cg_steps: Vec::new(),
            seconds: Vec::new(),
            sweeps: 0,
            stopped_by: StoppedBy::Sweeps,
        }
    }

    pub(crate) fn push(&mut self, report: &SweepReport) {
        self.error.push(report.error);
        self.barrier.push(report.barrier);
        self.tau.push(report.tau);
        self.step.push(report.step);
        self.cg_steps.push(report.cg_steps);
        self.seconds.push(report.seconds);
    }
}
