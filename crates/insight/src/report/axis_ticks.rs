//! What stands along the axes of drawings: names, coordinates, dates.

use super::draw::{Drawing, cut, ticks, width_of};
use super::labels::{ModeAxis, isolated};

/// The labels under a horizontal axis of indices, as many as there is room for; whether all are there and can
/// be recognised.
pub(super) fn index_ticks(
    out: &mut Drawing,
    axis: &ModeAxis,
    (from, to): (f64, f64),
    y: f64,
) -> bool {
    let n = axis.size.max(1);
    let slot = (to - from) / n as f64;
    if let Some(marks) = coordinates(axis, ((to - from) / 55.0).floor().max(1.0) as usize) {
        let places = marks.iter().map(|(place, text)| (from + place * slot, text.as_str()));
        write_below(out, places, (from, to), y);
        return true;
    }
    let middle = |i: usize| from + (i as f64 + 0.5) * slot;
    let (indices, texts): (Vec<usize>, Vec<String>) = match &axis.labels {
        Some(labels) => {
            if let Some(marks) = dates(axis, ((to - from) / 50.0) as usize) {
                marks.into_iter().unzip()
            } else if labels.widest + 5.0 <= slot {
                (0..n).map(|i| (i, axis.label(i))).unzip()
            } else if slot >= 13.0 && n <= 12 {
                // Short forms, if they still tell the indices apart.
                match shortened(axis, slot - 3.0) {
                    Some(short) => short.into_iter().enumerate().unzip(),
                    None => every(axis, slot),
                }
            } else {
                every(axis, slot)
            }
        }
        None => {
            let count = ((to - from) / 40.0).floor().max(2.0) as usize;
            whole_ticks(axis, count).into_iter().unzip()
        }
    };
    // One or two letters tell indices apart, but not what they are.
    let known =
        |(&i, text): (&usize, &String)| text.chars().nth(2).is_some() || *text == axis.label(i);
    let complete = indices.len() == n && indices.iter().zip(&texts).all(known);
    let places = indices.iter().zip(&texts).map(|(&i, text)| (middle(i), text.as_str()));
    write_below(out, places, (from, to), y);
    complete
}

/// Texts below their places, those that have room.
fn write_below<'a>(
    out: &mut Drawing,
    places: impl Iterator<Item = (f64, &'a str)>,
    (from, to): (f64, f64),
    y: f64,
) {
    // Those at the ends may reach beyond the axis, but not out of the drawing.
    let mut free = f64::NEG_INFINITY;
    for (place, text) in places {
        let half = 0.53 * width_of(text);
        let least = half.max(from + half - 20.0);
        let x = place.clamp(least, (to + 5.0 - half).max(least));
        if x - half > free {
            out.text(x, y, "n", "middle", &isolated(text));
            free = x + half + 2.0;
        }
    }
}

/// Round numbers along an axis of bins, with their places counted in bins; `None` for other axes.
fn coordinates(axis: &ModeAxis, count: usize) -> Option<Vec<(f64, String)>> {
    let edges = axis.edges.as_deref()?.get(axis.first..=axis.first + axis.size)?;
    let (&low, &high) = (edges.first()?, edges.last()?);
    let marks = ticks(low, high, count);
    let step = marks.windows(2).map(|pair| pair[1] - pair[0]).fold(high - low, f64::min);
    // As many digits as tell the marks apart: 2.5 has one more than its size says.
    let digits = (0..9).find(|&digits| {
        (step * 10f64.powi(digits)).fract().min(1.0 - (step * 10f64.powi(digits)).fract()) < 1e-6
    });
    let digits = digits.unwrap_or(9) as usize;
    let place = |x: f64| {
        let bin = edges.partition_point(|&edge| edge <= x).clamp(1, axis.size) - 1;
        let (from, to) = (edges[bin], edges[bin + 1]);
        bin as f64 + if to > from { (x - from) / (to - from) } else { 0.5 }
    };
    let text = |x: f64| format!("{x:.digits$}").replace('-', "−");
    Some(marks.into_iter().map(|x| (place(x), text(x))).collect())
}

