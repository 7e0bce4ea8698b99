//! The losses of a fit, sweep by sweep.

use super::draw::{
    AxisScale, Drawing, Ruler, at, duration, escape, extent, number, numbers, width_of,
};
use nneinfact_fit::History;

/// What the losses are drawn against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Against {
    Sweeps,
    Seconds,
}

/// Whether there is anything to draw.
pub(super) fn any(history: &History) -> bool {
    history.loss.len() > 1
}

/// A loss with its name and its class.
pub(super) type Curve = (&'static str, &'static str, Vec<f64>);

/// The losses with their names and classes.
fn series(history: &History) -> Vec<Curve> {
    let mut all = vec![("training", "s0", history.loss.clone())];
    if !history.validation_loss.is_empty() {
        all.push(("validation", "s1", history.validation_loss.clone()));
    }
    if !history.heldout_loss.is_empty() {
        all.push(("held out", "s2", history.heldout_loss.clone()));
    }
    if !history.penalty.is_empty() {
        all.push(("training + penalty", "s3", history.objective()));
    }
    all
}

/// Points under the pointer, at most.
const SPOTS: usize = 120;

pub(super) fn curves(history: &History, against: Against, (width, height): (f64, f64)) -> Drawing {
    let all = series(history);
    let n = history.loss.len();
    let sweeps: Vec<f64> = match history.sweeps.len() == n {
        true => history.sweeps.iter().map(|&s| s as f64).collect(),
        false => (0..n).map(|i| i as f64).collect(),
    };
    let x: Vec<f64> = match against {
        Against::Sweeps => sweeps.clone(),
        Against::Seconds => history.seconds.clone(),
    };
    let what = match against {
        Against::Sweeps => "sweeps",
        Against::Seconds => "seconds",
    };
    let ends: Vec<String> = all
        .iter()
        .filter_map(|(name, _, values)| {
            let (first, last) = (values.first()?, values.get(history.returned)?);
            Some(format!("{name} from {} to {}", number(*first, 4), number(*last, 4)))
        })
        .collect();
    let label = format!("Loss against {what}: {}", ends.join("; "));
    let mut out = Drawing::new(width, height, label);
    let (x_low, x_high) = extent(x.iter().copied()).unwrap_or((0.0, 1.0));
    let values = || all.iter().flat_map(|s| s.2.iter().copied());
    let (low, high) = extent(values()).unwrap_or((0.0, 1.0));
    let log_y = low > 0.0 && high > 5.0 * low;
    let log_x = match against {
        Against::Sweeps => x_high > 30.0,
        Against::Seconds => x_low > 0.0 && x_high > 20.0 * x_low,
    };
    let pad = 0.04 * (high - low).max(1e-12 * high.abs()).max(f64::MIN_POSITIVE);
    let (low, high) = if log_y { (low / 1.06, high * 1.06) } else { (low - pad, high + pad) };
    let mut vertical = Ruler {
        scale: if log_y { AxisScale::Log } else { AxisScale::Linear },
        low,
        high,
        from: height - 38.0,
        to: 26.0,
    };
    let marks = vertical.ticks(5);
    let left = numbers(&marks, 4).iter().map(|m| width_of(m)).fold(0.0, f64::max) + 26.0;
    let horizontal = Ruler {
        scale: match (against, log_x) {
            (_, false) => AxisScale::Linear,
            (Against::Sweeps, true) => AxisScale::LogPlusOne,
            (Against::Seconds, true) => AxisScale::Log,
        },
        low: if log_x || x_low < 0.0 { x_low } else { 0.0 },
        high: if x_high > x_low { x_high } else { x_low + 1.0 },
        from: left,
        to: width - 10.0,
    };
    vertical.from = height - 38.0;
    axes(&mut out, (&horizontal, &vertical), &marks, [what, "mean loss"]);
    legend(&mut out, &all, left);
    if let Some(&at_return) = x.get(history.returned).filter(|_| history.returned + 1 < n) {
        let place = horizontal.at(at_return);
        out.push(&format!(
            "<line class=\"r\" x1=\"{0}\" y1=\"{1}\" x2=\"{0}\" y2=\"{2}\"><title>{3}</title></line>",
            at(place),
            at(vertical.to),
            at(vertical.from),
            escape(&format!("the factors are those of sweep {}", number(sweeps[history.returned], 6)))
        ));
    }
    for (_, class, values) in &all {
        let points = x.iter().zip(values).map(|(&x, &y)| (horizontal.at(x), vertical.at(y)));
        out.path(&format!("l {class}"), points);
    }
    hover(&mut out, history, &all, (&x, &sweeps), (&horizontal, &vertical));
    out
}

