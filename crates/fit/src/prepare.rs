//! From settings and data to a fit that is ready to sweep on its device, in three steps: [`plan`] checks
//! everything and plans the passes, [`start`] makes the factors to start from (or [`resume`] takes them
//! from a checkpoint), and [`open`] does both, one after the other.

use std::sync::Arc;

use ndarray::ArrayD;

use crate::checkpoint::{self, Checkpoint, CheckpointWriter, Identity};
use crate::common::Common;
use crate::constraints::Constraints;
use crate::device::Device;
use crate::format::{self, Planned};
use crate::io::FileLock;
use crate::monitor::{Monitor, Portions};
use crate::observe::{Cancel, Hooks};
use crate::settings::{Algorithm, Balance, Settings, Start};
use crate::start::{self, Basis, scale};
use crate::sweeps::sweeps;
use nneinfact_core::data::{
    Observations, Prepared, StoredEntries, describe_index, normalizing_exponent, scaled,
};
use nneinfact_core::engine::{Constraint, Engine, Guards, Job, LossSlot, Precision};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Domain, Loss, ScaleWith, Trials};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::Plan;

/// A fit that is ready to sweep.
pub(crate) struct Opened {
    pub engine: Box<dyn Engine>,
    pub plan: Arc<Plan>,
    pub data: Arc<Prepared>,
    /// Whether factors are rescaled among each other after every sweep.
    pub balance: bool,
    pub penalized: bool,
    /// For each factor.
    pub constraints: Vec<Constraint>,
    /// That of the start.
    pub seed: u64,
    pub warnings: Vec<String>,
    /// What saves the fit, where that was asked for.
    pub writer: Option<CheckpointWriter>,
    /// Where the fit goes on from; the engine is there.
    pub resumed: Option<Checkpoint>,
}

/// The data of a fit.
#[derive(Clone, Copy)]
pub(crate) enum Given<'a> {
    Observations(&'a Observations),
    /// Observations that several fits share, and that were prepared once for all.
    Prepared(&'a Prepared),
}

impl<'a> From<&'a Observations> for Given<'a> {
    fn from(observations: &'a Observations) -> Given<'a> {
        Given::Observations(observations)
    }
}

impl<'a> From<&'a Prepared> for Given<'a> {
    fn from(data: &'a Prepared) -> Given<'a> {
        Given::Prepared(data)
    }
}

impl Given<'_> {
    fn shape(&self) -> &[usize] {
        match self {
            Given::Observations(observations) => observations.shape(),
            Given::Prepared(data) => data.shape(),
        }
    }

    fn prepare(&self) -> Result<Prepared> {
        match self {
            Given::Observations(observations) => observations.prepare(),
            Given::Prepared(data) => Ok((*data).clone()),
        }
    }
}

/// Finds what is wrong with a fit as far as that is possible without starting it: settings, ranks,
/// the loss's domain, memory. Gives a plan that can be carried out.
pub(crate) fn check(settings: &Settings, data: &Prepared) -> Result<Plan> {
    let (shapes, data) = prepared(settings, Given::Prepared(data))?;
    if let Some(device) = &settings.device {
        device.check_precision(settings.precision)?;
    }
    Portions::of(&data).check(settings)?;
    Constraints::new(settings, &shapes)?;
    format::check(settings, &shapes, &data)
}

/// Prepares and plans a fit, and puts it on its device. The start is taken out of the settings.
pub(crate) fn open(
    settings: &mut Settings,
    cancel: &Cancel,
    resumed: Option<Box<Checkpoint>>,
    given: Given<'_>,
    device: &Device,
) -> Result<Opened> {
    let lock = checkpoint::lock(settings)?;
    let checked = plan(settings, given, device)?;
    match resumed {
        Some(checkpoint) => resume(settings, *checkpoint, checked, lock, device),
        None => start(settings, cancel, checked, lock, device),
    }
}

/// A fit whose settings and data go together, with its plan.
pub(crate) struct Checked {
    pub shapes: Shapes,
    pub constraints: Constraints,
    pub planned: Planned,
    /// By which the fit is known again, where it is saved or resumed.
    pub identity: Option<Identity>,
}

