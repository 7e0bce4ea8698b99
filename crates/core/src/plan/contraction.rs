//! Contractions of a few small tensors, as a sequence of pairwise steps of least work.

use crate::model::{Index, IndexSet, Shapes};

/// An einsum over small tensors, planned as pairwise steps.
///
/// An index of the output that no input has is a broadcast: the result is repeated along it. A
/// index of an input that is not in the output is summed over.
#[derive(Clone, Debug, PartialEq)]
pub struct Contraction {
    inputs: Vec<Vec<Index>>,
    output: Vec<Index>,
    steps: Vec<ContractionStep>,
    flops: f64,
    peak: f64,
}

/// Where a step finds a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContractionInput {
    /// An input of the contraction.
    Input(usize),
    /// The result of an earlier step.
    Step(usize),
}

/// One pairwise contraction: `left · right`, summed over the indices that neither the output nor
/// a later step needs.
#[derive(Clone, Debug, PartialEq)]
pub struct ContractionStep {
    /// The first tensor.
    pub left: ContractionInput,
    /// The second tensor.
    pub right: ContractionInput,
    /// The indices of the result: those shared by both tensors first, then those of the left
    /// tensor, then those of the right, each in the order in which they stand in that tensor.
    pub indices: Vec<Index>,
}

/// Up to this many tensors the order is optimal (dynamic programming over subsets, 3ⁿ steps);
/// above it is greedy.
const EXACT: usize = 9;
/// The same where very many contractions are planned to find out what they would cost.
const EXACT_IN_SEARCH: usize = 5;

impl Contraction {
    /// Plans `inputs -> output`.
    #[must_use]
    pub fn new(shapes: &Shapes, inputs: &[&[Index]], output: &[Index]) -> Contraction {
        Contraction::up_to(EXACT, shapes, inputs, output)
    }

    /// A contraction whose order is found faster, and is optimal for a few inputs only.
    pub(super) fn quick(shapes: &Shapes, inputs: &[&[Index]], output: &[Index]) -> Contraction {
        Contraction::up_to(EXACT_IN_SEARCH, shapes, inputs, output)
    }

    /// Plans `inputs -> output`, with the optimal order up to so many inputs.
    fn up_to(exact: usize, shapes: &Shapes, inputs: &[&[Index]], output: &[Index]) -> Contraction {
        let sets: Vec<IndexSet> = inputs.iter().map(|indices| indices.iter().collect()).collect();
        let out: IndexSet = output.iter().collect();
        let tree = if inputs.len() <= exact {
            optimal(shapes, &sets, out)
        } else {
            greedy(shapes, &sets, out)
        };
        let mut contraction = Contraction {
            inputs: inputs.iter().map(|indices| indices.to_vec()).collect(),
            output: output.to_vec(),
            steps: Vec::new(),
            flops: shapes.volume(out),
            peak: 0.0,
        };
        if let Some(tree) = tree {
            contraction.flatten(shapes, &tree, &sets, out);
        }
        contraction
    }

    /// The indices of each input.
    #[must_use]
    pub fn inputs(&self) -> &[Vec<Index>] {
        &self.inputs
    }

    /// The indices of the result, in its order in memory (the last runs fastest).
    #[must_use]
    pub fn output(&self) -> &[Index] {
        &self.output
    }

    /// The pairwise steps, in order. Empty for a single input, which is only summed and permuted.
    #[must_use]
    pub fn steps(&self) -> &[ContractionStep] {
        &self.steps
    }

    /// Multiply-adds.
    #[must_use]
    pub fn flops(&self) -> f64 {
        self.flops
    }

    /// Entries of the largest tensor in between.
    #[must_use]
    pub fn peak(&self) -> f64 {
        self.peak
    }

    fn indices_of(&self, slot: ContractionInput) -> &[Index] {
        match slot {
            ContractionInput::Input(i) => &self.inputs[i],
            ContractionInput::Step(i) => &self.steps[i].indices,
        }
    }

