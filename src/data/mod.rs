//! Observations: the values, which of them count, and how they are split.
//!
//! [`Dense`] holds a tensor once, in the smallest element type that is exact. [`Observations`] is
//! what a user hands to a fit: values with a mask, weights and random splits;
//! [`Observations::prepare`] turns it into [`Prepared`], where every cell has one [`Role`].
//! [`Coordinates`] holds a tensor as a list of its entries, and [`Sparse`] is what passes over data
//! that are mostly zeros read: a list of cells, and what is known of the others.
//!
//! Numbers of cells are `usize` or `u64` throughout: tensors of more than 2³² cells are usual.

mod coordinates;
mod dense;
mod layout;
mod observations;
mod prepared;
mod random;
mod roles;
mod sparse;
mod storage;

pub use coordinates::{Coordinates, CoordinatesBuilder, Indices};
pub use dense::{Dense, DenseBuilder, Order};
pub use observations::{Observations, Values};
pub use prepared::{Outside, Portion, Prepared};
pub use random::uniform_u32;
pub use roles::{Indicators, Role, Roles};
pub use sparse::{Listing, Rest, Sparse};
pub use storage::{Element, Storage};
