//! The figures of a study: held-out losses by model, and losses against sweeps and seconds.

use std::path::Path;

use super::draw::{
    AxisScale, Drawing, Ruler, cut, escape, extent, number, numbers, percent, width_of,
};
use super::figure::{GAP, STYLE as FIGURE_STYLE, WIDTH, figure_of, heading, row};
use super::study_path::{self, Shown, grid, judged, mean};
use crate::compare::{Mean, Row, RunCourse, RunRecord, StudyTable};

const STYLE: &str = include_str!("style.css");
/// The width of a drawing on a page, which a telephone has.
const PAGE_WIDTH: f64 = 360.0;
/// Rows that losses are drawn of, each in a colour.
const COLOURS: usize = 6;
/// How much wider names are than what [`width_of`] tells of smaller texts.
const LARGER: f64 = 1.1;
/// The height of a row of the first figure.
const LINE: f64 = 34.0;

/// What the losses of a study's runs are drawn against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Along {
    Sweeps,
    Seconds,
}

/// The figures of a study as one SVG: for each loss the held-out losses of every row, with median,
/// quartiles and every split, and the losses of the best run of every model, sweep by sweep and
/// second by second.
#[must_use]
pub fn study_svg(table: &StudyTable, courses: &[RunCourse]) -> String {
    let mut all = Drawing::new(WIDTH, 0.0, "Losses of a study");
    let mut y = 0.0;
    for loss in losses(table) {
        heading(&mut all, &mut y, &format!("{loss}: {}", judged(&rows_of(table, loss))));
        let boxes = boxes(&rows_of(table, loss), WIDTH);
        all.push(&boxes.placed(0.0, y));
        y += boxes.height + 8.0;
        let width = 0.5 * (WIDTH - GAP);
        let path = paths(table, &rows_of(table, loss), (width, 190.0));
        if !path.is_empty() {
            heading(&mut all, &mut y, &format!("{loss}: along {}", table.path().unwrap_or("")));
            y = row(&mut all, y, &path, width) + 10.0;
        }
        let drawings: Vec<Drawing> = [Along::Sweeps, Along::Seconds]
            .into_iter()
            .filter_map(|along| lines(&courses_of(courses, loss), along, (width, 190.0)))
            .collect();
        if !drawings.is_empty() {
            heading(&mut all, &mut y, &format!("{loss}: the best run of every model"));
            y = row(&mut all, y, &drawings, width) + 10.0;
        }
    }
    all.height = y;
    figure_of(&all, FIGURE_STYLE)
}

/// The figures of a study as a page, with a link to the report of the best run of each row that `link`
/// knows one for.
#[must_use]
pub fn study_page(
    table: &StudyTable,
    courses: &[RunCourse],
    title: &str,
    link: impl Fn(&Path) -> Option<String>,
) -> String {
    let mut body = format!("<header><h1>{}</h1><dl>{}</dl></header>", escape(title), facts(table));
    for loss in losses(table) {
        let rows = rows_of(table, loss);
        let name = escape(loss);
        body += &format!(
            "<section><h2>{name}</h2><h3>{}</h3>{}<p class=\"note\">A line is the median over the splits, a box reaches from the first to the third quartile, a dot is a split, represented by its best start.</p>",
            judged(&rows),
            figure(&boxes(&rows, PAGE_WIDTH))
        );
        let path = paths(table, &rows, (PAGE_WIDTH, 240.0));
        if !path.is_empty() {
            let drawings: String = path.iter().map(figure).collect();
            body += &format!(
                "<h3>Along {}</h3><div class=\"pair\">{drawings}</div>",
                escape(table.path().unwrap_or(""))
            );
        }
        let drawings: String = [Along::Sweeps, Along::Seconds]
            .into_iter()
            .filter_map(|along| lines(&courses_of(courses, loss), along, (PAGE_WIDTH, 240.0)))
            .map(|drawing| figure(&drawing))
            .collect();
        if !drawings.is_empty() {
            body += &format!(
                "<h3>The best run of every model</h3><div class=\"pair\">{drawings}</div>"
            );
        }
        body += &format!("{}</section>", listed(table, &rows, &link));
    }
    for note in table.notes() {
        body += &format!("<p class=\"note\">{}</p>", escape(note));
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/><meta name=\"color-scheme\" content=\"light dark\"/><link rel=\"icon\" href=\"data:,\"/><title>{}</title><style>{STYLE}</style></head>\n<body><main>{body}</main>\n<footer>Page by nneinfact {}.</footer></body></html>\n",
        escape(title),
        env!("CARGO_PKG_VERSION")
    )
}

/// What was compared on what, and by which score.
fn facts(table: &StudyTable) -> String {
    let about = table.about();
    let mut facts = vec![("Data", about[0].clone()), ("Runs", about[1..].join(", "))];
    if let Some(score) = table.score() {
        facts.push(("Score", format!("{score}: {}", score.describe())));
    }
    if let Some(path) = table.path() {
        facts.push(("Path", format!("along {path}: every fit starts from the one before")));
    }
    if !table.is_complete() {
        let (done, all) = table.progress();
        facts.push(("Not complete", format!("{done} of {all} runs are done")));
    }
    let one = |(what, fact): (&str, String)| {
        format!("<div><dt>{what}</dt><dd>{}</dd></div>", escape(&fact))
    };
    facts.into_iter().map(one).collect()
}

