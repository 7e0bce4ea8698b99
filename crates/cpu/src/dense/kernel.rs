//! The inner loops of a pass: three small matrix products on tiles.
//!
//! A tile has `rows` rows and `width` lanes; its matrices are row-major with `ld` elements from one
//! row to the next, `width ≤ ld`, both multiples of [`Real::MAX_LANES`]. Each function is compiled
//! for every instruction set and selects one at run time.

use pulp::{Arch, Simd, WithSimd};

use nneinfact_simd::Real;

/// Rows that the register tile of [`product`], [`reduce_rows`] and [`reduce_across`] holds at least.
/// Where there are many registers, and so many rows, it holds twice as many.
pub(crate) const PANEL: usize = 4;
pub(crate) const BOTH: usize = 2 * PANEL;

/// How many vectors, of `left`, the register tile takes next to its rows: three where there are
/// many registers, else two. None is left alone, as one has too few sums on their way for the units
/// that add to them.
#[inline(always)]
pub(crate) fn abreast<S: Simd>(left: usize) -> usize {
    match left {
        4 => 2,
        _ if S::REGISTER_COUNT >= 32 => left.min(3),
        3 => 2,
        _ => left.min(2),
    }
}

/// `y[m, n] = Σ_k r[m, k] · c[k, n]`, raised to `floor`.
///
/// `r` holds `R` row-major (`[m][inner]`), a multiple of [`PANEL`] rows; so does `y`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn product<T: Real>(
    arch: Arch,
    r: &[T],
    c: &[T],
    inner: usize,
    width: usize,
    ld: usize,
    floor: T,
    y: &mut [T],
) {
    let then = Then::Raise(floor);
    arch.dispatch(Product { r, depth: inner, stride: inner, c, width, ld, then, to: y });
}

/// `Σ_k r[m, k] · c[k, n]` over `depth` indices k.
struct Product<'a, T> {
    r: &'a [T],
    depth: usize,
    /// Elements from one row of `r` to the next.
    stride: usize,
    c: &'a [T],
    width: usize,
    /// Elements from one row of `c`, and of the result, to the next.
    ld: usize,
    then: Then<T>,
    to: &'a mut [T],
}

/// What becomes of a product.
#[derive(Clone, Copy)]
enum Then<T> {
    /// It is raised to a floor, and takes the place of what was there.
    Raise(T),
    /// It is added to what was there.
    Add,
}

