//! What the planner is given.

use super::sparse::SparseInfo;
use crate::model::{Index, Shapes};

/// What the planner knows of the data.
#[derive(Clone, Debug, PartialEq)]
pub struct DataInfo {
    /// The stride of each mode in elements, in the order of the model's output.
    pub strides: Vec<usize>,
    /// Bytes of a stored value.
    pub value_bytes: usize,
    /// Whether a mask or a split is present (2 bits per entry).
    pub masked: bool,
    /// Bytes of a stored weight; 0 without weights.
    pub weight_bytes: usize,
    /// Whether values stay in a file and are read from there in every pass. It changes nothing
    /// about the passes.
    pub streamed: bool,
}

impl DataInfo {
    /// Unmasked, unweighted data in C order with `value_bytes` bytes a value.
    #[must_use]
    pub fn c_order(shapes: &Shapes, value_bytes: usize) -> DataInfo {
        let shape = shapes.data();
        let mut strides = vec![1usize; shape.len()];
        for mode in (1..shape.len()).rev() {
            // Of coordinates there may be more entries than can be counted; nothing is read at these
            // strides then.
            strides[mode - 1] = strides[mode].saturating_mul(shape[mode]);
        }
        DataInfo { strides, value_bytes, masked: false, weight_bytes: 0, streamed: false }
    }

    /// The same data in C order.
    #[must_use]
    pub fn in_c_order(self, shapes: &Shapes) -> DataInfo {
        let DataInfo { strides, .. } = DataInfo::c_order(shapes, self.value_bytes);
        DataInfo { strides, ..self }
    }

    /// Bytes that a pass reads per entry.
    #[must_use]
    pub fn bytes_per_entry(&self) -> f64 {
        (self.value_bytes + self.weight_bytes) as f64 + if self.masked { 0.25 } else { 0.0 }
    }

    /// The stride of an observed index, in elements.
    pub fn stride(&self, shapes: &Shapes, index: Index) -> usize {
        let mode = shapes.model().output().iter().position(|&x| x == index);
        mode.and_then(|mode| self.strides.get(mode)).copied().unwrap_or(0)
    }

    /// The observed indices by decreasing stride.
    pub(super) fn order(&self, shapes: &Shapes) -> Vec<Index> {
        let mut order = shapes.model().output().to_vec();
        order.sort_by_key(|&x| (std::cmp::Reverse(self.stride(shapes, x)), shapes.size(x) == 1));
        order
    }

    /// The length of a run along the columns that is evenly spaced in memory, and its spacing.
    pub fn run(&self, shapes: &Shapes, columns: &[Index]) -> (f64, usize) {
        let Some((&last, before)) = columns.split_last() else {
            return (1.0, 1);
        };
        let spacing = self.stride(shapes, last);
        let mut length = shapes.size(last);
        for &index in before.iter().rev() {
            if shapes.size(index) > 1
                && self.stride(shapes, index) != spacing.saturating_mul(length)
            {
                break;
            }
            length = length.saturating_mul(shapes.size(index));
        }
        (length as f64, spacing)
    }
}

/// Which factors are updated from one pass.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Grouping {
    /// One factor at a time, in the model's order: Algorithm 1 of NNEinFact.
    Block,
    /// The planner's choice.
    #[default]
    Grouped,
    /// These groups of factors (counted from 0), in this order.
    Given(Vec<Vec<usize>>),
}

/// What the planner is to plan for.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanSettings {
    /// How factors are grouped.
    pub grouping: Grouping,
    /// Bytes of an element in a pass: 4 (f32) or 8 (f64).
    pub element_bytes: usize,
    /// Elementwise operations per entry, the loss included.
    pub entry_cost: f64,
    /// Whether the denominator is a contraction of the other factors alone: the loss's `b` is
    /// constant and nothing is masked or weighted.
    pub closed_denominator: bool,
    /// The stored entries that passes go over in place of all entries, if the data are sparse.
    pub sparse: Option<SparseInfo>,
    /// Factors (counted from 0) that are not updated, and so belong to no group.
    pub fixed: Vec<usize>,
    /// Up to this many factors all ways to group those that are not fixed are compared; beyond it, and
    /// beyond 12 in any case, a search of polynomial time groups them.
    pub exact: usize,
    /// The most that stored operands, numerators and denominators may take together, in bytes.
    pub memory: u64,
}

impl PlanSettings {
    /// The default of [`exact`](PlanSettings::exact).
    pub const EXACT: usize = 8;
}

impl Default for PlanSettings {
    fn default() -> PlanSettings {
        PlanSettings {
            grouping: Grouping::Grouped,
            element_bytes: 4,
            entry_cost: 20.0,
            closed_denominator: false,
            sparse: None,
            fixed: Vec::new(),
            exact: PlanSettings::EXACT,
            memory: u64::MAX,
        }
    }
}
