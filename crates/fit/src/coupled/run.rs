//! Running a coupled fit.

use std::sync::Arc;
use std::time::Instant;

use ndarray::ArrayD;

use super::engine::{CoupledEngine, Joint, Member, unsaved};
use super::part::Part;
use super::plan::{self, Ready};
use super::start::start;
use crate::constraints::{Constraints, vanished};
use crate::device::Device;
use crate::factored::mean;
use crate::monitor::{Monitor, Portions};
use crate::observe::Hooks;
use crate::result::Fit;
use crate::settings::{Algorithm, Balance, FactorSetting, Settings};
use crate::start::scale::{self, Term};
use crate::sweeps::sweeps;
use crate::{format, prepare};
use nneinfact_core::data::Role;
use nneinfact_core::engine::{Engine, Job, LossSums, Precision};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::History;
use nneinfact_core::model::{Model, Shapes};
use nneinfact_core::plan::Plan;

/// What came out of a coupled fit.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub model: Model,
    /// All factors, each once.
    pub factors: Vec<ArrayD<f64>>,
    pub history: History,
    pub parts: Vec<Fit>,
    pub warnings: Vec<String>,
}

/// Runs a fit to these parts on its device.
pub(super) fn fit(mut settings: Settings, hooks: Hooks, parts: Vec<Part>) -> Result<Outcome> {
    let device = settings.choose_device()?;
    device.clone().install(move || run(settings, hooks, parts, &device))
}

/// Refuses what only fits to one tensor can do.
fn check(settings: &Settings) -> Result<()> {
    settings.check()?;
    if matches!(settings.algorithm, Algorithm::Adam | Algorithm::Barrier) {
        return Err(Error::Unsupported(format!(
            "several tensors are fitted by block, grouped or accelerated sweeps, not by {}",
            settings.algorithm.name()
        )));
    }
    if settings.is_saved() {
        return Err(unsaved());
    }
    if settings.starts > 1 {
        return Err(Error::Unsupported(format!(
            "a fit to several tensors has one start, not {}: fit with several seeds, and keep the fit whose history ends lowest",
            settings.starts
        )));
    }
    Ok(())
}

fn run(
    mut settings: Settings,
    mut hooks: Hooks,
    parts: Vec<Part>,
    device: &Device,
) -> Result<Outcome> {
    let started = Instant::now();
    check(&settings)?;
    let (ready, portions) = plan::ready(&settings, parts)?;
    let all: Vec<Shapes> = ready.iter().map(|part| part.shapes.clone()).collect();
    let (shapes, places) = Shapes::union(&all)?;
    settings.model = shapes.model().clone();
    let mut constraints = Constraints::new(&settings, &shapes)?;
    constraints.balancing = plan::balancing(&shapes, &places, &constraints);
    for (part, own) in ready.iter().zip(&places) {
        if own.iter().all(|&l| constraints.each[l].fixed) {
            return Err(Error::Setting(format!(
                "all factors of {} are fixed: there is nothing to fit to that tensor",
                part.shapes.model()
            )));
        }
    }
    let groups = plan::groups(&ready, &places, &constraints)?;
    let balance = settings.balance.unwrap_or_default();
    let mut factors = start(&mut settings, &shapes, &constraints, &ready, &places)?;
    let mut warnings: Vec<String> =
        plan::falling_away(&shapes, &places, &constraints).into_iter().collect();
    let labels: Vec<_> = ready.iter().map(|part| Arc::clone(part.data.labels())).collect();
    let means: Vec<f64> = ready.iter().map(|part| part.data.mean()).collect();

    let mut members = Vec::new();
    let mut plans = Vec::new();
    for (part, own) in ready.into_iter().zip(&places) {
        let (member, plan) = member(part, own, &groups, &constraints, &factors, device)?;
        members.push(member);
        plans.push(plan);
    }
    let count = groups.len();
    let model = shapes.model().clone();
    let penalized = constraints.is_penalized();
    let balancing = constraints.balancing.clone().filter(|_| balance == Balance::EverySweep);
    let balanced = balancing.is_some();
    let joint = Joint {
        shapes,
        groups,
        constraints: constraints.each.clone(),
        balancing,
        floor: settings.factor_floor,
        cycles: settings.inner_cycles,
        guarded: settings.algorithm == Algorithm::Accelerated,
    };
    let mut engine = CoupledEngine::new(members, joint, &factors)?;
    if balance != Balance::Never && penalized {
        warnings.extend(rescale(
            &mut engine,
            &constraints,
            &places,
            &mut factors,
            settings.precision,
        )?);
    }
    let names: Vec<&str> = plans.iter().map(|(_, _, loss)| loss.as_str()).collect();
    let mut history = History { loss_name: names.join(" + "), ..settings.empty_history() };
    history.heldout_as = portions.split_kind();
    let mut monitor = Monitor::new(&settings, &mut hooks, portions, started, balanced, penalized);
    sweeps(&mut engine, count, &mut monitor, &mut history, &mut None, None)?;
    let factors = engine.factors()?;
    let ends = engine.evaluate_each()?;
    let mut parts = Vec::new();
    for (t, ((plan, portions, loss), sums)) in plans.into_iter().zip(ends).enumerate() {
        let own: Vec<ArrayD<f64>> = places[t].iter().map(|&l| factors[l].clone()).collect();
        let history = History { loss_name: loss, ..end(&history, &portions, sums) };
        // Where the mean takes more memory than there is, there is no warning, but there is a fit.
        let predicted = if penalized { mean(plan.shapes(), &own).ok() } else { None };
        let gone = predicted.and_then(|predicted| vanished(&own, predicted, means[t]));
        warnings.extend(gone.map(|gone| format!("tensor {}: {gone}", t + 1)));
        parts.push(Fit::new(plan, own, history).with_labels(Arc::clone(&labels[t]))?);
    }
    Ok(Outcome { model, factors, history, parts, warnings })
}

