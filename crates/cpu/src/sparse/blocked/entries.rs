//! The training entries as a pass reads them.

use super::compact::{LocalRows, Values};
use super::order::{Order, OrderSizes};
use super::task::{Task, Tile};
use super::training::TrainingEntries;
use nneinfact_core::data::Dense;
use nneinfact_core::plan::SparsePass;
use nneinfact_simd::Elementwise;

/// The training entries as one pass reads them.
pub(crate) struct BlockedEntries<T> {
    /// For each table, the output's first, the row of each entry: relative to the first row of the task in
    /// the output's, to the first of the tile's block in the others.
    pub(super) rows: Vec<LocalRows>,
    pub(super) values: Values<T>,
    /// The values of the loss's entry parameters.
    pub(super) entry_parameters: Vec<Vec<T>>,
    pub(super) tasks: Vec<Task>,
    pub(super) tiles: Vec<Tile>,
    /// For each tile, the first row of its block of every operand.
    pub(super) bases: Vec<u32>,
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

    /// With tasks and tiles of these sizes.
    pub(super) fn with_sizes(
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
