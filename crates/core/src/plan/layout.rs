//! The layout of a pass: which indices run in which loop, and on which side each operand stands.

use super::Contraction;
use crate::model::{Index, IndexSet};

/// The operand of a tile's matrix product that a tensor belongs to.
///
/// Inside a tile the model is a small matrix product (a GEMM): `ŷ[m, n] = Σ_k A[m, k] · B[k, n]`,
/// rows `m` by columns `n`. Every tensor of a pass depends on rows or on columns (or on neither),
/// never on both, once the batch indices are fixed; `A` and `B` are the products of those on each
/// side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperandSide {
    /// Part of the left operand `A`, stored as `[batch…, rows…, contracted…]`.
    Lhs,
    /// Part of the right operand `B`, stored as `[batch…, contracted…, columns…]`.
    Rhs,
}

/// The indices of a pass by the loop they run in. Observed indices are in exactly one of `batch`,
/// `rows` and `columns`, in the order of decreasing stride in the data; `contracted` holds the
/// latent indices that tensors of the pass share.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Layout {
    /// Looped over outside of tiles. Those that the output has are batch modes: every combination
    /// has sums of its own. The others are reduced batch modes: their sums are added up.
    pub batch: Vec<Index>,
    /// The rows of a tile.
    pub rows: Vec<Index>,
    /// The columns of a tile: the direction of SIMD vectors, contiguous in the data where possible.
    pub columns: Vec<Index>,
    /// The contracted modes: what the matrix product sums over (its K).
    pub contracted: Vec<Index>,
}

/// A stored tensor that a pass reads: the product of some factors.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// The factors it is the product of.
    pub factors: Vec<usize>,
    /// Its indices, in its order in memory.
    pub indices: Vec<Index>,
    /// Where it stands in a tile.
    pub side: OperandSide,
    /// How it is formed from its factors (inputs in the order of `factors`).
    pub contraction: Contraction,
}

impl Layout {
    /// The order in memory of a tensor with these indices on this side.
    #[must_use]
    pub fn storage(&self, indices: IndexSet, side: OperandSide) -> Vec<Index> {
        let groups: [&[Index]; 3] = match side {
            OperandSide::Lhs => [&self.batch, &self.rows, &self.contracted],
            OperandSide::Rhs => [&self.batch, &self.contracted, &self.columns],
        };
        groups.into_iter().flatten().copied().filter(|&x| indices.contains(x)).collect()
    }
}
