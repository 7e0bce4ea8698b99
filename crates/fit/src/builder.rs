//! The settings of a fit.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::{ArrayBase, ArrayD, Data, Dimension};

use super::checkpoint::{Checkpoint, Every};
use super::form::DataAs;
use super::observe::{Cancel, Observer};
use super::rules::{Balance, Constraints, Wish};
use super::{Fit, adam, form, open, solve};
use crate::Device;
use nneinfact_core::data::{CooTensor, Dense, Element, Observations, Prepared};
use nneinfact_core::engine::Precision;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::{History, StoppedBy};
use nneinfact_core::loss::{Loss, Penalty};
use nneinfact_core::model::{Index, IndexSet, Model, Shapes};
use nneinfact_core::plan::{DataInfo, Grouping, Plan};

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
    /// Adam (Kingma & Ba 2015) on the logarithms of all factors at once, with β₁ = 0.9, β₂ = 0.999,
    /// ε = 1e-8 and a [learning rate](NNEinFact::learning_rate): what automatic differentiation would
    /// do, for comparisons and as an independent check. A step costs the passes of a grouped sweep, but
    /// **the loss may rise**; the factors that are returned are the best that were seen (lowest
    /// objective, with early stopping lowest validation loss).
    Adam,
}

impl Algorithm {
    /// "block", "grouped", "accelerated" or "adam".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Block => "block",
            Algorithm::Grouped => "grouped",
            Algorithm::Accelerated => "accelerated",
            Algorithm::Adam => "adam",
        }
    }
}

/// Where a fit starts.
///
/// Where it ends depends on that: several seeds, or a start that has seen the data, can lead to a
/// lower loss. docs/method.md has the formulas.
///
/// ```
/// use ndarray::Array3;
/// use nneinfact::NNEinFact;
/// use nneinfact::fit::Start;
///
/// let y = Array3::from_shape_fn((12, 10, 8), |(i, j, k)| (1 + i * (j % 3) + k * (i % 2)) as f64);
/// let settings = |rank| NNEinFact::new("ir,jr,kr->ijk").map(|fit| fit.ranks([('r', rank)]));
///
/// let random = settings(3)?.max_iter(0).fit(&y)?;
/// let svd = settings(3)?.start(Start::Svd).max_iter(0).fit(&y)?;
/// assert!(svd.history().loss[0] < random.history().loss[0]);
///
/// // From two components to three.
/// let small = settings(2)?.fit(&y)?;
/// let start = Start::Grown(small.factors().to_vec());
/// let large = settings(3)?.start(start).fit(&y)?;
/// assert!(large.history().last_loss() <= small.history().last_loss());
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Start {
    /// Uniform random factors from the seed, scaled so that the mean of ŷ matches the weighted mean
    /// of the data (of its odds, for losses on odds).
    #[default]
    Random,
    /// Gamma-distributed random factors from the seed, scaled as [`Random`](Self::Random). The
    /// smaller the shape, the more entries are close to 0 and the fewer large: 1 is exponential,
    /// below 1 components begin nearly sparse, far above 1 all entries are nearly the same.
    Gamma {
        /// The shape of the distribution, above 0 and finite.
        shape: f64,
    },
    /// From singular vectors of the data, scaled as [`Random`](Self::Random).
    ///
    /// For a product of two factors (`ir,jr->ij`) NNDSVD (Boutsidis & Gallopoulos 2008); for other
    /// models the leading left singular vectors of the data unfolded along each factor's observed
    /// letters, as in the HOSVD (De Lathauwer et al. 2000), each made nonnegative as NNDSVD does,
    /// and a core, or a weight for each component, fitted to the data by least squares. What is
    /// small is raised to 0.01 of its factor's mean, as multiplicative updates cannot leave zero.
    /// Where a factor has more columns than the data have singular vectors, the others are random,
    /// from the seed.
    ///
    /// Cells that are missing or withheld count as the weighted mean of the training cells, and
    /// weights other than 0 and 1 as 1. The data have to be in memory; coordinates with random
    /// splits or masks over all cells are expanded for it.
    Svd,
    /// From the factors of a fit of the same model with ranks that are smaller or equal, in the
    /// model's order: the entries are those of that fit, and what is new is small random numbers
    /// from the seed, at most 0.1 of the factor's mean and small enough to add at most a hundredth
    /// to the sum of ŷ. So the loss starts near that of the fit.
    Grown(Vec<ArrayD<f64>>),
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
    pub(super) learning_rate: Option<f64>,
    pub(super) groups: Option<Vec<Vec<usize>>>,
    pub(super) start: Start,
    /// What was asked for of single factors, by their names.
    pub(super) wishes: Vec<(String, Wish)>,
    pub(super) penalty: Option<Penalty>,
    pub(super) balance: Option<Balance>,
    pub(super) seed: u64,
    pub(super) starts: usize,
    pub(super) max_iter: usize,
    pub(super) tolerance: f64,
    pub(super) early_stopping: bool,
    pub(super) prediction_floor: Option<f64>,
    pub(super) factor_floor: f64,
    pub(super) inner_cycles: usize,
    pub(super) eval_every: usize,
    pub(super) memory_limit: Option<u64>,
    pub(super) data_as: DataAs,
    pub(super) observers: Vec<Box<dyn Observer>>,
    pub(super) cancel: Cancel,
    pub(super) checkpoint: Option<(PathBuf, Every)>,
    pub(super) resume: Option<Box<Checkpoint>>,
}

