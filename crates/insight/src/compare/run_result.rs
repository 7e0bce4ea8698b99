//! One run of a study: what it is of, and what came out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::nonfinite;
use super::score::Scores;
use nneinfact_core::data::Digest;
use nneinfact_core::loss::Loss;
use nneinfact_fit::History;

/// Everything that the result of a run depends on, but for the device: runs with the same settings
/// are the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunSettings {
    /// The version of this crate.
    pub library: String,
    /// The fingerprint of the data before they are split
    /// (`Observations::fingerprint`).
    pub data: String,
    /// The model string.
    pub model: String,
    /// The rank of every latent index.
    pub ranks: BTreeMap<char, usize>,
    /// The loss, by name.
    pub loss: String,
    /// A fingerprint of the loss's expressions and entry parameters: names of custom losses may repeat.
    pub loss_terms: String,
    /// The penalties, as the command line writes them.
    pub penalty: String,
    /// "block", "grouped", "accelerated" or "adam".
    pub algorithm: String,
    /// That of Adam, where one was given.
    pub learning_rate: Option<f64>,
    /// "f32" or "f64".
    pub precision: String,
    /// The most sweeps.
    pub max_iter: usize,
    /// The tolerance.
    pub tolerance: f64,
    /// Whether the validation loss may stop the fit.
    pub early_stopping: bool,
    /// The fraction that is held out at random.
    pub heldout: f64,
    /// The fraction of the rest that is for validation.
    pub validation: f64,
    /// How many zeros are drawn beside each nonzero that is withheld, where that is by strata; `None` where
    /// every entry is withheld by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zeros_per_nonzero: Option<f64>,
    /// The seed of both.
    pub split_seed: u64,
    /// The seed of the start.
    pub seed: u64,
    /// What the fit starts from on a path: what is followed, and the files of the run before; empty where
    /// it starts anew.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

impl RunSettings {
    /// The name of the run's files.
    pub(super) fn file_name(&self) -> String {
        let mut print = Digest::new();
        print.text(&serde_json::to_string(self).unwrap_or_default());
        print.hex()
    }
}

/// A fingerprint of what a loss computes.
pub(super) fn loss_terms(loss: &Loss) -> String {
    let mut print = Digest::new();
    for expression in [loss.a(), loss.b(), loss.loss()] {
        print.text(&expression.to_string());
    }
    print.text(&format!("{:?} {:?}", loss.majorizer(), loss.domain()));
    for parameter in loss.entry_parameters() {
        print.word(parameter.len() as u64);
        print.words(parameter.iter().map(|x| x.to_bits()));
    }
    print.hex()
}

/// What came out of a run. Losses are means, at the factors that the fit returned. One that is no
/// number, or too large for one, is infinite here, worse than any other; in JSON it is `"inf"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunResult {
    /// Over the training entries.
    #[serde(with = "nonfinite")]
    pub training_loss: f64,
    /// The penalties, divided by what the training loss is divided by.
    #[serde(with = "nonfinite")]
    pub penalty: f64,
    /// Over the validation entries, where there are any.
    #[serde(with = "nonfinite::option")]
    pub validation_loss: Option<f64>,
    /// Over the held-out entries, where there are any.
    #[serde(with = "nonfinite::option")]
    pub heldout_loss: Option<f64>,
    /// Scores of the held-out entries that do not depend on the loss.
    pub scores: Scores,
    /// How many components of each latent index are kept, where that is known: those with entries that are
    /// not zero in every factor.
    #[serde(default)]
    pub components: Option<BTreeMap<char, usize>>,
    /// The share of the factors' entries that are zero (1e-10 of the largest of their factor), where that is
    /// known.
    #[serde(default)]
    pub zeros: Option<f64>,
    /// How far the factors are from a point where no small change helps
    /// ([`History::kkt_residual`]), where that is known.
    #[serde(default)]
    pub kkt_residual: Option<f64>,
    /// The number of completed sweeps.
    pub sweeps: usize,
    /// The sweep whose factors were returned.
    pub returned: usize,
    /// Seconds from the start of the fit to its last sweep; the scores are not in it.
    pub seconds: f64,
    /// Seconds that the run took in all: with its split, where it was the first to need it, the scores,
    /// and the file of the factors.
    pub wall_seconds: f64,
    /// Why it stopped.
    pub stopped_by: String,
    /// What it ran on.
    pub device: String,
}

