//! Arrays of texts in `.npz` files, as numpy has them: `<U8` for texts of up to eight characters.

use std::io::{self, BufReader, Read, Seek, Write};
use std::path::Path;

use super::file::open;
use super::header::Header;
use super::npy::fault_in;
use super::npz::Npz;
use super::write::npy_header;
use nneinfact_core::error::{Error, Result};

/// Reads an array of texts of an `.npz` file, of numpy's types `U` and `S`, with one mode or none;
/// `None` where there is no array of this name.
///
/// # Errors
/// [`Error::File`] where the file cannot be read; [`Error::Format`] where it is not a zip archive,
/// or the array is not one of texts, or has more than one mode, or is damaged.
pub fn read_npz_strings(path: impl AsRef<Path>, name: &str) -> Result<Option<Vec<String>>> {
    let path = path.as_ref();
    read_npz_strings_from(BufReader::with_capacity(1 << 16, open(path)?.0), path, name)
}

/// [`read_npz_strings`] from memory or any other source; `file` stands for the file in messages.
///
/// # Errors
/// As [`read_npz_strings`].
pub fn read_npz_strings_from(
    from: impl Read + Seek,
    file: impl AsRef<Path>,
    name: &str,
) -> Result<Option<Vec<String>>> {
    let path = file.as_ref();
    let mut npz = Npz::new(from, path)?;
    let Some(mut entry) = npz.entry(name)? else { return Ok(None) };
    let wrong = |why: String| Error::format(path, format!("array \"{name}\": {why}"));
    let header = Header::read(&mut entry).map_err(|fault| fault_in(path, fault))?;
    let Some(width) = Width::of(&header.descr) else {
        return Err(wrong(format!("texts are expected, not elements of type {}", header.descr)));
    };
    if header.shape.len() > 1 {
        return Err(wrong(format!("a list is expected, not the shape {:?}", header.shape)));
    }
    let mut texts = Vec::new();
    let mut bytes = Vec::new();
    for i in 0..header.entries {
        // Memory grows with what arrives, also within a text of an impossible length.
        bytes.clear();
        let read = entry.by_ref().take(width.bytes()).read_to_end(&mut bytes);
        if read.map_err(|e| fault_in(path, e.into()))? as u64 != width.bytes() {
            return Err(wrong(format!("it ends after {i} of {} texts", header.entries)));
        }
        texts.push(width.text(&bytes).map_err(|why| wrong(format!("text {i}: {why}")))?);
    }
    Ok(Some(texts))
}

/// How the texts of an array lie in the file.
#[derive(Clone, Copy, Debug)]
enum Width {
    /// So many bytes of UTF-8 or ASCII.
    Bytes(u64),
    /// So many characters of four bytes.
    Characters { count: u64, big_endian: bool },
}

impl Width {
    fn of(descr: &str) -> Option<Width> {
        let order = descr.chars().next().filter(|c| "<>|=".contains(*c));
        let name = &descr[order.map_or(0, char::len_utf8)..];
        let count = || name.get(1..)?.parse().ok().filter(|&n: &u64| n <= u64::MAX / 4);
        let big_endian = match order {
            Some('>') => true,
            Some('<' | '|') => false,
            _ => cfg!(target_endian = "big"),
        };
        match name.chars().next()? {
            'S' | 'a' => count().map(Width::Bytes),
            'U' => count().map(|count| Width::Characters { count, big_endian }),
            _ => None,
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Width::Bytes(count) => count,
            Width::Characters { count, .. } => 4 * count,
        }
    }

    /// The text without the zeros that fill it up.
    fn text(self, bytes: &[u8]) -> Result<String, String> {
        let text = match self {
            Width::Bytes(_) => {
                String::from_utf8(bytes.to_vec()).map_err(|_| "it is not UTF-8".to_string())?
            }
            Width::Characters { big_endian, .. } => {
                let (fours, _) = bytes.as_chunks::<4>();
                let code = |four: &[u8; 4]| match big_endian {
                    true => u32::from_be_bytes(*four),
                    false => u32::from_le_bytes(*four),
                };
                let character = |four| {
                    let code = code(four);
                    char::from_u32(code).ok_or_else(|| format!("{code:#x} is no character"))
                };
                fours.iter().map(character).collect::<Result<String, String>>()?
            }
        };
        Ok(text.trim_end_matches('\0').into())
    }
}

/// Texts as a `.npy` file holds them.
pub(super) fn npy_strings(to: &mut (impl Write + ?Sized), texts: &[String]) -> io::Result<()> {
    // numpy has no texts without a character.
    let width = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
    npy_header(to, &format!("<U{width}"), &[texts.len()])?;
    let mut bytes = Vec::with_capacity(4 * width);
    for text in texts {
        bytes.clear();
        bytes.extend(text.chars().flat_map(|c| u32::from(c).to_le_bytes()));
        bytes.resize(4 * width, 0);
        to.write_all(&bytes)?;
    }
    to.flush()
}

/// Whole numbers as a `.npy` file holds them, in C order as `<i8`.
pub(super) fn npy_integers(
    to: &mut (impl Write + ?Sized),
    shape: &[usize],
    numbers: impl Iterator<Item = i64>,
) -> io::Result<()> {
    npy_header(to, "<i8", shape)?;
    for number in numbers {
        to.write_all(&number.to_le_bytes())?;
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::super::archive::{NpzMember, write_members};
    use super::*;

    #[test]
    fn texts_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts.npz");
        let texts: Vec<String> =
            ["", "a", "東京", "שלום", "\u{10ffff}", "a\0b"].map(String::from).into();
        let none: Vec<String> = Vec::new();
        let members = [("labels_é", NpzMember::Texts(&texts)), ("none", NpzMember::Texts(&none))];
        write_members(&path, &members).unwrap();
        assert_eq!(read_npz_strings(&path, "labels_é").unwrap(), Some(texts));
        assert_eq!(read_npz_strings(&path, "none").unwrap(), Some(none));
        assert_eq!(read_npz_strings(&path, "other").unwrap(), None);
    }

    #[test]
    fn other_types_and_orders() {
        let big = Width::of(">U2").unwrap();
        assert_eq!(big.text(&[0, 0, 0, 97, 0, 0, 0, 0]).unwrap(), "a");
        assert!(big.text(&[0xff; 8]).is_err());
        assert_eq!(Width::of("|S3").unwrap().text(b"csr").unwrap(), "csr");
        assert!(Width::of("|S3").unwrap().text(b"\xff\xff\xff").is_err());
        for none in ["<f8", "<U", "U-1", "", "<U99999999999999999999"] {
            assert!(Width::of(none).is_none(), "{none}");
        }
    }
}