impl<T: Real> WithSimd for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = size_of::<T::Vector<S>>() / T::BYTES;
        let Product { r, depth, stride, c, width, ld, then, to } = self;
        let (c, _) = T::as_vectors::<S>(c);
        let (to, _) = T::as_vectors_mut::<S>(to);
        let (width, ld) = (width / lanes, ld / lanes);
        // A few columns of `C`, which stay in the first-level cache, for all rows.
        let mut j = 0;
        while j < width {
            let n = abreast::<S>(width - j);
            let (mut r, mut to) = (r, &mut *to);
            while !r.is_empty() {
                let both = S::REGISTER_COUNT >= 32 && r.len() >= BOTH * stride;
                let rows = if both { BOTH } else { PANEL };
                let (panel, below) = r.split_at(rows * stride);
                let (y, rest) = to.split_at_mut(rows * ld);
                match (both, n) {
                    (true, 3) => {
                        block::<S, T, BOTH, 3>(simd, panel, depth, stride, c, ld, j, then, y)
                    }
                    (true, 2) => {
                        block::<S, T, BOTH, 2>(simd, panel, depth, stride, c, ld, j, then, y)
                    }
                    (true, _) => {
                        block::<S, T, BOTH, 1>(simd, panel, depth, stride, c, ld, j, then, y)
                    }
                    (_, 3) => {
                        block::<S, T, PANEL, 3>(simd, panel, depth, stride, c, ld, j, then, y)
                    }
                    (_, 2) => {
                        block::<S, T, PANEL, 2>(simd, panel, depth, stride, c, ld, j, then, y)
                    }
                    (_, _) => {
                        block::<S, T, PANEL, 1>(simd, panel, depth, stride, c, ld, j, then, y)
                    }
                }
                (r, to) = (below, rest);
            }
            j += n;
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn block<S: Simd, T: Real, const M: usize, const N: usize>(
    simd: S,
    panel: &[T],
    depth: usize,
    stride: usize,
    c: &[T::Vector<S>],
    ld: usize,
    j: usize,
    then: Then<T>,
    rows: &mut [T::Vector<S>],
) {
    let sums = outer_products::<S, T, M, N>(simd, panel, M, depth, stride, c, ld, j);
    // Loops, as a closure given to `map` is not inlined, and then compiled for no instruction set.
    for (row, sums) in rows.chunks_exact_mut(ld).zip(sums) {
        for (to, x) in row[j..j + N].iter_mut().zip(sums) {
            *to = match then {
                // Here and not in a loop over memory: compilers make that one of masked stores, which
                // some processors take twenty cycles for.
                Then::Raise(floor) => T::at_least(simd, x, T::splat(simd, floor)),
                Then::Add => <T as Real>::add(simd, *to, x),
            };
        }
    }
}

/// `Σ_k r[m, k] · c[k, j..j + N]` for the `M` rows of a panel, each of `depth` elements, `stride` of
/// them apart. Where there are fewer, the last of them is taken for those that are not there.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn outer_products<S: Simd, T: Real, const M: usize, const N: usize>(
    simd: S,
    panel: &[T],
    rows: usize,
    depth: usize,
    stride: usize,
    c: &[T::Vector<S>],
    ld: usize,
    j: usize,
) -> [[T::Vector<S>; N]; M] {
    let mut sums = [[T::splat(simd, T::ZERO); N]; M];
    // Eight iterators where four are enough: those that nobody asks are not there in the end. And
    // iterators, as an index into each row would be checked in every step.
    let last = rows.min(M) - 1;
    // A macro, as a closure may not be inlined.
    macro_rules! row {
        ($m:literal) => {
            panel[if $m < M { last.min($m) } else { 0 } * stride..][..depth].iter()
        };
    }
    let (r01, r23) = (row!(0).zip(row!(1)), row!(2).zip(row!(3)));
    let (r45, r67) = (row!(4).zip(row!(5)), row!(6).zip(row!(7)));
    let r = r01.zip(r23).zip(r45.zip(r67));
    for (c, (((r0, r1), (r2, r3)), ((r4, r5), (r6, r7)))) in c.chunks_exact(ld).zip(r) {
        let c = &c[j..j + N];
        let r = [*r0, *r1, *r2, *r3, *r4, *r5, *r6, *r7];
        for m in 0..M {
            let r = T::splat(simd, r[m]);
            for i in 0..N {
                sums[m][i] = T::mul_add(simd, r, c[i], sums[m][i]);
            }
        }
    }
    sums
}

/// `sums[m, k] += Σ_n a[m, n] · c[k, n]`, each sum kept as a vector of partial sums.
///
/// `sums` holds one vector of the instruction set per `(m, k)` at its start, row-major in `m`;
/// [`collect_rows`] adds them up. `rows` says which row of `sums` is the first, and how many there
/// are, both multiples of [`PANEL`].
#[allow(clippy::too_many_arguments)]
pub(crate) fn reduce_rows<T: Real>(
    arch: Arch,
    a: &[T],
    c: &[T],
    rows: (usize, usize),
    inner: usize,
    width: usize,
    ld: usize,
    sums: &mut [T],
) {
    arch.dispatch(ReduceRows { a, c, rows, inner, width, ld, sums });
}

struct ReduceRows<'a, T> {
    a: &'a [T],
    c: &'a [T],
    rows: (usize, usize),
    inner: usize,
    width: usize,
    ld: usize,
    sums: &'a mut [T],
}

