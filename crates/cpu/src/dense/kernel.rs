//! The inner loops of a pass: small matrix products (GEMM) on tiles, by register-blocked microkernels.
//!
//! The matrices of a tile are row-major with `ld` elements from one row to the next. A tile has `width`
//! columns with their padding, `width ≤ ld`, both multiples of [`Real::MAX_LANES`]. Each function is
//! compiled for every instruction set and selects one at run time.
//!
//! A register block is MR rows by NR vectors. Only those blocks are compiled for an instruction set that
//! it has registers for: which these are is known at compile time, so `if const` selects them.

use pulp::{Arch, Simd, WithSimd};

use nneinfact_simd::Real;

/// MR: the rows of a register block of [`gemm_nn`], [`gemm_nt_dot`] and [`gemm_nt_packed`]. Row blocks
/// are padded to a multiple of it.
pub(crate) const MR: usize = 4;
/// MR where there are many registers, and so many rows.
pub(crate) const MR_LARGE: usize = 2 * MR;

/// Whether the instruction set has registers for the large blocks.
#[inline(always)]
pub(crate) const fn has_many_registers<S: Simd>() -> bool {
    S::REGISTER_COUNT >= 32
}

/// Whether the instruction set has vectors at all. Without, the smallest register blocks do: others would
/// only be compiled for nothing.
#[inline(always)]
pub(crate) const fn has_vectors<S: Simd>() -> bool {
    size_of::<S::f32s>() > size_of::<f32>()
}

/// NR: how many vectors, of `left`, a register block takes next to its rows: three where there are many
/// registers, else two. None is left alone, as one has too few sums on their way for the units that add to
/// them.
#[inline(always)]
pub(crate) fn nr<S: Simd>(left: usize) -> usize {
    match left {
        _ if const { !has_vectors::<S>() } => left.min(1),
        4 => 2,
        _ if const { has_many_registers::<S>() } => left.min(3),
        3 => 2,
        _ => left.min(2),
    }
}

/// Calls `$block!(MR, NR)` for a register block with these, where `$large` is whether MR is the large one.
macro_rules! select_block {
    ($large:expr, $nr:expr, $block:ident) => {
        if const { has_many_registers::<S>() } {
            match ($large, $nr) {
                (true, 3) => $block!(MR_LARGE, 3),
                (true, 2) => $block!(MR_LARGE, 2),
                (true, _) => $block!(MR_LARGE, 1),
                (false, 3) => $block!(MR, 3),
                (false, 2) => $block!(MR, 2),
                (false, _) => $block!(MR, 1),
            }
        } else if const { has_vectors::<S>() } && $nr == 2 {
            $block!(MR, 2)
        } else {
            $block!(MR, 1)
        }
    };
}

/// The product A·B, clamped from below: `to[m, n] = max(Σ_k a[m, k] · b[k, n], floor)`.
///
/// `a` is row-major (`[m][depth]`), a multiple of [`MR`] rows; so is `to`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn gemm_nn<T: Real>(
    arch: Arch,
    a: &[T],
    b: &[T],
    depth: usize,
    width: usize,
    ld: usize,
    floor: T,
    to: &mut [T],
) {
    let store = Store::ClampMin(floor);
    arch.dispatch(Gemm { a, depth, a_stride: depth, b, width, ld, store, to });
}

/// `Σ_k a[m, k] · b[k, n]` over `depth` indices k.
struct Gemm<'a, T> {
    a: &'a [T],
    depth: usize,
    /// Elements from one row of `a` to the next.
    a_stride: usize,
    b: &'a [T],
    width: usize,
    /// Elements from one row of `b`, and of the result, to the next.
    ld: usize,
    store: Store<T>,
    to: &'a mut [T],
}

/// What becomes of a product.
#[derive(Clone, Copy)]
enum Store<T> {
    /// It is clamped to at least this, and takes the place of what was there.
    ClampMin(T),
    /// It is added to what was there.
    Add,
}

