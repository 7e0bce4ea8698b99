//! How a study is carried out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use ndarray::ArrayD;

use super::estimate::{Load, Times};
use super::events::{Event, Standing, notify};
use super::path::{components, zeros};
use super::rows::Done;
use super::run_result::{RunOutcome, RunResult};
use super::score::{Score, Scorer, Scores};
use super::setups::{Planned, Setup};
use super::store::Store;
use super::study::{ScoreChoice, Study, about};
use super::study_model::TriedLoss;
use super::study_table::StudyTable;
use nneinfact_core::data::{Observations, Prepared, Role, Strata, describe_index};
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::Device;
use nneinfact_fit::{DataRecord, Fit, Flow, NNEinFact, Saved, Source, StoppedBy, Sweep};

/// The data of a split, with the seconds that it took to prepare them, until a run has been charged
/// with these.
pub(super) struct SplitData {
    pub split: usize,
    pub data: Prepared,
    pub seconds: f64,
}

impl Study {
    /// The settings of a fit, but for the seed.
    pub(super) fn settings(
        &self,
        setup: &Setup,
        losses: &[TriedLoss],
        device: &Device,
    ) -> Result<NNEinFact> {
        let settings = self
            .settings_of(setup.shapes.model().text(), (setup.algorithm, setup.rate))?
            .ranks(setup.ranks.iter().copied())
            .loss(losses[setup.loss].loss.clone())
            .kkt_residual(true)
            .device(device.clone());
        Ok(setup.penalties.apply(settings))
    }

    /// The observations of a split.
    fn withheld(&self, observations: &Observations, split: usize) -> Result<Observations> {
        let seed = self.split_seed.wrapping_add(split as u64);
        let mut observations = observations.clone();
        if self.heldout > 0.0 {
            observations = observations.held_out(self.heldout, seed)?;
        }
        if self.validation > 0.0 {
            observations = observations.validation(self.validation, seed)?;
        }
        if let Some(kind) = self.split_as {
            observations = observations.split_as(kind);
        }
        if let Some(ratio) = self.zeros_per_nonzero {
            observations = observations.zeros_per_nonzero(ratio)?;
        }
        Ok(observations)
    }

    pub(super) fn split(&self, observations: &Observations, split: usize) -> Result<SplitData> {
        let began = Instant::now();
        let data = self.withheld(observations, split)?.prepare()?;
        Ok(SplitData { split, data, seconds: began.elapsed().as_secs_f64() })
    }

    /// Where the data of a run are, and which of them it did not see. Of data that have no file the
    /// split is known all the same.
    fn record_of(&self, run: &Planned) -> DataRecord {
        let some = |fraction: f64| (fraction > 0.0).then_some(fraction);
        DataRecord {
            heldout: some(self.heldout),
            validation: some(self.validation),
            split_seed: run.settings.split_seed,
            heldout_as: self.split_as,
            zeros_per_nonzero: self.zeros_per_nonzero,
            ..self.record.clone().unwrap_or_default()
        }
    }

    /// Carries the study out.
    ///
    /// Everything that can be wrong with any of its runs is looked for before the first of them. A run
    /// that fails all the same is reported in the table and does not end the study.
    ///
    /// # Errors
    /// Whatever is wrong with the models, ranks, losses, settings or data; and where the folder cannot
    /// be written.
    pub fn run(self, data: impl Source) -> Result<StudyTable> {
        self.check()?;
        let observations = data.observations()?;
        let device = match &self.device {
            Some(device) => device.clone(),
            None => Device::auto()?,
        };
        let observations: &Observations = observations.as_ref();
        device.clone().install(move || self.run_on(observations, &device))
    }

