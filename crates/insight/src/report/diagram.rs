//! The model as a small diagram.

use super::draw::{Drawing, at, cut, escape, separated, width_of};
use super::labels::ModeAxis;
use nneinfact_core::model::{Index, Shapes};

/// The distance of neighbouring factors.
const STEP: f64 = 84.0;
/// The distance of levels of latent indices.
const LEVEL: f64 = 38.0;
const RADIUS: f64 = 17.0;

/// A latent index: a dot above the factors that have it.
struct Dot {
    index: Index,
    /// The factors.
    holders: Vec<usize>,
    middle: f64,
    /// Its level, counted from the factors.
    level: usize,
    text: String,
}

/// A mode of the data: a leg below the factors that have it.
struct Leg<'a> {
    holders: Vec<usize>,
    x: f64,
    axis: &'a ModeAxis,
    size: usize,
}

/// Where the factors are.
struct Row {
    /// The middle of every factor.
    xs: Vec<f64>,
    y: f64,
}

/// Factors as nodes in a row; above them latent indices as dots that tie factors together, below them
/// the modes of the data as legs.
pub(super) fn diagram(shapes: &Shapes, modes: &[ModeAxis]) -> Drawing {
    let model = shapes.model();
    let count = model.factors().len();
    let xs: Vec<f64> = (0..count).map(|l| 14.0 + STEP / 2.0 + STEP * l as f64).collect();
    let (dots, levels) = dots(shapes, &xs);
    let row = Row { xs, y: 24.0 + LEVEL * levels as f64 + RADIUS + 12.0 };
    let width = 28.0 + STEP * count as f64;
    let mut out = Drawing::new(width, row.y + RADIUS + 34.0 + 34.0, description(shapes, modes));
    for dot in &dots {
        draw_edges(&mut out, &row, dot);
    }
    let legs = legs(shapes, modes, &row.xs);
    draw_legs(&mut out, &row, &legs, width);
    for dot in &dots {
        draw_dot(&mut out, &row, dot, shapes.size(dot.index));
    }
    draw_nodes(&mut out, &row, shapes);
    out
}

/// The diagram in words, for those who do not see it.
fn description(shapes: &Shapes, modes: &[ModeAxis]) -> String {
    let model = shapes.model();
    let ranks: Vec<String> =
        model.latent().iter().map(|x| format!("{x} of rank {}", shapes.size(x))).collect();
    let modes: Vec<String> = model
        .output()
        .iter()
        .zip(modes)
        .map(|(x, axis)| format!("mode {} of size {}", axis.title(), shapes.size(*x)))
        .collect();
    format!(
        "The model {model}: {} factors, latent indices {}, {}",
        model.factors().len(),
        ranks.join(", "),
        modes.join(", ")
    )
}

/// The factors that have an index.
fn holders(shapes: &Shapes, x: Index) -> Vec<usize> {
    let factors = shapes.model().factors();
    (0..factors.len()).filter(|&l| factors[l].contains(&x)).collect()
}

/// The mean place of some factors.
fn middle(xs: &[f64], holders: &[usize]) -> f64 {
    holders.iter().map(|&l| xs[l]).sum::<f64>() / holders.len().max(1) as f64
}

/// The latent indices, and the number of their levels. Indices that span fewer factors are nearer;
/// indices whose spans overlap are on different levels.
fn dots(shapes: &Shapes, xs: &[f64]) -> (Vec<Dot>, usize) {
    let mut order: Vec<(Index, Vec<usize>)> =
        shapes.model().latent().iter().map(|x| (x, holders(shapes, x))).collect();
    let span = |h: &[usize]| h.last().copied().unwrap_or(0) - h.first().copied().unwrap_or(0);
    order.sort_by_key(|(x, h)| (span(h), h.first().copied(), *x));
    let mut levels: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut dots = Vec::new();
    for (index, holders) in order {
        let middle = middle(xs, &holders);
        let text = format!("{index} = {}", separated(shapes.size(index) as f64));
        let half = 0.6 * width_of(&text) + 4.0;
        let from = holders.first().map_or(middle, |&l| xs[l]).min(middle - half);
        let to = holders.last().map_or(middle, |&l| xs[l]).max(middle + half);
        let free = |level: &Vec<(f64, f64)>| level.iter().all(|&(a, b)| to < a || from > b);
        let level = levels.iter().position(free).unwrap_or_else(|| {
            levels.push(Vec::new());
            levels.len() - 1
        });
        levels[level].push((from, to));
        dots.push(Dot { index, holders, middle, level, text });
    }
    (dots, levels.len())
}

