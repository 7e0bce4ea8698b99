//! What a fit runs on.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::errors::raised;
use crate::fork;
use crate::wait::released;

/// What a fit runs on: opened once, used by many fits.
#[pyclass(frozen, module = "nneinfact._nneinfact")]
pub struct Device {
    pub inner: nneinfact::Device,
    name: String,
    threads: Option<usize>,
    memory: Option<u64>,
}

#[pymethods]
impl Device {
    #[new]
    #[pyo3(signature = (name, threads, memory))]
    fn new(
        py: Python<'_>,
        name: String,
        threads: Option<usize>,
        memory: Option<u64>,
    ) -> PyResult<Device> {
        let wanted = name.trim().to_ascii_lowercase();
        if fork::is_child() && !matches!(wanted.as_str(), "auto" | "cpu") {
            return Err(PyRuntimeError::new_err(
                "a GPU cannot be used in a process that was forked from one that had used nneinfact: \
                 start processes with multiprocessing's method \"spawn\" or \"forkserver\", or use the cpu",
            ));
        }
        let asked = name.clone();
        let child = fork::is_child();
        let inner = released(py, move || {
            // In a forked process the CPU is all there is.
            let device = match child {
                true => nneinfact::Device::cpu(),
                false => nneinfact::Device::named(&asked)?,
            };
            let device = match memory {
                Some(bytes) => device.within_memory(bytes),
                None => device,
            };
            match threads {
                Some(threads) => device.threads(threads),
                None => Ok(device),
            }
        })?;
        Ok(Device { inner, name, threads, memory })
    }

    fn __str__(&self) -> String {
        self.inner.to_string()
    }

    /// The arguments that make it again, in another process say.
    fn arguments(&self) -> (String, Option<usize>, Option<u64>) {
        (self.name.clone(), self.threads, self.memory)
    }
}

/// Name, description, whether `auto` takes it, and why, of every device.
#[pyfunction]
pub fn devices(py: Python<'_>) -> PyResult<Vec<(String, String, bool, String)>> {
    if fork::is_child() {
        return Err(raised(nneinfact::Error::Device(
            "devices cannot be listed in a process that was forked from one that had used nneinfact"
                .into(),
        )));
    }
    released(py, || {
        let all = nneinfact::Device::list();
        Ok(all.into_iter().map(|d| (d.name, d.description, d.auto, d.reason)).collect())
    })
}
