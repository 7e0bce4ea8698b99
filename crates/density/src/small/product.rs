//! Products of small matrices. All are row-major; a letter says how each stands: n as it is, t
//! transposed.
//!
//! As many sums on their way as there are rows in a block hide the time that one addition takes.

use nneinfact_simd::{Aligned, Real, arch};
use pulp::{Arch, Simd, WithSimd};

use super::padded;

/// `a · b` for `a` (rows × depth) and `b` (depth × cols).
pub(crate) fn product_nn(a: &[f64], b: &[f64], depth: usize, cols: usize) -> Vec<f64> {
    product(arch(), Left::Rows { a, stride: depth }, a.len() / depth, b, depth, cols)
}

/// `aᵀ · b` for `a` (depth × rows) and `b` (depth × cols).
pub(crate) fn product_tn(a: &[f64], b: &[f64], depth: usize, cols: usize) -> Vec<f64> {
    let rows = a.len() / depth;
    product(arch(), Left::Columns { a, stride: rows }, rows, b, depth, cols)
}

/// `a · bᵀ` for `a` (rows × depth) and `b` (cols × depth).
pub(crate) fn product_nt(a: &[f64], b: &[f64], depth: usize) -> Vec<f64> {
    let (rows, cols) = (a.len() / depth, b.len() / depth);
    if rows > depth {
        // Short inner products are mostly the sum over the last vector.
        let transposed: Vec<f64> = (0..b.len()).map(|e| b[e % cols * depth + e / cols]).collect();
        return product_nn(a, &transposed, depth, cols);
    }
    let mut to = vec![0.0; rows * cols];
    arch().dispatch(Dots { a, b, depth, to: &mut to });
    to
}

fn product(
    arch: Arch,
    left: Left<'_>,
    rows: usize,
    b: &[f64],
    depth: usize,
    cols: usize,
) -> Vec<f64> {
    let width = padded(cols);
    let mut to = vec![0.0; rows * width];
    if width == cols {
        arch.dispatch(Product { left, rows, b, depth, width, to: &mut to });
        return to;
    }
    let mut wide = Aligned::zeros(depth * width);
    for (wide, b) in wide.chunks_exact_mut(width).zip(b.chunks_exact(cols)) {
        wide[..cols].copy_from_slice(b);
    }
    arch.dispatch(Product { left, rows, b: &wide, depth, width, to: &mut to });
    // The padding goes.
    for row in 1..rows {
        to.copy_within(row * width..row * width + cols, row * cols);
    }
    to.truncate(rows * cols);
    to
}

/// The left operand, with the elements from one row in memory to the next.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// Its rows are those in memory.
    Rows { a: &'a [f64], stride: usize },
    /// Its columns are.
    Columns { a: &'a [f64], stride: usize },
}

/// A product whose right operand and result have rows of whole vectors.
struct Product<'a> {
    left: Left<'a>,
    rows: usize,
    b: &'a [f64],
    depth: usize,
    width: usize,
    to: &'a mut [f64],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Product { left, rows, b, depth, width, to } = self;
        let (b, _) = f64::as_vectors::<S>(b);
        let (to, _) = f64::as_vectors_mut::<S>(to);
        let width = width * size_of::<f64>() / size_of::<S::f64s>();
        times(simd, left, rows, depth, b, width, to);
    }
}

/// `to = a · b` for an `a` of `rows` rows with `depth` numbers each; `b` has `depth` rows, and `to`
/// `rows`, of `width` vectors.
#[inline(always)]
pub(crate) fn times<S: Simd>(
    simd: S,
    left: Left<'_>,
    rows: usize,
    depth: usize,
    b: &[S::f64s],
    width: usize,
    to: &mut [S::f64s],
) {
    let mut row = 0;
    while row < rows {
        macro_rules! block {
            ($m:literal) => {{
                let to = &mut to[row * width..][..$m * width];
                match left {
                    Left::Rows { a, stride } => {
                        by_rows::<S, $m>(simd, &a[row * stride..], stride, depth, b, width, to)
                    }
                    Left::Columns { a, stride } => {
                        by_columns::<S, $m>(simd, &a[row..], stride, b, width, to)
                    }
                }
                row += $m;
            }};
        }
        match rows - row {
            8.. if S::REGISTER_COUNT >= 16 => block!(8),
            4.. => block!(4),
            2.. => block!(2),
            _ => block!(1),
        }
    }
}

