//! Balancing: changes of scale that leave ŷ as it is and lower the penalties.

use super::contract::rearrange;
use super::update::{apply_floor, floor_of};
use crate::engine::Constraint;
use crate::loss::Penalty;
use crate::model::{Index, Shapes};
use crate::plan::{Balancing, Rescaling, RescalingStep};

/// A cycle that changes no scale by more than this is the last.
const CONVERGED: f64 = 1e-13;
/// A scale whose logarithm is larger than this leaves the range of numbers.
const MOST: f64 = 700.0;
/// Newton steps of a rescaling step, at most: with equal powers the first one is exact.
const STEPS: usize = 40;

/// What becomes of slices that no term of ŷ takes, as those of another factor are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// They become zero.
    Vanish,
    /// They stay as they are: where steps reach zeros, the others may come back.
    Stay,
}

impl Idle {
    /// What becomes of them where steps are exact, or not.
    #[must_use]
    pub fn of(exact: bool) -> Idle {
        if exact { Idle::Stay } else { Idle::Vanish }
    }
}

/// Makes the rescalings that lower the penalties most, at most `cycles` times over.
///
/// In a rescaling over the indices S, the slices of factor l at an index of S, with the sum g_l of
/// their θ^p_l, are brought to p_l μ_l g_l = β, where β = (Π_l (p_l μ_l g_l)^(1/p_l))^(1 / Σ_l
/// 1/p_l): the least Σ μ_l g_l among all scales whose product is 1 (docs/method.md). Where the
/// slices of one factor are zero, no term of ŷ takes those of the others, and they become zero, or
/// stay ([`Idle`]).
///
/// Every factor of a rescaling has a penalty with μ > 0.
pub fn balance(
    shapes: &Shapes,
    balancing: &Balancing,
    penalties: &[Option<Penalty>],
    factors: &mut [Vec<f64>],
    (cycles, idle): (usize, Idle),
) {
    for _ in 0..cycles {
        let mut moved = 0f64;
        for rescaling in balancing.rescalings() {
            moved = moved.max(apply_rescaling(shapes, rescaling, penalties, factors, idle));
        }
        for step in balancing.rescaling_steps() {
            moved = moved.max(apply_step(shapes, step, penalties, factors, idle));
        }
        if moved <= CONVERGED {
            break;
        }
    }
}

/// Makes every rescaling once, on factors that are kept above a floor (relative to the largest
/// entry, and at least): what stands there counts as zero, which would be worth more on another
/// scale.
pub fn rescale(
    shapes: &Shapes,
    balancing: &Balancing,
    constraints: &[Constraint],
    factors: &mut [Vec<f64>],
    [floor, least]: [f64; 2],
    idle: Idle,
) {
    let rescaled = balancing.factors();
    for &l in &rescaled {
        let floor = floor_of(&factors[l], floor, least);
        factors[l].iter_mut().filter(|x| **x <= floor).for_each(|x| *x = 0.0);
    }
    let penalties: Vec<Option<Penalty>> =
        constraints.iter().map(|constraint| constraint.penalty).collect();
    balance(shapes, balancing, &penalties, factors, (1, idle));
    rescaled.into_iter().for_each(|l| apply_floor(&mut factors[l], floor, least, &constraints[l]));
}

/// The penalties of all factors.
pub fn penalty(factors: &[Vec<f64>], constraints: &[Constraint]) -> f64 {
    let of = |(factor, constraint): (&Vec<f64>, &Constraint)| {
        let penalty = constraint.penalty?;
        Some(factor.iter().map(|&x| penalty.value(x)).sum::<f64>())
    };
    factors.iter().zip(constraints).filter_map(of).sum()
}

/// The slices of a factor over a set of indices.
struct Slices {
    factor: usize,
    penalty: Penalty,
    /// For every entry of the factor, the index of its slice.
    of: Vec<usize>,
    /// ln(p μ g) of each slice, −∞ where it is zero.
    levels: Vec<f64>,
}

impl Slices {
    fn new(
        shapes: &Shapes,
        indices: &[Index],
        (factor, penalty): (usize, Penalty),
        data: &[f64],
    ) -> Slices {
        let count: usize = shapes.sizes(indices).iter().product();
        let slices: Vec<f64> = (0..count).map(|index| index as f64).collect();
        let of = rearrange(shapes, indices, &slices, &shapes.model().factors()[factor]);
        let of: Vec<usize> = of.into_iter().map(|index| index as usize).collect();
        let mut largest = vec![0f64; count];
        for (&x, &index) in data.iter().zip(&of) {
            largest[index] = largest[index].max(x);
        }
        // Relative to the largest entry, as powers leave the range of numbers long before entries
        // do.
        let mut sums = vec![0f64; count];
        for (&x, &index) in data.iter().zip(&of) {
            if x > 0.0 {
                sums[index] += penalty.of(x / largest[index]);
            }
        }
        let weight = (penalty.weight() * penalty.power()).ln();
        let level = |(sum, most): (f64, f64)| weight + sum.ln() + penalty.power() * most.ln();
        let levels = sums.into_iter().zip(largest).map(level).collect();
        Slices { factor, penalty, of, levels }
    }

