//! Writing files: whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Cursor, Seek, Write};
use std::path::{Path, PathBuf};

use ndarray::{ArrayBase, Data, Dimension};
use serde::Serialize;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::{Error, Result};

/// Writes arrays to a compressed `.npz` file, in C order as `<f8`, as `numpy.savez_compressed`
/// does. The same arrays always give the same bytes.
///
/// # Errors
/// [`Error::File`] where the file cannot be written; what stood there before is then still there.
/// [`Error::Format`] where a name is empty or there twice.
pub fn write_npz<N, S, D>(path: impl AsRef<Path>, arrays: &[(N, ArrayBase<S, D>)]) -> Result<()>
where
    N: AsRef<str>,
    S: Data,
    S::Elem: Copy + Into<f64>,
    D: Dimension,
{
    write_npz_with(path, arrays, &[])
}

/// [`write_npz`] with texts beside the arrays, each under its whole name (`fit.json`): numpy lists
/// them too, and gives their bytes. [`read_npz_text`](super::read_npz_text) reads them.
///
/// # Errors
/// As [`write_npz`].
pub fn write_npz_with<N, S, D>(
    path: impl AsRef<Path>,
    arrays: &[(N, ArrayBase<S, D>)],
    texts: &[(&str, &str)],
) -> Result<()>
where
    N: AsRef<str>,
    S: Data,
    S::Elem: Copy + Into<f64>,
    D: Dimension,
{
    let path = path.as_ref();
    for (i, (name, _)) in arrays.iter().enumerate() {
        let name = name.as_ref();
        if name.is_empty() || arrays[..i].iter().any(|(other, _)| other.as_ref() == name) {
            return Err(Error::format(
                path,
                format!("an array cannot be written under the name \"{name}\": empty or twice"),
            ));
        }
    }
    replace(path, |to| {
        let mut zip = ZipWriter::new(to);
        for (name, array) in arrays {
            // Archives need another form of header for entries of 4 GiB and more.
            let large = array.len() as u64 >= (u64::from(u32::MAX) - (1 << 20)) / 8;
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .large_file(large);
            zip.start_file(format!("{}.npy", name.as_ref()), options)?;
            npy(&mut BufWriter::new(&mut zip), array)?;
        }
        for (name, text) in texts {
            let options =
                SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
            zip.start_file(*name, options)?;
            zip.write_all(text.as_bytes())?;
        }
        zip.finish()?;
        Ok(())
    })
}

/// Writes an array to a `.npy` file, in C order as `<f8`.
///
/// # Errors
/// [`Error::File`] where the file cannot be written; what stood there before is then still there.
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
/// [`Error::File`] where the value cannot be written as JSON or the file cannot be written; what
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
/// [`Error::File`] where the file cannot be written; what stood there before is then still there.
pub fn write_text(path: impl AsRef<Path>, text: &str) -> Result<()> {
    replace(path.as_ref(), |to| to.write_all(text.as_bytes()))
}

fn npy<S, D>(to: &mut (impl Write + ?Sized), array: &ArrayBase<S, D>) -> io::Result<()>
where
    S: Data,
    S::Elem: Copy + Into<f64>,
    D: Dimension,
{
    let shape: Vec<String> = array.shape().iter().map(ToString::to_string).collect();
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
    to.write_all(header.as_bytes())?;
    for &x in array {
        let x: f64 = x.into();
        to.write_all(&x.to_le_bytes())?;
    }
    to.flush()
}

/// What files are written to.
trait Sink: Write + Seek {}
impl<T: Write + Seek> Sink for T {}

/// Writes a file under a temporary name in the same folder and renames it.
fn replace(path: &Path, write: impl FnOnce(&mut dyn Sink) -> io::Result<()>) -> Result<()> {
    replace_inner(path, write).map_err(|e| Error::file(path, e))
}

fn replace_inner(
    path: &Path,
    write: impl FnOnce(&mut dyn Sink) -> io::Result<()>,
) -> io::Result<()> {
    // Through symbolic links: the file that they lead to is the one to replace.
    let target: PathBuf = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let existing = fs::metadata(&target).ok();
    if let Some(existing) = &existing {
        if existing.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !existing.is_file() {
            // A terminal, a pipe: there is nothing to replace.
            let mut all = Cursor::new(Vec::new());
            write(&mut all)?;
            let mut device = OpenOptions::new().write(true).open(&target)?;
            return device.write_all(all.get_ref());
        }
    }
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".nneinfact-").suffix(".tmp");
    // What an ordinary new file gets (the system takes the umask off); by default nobody else
    // could read it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    let mut buffered = BufWriter::new(file.as_file_mut());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    if let Some(existing) = existing {
        file.as_file().set_permissions(existing.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(&target).map_err(|e| e.error)?;
    Ok(())
}
