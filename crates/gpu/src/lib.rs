//! The engine for GPUs, through wgpu.
//!
//! From a [`Job`](nneinfact_core::engine::Job) to the device in five steps, each plain until the last:
//!
//! - `dense` lays passes over all entries out for threads, and fills in their shaders; `sparse` those
//!   over stored entries;
//! - `masked` sums over the entries of each role where the factors are fitted to some only;
//! - `contract` makes commands of small contractions, `update` (with the shader of `step`) of what
//!   happens to factors between passes (`exact` where steps are those of coordinate descent), and `constraints` (with `penalty_sums`) of what holds for them
//!   besides the data;
//! - `joint` puts what happens to small tensors into few dispatches;
//! - `program` has all of it as plain data that is tested without a device: buffers, shaders from the
//!   templates of the crate `nneinfact-shaders`, recorded commands;
//! - `device` finds and opens GPUs, and carries programs out. `streamed_pass` brings the data, `engine`
//!   is the fit that runs them (`course` records sweeps that it does not wait for, `dispatches` counts
//!   what a sweep is), and `roofline` measures what a device can do at best.

#![deny(missing_docs)]

mod constraints;
mod contract;
mod course;
mod dense;
mod device;
mod dispatches;
mod engine;
mod exact;
mod joint;
mod masked;
mod penalty_sums;
mod program;
mod roofline;
mod sparse;
mod step;
mod streamed_pass;
#[cfg(test)]
mod tests;
mod update;

pub use device::adapter::{Wanted, any_real, list};
pub use device::driver_lock::DriverLock;
pub use device::handle::Gpu;
pub use dispatches::dispatches;
pub use engine::open;
pub use program::tuning::Tuning;
pub use roofline::measure;
pub use wgpu;