#[inline(always)]
fn by_rows<S: Simd, const M: usize>(
    simd: S,
    a: &[f64],
    stride: usize,
    depth: usize,
    b: &[S::f64s],
    width: usize,
    to: &mut [S::f64s],
) {
    let mut rows: [&[f64]; M] = [&[]; M];
    for (m, row) in rows.iter_mut().enumerate() {
        *row = &a[m * stride..][..depth];
    }
    for j in 0..width {
        let mut sums = [simd.splat_f64s(0.0); M];
        for (k, b) in b.chunks_exact(width).take(depth).enumerate() {
            let b = b[j];
            for (sum, row) in sums.iter_mut().zip(&rows) {
                *sum = simd.mul_add_e_f64s(simd.splat_f64s(row[k]), b, *sum);
            }
        }
        for (to, sum) in to.chunks_exact_mut(width).zip(sums) {
            to[j] = sum;
        }
    }
}

#[inline(always)]
fn by_columns<S: Simd, const M: usize>(
    simd: S,
    a: &[f64],
    stride: usize,
    b: &[S::f64s],
    width: usize,
    to: &mut [S::f64s],
) {
    for j in 0..width {
        let mut sums = [simd.splat_f64s(0.0); M];
        for (a, b) in a.chunks(stride).zip(b.chunks_exact(width)) {
            let b = b[j];
            for (sum, &a) in sums.iter_mut().zip(&a[..M]) {
                *sum = simd.mul_add_e_f64s(simd.splat_f64s(a), b, *sum);
            }
        }
        for (to, sum) in to.chunks_exact_mut(width).zip(sums) {
            to[j] = sum;
        }
    }
}

/// A product whose right operand is transposed: inner products of rows.
struct Dots<'a> {
    a: &'a [f64],
    b: &'a [f64],
    depth: usize,
    to: &'a mut [f64],
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Dots { a, b, depth, to } = self;
        let cols = b.len() / depth;
        for (a, to) in a.chunks_exact(depth).zip(to.chunks_exact_mut(cols)) {
            let blocks = b.chunks_exact(4 * depth);
            let last = blocks.remainder();
            let mut to = to.chunks_exact_mut(4);
            for (b, to) in blocks.zip(&mut to) {
                dots::<S, 4>(simd, a, b, to);
            }
            for (b, to) in last.chunks_exact(depth).zip(to.into_remainder()) {
                dots::<S, 1>(simd, a, b, std::slice::from_mut(to));
            }
        }
    }
}

/// The inner products of `a` with N rows.
#[inline(always)]
fn dots<S: Simd, const N: usize>(simd: S, a: &[f64], b: &[f64], to: &mut [f64]) {
    let depth = a.len();
    let (vectors, rest) = f64::as_vectors::<S>(a);
    let mut sums = [simd.splat_f64s(0.0); N];
    let mut rows: [&[S::f64s]; N] = [&[]; N];
    for (row, b) in rows.iter_mut().zip(b.chunks_exact(depth)) {
        *row = &f64::as_vectors::<S>(b).0[..vectors.len()];
    }
    for (k, &a) in vectors.iter().enumerate() {
        for (sum, row) in sums.iter_mut().zip(&rows) {
            *sum = simd.mul_add_e_f64s(a, row[k], *sum);
        }
    }
    for ((to, sum), b) in to.iter_mut().zip(sums).zip(b.chunks_exact(depth)) {
        let mut sum = simd.reduce_sum_f64s(sum);
        for (a, b) in rest.iter().zip(&b[depth - rest.len()..]) {
            sum += a * b;
        }
        *to = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_loops() {
        for arch in nneinfact_simd::instruction_sets() {
            for (m, k, n) in
                [(8, 8, 128), (6, 6, 6), (1, 3, 9), (13, 5, 24), (3, 1, 1), (8, 128, 8), (5, 33, 7)]
            {
                let a: Vec<f64> = (0..m * k).map(|e| (e as f64 * 0.3).sin()).collect();
                let b: Vec<f64> = (0..k * n).map(|e| (e as f64 * 0.9).cos()).collect();
                let transposed = |x: &[f64], rows: usize, cols: usize| -> Vec<f64> {
                    (0..rows * cols).map(|e| x[e % rows * cols + e / rows]).collect()
                };
                let (at, bt) = (transposed(&a, m, k), transposed(&b, k, n));
                let mut nt = vec![0.0; m * n];
                arch.dispatch(Dots { a: &a, b: &bt, depth: k, to: &mut nt });
                let nn = product(arch, Left::Rows { a: &a, stride: k }, m, &b, k, n);
                let tn = product(arch, Left::Columns { a: &at, stride: m }, m, &b, k, n);
                for i in 0..m {
                    for j in 0..n {
                        let want: f64 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                        for got in [&nn, &tn, &nt] {
                            assert!((got[i * n + j] - want).abs() < 1e-12, "{m} {k} {n}");
                        }
                    }
                }
            }
        }
    }
}
