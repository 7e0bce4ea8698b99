//! Small drawings of vectors and matrices.

use super::axis_ticks::{draw_row_labels, index_ticks, row_labels};
use super::draw::{Drawing, at, cut, escape, extent, number, ticks, width_of};
use super::labels::{ModeAxis, isolated};
use super::raster;

/// How a vector is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeriesStyle {
    Bars,
    Line,
    /// What is below a line.
    Area,
    /// A stroke across each bar of another vector.
    Marks,
}

impl SeriesStyle {
    /// Bars where indices have names or are few, else a line. Between two names there is nothing that a
    /// line could go through, unless they are those of dates and bins.
    pub fn of(axis: &ModeAxis) -> SeriesStyle {
        let ordered = axis.dates || axis.edges.is_some();
        let limit = match &axis.labels {
            Some(_) if !ordered => 120,
            Some(_) => 40,
            None => 12,
        };
        if axis.size <= limit { SeriesStyle::Bars } else { SeriesStyle::Line }
    }
}

/// Where things are inside a drawing.
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// The places under a pointer that a line has at most.
const SPOTS: usize = 80;

/// A vector of one mode.
pub(super) fn profile(
    title: &str,
    axis: &ModeAxis,
    values: &[f64],
    class: &str,
    (width, height): (f64, f64),
) -> Drawing {
    let series = [Series { name: "", class, values, style: SeriesStyle::of(axis) }];
    let (mut out, complete) = ticked(title, axis, &series, (width, height));
    if axis.labels.is_some() && !complete {
        // Names without room below their bars: those that matter most.
        out.text(0.0, out.height + 8.0, "n", "start", &largest(axis, values, width));
        out.height += 12.0;
    }
    out
}

/// The most names that are said beside a drawing.
const NAMED: usize = 6;

/// The indices of the largest entries by their names, as many as there is room for.
fn largest(axis: &ModeAxis, values: &[f64], width: f64) -> String {
    let descending = |a: &usize, b: &usize| values[*b].total_cmp(&values[*a]).then(a.cmp(b));
    // What is next to nothing beside the largest matters to nobody.
    let least = 0.01 * values.iter().copied().fold(0.0, f64::max);
    let named = |&i: &usize| values[i] > 0.0 && values[i] >= least;
    let mut order: Vec<usize> = (0..values.len()).filter(named).collect();
    if order.len() > NAMED {
        order.select_nth_unstable_by(NAMED, descending);
        order.truncate(NAMED);
    }
    order.sort_unstable_by(descending);
    match order.is_empty() {
        true => "nothing above 0".into(),
        false => {
            let names: Vec<String> = order.iter().map(|&i| isolated(&axis.label(i))).collect();
            let text = |n: usize| format!("largest: {}", names[..n].join(", "));
            // Half a name says less than none, but for the first.
            let fits = (2..=names.len()).rev().find(|&n| width_of(&text(n)) <= width);
            cut(&text(fits.unwrap_or(1)), width)
        }
    }
}

/// One of several vectors over the same mode.
pub(super) struct Series<'a> {
    pub name: &'a str,
    pub class: &'a str,
    pub values: &'a [f64],
    pub style: SeriesStyle,
}