impl<T: Real> WithSimd for ReduceRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = size_of::<T::Vector<S>>() / T::BYTES;
        let (a, _) = T::as_vectors::<S>(self.a);
        let (c, _) = T::as_vectors::<S>(self.c);
        let (sums, _) = T::as_vectors_mut::<S>(self.sums);
        let (width, ld) = (self.width / lanes, self.ld / lanes);
        let sums = &mut sums[self.rows.0 * self.inner..];
        let mut m = 0;
        while m < self.rows.1 {
            let both = S::REGISTER_COUNT >= 32 && m + BOTH <= self.rows.1;
            let a = &a[m * ld..];
            let mut k = 0;
            while k < self.inner {
                let n = abreast::<S>(self.inner - k);
                match (both, n) {
                    (true, 3) => inner_products::<S, T, BOTH, 3>(
                        simd, a, width, c, ld, m, k, self.inner, sums,
                    ),
                    (true, 2) => inner_products::<S, T, BOTH, 2>(
                        simd, a, width, c, ld, m, k, self.inner, sums,
                    ),
                    (true, _) => inner_products::<S, T, BOTH, 1>(
                        simd, a, width, c, ld, m, k, self.inner, sums,
                    ),
                    (_, 3) => inner_products::<S, T, PANEL, 3>(
                        simd, a, width, c, ld, m, k, self.inner, sums,
                    ),
                    (_, 2) => inner_products::<S, T, PANEL, 2>(
                        simd, a, width, c, ld, m, k, self.inner, sums,
                    ),
                    (_, _) => inner_products::<S, T, PANEL, 1>(
                        simd, a, width, c, ld, m, k, self.inner, sums,
                    ),
                }
                k += n;
            }
            m += if both { BOTH } else { PANEL };
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn inner_products<S: Simd, T: Real, const M: usize, const N: usize>(
    simd: S,
    a: &[T::Vector<S>],
    width: usize,
    c: &[T::Vector<S>],
    ld: usize,
    m: usize,
    k: usize,
    inner: usize,
    sums: &mut [T::Vector<S>],
) {
    let a: [&[T::Vector<S>]; M] = std::array::from_fn(|i| &a[i * ld..][..width]);
    let width = a[0].len();
    let c: [&[T::Vector<S>]; N] = std::array::from_fn(|i| &c[(k + i) * ld..][..width]);
    let a: [&[T::Vector<S>]; M] = std::array::from_fn(|i| &a[i][..width]);
    let mut acc = [[T::splat(simd, T::ZERO); N]; M];
    for j in 0..width {
        // Columns are loaded once, as there are fewer of them than rows.
        let mut columns = [acc[0][0]; N];
        for l in 0..N {
            columns[l] = c[l][j];
        }
        for i in 0..M {
            let x = a[i][j];
            for l in 0..N {
                acc[i][l] = T::mul_add(simd, x, columns[l], acc[i][l]);
            }
        }
    }
    for (i, acc) in acc.iter().enumerate() {
        let to = &mut sums[(m + i) * inner + k..][..N];
        for (to, &x) in to.iter_mut().zip(acc) {
            *to = <T as Real>::add(simd, *to, x);
        }
    }
}

/// Adds up the vectors of partial sums that [`reduce_rows`] leaves, into one number each, and
/// clears them.
pub(crate) fn collect_rows<T: Real>(arch: Arch, sums: &mut [T], out: &mut [T]) {
    arch.dispatch(CollectRows { sums, out });
}

struct CollectRows<'a, T> {
    sums: &'a mut [T],
    out: &'a mut [T],
}

impl<T: Real> WithSimd for CollectRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (sums, _) = T::as_vectors_mut::<S>(self.sums);
        for (to, sum) in self.out.iter_mut().zip(sums) {
            *to = T::reduce_sum(simd, *sum);
            *sum = T::splat(simd, T::ZERO);
        }
    }
}

/// The same sums as [`reduce_rows`], but with neighbouring `k` in the elements of a vector:
/// `sums[m, k] += Σ_n a[m, n] · across[n, k]`.
///
/// `across` is `C` turned over, and a row of it, as one of `sums`, has `stride` elements. So there are
/// no partial sums to keep, and a register tile holds its sums over all lanes: what takes least time
/// where `K` fills a few vectors.
pub(crate) fn reduce_across<T: Real>(
    arch: Arch,
    a: &[T],
    across: &[T],
    width: usize,
    ld: usize,
    stride: usize,
    sums: &mut [T],
) {
    arch.dispatch(Product {
        r: a,
        depth: width,
        stride: ld,
        c: across,
        width: stride,
        ld: stride,
        then: Then::Add,
        to: sums,
    });
}

