//! Matrix Market files and the folders of 10x Genomics.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::coo::{Axis, Collector, SparseMatrix};
use crate::error::{Error, Result};
use crate::number;
use crate::source;
use crate::table::label_file;
use crate::text::shown;

/// Reads a matrix from a Matrix Market file (`.mtx`, `.mtx.gz`): `coordinate` or `array`; `real`,
/// `integer` or `pattern`, whose entries are ones; `general`, `symmetric` or `skew-symmetric`.
///
/// Entries of one place are added up. Zeros of an `array` are not listed.
///
/// # Errors
/// [`Error::File`] where the file cannot be read; [`Error::Format`], with the line, where it is not
/// such a file; [`Error::Unsupported`] for complex and hermitian matrices.
pub fn read_matrix_market(path: impl AsRef<Path>) -> Result<SparseMatrix> {
    let path = path.as_ref();
    Reader { from: source::open(path)?, path, keep: None }.read().map(|(matrix, _)| matrix)
}

/// What a process keeps of a matrix, from its shape: along which axis (0 for rows, 1 for columns), and
/// which indices.
pub type Keep<'a> = dyn Fn([usize; 2]) -> (usize, Range<usize>) + 'a;

/// [`read_matrix_market`] of some rows or columns: all of the file is read, and no more than these kept. The
/// matrix has as many rows or columns as the range, or one where that is empty. Gives the shape of the
/// whole matrix too.
///
/// # Errors
/// As [`read_matrix_market`]; a part may have no entries.
pub fn read_matrix_market_part(
    path: impl AsRef<Path>,
    keep: &Keep<'_>,
) -> Result<(SparseMatrix, [usize; 2])> {
    let path = path.as_ref();
    Reader { from: source::open(path)?, path, keep: Some(keep) }.read()
}

/// [`read_matrix_market`] from memory or any other source; `name` stands for the file in messages.
///
/// ```
/// use nneinfact_table::read_matrix_market_from;
///
/// let text = "%%MatrixMarket matrix coordinate integer symmetric\n3 3 2\n1 1 5\n3 1 7\n";
/// let matrix = read_matrix_market_from(text.as_bytes(), "m.mtx")?;
/// assert_eq!(matrix.coords, [[0, 0, 2], [0, 2, 0]]);
/// assert_eq!(matrix.values, [5.0, 7.0, 7.0]);
/// # Ok::<(), nneinfact_table::Error>(())
/// ```
///
/// # Errors
/// As [`read_matrix_market`].
pub fn read_matrix_market_from(from: impl Read, name: impl AsRef<Path>) -> Result<SparseMatrix> {
    let path = name.as_ref();
    let from = Box::new(source::unpack(from, path)?);
    Reader { from, path, keep: None }.read().map(|(matrix, _)| matrix)
}

/// Reads the names of rows or columns, one a line. A first line `# Gene`, or `#` alone, is no name.
///
/// # Errors
/// [`Error::File`] where the file cannot be read; [`Error::Format`] where it is not UTF-8, or has
/// another number of names than the axis.
pub fn read_names(path: impl AsRef<Path>, axis: &mut Axis) -> Result<()> {
    let path = path.as_ref();
    let labels = label_file(path)?;
    check_names(path, &labels, axis.len)?;
    axis.labels = Some(labels);
    Ok(())
}

/// [`read_names`] of a part of an axis that has `whole` rows or columns.
///
/// # Errors
/// As [`read_names`].
pub fn read_names_part(
    path: impl AsRef<Path>,
    axis: &mut Axis,
    whole: usize,
    range: &Range<usize>,
) -> Result<()> {
    let path = path.as_ref();
    let labels = label_file(path)?;
    check_names(path, &labels, whole)?;
    axis.labels = Some(part_of_labels(&labels, range));
    Ok(())
}

fn check_names(path: &Path, labels: &[String], expected: usize) -> Result<()> {
    let found = labels.len();
    if found == expected {
        return Ok(());
    }
    let hint = match labels.first() {
        Some(first) if found == expected + 1 => format!(
            "; if {} names the column and not its first entry, take that line away",
            shown(first.as_bytes())
        ),
        _ => String::new(),
    };
    Err(Error::format(path, format!("{found} names for {expected} rows or columns{hint}")))
}

