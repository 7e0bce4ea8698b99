//! What is done with the losses of every sweep: history, tolerance, validation, observers.

use std::time::Instant;

use crate::observe::{Cancel, Flow, Hooks, Observer, Sweep};
use crate::settings::{Algorithm, Settings};
use nneinfact_core::data::{Portion, Prepared, Role};
use nneinfact_core::engine::{Engine, LossSums, Point};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::{History, StoppedBy};

/// Sweeps in a row whose progress is below the tolerance before a fit stops.
const PATIENCE: usize = 3;
/// Rises of the validation loss in a row before early stopping.
const RISES: usize = 5;

/// What sums of losses are divided by, for each role.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Portions([Portion; 4]);

impl Portions {
    pub fn of(data: &Prepared) -> Portions {
        let mut portions = Portions::default();
        portions.add(data, 1.0);
        portions
    }

    /// Adds the entries of a tensor whose losses have a weight.
    pub fn add(&mut self, data: &Prepared, weight: f64) {
        for role in Role::ALL {
            let portion = data.portion(role);
            self.0[role as usize].entries =
                self.0[role as usize].entries.saturating_add(portion.entries);
            self.0[role as usize].weight += weight * portion.weight;
        }
    }

    /// Refuses early stopping without anything to stop by.
    pub fn check(&self, settings: &Settings) -> Result<()> {
        if settings.early_stopping && self.mean(0.0, Role::Validation).is_none() {
            return Err(Error::Setting(
                "early stopping needs a validation split: set aside a fraction of the entries for it"
                    .into(),
            ));
        }
        Ok(())
    }

    /// The mean of a sum; `None` where there are no entries.
    pub fn mean(&self, sum: f64, role: Role) -> Option<f64> {
        let portion = self.0[role as usize];
        (portion.entries > 0).then(|| sum / portion.weight)
    }
}

/// Keeps the history and decides when to stop.
pub(crate) struct Monitor<'a> {
    portions: Portions,
    started: Instant,
    pub max_iter: usize,
    tolerance: f64,
    /// How many sweeps apart the losses are evaluated.
    pub eval_every: usize,
    pub early_stopping: bool,
    /// Whether sweeps are extrapolated.
    pub accelerated: bool,
    /// Whether factors are rescaled among each other after every sweep.
    pub balance: bool,
    penalized: bool,
    observers: &'a mut Vec<Box<dyn Observer>>,
    pub cancel: &'a Cancel,
    /// The objective before; `None` before the first evaluation.
    course: Option<Course>,
    slow: usize,
    rises: usize,
    /// Whether the objective may rise on its way.
    may_rise: bool,
    /// The lowest validation loss.
    pub best: f64,
    /// Seconds that were spent on the fit before it was resumed.
    spent: f64,
    /// Checkpoints in a row that could not be written.
    pub failed_checkpoints: usize,
}

/// The objective as it was.
#[derive(Clone, Copy)]
struct Course {
    first: f64,
    before: f64,
}

