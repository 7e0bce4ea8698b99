//! Coordinate descent on a group's exact objective under half the squared distance.
//!
//! Where all entries are observed, the numerator of a pass and a small Gram tensor hold everything
//! that the loss says about the factors of a group ([`Quadratic`]): it can be lowered as far as it
//! goes without another look at the data. Each entry moves to its minimum, one after another
//! (hierarchical alternating least squares, Cichocki & Phan 2009, for any model), so the loss never
//! rises.

use std::borrow::Cow;

use pulp::{Arch, Simd, WithSimd};

use super::contract::{contract, contract_borrowed, rearrange, rearrange_owned};
use super::neighbour_descent::{Bound, BoundAxis};
use super::update::overflowed;
use crate::engine::{Constraint, Extrapolation};
use crate::error::Result;
use crate::loss::Differences;
use crate::model::{Index, Shapes};
use crate::parallel;
use crate::plan::{Coupling, Group, Quadratic};

/// How often the factors of a group are cycled over.
const CYCLES: usize = 3;
/// The most cycles over the entries of a row. After sparse passes, which cost little more than they do, two would reach
/// low losses in fewer sweeps; but then a list and the same numbers as an array would be fitted differently.
pub const ROW_CYCLES: usize = 6;
/// A row is left where the steps of a cycle are this much shorter than those of its first.
const SHORT: f64 = 1e-3;
/// A step takes no entry further than this times the largest of its factor: where nearly nothing
/// depends on an entry, its minimum is anywhere.
const REACH: f64 = 1e8;
/// Rows of a unit of parallel work.
const ROWS: usize = 64;
/// Rows whose terms are summed up on their own.
const SUMMED_ROWS: usize = 1024;
/// No data depend on a penalised entry while another factor has nothing but zeros in its component, as happens in
/// the first sweeps, where single columns of small factors are cut off for a while. Its exact minimum is 0, and
/// then neither column would ever move again: a weak penalty would cost whole components. So a sweep takes such
/// entries down by this factor only, which lowers the penalty all the same and leaves the component the time to
/// come back. One that does not is gone after some fifty sweeps.
const IDLE_SHRINK: f64 = 0.5;
/// What is left of such entries is 0 where it is no larger than this times the largest of the factor.
const FORGOTTEN: f64 = 1e-16;

/// A factor's part in the objective, `½ θᵀ q θ − nᵀ θ` for every row θ.
struct Form<'a> {
    coupling: &'a Coupling,
    /// In the order of batch, rows and latent indices.
    linear: Cow<'a, [f64]>,
    /// For every index of the batch, a square matrix.
    square: Vec<f64>,
    rows: usize,
    latent: usize,
}

