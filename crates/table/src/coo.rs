//! Matrices in coordinates, as the formats of the field hold them.

use std::ops::Range;

use crate::error::{Error, Result};

/// What a sparse file holds: a matrix in coordinates, with the names of its rows and columns where
/// there are any. Entries that are not listed are zeros.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseMatrix {
    /// The rows.
    pub rows: Axis,
    /// The columns.
    pub columns: Axis,
    /// Rows and columns of all entries, counted from 0; the entries are in C order, each there once.
    pub coords: [Vec<u32>; 2],
    /// The values of the entries.
    pub values: Vec<f64>,
    /// How many entries were added to another of the same place.
    pub duplicates: u64,
}

/// The rows or the columns of a matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Axis {
    /// How many there are.
    pub len: usize,
    /// What they are.
    pub name: Option<String>,
    /// What each is called.
    pub labels: Option<Vec<String>>,
}

/// Collects the entries of a matrix.
#[derive(Debug)]
pub(crate) struct Collector {
    rows: u32,
    columns: u32,
    /// The rows, or the columns where `by_columns`, whose entries are kept, counted from the first of them.
    kept: Range<u32>,
    by_columns: bool,
    list: Vec<(u64, f64)>,
}

impl Collector {
    /// For a matrix of this shape; the error is for a sentence that begins with the file.
    pub fn new(rows: u64, columns: u64) -> Result<Collector, String> {
        let length = |n: u64, what: &str| match u32::try_from(n) {
            Ok(0) => Err(format!("the matrix has no {what}")),
            Ok(n) => Ok(n),
            Err(_) => Err(format!("{n} {what} are more than 2^32")),
        };
        let (rows, columns) = (length(rows, "rows")?, length(columns, "columns")?);
        Ok(Collector { rows, columns, kept: 0..rows, by_columns: false, list: Vec::new() })
    }

    /// Keeps the entries of some rows, or columns, alone; none where the range is empty.
    pub fn keep(&mut self, by_columns: bool, range: Range<u32>) {
        (self.by_columns, self.kept) = (by_columns, range);
    }

    /// Adds an entry, counted from 0.
    pub fn push(&mut self, row: u64, column: u64, value: f64) -> Result<(), String> {
        if row >= self.rows.into() || column >= self.columns.into() {
            return Err(format!(
                "row {} and column {} are not in a matrix of {} by {}",
                row.saturating_add(1),
                column.saturating_add(1),
                self.rows,
                self.columns
            ));
        }
        if !value.is_finite() {
            return Err(format!("{value} is not a finite number"));
        }
        let place = if self.by_columns { column } else { row } as u32;
        if !self.kept.contains(&place) {
            return Ok(());
        }
        self.list.try_reserve(1).map_err(|_| "the entries are more than the memory".to_string())?;
        self.list.push((row * u64::from(self.columns) + column, value));
        Ok(())
    }

    /// Sorts the entries and adds up those of one place, in the order in which they came.
    pub fn finish(self) -> Result<SparseMatrix, String> {
        let Collector { mut rows, mut columns, kept, by_columns, mut list } = self;
        let all = kept.len() == if by_columns { columns } else { rows } as usize;
        if list.is_empty() && all {
            return Err("there are no entries".into());
        }
        let width = u64::from(columns);
        let first = match by_columns {
            true => [0, kept.start],
            false => [kept.start, 0],
        };
        // At least one, as no matrix has none.
        let own = (kept.len() as u32).max(1);
        if by_columns {
            columns = own
        } else {
            rows = own
        }
        if !list.is_sorted_by_key(|entry| entry.0) {
            list.sort_by_key(|entry| entry.0);
        }
        let before = list.len();
        list.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
        let axis = |len: u32| Axis { len: len as usize, ..Axis::default() };
        Ok(SparseMatrix {
            rows: axis(rows),
            columns: axis(columns),
            coords: [
                list.iter().map(|entry| (entry.0 / width) as u32 - first[0]).collect(),
                list.iter().map(|entry| (entry.0 % width) as u32 - first[1]).collect(),
            ],
            duplicates: (before - list.len()) as u64,
            values: list.into_iter().map(|entry| entry.1).collect(),
        })
    }
}

/// Builds a part of a matrix entry by entry: what a process keeps of it.
///
/// ```
/// use nneinfact_table::SparsePart;
///
/// // Of a matrix of 4 by 3 the rows 1 and 2.
/// let mut part = SparsePart::new([4, 3], 0, 1..3)?;
/// part.push(0, 2, 5.0)?;
/// part.push(2, 1, 7.0)?;
/// let matrix = part.finish()?;
/// assert_eq!((matrix.rows.len, matrix.coords), (2, [vec![1], vec![1]]));
/// # Ok::<(), nneinfact_table::Error>(())
/// ```
#[derive(Debug)]
pub struct SparsePart(Collector);

