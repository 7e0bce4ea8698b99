//! Observations: the values, which of them count, and how they are split.
//!
//! [`Dense`] holds a tensor once, in the smallest element type that is exact. [`Observations`] is
//! what a user hands to a fit: values with a mask, weights and random splits;
//! [`Observations::prepare`] turns it into [`Prepared`], where every cell has one [`Role`].
//! [`CooTensor`] holds a tensor as a list of its entries, and [`Sparse`] is what passes over data
//! that are mostly zeros read: a list of cells, and what is known of the others.
//!
//! Data larger than memory stay in their file: [`Mapped`] cells are read as they are needed, a slab
//! at a time, and give the same results ([`map_npy`](crate::io::map_npy)).
//!
//! Numbers of cells are `usize` or `u64` throughout: tensors of more than 2³² cells are usual.

mod coo;
mod dense;
mod digest;
mod fingerprint;
mod mapped;
mod memory_layout;
mod observations;
mod prepared;
mod random;
mod roles;
mod storage;
mod stored;

pub use coo::{CooBuilder, CooTensor, Indices};
pub use dense::{Dense, DenseBuilder, Order};
pub use digest::Digest;
pub use fingerprint::{Fingerprint, digest};
pub use mapped::Mapped;
pub use mapped::{Ranges, Slabs, Slice, in_slabs, slab_entries};
pub use observations::{Observations, Values};
pub use prepared::{Outside, Portion, Prepared};
pub use random::uniform_u32;
pub use roles::{Role, Roles};
pub use storage::ElementKind;
pub use storage::{Element, Storage};
pub use stored::{Implicit, StoredCounts, StoredEntries};
