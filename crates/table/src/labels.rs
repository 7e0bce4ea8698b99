//! What the indices of a mode are called, and in which order.

use std::cmp::Ordering;

use crate::calendar;
use crate::number;

pub use nneinfact_core::data::LabelKind;

/// Labels in their order, with the index of every text that was given.
#[derive(Clone, Debug)]
pub(crate) struct Ordered {
    pub kind: LabelKind,
    pub labels: Vec<String>,
    pub places: Vec<u32>,
}

impl Ordered {
    /// The same labels for the same indices.
    pub fn as_they_are(kind: LabelKind, labels: Vec<String>) -> Ordered {
        let places = (0..labels.len() as u32).collect();
        Ordered { kind, labels, places }
    }

    /// Whether several texts have one index.
    pub fn merges(&self) -> bool {
        let mut seen = vec![false; self.labels.len()];
        let twice = |&place: &u32| {
            seen.get_mut(place as usize).is_some_and(|seen| std::mem::replace(seen, true))
        };
        self.places.iter().filter(|&&place| place != NOWHERE).any(twice)
    }
}

/// The index of a code that no entry has.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// Puts the texts of a column in order: numbers as numbers, times as times, weekdays and months as
/// such, others by code point. Texts of the same number, as 1 and 1.0, are one label, that which
/// stands first.
pub(crate) fn order(texts: &[&str]) -> Ordered {
    let numbers: Option<Vec<Number>> = texts.iter().map(|text| Number::parse(text)).collect();
    if let Some(numbers) = numbers {
        return arranged(LabelKind::Number, texts, |&a, &b| numbers[a].compare(&numbers[b]));
    }
    let by = |place: fn(&str) -> Option<usize>, whole: usize| {
        let places: Vec<usize> = texts.iter().map(|text| place(text)).collect::<Option<_>>()?;
        let kind = if texts.len() == whole { LabelKind::Cycle } else { LabelKind::Text };
        // Long and short names of one day stay apart.
        let order = |&a: &usize, &b: &usize| places[a].cmp(&places[b]).then(texts[a].cmp(texts[b]));
        let mut distinct = places.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let kind = if distinct.len() == texts.len() { kind } else { LabelKind::Text };
        Some(arranged(kind, texts, order))
    };
    if let Some(ordered) = by(calendar::weekday_named, 7).or_else(|| by(calendar::month_named, 12))
    {
        return ordered;
    }
    let length = texts.first().map_or(0, |text| text.len());
    let dates = texts.iter().all(|text| text.len() == length && calendar::is_iso(text));
    let kind = if dates { LabelKind::Date } else { LabelKind::Text };
    arranged(kind, texts, |&a, &b| texts[a].cmp(texts[b]))
}

/// Sorts; texts that compare as equal become one label.
fn arranged(
    kind: LabelKind,
    texts: &[&str],
    compare: impl Fn(&usize, &usize) -> Ordering,
) -> Ordered {
    let mut sorted: Vec<usize> = (0..texts.len()).collect();
    sorted.sort_by(&compare);
    let mut places = vec![0; texts.len()];
    let mut labels: Vec<String> = Vec::with_capacity(texts.len());
    let mut before: Option<usize> = None;
    for i in sorted {
        if !before.is_some_and(|before| compare(&before, &i).is_eq()) {
            labels.push(texts[i].to_string());
        }
        places[i] = labels.len() as u32 - 1;
        before = Some(i);
    }
    Ordered { kind, labels, places }
}

/// A number that labels something.
#[derive(Clone, Copy, Debug)]
struct Number {
    value: f64,
    /// For whole numbers that a float may not hold.
    whole: Option<i128>,
}

impl Number {
    /// Texts with zeros in front are codes, not numbers.
    fn parse(text: &str) -> Option<Number> {
        let text = text.trim();
        let digits = text.trim_start_matches(['+', '-']).as_bytes();
        if digits.first() == Some(&b'0') && digits.get(1).is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let value = number::parse(text.as_bytes())?;
        let whole = text.parse().ok();
        // Longer ones are codes: floats would not tell them apart.
        let code = whole.is_none() && digits.iter().all(u8::is_ascii_digit);
        (!code).then_some(Number { value, whole })
    }

    fn compare(&self, other: &Number) -> Ordering {
        let order = self.value.partial_cmp(&other.value).unwrap_or(Ordering::Equal);
        match (self.whole, other.whole) {
            (Some(a), Some(b)) => a.cmp(&b),
            // A whole number and one with a point that are the same float are told apart where
            // floats do not hold all whole numbers.
            (a, b) if order.is_eq() && self.value.abs() >= 9_007_199_254_740_992.0 => {
                a.is_some().cmp(&b.is_some())
            }
            _ => order,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(texts: &[&str]) -> (Vec<String>, LabelKind) {
        let ordered = order(texts);
        (ordered.labels, ordered.kind)
    }

    #[test]
    fn labels_are_in_order() {
        assert_eq!(ordered(&["10", "9", "-1", "9.5"]).0, ["-1", "9", "9.5", "10"]);
        assert_eq!(ordered(&["10", "9", "x"]).0, ["10", "9", "x"]);
        assert_eq!(ordered(&["01", "1"]), (vec!["01".into(), "1".into()], LabelKind::Text));
        assert_eq!(ordered(&["Sun", "Mon"]).0, ["Mon", "Sun"]);
        assert_eq!(ordered(&["March", "feb"]).0, ["feb", "March"]);
        assert_eq!(ordered(&["2014-04-02", "2014-04-01"]).1, LabelKind::Date);
        assert_eq!(ordered(&["é", "z", "a", "Z"]).0, ["Z", "a", "z", "é"]);
        let days = ["Sat", "Sun", "Mon", "Tue", "Wed", "Thu", "Fri"];
        assert_eq!(ordered(&days).1, LabelKind::Cycle);
        let merged = order(&["2", "1.0", "1", "-0", "0"]);
        assert_eq!(merged.labels, ["-0", "1.0", "2"]);
        assert_eq!(merged.places, [2, 1, 1, 0, 0]);
        assert!(merged.merges());
        // Too large for floats.
        let large = ["9007199254740993", "9007199254740992", "1e3"];
        assert_eq!(ordered(&large).0, ["1e3", "9007199254740992", "9007199254740993"]);
    }
}
