//! The fused dense pass: numerator, denominator and losses in one reading of the data.
//!
//! Neither ŷ nor `a`, `b` or ℓ ever exist as tensors: a tile of a few rows by some hundred lanes is
//! read, its ŷ formed by a small matrix product, the loss's expressions evaluated on it, and its
//! share of `N` and `D` added by two more products, all within the second-level cache (`tile.rs`,
//! with `evaluate.rs` and `kernel.rs`; for the default loss `divergence.rs`). Here is how the tiles are
//! shared out.
//!
//! Work is cut into *strands*: a part of the target over a part of what is summed over, whose tiles
//! follow one another in a fixed order. Strands know nothing of each other, so the order of all sums
//! depends neither on the number of threads nor on which strands are worked on together.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::SHARE;
use super::geometry::Geometry;
use super::stream::{self, Schedule};
use super::tile::Tile;
use nneinfact_core::data::{Dense, Prepared, Role, Roles};
use nneinfact_core::engine::LossSums;
use nneinfact_core::loss::Tape;
use nneinfact_core::plan::OperandSide;
use nneinfact_simd::Elementwise;

/// What a pass reads besides the tensors.
pub(super) struct Source<'a, T> {
    pub data: &'a Prepared,
    /// The roles of all cells; `None` where all are for training.
    pub roles: Option<&'a Roles>,
    /// Every datum is 0, and no value is read.
    pub zeros: bool,
    /// OperandSide tensors of the loss, in the data's order of memory.
    pub sides: &'a [Dense],
    /// What values are multiplied by as they are read.
    pub scale: T,
    /// ŷ is raised to this.
    pub floor: T,
    /// Computes, in this order, those of `a`, `b` and ℓ that are wanted.
    pub tape: &'a Tape,
    pub wants: Wants,
    /// The order of work where data stay in a file.
    pub schedule: Option<&'a Schedule>,
}

/// What a pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wants {
    pub numerator: bool,
    pub denominator: bool,
    pub losses: bool,
}

/// What a pass returns: sums over the data, which add up over disjoint parts of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Numerator and denominator, in the target's order; empty where not wanted.
    pub numerator: Vec<f64>,
    pub denominator: Vec<f64>,
    pub sums: LossSums,
}

/// Runs a pass over `tensors`, the target first, each in the order of its operand in the plan.
pub(super) fn run<T: Elementwise>(
    geometry: &Geometry,
    source: &Source<'_, T>,
    tensors: &[&[T]],
) -> Outcome {
    let parts = match source.schedule {
        Some(schedule) => stream::parts(schedule, geometry, source, tensors),
        None => parts(geometry, source, tensors),
    };

    let mut outcome = Outcome::default();
    let total = geometry.own.len * geometry.target_side * geometry.target_inner;
    if source.wants.numerator {
        outcome.numerator = vec![0.0; total];
    }
    if source.wants.denominator {
        outcome.denominator = vec![0.0; total];
    }
    for part in &parts {
        outcome.sums.train += part.sums.train;
        outcome.sums.validation += part.sums.validation;
        outcome.sums.held_out += part.sums.held_out;
    }
    add_up(geometry, &parts, |part| &part.numerator, &mut outcome.numerator);
    add_up(geometry, &parts, |part| &part.denominator, &mut outcome.denominator);
    outcome
}

impl Outcome {
    /// Divides the sums by a scale that the tensors carried.
    pub fn divide(&mut self, scale: f64) {
        if scale != 1.0 {
            let all = self.numerator.par_iter_mut().chain(&mut self.denominator);
            all.with_min_len(SHARE).for_each(|x| *x /= scale);
        }
    }
}