impl RunResult {
    pub(super) fn new(history: &History, scores: Scores) -> RunResult {
        let at = |losses: &[f64]| losses.get(history.returned).copied().map(nonfinite::worst);
        RunResult {
            training_loss: nonfinite::worst(history.returned_loss()),
            penalty: at(&history.penalty).unwrap_or(0.0),
            validation_loss: at(&history.validation_loss),
            heldout_loss: at(&history.heldout_loss),
            scores,
            components: None,
            zeros: None,
            kkt_residual: history.kkt_residual,
            sweeps: history.iterations,
            returned: at_sweep(history),
            seconds: history.seconds.last().copied().unwrap_or(0.0),
            wall_seconds: 0.0,
            stopped_by: history.stopped_by.to_string(),
            device: history.device.clone(),
        }
    }

    /// What the best of several starts is chosen by: the validation loss, or without one what the fit
    /// lowers.
    pub(super) fn criterion(&self) -> f64 {
        nonfinite::worst(self.validation_loss.unwrap_or(self.training_loss + self.penalty))
    }
}

fn at_sweep(history: &History) -> usize {
    history.sweeps.get(history.returned).copied().unwrap_or(history.iterations)
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(clippy::large_enum_variant, reason = "a study has few of them, and nearly all are results")]
pub enum RunOutcome {
    /// With a result.
    Finished(RunResult),
    /// With an error, which did not end the study.
    Failed(String),
    /// Not yet: the study was interrupted before.
    Pending,
}

impl RunOutcome {
    /// The result, where there is one.
    #[must_use]
    pub fn result(&self) -> Option<&RunResult> {
        match self {
            RunOutcome::Finished(result) => Some(result),
            RunOutcome::Failed(_) | RunOutcome::Pending => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(training: f64, validation: Option<f64>, heldout: Option<f64>) -> RunResult {
        RunResult {
            training_loss: training,
            penalty: 0.0,
            validation_loss: validation,
            heldout_loss: heldout,
            scores: Scores { poisson: Some(f64::NEG_INFINITY), rmse: Some(2.0), mae: None },
            components: Some(BTreeMap::from([('r', 2)])),
            zeros: Some(0.25),
            kkt_residual: Some(0.125),
            sweeps: 3,
            returned: 3,
            seconds: 1.0,
            wall_seconds: 2.0,
            stopped_by: "tolerance".into(),
            device: "cpu".into(),
        }
    }

    #[test]
    fn what_is_not_finite_survives_a_file() {
        let whole = result(f64::INFINITY, Some(f64::INFINITY), Some(f64::INFINITY));
        for result in [result(1.0, None, None), whole] {
            let text = serde_json::to_string(&result).unwrap();
            let again: RunResult = serde_json::from_str(&text).unwrap();
            assert_eq!(again, result, "{text}");
            assert_eq!(again.criterion(), result.criterion());
        }
    }

    #[test]
    fn what_is_no_number_is_never_the_least() {
        // The sign of 0/0 depends on the machine.
        for none in [f64::NAN, -f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(result(1.0, Some(none), None).criterion(), f64::INFINITY);
            assert_eq!(result(none, None, None).criterion(), f64::INFINITY);
        }
        assert_eq!(result(1.0, Some(2.0), None).criterion(), 2.0);
    }

    #[test]
    fn losses_are_told_apart_by_what_they_compute() {
        let terms = |dispersion: f64| loss_terms(&Loss::negative_binomial(dispersion).unwrap());
        assert_eq!(terms(2.0), terms(2.0));
        assert_ne!(terms(2.0), terms(3.0));
    }
}
