//! A distribution as a page and as a figure.

use super::curves::Against;
use super::draw::{Drawing, duration, escape, number, separated};
use super::figure;
use super::labels::ModeAxis;
use super::page::{document, shown};
use super::panel::{HeatMap, heat, profile};
use super::train_curves;
use nneinfact_core::error::Result;
use nneinfact_density::Density;
use nneinfact_fit::{SavedTrain, TrainHistory, TrainRecord};

/// Marginals that are shown at once; more are folded away.
const SHOWN: usize = 48;
/// Marginals that are drawn at all.
const MOST: usize = 400;
/// Pairs of variables in the table.
const PAIRS: usize = 10;
/// The bytes of a page that numbers for its script may take.
const DETAIL: usize = 400_000;

/// A distribution to be looked at: single marginals, mutual information of every two variables, ranks,
/// and how its fit went.
///
/// ```
/// use nneinfact::density::{NonnegativeTrain, SavedTrain};
/// use nneinfact::report::TrainReport;
///
/// let train = NonnegativeTrain::random(&[2, 3, 2], &[2, 2], 1)?.into_train();
/// let page = TrainReport::new(&SavedTrain::new(train))?.title("Three variables").html();
/// assert!(page.contains("Three variables") && page.contains("Mutual information"));
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TrainReport {
    density: Density,
    /// Mutual information of every two variables, entropies on the diagonal, in nats.
    information: Vec<f64>,
    record: TrainRecord,
    title: Option<String>,
}

impl TrainReport {
    /// A report of what the file of a train holds.
    ///
    /// # Errors
    /// [`Error::Init`](nneinfact_core::error::Error::Init) where the train has negative entries, and so is
    /// no distribution; [`Error::Numeric`](nneinfact_core::error::Error::Numeric) where all are zero.
    pub fn new(saved: &SavedTrain) -> Result<TrainReport> {
        let density = Density::new(&saved.nonnegative()?)?;
        let information = density.mutual_information();
        Ok(TrainReport { density, information, record: saved.record().clone(), title: None })
    }

    /// What stands above it.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// With how the fit went, in place of what the file says.
    #[must_use]
    pub fn history(mut self, history: TrainHistory) -> Self {
        self.record.history = Some(history);
        self
    }

    /// The page, as HTML that is XML too.
    #[must_use]
    pub fn html(&self) -> String {
        let mut detail = DETAIL;
        let body = [
            self.head(),
            self.convergence(),
            self.ranks(),
            self.pairs(&mut detail),
            self.marginals(),
        ];
        let program = match self.record.program.as_str() {
            "" => String::new(),
            program => format!("Made with {}. ", escape(program)),
        };
        document(
            &escape(self.heading()),
            &body.concat(),
            &format!(
                "{program}Report by nneinfact {}. Variables count from 1, their values from 0.",
                env!("CARGO_PKG_VERSION")
            ),
            &serde_json::json!({}),
        )
    }

    /// Convergence, ranks and mutual information as a figure: one SVG without a script.
    #[must_use]
    pub fn svg(&self) -> String {
        let mut rows = Vec::new();
        if let Some(history) = self.record.history.as_ref().filter(|h| train_curves::any(h)) {
            rows.push(("Convergence", self.curves(history, (353.0, 190.0))));
        }
        let (ranks, map) = (self.rank_profile((353.0, 150.0)), self.map(353.0, None));
        rows.push(("Ranks, and mutual information in nats", vec![ranks, map]));
        figure::figure_of_rows(self.heading(), self.title.as_deref(), &rows)
    }

    fn heading(&self) -> &str {
        self.title.as_deref().unwrap_or("A distribution as a nonnegative tensor train")
    }

    fn head(&self) -> String {
        let density = &self.density;
        let numbers: usize = density.markov_cores().iter().map(|c| c.data().len()).sum();
        let (sizes, ranks) = (density.sizes(), density.ranks());
        let mut facts: Vec<(&str, String)> = vec![
            ("Variables", separated(density.order() as f64)),
            ("Values", range(&sizes)),
            ("Numbers", separated(numbers as f64)),
            // What is left of rounding is no digit of it.
            ("log Z", number((density.log_partition() * 1e12).round() / 1e12, 8)),
        ];
        if !ranks.is_empty() {
            facts.insert(2, ("Ranks", range(&ranks)));
        }
        let record = &self.record;
        if let Some(method) = &record.method {
            facts.push(("Made by", escape(method)));
        }
        if let Some(error) = record.error {
            facts.push((
                "Squared distance to the target",
                format!("{} of its square", number(error, 4)),
            ));
        }
        if let Some(history) = &record.history {
            let why = match history.stopped_by.as_str() {
                "" => String::new(),
                why => format!(", stopped by: {}", escape(why)),
            };
            let sweeps = history.error.len().saturating_sub(1);
            facts.push(("Sweeps", format!("{sweeps}{why}")));
            if let Some(&seconds) = history.seconds.last() {
                facts.push(("Time", duration(seconds)));
            }
        }
        if let Some(date) = &record.date {
            facts.push(("Date", escape(&date.replace('T', " ").replace('Z', " UTC"))));
        }
        let facts: String = facts
            .iter()
            .map(|(what, fact)| format!("<div><dt>{what}</dt><dd>{fact}</dd></div>"))
            .collect();
        format!("<header><h1>{}</h1><dl>{facts}</dl></header>", escape(self.heading()))
    }

