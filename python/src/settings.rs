//! The settings of a fit, as Python gives them.

use std::path::PathBuf;
use std::time::Duration;

use nneinfact::fit::{Balance, Checkpoint, DataAs, Every, Start};
use nneinfact::loss::Penalty;
use nneinfact::{Algorithm, NNEinFact, Precision};
use numpy::PyReadonlyArrayDyn;
use pyo3::prelude::*;

use crate::arrays::owned;
use crate::errors::{raised, value_error};

/// Where a fit starts: how, the shape of a gamma start, and arrays.
type StartArguments<'py> = (String, Option<f64>, Vec<PyReadonlyArrayDyn<'py, f64>>);
/// A file, how often by sweeps and by seconds, and whether to go on from it.
type CheckpointArguments = (PathBuf, Option<usize>, Option<f64>, bool);

/// All settings but data, loss and device; Python checks their types.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Settings<'py> {
    model: String,
    ranks: Vec<(char, usize)>,
    algorithm: String,
    precision: String,
    learning_rate: Option<f64>,
    start: StartArguments<'py>,
    /// Of one factor, or without a name of all that have none.
    penalties: Vec<(Option<String>, f64, f64)>,
    fixed: Vec<(String, PyReadonlyArrayDyn<'py, f64>)>,
    bounds: Vec<(String, f64, f64)>,
    balance: Option<String>,
    seed: u64,
    starts: usize,
    max_iter: usize,
    tolerance: f64,
    early_stopping: bool,
    prediction_floor: Option<f64>,
    factor_floor: f64,
    inner_cycles: usize,
    eval_every: usize,
    memory_limit: Option<u64>,
    data_as: String,
    checkpoint: Option<CheckpointArguments>,
}

/// The algorithm of this name.
pub fn algorithm(name: &str) -> PyResult<Algorithm> {
    let all = [Algorithm::Accelerated, Algorithm::Grouped, Algorithm::Block, Algorithm::Adam];
    all.into_iter().find(|a| a.name() == name).ok_or_else(|| {
        let names = all.map(Algorithm::name).join(", ");
        value_error(format!("there is no algorithm {name:?}: the names are {names}"))
    })
}

/// The precision of this name.
pub fn precision(name: &str) -> PyResult<Precision> {
    let all = [Precision::F32, Precision::F64];
    all.into_iter()
        .find(|p| p.name() == name)
        .ok_or_else(|| value_error(format!("there is no precision {name:?}: f32 and f64 are")))
}

/// The format of this name.
pub fn data_as(name: &str) -> PyResult<DataAs> {
    let all = [DataAs::Auto, DataAs::Dense, DataAs::Sparse];
    all.into_iter().find(|d| d.to_string() == name).ok_or_else(|| {
        value_error(format!("data cannot be read as {name:?}: auto, dense and sparse are possible"))
    })
}

/// A penalty, checked.
pub fn penalty(weight: f64, power: f64) -> PyResult<Penalty> {
    let penalty = Penalty::new(weight, power);
    penalty.problem().map_or(Ok(penalty), |problem| Err(value_error(problem)))
}

fn start(arguments: &StartArguments<'_>) -> PyResult<Start> {
    let (how, shape, arrays) = arguments;
    Ok(match how.as_str() {
        "random" => Start::Random,
        "gamma" => Start::Gamma { shape: shape.unwrap_or(1.0) },
        "svd" => Start::Svd,
        "factors" => Start::Factors(arrays.iter().map(owned).collect()),
        "grown" => Start::Grown(arrays.iter().map(owned).collect()),
        other => {
            return Err(value_error(format!(
                "there is no start {other:?}: the names are random, gamma and svd"
            )));
        }
    })
}

impl Settings<'_> {
    /// The fit to be, without its device and loss.
    pub fn read(&self) -> PyResult<NNEinFact> {
        let mut fit = NNEinFact::new(&self.model)
            .map_err(raised)?
            .ranks(self.ranks.iter().copied())
            .algorithm(algorithm(&self.algorithm)?)
            .precision(precision(&self.precision)?)
            .start(start(&self.start)?)
            .seed(self.seed)
            .starts(self.starts)
            .max_iter(self.max_iter)
            .tolerance(self.tolerance)
            .early_stopping(self.early_stopping)
            .factor_floor(self.factor_floor)
            .inner_cycles(self.inner_cycles)
            .eval_every(self.eval_every)
            .data_as(data_as(&self.data_as)?);
        if let Some(rate) = self.learning_rate {
            fit = fit.learning_rate(rate);
        }
        if let Some(floor) = self.prediction_floor {
            fit = fit.prediction_floor(floor);
        }
        if let Some(bytes) = self.memory_limit {
            fit = fit.memory_limit(bytes);
        }
        for (factor, weight, power) in &self.penalties {
            let penalty = penalty(*weight, *power)?;
            fit = match factor {
                Some(factor) => fit.penalty(factor, penalty),
                None => fit.penalty_on_all(penalty),
            };
        }
        for (factor, values) in &self.fixed {
            fit = fit.fix(factor, owned(values));
        }
        for (factor, lower, upper) in &self.bounds {
            fit = fit.bounds(factor, *lower, *upper);
        }
        fit = match self.balance.as_deref() {
            None => fit,
            Some("never") => fit.balance(Balance::Never),
            Some("start") => fit.balance(Balance::AtStart),
            Some("sweep") => fit.balance(Balance::EverySweep),
            Some(other) => {
                return Err(value_error(format!(
                    "factors cannot be balanced {other:?}: never, start and sweep are possible"
                )));
            }
        };
        self.with_checkpoint(fit)
    }

    fn with_checkpoint(&self, fit: NNEinFact) -> PyResult<NNEinFact> {
        let Some((path, sweeps, seconds, resume)) = &self.checkpoint else { return Ok(fit) };
        let seconds = seconds.map(Duration::try_from_secs_f64).transpose().map_err(|e| {
            value_error(format!("a checkpoint cannot be written every so many seconds: {e}"))
        })?;
        let every = [sweeps.map(Every::sweeps), seconds.map(Every::time)];
        let every = every.into_iter().flatten().reduce(Every::or).unwrap_or_default();
        let there = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0);
        if there && !resume {
            return Err(value_error(format!(
                "the checkpoint {} is there already: resume=True goes on from it; to start anew, \
                 remove it or choose another name",
                path.display()
            )));
        }
        let mut fit = fit.checkpoint(path, every);
        if there {
            fit = fit.resume(Checkpoint::read(path).map_err(raised)?);
        }
        Ok(fit)
    }
}
