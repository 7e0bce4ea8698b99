//! Tests that need the whole crate: the runtime, the generated shaders, and fits in buffers that are
//! surrounded by NaNs.

pub(crate) mod jobs;
mod nan_bands;
mod runtime;
mod shaders;
