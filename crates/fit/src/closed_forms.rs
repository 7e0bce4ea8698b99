//! Which closed forms a fit has where entries differ in what they count: by their roles, or by
//! weights.

use crate::constraints::Constraints;
use crate::device::Device;
use crate::settings::{Algorithm, Settings};
use nneinfact_core::data::{Implicit, Prepared, StoredCounts};
use nneinfact_core::engine::ZeroSums;
use nneinfact_core::error::bytes;
use nneinfact_core::loss::AtZero;
use nneinfact_core::memory::total_memory;
use nneinfact_core::model::IndexSet;
use nneinfact_core::plan::{ImplicitForm, Plan, Quadratic, RolePass, RoleTerm};

/// What is known of a fit's steps before it is planned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    /// Whether factors are tied, smooth, or have rows that add up to 1.
    pub structured: bool,
    /// Whether the fit runs on the CPU, whose exact steps go beside structure, too.
    pub on_cpu: bool,
    /// Whether its steps may be exact: half the squared distance, accelerated, under penalties that
    /// are linear or quadratic.
    pub exact: bool,
}

impl Steps {
    pub fn new(settings: &Settings, constraints: &Constraints, on_cpu: bool) -> Steps {
        // Accelerated fits are free in how they get there.
        let exact = settings.algorithm == Algorithm::Accelerated
            && settings.loss.is_half_squared_distance()
            && exact_structure(constraints, on_cpu)
            && constraints
                .penalties()
                .iter()
                .flatten()
                .all(|penalty| [1.0, 2.0].contains(&penalty.power()));
        Steps { structured: constraints.structure.is_any(), on_cpu, exact }
    }

    /// What the sums over the entries of each role are of.
    pub fn term(self) -> RoleTerm {
        if self.exact { RoleTerm::Pairs } else { RoleTerm::Linear }
    }

    /// How implicit entries of a kind enter, where memory holds what that takes.
    pub fn implicit_form(self, zero: &AtZero, implicit: Implicit) -> ImplicitForm {
        let by_role = match self.exact {
            true => ZeroSums::exact_by_role(zero),
            false => ZeroSums::by_role(zero),
        };
        match implicit == Implicit::ByRole && by_role.is_some() {
            true => ImplicitForm::ByRole,
            false => ZeroSums::new(zero, implicit).form(),
        }
    }
}

/// Whether exact steps go with what holds within and among factors: some factor has to be free for them.
fn exact_structure(constraints: &Constraints, on_cpu: bool) -> bool {
    let structure = &constraints.structure;
    let free = |l: usize| !constraints.each[l].fixed && structure.steps_exactly(l);
    let some = || (0..constraints.each.len()).any(free);
    !structure.is_any() || (on_cpu && some())
}

/// What sums over the entries of each role take in all groups of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RoleCosts {
    /// Predicted seconds of a sweep on a nominal core.
    pub seconds: f64,
    /// Additions of a sweep.
    pub additions: f64,
    pub bytes: u64,
    /// Numbers of the largest tensor.
    pub words: f64,
}

impl RoleCosts {
    /// For rows that list so many entries in all; `None` where such sums cannot be written down.
    pub fn new(
        plan: &Plan,
        term: RoleTerm,
        listed: u64,
        element_bytes: usize,
    ) -> Option<RoleCosts> {
        let shapes = plan.shapes();
        let (mut seconds, mut additions, mut needed) = (0.0, 0.0, 0.0);
        let mut words = 0.0f64;
        for group in plan.groups() {
            let pass = RolePass::new(shapes, group, term, listed, element_bytes)?;
            seconds += pass.cost;
            additions += listed as f64 * pass.width(shapes);
            needed += pass.bytes;
            words = words.max(pass.words);
            if term == RoleTerm::Pairs {
                let quadratic = Quadratic::by_rows(shapes, group, f64::INFINITY)?;
                let volume =
                    |output: &[_]| quadratic.shapes.volume(output.iter().collect::<IndexSet>());
                let forms = quadratic.factors.iter().map(|form| {
                    let contraction = &form.contraction;
                    volume(contraction.output()).max(contraction.peak())
                });
                let (gram, form) = (volume(quadratic.gram.output()), forms.fold(0.0, f64::max));
                needed += 8.0 * (gram + form);
                words = words.max(gram).max(form);
            }
        }
        Some(RoleCosts { seconds, additions, bytes: needed as u64, words })
    }

