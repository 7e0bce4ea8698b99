//! The data as matrices, without a copy of them: some modes along the rows, the others along the
//! columns.

use std::borrow::Cow;
use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, s};
use pulp::Scalar;
use rayon::prelude::*;

use super::basis::Basis;
use super::entry_matrix::{self, Base, Entry};
use nneinfact_core::data::{Dense, Implicit, Prepared, Role, Roles, StoredEntries};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::memory::available_memory;
use nneinfact_core::parallel;

/// The data that a start is made from. Values are divided by the largest, so that squares neither
/// overflow nor vanish; entries that are not trained on hold the mean of those that are.
pub struct DataSource<'a> {
    entries: Entries<'a>,
    shape: Vec<usize>,
    scale: f64,
    /// Of the training entries, scaled.
    mean: f64,
}

enum Entries<'a> {
    Dense(Box<Cow<'a, Prepared>>),
    List(Cow<'a, StoredEntries>),
}

impl<'a> DataSource<'a> {
    /// The data of a fit.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where they stay in a file; [`Error::Memory`] where a list has to be
    /// expanded and memory does not suffice.
    pub fn new(basis: &Basis<'a>) -> Result<DataSource<'a>> {
        let data = basis.data;
        let list = basis.sparse.filter(|list| list.implicit() != Implicit::ByRole);
        DataSource::of_slab(data, list.map(Cow::Borrowed), data.max(), data.mean())
    }

    /// Those of a slab, as a list where they are given as one: `largest` and `mean` are those of all
    /// training entries.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_slab(
        data: &'a Prepared,
        list: Option<Cow<'a, StoredEntries>>,
        largest: f64,
        mean: f64,
    ) -> Result<DataSource<'a>> {
        let entries = match list {
            Some(list) => Entries::List(list),
            // Entries that are not trained on are known by their roles only, one by one.
            None if data.coo().is_some() => {
                let limit = available_memory().map_or(u64::MAX, |bytes| bytes / 2);
                Entries::Dense(Box::new(Cow::Owned(data.densified(limit)?)))
            }
            None => Entries::Dense(Box::new(Cow::Borrowed(data))),
        };
        if let Entries::Dense(data) = &entries
            && data.values().is_mapped()
        {
            return Err(Error::Unsupported(
                "a start from singular vectors reads the data in another order than their file has them: it needs them in memory (io::read_npy, --no-stream), or another start"
                    .into(),
            ));
        }
        let scale = if largest > 0.0 && largest.is_finite() { largest } else { 1.0 };
        Ok(DataSource { entries, shape: data.shape().to_vec(), scale, mean: mean / scale })
    }

    /// The number of modes.
    pub fn modes(&self) -> usize {
        self.shape.len()
    }

    /// The matrix with these modes along its rows and the others along its columns. Indices of
    /// rows and columns run over their modes in C order.
    pub fn matrix(&self, rows: &[usize]) -> Unfolding<'_> {
        let (rows, columns): (Vec<usize>, Vec<usize>) =
            (0..self.shape.len()).partition(|mode| rows.contains(mode));
        let sizes =
            |modes: &[usize]| -> Vec<usize> { modes.iter().map(|&m| self.shape[m]).collect() };
        let (row_sizes, column_sizes) = (sizes(&rows), sizes(&columns));
        let matrix = match &self.entries {
            Entries::Dense(data) => {
                let values = data.values();
                let strides = |modes: &[usize]| -> Vec<usize> {
                    modes.iter().map(|&m| values.strides()[m]).collect()
                };
                let mut runs = strides(&rows);
                let run = (runs.pop().unwrap_or(1), row_sizes.last().copied().unwrap_or(1));
                let outer = row_sizes.split_last().map_or(&[][..], |(_, outer)| outer);
                Matrix::Dense(Box::new(DenseMatrix {
                    values,
                    roles: data.roles(),
                    run,
                    starts: offsets(outer, &runs),
                    column_strides: strides(&columns),
                    column_sizes: column_sizes.clone(),
                }))
            }
            Entries::List(list) => {
                let mut entries: Vec<Entry> = self
                    .differing(list)
                    .map(|(i, value)| Entry {
                        column: place(list, i, &columns, &column_sizes),
                        row: place(list, i, &rows, &row_sizes) as u64,
                        value,
                    })
                    .collect();
                entries.par_sort_unstable_by_key(|e| (e.column, e.row));
                Matrix::List(entries, self.base())
            }
        };
        Unfolding {
            source: self,
            rows: row_sizes.iter().product(),
            columns: column_sizes.iter().fold(1, |all: usize, &n| all.saturating_mul(n)),
            all_columns: column_sizes.iter().map(|&n| n as f64).product(),
            matrix,
        }
    }

    /// The entries of a list that differ from [`base`](Self::base), by how much.
    fn differing<'b>(&'b self, list: &'b StoredEntries) -> impl Iterator<Item = (usize, f64)> + 'b {
        let base = self.base();
        (0..list.entries().len()).filter_map(move |i| {
            let value = match list.role(i) {
                Role::Train => list.entries().values().get(i).unwrap_or(0.0) / self.scale,
                Role::Missing | Role::HeldOut | Role::Validation => self.mean,
            };
            (value != base).then_some((i, value - base))
        })
    }

    /// What a list does not hold.
    pub fn base(&self) -> f64 {
        match &self.entries {
            Entries::List(list) if list.implicit() == Implicit::Missing => self.mean,
            Entries::List(_) | Entries::Dense(_) => 0.0,
        }
    }

    /// For data as a list: the index along each mode and the value (less [`base`](Self::base)) of
    /// every entry that differs from it, a batch at a time.
    pub fn batches(&self, most: usize) -> Option<impl Iterator<Item = Vec<(Vec<usize>, f64)>>> {
        let Entries::List(list) = &self.entries else { return None };
        let modes = list.entries().indices();
        let mut entries = self.differing(list).map(move |(i, value)| {
            let index = modes.iter().map(|mode| mode.get(i).unwrap_or(0) as usize).collect();
            (index, value)
        });
        Some(std::iter::from_fn(move || {
            let batch: Vec<(Vec<usize>, f64)> = entries.by_ref().take(most).collect();
            (!batch.is_empty()).then_some(batch)
        }))
    }
}

