//! Line plots as SVG files.

use std::error::Error;
use std::path::Path;

pub use plotters::prelude::SeriesLabelPosition;
use plotters::prelude::*;

/// A line with its name.
pub type Line = (String, Vec<(f64, f64)>);

/// Colours that tell lines apart for everybody (Okabe & Ito 2008).
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Draws lines over two logarithmic axes, with their names where there is room for them.
pub fn draw(
    path: &Path,
    title: &str,
    [x, y]: [&str; 2],
    lines: &[Line],
    names: SeriesLabelPosition,
) -> Result<(), Box<dyn Error>> {
    let points = || lines.iter().flat_map(|(_, line)| line.iter().copied());
    let range = |of: fn((f64, f64)) -> f64| {
        points().map(of).fold((f64::MAX, f64::MIN_POSITIVE), |(a, b), v| (a.min(v), b.max(v)))
    };
    let (left, right) = range(|p| p.0);
    let (bottom, top) = range(|p| p.1);
    let area = SVGBackend::new(path, (720, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d((left..right).log_scale(), (bottom / 1.2..top * 1.2).log_scale())?;
    let number = |v: &f64| format!("{v:.0e}");
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    for (i, (name, line)) in lines.iter().enumerate() {
        let color = COLORS[i % COLORS.len()].stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.iter().copied(), color))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
    }
    chart
        .configure_series_labels()
        .position(names)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}
