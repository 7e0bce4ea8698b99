//! The front door: from a model string and data to fitted factors.
//!
//! [`NNEinFact`] collects the settings, [`NNEinFact::fit`] checks them once and runs the algorithm,
//! and [`Fit`] holds what came out.

mod adam;
mod builder;
mod checkpoint;
mod components;
mod coupled;
mod coupled_engine;
mod device;
mod fitted;
mod form;
pub mod io;
mod observe;
mod open;
mod rules;
mod saved;
mod scale;
mod solve;
mod start;
mod watch;

pub use builder::{Algorithm, NNEinFact, Source, Start};
pub use checkpoint::{Checkpoint, Every};
pub use components::{Norm, ScalesInto};
pub use coupled::{Coupled, CoupledFit, Part};
pub use device::{Device, DeviceInfo};
pub use fitted::Fit;
pub use form::DataAs;
pub use nneinfact_core::history::{History, StoppedBy, Unfinished};
#[cfg(feature = "gpu")]
pub use nneinfact_gpu::DriverLock;
pub use observe::{Cancel, Flow, Observer, Sweep};
pub use open::prediction_floor;
pub use rules::Balance;
pub use saved::block_of;
pub use saved::{DataRecord, EntryParameterRecord, LossRecord, Record, Saved};
pub use saved::{WEIGHTS, factor_name};
pub use scale::balanced;
