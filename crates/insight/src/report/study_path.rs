//! The figure of a path: losses, and how many components are kept, against what is followed.

use super::draw::{AxisScale, Drawing, Ruler, cut, extent, number, numbers, width_of};
use crate::compare::{Mean, Row};

/// Rows that are drawn, each model in a colour.
const COLOURS: usize = 6;

/// What is drawn of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// What rows are judged by: the held-out loss, or another where nothing is held out.
    Loss,
    /// The number of components that are kept, of all latent indices together.
    Kept,
}

/// What rows are judged by.
pub(super) fn judged(rows: &[&Row]) -> &'static str {
    match rows.iter().find_map(|row| row.training_loss.map(|_| row)) {
        Some(row) if row.heldout_loss.is_some() => "held-out loss",
        Some(row) if row.validation_loss.is_some() => "validation loss",
        _ => "training loss",
    }
}

pub(super) fn mean(row: &Row) -> Option<Mean> {
    row.heldout_loss.or(row.validation_loss).or(row.training_loss)
}

/// The rows of each model in the order of the path.
pub(super) fn models<'a>(rows: &[&'a Row]) -> Vec<(String, Vec<&'a Row>)> {
    let mut models: Vec<(String, Vec<&Row>)> = Vec::new();
    for &row in rows.iter().filter(|row| row.place.is_some()) {
        // Ranks are what a path goes along, or what tells models apart.
        let along_ranks = rows.iter().all(|other| other.penalty == row.penalty);
        let name = match along_ranks {
            true => row.name.clone(),
            false => {
                let ranks: Vec<String> =
                    row.ranks.iter().map(|(letter, rank)| format!("{letter}={rank}")).collect();
                format!("{} {}", row.name, ranks.join(","))
            }
        };
        match models.iter_mut().find(|(other, _)| *other == name) {
            Some((_, rows)) => rows.push(row),
            None => models.push((name, vec![row])),
        }
    }
    for (_, rows) in &mut models {
        rows.sort_by(|a, b| a.place.unwrap_or(0.0).total_cmp(&b.place.unwrap_or(0.0)));
    }
    models.truncate(COLOURS);
    models
}

/// Lines at marks across and up, with their numbers.
pub(super) fn grid(
    out: &mut Drawing,
    (horizontal, vertical): (&Ruler, &Ruler),
    (across, up): (&[f64], &[f64]),
) {
    for (&mark, text) in up.iter().zip(numbers(up, 4)) {
        let y = vertical.at(mark);
        out.line("g", (horizontal.from, y), (horizontal.to, y));
        out.text(horizontal.from - 4.0, y + 3.5, "n", "end", &text);
    }
    for (&mark, text) in across.iter().zip(numbers(across, 3)) {
        let x = horizontal.at(mark);
        out.line("g", (x, vertical.to), (x, vertical.from));
        out.text(x, vertical.from + 12.0, "n", "middle", &text);
    }
}

/// Lines along a path; `None` where there is nothing to draw.
pub(super) fn drawing(
    rows: &[&Row],
    path: &str,
    shown: Shown,
    (width, height): (f64, f64),
) -> Option<Drawing> {
    let models = models(rows);
    let value = |row: &Row| match shown {
        Shown::Loss => mean(row).map(|mean| mean.mean),
        Shown::Kept if row.components.is_empty() => None,
        Shown::Kept => Some(row.components.values().sum()),
    };
    let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
    let points = |rows: &Vec<&Row>| -> Vec<(f64, f64)> {
        rows.iter().filter_map(|row| Some((row.place?, value(row)?))).filter(finite).collect()
    };
    let all: Vec<Vec<(f64, f64)>> = models.iter().map(|(_, rows)| points(rows)).collect();
    let flat = || all.iter().flatten();
    let (low, high) = extent(flat().map(|p| p.1))?;
    let (first, last) = extent(flat().map(|p| p.0))?;
    if last <= first {
        return None;
    }
    // Weights are tried by factors; no penalty stands one step before the lightest.
    let lightest = extent(flat().map(|p| p.0).filter(|x| *x > 0.0))?.0;
    let log = path != "rank" && last > 5.0 * lightest;
    let zero = lightest * (lightest / last).powf(0.2);
    let x = |place: f64| if log && place <= 0.0 { zero } else { place };
    let what = match shown {
        Shown::Loss => judged(rows),
        Shown::Kept => "components kept",
    };
    let legend = 13.0 * models.len() as f64 + 6.0;
    let mut out = Drawing::new(width, height + legend, format!("{what} along {path}"));
    // Of components there are whole numbers only.
    let (least, whole) = match shown {
        Shown::Loss => (1e-6 * high.abs(), false),
        Shown::Kept => (10.0, true),
    };
    let pad = 0.05 * (high - low).max(least).max(f64::MIN_POSITIVE);
    let vertical = Ruler {
        scale: AxisScale::Linear,
        low: low - pad,
        high: high + pad,
        from: height + legend - 30.0,
        to: legend,
    };
    let counted = |marks: Vec<f64>, whole: bool| -> Vec<f64> {
        marks.into_iter().filter(|mark| !whole || mark.fract() == 0.0).collect()
    };
    let marks = counted(vertical.ticks(5), whole);
    let left = numbers(&marks, 4).iter().map(|m| width_of(m)).fold(0.0, f64::max) + 8.0;
    let horizontal = Ruler {
        scale: if log { AxisScale::Log } else { AxisScale::Linear },
        low: x(first),
        high: last,
        from: left + 4.0,
        to: width - 10.0,
    };
    let places = counted(horizontal.ticks(4), path == "rank");
    grid(&mut out, (&horizontal, &vertical), (&places, &marks));
    let axis = if path == "rank" { "sum of ranks" } else { "weight of the penalty" };
    let text =
        if log && first <= 0.0 { format!("{axis} (the first is none)") } else { axis.into() };
    out.text(0.5 * (left + horizontal.to), height + legend - 4.0, "n", "middle", &text);
    for (n, ((name, _), points)) in models.iter().zip(&all).enumerate() {
        let y = 8.0 + 13.0 * n as f64;
        out.line(&format!("l c{n}"), (left, y), (left + 16.0, y));
        let label = cut(&format!("{name}: {what}"), width - left - 24.0);
        out.text(left + 20.0, y + 3.5, "t2", "start", &label);
        let at = |&(place, value): &(f64, f64)| (horizontal.at(x(place)), vertical.at(value));
        out.path(&format!("l c{n}"), points.iter().map(at));
        for point in points {
            let (x, y) = at(point);
            let title = format!("{}: {}", number(point.0, 4), number(point.1, 5));
            out.rect(&format!("b c{n}"), (x - 2.0, y - 2.0), (4.0, 4.0), &title);
        }
    }
    Some(out)
}
