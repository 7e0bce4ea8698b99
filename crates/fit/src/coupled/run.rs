//! Running a coupled fit.

use std::sync::Arc;
use std::time::Instant;

use ndarray::ArrayD;

use super::engine::{CoupledEngine, Joint};
use super::member::Member;
use super::part::Part;
use super::plan::{self, Ready};
use super::start::{CoupledStarts, CoupledTrial};
use super::{basis, identity, labels};
use crate::checkpoint::{self, Checkpoint, CheckpointWriter};
use crate::closed_forms::Steps;
use crate::constraints::{Constraints, vanished};
use crate::device::Device;
use crate::factored::mean;
use crate::monitor::{Monitor, Portions};
use crate::observe::Hooks;
use crate::result::Fit;
use crate::run::uncut;
use crate::settings::{Algorithm, Balance, FactorSetting, Settings};
use crate::sweeps::sweeps;
use crate::{format, kkt, prepare};
use nneinfact_core::data::{Labels, Role};
use nneinfact_core::engine::{Engine, Job, LossSums};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::History;
use nneinfact_core::loss::Loss;
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
    pub structure: Vec<String>,
    pub warnings: Vec<String>,
}

/// Runs a fit to these parts on its device.
pub(super) fn fit(
    mut settings: Settings,
    hooks: Hooks,
    resume: Option<Box<Checkpoint>>,
    parts: Vec<Part>,
) -> Result<Outcome> {
    if hooks.reducer.is_some() || settings.is_cut() {
        return Err(uncut("a fit to several tensors"));
    }
    let device = settings.choose_device()?;
    let (parts, notes) = labels::agree(parts)?;
    let on = device.clone();
    let whole = move || -> Result<Outcome> {
        if settings.bases.is_empty() {
            return run(settings, hooks, resume, parts, &device);
        }
        let mut rewritten = basis::rewrite(settings, parts)?;
        let parts = std::mem::take(&mut rewritten.parts);
        let found = run(rewritten.settings.clone(), hooks, resume, parts, &device)?;
        rewritten.outcome(found)
    };
    let mut outcome = on.install(whole)?;
    outcome.warnings.splice(0..0, notes);
    Ok(outcome)
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
    Ok(())
}

/// A fit whose settings and data go together.
struct Checked {
    ready: Vec<Ready>,
    portions: Portions,
    /// Of the union of the models.
    shapes: Shapes,
    /// For each tensor the places of its factors among all.
    places: Vec<Vec<usize>>,
    constraints: Constraints,
    groups: Vec<Vec<usize>>,
}

fn checked(settings: &mut Settings, parts: Vec<Part>) -> Result<Checked> {
    let (ready, portions) = plan::ready(settings, parts)?;
    let all: Vec<Shapes> = ready.iter().map(|part| part.shapes.clone()).collect();
    let (shapes, places) = Shapes::union(&all)?;
    settings.model = shapes.model().clone();
    let mut constraints = Constraints::new(settings, &shapes)?;
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
    Ok(Checked { ready, portions, shapes, places, constraints, groups })
}

fn run(
    mut settings: Settings,
    mut hooks: Hooks,
    resume: Option<Box<Checkpoint>>,
    parts: Vec<Part>,
    device: &Device,
) -> Result<Outcome> {
    let started = Instant::now();
    check(&settings)?;
    let lock = checkpoint::lock(&settings)?;
    let Checked { ready, portions, shapes, places, constraints, groups } =
        checked(&mut settings, parts)?;
    let identity = settings
        .is_saved()
        .then(|| identity::identity(&settings, &ready, &constraints, &shapes, &groups, device));
    if let (Some(checkpoint), Some(identity)) = (&resume, &identity) {
        checkpoint.check(identity, &shapes)?;
    }
    let starts = CoupledStarts::new(&mut settings, &shapes, &constraints, &places, &ready);
    let mut factors = match &resume {
        Some(checkpoint) => checkpoint.factors()?,
        None => starts.make(settings.seed)?,
    };
    let (mut engine, tensors) =
        open(&settings, ready, (&shapes, &places, &groups), &constraints, &factors, device)?;
    let balanced = engine.balances();
    let mut warnings: Vec<String> =
        plan::falling_away(&shapes, &places, &constraints).into_iter().collect();
    let seed = match &resume {
        Some(checkpoint) => {
            engine.restore(&checkpoint.state)?;
            warnings = checkpoint.warnings().to_vec();
            checkpoint.seed()
        }
        None => {
            let trial = CoupledTrial { settings: &settings, hooks: &hooks, portions, balanced };
            let (best, warning) = starts.best(&mut engine, &mut factors, groups.len(), &trial)?;
            warnings.extend(warning);
            best
        }
    };
    let mut writer =
        CheckpointWriter::new(&settings, identity.as_ref(), &shapes, seed, &warnings, lock);
    if let Some(checkpoint) = &resume {
        writer = writer.map(|writer| writer.after(checkpoint));
    }
    let mut history = History {
        loss_name: names(&tensors),
        heldout_as: portions.split_kind(),
        seed,
        ..settings.empty_history()
    };
    let costs = constraints.has_penalties();
    let mut monitor = Monitor::new(&settings, &mut hooks, portions, started, balanced, costs);
    let position = resume.map(|checkpoint| {
        let (position, seconds, before) = checkpoint.into_parts(&history);
        history = before;
        monitor.resume(&history, seconds);
        position
    });
    sweeps(&mut engine, groups.len(), &mut monitor, &mut history, &mut writer, position)?;
    let factors = engine.factors()?;
    if settings.kkt_residual {
        // What all tensors say of an entry has the scale of a loss with c = 1, as this one has.
        let (each, cancel) = (&constraints.each, &hooks.cancel);
        let found = kkt::residual(&mut engine, &groups, each, &Loss::kl(), cancel);
        history.kkt_residual = found.unwrap_or(None);
    }
    let structure = settings.structure();
    let ends = engine.evaluate_each()?;
    let mut parts = Vec::new();
    for ((tensor, sums), own) in tensors.into_iter().zip(ends).zip(&places) {
        let own: Vec<ArrayD<f64>> = own.iter().map(|&l| factors[l].clone()).collect();
        let gone = tensor.vanished(&own).filter(|_| costs);
        warnings.extend(gone.map(|gone| format!("tensor {}: {gone}", parts.len() + 1)));
        parts.push(tensor.fit(own, &history, sums)?.with_structure(structure.clone()));
    }
    warnings.extend(writer.and_then(|writer| writer.warning()));
    Ok(Outcome { model: shapes.model().clone(), factors, history, parts, structure, warnings })
}

