//! The largest entries of ŷ where no factor has more than one mode: best first over trees of the indices of
//! each mode.
//!
//! A node of a tree has what no entry of a factor is above at any of its indices, so that ŷ at a node of each
//! mode is a bound of ŷ at all indices inside: the bound of the nodes that is highest is looked into first.
//! Where every node is a single index the bound is ŷ itself, by the same operations in the same order.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::ops::Range;

use super::FactoredTensor;
use super::sum_of_products::{Factor, SumOfProducts};
use super::top::{LargestEntry, Unfinished};
use nneinfact_core::model::Index;

/// Indices of a mode below which a node is not split in two.
const BUCKET: usize = 16;
/// A node that is an index itself has this bit.
const SINGLE: u32 = 1 << 31;

/// The indices of a mode, with the entries of the factors that have it.
struct Tree {
    /// The number of entries of all these factors at one index.
    width: usize,
    /// For every index these entries.
    rows: Vec<f64>,
    /// The indices, those of a node one after another.
    order: Vec<u32>,
    nodes: Vec<TreeNode>,
    /// For every node the largest of its rows, entry by entry.
    tops: Vec<f64>,
}

/// Some indices of a mode.
struct TreeNode {
    start: u32,
    end: u32,
    /// The first of its two halves, after which the other one comes; `None` where it is not split.
    halves: Option<u32>,
}

/// A tensor whose largest entries are looked for.
pub(super) struct TreeSearch {
    trees: Vec<Tree>,
    /// ŷ, in terms of a row of every mode.
    sum: SumOfProducts,
    /// Of every factor that has a mode, the mode, and where in its rows the factor's entries are.
    columns: Vec<(usize, Range<usize>)>,
}

/// A node of each mode.
struct Partial {
    bound: f64,
    /// How many entries there are inside.
    volume: f64,
    nodes: Box<[u32]>,
}

impl PartialEq for Partial {
    fn eq(&self, other: &Partial) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Partial {}

impl PartialOrd for Partial {
    fn partial_cmp(&self, other: &Partial) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Partial {
    /// By the bound; of the same bound the smaller part comes first.
    fn cmp(&self, other: &Partial) -> Ordering {
        self.bound
            .total_cmp(&other.bound)
            .then(other.volume.total_cmp(&self.volume))
            .then_with(|| other.nodes.cmp(&self.nodes))
    }
}

/// Numbers in their order.
#[derive(PartialEq)]
struct Ordered(f64);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Ordered) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Ordered) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl TreeSearch {
    /// `None` where a factor has several modes, or ŷ takes very many multiplications.
    pub fn new(of: &FactoredTensor) -> Option<TreeSearch> {
        let model = of.model();
        let latent: Vec<Index> = model.latent().iter().collect();
        let mode_of = |names: &[Index]| -> Option<Option<usize>> {
            let mut modes = model.output().iter().enumerate().filter(|(_, x)| names.contains(x));
            match (modes.next(), modes.next()) {
                (first, None) => Some(first.map(|(mode, _)| mode)),
                (_, Some(_)) => None,
            }
        };
        let parts = of.parts();
        let modes: Option<Vec<Option<usize>>> =
            parts.iter().map(|(names, _)| mode_of(names)).collect();
        let modes = modes?;
        if model.output().iter().any(|&x| of.shapes.size(x) >= SINGLE as usize) {
            return None;
        }
        let mut widths = vec![0; model.output().len()];
        let mut columns: Vec<(usize, usize, usize)> = Vec::new();
        let mut factors = Vec::new();
        for (part, ((names, array), mode)) in parts.iter().zip(&modes).enumerate() {
            let own = latent_of(names, &latent);
            match *mode {
                Some(mode) => {
                    let size: usize = of.shapes.sizes(&own).iter().product();
                    columns.push((part, mode, widths[mode]));
                    factors.push(Factor::Row(own, mode, widths[mode]));
                    widths[mode] += size;
                }
                None => factors.push(Factor::Constant(own, array.iter().copied().collect())),
            }
        }
        let sum = SumOfProducts::new(&of.shapes, &latent, factors)?;
        let width = |part: usize| -> usize {
            of.shapes.sizes(&latent_of(&parts[part].0, &latent)).iter().product()
        };
        let places = columns.iter().map(|&(part, mode, first)| (mode, first..first + width(part)));
        let mut search = TreeSearch { trees: Vec::new(), sum, columns: places.collect() };
        for (mode, (&index, &width)) in model.output().iter().zip(&widths).enumerate() {
            let count = of.shapes.size(index);
            let mut rows = vec![0.0; count * width];
            for &(part, _, first) in columns.iter().filter(|(_, own, _)| *own == mode) {
                let (names, array) = &parts[part];
                let mut order: Vec<usize> = (0..names.len()).collect();
                // The mode's axis first, its latent indices in their order.
                order.sort_by_key(|&axis| (names[axis] != index, axis));
                let turned = array.view().permuted_axes(order);
                let own = turned.len() / count.max(1);
                for (n, &x) in turned.iter().enumerate() {
                    rows[n / own * width + first + n % own] = x;
                }
            }
            search.trees.push(Tree::leaf(width, rows, count));
        }
        for mode in 0..search.trees.len() {
            let weights = search.weights(mode);
            search.trees[mode].grow(&weights);
        }
        Some(search)
    }

