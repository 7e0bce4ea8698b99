//! Entries of a Cholesky factor in registers, from the products of the columns before to the factor
//! itself. What one system at a time and several at a time have in common: there a vector has rows of one
//! system, here one row of several.

#![allow(clippy::needless_range_loop, reason = "triangular loops read as they are written down")]

use pulp::Simd;

/// C columns of R vectors each.
pub(super) type Tile<S, const C: usize, const R: usize> = [[<S as Simd>::f64s; R]; C];

/// Adds the products of a column before: its entries in these rows, times those in the rows whose numbers
/// the columns have.
#[inline(always)]
pub(super) fn add_products<S: Simd, const C: usize, const R: usize>(
    simd: S,
    tile: &mut Tile<S, C, R>,
    rows: &[S::f64s; R],
    coefficient: impl Fn(usize) -> S::f64s,
) {
    for (c, sums) in tile.iter_mut().enumerate() {
        let coefficient = coefficient(c);
        for (sum, &row) in sums.iter_mut().zip(rows) {
            *sum = simd.mul_add_e_f64s(row, coefficient, *sum);
        }
    }
}

/// The products of all columns before, with one column: what the matrix `x Γ x` has there, less these.
#[inline(always)]
pub(super) fn subtract_from<S: Simd, const R: usize>(
    simd: S,
    sums: &mut [S::f64s; R],
    x_rows: &[S::f64s],
    gram: impl Fn(usize) -> S::f64s,
    x_column: S::f64s,
) {
    for (r, sum) in sums.iter_mut().enumerate() {
        let scaled = simd.mul_f64s(simd.mul_f64s(x_rows[r], gram(r)), x_column);
        *sum = simd.sub_f64s(scaled, *sum);
    }
}

/// Column `c` of the factor: what is left of the matrix, times the reciprocal of the diagonal. Its products
/// leave the columns after it; `coefficient` gives the entry in the row of column `k`, and is told the column.
#[inline(always)]
pub(super) fn take_column<S: Simd, const C: usize, const R: usize, const ROUNDED: bool>(
    simd: S,
    tile: &mut Tile<S, C, R>,
    c: usize,
    reciprocal: S::f64s,
    coefficient: impl Fn(&[S::f64s; R], usize) -> S::f64s,
) {
    for x in &mut tile[c] {
        *x = simd.mul_f64s(*x, reciprocal);
    }
    let column = tile[c];
    for k in c + 1..C {
        let coefficient = coefficient(&column, k);
        for (x, &column) in tile[k].iter_mut().zip(&column) {
            *x = less_product::<S, ROUNDED>(simd, *x, column, coefficient);
        }
    }
}

/// `x − a b`, with the product rounded too where that is said, and once at the end elsewhere.
#[inline(always)]
pub(super) fn less_product<S: Simd, const ROUNDED: bool>(
    simd: S,
    x: S::f64s,
    a: S::f64s,
    b: S::f64s,
) -> S::f64s {
    if ROUNDED {
        simd.sub_f64s(x, simd.mul_f64s(a, b))
    } else {
        simd.mul_add_e_f64s(a, simd.neg_f64s(b), x)
    }
}
