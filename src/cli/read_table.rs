//! Reads tables and sparse matrices with their names, as their options say.

use std::path::Path;

use super::complain;
use crate::io::{self, NamedTensor, TableTensor, TableValues};
use nneinfact_core::data::{LabelKind, printable};
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::io::FileKind;
use nneinfact_fit::{DataRecord, Saved, TableRecord, ValuesRecord};
use nneinfact_table::{Function, Implicit, Modes, SparseMatrix, Table};

/// What data are, by their name and the options that go with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKind {
    /// What `fit::io` reads.
    File(FileKind),
    /// A `.tns` that is packed.
    PackedTns,
    /// A `.mtx`, packed or not.
    MatrixMarket,
    /// A folder as 10x Genomics' programs write them.
    TenX,
    /// A table of events.
    Table,
}

/// The name that stands for standard input.
const STANDARD_INPUT: &str = "-";

impl DataKind {
    /// What the data of a record are.
    pub fn of(record: &DataRecord) -> Result<DataKind> {
        let path = &record.path;
        if is_standard_input(path) {
            return Ok(DataKind::Table);
        }
        let lower = path.to_string_lossy().to_ascii_lowercase();
        let ends = |endings: &[&str]| endings.iter().any(|ending| lower.ends_with(ending));
        if path.is_dir() && !ends(&[".zarr", ".h5ad"]) {
            return match io::is_10x(path) {
                true => Ok(DataKind::TenX),
                false => Err(Error::format(
                    path,
                    "this is a folder, and not one as 10x Genomics' programs write them, with a \
                     matrix.mtx.gz, barcodes.tsv.gz and features.tsv.gz: name a file in it",
                )),
            };
        }
        if let Some(sentence) = io::describe_foreign(path) {
            return Err(Error::Unsupported(sentence));
        }
        if ends(&[".mtx", ".mtx.gz"]) {
            return Ok(DataKind::MatrixMarket);
        }
        if ends(&[".tns.gz"]) {
            return Ok(DataKind::PackedTns);
        }
        let tables = [".csv", ".tsv", ".tab", ".txt", ".psv", ".csv.gz", ".tsv.gz", ".tab.gz"];
        // Without the feature that reads them they were told of above.
        if ends(&[".parquet", ".pq"]) {
            return Ok(DataKind::Table);
        }
        match FileKind::of(path) {
            Ok(kind) => Ok(DataKind::File(kind)),
            // With modes any text is a table.
            Err(_) if record.table.is_some() || ends(&tables) || ends(&[".txt.gz", ".psv.gz"]) => {
                Ok(DataKind::Table)
            }
            Err(_) => Err(Error::format(
                path,
                "the extension does not say what the file holds: .npy, .npz, .tns and .mtx are read, \
                 and tables as .csv or .tsv, or any text with --modes",
            )),
        }
    }
}

/// Whether the data come on standard input.
pub fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == STANDARD_INPUT
}

/// Reads a table; `letters` are those after the model's arrow, where there is a model.
pub fn table(record: &DataRecord, letters: Option<&[char]>) -> Result<TableTensor> {
    opened(record, letters)?.read()
}

/// A table that is to be read.
pub fn opened(record: &DataRecord, letters: Option<&[char]>) -> Result<Table<'static>> {
    let path = &record.path;
    let Some(settings) = &record.table else {
        return Err(Error::Setting(format!(
            "{} is a table: say with --modes which columns, or functions of them, become the modes \
             of the tensor, as in --modes 'hour(time),zone'{}",
            path.display(),
            columns(path)
        )));
    };
    let mut table = open(path)?
        .modes(&arranged(&settings.modes, letters)?)?
        .values(values(&settings.values))
        .skip_bad(settings.skip_bad)
        .header(!settings.no_header);
    if record.unlisted_missing && record.unlisted_zero {
        return Err(Error::Setting(
            "--unlisted-missing and --unlisted-zero exclude each other".into(),
        ));
    }
    if record.unlisted_missing {
        table = table.implicit(Implicit::Missing);
    }
    if record.unlisted_zero {
        table = table.implicit(Implicit::Zero);
    }
    for condition in &settings.filters {
        table = table.filter(condition)?;
    }
    for (mode, file) in &settings.orders {
        table = table.order_file(mode, file)?;
    }
    dialect(table, settings)
}

