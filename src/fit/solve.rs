//! The loop of a fit.

use std::sync::Arc;
use std::time::Instant;

use super::builder::{Algorithm, NNEinFact, Start};
use super::form::{self, Chosen};
use super::history::{History, StoppedBy};
use super::observe::{Cancel, Flow, Observer, Sweep};
use super::{Fit, start};
use crate::data::{Observations, Prepared, Role};
use crate::engine::{
    Device, Engine, Job, Numbers, PassTime, Precision, Slot, Sums, available_memory,
};
use crate::error::{Error, Result};
use crate::loss::{Domain, Loss, Tape};
use crate::model::Shapes;
use crate::plan::{DataInfo, Plan, Sampling, Settings};

/// Sweeps in a row whose progress is below the tolerance before a fit stops.
const PATIENCE: usize = 3;
/// Rises of the validation loss in a row before early stopping.
const RISES: usize = 5;

/// Plans a fit.
pub(super) fn plan(
    settings: &NNEinFact,
    shapes: &Shapes,
    data: DataInfo,
    sampling: Option<Sampling>,
) -> Result<Plan> {
    let entries = shapes.volume(shapes.model().observed());
    let precision = settings.precision;
    let default = || {
        let share = match sampling {
            Some(sampling) => 32.0 * (sampling.listed + sampling.exceptions) as f64,
            None => entries * data.value_bytes as f64 / 4.0,
        };
        let own = shapes.parameters().saturating_mul(precision.bytes() as u64 + 16);
        // A quarter of data that are larger than memory may be more than all there is.
        let most = match available_memory() {
            Some(available) if data.streamed => available / 4,
            _ => u64::MAX,
        };
        (share as u64).min(most).max(64 << 20).saturating_add(own)
    };
    let memory = settings.memory_limit.unwrap_or_else(default);
    plan_within(settings, shapes, data, sampling, memory)
}

/// Plans a fit whose intermediates take at most so many bytes.
pub(super) fn plan_within(
    settings: &NNEinFact,
    shapes: &Shapes,
    data: DataInfo,
    sampling: Option<Sampling>,
    memory: u64,
) -> Result<Plan> {
    settings.check()?;
    let loss = &settings.loss;
    // Θ, its value before an update, λ, and contractions of N and D onto it.
    let factors = shapes.parameters().saturating_mul(8 * 6);
    if let Some(available) = available_memory()
        && factors > available
    {
        return Err(Error::Memory {
            what: format!("the factors of {} ({} parameters)", shapes.model(), shapes.parameters()),
            needed: factors,
            available,
            help: "lower the ranks".into(),
        });
    }
    let plain = !data.masked && data.weight_bytes == 0 && sampling.is_none();
    let planner = Settings {
        grouping: settings.grouping(),
        element_bytes: settings.precision.bytes(),
        entry_cost: entry_cost(loss),
        closed_denominator: plain && loss.denominator_constant().is_some(),
        sampling,
        // A shader of a GPU sees the products of a pass as one buffer.
        memory: memory
            .min(settings.device.as_ref().and_then(Device::largest_buffer).unwrap_or(u64::MAX)),
    };
    Plan::new(shapes, &data, &planner)
}

/// Elementwise operations per entry, roughly.
fn entry_cost(loss: &Loss) -> f64 {
    let tape = Tape::compile(&[loss.a(), loss.b(), loss.loss()]);
    4.0 + tape.len() as f64 + 20.0 * tape.transcendentals() as f64
}

pub(super) fn fit(settings: NNEinFact, observations: &Observations) -> Result<Fit> {
    let mut settings = settings;
    let device = match settings.device.take() {
        Some(device) => device,
        None => Device::auto()?,
    };
    settings.device = Some(device.clone());
    device.clone().install(move || run(settings, observations, &device))
}

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
        // The first pass compiles, and makes what the others read.
        engine.pass(0)?;
        engine.sums()?;
        let times: Result<Vec<PassTime>> =
            (0..plan.groups().len()).map(|group| engine.time(group, repeats)).collect();
        Ok((plan, times?))
    })
}

/// A fit that is ready to sweep.
struct Opened {
    engine: Box<dyn Engine>,
    plan: Arc<Plan>,
    data: Arc<Prepared>,
}

