//! From settings and this process's data to a fit that is ready to sweep: as
//! [`prepare::open`](crate::prepare::open), for data that are cut into slabs.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayD, Axis, Slice};

use super::agreed::{labels, same_settings};
use super::engine::{ExactSteps, SharedEngine, Slab, SlabsInCommon, start_of_slab};
use super::link::Link;
use super::matrices::SlabMatrices;
use super::plan::{WholePlan, plan};
use super::slabs::Split;
use super::whole::{SlabData, Whole, dead, fingerprint, whole};
use crate::checkpoint::{self, Checkpoint, CheckpointWriter, Identity};
use crate::closed_forms::Steps;
use crate::constraints::Constraints;
use crate::device::Device;
use crate::format;
use crate::monitor::Portions;
use crate::observe::Cancel;
use crate::prepare::{self, DataFacts, Opened};
use crate::settings::{Balance, Settings, Start};
use crate::start;
use crate::structured;
use crate::trial::{Chosen, Starts, Trial, idle_cycles, wanted_start};
use crate::units;
use nneinfact_core::data::{Labels, Observations, Part};
use nneinfact_core::engine::{Constraint, Engine, Job, Reducer, host_scales};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::Loss;
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::Plan;

/// What this process has of the data.
#[derive(Clone, Copy)]
pub(crate) struct Held<'a> {
    pub observations: &'a Observations,
    /// Which part of the whole that is; `None` for all of it.
    pub part: Option<&'a Part>,
}

/// Prepares and plans a fit with all other processes. The start is taken out of the settings.
pub(crate) fn open(
    settings: &mut Settings,
    cancel: &Cancel,
    resumed: Option<Box<Checkpoint>>,
    held: Held<'_>,
    device: &Device,
    mut reducer: Box<dyn Reducer>,
) -> Result<Opened> {
    let found = held.observations.shape();
    let (rank, size) = (reducer.rank(), reducer.size());
    let split = settings.check().and_then(|()| Split::new(settings, found, held.part, rank, size));
    let split = super::together(reducer.as_mut(), split)?;
    let mut link = Link::new(reducer, &split);
    same_settings(&mut link, settings, &split, resumed.as_deref())?;
    let shapes = Shapes::new(&settings.model, &split.shape, &settings.ranks)?;
    let slabs = slabs(&mut link, &split, settings, held)?;
    let range = held.part.map(|_| split.part());
    let labels = labels(&mut link, &split, held.observations.labels(), range)?;
    let whole = whole(&mut link, &split, settings, &slabs, &labels)?;
    whole.portions.check(settings)?;
    let constraints = Constraints::new(settings, &shapes)?.rescaled(whole.weight_unit);
    let lock = if rank == 0 { checkpoint::lock(settings) } else { Ok(None) };
    let lock = link.together(lock)?;
    let WholePlan { plan, exact, steps, notice } =
        plan(&mut link, settings, &shapes, &whole, &constraints, device)?;
    let identity = match settings.is_saved() {
        false => None,
        true => {
            let print = fingerprint(&mut link, &split, &slabs)?;
            // The parameters of a loss are among the data, as each process may have its part of them.
            let loss = settings.loss.with_entry_parameters(Vec::new());
            let plain = Settings { loss, ..settings.clone() };
            let identity = Identity::new(&plain, print, &constraints, &plan, device);
            Some(identity.with("slabs", split.record().to_string()))
        }
    };
    let unreached = match resumed {
        Some(_) => Vec::new(),
        None => dead(&mut link, &split, &slabs, &constraints, shapes.model())?,
    };
    let ground = Ground { shapes, constraints, whole, plan, exact, steps, split, labels };
    let given = match resumed {
        Some(checkpoint) => {
            if let Some(identity) = &identity {
                checkpoint.check(identity, &ground.shapes)?;
            }
            Some(*checkpoint)
        }
        None => None,
    };
    let mut opened = match given {
        Some(checkpoint) => ground.resume(settings, checkpoint, link, slabs, device)?,
        None => ground.start(settings, cancel, link, slabs, device)?,
    };
    opened.warnings.extend(unreached);
    opened.warnings.extend(notice.filter(|notice| !opened.warnings.contains(notice)));
    let (seed, warnings, identity) = (opened.seed, &opened.warnings, identity.as_ref());
    let shapes = opened.plan.shapes();
    let writer = match rank {
        0 => CheckpointWriter::new(settings, identity, shapes, seed, warnings, lock),
        _ => CheckpointWriter::elsewhere(settings, identity, shapes),
    };
    opened.writer = writer.map(|writer| match &opened.resumed {
        Some(checkpoint) => writer.after(checkpoint),
        None => writer,
    });
    Ok(opened)
}

