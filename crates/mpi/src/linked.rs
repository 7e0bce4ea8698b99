//! Processes that `mpirun`, `srun` or the like have started.
//!
//! Whatever goes wrong inside MPI ends all processes: that is how MPI has it. A process that is killed
//! ends the others by way of `mpirun`, which watches them; [`Session::end`] ends them where this one fails
//! by itself.

use std::io::Write;
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::request::{Request, Scope, scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Destination, Source};
use nneinfact_core::engine::Reducer;
use nneinfact_core::error::{Error, Result};

/// MPI, from [`start`] until [`end`](Session::end), on the thread that has started it.
pub struct Session(Option<Universe>);

/// One of the processes that `mpirun` has started. A program that was not started by it is alone.
#[derive(Debug)]
pub struct Mpi {
    rank: usize,
    size: usize,
    patience: Option<Duration>,
    /// Why this process has failed, and since when the others do not come to hear it.
    failed: Option<(Instant, String, i32)>,
}

/// What marks the messages of this crate.
const TAG: i32 = 0x4e4e;
/// How many numbers go in one message at most: MPI counts with 31 bits.
const LONGEST: usize = 1 << 27;
/// So long others may be busy before they hear that a process has failed; then all are ended.
const LISTENS: Duration = Duration::from_secs(5);

/// Starts MPI, once in a process.
///
/// # Errors
/// [`Error::Device`] where it was started before, or does not allow for calls from several threads, one at
/// a time.
pub fn start() -> Result<(Session, Mpi)> {
    let refuse = |what: &str| Err(Error::Device(format!("MPI {what}")));
    let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Serialized) else {
        return refuse("was started before in this process");
    };
    let session = Session(Some(universe));
    if threading < Threading::Serialized {
        let _ = session.end(0);
        return refuse(
            "of this system cannot be called by the threads of a fit: a build of it with \
             MPI_THREAD_SERIALIZED is needed",
        );
    }
    let process = session.process();
    Ok((session, process))
}

impl Session {
    /// This process once more: for what is to be told after a fit has taken the first one.
    #[must_use]
    pub fn process(&self) -> Mpi {
        let world = SimpleCommunicator::world();
        Mpi {
            rank: world.rank() as usize,
            size: world.size() as usize,
            patience: None,
            failed: None,
        }
    }

    /// Ends MPI, and gives the exit status back. Where it is not 0 and there are other processes, these
    /// are ended, and so is this one, with that status: none of them waits for what will not come.
    #[must_use]
    pub fn end(mut self, status: u8) -> u8 {
        let universe = self.0.take();
        if status != 0 && SimpleCommunicator::world().size() > 1 {
            SimpleCommunicator::world().abort(status.into());
        }
        drop(universe);
        status
    }
}

impl Drop for Session {
    /// Whoever did not come to the end takes the others along.
    fn drop(&mut self) {
        if self.0.is_some() {
            SimpleCommunicator::world().abort(1);
        }
    }
}

impl Mpi {
    /// Waits so long for another process at most, and ends all of them then. Without this as long as it
    /// takes: `mpirun` ends all where one ends, but one that hangs is there.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Mpi {
        self.patience = Some(patience);
        self
    }

    fn wait<'a, D: ?Sized, S: Scope<'a>>(&self, mut request: Request<'a, D, S>, whom: &str) {
        let began = Instant::now();
        while let Err(pending) = request.test() {
            request = pending;
            let waited = began.elapsed();
            if let Some((since, error, status)) = &self.failed
                && since.elapsed() > LISTENS
            {
                let _ = writeln!(
                    std::io::stderr().lock(),
                    "error: process {} (counted from 0) has failed: {error}",
                    self.rank
                );
                SimpleCommunicator::world().abort(*status);
            }
            if self.patience.is_some_and(|patience| waited > patience) {
                // A message that is under way cannot be taken back.
                let _ = writeln!(
                    std::io::stderr().lock(),
                    "error: process {}: nothing was heard of {whom} for {} s",
                    self.rank,
                    waited.as_secs()
                );
                SimpleCommunicator::world().abort(1);
            }
            // Answers come at once, or once another process has gone through its data: then the core is
            // left to whoever computes.
            match waited.as_micros() {
                0..50 => std::hint::spin_loop(),
                50..2000 => std::thread::yield_now(),
                _ => std::thread::sleep(Duration::from_micros(100)),
            }
        }
    }
}

impl Reducer for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn exchange(&mut self, with: usize, send: &[f64], receive: &mut [f64]) -> Result<()> {
        if with >= self.size || with == self.rank {
            return Err(Error::Internal(format!(
                "process {} of {} cannot exchange with process {with}",
                self.rank, self.size
            )));
        }
        let world = SimpleCommunicator::world();
        // Fewer than 2³¹, as MPI counts them.
        let other = world.process_at_rank(with as i32);
        let name = format!("process {with}");
        let mut sent = send.chunks(LONGEST);
        let mut received = receive.chunks_mut(LONGEST);
        loop {
            // Both sides know how long either is, and so how many messages there are.
            let (send, receive) = (sent.next(), received.next());
            if send.is_none() && receive.is_none() {
                return Ok(());
            }
            scope(|scope| {
                let receiving = receive
                    .map(|receive| other.immediate_receive_into_with_tag(scope, receive, TAG));
                let sending = send.map(|send| other.immediate_send_with_tag(scope, send, TAG));
                if let Some(request) = receiving {
                    self.wait(request, &name);
                }
                if let Some(request) = sending {
                    self.wait(request, &name);
                }
            });
        }
    }

    fn agree(&mut self, word: u64) -> Result<u64> {
        let mut largest = word;
        scope(|scope| {
            let world = SimpleCommunicator::world();
            let operation = SystemOperation::max();
            let request = world.immediate_all_reduce_into(scope, &word, &mut largest, operation);
            self.wait(request, "some other process");
        });
        Ok(largest)
    }

    fn failing(&mut self, error: &Error) {
        let status = if error.is_input() { 2 } else { 1 };
        self.failed.get_or_insert_with(|| (Instant::now(), error.to_string(), status));
    }
}
