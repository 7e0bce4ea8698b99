//! One run of a study: what it is of, and what came out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::score::Scores;
use crate::data::Digest;
use crate::fit::History;
use crate::loss::Loss;

/// Everything that the result of a run depends on, but for the device: runs with the same settings
/// are the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunSettings {
    /// The version of this crate.
    pub library: String,
    /// The fingerprint of the data before they are split
    /// ([`Observations::fingerprint`](crate::Observations::fingerprint)).
    pub data: String,
    /// The model string.
    pub model: String,
    /// The rank of every latent letter.
    pub ranks: BTreeMap<char, usize>,
    /// The loss, by name.
    pub loss: String,
    /// A fingerprint of the loss's expressions and side values: names of custom losses may repeat.
    pub loss_terms: String,
    /// The penalties, as the command line writes them.
    pub penalty: String,
    /// "block", "grouped" or "accelerated".
    pub algorithm: String,
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
    /// The seed of both.
    pub split_seed: u64,
    /// The seed of the start.
    pub seed: u64,
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
    for side in loss.sides() {
        print.word(side.len() as u64);
        print.words(side.iter().map(|x| x.to_bits()));
    }
    print.hex()
}

/// What came out of a run. Losses are means, at the factors that the fit returned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunResult {
    /// Over the training cells.
    pub training_loss: f64,
    /// The penalties, divided by what the training loss is divided by.
    pub penalty: f64,
    /// Over the validation cells, where there are any.
    pub validation_loss: Option<f64>,
    /// Over the held-out cells, where there are any.
    pub heldout_loss: Option<f64>,
    /// Scores of the held-out cells that do not depend on the loss.
    pub scores: Scores,
    /// The number of completed sweeps.
    pub sweeps: usize,
    /// The sweep whose factors were returned.
    pub returned: usize,
    /// Seconds from the start of the fit to its last sweep; the scores are not in it.
    pub seconds: f64,
    /// Why it stopped.
    pub stopped_by: String,
    /// What it ran on.
    pub device: String,
}

impl RunResult {
    pub(super) fn new(history: &History, scores: Scores) -> RunResult {
        let at = |losses: &[f64]| losses.get(history.returned).copied();
        RunResult {
            training_loss: history.returned_loss(),
            penalty: at(&history.penalty).unwrap_or(0.0),
            validation_loss: at(&history.validation_loss),
            heldout_loss: at(&history.heldout_loss),
            scores,
            sweeps: history.iterations,
            returned: at_sweep(history),
            seconds: history.seconds.last().copied().unwrap_or(0.0),
            stopped_by: history.stopped_by.to_string(),
            device: history.device.clone(),
        }
    }

    /// What the best of several starts is chosen by: the validation loss, or without one what the fit
    /// lowers.
    pub(super) fn criterion(&self) -> f64 {
        self.validation_loss.unwrap_or(self.training_loss + self.penalty)
    }
}

fn at_sweep(history: &History) -> usize {
    history.sweeps.get(history.returned).copied().unwrap_or(history.iterations)
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// With a result.
    Finished(RunResult),
    /// With an error, which did not end the study.
    Failed(String),
    /// Not yet: the study was interrupted before.
    Pending,
}

impl Outcome {
    /// The result, where there is one.
    #[must_use]
    pub fn result(&self) -> Option<&RunResult> {
        match self {
            Outcome::Finished(result) => Some(result),
            _ => None,
        }
    }
}
