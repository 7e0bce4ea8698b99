//! Running a fit: from settings and data to a result.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::ArrayD;

use crate::adam::{self, Adam};
use crate::barrier::{self, Barrier};
use crate::basis;
use crate::checkpoint::Checkpoint;
use crate::constraints::vanished;
use crate::factored;
use crate::kkt;
use crate::monitor::Monitor;
use crate::observe::{Cancel, Hooks};
use crate::prepare::{self, DataFacts, Given, Opened};
use crate::result::Fit;
use crate::settings::{Algorithm, Settings};
use crate::shared::{self, Held, together};
use crate::sweeps::sweeps;
use nneinfact_core::data::Observations;
use nneinfact_core::engine::{Engine, PassTime, Point, Precision};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::{History, Unfinished};
use nneinfact_core::plan::Plan;

/// Runs a fit on its device.
pub(crate) fn fit<'a>(
    mut settings: Settings,
    hooks: Hooks,
    resume: Option<Box<Checkpoint>>,
    data: impl Into<Given<'a>>,
) -> Result<Fit> {
    if settings.algorithm == Algorithm::Barrier {
        settings.precision = Precision::F64;
    }
    let data: Given<'_> = data.into();
    if !settings.bases.is_empty() {
        let rewritten = basis::rewrite(&settings, data.shape())?;
        let structure = settings.structure();
        let inner = rewritten.settings.clone();
        return match fit(inner, hooks, resume, data) {
            Ok(found) => Ok(rewritten.fit(found)?.with_structure(structure)),
            Err(error) => Err(rewritten.error(error)),
        };
    }
    let shared = hooks.reducer.is_some() || settings.is_cut();
    let held = match data {
        Given::Observations(observations) if shared => Held { observations, part: None },
        Given::Prepared(_) if shared => return Err(uncut("a fit to data that several fits share")),
        Given::Observations(_) | Given::Prepared(_) => {
            let device = settings.choose_device()?;
            return device.clone().install(move || {
                let started = Instant::now();
                let opened = prepare::open(&mut settings, &hooks.cancel, resume, data, &device)?;
                carry_out(&settings, hooks, opened, started)
            });
        }
    };
    fit_held(settings, hooks, resume, held)
}

/// Runs a fit with other processes, or by itself, to data of which this process has a part.
pub(crate) fn fit_part(
    mut settings: Settings,
    mut hooks: Hooks,
    resume: Option<Box<Checkpoint>>,
    held: Held<'_>,
) -> Result<Fit> {
    if settings.algorithm == Algorithm::Barrier {
        settings.precision = Precision::F64;
    }
    if settings.bases.is_empty() {
        return fit_held(settings, hooks, resume, held);
    }
    let found = held.observations.shape();
    let shape = held.part.map_or_else(|| found.to_vec(), |part| part.shape(found));
    let mut reducer = hooks.reducer.take().unwrap_or_else(shared::alone);
    let rewritten = together(reducer.as_mut(), basis::rewrite(&settings, &shape))?;
    hooks.reducer = Some(reducer);
    match fit_held(rewritten.settings.clone(), hooks, resume, held) {
        Ok(found) => Ok(rewritten.fit(found)?.with_structure(settings.structure())),
        Err(error) => Err(rewritten.error(error)),
    }
}

/// Runs a fit without bases to data that are cut into slabs.
fn fit_held(
    mut settings: Settings,
    mut hooks: Hooks,
    resume: Option<Box<Checkpoint>>,
    held: Held<'_>,
) -> Result<Fit> {
    let mut reducer = hooks.reducer.take().unwrap_or_else(shared::alone);
    let device = together(reducer.as_mut(), settings.choose_device())?;
    device.clone().install(move || {
        let started = Instant::now();
        let opened = shared::open(&mut settings, &hooks.cancel, resume, held, &device, reducer)?;
        carry_out(&settings, hooks, opened, started)
    })
}

/// That something is not done with data that are cut into slabs.
pub(crate) fn uncut(what: &str) -> Error {
    Error::Unsupported(format!(
        "{what} is made by one process, without slabs: leave shared_by, slabs and split_along out"
    ))
}

/// How long passes are run before they are timed.
const WARM: Duration = Duration::from_millis(300);

/// How long the passes of a fit take, with its plan.
pub(crate) fn profile(
    mut settings: Settings,
    resume: Option<Box<Checkpoint>>,
    observations: &Observations,
    repeats: usize,
) -> Result<(Arc<Plan>, Vec<PassTime>, Option<usize>)> {
    let device = settings.choose_device()?;
    device.clone().install(move || {
        let opened =
            prepare::open(&mut settings, &Cancel::new(), resume, observations.into(), &device)?;
        let Opened { mut engine, plan, groups, .. } = opened;
        // The first pass compiles, and makes what the others read; and a device that was idle takes a
        // while to come to its full clock.
        let began = Instant::now();
        loop {
            engine.pass(0)?;
            engine.sums()?;
            if repeats < 2 || began.elapsed() > WARM {
                break;
            }
        }
        let times: Result<Vec<PassTime>> =
            (0..groups.len()).map(|group| engine.time(group, repeats)).collect();
        Ok((plan, times?, engine.dispatches()))
    })
}

