//! Residuals as drawings and tables.

use super::draw::{Drawing, escape, number, percent};
use super::labels::{ModeAxis, isolated};
use super::panel::{Series, SeriesStyle, vectors};
use super::residuals::{ResidualSums, Residuals, RoleResiduals};
use nneinfact_core::data::Role;

/// Rows of the table of the worst slices.
const WORST: usize = 10;

pub(super) fn name(role: Role) -> &'static str {
    match role {
        Role::Train => "Training entries",
        Role::Validation => "Validation entries",
        Role::HeldOut => "Held-out entries",
        Role::Missing => "Missing entries",
    }
}

/// Observed and predicted totals along a mode.
pub(super) fn totals(axis: &ModeAxis, sums: &[ResidualSums], size: (f64, f64)) -> Drawing {
    let observed: Vec<f64> = sums.iter().map(|s| s.observed).collect();
    let predicted: Vec<f64> = sums.iter().map(|s| s.predicted).collect();
    let series = [
        Series {
            name: "observed",
            class: "obs",
            values: &observed,
            style: if SeriesStyle::of(axis) == SeriesStyle::Bars {
                SeriesStyle::Bars
            } else {
                SeriesStyle::Area
            },
        },
        Series {
            name: "predicted",
            class: "pred",
            values: &predicted,
            style: if SeriesStyle::of(axis) == SeriesStyle::Bars {
                SeriesStyle::Marks
            } else {
                SeriesStyle::Line
            },
        },
    ];
    vectors(&format!("{}: totals", axis.title()), axis, &series, size)
}

/// Mean losses along a mode.
pub(super) fn losses(axis: &ModeAxis, sums: &[ResidualSums], size: (f64, f64)) -> Drawing {
    let means: Vec<f64> = sums.iter().map(ResidualSums::mean_loss).collect();
    let series = [Series { name: "", class: "loss", values: &means, style: SeriesStyle::of(axis) }];
    vectors(&format!("{}: mean loss", axis.title()), axis, &series, size)
}

/// The slices with the largest mean loss, as a table.
pub(super) fn worst(axes: &[ModeAxis], of_role: &RoleResiduals) -> String {
    let overall = of_role.all.mean_loss();
    let mut all: Vec<(&ModeAxis, usize, &ResidualSums)> = axes
        .iter()
        .zip(&of_role.modes)
        .filter(|(_, sums)| sums.len() > 1)
        .flat_map(|(axis, sums)| sums.iter().enumerate().map(move |(i, s)| (axis, i, s)))
        .filter(|(_, _, s)| s.mean_loss().is_finite())
        .collect();
    all.sort_by(|a, b| b.2.mean_loss().total_cmp(&a.2.mean_loss()));
    let rows: String = all
        .into_iter()
        .take(WORST)
        .map(|(axis, i, s)| {
            format!(
                "<tr><th scope=\"row\">{} = {}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&axis.name),
                escape(&isolated(&axis.label(i))),
                number(s.mean_loss(), 4),
                number(s.mean_loss() / overall, 3),
                percent(s.loss / of_role.all.loss),
                number(s.observed, 4),
                number(s.predicted, 4)
            )
        })
        .collect();
    format!(
        "<div class=\"scroll\"><table><thead><tr><th scope=\"col\">Slice</th><th scope=\"col\">Mean loss</th><th scope=\"col\">× overall</th><th scope=\"col\">Share of loss</th><th scope=\"col\">Observed</th><th scope=\"col\">Predicted</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

/// A sentence about all entries of a role.
pub(super) fn sentence(residuals: &Residuals, of_role: &RoleResiduals) -> String {
    let all = &of_role.all;
    let mut text =
        format!("{} entries: total observed {}", number(all.entries, 9), number(all.observed, 5));
    if residuals.has_predictions() {
        text += &format!(", predicted {}", number(all.predicted, 5));
    }
    if residuals.has_loss() {
        text += &format!(", mean loss {}", number(all.mean_loss(), 5));
    }
    text + "."
}