impl SparsePart {
    /// Of a matrix of this shape the rows in `range`, or where `axis` is 1 the columns.
    ///
    /// # Errors
    /// [`Error::Setting`] where the matrix has no rows or columns, or more than 2³², or not those of the range.
    pub fn new(shape: [usize; 2], axis: usize, range: Range<usize>) -> Result<SparsePart> {
        let mut collector = Collector::new(shape[0] as u64, shape[1] as u64).map_err(wrong)?;
        match shape.get(axis) {
            Some(&length) if range.start <= range.end && range.end <= length => {
                collector.keep(axis == 1, range.start as u32..range.end as u32);
                Ok(SparsePart(collector))
            }
            _ => {
                Err(wrong(format!("{range:?} along axis {axis} is no part of the shape {shape:?}")))
            }
        }
    }

    /// Adds an entry, counted from 0 in the whole matrix, where it is in the part.
    ///
    /// # Errors
    /// [`Error::Setting`] where the entry is not in the matrix, or its value is not finite.
    pub fn push(&mut self, row: u64, column: u64, value: f64) -> Result<()> {
        self.0.push(row, column, value).map_err(wrong)
    }

    /// The part, with as many rows or columns as the range, or one where that is empty. Entries of one place
    /// are added up.
    ///
    /// # Errors
    /// [`Error::Setting`] where the part is all of the matrix, and has no entries.
    pub fn finish(self) -> Result<SparseMatrix> {
        self.0.finish().map_err(wrong)
    }
}

/// The arrays of a matrix that `scipy.sparse.save_npz` wrote. Those that its format does not have
/// are empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScipyArrays<'a> {
    /// `csr`, `csc` or `coo`.
    pub format: &'a str,
    /// The shape, of two numbers.
    pub shape: &'a [i64],
    /// The values.
    pub data: &'a [f64],
    /// For `csr` and `csc`: the columns, or rows, of the values.
    pub indices: &'a [i64],
    /// For `csr` and `csc`: where each row, or column, begins in `indices`, and the end.
    pub indptr: &'a [i64],
    /// For `coo`: the rows of the values.
    pub row: &'a [i64],
    /// For `coo`: the columns of the values.
    pub col: &'a [i64],
}

impl ScipyArrays<'_> {
    /// The matrix.
    ///
    /// ```
    /// use nneinfact_table::ScipyArrays;
    ///
    /// let csr = ScipyArrays {
    ///     format: "csr",
    ///     shape: &[2, 3],
    ///     data: &[5.0, 7.0],
    ///     indices: &[2, 0],
    ///     indptr: &[0, 1, 2],
    ///     ..Default::default()
    /// };
    /// assert_eq!(csr.matrix()?.coords, [[0, 1], [2, 0]]);
    /// # Ok::<(), nneinfact_table::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Unsupported`] for other formats, with a way to convert them; [`Error::Setting`]
    /// where the arrays do not fit together.
    pub fn matrix(&self) -> Result<SparseMatrix> {
        let by_rows = match self.format {
            "csr" => true,
            "csc" => false,
            "coo" => return self.coo().map_err(wrong),
            other => {
                return Err(Error::Unsupported(format!(
                    "sparse matrices of scipy's format '{other}' are not read, only csr, csc and coo: convert it with scipy.sparse.save_npz(file, matrix.tocsr())"
                )));
            }
        };
        self.compressed(by_rows).map_err(wrong)
    }

    fn collector(&self) -> Result<Collector, String> {
        match *self.shape {
            [rows, columns] if rows >= 0 && columns >= 0 => {
                Collector::new(rows as u64, columns as u64)
            }
            _ => Err(format!("the shape is {:?}, not that of a matrix", self.shape)),
        }
    }

    fn coo(&self) -> Result<SparseMatrix, String> {
        let mut collector = self.collector()?;
        if self.row.len() != self.data.len() || self.col.len() != self.data.len() {
            return Err("row, col and data differ in length".into());
        }
        for ((&row, &column), &value) in self.row.iter().zip(self.col).zip(self.data) {
            collector.push(from_zero(row)?, from_zero(column)?, value)?;
        }
        collector.finish()
    }

    fn compressed(&self, by_rows: bool) -> Result<SparseMatrix, String> {
        let mut collector = self.collector()?;
        if self.indices.len() != self.data.len() {
            return Err("indices and data differ in length".into());
        }
        let lines = self.shape[usize::from(!by_rows)] as u64;
        let whole = self.indptr.first() == Some(&0)
            && self.indptr.last() == Some(&(self.data.len() as i64))
            && self.indptr.len() as u64 == lines + 1
            && self.indptr.is_sorted();
        if !whole {
            return Err(
                "indptr does not rise from 0 to the number of values, once for each row or column"
                    .into(),
            );
        }
        for (line, bounds) in self.indptr.windows(2).enumerate() {
            for i in bounds[0] as usize..bounds[1] as usize {
                let (line, other) = (line as u64, from_zero(self.indices[i])?);
                let (row, column) = if by_rows { (line, other) } else { (other, line) };
                collector.push(row, column, self.data[i])?;
            }
        }
        collector.finish()
    }
}

fn wrong(reason: String) -> Error {
    Error::Setting(format!("the arrays are not those of a sparse matrix of scipy: {reason}"))
}

fn from_zero(index: i64) -> Result<u64, String> {
    u64::try_from(index).map_err(|_| format!("the index {index} is negative"))
}
