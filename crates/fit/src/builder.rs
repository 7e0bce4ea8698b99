//! The builder of a fit: one method for each setting, and the calls that run it.

use std::fmt;
use std::path::Path;

use ndarray::{ArrayD, Dimension};

use crate::checkpoint::Checkpoint;
use crate::constraints::Constraints;
use crate::device::Device;
use crate::factored::FactoredTensor;
use crate::observe::{Cancel, Hooks, Observer};
use crate::result::Fit;
use crate::settings::{Algorithm, Balance, Every, FactorSetting, Format, Settings, Start};
use crate::source::Source;
use crate::{format, prepare, run};
use nneinfact_core::data::Prepared;
use nneinfact_core::engine::Precision;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Loss, Penalty};
use nneinfact_core::model::{Index, IndexSet, Model, Shapes};
use nneinfact_core::plan::{DataInfo, Plan};

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
    pub(crate) settings: Settings,
    pub(crate) hooks: Hooks,
    pub(crate) resume: Option<Box<Checkpoint>>,
}

impl NNEinFact {
    /// The default of [`max_iter`](Self::max_iter).
    pub const MAX_ITER: usize = Settings::MAX_ITER;
    /// How many sweeps tell which of several [`starts`](Self::starts) is the best.
    pub const TRIAL_SWEEPS: usize = Settings::TRIAL_SWEEPS;
    /// The default of [`tolerance`](Self::tolerance).
    pub const TOLERANCE: f64 = Settings::TOLERANCE;
    /// The default of [`learning_rate`](Self::learning_rate).
    pub const LEARNING_RATE: f64 = Settings::LEARNING_RATE;
    /// The default of [`factor_floor`](Self::factor_floor).
    pub const FACTOR_FLOOR: f64 = Settings::FACTOR_FLOOR;

    /// A fit of the model written as an einsum string, `f_1,f_2,…->out`.
    ///
    /// # Errors
    /// [`Error::Model`] where the string is not a model; the message points at what is wrong.
    pub fn new(model: &str) -> Result<NNEinFact> {
        Ok(NNEinFact::of(Model::parse(model)?))
    }

    /// A fit of this model.
    pub(crate) fn of(model: Model) -> NNEinFact {
        NNEinFact { settings: Settings::new(model), hooks: Hooks::default(), resume: None }
    }

    /// The size of every latent index. Calls add up.
    pub fn ranks(mut self, ranks: impl IntoIterator<Item = (char, usize)>) -> Self {
        self.settings.ranks.extend(ranks);
        self
    }

    /// The loss to minimise. Default: [`Loss::kl`].
    pub fn loss(mut self, loss: Loss) -> Self {
        self.settings.loss = loss;
        self
    }

    /// Where to run. Default: [`Device::auto`].
    pub fn device(mut self, device: Device) -> Self {
        self.settings.device = Some(device);
        self
    }

    /// The element type of passes over the data. Default: [`Precision::F32`].
    pub fn precision(mut self, precision: Precision) -> Self {
        self.settings.precision = precision;
        self
    }

