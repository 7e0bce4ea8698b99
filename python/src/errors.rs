//! The library's errors as Python's.

use std::io::ErrorKind;

use nneinfact::Error;
use pyo3::PyErr;
use pyo3::exceptions::{
    PyFileNotFoundError, PyIsADirectoryError, PyMemoryError, PyOSError, PyPermissionError,
    PyRuntimeError, PyValueError,
};

/// What the library calls its settings and the program's options, and what they are here.
const CALLED: [(&str, &str); 9] = [
    ("(nan_missing, --nan-missing)", "(missing=\"nan\")"),
    ("(unlisted_missing, --unlisted-missing)", "(implicit=\"missing\")"),
    ("(split_as, --heldout-as)", "(heldout_as=\"cells\")"),
    ("(split_as, --heldout-as cells)", "(heldout_as=\"cells\")"),
    ("(split_as, --heldout-as strata)", "(heldout_as=\"strata\")"),
    ("(zeros_per_nonzero, --zeros-per-nonzero)", "(zeros_per_nonzero)"),
    (
        "(held_out_at, validation_at, missing_at; on the command line --heldout-coordinates, \
         --validation-coordinates, --missing)",
        "(heldout, validation, missing)",
    ),
    ("(io::read_npy, --no-stream)", "(without stream=True)"),
    ("--device cpu", "device=\"cpu\""),
];

/// A text of the library with the names that Python has.
fn in_python(text: &str) -> String {
    CALLED.iter().fold(text.to_string(), |text, (there, here)| text.replace(there, here))
}

/// The exception of an error: the text is the library's own, carets and all.
pub fn raised(error: Error) -> PyErr {
    let text = in_python(&error.to_string());
    match error {
        Error::Memory { .. } | Error::DeviceMemory { .. } => PyMemoryError::new_err(text),
        // As `open` raises it: the number says which of OSError's kinds it is.
        Error::File { path, source } => match source.raw_os_error() {
            Some(number) => {
                let said = source.to_string();
                let said = said.split(" (os error").next().unwrap_or_default().to_string();
                PyOSError::new_err((number, said, path.display().to_string()))
            }
            // Of a file that was to be written anew the system's number is lost.
            None => match source.kind() {
                ErrorKind::NotFound => PyFileNotFoundError::new_err(text),
                ErrorKind::PermissionDenied => PyPermissionError::new_err(text),
                ErrorKind::IsADirectory => PyIsADirectoryError::new_err(text),
                _ => PyOSError::new_err(text),
            },
        },
        error if error.is_input() => PyValueError::new_err(text),
        _ => PyRuntimeError::new_err(text),
    }
}

/// A ValueError.
pub fn value_error(text: impl Into<String>) -> PyErr {
    PyValueError::new_err(text.into())
}
