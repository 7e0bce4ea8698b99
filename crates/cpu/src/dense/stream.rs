//! The order of work of a pass over data that stay in a file.
//!
//! In memory every thread runs through its share of the data, wherever that lies. Data in a file are to be
//! read from one end to the other, a slab at a time, while the next slab is on its way. The order of the
//! sums must not change for that, so it is the work items (`work.rs`) that are shared out in another way.
//! The items of a *wave* are advanced together, a *segment* of tiles of each at a time. A segment of a wave
//! is a slab, and between two slabs the running sums of its items are put aside.
//!
//! Which items make a wave, and how long a segment is, decides what a slab holds: many short runs all over
//! the file, or a few long ones. The best choice is found by trying: every candidate has the cost of its
//! first slab computed.

use std::ops::Range;
use std::sync::Mutex;

use nneinfact_core::parallel;

use super::axis::{Run, runs};
use super::geometry::Geometry;
use super::tile::TileWorker;
use super::work::{PartialSums, PassInput, WorkItem};
use nneinfact_core::data::{Prepared, Ranges, in_slabs, slab_entries};
use nneinfact_core::plan::OperandSide;
use nneinfact_simd::{Elementwise, Real};

/// How the work items of a pass follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ItemOrder {
    /// By splits, then batch indices, then blocks of the output's side.
    SplitBatchBlock,
    /// By splits, then blocks of the output's side, then batch indices.
    SplitBlockBatch,
    /// By batch indices, then blocks of the output's side, then splits.
    BatchBlockSplit,
}

/// The order of work of a pass.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    order: ItemOrder,
    /// Work items in a wave.
    wave: usize,
    /// Tiles of an item in a segment.
    segment: usize,
    /// Entries that are fetched and released together.
    grain: usize,
}

/// Bytes that are fetched and released together: what a disk reads at once without much loss.
const GRAIN_BYTES: usize = 64 << 10;
/// What it costs to go to another place of the file, in bytes that could be read meanwhile.
const SEEK_BYTES: f64 = (256 << 10) as f64;
/// What it costs to begin a segment, in tiles.
const BEGIN: f64 = 0.1;

/// What decides about the schedule of a pass.
struct Search<'a> {
    g: &'a Geometry,
    /// Entries of a slab, and bytes of an entry.
    slab: usize,
    entry_bytes: usize,
    threads: usize,
    grain: usize,
    /// Work items of the pass, entries of a tile, and tiles of an item.
    items: usize,
    tile: usize,
    steps: usize,
    /// Work items whose running sums may be put aside.
    most_aside: usize,
}

impl Search<'_> {
    /// The schedule with this order, wave and segment, or a somewhat shorter segment, and its cost; `None`
    /// where it takes too much memory. `most` tiles of each item fill a slab.
    fn candidate(
        &self,
        order: ItemOrder,
        wave: usize,
        segment: usize,
        most: usize,
    ) -> Option<(f64, Schedule)> {
        let &Search { slab, grain, .. } = self;
        let aside = segment < self.steps && wave > self.most_aside.max(self.threads);
        // Far more than a slab in one segment.
        let entries = self.tile.saturating_mul(wave).saturating_mul(segment);
        let large = match segment > most {
            true => entries > slab + slab / 4,
            false => wave > 1 && entries > slab.saturating_mul(2),
        };
        if aside || large {
            return None;
        }
        let mut candidate = Schedule { order, wave, segment, grain };
        let mut cost = candidate.cost(self);
        // Pages that hold little of what is needed take memory too.
        let read = entries_of(&candidate.slab(self.g, 0, 0));
        if read > 2 * slab && segment > 1 {
            let shorter = (segment as f64 * slab as f64 / read as f64) as usize;
            candidate.segment = shorter.max(1);
            cost = candidate.cost(self);
        }
        Some((cost, candidate))
    }

    /// The best schedule of one order, if any is better than `best`.
    fn improve(&self, order: ItemOrder, best: &mut Option<(f64, Schedule)>) {
        let &Search { g, slab, tile, items, steps, threads, .. } = self;
        let mut waves = vec![items, g.output_tiles(), g.output_blocks(), g.batch.len, threads];
        waves.extend((0..usize::BITS / 2).map(|i| 1usize << (2 * i)));
        // As many as fill a slab, with a tile of each or whole rows or columns of tiles.
        let others = g.other_blocks();
        waves.extend([1, others].map(|n| (slab / tile.saturating_mul(n)).max(1)));
        waves.sort_unstable();
        waves.dedup();
        for wave in waves.into_iter().filter(|&n| n <= items) {
            let most = (slab / tile.saturating_mul(wave).max(1)).clamp(1, steps);
            // Whole rows or columns of tiles too, even if they are a little more than a slab: their
            // parts lie side by side.
            let whole = (most / others * others).max(others).min(steps);
            let mut segments = vec![most, whole];
            segments.dedup();
            for segment in segments {
                if let Some((cost, schedule)) = self.candidate(order, wave, segment, most)
                    && best.as_ref().is_none_or(|(least, _)| cost < *least)
                {
                    *best = Some((cost, schedule));
                }
            }
        }
    }
}