    /// How a sweep goes over the factors. Default: [`Algorithm::Accelerated`].
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.settings.algorithm = algorithm;
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
        self.settings.learning_rate = Some(rate);
        self
    }

    /// Prescribes the groups of factors (counted from 0) in place of the planner's choice. Every
    /// partition is correct; this is for experiments and tests.
    pub fn groups(mut self, groups: Vec<Vec<usize>>) -> Self {
        self.settings.groups = Some(groups);
        self
    }

    /// Where to start. Default: [`Start::Random`].
    pub fn start(mut self, start: Start) -> Self {
        self.settings.start = start;
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
        self.settings.factor_settings.push((factor.into(), FactorSetting::Penalty(penalty)));
        self
    }

    /// A penalty on every factor that is updated and has none of its own.
    pub fn penalty_on_all(mut self, penalty: Penalty) -> Self {
        self.settings.penalty = Some(penalty);
        self
    }

    /// When penalised factors are rescaled among each other. Default: [`Balance::EverySweep`] where there
    /// are penalties on two factors or more.
    pub fn balance(mut self, balance: Balance) -> Self {
        self.settings.balance = Some(balance);
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
        self.settings
            .factor_settings
            .push((factor.into(), FactorSetting::Fixed(values.into_dyn())));
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
    /// Data with labels are to have those of the fit: [`Saved::relabeled`](crate::Saved::relabeled) sees to it.
    ///
    /// A fit from a file ([`Saved`](crate::Saved)) is taken as well. Scales in
    /// [weights](Fit::weights) beside the factors go where a factor that is fitted again has all latent
    /// letters; its scale is free.
    ///
    /// # Errors
    /// Where the fit is of another model, a letter is not one of its modes, or its scales are in weights
    /// that no factor can take.
    pub fn transform(self, fit: &impl AsRef<FactoredTensor>, modes: &str) -> Result<NNEinFact> {
        let fit = fit.as_ref();
        let refuse = |message: String| Err(Error::Setting(message));
        let model = fit.model();
        self.check_model(fit)?;
        let mut new = IndexSet::EMPTY;
        for mode in modes.chars().filter(|c| !c.is_whitespace()) {
            match Index::new(mode).filter(|x| model.output().contains(x)) {
                Some(letter) => new.insert(letter),
                None => return refuse(format!("{mode} is not a mode of the data of {model}")),
            }
        }
        let free: Vec<usize> = (0..model.factors().len())
            .filter(|&l| model.factors()[l].iter().any(|&x| new.contains(x)))
            .collect();
        self.refit(fit, &free)
    }

    /// As [`transform`](Self::transform), with the factors that are fitted to the new data by their names
    /// ([`Model::factor_named`]): all others are fixed at what they are, to the bit. The new data may be of
    /// any length in modes that only these factors have.
    ///
    /// ```
    /// use ndarray::Array2;
    /// use nneinfact::NNEinFact;
    ///
    /// let y = Array2::from_shape_fn((6, 40), |(m, p)| ((m + 1) * (p % 4 + 1) + (p % 3) * m) as f64);
    /// let fit = NNEinFact::new("mr,pr->mp")?.ranks([('r', 3)]).fit(&y)?;
    /// let half = NNEinFact::new("mr,pr->mp")?.transform_factors(&fit, &["pr"])?.fit(&(&y / 2.0))?;
    /// assert_eq!(half.factors()[0], fit.factors()[0]);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// Where the fit is of another model, has no factor of a name, or its scales are in weights that no
    /// factor can take.
    pub fn transform_factors(
        self,
        fit: &impl AsRef<FactoredTensor>,
        free: &[&str],
    ) -> Result<NNEinFact> {
        let fit = fit.as_ref();
        self.check_model(fit)?;
        let free: Result<Vec<usize>, _> =
            free.iter().map(|name| fit.model().factor_named(name)).collect();
        self.refit(fit, &free?)
    }

    /// Refuses a fit of another model.
    fn check_model(&self, fit: &FactoredTensor) -> Result<()> {
        let (own, model) = (&self.settings.model, fit.model());
        match own.to_string() == model.to_string() {
            true => Ok(()),
            false => Err(Error::Setting(format!("the fit is one of {model}, not of {own}"))),
        }
    }

    /// Fixes all factors of a fit but some.
    fn refit(mut self, fit: &FactoredTensor, free: &[usize]) -> Result<NNEinFact> {
        let model = fit.model();
        let takes_scales =
            |&l: &usize| model.latent().iter().all(|x| model.factors()[l].contains(&x));
        if fit.weights().is_some() && !free.iter().any(takes_scales) {
            return Err(Error::Setting(
                "the scales of the fit are in weights beside its factors, and no factor that is to be \
                 fitted has all latent letters: gather them into a factor"
                    .into(),
            ));
        }
        self.settings.ranks =
            model.latent().iter().map(|x| (x.into(), fit.shapes().size(x))).collect();
        for (l, factor) in fit.factors().iter().enumerate() {
            if !free.contains(&l) {
                self.settings
                    .factor_settings
                    .push((format!("theta_{}", l + 1), FactorSetting::Fixed(factor.clone())));
            }
        }
        Ok(self)
    }

    /// Keeps the entries of a factor, called as in [`penalty`](Self::penalty), between two numbers:
    /// `0 ≤ lower ≤ upper`, where `upper` may be infinite.
    pub fn bounds(mut self, factor: &str, lower: f64, upper: f64) -> Self {
        self.settings.factor_settings.push((factor.into(), FactorSetting::Bounds(lower, upper)));
        self
    }

    /// What is legal but probably not meant, a sentence each: of the model
    /// ([`Model::warnings`]), and a penalty that is void because scale can go to a factor without one.
    ///
    /// # Errors
    /// Where a factor is called by a name that the model does not have, or a penalty, bounds or given
    /// values cannot be used.
    pub fn warnings(&self, shape: &[usize]) -> Result<Vec<String>> {
        let shapes = Shapes::new(&self.settings.model, shape, &self.settings.ranks)?;
        let mut warnings = self.settings.model.warnings();
        warnings.extend(Constraints::new(&self.settings, &shapes)?.warnings(&shapes));
        Ok(warnings)
    }

    /// The seed of a random start. Default: 0. The same seed gives the same bits on the same
    /// device, with any number of threads.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// Tries so many starts, of consecutive seeds from [`seed`](Self::seed) on (after the largest
    /// there is comes 0), for [`Self::TRIAL_SWEEPS`] sweeps each, and fits from the best of them: the
    /// fit is that of its seed, which [`History::seed`](super::History::seed) tells. Default: 1. The data are uploaded once. On a CPU
    /// small fits are tried at once, each on one thread, with the same result. (For
    /// [`Algorithm::Adam`], too, what is tried is multiplicative sweeps: a few steps would tell little.)
    pub fn starts(mut self, starts: usize) -> Self {
        self.settings.starts = starts;
        self
    }

    /// The most sweeps. Default: [`Self::MAX_ITER`]. 0 only evaluates the start.
    pub fn max_iter(mut self, max_iter: usize) -> Self {
        self.settings.max_iter = max_iter;
        self
    }

    /// Stops when the training loss F of sweep n fulfils `F_{n−1} − F_n ≤ T · max(|F_n|, F_0 − F_n)`
    /// three times in a row (for [`Algorithm::Adam`], which may rise, `|F_{n−1} − F_n|`). Default:
    /// [`Self::TOLERANCE`]; 0 never stops early.
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.settings.tolerance = tolerance;
        self
    }

    /// Stops after five consecutive rises of the validation loss and returns the factors at which
    /// it was lowest. Needs observations with a validation split. Default: off.
    pub fn early_stopping(mut self, on: bool) -> Self {
        self.settings.early_stopping = on;
        self
    }

    /// The floor of ŷ: what it is clamped to from below before a quotient, a power or a logarithm, in the
    /// units of the data.
    ///
    /// Default: 1e-10 times the mean of the data, or times 1 for losses on odds, whose ŷ do not have
    /// the data's unit; in single precision, where that to the loss's largest exponent e would
    /// overflow, 10^(−30/e) in place of 1e-10.
    pub fn prediction_floor(mut self, floor: f64) -> Self {
        self.settings.prediction_floor = Some(floor);
        self
    }

    /// The floor of a factor: what its entries are clamped to from below after an update, relative to its
    /// largest entry:
    /// multiplicative updates cannot leave zero. Default: [`Self::FACTOR_FLOOR`]. 0 lets entries
    /// reach zero and stay there.
    pub fn factor_floor(mut self, floor: f64) -> Self {
        self.settings.factor_floor = floor;
        self
    }

    /// Reads the losses back every so many sweeps only, so that a GPU does not wait for the host in
    /// between: the history has an element for each evaluation, and the tolerance, observers and
    /// cancellation act there. Default: 1. The accelerated algorithm, Adam and early stopping need every
    /// sweep's losses and evaluate all of them, whatever this says. (A GPU keeps those of many sweeps, so that
    /// it does not wait for the host then either.)
    pub fn eval_every(mut self, sweeps: usize) -> Self {
        self.settings.eval_every = sweeps;
        self
    }

    /// How often the factors of a group are cycled over after a pass. Default: 1. Of no effect, and a
    /// warning says so, where every group has one factor, and on the exact steps of an accelerated
    /// Euclidean fit.
    pub fn inner_cycles(mut self, cycles: usize) -> Self {
        self.settings.inner_cycles = cycles;
        self
    }

    /// Whether the fit says how far its factors are from a point where no small change lowers the loss
    /// with penalties, as [`History::kkt_residual`](nneinfact_core::history::History::kkt_residual): that
    /// takes as long as another sweep. Default: no.
    pub fn kkt_residual(mut self, on: bool) -> Self {
        self.settings.kkt_residual = on;
        self
    }

    /// The most memory that stored products of factors, numerators and denominators may take, in
    /// bytes. Default: a quarter of the data or 64 MiB, whichever is more, and what the factors
    /// themselves need.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.settings.memory_limit = Some(bytes);
        self
    }

    /// The form that passes read the data in. Default: [`Format::Auto`], whichever is faster; either
    /// way the results are the same up to rounding.
    pub fn data_as(mut self, form: Format) -> Self {
        self.settings.data_as = form;
        self
    }

    /// Adds an observer, called after every sweep.
    pub fn observe(mut self, observer: impl Observer + 'static) -> Self {
        self.hooks.observers.push(Box::new(observer));
        self
    }

    /// Saves the fit in a file, now and then and where it ends or is interrupted, for
    /// [`resume`](Self::resume) to go on from there. The file is replaced as a whole: killed at any
    /// moment, the process leaves the newest one that is complete.
    ///
    /// It is written for the first time before the first evaluation of the losses, so that a file that cannot
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
        self.settings.checkpoint = Some((path.as_ref().into(), every));
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
        self.settings.resumes = true;
        self.resume = Some(Box::new(checkpoint));
        self
    }

    /// A switch to stop the fit from elsewhere.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.hooks.cancel = cancel.clone();
        self
    }

    /// The plan for dense data of this shape, in C order with `value_bytes` bytes a value, without
    /// fitting.
    ///
    /// # Errors
    /// [`Error::Model`] where shape or ranks do not fit the model, [`Error::Memory`] where no plan
    /// stays within memory, [`Error::Setting`] where the given groups are no partition.
    pub fn plan(&self, shape: &[usize], value_bytes: usize) -> Result<Plan> {
        let shapes = Shapes::new(&self.settings.model, shape, &self.settings.ranks)?;
        let data = DataInfo::c_order(&shapes, value_bytes);
        format::plan(&self.settings, &shapes, data, None)
    }

    /// The plan for data of this shape given as `nonzeros` stored entries, all others being zeros,
    /// without fitting.
    ///
    /// # Errors
    /// As [`plan`](Self::plan), and [`Error::Setting`] where the loss needs all entries and there are
    /// too many of them.
    pub fn sparse_plan(&self, shape: &[usize], nonzeros: u64) -> Result<Plan> {
        let shapes = Shapes::new(&self.settings.model, shape, &self.settings.ranks)?;
        format::plan_of_nonzeros(&self.settings, &shapes, nonzeros)
    }

    /// How long each pass of a fit takes on its device, with the plan, and how many dispatches a sweep is
    /// there ([`dispatches`](nneinfact_core::engine::Engine::dispatches)): what `nneinfact bench` reports.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    #[doc(hidden)]
    pub fn profile(
        self,
        data: impl Source,
        repeats: usize,
    ) -> Result<(std::sync::Arc<Plan>, Vec<nneinfact_core::engine::PassTime>, Option<usize>)> {
        run::profile(self.settings, self.resume, data.observations()?.as_ref(), repeats)
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
        if self.hooks.reducer.is_some() || self.settings.is_cut() {
            return Err(run::uncut("a gradient"));
        }
        run::gradient(self.settings, &self.hooks.cancel, data.observations()?.as_ref())
    }

    /// Fits the model to an array (`f32`, `f64`, `bool` or any integer type) or to
    /// `Observations`.
    ///
    /// # Errors
    /// Whatever is wrong with the model, ranks, data, loss or settings, before the first sweep; and
    /// [`Error::Numeric`] where no sweep could be completed.
    pub fn fit(self, data: impl Source) -> Result<Fit> {
        run::fit(self.settings, self.hooks, self.resume, data.observations()?.as_ref())
    }

    /// As [`fit`](Self::fit), to observations that several fits share.
    pub fn fit_prepared(self, data: &Prepared) -> Result<Fit> {
        run::fit(self.settings, self.hooks, self.resume, data)
    }

    /// What [`fit_prepared`](Self::fit_prepared) would refuse, as far as that is known before the
    /// first sweep; the data are read once for the loss's domain.
    pub fn check_prepared(&self, data: &Prepared) -> Result<()> {
        prepare::check(&self.settings, data).map(|_| ())
    }

    /// Checks the settings that do not depend on the data.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first that is outside its range or excludes another one.
    pub fn check(&self) -> Result<()> {
        self.settings.check()
    }
}

impl fmt::Debug for NNEinFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NNEinFact")
            .field("model", &self.settings.model)
            .field("ranks", &self.settings.ranks)
            .field("loss", &self.settings.loss.name())
            .field("algorithm", &self.settings.algorithm)
            .field("precision", &self.settings.precision)
            .finish_non_exhaustive()
    }
}
