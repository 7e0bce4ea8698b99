//! Work in a thread of its own, while the caller's thread waits for it.
//!
//! The caller's thread waits with the interpreter released. What the work wants of Python (a callback, a
//! function's values) is sent here as a question, asked in the caller's thread, and answered. Every 50 ms
//! it looks for signals: on Ctrl-C, and where a question raised, the switch of the work is thrown, and
//! its end is waited for.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::fork;

/// How often signals are looked for.
const PATIENCE: Duration = Duration::from_millis(50);
/// The stack of the thread that works: what a main thread has.
const STACK: usize = 8 << 20;

/// What lets the work go on when it is dropped.
type Held = Box<dyn Send>;
/// Something to be done in the caller's thread. Where it raised, the work is held until it has been told to
/// end.
type Question = Box<dyn FnOnce(Python<'_>) -> Result<(), (PyErr, Held)> + Send>;

enum Event<T> {
    Question(Question),
    Done(PyResult<T>),
}

/// The way from the work to the caller's thread.
pub struct Caller<T> {
    events: Sender<Event<T>>,
}

impl<T> Clone for Caller<T> {
    fn clone(&self) -> Self {
        Caller { events: self.events.clone() }
    }
}

impl<T: Send + 'static> Caller<T> {
    /// Asks something in the caller's thread, and waits for the answer. `None` where that raised, or
    /// something else had before: the work should end.
    pub fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(Python<'_>) -> PyResult<R> + Send + 'static,
    ) -> Option<R> {
        let (answers, answer) = channel();
        let question: Question = Box::new(move |py| match question(py) {
            Ok(found) => {
                // Where nobody waits for it any more, it does not matter.
                let _ = answers.send(found);
                Ok(())
            }
            Err(error) => {
                let held: Held = Box::new(answers);
                Err((error, held))
            }
        });
        self.events.send(Event::Question(question)).ok()?;
        answer.recv().ok()
    }
}

/// What came of some work: its result, and what was raised meanwhile in the caller's thread.
pub struct Outcome<T> {
    pub result: PyResult<T>,
    pub raised: Option<PyErr>,
}

impl<T> Outcome<T> {
    /// The result, unless something was raised.
    pub fn into_result(self) -> PyResult<T> {
        match self.raised {
            Some(raised) => Err(raised),
            None => self.result,
        }
    }
}

/// Runs `work` in a thread of its own. `cancel` is called where it should end early.
pub fn wait<T: Send + 'static>(
    py: Python<'_>,
    cancel: impl Fn(),
    work: impl FnOnce(Caller<T>) -> PyResult<T> + Send + 'static,
) -> PyResult<Outcome<T>> {
    let (sender, receiver) = channel();
    let caller = Caller { events: sender.clone() };
    let started = thread::Builder::new()
        .name("nneinfact-fit".into())
        .stack_size(STACK)
        .spawn(move || {
            let result = fork::install(|| work(caller)).and_then(|result| result);
            let _ = sender.send(Event::Done(result));
        })
        .map_err(|e| PyRuntimeError::new_err(format!("cannot start a thread: {e}")))?;
    // A receiver may be used by one thread at a time.
    let receiver = Mutex::new(receiver);
    let mut raised: Option<PyErr> = None;
    let result = loop {
        match py.detach(|| next(&receiver)) {
            Ok(Event::Done(result)) => break result,
            Ok(Event::Question(question)) if raised.is_none() => {
                if let Err((error, held)) = question(py) {
                    raised = Some(error);
                    cancel();
                    drop(held);
                }
            }
            // Whoever asked is told so by the answer that does not come.
            Ok(Event::Question(_)) => {}
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                break Err(PyRuntimeError::new_err(
                    "internal error: the thread of the fit ended without a result",
                ));
            }
        }
        if let Err(signal) = py.check_signals() {
            raised.get_or_insert(signal);
            cancel();
        }
    };
    // It has sent its last word.
    let _ = py.detach(|| started.join());
    Ok(Outcome { result, raised })
}

fn next<T>(receiver: &Mutex<Receiver<T>>) -> Result<T, RecvTimeoutError> {
    receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(PATIENCE)
}

/// Runs something short, or that cannot be interrupted, with the interpreter released.
pub fn released<R: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> nneinfact::Result<R> + Send,
) -> PyResult<R> {
    py.detach(|| fork::install(work))?.map_err(crate::errors::raised)
}
