//! What is done with the losses of every sweep: history, tolerance, validation, observers.

use std::time::Instant;

use crate::accelerate::Momentum;
use crate::observe::{Cancel, Flow, Hooks, Observer, Sweep};
use crate::settings::{Algorithm, Settings};
use nneinfact_core::data::{Portion, Prepared, Role, RoleSums, SplitKind};
use nneinfact_core::engine::{Engine, LossSums, Point, Precision};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::{History, StoppedBy};
use nneinfact_core::loss::Loss;

/// Sweeps in a row whose progress is below the tolerance before a fit stops.
const PATIENCE: usize = 3;
/// Rises of the validation loss in a row before early stopping.
const RISES: usize = 5;

/// What is said to other processes of a fit where an observer stops it, and where it is cancelled.
const STOPPED: u64 = 1;
const INTERRUPTED: u64 = 2;

/// What sums of losses are divided by, for each role, and what engines leave out of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Portions {
    portions: [Portion; 4],
    /// Sums of the loss's [offset](Loss::offset).
    offsets: RoleSums,
    /// How entries were withheld at random; of several tensors by strata where one was.
    split_kind: Option<SplitKind>,
}

impl Portions {
    pub fn of(data: &Prepared) -> Portions {
        let mut portions = Portions::default();
        portions.add(data, 1.0);
        portions
    }

    /// Adds the entries of a tensor whose losses have a weight.
    pub fn add(&mut self, data: &Prepared, weight: f64) {
        self.split_kind = match (self.split_kind, data.split_kind()) {
            (None, kind) | (kind, None) => kind,
            (Some(own), Some(kind)) if own == kind => Some(own),
            (Some(_), Some(_)) => Some(SplitKind::Strata),
        };
        for role in Role::ALL {
            let portion = data.portion(role);
            let own = &mut self.portions[role as usize];
            own.entries = own.entries.saturating_add(portion.entries);
            own.weight += weight * portion.weight;
        }
    }

    /// All that is known, as numbers that add up over parts of the data: entries, weights and offsets by
    /// role.
    pub fn numbers(&self) -> [f64; 12] {
        let Portions { portions, offsets, .. } = self;
        std::array::from_fn(|i| match i {
            0..4 => portions[i].entries as f64,
            4..8 => portions[i - 4].weight,
            _ => offsets[i - 8],
        })
    }

    /// From such numbers, and how entries were withheld at random.
    pub fn of_numbers(numbers: &[f64; 12], split_kind: Option<SplitKind>) -> Portions {
        let portion =
            |role: usize| Portion { entries: numbers[role] as u64, weight: numbers[4 + role] };
        let offsets = std::array::from_fn(|role| numbers[8 + role]);
        Portions { portions: std::array::from_fn(portion), offsets, split_kind }
    }

    /// Whether anything is observed.
    pub fn any(&self) -> bool {
        let observed = [Role::Train, Role::Validation, Role::HeldOut];
        observed.iter().any(|&role| self.portions[role as usize].entries > 0)
    }

    /// How entries were withheld at random; `None` where none were.
    pub fn split_kind(&self) -> Option<SplitKind> {
        self.split_kind
    }

    /// Adds what engines leave out of a loss of these data, summed here once in double precision.
    pub fn add_offsets(&mut self, loss: &Loss, data: &Prepared, weight: f64) {
        let Some(offset) = loss.offset() else { return };
        let sums = match loss.entry_parameters() {
            [] => {
                // Most counts are small, and two logarithms each are much for all entries.
                let small: Vec<f64> =
                    (0..=1024).map(|x| offset.eval(f64::from(x), 1.0, &[])).collect();
                let of = |x: f64, _: usize| match small.get(x as usize) {
                    Some(&known) if x == x.trunc() => known,
                    _ => offset.eval(x, 1.0, &[]),
                };
                data.sums_by_role(of, Some(small[0]))
            }
            parameters => {
                let all: Vec<Vec<f64>> =
                    parameters.iter().map(|p| p.iter().copied().collect()).collect();
                let of = |x: f64, i: usize| match all.as_slice() {
                    [only] => offset.eval(x, 1.0, &only[i..=i]),
                    all => offset.eval(x, 1.0, &all.iter().map(|p| p[i]).collect::<Vec<_>>()),
                };
                data.sums_by_role(of, None)
            }
        };
        self.offsets.iter_mut().zip(sums).for_each(|(to, sum)| *to += weight * sum);
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
        let portion = self.portions[role as usize];
        (portion.entries > 0).then(|| sum / portion.weight)
    }