/// Prepares and plans a fit, and puts it on its device.
fn open(settings: &mut NNEinFact, observations: &Observations, device: &Device) -> Result<Opened> {
    settings.check()?;
    let shape = observations.shape();
    let shapes = Shapes::new(&settings.model, shape, &settings.ranks)?;
    let loss = settings.loss.clone();
    for side in loss.sides() {
        if side.shape() != shape {
            return Err(Error::Shape {
                what: format!("the side tensor of the {} loss", loss.name()),
                found: format!("{:?}", side.shape()),
                expected: format!("{shape:?}, the shape of the data"),
            });
        }
    }
    let data = observations.prepare()?;
    check_domain(&loss, &data)?;
    if settings.early_stopping && data.cells(Role::Validation) == 0 {
        return Err(Error::Setting(
            "early stopping needs a validation split: set aside a fraction of the entries for it"
                .into(),
        ));
    }
    let Chosen { plan, data, sparse } = form::choose(settings, &shapes, &loss, data)?;
    let (plan, data, sparse) = (Arc::new(plan), Arc::new(data), sparse.map(Arc::new));
    let start = match std::mem::take(&mut settings.start) {
        Start::Random => start::random(&shapes, &loss, &data, settings.seed)?,
        Start::Factors(factors) => start::given(&shapes, &factors)?,
    };
    let numbers = Numbers {
        prediction_floor: settings
            .prediction_floor
            .unwrap_or_else(|| prediction_floor(&loss, &data, settings.precision)),
        factor_floor: settings.factor_floor,
        inner_cycles: settings.inner_cycles,
    };
    // The first pass of a sweep tells the losses at its start. The guard of an extrapolation needs
    // those of the last pass too.
    let mut losses = vec![None; plan.groups().len()];
    if let Some(last) = losses.last_mut()
        && settings.algorithm == Algorithm::Accelerated
    {
        *last = Some(Slot::Middle);
    }
    losses[0] = Some(Slot::Start);
    // Accelerated fits are free in how they get there. Each cell has to count, and once.
    let exact = settings.algorithm == Algorithm::Accelerated
        && loss.is_half_squared_distance()
        && data.weights().is_none()
        && data.cells(Role::Train) as f64 == shapes.volume(shapes.model().observed());
    let job = Job {
        plan: Arc::clone(&plan),
        losses,
        exact,
        unit: unit(&loss, &data),
        data: Arc::clone(&data),
        sparse,
        loss,
        numbers,
        start,
    };
    let engine = device.open(job, settings.precision)?;
    Ok(Opened { engine, plan, data })
}

fn run(mut settings: NNEinFact, observations: &Observations, device: &Device) -> Result<Fit> {
    let started = Instant::now();
    let Opened { mut engine, plan, data } = open(&mut settings, observations, device)?;
    let mut history = History {
        loss: Vec::new(),
        validation_loss: Vec::new(),
        heldout_loss: Vec::new(),
        seconds: Vec::new(),
        sweeps: Vec::new(),
        stopped_by: StoppedBy::MaxIter,
        algorithm: settings.algorithm.name().into(),
        device: device.to_string(),
        precision: settings.precision.name().into(),
        iterations: 0,
        returned: 0,
    };
    let mut watch = Watch {
        data: &data,
        started,
        max_iter: settings.max_iter,
        tolerance: settings.tolerance,
        // The best point can only be told from all of them.
        every: if settings.early_stopping { 1 } else { settings.look_every },
        early_stopping: settings.early_stopping,
        observers: &mut settings.observers,
        cancel: &settings.cancel,
        slow: 0,
        rises: 0,
        best: f64::INFINITY,
    };
    let momentum = (settings.algorithm == Algorithm::Accelerated).then(Momentum::new);
    let swept = sweeps(engine.as_mut(), plan.groups().len(), momentum, &mut watch, &mut history);
    if let Err(cause) = swept {
        return Err(failed(cause, engine.as_mut(), plan, history, settings.early_stopping));
    }
    let factors = engine.factors()?;
    Ok(Fit::new(plan, factors, history))
}