    /// Appends the steps of `tree` and returns where its result is.
    fn flatten(
        &mut self,
        shapes: &Shapes,
        tree: &Tree,
        sets: &[IndexSet],
        out: IndexSet,
    ) -> ContractionInput {
        let (left, right) = match tree {
            Tree::Leaf(input) => return ContractionInput::Input(*input),
            Tree::Pair(left, right) => (left, right),
        };
        let mut used = vec![false; sets.len()];
        tree.mark_used(&mut used);
        let left = self.flatten(shapes, left, sets, out);
        let right = self.flatten(shapes, right, sets, out);
        let outside = sets.iter().zip(&used).filter(|&(_, &used)| !used);
        let needed = outside.fold(out, |all, (&set, _)| all | set);
        let (l, r) = (self.indices_of(left).to_vec(), self.indices_of(right).to_vec());
        let (l_set, r_set): (IndexSet, IndexSet) = (l.iter().collect(), r.iter().collect());
        let shared = l.iter().filter(|&&x| r_set.contains(x));
        let left_only = l.iter().filter(|&&x| !r_set.contains(x));
        let right_only = r.iter().filter(|&&x| !l_set.contains(x));
        let indices: Vec<Index> = shared
            .chain(left_only)
            .chain(right_only)
            .copied()
            .filter(|&x| needed.contains(x))
            .collect();
        self.flops += shapes.volume(l_set | r_set);
        self.peak = self.peak.max(shapes.volume(indices.iter().collect()));
        self.steps.push(ContractionStep { left, right, indices });
        ContractionInput::Step(self.steps.len() - 1)
    }
}

/// The order of a contraction.
#[derive(Clone, Debug)]
enum Tree {
    Leaf(usize),
    Pair(Box<Tree>, Box<Tree>),
}

impl Tree {
    /// Marks the inputs below this node.
    fn mark_used(&self, used: &mut [bool]) {
        match self {
            Tree::Leaf(input) => used[*input] = true,
            Tree::Pair(left, right) => {
                left.mark_used(used);
                right.mark_used(used);
            }
        }
    }
}

/// The indices that the product of the inputs in `mask` keeps: those that the output or another
/// input has.
fn kept(sets: &[IndexSet], mask: usize, out: IndexSet) -> IndexSet {
    let union = |inside: bool| {
        let chosen = (0..sets.len()).filter(|i| (mask >> i & 1 == 1) == inside);
        chosen.fold(IndexSet::EMPTY, |all, i| all | sets[i])
    };
    union(true) & (out | union(false))
}

/// The tree of least multiply-adds, by dynamic programming over subsets of the inputs.
fn optimal(shapes: &Shapes, sets: &[IndexSet], out: IndexSet) -> Option<Tree> {
    let n = sets.len();
    if n == 0 {
        return None;
    }
    let full = (1usize << n) - 1;
    let indices: Vec<IndexSet> = (0..=full)
        .map(|mask| match mask.count_ones() {
            // A single input has not been summed over anything yet.
            1 => sets[mask.trailing_zeros() as usize],
            _ => kept(sets, mask, out),
        })
        .collect();
    let mut best = vec![(f64::INFINITY, 0usize); full + 1];
    for mask in 1..=full {
        if mask.count_ones() == 1 {
            best[mask] = (0.0, 0);
            continue;
        }
        let low = mask & mask.wrapping_neg();
        let rest = mask ^ low;
        // Every split once: `left` always holds the lowest input.
        let mut sub = rest;
        loop {
            sub = sub.wrapping_sub(1) & rest;
            let left = low | sub;
            let right = mask ^ left;
            let cost = best[left].0 + best[right].0 + shapes.volume(indices[left] | indices[right]);
            if cost < best[mask].0 {
                best[mask] = (cost, left);
            }
            if sub == 0 {
                break;
            }
        }
    }
    fn build(best: &[(f64, usize)], mask: usize) -> Tree {
        if mask.count_ones() == 1 {
            return Tree::Leaf(mask.trailing_zeros() as usize);
        }
        let left = best[mask].1;
        Tree::Pair(Box::new(build(best, left)), Box::new(build(best, mask ^ left)))
    }
    Some(build(&best, full))
}

