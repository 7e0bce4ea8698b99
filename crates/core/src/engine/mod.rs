//! Engines: what carries out a plan on a device.
//!
//! A fit needs few operations of a device, those of the trait [`Engine`]. Pass and update are
//! separate: a pass leaves the sums `N`, `D` and the losses, which add up over disjoint parts of
//! the data, and an update reads nothing but them.

mod adapter;
pub mod collectives;
mod precision;
mod reducer;
pub mod role_lists;
mod scales;
mod sparse_program;
pub mod stored_order;

use std::sync::Arc;

use ndarray::ArrayD;

use crate::data::{Prepared, StoredEntries};
use crate::error::{Error, Result};
use crate::loss::{Differences, Loss, Penalty};
use crate::plan::{Balancing, Plan};

pub use adapter::{AdapterInfo, AdapterKind};
pub use precision::Precision;
pub use reducer::Reducer;
pub use scales::{host_scales, level_scales};
pub use sparse_program::{
    MaskedTerms, MaskedZeroLoss, SparseProgram, SparseStep, StoredTerms, ZeroContraction, ZeroSum,
    ZeroSums,
};

/// Sums of `W·ℓ` over the training, validation and held-out entries, and of the penalties.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    /// Over training entries.
    pub train: f64,
    /// Over validation entries.
    pub validation: f64,
    /// Over held-out entries.
    pub held_out: f64,
    /// The penalties of all factors.
    pub penalty: f64,
}

impl LossSums {
    /// What a fit lowers: the training loss with the penalties.
    #[must_use]
    pub fn objective(self) -> f64 {
        self.train + self.penalty
    }
}

/// What holds for a factor besides the data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constraint {
    /// Its penalty; one with μ = 0 is none.
    pub penalty: Option<Penalty>,
    /// The least that an entry may be.
    pub lower: f64,
    /// The most that an entry may be.
    pub upper: f64,
    /// Whether it stays as it is.
    pub fixed: bool,
}

impl Default for Constraint {
    fn default() -> Constraint {
        Constraint { penalty: None, lower: 0.0, upper: f64::INFINITY, fixed: false }
    }
}

impl Constraint {
    /// Whether entries may be any number of at least 0.
    #[must_use]
    pub fn is_unbounded(&self) -> bool {
        self.lower == 0.0 && self.upper == f64::INFINITY
    }

    /// The same constraint for the factor divided by `unit`, the objective being divided by
    /// `scale`.
    #[must_use]
    pub fn rescaled(self, unit: f64, scale: f64) -> Constraint {
        Constraint {
            penalty: self.penalty.map(|penalty| penalty.rescaled(unit, scale)),
            lower: self.lower / unit,
            upper: self.upper / unit,
            fixed: self.fixed,
        }
    }
}

/// Where losses are kept until they are read: reading waits for the device, so all that a sweep
/// needs to know is read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossSlot {
    /// Those at the start of a sweep.
    Start = 0,
    /// Those at the last pass of a sweep.
    Middle = 1,
}

impl LossSlot {
    /// The number of slots.
    pub const COUNT: usize = 2;
}

/// How long a pass takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PassTime {
    /// Seconds of everything from the factors to numerator, denominator and losses: the median.
    pub seconds: f64,
    /// The least of these. What a device can do at best ([`RooflinePeaks`]) is measured at its
    /// best, too.
    pub least_seconds: f64,
    /// Seconds of what reads the data, by the device's own clock, where it has one.
    pub kernel_seconds: Option<f64>,
}

impl PassTime {
    /// Of all measurements of a pass, at least one.
    pub fn new(seconds: Vec<f64>, kernels: Option<Vec<f64>>) -> PassTime {
        let least_seconds = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        PassTime { seconds: median(seconds), least_seconds, kernel_seconds: kernels.map(median) }
    }
}

/// What a device can do at best, as measured on it, with all that it computes with at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RooflinePeaks {
    /// Bytes of a large array that is read and not written, as a pass reads its data. On a GPU
    /// those of the copy.
    pub read_bytes_per_second: f64,
    /// Bytes read and written by a copy.
    pub copy_bytes_per_second: f64,
    /// Multiply-adds in single precision, of numbers in registers.
    pub multiply_adds_per_second: f64,
    /// Powers in single precision, with an exponent between −1 and 1.
    pub powers_per_second: f64,
    /// Natural logarithms in single precision.
    pub logarithms_per_second: f64,
    /// Lines of the cache, looked up anywhere in a table that stays in the second-level cache, as a
    /// sparse pass looks up the rows of its tables. `None` where it is not measured: on a GPU.
    pub gathered_lines_per_second: Option<f64>,
    /// The same in a table that is larger than that cache, as rows are looked up for the first time.
    pub distant_lines_per_second: Option<f64>,
}