/// The history of a fit that has not evaluated its loss yet.
pub(crate) fn empty_history(settings: &NNEinFact, device: Option<&Device>) -> History {
    History {
        loss: Vec::new(),
        penalty: Vec::new(),
        validation_loss: Vec::new(),
        heldout_loss: Vec::new(),
        seconds: Vec::new(),
        sweeps: Vec::new(),
        stopped_by: StoppedBy::MaxIter,
        loss_name: settings.loss.name().into(),
        algorithm: settings.algorithm.name().into(),
        device: device.map(ToString::to_string).unwrap_or_default(),
        seed: settings.seed,
        precision: settings.precision.name().into(),
        prediction_floor: settings.prediction_floor,
        iterations: 0,
        returned: 0,
    }
}

impl NNEinFact {
    /// The default of [`max_iter`](Self::max_iter).
    pub const MAX_ITER: usize = 500;
    /// How many sweeps tell which of several [`starts`](Self::starts) is the best.
    pub const TRIAL_SWEEPS: usize = 10;
    /// The default of [`tolerance`](Self::tolerance).
    pub const TOLERANCE: f64 = 1e-6;
    /// The default of [`learning_rate`](Self::learning_rate).
    pub const LEARNING_RATE: f64 = 0.1;
    /// The default of [`factor_floor`](Self::factor_floor).
    pub const FACTOR_FLOOR: f64 = 1e-16;

    /// A fit of the model written as an einsum string, `f_1,f_2,…->out`.
    ///
    /// # Errors
    /// [`Error::Model`] where the string is not a model; the message points at what is wrong.
    pub fn new(model: &str) -> Result<NNEinFact> {
        Ok(NNEinFact::of(Model::parse(model)?))
    }

    /// A fit of this model.
    pub(super) fn of(model: Model) -> NNEinFact {
        NNEinFact {
            model,
            ranks: Vec::new(),
            loss: Loss::kl(),
            device: None,
            precision: Precision::default(),
            algorithm: Algorithm::default(),
            learning_rate: None,
            groups: None,
            start: Start::Random,
            wishes: Vec::new(),
            penalty: None,
            balance: None,
            seed: 0,
            starts: 1,
            max_iter: Self::MAX_ITER,
            tolerance: Self::TOLERANCE,
            early_stopping: false,
            prediction_floor: None,
            factor_floor: Self::FACTOR_FLOOR,
            inner_cycles: 1,
            eval_every: 1,
            memory_limit: None,
            data_as: DataAs::Auto,
            observers: Vec::new(),
            cancel: Cancel::new(),
            checkpoint: None,
            resume: None,
        }
    }

