//! Runs of a study that go on at once: small fits to the same split, each on a thread of its own.
//!
//! What is told of them, and in which order, is what would be told if they were made one after the other: the
//! sweeps of a run that is ahead of its turn wait until the runs before are over.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::events::{Event, notify};
use super::run_result::RunOutcome;
use super::runner::{Running, SplitData};
use super::score::{Scorer, Scores};
use super::setups::{Planned, Setup};
use super::study::Study;
use super::study_model::TriedLoss;
use nneinfact_core::data::Prepared;
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::{Device, Fit, Flow, Observer, ReadyFits, StoppedBy, Sweep, work_queue};

/// What a thread tells of its runs.
enum Told {
    Sweep(usize, Sweep),
    Over(usize, Ended),
}

/// How a run ended.
enum Ended {
    /// With a fit, its scores, and when the run began.
    Fitted(Box<Fit>, Result<Scores>, Instant),
    Failed(String),
    /// The study was cancelled.
    Interrupted,
}

/// The fits of a setup, which the first of its runs makes ready and the last lets go.
struct Shared {
    runs_left: usize,
    fits: Option<Result<Arc<ReadyFits>, String>>,
}

/// What the threads work on.
struct Work<'a> {
    study: &'a Study,
    device: &'a Device,
    losses: &'a [TriedLoss],
    setups: &'a [Setup],
    runs: &'a [Planned],
    data: &'a Prepared,
    counts: bool,
    /// The runs to be made, in order.
    pending: &'a [usize],
    shared: BTreeMap<usize, Mutex<Shared>>,
    /// Set when nobody waits for results any longer.
    stop: Arc<AtomicBool>,
}

impl Running<'_> {
    /// The runs from the `from`-th on that are made at once; none where it is made by itself. They are of the same
    /// split, all of them small, and none needs another.
    pub fn together(&mut self, from: usize) -> Range<usize> {
        let split = self.runs[from].split;
        let end = (from..self.runs.len()).find(|&n| self.runs[n].split != split);
        let range = from..end.unwrap_or(self.runs.len());
        let pending: Vec<usize> =
            range.clone().filter(|&n| self.outcomes[n] == RunOutcome::Pending).collect();
        // On a path a fit begins where the one before it has ended.
        if pending.iter().any(|&n| self.runs[n].before.is_some()) {
            return from..from;
        }
        let of = |&n: &usize| self.at_most[self.runs[n].setup];
        let most = pending.iter().map(of).fold(pending.len(), usize::min);
        if most < 2 {
            return from..from;
        }
        self.concurrent = most;
        range
    }

    /// Makes runs at once; whether the study goes on.
    pub fn at_once(&mut self, range: Range<usize>) -> Result<bool> {
        let began = Instant::now();
        self.make_ready(self.runs[range.start].split)?;
        let Some(known) = self.ready.take() else {
            return Err(Error::Internal("the data of a split were made and are gone".into()));
        };
        let pending: Vec<usize> =
            range.clone().filter(|&n| self.outcomes[n] == RunOutcome::Pending).collect();
        let mut shared: BTreeMap<usize, Mutex<Shared>> = BTreeMap::new();
        for &n in &pending {
            let empty = || Mutex::new(Shared { runs_left: 0, fits: None });
            let own = shared.entry(self.runs[n].setup).or_insert_with(empty);
            own.get_mut().unwrap_or_else(PoisonError::into_inner).runs_left += 1;
        }
        let work = Work {
            study: self.study,
            device: self.device,
            losses: self.losses,
            setups: self.setups,
            runs: self.runs,
            data: &known.data,
            counts: self.counts,
            pending: &pending,
            shared,
            stop: Arc::default(),
        };
        // The first run is charged with the split.
        let seconds = known.seconds + began.elapsed().as_secs_f64();
        let made = (pending.first().copied().unwrap_or(0), seconds);
        let done = work_queue(
            vec![(); self.concurrent],
            pending.len(),
            |(), at, sender| work.job(at, sender),
            |receiver| {
                let done = self.listen(receiver, range, &work, made);
                work.stop.store(true, Ordering::Relaxed);
                done
            },
        );
        drop(work);
        self.concurrent = 1;
        self.ready = Some(SplitData { seconds: 0.0, ..known });
        done?
    }

    /// Keeps what the threads give, and tells the observers of it in the order of the runs; whether the study goes
    /// on.
    fn listen(
        &mut self,
        receiver: &Receiver<Told>,
        range: Range<usize>,
        work: &Work<'_>,
        made: (usize, f64),
    ) -> Result<bool> {
        let observers = &self.study.observers;
        let mut ahead: BTreeMap<usize, Vec<Sweep>> = BTreeMap::new();
        let mut over: BTreeMap<usize, Option<RunOutcome>> = BTreeMap::new();
        let mut goes_on = true;
        'runs: for n in range {
            let mut standing = self.standing(n);
            if self.outcomes[n] != RunOutcome::Pending {
                let outcome = &self.outcomes[n];
                notify(observers, &Event::Ends { standing: &standing, outcome, kept: true });
                continue;
            }
            if self.study.cancel.is_cancelled() && !over.contains_key(&n) {
                goes_on = false;
                break;
            }
            notify(observers, &Event::Begins(&standing));
            for sweep in ahead.remove(&n).unwrap_or_default() {
                notify(observers, &Event::Sweep(&standing, &sweep));
            }
            let outcome = loop {
                if let Some(outcome) = over.remove(&n) {
                    break outcome;
                }
                match receiver.recv() {
                    Ok(Told::Sweep(m, sweep)) if m == n => {
                        notify(observers, &Event::Sweep(&standing, &sweep));
                    }
                    Ok(Told::Sweep(m, sweep)) => ahead.entry(m).or_default().push(sweep),
                    Ok(Told::Over(m, ended)) => {
                        over.insert(m, self.ended(m, ended, made)?);
                    }
                    // The threads are gone, and nothing of this run came.
                    Err(_) => {
                        goes_on = false;
                        break 'runs;
                    }
                }
            };
            let Some(outcome) = outcome else {
                goes_on = false;
                break;
            };
            self.outcomes[n] = outcome;
            standing.left = self.left(n + 1);
            let outcome = &self.outcomes[n];
            notify(observers, &Event::Ends { standing: &standing, outcome, kept: false });
        }
        // Runs that were ahead of their turn are over all the same.
        work.stop.store(true, Ordering::Relaxed);
        while let Ok(told) = receiver.recv() {
            if let Told::Over(m, ended) = told {
                over.insert(m, self.ended(m, ended, made)?);
            }
        }
        for (m, outcome) in over {
            self.outcomes[m] = outcome.unwrap_or(RunOutcome::Pending);
        }
        Ok(goes_on)
    }

    /// Keeps what came of a run; `None` where it was interrupted.
    fn ended(
        &mut self,
        n: usize,
        ended: Ended,
        (first, seconds): (usize, f64),
    ) -> Result<Option<RunOutcome>> {
        Ok(match ended {
            Ended::Fitted(fit, scores, began) => {
                let before = if n == first { seconds } else { 0.0 };
                let outcome =
                    self.keep(n, *fit, scores, || before + began.elapsed().as_secs_f64())?;
                if let RunOutcome::Finished(result) = &outcome {
                    self.times.done(n, result.wall_seconds);
                }
                Some(outcome)
            }
            Ended::Failed(error) => Some(RunOutcome::Failed(error)),
            Ended::Interrupted => None,
        })
    }
}