    /// The `count` largest entries, the largest first; an error where more parts than `kept` would be open.
    pub fn largest(&self, count: usize, kept: usize) -> Result<Vec<LargestEntry>, Unfinished> {
        let mut found = Vec::new();
        // The largest single entries so far: what is below all of them is not among the largest.
        let mut best: BinaryHeap<Reverse<Ordered>> = BinaryHeap::new();
        let mut open = BinaryHeap::new();
        open.push(self.partial(vec![0; self.trees.len()]));
        while found.len() < count
            && let Some(Partial { bound, nodes, .. }) = open.pop()
        {
            if nodes.iter().all(|node| node & SINGLE != 0) {
                let index = nodes.iter().map(|node| (node & !SINGLE) as usize).collect();
                found.push(LargestEntry { index, value: bound });
                continue;
            }
            for part in self.split(&nodes) {
                let least = best.peek().filter(|_| best.len() >= count);
                if least.is_some_and(|least| part.bound <= least.0.0) {
                    continue;
                }
                if part.volume == 1.0 && part.nodes.iter().all(|node| node & SINGLE != 0) {
                    best.push(Reverse(Ordered(part.bound)));
                    if best.len() > count {
                        best.pop();
                    }
                }
                open.push(part);
            }
            if open.len() > kept {
                let single = best.iter().map(|entry| entry.0.0).max_by(f64::total_cmp);
                let first = found.first().map(|entry| entry.value);
                return Err(Unfinished { found: first.or(single), bound: first.unwrap_or(bound) });
            }
        }
        Ok(found)
    }

    /// A part of the tensor as smaller ones: along the mode that brings the bound down most.
    fn split(&self, nodes: &[u32]) -> Vec<Partial> {
        let mut best: Option<(f64, Vec<Partial>)> = None;
        for (mode, &node) in nodes.iter().enumerate().filter(|(_, node)| *node & SINGLE == 0) {
            let parts: Vec<Partial> = self.trees[mode]
                .inside(node)
                .into_iter()
                .map(|inside| {
                    let mut nodes = nodes.to_vec();
                    nodes[mode] = inside;
                    self.partial(nodes)
                })
                .collect();
            let most = parts.iter().map(|part| part.bound).fold(0.0, f64::max);
            if best.as_ref().is_none_or(|(least, _)| most < *least) {
                best = Some((most, parts));
            }
        }
        best.map(|(_, parts)| parts).unwrap_or_default()
    }

    fn partial(&self, nodes: Vec<u32>) -> Partial {
        let rows: Vec<&[f64]> =
            nodes.iter().zip(&self.trees).map(|(&node, tree)| tree.row(node)).collect();
        let volume =
            nodes.iter().zip(&self.trees).map(|(&node, tree)| tree.count(node) as f64).product();
        Partial { bound: self.sum.value(&rows), volume, nodes: nodes.into() }
    }

    /// How much each entry of a row of a mode counts where all others are as large as they get.
    fn weights(&self, mode: usize) -> Vec<f64> {
        let tops: Vec<&[f64]> = self.trees.iter().map(|tree| tree.row(0)).collect();
        let mut weights = vec![0.0; self.trees[mode].width];
        for (_, places) in self.columns.iter().filter(|(own, _)| *own == mode) {
            let mut own = tops[mode].to_vec();
            own[places.clone()].fill(0.0);
            for place in places.clone() {
                own[place] = 1.0;
                let mut rows = tops.clone();
                rows[mode] = &own;
                weights[place] = self.sum.value(&rows);
                own[place] = 0.0;
            }
        }
        weights
    }
}

impl Tree {
    /// All indices in one node.
    fn leaf(width: usize, rows: Vec<f64>, count: usize) -> Tree {
        let order: Vec<u32> = (0..count as u32).collect();
        let mut tree = Tree { width, rows, order, nodes: Vec::new(), tops: Vec::new() };
        tree.push(0, count as u32);
        tree
    }

    /// One more node, with the largest of its rows.
    fn push(&mut self, start: u32, end: u32) {
        let first = self.tops.len();
        self.tops.resize(first + self.width, 0.0);
        for &index in &self.order[start as usize..end as usize] {
            let row = &self.rows[index as usize * self.width..][..self.width];
            self.tops[first..].iter_mut().zip(row).for_each(|(top, &x)| *top = top.max(x));
        }
        self.nodes.push(TreeNode { start, end, halves: None });
    }

