//! What a mode of the data and its indices are called.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What the labels of a mode are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LabelKind {
    /// Numbers, in their order.
    Number,
    /// Years, weeks, dates or times, in their order.
    Date,
    /// Places of a cycle, all of them: after the last comes the first.
    Cycle,
    /// Bins of numbers.
    Bins {
        /// The edges, one more than there are bins.
        edges: Vec<f64>,
    },
    /// Other texts.
    #[default]
    Text,
}

/// What a mode is called, and what each of its indices is called; either may be unknown.
///
/// ```
/// use nneinfact::data::Labels;
///
/// let days = Labels::parse("# Weekday\nMon\nTue\nWed\n");
/// assert_eq!((days.name(), days.get(1)), (Some("Weekday"), Some("Tue")));
/// assert_eq!(days.index_of("Wed"), Some(2));
/// assert_eq!(days.index_of("Sun"), None);
/// assert_eq!(Labels::named("Hour").describe(8), "8");
/// ```
///
/// Copies share the labels. Labels need not differ from each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels {
    name: Option<String>,
    indices: Option<Arc<Indexed>>,
    kind: LabelKind,
}

/// Labels, and once they were asked for also their order.
#[derive(Debug)]
struct Indexed {
    labels: Vec<String>,
    /// The indices in the order of their labels, equal ones in their own order.
    sorted: OnceLock<Vec<usize>>,
}

impl PartialEq for Indexed {
    fn eq(&self, other: &Indexed) -> bool {
        self.labels == other.labels
    }
}

impl Labels {
    /// A label for each index.
    #[must_use]
    pub fn new<T: Into<String>>(labels: impl IntoIterator<Item = T>) -> Labels {
        let labels = labels.into_iter().map(Into::into).collect();
        let indices = Some(Arc::new(Indexed { labels, sorted: OnceLock::new() }));
        Labels { indices, ..Labels::default() }
    }

