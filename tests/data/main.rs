//! Data: observations, files, lists of entries, streams, checkpoints, the real tensor.

mod archives;
mod checkpoint;
#[path = "../common/mod.rs"]
mod common;
mod damaged;
mod io;
mod named;
mod npz_lists;
mod observations;
mod shared_tables;
mod sparse;
mod stream;
mod uber;
