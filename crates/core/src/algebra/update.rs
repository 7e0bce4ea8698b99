//! The update of a group of factors from the numerator and denominator of its pass.

use std::borrow::Cow;

use pulp::{Simd, WithSimd};

use super::contract::{contract, contract_borrowed};
use crate::engine::{Constraint, Extrapolation};
use crate::error::{Error, Result};
use crate::loss::{Loss, Majorizer};
use crate::model::Shapes;
use crate::parallel;
use crate::plan::{Contraction, Group};
use nneinfact_simd::{Elementwise, has_fused};

/// Factors of change are kept inside this interval in groups of several factors: with an empty or
/// unobserved slice a quotient would be 0 or infinite, and the next one undefined. The surrogate is
/// convex in each factor of change, so moving only part of the way cannot increase the loss.
const CLIP: (f64, f64) = (1e-6, 1e6);

/// A denominator, with the contractions that bring it onto the indices of each factor of the group.
#[derive(Clone, Copy)]
pub struct Denominator<'a> {
    /// Its entries.
    pub data: &'a [f64],
    /// One contraction for each factor of the group.
    pub updates: &'a [Contraction],
}

/// What the factors of a group are updated from.
pub struct Update<'a> {
    /// The model with its sizes.
    pub shapes: &'a Shapes,
    /// The group that is updated.
    pub group: &'a Group,
    /// The loss, whose majorizer says how numerator and denominator make a step.
    pub loss: &'a Loss,
    /// In the model's order, in the units of the factors as they are here.
    pub constraints: &'a [Constraint],
    /// The numerator of the group's pass.
    pub numerator: &'a [f64],
    /// The denominator of the group's pass.
    pub denominator: Denominator<'a>,
    /// How often the factors are cycled over.
    pub cycles: usize,
}

impl Update<'_> {
    /// Updates the factors of the group in place.
    ///
    /// Cycles over the factors l of the group, each step minimising the surrogate, with the penalty
    /// of the factor, exactly in the factor of change λ_l (docs/method.md): without one, for a
    /// power family `λ_l = [⟨N, Θ̃_m λ_m^(1+p_a)⟩ / ⟨D, Θ̃_m λ_m^(1+p_b)⟩]^γ`, contracted over the
    /// other factors m.
    pub fn apply(&self, factors: &mut [Vec<f64>]) -> Result<()> {
        let members = &self.group.factors;
        let single = members.len() == 1;
        let mut lambda: Vec<Vec<f64>> =
            members.iter().map(|&l| vec![1.0; factors[l].len()]).collect();
        let cycles = if single { 1 } else { self.cycles };
        for _ in 0..cycles {
            for (at, &l) in members.iter().enumerate() {
                let (a, b) = self.parts_borrowed(at, factors, &lambda);
                let step = step(self.loss, self.constraints[l]);
                let bounded = Bounded { single, constraint: self.constraints[l] };
                let theta = &factors[l];
                parallel::chunks(&mut lambda[at], parallel::ENTRIES, &|first, to| {
                    let entries = theta[first..].iter().zip(a[first..].iter().zip(&b[first..]));
                    for (to, (&theta, (&a, &b))) in to.iter_mut().zip(entries) {
                        *to = bounded.change(theta, step(theta, a, b));
                    }
                });
            }
        }
        for (lambda, &l) in lambda.iter().zip(members) {
            parallel::chunks(&mut factors[l], parallel::ENTRIES, &|first, entries| {
                entries.iter_mut().zip(&lambda[first..]).for_each(|(x, &change)| *x *= change);
            });
            if let Some(at) = factors[l].iter().position(|x| !x.is_finite()) {
                return Err(overflowed(self.shapes, l, at));
            }
        }
        Ok(())
    }

    /// Numerator and denominator of every entry of the group's factor `at`, `lambda` being the
    /// factors of change so far.
    pub fn parts(
        &self,
        at: usize,
        factors: &[Vec<f64>],
        lambda: &[Vec<f64>],
    ) -> (Vec<f64>, Vec<f64>) {
        let (a, b) = self.parts_borrowed(at, factors, lambda);
        (a.into_owned(), b.into_owned())
    }

    /// The same; what is a sum of the pass as it is, is not copied.
    fn parts_borrowed(
        &self,
        at: usize,
        factors: &[Vec<f64>],
        lambda: &[Vec<f64>],
    ) -> (Cow<'_, [f64]>, Cow<'_, [f64]>) {
        let members = &self.group.factors;
        let others: Vec<usize> = (0..members.len()).filter(|&m| m != at).collect();
        let above = |tensors: &[Vec<f64>]| {
            onto(self.shapes, &self.group.updates[at], self.numerator, tensors)
        };
        let below = |tensors: &[Vec<f64>]| {
            onto(self.shapes, &self.denominator.updates[at], self.denominator.data, tensors)
        };
        match self.loss.majorizer() {
            Majorizer::Power { p_a, p_b } => {
                let powered = |p: f64| -> Vec<Vec<f64>> {
                    let of =
                        |&m: &usize| scaled(&factors[members[m]], &lambda[m], |x| x.powf(1.0 + p));
                    others.iter().map(of).collect()
                };
                (above(&powered(p_a)), below(&powered(p_b)))
            }
            Majorizer::Log => {
                let current: Vec<Vec<f64>> = others
                    .iter()
                    .map(|&m| scaled(&factors[members[m]], &lambda[m], |x| x))
                    .collect();
                let mut a = above(&current);
                for (i, &m) in others.iter().enumerate() {
                    if lambda[m].iter().all(|&x| x == 1.0) {
                        continue;
                    }
                    let mut changed = current.clone();
                    changed[i] = scaled(&factors[members[m]], &lambda[m], |x| x * x.ln());
                    let correction = below(&changed);
                    a.to_mut().iter_mut().zip(&*correction).for_each(|(a, c)| *a -= c);
                }
                let b = below(&current);
                (a, b)
            }
        }
    }
}

