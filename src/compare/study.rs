//! A study: what is to be compared, and how it is carried out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::ArrayD;

use super::estimate::{Load, Times};
use super::ranks::{Grid, combinations, matched};
use super::run::{Outcome, RunResult, RunSettings, loss_terms};
use super::score::{Score, Scorer};
use super::stability::{Stability, stability_of};
use super::store::Store;
use super::table::{Mean, Row, Run, Table};
use crate::data::{Observations, Prepared, Role};
use crate::engine::{Device, Precision};
use crate::error::{Error, Result};
use crate::fit::{Algorithm, Cancel, DataAs, Flow, NNEinFact, Source, StoppedBy, Sweep};
use crate::loss::{Loss, Penalty};
use crate::model::{Model, ModelError, Shapes};

/// A model that takes part in a study, with the ranks that it is tried with.
///
/// ```
/// use nneinfact::compare::Candidate;
///
/// let spatial = Candidate::new("spatial", "wr,ikr,jkr->wij")?
///     .rank('r', [5, 10, 20])
///     .rank('k', [6])
///     .fixed('k');
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Candidate {
    name: String,
    model: Model,
    grids: Vec<Grid>,
    penalties: Option<Vec<Penalties>>,
    parameters: Option<u64>,
}

impl Candidate {
    /// A model written as an einsum string, under a name for the table.
    ///
    /// # Errors
    /// [`Error::Model`] where the string is not a model.
    pub fn new(name: impl Into<String>, model: &str) -> Result<Candidate> {
        let model = Model::parse(model)?;
        Ok(Candidate {
            name: name.into(),
            model,
            grids: Vec::new(),
            penalties: None,
            parameters: None,
        })
    }

    /// The ranks of a latent letter. With several letters all combinations are tried. A second call
    /// for the same letter replaces the first.
    pub fn rank(mut self, letter: char, ranks: impl IntoIterator<Item = usize>) -> Self {
        let fixed = self.grids.iter().any(|grid| grid.letter == letter && grid.fixed);
        self.grids.retain(|grid| grid.letter != letter);
        self.grids.push(Grid { letter, ranks: ranks.into_iter().collect(), fixed });
        self
    }

    /// Leaves the ranks of a letter as they are where ranks are chosen for a
    /// [number of parameters](Study::match_parameters).
    pub fn fixed(mut self, letter: char) -> Self {
        match self.grids.iter_mut().find(|grid| grid.letter == letter) {
            Some(grid) => grid.fixed = true,
            None => self.grids.push(Grid { letter, ranks: Vec::new(), fixed: true }),
        }
        self
    }

    /// Penalties of this model, in place of those of the study.
    pub fn penalties(mut self, penalties: impl IntoIterator<Item = Penalties>) -> Self {
        self.penalties = Some(penalties.into_iter().collect());
        self
    }

    /// As [`Study::match_parameters`], for this model only.
    pub fn match_parameters(mut self, parameters: u64) -> Self {
        self.parameters = Some(parameters);
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }
}

/// The penalties of a fit, as one of several that a study tries.
///
/// ```
/// use nneinfact::compare::Penalties;
/// use nneinfact::loss::Penalty;
///
/// assert_eq!(Penalties::none().to_string(), "none");
/// assert_eq!(Penalties::on_all(Penalty::l1(0.1)).to_string(), "l1=0.1");
/// let two = Penalties::none().and_on("ir", Penalty::l1(0.1)).and_on("jr", Penalty::l2(2.0));
/// assert_eq!(two.to_string(), "ir:l1=0.1,jr:l2=2");
/// ```
#[derive(Clone, Debug, PartialEq, Default)]
#[must_use]
pub struct Penalties {
    all: Option<Penalty>,
    single: Vec<(String, Penalty)>,
}

impl Penalties {
    /// No penalty.
    pub fn none() -> Penalties {
        Penalties::default()
    }

    /// A penalty on every factor.
    pub fn on_all(penalty: Penalty) -> Penalties {
        Penalties { all: Some(penalty), single: Vec::new() }
    }

    /// And one on the factor of this name, as in [`NNEinFact::penalty`].
    pub fn and_on(mut self, factor: &str, penalty: Penalty) -> Penalties {
        self.single.push((factor.into(), penalty));
        self
    }

