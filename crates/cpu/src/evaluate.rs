//! The elementwise part of a pass: `a`, `b` and the losses of a few rows of a tile.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::geometry::Run;
use super::pass::Source;
use nneinfact_core::data::Role;
use nneinfact_core::engine::LossSums;
use nneinfact_core::loss::{Scratch, weighted};
use nneinfact_simd::{Aligned, Elementwise};

/// Entries that the loss's expressions are evaluated on at a time, if rows are not longer.
const CHUNK: usize = 768;

/// The entries of a few rows.
pub(super) struct Entries<T> {
    pub x: Aligned<T>,
    train: Aligned<T>,
    validation: Aligned<T>,
    held_out: Aligned<T>,
    weight: Aligned<T>,
    loss: Aligned<T>,
    sides: Vec<Aligned<T>>,
    scratch: Scratch<T>,
}

impl<T: Elementwise> Entries<T> {
    /// Room for so many rows of at most so many lanes, and for some hundreds of entries at least.
    pub fn new(source: &Source<'_, T>, rows: usize, lanes: usize) -> Entries<T> {
        let chunk = (rows * lanes).max(CHUNK);
        let room = |wanted: bool| Aligned::zeros(if wanted { chunk } else { 0 });
        let weighs = source.weighs();
        Entries {
            x: room(true),
            // Where nothing has a weight, it may tell cells from padding.
            train: room(true),
            validation: room(weighs),
            held_out: room(weighs),
            weight: room(weighs),
            loss: room(source.wants.losses),
            sides: vec![room(true); source.sides.len()],
            scratch: Scratch::default(),
        }
    }

    /// The weights for training, for validation and of cells held out.
    pub fn weights(&self) -> [&[T]; 3] {
        [&self.train, &self.validation, &self.held_out]
    }

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
                    simd,
                    at + run.offset,
                    run.stride,
                    &mut train[range.clone()],
                    if validation { Some(&mut v[range.clone()]) } else { None },
                    if held_out { Some(&mut h[range.clone()]) } else { None },
                );
            }
            for weights in [train, v, h] {
                weights[lanes..].fill(T::ZERO);
            }
            // A missing entry may hold anything, NaN included: it must not reach a sum. Withheld
            // entries are inside the domain, and have no weight.
            if data.count(Role::Missing) > 0 {
                let missing = &mut self.weight[range.clone()];
                for run in runs {
                    let to = &mut missing[run.start..run.start + run.len];
                    roles.indicator(simd, Role::Missing, at + run.offset, run.stride, to);
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

/// A few rows of a tile, and where their entries are read to.
pub(super) struct Band<'a, T> {
    pub source: &'a Source<'a, T>,
    /// The offsets of the rows, and of those to ask for early: the rows after them, or all from the first of
    /// these on where they are worked on a few at a time.
    pub rows: &'a [usize],
    pub ahead: &'a [usize],
    pub runs: &'a [Run],
    pub data_outer: usize,
    pub lanes: usize,
    /// Elements from one row of a block to the next.
    pub ld: usize,
    pub entries: &'a mut Entries<T>,
    pub losses: &'a mut Losses,
}

impl<T: Elementwise> Band<'_, T> {
    /// Reads the entries of the rows from `first` on, as many as are worked on together. Returns the
    /// number of rows.
    #[inline(always)]
    pub fn read<S: Simd>(&mut self, simd: S, first: usize, most: usize) -> usize {
        let rows = most.min(self.rows.len() - first);
        for (m, row) in self.rows[first..first + rows].iter().enumerate() {
            let (at, range) = (self.data_outer + row, m * self.ld..(m + 1) * self.ld);
            self.entries.fill(simd, self.source, self.runs, at, self.lanes, range);
        }
        rows
    }

    /// Asks for some lanes of some rows of those that come a while after these. Early, as pieces of a
    /// kilobyte or less, far apart, are too short for processors to see them coming; and little at a
    /// time, as they wait where more than a dozen lines are on their way.
    #[inline(always)]
    pub fn look_ahead(&self, rows: Range<usize>, lanes: Range<usize>) {
        let source = self.source;
        let rows = &self.ahead[rows.start.min(self.ahead.len())..rows.end.min(self.ahead.len())];
        for run in self.runs.iter().filter(|run| run.stride == 1) {
            let end = run.start + run.len;
            let (from, to) = (lanes.start.max(run.start), lanes.end.min(end));
            if from >= to {
                continue;
            }
            let start = self.data_outer.wrapping_add(run.offset);
            let (part, last) = (from - run.start..to - run.start, to == end);
            if !source.zeros {
                source.data.values().prefetch(start, rows, part.clone(), last);
            }
            if let Some(roles) = source.roles {
                roles.prefetch(start, rows, part.clone(), last);
            }
            if let Some(weights) = source.data.weights() {
                weights.prefetch(start, rows, part.clone(), last);
            }
            for side in source.sides {
                side.prefetch(start, rows, part.clone(), last);
            }
        }
    }

    /// Where nothing has a weight, gives cells one of 1, and padding one of 0: from a lane of each row on.
    #[inline(always)]
    pub fn mark(&mut self, rows: usize, from: usize) {
        for row in self.entries.train[..rows * self.ld].chunks_exact_mut(self.ld) {
            row[from..self.lanes].fill(T::ONE);
            row[self.lanes..].fill(T::ZERO);
        }
    }

    /// The parts of `n` entries that are of cells: all of them, or row by row those before the padding.
    #[inline(always)]
    fn cells(&self, n: usize) -> impl Iterator<Item = Range<usize>> + use<T> {
        let (step, lanes) = if self.lanes == self.ld { (n, n) } else { (self.ld, self.lanes) };
        (0..n).step_by(step).map(move |start| start..start + lanes)
    }
}

