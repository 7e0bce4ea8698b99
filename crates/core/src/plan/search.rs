//! The search for the cheapest plan.

use std::collections::HashMap;

use super::arrange::{self, Arranger};
use super::error::PlanError;
use super::input::{DataInfo, Grouping, PlanSettings};
use super::layout::{Layout, Operand, OperandSide};
use super::sparse::{ImplicitForm, ImplicitTotals, SparsePass};
use super::sparse_search::SparseCandidate;
use super::value::{Group, Pass, Plan};
use super::{Contraction, cost, large};
use crate::model::{Index, IndexSet, Shapes};

impl Plan {
    /// Finds the cheapest plan within the memory bound.
    ///
    /// # Errors
    /// [`PlanError::Memory`] where no plan stays within `settings.memory`;
    /// [`PlanError::Groups`] where the groups of [`Grouping::Given`] are not a partition of the
    /// factors that are not fixed, or all are.
    pub fn new(
        shapes: &Shapes,
        data: &DataInfo,
        settings: &PlanSettings,
    ) -> Result<Plan, PlanError> {
        let mut search = Search::new(shapes, data, settings);
        let count = shapes.model().factors().len();
        let free: Vec<usize> = (0..count).filter(|l| !settings.fixed.contains(l)).collect();
        if free.is_empty() {
            return Err(PlanError::Groups(format!(
                "all factors of {} are fixed: there is nothing to fit",
                shapes.model()
            )));
        }
        let groups: Vec<u64> = match &settings.grouping {
            Grouping::Block => free.iter().map(|l| 1 << l).collect(),
            Grouping::Given(groups) => given(groups, &free, count)?,
            Grouping::Grouped => search.layout_free_partition(&free),
        };
        let refuse = |needed: u64| {
            Err(PlanError::Memory {
                what: format!("the plan for {}", shapes.model()),
                needed,
                available: settings.memory,
                help: "lower the ranks or raise the memory limit".into(),
            })
        };
        let mut dense = Vec::new();
        let mut sparse = Vec::new();
        for &group in &groups {
            if let Some(info) = settings.sparse {
                match search.sparse(group, info) {
                    Some(pass) => sparse.push((group, pass)),
                    None => return refuse(search.least_sparse_memory(group)),
                }
            }
            if search.needs_implicit_zero_pass() {
                match search.pass(group) {
                    Some(pass) => dense.push((group, pass)),
                    None => return refuse(search.least_memory(group)),
                }
            }
        }
        Ok(search.finish(&groups, dense, sparse))
    }
}

fn given(groups: &[Vec<usize>], free: &[usize], count: usize) -> Result<Vec<u64>, PlanError> {
    let mut seen = 0u64;
    let mut masks = Vec::new();
    for group in groups {
        let mut mask = 0u64;
        for &l in group {
            let wrong = match l {
                _ if l >= count => Some("does not exist"),
                _ if !free.contains(&l) => Some("is fixed"),
                _ if (seen | mask) >> l & 1 == 1 => Some("is in it twice"),
                _ => None,
            };
            if let Some(wrong) = wrong {
                return Err(PlanError::Groups(format!(
                    "the groups {groups:?} are not a partition of the factors 0 to {}: factor {l} {wrong}",
                    count - 1,
                )));
            }
            mask |= 1 << l;
        }
        if mask == 0 {
            return Err(PlanError::Groups(format!("the groups {groups:?} hold an empty group")));
        }
        seen |= mask;
        masks.push(mask);
    }
    if seen.count_ones() as usize != free.len() {
        let missing: Vec<usize> = free.iter().copied().filter(|l| seen >> l & 1 == 0).collect();
        return Err(PlanError::Groups(format!(
            "the groups {groups:?} are not a partition of the factors: {missing:?} missing"
        )));
    }
    Ok(masks)
}

/// The factors in a bit set.
pub(super) fn members(mask: u64) -> Vec<usize> {
    each(mask).collect()
}

/// As [`members`], one after another.
fn each(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let next = (mask != 0).then(|| mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(next)
    })
}

