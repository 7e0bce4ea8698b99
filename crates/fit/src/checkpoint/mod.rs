//! Saving a fit that is under way, and going on from there.

mod identity;
mod read;
mod record;
mod writer;

pub(crate) use identity::Identity;
pub use read::Checkpoint;
pub(crate) use record::{Position, Stage};
pub(crate) use writer::{CheckpointWriter, lock};
