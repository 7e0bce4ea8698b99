//! `.npy` files whose entries stay where they are.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use memmap2::Mmap;

use super::dtype::{Dtype, Kind};
use super::file::open;
use super::header::Header;
use super::npy::{check, fault_in};
use super::npy_part::FilePart;
use nneinfact_core::data::{Dense, Slabs, Slice};
use nneinfact_core::error::{Error, Result};

/// Bytes of a file that are worked on at a time, where nothing else is said: large enough that
/// fetching them is one long read, small enough that three of them are little memory.
pub const SLAB_BYTES: u64 = 64 << 20;

/// Opens a `.npy` file whose entries stay in it: fitted without ever being in memory as a whole.
///
/// A fit reads the file from beginning to end in every pass, in slabs of [`SLAB_BYTES`]; the next
/// slab is fetched while one is worked on, and pages behind are given back. The results are the same
/// bits as those of [`read_npy`](super::read_npy). All types that can be read can be mapped, in any
/// order of bytes and memory. In memory are, beside a few slabs, the factors and what their updates
/// need; two bits an entry where there is a mask, a split or missing values; and the tensors of a loss
/// that has some. Weights may be mapped too, and stay in their file if they have the same order of
/// memory as the data.
///
/// The file must stay as it is until the fit is over. A fit that notices a change (of its length or
/// of its time stamp, looked at before and after every pass) ends with an error. That cannot be
/// complete: what other programs write may be read before it is noticed, and where a file is made
/// *shorter* while it is read, the system ends this process (`SIGBUS`). Replacing a file by renaming
/// another over it is safe: the fit goes on with the old one.
///
/// ```
/// use nneinfact::{NNEinFact, Observations, io};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("y.npy");
/// let y = ndarray::Array2::from_shape_fn((40, 30), |(i, j)| ((i + 1) * (j + 2) % 90) as u16);
/// io::write_npy(&path, &y)?;
///
/// let observations = Observations::new(io::map_npy(&path)?).held_out(0.1, 0)?;
/// let settings = || NNEinFact::new("ir,jr->ij").map(|fit| fit.ranks([('r', 2)]).max_iter(20));
/// let streamed = settings()?.fit(&observations)?;
///
/// let in_memory = Observations::new(&y).held_out(0.1, 0)?;
/// assert_eq!(streamed.factors(), settings()?.fit(&in_memory)?.factors());
/// # Ok::<(), nneinfact::Error>(())
/// ```
///
/// # Errors
/// As [`read_npy`](super::read_npy); [`Error::Format`] also for what is not an ordinary file, and
/// [`Error::File`] where the system does not map it.
pub fn map_npy(path: impl AsRef<Path>) -> Result<Dense> {
    map(path.as_ref(), SLAB_BYTES, None, None)
}

/// [`map_npy`] with slabs of about so many bytes.
///
/// # Errors
/// As [`map_npy`].
pub fn map_npy_in(path: impl AsRef<Path>, slab_bytes: u64) -> Result<Dense> {
    map(path.as_ref(), slab_bytes, None, None)
}

/// [`map_npy`] of a mask, for `Observations::mask_from`: a file of
/// booleans.
///
/// # Errors
/// As [`map_npy`]; [`Error::Format`] where the array is not of numpy's type `bool`.
pub fn map_bool(path: impl AsRef<Path>) -> Result<Dense> {
    map(path.as_ref(), SLAB_BYTES, Some(Kind::Bool), None)
}