/// Adds the blocks of all parts to the target that they are parts of: to each of its entries in the
/// order of the parts.
fn add_up(
    geometry: &Geometry,
    parts: &[Part],
    block: impl Fn(&Part) -> &[f64] + Sync,
    to: &mut [f64],
) {
    if to.is_empty() {
        return;
    }
    let add = |to: &mut [f64], from: &[f64]| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
    };
    let granules = geometry.own_granules();
    match geometry.side {
        // A block is rows that follow one another, and block follows upon block.
        OperandSide::Lhs => {
            let mut rest = to;
            let mut blocks = Vec::with_capacity(granules);
            for part in &parts[..granules] {
                let (block, after) = rest.split_at_mut(part.len * geometry.target_inner);
                blocks.push(block);
                rest = after;
            }
            let least = (SHARE * granules).div_ceil(blocks.iter().map(|b| b.len()).sum());
            blocks.par_iter_mut().with_min_len(least).enumerate().for_each(|(i, to)| {
                parts[i..].iter().step_by(granules).for_each(|part| add(to, block(part)));
            });
        }
        // A block is some lanes of every inner index.
        OperandSide::Rhs => {
            let (side, inner) = (geometry.target_side, geometry.target_inner);
            let each = granules / geometry.own.len;
            let rows = to.par_chunks_exact_mut(side).with_min_len(SHARE.div_ceil(side));
            rows.enumerate().for_each(|(row, to)| {
                let (own, k) = (row / inner, row % inner);
                for parts in parts.chunks_exact(granules) {
                    for part in &parts[own * each..][..each] {
                        add(&mut to[part.start..][..part.len], &block(part)[k * part.len..]);
                    }
                }
            });
        }
    }
}

/// The parts of the target over each part of what is summed over, in the order in which they are
/// added.
fn parts<T: Elementwise>(
    geometry: &Geometry,
    source: &Source<'_, T>,
    tensors: &[&[T]],
) -> Vec<Part> {
    let threads = rayon::current_num_threads();
    let groups = groups(geometry, geometry.group::<T>(), threads);
    // Taken in order, the small ones last.
    let next = AtomicUsize::new(0);
    let work = |_| {
        let mut tile = None;
        let mut done = Vec::new();
        while let Some((s, granules)) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            let tile = tile.get_or_insert_with(|| Tile::new(geometry, source, tensors));
            let sum = cut(geometry.sum_units(), geometry.sum_parts, *s);
            done.push((*s, granules.start, tile.run(granules.clone(), sum)));
        }
        done
    };
    let done: Vec<_> = (0..threads).into_par_iter().with_max_len(1).map(work).collect();
    let mut done: Vec<_> = done.into_iter().flatten().collect();
    done.sort_unstable_by_key(|&(s, first, _)| (s, first));
    done.into_iter().flat_map(|(.., parts)| parts).collect()
}

/// Groups that threads have to share, at least, for each of them.
const GROUPS: usize = 2;

/// Strands that a thread works on together: a part of what is summed over, and some parts of the
/// target. As large as there is use for, and smaller towards the end, so that no thread waits long for
/// another.
fn groups(geometry: &Geometry, most: usize, threads: usize) -> Vec<(usize, Range<usize>)> {
    let granules = geometry.own_granules();
    let mut left = granules * geometry.sum_parts;
    let mut groups = Vec::new();
    for s in 0..geometry.sum_parts {
        let mut first = 0;
        while first < granules {
            let size = (left / (GROUPS * threads)).clamp(1, most).min(granules - first);
            groups.push((s, first..first + size));
            (first, left) = (first + size, left - size);
        }
    }
    groups
}

/// Where part `i` begins, of `parts` that `n` things are cut into, and its length.
pub(super) fn cut(n: usize, parts: usize, i: usize) -> (usize, usize) {
    (n / parts * i + (n % parts).min(i), n / parts + usize::from(i < n % parts))
}

/// The share of a part of the target: a block `[side][inner]` for rows, `[inner][side]` for lanes.
#[derive(Default)]
pub(super) struct Part {
    pub own: usize,
    pub start: usize,
    pub len: usize,
    pub numerator: Vec<f64>,
    pub denominator: Vec<f64>,
    pub sums: LossSums,
}

impl<T: Elementwise> Source<'_, T> {
    /// Whether cells have weights, if only 0 and 1.
    #[inline(always)]
    pub fn weighs(&self) -> bool {
        self.roles.is_some() || self.data.weights().is_some()
    }

    /// Whether losses of cells withheld for validation are asked for, and of those held out.
    #[inline(always)]
    pub fn withheld(&self) -> [bool; 2] {
        let asked = self.wants.losses && self.roles.is_some();
        let any = |role: Role| asked && self.data.count(role) > 0;
        [any(Role::Validation), any(Role::HeldOut)]
    }
}
