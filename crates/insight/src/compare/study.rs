//! A study: what is to be compared.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::events::{StudyObserver, StudyObservers};
use super::path::StudyPath;
use super::score::Score;
use super::study_model::{Penalties, StudyModel, TriedLoss};
use nneinfact_core::data::SplitKind;
use nneinfact_core::engine::Precision;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::Loss;
use nneinfact_core::model::ModelError;
use nneinfact_fit::Device;
use nneinfact_fit::{Algorithm, Cancel, DataRecord, Format, LossRecord, NNEinFact};

/// A comparison to be: models × ranks × losses × penalties × algorithms, each fitted to several
/// random splits of the data from several starts.
///
/// ```
/// use ndarray::Array3;
/// use nneinfact::Loss;
/// use nneinfact::compare::{StudyModel, Study};
///
/// let y = Array3::from_shape_fn((12, 10, 8), |(i, j, k)| ((1 + i % 3) * (1 + j % 2) + k) as f64);
/// let table = Study::new()
///     .model(StudyModel::new("cp", "ir,jr,kr->ijk")?.rank('r', [1, 2]))
///     .model(StudyModel::new("additive", "ir,jr,kq,rq->ijk")?.rank('r', [2]).rank('q', [2]))
///     .splits(2)
///     .held_out(0.1)
///     .max_iter(50)
///     .run(&y)?;
///
/// println!("{table}");
/// assert_eq!(table.rows().len(), 3);
/// let best = &table.rows()[0];
/// assert!(best.heldout_loss.as_ref().is_some_and(|loss| loss.standard_error.is_some()));
/// # Ok::<(), nneinfact::Error>(())
/// ```
///
/// # What is compared
///
/// With S starts, every split of a setup is represented by the start with the lowest validation loss,
/// or without a validation set the lowest training loss (with penalties); held-out entries never choose.
/// The table has the mean of these over splits with its standard error. Seeds are consecutive: split s
/// has seed `split_seed + s`, and its starts `seed + s·S`, …, so that no two runs of a setup begin at
/// the same point.
///
/// # Interruptions
///
/// With a [`folder`](Self::folder), every finished run is written there, and taken from there where a
/// study is run again: what an interruption at any point loses is the run in progress. Runs are known
/// by all their settings and the data's fingerprint, not by the study: one with more models, splits or
/// starts takes from the folder what is there already, and so does one on another device. Runs that
/// failed are tried again.
#[must_use]
pub struct Study {
    pub(super) models: Vec<StudyModel>,
    pub(super) losses: Vec<TriedLoss>,
    pub(super) penalties: Vec<Penalties>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) learning_rates: Vec<f64>,
    pub(super) precision: Precision,
    pub(super) max_iter: usize,
    pub(super) tolerance: f64,
    pub(super) early_stopping: bool,
    pub(super) memory_limit: Option<u64>,
    pub(super) data_as: Format,
    pub(super) heldout: f64,
    pub(super) validation: f64,
    pub(super) split_as: Option<SplitKind>,
    pub(super) zeros_per_nonzero: Option<f64>,
    pub(super) splits: usize,
    pub(super) starts: usize,
    pub(super) split_seed: u64,
    pub(super) seed: u64,
    pub(super) parameters: Vec<u64>,
    pub(super) path: Option<StudyPath>,
    pub(super) score: ScoreChoice,
    pub(super) record: Option<DataRecord>,
    pub(super) device: Option<Device>,
    pub(super) folder: Option<PathBuf>,
    pub(super) cancel: Cancel,
    pub(super) observers: StudyObservers,
}

/// Which score a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScoreChoice {
    /// Poisson for counts, the mean squared error for others.
    Auto,
    None,
    Some(Score),
}

impl Default for Study {
    fn default() -> Study {
        Study::new()
    }
}