/// The figures of the path that a study follows.
fn paths(table: &StudyTable, rows: &[&Row], size: (f64, f64)) -> Vec<Drawing> {
    let Some(path) = table.path() else { return Vec::new() };
    let all = [Shown::Loss, Shown::Kept].into_iter();
    all.filter_map(|shown| study_path::drawing(rows, path, shown, size)).collect()
}

fn figure(drawing: &Drawing) -> String {
    format!("<figure class=\"panel\">{}</figure>", drawing.inline("panel"))
}

/// The losses of a table, in its order.
fn losses(table: &StudyTable) -> Vec<&str> {
    let mut losses: Vec<&str> = Vec::new();
    for row in table.rows() {
        if !losses.contains(&row.loss.as_str()) {
            losses.push(&row.loss);
        }
    }
    losses
}

fn rows_of<'a>(table: &'a StudyTable, loss: &str) -> Vec<&'a Row> {
    table.rows().iter().filter(|row| row.loss == loss).collect()
}

fn courses_of<'a>(courses: &'a [RunCourse], loss: &str) -> Vec<&'a RunCourse> {
    courses.iter().filter(|course| course.loss == loss).take(COLOURS).collect()
}

/// The loss of every split.
fn values(row: &Row) -> Vec<f64> {
    let of = |run: &RunRecord| {
        let result = run.outcome.result()?;
        Some(result.heldout_loss.or(result.validation_loss).unwrap_or(result.training_loss))
    };
    row.runs.iter().filter(|run| run.chosen).filter_map(of).filter(|x| x.is_finite()).collect()
}

/// For each row its name, and below it the losses of its splits on one axis.
fn boxes(rows: &[&Row], width: f64) -> Drawing {
    let all: Vec<f64> = rows.iter().flat_map(|row| values(row)).collect();
    let label = format!("{} of {} rows", judged(rows), rows.len());
    let mut out = Drawing::new(width, LINE * rows.len() as f64 + 30.0, label);
    let Some((low, high)) = extent(all.into_iter()) else {
        out.text(0.0, 14.0, "n", "start", "no run came to its end");
        return out;
    };
    let log = low > 0.0 && high > 5.0 * low;
    let pad = 0.05 * (high - low).max(1e-9 * high.abs()).max(f64::MIN_POSITIVE);
    let ruler = Ruler {
        scale: if log { AxisScale::Log } else { AxisScale::Linear },
        low: if log { low / 1.05 } else { low - pad },
        high: if log { high * 1.05 } else { high + pad },
        from: 6.0,
        to: width - 8.0,
    };
    let bottom = LINE * rows.len() as f64 + 6.0;
    let mut free = f64::NEG_INFINITY;
    let marks = ruler.ticks(5);
    for (&mark, text) in marks.iter().zip(numbers(&marks, 4)) {
        let x = ruler.at(mark);
        out.line("g", (x, 0.0), (x, bottom));
        let half = 0.5 * width_of(&text);
        let inside = x.clamp(half + 1.0, width - half - 1.0);
        if inside - half > free + 4.0 {
            out.text(inside, bottom + 12.0, "n", "middle", &text);
            free = inside + half;
        }
    }
    for (n, row) in rows.iter().enumerate() {
        let top = LINE * n as f64;
        let colour = format!("c{}", n % COLOURS);
        let found = mean(row);
        let said = found.map_or(": failed".into(), |m| format!(": {}", number(m.median, 4)));
        let room = (width - 12.0) / LARGER - width_of(&said);
        let name = cut(&row.label_under_loss(), room);
        out.text(6.0, top + 11.0, "t2", "start", &format!("{name}{said}"));
        let middle = top + 23.0;
        let (Some(found), splits) = (found, values(row)) else { continue };
        if let Some([first, third]) = found.quartiles {
            let (from, to) = (ruler.at(first), ruler.at(third));
            let title = format!(
                "{}: median {}, quartiles {} and {}, {} splits",
                row.label_under_loss(),
                number(found.median, 5),
                number(first, 5),
                number(third, 5),
                splits.len()
            );
            out.rect(&format!("f {colour}"), (from, middle - 6.0), (to - from, 12.0), &title);
        }
        if found.median.is_finite() {
            let x = ruler.at(found.median);
            out.line(&format!("l {colour}"), (x, middle - 7.0), (x, middle + 7.0));
        }
        for value in splits {
            let x = ruler.at(value);
            out.rect(
                &format!("b {colour}"),
                (x - 1.6, middle - 1.6),
                (3.2, 3.2),
                &number(value, 6),
            );
        }
    }
    out
}

