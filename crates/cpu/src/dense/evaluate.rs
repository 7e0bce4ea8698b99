//! The elementwise part of a pass: reading entries, and `a`, `b` and the losses of a row panel.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::axis::Run;
use super::work::Source;
use crate::tape::run_tape;
use nneinfact_core::data::Role;
use nneinfact_core::engine::LossSums;
use nneinfact_core::loss::{Scratch, weighted};
use nneinfact_simd::{Aligned, Elementwise};

/// Entries that the loss's expressions are evaluated on at a time, if rows are not longer.
const CHUNK: usize = 768;

/// Buffers for the entries of a few rows: what is read of them, and their losses.
pub(crate) struct EntryBlock<T> {
    pub x: Aligned<T>,
    train: Aligned<T>,
    validation: Aligned<T>,
    held_out: Aligned<T>,
    weight: Aligned<T>,
    loss: Aligned<T>,
    entry_parameters: Vec<Aligned<T>>,
    scratch: Scratch<T>,
}

impl<T: Elementwise> EntryBlock<T> {
    /// Room for so many rows of at most so many columns, and for some hundreds of entries at least.
    pub fn new(source: &Source<'_, T>, rows: usize, columns: usize) -> EntryBlock<T> {
        let chunk = (rows * columns).max(CHUNK);
        let room = |wanted: bool| Aligned::zeros(if wanted { chunk } else { 0 });
        let weighs = source.weighs();
        EntryBlock {
            x: room(true),
            // Where nothing has a weight, it may tell entries from padding.
            train: room(true),
            validation: room(weighs),
            held_out: room(weighs),
            weight: room(weighs),
            loss: room(source.wants.losses),
            entry_parameters: vec![room(true); source.entry_parameters.len()],
            scratch: Scratch::default(),
        }
    }

    /// The weights for training, for validation and of held-out entries.
    pub fn weights(&self) -> [&[T]; 3] {
        [&self.train, &self.validation, &self.held_out]
    }
}

/// Reads the entries of some rows. It is compiled once for every instruction set and precision, and not
/// inlined: it has a loop for each of the types that data may have.
#[inline(always)]
fn read_rows<S: Simd, T: Elementwise>(simd: S, read: ReadRows<'_, T>) {
    read.with_simd(simd);
}

/// The arguments of [`read_rows`].
struct ReadRows<'a, T> {
    entries: &'a mut EntryBlock<T>,
    source: &'a Source<'a, T>,
    runs: &'a [Run],
    /// The offset of the batch index in the data, and of each of the rows from there on.
    data_batch: usize,
    rows: &'a [usize],
    columns: usize,
    /// Elements from one row of the block to the next.
    ld: usize,
}

impl<T: Elementwise> WithSimd for ReadRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for (m, row) in self.rows.iter().enumerate() {
            self.row(simd, self.data_batch + row, m * self.ld..(m + 1) * self.ld);
        }
    }
}

impl<T: Elementwise> ReadRows<'_, T> {
    /// Reads the row at an offset of the data to a range of the block.
    #[inline(always)]
    fn row<S: Simd>(&mut self, simd: S, at: usize, range: Range<usize>) {
        let ReadRows { source, runs, columns, .. } = *self;
        let entries = &mut *self.entries;
        let data = source.data;
        let x = &mut entries.x[range.clone()];
        // Where every datum counts as 0, `x` is 0 from the beginning.
        if !source.zeros {
            for run in runs {
                data.values().load(at + run.offset, run.stride, &mut x[run.start..][..run.len]);
            }
            if source.scale != T::ONE {
                x.iter_mut().for_each(|x| *x = *x * source.scale);
            }
            // Padding columns get a harmless value.
            x[columns..].fill(T::ONE);
        }

        self.weights(simd, at, range.clone());
        let entries = &mut *self.entries;
        for (from, to) in source.entry_parameters.iter().zip(&mut entries.entry_parameters) {
            let to = &mut to[range.clone()];
            for run in runs {
                from.load(at + run.offset, run.stride, &mut to[run.start..][..run.len]);
            }
            to[columns..].fill(T::ONE);
        }
    }

    /// Reads the roles and weights of a row, and replaces its missing values.
    #[inline(always)]
    fn weights<S: Simd>(&mut self, simd: S, at: usize, range: Range<usize>) {
        let ReadRows { source, runs, columns, .. } = *self;
        let entries = &mut *self.entries;
        let data = source.data;
        let [validation, held_out] = source.withheld();
        if let Some(roles) = source.roles {
            let train = &mut entries.train[range.clone()];
            let v = &mut entries.validation[range.clone()];
            let h = &mut entries.held_out[range.clone()];
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
                weights[columns..].fill(T::ZERO);
            }
            // A missing entry may hold anything, NaN included: it must not reach a sum. Withheld
            // entries are inside the domain, and have no weight.
            if data.count(Role::Missing) > 0 {
                let missing = &mut entries.weight[range.clone()];
                for run in runs {
                    let to = &mut missing[run.start..run.start + run.len];
                    roles.indicator(simd, Role::Missing, at + run.offset, run.stride, to);
                }
                // Padding columns hold 1 already, or are not looked at.
                missing[columns..].fill(T::ZERO);
                let (x, _) = T::as_vectors_mut::<S>(&mut entries.x[range.clone()]);
                let one = T::splat(simd, T::ONE);
                // Chosen in registers: a loop that writes only some of `x` is made of masked
                // stores, which some processors take twenty cycles for.
                for (x, &missing) in x.iter_mut().zip(T::as_vectors::<S>(missing).0) {
                    *x = T::choose(simd, missing, one, *x);
                }
            }
        }
        if let Some(weights) = data.weights() {
            let train = &mut entries.train[range.clone()];
            let weight = &mut entries.weight[range.clone()];
            for run in runs {
                weights.load(at + run.offset, run.stride, &mut weight[run.start..][..run.len]);
            }
            weight[columns..].fill(T::ZERO);
            match source.roles {
                Some(_) => {
                    train.iter_mut().zip(&*weight).for_each(|(t, &w)| *t = *t * w);
                    if validation {
                        let v = entries.validation[range.clone()].iter_mut();
                        v.zip(&*weight).for_each(|(t, &w)| *t = *t * w);
                    }
                    if held_out {
                        let h = entries.held_out[range.clone()].iter_mut();
                        h.zip(&*weight).for_each(|(t, &w)| *t = *t * w);
                    }
                }
                None => train.copy_from_slice(weight),
            }
        }
    }
}

