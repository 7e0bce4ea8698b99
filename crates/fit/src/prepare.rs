//! From settings and data to a fit that is ready to sweep on its device, in three steps: [`plan`] checks
//! everything and plans the passes, [`start`] makes the factors to start from (or [`resume`] takes them
//! from a checkpoint), and [`open`] does both, one after the other.

use std::sync::Arc;

use ndarray::ArrayD;

use crate::basis;
use crate::checkpoint::{self, Checkpoint, CheckpointWriter, Identity};
use crate::closed_forms::{Exact, Steps};
use crate::common::Common;
use crate::constraints::Constraints;
use crate::device::Device;
use crate::format::{self, Planned};
use crate::io::FileLock;
use crate::monitor::Portions;
use crate::observe::Cancel;
use crate::settings::{Algorithm, Balance, Settings};
use crate::structured;
use crate::units::Units;
use nneinfact_core::data::{Labels, Observations, Outside, Prepared, Role, describe_index};
use nneinfact_core::engine::{Constraint, Engine, Guards, Job, LossSlot, Precision};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::SlabRecord;
use nneinfact_core::loss::{Domain, Loss, Trials};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::Plan;

/// A fit that is ready to sweep.
pub(crate) struct Opened {
    pub engine: Box<dyn Engine>,
    pub plan: Arc<Plan>,
    /// The factors of each group that has a pass and an update: the plan's groups, but of factors that are
    /// the same the first one.
    pub groups: Vec<Vec<usize>>,
    pub facts: DataFacts,
    /// Whether factors are rescaled among each other after every sweep.
    pub balance: bool,
    /// Whether what is lowered is more than the losses.
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
    /// How the data are cut, where they are.
    pub slabs: Option<SlabRecord>,
}

/// What has to be known of the data besides what the engine does with them.
pub(crate) struct DataFacts {
    pub portions: Portions,
    /// Of the training entries.
    pub mean: f64,
    pub labels: Arc<[Labels]>,
    /// All data; `None` where they are cut into slabs. Then the portions hold what engines leave out of
    /// losses already.
    pub data: Option<Arc<Prepared>>,
    /// `Σ W y²` over the training entries of data that are cut into slabs, where the fit asks for it.
    pub squares: f64,
}

