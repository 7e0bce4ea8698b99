//! numpy's arrays as the library's tensors.

use ndarray::ArrayD;
use nneinfact::data::{Column, CooTensor, Dense};
use numpy::{
    Element, PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2,
    PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::errors::raised;
use crate::fork;

/// Runs `$found` with `$array` as an array of the first type that it is of.
macro_rules! of_any_type {
    (@ $any:expr, $array:ident : $kind:ident => $found:expr; $($type:ty),*) => {
        $(if let Ok($array) = $any.cast::<$kind<$type>>() { $found })*
    };
    ($any:expr, $array:ident : $kind:ident => $found:expr) => {
        of_any_type!(@ $any, $array: $kind => $found;
            u8, u16, u32, u64, i8, i16, i32, i64, f32, f64, bool)
    };
}

/// The tensor in an array of any numeric type, in its own order of memory.
pub fn dense(array: &Bound<'_, PyAny>) -> PyResult<Dense> {
    of_any_type!(array, array: PyArrayDyn => return from_array(array));
    Err(unreadable(array))
}

fn from_array<T>(array: &Bound<'_, PyArrayDyn<T>>) -> PyResult<Dense>
where
    T: Element + nneinfact::data::Element,
{
    let array_of_python = array.try_readonly()?;
    let view = array_of_python.as_array();
    array.py().detach(|| fork::install(|| Dense::from_array(&view)))
}

fn unreadable(array: &Bound<'_, PyAny>) -> PyErr {
    let kind = match array.cast::<PyUntypedArray>() {
        Ok(array) => array.dtype().to_string(),
        Err(_) => array.get_type().to_string(),
    };
    PyTypeError::new_err(format!("the data are of type {kind}, but real numbers are expected"))
}

/// A column of indices that Python keeps.
enum KeptColumn<'py> {
    I32(PyReadonlyArray1<'py, i32>),
    I64(PyReadonlyArray1<'py, i64>),
    U32(PyReadonlyArray1<'py, u32>),
    U64(PyReadonlyArray1<'py, u64>),
}

impl<'py> KeptColumn<'py> {
    fn of(array: &Bound<'py, PyAny>) -> PyResult<KeptColumn<'py>> {
        if let Ok(a) = array.cast::<PyArray1<i32>>() {
            return Ok(KeptColumn::I32(a.try_readonly()?));
        }
        if let Ok(a) = array.cast::<PyArray1<i64>>() {
            return Ok(KeptColumn::I64(a.try_readonly()?));
        }
        if let Ok(a) = array.cast::<PyArray1<u32>>() {
            return Ok(KeptColumn::U32(a.try_readonly()?));
        }
        if let Ok(a) = array.cast::<PyArray1<u64>>() {
            return Ok(KeptColumn::U64(a.try_readonly()?));
        }
        Err(PyTypeError::new_err("indices have to be whole numbers of 32 or 64 bits"))
    }

    fn column(&self) -> PyResult<Column<'_>> {
        Ok(match self {
            KeptColumn::I32(a) => Column::I32(a.as_slice()?),
            KeptColumn::I64(a) => Column::I64(a.as_slice()?),
            KeptColumn::U32(a) => Column::U32(a.as_slice()?),
            KeptColumn::U64(a) => Column::U64(a.as_slice()?),
        })
    }
}

/// A COO tensor of contiguous columns of indices, and values of any numeric type.
pub fn coo(
    shape: Option<&[usize]>,
    columns: &[Bound<'_, PyAny>],
    values: &Bound<'_, PyAny>,
) -> PyResult<CooTensor> {
    let kept: PyResult<Vec<KeptColumn<'_>>> = columns.iter().map(KeptColumn::of).collect();
    let kept = kept?;
    let columns: PyResult<Vec<Column<'_>>> = kept.iter().map(KeptColumn::column).collect();
    let columns = columns?;
    of_any_type!(values, values: PyArray1 => return with_values(shape, &columns, values));
    Err(unreadable(values))
}

fn with_values<T>(
    shape: Option<&[usize]>,
    columns: &[Column<'_>],
    values: &Bound<'_, PyArray1<T>>,
) -> PyResult<CooTensor>
where
    T: Element + nneinfact::data::Element,
{
    let kept = values.try_readonly()?;
    let slice = kept.as_slice()?;
    let py = values.py();
    py.detach(|| fork::install(|| CooTensor::from_columns(shape, columns, slice)))?.map_err(raised)
}

/// The entries at some indices, one row for each: their values do not matter.
pub fn entries_at(shape: &[usize], rows: &PyReadonlyArray2<'_, i64>) -> PyResult<CooTensor> {
    let rows = rows.as_array();
    let lists: Vec<Vec<i64>> = rows.columns().into_iter().map(|column| column.to_vec()).collect();
    let columns: Vec<Column<'_>> = lists.iter().map(|list| Column::I64(list)).collect();
    CooTensor::from_columns(Some(shape), &columns, &vec![1u8; rows.nrows()]).map_err(raised)
}

/// A copy in double precision.
pub fn owned(array: &PyReadonlyArrayDyn<'_, f64>) -> ArrayD<f64> {
    array.as_array().to_owned()
}
