//! The events of a study, and its observers.

use std::sync::{Arc, Mutex, PoisonError};

use super::run_result::RunOutcome;
use nneinfact_fit::Sweep;

/// Where a study stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The number of this run, counted from 1.
    pub run: usize,
    /// How many runs there are.
    pub runs: usize,
    /// What it is of: model, ranks, loss, split, start.
    pub label: String,
    /// The seconds that this run and those after it will take, with splits, scores and files, by the
    /// runs that are done: of the same setup, or per parameter. `None` before any run is done.
    pub left: Option<f64>,
}

/// What happens in a study.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// A run begins.
    Begins(&'a Standing),
    /// A sweep of it is done.
    Sweep(&'a Standing, &'a Sweep),
    /// A run is over; for a run that was finished before and taken from the folder, it is the only
    /// event.
    Ends {
        /// Which one; what is left is without it.
        standing: &'a Standing,
        /// How it ended.
        outcome: &'a RunOutcome,
        /// Whether it was taken from the folder.
        kept: bool,
    },
}

/// Receives the events of a study. Closures do.
pub trait StudyObserver: Send {
    /// Called at every event.
    fn event(&mut self, event: &Event<'_>);
}

impl<F: FnMut(&Event<'_>) + Send> StudyObserver for F {
    fn event(&mut self, event: &Event<'_>) {
        self(event);
    }
}

/// StudyObservers that the observer of a fit reaches too.
pub(super) type StudyObservers = Arc<Mutex<Vec<Box<dyn StudyObserver>>>>;

pub(super) fn notify(observers: &StudyObservers, event: &Event<'_>) {
    // One observer that panicked does not stop the others.
    let mut all = observers.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter_mut().for_each(|observer| observer.event(event));
}
