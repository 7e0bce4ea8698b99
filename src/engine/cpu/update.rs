//! The update of a group of factors from the numerator and denominator of its pass.

use pulp::{Simd, WithSimd};

use super::contract::contract;
use crate::error::{Error, Result};
use crate::loss::Majorizer;
use crate::math::{Elementwise, has_fused};
use crate::model::Shapes;
use crate::plan::{Contraction, Group};

/// Factors of change are kept inside this interval in groups of several factors: with an empty or
/// unobserved slice a quotient would be 0 or infinite, and the next one undefined. The surrogate is
/// convex in each factor of change, so moving only part of the way cannot raise the loss.
const CLIP: (f64, f64) = (1e-6, 1e6);

/// A denominator, with the contractions that bring it onto the letters of each factor of the group.
#[derive(Clone, Copy)]
pub(super) struct Denominator<'a> {
    pub data: &'a [f64],
    pub updates: &'a [Contraction],
}

/// Updates the factors of a group in place.
///
/// Cycles over the factors l of the group, each step minimising the surrogate exactly in the
/// factor of change λ_l (docs/method.md): for a power family
/// `λ_l = [⟨N, Θ̃_m λ_m^(1+p_a)⟩ / ⟨D, Θ̃_m λ_m^(1+p_b)⟩]^γ`, contracted over the other factors m.
pub(super) fn update(
    shapes: &Shapes,
    group: &Group,
    majorizer: Majorizer,
    numerator: &[f64],
    denominator: Denominator<'_>,
    cycles: usize,
    factors: &mut [Vec<f64>],
) -> Result<()> {
    let single = group.factors.len() == 1;
    let mut lambda: Vec<Vec<f64>> =
        group.factors.iter().map(|&l| vec![1.0; factors[l].len()]).collect();
    let cycles = if single { 1 } else { cycles };
    for _ in 0..cycles {
        for at in 0..group.factors.len() {
            let others: Vec<usize> = (0..group.factors.len()).filter(|&m| m != at).collect();
            let onto = |plan: &Contraction, sums: &[f64], tensors: &[Vec<f64>]| -> Vec<f64> {
                let mut inputs = vec![sums];
                inputs.extend(tensors.iter().map(Vec::as_slice));
                contract(shapes, plan, &inputs)
            };
            let above = |tensors: &[Vec<f64>]| onto(&group.updates[at], numerator, tensors);
            let below =
                |tensors: &[Vec<f64>]| onto(&denominator.updates[at], denominator.data, tensors);
            let quotient: Vec<f64> = match majorizer {
                Majorizer::Power { p_a, p_b } => {
                    let powered = |p: f64| -> Vec<Vec<f64>> {
                        let of = |&m: &usize| {
                            scaled(&factors[group.factors[m]], &lambda[m], |x| x.powf(1.0 + p))
                        };
                        others.iter().map(of).collect()
                    };
                    let a = above(&powered(p_a));
                    let b = below(&powered(p_b));
                    let step = |(&a, &b): (&f64, &f64)| {
                        if a == 0.0 && b == 0.0 { 1.0 } else { majorizer.g_inverse(a / b) }
                    };
                    a.iter().zip(&b).map(step).collect()
                }
                Majorizer::Log => {
                    let current: Vec<Vec<f64>> = others
                        .iter()
                        .map(|&m| scaled(&factors[group.factors[m]], &lambda[m], |x| x))
                        .collect();
                    let mut a = above(&current);
                    let b = below(&current);
                    for (i, &m) in others.iter().enumerate() {
                        if lambda[m].iter().all(|&x| x == 1.0) {
                            continue;
                        }
                        let mut changed = current.clone();
                        changed[i] = scaled(&factors[group.factors[m]], &lambda[m], |x| x * x.ln());
                        let correction = below(&changed);
                        a.iter_mut().zip(correction).for_each(|(a, c)| *a -= c);
                    }
                    let step = |(&a, &b): (&f64, &f64)| if b == 0.0 { 1.0 } else { (a / b).exp() };
                    a.iter().zip(&b).map(step).collect()
                }
            };
            for (to, quotient) in lambda[at].iter_mut().zip(quotient) {
                *to = if single && quotient.is_finite() {
                    quotient
                } else if quotient.is_nan() {
                    1.0
                } else {
                    quotient.clamp(CLIP.0, CLIP.1)
                };
            }
        }
    }
    for (lambda, &l) in lambda.iter().zip(&group.factors) {
        factors[l].iter_mut().zip(lambda).for_each(|(x, &change)| *x *= change);
        if let Some(at) = factors[l].iter().position(|x| !x.is_finite()) {
            return Err(Error::Numeric(format!(
                "the update of factor {} ({}) overflowed at entry {at}: the data or the start span too many orders of magnitude for this loss",
                l + 1,
                shapes.model().factor_name(l)
            )));
        }
    }
    Ok(())
}

/// `Θ̃ · f(λ)`, and 0 where Θ̃ is: λ may be raised to a negative power.
fn scaled(factor: &[f64], lambda: &[f64], f: impl Fn(f64) -> f64) -> Vec<f64> {
    let entry = |(&x, &change): (&f64, &f64)| if x == 0.0 { 0.0 } else { x * f(change) };
    factor.iter().zip(lambda).map(entry).collect()
}

/// Moves P to `P ⊙ (P / C)^w₀ ⊙ (P / X)^w₁`, P staying where one of them is 0; C becomes P.
pub(super) fn extrapolate(
    plain: &mut [f64],
    before: &mut [f64],
    origin: &[f64],
    weights: [f64; 2],
) {
    pulp::Arch::new().dispatch(Extrapolate { plain, before, origin, weights });
}

/// A type of its own, and not a closure, as only what is inlined into the dispatched function is
/// compiled for its instruction set.
struct Extrapolate<'a> {
    plain: &'a mut [f64],
    before: &'a mut [f64],
    origin: &'a [f64],
    weights: [f64; 2],
}

impl WithSimd for Extrapolate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Extrapolate { plain, before, origin, weights: [momentum, relaxation] } = self;
        let fused = has_fused::<S>();
        for ((x, before), &origin) in plain.iter_mut().zip(before).zip(origin) {
            let p = *x;
            let power = momentum * Elementwise::ln(p / *before, fused)
                + relaxation * Elementwise::ln(p / origin, fused);
            let moved = p * Elementwise::exp(power, fused);
            *before = p;
            // Not a number where two of them are 0; infinite where only C or X is.
            let moves = (moved < f64::INFINITY) & (p > 0.0);
            *x = if moves { moved } else { p };
        }
    }
}

/// Raises entries to `floor` times the largest entry (never below `least`, where the floor is on).
pub(super) fn raise(factor: &mut [f64], floor: f64, least: f64) {
    if floor == 0.0 {
        return;
    }
    let largest = factor.iter().copied().fold(0.0, f64::max);
    let floor = (largest * floor).max(least);
    factor.iter_mut().for_each(|x| *x = x.max(floor));
}
