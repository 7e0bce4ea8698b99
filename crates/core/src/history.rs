//! What happened during a fit.

use std::fmt;
use std::sync::Arc;

use ndarray::ArrayD;
use serde::{Deserialize, Deserializer, Serialize};

use crate::data::SplitKind;
use crate::plan::Plan;

/// Why a fit stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoppedBy {
    /// The training loss fell by less than the tolerance, three sweeps in a row.
    Tolerance,
    /// The same, but rounding errors of the loss are larger than the tolerance asks for: what the
    /// sweeps gained cannot be told.
    Precision,
    /// The number of sweeps was reached.
    MaxIter,
    /// The validation loss rose five times in a row.
    Validation,
    /// The fit was cancelled.
    Interrupted,
    /// An observer asked for it.
    Observer,
}

impl fmt::Display for StoppedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoppedBy::Tolerance => "tolerance",
            StoppedBy::Precision => "precision",
            StoppedBy::MaxIter => "max_iter",
            StoppedBy::Validation => "validation",
            StoppedBy::Interrupted => "interrupted",
            StoppedBy::Observer => "observer",
        })
    }
}

/// The losses of a fit, sweep by sweep.
///
/// All losses are weighted means over their entries, in the units of the loss. Element 0 belongs to
/// the start, element n to the factors after n sweeps (after `sweeps[n]` sweeps, where
/// `NNEinFact::eval_every` asked for fewer).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Over the training entries.
    #[serde(deserialize_with = "nan_for_null")]
    pub loss: Vec<f64>,
    /// The penalties of all factors, divided by what the training loss is divided by (the sum of
    /// the weights): what a fit lowers is `loss` + `penalty`. Empty without penalties.
    #[serde(default, deserialize_with = "nan_for_null")]
    pub penalty: Vec<f64>,
    /// Over the validation entries; empty without a validation split.
    #[serde(default, deserialize_with = "nan_for_null")]
    pub validation_loss: Vec<f64>,
    /// Over the held-out entries; empty without a held-out split.
    #[serde(default, deserialize_with = "nan_for_null")]
    pub heldout_loss: Vec<f64>,
    /// Seconds since the start of the fit at which each element was known. Preparing the data and
    /// the first pass are included, reading a file is not.
    #[serde(default, deserialize_with = "nan_for_null")]
    pub seconds: Vec<f64>,
    /// The number of sweeps before each element.
    #[serde(default)]
    pub sweeps: Vec<usize>,
    /// Why the fit stopped.
    pub stopped_by: StoppedBy,
    /// The loss, by its name with the parameters ([`Loss::name`](crate::loss::Loss::name)).
    #[serde(default)]
    pub loss_name: String,
    /// "block", "grouped", "accelerated", "adam" or "barrier".
    pub algorithm: String,
    /// What it ran on.
    pub device: String,
    /// The seed of the start, where it was random: of several the one that was best.
    #[serde(default)]
    pub seed: u64,
    /// "f32" or "f64".
    pub precision: String,
    /// The floor of ŷ that was asked for; `None` for the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction_floor: Option<f64>,
    /// The number of completed sweeps.
    pub iterations: usize,
    /// Which element the returned factors belong to: the last, except where early stopping
    /// returns the one of lowest validation loss, or `Algorithm::Adam` the
    /// one of lowest objective.
    #[serde(default)]
    pub returned: usize,
    /// How the data were cut, where that was asked for or several processes fitted together: what is
    /// computed depends on it, and not on how many processes there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slabs: Option<SlabRecord>,
    /// How far the returned factors are from a point where no small change lowers what the fit lowers,
    /// where that was asked for (`NNEinFact::kkt_residual`): the largest |min(θ/s, q)| over all entries that
    /// are fitted, with s the largest entry of the factor and q the derivative ∂F/∂θ over its positive part
    /// (1 − N/D for most losses). 0 at such a point; it does not depend on the units of data and factors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kkt_residual: Option<f64>,
    /// How validation and held-out entries were withheld at random, cells or strata; `None` where none
    /// were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heldout_as: Option<SplitKind>,
}

/// How the data of a fit were cut into slabs, whose sums are added in a fixed order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlabRecord {
    /// The mode that they are cut along, counted from 0.
    pub mode: usize,
    /// How many there are.
    pub count: usize,
}

impl fmt::Display for SlabRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.count == 1 { "" } else { "s" };
        write!(f, "{} slab{plural} along mode {}", self.count, self.mode + 1)
    }
}

/// JSON has no number for what is not finite, and `null` is written for it.
fn nan_for_null<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    let values = Vec::<Option<f64>>::deserialize(from)?;
    Ok(values.into_iter().map(|x| x.unwrap_or(f64::NAN)).collect())
}

impl History {
    /// The training loss of the last element. NaN where there is none.
    #[must_use]
    pub fn last_loss(&self) -> f64 {
        self.loss.last().copied().unwrap_or(f64::NAN)
    }

    /// What the fit lowers, element by element: the training loss with the penalties.
    #[must_use]
    pub fn objective(&self) -> Vec<f64> {
        match self.penalty.is_empty() {
            true => self.loss.clone(),
            false => self.loss.iter().zip(&self.penalty).map(|(loss, p)| loss + p).collect(),
        }
    }

    /// The training loss of the factors that were returned. NaN where there is none.
    #[must_use]
    pub fn returned_loss(&self) -> f64 {
        self.loss.get(self.returned).copied().unwrap_or(f64::NAN)
    }
}

/// What a fit that broke in its middle had reached: the factors after its last completed sweep.
///
/// `Fit::from` makes a fit of it.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// How it was fitted.
    pub plan: Arc<Plan>,
    /// The factors, in the model's order and the user's units.
    pub factors: Vec<ArrayD<f64>>,
    /// What happened until then.
    pub history: History,
}
