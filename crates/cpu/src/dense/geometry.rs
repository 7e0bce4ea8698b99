//! Where everything of a pass lies: the plan's modes turned into axes, and the axes cut into tiles.

use std::ops::Range;

use super::axis::{Axis, fill_offsets, is_contiguous, stride};
use super::kernel::MR;
use super::strategy::Reduction;
use nneinfact_core::data::Dense;
use nneinfact_core::model::{Index, IndexSet};
use nneinfact_core::plan::{Operand, OperandSide, Pass, Plan};
use nneinfact_simd::Real;

/// Everything about a pass that does not change from sweep to sweep. Sizes of tiles and work items are
/// functions of the plan alone: they decide the order of sums, which must not depend on the number of
/// threads.
#[derive(Debug)]
pub(crate) struct Geometry {
    /// Whether the output is among the rows or the columns of a tile.
    pub output_side: OperandSide,
    /// The side of each tensor, the output first.
    pub operand_sides: Vec<OperandSide>,
    /// The batch modes that the output has.
    pub batch: Axis,
    /// The batch modes that it does not have, which are summed over.
    pub reduced_batch: Axis,
    pub rows: Axis,
    pub columns: Axis,
    /// K, the number of indices of the contracted modes.
    pub depth: usize,
    /// For each tensor, the offset of each contracted index.
    pub depth_offsets: Vec<Vec<usize>>,
    /// For each tensor, whether its contracted indices follow one another.
    pub depth_in_order: Vec<bool>,
    pub tile: TileShape,
    /// The product that adds a tile's entries to the sums.
    pub reduction: Reduction,
    /// The number of indices that the output has of the contracted modes.
    pub output_depth: usize,
    /// The number of indices that it has of the modes of its side.
    pub output_extent: usize,
    /// The contracted index of the output that belongs to each contracted index.
    pub output_depth_map: Vec<usize>,
    /// Whether different indices of the output's side are different entries of the output, so that
    /// blocks of the side can be worked on independently.
    pub disjoint: bool,
    /// Whether other tensors stand on the output's side: their product, the co-operand, multiplies the
    /// sums.
    pub has_co_operand: bool,
    /// Parts that the reduction is cut into (split-K), where there are few output tiles.
    pub splits: usize,
}

/// The sizes of a tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TileShape {
    pub rows: usize,
    pub columns: usize,
    /// The columns with padding to a multiple of the widest vector.
    pub width: usize,
    /// Rows of a row block: as many are evaluated before they are reduced.
    pub block_rows: usize,
    /// Rows of a row panel: the ŷ of as many is computed at once.
    pub panel_rows: usize,
    /// Tiles whose sums are kept in the precision of the pass before they move to double.
    pub per_flush: usize,
}

/// Bytes of second-level cache for the B panel and what is as large: the sums over columns, or the packed
/// copy.
const L2_BYTES: usize = 384 << 10;
/// Bytes of first-level cache that the B panel may fill.
const L1_BYTES: usize = 24 << 10;
/// Most columns of a tile, in bytes, where the B panel stays in the first-level cache. Where it does not,
/// half as many: then three vectors of each of its rows still do.
const MAX_COLUMNS_BYTES: usize = 1536;
/// Most entries of a tile. Where data stay in a file, a segment of a wave (`stream.rs`) is at least a tile
/// of each work item.
const MAX_TILE_ENTRIES: usize = 8192;
/// About so many terms are summed up in the precision of the pass: a few rows' share of a tile.
const MAX_TERMS: usize = 512;
/// The same in tiles, where each tile is summed up by itself before.
const MAX_TILES: usize = 16;
/// Most work items of a wave, and the bytes of all panels that are formed for it.
const MAX_WAVE: usize = 32;
const WAVE_BYTES: usize = 768 << 10;
/// Aim for this many work items.
const WORK_ITEMS: usize = 64;
/// Partial sums may take this much memory.
const PARTIAL_BYTES: usize = 64 << 20;

