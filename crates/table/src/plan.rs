//! Which column of a file is which.

use std::path::Path;

use crate::batch::Row;
use crate::error::{Error, Result};
use crate::records::Dialect;
use crate::settings::{Settings, Values};
use crate::text::{listed, shown};

/// The columns of one file, counted from 0.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The names of all columns.
    pub names: Vec<String>,
    /// The column of every comparison of the filter.
    pub filter: Vec<usize>,
    /// The column of every mode.
    pub modes: Vec<usize>,
    /// The column of the values.
    pub value: Option<usize>,
}

impl Plan {
    /// Finds the columns by the first row of a file.
    pub fn new(settings: &Settings, first: Row<'_>, path: &Path) -> Result<Plan> {
        let names = Plan::names(settings, first);
        let find = |column: &str| {
            Plan::find(&names, column, settings).map_err(|reason| Error::format(path, reason))
        };
        let filter = match &settings.filter {
            Some(filter) => filter.columns().map(find).collect::<Result<_>>()?,
            None => Vec::new(),
        };
        let modes = settings.modes.as_slice();
        let modes = modes.iter().map(|mode| find(&mode.column)).collect::<Result<_>>()?;
        let value = match &settings.values {
            Values::Count => None,
            Values::Sum(column) | Values::Mean(column) | Values::Max(column) => Some(find(column)?),
        };
        Ok(Plan { filter, modes, value, names })
    }

    /// The columns that are looked at; a column may be there twice.
    #[cfg(feature = "parquet")]
    pub fn needed(&self) -> Vec<usize> {
        self.filter.iter().chain(&self.modes).chain(&self.value).copied().collect()
    }

    /// The names of all columns.
    pub fn names(settings: &Settings, first: Row<'_>) -> Vec<String> {
        if settings.header {
            first.cells().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect()
        } else {
            (1..=first.len()).map(|i| i.to_string()).collect()
        }
    }

    /// The column of a name: as it stands, or else but for spaces around it.
    fn find(names: &[String], column: &str, settings: &Settings) -> Result<usize, String> {
        let exact = |name: &String| name == column;
        let trimmed = |name: &String| name.trim() == column.trim();
        let found: Vec<usize> = match names.iter().any(exact) {
            true => (0..names.len()).filter(|&i| exact(&names[i])).collect(),
            false => (0..names.len()).filter(|&i| trimmed(&names[i])).collect(),
        };
        let wanted = shown(column.as_bytes());
        match found[..] {
            [i] => Ok(i),
            [first, second, ..] => Err(format!(
                "{} columns are called {wanted}, the {} and the {} among them: give them names of their own, or read the table without its header, with columns named by their numbers",
                found.len(),
                ordinal(first + 1),
                ordinal(second + 1)
            )),
            [] => {
                let mut message = format!("there is no column {wanted}; ");
                if settings.header {
                    let all = listed(names.iter().map(String::as_str));
                    message += &format!("the columns are {all}");
                } else {
                    let n = names.len();
                    message += &format!("without a header the columns are called 1 to {n}");
                }
                let close = |name: &&String| name.trim().eq_ignore_ascii_case(column.trim());
                if let Some(name) = names.iter().find(close) {
                    message +=
                        &format!(" (upper and lower case count: {})", shown(name.as_bytes()));
                } else if let [only] = names {
                    let separators = [(';', "';'"), ('\t', "a tab"), ('|', "'|'"), (',', "','")];
                    let other = separators.iter().find(|(c, _)| only.contains(*c));
                    if let Some((_, what)) = other {
                        message += &format!(": is the separator {what}?");
                    }
                }
                Err(message)
            }
        }
    }

    /// A column for messages.
    pub fn column(&self, i: usize) -> String {
        let name = self.names.get(i).map_or("", String::as_str);
        if name == (i + 1).to_string() {
            format!("column {name}")
        } else {
            format!("column {} ({})", i + 1, shown(name.as_bytes()).trim_matches('\''))
        }
    }
}

fn ordinal(n: usize) -> String {
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

/// How the cells of a file are told apart: as the user says, or by its name.
pub(crate) fn dialect(settings: &Settings, path: &Path) -> Dialect {
    let name = path.to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let tab = name.ends_with(".tsv") || name.ends_with(".tab");
    let separator = settings.separator.unwrap_or(if tab { b'\t' } else { b',' });
    Dialect { separator, quote: settings.quote }
}