/// `sums[k, n] += Σ_m r[m, k] · a[m, n]`.
///
/// `r` holds `R` row-major (`[m][inner]`), `sums` has `ld` elements from one `k` to the next.
#[allow(clippy::too_many_arguments)]
pub(crate) fn reduce_lanes<T: Real>(
    arch: Arch,
    a: &[T],
    r: &[T],
    rows: usize,
    inner: usize,
    width: usize,
    ld: usize,
    sums: &mut [T],
) {
    arch.dispatch(ReduceLanes { a, r, rows, inner, width, ld, sums });
}

struct ReduceLanes<'a, T> {
    a: &'a [T],
    r: &'a [T],
    rows: usize,
    inner: usize,
    width: usize,
    ld: usize,
    sums: &'a mut [T],
}

impl<T: Real> WithSimd for ReduceLanes<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = size_of::<T::Vector<S>>() / T::BYTES;
        let (a, _) = T::as_vectors::<S>(self.a);
        let (sums, _) = T::as_vectors_mut::<S>(self.sums);
        let (width, ld) = (self.width / lanes, self.ld / lanes);
        let a = &a[..self.rows * ld];
        let r = &self.r[..self.rows * self.inner];
        let mut k = 0;
        while k < self.inner {
            // Shares of what is left that are not much smaller than the others.
            let n = match self.inner - k {
                left @ 0..=5 => left,
                6 => 3,
                7 => 4,
                9 | 10 => 5,
                _ if S::REGISTER_COUNT >= 32 => 8,
                _ => 4,
            };
            let mut j = 0;
            while j < width {
                let v = abreast::<S>(width - j);
                let inner = self.inner;
                match (n, v) {
                    (8, 3) => columns::<S, T, 8, 3>(simd, a, r, inner, ld, k, j, sums),
                    (8, 2) => columns::<S, T, 8, 2>(simd, a, r, inner, ld, k, j, sums),
                    (8, _) => columns::<S, T, 8, 1>(simd, a, r, inner, ld, k, j, sums),
                    (5, 3) => columns::<S, T, 5, 3>(simd, a, r, inner, ld, k, j, sums),
                    (5, 2) => columns::<S, T, 5, 2>(simd, a, r, inner, ld, k, j, sums),
                    (5, _) => columns::<S, T, 5, 1>(simd, a, r, inner, ld, k, j, sums),
                    (4, 3) => columns::<S, T, 4, 3>(simd, a, r, inner, ld, k, j, sums),
                    (4, 2) => columns::<S, T, 4, 2>(simd, a, r, inner, ld, k, j, sums),
                    (4, _) => columns::<S, T, 4, 1>(simd, a, r, inner, ld, k, j, sums),
                    (3, 3) => columns::<S, T, 3, 3>(simd, a, r, inner, ld, k, j, sums),
                    (3, 2) => columns::<S, T, 3, 2>(simd, a, r, inner, ld, k, j, sums),
                    (3, _) => columns::<S, T, 3, 1>(simd, a, r, inner, ld, k, j, sums),
                    (2, 3) => columns::<S, T, 2, 3>(simd, a, r, inner, ld, k, j, sums),
                    (2, 2) => columns::<S, T, 2, 2>(simd, a, r, inner, ld, k, j, sums),
                    (2, _) => columns::<S, T, 2, 1>(simd, a, r, inner, ld, k, j, sums),
                    (_, 3) => columns::<S, T, 1, 3>(simd, a, r, inner, ld, k, j, sums),
                    (_, 2) => columns::<S, T, 1, 2>(simd, a, r, inner, ld, k, j, sums),
                    (_, _) => columns::<S, T, 1, 1>(simd, a, r, inner, ld, k, j, sums),
                }
                j += v;
            }
            k += n;
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn columns<S: Simd, T: Real, const K: usize, const V: usize>(
    simd: S,
    a: &[T::Vector<S>],
    r: &[T],
    inner: usize,
    ld: usize,
    k: usize,
    j: usize,
    sums: &mut [T::Vector<S>],
) {
    let mut acc = [[T::splat(simd, T::ZERO); V]; K];
    for (a, r) in a.chunks_exact(ld).zip(r.chunks_exact(inner)) {
        let (a, r) = (&a[j..j + V], &r[k..k + K]);
        for i in 0..K {
            let x = T::splat(simd, r[i]);
            for l in 0..V {
                acc[i][l] = T::mul_add(simd, x, a[l], acc[i][l]);
            }
        }
    }
    for (i, acc) in acc.iter().enumerate() {
        let to = &mut sums[(k + i) * ld + j..][..V];
        for (to, &x) in to.iter_mut().zip(acc) {
            *to = <T as Real>::add(simd, *to, x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nneinfact_simd::instruction_sets;

    fn fill(n: usize, seed: u32) -> Vec<f64> {
        (0..n)
            .map(|i| {
                f64::from((i as u32).wrapping_mul(2654435761).wrapping_add(seed) >> 16) / 65536.0
            })
            .collect()
    }

    fn check<T: Real>(
        arch: Arch,
        rows: usize,
        inner: usize,
        width: usize,
        ld: usize,
        tolerance: f64,
    ) {
        let padded = rows.div_ceil(PANEL) * PANEL;
        let to = |x: Vec<f64>| -> Vec<T> { x.into_iter().map(T::from_f64).collect() };
        let r = fill(rows * inner, 1);
        let c = fill(inner * ld, 2);
        let a = fill(padded * ld, 3);
        let mut padded_r = r.clone();
        padded_r.resize(padded * inner, 0.0);
        let mut y = to(vec![0.0; padded * ld]);
        let floor = 0.9;
        product(arch, &to(padded_r), &to(c.clone()), inner, width, ld, T::from_f64(floor), &mut y);
        let mut rows_sums = to(vec![0.0; padded * inner * T::MAX_LANES]);
        reduce_rows(
            arch,
            &to(a.clone()),
            &to(c.clone()),
            (0, padded),
            inner,
            width,
            ld,
            &mut rows_sums,
        );
        let mut collected = to(vec![0.0; padded * inner]);
        collect_rows(arch, &mut rows_sums, &mut collected);
        assert!(rows_sums.iter().all(|&x| x == T::ZERO));
        let stride = inner.next_multiple_of(T::MAX_LANES);
        let mut across = to(vec![0.0; ld * stride]);
        for (k, row) in to(c.clone()).chunks_exact(ld).enumerate() {
            row.iter().enumerate().for_each(|(n, &x)| across[n * stride + k] = x);
        }
        let mut across_sums = to(vec![1.0; padded * stride]);
        reduce_across(arch, &to(a.clone()), &across, width, ld, stride, &mut across_sums);
        let mut lane_sums = to(vec![1.0; inner * ld]);
        reduce_lanes(arch, &to(a.clone()), &to(r.clone()), rows, inner, width, ld, &mut lane_sums);

        let near = |x: T, expected: f64, what: &str| {
            assert!(
                (x.to_f64() - expected).abs() <= tolerance * expected.abs().max(1.0),
                "{what}: {x} {expected}"
            );
        };
        for m in 0..rows {
            for n in 0..width {
                let expected: f64 = (0..inner).map(|k| r[m * inner + k] * c[k * ld + n]).sum();
                near(y[m * ld + n], expected.max(floor), "product");
            }
            for k in 0..inner {
                let expected: f64 = (0..width).map(|n| a[m * ld + n] * c[k * ld + n]).sum();
                near(collected[m * inner + k], expected, "rows");
                near(across_sums[m * stride + k], 1.0 + expected, "across");
            }
        }
        for k in 0..inner {
            for n in 0..width {
                let expected: f64 =
                    1.0 + (0..rows).map(|m| a[m * ld + n] * r[m * inner + k]).sum::<f64>();
                near(lane_sums[k * ld + n], expected, "lanes");
            }
        }
    }

    #[test]
    fn products_on_tiles_are_right_at_every_remainder() {
        for arch in instruction_sets() {
            for rows in [1, 3, 4, 5, 8, 11] {
                for inner in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 33] {
                    for width in [16, 32, 48, 64, 112] {
                        check::<f32>(arch, rows, inner, width, 112, 1e-5);
                        check::<f64>(arch, rows, inner, width, 128, 1e-13);
                    }
                }
            }
        }
    }
}
