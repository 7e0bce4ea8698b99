//! Tensors in buffers, as contractions see them.

use nneinfact_core::model::{Index, Shapes};

use super::recording::BufferId;

/// A tensor in a buffer, or two of the same indices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TensorView {
    pub buffer: BufferId,
    /// Where it begins, in elements.
    pub base: usize,
    /// Its indices, in its order in memory.
    pub indices: Vec<Index>,
    /// The distance to the second tensor, if there are two: that of the denominator.
    pub half: Option<usize>,
}

/// The stride of an index in a tensor in C order; 0 where the tensor does not have it.
pub(crate) fn stride(shapes: &Shapes, tensor: &[Index], index: Index) -> usize {
    match tensor.iter().position(|&x| x == index) {
        Some(at) => tensor[at + 1..].iter().map(|&x| shapes.size(x)).product(),
        None => 0,
    }
}