impl Form<'_> {
    /// For every index of the batch, the latent indices that no data depend on.
    fn without_data(&self) -> Vec<bool> {
        let k = self.latent;
        let squares = self.square.chunks_exact(k * k);
        squares.flat_map(|square| square.iter().step_by(k + 1)).map(|&q| q <= 0.0).collect()
    }

    /// Adds a penalty μ Σ θ or μ Σ θ² to the form, but not for idle entries (by batch and latent index).
    fn penalize(&mut self, constraint: Constraint, idle: &[bool]) {
        let Some(penalty) = constraint.penalty else { return };
        let k = self.latent;
        if penalty.power() == 1.0 {
            let linear = self.linear.to_mut();
            let batches = linear.chunks_exact_mut(k * self.rows).zip(idle.chunks_exact(k));
            for (linear, idle) in batches {
                let entries = linear.iter_mut().zip(idle.iter().cycle());
                entries.filter(|(_, idle)| !**idle).for_each(|(x, _)| *x -= penalty.weight());
            }
        } else {
            let batches = self.square.chunks_exact_mut(k * k).zip(idle.chunks_exact(k));
            for (square, idle) in batches {
                let entries = square.iter_mut().step_by(k + 1).zip(idle);
                entries.filter(|(_, idle)| !**idle).for_each(|(q, _)| *q += 2.0 * penalty.weight());
            }
        }
    }

    /// Shrinks idle entries, and sets what is left of them to 0 once it is a rounding
    /// error beside the largest entry.
    fn shrink_idle(&self, theta: &mut [f64], idle: &[bool], constraint: Constraint) {
        let k = self.latent;
        let least = FORGOTTEN * theta.iter().copied().fold(0.0, f64::max);
        for (theta, idle) in theta.chunks_mut(k * self.rows).zip(idle.chunks_exact(k)) {
            for (x, _) in theta.iter_mut().zip(idle.iter().cycle()).filter(|(_, idle)| **idle) {
                let shrunk = *x * IDLE_SHRINK;
                *x = if shrunk <= least { 0.0 } else { shrunk };
                *x = x.max(constraint.lower);
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
    /// In the model's order, what differences between neighbouring entries cost; none where it is empty.
    pub differences: &'a [Option<Differences>],
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

impl<'a> Objective<'a> {
    fn order(coupling: &Coupling) -> Vec<Index> {
        [coupling.batch.as_slice(), &coupling.rows, &coupling.latent].concat()
    }

    fn form(&self, at: usize, factors: &[Vec<f64>]) -> Form<'a> {
        let Objective { shapes, group, quadratic, numerator, gram, .. } = *self;
        let l = group.factors[at];
        let coupling = &quadratic.factors[at];
        let co_operands = group.factors.iter().filter(|&&m| m != l).map(|&m| factors[m].as_slice());
        let once: Vec<&[f64]> = std::iter::once(numerator).chain(co_operands.clone()).collect();
        let twice: Vec<&[f64]> =
            std::iter::once(gram).chain(co_operands.clone()).chain(co_operands).collect();
        let indices = &shapes.model().factors()[l];
        let order = Self::order(coupling);
        // The numerator of a group of one factor is mostly the linear term as it is.
        let linear = match contract_borrowed(shapes, &group.updates[at], &once) {
            Cow::Borrowed(_) if *indices == order => Cow::Borrowed(numerator),
            linear => {
                Cow::Owned(rearrange_owned(shapes, indices.clone(), linear.into_owned(), &order))
            }
        };
        Form {
            linear,
            square: contract(&quadratic.shapes, &coupling.contraction, &twice),
            rows: shapes.sizes(&coupling.rows).iter().product(),
            latent: shapes.sizes(&coupling.latent).iter().product(),
            coupling,
        }
    }

    fn arranged<'f>(&self, at: usize, factors: &'f [Vec<f64>]) -> Cow<'f, [f64]> {
        let l = self.group.factors[at];
        let order = Self::order(&self.quadratic.factors[at]);
        let indices = &self.shapes.model().factors()[l];
        match *indices == order {
            true => Cow::Borrowed(&factors[l]),
            false => Cow::Owned(rearrange(self.shapes, indices, &factors[l], &order)),
        }
    }

    /// The same taken out of the factors, where it is as it lies there.
    fn take_arranged(&self, at: usize, factors: &mut [Vec<f64>]) -> Vec<f64> {
        let arranged = match self.arranged(at, factors) {
            Cow::Owned(theta) => Some(theta),
            Cow::Borrowed(_) => None,
        };
        arranged.unwrap_or_else(|| std::mem::take(&mut factors[self.group.factors[at]]))
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
        let batch = k * form.rows;
        let batches = theta.chunks(batch).zip(form.linear.chunks(batch));
        let mut sums = [0.0; 2];
        for ((theta, linear), square) in batches.zip(form.square.chunks_exact(k * k)) {
            let share = k * SUMMED_ROWS;
            let shares: Vec<_> = theta.chunks(share).zip(linear.chunks(share)).collect();
            let terms = |n: usize| {
                let (theta, linear) = shares[n];
                Arch::new().dispatch(RowTerms { theta, linear, square, latent: k })
            };
            // Added up in their order, whichever thread formed them.
            for [once, twice] in parallel::map(shares.len(), &terms) {
                sums = [sums[0] + once, sums[1] + twice];
            }
        }
        sums
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
        [&form.linear[..], &curved[..]].map(|sums| rearrange(self.shapes, &order, sums, indices))
    }

    /// Which entries of a penalised factor, by batch and latent index, no data depend on as long as another
    /// factor that is fitted has nothing but zeros in their component.
    fn idle(&self, l: usize, form: &Form<'_>, factors: &[Vec<f64>]) -> Vec<bool> {
        let mut idle = form.without_data();
        if self.constraints[l].penalty.is_none() || !idle.contains(&true) {
            return vec![false; idle.len()];
        }
        let (shapes, latent) = (self.shapes, &form.coupling.latent);
        let mut asleep = vec![false; form.latent];
        for (m, indices) in shapes.model().factors().iter().enumerate() {
            let shared: Vec<Index> =
                latent.iter().copied().filter(|x| indices.contains(x)).collect();
            if m == l || self.constraints[m].fixed || shared.is_empty() {
                continue;
            }
            let count: usize = shapes.sizes(&shared).iter().product();
            let numbers: Vec<f64> = (0..count).map(|n| n as f64).collect();
            let mut any = vec![false; count];
            let slices = rearrange(shapes, &shared, &numbers, indices);
            factors[m].iter().zip(slices).for_each(|(&x, n)| any[n as usize] |= x > 0.0);
            let slices = rearrange(shapes, &shared, &numbers, latent);
            asleep.iter_mut().zip(slices).for_each(|(asleep, n)| *asleep |= !any[n as usize]);
        }
        let entries = idle.iter_mut().zip(asleep.iter().cycle());
        entries.for_each(|(idle, asleep)| *idle &= asleep);
        idle
    }

    /// Shrinks the idle entries of a factor, unless it would come to differ more from neighbours that data do
    /// depend on.
    fn shrink(&self, l: usize, form: &Form<'_>, idle: &[bool], theta: &mut [f64]) {
        let mut shrunk = theta.to_vec();
        form.shrink_idle(&mut shrunk, idle, self.constraints[l]);
        if let Some(Some(differences)) = self.differences.get(l) {
            let order = Self::order(form.coupling);
            let indices = &self.shapes.model().factors()[l];
            let cost =
                |theta: &[f64]| differences.value(&rearrange(self.shapes, &order, theta, indices));
            if cost(&shrunk) > cost(theta) {
                return;
            }
        }
        theta.copy_from_slice(&shrunk);
    }

    /// Lowers the objective with the penalties over the factors of the group, in place.
    pub fn lower(&self, factors: &mut [Vec<f64>]) -> Result<()> {
        let Objective { shapes, group, .. } = *self;
        let cycles = if group.factors.len() == 1 { 1 } else { CYCLES };
        for cycle in 0..cycles {
            for (at, &l) in group.factors.iter().enumerate() {
                let mut form = self.form(at, factors);
                let constraint = self.constraints[l];
                let idle = self.idle(l, &form, factors);
                form.penalize(constraint, &idle);
                let mut theta = self.take_arranged(at, factors);
                let k = form.latent;
                let largest = theta.iter().copied().fold(0.0, f64::max);
                let reach = if largest > 0.0 { REACH * largest } else { f64::INFINITY };
                let bounds = [constraint.lower, constraint.upper.min(reach.max(constraint.lower))];
                let order = Self::order(form.coupling);
                if cycle == 0 && idle.contains(&true) {
                    self.shrink(l, &form, &idle, &mut theta);
                }
                if let Some(Some(differences)) = self.differences.get(l) {
                    let strides = strides(shapes, &shapes.model().factors()[l], &order);
                    let axes = BoundAxis::all(differences, &strides);
                    let Form { linear, square, rows, .. } = &form;
                    Bound { linear, square, rows: *rows, latent: k, bounds, axes }
                        .descend(&mut theta, SHORT);
                    factors[l] =
                        rearrange_owned(shapes, order, theta, &shapes.model().factors()[l]);
                    finite(shapes, l, &factors[l])?;
                    continue;
                }
                parallel::chunks(&mut theta, k * form.rows, &|first, theta| {
                    let batch = first / (k * form.rows);
                    let square = &form.square[batch * k * k..][..k * k];
                    let linear = &form.linear[batch * k * form.rows..][..k * form.rows];
                    parallel::chunks(theta, k * ROWS, &|first, theta| {
                        let linear = &linear[first..][..theta.len()];
                        Arch::new().dispatch(Descend { theta, linear, square, latent: k, bounds });
                    });
                });
                factors[l] = rearrange_owned(shapes, order, theta, &shapes.model().factors()[l]);
                finite(shapes, l, &factors[l])?;
            }
        }
        Ok(())
    }
}

