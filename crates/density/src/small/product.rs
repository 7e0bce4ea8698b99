//! Products of small matrices.

use pulp::Simd;

/// `to = a · b` for a row-major `a` of `rows` rows, `depth` numbers of each, `stride` apart; `b` has
/// `depth` rows, and `to` `rows`, of `width` vectors.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn times<S: Simd>(
    simd: S,
    a: &[f64],
    rows: usize,
    depth: usize,
    stride: usize,
    b: &[S::f64s],
    width: usize,
    to: &mut [S::f64s],
) {
    let mut row = 0;
    while row < rows {
        macro_rules! block {
            ($m:literal) => {{
                block::<S, $m>(
                    simd,
                    &a[row * stride..],
                    depth,
                    stride,
                    b,
                    width,
                    &mut to[row * width..],
                );
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

/// As many sums on their way as there are rows in a block hide the time that one addition takes.
#[inline(always)]
fn block<S: Simd, const M: usize>(
    simd: S,
    a: &[f64],
    depth: usize,
    stride: usize,
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
        for (m, sum) in sums.into_iter().enumerate() {
            to[m * width + j] = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use nneinfact_simd::{Aligned, Real};
    use pulp::WithSimd;

    use super::*;
    use crate::small::padded;

    struct Check {
        rows: usize,
        depth: usize,
        stride: usize,
        cols: usize,
    }

    impl WithSimd for Check {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Check { rows, depth, stride, cols } = self;
            let width = padded(cols);
            let a: Vec<f64> = (0..rows * stride).map(|e| (e as f64 * 0.3).sin()).collect();
            let mut b = Aligned::<f64>::zeros(depth * width);
            for k in 0..depth {
                (0..cols).for_each(|j| b[k * width + j] = ((k * 7 + j) as f64 * 0.9).cos());
            }
            let mut to = Aligned::<f64>::zeros(rows * width);
            let (vectors, _) = f64::as_vectors_mut::<S>(&mut to);
            let lanes = width * rows / vectors.len();
            let (b_vectors, _) = f64::as_vectors::<S>(&b);
            times(simd, &a, rows, depth, stride, b_vectors, width / lanes, vectors);
            for i in 0..rows {
                for j in 0..width {
                    let want: f64 =
                        (0..depth).map(|k| a[i * stride + k] * b[k * width + j]).sum();
                    assert!((to[i * width + j] - want).abs() < 1e-13, "{i} {j}");
                }
            }
        }
    }

    #[test]
    fn products_are_those_of_loops() {
        for arch in nneinfact_simd::instruction_sets() {
            for (rows, depth, cols) in [(8, 8, 8), (6, 6, 6), (1, 3, 9), (13, 5, 24), (3, 1, 1)] {
                arch.dispatch(Check { rows, depth, stride: depth, cols });
                arch.dispatch(Check { rows, depth, stride: depth + 3, cols });
            }
        }
    }
}