/// A row panel of a tile, and where its entries are read to.
pub(crate) struct RowPanel<'a, T> {
    pub source: &'a Source<'a, T>,
    /// The offsets of the rows in the data.
    pub rows: &'a [usize],
    /// The offsets of the rows to prefetch: those after this panel; or, for a kernel that goes through the
    /// panel a few rows at a time, all from the first row of the panel on.
    pub ahead: &'a [usize],
    pub runs: &'a [Run],
    /// The offset of the batch index in the data.
    pub data_batch: usize,
    pub columns: usize,
    /// Elements from one row of a block to the next.
    pub ld: usize,
    pub entries: &'a mut EntryBlock<T>,
    pub losses: &'a mut LossAccumulator,
}

impl<T: Elementwise> RowPanel<'_, T> {
    /// Reads the entries of at most so many rows, from the row `first` on. Returns the number of rows.
    #[inline(always)]
    pub fn read<S: Simd>(&mut self, simd: S, first: usize, most: usize) -> usize {
        let rows = most.min(self.rows.len() - first);
        read_rows(
            simd,
            ReadRows {
                entries: self.entries,
                source: self.source,
                runs: self.runs,
                data_batch: self.data_batch,
                rows: &self.rows[first..first + rows],
                columns: self.columns,
                ld: self.ld,
            },
        );
        rows
    }

    /// Prefetches some columns of some of the rows ahead. Early, as pieces of a kilobyte or less, far
    /// apart, are too short for processors to see them coming; and little at a time, as processors wait
    /// where more than a dozen cache lines are on their way.
    #[inline(always)]
    pub fn prefetch(&self, rows: Range<usize>, columns: Range<usize>) {
        let source = self.source;
        let rows = &self.ahead[rows.start.min(self.ahead.len())..rows.end.min(self.ahead.len())];
        for run in self.runs.iter().filter(|run| run.stride == 1) {
            let end = run.start + run.len;
            let (from, to) = (columns.start.max(run.start), columns.end.min(end));
            if from >= to {
                continue;
            }
            let start = self.data_batch.wrapping_add(run.offset);
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
            for parameters in source.entry_parameters {
                parameters.prefetch(start, rows, part.clone(), last);
            }
        }
    }

    /// Where nothing has a weight, gives entries a weight of 1 and padding one of 0, from a column of each
    /// row on.
    #[inline(always)]
    pub fn weigh_padding(&mut self, rows: usize, from: usize) {
        for row in self.entries.train[..rows * self.ld].chunks_exact_mut(self.ld) {
            row[from..self.columns].fill(T::ONE);
            row[self.columns..].fill(T::ZERO);
        }
    }

    /// The ranges without padding among `n` elements of a block: all of them, or row by row those before
    /// the padding.
    #[inline(always)]
    fn unpadded(&self, n: usize) -> impl Iterator<Item = Range<usize>> + use<T> {
        let (step, columns) =
            if self.columns == self.ld { (n, n) } else { (self.ld, self.columns) };
        (0..n).step_by(step).map(move |start| start..start + columns)
    }
}

/// The elementwise part of a row panel, by the tape of any loss. A type of its own, and not a closure, as
/// only what is inlined into the dispatched function is compiled for its instruction set.
pub(crate) struct TapePanel<'a, T> {
    pub panel: RowPanel<'a, T>,
    pub y: &'a [T],
    pub a: &'a mut [T],
    pub b: &'a mut [T],
}

