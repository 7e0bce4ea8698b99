//! The rows of a table, one after the other, in memory that does not grow with the table.

use std::io::{self, Read};
use std::path::Path;

use csv_core::ReadRecordResult;

use crate::error::{Error, Result};
use crate::source;

/// How the cells of a row are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub separator: u8,
    pub quote: Option<u8>,
}

/// A longer row is no row: a quote that is not closed, or no table at all.
const LONGEST_ROW: usize = 1 << 24;
const BLOCK: usize = 1 << 17;

/// Reads rows.
pub(crate) struct Records<'a> {
    from: Box<dyn Read + 'a>,
    path: &'a Path,
    parser: csv_core::Reader,
    block: Vec<u8>,
    start: usize,
    end: usize,
    /// The line that is read next, counted from 1.
    line: u64,
}

/// One row.
#[derive(Debug, Default)]
pub(crate) struct Record {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    len: usize,
    place: Place,
}

/// Where a row is in its file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The line that it begins on.
    Line(u64),
    /// Its number, where there are no lines.
    #[cfg(feature = "parquet")]
    Row(u64),
}

impl Default for Place {
    fn default() -> Place {
        Place::Line(1)
    }
}

impl Record {
    /// How many cells it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// A cell; empty where there is none.
    pub fn cell(&self, i: usize) -> &[u8] {
        if i >= self.len {
            return &[];
        }
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }

    /// All cells.
    pub fn cells(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len).map(|i| self.cell(i))
    }

    /// Where it is, for messages.
    pub fn place(&self) -> String {
        match self.place {
            Place::Line(line) => format!("line {line}"),
            #[cfg(feature = "parquet")]
            Place::Row(row) => format!("row {row}"),
        }
    }
}

/// Rows that are put together cell by cell.
#[cfg(feature = "parquet")]
impl Record {
    /// Begins another row, by its number.
    pub fn restart_row(&mut self, row: u64) {
        (self.len, self.place) = (0, Place::Row(row));
    }

    /// Adds a cell.
    pub fn push(&mut self, cell: &[u8]) {
        let start = if self.len == 0 { 0 } else { self.ends[self.len - 1] };
        let end = start + cell.len();
        if self.bytes.len() < end {
            self.bytes.resize(end.next_power_of_two(), 0);
        }
        self.bytes[start..end].copy_from_slice(cell);
        if self.ends.len() == self.len {
            self.ends.push(end);
        }
        self.ends[self.len] = end;
        self.len += 1;
    }

    /// Adds empty cells until there are so many.
    pub fn skip_to(&mut self, cells: usize) {
        while self.len < cells {
            self.push(&[]);
        }
    }
}

impl<'a> Records<'a> {
    pub fn new(from: Box<dyn Read + 'a>, path: &'a Path, dialect: Dialect) -> Result<Records<'a>> {
        let mut builder = csv_core::ReaderBuilder::new();
        builder.delimiter(dialect.separator);
        match dialect.quote {
            Some(quote) => builder.quote(quote),
            None => builder.quoting(false),
        };
        let mut records = Records {
            from,
            path,
            parser: builder.build(),
            block: vec![0; BLOCK],
            start: 0,
            end: 0,
            line: 1,
        };
        // A byte order mark can come in pieces.
        while records.end < 3 && records.fill()? {}
        if records.block[..records.end].starts_with(b"\xef\xbb\xbf") {
            records.start = 3;
        }
        Ok(records)
    }

    /// Reads more bytes after those that are there. `false` at the end.
    fn fill(&mut self) -> Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        loop {
            match self.from.read(&mut self.block[self.end..]) {
                Ok(n) => {
                    self.end += n;
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(source::fault(self.path, e)),
            }
        }
    }

    /// Reads the next row. `false` where there is none. Empty lines are passed over.
    pub fn next(&mut self, record: &mut Record) -> Result<bool> {
        loop {
            if self.start == self.end && !self.fill()? {
                return Ok(false);
            }
            match self.block[self.start] {
                b'\n' => self.line += 1,
                b'\r' => {}
                _ => break,
            }
            self.start += 1;
        }
        let line = self.line;
        record.place = Place::Line(line);
        record.len = 0;
        let (mut written, mut cells) = (0, 0);
        loop {
            let input = &self.block[self.start..self.end];
            let (result, read, bytes, ends) = self.parser.read_record(
                input,
                &mut record.bytes[written..],
                &mut record.ends[cells..],
            );
            self.line += input[..read].iter().filter(|&&b| b == b'\n').count() as u64;
            self.start += read;
            written += bytes;
            cells += ends;
            match result {
                ReadRecordResult::InputEmpty => {
                    self.fill()?;
                }
                ReadRecordResult::OutputFull => self.grow(&mut record.bytes, line)?,
                ReadRecordResult::OutputEndsFull => self.grow(&mut record.ends, line)?,
                ReadRecordResult::Record => {
                    record.len = cells;
                    return Ok(true);
                }
                ReadRecordResult::End => return Ok(false),
            }
        }
    }

    fn grow<T: Clone + Default>(&self, buffer: &mut Vec<T>, line: u64) -> Result<()> {
        if buffer.len() >= LONGEST_ROW {
            return Err(Error::format(
                self.path,
                format!(
                    "the row that begins on line {line} is longer than {LONGEST_ROW} bytes: is a quote not closed? (without quotes, quotes are ordinary characters)"
                ),
            ));
        }
        let len = (2 * buffer.len()).max(256);
        buffer.resize(len, T::default());
        Ok(())
    }
}
