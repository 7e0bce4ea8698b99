//! The sweeps of a fit.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::environments::Environments;
use super::first_order;
use super::history::{History, StoppedBy, SweepReport};
use super::newton::{CoreSteps, Step};
use super::schedule::Barriers;
use super::settings::{Method, Resolved, Solver, TrainFit};
use super::solve::Linear;
use super::start::{Target, rank_notice, rescale, start, visits};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::nonnegative::NonnegativeTrain;
use crate::small::Pool;
use crate::train::TensorTrain;

/// A fit has stalled if its error fell by less than `STALL` in `PATIENCE` sweeps. Less patience is
/// wrong: errors can stand for ten sweeps and then fall by three orders.
const PATIENCE: usize = 25;
const STALL: f64 = 1e-3;
/// The largest barrier, in units of the error, at which a fit can have stalled.
const BARRIER_SHARE: f64 = 0.01;
/// Errors below this are measured by QR of the difference: what the contractions say of them is
/// rounding.
const BY_CONTRACTION: f64 = 1e-11;
/// Up to this product of a core's ranks its Newton systems are solved by factorization.
const DIRECT_UP_TO: usize = 150;
/// The bytes that the factorization of one slice may take.
const DIRECT_BYTES: u64 = 4 << 30;

/// What a fit returns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FittedTrain {
    /// The fitted train, at the target's scale. Its cores are in the gauge of the iteration: not
    /// balanced.
    pub train: NonnegativeTrain,
    /// `‖P_H − P_G‖² / ‖P_G‖²`, by QR of the difference: down to about 1e-30 it has a meaning.
    pub relative_squared_distance: f64,
    /// What happened, sweep by sweep.
    pub history: History,
    /// What the caller may want to know, such as ranks above what is possible.
    pub notices: Vec<String>,
    /// The names of settings that were made, but had no effect with the others.
    pub without_effect: Vec<&'static str>,
}

impl TrainFit<'_> {
    /// Runs the fit to a target of any sign and scale.
    ///
    /// The result does not depend on the number of threads.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, the target is zero, the start does not fit, or values stop
    /// being finite.
    pub fn run(self, target: &TensorTrain) -> Result<FittedTrain> {
        // Inside the pool of threads: from outside, each small parallel step would wake a thread and
        // wait for it.
        rayon::scope(|_| self.run_here(target))
    }

    fn run_here(self, target: &TensorTrain) -> Result<FittedTrain> {
        let settings = self.resolved()?;
        let without_effect = self.without_effect();
        let mut notices = Vec::new();
        let norm1 = Target::new(target)?;
        let cores = start(&self, &norm1, &target.sizes(), &mut notices)?;
        notices.extend(rank_notice(&cores));
        self.check_memory(&cores)?;
        let mut sweeper = Sweeper::new(&norm1, cores, self.method, self.solver, settings);
        let history = self.sweep(&mut sweeper)?;
        let cores = sweeper.model;
        let fitted = TensorTrain { cores, log_scale: 0.0 };
        let goal = TensorTrain { cores: norm1.cores, log_scale: 0.0 };
        let distance = goal.relative_squared_distance(&fitted)?;
        let train = TensorTrain { log_scale: norm1.log_norm, ..fitted };
        Ok(FittedTrain {
            train: NonnegativeTrain { train },
            relative_squared_distance: distance,
            history,
            notices,
            without_effect,
        })
    }

    /// The error if factorizations would take too much memory.
    fn check_memory(&self, cores: &[Core]) -> Result<()> {
        if self.method != Method::Newton || self.solver != Some(Solver::Direct) {
            return Ok(());
        }
        for (k, core) in cores.iter().enumerate() {
            let size = core.left() as u64 * core.right() as u64;
            let needed = size.saturating_mul(size).saturating_mul(16);
            if needed > DIRECT_BYTES {
                return Err(Error::Memory {
                    what: format!("the Newton system of one slice of core {k}"),
                    needed,
                    available: DIRECT_BYTES,
                    help: "use conjugate gradients (cg, pcg or jacobi)".into(),
                });
            }
        }
        Ok(())
    }

    /// All sweeps, until something ends them.
    fn sweep(mut self, sweeper: &mut Sweeper<'_>) -> Result<History> {
        let begin = Instant::now();
        let mut history = History::new();
        let start = Swept {
            step: Step { length: 1.0, cg_steps: 0 },
            complete: true,
            squared_distance: sweeper.squared_distance(),
        };
        let first = sweeper.report(0, &start, begin);
        history.push(&first);
        for sweep in 0..sweeper.settings.sweeps {
            let mut ended = None;
            let swept = sweeper.sweep(sweep, || {
                if self.cancel.as_ref().is_some_and(|c| c.load(Ordering::Relaxed)) {
                    ended = Some(StoppedBy::Interrupted);
                } else if self.time_limit.is_some_and(|t| begin.elapsed() >= t) {
                    ended = Some(StoppedBy::Time);
                }
                ended.is_some()
            })?;
            let report = sweeper.report(sweep + 1, &swept, begin);
            history.push(&report);
            history.sweeps += usize::from(swept.complete);
            if let Some(observer) = &mut self.observer
                && let ControlFlow::Break(()) = observer(&report)
            {
                ended = ended.or(Some(StoppedBy::Interrupted));
            }
            if let Some(reason) = ended.or_else(|| self.finished(&history, &report)) {
                history.stopped_by = reason;
                break;
            }
        }
        Ok(history)
    }

    /// Whether the error is reached or stands.
    fn finished(&self, history: &History, report: &SweepReport) -> Option<StoppedBy> {
        match self.target_error {
            // Exactly so many sweeps are wanted.
            Some(0.0) => return None,
            Some(target) if report.error <= target => return Some(StoppedBy::Target),
            _ => {}
        }
        let errors = &history.error;
        let before = errors.len().checked_sub(PATIENCE + 1).map(|at| errors[at])?;
        let stands = report.error > (1.0 - STALL) * before;
        let stalled = stands && report.tau <= BARRIER_SHARE * report.error;
        stalled.then_some(StoppedBy::Stalled)
    }
}

