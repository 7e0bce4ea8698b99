//! Many fits to the same data.

use std::path::PathBuf;

use nneinfact::compare::{Event, Penalties, RunOutcome, Score, Study, StudyModel};
use nneinfact::fit::Cancel;
use pyo3::prelude::*;

use crate::device::Device;
use crate::errors::{raised, value_error};
use crate::losses::Loss;
use crate::observations::{Observations, split_kind};
use crate::settings::{algorithm, data_as, penalty, precision};
use crate::wait::{Caller, wait};

/// A name, a model, ranks to try of each letter, and letters whose ranks stay.
type ModelArguments = (String, String, Vec<(char, Vec<usize>)>, Vec<char>);
/// Penalties that are tried together: of factors, or without a name of all that have none.
type PenaltyArguments = Vec<(Option<String>, f64, f64)>;

/// All settings of a study but its data, losses and device; Python checks their types.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct StudySettings {
    models: Vec<ModelArguments>,
    penalties: Vec<PenaltyArguments>,
    algorithms: Vec<String>,
    precision: String,
    max_iter: usize,
    tolerance: f64,
    early_stopping: bool,
    memory_limit: Option<u64>,
    data_as: String,
    heldout: f64,
    validation: f64,
    heldout_as: String,
    zeros_per_nonzero: Option<f64>,
    splits: usize,
    starts: usize,
    split_seed: u64,
    seed: u64,
    match_parameters: Vec<u64>,
    /// "auto", "none" or the name of a score.
    score: String,
    folder: PathBuf,
}

impl StudySettings {
    fn read(&self) -> PyResult<Study> {
        let mut study = Study::new()
            .precision(precision(&self.precision)?)
            .max_iter(self.max_iter)
            .tolerance(self.tolerance)
            .early_stopping(self.early_stopping)
            .data_as(data_as(&self.data_as)?)
            .held_out(self.heldout)
            .validation(self.validation)
            .split_as(split_kind(&self.heldout_as)?)
            .splits(self.splits)
            .starts(self.starts)
            .split_seed(self.split_seed)
            .seed(self.seed)
            .folder(&self.folder);
        for (name, model, ranks, fixed) in &self.models {
            let mut model = StudyModel::new(name, model).map_err(raised)?;
            for (letter, ranks) in ranks {
                model = model.rank(*letter, ranks.iter().copied());
            }
            for letter in fixed {
                model = model.fixed(*letter);
            }
            study = study.model(model);
        }
        for together in &self.penalties {
            study = study.penalties(penalties(together)?);
        }
        for name in &self.algorithms {
            study = study.algorithm(algorithm(name)?);
        }
        if let Some(ratio) = self.zeros_per_nonzero {
            study = study.zeros_per_nonzero(ratio);
        }
        if let Some(bytes) = self.memory_limit {
            study = study.memory_limit(bytes);
        }
        for &parameters in &self.match_parameters {
            study = study.match_parameters(parameters);
        }
        Ok(match self.score.as_str() {
            "auto" => study,
            "none" => study.score(None),
            name => {
                let score = Score::ALL.into_iter().find(|score| score.name() == name);
                let score = score.ok_or_else(|| {
                    value_error(format!(
                        "there is no score {name:?}: auto, none, poisson, rmse and mae are possible"
                    ))
                })?;
                study.score(Some(score))
            }
        })
    }
}

fn penalties(together: &PenaltyArguments) -> PyResult<Penalties> {
    let mut all = Penalties::none();
    for (factor, weight, power) in together {
        if factor.is_none() {
            all = Penalties::on_all(penalty(*weight, *power)?);
        }
    }
    for (factor, weight, power) in together {
        if let Some(factor) = factor {
            all = all.and_on(factor, penalty(*weight, *power)?);
        }
    }
    Ok(all)
}

/// A table as JSON, CSV and text.
type Tables = (String, String, String);

/// Carries out a study whose runs are kept in a folder. The callback is told, in the caller's thread, of
/// every run that is over: its number, how many there are, what it is of, and the seconds left.
#[pyfunction]
pub fn compare(
    py: Python<'_>,
    settings: StudySettings,
    data: &Observations,
    losses: Vec<PyRef<'_, Loss>>,
    device: &Device,
    callback: Option<Py<PyAny>>,
) -> PyResult<(Option<Tables>, Option<PyErr>)> {
    let cancel = Cancel::new();
    let mut study = settings.read()?.device(device.inner.clone()).cancel(&cancel);
    for loss in &losses {
        study = study.loss_from(loss.inner.clone(), loss.record.clone());
    }
    drop(losses);
    let data = data.inner.clone();
    let stop = cancel.clone();
    let outcome = wait(
        py,
        || cancel.cancel(),
        move |caller| {
            let study = observed(study, caller, callback, stop);
            let table = study.run(&data).map_err(raised)?;
            let json = serde_json::to_string(&table).map_err(|e| value_error(e.to_string()))?;
            Ok((json, table.to_csv(), table.to_string()))
        },
    )?;
    match (outcome.result, outcome.raised) {
        (Ok(tables), raised) => Ok((Some(tables), raised)),
        (Err(_), Some(raised)) => Ok((None, Some(raised))),
        (Err(error), None) => Err(error),
    }
}

fn observed(
    study: Study,
    caller: Caller<Tables>,
    callback: Option<Py<PyAny>>,
    stop: Cancel,
) -> Study {
    let Some(callback) = callback else { return study };
    let callback = std::sync::Arc::new(callback);
    study.observe(move |event: &Event<'_>| {
        let Event::Ends { standing, outcome, .. } = event else { return };
        if **outcome == RunOutcome::Pending {
            return;
        }
        let fields = (standing.run, standing.runs, standing.label.clone(), standing.left);
        let callback = std::sync::Arc::clone(&callback);
        let answer = caller.ask(move |py| callback.call1(py, fields)?.is_truthy(py));
        if answer != Some(false) {
            stop.cancel();
        }
    })
}
