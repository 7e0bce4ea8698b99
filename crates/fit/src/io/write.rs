//! Writing arrays, JSON and texts.

use std::io::{self, Write};
use std::path::Path;

use ndarray::{ArrayBase, Data, Dimension};
use serde::Serialize;

use super::file::replace;
use nneinfact_core::error::Result;

/// Writes an array to a `.npy` file, in C order as `<f8`.
///
/// # Errors
/// `Error::File` where the file cannot be written; what stood there before is then still there.
pub fn write_npy<S, D>(path: impl AsRef<Path>, array: &ArrayBase<S, D>) -> Result<()>
where
    S: Data,
    S::Elem: Copy + Into<f64>,
    D: Dimension,
{
    replace(path.as_ref(), |to| npy(to, array))
}

/// Writes a value as JSON, indented, with a line end.
///
/// # Errors
/// `Error::File` where the value cannot be written as JSON or the file cannot be written; what
/// stood there before is then still there.
pub fn write_json(path: impl AsRef<Path>, value: &impl Serialize) -> Result<()> {
    replace(path.as_ref(), |to| {
        serde_json::to_writer_pretty(&mut *to, value)?;
        to.write_all(b"\n")
    })
}

/// Writes a text as it is.
///
/// # Errors
/// `Error::File` where the file cannot be written; what stood there before is then still there.
pub fn write_text(path: impl AsRef<Path>, text: &str) -> Result<()> {
    replace(path.as_ref(), |to| to.write_all(text.as_bytes()))
}

/// An array as a `.npy` file holds it.
pub(super) fn npy<S, D>(to: &mut (impl Write + ?Sized), array: &ArrayBase<S, D>) -> io::Result<()>
where
    S: Data,
    S::Elem: Copy + Into<f64>,
    D: Dimension,
{
    npy_header(&mut *to, array.shape())?;
    for &x in array {
        let x: f64 = x.into();
        to.write_all(&x.to_le_bytes())?;
    }
    to.flush()
}

/// What a `.npy` file of doubles in C order begins with.
pub(super) fn npy_header(to: &mut (impl Write + ?Sized), shape: &[usize]) -> io::Result<()> {
    let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let mut header = format!(
        "{{'descr': '<f8', 'fortran_order': False, 'shape': ({}{comma}), }}",
        shape.join(", ")
    );
    // The data begin at a multiple of 64.
    let padding = 63 - (10 + header.len()) % 64;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let len = u16::try_from(header.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    to.write_all(b"\x93NUMPY\x01\x00")?;
    to.write_all(&len.to_le_bytes())?;
    to.write_all(header.as_bytes())
}