/// Vectors of one mode.
pub(super) fn vectors(
    title: &str,
    axis: &ModeAxis,
    series: &[Series<'_>],
    size: (f64, f64),
) -> Drawing {
    ticked(title, axis, series, size).0
}

/// Vectors of one mode, and whether every index has its label below.
fn ticked(
    title: &str,
    axis: &ModeAxis,
    series: &[Series<'_>],
    (width, height): (f64, f64),
) -> (Drawing, bool) {
    let all = || series.iter().flat_map(|s| s.values.iter().copied());
    let (low, high) = extent(all()).unwrap_or((0.0, 0.0));
    let peak = series.first().and_then(|s| {
        let at = (0..s.values.len()).max_by(|&a, &b| s.values[a].total_cmp(&s.values[b]))?;
        Some(format!("largest {} at {}", number(s.values[at], 3), axis.label(at)))
    });
    let mut out = Drawing::new(
        width,
        height,
        format!("{title}, {} indices, {}", axis.size, peak.unwrap_or_default()),
    );
    let (low, high) = (low.min(0.0), if high > low.min(0.0) { high } else { low.min(0.0) + 1.0 });
    let marks = ticks(low, high, 2);
    let margin = marks.iter().map(|&m| width_of(&number(m, 3))).fold(0.0, f64::max);
    let head = if title.is_empty() { 6.0 } else { 20.0 };
    let frame = Frame { left: margin + 8.0, right: width - 6.0, top: head, bottom: height - 17.0 };
    let y = |v: f64| frame.bottom + (v - low) / (high - low) * (frame.top - frame.bottom);
    if !title.is_empty() {
        out.text(0.0, 11.0, "t", "start", &cut(title, width));
    }
    for &mark in &marks {
        out.line("g", (frame.left, y(mark)), (frame.right, y(mark)));
        out.text(frame.left - 4.0, y(mark) + 3.5, "n", "end", &number(mark, 3));
    }
    let n = axis.size.max(1);
    let slot = (frame.right - frame.left) / n as f64;
    let middle = |i: usize| frame.left + (i as f64 + 0.5) * slot;
    for series in series {
        match series.style {
            SeriesStyle::Bars => {
                for (i, &value) in series.values.iter().enumerate().filter(|v| v.1.is_finite()) {
                    let gap = (0.15 * slot).min(2.0);
                    let (top, base) = (y(value.max(0.0)), y(value.min(0.0)));
                    out.rect(
                        &format!("b {}", series.class),
                        (frame.left + i as f64 * slot + gap, top),
                        (slot - 2.0 * gap, base - top),
                        "",
                    );
                }
            }
            SeriesStyle::Marks => {
                for (i, &value) in series.values.iter().enumerate().filter(|v| v.1.is_finite()) {
                    let reach = (0.42 * slot).min(14.0);
                    out.line(
                        &format!("l {}", series.class),
                        (middle(i) - reach, y(value)),
                        (middle(i) + reach, y(value)),
                    );
                }
            }
            SeriesStyle::Area => {
                let columns = (2.0 * (frame.right - frame.left)) as usize;
                let bounds = bounded(series.values, columns);
                let finite = || bounds.iter().filter(|p| p.1.is_finite());
                if let (Some(first), Some(last)) = (finite().next(), finite().next_back()) {
                    let line = finite().map(|&(i, v)| (middle(i), y(v)));
                    let ends = |i: usize| std::iter::once((middle(i), y(0.0)));
                    let class = format!("b {}", series.class);
                    out.path(&class, ends(first.0).chain(line).chain(ends(last.0)));
                }
            }
            SeriesStyle::Line => {
                let class = format!("l {}", series.class);
                let columns = (2.0 * (frame.right - frame.left)) as usize;
                let bounds = bounded(series.values, columns);
                out.path(&class, bounds.iter().map(|&(i, v)| (middle(i), y(v))));
            }
        }
    }
    spots(&mut out, axis, series, &frame);
    let complete = index_ticks(&mut out, axis, (frame.left, frame.right), frame.bottom + 12.5);
    (out, complete)
}

/// What the pointer says along a mode: transparent rectangles, for single indices or ranges of them.
fn spots(out: &mut Drawing, axis: &ModeAxis, series: &[Series<'_>], frame: &Frame) {
    let n = axis.size.max(1);
    let step = n.div_ceil(SPOTS);
    let slot = (frame.right - frame.left) / n as f64;
    let named = |s: &Series<'_>, text: String| match s.name {
        "" => text,
        name => format!("{name} {text}"),
    };
    for start in (0..axis.size).step_by(step) {
        let end = (start + step).min(axis.size);
        let place = match end - start {
            1 => axis.label(start),
            _ => format!("{} – {}", axis.label(start), axis.label(end - 1)),
        };
        let values: Vec<String> = series
            .iter()
            .filter_map(|s| {
                let part = s.values.get(start..end.min(s.values.len()))?;
                let (low, high) = extent(part.iter().copied())?;
                Some(named(
                    s,
                    match end - start {
                        1 => number(high, 4),
                        _ => format!("{} to {}", number(low, 3), number(high, 3)),
                    },
                ))
            })
            .collect();
        out.rect(
            "h",
            (frame.left + start as f64 * slot, frame.top),
            ((end - start) as f64 * slot, frame.bottom - frame.top),
            &format!("{place}: {}", if values.is_empty() { "–".into() } else { values.join(", ") }),
        );
    }
}

/// A line with at most about so many points: of each range of indices the smallest and the largest, in their
/// order, so that no peak is lost.
fn bounded(values: &[f64], most: usize) -> Vec<(usize, f64)> {
    if values.len() <= most.max(4) {
        return values.iter().copied().enumerate().collect();
    }
    let step = (2 * values.len()).div_ceil(most);
    let mut points = Vec::new();
    for (part, chunk) in values.chunks(step).enumerate() {
        let place = |i: usize| (part * step + i, chunk[i]);
        let low = (0..chunk.len()).min_by(|&a, &b| chunk[a].total_cmp(&chunk[b]));
        let high = (0..chunk.len()).max_by(|&a, &b| chunk[a].total_cmp(&chunk[b]));
        if let (Some(low), Some(high)) = (low, high) {
            points.push(place(low.min(high)));
            if low != high {
                points.push(place(low.max(high)));
            }
        }
    }
    points
}

/// A matrix over two axes.
pub(super) struct HeatMap<'a> {
    pub rows: &'a ModeAxis,
    pub columns: &'a ModeAxis,
    pub values: &'a [f64],
    /// One entry is as high as it is wide.
    pub square: bool,
    /// The rows and columns whose mean is one of the values, where they are such means already.
    pub block: Option<(usize, usize)>,
    /// The scale of the colours, where it is that of other heat maps too.
    pub tone: Option<Tone>,
}

/// How numbers become colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tone {
    /// The largest.
    max: f64,
    /// Which root of its share of the largest decides the colour of an entry.
    root: f64,
}