    fn apply(&self, mut settings: NNEinFact) -> NNEinFact {
        if let Some(penalty) = self.all {
            settings = settings.penalty_on_all(penalty);
        }
        for (factor, penalty) in &self.single {
            settings = settings.penalty(factor, *penalty);
        }
        settings
    }
}

impl fmt::Display for Penalties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |p: &Penalty| format!("l{}={}", p.power(), p.weight());
        let mut all: Vec<String> = self.all.iter().map(text).collect();
        all.extend(self.single.iter().map(|(factor, p)| format!("{factor}:{}", text(p))));
        match all.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&all.join(",")),
        }
    }
}

/// Where a study stands.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Standing {
    /// The number of this run, counted from 1.
    pub run: usize,
    /// How many runs there are.
    pub runs: usize,
    /// What it is of: model, ranks, loss, split, start.
    pub label: String,
    /// The seconds that this run and those after it will take, by those that are done: of the same
    /// setup, or per parameter. `None` before any run is done.
    pub left: Option<f64>,
}

/// What happens in a study.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A run begins.
    Begins(&'a Standing),
    /// A sweep of it is done.
    Sweep(&'a Standing, &'a Sweep),
    /// A run is over; for a run that was finished before and taken from the folder, it is the only
    /// event.
    Ends {
        /// Which one; what is left is without it.
        standing: &'a Standing,
        /// How it ended.
        outcome: &'a Outcome,
        /// Whether it was taken from the folder.
        kept: bool,
    },
}

/// Something that is told what happens in a study. Closures are.
pub trait Watch: Send {
    /// Called at every event.
    fn event(&mut self, event: &Event<'_>);
}

impl<F: FnMut(&Event<'_>) + Send> Watch for F {
    fn event(&mut self, event: &Event<'_>) {
        self(event);
    }
}

/// Watchers that the observer of a fit reaches too.
type Watchers = Arc<Mutex<Vec<Box<dyn Watch>>>>;

fn tell(watchers: &Watchers, event: &Event<'_>) {
    // A watcher that panicked takes the others not with it.
    let mut all = watchers.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter_mut().for_each(|watcher| watcher.event(event));
}

/// A comparison to be: models × ranks × losses × penalties × algorithms, each fitted to several
/// random splits of the data from several starts.
///
/// ```
/// use ndarray::Array3;
/// use nneinfact::Loss;
/// use nneinfact::compare::{Candidate, Study};
///
/// let y = Array3::from_shape_fn((12, 10, 8), |(i, j, k)| ((1 + i % 3) * (1 + j % 2) + k) as f64);
/// let table = Study::new()
///     .model(Candidate::new("cp", "ir,jr,kr->ijk")?.rank('r', [1, 2]))
///     .model(Candidate::new("additive", "ir,jr,kq,rq->ijk")?.rank('r', [2]).rank('q', [2]))
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
/// or without a validation set the lowest training loss (with penalties); held-out cells never choose.
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
    models: Vec<Candidate>,
    losses: Vec<Loss>,
    penalties: Vec<Penalties>,
    algorithms: Vec<Algorithm>,
    precision: Precision,
    max_iter: usize,
    tolerance: f64,
    early_stopping: bool,
    memory_limit: Option<u64>,
    data_as: DataAs,
    heldout: f64,
    validation: f64,
    splits: usize,
    starts: usize,
    split_seed: u64,
    seed: u64,
    parameters: Option<u64>,
    score: Choice,
    device: Option<Device>,
    folder: Option<PathBuf>,
    cancel: Cancel,
    watchers: Watchers,
}

/// Which score a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// Poisson for counts, the mean squared error for others.
    Auto,
    None,
    Some(Score),
}

/// One row of the table to be.
struct Setup {
    name: String,
    shapes: Shapes,
    ranks: Vec<(char, usize)>,
    loss: usize,
    penalties: Penalties,
    algorithm: Algorithm,
}

impl Setup {
    fn ranks_text(&self) -> String {
        ranks_text(&self.ranks.iter().copied().collect())
    }
}

