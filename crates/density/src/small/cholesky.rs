//! Symmetric positive definite systems by Cholesky's factorization.
//!
//! Column by column in memory, a panel of columns at a time, looking left: the products with all
//! columns before a panel are added up in registers, from which the panel is factored. The matrix
//! itself is never stored: its entries are made where they are needed.

#![allow(clippy::needless_range_loop, reason = "triangular loops read as they are written down")]

use nneinfact_simd::{Aligned, Real, arch};
use pulp::{Arch, Scalar, Simd, WithSimd};

use super::tile::{Tile, add_products, subtract_from, take_column};
use super::{LANES, System, padded};

/// Columns of a panel.
pub(super) const PANEL: usize = LANES;

/// The matrix `A ⊗ B` of two symmetric ones, in a form from which its columns are read as vectors: the
/// entry of a row and of column `c · right + d` is `first[c][row] · second[d][row]`.
pub(crate) struct Kronecker {
    left: usize,
    right: usize,
    first: Aligned<f64>,
    second: Aligned<f64>,
}

impl Kronecker {
    /// Of row-major symmetric matrices.
    pub fn new(left: usize, a: &[f64], right: usize, b: &[f64]) -> Kronecker {
        let rows = padded(left * right);
        let mut first = Aligned::zeros(left * rows);
        for (first, a) in first.chunks_exact_mut(rows).zip(a.chunks_exact(left)) {
            for (first, &a) in first.chunks_exact_mut(right).zip(a) {
                first.fill(a);
            }
        }
        let mut second = Aligned::zeros(right * rows);
        for (second, b) in second.chunks_exact_mut(rows).zip(b.chunks_exact(right)) {
            for second in second[..left * right].chunks_exact_mut(right) {
                second.copy_from_slice(b);
            }
        }
        Kronecker { left, right, first, second }
    }

    /// Of one symmetric matrix: the product with the 1 × 1 matrix 1.
    pub fn single(size: usize, matrix: &[f64]) -> Kronecker {
        Kronecker::new(1, &[1.0], size, matrix)
    }

    fn size(&self) -> usize {
        self.left * self.right
    }

    /// An entry of the diagonal.
    fn diagonal(&self, at: usize) -> f64 {
        let rows = padded(self.size());
        self.first[at / self.right * rows + at] * self.second[at % self.right * rows + at]
    }
}

/// Solves `(x Γ x + μ) y = rhs`, where x stands for the diagonal matrix of its entries. Entries and right
/// side are in the first places of `system.x` and `system.y`, and the solution takes the place of the
/// latter. Where rounding makes the factorization fail, a growing multiple of the largest diagonal entry
/// is added until it does not; false if the matrix is not finite.
pub(crate) fn solve_positive(gram: &Kronecker, mu: f64, system: &mut System) -> bool {
    solve_on(arch(), gram, mu, system)
}

pub(super) fn solve_on(arch: Arch, gram: &Kronecker, mu: f64, system: &mut System) -> bool {
    let size = gram.size();
    let rows = padded(size);
    let System { factor, reciprocals, coefficients, x, y } = system;
    for vector in [&mut *x, &mut *y] {
        vector.resize(rows);
        vector[size..].fill(0.0);
    }
    factor.resize(rows * size);
    reciprocals.resize(rows, 0.0);
    coefficients.resize(rows, [0.0; LANES]);
    let mut shift = 0.0;
    loop {
        let diagonal = mu + shift;
        let factored = arch.dispatch(Factor {
            gram,
            x,
            diagonal,
            factor,
            reciprocals: &mut *reciprocals,
            coefficients: &mut *coefficients,
        });
        if factored {
            arch.dispatch(Substitute { factor, reciprocals, y });
            return true;
        }
        let top = (0..size).fold(0.0f64, |m, i| m.max(x[i] * gram.diagonal(i) * x[i] + mu));
        let next = f64::max(10.0 * shift, 1e-16 * top * size as f64);
        // A matrix with a NaN never factors.
        if !next.is_finite() || next > 1e3 * top || next == shift {
            return false;
        }
        shift = next;
    }
}

/// `x Γ x` with something added to the diagonal, factored. False where a pivot is not positive.
struct Factor<'a> {
    gram: &'a Kronecker,
    x: &'a [f64],
    diagonal: f64,
    factor: &'a mut [f64],
    reciprocals: &'a mut [f64],
    coefficients: &'a mut [[f64; LANES]],
}

/// A square block on the diagonal, column by column.
type Block = Tile<Scalar, PANEL, PANEL>;

