//! Distributions as nonnegative tensor trains.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ndarray::{Array2, Array3};
use nneinfact_density::{
    Core, Cross, Density as Inner, Em, Indices, NonnegativeTrain, Sketch, TensorTrain, TrainFit,
};
use numpy::{
    PyArray1, PyArray2, PyArray3, PyArrayDyn, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2,
    PyReadonlyArray3, ToPyArray,
};
use pyo3::prelude::*;

use crate::errors::{raised, value_error};
use crate::wait::{released, wait};

/// Index tuples, a row for each.
fn indices(rows: &PyReadonlyArray2<'_, i64>) -> PyResult<Indices> {
    let rows = rows.as_array();
    let flat: Result<Vec<usize>, _> = rows.iter().map(|&i| usize::try_from(i)).collect();
    let flat = flat.map_err(|_| value_error("an index is negative: indices count from 0"))?;
    Indices::new(rows.ncols(), flat).map_err(raised)
}

fn rows<'py>(py: Python<'py>, indices: &Indices) -> PyResult<Bound<'py, PyArray2<i64>>> {
    let flat = indices.data().iter().map(|&i| i as i64).collect();
    let array = Array2::from_shape_vec((indices.rows(), indices.order()), flat);
    Ok(array.map_err(|e| value_error(e.to_string()))?.to_pyarray(py))
}

fn cores_of<'py>(py: Python<'py>, cores: &[Core]) -> PyResult<Vec<Bound<'py, PyArray3<f64>>>> {
    let array = |core: &Core| {
        let array = Array3::from_shape_vec(core.shape(), core.data().to_vec());
        Ok(array.map_err(|e| value_error(e.to_string()))?.to_pyarray(py))
    };
    cores.iter().map(array).collect()
}

fn read_cores(cores: &[PyReadonlyArray3<'_, f64>]) -> PyResult<Vec<Core>> {
    let core = |array: &PyReadonlyArray3<'_, f64>| {
        let array = array.as_array();
        let (a, i, b) = array.dim();
        Core::new([a, i, b], array.iter().copied().collect()).map_err(raised)
    };
    cores.iter().map(core).collect()
}

/// A tensor train of any sign.
#[pyclass(frozen, module = "nneinfact._nneinfact")]
pub struct Train {
    inner: TensorTrain,
}

#[pymethods]
impl Train {
    #[new]
    fn new(cores: Vec<PyReadonlyArray3<'_, f64>>, log_scale: f64) -> PyResult<Train> {
        let inner = TensorTrain::new(read_cores(&cores)?, log_scale).map_err(raised)?;
        Ok(Train { inner })
    }

    fn cores<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyArray3<f64>>>> {
        cores_of(py, self.inner.cores())
    }

    #[getter]
    fn log_scale(&self) -> f64 {
        self.inner.log_scale()
    }

    #[getter]
    fn ranks(&self) -> Vec<usize> {
        self.inner.ranks()
    }

    fn entries<'py>(
        &self,
        py: Python<'py>,
        tuples: PyReadonlyArray2<'py, i64>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let tuples = indices(&tuples)?;
        Ok(released(py, || self.inner.entries(&tuples))?.to_pyarray(py))
    }
}

/// A distribution over index tuples.
#[pyclass(frozen, module = "nneinfact._nneinfact")]
pub struct Density {
    inner: Inner,
}

#[pymethods]
impl Density {
    /// Of nonnegative cores, whatever their sum is.
    #[new]
    fn new(
        py: Python<'_>,
        cores: Vec<PyReadonlyArray3<'_, f64>>,
        log_scale: f64,
    ) -> PyResult<Density> {
        let cores = read_cores(&cores)?;
        released(py, move || {
            Ok(Density { inner: Inner::new(&NonnegativeTrain::new(cores, log_scale)?)? })
        })
    }

    /// The cores of the probabilities.
    fn cores<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyArray3<f64>>>> {
        cores_of(py, self.inner.markov_cores())
    }

    #[getter]
    fn log_partition(&self) -> f64 {
        self.inner.log_partition()
    }

    #[getter]
    fn shape(&self) -> Vec<usize> {
        self.inner.sizes()
    }

    #[getter]
    fn ranks(&self) -> Vec<usize> {
        self.inner.ranks()
    }

