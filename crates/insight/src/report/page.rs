//! The page.

use serde_json::json;

use super::builder::Report;
use super::curves::{self, Against};
use super::diagram::diagram;
use super::draw::{Drawing, duration, escape, json, number, separated};
use super::labels::ModeAxis;
use super::raster;
use super::residual_views;
use super::views::{ComponentGroup, ComponentView, SHOWN, Sizes, Views, views};
use nneinfact_fit::{History, StoppedBy};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The labels of longer modes are only in the drawings.
const LONGEST: usize = 20_000;

impl Report<'_> {
    /// The page, as HTML that is XML too.
    #[must_use]
    pub fn html(&self) -> String {
        page(self)
    }
}

fn page(report: &Report<'_>) -> String {
    let axes = report.axes();
    let saved = report.saved;
    let title = escape(report.heading());
    let views = views(saved, &axes, Sizes::PAGE);
    let mut body = String::new();
    body += &head(report, &axes);
    body += &format!(
        "<section aria-labelledby=\"model\"><h2 id=\"model\">Model</h2><div class=\"scroll\">{}</div><p class=\"note\">Nodes are factors, dots are latent indices that are summed over, legs are the modes of the data.</p></section>",
        sized(&diagram(saved.shapes(), &axes))
    );
    if let Some(history) = saved.record().history.as_ref().filter(|h| curves::any(h)) {
        body += &convergence(history);
    }
    body += &factors(&views);
    body += &residuals(report, &axes);
    let labels: serde_json::Map<String, serde_json::Value> = axes
        .iter()
        .map(|axis| {
            let labels = axis.labels.as_ref().map(|l| &l.all[..]).filter(|l| l.len() <= LONGEST);
            (axis.letter.to_string(), json!({ "name": axis.name, "labels": labels }))
        })
        .collect();
    let program = match saved.record().program.as_str() {
        "" => String::new(),
        program => format!("Fitted with {}. ", escape(program)),
    };
    document(
        &title,
        &body,
        &format!(
            "{program}Report by nneinfact {}. Indices count from 0.",
            env!("CARGO_PKG_VERSION")
        ),
        &serde_json::Value::Object(labels),
    )
}

/// A page around its body; `axes` are labels for the script.
pub(super) fn document(title: &str, body: &str, footer: &str, axes: &serde_json::Value) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/><meta name=\"color-scheme\" content=\"light dark\"/><link rel=\"icon\" href=\"data:,\"/><title>{title}</title><style>{STYLE}</style></head>\n<body><svg width=\"0\" height=\"0\" class=\"defs\" aria-hidden=\"true\" xmlns=\"http://www.w3.org/2000/svg\">{}</svg>\n<main>{body}</main>\n<footer>{footer}</footer>\n<div id=\"tip\" role=\"status\"></div>\n<script type=\"application/json\" id=\"axes\">{}</script>\n<script>//<![CDATA[\n{SCRIPT}\n//]]></script></body></html>\n",
        raster::gradient(),
        json(axes)
    )
}

/// A drawing that keeps its size, where there is room for it.
fn sized(drawing: &Drawing) -> String {
    format!(
        "<div class=\"sized\" style=\"width:min(100%,{:.0}px);min-width:{:.0}px\">{}</div>",
        drawing.width,
        0.72 * drawing.width,
        drawing.inline("diagram")
    )
}

fn head(report: &Report<'_>, axes: &[ModeAxis]) -> String {
    let saved = report.saved;
    let (record, shapes) = (saved.record(), saved.shapes());
    let mut facts: Vec<(&str, String)> = Vec::new();
    facts.push(("Model", format!("<code>{}</code>", escape(saved.model().text()))));
    let shape: Vec<String> = axes
        .iter()
        .map(|axis| {
            let (title, size) = (escape(&axis.title()), separated(axis.size as f64));
            // A letter and a length stay with the name.
            format!("{}\u{a0}{size}", title.replace(" (", "\u{a0}("))
        })
        .collect();
    facts.push(("Data", shape.join(" × ")));
    let ranks: Vec<String> =
        saved.model().latent().iter().map(|x| format!("{x} = {}", shapes.size(x))).collect();
    if !ranks.is_empty() {
        facts.push(("Ranks", ranks.join(", ")));
    }
    facts.push(("Parameters", separated(shapes.parameters() as f64)));
    if let Some(loss) = &record.loss {
        facts.push(("Loss", escape(&loss.describe())));
    }
    if let Some(data) = &record.data {
        let name = data.path.file_name().map(|n| n.to_string_lossy().into_owned());
        let key = data.key.as_ref().map_or(String::new(), |key| format!(", array {key}"));
        facts.push(("File", escape(&(name.unwrap_or_default() + &key))));
    }
    if let Some(history) = &record.history {
        facts.extend(course(history));
    }
    if let Some(date) = &record.date {
        facts.push(("Date", escape(&date.replace('T', " ").replace('Z', " UTC"))));
    }
    let facts: String = facts
        .iter()
        .map(|(what, fact)| format!("<div><dt>{what}</dt><dd>{fact}</dd></div>"))
        .collect();
    format!(
        "<header><h1>{}</h1>{}<dl>{facts}</dl></header>",
        escape(report.heading()),
        tiles(report)
    )
}

