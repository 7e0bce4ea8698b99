//! Files: numpy's `.npy` and `.npz`, FROSTT's `.tns`, JSON reports.
//!
//! Readers narrow while they read: a tensor is never held in the type of the file, only in the
//! smallest exact one (see [`Dense`]). They trust nothing in a file: memory grows with the data
//! that arrive, not with what a header announces. Every reader has a form that takes any
//! [`std::io::Read`] and a name for messages, and reads no file.
//!
//! Data larger than memory are not read but [mapped](map_npy): a fit takes them from the `.npy` file
//! slab by slab, in every pass.
//!
//! Writers write to a temporary name in the same folder and rename at the end, so that nothing
//! half-written is ever left under the name asked for.

mod archive;
mod dtype;
mod file;
mod header;
mod lock;
mod map;
mod npy;
mod npy_part;
mod npz;
mod npz_part;
mod npz_runs;
mod old_texts;
mod stream;
mod strings;
mod tns;
mod tns_shared;
mod write;

use std::path::Path;

use ndarray::ArrayD;

use nneinfact_core::data::Dense;
use nneinfact_core::error::{Error, Result};

pub(crate) use archive::Archive;
pub use archive::{NpzMember, write_members, write_members_to, write_npz, write_npz_with};
pub use file::{is_leftover, read_text, remove_leftovers, remove_leftovers_in, resolved};
pub use lock::FileLock;
pub use map::{SLAB_BYTES, map_bool, map_npy, map_npy_in};
pub use npy::{read_bool, read_npy, read_npy_from};
pub use npy_part::{
    NpyExtent, map_bool_part, map_npy_part, npy_extent, read_bool_part, read_npy_part,
};
pub use npz::{
    ArrayInfo, npz_names, read_npz, read_npz_arrays, read_npz_arrays_from, read_npz_from,
    read_npz_text, read_npz_text_from,
};
pub(crate) use npz::{listed, read_npz_numbers};
pub use npz_part::{npz_extent, read_npz_part};
pub use npz_runs::{NpzRun, read_npz_runs};
pub use stream::{begin_npy, write_stream};
pub use strings::{read_npz_strings, read_npz_strings_from};
pub use tns::{TnsOptions, read_tns, read_tns_from, read_tns_from_with, read_tns_with};
pub use tns_shared::{Unpack, read_tns_shared};
pub use write::{write_json, write_npy, write_npy_integers, write_text};

/// What a file holds, by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// One array (`.npy`).
    Npy,
    /// Named arrays in a zip archive (`.npz`).
    Npz,
    /// Coordinates as text (`.tns`).
    Tns,
}

impl FileKind {
    /// The kind of file that the extension says, in upper or lower case.
    ///
    /// ```
    /// use nneinfact::io::FileKind;
    ///
    /// assert_eq!(FileKind::of("trips.NPZ")?, FileKind::Npz);
    /// assert!(FileKind::of("trips.csv").is_err());
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Format`] for any other extension, or none.
    pub fn of(path: impl AsRef<Path>) -> Result<FileKind> {
        let path = path.as_ref();
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        match extension.as_deref() {
            Some("npy") => Ok(FileKind::Npy),
            Some("npz") => Ok(FileKind::Npz),
            Some("tns") => Ok(FileKind::Tns),
            _ => Err(Error::format(
                path,
                "the extension does not say what the file holds: .npy, .npz and .tns are read",
            )),
        }
    }
}

/// Opens a file for reading; a folder is an error.
pub(crate) fn open(path: &Path) -> Result<std::fs::File> {
    Ok(file::open(path)?.0)
}

/// Reads an array of any numeric type from a `.npy` or `.npz` file; `key` is the name of the array
/// in an `.npz`, as in [`read_npz`].
///
/// # Errors
/// As [`read_npy`] and [`read_npz`]; [`Error::Format`] for any other extension, and for a key with
/// a `.npy`, which holds one array without a name.
pub fn read_dense(path: impl AsRef<Path>, key: Option<&str>) -> Result<Dense> {
    let path = path.as_ref();
    match (FileKind::of(path)?, key) {
        (FileKind::Npy, None) => read_npy(path),
        (FileKind::Npy, Some(key)) => Err(Error::format(
            path,
            format!("a .npy file holds one array without a name, so there is no array \"{key}\""),
        )),
        (FileKind::Npz, key) => read_npz(path, key),
        (FileKind::Tns, _) => {
            Err(Error::format(path, "a .tns file holds coordinates; a .npy or .npz is needed here"))
        }
    }
}

/// The shape of the array that [`read_dense`] would read, from its header alone; `None` for a `.tns`.
///
/// # Errors
/// As [`read_dense`].
pub fn shape_of(path: impl AsRef<Path>, key: Option<&str>) -> Result<Option<Vec<usize>>> {
    let path = path.as_ref();
    match FileKind::of(path)? {
        FileKind::Tns => Ok(None),
        FileKind::Npy => npy::shape(path).map(Some),
        FileKind::Npz => npz::shape(path, key).map(Some),
    }
}

/// [`read_dense`] as an array in double precision, in C order.
///
/// # Errors
/// As [`read_dense`].
pub fn read_array_f64(path: impl AsRef<Path>, key: Option<&str>) -> Result<ArrayD<f64>> {
    Ok(read_dense(path, key)?.to_array())
}
