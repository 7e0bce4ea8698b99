//! The engine for GPUs, through wgpu.
//!
//! From a [`Job`](nneinfact_core::engine::Job) to the device in four steps, each plain until the last:
//!
//! - [`geometry`] lays a pass of the plan out for threads, and cuts the data into parts;
//! - [`rows`], [`tiles`], [`cells`], [`numbers`] and [`text`] make the shaders of a pass from the
//!   files in `shaders/`, [`lists`] and [`listed`] those of a pass over a list of cells, [`contract`]
//!   the small contractions;
//! - [`program`] makes a [`Program`](recording::Program) of all of them, with [`dense`] and
//!   [`sampled`] for passes, [`updates`] for what is between, and [`penalties`] for what holds
//!   besides the data: buffers, shaders, recorded commands,
//!   as plain data that is tested without a device;
//! - [`check`] holds it against a device's limits, [`adapter`] finds and describes devices,
//!   [`handle`] owns one, [`turn`] keeps threads apart that call software ones, [`runtime`] carries
//!   programs out, [`stream`] brings the data, and [`engine`]
//!   is the fit that runs them.

mod adapter;
mod cells;
mod check;
mod contract;
mod dense;
mod engine;
mod geometry;
#[cfg(test)]
mod guards;
mod handle;
mod listed;
mod lists;
mod numbers;
mod penalties;
mod program;
mod rates;
mod recording;
mod rows;
mod runtime;
mod sampled;
#[cfg(test)]
mod shaders;
mod stream;
#[cfg(test)]
mod tests;
mod text;
mod tiles;
mod turn;
mod updates;

pub use adapter::{Wanted, any_real, list};
pub use engine::open;
pub use handle::Gpu;
pub use program::Tuning;
pub use rates::measure;
pub use wgpu;
