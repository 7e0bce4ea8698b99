//! The loop of a fit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::adam::{self, Adam};
use super::builder::{Algorithm, NNEinFact, empty_history};
use super::checkpoint::{Keeper, Point, Stage};
use super::open::{Given, Opened, open};
use super::watch::{Portions, Watch};
use super::{Fit, rules};
use crate::Device;
use nneinfact_core::data::Observations;
use nneinfact_core::engine::{Engine, Point, PassTime};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::{History, StoppedBy, Unfinished};
use nneinfact_core::plan::Plan;

pub(super) fn fit<'a>(settings: NNEinFact, data: impl Into<Given<'a>>) -> Result<Fit> {
    let (mut settings, data) = (settings, data.into());
    let device = match settings.device.take() {
        Some(device) => device,
        None => Device::auto()?,
    };
    settings.device = Some(device.clone());
    device.clone().install(move || run(settings, data, &device))
}

/// How long passes are run before they are timed.
const WARM: Duration = Duration::from_millis(300);

/// How long the passes of a fit take, with its plan.
pub(super) fn profile(
    mut settings: NNEinFact,
    observations: &Observations,
    repeats: usize,
) -> Result<(Arc<Plan>, Vec<PassTime>)> {
    let device = match settings.device.take() {
        Some(device) => device,
        None => Device::auto()?,
    };
    settings.device = Some(device.clone());
    device.clone().install(move || {
        let Opened { mut engine, plan, .. } = open(&mut settings, observations, &device)?;
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
            (0..plan.groups().len()).map(|group| engine.time(group, repeats)).collect();
        Ok((plan, times?))
    })
}

fn run(mut settings: NNEinFact, given: Given<'_>, device: &Device) -> Result<Fit> {
    let started = Instant::now();
    let Opened {
        mut engine,
        plan,
        data,
        balance,
        penalized,
        rules,
        seed,
        mut warnings,
        mut keeper,
        resumed,
    } = open(&mut settings, given, device)?;
    let early_stopping = settings.early_stopping;
    let mut history = History { seed, ..empty_history(&settings, Some(device)) };
    let portions = Portions::of(&data);
    let adam = match settings.algorithm {
        Algorithm::Adam => Some(Adam::new(&settings, &plan, rules, &portions, engine.as_ref())?),
        _ => None,
    };
    let best_kept = early_stopping || adam.is_some();
    let mut watch = Watch::new(&mut settings, portions, started, balance, penalized);
    let resumed = resumed.map(|checkpoint| checkpoint.go_on(&mut watch, &mut history));
    let groups = plan.groups().len();
    let done = match adam {
        Some(adam) => adam::sweeps(engine.as_mut(), adam, &mut watch, &mut history),
        None => sweeps(engine.as_mut(), groups, &mut watch, &mut history, &mut keeper, resumed),
    };
    if let Err(cause) = done {
        return Err(failed(cause, engine.as_mut(), plan, history, early_stopping, best_kept));
    }
    let factors = engine.factors()?;
    // Where the mean takes more memory than there is, there is no warning, but there is a fit.
    if penalized && let Ok(predicted) = rules::mean(plan.shapes(), &factors) {
        warnings.extend(rules::vanished(&factors, predicted, data.mean()));
    }
    warnings.extend(keeper.and_then(|keeper| keeper.warning()));
    Ok(Fit::new(plan, factors, history).with_warnings(warnings))
}