/// The guards of a fit against what floating point cannot hold (docs/method.md).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guards {
    /// ŷ is clamped to at least this before a power, a quotient or a logarithm. In the units of the
    /// data.
    pub prediction_floor: f64,
    /// After an update, entries of a factor are clamped to at least this times its largest entry.
    pub factor_floor: f64,
    /// How often the factors of a group are cycled over after a pass.
    pub inner_cycles: usize,
}

/// Everything that an engine is made from.
#[derive(Clone, Debug)]
pub struct Job {
    /// What to do.
    pub plan: Arc<Plan>,
    /// The observations.
    pub data: Arc<Prepared>,
    /// The stored entries that passes go over in place of all entries, where the plan has
    /// [sparse passes](Plan::sparse_passes).
    pub stored: Option<Arc<StoredEntries>>,
    /// The loss.
    pub loss: Loss,
    /// For each group, where the losses of its pass go; `None` where they are not computed.
    pub losses: Vec<Option<LossSlot>>,
    /// The guards.
    pub guards: Guards,
    /// The factors to start from, in the model's order.
    pub start: Vec<ArrayD<f64>>,
    /// What the engine multiplies each factor with to have it in its own units, powers of two:
    /// those of the [`EngineState`] that a fit goes on from; `None` where it is to choose them from
    /// the start.
    pub scales: Option<Vec<f64>>,
    /// What holds for each factor, in the user's units.
    pub constraints: Vec<Constraint>,
    /// For each factor what differences between neighbouring entries cost, in the user's units, for
    /// [exact](Job::exact) steps alone; none where it is empty.
    pub differences: Vec<Option<Differences>>,
    /// The rescalings among the factors, all of which have a penalty; `None` where
    /// [`Engine::balance`] is not called.
    pub balancing: Option<Arc<Balancing>>,
    /// Whether an engine that can do so lowers half the squared distance, all entries being
    /// observed, by coordinate descent on a group's exact objective in place of majorization
    /// (docs/method.md).
    pub exact: bool,
    /// Whether steps are made elsewhere, and the factors loaded that came of them: any factor may have
    /// changed between two passes, and not those of the pass's group alone.
    pub steps_elsewhere: bool,
    /// The unit of the data: values are divided by it as they are read, a power of two (1 where
    /// the loss is not homogeneous). The start and the factors are in the user's units; the engine
    /// carries the unit in its factors ([`host_scales`], [`level_scales`]).
    pub unit: f64,
    /// What values are multiplied with as they are read: 1 / `unit`, or 1 where `data` and `stored`
    /// hold them divided by the unit already.
    pub value_scale: f64,
    /// What the objective is divided by in the engine besides the unit's power.
    pub sums_unit: f64,
}

impl Job {
    /// What the objective in the user's units is divided by in the engine's: the unit of the data
    /// to the loss's degree, and the unit of sums.
    #[must_use]
    pub fn objective_unit(&self) -> f64 {
        self.unit.powf(self.loss.homogeneity().unwrap_or(0.0)) * self.sums_unit
    }
}

/// All factors that an engine keeps, to the bit: where a fit goes on from.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct EngineState {
    /// What each factor is multiplied with in the engine, powers of two.
    pub scales: Vec<f64>,
    /// The factors as they are, in the engine's units, each in C order of its indices.
    pub factors: Vec<Vec<f64>>,
    /// The plain result that the next extrapolation starts from; `None` where no
    /// [anchor](Point::Anchor) was set.
    pub anchor: Option<Vec<Vec<f64>>>,
    /// The point that the last sweep began at; `None` for the factors themselves.
    pub origin: Option<Vec<Vec<f64>>>,
    /// The factors of the [snapshot](Point::Snapshot); `None` where there is none.
    pub snapshot: Option<Vec<Vec<f64>>>,
}

impl EngineState {
    /// Checks that a state is one of these factors, in these units.
    pub fn check(&self, scales: &[f64], sizes: &[usize]) -> Result<()> {
        let all = [Some(&self.factors), self.anchor.as_ref(), self.origin.as_ref()];
        let mut all = all.into_iter().chain([self.snapshot.as_ref()]).flatten();
        let fits = |factors: &Vec<Vec<f64>>| factors.iter().map(Vec::len).eq(sizes.iter().copied());
        if all.all(fits) && self.scales == scales {
            return Ok(());
        }
        Err(Error::Internal("a state is that of a fit with other factors or other units".into()))
    }
}

