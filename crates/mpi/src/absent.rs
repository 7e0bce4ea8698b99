//! A build without MPI.

use std::convert::Infallible;
use std::time::Duration;

use nneinfact_core::engine::Reducer;
use nneinfact_core::error::{Error, Result};

/// MPI, from [`start`] until [`end`](NoSession::end): there is none in this build.
#[derive(Debug)]
pub struct NoSession(Infallible);

/// One of the processes that `mpirun` has started: there is none in this build.
#[derive(Debug)]
pub struct NoMpi(Infallible);

/// Starts MPI.
///
/// # Errors
/// [`Error::Unsupported`], which says how to build a program that has it.
pub fn start() -> Result<(NoSession, NoMpi)> {
    Err(Error::Unsupported(
        "this program was built without MPI, which differs from cluster to cluster: build it there, with \
         cargo build --release --features mpi (on Debian with the packages libopenmpi-dev, openmpi-bin and \
         libclang-dev; elsewhere with an MPI whose mpicc is on the path, and libclang)"
            .into(),
    ))
}

impl NoSession {
    /// This process once more: for what is to be told after a fit has taken the first one.
    #[must_use]
    pub fn process(&self) -> NoMpi {
        match self.0 {}
    }

    /// Ends MPI.
    #[must_use]
    pub fn end(self, _: u8) -> u8 {
        match self.0 {}
    }
}

impl NoMpi {
    /// Waits so long for another process at most.
    #[must_use]
    pub fn patience(self, _: Duration) -> NoMpi {
        match self.0 {}
    }
}

impl Reducer for NoMpi {
    fn rank(&self) -> usize {
        match self.0 {}
    }

    fn size(&self) -> usize {
        match self.0 {}
    }

    fn exchange(&mut self, _: usize, _: &[f64], _: &mut [f64]) -> Result<()> {
        match self.0 {}
    }

    fn agree(&mut self, _: u64) -> Result<u64> {
        match self.0 {}
    }
}