    /// Splits nodes until they are small: where the entry that counts most is in the middle between its
    /// least and its largest, so that the few large ones are by themselves.
    fn grow(&mut self, weights: &[f64]) {
        let mut node = 0;
        while node < self.nodes.len() {
            let (start, end) = (self.nodes[node].start as usize, self.nodes[node].end as usize);
            if end - start > BUCKET {
                let (rows, width) = (&self.rows, self.width);
                let indices = &mut self.order[start..end];
                let at = |index: u32, c: usize| rows[index as usize * width + c];
                let least: Vec<f64> = (0..width)
                    .map(|c| indices.iter().map(|&i| at(i, c)).fold(f64::INFINITY, f64::min))
                    .collect();
                let tops = &self.tops[node * width..][..width];
                let spread = |c: &usize| weights[*c] * (tops[*c] - least[*c]);
                let widest = (0..width).max_by(|a, b| spread(a).total_cmp(&spread(b)));
                let mut middle = 0;
                if let Some(c) = widest {
                    let pivot = 0.5 * (tops[c] + least[c]);
                    for n in 0..indices.len() {
                        if at(indices[n], c) > pivot {
                            indices.swap(n, middle);
                            middle += 1;
                        }
                    }
                }
                if middle == 0 || middle == end - start {
                    middle = (end - start) / 2;
                }
                let middle = (start + middle) as u32;
                self.nodes[node].halves = Some(self.nodes.len() as u32);
                self.push(start as u32, middle);
                self.push(middle, end as u32);
            }
            node += 1;
        }
    }

    /// The parts of a node: its halves, or its indices.
    fn inside(&self, node: u32) -> Vec<u32> {
        let TreeNode { start, end, halves } = self.nodes[node as usize];
        match halves {
            Some(first) => vec![first, first + 1],
            None => self.order[start as usize..end as usize].iter().map(|i| i | SINGLE).collect(),
        }
    }

    fn row(&self, node: u32) -> &[f64] {
        match node & SINGLE {
            0 => &self.tops[node as usize * self.width..][..self.width],
            _ => &self.rows[(node & !SINGLE) as usize * self.width..][..self.width],
        }
    }

    fn count(&self, node: u32) -> u32 {
        match node & SINGLE {
            0 => self.nodes[node as usize].end - self.nodes[node as usize].start,
            _ => 1,
        }
    }
}

/// The latent indices among these, in their order.
fn latent_of(names: &[Index], latent: &[Index]) -> Vec<Index> {
    names.iter().filter(|x| latent.contains(x)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::ArrayD;

    /// Entries between 0 and 1, most of them small.
    fn skewed(shape: &[usize], seed: usize) -> ArrayD<f64> {
        let mut state = seed as u64 + 1;
        ArrayD::from_shape_simple_fn(shape.to_vec(), || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as f64 / (1u64 << 31) as f64).powi(6)
        })
    }

    #[test]
    fn the_largest_are_those_of_all_entries() {
        let models: [(&str, &[&[usize]]); 4] = [
            ("ir,jr,kr->ijk", &[&[60, 4], &[45, 4], &[70, 4]]),
            ("ia,ajb,bk->ijk", &[&[50, 3], &[3, 40, 4], &[4, 33]]),
            ("ia,jb,kc,abc->kij", &[&[40, 2], &[37, 3], &[41, 2], &[2, 3, 2]]),
            ("hr,hs,ir,s->hi", &[&[90, 3], &[90, 2], &[80, 3], &[2]]),
        ];
        for (text, shapes) in models {
            let factors: Vec<ArrayD<f64>> =
                shapes.iter().enumerate().map(|(n, shape)| skewed(shape, n)).collect();
            let y = FactoredTensor::from_parts(text, factors, None).unwrap();
            let whole = y.reconstruct().unwrap();
            let mut expected: Vec<f64> = whole.iter().copied().collect();
            expected.sort_by(|a, b| b.total_cmp(a));
            let search = TreeSearch::new(&y).unwrap();
            for count in [1, 10, 500] {
                let found = search.largest(count, 1 << 20).unwrap();
                assert_eq!(found.len(), count);
                for (entry, &value) in found.iter().zip(&expected) {
                    assert!((entry.value - value).abs() <= 1e-12 * value, "{text} {count}");
                    let own = whole[entry.index.as_slice()];
                    assert!((entry.value - own).abs() <= 1e-12 * own, "{text} {count}");
                }
            }
            let unfinished = search.largest(500, 3).unwrap_err();
            assert!(unfinished.bound >= expected[0] * (1.0 - 1e-12), "{text}");
        }
    }

    #[test]
    fn entries_that_are_all_the_same_are_found_once_each() {
        let ones = |n: usize| ArrayD::from_elem(vec![n], 1.0);
        let y = FactoredTensor::from_parts("i,j->ij", vec![ones(40), ones(50)], None).unwrap();
        let found = TreeSearch::new(&y).unwrap().largest(1990, 1 << 20).unwrap();
        let mut indices: Vec<Vec<usize>> = found.into_iter().map(|entry| entry.index).collect();
        indices.sort();
        indices.dedup();
        assert_eq!(indices.len(), 1990);
    }

    #[test]
    fn models_with_two_modes_in_a_factor_are_for_another_search() {
        let y = FactoredTensor::from_parts(
            "ijr,kr->ijk",
            vec![skewed(&[3, 4, 2], 0), skewed(&[5, 2], 1)],
            None,
        );
        assert!(TreeSearch::new(&y.unwrap()).is_none());
    }
}