impl<T: Real> WithSimd for Gemm<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = size_of::<T::Vector<S>>() / T::BYTES;
        let Gemm { a, depth, a_stride, b, width, ld, store, to } = self;
        let (b, _) = T::as_vectors::<S>(b);
        let (to, _) = T::as_vectors_mut::<S>(to);
        let (width, ld) = (width / lanes, ld / lanes);
        // A few columns of the B panel, which stay in the first-level cache, for all rows.
        let mut j = 0;
        while j < width {
            let n = nr::<S>(width - j);
            let (mut a, mut to) = (a, &mut *to);
            while !a.is_empty() {
                let large = const { has_many_registers::<S>() } && a.len() >= MR_LARGE * a_stride;
                let rows = if large { MR_LARGE } else { MR };
                let (panel, below) = a.split_at(rows * a_stride);
                let (block, rest) = to.split_at_mut(rows * ld);
                macro_rules! block {
                    ($mr:expr, $nr:expr) => {
                        store_block::<S, T, { $mr }, { $nr }>(
                            simd, panel, depth, a_stride, b, ld, j, store, block,
                        )
                    };
                }
                select_block!(large, n, block);
                (a, to) = (below, rest);
            }
            j += n;
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn store_block<S: Simd, T: Real, const M: usize, const N: usize>(
    simd: S,
    panel: &[T],
    depth: usize,
    a_stride: usize,
    b: &[T::Vector<S>],
    ld: usize,
    j: usize,
    store: Store<T>,
    rows: &mut [T::Vector<S>],
) {
    let sums = microkernel::<S, T, M, N>(simd, panel, M, depth, a_stride, b, ld, j);
    // Loops, as a closure given to `map` is not inlined, and then compiled for no instruction set.
    for (row, sums) in rows.chunks_exact_mut(ld).zip(sums) {
        for (to, x) in row[j..j + N].iter_mut().zip(sums) {
            *to = match store {
                // Here and not in a loop over memory: compilers make that one of masked stores, which
                // some processors take twenty cycles for.
                Store::ClampMin(floor) => T::at_least(simd, x, T::splat(simd, floor)),
                Store::Add => <T as Real>::add(simd, *to, x),
            };
        }
    }
}

/// The microkernel, a sum of outer products: `Σ_k a[m, k] · b[k, j..j + N]` for the `M` rows of a panel,
/// each of `depth` elements, `a_stride` of them apart. Where there are fewer rows, the last of them stands
/// in for the missing ones.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn microkernel<S: Simd, T: Real, const M: usize, const N: usize>(
    simd: S,
    panel: &[T],
    rows: usize,
    depth: usize,
    a_stride: usize,
    b: &[T::Vector<S>],
    ld: usize,
    j: usize,
) -> [[T::Vector<S>; N]; M] {
    let mut sums = [[T::splat(simd, T::ZERO); N]; M];
    // Eight iterators where four are enough: the compiler removes those that are not read. And
    // iterators, as an index into each row would be checked in every step.
    let last = rows.min(M) - 1;
    // A macro, as a closure may not be inlined.
    macro_rules! row {
        ($m:literal) => {
            panel[if $m < M { last.min($m) } else { 0 } * a_stride..][..depth].iter()
        };
    }
    let (a01, a23) = (row!(0).zip(row!(1)), row!(2).zip(row!(3)));
    let (a45, a67) = (row!(4).zip(row!(5)), row!(6).zip(row!(7)));
    let a = a01.zip(a23).zip(a45.zip(a67));
    for (b, (((a0, a1), (a2, a3)), ((a4, a5), (a6, a7)))) in b.chunks_exact(ld).zip(a) {
        let b = &b[j..j + N];
        let a = [*a0, *a1, *a2, *a3, *a4, *a5, *a6, *a7];
        for m in 0..M {
            let a = T::splat(simd, a[m]);
            for i in 0..N {
                sums[m][i] = T::mul_add(simd, a, b[i], sums[m][i]);
            }
        }
    }
    sums
}

