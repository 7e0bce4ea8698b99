//! Scores of held-out entries that can be compared between losses.

use std::fmt;
use std::ops::Range;

use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use super::nonfinite;
use nneinfact_core::data::{Implicit, Prepared, Role};
use nneinfact_core::error::Result;
use nneinfact_core::loss::Loss;
use nneinfact_core::model::Shapes;
use nneinfact_fit::{Blocks, FactoredTensor};

/// How well held-out entries are predicted, in terms that do not depend on the loss that was fitted.
///
/// All are means over the held-out entries that are observed, with the weights of the data where they
/// have any. For losses on odds the prediction is the mean that goes with the odds ŷ, n·ŷ/(1+ŷ).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Score {
    /// The mean Poisson log-likelihood, x ln ŷ − ŷ − ln x!, in nats an entry: higher is better. For
    /// counts. Predictions count as at least 10⁻¹⁰ of the mean of the training entries, as in fits:
    /// else one entry predicted as 0 would decide.
    Poisson,
    /// The root of the mean squared difference, in the data's units: lower is better.
    Rmse,
    /// The mean absolute difference, in the data's units: lower is better.
    Mae,
}

impl Score {
    /// All scores.
    pub const ALL: [Score; 3] = [Score::Poisson, Score::Rmse, Score::Mae];

    /// "poisson", "rmse" or "mae".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Score::Poisson => "poisson",
            Score::Rmse => "rmse",
            Score::Mae => "mae",
        }
    }

    /// In words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Score::Poisson => "mean Poisson log-likelihood of held-out entries (higher is better)",
            Score::Rmse => "root mean squared error of held-out entries (lower is better)",
            Score::Mae => "mean absolute error of held-out entries (lower is better)",
        }
    }

    /// Whether higher is better.
    #[must_use]
    pub fn higher_is_better(self) -> bool {
        self == Score::Poisson
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The scores of one fit; those that do not apply are `None`. What is too large for a number, or none,
/// is infinite (minus infinity for [`Score::Poisson`]), worse than any other; in JSON it is `"inf"`.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Scores {
    /// [`Score::Poisson`]; only for counts.
    #[serde(with = "nonfinite::option")]
    pub poisson: Option<f64>,
    /// [`Score::Rmse`].
    #[serde(with = "nonfinite::option")]
    pub rmse: Option<f64>,
    /// [`Score::Mae`].
    #[serde(with = "nonfinite::option")]
    pub mae: Option<f64>,
}

impl Scores {
    /// The value of a score.
    #[must_use]
    pub fn get(&self, score: Score) -> Option<f64> {
        match score {
            Score::Poisson => self.poisson,
            Score::Rmse => self.rmse,
            Score::Mae => self.mae,
        }
    }
}

/// What predictions count at least as for the Poisson score, relative to the mean of the data.
const FLOOR: f64 = 1e-10;

/// Sums over held-out entries.
#[derive(Clone, Copy, Default)]
struct ScoreSums {
    weight: f64,
    poisson: f64,
    squared: f64,
    absolute: f64,
}

impl ScoreSums {
    fn add_entry(&mut self, scorer: &Scorer<'_>, weight: f64, x: f64, y: f64) {
        self.weight += weight;
        self.squared += weight * (x - y) * (x - y);
        self.absolute += weight * (x - y).abs();
        if scorer.counts {
            let y = y.max(scorer.floor);
            let known = if x > 0.0 { x * y.ln() - libm::lgamma(x + 1.0) } else { 0.0 };
            self.poisson += weight * (known - y);
        }
    }

    fn add(&mut self, other: ScoreSums) {
        self.weight += other.weight;
        self.poisson += other.poisson;
        self.squared += other.squared;
        self.absolute += other.absolute;
    }
}

/// What predictions are held against.
pub(super) struct Scorer<'a> {
    pub data: &'a Prepared,
    pub loss: &'a Loss,
    /// Whether the data are counts.
    pub counts: bool,
    floor: f64,
    /// The values of entry parameters in C order, of losses on odds.
    entry_parameters: Vec<Vec<f64>>,
}

