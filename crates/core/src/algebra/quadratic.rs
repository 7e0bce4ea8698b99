//! Coordinate descent on a group's exact objective under half the squared distance.
//!
//! Where all entries are observed, the numerator of a pass and a small Gram tensor hold everything
//! that the loss says about the factors of a group ([`Quadratic`]): it can be lowered as far as it
//! goes without another look at the data. Each entry moves to its minimum, one after another
//! (hierarchical alternating least squares, Cichocki & Phan 2009, for any model), so the loss never
//! rises.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::contract::{contract, rearrange};
use super::update::overflowed;
use crate::engine::Constraint;
use crate::error::Result;
use crate::model::{Index, Shapes};
use crate::plan::{Coupling, Group, Quadratic};

/// How often the factors of a group are cycled over.
const CYCLES: usize = 3;
/// The most cycles over the entries of a row.
const ROW_CYCLES: usize = 6;
/// A row is left where the steps of a cycle are this much shorter than those of its first.
const SHORT: f64 = 1e-3;
/// A step takes no entry further than this times the largest of its factor: where nearly nothing
/// depends on an entry, its minimum is anywhere.
const REACH: f64 = 1e8;
/// Rows of a unit of parallel work.
const ROWS: usize = 64;

/// A factor's part in the objective, `½ θᵀ q θ − nᵀ θ` for every row θ.
struct Form<'a> {
    coupling: &'a Coupling,
    /// In the order of batch, rows and latent indices.
    linear: Vec<f64>,
    /// For every index of the batch, a square matrix.
    square: Vec<f64>,
    rows: usize,
    latent: usize,
}

impl Form<'_> {
    /// Adds a penalty μ Σ θ or μ Σ θ² to the form.
    fn penalize(&mut self, constraint: Constraint) {
        let Some(penalty) = constraint.penalty else { return };
        if penalty.power() == 1.0 {
            self.linear.iter_mut().for_each(|x| *x -= penalty.weight());
        } else {
            let k = self.latent;
            for square in self.square.chunks_exact_mut(k * k) {
                square.iter_mut().step_by(k + 1).for_each(|q| *q += 2.0 * penalty.weight());
            }
        }
    }
}

/// The sums of a pass: the numerator, and Q.
pub struct Objective<'a> {
    /// The model with its sizes.
    pub shapes: &'a Shapes,
    /// The group that is updated.
    pub group: &'a Group,
    /// The plan of the group's quadratic form.
    pub quadratic: &'a Quadratic,
    /// In the model's order; the powers of penalties are 1 or 2.
    pub constraints: &'a [Constraint],
    /// The numerator of the group's pass.
    pub numerator: &'a [f64],
    /// Q of the group: see [`gram`].
    pub gram: &'a [f64],
}

/// Q of a group, from the factors outside it.
pub fn gram(quadratic: &Quadratic, factors: &[Vec<f64>]) -> Vec<f64> {
    let others = quadratic.others.iter().map(|&l| factors[l].as_slice());
    let inputs: Vec<&[f64]> = others.clone().chain(others).collect();
    match inputs.is_empty() {
        // The product of no factors is 1.
        true => vec![1.0],
        false => contract(&quadratic.shapes, &quadratic.gram, &inputs),
    }
}

