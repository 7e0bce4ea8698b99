//! Stored training entries in an order that keeps what they look up in the caches, and the pass over them.
//!
//! A pass gathers a row of each operand's table at every entry. In the order of the output's rows
//! alone these rows are anywhere in their tables, and where a table outgrows the second-level cache each of
//! them is waited for. So work is cut twice. A *task* is some rows of the output with all of their entries,
//! or a part of one long row: no two tasks add to the same sums, and tasks are what threads share. Within
//! its task, entries are in *tiles*: each operand's table is cut into blocks of rows, few enough for the
//! cache, and a tile is a block of each, taken along a Z-order curve, so that neighbours share blocks.
//! Within a tile, entries are in the order of the output's rows, and in C order in a row.
//!
//! Cut and order are a function of the entries and the plan: sums have the same bits for any
//! number of threads. Rows are kept relative to their block, in 8 or 16 bits; values of which there are few
//! different ones in 8 bits, and not at all where all are the same.

mod compact;
mod kernel;
mod order;
mod pass;
#[cfg(test)]
mod tests;

pub(super) use self::order::TrainingEntries;
pub(super) use self::pass::BlockedPass;

use std::ops::Range;

use self::compact::{LocalRows, Values};
use self::order::{Order, OrderSizes};
use nneinfact_core::data::Dense;
use nneinfact_core::plan::SparsePass;
use nneinfact_simd::Elementwise;

/// The training entries as one pass reads them.
pub(super) struct BlockedEntries<T> {
    /// For each table, the output's first, the row of each entry: relative to the first row of the task in
    /// the output's, to the first of the tile's block in the others.
    rows: Vec<LocalRows>,
    values: Values<T>,
    /// The values of the loss's entry parameters.
    entry_parameters: Vec<Vec<T>>,
    tasks: Vec<Task>,
    tiles: Vec<Tile>,
    /// For each tile, the first row of its block of every operand.
    bases: Vec<u32>,
}

/// Some rows of the output with all of their entries, or a part of the entries of one row.
#[derive(Clone, Debug, PartialEq)]
struct Task {
    entries: Range<usize>,
    /// Among all tiles.
    tiles: Range<usize>,
    /// From the first row that has entries to the last.
    rows: Range<usize>,
    /// Whether this is a part of the entries of one row.
    piece: bool,
}

/// Entries that look up the same block of every operand.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    /// The number of the entry after its last.
    end: usize,
}

impl<T: Elementwise> BlockedEntries<T> {
    /// The entries in the order of a pass. `entry_parameters` are in C order; values are multiplied
    /// by `scale`.
    pub fn new(
        entries: &TrainingEntries<'_>,
        pass: &SparsePass,
        entry_parameters: &[Dense],
        scale: f64,
    ) -> BlockedEntries<T> {
        BlockedEntries::with_sizes(entries, pass, entry_parameters, scale, OrderSizes::USUAL)
    }

    fn with_sizes(
        entries: &TrainingEntries<'_>,
        pass: &SparsePass,
        entry_parameters: &[Dense],
        scale: f64,
        sizes: OrderSizes,
    ) -> BlockedEntries<T> {
        let Order { places, output_rows, shifts, tasks, tiles } = Order::new(entries, pass, sizes);
        let mut rows = vec![LocalRows::of_tasks(&output_rows, &tasks)];
        drop(output_rows);
        let operands = pass.operands.len();
        let mut bases = vec![0; tiles.len() * operands];
        let first_of = |tile: usize| if tile == 0 { 0 } else { tiles[tile - 1].end };
        for (at, (table, &shift)) in pass.operands.iter().zip(&shifts).enumerate() {
            let all = entries.rows(&table.rows);
            for (tile, bases) in bases.chunks_exact_mut(operands).enumerate() {
                let row = u64::from(all[places[first_of(tile)] as usize]);
                bases[at] = (row >> shift << shift) as u32;
            }
            rows.push(LocalRows::within(&places, &all, shift));
        }
        let parameters = entry_parameters.iter().map(|p| entries.entry_parameter(&places, p));
        BlockedEntries {
            rows,
            values: entries.values(&places, scale),
            entry_parameters: parameters.collect(),
            tasks,
            tiles,
            bases,
        }
    }
}