    /// A name for the mode alone.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Labels {
        Labels::default().with_name(name)
    }

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
        let lines = &lines[usize::from(head.is_some())..];
        let labels = match lines {
            [] => Labels::default(),
            lines => Labels::new(lines.iter().map(|line| line.trim())),
        };
        Labels { name, ..labels }
    }

    /// The same with a name for the mode.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Labels {
        self.name = Some(name.into());
        self
    }

    /// The same with what the labels are.
    #[must_use]
    pub fn with_kind(mut self, kind: LabelKind) -> Labels {
        self.kind = kind;
        self
    }

    /// What is not known here, as it is there.
    #[must_use]
    pub fn or(&self, other: &Labels) -> Labels {
        let from = if self.indices.is_some() { self } else { other };
        Labels { name: self.name.clone().or_else(|| other.name.clone()), ..from.clone() }
    }

    /// What the mode is called.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What the labels are.
    #[must_use]
    pub fn kind(&self) -> &LabelKind {
        &self.kind
    }

    /// The label of each index.
    #[must_use]
    pub fn indices(&self) -> Option<&[String]> {
        self.indices.as_deref().map(|indices| &indices.labels[..])
    }

    /// Whether neither the mode nor its indices have a name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.name.is_none() && self.indices.is_none()
    }

    /// The label of an index.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&str> {
        self.indices()?.get(index).map(String::as_str)
    }

    /// The label of an index [for a message](printable), or else its number.
    #[must_use]
    pub fn describe(&self, index: usize) -> String {
        self.get(index).map_or_else(|| index.to_string(), printable)
    }

    /// The index of a label; of equal labels the first. The first call sorts the labels, later ones
    /// search among them.
    #[must_use]
    pub fn index_of(&self, label: &str) -> Option<usize> {
        let Indexed { labels, sorted } = self.indices.as_deref()?;
        let sorted = sorted.get_or_init(|| {
            let mut sorted: Vec<usize> = (0..labels.len()).collect();
            sorted.sort_by(|&a, &b| labels[a].cmp(&labels[b]));
            sorted
        });
        let at = sorted.partition_point(|&i| labels[i].as_str() < label);
        sorted.get(at).copied().filter(|&i| labels[i] == label)
    }

    /// The index that a user means: that of the label; of [bins](LabelKind::Bins) also the one that
    /// a number falls into; of a mode without labels the index itself, counted from 0.
    ///
    /// ```
    /// use nneinfact::data::{LabelKind, Labels};
    ///
    /// let zones = Labels::new(["Harlem", "Inwood"]).with_name("zone");
    /// assert_eq!(zones.find("Inwood")?, 1);
    /// let error = zones.find("harlem").unwrap_err().to_string();
    /// assert_eq!(error, "zone has no 'harlem': is 'Harlem' meant?");
    ///
    /// let kind = LabelKind::Bins { edges: vec![40.0, 40.5, 41.0] };
    /// let bins = Labels::new(["[40.0, 40.5)", "[40.5, 41.0]"]).with_kind(kind);
    /// assert_eq!(bins.find("40.7")?, 1);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Setting`] where there is none; the message names labels that come close.
    pub fn find(&self, text: &str) -> Result<usize> {
        if let Some(index) = self.index_of(text) {
            return Ok(index);
        }
        let Some(labels) = self.indices() else {
            return text.trim().parse().map_err(|_| {
                Error::Setting(format!(
                    "{} has no labels, so its indices are named by their numbers, counted from 0: \
                     '{}' is none",
                    self.called(),
                    printable(text)
                ))
            });
        };
        if let Some(bin) = self.bin_of(text) {
            return Ok(bin);
        }
        let hint = match close(labels, text).as_slice() {
            [] => format!("its labels are {}", some(labels)),
            near => format!("is {} meant?", some_of(near, " or ")),
        };
        Err(Error::Setting(format!("{} has no '{}': {hint}", self.called(), printable(text))))
    }

    /// The bin that a number falls into: from its lower edge up to but not including the upper one,
    /// which belongs to the last bin alone.
    fn bin_of(&self, text: &str) -> Option<usize> {
        let LabelKind::Bins { edges } = &self.kind else { return None };
        let x: f64 = text.trim().parse().ok()?;
        let (first, last) = (*edges.first()?, *edges.last()?);
        if !(first..=last).contains(&x) || Some(edges.len()) != self.indices().map(|l| l.len() + 1)
        {
            return None;
        }
        let above = edges.partition_point(|&edge| edge <= x);
        Some(above.saturating_sub(1).min(edges.len() - 2))
    }

    /// The mode in a sentence.
    fn called(&self) -> String {
        self.name().map_or_else(|| "the mode".into(), printable)
    }

    /// Whether there are as many labels as a mode has indices; `mode` is how the message calls it.
    ///
    /// # Errors
    /// [`Error::Setting`] where there are not.
    pub fn check(&self, mode: impl fmt::Display, size: usize) -> Result<()> {
        let Some(labels) = self.indices().filter(|labels| labels.len() != size) else {
            return Ok(());
        };
        let hint = match (self.name(), labels.first()) {
            (Some(name), _) if labels.len() + 1 == size => format!(
                "; if {} is not the name of the mode but the first label, put a line with # alone \
                 before it",
                printable(name)
            ),
            (_, Some(first)) if labels.len() == size + 1 && first.starts_with('#') => {
                "; a first line that names the mode has a space after its #".into()
            }
            _ => String::new(),
        };
        Err(Error::Setting(format!(
            "there are {} labels for the mode {mode}, which has {size} indices: one label \
             a line is expected for each{hint}",
            labels.len()
        )))
    }
}

/// The labels of all modes: either none, or those of each.
///
/// # Errors
/// [`Error::Setting`] where their number is not that of the modes, or as [`Labels::check`].
pub fn check_all<M: fmt::Display>(
    labels: &[Labels],
    modes: impl ExactSizeIterator<Item = (M, usize)>,
) -> Result<()> {
    if labels.len() != modes.len() && !labels.is_empty() {
        return Err(Error::Setting(format!(
            "there are labels for {} modes, but the data have {}",
            labels.len(),
            modes.len()
        )));
    }
    labels.iter().zip(modes).try_for_each(|(labels, (mode, size))| labels.check(mode, size))
}

/// An entry for a message: its index, and after it in brackets the labels where there are any.
///
/// ```
/// use nneinfact::data::{Labels, describe_index};
///
/// let labels = [Labels::new(["Mon", "Tue"]), Labels::named("Hour")];
/// assert_eq!(describe_index(&labels, &[1, 8]), "[1, 8] (Tue, 8)");
/// assert_eq!(describe_index(&[], &[1, 8]), "[1, 8]");
/// ```
#[must_use]
pub fn describe_index(labels: &[Labels], index: &[usize]) -> String {
    if labels.iter().all(|labels| labels.indices().is_none()) {
        return format!("{index:?}");
    }
    let names: Vec<String> =
        labels.iter().zip(index).map(|(labels, &at)| labels.describe(at)).collect();
    format!("{index:?} ({})", names.join(", "))
}