/// The tree of [`joins`].
fn greedy(shapes: &Shapes, sets: &[IndexSet], out: IndexSet) -> Option<Tree> {
    let mut nodes: Vec<Option<Tree>> = (0..sets.len()).map(|i| Some(Tree::Leaf(i))).collect();
    for (left, right) in joins(shapes, sets, out) {
        let pair = Tree::Pair(Box::new(nodes[left].take()?), Box::new(nodes[right].take()?));
        nodes.push(Some(pair));
    }
    nodes.pop().flatten()
}

/// Joins the pair whose result grows least (in entries, over the pair) until one is left. Inputs are
/// numbered from 0, and results go on from there.
pub(super) fn joins(shapes: &Shapes, sets: &[IndexSet], out: IndexSet) -> Vec<(usize, usize)> {
    let kept = needed_from(sets, out)[0];
    let nodes: Vec<(usize, IndexSet)> =
        sets.iter().enumerate().map(|(i, &set)| (i, set & kept)).collect();
    let mut joining = Joining {
        shapes,
        out,
        volumes: nodes.iter().map(|node| shapes.volume(node.1)).collect(),
        growth: vec![0.0; sets.len() * sets.len()],
        width: sets.len(),
        needed: [IndexSet::EMPTY; 2],
        nodes,
    };
    joining.measure(|_| true);
    let mut joins = Vec::new();
    while joining.nodes.len() > 1 {
        joins.push(joining.join(sets.len() + joins.len()));
    }
    joins
}

/// Tensors that are being joined.
struct Joining<'a> {
    shapes: &'a Shapes,
    out: IndexSet,
    /// With the number of each its indices that the output or another one has.
    nodes: Vec<(usize, IndexSet)>,
    volumes: Vec<f64>,
    /// By how many entries the result of a pair is larger than the pair: in row i, column j > i.
    growth: Vec<f64>,
    width: usize,
    /// As [`needed_from`] has it.
    needed: [IndexSet; 2],
}

impl Joining<'_> {
    fn joined(&self, i: usize, j: usize) -> IndexSet {
        let (a, b) = (self.nodes[i].1, self.nodes[j].1);
        let both = a & b;
        (both & self.needed[1]) | (((a | b) - both) & self.needed[0])
    }

    /// Finds out what nodes have to keep now, and how much pairs grow: those of which one is `new`, and
    /// those for which something else is to be kept than before.
    fn measure(&mut self, new: impl Fn(usize) -> bool) {
        let sets: Vec<IndexSet> = self.nodes.iter().map(|node| node.1).collect();
        let before = std::mem::replace(&mut self.needed, needed_from(&sets, self.out));
        let changed = before
            .iter()
            .zip(&self.needed)
            .fold(IndexSet::EMPTY, |all, (&old, &new)| all | (old - new) | (new - old));
        for (i, one) in sets.iter().enumerate() {
            let whole = new(i) || one.intersects(changed);
            for (j, other) in sets.iter().enumerate().skip(i + 1) {
                if whole || new(j) || other.intersects(changed) {
                    let joined = self.shapes.volume(self.joined(i, j));
                    self.growth[i * self.width + j] = joined - self.volumes[i] - self.volumes[j];
                }
            }
        }
    }

    /// Joins the pair that grows least; the result gets this number.
    fn join(&mut self, number: usize) -> (usize, usize) {
        let mut best = (f64::INFINITY, 0, 1);
        for i in 0..self.nodes.len() {
            let row = &self.growth[i * self.width..][..self.nodes.len()];
            for (j, &growth) in row.iter().enumerate().skip(i + 1) {
                if growth < best.0 {
                    best = (growth, i, j);
                }
            }
        }
        let (_, i, j) = best;
        let pair = (self.nodes[i].0, self.nodes[j].0);
        let joined = self.joined(i, j);
        self.nodes[i] = (number, joined);
        self.volumes[i] = self.shapes.volume(joined);
        // The last one takes the second's place.
        self.nodes.swap_remove(j);
        self.volumes.swap_remove(j);
        self.measure(|k| k == i || k == j);
        pair
    }
}

