//! Row-major matrices over the linear algebra library, faer.
//!
//! Decompositions run on copies that the library allocates, which are aligned: its loops handle the
//! first entries of an unaligned column apart, and the last bit of a sum would depend on where the
//! allocator had put a matrix. Parallel products are cut into blocks whose size depends on the
//! matrices only, so results have the same bits for any number of threads.

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::{Qr, Solve, Svd};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::small;

/// A row-major matrix seen through the library.
pub(crate) fn view(data: &[f64], rows: usize, cols: usize) -> MatRef<'_, f64> {
    MatRef::from_row_major_slice(data, rows, cols)
}

/// Products with fewer multiplications than this are not worth a second thread.
const PARALLEL_FROM: usize = 1 << 18;
/// Rows or columns of a block of a parallel product.
const BLOCK: usize = 64;

/// The product of two matrices, row-major.
pub(crate) fn product(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Vec<f64> {
    let (m, k, n) = (a.nrows(), a.ncols(), b.ncols());
    let mut out = vec![0.0; m * n];
    if out.is_empty() {
        return out;
    }
    if m * k * n < PARALLEL_FROM || (m < 2 * BLOCK && n < 2 * BLOCK) {
        product_into(a, b, &mut out);
    } else if m >= n {
        out.par_chunks_mut(BLOCK * n).enumerate().for_each(|(block, out)| {
            let rows = out.len() / n;
            product_into(a.subrows(block * BLOCK, rows), b, out);
        });
    } else {
        let blocks: Vec<Vec<f64>> = (0..n.div_ceil(BLOCK))
            .into_par_iter()
            .map(|block| {
                let cols = BLOCK.min(n - block * BLOCK);
                let mut out = vec![0.0; m * cols];
                product_into(a, b.subcols(block * BLOCK, cols), &mut out);
                out
            })
            .collect();
        for (block, part) in blocks.iter().enumerate() {
            let cols = part.len() / m;
            for (row, part) in part.chunks_exact(cols).enumerate() {
                let start = row * n + block * BLOCK;
                out[start..start + cols].copy_from_slice(part);
            }
        }
    }
    out
}

/// Products with fewer multiplications than this, and an operand with so few rows and columns, are too
/// small for the library to be faster.
const SMALL: usize = 1 << 18;
const SMALL_SIDE: usize = 64;

/// Whether a product is small.
fn is_small(sides: [usize; 3]) -> bool {
    let work = sides.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
    let mut sorted = sides;
    sorted.sort_unstable();
    work.is_some_and(|work| (1..SMALL).contains(&work)) && sorted[1] <= SMALL_SIDE
}

/// `a · b` for row-major a (m × k) and b (k × n).
pub(crate) fn product_nn(a: &[f64], b: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
    if is_small([m, k, n]) {
        return small::product_nn(a, b, k, n);
    }
    product(view(a, m, k), view(b, k, n))
}

/// `aᵀ · b` for row-major a (k × m) and b (k × n).
pub(crate) fn product_tn(a: &[f64], b: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
    if is_small([m, k, n]) {
        return small::product_tn(a, b, k, n);
    }
    product(view(a, k, m).transpose(), view(b, k, n))
}

/// `a · bᵀ` for row-major a (m × k) and b (n × k).
pub(crate) fn product_nt(a: &[f64], b: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
    if is_small([m, k, n]) {
        return small::product_nt(a, b, k);
    }
    product(view(a, m, k), view(b, n, k).transpose())
}

/// The product of two matrices into a row-major matrix that is there already, on this thread.
pub(crate) fn product_into(a: MatRef<'_, f64>, b: MatRef<'_, f64>, out: &mut [f64]) {
    let out = MatMut::from_row_major_slice_mut(out, a.nrows(), b.ncols());
    matmul(out, Accum::Replace, a, b, 1.0, Par::Seq);
}

/// Adds the product of two matrices to a row-major matrix, on this thread.
pub(crate) fn add_product(a: MatRef<'_, f64>, b: MatRef<'_, f64>, out: &mut [f64]) {
    let out = MatMut::from_row_major_slice_mut(out, a.nrows(), b.ncols());
    matmul(out, Accum::Add, a, b, 1.0, Par::Seq);
}

/// The rows of a matrix of the library, one after the other.
pub(crate) fn row_major(a: MatRef<'_, f64>) -> Vec<f64> {
    let mut out = Vec::with_capacity(a.nrows() * a.ncols());
    for i in 0..a.nrows() {
        out.extend((0..a.ncols()).map(|j| a[(i, j)]));
    }
    out
}

/// A thin singular value decomposition: `a = u diag(s) vᵀ`, values in descending order.
pub(crate) struct ThinSvd {
    pub u: Mat<f64>,
    pub s: Vec<f64>,
    pub v: Mat<f64>,
}

/// The thin singular value decomposition of a row-major matrix. `what` names it in the error.
pub(crate) fn svd(data: &[f64], rows: usize, cols: usize, what: &str) -> Result<ThinSvd> {
    // Scaled by a power of two, which is exact: squares of entries near 1e-200 would underflow.
    let largest = largest(data);
    if !largest.is_finite() {
        return Err(Error::Numeric(format!("{what} holds a value that is not finite")));
    }
    let exponent = if largest > 0.0 { exponent(largest) } else { 0 };
    let scaled = Mat::from_fn(rows, cols, |i, j| scale2(data[i * cols + j], -exponent));
    let svd = Svd::new_thin(scaled.as_ref()).map_err(|_| {
        Error::Numeric(format!("the singular value decomposition of {what} did not converge"))
    })?;
    let s = svd.S().column_vector().iter().map(|&x| scale2(x, exponent)).collect();
    Ok(ThinSvd { u: svd.U().to_owned(), s, v: svd.V().to_owned() })
}

/// The thin QR decomposition of a matrix.
pub(crate) fn qr(a: MatRef<'_, f64>) -> (Mat<f64>, Mat<f64>) {
    let a = a.to_owned();
    let qr = Qr::new(a.as_ref());
    (qr.compute_thin_Q(), qr.thin_R().to_owned())
}

/// The triangular factor of the thin QR decomposition.
pub(crate) fn qr_r(a: MatRef<'_, f64>) -> Mat<f64> {
    let a = a.to_owned();
    let r = Qr::new(a.as_ref()).thin_R().to_owned();
    // Below the diagonal the library leaves what it likes.
    Mat::from_fn(r.nrows(), r.ncols(), |i, j| if i <= j { r[(i, j)] } else { 0.0 })
}

/// `u (u[rows])⁻¹` for a tall matrix and as many of its rows as it has columns.
pub(crate) fn divide_by_rows(u: MatRef<'_, f64>, rows: &[usize]) -> Mat<f64> {
    let square = Mat::from_fn(rows.len(), rows.len(), |i, j| u[(rows[j], i)]);
    let right = u.transpose().to_owned();
    square.partial_piv_lu().solve(right).transpose().to_owned()
}

/// The largest absolute value; NaN and infinity win.
pub(crate) fn largest(data: &[f64]) -> f64 {
    let larger = |m: f64, x: f64| if x.is_nan() { f64::INFINITY } else { m.max(x.abs()) };
    // Several at a time: one after the other, each would wait for the one before.
    let mut tops = [0.0; 8];
    let (blocks, rest) = data.as_chunks::<8>();
    for block in blocks {
        tops.iter_mut().zip(block).for_each(|(top, &x)| *top = larger(*top, x));
    }
    tops.iter().chain(rest).fold(0.0, |m, &x| larger(m, x))
}

/// The exponent e of a positive finite x = m·2^e, m in [1, 2).
pub(crate) fn exponent(x: f64) -> i32 {
    let bits = ((x.to_bits() >> 52) & 0x7ff) as i32;
    if bits == 0 { exponent(x * TWO_54) - 54 } else { bits - 1023 }
}

const TWO_54: f64 = 18_014_398_509_481_984.0;

/// x·2^e, exact unless it leaves the range of double precision.
pub(crate) fn scale2(mut x: f64, mut e: i32) -> f64 {
    while e > 1000 {
        x *= f64::from_bits(2023 << 52);
        e -= 1000;
        if x == 0.0 || x.is_infinite() {
            return x;
        }
    }
    while e < -900 {
        x *= f64::from_bits(123 << 52);
        e += 900;
        if x == 0.0 {
            return x;
        }
    }
    x * f64::from_bits(((e + 1023) as u64) << 52)
}

/// Multiplies by 2^e.
pub(crate) fn scale2_all(data: &mut [f64], e: i32) {
    if e != 0 {
        let by = Power2::new(e);
        data.iter_mut().for_each(|x| *x = by.times(*x));
    }
}

/// A power of two to multiply many numbers by, with the bits of [`scale2`].
#[derive(Clone, Copy)]
enum Power2 {
    /// It is a number itself.
    Factor(f64),
    /// It is beyond double precision, or might be.
    Exponent(i32),
}

impl Power2 {
    fn new(e: i32) -> Power2 {
        if (-900..=1000).contains(&e) {
            Power2::Factor(scale2(1.0, e))
        } else {
            Power2::Exponent(e)
        }
    }

    #[inline(always)]
    fn times(self, x: f64) -> f64 {
        match self {
            Power2::Factor(factor) => x * factor,
            Power2::Exponent(e) => scale2(x, e),
        }
    }
}

/// Takes a power of two out, so that the largest absolute value is in [1, 2), and returns its
/// exponent. A matrix of zeros, or with a value that is not finite, stays as it is.
pub(crate) fn take_exponent(data: &mut [f64]) -> i32 {
    let top = largest(data);
    if top == 0.0 || !top.is_finite() {
        return 0;
    }
    let e = exponent(top);
    scale2_all(data, -e);
    e
}

/// The Frobenius norm, in two steps so that squares neither overflow nor underflow.
pub(crate) fn norm(data: &[f64]) -> f64 {
    let top = largest(data);
    if top == 0.0 || !top.is_finite() {
        return top;
    }
    let e = exponent(top);
    let by = Power2::new(-e);
    scale2(data.iter().map(|&x| by.times(x).powi(2)).sum::<f64>().sqrt(), e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Stream};

    fn random(n: usize, part: u64) -> Vec<f64> {
        let s = Stream::new(1, Purpose::Start, part);
        (0..n as u64).map(|i| s.normal(i)).collect()
    }

    #[test]
    fn powers_of_two_are_exact() {
        for x in [1.0, 1.5, 1e-310, 5e-324, 1e300, std::f64::consts::PI] {
            let e = exponent(x);
            let m = scale2(x, -e);
            assert!((1.0..2.0).contains(&m), "{x}: {m}");
            assert_eq!(scale2(m, e), x);
        }
        assert_eq!(scale2(1.0, 3000), f64::INFINITY);
        assert_eq!(scale2(1.0, -3000), 0.0);
        assert_eq!(scale2(1e-300, 1990), 1e-300 * 2f64.powi(1000) * 2f64.powi(990));
        // Many at a time have the same bits.
        let numbers = [1.0, -1.5, 1e-310, 3e-5, 0.0, 7e299];
        for e in [-3000, -1050, -901, -900, -1, 1, 3, 1000, 1001, 1023, 2500] {
            let mut all = numbers;
            scale2_all(&mut all, e);
            for (got, x) in all.iter().zip(numbers) {
                assert_eq!(got.to_bits(), scale2(x, e).to_bits(), "{x} {e}");
            }
        }
    }

    #[test]
    fn the_largest_is_found_anywhere() {
        for n in [0, 1, 7, 8, 9, 40] {
            for at in 0..n {
                for (x, want) in
                    [(-3.5, 3.5), (f64::NAN, f64::INFINITY), (f64::NEG_INFINITY, f64::INFINITY)]
                {
                    let mut data = random(n, 3);
                    data.iter_mut().for_each(|x| *x /= 10.0);
                    data[at] = x;
                    assert_eq!(largest(&data), want, "{n} {at}");
                }
            }
        }
        assert_eq!(largest(&[]), 0.0);
    }

    #[test]
    fn parallel_products_have_the_bits_of_the_blocks() {
        for (m, k, n) in [(300, 40, 70), (20, 60, 500), (3, 2, 5), (200, 1, 200), (0, 3, 4)] {
            let (a, b) = (random(m * k, 0), random(k * n, 1));
            let got = product(view(&a, m, k), view(&b, k, n));
            for i in 0..m {
                for j in 0..n {
                    let want: f64 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                    assert!((got[i * n + j] - want).abs() < 1e-12 * (1.0 + want.abs()));
                }
            }
            // Placed elsewhere in memory, the same bits.
            let mut shifted = vec![0.0; 1 + a.len()];
            shifted[1..].copy_from_slice(&a);
            assert_eq!(got, product(view(&shifted[1..], m, k), view(&b, k, n)));
        }
    }

    #[test]
    fn singular_values_of_tiny_matrices() {
        let a: Vec<f64> = random(6 * 4, 0).iter().map(|x| x * 1e-250).collect();
        let b: Vec<f64> = random(6 * 4, 0);
        let (x, y) = (svd(&a, 6, 4, "a").unwrap(), svd(&b, 6, 4, "b").unwrap());
        for (x, y) in x.s.iter().zip(&y.s) {
            assert!((x * 1e250 / y - 1.0).abs() < 1e-13);
        }
        assert!(svd(&[f64::NAN], 1, 1, "a").is_err());
    }

    #[test]
    fn norms_do_not_overflow() {
        assert!((norm(&[3e300, 4e300]) / 5e300 - 1.0).abs() < 1e-15);
        assert!((norm(&[3e-300, 4e-300]) / 5e-300 - 1.0).abs() < 1e-15);
        assert_eq!(norm(&[]), 0.0);
    }
}