/// A pass as the search compares it.
#[derive(Clone, Debug)]
struct Candidate {
    operands: Vec<u64>,
    layout: Layout,
    sides: Vec<OperandSide>,
    flops: f64,
    bytes: f64,
    contraction_flops: f64,
    cost: f64,
}

/// Beyond this many factors all partitions would be too many, whatever the settings say.
const MOST_EXACT: usize = 12;
/// Up to this many factors outside a group all ways to merge them into operands are compared.
const EXACT_OPERANDS: usize = 4;

pub(super) struct Search<'a> {
    pub(super) shapes: &'a Shapes,
    pub(super) settings: &'a PlanSettings,
    arranger: Arranger<'a>,
    pub(super) indices: Vec<IndexSet>,
    pub(super) full: u64,
    /// Up to this many factors everything is compared.
    exact: usize,
    /// Whether the model has no more factors than that.
    pub(super) thorough: bool,
    /// Where it has more: its factors merged two by two, those that grow least first.
    pub(super) merges: Vec<(u64, u64)>,
    forms: HashMap<u64, f64>,
    passes: HashMap<u64, Option<Candidate>>,
    pub(super) sparse: HashMap<u64, Option<SparseCandidate>>,
    /// What the passes of a group cost.
    pub(super) costs: HashMap<u64, f64>,
}

impl<'a> Search<'a> {
    fn new(shapes: &'a Shapes, data: &'a DataInfo, settings: &'a PlanSettings) -> Self {
        let indices: Vec<IndexSet> =
            shapes.model().factors().iter().map(|f| f.iter().collect()).collect();
        let full = if indices.len() == 64 { u64::MAX } else { (1 << indices.len()) - 1 };
        let exact = settings.exact.min(MOST_EXACT);
        let thorough = indices.len() <= exact;
        let merges = if thorough { Vec::new() } else { large::merges(shapes, &indices) };
        let order = data.order(shapes);
        Search {
            shapes,
            settings,
            arranger: Arranger { shapes, data, settings, order, thorough },
            indices,
            full,
            exact,
            thorough,
            merges,
            forms: HashMap::new(),
            passes: HashMap::new(),
            sparse: HashMap::new(),
            costs: HashMap::new(),
        }
    }

    /// Up to this many factors outside a group many ways to merge them are tried; beyond it a few.
    pub(super) fn most_others(&self) -> usize {
        self.exact.saturating_sub(1)
    }

    /// Whether a pass goes over all entries.
    fn needs_implicit_zero_pass(&self) -> bool {
        self.settings.sparse.is_none_or(|s| s.implicit == ImplicitForm::ImplicitZeroPass)
    }

    /// What the passes for a group cost; infinite where they do not fit in memory.
    pub(super) fn group_cost(&mut self, group: u64) -> f64 {
        if let Some(&cost) = self.costs.get(&group) {
            return cost;
        }
        let sparse = match self.settings.sparse {
            Some(info) => self.sparse(group, info).map_or(f64::INFINITY, |c| c.cost),
            None => 0.0,
        };
        let dense = match self.needs_implicit_zero_pass() && sparse.is_finite() {
            true => self.pass(group).map_or(f64::INFINITY, |c| c.cost),
            false => 0.0,
        };
        self.costs.insert(group, sparse + dense);
        sparse + dense
    }

    pub(super) fn union(&self, mask: u64) -> IndexSet {
        each(mask).fold(IndexSet::EMPTY, |acc, l| acc | self.indices[l])
    }

    /// The indices that the product of some factors keeps: observed, or needed by others.
    pub(super) fn kept(&self, mask: u64) -> IndexSet {
        self.union(mask) & (self.shapes.model().observed() | self.union(self.full & !mask))
    }

    pub(super) fn product(&self, mask: u64, output: &[Index]) -> Contraction {
        let factors = self.shapes.model().factors();
        let inputs: Vec<&[Index]> = members(mask).iter().map(|&l| factors[l].as_slice()).collect();
        Contraction::new(self.shapes, &inputs, output)
    }

