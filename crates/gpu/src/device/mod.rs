//! Devices, and programs on them.
//!
//! [`adapter`] finds and describes GPUs, [`open_device`] opens one, [`handle`] owns it, [`driver_lock`] keeps
//! threads apart that call software drivers, [`pipelines`] compiles shaders, which [`shader_cache`] keeps in
//! files, [`loading`] puts
//! programs on a device and [`runtime`] carries them out.

pub(crate) mod adapter;
pub(crate) mod driver_lock;
pub(crate) mod handle;
pub(crate) mod loading;
pub(crate) mod memory;
pub(crate) mod open_device;
pub(crate) mod pipelines;
pub(crate) mod runtime;
pub(crate) mod shader_cache;
mod sharing;
