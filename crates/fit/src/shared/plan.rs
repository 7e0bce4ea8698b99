//! The plan of a fit whose data are cut into slabs: its groups are those of every slab.

use std::sync::Arc;

use super::engine::ExactSteps;
use super::link::Link;
use super::whole::Whole;
use crate::closed_forms::{Exact, RoleCosts, Steps};
use crate::constraints::Constraints;
use crate::device::Device;
use crate::format;
use crate::settings::{Algorithm, Settings};
use nneinfact_core::engine::ZeroSums;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::{DataInfo, Plan, Quadratic, RoleTerm};

/// The plan of all data.
pub(super) struct WholePlan {
    pub plan: Arc<Plan>,
    /// What exact steps need, where there are such.
    pub exact: Option<ExactSteps>,
    /// What slabs are planned for.
    pub steps: Steps,
    /// A sentence where steps are not exact, but would be by default.
    pub notice: Option<String>,
}

/// Plans a fit to all data. What depends on the memory of a machine is decided by all processes together.
pub(super) fn plan(
    link: &mut Link,
    settings: &Settings,
    shapes: &Shapes,
    whole: &Whole,
    constraints: &Constraints,
    device: &Device,
) -> Result<WholePlan> {
    let on_cpu = device.kind_name() == "cpu";
    let barrier = settings.algorithm == Algorithm::Barrier;
    if barrier && !on_cpu {
        return Err(Error::Unsupported(
            "over slabs the barrier algorithm needs sums that the engine of the CPU makes: take the device cpu"
                .into(),
        ));
    }
    let Steps { exact, structured, .. } = Steps::new(settings, constraints, on_cpu);
    let exact = on_cpu && (exact || barrier);
    let steps = Steps { structured, on_cpu, exact };
    let majorized = |link: &mut Link, notice| -> Result<WholePlan> {
        let plan = link.together(planned(settings, shapes, whole))?;
        Ok(WholePlan { plan, exact: None, steps: Steps { exact: false, ..steps }, notice })
    };
    if !steps.exact {
        return majorized(link, None);
    }
    let by_rows = barrier || !whole.plain;
    if by_rows && whole.weights_mapped {
        return match barrier {
            true => Err(Error::Unsupported(
                "over slabs the barrier algorithm needs weights in memory: read them, or fit without --stream"
                    .into(),
            )),
            false => majorized(link, None),
        };
    }
    // A step of coordinate descent needs the sums of one factor, which are few.
    let algorithm = match settings.groups {
        None => Algorithm::Block,
        Some(_) => settings.algorithm,
    };
    let single = planned(&Settings { algorithm, ..settings.clone() }, shapes, whole);
    let plan = link.together(single)?;
    if plan.groups().iter().any(|group| group.factors.len() > 1) {
        let notice = "over slabs, groups of several factors are updated by majorization in place of exact steps: leave the choice of groups to the fit, or take groups of one factor";
        return majorized(link, Some(notice.to_string()));
    }
    match objectives(link, settings, &plan, whole, by_rows)? {
        Ok(objectives) => {
            let exact = Some(ExactSteps { objectives, by_rows });
            Ok(WholePlan { plan, exact, steps, notice: None })
        }
        Err(Some(needed)) if barrier => Err(Error::Memory {
            what: "the barrier algorithm, which holds a matrix of latent values for every row of a factor,".into(),
            needed,
            available: settings.memory_limit.or(nneinfact_core::memory::available_memory()).unwrap_or(0),
            help: "lower the ranks".into(),
        }),
        Err(None) if barrier => Err(Error::Unsupported(format!(
            "over slabs the barrier algorithm has no quadratic forms for {}: it has more indices than there are letters for",
            shapes.model()
        ))),
        Err(needed) => majorized(link, needed.and_then(|needed| Exact::TooLarge(needed).warning())),
    }
}

/// The exact objectives of a plan of groups of one factor; where they would be too large, the bytes that
/// they would take.
fn objectives(
    link: &mut Link,
    settings: &Settings,
    plan: &Plan,
    whole: &Whole,
    by_rows: bool,
) -> Result<Result<Vec<Quadratic>, Option<u64>>> {
    let (shapes, groups) = (plan.shapes(), plan.groups().iter());
    if !by_rows {
        let all: Option<Vec<Quadratic>> =
            groups.map(|group| Quadratic::new(shapes, group)).collect();
        return Ok(all.ok_or(None));
    }
    let bytes = settings.precision.bytes();
    let Some(costs) = RoleCosts::new(plan, RoleTerm::Pairs, whole.listed, bytes) else {
        return Ok(Err(None));
    };
    if link.agree(Ok(u64::from(!costs.fit(settings, plan))))? > 0 {
        return Ok(Err(Some(costs.bytes)));
    }
    let all: Option<Vec<Quadratic>> =
        groups.map(|group| Quadratic::by_rows(shapes, group, f64::INFINITY)).collect();
    Ok(all.ok_or(None))
}

fn planned(settings: &Settings, shapes: &Shapes, whole: &Whole) -> Result<Arc<Plan>> {
    let info = DataInfo {
        masked: whole.masked,
        weight_bytes: whole.weight_bytes,
        ..DataInfo::c_order(shapes, whole.value_bytes)
    };
    let sparse = whole.stored.map(|counts| {
        let info = DataInfo::c_order(shapes, 0);
        let form = ZeroSums::new(&settings.loss.at_zero(), counts.implicit).form();
        format::plan_stored(settings, shapes, info, counts, form)
    });
    match sparse {
        Some(Ok(plan)) => Ok(Arc::new(plan)),
        _ => format::plan(settings, shapes, info, None).map(Arc::new),
    }
}
