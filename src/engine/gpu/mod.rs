//! The engine that runs on a GPU, through wgpu.
mod cells;
mod contract;
mod geometry;
mod numbers;
mod program;
pub(crate) mod recording;
mod rows;
mod text;
mod tiles;
#[cfg(test)]
mod shaders;
