//! ŷ at the entries of a block, and their sums.
//!
//! Several entries of a row of the output are worked on at a time: their rows are loaded without waiting for
//! one another's sums, and what belongs to the output is loaded, or stored, once for all of them.

use pulp::Simd;

use nneinfact_simd::{Elementwise, Real};

/// Entries of a block: their values and results are in the first-level cache, and sums over as many stay in
/// the precision of the pass.
pub(super) const BLOCK: usize = 256;
/// Entries that are worked on at a time.
const AT_A_TIME: usize = 4;

/// Neighbouring entries that are compared at a time.
const COMPARED: usize = 16;

/// Entries of one row of the output inside a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowRun {
    pub row: usize,
    pub start: usize,
    pub end: usize,
}

/// A bit for each number that is not the one it is compared with.
#[inline(always)]
fn differences(own: &[u32], next: &[u32]) -> u16 {
    let mut bits = 0;
    for (i, (row, next)) in own.iter().zip(next).enumerate() {
        bits |= u16::from(row != next) << i;
    }
    bits
}

/// Cuts entries whose rows of the output these are into runs of one row each.
#[inline(always)]
pub(super) fn find_runs(rows: &[u32], runs: &mut Vec<RowRun>) {
    runs.clear();
    let Some(&last) = rows.last() else { return };
    let mut start = 0;
    // Most neighbours are of one row: which are not is looked at for many at a time.
    let (own, next) = (&rows[..rows.len() - 1], &rows[1..]);
    let chunks = own.chunks(COMPARED).zip(next.chunks(COMPARED));
    for (n, (own, next)) in chunks.enumerate() {
        let as_arrays = (<&[u32; COMPARED]>::try_from(own), <&[u32; COMPARED]>::try_from(next));
        let mut ends = match as_arrays {
            (Ok(own), Ok(next)) => differences(own, next),
            _ => differences(own, next),
        };
        while ends != 0 {
            let end = n * COMPARED + ends.trailing_zeros() as usize + 1;
            runs.push(RowRun { row: rows[start] as usize, start, end });
            start = end;
            ends &= ends - 1;
        }
    }
    runs.push(RowRun { row: last as usize, start, end: rows.len() });
}

/// The tables, and the rows that the entries of a block look up in them; the output's first. Rows are of
/// `KV` vectors and there are `TABLES` of them; where these are 0, any number will do.
pub(super) struct Gather<'a, V, const KV: usize, const TABLES: usize> {
    pub tables: &'a [&'a [V]],
    pub rows: &'a [[u32; BLOCK]],
    /// Vectors of a row.
    pub kv: usize,
}

impl<V: Copy, const KV: usize, const TABLES: usize> Gather<'_, V, KV, TABLES> {
    #[inline(always)]
    fn kv(&self) -> usize {
        if KV > 0 { KV } else { self.kv }
    }

    #[inline(always)]
    fn tables(&self) -> usize {
        if TABLES > 0 { TABLES } else { self.tables.len() }
    }

    /// The rows of some entries in a table.
    #[inline(always)]
    fn rows_at<const E: usize>(&self, table: usize, at: usize) -> [&[V]; E] {
        let (kv, data) = (self.kv(), self.tables[table]);
        let numbers = &self.rows[table][at..at + E];
        // A loop, as a closure is not sure to be inlined.
        let mut rows: [&[V]; E] = [&[]; E];
        for e in 0..E {
            rows[e] = &data[numbers[e] as usize * kv..][..kv];
        }
        rows
    }

    /// A vector of an entry's product of all rows but the output's, of which `first` is one.
    #[inline(always)]
    fn more<S: Simd, T: Real<Vector<S> = V>>(&self, simd: S, first: V, at: usize, k: usize) -> V {
        let mut product = first;
        for table in 3..self.tables() {
            let row = self.rows[table][at] as usize;
            product = <T as Real>::mul(simd, product, self.tables[table][row * self.kv() + k]);
        }
        product
    }
}

/// ŷ at the entries of a block.
#[inline(always)]
pub(super) fn predict<S: Simd, T: Elementwise, const KV: usize, const TABLES: usize>(
    simd: S,
    gather: &Gather<'_, T::Vector<S>, KV, TABLES>,
    runs: &[RowRun],
    y: &mut [T; BLOCK],
) {
    let kv = gather.kv();
    for run in runs {
        let u = &gather.tables[0][run.row * kv..][..kv];
        let mut at = run.start;
        while at + AT_A_TIME <= run.end {
            dot::<S, T, KV, TABLES, AT_A_TIME>(simd, gather, u, at, y);
            at += AT_A_TIME;
        }
        while at < run.end {
            dot::<S, T, KV, TABLES, 1>(simd, gather, u, at, y);
            at += 1;
        }
    }
}

