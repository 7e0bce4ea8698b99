//! The fused dense pass.

pub(crate) mod evaluate;
pub(crate) mod geometry;
mod kernel;
mod kl;
pub(crate) mod pass;
pub(crate) mod stream;
mod tile;
