//! How many dispatches a sweep takes.

use crate::program::compile::{Compiled, compile_expecting};
use crate::program::recording::{GpuLimits, RecordingId};
use crate::program::tuning::Tuning;
use nneinfact_core::engine::Job;
use nneinfact_core::error::Result;

impl Compiled {
    /// The dispatches of a sweep that ends with an extrapolation, as most sweeps of a fit do; copies and
    /// clears count as such.
    pub fn dispatches(&self) -> usize {
        let count = |id: RecordingId| self.program.recordings[id.0].commands.len();
        if let Some(own) = self.course.as_ref().and_then(|course| course.extrapolated) {
            return count(own);
        }
        // The host makes the sweep, and reads the losses.
        let streamed =
            self.streamed_passes.iter().flat_map(|pass| pass.slabs.iter().chain([&pass.end]));
        let parts = self.passes.iter().chain(&self.updates).chain(&self.balance).chain(streamed);
        parts.chain([&self.extrapolate, &self.report]).map(|&id| count(id)).sum()
    }
}

/// The dispatches of a sweep of a job, on a device that can do what WebGPU guarantees, and that lets a shader
/// see as much at once as Vulkan does. A job of a list may take more: long rows are added up in steps. Where its data stand in
/// for others of which some are withheld, rows list so many entries (`listed`).
///
/// # Errors
/// Where a tensor is larger than what a shader may see; [`Error::Loss`](nneinfact_core::error::Error::Loss)
/// where a constant of the loss is out of the range of single precision.
pub fn dispatches(job: &Job, listed: Option<u64>) -> Result<usize> {
    let bytes = (1 << 31) - 4;
    let limits = GpuLimits { binding_bytes: bytes, buffer_bytes: bytes, ..GpuLimits::default() };
    Ok(compile_expecting(job, &limits, &Tuning::default(), listed)?.dispatches())
}