/// The first step: checks settings and data, and plans the passes.
pub(crate) fn plan(settings: &Settings, given: Given<'_>, device: &Device) -> Result<Checked> {
    let (shapes, data) = prepared(settings, given)?;
    Portions::of(&data).check(settings)?;
    let constraints = Constraints::new(settings, &shapes)?.rescaled(data.weight_unit());
    let fingerprint = settings.is_saved().then(|| data.fingerprint());
    let planned = format::choose(settings, &shapes, data)?;
    let identity =
        fingerprint.map(|data| Identity::new(settings, data, &constraints, &planned.plan, device));
    Ok(Checked { shapes, constraints, planned, identity })
}

/// The second step of a fit that goes on: the factors of a checkpoint, on the device.
fn resume(
    settings: &Settings,
    checkpoint: Checkpoint,
    checked: Checked,
    lock: Option<FileLock>,
    device: &Device,
) -> Result<Opened> {
    let Checked { shapes, constraints, planned, identity } = checked;
    if let Some(identity) = &identity {
        checkpoint.check(identity, &shapes)?;
    }
    let mut start = checkpoint.factors()?;
    constraints.apply(&shapes, &mut start, false)?;
    let (job, data) = job(settings, planned, constraints.clone(), start)?;
    let job = Job { scales: Some(checkpoint.state.scales.clone()), ..job };
    let (plan, balance) = (Arc::clone(&job.plan), job.balancing.is_some());
    let mut engine = device.open(job, settings.precision)?;
    engine.restore(&checkpoint.state)?;
    let (seed, mut warnings) = (checkpoint.seed(), checkpoint.warnings().to_vec());
    let known = |warning: &String| checkpoint.warnings().contains(warning);
    warnings.extend(constraints.warnings(&shapes).into_iter().filter(|warning| !known(warning)));
    let writer = CheckpointWriter::new(settings, identity.as_ref(), &shapes, seed, &warnings, lock)
        .map(|writer| writer.after(&checkpoint));
    Ok(Opened {
        engine,
        plan,
        data,
        balance,
        penalized: constraints.is_penalized(),
        constraints: constraints.each,
        seed,
        warnings,
        writer,
        resumed: Some(checkpoint),
    })
}

/// The second step of a new fit: the factors to start from, of several the best, on the device.
fn start(
    settings: &mut Settings,
    cancel: &Cancel,
    mut checked: Checked,
    lock: Option<FileLock>,
    device: &Device,
) -> Result<Opened> {
    let identity = checked.identity.take();
    let several = settings.starts > 1;
    if several && matches!(settings.start, Start::Factors(_)) {
        return Err(Error::Setting(format!(
            "{} starts were asked for, but the factors to start from are given: several starts are random ones",
            settings.starts
        )));
    }
    let (common, mut engine, first) = Common::open(settings, checked, several, device)?;
    let mut begun = common.begin(settings.seed, engine.as_mut(), first)?;
    if several {
        begun = common.best(settings, cancel, device, engine.as_mut(), begun)?;
    }
    let mut opened = common.opened(settings, engine, begun);
    let (seed, warnings) = (opened.seed, &opened.warnings);
    opened.writer =
        CheckpointWriter::new(settings, identity.as_ref(), &common.shapes, seed, warnings, lock);
    Ok(opened)
}

/// That more than one cycle over the factors of a group was asked for, and does nothing.
pub(crate) fn idle_cycles(settings: &Settings, plan: &Plan, exact: bool) -> Option<String> {
    let why = match exact {
        true => "half the squared distance is lowered by exact steps here",
        false if plan.groups().iter().all(|group| group.factors.len() == 1) => {
            "every group has one factor here"
        }
        false => return None,
    };
    let cycles = settings.inner_cycles;
    (cycles > 1).then(|| format!("{cycles} inner cycles are as good as one: {why}"))
}

/// The starts of a fit, one for each seed.
pub(crate) struct Starts<'a> {
    pub shapes: &'a Shapes,
    pub loss: &'a Loss,
    pub constraints: &'a Constraints,
    pub wanted: &'a Start,
    /// Whether a start is brought to the scale of least penalised objective.
    pub rescales: bool,
}

