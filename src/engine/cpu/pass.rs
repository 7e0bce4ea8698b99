//! The fused dense pass: numerator, denominator and losses in one reading of the data.
//!
//! Neither ŷ nor `a`, `b` or ℓ ever exist as tensors: a tile of a few rows by some hundred lanes is
//! read, its ŷ formed by a small matrix product, the loss's expressions evaluated on it, and its
//! share of `N` and `D` added by two more products, all within the second-level cache.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use std::ops::Range;

use super::geometry::{Geometry, Run, is_contiguous, is_evenly_spaced, runs};
use super::kernel::{self, PANEL};
use super::stream::{self, Schedule};
use crate::data::{Dense, Indicators, Prepared, Role, Roles};
use crate::engine::Sums;
use crate::loss::{Scratch, Tape};
use crate::math::Elementwise;
use crate::plan::Side;

/// What a pass reads besides the tensors.
pub(super) struct Source<'a, T> {
    pub data: &'a Prepared,
    /// The roles of all cells; `None` where all are for training.
    pub roles: Option<&'a Roles>,
    /// Every datum is 0, and no value is read.
    pub zeros: bool,
    /// Side tensors of the loss, in the data's order of memory.
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
    pub sums: Sums,
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
    // In the order of the tasks, whichever thread ran them.
    for part in parts {
        outcome.sums.train += part.sums.train;
        outcome.sums.validation += part.sums.validation;
        outcome.sums.held_out += part.sums.held_out;
        part.place(geometry, &part.numerator, &mut outcome.numerator);
        part.place(geometry, &part.denominator, &mut outcome.denominator);
    }
    outcome
}

/// The parts of the target over each part of what is summed over, in the order in which they are
/// added.
fn parts<T: Elementwise>(
    geometry: &Geometry,
    source: &Source<'_, T>,
    tensors: &[&[T]],
) -> Vec<Part> {
    let tasks: Vec<(usize, usize)> = (0..geometry.sum_parts)
        .flat_map(|s| (0..geometry.own_parts).map(move |o| (o, s)))
        .collect();
    let parts: Vec<Vec<Part>> = tasks
        .par_iter()
        .map(|&(o, s)| {
            let (first, count) = cut(geometry.own_granules(), geometry.own_parts, o);
            let sum = cut(geometry.sum_units(), geometry.sum_parts, s);
            let mut tile = Tile::new(geometry, source, tensors);
            (first..first + count).map(|granule| tile.granule(granule, sum)).collect()
        })
        .collect();
    parts.into_iter().flatten().collect()
}

/// Where part `i` begins, of `parts` that `n` things are cut into, and its length.
pub(super) fn cut(n: usize, parts: usize, i: usize) -> (usize, usize) {
    (n / parts * i + (n % parts).min(i), n / parts + usize::from(i < n % parts))
}

/// The share of a part of the target: a block `[side][inner]` for rows, `[inner][side]` for lanes.
pub(super) struct Part {
    own: usize,
    start: usize,
    len: usize,
    numerator: Vec<f64>,
    denominator: Vec<f64>,
    sums: Sums,
}

impl Part {
    /// Adds a block to the target that it is part of.
    fn place(&self, geometry: &Geometry, block: &[f64], to: &mut [f64]) {
        if block.is_empty() {
            return;
        }
        let (side, inner) = (geometry.target_side, geometry.target_inner);
        let to = &mut to[self.own * side * inner..][..side * inner];
        let add = |to: &mut [f64], from: &[f64]| {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        };
        match geometry.side {
            Side::Rows => add(&mut to[self.start * inner..][..self.len * inner], block),
            Side::Lanes => {
                for (to, from) in to.chunks_exact_mut(side).zip(block.chunks_exact(self.len)) {
                    add(&mut to[self.start..][..self.len], from);
                }
            }
        }
    }
}

