//! Observations: the values, which of them count, and how they are split.
//!
//! [`Dense`] holds a tensor once, in the smallest element type that is exact. [`Observations`] is
//! what a user hands to a fit: values with a mask, weights and random splits;
//! [`Observations::prepare`] turns it into [`Prepared`], where every entry has one [`Role`].
//! [`CooTensor`] holds a tensor as a list of its entries, and [`StoredEntries`] is what sparse
//! passes read: the stored entries in C order, and what the [`Implicit`] ones are.
//!
//! Data larger than memory stay in their file: [`Mapped`] entries are read as they are needed, a
//! slab at a time, and give the same results (`map_npy`).
//!
//! Counts of entries are `usize` or `u64` throughout: tensors of more than 2³² entries are usual.

mod columns;
mod coo;
mod coo_part;
mod dense;
mod digest;
mod drawn_zeros;
mod fingerprint;
mod labels;
mod mapped;
mod memory_layout;
mod observations;
mod outside;
mod part;
mod prepare;
mod prepared;
mod random;
mod relabel;
mod rescale;
mod roles;
mod scan;
mod split_kind;
mod storage;
mod stored;
mod strata;
mod sums;

pub use columns::Column;
pub use coo::{CooBuilder, CooTensor, Indices};
pub use dense::{Dense, DenseBuilder, Order};
pub use digest::Digest;
pub use drawn_zeros::{Strata, Stratum, check_zeros_per_nonzero};
pub use fingerprint::{Fingerprint, digest};
pub use labels::{LabelKind, Labels, check_all as check_labels, describe_index, printable};
pub use mapped::Mapped;
pub use mapped::{Ranges, Slabs, Slice, in_slabs, slab_entries};
pub use observations::{Observations, Values};
pub use outside::Outside;
pub use part::Part;
pub use prepare::check_counts;
pub use prepared::{Portion, Prepared};
pub use random::uniform_u32;
pub use rescale::{normalizing_exponent, scaled};
pub use roles::{Role, Roles};
pub use split_kind::SplitKind;
pub use storage::ElementKind;
pub use storage::{Element, Storage};
pub use stored::{Implicit, StoredCounts, StoredEntries};
pub use sums::RoleSums;
