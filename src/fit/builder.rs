//! The settings of a fit.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use ndarray::{ArrayBase, ArrayD, Data, Dimension};

use super::form::DataAs;
use super::observe::{Cancel, Observer};
use super::{Fit, form, solve};
use crate::data::{Coordinates, Dense, Element, Observations};
use crate::engine::{Device, Precision};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::model::{Model, Shapes};
use crate::plan::{DataInfo, Grouping, Plan};

/// How a sweep goes over the factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Algorithm {
    /// One factor at a time, a pass over the data for each: Algorithm 1 of NNEinFact.
    Block,
    /// Several factors from one pass, mostly two passes a sweep. Several times faster.
    Grouped,
    /// Grouped sweeps, extrapolated in log space and guarded: two to four times fewer sweeps to the
    /// same loss, at hardly more cost per sweep. The loss never rises here either.
    #[default]
    Accelerated,
}

impl Algorithm {
    /// "block", "grouped" or "accelerated".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Block => "block",
            Algorithm::Grouped => "grouped",
            Algorithm::Accelerated => "accelerated",
        }
    }
}

/// Where a fit starts.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Start {
    /// Uniform random factors from the seed, scaled so that the mean of ŷ matches the weighted mean
    /// of the data (of its odds, for losses on odds).
    #[default]
    Random,
    /// These factors, in the model's order, as they are.
    Factors(Vec<ArrayD<f64>>),
}

/// A fit to be: a model and its settings.
///
/// ```
/// use ndarray::Array2;
/// use nneinfact::{Loss, NNEinFact};
///
/// let y = Array2::from_shape_fn((30, 20), |(i, j)| ((i + 1) * (j + 2)) as f64);
/// let fit = NNEinFact::new("ir,jr->ij")?
///     .ranks([('r', 2)])
///     .loss(Loss::kl())
///     .seed(1)
///     .fit(&y)?;
/// assert_eq!(fit.factors()[0].shape(), [30, 2]);
/// assert!(fit.history().last_loss() < 1e-3 * fit.history().loss[0]);
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[must_use]
pub struct NNEinFact {
    pub(super) model: Model,
    pub(super) ranks: Vec<(char, usize)>,
    pub(super) loss: Loss,
    pub(super) device: Option<Device>,
    pub(super) precision: Precision,
    pub(super) algorithm: Algorithm,
    pub(super) groups: Option<Vec<Vec<usize>>>,
    pub(super) start: Start,
    pub(super) seed: u64,
    pub(super) max_iter: usize,
    pub(super) tolerance: f64,
    pub(super) early_stopping: bool,
    pub(super) prediction_floor: Option<f64>,
    pub(super) factor_floor: f64,
    pub(super) inner_cycles: usize,
    pub(super) look_every: usize,
    pub(super) memory_limit: Option<u64>,
    pub(super) data_as: DataAs,
    pub(super) observers: Vec<Box<dyn Observer>>,
    pub(super) cancel: Cancel,
}

impl NNEinFact {
    /// The default of [`max_iter`](Self::max_iter).
    pub const MAX_ITER: usize = 500;
    /// The default of [`tolerance`](Self::tolerance).
    pub const TOLERANCE: f64 = 1e-6;
    /// The default of [`factor_floor`](Self::factor_floor).
    pub const FACTOR_FLOOR: f64 = 1e-16;

    /// A fit of the model written as an einsum string, `f_1,f_2,…->out`.
    ///
    /// # Errors
    /// [`Error::Model`] where the string is not a model; the message points at what is wrong.
    pub fn new(model: &str) -> Result<NNEinFact> {
        Ok(NNEinFact {
            model: Model::parse(model)?,
            ranks: Vec::new(),
            loss: Loss::kl(),
            device: None,
            precision: Precision::default(),
            algorithm: Algorithm::default(),
            groups: None,
            start: Start::Random,
            seed: 0,
            max_iter: Self::MAX_ITER,
            tolerance: Self::TOLERANCE,
            early_stopping: false,
            prediction_floor: None,
            factor_floor: Self::FACTOR_FLOOR,
            inner_cycles: 1,
            look_every: 1,
            memory_limit: None,
            data_as: DataAs::Auto,
            observers: Vec::new(),
            cancel: Cancel::new(),
        })
    }

