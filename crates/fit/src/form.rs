//! The form that the data of a fit are in: a value for every cell, or a list of cells.

use std::fmt;

use super::builder::NNEinFact;
use super::open;
use nneinfact_core::data::{Implicit, Prepared, Role, StoredCounts, StoredEntries};
use nneinfact_core::engine::needs;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{AtZero, Loss};
use nneinfact_core::memory::{available_memory, total_memory};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::{DataInfo, ImplicitForm, Plan, SparseInfo};

/// The form that passes read the data in, whatever form they were given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DataAs {
    /// The form whose passes are predicted to take less time.
    #[default]
    Auto,
    /// A value for every cell.
    Dense,
    /// A list of the cells that are not zero.
    Sparse,
}

impl fmt::Display for DataAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DataAs::Auto => "auto",
            DataAs::Dense => "dense",
            DataAs::Sparse => "sparse",
        })
    }
}

/// What a fit runs on.
pub(super) struct Chosen {
    pub plan: Plan,
    pub data: Prepared,
    pub sparse: Option<StoredEntries>,
}

/// A pass over more cells than this is refused: at a nanosecond each it takes minutes.
const MOST_GRID: f64 = 1e11;

/// Chooses the form of the data, with the plan for it.
pub(super) fn choose(
    settings: &NNEinFact,
    shapes: &Shapes,
    loss: &Loss,
    data: Prepared,
) -> Result<Chosen> {
    let zero = loss.at_zero();
    let limit = available_memory().unwrap_or(u64::MAX);
    let data_as = settings.data_as;
    let sparse = match data_as {
        DataAs::Dense => None,
        DataAs::Auto | DataAs::Sparse => Some(sparse_plan(settings, shapes, &zero, &data)),
    };
    let given_dense = data.coo().is_none();
    if data_as == DataAs::Sparse
        && let Some(sparse) = sparse
    {
        let (plan, listing) = sparse?;
        return listed(plan, listing, data, settings);
    }
    let dense = || -> Result<(Plan, DataInfo)> {
        let info = match given_dense {
            true => dense_info(&data),
            false => {
                let mut info = DataInfo::c_order(shapes, value_bytes(&data));
                info.masked = data.count(Role::Train) as f64 != cells(shapes);
                info
            }
        };
        Ok((dense_plan(settings, shapes, info.clone())?, info))
    };
    match sparse {
        Some(Ok((plan, listing))) => {
            // What takes as much memory as there is wins nothing by being a little faster.
            let total = total_memory().unwrap_or(u64::MAX);
            let fits = given_dense || cells(shapes) * 8.0 < total as f64 / 4.0;
            if fits
                && let Ok((other, _)) = dense()
                && other.cost() < plan.cost()
                && let Ok(data) = data.densified(limit)
            {
                let plan = dense_plan(settings, shapes, dense_info(&data))?;
                return Ok(Chosen { plan, data, sparse: None });
            }
            listed(plan, listing, data, settings)
        }
        other => {
            let data = match (data.densified(limit), other) {
                (Ok(data), _) => data,
                // What stands in the way of the list is the better answer.
                (Err(_), Some(Err(sparse))) => return Err(sparse),
                (Err(dense), _) => return Err(dense),
            };
            let plan = dense_plan(settings, shapes, dense_info(&data))?;
            Ok(Chosen { plan, data, sparse: None })
        }
    }
}

/// Finds out whether a form of the data can be planned within memory, without making it.
pub(super) fn check(settings: &NNEinFact, shapes: &Shapes, data: &Prepared) -> Result<()> {
    let zero = settings.loss.at_zero();
    let sparse = match settings.data_as {
        DataAs::Dense => None,
        DataAs::Auto | DataAs::Sparse => Some(
            sparse_plan(settings, shapes, &zero, data)
                .and_then(|(plan, listing)| check_list(&plan, listing, settings)),
        ),
    };
    let sparse = match sparse {
        Some(Ok(())) => return Ok(()),
        Some(Err(error)) if settings.data_as == DataAs::Sparse => return Err(error),
        other => other.and_then(Result::err),
    };
    let info = match data.coo() {
        None => dense_info(data),
        Some(_) => {
            let limit = available_memory().unwrap_or(u64::MAX);
            let needed = cells(shapes) * value_bytes(data) as f64;
            if needed > limit as f64 {
                // What stands in the way of the list is the better answer.
                return Err(sparse.unwrap_or_else(|| Error::Memory {
                    what: "the dense form of the coordinates".into(),
                    needed: needed as u64,
                    available: limit,
                    help: "leave the data as a list".into(),
                }));
            }
            let mut info = DataInfo::c_order(shapes, value_bytes(data));
            info.masked = data.count(Role::Train) as f64 != cells(shapes);
            info
        }
    };
    dense_plan(settings, shapes, info).map(|_| ())
}