/// A·Bᵀ by dot products along the columns: `sums[m, k] += Σ_n a[m, n] · b[k, n]`, each sum kept as a
/// vector of partial sums.
///
/// `sums` holds one vector of the instruction set per `(m, k)` at its start, row-major in `m`;
/// [`collect_dot_sums`] adds them up. `rows` says which row of `sums` is the first, and how many there
/// are, both multiples of [`MR`].
#[allow(clippy::too_many_arguments)]
pub(crate) fn gemm_nt_dot<T: Real>(
    arch: Arch,
    a: &[T],
    b: &[T],
    rows: (usize, usize),
    depth: usize,
    width: usize,
    ld: usize,
    sums: &mut [T],
) {
    arch.dispatch(GemmNtDot { a, b, rows, depth, width, ld, sums });
}

struct GemmNtDot<'a, T> {
    a: &'a [T],
    b: &'a [T],
    rows: (usize, usize),
    depth: usize,
    width: usize,
    ld: usize,
    sums: &'a mut [T],
}

impl<T: Real> WithSimd for GemmNtDot<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = size_of::<T::Vector<S>>() / T::BYTES;
        let depth = self.depth;
        let (a, _) = T::as_vectors::<S>(self.a);
        let (b, _) = T::as_vectors::<S>(self.b);
        let (sums, _) = T::as_vectors_mut::<S>(self.sums);
        let (width, ld) = (self.width / lanes, self.ld / lanes);
        let sums = &mut sums[self.rows.0 * depth..];
        let mut m = 0;
        while m < self.rows.1 {
            let large = const { has_many_registers::<S>() } && m + MR_LARGE <= self.rows.1;
            let a = &a[m * ld..];
            let mut k = 0;
            while k < depth {
                let n = nr::<S>(depth - k);
                macro_rules! block {
                    ($mr:expr, $nr:expr) => {
                        dot_block::<S, T, { $mr }, { $nr }>(
                            simd, a, width, b, ld, m, k, depth, sums,
                        )
                    };
                }
                select_block!(large, n, block);
                k += n;
            }
            m += if large { MR_LARGE } else { MR };
        }
    }
}

/// Here the `N` of the block are rows of `b`, not vectors.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn dot_block<S: Simd, T: Real, const M: usize, const N: usize>(
    simd: S,
    a: &[T::Vector<S>],
    width: usize,
    b: &[T::Vector<S>],
    ld: usize,
    m: usize,
    k: usize,
    depth: usize,
    sums: &mut [T::Vector<S>],
) {
    let a: [&[T::Vector<S>]; M] = std::array::from_fn(|i| &a[i * ld..][..width]);
    let width = a[0].len();
    let b: [&[T::Vector<S>]; N] = std::array::from_fn(|i| &b[(k + i) * ld..][..width]);
    let a: [&[T::Vector<S>]; M] = std::array::from_fn(|i| &a[i][..width]);
    let mut acc = [[T::splat(simd, T::ZERO); N]; M];
    for j in 0..width {
        // Those of `b` are loaded once, as there are fewer of them than rows.
        let mut factors = [acc[0][0]; N];
        for l in 0..N {
            factors[l] = b[l][j];
        }
        for i in 0..M {
            let x = a[i][j];
            for l in 0..N {
                acc[i][l] = T::mul_add(simd, x, factors[l], acc[i][l]);
            }
        }
    }
    for (i, acc) in acc.iter().enumerate() {
        let to = &mut sums[(m + i) * depth + k..][..N];
        for (to, &x) in to.iter_mut().zip(acc) {
            *to = <T as Real>::add(simd, *to, x);
        }
    }
}

/// Adds up the vectors of partial sums that [`gemm_nt_dot`] leaves, into one number each, and clears
/// them.
pub(crate) fn collect_dot_sums<T: Real>(arch: Arch, sums: &mut [T], out: &mut [T]) {
    arch.dispatch(CollectDotSums { sums, out });
}