    fn run_on(&self, observations: &Observations, device: &Device) -> Result<StudyTable> {
        let losses = self.all_losses();
        let mut notes = Vec::new();
        let setups = self.setups(observations.shape(), &losses, &mut notes)?;
        let first = self.split(observations, 0)?;
        let split_kind = first.data.split_kind();
        let at_most =
            self.check_setups(observations, device, (&setups, &losses), &first, &mut notes)?;
        let (score, counts) = self.chosen_score(&first.data, &mut notes)?;
        let print = observations.fingerprint();
        notes.extend(first.data.strata().map(strata_note));
        let ratio = self.withheld(observations, 0)?.strata_ratio();
        let places = self.along(&setups)?;
        let runs = self.all_runs(&setups, &losses, (&print, ratio), &places);
        let store = self.folder.as_deref().map(Store::open).transpose()?;
        let mut running = Running {
            study: self,
            observations,
            device,
            losses: &losses,
            setups: &setups,
            runs: &runs,
            store: store.as_ref(),
            counts,
            times: Times::new(loads(&setups, &runs)),
            outcomes: vec![RunOutcome::Pending; runs.len()],
            factors: vec![None; runs.len()],
            ready: Some(first),
            at_most,
            concurrent: 1,
        };
        running.load();
        running.all()?;
        let Running { outcomes, factors, .. } = running;
        let done = Done {
            losses: &losses,
            setups: &setups,
            runs: &runs,
            outcomes: &outcomes,
            store: store.as_ref(),
            factors: &factors,
            score,
            split_kind,
            labels: observations.labels(),
            places: &places,
        };
        let table = self.table(observations.shape(), &done, notes)?;
        if let Some(store) = &store {
            table
                .write(store.folder())
                .map_err(|e| unwritten(store, "the table is not there", &e))?;
        }
        Ok(table)
    }

    /// Checks every setup against the data, and notes what is worth a warning. Gives how many runs of each may go
    /// on at once.
    fn check_setups(
        &self,
        observations: &Observations,
        device: &Device,
        (setups, losses): (&[Setup], &[TriedLoss]),
        first: &SplitData,
        notes: &mut Vec<String>,
    ) -> Result<Vec<usize>> {
        let mut at_most = Vec::new();
        for setup in setups {
            let settings = self.settings(setup, losses, device)?;
            let context = format!("model {:?} with {}", setup.name, setup.ranks_text());
            let warnings =
                settings.warnings(observations.shape()).map_err(|e| about(&context, e))?;
            for warning in warnings {
                let note = format!("model {:?}: {warning}", setup.name);
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
            let most = settings.concurrent_fits(&first.data, usize::MAX);
            at_most.push(most.map_err(|e| about(&context, e))?);
        }
        Ok(at_most)
    }

    /// The score of the table, and whether the data are counts.
    fn chosen_score(
        &self,
        data: &Prepared,
        notes: &mut Vec<String>,
    ) -> Result<(Option<Score>, bool)> {
        if data.count(Role::HeldOut) == 0 {
            if let ScoreChoice::Some(score) = self.score {
                return Err(Error::Setting(format!(
                    "the {score} score is that of held-out entries, and none are held out: hold out a fraction of the entries"
                )));
            }
            return Ok((None, false));
        }
        let outside = data.first_outside(|x, _| x >= 0.0 && x.is_finite() && x.fract() == 0.0);
        let counts = outside.is_none();
        let score = match (self.score, outside) {
            (ScoreChoice::Some(Score::Poisson), Some(outside)) => {
                return Err(Error::Setting(format!(
                    "the poisson score is for counts, and the entry at index {} is {}: choose rmse, mae or none",
                    describe_index(data.labels(), &outside.index),
                    outside.value
                )));
            }
            (ScoreChoice::Some(score), _) => Some(score),
            (ScoreChoice::None, _) => None,
            (ScoreChoice::Auto, None) => Some(Score::Poisson),
            (ScoreChoice::Auto, Some(outside)) => {
                notes.push(format!(
                    "the data are not counts (the entry at index {} is {}), so that the score is rmse and not the poisson log-likelihood",
                    describe_index(data.labels(), &outside.index),
                    outside.value
                ));
                Some(Score::Rmse)
            }
        };
        Ok((score, counts))
    }

    /// A fit that tells the observers of its sweeps.
    fn observed(
        &self,
        settings: NNEinFact,
        standing: &Standing,
        began: Instant,
        expected: Option<f64>,
        rest: Option<f64>,
    ) -> NNEinFact {
        let observers = Arc::clone(&self.observers);
        let mut standing = standing.clone();
        settings.cancel(&self.cancel).observe(move |sweep: &Sweep| {
            // A run that takes longer than expected may end at any sweep.
            let own = expected.map(|all| (all - began.elapsed().as_secs_f64()).max(0.0));
            standing.left = own.zip(rest).map(|(own, rest)| own + rest);
            notify(&observers, &Event::Sweep(&standing, sweep));
            Flow::Continue
        })
    }
}

/// The runs of a study that is being carried out.
pub(super) struct Running<'a> {
    pub study: &'a Study,
    pub observations: &'a Observations,
    pub device: &'a Device,
    pub losses: &'a [TriedLoss],
    pub setups: &'a [Setup],
    pub runs: &'a [Planned],
    pub store: Option<&'a Store>,
    /// Whether the data are counts.
    pub counts: bool,
    pub times: Times,
    pub outcomes: Vec<RunOutcome>,
    /// The factors of finished runs, if there is no store.
    pub factors: Vec<Option<Vec<ArrayD<f64>>>>,
    /// The data of the current split.
    pub ready: Option<SplitData>,
    /// How many runs of each setup may go on at once.
    pub at_most: Vec<usize>,
    /// How many runs go on at once.
    pub concurrent: usize,
}