/// The buffers of a task, and where it stands.
pub(super) struct Tile<'a, T> {
    geometry: &'a Geometry,
    source: &'a Source<'a, T>,
    tensors: &'a [&'a [T]],
    arch: Arch,
    /// Offsets of the outer indices in each tensor.
    outer: Vec<usize>,
    data_outer: usize,
    rows: (usize, usize),
    lanes: (usize, usize),
    /// Lanes with their padding: what lies between the rows of all matrices of a tile, so that rows
    /// follow one another and many of them are one loop.
    ld: usize,
    row_offsets: Vec<usize>,
    runs: Vec<Run>,
    /// `R`, row-major, where it has to be formed, or where it stands as it is.
    r: Vec<T>,
    place: Option<Place>,
    /// `C`, and the product of the target's partners on its side.
    c: Vec<T>,
    partners: Vec<T>,
    offsets: Vec<usize>,
    y: Vec<T>,
    a: Vec<T>,
    b: Vec<T>,
    entries: Entries<T>,
    /// Running sums of numerator and denominator, in the precision of the pass.
    sums: [Vec<T>; 2],
    collected: Vec<T>,
    losses: Sums,
    /// Tiles whose sums have not moved to double precision yet.
    pending: usize,
}

/// What is left of a part of the target that is put aside before all is summed up.
pub(super) struct Aside<T> {
    sums: [Vec<T>; 2],
    losses: Sums,
    pending: usize,
}

/// Where `R` stands in a tensor, so that it need not be copied.
#[derive(Clone, Copy)]
struct Place {
    tensor: usize,
    offset: usize,
}

/// Entries that the loss's expressions are evaluated on at a time, if rows are not longer.
const CHUNK: usize = 512;

/// The entries of a few rows.
struct Entries<T> {
    x: Vec<T>,
    train: Vec<T>,
    validation: Vec<T>,
    held_out: Vec<T>,
    weight: Vec<T>,
    loss: Vec<T>,
    sides: Vec<Vec<T>>,
    scratch: Scratch<T>,
    indicators: Indicators<T>,
}