impl TileShape {
    /// For contractions of size `depth`.
    fn new<T: Real>(rows: &Axis, columns: &Axis, depth: usize, reduction: Reduction) -> TileShape {
        let pad = |n: usize| n.next_multiple_of(T::MAX_LANES);
        // A B panel that fits into the first-level cache stays there beside eight long rows of ŷ, `a` and
        // what else is computed from them.
        let resident = depth * MAX_COLUMNS_BYTES <= L1_BYTES;
        let most = if resident { MAX_COLUMNS_BYTES } else { MAX_COLUMNS_BYTES / 2 } / T::BYTES;
        let matrices = if reduction == Reduction::NtDot { 1 } else { 2 };
        let step = 3 * T::MAX_LANES;
        let fit = L2_BYTES / (depth * T::BYTES * matrices) / step * step;
        let most = fit.clamp(step, most.max(step));
        // Whole runs of the data, if they are short, and else tiles of about the same width: what takes
        // time for every run and every tile is not spent on a few columns.
        let run = columns.contiguous_len();
        let tile_columns = match (most + most / 4) / run {
            runs @ 1.. if (2..columns.len).contains(&run) => (runs * run).min(columns.len),
            _ => pad(columns.len.div_ceil(columns.len.div_ceil(most))),
        };
        let panel_rows = if resident { 2 * MR } else { 4 * MR };
        let tall = |most: usize| (MAX_TILE_ENTRIES / tile_columns / 16 * 16).clamp(16, most);
        let (tile_rows, block_rows, per_flush) = match reduction {
            Reduction::NtDot => (16, panel_rows, MAX_TERMS * T::MAX_LANES / pad(tile_columns)),
            Reduction::NtPacked { .. } => (tall(32), tall(32), MAX_TILES),
            Reduction::Tn => (tall(32), tall(32), MAX_TERMS / tall(32)),
        };
        let padded = rows.len.next_multiple_of(MR);
        TileShape {
            rows: tile_rows.min(padded),
            columns: tile_columns,
            width: pad(tile_columns),
            block_rows: block_rows.min(padded),
            panel_rows: panel_rows.min(padded),
            per_flush,
        }
    }
}

impl Geometry {
    /// The geometry of a pass with elements of type `T`.
    pub fn new<T: Real>(plan: &Plan, pass: &Pass) -> Geometry {
        let shapes = plan.shapes();
        let layout = &pass.layout;
        let tensors: Vec<&Operand> = std::iter::once(&pass.output).chain(&pass.operands).collect();
        let output: IndexSet = pass.output.indices.iter().collect();
        let (batch, reduced_batch): (Vec<Index>, Vec<Index>) =
            layout.batch.iter().partition(|&&x| output.contains(x));
        let output_side = pass.output.side;
        let output_side_modes = match output_side {
            OperandSide::Lhs => &layout.rows,
            OperandSide::Rhs => &layout.columns,
        };
        let depth = pass.contracted_size(shapes);
        let depth_sizes = shapes.sizes(&layout.contracted);
        let depth_offsets_in = |modes: &[Index]| {
            let strides: Vec<usize> =
                layout.contracted.iter().map(|&x| stride(shapes, modes, x)).collect();
            let mut offsets = Vec::new();
            fill_offsets(&depth_sizes, &strides, 0, depth, &mut offsets);
            offsets
        };
        let depth_offsets: Vec<Vec<usize>> =
            tensors.iter().map(|t| depth_offsets_in(&t.indices)).collect();
        let of_output = |modes: &[Index]| -> Vec<Index> {
            modes.iter().copied().filter(|&x| output.contains(x)).collect()
        };
        let output_depth_modes = of_output(&layout.contracted);
        let output_extent_modes = of_output(output_side_modes);

        let rows = Axis::new(plan, &layout.rows, &tensors);
        let columns = Axis::new(plan, &layout.columns, &tensors);
        let reduction = Reduction::choose(output_side, depth, T::MAX_LANES);
        let mut geometry = Geometry {
            output_side,
            operand_sides: tensors.iter().map(|t| t.side).collect(),
            batch: Axis::new(plan, &batch, &tensors),
            reduced_batch: Axis::new(plan, &reduced_batch, &tensors),
            tile: TileShape::new::<T>(&rows, &columns, depth, reduction),
            rows,
            columns,
            depth,
            depth_in_order: depth_offsets.iter().map(|k| is_contiguous(k)).collect(),
            depth_offsets,
            reduction,
            output_depth: shapes.sizes(&output_depth_modes).iter().product(),
            output_extent: shapes.sizes(&output_extent_modes).iter().product(),
            output_depth_map: depth_offsets_in(&output_depth_modes),
            disjoint: output_extent_modes.len() == output_side_modes.len(),
            has_co_operand: pass.operands.iter().any(|o| o.side == output_side),
            splits: 1,
        };
        geometry.splits = geometry.choose_splits();
        geometry
    }