/// Where years, or else months, begin along an axis of dates that are too many to be written all, as
/// many as there is room for; `None` for other axes, and where none begins or too many do.
fn dates(axis: &ModeAxis, room: usize) -> Option<Vec<(usize, String)>> {
    if !axis.dates || axis.size <= room {
        return None;
    }
    let starts = |length: usize| -> Option<Vec<(usize, String)>> {
        let part = |i: usize| axis.label(i).get(..length).map(String::from);
        let parts: Vec<String> = (0..axis.size).map(part).collect::<Option<_>>()?;
        let begins = |i: &usize| *i > 0 && parts[*i] != parts[i - 1];
        let found: Vec<usize> = (0..axis.size).filter(begins).collect();
        let every = found.len().div_ceil(room.max(1)).max(1);
        let found = found.into_iter().step_by(every).map(|i| (i, parts[i].clone()));
        Some(found.collect())
    };
    // Years of dates and weeks, months of dates: 2014, 2014-04.
    let years = starts(4).filter(|marks| marks.len() >= 3);
    let is_day = axis.label(0).len() == 10;
    years.or_else(|| starts(7).filter(|marks| is_day && marks.len() >= 2))
}

/// All labels as far as they fit, where that is more than a few letters; else the first letters of all,
/// three of them or as many as fit. Either has to tell them apart.
fn shortened(axis: &ModeAxis, width: f64) -> Option<Vec<String>> {
    let told_apart = |short: &Vec<String>| {
        let mut distinct = short.clone();
        distinct.sort();
        distinct.dedup();
        distinct.len() == short.len()
    };
    let cuts: Vec<String> = (0..axis.size).map(|i| cut(&axis.label(i), width)).collect();
    if width >= 45.0 && told_apart(&cuts) {
        return Some(cuts);
    }
    let first = |n: usize| -> Vec<String> {
        (0..axis.size).map(|i| axis.label(i).chars().take(n).collect()).collect()
    };
    [3, 4, 5, 2, 1]
        .into_iter()
        .map(first)
        .find(|short| told_apart(short) && short.iter().all(|s| width_of(s) <= width))
}

/// Every so-many-th label, cut where it is long.
fn every(axis: &ModeAxis, slot: f64) -> (Vec<usize>, Vec<String>) {
    let widest = axis.labels.as_ref().map_or(40.0, |labels| labels.widest).min(66.0) + 8.0;
    let least = (widest / slot).ceil().max(1.0) as usize;
    // Steps that people count in.
    let step = [1, 2, 3, 4, 5, 6, 8, 10, 12, 20, 24, 25, 50, 100, 200, 250, 500, 1000]
        .into_iter()
        .find(|&s| s >= least)
        .unwrap_or(least);
    (0..axis.size).step_by(step).map(|i| (i, cut(&axis.label(i), 66.0))).unzip()
}

/// The labels of the rows of a heat map, as many as there is room for.
pub(super) fn draw_row_labels(
    out: &mut Drawing,
    rows: &ModeAxis,
    row_texts: &[(usize, String)],
    (left, head, high): (f64, f64, f64),
) {
    let size = rows.size.max(1);
    if let Some(marks) = coordinates(rows, 4) {
        for (place, text) in marks {
            let place = if rows.upwards { size as f64 - place } else { place };
            let y = head + place * high / size as f64;
            out.text(left - 4.0, y.clamp(head + 4.0, head + high) + 3.5, "n", "end", &text);
        }
        return;
    }
    let apart = row_texts.get(1).map_or(1, |(i, _)| i - row_texts[0].0) as f64;
    let every = (10.0 / (apart * high / size as f64)).ceil().max(1.0) as usize;
    for (i, text) in row_texts.iter().step_by(every) {
        let i = if rows.upwards { size - 1 - i } else { *i };
        let y = head + (i as f64 + 0.5) * high / size as f64;
        out.text(
            left - 4.0,
            y.max(head + 4.0) + 3.5,
            "n",
            "end",
            &isolated(&cut(text, left - 5.0)),
        );
    }
}

