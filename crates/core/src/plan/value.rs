//! The plan as a value.

use super::Contraction;
use super::input::{DataInfo, PlanSettings};
use super::layout::{Layout, Operand};
use super::sparse::{ImplicitTotals, SparsePass};
use crate::model::Shapes;

/// Factors that are updated together, from one pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The factors (counted from 0), in the order in which they are updated.
    pub factors: Vec<usize>,
    /// For each factor of the group, the contraction of a numerator or denominator (input 0, with
    /// the indices of the pass's output) with the other factors of the group (inputs 1…, in the
    /// order of `factors`) onto the factor's indices.
    pub updates: Vec<Contraction>,
}

/// A dense pass over the data for one group: a fused MTTKRP (see the [module](crate::plan)).
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// The product of the group's factors: what numerator and denominator have the shape of.
    pub output: Operand,
    /// What else is read. The product of output and operands, summed over the contracted indices,
    /// is ŷ.
    pub operands: Vec<Operand>,
    /// The indices by the loop that they run in.
    pub layout: Layout,
    /// The denominator where the loss's `b` is 1 everywhere: all factors outside the group
    /// contracted onto the output's indices, broadcast along indices that they do not have.
    pub closed_denominator: Contraction,
    /// Factors outside the group, the inputs of `closed_denominator`.
    pub others: Vec<usize>,
    /// Multiply-adds over the data.
    pub flops: f64,
    /// Bytes of data read.
    pub bytes: f64,
    /// Multiply-adds in small contractions (forming the operands, updating the factors).
    pub contraction_flops: f64,
    /// Predicted seconds of a nominal core; a figure to rank plans by.
    pub cost: f64,
}

impl Pass {
    /// The number of terms that ŷ is a sum of (K of the matrix product).
    #[must_use]
    pub fn contracted_size(&self, shapes: &Shapes) -> usize {
        shapes.sizes(&self.layout.contracted).iter().product()
    }
}

/// What a fit will do in a sweep: see the [module](crate::plan).
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub(super) shapes: Shapes,
    pub(super) data: DataInfo,
    pub(super) settings: PlanSettings,
    pub(super) groups: Vec<Group>,
    pub(super) passes: Vec<Pass>,
    pub(super) sparse_passes: Vec<SparsePass>,
    pub(super) implicit_totals: Option<ImplicitTotals>,
    pub(super) memory: u64,
}

impl Plan {
    /// The model with its sizes.
    #[must_use]
    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }
    /// What was known of the data.
    #[must_use]
    pub fn data(&self) -> &DataInfo {
        &self.data
    }
    /// What it was planned for.
    #[must_use]
    pub fn settings(&self) -> &PlanSettings {
        &self.settings
    }
    /// The groups, in the order of a sweep.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }
    /// The dense pass of each group. Beside sparse passes it is there where what the implicit
    /// entries add has no closed form: then it is an implicit-zero pass, which reads no values.
    #[must_use]
    pub fn passes(&self) -> &[Pass] {
        &self.passes
    }
    /// The pass of each group over the stored entries; empty where passes go over all entries.
    #[must_use]
    pub fn sparse_passes(&self) -> &[SparsePass] {
        &self.sparse_passes
    }
    /// The sums over all entries that the loss of the implicit entries is made of, beside sparse
    /// passes.
    #[must_use]
    pub fn implicit_totals(&self) -> Option<&ImplicitTotals> {
        self.implicit_totals.as_ref()
    }
    /// Predicted seconds of a sweep on a nominal core; a figure to compare plans by.
    #[must_use]
    pub fn cost(&self) -> f64 {
        let sparse: f64 = self.sparse_passes.iter().map(|p| p.cost).sum();
        self.passes.iter().map(|p| p.cost).sum::<f64>() + sparse
    }
    /// Bytes that stored operands, numerators and denominators take together, with the stored entries
    /// in the order of each sparse pass.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory
    }
    /// Multiply-adds of a sweep.
    #[must_use]
    pub fn flops(&self) -> f64 {
        let sparse: f64 = self.sparse_passes.iter().map(|p| p.flops + p.contraction_flops).sum();
        self.passes.iter().map(|p| p.flops + p.contraction_flops).sum::<f64>() + sparse
    }
    /// Bytes of data read in a sweep.
    #[must_use]
    pub fn bytes(&self) -> f64 {
        self.passes.iter().map(|p| p.bytes).sum()
    }
}
