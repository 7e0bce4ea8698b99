//! Fitting a nonnegative train to a train of any sign. NTT.md, sections 4 to 6.

pub(crate) mod environments;
mod first_order;
mod history;
mod newton;
mod run;
mod schedule;
mod settings;
mod solve;
mod start;

pub use history::{History, StoppedBy, SweepReport};
pub use run::FittedTrain;
pub use settings::{LineSearch, Method, Schedule, Solver, TrainFit};