    /// The size of every latent letter. Calls add up.
    pub fn ranks(mut self, ranks: impl IntoIterator<Item = (char, usize)>) -> Self {
        self.ranks.extend(ranks);
        self
    }

    /// The loss to minimise. Default: [`Loss::kl`].
    pub fn loss(mut self, loss: Loss) -> Self {
        self.loss = loss;
        self
    }

    /// Where to run. Default: [`Device::auto`].
    pub fn device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// The element type of passes over the data. Default: [`Precision::F32`].
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// How a sweep goes over the factors. Default: [`Algorithm::Accelerated`].
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Prescribes the groups of factors (counted from 0) in place of the planner's choice. Every
    /// partition is correct; this is for experiments and tests.
    pub fn groups(mut self, groups: Vec<Vec<usize>>) -> Self {
        self.groups = Some(groups);
        self
    }

    /// Where to start. Default: [`Start::Random`].
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// The seed of a random start. Default: 0. The same seed gives the same bits on the same
    /// device, with any number of threads.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The most sweeps. Default: [`Self::MAX_ITER`]. 0 only evaluates the start.
    pub fn max_iter(mut self, max_iter: usize) -> Self {
        self.max_iter = max_iter;
        self
    }

    /// Stops when the training loss F of sweep n fulfils `F_{n−1} − F_n ≤ T · max(|F_n|, F_0 − F_n)`
    /// three times in a row. Default: [`Self::TOLERANCE`]; 0 never stops early.
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Stops after five consecutive rises of the validation loss and returns the factors at which
    /// it was lowest. Needs observations with a validation split. Default: off.
    pub fn early_stopping(mut self, on: bool) -> Self {
        self.early_stopping = on;
        self
    }

    /// What ŷ is raised to before a quotient, a power or a logarithm, in the units of the data.
    ///
    /// Default: 1e-10 times the mean of the data; in single precision, where that to the loss's
    /// largest exponent e would overflow, 10^(−30/e) times the mean.
    pub fn prediction_floor(mut self, floor: f64) -> Self {
        self.prediction_floor = Some(floor);
        self
    }

    /// What entries of a factor are raised to after an update, relative to its largest entry:
    /// multiplicative updates cannot leave zero. Default: [`Self::FACTOR_FLOOR`]. 0 lets entries
    /// reach zero and stay there.
    pub fn factor_floor(mut self, floor: f64) -> Self {
        self.factor_floor = floor;
        self
    }

    /// Reads the losses back every so many sweeps only, so that a GPU does not wait for the host in
    /// between: the history has an element for each look, and the tolerance, observers and
    /// cancellation act there. Default: 1. The accelerated algorithm and early stopping need every
    /// sweep's losses and look at all of them, whatever this says.
    pub fn look_every(mut self, sweeps: usize) -> Self {
        self.look_every = sweeps;
        self
    }

    /// How often the factors of a group are cycled over after a pass. Default: 1.
    pub fn inner_cycles(mut self, cycles: usize) -> Self {
        self.inner_cycles = cycles;
        self
    }

    /// The most memory that stored products of factors, numerators and denominators may take, in
    /// bytes. Default: a quarter of the data or 64 MiB, whichever is more, and what the factors
    /// themselves need.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// The form that passes read the data in. Default: [`DataAs::Auto`], whichever is faster; either
    /// way the results are the same up to rounding.
    pub fn data_as(mut self, form: DataAs) -> Self {
        self.data_as = form;
        self
    }

