//! Pairs of factors whose product is an image.

use std::ops::Range;

use ndarray::{Axis, IxDyn};

use nneinfact_core::model::{Index, IndexSet};
use nneinfact_fit::Saved;

/// Two factors of one mode each that share an index which no other factor has: their product is an
/// image.
pub(super) struct Pair {
    pub first: usize,
    pub second: usize,
    pub component_index: Index,
    pub summed: Vec<Index>,
    /// The rows and columns that are shown.
    pub window: [Range<usize>; 2],
}

/// The share of all images that may lie beyond each edge of what is shown of them.
pub(super) const OUTSIDE: f64 = 2e-3;

/// The indices of a factor that are modes of the data.
pub(super) fn observed(saved: &Saved, l: usize) -> Vec<Index> {
    let all = saved.model().observed();
    saved.model().factors()[l].iter().copied().filter(|&x| all.contains(x)).collect()
}

/// The latent indices of a factor.
pub(super) fn latent(saved: &Saved, l: usize) -> Vec<Index> {
    let all = saved.model().latent();
    saved.model().factors()[l].iter().copied().filter(|&x| all.contains(x)).collect()
}

/// The number of factors that have an index.
pub(super) fn uses(saved: &Saved, index: Index) -> usize {
    saved.model().factors().iter().filter(|f| f.contains(&index)).count()
}

/// All pairs of a model; no factor is in two of them.
pub(super) fn pairs(saved: &Saved) -> Vec<Pair> {
    let count = saved.model().factors().len();
    let mut pairs: Vec<Pair> = Vec::new();
    for first in 0..count {
        for second in first + 1..count {
            let taken = |l: usize| pairs.iter().any(|p| p.first == l || p.second == l);
            let (a, b) = (observed(saved, first), observed(saved, second));
            if a.len() != 1 || b.len() != 1 || a == b || taken(first) || taken(second) {
                continue;
            }
            let sets: [IndexSet; 2] =
                [first, second].map(|l| latent(saved, l).into_iter().collect());
            if sets[0] != sets[1] {
                continue;
            }
            let (summed, kept): (Vec<Index>, Vec<Index>) =
                sets[0].iter().partition(|&x| uses(saved, x) == 2);
            if let (false, &[component_index]) = (summed.is_empty(), kept.as_slice()) {
                let size = |x: &[Index]| 0..saved.shapes().size(x[0]);
                let whole = [size(&a), size(&b)];
                let mut pair = Pair { first, second, component_index, summed, window: whole };
                pair.window = window(saved, &pair).unwrap_or(pair.window);
                pairs.push(pair);
            }
        }
    }
    pairs
}

/// The part of a factor of a pair that belongs to a component: rows of its mode, columns of the indices that
/// are summed over.
pub(super) fn unfold(
    saved: &Saved,
    pair: &Pair,
    l: usize,
    component: usize,
) -> Option<(usize, Vec<f64>)> {
    let indices = &saved.model().factors()[l];
    let axis = indices.iter().position(|&x| x == pair.component_index)?;
    let part = saved.factors()[l].index_axis(Axis(axis), component);
    let rest: Vec<Index> = indices.iter().copied().filter(|&x| x != pair.component_index).collect();
    let mode = observed(saved, l);
    let order: Option<Vec<usize>> =
        mode.iter().chain(&pair.summed).map(|x| rest.iter().position(|y| y == x)).collect();
    let turned = part.permuted_axes(IxDyn(&order?));
    Some((turned.shape()[0], turned.iter().copied().collect()))
}

/// The part of the images where nearly everything is, the same for all components: of a city only
/// the few places where something happens. `None` where that is not much smaller than the whole.
fn window(saved: &Saved, pair: &Pair) -> Option<[Range<usize>; 2]> {
    let mut sums: [Vec<f64>; 2] = pair.window.clone().map(|r| vec![0.0; r.len()]);
    for component in 0..saved.shapes().size(pair.component_index) {
        let sides = [
            unfold(saved, pair, pair.first, component)?,
            unfold(saved, pair, pair.second, component)?,
        ];
        let columns = sides.each_ref().map(|(m, values)| {
            let k = values.len() / (*m).max(1);
            (0..k).map(|c| values.iter().skip(c).step_by(k).sum::<f64>()).collect::<Vec<f64>>()
        });
        let total: f64 = columns[0].iter().zip(&columns[1]).map(|(a, b)| a * b).sum();
        if total > 0.0 {
            for (side, sums) in sums.iter_mut().enumerate() {
                let (m, values) = &sides[side];
                let k = values.len() / (*m).max(1);
                for (i, sum) in sums.iter_mut().enumerate() {
                    let row = &values[i * k..][..k];
                    let other = &columns[1 - side];
                    *sum += row.iter().zip(other).map(|(a, b)| a * b).sum::<f64>() / total;
                }
            }
        }
    }
    let part = sums.each_ref().map(|sums| {
        let most = OUTSIDE * sums.iter().sum::<f64>();
        let mut gone = 0.0;
        let below = |x: &&f64| {
            gone += **x;
            gone < most
        };
        let from = sums.iter().take_while(below).count();
        gone = 0.0;
        let below = |x: &&f64| {
            gone += **x;
            gone < most
        };
        let to = sums.len() - sums.iter().rev().take_while(below).count();
        from.saturating_sub(1)..(to + 1).min(sums.len())
    });
    let area = |part: &[Range<usize>; 2]| (part[0].len() * part[1].len()) as f64;
    (part.iter().all(|r| r.len() > 3) && area(&part) < 0.6 * area(&pair.window)).then_some(part)
}
