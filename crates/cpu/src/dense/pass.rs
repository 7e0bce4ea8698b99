//! The schedule of a dense pass in memory: work items, shared out among the threads.
//!
//! A pass is a *fused MTTKRP* (see the room’s head in `mod.rs`): numerator, denominator and losses in one
//! reading of the data, tile by tile. Here is how the tiles are shared out.
//!
//! Work is cut into *work items*: an output tile times a split of the reduction (split-K), whose tiles
//! follow one another in a fixed order. Work items know nothing of each other, so that the order of all
//! sums depends neither on the number of threads nor on which items are advanced together.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use nneinfact_core::parallel;

use super::geometry::Geometry;
use super::strategy::Evaluation;
use super::stream::{self, Schedule};
use super::tile::TileWorker;
use super::work::{PartialSums, PassInput, Source};
use nneinfact_core::engine::LossSums;
use nneinfact_core::plan::OperandSide;
use nneinfact_simd::Elementwise;

/// What a dense pass returns: sums over the data, which add up over disjoint parts of it.
#[derive(Debug, Default)]
pub(crate) struct DenseSums {
    /// Numerator and denominator, in the order of the output; empty where not wanted.
    pub numerator: Vec<f64>,
    pub denominator: Vec<f64>,
    pub losses: LossSums,
}

/// Runs a pass over `tensors`, the output first, each in the order of its operand in the plan. A
/// schedule is the order of work where data stay in a file.
pub(crate) fn run<T: Elementwise>(
    geometry: &Geometry,
    source: &Source<'_, T>,
    schedule: Option<&Schedule>,
    tensors: &[&[T]],
) -> DenseSums {
    let wants = source.wants;
    let denominator_alone = source.zeros && wants.denominator && !wants.numerator;
    let evaluation =
        Evaluation::choose(source.tape, geometry.depth, denominator_alone, source.floor);
    let pass = PassInput { geometry, source, tensors, evaluation };
    let partials = match schedule {
        Some(schedule) => stream::partial_sums(schedule, pass),
        None => partial_sums(pass),
    };

    let mut outcome = DenseSums::default();
    if source.wants.numerator {
        outcome.numerator = vec![0.0; geometry.output_len()];
    }
    if source.wants.denominator {
        outcome.denominator = vec![0.0; geometry.output_len()];
    }
    for partial in &partials {
        outcome.losses.train += partial.losses.train;
        outcome.losses.validation += partial.losses.validation;
        outcome.losses.held_out += partial.losses.held_out;
    }
    add_up(geometry, &partials, |partial| &partial.numerator, &mut outcome.numerator);
    add_up(geometry, &partials, |partial| &partial.denominator, &mut outcome.denominator);
    outcome
}

impl DenseSums {
    /// Divides the sums by a scale that the tensors carried.
    pub fn divide(&mut self, scale: f64) {
        if scale != 1.0 {
            for sums in [&mut self.numerator, &mut self.denominator] {
                parallel::chunks(sums, parallel::ENTRIES, &|_, sums| {
                    sums.iter_mut().for_each(|x| *x /= scale);
                });
            }
        }
    }
}

/// Adds the partial sums of all work items to the output: to each of its entries in the order of the
/// splits.
fn add_up(
    geometry: &Geometry,
    partials: &[PartialSums],
    block: impl Fn(&PartialSums) -> &[f64] + Sync,
    to: &mut [f64],
) {
    if to.is_empty() {
        return;
    }
    let add = |to: &mut [f64], from: &[f64]| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
    };
    let tiles = geometry.output_tiles();
    match geometry.output_side {
        // A tile is rows that follow one another, and tile follows upon tile.
        OperandSide::Lhs => {
            let mut rest = to;
            let mut blocks = Vec::with_capacity(tiles);
            for partial in &partials[..tiles] {
                let (block, after) = rest.split_at_mut(partial.len * geometry.output_depth);
                blocks.push(block);
                rest = after;
            }
            let total: usize = blocks.iter().map(|b| b.len()).sum();
            let least = (parallel::ENTRIES * tiles).div_ceil(total);
            parallel::chunks(&mut blocks, least, &|first, blocks| {
                for (i, to) in (first..).zip(blocks) {
                    partials[i..].iter().step_by(tiles).for_each(|partial| add(to, block(partial)));
                }
            });
        }
        // A tile is some columns of every contracted index.
        OperandSide::Rhs => {
            let (extent, depth) = (geometry.output_extent, geometry.output_depth);
            let each = tiles / geometry.batch.len;
            let add_row = |row: usize, to: &mut [f64]| {
                let (batch, k) = (row / depth, row % depth);
                for split in partials.chunks_exact(tiles) {
                    for partial in &split[batch * each..][..each] {
                        let from = &block(partial)[k * partial.len..];
                        add(&mut to[partial.start..][..partial.len], from);
                    }
                }
            };
            let few = parallel::ENTRIES.div_ceil(extent);
            parallel::chunks(to, few * extent, &|first, rows| {
                let rows = rows.chunks_exact_mut(extent);
                (first / extent..).zip(rows).for_each(|(row, to)| add_row(row, to));
            });
        }
    }
}

/// The partial sums of all work items, split by split and in the order of the output tiles: the order
/// in which they are added.
fn partial_sums<T: Elementwise>(pass: PassInput<'_, T>) -> Vec<PartialSums> {
    let geometry = pass.geometry;
    let threads = rayon::current_num_threads();
    let waves = waves(geometry, geometry.max_wave::<T>(), threads);
    // Taken in order, the small ones last.
    let next = AtomicUsize::new(0);
    let work = |_: usize| {
        let mut worker = None;
        let mut done = Vec::new();
        while let Some((split, tiles)) = waves.get(next.fetch_add(1, Ordering::Relaxed)) {
            let worker = worker.get_or_insert_with(|| TileWorker::new(pass));
            let units = geometry.split(*split);
            done.push((*split, tiles.start, worker.run(tiles.clone(), units)));
        }
        done
    };
    let mut done: Vec<_> = parallel::map(threads, &work).into_iter().flatten().collect();
    done.sort_unstable_by_key(|&(split, first, _)| (split, first));
    done.into_iter().flat_map(|(.., partials)| partials).collect()
}

/// Waves that threads have to share, at least, for each of them.
const WAVES_PER_THREAD: usize = 2;

/// Cuts the work items into waves, which a thread advances together: a split of the reduction, and some
/// output tiles. A wave is as large as there is use for, and smaller towards the end, so that no thread
/// waits long for another.
fn waves(geometry: &Geometry, most: usize, threads: usize) -> Vec<(usize, Range<usize>)> {
    let tiles = geometry.output_tiles();
    let mut left = tiles * geometry.splits;
    let mut waves = Vec::new();
    for split in 0..geometry.splits {
        let mut first = 0;
        while first < tiles {
            let size = (left / (WAVES_PER_THREAD * threads)).clamp(1, most).min(tiles - first);
            waves.push((split, first..first + size));
            (first, left) = (first + size, left - size);
        }
    }
    waves
}
