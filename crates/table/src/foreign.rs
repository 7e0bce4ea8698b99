//! Formats that are not read, and how to convert them.
use std::path::Path;

pub(crate) const PARQUET: &str = "Parquet: write it as CSV first, python -c \"import pandas; pandas.read_parquet('FILE').to_csv('FILE.csv', index=False)\"";

/// TODO
pub fn describe_foreign(_path: &Path) -> Option<String> { None }
