//! Reading a table: row by row, once or twice.

use std::path::{Path, PathBuf};

use crate::ahead::cancelled;
use crate::batch::Row;
use crate::encoder::{Encoder, Fault, Place, Raw};
use crate::entry_store::{EntryStore, HELP, Operation, refused};
use crate::error::{Error, Result};
use crate::finish;
use crate::plan::Plan;
use crate::rows::Rows;
use crate::settings::{Settings, Source, Values};
use crate::tensor::{Counts, TableTensor};
use crate::text::shown;
use crate::time::{Moment, TimeReader};

/// So many bytes of the cells that are needed are kept rather than reading files twice.
const BUFFER: u64 = 64 << 20;
/// How many rows pass between two looks at the memory.
const ROWS_BETWEEN: u64 = 256;

/// Reads the table.
pub(crate) fn read(mut source: Source<'_>, settings: &Settings) -> Result<TableTensor> {
    let mut reading = Reading::new(settings)?;
    if reading.encoders.iter().any(Encoder::looks_ahead) {
        let again = source.can_be_read_again();
        reading.buffer = Some(Buffer::new(&reading.encoders, settings));
        reading.pass(&mut source, Purpose::Survey { again })?;
        let name = source.name();
        for encoder in &mut reading.encoders {
            encoder.finish_column().map_err(|reason| Error::format(&name, reason))?;
        }
        match reading.buffer.take() {
            Some(buffer) => reading.replay(&buffer, &name)?,
            None => {
                reading.counts = Counts::default();
                reading.pass(&mut source, Purpose::Fill)?;
            }
        }
    } else {
        reading.pass(&mut source, Purpose::Fill)?;
    }
    let Reading { encoders, cells, counts, .. } = reading;
    finish::finish(encoders, cells, counts, settings, &source.name())
}

/// What is in one file of a table that several processes read together: see `shared`.
pub(crate) struct ReadFile {
    pub encoders: Vec<Encoder>,
    pub cells: EntryStore,
    pub counts: Counts,
}

/// What the first reading of a file notes, where the modes need one.
pub(crate) fn survey(path: &Path, settings: &Settings) -> Result<Vec<Encoder>> {
    let mut reading = Reading::new(settings)?;
    let mut source = Source::Files(vec![path.to_path_buf()]);
    reading.pass(&mut source, Purpose::Survey { again: true })?;
    Ok(reading.encoders)
}

/// Reads one file, with encoders that have seen all rows where the modes need that.
pub(crate) fn fill(path: &Path, settings: &Settings, known: &[Encoder]) -> Result<ReadFile> {
    let mut reading = Reading::new(settings)?;
    for (encoder, known) in reading.encoders.iter_mut().zip(known) {
        if encoder.looks_ahead() {
            *encoder = known.clone();
        }
    }
    reading.pass(&mut Source::Files(vec![path.to_path_buf()]), Purpose::Fill)?;
    let Reading { encoders, cells, counts, .. } = reading;
    Ok(ReadFile { encoders, cells, counts })
}

/// The encoders of a table of which nothing was read, and a store for its entries.
pub(crate) fn nothing(settings: &Settings) -> Result<(Vec<Encoder>, EntryStore)> {
    let Reading { encoders, cells, .. } = Reading::new(settings)?;
    Ok((encoders, cells))
}

/// The names of the columns, by the first row.
pub(crate) fn columns(source: Source<'_>, settings: &Settings) -> Result<Vec<String>> {
    let name = source.name();
    let mut rows = match source {
        Source::Files(_) => Rows::open(&name, settings)?,
        Source::Stream { from: Some(from), .. } => Rows::from_input(from, &name, settings)?,
        Source::Stream { from: None, .. } => return Err(changed(&name)),
    };
    let first = rows.first()?.ok_or_else(|| empty(&name))?;
    Ok(Plan::names(settings, first))
}

fn empty(path: &Path) -> Error {
    Error::format(path, "there is nothing in the table: not even a first row")
}

impl Source<'_> {
    fn can_be_read_again(&self) -> bool {
        match self {
            Source::Files(paths) => paths.iter().all(|path| path.is_file()),
            Source::Stream { .. } => false,
        }
    }

    fn name(&self) -> PathBuf {
        match self {
            Source::Files(paths) => paths.first().cloned().unwrap_or_default(),
            Source::Stream { name, .. } => name.clone(),
        }
    }
}

