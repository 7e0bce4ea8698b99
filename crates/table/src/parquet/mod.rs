//! The rows of a Parquet file, with every cell as the text that a CSV file would have.
//!
//! What is done with a table is the same for both: filters, missing values, times and labels read
//! text. Only the columns that are needed are unpacked, some thousands of rows at a time.

mod cells;

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::basic::Compression;
use parquet::column::reader::ColumnReader;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use self::cells::{Cells, Form};
use crate::batch::{Batch, RowPlace};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::text::{plain, shown};

/// What a Parquet file begins and ends with.
const MAGIC: &[u8; 4] = b"PAR1";
/// So many rows of a column are unpacked at a time.
const BATCH: usize = 4096;

/// Reads rows.
pub(crate) struct ParquetRows<'a> {
    path: &'a Path,
    file: SerializedFileReader<File>,
    /// The columns that are needed, in their order.
    columns: Vec<Column>,
    /// The row group that comes after the one that is read.
    group: usize,
    /// The rows of this row group that are not unpacked yet.
    left: u64,
    /// The rows before the next.
    row: u64,
}

/// A column that is needed.
struct Column {
    place: usize,
    name: String,
    form: Form,
    reader: Option<ColumnReader>,
    cells: Cells,
}

/// Whether a file is one of this format, by its name or its beginning.
pub(crate) fn is_parquet(path: &Path) -> Result<bool> {
    let lower = path.to_string_lossy().to_ascii_lowercase();
    if lower.ends_with(".parquet") || lower.ends_with(".pq") {
        return Ok(true);
    }
    let mut start = Vec::new();
    let mut file = File::open(path).map_err(|e| Error::file(path, e))?;
    // What is no ordinary file, a pipe say, cannot be read twice, and Parquet has to be.
    let ordinary = file.metadata().is_ok_and(|file| file.is_file());
    if ordinary {
        file.by_ref().take(4).read_to_end(&mut start).map_err(|e| Error::file(path, e))?;
    }
    Ok(start == MAGIC)
}

impl<'a> ParquetRows<'a> {
    /// `header` is whether the first row of a text would name the columns.
    pub fn open(path: &'a Path, header: bool) -> Result<ParquetRows<'a>> {
        if !header {
            return Err(Error::Setting(format!(
                "{}: a Parquet file names its columns; that there is no header (--no-header) can be said of text only",
                path.display()
            )));
        }
        let file = File::open(path).map_err(|e| Error::file(path, e))?;
        let file = guarded(path, || SerializedFileReader::new(file))?;
        let columns = Vec::new();
        Ok(ParquetRows { path, file, columns, group: 0, left: 0, row: 0 })
    }

    /// The names of the columns; parts of structures have dots in theirs.
    pub fn names(&self, batch: &mut Batch) {
        let columns = self.file.metadata().file_metadata().schema_descr().columns();
        let names: Vec<String> = columns.iter().map(|column| column.path().string()).collect();
        batch.clear();
        batch.push(names.iter().map(String::as_bytes), RowPlace::Row(0));
    }

    /// Says which columns are needed: cells of all others are empty.
    pub fn need(&mut self, plan: &Plan) -> Result<()> {
        let mut places = plan.needed();
        places.sort_unstable();
        places.dedup();
        let schema = self.file.metadata().file_metadata().schema_descr();
        for place in places {
            let column = schema.column(place);
            let name = column.path().string();
            let form = Form::of(&column).map_err(|why| {
                Error::Unsupported(format!(
                    "{}: the column {} {why}",
                    self.path.display(),
                    shown(name.as_bytes())
                ))
            })?;
            let cells = Cells::of(&column);
            self.columns.push(Column { place, name, form, reader: None, cells });
        }
        Ok(())
    }

    /// Reads the next rows: none at the end.
    pub fn fill(&mut self, batch: &mut Batch) -> Result<()> {
        batch.clear();
        let rows = self.unpack()?;
        let all = self.file.metadata().file_metadata().schema_descr().num_columns();
        for i in 0..rows {
            self.row += 1;
            let mut needed = self.columns.iter().peekable();
            let cell = |place| match needed.next_if(|column| column.place == place) {
                Some(column) => column.cells.get(i),
                None => &[],
            };
            batch.push((0..all).map(cell), RowPlace::Row(self.row));
        }
        Ok(())
    }

    /// Unpacks the next rows; tells how many.
    fn unpack(&mut self) -> Result<usize> {
        while self.left == 0 {
            if self.group == self.file.num_row_groups() {
                return Ok(0);
            }
            self.open_group()?;
        }
        let rows = self.left.min(BATCH as u64) as usize;
        for column in &mut self.columns {
            let Column { cells, form, .. } = column;
            let read = match &mut column.reader {
                Some(reader) => guarded(self.path, || cells.read(reader, rows, *form))?,
                None => 0,
            };
            if read != rows {
                return Err(Error::format(
                    self.path,
                    format!(
                        "the file is damaged: the column {} has fewer rows than the file says",
                        shown(column.name.as_bytes())
                    ),
                ));
            }
        }
        self.left -= rows as u64;
        Ok(rows)
    }

    fn open_group(&mut self) -> Result<()> {
        let group = guarded(self.path, || self.file.get_row_group(self.group))?;
        self.left = u64::try_from(group.metadata().num_rows()).map_err(|_| {
            Error::format(self.path, "the file is damaged: a negative number of rows")
        })?;
        for column in &mut self.columns {
            let packed = group.metadata().column(column.place).compression();
            let other = match packed {
                Compression::UNCOMPRESSED
                | Compression::SNAPPY
                | Compression::GZIP(_)
                | Compression::ZSTD(_) => None,
                Compression::LZO => Some("LZO"),
                Compression::BROTLI(_) => Some("Brotli"),
                Compression::LZ4 | Compression::LZ4_RAW => Some("LZ4"),
            };
            if let Some(other) = other {
                return Err(Error::Unsupported(format!(
                    "{}: the column {} is packed by {other}; what is packed by Snappy, gzip or Zstandard is read: write the file again, with compression='zstd' in pandas, polars or pyarrow",
                    self.path.display(),
                    shown(column.name.as_bytes())
                )));
            }
            let reader = guarded(self.path, || group.get_column_reader(column.place))?;
            column.reader = Some(reader);
        }
        self.group += 1;
        Ok(())
    }
}

/// Runs a piece of the reader of the format, which panics on some files that are damaged: that is a
/// fault of the file here. What was read in that piece is not used any more.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    let reason = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(
            ParquetError::General(text) | ParquetError::NYI(text) | ParquetError::EOF(text),
        )) => plain(&text),
        Ok(Err(other)) => plain(&other.to_string()),
        Err(_) => "the file is damaged".into(),
    };
    Err(Error::format(path, format!("this cannot be read as Parquet: {reason}")))
}
