//! What a fit is made of, without a device and without a file: models, losses, data, plans, the
//! interface of an engine, the small algebra of factors, and the reference.
//!
//! The crate `nneinfact` re-exports what is meant for users; this one is a part of it.

#![deny(missing_docs)]

pub mod algebra;
pub mod data;
pub mod engine;
pub mod error;
pub mod history;
pub mod loss;
pub mod memory;
pub mod model;
pub mod parallel;
pub mod plan;
pub mod reference;
mod text;
