//! The A and B panels of a tile: some rows of all operands on the left, some columns of all on the right.

use super::axis::{Run, is_contiguous, is_evenly_spaced, runs};
use super::geometry::Geometry;
use super::kernel::MR;
use nneinfact_core::plan::OperandSide;
use nneinfact_simd::{Aligned, Elementwise};

/// Some rows of a tile, and their A panel: the product of the operands on the left.
pub(crate) struct LhsPanel<T> {
    key: PanelKey,
    /// The first row, and how many.
    pub at: (usize, usize),
    /// The offsets of the rows in the data, from the batch index on.
    pub offsets: Vec<usize>,
    place: Place,
    /// The panel, row-major, where it is a copy.
    copy: Aligned<T>,
    /// The product of the other operands, where the output is among the rows.
    pub co_operand: Vec<T>,
    /// The offsets of the rows in a tensor.
    scratch: Vec<usize>,
}

/// Where an A panel stands.
#[derive(Clone, Copy)]
enum Place {
    Copy,
    /// In a tensor as it is, from this offset on.
    Tensor(usize, usize),
}

/// Some columns of a tile, and their B panel: the product of the operands on the right.
pub(crate) struct RhsPanel<T> {
    key: PanelKey,
    /// The first column, and how many.
    pub at: (usize, usize),
    /// The columns with their padding: the distance between the rows of all matrices of a tile, so that
    /// rows follow one another and many of them are one loop.
    pub ld: usize,
    /// Where the columns are in the data, from the row on.
    pub runs: Vec<Run>,
    pub data: Aligned<T>,
    /// The panel transposed, where the reduction reads it packed.
    pub packed: Aligned<T>,
    /// The product of the other operands, where the output is among the columns.
    pub co_operand: Vec<T>,
    /// The offsets of the columns in a tensor, or in the data.
    scratch: Vec<usize>,
}

/// What a panel is formed for: a block of a side, and the batch offsets of the tensors on that side.
#[derive(Default)]
struct PanelKey {
    block: Option<usize>,
    batch: Vec<usize>,
}

impl PanelKey {
    /// Whether the panel is formed for this already; from now on it is.
    fn replace(&mut self, g: &Geometry, side: OperandSide, block: usize, batch: &[usize]) -> bool {
        let here =
            || batch.iter().zip(&g.operand_sides).filter(|&(_, &s)| s == side).map(|(&o, _)| o);
        if self.block == Some(block) && self.batch.iter().copied().eq(here()) {
            return true;
        }
        self.block = Some(block);
        self.batch.clear();
        self.batch.extend(here());
        false
    }
}