impl Running<'_> {
    /// Takes the runs that are finished from the store.
    fn load(&mut self) {
        let Some(store) = self.store else { return };
        for (n, run) in self.runs.iter().enumerate() {
            if let Some(result) = store.load(&run.settings, &self.setups[run.setup].shapes) {
                self.times.done(n, result.wall_seconds);
                self.outcomes[n] = RunOutcome::Finished(result);
            }
        }
    }

    /// The seconds that the pending runs from the `from`-th on will take.
    pub fn left(&self, from: usize) -> Option<f64> {
        let pending = |&m: &usize| self.outcomes[m] == RunOutcome::Pending;
        let all = self.times.left((from..self.runs.len()).filter(pending))?;
        Some(all / self.concurrent as f64)
    }

    /// Where the study stands when a run begins.
    pub fn standing(&self, n: usize) -> Standing {
        let run = &self.runs[n];
        Standing {
            run: n + 1,
            runs: self.runs.len(),
            label: self.study.label(&self.setups[run.setup], self.losses, run),
            left: self.left(n),
        }
    }

    /// Makes all runs that are pending, until the study is cancelled.
    fn all(&mut self) -> Result<()> {
        let observers = &self.study.observers;
        let mut next = 0;
        while next < self.runs.len() {
            let n = next;
            let together = self.together(n);
            if !together.is_empty() {
                next = together.end;
                if !self.at_once(together)? {
                    break;
                }
                continue;
            }
            next += 1;
            let mut standing = self.standing(n);
            if self.outcomes[n] != RunOutcome::Pending {
                let outcome = &self.outcomes[n];
                notify(observers, &Event::Ends { standing: &standing, outcome, kept: true });
                continue;
            }
            if self.study.cancel.is_cancelled() {
                break;
            }
            notify(observers, &Event::Begins(&standing));
            let Some(outcome) = self.one(n, &standing)? else { break };
            if let RunOutcome::Finished(result) = &outcome {
                self.times.done(n, result.wall_seconds);
            }
            standing.left = self.left(n + 1);
            notify(observers, &Event::Ends { standing: &standing, outcome: &outcome, kept: false });
            self.outcomes[n] = outcome;
        }
        Ok(())
    }

    /// Makes a run; `None` where it was cancelled.
    fn one(&mut self, n: usize, standing: &Standing) -> Result<Option<RunOutcome>> {
        let study = self.study;
        let run = &self.runs[n];
        let setup = &self.setups[run.setup];
        let began = Instant::now();
        self.make_ready(run.split)?;
        let Some(known) = self.ready.take() else {
            return Err(Error::Internal("the data of a split were made and are gone".into()));
        };
        let mut settings = study.settings(setup, self.losses, self.device)?;
        if let Some(before) = run.before {
            match self.factors_of(before) {
                Ok(factors) => settings = settings.start(study.onward(factors)),
                Err(why) => {
                    self.ready = Some(known);
                    return Ok(Some(RunOutcome::Failed(why)));
                }
            }
        }
        let (expected, left) = (self.times.expected(n), self.left(n + 1));
        let settings = study.observed(settings, standing, began, expected, left);
        let outcome = match settings.seed(run.settings.seed).fit_prepared(&known.data) {
            Ok(fit) if fit.history().stopped_by == StoppedBy::Interrupted => return Ok(None),
            Ok(fit) => {
                let scores = self.scores(n, &fit, &known.data);
                let seconds = || known.seconds + began.elapsed().as_secs_f64();
                self.keep(n, fit, scores, seconds)?
            }
            Err(_) if study.cancel.is_cancelled() => return Ok(None),
            Err(error) => RunOutcome::Failed(error.to_string()),
        };
        self.ready = Some(SplitData { seconds: 0.0, ..known });
        Ok(Some(outcome))
    }

    /// The factors of a run that is over; else why there are none.
    fn factors_of(&self, n: usize) -> Result<Vec<ArrayD<f64>>, String> {
        let run = &self.runs[n];
        if self.outcomes[n].result().is_none() {
            return Err("the fit before it on the path has no result".into());
        }
        let found = match (self.store, &self.factors[n]) {
            (Some(store), _) => store.factors(&run.settings, &self.setups[run.setup].shapes),
            (None, Some(factors)) => Ok(factors.clone()),
            (None, None) => Err(Error::Internal("the factors of a run were not kept".into())),
        };
        found.map_err(|error| format!("the fit before it on the path: {error}"))
    }

    /// Makes the data of a split the current ones.
    pub fn make_ready(&mut self, split: usize) -> Result<()> {
        // The data of the split before are not held while the next are made.
        self.ready = self.ready.take().filter(|ready| ready.split == split);
        if self.ready.is_none() {
            // The clock of the run that needs them is on.
            let made = self.study.split(self.observations, split)?;
            self.ready = Some(SplitData { seconds: 0.0, ..made });
        }
        Ok(())
    }

    /// The scores of the fit of a run.
    fn scores(&self, n: usize, fit: &Fit, data: &Prepared) -> Result<Scores> {
        let loss = &self.losses[self.setups[self.runs[n].setup].loss].loss;
        Scorer::new(data, loss, self.counts).scores(fit.shapes(), fit.factors())
    }

    /// Keeps a fit with its scores, the run having taken so many seconds when its factors are written.
    pub fn keep(
        &mut self,
        n: usize,
        fit: Fit,
        scores: Result<Scores>,
        seconds: impl Fn() -> f64,
    ) -> Result<RunOutcome> {
        let run = &self.runs[n];
        let tried = &self.losses[self.setups[run.setup].loss];
        let scores = match scores {
            Ok(scores) => scores,
            Err(error) => return Ok(RunOutcome::Failed(error.to_string())),
        };
        let mut result = RunResult::new(fit.history(), scores);
        result.components = Some(components(fit.shapes(), fit.factors()));
        result.zeros = Some(zeros(fit.factors()));
        if let Some(store) = self.store {
            let saved = Saved::new(&fit)
                .with_loss(tried.record.clone())
                .with_data(self.study.record_of(run));
            let kept = store.save_factors(&run.settings, &saved);
            kept.map_err(|e| unwritten(store, "the run is lost", &e))?;
        }
        result.wall_seconds = seconds();
        match self.store {
            Some(store) => store
                .save(&run.settings, &result, fit.history())
                .map_err(|e| unwritten(store, "the run is lost", &e))?,
            None => self.factors[n] = Some(fit.into_factors()),
        }
        Ok(RunOutcome::Finished(result))
    }
}

