//! Fits to several tensors that share factors.

use nneinfact::fit::{Cancel, Coupled, Part, Saved as Inner};
use pyo3::prelude::*;

use crate::device::Device;
use crate::errors::{raised, value_error};
use crate::fit::observer;
use crate::losses::Loss;
use crate::observations::Observations;
use crate::saved::Saved;
use crate::settings::Settings;
use crate::wait::wait;

/// A tensor of a coupled fit: its model, data, loss, and the weight of its loss.
type PartArguments<'py> = (String, PyRef<'py, Observations>, PyRef<'py, Loss>, f64);
/// The fit of every tensor, the history of all of them as JSON, warnings, and what was raised in the
/// caller's thread.
type CoupledResult = (Option<Vec<Saved>>, String, Vec<String>, Option<PyErr>);

/// Fits tensors that share factors; as [`crate::fit::fit`] in all else.
#[pyfunction]
pub fn fit_coupled(
    py: Python<'_>,
    settings: Settings<'_>,
    parts: Vec<PartArguments<'_>>,
    device: &Device,
    callback: Option<Py<PyAny>>,
) -> PyResult<CoupledResult> {
    let cancel = Cancel::new();
    let changes = settings.changes()?;
    let mut records = Vec::new();
    let mut tensors = Vec::new();
    for (model, data, loss, weight) in &parts {
        let part = Part::new(model, &data.inner).map_err(raised)?;
        tensors.push(part.loss(loss.inner.clone()).weight(*weight));
        records.push(loss.record.clone());
    }
    drop(parts);
    let (device, stop) = (device.inner.clone(), cancel.clone());
    let outcome = wait(
        py,
        || cancel.cancel(),
        move |caller| {
            let observer = callback.map(|callback| observer(caller, callback));
            let coupled = Coupled::new(tensors).settings(move |mut fit| {
                for change in changes {
                    fit = change(fit);
                }
                let fit = fit.device(device).cancel(&stop);
                match observer {
                    Some(observer) => fit.observe(observer),
                    None => fit,
                }
            });
            let found = coupled.fit().map_err(raised)?;
            // With the labels that the parts have by now: those of all.
            let saved = |(fit, record)| Inner::new(fit).with_loss(record);
            let all: Vec<Inner> = found.parts().iter().zip(records).map(saved).collect();
            let history = serde_json::to_string(found.history());
            let history = history.map_err(|e| value_error(e.to_string()))?;
            Ok((all, history, found.warnings().to_vec()))
        },
    )?;
    match (outcome.result, outcome.raised) {
        (Ok((all, history, warnings)), raised) => {
            let all = all.into_iter().map(|inner| Saved { inner }).collect();
            Ok((Some(all), history, warnings, raised))
        }
        (Err(_), Some(raised)) => Ok((None, String::new(), Vec::new(), Some(raised))),
        (Err(error), None) => Err(error),
    }
}
