//! Files written piece by piece, for results that are never in memory as a whole.

use std::io::{self, Write};
use std::path::Path;

use super::file::replace;
use super::write::npy_header;
use nneinfact_core::error::{Error, Result};

/// Writes a file piece by piece; what stood there before is replaced at the end, where all went well.
///
/// # Errors
/// [`Error::File`] where it cannot be written, and what `write` returns.
pub fn write_stream(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let mut failed = None;
    let written = replace(path, |to| {
        let mut to = io::BufWriter::with_capacity(1 << 16, to);
        match write(&mut to) {
            Ok(()) => to.flush(),
            Err(Error::File { source, .. }) => Err(source),
            Err(error) => {
                failed = Some(error);
                Err(io::ErrorKind::Other.into())
            }
        }
    });
    match failed {
        Some(error) => Err(error),
        None => written,
    }
}

/// Begins a `.npy` of doubles in C order: its entries, as little-endian bytes, come after.
///
/// # Errors
/// As writing to `to`.
pub fn begin_npy(to: &mut dyn Write, shape: &[usize]) -> io::Result<()> {
    npy_header(to, shape)
}
