//! The arguments that say how a table becomes a tensor, which all commands that take data share.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args;
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::{DataRecord, TableRecord, ValuesRecord};

/// How a table is read, and what the rows and columns of a sparse matrix are called.
#[derive(Clone, Debug, Default, Args)]
#[group(skip)]
#[command(next_help_heading = "Options for tables and sparse matrices")]
pub struct TableArgs {
    /// What the modes of the tensor are, as in 'week(time),hour(time),i=bin(lat,100),zone': columns of
    /// the table, or year, yearmonth, month, week, date, weekday, hour or minute of a time, bin(COLUMN,N),
    /// bin(COLUMN,FROM:TO:STEP), top(COLUMN,N), top(COLUMN,N,other), round(COLUMN,DIGITS),
    /// prefix(COLUMN,CHARACTERS). In the order of the letters after the model's arrow, or each with its
    /// letter before it
    #[arg(long, value_name = "MODE,…")]
    pub modes: Option<String>,

    /// Values are how many rows an entry has [default]
    #[arg(long, group = "table_values")]
    pub count: bool,

    /// Values are the sum of this column
    #[arg(long, value_name = "COLUMN", group = "table_values")]
    pub sum: Option<String>,

    /// Values are the mean of this column; entries without a row are missing
    #[arg(long, value_name = "COLUMN", group = "table_values")]
    pub mean: Option<String>,

    /// Values are the largest of this column; entries without a row are missing
    #[arg(long, value_name = "COLUMN", group = "table_values")]
    pub max: Option<String>,

    /// Entries without a row are zeros, also with --mean and --max
    #[arg(long)]
    pub unlisted_zero: bool,

    /// Only rows for which this holds, as in 'year >= 2010'; once for each condition
    #[arg(long = "where", value_name = "CONDITION")]
    pub filters: Vec<String>,

    /// The labels of a mode in their order, one on each line of a file, as in weekday=days.txt; once
    /// for each mode
    #[arg(long = "order", value_name = "MODE=FILE", value_parser = order)]
    pub orders: Vec<(String, PathBuf)>,

    /// Skip and count rows that cannot be read, instead of stopping there
    #[arg(long)]
    pub skip_bad: bool,

    /// The texts that stand for a missing value [default: NA,N/A,NaN,nan,NULL,null]
    #[arg(long, value_name = "TEXT,…", value_delimiter = ',')]
    pub missing_texts: Option<Vec<String>>,

    /// How times are written: auto (ISO 8601, or Unix seconds or milliseconds), unix, unix-ms, unix-us,
    /// unix-ns, or as strptime has it, '%m/%d/%Y %H:%M:%S' [default: auto]
    #[arg(long, value_name = "FORMAT")]
    pub time_format: Option<String>,

    /// The time zone that times are shown in, as America/New_York; UTC->America/New_York for times that
    /// do not say their own
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,

    /// What stands between the cells of a row; tab for a tab [default: a comma, in .tsv a tab]
    #[arg(long, value_name = "CHARACTER", value_parser = separator)]
    pub separator: Option<char>,

    /// What stands around cells with separators in them, or none [default: "]
    #[arg(long, value_name = "CHARACTER")]
    pub quote: Option<String>,

    /// The first row is not the names of the columns, which are called 1, 2, …
    #[arg(long)]
    pub no_header: bool,

    /// The most memory for the entries and labels of a table, as in 2GB [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = args::bytes)]
    pub table_memory: Option<u64>,

    /// The names of the rows of a .mtx or a scipy .npz, one on each line
    #[arg(long, value_name = "FILE")]
    pub row_names: Option<PathBuf>,

    /// The names of its columns
    #[arg(long, value_name = "FILE")]
    pub column_names: Option<PathBuf>,
}

/// A mode and a file, as in `weekday=days.txt`.
fn order(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((mode, file)) if !mode.trim().is_empty() && !file.is_empty() => {
            Ok((mode.trim().into(), file.into()))
        }
        _ => Err("a mode and a file are expected, as in weekday=days.txt".into()),
    }
}

/// One character; a tab can be written as a word or as in programs.
pub fn separator(text: &str) -> Result<char, String> {
    let mut characters = text.chars();
    match (text, characters.next(), characters.next()) {
        ("tab" | "\\t", ..) => Ok('\t'),
        ("space", ..) => Ok(' '),
        (_, Some(character), None) if character.is_ascii() => Ok(character),
        _ => Err("one ASCII character is expected, or tab or space".into()),
    }
}

