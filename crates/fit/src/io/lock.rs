//! Locks that keep processes from working on the same thing at the same time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// A file that one process at a time has locked, with the number of that process in it. The lock goes
/// with the process, however that ends; the file is removed when the lock is dropped, and one that a
/// killed process left behind is taken over.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    file: File,
}

/// How often a lock is tried whose file was removed in between.
const TRIES: usize = 100;

impl FileLock {
    /// Takes the lock at `path`; `None` on a system of files without locks, where nothing can be
    /// promised.
    ///
    /// # Errors
    /// An error of the kind [`ResourceBusy`](io::ErrorKind::ResourceBusy), which says which process has
    /// it; and where the file cannot be made.
    pub fn take(path: &Path) -> io::Result<Option<FileLock>> {
        for _ in 0..TRIES {
            let mut options = OpenOptions::new();
            let options = options.create(true).read(true).write(true).truncate(false);
            let mut file = options.open(path)?;
            match file.try_lock() {
                Ok(()) if !is_linked(&file) => continue,
                Ok(()) => {
                    // Without the number, the lock is as good.
                    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                    return Ok(Some(FileLock { path: path.to_path_buf(), file }));
                }
                Err(TryLockError::WouldBlock) => return Err(busy(&mut file)),
                Err(TryLockError::Error(_)) => {
                    drop(file);
                    let _ = fs::remove_file(path);
                    return Ok(None);
                }
            }
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "many processes begin to work on it at once",
        ))
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // First the name, then the lock: whoever gets the lock sees that the file is gone.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

fn busy(file: &mut File) -> io::Error {
    let mut number = String::new();
    let read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut number));
    let whose = match read.ok().and_then(|_| number.parse::<u32>().ok()) {
        Some(number) => format!("process {number}"),
        // It has just begun, or the system does not let anybody read what is locked.
        None => "another process".into(),
    };
    io::Error::new(io::ErrorKind::ResourceBusy, format!("already being worked on by {whose}"))
}

/// Whether an open file still has a name. (Where the system does not tell, it does not let anybody
/// remove it either.)
pub(super) fn is_linked(file: &File) -> bool {
    #[cfg(unix)]
    return file.metadata().is_ok_and(|m| std::os::unix::fs::MetadataExt::nlink(&m) > 0);
    #[cfg(not(unix))]
    {
        let _ = file;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        // Left behind by a process that was killed.
        fs::write(&path, "99999999999999999999").unwrap();
        let lock = FileLock::take(&path).unwrap().unwrap();
        let refused = FileLock::take(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        let process = format!("already being worked on by process {}", std::process::id());
        assert_eq!(refused.to_string(), process);
        drop(lock);
        assert!(!path.exists());
        assert!(FileLock::take(&path).unwrap().is_some());
        assert!(FileLock::take(&folder.path().join("no/lock")).is_err());
    }
}
