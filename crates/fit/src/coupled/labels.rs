//! Letters that parts of a coupled fit share: the same things, by their labels.

use std::cmp::Ordering;

use super::part::Part;
use nneinfact_core::data::{LabelKind, Labels, printable};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::IndexSet;

/// Brings the modes that parts share to the same labels: all that any part has. Gives the parts, and
/// sentences about what is probably not meant.
pub(super) fn agree(mut parts: Vec<Part>) -> Result<(Vec<Part>, Vec<String>)> {
    let mut notes = Vec::new();
    let all: IndexSet = parts.iter().flat_map(|part| part.model.output()).copied().collect();
    for index in all.iter() {
        let letter = char::from(index);
        let holders: Vec<(usize, usize)> = parts
            .iter()
            .enumerate()
            .filter_map(|(t, part)| {
                Some((t, part.model.output().iter().position(|&x| x == index)?))
            })
            .filter(|&(t, mode)| mode < parts[t].observations.shape().len())
            .collect();
        let labelled: Vec<(usize, usize, Labels)> = holders
            .iter()
            .filter_map(|&(t, mode)| {
                let labels = parts[t].observations.labels().get(mode)?.clone();
                labels.indices().is_some().then_some((t, mode, labels))
            })
            .collect();
        if labelled.is_empty() || holders.len() < 2 {
            continue;
        }
        let union = union(letter, &labelled)?;
        let size = union.indices().map_or(0, <[String]>::len);
        for &(t, mode) in &holders {
            if labelled.iter().any(|(own, ..)| *own == t) {
                continue;
            }
            let found = parts[t].observations.shape()[mode];
            if found != size {
                return Err(Error::Setting(format!(
                    "{letter} is the same mode in all tensors, and has {size} labels, but tensor {} has no labels and {found} indices there",
                    t + 1
                )));
            }
            notes.push(format!(
                "the indices of {letter} have no labels in tensor {}, and are taken for those of the others in their order",
                t + 1
            ));
        }
        for (t, mode, own) in labelled {
            notes.extend(lacking(t, letter, &own, &union, &parts[t]));
            let part = &mut parts[t];
            let about = |error| match error {
                Error::Setting(what) => Error::Setting(format!("tensor {}: {what}", t + 1)),
                error => error,
            };
            part.observations = part.observations.clone().relabeled(mode, &union).map_err(about)?;
        }
    }
    Ok((parts, notes))
}

/// That a tensor lacks indices that others have.
fn lacking(t: usize, letter: char, own: &Labels, union: &Labels, part: &Part) -> Option<String> {
    let all = union.indices()?;
    let mut lacking = all.iter().filter(|label| own.index_of(label).is_none());
    let first = lacking.next()?;
    let count = 1 + lacking.count();
    let zeros =
        part.observations.coordinates().is_some() && !part.observations.is_unlisted_missing();
    let what = if zeros { "zeros" } else { "missing" };
    Some(format!(
        "tensor {} has {} of the {} labels of {letter} that there are in all: its entries at the other {count}, '{}' for example, are {what}",
        t + 1,
        all.len() - count,
        all.len(),
        printable(first)
    ))
}

/// All labels of a letter, in an order that goes with that of every part.
fn union(letter: char, labelled: &[(usize, usize, Labels)]) -> Result<Labels> {
    let (first_part, _, first) = &labelled[0];
    let own = |labels: &Labels| labels.indices().map(<[String]>::to_vec).unwrap_or_default();
    let mut all = own(first);
    let mut kind = first.kind().clone();
    let differ = |t: usize, what: String| {
        Err(Error::Setting(format!(
            "{letter} is the same mode in tensors {} and {}: {what}",
            first_part + 1,
            t + 1
        )))
    };
    for (t, _, labels) in &labelled[1..] {
        let more = own(labels);
        if more == all {
            continue;
        }
        if let (LabelKind::Bins { .. }, _) | (_, LabelKind::Bins { .. }) = (&kind, labels.kind()) {
            return differ(
                *t,
                "its bins are not the same there; say which they are, as in bin(COLUMN,FROM:TO:STEP)"
                    .into(),
            );
        }
        if !more.iter().any(|label| all.contains(label)) {
            let example = |list: &[String]| list.first().map(|x| printable(x)).unwrap_or_default();
            return differ(
                *t,
                format!(
                    "they have no label of it in common ('{}' and '{}', for example)",
                    example(&all),
                    example(&more)
                ),
            );
        }
        if *labels.kind() != kind {
            kind = LabelKind::Text;
        }
        all = merged(all, more);
    }
    let made = Labels::new(all).with_kind(kind);
    Ok(match first.name() {
        Some(name) => made.with_name(name),
        None => made,
    })
}

/// How two labels stand to each other; `None` where that cannot be said.
type Comparison<'a> = &'a dyn Fn(&String, &String) -> Option<Ordering>;

/// Both lists: in their order where that is the same one, and else what is new after what is before it.
fn merged(first: Vec<String>, second: Vec<String>) -> Vec<String> {
    let numbers = |a: &String, b: &String| -> Option<Ordering> {
        a.trim().parse::<f64>().ok()?.partial_cmp(&b.trim().parse::<f64>().ok()?)
    };
    let texts = |a: &String, b: &String| Some(a.cmp(b));
    let rises = |list: &[String], order: Comparison<'_>| {
        list.windows(2).all(|pair| order(&pair[0], &pair[1]) == Some(Ordering::Less))
    };
    let known: std::collections::HashSet<String> = first.iter().cloned().collect();
    let orders: [Comparison<'_>; 2] = [&numbers, &texts];
    for order in orders {
        if rises(&first, order) && rises(&second, order) {
            let mut all = first;
            all.extend(second.into_iter().filter(|label| !known.contains(label)));
            all.sort_by(|a, b| order(a, b).unwrap_or(Ordering::Equal));
            return all;
        }
    }
    // What of the second list follows each label of the first, and what is before all of them.
    let mut after: std::collections::HashMap<Option<String>, Vec<String>> = Default::default();
    let mut last = None;
    for label in second {
        match known.contains(&label) {
            true => last = Some(label),
            false => after.entry(last.clone()).or_default().push(label),
        }
    }
    let mut all = after.remove(&None).unwrap_or_default();
    for label in first {
        let more = after.remove(&Some(label.clone())).unwrap_or_default();
        all.push(label);
        all.extend(more);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn lists_are_merged_in_an_order_of_both() {
        for (first, second, expected) in [
            ("2 9 10", "3 9 11", "2 3 9 10 11"),
            ("2026-01-01 2026-01-03", "2026-01-02 2026-01-03", "2026-01-01 2026-01-02 2026-01-03"),
            ("Mon Wed Fri", "Mon Tue Wed", "Mon Tue Wed Fri"),
            ("z a", "y z b", "y z b a"),
            ("b a", "a b c", "b c a"),
        ] {
            assert_eq!(merged(list(first), list(second)), list(expected), "{first} and {second}");
        }
    }
}
