//! The user's names for modes and their indices.

use std::sync::Arc;

use super::draw::width_of;
use nneinfact_core::error::{Error, Result};

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
    /// From a text with a label on each line. A first line `# Weekday` names the mode, with a space
    /// after the `#`: `#7` is a label. After a first line that is `#` alone the next one is a label,
    /// whatever it begins with. Empty lines at the end do not count.
    #[must_use]
    pub fn parse(text: &str) -> Labels {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines: Vec<&str> = text.lines().collect();
        while lines.last().is_some_and(|line| line.trim().is_empty()) {
            lines.pop();
        }
        let head = lines.first().and_then(|line| line.strip_prefix('#'));
        let head = head.filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        let name = head.map(str::trim).filter(|name| !name.is_empty()).map(String::from);
        let skip = usize::from(head.is_some());
        let indices: Vec<String> = lines[skip..].iter().map(|line| line.trim().into()).collect();
        Labels { name, indices: (!indices.is_empty()).then_some(indices) }
    }

    /// A name for the mode alone.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Labels {
        Labels { name: Some(name.into()), indices: None }
    }

    /// Whether there are as many labels as a mode has indices.
    pub fn check(&self, letter: char, size: usize) -> Result<()> {
        match &self.indices {
            Some(labels) if labels.len() != size => {
                let hint = match (&self.name, labels.first()) {
                    (Some(name), _) if labels.len() + 1 == size => format!(
                        "; if {name} is not the name of the mode but the first label, put a line \
                         with # alone before it"
                    ),
                    (_, Some(first)) if labels.len() == size + 1 && first.starts_with('#') => {
                        "; a first line that names the mode has a space after its #".into()
                    }
                    _ => String::new(),
                };
                Err(Error::Setting(format!(
                    "there are {} labels for the mode {letter}, which has {size} indices: one label \
                     a line is expected for each{hint}",
                    labels.len()
                )))
            }
            _ => Ok(()),
        }
    }
}

/// The names of a mode's indices. All drawings of the mode share them: there can be very many.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub all: Arc<[String]>,
    /// About how wide the widest is, at 10 px.
    pub widest: f64,
}

impl Names {
    pub fn new(all: Vec<String>) -> Names {
        Names { widest: all.iter().map(|l| width_of(l)).fold(0.0, f64::max), all: all.into() }
    }
}

/// A mode of the data or a latent index, with names for it and for its values.
#[derive(Clone, Debug)]
pub(super) struct ModeAxis {
    pub letter: char,
    pub name: String,
    pub size: usize,
    pub labels: Option<Names>,
    /// Whether the first index is at the bottom where the axis is vertical.
    pub upwards: bool,
    /// Whether this is a mode of the data as it is, whose labels the page holds once.
    pub mode: bool,
    /// The index that it begins with, where a part of a mode is shown.
    pub first: usize,
}

impl ModeAxis {
    /// The name of the value `i`.
    pub fn label(&self, i: usize) -> String {
        match self.labels.as_ref().and_then(|labels| labels.all.get(self.first + i)) {
            Some(label) => label.clone(),
            None => (self.first + i).to_string(),
        }
    }

    /// A part of it.
    pub fn part(&self, indices: &std::ops::Range<usize>) -> ModeAxis {
        ModeAxis { first: self.first + indices.start, size: indices.len(), ..self.clone() }
    }

    /// Its letter, or its name where it is made of several.
    pub fn letters(&self) -> String {
        if self.mode { self.letter.to_string() } else { self.name.clone() }
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