    /// Multiply-adds of forming the product of some factors.
    pub(super) fn product_flops(&mut self, mask: u64) -> f64 {
        if let Some(&flops) = self.forms.get(&mask) {
            return flops;
        }
        let output: Vec<Index> = self.kept(mask).iter().collect();
        let flops = match self.thorough {
            true => self.product(mask, &output).flops(),
            false => self.quick_product_flops(mask, &output),
        };
        self.forms.insert(mask, flops);
        flops
    }

    pub(super) fn updates(&self, mask: u64, output: &[Index]) -> Vec<Contraction> {
        let factors = self.shapes.model().factors();
        members(mask)
            .into_iter()
            .map(|l| {
                let mut inputs = vec![output];
                inputs.extend(members(mask & !(1 << l)).iter().map(|&m| factors[m].as_slice()));
                Contraction::new(self.shapes, &inputs, &factors[l])
            })
            .collect()
    }

    /// Multiply-adds of bringing one tensor over the indices that a group's product keeps onto each of
    /// its factors.
    pub(super) fn update_flops(&self, group: u64) -> f64 {
        let indices: Vec<Index> = self.kept(group).iter().collect();
        match self.thorough {
            true => self.updates(group, &indices).iter().map(Contraction::flops).sum(),
            false => self.quick_update_flops(group, &indices),
        }
    }

    /// Bytes of a tensor over `indices` stored for passes.
    fn stored(&self, indices: IndexSet) -> f64 {
        self.shapes.volume(indices) * self.settings.element_bytes as f64
    }

    /// Bytes of numerator and denominator (in f64).
    pub(super) fn accumulators(&self, output: IndexSet) -> f64 {
        self.shapes.volume(output) * 16.0
    }

    fn memory(&self, group: u64, operands: &[u64]) -> f64 {
        let output = self.kept(group);
        self.accumulators(output)
            + self.stored(output)
            + operands.iter().map(|&o| self.stored(self.kept(o))).sum::<f64>()
    }

    /// The least memory that a pass for `group` could do with.
    fn least_memory(&self, group: u64) -> u64 {
        let singles: Vec<u64> = members(self.full & !group).iter().map(|l| 1 << l).collect();
        self.memory(group, &singles) as u64
    }

    /// The cheapest pass for a group, or `None` where none stays within memory.
    fn pass(&mut self, group: u64) -> Option<Candidate> {
        if let Some(found) = self.passes.get(&group) {
            return found.clone();
        }
        let output = self.kept(group);
        let mut best = None;
        if self.accumulators(output) + self.stored(output) <= self.settings.memory as f64 {
            let update_flops = 2.0 * self.update_flops(group);
            let others = members(self.full & !group);
            if others.len() > self.most_others() && !others.is_empty() {
                self.few_operands(group, update_flops, &mut best);
            } else if others.len() <= EXACT_OPERANDS {
                let mut operands = Vec::new();
                self.every_partition(group, update_flops, &others, &mut operands, &mut best);
            } else {
                self.greedy_operands(group, update_flops, &others, &mut best);
            }
        }
        self.passes.insert(group, best.clone());
        best
    }

    /// Tries every way to merge `others` into operands.
    fn every_partition(
        &mut self,
        group: u64,
        update_flops: f64,
        others: &[usize],
        operands: &mut Vec<u64>,
        best: &mut Option<Candidate>,
    ) {
        let Some((&first, rest)) = others.split_first() else {
            self.consider(group, update_flops, operands, best);
            return;
        };
        for i in 0..operands.len() {
            operands[i] |= 1 << first;
            self.every_partition(group, update_flops, rest, operands, best);
            operands[i] &= !(1 << first);
        }
        operands.push(1 << first);
        self.every_partition(group, update_flops, rest, operands, best);
        operands.pop();
    }

