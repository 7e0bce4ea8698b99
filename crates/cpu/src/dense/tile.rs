//! The buffers that a thread works in, and the work on one tile.

use std::ops::Range;

use pulp::Arch;

use super::kl::{Divergences, To};
use super::evaluate::{Band, Entries, Evaluate, Losses};
use super::geometry::{Geometry, Run, is_contiguous, is_evenly_spaced, runs};
use super::kernel::{self, BOTH, PANEL};
use super::pass::{Part, Source};
use nneinfact_core::engine::LossSums;
use nneinfact_core::plan::OperandSide;
use nneinfact_simd::{Aligned, Elementwise};

/// A part of the target over a part of what is summed over, as far as it has come.
pub(crate) struct Strand<T> {
    granule: usize,
    /// Where in what is summed over it begins, and how many units of it there are.
    sum: (usize, usize),
    part: Part,
    /// Running sums of numerator and denominator, in the precision of the pass.
    sums: [Aligned<T>; 2],
    /// Tiles whose sums have not moved to double precision yet.
    pending: usize,
}

/// Some rows, and what is formed for them.
struct Rows<T> {
    /// What it was formed for.
    formed: Formed,
    /// The first, and how many.
    at: (usize, usize),
    /// Where they begin in the data, from the outer index on.
    offsets: Vec<usize>,
    /// `R`, row-major, where it has to be formed, or where it stands as it is.
    r: Aligned<T>,
    place: Option<Place>,
    /// The product of the target's partners, where it is among the rows.
    partners: Vec<T>,
}

/// Some lanes, and what is formed for them.
struct Lanes<T> {
    formed: Formed,
    at: (usize, usize),
    /// Lanes with their padding: what lies between the rows of all matrices of a tile, so that rows
    /// follow one another and many of them are one loop.
    ld: usize,
    /// Where they are in the data.
    runs: Vec<Run>,
    c: Aligned<T>,
    /// `C` turned over, where rows are summed up across the inner index.
    across: Aligned<T>,
    /// The product of the target's partners, where it is among the lanes.
    partners: Vec<T>,
}

/// Which block of a side is formed, and the outer offsets in the tensors on that side: with the same
/// ones it is the same.
#[derive(Default)]
struct Formed {
    block: Option<usize>,
    outer: Vec<usize>,
}

impl Formed {
    /// Whether it is this block at these offsets; from now on it is.
    fn is(&mut self, g: &Geometry, side: OperandSide, block: usize, outer: &[usize]) -> bool {
        let here = || outer.iter().zip(&g.sides).filter(|&(_, &s)| s == side).map(|(&o, _)| o);
        if self.block == Some(block) && self.outer.iter().copied().eq(here()) {
            return true;
        }
        self.block = Some(block);
        self.outer.clear();
        self.outer.extend(here());
        false
    }
}

/// Where `R` stands in a tensor, so that it need not be copied.
#[derive(Clone, Copy)]
struct Place {
    tensor: usize,
    offset: usize,
}

/// The buffers of a thread, and where it stands.
pub(crate) struct Tile<'a, T> {
    geometry: &'a Geometry,
    source: &'a Source<'a, T>,
    tensors: &'a [&'a [T]],
    arch: Arch,
    /// Offsets of the outer indices in each tensor.
    outer: Vec<usize>,
    data_outer: usize,
    rows: Rows<T>,
    lanes: Lanes<T>,
    /// Those on the target's side of the strands that are worked on together.
    rows_of: Vec<Rows<T>>,
    lanes_of: Vec<Lanes<T>>,
    /// Where the rows are in the data that are worked on next, from the same outer index and the same
    /// lanes on.
    ahead: Vec<usize>,
    /// Where the rows of the tile are, and those.
    upcoming: Vec<usize>,
    offsets: Vec<usize>,
    /// Whether the loss is the Kullback–Leibler divergence, which is worked on in registers, and whether
    /// it is summed up there, too.
    divergence: bool,
    summed: bool,
    y: Aligned<T>,
    a: Aligned<T>,
    b: Aligned<T>,
    entries: Entries<T>,
    losses: Losses,
    collected: Vec<T>,
    /// Strands that are done, for their memory.
    spare: Vec<Strand<T>>,
}