/// The names of all losses.
fn names(tensors: &[Tensor]) -> String {
    let names: Vec<&str> = tensors.iter().map(|tensor| tensor.loss.as_str()).collect();
    names.join(" + ")
}

/// Puts all parts on engines of their own, and these together.
fn open(
    settings: &Settings,
    ready: Vec<Ready>,
    (shapes, places, groups): (&Shapes, &[Vec<usize>], &[Vec<usize>]),
    constraints: &Constraints,
    factors: &[ArrayD<f64>],
    device: &Device,
) -> Result<(CoupledEngine, Vec<Tensor>)> {
    let mut members = Vec::new();
    let mut tensors = Vec::new();
    for (part, own) in ready.into_iter().zip(places) {
        let (member, tensor) = member(part, own, groups, constraints, factors, device)?;
        members.push(member);
        tensors.push(tensor);
    }
    let balance = settings.balance.unwrap_or_default() == Balance::EverySweep;
    let joint = Joint {
        shapes: shapes.clone(),
        groups: groups.to_vec(),
        constraints: constraints.each.clone(),
        structure: constraints.structure.clone(),
        balancing: constraints.balancing.clone().filter(|_| balance),
        floor: settings.factor_floor,
        cycles: settings.inner_cycles,
        guarded: settings.algorithm == Algorithm::Accelerated,
    };
    Ok((CoupledEngine::new(members, joint, factors)?, tensors))
}

/// A part that is fitted: what is left of it for its result.
struct Tensor {
    plan: Arc<Plan>,
    /// Its entries by role: what its losses are divided by.
    portions: Portions,
    /// The name of its loss.
    loss: String,
    labels: Arc<[Labels]>,
    /// The mean of its data.
    mean: f64,
}

impl Tensor {
    /// What to say where the model ended at zero. Where the mean takes more memory than there is, there
    /// is no warning, but there is a fit.
    fn vanished(&self, factors: &[ArrayD<f64>]) -> Option<String> {
        let predicted = mean(self.plan.shapes(), factors).ok()?;
        vanished(factors, predicted, self.mean)
    }

    /// The result, with the losses at the end.
    fn fit(self, factors: Vec<ArrayD<f64>>, all: &History, sums: LossSums) -> Result<Fit> {
        let history = History { loss_name: self.loss, ..end(all, &self.portions, sums) };
        Fit::new(self.plan, factors, history).with_labels(self.labels)
    }
}

/// Puts a part on an engine of its own; gives what its result takes too. `own` has the places of its
/// factors among all.
fn member(
    part: Ready,
    own: &[usize],
    groups: &[Vec<usize>],
    constraints: &Constraints,
    start: &[ArrayD<f64>],
    device: &Device,
) -> Result<(Member, Tensor)> {
    let Ready { mut settings, shapes, data, weight } = part;
    let ties = &constraints.structure.ties;
    let mut grouped: Vec<Vec<usize>> = Vec::new();
    for group in groups {
        let mine = (0..own.len()).filter(|&m| group.contains(&ties[own[m]]));
        match group[..] {
            // Every place of a factor has a pass of its own.
            [_] => grouped.extend(mine.map(|m| vec![m])),
            _ => grouped.extend(Some(mine.collect::<Vec<usize>>()).filter(|g| !g.is_empty())),
        }
    }
    settings.groups = Some(grouped.clone());
    let starts: Vec<ArrayD<f64>> = own.iter().map(|&l| start[l].clone()).collect();
    for (m, _) in own.iter().enumerate().filter(|(_, l)| constraints.each[**l].fixed) {
        let fixed = FactorSetting::Fixed(starts[m].clone());
        settings.factor_settings.push((format!("theta_{}", m + 1), fixed));
    }
    let own_constraints = Constraints::new(&settings, &shapes)?;
    let (labels, mean_of_data) = (Arc::clone(data.labels()), data.level());
    let mut portions = Portions::of(&data);
    portions.add_offsets(&settings.loss, &data, 1.0);
    // What one tensor says is not all that there is: no exact steps.
    let steps = Steps { structured: false, on_cpu: device.kind_name() == "cpu", exact: false };
    let planned = format::choose(&settings, &shapes, data, steps)?;
    let level = planned.data.level();
    let (job, _) = prepare::job(&settings, planned, own_constraints, starts, level)?;
    let job = Job { balancing: None, steps_elsewhere: true, ..job };
    let tensor = Tensor {
        plan: Arc::clone(&job.plan),
        portions,
        loss: job.loss.name().into(),
        labels,
        mean: mean_of_data,
    };
    let loss = job.loss.clone();
    let engine = device.open(job, settings.precision)?;
    Ok((Member::new(engine, (loss, weight), own.to_vec(), grouped, groups, ties), tensor))
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
