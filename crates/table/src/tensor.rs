//! What a table becomes.

use std::fmt;

use crate::labels::LabelKind;

/// A tensor with names, in coordinates.
#[derive(Clone, Debug, PartialEq)]
pub struct TableTensor {
    /// The modes, in their order.
    pub modes: Vec<Mode>,
    /// For every mode the indices of all entries, counted from 0; the entries are in C order.
    pub coords: Vec<Vec<u32>>,
    /// The values of the entries.
    pub values: Vec<f64>,
    /// What the entries are that are not listed.
    pub implicit: Implicit,
    /// What was read and what was dropped.
    pub counts: Counts,
}

impl TableTensor {
    /// The lengths of the modes.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        self.modes.iter().map(|mode| mode.labels.len()).collect()
    }
}

/// A mode with the names of its indices.
#[derive(Clone, Debug, PartialEq)]
pub struct Mode {
    /// What the mode is called.
    pub name: String,
    /// The letter that the user gave it.
    pub letter: Option<char>,
    /// What its indices are called.
    pub labels: Vec<String>,
    /// What the labels are.
    pub kind: LabelKind,
}

/// What entries are that are not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implicit {
    /// They are zeros.
    Zero,
    /// They are not known.
    Missing,
}

/// What was read of a table and what was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that were read, the header not counted.
    pub rows: u64,
    /// Rows that do not pass the filter.
    pub filtered: u64,
    /// Rows that could not be read and were skipped.
    pub bad: u64,
    /// Where the first of them is, and what is wrong with it.
    pub first_bad: Option<String>,
    /// Rows outside the bins of a range.
    pub outside: u64,
    /// Rows whose values are not among the most frequent.
    pub rare: u64,
}

impl Counts {
    /// Rows that are in the tensor.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.rows - self.filtered.min(self.rows) - self.dropped().min(self.rows)
    }

    fn dropped(&self) -> u64 {
        self.bad + self.outside + self.rare
    }
}

/// A sentence.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = |n: u64| format!("{n} row{}", if n == 1 { "" } else { "s" });
        write!(f, "{} read", rows(self.rows))?;
        let list = [
            (self.filtered, "dropped by the filter"),
            (self.outside, "outside the bins"),
            (self.rare, "not among the most frequent"),
            (self.bad, "skipped as they cannot be read"),
        ];
        for (n, what) in list.into_iter().filter(|(n, _)| *n > 0) {
            write!(f, ", {n} {what}")?;
        }
        if let Some(first) = &self.first_bad {
            write!(f, " (the first: {first})")?;
        }
        Ok(())
    }
}
