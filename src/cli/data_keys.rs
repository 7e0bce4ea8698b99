//! The keys of a file that say what data are and how they are read: those of studies and of the parts of coupled
//! fits, which read them by the same code.

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
    // The keys, with what serde has to know of them.
    (@keys $make:ident $given:tt) => {
        $crate::cli::data_keys::with_data_keys! {
            @$make $given
            data: std::path::PathBuf,
            key: Option<String>,
            shape: Option<Vec<usize>>,
            index_base: Option<u8>,
            mask: Option<std::path::PathBuf>,
            weights: Option<std::path::PathBuf>,
            #[serde(default)]
            nan_missing: bool,
            #[serde(default)]
            unlisted_missing: bool,
            missing: Option<std::path::PathBuf>,
            heldout: Option<f64>,
            heldout_mask: Option<std::path::PathBuf>,
            heldout_coordinates: Option<std::path::PathBuf>,
            heldout_as: Option<String>,
            zeros_per_nonzero: Option<f64>,
            validation: Option<f64>,
            validation_coordinates: Option<std::path::PathBuf>,
            split_seed: Option<u64>,
            modes: Option<String>,
            #[serde(default)]
            count: bool,
            sum: Option<String>,
            mean: Option<String>,
            max: Option<String>,
            #[serde(default)]
            unlisted_zero: bool,
            #[serde(rename = "where")]
            filters: Option<$crate::cli::data_keys::OneOrMany<String>>,
            #[serde(default)]
            order: std::collections::BTreeMap<String, std::path::PathBuf>,
            #[serde(default)]
            skip_bad: bool,
            missing_texts: Option<Vec<String>>,
            time_format: Option<String>,
            time_zone: Option<String>,
            separator: Option<String>,
            quote: Option<String>,
            #[serde(default)]
            no_header: bool,
            table_memory: Option<String>,
            row_names: Option<std::path::PathBuf>,
            column_names: Option<std::path::PathBuf>,
        }
    };
    (@beside
        {
            $(#[$meta:meta])* $seen:vis struct $name:ident {
                $($(#[$field_meta:meta])* $field:ident: $type:ty,)*
            }
        }
        $($(#[$key_meta:meta])* $key:ident: $key_type:ty,)*
    ) => {
        $(#[$meta])*
        $seen struct $name {
            $($(#[$field_meta])* $field: $type,)*
            $($(#[$key_meta])* pub $key: $key_type,)*
        }

        impl $name {
            /// Takes the keys about data out.
            pub fn data_keys(&mut self) -> $crate::cli::data_keys::DataKeys {
                $crate::cli::data_keys::DataKeys { $($key: std::mem::take(&mut self.$key),)* }
            }
        }
    };
    (@alone {} $($(#[$key_meta:meta])* $key:ident: $key_type:ty,)*) => {
        /// What a file says of data.
        pub struct DataKeys {
            $(pub $key: $key_type,)*
        }
    };
    ($($given:tt)*) => {
        $crate::cli::data_keys::with_data_keys! { @keys beside { $($given)* } }
    };
}
pub(crate) use with_data_keys;

with_data_keys! { @keys alone {} }

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
