//! The engine for GPUs, through wgpu.
//!
//! What a device is to do is plain data, a [`Program`](recording::Program): buffers, shaders and
//! recorded commands. [`check`] holds it against a device's limits, [`adapter`] finds and describes
//! devices, [`handle`] owns one, and [`runtime`] carries programs out on it.

// STUB, to be removed at the merge: only tests load programs until there is an engine.
#![allow(dead_code)]

mod adapter;
mod check;
mod handle;
mod recording;
mod runtime;
#[cfg(test)]
mod tests;

pub(crate) use adapter::{Wanted, any_real, list};
pub(crate) use handle::Gpu;

use super::{Engine, Job};
use crate::error::Result;

/// Puts a job on a GPU.
pub(crate) fn open(gpu: &Gpu, job: Job) -> Result<Box<dyn Engine>> {
    // STUB, to be replaced at the merge by `Ok(Box::new(GpuEngine::new(gpu, job)?))`.
    let _ = (gpu, job);
    Err(crate::error::Error::Unsupported("fits on a GPU are not in this build yet".into()))
}
