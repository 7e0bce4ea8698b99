//! Transports: what connects the processes of one fit.
//!
//! A transport is a [`Reducer`](nneinfact_core::engine::Reducer). [`Threads`] connects the threads of one
//! program; the crate `nneinfact-mpi` connects what `mpirun` has started; in Python any object with the
//! four methods is one. [`Metered`] counts what goes through any of them.

mod metered;
mod threads;

pub use metered::{Metered, Traffic};
pub use threads::Threads;
