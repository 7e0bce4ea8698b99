//! The table of a study.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::nonfinite;
use super::ranks::ranks_text;
use super::run_result::RunOutcome;
use super::score::Score;
use super::stability::Stability;
use nneinfact_core::data::SplitKind;
use nneinfact_core::error::Result;
use nneinfact_fit::io;

/// What came out of a study: a row for every setup, the best first.
///
/// Losses of different kinds cannot be compared, so rows are grouped by loss, in the order of the
/// study; inside a group they are sorted by mean held-out loss (validation loss where nothing is held
/// out, training loss where there is none either), and those without a result come last.
/// [`by_score`](StudyTable::by_score) sorts all of them by the score, which can be compared.
///
/// Its `to_string` is a text to be read.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StudyTable {
    format: &'static str,
    version: u32,
    pub(super) shape: Vec<usize>,
    pub(super) heldout: f64,
    pub(super) validation: f64,
    /// How entries were withheld at random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) heldout_as: Option<SplitKind>,
    pub(super) splits: usize,
    pub(super) starts: usize,
    pub(super) score: Option<Score>,
    /// What is followed, if anything is: "l1", "l2" or "rank".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<&'static str>,
    /// Whether every run is over.
    pub(super) complete: bool,
    /// Names and ranks of all rows, best score first.
    by_score: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) rows: Vec<Row>,
    /// Where the files are; that may change.
    #[serde(skip)]
    pub(super) folder: Option<PathBuf>,
}

/// One setup: a model with its ranks, a loss, penalties, an algorithm. Means are over the splits, each
/// represented by its best start.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// The name of the model.
    pub name: String,
    /// The model string.
    pub model: String,
    /// The rank of every latent index.
    pub ranks: BTreeMap<char, usize>,
    /// The number of parameters that the ranks were chosen for
    /// ([`Study::match_parameters`](super::Study::match_parameters)).
    pub matched: Option<u64>,
    /// Whether it is the best row of its model under its loss, by what rows are sorted by.
    pub best_of_model: bool,
    /// The loss, by name; where losses share one, with what tells them apart.
    pub loss: String,
    /// A fingerprint of what the loss computes.
    pub loss_terms: String,
    /// The penalties; "none".
    pub penalty: String,
    /// "block", "grouped", "accelerated" or "adam", or "adam(0.05)" with a learning rate that was given.
    pub algorithm: String,
    /// "f32" or "f64".
    pub precision: String,
    /// The number of entries of all factors.
    pub parameters: u64,
    /// The mean loss of held-out entries.
    pub heldout_loss: Option<Mean>,
    /// The mean loss of validation entries.
    pub validation_loss: Option<Mean>,
    /// The mean loss of training entries.
    pub training_loss: Option<Mean>,
    /// The score of held-out entries that the table has.
    pub score: Option<Mean>,
    /// The penalties, divided by what the training loss is divided by.
    pub penalty_value: Option<Mean>,
    /// How many components of each latent index are kept, in the mean: those with entries that are not zero
    /// in every factor. Empty where that is not known.
    pub components: BTreeMap<char, f64>,
    /// The share of the factors' entries that are zero, in the mean.
    pub zeros: Option<f64>,
    /// How far the factors are from a point where no small change helps
    /// ([`History::kkt_residual`](nneinfact_fit::History::kkt_residual)), the median; `None` where that is
    /// not known of all.
    pub kkt_residual: Option<f64>,
    /// Where it stands on the path: the weight of its penalty, or the sum of its ranks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<f64>,
    /// Sweeps, in the mean.
    pub sweeps: Option<f64>,
    /// Seconds of a fit, in the mean.
    pub seconds: Option<f64>,
    /// What ended the fits, and how many.
    pub stopped_by: BTreeMap<String, usize>,
    /// What went wrong, each message once.
    pub failures: Vec<String>,
    /// The best run: of those that represent their splits the one with the lowest validation loss, or
    /// without validation entries training loss with penalties.
    pub best: Option<Best>,
    /// How far the components of all finished runs agree with those of the best; `None` for less than
    /// two.
    pub stability: Option<Stability>,
    /// Every run.
    pub runs: Vec<RunRecord>,
    /// Whether there are several algorithms in the table.
    #[serde(skip)]
    pub(super) several: bool,
}

/// A run among those of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Best {
    /// The split, counted from 1.
    pub split: usize,
    /// The start, counted from 1.
    pub start: usize,
    /// The file of the factors in the folder of the study, which `nneinfact report` makes a page of.
    pub file: Option<String>,
}

