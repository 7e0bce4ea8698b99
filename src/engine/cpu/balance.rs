//! Balancing: changes of scale that leave ŷ as it is and lower the penalties.

use super::contract::rearrange;
use super::update::{floor_of, raise};
use crate::engine::Rule;
use crate::loss::Penalty;
use crate::model::Shapes;
use crate::plan::{Balancing, Trade};

/// A cycle that changes no scale by more than this is the last.
const SETTLED: f64 = 1e-13;

/// Makes the trades of scale that lower the penalties most, at most `cycles` times over.
///
/// In a trade over the letters S, the slices of factor l at an index of S, with the sum g_l of their
/// θ^p_l, are brought to p_l μ_l g_l = β, where β = (Π_l (p_l μ_l g_l)^(1/p_l))^(1 / Σ_l 1/p_l): the
/// least Σ μ_l g_l among all scales whose product is 1 (docs/method.md). Where the slices of one
/// factor are zero, no term of ŷ takes those of the others, and they become zero.
///
/// Every factor of a trade has a penalty with μ > 0.
pub(crate) fn balance(
    shapes: &Shapes,
    balancing: &Balancing,
    penalties: &[Option<Penalty>],
    factors: &mut [Vec<f64>],
    cycles: usize,
) {
    for _ in 0..cycles {
        let mut moved = 0f64;
        for trade in balancing.trades() {
            moved = moved.max(make(shapes, trade, penalties, factors));
        }
        if moved <= SETTLED {
            break;
        }
    }
}

/// Makes every trade once, on factors that are kept above a floor (relative to the largest entry, and at
/// least): what stands there counts as zero, which would be worth more on another scale.
pub(in crate::engine) fn trade(
    shapes: &Shapes,
    balancing: &Balancing,
    rules: &[Rule],
    factors: &mut [Vec<f64>],
    [floor, least]: [f64; 2],
) {
    let trading = balancing.factors();
    for &l in &trading {
        let floor = floor_of(&factors[l], floor, least);
        factors[l].iter_mut().filter(|x| **x <= floor).for_each(|x| *x = 0.0);
    }
    let penalties: Vec<Option<Penalty>> = rules.iter().map(|rule| rule.penalty).collect();
    balance(shapes, balancing, &penalties, factors, 1);
    trading.into_iter().for_each(|l| raise(&mut factors[l], floor, least, &rules[l]));
}

/// The penalties of all factors.
pub(in crate::engine) fn penalty(factors: &[Vec<f64>], rules: &[Rule]) -> f64 {
    let of = |(factor, rule): (&Vec<f64>, &Rule)| {
        let penalty = rule.penalty?;
        Some(factor.iter().map(|&x| penalty.value(x)).sum::<f64>())
    };
    factors.iter().zip(rules).filter_map(of).sum()
}

/// Makes one trade; returns the largest change of the logarithm of a scale.
fn make(
    shapes: &Shapes,
    trade: &Trade,
    penalties: &[Option<Penalty>],
    factors: &mut [Vec<f64>],
) -> f64 {
    let names = shapes.model().factors();
    let parts: Vec<(usize, Penalty)> =
        trade.factors.iter().filter_map(|&l| Some((l, penalties[l]?))).collect();
    // ln(p μ g) for each factor and index of S.
    let mut levels: Vec<Vec<f64>> = parts
        .iter()
        .map(|&(l, penalty)| {
            let powers: Vec<f64> = factors[l].iter().map(|&x| penalty.of(x)).collect();
            let sums = rearrange(shapes, &names[l], &powers, &trade.letters);
            let weight = penalty.weight() * penalty.power();
            sums.into_iter().map(|g| (weight * g).ln()).collect()
        })
        .collect();
    let inverse: f64 = parts.iter().map(|(_, penalty)| 1.0 / penalty.power()).sum();
    let count: usize = shapes.sizes(&trade.letters).iter().product();
    let mut moved = 0f64;
    for index in 0..count {
        let of =
            |(level, (_, penalty)): (&Vec<f64>, &(usize, Penalty))| level[index] / penalty.power();
        let beta = levels.iter().zip(&parts).map(of).sum::<f64>() / inverse;
        // One of them is zero, or out of range.
        let usable = beta.is_finite();
        let empty = levels.iter().any(|level| level[index] == f64::NEG_INFINITY);
        for (level, (_, penalty)) in levels.iter_mut().zip(&parts) {
            level[index] = match usable {
                true => {
                    let change = (beta - level[index]) / penalty.power();
                    moved = moved.max(change.abs());
                    change.exp()
                }
                false if empty => 0.0,
                false => 1.0,
            };
        }
    }
    for (scales, (l, _)) in levels.iter().zip(parts) {
        let scales = rearrange(shapes, &trade.letters, scales, &names[l]);
        factors[l].iter_mut().zip(scales).for_each(|(x, scale)| *x *= scale);
    }
    moved
}