/// The index of a stored entry over some modes, in C order.
fn place(list: &StoredEntries, i: usize, modes: &[usize], sizes: &[usize]) -> u128 {
    let indices = list.entries().indices();
    modes.iter().zip(sizes).fold(0, |place, (&mode, &n)| {
        place * n as u128 + u128::from(indices[mode].get(i).unwrap_or(0))
    })
}

/// The offset of every index over axes of these sizes and strides, in C order.
fn offsets(sizes: &[usize], strides: &[usize]) -> Vec<usize> {
    let mut all = vec![0];
    for (&n, &stride) in sizes.iter().zip(strides) {
        all = all.iter().flat_map(|&from| (0..n).map(move |i| from + i * stride)).collect();
    }
    all
}

/// The data as a matrix.
pub struct Unfolding<'a> {
    source: &'a DataSource<'a>,
    rows: usize,
    /// Of a list there may be more than can be counted.
    columns: usize,
    all_columns: f64,
    matrix: Matrix<'a>,
}

enum Matrix<'a> {
    Dense(Box<DenseMatrix<'a>>),
    /// Entries sorted by column, and what all entries are before these are added.
    List(Vec<Entry>, f64),
}

struct DenseMatrix<'a> {
    values: &'a Dense,
    roles: Option<&'a Roles>,
    /// Stride and length of the last of the modes along the rows.
    run: (usize, usize),
    /// Where its runs start, over the other modes along the rows.
    starts: Vec<usize>,
    column_sizes: Vec<usize>,
    column_strides: Vec<usize>,
}

/// Entries that are gathered at a time: they stay in the second-level cache.
const BLOCK: usize = 1 << 17;
/// Entries of all partial sums together.
const PARTIAL: usize = 1 << 23;
/// The most tasks. Their number depends on sizes alone, as the order of the sums does on it.
const TASKS: usize = 16;

