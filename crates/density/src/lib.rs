//! High-dimensional distributions as nonnegative tensor trains.

mod algebra;
mod core;
mod cross;
mod density;
mod em;
mod error;
mod fit;
mod indices;
mod linalg;
mod network;
mod nonnegative;
mod random;
mod sketch;
mod train;

pub use crate::core::Core;
pub use crate::cross::{Cross, CrossTrain};
pub use crate::density::{Conditional, Covariance, Density, NegativeLogLikelihood, Table};
pub use crate::em::{Em, EmFit};
pub use crate::error::{Error, Result};
pub use crate::fit::{
    FittedTrain, History, LineSearch, Method, Schedule, Solver, StoppedBy, SweepReport, TrainFit,
};
pub use crate::indices::Indices;
pub use crate::network::{Dense, Network, NetworkFit, NetworkFitted};
pub use crate::nonnegative::NonnegativeTrain;
pub use crate::sketch::{Sketch, SketchTrain};
pub use crate::train::TensorTrain;