/// The elementwise part of a tile. A type of its own, and not a closure, as only what is inlined
/// into the dispatched function is compiled for its instruction set.
pub(super) struct Evaluate<'a, T> {
    pub band: Band<'a, T>,
    pub y: &'a [T],
    pub a: &'a mut [T],
    pub b: &'a mut [T],
}

impl<T: Elementwise> WithSimd for Evaluate<'_, T> {
    type Output = ();

    /// Computes `a` and `b`, times the training weights, and adds up the losses.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Evaluate { mut band, y, a, b } = self;
        let (source, ld) = (band.source, band.ld);
        let wants = source.wants;
        let weighs = source.weighs();
        let mut first = 0;
        while first < band.rows.len() {
            // Some hundreds of entries, so that what is read and what instructions leave for one another
            // stays in the first-level cache beside the tile, and no loop is too short.
            let rows = band.read(simd, first, (CHUNK / ld).max(1));
            band.look_ahead(first..first + rows, 0..ld);
            let n = rows * ld;
            let range = first * ld..first * ld + n;
            first += rows;
            let cells = band.cells(n);
            let entries = &mut *band.entries;
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
                band.losses.add(source, entries, cells);
            }
        }
    }
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

/// Partial sums of losses by the role of their cells. They become one number each when a tile is
/// done, which takes longer than adding a block to them.
#[derive(Default)]
pub(super) struct Losses {
    train: [f64; CHAINS],
    validation: [f64; CHAINS],
    held_out: [f64; CHAINS],
}

impl Losses {
    /// Adds the losses of some entries, those of cells: padding has losses, too.
    #[inline(always)]
    fn add<T: Elementwise>(
        &mut self,
        source: &Source<'_, T>,
        entries: &Entries<T>,
        cells: impl Iterator<Item = Range<usize>>,
    ) {
        let weighs = source.weighs();
        let [validation, held_out] = source.withheld();
        for range in cells {
            let loss = &entries.loss[range.clone()];
            match weighs {
                true => add_weighted(loss, &entries.train[range.clone()], &mut self.train),
                false => add(loss, &mut self.train),
            }
            if validation {
                add_weighted(loss, &entries.validation[range.clone()], &mut self.validation);
            }
            if held_out {
                add_weighted(loss, &entries.held_out[range], &mut self.held_out);
            }
        }
    }

    /// Adds some sums for each of the roles.
    #[inline(always)]
    pub fn collect<T: Elementwise>(&mut self, sums: &[T], each: usize) {
        let roles = [&mut self.train, &mut self.validation, &mut self.held_out];
        for (to, from) in roles.into_iter().zip(sums.chunks_exact(each)) {
            for (i, x) in from.iter().enumerate() {
                to[i % CHAINS] += x.to_f64();
            }
        }
    }

    /// Their sums. What is left is nothing.
    pub fn take(&mut self) -> LossSums {
        let Losses { train, validation, held_out } = std::mem::take(self);
        let [train, validation, held_out] = [train, validation, held_out].map(|x| x.iter().sum());
        LossSums { train, validation, held_out, ..LossSums::default() }
    }
}

/// The sum of some values.
#[inline(always)]
pub(super) fn sum<T: Elementwise>(values: &[T]) -> f64 {
    let mut sums = [0.0; CHAINS];
    add(values, &mut sums);
    sums.iter().sum()
}

#[inline(always)]
fn add<T: Elementwise>(values: &[T], to: &mut [f64; CHAINS]) {
    let (chunks, rest) = values.as_chunks::<{ CHAINS * ABREAST }>();
    // One loop over all sums, which is what becomes vectors in registers.
    let mut sums = [T::ZERO; CHAINS * ABREAST];
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    let (chunks, rest) = rest.as_chunks::<CHAINS>();
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum += x;
    }
    collect(&sums, to);
}

#[inline(always)]
fn add_weighted<T: Elementwise>(values: &[T], weights: &[T], to: &mut [f64; CHAINS]) {
    let (chunks, rest) = values.as_chunks::<{ CHAINS * ABREAST }>();
    let (chunk_weights, rest_weights) = weights.as_chunks::<{ CHAINS * ABREAST }>();
    let mut sums = [T::ZERO; CHAINS * ABREAST];
    for (chunk, weights) in chunks.iter().zip(chunk_weights) {
        for ((sum, &x), &w) in sums.iter_mut().zip(chunk).zip(weights) {
            *sum += weighted(x, w);
        }
    }
    let (chunks, rest) = rest.as_chunks::<CHAINS>();
    let (chunk_weights, rest_weights) = rest_weights.as_chunks::<CHAINS>();
    for (chunk, weights) in chunks.iter().zip(chunk_weights) {
        for ((sum, &x), &w) in sums.iter_mut().zip(chunk).zip(weights) {
            *sum += weighted(x, w);
        }
    }
    for ((sum, &x), &w) in sums.iter_mut().zip(rest).zip(rest_weights) {
        *sum += weighted(x, w);
    }
    collect(&sums, to);
}

#[inline(always)]
fn collect<T: Elementwise>(sums: &[T; CHAINS * ABREAST], to: &mut [f64; CHAINS]) {
    let ([a, b, c, d], _) = sums.as_chunks::<CHAINS>() else { return };
    // Loop by loop, as each becomes a few vectors, and all at once do not.
    let (mut left, mut right) = (*a, *c);
    for ((left, right), (&b, &d)) in left.iter_mut().zip(&mut right).zip(b.iter().zip(d)) {
        *left += b;
        *right += d;
    }
    for (left, &right) in left.iter_mut().zip(&right) {
        *left += right;
    }
    for (to, &sum) in to.iter_mut().zip(&left) {
        *to += sum.to_f64();
    }
}
