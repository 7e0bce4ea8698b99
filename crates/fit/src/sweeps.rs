//! The loop of block, grouped and accelerated fits.

use crate::accelerate::Momentum;
use crate::checkpoint::{CheckpointWriter, Position, Stage};
use crate::monitor::{Monitor, Recorded};
use crate::observe::cancelled;
use nneinfact_core::engine::{Engine, LossSlot, LossSums, Point, SweepEnd};
use nneinfact_core::error::Result;
use nneinfact_core::history::{History, StoppedBy};

/// Sweeps until there is a reason to stop. The engine is left at the factors to return; after an error
/// at those of the last completed sweep, as far as the device still answers.
///
/// In an accelerated fit (docs/method.md) every sweep but the first few and the last ends with an
/// extrapolation, whose
/// loss comes with the first pass of the next sweep for free; if it is above that in the middle of
/// the sweep before, the point is given up for the plain result, at the cost of a pass. A model with one
/// group has no middle: there the plain result is evaluated too, as the loss at the start of the sweep
/// would let points stand that are far worse than it.
///
/// An engine that can makes sweeps by itself, and the host looks at many of them at a time; what it
/// would have decided after one of them it decides then, and the engine goes back there.
///
/// The checkpoint writer saves the fit before the first evaluation, between evaluations and sweeps, and
/// after the last sweep. A fit that is resumed is at such a place, its engine and history being as
/// they were there.
pub(crate) fn sweeps(
    engine: &mut dyn Engine,
    groups: usize,
    monitor: &mut Monitor<'_>,
    history: &mut History,
    writer: &mut Option<CheckpointWriter>,
    resumed: Option<Position>,
) -> Result<()> {
    // With one group the problem is convex, or nearly.
    let plain = if groups == 1 { 0 } else { monitor.plain_sweeps };
    let momentum = monitor.accelerated.then(|| Momentum::new(plain));
    // With early stopping the snapshot is not the factors of the last evaluation, so that an interrupted
    // sweep could not be taken back in the file: it is completed.
    let completes = writer.is_some() && monitor.early_stopping;
    Loop {
        engine,
        groups,
        monitor,
        history,
        writer,
        momentum,
        completes,
        evaluated: false,
        passed: false,
        bound: None,
    }
    .run(resumed)
}

struct Loop<'a, 'b> {
    engine: &'a mut dyn Engine,
    groups: usize,
    monitor: &'a mut Monitor<'b>,
    history: &'a mut History,
    writer: &'a mut Option<CheckpointWriter>,
    momentum: Option<Momentum>,
    /// Whether a sweep is completed when it is cancelled in its middle.
    completes: bool,
    /// Whether the history has the losses at the factors already.
    evaluated: bool,
    /// Whether the engine has made the first pass of the next sweep, too.
    passed: bool,
    /// What the objective at an extrapolated point may be at most, where the engine does not tell it: in
    /// a model with one group, and where the last sweep was before the fit was resumed.
    bound: Option<f64>,
}

/// The most sweeps that an engine is asked for at a time.
const MOST_AHEAD: usize = 128;

/// What came of sweeps that the engine made by itself.
enum Ahead {
    /// It made none.
    None,
    /// It made some, and the first pass of the next one.
    Moved,
    /// The fit is to stop where the engine is.
    Stop(StoppedBy),
}

impl Loop<'_, '_> {
    fn run(mut self, resumed: Option<Position>) -> Result<()> {
        if let Some(reason) = self.begin(resumed)? {
            self.history.stopped_by = reason;
            return self.finish();
        }
        loop {
            let last = self.history.iterations >= self.monitor.max_iter;
            let evaluated = std::mem::take(&mut self.evaluated);
            // Nobody asks for these losses: the device goes on without the host.
            let unseen = !evaluated
                && self.momentum.is_none()
                && !last
                && !self.history.iterations.is_multiple_of(self.monitor.eval_every);
            if std::mem::take(&mut self.passed) {
                // That came with the last of its own sweeps.
            } else if evaluated || unseen {
                self.engine.pass(0)?;
            } else if let Some(reason) = self.evaluate(last)? {
                self.history.stopped_by = reason;
                break;
            }
            // A sweep is all or nothing: a failure or an interruption in its middle goes back.
            if !unseen && !self.monitor.early_stopping {
                self.engine.copy(Point::Current, Point::Snapshot)?;
            }
            match self.ahead()? {
                Ahead::None => {}
                Ahead::Moved => {
                    self.passed = true;
                    continue;
                }
                Ahead::Stop(reason) => {
                    self.history.stopped_by = reason;
                    break;
                }
            }
            if !self.sweep()? {
                self.interrupted()?;
                self.save(Stage::Evaluated)?;
                break;
            }
            self.history.iterations += 1;
            if self.history.iterations >= self.monitor.max_iter {
                self.save(Stage::Swept)?;
            } else {
                self.extrapolate()?;
            }
        }
        self.finish()
    }

