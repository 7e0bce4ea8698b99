//! The front door: from a model string and data to fitted factors.
//!
//! [`NNEinFact`] collects the settings, [`NNEinFact::fit`] checks them once and runs the algorithm,
//! and [`Fit`] holds what came out.

mod builder;
mod fitted;
mod form;
mod history;
mod observe;
mod solve;
mod start;

pub use builder::{Algorithm, NNEinFact, Source, Start};
pub use fitted::Fit;
pub use form::DataAs;
pub use history::{History, StoppedBy};
pub use observe::{Cancel, Flow, Observer, Sweep};
