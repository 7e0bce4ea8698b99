//! Products of factors that the plan stores (Khatri–Rao tables and the like): which passes read
//! them, and where they lie.

use std::collections::{HashMap, HashSet};

use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::plan::Plan;

/// A stored product, by its factors and the order of its indices.
pub(crate) type ProductKey = (Vec<usize>, Vec<Index>);

/// Products that are up to date.
pub(crate) type FreshProducts = HashSet<ProductKey>;

/// The products that the passes of a group read.
fn read_by(plan: &Plan, group: usize) -> Vec<ProductKey> {
    let mut keys = Vec::new();
    if let Some(pass) = plan.sparse_passes().get(group) {
        let tables = std::iter::once(&pass.output).chain(&pass.operands);
        keys.extend(tables.map(|t| (t.factors.clone(), t.contraction.output().to_vec())));
    }
    if let Some(pass) = plan.passes().get(group) {
        let operands = std::iter::once(&pass.output).chain(&pass.operands);
        keys.extend(operands.map(|o| (o.factors.clone(), o.indices.clone())));
    }
    keys
}

/// The indices of a group's numerator and denominator, in their order in memory.
pub(crate) fn sums_indices(plan: &Plan, group: usize) -> &[Index] {
    match plan.sparse_passes().get(group) {
        Some(pass) => &pass.indices,
        None => &plan.passes()[group].output.indices,
    }
}

/// Where stored products lie in their buffer.
pub(crate) enum ProductLayout {
    /// Each has a place of its own, and stays for the passes after the one that formed it.
    Lasting { places: HashMap<ProductKey, usize>, words: usize },
    /// All together do not fit: each pass lays out its own from the beginning of the buffer.
    Shared { words: usize },
}

impl ProductLayout {
    /// Places of their own where these fit a binding.
    pub fn new(plan: &Plan, binding_bytes: u64) -> ProductLayout {
        let shapes = plan.shapes();
        let groups = 0..plan.groups().len();
        let mut places: HashMap<ProductKey, usize> = HashMap::new();
        let mut words = 0;
        for key in groups.clone().flat_map(|group| read_by(plan, group)) {
            let size = volume(shapes, &key.1);
            places.entry(key).or_insert_with(|| {
                words += size;
                words - size
            });
        }
        if 4 * words as u64 <= binding_bytes {
            return ProductLayout::Lasting { places, words };
        }
        let taken = |group| read_by(plan, group).iter().map(|key| volume(shapes, &key.1)).sum();
        ProductLayout::Shared { words: groups.map(taken).max().unwrap_or(0) }
    }

    /// The words of the buffer.
    pub fn words(&self) -> usize {
        match self {
            ProductLayout::Lasting { words, .. } | ProductLayout::Shared { words } => *words,
        }
    }

    /// Whether products outlive the pass that formed them.
    pub fn lasts(&self) -> bool {
        matches!(self, ProductLayout::Lasting { .. })
    }

    /// Where a product begins for the passes of a group.
    pub fn place(&self, plan: &Plan, group: usize, key: &ProductKey) -> usize {
        match self {
            ProductLayout::Lasting { places, .. } => places[key],
            ProductLayout::Shared { .. } => read_by(plan, group)
                .iter()
                .take_while(|other| *other != key)
                .map(|other| volume(plan.shapes(), &other.1))
                .sum(),
        }
    }
}

fn volume(shapes: &Shapes, indices: &[Index]) -> usize {
    shapes.sizes(indices).iter().product()
}
