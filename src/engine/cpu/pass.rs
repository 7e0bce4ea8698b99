//! The fused dense pass: numerator, denominator and losses in one reading of the data.
//!
//! Neither ŷ nor `a`, `b` or ℓ ever exist as tensors: a tile of a few rows by some hundred lanes is
//! read, its ŷ formed by a small matrix product, the loss's expressions evaluated on it, and its
//! share of `N` and `D` added by two more products, all within the second-level cache.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use std::ops::Range;

use super::geometry::{Geometry, Run, is_contiguous, runs};
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

/// Rows or lanes whose sums are kept in single precision before they move to double.
const FLUSH: usize = 32;

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
    row_offsets: Vec<usize>,
    runs: Vec<Run>,
    /// `R`, row-major and in panels; `C`; and the product of the target's partners on its side.
    r: Vec<T>,
    panels: Vec<T>,
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

/// The entries of a row of a tile.
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
        Tile {
            geometry,
            source,
            tensors,
            arch: Arch::new(),
            outer: vec![0; tensors.len()],
            data_outer: 0,
            rows: (0, 0),
            lanes: (0, 0),
            row_offsets: Vec::new(),
            runs: Vec::new(),
            r: zeros(rows * inner),
            panels: zeros(rows * inner),
            c: zeros(inner * lanes),
            partners: Vec::new(),
            offsets: Vec::new(),
            y: zeros(rows * lanes),
            a: zeros(if wants.numerator { rows * lanes } else { 0 }),
            b: zeros(if wants.denominator { rows * lanes } else { 0 }),
            entries: Entries {
                x: zeros(lanes),
                train: zeros(lanes),
                validation: zeros(lanes),
                held_out: zeros(lanes),
                weight: zeros(lanes),
                loss: zeros(lanes),
                sides: vec![zeros(lanes); source.sides.len()],
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
            if self.pending == FLUSH || last || moves {
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
        g.rows.data_offsets(rows.0, rows.1, &mut self.row_offsets);
        let r = &mut self.r[..rows.1 * inner];
        r.fill(T::ONE);
        let target = g.side == Side::Rows;
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
        // Panels of a few rows, inner-major; rows that are not there are zero.
        for (p, panel) in self.panels.chunks_exact_mut(PANEL * inner).enumerate() {
            for m in 0..PANEL {
                let row = p * PANEL + m;
                for k in 0..inner {
                    panel[k * PANEL + m] = if row < rows.1 { r[row * inner + k] } else { T::ZERO };
                }
            }
        }
    }

    /// Forms `C` for a block of lanes, and the partners' product where the target is among them.
    fn form_lanes(&mut self, lanes: (usize, usize)) {
        let g = self.geometry;
        let ld = g.block_lanes;
        self.lanes = lanes;
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
        for row in self.c.chunks_exact_mut(ld) {
            if first {
                row[..lanes.1].fill(T::ONE);
            }
            row[lanes.1..].fill(T::ZERO);
        }
    }

    /// Computes one tile and adds its share to the running sums.
    fn tile(&mut self) {
        let g = self.geometry;
        let wants = self.source.wants;
        let (ld, inner) = (g.block_lanes, g.inner);
        let width = self.lanes.1.div_ceil(T::MAX_LANES) * T::MAX_LANES;
        let padded = self.rows.1.div_ceil(PANEL) * PANEL;
        if !self.source.zeros {
            // Pieces of a kilobyte or two, far apart: too short for processors to see them coming.
            // They arrive while ŷ is formed.
            for row in &self.row_offsets {
                for run in self.runs.iter().filter(|run| run.stride == 1) {
                    let at = self.data_outer + row + run.offset;
                    self.source.data.values().prefetch(at, run.len);
                }
            }
        }
        if self.source.tape.reads_y() {
            kernel::product(
                self.arch,
                &self.panels[..padded * inner],
                &self.c,
                inner,
                width,
                ld,
                self.source.floor,
                &mut self.y,
            );
        }
        let sums = self.elementwise(width);
        self.losses.train += sums.train;
        self.losses.validation += sums.validation;
        self.losses.held_out += sums.held_out;

        let [numerator, denominator] = &mut self.sums;
        let add = |entries: &[T], sums: &mut [T]| match g.side {
            Side::Rows => {
                kernel::reduce_rows(self.arch, entries, &self.c, padded, inner, width, ld, sums);
            }
            Side::Lanes => {
                kernel::reduce_lanes(
                    self.arch,
                    entries,
                    &self.r,
                    self.rows.1,
                    inner,
                    width,
                    ld,
                    sums,
                );
            }
        };
        if wants.numerator {
            add(&self.a, numerator);
        }
        if wants.denominator {
            add(&self.b, denominator);
        }
    }

    /// Reads the entries of a tile and evaluates the loss's expressions on them.
    fn elementwise(&mut self, width: usize) -> Sums {
        let ld = self.geometry.block_lanes;
        let source = self.source;
        let (data_outer, lanes) = (self.data_outer, self.lanes.1);
        let Tile { row_offsets, runs, y, a, b, entries, arch, .. } = self;
        arch.dispatch(Evaluate {
            source,
            row_offsets,
            runs,
            data_outer,
            lanes,
            width,
            ld,
            y,
            a,
            b,
            entries,
        })
    }

    /// Moves the running sums to double precision, times the partners' product.
    fn flush(&mut self, side: (usize, usize), part: &mut Part) {
        let g = self.geometry;
        let (inner, ld) = (g.inner, g.block_lanes);
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
    row_offsets: &'a [usize],
    runs: &'a [Run],
    data_outer: usize,
    lanes: usize,
    width: usize,
    ld: usize,
    y: &'a mut [T],
    a: &'a mut [T],
    b: &'a mut [T],
    entries: &'a mut Entries<T>,
}

impl<T: Elementwise> WithSimd for Evaluate<'_, T> {
    type Output = Sums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Sums {
        let wants = self.source.wants;
        let mut sums = Sums::default();
        for (m, &row) in self.row_offsets.iter().enumerate() {
            let at = self.data_outer + row;
            let range = m * self.ld..m * self.ld + self.width;
            let y = &mut self.y[range.clone()];
            let a = if wants.numerator { &mut self.a[range.clone()] } else { &mut [] };
            let b = if wants.denominator { &mut self.b[range] } else { &mut [] };
            let row = self.entries.row(simd, self.source, self.runs, at, self.lanes, y, a, b);
            sums.train += row.train;
            sums.validation += row.validation;
            sums.held_out += row.held_out;
        }
        sums
    }
}

impl<T: Elementwise> Entries<T> {
    /// Computes `a` and `b`, times the training weights, and the losses of one row of a tile.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn row<S: Simd>(
        &mut self,
        simd: S,
        source: &Source<'_, T>,
        runs: &[Run],
        at: usize,
        lanes: usize,
        y: &mut [T],
        a: &mut [T],
        b: &mut [T],
    ) -> Sums {
        let width = y.len();
        let Source { data, wants, .. } = *source;
        let x = &mut self.x[..width];
        let train = &mut self.train[..width];
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

        let roles = source.roles;
        let (mut validation, mut held_out) = (false, false);
        if let Some(roles) = roles {
            validation = wants.losses && data.cells(Role::Validation) > 0;
            held_out = wants.losses && data.cells(Role::HeldOut) > 0;
            let v = &mut self.validation[..width];
            let h = &mut self.held_out[..width];
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
                let missing = &mut self.weight[..width];
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
        let weighted = data.weights().is_some();
        if let Some(weights) = data.weights() {
            let weight = &mut self.weight[..width];
            for run in runs {
                weights.load(at + run.offset, run.stride, &mut weight[run.start..][..run.len]);
            }
            weight[lanes..].fill(T::ZERO);
            match roles {
                Some(_) => {
                    train.iter_mut().zip(&*weight).for_each(|(t, &w)| *t = *t * w);
                    if validation {
                        let v = self.validation[..width].iter_mut();
                        v.zip(&*weight).for_each(|(t, &w)| *t = *t * w);
                    }
                    if held_out {
                        let h = self.held_out[..width].iter_mut();
                        h.zip(&*weight).for_each(|(t, &w)| *t = *t * w);
                    }
                }
                None => train.copy_from_slice(weight),
            }
        }
        for (i, side) in source.sides.iter().enumerate() {
            for run in runs {
                let to = &mut self.sides[i][run.start..][..run.len];
                side.load(at + run.offset, run.stride, to);
            }
            self.sides[i][lanes..width].fill(T::ONE);
        }

        let loss = &mut self.loss[..width];
        // At most one loss has side tensors, and one of them.
        let side: &[T] = self.sides.first().map_or(&[], |s| &s[..width]);
        let sides: &[&[T]] = if self.sides.is_empty() { &[] } else { &[side] };
        let scratch = &mut self.scratch;
        // One call for all cases: it is inlined, and large.
        let (mut all, from, to): ([&mut [T]; 3], usize, usize) =
            match (wants.numerator, wants.denominator) {
                (true, true) => ([&mut *a, &mut *b, loss], 0, 2),
                (true, false) => ([&mut [], &mut *a, loss], 1, 2),
                (false, true) => ([&mut [], &mut *b, loss], 1, 2),
                _ => ([&mut [], &mut [], loss], 2, 2),
            };
        let to = to + usize::from(wants.losses);
        source.tape.run_with(simd, x, y, sides, scratch, &mut all[from..to]);

        if roles.is_some() || weighted {
            if wants.numerator {
                weigh(a, train);
            }
            if wants.denominator {
                weigh(b, train);
            }
        }
        let mut sums = Sums::default();
        if wants.losses {
            let loss = &loss[..lanes];
            sums.train = match roles.is_some() || weighted {
                true => weighted_sum(loss, train),
                false => sum(loss),
            };
            if validation {
                sums.validation = weighted_sum(loss, &self.validation[..lanes]);
            }
            if held_out {
                sums.held_out = weighted_sum(loss, &self.held_out[..lanes]);
            }
        }
        sums
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

#[inline(always)]
pub(super) fn sum<T: Elementwise>(values: &[T]) -> f64 {
    let mut sums = [T::ZERO; CHAINS];
    let chunks = values.chunks_exact(CHAINS);
    let rest: f64 = chunks.remainder().iter().map(|x| x.to_f64()).sum();
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    sums.iter().map(|x| x.to_f64()).sum::<f64>() + rest
}

#[inline(always)]
fn weighted_sum<T: Elementwise>(values: &[T], weights: &[T]) -> f64 {
    let mut sums = [T::ZERO; CHAINS];
    let n = values.len() / CHAINS * CHAINS;
    for (values, weights) in values[..n].chunks_exact(CHAINS).zip(weights[..n].chunks_exact(CHAINS))
    {
        for ((sum, &x), &w) in sums.iter_mut().zip(values).zip(weights) {
            *sum += weighted(x, w);
        }
    }
    let rest: f64 =
        values[n..].iter().zip(&weights[n..]).map(|(&x, &w)| weighted(x, w).to_f64()).sum();
    sums.iter().map(|x| x.to_f64()).sum::<f64>() + rest
}