/// Maps a file, or of its slowest mode a range of indices.
pub(super) fn map(
    path: &Path,
    slab_bytes: u64,
    only: Option<Kind>,
    range: Option<Range<usize>>,
) -> Result<Dense> {
    let (file, len) = open(path)?;
    let Some(len) = len else {
        return Err(Error::format(
            path,
            "only ordinary files can be read a slab at a time, again and again; this is none",
        ));
    };
    let header = Header::read(&mut BufReader::new(&file)).map_err(|fault| fault_in(path, fault))?;
    let dtype = check(&header, only).map_err(|reason| Error::format(path, reason))?;
    header.check_len(dtype, len).map_err(|reason| Error::format(path, reason))?;
    let part = FilePart::of(&header, range).map_err(|reason| Error::format(path, reason))?;
    // SAFETY: the mapping is read only. Writes by other programs change what is read, and shortening
    // the file ends this process; nothing here relies on entries keeping their values.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::file(path, e))?;
    // All of it is mapped, which takes no memory, and the part alone is read.
    let at = header.len as usize + part.first * dtype.size() as usize;
    if (map.len() as u64) < len {
        return Err(Error::format(path, "the file became shorter while it was opened"));
    }
    let modified = file.metadata().and_then(|m| m.modified()).ok();
    let source = MappedFile {
        file,
        path: path.to_path_buf(),
        map,
        at,
        entries: part.entries,
        dtype,
        len,
        modified,
        slab_bytes: slab_bytes.max(1),
    };
    Dense::from_slabs(&part.shape, header.order, Arc::new(source))
}

/// A mapped `.npy` file.
#[derive(Debug)]
struct MappedFile {
    file: File,
    path: PathBuf,
    map: Mmap,
    /// Where the entries begin, in bytes.
    at: usize,
    entries: usize,
    dtype: Dtype,
    len: u64,
    modified: Option<SystemTime>,
    slab_bytes: u64,
}

/// What pages are fetched and given back by, in bytes. Linux maps up to so many around a page that is
/// touched, if it has them: whoever gives back less leaves some behind.
const GRAIN: usize = 64 << 10;
/// Pages are at least so large.
const PAGE: usize = 4096;

impl MappedFile {
    fn entries(&self) -> &[u8] {
        &self.map[self.at..self.at + self.entries * self.dtype.size() as usize]
    }

    /// Where entries lie in the file, in whole grains.
    fn grains(&self, entries: &Range<usize>) -> Range<usize> {
        let size = self.dtype.size() as usize;
        let start = (self.at + entries.start * size) / GRAIN * GRAIN;
        let end = (self.at + entries.end * size).next_multiple_of(GRAIN);
        start..end.min(self.map.len())
    }
}

impl Slabs for MappedFile {
    fn len(&self) -> usize {
        self.entries
    }

    fn cell_bytes(&self) -> usize {
        self.dtype.size() as usize
    }

    fn type_name(&self) -> &'static str {
        self.dtype.name()
    }

    fn slice(&self) -> Option<Slice<'_>> {
        self.dtype.slice(self.entries())
    }

    fn read(&self, offset: usize, stride: usize, out: &mut [f64]) {
        self.dtype.load(self.entries(), offset, stride, out);
    }

    fn fetch(&self, entries: Range<usize>) {
        let bytes = self.grains(&entries);
        // All at once, so that the system reads in long ranges; it is only advice.
        #[cfg(unix)]
        let _ = self.map.advise_range(memmap2::Advice::WillNeed, bytes.start, bytes.len());
        // Touching a page waits until it is there.
        for at in bytes.step_by(PAGE) {
            std::hint::black_box(self.map[at]);
        }
    }

    fn release(&self, entries: Range<usize>) {
        let bytes = self.grains(&entries);
        #[cfg(unix)]
        // SAFETY: the pages of a read-only mapping of a file come back from the file.
        let _ = unsafe {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            self.map.unchecked_advise_range(advice, bytes.start, bytes.len())
        };
        #[cfg(not(unix))]
        let _ = bytes;
    }

    fn slab_bytes(&self) -> u64 {
        self.slab_bytes
    }

    fn check(&self) -> Result<()> {
        let found = self.file.metadata().map_err(|e| Error::file(&self.path, e))?;
        let changed = if found.len() != self.len {
            format!("it had {} bytes and has {} now", self.len, found.len())
        } else if found.modified().ok() != self.modified {
            "somebody wrote to it".into()
        } else {
            return Ok(());
        };
        Err(Error::format(
            &self.path,
            format!(
                "the file was changed while it was being fitted ({changed}): data that are streamed must stay as they are until the fit is over"
            ),
        ))
    }
}
