//! Eigenvectors of a symmetric matrix, and an orthonormal basis of a matrix's columns.
//!
//! Matrices have some hundred rows here, and are not worth a library of linear algebra.

use ndarray::Array2;

/// Iterations that an eigenvalue may take; two or three are usual.
const MOST_ITERATIONS: usize = 60;

/// All eigenvalues of a symmetric matrix, in no particular order, and its eigenvectors, one in each
/// column; `None` where they are not found, as where an entry is not finite. Of the matrix the lower
/// triangle is read.
///
/// Householder's reduction to a tridiagonal matrix, and QL iterations with implicit shifts: `tred2` and
/// `tql2` of EISPACK (Bowdler, Martin, Reinsch & Wilkinson 1968).
#[must_use]
pub fn symmetric_eigen(matrix: &Array2<f64>) -> Option<(Vec<f64>, Array2<f64>)> {
    let n = matrix.nrows();
    if n != matrix.ncols() || matrix.iter().any(|x| !x.is_finite()) {
        return None;
    }
    if n == 0 {
        return Some((Vec::new(), Array2::zeros((0, 0))));
    }
    // Relative to the largest entry, so that products neither overflow nor vanish.
    let largest = matrix.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let size = if largest > 0.0 { largest } else { 1.0 };
    // Columns are contiguous: all loops run along them.
    let column = |j: usize| matrix.column(j).iter().map(|x| x / size).collect();
    let mut vectors: Vec<Vec<f64>> = (0..n).map(column).collect();
    let (mut diagonal, mut below) = tridiagonal(&mut vectors);
    diagonalize(&mut vectors, &mut diagonal, &mut below)?;
    diagonal.iter_mut().for_each(|x| *x *= size);
    Some((diagonal, Array2::from_shape_fn((n, n), |(i, j)| vectors[j][i])))
}

