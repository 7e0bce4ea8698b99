//! `.npz` archives of arrays and texts: written, and read back to the same bits.
//!
//! Arrays are members of type `<f8` in C order, which numpy reads; a text is an ordinary member too.

use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use ndarray::{ArrayBase, ArrayD, ArrayViewD, Data, Dimension, IxDyn};
use zip::read::ZipFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::file::{Sink, open, replace};
use super::header::Header;
use super::npy::fault_in;
use super::npz::zip_fault;
use super::strings::{npy_integers, npy_strings};
use super::write::npy;
use nneinfact_core::data::Order;
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

/// [`write_npz`] with texts beside the arrays, each a member under its own name (`fit.json`), which
/// [`read_npz_text`](super::read_npz_text) reads. numpy lists them, and gives them as bytes.
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
    write(path.as_ref(), arrays, texts, CompressionMethod::Deflated)
}

/// What an archive of numbers and texts holds under a name.
#[derive(Clone, Debug)]
pub enum NpzMember<'a> {
    /// An array of numbers, as `<f8`.
    Numbers(ArrayViewD<'a, f64>),
    /// Whole numbers as `<i8`: a row for each list, or of a single one a list.
    Rows(Vec<&'a [u32]>),
    /// The lengths of modes, as `<i8`.
    Lengths(&'a [usize]),
    /// A list of texts, as `<U…`.
    Texts(&'a [String]),
    /// A text, a member under its own name.
    Text(&'a str),
}

/// Writes arrays and texts to a compressed `.npz` file, as a whole or not at all.
///
/// # Errors
/// [`Error::File`] where the file cannot be written; what stood there before is then still there.
/// [`Error::Format`] where a name is empty or there twice.
pub fn write_members<N: AsRef<str>>(path: &Path, members: &[(N, NpzMember<'_>)]) -> Result<()> {
    check_names(path, members.iter().map(|(name, _)| name.as_ref()))?;
    replace(path, |to| pack(to, members))
}

/// [`write_members`] into memory or anything else that is not a file; `name` stands for it in messages.
///
/// # Errors
/// As [`write_members`].
pub fn write_members_to<N: AsRef<str>>(
    to: impl Write + Seek,
    name: &Path,
    members: &[(N, NpzMember<'_>)],
) -> Result<()> {
    check_names(name, members.iter().map(|(name, _)| name.as_ref()))?;
    pack(to, members).map_err(|e| Error::file(name, e))
}

fn pack<N: AsRef<str>>(
    mut to: impl Write + Seek,
    members: &[(N, NpzMember<'_>)],
) -> io::Result<()> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let mut quiet = Quiet::new(&mut to);
    let mut zip = ZipWriter::new(&mut quiet);
    for (name, member) in members {
        let name = name.as_ref();
        if let NpzMember::Text(text) = member {
            zip.start_file(name, options)?;
            zip.write_all(text.as_bytes())?;
            continue;
        }
        // Archives need another form of header for members of 4 GiB and more.
        let large = member.bytes() >= u64::from(u32::MAX) - (1 << 20);
        zip.start_file(format!("{name}.npy"), options.large_file(large))?;
        let to = &mut BufWriter::with_capacity(1 << 16, &mut zip);
        match member {
            NpzMember::Numbers(array) => npy(to, array)?,
            NpzMember::Rows(rows) => {
                let shape = [rows.len(), rows.first().map_or(0, |row| row.len())];
                npy_integers(to, &shape, rows.iter().copied().flatten().map(|&x| x.into()))?;
            }
            NpzMember::Lengths(lengths) => {
                npy_integers(to, &[lengths.len()], lengths.iter().map(|&x| x as i64))?;
            }
            NpzMember::Texts(texts) => npy_strings(to, texts)?,
            NpzMember::Text(_) => {}
        }
    }
    zip.finish()?;
    Ok(())
}

impl NpzMember<'_> {
    /// At least as many bytes as it takes.
    fn bytes(&self) -> u64 {
        match self {
            NpzMember::Numbers(array) => 8 * array.len() as u64,
            NpzMember::Rows(rows) => 8 * rows.iter().map(|row| row.len() as u64).sum::<u64>(),
            NpzMember::Lengths(lengths) => 8 * lengths.len() as u64,
            NpzMember::Texts(texts) => {
                let longest = texts.iter().map(String::len).max().unwrap_or(0);
                4 * (longest as u64).saturating_mul(texts.len() as u64)
            }
            NpzMember::Text(text) => text.len() as u64,
        }
    }
}

fn check_names<'a>(path: &Path, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if name.is_empty() || !seen.insert(name) {
            return Err(Error::format(
                path,
                format!("an array cannot be written under the name \"{name}\": empty or twice"),
            ));
        }
    }
    Ok(())
}

/// Writes an archive, as a whole or not at all: arrays, and texts after them.
fn write<N, S, D>(
    path: &Path,
    arrays: &[(N, ArrayBase<S, D>)],
    texts: &[(&str, &str)],
    method: CompressionMethod,
) -> Result<()>
where
    N: AsRef<str>,
    S: Data,
    S::Elem: Copy + Into<f64>,
    D: Dimension,
{
    check_names(path, arrays.iter().map(|(name, _)| name.as_ref()))?;
    let options = SimpleFileOptions::default().compression_method(method);
    replace(path, |to| {
        let mut quiet = Quiet::new(to);
        let mut zip = ZipWriter::new(&mut quiet);
        for (name, array) in arrays {
            // Archives need another form of header for members of 4 GiB and more.
            let large = array.len() as u64 >= (u64::from(u32::MAX) - (1 << 20)) / 8;
            zip.start_file(format!("{}.npy", name.as_ref()), options.large_file(large))?;
            npy(&mut BufWriter::with_capacity(1 << 16, &mut zip), array)?;
        }
        for (name, text) in texts {
            zip.start_file(*name, options)?;
            zip.write_all(text.as_bytes())?;
        }
        zip.finish()?;
        Ok(())
    })
}

/// A file that takes everything once writing to it has failed. A writer of archives that is dropped after
/// an error tries to bring the archive to an end, and prints on standard error that it cannot.
struct Quiet<'a> {
    to: &'a mut dyn Sink,
    failed: bool,
    /// Where the next byte goes, and where the last one was written at most.
    at: u64,
    end: u64,
}

impl<'a> Quiet<'a> {
    fn new(to: &'a mut dyn Sink) -> Quiet<'a> {
        Quiet { to, failed: false, at: 0, end: 0 }
    }
}

impl Write for Quiet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = match self.failed {
            true => bytes.len(),
            false => self.to.write(bytes).inspect_err(|_| self.failed = true)?,
        };
        self.at += count as u64;
        self.end = self.end.max(self.at);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.failed {
            true => Ok(()),
            false => self.to.flush().inspect_err(|_| self.failed = true),
        }
    }
}

impl Seek for Quiet<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        let place = place.ok_or(io::ErrorKind::InvalidInput)?;
        if !self.failed {
            self.to.seek(SeekFrom::Start(place)).inspect_err(|_| self.failed = true)?;
        }
        self.at = place;
        Ok(place)
    }
}

/// A text and named arrays, as a checkpoint has them: not compressed, and read back to the same bits.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Archive {
    /// The name of the text, and the text.
    pub text: (String, String),
    /// In C order.
    pub arrays: Vec<(String, ArrayD<f64>)>,
}