/// The gradient of what a fit lowers, at its start: see [`NNEinFact::gradient`](crate::NNEinFact::gradient).
pub(crate) fn gradient(
    settings: Settings,
    cancel: &Cancel,
    observations: &Observations,
) -> Result<Vec<ArrayD<f64>>> {
    let mut settings = Settings { algorithm: Algorithm::Adam, ..settings };
    let device = settings.choose_device()?;
    device.clone().install(move || {
        let opened = prepare::open(&mut settings, cancel, None, observations.into(), &device)?;
        let Opened { mut engine, plan, facts, constraints, .. } = opened;
        let adam = Adam::new(&settings, &plan, constraints, &facts.portions, engine.as_ref())?;
        engine.pass(0)?;
        // A failed device says so here.
        engine.sums()?;
        match adam.gradient(engine.as_mut(), cancel)? {
            Some(gradient) => adam.arrays(&gradient),
            None => Err(Error::Cancelled("the computation of the gradient".into())),
        }
    })
}

/// Carries out a fit that is ready to sweep; its clock was started at some time before.
pub(crate) fn carry_out(
    settings: &Settings,
    mut hooks: Hooks,
    opened: Opened,
    started: Instant,
) -> Result<Fit> {
    let Opened {
        mut engine,
        plan,
        groups,
        facts,
        balance,
        penalized,
        constraints,
        seed,
        mut warnings,
        mut writer,
        resumed,
        slabs,
    } = opened;
    let mut history = History { seed, ..settings.empty_history() };
    let DataFacts { mut portions, mean, labels, data, squares } = facts;
    if let Some(data) = &data {
        portions.add_offsets(&settings.loss, data, 1.0);
    }
    let adam = match settings.algorithm {
        Algorithm::Adam => {
            Some(Adam::new(settings, &plan, constraints.clone(), &portions, engine.as_ref())?)
        }
        Algorithm::Block | Algorithm::Grouped | Algorithm::Accelerated | Algorithm::Barrier => None,
    };
    let barrier = match (settings.algorithm, &data) {
        (Algorithm::Barrier, Some(data)) => Some(Barrier::new(settings, data, engine.as_mut())?),
        (Algorithm::Barrier, None) => {
            Some(Barrier::of_sums(settings, &plan, squares, engine.as_mut())?)
        }
        _ => None,
    };
    let best_kept = settings.early_stopping || adam.is_some();
    let split_kind = portions.split_kind();
    let mut monitor = Monitor::new(settings, &mut hooks, portions, started, balance, penalized);
    let resumed = resumed.map(|checkpoint| {
        let (position, seconds, before) = checkpoint.into_parts(&history);
        history = before;
        monitor.resume(&history, seconds);
        position
    });
    history.slabs = slabs;
    history.heldout_as = split_kind;
    let done = match (adam, barrier) {
        (Some(adam), _) => adam::sweeps(engine.as_mut(), adam, &mut monitor, &mut history),
        (None, Some(barrier)) => {
            barrier::sweeps(engine.as_mut(), barrier, &mut monitor, &mut history)
        }
        (None, None) => {
            sweeps(engine.as_mut(), groups.len(), &mut monitor, &mut history, &mut writer, resumed)
        }
    };
    if let Err(cause) = done {
        let early_stopping = settings.early_stopping;
        return Err(failed(cause, engine.as_mut(), plan, history, early_stopping, best_kept));
    }
    let factors = engine.factors()?;
    if settings.kkt_residual {
        // A fit is not lost where its device fails after it.
        let found =
            kkt::residual(engine.as_mut(), &groups, &constraints, &settings.loss, &hooks.cancel);
        history.kkt_residual = found.unwrap_or(None);
    }
    // Where the mean takes more memory than there is, there is no warning, but there is a fit.
    if penalized && let Ok(predicted) = factored::mean(plan.shapes(), &factors) {
        warnings.extend(vanished(&factors, predicted, mean));
    }
    warnings.extend(writer.and_then(|writer| writer.warning()));
    let fit = Fit::new(plan, factors, history)
        .with_warnings(warnings)
        .with_structure(settings.structure());
    fit.with_labels(labels)
}

/// An error in the middle of a fit, with the factors of the last completed sweep where there was
/// one and the device still gives them.
fn failed(
    cause: Error,
    engine: &mut dyn Engine,
    plan: Arc<Plan>,
    mut history: History,
    early_stopping: bool,
    best_kept: bool,
) -> Error {
    let Some(newest) = history.loss.len().checked_sub(1) else { return cause };
    // With early stopping, and by Adam, the snapshot is the best point, not the newest.
    let losses = match early_stopping {
        true => history.validation_loss.clone(),
        false => history.objective(),
    };
    let best = |i: &usize, j: &usize| losses[*i].total_cmp(&losses[*j]);
    let kept = (0..losses.len()).filter(|_| best_kept).min_by(best);
    let returned = kept.unwrap_or(newest);
    let rescued = engine.copy(Point::Snapshot, Point::Current).and_then(|()| engine.factors());
    match rescued {
        Ok(factors) => {
            history.iterations = history.sweeps[newest];
            history.returned = returned;
            let last = Box::new(Unfinished { plan, factors, history });
            Error::Broken { cause: Box::new(cause), last }
        }
        Err(_) => cause,
    }
}