    /// Comes to where the first sweep begins; a reason where a fit that is resumed had ended.
    fn begin(&mut self, resumed: Option<Position>) -> Result<Option<StoppedBy>> {
        let Some(position) = resumed else {
            if self.momentum.is_some() {
                self.engine.copy(Point::Current, Point::Anchor)?;
            }
            self.save(Stage::Swept)?;
            return Ok(None);
        };
        if let Some(momentum) = &mut self.momentum {
            momentum.t = position.t;
        }
        self.evaluated = position.stage == Stage::Evaluated;
        if self.evaluated {
            if self.monitor.verdict(self.history) == Some(StoppedBy::Tolerance) {
                // It may have been the precision: the same pass tells again.
                self.engine.pass(0)?;
                self.monitor.measure_noise(self.engine);
            }
            return Ok(self.monitor.verdict(self.history));
        }
        if self.history.iterations > 0 {
            self.bound = Some(position.middle);
            // It was the last sweep that had been asked for.
            if self.history.iterations < self.monitor.max_iter {
                self.extrapolate()?;
            }
        }
        Ok(None)
    }

    /// Evaluates the losses at the factors, with the first pass of the next sweep where this was not the
    /// `last`, and records them; a reason where the fit is to stop.
    fn evaluate(&mut self, last: bool) -> Result<Option<StoppedBy>> {
        let [mut sums, middle] = self.losses(last)?;
        let bound = self.bound.take().unwrap_or(middle.objective());
        if let Some(momentum) = &mut self.momentum
            && momentum.rejects(sums.objective(), bound)
        {
            self.engine.copy(Point::Anchor, Point::Current)?;
            [sums, _] = self.losses(last)?;
        }
        let stop = self.monitor.record(sums, self.engine, self.history)?;
        // From the end of the last sweep a longer fit goes on as if it had been asked for at once.
        let due = |writer: &CheckpointWriter| match stop {
            Some(_) => !writer.has_swept(self.history.iterations),
            None => writer.is_due(self.history.iterations),
        };
        if let Some(due) = self.writer.as_ref().map(due)
            && self.engine.agree(Ok(u64::from(due)))? > 0
        {
            self.save(Stage::Evaluated)?;
        }
        Ok(stop)
    }

    /// The first pass of a sweep gives the loss at the end of the one before for free.
    fn losses(&mut self, last: bool) -> Result<[LossSums; LossSlot::COUNT]> {
        match last {
            true => self.engine.evaluate()?,
            false => self.engine.pass(0)?,
        }
        self.engine.sums()
    }

    /// How the next sweeps end, if every extrapolation stands. The last sweep of a fit is the host's.
    fn ends(&self) -> Vec<SweepEnd> {
        let made = self.history.iterations;
        let left = self.monitor.max_iter.saturating_sub(made + 1).min(MOST_AHEAD);
        let mut momentum = self.momentum.clone();
        let mut end = |sweeps: usize| match momentum.as_mut().map(|m| m.next(sweeps)) {
            None => SweepEnd::Plain,
            Some(None) => SweepEnd::Anchor,
            Some(Some(by)) => SweepEnd::Extrapolate(by),
        };
        (1..=left).map(|n| end(made + n)).collect()
    }

