//! Modes and their indices by name: what a user writes for them, and what is written of them.

use nneinfact_core::data::Labels;
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::Saved;

/// The modes of a fit.
pub struct ModeNames {
    modes: Vec<ModeName>,
}

struct ModeName {
    letter: char,
    size: usize,
    labels: Labels,
}

impl ModeNames {
    /// Those of a file.
    pub fn of(saved: &Saved) -> ModeNames {
        let modes = saved
            .model()
            .output()
            .iter()
            .map(|&x| ModeName {
                letter: x.into(),
                size: saved.shapes().size(x),
                labels: saved.labels(x.into()).cloned().unwrap_or_default(),
            })
            .collect();
        ModeNames { modes }
    }

    /// The lengths of all modes.
    pub fn shape(&self) -> Vec<usize> {
        self.modes.iter().map(|mode| mode.size).collect()
    }

    /// The letter of a mode.
    pub fn letter(&self, mode: usize) -> char {
        self.modes[mode].letter
    }

    /// What a column of a mode's indices is called.
    pub fn title(&self, mode: usize) -> String {
        let mode = &self.modes[mode];
        mode.labels.name().map_or_else(|| mode.letter.to_string(), String::from)
    }

    /// What an index is called: its label where it has one, else its number from 0.
    pub fn label(&self, mode: usize, index: usize) -> String {
        self.modes[mode].labels.get(index).map_or_else(|| index.to_string(), String::from)
    }

    /// Whether the indices of a mode have labels.
    pub fn has_labels(&self, mode: usize) -> bool {
        self.modes[mode].labels.indices().is_some()
    }

    /// The mode of a letter, or of a name.
    pub fn mode(&self, name: &str) -> Option<usize> {
        let name = name.trim();
        (0..self.modes.len())
            .find(|&mode| name.chars().eq([self.modes[mode].letter]) || self.title(mode) == name)
    }

    /// The index that a text stands for: a label where the mode has labels (8 is that of the hour 08:00),
    /// else a number from 0; `#3` is a number in any case.
    pub fn index(&self, mode: usize, text: &str) -> Result<usize> {
        let ModeName { letter, size, ref labels } = self.modes[mode];
        if let Some(index) = labels.index_of(text) {
            return Ok(index);
        }
        let text = text.trim();
        let number = match text.strip_prefix('#') {
            Some(number) => number,
            None if labels.indices().is_some() => {
                return hour(labels, text).map_or_else(|| labels.find(text), Ok);
            }
            None => text,
        };
        match number.parse::<usize>() {
            Ok(index) if index < size => Ok(index),
            _ => Err(Error::Setting(format!(
                "{letter} = {text:?} is no index of the mode {letter}, which has {size}: a number from 0 to {} is expected",
                size - 1
            ))),
        }
    }

    /// Indices of some modes, as in `w=3,h=8`: for each mode the index, where there is one.
    pub fn fixed(&self, option: &str, text: &str) -> Result<Vec<Option<usize>>> {
        let mut fixed = vec![None; self.modes.len()];
        for (mode, value) in self.assignments(option, text)? {
            if fixed[mode].is_some() {
                return Err(Error::Setting(format!(
                    "{option} {text}: the mode {} is given twice",
                    self.modes[mode].letter
                )));
            }
            fixed[mode] = Some(self.index(mode, &value)?);
        }
        Ok(fixed)
    }

    /// The parts of `w=3,h=8`. A part that names no mode belongs to the value before: labels have commas.
    fn assignments(&self, option: &str, text: &str) -> Result<Vec<(usize, String)>> {
        let mut found: Vec<(usize, String)> = Vec::new();
        for part in text.split(',') {
            let named = part.split_once('=').and_then(|(name, v)| Some((self.mode(name)?, v)));
            match (named, found.last_mut()) {
                (Some((mode, value)), _) => found.push((mode, value.into())),
                (None, Some((_, value))) if !part.contains('=') => {
                    value.push(',');
                    value.push_str(part);
                }
                _ => {
                    let letters: Vec<String> =
                        self.modes.iter().map(|mode| mode.letter.to_string()).collect();
                    return Err(Error::Setting(format!(
                        "{option} {text}: {part:?} is not a mode and an index, as in {}=3; the modes are {}",
                        letters[0],
                        letters.join(", ")
                    )));
                }
            }
        }
        Ok(found)
    }
}

/// The index of an hour by its number, where all labels are times of the day.
fn hour(labels: &Labels, text: &str) -> Option<usize> {
    let is_time = |label: &String| match label.split_once(':') {
        Some((hour, minute)) => {
            let two = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
            two(hour) && two(minute)
        }
        None => false,
    };
    let hour: usize = text.parse().ok()?;
    let times = labels.indices()?.iter().all(is_time);
    times.then(|| labels.index_of(&format!("{hour:02}:00"))).flatten()
}