/// What a sweep did.
struct Swept {
    step: Step,
    /// Whether it visited all cores.
    complete: bool,
    /// `‖model − target‖²` after it, by contraction.
    squared_distance: f64,
}

/// A model on its way.
struct Sweeper<'a> {
    settings: Resolved,
    method: Method,
    solver: Option<Solver>,
    squared_norm: f64,
    model: Vec<Core>,
    env: Environments<'a>,
    barriers: Barriers,
    pool: Pool,
}

impl<'a> Sweeper<'a> {
    fn new(
        target: &'a Target,
        model: Vec<Core>,
        method: Method,
        solver: Option<Solver>,
        settings: Resolved,
    ) -> Sweeper<'a> {
        let sizes: Vec<usize> = model.iter().map(|c| c.data().len()).collect();
        Sweeper {
            settings,
            method,
            solver,
            squared_norm: target.squared_norm,
            env: Environments::new(&target.cores, &model),
            barriers: Barriers::new(&settings, &sizes, target.squared_norm),
            model,
            pool: Pool::default(),
        }
    }

    /// Visits all cores forwards and backwards, unless `ended` says so after one of them.
    fn sweep(&mut self, sweep: usize, mut ended: impl FnMut() -> bool) -> Result<Swept> {
        let mut all = Step { length: 1.0, cg_steps: 0 };
        let mut left = 2 * self.model.len();
        for (k, forwards) in visits(self.model.len()) {
            let step = self.visit(k, sweep)?;
            all.length = all.length.min(step.length);
            all.cg_steps += step.cg_steps;
            left -= 1;
            let core = &self.model[k];
            if forwards {
                self.env.push(k, core)
            } else {
                self.env.pull(k, core)
            }
            if ended() && left > 0 {
                self.env.rebuild(&self.model);
                let squared_distance = self.squared_distance();
                return Ok(Swept { step: all, complete: false, squared_distance });
            }
        }
        let squared_distance = self.squared_distance();
        self.barriers.after(sweep, squared_distance.max(0.0));
        if rescale(&mut self.model) {
            self.env.rebuild(&self.model);
        }
        Ok(Swept { step: all, complete: true, squared_distance })
    }

    /// Updates one core.
    fn visit(&mut self, k: usize, sweep: usize) -> Result<Step> {
        let node = self.env.node(k, &self.model[k]);
        let h = &mut self.model[k];
        let step = match self.method {
            Method::Multiplicative => {
                first_order::multiplicative(&node, h);
                Step { length: 1.0, cg_steps: 0 }
            }
            Method::Descent => {
                first_order::descent(&node, h);
                Step { length: 1.0, cg_steps: 0 }
            }
            Method::Newton => {
                let s = &self.settings;
                let product = h.left() * h.right();
                let default = if product <= DIRECT_UP_TO { Solver::Direct } else { Solver::Jacobi };
                let how = Linear {
                    solver: self.solver.unwrap_or(default),
                    max_steps: s.cg_max,
                    tol: s.cg_tol,
                    preconditioner_min: s.preconditioner_min,
                };
                let steps = CoreSteps::new(&node, h, how.solver);
                if self.barriers.adapts(sweep) {
                    self.barriers.adapt(k, steps.mean_product());
                }
                let mu = self.barriers.mu[k];
                steps.run(h, mu, how, s.line_search, s.inner, &self.pool)?
            }
        };
        h.check_finite(&format!("after an update in sweep {}, core {k}", sweep + 1))?;
        Ok(step)
    }

    /// `‖model − target‖² / ‖target‖²`: from the contractions while these can tell it.
    fn error(&self, squared_distance: f64) -> f64 {
        let error = (squared_distance / self.squared_norm).max(0.0);
        if error >= BY_CONTRACTION {
            return error;
        }
        let train = |cores: &[Core]| TensorTrain { cores: cores.to_vec(), log_scale: 0.0 };
        let exact = train(self.env.target()).relative_squared_distance(&train(&self.model));
        exact.unwrap_or(error)
    }

    /// `‖model − target‖²`, from the first core.
    fn squared_distance(&self) -> f64 {
        self.env.squared_distance(0, &self.model[0], self.squared_norm)
    }

    fn report(&self, sweep: usize, swept: &Swept, begin: Instant) -> SweepReport {
        let newton = self.method == Method::Newton;
        let barrier = |x: f64| if newton { x } else { 0.0 };
        SweepReport {
            sweep,
            error: self.error(swept.squared_distance),
            barrier: barrier(self.barriers.largest()),
            tau: barrier(self.barriers.largest_share() / self.squared_norm),
            step: swept.step.length,
            cg_steps: swept.step.cg_steps,
            seconds: begin.elapsed().as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::environments::Node;
    use super::super::settings::{LineSearch, Schedule};
    use super::*;

    /// The objective of one core with its barrier, but for a constant.
    fn objective(node: &Node, h: &Core, mu: f64) -> f64 {
        let d = node.gram_times(h);
        let parts = h.data().iter().zip(d.iter().zip(&node.n));
        let log = |h: f64| if mu == 0.0 { 0.0 } else { mu * h.ln() };
        parts.map(|(h, (d, n))| 0.5 * h * d - h * n - log(*h)).sum()
    }

    /// A target with negative entries in its cores, and a start.
    fn problem() -> (Target, Vec<Core>) {
        let sizes = [3, 2, 4, 3, 2];
        let mut train = NonnegativeTrain::random(&sizes, &[2, 3, 3, 2], 4).unwrap().into_train();
        for core in &mut train.cores[1..4] {
            core.data_mut().iter_mut().for_each(|x| *x -= 0.35);
        }
        let target = Target::new(&train).unwrap();
        let start = NonnegativeTrain::random(&sizes, &[2, 4, 4, 2], 5).unwrap().into_train();
        let cores = start.scaled(0.01).unwrap().balanced().unwrap().cores;
        (target, cores)
    }

    /// Sweeps with a look at the objective before and after every visit.
    fn check(fit: &TrainFit<'_>, what: &str) {
        let (target, cores) = problem();
        let settings = fit.resolved().unwrap();
        let mut sweeper = Sweeper::new(&target, cores, fit.method, fit.solver, settings);
        for sweep in 0..12 {
            for (k, forwards) in visits(5) {
                let before = sweeper.model[k].clone();
                let node = sweeper.env.node(k, &before);
                sweeper.visit(k, sweep).unwrap();
                let after = &sweeper.model[k];
                let newton = fit.method == Method::Newton;
                let mu = if newton { sweeper.barriers.mu[k] } else { 0.0 };
                let (x, y) = (objective(&node, &before, mu), objective(&node, after, mu));
                let scale = 1.0 + x.abs();
                assert!(y <= x + 1e-13 * scale, "{what}, sweep {sweep}, core {k}: {x} {y}");
                let positive = after.data().iter().all(|&x| x > 0.0);
                assert!(positive || fit.method == Method::Descent);
                if forwards { sweeper.env.push(k, after) } else { sweeper.env.pull(k, after) }
            }
            let squared = sweeper.squared_distance().max(0.0);
            sweeper.barriers.after(sweep, squared);
        }
    }

    #[test]
    fn the_objective_never_rises_under_any_solver_schedule_or_line_search() {
        use {LineSearch as L, Schedule as S, Solver as V};
        for solver in [V::Direct, V::Cg, V::Pcg, V::Jacobi] {
            for schedule in [S::Fixed, S::Adaptive, S::Balanced, S::Hybrid] {
                for line in [L::Core, L::Slice] {
                    let fit = TrainFit::new().solver(solver).schedule(schedule).line_search(line);
                    check(&fit.switch(4), &format!("{solver:?} {schedule:?} {line:?}"));
                }
            }
        }
    }

    #[test]
    fn first_order_methods_never_rise() {
        check(&TrainFit::new().method(Method::Multiplicative), "multiplicative");
        check(&TrainFit::new().method(Method::Descent), "descent");
    }
}
