//! From settings and observations to a fit on its device.

use std::sync::Arc;

use ndarray::ArrayD;

use super::builder::{Algorithm, NNEinFact, Start};
use super::checkpoint::{Checkpoint, Identity, Keeper};
use super::form::{self, Chosen};
use super::rules::{self, Balance, Rules};
use super::start::{self, Basis};
use super::watch::Portions;
use super::{scale, solve};
use crate::data::{Observations, Prepared, Role, Sparse};
use crate::engine::{
    Device, Engine, Job, Numbers, Precision, Rule, Slot, available_memory, total_memory,
};
use crate::error::{Error, Result};
use crate::loss::{Domain, Loss, Tape};
use crate::model::Shapes;
use crate::plan::{DataInfo, Plan, Sampling, Settings};

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
        let most = match total_memory() {
            Some(total) if data.streamed => total / 8,
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
        fixed: rules::fixed(settings)?,
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

/// A fit that is ready to sweep.
pub(super) struct Opened {
    pub engine: Box<dyn Engine>,
    pub plan: Arc<Plan>,
    pub data: Arc<Prepared>,
    /// Whether factors trade scale after every sweep.
    pub balance: bool,
    pub penalized: bool,
    /// What holds for each factor.
    pub rules: Vec<Rule>,
    /// That of the start.
    pub seed: u64,
    pub warnings: Vec<String>,
    /// What saves the fit, where that was asked for.
    pub keeper: Option<Keeper>,
    /// Where it goes on from; the engine is there.
    pub resumed: Option<Checkpoint>,
}

/// The data of a fit.
#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
    Observations(&'a Observations),
    /// Observations that several fits share, and that were prepared once for all.
    Prepared(&'a Prepared),
}

impl<'a> From<&'a Observations> for Given<'a> {
    fn from(observations: &'a Observations) -> Given<'a> {
        Given::Observations(observations)
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
/// the loss's domain, memory.
pub(super) fn check(settings: &NNEinFact, data: &Prepared) -> Result<()> {
    let (shapes, data) = prepared(settings, Given::Prepared(data))?;
    if let Some(device) = &settings.device {
        device.check_precision(settings.precision)?;
    }
    Portions::of(&data).check(settings)?;
    Rules::new(settings, &shapes)?;
    form::check(settings, &shapes, &data)
}

/// Prepares and plans a fit, and puts it on its device.
pub(super) fn open<'a>(
    settings: &mut NNEinFact,
    observations: impl Into<Given<'a>>,
    device: &Device,
) -> Result<Opened> {
    let (shapes, data) = prepared(settings, observations)?;
    Portions::of(&data).check(settings)?;
    let rules = Rules::new(settings, &shapes)?;
    let loss = settings.loss.clone();
    let saved = settings.checkpoint.is_some() || settings.resume.is_some();
    let fingerprint = saved.then(|| data.fingerprint());
    let chosen = form::choose(settings, &shapes, &loss, data)?;
    let identity =
        fingerprint.map(|data| Identity::new(settings, data, &rules, &chosen.plan, device));
    let keeper = |settings: &mut NNEinFact, seed: u64, warnings: &[String]| {
        let ((path, every), identity) = settings.checkpoint.take().zip(identity.clone())?;
        Some(Keeper::new(path, every, identity, &shapes, seed, warnings))
    };
    if let (Some(checkpoint), Some(identity)) = (settings.resume.take(), &identity) {
        checkpoint.check(identity, &shapes)?;
        let mut start = checkpoint.factors()?;
        rules.place(&shapes, &mut start, false)?;
        let (penalized, state) = (rules.is_penalized(), &checkpoint.state);
        let job = job(settings, &shapes, chosen, rules.clone(), start)?;
        let job = Job { scales: Some(state.scales.clone()), ..job };
        let (plan, data, balance) =
            (Arc::clone(&job.plan), Arc::clone(&job.data), job.balancing.is_some());
        let mut engine = device.open(job, settings.precision)?;
        engine.restore(state)?;
        let (seed, mut warnings) = (checkpoint.seed(), checkpoint.warnings().to_vec());
        let known = |warning: &String| checkpoint.warnings().contains(warning);
        warnings.extend(rules.warnings(&shapes).into_iter().filter(|warning| !known(warning)));
        let keeper = keeper(settings, seed, &warnings).map(|keeper| checkpoint.kept_by(keeper));
        let resumed = Some(*checkpoint);
        return Ok(Opened {
            engine,
            plan,
            data,
            balance,
            penalized,
            rules: rules.rules,
            seed,
            warnings,
            keeper,
            resumed,
        });
    }
    let wanted = std::mem::take(&mut settings.start);
    let made = !matches!(wanted, Start::Factors(_));
    if settings.starts > 1 && !made {
        return Err(Error::Setting(format!(
            "{} starts were asked for, but the factors to start from are given: several starts are random ones",
            settings.starts
        )));
    }
    let rescale = settings.balance.unwrap_or_default() != Balance::Never && rules.is_penalized();
    let start = |seed: u64, data: &Prepared, sparse: Option<&Sparse>| -> Result<Vec<ArrayD<f64>>> {
        let basis = Basis { shapes: &shapes, loss: &loss, data, sparse, seed };
        let mut start = start::make(wanted.clone(), &basis)?;
        rules.place(&shapes, &mut start, made)?;
        if rescale {
            scale::start(&shapes, &rules, &mut start);
        }
        Ok(start)
    };
    if settings.starts == 0 {
        return Err(Error::Setting("a fit has at least one start".into()));
    }
    let seed = settings.seed;
    let mut first = start(seed, &chosen.data, chosen.sparse.as_ref())?;
    let job = job(settings, &shapes, chosen, rules.clone(), first.clone())?;
    let (plan, data, balance) =
        (Arc::clone(&job.plan), Arc::clone(&job.data), job.balancing.is_some());
    // Other starts may need the list that the engine takes.
    let sparse = job.sparse.clone().filter(|_| settings.starts > 1);
    let mut engine = device.open(job, settings.precision)?;
    let precision = settings.precision;
    let rescaled = |engine: &mut dyn Engine, start: &mut Vec<ArrayD<f64>>| match rescale {
        true if !plan.groups().is_empty() => scale::rescale(&rules, start, precision, |start| {
            scale::term(engine, &loss, &rules, start)
        }),
        _ => Ok(None),
    };
    let mut warning = rescaled(engine.as_mut(), &mut first)?;
    let mut best = (seed, first);
    if settings.starts > 1 {
        let groups = plan.groups().len();
        let try_out = |engine: &mut dyn Engine| {
            solve::try_out(settings, engine, groups, Portions::of(&data), balance)
        };
        let mut least = try_out(engine.as_mut())?;
        for n in 1..settings.starts as u64 {
            if settings.cancel.is_cancelled() {
                break;
            }
            // After the last seed comes 0.
            let seed = seed.wrapping_add(n);
            let mut next = start(seed, &data, sparse.as_deref())?;
            engine.load(&next)?;
            let told = rescaled(engine.as_mut(), &mut next)?;
            let objective = try_out(engine.as_mut())?;
            if objective < least {
                (least, best, warning) = (objective, (seed, next), told);
            }
        }
        engine.load(&best.1)?;
    }
    let mut warnings = rules.warnings(&shapes);
    warnings.extend(warning);
    Ok(Opened {
        engine,
        plan,
        data,
        balance,
        penalized: rules.is_penalized(),
        rules: rules.rules,
        seed: best.0,
        keeper: keeper(settings, best.0, &warnings),
        resumed: None,
        warnings,
    })
}

/// The sizes of a fit, and its data, checked.
pub(super) fn prepared<'a>(
    settings: &NNEinFact,
    observations: impl Into<Given<'a>>,
) -> Result<(Shapes, Prepared)> {
    let observations = observations.into();
    settings.check()?;
    let shape = observations.shape();
    let shapes = Shapes::new(&settings.model, shape, &settings.ranks)?;
    let loss = &settings.loss;
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
    check_domain(loss, &data)?;
    Ok((shapes, data))
}

/// What a device is to do, from a start that is placed and balanced.
pub(super) fn job(
    settings: &NNEinFact,
    shapes: &Shapes,
    chosen: Chosen,
    rules: Rules,
    start: Vec<ArrayD<f64>>,
) -> Result<Job> {
    let loss = settings.loss.clone();
    let Chosen { plan, data, sparse } = chosen;
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
        && data.cells(Role::Train) as f64 == shapes.volume(shapes.model().observed())
        && rules.penalties().iter().flatten().all(|p| [1.0, 2.0].contains(&p.power()));
    let balance = settings.balance.unwrap_or_default() == Balance::EverySweep;
    Ok(Job {
        plan: Arc::new(plan),
        losses,
        exact,
        unit: unit(&loss, &data),
        data: Arc::new(data),
        sparse: sparse.map(Arc::new),
        loss,
        numbers,
        start,
        scales: None,
        balancing: rules.balancing.filter(|_| balance).map(Arc::new),
        rules: rules.rules,
    })
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
pub(crate) fn prediction_floor(loss: &Loss, data: &Prepared, precision: Precision) -> f64 {
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
