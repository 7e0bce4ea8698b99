//! What axes and their indices are called in drawings.

use std::sync::Arc;

use super::draw::width_of;

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
    /// The edges of bins, of all of the mode.
    pub edges: Option<Arc<[f64]>>,
    /// Whether the labels are years, weeks or dates.
    pub dates: bool,
}

/// A text that may run from right to left, among others: their order stays as it is.
pub(super) fn isolated(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}' | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(turns) {
        return text.into();
    }
    // What was opened inside and not closed would reach beyond the end.
    let plain = |c: &char| !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let inside: String = text.chars().filter(plain).collect();
    format!("\u{2068}{inside}\u{2069}")
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