/// Whether all entries of a factor are finite.
fn finite(shapes: &Shapes, l: usize, factor: &[f64]) -> Result<()> {
    match factor.iter().position(|x| !x.is_finite()) {
        Some(entry) => Err(overflowed(shapes, l, entry)),
        None => Ok(()),
    }
}

/// For each of these indices the entries from one value to the next, where a tensor has them in `order`.
fn strides(shapes: &Shapes, indices: &[Index], order: &[Index]) -> Vec<usize> {
    let after = |x: &Index| order.iter().position(|y| y == x).map_or(0, |at| at + 1);
    indices.iter().map(|x| shapes.sizes(&order[after(x)..]).iter().product()).collect()
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
    fn with_simd<S: Simd>(self, simd: S) {
        let Descend { theta, linear, square, latent, bounds } = self;
        let mut rows = RowsAtATime::new(simd, latent);
        let share = latent * rows.lanes();
        for (theta, linear) in theta.chunks_mut(share).zip(linear.chunks(share)) {
            rows.load(theta, linear);
            rows.descend(square, bounds);
            rows.store(theta);
        }
    }
}

/// Vectors of rows that are worked on at a time: within a row every step waits for the one before.
const VECTORS: usize = 2;

/// So many rows, each in a lane of vectors. Every row has the bits that it would have alone.
struct RowsAtATime<S: Simd> {
    simd: S,
    latent: usize,
    /// For every latent index, the entries of all rows.
    theta: Vec<[S::f64s; VECTORS]>,
    /// The linear term; in a descent the negative gradient, kept up to date as entries move.
    descent: Vec<[S::f64s; VECTORS]>,
    /// Above 0 where the lane has a row that still moves.
    active: [S::f64s; VECTORS],
}

