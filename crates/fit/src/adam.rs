//! Adam (Kingma & Ba 2015) on the logarithms of the factors.
//!
//! With θ = exp(η), the gradient of the mean loss by η takes what every engine has after a pass: the
//! parts of a factor's numerator A and denominator B at the factors as they are. ∂F/∂θ is c·(B − A),
//! and −c·A where the majorizer is of the logarithmic family (docs/method.md). All groups have their pass
//! at the same point; then all factors step, here on the host, and the engine gets what came of it.

use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};

use crate::monitor::{Monitor, Portions};
use crate::observe::{Cancel, cancelled};
use crate::settings::Settings;
use nneinfact_core::algebra::{apply_floor, overflowed};
use nneinfact_core::data::Role;
use nneinfact_core::engine::{Constraint, Engine, Point};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::{History, StoppedBy};
use nneinfact_core::loss::Majorizer;
use nneinfact_core::plan::Plan;

/// How much of the mean gradient, and of the mean squared gradient, is left after a step.
const DECAY: [f64; 2] = [0.9, 0.999];
/// What is added to the root of the mean squared gradient.
const EPSILON: f64 = 1e-8;

/// The state of a fit by Adam.
pub(crate) struct Adam {
    plan: Arc<Plan>,
    constraints: Vec<Constraint>,
    majorizer: Majorizer,
    /// The constant c of the loss.
    curvature: f64,
    rate: f64,
    /// What makes a sum over training entries their mean.
    share: f64,
    /// Of factors, relative to their largest entry.
    floor: f64,
    factors: Vec<Vec<f64>>,
    first: Vec<Vec<f64>>,
    second: Vec<Vec<f64>>,
    steps: f64,
}

impl Adam {
    /// At the factors that the engine has.
    pub fn new(
        settings: &Settings,
        plan: &Arc<Plan>,
        constraints: Vec<Constraint>,
        portions: &Portions,
        engine: &dyn Engine,
    ) -> Result<Adam> {
        let factors = entries(engine)?;
        let zeros: Vec<Vec<f64>> = factors.iter().map(|f| vec![0.0; f.len()]).collect();
        Ok(Adam {
            plan: Arc::clone(plan),
            constraints,
            majorizer: settings.loss.majorizer(),
            curvature: settings.loss.curvature_constant(),
            rate: settings.learning_rate.unwrap_or(Settings::LEARNING_RATE),
            share: portions.mean(1.0, Role::Train).unwrap_or(1.0),
            floor: settings.factor_floor,
            factors,
            first: zeros.clone(),
            second: zeros,
            steps: 0.0,
        })
    }

    /// The gradient by η at the factors as they are, the first group having had its pass there. `None`
    /// where the fit was cancelled.
    pub fn gradient(
        &self,
        engine: &mut dyn Engine,
        cancel: &Cancel,
    ) -> Result<Option<Vec<Vec<f64>>>> {
        let mut gradient: Vec<Vec<f64>> =
            self.factors.iter().map(|factor| vec![0.0; factor.len()]).collect();
        for (group, members) in self.plan.groups().iter().enumerate() {
            if group > 0 {
                if cancelled(cancel, engine)? {
                    return Ok(None);
                }
                engine.pass(group)?;
            }
            let members = &members.factors;
            let unchanged: Vec<Vec<f64>> =
                members.iter().map(|&l| vec![1.0; self.factors[l].len()]).collect();
            for (at, &l) in members.iter().enumerate() {
                let (a, b) = engine.parts(at, &unchanged)?;
                let sums = self.factors[l].iter().zip(a.into_iter().zip(b));
                for (to, (&theta, (a, b))) in gradient[l].iter_mut().zip(sums) {
                    *to = self.share * self.derivative(l, theta, a, b);
                }
            }
        }
        Ok(Some(gradient))
    }

    /// By the logarithm of an entry, of the sum of losses and penalties.
    fn derivative(&self, l: usize, theta: f64, a: f64, b: f64) -> f64 {
        if theta == 0.0 {
            // Its logarithm cannot move, whatever A and B are.
            return 0.0;
        }
        let data = match self.majorizer {
            Majorizer::Power { .. } => self.curvature * (b - a),
            Majorizer::Log => -self.curvature * a,
        };
        let penalty_gradient =
            self.constraints[l].penalty.map_or(0.0, |penalty| penalty.derivative(theta));
        theta * (data + penalty_gradient)
    }