impl<'a> Scorer<'a> {
    pub fn new(data: &'a Prepared, loss: &'a Loss, counts: bool) -> Scorer<'a> {
        let entry_parameters = match loss.is_odds() {
            true => loss.entry_parameters().iter().map(|p| p.iter().copied().collect()).collect(),
            false => Vec::new(),
        };
        let floor = FLOOR * if data.mean() > 0.0 { data.mean() } else { 1.0 };
        Scorer { data, loss, counts, floor, entry_parameters }
    }

    /// The scores of a model with these factors. The result does not depend on the number of threads.
    pub fn scores(&self, shapes: &Shapes, factors: &[ArrayD<f64>]) -> Result<Scores> {
        if self.data.count(Role::HeldOut) == 0 {
            return Ok(Scores::default());
        }
        let predictions = FactoredTensor::new(shapes.clone(), factors.to_vec(), None)?;
        let sums = match (self.data.roles(), self.data.coo()) {
            (None, Some(_)) => self.stored(&predictions)?,
            (Some(_), _) | (None, None) => self.dense(&predictions)?,
        };
        let mean = |sum: f64| (sums.weight > 0.0).then(|| sum / sums.weight);
        Ok(Scores {
            // Higher is better: what is no number is the lowest.
            poisson: mean(-sums.poisson).filter(|_| self.counts).map(|x| -nonfinite::worst(x)),
            rmse: mean(sums.squared).map(|x| nonfinite::worst(x.sqrt())),
            mae: mean(sums.absolute).map(nonfinite::worst),
        })
    }

    /// The mean that a prediction stands for; `entry` counts in C order.
    fn mean(&self, y: f64, entry: usize) -> f64 {
        if !self.loss.is_odds() {
            return y;
        }
        let parameters: Vec<f64> =
            self.entry_parameters.iter().map(|p| p.get(entry).copied().unwrap_or(1.0)).collect();
        // Odds that overflowed are certainty.
        let share = if y.is_finite() { y / (1.0 + y) } else { 1.0 };
        self.loss.domain().trials(&parameters).unwrap_or(1.0) * share
    }

    /// From a role for every entry: ŷ is formed block by block, in C order.
    fn dense(&self, predictions: &FactoredTensor) -> Result<ScoreSums> {
        let data = self.data;
        let mut sums = ScoreSums::default();
        let Some(roles) = data.roles() else { return Ok(sums) };
        let shape = data.shape();
        let keys = data.coo().map(|list| list.keys());
        let strides = match &keys {
            Some(_) => c_strides(shape),
            None => data.values().strides().to_vec(),
        };
        let c = c_strides(shape);
        let blocks = Blocks::in_c_order(shape);
        let score = |block: &[Range<usize>], predicted: &[f64]| -> Result<ScoreSums> {
            let run = block.last().map_or(1, Range::len);
            let step = strides.last().copied().unwrap_or(1);
            let mut held_out = vec![0.0; run];
            let mut values = vec![0.0; run];
            let mut weights = vec![1.0; run];
            let mut sums = ScoreSums::default();
            let sizes: Vec<usize> = block.iter().map(Range::len).collect();
            let mut index = vec![0; block.len()];
            for row in predicted.chunks(run.max(1)) {
                let place = |strides: &[usize]| -> usize {
                    index.iter().zip(block).zip(strides).map(|((i, b), s)| (b.start + i) * s).sum()
                };
                let (offset, entry) = (place(&strides), place(&c));
                roles.indicator(pulp::Scalar::new(), Role::HeldOut, offset, step, &mut held_out);
                if held_out.iter().any(|&h| h != 0.0) {
                    match (&keys, data.coo()) {
                        (Some(keys), Some(list)) => {
                            values.fill(0.0);
                            let from = keys.partition_point(|&key| key < entry as u64);
                            let inside =
                                keys[from..].iter().take_while(|&&key| key < (entry + run) as u64);
                            for (i, &key) in inside.enumerate() {
                                values[key as usize - entry] =
                                    list.values().get(from + i).unwrap_or(0.0);
                            }
                        }
                        _ => data.values().load(offset, step, &mut values),
                    }
                    if let Some(all) = data.weights() {
                        all.load(offset, step, &mut weights);
                    }
                    for (i, &y) in row.iter().enumerate() {
                        if held_out[i] != 0.0 {
                            sums.add_entry(self, weights[i], values[i], self.mean(y, entry + i));
                        }
                    }
                }
                blocks.advance_run(&mut index, &sizes);
            }
            Ok(sums)
        };
        predictions.fold_blocks(&blocks, score, |_, part| sums.add(part))?;
        data.check()?;
        Ok(sums)
    }

    /// From stored entries: ŷ is formed at those that are held out.
    fn stored(&self, predictions: &FactoredTensor) -> Result<ScoreSums> {
        // What the implicit entries are makes no difference where held-out entries are all stored.
        let sparse = self.data.stored(Implicit::Missing);
        let list = sparse.entries();
        let held_out: Vec<usize> =
            (0..list.len()).filter(|&i| sparse.role(i) == Role::HeldOut).collect();
        let c = c_strides(self.data.shape());
        let score = |batch: &[usize], indices: &[Vec<usize>], predicted: &[f64]| {
            let mut sums = ScoreSums::default();
            for (n, (&i, &y)) in batch.iter().zip(predicted).enumerate() {
                let entry = indices
                    .iter()
                    .zip(&c)
                    .fold(0usize, |at, (mode, &s)| at.wrapping_add(mode[n].wrapping_mul(s)));
                let x = list.values().get(i).unwrap_or(0.0);
                sums.add_entry(self, sparse.weight(i), x, self.mean(y, entry));
            }
            sums
        };
        let mut sums = ScoreSums::default();
        predictions.fold_stored(list, &held_out, score, |part| sums.add(part))?;
        Ok(sums)
    }
}

/// The distances of neighbours in C order. They wrap around for tensors of more entries than there are
/// numbers, which have no entry parameters.
fn c_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for mode in (1..shape.len()).rev() {
        strides[mode - 1] = strides[mode].wrapping_mul(shape[mode]);
    }
    strides
}
