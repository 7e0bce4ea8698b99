//! The settings of a fit.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::history::SweepReport;
use crate::error::{Error, Result};
use crate::nonnegative::NonnegativeTrain;

/// How cores are updated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Newton steps on the objective with a logarithmic barrier (NTT.md, section 4).
    #[default]
    Newton,
    /// Multiplicative updates (section 5).
    Multiplicative,
    /// Exact coordinate descent, HALS (section 5).
    Descent,
}

/// How the Newton direction is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solver {
    /// One Cholesky factorization for each slice.
    Direct,
    /// Conjugate gradients without preconditioner in the change of the entries.
    Cg,
    /// Conjugate gradients with the barrier as preconditioner.
    Pcg,
    /// Conjugate gradients with the diagonal as preconditioner.
    Jacobi,
}

/// How the barrier μ falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// One μ for all cores, multiplied by the decay after every sweep.
    Fixed,
    /// A share σ of the mean of |entry · gradient|, never rising.
    Adaptive,
    /// In proportion to 1/N_k, multiplied by the decay after every sweep.
    Balanced,
    /// `Adaptive` for some sweeps, then `Balanced` from a barrier that is small against the error.
    #[default]
    Hybrid,
}

/// What one step length is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineSearch {
    /// One step length for the core.
    Core,
    /// One for each slice: the objective is a sum over slices.
    #[default]
    Slice,
}

/// Called after every sweep; a break ends the fit.
pub(crate) type Observer<'a> = Box<dyn FnMut(&SweepReport) -> ControlFlow<()> + Send + 'a>;

/// Fits a nonnegative tensor train to a train of any sign: minimises `½‖P_H − P_G‖²` with a
/// logarithmic barrier, one core at a time. NTT.md, sections 4 and 5.
///
/// The ranks, or a start, have to be given; everything else has a default.
///
/// ```
/// use nneinfact_density::{NonnegativeTrain, TrainFit};
///
/// let target = NonnegativeTrain::random(&[3, 4, 2, 3], &[2, 2, 2], 1)?.into_train();
/// let fit = TrainFit::new().rank(3).sweeps(30).seed(2).run(&target)?;
/// assert!(fit.relative_squared_distance < 1e-5);
/// assert_eq!(fit.history.error.len(), fit.history.sweeps + 1);
/// # Ok::<(), nneinfact_density::Error>(())
/// ```
#[derive(Default)]
pub struct TrainFit<'a> {
    pub(crate) rank: Option<usize>,
    pub(crate) ranks: Option<Vec<usize>>,
    pub(crate) start: Option<NonnegativeTrain>,
    pub(crate) raise_zeros: bool,
    pub(crate) method: Method,
    pub(crate) solver: Option<Solver>,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) barrier: Option<f64>,
    pub(crate) barrier_min: Option<f64>,
    pub(crate) decay: Option<f64>,
    pub(crate) sigma: Option<f64>,
    pub(crate) line_search: Option<LineSearch>,
    pub(crate) inner: Option<usize>,
    pub(crate) cg_max: Option<usize>,
    pub(crate) cg_tol: Option<f64>,
    pub(crate) switch: Option<usize>,
    pub(crate) preconditioner_min: Option<f64>,
    pub(crate) sweeps: Option<usize>,
    pub(crate) target_error: Option<f64>,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) seed: u64,
    pub(crate) observer: Option<Observer<'a>>,
    pub(crate) cancel: Option<Arc<AtomicBool>>,
}

/// Settings with their defaults, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolved {
    pub schedule: Schedule,
    pub barrier: f64,
    /// Whether it is τ, the share of the target's squared norm, and not μ.
    pub barrier_is_share: bool,
    pub barrier_min: f64,
    pub decay: f64,
    pub sigma: f64,
    pub line_search: LineSearch,
    pub inner: usize,
    pub cg_max: usize,
    pub cg_tol: f64,
    pub switch: usize,
    pub preconditioner_min: f64,
    pub sweeps: usize,
}