/// Cuts what this process has into its slabs, and prepares them.
fn slabs(
    link: &mut Link,
    split: &Split,
    settings: &Settings,
    held: Held<'_>,
) -> Result<Vec<SlabData>> {
    let Held { observations, part } = held;
    // Of powers of two the exponent fits into a word.
    let own = observations.largest_weight().filter(|_| !split.own().is_empty());
    let largest = link.agree(Ok(own.map_or(0, order_of)))?;
    let first = part.map_or(0, |_| split.part().start);
    let unweighted = own.is_none() && largest > 0;
    let one = |number: usize| -> Result<SlabData> {
        if unweighted {
            return Err(Error::Observations(
                "other processes have weights for their parts of the data, and this one has none"
                    .into(),
            ));
        }
        let range = &split.ranges[number];
        let local = range.start - first..range.end - first;
        let (mode, whole) = (split.mode, split.shape[split.mode]);
        let slab = observations.slab(mode, local.clone(), range.start, whole)?;
        let slab = slab.weights_near(of_order(largest));
        let loss = loss_of_slab(&settings.loss, split, observations.shape(), range, &local)?;
        let data = prepare::with_level(&loss, slab.prepare()?);
        Ok(SlabData { data, loss, number })
    };
    let slabs: Result<Vec<SlabData>> = split.own().map(one).collect();
    link.together(slabs)
}

/// A word for a weight, which is the larger the larger the weight: its bits, without those that do not
/// matter.
fn order_of(weight: f64) -> u64 {
    weight.to_bits() >> 52
}

/// A weight of that order.
fn of_order(word: u64) -> f64 {
    f64::from_bits(word << 52).max(f64::MIN_POSITIVE)
}

/// The loss with the entry parameters of a slab.
fn loss_of_slab(
    loss: &Loss,
    split: &Split,
    found: &[usize],
    range: &Range<usize>,
    local: &Range<usize>,
) -> Result<Loss> {
    let mut own = Vec::new();
    for parameter in loss.entry_parameters() {
        let range = match parameter.shape() {
            shape if shape == split.shape => range,
            shape if shape == found => local,
            shape => {
                return Err(Error::Shape {
                    what: format!("the entry parameter of the {} loss", loss.name()),
                    found: format!("{shape:?}"),
                    expected: format!("{found:?}, the shape of the data"),
                });
            }
        };
        let rows = parameter.slice_axis(Axis(split.mode), Slice::from(range.clone()));
        own.push(Arc::new(rows.as_standard_layout().into_owned()));
    }
    Ok(loss.with_entry_parameters(own))
}

/// What a fit over slabs begins with.
struct Ground {
    shapes: Shapes,
    constraints: Constraints,
    whole: Whole,
    plan: Arc<Plan>,
    exact: Option<ExactSteps>,
    steps: Steps,
    split: Split,
    labels: Arc<[Labels]>,
}

