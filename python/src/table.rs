//! Tables of events as tensors with names.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nneinfact::io::{Implicit, Table, TableTensor, TableValues as Values};
use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;

use crate::errors::{raised, value_error};
use crate::labels::{LabelFields, label_fields};
use crate::wait::wait;

/// How a table is read; Python checks types.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct TableSettings {
    /// Files, or nothing where the text is given.
    paths: Vec<PathBuf>,
    text: Option<Vec<u8>>,
    modes: String,
    /// count, sum, mean or max, and the column.
    values: (String, Option<String>),
    /// "zero" or "missing".
    implicit: Option<String>,
    filter: Option<String>,
    orders: Vec<(String, Vec<String>)>,
    header: bool,
    separator: Option<char>,
    skip_bad: bool,
    missing: Option<Vec<String>>,
    time_format: Option<String>,
    time_zone: Option<String>,
    memory_limit: Option<u64>,
}

/// A mode: its letter, where it has one, and its labels.
type ModeFields = (Option<char>, LabelFields);
/// Rows of the table: all, filtered away, bad, outside of the bins, not among the most frequent; the
/// first bad one.
type CountFields = (u64, u64, u64, u64, u64, Option<String>);
/// Columns of indices, values, modes, whether what is not there is missing, and counts of rows.
type TensorFields<'py> =
    (Vec<Bound<'py, PyArray1<u32>>>, Bound<'py, PyArray1<f64>>, Vec<ModeFields>, bool, CountFields);

impl TableSettings {
    fn read(self) -> PyResult<Table<'static>> {
        let table = match self.text {
            Some(text) => Table::from_reader(Cursor::new(text), "the table"),
            None => Table::open_all(self.paths),
        };
        let mut table = table.modes(&self.modes).map_err(raised)?;
        table = match (self.values.0.as_str(), self.values.1) {
            ("count", None) => table.values(Values::Count),
            ("sum", Some(column)) => table.sum(column),
            ("mean", Some(column)) => table.mean(column),
            ("max", Some(column)) => table.max(column),
            (other, _) => {
                return Err(value_error(format!(
                    "rows cannot be aggregated by {other:?}: sum, mean and max of a column are \
                     possible, or a count of rows without a column"
                )));
            }
        };
        table = match self.implicit.as_deref() {
            None => table,
            Some("zero") => table.implicit(Implicit::Zero),
            Some("missing") => table.implicit(Implicit::Missing),
            Some(other) => {
                return Err(value_error(format!(
                    "entries without a row are \"zero\" or \"missing\", not {other:?}"
                )));
            }
        };
        if let Some(filter) = &self.filter {
            table = table.filter(filter).map_err(raised)?;
        }
        for (mode, labels) in self.orders {
            table = table.order(mode, labels);
        }
        if let Some(separator) = self.separator {
            let byte = u8::try_from(separator)
                .map_err(|_| value_error("the separator is one ASCII character"))?;
            table = table.separator(byte);
        }
        if let Some(missing) = self.missing {
            table = table.missing(missing);
        }
        if let Some(format) = &self.time_format {
            table = table.time_format(format).map_err(raised)?;
        }
        if let Some(zone) = &self.time_zone {
            table = table.time_zone(zone).map_err(raised)?;
        }
        if let Some(bytes) = self.memory_limit {
            table = table.memory_limit(bytes);
        }
        Ok(table.header(self.header).skip_bad(self.skip_bad))
    }
}

/// Reads a table.
#[pyfunction]
pub fn read_table<'py>(py: Python<'py>, settings: TableSettings) -> PyResult<TensorFields<'py>> {
    let cancel = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&cancel);
    let work = move |_caller| settings.read()?.cancel(switch).read().map_err(raised);
    let outcome = wait(py, || cancel.store(true, Ordering::Relaxed), work)?;
    let TableTensor { modes, coords, values, implicit, counts, .. } = outcome.into_result()?;
    let columns = coords.into_iter().map(|column| column.into_pyarray(py)).collect();
    let modes = modes.iter().map(|mode| (mode.letter, label_fields(&mode.to_labels())));
    let rows = (
        counts.rows,
        counts.filtered,
        counts.bad,
        counts.outside,
        counts.rare,
        counts.first_bad.clone(),
    );
    let missing = implicit == Implicit::Missing;
    Ok((columns, values.into_pyarray(py), modes.collect(), missing, rows))
}
