//! The settings of a fit: plain values, and what is wrong with them whatever the data are.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ndarray::ArrayD;

use crate::device::Device;
use crate::structure::{Smooth, Splines, ties};
use nneinfact_core::engine::Precision;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::{History, StoppedBy};
use nneinfact_core::loss::{Loss, Penalty};
use nneinfact_core::model::Model;
use nneinfact_core::plan::Grouping;

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
    /// ε = 1e-8 and a [learning rate](crate::NNEinFact::learning_rate): what automatic differentiation would
    /// do, for comparisons and as an independent check. A step costs the passes of a grouped sweep, but
    /// **the loss may rise**; the factors that are returned are the best that were seen (lowest
    /// objective, with early stopping lowest validation loss).
    Adam,
    /// Newton steps with a logarithmic barrier, one factor at a time and block by block, in double
    /// precision on the host: the second-order method for those who need many digits. Under the Euclidean
    /// loss without penalties. Data of which few entries are stored, or few observed, are read as a list;
    /// others, and those with weights, have to fit into memory as dense tensors.
    Barrier,
}

impl Algorithm {
    /// "block", "grouped", "accelerated", "adam" or "barrier".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Block => "block",
            Algorithm::Grouped => "grouped",
            Algorithm::Accelerated => "accelerated",
            Algorithm::Adam => "adam",
            Algorithm::Barrier => "barrier",
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
    /// indices, as in the HOSVD (De Lathauwer et al. 2000), each made nonnegative as NNDSVD does,
    /// and a core, or a weight for each component, fitted to the data by least squares. What is
    /// small is clamped from below to 0.01 of its factor's mean, as multiplicative updates cannot leave zero.
    /// Where a factor has more columns than the data have singular vectors, the others are random,
    /// from the seed.
    ///
    /// Entries that are missing or withheld count as the weighted mean of the training entries, and
    /// weights other than 0 and 1 as 1. The data have to be in memory; coordinates with random
    /// splits or masks over all entries are expanded for it.
    Svd,
    /// From the factors of a fit of the same model with ranks that are smaller or equal, in the
    /// model's order: the entries are those of that fit, and what is new is small random numbers
    /// from the seed, at most 0.1 of the factor's mean and small enough to add at most a hundredth
    /// to the sum of ŷ. So the loss starts near that of the fit.
    Grown(Vec<ArrayD<f64>>),
    /// These factors, in the model's order, as they are.
    Factors(Vec<ArrayD<f64>>),
}

/// The format that passes read the data in, whatever format they were given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Format {
    /// The format whose passes are predicted to take less time.
    #[default]
    Auto,
    /// A value for every entry.
    Dense,
    /// A list of the entries that are not zero.
    Sparse,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Auto => "auto",
            Format::Dense => "dense",
            Format::Sparse => "sparse",
        })
    }
}

/// When the factors of a penalised fit are rescaled among each other.
///
/// ŷ does not tell how its scale is divided among the factors, but penalties do: balancing brings
/// every set of factors among which scale is free to the division of least penalty, leaving ŷ as it is. It
/// costs next to nothing, and without it a fit can be stuck for thousands of sweeps at a division
/// that it started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Balance {
    /// Never, and the start is taken at the scale that it has.
    Never,
    /// Before the first sweep; then the scale of the start is the one of least penalised objective.
    AtStart,
    /// Before the first sweep and after every sweep.
    #[default]
    EverySweep,
}

/// How often a fit is saved: every so many sweeps, every so often, or both, whichever comes first.
///
/// ```
/// use std::time::Duration;
/// use nneinfact::fit::Every;
///
/// let both = Every::sweeps(100).or(Every::time(Duration::from_secs(300)));
/// assert_eq!(both.to_string(), "100 sweeps or 300 s");
/// assert_eq!(Every::default(), Every::time(Duration::from_secs(60)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every {
    pub(crate) sweeps: Option<usize>,
    pub(crate) time: Option<Duration>,
}

impl Every {
    /// Every so many sweeps. 0 counts as 1.
    #[must_use]
    pub fn sweeps(sweeps: usize) -> Every {
        Every { sweeps: Some(sweeps.max(1)), time: None }
    }

    /// After the sweep at whose end so much time has passed since the last time.
    #[must_use]
    pub fn time(time: Duration) -> Every {
        Every { sweeps: None, time: Some(time) }
    }

