//! Dense or sparse: the format that passes read the data in, and the plan for it. All planning of a
//! fit is here.

use crate::closed_forms::{self, Exact, Steps};
use crate::constraints;
use crate::device::Device;
use crate::settings::{Format, Settings};
use nneinfact_core::data::{Implicit, Prepared, StoredCounts, StoredEntries};
use nneinfact_core::engine::ZeroSums;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{AtZero, Loss, Tape};
use nneinfact_core::memory::{available_memory, entries as entries_of, total_memory};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::{DataInfo, Grouping, ImplicitForm, Plan, PlanSettings, SparseInfo};

/// The data of a fit in the format that its passes read, with the plan of these passes.
pub(crate) struct Planned {
    pub plan: Plan,
    pub data: Prepared,
    /// The entries that passes go over, where the format is sparse.
    pub sparse: Option<StoredEntries>,
    pub steps: Steps,
}

impl Planned {
    /// Whether the steps of the fit can be exact.
    pub fn exact(&self, settings: &Settings) -> Exact {
        let counts = self.sparse.as_ref().map(StoredEntries::counts);
        Exact::of(settings, self.steps, &self.plan, &self.data, counts)
    }
}

/// A pass over more entries than this is refused: at a nanosecond each it takes minutes.
const MOST_IMPLICIT: f64 = 1e11;

/// Chooses the format of the data: the one whose passes are predicted to take less time, where the
/// settings leave the choice.
pub(crate) fn choose(
    settings: &Settings,
    shapes: &Shapes,
    data: Prepared,
    steps: Steps,
) -> Result<Planned> {
    let zero = settings.loss.at_zero();
    let limit = available_memory().unwrap_or(u64::MAX);
    let data_as = settings.data_as;
    let sparse = match data_as {
        Format::Dense => None,
        Format::Auto | Format::Sparse => Some(sparse_plan(settings, shapes, &zero, &data, steps)),
    };
    let given_dense = data.coo().is_none();
    if data_as == Format::Sparse
        && let Some(sparse) = sparse
    {
        let (plan, counts) = sparse?;
        return stored(plan, counts, data, steps);
    }
    let dense = || -> Result<(Plan, DataInfo)> {
        let info = match given_dense {
            true => dense_info(&data),
            false => expanded_info(shapes, &data),
        };
        Ok((dense_plan(settings, shapes, info.clone(), &data, steps)?, info))
    };
    let with_roles = |plan: &Plan, counts| role_seconds(settings, steps, plan, &data, counts);
    match sparse {
        Some(Ok((plan, counts))) => {
            // What takes as much memory as there is wins nothing by being a little faster.
            let total = total_memory().unwrap_or(u64::MAX);
            let fits = given_dense || {
                let each = 8 + data.dense_weight_bytes();
                entries(shapes) * (each as f64) < total as f64 / 4.0
            };
            // By what both would cost in C order: the same numbers in another order of memory are to
            // go the same way.
            let in_c_order = |plan: &Plan, info: DataInfo, sparse| -> f64 {
                let c = info.clone().in_c_order(shapes);
                match c == info {
                    true => plan.cost(),
                    false => {
                        let closed = plan.settings().closed_denominator;
                        planned(settings, shapes, c, sparse, closed)
                            .map_or(plan.cost(), |p| p.cost())
                    }
                }
            };
            let cost = in_c_order(&plan, plan.data().clone(), plan.settings().sparse)
                + with_roles(&plan, Some(counts));
            if fits
                && let Ok((other, info)) = dense()
                && in_c_order(&other, info, None) + with_roles(&other, None) < cost
                && let Ok(data) = data.densified(limit)
            {
                let plan = dense_plan(settings, shapes, dense_info(&data), &data, steps)?;
                return Ok(Planned { plan, data, sparse: None, steps });
            }
            stored(plan, counts, data, steps)
        }
        other => {
            let data = match (data.densified(limit), other) {
                (Ok(data), _) => data,
                // What stands in the way of the list is the better answer.
                (Err(_), Some(Err(sparse))) => return Err(sparse),
                (Err(dense), _) => return Err(dense),
            };
            let plan = dense_plan(settings, shapes, dense_info(&data), &data, steps)?;
            Ok(Planned { plan, data, sparse: None, steps })
        }
    }
}

