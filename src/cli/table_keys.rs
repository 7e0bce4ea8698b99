//! The keys of a file that say how a table becomes a tensor: those of studies and of the parts of coupled fits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args;
use super::table_args::{self, TableArgs};
use nneinfact_core::error::{Error, Result};

/// A value, or a list of them.
#[derive(Deserialize)]
#[serde(untagged, expecting = "one value or a list of them is expected")]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    pub fn to_vec(values: Option<OneOrMany<T>>) -> Vec<T> {
        match values {
            None => Vec::new(),
            Some(OneOrMany::One(value)) => vec![value],
            Some(OneOrMany::Many(values)) => values,
        }
    }
}

/// What was said of a table.
pub struct TableKeys {
    pub modes: Option<String>,
    pub count: bool,
    pub sum: Option<String>,
    pub mean: Option<String>,
    pub max: Option<String>,
    pub unlisted_zero: bool,
    pub filters: Option<OneOrMany<String>>,
    pub order: BTreeMap<String, PathBuf>,
    pub skip_bad: bool,
    pub missing_texts: Option<Vec<String>>,
    pub time_format: Option<String>,
    pub time_zone: Option<String>,
    pub separator: Option<String>,
    pub quote: Option<String>,
    pub no_header: bool,
    pub table_memory: Option<String>,
    pub row_names: Option<PathBuf>,
    pub column_names: Option<PathBuf>,
}

/// Takes the keys out of something that has fields of their names.
macro_rules! table_keys {
    ($given:expr) => {
        $crate::cli::table_keys::TableKeys {
            modes: $given.modes.take(),
            count: $given.count,
            sum: $given.sum.take(),
            mean: $given.mean.take(),
            max: $given.max.take(),
            unlisted_zero: $given.unlisted_zero,
            filters: $given.filters.take(),
            order: std::mem::take(&mut $given.order),
            skip_bad: $given.skip_bad,
            missing_texts: $given.missing_texts.take(),
            time_format: $given.time_format.take(),
            time_zone: $given.time_zone.take(),
            separator: $given.separator.take(),
            quote: $given.quote.take(),
            no_header: $given.no_header,
            table_memory: $given.table_memory.take(),
            row_names: $given.row_names.take(),
            column_names: $given.column_names.take(),
        }
    };
}
pub(crate) use table_keys;

impl TableKeys {
    /// The same as arguments; files are relative to a folder.
    pub fn args(self, folder: &Path) -> Result<TableArgs> {
        let values = [self.count, self.sum.is_some(), self.mean.is_some(), self.max.is_some()];
        if values.iter().filter(|&&given| given).count() > 1 {
            return Err(Error::Setting("count, sum, mean and max exclude each other".into()));
        }
        let wrong =
            |key: &str, text: &str, why: String| Error::Setting(format!("{key} = {text:?}: {why}"));
        let separator = self
            .separator
            .map(|text| table_args::separator(&text).map_err(|why| wrong("separator", &text, why)));
        let table_memory = self
            .table_memory
            .map(|text| args::bytes(&text).map_err(|why| wrong("table_memory", &text, why)));
        let near = |path: PathBuf| folder.join(path);
        Ok(TableArgs {
            modes: self.modes,
            count: self.count,
            sum: self.sum,
            mean: self.mean,
            max: self.max,
            unlisted_zero: self.unlisted_zero,
            filters: OneOrMany::to_vec(self.filters),
            orders: self.order.into_iter().map(|(mode, path)| (mode, near(path))).collect(),
            skip_bad: self.skip_bad,
            missing_texts: self.missing_texts,
            time_format: self.time_format,
            time_zone: self.time_zone,
            separator: separator.transpose()?,
            quote: self.quote,
            no_header: self.no_header,
            table_memory: table_memory.transpose()?,
            row_names: self.row_names.map(near),
            column_names: self.column_names.map(near),
        })
    }
}