impl<'a, T: Elementwise> Tile<'a, T> {
    pub fn new(geometry: &'a Geometry, source: &'a Source<'a, T>, tensors: &'a [&'a [T]]) -> Self {
        let (rows, lanes, inner) = (geometry.block_rows, geometry.block_lanes, geometry.inner);
        let zeros = |n: usize| vec![T::ZERO; n];
        let sums = match geometry.side {
            Side::Rows => rows * inner * T::MAX_LANES,
            Side::Lanes => inner * lanes,
        };
        let wants = source.wants;
        let strip = geometry.strip_rows * lanes;
        let chunk = lanes.max(CHUNK);
        let weighs = source.weighs();
        Tile {
            geometry,
            source,
            tensors,
            arch: Arch::new(),
            outer: vec![0; tensors.len()],
            data_outer: 0,
            rows: (0, 0),
            lanes: (0, 0),
            ld: 0,
            row_offsets: Vec::new(),
            runs: Vec::new(),
            r: zeros(rows * inner),
            place: None,
            c: zeros(inner * lanes),
            partners: Vec::new(),
            offsets: Vec::new(),
            y: zeros(geometry.band_rows * lanes),
            a: zeros(if wants.numerator { strip } else { 0 }),
            b: zeros(if wants.denominator { strip } else { 0 }),
            entries: Entries {
                x: zeros(chunk),
                train: zeros(if weighs { chunk } else { 0 }),
                validation: zeros(if weighs { chunk } else { 0 }),
                held_out: zeros(if weighs { chunk } else { 0 }),
                weight: zeros(if weighs { chunk } else { 0 }),
                loss: zeros(if wants.losses { chunk } else { 0 }),
                sides: vec![zeros(chunk); source.sides.len()],
                scratch: Scratch::default(),
                indicators: Indicators::new(),
            },
            sums: [
                zeros(if wants.numerator { sums } else { 0 }),
                zeros(if wants.denominator { sums } else { 0 }),
            ],
            collected: Vec::new(),
            losses: Sums::default(),
            pending: 0,
        }
    }

    /// Works on one part of the target, over a range of what is summed over.
    fn granule(&mut self, granule: usize, sum: (usize, usize)) -> Part {
        let mut part = self.begin(granule);
        self.advance(granule, sum, 0..self.geometry.steps(sum), &mut part);
        part
    }

    /// A part of the target to which nothing has been added.
    pub fn begin(&mut self, granule: usize) -> Part {
        let g = self.geometry;
        let (own, blocks) = g.granule(granule);
        let (start, len) = match g.disjoint {
            true => g.block(blocks.start),
            false => (0, g.target_side),
        };
        let size = len * g.target_inner;
        let wants = self.source.wants;
        let part = Part {
            own,
            start,
            len,
            numerator: vec![0.0; if wants.numerator { size } else { 0 }],
            denominator: vec![0.0; if wants.denominator { size } else { 0 }],
            sums: Sums::default(),
        };
        self.losses = Sums::default();
        part
    }

    /// Adds some of its steps to a part of the target: every block of the target's side with every
    /// unit of what is summed over, in this order.
    pub fn advance(
        &mut self,
        granule: usize,
        sum: (usize, usize),
        steps: Range<usize>,
        part: &mut Part,
    ) {
        let g = self.geometry;
        let (own, blocks) = g.granule(granule);
        let mut step = steps.start;
        while step < steps.end {
            let (block, first) = (step / sum.1, step % sum.1);
            let units = first..sum.1.min(first + steps.end - step);
            step += units.len();
            self.block(own, g.block(blocks.start + block), sum, units, part);
        }
        part.sums = self.losses;
    }

    /// Puts the sums of a part aside, or takes them up again: makes room for another one.
    pub fn exchange(&mut self, aside: &mut Option<Aside<T>>) {
        let aside = aside.get_or_insert_with(|| Aside {
            sums: [&self.sums[0], &self.sums[1]].map(|sums| vec![T::ZERO; sums.len()]),
            losses: Sums::default(),
            pending: 0,
        });
        std::mem::swap(&mut self.sums, &mut aside.sums);
        std::mem::swap(&mut self.losses, &mut aside.losses);
        std::mem::swap(&mut self.pending, &mut aside.pending);
    }

    /// Works on one block of the target's side, from one unit of what is summed over to another.
    fn block(
        &mut self,
        own: usize,
        side: (usize, usize),
        sum: (usize, usize),
        units: Range<usize>,
        part: &mut Part,
    ) {
        let g = self.geometry;
        let others = g.other_blocks();
        // Whatever was worked on before stands in the buffers.
        let mut formed = usize::MAX;
        for unit in sum.0 + units.start..sum.0 + units.end {
            let (summed, other) = (unit / others, unit % others);
            let moved = summed != formed;
            if moved {
                self.at_outer(own, summed);
                formed = summed;
            }
            match g.side {
                Side::Rows => {
                    if moved {
                        self.form_rows(side);
                    }
                    self.form_lanes((
                        other * g.block_lanes,
                        g.block_lanes.min(g.lanes.len - other * g.block_lanes),
                    ));
                }
                Side::Lanes => {
                    if moved {
                        self.form_lanes(side);
                    }
                    self.form_rows((
                        other * g.block_rows,
                        g.block_rows.min(g.rows.len - other * g.block_rows),
                    ));
                }
            }
            self.tile();
            self.pending += 1;
            let last = unit + 1 == sum.0 + sum.1;
            // The partners' product changes with the outer index.
            let moves = g.partners && (unit + 1) / others != summed;
            if self.pending == g.flush || last || moves {
                self.flush(side, part);
                self.pending = 0;
            }
        }
    }

    fn at_outer(&mut self, own: usize, summed: usize) {
        let g = self.geometry;
        for (t, offset) in self.outer.iter_mut().enumerate() {
            *offset = g.own.offset(t, own) + g.summed.offset(t, summed);
        }
        self.data_outer = g.own.data_offset(own) + g.summed.data_offset(summed);
    }

    /// Forms `R` for a block of rows, and the partners' product where the target is among them.
    fn form_rows(&mut self, rows: (usize, usize)) {
        let g = self.geometry;
        let inner = g.inner;
        self.rows = rows;
        // With those below, which are the next to be worked on if the target is among the lanes.
        let below = if g.side == Side::Lanes { 2 * PANEL } else { 0 };
        let len = (rows.1 + below).min(g.rows.len - rows.0);
        g.rows.data_offsets(rows.0, len, &mut self.row_offsets);
        let target = g.side == Side::Rows;
        self.place = None;
        let mut standing = g.sides.iter().enumerate().filter(|&(_, &side)| side == Side::Rows);
        if let (Some((t, _)), None) = (standing.next(), standing.next()) {
            g.rows.offsets(t, rows.0, rows.1, &mut self.offsets);
            let follow = g.inner_in_order[t] && is_evenly_spaced(&self.offsets, inner);
            if follow && rows.1.is_multiple_of(PANEL) {
                // One tensor, whose rows follow one another just as those of `R` do.
                self.place = Some(Place { tensor: t, offset: self.outer[t] + self.offsets[0] });
                return;
            }
        }
        let r = &mut self.r[..rows.1 * inner];
        r.fill(T::ONE);
        if target && g.partners {
            self.partners.clear();
            self.partners.resize(rows.1 * inner, T::ONE);
        }
        for (t, data) in self.tensors.iter().enumerate().filter(|&(t, _)| g.sides[t] == Side::Rows)
        {
            g.rows.offsets(t, rows.0, rows.1, &mut self.offsets);
            let k = &g.inner_offsets[t];
            for (m, &offset) in self.offsets.iter().enumerate() {
                let from = &data[self.outer[t] + offset..];
                for (to, &k) in r[m * inner..][..inner].iter_mut().zip(k) {
                    *to = *to * from[k];
                }
                if target && g.partners && t > 0 {
                    for (to, &k) in self.partners[m * inner..][..inner].iter_mut().zip(k) {
                        *to = *to * from[k];
                    }
                }
            }
        }
        // Rows that are not there are zero.
        let padded = rows.1.next_multiple_of(PANEL);
        self.r[rows.1 * inner..padded * inner].fill(T::ZERO);
    }

    /// Forms `C` for a block of lanes, and the partners' product where the target is among them.
    fn form_lanes(&mut self, lanes: (usize, usize)) {
        let g = self.geometry;
        let ld = lanes.1.next_multiple_of(T::MAX_LANES);
        self.lanes = lanes;
        self.ld = ld;
        g.lanes.data_offsets(lanes.0, lanes.1, &mut self.offsets);
        runs(&self.offsets, &mut self.runs);
        let target = g.side == Side::Lanes;
        if target && g.partners {
            self.partners.clear();
            self.partners.resize(g.inner * ld, T::ONE);
        }
        let mut first = true;
        for (t, data) in self.tensors.iter().enumerate().filter(|&(t, _)| g.sides[t] == Side::Lanes)
        {
            g.lanes.offsets(t, lanes.0, lanes.1, &mut self.offsets);
            let offsets = &self.offsets;
            let contiguous = is_contiguous(offsets);
            for k in 0..g.inner {
                let from = &data[self.outer[t] + g.inner_offsets[t][k]..];
                let to = &mut self.c[k * ld..][..lanes.1];
                match (first, contiguous) {
                    (true, true) => to.copy_from_slice(&from[offsets[0]..][..lanes.1]),
                    (true, false) => {
                        to.iter_mut().zip(offsets).for_each(|(to, &n)| *to = from[n]);
                    }
                    (false, true) => {
                        let from = &from[offsets[0]..][..lanes.1];
                        to.iter_mut().zip(from).for_each(|(to, &x)| *to = *to * x);
                    }
                    (false, false) => {
                        to.iter_mut().zip(offsets).for_each(|(to, &n)| *to = *to * from[n]);
                    }
                }
                if target && g.partners && t > 0 {
                    let to = &mut self.partners[k * ld..][..lanes.1];
                    to.iter_mut().zip(offsets).for_each(|(to, &n)| *to = *to * from[n]);
                }
            }
            first = false;
        }
        // Lanes that are not there are zero, so that they add nothing whatever stands in `a`.
        for row in self.c[..g.inner * ld].chunks_exact_mut(ld) {
            if first {
                row[..lanes.1].fill(T::ONE);
            }
            row[lanes.1..].fill(T::ZERO);
        }
    }

    /// Computes one tile and adds its share to the running sums, a strip of rows at a time: what is
    /// formed for a strip stays in the first-level cache until it is summed up.
    fn tile(&mut self) {
        let step = self.geometry.strip_rows;
        for start in (0..self.rows.1).step_by(step) {
            self.strip(start, step.min(self.rows.1 - start));
        }
    }

    /// Asks for the data of some rows, two panels below those that begin at `row`. Pieces of a
    /// kilobyte or less, far apart: too short for processors to see them coming. And not of many rows at
    /// once, as a processor waits where more than a dozen lines are on their way.
    #[inline(always)]
    fn prefetch(&self, row: usize, rows: usize) {
        if self.source.zeros {
            return;
        }
        let row = row + 2 * PANEL;
        for row in row..row + rows {
            let (row, shift) = match self.row_offsets.get(row) {
                Some(&offset) => (offset, 0),
                // The next tile of the same rows most likely begins where this one ends.
                None if self.geometry.side == Side::Rows => {
                    match self.row_offsets.get(row - self.rows.1) {
                        Some(&offset) => (offset, self.lanes.1),
                        None => return,
                    }
                }
                None => return,
            };
            for run in self.runs.iter().filter(|run| run.stride == 1) {
                let at = self.data_outer + row + run.offset + shift;
                self.source.data.values().prefetch(at, run.len);
            }
        }
    }

    fn strip(&mut self, start: usize, rows: usize) {
        let g = self.geometry;
        let wants = self.source.wants;
        let (ld, inner) = (self.ld, g.inner);
        let padded = rows.next_multiple_of(PANEL);
        let r = match self.place {
            Some(place) => &self.tensors[place.tensor][place.offset..],
            None => &self.r,
        };
        let r = &r[start * inner..][..padded * inner];
        let c = &self.c[..inner * ld];
        for first in (0..rows).step_by(g.band_rows) {
            let rows = g.band_rows.min(rows - first);
            let padded = rows.next_multiple_of(PANEL);
            let band = first * ld..(first + padded) * ld;
            self.prefetch(start + first, padded / 2);
            if self.source.tape.reads_y() {
                let r = &r[first * inner..][..padded * inner];
                let y = &mut self.y[..padded * ld];
                kernel::product(self.arch, r, c, inner, ld, ld, self.source.floor, y);
            }
            self.prefetch(start + first + padded / 2, padded / 2);
            let sums = self.arch.dispatch(Evaluate {
                source: self.source,
                rows: &self.row_offsets[start + first..][..rows],
                runs: &self.runs,
                data_outer: self.data_outer,
                lanes: self.lanes.1,
                ld,
                y: &self.y,
                a: if wants.numerator { &mut self.a[band.clone()] } else { &mut [] },
                b: if wants.denominator { &mut self.b[band] } else { &mut [] },
                entries: &mut self.entries,
            });
            self.losses.train += sums.train;
            self.losses.validation += sums.validation;
            self.losses.held_out += sums.held_out;
        }

        let [numerator, denominator] = &mut self.sums;
        let wanted =
            [(wants.numerator, &self.a, numerator), (wants.denominator, &self.b, denominator)];
        for (_, entries, sums) in wanted.into_iter().filter(|(wanted, ..)| *wanted) {
            match g.side {
                Side::Rows => {
                    let at = (start, padded);
                    kernel::reduce_rows(self.arch, entries, c, at, inner, ld, ld, sums);
                }
                Side::Lanes => {
                    kernel::reduce_lanes(self.arch, entries, r, rows, inner, ld, ld, sums);
                }
            }
        }
    }

    /// Moves the running sums to double precision, times the partners' product.
    fn flush(&mut self, side: (usize, usize), part: &mut Part) {
        let g = self.geometry;
        let (inner, ld) = (g.inner, self.ld);
        let map = &g.target_inner_map;
        // Where each index of the block stands in the part.
        let mut places = Vec::new();
        if g.disjoint {
            places.extend(0..side.1);
        } else {
            let axis = if g.side == Side::Rows { &g.rows } else { &g.lanes };
            // The target's offsets along its side, in units of its own side index.
            axis.offsets(0, side.0, side.1, &mut places);
            if g.side == Side::Rows {
                places.iter_mut().for_each(|p| *p /= g.target_inner);
            }
        }
        let len = part.len;
        let targets = [&mut part.numerator, &mut part.denominator];
        for (sums, to) in self.sums.iter_mut().zip(targets) {
            if to.is_empty() {
                continue;
            }
            match g.side {
                Side::Rows => {
                    self.collected.clear();
                    self.collected.resize(side.1 * inner, T::ZERO);
                    kernel::collect_rows(self.arch, sums, &mut self.collected);
                    for (m, &place) in places.iter().enumerate() {
                        for k in 0..inner {
                            let mut value = self.collected[m * inner + k].to_f64();
                            if g.partners {
                                value *= self.partners[m * inner + k].to_f64();
                            }
                            to[place * g.target_inner + map[k]] += value;
                        }
                    }
                    // Padding rows have sums too; they belong to nobody.
                    sums.fill(T::ZERO);
                }
                Side::Lanes => {
                    for k in 0..inner {
                        let from = &mut sums[k * ld..][..ld];
                        for (n, &place) in places.iter().enumerate() {
                            let mut value = from[n].to_f64();
                            if g.partners {
                                value *= self.partners[k * ld + n].to_f64();
                            }
                            to[map[k] * len + place] += value;
                        }
                        from.fill(T::ZERO);
                    }
                }
            }
        }
    }
}

/// The elementwise part of a tile. A type of its own, and not a closure, as only what is inlined
/// into the dispatched function is compiled for its instruction set.
struct Evaluate<'a, T> {
    source: &'a Source<'a, T>,
    /// The offsets of the rows.
    rows: &'a [usize],
    runs: &'a [Run],
    data_outer: usize,
    lanes: usize,
    ld: usize,
    y: &'a [T],
    a: &'a mut [T],
    b: &'a mut [T],
    entries: &'a mut Entries<T>,
}

