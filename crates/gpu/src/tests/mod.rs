//! Tests that need the whole crate: the runtime, the generated shaders, and fits in buffers that are
//! surrounded by NaNs.

mod dispatches;
mod exact;
mod failures;
pub(crate) mod jobs;
pub(crate) mod joint;
mod masked;
pub(crate) mod nan_padding;
mod programs;
mod runtime;
pub(crate) mod shaders;
mod sharing;