impl<T: Elementwise> Rows<T> {
    fn new() -> Rows<T> {
        Rows {
            formed: Formed::default(),
            at: (0, 0),
            offsets: Vec::new(),
            r: Aligned::zeros(0),
            place: None,
            partners: Vec::new(),
        }
    }
}

impl<T: Elementwise> Lanes<T> {
    fn new(geometry: &Geometry) -> Lanes<T> {
        let lanes = geometry.width;
        Lanes {
            formed: Formed::default(),
            at: (0, 0),
            ld: 0,
            runs: Vec::new(),
            c: Aligned::zeros(geometry.inner * lanes),
            across: Aligned::zeros(geometry.across.map_or(0, |stride| stride * lanes)),
            partners: Vec::new(),
        }
    }

    /// Where the first is in the data.
    fn offset(&self) -> usize {
        self.runs.first().map_or(0, |run| run.offset)
    }
}

impl<'a, T: Elementwise> Tile<'a, T> {
    pub fn new(geometry: &'a Geometry, source: &'a Source<'a, T>, tensors: &'a [&'a [T]]) -> Self {
        let lanes = geometry.width;
        let wants = source.wants;
        let divergence = source.tape.is_divergence();
        let summed = divergence && geometry.few();
        let strip = if summed { 0 } else { geometry.strip_rows * lanes };
        Tile {
            geometry,
            source,
            tensors,
            arch: Arch::new(),
            outer: vec![0; tensors.len()],
            data_outer: 0,
            rows: Rows::new(),
            lanes: Lanes::new(geometry),
            rows_of: Vec::new(),
            lanes_of: Vec::new(),
            ahead: Vec::new(),
            upcoming: Vec::new(),
            offsets: Vec::new(),
            divergence,
            summed,
            y: Aligned::zeros(if divergence { 0 } else { geometry.band_rows * lanes }),
            a: Aligned::zeros(if wants.numerator { strip } else { 0 }),
            b: Aligned::zeros(if wants.denominator { strip } else { 0 }),
            entries: Entries::new(source, if divergence { BOTH } else { 1 }, lanes),
            losses: Losses::default(),
            collected: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Works on some parts of the target, each over a range of what is summed over.
    pub fn run(&mut self, granules: Range<usize>, sum: (usize, usize)) -> Vec<Part> {
        let g = self.geometry;
        let mut strands: Vec<Strand<T>> =
            granules.map(|granule| self.begin(granule, sum)).collect();
        match g.side {
            OperandSide::Lhs => self.rows_of.resize_with(strands.len(), Rows::new),
            OperandSide::Rhs => self.lanes_of.resize_with(strands.len(), || Lanes::new(g)),
        }
        // OperandSide by side, as they have in common what is not on the target's side, which is formed once
        // for all; and what they read of the data lies side by side, too.
        for step in 0..g.steps(sum) {
            for i in 0..strands.len() {
                let next = if i + 1 < strands.len() { i + 1 } else { 0 };
                let here = strands[next].part.own == strands[i].part.own;
                self.exchange(i);
                self.form(&strands[i], step);
                self.look_ahead(next, here);
                self.step(&mut strands[i], step);
                self.exchange(i);
            }
        }
        strands.into_iter().map(|strand| self.end(strand)).collect()
    }

    /// Takes up what is formed for a strand on the target's side, or puts it aside.
    fn exchange(&mut self, strand: usize) {
        match self.geometry.side {
            OperandSide::Lhs => std::mem::swap(&mut self.rows, &mut self.rows_of[strand]),
            OperandSide::Rhs => std::mem::swap(&mut self.lanes, &mut self.lanes_of[strand]),
        }
    }

    /// Finds the rows that are worked on after those that are formed, for strand `next` of a group; `here`
    /// is whether that is at the same outer index. A guess is enough: it is what is asked for early.
    fn look_ahead(&mut self, next: usize, here: bool) {
        let g = self.geometry;
        self.ahead.clear();
        match g.side {
            OperandSide::Lhs => {
                // After the last strand come the next lanes, which most likely follow these in memory.
                let shift = if next == 0 { self.lanes.at.1 } else { 0 };
                // Of a strand alone it is put away, and empty.
                let rows = if self.rows_of.len() == 1 { &self.rows } else { &self.rows_of[next] };
                if here {
                    self.ahead.extend(rows.offsets.iter().map(|row| row + shift));
                }
            }
            OperandSide::Rhs => {
                let alone = self.lanes_of.len() == 1;
                let lanes = if alone { &self.lanes } else { &self.lanes_of[next] };
                let shift = lanes.offset().wrapping_sub(self.lanes.offset());
                if next == 0 {
                    let below = self.rows.at.0 + self.rows.at.1;
                    let len = g.band_rows.min(g.rows.len - below);
                    g.rows.data_offsets(below, len, &mut self.ahead);
                } else if here {
                    self.ahead.extend(&self.rows.offsets);
                }
                self.ahead.iter_mut().for_each(|row| *row = row.wrapping_add(shift));
            }
        }
    }

    /// A strand to which nothing has been added.
    pub fn begin(&mut self, granule: usize, sum: (usize, usize)) -> Strand<T> {
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
            sums: LossSums::default(),
        };
        match self.spare.pop() {
            // Its sums have all been moved to its part.
            Some(spare) => Strand { granule, sum, part, pending: 0, ..spare },
            None => {
                let room = |wanted| Aligned::zeros(if wanted { g.running_sums::<T>() } else { 0 });
                Strand {
                    granule,
                    sum,
                    part,
                    sums: [room(wants.numerator), room(wants.denominator)],
                    pending: 0,
                }
            }
        }
    }

    /// What has been added to a strand that has taken all of its steps.
    pub fn end(&mut self, mut strand: Strand<T>) -> Part {
        let part = std::mem::take(&mut strand.part);
        self.spare.push(strand);
        part
    }

    /// Adds some of its steps to a strand: every block of the target's side with every unit of what
    /// is summed over, in this order.
    pub fn advance(&mut self, strand: &mut Strand<T>, steps: Range<usize>) {
        // Where the next tile is, processors find out soon enough: data that stay in a file are read
        // slab by slab.
        self.ahead.clear();
        for step in steps {
            self.form(strand, step);
            self.step(strand, step);
        }
    }

    /// The block of the target's side that a step works on, and the unit of what is summed over.
    fn position(&self, strand: &Strand<T>, step: usize) -> (usize, usize) {
        let (_, blocks) = self.geometry.granule(strand.granule);
        (blocks.start + step / strand.sum.1, strand.sum.0 + step % strand.sum.1)
    }

    /// Forms `R` and `C` for a step of a strand.
    fn form(&mut self, strand: &Strand<T>, step: usize) {
        let g = self.geometry;
        let (block, unit) = self.position(strand, step);
        let (summed, other) = (unit / g.other_blocks(), unit % g.other_blocks());
        self.at_outer(g.granule(strand.granule).0, summed);
        match g.side {
            OperandSide::Lhs => {
                self.form_rows(block, g.block(block));
                self.form_lanes(other, g.other_block(other));
            }
            OperandSide::Rhs => {
                self.form_lanes(block, g.block(block));
                self.form_rows(other, g.other_block(other));
            }
        }
    }

    /// Works on the tile of a step, for which `R` and `C` are formed.
    fn step(&mut self, strand: &mut Strand<T>, step: usize) {
        let g = self.geometry;
        let (block, unit) = self.position(strand, step);
        self.tile(strand);
        let losses = self.losses.take();
        strand.part.sums.train += losses.train;
        strand.part.sums.validation += losses.validation;
        strand.part.sums.held_out += losses.held_out;

        strand.pending += 1;
        let last = unit + 1 == strand.sum.0 + strand.sum.1;
        // The partners' product changes with the outer index.
        let others = g.other_blocks();
        let moves = g.partners && (unit + 1) / others != unit / others;
        if strand.pending == g.flush || last || moves {
            self.flush(strand, g.block(block));
            strand.pending = 0;
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
    fn form_rows(&mut self, block: usize, at: (usize, usize)) {
        let g = self.geometry;
        let inner = g.inner;
        let target = g.side == OperandSide::Lhs;
        let rows = &mut self.rows;
        if rows.formed.is(g, OperandSide::Lhs, block, &self.outer) {
            return;
        }
        rows.at = at;
        g.rows.data_offsets(at.0, at.1, &mut rows.offsets);
        rows.place = None;
        let mut standing =
            g.sides.iter().enumerate().filter(|&(_, &side)| side == OperandSide::Lhs);
        if let (Some((t, _)), None) = (standing.next(), standing.next()) {
            g.rows.offsets(t, at.0, at.1, &mut self.offsets);
            let follow = g.inner_in_order[t] && is_evenly_spaced(&self.offsets, inner);
            if follow && at.1.is_multiple_of(PANEL) {
                // One tensor, whose rows follow one another just as those of `R` do.
                rows.place = Some(Place { tensor: t, offset: self.outer[t] + self.offsets[0] });
            }
        }
        if rows.place.is_none() {
            // Rows that are not there are zero.
            let padded = at.1.next_multiple_of(PANEL);
            rows.r.resize(padded * inner);
            rows.r[..at.1 * inner].fill(T::ONE);
            rows.r[at.1 * inner..].fill(T::ZERO);
            if target && g.partners {
                rows.partners.clear();
                rows.partners.resize(at.1 * inner, T::ONE);
            }
            let standing = self.tensors.iter().enumerate();
            for (t, data) in standing.filter(|&(t, _)| g.sides[t] == OperandSide::Lhs) {
                g.rows.offsets(t, at.0, at.1, &mut self.offsets);
                let k = &g.inner_offsets[t];
                for (m, &offset) in self.offsets.iter().enumerate() {
                    let from = &data[self.outer[t] + offset..];
                    for (to, &k) in rows.r[m * inner..][..inner].iter_mut().zip(k) {
                        *to = *to * from[k];
                    }
                    if target && g.partners && t > 0 {
                        for (to, &k) in rows.partners[m * inner..][..inner].iter_mut().zip(k) {
                            *to = *to * from[k];
                        }
                    }
                }
            }
        }
    }

    /// Forms `C` for a block of lanes, and the partners' product where the target is among them.
    fn form_lanes(&mut self, block: usize, at: (usize, usize)) {
        let g = self.geometry;
        let lanes = &mut self.lanes;
        if lanes.formed.is(g, OperandSide::Rhs, block, &self.outer) {
            return;
        }
        let ld = at.1.next_multiple_of(T::MAX_LANES);
        (lanes.at, lanes.ld) = (at, ld);
        g.lanes.data_offsets(at.0, at.1, &mut self.offsets);
        runs(&self.offsets, &mut lanes.runs);
        let target = g.side == OperandSide::Rhs;
        if target && g.partners {
            lanes.partners.clear();
            lanes.partners.resize(g.inner * ld, T::ONE);
        }
        let mut first = true;
        for (t, data) in
            self.tensors.iter().enumerate().filter(|&(t, _)| g.sides[t] == OperandSide::Rhs)
        {
            g.lanes.offsets(t, at.0, at.1, &mut self.offsets);
            let offsets = &self.offsets;
            let contiguous = is_contiguous(offsets);
            for k in 0..g.inner {
                let from = &data[self.outer[t] + g.inner_offsets[t][k]..];
                let to = &mut lanes.c[k * ld..][..at.1];
                match (first, contiguous) {
                    (true, true) => to.copy_from_slice(&from[offsets[0]..][..at.1]),
                    (true, false) => {
                        to.iter_mut().zip(offsets).for_each(|(to, &n)| *to = from[n]);
                    }
                    (false, true) => {
                        let from = &from[offsets[0]..][..at.1];
                        to.iter_mut().zip(from).for_each(|(to, &x)| *to = *to * x);
                    }
                    (false, false) => {
                        to.iter_mut().zip(offsets).for_each(|(to, &n)| *to = *to * from[n]);
                    }
                }
                if target && g.partners && t > 0 {
                    let to = &mut lanes.partners[k * ld..][..at.1];
                    to.iter_mut().zip(offsets).for_each(|(to, &n)| *to = *to * from[n]);
                }
            }
            first = false;
        }
        // Lanes that are not there are zero, so that they add nothing whatever stands in `a`.
        for row in lanes.c[..g.inner * ld].chunks_exact_mut(ld) {
            if first {
                row[..at.1].fill(T::ONE);
            }
            row[at.1..].fill(T::ZERO);
        }
        if let Some(stride) = g.across {
            // What stands behind the inner indices is 0 from the beginning.
            let across = &mut lanes.across[..ld * stride];
            for (k, row) in lanes.c[..g.inner * ld].chunks_exact(ld).enumerate() {
                for (to, &x) in across.chunks_exact_mut(stride).zip(row) {
                    to[k] = x;
                }
            }
        }
    }

    /// Computes one tile and adds its share to the running sums, a strip of rows at a time: what is
    /// formed for a strip stays in the first-level cache until it is summed up.
    fn tile(&mut self, strand: &mut Strand<T>) {
        self.upcoming.clear();
        self.upcoming.extend(&self.rows.offsets);
        self.upcoming.extend(&self.ahead);
        let rows = self.rows.at.1;
        let step = if self.summed { rows } else { self.geometry.strip_rows };
        for start in (0..rows).step_by(step) {
            self.strip(start, step.min(rows - start), strand);
        }
    }

    fn strip(&mut self, start: usize, rows: usize, strand: &mut Strand<T>) {
        let g = self.geometry;
        let wants = self.source.wants;
        let (ld, inner) = (self.lanes.ld, g.inner);
        let padded = rows.next_multiple_of(PANEL);
        let r = match self.rows.place {
            Some(place) => &self.tensors[place.tensor][place.offset..],
            None => &*self.rows.r,
        };
        let r = &r[start * inner..][..padded * inner];
        let c = &self.lanes.c[..inner * ld];
        // As many rows as are formed at once: by the tile, all of them.
        let at_once = if self.divergence { rows } else { g.band_rows };
        for first in (0..rows).step_by(at_once) {
            let rows = at_once.min(rows - first);
            let padded = rows.next_multiple_of(PANEL);
            let r = &r[first * inner..][..padded * inner];
            let at = start + first;
            // Those that are worked on a few rows at a time ask for the next few.
            let ahead = if self.divergence { at } else { self.upcoming.len().min(at + at_once) };
            let band = Band {
                source: self.source,
                rows: &self.upcoming[at..at + rows],
                ahead: &self.upcoming[ahead..],
                runs: &self.lanes.runs,
                data_outer: self.data_outer,
                lanes: self.lanes.at.1,
                ld,
                entries: &mut self.entries,
                losses: &mut self.losses,
            };
            if self.summed {
                let [numerator, denominator] = &mut strand.sums;
                let to = To::LossSums(g.side, start, [numerator, denominator]);
                self.arch.dispatch(Divergences { band, r, c, inner, to });
                return;
            }
            let places = first * ld..(first + padded) * ld;
            let a = if wants.numerator { &mut self.a[places.clone()] } else { &mut [] };
            let b = if wants.denominator { &mut self.b[places] } else { &mut [] };
            if self.divergence {
                let to = To::Entries([a, b]);
                self.arch.dispatch(Divergences { band, r, c, inner, to });
                continue;
            }
            if self.source.tape.reads_y() {
                let y = &mut self.y[..padded * ld];
                kernel::product(self.arch, r, c, inner, ld, ld, self.source.floor, y);
            }
            self.arch.dispatch(Evaluate { band, y: &self.y, a, b });
        }

        let [numerator, denominator] = &mut strand.sums;
        let wanted =
            [(wants.numerator, &self.a, numerator), (wants.denominator, &self.b, denominator)];
        for (_, entries, sums) in wanted.into_iter().filter(|(wanted, ..)| *wanted) {
            let entries = &entries[..padded * ld];
            match (g.side, g.across) {
                (OperandSide::Lhs, None) => {
                    let at = (start, padded);
                    kernel::reduce_rows(self.arch, entries, c, at, inner, ld, ld, sums);
                }
                (OperandSide::Lhs, Some(stride)) => {
                    let across = &self.lanes.across[..ld * stride];
                    let sums = &mut sums[start * stride..][..padded * stride];
                    kernel::reduce_across(self.arch, entries, across, ld, ld, stride, sums);
                }
                (OperandSide::Rhs, _) => {
                    kernel::reduce_lanes(self.arch, entries, r, rows, inner, ld, ld, sums);
                }
            }
        }
    }

    /// Moves the running sums of a strand to double precision, times the partners' product.
    fn flush(&mut self, strand: &mut Strand<T>, side: (usize, usize)) {
        let g = self.geometry;
        let (inner, ld) = (g.inner, self.lanes.ld);
        let map = &g.target_inner_map;
        // Where each index of the block stands in the part.
        let mut places = Vec::new();
        if g.disjoint {
            places.extend(0..side.1);
        } else {
            let axis = if g.side == OperandSide::Lhs { &g.rows } else { &g.lanes };
            // The target's offsets along its side, in units of its own side index.
            axis.offsets(0, side.0, side.1, &mut places);
            if g.side == OperandSide::Lhs {
                places.iter_mut().for_each(|p| *p /= g.target_inner);
            }
        }
        let Part { len, numerator, denominator, .. } = &mut strand.part;
        for (sums, to) in strand.sums.iter_mut().zip([numerator, denominator]) {
            if to.is_empty() {
                continue;
            }
            match g.side {
                OperandSide::Lhs => {
                    let (collected, stride): (&[T], usize) = match g.across {
                        Some(stride) => (sums, stride),
                        None => {
                            self.collected.clear();
                            self.collected.resize(side.1 * inner, T::ZERO);
                            kernel::collect_rows(self.arch, sums, &mut self.collected);
                            (&self.collected, inner)
                        }
                    };
                    if g.disjoint && !g.partners && is_contiguous(map) {
                        let rows = collected.chunks_exact(stride);
                        for (to, from) in to.chunks_exact_mut(g.target_inner).zip(rows) {
                            to.iter_mut().zip(from).for_each(|(to, &x)| *to += x.to_f64());
                        }
                    } else {
                        for (m, &place) in places.iter().enumerate() {
                            let to = &mut to[place * g.target_inner..][..g.target_inner];
                            let sums = collected[m * stride..].iter().zip(map);
                            for (k, (&x, &at)) in sums.enumerate() {
                                let mut value = x.to_f64();
                                if g.partners {
                                    value *= self.rows.partners[m * inner + k].to_f64();
                                }
                                to[at] += value;
                            }
                        }
                    }
                    // Padding rows have sums too; they belong to nobody.
                    sums.fill(T::ZERO);
                }
                OperandSide::Rhs => {
                    for k in 0..inner {
                        let from = &mut sums[k * ld..][..ld];
                        let to = &mut to[map[k] * *len..][..*len];
                        if g.disjoint && !g.partners {
                            for (to, &x) in to.iter_mut().zip(&*from) {
                                *to += x.to_f64();
                            }
                        } else {
                            for (n, &place) in places.iter().enumerate() {
                                let mut value = from[n].to_f64();
                                if g.partners {
                                    value *= self.lanes.partners[k * ld + n].to_f64();
                                }
                                to[place] += value;
                            }
                        }
                        from.fill(T::ZERO);
                    }
                }
            }
        }
    }
}
