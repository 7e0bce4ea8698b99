//! Where tables come from: files, folders of them, standard input; compressed or not.

use std::fs::File;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};

/// Opens a file of text; what is packed by gzip, whatever its name, is unpacked.
///
/// # Errors
/// [`Error::File`] where the file cannot be opened; [`Error::Unsupported`] where its name is that of
/// a [format that is not read](crate::describe_foreign); [`Error::Format`] where it begins as a file
/// of another format does: Parquet, zip, UTF-16, other compressions.
pub fn open(path: &Path) -> Result<Box<dyn Read>> {
    Ok(Box::new(open_file(path)?))
}

/// As [`open`], for any thread.
pub(crate) fn open_file(path: &Path) -> Result<Unpacked<File>> {
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    if let Some(sentence) = crate::describe_foreign(path) {
        return Err(Error::Unsupported(sentence));
    }
    let metadata = file.metadata().map_err(|e| Error::file(path, e))?;
    if metadata.is_dir() {
        return Err(Error::file(path, io::ErrorKind::IsADirectory.into()));
    }
    unpack(file, path)
}

/// So many bytes tell the formats apart.
const BEGINNING: u64 = 10;

/// What was read of a text to see how it begins, and the rest.
type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

/// A text, which was packed or not.
pub(crate) enum Unpacked<R> {
    Plain(Whole<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Whole<R>>>>),
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Unpacked::Plain(from) => from.read(to),
            Unpacked::Gzip(from) => from.read(to),
        }
    }
}

/// Unpacks what begins as gzip does, and refuses what begins as another format does.
pub(crate) fn unpack<R: Read>(mut from: R, path: &Path) -> Result<Unpacked<R>> {
    let mut start = Vec::new();
    from.by_ref().take(BEGINNING).read_to_end(&mut start).map_err(|e| Error::file(path, e))?;
    let other = match &start[..] {
        [0x1f, 0x8b, ..] => {
            let whole = BufReader::with_capacity(1 << 16, Cursor::new(start).chain(from));
            return Ok(Unpacked::Gzip(Box::new(MultiGzDecoder::new(whole))));
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            Some("UTF-16: write it as UTF-8, with iconv -f UTF-16 -t UTF-8, say")
        }
        [b'P', b'K', 3, 4, ..] => Some("a zip archive (an .xlsx is one too): unpack it first"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("packed by zstd: pipe it in, zstdcat FILE | …"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Some("packed by LZ4: pipe it in, lz4cat FILE | …"),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("packed by xz: pipe it in, xzcat FILE | …"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59] => {
            Some("packed by bzip2: pipe it in, bzcat FILE | …")
        }
        [0x89, b'H', b'D', b'F', ..] => Some("HDF5 (an .h5ad or a newer .mat or .nc is one too)"),
        [b'P', b'A', b'R', b'1', ..] => Some(crate::foreign::PARQUET),
        [b'A', b'R', b'R', b'O', b'W', b'1', 0, ..] => {
            Some("Arrow: write it as CSV first, with to_csv of pandas, say")
        }
        [b'S', b'Q', b'L', b'i', b't', b'e', b' ', b'f', b'o', b'r'] => Some(
            "an SQLite database: write a table of it first, sqlite3 -header -csv FILE 'select * from NAME'",
        ),
        _ => None,
    };
    match other {
        Some(what) => Err(Error::format(path, format!("this is not a text but {what}"))),
        None => Ok(Unpacked::Plain(Cursor::new(start).chain(from))),
    }
}

/// An error of reading: what a decompressor rejects is a fault of the content.
pub(crate) fn fault(path: &Path, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            Error::format(path, format!("the file is damaged: {e}"))
        }
        _ => Error::file(path, e),
    }
}

/// The files that a path stands for: one that is there, or all that fit it as a pattern, in the order of their
/// names.
///
/// # Errors
/// [`Error::Setting`] where the pattern cannot be read, [`Error::File`] where there is no file.
pub fn files_matching(path: &Path) -> Result<Vec<PathBuf>> {
    path.to_str().map_or_else(|| Ok(vec![path.to_path_buf()]), matching)
}

/// The files that a pattern stands for, sorted; a path of a file that is there stands for itself.
pub(crate) fn matching(pattern: &str) -> Result<Vec<PathBuf>> {
    let path = PathBuf::from(pattern);
    if path.exists() || !pattern.contains(['*', '?', '[']) {
        return Ok(vec![path]);
    }
    let files = glob::glob(pattern)
        .map_err(|e| Error::Setting(format!("the pattern '{pattern}' cannot be read: {e}")))?;
    let files: Vec<PathBuf> = files
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| Error::file(e.path().to_path_buf(), e.into()))?;
    if files.is_empty() {
        return Err(Error::file(path, io::ErrorKind::NotFound.into()));
    }
    Ok(files)
}
