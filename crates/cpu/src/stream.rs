//! The order of work of a pass over data that stay in a file.
//!
//! In memory every task runs through its share of the data, wherever that lies. Data in a file are
//! to be read from one end to the other, a slab at a time, while the next slab is on its way. What
//! must not change for that is the order of the sums, so it is the strands (`pass.rs`) that are shared
//! out in another way. A *gang* of strands is worked on side by side, a *stretch* of tiles of each at a
//! time, and such a stretch of a gang is a slab; sums of strands whose turn is over are put aside until
//! the next slab.
//!
//! Which strands make a gang, and how long a stretch is, decides what a slab holds: many short runs
//! all over the file, or a few long ones. That is not reasoned about but tried, on one slab of each
//! candidate.

use std::ops::Range;
use std::sync::Mutex;

use rayon::prelude::*;

use super::geometry::{Geometry, Run, runs};
use super::pass::{Part, Source, cut};
use super::tile::{Strand, Tile};
use nneinfact_core::data::{Prepared, Ranges, in_slabs, slab_entries};
use nneinfact_core::plan::OperandSide;
use nneinfact_simd::{Elementwise, Real};

/// How the strands of a pass follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Parts of what is summed over, the target's outer indices, blocks of its side.
    LossSums,
    /// Parts of what is summed over, blocks of the target's side, its outer indices.
    Blocks,
    /// The target's outer indices, blocks of its side, parts of what is summed over.
    Target,
}

/// The order of work of a pass.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    order: Order,
    /// Strands in a gang.
    gang: usize,
    /// Tiles of a strand in a stretch.
    stretch: usize,
    /// Cells that are fetched and released together.
    grain: usize,
}

/// Bytes that are fetched and released together: what a disk reads at once without much loss.
const GRAIN_BYTES: usize = 64 << 10;
/// What it costs to go to another place of the file, in bytes that could be read meanwhile.
const SEEK_BYTES: f64 = (256 << 10) as f64;
/// What it costs to begin a stretch, in tiles.
const BEGIN: f64 = 0.1;