impl Starts<'_> {
    /// The start of a seed. It keeps to the constraints, and its penalised factors are balanced.
    pub fn make(
        &self,
        seed: u64,
        data: &Prepared,
        sparse: Option<&StoredEntries>,
    ) -> Result<Vec<ArrayD<f64>>> {
        let &Starts { shapes, loss, constraints, .. } = self;
        let basis = Basis { shapes, loss, data, sparse, seed };
        let mut start = start::make(self.wanted.clone(), &basis)?;
        let made = !matches!(self.wanted, Start::Factors(_));
        constraints.apply(shapes, &mut start, made)?;
        if self.rescales {
            scale::balance_start(shapes, constraints, &mut start);
        }
        Ok(start)
    }

    /// Brings a start that the engine has to the scale of least penalised objective; gives a warning
    /// where that would be zero.
    pub fn rescale(
        &self,
        engine: &mut dyn Engine,
        groups: usize,
        start: &mut [ArrayD<f64>],
        precision: Precision,
    ) -> Result<Option<String>> {
        if !self.rescales || groups == 0 {
            return Ok(None);
        }
        let (loss, constraints) = (self.loss, self.constraints);
        scale::rescale(constraints, start, precision, |start| {
            scale::term(engine, loss, constraints, start)
        })
    }
}

/// Sweeps from the start that the engine has, as often as it takes to tell starts apart; returns the
/// objective then.
pub(crate) fn try_out(
    settings: &Settings,
    cancel: &Cancel,
    engine: &mut dyn Engine,
    groups: usize,
    portions: Portions,
    balance: bool,
) -> Result<f64> {
    let trial = Settings {
        max_iter: Settings::TRIAL_SWEEPS.min(settings.max_iter),
        tolerance: 0.0,
        eval_every: Settings::TRIAL_SWEEPS,
        ..settings.alike(settings.model.clone())
    };
    let mut hooks = Hooks { observers: Vec::new(), cancel: cancel.clone() };
    let mut history = trial.empty_history();
    let started = std::time::Instant::now();
    let mut monitor = Monitor::new(&trial, &mut hooks, portions, started, balance, true);
    match sweeps(engine, groups, &mut monitor, &mut history, &mut None, None) {
        Ok(()) => Ok(history.objective().last().copied().unwrap_or(f64::INFINITY)),
        // Another start may go well.
        Err(Error::Numeric(_)) => Ok(f64::INFINITY),
        Err(error) => Err(error),
    }
}

/// The sizes of a fit, and its data, checked.
pub(crate) fn prepared(settings: &Settings, given: Given<'_>) -> Result<(Shapes, Prepared)> {
    settings.check()?;
    let shape = given.shape();
    let shapes = Shapes::new(&settings.model, shape, &settings.ranks)?;
    let loss = &settings.loss;
    for parameter in loss.entry_parameters() {
        if parameter.shape() != shape {
            return Err(Error::Shape {
                what: format!("the entry parameter of the {} loss", loss.name()),
                found: format!("{:?}", parameter.shape()),
                expected: format!("{shape:?}, the shape of the data"),
            });
        }
    }
    let data = given.prepare()?;
    check_domain(loss, &data)?;
    Ok((shapes, data))
}

/// What an engine is made from: the data, and a start that keeps to the constraints. Gives the data
/// in the user's units too.
pub(crate) fn job(
    settings: &Settings,
    planned: Planned,
    constraints: Constraints,
    start: Vec<ArrayD<f64>>,
) -> Result<(Job, Arc<Prepared>)> {
    let loss = settings.loss.clone();
    let Planned { plan, data, sparse } = planned;
    let guards = Guards {
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
        *last = Some(LossSlot::Middle);
    }
    losses[0] = Some(LossSlot::Start);
    // Accelerated fits are free in how they get there. Each entry has to count, and once.
    let exact = settings.algorithm == Algorithm::Accelerated
        && loss.is_half_squared_distance()
        && data.weights().is_none()
        && data.is_all_train()
        && constraints.penalties().iter().flatten().all(|p| [1.0, 2.0].contains(&p.power()));
    let balance = settings.balance.unwrap_or_default() == Balance::EverySweep;
    let Units { loss, unit, exponent, sums_unit } = Units::of(loss, &data, settings.precision);
    let given = Arc::new(data);
    let (data, stored, value_scale) = match exponent {
        0 => (Arc::clone(&given), sparse, 1.0 / unit),
        _ => {
            let stored = sparse.map(|stored| stored.scaled(exponent));
            (Arc::new(given.with_scaled_values(exponent)), stored, 1.0)
        }
    };
    let job = Job {
        plan: Arc::new(plan),
        losses,
        exact,
        unit,
        value_scale,
        sums_unit,
        data,
        stored: stored.map(Arc::new),
        loss,
        guards,
        start,
        scales: None,
        balancing: constraints.balancing.filter(|_| balance).map(Arc::new),
        constraints: constraints.each,
    };
    Ok((job, given))
}