    /// The settings of device, algorithm and numbers, for a fit of another model to other data: nothing
    /// that goes with the factors, and no observers.
    pub(super) fn alike(&self, model: Model) -> NNEinFact {
        NNEinFact {
            device: self.device.clone(),
            precision: self.precision,
            algorithm: self.algorithm,
            learning_rate: self.learning_rate,
            max_iter: self.max_iter,
            tolerance: self.tolerance,
            prediction_floor: self.prediction_floor,
            factor_floor: self.factor_floor,
            inner_cycles: self.inner_cycles,
            memory_limit: self.memory_limit,
            data_as: self.data_as,
            ..NNEinFact::of(model)
        }
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

    /// How far a step of [`Algorithm::Adam`] goes: at first every entry changes by a factor of about
    /// exp(±rate). Above 0. Default: [`Self::LEARNING_RATE`]. An error with another algorithm.
    ///
    /// Adam follows the gradient of the *mean* loss. Its ε is not scaled with it: where the mean loss is
    /// far below 1e-6, as of data far below 1, steps become short; multiply such data by a number.
    ///
    /// ```
    /// use ndarray::Array2;
    /// use nneinfact::{Algorithm, NNEinFact};
    ///
    /// let y = Array2::from_shape_fn((12, 9), |(i, j)| ((i + 1) * (j % 3 + 1)) as f64);
    /// let fit = NNEinFact::new("ir,jr->ij")?
    ///     .ranks([('r', 2)])
    ///     .algorithm(Algorithm::Adam)
    ///     .learning_rate(0.05)
    ///     .fit(&y)?;
    /// assert!(fit.history().returned_loss() < 1e-2 * fit.history().loss[0]);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    pub fn learning_rate(mut self, rate: f64) -> Self {
        self.learning_rate = Some(rate);
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

    /// Adds a penalty on one factor, called by its letters (or by `theta_N`, where several have the
    /// same). What is minimised then is `Σ W ℓ + Σ_l μ_l Σ Θ_l^p_l`.
    ///
    /// Penalise all factors or fix or bound the rest: where one factor has a penalty and another one
    /// has none, scale goes from the one to the other and the penalty is void
    /// ([`warnings`](Self::warnings) says so). Of several μ only a weighted product counts, so that one
    /// μ for all, [`penalty_on_all`](Self::penalty_on_all), is a sensible choice.
    ///
    /// ```
    /// use ndarray::Array2;
    /// use nneinfact::{NNEinFact, loss::Penalty};
    ///
    /// let y = Array2::from_shape_fn((12, 9), |(i, j)| if i % 3 == j % 3 { 4.0 } else { 0.0 });
    /// let fit = NNEinFact::new("ir,jr->ij")?
    ///     .ranks([('r', 5)])
    ///     .penalty("ir", Penalty::l1(0.1))
    ///     .penalty("jr", Penalty::l2(0.1))
    ///     .fit(&y)?;
    /// assert_eq!(fit.history().penalty.len(), fit.history().loss.len());
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    pub fn penalty(mut self, factor: &str, penalty: Penalty) -> Self {
        self.wishes.push((factor.into(), Wish::Penalty(penalty)));
        self
    }

    /// A penalty on every factor that is updated and has none of its own.
    pub fn penalty_on_all(mut self, penalty: Penalty) -> Self {
        self.penalty = Some(penalty);
        self
    }

    /// When penalised factors trade scale. Default: [`Balance::EverySweep`] where there are penalties
    /// on two factors or more.
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = Some(balance);
        self
    }

