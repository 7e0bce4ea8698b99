//! One Newton step on the objective with its barrier, for one core. NTT.md, section 4.3.

use rayon::prelude::*;

use super::environments::Node;
use super::settings::{LineSearch, Solver};
use super::solve::{Linear, Sides, direction, directions_together};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::small::{Pool, Scratch, Slices, log_sum};

/// The share of the predicted decrease that a step has to bring (the condition of Armijo).
const ARMIJO: f64 = 0.1;
/// What a step that brings too little is multiplied by.
const SHRINK: f64 = 0.5;
/// How far towards the boundary a slice goes at most.
const INSIDE: f64 = 0.995;
/// After so many shorter steps there is none.
const TRIALS: usize = 200;
/// Slices with fewer multiplications than this together are not worth a second thread.
const PARALLEL_FROM: usize = 1 << 16;
/// Parts that slices are dealt out in, so that a thread which is late delays little.
const TASKS_PER_THREAD: usize = 4;
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

/// The objective along a direction, which needs no contraction and, as a difference to its value at
/// the start, does not cancel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Derivative of the objective with the barrier.
    pub slope: f64,
    /// Derivative of half the squared distance.
    pub linear: f64,
    /// Its second derivative.
    pub quadratic: f64,
    /// The largest relative decrease of an entry, 0 where none falls.
    pub lowest: f64,
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
            lowest: y.iter().fold(0.0, |m, y| m.max(-y)),
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

    /// The first step length, of those tried, that stays inside and brings enough; 0 if none does. `logs`
    /// is the sum of `ln(1 + t y)`, which is not finite outside.
    fn search(self, first: f64, mu: f64, logs: impl Fn(f64) -> f64) -> f64 {
        // Rounding can leave a direction that does not go down; then there is no step.
        if self.slope.is_nan() || self.slope >= 0.0 {
            return 0.0;
        }
        let mut t = first;
        for _ in 0..TRIALS {
            let logs = logs(t);
            let change = t * self.linear + 0.5 * t * t * self.quadratic - mu * logs;
            if logs.is_finite() && change <= ARMIJO * t * self.slope {
                return t;
            }
            t *= SHRINK;
        }
        0.0
    }

    /// The step length of one slice with the direction `y`.
    pub fn slice_length(self, y: &[f64], mu: f64) -> f64 {
        let first = if self.lowest > 0.0 { (INSIDE / self.lowest).min(1.0) } else { 1.0 };
        self.search(first, mu, |t| log_sum(t, y))
    }
}

/// One core, slice by slice, on its way, with all others held.
pub(crate) struct CoreSteps<'a> {
    sides: Sides<'a>,
    x: Slices,
    numerator: Slices,
    gradient: Slices,
    shape: [usize; 3],
}

/// What is known of a slice's direction.
#[derive(Clone, Copy)]
struct Found {
    line: Line,
    cg_steps: usize,
    length: f64,
}

