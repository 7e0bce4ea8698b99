//! Sparse passes (an SDDMM and a sparse MTTKRP in one): what the planner does for data that are
//! mostly zeros.

use super::Contraction;
use crate::model::{Index, Shapes};

/// How implicit entries, those that are not stored, enter numerators, denominators and losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImplicitForm {
    /// They are missing.
    Missing,
    /// As contractions of the factors: what the loss adds at a zero does not depend on ŷ.
    Closed,
    /// As contractions of the model with itself: what the loss adds at a zero is a multiple of ŷ.
    Gram,
    /// As contractions of the factors less sums over the entries that the factors are not fitted to:
    /// entries have roles, and what the loss adds at a zero does not depend on ŷ (or exact steps
    /// have it in their quadratic form).
    ByRole,
    /// By a dense pass over all entries that reads no values.
    ImplicitZeroPass,
}

/// The stored entries that passes go over in place of all entries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SparseInfo {
    /// Stored entries that the factors are fitted to: they are read in the precision of the pass.
    pub stored: u64,
    /// Masked entries: stored ones that the factors are not fitted to. What the sums over all
    /// entries have of them is taken off again, in double precision.
    pub masked: u64,
    /// How the implicit entries enter.
    pub implicit: ImplicitForm,
}

/// A product of factors (a Khatri–Rao product) whose rows a sparse pass looks up.
#[derive(Clone, Debug, PartialEq)]
pub struct KhatriRaoTable {
    /// The factors it is the product of.
    pub factors: Vec<usize>,
    /// The observed indices that number its rows, the last running fastest.
    pub rows: Vec<Index>,
    /// How it is formed from its factors, onto `rows` and all contracted indices of the pass: a row
    /// is repeated along contracted indices that the factors do not have.
    pub contraction: Contraction,
}

/// A pass over the stored entries for one group: ŷ at an entry is the sum over the contracted
/// indices of the product of one row of each table.
#[derive(Clone, Debug, PartialEq)]
pub struct SparsePass {
    /// The product of the group's factors.
    pub output: KhatriRaoTable,
    /// The products of the other factors.
    pub operands: Vec<KhatriRaoTable>,
    /// The indices summed over.
    pub contracted: Vec<Index>,
    /// The indices of numerator and denominator: the output's rows, and its contracted indices.
    pub indices: Vec<Index>,
    /// Factors outside the group.
    pub others: Vec<usize>,
    /// The sum over all entries of the other factors' product: the other factors contracted onto
    /// those indices of the output that they have.
    pub closed: Contraction,
    /// For each factor of the group, the contraction of that sum (input 0) with the other factors
    /// of the group onto the factor's indices.
    pub closed_updates: Vec<Contraction>,
    /// The sum over all entries of ŷ times the other factors' product, where there are indices to
    /// write it with.
    pub gram: Option<Gram>,
    /// Bytes of the stored entries in the order of this pass: of each the rows that it looks up, in as
    /// few bytes as any row of the table takes, and its value in the precision of the pass.
    pub entry_bytes: f64,
    /// Multiply-adds at the stored entries.
    pub flops: f64,
    /// Multiply-adds in small contractions.
    pub contraction_flops: f64,
    /// Predicted seconds of a nominal core.
    pub cost: f64,
}

/// A contraction of the model with itself: all factors under other latent indices first, then
/// further factors under their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Gram {
    /// The sizes, with the second latent indices.
    pub shapes: Shapes,
    /// The contraction.
    pub contraction: Contraction,
}

impl Gram {
    /// Contracts all factors, renamed, with the factors `with`, onto `output`.
    pub(super) fn new(shapes: &Shapes, with: &[usize], output: &[Index]) -> Option<Gram> {
        let (doubled, pairs) = shapes.doubled()?;
        let factors = shapes.model().factors();
        let mut inputs: Vec<Vec<Index>> = factors.iter().map(|f| renamed(f, &pairs)).collect();
        inputs.extend(with.iter().map(|&l| factors[l].clone()));
        let views: Vec<&[Index]> = inputs.iter().map(Vec::as_slice).collect();
        let form = Contraction::new(&doubled, &views, output);
        Some(Gram { shapes: doubled, contraction: form })
    }
}

/// Indices under the second names that [`Shapes::doubled`] gives them.
pub(super) fn renamed(indices: &[Index], pairs: &[(Index, Index)]) -> Vec<Index> {
    let second = |x: &Index| pairs.iter().find(|p| p.0 == *x).map_or(*x, |p| p.1);
    indices.iter().map(second).collect()
}

/// Sums over all entries, for the losses of the implicit ones.
#[derive(Clone, Debug, PartialEq)]
pub struct ImplicitTotals {
    /// All factors contracted to the sum of ŷ.
    pub linear: Contraction,
    /// To the sum of ŷ², where there are indices to write it with.
    pub square: Option<Gram>,
}

impl ImplicitTotals {
    pub(super) fn new(shapes: &Shapes) -> ImplicitTotals {
        let factors = shapes.model().factors();
        let all: Vec<usize> = (0..factors.len()).collect();
        let views: Vec<&[Index]> = factors.iter().map(Vec::as_slice).collect();
        ImplicitTotals {
            linear: Contraction::new(shapes, &views, &[]),
            square: Gram::new(shapes, &all, &[]),
        }
    }
}

impl SparsePass {
    /// The number of terms that ŷ is a sum of.
    #[must_use]
    pub fn contracted_size(&self, shapes: &Shapes) -> usize {
        shapes.sizes(&self.contracted).iter().product()
    }
}
