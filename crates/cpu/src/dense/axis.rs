//! Modes of a plan flattened into axes, and their indices turned into offsets in memory.

use nneinfact_core::algebra::contract::Walk;
use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::plan::{Operand, Plan};

/// Several modes flattened into one index, with the stride of each in the data and in every tensor
/// of the pass (0 where a tensor does not have the mode).
#[derive(Debug)]
pub(crate) struct Axis {
    /// The number of indices.
    pub len: usize,
    sizes: Vec<usize>,
    data: Vec<usize>,
    tensors: Vec<Vec<usize>>,
}

impl Axis {
    /// The axis of some modes in a pass over these tensors.
    pub fn new(plan: &Plan, modes: &[Index], tensors: &[&Operand]) -> Axis {
        let shapes = plan.shapes();
        Axis {
            len: shapes.sizes(modes).iter().product(),
            sizes: shapes.sizes(modes),
            data: modes.iter().map(|&x| plan.data().stride(shapes, x)).collect(),
            tensors: tensors
                .iter()
                .map(|t| modes.iter().map(|&x| stride(shapes, &t.indices, x)).collect())
                .collect(),
        }
    }

    /// How many indices follow one another in the data without a gap.
    pub fn contiguous_len(&self) -> usize {
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
        fill_offsets(&self.sizes, &self.tensors[t], start, len, out);
    }

    /// The offsets of a range of indices in the data.
    pub fn data_offsets(&self, start: usize, len: usize, out: &mut Vec<usize>) {
        fill_offsets(&self.sizes, &self.data, start, len, out);
    }
}

/// The offset of one index. It is computed without a [`Walk`], which allocates: there are too many
/// tiles for that.
fn offset(sizes: &[usize], strides: &[usize], mut index: usize) -> usize {
    let mut offset = 0;
    for (size, stride) in sizes.iter().zip(strides).rev() {
        offset += index % size * stride;
        index /= size;
    }
    offset
}

/// The offsets of a range of indices. Along the last mode they are evenly spaced, so that the odometer
/// turns once per run of that mode and not once per index.
pub(crate) fn fill_offsets(
    sizes: &[usize],
    strides: &[usize],
    start: usize,
    len: usize,
    out: &mut Vec<usize>,
) {
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

/// The stride of a mode in a tensor in C order; 0 where the tensor does not have it.
pub(crate) fn stride(shapes: &Shapes, modes: &[Index], mode: Index) -> usize {
    match modes.iter().position(|&x| x == mode) {
        Some(at) => modes[at + 1..].iter().map(|&x| shapes.size(x)).product(),
        None => 0,
    }
}

/// A run of columns that is evenly spaced in the data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Run {
    /// The first column of the run.
    pub start: usize,
    /// The number of columns.
    pub len: usize,
    /// The offset of the first column in the data.
    pub offset: usize,
    /// The distance from one column to the next in the data.
    pub stride: usize,
}

/// Cuts offsets into runs of even spacing.
pub(crate) fn runs(offsets: &[usize], out: &mut Vec<Run>) {
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
        // A jump backwards ends the run after its first column.
        let (stride, end) = if stride > usize::MAX / 2 { (1, start + 1) } else { (stride, end) };
        out.push(Run { start, len: end - start, offset: offsets[start], stride });
        start = end;
    }
}

/// Whether offsets are this far apart.
pub(crate) fn is_evenly_spaced(offsets: &[usize], stride: usize) -> bool {
    offsets.windows(2).all(|w| w[1] == w[0] + stride)
}

/// Whether offsets follow one another without a gap, so that a block can be copied whole.
pub(crate) fn is_contiguous(offsets: &[usize]) -> bool {
    is_evenly_spaced(offsets, 1)
}