/// The plan for a value of every cell, if the memory there is holds what it stores. (LossSums and products
/// of a fit on a GPU are there, and its own memory is asked.)
fn dense_plan(settings: &NNEinFact, shapes: &Shapes, info: DataInfo) -> Result<Plan> {
    let plan = open::plan(settings, shapes, info, None)?;
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

fn cells(shapes: &Shapes) -> f64 {
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

/// The cheapest plan over a list of cells.
fn sparse_plan(
    settings: &NNEinFact,
    shapes: &Shapes,
    zero: &AtZero,
    data: &Prepared,
) -> Result<(Plan, StoredCounts)> {
    let listings = data.stored_counts();
    // Roughly, in units of a dense pass over a cell.
    let weight = |listing: &StoredCounts| {
        let (unlisted, _) = needs(zero, listing.implicit);
        let grid =
            if unlisted == ImplicitForm::ImplicitZeroPass { 0.7 * cells(shapes) } else { 0.0 };
        let each = if listing.implicit == Implicit::Zeros { 10.0 } else { 2.0 };
        grid + 5.0 * listing.train as f64 + each * listing.masked as f64
    };
    let best = listings.into_iter().min_by(|a, b| weight(a).total_cmp(&weight(b)));
    let Some(listing) = best else {
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
    let info = DataInfo { masked: listing.implicit == Implicit::ByRole, ..info };
    Ok((plan_listing(settings, shapes, zero, info, listing)?, listing))
}

/// The plan for a list of nonzeros in data of which nothing is missing.
pub(super) fn plan_list(settings: &NNEinFact, shapes: &Shapes, nonzeros: u64) -> Result<Plan> {
    let listing = StoredCounts { implicit: Implicit::Zeros, train: nonzeros, masked: 0 };
    let info = DataInfo::c_order(shapes, 0);
    plan_listing(settings, shapes, &settings.loss.at_zero(), info, listing)
}

fn plan_listing(
    settings: &NNEinFact,
    shapes: &Shapes,
    zero: &AtZero,
    info: DataInfo,
    listing: StoredCounts,
) -> Result<Plan> {
    let listed = listing.train + listing.masked;
    if listed > u64::from(u32::MAX) {
        return Err(Error::Unsupported(format!(
            "a list of {listed} cells: up to {} can be fitted as a list",
            u32::MAX
        )));
    }
    let (unlisted, _) = needs(zero, listing.implicit);
    if unlisted == ImplicitForm::ImplicitZeroPass && cells(shapes) > MOST_GRID {
        return Err(Error::Setting(format!(
            "the {} loss sums over all {:.1e} cells in every pass, and up to {MOST_GRID:.0e} are feasible: losses whose zeros have a closed form are kl, euclidean, hellinger, pearson, alpha and jensen-shannon; or, if cells that are not listed are missing and not zeros, say so (unlisted_missing, --unlisted-missing)",
            settings.loss.name(),
            cells(shapes)
        )));
    }
    let sampling = SparseInfo {
        stored: listing.train,
        // Where they have a loss only, they hardly count.
        masked: if listing.implicit == Implicit::Zeros { listing.masked } else { 0 },
        implicit: unlisted,
    };
    match open::plan(settings, shapes, info.clone(), Some(sampling)) {
        // Tables of long modes are as large as the factors themselves: not a matter of choice.
        Err(Error::Memory { needed, .. }) if settings.memory_limit.is_none() => {
            let available = available_memory().unwrap_or(u64::MAX);
            let mut limit = needed.max(1);
            loop {
                let info = info.clone();
                match open::plan_within(settings, shapes, info, Some(sampling), limit) {
                    Err(Error::Memory { .. }) if limit < available => {
                        limit = limit.saturating_mul(2);
                    }
                    other => return other,
                }
            }
        }
        plan => plan,
    }
}

/// Makes the list, after a look at the memory that it takes.
fn listed(
    plan: Plan,
    listing: StoredCounts,
    data: Prepared,
    settings: &NNEinFact,
) -> Result<Chosen> {
    check_list(&plan, listing, settings)?;
    let list = data.stored(listing.implicit);
    Ok(Chosen { plan, data, sparse: Some(list) })
}

fn check_list(plan: &Plan, listing: StoredCounts, settings: &NNEinFact) -> Result<()> {
    let precision = settings.precision.bytes() as u64;
    let groups = plan.sparse_passes().iter().map(|pass| {
        let each = 4 * pass.operands.len() as u64 + 16;
        listing.train * (each + precision) + listing.masked * (each + 9)
    });
    // While it is sorted, an entry has a key and a place.
    let needed = groups.sum::<u64>() + 24 * (listing.train + listing.masked);
    let needed = needed
        .saturating_add(plan.memory())
        .saturating_add(plan.shapes().parameters().saturating_mul(48));
    if let Some(available) = available_memory()
        && needed > available
    {
        return Err(Error::Memory {
            what: format!("a fit to {} listed cells", listing.train + listing.masked),
            needed,
            available,
            help: "lower the ranks, or group fewer factors (the block algorithm)".into(),
        });
    }
    Ok(())
}