fn check_domain(loss: &Loss, data: &Prepared) -> Result<()> {
    let domain = *loss.domain();
    let parameter = loss.entry_parameters().first();
    // Whole numbers as they are stored are finite and not negative.
    let storage = data.coo().map_or(data.values().storage(), |list| list.values());
    let whole = storage.kind().is_whole();
    if domain == Domain::NonNegative && whole {
        return Ok(());
    }
    let outside = match (domain, parameter) {
        // A number of trials per entry, by its index in C order.
        (Domain::UpTo(Trials::EntryParameter(_)), Some(trials)) => {
            let trials: Vec<f64> = trials.iter().copied().collect();
            data.first_outside(|x, i| domain.contains(x, &trials[i..=i]))
        }
        (Domain::NonNegative | Domain::Positive | Domain::Binary | Domain::UpTo(_), _) => {
            data.first_outside(|x, _| domain.contains(x, &[]))
        }
    };
    match outside {
        None => Ok(()),
        Some(outside) => Err(Error::Domain {
            count: outside.count,
            named: describe_index(data.labels(), &outside.index).into(),
            index: outside.index,
            value: outside.value,
            loss: loss.name().into(),
            domain: domain.describe().into(),
            help: if outside.value.is_nan() {
                "if NaN means missing, say so (nan_missing, --nan-missing), or mask these entries"
                    .into()
            } else if outside.value == 0.0 && data.coo().is_some() {
                format!(
                    "entries that are not listed are zeros, which are outside its domain; if they \
                     are missing and not zeros, say so (unlisted_missing, --unlisted-missing); else \
                     {}",
                    domain.help()
                )
            } else {
                domain.help().into()
            },
        }),
    }
}

/// The default floor of ŷ: see [`NNEinFact::prediction_floor`](crate::NNEinFact::prediction_floor).
pub fn prediction_floor(loss: &Loss, data: &Prepared, precision: Precision) -> f64 {
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

/// What data and loss are rescaled by on their way to an engine, all powers of two.
struct Units {
    /// The loss, its parameters rescaled with the data.
    loss: Loss,
    /// That of ŷ and the factors.
    unit: f64,
    /// Values are multiplied with 2^this beforehand; 0 where the engine's number type holds values
    /// and unit as they are.
    exponent: i32,
    /// What sums of losses are divided by besides.
    sums_unit: f64,
}

impl Units {
    fn of(loss: Loss, data: &Prepared, precision: Precision) -> Units {
        let within = match precision {
            Precision::F32 => 60,
            Precision::F64 => 900,
        };
        let Some(with) = loss.scale_with() else {
            let unit = unit(&loss, data);
            let exponent = normalizing_exponent(unit, within);
            return Units { loss, unit, exponent, sums_unit: 1.0 };
        };
        let exponent = normalizing_exponent(data.mean(), within);
        let as_it_is = |loss| Units { loss, unit: 1.0, exponent: 0, sums_unit: 1.0 };
        if exponent == 0 {
            return as_it_is(loss);
        }
        let Some(rescaled) = loss.rescaled(exponent) else { return as_it_is(loss) };
        let sums_unit = scaled(1.0, -exponent);
        let unit = match with {
            ScaleWith::DataAndModel => sums_unit,
            ScaleWith::Data => 1.0,
        };
        Units { loss: rescaled, unit, exponent, sums_unit }
    }
}
