//! Where everything of a pass lies: the plan's letters turned into offsets.

use std::ops::Range;

use super::kernel::PANEL;
use nneinfact_core::algebra::contract::Walk;
use nneinfact_core::data::Dense;
use nneinfact_core::model::{Index, IndexSet, Shapes};
use nneinfact_core::plan::{Operand, OperandSide, Pass, Plan};
use nneinfact_simd::Real;

/// Several letters flattened into one index, with the stride of each in the data and in every
/// tensor of the pass (0 where a tensor does not have the letter).
#[derive(Debug)]
pub(super) struct Axis {
    pub len: usize,
    sizes: Vec<usize>,
    data: Vec<usize>,
    tensors: Vec<Vec<usize>>,
}

impl Axis {
    fn new(plan: &Plan, letters: &[Index], tensors: &[&Operand]) -> Axis {
        let shapes = plan.shapes();
        Axis {
            len: shapes.sizes(letters).iter().product(),
            sizes: shapes.sizes(letters),
            data: letters.iter().map(|&x| plan.data().stride(shapes, x)).collect(),
            tensors: tensors
                .iter()
                .map(|t| letters.iter().map(|&x| stride(shapes, &t.indices, x)).collect())
                .collect(),
        }
    }

    /// How many indices follow one another in the data without a gap.
    fn run(&self) -> usize {
        let mut run = 1;
        for (&size, &stride) in self.sizes.iter().zip(&self.data).rev() {
            if size > 1 && stride != run {
                break;
            }
            run *= size;
        }
        run
    }

    /// The offset of an index in the data.
    pub fn data_offset(&self, index: usize) -> usize {
        offset(&self.sizes, &self.data, index)
    }

    /// The offset of an index in tensor `t`.
    pub fn offset(&self, t: usize, index: usize) -> usize {
        offset(&self.sizes, &self.tensors[t], index)
    }

    /// The offsets of a range of indices in tensor `t`.
    pub fn offsets(&self, t: usize, start: usize, len: usize, out: &mut Vec<usize>) {
        fill(&self.sizes, &self.tensors[t], start, len, out);
    }

    /// The offsets of a range of indices in the data.
    pub fn data_offsets(&self, start: usize, len: usize, out: &mut Vec<usize>) {
        fill(&self.sizes, &self.data, start, len, out);
    }
}

/// The offset of an index: tiles are too many to walk there in memory of its own.
fn offset(sizes: &[usize], strides: &[usize], mut index: usize) -> usize {
    let mut offset = 0;
    for (size, stride) in sizes.iter().zip(strides).rev() {
        offset += index % size * stride;
        index /= size;
    }
    offset
}

/// The offsets of a range of indices. Along the last axis they are evenly spaced: the odometer
/// turns once per run, not per index.
fn fill(sizes: &[usize], strides: &[usize], start: usize, len: usize, out: &mut Vec<usize>) {
    out.clear();
    let (&size, &stride) = match (sizes.last(), strides.last()) {
        (Some(size), Some(stride)) => (size, stride),
        _ => (&1, &0),
    };
    let mut walk = Walk::at(sizes, strides, start);
    let mut run = size - start % size;
    while out.len() < len {
        run = run.min(len - out.len());
        let offset = walk.offset();
        out.extend((0..run).map(|i| offset + i * stride));
        walk.skip(run);
        run = size;
    }
}

/// The stride of a letter in a tensor in C order; 0 where it does not have it.
fn stride(shapes: &Shapes, letters: &[Index], letter: Index) -> usize {
    match letters.iter().position(|&x| x == letter) {
        Some(at) => letters[at + 1..].iter().map(|&x| shapes.size(x)).product(),
        None => 0,
    }
}

/// A run of lanes that is evenly spaced in the data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Run {
    pub start: usize,
    pub len: usize,
    pub offset: usize,
    pub stride: usize,
}