impl<T: Elementwise> WithSimd for Evaluate<'_, T> {
    type Output = Sums;

    /// Computes `a` and `b`, times the training weights, and the losses.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Sums {
        let Evaluate { source, rows, runs, data_outer, lanes, ld, y, a, b, entries } = self;
        let wants = source.wants;
        let weighs = source.weighs();
        let [validation, held_out] = source.withheld();
        let mut sums = Sums::default();
        // A few hundred entries at a time: what is read and what instructions leave for one another
        // stays in the first-level cache beside the tile, and no loop is too short.
        let step = (CHUNK / ld).max(1);
        let mut first = 0;
        while first < rows.len() {
            let rows = &rows[first..rows.len().min(first + step)];
            let n = rows.len() * ld;
            for (m, row) in rows.iter().enumerate() {
                entries.fill(simd, source, runs, data_outer + row, lanes, m * ld..(m + 1) * ld);
            }

            let range = first * ld..first * ld + n;
            let y = &y[range.clone()];
            let a = if wants.numerator { &mut a[range.clone()] } else { &mut [] };
            let b = if wants.denominator { &mut b[range] } else { &mut [] };
            let loss = if wants.losses { &mut entries.loss[..n] } else { &mut [] };
            // At most one loss has side tensors, and one of them.
            let side: &[T] = match entries.sides.first() {
                Some(side) => &side[..n],
                None => &[],
            };
            let sides: &[&[T]] = if entries.sides.is_empty() { &[] } else { &[side] };
            // One call for all cases: it is inlined, and large.
            let (mut all, from, to): ([&mut [T]; 3], usize, usize) =
                match (wants.numerator, wants.denominator) {
                    (true, true) => ([&mut *a, &mut *b, loss], 0, 2),
                    (true, false) => ([&mut [], &mut *a, loss], 1, 2),
                    (false, true) => ([&mut [], &mut *b, loss], 1, 2),
                    _ => ([&mut [], &mut [], loss], 2, 2),
                };
            let to = to + usize::from(wants.losses);
            let scratch = &mut entries.scratch;
            source.tape.run_with(simd, &entries.x[..n], y, sides, scratch, &mut all[from..to]);

            if weighs {
                let train = &entries.train[..n];
                if wants.numerator {
                    weigh(a, train);
                }
                if wants.denominator {
                    weigh(b, train);
                }
            }
            if wants.losses {
                // Lanes that are not there have losses, too.
                let (step, lanes) = if lanes == ld { (n, n) } else { (ld, lanes) };
                let mut start = 0;
                while start < n {
                    let range = start..start + lanes;
                    let loss = &entries.loss[range.clone()];
                    sums.train += match weighs {
                        true => weighted_sum(loss, &entries.train[range.clone()]),
                        false => sum(loss),
                    };
                    if validation {
                        sums.validation += weighted_sum(loss, &entries.validation[range.clone()]);
                    }
                    if held_out {
                        sums.held_out += weighted_sum(loss, &entries.held_out[range]);
                    }
                    start += step;
                }
            }
            first += step;
        }
        sums
    }
}

