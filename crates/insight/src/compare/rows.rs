//! From runs to the rows of a table.

use std::collections::BTreeMap;

use ndarray::ArrayD;

use super::path::StudyPath;
use super::run_result::{RunOutcome, RunResult};
use super::score::Score;
use super::setups::{Planned, Setup};
use super::stability::{Kin, Stability, better_half, stability_of};
use super::store::Store;
use super::study::Study;
use super::study_model::{TriedLoss, labels};
use super::study_table::{Best, Mean, Row, RunRecord, StudyTable};
use nneinfact_core::data::{Labels, SplitKind};
use nneinfact_core::error::{Error, Result};

/// All that came out of a study.
pub(super) struct Done<'a> {
    pub losses: &'a [TriedLoss],
    pub setups: &'a [Setup],
    pub runs: &'a [Planned],
    pub outcomes: &'a [RunOutcome],
    /// Where the factors are, if they are in files.
    pub store: Option<&'a Store>,
    /// The factors of the runs, if they are not.
    pub factors: &'a [Option<Vec<ArrayD<f64>>>],
    pub score: Option<Score>,
    /// How entries were withheld at random.
    pub split_kind: Option<SplitKind>,
    /// What the modes of the data are called.
    pub labels: &'a [Labels],
    /// Of each setup the one before it on the path, and where it stands on it.
    pub places: &'a [(Option<usize>, Option<f64>)],
}

impl Done<'_> {
    fn factors(&self, run: usize) -> Result<Vec<ArrayD<f64>>> {
        let planned = &self.runs[run];
        match (self.store, &self.factors[run]) {
            (Some(store), _) => {
                store.factors(&planned.settings, &self.setups[planned.setup].shapes)
            }
            (None, Some(factors)) => Ok(factors.clone()),
            (None, None) => Err(Error::Setting("the factors of a run were not kept".into())),
        }
    }
}

impl Study {
    pub(super) fn table(
        &self,
        shape: &[usize],
        done: &Done<'_>,
        mut notes: Vec<String>,
    ) -> Result<StudyTable> {
        let labels = labels(done.losses);
        let several = self.all_algorithms().len() > 1;
        let mut own: Vec<Vec<usize>> = vec![Vec::new(); done.setups.len()];
        for (m, run) in done.runs.iter().enumerate() {
            own[run.setup].push(m);
        }
        let mut rows = Vec::new();
        for ((setup, own), (_, place)) in done.setups.iter().zip(&own).zip(done.places) {
            let mut all: Vec<RunRecord> = own.iter().map(|&m| self.one_run(done, m)).collect();
            choose(&mut all, self.splits);
            let best = best(&all);
            let stability = match best {
                Some(best) => stability(setup, done, own, &all, best, &mut notes)?,
                None => None,
            };
            let best = best.map(|n| Best {
                split: all[n].split,
                start: all[n].start,
                file: done.store.map(|_| Store::factors_name(&done.runs[own[n]].settings)),
            });
            let mut row = row(setup, all, done.score);
            row.loss.clone_from(&labels[setup.loss]);
            row.loss_terms.clone_from(&done.losses[setup.loss].terms);
            row.precision = self.precision.name().into();
            row.several = several;
            row.place = *place;
            (row.best, row.stability) = (best, stability);
            rows.push((setup.loss, row));
        }
        // Losses in the order of the study, and inside each what predicts best first.
        rows.sort_by(|(l, a), (m, b)| l.cmp(m).then(a.criterion().total_cmp(&b.criterion())));
        let mut rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
        flag_best_of_model(&mut rows);
        let mut table = StudyTable::new(
            shape.to_vec(),
            [self.heldout, self.validation],
            self.splits,
            self.starts,
            done.score,
            rows,
            notes,
        );
        table.heldout_as = done.split_kind;
        table.folder = self.folder.clone();
        table.path = self.path.map(StudyPath::name);
        Ok(table)
    }

    fn one_run(&self, done: &Done<'_>, m: usize) -> RunRecord {
        let Planned { split, start, settings, .. } = &done.runs[m];
        RunRecord {
            split: split + 1,
            start: start + 1,
            split_seed: settings.split_seed,
            seed: settings.seed,
            chosen: false,
            file: done.store.map(|_| Store::run_file(settings)),
            outcome: done.outcomes[m].clone(),
        }
    }
}

/// Chooses of every split the best start.
fn choose(all: &mut [RunRecord], splits: usize) {
    for split in 1..=splits {
        let best = all
            .iter_mut()
            .filter(|run| run.split == split)
            .filter_map(|run| Some((run.outcome.result()?.criterion(), run)))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((_, run)) = best {
            run.chosen = true;
        }
    }
}