/// What rows are read for.
#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    /// To see all of them before any is placed.
    Survey {
        /// Whether they can be read a second time.
        again: bool,
    },
    /// To place them.
    Fill,
}

/// What becomes of a row.
enum Outcome {
    Counts(f64),
    Filtered,
}

/// A cell that cannot be read.
struct Bad {
    column: usize,
    fault: Fault,
}

/// The state of reading.
struct Reading<'s> {
    settings: &'s Settings,
    encoders: Vec<Encoder>,
    /// One for every column that holds times.
    times: Vec<TimeReader>,
    /// The reader of every mode's times.
    time_of: Vec<Option<usize>>,
    /// The times in the row, as far as they were read.
    moments: Vec<Option<Moment>>,
    /// What was read for every mode.
    raws: Vec<Raw>,
    codes: Vec<u32>,
    cells: EntryStore,
    counts: Counts,
    buffer: Option<Buffer>,
}

impl<'s> Reading<'s> {
    fn new(settings: &'s Settings) -> Result<Reading<'s>> {
        let specs = settings.modes.as_slice();
        let mut encoders = Vec::with_capacity(specs.len());
        let mut columns: Vec<&str> = Vec::new();
        let mut time_of = Vec::with_capacity(specs.len());
        for spec in specs {
            encoders.push(Encoder::new(&spec.function).ok_or_else(|| {
                Error::Setting(format!(
                    "{spec} makes bins that are too many for floats to tell apart, or for the memory"
                ))
            })?);
            time_of.push(spec.function.is_of_time().then(|| {
                columns.iter().position(|column| *column == spec.column).unwrap_or_else(|| {
                    columns.push(&spec.column);
                    columns.len() - 1
                })
            }));
        }
        let operation = match settings.values {
            Values::Count | Values::Sum(_) => Operation::Sum,
            Values::Mean(_) => Operation::Mean,
            Values::Max(_) => Operation::Max,
        };
        let widths = encoders.iter().map(Encoder::width).collect();
        let reader =
            |_: &&str| TimeReader::new(settings.time_format.clone(), settings.zones.clone());
        Ok(Reading {
            settings,
            times: columns.iter().map(reader).collect(),
            moments: vec![None; columns.len()],
            time_of,
            raws: vec![Raw::Code(0); specs.len()],
            codes: vec![0; specs.len()],
            cells: EntryStore::new(widths, operation),
            counts: Counts::default(),
            buffer: None,
            encoders,
        })
    }

    /// Reads all rows.
    fn pass(&mut self, source: &mut Source<'_>, purpose: Purpose) -> Result<()> {
        match source {
            Source::Files(paths) => {
                for path in paths.iter() {
                    self.file(Rows::open(path, self.settings)?, path, purpose)?;
                }
                Ok(())
            }
            Source::Stream { from, name } => {
                let Some(from) = from.take() else { return Err(changed(name)) };
                self.file(Rows::from_input(from, name, self.settings)?, name, purpose)
            }
        }
    }

    fn file(&mut self, mut rows: Rows<'_>, path: &Path, purpose: Purpose) -> Result<()> {
        let first = rows.first()?.ok_or_else(|| empty(path))?;
        let plan = Plan::new(self.settings, first, path)?;
        if !self.settings.header {
            self.row(&plan, first, path, purpose)?;
        }
        rows.need(&plan)?;
        while let Some(row) = rows.next()? {
            self.row(&plan, row, path, purpose)?;
        }
        Ok(())
    }

    fn row(&mut self, plan: &Plan, row: Row<'_>, path: &Path, purpose: Purpose) -> Result<()> {
        if self.counts.rows.is_multiple_of(ROWS_BETWEEN) {
            cancelled(&self.settings.cancel, path)?;
            self.look_at_memory(path, purpose)?;
        }
        self.counts.rows += 1;
        // When nothing is kept of the first reading, and bad rows are an error sooner or later,
        // only what the first reading is for is looked at.
        let light = matches!(purpose, Purpose::Survey { .. })
            && self.buffer.is_none()
            && !self.settings.skip_bad;
        match self.cells_of(plan, row, light) {
            Ok(Outcome::Filtered) => {
                self.counts.filtered += 1;
                Ok(())
            }
            Ok(Outcome::Counts(value)) => match purpose {
                Purpose::Fill => self.place(value, path),
                Purpose::Survey { .. } => {
                    for (encoder, &raw) in self.encoders.iter_mut().zip(&self.raws) {
                        encoder.note(raw);
                    }
                    match self.buffer.as_mut().map(|buffer| buffer.push(&self.raws, value)) {
                        Some(false) => Err(no_memory(path)),
                        _ => Ok(()),
                    }
                }
            },
            Err(Bad { fault: Fault::Full, .. }) => Err(no_memory(path)),
            Err(Bad { column, fault: Fault::Bad(reason) }) => {
                let place = if row.len() == plan.names.len() {
                    format!("{}, {}: {reason}", row.place(), plan.column(column))
                } else {
                    format!("{}: {reason}", row.place())
                };
                if !self.settings.skip_bad {
                    return Err(Error::format(path, place));
                }
                self.counts.bad += 1;
                let first = || format!("{}: {place}", path.display());
                self.counts.first_bad.get_or_insert_with(first);
                Ok(())
            }
        }
    }

    /// Reads the cells of a row that are needed.
    #[inline]
    fn cells_of(&mut self, plan: &Plan, row: Row<'_>, light: bool) -> Result<Outcome, Bad> {
        if row.len() != plan.names.len() {
            let (found, expected) = (row.len(), plan.names.len());
            let reason = format!("{found} cells, but the first row has {expected}");
            return Err(Bad { column: 0, fault: Fault::Bad(reason) });
        }
        if let Some(filter) = &self.settings.filter {
            for (i, &column) in plan.filter.iter().enumerate() {
                let cell = row.cell(column);
                match filter.passes(i, cell) {
                    Some(true) => {}
                    Some(false) => return Ok(Outcome::Filtered),
                    None => return Err(bad(column, format!("{} is not UTF-8", shown(cell)))),
                }
            }
        }
        self.moments.fill(None);
        for (mode, &column) in plan.modes.iter().enumerate() {
            let encoder = &mut self.encoders[mode];
            if light && !encoder.looks_ahead() {
                continue;
            }
            let cell = row.cell(column);
            if self.settings.is_missing(cell) {
                return Err(bad(column, missing(cell)));
            }
            let mut moment = Moment::default();
            if let Some(time) = self.time_of[mode] {
                moment = match self.moments[time] {
                    Some(moment) => moment,
                    None => {
                        let read = self.times[time].read(cell);
                        *self.moments[time].insert(read.map_err(|reason| bad(column, reason))?)
                    }
                };
            }
            self.raws[mode] = encoder.read(cell, moment).map_err(|fault| Bad { column, fault })?;
        }
        let Some(column) = plan.value else { return Ok(Outcome::Counts(1.0)) };
        if light {
            return Ok(Outcome::Counts(1.0));
        }
        let cell = row.cell(column);
        if self.settings.is_missing(cell) {
            return Err(bad(column, missing(cell)));
        }
        match crate::number::parse(cell) {
            Some(value) => Ok(Outcome::Counts(value)),
            None => Err(bad(column, format!("{} is not a finite number", shown(cell)))),
        }
    }

    /// Adds what was read of a row to its entry.
    #[inline]
    fn place(&mut self, value: f64, path: &Path) -> Result<()> {
        for ((encoder, &raw), code) in self.encoders.iter().zip(&self.raws).zip(&mut self.codes) {
            match encoder.place(raw) {
                Place::At(at) => *code = at,
                Place::Outside => {
                    self.counts.outside += 1;
                    return Ok(());
                }
                Place::Rare => {
                    self.counts.rare += 1;
                    return Ok(());
                }
                Place::Changed => return Err(changed(path)),
            }
        }
        self.cells.add(&self.codes, value).map_err(|e| refused(e, self.settings.memory))
    }

    /// Places the rows that were kept.
    fn replay(&mut self, buffer: &Buffer, path: &Path) -> Result<()> {
        let kept = buffer.memory();
        for row in 0..buffer.rows {
            if (row as u64).is_multiple_of(ROWS_BETWEEN) {
                cancelled(&self.settings.cancel, path)?;
                self.give_allowance(kept);
            }
            let value = buffer.get(row, &mut self.raws);
            self.place(value, path)?;
        }
        Ok(())
    }

    fn give_allowance(&mut self, kept: u64) {
        if let Some(limit) = self.settings.memory {
            let labels: u64 = self.encoders.iter().map(Encoder::memory).sum();
            self.cells.allowance = limit.saturating_sub(labels + kept);
        }
    }

    /// Drops what is kept where files can be read again, and holds the limit.
    fn look_at_memory(&mut self, path: &Path, purpose: Purpose) -> Result<()> {
        let mut kept = self.buffer.as_ref().map_or(0, Buffer::memory);
        let most = self.settings.memory.map_or(BUFFER, |limit| BUFFER.min(limit / 4));
        if purpose == (Purpose::Survey { again: true }) && kept > most {
            self.buffer = None;
            kept = 0;
        }
        let Some(limit) = self.settings.memory else { return Ok(()) };
        let labels: u64 = self.encoders.iter().map(Encoder::memory).sum();
        let needed = labels + kept + self.cells.memory();
        self.give_allowance(kept);
        if needed > limit {
            return Err(Error::Memory {
                what: format!("reading {}", path.display()),
                needed,
                available: limit,
                help: if kept > labels {
                    "all rows of a stream are kept for bins and most frequent values: a file, or bins over a given range, would need less".into()
                } else {
                    HELP.into()
                },
            });
        }
        Ok(())
    }
}

fn bad(column: usize, reason: String) -> Bad {
    Bad { column, fault: Fault::Bad(reason) }
}

fn missing(cell: &[u8]) -> String {
    match cell.trim_ascii() {
        [] => "the cell is empty".into(),
        text => format!("{} stands for a missing value", shown(text)),
    }
}

fn changed(path: &Path) -> Error {
    Error::format(path, "the table changed while it was read")
}

fn no_memory(path: &Path) -> Error {
    Error::Unsupported(format!(
        "{}: the labels or rows are more than the memory, or than 2^32",
        path.display()
    ))
}

impl Settings {
    #[inline]
    fn is_missing(&self, cell: &[u8]) -> bool {
        // Most cells are longer than any of these texts.
        let longest = 16;
        if cell.len() > longest && self.missing.iter().all(|text| text.len() <= longest) {
            return cell.iter().all(u8::is_ascii_whitespace);
        }
        let cell = cell.trim_ascii();
        self.missing.iter().any(|text| text == cell)
    }
}

/// The cells that are needed of all rows so far.
struct Buffer {
    columns: Vec<Column>,
    values: Option<Vec<f64>>,
    rows: usize,
}

enum Column {
    Codes(Vec<u32>),
    Numbers(Vec<f64>),
}

impl Buffer {
    fn new(encoders: &[Encoder], settings: &Settings) -> Buffer {
        let column = |encoder: &Encoder| match encoder.keeps_numbers() {
            true => Column::Numbers(Vec::new()),
            false => Column::Codes(Vec::new()),
        };
        let columns = encoders.iter().map(column).collect();
        let values = (settings.values != Values::Count).then(Vec::new);
        Buffer { columns, values, rows: 0 }
    }

