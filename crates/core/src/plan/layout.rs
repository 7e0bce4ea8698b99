//! The layout of a pass: which letters run where, and on which side each operand stands.

use super::Contraction;
use crate::model::{Index, IndexSet};

/// The side of a tile on which a tensor stands.
///
/// Inside a tile the model is a small matrix product: `ŷ[m, n] = Σ_k R[m, k] · C[k, n]`, rows `m`
/// by lanes `n`. Every tensor of a pass depends on rows or on lanes (or on neither), never on both,
/// once the outer letters are fixed; `R` and `C` are the products of those on each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperandSide {
    /// Part of `R`, stored as `[outer…, rows…, inner…]`.
    Lhs,
    /// Part of `C`, stored as `[outer…, inner…, lanes…]`.
    Rhs,
}

/// The letters of a pass by the loop they belong to. Observed letters are in exactly one of
/// `outer`, `rows` and `lanes`, in the order of decreasing stride in the data; `inner` holds the
/// latent letters that tensors of the pass share.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Layout {
    /// Looped over outside of tiles.
    pub batch: Vec<Index>,
    /// The rows of a tile.
    pub rows: Vec<Index>,
    /// The lanes of a tile: the direction of SIMD vectors, contiguous in the data where possible.
    pub columns: Vec<Index>,
    /// Summed over: the inner dimension of the product.
    pub contracted: Vec<Index>,
}

/// A stored tensor that a pass reads: the product of some factors.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// The factors it is the product of.
    pub factors: Vec<usize>,
    /// Its letters, in its order in memory.
    pub indices: Vec<Index>,
    /// Where it stands in a tile.
    pub side: OperandSide,
    /// How it is formed from its factors (inputs in the order of `factors`).
    pub contraction: Contraction,
}

impl Layout {
    /// The order in memory of a tensor with these letters on this side.
    #[must_use]
    pub fn storage(&self, letters: IndexSet, side: OperandSide) -> Vec<Index> {
        let groups: [&[Index]; 3] = match side {
            OperandSide::Lhs => [&self.batch, &self.rows, &self.contracted],
            OperandSide::Rhs => [&self.batch, &self.contracted, &self.columns],
        };
        groups.into_iter().flatten().copied().filter(|&x| letters.contains(x)).collect()
    }
}
