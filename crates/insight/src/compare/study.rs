//! A study: what is to be compared.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::candidate::{Penalties, StudyModel, TriedLoss};
use super::events::{StudyObserver, StudyObservers};
use super::ranks::combinations;
use super::score::Score;
use super::store::Store;
use nneinfact_core::engine::Precision;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::Loss;
use nneinfact_core::model::{ModelError, Shapes};
use nneinfact_fit::Device;
use nneinfact_fit::{Algorithm, Cancel, DataAs, DataRecord, LossRecord, NNEinFact};

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
    pub(super) data_as: DataAs,
    pub(super) heldout: f64,
    pub(super) validation: f64,
    pub(super) splits: usize,
    pub(super) starts: usize,
    pub(super) split_seed: u64,
    pub(super) seed: u64,
    pub(super) parameters: Vec<u64>,
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
            data_as: DataAs::Auto,
            heldout: 0.0,
            validation: 0.0,
            splits: 1,
            starts: 1,
            split_seed: 0,
            seed: 0,
            parameters: Vec::new(),
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
    pub fn data_as(mut self, format: DataAs) -> Self {
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

    /// The most runs that a study can have.
    pub const MAX_RUNS: usize = 100_000;

    /// Refuses what can be refused without data.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Model`]: no models, two of the same name, anything that is tried
    /// twice, ranks or penalties that do not go with a model's indices and factors, numbers outside
    /// their range, more than [`MAX_RUNS`](Self::MAX_RUNS) runs, a folder that cannot be one of a study.
    pub fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::Setting(message));
        if self.models.is_empty() {
            return refuse("there is no model to fit: a study compares at least one".into());
        }
        if self.splits == 0 || self.starts == 0 {
            let what = if self.splits == 0 { "split" } else { "start" };
            return refuse(format!("a study has at least 1 {what}, not 0"));
        }
        self.check_size()?;
        self.check_repetitions()?;
        for (n, model) in self.models.iter().enumerate() {
            if self.models[..n].iter().any(|other| other.name == model.name) {
                return refuse(format!(
                    "two models have the name {:?}: give every model a name of its own",
                    model.name
                ));
            }
            self.check_model(model)
                .map_err(|error| about(&format!("model {:?}", model.name), error))?;
        }
        for (what, fraction) in [("held-out", self.heldout), ("validation", self.validation)] {
            if !(0.0..1.0).contains(&fraction) {
                return refuse(format!(
                    "the {what} fraction must be at least 0 and below 1, not {fraction}"
                ));
            }
        }
        if self.splits > 1 && self.heldout == 0.0 && self.validation == 0.0 {
            return refuse(format!(
                "{} splits differ in what they withhold at random, and nothing is: hold out a fraction of the entries, or ask for several starts of one split",
                self.splits
            ));
        }
        // Observations may have validation entries of their own; a record says whether they have.
        if self.early_stopping
            && self.validation == 0.0
            && self.record.as_ref().is_some_and(|record| record.validation_coordinates.is_none())
        {
            return refuse(
                "early stopping needs a validation split: set aside a fraction of the entries for it"
                    .into(),
            );
        }
        let mut counts =
            self.parameters.iter().chain(self.models.iter().flat_map(|m| &m.parameters));
        if counts.any(|&n| n == 0) {
            return refuse("a number of parameters to match is at least 1, not 0".into());
        }
        if let Some(folder) = &self.folder {
            Store::check(folder)?;
        }
        Ok(())
    }

    /// Refuses more runs than can be counted, before they are.
    fn check_size(&self) -> Result<()> {
        let one = |n: usize| n.max(1);
        let rates = one(self.learning_rates.len());
        let algorithms: usize = match self.algorithms.is_empty() {
            true => 1,
            false => self
                .algorithms
                .iter()
                .map(|&a| if a == Algorithm::Adam { rates } else { 1 })
                .fold(0, usize::saturating_add),
        };
        let rows = |model: &StudyModel| {
            let penalties = model.penalties.as_ref().filter(|own| !own.is_empty());
            let counts = one(model.parameters.len().max(self.parameters.len()));
            let penalties = one(penalties.map_or(self.penalties.len(), Vec::len));
            [one(self.losses.len()), algorithms, counts, penalties]
                .into_iter()
                .chain(model.grids.iter().map(|grid| grid.ranks.len()))
                .fold(1, usize::saturating_mul)
        };
        let rows = self.models.iter().map(rows).fold(0, usize::saturating_add);
        let runs = rows.checked_mul(self.splits).and_then(|n| n.checked_mul(self.starts));
        match runs {
            Some(runs) if runs <= Self::MAX_RUNS => Ok(()),
            _ => Err(Error::Setting(format!(
                "{rows} setups with {} splits and {} starts each are more than {} runs, the most that a study can have",
                self.splits,
                self.starts,
                Self::MAX_RUNS
            ))),
        }
    }

    /// Refuses what would be fitted twice.
    fn check_repetitions(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::Setting(format!("{what} is there twice")));
        for (n, one) in self.losses.iter().enumerate() {
            let same = |other: &TriedLoss| {
                other.loss.name() == one.loss.name() && other.terms == one.terms
            };
            if self.losses[..n].iter().any(same) {
                return refuse(format!("the loss {}", one.loss.name()));
            }
        }
        for (n, one) in self.algorithms.iter().enumerate() {
            if self.algorithms[..n].contains(one) {
                return refuse(format!("the algorithm {}", one.name()));
            }
        }
        for (n, one) in self.learning_rates.iter().enumerate() {
            if self.learning_rates[..n].contains(one) {
                return refuse(format!("the learning rate {one}"));
            }
        }
        let own = self.models.iter().filter_map(|model| {
            Some((format!("model {:?}: ", model.name), model.penalties.as_ref()?))
        });
        for (whose, penalties) in std::iter::once((String::new(), &self.penalties)).chain(own) {
            for (n, one) in penalties.iter().enumerate() {
                if penalties[..n].contains(one) {
                    return refuse(format!("{whose}the penalty {one}"));
                }
            }
        }
        Ok(())
    }

    /// Refuses ranks, penalties and settings that do not go with a model.
    fn check_model(&self, candidate: &StudyModel) -> Result<()> {
        let model = &candidate.model;
        let ones = vec![1; model.output().len()];
        for grid in &candidate.grids {
            if grid.ranks.is_empty() {
                // Of an index that was only said to be fixed.
                let other: Vec<(char, usize)> = Vec::new();
                Shapes::new(model, &ones, &other)?;
                return Err(Error::Setting(format!("the index {} has no ranks", grid.letter)));
            }
        }
        for ranks in combinations(&candidate.grids) {
            Shapes::new(model, &ones, &ranks)?;
        }
        for penalties in self.penalties_of(candidate) {
            penalties.check(model)?;
        }
        for algorithm in self.all_algorithms() {
            self.settings_of(model.text(), algorithm)?.check()?;
        }
        // Rates without Adam are refused as a fit refuses them.
        if let Some(&rate) = self.learning_rates.first()
            && !self.algorithms.contains(&Algorithm::Adam)
        {
            let algorithm = self.algorithms.first().copied().unwrap_or_default();
            self.settings_of(model.text(), (algorithm, Some(rate)))?.check()?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use nneinfact_core::loss::Penalty;

    fn study() -> Study {
        Study::new().model(
            StudyModel::new("custom", "wr,ikr,jkr->wij")
                .unwrap()
                .rank('r', [2, 3])
                .rank('k', [1, 2, 4]),
        )
    }

    #[test]
    fn bad_studies_are_refused() {
        let refused = |study: Study, part: &str| {
            let error = study.check().unwrap_err();
            assert!(error.is_input() && error.to_string().contains(part), "{part}: {error}");
        };
        let nmf = |name: &str| StudyModel::new(name, "ir,jr->ij").unwrap();
        refused(Study::new(), "no model");
        refused(study().model(nmf("custom").rank('r', [1])), "\"custom\"");
        refused(study().model(nmf("nmf")), "model \"nmf\": ");
        refused(study().model(nmf("nmf").rank('r', [2, 0])), "model \"nmf\": ");
        refused(study().model(nmf("nmf").rank('r', [2]).rank('z', [2])), "z");
        refused(study().model(nmf("nmf").rank('r', [])), "no rank given for the latent index r");
        refused(study().splits(0), "1 split");
        refused(study().starts(0), "1 start");
        refused(study().held_out(1.0), "held-out fraction");
        refused(study().validation(-0.5), "validation fraction");
        refused(study().splits(2), "2 splits");
        refused(study().match_parameters(0), "at least 1");
        refused(study().loss(Loss::kl()).loss(Loss::kl()), "the loss kl is there twice");
        let block = |study: Study| study.algorithm(Algorithm::Block);
        refused(block(block(study())), "the algorithm block is there twice");
        let ridge = || Penalties::on_all(Penalty::l2(0.1));
        refused(study().penalties(ridge()).penalties(ridge()), "the penalty l2=0.1 is there twice");
        let own = nmf("nmf").rank('r', [1]).penalties([ridge(), ridge()]);
        refused(study().model(own), "model \"nmf\": the penalty l2=0.1 is there twice");
        // All of these before any data are read.
        refused(study().tolerance(-1.0), "tolerance");
        refused(study().tolerance(f64::NAN), "tolerance");
        refused(study().penalties(Penalties::none().and_on("zr", Penalty::l1(0.1))), "zr");
        refused(study().penalties(Penalties::on_all(Penalty::l1(-1.0))), "-1");
        refused(study().early_stopping(true).data_record(DataRecord::default()), "early stopping");
        refused(study().learning_rate(0.1), "adam");
        let adam = || study().algorithm(Algorithm::Adam);
        refused(adam().learning_rate(0.0), "learning rate");
        refused(adam().learning_rate(0.1).learning_rate(0.1), "0.1 is there twice");
        // More than there can be, and more than can be counted.
        refused(study().held_out(0.1).splits(100).starts(1000), "100000");
        refused(study().held_out(0.1).splits(usize::MAX).starts(usize::MAX), "100000");
        let all = || 1..=100_000;
        let vast =
            StudyModel::new("vast", "ir,jk,kr->ij").unwrap().rank('r', all()).rank('k', all());
        refused(study().model(vast), "100000");
    }

    #[test]
    fn losses_of_one_name_are_told_apart() {
        let dispersion = |x: f64| ndarray::Array2::from_elem((5, 6), x);
        let loss = |x: f64| Loss::negative_binomial(dispersion(x)).unwrap();
        let record = |file: &str| LossRecord {
            name: "negative-binomial".into(),
            dispersion: Some(nneinfact_fit::EntryParameterRecord::File(file.into())),
            ..LossRecord::default()
        };
        let study = Study::new()
            .model(StudyModel::new("nmf", "ir,jr->ij").unwrap().rank('r', [1]))
            .loss(Loss::kl())
            .loss_from(loss(1.0), record("a/low.npy"))
            .loss_from(loss(2.0), record("a/high.npy"))
            .loss(loss(3.0));
        study.check().unwrap();
        let names = super::super::candidate::labels(&study.all_losses());
        assert_eq!(names[0], "kl");
        assert_eq!(names[1], "negative-binomial(low.npy)");
        assert_eq!(names[2], "negative-binomial(high.npy)");
        assert_eq!(names[3], "negative-binomial(per entry)");
        let again = study.loss(loss(4.0)).loss(loss(5.0));
        again.check().unwrap();
        let names = super::super::candidate::labels(&again.all_losses());
        assert_eq!(
            names[4..],
            ["negative-binomial(per entry) #5", "negative-binomial(per entry) #6"]
        );
        assert!(again.loss(loss(5.0)).check().is_err());
    }
}