/// One run of a setup.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RunRecord {
    /// The split, counted from 1.
    pub split: usize,
    /// The start, counted from 1.
    pub start: usize,
    /// The seed of the split.
    pub split_seed: u64,
    /// The seed of the start.
    pub seed: u64,
    /// Whether it is the start that represents its split.
    pub chosen: bool,
    /// Its file in the folder of the study; the factors are in the `.npz` of the same name.
    pub file: Option<String>,
    /// How it ended.
    pub outcome: RunOutcome,
}

/// A mean over splits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// The mean; `"inf"` in JSON where a value is infinite.
    #[serde(serialize_with = "nonfinite::serialize")]
    pub mean: f64,
    /// Its standard error, s/√n with the sample's standard deviation s; `None` for one value. (Splits
    /// share training entries, so that it tells the scatter of splits, and not that of new data.)
    pub standard_error: Option<f64>,
    /// How many values.
    pub count: usize,
    /// The median.
    #[serde(serialize_with = "nonfinite::serialize")]
    pub median: f64,
    /// The first and the third quartile, between neighbours in proportion; `None` for one value.
    pub quartiles: Option<[f64; 2]>,
}

impl Mean {
    /// `None` for no values.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Mean> {
        let n = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
        let standard_error = (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt());
        let standard_error = standard_error.filter(|error| error.is_finite());
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let quartiles =
            (values.len() > 1).then(|| [quantile(&sorted, 0.25), quantile(&sorted, 0.75)]);
        Some(Mean {
            mean,
            standard_error,
            count: values.len(),
            median: quantile(&sorted, 0.5),
            quartiles: quartiles.filter(|q| q.iter().all(|x| x.is_finite())),
        })
    }
}

/// A quantile of sorted values, between neighbours in proportion.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    // Neighbours may both be infinite.
    if below == above { below } else { below + (place - place.floor()) * (above - below) }
}

impl fmt::Display for Mean {
    /// The mean with as many digits as the standard error makes sense of, and that with two.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.standard_error {
            Some(error) if error > 0.0 && error.is_finite() => {
                let digits = 1.0 - error.log10().floor();
                if (0.0..=9.0).contains(&digits) {
                    let digits = digits as usize;
                    write!(f, "{:.digits$} ± {error:.digits$}", self.mean)
                } else {
                    write!(f, "{} ± {error:.1e}", number(self.mean))
                }
            }
            Some(_) => write!(f, "{} ± 0", number(self.mean)),
            None => f.write_str(&number(self.mean)),
        }
    }
}

impl Row {
    /// How many components of each latent index are kept, as in `r=3,k=2`.
    #[must_use]
    pub fn kept(&self) -> String {
        let one = |(letter, count): (&char, &f64)| match count.fract() == 0.0 {
            true => format!("{letter}={count}"),
            false => format!("{letter}={count:.1}"),
        };
        self.components.iter().map(one).collect::<Vec<String>>().join(",")
    }

    /// What rows are sorted by; infinite where there is no result.
    pub(super) fn criterion(&self) -> f64 {
        let first = self.heldout_loss.or(self.validation_loss).or(self.training_loss);
        first.map_or(f64::INFINITY, |mean| nonfinite::worst(mean.mean))
    }

    /// Name, ranks and what else tells it from other rows.
    #[must_use]
    pub fn label(&self) -> String {
        self.labelled(true)
    }

    /// The same without the loss, among rows of which all have the same one.
    #[must_use]
    pub fn label_under_loss(&self) -> String {
        self.labelled(false)
    }

    fn labelled(&self, with_loss: bool) -> String {
        let mut label = format!("{} {}", self.name, ranks_text(&self.ranks));
        if with_loss {
            let _ = write!(label, ", {}", self.loss);
        }
        if self.penalty != "none" {
            let _ = write!(label, ", {}", self.penalty);
        }
        if self.several {
            let _ = write!(label, ", {}", self.algorithm);
        }
        label
    }
}

impl StudyTable {
    pub(super) fn new(
        shape: Vec<usize>,
        [heldout, validation]: [f64; 2],
        splits: usize,
        starts: usize,
        score: Option<Score>,
        rows: Vec<Row>,
        notes: Vec<String>,
    ) -> StudyTable {
        let complete =
            rows.iter().flat_map(|row| &row.runs).all(|run| run.outcome != RunOutcome::Pending);
        let mut table = StudyTable {
            format: "nneinfact compare",
            version: 1,
            shape,
            heldout,
            validation,
            heldout_as: None,
            splits,
            starts,
            score,
            path: None,
            complete,
            by_score: Vec::new(),
            notes,
            rows,
            folder: None,
        };
        table.by_score = table.by_score().into_iter().map(Row::label).collect();
        table
    }

    /// The rows, grouped by loss, best first.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The score that the rows have; `None` for none.
    #[must_use]
    pub fn score(&self) -> Option<Score> {
        self.score
    }