impl<T: Elementwise> Source<'_, T> {
    /// Whether cells have weights, if only 0 and 1.
    #[inline(always)]
    fn weighs(&self) -> bool {
        self.roles.is_some() || self.data.weights().is_some()
    }

    /// Whether losses of cells withheld for validation are asked for, and of those held out.
    #[inline(always)]
    fn withheld(&self) -> [bool; 2] {
        let asked = self.wants.losses && self.roles.is_some();
        let any = |role: Role| asked && self.data.cells(role) > 0;
        [any(Role::Validation), any(Role::HeldOut)]
    }
}

impl<T: Elementwise> Entries<T> {
    /// Reads the entries of a row, to a range of those that are worked on together.
    #[inline(always)]
    fn fill<S: Simd>(
        &mut self,
        simd: S,
        source: &Source<'_, T>,
        runs: &[Run],
        at: usize,
        lanes: usize,
        range: Range<usize>,
    ) {
        let data = source.data;
        let x = &mut self.x[range.clone()];
        // Where all data are 0, `x` is from the beginning.
        if !source.zeros {
            for run in runs {
                data.values().load(at + run.offset, run.stride, &mut x[run.start..][..run.len]);
            }
            if source.scale != T::ONE {
                x.iter_mut().for_each(|x| *x = *x * source.scale);
            }
            // Lanes that are not there get a harmless value.
            x[lanes..].fill(T::ONE);
        }

        let [validation, held_out] = source.withheld();
        if let Some(roles) = source.roles {
            let train = &mut self.train[range.clone()];
            let v = &mut self.validation[range.clone()];
            let h = &mut self.held_out[range.clone()];
            for run in runs {
                let range = run.start..run.start + run.len;
                roles.expand(
                    &self.indicators,
                    at + run.offset,
                    run.stride,
                    &mut train[range.clone()],
                    if validation { Some(&mut v[range.clone()]) } else { None },
                    if held_out { Some(&mut h[range.clone()]) } else { None },
                );
            }
            // A missing entry may hold anything, NaN included: it must not reach a sum. Withheld
            // entries are inside the domain, and have no weight.
            if data.cells(Role::Missing) > 0 {
                let missing = &mut self.weight[range.clone()];
                for run in runs {
                    let to = &mut missing[run.start..run.start + run.len];
                    roles.indicator(
                        &self.indicators,
                        Role::Missing,
                        at + run.offset,
                        run.stride,
                        to,
                    );
                }
                // What stands behind the lanes is 1 already, or not looked at.
                missing[lanes..].fill(T::ZERO);
                let (x, _) = T::as_vectors_mut::<S>(x);
                let one = T::splat(simd, T::ONE);
                // Chosen in registers: a loop that writes only some of `x` is made of masked
                // stores, which some processors take twenty cycles for.
                for (x, &missing) in x.iter_mut().zip(T::as_vectors::<S>(missing).0) {
                    *x = T::choose(simd, missing, one, *x);
                }
            }
        }
        if let Some(weights) = data.weights() {
            let train = &mut self.train[range.clone()];
            let weight = &mut self.weight[range.clone()];
            for run in runs {
                weights.load(at + run.offset, run.stride, &mut weight[run.start..][..run.len]);
            }
            weight[lanes..].fill(T::ZERO);
            match source.roles {
                Some(_) => {
                    train.iter_mut().zip(&*weight).for_each(|(t, &w)| *t = *t * w);
                    if validation {
                        let v = self.validation[range.clone()].iter_mut();
                        v.zip(&*weight).for_each(|(t, &w)| *t = *t * w);
                    }
                    if held_out {
                        let h = self.held_out[range.clone()].iter_mut();
                        h.zip(&*weight).for_each(|(t, &w)| *t = *t * w);
                    }
                }
                None => train.copy_from_slice(weight),
            }
        }
        for (i, side) in source.sides.iter().enumerate() {
            let to = &mut self.sides[i][range.clone()];
            for run in runs {
                side.load(at + run.offset, run.stride, &mut to[run.start..][..run.len]);
            }
            to[lanes..].fill(T::ONE);
        }
    }
}