    fn is_empty(&self, index: usize) -> bool {
        self.levels[index] == f64::NEG_INFINITY
    }

    /// Multiplies the slices with scales.
    fn scale(&self, scales: &[f64], data: &mut [f64]) {
        data.iter_mut().zip(&self.of).for_each(|(x, &index)| *x *= scales[index]);
    }
}

/// Makes one rescaling; returns the largest change of the logarithm of a scale.
fn apply_rescaling(
    shapes: &Shapes,
    rescaling: &Rescaling,
    penalties: &[Option<Penalty>],
    factors: &mut [Vec<f64>],
    idle: Idle,
) -> f64 {
    let parts: Vec<Slices> = rescaling
        .factors
        .iter()
        .filter_map(|&l| Some((l, penalties[l]?)))
        .map(|part| Slices::new(shapes, &rescaling.indices, part, &factors[part.0]))
        .collect();
    let inverse: f64 = parts.iter().map(|part| 1.0 / part.penalty.power()).sum();
    let count: usize = shapes.sizes(&rescaling.indices).iter().product();
    let mut scales = vec![vec![1.0; count]; parts.len()];
    let mut moved = 0f64;
    for index in 0..count {
        if parts.iter().any(|part| part.is_empty(index)) {
            if idle == Idle::Vanish {
                scales.iter_mut().for_each(|scales| scales[index] = 0.0);
            }
            continue;
        }
        let of = |part: &Slices| part.levels[index] / part.penalty.power();
        let beta = parts.iter().map(of).sum::<f64>() / inverse;
        let changes: Vec<f64> =
            parts.iter().map(|part| (beta - part.levels[index]) / part.penalty.power()).collect();
        // Not so where one of them is out of range.
        if changes.iter().all(|change| change.abs() < MOST) {
            for (scales, change) in scales.iter_mut().zip(changes) {
                moved = moved.max(change.abs());
                scales[index] = change.exp();
            }
        }
    }
    for (part, scales) in parts.iter().zip(&scales) {
        part.scale(scales, &mut factors[part.factor]);
    }
    moved
}

/// Makes one rescaling step: for each combination of its indices, the u of least
/// `Σ_one μ g e^(p u) + Σ_other μ g e^(−p u)`, a convex function. Returns the largest |u|.
///
/// Where all slices of one side are zero those of the other become zero: no tensor has one of them
/// without one of the first side.
fn apply_step(
    shapes: &Shapes,
    step: &RescalingStep,
    penalties: &[Option<Penalty>],
    factors: &mut [Vec<f64>],
    idle: Idle,
) -> f64 {
    let sides = step.sides.each_ref().map(|side| -> Vec<Slices> {
        side.iter()
            .filter_map(|&l| Some((l, penalties[l]?)))
            .map(|part| Slices::new(shapes, &step.indices, part, &factors[part.0]))
            .collect()
    });
    let count: usize = shapes.sizes(&step.indices).iter().product();
    let mut scales = [vec![1.0; count], vec![1.0; count]];
    let mut moved = 0f64;
    for index in 0..count {
        let [one, other] = sides.each_ref().map(|side| side.iter().all(|s| s.is_empty(index)));
        if one || other {
            if idle == Idle::Vanish {
                scales.iter_mut().for_each(|scales| scales[index] = 0.0);
            }
            continue;
        }
        let u = balanced_scale(&sides, index);
        if u.abs() < MOST {
            moved = moved.max(u.abs());
            (scales[0][index], scales[1][index]) = (u.exp(), (-u).exp());
        }
    }
    for (side, scales) in sides.iter().zip(&scales) {
        side.iter().for_each(|slices| slices.scale(scales, &mut factors[slices.factor]));
    }
    moved
}

