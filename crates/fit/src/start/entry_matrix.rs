//! Stored entries as a matrix: those that differ from a base, which is what all others are.

use ndarray::{Array2, ArrayView1, Axis};

/// An entry of a matrix, less the base.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Entry {
    pub column: u128,
    pub row: u64,
    pub value: f64,
}

/// `E Eᵀ` of entries that are sorted by column.
pub(crate) fn gram(entries: &[Entry], rows: usize) -> Array2<f64> {
    let mut gram = Array2::zeros((rows, rows));
    for column in entries.chunk_by(|a, b| a.column == b.column) {
        for a in column {
            for b in column {
                gram[[a.row as usize, b.row as usize]] += a.value * b.value;
            }
        }
    }
    gram
}

/// `E Eᵀ X` of entries that are sorted by column.
pub(crate) fn gram_times(entries: &[Entry], x: &Array2<f64>) -> Array2<f64> {
    let mut result = Array2::zeros(x.dim());
    let mut inner = vec![0.0; x.ncols()];
    for column in entries.chunk_by(|a, b| a.column == b.column) {
        inner.fill(0.0);
        for e in column {
            add(&mut inner, e.value, x.row(e.row as usize));
        }
        for e in column {
            let to = result.row_mut(e.row as usize);
            to.into_iter().zip(&inner).for_each(|(to, z)| *to += e.value * z);
        }
    }
    result
}

/// `E 1`.
pub(crate) fn row_sums(entries: &[Entry], rows: usize) -> Vec<f64> {
    let mut sums = vec![0.0; rows];
    entries.iter().for_each(|e| sums[e.row as usize] += e.value);
    sums
}

/// What all entries of a matrix are before those of a list are added.
pub(crate) struct Base<'a> {
    pub value: f64,
    /// The number of columns.
    pub columns: f64,
    /// `E 1`.
    pub sums: &'a [f64],
}

impl Base<'_> {
    /// Makes `(b 1 1ᵀ + E)(b 1 1ᵀ + E)ᵀ` of `E Eᵀ`.
    pub fn add_to_gram(&self, gram: &mut Array2<f64>) {
        let Base { value, columns, sums } = *self;
        let all = value * value * columns;
        for ((i, j), x) in gram.indexed_iter_mut() {
            *x += all + value * (sums[i] + sums[j]);
        }
    }

    /// Makes `(b 1 1ᵀ + E)(b 1 1ᵀ + E)ᵀ X` of `E Eᵀ X`.
    pub fn add_to_product(&self, x: &Array2<f64>, result: &mut Array2<f64>) {
        let Base { value, columns, sums } = *self;
        let ones = x.sum_axis(Axis(0));
        for (c, mut to) in result.columns_mut().into_iter().enumerate() {
            let of_sums: f64 = x.column(c).iter().zip(sums).map(|(x, s)| x * s).sum();
            let all = value * value * columns * ones[c] + value * of_sums;
            for (to, s) in to.iter_mut().zip(sums) {
                *to += all + value * s * ones[c];
            }
        }
    }
}

fn add(to: &mut [f64], factor: f64, from: ArrayView1<'_, f64>) {
    to.iter_mut().zip(from).for_each(|(to, x)| *to += factor * x);
}
