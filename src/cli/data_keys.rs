//! The keys of a file that say what data are and how they are read: those of studies and of the parts of coupled
//! fits, which read them by the same code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args;
use super::split_args::SplitArgs;
use super::table_args::{self, TableArgs};
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::DataRecord;

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

/// A struct with the keys about data beside fields of its own, and a function that takes them out. (Serde's
/// `flatten` would do it, but does not go with the refusal of unknown keys.)
macro_rules! with_data_keys {
    ($(#[$meta:meta])* $seen:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        $seen struct $name {
            $($(#[$field_meta])* $field: $type,)*
            pub data: std::path::PathBuf,
            pub key: Option<String>,
            pub shape: Option<Vec<usize>>,
            pub index_base: Option<u8>,
            pub mask: Option<std::path::PathBuf>,
            pub weights: Option<std::path::PathBuf>,
            #[serde(default)]
            pub nan_missing: bool,
            #[serde(default)]
            pub unlisted_missing: bool,
            pub missing: Option<std::path::PathBuf>,
            pub heldout: Option<f64>,
            pub heldout_mask: Option<std::path::PathBuf>,
            pub heldout_coordinates: Option<std::path::PathBuf>,
            pub heldout_as: Option<String>,
            pub zeros_per_nonzero: Option<f64>,
            pub validation: Option<f64>,
            pub validation_coordinates: Option<std::path::PathBuf>,
            pub split_seed: Option<u64>,
            pub modes: Option<String>,
            #[serde(default)]
            pub count: bool,
            pub sum: Option<String>,
            pub mean: Option<String>,
            pub max: Option<String>,
            #[serde(default)]
            pub unlisted_zero: bool,
            #[serde(rename = "where")]
            pub filters: Option<$crate::cli::data_keys::OneOrMany<String>>,
            #[serde(default)]
            pub order: std::collections::BTreeMap<String, std::path::PathBuf>,
            #[serde(default)]
            pub skip_bad: bool,
            pub missing_texts: Option<Vec<String>>,
            pub time_format: Option<String>,
            pub time_zone: Option<String>,
            pub separator: Option<String>,
            pub quote: Option<String>,
            #[serde(default)]
            pub no_header: bool,
            pub table_memory: Option<String>,
            pub row_names: Option<std::path::PathBuf>,
            pub column_names: Option<std::path::PathBuf>,
        }

        impl $name {
            /// Takes the keys about data out.
            pub fn data_keys(&mut self) -> $crate::cli::data_keys::DataKeys {
                $crate::cli::data_keys::with_data_keys!(@take self:
                    data key shape index_base mask weights nan_missing unlisted_missing missing
                    heldout heldout_mask heldout_coordinates heldout_as zeros_per_nonzero
                    validation validation_coordinates split_seed
                    modes count sum mean max unlisted_zero filters order skip_bad missing_texts
                    time_format time_zone separator quote no_header table_memory row_names column_names)
            }
        }
    };
    (@take $from:ident: $($key:ident)*) => {
        $crate::cli::data_keys::DataKeys { $($key: std::mem::take(&mut $from.$key),)* }
    };
}
pub(crate) use with_data_keys;

/// What a file says of data.
pub struct DataKeys {
    pub data: PathBuf,
    pub key: Option<String>,
    pub shape: Option<Vec<usize>>,
    pub index_base: Option<u8>,
    pub mask: Option<PathBuf>,
    pub weights: Option<PathBuf>,
    pub nan_missing: bool,
    pub unlisted_missing: bool,
    pub missing: Option<PathBuf>,
    pub heldout: Option<f64>,
    pub heldout_mask: Option<PathBuf>,
    pub heldout_coordinates: Option<PathBuf>,
    pub heldout_as: Option<String>,
    pub zeros_per_nonzero: Option<f64>,
    pub validation: Option<f64>,
    pub validation_coordinates: Option<PathBuf>,
    pub split_seed: Option<u64>,
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

impl DataKeys {
    /// The same as a record, with what is withheld; files are relative to a folder.
    pub fn record(self, folder: &Path) -> Result<DataRecord> {
        self.check()?;
        let heldout_as = self.heldout_as.as_deref().map(|text| args::value("heldout_as", text));
        let split = SplitArgs {
            heldout_as: heldout_as.transpose()?,
            zeros_per_nonzero: self.zeros_per_nonzero,
        };
        split.check(self.heldout.is_some() || self.validation.is_some())?;
        let near = |path: PathBuf| folder.join(path);
        let record = DataRecord {
            path: near(self.data),
            key: self.key,
            shape: self.shape,
            mask: self.mask.map(near),
            weights: self.weights.map(near),
            zero_based: self.index_base == Some(0),
            nan_missing: self.nan_missing,
            unlisted_missing: self.unlisted_missing,
            missing: self.missing.map(near),
            heldout: self.heldout,
            heldout_mask: self.heldout_mask.map(near),
            heldout_coordinates: self.heldout_coordinates.map(near),
            heldout_as: split.kind(),
            zeros_per_nonzero: split.zeros_per_nonzero,
            validation: self.validation,
            validation_coordinates: self.validation_coordinates.map(near),
            split_seed: self.split_seed.unwrap_or(0),
            ..DataRecord::default()
        };
        let wrong =
            |key: &str, text: &str, why: String| Error::Setting(format!("{key} = {text:?}: {why}"));
        let separator = self
            .separator
            .map(|text| table_args::separator(&text).map_err(|why| wrong("separator", &text, why)));
        let table_memory = self
            .table_memory
            .map(|text| args::bytes(&text).map_err(|why| wrong("table_memory", &text, why)));
        let table = TableArgs {
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
        };
        table.apply(record)
    }

    /// Refuses what does not go together, or is out of range.
    fn check(&self) -> Result<()> {
        let refuse = |why: &str| Err(Error::Setting(why.into()));
        if self.mask.is_some() && self.weights.is_some() {
            return refuse("mask and weights exclude each other: 0 is a weight");
        }
        if self.heldout.is_some() && self.heldout_mask.is_some() {
            return refuse("heldout and heldout_mask exclude each other");
        }
        if self.index_base.is_some_and(|base| base > 1) {
            return refuse("index_base: indices of a .tns count from 0 or from 1");
        }
        let values = [self.count, self.sum.is_some(), self.mean.is_some(), self.max.is_some()];
        if values.iter().filter(|&&given| given).count() > 1 {
            return refuse("count, sum, mean and max exclude each other");
        }
        Ok(())
    }
}