    /// Adds an observer, called after every sweep.
    pub fn observe(mut self, observer: impl Observer + 'static) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// A switch to stop the fit from elsewhere.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// The plan for dense data of this shape, in C order with `value_bytes` bytes a value, without
    /// fitting.
    ///
    /// # Errors
    /// [`Error::Model`] where shape or ranks do not fit the model, [`Error::Memory`] where no plan
    /// stays within memory, [`Error::Setting`] where the given groups are no partition.
    pub fn plan(&self, shape: &[usize], value_bytes: usize) -> Result<Plan> {
        let shapes = Shapes::new(&self.model, shape, &self.ranks)?;
        let data = DataInfo::c_order(&shapes, value_bytes);
        solve::plan(self, &shapes, data, None)
    }

    /// The plan for data of this shape given as a list of `nonzeros` cells, all others being zeros,
    /// without fitting.
    ///
    /// # Errors
    /// As [`plan`](Self::plan), and [`Error::Setting`] where the loss needs all cells and there are
    /// too many of them.
    pub fn sparse_plan(&self, shape: &[usize], nonzeros: u64) -> Result<Plan> {
        let shapes = Shapes::new(&self.model, shape, &self.ranks)?;
        form::plan_list(self, &shapes, nonzeros)
    }

    /// How long each pass of a fit takes on its device, with the plan: what `nneinfact bench` reports.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    #[doc(hidden)]
    pub fn profile(
        self,
        data: impl Source,
        repeats: usize,
    ) -> Result<(std::sync::Arc<Plan>, Vec<crate::engine::PassTime>)> {
        solve::profile(self, data.observations()?.as_ref(), repeats)
    }

    /// Fits the model to an array (`f32`, `f64`, `bool` or any integer type) or to
    /// [`Observations`].
    ///
    /// # Errors
    /// Whatever is wrong with the model, ranks, data, loss or settings, before the first sweep; and
    /// [`Error::Numeric`] where no sweep could be completed.
    pub fn fit(self, data: impl Source) -> Result<Fit> {
        solve::fit(self, data.observations()?.as_ref())
    }

    pub(super) fn grouping(&self) -> Grouping {
        match (&self.groups, self.algorithm) {
            (Some(groups), _) => Grouping::Given(groups.clone()),
            (None, Algorithm::Block) => Grouping::Block,
            (None, Algorithm::Grouped | Algorithm::Accelerated) => Grouping::Grouped,
        }
    }

    /// Checks the settings that do not depend on the data.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::Setting(message));
        if !(self.tolerance >= 0.0 && self.tolerance.is_finite()) {
            return refuse(format!(
                "the tolerance must be a number of at least 0, not {}",
                self.tolerance
            ));
        }
        if !(self.factor_floor >= 0.0 && self.factor_floor < 1e-3) {
            return refuse(format!(
                "the factor floor is relative to the largest entry: at least 0 and below 1e-3, not {}",
                self.factor_floor
            ));
        }
        if let Some(floor) = self.prediction_floor
            && !(floor > 0.0 && floor.is_finite())
        {
            return refuse(format!("the prediction floor must be positive, not {floor}"));
        }
        if self.inner_cycles == 0 {
            return refuse("the number of inner cycles must be at least 1".into());
        }
        if self.look_every == 0 {
            return refuse(
                "losses can be read every sweep (1) or less often, not every 0 sweeps".into(),
            );
        }
        Ok(())
    }
}

impl fmt::Debug for NNEinFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NNEinFact")
            .field("model", &self.model)
            .field("ranks", &self.ranks)
            .field("loss", &self.loss.name())
            .field("algorithm", &self.algorithm)
            .field("precision", &self.precision)
            .finish_non_exhaustive()
    }
}

/// What a fit can be run on: an array, a [`Dense`] tensor, [`Coordinates`], or [`Observations`].
pub trait Source {
    /// The data as observations.
    ///
    /// # Errors
    /// Where the data cannot be used.
    fn observations(&self) -> Result<Cow<'_, Observations>>;
}

impl Source for &Observations {
    fn observations(&self) -> Result<Cow<'_, Observations>> {
        Ok(Cow::Borrowed(self))
    }
}

impl Source for Observations {
    fn observations(&self) -> Result<Cow<'_, Observations>> {
        Ok(Cow::Borrowed(self))
    }
}

impl Source for Arc<Dense> {
    fn observations(&self) -> Result<Cow<'_, Observations>> {
        Ok(Cow::Owned(Observations::shared(Arc::clone(self))))
    }
}

impl Source for Arc<Coordinates> {
    fn observations(&self) -> Result<Cow<'_, Observations>> {
        Ok(Cow::Owned(Observations::new(Arc::clone(self))))
    }
}

impl Source for &Coordinates {
    fn observations(&self) -> Result<Cow<'_, Observations>> {
        Ok(Cow::Owned(Observations::new((*self).clone())))
    }
}

impl<S, D> Source for &ArrayBase<S, D>
where
    S: Data,
    S::Elem: Element,
    D: Dimension,
{
    fn observations(&self) -> Result<Cow<'_, Observations>> {
        Ok(Cow::Owned(Observations::new(Dense::from_array(self))))
    }
}