    /// Moves all factors.
    fn step(&mut self, gradient: &[Vec<f64>]) -> Result<()> {
        self.steps += 1.0;
        let [d1, d2] = DECAY;
        // Means that began at 0 are too small by so much.
        let [c1, c2] = DECAY.map(|decay| 1.0 - decay.powf(self.steps));
        for (l, gradient) in gradient.iter().enumerate() {
            let constraint = self.constraints[l];
            if constraint.fixed {
                continue;
            }
            let factor = &mut self.factors[l];
            let state = self.first[l].iter_mut().zip(&mut self.second[l]);
            for ((theta, (first, second)), g) in factor.iter_mut().zip(state).zip(gradient) {
                *first = d1 * *first + (1.0 - d1) * g;
                *second = d2 * *second + (1.0 - d2) * g * g;
                let direction = (*first / c1) / ((*second / c2).sqrt() + EPSILON);
                *theta *= (-self.rate * direction).exp();
            }
            if let Some(entry) = factor.iter().position(|x| !x.is_finite()) {
                return Err(overflowed(self.plan.shapes(), l, entry));
            }
            apply_floor(factor, self.floor, 0.0, &constraint);
        }
        Ok(())
    }

    /// Factors in the model's order, from entries in C order.
    pub fn arrays(&self, entries: &[Vec<f64>]) -> Result<Vec<ArrayD<f64>>> {
        let one = |(l, entries): (usize, &Vec<f64>)| {
            ArrayD::from_shape_vec(IxDyn(&self.plan.shapes().factor(l)), entries.clone())
                .map_err(|e| Error::Internal(format!("factor {}: {e}", l + 1)))
        };
        entries.iter().enumerate().map(one).collect()
    }
}

/// The factors of an engine, each in C order.
fn entries(engine: &dyn Engine) -> Result<Vec<Vec<f64>>> {
    Ok(engine.factors()?.iter().map(|factor| factor.iter().copied().collect()).collect())
}

/// Steps until something says stop, as [`sweeps`](crate::sweeps::sweeps): a step is a sweep to the
/// monitor and to observers. The objective may rise, so the engine is left at the best point that was seen: the
/// one of lowest objective, with early stopping the one of lowest validation loss.
pub(crate) fn sweeps(
    engine: &mut dyn Engine,
    mut adam: Adam,
    monitor: &mut Monitor<'_>,
    history: &mut History,
) -> Result<()> {
    let mut best = f64::INFINITY;
    let mut kept = false;
    loop {
        // The first pass of a step gives the loss at the end of the one before for free.
        match history.iterations >= monitor.max_iter {
            true => engine.evaluate()?,
            false => engine.pass(0)?,
        }
        let [sums, _] = engine.sums().map_err(diverged)?;
        let validation = monitor.best;
        let stop = monitor.record(sums, engine, history).map_err(diverged)?;
        if monitor.early_stopping {
            // The monitor took the snapshot.
            if monitor.best < validation {
                history.returned = history.loss.len() - 1;
                kept = true;
            }
        } else if sums.objective() < best {
            best = sums.objective();
            engine.copy(Point::Current, Point::Snapshot)?;
            history.returned = history.loss.len() - 1;
            kept = true;
        }
        if let Some(reason) = stop {
            history.stopped_by = reason;
            break;
        }
        let Some(gradient) = adam.gradient(engine, monitor.cancel)? else {
            history.stopped_by = StoppedBy::Interrupted;
            break;
        };
        adam.step(&gradient).map_err(diverged)?;
        engine.load(&adam.arrays(&adam.factors)?)?;
        if monitor.balance {
            // Rescaling does not change the gradient of the loss by η, so means of it stay good.
            engine.balance()?;
            adam.factors = entries(engine)?;
        }
        history.iterations += 1;
    }
    if kept {
        engine.copy(Point::Snapshot, Point::Current)?;
    }
    Ok(())
}

/// What left the range of numbers did so because steps were too long, most of the time.
fn diverged(error: Error) -> Error {
    match error {
        Error::Numeric(what) => {
            Error::Numeric(format!("{what} (a lower learning rate makes shorter steps)"))
        }
        other => other,
    }
}