/// The root of `ln Σ_one p μ g e^(p u) − ln Σ_other p μ g e^(−p u)`, whose derivative is at least
/// 2.
fn balanced_scale(sides: &[Vec<Slices>; 2], index: usize) -> f64 {
    // The logarithm of a sum, and its derivative.
    let sum = |side: &[Slices], u: f64| {
        let levels = side.iter().filter(|s| !s.is_empty(index)).map(|s| {
            let p = s.penalty.power();
            (s.levels[index] + p * u, p)
        });
        let most = levels.clone().fold(f64::NEG_INFINITY, |most, (level, _)| most.max(level));
        let [sum, derivative] = levels.fold([0.0; 2], |[sum, derivative], (level, p)| {
            let part = (level - most).exp();
            [sum + part, derivative + p * part]
        });
        (most + sum.ln(), derivative / sum)
    };
    let at = |u: f64| {
        let ((one, rise), (other, fall)) = (sum(&sides[0], u), sum(&sides[1], -u));
        (one - other, rise + fall)
    };
    let reach = 0.5 * at(0.0).0.abs();
    let (mut low, mut high) = (-reach, reach);
    let mut u = 0.0;
    for _ in 0..STEPS {
        let (value, derivative) = at(u);
        if value < 0.0 {
            low = u
        } else {
            high = u
        }
        let step = value / derivative;
        let next = u - step;
        u = if next >= low && next <= high { next } else { 0.5 * (low + high) };
        if step.is_nan() || step.abs() <= 1e-15 * u.abs().max(1.0) {
            break;
        }
    }
    u
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    #[test]
    fn powers_of_tiny_entries_are_no_zeros() {
        let shapes =
            Shapes::new(&Model::parse("ir,jr->ij").unwrap(), &[2, 3], &[('r', 2)]).unwrap();
        let balancing = Balancing::new(shapes.model(), &[0, 1]);
        for p in [2.0, 20.0] {
            let ridge = Some(Penalty::new(1.0, p));
            // The first component is far from the second one, too.
            let mut factors =
                vec![vec![1e-170, 1.0, 2e-170, 3.0], vec![5.0, 1.0, 4.0, 2.0, 1e150, 0.5]];
            let before = factors.clone();
            balance(&shapes, &balancing, &[ridge, ridge], &mut factors, (10, Idle::Vanish));
            for i in 0..2 {
                for (j, r) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)] {
                    let term = |f: &[Vec<f64>]| f[0][2 * i + r] * f[1][2 * j + r];
                    let (found, expected) = (term(&factors), term(&before));
                    assert!((found - expected).abs() <= 1e-12 * expected, "{p}: {found:e}");
                }
            }
            // What stands for a column is its largest entry, or nearly.
            let largest = |f: &[f64]| f.iter().step_by(2).fold(0f64, |m, &x| m.max(x));
            let [left, right] = [largest(&factors[0]), largest(&factors[1])];
            assert!((left / right - 1.0).abs() < 0.2, "{p}: {left:e} {right:e}");
        }
    }

    #[test]
    fn rescaling_steps_lower_penalties_and_leave_every_tensor() {
        // ir,jr->ij and ir,kr->ik.
        let model = Model::parse("ir,jr,kr->ijk").unwrap();
        let shapes = Shapes::new(&model, &[2, 2, 2], &[('r', 2)]).unwrap();
        let balancing = Balancing::coupled(&model, &[0, 1, 2], &[vec![0, 1], vec![0, 2]]);
        let penalties = [Penalty::l1(2.0), Penalty::new(0.3, 2.0), Penalty::new(0.1, 3.0)];
        let all: Vec<Option<Penalty>> = penalties.into_iter().map(Some).collect();
        let mut factors = vec![
            vec![50.0, 0.1, 20.0, 0.4],
            vec![1.0, 2.0, 0.0, 3.0],
            // The second component is in none of the second tensor.
            vec![0.5, 0.0, 0.7, 0.0],
        ];
        let before = factors.clone();
        let value = |factors: &[Vec<f64>]| -> f64 {
            let of = |(f, p): (&Vec<f64>, &Penalty)| f.iter().map(|&x| p.value(x)).sum::<f64>();
            factors.iter().zip(&penalties).map(of).sum()
        };
        balance(&shapes, &balancing, &all, &mut factors, (1, Idle::Vanish));
        assert!(value(&factors) < 0.5 * value(&before), "{}", value(&factors));
        for other in [1, 2] {
            for (i, j, r) in (0..8).map(|n| (n / 4, n / 2 % 2, n % 2)) {
                let term = |f: &[Vec<f64>]| f[0][2 * i + r] * f[other][2 * j + r];
                assert!((term(&factors) - term(&before)).abs() <= 1e-14 * term(&before));
            }
        }
        // No other scale is better.
        for r in 0..2 {
            for scale in [0.5, 0.9, 0.99, 1.01, 1.1, 2.0] {
                let mut moved = factors.clone();
                moved[0].iter_mut().skip(r).step_by(2).for_each(|x| *x *= scale);
                for l in [1, 2] {
                    moved[l].iter_mut().skip(r).step_by(2).for_each(|x| *x /= scale);
                }
                assert!(value(&moved) > value(&factors), "{r}: {scale}");
            }
        }
        // A component that the shared factor does not have is nowhere.
        factors[0] = vec![0.0, 1.0, 0.0, 1.0];
        balance(&shapes, &balancing, &all, &mut factors, (1, Idle::Vanish));
        assert!(factors[1][0] == 0.0 && factors[1][2] == 0.0 && factors[2][0] == 0.0);
    }
}
