//! What a dense pass reads, what it computes, and the work items that it is cut into: plain types that
//! all files of this room share.

use super::geometry::Geometry;
use super::strategy::Evaluation;
use nneinfact_core::data::{Dense, Prepared, Role, Roles};
use nneinfact_core::engine::LossSums;
use nneinfact_core::loss::Tape;
use nneinfact_simd::{Aligned, Elementwise};

/// Which sums a pass computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Wants {
    pub numerator: bool,
    pub denominator: bool,
    pub losses: bool,
}

impl Wants {
    /// Numerator and denominator, and the losses where they are asked for.
    pub fn sums(losses: bool) -> Wants {
        Wants { numerator: true, denominator: true, losses }
    }
}

/// What a pass reads besides the tensors.
pub(crate) struct Source<'a, T> {
    pub data: &'a Prepared,
    /// The roles of all entries; `None` where all are for training.
    pub roles: Option<&'a Roles>,
    /// Whether every datum counts as 0, so that no value is read.
    pub zeros: bool,
    /// The entry parameters of the loss, in the data's order of memory.
    pub entry_parameters: &'a [Dense],
    /// What values are multiplied by as they are read.
    pub scale: T,
    /// ŷ is clamped to at least this.
    pub floor: T,
    /// Computes, in this order, those of `a`, `b` and ℓ that are wanted.
    pub tape: &'a Tape,
    pub wants: Wants,
}

impl<T> Source<'_, T> {
    /// Whether entries have weights, be it only 0 and 1.
    #[inline(always)]
    pub fn weighs(&self) -> bool {
        self.roles.is_some() || self.data.weights().is_some()
    }

    /// Whether the losses of entries withheld for validation are wanted, and of those held out.
    #[inline(always)]
    pub fn withheld(&self) -> [bool; 2] {
        let asked = self.wants.losses && self.roles.is_some();
        let any = |role: Role| asked && self.data.count(role) > 0;
        [any(Role::Validation), any(Role::HeldOut)]
    }
}

/// A pass as all of its threads see it.
#[derive(Clone, Copy)]
pub(crate) struct PassInput<'a, T: Elementwise> {
    pub geometry: &'a Geometry,
    pub source: &'a Source<'a, T>,
    /// The output first, each in the order of its operand in the plan.
    pub tensors: &'a [&'a [T]],
    pub evaluation: Evaluation<T>,
}

/// The sums of a work item over its output tile, in double precision: a block `[row][k]` where the
/// output is among the rows, `[k][column]` where it is among the columns.
#[derive(Default)]
pub(crate) struct PartialSums {
    /// The batch index of the output tile.
    pub batch: usize,
    /// Where the tile begins along the output's side, and its length there.
    pub start: usize,
    pub len: usize,
    pub numerator: Vec<f64>,
    pub denominator: Vec<f64>,
    pub losses: LossSums,
}

/// One output tile times one split of the reduction, as far as it has come.
pub(crate) struct WorkItem<T> {
    pub output_tile: usize,
    /// The first of its reduction units, and how many there are.
    pub units: (usize, usize),
    pub partial: PartialSums,
    /// Running sums of numerator and denominator, in the precision of the pass.
    pub sums: [Aligned<T>; 2],
    /// Tiles whose sums have not moved to double precision yet.
    pub pending: usize,
}