/// Cuts offsets into runs of even spacing.
pub(super) fn runs(offsets: &[usize], out: &mut Vec<Run>) {
    out.clear();
    let mut start = 0;
    while start < offsets.len() {
        let stride = match offsets.get(start + 1) {
            Some(&next) => next.wrapping_sub(offsets[start]),
            None => 1,
        };
        let mut end = start + 1;
        while end < offsets.len() && offsets[end].wrapping_sub(offsets[end - 1]) == stride {
            end += 1;
        }
        // A jump backwards is a run of one.
        let (stride, end) = if stride > usize::MAX / 2 { (1, start + 1) } else { (stride, end) };
        out.push(Run { start, len: end - start, offset: offsets[start], stride });
        start = end;
    }
}

/// Everything about a pass that does not change from sweep to sweep. Sizes of tiles and tasks are
/// functions of the plan alone: they decide the order of sums, which must not depend on the number
/// of threads.
#[derive(Debug)]
pub(super) struct Geometry {
    /// Where the target stands.
    pub side: OperandSide,
    /// Where each tensor stands, the target first.
    pub sides: Vec<OperandSide>,
    /// Outer letters of the target.
    pub own: Axis,
    /// The other outer letters: summed over.
    pub summed: Axis,
    pub rows: Axis,
    pub lanes: Axis,
    /// The inner dimension K.
    pub inner: usize,
    /// For each tensor, the offset of each inner index.
    pub inner_offsets: Vec<Vec<usize>>,
    /// For each tensor, whether its inner indices follow one another.
    pub inner_in_order: Vec<bool>,
    /// Rows of a tile.
    pub block_rows: usize,
    /// Lanes of a tile.
    pub block_lanes: usize,
    /// The same with padding to a multiple of the widest vector.
    pub width: usize,
    /// Rows that are worked on before they are summed up.
    pub strip_rows: usize,
    /// Rows whose ŷ is formed at once.
    pub band_rows: usize,
    /// Whether rows are summed up with neighbouring inner indices in a vector, and not neighbouring
    /// lanes: then from one row of `C` turned over, and of the sums, to the next it is so far.
    pub across: Option<usize>,
    /// Tiles whose sums are kept in the precision of the pass before they move to double.
    pub flush: usize,
    /// The target's own inner and side sizes.
    pub target_inner: usize,
    pub target_side: usize,
    /// The target's own inner index of each inner index.
    pub target_inner_map: Vec<usize>,
    /// Whether different indices of the target's side are different entries of the target, so that
    /// blocks of the side can be worked on independently.
    pub disjoint: bool,
    /// Whether other tensors stand on the target's side.
    pub partners: bool,
    /// Parts that what is summed over is cut into, as there are few parts of the target.
    pub sum_parts: usize,
}

/// Bytes of second-level cache that `C` may fill, with its like: the sums of lanes, or `C` turned
/// over.
const CACHE: usize = 384 << 10;
/// Bytes of first-level cache that `C` may fill.
const RESIDENT: usize = 24 << 10;
/// Most lanes of a tile, in bytes, where `C` stays in the first-level cache; where it does not, half
/// as many: three vectors at a time of all of `C`'s rows then do so.
const MAX_LANES_BYTES: usize = 1536;
/// Most cells of a tile. Where data stay in a file, a stretch of a gang (`stream.rs`) is at least a
/// tile of each strand.
const MAX_CELLS: usize = 8192;
/// Inner sizes from which on rows are summed up with neighbouring inner indices in a vector: below,
/// too many of its elements may stand for none.
const ACROSS: usize = 32;
/// About so many terms are summed up in the precision of the pass: a few rows' share of a tile.
const MAX_TERMS: usize = 512;
/// The same in tiles, where each is summed up by itself before.
const MAX_TILES: usize = 16;
/// Most strands that are worked on together, and what is formed for them, in bytes.
const GROUP: usize = 32;
const GROUP_BYTES: usize = 768 << 10;
/// Aim for this many tasks.
const TASKS: usize = 64;
/// Partial sums may take this much memory.
const PARTIALS: usize = 64 << 20;

