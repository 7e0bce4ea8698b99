//! What a start is made from.

use crate::observe::Cancel;
use nneinfact_core::data::{Prepared, StoredEntries};
use nneinfact_core::loss::Loss;
use nneinfact_core::model::Shapes;

/// What a start is made from.
pub(crate) struct Basis<'a> {
    pub shapes: &'a Shapes,
    pub loss: &'a Loss,
    pub data: &'a Prepared,
    /// The entries that the passes of the fit go over, where they are sparse.
    pub sparse: Option<&'a StoredEntries>,
    pub seed: u64,
    /// The switch of the fit: once it is thrown, the start is made with what is there.
    pub cancel: &'a Cancel,
}
