//! `nneinfact` fits any nonnegative tensor factorization that can be written as an einsum string.

#[cfg(feature = "cli")]
pub mod cli;
pub mod data;
pub mod engine;
mod error;
pub mod fit;
pub mod io;
pub mod loss;
#[doc(hidden)]
pub mod math;
pub mod model;
pub mod plan;
// pub mod reference;

pub use data::Observations;
pub use engine::{Device, Precision};
pub use error::{Error, Result};
pub use fit::{Algorithm, Fit, NNEinFact};
pub use loss::Loss;