    /// Whether that is within memory.
    pub fn fit(self, settings: &Settings, plan: &Plan) -> bool {
        // A shader of a GPU sees no more of a tensor than this.
        let largest = settings.device.as_ref().and_then(Device::largest_buffer);
        self.bytes <= limit(settings, plan)
            && largest.is_none_or(|most| self.words * size_of::<f32>() as f64 <= most as f64)
    }
}

/// The most that sums over the entries of each role may take: what was asked for, or a quarter of
/// the memory there is.
fn limit(settings: &Settings, plan: &Plan) -> u64 {
    let quarter = total_memory().map_or(u64::MAX, |total| total / 4);
    settings.memory_limit.unwrap_or_else(|| plan.settings().memory.max(quarter))
}

/// The costs of a plan of dense or sparse passes over data with roles or weights; `None` where it has
/// no such sums.
pub(crate) fn costs(
    settings: &Settings,
    steps: Steps,
    plan: &Plan,
    data: &Prepared,
    counts: Option<StoredCounts>,
) -> Option<RoleCosts> {
    let listed = match counts {
        Some(counts) if counts.implicit == Implicit::Missing => counts.train,
        Some(counts) if counts.implicit == Implicit::Zeros => counts.masked,
        _ if data.weights().is_some() => data.values().len() as u64,
        _ => data.minority(),
    };
    let costs = RoleCosts::new(plan, steps.term(), listed, settings.precision.bytes())?;
    let copied = match data.weights().is_some() && !steps.on_cpu {
        // In the order of the rows of each group.
        true => 4 * listed * plan.groups().len() as u64,
        false => 0,
    };
    Some(RoleCosts { bytes: costs.bytes.saturating_add(copied), ..costs })
}

/// Whether steps of a fit can be exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Exact {
    Yes,
    /// The loss, the algorithm or the device has none.
    No,
    /// They would take so many bytes.
    TooLarge(u64),
}

impl Exact {
    pub fn of(
        settings: &Settings,
        steps: Steps,
        plan: &Plan,
        data: &Prepared,
        counts: Option<StoredCounts>,
    ) -> Exact {
        // The steps of tied factors are multiplicative, which numerators of either sign have no bound for.
        if !steps.exact || (steps.structured && data.has_negative()) {
            return Exact::No;
        }
        if data.weights().is_none() && data.is_all_train() {
            return Exact::Yes;
        }
        let mapped = data.weights().is_some_and(|weights| weights.is_mapped());
        if mapped {
            return Exact::No;
        }
        let by_role = |form: ImplicitForm| form == ImplicitForm::ByRole;
        if plan.settings().sparse.is_some_and(|sparse| by_role(sparse.implicit)) {
            return Exact::Yes;
        }
        match costs(settings, steps, plan, data, counts) {
            Some(costs) if costs.fit(settings, plan) => Exact::Yes,
            Some(costs) => Exact::TooLarge(costs.bytes),
            None => Exact::No,
        }
    }

    /// What the user should know.
    pub fn warning(self) -> Option<String> {
        let Exact::TooLarge(needed) = self else { return None };
        Some(format!(
            "half the squared distance is lowered by majorization here, which takes more sweeps than exact steps: the quadratic form of every row would take {}; a higher memory limit, or fewer factors in a group (the block algorithm), allows them",
            bytes(needed)
        ))
    }
}