/// The labels beside a vertical axis of indices.
pub(super) fn row_labels(axis: &ModeAxis) -> Vec<(usize, String)> {
    let n = axis.size;
    if let Some(marks) = coordinates(axis, 4) {
        return marks.into_iter().map(|(place, text)| (place as usize, text)).collect();
    }
    if n <= 12 {
        return (0..n).map(|i| (i, axis.label(i))).collect();
    }
    whole_ticks(axis, 4)
}

/// Round indices with their labels.
fn whole_ticks(axis: &ModeAxis, count: usize) -> Vec<(usize, String)> {
    let first = axis.first as f64;
    ticks(first, first + axis.size.saturating_sub(1) as f64, count)
        .into_iter()
        .filter(|m| m.fract() == 0.0 && *m >= first)
        .map(|m| (m as usize - axis.first, axis.label(m as usize - axis.first)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::labels::Names;
    use super::*;

    fn axis(size: usize) -> ModeAxis {
        ModeAxis {
            letter: 'i',
            name: "lat".into(),
            size,
            labels: None,
            upwards: true,
            mode: true,
            first: 0,
            edges: None,
            dates: false,
        }
    }

    #[test]
    fn bins_have_coordinates() {
        let edges: Vec<f64> = (0..=10).map(|i| 40.5 + f64::from(i) * 0.05).collect();
        let bins = ModeAxis { edges: Some(edges.into()), ..axis(10) };
        let marks = coordinates(&bins, 5).unwrap();
        let texts: Vec<&str> = marks.iter().map(|mark| mark.1.as_str()).collect();
        assert_eq!(texts, ["40.5", "40.6", "40.7", "40.8", "40.9", "41.0"]);
        assert!(
            marks.iter().zip([0.0, 2.0, 4.0, 6.0, 8.0, 10.0]).all(|(a, b)| (a.0 - b).abs() < 1e-6)
        );
        // A part of a mode has a part of its coordinates.
        let part = bins.part(&(4..8));
        assert_eq!(coordinates(&part, 2).unwrap()[0].1, "40.7");
        // Edges that are not those of the axis say nothing.
        let wrong = ModeAxis { edges: Some(Arc::from([0.0, 1.0])), ..axis(10) };
        assert!(coordinates(&wrong, 5).is_none());
    }

    #[test]
    fn names_are_cut_as_little_as_there_is_room_for() {
        let named = |names: &[&str]| {
            let names = names.iter().map(ToString::to_string).collect();
            ModeAxis { labels: Some(Names::new(names)), ..axis(3) }
        };
        let kinds = named(&["taxi", "a very long ride indeed", "car"]);
        let short = shortened(&kinds, 70.0).unwrap();
        assert_eq!((&short[0][..], &short[2][..]), ("taxi", "car"));
        assert!(short[1].starts_with("a very") && short[1].ends_with('…'), "{}", short[1]);
        // Where there is little room, forms of one length; and none that are alike.
        let days = named(&["Monday", "Tuesday", "Wednesday"]);
        assert_eq!(shortened(&days, 25.0).unwrap(), ["Mon", "Tue", "Wed"]);
        assert!(shortened(&named(&["a very long ride", "a very long walk", "b"]), 46.0).is_none());
    }

    #[test]
    fn dates_are_marked_where_months_begin() {
        let days: Vec<String> =
            (0..90).map(|i| format!("2014-{:02}-{:02}", 4 + i / 30, 1 + i % 30)).collect();
        let axis = ModeAxis { dates: true, labels: Some(Names::new(days)), ..axis(90) };
        let marks = dates(&axis, 8).unwrap();
        assert_eq!(marks, [(30, "2014-05".to_string()), (60, "2014-06".to_string())]);
        assert!(dates(&ModeAxis { dates: false, ..axis.clone() }, 8).is_none());
        assert!(dates(&axis, 100).is_none());
    }
}