impl Ground {
    /// A fit that goes on from a checkpoint.
    fn resume(
        self,
        settings: &Settings,
        checkpoint: Checkpoint,
        link: Link,
        slabs: Vec<SlabData>,
        device: &Device,
    ) -> Result<Opened> {
        let mut start = checkpoint.factors()?;
        self.constraints.apply(&self.shapes, &mut start, false)?;
        let before = Some(&checkpoint.state.scales[..]);
        let mut engine = self.engine(settings, link, slabs, &start, before, device)?;
        engine.restore(&checkpoint.state)?;
        let seed = checkpoint.seed();
        let mut warnings = checkpoint.warnings().to_vec();
        for warning in self.constraints.warnings(&self.shapes) {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        Ok(self.opened(settings, engine, seed, warnings, Some(checkpoint)))
    }

    /// A new fit.
    fn start(
        self,
        settings: &mut Settings,
        cancel: &Cancel,
        mut link: Link,
        slabs: Vec<SlabData>,
        device: &Device,
    ) -> Result<Opened> {
        let wanted = wanted_start(settings)?;
        let penalized = self.constraints.is_penalized();
        let starts = Starts {
            shapes: &self.shapes,
            loss: &settings.loss,
            constraints: &self.constraints,
            wanted: &wanted,
            rescales: settings.balance.unwrap_or_default() != Balance::Never && penalized,
            precision: settings.precision,
        };
        let goal = start::Goal {
            mean: self.whole.mean,
            wanted: start::mean_wanted_of(&settings.loss, self.whole.mean, self.whole.trials),
        };
        // Those from singular vectors while the data are at hand: engines take them.
        let of_data = match wanted {
            Start::Svd => {
                let source = SlabMatrices::new(&mut link, &self.split, &slabs, &self.whole)?;
                let seeds = (0..settings.starts as u64).map(|n| settings.seed.wrapping_add(n));
                seeds.map(|seed| starts.make_of(seed, &source, goal)).collect::<Result<Vec<_>>>()?
            }
            Start::Random | Start::Gamma { .. } | Start::Grown(_) | Start::Factors(_) => Vec::new(),
        };
        let make = |seed: u64| match of_data.get(seed.wrapping_sub(settings.seed) as usize) {
            Some(start) => Ok(start.clone()),
            None => starts.make_without_data(seed, goal),
        };
        let first = make(settings.seed)?;
        let mut engine = self.engine(settings, link, slabs, &first, None, device)?;
        let groups = structured::groups(&self.plan, &self.constraints).len();
        let portions = self.whole.portions;
        let balance = self.balances(settings);
        let chosen = starts.choose(
            settings,
            cancel,
            engine.as_mut(),
            Trial { groups, portions, balance },
            first,
            make,
        )?;
        let Chosen { seed, warning } = chosen;
        let mut warnings = self.constraints.warnings(&self.shapes);
        warnings.extend(idle_cycles(settings, &self.plan, self.exact.is_some()));
        warnings.extend(warning);
        Ok(self.opened(settings, engine, seed, warnings, None))
    }

    fn balances(&self, settings: &Settings) -> bool {
        settings.balance.unwrap_or_default() == Balance::EverySweep
            && self.constraints.balancing.is_some()
    }

    fn opened(
        self,
        settings: &Settings,
        engine: Box<dyn Engine>,
        seed: u64,
        warnings: Vec<String>,
        resumed: Option<Checkpoint>,
    ) -> Opened {
        let balance = self.balances(settings);
        Opened {
            engine,
            groups: structured::groups(&self.plan, &self.constraints),
            plan: self.plan,
            facts: DataFacts {
                portions: self.whole.portions,
                mean: self.whole.mean,
                labels: self.labels,
                data: None,
                squares: self.whole.squares,
            },
            balance,
            penalized: self.constraints.has_penalties(),
            constraints: self.constraints.each,
            seed,
            warnings,
            writer: None,
            resumed,
            slabs: Some(self.split.record()),
        }
    }

    /// Puts every slab of this process on an engine of its own.
    fn engine(
        &self,
        settings: &Settings,
        mut link: Link,
        slabs: Vec<SlabData>,
        start: &[ArrayD<f64>],
        before: Option<&[f64]>,
        device: &Device,
    ) -> Result<Box<dyn Engine>> {
        let common = self.common(settings, start, before);
        let own: Result<Vec<Slab>> = slabs
            .into_iter()
            .map(|slab| self.slab(settings, &common, slab, start, device))
            .collect();
        let own = link.together(own)?;
        let engine = Box::new(SharedEngine::new(link, own, common, start)?);
        if !self.constraints.structure.is_any() {
            return Ok(engine);
        }
        let balancing = self.constraints.balancing.clone().filter(|_| self.balances(settings));
        structured::steps_on_host(engine, &self.plan, settings, &self.constraints, balancing, start)
    }

    /// With the scales of factors of `before`, where a fit goes on that had them.
    fn common(
        &self,
        settings: &Settings,
        start: &[ArrayD<f64>],
        before: Option<&[f64]>,
    ) -> SlabsInCommon {
        let loss = settings.loss.clone();
        let unit = units::unit(&loss, self.whole.mean);
        let objective = unit.powf(loss.homogeneity().unwrap_or(0.0));
        let scales = host_scales(start, start.len(), unit, before);
        let constraints = self.constraints.each.iter().zip(&scales);
        let constraints =
            constraints.map(|(constraint, scale)| constraint.rescaled(1.0 / scale, objective));
        let roughness = self.constraints.structure.roughness.iter().zip(&scales);
        let differences = roughness.map(|(one, scale)| {
            one.as_ref().map(|one| one.differences().clone().rescaled(1.0 / scale, objective))
        });
        let mut losses = vec![None; self.plan.groups().len()];
        prepare::loss_slots(settings, &mut losses);
        SlabsInCommon {
            plan: Arc::clone(&self.plan),
            ranges: self.split.ranges.clone(),
            mode: self.split.mode,
            constraints: constraints.collect(),
            differences: differences.collect(),
            balancing: self.constraints.balancing.clone().filter(|_| self.balances(settings)),
            scales,
            objective,
            floor: settings.factor_floor,
            precision: settings.precision,
            cycles: settings.inner_cycles,
            losses,
            exact: self.exact.clone(),
            loss,
        }
    }

    fn slab(
        &self,
        settings: &Settings,
        common: &SlabsInCommon,
        slab: SlabData,
        start: &[ArrayD<f64>],
        device: &Device,
    ) -> Result<Slab> {
        let SlabData { data, loss, number } = slab;
        let range = self.split.ranges[number].clone();
        let observed = Portions::of(&data).any();
        if !observed {
            return Ok(Slab { engine: None, range });
        }
        // Tied factors are groups of their own by themselves.
        let groups = settings
            .ties
            .is_empty()
            .then(|| self.plan.groups().iter().map(|group| group.factors.clone()).collect());
        let own = Settings { loss, groups, ..settings.clone() };
        let shapes = Shapes::new(&own.model, &self.split.slab_shape(number), &own.ranks)?;
        let planned = format::choose(&own, &shapes, data, self.steps)?;
        let start = start_of_slab(common, start, &range)?;
        let constraints = self.constraints.clone();
        let (job, _) = prepare::job(&own, planned, constraints, start, self.whole.mean)?;
        // Penalties and steps are made from the sums of all slabs.
        let constraints: Vec<Constraint> =
            job.constraints.iter().map(|c| Constraint { penalty: None, ..*c }).collect();
        let exact = common.exact.as_ref().is_some_and(|exact| exact.by_rows);
        // A GPU chooses its own, and all speak to each other in the user's units.
        let scales = (device.kind_name() == "cpu").then(|| common.scales.clone());
        let job = Job { exact, balancing: None, constraints, scales, steps_elsewhere: true, ..job };
        Ok(Slab { engine: Some(device.open(job, settings.precision)?), range })
    }
}
