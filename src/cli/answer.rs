//! Files of answers: arrays as `.npy`, entries with their indices as `.tns` or `.csv`.

use std::io;
use std::path::{Path, PathBuf};

use super::mode_names::ModeNames;
use super::output::{check_writable, same_file};
use nneinfact_core::error::{Error, Result, bytes};
use nneinfact_fit::io::{begin_npy, write_stream};

/// What a file of answers holds, by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// An array of doubles in C order.
    Npy,
    /// Indices counted from 1, and a value.
    Tns,
    /// Indices by name, and a value, under a line of titles.
    Csv,
}

/// Larger files are not begun.
const LARGEST: f64 = 4.0 * (1u64 << 40) as f64;

/// Where an answer is written.
pub struct AnswerFile {
    path: PathBuf,
    /// Its kind.
    pub kind: AnswerKind,
}

impl AnswerFile {
    /// Checks that the file can be written, and that it is none of those that are read.
    pub fn new(option: &str, path: &Path, inputs: &[&Path]) -> Result<AnswerFile> {
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        let kind = match extension.as_deref() {
            Some("npy") => AnswerKind::Npy,
            Some("tns") => AnswerKind::Tns,
            Some("csv") => AnswerKind::Csv,
            _ => {
                return Err(Error::Setting(format!(
                    "{option} {}: the extension says what is written: .npy (an array), .tns (indices from \
                     1 and a value) or .csv (names and a value)",
                    path.display()
                )));
            }
        };
        check_output(option, path, inputs)?;
        Ok(AnswerFile { path: path.into(), kind })
    }

    /// Where it is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses what would be larger than any disk, with its size.
    pub fn check_size(&self, what: &str, rows: f64, modes: usize) -> Result<()> {
        let each = match self.kind {
            AnswerKind::Npy => 8.0,
            AnswerKind::Tns | AnswerKind::Csv => 20.0 + 3.0 * modes as f64,
        };
        if rows * each <= LARGEST {
            return Ok(());
        }
        Err(Error::Setting(format!(
            "{what} has {rows:.3e} entries, about {} in {}: ask for less, by --slice or --at",
            bytes((rows * each) as u64),
            self.path.display()
        )))
    }

    /// Writes numbers in C order under a shape, or with an index each, in the order in which `each` gives
    /// them. `titles` are those of the columns of `modes`, and of the value.
    pub fn write(
        &self,
        names: &ModeNames,
        columns: &Columns<'_>,
        each: impl FnOnce(&mut dyn FnMut(&[usize], f64) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        write_stream(&self.path, |to| {
            let failed = |e: io::Error| Error::file(&self.path, e);
            match self.kind {
                AnswerKind::Npy => begin_npy(to, columns.shape).map_err(failed)?,
                AnswerKind::Csv => {
                    let mut titles: Vec<String> =
                        columns.modes.iter().map(|&mode| quoted(&names.title(mode))).collect();
                    titles.extend(columns.value.map(String::from));
                    writeln!(to, "{}", titles.join(",")).map_err(failed)?;
                }
                AnswerKind::Tns => {}
            }
            each(&mut |index, value| {
                let written = match self.kind {
                    AnswerKind::Npy => to.write_all(&value.to_le_bytes()),
                    AnswerKind::Tns => index
                        .iter()
                        .try_for_each(|i| write!(to, "{} ", i + 1))
                        .and_then(|()| writeln!(to, "{}", shortest(value))),
                    AnswerKind::Csv => {
                        let mut row: Vec<String> = columns
                            .modes
                            .iter()
                            .zip(index)
                            .map(|(&mode, &i)| quoted(&names.label(mode, i)))
                            .collect();
                        row.extend(columns.value.map(|_| shortest(value)));
                        writeln!(to, "{}", row.join(","))
                    }
                };
                written.map_err(failed)
            })
        })
    }
}

/// The shortest text that is read as the same number: with an exponent where there would be many zeros.
fn shortest(value: f64) -> String {
    match value != 0.0 && value.is_finite() && !(1e-5..1e16).contains(&value.abs()) {
        true => format!("{value:e}"),
        false => value.to_string(),
    }
}

/// What is written of each entry.
pub struct Columns<'a> {
    /// The modes whose indices come with a value.
    pub modes: &'a [usize],
    /// What the values are; `None` where there is none in a `.csv`.
    pub value: Option<&'a str>,
    /// The shape of all of them as an array.
    pub shape: &'a [usize],
}

/// Refuses to replace what is read.
pub fn check_output(option: &str, path: &Path, inputs: &[&Path]) -> Result<()> {
    check_writable(option, path)?;
    match inputs.iter().find(|input| same_file(input, path)) {
        None => Ok(()),
        Some(input) => Err(Error::Setting(format!(
            "{option} {} would replace {}, which is read: choose another name",
            path.display(),
            input.display()
        ))),
    }
}

/// A field of a `.csv`.
pub fn quoted(text: &str) -> String {
    match text.contains(['"', ',', '\n', '\r']) || text != text.trim() {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.into(),
    }
}

/// The fields of a line of a `.csv`; `None` where a quote is not closed.
pub fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(c) = letters.next() {
        let last = fields.len() - 1;
        match c {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                fields[last].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields[last].push(c),
        }
    }
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_come_back() {
        for (value, text) in [
            (0.0, "0"),
            (2.018774838745593, "2.018774838745593"),
            (1e-5, "0.00001"),
            (1.5391930543881116e-18, "1.5391930543881116e-18"),
            (-2.5e300, "-2.5e300"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(shortest(value), text);
            assert_eq!(text.parse::<f64>().unwrap(), value);
        }
    }

    #[test]
    fn fields_come_back_as_they_were() {
        for text in ["", "Monday", "a, b", "say \"hi\"", " padded ", "ü"] {
            let line = format!("x,{},y", quoted(text));
            assert_eq!(fields(&line).unwrap(), ["x", text, "y"]);
        }
        assert_eq!(fields("\"open"), None);
    }
}