impl<'a> Monitor<'a> {
    pub fn new(
        settings: &Settings,
        hooks: &'a mut Hooks,
        portions: Portions,
        started: Instant,
        balance: bool,
        penalized: bool,
    ) -> Monitor<'a> {
        Monitor {
            portions,
            started,
            max_iter: settings.max_iter,
            tolerance: settings.tolerance,
            // The best point can only be told from all of them.
            eval_every: if settings.early_stopping { 1 } else { settings.eval_every },
            early_stopping: settings.early_stopping,
            accelerated: settings.algorithm == Algorithm::Accelerated,
            balance,
            penalized,
            observers: &mut hooks.observers,
            cancel: &hooks.cancel,
            course: None,
            slow: 0,
            rises: 0,
            // Under a barrier it is the objective with the barrier that never rises.
            may_rise: matches!(settings.algorithm, Algorithm::Adam | Algorithm::Barrier),
            best: f64::INFINITY,
            spent: 0.0,
            failed_checkpoints: 0,
        }
    }

    /// Goes on where another monitor was with this history, after so many seconds.
    pub fn resume(&mut self, history: &History, seconds: f64) {
        self.spent = seconds;
        let validation = |i: usize| history.validation_loss.get(i).copied();
        for (i, objective) in history.objective().into_iter().enumerate() {
            self.note(objective, validation(i), i.checked_sub(1).and_then(validation));
        }
    }

    /// Seconds of the fit so far.
    pub fn seconds(&self) -> f64 {
        self.spent + self.started.elapsed().as_secs_f64()
    }

    /// Takes an element of the history in; whether its validation loss is the lowest so far.
    fn note(&mut self, objective: f64, validation: Option<f64>, before: Option<f64>) -> bool {
        let mut best = false;
        if self.early_stopping
            && let Some(validation) = validation
        {
            best = validation < self.best;
            if best {
                self.best = validation;
            }
            match before {
                Some(before) if validation > before => self.rises += 1,
                _ => self.rises = 0,
            }
        }
        if let Some(Course { first, before }) = self.course {
            let progress = before - objective;
            // A rise on the way to somewhere lower is no end.
            let progress = if self.may_rise { progress.abs() } else { progress };
            let slow = progress <= self.tolerance * objective.abs().max(first - objective);
            self.slow = if slow { self.slow + 1 } else { 0 };
        }
        let first = self.course.map_or(objective, |course| course.first);
        self.course = Some(Course { first, before: objective });
        best
    }

    /// Adds an element to the history; a reason where the fit is to stop at it.
    pub fn record(
        &mut self,
        sums: LossSums,
        engine: &mut dyn Engine,
        history: &mut History,
    ) -> Result<Option<StoppedBy>> {
        if !sums.objective().is_finite() {
            return Err(Error::Numeric(format!(
                "the loss is not finite ({}) after {} sweeps: the model's values and the data lie too far apart; raise the prediction floor or use double precision",
                sums.objective(),
                history.iterations
            )));
        }
        let mean = |sum: f64, role: Role| self.portions.mean(sum, role);
        let loss = mean(sums.train, Role::Train).unwrap_or(f64::NAN);
        let validation = mean(sums.validation, Role::Validation);
        let held_out = mean(sums.held_out, Role::HeldOut);
        let seconds = self.seconds();
        let penalty = mean(sums.penalty, Role::Train).unwrap_or(0.0);
        let objective = loss + penalty;
        let validation_before = history.validation_loss.last().copied();
        history.loss.push(loss);
        history.penalty.extend(self.penalized.then_some(penalty));
        history.validation_loss.extend(validation);
        history.heldout_loss.extend(held_out);
        history.seconds.push(seconds);
        history.sweeps.push(history.iterations);

        if self.note(objective, validation, validation_before) {
            engine.copy(Point::Current, Point::Snapshot)?;
        }
        let seen = Sweep {
            iteration: history.iterations,
            max_iter: self.max_iter,
            loss,
            validation_loss: validation,
            heldout_loss: held_out,
            seconds,
            device_memory: engine.device_memory(),
            failed_checkpoints: self.failed_checkpoints,
        };
        // Every observer sees every sweep, whatever another says.
        let mut stop = false;
        for observer in self.observers.iter_mut() {
            stop |= observer.sweep(&seen) == Flow::Stop;
        }
        Ok(if self.cancel.is_cancelled() {
            Some(StoppedBy::Interrupted)
        } else if stop {
            Some(StoppedBy::Observer)
        } else {
            self.verdict(history)
        })
    }

    /// The reason to stop at the last element of the history, where its numbers give one.
    pub fn verdict(&self, history: &History) -> Option<StoppedBy> {
        if self.rises >= RISES {
            Some(StoppedBy::Validation)
        } else if self.tolerance > 0.0 && self.slow >= PATIENCE {
            Some(StoppedBy::Tolerance)
        } else if history.iterations >= self.max_iter {
            Some(StoppedBy::MaxIter)
        } else {
            None
        }
    }
}
