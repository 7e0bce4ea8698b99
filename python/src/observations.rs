//! Data with masks, weights and splits.

use std::path::PathBuf;

use nneinfact::Observations as Inner;
use nneinfact::data::Values;
use nneinfact::io::{self, FileKind};
use numpy::{PyReadonlyArray2, PyReadonlyArrayDyn};
use pyo3::prelude::*;

use crate::arrays::{coo, dense, entries_at};
use crate::errors::raised;
use crate::wait::released;

/// What a fit is given: values, and the role of every entry. Shared by fits, never changed.
#[pyclass(frozen, module = "nneinfact._nneinfact")]
pub struct Observations {
    pub inner: Inner,
    duplicates: u64,
}

/// What decides the role of entries.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Roles<'py> {
    mask: Option<PyReadonlyArrayDyn<'py, bool>>,
    weights: Option<Bound<'py, PyAny>>,
    nan_missing: bool,
    unlisted_missing: bool,
    missing_at: Option<PyReadonlyArray2<'py, i64>>,
    heldout: Option<f64>,
    heldout_mask: Option<PyReadonlyArrayDyn<'py, bool>>,
    heldout_at: Option<PyReadonlyArray2<'py, i64>>,
    validation: Option<f64>,
    validation_at: Option<PyReadonlyArray2<'py, i64>>,
    split_seed: u64,
}

#[pymethods]
impl Observations {
    /// A value for every entry, in an array of any numeric type and order.
    #[staticmethod]
    fn dense(array: &Bound<'_, PyAny>) -> PyResult<Observations> {
        Ok(Observations { inner: Inner::new(dense(array)?), duplicates: 0 })
    }

    /// Stored entries: contiguous columns of indices, and their values.
    #[staticmethod]
    #[pyo3(signature = (shape, columns, values))]
    fn coordinates(
        shape: Option<Vec<usize>>,
        columns: Vec<Bound<'_, PyAny>>,
        values: &Bound<'_, PyAny>,
    ) -> PyResult<Observations> {
        let entries = coo(shape.as_deref(), &columns, values)?;
        let duplicates = entries.duplicates();
        Ok(Observations { inner: Inner::new(entries), duplicates })
    }

    /// A file as the program reads it: `.npy`, `.npz`, `.tns`.
    #[staticmethod]
    #[pyo3(signature = (path, key, shape, stream))]
    fn file(
        py: Python<'_>,
        path: PathBuf,
        key: Option<String>,
        shape: Option<Vec<usize>>,
        stream: bool,
    ) -> PyResult<Observations> {
        released(py, move || {
            let (values, duplicates): (Values, u64) = match FileKind::of(&path)? {
                FileKind::Npy if stream => (io::map_npy(&path)?.into(), 0),
                FileKind::Npy | FileKind::Npz => (io::read_dense(&path, key.as_deref())?.into(), 0),
                FileKind::Tns => {
                    let entries = io::read_tns(&path, shape.as_deref())?;
                    let duplicates = entries.duplicates();
                    (entries.into(), duplicates)
                }
            };
            Ok(Observations { inner: Inner::new(values), duplicates })
        })
    }

    /// The same data with these roles of their entries.
    fn with_roles(&self, roles: Roles<'_>) -> PyResult<Observations> {
        let mut inner = self.inner.clone();
        let shape = inner.shape().to_vec();
        if let Some(mask) = &roles.mask {
            inner = inner.mask(&mask.as_array()).map_err(raised)?;
        }
        if let Some(weights) = &roles.weights {
            inner = inner.weights(dense(weights)?).map_err(raised)?;
        }
        if roles.nan_missing {
            inner = inner.nan_missing();
        }
        if roles.unlisted_missing {
            inner = inner.unlisted_missing();
        }
        if let Some(rows) = &roles.missing_at {
            inner = inner.missing_at(entries_at(&shape, rows)?).map_err(raised)?;
        }
        if let Some(rows) = &roles.heldout_at {
            inner = inner.held_out_at(entries_at(&shape, rows)?).map_err(raised)?;
        }
        if let Some(rows) = &roles.validation_at {
            inner = inner.validation_at(entries_at(&shape, rows)?).map_err(raised)?;
        }
        if let Some(fraction) = roles.heldout {
            inner = inner.held_out(fraction, roles.split_seed).map_err(raised)?;
        }
        if let Some(mask) = &roles.heldout_mask {
            inner = inner.held_out_mask(&mask.as_array()).map_err(raised)?;
        }
        if let Some(fraction) = roles.validation {
            inner = inner.validation(fraction, roles.split_seed).map_err(raised)?;
        }
        Ok(Observations { inner, duplicates: self.duplicates })
    }

    /// The length of each mode.
    #[getter]
    fn shape(&self) -> Vec<usize> {
        self.inner.shape().to_vec()
    }

    /// Whether the data are stored entries.
    #[getter]
    fn is_sparse(&self) -> bool {
        self.inner.coordinates().is_some()
    }

    /// How many entries stood at the place of another one and were added to it.
    #[getter]
    fn duplicates(&self) -> u64 {
        self.duplicates
    }
}