/// A setter of an option, with its documentation.
macro_rules! setter {
    ($(#[$doc:meta])* $name:ident: $type:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = Some($name);
            self
        }
    };
}

impl<'a> TrainFit<'a> {
    /// A fit with default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setter! {
        /// The same rank for all bonds. More than the target's ranks where a fit stalls.
        rank: usize
    }
    setter! {
        /// A rank for each bond, one fewer than there are modes.
        ranks: Vec<usize>
    }
    setter! {
        /// The train to start from, as it is. Without one: random entries and five sweeps of the
        /// multiplicative update.
        start: NonnegativeTrain
    }

    /// Whether entries of the start that are 0 become 1e-12 of the largest of their core. Without
    /// it, a start with zeros is an error where a barrier is used.
    #[must_use]
    pub fn raise_zeros(mut self, raise_zeros: bool) -> Self {
        self.raise_zeros = raise_zeros;
        self
    }

    /// How cores are updated. Default: Newton.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    setter! {
        /// How Newton directions are found. Default: direct for cores whose two ranks have a
        /// product of at most 150, the diagonal's preconditioner for the others.
        solver: Solver
    }
    setter! {
        /// How the barrier falls. Default: hybrid.
        schedule: Schedule
    }
    setter! {
        /// The first barrier: μ_0 for all cores under `fixed` (default 1e-3) and `adaptive` (1e-2), and
        /// τ_0 under `balanced` (1e-2) and `hybrid`, with `μ_k = τ_0 ‖P_G‖²/N_k`. Where none is given,
        /// `hybrid` begins as `adaptive` does.
        barrier: f64
    }
    setter! {
        /// The smallest barrier μ. Default: 1e-20.
        barrier_min: f64
    }
    setter! {
        /// What the barrier is multiplied by after a sweep, between 0 and 1. Default: ½.
        decay: f64
    }
    setter! {
        /// The share σ of the adaptive rule, between 0 and 1. Default: 0.1.
        sigma: f64
    }
    setter! {
        /// Whether slices have step lengths of their own (default) or a core has one.
        line_search: LineSearch
    }
    setter! {
        /// The most Newton steps at a visit. Default: 1.
        inner: usize
    }
    setter! {
        /// The most steps of conjugate gradients for one direction. Default: 10.
        cg_max: usize
    }
    setter! {
        /// How far conjugate gradients reduce the residual. Default: 1e-10.
        cg_tol: f64
    }
    setter! {
        /// After how many sweeps `hybrid` turns. Default: 8.
        switch: usize
    }
    setter! {
        /// The μ below which `pcg` goes without preconditioner. Default: 0.
        preconditioner_min: f64
    }
    setter! {
        /// The most sweeps; each visits all cores forwards and backwards. Default: 50.
        sweeps: usize
    }
    setter! {
        /// The fit stops once `‖P_H − P_G‖² / ‖P_G‖²` is at most this. With 0 it makes exactly the
        /// given number of sweeps, even where the error stalls.
        target_error: f64
    }
    setter! {
        /// The fit stops after this time.
        time_limit: Duration
    }

    /// The seed of a random start. Default: 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Called after every sweep; `ControlFlow::Break(())` ends the fit.
    #[must_use]
    pub fn observer(
        mut self,
        observer: impl FnMut(&SweepReport) -> ControlFlow<()> + Send + 'a,
    ) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    setter! {
        /// A flag that ends the fit once it is true: after the core at hand, from any thread.
        cancel: Arc<AtomicBool>
    }

    /// The settings with their defaults; an error for the first that is out of range.
    pub(crate) fn resolved(&self) -> Result<Resolved> {
        let schedule = self.schedule.unwrap_or_default();
        let first = if schedule == Schedule::Fixed { 1e-3 } else { 1e-2 };
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let share = |x: f64| x > 0.0 && x < 1.0;
        let from_zero = |x: f64| x >= 0.0 && x.is_finite();
        if let Some(target) = self.target_error {
            check("the target error", target, from_zero, "0 or positive")?;
        }
        Ok(Resolved {
            schedule,
            barrier_is_share: match schedule {
                Schedule::Balanced => true,
                Schedule::Hybrid => self.barrier.is_some(),
                Schedule::Fixed | Schedule::Adaptive => false,
            },
            barrier: setting("the barrier", self.barrier, first, positive, "positive")?,
            barrier_min: setting(
                "the smallest barrier",
                self.barrier_min,
                1e-20,
                positive,
                "positive",
            )?,
            decay: setting("the decay", self.decay, 0.5, share, "between 0 and 1")?,
            sigma: setting("sigma", self.sigma, 0.1, share, "between 0 and 1")?,
            line_search: self.line_search.unwrap_or_default(),
            inner: at_least_one("the number of inner steps", self.inner, 1)?,
            cg_max: at_least_one("the largest number of CG steps", self.cg_max, 10)?,
            cg_tol: setting("the tolerance of CG", self.cg_tol, 1e-10, from_zero, "0 or positive")?,
            switch: at_least_one("the number of sweeps before the switch", self.switch, 8)?,
            preconditioner_min: setting(
                "the barrier below which the preconditioner is dropped",
                self.preconditioner_min,
                0.0,
                from_zero,
                "0 or positive",
            )?,
            sweeps: self.sweeps.unwrap_or(50),
        })
    }

    /// The names of settings that were made, but have no effect with the others.
    #[must_use]
    pub fn without_effect(&self) -> Vec<&'static str> {
        let newton = self.method == Method::Newton;
        let schedule = self.schedule.unwrap_or_default();
        let direct = self.solver == Some(Solver::Direct);
        let adaptive = matches!(schedule, Schedule::Adaptive | Schedule::Hybrid);
        let table = [
            ("solver", self.solver.is_some(), newton),
            ("schedule", self.schedule.is_some(), newton),
            ("barrier", self.barrier.is_some(), newton),
            ("barrier_min", self.barrier_min.is_some(), newton),
            ("decay", self.decay.is_some(), newton && schedule != Schedule::Adaptive),
            ("sigma", self.sigma.is_some(), newton && adaptive),
            ("line_search", self.line_search.is_some(), newton),
            ("inner", self.inner.is_some(), newton),
            ("cg_max", self.cg_max.is_some(), newton && !direct),
            ("cg_tol", self.cg_tol.is_some(), newton && !direct),
            ("switch", self.switch.is_some(), newton && schedule == Schedule::Hybrid),
            (
                "preconditioner_min",
                self.preconditioner_min.is_some(),
                newton && self.solver == Some(Solver::Pcg),
            ),
        ];
        table.into_iter().filter(|&(_, set, used)| set && !used).map(|(name, ..)| name).collect()
    }
}

impl fmt::Debug for TrainFit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainFit")
            .field("method", &self.method)
            .field("rank", &self.rank)
            .field("ranks", &self.ranks)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

fn check(name: &str, x: f64, accepted: impl Fn(f64) -> bool, words: &str) -> Result<()> {
    if accepted(x) {
        return Ok(());
    }
    Err(Error::Setting(format!("{name} is {x}; it has to be {words}")))
}

fn setting(
    name: &str,
    given: Option<f64>,
    default: f64,
    accepted: impl Fn(f64) -> bool,
    words: &str,
) -> Result<f64> {
    let x = given.unwrap_or(default);
    check(name, x, accepted, words)?;
    Ok(x)
}

fn at_least_one(name: &str, given: Option<usize>, default: usize) -> Result<usize> {
    match given {
        Some(0) => Err(Error::Setting(format!("{name} is 0; it has to be at least 1"))),
        given => Ok(given.unwrap_or(default)),
    }
}