impl Tone {
    pub fn of(values: &[f64]) -> Tone {
        let max = values.iter().copied().fold(0.0, f64::max);
        // Where nearly all entries are far below the largest, squares would leave them in the dark.
        let mut positive: Vec<f64> = values.iter().copied().filter(|&x| x > 0.0).collect();
        positive.sort_unstable_by(f64::total_cmp);
        let typical = positive.get(positive.len() * 9 / 10).copied().unwrap_or(0.0);
        let root = match max / typical {
            x if positive.len() <= 16 || x <= 8.0 => 1.0,
            x if x <= 64.0 => 2.0,
            _ => 4.0,
        };
        Tone { max, root }
    }
}

/// The most pixels along an axis of a heat map.
pub(super) const PIXELS: usize = 256;

/// Below this side length a heat map of many entries has numbers for them, whatever was spent.
const LEAST_DETAIL: usize = 24;

/// A matrix as a heat map. `detail` are the bytes that may still be spent on numbers for the page's
/// script, where there is one. Each map takes a part of what is left, so that all have numbers: late
/// ones of many entries for blocks of them.
pub(super) fn heat(
    title: &str,
    matrix: &HeatMap<'_>,
    width: f64,
    detail: Option<&mut usize>,
) -> Drawing {
    let (rows, columns) = (matrix.rows, matrix.columns);
    let size = (rows.size.max(1), columns.size.max(1));
    let ((m, n), (a, b), values) = match matrix.block {
        None => raster::reduced(size, matrix.values, PIXELS),
        Some((a, b)) => ((size.0.div_ceil(a), size.1.div_ceil(b)), (a, b), matrix.values.to_vec()),
    };
    let Tone { max, root } = matrix.tone.unwrap_or_else(|| Tone::of(&values));
    let share = |x: f64| if max > 0.0 { (x / max).powf(1.0 / root) } else { 0.0 };
    let row_texts = row_labels(rows);
    let beside = row_texts.iter().map(|(_, t)| width_of(t)).fold(0.0, f64::max);
    let left = beside.min(70.0).min(0.3 * width) + 6.0;
    let half = 0.5f64.powf(root) * max;
    let bar_text = [max, half].map(|x| width_of(&number(x, 3)));
    // At least as much as most numbers take, so that maps beside each other are of one size.
    let right = 20.0 + bar_text[0].max(bar_text[1]).max(34.0) + 6.0;
    let head = if title.is_empty() { 6.0 } else { 20.0 };
    let (plot, high) = plot_size(matrix.square, size, (width - left - right).max(20.0));
    let bottom = head + high;
    let mut out = Drawing::new(
        width,
        bottom + 30.0,
        format!(
            "{title}: heat map of {} by {}, {} × {} entries, largest {}",
            rows.title(),
            columns.title(),
            size.0,
            size.1,
            number(max, 3)
        ),
    );
    if !title.is_empty() {
        out.text(0.0, 11.0, "t", "start", &cut(title, width));
    }
    let shares: Vec<f64> = match rows.upwards {
        true => values.chunks(n).rev().flatten().map(|&x| share(x)).collect(),
        false => values.iter().map(|&x| share(x)).collect(),
    };
    let hover = detail
        .map_or(String::new(), |detail| hover(matrix, &values, ((m, n), (a, b)), max, detail));
    let note = match (a, b) {
        (1, 1) => String::new(),
        _ => format!(", every pixel the mean of {a} × {b}"),
    };
    if let Some(uri) = raster::enlarged(n, m, &shares) {
        out.push(&format!(
            "<image class=\"px\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" href=\"{uri}\"{hover}><title>{}</title></image>",
            at(left),
            at(head),
            at(plot),
            at(high),
            escape(&format!("largest {}{note}", number(max, 4)))
        ));
    }
    out.push(&format!(
        "<rect class=\"f\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
        at(left),
        at(head),
        at(plot),
        at(high)
    ));
    draw_row_labels(&mut out, rows, &row_texts, (left, head, high));
    index_ticks(&mut out, columns, (left, left + plot), bottom + 12.0);
    caption(&mut out, matrix, left, (root, bottom + 25.0));
    colour_bar(&mut out, (left + plot + 8.0, head), high, [max, half]);
    out
}