struct CollectDotSums<'a, T> {
    sums: &'a mut [T],
    out: &'a mut [T],
}

impl<T: Real> WithSimd for CollectDotSums<'_, T> {
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

/// The same A·Bᵀ as [`gemm_nt_dot`], but with neighbouring `k` in the lanes of a vector:
/// `sums[m, k] += Σ_n a[m, n] · packed[n, k]`.
///
/// `packed` is B transposed, and its rows, as those of `sums`, have `stride` elements. So there are no
/// partial sums to keep, and a register block holds its sums over all columns: this takes least time
/// where K fills a few vectors.
pub(crate) fn gemm_nt_packed<T: Real>(
    arch: Arch,
    a: &[T],
    packed: &[T],
    width: usize,
    ld: usize,
    stride: usize,
    sums: &mut [T],
) {
    arch.dispatch(Gemm {
        a,
        depth: width,
        a_stride: ld,
        b: packed,
        width: stride,
        ld: stride,
        store: Store::Add,
        to: sums,
    });
}

/// Aᵀ·B: `sums[k, n] += Σ_m a[m, k] · b[m, n]`.
///
/// `a` is row-major (`[m][depth]`), `b` and `sums` have `ld` elements from one row to the next.
#[allow(clippy::too_many_arguments)]
pub(crate) fn gemm_tn<T: Real>(
    arch: Arch,
    a: &[T],
    b: &[T],
    rows: usize,
    depth: usize,
    width: usize,
    ld: usize,
    sums: &mut [T],
) {
    arch.dispatch(GemmTn { a, b, rows, depth, width, ld, sums });
}

struct GemmTn<'a, T> {
    a: &'a [T],
    b: &'a [T],
    rows: usize,
    depth: usize,
    width: usize,
    ld: usize,
    sums: &'a mut [T],
}

