//! An object of Python as what connects the processes of a fit.

use std::sync::Arc;

use nneinfact::data::Part;
use nneinfact::engine::Reducer;
use nneinfact::fit::{slab_ranges, slabs_of_processes, split_mode};
use nneinfact::{Error, Result};
use numpy::{PyArray1, PyArrayMethods, ToPyArray};
use pyo3::prelude::*;

use crate::errors::value_error;
use crate::wait::Caller;

/// How a fit is shared: the object, its rank and size, and the part of the data that is here (an axis, the
/// first index, the one after the last, and how many there are in all).
pub type SharedArguments = (Py<PyAny>, usize, usize, Option<(usize, usize, usize, usize)>);

/// The part of the data that is here.
pub fn part(arguments: &SharedArguments) -> Option<Part> {
    let (mode, start, end, whole) = arguments.3?;
    Some(Part { mode, range: start..end, whole })
}

/// Calls an object's `exchange` and `agree` in the caller's thread.
pub struct SharedObject<T> {
    caller: Caller<T>,
    object: Arc<Py<PyAny>>,
    rank: usize,
    size: usize,
}

impl<T: Send + 'static> SharedObject<T> {
    pub fn new(caller: Caller<T>, (object, rank, size, _): SharedArguments) -> SharedObject<T> {
        SharedObject { caller, object: Arc::new(object), rank, size }
    }

    /// What was raised is raised again, in the caller's thread; the fit ends with this.
    fn ended(&self) -> Error {
        Error::Process {
            rank: self.rank,
            message: "the object given as shared_by raised an exception".into(),
            input: false,
        }
    }
}

impl<T: Send + 'static> Reducer for SharedObject<T> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn exchange(&mut self, with: usize, send: &[f64], receive: &mut [f64]) -> Result<()> {
        let (object, send, n) = (Arc::clone(&self.object), send.to_vec(), receive.len());
        let found = self.caller.ask(move |py| {
            let send = send.to_pyarray(py);
            let found = PyArray1::<f64>::zeros(py, n, false);
            object.call_method1(py, "exchange", (with, send, &found))?;
            Ok(found.readonly().as_slice()?.to_vec())
        });
        receive.copy_from_slice(&found.ok_or_else(|| self.ended())?);
        Ok(())
    }

    fn agree(&mut self, word: u64) -> Result<u64> {
        let object = Arc::clone(&self.object);
        let agreed = self.caller.ask(move |py| {
            let agreed = object.call_method1(py, "agree", (word,))?;
            // numpy's integers are taken too.
            agreed.call_method0(py, "__index__")?.extract::<u64>(py)
        });
        agreed.ok_or_else(|| self.ended())
    }
}

/// The part of data of a shape that a process has: an axis, the first index along it, the one after the
/// last, and how many there are in all.
#[pyfunction]
pub fn part_of(
    shape: Vec<usize>,
    axis: Option<usize>,
    slabs: usize,
    rank: usize,
    size: usize,
) -> PyResult<(usize, usize, usize, usize)> {
    if slabs == 0 || rank >= size || shape.is_empty() {
        return Err(value_error(format!(
            "there is no part of process {rank} of {size} with {slabs} slabs of an array of {} axes",
            shape.len()
        )));
    }
    let axis = axis.unwrap_or_else(|| split_mode(&shape, slabs));
    let Some(&whole) = shape.get(axis) else {
        return Err(value_error(format!("an array of shape {shape:?} has no axis {axis}")));
    };
    let ranges = slab_ranges(whole, slabs);
    let owned = slabs_of_processes(ranges.len(), size)[rank].clone();
    let (start, end) = match owned.is_empty() {
        true => (whole, whole),
        false => (ranges[owned.start].start, ranges[owned.end - 1].end),
    };
    Ok((axis, start, end, whole))
}
