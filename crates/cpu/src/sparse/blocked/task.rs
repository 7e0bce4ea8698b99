//! What a pass over training entries is cut into.

use std::ops::Range;

/// Some rows of the output with all of their entries, or a part of the entries of one row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Task {
    pub entries: Range<usize>,
    /// Among all tiles.
    pub tiles: Range<usize>,
    /// From the first row that has entries to the last.
    pub rows: Range<usize>,
    /// Whether this is a part of the entries of one row.
    pub piece: bool,
}

/// Entries that look up the same block of every operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tile {
    /// The number of the entry after its last.
    pub end: usize,
}
