//! The rows of one file, whatever its format.

use std::io::Read;
use std::path::Path;

use crate::error::Result;
#[cfg(feature = "parquet")]
use crate::parquet::ParquetRows;
use crate::plan::{Plan, dialect};
use crate::records::{Record, Records};
use crate::settings::Settings;
use crate::source;

/// The rows of one file.
pub(crate) enum Rows<'a> {
    /// Lines of text.
    Text(Box<Records<'a>>),
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
            return Ok(Rows::Parquet(Box::new(rows)));
        }
        let records = Records::new(source::open(path)?, path, dialect(settings, path))?;
        Ok(Rows::Text(Box::new(records)))
    }

    /// Those that come from anywhere, as text.
    pub fn from_stream(
        from: Box<dyn Read + 'a>,
        name: &'a Path,
        settings: &Settings,
    ) -> Result<Rows<'a>> {
        let from = source::unpack(from, name)?;
        let records = Records::new(from, name, dialect(settings, name))?;
        Ok(Rows::Text(Box::new(records)))
    }

    /// Reads the names of the columns, or the first row where text has no header. `false` where
    /// there is nothing.
    pub fn first(&mut self, record: &mut Record) -> Result<bool> {
        match self {
            Rows::Text(records) => records.next(record),
            #[cfg(feature = "parquet")]
            Rows::Parquet(rows) => {
                rows.names(record);
                Ok(true)
            }
        }
    }

    /// Says which columns are needed. The cells of others may be empty.
    #[cfg_attr(not(feature = "parquet"), expect(unused_variables))]
    pub fn need(&mut self, plan: &Plan) -> Result<()> {
        match self {
            Rows::Text(_) => Ok(()),
            #[cfg(feature = "parquet")]
            Rows::Parquet(rows) => rows.need(plan),
        }
    }

    /// Reads the next row. `false` where there is none.
    pub fn next(&mut self, record: &mut Record) -> Result<bool> {
        match self {
            Rows::Text(records) => records.next(record),
            #[cfg(feature = "parquet")]
            Rows::Parquet(rows) => rows.next(record),
        }
    }
}
