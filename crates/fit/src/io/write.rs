//! Writing files: whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Cursor, Seek, Write};
use std::path::{Path, PathBuf};

use ndarray::{ArrayBase, Data, Dimension};
use serde::Serialize;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::aside::Recorder;
use nneinfact_core::error::{Error, Result};

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

/// [`write_npz`] with texts beside the arrays, each under its own name (`fit.json`), which
/// [`read_npz_text`](super::read_npz_text) reads. Other programs see the arrays and nothing else: the
/// texts stand in front of the archive's directory and are not listed there. In an archive that may be
/// larger than 4 GiB they are ordinary entries, which numpy lists.
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
    let numbers: u64 = arrays.iter().map(|(_, array)| array.len() as u64).sum();
    let aside = !texts.is_empty() && numbers < (u64::from(u32::MAX) >> 1) / 8;
    replace(path, |to| {
        let mut zip = ZipWriter::new(Recorder::new(to));
        for (name, array) in arrays {
            // Archives need another form of header for entries of 4 GiB and more.
            let large = array.len() as u64 >= (u64::from(u32::MAX) - (1 << 20)) / 8;
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .large_file(large);
            zip.start_file(format!("{}.npy", name.as_ref()), options)?;
            npy(&mut BufWriter::new(&mut zip), array)?;
        }
        if !aside {
            write_texts(&mut zip, texts)?;
            return zip.finish().map(|_| ()).map_err(io::Error::from);
        }
        let mut own = ZipWriter::new(Cursor::new(Vec::new()));
        write_texts(&mut own, texts)?;
        let own = own.finish()?.into_inner();
        zip.finish()?.insert(&own)
    })
}

fn write_texts(zip: &mut ZipWriter<impl Write + Seek>, texts: &[(&str, &str)]) -> io::Result<()> {
    for (name, text) in texts {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        zip.start_file(*name, options)?;
        zip.write_all(text.as_bytes())?;
    }
    Ok(())
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

pub(super) fn npy<S, D>(to: &mut (impl Write + ?Sized), array: &ArrayBase<S, D>) -> io::Result<()>
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
pub(super) trait Sink: Write + Seek {}
impl<T: Write + Seek> Sink for T {}

/// Writes a file under a temporary name in the same folder and renames it.
pub(super) fn replace(
    path: &Path,
    write: impl FnOnce(&mut dyn Sink) -> io::Result<()>,
) -> Result<()> {
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
    let folder = folder_of(&target);
    let prefix = prefix_of(&target);
    // Of a process that was killed while it wrote the same file.
    remove_unlocked(folder, |name| is_leftover(&target, name));
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX);
    // What an ordinary new file gets (the system takes the umask off); by default nobody else
    // could read it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    // While this process lives, nobody takes the file for a leftover. Not every system has locks.
    let _ = file.as_file().try_lock();
    let mut buffered = BufWriter::new(file.as_file_mut());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    if let Some(existing) = existing {
        file.as_file().set_permissions(existing.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(&target).map_err(|e| e.error)?;
    // The new name has to be on the disk too. Not every file system can be asked for that, and the
    // file is whole either way.
    #[cfg(unix)]
    let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

const PREFIX: &str = ".nneinfact-";
const SUFFIX: &str = ".tmp";

fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What the names of temporary files for a target begin with. Not with all of its name, which may
/// be as long as names can be.
fn prefix_of(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let sum = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{PREFIX}{sum:016x}-")
}

/// Whether a name is that of a temporary file of this target.
pub fn is_leftover(path: &Path, name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(&prefix_of(path)) && name.ends_with(SUFFIX)
}

/// Removes temporary files of this target that a process left behind when it was killed.
pub fn remove_leftovers(path: &Path) {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    remove_unlocked(folder_of(&target), |name| is_leftover(&target, name));
}

/// Removes temporary files of any target in a folder that a process left behind.
pub fn remove_leftovers_in(folder: &Path) {
    remove_unlocked(folder, |name| {
        let name = name.to_string_lossy();
        let rest = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        let sum = rest.is_some_and(|(sum, _)| {
            sum.len() == 16 && sum.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        sum && name.ends_with(SUFFIX)
    });
}

fn remove_unlocked(folder: &Path, left: impl Fn(&OsStr) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        // Whoever writes it has it locked. What cannot be removed does no harm.
        if left(&entry.file_name())
            && let Ok(file) = OpenOptions::new().write(true).open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_writes_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let prefix = prefix_of(&path);
        let names = [format!("{prefix}dead.tmp"), format!("{prefix}busy.tmp"), "x.tmp".into()];
        let made: Vec<fs::File> =
            names.iter().map(|n| fs::File::create(folder.path().join(n)).unwrap()).collect();
        made[1].try_lock().unwrap();
        remove_leftovers(&path);
        let there = names.map(|name| folder.path().join(name).exists());
        assert_eq!(there, [false, true, true]);
    }
}