/// The best of the runs that were chosen.
fn best(all: &[RunRecord]) -> Option<usize> {
    let chosen = all.iter().enumerate().filter(|(_, run)| run.chosen);
    chosen
        .filter_map(|(n, run)| Some((n, run.outcome.result()?.criterion())))
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(n, _)| n)
}

/// Marks the best row of every model under every loss; rows are sorted.
fn flag_best_of_model(rows: &mut [Row]) {
    let mut seen: Vec<(String, String)> = Vec::new();
    for row in rows {
        let key = (row.loss.clone(), row.name.clone());
        if row.training_loss.is_some() && !seen.contains(&key) {
            seen.push(key);
            row.best_of_model = true;
        }
    }
}

/// How far the finished runs of a setup agree with its best one.
fn stability(
    setup: &Setup,
    done: &Done<'_>,
    own: &[usize],
    all: &[RunRecord],
    best: usize,
    notes: &mut Vec<String>,
) -> Result<Option<Stability>> {
    let finished = |n: &usize| all[*n].outcome.result().is_some();
    let others: Vec<usize> = (0..all.len()).filter(finished).filter(|&n| n != best).collect();
    if others.is_empty() {
        return Ok(None);
    }
    // Losses of different splits are means over different entries: of every split its better half.
    let mut good = vec![false; all.len()];
    let last = all.iter().map(|run| run.split).max().unwrap_or(0);
    for split in 1..=last {
        let of: Vec<(usize, f64)> = (0..all.len())
            .filter(|&n| all[n].split == split)
            .filter_map(|n| Some((n, all[n].outcome.result()?.criterion())))
            .collect();
        let losses: Vec<f64> = of.iter().map(|(_, loss)| *loss).collect();
        for ((n, _), better) in of.iter().zip(better_half(&losses)) {
            good[*n] = better;
        }
    }
    let kin = |&n: &usize| Kin {
        better: good[n],
        start: all[n].split == all[best].split,
        split: all[n].split != all[best].split && all[n].chosen,
    };
    let kin: Vec<Kin> = others.iter().map(kin).collect();
    let fits: Result<Vec<Vec<ArrayD<f64>>>> =
        std::iter::once(best).chain(others).map(|n| done.factors(own[n])).collect();
    let mut note = |text: String| {
        if !notes.contains(&text) {
            notes.push(text);
        }
    };
    let about = format!("model {:?} with {}: ", setup.name, setup.ranks_text());
    let fits = match fits {
        Ok(fits) => fits,
        // The study is done all the same; the next time the run is done again.
        Err(error @ (Error::File { .. } | Error::Format { .. })) => {
            note(format!("{about}its components are not compared: {error}"));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    match stability_of(&setup.shapes, &fits, &kin, done.labels) {
        Ok(stability) => {
            stability.notes.iter().for_each(|text| note(format!("{about}{text}")));
            Ok(Some(stability).filter(|s| !s.indices.is_empty() || s.notes.is_empty()))
        }
        Err(Error::Unsupported(why)) => {
            note(why);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// How many components of each latent index are kept, in the mean; none where that is not known of all.
fn kept(results: &[&RunResult]) -> BTreeMap<char, f64> {
    let mut kept: BTreeMap<char, f64> = BTreeMap::new();
    for result in results {
        let Some(components) = &result.components else { return BTreeMap::new() };
        for (&letter, &count) in components {
            *kept.entry(letter).or_default() += count as f64 / results.len() as f64;
        }
    }
    kept
}

fn row(setup: &Setup, runs: Vec<RunRecord>, score: Option<Score>) -> Row {
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
        if let RunOutcome::Failed(message) = &run.outcome
            && !failures.contains(message)
        {
            failures.push(message.clone());
        }
    }
    Row {
        name: setup.name.clone(),
        model: setup.shapes.model().to_string(),
        ranks: setup.ranks.iter().copied().collect(),
        matched: setup.wanted,
        best_of_model: false,
        loss: String::new(),
        loss_terms: String::new(),
        penalty: setup.penalties.to_string(),
        algorithm: setup.algorithm_text(),
        precision: String::new(),
        parameters: setup.shapes.parameters(),
        heldout_loss: mean(&|r| r.heldout_loss),
        validation_loss: mean(&|r| r.validation_loss),
        training_loss: mean(&|r| Some(r.training_loss)),
        score: score.and_then(|score| mean(&|r| r.scores.get(score))),
        penalty_value: mean(&|r| Some(r.penalty)),
        components: kept(&chosen),
        zeros: mean(&|r| r.zeros).map(|m| m.mean),
        kkt_residual: mean(&|r| r.kkt_residual).map(|m| m.median),
        place: None,
        sweeps: mean(&|r| Some(r.sweeps as f64)).map(|m| m.mean),
        seconds: mean(&|r| Some(r.seconds)).map(|m| m.mean),
        stopped_by,
        failures,
        best: None,
        stability: None,
        runs,
        several: false,
    }
}