impl<T: Elementwise> WithSimd for TapePanel<'_, T> {
    type Output = ();

    /// Computes `a` and `b`, times the training weights, and adds up the losses.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let TapePanel { mut panel, y, a, b } = self;
        let (source, ld) = (panel.source, panel.ld);
        let wants = source.wants;
        let weighs = source.weighs();
        let mut first = 0;
        while first < panel.rows.len() {
            // Some hundreds of entries, so that what is read and what instructions leave for one another
            // stays in the first-level cache beside the tile, and no loop is too short.
            let rows = panel.read(simd, first, (CHUNK / ld).max(1));
            panel.prefetch(first..first + rows, 0..ld);
            let n = rows * ld;
            let range = first * ld..first * ld + n;
            first += rows;
            let unpadded = panel.unpadded(n);
            let entries = &mut *panel.entries;
            let y = &y[range.clone()];
            let a = if wants.numerator { &mut a[range.clone()] } else { &mut [] };
            let b = if wants.denominator { &mut b[range] } else { &mut [] };
            let loss = if wants.losses { &mut entries.loss[..n] } else { &mut [] };
            // At most one loss has entry parameters, and one of them.
            let parameter: &[T] = match entries.entry_parameters.first() {
                Some(parameter) => &parameter[..n],
                None => &[],
            };
            let parameters: &[&[T]] =
                if entries.entry_parameters.is_empty() { &[] } else { &[parameter] };
            let (mut all, from, to): ([&mut [T]; 3], usize, usize) =
                match (wants.numerator, wants.denominator) {
                    (true, true) => ([&mut *a, &mut *b, loss], 0, 2),
                    (true, false) => ([&mut [], &mut *a, loss], 1, 2),
                    (false, true) => ([&mut [], &mut *b, loss], 1, 2),
                    _ => ([&mut [], &mut [], loss], 2, 2),
                };
            let outputs = &mut all[from..to + usize::from(wants.losses)];
            let scratch = &mut entries.scratch;
            run_tape(simd, source.tape, &entries.x[..n], y, parameters, scratch, outputs);

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
                panel.losses.add(source, entries, unpadded);
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
/// As many of these side by side: an addition takes processors a few cycles, in which they begin
/// others that do not wait for it.
const UNROLL: usize = 4;

/// Partial sums of losses by the role of their entries. They become one number each when a tile is
/// done, which takes longer than adding a block to them.
#[derive(Default)]
pub(crate) struct LossAccumulator {
    train: [f64; CHAINS],
    validation: [f64; CHAINS],
    held_out: [f64; CHAINS],
}

impl LossAccumulator {
    /// Adds the losses of the entries in some ranges: padding, which is in none, has losses, too.
    #[inline(always)]
    fn add<T: Elementwise>(
        &mut self,
        source: &Source<'_, T>,
        entries: &EntryBlock<T>,
        ranges: impl Iterator<Item = Range<usize>>,
    ) {
        let weighs = source.weighs();
        let [validation, held_out] = source.withheld();
        for range in ranges {
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

    /// Adds partial sums, so many for each of the roles.
    #[inline(always)]
    pub fn collect<T: Elementwise>(&mut self, sums: &[T], each: usize) {
        let roles = [&mut self.train, &mut self.validation, &mut self.held_out];
        for (to, from) in roles.into_iter().zip(sums.chunks_exact(each)) {
            for (i, x) in from.iter().enumerate() {
                to[i % CHAINS] += x.to_f64();
            }
        }
    }

    /// Their sums. They start from 0 again.
    pub fn take(&mut self) -> LossSums {
        let LossAccumulator { train, validation, held_out } = std::mem::take(self);
        let [train, validation, held_out] = [train, validation, held_out].map(|x| x.iter().sum());
        LossSums { train, validation, held_out, ..LossSums::default() }
    }
}

/// The sum of some values.
#[inline(always)]
pub(crate) fn sum<T: Elementwise>(values: &[T]) -> f64 {
    let mut sums = [0.0; CHAINS];
    add(values, &mut sums);
    sums.iter().sum()
}

#[inline(always)]
fn add<T: Elementwise>(values: &[T], to: &mut [f64; CHAINS]) {
    let (chunks, rest) = values.as_chunks::<{ CHAINS * UNROLL }>();
    // One loop over all sums, which is what becomes vectors in registers.
    let mut sums = [T::ZERO; CHAINS * UNROLL];
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
    let (chunks, rest) = values.as_chunks::<{ CHAINS * UNROLL }>();
    let (chunk_weights, rest_weights) = weights.as_chunks::<{ CHAINS * UNROLL }>();
    let mut sums = [T::ZERO; CHAINS * UNROLL];
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
fn collect<T: Elementwise>(sums: &[T; CHAINS * UNROLL], to: &mut [f64; CHAINS]) {
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
