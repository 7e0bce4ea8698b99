//! One Newton step on the objective with its barrier, for one core. NTT.md, section 4.3.

use rayon::prelude::*;

use super::environments::Node;
use super::settings::LineSearch;
use super::solve::{Linear, direction};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::linalg::{product_into, view};

/// The share of the predicted decrease that a step has to bring (the condition of Armijo).
const ARMIJO: f64 = 0.1;
/// What a step that brings too little is multiplied by.
const SHRINK: f64 = 0.5;
/// How far towards the boundary a slice goes at most.
const INSIDE: f64 = 0.995;
/// After so many shorter steps there is none.
const TRIALS: usize = 200;
/// Slices with less work than this together are not worth a second thread.
const PARALLEL_FROM: usize = 1 << 15;
/// A Newton decrement (squared, in units of μ) below which further inner steps change nothing.
const CONVERGED: f64 = 1e-4;

/// What a step did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// The smallest step length.
    pub length: f64,
    /// Steps of conjugate gradients, of the slice that took most.
    pub cg_steps: usize,
}

/// A slice with its direction.
pub(crate) struct Candidate {
    pub y: Vec<f64>,
    pub line: Line,
    pub cg_steps: usize,
}

/// The objective along a direction, which needs no contraction and, as a difference to its value at
/// the start, does not cancel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Derivative of the objective with the barrier.
    slope: f64,
    /// Derivative of half the squared distance.
    linear: f64,
    /// Its second derivative.
    quadratic: f64,
    /// The largest relative decrease of an entry.
    lowest: f64,
}

impl Line {
    /// Along `delta = x y`, for the gradient `g` of half the squared distance, minus the gradient of
    /// the objective `rhs` in y, and the Hessian times delta.
    pub fn new(rhs: &[f64], y: &[f64], g: &[f64], delta: &[f64], curved: &[f64]) -> Line {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        Line {
            slope: -dot(rhs, y),
            linear: dot(g, delta),
            quadratic: dot(delta, curved),
            lowest: y.iter().fold(f64::NEG_INFINITY, |m, y| m.max(-y)),
        }
    }

    fn plus(self, other: Line) -> Line {
        Line {
            slope: self.slope + other.slope,
            linear: self.linear + other.linear,
            quadratic: self.quadratic + other.quadratic,
            lowest: self.lowest.max(other.lowest),
        }
    }

    /// The first step length, of those tried, that stays inside and brings enough; 0 if none does.
    fn search<'a>(self, first: f64, mu: f64, parts: impl Fn() -> Parts<'a>) -> f64 {
        // Rounding can leave a direction that does not go down; then there is no step.
        if self.slope.is_nan() || self.slope >= 0.0 {
            return 0.0;
        }
        let mut t = first;
        for _ in 0..TRIALS {
            if parts().flatten().all(|y| 1.0 + t * y > 0.0) {
                // Slice by slice, so that the sum has one order.
                let logs: f64 =
                    parts().map(|y| y.iter().map(|y| (t * y).ln_1p()).sum::<f64>()).sum();
                let change = t * self.linear + 0.5 * t * t * self.quadratic - mu * logs;
                if change <= ARMIJO * t * self.slope {
                    return t;
                }
            }
            t *= SHRINK;
        }
        0.0
    }
}

type Parts<'a> = Box<dyn Iterator<Item = &'a [f64]> + 'a>;

/// Up to `inner` Newton steps on one core, with the sides held.
pub(crate) fn newton_steps(
    node: &Node,
    h: &mut Core,
    mu: f64,
    how: Linear,
    line: LineSearch,
    inner: usize,
) -> Result<Step> {
    let mut all = Step { length: 1.0, cg_steps: 0 };
    for _ in 0..inner {
        let (step, decrement) = newton_step(node, h, mu, how, line)?;
        all.length = all.length.min(step.length);
        all.cg_steps += step.cg_steps;
        if decrement <= CONVERGED {
            break;
        }
    }
    Ok(all)
}

/// One Newton step; also the squared decrement in units of μ, in which the objective is
/// self-concordant (NTT.md, section 10).
fn newton_step(
    node: &Node,
    h: &mut Core,
    mu: f64,
    how: Linear,
    line: LineSearch,
) -> Result<(Step, f64)> {
    let mut gradient = node.gram_times(h);
    gradient.iter_mut().zip(&node.n).for_each(|(g, n)| *g -= n);
    let [left, n, right] = h.shape();
    let gradient = Core::raw(left, n, right, gradient).slices();
    let mut x = h.slices();
    let size = left * right;
    let candidate = |i: usize| {
        let place = i * size..(i + 1) * size;
        candidate(node, &x[place.clone()], &gradient[place], mu, how)
    };
    let candidates: Option<Vec<Candidate>> = if n * size * size < PARALLEL_FROM {
        (0..n).map(candidate).collect()
    } else {
        (0..n).into_par_iter().map(candidate).collect()
    };
    let candidates = candidates.ok_or_else(|| {
        Error::Numeric(
            "a Newton step met values that are not finite; a larger smallest barrier may help"
                .into(),
        )
    })?;
    let cg_steps = candidates.iter().map(|c| c.cg_steps).max().unwrap_or(0);
    let mut whole = candidates[0].line;
    candidates[1..].iter().for_each(|c| whole = whole.plus(c.line));
    let lengths: Vec<f64> = match line {
        LineSearch::Core => {
            let parts = || -> Parts<'_> { Box::new(candidates.iter().map(|c| &c.y[..])) };
            vec![whole.search(1.0, mu, parts); n]
        }
        LineSearch::Slice => candidates.iter().map(|c| slice_length(c, mu)).collect(),
    };
    for (x, (c, t)) in x.chunks_exact_mut(size).zip(candidates.iter().zip(&lengths)) {
        x.iter_mut().zip(&c.y).for_each(|(x, y)| *x *= 1.0 + t * y);
    }
    h.set_slices(&x);
    let length = lengths.into_iter().fold(1.0, f64::min);
    Ok((Step { length, cg_steps }, -whole.slope / mu))
}

