//! The model: an einsum string and the sizes of its indices.
//!
//! [`Model`] is the string alone; [`Shapes`] adds the sizes of the data and the ranks. Indices are
//! kept as [`Index`], sets of them as the bit set [`IndexSet`], which is what the planner
//! enumerates over.

mod error;
mod index;
mod parse;
mod shapes;

pub use error::ModelError;
pub use index::{Index, IndexSet};
pub use parse::Model;
pub use shapes::Shapes;