    /// Keeps a row. `false` where there is no memory for it.
    fn push(&mut self, raws: &[Raw], value: f64) -> bool {
        for (column, &raw) in self.columns.iter_mut().zip(raws) {
            let kept = match (column, raw) {
                (Column::Codes(codes), Raw::Code(code)) => put(codes, code),
                (Column::Numbers(numbers), Raw::Number(x)) => put(numbers, x),
                _ => false,
            };
            if !kept {
                return false;
            }
        }
        self.rows += 1;
        self.values.as_mut().is_none_or(|values| put(values, value))
    }

    fn get(&self, row: usize, raws: &mut [Raw]) -> f64 {
        for (column, raw) in self.columns.iter().zip(raws) {
            *raw = match column {
                Column::Codes(codes) => Raw::Code(codes[row]),
                Column::Numbers(numbers) => Raw::Number(numbers[row]),
            };
        }
        self.values.as_ref().map_or(1.0, |values| values[row])
    }

    fn memory(&self) -> u64 {
        let column = |column: &Column| match column {
            Column::Codes(codes) => 4 * codes.capacity(),
            Column::Numbers(numbers) => 8 * numbers.capacity(),
        };
        let values = self.values.as_ref().map_or(0, |values| 8 * values.capacity());
        (self.columns.iter().map(column).sum::<usize>() + values) as u64
    }
}

fn put<T>(list: &mut Vec<T>, item: T) -> bool {
    let room = list.len() < list.capacity() || list.try_reserve(1).is_ok();
    if room {
        list.push(item);
    }
    room
}
