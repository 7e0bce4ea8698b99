//! One tensor whose factors are tied, smooth, or have rows that add up to 1: its engine says what the data
//! say of each entry, and the steps are made on the host (`coupled/engine.rs`). Half the squared distance is
//! lowered exactly over factors that are in one place and whose rows need not add up.

use std::sync::Arc;

use ndarray::ArrayD;

use crate::constraints::Constraints;
use crate::coupled::engine::{CoupledEngine, Joint};
use crate::coupled::member::Member;
use crate::device::Device;
use crate::settings::{Algorithm, Settings};
use nneinfact_core::engine::{Engine, Job};
use nneinfact_core::error::Result;
use nneinfact_core::plan::{Balancing, Plan};

/// The groups of factors that a fit's passes and updates go over: the plan's, but that all places of a
/// factor are one, which has the number of the first.
pub(crate) fn groups(plan: &Plan, constraints: &Constraints) -> Vec<Vec<usize>> {
    let ties = &constraints.structure.ties;
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for group in plan.groups() {
        let members: Vec<usize> = group.factors.iter().map(|&l| ties[l]).collect();
        if !groups.contains(&members) {
            groups.push(members);
        }
    }
    groups
}

/// Puts a job on a device, with steps on the host where what holds for its factors needs that.
pub(crate) fn open(
    device: &Device,
    settings: &Settings,
    job: Job,
    constraints: &Constraints,
) -> Result<Box<dyn Engine>> {
    if !constraints.structure.is_any() {
        return device.open(job, settings.precision);
    }
    let (plan, start) = (Arc::clone(&job.plan), job.start.clone());
    let balancing = job.balancing.as_ref().map(|balancing| (**balancing).clone());
    // Exact steps know of differences between neighbours. Factors are kept here, in the user's units.
    let roughness = constraints.structure.roughness.iter();
    let differences = roughness.map(|one| one.as_ref().map(|r| r.differences().clone())).collect();
    let job = Job { differences, balancing: None, scales: None, steps_elsewhere: true, ..job };
    let engine = device.open(job, settings.precision)?;
    steps_on_host(engine, &plan, settings, constraints, balancing, &start)
}

/// Makes the steps of a fit on the host, from what an engine says of each entry.
pub(crate) fn steps_on_host(
    engine: Box<dyn Engine>,
    plan: &Plan,
    settings: &Settings,
    constraints: &Constraints,
    balancing: Option<Balancing>,
    start: &[ArrayD<f64>],
) -> Result<Box<dyn Engine>> {
    let groups = groups(plan, constraints);
    let own = plan.groups().iter().map(|group| group.factors.clone()).collect();
    let joint = Joint {
        shapes: plan.shapes().clone(),
        groups: groups.clone(),
        constraints: constraints.each.clone(),
        structure: constraints.structure.clone(),
        balancing,
        floor: settings.factor_floor,
        cycles: settings.inner_cycles,
        guarded: settings.algorithm == Algorithm::Accelerated,
    };
    let loss = (settings.loss.clone(), 1.0);
    let factors = (0..plan.shapes().model().factors().len()).collect();
    let member = Member::new(engine, loss, factors, own, &groups, &constraints.structure.ties);
    Ok(Box::new(CoupledEngine::new(vec![member], joint, start)?))
}
