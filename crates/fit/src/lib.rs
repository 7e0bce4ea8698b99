//! Fitting: settings, algorithms, starts, results and files.
//!
//! [`NNEinFact`] collects the settings, [`NNEinFact::fit`] checks them once and runs the algorithm,
//! and [`Fit`] holds what came out.
#![deny(missing_docs)]

mod accelerate;
mod adam;
mod barrier;
mod basis;
mod builder;
mod checkpoint;
mod closed_forms;
mod common;
mod components;
mod concurrent;
mod constraints;
mod coupled;
mod device;
#[cfg(feature = "gpu")]
mod dispatches;
mod factored;
mod factors;
mod format;
pub mod io;
mod kkt;
mod monitor;
mod observe;
mod prepare;
mod ready;
mod record;
mod relabel;
mod result;
mod run;
mod saved;
mod settings;
mod setup;
mod shared;
mod source;
mod split_plan;
mod start;
mod structure;
mod structured;
mod sweeps;
mod target;
mod trains;
pub mod transport;
mod trial;
mod units;

pub use builder::NNEinFact;
pub use checkpoint::Checkpoint;
pub use components::{Norm, ScalesInto};
pub use concurrent::work_queue;
pub use coupled::{Coupled, CoupledFit, Part};
pub use device::{Device, DeviceInfo};
pub use factored::{Blocks, FactoredTensor, LargestEntry};
pub use factors::{WEIGHTS, factor_name};
pub use nneinfact_core::history::{History, StoppedBy, Unfinished};
#[cfg(feature = "gpu")]
pub use nneinfact_gpu::DriverLock;
pub use observe::{Cancel, Flow, Observer, Sweep};
pub use prepare::prediction_floor;
pub use ready::ReadyFits;
pub use record::{
    DataRecord, EntryParameterRecord, LossRecord, ModeRecord, Record, TableRecord, ValuesRecord,
};
pub use result::Fit;
pub use saved::Saved;
pub use settings::{Algorithm, Balance, Every, Format, Start};
pub use shared::{slab_ranges, slabs_of_processes, split_mode, together};
pub use source::Source;
pub use split_plan::SplitPlan;
pub use start::scale::balanced;
pub use structure::{Smooth, Splines};
pub use target::Target;
pub use trains::{SavedTrain, TrainHistory, TrainRecord, read_cores};
