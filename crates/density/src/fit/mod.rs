//! Fitting a nonnegative train to a train of any sign. NTT.md, sections 4 to 6.

pub(crate) mod environments;
mod first_order;
mod history;
pub(crate) mod newton;
mod run;
pub(crate) mod schedule;
pub(crate) mod settings;
mod solve;
mod start;

pub use history::{History, StoppedBy, SweepReport};
pub use run::FittedTrain;
pub use settings::{LineSearch, Method, Schedule, Solver, TrainFit};
pub(crate) use start::first_modes;