    /// The mean over training entries of what engines leave out.
    fn mean_offset(&self) -> f64 {
        self.mean(self.offsets[Role::Train as usize], Role::Train).unwrap_or(0.0)
    }

    /// The mean loss, of a sum as engines make it; `None` where there are no entries.
    pub fn mean_loss(&self, sum: f64, role: Role) -> Option<f64> {
        self.mean(sum + self.offsets[role as usize], role)
    }
}

/// An engine at the point whose losses are recorded, or some sweeps beyond.
pub(crate) struct Recorded<'e> {
    engine: &'e mut dyn Engine,
    /// How many of the sweeps that it made by itself lead to the point, where it made more.
    sweeps: Option<usize>,
}

impl<'e> Recorded<'e> {
    /// An engine at the point.
    pub fn here(engine: &'e mut dyn Engine) -> Recorded<'e> {
        Recorded { engine, sweeps: None }
    }

    /// An engine that made sweeps by itself, of which so many lead to the point.
    pub fn after(engine: &'e mut dyn Engine, sweeps: usize, made: usize) -> Recorded<'e> {
        Recorded { engine, sweeps: Some(sweeps).filter(|_| sweeps < made) }
    }

    fn is_beyond(&self) -> bool {
        self.sweeps.is_some()
    }

    /// The engine, brought back to the point.
    pub fn there(&mut self) -> Result<&mut (dyn Engine + 'e)> {
        if let Some(sweeps) = self.sweeps.take() {
            self.engine.repeat_sweeps(sweeps)?;
        }
        Ok(&mut *self.engine)
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
    /// How many sweeps are not, at the beginning.
    pub plain_sweeps: usize,
    /// Whether factors are rescaled among each other after every sweep.
    pub balance: bool,
    penalized: bool,
    observers: &'a mut Vec<Box<dyn Observer>>,
    pub cancel: &'a Cancel,
    /// The objective before; `None` before the first evaluation.
    course: Option<Course>,
    slow: usize,
    /// What rounding errors make of the objective, where it was measured.
    noise: Option<f64>,
    rounding: Rounding,
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

/// The objective as it was, less what no factors can change.
#[derive(Clone, Copy)]
struct Course {
    first: f64,
    before: f64,
}

impl Course {
    /// What progress is compared with, times the tolerance.
    fn size(self) -> f64 {
        self.before.abs().max(self.first - self.before)
    }
}

/// How exact a loss is.
#[derive(Clone, Copy)]
struct Rounding {
    /// The relative rounding error of a number.
    unit: f64,
    /// Where terms of the loss cancel, how much of these errors is left in their difference: a
    /// multiple of Σ W (a + b) ŷ.
    of_terms: Option<f64>,
}

impl Rounding {
    fn of(settings: &Settings) -> Rounding {
        let unit = match settings.precision {
            Precision::F32 => f64::from(f32::EPSILON),
            Precision::F64 => f64::EPSILON,
        };
        let loss = &settings.loss;
        let of_terms = loss.cancels().then(|| loss.curvature_constant().abs());
        Rounding { unit, of_terms }
    }
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
            plain_sweeps: match settings.loss.is_half_squared_distance() {
                // Coordinate descent leaves zero again.
                true => 0,
                false => Momentum::PLAIN,
            },
            balance,
            penalized,
            observers: &mut hooks.observers,
            cancel: &hooks.cancel,
            course: None,
            slow: 0,
            noise: None,
            rounding: Rounding::of(settings),
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
        // What the loss is at best, whatever the factors, is no measure of progress.
        let objective = objective - self.portions.mean_offset();
        if let Some(Course { first, before }) = self.course {
            let progress = before - objective;
            // A rise on the way to somewhere lower is no end.
            let progress = if self.may_rise { progress.abs() } else { progress };
            let slow = progress <= self.tolerance * Course { first, before: objective }.size();
            self.slow = if slow { self.slow + 1 } else { 0 };
        }
        let first = self.course.map_or(objective, |course| course.first);
        self.noise = None;
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
        self.record_at(sums, &mut Recorded::here(engine), history)
    }

    /// As [`record`](Self::record), where the engine may have gone on.
    pub fn record_at(
        &mut self,
        sums: LossSums,
        at: &mut Recorded<'_>,
        history: &mut History,
    ) -> Result<Option<StoppedBy>> {
        if !sums.objective().is_finite() {
            return Err(Error::Numeric(format!(
                "the loss is not finite ({}) after {} sweeps: the model's values and the data lie too far apart; raise the prediction floor or use double precision",
                sums.objective(),
                history.iterations
            )));
        }
        let mean_loss = |sum: f64, role: Role| self.portions.mean_loss(sum, role);
        let loss = mean_loss(sums.train, Role::Train).unwrap_or(f64::NAN);
        let validation = mean_loss(sums.validation, Role::Validation);
        let held_out = mean_loss(sums.held_out, Role::HeldOut);
        let seconds = self.seconds();
        let penalty = self.portions.mean(sums.penalty, Role::Train).unwrap_or(0.0);
        let objective = loss + penalty;
        let validation_before = history.validation_loss.last().copied();
        history.loss.push(loss);
        history.penalty.extend(self.penalized.then_some(penalty));
        history.validation_loss.extend(validation);
        history.heldout_loss.extend(held_out);
        history.seconds.push(seconds);
        history.sweeps.push(history.iterations);

        if self.note(objective, validation, validation_before) && !at.is_beyond() {
            at.there()?.copy(Point::Current, Point::Snapshot)?;
        }
        if self.is_slow() {
            self.measure_noise(at.there()?);
        }
        let seen = Sweep {
            iteration: history.iterations,
            max_iter: self.max_iter,
            loss,
            validation_loss: validation,
            heldout_loss: held_out,
            seconds,
            device_memory: at.engine.device_memory(),
            failed_checkpoints: self.failed_checkpoints,
        };
        // Every observer sees every sweep, whatever another says.
        let mut stop = false;
        for observer in self.observers.iter_mut() {
            stop |= observer.sweep(&seen) == Flow::Stop;
        }
        let word = match (self.cancel.is_cancelled(), stop) {
            (true, _) => INTERRUPTED,
            (false, true) => STOPPED,
            (false, false) => 0,
        };
        Ok(match at.engine.agree(Ok(word))? {
            0 => self.verdict(history),
            STOPPED => Some(StoppedBy::Observer),
            _ => Some(StoppedBy::Interrupted),
        })
    }

    /// Whether the progress was below the tolerance for some time.
    fn is_slow(&self) -> bool {
        self.tolerance > 0.0 && self.slow >= PATIENCE
    }

    /// Which of these losses, sweep after sweep, has the lowest validation loss, if it is lower than
    /// any before: the point that early stopping may return.
    pub fn best_of(&self, losses: &[LossSums]) -> Option<usize> {
        let mean = |sums: &LossSums| self.portions.mean_loss(sums.validation, Role::Validation);
        let mut best = (self.best, None);
        for (n, sums) in losses.iter().enumerate() {
            match mean(sums) {
                Some(validation) if validation < best.0 => best = (validation, Some(n)),
                _ => {}
            }
        }
        best.1.filter(|_| self.early_stopping)
    }

    /// Estimates the rounding error of the objective where the fit is about to stop by the tolerance:
    /// whether that can be told. The engine's last pass is one at the factors as they are; where it
    /// was none, terms that cancel are left out.
    pub fn measure_noise(&mut self, engine: &mut dyn Engine) {
        let Some(course) = self.course.filter(|_| self.is_slow()) else { return };
        let Rounding { unit, of_terms } = self.rounding;
        let terms = of_terms.and_then(|share| {
            let [a, b] = engine.scale_terms().ok()?;
            self.portions.mean(share * (a.abs() + b.abs()), Role::Train)
        });
        // Errors of entries are independent of each other, and there are two evaluations.
        let entries = self.portions.portions[Role::Train as usize].entries as f64;
        let each = unit * (course.size() + terms.unwrap_or(0.0));
        self.noise = Some(each * (2.0 / entries.max(1.0)).sqrt());
    }

    /// The reason to stop at the last element of the history, where its numbers give one.
    pub fn verdict(&self, history: &History) -> Option<StoppedBy> {
        if self.rises >= RISES {
            Some(StoppedBy::Validation)
        } else if self.is_slow() {
            let wanted = self.course.map_or(0.0, |course| self.tolerance * course.size());
            Some(match self.noise {
                Some(noise) if noise > wanted => StoppedBy::Precision,
                _ => StoppedBy::Tolerance,
            })
        } else if history.iterations >= self.max_iter {
            Some(StoppedBy::MaxIter)
        } else {
            None
        }
    }
}
