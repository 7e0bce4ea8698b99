//! MPI as what connects the processes of a fit.
//!
//! With the feature `mpi` this crate is bound to the MPI of the system, whose interface is that of one
//! cluster: such a program runs there and nowhere else. Without it [`start`] says how to build one that
//! is.

#![deny(missing_docs)]

#[cfg(not(feature = "mpi"))]
mod absent;
#[cfg(feature = "mpi")]
mod linked;

#[cfg(not(feature = "mpi"))]
pub use absent::{NoMpi as Mpi, NoSession as Session, start};
#[cfg(feature = "mpi")]
pub use linked::{Mpi, Session, start};
