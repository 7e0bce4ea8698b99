//! Watching a fit, and stopping it from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nneinfact_core::engine::{Engine, Reducer};
use nneinfact_core::error::Result;

/// What an observer says to a fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Stop here and return the factors as they are.
    Stop,
}

/// What an observer sees after each sweep (and once before the first).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sweep {
    /// The number of completed sweeps: 0 before the first.
    pub iteration: usize,
    /// The most sweeps that the fit may take.
    pub max_iter: usize,
    /// Weighted mean loss over the training entries.
    pub loss: f64,
    /// Over the validation entries, where there are any.
    pub validation_loss: Option<f64>,
    /// Over the held-out entries, where there are any.
    pub heldout_loss: Option<f64>,
    /// Seconds since the start of the fit, those before it was [resumed](crate::NNEinFact::resume)
    /// included.
    pub seconds: f64,
    /// Bytes that the fit takes on a device with memory of its own.
    pub device_memory: Option<u64>,
    /// How many checkpoints in a row, up to the newest, could not be written. The fit goes on
    /// without them.
    pub failed_checkpoints: usize,
}

/// Something that watches a fit.
///
/// Closures are observers:
///
/// ```
/// use ndarray::array;
/// use nneinfact::fit::{Flow, StoppedBy, Sweep};
/// use nneinfact::NNEinFact;
///
/// let y = array![[4.0, 2.0], [2.0, 1.0]];
/// let fit = NNEinFact::new("ir,jr->ij")?
///     .ranks([('r', 1)])
///     .tolerance(0.0)
///     .observe(|sweep: &Sweep| if sweep.iteration == 3 { Flow::Stop } else { Flow::Continue })
///     .fit(&y)?;
/// assert_eq!(fit.history().iterations, 3);
/// assert_eq!(fit.history().stopped_by, StoppedBy::Observer);
/// # Ok::<(), nneinfact::Error>(())
/// ```
pub trait Observer: Send {
    /// Called after every sweep, and once before the first.
    fn sweep(&mut self, sweep: &Sweep) -> Flow;
}

impl<F: FnMut(&Sweep) -> Flow + Send> Observer for F {
    fn sweep(&mut self, sweep: &Sweep) -> Flow {
        self(sweep)
    }
}

/// A switch that stops a fit from another thread or from a signal handler.
///
/// The fit ends at the next boundary between passes; the factors of the last completed sweep are
/// returned, with [`StoppedBy::Interrupted`](crate::StoppedBy::Interrupted).
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A switch that is not thrown.
    #[must_use]
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Throws the switch.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was thrown.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a fit was cancelled, on this process or on another that it is shared with: all find out at the
/// same place.
pub(crate) fn cancelled(cancel: &Cancel, engine: &mut dyn Engine) -> Result<bool> {
    Ok(engine.agree(Ok(u64::from(cancel.is_cancelled())))? > 0)
}

/// What is attached to a fit from outside: its observers, the switch that stops it, and the other
/// processes that it is shared with.
#[derive(Default)]
pub(crate) struct Hooks {
    pub observers: Vec<Box<dyn Observer>>,
    pub cancel: Cancel,
    pub reducer: Option<Box<dyn Reducer>>,
}