/// What sums over the entries of each role add to the cost of a plan that has such.
fn role_seconds(
    settings: &Settings,
    steps: Steps,
    plan: &Plan,
    data: &Prepared,
    counts: Option<StoredCounts>,
) -> f64 {
    let by_role = match counts {
        Some(_) => plan.settings().sparse.is_some_and(|s| s.implicit == ImplicitForm::ByRole),
        None => plan.settings().closed_denominator && !data.is_all_train(),
    };
    let costs = by_role.then(|| closed_forms::costs(settings, steps, plan, data, counts));
    costs.flatten().map_or(0.0, |costs| costs.seconds)
}

/// Plans a fit.
pub(crate) fn plan(
    settings: &Settings,
    shapes: &Shapes,
    data: DataInfo,
    sparse_info: Option<SparseInfo>,
) -> Result<Plan> {
    planned(settings, shapes, data, sparse_info, false)
}

/// Plans a fit whose engine sums over the entries of each role, where dense passes need such sums for
/// a closed denominator (`closed_by_role`).
fn planned(
    settings: &Settings,
    shapes: &Shapes,
    data: DataInfo,
    sparse_info: Option<SparseInfo>,
    closed_by_role: bool,
) -> Result<Plan> {
    let entries = shapes.volume(shapes.model().observed());
    let precision = settings.precision;
    let default = || {
        let share = match sparse_info {
            Some(info) => 32.0 * (info.stored + info.masked) as f64,
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
    plan_within(settings, shapes, data, sparse_info, (memory, closed_by_role))
}

/// Plans a fit whose intermediates take at most so many bytes.
fn plan_within(
    settings: &Settings,
    shapes: &Shapes,
    data: DataInfo,
    sparse_info: Option<SparseInfo>,
    (memory, closed_by_role): (u64, bool),
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
    let plain = (!data.masked || closed_by_role) && data.weight_bytes == 0 && sparse_info.is_none();
    let mut planner = PlanSettings {
        grouping: settings.grouping(),
        element_bytes: settings.precision.bytes(),
        entry_cost: entry_cost(loss),
        closed_denominator: plain && loss.denominator_constant().is_some(),
        sparse: sparse_info,
        fixed: constraints::fixed(settings)?,
        exact: PlanSettings::EXACT,
        // A shader of a GPU sees the products of a pass as one buffer.
        memory: memory
            .min(settings.device.as_ref().and_then(Device::largest_buffer).unwrap_or(u64::MAX)),
    };
    let by_role = sparse_info.is_some_and(|sparse| sparse.implicit == ImplicitForm::ByRole)
        || closed_by_role && data.masked;
    if by_role && matches!(planner.grouping, Grouping::Grouped) {
        // Fits take the same steps where memory has no room for sums by roles: the groups are those there.
        let implicit = ZeroSums::new(&loss.at_zero(), Implicit::ByRole).form();
        let sparse = sparse_info.map(|sparse| SparseInfo { implicit, ..sparse });
        let without = PlanSettings { closed_denominator: false, sparse, ..planner.clone() };
        if let Ok(plan) = Plan::new(shapes, &data, &without) {
            let groups = plan.groups().iter().map(|group| group.factors.clone()).collect();
            planner.grouping = Grouping::Given(groups);
        }
    }
    Ok(Plan::new(shapes, &data, &planner)?)
}

/// Elementwise operations per entry of the data, roughly.
fn entry_cost(loss: &Loss) -> f64 {
    let tape = Tape::compile(&[loss.a(), loss.b(), loss.loss()]);
    4.0 + tape.len() as f64 + 20.0 * tape.transcendentals() as f64
}

/// Finds out whether a format of the data can be planned within memory, without making it; gives the plan of
/// one that can.
pub(crate) fn check(
    settings: &Settings,
    shapes: &Shapes,
    data: &Prepared,
    steps: Steps,
) -> Result<Plan> {
    let zero = settings.loss.at_zero();
    let sparse = match settings.data_as {
        Format::Dense => None,
        Format::Auto | Format::Sparse => Some(
            sparse_plan(settings, shapes, &zero, data, steps)
                .and_then(|(plan, counts)| check_stored(&plan, counts).map(|()| plan)),
        ),
    };
    let sparse = match sparse {
        Some(Ok(plan)) => return Ok(plan),
        Some(Err(error)) if settings.data_as == Format::Sparse => return Err(error),
        other => other.and_then(Result::err),
    };
    let info = match data.coo() {
        None => dense_info(data),
        Some(_) => {
            let limit = available_memory().unwrap_or(u64::MAX);
            let each = value_bytes(data) + data.dense_weight_bytes();
            let needed = entries(shapes) * each as f64;
            if needed > limit as f64 {
                // What stands in the way of the list is the better answer.
                return Err(sparse.unwrap_or_else(|| Error::Memory {
                    what: "the dense form of the coordinates".into(),
                    needed: needed as u64,
                    available: limit,
                    help: "leave the data as a list".into(),
                }));
            }
            expanded_info(shapes, data)
        }
    };
    dense_plan(settings, shapes, info, data, steps)
}

/// The plan of dense passes, if the memory there is holds what it stores. (On a GPU, sums and products
/// are in its own memory, which the engine asks about.)
fn dense_plan(
    settings: &Settings,
    shapes: &Shapes,
    info: DataInfo,
    data: &Prepared,
    steps: Steps,
) -> Result<Plan> {
    let closed = match info.masked && info.weight_bytes == 0 {
        true if settings.loss.denominator_constant().is_some() => {
            // The plan as if it were, for what its groups are.
            let plan = planned(settings, shapes, info.clone(), None, true)?;
            let costs = closed_forms::costs(settings, steps, &plan, data, None);
            costs.is_some_and(|costs| costs.fit(settings, &plan)).then_some(plan)
        }
        _ => None,
    };
    let plan = match closed {
        Some(plan) => plan,
        None => plan(settings, shapes, info, None)?,
    };
    let on_gpu = settings.device.as_ref().is_some_and(|device| device.kind_name() == "gpu");
    let needed = plan.memory().saturating_add(shapes.parameters().saturating_mul(8 * 6));
    if let Some(available) = available_memory()
        && needed > available
        && !on_gpu
    {
        return Err(Error::Memory {
            what: "the stored products and sums of a fit".into(),
            needed,
            available,
            help: "set a lower memory limit, or group fewer factors (the block algorithm)".into(),
        });
    }
    Ok(plan)
}

/// Bytes of a value, were coordinates expanded.
fn value_bytes(data: &Prepared) -> usize {
    data.coo().map_or(4, |list| (list.values().bytes() / list.len().max(1) as u64).max(1) as usize)
}

/// What dense passes would read, were coordinates expanded.
fn expanded_info(shapes: &Shapes, data: &Prepared) -> DataInfo {
    DataInfo {
        masked: !data.is_all_train(),
        weight_bytes: data.dense_weight_bytes(),
        ..DataInfo::c_order(shapes, value_bytes(data))
    }
}

fn entries(shapes: &Shapes) -> f64 {
    shapes.volume(shapes.model().observed())
}

fn dense_info(data: &Prepared) -> DataInfo {
    let values = data.values();
    DataInfo {
        strides: values.strides().to_vec(),
        // Of data that stay in a file those that they would have in memory: the plan decides the
        // order of all sums, and is to be the same.
        value_bytes: values.storage().kind().bytes(),
        masked: data.roles().is_some(),
        weight_bytes: data.weights().map_or(0, |w| w.storage().kind().bytes()),
        streamed: data.is_mapped(),
    }
}

/// The cheapest plan of sparse passes.
fn sparse_plan(
    settings: &Settings,
    shapes: &Shapes,
    zero: &AtZero,
    data: &Prepared,
    steps: Steps,
) -> Result<(Plan, StoredCounts)> {
    let counted = data.stored_counts(settings.loss.accepts_zeros());
    // Roughly, in units of a dense pass over one entry.
    let weight = |counts: &StoredCounts| {
        let implicit = match steps.implicit_form(zero, counts.implicit) {
            ImplicitForm::ImplicitZeroPass => 0.7 * entries(shapes),
            ImplicitForm::ByRole => 0.3 * data.minority() as f64,
            ImplicitForm::Missing | ImplicitForm::Closed | ImplicitForm::Gram => 0.0,
        };
        let each = if counts.implicit == Implicit::Zeros { 10.0 } else { 2.0 };
        implicit + 5.0 * counts.train as f64 + each * counts.masked as f64
    };
    let best = counted.into_iter().min_by(|a, b| weight(a).total_cmp(&weight(b)));
    let Some(counts) = best else {
        return Err(Error::Setting(
            "weights other than 0 and 1 need dense passes over the data, and sparse ones were asked for"
                .into(),
        ));
    };
    let info = match data.coo() {
        Some(_) => DataInfo::c_order(shapes, 0),
        None => {
            DataInfo { strides: data.values().strides().to_vec(), ..DataInfo::c_order(shapes, 0) }
        }
    };
    let info = DataInfo { masked: counts.implicit == Implicit::ByRole, ..info };
    // Of the ways to write the implicit entries the first whose sums memory holds.
    let forms =
        [steps.implicit_form(zero, counts.implicit), ZeroSums::new(zero, counts.implicit).form()];
    if forms[0] != forms[1] {
        let plan = plan_stored(settings, shapes, info.clone(), counts, forms[0])?;
        let costs = closed_forms::costs(settings, steps, &plan, data, Some(counts));
        if costs.is_some_and(|costs| costs.fit(settings, &plan)) {
            return Ok((plan, counts));
        }
    }
    Ok((plan_stored(settings, shapes, info, counts, forms[1])?, counts))
}

/// The plan of sparse passes over so many nonzeros of data of which nothing is missing.
pub(crate) fn plan_of_nonzeros(
    settings: &Settings,
    shapes: &Shapes,
    nonzeros: u64,
) -> Result<Plan> {
    let counts = StoredCounts { implicit: Implicit::Zeros, train: nonzeros, masked: 0 };
    let info = DataInfo::c_order(shapes, 0);
    let form = ZeroSums::new(&settings.loss.at_zero(), counts.implicit).form();
    plan_stored(settings, shapes, info, counts, form)
}

/// The plan of dense passes over data of which some entries are withheld.
pub(crate) fn plan_of_split(
    settings: &Settings,
    shapes: &Shapes,
    value_bytes: usize,
) -> Result<Plan> {
    let info = DataInfo { masked: true, ..DataInfo::c_order(shapes, value_bytes) };
    let closed = settings.loss.denominator_constant().is_some();
    planned(settings, shapes, info, None, closed)
}

/// The plan of sparse passes over so many nonzeros, this share of which is withheld like all entries.
pub(crate) fn plan_of_split_nonzeros(
    settings: &Settings,
    shapes: &Shapes,
    nonzeros: u64,
    share: f64,
    steps: Steps,
) -> Result<Plan> {
    let masked = (nonzeros as f64 * share) as u64;
    let implicit = Implicit::ByRole;
    let counts = StoredCounts { implicit, train: nonzeros.saturating_sub(masked), masked };
    let form = steps.implicit_form(&settings.loss.at_zero(), implicit);
    let info = DataInfo { masked: true, ..DataInfo::c_order(shapes, 0) };
    plan_stored(settings, shapes, info, counts, form)
}

/// The plan of sparse passes over so many nonzeros, this share of which is withheld by strata, with so many
/// zeros beside each.
pub(crate) fn plan_of_strata(
    settings: &Settings,
    shapes: &Shapes,
    nonzeros: u64,
    share: f64,
    zeros_per_nonzero: f64,
) -> Result<Plan> {
    let withheld = nonzeros as f64 * share;
    let masked = (withheld * (1.0 + zeros_per_nonzero)) as u64;
    let train = nonzeros.saturating_sub(withheld as u64);
    let counts = StoredCounts { implicit: Implicit::Zeros, train, masked };
    let form = ZeroSums::new(&settings.loss.at_zero(), counts.implicit).form();
    plan_stored(settings, shapes, DataInfo::c_order(shapes, 0), counts, form)
}

pub(crate) fn plan_stored(
    settings: &Settings,
    shapes: &Shapes,
    info: DataInfo,
    counts: StoredCounts,
    form: ImplicitForm,
) -> Result<Plan> {
    let entries_stored = counts.train + counts.masked;
    if entries_stored > u64::from(u32::MAX) {
        return Err(Error::Unsupported(format!(
            "a list of {entries_stored} entries: up to {} can be fitted as a list",
            u32::MAX
        )));
    }
    if form == ImplicitForm::ImplicitZeroPass && entries(shapes) > MOST_IMPLICIT {
        return Err(Error::Setting(format!(
            "the {} loss sums over all {:.1e} entries in every pass, and up to {MOST_IMPLICIT:.0e} are feasible: losses whose zeros have a closed form are kl, euclidean, hellinger, pearson, alpha and jensen-shannon; or, if entries that are not listed are missing and not zeros, say so (unlisted_missing, --unlisted-missing)",
            settings.loss.name(),
            entries(shapes)
        )));
    }
    let sparse_info = SparseInfo {
        stored: counts.train,
        // Masked entries have a loss only, which hardly counts.
        masked: if counts.implicit == Implicit::Zeros { counts.masked } else { 0 },
        implicit: form,
    };
    match plan(settings, shapes, info.clone(), Some(sparse_info)) {
        // Khatri–Rao tables of long modes are as large as the factors themselves: not a matter of choice.
        Err(Error::Memory { needed, .. }) if settings.memory_limit.is_none() => {
            let available = available_memory().unwrap_or(u64::MAX);
            let mut limit = needed.max(1);
            // Each is a search of its own, which takes long for many factors.
            let many = shapes.model().factors().len() > PlanSettings::EXACT;
            let more = |limit: u64| match many {
                true => limit.saturating_mul(16).min(available),
                false => limit.saturating_mul(2),
            };
            loop {
                let info = info.clone();
                match plan_within(settings, shapes, info, Some(sparse_info), (limit, false)) {
                    Err(Error::Memory { .. }) if limit < available => {
                        limit = more(limit);
                    }
                    other => return other,
                }
            }
        }
        plan => plan,
    }
}

/// Sorts the stored entries for passes, once it is known that memory holds them.
fn stored(plan: Plan, counts: StoredCounts, data: Prepared, steps: Steps) -> Result<Planned> {
    check_stored(&plan, counts)?;
    let list = data.stored(counts.implicit);
    Ok(Planned { plan, data, sparse: Some(list), steps })
}

fn check_stored(plan: &Plan, counts: StoredCounts) -> Result<()> {
    // While it is sorted, an entry has a key, a place, and rows.
    let needed = 24 * (counts.train + counts.masked);
    let needed = needed
        .saturating_add(plan.memory())
        .saturating_add(plan.shapes().parameters().saturating_mul(48));
    if let Some(available) = available_memory()
        && needed > available
    {
        return Err(Error::Memory {
            what: format!("a fit to stored data ({})", entries_of(counts.train + counts.masked)),
            needed,
            available,
            help: "lower the ranks, or group fewer factors (the block algorithm)".into(),
        });
    }
    Ok(())
}