impl WithSimd for Factor<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> bool {
        let Factor { gram, x, diagonal, factor, reciprocals, coefficients } = self;
        let (size, rows) = (gram.size(), x.len());
        let lanes = size_of::<S::f64s>() / size_of::<f64>();
        for start in (0..size).step_by(PANEL) {
            let (done, rest) = factor.split_at_mut(start * rows);
            for (to, column) in coefficients.iter_mut().zip(done.chunks_exact(rows)) {
                to.copy_from_slice(&column[start..start + PANEL]);
            }
            let panel = Panel {
                gram,
                x,
                start,
                done: f64::as_vectors::<S>(done).0,
                coefficients: &coefficients[..start],
            };
            let mut block: Block = [[0.0; PANEL]; PANEL];
            for part in 0..PANEL / lanes {
                let tile = panel.tile::<1>(simd, start / lanes + part);
                for (column, tile) in block.iter_mut().zip(tile) {
                    let (column, _) = f64::as_vectors_mut::<S>(column);
                    column[part] = tile[0];
                }
            }
            let reciprocals = &mut reciprocals[start..start + PANEL];
            let columns = PANEL.min(size - start);
            if !factor_block(&mut block, columns, diagonal, reciprocals) {
                return false;
            }
            for (to, column) in rest.chunks_exact_mut(rows).zip(&block).take(columns) {
                to[start..start + PANEL].copy_from_slice(column);
            }
            let (rest, _) = f64::as_vectors_mut::<S>(rest);
            let (mut v, end) = ((start + PANEL) / lanes, rows / lanes);
            while v < end {
                if S::REGISTER_COUNT >= 32 && v + 2 <= end {
                    panel.below::<2>(simd, v, &block, reciprocals, rest);
                    v += 2;
                } else {
                    panel.below::<1>(simd, v, &block, reciprocals, rest);
                    v += 1;
                }
            }
        }
        true
    }
}

/// Some columns, and all that are factored already.
struct Panel<'a, S: Simd> {
    gram: &'a Kronecker,
    x: &'a [f64],
    /// The first column.
    start: usize,
    done: &'a [S::f64s],
    /// The rows of the panel's columns in those before.
    coefficients: &'a [[f64; LANES]],
}

impl<S: Simd> Panel<'_, S> {
    /// The matrix less the products of the columns before, in R vectors of rows from the v-th on.
    #[inline(always)]
    fn tile<const R: usize>(&self, simd: S, v: usize) -> Tile<S, PANEL, R> {
        let (x, _) = f64::as_vectors::<S>(self.x);
        let height = x.len();
        let mut sums = [[simd.splat_f64s(0.0); R]; PANEL];
        for (column, coefficients) in self.done.chunks_exact(height).zip(self.coefficients) {
            if let Some(rows) = column[v..].first_chunk::<R>() {
                add_products(simd, &mut sums, rows, |c| simd.splat_f64s(coefficients[c]));
            }
        }
        let (first, _) = f64::as_vectors::<S>(&self.gram.first);
        let (second, _) = f64::as_vectors::<S>(&self.gram.second);
        let (right, last) = (self.gram.right, self.gram.size() - 1);
        for (j, sums) in sums.iter_mut().enumerate() {
            // Beyond the last column the entries of x are zeros.
            let at = self.start + j;
            let scale = simd.splat_f64s(self.x[at]);
            let at = at.min(last);
            let first = &first[at / right * height..][v..v + R];
            let second = &second[at % right * height..][v..v + R];
            let gram = |r: usize| simd.mul_f64s(first[r], second[r]);
            subtract_from(simd, sums, &x[v..v + R], gram, scale);
        }
        sums
    }

    /// Rows below the block on the diagonal.
    #[inline(always)]
    fn below<const R: usize>(
        &self,
        simd: S,
        v: usize,
        block: &Block,
        reciprocals: &[f64],
        to: &mut [S::f64s],
    ) {
        let height = size_of_val(self.x) / size_of::<S::f64s>();
        let mut tile = self.tile::<R>(simd, v);
        for j in 0..PANEL {
            let reciprocal = simd.splat_f64s(reciprocals[j]);
            let own = |_: &[S::f64s; R], k: usize| simd.splat_f64s(block[j][k]);
            take_column::<S, PANEL, R, false>(simd, &mut tile, j, reciprocal, own);
        }
        for (to, tile) in to.chunks_exact_mut(height).zip(&tile) {
            to[v..v + R].copy_from_slice(tile);
        }
    }
}

/// Factors a block on the diagonal; what stands above its diagonal is of no account.
#[inline(always)]
fn factor_block(block: &mut Block, columns: usize, diagonal: f64, reciprocals: &mut [f64]) -> bool {
    reciprocals.fill(0.0);
    for j in 0..columns {
        block[j][j] += diagonal;
    }
    for j in 0..columns {
        let pivot = block[j][j];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return false;
        }
        let reciprocal = 1.0 / pivot.sqrt();
        reciprocals[j] = reciprocal;
        take_column::<Scalar, PANEL, PANEL, true>(Scalar, block, j, reciprocal, |own, k| own[k]);
    }
    true
}