/// A text of a file for a line of a terminal: what could steer it, break the line or turn the
/// direction of what follows is written as its code, and what is very long is cut.
///
/// ```
/// use nneinfact::data::printable;
///
/// assert_eq!(printable("東京\u{1b}[31m"), "東京\\u{1b}[31m");
/// ```
#[must_use]
pub fn printable(text: &str) -> String {
    const LONGEST: usize = 80;
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::new();
    for (i, c) in text.chars().enumerate() {
        match c {
            _ if i == LONGEST => {
                shown.push('…');
                break;
            }
            c if steers(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// Labels that differ from a text in upper and lower case only, or else those that hold it or begin
/// as it does; three at most.
fn close<'a>(labels: &'a [String], text: &str) -> Vec<&'a String> {
    let wanted = text.trim().to_lowercase();
    if wanted.is_empty() {
        return Vec::new();
    }
    let same = |label: &&String| label.trim().to_lowercase() == wanted;
    let near = |label: &&String| {
        let label = label.to_lowercase();
        label.contains(&wanted) || edits(&label, &wanted) <= 1 + wanted.chars().count() / 6
    };
    let found: Vec<&String> = labels.iter().filter(same).take(3).collect();
    if found.is_empty() { labels.iter().filter(near).take(3).collect() } else { found }
}

/// How many characters have to be put in, taken out or replaced to make one text of the other; of
/// texts whose lengths differ much only that they are far apart.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 3 || a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

fn some(labels: &[String]) -> String {
    const SHOWN: usize = 5;
    let first: Vec<&String> = labels.iter().take(SHOWN).collect();
    match labels.len().saturating_sub(SHOWN) {
        0 => some_of(&first, ", "),
        more => format!("{} and {more} more", some_of(&first, ", ")),
    }
}

fn some_of(labels: &[&String], between: &str) -> String {
    let quoted: Vec<String> =
        labels.iter().map(|label| format!("'{}'", printable(label))).collect();
    quoted.join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_lead_to_their_indices() {
        let labels = Labels::new(["b", "a", "b", ""]);
        let found: Vec<_> = ["a", "b", "", "c"].map(|label| labels.index_of(label)).into();
        assert_eq!(found, [Some(1), Some(0), Some(3), None]);
        assert_eq!(Labels::named("x").index_of("a"), None);
        assert_eq!(Labels::named("x").find(" 7 ").unwrap(), 7);
        assert!(Labels::named("x").find("a").unwrap_err().to_string().contains("x has no labels"));
    }

    #[test]
    fn a_label_that_is_not_there_is_named_with_those_that_are() {
        let labels = Labels::new(["East Harlem", "Inwood", "Bronx"]).with_name("zone");
        let said = |text: &str| labels.find(text).unwrap_err().to_string();
        assert!(said("harlem").ends_with("is 'East Harlem' meant?"), "{}", said("harlem"));
        assert!(said("Inwod").ends_with("is 'Inwood' meant?"));
        assert!(said("Queens").ends_with("its labels are 'East Harlem', 'Inwood', 'Bronx'"));
        assert!(said("").contains("its labels are"));
        assert!(said("\u{1b}[2J").contains("\\u{1b}[2J"));
    }

    #[test]
    fn numbers_fall_into_bins() {
        let kind = LabelKind::Bins { edges: vec![-1.0, 0.0, 1.0] };
        let labels = Labels::new(["[-1, 0)", "[0, 1]"]).with_kind(kind);
        let bin = |text| labels.find(text).ok();
        assert_eq!(
            ["-1", "-0.5", "0", "1", "1.1", "NaN", "[0, 1]"].map(bin),
            [Some(0), Some(0), Some(1), Some(1), None, None, Some(1)]
        );
        // Edges that do not go with the labels lead nowhere.
        let kind = LabelKind::Bins { edges: vec![0.0] };
        assert!(Labels::new(["a"]).with_kind(kind).find("0").is_err());
    }

    #[test]
    fn what_is_not_known_comes_from_elsewhere() {
        let data = Labels::new(["a", "b"]).with_name("x").with_kind(LabelKind::Number);
        let named = Labels::named("y").or(&data);
        assert_eq!((named.name(), named.get(1), named.kind()), (Some("y"), Some("b"), data.kind()));
        let replaced = Labels::new(["c", "d"]).or(&data);
        assert_eq!((replaced.name(), replaced.get(1)), (Some("x"), Some("d")));
        assert_eq!(replaced.kind(), &LabelKind::Text);
    }
}