/// The losses at the end, large.
fn tiles(report: &Report<'_>) -> String {
    let Some(history) = &report.saved.record().history else { return String::new() };
    let losses = [
        ("Training loss", &history.loss),
        ("Validation loss", &history.validation_loss),
        ("Held-out loss", &history.heldout_loss),
        ("Penalty per entry", &history.penalty),
    ];
    let tiles: String = losses
        .iter()
        .filter_map(|(what, losses)| {
            let (first, last) = (losses.first()?, losses.get(history.returned)?);
            Some(format!(
                "<div class=\"tile\"><span>{what}</span><b>{}</b><small>from {}</small></div>",
                number(*last, 5),
                number(*first, 4)
            ))
        })
        .collect();
    if tiles.is_empty() { tiles } else { format!("<div class=\"tiles\">{tiles}</div>") }
}

/// How the fit went.
fn course(history: &History) -> Vec<(&'static str, String)> {
    let why = match history.stopped_by {
        StoppedBy::Tolerance => "stopped by the tolerance",
        StoppedBy::Precision => "stopped by the rounding errors of the loss",
        StoppedBy::MaxIter => "all that were asked for",
        StoppedBy::Validation => "stopped by the validation loss",
        StoppedBy::Interrupted => "interrupted",
        StoppedBy::Observer => "stopped by the program",
    };
    let mut facts = vec![("Sweeps", format!("{}, {why}", separated(history.iterations as f64)))];
    let returned = history.sweeps.get(history.returned).copied();
    if let Some(sweep) = returned.filter(|&sweep| sweep != history.iterations) {
        facts.push(("Returned", format!("the factors of sweep {sweep}, the best")));
    }
    if let Some(&seconds) = history.seconds.last() {
        facts.push(("Time", duration(seconds)));
    }
    if let Some(residual) = history.kkt_residual {
        facts.push(("KKT residual", format!("{residual:.1e}, 0 where no small change helps")));
    }
    if let Some(slabs) = history.slabs {
        facts.push(("Data", slabs.to_string()));
    }
    facts.push(("Algorithm", format!("{}, seed {}", escape(&history.algorithm), history.seed)));
    facts.push(("Device", format!("{}, {}", escape(&history.device), escape(&history.precision))));
    facts
}

fn convergence(history: &History) -> String {
    let size = (420.0, 250.0);
    let mut drawings = vec![curves::curves(history, Against::Sweeps, size)];
    if history.seconds.len() == history.loss.len() {
        drawings.push(curves::curves(history, Against::Seconds, size));
    }
    let drawings: String = drawings.iter().map(|d| shown(d, "curves")).collect();
    format!(
        "<section aria-labelledby=\"convergence\"><h2 id=\"convergence\">Convergence</h2><div class=\"pair\">{drawings}</div><p class=\"note\">Mean losses over their entries, weighted where there are weights.</p></section>"
    )
}

/// A drawing of a page.
pub(super) fn shown(drawing: &Drawing, class: &str) -> String {
    format!("<figure class=\"{class}\">{}</figure>", drawing.inline(class))
}

fn factors(views: &Views) -> String {
    let mut text = String::new();
    for group in &views.groups {
        text += &components(group);
    }
    if !views.others.is_empty() {
        text += "<section aria-labelledby=\"others\"><h2 id=\"others\">";
        text += if views.groups.is_empty() { "Factors" } else { "Cores and other factors" };
        text += "</h2>";
        for single in &views.others {
            let panels: String = single.panels.iter().map(|d| shown(d, "panel")).collect();
            let note = match single.note.as_str() {
                "" => String::new(),
                note => format!("<p class=\"note\">{}</p>", escape(note)),
            };
            text += &format!(
                "<h3><code>{}</code></h3><div class=\"panels\">{panels}</div>{note}",
                escape(&single.title)
            );
        }
        text += "<p class=\"note\">Values of latent indices are in the order of their weight.</p></section>";
    }
    text
}

