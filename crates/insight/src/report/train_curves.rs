//! The errors of the fit of a train, sweep by sweep.

use super::curves::{Against, Curve, axes, legend};
use super::draw::{AxisScale, Drawing, Ruler, duration, extent, number, width_of};
use nneinfact_fit::TrainHistory;

/// What is smaller is drawn here: rounding, and zeros.
const LEAST: f64 = 1e-30;

/// Whether there is anything to draw.
pub(super) fn any(history: &TrainHistory) -> bool {
    history.error.len() > 1
}

fn series(history: &TrainHistory) -> Vec<Curve> {
    let drawn = |values: &[f64]| -> Vec<f64> {
        values.iter().map(|&x| if x.is_finite() { x.max(LEAST) } else { f64::NAN }).collect()
    };
    let mut all = vec![("error", "s0", drawn(&history.error))];
    if history.barrier.iter().any(|&mu| mu > 0.0) {
        all.push(("barrier", "s1", drawn(&history.barrier)));
    }
    all
}

pub(super) fn curves(
    history: &TrainHistory,
    against: Against,
    (width, height): (f64, f64),
) -> Drawing {
    let all = series(history);
    let (x, what): (Vec<f64>, &str) = match against {
        Against::Sweeps => ((0..history.error.len()).map(|i| i as f64).collect(), "sweeps"),
        Against::Seconds => (history.seconds.clone(), "seconds"),
    };
    let ends = (history.error.first(), history.error.last());
    let label = match ends {
        (Some(&first), Some(&last)) => {
            format!("Error against {what}: from {} to {}", number(first, 4), number(last, 4))
        }
        _ => format!("Error against {what}"),
    };
    let mut out = Drawing::new(width, height, label);
    let (low, high) = extent(all.iter().flat_map(|s| s.2.iter().copied())).unwrap_or((LEAST, 1.0));
    // Whole decades.
    let (low, high) = (decade(low.log10().floor()), decade(high.log10().ceil()));
    let mut vertical = Ruler {
        scale: AxisScale::Log,
        low,
        high: if high > low { high } else { 10.0 * low },
        from: height - 38.0,
        to: 26.0,
    };
    let marks = vertical.ticks(6);
    let left = marks.iter().map(|&m| width_of(&number(m, 2))).fold(0.0, f64::max) + 26.0;
    let last = extent(x.iter().copied()).map_or(1.0, |(_, last)| last);
    let horizontal = Ruler {
        scale: AxisScale::Linear,
        low: 0.0,
        high: if last > 0.0 { last } else { 1.0 },
        from: left,
        to: width - 10.0,
    };
    vertical.from = height - 38.0;
    axes(&mut out, (&horizontal, &vertical), &marks, [what, "squared relative distance"]);
    legend(&mut out, &all, left);
    for (_, class, values) in &all {
        let points = x.iter().zip(values).map(|(&x, &y)| (horizontal.at(x), vertical.at(y)));
        out.path(&format!("l {class}"), points);
    }
    spots(&mut out, history, &x, (&horizontal, &vertical));
    out
}

fn decade(power: f64) -> f64 {
    10f64.powi(power as i32)
}

/// Transparent rectangles that tell the numbers.
fn spots(
    out: &mut Drawing,
    history: &TrainHistory,
    x: &[f64],
    (horizontal, vertical): (&Ruler, &Ruler),
) {
    const MOST: usize = 120;
    let every = x.len().div_ceil(MOST).max(1);
    let chosen: Vec<usize> = (0..x.len()).step_by(every).collect();
    for (c, &i) in chosen.iter().enumerate() {
        let place = horizontal.at(x[i]);
        let between = |other: usize| 0.5 * (place + horizontal.at(x[other]));
        let from = if c == 0 { horizontal.from } else { between(chosen[c - 1]) };
        let to = chosen.get(c + 1).map_or(horizontal.to, |&next| between(next));
        let barrier = match history.barrier.get(i) {
            Some(&mu) if mu > 0.0 => format!(", barrier {}", number(mu, 3)),
            _ => String::new(),
        };
        let time = history.seconds.get(i).map_or(String::new(), |&s| format!(", {}", duration(s)));
        out.rect(
            "h",
            (from, vertical.to),
            (to - from, vertical.from - vertical.to),
            &format!("sweep {i}{time}: error {}{barrier}", number(history.error[i], 4)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_reaches_down_to_what_rounding_leaves() {
        let history = TrainHistory {
            error: vec![0.5, 1e-9, 3e-20, 0.0],
            barrier: vec![0.0; 4],
            seconds: vec![0.0, 0.1, 0.2, 0.3],
            ..TrainHistory::default()
        };
        let drawing = curves(&history, Against::Sweeps, (400.0, 250.0));
        assert!(drawing.body.contains("1e-30"), "{}", drawing.body);
        assert!(drawing.body.contains("sweep 2, 200 ms: error 3e-20"), "{}", drawing.body);
        assert!(!drawing.body.contains("NaN") && !drawing.body.contains("inf"));
    }
}
