//! Texts that users write: reading them from left to right, and showing what is wrong in them.

use std::ops::Range;

use crate::error::{Error, Result};

/// The text on a line of its own, and carets under `at` on the next.
fn carets(text: &str, at: &Range<usize>) -> String {
    let mut shown = String::from("\n  ");
    // Control characters (a tab, say) would shift the carets.
    shown.push_str(&plain(text));
    shown.push_str("\n  ");
    for (byte, _) in text.char_indices() {
        if byte >= at.end.max(at.start + 1) {
            break;
        }
        shown.push(if byte >= at.start { '^' } else { ' ' });
    }
    if at.start >= text.len() {
        shown.push('^');
    }
    shown
}

/// An error in a text that the user wrote, shown with carets.
pub(crate) fn mistake(text: &str, at: &Range<usize>, message: impl AsRef<str>) -> Error {
    Error::Setting(format!("{}{}", message.as_ref(), carets(text, at)))
}

/// A cell of a table for a message: quoted, cut, without control characters.
pub(crate) fn shown(cell: &[u8]) -> String {
    const MOST: usize = 40;
    let text = String::from_utf8_lossy(&cell[..cell.len().min(4 * MOST)]);
    let mut out = String::from("'");
    out.extend(text.chars().take(MOST).map(|c| if is_hidden(c) { ' ' } else { c }));
    if text.chars().count() > MOST || cell.len() > 4 * MOST {
        out.push('…');
    }
    out.push('\'');
    out
}

/// Text for a message that others wrote: without control characters.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { ' ' } else { c }).collect()
}

/// Characters that steer a terminal, or turn the direction of what follows.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Names in a message: the first few, quoted.
pub(crate) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const MOST: usize = 20;
    let more = names.len().saturating_sub(MOST);
    let mut list: Vec<String> = names.take(MOST).map(|name| shown(name.as_bytes())).collect();
    if more > 0 {
        list.push(format!("and {more} more"));
    }
    list.join(", ")
}

/// A place in a text.
pub(crate) struct Cursor<'a> {
    /// The whole text.
    pub text: &'a str,
    /// How far it is read, in bytes.
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Cursor<'a> {
        Cursor { text, at: 0 }
    }

    /// What is not read yet.
    pub fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    /// The next character.
    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Takes the next character if it is this one, after white space.
    pub fn eat(&mut self, c: char) -> bool {
        self.skip_space();
        let there = self.peek() == Some(c);
        if there {
            self.at += c.len_utf8();
        }
        there
    }

    /// Takes characters up to the first that ends the word; the range is without spaces around it.
    pub fn word(&mut self, ends: impl Fn(char) -> bool) -> (&'a str, Range<usize>) {
        self.skip_space();
        let rest = self.rest();
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        let start = self.at;
        self.at += word.len();
        let word = word.trim_end();
        (word, start..start + word.len())
    }

    /// A text in quotes (`"…"`, `'…'` or `` `…` ``), if one comes next; a doubled quote stands for
    /// one.
    pub fn quoted(&mut self) -> Result<Option<(String, Range<usize>)>> {
        self.skip_space();
        let start = self.at;
        let Some(quote) = self.peek().filter(|c| matches!(c, '"' | '\'' | '`')) else {
            return Ok(None);
        };
        let mut out = String::new();
        let mut chars = self.rest().char_indices().skip(1).peekable();
        while let Some((i, c)) = chars.next() {
            if c != quote {
                out.push(c);
            } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
                out.push(quote);
                chars.next();
            } else {
                self.at = start + i + 1;
                return Ok(Some((out, start..self.at)));
            }
        }
        Err(mistake(self.text, &(start..self.text.len()), "this quote is not closed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carets_stand_under_the_mistake() {
        let text = "é,(x";
        assert_eq!(mistake(text, &(3..4), "no").to_string(), "no\n  é,(x\n    ^");
        assert_eq!(mistake(text, &(5..5), "no").to_string(), "no\n  é,(x\n      ^");
    }

    #[test]
    fn quotes_are_read() {
        let mut cursor = Cursor::new(" \"a\"\"b\" x");
        assert_eq!(cursor.quoted().unwrap(), Some(("a\"b".into(), 1..7)));
        assert_eq!(cursor.quoted().unwrap(), None);
        assert!(Cursor::new("'a").quoted().is_err());
    }
}
