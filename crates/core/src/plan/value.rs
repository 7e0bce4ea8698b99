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
    /// the letters of the pass's target) with the other factors of the group (inputs 1…, in the
    /// order of `factors`) onto the factor's letters.
    pub updates: Vec<Contraction>,
}

/// A pass over the data for one group.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// The product of the group's factors: what numerator and denominator have the shape of.
    pub output: Operand,
    /// What else is read. The product of target and operands, summed over the inner letters, is ŷ.
    pub operands: Vec<Operand>,
    /// The letters by loop.
    pub layout: Layout,
    /// The denominator where the loss's `b` is 1 everywhere: all factors outside the group
    /// contracted onto the target's letters, broadcast along letters that they do not have.
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
    /// The size of the inner dimension `K`.
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
    /// What was planned for.
    #[must_use]
    pub fn settings(&self) -> &PlanSettings {
        &self.settings
    }
    /// The groups, in the order of a sweep.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }
    /// The dense pass of each group. Beside sampled passes it is there where what the cells off the
    /// list add has no closed form, and reads no values.
    #[must_use]
    pub fn passes(&self) -> &[Pass] {
        &self.passes
    }
    /// The pass of each group over the list of cells; empty where there is no list.
    #[must_use]
    pub fn sparse_passes(&self) -> &[SparsePass] {
        &self.sparse_passes
    }
    /// Sums over all cells that go with a list of cells.
    #[must_use]
    pub fn implicit_totals(&self) -> Option<&ImplicitTotals> {
        self.implicit_totals.as_ref()
    }
    /// Predicted seconds of a sweep on a nominal core; a figure to compare plans by.
    #[must_use]
    pub fn cost(&self) -> f64 {
        let sampled: f64 = self.sparse_passes.iter().map(|p| p.cost).sum();
        self.passes.iter().map(|p| p.cost).sum::<f64>() + sampled
    }
    /// Bytes that stored operands, numerators and denominators take together.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory
    }
    /// Multiply-adds of a sweep.
    #[must_use]
    pub fn flops(&self) -> f64 {
        let sampled: f64 = self.sparse_passes.iter().map(|p| p.flops + p.contraction_flops).sum();
        self.passes.iter().map(|p| p.flops + p.contraction_flops).sum::<f64>() + sampled
    }
    /// Bytes of data read in a sweep.
    #[must_use]
    pub fn bytes(&self) -> f64 {
        self.passes.iter().map(|p| p.bytes).sum()
    }
}