impl Work<'_> {
    /// Makes one of the pending runs; whether there may be another one.
    fn job(&self, at: usize, sender: &Sender<Told>) -> bool {
        let over = self.stop.load(Ordering::Relaxed) || self.study.cancel.is_cancelled();
        let Some(&n) = self.pending.get(at).filter(|_| !over) else { return false };
        let ended = self.one(n, sender);
        let setup = self.runs[n].setup;
        if let Some(shared) = self.shared.get(&setup) {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.runs_left = shared.runs_left.saturating_sub(1);
            if shared.runs_left == 0 {
                shared.fits = None;
            }
        }
        sender.send(Told::Over(n, ended)).is_ok()
    }

    /// The fits of a setup.
    fn fits(&self, setup: usize) -> Result<Arc<ReadyFits>, String> {
        let Some(shared) = self.shared.get(&setup) else {
            return Err("a run is of no setup".into());
        };
        // Others of the setup wait here until the first has made it ready.
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || -> Result<ReadyFits> {
            self.study.settings(&self.setups[setup], self.losses, self.device)?.ready(self.data)
        };
        let made = || make().map(Arc::new).map_err(|error| error.to_string());
        shared.fits.get_or_insert_with(made).clone()
    }

    /// Makes a run.
    fn one(&self, n: usize, sender: &Sender<Told>) -> Ended {
        let (began, run) = (Instant::now(), &self.runs[n]);
        let fits = match self.fits(run.setup) {
            Ok(fits) => fits,
            Err(_) if self.study.cancel.is_cancelled() => return Ended::Interrupted,
            Err(error) => return Ended::Failed(error),
        };
        let (stop, sender) = (Arc::clone(&self.stop), sender.clone());
        let observer = move |sweep: &Sweep| match sender.send(Told::Sweep(n, *sweep)) {
            Ok(()) if !stop.load(Ordering::Relaxed) => Flow::Continue,
            Ok(()) | Err(_) => Flow::Stop,
        };
        let observers: Vec<Box<dyn Observer>> = vec![Box::new(observer)];
        match fits.fit(run.settings.seed, &self.study.cancel, observers) {
            Ok(fit) if fit.history().stopped_by == StoppedBy::Interrupted => Ended::Interrupted,
            Ok(fit) if fit.history().stopped_by == StoppedBy::Observer => Ended::Interrupted,
            Ok(fit) => {
                let loss = &self.losses[self.setups[run.setup].loss].loss;
                let scorer = Scorer::new(self.data, loss, self.counts);
                let scores = scorer.scores(fit.shapes(), fit.factors());
                Ended::Fitted(Box::new(fit), scores, began)
            }
            Err(_) if self.study.cancel.is_cancelled() => Ended::Interrupted,
            Err(error) => Ended::Failed(error.to_string()),
        }
    }
}
