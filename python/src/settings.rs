//! The settings of a fit, as Python gives them.

use std::path::PathBuf;
use std::time::Duration;

use nneinfact::fit::{Balance, Checkpoint, Every, Format, Smooth, Splines, Start};
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

/// A factor, the weight, along which letters, whether around a circle, the edges of a graph.
type SmoothArguments = (String, f64, Option<String>, bool, Option<Vec<(usize, usize, f64)>>);

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
    /// Names of factors that are the same.
    ties: Vec<Vec<String>>,
    smooth: Vec<SmoothArguments>,
    /// A factor, and over which of its letters rows add up to 1.
    simplex: Vec<(String, Option<String>)>,
    /// A mode, how many splines, and whether around a circle.
    bases: Vec<(char, usize, bool)>,
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
    kkt_residual: bool,
    memory_limit: Option<u64>,
    data_as: String,
    checkpoint: Option<CheckpointArguments>,
    slabs: Option<usize>,
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
pub fn data_as(name: &str) -> PyResult<Format> {
    let all = [Format::Auto, Format::Dense, Format::Sparse];
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

fn balance(name: &str) -> PyResult<Balance> {
    Ok(match name {
        "never" => Balance::Never,
        "start" => Balance::AtStart,
        "sweep" => Balance::EverySweep,
        other => {
            return Err(value_error(format!(
                "factors cannot be balanced {other:?}: never, start and sweep are possible"
            )));
        }
    })
}

/// A change of a fit to be.
type Change = Box<dyn FnOnce(NNEinFact) -> NNEinFact + Send>;

impl Settings<'_> {
    /// The fit to be, without its device and loss.
    pub fn read(&self) -> PyResult<NNEinFact> {
        let mut fit = NNEinFact::new(&self.model).map_err(raised)?;
        for change in self.changes()? {
            fit = change(fit);
        }
        Ok(fit)
    }

    /// All settings but the model, checked as far as they can be by themselves.
    pub fn changes(&self) -> PyResult<Vec<Change>> {
        let mut changes: Vec<Change> = Vec::new();
        let mut add = |change: Change| changes.push(change);
        let (ranks, algorithm) = (self.ranks.clone(), algorithm(&self.algorithm)?);
        add(Box::new(move |fit| fit.ranks(ranks).algorithm(algorithm)));
        let (precision, data_as) = (precision(&self.precision)?, data_as(&self.data_as)?);
        add(Box::new(move |fit| fit.precision(precision).data_as(data_as)));
        let (start, seed, starts) = (start(&self.start)?, self.seed, self.starts);
        add(Box::new(move |fit| fit.start(start).seed(seed).starts(starts)));
        let (max_iter, tolerance, stops) = (self.max_iter, self.tolerance, self.early_stopping);
        add(Box::new(move |fit| fit.max_iter(max_iter).tolerance(tolerance).early_stopping(stops)));
        let (floor, cycles, every) = (self.factor_floor, self.inner_cycles, self.eval_every);
        add(Box::new(move |fit| fit.factor_floor(floor).inner_cycles(cycles).eval_every(every)));
        let kkt_residual = self.kkt_residual;
        add(Box::new(move |fit| fit.kkt_residual(kkt_residual)));
        if let Some(slabs) = self.slabs {
            add(Box::new(move |fit| fit.slabs(slabs)));
        }
        if let Some(rate) = self.learning_rate {
            add(Box::new(move |fit| fit.learning_rate(rate)));
        }
        if let Some(floor) = self.prediction_floor {
            add(Box::new(move |fit| fit.prediction_floor(floor)));
        }
        if let Some(bytes) = self.memory_limit {
            add(Box::new(move |fit| fit.memory_limit(bytes)));
        }
        for (factor, weight, power) in &self.penalties {
            let (factor, penalty) = (factor.clone(), penalty(*weight, *power)?);
            add(Box::new(move |fit| match factor {
                Some(factor) => fit.penalty(&factor, penalty),
                None => fit.penalty_on_all(penalty),
            }));
        }
        for (factor, values) in &self.fixed {
            let (factor, values) = (factor.clone(), owned(values));
            add(Box::new(move |fit| fit.fix(&factor, values)));
        }
        for (factor, lower, upper) in self.bounds.iter().cloned() {
            add(Box::new(move |fit| fit.bounds(&factor, lower, upper)));
        }
        for tie in self.ties.clone() {
            add(Box::new(move |fit| fit.tie(tie.iter().map(String::as_str))));
        }
        for (factor, weight, along, cyclic, edges) in self.smooth.clone() {
            let smooth = match (edges, cyclic) {
                (Some(edges), _) => Smooth::graph(weight, edges),
                (None, true) => Smooth::circle(weight),
                (None, false) => Smooth::line(weight),
            };
            let smooth = along.iter().fold(smooth, |smooth, letters| smooth.along(letters));
            add(Box::new(move |fit| fit.smooth(&factor, smooth)));
        }
        for (factor, over) in self.simplex.clone() {
            add(Box::new(move |fit| fit.simplex(&factor, over.as_deref())));
        }
        for &(mode, count, cyclic) in &self.bases {
            let splines = Splines::new(count);
            let splines = if cyclic { splines.cyclic() } else { splines };
            add(Box::new(move |fit| fit.basis(mode, splines)));
        }
        if let Some(name) = &self.balance {
            let balance = balance(name)?;
            add(Box::new(move |fit| fit.balance(balance)));
        }
        if let Some(change) = self.checkpoint()? {
            add(change);
        }
        Ok(changes)
    }

    fn checkpoint(&self) -> PyResult<Option<Change>> {
        let Some((path, sweeps, seconds, resume)) = self.checkpoint.clone() else {
            return Ok(None);
        };
        let seconds = seconds.map(Duration::try_from_secs_f64).transpose().map_err(|e| {
            value_error(format!("a checkpoint cannot be written every so many seconds: {e}"))
        })?;
        let every = [sweeps.map(Every::sweeps), seconds.map(Every::time)];
        let every = every.into_iter().flatten().reduce(Every::or).unwrap_or_default();
        let there = std::fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() > 0);
        if there && !resume {
            return Err(value_error(format!(
                "the checkpoint {} is there already: resume=True goes on from it; to start anew, \
                 remove it or choose another name",
                path.display()
            )));
        }
        let before = if there { Some(Checkpoint::read(&path).map_err(raised)?) } else { None };
        Ok(Some(Box::new(move |fit| {
            let fit = fit.checkpoint(path, every);
            match before {
                Some(before) => fit.resume(before),
                None => fit,
            }
        })))
    }
}