/// The step length of one slice.
pub(crate) fn slice_length(c: &Candidate, mu: f64) -> f64 {
    let first = if c.line.lowest > 0.0 { (INSIDE / c.line.lowest).min(1.0) } else { 1.0 };
    c.line.search(first, mu, || Box::new(std::iter::once(&c.y[..])))
}

/// The direction of one slice, and the objective along it.
fn candidate(node: &Node, x: &[f64], g: &[f64], mu: f64, how: Linear) -> Option<Candidate> {
    let (left, right) = (node.left, node.right);
    let rhs: Vec<f64> = x.iter().zip(g).map(|(x, g)| mu - x * g).collect();
    let found = direction(node, x, &rhs, mu, how)?;
    let y = found.y;
    let delta: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x * y).collect();
    let (mut half, mut curved) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    product_into(view(&node.a, left, left), view(&delta, left, right), &mut half);
    product_into(view(&half, left, right), view(&node.b, right, right), &mut curved);
    let line = Line::new(&rhs, &y, g, &delta, &curved);
    Some(Candidate { y, line, cg_steps: found.steps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::environments::Environments;
    use crate::fit::settings::Solver;
    use crate::nonnegative::NonnegativeTrain;

    /// The objective of one core with its barrier, but for a constant.
    fn objective(node: &Node, h: &Core, mu: f64) -> f64 {
        let d = node.gram_times(h);
        let parts = h.data().iter().zip(d.iter().zip(&node.n));
        parts.map(|(h, (d, n))| 0.5 * h * d - h * n - mu * h.ln()).sum()
    }

    #[test]
    fn the_objective_never_rises_and_entries_stay_positive() {
        let sizes = [3, 4, 5, 3];
        for seed in 0..6 {
            let target = NonnegativeTrain::random(&sizes, &[3, 3, 3], seed).unwrap();
            let mut target = target.into_train().cores;
            target[1].data_mut().iter_mut().for_each(|x| *x -= 0.5);
            for solver in [Solver::Direct, Solver::Cg, Solver::Pcg, Solver::Jacobi] {
                for line in [LineSearch::Core, LineSearch::Slice] {
                    for mu in [1.0, 1e-2, 1e-5, 1e-9] {
                        let start = NonnegativeTrain::random(&sizes, &[3, 4, 3], seed + 50);
                        let mut model = start.unwrap().into_train().cores;
                        let mut env = Environments::new(&target, &model);
                        for (k, core) in model.iter_mut().enumerate() {
                            let node = env.node(k, core);
                            let how = Linear {
                                solver,
                                max_steps: 4,
                                tol: 1e-10,
                                preconditioner_min: 0.0,
                            };
                            let before = objective(&node, core, mu);
                            newton_steps(&node, core, mu, how, line, 1).unwrap();
                            let after = objective(&node, core, mu);
                            let scale = before.abs().max(after.abs());
                            assert!(
                                after <= before + 1e-12 * scale,
                                "{solver:?} {line:?} {mu} core {k}: {before} {after}"
                            );
                            assert!(core.data().iter().all(|&x| x > 0.0));
                            env.push(k, core);
                        }
                    }
                }
            }
        }
    }

    /// NTT.md, section 10: in units of μ the objective is self-concordant, so a decrement λ ≤ ¼ of an
    /// exact step means a full step and λ⁺ ≤ (λ/(1−λ))².
    #[test]
    fn decrements_in_units_of_the_barrier_fall_quadratically() {
        let sizes = [3, 4, 3];
        let target = NonnegativeTrain::random(&sizes, &[2, 3], 5).unwrap().into_train().cores;
        let mut checked = 0;
        for mu in [1.0, 1e-2, 1e-4, 1e-6] {
            let start = NonnegativeTrain::random(&sizes, &[2, 3], 6).unwrap();
            let mut model = start.into_train().cores;
            let mut env = Environments::new(&target, &model);
            env.push(0, &model[0]);
            let node = env.node(1, &model[1]);
            let how =
                Linear { solver: Solver::Direct, max_steps: 1, tol: 0.0, preconditioner_min: 0.0 };
            let mut last = f64::INFINITY;
            for _ in 0..60 {
                let (step, squared) =
                    newton_step(&node, &mut model[1], mu, how, LineSearch::Core).unwrap();
                let now = squared.max(0.0).sqrt();
                if last <= 0.25 && last > 1e-4 {
                    assert!(now <= (last / (1.0 - last)).powi(2) + 1e-7, "{mu}: {last} {now}");
                    checked += 1;
                }
                if now <= 0.25 && now > 1e-4 {
                    assert_eq!(step.length, 1.0);
                }
                last = now;
            }
        }
        assert!(checked > 3, "{checked}");
    }
}
