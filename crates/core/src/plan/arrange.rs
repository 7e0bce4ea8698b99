//! The choice of a pass's layout.

use super::cost::{self, LayoutCost};
use super::input::{DataInfo, PlanSettings};
use super::layout::{Layout, OperandSide};
use crate::model::{Index, IndexSet, Shapes};

/// What layouts are chosen for.
pub(super) struct Arranger<'a> {
    pub shapes: &'a Shapes,
    pub data: &'a DataInfo,
    pub settings: &'a PlanSettings,
    /// Observed indices by decreasing stride: the last runs fastest in memory.
    pub order: Vec<Index>,
    /// Whether all candidates are tried: those of models with many modes and factors are too many.
    pub thorough: bool,
}

/// Beyond this many candidates of a kind, so many of them are tried, evenly spread.
const TRIED: usize = 12;
/// Up to so many tensors, what any two of them share is a candidate.
const PAIRED: usize = 8;

/// The cheapest layout for a pass over `tensors` (the output first), with the side of each.
pub(super) fn best(
    arranger: &Arranger<'_>,
    tensors: &[IndexSet],
    bound: f64,
) -> Option<(Layout, Vec<OperandSide>, LayoutCost)> {
    let &Arranger { shapes, data, settings, ref order, thorough } = arranger;
    let observed = shapes.model().observed();
    let contracted = tensors.iter().fold(IndexSet::EMPTY, |acc, &t| acc | t) - observed;
    let mut best: Option<(Layout, Vec<OperandSide>, LayoutCost)> = None;
    for batch in batch_candidates(order, tensors, thorough) {
        let mut columns = column_candidates(order, tensors, batch);
        if !thorough {
            columns = spread(columns);
        }
        for columns in columns {
            let pick = |set: IndexSet| -> Vec<Index> {
                order.iter().copied().filter(|&x| set.contains(x)).collect()
            };
            let layout = Layout {
                batch: pick(batch),
                rows: pick(observed - batch - columns),
                columns: pick(columns),
                contracted: contracted.iter().collect(),
            };
            let sides: Vec<OperandSide> = tensors
                .iter()
                .map(|&t| if t.intersects(columns) { OperandSide::Rhs } else { OperandSide::Lhs })
                .collect();
            let cost = cost::layout((shapes, data, settings), order, tensors, &layout, &sides);
            let least = best.as_ref().map_or(bound, |b| b.2.seconds);
            if cost.seconds < least {
                best = Some((layout, sides, cost));
            }
        }
    }
    best
}

/// Sets of indices worth looping over outside: all of them while there are few; beyond that those
/// that two tensors share, and prefixes of the order in memory.
fn batch_candidates(order: &[Index], tensors: &[IndexSet], thorough: bool) -> Vec<IndexSet> {
    const EXHAUSTIVE: usize = 6;
    if order.len() <= EXHAUSTIVE {
        return (0..1u32 << order.len())
            .map(|mask| (0..order.len()).filter(|i| mask >> i & 1 == 1).map(|i| order[i]).collect())
            .collect();
    }
    let all: IndexSet = order.iter().collect();
    let mut found = vec![IndexSet::EMPTY];
    let (mut any, mut shared) = (IndexSet::EMPTY, IndexSet::EMPTY);
    let few = thorough || tensors.len() <= PAIRED;
    for (i, &a) in tensors.iter().enumerate() {
        shared = shared | (any & a & all);
        any = any | a;
        if few {
            found.extend(tensors[i + 1..].iter().map(|&b| a & b & all));
            found.push(all - a);
        }
    }
    found.push(shared);
    let mut prefixes: Vec<IndexSet> =
        (1..order.len()).map(|end| order[..end].iter().collect()).collect();
    if !thorough {
        prefixes = spread(prefixes);
    }
    for prefix in prefixes {
        found.push(prefix);
        found.push(prefix | shared);
    }
    found.sort();
    found.dedup();
    found
}

/// All of a few, else some that are evenly spread, the first and the last among them.
fn spread(candidates: Vec<IndexSet>) -> Vec<IndexSet> {
    let n = candidates.len();
    match n <= TRIED {
        true => candidates,
        false => (0..TRIED).map(|k| candidates[k * (n - 1) / (TRIED - 1)]).collect(),
    }
}

/// Sets of indices that may run as columns when `batch` are fixed: the indices that tensors hold
/// together cannot be parted, so these are unions of connected components, taken from the fastest
/// in memory upwards.
fn column_candidates(order: &[Index], tensors: &[IndexSet], batch: IndexSet) -> Vec<IndexSet> {
    let mut components: Vec<IndexSet> = Vec::new();
    for &index in order.iter().filter(|&&x| !batch.contains(x)) {
        let mut component: IndexSet = std::iter::once(index).collect();
        for &t in tensors.iter().filter(|t| t.contains(index)) {
            component = component | (t - batch);
        }
        component = component & order.iter().collect();
        let (touching, apart): (Vec<IndexSet>, Vec<IndexSet>) =
            components.into_iter().partition(|c| c.intersects(component));
        components = apart;
        components.push(touching.into_iter().fold(component, |acc, c| acc | c));
    }
    let fastest = |c: &IndexSet| order.iter().rposition(|&x| c.contains(x));
    components.sort_by_key(|c| std::cmp::Reverse(fastest(c)));
    let mut columns = IndexSet::EMPTY;
    let mut found = Vec::new();
    for component in components {
        columns = columns | component;
        found.push(columns);
    }
    found
}