/// The table with how its rows are written.
fn dialect<'a>(mut table: Table<'a>, settings: &TableRecord) -> Result<Table<'a>> {
    let byte = |what: &str, character: char| {
        u8::try_from(character).ok().filter(u8::is_ascii).ok_or_else(|| {
            Error::Setting(format!("{what} {character:?} is not an ASCII character"))
        })
    };
    if let Some(separator) = settings.separator {
        table = table.separator(byte("the separator", separator)?);
    }
    if let Some(quote) = &settings.quote {
        let mut characters = quote.chars();
        table = match (characters.next(), characters.next()) {
            (None, _) => table.quote(None),
            (Some(quote), None) => table.quote(Some(byte("the quote", quote)?)),
            _ => {
                return Err(Error::Setting(format!(
                    "the quote {quote:?} is not one character, or none"
                )));
            }
        };
    }
    if let Some(texts) = &settings.missing_texts {
        table = table.missing(texts.iter().cloned());
    }
    if let Some(format) = &settings.time_format {
        table = table.time_format(format)?;
    }
    if let Some(zone) = &settings.time_zone {
        table = table.time_zone(zone)?;
    }
    if let Some(bytes) = settings.memory {
        table = table.memory_limit(bytes);
    }
    Ok(table)
}

fn open(path: &Path) -> Result<Table<'static>> {
    match path.to_str() {
        Some(STANDARD_INPUT) => Ok(Table::standard_input()),
        Some(pattern) => Table::matching(pattern),
        None => Ok(Table::open(path)),
    }
}

fn values(values: &ValuesRecord) -> TableValues {
    match values {
        ValuesRecord::Count => TableValues::Count,
        ValuesRecord::Sum(column) => TableValues::Sum(column.clone()),
        ValuesRecord::Mean(column) => TableValues::Mean(column.clone()),
        ValuesRecord::Max(column) => TableValues::Max(column.clone()),
    }
}

/// The modes in the order of a model's letters.
fn arranged(modes: &str, letters: Option<&[char]>) -> Result<String> {
    let parsed = Modes::parse(modes)?;
    let Some(letters) = letters else { return Ok(modes.into()) };
    let own: Vec<Option<char>> = parsed.as_slice().iter().map(|mode| mode.letter).collect();
    let order = io::arrangement(&own, letters)?;
    let texts: Vec<String> = order.iter().map(|&i| parsed.as_slice()[i].to_string()).collect();
    Ok(texts.join(","))
}

/// What the modes of a table are, with the bins that a fit has in some of them (by their letters) in place of
/// bins from the smallest value of the new table to its largest.
pub fn with_bins_of(saved: &Saved, letters: &str, modes: &str) -> Result<String> {
    let all: Vec<char> = saved.model().output().iter().map(|&x| x.into()).collect();
    let parsed = Modes::parse(&arranged(modes, Some(&all))?)?;
    let mut specs = parsed.as_slice().to_vec();
    for (spec, &letter) in
        specs.iter_mut().zip(&all).filter(|(_, letter)| letters.contains(**letter))
    {
        let Function::Bins(bins) = spec.function else { continue };
        let kind = saved.labels(letter).map(|labels| labels.kind());
        let Some(LabelKind::Bins { edges }) = kind else { continue };
        if let ([from, .., to], true) = (&edges[..], edges.len() == bins as usize + 1) {
            let step = (to - from) / f64::from(bins);
            spec.function = Function::Range { from: *from, to: *to, step, bins };
        }
    }
    Ok(specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}

/// The columns of a table for a message, where it can be read.
fn columns(path: &Path) -> String {
    if is_standard_input(path) {
        return String::new();
    }
    match open(path).and_then(Table::columns) {
        Ok(columns) if !columns.is_empty() => {
            let shown: Vec<String> = columns.iter().take(30).map(|name| printable(name)).collect();
            let more = if columns.len() > shown.len() { ", …" } else { "" };
            format!("; its columns are {}{more}", shown.join(", "))
        }
        _ => String::new(),
    }
}

/// Reads a sparse matrix, with the names that are kept beside it.
pub fn matrix(mut matrix: SparseMatrix, record: &DataRecord) -> Result<NamedTensor> {
    if let Some(path) = &record.row_names {
        io::read_names(path, &mut matrix.rows)?;
    }
    if let Some(path) = &record.column_names {
        io::read_names(path, &mut matrix.columns)?;
    }
    if matrix.duplicates > 0 {
        complain(
            "notice",
            &format!(
                "{}: {} entries stand at the same place as another one and were added to it",
                record.path.display(),
                super::summary::count(matrix.duplicates)
            ),
        );
    }
    Ok(matrix.observations()?.into())
}

/// The file of a record is there: a file, a folder, or what a pattern stands for.
pub fn is_there(path: &Path) -> bool {
    let pattern = || path.to_str().is_some_and(|pattern| Table::matching(pattern).is_ok());
    path.exists() || (path.to_string_lossy().contains(['*', '?', '[']) && pattern())
}