/// The modes of the data: each below the factors that have it, beside other modes of the same.
fn legs<'a>(shapes: &Shapes, modes: &'a [ModeAxis], xs: &[f64]) -> Vec<Leg<'a>> {
    let model = shapes.model();
    let leg = |(index, axis): (&Index, &'a ModeAxis)| {
        let holders = holders(shapes, *index);
        let own = |l: usize| -> Vec<Index> {
            model.factors()[l].iter().copied().filter(|x| model.output().contains(x)).collect()
        };
        let shift = match holders.as_slice() {
            &[l] if own(l).len() > 1 => {
                let among = own(l);
                let at = among.iter().position(|x| x == index).unwrap_or(0) as f64;
                (at - 0.5 * (among.len() - 1) as f64) * (STEP / among.len() as f64).min(44.0)
            }
            _ => 0.0,
        };
        let x = middle(xs, &holders) + shift;
        Leg { holders, x, axis, size: shapes.size(*index) }
    };
    model.output().iter().zip(modes).map(leg).collect()
}

impl Row {
    /// The height of the dots of a level.
    fn level(&self, level: usize) -> f64 {
        self.y - RADIUS - 12.0 - LEVEL * level as f64 - 10.0
    }
}

/// The lines from a dot to its factors.
fn draw_edges(out: &mut Drawing, row: &Row, dot: &Dot) {
    let (middle, y) = (dot.middle, row.level(dot.level));
    for &l in &dot.holders {
        out.push(&format!(
            "<path class=\"e\" d=\"M{} {}C{} {} {} {} {} {}\"/>",
            at(middle),
            at(y),
            at(middle + 0.55 * (row.xs[l] - middle)),
            at(y),
            at(row.xs[l]),
            at(y + 0.02 * (row.y - y)),
            at(row.xs[l]),
            at(row.y)
        ));
    }
}

/// The legs with their names and sizes, on several lines where names would touch.
fn draw_legs(out: &mut Drawing, row: &Row, legs: &[Leg<'_>], width: f64) {
    let mut taken: Vec<(f64, f64)> = Vec::new();
    let mut deepest = 0usize;
    for Leg { holders, x, axis, size } in legs {
        let name = cut(&axis.title(), 150.0);
        let half = 0.58 * width_of(&name).max(width_of(&separated(*size as f64))) + 3.0;
        let x_text = x.clamp(half.min(width / 2.0), (width - half).max(width / 2.0));
        let lines = (0..8).find(|&k| {
            let shifted = 30.0 * k as f64;
            taken.iter().all(|&(a, b)| {
                let key = 10_000.0 * shifted;
                x_text + half + key < a || x_text - half + key > b
            })
        });
        let k = lines.unwrap_or(0);
        deepest = deepest.max(k);
        let key = 300_000.0 * k as f64;
        taken.push((x_text - half + key, x_text + half + key));
        let y = row.y + RADIUS + 34.0 + 30.0 * k as f64;
        for &l in holders {
            out.push(&format!(
                "<path class=\"e\" d=\"M{} {}C{} {} {} {} {} {}\"/>",
                at(row.xs[l]),
                at(row.y),
                at(row.xs[l] + 0.3 * (x - row.xs[l])),
                at(row.y + RADIUS + 12.0),
                at(*x),
                at(row.y + RADIUS + 6.0),
                at(*x),
                at(y - 11.0)
            ));
        }
        if holders.len() > 1 {
            out.push(&format!(
                "<circle class=\"d\" cx=\"{}\" cy=\"{}\" r=\"3\"/>",
                at(*x),
                at(y - 10.0)
            ));
        }
        out.text(x_text, y + 3.0, "t2 halo", "middle", &name);
        out.text(x_text, y + 16.0, "n halo", "middle", &separated(*size as f64));
    }
    out.height += 30.0 * deepest as f64;
}

/// A dot with its index and rank.
fn draw_dot(out: &mut Drawing, row: &Row, dot: &Dot, rank: usize) {
    let y = row.level(dot.level);
    out.push(&format!(
        "<circle class=\"d\" cx=\"{}\" cy=\"{}\" r=\"4.5\"><title>{}</title></circle>",
        at(dot.middle),
        at(y),
        escape(&format!("summed over {}, rank {rank}", dot.index))
    ));
    out.text(dot.middle, y - 9.0, "t2 halo", "middle", &dot.text);
}

/// The factors.
fn draw_nodes(out: &mut Drawing, row: &Row, shapes: &Shapes) {
    let model = shapes.model();
    for (l, &x) in row.xs.iter().enumerate() {
        let sizes: Vec<String> = shapes.factor(l).iter().map(ToString::to_string).collect();
        let half = (0.62 * width_of(&model.factor_name(l)) + 8.0).max(RADIUS);
        out.push(&format!(
            "<rect class=\"node\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"{}\"><title>{}</title></rect>",
            at(x - half),
            at(row.y - RADIUS),
            at(2.0 * half),
            at(2.0 * RADIUS),
            at(RADIUS),
            escape(&format!("theta_{}: {} = {}", l + 1, sizes.join(" × "), entries(shapes.factor(l).iter().map(|&n| n as f64).product())))
        ));
        out.text(x, row.y + 4.5, "nodetext", "middle", &model.factor_name(l));
    }
}

/// So many entries, in words.
fn entries(n: f64) -> String {
    format!("{} {}", separated(n), if n == 1.0 { "entry" } else { "entries" })
}