impl Archive {
    /// Writes it, as a whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let (name, text) = &self.text;
        write(path, &self.arrays, &[(name, text)], CompressionMethod::Stored)
    }

    /// Reads one whose text has this name. Every member is checked against its sum.
    pub fn read(path: &Path, text: &str) -> Result<Archive> {
        let (file, len) = open(path)?;
        let damaged = |reason: &str| Error::format(path, format!("the file is damaged: {reason}"));
        if len == Some(0) {
            return Err(Error::format(path, "the file is empty"));
        }
        let mut zip = ZipArchive::new(BufReader::with_capacity(1 << 16, file))
            .map_err(|e| zip_fault(path, e))?;
        let mut archive = Archive::default();
        for i in 0..zip.len() {
            let mut entry = zip.by_index(i).map_err(|e| zip_fault(path, e))?;
            let name =
                entry.name().map_err(|_| damaged("a name in it cannot be read"))?.to_string();
            if entry.compression() != CompressionMethod::Stored {
                return Err(Error::format(path, format!("\"{name}\" in it is compressed")));
            }
            match name.strip_suffix(".npy") {
                Some(array) => {
                    if archive.arrays.iter().any(|(other, _)| other == array) {
                        return Err(damaged(&format!("\"{array}\" is in it twice")));
                    }
                    let values = numbers(&mut entry, path).map_err(|e| match e {
                        Error::Format { path, reason } => {
                            Error::Format { path, reason: format!("array \"{array}\": {reason}") }
                        }
                        e => e,
                    })?;
                    archive.arrays.push((array.to_string(), values));
                }
                None if name == text => {
                    let bytes = all(&mut entry, MOST_TEXT, path)?;
                    let words = String::from_utf8(bytes).map_err(|_| damaged("its text"))?;
                    archive.text = (name, words);
                }
                None => return Err(Error::format(path, format!("\"{name}\" is not known"))),
            }
        }
        match archive.text.0 == text {
            true => Ok(archive),
            false => Err(Error::format(path, format!("there is no \"{text}\" in it"))),
        }
    }

    /// Takes an array out.
    pub fn take(&mut self, name: &str) -> Option<ArrayD<f64>> {
        let at = self.arrays.iter().position(|(other, _)| other == name)?;
        Some(self.arrays.swap_remove(at).1)
    }
}