    fn convergence(&self) -> String {
        let Some(history) = self.record.history.as_ref().filter(|h| train_curves::any(h)) else {
            return String::new();
        };
        let drawings: String =
            self.curves(history, (420.0, 280.0)).iter().map(|d| shown(d, "curves")).collect();
        format!(
            "<section aria-labelledby=\"convergence\"><h2 id=\"convergence\">Convergence</h2><div class=\"pair\">{drawings}</div><p class=\"note\">The squared distance to the target over the target's square, and the largest barrier of a core. What is below 1e-30 is drawn there. A plateau is not convergence: errors can stand for ten sweeps and then fall by orders.</p></section>"
        )
    }

    fn curves(&self, history: &TrainHistory, size: (f64, f64)) -> Vec<Drawing> {
        let mut drawings = vec![train_curves::curves(history, Against::Sweeps, size)];
        if history.seconds.len() == history.error.len() {
            drawings.push(train_curves::curves(history, Against::Seconds, size));
        }
        drawings
    }

    fn ranks(&self) -> String {
        if self.density.order() < 2 {
            return String::new();
        }
        format!(
            "<section aria-labelledby=\"ranks\"><h2 id=\"ranks\">Ranks</h2><div class=\"pair\">{}</div><p class=\"note\">The number of states between each variable and the next.</p></section>",
            shown(&self.rank_profile((420.0, 150.0)), "curves")
        )
    }

    fn rank_profile(&self, size: (f64, f64)) -> Drawing {
        let ranks: Vec<f64> = self.density.ranks().iter().map(|&r| r as f64).collect();
        let axis = axis("after variable", ranks.len(), 1);
        profile("rank after each variable", &axis, &ranks, "c0", size)
    }

    fn pairs(&self, detail: &mut usize) -> String {
        let d = self.density.order();
        if d < 2 {
            return String::new();
        }
        let mut order: Vec<(usize, usize)> =
            (0..d).flat_map(|k| (k + 1..d).map(move |l| (k, l))).collect();
        let of = |&(k, l): &(usize, usize)| self.information[k * d + l];
        order.sort_by(|a, b| of(b).total_cmp(&of(a)).then(a.cmp(b)));
        let rows: String = order
            .iter()
            .take(PAIRS)
            .map(|pair| {
                format!(
                    "<tr><th scope=\"row\">{} and {}</th><td>{}</td></tr>",
                    pair.0 + 1,
                    pair.1 + 1,
                    number(of(pair), 4)
                )
            })
            .collect();
        format!(
            "<section aria-labelledby=\"pairs\"><h2 id=\"pairs\">Mutual information</h2><p class=\"note\">How much every two variables tell of each other, in nats; the diagonal is left out.</p><div class=\"pair\">{}<div class=\"scroll\"><table><thead><tr><th scope=\"col\">the most dependent</th><th scope=\"col\">nats</th></tr></thead><tbody>{rows}</tbody></table></div></div></section>",
            shown(&self.map(420.0, Some(detail)), "panel")
        )
    }

    fn map(&self, width: f64, detail: Option<&mut usize>) -> Drawing {
        let d = self.density.order();
        let mut values = self.information.clone();
        (0..d).for_each(|k| values[k * d + k] = 0.0);
        let axis = axis("variable", d, 1);
        let matrix = HeatMap {
            rows: &axis,
            columns: &axis,
            values: &values,
            square: true,
            block: None,
            tone: None,
        };
        heat("mutual information", &matrix, width, detail)
    }

    fn marginals(&self) -> String {
        let singles = self.density.single_marginals();
        let drawn: Vec<String> = singles
            .iter()
            .take(MOST)
            .enumerate()
            .map(|(k, p)| {
                let axis = axis("value", p.len(), 0);
                let title = format!("variable {}", k + 1);
                shown(&profile(&title, &axis, p, "c0", (238.0, 96.0)), "panel")
            })
            .collect();
        let (first, rest) = drawn.split_at(drawn.len().min(SHOWN));
        let mut text = format!(
            "<section aria-labelledby=\"marginals\"><h2 id=\"marginals\">Single marginals</h2><p class=\"note\">The probabilities of each variable's values, whatever the others are.</p><div class=\"panels\">{}</div>",
            first.concat()
        );
        if !rest.is_empty() {
            text += &format!(
                "<details class=\"more\"><summary>{} more</summary><div class=\"panels\">{}</div></details>",
                rest.len(),
                rest.concat()
            );
        }
        if singles.len() > MOST {
            text += &format!(
                "<p class=\"note\">{} more are not drawn.</p>",
                separated((singles.len() - MOST) as f64)
            );
        }
        text + "</section>"
    }
}

/// An axis of so many indices, the first of which is called `first`.
fn axis(name: &str, size: usize, first: usize) -> ModeAxis {
    ModeAxis {
        letter: 'x',
        name: name.into(),
        size,
        labels: None,
        upwards: false,
        mode: false,
        first,
        edges: None,
        dates: false,
    }
}

/// The smallest and the largest of a list, or the one that all are.
fn range(list: &[usize]) -> String {
    match (list.iter().min(), list.iter().max()) {
        (Some(low), Some(high)) if low == high => low.to_string(),
        (Some(low), Some(high)) => format!("{low} to {high}"),
        _ => "none".into(),
    }
}