pub(super) fn ranks_text(ranks: &BTreeMap<char, usize>) -> String {
    let each: Vec<String> = ranks.iter().map(|(letter, rank)| format!("{letter}={rank}")).collect();
    if each.is_empty() { "-".into() } else { each.join(",") }
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
            parameters: None,
            score: Choice::Auto,
            device: None,
            folder: None,
            cancel: Cancel::new(),
            watchers: Watchers::default(),
        }
    }

    /// Adds a model.
    pub fn model(mut self, model: Candidate) -> Self {
        self.models.push(model);
        self
    }

    /// Adds a loss to be tried. Without any it is [`Loss::kl`].
    pub fn loss(mut self, loss: Loss) -> Self {
        self.losses.push(loss);
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
    pub fn data_as(mut self, form: DataAs) -> Self {
        self.data_as = form;
        self
    }

    /// The fraction of the observed cells that every split holds out at random, in [0, 1). With 0, the
    /// default, what the observations themselves hold out stays.
    pub fn held_out(mut self, fraction: f64) -> Self {
        self.heldout = fraction;
        self
    }

    /// The fraction of the remaining cells that every split sets aside for validation, in [0, 1).
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
    /// rounded, but for those of letters that are [fixed](Candidate::fixed). With one latent letter
    /// that is the closest number that there is.
    pub fn match_parameters(mut self, parameters: u64) -> Self {
        self.parameters = Some(parameters);
        self
    }

    /// The score beside the losses, which can be compared between them; `None` for none. Default:
    /// [`Score::Poisson`] where the data are counts, else [`Score::Rmse`].
    pub fn score(mut self, score: Option<Score>) -> Self {
        self.score = score.map_or(Choice::None, Choice::Some);
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

    /// Adds a watcher, told whenever a run begins, makes a sweep, or ends.
    pub fn watch(self, watcher: impl Watch + 'static) -> Self {
        let mut all = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Box::new(watcher));
        drop(all);
        self
    }

    /// Refuses what can be refused without data.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Model`]: no models, two of the same name, ranks that do not go with
    /// a model's letters, numbers outside their range, a folder that cannot be one of a study.
    pub fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::Setting(message));
        if self.models.is_empty() {
            return refuse("there is no model to fit: a study compares at least one".into());
        }
        for (n, model) in self.models.iter().enumerate() {
            if self.models[..n].iter().any(|other| other.name == model.name) {
                return refuse(format!(
                    "two models have the name {:?}: give every model a name of its own",
                    model.name
                ));
            }
            let about = |error: Error| about(&format!("model {:?}", model.name), error);
            let ones = vec![1; model.model.output().len()];
            for grid in &model.grids {
                if grid.ranks.is_empty() {
                    // Of a letter that was only said to be fixed.
                    let other: Vec<(char, usize)> = Vec::new();
                    Shapes::new(&model.model, &ones, &other).map_err(|e| about(e.into()))?;
                    return refuse(format!(
                        "model {:?}: the letter {} has no ranks",
                        model.name, grid.letter
                    ));
                }
            }
            for ranks in combinations(&model.grids) {
                Shapes::new(&model.model, &ones, &ranks).map_err(|e| about(e.into()))?;
            }
        }
        if self.splits == 0 || self.starts == 0 {
            let what = if self.splits == 0 { "split" } else { "start" };
            return refuse(format!("a study has at least 1 {what}, not 0"));
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
        if [self.parameters]
            .iter()
            .chain(self.models.iter().map(|m| &m.parameters))
            .flatten()
            .any(|&n| n == 0)
        {
            return refuse("a number of parameters to match is at least 1, not 0".into());
        }
        if let Some(folder) = &self.folder {
            Store::check(folder)?;
        }
        Ok(())
    }

    /// How many runs there will be for data of this shape.
    ///
    /// # Errors
    /// As [`check`](Self::check), and where a model does not go with the shape.
    pub fn runs(&self, shape: &[usize]) -> Result<usize> {
        self.check()?;
        Ok(self.setups(shape, &self.all_losses())?.len() * self.splits * self.starts)
    }

    /// Carries the study out.
    ///
    /// Everything that can be wrong with any of its runs is looked for before the first of them. A run
    /// that fails all the same is reported in the table and does not end the study.
    ///
    /// # Errors
    /// Whatever is wrong with the models, ranks, losses, settings or data; and where the folder cannot
    /// be written.
    pub fn run(self, data: impl Source) -> Result<Table> {
        self.check()?;
        let observations = data.observations()?;
        let device = match &self.device {
            Some(device) => device.clone(),
            None => Device::auto()?,
        };
        let observations: &Observations = observations.as_ref();
        device.clone().install(move || self.run_on(observations, &device))
    }

    fn all_losses(&self) -> Vec<Loss> {
        if self.losses.is_empty() { vec![Loss::kl()] } else { self.losses.clone() }
    }

    /// All rows of the table, in the order of the study.
    fn setups(&self, shape: &[usize], losses: &[Loss]) -> Result<Vec<Setup>> {
        let none = [Penalties::none()];
        let accelerated = [Algorithm::Accelerated];
        let algorithms: &[Algorithm] =
            if self.algorithms.is_empty() { &accelerated } else { &self.algorithms };
        let mut all: Vec<Setup> = Vec::new();
        for candidate in &self.models {
            let context = format!("model {:?}", candidate.name);
            let penalties: &[Penalties] = match &candidate.penalties {
                Some(own) if !own.is_empty() => own,
                _ if self.penalties.is_empty() => &none,
                _ => &self.penalties,
            };
            let fixed: Vec<char> =
                candidate.grids.iter().filter(|g| g.fixed).map(|g| g.letter).collect();
            let mut seen: Vec<Vec<(char, usize)>> = Vec::new();
            for ranks in combinations(&candidate.grids) {
                // Refuses ranks that do not go with the model before they are used.
                Shapes::new(&candidate.model, shape, &ranks)
                    .map_err(|e| about(&context, e.into()))?;
                let ranks = match candidate.parameters.or(self.parameters) {
                    Some(wanted) => matched(&candidate.model, shape, &ranks, &fixed, wanted)
                        .map_err(|e| about(&context, e))?,
                    None => ranks,
                };
                // Different proportions may lead to the same ranks.
                if seen.contains(&ranks) {
                    continue;
                }
                seen.push(ranks.clone());
                let shapes = Shapes::new(&candidate.model, shape, &ranks)
                    .map_err(|e| about(&context, e.into()))?;
                for loss in 0..losses.len() {
                    for penalties in penalties {
                        for &algorithm in algorithms {
                            all.push(Setup {
                                name: candidate.name.clone(),
                                shapes: shapes.clone(),
                                ranks: ranks.clone(),
                                loss,
                                penalties: penalties.clone(),
                                algorithm,
                            });
                        }
                    }
                }
            }
        }
        Ok(all)
    }

    /// The settings of a fit, but for the seed.
    fn settings(&self, setup: &Setup, loss: &Loss, device: &Device) -> Result<NNEinFact> {
        let mut settings = NNEinFact::new(setup.shapes.model().text())?
            .ranks(setup.ranks.iter().copied())
            .loss(loss.clone())
            .device(device.clone())
            .algorithm(setup.algorithm)
            .precision(self.precision)
            .max_iter(self.max_iter)
            .tolerance(self.tolerance)
            .early_stopping(self.early_stopping)
            .data_as(self.data_as);
        if let Some(bytes) = self.memory_limit {
            settings = settings.memory_limit(bytes);
        }
        Ok(setup.penalties.apply(settings))
    }

    fn split(&self, observations: &Observations, split: usize) -> Result<Observations> {
        let seed = self.split_seed.wrapping_add(split as u64);
        let mut observations = observations.clone();
        if self.heldout > 0.0 {
            observations = observations.held_out(self.heldout, seed)?;
        }
        if self.validation > 0.0 {
            observations = observations.validation(self.validation, seed)?;
        }
        Ok(observations)
    }

    fn run_on(&self, observations: &Observations, device: &Device) -> Result<Table> {
        let losses = self.all_losses();
        let setups = self.setups(observations.shape(), &losses)?;
        let mut notes = Vec::new();
        let mut prepared: Option<(usize, Prepared)> = None;
        let first = self.split(observations, 0)?.prepare()?;
        for setup in &setups {
            let settings = self.settings(setup, &losses[setup.loss], device)?;
            let context = format!("model {:?} with {}", setup.name, setup.ranks_text());
            let warnings =
                settings.warnings(observations.shape()).map_err(|e| about(&context, e))?;
            for warning in warnings {
                let note = format!("model {:?}: {warning}", setup.name);
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
            settings.check_prepared(&first).map_err(|e| about(&context, e))?;
        }
        let (score, counts) = self.chosen_score(&first, &mut notes)?;
        prepared.replace((0, first));

        let print = observations.fingerprint();
        let runs = self.all_runs(&setups, &losses, &print);
        let store = self.folder.as_deref().map(Store::open).transpose()?;
        let mut times = Times::new(
            runs.iter()
                .map(|run| Load {
                    setup: run.setup,
                    kind: kind(&setups, run.setup),
                    parameters: setups[run.setup].shapes.parameters() as f64,
                })
                .collect(),
        );
        let mut outcomes = vec![Outcome::Pending; runs.len()];
        if let Some(store) = &store {
            for (n, run) in runs.iter().enumerate() {
                if let Some(result) = store.load(&run.settings) {
                    times.done(n, result.seconds);
                    outcomes[n] = Outcome::Finished(result);
                }
            }
        }
        let mut factors: Vec<Option<Vec<ArrayD<f64>>>> = vec![None; runs.len()];
        for n in 0..runs.len() {
            let run = &runs[n];
            let setup = &setups[run.setup];
            let later = |times: &Times, from: usize| {
                times.left((from..runs.len()).filter(|&m| outcomes[m] == Outcome::Pending))
            };
            let mut standing = Standing {
                run: n + 1,
                runs: runs.len(),
                label: self.label(setup, &losses, run),
                left: later(&times, n),
            };
            if outcomes[n] != Outcome::Pending {
                let outcome = &outcomes[n];
                tell(&self.watchers, &Event::Ends { standing: &standing, outcome, kept: true });
                continue;
            }
            if self.cancel.is_cancelled() {
                break;
            }
            tell(&self.watchers, &Event::Begins(&standing));
            // What came before is not held while the next is made.
            prepared = prepared.filter(|(split, _)| *split == run.split);
            let data = match prepared.take() {
                Some((_, data)) => data,
                None => self.split(observations, run.split)?.prepare()?,
            };
            let settings = self.settings(setup, &losses[setup.loss], device)?;
            let loss = &losses[setup.loss];
            let expected = times.expected(n);
            let rest = later(&times, n + 1);
            let settings = self.observed(settings, &standing, expected, rest);
            let fitted = settings.seed(run.settings.seed).fit_prepared(&data);
            let outcome = match fitted {
                Ok(fit) if fit.history().stopped_by == StoppedBy::Interrupted => break,
                Ok(fit) => {
                    let scored =
                        Scorer::new(&data, loss, counts).scores(fit.shapes(), fit.factors());
                    match scored {
                        Ok(scores) => {
                            let result = RunResult::new(fit.history(), scores);
                            match &store {
                                Some(store) => store.save(&run.settings, &result, &fit)?,
                                None => factors[n] = Some(fit.into_factors()),
                            }
                            Outcome::Finished(result)
                        }
                        Err(error) => Outcome::Failed(error.to_string()),
                    }
                }
                Err(_) if self.cancel.is_cancelled() => break,
                Err(error) => Outcome::Failed(error.to_string()),
            };
            prepared = Some((run.split, data));
            if let Outcome::Finished(result) = &outcome {
                times.done(n, result.seconds);
            }
            standing.left = later(&times, n + 1);
            tell(
                &self.watchers,
                &Event::Ends { standing: &standing, outcome: &outcome, kept: false },
            );
            outcomes[n] = outcome;
        }
        let factors = Factors { store: store.as_ref(), kept: &factors };
        let table =
            self.table(observations, &losses, &setups, &runs, &outcomes, &factors, score, notes)?;
        if let Some(store) = &store {
            table.write(store.folder())?;
        }
        Ok(table)
    }

    /// Every run, split by split.
    fn all_runs(&self, setups: &[Setup], losses: &[Loss], print: &str) -> Vec<Planned> {
        let terms: Vec<String> = losses.iter().map(loss_terms).collect();
        let mut runs = Vec::new();
        for split in 0..self.splits {
            for (n, setup) in setups.iter().enumerate() {
                for start in 0..self.starts {
                    let offset = (split * self.starts + start) as u64;
                    let settings = RunSettings {
                        library: env!("CARGO_PKG_VERSION").into(),
                        data: print.into(),
                        model: setup.shapes.model().to_string(),
                        ranks: setup.ranks.iter().copied().collect(),
                        loss: losses[setup.loss].name().into(),
                        loss_terms: terms[setup.loss].clone(),
                        penalty: setup.penalties.to_string(),
                        algorithm: setup.algorithm.name().into(),
                        precision: self.precision.name().into(),
                        max_iter: self.max_iter,
                        tolerance: self.tolerance,
                        early_stopping: self.early_stopping,
                        heldout: self.heldout,
                        validation: self.validation,
                        split_seed: self.split_seed.wrapping_add(split as u64),
                        seed: self.seed.wrapping_add(offset),
                    };
                    runs.push(Planned { setup: n, split, start, settings });
                }
            }
        }
        runs
    }

    /// The score of the table, and whether the data are counts.
    fn chosen_score(
        &self,
        data: &Prepared,
        notes: &mut Vec<String>,
    ) -> Result<(Option<Score>, bool)> {
        if data.cells(Role::HeldOut) == 0 {
            if let Choice::Some(score) = self.score {
                return Err(Error::Setting(format!(
                    "the {score} score is that of held-out cells, and none are held out: hold out a fraction of the entries"
                )));
            }
            return Ok((None, false));
        }
        let outside = data.first_outside(|x, _| x >= 0.0 && x.is_finite() && x.fract() == 0.0);
        let counts = outside.is_none();
        let score = match (self.score, outside) {
            (Choice::Some(Score::Poisson), Some(outside)) => {
                return Err(Error::Setting(format!(
                    "the poisson score is for counts, and the entry at index {:?} is {}: choose rmse, mae or none",
                    outside.index, outside.value
                )));
            }
            (Choice::Some(score), _) => Some(score),
            (Choice::None, _) => None,
            (Choice::Auto, None) => Some(Score::Poisson),
            (Choice::Auto, Some(outside)) => {
                notes.push(format!(
                    "the data are not counts (the entry at index {:?} is {}), so that the score is rmse and not the poisson log-likelihood",
                    outside.index, outside.value
                ));
                Some(Score::Rmse)
            }
        };
        Ok((score, counts))
    }

    fn label(&self, setup: &Setup, losses: &[Loss], run: &Planned) -> String {
        let mut label = setup.name.clone();
        if !setup.ranks.is_empty() {
            label += &format!(" {}", setup.ranks_text());
        }
        if losses.len() > 1 {
            label += &format!(", {}", losses[setup.loss].name());
        }
        if setup.penalties != Penalties::none() {
            label += &format!(", {}", setup.penalties);
        }
        if self.algorithms.len() > 1 {
            label += &format!(", {}", setup.algorithm.name());
        }
        if self.splits > 1 {
            label += &format!(", split {}", run.split + 1);
        }
        if self.starts > 1 {
            label += &format!(", start {}", run.start + 1);
        }
        label
    }

    /// A fit that tells the watchers of its sweeps.
    fn observed(
        &self,
        settings: NNEinFact,
        standing: &Standing,
        expected: Option<f64>,
        rest: Option<f64>,
    ) -> NNEinFact {
        let watchers = Arc::clone(&self.watchers);
        let mut standing = standing.clone();
        settings.cancel(&self.cancel).observe(move |sweep: &Sweep| {
            // A run that takes longer than expected may end at any sweep.
            let own = expected.map(|all| (all - sweep.seconds).max(0.0));
            standing.left = own.zip(rest).map(|(own, rest)| own + rest);
            tell(&watchers, &Event::Sweep(&standing, sweep));
            Flow::Continue
        })
    }

    #[expect(clippy::too_many_arguments, reason = "all that there is, put together once")]
    fn table(
        &self,
        observations: &Observations,
        losses: &[Loss],
        setups: &[Setup],
        runs: &[Planned],
        outcomes: &[Outcome],
        factors: &Factors<'_>,
        score: Option<Score>,
        mut notes: Vec<String>,
    ) -> Result<Table> {
        let mut rows = Vec::new();
        for (n, setup) in setups.iter().enumerate() {
            let own: Vec<usize> = (0..runs.len()).filter(|&m| runs[m].setup == n).collect();
            let mut all: Vec<Run> = own
                .iter()
                .map(|&m| Run {
                    split: runs[m].split + 1,
                    start: runs[m].start + 1,
                    split_seed: runs[m].settings.split_seed,
                    seed: runs[m].settings.seed,
                    chosen: false,
                    file: self.folder.as_ref().map(|_| Store::run_file(&runs[m].settings)),
                    outcome: outcomes[m].clone(),
                })
                .collect();
            // Of every split the best start.
            for split in 1..=self.splits {
                let best = all
                    .iter_mut()
                    .filter(|run| run.split == split)
                    .filter_map(|run| Some((run.outcome.result()?.criterion(), run)))
                    .min_by(|a, b| a.0.total_cmp(&b.0));
                if let Some((_, run)) = best {
                    run.chosen = true;
                }
            }
            let finished: Vec<usize> =
                (0..own.len()).filter(|&i| all[i].outcome.result().is_some()).collect();
            let stability = match finished.len() {
                0 | 1 => None,
                _ => self.stability(setup, runs, &own, &all, &finished, factors, &mut notes)?,
            };
            rows.push(row(setup, &losses[setup.loss], all, stability, score, self.precision));
        }
        // Losses in the order of the study, and inside each what predicts best first.
        let order: Vec<&str> = losses.iter().map(Loss::name).collect();
        rows.sort_by(|a, b| {
            let place = |row: &Row| order.iter().position(|name| *name == row.loss);
            place(a).cmp(&place(b)).then(a.criterion().total_cmp(&b.criterion()))
        });
        Ok(Table::new(
            observations.shape().to_vec(),
            [self.heldout, self.validation],
            self.splits,
            self.starts,
            score,
            rows,
            notes,
        ))
    }

    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn stability(
        &self,
        setup: &Setup,
        runs: &[Planned],
        own: &[usize],
        all: &[Run],
        finished: &[usize],
        factors: &Factors<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Option<Stability>> {
        // The components are those of the best run.
        let criterion =
            |&&i: &&usize| all[i].outcome.result().map_or(f64::INFINITY, RunResult::criterion);
        let best = finished
            .iter()
            .filter(|&&i| all[i].chosen)
            .min_by(|a, b| criterion(a).total_cmp(&criterion(b)));
        let Some(&best) = best else { return Ok(None) };
        let order = std::iter::once(best).chain(finished.iter().copied().filter(|&i| i != best));
        let count = setup.shapes.model().factors().len();
        let fits: Result<Vec<Vec<ArrayD<f64>>>> =
            order.map(|i| factors.get(own[i], &runs[own[i]].settings, count)).collect();
        match stability_of(&setup.shapes, &fits?) {
            Ok(stability) => Ok(Some(stability)),
            Err(Error::Unsupported(why)) => {
                if !notes.contains(&why) {
                    notes.push(why);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// A run to be.
struct Planned {
    setup: usize,
    split: usize,
    start: usize,
    settings: RunSettings,
}

/// The factors of finished runs, in memory or in their files.
struct Factors<'a> {
    store: Option<&'a Store>,
    kept: &'a [Option<Vec<ArrayD<f64>>>],
}

impl Factors<'_> {
    fn get(&self, run: usize, settings: &RunSettings, count: usize) -> Result<Vec<ArrayD<f64>>> {
        match (self.store, self.kept.get(run)) {
            (Some(store), _) => store.factors(settings, count),
            (None, Some(Some(factors))) => Ok(factors.clone()),
            _ => Ok(Vec::new()),
        }
    }
}

/// A number that setups with the same loss, penalties and algorithm share.
fn kind(setups: &[Setup], setup: usize) -> usize {
    let of = |s: &Setup| (s.loss, s.penalties.clone(), s.algorithm);
    setups.iter().position(|other| of(other) == of(&setups[setup])).unwrap_or(setup)
}

fn row(
    setup: &Setup,
    loss: &Loss,
    runs: Vec<Run>,
    stability: Option<Stability>,
    score: Option<Score>,
    precision: Precision,
) -> Row {
    let chosen: Vec<&RunResult> =
        runs.iter().filter(|run| run.chosen).filter_map(|run| run.outcome.result()).collect();
    let mean = |of: &dyn Fn(&RunResult) -> Option<f64>| {
        let values: Option<Vec<f64>> = chosen.iter().map(|result| of(result)).collect();
        values.and_then(|values| Mean::of(&values))
    };
    let mut stopped_by = BTreeMap::new();
    for result in &chosen {
        *stopped_by.entry(result.stopped_by.clone()).or_insert(0) += 1;
    }
    let mut failures: Vec<String> = Vec::new();
    for run in &runs {
        if let Outcome::Failed(message) = &run.outcome
            && !failures.contains(message)
        {
            failures.push(message.clone());
        }
    }
    Row {
        name: setup.name.clone(),
        model: setup.shapes.model().to_string(),
        ranks: setup.ranks.iter().copied().collect(),
        loss: loss.name().into(),
        penalty: setup.penalties.to_string(),
        algorithm: setup.algorithm.name().into(),
        precision: precision.name().into(),
        parameters: setup.shapes.parameters(),
        heldout_loss: mean(&|r| r.heldout_loss),
        validation_loss: mean(&|r| r.validation_loss),
        training_loss: mean(&|r| Some(r.training_loss)),
        score: score.and_then(|score| mean(&|r| r.scores.get(score))),
        sweeps: mean(&|r| Some(r.sweeps as f64)).map(|m| m.mean),
        seconds: mean(&|r| Some(r.seconds)).map(|m| m.mean),
        stopped_by,
        failures,
        stability,
        runs,
    }
}

/// An input error, with what it is about before it; others stay as they are.
fn about(what: &str, error: Error) -> Error {
    match error {
        Error::Model(ModelError::Empty) => Error::Model(ModelError::Empty),
        error if error.is_input() => Error::Setting(format!("{what}: {error}")),
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study() -> Study {
        Study::new().model(
            Candidate::new("custom", "wr,ikr,jkr->wij")
                .unwrap()
                .rank('r', [2, 3])
                .rank('k', [1, 2, 4]),
        )
    }

    #[test]
    fn everything_is_combined() {
        let study = study()
            .loss(Loss::kl())
            .loss(Loss::euclidean())
            .penalties(Penalties::none())
            .penalties(Penalties::on_all(Penalty::l1(0.1)))
            .algorithm(Algorithm::Grouped)
            .algorithm(Algorithm::Accelerated)
            .splits(3)
            .starts(2)
            .held_out(0.1);
        let setups = study.setups(&[4, 5, 6], &study.all_losses()).unwrap();
        assert_eq!(setups.len(), 6 * 2 * 2 * 2);
        assert_eq!(study.runs(&[4, 5, 6]).unwrap(), 48 * 6);
        let runs = study.all_runs(&setups, &study.all_losses(), "data");
        assert_eq!(runs.len(), 48 * 6);
        // Every run has settings of its own, and no start of a setup is there twice.
        let names: std::collections::BTreeSet<String> =
            runs.iter().map(|run| run.settings.file_name()).collect();
        assert_eq!(names.len(), runs.len());
        let seeds: Vec<u64> =
            runs.iter().filter(|run| run.setup == 7).map(|run| run.settings.seed).collect();
        assert_eq!(seeds, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn proportions_that_lead_to_the_same_ranks_are_one_setup() {
        let cp = Candidate::new("cp", "ir,jr->ij").unwrap().rank('r', [1, 5, 50]);
        let study = Study::new().model(cp).match_parameters(110);
        let setups = study.setups(&[5, 6], &[Loss::kl()]).unwrap();
        assert_eq!(setups.len(), 1);
        assert_eq!(setups[0].ranks, [('r', 10)]);
    }

    #[test]
    fn bad_studies_are_refused() {
        let refused = |study: Study, part: &str| {
            let error = study.check().unwrap_err();
            assert!(error.is_input() && error.to_string().contains(part), "{part}: {error}");
        };
        let nmf = |name: &str| Candidate::new(name, "ir,jr->ij").unwrap();
        refused(Study::new(), "no model");
        refused(study().model(nmf("custom").rank('r', [1])), "\"custom\"");
        refused(study().model(nmf("nmf")), "model \"nmf\": ");
        refused(study().model(nmf("nmf").rank('r', [2, 0])), "model \"nmf\": ");
        refused(study().model(nmf("nmf").rank('r', [2]).rank('z', [2])), "z");
        refused(study().model(nmf("nmf").rank('r', [])), "no rank given for the latent letter r");
        refused(study().splits(0), "1 split");
        refused(study().starts(0), "1 start");
        refused(study().held_out(1.0), "held-out fraction");
        refused(study().validation(-0.5), "validation fraction");
        refused(study().splits(2), "2 splits");
        refused(study().match_parameters(0), "at least 1");
    }
}