/// ŷ at `E` entries from `at` on, of one row `u` of the output's table.
#[inline(always)]
fn dot<S: Simd, T: Elementwise, const KV: usize, const TABLES: usize, const E: usize>(
    simd: S,
    gather: &Gather<'_, T::Vector<S>, KV, TABLES>,
    u: &[T::Vector<S>],
    at: usize,
    y: &mut [T; BLOCK],
) {
    let kv = gather.kv();
    let mut totals = [T::splat(simd, T::ZERO); E];
    let v: [&[T::Vector<S>]; E] = gather.rows_at(1, at);
    if gather.tables() == 2 {
        for k in 0..kv {
            for e in 0..E {
                totals[e] = T::mul_add(simd, u[k], v[e][k], totals[e]);
            }
        }
    } else {
        let w: [&[T::Vector<S>]; E] = gather.rows_at(2, at);
        for k in 0..kv {
            for e in 0..E {
                let product = <T as Real>::mul(simd, v[e][k], w[e][k]);
                let product = gather.more::<S, T>(simd, product, at + e, k);
                totals[e] = T::mul_add(simd, u[k], product, totals[e]);
            }
        }
    }
    for (y, total) in y[at..at + E].iter_mut().zip(totals) {
        *y = T::reduce_sum(simd, total);
    }
}

/// The sums of the entries' rows times `f`, a row of the output after another: `add` takes the number of the
/// row and its sums. `acc` is room for a row.
#[inline(always)]
pub(super) fn scatter<S: Simd, T: Elementwise, const KV: usize, const TABLES: usize>(
    simd: S,
    gather: &Gather<'_, T::Vector<S>, KV, TABLES>,
    runs: &[RowRun],
    f: &[T; BLOCK],
    acc: &mut [T::Vector<S>],
    to: &mut RowSums<'_>,
) {
    let zero = T::splat(simd, T::ZERO);
    for run in runs {
        let mut registers = [zero; KV];
        let acc = if KV > 0 { &mut registers[..] } else { &mut acc[..gather.kv] };
        if KV == 0 {
            acc.fill(zero);
        }
        let mut at = run.start;
        while at + AT_A_TIME <= run.end {
            multiply::<S, T, KV, TABLES, AT_A_TIME>(simd, gather, at, f, acc);
            at += AT_A_TIME;
        }
        while at < run.end {
            multiply::<S, T, KV, TABLES, 1>(simd, gather, at, f, acc);
            at += 1;
        }
        to.add::<T>(run.row, bytemuck::cast_slice(acc));
    }
}

/// Adds the rows of `E` entries from `at` on, times `f`.
#[inline(always)]
fn multiply<S: Simd, T: Elementwise, const KV: usize, const TABLES: usize, const E: usize>(
    simd: S,
    gather: &Gather<'_, T::Vector<S>, KV, TABLES>,
    at: usize,
    f: &[T; BLOCK],
    acc: &mut [T::Vector<S>],
) {
    let kv = gather.kv();
    let acc = &mut acc[..kv];
    let mut factors = [T::splat(simd, T::ZERO); E];
    for (factor, &f) in factors.iter_mut().zip(&f[at..at + E]) {
        *factor = T::splat(simd, f);
    }
    let v: [&[T::Vector<S>]; E] = gather.rows_at(1, at);
    if gather.tables() == 2 {
        for k in 0..kv {
            let mut products = [T::splat(simd, T::ZERO); E];
            for e in 0..E {
                products[e] = v[e][k];
            }
            acc[k] = <T as Real>::add(simd, acc[k], weighted::<S, T, E>(simd, &factors, &products));
        }
    } else {
        let w: [&[T::Vector<S>]; E] = gather.rows_at(2, at);
        for k in 0..kv {
            let mut products = [T::splat(simd, T::ZERO); E];
            for e in 0..E {
                let product = <T as Real>::mul(simd, v[e][k], w[e][k]);
                products[e] = gather.more::<S, T>(simd, product, at + e, k);
            }
            acc[k] = <T as Real>::add(simd, acc[k], weighted::<S, T, E>(simd, &factors, &products));
        }
    }
}

/// The sum of `products` times `factors`, by halves: what a row adds up waits for the sum of each group of
/// entries once, and not for every entry.
#[inline(always)]
fn weighted<S: Simd, T: Elementwise, const E: usize>(
    simd: S,
    factors: &[T::Vector<S>; E],
    products: &[T::Vector<S>; E],
) -> T::Vector<S> {
    let half = E.div_ceil(2);
    let mut sums = [T::splat(simd, T::ZERO); 2];
    for (sum, (start, end)) in sums.iter_mut().zip([(0, half), (half, E)]) {
        for e in start..end {
            *sum = match e == start {
                true => <T as Real>::mul(simd, factors[e], products[e]),
                false => T::mul_add(simd, factors[e], products[e], *sum),
            };
        }
    }
    if E == 1 { sums[0] } else { <T as Real>::add(simd, sums[0], sums[1]) }
}

/// Rows of numerator or denominator from row `first` on.
pub(super) struct RowSums<'a> {
    pub data: &'a mut [f64],
    pub first: usize,
    /// The length of a row.
    pub width: usize,
    /// Where each contracted index stands in a row.
    pub onto: &'a [usize],
    /// Whether each stands where it is, and there are no others.
    pub in_place: bool,
}

impl RowSums<'_> {
    #[inline(always)]
    fn add<T: Elementwise>(&mut self, row: usize, sums: &[T]) {
        let to = &mut self.data[(row - self.first) * self.width..][..self.width];
        if self.in_place {
            to.iter_mut().zip(sums).for_each(|(to, x)| *to += x.to_f64());
        } else {
            self.onto.iter().zip(sums).for_each(|(&k, x)| to[k] += x.to_f64());
        }
    }
}
