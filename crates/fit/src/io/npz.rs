//! Reading `.npz` files: zip archives of `.npy` arrays.

use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use ndarray::ArrayD;
use zip::read::ZipFile;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::dtype::Kind;
use super::file::open;
use super::header::Header;
use super::npy::{Extent, fault_in, read_array, read_number};
use super::old_texts;
use nneinfact_core::data::Dense;
use nneinfact_core::error::{Error, Result, escaped};

/// What an `.npz` file says about one of its arrays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayInfo {
    /// Its name, without the `.npy` that numpy appends.
    pub name: String,
    /// Its element type as numpy writes it, such as `<i8`; empty where the entry is not an array.
    pub dtype: String,
    /// The length of each mode.
    pub shape: Vec<usize>,
    /// Whether it holds numbers that can be read (booleans are not numbers).
    pub numeric: bool,
}

impl std::fmt::Display for ArrayInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = escaped(&self.name);
        if self.dtype.is_empty() {
            write!(f, "\"{name}\" (not an array)")
        } else {
            write!(f, "\"{name}\" (shape {:?}, type {})", self.shape, escaped(&self.dtype))
        }
    }
}

/// What is in an `.npz` file, in the order of the file. Reads the headers only.
///
/// # Errors
/// [`Error::File`] where the file cannot be read; [`Error::Format`] where it is not a zip archive.
pub fn npz_names(path: impl AsRef<Path>) -> Result<Vec<ArrayInfo>> {
    let path = path.as_ref();
    Npz::new(BufReader::new(open(path)?.0), path)?.list()
}

/// Reads an array of an `.npz` file, of any type that [`read_npy`](super::read_npy) reads. `key`
/// is its name. Without a key, the file must hold one numeric array with at least one mode;
/// booleans, strings, objects and single numbers beside it do not matter.
///
/// # Errors
/// [`Error::File`] where the file cannot be read. [`Error::Format`] where it is not a zip archive
/// (stored or deflated), the array is not there, no array or several could be meant (the message
/// lists them), or the array is one that [`read_npy`](super::read_npy) refuses.
pub fn read_npz(path: impl AsRef<Path>, key: Option<&str>) -> Result<Dense> {
    let path = path.as_ref();
    read(BufReader::with_capacity(1 << 16, open(path)?.0), path, key)
}

/// [`read_npz`] from memory or any other source; `name` stands for the file in messages.
///
/// # Errors
/// As [`read_npz`].
pub fn read_npz_from(
    reader: impl Read + Seek,
    name: impl AsRef<Path>,
    key: Option<&str>,
) -> Result<Dense> {
    read(BufReader::new(reader), name.as_ref(), key)
}

/// Reads all numeric arrays of an `.npz` file with at least one mode, in the order of the file,
/// with their names. Booleans, strings, objects and single numbers are passed over.
///
/// # Errors
/// As [`read_npz`]; [`Error::Format`] also where there is no such array.
pub fn read_npz_arrays(path: impl AsRef<Path>) -> Result<Vec<(String, ArrayD<f64>)>> {
    let path = path.as_ref();
    read_npz_arrays_from(BufReader::with_capacity(1 << 16, open(path)?.0), path)
}

/// [`read_npz_arrays`] from memory or any other source; `name` stands for the file in messages.
///
/// # Errors
/// As [`read_npz_arrays`].
pub fn read_npz_arrays_from(
    reader: impl Read + Seek,
    name: impl AsRef<Path>,
) -> Result<Vec<(String, ArrayD<f64>)>> {
    let path = name.as_ref();
    let mut npz = Npz::new(reader, path)?;
    let list = npz.list()?;
    let mut arrays = Vec::new();
    for (i, info) in list.iter().enumerate().filter(|(_, info)| eligible(info)) {
        arrays.push((info.name.clone(), npz.array(i)?.to_array()));
    }
    if arrays.is_empty() {
        return Err(none(path, &list));
    }
    Ok(arrays)
}

/// All numbers of an `.npz` file: its numeric arrays with at least one mode, and the single numbers
/// among `numbers`, which other readers pass over.
pub(crate) struct NamedNumbers {
    /// What the file holds, arrays or not.
    pub list: Vec<ArrayInfo>,
    pub arrays: Vec<(String, ArrayD<f64>)>,
    pub numbers: Vec<(String, f64)>,
}

/// Reads the arrays whose names `wanted` accepts, and the single numbers of these names, from memory or
/// any other source; `name` stands for the file in messages.
pub(crate) fn read_npz_numbers(
    reader: impl Read + Seek,
    name: &Path,
    wanted: impl Fn(&str) -> bool,
    single: &[&str],
) -> Result<NamedNumbers> {
    let mut npz = Npz::new(reader, name)?;
    let list = npz.list()?;
    let (mut arrays, mut numbers) = (Vec::new(), Vec::new());
    for (i, info) in list.iter().enumerate() {
        if single.contains(&info.name.as_str()) && !info.dtype.is_empty() {
            numbers.push((info.name.clone(), npz.number(i)?));
        } else if eligible(info) && wanted(&info.name) {
            arrays.push((info.name.clone(), npz.array(i)?.to_array()));
        }
    }
    Ok(NamedNumbers { list, arrays, numbers })
}