const MATRIX: [&str; 2] = ["matrix.mtx.gz", "matrix.mtx"];
const FEATURES: [&str; 4] = ["features.tsv.gz", "features.tsv", "genes.tsv.gz", "genes.tsv"];
const BARCODES: [&str; 2] = ["barcodes.tsv.gz", "barcodes.tsv"];

fn first_of(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// Whether a folder is as 10x Genomics' programs write them.
#[must_use]
pub fn is_10x(folder: impl AsRef<Path>) -> bool {
    let folder = folder.as_ref();
    first_of(folder, &MATRIX).is_some() && first_of(folder, &BARCODES).is_some()
}

/// Reads a folder of 10x Genomics: `matrix.mtx.gz`, `features.tsv.gz` and `barcodes.tsv.gz`, or as
/// older programs write them, `matrix.mtx`, `genes.tsv` and `barcodes.tsv`. Rows are features,
/// called by their names, with their identifiers where several have one name; columns are barcodes.
///
/// # Errors
/// As [`read_matrix_market`]; [`Error::Format`] where a file is not there, or has another number
/// of names than the matrix has rows or columns.
pub fn read_10x(folder: impl AsRef<Path>) -> Result<SparseMatrix> {
    tenx(folder.as_ref(), None).map(|(matrix, _)| matrix)
}

/// [`read_10x`] of some rows or columns, as [`read_matrix_market_part`].
///
/// # Errors
/// As [`read_10x`]; a part may have no entries.
pub fn read_10x_part(
    folder: impl AsRef<Path>,
    keep: &Keep<'_>,
) -> Result<(SparseMatrix, [usize; 2])> {
    tenx(folder.as_ref(), Some(keep))
}

fn tenx(folder: &Path, keep: Option<&Keep<'_>>) -> Result<(SparseMatrix, [usize; 2])> {
    let find = |names: &[&str]| {
        first_of(folder, names).ok_or_else(|| {
            let reason = format!("a folder of 10x Genomics holds {}", names.join(" or "));
            Error::format(folder, format!("{reason}, and this one does not"))
        })
    };
    let (matrix, features, barcodes) = (find(&MATRIX)?, find(&FEATURES)?, find(&BARCODES)?);
    let (mut matrix, shape) = match keep {
        Some(keep) => read_matrix_market_part(matrix, keep)?,
        None => {
            let matrix = read_matrix_market(matrix)?;
            let shape = [matrix.rows.len, matrix.columns.len];
            (matrix, shape)
        }
    };
    // Of a part the labels that go with it.
    let own = |axis: usize, labels: Vec<String>| match keep.map(|keep| keep(shape)) {
        Some((along, range)) if along == axis => part_of_labels(&labels, &range),
        _ => labels,
    };

    let lines = lines_of(&features)?;
    let cells =
        |line: &String, i: usize| line.split('\t').nth(i).map(|cell| cell.trim().to_string());
    let ids: Vec<String> = lines.iter().map(|line| cells(line, 0).unwrap_or_default()).collect();
    let names: Vec<String> =
        lines.iter().zip(&ids).map(|(line, id)| cells(line, 1).unwrap_or(id.clone())).collect();
    let mut times: HashMap<&str, u32> = HashMap::new();
    for name in &names {
        *times.entry(name).or_default() += 1;
    }
    let named = names.iter().zip(&ids).map(|(name, id)| match times.get(name.as_str()) {
        Some(1) => name.clone(),
        _ => format!("{name} ({id})"),
    });
    let labels: Vec<String> = named.collect();
    check_names(&features, &labels, shape[0])?;
    matrix.rows.labels = Some(own(0, labels));
    matrix.rows.name = Some("feature".into());

    let labels: Vec<String> =
        lines_of(&barcodes)?.iter().map(|line| cells(line, 0).unwrap_or_default()).collect();
    check_names(&barcodes, &labels, shape[1])?;
    matrix.columns.labels = Some(own(1, labels));
    matrix.columns.name = Some("barcode".into());
    Ok((matrix, shape))
}

/// The labels of some indices; of none that of the first, as no axis is empty.
fn part_of_labels(labels: &[String], range: &Range<usize>) -> Vec<String> {
    let range = if range.is_empty() { 0..1 } else { range.clone() };
    labels.get(range).map(<[String]>::to_vec).unwrap_or_default()
}

fn lines_of(path: &Path) -> Result<Vec<String>> {
    let lines: std::io::Result<Vec<String>> = BufReader::new(source::open(path)?).lines().collect();
    lines.map_err(|e| source::fault(path, e))
}

/// Longer lines are not entries, and must not fill the memory.
const LONGEST_LINE: u64 = 1 << 16;

#[derive(Clone, Copy, PartialEq)]
enum Symmetry {
    General,
    Symmetric,
    Skew,
}

struct Header {
    array: bool,
    pattern: bool,
    symmetry: Symmetry,
}

struct Reader<'a> {
    from: Box<dyn Read + 'a>,
    path: &'a Path,
    /// What is kept; `None` for all.
    keep: Option<&'a Keep<'a>>,
}