/// Sweeps from the start that the engine has, as often as it takes to tell starts apart; returns the
/// objective then.
pub(super) fn try_out(
    settings: &NNEinFact,
    engine: &mut dyn Engine,
    groups: usize,
    portions: Portions,
    balance: bool,
) -> Result<f64> {
    let mut trial = NNEinFact {
        max_iter: NNEinFact::TRIAL_SWEEPS.min(settings.max_iter),
        tolerance: 0.0,
        eval_every: NNEinFact::TRIAL_SWEEPS,
        cancel: settings.cancel.clone(),
        ..settings.alike(settings.model.clone())
    };
    let mut history = empty_history(&trial, settings.device.as_ref());
    let mut watch = Watch::new(&mut trial, portions, Instant::now(), balance, true);
    match sweeps(engine, groups, &mut watch, &mut history, &mut None, None) {
        Ok(()) => Ok(history.objective().last().copied().unwrap_or(f64::INFINITY)),
        // Another start may go well.
        Err(Error::Numeric(_)) => Ok(f64::INFINITY),
        Err(error) => Err(error),
    }
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
    // With early stopping, and by Adam, it is the best point that is remembered, not the newest.
    let losses = match early_stopping {
        true => history.validation_loss.clone(),
        false => history.objective(),
    };
    let best = |i: &usize, j: &usize| losses[*i].total_cmp(&losses[*j]);
    let kept = (0..losses.len()).filter(|_| best_kept).min_by(best);
    let returned = kept.unwrap_or(newest);
    let rescued =
        engine.copy(Point::Snapshot, Point::Current).and_then(|()| engine.factors());
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

/// Sweeps until something says stop. The engine is left at the factors to return; after an error
/// at those of the last completed sweep, as far as the device still answers.
///
/// In an accelerated fit (docs/method.md) every sweep but the last ends with an extrapolation, whose
/// loss comes with the first pass of the next sweep for free; if it is above that in the middle of
/// the sweep before, the point is given up for the plain result, at the cost of a pass.
///
/// The keeper saves it before the first look, between looks and sweeps, and after the last sweep. A
/// fit that is resumed is at such a place, its engine and history being as they were there.
pub(super) fn sweeps(
    engine: &mut dyn Engine,
    groups: usize,
    watch: &mut Watch<'_>,
    history: &mut History,
    keeper: &mut Option<Keeper>,
    resumed: Option<Point>,
) -> Result<()> {
    let mut momentum = watch.accelerated.then(Momentum::new);
    // Whether the history has the losses at the factors already.
    let mut looked = false;
    // The objective in the middle of the last sweep, where that was before the fit was resumed.
    let mut middle_before = None;
    // With early stopping the factors that are remembered are not those of the last look, so that an
    // interrupted sweep could not be taken back in the file: it is completed.
    let patient = keeper.is_some() && watch.early_stopping;
    match resumed {
        None => {
            if momentum.is_some() {
                engine.copy(Point::Current, Point::Anchor)?;
            }
            save(keeper, engine, watch, history, &momentum, Stage::Swept)?;
        }
        Some(point) => {
            if let Some(momentum) = &mut momentum {
                (momentum.t, momentum.before) = (point.t, point.before);
            }
            looked = point.stage == Stage::Looked;
            if looked && let Some(reason) = watch.verdict(history) {
                history.stopped_by = reason;
                return finish(engine, watch, history);
            }
            if !looked && history.iterations > 0 {
                middle_before = Some(point.middle);
                // It was the last sweep that had been asked for.
                if history.iterations < watch.max_iter {
                    extrapolate(engine, &mut momentum)?;
                }
            }
        }
    }
    loop {
        let last = history.iterations >= watch.max_iter;
        let known = std::mem::take(&mut looked);
        // Nobody looks: the device goes on without the host.
        let unseen = !known
            && momentum.is_none()
            && !last
            && !history.iterations.is_multiple_of(watch.every);
        if known || unseen {
            engine.pass(0)?;
        } else {
            // The first pass of a sweep gives the loss at the end of the one before for free.
            let look = |engine: &mut dyn Engine| {
                match last {
                    true => engine.evaluate()?,
                    false => engine.pass(0)?,
                }
                engine.sums()
            };
            let [mut sums, middle] = look(engine)?;
            let middle = middle_before.take().unwrap_or(middle.objective());
            if let Some(momentum) = &mut momentum
                && momentum.rejects(sums.objective(), (groups > 1).then_some(middle))
            {
                engine.copy(Point::Anchor, Point::Current)?;
                [sums, _] = look(engine)?;
            }
            if let Some(momentum) = &mut momentum {
                momentum.before = sums.objective();
            }
            let stop = watch.record(sums, engine, history)?;
            // From the end of the last sweep a longer fit goes on as if it had been asked for at once.
            let due = |keeper: &Keeper| match stop {
                Some(_) => !keeper.has_swept(history.iterations),
                None => keeper.is_due(history.iterations),
            };
            if keeper.as_ref().is_some_and(due) {
                save(keeper, engine, watch, history, &momentum, Stage::Looked)?;
            }
            if let Some(reason) = stop {
                history.stopped_by = reason;
                break;
            }
        }
        // A sweep is all or nothing: a failure or an interruption in its middle goes back.
        if !unseen && !watch.early_stopping {
            engine.copy(Point::Current, Point::Snapshot)?;
        }
        if !sweep(engine, groups, watch, patient)? {
            interrupted(engine, history)?;
            save(keeper, engine, watch, history, &momentum, Stage::Looked)?;
            break;
        }
        history.iterations += 1;
        if history.iterations >= watch.max_iter {
            save(keeper, engine, watch, history, &momentum, Stage::Swept)?;
        } else {
            extrapolate(engine, &mut momentum)?;
        }
    }
    finish(engine, watch, history)
}

/// Moves on from the plain result of a sweep. The last point of a fit is a plain result.
fn extrapolate(engine: &mut dyn Engine, momentum: &mut Option<Momentum>) -> Result<()> {
    if let Some(momentum) = momentum {
        let [momentum, relaxation] = momentum.next();
        engine.extrapolate(momentum, relaxation)?;
    }
    Ok(())
}

/// Saves a fit that is to be saved.
fn save(
    keeper: &mut Option<Keeper>,
    engine: &mut dyn Engine,
    watch: &mut Watch<'_>,
    history: &History,
    momentum: &Option<Momentum>,
    stage: Stage,
) -> Result<()> {
    let Some(keeper) = keeper else { return Ok(()) };
    // The guard of the next extrapolation asks for it.
    let middle = match (stage, momentum) {
        (Stage::Swept, Some(_)) if history.iterations > 0 => engine.sums()?[1].objective(),
        _ => 0.0,
    };
    let (t, before) = momentum.as_ref().map_or((1.0, 0.0), |m| (m.t, m.before));
    keeper.save(engine, watch, history, Point { stage, t, before, middle })?;
    watch.failed_checkpoints = keeper.failures;
    Ok(())
}

/// Leaves the engine at the factors to return.
fn finish(engine: &mut dyn Engine, watch: &Watch<'_>, history: &mut History) -> Result<()> {
    history.returned = history.loss.len().saturating_sub(1);
    if watch.early_stopping && watch.best.is_finite() {
        engine.copy(Point::Snapshot, Point::Current)?;
        history.returned = history
            .validation_loss
            .iter()
            .position(|&v| v == watch.best)
            .unwrap_or(history.returned);
    }
    Ok(())
}

/// Goes back to where somebody looked last.
fn interrupted(engine: &mut dyn Engine, history: &mut History) -> Result<()> {
    engine.copy(Point::Snapshot, Point::Current)?;
    history.stopped_by = StoppedBy::Interrupted;
    history.iterations = history.sweeps.last().copied().unwrap_or(0);
    Ok(())
}

/// One sweep whose first pass is done. `false` where it was cancelled, which one that is `patient` does
/// not look at.
fn sweep(engine: &mut dyn Engine, groups: usize, watch: &Watch<'_>, patient: bool) -> Result<bool> {
    engine.update(0)?;
    for group in 1..groups {
        if !patient && watch.cancel.is_cancelled() {
            return Ok(false);
        }
        engine.pass(group)?;
        engine.update(group)?;
    }
    if watch.balance {
        engine.balance()?;
    }
    Ok(true)
}

/// The weights of the optimized gradient method (Kim & Fessler 2016), in log space: Nesterov's
/// momentum, and a share of the sweep's own step once more. With the guard that lets an
/// extrapolated point stand only if its loss is not above that in the middle of the sweep before.
/// Losses on this path fall monotonically: the loss at the plain result is at most that in the
/// middle of its sweep.
struct Momentum {
    t: f64,
    /// Whether the point is an extrapolated one.
    extrapolated: bool,
    /// The loss at the start of the last sweep.
    before: f64,
}

impl Momentum {
    /// Weights of the momentum stay below 1.
    const MOST: f64 = 0.99;
    /// What is left of t after a rejection: a new start from 1 forgets too much
    /// (docs/acceleration.md).
    const LEFT: f64 = 0.5;

    fn new() -> Momentum {
        Momentum { t: 1.0, extrapolated: false, before: f64::INFINITY }
    }

    /// The weights of the next extrapolation: of the momentum, and of the sweep's own step.
    fn next(&mut self) -> [f64; 2] {
        let t = (1.0 + (1.0 + 4.0 * self.t * self.t).sqrt()) / 2.0;
        let momentum = ((self.t - 1.0) / t).min(Self::MOST);
        let relaxation = self.t / t;
        self.t = t;
        self.extrapolated = true;
        [momentum, relaxation]
    }

    /// Whether a point with this loss is given up for the plain result; the momentum is lowered
    /// then. `middle` is the loss in the middle of the sweep before, if it had one.
    fn rejects(&mut self, loss: f64, middle: Option<f64>) -> bool {
        let bound = middle.unwrap_or(self.before);
        // An extrapolation that overflowed has no loss.
        let rejected = std::mem::take(&mut self.extrapolated) && (loss > bound || loss.is_nan());
        if rejected {
            self.t = (Self::LEFT * self.t).max(1.0);
        }
        rejected
    }
}