/// `x · w`, and 0 where the weight is, whatever `x` is.
#[inline(always)]
fn weighted<T: Elementwise>(x: T, w: T) -> T {
    if w > T::ZERO { x * w } else { T::ZERO }
}

#[inline(always)]
fn weigh<T: Elementwise>(values: &mut [T], weights: &[T]) {
    for (x, &w) in values.iter_mut().zip(weights) {
        *x = weighted(*x, w);
    }
}

/// Independent partial sums, so that the order does not depend on the instruction set.
const CHAINS: usize = 16;
/// As many of these side by side: an addition takes processors a few steps, in which they begin
/// others that do not wait for it.
const ABREAST: usize = 4;

#[inline(always)]
pub(super) fn sum<T: Elementwise>(values: &[T]) -> f64 {
    let mut sums = [[T::ZERO; CHAINS]; ABREAST];
    let mut chunks = values.chunks_exact(CHAINS * ABREAST);
    for chunk in &mut chunks {
        for (sums, chunk) in sums.iter_mut().zip(chunk.chunks_exact(CHAINS)) {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                *sum += x;
            }
        }
    }
    let chunks = chunks.remainder().chunks_exact(CHAINS);
    let rest: f64 = chunks.remainder().iter().map(|x| x.to_f64()).sum();
    for chunk in chunks {
        for (sum, &x) in sums[0].iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    total(&sums) + rest
}