/// The losses of several runs on one pair of axes.
fn lines(courses: &[&RunCourse], along: Along, (width, height): (f64, f64)) -> Option<Drawing> {
    let points = |course: &RunCourse| -> Vec<(f64, f64)> {
        let losses = match course.history.heldout_loss.is_empty() {
            true => &course.history.loss,
            false => &course.history.heldout_loss,
        };
        let xs: Vec<f64> = match along {
            Along::Sweeps => course.history.sweeps.iter().map(|&s| s as f64).collect(),
            Along::Seconds => course.history.seconds.clone(),
        };
        xs.into_iter().zip(losses.iter().copied()).filter(|p| p.1.is_finite()).collect()
    };
    let all: Vec<Vec<(f64, f64)>> = courses.iter().map(|course| points(course)).collect();
    let flat = || all.iter().flatten();
    let (low, high) = extent(flat().map(|p| p.1))?;
    let (first, last) = extent(flat().map(|p| p.0))?;
    if last <= first {
        return None;
    }
    let what = match along {
        Along::Sweeps => "sweeps",
        Along::Seconds => "seconds",
    };
    let held_out = courses.iter().any(|course| !course.history.heldout_loss.is_empty());
    let loss = if held_out { "held-out loss" } else { "training loss" };
    let legend = 13.0 * courses.len() as f64 + 6.0;
    let mut out = Drawing::new(width, height + legend, format!("{loss} against {what}"));
    let log = low > 0.0 && high > 3.0 * low;
    let pad = 0.04 * (high - low).max(1e-12 * high.abs()).max(f64::MIN_POSITIVE);
    let vertical = Ruler {
        scale: if log { AxisScale::Log } else { AxisScale::Linear },
        low: if log { low / 1.04 } else { low - pad },
        high: if log { high * 1.04 } else { high + pad },
        from: height + legend - 30.0,
        to: legend,
    };
    let marks = vertical.ticks(5);
    let left = numbers(&marks, 4).iter().map(|m| width_of(m)).fold(0.0, f64::max) + 8.0;
    let horizontal = Ruler {
        scale: AxisScale::Linear,
        low: first.min(0.0),
        high: last,
        from: left,
        to: width - 10.0,
    };
    grid(&mut out, (&horizontal, &vertical), (&horizontal.ticks(5), &marks));
    let scale = if log { ", log scale," } else { "" };
    let below = format!("{loss}{scale} against {what}");
    out.text(0.5 * (left + horizontal.to), height + legend - 4.0, "n", "middle", &below);
    for (n, (course, points)) in courses.iter().zip(&all).enumerate() {
        let class = format!("l c{}", n % COLOURS);
        let y = 8.0 + 13.0 * n as f64;
        out.line(&class, (left, y), (left + 16.0, y));
        let name = cut(&course.label, (width - left - 24.0) / LARGER);
        out.text(left + 20.0, y + 3.5, "t2", "start", &name);
        out.path(&class, points.iter().map(|&(x, y)| (horizontal.at(x), vertical.at(y))));
    }
    Some(out)
}

/// The rows with their numbers and links.
fn listed(table: &StudyTable, rows: &[&Row], link: &impl Fn(&Path) -> Option<String>) -> String {
    let numbers = |mean: Option<Mean>| match mean {
        None => "<td>–</td><td>–</td>".to_string(),
        Some(m) => {
            let quartiles = m.quartiles.map_or("–".into(), |[first, third]| {
                format!("{} – {}", number(first, 4), number(third, 4))
            });
            format!("<td>{}</td><td>{quartiles}</td>", number(m.median, 5))
        }
    };
    let more = further(table);
    let line = |row: &&Row| {
        let file = row.best.as_ref().and_then(|best| best.file.clone());
        let report = file.and_then(|file| link(Path::new(&file)));
        let label = escape(&row.label_under_loss());
        let name = match report {
            Some(href) => format!("<a href=\"{}\">{label}</a>", escape(&href)),
            None => label,
        };
        let more: String =
            more.iter().map(|(_, of)| format!("<td>{}</td>", escape(&of(row)))).collect();
        format!("<tr><td>{name}</td>{}{more}</tr>", numbers(mean(row)))
    };
    let lines: String = rows.iter().map(line).collect();
    let titles: String = more.iter().map(|(title, _)| format!("<th>{title}</th>")).collect();
    format!(
        "<div class=\"scroll\"><table><thead><tr><th>row</th><th>median</th><th>quartiles</th>{titles}</tr></thead><tbody>{lines}</tbody></table></div>"
    )
}

/// What else a table says of a row.
type Field = (&'static str, fn(&Row) -> String);

/// The columns of a table after the losses: what there is of it.
fn further(table: &StudyTable) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    if let Some(score) = table.score() {
        fields.push((score.name(), |row| row.score.map_or("–".into(), |m| number(m.median, 4))));
    }
    if table.path().is_some() {
        fields.push(("kept", Row::kept));
        fields.push(("zeros", |row| row.zeros.map_or("–".into(), percent)));
    }
    fields.push(("parameters", |row| row.parameters.to_string()));
    fields.push(("sweeps", |row| row.sweeps.map_or("–".into(), |x| format!("{x:.0}"))));
    fields.push(("seconds", |row| row.seconds.map_or("–".into(), |x| number(x, 2))));
    fields.push(("KKT residual", |row| row.kkt_residual.map_or("–".into(), |x| number(x, 1))));
    fields
}