    /// As often as either of both says. Of two numbers of sweeps, and of two times, the smaller one
    /// counts.
    #[must_use]
    pub fn or(self, other: Every) -> Every {
        fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            a.into_iter().chain(b).min()
        }
        Every { sweeps: least(self.sweeps, other.sweeps), time: least(self.time, other.time) }
    }
}

impl Default for Every {
    /// Every minute.
    fn default() -> Every {
        Every::time(Duration::from_secs(60))
    }
}

impl std::fmt::Display for Every {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.sweeps == Some(1) { "" } else { "s" };
        match (self.sweeps, self.time) {
            (Some(n), Some(time)) => write!(f, "{n} sweep{plural} or {} s", time.as_secs_f64()),
            (Some(n), None) => write!(f, "{n} sweep{plural}"),
            (None, Some(time)) => write!(f, "{} s", time.as_secs_f64()),
            (None, None) => write!(f, "0 sweeps"),
        }
    }
}

/// What was asked for of a single factor.
#[derive(Clone, Debug)]
pub(crate) enum FactorSetting {
    /// A penalty of its own.
    Penalty(Penalty),
    /// The least and the largest value of its entries.
    Bounds(f64, f64),
    /// These values, which are not updated.
    Fixed(ArrayD<f64>),
    /// A penalty on differences between neighbours.
    Smooth(Smooth),
    /// Rows over these letters, or the latent ones, add up to 1.
    Simplex(Option<String>),
}

/// Everything that decides what a fit computes, apart from the data. [`NNEinFact`](crate::NNEinFact),
/// the builder, fills it in and says what each field means.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub model: Model,
    pub ranks: Vec<(char, usize)>,
    pub loss: Loss,
    /// `None` until a device is chosen.
    pub device: Option<Device>,
    pub precision: Precision,
    pub algorithm: Algorithm,
    pub learning_rate: Option<f64>,
    pub groups: Option<Vec<Vec<usize>>>,
    pub start: Start,
    /// What was asked for of single factors, by their names.
    pub factor_settings: Vec<(String, FactorSetting)>,
    /// The names of factors that are the same, for each set of them.
    pub ties: Vec<Vec<String>>,
    /// Modes along which factors are sums of fixed functions.
    pub bases: Vec<(char, Splines)>,
    /// The penalty on all factors that have none of their own.
    pub penalty: Option<Penalty>,
    pub balance: Option<Balance>,
    pub seed: u64,
    pub starts: usize,
    pub max_iter: usize,
    pub tolerance: f64,
    pub early_stopping: bool,
    pub prediction_floor: Option<f64>,
    pub factor_floor: f64,
    pub inner_cycles: usize,
    pub eval_every: usize,
    pub memory_limit: Option<u64>,
    pub data_as: Format,
    /// Whether the KKT residual is asked for.
    pub kkt_residual: bool,
    /// Where the fit is saved, and how often.
    pub checkpoint: Option<(PathBuf, Every)>,
    /// Whether the fit goes on from a checkpoint.
    pub resumes: bool,
    /// How many slabs the data are cut into at most, where that was asked for.
    pub slabs: Option<usize>,
    /// The mode that they are cut along, where that was asked for.
    pub split_along: Option<usize>,
}

impl Settings {
    pub const MAX_ITER: usize = 500;
    pub const TRIAL_SWEEPS: usize = 10;
    pub const TOLERANCE: f64 = 1e-6;
    pub const LEARNING_RATE: f64 = 0.1;
    pub const FACTOR_FLOOR: f64 = 1e-16;
    pub const SLABS: usize = 8;

    /// The defaults, for a model.
    pub fn new(model: Model) -> Settings {
        Settings {
            model,
            ranks: Vec::new(),
            loss: Loss::kl(),
            device: None,
            precision: Precision::default(),
            algorithm: Algorithm::default(),
            learning_rate: None,
            groups: None,
            start: Start::Random,
            factor_settings: Vec::new(),
            ties: Vec::new(),
            bases: Vec::new(),
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
            data_as: Format::Auto,
            kkt_residual: false,
            checkpoint: None,
            resumes: false,
            slabs: None,
            split_along: None,
        }
    }

    /// The settings of device, algorithm and numerical limits, for a fit of another model to other
    /// data: nothing that goes with the factors.
    pub fn alike(&self, model: Model) -> Settings {
        Settings {
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
            ..Settings::new(model)
        }
    }

    /// Whether the fit is saved or goes on from a file, so that it has to be known again.
    pub fn is_saved(&self) -> bool {
        self.checkpoint.is_some() || self.resumes
    }

