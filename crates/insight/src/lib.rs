//! What fits tell: many of them compared on data that they have not seen, and one of them as a page.
//!
//! The crate `nneinfact` re-exports what is meant for users; this one is a part of it.

// A device of wgpu, which threads share, is made of types this deep.
#![recursion_limit = "256"]
#![deny(missing_docs)]

mod assignment;
pub mod compare;
pub mod label_alignment;
pub mod matching;
pub mod report;