    fn log_probabilities<'py>(
        &self,
        py: Python<'py>,
        tuples: PyReadonlyArray2<'py, i64>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let tuples = indices(&tuples)?;
        Ok(released(py, || self.inner.log_probabilities(&tuples))?.to_pyarray(py))
    }

    fn marginal<'py>(
        &self,
        py: Python<'py>,
        modes: Vec<usize>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f64>>> {
        let table = released(py, || self.inner.marginal(&modes))?;
        let shape = table.shape().to_vec();
        table.into_values().to_pyarray(py).reshape(shape)
    }

    fn mutual_information<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let n = self.inner.order();
        let all = released(py, || Ok(self.inner.mutual_information()))?;
        all.to_pyarray(py).reshape([n, n])
    }

    /// The distribution given (mode, value) pairs, and the logarithm of their probability.
    fn conditional(&self, py: Python<'_>, given: Vec<(usize, usize)>) -> PyResult<(Density, f64)> {
        let found = released(py, || self.inner.conditional(&given))?;
        Ok((Density { inner: found.density }, found.log_probability))
    }

    fn sample<'py>(
        &self,
        py: Python<'py>,
        count: usize,
        seed: u64,
    ) -> PyResult<Bound<'py, PyArray2<i64>>> {
        let found = released(py, || self.inner.sample(count, seed))?;
        rows(py, &found)
    }

    /// The mean of a function of each mode, and the covariance between modes.
    #[allow(clippy::type_complexity, reason = "two arrays")]
    fn moments<'py>(
        &self,
        py: Python<'py>,
        values: Vec<Vec<f64>>,
    ) -> PyResult<(Bound<'py, PyArray1<f64>>, Bound<'py, PyArray2<f64>>)> {
        let n = self.inner.order();
        let found = released(py, || self.inner.covariance(&values))?;
        Ok((found.mean.to_pyarray(py), found.covariance.to_pyarray(py).reshape([n, n])?))
    }

    /// The expectation of a product of functions of single modes.
    fn expectation(&self, py: Python<'_>, values: Vec<Option<Vec<f64>>>) -> PyResult<f64> {
        released(py, || {
            let slices: Vec<Option<&[f64]>> = values.iter().map(Option::as_deref).collect();
            self.inner.expectation(&slices)
        })
    }

    /// The mean negative log-likelihood, how many samples are impossible, and the mean of the others.
    fn nll(
        &self,
        py: Python<'_>,
        samples: PyReadonlyArray2<'_, i64>,
        weights: Option<PyReadonlyArray1<'_, f64>>,
    ) -> PyResult<(f64, usize, f64)> {
        let samples = indices(&samples)?;
        let weights: Option<Vec<f64>> = weights.map(|w| w.as_array().to_vec());
        let found = released(py, || self.inner.nll(&samples, weights.as_deref()))?;
        Ok((found.mean, found.impossible, found.mean_of_possible))
    }
}

/// How a function is interpolated.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct CrossSettings<'py> {
    shape: Vec<usize>,
    log: bool,
    tol: f64,
    max_rank: usize,
    max_sweeps: usize,
    max_evaluations: Option<u64>,
    seed: u64,
    starts: Option<PyReadonlyArray2<'py, i64>>,
    round: bool,
}

/// A train, how many evaluations it took, its error on check points, whether it converged, notices.
type CrossFields = (Train, u64, f64, bool, Vec<String>);

/// Interpolates a function of batches of index tuples, which is called in the caller's thread.
#[pyfunction]
pub fn cross(
    py: Python<'_>,
    settings: CrossSettings<'_>,
    function: Py<PyAny>,
) -> PyResult<CrossFields> {
    let mut cross = Cross::new(settings.shape)
        .tol(settings.tol)
        .max_rank(settings.max_rank)
        .max_sweeps(settings.max_sweeps)
        .seed(settings.seed)
        .round(settings.round);
    if let Some(most) = settings.max_evaluations {
        cross = cross.max_evaluations(most);
    }
    if let Some(starts) = &settings.starts {
        cross = cross.starts(indices(starts)?);
    }
    let log = settings.log;
    let function = Arc::new(function);
    // The function is what takes time: where it raises, or the signal came while it ran, it gives NaN
    // from then on, which ends the interpolation.
    let outcome = wait(
        py,
        || {},
        move |caller| {
            let values = |batch: &Indices, out: &mut [f64]| {
                let function = Arc::clone(&function);
                let batch = batch.clone();
                let found = caller.ask(move |py| {
                    let values = function.call1(py, (rows(py, &batch)?,))?;
                    let values = values.extract::<PyReadonlyArray1<'_, f64>>(py)?;
                    Ok(values.as_array().to_vec())
                });
                match found {
                    Some(found) if found.len() == out.len() => out.copy_from_slice(&found),
                    _ => out.fill(f64::NAN),
                }
            };
            let found = match log {
                true => cross.run_log_batched(values),
                false => cross.run_batched(values),
            };
            found.map_err(raised)
        },
    )?;
    let found = outcome.into_result()?;
    let error = found.errors.last().copied().unwrap_or(0.0);
    let train = Train { inner: found.train };
    Ok((train, found.evaluations, error, found.converged, found.notices))
}