impl TableArgs {
    /// Puts them into what is known of the data.
    pub fn apply(&self, record: DataRecord) -> Result<DataRecord> {
        Ok(DataRecord {
            unlisted_zero: self.unlisted_zero,
            table: self.table()?,
            row_names: self.row_names.clone(),
            column_names: self.column_names.clone(),
            ..record
        })
    }

    fn table(&self) -> Result<Option<TableRecord>> {
        let Some(modes) = &self.modes else {
            return match self.given() {
                None => Ok(None),
                Some(option) => Err(Error::Setting(format!(
                    "{option} is for tables, and --modes is missing: it says which columns become \
                     the modes of the tensor, as in --modes 'hour(time),zone'"
                ))),
            };
        };
        let values = match (&self.sum, &self.mean, &self.max) {
            (Some(column), ..) => ValuesRecord::Sum(column.clone()),
            (_, Some(column), _) => ValuesRecord::Mean(column.clone()),
            (.., Some(column)) => ValuesRecord::Max(column.clone()),
            (None, None, None) => ValuesRecord::Count,
        };
        Ok(Some(TableRecord {
            modes: modes.clone(),
            values,
            filters: self.filters.clone(),
            orders: self.orders.clone(),
            skip_bad: self.skip_bad,
            missing_texts: self.missing_texts.clone(),
            time_format: self.time_format.clone(),
            time_zone: self.time_zone.clone(),
            separator: self.separator,
            quote: self
                .quote
                .clone()
                .map(|quote| if quote == "none" { String::new() } else { quote }),
            no_header: self.no_header,
            memory: self.table_memory,
        }))
    }

    /// The first option that was given and says nothing without --modes.
    fn given(&self) -> Option<&'static str> {
        let given = [
            ("--count", self.count),
            ("--sum", self.sum.is_some()),
            ("--mean", self.mean.is_some()),
            ("--max", self.max.is_some()),
            ("--where", !self.filters.is_empty()),
            ("--order", !self.orders.is_empty()),
            ("--skip-bad", self.skip_bad),
            ("--missing-texts", self.missing_texts.is_some()),
            ("--time-format", self.time_format.is_some()),
            ("--time-zone", self.time_zone.is_some()),
            ("--separator", self.separator.is_some()),
            ("--quote", self.quote.is_some()),
            ("--no-header", self.no_header),
            ("--table-memory", self.table_memory.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }

    /// The first option that was given at all.
    pub fn any(&self) -> Option<&'static str> {
        let given = [
            ("--modes", self.modes.is_some()),
            ("--unlisted-zero", self.unlisted_zero),
            ("--row-names", self.row_names.is_some()),
            ("--column-names", self.column_names.is_some()),
        ];
        let first = given.into_iter().find(|(_, given)| *given).map(|(option, _)| option);
        first.or_else(|| self.given())
    }

    /// The files that are read.
    pub fn inputs(&self) -> impl Iterator<Item = &Path> {
        let names = [&self.row_names, &self.column_names];
        let names = names.into_iter().filter_map(|path| path.as_deref());
        self.orders.iter().map(|(_, path)| path.as_path()).chain(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_and_orders() {
        assert_eq!(
            ["tab", "\\t", ";", "space", "|"].map(|text| separator(text).ok()),
            [Some('\t'), Some('\t'), Some(';'), Some(' '), Some('|')]
        );
        assert!(["", "ab", "é"].iter().all(|text| separator(text).is_err()));
        assert_eq!(order(" d = a=b.txt"), Ok(("d".into(), " a=b.txt".into())));
        assert!(["", "d", "=x", "d="].iter().all(|text| order(text).is_err()));
    }

    #[test]
    fn options_without_modes_are_named() {
        let args = TableArgs { skip_bad: true, ..TableArgs::default() };
        let error = args.apply(DataRecord::default()).unwrap_err().to_string();
        assert!(error.contains("--skip-bad") && error.contains("--modes"), "{error}");
        let names = TableArgs { row_names: Some("r.txt".into()), ..TableArgs::default() };
        assert!(names.apply(DataRecord::default()).unwrap().table.is_none());
    }
}
