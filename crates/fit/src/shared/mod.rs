//! Fits whose data are cut into slabs, on one process or on several: the same bits whatever their number.
//!
//! What slabs say adds up ([`engine`]) in a fixed tree over their numbers ([`tree`]); [`slabs`] says how the
//! data are cut and who has what, [`whole`] and [`agreed`] what has to be known of all data and processes
//! beforehand, [`matrices`] what a start from singular vectors sees of them, [`link`] how a failure of one
//! ends all.

mod agreed;
mod engine;
mod link;
mod matrices;
mod plan;
mod prepare;
mod rows;
mod slabs;
mod tree;
mod whole;

use nneinfact_core::engine::Reducer;

pub(crate) use self::prepare::{Held, open};
pub use self::slabs::{slab_ranges, slabs_of_processes, split_mode};
pub use nneinfact_core::engine::collectives::together;

/// A process by itself.
pub(crate) fn alone() -> Box<dyn Reducer> {
    Box::new(link::Alone)
}