    /// Fixes a factor, called as in [`penalty`](Self::penalty): it has these values and is not updated.
    /// So a known dictionary, a design matrix or known spectra enter a model.
    ///
    /// ```
    /// use ndarray::array;
    /// use nneinfact::NNEinFact;
    ///
    /// let spectra = array![[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]];
    /// let y = spectra.dot(&array![[3.0, 1.0], [2.0, 5.0]]);
    /// let fit = NNEinFact::new("ma,ap->mp")?
    ///     .ranks([('a', 2)])
    ///     .fix("ma", spectra.clone())
    ///     .fit(&y)?;
    /// assert_eq!(fit.factors()[0], spectra.into_dyn());
    /// assert!((fit.factors()[1][[1, 1]] - 5.0).abs() < 1e-2);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    pub fn fix<D: Dimension>(mut self, factor: &str, values: ndarray::Array<f64, D>) -> Self {
        self.wishes.push((factor.into(), Wish::Fixed(values.into_dyn())));
        self
    }

    /// Takes a fit of the same model to other data, those that differ in some modes (letters of the
    /// data, as in `"p"`): the ranks are the fit's, and every factor without one of these modes is
    /// fixed. What is left is fitted to the new data, which may be of any length in these modes.
    ///
    /// ```
    /// use ndarray::{Array2, s};
    /// use nneinfact::NNEinFact;
    ///
    /// let y = Array2::from_shape_fn((6, 40), |(m, p)| ((m + 1) * (p % 4 + 1) + (p % 3) * m) as f64);
    /// let new = || NNEinFact::new("mr,pr->mp");
    /// let fit = new()?.ranks([('r', 3)]).fit(&y.slice(s![.., ..30]))?;
    /// // Ten more columns of the same kind.
    /// let more = new()?.transform(&fit, "p")?.fit(&y.slice(s![.., 30..]))?;
    /// assert_eq!(more.factors()[0], fit.factors()[0]);
    /// assert_eq!(more.factors()[1].shape(), [10, 3]);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// Where the fit is of another model, a letter is not one of its modes, or its scales are in
    /// [weights](Fit::weights) beside the factors.
    pub fn transform(mut self, fit: &Fit, modes: &str) -> Result<NNEinFact> {
        let refuse = |message: String| Err(Error::Setting(message));
        let model = fit.model();
        if self.model.to_string() != model.to_string() {
            return refuse(format!("the fit is one of {model}, not of {}", self.model));
        }
        if fit.weights().is_some() {
            return refuse(
                "the scales of the fit are in weights beside its factors: gather them into a factor"
                    .into(),
            );
        }
        let mut new = IndexSet::EMPTY;
        for mode in modes.chars().filter(|c| !c.is_whitespace()) {
            match Index::new(mode).filter(|x| model.output().contains(x)) {
                Some(letter) => new.insert(letter),
                None => return refuse(format!("{mode} is not a mode of the data of {model}")),
            }
        }
        self.ranks = model.latent().iter().map(|x| (x.into(), fit.shapes().size(x))).collect();
        for (l, factor) in fit.factors().iter().enumerate() {
            if !model.factors()[l].iter().any(|&x| new.contains(x)) {
                self.wishes.push((format!("theta_{}", l + 1), Wish::Fixed(factor.clone())));
            }
        }
        Ok(self)
    }

    /// Keeps the entries of a factor, called as in [`penalty`](Self::penalty), between two numbers:
    /// `0 ≤ lower ≤ upper`, where `upper` may be infinite.
    pub fn bounds(mut self, factor: &str, lower: f64, upper: f64) -> Self {
        self.wishes.push((factor.into(), Wish::Bounds(lower, upper)));
        self
    }

    /// What is legal but probably not meant, a sentence each: of the model
    /// ([`Model::warnings`]), and a penalty that is void because scale can go to a factor without one.
    ///
    /// # Errors
    /// Where a factor is called by a name that the model does not have, or a penalty, bounds or given
    /// values cannot be used.
    pub fn warnings(&self, shape: &[usize]) -> Result<Vec<String>> {
        let shapes = Shapes::new(&self.model, shape, &self.ranks)?;
        let mut warnings = self.model.warnings();
        warnings.extend(Constraints::new(self, &shapes)?.warnings(&shapes));
        Ok(warnings)
    }

    /// The seed of a random start. Default: 0. The same seed gives the same bits on the same
    /// device, with any number of threads.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Tries so many starts, of consecutive seeds from [`seed`](Self::seed) on (after the largest
    /// there is comes 0), for [`Self::TRIAL_SWEEPS`] sweeps each, and fits from the best of them: the
    /// fit is that of its seed, which [`History::seed`](super::History::seed) tells. Default: 1. The data are uploaded once. (For
    /// [`Algorithm::Adam`], too, what is tried is multiplicative sweeps: a few steps would tell little.)
    pub fn starts(mut self, starts: usize) -> Self {
        self.starts = starts;
        self
    }

    /// The most sweeps. Default: [`Self::MAX_ITER`]. 0 only evaluates the start.
    pub fn max_iter(mut self, max_iter: usize) -> Self {
        self.max_iter = max_iter;
        self
    }

    /// Stops when the training loss F of sweep n fulfils `F_{n−1} − F_n ≤ T · max(|F_n|, F_0 − F_n)`
    /// three times in a row (for [`Algorithm::Adam`], which may rise, `|F_{n−1} − F_n|`). Default:
    /// [`Self::TOLERANCE`]; 0 never stops early.
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
    /// cancellation act there. Default: 1. The accelerated algorithm, Adam and early stopping need every
    /// sweep's losses and look at all of them, whatever this says.
    pub fn eval_every(mut self, sweeps: usize) -> Self {
        self.eval_every = sweeps;
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

    /// Saves the fit in a file, now and then and where it ends or is interrupted, for
    /// [`resume`](Self::resume) to go on from there. The file is replaced as a whole: killed at any
    /// moment, the process leaves the newest one that is complete.
    ///
    /// It is written for the first time before the first look at the losses, so that a file that cannot
    /// be written is an error of the fit that costs nothing. If that fails later (the disk is full),
    /// the fit goes on, it is tried again at the next time, and
    /// [`Fit::warnings`] tells of it. A fit that ends leaves the file, from which a longer one goes on.
    /// Of several [`starts`](Self::starts) only the fit from the best is saved.
    ///
    /// All data are read once more, to be known again.
    ///
    /// ```
    /// use ndarray::Array2;
    /// use nneinfact::fit::{Checkpoint, Every};
    /// use nneinfact::NNEinFact;
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("fit.checkpoint");
    /// let y = Array2::from_shape_fn((30, 20), |(i, j)| ((i + 1) * (j % 5 + 2)) as f64);
    /// let fit = || NNEinFact::new("ir,jr->ij").map(|fit| fit.ranks([('r', 3)]).tolerance(0.0));
    ///
    /// let short = fit()?.max_iter(10).checkpoint(&path, Every::sweeps(5)).fit(&y)?;
    /// let resumed = fit()?.max_iter(25).resume(Checkpoint::read(&path)?).fit(&y)?;
    /// let whole = fit()?.max_iter(25).fit(&y)?;
    /// assert_eq!(resumed.factors(), whole.factors());
    /// assert_eq!(resumed.history().loss, whole.history().loss);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    pub fn checkpoint(mut self, path: impl AsRef<Path>, every: Every) -> Self {
        self.checkpoint = Some((path.as_ref().into(), every));
        self
    }

    /// Goes on from a checkpoint of the same fit: the result has the bits of a fit that was never
    /// interrupted. Data and settings have to be the same, but for
    /// [`max_iter`](Self::max_iter) and [`tolerance`](Self::tolerance), and so has the kind of device
    /// (the same bits come from the same device). The start that the settings ask for is not made
    /// again. The history goes on, and its seconds too. (Of several [`starts`](Self::starts) another one
    /// may be the best after fewer than [`TRIAL_SWEEPS`](Self::TRIAL_SWEEPS), where so few were all that
    /// had been asked for.)
    ///
    /// # Errors
    /// Those of [`fit`](Self::fit), which is where the fit is compared; the message says what differs.
    pub fn resume(mut self, checkpoint: Checkpoint) -> Self {
        self.resume = Some(Box::new(checkpoint));
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
        open::plan(self, &shapes, data, None)
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
    ) -> Result<(std::sync::Arc<Plan>, Vec<nneinfact_core::engine::PassTime>)> {
        solve::profile(self, data.observations()?.as_ref(), repeats)
    }

    /// The gradient of what a fit lowers, at the start: by the logarithm of every entry of every
    /// factor, of the weighted *mean* of the training losses (with penalties as in
    /// [`History::penalty`](super::History::penalty)). Of the shapes of the factors; 0 for those that are
    /// fixed. Start from the factors of a fit to see how far it is from stationary.
    ///
    /// ```
    /// use ndarray::array;
    /// use nneinfact::{Device, NNEinFact, Precision, fit::Start};
    ///
    /// let y = array![[4.0, 2.0, 8.0], [2.0, 1.0, 4.0]];
    /// let settings = || NNEinFact::new("ir,jr->ij").map(|f| {
    ///     f.ranks([('r', 1)]).device(Device::cpu()).precision(Precision::F64)
    /// });
    /// let largest = |g: &[ndarray::ArrayD<f64>]| {
    ///     g.iter().flatten().fold(0.0, |m: f64, g| m.max(g.abs()))
    /// };
    /// let start = settings()?.gradient(&y)?;
    /// let fit = settings()?.fit(&y)?;
    /// let end = settings()?.start(Start::Factors(fit.into_factors())).gradient(&y)?;
    /// assert!(largest(&end) < 1e-6 * largest(&start));
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn gradient(self, data: impl Source) -> Result<Vec<ArrayD<f64>>> {
        adam::gradient(self, data.observations()?.as_ref())
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

    /// As [`fit`](Self::fit), to observations that several fits share.
    pub fn fit_prepared(self, data: &Prepared) -> Result<Fit> {
        solve::fit(self, open::Given::Prepared(data))
    }

    /// What [`fit_prepared`](Self::fit_prepared) would refuse, as far as that is known before the
    /// first sweep; the data are looked at once for the loss's domain.
    pub fn check_prepared(&self, data: &Prepared) -> Result<()> {
        open::check(self, data)
    }

    pub(super) fn grouping(&self) -> Grouping {
        match (&self.groups, self.algorithm) {
            (Some(groups), _) => Grouping::Given(groups.clone()),
            (None, Algorithm::Block) => Grouping::Block,
            (None, Algorithm::Grouped | Algorithm::Accelerated | Algorithm::Adam) => {
                Grouping::Grouped
            }
        }
    }

    /// Checks the settings that do not depend on the data.
    pub fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::Setting(message));
        if let Start::Gamma { shape } = self.start
            && !(shape > 0.0 && shape.is_finite())
        {
            return refuse(format!("the shape of a gamma start must be positive, not {shape}"));
        }
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
        if let Some(rate) = self.learning_rate {
            if self.algorithm != Algorithm::Adam {
                return refuse(format!(
                    "a learning rate is for the adam algorithm, not for {}, whose steps need none",
                    self.algorithm.name()
                ));
            }
            if !(rate > 0.0 && rate.is_finite()) {
                return refuse(format!(
                    "the learning rate must be a finite number above 0, as 0.1, not {rate}"
                ));
            }
        }
        if self.algorithm == Algorithm::Adam && (self.checkpoint.is_some() || self.resume.is_some())
        {
            return refuse(
                "checkpoints are of block, grouped and accelerated fits: what adam remembers of earlier gradients is not kept"
                    .into(),
            );
        }
        if self.inner_cycles == 0 {
            return refuse("the number of inner cycles must be at least 1".into());
        }
        if self.starts == 0 {
            return refuse("a fit has at least 1 start, not 0".into());
        }
        if self.eval_every == 0 {
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

/// What a fit can be run on: an array, a [`Dense`] tensor, [`CooTensor`], or [`Observations`].
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

impl Source for Arc<CooTensor> {
    fn observations(&self) -> Result<Cow<'_, Observations>> {
        Ok(Cow::Owned(Observations::new(Arc::clone(self))))
    }
}

impl Source for &CooTensor {
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