impl<T: Elementwise> LhsPanel<T> {
    /// A panel that is formed for nothing.
    pub fn new() -> LhsPanel<T> {
        LhsPanel {
            key: PanelKey::default(),
            at: (0, 0),
            offsets: Vec::new(),
            place: Place::Copy,
            copy: Aligned::zeros(0),
            co_operand: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// The panel, row-major, with padding rows.
    pub fn data<'a>(&'a self, tensors: &[&'a [T]]) -> &'a [T] {
        match self.place {
            Place::Tensor(t, offset) => &tensors[t][offset..],
            Place::Copy => &self.copy,
        }
    }

    /// Forms the panel for a block of rows, which begins and is as long as `at` says. `batch` has the
    /// offset of the batch index in each tensor.
    pub fn form(
        &mut self,
        g: &Geometry,
        tensors: &[&[T]],
        batch: &[usize],
        block: usize,
        at: (usize, usize),
    ) {
        let depth = g.depth;
        if self.key.replace(g, OperandSide::Lhs, block, batch) {
            return;
        }
        self.at = at;
        g.rows.data_offsets(at.0, at.1, &mut self.offsets);
        self.place = Place::Copy;
        let mut lhs =
            g.operand_sides.iter().enumerate().filter(|&(_, &side)| side == OperandSide::Lhs);
        if let (Some((t, _)), None) = (lhs.next(), lhs.next()) {
            g.rows.offsets(t, at.0, at.1, &mut self.scratch);
            let follow = g.depth_in_order[t] && is_evenly_spaced(&self.scratch, depth);
            if follow && at.1.is_multiple_of(MR) {
                // One tensor, whose rows follow one another just as those of the panel do.
                self.place = Place::Tensor(t, batch[t] + self.scratch[0]);
                return;
            }
        }
        let co_operand = g.has_co_operand && g.output_side == OperandSide::Lhs;
        // Padding rows are zero.
        let padded = at.1.next_multiple_of(MR);
        self.copy.resize(padded * depth);
        self.copy[..at.1 * depth].fill(T::ONE);
        self.copy[at.1 * depth..].fill(T::ZERO);
        if co_operand {
            self.co_operand.clear();
            self.co_operand.resize(at.1 * depth, T::ONE);
        }
        let all = tensors.iter().enumerate();
        for (t, data) in all.filter(|&(t, _)| g.operand_sides[t] == OperandSide::Lhs) {
            g.rows.offsets(t, at.0, at.1, &mut self.scratch);
            let k = &g.depth_offsets[t];
            for (m, &offset) in self.scratch.iter().enumerate() {
                let from = &data[batch[t] + offset..];
                for (to, &k) in self.copy[m * depth..][..depth].iter_mut().zip(k) {
                    *to = *to * from[k];
                }
                if co_operand && t > 0 {
                    for (to, &k) in self.co_operand[m * depth..][..depth].iter_mut().zip(k) {
                        *to = *to * from[k];
                    }
                }
            }
        }
    }
}

impl<T: Elementwise> RhsPanel<T> {
    /// A panel that is formed for nothing, with room for the columns of any tile.
    pub fn new(g: &Geometry) -> RhsPanel<T> {
        let width = g.tile.width;
        let packed = g.reduction.packed_stride().map_or(0, |stride| stride * width);
        RhsPanel {
            key: PanelKey::default(),
            at: (0, 0),
            ld: 0,
            runs: Vec::new(),
            data: Aligned::zeros(g.depth * width),
            packed: Aligned::zeros(packed),
            co_operand: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Where the first column is in the data.
    pub fn data_offset(&self) -> usize {
        self.runs.first().map_or(0, |run| run.offset)
    }

    /// Forms the panel for a block of columns; see [`LhsPanel::form`].
    pub fn form(
        &mut self,
        g: &Geometry,
        tensors: &[&[T]],
        batch: &[usize],
        block: usize,
        at: (usize, usize),
    ) {
        if self.key.replace(g, OperandSide::Rhs, block, batch) {
            return;
        }
        let ld = at.1.next_multiple_of(T::MAX_LANES);
        (self.at, self.ld) = (at, ld);
        g.columns.data_offsets(at.0, at.1, &mut self.scratch);
        runs(&self.scratch, &mut self.runs);
        let co_operand = g.has_co_operand && g.output_side == OperandSide::Rhs;
        if co_operand {
            self.co_operand.clear();
            self.co_operand.resize(g.depth * ld, T::ONE);
        }
        let mut first = true;
        let all = tensors.iter().enumerate();
        for (t, data) in all.filter(|&(t, _)| g.operand_sides[t] == OperandSide::Rhs) {
            g.columns.offsets(t, at.0, at.1, &mut self.scratch);
            let offsets = &self.scratch;
            let contiguous = is_contiguous(offsets);
            for k in 0..g.depth {
                let from = &data[batch[t] + g.depth_offsets[t][k]..];
                let to = &mut self.data[k * ld..][..at.1];
                match (first, contiguous) {
                    (true, true) => to.copy_from_slice(&from[offsets[0]..][..at.1]),
                    (true, false) => {
                        to.iter_mut().zip(offsets).for_each(|(to, &n)| *to = from[n]);
                    }
                    (false, true) => {
                        let from = &from[offsets[0]..][..at.1];
                        to.iter_mut().zip(from).for_each(|(to, &x)| *to = *to * x);
                    }
                    (false, false) => {
                        to.iter_mut().zip(offsets).for_each(|(to, &n)| *to = *to * from[n]);
                    }
                }
                if co_operand && t > 0 {
                    let to = &mut self.co_operand[k * ld..][..at.1];
                    to.iter_mut().zip(offsets).for_each(|(to, &n)| *to = *to * from[n]);
                }
            }
            first = false;
        }
        // Padding columns are zero, so that they add nothing whatever stands in `a`.
        for row in self.data[..g.depth * ld].chunks_exact_mut(ld) {
            if first {
                row[..at.1].fill(T::ONE);
            }
            row[at.1..].fill(T::ZERO);
        }
        if let Some(stride) = g.reduction.packed_stride() {
            // The padding behind the contracted indices is 0 from the beginning.
            let packed = &mut self.packed[..ld * stride];
            for (k, row) in self.data[..g.depth * ld].chunks_exact(ld).enumerate() {
                for (to, &x) in packed.chunks_exact_mut(stride).zip(row) {
                    to[k] = x;
                }
            }
        }
    }
}
