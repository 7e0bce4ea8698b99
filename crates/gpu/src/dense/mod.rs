//! Passes over all entries of the data.
//!
//! [`geometry`] lays a pass of the plan out for threads, and cuts the data into parts. [`rows`] fills in
//! the fused shader for small K, [`tiles`] the pair for large K, with [`entries`] for what happens at an
//! entry; [`pass`] makes commands of them.

pub(crate) mod entries;
pub(crate) mod geometry;
pub(crate) mod pass;
pub(crate) mod pass_text;
pub(crate) mod rows;
pub(crate) mod tiles;