impl Study {
    /// A study without models, under [`Loss::kl`], with one split, one start, nothing withheld, and
    /// the defaults of [`NNEinFact`].
    pub fn new() -> Study {
        Study {
            models: Vec::new(),
            losses: Vec::new(),
            penalties: Vec::new(),
            algorithms: Vec::new(),
            learning_rates: Vec::new(),
            precision: Precision::default(),
            max_iter: NNEinFact::MAX_ITER,
            tolerance: NNEinFact::TOLERANCE,
            early_stopping: false,
            memory_limit: None,
            data_as: Format::Auto,
            heldout: 0.0,
            validation: 0.0,
            split_as: None,
            zeros_per_nonzero: None,
            splits: 1,
            starts: 1,
            split_seed: 0,
            seed: 0,
            parameters: Vec::new(),
            path: None,
            score: ScoreChoice::Auto,
            record: None,
            device: None,
            folder: None,
            cancel: Cancel::new(),
            observers: StudyObservers::default(),
        }
    }

    /// Adds a model.
    pub fn model(mut self, model: StudyModel) -> Self {
        self.models.push(model);
        self
    }

    /// Adds a loss to be tried. Without any it is [`Loss::kl`].
    pub fn loss(self, loss: Loss) -> Self {
        let record = LossRecord::of(loss.name());
        self.loss_from(loss, record)
    }

    /// As [`loss`](Self::loss), with what the files of runs say of it, where the name does not say
    /// all: in which file a parameter is kept that differs from entry to entry.
    pub fn loss_from(mut self, loss: Loss, record: LossRecord) -> Self {
        self.losses.push(TriedLoss::new(loss, record));
        self
    }

    /// Adds penalties to be tried. Without any there are none.
    pub fn penalties(mut self, penalties: Penalties) -> Self {
        self.penalties.push(penalties);
        self
    }