    /// Tries all merged, none merged, and merging pairs for as long as that helps.
    fn greedy_operands(
        &mut self,
        group: u64,
        update_flops: f64,
        others: &[usize],
        best: &mut Option<Candidate>,
    ) {
        self.consider(group, update_flops, &[self.full & !group], best);
        let mut current: Vec<u64> = others.iter().map(|l| 1 << l).collect();
        let mut least: Option<Candidate> = None;
        self.consider(group, update_flops, &current, &mut least);
        while current.len() > 1 {
            let before = least.as_ref().map_or(f64::INFINITY, |c| c.cost);
            let mut next = None;
            for i in 0..current.len() {
                for j in i + 1..current.len() {
                    let mut merged = current.clone();
                    let second = merged.swap_remove(j);
                    merged[i] |= second;
                    self.consider(group, update_flops, &merged, &mut least);
                    if least.as_ref().is_some_and(|c| c.operands == merged) {
                        next = Some(merged);
                    }
                }
            }
            match next {
                Some(merged) if least.as_ref().is_some_and(|c| c.cost < before) => current = merged,
                _ => break,
            }
        }
        if let Some(least) = least
            && best.as_ref().is_none_or(|b| least.cost < b.cost)
        {
            *best = Some(least);
        }
    }

    /// Tries some ways to merge many factors: those of few operands, and where none of them fits in
    /// memory those of more.
    fn few_operands(&mut self, group: u64, update_flops: f64, best: &mut Option<Candidate>) {
        for operands in self.coarse(group) {
            self.consider(group, update_flops, &operands, best);
        }
        if best.is_none() {
            for operands in self.fine(group) {
                self.consider(group, update_flops, &operands, best);
            }
        }
    }

    fn consider(
        &mut self,
        group: u64,
        update_flops: f64,
        operands: &[u64],
        best: &mut Option<Candidate>,
    ) {
        let operands: Vec<u64> = operands.iter().copied().filter(|&o| o != 0).collect();
        let memory = self.memory(group, &operands);
        if memory > self.settings.memory as f64 {
            return;
        }
        let mut tensors = vec![self.kept(group)];
        tensors.extend(operands.iter().map(|&o| self.kept(o)));
        let contraction_flops = update_flops
            + self.product_flops(group)
            + operands.iter().map(|&o| self.product_flops(o)).sum::<f64>();
        let bound = best.as_ref().map_or(f64::INFINITY, |b| b.cost);
        let fixed = cost::contraction(contraction_flops);
        let contracted = tensors.iter().fold(IndexSet::EMPTY, |acc, &t| acc | t)
            - self.shapes.model().observed();
        if fixed + cost::least(self.shapes, self.settings, contracted) >= bound {
            return;
        }
        let found = arrange::best(&self.arranger, &tensors, bound - fixed);
        if let Some((layout, sides, cost)) = found {
            *best = Some(Candidate {
                operands,
                layout,
                sides,
                flops: cost.flops,
                bytes: cost.bytes,
                contraction_flops,
                cost: cost.seconds + fixed,
            });
        }
    }

    /// [`partition`](Self::partition) for data in C order: what is updated in which order is not to
    /// depend on how the same numbers lie in memory.
    fn layout_free_partition(&mut self, free: &[usize]) -> Vec<u64> {
        let data = self.arranger.data.clone().in_c_order(self.shapes);
        match data == *self.arranger.data {
            true => self.partition(free),
            false => Search::new(self.shapes, &data, self.settings).partition(free),
        }
    }

    /// The partition of the factors whose passes cost least together.
    fn partition(&mut self, free: &[usize]) -> Vec<u64> {
        let mut groups = if free.len() <= self.exact {
            self.exact_partition(free)
        } else {
            self.large_partition(free)
        };
        groups.sort_by_key(|g| g.trailing_zeros());
        groups
    }

