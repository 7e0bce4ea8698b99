//! Fits, and what can be known without one.

use std::sync::Arc;

use nneinfact::Error;
use nneinfact::fit::{Cancel, Fit, Flow, Observer, Saved as Inner, Sweep};
use numpy::{PyArrayDyn, ToPyArray};
use pyo3::prelude::*;

use crate::device::Device;
use crate::errors::raised;
use crate::losses::Loss;
use crate::observations::Observations;
use crate::saved::Saved;
use crate::settings::Settings;
use crate::shared::{SharedArguments, SharedObject, part};
use crate::wait::{Caller, released, wait};

/// What is known after a sweep, in the order of the fields of Python's `Sweep`.
type SweepFields = (usize, usize, f64, Option<f64>, Option<f64>, f64, Option<u64>, usize);

/// A fit that ended or broke: what it reached, and its warnings.
struct Ended {
    saved: Inner,
    warnings: Vec<String>,
    broke: Option<String>,
}

/// What a fit gives: the fit, warnings, why it broke, and what was raised in the caller's thread.
type FitResult = (Option<Saved>, Vec<String>, Option<String>, Option<PyErr>);

/// Fits. The callback is called in the caller's thread after every sweep; true stops. Ctrl-C and an
/// exception of the callback end the fit, which is then given with the exception.
#[pyfunction]
pub fn fit(
    py: Python<'_>,
    settings: Settings<'_>,
    data: &Observations,
    loss: &Loss,
    device: &Device,
    callback: Option<Py<PyAny>>,
    shared: Option<SharedArguments>,
) -> PyResult<FitResult> {
    let cancel = Cancel::new();
    let settings =
        settings.read()?.loss(loss.inner.clone()).device(device.inner.clone()).cancel(&cancel);
    let part = shared.as_ref().and_then(part);
    let shape = data.inner.shape();
    let shape = part.as_ref().map_or_else(|| shape.to_vec(), |part| part.shape(shape));
    let (settings, mut warnings) = released(py, move || {
        let warnings = settings.warnings(&shape)?;
        Ok((settings, warnings))
    })?;
    let data = data.inner.clone();
    let record = loss.record.clone();
    let outcome = wait(
        py,
        || cancel.cancel(),
        move |caller| {
            let settings = match shared {
                Some(shared) => settings.shared_by(SharedObject::new(caller.clone(), shared)),
                None => settings,
            };
            let settings = match callback {
                Some(callback) => settings.observe(observer(caller, callback)),
                None => settings,
            };
            let fitted = match part {
                Some(part) => settings.fit_part(&data, part),
                None => settings.fit(&data),
            };
            let ended = match fitted {
                Ok(fit) => {
                    let warnings = fit.warnings().to_vec();
                    Ended { saved: Inner::new(&fit), warnings, broke: None }
                }
                Err(Error::Broken { cause, last }) => {
                    let broke = Error::Broken { cause, last: last.clone() }.to_string();
                    let fit = Fit::from(*last);
                    Ended { saved: Inner::new(&fit), warnings: Vec::new(), broke: Some(broke) }
                }
                Err(error) => return Err(raised(error)),
            };
            Ok(Ended { saved: ended.saved.with_loss(record), ..ended })
        },
    )?;
    match (outcome.result, outcome.raised) {
        (Ok(ended), raised) => {
            let new: Vec<String> =
                ended.warnings.into_iter().filter(|w| !warnings.contains(w)).collect();
            warnings.extend(new);
            Ok((Some(Saved { inner: ended.saved }), warnings, ended.broke, raised))
        }
        // Interrupted before there was anything to keep.
        (Err(_), Some(raised)) => Ok((None, warnings, None, Some(raised))),
        (Err(error), None) => Err(error),
    }
}

/// What calls a callback in the caller's thread after every sweep.
pub fn observer<T: Send + 'static>(
    caller: Caller<T>,
    callback: Py<PyAny>,
) -> impl Observer + 'static {
    let callback = Arc::new(callback);
    move |sweep: &Sweep| {
        let fields = fields(sweep);
        let callback = Arc::clone(&callback);
        let answer = caller.ask(move |py| callback.call1(py, fields)?.is_truthy(py));
        // Without an answer the switch is being thrown, which is what stops the fit.
        if answer == Some(true) { Flow::Stop } else { Flow::Continue }
    }
}

fn fields(sweep: &Sweep) -> SweepFields {
    (
        sweep.iteration,
        sweep.max_iter,
        sweep.loss,
        sweep.validation_loss,
        sweep.heldout_loss,
        sweep.seconds,
        sweep.device_memory,
        sweep.failed_checkpoints,
    )
}

/// What a fit to data of a shape will do and what it costs, as a text.
#[pyfunction]
pub fn explain(
    py: Python<'_>,
    settings: Settings<'_>,
    loss: &Loss,
    shape: Vec<usize>,
    value_bytes: usize,
    nonzeros: Option<u64>,
) -> PyResult<String> {
    let settings = settings.read()?.loss(loss.inner.clone());
    let described = loss.inner.describe().to_string();
    released(py, move || {
        let plan = match nonzeros {
            Some(nonzeros) => settings.sparse_plan(&shape, nonzeros)?,
            None => settings.plan(&shape, value_bytes)?,
        };
        Ok(format!("{plan}\nloss     {described}\n"))
    })
}

/// The gradient at the start, by the logarithm of every entry of every factor.
#[pyfunction]
pub fn gradient<'py>(
    py: Python<'py>,
    settings: Settings<'_>,
    data: &Observations,
    loss: &Loss,
    device: &Device,
) -> PyResult<Vec<Bound<'py, PyArrayDyn<f64>>>> {
    let cancel = Cancel::new();
    let settings =
        settings.read()?.loss(loss.inner.clone()).device(device.inner.clone()).cancel(&cancel);
    let data = data.inner.clone();
    let outcome =
        wait(py, || cancel.cancel(), move |_caller| settings.gradient(&data).map_err(raised))?;
    Ok(outcome.into_result()?.iter().map(|g| g.to_pyarray(py)).collect())
}
