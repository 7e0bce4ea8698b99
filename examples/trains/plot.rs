//! Errors against sweeps and against seconds, as one SVG.

use std::path::Path;

use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::Failure;
use crate::variants::Course;

/// Colours that tell lines apart for everybody (Okabe & Ito 2008).
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];
/// What is smaller is drawn here.
const LEAST: f64 = 1e-30;

/// Draws the courses of all variants.
pub fn draw(path: &Path, title: &str, courses: &[Course]) -> Result<(), Failure> {
    let area = SVGBackend::new(path, (1240, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.titled(title, ("sans-serif", 18))?.split_horizontally(560);
    let errors = || courses.iter().flat_map(|c| c.errors.iter().map(|e| e.max(LEAST)));
    let bottom = errors().fold(1.0, f64::min) / 2.0;
    let vertical = || (bottom..2.0).log_scale();
    let sweeps = courses.iter().map(|c| c.errors.len()).max().unwrap_or(2) as f64 - 1.0;
    let seconds = || courses.iter().flat_map(|c| c.seconds.iter().copied().skip(1));
    let (first, last) =
        (seconds().fold(f64::INFINITY, f64::min), seconds().fold(f64::MIN_POSITIVE, f64::max));
    let chart = ChartBuilder::on(&left)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..sweeps.max(1.0), vertical())?;
    lines(chart, "sweeps", courses, |_, i| Some(i as f64), false)?;
    let chart = ChartBuilder::on(&right)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .right_y_label_area_size(110)
        .build_cartesian_2d((first..last.max(1.01 * first)).log_scale(), vertical())?;
    lines(
        chart,
        "seconds",
        courses,
        |course, i| course.seconds.get(i).copied().filter(|_| i > 0),
        true,
    )?;
    area.present()?;
    Ok(())
}

/// The lines of one chart.
fn lines<'a, X>(
    mut chart: ChartContext<
        'a,
        SVGBackend<'a>,
        Cartesian2d<X, impl Ranged<ValueType = f64> + ValueFormatter<f64>>,
    >,
    what: &str,
    courses: &[Course],
    place: impl Fn(&Course, usize) -> Option<f64>,
    named: bool,
) -> Result<(), Failure>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_desc(what)
        .y_desc("squared relative distance")
        .x_label_formatter(&|v| {
            if *v == 0.0 || *v >= 1.0 { format!("{v:.0}") } else { format!("{v:.0e}") }
        })
        .y_label_formatter(&|v| format!("{v:.0e}"))
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    for (i, course) in courses.iter().enumerate() {
        let width = if i >= COLORS.len() { 1 } else { 2 };
        let color = COLORS[i % COLORS.len()].stroke_width(width);
        let points = course
            .errors
            .iter()
            .enumerate()
            .filter_map(|(i, e)| Some((place(course, i)?, e.max(LEAST))));
        chart
            .draw_series(LineSeries::new(points, color))?
            .label(course.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
    }
    if named {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    Ok(())
}
