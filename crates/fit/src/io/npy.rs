//! Reading `.npy` files.

use std::io::{self, BufReader, Read};
use std::path::Path;

use ndarray::{ArrayD, IxDyn};

use super::dtype::{Dtype, Kind};
use super::file::open;
use super::header::{Fault, Header};
use nneinfact_core::data::{Dense, DenseBuilder, Storage};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::memory::refused;

/// Reads a `.npy` file: an array of booleans, integers or floats (half, single, double), in any
/// order of bytes and memory.
///
/// # Errors
/// [`Error::File`] where the file cannot be read. [`Error::Format`] where it is not an `.npy`
/// file, holds something else than numbers, has no modes or no entries, or is shorter or longer than
/// its header says.
pub fn read_npy(path: impl AsRef<Path>) -> Result<Dense> {
    let path = path.as_ref();
    let (file, len) = open(path)?;
    read_array(&mut BufReader::with_capacity(1 << 16, file), Extent::of_file(len), path, None)
}

/// The shape that a `.npy` file announces.
pub(super) fn shape(path: &Path) -> Result<Vec<usize>> {
    let (file, _) = open(path)?;
    let header = Header::read(&mut BufReader::new(file)).map_err(|fault| fault_in(path, fault))?;
    Ok(header.shape)
}

/// [`read_npy`] from memory or any other source; `name` stands for the file in messages.
///
/// # Errors
/// As [`read_npy`].
pub fn read_npy_from(reader: impl Read, name: impl AsRef<Path>) -> Result<Dense> {
    read_array(&mut BufReader::new(reader), Extent::UNKNOWN, name.as_ref(), None)
}

/// Reads a mask: a `.npy` file of booleans.
///
/// # Errors
/// As [`read_npy`]; [`Error::Format`] where the array is not of numpy's type `bool`, as it is not
/// safe to guess what other numbers mean.
pub fn read_bool(path: impl AsRef<Path>) -> Result<ArrayD<bool>> {
    let path = path.as_ref();
    let (file, len) = open(path)?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    booleans(read_array(&mut reader, Extent::of_file(len), path, Some(Kind::Bool))?, path)
}

/// What was read of numpy's type `bool`.
pub(super) fn booleans(dense: Dense, path: &Path) -> Result<ArrayD<bool>> {
    let shape = IxDyn(dense.shape());
    let Storage::U8(entries) = dense.storage() else {
        return Err(Error::format(path, "the array is not of booleans"));
    };
    let entries: Vec<bool> = entries.iter().map(|&x| x != 0).collect();
    let array = if dense.is_c_order() {
        ArrayD::from_shape_vec(shape, entries)
    } else {
        ArrayD::from_shape_vec(ndarray::ShapeBuilder::f(shape), entries)
    };
    array.map_err(|e| Error::format(path, e.to_string()))
}

/// How much there is to read, as far as that is known before reading.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    /// The length of header and data, in bytes.
    pub len: Option<u64>,
    /// How many entries there can be at most: room is made for as many, if the header asks for them.
    pub entries: u64,
}

impl Extent {
    /// Room for some entries to start with; more is made as data arrive.
    const UNKNOWN: Extent = Extent { len: None, entries: 1 << 16 };

    fn of_file(len: Option<u64>) -> Extent {
        len.map_or(Extent::UNKNOWN, |bytes| Extent { len, entries: bytes })
    }
}

/// Reads one array with its header, to the end of `from`. `only` is the one type that is accepted,
/// if not all are.
pub(super) fn read_array(
    from: &mut impl Read,
    extent: Extent,
    path: &Path,
    only: Option<Kind>,
) -> Result<Dense> {
    let header = Header::read(from).map_err(|fault| fault_in(path, fault))?;
    let dtype = check(&header, only).map_err(|reason| Error::format(path, reason))?;
    read_entries(from, extent, path, (&header, dtype), &header.shape)
}

/// Reads one number with its header, of shape `()` or with one entry, to the end of `from`.
pub(super) fn read_number(from: &mut impl Read, extent: Extent, path: &Path) -> Result<f64> {
    let header = Header::read(from).map_err(|fault| fault_in(path, fault))?;
    let dtype = match header.dtype.clone() {
        Ok(dtype) if dtype.kind != Kind::Bool && header.entries == 1 => dtype,
        Ok(_) => {
            return Err(Error::format(
                path,
                format!("one number is expected, not shape {:?} of {}", header.shape, header.descr),
            ));
        }
        Err(what) => return Err(Error::format(path, format!("the array holds {what}"))),
    };
    let one = read_entries(from, extent, path, (&header, dtype), &[1])?;
    Ok(one.to_array().iter().copied().next().unwrap_or(f64::NAN))
}

/// Reads the entries after a header, to the end of `from`.
fn read_entries(
    from: &mut impl Read,
    extent: Extent,
    path: &Path,
    (header, dtype): (&Header, Dtype),
    shape: &[usize],
) -> Result<Dense> {
    let announced = || header.announced(dtype);
    if let Some(len) = extent.len {
        header.check_len(dtype, len).map_err(|reason| Error::format(path, reason))?;
    }
    let mut builder = DenseBuilder::new((header.entries as u64).min(extent.entries) as usize);
    dtype.read(from, header.entries, &mut builder).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::format(
            path,
            format!("the header announces {}, but the file ends before that", announced()),
        ),
        io::ErrorKind::OutOfMemory => {
            let needed = header.entries as u64 * dtype.size();
            refused(&format!("{}: {}", path.display(), announced()), needed)
        }
        _ => read_fault(path, e),
    })?;
    // Also makes a decompressor check its sum.
    let mut more = [0];
    loop {
        match from.read(&mut more) {
            Ok(0) => break,
            Ok(_) => {
                return Err(Error::format(
                    path,
                    format!("the header announces {}, but more data follow", announced()),
                ));
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(read_fault(path, e)),
        }
    }
    builder.finish(shape, header.order)
}

/// Whether the array can be read; if not, why.
pub(super) fn check(header: &Header, only: Option<Kind>) -> Result<Dtype, String> {
    let dtype = header.dtype.clone().map_err(|what| format!("the array holds {what}"))?;
    if only == Some(Kind::Bool) && dtype.kind != Kind::Bool {
        return Err(format!(
            "a mask must be an array of numpy's type bool, where True is observed; this one is of type {}",
            header.descr
        ));
    }
    if header.shape.is_empty() {
        return Err(
            "the array is a single number (its shape is ()); at least one mode is needed".into()
        );
    }
    if header.entries == 0 {
        return Err(format!("the array has no entries: its shape is {:?}", header.shape));
    }
    Ok(dtype)
}

pub(super) fn fault_in(path: &Path, fault: Fault) -> Error {
    match fault {
        Fault::Io(e) => read_fault(path, e),
        Fault::Text(reason) => Error::format(path, reason),
    }
}

/// Data that a decompressor rejects are a fault of the file's content, not of reading it.
fn read_fault(path: &Path, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            Error::format(path, format!("the file is damaged: {e}"))
        }
        _ => Error::file(path, e),
    }
}
