//! How much goes through a transport, and how long it is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nneinfact_core::engine::Reducer;
use nneinfact_core::error::{Error, Result};

/// A transport that counts what goes through it.
///
/// ```
/// use nneinfact::engine::Reducer;
/// use nneinfact::transport::{Metered, Threads};
///
/// let sent = Threads::run(2, |process| {
///     let (mut process, traffic) = Metered::new(process);
///     let with = 1 - process.rank();
///     process.exchange(with, &[1.0; 10], &mut [0.0; 10])?;
///     Ok((traffic.messages(), traffic.bytes()))
/// })?;
/// assert_eq!(sent, [(1, 80), (1, 80)]);
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Debug)]
pub struct Metered<R> {
    inner: R,
    traffic: Arc<Traffic>,
}

/// What has gone through a [`Metered`] transport so far. It can be read while a fit is under way.
#[derive(Debug, Default)]
pub struct Traffic {
    messages: AtomicU64,
    bytes: AtomicU64,
    agreements: AtomicU64,
    nanoseconds: AtomicU64,
}

impl<R: Reducer> Metered<R> {
    /// Counts from here on.
    pub fn new(inner: R) -> (Metered<R>, Arc<Traffic>) {
        let traffic = Arc::new(Traffic::default());
        (Metered { inner, traffic: Arc::clone(&traffic) }, traffic)
    }
}

impl Traffic {
    /// How many messages were sent to another process.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// How many bytes they had together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How often all processes agreed on a word.
    #[must_use]
    pub fn agreements(&self) -> u64 {
        self.agreements.load(Ordering::Relaxed)
    }

    /// How long was spent in the transport: on the way, and waiting for others to arrive.
    #[must_use]
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    fn add_time(&self, began: Instant) {
        let nanoseconds = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl<R: Reducer> Reducer for Metered<R> {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn exchange(&mut self, with: usize, send: &[f64], receive: &mut [f64]) -> Result<()> {
        let began = Instant::now();
        let done = self.inner.exchange(with, send, receive);
        self.traffic.add_time(began);
        self.traffic.messages.fetch_add(1, Ordering::Relaxed);
        self.traffic.bytes.fetch_add(size_of_val(send) as u64, Ordering::Relaxed);
        done
    }

    fn agree(&mut self, word: u64) -> Result<u64> {
        let began = Instant::now();
        let agreed = self.inner.agree(word);
        self.traffic.add_time(began);
        self.traffic.agreements.fetch_add(1, Ordering::Relaxed);
        agreed
    }

    fn failing(&mut self, error: &Error) {
        self.inner.failing(error);
    }
}