/// How the data of a part are fitted, its entries by role, and the name of its loss.
type PlannedPart = (Arc<Plan>, Portions, String);

/// Puts a part on an engine of its own; gives its plan, what its losses are divided by, and its loss's
/// name too. `own` has the places of its factors among all.
fn member(
    part: Ready,
    own: &[usize],
    groups: &[Vec<usize>],
    constraints: &Constraints,
    start: &[ArrayD<f64>],
    device: &Device,
) -> Result<(Member, PlannedPart)> {
    let Ready { mut settings, shapes, data, weight } = part;
    let mine = |group: &Vec<usize>| -> Vec<usize> {
        (0..own.len()).filter(|&m| group.contains(&own[m])).collect()
    };
    let grouped: Vec<Vec<usize>> = groups.iter().map(mine).collect();
    let mut next = 0;
    let number = |group: &Vec<usize>| {
        let number = (!group.is_empty()).then_some(next);
        next += usize::from(number.is_some());
        number
    };
    let numbers = grouped.iter().map(number).collect();
    let grouped: Vec<Vec<usize>> = grouped.into_iter().filter(|g| !g.is_empty()).collect();
    settings.groups = Some(grouped.clone());
    let starts: Vec<ArrayD<f64>> = own.iter().map(|&l| start[l].clone()).collect();
    for (m, _) in own.iter().enumerate().filter(|(_, l)| constraints.each[**l].fixed) {
        let fixed = FactorSetting::Fixed(starts[m].clone());
        settings.factor_settings.push((format!("theta_{}", m + 1), fixed));
    }
    let own_constraints = Constraints::new(&settings, &shapes)?;
    let mut portions = Portions::of(&data);
    portions.add_offsets(&settings.loss, &data, 1.0);
    let planned = format::choose(&settings, &shapes, data)?;
    let (job, _) = prepare::job(&settings, planned, own_constraints, starts)?;
    // What one tensor says is not all that there is: no exact steps.
    let job = Job { exact: false, balancing: None, ..job };
    let loss = job.loss.name().to_string();
    let plan = (Arc::clone(&job.plan), portions, loss);
    let member = Member {
        loss: job.loss.clone(),
        engine: device.open(job, settings.precision)?,
        weight,
        factors: own.to_vec(),
        groups: numbers,
        own: grouped,
    };
    Ok((member, plan))
}

/// Brings the start to the scale of least penalised objective of all tensors together.
fn rescale(
    engine: &mut CoupledEngine,
    constraints: &Constraints,
    places: &[Vec<usize>],
    start: &mut [ArrayD<f64>],
    precision: Precision,
) -> Result<Option<String>> {
    let scaled = |own: &Vec<usize>| own.iter().filter(|&&l| constraints.scales(l)).count() as f64;
    let scaled: Vec<f64> = places.iter().map(scaled).collect();
    scale::rescale(constraints, start, precision, |start| {
        engine.load(start)?;
        let told = engine.scale_parts()?.into_iter().zip(&scaled);
        let term = |((loss, weight, sums), &factors)| Term { loss, weight, sums, factors };
        Ok(told.map(term).collect())
    })
}

/// The history of a part: its losses at the end.
fn end(all: &History, portions: &Portions, sums: LossSums) -> History {
    let one = |sum: f64, role: Role| portions.mean_loss(sum, role).into_iter().collect();
    History {
        loss: one(sums.train, Role::Train),
        penalty: Vec::new(),
        validation_loss: one(sums.validation, Role::Validation),
        heldout_loss: one(sums.held_out, Role::HeldOut),
        seconds: all.seconds.last().copied().into_iter().collect(),
        sweeps: vec![all.iterations],
        returned: 0,
        heldout_as: portions.split_kind(),
        ..all.clone()
    }
}
