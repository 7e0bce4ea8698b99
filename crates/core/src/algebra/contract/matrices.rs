//! Products of matrices as tensors hold them.

use std::borrow::Cow;

use super::rearrange;
use crate::model::{Index, Shapes};

/// Matrices one after another.
pub(super) struct Matrices<'a> {
    pub data: Cow<'a, [f64]>,
    /// Whether their columns lie one after another, and not their rows.
    by_columns: bool,
}

impl<'a> Matrices<'a> {
    /// A tensor with the indices of the matrices, of their rows and of their columns; as it lies, where these
    /// are rows of such a matrix or of its transpose.
    pub fn new(
        shapes: &Shapes,
        (indices, data): (&[Index], &'a [f64]),
        [batch, rows, columns]: [&[Index]; 3],
    ) -> Matrices<'a> {
        let order = [batch, rows, columns].concat();
        if indices == order {
            return Matrices { data: Cow::Borrowed(data), by_columns: false };
        }
        if indices == [batch, columns, rows].concat() {
            return Matrices { data: Cow::Borrowed(data), by_columns: true };
        }
        let data = Cow::Owned(rearrange(shapes, indices, data, &order));
        Matrices { data, by_columns: false }
    }

    /// Matrix `i`, of so many entries.
    pub fn at(&self, i: usize, entries: usize) -> Matrix<'_> {
        Matrix { data: &self.data[i * entries..][..entries], by_columns: self.by_columns }
    }
}

/// A matrix whose rows lie one after another, or its columns.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f64],
    by_columns: bool,
}

impl Matrix<'_> {
    /// The steps from row to row and from column to column.
    fn strides(&self, rows: usize, columns: usize) -> [isize; 2] {
        if self.by_columns { [1, rows as isize] } else { [columns as isize, 1] }
    }
}

/// The product of matrices of m × k and k × n entries, by rows.
pub(super) fn product([m, k, n]: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, c: &mut [f64]) {
    let is = |len: usize, rows: usize, columns: usize| rows.checked_mul(columns) == Some(len);
    assert!(is(a.data.len(), m, k) && is(b.data.len(), k, n) && is(c.len(), m, n));
    let ([a_row, a_column], [b_row, b_column]) = (a.strides(m, k), b.strides(k, n));
    // SAFETY: rows or columns of each matrix lie one after another without gaps, so that the offsets
    // reached are below m·k, k·n and m·n: by the assertion, whose products do not overflow, the
    // lengths of the slices. A slice has at most isize::MAX bytes, so that these offsets are no
    // more; where a matrix has no entry, none is reached. `c` is borrowed mutably, so that it
    // overlaps neither.
    unsafe {
        matrixmultiply::dgemm(
            m,
            k,
            n,
            1.0,
            a.data.as_ptr(),
            a_row,
            a_column,
            b.data.as_ptr(),
            b_row,
            b_column,
            0.0,
            c.as_mut_ptr(),
            n as isize,
            1,
        );
    }
}
