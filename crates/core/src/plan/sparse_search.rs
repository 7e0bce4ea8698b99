//! The search for the cheapest sparse passes.

use super::search::{Search, members};
use super::sparse::{Gram, KhatriRaoTable, SparseInfo, SparsePass};
use super::{Contraction, cost};
use crate::model::{Index, IndexSet};

/// A sparse pass as the search compares it.
#[derive(Clone, Debug)]
pub(super) struct SparseCandidate {
    operands: Vec<u64>,
    contracted: IndexSet,
    flops: f64,
    contraction_flops: f64,
    pub cost: f64,
}

/// Rows are padded to whole vectors of the widest instruction set.
pub(super) fn padded(contracted: f64, element_bytes: usize) -> f64 {
    let lanes = 64.0 / element_bytes as f64;
    (contracted / lanes).ceil() * lanes
}

/// How often numbers along all rows of an output are written or read where it is a product: the product, its
/// largest entry and its copy in the precision of the pass, the sums set to zero, added to and scaled, and the
/// first contraction of each.
const PASSES_OVER_SUMS: f64 = 8.0;

/// Indices of rows are kept in 32 bits.
const MOST_ROWS: f64 = 4_294_967_295.0;

impl Search<'_> {
    /// The cheapest sparse pass for a group, or `None` where none stays within memory.
    pub(super) fn sparse(&mut self, group: u64, info: SparseInfo) -> Option<SparseCandidate> {
        if let Some(found) = self.sparse.get(&group) {
            return found.clone();
        }
        let mut best = None;
        let update_flops = self.update_flops(group);
        let mut partitions = Vec::new();
        let others = members(self.full & !group);
        if others.len() > self.most_others() && !others.is_empty() {
            partitions = self.coarse(group);
            partitions.extend(self.fine(group));
        } else if others.len() <= 5 {
            every_partition(&others, &mut Vec::new(), &mut partitions);
        } else {
            // Neighbours merged into runs, which keeps their number quadratic.
            let singles: Vec<u64> = others.iter().map(|&l| 1 << l).collect();
            partitions.push(singles.clone());
            partitions.push(vec![self.full & !group]);
            for first in 0..singles.len() {
                for last in first + 1..singles.len() {
                    let merged = singles[first..=last].iter().fold(0, |a, b| a | b);
                    let rest = singles[..first].iter().chain(&singles[last + 1..]).copied();
                    partitions.push(std::iter::once(merged).chain(rest).collect());
                    let after = singles[last + 1..].iter().fold(0, |a, b| a | b);
                    let before = singles[..first].iter().fold(0, |a, b| a | b);
                    let parts = [before, merged, after].into_iter().filter(|&m| m != 0);
                    partitions.push(parts.collect());
                }
            }
        }
        for operands in partitions {
            self.consider_sparse(group, &operands, update_flops, info, &mut best);
        }
        self.sparse.insert(group, best.clone());
        best
    }

    fn contracted(&self, group: u64, operands: &[u64]) -> IndexSet {
        operands.iter().fold(self.kept(group), |acc, &o| acc | self.kept(o))
            - self.shapes.model().observed()
    }

    /// The rows of the table of some factors' product.
    fn rows(&self, mask: u64) -> f64 {
        self.shapes.volume(self.kept(mask) & self.shapes.model().observed())
    }

    /// Bytes of the tables and of numerator and denominator.
    fn sparse_memory(&self, group: u64, operands: &[u64], contracted: IndexSet) -> f64 {
        let row = padded(self.shapes.volume(contracted), self.settings.element_bytes)
            * self.settings.element_bytes as f64;
        // Also a copy in double precision while they are formed.
        let both = row + self.shapes.volume(contracted) * 8.0;
        let tables = operands.iter().map(|&o| self.rows(o)).sum::<f64>() + self.rows(group);
        tables * both + self.accumulators(self.kept(group))
    }

    /// The least memory that a sparse pass for `group` is known to do with.
    pub(super) fn least_sparse_memory(&self, group: u64) -> u64 {
        let mut partitions = Vec::new();
        let others = members(self.full & !group);
        if others.len() <= 5 {
            every_partition(&others, &mut Vec::new(), &mut partitions);
        } else if others.len() > self.most_others() {
            partitions = self.coarse(group);
            partitions.extend(self.fine(group));
        }
        partitions.push(others.iter().map(|&l| 1 << l).collect());
        let memory = |o: &Vec<u64>| self.sparse_memory(group, o, self.contracted(group, o));
        partitions.iter().map(memory).fold(f64::INFINITY, f64::min) as u64
    }

    fn consider_sparse(
        &mut self,
        group: u64,
        operands: &[u64],
        update_flops: f64,
        info: SparseInfo,
        best: &mut Option<SparseCandidate>,
    ) {
        let contracted = self.contracted(group, operands);
        let fits = self.sparse_memory(group, operands, contracted) <= self.settings.memory as f64;
        let numbered = operands.iter().chain([&group]).all(|&o| self.rows(o) <= MOST_ROWS);
        if !fits || !numbered {
            return;
        }
        let size = self.shapes.volume(contracted);
        let tables: Vec<f64> = operands
            .iter()
            .map(|&o| self.rows(o) * padded(size, self.settings.element_bytes))
            .map(|entries| entries * self.settings.element_bytes as f64)
            .collect();
        let expanded: f64 = tables.iter().sum::<f64>()
            + self.rows(group) * padded(size, self.settings.element_bytes) * 4.0;
        // The output's product in double precision, and the sums beside it, are written and read again.
        let formed = match group.count_ones() {
            1 => 0.0,
            _ => PASSES_OVER_SUMS * 8.0 * self.rows(group) * size,
        };
        let contraction_flops = update_flops
            + self.product_flops(group)
            + operands.iter().map(|&o| self.product_flops(o)).sum::<f64>();
        let entries = info.stored as f64 + 3.0 * info.masked as f64;
        let flops = entries * size * (operands.len() + 1) as f64;
        let cost = cost::contraction(contraction_flops)
            + cost::tables(expanded + formed)
            + entries * cost::sparse(self.settings, size, &tables);
        if best.as_ref().is_none_or(|b| cost < b.cost) {
            *best = Some(SparseCandidate {
                operands: operands.to_vec(),
                contracted,
                flops,
                contraction_flops,
                cost,
            });
        }
    }

    /// The pass as the plan holds it.
    pub(super) fn sparse_pass(&self, group: u64, chosen: &SparseCandidate) -> SparsePass {
        let shapes = self.shapes;
        let contracted: Vec<Index> = chosen.contracted.iter().collect();
        let table = |factors: u64| {
            let kept = self.kept(factors);
            let output = shapes.model().output();
            let rows: Vec<Index> = output.iter().copied().filter(|&x| kept.contains(x)).collect();
            let form = self.product(factors, &[rows.as_slice(), &contracted].concat());
            KhatriRaoTable { factors: members(factors), rows, contraction: form }
        };
        let output = table(group);
        let kept = self.kept(group);
        let mut indices = output.rows.clone();
        indices.extend(contracted.iter().filter(|&&x| kept.contains(x)));
        // A model of one factor has no others: their product is 1.
        let operands: Vec<KhatriRaoTable> = match chosen.operands.is_empty() {
            true => vec![table(0)],
            false => chosen.operands.iter().map(|&o| table(o)).collect(),
        };
        let others = members(self.full & !group);
        let has = self.union(self.full & !group);
        let onto: Vec<Index> = indices.iter().copied().filter(|&x| has.contains(x)).collect();
        let (mut contraction_flops, mut cost) = (chosen.contraction_flops, chosen.cost);
        if !self.thorough {
            // The search had estimates.
            let formed = |mask: u64| {
                let kept: Vec<Index> = self.kept(mask).iter().collect();
                self.product(mask, &kept).flops()
            };
            let kept: Vec<Index> = kept.iter().collect();
            let exact = self.updates(group, &kept).iter().map(Contraction::flops).sum::<f64>()
                + chosen.operands.iter().chain([&group]).map(|&o| formed(o)).sum::<f64>();
            cost += cost::contraction(exact) - cost::contraction(contraction_flops);
            contraction_flops = exact;
        }
        SparsePass {
            closed: self.product(self.full & !group, &onto),
            closed_updates: self.updates(group, &onto),
            gram: Gram::new(shapes, &others, &indices),
            output,
            operands,
            contracted,
            indices,
            others,
            entry_bytes: self.entry_bytes(group, &chosen.operands),
            flops: chosen.flops,
            contraction_flops,
            cost,
        }
    }

    /// Bytes of the stored entries in the order of a pass: see [`SparsePass::entry_bytes`].
    pub(super) fn entry_bytes(&self, group: u64, operands: &[u64]) -> f64 {
        let index = |rows: f64| match rows {
            n if n <= 256.0 => 1.0,
            n if n <= 65_536.0 => 2.0,
            _ => 4.0,
        };
        let indices: f64 = operands.iter().chain([&group]).map(|&o| index(self.rows(o))).sum();
        let train = indices + self.settings.element_bytes as f64;
        // Masked entries are in double precision, each with its role.
        let masked = 4.0 * operands.len() as f64 + 9.0;
        let bytes = |info: SparseInfo| info.stored as f64 * train + info.masked as f64 * masked;
        self.settings.sparse.map_or(0.0, bytes)
    }

    /// Bytes that the sparse passes keep: the largest of them, as each forms its tables anew.
    pub(super) fn sparse_bytes(&self, group: u64, chosen: &SparseCandidate) -> f64 {
        self.sparse_memory(group, &chosen.operands, chosen.contracted)
    }
}

fn every_partition(rest: &[usize], operands: &mut Vec<u64>, found: &mut Vec<Vec<u64>>) {
    let Some((&first, rest)) = rest.split_first() else {
        found.push(operands.clone());
        return;
    };
    for i in 0..operands.len() {
        operands[i] |= 1 << first;
        every_partition(rest, operands, found);
        operands[i] &= !(1 << first);
    }
    operands.push(1 << first);
    every_partition(rest, operands, found);
    operands.pop();
}
