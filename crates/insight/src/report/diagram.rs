//! The model as a small diagram.

use super::draw::{Drawing, at, cut, escape, separated, width_of};
use super::labels::ModeAxis;
use nneinfact_core::model::{Index, Shapes};

/// The distance of neighbouring factors.
const STEP: f64 = 84.0;
/// The distance of levels of latent indices.
const LEVEL: f64 = 38.0;
const RADIUS: f64 = 17.0;

/// Factors as nodes in a row; above them latent indices as dots that tie factors together, below them
/// the modes of the data as legs.
pub(super) fn diagram(shapes: &Shapes, modes: &[ModeAxis]) -> Drawing {
    let model = shapes.model();
    let factors = model.factors();
    let wide: Vec<f64> = (0..factors.len())
        .map(|l| (0.62 * width_of(&model.factor_name(l)) + 8.0).max(RADIUS))
        .collect();
    // Modes need room for their names.
    let names: Vec<(Index, &ModeAxis)> = model.output().iter().copied().zip(modes).collect();
    let mut xs = Vec::with_capacity(factors.len());
    let mut place = 14.0 + STEP / 2.0;
    for _ in factors {
        xs.push(place);
        place += STEP;
    }
    let latent: Vec<Index> = model.latent().iter().collect();
    let holders = |x: Index| -> Vec<usize> {
        (0..factors.len()).filter(|&l| factors[l].contains(&x)).collect()
    };
    // Indices that span fewer factors are nearer; indices whose spans overlap are on different levels.
    let mut order: Vec<(Index, Vec<usize>)> = latent.iter().map(|&x| (x, holders(x))).collect();
    let span = |h: &[usize]| h.last().copied().unwrap_or(0) - h.first().copied().unwrap_or(0);
    order.sort_by_key(|(x, h)| (span(h), h.first().copied(), *x));
    let mut levels: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut dots = Vec::new();
    for (index, holders) in &order {
        let middle = holders.iter().map(|&l| xs[l]).sum::<f64>() / holders.len().max(1) as f64;
        let text = format!("{index} = {}", separated(shapes.size(*index) as f64));
        let half = 0.6 * width_of(&text) + 4.0;
        let from = holders.first().map_or(middle, |&l| xs[l]).min(middle - half);
        let to = holders.last().map_or(middle, |&l| xs[l]).max(middle + half);
        let free = |level: &Vec<(f64, f64)>| level.iter().all(|&(a, b)| to < a || from > b);
        let level = levels.iter().position(free).unwrap_or_else(|| {
            levels.push(Vec::new());
            levels.len() - 1
        });
        levels[level].push((from, to));
        dots.push((index, holders, middle, level, text));
    }
    let row = 24.0 + LEVEL * levels.len() as f64 + RADIUS + 12.0;
    let legs = row + RADIUS + 34.0;
    let width = 28.0 + STEP * factors.len() as f64;
    let height = legs + 34.0;
    let described: Vec<String> = names
        .iter()
        .map(|(x, axis)| format!("mode {} of size {}", axis.title(), shapes.size(*x)))
        .collect();
    let mut out = Drawing::new(
        width,
        height,
        format!(
            "The model {model}: {} factors, latent indices {}, {}",
            factors.len(),
            latent
                .iter()
                .map(|x| format!("{x} of rank {}", shapes.size(*x)))
                .collect::<Vec<_>>()
                .join(", "),
            described.join(", ")
        ),
    );
    for &(_, holders, middle, level, _) in &dots {
        let y = row - RADIUS - 12.0 - LEVEL * level as f64 - 10.0;
        for &l in holders {
            out.push(&format!(
                "<path class=\"e\" d=\"M{} {}C{} {} {} {} {} {}\"/>",
                at(middle),
                at(y),
                at(middle + 0.55 * (xs[l] - middle)),
                at(y),
                at(xs[l]),
                at(y + 0.02 * (row - y)),
                at(xs[l]),
                at(row)
            ));
        }
    }
    // Legs: a mode is below the factors that have it, beside other modes of the same.
    let mut taken: Vec<(f64, f64)> = Vec::new();
    let mut ends = Vec::new();
    for (index, axis) in &names {
        let holders = holders(*index);
        let own = |l: usize| factors[l].iter().filter(|x| model.output().contains(x)).count();
        let middle = holders.iter().map(|&l| xs[l]).sum::<f64>() / holders.len().max(1) as f64;
        let shift = match holders.as_slice() {
            &[l] if own(l) > 1 => {
                let among: Vec<Index> =
                    factors[l].iter().copied().filter(|x| model.output().contains(x)).collect();
                let at = among.iter().position(|x| x == index).unwrap_or(0) as f64;
                (at - 0.5 * (among.len() - 1) as f64) * (STEP / among.len() as f64).min(44.0)
            }
            _ => 0.0,
        };
        ends.push((holders, middle + shift, *axis, shapes.size(*index)));
    }
    let mut deepest = 0usize;
    for (holders, x, axis, size) in &ends {
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
        let y = legs + 30.0 * k as f64;
        for &l in holders {
            out.push(&format!(
                "<path class=\"e\" d=\"M{} {}C{} {} {} {} {} {}\"/>",
                at(xs[l]),
                at(row),
                at(xs[l] + 0.3 * (x - xs[l])),
                at(row + RADIUS + 12.0),
                at(*x),
                at(row + RADIUS + 6.0),
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
    for (index, _, middle, level, text) in &dots {
        let y = row - RADIUS - 12.0 - LEVEL * *level as f64 - 10.0;
        out.push(&format!(
            "<circle class=\"d\" cx=\"{}\" cy=\"{}\" r=\"4.5\"><title>{}</title></circle>",
            at(*middle),
            at(y),
            escape(&format!("summed over {index}, rank {}", shapes.size(**index)))
        ));
        out.text(*middle, y - 9.0, "t2 halo", "middle", text);
    }
    for (l, &x) in xs.iter().enumerate() {
        let sizes: Vec<String> = shapes.factor(l).iter().map(ToString::to_string).collect();
        let half = wide[l];
        out.push(&format!(
            "<rect class=\"node\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"{}\"><title>{}</title></rect>",
            at(x - half),
            at(row - RADIUS),
            at(2.0 * half),
            at(2.0 * RADIUS),
            at(RADIUS),
            escape(&format!("theta_{}: {} = {} entries", l + 1, sizes.join(" × "), separated(shapes.factor(l).iter().map(|&n| n as f64).product())))
        ));
        out.text(x, row + 4.5, "nodetext", "middle", &model.factor_name(l));
    }
    out
}
