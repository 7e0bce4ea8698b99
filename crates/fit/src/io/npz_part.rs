//! A part of an array of an `.npz` file: some of the indices of its slowest mode.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use zip::CompressionMethod;

use super::file::open;
use super::header::Header;
use super::npy::{check, fault_in};
use super::npy_part::{FilePart, NpyExtent, slowest};
use super::npz::{Npz, chosen, zip_fault};
use nneinfact_core::data::{Dense, DenseBuilder};
use nneinfact_core::error::{Error, Result};

/// As [`npy_extent`](super::npy_extent), of an array of an `.npz` file, which is chosen as by
/// [`read_npz`](super::read_npz).
///
/// # Errors
/// As [`read_npz`](super::read_npz), as far as headers tell.
pub fn npz_extent(path: impl AsRef<Path>, key: Option<&str>) -> Result<NpyExtent> {
    let path = path.as_ref();
    let mut npz = Npz::new(BufReader::new(open(path)?.0), path)?;
    let index = chosen(&mut npz, path, key)?;
    let header = Header::read(&mut npz.member(index)?).map_err(|fault| fault_in(path, fault))?;
    check(&header, None).map_err(|reason| Error::format(path, reason))?;
    let slowest = slowest(&header);
    Ok(NpyExtent { shape: header.shape, slowest })
}

/// [`read_npz`](super::read_npz) of a range of indices of the [slowest mode](NpyExtent::slowest). Of an
/// array that is stored as it is, as `numpy.savez` writes it, the other entries are never read, and the
/// archive's sum over all of them is not checked. One that is compressed is unpacked to its end, but no
/// more than the part is kept.
///
/// ```
/// use nneinfact::io;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("y.npz");
/// let y = ndarray::Array2::from_shape_fn((40, 30), |(i, j)| ((i + 1) * (j + 2) % 90) as f64);
/// io::write_npz(&path, &[("y", y.clone())])?;
/// let part = io::read_npz_part(&path, None, 10..25)?;
/// assert_eq!(part.shape(), [15, 30]);
/// assert_eq!(part.get(&[0, 7]), Some(y[[10, 7]]));
/// # Ok::<(), nneinfact::Error>(())
/// ```
///
/// # Errors
/// As [`read_npz`](super::read_npz); [`Error::Format`] also where the mode does not have these indices.
pub fn read_npz_part(
    path: impl AsRef<Path>,
    key: Option<&str>,
    range: Range<usize>,
) -> Result<Dense> {
    let path = path.as_ref();
    let file = open(path)?.0;
    let mut npz = Npz::new(BufReader::with_capacity(1 << 16, file), path)?;
    let index = chosen(&mut npz, path, key)?;
    let mut member = npz.member(index)?;
    let stored = member.compression() == CompressionMethod::Stored;
    let (start, len) = (member.data_start().filter(|_| stored), member.size());
    let header = Header::read(&mut member).map_err(|fault| fault_in(path, fault))?;
    let dtype = check(&header, None).map_err(|reason| Error::format(path, reason))?;
    header.check_len(dtype, len).map_err(|reason| Error::format(path, reason))?;
    let part = FilePart::of(&header, Some(range)).map_err(|reason| Error::format(path, reason))?;
    let (before, bytes) = (part.first as u64 * dtype.size(), part.entries as u64 * dtype.size());
    let mut builder = DenseBuilder::new(part.entries);
    let mut read = |from: &mut dyn Read| {
        let from = BufReader::with_capacity(1 << 16, from.take(bytes));
        dtype.read(&mut { from }, part.entries, &mut builder)
    };
    let done = match start {
        Some(start) => File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::Start(start + header.len + before))?;
            read(&mut file)
        }),
        None => skip(&mut member, before).and_then(|()| {
            read(&mut member)?;
            // At the end the sum over all entries is checked.
            io::copy(&mut member, &mut io::sink()).map(|_| ())
        }),
    };
    done.map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::format(path, "the file ends before the array in it does")
        }
        io::ErrorKind::OutOfMemory => {
            let what = format!("{}: a part of shape {:?}", path.display(), part.shape);
            nneinfact_core::memory::refused(&what, bytes)
        }
        _ => zip_fault(path, e.into()),
    })?;
    builder.finish(&part.shape, header.order)
}

/// Reads so many bytes, and forgets them.
pub(super) fn skip(from: &mut impl Read, bytes: u64) -> io::Result<()> {
    match io::copy(&mut from.take(bytes), &mut io::sink())? {
        found if found == bytes => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Axis, Slice};
    use std::io::Write;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::super::write_npy;
    use super::*;

    /// An archive with another array before the one that is read.
    fn write(path: &Path, method: CompressionMethod, arrays: &[(&str, &Path)]) {
        let mut zip = ZipWriter::new(File::create(path).unwrap());
        for (name, from) in arrays {
            let options = SimpleFileOptions::default().compression_method(method);
            zip.start_file(format!("{name}.npy"), options).unwrap();
            zip.write_all(&std::fs::read(from).unwrap()).unwrap();
        }
        zip.finish().unwrap();
    }

    #[test]
    fn parts_are_what_the_whole_has_there() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let y = Array3::from_shape_fn((5, 4, 3), |(i, j, k)| (100 * i + 10 * j + k) as u16);
        write_npy(at("y.npy"), &y).unwrap();
        write_npy(at("other.npy"), &y.mapv(|x| x + 1)).unwrap();
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let path = at("y.npz");
            write(&path, method, &[("other", &at("other.npy")), ("y", &at("y.npy"))]);
            let extent = npz_extent(&path, Some("y")).unwrap();
            assert_eq!(extent, NpyExtent { shape: vec![5, 4, 3], slowest: 0 });
            for start in 0..=5 {
                for end in start..=5 {
                    let part = read_npz_part(&path, Some("y"), start..end).unwrap();
                    let expected = y.slice_axis(Axis(0), Slice::from(start..end));
                    assert_eq!(part.to_array(), expected.mapv(f64::from).into_dyn());
                }
            }
            let error = read_npz_part(&path, Some("y"), 3..6).unwrap_err().to_string();
            assert!(error.contains("are no part of its mode 1"), "{error}");
            let error = read_npz_part(&path, None, 0..1).unwrap_err().to_string();
            assert!(error.contains("several arrays could be meant"), "{error}");
        }
    }

    #[test]
    fn damage_behind_a_packed_part_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let y = Array3::from_shape_fn((50, 9, 9), |(i, j, k)| ((i * j + k) as f64).sin());
        write_npy(at("y.npy"), &y).unwrap();
        let path = at("y.npz");
        write(&path, CompressionMethod::Deflated, &[("y", &at("y.npy"))]);
        let mut bytes = std::fs::read(&path).unwrap();
        let late = bytes.len() * 3 / 4;
        bytes[late] ^= 0x55;
        std::fs::write(&path, &bytes).unwrap();
        let error = read_npz_part(&path, None, 0..2).unwrap_err().to_string();
        assert!(error.contains("y.npz"), "{error}");
    }
}