impl Unfolding<'_> {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// `M Mᵀ`.
    pub fn gram(&self) -> Array2<f64> {
        let m = self.rows;
        match &self.matrix {
            Matrix::Dense(_) => self.blocks((m, m), |block, _, sum| {
                general_mat_mul(1.0, &block.t(), &block, 1.0, sum);
            }),
            Matrix::List(entries, base) => {
                let mut gram = entry_matrix::gram(entries, m);
                if *base != 0.0 {
                    let sums = entry_matrix::row_sums(entries, m);
                    Base { value: *base, columns: self.all_columns, sums: &sums }
                        .add_to_gram(&mut gram);
                }
                gram
            }
        }
    }

    /// `M Mᵀ X`, where `M Mᵀ` itself would be too large.
    pub fn gram_times(&self, x: &Array2<f64>) -> Array2<f64> {
        let shape = x.dim();
        match &self.matrix {
            Matrix::Dense(_) => self.blocks(shape, |block, _, sum| {
                general_mat_mul(1.0, &block.t(), &block.dot(x), 1.0, sum);
            }),
            Matrix::List(entries, base) => {
                let mut result = entry_matrix::gram_times(entries, x);
                if *base != 0.0 {
                    let sums = entry_matrix::row_sums(entries, self.rows);
                    Base { value: *base, columns: self.all_columns, sums: &sums }
                        .add_to_product(x, &mut result);
                }
                result
            }
        }
    }

    /// `M X`.
    pub fn times(&self, x: &Array2<f64>) -> Array2<f64> {
        let shape = (self.rows, x.ncols());
        match &self.matrix {
            Matrix::Dense(_) => self.blocks(shape, |block, columns, sum| {
                general_mat_mul(1.0, &block.t(), &x.slice(s![columns, ..]), 1.0, sum);
            }),
            Matrix::List(entries, base) => {
                let all = x.sum_axis(ndarray::Axis(0)) * *base;
                let mut result = Array2::zeros(shape);
                result += &all;
                for e in entries {
                    let row = result.row_mut(e.row as usize);
                    row.into_iter()
                        .zip(x.row(e.column as usize))
                        .for_each(|(to, x)| *to += e.value * x);
                }
                result
            }
        }
    }

    /// Whole columns of dense data, one behind the other.
    pub fn columns_at(&self, columns: Range<usize>) -> Vec<f64> {
        let mut all = vec![0.0; columns.len() * self.rows];
        if let Matrix::Dense(matrix) = &self.matrix {
            matrix.gather(columns, self.source, &mut all);
        }
        all
    }

    /// The entries of a list, by columns.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.matrix {
            Matrix::List(entries, _) => Some(entries),
            Matrix::Dense(_) => None,
        }
    }

    /// A sum of matrices, one for each of the columns of dense data, which `each` is given to add
    /// (as a row of a block, with the column's index).
    pub fn columns_of_dense(
        &self,
        length: usize,
        each: impl Fn(&[f64], usize, &mut [f64]) + Sync,
    ) -> Option<Vec<f64>> {
        let Matrix::Dense(_) = self.matrix else { return None };
        let sum = self.blocks((1, length), |block, columns, sum| {
            for (row, column) in block.rows().into_iter().zip(columns) {
                if let (Some(row), Some(sum)) = (row.as_slice(), sum.as_slice_mut()) {
                    each(row, column, sum);
                }
            }
        });
        Some(sum.into_raw_vec_and_offset().0)
    }

    /// Adds up what `each` makes of the columns of dense data, a block of them at a time: as rows
    /// of a matrix, with their indices.
    fn blocks(
        &self,
        shape: (usize, usize),
        each: impl Fn(ArrayView2<'_, f64>, Range<usize>, &mut Array2<f64>) + Sync,
    ) -> Array2<f64> {
        let Matrix::Dense(matrix) = &self.matrix else { return Array2::zeros(shape) };
        let at_a_time = (BLOCK / self.rows).max(1);
        let blocks = self.columns.div_ceil(at_a_time);
        let tasks = (PARTIAL / (shape.0 * shape.1).max(1)).clamp(1, TASKS).min(blocks);
        let parts: Vec<Array2<f64>> = parallel::map(tasks, &|task| {
            let mut sum = Array2::zeros(shape);
            let mut buffer = vec![0.0; at_a_time.min(self.columns) * self.rows];
            for block in blocks * task / tasks..blocks * (task + 1) / tasks {
                let from = block * at_a_time;
                let columns = from..self.columns.min(from + at_a_time);
                let count = columns.len();
                let buffer = &mut buffer[..count * self.rows];
                matrix.gather(columns.clone(), self.source, buffer);
                // The buffer has exactly this shape.
                if let Ok(view) = ArrayView2::from_shape((count, self.rows), buffer) {
                    each(view, columns, &mut sum);
                }
            }
            sum
        });
        let mut parts = parts.into_iter();
        let first = parts.next().unwrap_or_else(|| Array2::zeros(shape));
        parts.fold(first, |sum, part| sum + part)
    }
}

