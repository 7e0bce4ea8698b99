//! The search where a model has many factors: in polynomial time, where comparing everything would take
//! exponential time.
//!
//! Factors outside a group are merged into operands along one hierarchy of merges, made once for the
//! model, and into what hangs together through indices that the group does not have. Groups start as
//! single factors along a chain in which neighbours share indices, and neighbours are merged while that
//! saves; or they are the two halves of that chain, wherever it is best cut. The better of both is
//! refined: factors move to other groups, and pairs of groups merge, while that lowers the cost.

use super::Contraction;
use super::contraction::joins;
use super::search::{Search, members};
use crate::model::{Index, IndexSet, Shapes};

/// Numbers of operands that are tried first, and where these do not fit in memory.
const COARSE: [usize; 4] = [1, 2, 3, 4];
const FINE: [usize; 7] = [6, 8, 12, 16, 24, 32, 48];
/// Up to so many groups all pairs are merged on trial, beyond that neighbours.
const CLOSE: usize = 10;
/// How many groups a search looks at, times the number of factors: a larger model has more to be done
/// for each.
const EFFORT: usize = 32_000;
/// Of so many factors of a group the updates are planned on trial, and those of the others are taken to
/// cost as much.
const UPDATES: usize = 8;
/// A change that saves less than this part is rounding.
const LEAST: f64 = 1e-9;

/// The factors of a model merged two by two, in the order of a greedy contraction onto the data.
pub(super) fn merges(shapes: &Shapes, indices: &[IndexSet]) -> Vec<(u64, u64)> {
    let mut masks: Vec<u64> = (0..indices.len()).map(|l| 1 << l).collect();
    let mut merges = Vec::new();
    for (left, right) in joins(shapes, indices, shapes.model().observed()) {
        merges.push((masks[left], masks[right]));
        masks.push(masks[left] | masks[right]);
    }
    merges
}

