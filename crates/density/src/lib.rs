//! High-dimensional distributions as nonnegative tensor trains.
//!
//! A density over many discrete variables has exponentially many entries. As a nonnegative tensor
//! train it has a few thousand numbers, and answers any question about itself exactly:
//! normalisation, marginals, conditionals, moments, samples, likelihoods.
//!
//! The way there has two stages (Tang, Dwaraknath & Ying 2025, arXiv 2507.21519; the formulas are
//! those of this project's specification `NTT.md`, whose sections the documentation names):
//!
//! 1. a train without signs: [`Cross`] from a function or its logarithm, [`Sketch`] from samples;
//! 2. a nonnegative train fitted to it: [`TrainFit`], by Newton steps with a logarithmic barrier, one
//!    core at a time.
//!
//! Then [`Density`] answers questions, and [`Em`] raises the likelihood of samples.
//!
//! Modes, bonds, indices and rows count from 0. Logarithms are natural. Everything is in double
//! precision and has the same bits for any number of threads.
//!
//! ```
//! use nneinfact_density::{Cross, Density, TrainFit};
//!
//! // A chain of 12 variables on a grid, each near its neighbours: exp(-Σ (x_k − x_{k+1})²).
//! let x = |i: usize| 2.0 * i as f64 / 7.0 - 1.0;
//! let log_f =
//!     |i: &[usize]| -i.windows(2).map(|w| (x(w[0]) - x(w[1])).powi(2)).sum::<f64>();
//! let found = Cross::new(vec![8; 12]).tol(1e-6).run_log(log_f)?;
//! let fit = TrainFit::new().rank(6).sweeps(20).run(&found.train)?;
//! assert!(fit.relative_squared_distance < 1e-4);
//!
//! let density = Density::new(&fit.train)?;
//! let samples = density.sample(1000, 1)?;
//! println!("{:.3} nats", density.nll(&samples, None)?.mean);
//! let given = density.conditional(&[(0, 7)])?;
//! println!("given the first, the last is {:?}", given.density.marginal(&[11])?.values());
//! # Ok::<(), nneinfact_density::Error>(())
//! ```

mod algebra;
mod core;
mod cross;
mod density;
mod em;
mod fit;
mod indices;
mod linalg;
mod network;
mod nonnegative;
mod random;
mod sketch;
mod small;
mod train;

use nneinfact_core::error;

pub use crate::core::Core;
pub use crate::cross::{Cross, CrossTrain};
pub use crate::density::{Conditional, Covariance, Density, NegativeLogLikelihood, Table};
pub use crate::em::{Em, EmFit};
pub use crate::fit::{
    FittedTrain, History, LineSearch, Method, Schedule, Solver, StoppedBy, SweepReport, TrainFit,
};
pub use crate::indices::Indices;
pub use crate::network::{DataNewton, Dense, Entries, Network, NetworkFit, NetworkFitted};
pub use crate::nonnegative::NonnegativeTrain;
pub use crate::sketch::{Sketch, SketchTrain};
pub use crate::train::TensorTrain;
pub use nneinfact_core::error::{Error, Result};