impl Geometry {
    pub fn new<T: Real>(plan: &Plan, pass: &Pass) -> Geometry {
        let shapes = plan.shapes();
        let layout = &pass.layout;
        let tensors: Vec<&Operand> = std::iter::once(&pass.output).chain(&pass.operands).collect();
        let target: IndexSet = pass.output.indices.iter().collect();
        let (own, summed): (Vec<Index>, Vec<Index>) =
            layout.batch.iter().partition(|&&x| target.contains(x));
        let side = pass.output.side;
        let side_letters = match side {
            OperandSide::Lhs => &layout.rows,
            OperandSide::Rhs => &layout.columns,
        };
        let inner = pass.contracted_size(shapes);
        let inner_sizes = shapes.sizes(&layout.contracted);
        let mut inner_offsets = Vec::new();
        for t in &tensors {
            let strides: Vec<usize> =
                layout.contracted.iter().map(|&x| stride(shapes, &t.indices, x)).collect();
            let mut offsets = Vec::new();
            fill(&inner_sizes, &strides, 0, inner, &mut offsets);
            inner_offsets.push(offsets);
        }
        let only = |letters: &[Index]| -> Vec<Index> {
            letters.iter().copied().filter(|&x| target.contains(x)).collect()
        };
        let target_inner_letters = only(&layout.contracted);
        let target_side_letters = only(side_letters);
        let mut target_inner_map = Vec::new();
        let strides: Vec<usize> =
            layout.contracted.iter().map(|&x| stride(shapes, &target_inner_letters, x)).collect();
        fill(&inner_sizes, &strides, 0, inner, &mut target_inner_map);

        let own = Axis::new(plan, &own, &tensors);
        let summed = Axis::new(plan, &summed, &tensors);
        let rows = Axis::new(plan, &layout.rows, &tensors);
        let lanes = Axis::new(plan, &layout.columns, &tensors);

        let pad = |n: usize| n.div_ceil(T::MAX_LANES) * T::MAX_LANES;
        // Where `C` fits into the first-level cache it stays there beside eight long rows of ŷ, `a` and
        // what else is formed of them.
        let resident = inner * MAX_LANES_BYTES <= RESIDENT;
        let most = if resident { MAX_LANES_BYTES } else { MAX_LANES_BYTES / 2 } / T::BYTES;
        let across = (side == OperandSide::Lhs && inner >= ACROSS).then(|| pad(inner));
        let matrices = if side == OperandSide::Rhs || across.is_some() { 2 } else { 1 };
        let step = 3 * T::MAX_LANES;
        let fit = CACHE / (inner * T::BYTES * matrices) / step * step;
        let most = fit.clamp(step, most.max(step));
        // Whole runs of the data, if they are short, and all blocks of about the same width: what takes
        // time for every run and every block is not spent on a few lanes.
        let run = lanes.run();
        let block_lanes = match (most + most / 4) / run {
            runs @ 1.. if (2..lanes.len).contains(&run) => (runs * run).min(lanes.len),
            _ => pad(lanes.len.div_ceil(lanes.len.div_ceil(most))),
        };
        let band_rows = if resident { 2 * PANEL } else { 4 * PANEL };
        let tall = |most: usize| (MAX_CELLS / block_lanes / 16 * 16).clamp(16, most);
        let (block_rows, strip_rows, flush) = match (side, across) {
            (OperandSide::Lhs, None) => {
                (16, band_rows, MAX_TERMS * T::MAX_LANES / pad(block_lanes))
            }
            (OperandSide::Lhs, Some(_)) => (tall(32), tall(32), MAX_TILES),
            (OperandSide::Rhs, _) => (tall(32), tall(32), MAX_TERMS / tall(32)),
        };
        let padded = rows.len.next_multiple_of(PANEL);
        let [block_rows, strip_rows, band_rows] =
            [block_rows, strip_rows, band_rows].map(|rows| rows.min(padded));

        let disjoint = target_side_letters.len() == side_letters.len();
        let mut geometry = Geometry {
            side,
            sides: tensors.iter().map(|t| t.side).collect(),
            partners: pass.operands.iter().any(|o| o.side == side),
            own,
            summed,
            rows,
            lanes,
            inner,
            inner_in_order: inner_offsets.iter().map(|k| is_contiguous(k)).collect(),
            inner_offsets,
            block_rows,
            block_lanes,
            width: pad(block_lanes),
            strip_rows,
            band_rows,
            across,
            flush,
            target_inner: shapes.sizes(&target_inner_letters).iter().product(),
            target_side: shapes.sizes(&target_side_letters).iter().product(),
            target_inner_map,
            disjoint,
            sum_parts: 1,
        };
        let granules = geometry.own_granules();
        if granules < TASKS / 2 {
            let target = geometry.own.len * geometry.target_side * geometry.target_inner;
            let affordable = (PARTIALS / (16 * target.max(1))).max(4);
            geometry.sum_parts =
                TASKS.div_ceil(granules).min(affordable).min(geometry.sum_units()).max(1);
        }
        geometry
    }

