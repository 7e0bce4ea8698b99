//! The readers as their users see them.

mod edges;
mod functions;
#[cfg(feature = "parquet")]
mod parquet;
mod robust;
mod sparse;
mod specs;
