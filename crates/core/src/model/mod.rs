//! The model: an einsum string and the sizes of its letters.
//!
//! [`Model`] is the string alone; [`Shapes`] adds the sizes of the data and the ranks. Letters are
//! kept as [`Letter`], sets of them as the bit set [`Letters`], which is what the planner
//! enumerates over.

mod error;
mod index;
mod parse;
mod shapes;

pub use error::ModelError;
pub use index::{Index, IndexSet};
pub use parse::Model;
pub use shapes::Shapes;