/// The width and height of the entries of a heat map with so many rows and columns.
fn plot_size(square: bool, size: (usize, usize), width: f64) -> (f64, f64) {
    let mut plot = width;
    let mut high = match square {
        true => plot * size.0 as f64 / size.1 as f64,
        false => (11.0 * size.0 as f64).clamp(44.0, 150.0),
    };
    let tallest = 1.25 * plot;
    if square && high > tallest {
        plot *= tallest / high;
        high = tallest;
    }
    // Three numbers stand beside the colours.
    (plot, high.max(36.0))
}

/// Attributes of a heat map with its numbers for the page's script: those of blocks of entries where the
/// bytes that may be spent do not allow more.
fn hover(
    matrix: &HeatMap<'_>,
    values: &[f64],
    ((m, n), (a, b)): ((usize, usize), (usize, usize)),
    max: f64,
    detail: &mut usize,
) -> String {
    let (rows, columns) = (matrix.rows, matrix.columns);
    let bytes = |step: usize| 8 * m.div_ceil(step) * n.div_ceil(step) / 3;
    let allowed = (*detail / 8).max(bytes(1).min(8 * LEAST_DETAIL * LEAST_DETAIL / 3));
    // Rows and columns together, so that entries stay as square as they are.
    let step = (1..=PIXELS).find(|&step| bytes(step) <= allowed).unwrap_or(PIXELS);
    *detail = detail.saturating_sub(bytes(step));
    let coarse = match step {
        1 => None,
        _ => Some(raster::blocks((m, n), values, (step, step)).1),
    };
    let up = if rows.upwards { " data-up=\"1\"" } else { "" };
    let step = if step > 1 { format!(" data-f=\"{step}\"") } else { String::new() };
    format!(
        " data-v=\"{}\" data-m=\"{m}\" data-n=\"{n}\" data-a=\"{a}\" data-b=\"{b}\" data-s=\"{}\" data-t=\"{}\" data-max=\"{max:e}\"{}{}{step}{up}",
        raster::packed(coarse.as_deref().unwrap_or(values), max),
        rows.size.max(1),
        columns.size.max(1),
        named('r', rows),
        named('c', columns)
    )
}

/// The bar that tells which colour is which number, with its largest one and that of half the way.
fn colour_bar(out: &mut Drawing, (x, top): (f64, f64), high: f64, [max, half]: [f64; 2]) {
    let bottom = top + high;
    out.push(&format!(
        "<rect x=\"{}\" y=\"{}\" width=\"7\" height=\"{}\" fill=\"url(#heat)\"/>",
        at(x),
        at(top),
        at(high)
    ));
    for (share, value) in [(1.0, max), (0.5, half), (0.0, 0.0)] {
        let y = bottom - share * high;
        let y = (y + 3.5).min(bottom).max(top + 8.0);
        out.text(x + 10.0, y, "n", "start", &number(value, 3));
    }
}

/// What runs along the axes of a heat map, and how its colours are scaled.
fn caption(out: &mut Drawing, matrix: &HeatMap<'_>, left: f64, (root, y): (f64, f64)) {
    let (rows, columns, width) = (matrix.rows, matrix.columns, out.width);
    let up = if rows.upwards { "↑" } else { "↓" };
    let root = match root {
        1.0 => "",
        2.0 => " · colour √",
        _ => " · colour ⁴√",
    };
    let across = |columns: &str, rows: &str| format!("{columns} → · {rows} {up}{root}");
    let full = across(&columns.name, &rows.name);
    let (full, place) = match width_of(&full) {
        wide if wide <= width - left => (full, left),
        wide if wide <= width => (full, width - wide),
        // The title has the letters with their names.
        _ => (across(&columns.letters(), &rows.letters()), 0.0),
    };
    out.text(place, y, "n", "start", &cut(&full, width));
}

/// Where the page's script finds the labels of an axis: under the mode's letter, or here.
fn named(which: char, axis: &ModeAxis) -> String {
    if axis.mode {
        let first = match axis.first {
            0 => String::new(),
            first => format!(" data-{which}o=\"{first}\""),
        };
        return format!(" data-{which}=\"{}\"{first}", axis.letter);
    }
    match &axis.labels {
        Some(labels) if labels.all.len() <= 1024 => {
            let labels: Vec<String> = labels.all.iter().map(|l| l.replace('|', "/")).collect();
            format!(" data-{which}l=\"{}\"", escape(&labels.join("|")))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_peaks() {
        let mut values = vec![0.0; 10_000];
        values[4321] = 5.0;
        values[4322] = -2.0;
        let points = bounded(&values, 400);
        assert!(points.len() <= 420);
        assert!(points.contains(&(4321, 5.0)) && points.contains(&(4322, -2.0)));
        assert!(points.is_sorted_by_key(|p| p.0));
    }
}
