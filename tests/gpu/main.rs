//! GPUs as a user meets them, and fits on them.

#![cfg(feature = "gpu")]

#[path = "../common/mod.rs"]
mod common;
mod devices;
mod fits;
mod masks;
mod penalties;
mod structure;
#[path = "../common/structured.rs"]
mod structured_case;
mod sweeps;
