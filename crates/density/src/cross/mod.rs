//! A train from a function: cross interpolation with maximal volume. NTT.md, section 2, looks at blocks
//! of two modes; here it is one mode with some more tuples than the rank, and two only where that
//! stands still.

mod function;
mod maxvol;
mod sweep;

use self::function::{Batched, Function, Halt};
use self::sweep::Crossing;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::indices::{Indices, check_sizes};
use crate::train::TensorTrain;

/// The most bytes of one block of values.
const BLOCK_BYTES: u64 = 4 << 30;

/// Interpolates a function of index tuples by a tensor train, from some of its values.
///
/// The function is evaluated in parallel. It may be given by its logarithm, as densities in many
/// dimensions over- and underflow. Oseledets & Tyrtyshnikov 2010, Savostyanov & Oseledets 2011, with enrichment by the check points
/// of largest error; NTT.md, section 2.
///
/// ```
/// use nneinfact_density::{Cross, Indices};
///
/// // exp(-(x_0 + ... + x_9)/7 - 800), which double precision cannot hold, by its logarithm.
/// let log_f = |x: &[usize]| -800.0 - x.iter().sum::<usize>() as f64 / 7.0;
/// let found = Cross::new(vec![9; 10]).tol(1e-12).run_log(log_f)?;
/// assert_eq!(found.train.ranks(), [1; 9]);
/// let (sign, log) = found.train.log_entries(&Indices::new(10, vec![3; 10])?)?[0];
/// assert!(sign == 1.0 && (log - (-800.0 - 30.0 / 7.0)).abs() < 1e-10);
/// # Ok::<(), nneinfact_density::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cross {
    sizes: Vec<usize>,
    tol: f64,
    max_rank: usize,
    max_sweeps: usize,
    kick: usize,
    enrich: usize,
    check: usize,
    max_evaluations: Option<u64>,
    seed: u64,
    starts: Option<Indices>,
    round: bool,
}

/// What a cross interpolation returns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CrossTrain {
    /// The train. Of a function given by its logarithm, a reference value is the train's scale.
    pub train: TensorTrain,
    /// After each sweep, `‖f − train‖ / ‖f‖` on the check points.
    pub errors: Vec<f64>,
    /// After each sweep, the ranks.
    pub ranks: Vec<Vec<usize>>,
    /// How often the function was evaluated.
    pub evaluations: u64,
    /// Whether the largest rank cut something off in the last sweep.
    pub truncated: bool,
    /// Whether the tolerance was reached on the check points.
    pub converged: bool,
    /// What the caller may want to know.
    pub notices: Vec<String>,
}

impl Cross {
    /// An interpolation over modes of these sizes.
    #[must_use]
    pub fn new(sizes: Vec<usize>) -> Cross {
        Cross {
            sizes,
            tol: 1e-8,
            max_rank: 64,
            max_sweeps: 8,
            kick: 2,
            enrich: 4,
            check: 1000,
            max_evaluations: None,
            seed: 0,
            starts: None,
            round: false,
        }
    }

    /// The relative error to reach. Default: 1e-8.
    #[must_use]
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// The largest rank. Default: 64.
    #[must_use]
    pub fn max_rank(mut self, max_rank: usize) -> Self {
        self.max_rank = max_rank;
        self
    }

    /// The most sweeps. Default: 8.
    #[must_use]
    pub fn max_sweeps(mut self, max_sweeps: usize) -> Self {
        self.max_sweeps = max_sweeps;
        self
    }

    /// Random directions that each bond gets, by which ranks grow. Default: 2.
    #[must_use]
    pub fn kick(mut self, kick: usize) -> Self {
        self.kick = kick;
        self
    }

    /// Check points of largest error that join the index sets after a sweep. Default: 4; with 0
    /// long-range terms can be missed.
    #[must_use]
    pub fn enrich(mut self, enrich: usize) -> Self {
        self.enrich = enrich;
        self
    }

    /// Random points on which the error is measured. Default: 1000.
    #[must_use]
    pub fn check(mut self, check: usize) -> Self {
        self.check = check;
        self
    }

    /// The most evaluations of the function. Default: no limit.
    #[must_use]
    pub fn max_evaluations(mut self, max_evaluations: u64) -> Self {
        self.max_evaluations = Some(max_evaluations);
        self
    }

    /// The seed of start points, check points and random directions. Default: 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Points to start from. Default: two random ones, and two after two rounds of coordinate ascent.
    #[must_use]
    pub fn starts(mut self, starts: Indices) -> Self {
        self.starts = Some(starts);
        self
    }

    /// Whether the train is rounded to the tolerance at the end. Default: no.
    #[must_use]
    pub fn round(mut self, round: bool) -> Self {
        self.round = round;
        self
    }