impl Schedule {
    /// The best order of work; `None` where no data stay in a file.
    pub fn new<T: Real>(g: &Geometry, data: &Prepared) -> Option<Schedule> {
        let tensors = data.tensors();
        let slab = slab_entries(&tensors)?;
        let entry_bytes = tensors
            .iter()
            .filter(|tensor| tensor.is_mapped())
            .map(|tensor| tensor.entry_bytes())
            .max()?
            .max(1);
        // Running sums that are put aside may take what the partial sums of all items take anyway, or a
        // slab.
        let aside_bytes = (16 * g.output_len() * g.splits).max(slab * entry_bytes);
        let search = Search {
            g,
            slab,
            entry_bytes,
            threads: rayon::current_num_threads(),
            grain: (GRAIN_BYTES / entry_bytes).clamp(1, slab.div_ceil(8)),
            items: g.output_tiles() * g.splits,
            tile: g.tile.rows.min(g.rows.len) * g.tile.columns.min(g.columns.len),
            steps: g.steps((0, g.reduction_units().div_ceil(g.splits))),
            most_aside: aside_bytes / (2 * g.running_sums::<T>() * T::BYTES),
        };
        let mut best = None;
        search.improve(ItemOrder::SplitBatchBlock, &mut best);
        // The others, where they differ.
        if g.disjoint && g.batch.len != 1 && g.output_blocks() != 1 {
            search.improve(ItemOrder::SplitBlockBatch, &mut best);
        }
        if g.splits != 1 && g.output_tiles() != 1 {
            search.improve(ItemOrder::BatchBlockSplit, &mut best);
        }
        best.map(|(_, schedule)| schedule)
    }

    /// What it costs to read and work on an entry, in entries that are read for nothing.
    fn cost(&self, search: &Search<'_>) -> f64 {
        let &Search { g, threads, entry_bytes, .. } = search;
        let slab = self.slab(g, 0, 0);
        let useful: usize = self
            .members(g, 0)
            .map(|(output_tile, split)| {
                let units = g.split(split);
                let steps = self.steps(g.steps(units), 0);
                let mut entries = 0;
                tiles(g, output_tile, units, steps, |_, rows, columns| {
                    entries += rows.1 * columns.1;
                });
                entries
            })
            .sum();
        let seeks = slab.len() as f64 * SEEK_BYTES / entry_bytes as f64;
        let reading = (entries_of(&slab) as f64 + seeks) / useful.max(1) as f64;
        let items = self.members(g, 0).count();
        let idle = (items.div_ceil(threads) * threads) as f64 / items.max(1) as f64;
        reading * idle * (1.0 + BEGIN / self.segment as f64)
    }

    fn waves(&self, g: &Geometry) -> usize {
        (g.output_tiles() * g.splits).div_ceil(self.wave)
    }

    /// The items of a wave: output tile and split.
    fn members(&self, g: &Geometry, wave: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (tiles, splits) = (g.output_tiles(), g.splits);
        let (batches, blocks) = (g.batch.len, g.output_blocks());
        let order = self.order;
        let all = tiles * splits;
        (wave * self.wave..all.min((wave + 1) * self.wave)).map(move |n| match order {
            ItemOrder::SplitBatchBlock => (n % tiles, n / tiles),
            ItemOrder::SplitBlockBatch => {
                let (block, batch) = (n % tiles / batches, n % tiles % batches);
                (batch * blocks + block, n / tiles)
            }
            ItemOrder::BatchBlockSplit => (n / splits, n % splits),
        })
    }

    /// The tiles of a segment, of an item that has so many.
    fn steps(&self, all: usize, segment: usize) -> Range<usize> {
        let start = (segment * self.segment).min(all);
        start..all.min(start + self.segment)
    }

    /// How many segments the items of a wave take.
    fn segments(&self, g: &Geometry, wave: usize) -> usize {
        let steps = |(_, split): (usize, usize)| g.steps(g.split(split));
        self.members(g, wave).map(steps).max().unwrap_or(0).div_ceil(self.segment)
    }

