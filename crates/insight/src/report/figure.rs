//! The figure for a paper.

use super::builder::Report;
use super::curves::{self, Against};
use super::draw::{Drawing, at, escape};
use super::raster;
use super::views::{ComponentGroup, Sizes, views};

/// Colours and sizes, in light only.
pub(super) const STYLE: &str = "text{fill:#333;font-size:9px;font-family:Helvetica,Arial,sans-serif}text.t,text.t2{fill:#000;font-size:9.5px}text.head{fill:#000;font-size:11px;font-weight:bold}.g{stroke:#e4e4e4;stroke-width:.7}.f{fill:none;stroke:#999;stroke-width:.5}.r{stroke:#555;stroke-width:1;stroke-dasharray:3 3}.l{fill:none;stroke-width:1.3;stroke-linejoin:round}.h{fill:none}.px{image-rendering:pixelated}.l.s0{stroke:#0072b2}.l.s1{stroke:#b85c00;stroke-dasharray:7 3}.l.s2{stroke:#009e73;stroke-dasharray:2 3}.l.s3{stroke:#cc79a7}.b.c0{fill:#0072b2}.b.c1{fill:#d55e00}.b.c2{fill:#009e73}.b.c3{fill:#cc79a7}.b.c4{fill:#56b4e9}.b.c5{fill:#e69f00}.f.c0{stroke:#0072b2}.f.c1{stroke:#d55e00}.f.c2{stroke:#009e73}.f.c3{stroke:#cc79a7}.f.c4{stroke:#56b4e9}.f.c5{stroke:#e69f00}.l.c0{stroke:#0072b2}.l.c1{stroke:#d55e00}.l.c2{stroke:#009e73}.l.c3{stroke:#cc79a7}.l.c4{stroke:#56b4e9}.l.c5{stroke:#e69f00}";

/// The width of a page of two columns, in pixels.
pub(super) const WIDTH: f64 = 720.0;
pub(super) const GAP: f64 = 14.0;
/// The most components of each latent index.
const MOST: usize = 10;

impl Report<'_> {
    /// The losses and the components as a figure: one SVG without a script, in generic fonts.
    #[must_use]
    pub fn svg(&self) -> String {
        figure(self)
    }
}

fn figure(report: &Report<'_>) -> String {
    let saved = report.saved;
    let axes = report.axes();
    let mut all = Drawing::new(WIDTH, 0.0, format!("Fit of {}", saved.model()));
    let mut y = 0.0;
    if let Some(title) = &report.title {
        heading(&mut all, &mut y, title);
    }
    if let Some(history) = saved.record().history.as_ref().filter(|h| curves::any(h)) {
        heading(&mut all, &mut y, "Loss");
        let width = 0.5 * (WIDTH - GAP);
        let size = (width, 170.0);
        let mut drawings = vec![curves::curves(history, Against::Sweeps, size)];
        if history.seconds.len() == history.loss.len() {
            drawings.push(curves::curves(history, Against::Seconds, size));
        }
        y = row(&mut all, y, &drawings, width) + 10.0;
    }
    let panels = |columns: usize| (WIDTH - GAP * (columns - 1) as f64) / columns as f64;
    let sized =
        |columns: usize| Sizes { width: panels(columns), height: 86.0, most: MOST, hover: false };
    // How many drawings a component has decides how wide they are.
    let trial = views(saved, &axes, Sizes { most: 1, ..sized(4) });
    for (g, trial) in trial.groups.iter().enumerate() {
        let each = trial.components.first().map_or(1, |c| c.panels.len()).max(1);
        let columns = if each == 1 { 4 } else { each.clamp(3, 5) };
        let mut made = views(saved, &axes, sized(columns));
        if g >= made.groups.len() {
            break;
        }
        let group = made.groups.swap_remove(g);
        y = component_rows(&mut all, y, group, (each, panels(columns)));
    }
    let columns = 4;
    let width = panels(columns);
    for single in views(saved, &axes, sized(columns)).others {
        if single.panels.is_empty() {
            continue;
        }
        heading(&mut all, &mut y, &single.title);
        y = row(&mut all, y, &single.panels, width) + 8.0;
    }
    all.height = y;
    all.label = report.heading().into();
    figure_of(&all, STYLE)
}

/// Rows of drawings with a heading for each, two drawings in a row.
pub(super) fn figure_of_rows(
    label: &str,
    title: Option<&str>,
    rows: &[(&str, Vec<Drawing>)],
) -> String {
    let mut all = Drawing::new(WIDTH, 0.0, label);
    let mut y = 0.0;
    if let Some(title) = title {
        heading(&mut all, &mut y, title);
    }
    for (text, drawings) in rows {
        heading(&mut all, &mut y, text);
        y = row(&mut all, y, drawings, 0.5 * (WIDTH - GAP)) + 10.0;
    }
    all.height = y;
    figure_of(&all, STYLE)
}

/// A drawing of the width of a page as a file of its own.
pub(super) fn figure_of(all: &Drawing, style: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"-8 -6 {0} {1}\" role=\"img\"><title>{2}</title><style>{style}</style>{3}<rect x=\"-8\" y=\"-6\" width=\"{0}\" height=\"{1}\" fill=\"#fff\"/>{4}</svg>\n",
        at(WIDTH + 16.0),
        at(all.height + 12.0),
        escape(&all.label),
        raster::gradient(),
        all.body
    )
}

/// A heading at `y`, which moves to below it.
pub(super) fn heading(all: &mut Drawing, y: &mut f64, text: &str) {
    all.text(0.0, *y + 12.0, "head", "start", text);
    *y += 20.0;
}

/// The components of a group, `each` with so many drawings; gives where the next thing begins.
fn component_rows(
    all: &mut Drawing,
    top: f64,
    group: ComponentGroup,
    (each, width): (usize, f64),
) -> f64 {
    let mut y = top;
    let more = group.rank - group.components.len();
    let more = match more {
        0 => String::new(),
        n => format!(" ({n} lighter ones are not shown)"),
    };
    heading(all, &mut y, &format!("Components {}{more}", group.letter));
    if each == 1 {
        // Each is small: several of them in a row.
        let mut drawings = Vec::new();
        for component in group.components {
            let name = format!("{} = {}, {}", group.letter, component.component, component.share());
            for drawing in component.panels {
                let mut titled =
                    Drawing::new(drawing.width, drawing.height + 13.0, drawing.label.clone());
                titled.text(0.0, 9.0, "t", "start", &name);
                titled.push(&drawing.placed(0.0, 13.0));
                drawings.push(titled);
            }
        }
        y = row(all, y, &drawings, width) + 8.0;
    } else {
        for component in &group.components {
            let name = format!(
                "{} = {}, {} of the sum of ŷ",
                group.letter,
                component.component,
                component.share()
            );
            all.text(0.0, y + 9.0, "t", "start", &name);
            y = row(all, y + 14.0, &component.panels, width) + 8.0;
        }
    }
    y
}

/// Drawings side by side, in as many rows as they need; gives where the next thing begins.
pub(super) fn row(all: &mut Drawing, top: f64, drawings: &[Drawing], width: f64) -> f64 {
    let columns = (((WIDTH + GAP + 0.5) / (width + GAP)).floor() as usize).max(1);
    let mut y = top;
    for line in drawings.chunks(columns) {
        for (i, drawing) in line.iter().enumerate() {
            let placed = drawing.placed(i as f64 * (width + GAP), y);
            all.push(&placed);
        }
        y += line.iter().map(|d| d.height).fold(0.0, f64::max) + 6.0;
    }
    y
}