    /// How the splits withheld entries, cells or strata; `None` where nothing was withheld at random.
    #[must_use]
    pub fn split_kind(&self) -> Option<SplitKind> {
        self.heldout_as
    }

    /// What a user should know about models or data, a sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether every run is over. Where the study was interrupted, the table is of the finished ones.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// How many runs are over, and how many there are.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        let all = self.rows.iter().flat_map(|row| &row.runs);
        let over = all.clone().filter(|run| run.outcome != RunOutcome::Pending).count();
        (over, all.count())
    }

    /// What is followed, if anything is: "l1", "l2" or "rank".
    #[must_use]
    pub fn path(&self) -> Option<&'static str> {
        self.path
    }

    /// All rows that have a score, best first, whatever their loss.
    #[must_use]
    pub fn by_score(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| row.score.is_some()).collect();
        // The lower the better, and what is no number last.
        let sign = if self.score.is_some_and(Score::higher_is_better) { -1.0 } else { 1.0 };
        let value =
            |row: &Row| row.score.map_or(f64::INFINITY, |s| nonfinite::worst(sign * s.mean));
        rows.sort_by(|a, b| value(a).total_cmp(&value(b)));
        rows
    }

    /// The losses that there are, in the order of the study.
    pub(super) fn losses(&self) -> Vec<&str> {
        let mut losses: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !losses.contains(&row.loss.as_str()) {
                losses.push(&row.loss);
            }
        }
        losses
    }

    /// Comma-separated values, one line for every row. Standard errors are empty for one split.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut text = String::from(
            "loss,name,model,ranks,penalty,algorithm,precision,parameters,splits,\
             heldout_loss,heldout_loss_se,validation_loss,validation_loss_se,\
             training_loss,training_loss_se,score,score_mean,score_se,\
             sweeps,seconds,stopped_by,failures,matched,best_of_model,best_run,\
             heldout_loss_median,heldout_loss_q1,heldout_loss_q3,\
             validation_loss_median,validation_loss_q1,validation_loss_q3,\
             training_loss_median,training_loss_q1,training_loss_q3,\
             penalty_value,components_kept,zeros,kkt_residual\n",
        );
        for row in &self.rows {
            let mut fields = vec![
                row.loss.clone(),
                row.name.clone(),
                row.model.clone(),
                ranks_text(&row.ranks),
                row.penalty.clone(),
                row.algorithm.clone(),
                row.precision.clone(),
                row.parameters.to_string(),
                row.training_loss.map_or(0, |mean| mean.count).to_string(),
            ];
            let mut mean = |value: Option<Mean>| {
                fields.push(value.map_or(String::new(), |m| m.mean.to_string()));
                let error = value.and_then(|m| m.standard_error);
                fields.push(error.map_or(String::new(), |e| e.to_string()));
            };
            mean(row.heldout_loss);
            mean(row.validation_loss);
            mean(row.training_loss);
            fields.push(self.score.map_or("none", Score::name).into());
            let score = row.score;
            fields.push(score.map_or(String::new(), |m| m.mean.to_string()));
            let error = score.and_then(|m| m.standard_error);
            fields.push(error.map_or(String::new(), |e| e.to_string()));
            fields.push(row.sweeps.map_or(String::new(), |n| n.to_string()));
            fields.push(row.seconds.map_or(String::new(), |s| s.to_string()));
            fields.push(stopped(&row.stopped_by));
            fields.push(row.failures.join("; "));
            fields.push(row.matched.map_or(String::new(), |n| n.to_string()));
            fields.push(row.best_of_model.to_string());
            let file = row.best.as_ref().and_then(|best| best.file.clone());
            fields.push(file.unwrap_or_default());
            for loss in [row.heldout_loss, row.validation_loss, row.training_loss] {
                let numbers = [
                    loss.map(|m| m.median),
                    loss.and_then(|m| m.quartiles).map(|q| q[0]),
                    loss.and_then(|m| m.quartiles).map(|q| q[1]),
                ];
                fields.extend(numbers.map(|x| x.map_or(String::new(), |x| x.to_string())));
            }
            fields.push(row.penalty_value.map_or(String::new(), |m| m.mean.to_string()));
            fields.push(row.kept());
            fields.push(row.zeros.map_or(String::new(), |x| x.to_string()));
            fields.push(row.kkt_residual.map_or(String::new(), |x| x.to_string()));
            let quoted: Vec<String> = fields.iter().map(|field| quote(field)).collect();
            text += &quoted.join(",");
            text.push('\n');
        }
        text
    }

    /// Writes `table.json` (with every run), `table.csv`, `table.txt` and, where components were
    /// compared, `stability.json` and `stability.txt` (of the best row of every model) into a folder,
    /// each as a whole or not at all.
    ///
    /// # Errors
    /// `Error::File` where a file cannot be written.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<()> {
        #[derive(Serialize)]
        struct Of<'a> {
            name: &'a str,
            model: &'a str,
            ranks: &'a BTreeMap<char, usize>,
            loss: &'a str,
            penalty: &'a str,
            algorithm: &'a str,
            /// The run whose components they are.
            reference: &'a Option<Best>,
            #[serde(flatten)]
            stability: &'a Stability,
        }
        #[derive(Serialize)]
        struct All<'a> {
            format: &'a str,
            version: u32,
            /// From which mean similarity on a component is stable.
            stable_from: f64,
            rows: Vec<Of<'a>>,
        }
        let folder = folder.as_ref();
        io::write_json(folder.join("table.json"), self)?;
        io::write_text(folder.join("table.csv"), &self.to_csv())?;
        io::write_text(folder.join("table.txt"), &self.to_string())?;
        let mut rows = Vec::new();
        for row in &self.rows {
            let Row { name, model, ranks, loss, penalty, algorithm, stability, .. } = row;
            if let Some(stability) = stability {
                let reference = &row.best;
                rows.push(Of {
                    name,
                    model,
                    ranks,
                    loss,
                    penalty,
                    algorithm,
                    reference,
                    stability,
                });
            }
        }
        if !rows.is_empty() {
            let all = All {
                format: "nneinfact stability",
                version: 2,
                stable_from: Stability::STABLE,
                rows,
            };
            io::write_json(folder.join("stability.json"), &all)?;
            io::write_text(folder.join("stability.txt"), &self.components())?;
        }
        Ok(())
    }
}