impl Search<'_> {
    /// Multiply-adds of forming the product of some factors, about.
    pub(super) fn quick_product_flops(&self, mask: u64, output: &[Index]) -> f64 {
        let factors = self.shapes.model().factors();
        let inputs: Vec<&[Index]> = members(mask).iter().map(|&l| factors[l].as_slice()).collect();
        Contraction::quick(self.shapes, &inputs, output).flops()
    }

    /// Multiply-adds of a group's updates from one tensor over `indices`, about.
    pub(super) fn quick_update_flops(&self, group: u64, indices: &[Index]) -> f64 {
        let factors = self.shapes.model().factors();
        let all = members(group);
        let step = all.len().div_ceil(UPDATES).max(1);
        let tried: Vec<usize> = all.iter().copied().step_by(step).collect();
        let flops = |&l: &usize| {
            let mut inputs = vec![indices];
            inputs.extend(all.iter().filter(|&&m| m != l).map(|&m| factors[m].as_slice()));
            Contraction::quick(self.shapes, &inputs, &factors[l]).flops()
        };
        tried.iter().map(flops).sum::<f64>() * all.len() as f64 / tried.len().max(1) as f64
    }

    /// Ways to merge the factors outside a group into few operands.
    pub(super) fn coarse(&self, group: u64) -> Vec<Vec<u64>> {
        let mut ways = self.cut(group, &COARSE);
        let together = self.together(group);
        if together.len() <= 2 * COARSE.len() && !ways.contains(&together) {
            ways.push(together);
        }
        ways
    }

    /// Ways to merge them into more; the last one leaves all single.
    pub(super) fn fine(&self, group: u64) -> Vec<Vec<u64>> {
        let single = (self.full & !group).count_ones() as usize;
        let more: Vec<usize> = FINE.into_iter().filter(|&n| n < single).collect();
        let mut ways = self.cut(group, &more);
        ways.push(members(self.full & !group).into_iter().map(|l| 1 << l).collect());
        ways
    }

    /// The factors outside a group in so many operands, along the hierarchy of merges.
    fn cut(&self, group: u64, counts: &[usize]) -> Vec<Vec<u64>> {
        let outside = self.full & !group;
        let mut parts: Vec<u64> = members(outside).into_iter().map(|l| 1 << l).collect();
        let mut ways = Vec::new();
        for &(left, right) in &self.merges {
            let (left, right) = (left & outside, right & outside);
            if left == 0 || right == 0 {
                continue;
            }
            parts.retain(|&part| part != left && part != right);
            parts.push(left | right);
            if counts.contains(&parts.len()) {
                let mut way = parts.clone();
                way.sort_by_key(|part| part.trailing_zeros());
                ways.push(way);
            }
        }
        if outside.count_ones() == 1 {
            ways.push(parts);
        }
        ways.reverse();
        ways
    }

    /// The factors outside a group, those together that are connected by latent indices which the group
    /// does not have: these can be summed over once for all.
    fn together(&self, group: u64) -> Vec<u64> {
        let summed = self.shapes.model().latent() - self.union(group);
        let mut parts: Vec<(u64, IndexSet)> = Vec::new();
        for l in members(self.full & !group) {
            let own = self.indices[l] & summed;
            let (touching, apart): (Vec<_>, Vec<_>) =
                parts.into_iter().partition(|part| part.1.intersects(own));
            parts = apart;
            let both = |a: (u64, IndexSet), b: (u64, IndexSet)| (a.0 | b.0, a.1 | b.1);
            parts.push(touching.into_iter().fold((1 << l, own), both));
        }
        let mut parts: Vec<u64> = parts.into_iter().map(|part| part.0).collect();
        parts.sort_by_key(|part| part.trailing_zeros());
        parts
    }

    /// A partition of many factors whose passes cost little together.
    pub(super) fn large_partition(&mut self, free: &[usize]) -> Vec<u64> {
        let chain: Vec<u64> = self.chain(free).into_iter().map(|l| 1 << l).collect();
        let mut best = self.merged(chain.clone());
        let mut least = self.total(&best);
        for end in 1..chain.len() {
            let halves = [&chain[..end], &chain[end..]];
            let halves = halves.map(|half| half.iter().fold(0, |all, l| all | l)).to_vec();
            let cost = self.total(&halves);
            if cost < least {
                (best, least) = (halves, cost);
            }
        }
        let most = self.costs.len() + EFFORT / free.len();
        while self.costs.len() < most && self.improve(&mut best) {}
        best
    }

    fn total(&mut self, groups: &[u64]) -> f64 {
        groups.iter().map(|&group| self.group_cost(group)).sum()
    }

    /// Factors one after another, each sharing as much as possible with the one before.
    fn chain(&self, free: &[usize]) -> Vec<usize> {
        let latent = self.shapes.model().latent();
        let mut left = free.to_vec();
        let mut chain = vec![left.remove(0)];
        while !left.is_empty() {
            let last = chain.last().map_or(IndexSet::EMPTY, |&l| self.indices[l]) & latent;
            let shared = |l: usize| {
                let shared = self.indices[l] & last;
                (!shared.is_empty(), self.shapes.volume(shared))
            };
            let mut next = 0;
            for k in 1..left.len() {
                if shared(left[k]) > shared(left[next]) {
                    next = k;
                }
            }
            chain.push(left.remove(next));
        }
        chain
    }

    /// What merging two groups saves; nothing where the result does not fit in memory.
    fn saved(&mut self, one: u64, other: u64) -> f64 {
        let both = self.group_cost(one | other);
        match both.is_finite() {
            true => self.group_cost(one) + self.group_cost(other) - both,
            false => 0.0,
        }
    }

    /// Merges neighbours, the pair that saves most first. At least two groups are left: one group of all
    /// factors would be a single pass, but its surrogate is so loose that it needs many more sweeps.
    fn merged(&mut self, mut groups: Vec<u64>) -> Vec<u64> {
        while groups.len() > 2 {
            let n = groups.len();
            let mut best = (0.0, 0, 0);
            for i in 0..n {
                for j in i + 1..n {
                    let near = n <= CLOSE || j - i == 1 || (i == 0 && j == n - 1);
                    let saved = if near { self.saved(groups[i], groups[j]) } else { 0.0 };
                    if saved > best.0 {
                        best = (saved, i, j);
                    }
                }
            }
            if best.0 <= 0.0 {
                break;
            }
            let second = groups.remove(best.2);
            groups[best.1] |= second;
        }
        groups
    }

    /// Makes the first change found that lowers the cost; `false` where there is none.
    fn improve(&mut self, groups: &mut Vec<u64>) -> bool {
        for from in 0..groups.len() {
            for l in members(groups[from]) {
                if self.moves(groups, from, 1 << l) {
                    return true;
                }
            }
        }
        for i in 0..groups.len() {
            for j in i + 1..groups.len() {
                let least = LEAST * self.group_cost(groups[i] | groups[j]);
                if groups.len() > 2 && self.saved(groups[i], groups[j]) > least {
                    let second = groups.remove(j);
                    groups[i] |= second;
                    return true;
                }
            }
        }
        false
    }

    /// Moves a factor out of a group, into another or one of its own, where that lowers the cost.
    fn moves(&mut self, groups: &mut Vec<u64>, from: usize, factor: u64) -> bool {
        let rest = groups[from] & !factor;
        if rest == 0 && groups.len() <= 2 {
            return false;
        }
        let left = if rest == 0 { 0.0 } else { self.group_cost(rest) };
        for to in (0..groups.len()).filter(|&to| to != from) {
            let before = self.group_cost(groups[from]) + self.group_cost(groups[to]);
            let after = left + self.group_cost(groups[to] | factor);
            if after < before - LEAST * before.min(f64::MAX) {
                groups[to] |= factor;
                match rest {
                    0 => drop(groups.remove(from)),
                    rest => groups[from] = rest,
                }
                return true;
            }
        }
        let (before, after) = (self.group_cost(groups[from]), left + self.group_cost(factor));
        if rest != 0 && after < before - LEAST * before.min(f64::MAX) {
            groups[from] = rest;
            groups.push(factor);
            return true;
        }
        false
    }
}
