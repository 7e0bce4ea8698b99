//! The command line, and facts about this build.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the command line with these arguments, the program's name first; gives the exit status.
#[pyfunction]
pub fn program(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| nneinfact::cli::run(arguments))
}

/// The version.
#[pyfunction]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// The bytes of memory that are free, where the system tells.
#[pyfunction]
pub fn available_memory() -> Option<u64> {
    nneinfact::engine::available_memory()
}