/// Reads a text that stands beside the arrays of an `.npz` file, as a member of this name, or where
/// files of earlier versions have it; `None` where there is none.
///
/// # Errors
/// [`Error::File`] where the file cannot be read; [`Error::Format`] where it is not a zip archive, or
/// the text is not UTF-8 or longer than 256 MiB.
pub fn read_npz_text(path: impl AsRef<Path>, name: &str) -> Result<Option<String>> {
    let path = path.as_ref();
    read_npz_text_from(BufReader::new(open(path)?.0), path, name)
}

/// [`read_npz_text`] from memory or any other source; `file` stands for the file in messages.
///
/// # Errors
/// As [`read_npz_text`].
pub fn read_npz_text_from(
    reader: impl Read + Seek,
    file: impl AsRef<Path>,
    name: &str,
) -> Result<Option<String>> {
    const LONGEST: u64 = 256 << 20;
    let path = file.as_ref();
    let mut npz = Npz::new(reader, path)?;
    let mut bytes = Vec::new();
    let mut take = |entry: &mut dyn Read| -> Result<()> {
        // What is there counts, not what the archive says.
        let read = entry.take(LONGEST + 1).read_to_end(&mut bytes);
        read.map(|_| ()).map_err(|e| fault_in(path, e.into()))
    };
    if let Some(index) = npz.archive.index_for_name(name) {
        take(&mut npz.archive.by_index(index).map_err(|e| zip_fault(path, e))?)?;
    } else {
        let directory = npz.archive.central_directory_start();
        let texts = old_texts::read(&mut npz.archive.into_inner(), directory, LONGEST);
        let Some(texts) = texts.map_err(|e| Error::file(path, e))? else { return Ok(None) };
        let mut texts = ZipArchive::new(Cursor::new(texts)).map_err(|e| zip_fault(path, e))?;
        let Some(index) = texts.index_for_name(name) else { return Ok(None) };
        take(&mut texts.by_index(index).map_err(|e| zip_fault(path, e))?)?;
    }
    if bytes.len() as u64 > LONGEST {
        return Err(Error::format(path, format!("the text \"{name}\" is longer than 256 MiB")));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(Error::format(path, format!("the text \"{name}\" is not UTF-8"))),
    }
}

fn read(reader: impl Read + Seek, path: &Path, key: Option<&str>) -> Result<Dense> {
    let mut npz = Npz::new(reader, path)?;
    let index = chosen(&mut npz, path, key)?;
    npz.array(index)
}

/// The shape of the array that would be read.
pub(super) fn shape(path: &Path, key: Option<&str>) -> Result<Vec<usize>> {
    let mut npz = Npz::new(BufReader::new(open(path)?.0), path)?;
    let index = chosen(&mut npz, path, key)?;
    let header = Header::read(&mut npz.member(index)?).map_err(|fault| fault_in(path, fault))?;
    Ok(header.shape)
}

/// The array that is meant.
pub(super) fn chosen(
    npz: &mut Npz<'_, impl Read + Seek>,
    path: &Path,
    key: Option<&str>,
) -> Result<usize> {
    match key {
        Some(key) => match npz.find(key) {
            Some(index) => Ok(index),
            None => {
                let list = npz.list()?;
                Err(Error::format(
                    path,
                    format!("there is no array \"{key}\"; there is {}", listed(&list)),
                ))
            }
        },
        None => {
            let list = npz.list()?;
            let mut able = list.iter().enumerate().filter(|(_, info)| eligible(info));
            match (able.next(), able.next()) {
                (Some((index, _)), None) => Ok(index),
                (None, _) => Err(none(path, &list)),
                (Some(_), Some(_)) => {
                    let able: Vec<ArrayInfo> = list.into_iter().filter(eligible).collect();
                    Err(Error::format(
                        path,
                        format!("several arrays could be meant, name one: {}", listed(&able)),
                    ))
                }
            }
        }
    }
}

/// Whether an array is meant where none is named.
fn eligible(info: &ArrayInfo) -> bool {
    info.numeric && !info.shape.is_empty()
}

fn none(path: &Path, list: &[ArrayInfo]) -> Error {
    Error::format(path, format!("there is no array of numbers; there is {}", listed(list)))
}

pub(crate) fn listed(list: &[ArrayInfo]) -> String {
    const SHOWN: usize = 20;
    if list.is_empty() {
        return "nothing in it".into();
    }
    let names: Vec<String> = list.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = match list.len().saturating_sub(SHOWN) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    names.join(", ") + &more
}