/// An error in the middle of a fit, with the factors of the last completed sweep where there was
/// one and the device still gives them.
fn failed(
    cause: Error,
    engine: &mut dyn Engine,
    plan: Arc<Plan>,
    mut history: History,
    early_stopping: bool,
) -> Error {
    let Some(newest) = history.loss.len().checked_sub(1) else { return cause };
    // With early stopping it is the best point that is remembered, not the newest.
    let best =
        |i: &usize, j: &usize| history.validation_loss[*i].total_cmp(&history.validation_loss[*j]);
    let kept = (0..history.validation_loss.len()).filter(|_| early_stopping).min_by(best);
    let returned = kept.unwrap_or(newest);
    let rescued = engine.recall().and_then(|()| engine.factors());
    match rescued {
        Ok(factors) => {
            history.iterations = history.sweeps[newest];
            history.returned = returned;
            let last = Box::new(Fit::new(plan, factors, history));
            Error::Broken { cause: Box::new(cause), last }
        }
        Err(_) => cause,
    }
}

/// Sweeps until something says stop. The engine is left at the factors to return; after an error
/// at those of the last completed sweep, as far as the device still answers.
///
/// With a `momentum` (docs/method.md) every sweep but the last ends with an extrapolation, whose
/// loss comes with the first pass of the next sweep for free; if it is above that in the middle of
/// the sweep before, the point is given up for the plain result, at the cost of a pass.
fn sweeps(
    engine: &mut dyn Engine,
    groups: usize,
    mut momentum: Option<Momentum>,
    watch: &mut Watch<'_>,
    history: &mut History,
) -> Result<()> {
    if momentum.is_some() {
        engine.mark()?;
    }
    loop {
        // The first pass of a sweep gives the loss at the end of the one before for free.
        let last = history.iterations >= watch.max_iter;
        if momentum.is_none() && !last && !history.iterations.is_multiple_of(watch.every) {
            // Nobody looks: the device goes on without the host.
            engine.pass(0)?;
            if !sweep(engine, groups, watch.cancel)? {
                interrupted(engine, history)?;
                break;
            }
            history.iterations += 1;
            continue;
        }
        let look = |engine: &mut dyn Engine| {
            match last {
                true => engine.evaluate()?,
                false => engine.pass(0)?,
            }
            engine.sums()
        };
        let [mut sums, middle] = look(engine)?;
        if let Some(momentum) = &mut momentum
            && momentum.rejects(sums.train, (groups > 1).then_some(middle.train))
        {
            engine.retreat()?;
            [sums, _] = look(engine)?;
        }
        if let Some(momentum) = &mut momentum {
            momentum.before = sums.train;
        }
        if let Some(reason) = watch.record(sums, engine, history)? {
            history.stopped_by = reason;
            break;
        }
        // A sweep is all or nothing: a failure or an interruption in its middle goes back.
        if !watch.early_stopping {
            engine.remember()?;
        }
        if !sweep(engine, groups, watch.cancel)? {
            interrupted(engine, history)?;
            break;
        }
        history.iterations += 1;
        // The last point is a plain result.
        if let Some(momentum) = &mut momentum
            && history.iterations < watch.max_iter
        {
            let [momentum, relaxation] = momentum.next();
            engine.extrapolate(momentum, relaxation)?;
        }
    }
    history.returned = history.loss.len().saturating_sub(1);
    if watch.early_stopping && watch.best.is_finite() {
        engine.recall()?;
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
    engine.recall()?;
    history.stopped_by = StoppedBy::Interrupted;
    history.iterations = history.sweeps.last().copied().unwrap_or(0);
    Ok(())
}

/// One sweep whose first pass is done. `false` where it was cancelled.
fn sweep(engine: &mut dyn Engine, groups: usize, cancel: &Cancel) -> Result<bool> {
    engine.update(0)?;
    for group in 1..groups {
        if cancel.is_cancelled() {
            return Ok(false);
        }
        engine.pass(group)?;
        engine.update(group)?;
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

/// Keeps the history and decides when to stop.
struct Watch<'a> {
    data: &'a Prepared,
    started: Instant,
    max_iter: usize,
    tolerance: f64,
    every: usize,
    early_stopping: bool,
    observers: &'a mut Vec<Box<dyn Observer>>,
    cancel: &'a Cancel,
    slow: usize,
    rises: usize,
    best: f64,
}

impl Watch<'_> {
    /// Adds an element to the history; a reason where the fit is to stop at it.
    fn record(
        &mut self,
        sums: Sums,
        engine: &mut dyn Engine,
        history: &mut History,
    ) -> Result<Option<StoppedBy>> {
        if !sums.train.is_finite() {
            return Err(Error::Numeric(format!(
                "the loss is not finite ({}) after {} sweeps: the model's values and the data lie too far apart; raise the prediction floor or use double precision",
                sums.train, history.iterations
            )));
        }
        let mean = |sum: f64, role: Role| {
            let portion = self.data.portion(role);
            (portion.cells > 0).then(|| sum / portion.weight)
        };
        let loss = mean(sums.train, Role::Train).unwrap_or(f64::NAN);
        let validation = mean(sums.validation, Role::Validation);
        let held_out = mean(sums.held_out, Role::HeldOut);
        let seconds = self.started.elapsed().as_secs_f64();
        let before = history.loss.last().copied();
        let validation_before = history.validation_loss.last().copied();
        history.loss.push(loss);
        history.validation_loss.extend(validation);
        history.heldout_loss.extend(held_out);
        history.seconds.push(seconds);
        history.sweeps.push(history.iterations);

        if self.early_stopping
            && let Some(validation) = validation
        {
            if validation < self.best {
                self.best = validation;
                engine.remember()?;
            }
            match validation_before {
                Some(before) if validation > before => self.rises += 1,
                _ => self.rises = 0,
            }
        }
        if let (Some(before), Some(&first)) = (before, history.loss.first()) {
            let progress = before - loss;
            let slow = progress <= self.tolerance * loss.abs().max(first - loss);
            self.slow = if slow { self.slow + 1 } else { 0 };
        }
        let seen = Sweep {
            iteration: history.iterations,
            max_iter: self.max_iter,
            loss,
            validation_loss: validation,
            heldout_loss: held_out,
            seconds,
        };
        // Every observer sees every sweep, whatever another says.
        let mut stop = false;
        for observer in self.observers.iter_mut() {
            stop |= observer.sweep(&seen) == Flow::Stop;
        }
        Ok(if self.cancel.is_cancelled() {
            Some(StoppedBy::Interrupted)
        } else if stop {
            Some(StoppedBy::Observer)
        } else if self.rises >= RISES {
            Some(StoppedBy::Validation)
        } else if self.tolerance > 0.0 && self.slow >= PATIENCE {
            Some(StoppedBy::Tolerance)
        } else if history.iterations >= self.max_iter {
            Some(StoppedBy::MaxIter)
        } else {
            None
        })
    }
}

fn check_domain(loss: &Loss, data: &Prepared) -> Result<()> {
    let domain = *loss.domain();
    let side = loss.sides().first();
    // Whole numbers as they are stored are finite and not negative.
    let storage = data.coordinates().map_or(data.values().storage(), |list| list.values());
    let whole = storage.kind().is_whole();
    if domain == Domain::NonNegative && whole {
        return Ok(());
    }
    let outside = match (domain, side) {
        // A number of trials per entry, by its index in C order.
        (Domain::UpTo(crate::loss::Trials::Side(_)), Some(side)) => {
            let trials: Vec<f64> = side.iter().copied().collect();
            data.first_outside(|x, i| domain.contains(x, &trials[i..=i]))
        }
        _ => data.first_outside(|x, _| domain.contains(x, &[])),
    };
    match outside {
        None => Ok(()),
        Some(outside) => Err(Error::Domain {
            count: outside.count,
            index: outside.index,
            value: outside.value,
            loss: loss.name().into(),
            domain: domain.describe(),
            help: if outside.value.is_nan() {
                "if NaN means missing, say so (nan_missing, --nan-missing), or mask these entries"
                    .into()
            } else {
                domain.help().into()
            },
        }),
    }
}

/// The default floor of ŷ: see [`NNEinFact::prediction_floor`].
fn prediction_floor(loss: &Loss, data: &Prepared, precision: Precision) -> f64 {
    let scale = if loss.is_odds() || data.mean() <= 0.0 { 1.0 } else { data.mean() };
    let relative = match precision {
        Precision::F64 => 1e-10,
        Precision::F32 => {
            let exponent = loss.largest_exponent().max(1.0);
            10f64.powf(-30.0 / exponent).max(1e-10)
        }
    };
    scale * relative
}

/// The unit that the data are divided by inside the engine: 1 for data of usual size, else the
/// power of two nearest to their mean.
fn unit(loss: &Loss, data: &Prepared) -> f64 {
    let mean = data.mean();
    if loss.homogeneity().is_none() || mean <= 0.0 || (1e-4..1e4).contains(&mean) {
        return 1.0;
    }
    2f64.powi(mean.log2().round() as i32)
}