/// Reduces a symmetric matrix, given by its columns, to a tridiagonal one: returns the diagonal and the
/// entries below it (the first is 0), and leaves the orthogonal transformation in place of the matrix.
fn tridiagonal(v: &mut [Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
    let n = v.len();
    let mut d: Vec<f64> = (0..n).map(|j| v[j][n - 1]).collect();
    let mut e = vec![0.0; n];
    for i in (1..n).rev() {
        let mut h = 0.0;
        // Relative to the size of the row, which may be far below that of the matrix.
        let scale: f64 = d[..i].iter().map(|x| x.abs()).sum();
        if scale == 0.0 {
            e[i] = d[i - 1];
            for j in 0..i {
                d[j] = v[j][i - 1];
                v[j][i] = 0.0;
                v[i][j] = 0.0;
            }
        } else {
            for x in &mut d[..i] {
                *x /= scale;
                h += *x * *x;
            }
            let f = d[i - 1];
            let g = if f > 0.0 { -h.sqrt() } else { h.sqrt() };
            e[i] = scale * g;
            h -= f * g;
            d[i - 1] = f - g;
            e[..i].fill(0.0);
            for j in 0..i {
                let f = d[j];
                v[i][j] = f;
                let column = &v[j];
                let mut g = e[j] + column[j] * f;
                for k in j + 1..i {
                    g += column[k] * d[k];
                    e[k] += column[k] * f;
                }
                e[j] = g;
            }
            let mut f = 0.0;
            for j in 0..i {
                e[j] /= h;
                f += e[j] * d[j];
            }
            let hh = f / (h + h);
            for j in 0..i {
                e[j] -= hh * d[j];
            }
            for j in 0..i {
                let (f, g) = (d[j], e[j]);
                let column = &mut v[j];
                for k in j..i {
                    column[k] -= f * e[k] + g * d[k];
                }
                d[j] = column[i - 1];
                column[i] = 0.0;
            }
        }
        d[i] = h;
    }
    // The product of the reflections.
    for i in 0..n - 1 {
        v[i][n - 1] = v[i][i];
        v[i][i] = 1.0;
        let h = d[i + 1];
        let (left, right) = v.split_at_mut(i + 1);
        let reflection = &mut right[0][..=i];
        if h != 0.0 {
            for (to, x) in d.iter_mut().zip(&*reflection) {
                *to = x / h;
            }
            for column in left {
                let column = &mut column[..=i];
                let g: f64 = reflection.iter().zip(&*column).map(|(x, y)| x * y).sum();
                column.iter_mut().zip(&d).for_each(|(x, d)| *x -= g * d);
            }
        }
        reflection.fill(0.0);
    }
    for (d, column) in d.iter_mut().zip(v.iter_mut()) {
        *d = std::mem::take(&mut column[n - 1]);
    }
    v[n - 1][n - 1] = 1.0;
    e[0] = 0.0;
    (d, e)
}

/// Brings a tridiagonal matrix to diagonal form, and turns the columns `v` along with it. `None` where an
/// eigenvalue does not converge.
fn diagonalize(v: &mut [Vec<f64>], d: &mut [f64], e: &mut [f64]) -> Option<()> {
    let n = d.len();
    e.rotate_left(1);
    e[n - 1] = 0.0;
    let (mut shift, mut largest) = (0.0, 0.0f64);
    for l in 0..n {
        largest = largest.max(d[l].abs() + e[l].abs());
        let negligible = f64::EPSILON * largest;
        // The last entry is 0.
        let m = (l..n).find(|&m| e[m].abs() <= negligible)?;
        let mut iterations = 0;
        while m > l && (iterations == 0 || e[l].abs() > negligible) {
            iterations += 1;
            if iterations > MOST_ITERATIONS {
                return None;
            }
            let g = d[l];
            let p = (d[l + 1] - g) / (2.0 * e[l]);
            let r = if p < 0.0 { -p.hypot(1.0) } else { p.hypot(1.0) };
            d[l] = e[l] / (p + r);
            d[l + 1] = e[l] * (p + r);
            let next = d[l + 1];
            let h = g - d[l];
            d[l + 2..].iter_mut().for_each(|x| *x -= h);
            shift += h;

            let mut p = d[m];
            let (mut c, mut c2, mut c3) = (1.0, 1.0, 1.0);
            let (mut s, mut s2) = (0.0, 0.0);
            let below = e[l + 1];
            for i in (l..m).rev() {
                (c3, c2, s2) = (c2, c, s);
                let (g, h) = (c * e[i], c * p);
                let r = p.hypot(e[i]);
                e[i + 1] = s * r;
                s = e[i] / r;
                c = p / r;
                p = c * d[i] - s * g;
                d[i + 1] = h + s * (c * g + s * d[i]);
                let (left, right) = v.split_at_mut(i + 1);
                for (x, y) in left[i].iter_mut().zip(&mut right[0]) {
                    (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                }
            }
            p = -s * s2 * c3 * below * e[l] / next;
            e[l] = s * p;
            d[l] = c * p;
        }
        d[l] += shift;
        e[l] = 0.0;
    }
    d.iter().all(|x| x.is_finite()).then_some(())
}

/// An orthonormal basis of the columns of a matrix that is not wider than high, as many columns as it has
/// (where they are dependent, others complete them), by Householder's reflections.
#[must_use]
pub fn orthonormal(matrix: &Array2<f64>) -> Array2<f64> {
    let (rows, columns) = matrix.dim();
    let mut all: Vec<Vec<f64>> = (0..columns).map(|j| matrix.column(j).to_vec()).collect();
    let reflect = |column: &mut [f64], reflection: &[f64]| {
        let dot: f64 = column.iter().zip(reflection).map(|(x, y)| x * y).sum();
        column.iter_mut().zip(reflection).for_each(|(x, y)| *x -= dot * y);
    };
    // Of length √2 each, or zero.
    let mut reflections: Vec<Vec<f64>> = Vec::with_capacity(columns);
    for j in 0..columns {
        let mut reflection = all[j][j..].to_vec();
        let largest = reflection.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        if largest > 0.0 {
            reflection.iter_mut().for_each(|x| *x /= largest);
            let length = reflection.iter().map(|x| x * x).sum::<f64>().sqrt();
            reflection[0] += if reflection[0] < 0.0 { -length } else { length };
            let half = (reflection.iter().map(|x| x * x).sum::<f64>() / 2.0).sqrt();
            reflection.iter_mut().for_each(|x| *x /= half);
            all[j + 1..].iter_mut().for_each(|column| reflect(&mut column[j..], &reflection));
        }
        reflections.push(reflection);
    }
    let mut basis: Vec<Vec<f64>> =
        (0..columns).map(|j| (0..rows).map(|i| if i == j { 1.0 } else { 0.0 }).collect()).collect();
    for (j, reflection) in reflections.iter().enumerate().rev() {
        basis[j..].iter_mut().for_each(|column| reflect(&mut column[j..], reflection));
    }
    Array2::from_shape_fn((rows, columns), |(i, j)| basis[j][i])
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;
    use crate::data::uniform_u32;

    fn random(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let number = |(i, j)| {
            f64::from(uniform_u32(seed, 0x5445_5354, (i * columns + j) as u64)) / 2f64.powi(32)
                - 0.5
        };
        Array2::from_shape_fn((rows, columns), number)
    }

    /// How far the columns are from orthonormal ones.
    fn skew(columns: &Array2<f64>) -> f64 {
        let products = columns.t().dot(columns) - Array2::<f64>::eye(columns.ncols());
        products.iter().fold(0.0, |most, x| most.max(x.abs()))
    }

    fn largest(matrix: &Array2<f64>) -> f64 {
        matrix.iter().fold(0.0, |most, x| most.max(x.abs()))
    }

    /// Checks that the eigenvectors are orthonormal and give the matrix back; returns the eigenvalues,
    /// smallest first.
    fn checked(matrix: &Array2<f64>) -> Vec<f64> {
        let n = matrix.nrows();
        let (mut values, vectors) = symmetric_eigen(matrix).expect("they are found");
        assert!(skew(&vectors) < 1e-13 * (n as f64 + 10.0), "{n}: {:e}", skew(&vectors));
        let scaled = Array2::from_shape_fn((n, n), |(i, j)| vectors[[i, j]] * values[j]);
        let apart = largest(&(scaled.dot(&vectors.t()) - matrix));
        let size = largest(matrix);
        assert!(apart <= 1e-13 * (n as f64 + 10.0) * size, "{n}: {apart:e} of {size:e}");
        values.sort_by(f64::total_cmp);
        values
    }

    #[test]
    fn eigenvectors_give_the_matrix_back() {
        for (n, seed) in [(1, 1), (2, 2), (3, 3), (5, 4), (16, 5), (40, 6), (113, 7), (200, 8)] {
            let half = random(n, n, seed);
            let matrix = &half + &half.t();
            checked(&matrix);
            for scale in [1e-200, 1e150] {
                checked(&(&matrix * scale));
            }
            // Positive definite, and of low rank.
            let gram = half.dot(&half.t());
            assert!(checked(&gram).iter().all(|x| *x > -1e-13 * n as f64));
            let thin = random(n, 2.min(n), seed + 100);
            let values = checked(&thin.dot(&thin.t()));
            assert!(values.iter().rev().skip(2).all(|x| x.abs() < 1e-13 * n as f64));
        }
    }

    #[test]
    fn known_spectra_are_found() {
        // Second differences: 2 − 2 cos(kπ / (n + 1)).
        for n in [1, 2, 7, 64, 150] {
            let matrix = Array2::from_shape_fn((n, n), |(i, j)| match i.abs_diff(j) {
                0 => 2.0,
                1 => -1.0,
                _ => 0.0,
            });
            for (k, found) in checked(&matrix).iter().enumerate() {
                let expected = 2.0 - 2.0 * ((k + 1) as f64 * PI / (n + 1) as f64).cos();
                assert!((found - expected).abs() < 1e-13 * n as f64, "{n}: {found} {expected}");
            }
        }
        // A spectrum with multiplicities, turned at random.
        let spectrum = [-3.0, -3.0, 0.0, 0.0, 1e-8, 1.0, 1.0, 1.0, 7.0];
        let basis = orthonormal(&random(9, 9, 5));
        let scaled = Array2::from_shape_fn((9, 9), |(i, j)| basis[[i, j]] * spectrum[j]);
        for (found, expected) in checked(&scaled.dot(&basis.t())).iter().zip(spectrum) {
            assert!((found - expected).abs() < 1e-13, "{found} {expected}");
        }
    }

    #[test]
    fn special_matrices_are_no_special_cases() {
        assert_eq!(checked(&Array2::zeros((4, 4))), [0.0; 4]);
        assert_eq!(checked(&Array2::eye(5)), [1.0; 5]);
        checked(&Array2::ones((6, 6)));
        checked(&Array2::from_diag(&ndarray::arr1(&[5.0, -1.0, 0.0, 1e-300, 3.0])));
        assert!(symmetric_eigen(&Array2::zeros((0, 0))).is_some());
        let mut broken = Array2::<f64>::eye(3);
        broken[[1, 1]] = f64::NAN;
        assert!(symmetric_eigen(&broken).is_none());
        assert!(symmetric_eigen(&Array2::zeros((2, 3))).is_none());
    }

    #[test]
    fn bases_are_orthonormal_and_hold_the_columns() {
        for (rows, columns) in [(1, 1), (5, 5), (9, 4), (200, 17), (300, 1)] {
            let matrix = random(rows, columns, 9);
            let basis = orthonormal(&matrix);
            assert!(skew(&basis) < 1e-13, "{:e}", skew(&basis));
            let projected = basis.dot(&basis.t().dot(&matrix));
            assert!(largest(&(projected - &matrix)) < 1e-13);
        }
        // Dependent columns, zeros, and sizes far from 1.
        let mut matrix = random(30, 6, 10);
        let first = matrix.column(0).to_owned();
        matrix.column_mut(1).assign(&(&first * 2.0));
        matrix.column_mut(2).fill(0.0);
        matrix.column_mut(3).mapv_inplace(|x| x * 1e-250);
        matrix.column_mut(4).mapv_inplace(|x| x * 1e200);
        assert!(skew(&orthonormal(&matrix)) < 1e-13);
    }
}