/// How samples are sketched.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct SketchSettings {
    shape: Vec<usize>,
    rank: Option<usize>,
    near: usize,
    degree: usize,
    tol: f64,
}

/// A train of the moments of samples, and notices.
#[pyfunction]
pub fn sketch(
    py: Python<'_>,
    settings: SketchSettings,
    samples: PyReadonlyArray2<'_, i64>,
    weights: Option<PyReadonlyArray1<'_, f64>>,
) -> PyResult<(Train, Vec<String>)> {
    let samples = indices(&samples)?;
    let weights: Option<Vec<f64>> = weights.map(|w| w.as_array().to_vec());
    let SketchSettings { shape, rank, near, degree, tol } = settings;
    let mut sketch = Sketch::new(shape).monomials(near, degree).tol(tol);
    if let Some(rank) = rank {
        sketch = sketch.rank(rank);
    }
    let found = released(py, || sketch.run(&samples, weights.as_deref()))?;
    Ok((Train { inner: found.train }, found.notices))
}

/// How a nonnegative train is fitted to a train.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct TrainSettings {
    rank: Option<usize>,
    sweeps: usize,
    target_error: Option<f64>,
    time_limit: Option<f64>,
    seed: u64,
}

/// A distribution, its squared distance to the train relative to that, the errors sweep by sweep, why it
/// stopped, and notices.
type FittedFields = (Density, f64, Vec<f64>, &'static str, Vec<String>);

/// Fits a nonnegative train to a train.
#[pyfunction]
pub fn fit_train(py: Python<'_>, train: &Train, settings: TrainSettings) -> PyResult<FittedFields> {
    let cancel = Arc::new(AtomicBool::new(false));
    let mut fit =
        TrainFit::new().sweeps(settings.sweeps).seed(settings.seed).cancel(Arc::clone(&cancel));
    if let Some(rank) = settings.rank {
        fit = fit.rank(rank);
    }
    if let Some(error) = settings.target_error {
        fit = fit.target_error(error);
    }
    if let Some(seconds) = settings.time_limit {
        let time = Duration::try_from_secs_f64(seconds);
        fit = fit.time_limit(time.map_err(|e| value_error(format!("the time limit: {e}")))?);
    }
    let train = train.inner.clone();
    let outcome = wait(
        py,
        || cancel.store(true, Ordering::Relaxed),
        move |_caller| {
            let found = fit.run(&train).map_err(raised)?;
            let inner = Inner::new(&found.train).map_err(raised)?;
            Ok((inner, found))
        },
    )?;
    let (inner, found) = outcome.into_result()?;
    let stopped = found.history.stopped_by.name();
    let distance = found.relative_squared_distance;
    Ok((Density { inner }, distance, found.history.error, stopped, found.notices))
}

/// Raises the likelihood of samples, from a distribution on; gives the mean negative log-likelihoods and
/// why it stopped.
#[pyfunction]
pub fn maximise_likelihood(
    py: Python<'_>,
    start: &Density,
    samples: PyReadonlyArray2<'_, i64>,
    weights: Option<PyReadonlyArray1<'_, f64>>,
    sweeps: usize,
    tol: f64,
) -> PyResult<(Density, Vec<f64>, &'static str)> {
    let cancel = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&cancel);
    let samples = indices(&samples)?;
    let weights: Option<Vec<f64>> = weights.map(|w| w.as_array().to_vec());
    let start = start.inner.clone();
    let outcome = wait(
        py,
        || cancel.store(true, Ordering::Relaxed),
        move |_caller| {
            let em = Em::new().sweeps(sweeps).tol(tol).cancel(stop);
            em.run(&start, &samples, weights.as_deref()).map_err(raised)
        },
    )?;
    let found = outcome.into_result()?;
    Ok((Density { inner: found.density }, found.nll, found.stopped_by.name()))
}
