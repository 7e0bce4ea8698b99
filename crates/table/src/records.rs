//! The rows of a text, one after the other, in memory that does not grow with the table.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use csv_core::ReadRecordResult;

use crate::batch::{Batch, RowPlace};
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
pub(crate) struct Records<R> {
    from: R,
    path: PathBuf,
    parser: csv_core::Reader,
    block: Vec<u8>,
    start: usize,
    end: usize,
    /// How often bytes were read.
    reads: u64,
    /// The line that is read next, counted from 1.
    line: u64,
}

impl<R: Read> Records<R> {
    pub fn new(from: R, path: &Path, dialect: Dialect) -> Result<Records<R>> {
        let mut builder = csv_core::ReaderBuilder::new();
        builder.delimiter(dialect.separator);
        match dialect.quote {
            Some(quote) => builder.quote(quote),
            None => builder.quoting(false),
        };
        let mut records = Records {
            from,
            path: path.to_path_buf(),
            parser: builder.build(),
            block: vec![0; BLOCK],
            start: 0,
            end: 0,
            reads: 0,
            line: 1,
        };
        // A byte order mark can come in pieces.
        while records.end < 3 && records.more()? {}
        if records.block[..records.end].starts_with(b"\xef\xbb\xbf") {
            records.start = 3;
        }
        Ok(records)
    }

    /// Reads more bytes after those that are there. `false` at the end.
    fn more(&mut self) -> Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        self.reads += 1;
        loop {
            match self.from.read(&mut self.block[self.end..]) {
                Ok(n) => {
                    self.end += n;
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(source::fault(&self.path, e)),
            }
        }
    }

    /// Reads the rows that begin in the bytes that are there, or else in the next: none at the end. Rows
    /// before a fault are in the batch.
    pub fn fill(&mut self, batch: &mut Batch) -> Result<()> {
        batch.clear();
        loop {
            let reads = self.reads;
            let ends = !self.next(batch)? || self.start == self.end;
            // Not far beyond these bytes: batches stay small, and who waits for rows need not wait for all.
            if ends || (self.reads > reads && batch.len() > 1) {
                return Ok(());
            }
        }
    }

    /// Reads the next row. `false` where there is none. Empty lines are passed over.
    fn next(&mut self, batch: &mut Batch) -> Result<bool> {
        loop {
            if self.start == self.end && !self.more()? {
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
        let (mut written, mut cells) = (0, 0);
        loop {
            let input = &self.block[self.start..self.end];
            let (texts, ends) = batch.room(written, cells);
            let (result, read, bytes, ended) = self.parser.read_record(input, texts, ends);
            self.line += input[..read].iter().filter(|&&b| b == b'\n').count() as u64;
            self.start += read;
            written += bytes;
            cells += ended;
            if written.max(cells) >= LONGEST_ROW {
                return Err(self.too_long(line));
            }
            match result {
                ReadRecordResult::InputEmpty => {
                    self.more()?;
                }
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => batch.grow(),
                ReadRecordResult::Record => {
                    batch.keep(written, cells, RowPlace::Line(line));
                    return Ok(true);
                }
                ReadRecordResult::End => return Ok(false),
            }
        }
    }

    /// The same with another reader in place of this one, which has what it has not read yet.
    pub fn map<S>(self, change: impl FnOnce(R) -> S) -> Records<S> {
        let Records { from, path, parser, block, start, end, reads, line } = self;
        Records { from: change(from), path, parser, block, start, end, reads, line }
    }

    fn too_long(&self, line: u64) -> Error {
        Error::format(
            &self.path,
            format!(
                "the row that begins on line {line} is longer than {LONGEST_ROW} bytes: is a quote not closed? (without quotes, quotes are ordinary characters)"
            ),
        )
    }
}