    /// Whether there are so few inner indices that a tile adds its share of the sums as it goes along,
    /// where it is worked on in registers.
    pub fn few(&self) -> bool {
        self.inner < ACROSS
    }

    /// Strands that are worked on together at most: as many as leave what is formed for each, on the
    /// target's side, in the second-level cache.
    pub fn group<T: Real>(&self) -> usize {
        let formed = match self.side {
            OperandSide::Lhs => self.block_rows * self.inner,
            OperandSide::Rhs => self.width * self.inner,
        };
        (GROUP_BYTES / (T::BYTES * (formed + self.running_sums::<T>()))).clamp(1, GROUP)
    }

    /// Running sums of a block of the target's side, in elements.
    pub fn running_sums<T: Real>(&self) -> usize {
        match (self.side, self.across) {
            (OperandSide::Lhs, None) => self.block_rows * self.inner * T::MAX_LANES,
            (OperandSide::Lhs, Some(stride)) => self.block_rows * stride,
            (OperandSide::Rhs, _) => self.width * self.inner,
        }
    }

    /// Blocks of the target's side.
    pub fn side_blocks(&self) -> usize {
        match self.side {
            OperandSide::Lhs => self.rows.len.div_ceil(self.block_rows),
            OperandSide::Rhs => self.lanes.len.div_ceil(self.block_lanes),
        }
    }

    /// Blocks of the other side.
    pub fn other_blocks(&self) -> usize {
        match self.side {
            OperandSide::Lhs => self.lanes.len.div_ceil(self.block_lanes),
            OperandSide::Rhs => self.rows.len.div_ceil(self.block_rows),
        }
    }

    /// Parts of the target that no two of write to the same entry.
    pub fn own_granules(&self) -> usize {
        self.own.len * if self.disjoint { self.side_blocks() } else { 1 }
    }

    /// Where a part of the target stands: its own outer index, and its blocks of the side.
    pub fn granule(&self, granule: usize) -> (usize, Range<usize>) {
        let blocks = self.side_blocks();
        match self.disjoint {
            true => (granule / blocks, granule % blocks..granule % blocks + 1),
            false => (granule, 0..blocks),
        }
    }

    /// Where a block of the target's side begins, and its length.
    pub fn block(&self, block: usize) -> (usize, usize) {
        let (extent, step) = match self.side {
            OperandSide::Lhs => (self.rows.len, self.block_rows),
            OperandSide::Rhs => (self.lanes.len, self.block_lanes),
        };
        (block * step, step.min(extent - block * step))
    }

    /// Where a block of the other side begins, and its length.
    pub fn other_block(&self, block: usize) -> (usize, usize) {
        let (extent, step) = match self.side {
            OperandSide::Lhs => (self.lanes.len, self.block_lanes),
            OperandSide::Rhs => (self.rows.len, self.block_rows),
        };
        (block * step, step.min(extent - block * step))
    }

    /// Tiles of a part of the target over a range of what is summed over.
    pub fn steps(&self, sum: (usize, usize)) -> usize {
        sum.1 * if self.disjoint { 1 } else { self.side_blocks() }
    }

    /// Parts of what is summed over.
    pub fn sum_units(&self) -> usize {
        self.summed.len * self.other_blocks()
    }
}

/// Whether offsets are this far apart.
pub(super) fn is_evenly_spaced(offsets: &[usize], stride: usize) -> bool {
    offsets.windows(2).all(|w| w[1] == w[0] + stride)
}

/// Whether offsets follow one another without a gap, so that a block can be copied whole.
pub(super) fn is_contiguous(offsets: &[usize]) -> bool {
    is_evenly_spaced(offsets, 1)
}

/// The side tensors of a loss in the data's order of memory.
pub(super) fn aligned(values: &Dense, side: &ndarray::ArrayD<f64>) -> Dense {
    Dense::from_array(side).in_layout_of(values)
}