/// A set of factors that an engine keeps: see [`Engine::copy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The factors as they are: what passes read and updates change.
    Current,
    /// The plain result of the last sweep, which an extrapolation starts from and a rejected one goes
    /// back to.
    Anchor,
    /// The factors that a fit may go back to: those before a sweep, or the best so far.
    Snapshot,
}

impl Point {
    /// The error of copying between two points that [`Engine::copy`] does not allow.
    #[must_use]
    pub fn refuse(from: Point, to: Point) -> Error {
        Error::Internal(format!("factors are not copied from {from:?} to {to:?}"))
    }
}

/// How a sweep ends that an engine makes by itself: see [`Engine::sweeps`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SweepEnd {
    /// With its plain result.
    Plain,
    /// With its plain result, which becomes the [anchor](Point::Anchor).
    Anchor,
    /// With an [extrapolation](Engine::extrapolate), which stands only if its objective is not above
    /// that at the last pass of the sweep.
    Extrapolate(Extrapolation),
}

/// How an [extrapolation](Engine::extrapolate) goes on from the plain result of a sweep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extrapolation {
    /// The weight of the momentum.
    pub momentum: f64,
    /// The weight of the sweep's own step.
    pub relaxation: f64,
    /// The least that an entry is multiplied with in log space.
    pub least: f64,
}

/// What a device does for a fit.
pub trait Engine: Send {
    /// Reads the data once: computes numerator and denominator for the plan's group, and where
    /// [`Job::losses`] has a slot for the group the losses at the factors as they are before its
    /// update, for [`Engine::sums`] to return. A device may still be at work when this returns.
    ///
    /// # Errors
    /// Where the device fails.
    fn pass(&mut self, group: usize) -> Result<()>;

    /// Updates the factors of the group from the sums of the last pass. A factor that becomes not
    /// finite is an error of this call or of the next [`Engine::sums`].
    ///
    /// # Errors
    /// Where the device fails, or the group had no pass.
    fn update(&mut self, group: usize) -> Result<()>;

    /// Computes the losses at the factors as they are, for [`LossSlot::Start`]. No update may
    /// follow.
    ///
    /// # Errors
    /// Where the device fails.
    fn evaluate(&mut self) -> Result<()>;

    /// The losses last computed for each [`LossSlot`]; waits for the device. A loss that is not
    /// finite is returned as it is: the caller knows whether it matters.
    ///
    /// # Errors
    /// Where the device fails, or an update since the last call produced a factor that is not
    /// finite ([`Error::Numeric`]).
    fn sums(&mut self) -> Result<[LossSums; LossSlot::COUNT]>;