impl<T: Real> WithSimd for GemmTn<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = size_of::<T::Vector<S>>() / T::BYTES;
        let depth = self.depth;
        let (b, _) = T::as_vectors::<S>(self.b);
        let (sums, _) = T::as_vectors_mut::<S>(self.sums);
        let (width, ld) = (self.width / lanes, self.ld / lanes);
        let b = &b[..self.rows * ld];
        let a = &self.a[..self.rows * depth];
        let mut k = 0;
        while k < depth {
            // Shares of what is left that are not much smaller than the others.
            let n = match depth - k {
                left @ 0..=5 => left,
                6 => 3,
                7 => 4,
                9 | 10 => 5,
                _ if const { has_many_registers::<S>() } => 8,
                _ => 4,
            };
            let mut j = 0;
            while j < width {
                let v = nr::<S>(width - j);
                macro_rules! block {
                    ($k:literal, $v:literal) => {
                        tn_block::<S, T, $k, $v>(simd, a, b, depth, ld, k, j, sums)
                    };
                }
                macro_rules! blocks {
                    ($k:literal) => {
                        if const { has_many_registers::<S>() } && v == 3 {
                            block!($k, 3)
                        } else if const { has_vectors::<S>() } && v == 2 {
                            block!($k, 2)
                        } else {
                            block!($k, 1)
                        }
                    };
                }
                if const { has_many_registers::<S>() } && n == 8 {
                    blocks!(8);
                } else {
                    match n {
                        5 => blocks!(5),
                        4 => blocks!(4),
                        3 => blocks!(3),
                        2 => blocks!(2),
                        _ => blocks!(1),
                    }
                }
                j += v;
            }
            k += n;
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn tn_block<S: Simd, T: Real, const K: usize, const V: usize>(
    simd: S,
    a: &[T],
    b: &[T::Vector<S>],
    depth: usize,
    ld: usize,
    k: usize,
    j: usize,
    sums: &mut [T::Vector<S>],
) {
    let mut acc = [[T::splat(simd, T::ZERO); V]; K];
    for (b, a) in b.chunks_exact(ld).zip(a.chunks_exact(depth)) {
        let (b, a) = (&b[j..j + V], &a[k..k + K]);
        for i in 0..K {
            let x = T::splat(simd, a[i]);
            for l in 0..V {
                acc[i][l] = T::mul_add(simd, x, b[l], acc[i][l]);
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
        depth: usize,
        width: usize,
        ld: usize,
        tolerance: f64,
    ) {
        let padded = rows.div_ceil(MR) * MR;
        let to = |x: Vec<f64>| -> Vec<T> { x.into_iter().map(T::from_f64).collect() };
        let lhs = fill(rows * depth, 1);
        let rhs = fill(depth * ld, 2);
        let entries = fill(padded * ld, 3);
        let mut padded_lhs = lhs.clone();
        padded_lhs.resize(padded * depth, 0.0);
        let mut y = to(vec![0.0; padded * ld]);
        let floor = 0.9;
        gemm_nn(
            arch,
            &to(padded_lhs),
            &to(rhs.clone()),
            depth,
            width,
            ld,
            T::from_f64(floor),
            &mut y,
        );
        let mut dot_sums = to(vec![0.0; padded * depth * T::MAX_LANES]);
        gemm_nt_dot(
            arch,
            &to(entries.clone()),
            &to(rhs.clone()),
            (0, padded),
            depth,
            width,
            ld,
            &mut dot_sums,
        );
        let mut collected = to(vec![0.0; padded * depth]);
        collect_dot_sums(arch, &mut dot_sums, &mut collected);
        assert!(dot_sums.iter().all(|&x| x == T::ZERO));
        let stride = depth.next_multiple_of(T::MAX_LANES);
        let mut packed = to(vec![0.0; ld * stride]);
        for (k, row) in to(rhs.clone()).chunks_exact(ld).enumerate() {
            row.iter().enumerate().for_each(|(n, &x)| packed[n * stride + k] = x);
        }
        let mut packed_sums = to(vec![1.0; padded * stride]);
        gemm_nt_packed(arch, &to(entries.clone()), &packed, width, ld, stride, &mut packed_sums);
        let mut tn_sums = to(vec![1.0; depth * ld]);
        gemm_tn(arch, &to(lhs.clone()), &to(entries.clone()), rows, depth, width, ld, &mut tn_sums);

        let near = |x: T, expected: f64, what: &str| {
            assert!(
                (x.to_f64() - expected).abs() <= tolerance * expected.abs().max(1.0),
                "{what}: {x} {expected}"
            );
        };
        for m in 0..rows {
            for n in 0..width {
                let expected: f64 = (0..depth).map(|k| lhs[m * depth + k] * rhs[k * ld + n]).sum();
                near(y[m * ld + n], expected.max(floor), "product");
            }
            for k in 0..depth {
                let expected: f64 = (0..width).map(|n| entries[m * ld + n] * rhs[k * ld + n]).sum();
                near(collected[m * depth + k], expected, "dot");
                near(packed_sums[m * stride + k], 1.0 + expected, "packed");
            }
        }
        for k in 0..depth {
            for n in 0..width {
                let expected: f64 =
                    1.0 + (0..rows).map(|m| entries[m * ld + n] * lhs[m * depth + k]).sum::<f64>();
                near(tn_sums[k * ld + n], expected, "tn");
            }
        }
    }

    #[test]
    fn products_on_tiles_are_right_at_every_remainder() {
        for arch in instruction_sets() {
            for rows in [1, 3, 4, 5, 8, 11] {
                for depth in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 33] {
                    for width in [16, 32, 48, 64, 112] {
                        check::<f32>(arch, rows, depth, width, 112, 1e-5);
                        check::<f64>(arch, rows, depth, width, 128, 1e-13);
                    }
                }
            }
        }
    }
}