/// Forward and backward substitution.
struct Substitute<'a> {
    factor: &'a [f64],
    reciprocals: &'a [f64],
    y: &'a mut [f64],
}

impl WithSimd for Substitute<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Substitute { factor, reciprocals, y } = self;
        let rows = y.len();
        let lanes = size_of::<S::f64s>() / size_of::<f64>();
        for start in (0..rows).step_by(PANEL) {
            let panel = &factor[start * rows..];
            let end = start + PANEL;
            let mut z = [0.0; PANEL];
            z.copy_from_slice(&y[start..end]);
            for (j, column) in panel.chunks_exact(rows).take(PANEL).enumerate() {
                z[j] *= reciprocals[start + j];
                for i in j + 1..PANEL {
                    z[i] -= z[j] * column[start + i];
                }
            }
            y[start..end].copy_from_slice(&z);
            let (y, _) = f64::as_vectors_mut::<S>(y);
            let (panel, _) = f64::as_vectors::<S>(panel);
            for (j, column) in panel.chunks_exact(y.len()).take(PANEL).enumerate() {
                let c = simd.splat_f64s(-z[j]);
                for (y, &l) in y[end / lanes..].iter_mut().zip(&column[end / lanes..]) {
                    *y = simd.mul_add_e_f64s(l, c, *y);
                }
            }
        }
        for start in (0..rows).step_by(PANEL).rev() {
            let panel = &factor[start * rows..];
            let end = start + PANEL;
            let mut z = [0.0; PANEL];
            z.copy_from_slice(&y[start..end]);
            {
                let (y, _) = f64::as_vectors::<S>(y);
                let (panel, _) = f64::as_vectors::<S>(panel);
                for (z, column) in z.iter_mut().zip(panel.chunks_exact(y.len())) {
                    let mut sum = simd.splat_f64s(0.0);
                    for (&y, &l) in y[end / lanes..].iter().zip(&column[end / lanes..]) {
                        sum = simd.mul_add_e_f64s(l, y, sum);
                    }
                    *z -= simd.reduce_sum_f64s(sum);
                }
            }
            let columns = (panel.len() / rows).min(PANEL);
            for j in (0..columns).rev() {
                let column = &panel[j * rows..][..rows];
                for i in j + 1..PANEL {
                    z[j] -= column[start + i] * z[i];
                }
                z[j] *= reciprocals[start + j];
            }
            y[start..end].copy_from_slice(&z);
        }
    }
}

/// A Gram matrix of full rank.
#[cfg(test)]
pub(super) fn gram(n: usize, s: f64) -> Vec<f64> {
    let f = |i: usize, k: usize| ((i * 7 + k * 3) as f64 * s).sin() + f64::from(i == k);
    (0..n * n).map(|e| (0..n + 3).map(|k| f(e / n, k) * f(e % n, k)).sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solutions_solve() {
        for arch in nneinfact_simd::instruction_sets() {
            let mut system = System::default();
            for (left, right) in [(8, 8), (1, 1), (1, 8), (6, 6), (5, 7), (12, 3), (1, 17), (16, 1)]
            {
                let (a, b) = (gram(left, 0.7), gram(right, 0.3));
                let size = left * right;
                let x: Vec<f64> = (0..size).map(|e| 0.1 + (e as f64 * 0.37).fract()).collect();
                let rhs: Vec<f64> = (0..size).map(|e| (e as f64).cos()).collect();
                system.x.resize(size);
                system.x.copy_from_slice(&x);
                system.y.resize(size);
                system.y.copy_from_slice(&rhs);
                let kronecker = Kronecker::new(left, &a, right, &b);
                assert!(solve_on(arch, &kronecker, 1e-3, &mut system));
                let y = &system.y;
                for i in 0..size {
                    let product: f64 = (0..size)
                        .map(|j| {
                            let first = a[i / right * left + j / right];
                            x[i] * first * b[i % right * right + j % right] * x[j] * y[j]
                        })
                        .sum();
                    let got = product + 1e-3 * y[i];
                    assert!((got - rhs[i]).abs() < 1e-9, "{left} {right} {i}: {got}");
                }
            }
        }
    }

    #[test]
    fn a_singular_matrix_is_shifted() {
        let mut system = System::default();
        let solve = |matrix: &[f64], system: &mut System| {
            for vector in [&mut system.x, &mut system.y] {
                vector.resize(3);
                vector.fill(1.0);
            }
            solve_positive(&Kronecker::single(3, matrix), 0.0, system)
        };
        assert!(solve(&[1.0; 9], &mut system));
        let sum: f64 = system.y[..3].iter().sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        let nan = f64::NAN;
        assert!(!solve(&[1.0, nan, 0.0, nan, 1.0, 0.0, 0.0, 0.0, 1.0], &mut system));
        assert!(!solve(&[f64::INFINITY, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], &mut system));
    }
}
