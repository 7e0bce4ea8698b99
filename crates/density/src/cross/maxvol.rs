//! Rows of a tall matrix that span a submatrix of nearly maximal volume. Goreinov et al. 2010;
//! NTT.md, section 2.

use faer::{Mat, MatRef};

use crate::linalg::divide_by_rows;

/// No entry of `u · u[rows]⁻¹` is larger than this at the end.
const LARGEST: f64 = 1.02;
/// The most exchanges of rows.
const EXCHANGES: usize = 200;

/// As many rows as `u` has columns, and `u · u[rows]⁻¹`. Needs full rank and at least as many rows
/// as columns.
pub(crate) fn maxvol(u: MatRef<'_, f64>) -> (Vec<usize>, Mat<f64>) {
    let (m, r) = (u.nrows(), u.ncols());
    let mut rows = pivots(u);
    let mut c = divide_by_rows(u, &rows);
    for _ in 0..EXCHANGES {
        let (mut p, mut j, mut top) = (0, 0, LARGEST);
        for col in 0..r {
            for row in 0..m {
                if c[(row, col)].abs() > top {
                    (p, j, top) = (row, col, c[(row, col)].abs());
                }
            }
        }
        if top <= LARGEST {
            break;
        }
        // Row p takes the place of row j.
        let pivot = c[(p, j)];
        let change: Vec<f64> = (0..r).map(|q| c[(p, q)] - f64::from(q == j)).collect();
        let column: Vec<f64> = (0..m).map(|i| c[(i, j)] / pivot).collect();
        for (q, change) in change.iter().enumerate() {
            for (i, column) in column.iter().enumerate() {
                c[(i, q)] -= column * change;
            }
        }
        rows[j] = p;
    }
    // Solved for anew: the updates lose digits.
    let c = divide_by_rows(u, &rows);
    (rows, c)
}

/// Rows chosen by Gaussian elimination with row pivoting.
fn pivots(u: MatRef<'_, f64>) -> Vec<usize> {
    let (m, r) = (u.nrows(), u.ncols());
    let mut w = u.to_owned();
    let mut free = vec![true; m];
    let mut rows = Vec::with_capacity(r);
    for j in 0..r {
        let mut p = None;
        let mut top = -1.0;
        for i in (0..m).filter(|&i| free[i]) {
            if w[(i, j)].abs() > top {
                (p, top) = (Some(i), w[(i, j)].abs());
            }
        }
        let Some(p) = p else { break };
        rows.push(p);
        free[p] = false;
        let pivot = w[(p, j)];
        if pivot != 0.0 {
            for q in j + 1..r {
                let share = w[(p, q)] / pivot;
                for i in 0..m {
                    let x = w[(i, j)];
                    w[(i, q)] -= x * share;
                }
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::{qr, view};
    use crate::random::{Purpose, Stream};

    #[test]
    fn no_entry_is_large() {
        for (m, r) in [(30, 4), (5, 5), (9, 1), (64, 20)] {
            let s = Stream::new(4, Purpose::CrossKick, (m * r) as u64);
            let data: Vec<f64> = (0..(m * r) as u64).map(|i| s.normal(i)).collect();
            let (q, _) = qr(view(&data, m, r));
            let (rows, c) = maxvol(q.as_ref());
            let mut sorted = rows.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), r, "rows differ");
            let back = &c * Mat::from_fn(r, r, |i, j| q[(rows[i], j)]);
            for i in 0..m {
                for j in 0..r {
                    assert!(c[(i, j)].abs() <= LARGEST + 1e-9);
                    assert!((back[(i, j)] - q[(i, j)]).abs() < 1e-12);
                }
            }
        }
    }
}
