//! Data with masks, weights and splits.

use std::path::{Path, PathBuf};

use nneinfact::Observations as Inner;
use nneinfact::data::{Labels, SplitKind};
use nneinfact::io::{self, FileKind, NamedTensor};
use numpy::{PyReadonlyArray2, PyReadonlyArrayDyn};
use pyo3::prelude::*;

use crate::arrays::{coo, dense, entries_at};
use crate::errors::{raised, value_error};
use crate::labels::{LabelFields, label_fields, read_labels};
use crate::wait::released;

/// What a fit is given: values, and the role of every entry. Shared by fits, never changed.
#[pyclass(frozen, module = "nneinfact._nneinfact")]
pub struct Observations {
    pub inner: Inner,
    /// The letters that the modes of a file have, or none.
    letters: Vec<Option<char>>,
    duplicates: u64,
}

impl From<NamedTensor> for Observations {
    fn from(named: NamedTensor) -> Observations {
        let duplicates = named.observations.coordinates().map_or(0, |list| list.duplicates());
        Observations { inner: named.observations, letters: named.letters, duplicates }
    }
}

impl From<Inner> for Observations {
    fn from(inner: Inner) -> Observations {
        NamedTensor::from(inner).into()
    }
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
    heldout_as: String,
    zeros_per_nonzero: Option<f64>,
    split_seed: u64,
}

#[pymethods]
impl Observations {
    /// A value for every entry, in an array of any numeric type and order.
    #[staticmethod]
    fn dense(array: &Bound<'_, PyAny>) -> PyResult<Observations> {
        Ok(Inner::new(dense(array)?).into())
    }

    /// Stored entries: contiguous columns of indices, and their values.
    #[staticmethod]
    #[pyo3(signature = (shape, columns, values))]
    fn coordinates(
        shape: Option<Vec<usize>>,
        columns: Vec<Bound<'_, PyAny>>,
        values: &Bound<'_, PyAny>,
    ) -> PyResult<Observations> {
        Ok(Inner::new(coo(shape.as_deref(), &columns, values)?).into())
    }

    /// A file as the program reads it: `.npy`, `.npz`, `.tns`, Matrix Market, a folder of 10x.
    #[staticmethod]
    #[pyo3(signature = (path, key, shape, stream))]
    fn file(
        py: Python<'_>,
        path: PathBuf,
        key: Option<String>,
        shape: Option<Vec<usize>>,
        stream: bool,
    ) -> PyResult<Observations> {
        released(py, move || read_file(&path, key.as_deref(), shape.as_deref(), stream))
    }

    /// With the modes in the order of these letters.
    fn arranged(&self, py: Python<'_>, letters: Vec<char>) -> PyResult<Observations> {
        let observations = self.inner.clone();
        let named = NamedTensor { observations, letters: self.letters.clone() };
        released(py, move || Ok(named.arranged(&letters)?.into()))
    }

    /// The letter of each mode, where a file gives it one.
    #[getter]
    fn letters(&self) -> Vec<Option<char>> {
        self.letters.clone()
    }

    /// What each mode and its indices are called; none where nothing is known.
    #[getter]
    fn labels(&self) -> Vec<LabelFields> {
        self.inner.labels().iter().map(label_fields).collect()
    }

    /// Whether what is not stored is missing.
    #[getter]
    fn is_implicit_missing(&self) -> bool {
        self.inner.is_unlisted_missing()
    }

    /// The same data with labels for each mode.
    fn with_labels(&self, labels: Vec<LabelFields>) -> PyResult<Observations> {
        let labels: PyResult<Vec<Labels>> = labels.into_iter().map(read_labels).collect();
        let inner = self.inner.clone().with_labels(labels?).map_err(raised)?;
        Ok(Observations { inner, letters: self.letters.clone(), duplicates: self.duplicates })
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
        inner = inner.split_as(split_kind(&roles.heldout_as)?);
        if let Some(ratio) = roles.zeros_per_nonzero {
            inner = inner.zeros_per_nonzero(ratio).map_err(raised)?;
        }
        Ok(Observations { inner, letters: self.letters.clone(), duplicates: self.duplicates })
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

/// The kind of split of this name.
pub fn split_kind(name: &str) -> PyResult<SplitKind> {
    let kind = SplitKind::ALL.into_iter().find(|kind| kind.name() == name);
    kind.ok_or_else(|| {
        value_error(format!("there is no split {name:?}: auto, cells and strata are possible"))
    })
}

fn read_file(
    path: &Path,
    key: Option<&str>,
    shape: Option<&[usize]>,
    stream: bool,
) -> nneinfact::Result<Observations> {
    let name = path.to_string_lossy().to_ascii_lowercase();
    if name.ends_with(".mtx") || name.ends_with(".mtx.gz") {
        return Ok(io::read_matrix_market(path)?.observations()?.into());
    }
    if io::is_10x(path) {
        return Ok(io::read_10x(path)?.observations()?.into());
    }
    match (FileKind::of(path)?, key) {
        (FileKind::Npy, None) if stream => Ok(Inner::new(io::map_npy(path)?).into()),
        (FileKind::Npz, None) => {
            if let Some(named) = NamedTensor::load(path)? {
                return Ok(named.into());
            }
            match io::read_scipy(path)? {
                Some(matrix) => Ok(matrix.observations()?.into()),
                None => Ok(Inner::new(io::read_dense(path, None)?).into()),
            }
        }
        (FileKind::Npy | FileKind::Npz, key) => Ok(Inner::new(io::read_dense(path, key)?).into()),
        (FileKind::Tns, _) => Ok(Inner::new(io::read_tns(path, shape)?).into()),
    }
}