/// Grid lines and their numbers, and what runs along the axes.
pub(super) fn axes(
    out: &mut Drawing,
    (horizontal, vertical): (&Ruler, &Ruler),
    marks: &[f64],
    [across, up]: [&str; 2],
) {
    let (left, right) = (horizontal.from, horizontal.to);
    for (&mark, text) in marks.iter().zip(numbers(marks, 4)) {
        let y = vertical.at(mark);
        out.line("g", (left, y), (right, y));
        out.text(left - 5.0, y + 3.5, "n", "end", &text);
    }
    let mut free = f64::NEG_INFINITY;
    let marks = horizontal.ticks(6);
    for (&mark, text) in marks.iter().zip(numbers(&marks, 3)) {
        let place = horizontal.at(mark);
        let half = 0.5 * width_of(&text);
        out.line("g", (place, vertical.to), (place, vertical.from));
        if place - half > free + 4.0 {
            let inside = place.min(out.width - half - 1.0);
            out.text(inside, vertical.from + 13.0, "n", "middle", &text);
            free = place + half;
        }
    }
    let scale = |ruler: &Ruler| match ruler.scale {
        AxisScale::Linear => "",
        AxisScale::Log | AxisScale::LogPlusOne => ", log scale",
    };
    let (middle, below) = (0.5 * (left + right), out.height - 9.0);
    out.text(middle, below, "n", "middle", &format!("{across}{}", scale(horizontal)));
    out.push(&format!(
        "<text class=\"n\" transform=\"translate(9 {}) rotate(-90)\" text-anchor=\"middle\">{up}{}</text>",
        at(0.5 * (vertical.from + vertical.to)),
        scale(vertical)
    ));
}

/// The legend, which is also the title.
pub(super) fn legend(out: &mut Drawing, all: &[Curve], left: f64) {
    let mut place = left;
    for (name, class, _) in all {
        out.push(&format!(
            "<line class=\"l {class}\" x1=\"{}\" y1=\"10\" x2=\"{}\" y2=\"10\"/>",
            at(place),
            at(place + 16.0)
        ));
        out.text(place + 20.0, 13.5, "t2", "start", name);
        place += 20.0 + 1.08 * width_of(name) + 14.0;
    }
}

/// Transparent rectangles that tell the numbers, evenly spread over the width.
fn hover(
    out: &mut Drawing,
    history: &History,
    all: &[Curve],
    (x, sweeps): (&[f64], &[f64]),
    (horizontal, vertical): (&Ruler, &Ruler),
) {
    let mut last = f64::NEG_INFINITY;
    let least = (horizontal.to - horizontal.from) / SPOTS as f64;
    let mut chosen = Vec::new();
    for (i, &at) in x.iter().enumerate() {
        let place = horizontal.at(at);
        if place.is_finite() && (place >= last + least || i + 1 == x.len()) {
            chosen.push((i, place));
            last = place;
        }
    }
    for (c, &(i, place)) in chosen.iter().enumerate() {
        let from = if c == 0 { horizontal.from } else { 0.5 * (chosen[c - 1].1 + place) };
        let to = chosen.get(c + 1).map_or(horizontal.to, |next| 0.5 * (place + next.1));
        let numbers: Vec<String> = all
            .iter()
            .filter_map(|(name, _, values)| Some(format!("{name} {}", number(*values.get(i)?, 6))))
            .collect();
        let time = history.seconds.get(i).map_or(String::new(), |&s| format!(", {}", duration(s)));
        out.rect(
            "h",
            (from, vertical.to),
            (to - from, vertical.from - vertical.to),
            &format!("sweep {}{time}: {}", number(sweeps[i], 6), numbers.join(", ")),
        );
    }
}
