//! Two fits side by side as a page.

use super::builder::Report;
use super::draw::{escape, percent};
use super::labels::ModeAxis;
use super::panel::profile;
use crate::matching::{IndexMatching, MatchedPair, Matching};
use nneinfact_core::error::Result;
use nneinfact_fit::{FactoredTensor, Saved};

const STYLE: &str = include_str!("style.css");
/// The size of a profile.
const PROFILE: (f64, f64) = (380.0, 120.0);
/// Pairs that are drawn of each latent index.
const DRAWN: usize = 40;

/// A page with the pairs of [`matching`](crate::matching::matching) side by side: for every pair and every
/// mode that both have, the profile of each component, as distributions.
///
/// # Errors
/// [`Error::Memory`](nneinfact_core::error::Error::Memory) where a profile does not fit in memory.
pub fn match_page(
    matching: &Matching,
    (first, first_name): (&Saved, &str),
    (second, second_name): (&Saved, &str),
) -> Result<String> {
    let reports = (Report::new(first), Report::new(second));
    let axes = (reports.0.axes(), reports.1.axes());
    let mut body = head(matching, first_name, second_name);
    for index in &matching.indices {
        body += &table(index);
        for (n, pair) in index.pairs.iter().enumerate() {
            if n == DRAWN {
                body += &format!(
                    "<p class=\"note\">{} more pairs are only in the table.</p>",
                    index.pairs.len() - n
                );
                break;
            }
            body += &format!(
                "<section class=\"card\"><h3>{} {} ↔ {} {} <small>cosine {}</small></h3>",
                index.first,
                pair.first,
                index.second,
                pair.second,
                cosine(pair.cosine)
            );
            for letter in matching.modes.chars() {
                let profiles = [
                    (first.factored(), &axes.0, index.first, pair.first, first_name, "c0"),
                    (second.factored(), &axes.1, index.second, pair.second, second_name, "c1"),
                ];
                body += "<div class=\"pair\">";
                for (tensor, axes, latent, component, name, class) in profiles {
                    body += &panel(tensor, axes, (latent, component), (letter, name, class))?;
                }
                body += "</div>";
            }
            body += "</section>";
        }
    }
    let title = escape(&format!("{first_name} and {second_name}"));
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/><meta name=\"color-scheme\" content=\"light dark\"/><link rel=\"icon\" href=\"data:,\"/><title>{title}</title><style>{STYLE}</style></head>\n<body><main>{body}</main>\n<footer>Page by nneinfact {}. Components count from 0.</footer></body></html>\n",
        env!("CARGO_PKG_VERSION")
    ))
}

fn head(matching: &Matching, first: &str, second: &str) -> String {
    let mut facts = vec![
        ("First", format!("{}<br/><code>{}</code>", escape(first), escape(&matching.first_model))),
        (
            "Second",
            format!("{}<br/><code>{}</code>", escape(second), escape(&matching.second_model)),
        ),
    ];
    facts.push(match &matching.factor {
        Some(factor) => ("Compared", format!("the columns of the factor {}", escape(factor))),
        None => ("Compared", format!("the parts of ŷ over the modes {}", matching.modes)),
    });
    for index in &matching.indices {
        if let Some(score) = index.factor_match_score {
            facts.push(("Factor match score", format!("{}: {}", index.first, cosine(score))));
        }
        facts.push(("Mean cosine", format!("{}: {}", index.first, cosine(index.mean_cosine))));
    }
    let facts: String = facts
        .iter()
        .map(|(what, fact)| format!("<div><dt>{what}</dt><dd>{fact}</dd></div>"))
        .collect();
    let notes: String = matching
        .notes
        .iter()
        .map(|note| format!("<p class=\"note\">Note: {}.</p>", escape(note)))
        .collect();
    format!(
        "<header><h1>{} and {}</h1><dl>{facts}</dl>{notes}</header>",
        escape(first),
        escape(second)
    )
}

/// A cosine, with all of its digits, as in the table that the command line prints.
fn cosine(x: f64) -> String {
    format!("{x:.4}")
}

fn table(index: &IndexMatching) -> String {
    let row = |p: &MatchedPair| {
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            p.first,
            p.second,
            cosine(p.cosine),
            percent(p.first_share),
            percent(p.second_share)
        )
    };
    let rows: String = index.pairs.iter().map(row).collect();
    let mut text = format!(
        "<h2>Components of {} and {}</h2><div class=\"scroll\"><table><thead><tr><th>first</th><th>second</th><th>cosine</th><th>share of the first</th><th>share of the second</th></tr></thead><tbody>{rows}</tbody></table></div>",
        index.first, index.second
    );
    for (which, alone) in [("first", &index.unmatched_first), ("second", &index.unmatched_second)] {
        if !alone.is_empty() {
            let list: Vec<String> = alone.iter().map(ToString::to_string).collect();
            text +=
                &format!("<p>Without a match in the {which}: components {}.</p>", list.join(", "));
        }
    }
    text
}

/// The profile of a component along a mode, as a distribution.
fn panel(
    tensor: &FactoredTensor,
    axes: &[ModeAxis],
    (latent, component): (char, usize),
    (letter, name, class): (char, &str, &str),
) -> Result<String> {
    let Some(axis) = axes.iter().find(|axis| axis.letter == letter) else {
        return Ok(String::new());
    };
    let part = tensor.given(&[(latent, component)])?.marginal(&letter.to_string())?;
    let total = part.sum();
    let shares: Vec<f64> = part.iter().map(|x| if total > 0.0 { x / total } else { 0.0 }).collect();
    let title = format!("{}: {}, {latent} {component}", axis.title(), name);
    let drawing = profile(&title, axis, &shares, class, PROFILE);
    Ok(format!("<figure class=\"panel\">{}</figure>", drawing.inline("panel")))
}
