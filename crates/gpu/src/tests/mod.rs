//! Tests that need the whole crate: the runtime, the generated shaders, and fits in buffers that are
//! surrounded by NaNs.

mod dispatches;
mod failures;
pub(crate) mod jobs;
mod joint;
mod nan_padding;
mod programs;
mod runtime;
mod shaders;