impl DenseMatrix<'_> {
    /// Reads whole columns, one after the other.
    fn gather(&self, columns: Range<usize>, source: &DataSource<'_>, out: &mut [f64]) {
        let (stride, run) = self.run;
        let rows = run * self.starts.len();
        let mut train = vec![1.0; run];
        for (column, out) in columns.zip(out.chunks_mut(rows)) {
            let mut rest = column;
            let mut offset = 0;
            for (&n, &stride) in self.column_sizes.iter().zip(&self.column_strides).rev() {
                offset += rest % n * stride;
                rest /= n;
            }
            for (start, out) in self.starts.iter().zip(out.chunks_mut(run)) {
                self.values.load(offset + start, stride, out);
                if let Some(roles) = self.roles {
                    let first = offset + start;
                    roles.indicator(Scalar::new(), Role::Train, first, stride, &mut train);
                    for (x, &train) in out.iter_mut().zip(&train) {
                        *x = if train == 1.0 { *x / source.scale } else { source.mean };
                    }
                } else {
                    out.iter_mut().for_each(|x| *x /= source.scale);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ndarray::{Array3, Axis};

    use super::*;
    use crate::observe::Cancel;
    use nneinfact_core::data::CooTensor;
    use nneinfact_core::data::Observations;
    use nneinfact_core::loss::Loss;
    use nneinfact_core::model::{Model, Shapes};

    /// Data with a missing and a held-out entry, in C and in Fortran order, and as two lists.
    fn cases() -> Vec<(Prepared, Option<StoredEntries>)> {
        let y = Array3::from_shape_fn((3, 4, 5), |(i, j, k)| ((i * 7 + j * 3 + k * k) % 6) as f64);
        let mut mask = Array3::from_elem((3, 4, 5), true);
        mask[[1, 2, 3]] = false;
        mask[[0, 0, 4]] = false;
        let fortran = y.clone().reversed_axes().as_standard_layout().into_owned().reversed_axes();
        let held_out =
            Arc::new(CooTensor::new(&[3, 4, 5], &[vec![2], vec![1], vec![0]], &[1.0]).unwrap());
        let prepare = |y: &Array3<f64>| {
            let observations = Observations::new(y).mask(&mask).unwrap();
            observations.held_out_at(Arc::clone(&held_out)).unwrap().prepare().unwrap()
        };
        let (c, f) = (prepare(&y), prepare(&fortran));
        let (zeros, missing) = (c.stored(Implicit::Zeros), f.stored(Implicit::Missing));
        vec![(c.clone(), None), (f.clone(), None), (c, Some(zeros)), (f, Some(missing))]
    }

    #[test]
    fn matrices_are_what_their_name_says_in_every_form() {
        let model = Model::parse("ir,jr,kr->ijk").unwrap();
        let shapes = Shapes::new(&model, &[3, 4, 5], &[('r', 2)]).unwrap();
        let loss = Loss::kl();
        for (form, (data, sparse)) in cases().iter().enumerate() {
            let (shapes, loss, sparse) = (&shapes, &loss, sparse.as_ref());
            let basis = Basis { shapes, loss, data, sparse, seed: 0, cancel: &Cancel::new() };
            let source = DataSource::new(&basis).unwrap();
            let full = Array3::from_shape_fn((3, 4, 5), |(i, j, k)| match (i, j, k) {
                (1, 2, 3) | (0, 0, 4) | (2, 1, 0) => data.mean() / data.max(),
                _ => ((i * 7 + j * 3 + k * k) % 6) as f64 / data.max(),
            });
            for modes in [vec![], vec![0], vec![1], vec![2], vec![0, 2], vec![1, 2], vec![0, 1, 2]]
            {
                let others: Vec<usize> = (0..3).filter(|m| !modes.contains(m)).collect();
                let order: Vec<usize> = modes.iter().chain(&others).copied().collect();
                let rows = modes.iter().map(|&m| full.len_of(Axis(m))).product::<usize>();
                let matrix = full.view().into_dyn().permuted_axes(order);
                let matrix = matrix.as_standard_layout().into_owned();
                let matrix = matrix.into_shape_with_order((rows, 60 / rows)).unwrap();
                let unfolding = source.matrix(&modes);
                assert_eq!((unfolding.rows(), unfolding.columns()), matrix.dim());
                let x =
                    Array2::from_shape_fn((rows, 2), |(i, j)| (i as f64 - 1.3) * (j as f64 + 0.7));
                let z = Array2::from_shape_fn((60 / rows, 2), |(i, j)| (i + 2 * j) as f64 - 3.0);
                let gram = matrix.dot(&matrix.t());
                let expected = [gram.clone(), gram.dot(&x), matrix.dot(&z)];
                let found = [unfolding.gram(), unfolding.gram_times(&x), unfolding.times(&z)];
                for (f, e) in found.iter().zip(&expected) {
                    assert_eq!(f.dim(), e.dim());
                    let apart = (f - e).iter().fold(0.0f64, |a, x| a.max(x.abs()));
                    assert!(apart < 1e-12, "form {form}, {modes:?}: {apart:e}");
                }
            }
        }
    }
}
