//! The elementwise part of a pass: reading entries, and `a`, `b` and the losses of a row panel.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::axis::Run;
use super::work::Source;
use crate::tape::run_tape;
use nneinfact_core::data::Role;
use nneinfact_core::engine::LossSums;
use nneinfact_core::loss::Scratch;
use nneinfact_simd::{Aligned, Elementwise, Real};

/// Entries that the loss's expressions are evaluated on at a time, if rows are not longer.
const CHUNK: usize = 768;

/// Buffers for the entries of a few rows: what is read of them, and their losses.
pub(crate) struct EntryBlock<T> {
    pub x: Aligned<T>,
    /// The roles of 64 bytes of entries in each, two bits an entry; padding is missing.
    roles: Vec<u32>,
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
        EntryBlock {
            x: room(true),
            // Where all entries are for training, they may tell those from padding.
            roles: vec![0; chunk.div_ceil(T::MAX_LANES)],
            weight: room(source.data.weights().is_some()),
            loss: room(source.wants.losses),
            entry_parameters: vec![room(true); source.entry_parameters.len()],
            scratch: Scratch::default(),
        }
    }

    /// What entries count as, from the first of the block on.
    #[inline(always)]
    pub fn roles<S: Simd>(&self, source: &Source<'_, T>) -> BlockRoles<'_, T::Vector<S>> {
        let weights: &[T::Vector<S>] = match source.data.weights() {
            Some(_) => T::as_vectors::<S>(&self.weight).0,
            None => &[],
        };
        BlockRoles { roles: &self.roles, first: 0, weights }
    }
}

/// The roles and weights of entries that follow one another, as vectors.
#[derive(Clone, Copy)]
pub(crate) struct BlockRoles<'a, V> {
    /// Two bits an entry, as many in each as 64 bytes hold.
    roles: &'a [u32],
    /// The number of the first vector among those of its 64 bytes.
    first: usize,
    /// None where entries have none.
    weights: &'a [V],
}

impl<V: Copy> BlockRoles<'_, V> {
    /// Vectors in 64 bytes.
    const EACH: usize = 64 / size_of::<V>();

    /// Those of `n` vectors from the vector `at` on.
    #[inline(always)]
    pub fn part(&self, at: usize, n: usize) -> Self {
        let at = self.first + at;
        let (word, first) = (at / Self::EACH, at % Self::EACH);
        let roles = &self.roles[word..][..(first + n).div_ceil(Self::EACH)];
        let weights = match self.weights {
            [] => self.weights,
            weights => &weights[at..at + n],
        };
        BlockRoles { roles, first, weights }
    }

    /// Of vector `v` the entries that have a role, times their weights; 0 for the others, whatever `x` is
    /// there.
    #[inline(always)]
    pub fn keep<S: Simd, T: Elementwise<Vector<S> = V>>(
        &self,
        simd: S,
        role: Role,
        v: usize,
        x: V,
    ) -> V {
        let zero = T::splat(simd, T::ZERO);
        let x = match self.weights.get(v) {
            Some(&w) => T::choose(simd, w, <T as Real>::mul(simd, x, w), zero),
            None => x,
        };
        let at = self.first + v;
        let first = at % Self::EACH * (size_of::<V>() / T::BYTES);
        T::choose_pairs(simd, self.roles[at / Self::EACH], role.pairs(), first, x, zero)
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
        let packed = range.start / T::MAX_LANES..range.end / T::MAX_LANES;
        if let Some(roles) = source.roles {
            let own = &mut entries.roles[packed];
            own.fill(0);
            for run in runs {
                roles.pack(at + run.offset, run.stride, run.start, run.len, T::MAX_LANES, own);
            }
            // A missing entry may hold anything, NaN included: it must not reach a sum. Withheld
            // entries are inside the domain, and are not summed.
            if data.count(Role::Missing) > 0 && !source.zeros {
                let (x, _) = T::as_vectors_mut::<S>(&mut entries.x[range.clone()]);
                let (one, missing) = (T::splat(simd, T::ONE), Role::Missing.pairs());
                let lanes = size_of::<T::Vector<S>>() / T::BYTES;
                // Chosen in registers: a loop that writes only some of `x` is made of masked
                // stores, which some processors take twenty cycles for.
                for (x, &pairs) in x.chunks_mut(T::MAX_LANES / lanes).zip(&*own) {
                    for (v, x) in x.iter_mut().enumerate() {
                        *x = T::choose_pairs(simd, pairs, missing, v * lanes, one, *x);
                    }
                }
            }
        } else if data.weights().is_some() {
            train_before(columns, T::MAX_LANES, &mut entries.roles[packed]);
        }
        if let Some(weights) = data.weights() {
            let weight = &mut entries.weight[range];
            for run in runs {
                weights.load(at + run.offset, run.stride, &mut weight[run.start..][..run.len]);
            }
            weight[columns..].fill(T::ZERO);
        }
    }
}