    /// Interpolates a function of one index tuple.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, the function is not finite somewhere (the tuple is named), it is
    /// zero at all points looked at, or the evaluations allowed do not suffice for one sweep.
    pub fn run(&self, f: impl Fn(&[usize]) -> f64 + Sync) -> Result<CrossTrain> {
        self.interpolate(&pointwise(f), false)
    }

    /// Interpolates `exp(log_f)`. A logarithm of −∞ is a zero.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_log(&self, log_f: impl Fn(&[usize]) -> f64 + Sync) -> Result<CrossTrain> {
        self.interpolate(&pointwise(log_f), true)
    }

    /// Interpolates a function that fills the values of a batch of tuples. Batches have at most 1024
    /// tuples and may come from several threads.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_batched(&self, f: impl Fn(&Indices, &mut [f64]) + Sync) -> Result<CrossTrain> {
        self.interpolate(&f, false)
    }

    /// As [`run_batched`](Self::run_batched), of a function given by its logarithm.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_log_batched(
        &self,
        log_f: impl Fn(&Indices, &mut [f64]) + Sync,
    ) -> Result<CrossTrain> {
        self.interpolate(&log_f, true)
    }

    fn interpolate(&self, f: &Batched<'_>, log: bool) -> Result<CrossTrain> {
        self.check_settings()?;
        let mut f = Function::new(f, self.sizes.len(), log, self.max_evaluations);
        let mut notices = Vec::new();
        let found = if self.sizes.len() == 1 {
            vector(self.sizes[0], &mut f)
        } else {
            Crossing::begin(self, &mut f).and_then(|c| c.run(&mut notices))
        };
        let mut found = found.map_err(|halt| match halt {
            Halt::Failed(error) => error,
            // The reference is only moved in a sweep, which begins again by itself.
            Halt::Moved | Halt::Budget => Error::Setting(format!(
                "{} evaluations do not suffice for one sweep; allow more, or a smaller rank",
                self.max_evaluations.unwrap_or(u64::MAX)
            )),
        })?;
        if !f.nonzero {
            return Err(Error::Numeric(format!(
                "the function is zero at all {} points looked at; give start points where it is not",
                f.evaluations
            )));
        }
        found.train.log_scale = if log { f.reference } else { 0.0 };
        if self.round {
            found.train = found.train.rounded(self.tol, Some(self.max_rank))?;
        }
        found.evaluations = f.evaluations;
        found.notices = notices;
        Ok(found)
    }

    fn check_settings(&self) -> Result<()> {
        check_sizes(&self.sizes)?;
        if !(self.tol > 0.0 && self.tol < 1.0) {
            return Err(Error::Setting(format!(
                "the tolerance is {}; it has to be between 0 and 1",
                self.tol
            )));
        }
        for (name, value) in [
            ("the largest rank", self.max_rank),
            ("the number of sweeps", self.max_sweeps),
            ("the number of check points", self.check),
        ] {
            if value == 0 {
                return Err(Error::Setting(format!("{name} is 0; it has to be at least 1")));
            }
        }
        let longest = self.sizes.iter().copied().max().unwrap_or(0);
        let points = self.check.saturating_mul(self.sizes.len()).max(longest);
        if points as u64 > BLOCK_BYTES / 8 {
            return Err(Error::Memory {
                what: "a mode's values, or the check points,".into(),
                needed: (points as u64).saturating_mul(8),
                available: BLOCK_BYTES,
                help: "use smaller modes, or fewer check points".into(),
            });
        }
        if let Some(starts) = &self.starts {
            starts.check(&self.sizes, "the start points")?;
            if starts.rows() == 0 {
                return Err(Error::Setting("no start point; give at least one, or none".into()));
            }
        }
        Ok(())
    }
}

/// A function of one tuple as one of batches.
fn pointwise(f: impl Fn(&[usize]) -> f64 + Sync) -> impl Fn(&Indices, &mut [f64]) + Sync {
    move |indices, out| out.iter_mut().zip(indices.iter()).for_each(|(out, x)| *out = f(x))
}

/// With one mode the train is the vector of all values.
fn vector(size: usize, f: &mut Function<'_>) -> Result<CrossTrain, Halt> {
    let mut values = f.raw(size, |at, tuple| tuple.push(at))?;
    f.reference = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !f.reference.is_finite() {
        f.reference = 0.0;
    }
    f.exponentiate(&mut values);
    let cores = vec![Core::raw(1, size, 1, values)];
    Ok(CrossTrain {
        train: TensorTrain { cores, log_scale: 0.0 },
        errors: vec![0.0],
        ranks: vec![Vec::new()],
        evaluations: 0,
        truncated: false,
        converged: true,
        notices: Vec::new(),
    })
}