impl Schedule {
    /// The best order of work; `None` where no data stay in a file.
    pub fn new<T: Real>(g: &Geometry, data: &Prepared) -> Option<Schedule> {
        let tensors = data.tensors();
        let slab = slab_entries(&tensors)?;
        let cell_bytes = tensors
            .iter()
            .filter(|tensor| tensor.is_mapped())
            .map(|tensor| tensor.entry_bytes())
            .max()?
            .max(1);
        let grain = (GRAIN_BYTES / cell_bytes).clamp(1, slab.div_ceil(8));
        let threads = rayon::current_num_threads();
        let strands = g.own_granules() * g.sum_parts;
        let tile = g.block_rows.min(g.rows.len) * g.block_lanes.min(g.lanes.len);
        let steps = g.steps((0, g.sum_units().div_ceil(g.sum_parts)));
        // LossSums that are put aside may take what the sums of all strands take anyway, or a slab.
        let sums = g.running_sums::<T>();
        let target = g.own.len * g.target_side * g.target_inner * g.sum_parts;
        let most_aside = (16 * target).max(slab * cell_bytes) / (2 * sums * T::BYTES);

        let mut best: Option<(f64, Schedule)> = None;
        for order in [Order::LossSums, Order::Blocks, Order::Target] {
            let same = match order {
                Order::LossSums => false,
                Order::Blocks => !g.disjoint || g.own.len == 1 || g.side_blocks() == 1,
                Order::Target => g.sum_parts == 1 || g.own_granules() == 1,
            };
            if same {
                continue;
            }
            let mut gangs = vec![strands, g.own_granules(), g.side_blocks(), g.own.len, threads];
            gangs.extend((0..usize::BITS / 2).map(|i| 1usize << (2 * i)));
            // As many as fill a slab, with a tile of each or whole rows or columns of tiles.
            let others = g.other_blocks();
            gangs.extend([1, others].map(|n| (slab / tile.saturating_mul(n)).max(1)));
            gangs.sort_unstable();
            gangs.dedup();
            for gang in gangs.into_iter().filter(|&n| n <= strands) {
                let most = (slab / tile.saturating_mul(gang).max(1)).clamp(1, steps);
                // Whole rows or columns of tiles too, even if they are a little more than a slab:
                // their parts lie side by side.
                let whole = (most / others * others).max(others).min(steps);
                let mut stretches = vec![most, whole];
                stretches.dedup();
                for stretch in stretches {
                    let aside = stretch < steps && gang > most_aside.max(threads);
                    // Far more than a slab in one stretch.
                    let cells = tile.saturating_mul(gang).saturating_mul(stretch);
                    let large = match stretch > most {
                        true => cells > slab + slab / 4,
                        false => gang > 1 && cells > slab.saturating_mul(2),
                    };
                    if aside || large {
                        continue;
                    }
                    let mut candidate = Schedule { order, gang, stretch, grain };
                    let mut cost = candidate.cost(g, cell_bytes, threads);
                    // Pages that hold little of what is needed take memory too.
                    let read = candidate.cells(&candidate.slab(g, 0, 0));
                    if read > 2 * slab && stretch > 1 {
                        let shorter = (stretch as f64 * slab as f64 / read as f64) as usize;
                        candidate.stretch = shorter.max(1);
                        cost = candidate.cost(g, cell_bytes, threads);
                    }
                    if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                        best = Some((cost, candidate));
                    }
                }
            }
        }
        best.map(|(_, schedule)| schedule)
    }

    /// What it costs to read and work on a cell, in cells that are read for nothing.
    fn cost(&self, g: &Geometry, cell_bytes: usize, threads: usize) -> f64 {
        let slab = self.slab(g, 0, 0);
        let useful: usize = self
            .members(g, 0)
            .map(|(granule, s)| {
                let sum = cut(g.sum_units(), g.sum_parts, s);
                let steps = self.steps(g.steps(sum), 0);
                let mut cells = 0;
                tiles(g, granule, sum, steps, |rows, lanes| cells += rows.1 * lanes.1);
                cells
            })
            .sum();
        let seeks = slab.len() as f64 * SEEK_BYTES / cell_bytes as f64;
        let reading = (self.cells(&slab) as f64 + seeks) / useful.max(1) as f64;
        let strands = self.members(g, 0).count();
        let idle = (strands.div_ceil(threads) * threads) as f64 / strands.max(1) as f64;
        reading * idle * (1.0 + BEGIN / self.stretch as f64)
    }

    fn cells(&self, ranges: &Ranges) -> usize {
        ranges.iter().map(ExactSizeIterator::len).sum()
    }

    fn gangs(&self, g: &Geometry) -> usize {
        (g.own_granules() * g.sum_parts).div_ceil(self.gang)
    }

    /// The strands of a gang: part of the target, and part of what is summed over.
    fn members(&self, g: &Geometry, gang: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (granules, parts) = (g.own_granules(), g.sum_parts);
        let (own, blocks) = (g.own.len, g.side_blocks());
        let order = self.order;
        let all = granules * parts;
        (gang * self.gang..all.min((gang + 1) * self.gang)).map(move |n| match order {
            Order::LossSums => (n % granules, n / granules),
            Order::Blocks => {
                let (block, own_index) = (n % granules / own, n % granules % own);
                (own_index * blocks + block, n / granules)
            }
            Order::Target => (n / parts, n % parts),
        })
    }

    /// The tiles of a stretch, of a strand that has so many.
    fn steps(&self, all: usize, stretch: usize) -> Range<usize> {
        let start = (stretch * self.stretch).min(all);
        start..all.min(start + self.stretch)
    }

    /// How many stretches the strands of a gang take.
    fn stretches(&self, g: &Geometry, gang: usize) -> usize {
        let steps = |(_, s): (usize, usize)| g.steps(cut(g.sum_units(), g.sum_parts, s));
        self.members(g, gang).map(steps).max().unwrap_or(0).div_ceil(self.stretch)
    }

    /// The cells that a gang reads in a stretch, in whole grains.
    fn slab(&self, g: &Geometry, gang: usize, stretch: usize) -> Ranges {
        let mut found: Vec<(usize, usize)> = Vec::new();
        let (mut rows_at, mut lanes_at, mut lane_runs) = (Vec::new(), Vec::new(), Vec::new());
        let mut extents: Vec<Run> = Vec::new();
        let mut formed = [(usize::MAX, 0); 2];
        for (granule, s) in self.members(g, gang) {
            let sum = cut(g.sum_units(), g.sum_parts, s);
            let steps = self.steps(g.steps(sum), stretch);
            tiles_at(g, granule, sum, steps, |outer, rows, lanes| {
                if formed[0] != rows {
                    g.rows.data_offsets(rows.0, rows.1, &mut rows_at);
                    formed[0] = rows;
                }
                if formed[1] != lanes {
                    g.lanes.data_offsets(lanes.0, lanes.1, &mut lanes_at);
                    runs(&lanes_at, &mut lane_runs);
                    self.join(&lane_runs, &mut extents);
                    formed[1] = lanes;
                }
                for &row in &rows_at {
                    for &run in &extents {
                        self.touch(outer + row, run, &mut found);
                    }
                }
            });
        }
        found.sort_unstable();
        let cells = g.own.len * g.summed.len * g.rows.len * g.lanes.len;
        let mut ranges: Ranges = Vec::new();
        for (start, end) in found {
            let (start, end) = (start * self.grain, (end * self.grain).min(cells));
            match ranges.last_mut() {
                Some(last) if start <= last.end => last.end = last.end.max(end),
                _ => ranges.push(start..end),
            }
        }
        ranges
    }

    /// Joins runs that lie closer together than a grain: most of what is between them is read with
    /// them anyway.
    fn join(&self, runs: &[Run], extents: &mut Vec<Run>) {
        extents.clear();
        for &run in runs {
            let end = |r: &Run| r.offset + (r.len - 1) * r.stride + 1;
            match extents.last_mut() {
                Some(last)
                    if last.stride == 1
                        && run.stride <= self.grain
                        && (last.offset..=end(last) + self.grain).contains(&run.offset) =>
                {
                    last.len = end(last).max(end(&run)) - last.offset;
                }
                _ if run.stride <= self.grain => {
                    extents.push(Run { len: end(&run) - run.offset, stride: 1, ..run });
                }
                _ => extents.push(run),
            }
        }
    }

    /// Adds the grains of a run.
    fn touch(&self, at: usize, run: Run, found: &mut Vec<(usize, usize)>) {
        let mut add = |first: usize, last: usize| {
            let (start, end) = (first / self.grain, last / self.grain + 1);
            match found.last_mut() {
                Some(known) if known.0 <= start && start <= known.1 => known.1 = known.1.max(end),
                _ => found.push((start, end)),
            }
        };
        if run.stride <= self.grain {
            add(at + run.offset, at + run.offset + (run.len - 1) * run.stride);
        } else {
            for i in 0..run.len {
                let cell = at + run.offset + i * run.stride;
                add(cell, cell);
            }
        }
    }
}