/// A text that is longer is none of ours, and must not fill the memory.
const MOST_TEXT: u64 = 1 << 24;

/// Reads an entry of at most so many bytes to its end, where its sum is checked.
fn all(entry: &mut impl Read, most: u64, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Memory grows with what arrives.
    entry
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| fault_in(path, e.into()))?;
    if bytes.len() as u64 > most {
        return Err(Error::format(path, "the file is damaged: there is more in it than it says"));
    }
    Ok(bytes)
}

fn numbers<R: Read>(entry: &mut ZipFile<'_, R>, path: &Path) -> Result<ArrayD<f64>> {
    let header = Header::read(entry).map_err(|fault| fault_in(path, fault))?;
    if header.descr != "<f8" || header.order != Order::C {
        return Err(Error::format(
            path,
            format!("numbers of type <f8 in C order are expected, not {}", header.descr),
        ));
    }
    // Shapes whose bytes do not fit were refused with the header.
    let expected = 8 * header.entries as u64;
    let bytes = all(entry, expected, path)?;
    if bytes.len() as u64 != expected {
        return Err(Error::format(
            path,
            format!("the file is damaged: {} of {expected} bytes are there", bytes.len()),
        ));
    }
    let (eights, _) = bytes.as_chunks::<8>();
    let values = eights.iter().map(|&eight| f64::from_le_bytes(eight)).collect();
    ArrayD::from_shape_vec(IxDyn(&header.shape), values)
        .map_err(|e| Error::format(path, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Archive {
        let values = vec![0.1, -0.0, f64::INFINITY, 5e-324, 1.0 / 3.0, f64::MAX];
        let array = ArrayD::from_shape_vec(IxDyn(&[2, 3]), values).unwrap();
        let none = ArrayD::from_shape_vec(IxDyn(&[0]), vec![]).unwrap();
        Archive {
            text: ("about.json".into(), "{\"ä\": 1}\n".into()),
            arrays: vec![("one".into(), array), ("none".into(), none)],
        }
    }

    fn bits(archive: &Archive) -> Vec<u64> {
        archive.arrays.iter().flat_map(|(_, a)| a.iter().map(|x| x.to_bits())).collect()
    }

    #[test]
    fn bits_come_back_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let archive = sample();
        archive.write(&path).unwrap();
        let again = Archive::read(&path, "about.json").unwrap();
        assert_eq!(again, archive);
        assert_eq!(bits(&again), bits(&archive));
        assert!(Archive::read(&path, "other.json").is_err());

        let good = std::fs::read(&path).unwrap();
        for cut in 0..good.len() {
            std::fs::write(&path, &good[..cut]).unwrap();
            assert!(Archive::read(&path, "about.json").is_err(), "{cut}");
        }
        for at in 0..good.len() {
            for bit in [0, 3, 7] {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                std::fs::write(&path, &bad).unwrap();
                // What does not matter may have changed: times, flags.
                if let Ok(read) = Archive::read(&path, "about.json") {
                    assert_eq!(read.text, archive.text, "{at}");
                    assert_eq!(bits(&read), bits(&archive), "{at}");
                }
            }
        }
    }
}
