//! A part of a `.npy` file: some of the indices of its slowest mode, which lie in one piece.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use ndarray::ArrayD;

use super::dtype::Kind;
use super::file::open;
use super::header::Header;
use super::map::{SLAB_BYTES, map};
use super::npy::{booleans, check, fault_in};
use nneinfact_core::data::{Dense, DenseBuilder, Order};
use nneinfact_core::error::{Error, Result};

/// What a `.npy` file holds, by its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpyExtent {
    /// The length of each mode.
    pub shape: Vec<usize>,
    /// The mode whose index varies slowest, along which the file can be read in parts: the first in C
    /// order, the last in Fortran order.
    pub slowest: usize,
}

/// The shape of the array in a `.npy` file, and along which mode it can be read in parts.
///
/// # Errors
/// As [`read_npy`](super::read_npy), as far as the header tells.
pub fn npy_extent(path: impl AsRef<Path>) -> Result<NpyExtent> {
    let path = path.as_ref();
    let (file, _) = open(path)?;
    let header = Header::read(&mut BufReader::new(file)).map_err(|fault| fault_in(path, fault))?;
    check(&header, None).map_err(|reason| Error::format(path, reason))?;
    let slowest = slowest(&header);
    Ok(NpyExtent { shape: header.shape, slowest })
}

/// [`map_npy`](super::map_npy) of a range of indices of the [slowest mode](NpyExtent::slowest): the other
/// entries are never read. The tensor has as many indices along this mode as the range.
///
/// ```
/// use nneinfact::io;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("y.npy");
/// let y = ndarray::Array2::from_shape_fn((40, 30), |(i, j)| ((i + 1) * (j + 2) % 90) as u16);
/// io::write_npy(&path, &y)?;
/// let part = io::map_npy_part(&path, 10..25)?;
/// assert_eq!(part.shape(), [15, 30]);
/// assert_eq!(part.get(&[0, 7]), Some(f64::from(y[[10, 7]])));
/// # Ok::<(), nneinfact::Error>(())
/// ```
///
/// # Errors
/// As [`map_npy`](super::map_npy); [`Error::Format`] also where the mode does not have these indices.
pub fn map_npy_part(path: impl AsRef<Path>, range: Range<usize>) -> Result<Dense> {
    map(path.as_ref(), SLAB_BYTES, None, Some(range))
}

/// [`map_npy_part`] of a mask: a file of booleans.
///
/// # Errors
/// As [`map_npy_part`], and [`map_bool`](super::map_bool).
pub fn map_bool_part(path: impl AsRef<Path>, range: Range<usize>) -> Result<Dense> {
    map(path.as_ref(), SLAB_BYTES, Some(Kind::Bool), Some(range))
}

/// [`map_npy_part`], read into memory in the smallest exact type.
///
/// # Errors
/// As [`map_npy_part`].
pub fn read_npy_part(path: impl AsRef<Path>, range: Range<usize>) -> Result<Dense> {
    read(path.as_ref(), range, None)
}

/// [`read_npy_part`] of a mask: a file of booleans.
///
/// # Errors
/// As [`read_npy_part`], and [`read_bool`](super::read_bool).
pub fn read_bool_part(path: impl AsRef<Path>, range: Range<usize>) -> Result<ArrayD<bool>> {
    let path = path.as_ref();
    booleans(read(path, range, Some(Kind::Bool))?, path)
}

fn read(path: &Path, range: Range<usize>, only: Option<Kind>) -> Result<Dense> {
    let (file, len) = open(path)?;
    let mut reader = BufReader::with_capacity(1 << 16, &file);
    let header = Header::read(&mut reader).map_err(|fault| fault_in(path, fault))?;
    let dtype = check(&header, only).map_err(|reason| Error::format(path, reason))?;
    let Some(len) = len else {
        return Err(Error::format(path, "only ordinary files can be read in parts; this is none"));
    };
    header.check_len(dtype, len).map_err(|reason| Error::format(path, reason))?;
    let part = FilePart::of(&header, Some(range)).map_err(|reason| Error::format(path, reason))?;
    let mut builder = DenseBuilder::new(part.entries);
    let mut entries = |file: &File| -> io::Result<()> {
        let mut file = file;
        file.seek(SeekFrom::Start(header.len + part.first as u64 * dtype.size()))?;
        let entries = file.take(part.entries as u64 * dtype.size());
        dtype.read(&mut BufReader::with_capacity(1 << 16, entries), part.entries, &mut builder)
    };
    entries(&file).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::format(path, "the file became shorter while it was read")
        }
        io::ErrorKind::OutOfMemory => {
            let what = format!("{}: a part of shape {:?}", path.display(), part.shape);
            nneinfact_core::memory::refused(&what, part.entries as u64 * dtype.size())
        }
        _ => Error::file(path, e),
    })?;
    builder.finish(&part.shape, header.order)
}