    /// Whether the data of a fit are cut into slabs.
    pub fn is_cut(&self) -> bool {
        self.slabs.is_some() || self.split_along.is_some()
    }

    /// The device: where none was named, the best there is, which is named from now on.
    pub fn choose_device(&mut self) -> Result<Device> {
        let device = match self.device.take() {
            Some(device) => device,
            // What it does is done on the host.
            None if self.algorithm == Algorithm::Barrier => Device::cpu(),
            None => Device::auto()?,
        };
        self.device = Some(device.clone());
        Ok(device)
    }

    /// The history of a fit whose loss has not been evaluated yet.
    pub fn empty_history(&self) -> History {
        History {
            loss: Vec::new(),
            penalty: Vec::new(),
            validation_loss: Vec::new(),
            heldout_loss: Vec::new(),
            seconds: Vec::new(),
            sweeps: Vec::new(),
            stopped_by: StoppedBy::MaxIter,
            loss_name: self.loss.name().into(),
            algorithm: self.algorithm.name().into(),
            device: self.device.as_ref().map(ToString::to_string).unwrap_or_default(),
            seed: self.seed,
            precision: self.precision.name().into(),
            prediction_floor: self.prediction_floor,
            iterations: 0,
            returned: 0,
            slabs: None,
            kkt_residual: None,
            heldout_as: None,
        }
    }

    /// How the planner groups the factors.
    pub fn grouping(&self) -> Grouping {
        let given = self.factor_settings.iter();
        let fixed: Vec<&str> = given
            .filter(|(_, setting)| matches!(setting, FactorSetting::Fixed(_)))
            .map(|(name, _)| name.as_str())
            .collect();
        if let Some(groups) = ties::groups(&self.model, &self.ties, &fixed) {
            return Grouping::Given(groups);
        }
        match (&self.groups, self.algorithm) {
            (Some(groups), _) => Grouping::Given(groups.clone()),
            (None, Algorithm::Block | Algorithm::Barrier) => Grouping::Block,
            (None, Algorithm::Grouped | Algorithm::Accelerated | Algorithm::Adam) => {
                Grouping::Grouped
            }
        }
    }

    /// Ties, smooth modes, rows that add up to 1 and bases, as they are written on the command line.
    pub fn structure(&self) -> Vec<String> {
        let ties = self.ties.iter().map(|tie| format!("tie {}", tie.join("=")));
        let of = |(name, setting): &(String, FactorSetting)| match setting {
            FactorSetting::Smooth(smooth) => Some(format!("smooth {}", smooth.describe(name))),
            FactorSetting::Simplex(None) => Some(format!("simplex {name}")),
            FactorSetting::Simplex(Some(over)) => Some(format!("simplex {name}:{over}")),
            FactorSetting::Penalty(_) | FactorSetting::Bounds(..) | FactorSetting::Fixed(_) => None,
        };
        let bases = self.bases.iter().map(|(mode, basis)| format!("basis {mode}={basis}"));
        ties.chain(self.factor_settings.iter().filter_map(of)).chain(bases).collect()
    }

    /// Refuses what does not go with ties, smooth modes and rows that add up to 1.
    fn check_structure(&self) -> Result<()> {
        let smooth = |(_, setting): &(String, FactorSetting)| {
            matches!(setting, FactorSetting::Smooth(_) | FactorSetting::Simplex(_))
        };
        let structured = !self.ties.is_empty() || self.factor_settings.iter().any(smooth);
        if structured && matches!(self.algorithm, Algorithm::Adam | Algorithm::Barrier) {
            return Err(Error::Setting(format!(
                "ties, smooth modes and rows that add up to 1 are for block, grouped and accelerated sweeps, not for {}",
                self.algorithm.name()
            )));
        }
        if self.groups.is_some() && !self.ties.is_empty() {
            return Err(Error::Setting(
                "tied factors are a group of their own: groups cannot be given as well".into(),
            ));
        }
        Ok(())
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
        if self.algorithm == Algorithm::Barrier
            && let Some(why) = crate::barrier::refusal(self)
        {
            return refuse(why);
        }
        if self.algorithm == Algorithm::Adam && self.is_saved() {
            return refuse(
                "checkpoints are of block, grouped and accelerated fits: what adam remembers of earlier gradients is not kept"
                    .into(),
            );
        }
        self.check_structure()?;
        if self.inner_cycles == 0 {
            return refuse("the number of inner cycles must be at least 1".into());
        }
        if self.slabs == Some(0) {
            return refuse("the data are cut into at least 1 slab, not 0".into());
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