impl<'a> CoreSteps<'a> {
    pub fn new(node: &'a Node, h: &Core, solver: Solver) -> CoreSteps<'a> {
        let shape = h.shape();
        let mut out = CoreSteps {
            sides: Sides::new(node, solver),
            x: Slices::new(shape, h.data()),
            numerator: Slices::new(shape, &node.n),
            gradient: Slices::zeros(shape),
            shape,
        };
        out.differentiate();
        out
    }

    /// The gradient of half the squared distance.
    fn differentiate(&mut self) {
        let CoreSteps { sides, x, numerator, gradient, .. } = self;
        sides.gradient(x.data(), numerator.data(), gradient.data_mut());
    }

    /// The mean of |entry · gradient|.
    pub fn mean_product(&self) -> f64 {
        let products = self.x.data().iter().zip(self.gradient.data()).map(|(x, g)| (x * g).abs());
        products.sum::<f64>() / self.shape.iter().product::<usize>() as f64
    }

    /// Up to `inner` Newton steps, which are written to the core.
    pub fn run(
        mut self,
        h: &mut Core,
        mu: f64,
        how: Linear,
        line: LineSearch,
        inner: usize,
        pool: &Pool,
    ) -> Result<Step> {
        let mut all = Step { length: 1.0, cg_steps: 0 };
        for left in (0..inner).rev() {
            let (step, decrement) = self.step(mu, how, line, pool)?;
            all.length = all.length.min(step.length);
            all.cg_steps += step.cg_steps;
            if decrement <= CONVERGED || left == 0 {
                break;
            }
            self.differentiate();
        }
        self.x.store(h.data_mut());
        Ok(all)
    }

    /// One Newton step; also the squared decrement in units of μ, in which the objective is
    /// self-concordant (NTT.md, section 10).
    fn step(&mut self, mu: f64, how: Linear, line: LineSearch, pool: &Pool) -> Result<(Step, f64)> {
        let len = self.x.len();
        let mut y = Slices::zeros(self.shape);
        let found = self.directions(mu, how, line, pool, &mut y).ok_or_else(|| {
            Error::Numeric(
                "a Newton step met values that are not finite; a larger smallest barrier may help"
                    .into(),
            )
        })?;
        let cg_steps = found.iter().map(|f| f.cg_steps).max().unwrap_or(0);
        let mut whole = found[0].line;
        found[1..].iter().for_each(|f| whole = whole.plus(f.line));
        let common = match line {
            // Slice by slice, so that the sum has one order.
            LineSearch::Core => {
                Some(whole.search(1.0, mu, |t| y.iter().map(|y| log_sum(t, y)).sum()))
            }
            LineSearch::Slice => None,
        };
        let mut length: f64 = 1.0;
        for (x, (y, f)) in self.x.data_mut().chunks_exact_mut(len).zip(y.iter().zip(&found)) {
            let t = common.unwrap_or(f.length);
            length = length.min(t);
            x.iter_mut().zip(y).for_each(|(x, y)| *x *= 1.0 + t * y);
        }
        Ok((Step { length, cg_steps }, -whole.slope / mu))
    }

    /// The directions of all slices, each with its step length where it has one of its own.
    fn directions(
        &self,
        mu: f64,
        how: Linear,
        line: LineSearch,
        pool: &Pool,
        y: &mut Slices,
    ) -> Option<Vec<Found>> {
        let len = self.x.len();
        let found = |y: &[f64], (along, cg_steps): (Line, usize)| {
            let length = match line {
                LineSearch::Slice => along.slice_length(y, mu),
                LineSearch::Core => 1.0,
            };
            Found { line: along, cg_steps, length }
        };
        let (per_task, together) = self.tasks(how);
        // Some slices from the first on.
        let some = |first: usize, y: &mut [f64], scratch: &mut Scratch| -> Option<Vec<Found>> {
            let place = first * len..first * len + y.len();
            let (x, g) = (&self.x.data()[place.clone()], &self.gradient.data()[place]);
            if together == 1 {
                let each = direction(&self.sides, x, g, mu, how, scratch, y)?;
                return Some(vec![found(y, each)]);
            }
            let lines = directions_together(&self.sides, x, g, mu, scratch, y)?;
            let each = y.chunks_exact(len).zip(lines);
            Some(each.map(|(y, line)| found(y, (line, 0))).collect())
        };
        let task = |(task, y): (usize, &mut [f64])| {
            pool.with(|scratch| {
                let parts = y.chunks_mut(together * len).enumerate();
                let parts = parts.map(|(at, y)| some(task * per_task + at * together, y, scratch));
                parts.collect::<Option<Vec<_>>>()
            })
        };
        let found: Option<Vec<_>> = if per_task >= self.shape[1] {
            task((0, y.data_mut())).map(|found| vec![found])
        } else {
            y.data_mut().par_chunks_mut(per_task * len).enumerate().map(task).collect()
        };
        Some(found?.into_iter().flatten().flatten().collect())
    }

    /// How many slices a task has, and how many of them are worked out together.
    fn tasks(&self, how: Linear) -> (usize, usize) {
        let [left, n, right] = self.shape;
        let each = match how.solver {
            Solver::Direct => (left * right).pow(3) / 6,
            _ => how.max_steps * left * right * (left + right + 10),
        };
        let serial = n * each < PARALLEL_FROM;
        let threads = if serial { 1 } else { rayon::current_num_threads() };
        let together = match how.solver {
            Solver::Direct => self.sides.together(n.div_ceil(threads)),
            _ => 1,
        };
        let per_task = match together {
            _ if serial => n,
            1 => n.div_ceil(TASKS_PER_THREAD * threads),
            _ => together,
        };
        (per_task, together)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::environments::Environments;
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
                            CoreSteps::new(&node, core, solver)
                                .run(core, mu, how, line, 1, &Pool::default())
                                .unwrap();
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
                let mut steps = CoreSteps::new(&node, &model[1], Solver::Direct);
                let (step, squared) =
                    steps.step(mu, how, LineSearch::Core, &Pool::default()).unwrap();
                steps.x.store(model[1].data_mut());
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