impl<S: Simd> RowsAtATime<S> {
    #[inline(always)]
    fn new(simd: S, latent: usize) -> RowsAtATime<S> {
        let zeros = [simd.splat_f64s(0.0); VECTORS];
        let rows = vec![zeros; latent];
        RowsAtATime { simd, latent, theta: rows.clone(), descent: rows, active: zeros }
    }

    fn lanes(&self) -> usize {
        VECTORS * size_of::<S::f64s>() / size_of::<f64>()
    }

    /// Takes up to as many rows as there are lanes.
    #[inline(always)]
    fn load(&mut self, theta: &[f64], linear: &[f64]) {
        let (latent, lanes) = (self.latent, self.lanes());
        let active: &mut [f64] = bytemuck::cast_slice_mut(&mut self.active);
        for (lane, active) in active.iter_mut().enumerate() {
            *active = if lane * latent < theta.len() { 1.0 } else { 0.0 };
        }
        for (from, to) in [(theta, &mut self.theta), (linear, &mut self.descent)] {
            let to: &mut [f64] = bytemuck::cast_slice_mut(to);
            to.fill(0.0);
            for (lane, from) in from.chunks_exact(latent).enumerate() {
                to[lane..].iter_mut().step_by(lanes).zip(from).for_each(|(to, &x)| *to = x);
            }
        }
    }

    /// Gives the entries back.
    #[inline(always)]
    fn store(&self, theta: &mut [f64]) {
        let from: &[f64] = bytemuck::cast_slice(&self.theta);
        for (lane, to) in theta.chunks_exact_mut(self.latent).enumerate() {
            let from = from[lane..].iter().step_by(self.lanes());
            to.iter_mut().zip(from).for_each(|(to, &x)| *to = x);
        }
    }

    #[inline(always)]
    fn descend(&mut self, square: &[f64], bounds: [f64; 2]) {
        let (simd, latent) = (self.simd, self.latent);
        for (s, q) in square.chunks_exact(latent).enumerate() {
            lower_by(simd, &mut self.descent, q, self.theta[s]);
        }
        let mut first = [simd.splat_f64s(0.0); VECTORS];
        for cycle in 0..ROW_CYCLES {
            let mut moved = [simd.splat_f64s(0.0); VECTORS];
            for s in 0..latent {
                self.step(s, &square[s * latent..][..latent], bounds, &mut moved);
            }
            if cycle == 0 {
                first = moved;
            }
            let active: &mut [f64] = bytemuck::cast_slice_mut(&mut self.active);
            let moved: &[f64] = bytemuck::cast_slice(&moved);
            for ((active, moved), first) in
                active.iter_mut().zip(moved).zip(bytemuck::cast_slice::<_, f64>(&first))
            {
                if *moved <= SHORT * SHORT * first {
                    *active = 0.0;
                }
            }
            if active.iter().all(|&active| active == 0.0) {
                break;
            }
        }
    }