#[inline(always)]
fn weighted_sum<T: Elementwise>(values: &[T], weights: &[T]) -> f64 {
    const STEP: usize = CHAINS * ABREAST;
    let mut sums = [[T::ZERO; CHAINS]; ABREAST];
    let n = values.len() / STEP * STEP;
    for (values, weights) in values[..n].chunks_exact(STEP).zip(weights[..n].chunks_exact(STEP)) {
        let parts = values.chunks_exact(CHAINS).zip(weights.chunks_exact(CHAINS));
        for (sums, (values, weights)) in sums.iter_mut().zip(parts) {
            for ((sum, &x), &w) in sums.iter_mut().zip(values).zip(weights) {
                *sum += weighted(x, w);
            }
        }
    }
    let end = values.len() / CHAINS * CHAINS;
    let parts = values[n..end].chunks_exact(CHAINS).zip(weights[n..end].chunks_exact(CHAINS));
    for (values, weights) in parts {
        for ((sum, &x), &w) in sums[0].iter_mut().zip(values).zip(weights) {
            *sum += weighted(x, w);
        }
    }
    let rest: f64 =
        values[end..].iter().zip(&weights[end..]).map(|(&x, &w)| weighted(x, w).to_f64()).sum();
    total(&sums) + rest
}

#[inline(always)]
fn total<T: Elementwise>(sums: &[[T; CHAINS]; ABREAST]) -> f64 {
    let [a, b, c, d] = sums;
    let mut total = 0.0;
    for (((&a, &b), &c), &d) in a.iter().zip(b).zip(c).zip(d) {
        total += ((a + b) + (c + d)).to_f64();
    }
    total
}
