//! Reading `.tns` files: coordinates as text, as FROSTT distributes them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::file::open;
use nneinfact_core::data::{CooBuilder, CooTensor};
use nneinfact_core::error::{Error, Result, escaped};

/// Reads coordinates from a `.tns` file: on every line the indices, counted from one, and a
/// value, separated by white space. `#` starts a comment, empty lines are passed over, and so is a byte
/// order mark before the first line.
///
/// Without `shape`, every mode is as long as its largest index. Duplicates are summed; see
/// [`CooTensor::duplicates`].
///
/// # Errors
/// [`Error::File`] where the file cannot be read. [`Error::Format`], with the number of the line,
/// where a line cannot be read, has another number of indices than the lines before or `shape`, or
/// has an index of 0 or beyond `shape`; also where there is no entry at all. [`Error::Memory`] where there are
/// more entries than memory holds.
pub fn read_tns(path: impl AsRef<Path>, shape: Option<&[usize]>) -> Result<CooTensor> {
    read_tns_with(path, &TnsOptions { shape, ..TnsOptions::default() })
}

/// How the lines of a `.tns` file are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TnsOptions<'a> {
    /// The length of every mode, where it is not that of the largest index.
    pub shape: Option<&'a [usize]>,
    /// Whether indices count from 0 and not from 1.
    pub zero_based: bool,
    /// Whether a line may end after its indices; its value is 1 then. It takes a shape to tell.
    pub value_optional: bool,
}

/// [`read_tns`] in one of several ways.
///
/// # Errors
/// As [`read_tns`].
pub fn read_tns_with(path: impl AsRef<Path>, options: &TnsOptions<'_>) -> Result<CooTensor> {
    let path = path.as_ref();
    let (file, _): (File, _) = open(path)?;
    read(BufReader::with_capacity(1 << 20, file), path, options)
}

/// [`read_tns`] from memory or any other source; `name` stands for the file in messages.
///
/// ```
/// let text = "# user item rating\n1 2 5\n3 1 2.5\n";
/// let ratings = nneinfact::io::read_tns_from(text.as_bytes(), "ratings.tns", None)?;
/// assert_eq!(ratings.shape(), [3, 2]);
/// # Ok::<(), nneinfact::Error>(())
/// ```
///
/// # Errors
/// As [`read_tns`].
pub fn read_tns_from(
    reader: impl Read,
    name: impl AsRef<Path>,
    shape: Option<&[usize]>,
) -> Result<CooTensor> {
    read_tns_from_with(reader, name, &TnsOptions { shape, ..TnsOptions::default() })
}

/// [`read_tns_from`], with all that can be said of the lines.
///
/// # Errors
/// As [`read_tns`].
pub fn read_tns_from_with(
    reader: impl Read,
    name: impl AsRef<Path>,
    options: &TnsOptions<'_>,
) -> Result<CooTensor> {
    read(BufReader::new(reader), name.as_ref(), options)
}

/// Longer lines are not coordinates, and must not fill the memory.
const LONGEST_LINE: u64 = 1 << 16;
const MOST_MODES: usize = 64;
/// What some editors and spreadsheets put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn read(reader: impl BufRead, path: &Path, options: &TnsOptions<'_>) -> Result<CooTensor> {
    match read_lines(reader, path, options, &mut |_, _| true)? {
        Some(builder) if !builder.is_empty() => builder.finish(options.shape),
        _ => Err(no_entries(path, options)),
    }
}

/// That a file has no line with an entry.
pub(super) fn no_entries(path: &Path, options: &TnsOptions<'_>) -> Error {
    let from = u8::from(!options.zero_based);
    Error::format(
        path,
        format!(
            "there are no entries: lines of indices, counted from {from}, and a value are expected"
        ),
    )
}