    /// How long a pass of the group takes: the median of several.
    ///
    /// # Errors
    /// Where the device fails.
    fn time(&mut self, group: usize, repeats: usize) -> Result<PassTime> {
        let mut seconds = Vec::new();
        for _ in 0..repeats.max(1) {
            let started = std::time::Instant::now();
            self.pass(group)?;
            self.sums()?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        Ok(PassTime::new(seconds, None))
    }

    /// Makes the rescalings of [`Job::balancing`] once: they leave ŷ as it is and do not increase
    /// the penalties.
    ///
    /// # Errors
    /// Where the device fails.
    fn balance(&mut self) -> Result<()>;

    /// `Σ W a ŷ` and `Σ W b ŷ` of the last pass, before its update: what the loss says about a
    /// common scale of ŷ.
    ///
    /// # Errors
    /// Where the device fails, or there was no pass.
    fn scale_terms(&mut self) -> Result<[f64; 2]>;

    /// Numerator and denominator of every entry of the factor `at` (counted in the group) from the
    /// sums of the last pass, in the user's units and per |c|: `lambda` has the factors of change
    /// of the group's factors so far.
    ///
    /// # Errors
    /// Where the device fails, or there was no pass.
    fn parts(&mut self, at: usize, lambda: &[Vec<f64>]) -> Result<(Vec<f64>, Vec<f64>)>;

    /// Q of the last pass's group, which has one factor, in the order of `gram` of
    /// [`Quadratic::by_rows`](crate::plan::Quadratic::by_rows), in the user's units and per |c|: what half
    /// the squared distance says of every row of the factor besides the numerator of
    /// [`parts`](Engine::parts).
    ///
    /// # Errors
    /// [`Error::Internal`] where the job is not [exact](Job::exact) on this device, or there was no pass.
    fn row_grams(&mut self) -> Result<Vec<f64>> {
        Err(Error::Internal("an engine without exact steps has no quadratic forms".into()))
    }

    /// Replaces the factors: in the model's order, in the user's units, and of the shapes that the
    /// start had. Anchor and snapshot stay.
    ///
    /// # Errors
    /// Where the device fails.
    fn load(&mut self, factors: &[ArrayD<f64>]) -> Result<()>;

    /// The factors, in the model's order.
    ///
    /// # Errors
    /// Where the device fails.
    fn factors(&self) -> Result<Vec<ArrayD<f64>>>;

    /// Extrapolates in log space: with P the factors as they are, the plain result of a sweep, C
    /// the plain result before it and X the point that the sweep began at, moves to `P ⊙ (P /
    /// C)^momentum ⊙ (P / X)^relaxation` (to P where one of them is 0), takes P for C, and where it
    /// moved to for X. In an [exact](Job::exact) fit, whose entries reach 0, it moves to `P +
    /// momentum (P − C) + relaxation (P − X)`, or to 0 where that is negative.
    ///
    /// # Errors
    /// Where the device fails; [`Error::Internal`] where no [anchor](Point::Anchor) was set.
    fn extrapolate(&mut self, by: Extrapolation) -> Result<()>;

    /// Copies the factors from one slot to another. Four copies are asked for:
    ///
    /// - from `Current` to `Anchor` before the first sweep: the factors as they are become the
    ///   plain result that the first extrapolation starts from, and the point that the first sweep
    ///   begins at;
    /// - from `Anchor` to `Current` to reject an extrapolation: the next sweep begins at the plain
    ///   result that the extrapolation came from;
    /// - from `Current` to `Snapshot` to keep the factors in place of those kept before;
    /// - from `Snapshot` to `Current` to go back to them. Nothing happens where there is no
    ///   snapshot.
    ///
    /// # Errors
    /// Where the device fails. [`Error::Internal`] for any other copy, and where the anchor was
    /// never set.
    fn copy(&mut self, from: Point, to: Point) -> Result<()>;

    /// All factors that it keeps, to the bit.
    ///
    /// # Errors
    /// Where the device fails.
    fn state(&self) -> Result<EngineState>;

    /// Goes to where an engine of the same job was when it gave this state; a pass has to follow.
    ///
    /// # Errors
    /// Where the device fails, or the state does not have the job's sizes and units.
    fn restore(&mut self, state: &EngineState) -> Result<()>;

    /// Where several processes fit together, the largest of the words that they give, the same for all of
    /// them; an error of one is an error of all. Alone, what is given. Whoever has found out something
    /// that all have to know calls it, and all others at the same time.
    ///
    /// # Errors
    /// The one that is given, or that another process gives.
    fn agree(&mut self, own: Result<u64>) -> Result<u64> {
        own
    }

    /// Makes sweeps one after another without asking the host in between: each from the update of
    /// the first group to the first pass of the sweep after it. Begins where the pass of the first
    /// group is done, and ends there: as if the host had made every one of them by itself, to the bit.
    ///
    /// Returns the losses of the sweeps that were made: those of the pass that each ended with, and
    /// those of its last pass before. There may be fewer than asked for: an engine chooses how many
    /// it makes before the host can look, and stops after an extrapolation of which it does not know
    /// for sure that it stands; that one is the last, and the host decides. A sweep that would fail is
    /// not made. None is made where an engine leaves it to the host, as it does by default.
    ///
    /// # Errors
    /// Where the device fails.
    fn sweeps(&mut self, ends: &[SweepEnd]) -> Result<Vec<[LossSums; LossSlot::COUNT]>> {
        let _ = ends;
        Ok(Vec::new())
    }

    /// Goes back to where the last [`sweeps`](Engine::sweeps) began, and makes the first `count` of
    /// them again.
    ///
    /// # Errors
    /// Where the device fails; [`Error::Internal`] where it made fewer.
    fn repeat_sweeps(&mut self, count: usize) -> Result<()> {
        Err(Error::Internal(format!("an engine that made no sweeps cannot repeat {count}")))
    }

    /// Whether updates lower a group's [exact](Job::exact) objective.
    fn is_exact(&self) -> bool {
        false
    }

    /// An engine of the same job at the same factors, without anchor and snapshot. It shares with this one
    /// what both only read, so that several fits to the same data hold and sort these once. `None` where the
    /// device has none to give: where it is one that fits would take turns on.
    ///
    /// # Errors
    /// Where the device fails.
    fn another(&self) -> Result<Option<Box<dyn Engine>>> {
        Ok(None)
    }

    /// Bytes of memory of its own that the device gives to the fit; `None` where that is the memory
    /// of the process.
    fn device_memory(&self) -> Option<u64> {
        None
    }

    /// How often a sweep tells the device to do something, each of which costs it some microseconds however
    /// little it is; `None` where that costs nothing: on a CPU.
    fn dispatches(&self) -> Option<usize> {
        None
    }
}

/// The median, NaN of no values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