    /// Moves entry `s` of every row to its minimum.
    #[inline(always)]
    fn step(&mut self, s: usize, q: &[f64], bounds: [f64; 2], moved: &mut [S::f64s; VECTORS]) {
        let simd = self.simd;
        let [lower, upper] = bounds.map(|bound| simd.splat_f64s(bound));
        let (zero, curvature) = (simd.splat_f64s(0.0), simd.splat_f64s(q[s]));
        let mut steps = [zero; VECTORS];
        for v in 0..VECTORS {
            let (x, descent) = (self.theta[s][v], self.descent[s][v]);
            let active = simd.greater_than_f64s(self.active[v], zero);
            // No data depend on the entry where its curvature is 0.
            if q[s] > 0.0 {
                let step = simd.div_f64s(descent, curvature);
                // As f64::max and min do, these take the bound for what is not a number.
                let step = simd.max_f64s(step, simd.sub_f64s(lower, x));
                let step = simd.min_f64s(step, simd.sub_f64s(upper, x));
                steps[v] = simd.select_f64s(active, step, zero);
                let squared = simd.mul_f64s(simd.mul_f64s(steps[v], steps[v]), curvature);
                moved[v] = simd.add_f64s(moved[v], squared);
                self.theta[s][v] = simd.add_f64s(x, steps[v]);
            } else {
                // A penalty does all the same.
                let falls = simd.and_m64s(active, simd.less_than_f64s(descent, zero));
                self.theta[s][v] = simd.select_f64s(falls, lower, x);
            }
        }
        if q[s] > 0.0 {
            lower_by(simd, &mut self.descent, q, steps);
        }
    }
}

/// Takes `q` times `by` off, in every lane.
#[inline(always)]
fn lower_by<S: Simd>(
    simd: S,
    descent: &mut [[S::f64s; VECTORS]],
    q: &[f64],
    by: [S::f64s; VECTORS],
) {
    let mut less = by;
    for less in &mut less {
        *less = simd.neg_f64s(*less);
    }
    for (descent, &q) in descent.iter_mut().zip(q) {
        let q = simd.splat_f64s(q);
        for v in 0..VECTORS {
            descent[v] = simd.mul_add_e_f64s(q, less[v], descent[v]);
        }
    }
}

/// The terms of some rows. A type of its own for the same reason.
struct RowTerms<'a> {
    theta: &'a [f64],
    linear: &'a [f64],
    square: &'a [f64],
    latent: usize,
}

impl WithSimd for RowTerms<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f64; 2] {
        let RowTerms { theta, linear, square, latent } = self;
        let [mut once, mut twice] = [0.0; 2];
        let mut rows = RowsAtATime::new(simd, latent);
        let zeros = [simd.splat_f64s(0.0); VECTORS];
        let share = latent * rows.lanes();
        for (theta, linear) in theta.chunks(share).zip(linear.chunks(share)) {
            rows.load(theta, linear);
            let (mut linear, mut quadratic) = (zeros, zeros);
            for (s, x) in rows.theta.iter().enumerate() {
                let mut dot = zeros;
                for (y, &q) in rows.theta.iter().zip(&square[s * latent..][..latent]) {
                    for v in 0..VECTORS {
                        dot[v] = simd.mul_add_e_f64s(simd.splat_f64s(q), y[v], dot[v]);
                    }
                }
                for v in 0..VECTORS {
                    linear[v] = simd.mul_add_e_f64s(rows.descent[s][v], x[v], linear[v]);
                    quadratic[v] = simd.mul_add_e_f64s(x[v], dot[v], quadratic[v]);
                }
            }
            let (linear, quadratic): (&[f64], &[f64]) =
                (bytemuck::cast_slice(&linear), bytemuck::cast_slice(&quadratic));
            for (linear, quadratic) in linear.iter().zip(quadratic).take(theta.len() / latent) {
                once += linear;
                twice += quadratic;
            }
        }
        [once, twice]
    }
}

/// Moves P to `P + w₀ (P − C) + w₁ (P − X)`, or to 0 where that is negative; C becomes P.
pub fn extrapolate(plain: &mut [f64], before: &mut [f64], origin: &[f64], by: Extrapolation) {
    parallel::chunks_of_two(plain, before, parallel::ENTRIES, &|first, plain, before| {
        for ((x, before), &origin) in plain.iter_mut().zip(before).zip(&origin[first..]) {
            let p = *x;
            *x = (p + by.momentum * (p - *before) + by.relaxation * (p - origin)).max(0.0);
            *before = p;
        }
    });
}