/// The mode whose index varies slowest.
pub(super) fn slowest(header: &Header) -> usize {
    match header.order {
        Order::C => 0,
        Order::Fortran => header.shape.len().saturating_sub(1),
    }
}

/// Where a part lies, counted in entries.
pub(super) struct FilePart {
    pub first: usize,
    pub entries: usize,
    pub shape: Vec<usize>,
}

impl FilePart {
    /// The part that a range of the slowest mode is, or all of it. The error says what is wrong.
    pub fn of(header: &Header, range: Option<Range<usize>>) -> Result<FilePart, String> {
        let slowest = slowest(header);
        let length = header.shape[slowest];
        let range = range.unwrap_or(0..length);
        if range.start > range.end || range.end > length {
            return Err(format!(
                "the indices {} to {} are no part of its mode {}, which has {length}",
                range.start,
                range.end,
                slowest + 1
            ));
        }
        // Arrays without entries are refused before.
        let each = header.entries / length.max(1);
        let mut shape = header.shape.clone();
        shape[slowest] = range.len();
        Ok(FilePart { first: range.start * each, entries: range.len() * each, shape })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Axis, Slice};

    use super::super::{map_npy, read_bool, write_npy};
    use super::*;

    /// Writes what `write_npy` does not: masks, and arrays in Fortran order.
    fn write(path: &Path, descr: &str, fortran: bool, entries: impl Iterator<Item = u8>) {
        let order = if fortran { "True" } else { "False" };
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': (5, 4, 3)}}");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend(entries);
        std::fs::write(path, bytes).unwrap();
    }

    /// All ranges of the slowest mode, read and mapped, against the whole.
    #[test]
    fn parts_are_what_the_whole_has_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("y.npy");
        let y = Array3::from_shape_fn((5, 4, 3), |(i, j, k)| (100 * i + 10 * j + k) as u16);
        for (fortran, slowest) in [(false, 0), (true, 2)] {
            let in_order = if fortran { y.t() } else { y.view() };
            let bytes: Vec<u8> = in_order.iter().flat_map(|x| x.to_le_bytes()).collect();
            write(&path, "<u2", fortran, bytes.into_iter());
            let extent = npy_extent(&path).unwrap();
            let length = y.len_of(Axis(slowest));
            assert_eq!(extent, NpyExtent { shape: vec![5, 4, 3], slowest });
            for start in 0..=length {
                for end in start..=length {
                    let expected = y.slice_axis(Axis(slowest), Slice::from(start..end));
                    let expected = expected.mapv(f64::from).into_dyn();
                    let parts = [read_npy_part(&path, start..end), map_npy_part(&path, start..end)];
                    for part in parts.map(Result::unwrap) {
                        assert_eq!(part.to_array(), expected, "{start}..{end}");
                    }
                }
            }
            for bad in [length..length + 1, 0..length + 1] {
                let error = read_npy_part(&path, bad.clone()).unwrap_err().to_string();
                assert!(error.contains(&format!("are no part of its mode {}", slowest + 1)));
                assert_eq!(map_npy_part(&path, bad).unwrap_err().to_string(), error);
            }
        }
    }

    #[test]
    fn masks_too_and_nothing_else_as_a_mask() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.npy");
        let mask = Array3::from_shape_fn((5, 4, 3), |(i, j, k)| (i + j * k) % 3 != 0);
        write(&path, "|b1", false, mask.iter().map(|&x| u8::from(x)));
        assert_eq!(read_bool(&path).unwrap(), mask.clone().into_dyn());
        let expected = mask.slice_axis(Axis(0), Slice::from(2..4)).to_owned().into_dyn();
        assert_eq!(read_bool_part(&path, 2..4).unwrap(), expected);
        let mapped = map_bool_part(&path, 2..4).unwrap().to_array();
        assert_eq!(mapped.mapv(|x| x != 0.0), expected);

        write_npy(&path, &mask.mapv(u8::from)).unwrap();
        assert!(read_bool_part(&path, 0..1).unwrap_err().to_string().contains("numpy's type bool"));
        assert_eq!(map_npy(&path).unwrap().shape(), [5, 4, 3]);
    }

    #[test]
    fn a_damaged_file_is_refused_even_where_the_part_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("y.npy");
        write_npy(&path, &Array3::from_shape_fn((5, 4, 3), |(i, _, _)| i as f64)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 8]).unwrap();
        let error = read_npy_part(&path, 0..1).unwrap_err().to_string();
        assert!(error.contains("472 bytes follow"), "{error}");
    }
}