impl DataFacts {
    pub fn of(data: Arc<Prepared>) -> DataFacts {
        DataFacts {
            portions: Portions::of(&data),
            mean: data.level(),
            labels: Arc::clone(data.labels()),
            squares: 0.0,
            data: Some(data),
        }
    }
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
    pub fn shape(&self) -> &[usize] {
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
    if !settings.bases.is_empty() {
        return check(&basis::rewrite(settings, data.shape())?.settings, data);
    }
    let (shapes, data) = prepared(settings, Given::Prepared(data))?;
    if let Some(device) = &settings.device {
        device.check_precision(settings.precision)?;
    }
    Portions::of(&data).check(settings)?;
    let constraints = Constraints::new(settings, &shapes)?;
    let on_cpu = settings.device.as_ref().is_none_or(|device| device.kind_name() == "cpu");
    format::check(settings, &shapes, &data, Steps::new(settings, &constraints, on_cpu))
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
    let steps = Steps::new(settings, &constraints, device.kind_name() == "cpu");
    let planned = format::choose(settings, &shapes, data, steps)?;
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
    let level = planned.data.level();
    let (job, data) = job(settings, planned, constraints.clone(), start, level)?;
    let job = Job { scales: Some(checkpoint.state.scales.clone()), ..job };
    let (plan, balance) = (Arc::clone(&job.plan), job.balancing.is_some());
    let groups = structured::groups(&job.plan, &constraints);
    let mut engine = structured::open(device, settings, job, &constraints)?;
    engine.restore(&checkpoint.state)?;
    let (seed, mut warnings) = (checkpoint.seed(), checkpoint.warnings().to_vec());
    let known = |warning: &String| checkpoint.warnings().contains(warning);
    warnings.extend(constraints.warnings(&shapes).into_iter().filter(|warning| !known(warning)));
    let writer = CheckpointWriter::new(settings, identity.as_ref(), &shapes, seed, &warnings, lock)
        .map(|writer| writer.after(&checkpoint));
    Ok(Opened {
        engine,
        plan,
        groups,
        facts: DataFacts::of(data),
        balance,
        penalized: constraints.has_penalties(),
        constraints: constraints.each,
        seed,
        warnings,
        writer,
        resumed: Some(checkpoint),
        slabs: None,
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
    let (common, mut engine, first) = Common::open(settings, cancel, checked, several, device)?;
    let chosen = common.choose(settings, cancel, device, engine.as_mut(), first)?;
    let mut opened = common.opened(settings, engine, chosen);
    let (seed, warnings) = (opened.seed, &opened.warnings);
    opened.writer =
        CheckpointWriter::new(settings, identity.as_ref(), &common.shapes, seed, warnings, lock);
    Ok(opened)
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
    let data = with_level(loss, data);
    Units::of(loss.clone(), data.level(), settings.precision)?;
    Ok((shapes, data))
}

/// What an engine is made from: the data, and a start that keeps to the constraints. Gives the data
/// in the user's units too. `mean` is that of the training entries, of all data where these are a slab.
pub(crate) fn job(
    settings: &Settings,
    planned: Planned,
    constraints: Constraints,
    start: Vec<ArrayD<f64>>,
    mean: f64,
) -> Result<(Job, Arc<Prepared>)> {
    let exact = planned.exact(settings) == Exact::Yes;
    let loss = match planned.data.has_negative() && !exact {
        true => settings.loss.for_negative_data(),
        false => settings.loss.clone(),
    };
    let Planned { plan, data, sparse, .. } = planned;
    let guards = Guards {
        prediction_floor: settings
            .prediction_floor
            .unwrap_or_else(|| floor_at(&loss, mean, settings.precision)),
        factor_floor: settings.factor_floor,
        inner_cycles: settings.inner_cycles,
    };
    let mut losses = vec![None; plan.groups().len()];
    loss_slots(settings, &mut losses);
    let balance = settings.balance.unwrap_or_default() == Balance::EverySweep;
    let Units { loss, unit, exponent, sums_unit } = Units::of(loss, mean, settings.precision)?;
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
        steps_elsewhere: false,
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
        differences: Vec::new(),
        constraints: constraints.each,
    };
    Ok((job, given))
}

/// For every group, where the losses of its pass go.
pub(crate) fn loss_slots(settings: &Settings, losses: &mut [Option<LossSlot>]) {
    // The first pass of a sweep tells the losses at its start. The guard of an extrapolation needs
    // those of the last pass too.
    if let Some(last) = losses.last_mut()
        && settings.algorithm == Algorithm::Accelerated
    {
        *last = Some(LossSlot::Middle);
    }
    if let Some(first) = losses.first_mut() {
        *first = Some(LossSlot::Start);
    }
}

/// The data with the level that fits to them are scaled by where some are negative: the mean may be
/// 0 or less then, and says little about the size of what is fitted.
pub(crate) fn with_level(loss: &Loss, data: Prepared) -> Prepared {
    let storage = data.coo().map_or(data.values().storage(), |list| list.values());
    if *loss.domain() != Domain::Any
        || storage.kind().is_whole()
        || data.first_outside(|x, _| x >= 0.0).is_none()
    {
        return data;
    }
    let positive = data.sums_by_role(|x, _| x.max(0.0), Some(0.0));
    let portion = data.portion(Role::Train).weight;
    data.with_negative(positive[Role::Train as usize] / portion)
}

fn check_domain(loss: &Loss, data: &Prepared) -> Result<()> {
    match outside_domain(loss, data) {
        None => Ok(()),
        Some(outside) => Err(domain_error(loss, outside, data.labels(), data.coo().is_some())),
    }
}

/// The observed entries that a loss does not accept; `None` where there are none.
pub(crate) fn outside_domain(loss: &Loss, data: &Prepared) -> Option<Outside> {
    let domain = *loss.domain();
    let parameter = loss.entry_parameters().first();
    // Whole numbers as they are stored are finite and not negative.
    let storage = data.coo().map_or(data.values().storage(), |list| list.values());
    let whole = storage.kind().is_whole();
    if matches!(domain, Domain::Any | Domain::NonNegative) && whole {
        return None;
    }
    match (domain, parameter) {
        // A number of trials per entry, by its index in C order.
        (Domain::UpTo(Trials::EntryParameter(_)), Some(trials)) => {
            let trials: Vec<f64> = trials.iter().copied().collect();
            data.first_outside(|x, i| domain.contains(x, &trials[i..=i]))
        }
        (
            Domain::Any | Domain::NonNegative | Domain::Positive | Domain::Binary | Domain::UpTo(_),
            _,
        ) => data.first_outside(|x, _| domain.contains(x, &[])),
    }
}

/// That observed entries are not in the domain of a loss, in data that are given as a `list` or not.
pub(crate) fn domain_error(loss: &Loss, outside: Outside, labels: &[Labels], list: bool) -> Error {
    let domain = loss.domain();
    let help = if outside.value.is_nan() {
        "if NaN means missing, say so (nan_missing, --nan-missing), or mask these entries".into()
    } else if outside.value == 0.0 && list {
        format!(
            "entries that are not listed are zeros, which are outside its domain; if they are \
             missing and not zeros, say so (unlisted_missing, --unlisted-missing); else {}",
            domain.help()
        )
    } else {
        domain.help().into()
    };
    Error::Domain {
        count: outside.count,
        named: describe_index(labels, &outside.index).into(),
        index: outside.index,
        value: outside.value,
        loss: loss.name().into(),
        domain: domain.describe().into(),
        help,
    }
}

/// The default floor of ŷ: see [`NNEinFact::prediction_floor`](crate::NNEinFact::prediction_floor).
pub fn prediction_floor(loss: &Loss, data: &Prepared, precision: Precision) -> f64 {
    floor_at(loss, data.level(), precision)
}

/// The same for data of this level.
fn floor_at(loss: &Loss, level: f64, precision: Precision) -> f64 {
    let scale = if loss.is_odds() || level <= 0.0 { 1.0 } else { level };
    let relative = match precision {
        Precision::F64 => 1e-10,
        Precision::F32 => {
            let exponent = loss.largest_exponent().max(1.0);
            10f64.powf(-30.0 / exponent).max(1e-10)
        }
    };
    scale * relative
}
