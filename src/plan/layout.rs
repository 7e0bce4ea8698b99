//! The layout of a pass: which letters run where, and on which side each operand stands.

use super::Contraction;
use super::cost::{self, LayoutCost};
use super::search::{DataInfo, Settings};
use crate::model::{Letter, Letters, Shapes};

/// The side of a tile on which a tensor stands.
///
/// Inside a tile the model is a small matrix product: `ŷ[m, n] = Σ_k R[m, k] · C[k, n]`, rows `m`
/// by lanes `n`. Every tensor of a pass depends on rows or on lanes (or on neither), never on both,
/// once the outer letters are fixed; `R` and `C` are the products of those on each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Part of `R`, stored as `[outer…, rows…, inner…]`.
    Rows,
    /// Part of `C`, stored as `[outer…, inner…, lanes…]`.
    Lanes,
}

/// The letters of a pass by the loop they belong to. Observed letters are in exactly one of
/// `outer`, `rows` and `lanes`, in the order of decreasing stride in the data; `inner` holds the
/// latent letters that tensors of the pass share.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Layout {
    /// Looped over outside of tiles.
    pub outer: Vec<Letter>,
    /// The rows of a tile.
    pub rows: Vec<Letter>,
    /// The lanes of a tile: the direction of SIMD vectors, contiguous in the data where possible.
    pub lanes: Vec<Letter>,
    /// Summed over: the inner dimension of the product.
    pub inner: Vec<Letter>,
}

/// A stored tensor that a pass reads: the product of some factors.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// The factors it is the product of.
    pub factors: Vec<usize>,
    /// Its letters, in its order in memory.
    pub letters: Vec<Letter>,
    /// Where it stands in a tile.
    pub side: Side,
    /// How it is formed from its factors (inputs in the order of `factors`).
    pub form: Contraction,
}

impl Layout {
    /// The order in memory of a tensor with these letters on this side.
    #[must_use]
    pub fn storage(&self, letters: Letters, side: Side) -> Vec<Letter> {
        let groups: [&[Letter]; 3] = match side {
            Side::Rows => [&self.outer, &self.rows, &self.inner],
            Side::Lanes => [&self.outer, &self.inner, &self.lanes],
        };
        groups.into_iter().flatten().copied().filter(|&x| letters.contains(x)).collect()
    }
}

/// The cheapest layout for a pass over `tensors` (the target first), with the side of each.
pub(super) fn best(
    shapes: &Shapes,
    data: &DataInfo,
    settings: &Settings,
    tensors: &[Letters],
    bound: f64,
) -> Option<(Layout, Vec<Side>, LayoutCost)> {
    let observed = shapes.model().observed();
    let inner = tensors.iter().fold(Letters::EMPTY, |acc, &t| acc | t) - observed;
    // Observed letters by decreasing stride: the last runs fastest in memory.
    let order = data.order(shapes);
    let mut best: Option<(Layout, Vec<Side>, LayoutCost)> = None;
    for outer in outer_candidates(&order, tensors) {
        for lanes in lane_candidates(&order, tensors, outer) {
            let pick = |set: Letters| -> Vec<Letter> {
                order.iter().copied().filter(|&x| set.contains(x)).collect()
            };
            let layout = Layout {
                outer: pick(outer),
                rows: pick(observed - outer - lanes),
                lanes: pick(lanes),
                inner: inner.iter().collect(),
            };
            let sides: Vec<Side> = tensors
                .iter()
                .map(|&t| if t.intersects(lanes) { Side::Lanes } else { Side::Rows })
                .collect();
            let cost = cost::layout(shapes, data, settings, tensors, &layout, &sides);
            let least = best.as_ref().map_or(bound, |b| b.2.seconds);
            if cost.seconds < least {
                best = Some((layout, sides, cost));
            }
        }
    }
    best
}

/// Sets of letters worth looping over outside: all of them while there are few; beyond that those
/// that two tensors share, and prefixes of the order in memory.
fn outer_candidates(order: &[Letter], tensors: &[Letters]) -> Vec<Letters> {
    const EXHAUSTIVE: usize = 6;
    if order.len() <= EXHAUSTIVE {
        return (0..1u32 << order.len())
            .map(|mask| (0..order.len()).filter(|i| mask >> i & 1 == 1).map(|i| order[i]).collect())
            .collect();
    }
    let all: Letters = order.iter().collect();
    let mut found = vec![Letters::EMPTY];
    let mut shared = Letters::EMPTY;
    for (i, &a) in tensors.iter().enumerate() {
        for &b in &tensors[i + 1..] {
            found.push(a & b & all);
            shared = shared | (a & b & all);
        }
        found.push(all - a);
    }
    found.push(shared);
    for end in 1..order.len() {
        let prefix: Letters = order[..end].iter().collect();
        found.push(prefix);
        found.push(prefix | shared);
    }
    found.sort();
    found.dedup();
    found
}

/// Sets of letters that may run as lanes when `outer` are fixed: the letters that tensors hold
/// together cannot be parted, so these are unions of connected components, taken from the fastest
/// in memory upwards.
fn lane_candidates(order: &[Letter], tensors: &[Letters], outer: Letters) -> Vec<Letters> {
    let mut components: Vec<Letters> = Vec::new();
    for &letter in order.iter().filter(|&&x| !outer.contains(x)) {
        let mut component: Letters = std::iter::once(letter).collect();
        for &t in tensors.iter().filter(|t| t.contains(letter)) {
            component = component | (t - outer);
        }
        component = component & order.iter().collect();
        let (touching, apart): (Vec<Letters>, Vec<Letters>) =
            components.into_iter().partition(|c| c.intersects(component));
        components = apart;
        components.push(touching.into_iter().fold(component, |acc, c| acc | c));
    }
    let fastest = |c: &Letters| order.iter().rposition(|&x| c.contains(x));
    components.sort_by_key(|c| std::cmp::Reverse(fastest(c)));
    let mut lanes = Letters::EMPTY;
    let mut found = Vec::new();
    for component in components {
        lanes = lanes | component;
        found.push(lanes);
    }
    found
}