/// The tiles of some steps of a strand: where they begin in the data, their rows and lanes.
fn tiles_at(
    g: &Geometry,
    granule: usize,
    sum: (usize, usize),
    steps: Range<usize>,
    mut work: impl FnMut(usize, (usize, usize), (usize, usize)),
) {
    let (own, blocks) = g.granule(granule);
    let own = g.own.data_offset(own);
    let others = g.other_blocks();
    for step in steps {
        let side = g.block(blocks.start + step / sum.1);
        let unit = sum.0 + step % sum.1;
        let outer = own + g.summed.data_offset(unit / others);
        let other = g.other_block(unit % others);
        match g.side {
            OperandSide::Lhs => work(outer, side, other),
            OperandSide::Rhs => work(outer, other, side),
        }
    }
}

fn tiles(
    g: &Geometry,
    granule: usize,
    sum: (usize, usize),
    steps: Range<usize>,
    mut work: impl FnMut((usize, usize), (usize, usize)),
) {
    tiles_at(g, granule, sum, steps, |_, rows, lanes| work(rows, lanes));
}

/// Where a strand of a gang stands.
struct Member<T> {
    granule: usize,
    part_of_sum: usize,
    sum: (usize, usize),
    strand: Option<Strand<T>>,
    part: Option<Part>,
}

/// The parts of the target over each part of what is summed over, in the order in which they are
/// added: those that tasks in memory would have found, to the bit.
pub(super) fn parts<T: Elementwise>(
    schedule: &Schedule,
    g: &Geometry,
    source: &Source<'_, T>,
    tensors: &[&[T]],
) -> Vec<Part> {
    let granules = g.own_granules();
    let slabs: Vec<(usize, usize)> = (0..schedule.gangs(g))
        .flat_map(|gang| (0..schedule.stretches(g, gang)).map(move |stretch| (gang, stretch)))
        .collect();
    let mut done: Vec<Option<Part>> = (0..granules * g.sum_parts).map(|_| None).collect();
    // Buffers that nobody uses.
    let tiles: Mutex<Vec<Tile<'_, T>>> = Mutex::default();
    let take = || tiles.lock().ok().and_then(|mut tiles| tiles.pop());
    let mut gang: Vec<Member<T>> = Vec::new();
    let ranges = slabs.iter().map(|&(gang, stretch)| schedule.slab(g, gang, stretch));
    in_slabs(&source.data.tensors(), ranges, |number| {
        let (at, stretch) = slabs[number];
        if stretch == 0 {
            gang.clear();
            gang.extend(schedule.members(g, at).map(|(granule, part_of_sum)| Member {
                granule,
                part_of_sum,
                sum: cut(g.sum_units(), g.sum_parts, part_of_sum),
                strand: None,
                part: None,
            }));
        }
        gang.par_iter_mut().with_max_len(1).for_each(|member| {
            let all = g.steps(member.sum);
            let steps = schedule.steps(all, stretch);
            if steps.is_empty() {
                return;
            }
            let mut tile = take().unwrap_or_else(|| Tile::new(g, source, tensors));
            let strand = member.strand.take();
            let mut strand = strand.unwrap_or_else(|| tile.begin(member.granule, member.sum));
            let done = steps.end == all;
            tile.advance(&mut strand, steps);
            if done {
                member.part = Some(tile.end(strand));
            } else {
                member.strand = Some(strand);
            }
            if let Ok(mut tiles) = tiles.lock() {
                tiles.push(tile);
            }
        });
        if number + 1 == slabs.len() || slabs[number + 1].0 != at {
            for member in &mut gang {
                done[member.part_of_sum * granules + member.granule] = member.part.take();
            }
        }
    });
    done.into_iter().flatten().collect()
}