    /// Lets the engine make sweeps by itself, whose losses are recorded here.
    fn ahead(&mut self) -> Result<Ahead> {
        // Where sweeps are not seen, the host does not wait as it is; a checkpoint, and rescaling steps,
        // are the host's.
        let seen = self.momentum.is_some() || self.monitor.eval_every == 1;
        if !seen || self.writer.is_some() || self.monitor.balance {
            return Ok(Ahead::None);
        }
        let mut found = self.engine.sweeps(&self.ends())?;
        if found.is_empty() {
            return Ok(Ahead::None);
        }
        // Only the last can be an extrapolation that does not stand: the engine stopped there.
        let mut momentum = self.momentum.clone();
        let made = self.history.iterations;
        let mut rejected = false;
        for (n, [sums, middle]) in found.iter().enumerate() {
            if let Some(momentum) = &mut momentum {
                momentum.next(made + n + 1);
                rejected = momentum.rejects(sums.objective(), middle.objective());
            }
        }
        let standing = found.len() - usize::from(rejected);
        let at: Vec<LossSums> = found[..standing].iter().map(|[sums, _]| *sums).collect();
        if let Some(best) = self.monitor.best_of(&at)
            && best + 1 < found.len()
        {
            // The factors are kept there; what came after is made again from there.
            self.engine.repeat_sweeps(best + 1)?;
            found.truncate(best + 1);
        }
        let count = found.len();
        for (n, [sums, middle]) in found.into_iter().enumerate() {
            self.history.iterations += 1;
            let mut sums = sums;
            if let Some(momentum) = &mut self.momentum {
                momentum.next(self.history.iterations);
                if momentum.rejects(sums.objective(), middle.objective()) {
                    self.engine.copy(Point::Anchor, Point::Current)?;
                    [sums, _] = self.losses(false)?;
                }
            }
            let mut at = Recorded::after(self.engine, n + 1, count);
            if let Some(reason) = self.monitor.record_at(sums, &mut at, self.history)? {
                at.there()?;
                return Ok(Ahead::Stop(reason));
            }
        }
        Ok(Ahead::Moved)
    }

    /// One sweep whose first pass is done. `false` where it was cancelled before its end.
    fn sweep(&mut self) -> Result<bool> {
        self.engine.update(0)?;
        for group in 1..self.groups {
            if !self.completes && cancelled(self.monitor.cancel, self.engine)? {
                return Ok(false);
            }
            self.engine.pass(group)?;
            self.engine.update(group)?;
        }
        if self.monitor.balance {
            self.engine.balance()?;
        }
        Ok(true)
    }

    /// Moves on from the plain result of a sweep. The last point of a fit is a plain result.
    fn extrapolate(&mut self) -> Result<()> {
        let Some(momentum) = &mut self.momentum else { return Ok(()) };
        let Some(by) = momentum.next(self.history.iterations) else {
            return self.engine.copy(Point::Current, Point::Anchor);
        };
        if self.groups == 1 {
            self.engine.evaluate()?;
            let at_plain_result = self.engine.sums()?[LossSlot::Start as usize];
            self.bound = Some(at_plain_result.objective());
        }
        self.engine.extrapolate(by)?;
        Ok(())
    }

    /// Saves a fit that is to be saved.
    fn save(&mut self, stage: Stage) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        // The guard of the next extrapolation asks for it.
        let middle = match (stage, &self.momentum) {
            (Stage::Swept, Some(_)) if self.history.iterations > 0 => {
                self.engine.sums()?[LossSlot::Middle as usize].objective()
            }
            (Stage::Swept | Stage::Evaluated, _) => 0.0,
        };
        let t = self.momentum.as_ref().map_or(1.0, |momentum| momentum.t);
        let position = Position { stage, t, middle };
        let saved = writer.save(self.engine, self.history, position, self.monitor.seconds());
        self.engine.agree(saved.map(|()| 0))?;
        self.monitor.failed_checkpoints = writer.failures;
        Ok(())
    }

    /// Leaves the engine at the factors to return.
    fn finish(&mut self) -> Result<()> {
        let (monitor, history) = (&self.monitor, &mut *self.history);
        history.returned = history.loss.len().saturating_sub(1);
        if monitor.early_stopping && monitor.best.is_finite() {
            self.engine.copy(Point::Snapshot, Point::Current)?;
            history.returned = history
                .validation_loss
                .iter()
                .position(|&v| v == monitor.best)
                .unwrap_or(history.returned);
        }
        Ok(())
    }

    /// Goes back to where the losses were evaluated last.
    fn interrupted(&mut self) -> Result<()> {
        self.engine.copy(Point::Snapshot, Point::Current)?;
        self.history.stopped_by = StoppedBy::Interrupted;
        self.history.iterations = self.history.sweeps.last().copied().unwrap_or(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