impl Objective<'_> {
    fn order(coupling: &Coupling) -> Vec<Index> {
        [coupling.batch.as_slice(), &coupling.rows, &coupling.latent].concat()
    }

    fn form(&self, at: usize, factors: &[Vec<f64>]) -> Form<'_> {
        let Objective { shapes, group, quadratic, numerator, gram, .. } = *self;
        let l = group.factors[at];
        let coupling = &quadratic.factors[at];
        let co_operands = group.factors.iter().filter(|&&m| m != l).map(|&m| factors[m].as_slice());
        let once: Vec<&[f64]> = std::iter::once(numerator).chain(co_operands.clone()).collect();
        let twice: Vec<&[f64]> =
            std::iter::once(gram).chain(co_operands.clone()).chain(co_operands).collect();
        let linear = contract(shapes, &group.updates[at], &once);
        let indices = &shapes.model().factors()[l];
        Form {
            linear: rearrange(shapes, indices, &linear, &Self::order(coupling)),
            square: contract(&quadratic.shapes, &coupling.contraction, &twice),
            rows: shapes.sizes(&coupling.rows).iter().product(),
            latent: shapes.sizes(&coupling.latent).iter().product(),
            coupling,
        }
    }

    fn arranged(&self, at: usize, factors: &[Vec<f64>]) -> Vec<f64> {
        let l = self.group.factors[at];
        let order = Self::order(&self.quadratic.factors[at]);
        rearrange(self.shapes, &self.shapes.model().factors()[l], &factors[l], &order)
    }

    /// `½⟨U, U Q⟩ − ⟨N, U⟩` at the factors.
    pub fn value(&self, factors: &[Vec<f64>]) -> f64 {
        let [once, twice] = self.terms(factors);
        0.5 * twice - once
    }

    /// `⟨N, U⟩` and `⟨U, U Q⟩` at the factors.
    pub fn terms(&self, factors: &[Vec<f64>]) -> [f64; 2] {
        let form = self.form(0, factors);
        let theta = self.arranged(0, factors);
        let k = form.latent;
        let rows = theta.chunks_exact(k).zip(form.linear.chunks_exact(k)).enumerate();
        let of = |(row, (theta, linear)): (usize, (&[f64], &[f64]))| {
            let square = &form.square[row / form.rows * k * k..][..k * k];
            let product = |(s, x): (usize, &f64)| -> f64 {
                x * square[s * k..][..k].iter().zip(theta).map(|(q, y)| q * y).sum::<f64>()
            };
            let once: f64 = linear.iter().zip(theta).map(|(n, x)| n * x).sum();
            [once, theta.iter().enumerate().map(product).sum::<f64>()]
        };
        rows.map(of).fold([0.0; 2], |sum, row| [sum[0] + row[0], sum[1] + row[1]])
    }

    /// Numerator and denominator of every entry of the factor `at` (counted in the group), in the
    /// model's order of its indices: the objective's derivative is the second less the first.
    pub fn parts(&self, at: usize, factors: &[Vec<f64>]) -> [Vec<f64>; 2] {
        let form = self.form(at, factors);
        let theta = self.arranged(at, factors);
        let k = form.latent;
        let mut curved = Vec::with_capacity(theta.len());
        for (row, theta) in theta.chunks_exact(k).enumerate() {
            let square = &form.square[row / form.rows * k * k..][..k * k];
            let product = |q: &[f64]| q.iter().zip(theta).map(|(q, x)| q * x).sum::<f64>();
            curved.extend(square.chunks_exact(k).map(product));
        }
        let order = Self::order(form.coupling);
        let indices = &self.shapes.model().factors()[self.group.factors[at]];
        [&form.linear, &curved].map(|sums| rearrange(self.shapes, &order, sums, indices))
    }

    /// Lowers the objective with the penalties over the factors of the group, in place.
    pub fn lower(&self, factors: &mut [Vec<f64>]) -> Result<()> {
        let Objective { shapes, group, .. } = *self;
        let cycles = if group.factors.len() == 1 { 1 } else { CYCLES };
        for _ in 0..cycles {
            for (at, &l) in group.factors.iter().enumerate() {
                let mut form = self.form(at, factors);
                let constraint = self.constraints[l];
                form.penalize(constraint);
                let mut theta = self.arranged(at, factors);
                let k = form.latent;
                let largest = theta.iter().copied().fold(0.0, f64::max);
                let reach = if largest > 0.0 { REACH * largest } else { f64::INFINITY };
                let bounds = [constraint.lower, constraint.upper.min(reach.max(constraint.lower))];
                theta.par_chunks_mut(k * form.rows).enumerate().for_each(|(batch, theta)| {
                    let square = &form.square[batch * k * k..][..k * k];
                    let linear = &form.linear[batch * k * form.rows..][..k * form.rows];
                    theta.par_chunks_mut(k * ROWS).zip(linear.par_chunks(k * ROWS)).for_each(
                        |(theta, linear)| {
                            Arch::new().dispatch(Descend {
                                theta,
                                linear,
                                square,
                                latent: k,
                                bounds,
                            });
                        },
                    );
                });
                let order = Self::order(form.coupling);
                factors[l] = rearrange(shapes, &order, &theta, &shapes.model().factors()[l]);
                if let Some(entry) = factors[l].iter().position(|x| !x.is_finite()) {
                    return Err(overflowed(shapes, l, entry));
                }
            }
        }
        Ok(())
    }
}

/// Some rows. A type of its own, and not a closure, as only what is inlined into the dispatched
/// function is compiled for its instruction set.
struct Descend<'a> {
    theta: &'a mut [f64],
    linear: &'a [f64],
    square: &'a [f64],
    latent: usize,
    /// What entries may be, from and to.
    bounds: [f64; 2],
}

impl WithSimd for Descend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Descend { theta, linear, square, latent, bounds: [lower, upper] } = self;
        // The negative gradient, kept up to date as entries move.
        let mut descent = vec![0.0; latent];
        for (theta, linear) in theta.chunks_exact_mut(latent).zip(linear.chunks_exact(latent)) {
            descent.copy_from_slice(linear);
            for (x, q) in theta.iter().zip(square.chunks_exact(latent)) {
                descent.iter_mut().zip(q).for_each(|(descent, q)| *descent -= q * x);
            }
            let mut first = 0.0;
            for cycle in 0..ROW_CYCLES {
                let mut moved = 0.0;
                for s in 0..latent {
                    let q = &square[s * latent..][..latent];
                    // No data depend on the entry where its curvature is 0.
                    if q[s] > 0.0 {
                        let step = (descent[s] / q[s]).max(lower - theta[s]).min(upper - theta[s]);
                        theta[s] += step;
                        moved += step * step * q[s];
                        descent.iter_mut().zip(q).for_each(|(descent, q)| *descent -= q * step);
                    } else if descent[s] < 0.0 {
                        // A penalty does all the same.
                        theta[s] = lower;
                    }
                }
                if cycle == 0 {
                    first = moved;
                }
                if moved <= SHORT * SHORT * first {
                    break;
                }
            }
        }
    }
}

/// Moves P to `P + w₀ (P − C) + w₁ (P − X)`, or to 0 where that is negative; C becomes P.
pub fn extrapolate(
    plain: &mut [f64],
    before: &mut [f64],
    origin: &[f64],
    [momentum, relaxation]: [f64; 2],
) {
    for ((x, before), &origin) in plain.iter_mut().zip(before).zip(origin) {
        let p = *x;
        *x = (p + momentum * (p - *before) + relaxation * (p - origin)).max(0.0);
        *before = p;
    }
}
