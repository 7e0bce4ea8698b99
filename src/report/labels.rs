//! The user's names for modes and their indices.

use crate::error::{Error, Result};

/// Names for a mode of the data and for its indices.
///
/// ```
/// use nneinfact::report::Labels;
///
/// let labels = Labels::parse("# Weekday\nMonday\nTuesday\n");
/// assert_eq!(labels.name.as_deref(), Some("Weekday"));
/// assert_eq!(labels.indices.as_deref(), Some(&["Monday".to_string(), "Tuesday".to_string()][..]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The name of the mode.
    pub name: Option<String>,
    /// The name of each index.
    pub indices: Option<Vec<String>>,
}

impl Labels {
    /// From a text with a label on each line. A first line `# Weekday` names the mode; empty lines at
    /// the end do not count.
    #[must_use]
    pub fn parse(text: &str) -> Labels {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines: Vec<&str> = text.lines().collect();
        while lines.last().is_some_and(|line| line.trim().is_empty()) {
            lines.pop();
        }
        let name = lines.first().and_then(|line| line.strip_prefix('#')).map(str::trim);
        let name = name.filter(|name| !name.is_empty()).map(String::from);
        let skip = usize::from(lines.first().is_some_and(|line| line.starts_with('#')));
        let indices: Vec<String> = lines[skip..].iter().map(|line| line.trim().into()).collect();
        Labels { name, indices: (!indices.is_empty()).then_some(indices) }
    }

    /// A name for the mode alone.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Labels {
        Labels { name: Some(name.into()), indices: None }
    }

    /// Whether there are as many labels as a mode has indices.
    pub(crate) fn check(&self, letter: char, size: usize) -> Result<()> {
        match &self.indices {
            Some(labels) if labels.len() != size => Err(Error::Setting(format!(
                "there are {} labels for the mode {letter}, which has {size} indices: one label a \
                 line is expected for each",
                labels.len()
            ))),
            _ => Ok(()),
        }
    }
}

/// A letter with what to call it and its indices.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub letter: char,
    pub name: String,
    pub size: usize,
    pub labels: Option<Vec<String>>,
    /// Whether the first index is at the bottom where the axis is vertical.
    pub upwards: bool,
    /// Whether this is a mode of the data as it is, whose labels the page holds once.
    pub mode: bool,
}

impl Axis {
    /// What an index is called.
    pub fn label(&self, i: usize) -> String {
        match self.labels.as_ref().and_then(|labels| labels.get(i)) {
            Some(label) => label.clone(),
            None => i.to_string(),
        }
    }

    /// The name of the mode with its letter.
    pub fn title(&self) -> String {
        if self.name.chars().eq([self.letter]) {
            self.name.clone()
        } else {
            format!("{} ({})", self.name, self.letter)
        }
    }
}