/// A sum of a pass contracted with some tensors.
fn onto<'a>(
    shapes: &Shapes,
    plan: &Contraction,
    sums: &'a [f64],
    tensors: &[Vec<f64>],
) -> Cow<'a, [f64]> {
    if tensors.is_empty() {
        return contract_borrowed(shapes, plan, &[sums]);
    }
    let inputs: Vec<&[f64]> =
        std::iter::once(sums).chain(tensors.iter().map(Vec::as_slice)).collect();
    Cow::Owned(contract(shapes, plan, &inputs))
}

/// The factor of change of an entry of a factor under a constraint, from the entry and its parts of
/// numerator and denominator.
pub fn step(loss: &Loss, constraint: Constraint) -> impl Fn(f64, f64, f64) -> f64 + Sync + use<> {
    let majorizer = loss.majorizer();
    let constant = loss.curvature_constant();
    move |theta, a, b| match constraint.penalty {
        Some(penalty) => {
            let penalty_gradient = penalty.derivative(theta) / constant.abs();
            majorizer.penalized(a, b, penalty_gradient, penalty.power(), constant < 0.0)
        }
        None => match majorizer {
            Majorizer::Power { .. } if a == 0.0 && b == 0.0 => 1.0,
            Majorizer::Log if b == 0.0 => 1.0,
            _ => majorizer.g_inverse(a / b),
        },
    }
}

/// What a factor of change may be.
pub struct Bounded {
    /// Whether the group has this factor only.
    pub single: bool,
    /// The bounds of its entries.
    pub constraint: Constraint,
}

impl Bounded {
    /// The factor of change nearest to `change` that the entry `theta` may have.
    pub fn change(&self, theta: f64, change: f64) -> f64 {
        let change = if self.single && change.is_finite() {
            change
        } else if change.is_nan() {
            1.0
        } else {
            change.clamp(CLIP.0, CLIP.1)
        };
        match theta > 0.0 {
            true => change.max(self.constraint.lower / theta).min(self.constraint.upper / theta),
            false => change,
        }
    }
}

/// A factor's entry is not finite after its update.
pub fn overflowed(shapes: &Shapes, l: usize, entry: usize) -> Error {
    Error::Numeric(format!(
        "the update of factor {} ({}) overflowed at entry {entry}: the data or the start span too many orders of magnitude for this loss",
        l + 1,
        shapes.model().factor_name(l)
    ))
}

/// `Θ̃ · f(λ)`, and 0 where Θ̃ is: λ may be taken to a negative power.
fn scaled(factor: &[f64], lambda: &[f64], f: impl Fn(f64) -> f64) -> Vec<f64> {
    let entry = |(&x, &change): (&f64, &f64)| if x == 0.0 { 0.0 } else { x * f(change) };
    factor.iter().zip(lambda).map(entry).collect()
}

/// Moves P to `P ⊙ max((P / C)^momentum ⊙ (P / X)^relaxation, least)`, P staying where one of them is 0; C
/// becomes P.
pub fn extrapolate(plain: &mut [f64], before: &mut [f64], origin: &[f64], by: Extrapolation) {
    parallel::chunks_of_two(plain, before, parallel::ENTRIES, &|first, plain, before| {
        let origin = &origin[first..];
        pulp::Arch::new().dispatch(Extrapolate { plain, before, origin, by });
    });
}

/// A type of its own, and not a closure, as only what is inlined into the dispatched function is
/// compiled for its instruction set.
struct Extrapolate<'a> {
    plain: &'a mut [f64],
    before: &'a mut [f64],
    origin: &'a [f64],
    by: Extrapolation,
}

impl WithSimd for Extrapolate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Extrapolate { plain, before, origin, by } = self;
        let Extrapolation { momentum, relaxation, least } = by;
        let fused = has_fused::<S>();
        let least = least.ln();
        for ((x, before), &origin) in plain.iter_mut().zip(before).zip(origin) {
            let p = *x;
            let power = momentum * Elementwise::ln(p / *before, fused)
                + relaxation * Elementwise::ln(p / origin, fused);
            // NaN stays NaN.
            let power = if power < least { least } else { power };
            let moved = p * Elementwise::exp(power, fused);
            *before = p;
            // Not a number where two of them are 0; infinite where only C or X is.
            let moves = (moved < f64::INFINITY) & (p > 0.0);
            *x = if moves { moved } else { p };
        }
    }
}

/// The floor that entries are clamped to: `floor` times the largest entry (never below `least`), or
/// 0 where the floor is off.
pub fn floor_of(factor: &[f64], floor: f64, least: f64) -> f64 {
    match floor {
        0.0 => 0.0,
        _ => (factor.iter().copied().fold(0.0, f64::max) * floor).max(least),
    }
}

/// Clamps entries to the floor from below, and brings them inside the bounds.
pub fn apply_floor(factor: &mut [f64], floor: f64, least: f64, constraint: &Constraint) {
    let floor = floor_of(factor, floor, least).max(constraint.lower);
    if floor > 0.0 || constraint.upper.is_finite() {
        parallel::chunks(factor, parallel::ENTRIES, &|_, entries| {
            entries.iter_mut().for_each(|x| *x = x.max(floor).min(constraint.upper));
        });
    }
}