    /// Compares all partitions, of bit sets that count the free factors alone.
    fn exact_partition(&mut self, free: &[usize]) -> Vec<u64> {
        let count = free.len();
        let full = (1usize << count) - 1;
        let factors =
            |mask: usize| -> u64 { members(mask as u64).iter().map(|&i| 1 << free[i]).sum() };
        let costs: Vec<f64> = (0..=full)
            .map(|mask| match mask {
                0 => 0.0,
                // One group of all factors would be a single pass, but its surrogate is so loose
                // that it needs many more sweeps.
                _ if mask == full && count > 1 => f64::INFINITY,
                _ => self.group_cost(factors(mask)),
            })
            .collect();
        let mut best = vec![(f64::INFINITY, 0usize); full + 1];
        best[0] = (0.0, 0);
        for mask in 1..=full {
            let low = mask & mask.wrapping_neg();
            let rest = mask ^ low;
            let mut sub = rest;
            loop {
                let group = low | sub;
                let cost = costs[group] + best[mask ^ group].0;
                // Where nothing is within memory, keep single factors: the error names them.
                if cost < best[mask].0 || best[mask].1 == 0 {
                    best[mask] = (cost, if cost.is_finite() { group } else { low });
                }
                if sub == 0 {
                    break;
                }
                sub = (sub - 1) & rest;
            }
        }
        let mut groups = Vec::new();
        let mut mask = full;
        while mask != 0 {
            groups.push(factors(best[mask].1));
            mask ^= best[mask].1;
        }
        groups
    }

    fn finish(
        self,
        masks: &[u64],
        dense: Vec<(u64, Candidate)>,
        sparse: Vec<(u64, SparseCandidate)>,
    ) -> Plan {
        let mut passes = Vec::new();
        let mut memory: HashMap<(u64, Vec<Index>), f64> = HashMap::new();
        let mut accumulators = 0f64;
        for (mask, candidate) in dense {
            let Candidate {
                operands,
                layout,
                sides,
                flops,
                bytes,
                mut contraction_flops,
                mut cost,
                ..
            } = candidate;
            let mut make = |factors: u64, side: OperandSide| {
                let indices = layout.storage(self.kept(factors), side);
                let form = self.product(factors, &indices);
                memory.insert((factors, indices.clone()), self.stored(self.kept(factors)));
                Operand { factors: members(factors), indices, side, contraction: form }
            };
            let output = make(mask, sides[0]);
            let operands: Vec<Operand> =
                operands.iter().zip(&sides[1..]).map(|(&o, &side)| make(o, side)).collect();
            accumulators = accumulators.max(self.accumulators(self.kept(mask)));
            let others = self.full & !mask;
            if !self.thorough {
                // The search had estimates.
                let updates = self.updates(mask, &output.indices);
                let forms = std::iter::once(&output).chain(&operands).map(|o| &o.contraction);
                let exact = forms.map(Contraction::flops).sum::<f64>()
                    + 2.0 * updates.iter().map(Contraction::flops).sum::<f64>();
                cost += cost::contraction(exact) - cost::contraction(contraction_flops);
                contraction_flops = exact;
            }
            passes.push(Pass {
                closed_denominator: self.product(others, &output.indices),
                others: members(others),
                output,
                operands,
                layout,
                flops,
                bytes,
                contraction_flops,
                cost,
            });
        }
        let tables = sparse.iter().map(|(mask, c)| self.sparse_bytes(*mask, c));
        let tables = tables.fold(0.0, f64::max);
        let sparse: Vec<SparsePass> =
            sparse.iter().map(|(mask, c)| self.sparse_pass(*mask, c)).collect();
        let entries: f64 = sparse.iter().map(|pass| pass.entry_bytes).sum();
        let group = |(at, &mask): (usize, &u64)| {
            // Numerator and denominator have the indices, in the order, of the pass they are from.
            let indices = match sparse.get(at) {
                Some(pass) => &pass.indices,
                None => &passes[at].output.indices,
            };
            Group { factors: members(mask), updates: self.updates(mask, indices) }
        };
        let groups = masks.iter().enumerate().map(group).collect();
        Plan {
            shapes: self.shapes.clone(),
            data: self.arranger.data.clone(),
            settings: self.settings.clone(),
            groups,
            implicit_totals: (!sparse.is_empty()).then(|| ImplicitTotals::new(self.shapes)),
            memory: (memory.values().sum::<f64>() + accumulators + tables + entries) as u64,
            passes,
            sparse_passes: sparse,
        }
    }
}
