//! The rows of one file, whatever its format.

use std::io::Read;
use std::path::Path;

use crate::ahead::RowsAhead;
use crate::batch::{Batch, Row};
use crate::error::{Error, Result};
#[cfg(feature = "parquet")]
use crate::parquet::ParquetRows;
use crate::plan::{Plan, dialect};
use crate::records::Records;
use crate::settings::{Input, Settings};
use crate::source;

/// The rows of one file.
pub(crate) struct Rows<'a> {
    from: Origin<'a>,
    batch: Batch,
    /// The row of the batch that comes next.
    next: usize,
    /// What was found after the last row of the batch.
    fault: Option<Error>,
}

/// Where rows come from.
enum Origin<'a> {
    /// Lines of text.
    Text(Box<Records<Box<dyn Read + 'a>>>),
    /// Lines of text that are told apart on a thread of their own.
    Ahead(RowsAhead),
    /// Columns that are packed one by one.
    #[cfg(feature = "parquet")]
    Parquet(Box<ParquetRows<'a>>),
}

impl<'a> Rows<'a> {
    /// Those of a file.
    pub fn open(path: &'a Path, settings: &Settings) -> Result<Rows<'a>> {
        #[cfg(feature = "parquet")]
        if crate::parquet::is_parquet(path)? {
            let rows = ParquetRows::open(path, settings.header)?;
            return Ok(Rows::of(Origin::Parquet(Box::new(rows))));
        }
        Rows::ahead(source::open_file(path)?, path, settings)
    }

    /// Those that come from anywhere, as text.
    pub fn from_input(input: Input<'a>, name: &'a Path, settings: &Settings) -> Result<Rows<'a>> {
        match input {
            Input::Standard => Rows::ahead(source::unpack(std::io::stdin(), name)?, name, settings),
            Input::Reader(from) => {
                let from: Box<dyn Read + 'a> = Box::new(source::unpack(from, name)?);
                Ok(Rows::here(Records::new(from, name, dialect(settings, name))?))
            }
        }
    }

    /// Rows that a thread tells apart, where there is a second one to use.
    fn ahead(
        from: impl Read + Send + 'static,
        path: &Path,
        settings: &Settings,
    ) -> Result<Rows<'a>> {
        let dialect = dialect(settings, path);
        if rayon::current_num_threads() < 2 {
            let from: Box<dyn Read + 'a> = Box::new(from);
            return Ok(Rows::here(Records::new(from, path, dialect)?));
        }
        let from: Box<dyn Read + Send> = Box::new(from);
        match RowsAhead::start(Records::new(from, path, dialect)?, path, &settings.cancel) {
            Ok(rows) => Ok(Rows::of(Origin::Ahead(rows))),
            Err(records) => Ok(Rows::here(records.map(|from| -> Box<dyn Read + 'a> { from }))),
        }
    }

    fn here(records: Records<Box<dyn Read + 'a>>) -> Rows<'a> {
        Rows::of(Origin::Text(Box::new(records)))
    }

    fn of(from: Origin<'a>) -> Rows<'a> {
        Rows { from, batch: Batch::default(), next: 0, fault: None }
    }

    /// Reads the names of the columns, or the first row where text has no header. `None` where
    /// there is nothing.
    pub fn first(&mut self) -> Result<Option<Row<'_>>> {
        #[cfg(feature = "parquet")]
        if let Origin::Parquet(rows) = &self.from {
            rows.names(&mut self.batch);
            (self.next, self.fault) = (1, None);
            return Ok(Some(self.batch.row(0)));
        }
        self.next()
    }

    /// Says which columns are needed. The cells of others may be empty.
    #[cfg_attr(not(feature = "parquet"), expect(unused_variables))]
    pub fn need(&mut self, plan: &Plan) -> Result<()> {
        #[cfg(feature = "parquet")]
        if let Origin::Parquet(rows) = &mut self.from {
            return rows.need(plan);
        }
        Ok(())
    }

    /// Reads the next row. `None` where there is none.
    #[inline]
    pub fn next(&mut self) -> Result<Option<Row<'_>>> {
        if self.next == self.batch.len() && !self.refill()? {
            return Ok(None);
        }
        self.next += 1;
        Ok(Some(self.batch.row(self.next - 1)))
    }

    /// Takes the next batch. `false` where there is none.
    fn refill(&mut self) -> Result<bool> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        self.next = 0;
        let batch = &mut self.batch;
        let filled = match &mut self.from {
            Origin::Text(records) => records.fill(batch),
            Origin::Ahead(rows) => rows.fill(batch),
            #[cfg(feature = "parquet")]
            Origin::Parquet(rows) => rows.fill(batch),
        };
        match filled {
            Err(fault) if self.batch.len() > 0 => self.fault = Some(fault),
            other => other?,
        }
        Ok(self.batch.len() > 0)
    }
}