impl Reader<'_> {
    /// The matrix, or what is kept of it, and the shape of the whole.
    fn read(self) -> Result<(SparseMatrix, [usize; 2])> {
        let mut lines = Lines {
            from: BufReader::with_capacity(1 << 17, self.from),
            path: self.path,
            line: Vec::new(),
            number: 0,
        };
        if !lines.next()? {
            return Err(Error::format(self.path, "the file is empty"));
        }
        let header = header(&lines)?;
        if !lines.next_entry()? {
            return Err(Error::format(self.path, "the file ends before the size of the matrix"));
        }
        let sizes: Vec<u64> = lines.tokens().map_while(number::whole).collect();
        let whole = sizes.len() == lines.tokens().count();
        let (rows, columns, entries) = match sizes[..] {
            [rows, columns] if header.array && whole => (rows, columns, None),
            [rows, columns, entries] if !header.array && whole => (rows, columns, Some(entries)),
            _ => {
                let what =
                    if header.array { "rows and columns" } else { "rows, columns and entries" };
                return Err(lines.fault(format!("the numbers of {what} are expected")));
            }
        };
        if header.symmetry != Symmetry::General && rows != columns {
            return Err(lines.fault(format!("a symmetric matrix of {rows} by {columns}")));
        }
        let mut collector = Collector::new(rows, columns).map_err(|reason| lines.fault(reason))?;
        let shape = [rows as usize, columns as usize];
        if let Some(keep) = self.keep {
            let (axis, range) = keep(shape);
            collector.keep(axis == 1, range.start as u32..range.end as u32);
        }
        if entries == Some(0) {
            return Err(Error::format(self.path, "there are no entries"));
        }
        let mut matrix = Matrix { collector, header };
        let found = match entries {
            Some(entries) => matrix.coordinates(&mut lines, entries)?,
            None => matrix.array(&mut lines, rows, columns)?,
        };
        if let Some((found, expected)) = found {
            return Err(Error::format(
                self.path,
                format!("{expected} entries are announced, but the file ends after {found}"),
            ));
        }
        if lines.next_entry()? {
            return Err(lines.fault("there are more entries than announced".into()));
        }
        let matrix = matrix.collector.finish();
        Ok((matrix.map_err(|reason| Error::format(self.path, reason))?, shape))
    }
}

