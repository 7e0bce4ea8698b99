//! Files: opened for reading, and written whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Cursor, Read, Seek, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::lock::is_linked;
use nneinfact_core::error::{Error, Result, bytes};

/// Opens a file for reading, with its length in bytes if it is an ordinary file.
pub(crate) fn open(path: &Path) -> Result<(File, Option<u64>)> {
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    let metadata = file.metadata().map_err(|e| Error::file(path, e))?;
    if metadata.is_dir() {
        return Err(Error::file(path, io::ErrorKind::IsADirectory.into()));
    }
    Ok((file, metadata.is_file().then_some(metadata.len())))
}

/// Reads a text of at most so many bytes; `what` it is, as in "a history".
///
/// # Errors
/// [`Error::File`] where it cannot be read; [`Error::Format`] where it is longer, or not UTF-8.
pub fn read_text(path: impl AsRef<Path>, what: &str, most: u64) -> Result<String> {
    let path = path.as_ref();
    let (file, _) = open(path)?;
    let mut text = Vec::new();
    // What is there counts, not what the system says of its length.
    file.take(most + 1).read_to_end(&mut text).map_err(|e| Error::file(path, e))?;
    if text.len() as u64 > most {
        return Err(Error::format(path, format!("{what} has at most {}", bytes(most))));
    }
    String::from_utf8(text)
        .map_err(|_| Error::format(path, format!("{what} is text in UTF-8, which this is not")))
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
    let target = resolved(path);
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
        if existing.permissions().readonly() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the file is read-only, and is not replaced",
            ));
        }
    }
    let folder = folder_of(&target);
    // Of a process that was killed while it wrote the same file.
    remove_unlocked(folder, |name| is_leftover(&target, name));
    let mut file = temporary(folder, &prefix_of(&target))?;
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
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// The file that a path leads to through symbolic links, whether it is there or not yet: the one that is
/// written.
pub fn resolved(path: &Path) -> PathBuf {
    const MOST_LINKS: usize = 40;
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        if let Ok(whole) = fs::canonicalize(&path) {
            return whole;
        }
        let Ok(link) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(link);
    }
    path
}

/// A new file that nobody takes for a leftover while this process lives.
fn temporary(folder: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(SUFFIX);
    // What an ordinary new file gets (the system takes the umask off); by default nobody else
    // could read it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    loop {
        let file = builder.tempfile_in(folder)?;
        // Whoever removes leftovers has each locked for a moment. Before this process has the lock, it
        // may have removed this one: then another is made. Not every system has locks.
        if file.as_file().lock().is_err() || is_linked(file.as_file()) {
            return Ok(file);
        }
    }
}

const PREFIX: &str = ".nneinfact-";
const SUFFIX: &str = ".tmp";

fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What the names of temporary files for a path begin with. Not with all of its name, which may
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
    let target = resolved(path);
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
    fn writers_do_not_remove_what_others_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    let text = writer.to_string().repeat(1000);
                    for _ in 0..100 {
                        replace(path, |to| to.write_all(text.as_bytes())).unwrap();
                        remove_leftovers(path);
                    }
                });
            }
        });
        let last = fs::read_to_string(&path).unwrap();
        assert!(last.len() == 1000 && last.bytes().all(|byte| byte == last.as_bytes()[0]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_what_nobody_writes_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let prefix = prefix_of(&path);
        let names = [format!("{prefix}dead.tmp"), format!("{prefix}busy.tmp"), "x.tmp".into()];
        let made: Vec<File> =
            names.iter().map(|n| File::create(folder.path().join(n)).unwrap()).collect();
        made[1].try_lock().unwrap();
        remove_leftovers(&path);
        let there = names.map(|name| folder.path().join(name).exists());
        assert_eq!(there, [false, true, true]);
    }
}