/// What a split by strata is, by the first.
fn strata_note(strata: &Strata) -> String {
    let of = |role: Role, what: &str| {
        let drawn = strata.of(role).filter(|drawn| drawn.stored > 0)?;
        let each = strata.zeros_each(role).unwrap_or(0.0);
        Some(format!(
            "{what} {} stored entries and {} zeros that stand for {each:.3e} each",
            drawn.stored, drawn.zeros
        ))
    };
    let drawn = [of(Role::HeldOut, "holds out"), of(Role::Validation, "sets aside for validation")];
    let drawn: Vec<String> = drawn.into_iter().flatten().collect();
    match drawn.is_empty() {
        true => "entries are withheld by strata, and the first split withholds none".into(),
        false => format!("entries are withheld by strata: the first split {}", drawn.join(" and ")),
    }
}

/// That something of a study could not be written is nobody's bad input.
fn unwritten(store: &Store, what: &str, error: &Error) -> Error {
    let folder = store.folder().display();
    Error::Unwritten(format!(
        "{error}: {what}; the runs that were finished are in {folder}, and the same command goes on from them"
    ))
}

/// What is known of the time of every run before any is done.
fn loads(setups: &[Setup], runs: &[Planned]) -> Vec<Load> {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let kinds: Vec<usize> = setups
        .iter()
        .map(|setup| {
            let next = kinds.len();
            *kinds.entry(setup.kind()).or_insert(next)
        })
        .collect();
    runs.iter()
        .map(|run| Load {
            setup: run.setup,
            kind: kinds[run.setup],
            parameters: setups[run.setup].shapes.parameters() as f64,
        })
        .collect()
}