pub(super) struct Npz<'a, R> {
    archive: ZipArchive<R>,
    path: &'a Path,
    /// The length of the archive, in bytes.
    len: u64,
}

impl<'a, R: Read + Seek> Npz<'a, R> {
    pub(super) fn new(mut reader: R, path: &'a Path) -> Result<Self> {
        let len = reader.seek(SeekFrom::End(0)).map_err(|e| Error::file(path, e))?;
        reader.rewind().map_err(|e| Error::file(path, e))?;
        if len == 0 {
            return Err(Error::format(path, "the file is empty"));
        }
        let archive = ZipArchive::new(reader).map_err(|e| zip_fault(path, e))?;
        Ok(Npz { archive, path, len })
    }

    /// The name of an entry, without `.npy`.
    fn name(&self, index: usize) -> String {
        let name = self.archive.name_for_index(index);
        let name = name.and_then(|n| n.ok()).unwrap_or_default();
        name.strip_suffix(".npy").unwrap_or(&name).to_string()
    }

    fn find(&self, key: &str) -> Option<usize> {
        (0..self.archive.len()).find(|&i| self.name(i) == key).or_else(|| {
            // As it stands in the archive.
            self.archive.index_for_name(key)
        })
    }

    /// The entry of this name, unpacked as it is read.
    pub(super) fn entry(&mut self, name: &str) -> Result<Option<ZipFile<'_, R>>> {
        let Some(index) = self.find(name) else { return Ok(None) };
        self.member(index).map(Some)
    }

    /// A member, unpacked as it is read.
    pub(super) fn member(&mut self, index: usize) -> Result<ZipFile<'_, R>> {
        // Asked for before, since the member that cannot be unpacked does not say how it is packed.
        let packing =
            self.archive.by_index_raw(index).ok().and_then(|raw| foreign(raw.compression()));
        if let Some(packing) = packing {
            return Err(Error::format(
                self.path,
                format!(
                    "\"{}\" in it is packed by {packing}: members that are stored or deflated are read, as numpy.savez and numpy.savez_compressed write them",
                    escaped(&self.name(index))
                ),
            ));
        }
        let path = self.path;
        self.archive.by_index(index).map_err(|e| zip_fault(path, e))
    }

    fn list(&mut self) -> Result<Vec<ArrayInfo>> {
        (0..self.archive.len())
            .map(|i| {
                let name = self.name(i);
                let mut entry = self.member(i)?;
                // What is not an array is not an error here: it may not be the one asked for.
                Ok(match Header::read(&mut entry) {
                    Ok(header) => ArrayInfo {
                        name,
                        numeric: header.dtype.is_ok_and(|d| d.kind != Kind::Bool),
                        dtype: header.descr,
                        shape: header.shape,
                    },
                    Err(_) => {
                        ArrayInfo { name, dtype: String::new(), shape: vec![], numeric: false }
                    }
                })
            })
            .collect()
    }

    fn array(&mut self, index: usize) -> Result<Dense> {
        self.read_member(index, |entry, extent, path| read_array(entry, extent, path, None))
    }

    fn number(&mut self, index: usize) -> Result<f64> {
        self.read_member(index, |entry, extent, path| read_number(entry, extent, path))
    }

    fn read_member<T>(
        &mut self,
        index: usize,
        read: impl FnOnce(&mut ZipFile<'_, R>, Extent, &Path) -> Result<T>,
    ) -> Result<T> {
        let name = self.name(index);
        let (path, len) = (self.path, self.len);
        let mut entry = self.member(index)?;
        // Deflate shrinks at most 1032 times, so more than that cannot be there, whatever the
        // archive says.
        let extent = Extent {
            len: Some(entry.size()),
            entries: entry.compressed_size().min(len).saturating_mul(1032),
        };
        read(&mut entry, extent, path).map_err(|e| match e {
            Error::Format { path, reason } => {
                Error::Format { path, reason: format!("array \"{}\": {reason}", escaped(&name)) }
            }
            e => e,
        })
    }
}

/// The name of a way to pack that is not read here.
fn foreign(method: CompressionMethod) -> Option<String> {
    if [CompressionMethod::Stored, CompressionMethod::Deflated].contains(&method) {
        return None;
    }
    let text = format!("{method:?}");
    let number: String = text.chars().filter(char::is_ascii_digit).collect();
    Some(match number.as_str() {
        "9" => "Deflate64".into(),
        "12" => "bzip2".into(),
        "14" => "LZMA".into(),
        "93" => "Zstandard".into(),
        "95" => "XZ".into(),
        "" => text,
        other => format!("method {other} of archives"),
    })
}

pub(super) fn zip_fault(path: &Path, e: ZipError) -> Error {
    match e {
        ZipError::Io(e) => fault_in(path, e.into()),
        e => Error::format(path, format!("not an .npz archive that can be read: {e}")),
    }
}