/// Reads the entries of lines, in their order. `begins` is told the number of a line, counted from 1, and
/// the byte that it begins at, and says whether it is to be read; where not, the reading ends.
pub(super) fn read_lines(
    mut reader: impl BufRead,
    path: &Path,
    options: &TnsOptions<'_>,
    begins: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Option<CooBuilder>> {
    let (shape, from) = (options.shape, u128::from(!options.zero_based));
    let plain = options.value_optional.then(|| shape.map(<[usize]>::len)).flatten();
    let mut builder = shape.map(|s| CooBuilder::new(s.len()));
    let mut line = Vec::new();
    let mut index = Vec::new();
    let (mut number, mut at) = (0u64, 0u64);
    loop {
        line.clear();
        number += 1;
        if !begins(number, at) {
            break;
        }
        let fault = |reason: String| Error::format(path, format!("line {number}: {reason}"));
        let n = reader
            .by_ref()
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line)
            .map_err(|e| Error::file(path, e))?;
        if n == 0 {
            break;
        }
        at += n as u64;
        if n as u64 == LONGEST_LINE && line.last() != Some(&b'\n') {
            return Err(fault(format!("longer than {LONGEST_LINE} bytes, not coordinates")));
        }
        index.clear();
        let line = match number {
            1 => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line),
            _ => line.as_slice(),
        };
        let Some(value) = entry(line, &mut index, options.zero_based, plain).map_err(fault)? else {
            continue;
        };
        if let Some(shape) = shape {
            if index.len() != shape.len() {
                return Err(fault(format!(
                    "{} indices, but the shape {shape:?} has {} modes",
                    index.len(),
                    shape.len()
                )));
            }
            if let Some(mode) = (0..shape.len()).find(|&m| index[m] >= shape[m] as u64) {
                return Err(fault(format!(
                    "index {} along mode {} is beyond its length {} (indices count from {from})",
                    u128::from(index[mode]) + from,
                    mode + 1,
                    shape[mode]
                )));
            }
        }
        let modes = index.len();
        let builder = builder.get_or_insert_with(|| CooBuilder::new(modes));
        builder.push(&index, value).map_err(|e| match e {
            Error::Shape { .. } => {
                fault(format!("{modes} indices, but the lines before have another number of them"))
            }
            other => other,
        })?;
    }
    Ok(builder)
}

/// The indices (counted from 0 from here on) and the value of a line; `None` where it is empty. A line of
/// `plain` numbers has no value.
fn entry(
    line: &[u8],
    index: &mut Vec<u64>,
    zero_based: bool,
    plain: Option<usize>,
) -> Result<Option<f64>, String> {
    let mut last: Option<&[u8]> = None;
    let mut rest = line;
    loop {
        let start = rest.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(rest.len());
        rest = &rest[start..];
        if rest.is_empty() || rest[0] == b'#' {
            break;
        }
        let end =
            rest.iter().position(|&b| b.is_ascii_whitespace() || b == b'#').unwrap_or(rest.len());
        let (token, tail) = rest.split_at(end);
        rest = tail;
        // All but the last are indices.
        if let Some(token) = last.replace(token) {
            if index.len() == MOST_MODES {
                return Err(format!("more than {MOST_MODES} indices"));
            }
            index.push(counted(token, zero_based)?);
        }
    }
    match last {
        None => Ok(None),
        Some(token) if plain == Some(index.len() + 1) => {
            index.push(counted(token, zero_based)?);
            Ok(Some(1.0))
        }
        Some(token) if index.is_empty() => {
            Err(format!("'{}' alone: indices and a value are expected", shown(token)))
        }
        Some(token) => value(token).map(Some),
    }
}

/// An index counted from 1, or 0, as one counted from 0.
fn counted(token: &[u8], zero_based: bool) -> Result<u64, String> {
    let from = u64::from(!zero_based);
    let number = whole(token).ok_or_else(|| {
        format!("'{}' is not an index: a whole number from {from} is expected", shown(token))
    })?;
    number.checked_sub(from).ok_or_else(|| {
        "index 0: indices count from 1, unless it is said that they count from 0 (--index-base 0)"
            .to_string()
    })
}

fn whole(token: &[u8]) -> Option<u64> {
    if token.is_empty() {
        return None;
    }
    token.iter().try_fold(0u64, |n, &b| {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        n.checked_mul(10)?.checked_add(digit.into())
    })
}

fn value(token: &[u8]) -> Result<f64, String> {
    // Counts are the usual case, and doubles hold all whole numbers of 15 digits.
    if token.len() <= 15
        && let Some(n) = whole(token)
    {
        return Ok(n as f64);
    }
    std::str::from_utf8(token)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("'{}' is not a number", shown(token)))
}

fn shown(token: &[u8]) -> String {
    escaped(&String::from_utf8_lossy(&token[..token.len().min(40)]))
}