/// Packed roles of a row whose entries are all for training, so many in each: what follows is missing.
#[inline(always)]
fn train_before(columns: usize, each: usize, roles: &mut [u32]) {
    for (i, roles) in roles.iter_mut().enumerate() {
        let n = columns.saturating_sub(i * each).min(each);
        *roles = if n > 0 { Role::Train.pairs() & (u32::MAX >> (32 - 2 * n)) } else { 0 };
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

    /// Where all entries are for training, tells those of some rows from padding.
    #[inline(always)]
    pub fn tell_padding(&mut self, rows: usize) {
        let each = self.ld / T::MAX_LANES;
        for row in self.entries.roles[..rows * each].chunks_exact_mut(each) {
            train_before(self.columns, T::MAX_LANES, row);
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

            if !weighs {
                if wants.losses {
                    panel.losses.add(&entries.loss, unpadded);
                }
                continue;
            }
            let roles = entries.roles::<S>(source);
            keep_training::<S, T>(simd, a, roles);
            keep_training::<S, T>(simd, b, roles);
            if wants.losses {
                let [validation, held_out] = source.withheld();
                let (loss, _) = T::as_vectors::<S>(&entries.loss[..n]);
                panel.losses.add_by_role::<S, T>(simd, Role::Train, loss, roles);
                if validation {
                    panel.losses.add_by_role::<S, T>(simd, Role::Validation, loss, roles);
                }
                if held_out {
                    panel.losses.add_by_role::<S, T>(simd, Role::HeldOut, loss, roles);
                }
            }
        }
    }
}

/// Of some values those of training entries, times their weights; 0 for the others.
#[inline(always)]
fn keep_training<S: Simd, T: Elementwise>(
    simd: S,
    values: &mut [T],
    roles: BlockRoles<'_, T::Vector<S>>,
) {
    let (values, _) = T::as_vectors_mut::<S>(values);
    let each = BlockRoles::<T::Vector<S>>::EACH;
    for (i, values) in values.chunks_exact_mut(each).enumerate() {
        let roles = roles.part(i * each, each);
        for (v, x) in values.iter_mut().enumerate() {
            *x = roles.keep::<S, T>(simd, Role::Train, v, *x);
        }
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
    /// Adds losses of training entries, those in some ranges: padding, which is in none, has losses, too.
    #[inline(always)]
    fn add<T: Elementwise>(&mut self, losses: &[T], ranges: impl Iterator<Item = Range<usize>>) {
        for range in ranges {
            add(&losses[range], &mut self.train);
        }
    }

    /// Adds losses of the entries that have a role. Padding has none.
    #[inline(always)]
    fn add_by_role<S: Simd, T: Elementwise>(
        &mut self,
        simd: S,
        role: Role,
        losses: &[T::Vector<S>],
        roles: BlockRoles<'_, T::Vector<S>>,
    ) {
        let to = match role {
            Role::Validation => &mut self.validation,
            Role::HeldOut => &mut self.held_out,
            Role::Train | Role::Missing => &mut self.train,
        };
        // A sum for each entry of 64 bytes, so that the order does not depend on the instruction set.
        let each = BlockRoles::<T::Vector<S>>::EACH;
        let mut sums = [T::splat(simd, T::ZERO); CHAINS];
        for (i, losses) in losses.chunks_exact(each).enumerate() {
            let roles = roles.part(i * each, each);
            for v in 0..each {
                let x = roles.keep::<S, T>(simd, role, v, losses[v]);
                sums[v] = <T as Real>::add(simd, sums[v], x);
            }
        }
        let sums: &[T] = bytemuck::cast_slice(&sums[..each]);
        for (to, x) in to.iter_mut().zip(sums) {
            *to += x.to_f64();
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