    /// Adds an algorithm to be tried. Without any it is [`Algorithm::Accelerated`].
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithms.push(algorithm);
        self
    }

    /// Adds a [learning rate](NNEinFact::learning_rate) to be tried with [`Algorithm::Adam`]. Without
    /// any it is [`NNEinFact::LEARNING_RATE`]. An error without that algorithm.
    pub fn learning_rate(mut self, rate: f64) -> Self {
        self.learning_rates.push(rate);
        self
    }

    /// As [`NNEinFact::precision`].
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// As [`NNEinFact::max_iter`].
    pub fn max_iter(mut self, max_iter: usize) -> Self {
        self.max_iter = max_iter;
        self
    }

    /// As [`NNEinFact::tolerance`].
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// As [`NNEinFact::early_stopping`].
    pub fn early_stopping(mut self, on: bool) -> Self {
        self.early_stopping = on;
        self
    }

    /// As [`NNEinFact::memory_limit`].
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// As [`NNEinFact::data_as`].
    pub fn data_as(mut self, format: Format) -> Self {
        self.data_as = format;
        self
    }

    /// The fraction of the observed entries that every split holds out at random, in [0, 1). With 0, the
    /// default, what the observations themselves hold out stays.
    pub fn held_out(mut self, fraction: f64) -> Self {
        self.heldout = fraction;
        self
    }

    /// The fraction of the remaining entries that every split sets aside for validation, in [0, 1).
    pub fn validation(mut self, fraction: f64) -> Self {
        self.validation = fraction;
        self
    }

    /// How splits withhold entries, as
    /// [`Observations::split_as`](nneinfact_core::data::Observations::split_as). Without this as the
    /// observations say, which is [`SplitKind::Auto`] unless they were told.
    pub fn split_as(mut self, kind: SplitKind) -> Self {
        self.split_as = Some(kind);
        self
    }

    /// As [`Observations::zeros_per_nonzero`](nneinfact_core::data::Observations::zeros_per_nonzero): of
    /// splits by strata.
    pub fn zeros_per_nonzero(mut self, ratio: f64) -> Self {
        self.zeros_per_nonzero = Some(ratio);
        self
    }

    /// How many random splits there are. Default: 1.
    pub fn splits(mut self, splits: usize) -> Self {
        self.splits = splits;
        self
    }

    /// From how many starts every setup is fitted to every split. Default: 1.
    pub fn starts(mut self, starts: usize) -> Self {
        self.starts = starts;
        self
    }

    /// The seed of the first split. Default: 0.
    pub fn split_seed(mut self, seed: u64) -> Self {
        self.split_seed = seed;
        self
    }

    /// The seed of the first start. Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Chooses the ranks of every model so that its number of parameters is as close as possible to
    /// this. The ranks given are then proportions: all are multiplied with the same number and
    /// rounded, but for those of indices that are [fixed](StudyModel::fixed). With one latent index
    /// that is the closest number that there is. After several calls every model is tried with each of
    /// the numbers.
    pub fn match_parameters(mut self, parameters: u64) -> Self {
        self.parameters.push(parameters);
        self
    }

    /// The score beside the losses, which can be compared between them; `None` for none. Default:
    /// [`Score::Poisson`] where the data are counts, else [`Score::Rmse`].
    pub fn score(mut self, score: Option<Score>) -> Self {
        self.score = score.map_or(ScoreChoice::None, ScoreChoice::Some);
        self
    }

    /// Where the data are: the files of runs say so, each with its split, so that
    /// `nneinfact report` finds the data of any of them. What the study withholds at random is put in
    /// by the study.
    pub fn data_record(mut self, record: DataRecord) -> Self {
        self.record = Some(record);
        self
    }

    /// Where to run. Default: [`Device::auto`].
    pub fn device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// Keeps finished runs in a folder, and takes them from there. It is made where it is not there;
    /// one that holds anything other than a study is refused.
    pub fn folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.folder = Some(folder.as_ref().to_path_buf());
        self
    }

    /// A switch to stop the study from elsewhere. The run in progress is not kept.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Adds an observer, told whenever a run begins, makes a sweep, or ends.
    pub fn observe(self, observer: impl StudyObserver + 'static) -> Self {
        let mut all = self.observers.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Box::new(observer));
        drop(all);
        self
    }

    /// The penalties that a model is tried with.
    pub(super) fn penalties_of(&self, candidate: &StudyModel) -> Vec<Penalties> {
        match &candidate.penalties {
            Some(own) if !own.is_empty() => own.clone(),
            _ if self.penalties.is_empty() => vec![Penalties::none()],
            _ => self.penalties.clone(),
        }
    }

    pub(super) fn all_losses(&self) -> Vec<TriedLoss> {
        match self.losses.is_empty() {
            true => vec![TriedLoss::new(Loss::kl(), LossRecord::of(Loss::kl().name()))],
            false => self.losses.clone(),
        }
    }

    /// The algorithms that are tried, each with its learning rate, where one was given.
    pub(super) fn all_algorithms(&self) -> Vec<(Algorithm, Option<f64>)> {
        let one = |&algorithm: &Algorithm| -> Vec<(Algorithm, Option<f64>)> {
            match algorithm == Algorithm::Adam && !self.learning_rates.is_empty() {
                true => self.learning_rates.iter().map(|&rate| (algorithm, Some(rate))).collect(),
                false => vec![(algorithm, None)],
            }
        };
        match self.algorithms.is_empty() {
            true => vec![(Algorithm::Accelerated, None)],
            false => self.algorithms.iter().flat_map(one).collect(),
        }
    }

    /// The settings that a fit of any model has.
    pub(super) fn settings_of(
        &self,
        model: &str,
        (algorithm, rate): (Algorithm, Option<f64>),
    ) -> Result<NNEinFact> {
        let mut settings = NNEinFact::new(model)?
            .algorithm(algorithm)
            .precision(self.precision)
            .max_iter(self.max_iter)
            .tolerance(self.tolerance)
            .early_stopping(self.early_stopping)
            .data_as(self.data_as);
        if let Some(rate) = rate {
            settings = settings.learning_rate(rate);
        }
        if let Some(bytes) = self.memory_limit {
            settings = settings.memory_limit(bytes);
        }
        Ok(settings)
    }
}

/// An input error, with what it is about before it; others stay as they are.
pub(super) fn about(what: &str, error: Error) -> Error {
    match error {
        Error::Model(ModelError::Empty) => Error::Model(ModelError::Empty),
        error if error.is_input() => Error::Setting(format!("{what}: {error}")),
        error => error,
    }
}