fn components(group: &ComponentGroup) -> String {
    let letter = group.letter;
    let panels = group.components.iter().map(|c| c.panels.len()).max().unwrap_or(0);
    let card = |component: &ComponentView| -> String {
        let panels: String = component.panels.iter().map(|d| shown(d, "panel")).collect();
        let parts: String = component.parts.iter().map(|d| shown(d, "panel")).collect();
        let parts = match parts.as_str() {
            "" => String::new(),
            parts => format!(
                "<details><summary>the factors of the map</summary><div class=\"panels\">{parts}</div></details>"
            ),
        };
        format!(
            "<article class=\"card\"><h3>{} <span class=\"share\" title=\"{} of the sum of ŷ\"><i style=\"width:{:.1}%\"></i></span> <small>{}</small></h3><div class=\"panels\">{panels}</div>{parts}</article>",
            component.title(letter),
            component.share_exactly(),
            (100.0 * component.share).clamp(0.0, 100.0),
            component.share()
        )
    };
    let (shown, folded) = group.components.split_at(group.components.len().min(SHOWN));
    let class = match panels {
        0 | 1 => "cards",
        2 => "cards two",
        _ => "cards wide",
    };
    let mut text = format!(
        "<section aria-labelledby=\"letter-{letter}\"><h2 id=\"letter-{letter}\">Components {letter}</h2><p class=\"note\">{} component{} of <code>{}</code>, by their share of the sum of ŷ. Every drawing sums to 1: scales can move from factor to factor, shares cannot. {}</p><div class=\"{class}\">{}</div>",
        group.rank,
        if group.rank == 1 { "" } else { "s" },
        escape(&group.factors.join(", ")),
        escape(&group.notes.join(" ")),
        shown.iter().map(card).collect::<String>()
    );
    if !folded.is_empty() {
        text += &format!(
            "<details class=\"more\"><summary>{} lighter components</summary><div class=\"{class}\">{}</div></details>",
            folded.len(),
            folded.iter().map(card).collect::<String>()
        );
    }
    if group.left_out > 0 {
        text += &format!(
            "<p class=\"note\">{} lighter components are left out of this page.</p>",
            group.left_out
        );
    }
    text + "</section>"
}

fn residuals(report: &Report<'_>, axes: &[ModeAxis]) -> String {
    let notes: String =
        report.notes.iter().map(|note| format!("<p class=\"note\">{}</p>", escape(note))).collect();
    let Some(residuals) = &report.residuals else {
        return match notes.as_str() {
            "" => String::new(),
            notes => format!(
                "<section aria-labelledby=\"residuals\"><h2 id=\"residuals\">Residuals</h2>{notes}</section>"
            ),
        };
    };
    let mut text = format!(
        "<section aria-labelledby=\"residuals\"><h2 id=\"residuals\">Residuals</h2>{notes}"
    );
    for note in residuals.notes() {
        text += &format!("<p class=\"note\">{}</p>", escape(note));
    }
    if !residuals.has_predictions() {
        return text + "</section>";
    }
    text += "<p class=\"note\"><span class=\"key obs\"></span> observed <span class=\"key pred\"></span> predicted. Totals and mean losses over the entries at each index.</p>";
    let size = (290.0, 128.0);
    for of_role in residuals.by_role() {
        text += &format!(
            "<h3>{}</h3><p>{}</p>",
            residual_views::name(of_role.role),
            residual_views::sentence(residuals, of_role)
        );
        let mut drawings = String::new();
        for (axis, sums) in axes.iter().zip(&of_role.modes) {
            drawings += &shown(&residual_views::totals(axis, sums, size), "panel");
            if residuals.has_loss() {
                drawings += &shown(&residual_views::losses(axis, sums, size), "panel");
            }
        }
        text += &format!("<div class=\"panels\">{drawings}</div>");
        if residuals.has_loss() {
            text +=
                &format!("<h4>Worst-fitted slices</h4>{}", residual_views::worst(axes, of_role));
        }
    }
    text + "</section>"
}