    /// As many splits as there is use for, where there are few output tiles.
    fn choose_splits(&self) -> usize {
        let tiles = self.output_tiles();
        if tiles >= WORK_ITEMS / 2 {
            return 1;
        }
        let affordable = (PARTIAL_BYTES / (16 * self.output_len().max(1))).max(4);
        WORK_ITEMS.div_ceil(tiles).min(affordable).min(self.reduction_units()).max(1)
    }

    /// Entries of the output.
    pub fn output_len(&self) -> usize {
        self.batch.len * self.output_extent * self.output_depth
    }

    /// Most work items of a wave: as many as leave the panels that are formed for each, on the output's
    /// side, in the second-level cache.
    pub fn max_wave<T: Real>(&self) -> usize {
        let formed = match self.output_side {
            OperandSide::Lhs => self.tile.rows * self.depth,
            OperandSide::Rhs => self.tile.width * self.depth,
        };
        (WAVE_BYTES / (T::BYTES * (formed + self.running_sums::<T>()))).clamp(1, MAX_WAVE)
    }

    /// Running sums of a block of the output's side, in elements.
    pub fn running_sums<T: Real>(&self) -> usize {
        match self.reduction {
            Reduction::NtDot => self.tile.rows * self.depth * T::MAX_LANES,
            Reduction::NtPacked { stride } => self.tile.rows * stride,
            Reduction::Tn => self.tile.width * self.depth,
        }
    }

    /// Blocks of the output's side.
    pub fn output_blocks(&self) -> usize {
        match self.output_side {
            OperandSide::Lhs => self.rows.len.div_ceil(self.tile.rows),
            OperandSide::Rhs => self.columns.len.div_ceil(self.tile.columns),
        }
    }

    /// Blocks of the other side.
    pub fn other_blocks(&self) -> usize {
        match self.output_side {
            OperandSide::Lhs => self.columns.len.div_ceil(self.tile.columns),
            OperandSide::Rhs => self.rows.len.div_ceil(self.tile.rows),
        }
    }

    /// The number of output tiles: parts of the output no two of which write to the same entry.
    pub fn output_tiles(&self) -> usize {
        self.batch.len * if self.disjoint { self.output_blocks() } else { 1 }
    }

    /// The batch index of an output tile, and its blocks of the output's side.
    pub fn output_tile(&self, tile: usize) -> (usize, Range<usize>) {
        let blocks = self.output_blocks();
        match self.disjoint {
            true => (tile / blocks, tile % blocks..tile % blocks + 1),
            false => (tile, 0..blocks),
        }
    }

    /// Where a block of the output's side begins, and its length.
    pub fn output_block(&self, block: usize) -> (usize, usize) {
        let (extent, step) = match self.output_side {
            OperandSide::Lhs => (self.rows.len, self.tile.rows),
            OperandSide::Rhs => (self.columns.len, self.tile.columns),
        };
        (block * step, step.min(extent - block * step))
    }

    /// Where a block of the other side begins, and its length.
    pub fn other_block(&self, block: usize) -> (usize, usize) {
        let (extent, step) = match self.output_side {
            OperandSide::Lhs => (self.columns.len, self.tile.columns),
            OperandSide::Rhs => (self.rows.len, self.tile.rows),
        };
        (block * step, step.min(extent - block * step))
    }

    /// Tiles of a work item with these reduction units.
    pub fn steps(&self, units: (usize, usize)) -> usize {
        units.1 * if self.disjoint { 1 } else { self.output_blocks() }
    }

    /// Units of the reduction: reduced batch indices times blocks of the other side.
    pub fn reduction_units(&self) -> usize {
        self.reduced_batch.len * self.other_blocks()
    }

    /// The reduction units of a split: the first, and how many.
    pub fn split(&self, split: usize) -> (usize, usize) {
        let (n, splits) = (self.reduction_units(), self.splits);
        (n / splits * split + (n % splits).min(split), n / splits + usize::from(split < n % splits))
    }
}

/// The entry parameters of a loss in the data's order of memory.
pub(crate) fn aligned(values: &Dense, parameters: &ndarray::ArrayD<f64>) -> Dense {
    Dense::from_array(parameters).in_layout_of(values)
}