fn header(lines: &Lines<'_>) -> Result<Header> {
    let words: Vec<String> =
        lines.tokens().map(|word| String::from_utf8_lossy(word).to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let expected = || {
        lines.fault("a Matrix Market file begins with a line as %%MatrixMarket matrix coordinate real general".into())
    };
    let ["%%matrixmarket", "matrix", format, field, symmetry] = words[..] else {
        return Err(expected());
    };
    let array = match format {
        "coordinate" => false,
        "array" => true,
        _ => return Err(expected()),
    };
    let pattern = match field {
        "real" | "double" | "integer" | "unsigned-integer" => false,
        "pattern" if !array => true,
        "complex" => {
            return Err(Error::Unsupported(format!(
                "{}: matrices of complex numbers are not read: their absolute values could be, scipy.io.mmwrite(file, abs(scipy.io.mmread(file)))",
                lines.path.display()
            )));
        }
        _ => return Err(expected()),
    };
    let symmetry = match symmetry {
        "general" => Symmetry::General,
        "symmetric" => Symmetry::Symmetric,
        "skew-symmetric" => Symmetry::Skew,
        "hermitian" => {
            return Err(Error::Unsupported(format!(
                "{}: hermitian matrices are not read: general, symmetric and skew-symmetric ones are",
                lines.path.display()
            )));
        }
        _ => return Err(expected()),
    };
    Ok(Header { array, pattern, symmetry })
}

struct Matrix {
    collector: Collector,
    header: Header,
}

/// How many entries there are and how many there should be, where that differs.
type Short = Option<(u64, u64)>;

impl Matrix {
    fn coordinates(&mut self, lines: &mut Lines<'_>, entries: u64) -> Result<Short> {
        for i in 0..entries {
            if !lines.next_entry()? {
                return Ok(Some((i, entries)));
            }
            let mut tokens = lines.tokens();
            let mut index = || tokens.next().and_then(number::whole)?.checked_sub(1);
            let place = index().zip(index());
            let value = match self.header.pattern {
                true => Some(1.0),
                false => tokens.next().and_then(number::parse),
            };
            let (Some((row, column)), Some(value), None) = (place, value, tokens.next()) else {
                let what = if self.header.pattern { "" } else { " and a finite number" };
                let line = shown(lines.line.trim_ascii());
                return Err(lines.fault(format!(
                    "{line} is no entry: row and column, counted from 1,{what} are expected"
                )));
            };
            self.put(row, column, value).map_err(|reason| lines.fault(reason))?;
        }
        Ok(None)
    }

    /// All values, column by column; of symmetric matrices those on and below the diagonal.
    fn array(&mut self, lines: &mut Lines<'_>, rows: u64, columns: u64) -> Result<Short> {
        let mut found = 0;
        for column in 0..columns {
            let first = match self.header.symmetry {
                Symmetry::General => 0,
                Symmetry::Symmetric => column,
                Symmetry::Skew => column + 1,
            };
            for row in first..rows {
                if !lines.next_entry()? {
                    let expected = match self.header.symmetry {
                        Symmetry::General => rows.saturating_mul(columns),
                        Symmetry::Symmetric => rows.saturating_mul(rows + 1) / 2,
                        Symmetry::Skew => rows.saturating_mul(rows - 1) / 2,
                    };
                    return Ok(Some((found, expected)));
                }
                found += 1;
                let mut tokens = lines.tokens();
                let value = tokens.next().and_then(number::parse);
                let (Some(value), None) = (value, tokens.next()) else {
                    let line = shown(lines.line.trim_ascii());
                    return Err(lines.fault(format!("{line} is not one finite number")));
                };
                if value != 0.0 {
                    self.put(row, column, value).map_err(|reason| lines.fault(reason))?;
                }
            }
        }
        Ok(None)
    }

    fn put(&mut self, row: u64, column: u64, value: f64) -> Result<(), String> {
        self.collector.push(row, column, value)?;
        match self.header.symmetry {
            Symmetry::General => Ok(()),
            Symmetry::Symmetric if row == column => Ok(()),
            Symmetry::Symmetric => self.collector.push(column, row, value),
            Symmetry::Skew if row == column => {
                Err("a skew-symmetric matrix has no diagonal".into())
            }
            Symmetry::Skew => self.collector.push(column, row, -value),
        }
    }
}

struct Lines<'a> {
    from: BufReader<Box<dyn Read + 'a>>,
    path: &'a Path,
    line: Vec<u8>,
    number: u64,
}

impl Lines<'_> {
    /// Reads the next line. `false` at the end.
    fn next(&mut self) -> Result<bool> {
        self.line.clear();
        self.number += 1;
        let n = (&mut self.from)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut self.line)
            .map_err(|e| source::fault(self.path, e))?;
        if n as u64 == LONGEST_LINE && self.line.last() != Some(&b'\n') {
            return Err(self.fault(format!("longer than {LONGEST_LINE} bytes, not an entry")));
        }
        Ok(n > 0)
    }

    /// Reads the next line that is neither a comment nor empty.
    fn next_entry(&mut self) -> Result<bool> {
        while self.next()? {
            let line = self.line.trim_ascii_start();
            if !line.is_empty() && line[0] != b'%' {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn tokens(&self) -> impl Iterator<Item = &[u8]> {
        self.line.split(u8::is_ascii_whitespace).filter(|token| !token.is_empty())
    }

    fn fault(&self, reason: String) -> Error {
        Error::format(self.path, format!("line {}: {reason}", self.number))
    }
}
