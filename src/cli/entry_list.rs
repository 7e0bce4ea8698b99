//! Entries that a user lists, in the order of the list.

use std::fs;
use std::path::Path;

use super::answer::fields;
use super::mode_names::ModeNames;
use nneinfact_core::error::{Error, Result, escaped};

/// Reads the indices of entries: from a `.tns` indices counted from 1, with a value or without, from a
/// `.csv` a column for each mode, found by the titles, of labels or of indices from 0. Other columns are
/// passed over.
pub fn read(path: &Path, names: &ModeNames) -> Result<Vec<Vec<usize>>> {
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    let read = match extension.as_deref() {
        Some("tns") => tns,
        Some("csv") => csv,
        _ => return Err(Error::format(path, "entries are read from a .tns or a .csv file")),
    };
    let text = fs::read(path).map_err(|e| Error::file(path, e))?;
    let text = String::from_utf8(text)
        .map_err(|_| Error::format(path, "entries are read as UTF-8, which this is not"))?;
    let entries = read(text.strip_prefix('\u{feff}').unwrap_or(&text), names)
        .map_err(|(line, reason)| Error::format(path, format!("line {line}: {reason}")))?;
    match entries.is_empty() {
        true => Err(Error::format(path, "there are no entries")),
        false => Ok(entries),
    }
}

/// The rows of a `.csv`, each with the number of its first line from 0: a quoted field may have line breaks.
fn records(text: &str) -> Vec<(usize, &str)> {
    let mut rows = Vec::new();
    let (mut start, mut line, mut begun, mut quoted) = (0, 0, 0, false);
    for (at, c) in text.bytes().enumerate() {
        match c {
            b'"' => quoted = !quoted,
            b'\n' => {
                if !quoted {
                    rows.push((
                        begun,
                        text[start..at].strip_suffix('\r').unwrap_or(&text[start..at]),
                    ));
                    (start, begun) = (at + 1, line + 1);
                }
                line += 1;
            }
            _ => {}
        }
    }
    if start < text.len() {
        rows.push((begun, &text[start..]));
    }
    rows
}

/// The number of a line, and what is wrong with it.
type Fault = (usize, String);

fn tns(text: &str, names: &ModeNames) -> Result<Vec<Vec<usize>>, Fault> {
    let shape = names.shape();
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("");
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() {
            continue;
        }
        let fault = |reason: String| (number + 1, reason);
        if words.len() != shape.len() && words.len() != shape.len() + 1 {
            return Err(fault(format!(
                "{} numbers, but {} indices are expected, with a value or without",
                words.len(),
                shape.len()
            )));
        }
        let index = words.iter().zip(&shape).enumerate().map(|(mode, (word, &size))| {
            word.parse::<usize>().ok().filter(|i| (1..=size).contains(i)).map(|i| i - 1).ok_or_else(
                || {
                    fault(format!(
                        "{:?} is no index of the mode {}: a number from 1 to {size} is expected",
                        escaped(word),
                        names.letter(mode)
                    ))
                },
            )
        });
        entries.push(index.collect::<Result<Vec<usize>, Fault>>()?);
    }
    Ok(entries)
}

fn csv(text: &str, names: &ModeNames) -> Result<Vec<Vec<usize>>, Fault> {
    let mut lines = records(text).into_iter();
    let open = |number: usize| (number + 1, "a quote is not closed".to_string());
    let Some((_, head)) = lines.next() else { return Ok(Vec::new()) };
    let titles = fields(head).ok_or_else(|| open(0))?;
    let count = names.shape().len();
    let mut columns = Vec::with_capacity(count);
    for mode in 0..count {
        let found: Vec<usize> =
            (0..titles.len()).filter(|&c| names.mode(&titles[c]) == Some(mode)).collect();
        match found[..] {
            [column] => columns.push(column),
            _ => {
                let all: Vec<String> = (0..count).map(|mode| names.title(mode)).collect();
                let found = if found.is_empty() { "no column" } else { "more than one column" };
                return Err((
                    1,
                    format!(
                        "there is {found} for the mode {}: a title for each mode is expected, its \
                         letter or its name: {}",
                        names.title(mode),
                        all.join(", ")
                    ),
                ));
            }
        }
    }
    let mut entries = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let fields = fields(line).ok_or_else(|| open(number))?;
        let index = columns.iter().enumerate().map(|(mode, &column)| {
            let field = fields.get(column).ok_or_else(|| {
                (
                    number + 1,
                    format!("{} fields, but the titles are {}", fields.len(), titles.len()),
                )
            })?;
            names.index(mode, field).map_err(|e| (number + 1, e.to_string()))
        });
        entries.push(index.collect::<Result<Vec<usize>, Fault>>()?);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_end_where_no_quote_is_open() {
        let text = "a,b\r\n\"two\nlines\",1\n\n\"say \"\"hi\"\"\",2";
        let expected = [(0, "a,b"), (1, "\"two\nlines\",1"), (3, ""), (4, "\"say \"\"hi\"\"\",2")];
        assert_eq!(records(text), expected);
        // What is not closed ends with the file, and `fields` says so.
        assert_eq!(records("a\n\"b\nc\n"), [(0, "a"), (1, "\"b\nc\n")]);
        assert!(fields(records("\"b\nc\n")[0].1).is_none());
        assert!(records("").is_empty());
    }
}