/// What ended fits: "tolerance", or "tolerance 2, max_iter 1".
pub(super) fn stopped(by: &BTreeMap<String, usize>) -> String {
    match by.len() {
        0 => "-".into(),
        1 => by.keys().cloned().collect(),
        _ => {
            let each: Vec<String> = by.iter().map(|(why, n)| format!("{why} {n}")).collect();
            each.join(", ")
        }
    }
}

/// A field of comma-separated values (RFC 4180).
fn quote(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.into()
    }
}

/// A number with five digits that count.
pub(super) fn number(x: f64) -> String {
    let size = x.abs();
    if size == 0.0 || !size.is_finite() {
        return x.to_string();
    }
    let magnitude = size.log10().floor();
    match (-4.0..5.0).contains(&magnitude) {
        true => format!("{x:.*}", (4.0 - magnitude) as usize),
        false => format!("{x:.4e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_standard_errors() {
        let mean = Mean::of(&[1.0, 2.0, 4.0, 5.0]).unwrap();
        // Squared deviations 4 + 1 + 1 + 4 = 10; 10 / 3 / 4.
        assert_eq!((mean.mean, mean.count), (3.0, 4));
        assert!((mean.standard_error.unwrap() - (10.0f64 / 12.0).sqrt()).abs() < 1e-15);
        let one = Mean { mean: 2.5, standard_error: None, count: 1, median: 2.5, quartiles: None };
        assert_eq!(Mean::of(&[2.5]), Some(one));
        let four = Mean::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((four.median, four.quartiles), (2.5, Some([1.75, 3.25])));
        let worst = Mean::of(&[1.0, f64::INFINITY, f64::INFINITY]).unwrap();
        assert_eq!((worst.median, worst.quartiles), (f64::INFINITY, None));
        assert_eq!(Mean::of(&[]), None);
    }

    #[test]
    fn digits_follow_the_standard_error() {
        let text = |mean, standard_error| {
            Mean { mean, standard_error, count: 2, median: mean, quartiles: None }.to_string()
        };
        assert_eq!(text(0.010_123_4, Some(0.000_051)), "0.010123 ± 0.000051");
        assert_eq!(text(-12.345, Some(0.25)), "-12.35 ± 0.25");
        assert_eq!(text(1234.5, Some(120.0)), "1234.5 ± 1.2e2");
        assert_eq!(text(1.5, Some(0.0)), "1.5000 ± 0");
        assert_eq!(text(1.5, None), "1.5000");
        assert_eq!(number(1.5e-9), "1.5000e-9");
    }

    #[test]
    fn fields_are_quoted_where_they_have_to_be() {
        assert_eq!(quote("ir"), "ir");
        assert_eq!(quote("ir,jr->ij"), "\"ir,jr->ij\"");
        assert_eq!(quote("a \"b\""), "\"a \"\"b\"\"\"");
    }

    #[test]
    fn an_infinite_mean_says_so() {
        let mean = Mean::of(&[1.0, f64::INFINITY]).unwrap();
        assert_eq!((mean.to_string().as_str(), mean.standard_error), ("inf", None));
        let json = serde_json::to_value(mean).unwrap();
        assert_eq!(json["mean"], "inf");
    }
}