/// The indices that one node of a product has to keep, and those that two have to keep when they
/// are joined: indices of the output, and those that at least two, or at least three, of the nodes
/// have.
fn needed_from(nodes: &[IndexSet], out: IndexSet) -> [IndexSet; 2] {
    let (mut one, mut two, mut three) = (IndexSet::EMPTY, IndexSet::EMPTY, IndexSet::EMPTY);
    for &set in nodes {
        three = three | (two & set);
        two = two | (one & set);
        one = one | set;
    }
    [out | two, out | three]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    fn indices(text: &str) -> Vec<Index> {
        text.chars().filter_map(Index::new).collect()
    }

    #[test]
    fn the_cheapest_order_is_found() {
        // (ab)(bc)(cd): with a small and d large, left to right is best.
        let model = Model::parse("ab,bc,cd->ad").unwrap();
        let shapes = Shapes::new(&model, &[2, 1000], &[('b', 50), ('c', 50)]).unwrap();
        let (ab, bc, cd) = (indices("ab"), indices("bc"), indices("cd"));
        let plan = Contraction::new(&shapes, &[&ab, &bc, &cd], &indices("ad"));
        assert_eq!(plan.steps().len(), 2);
        assert_eq!(plan.steps()[0].indices, indices("ac"));
        assert_eq!(plan.flops(), 2.0 * 50.0 * 50.0 + 2.0 * 50.0 * 1000.0 + 2000.0);
    }

    #[test]
    fn many_inputs_are_joined_greedily_and_completely() {
        let text = (0..12).map(|i| format!("{}z", char::from(b'a' + i))).collect::<Vec<_>>();
        let model = Model::parse(&format!("{}->abcdefghijkl", text.join(","))).unwrap();
        let shapes = Shapes::new(&model, &[2; 12], &[('z', 3)]).unwrap();
        let inputs: Vec<Vec<Index>> = text.iter().map(|t| indices(t)).collect();
        let views: Vec<&[Index]> = inputs.iter().map(Vec::as_slice).collect();
        let plan = Contraction::new(&shapes, &views, &indices("z"));
        assert_eq!(plan.steps().len(), 11);
        assert_eq!(plan.steps()[10].indices, indices("z"));
    }

    #[test]
    fn more_inputs_than_a_model_has_factors_are_told_apart() {
        // 70 vectors along two indices, alternating: one index is summed over, the other is kept.
        let model = Model::parse("ar,b->ab").unwrap();
        let shapes = Shapes::new(&model, &[5, 7], &[('r', 3)]).unwrap();
        let (a, b) = (indices("a"), indices("b"));
        let views: Vec<&[Index]> =
            (0..70).map(|i| if i % 2 == 0 { a.as_slice() } else { b.as_slice() }).collect();
        let plan = Contraction::new(&shapes, &views, &b);
        assert_eq!(plan.steps().len(), 69);
        // Every input and every step but the last is used once.
        let mut used = vec![0; 70 + 69];
        for step in plan.steps() {
            for slot in [step.left, step.right] {
                match slot {
                    ContractionInput::Input(i) => used[i] += 1,
                    ContractionInput::Step(i) => used[70 + i] += 1,
                }
            }
        }
        assert!(used[..138].iter().all(|&n| n == 1) && used[138] == 0);
        assert_eq!(plan.steps()[68].indices, b);
        // No sum over an index comes before its last input: what is left of `a` until then has it.
        let with_a = plan.steps().iter().filter(|step| step.indices.contains(&a[0])).count();
        assert!((33..=35).contains(&with_a), "{with_a}");
    }
}