    /// The entries that a wave reads in a segment, in whole grains.
    fn slab(&self, g: &Geometry, wave: usize, segment: usize) -> Ranges {
        let mut found: Vec<(usize, usize)> = Vec::new();
        let (mut rows_at, mut columns_at, mut column_runs) = (Vec::new(), Vec::new(), Vec::new());
        let mut extents: Vec<Run> = Vec::new();
        let mut formed = [(usize::MAX, 0); 2];
        for (output_tile, split) in self.members(g, wave) {
            let units = g.split(split);
            let steps = self.steps(g.steps(units), segment);
            tiles(g, output_tile, units, steps, |batch, rows, columns| {
                if formed[0] != rows {
                    g.rows.data_offsets(rows.0, rows.1, &mut rows_at);
                    formed[0] = rows;
                }
                if formed[1] != columns {
                    g.columns.data_offsets(columns.0, columns.1, &mut columns_at);
                    runs(&columns_at, &mut column_runs);
                    self.join(&column_runs, &mut extents);
                    formed[1] = columns;
                }
                for &row in &rows_at {
                    for &run in &extents {
                        self.touch(batch + row, run, &mut found);
                    }
                }
            });
        }
        found.sort_unstable();
        let all = g.batch.len * g.reduced_batch.len * g.rows.len * g.columns.len;
        let mut ranges: Ranges = Vec::new();
        for (start, end) in found {
            let (start, end) = (start * self.grain, (end * self.grain).min(all));
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
                let entry = at + run.offset + i * run.stride;
                add(entry, entry);
            }
        }
    }
}

/// The number of entries in some ranges.
fn entries_of(ranges: &Ranges) -> usize {
    ranges.iter().map(ExactSizeIterator::len).sum()
}

/// The tiles of some steps of a work item: the offset of the batch index in the data, rows and columns.
fn tiles(
    g: &Geometry,
    output_tile: usize,
    units: (usize, usize),
    steps: Range<usize>,
    mut work: impl FnMut(usize, (usize, usize), (usize, usize)),
) {
    let (batch, blocks) = g.output_tile(output_tile);
    let batch = g.batch.data_offset(batch);
    let others = g.other_blocks();
    for step in steps {
        let block = g.output_block(blocks.start + step / units.1);
        let unit = units.0 + step % units.1;
        let offset = batch + g.reduced_batch.data_offset(unit / others);
        let other = g.other_block(unit % others);
        match g.output_side {
            OperandSide::Lhs => work(offset, block, other),
            OperandSide::Rhs => work(offset, other, block),
        }
    }
}

/// An item of a wave, as far as it has come.
struct WaveMember<T> {
    output_tile: usize,
    split: usize,
    units: (usize, usize),
    item: Option<WorkItem<T>>,
    done: Option<PartialSums>,
}

/// The partial sums of all work items, split by split and in the order of the output tiles: to the bit
/// what a pass in memory finds.
pub(crate) fn partial_sums<T: Elementwise>(
    schedule: &Schedule,
    pass: PassInput<'_, T>,
) -> Vec<PartialSums> {
    let g = pass.geometry;
    let tiles = g.output_tiles();
    let slabs: Vec<(usize, usize)> = (0..schedule.waves(g))
        .flat_map(|wave| (0..schedule.segments(g, wave)).map(move |segment| (wave, segment)))
        .collect();
    let mut done: Vec<Option<PartialSums>> = (0..tiles * g.splits).map(|_| None).collect();
    // Workers that no thread uses at the moment.
    let idle: Mutex<Vec<TileWorker<'_, T>>> = Mutex::default();
    let take = || idle.lock().ok().and_then(|mut idle| idle.pop());
    let mut members: Vec<WaveMember<T>> = Vec::new();
    let ranges = slabs.iter().map(|&(wave, segment)| schedule.slab(g, wave, segment));
    in_slabs(&pass.source.data.tensors(), ranges, |number| {
        let (wave, segment) = slabs[number];
        if segment == 0 {
            members.clear();
            members.extend(schedule.members(g, wave).map(|(output_tile, split)| WaveMember {
                output_tile,
                split,
                units: g.split(split),
                item: None,
                done: None,
            }));
        }
        parallel::for_each_of(&mut members, &|_, member| {
            let all = g.steps(member.units);
            let steps = schedule.steps(all, segment);
            if steps.is_empty() {
                return;
            }
            let mut worker = take().unwrap_or_else(|| TileWorker::new(pass));
            let item = member.item.take();
            let mut item = item.unwrap_or_else(|| worker.begin(member.output_tile, member.units));
            let last = steps.end == all;
            worker.advance(&mut item, steps);
            if last {
                member.done = Some(worker.end(item));
            } else {
                member.item = Some(item);
            }
            if let Ok(mut idle) = idle.lock() {
                idle.push(worker);
            }
        });
        if number + 1 == slabs.len() || slabs[number + 1].0 != wave {
            for member in &mut members {
                done[member.split * tiles + member.output_tile] = member.done.take();
            }
        }
    });
    done.into_iter().flatten().collect()
}
