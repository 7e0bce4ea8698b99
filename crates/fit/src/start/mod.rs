//! Where a fit starts.

mod basis;
mod grown;
mod random;
mod refine;
pub(crate) mod scale;
mod svd;
mod unfold;

use ndarray::ArrayD;

pub(crate) use self::basis::Basis;
pub(crate) use self::random::uniform as uniform_entries;
use crate::factored::total;
use crate::factors::{array, check_factor};
use crate::settings::Start;
use nneinfact_core::data::Prepared;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Domain, Loss, Trials};
use nneinfact_core::model::Shapes;

/// The factors that a fit starts with, in the model's order.
pub(crate) fn make(start: Start, basis: &Basis<'_>) -> Result<Vec<ArrayD<f64>>> {
    match start {
        Start::Random => scaled(basis, random::uniform(basis.shapes, basis.seed)),
        Start::Gamma { shape } => scaled(basis, random::gamma(basis.shapes, basis.seed, shape)),
        Start::Svd => scaled(basis, svd::start(basis)?),
        Start::Grown(factors) => grown::start(basis.shapes, &factors, basis.seed),
        Start::Factors(factors) => given(basis.shapes, &factors),
    }
}

/// Scales factors so that the mean of ŷ over all entries is the weighted mean of the data, or the
/// odds that go with it.
fn scaled(basis: &Basis<'_>, mut start: Vec<Vec<f64>>) -> Result<Vec<ArrayD<f64>>> {
    let Basis { shapes, loss, data, .. } = *basis;
    let factors = shapes.model().factors();
    let mean = total(shapes, &start)? / shapes.volume(shapes.model().observed());
    let scale = (mean_wanted(loss, data) / mean).powf(1.0 / factors.len() as f64);
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(Error::Observations(format!(
            "no start can be scaled to the data, whose mean is {}",
            data.level()
        )));
    }
    start.iter_mut().flatten().for_each(|x| *x *= scale);
    start.into_iter().enumerate().map(|(l, data)| array(shapes, l, data)).collect()
}

/// The mean that ŷ is to have at the start.
pub(crate) fn mean_wanted(loss: &Loss, data: &Prepared) -> f64 {
    let mean = data.level();
    if !loss.is_odds() {
        // All zero: any small start will do, and 0 itself would stay 0.
        return if mean > 0.0 { mean } else { 1e-3 };
    }
    let trials = match (loss.domain(), loss.entry_parameters().first()) {
        (Domain::UpTo(Trials::Scalar(n)), _) => *n,
        (Domain::UpTo(Trials::EntryParameter(_)), Some(trials)) => {
            // Entries without trials say nothing, missing ones mostly.
            let given = trials.iter().filter(|&&n| n > 0.0).count();
            if given > 0 { trials.sum() / given as f64 } else { 1.0 }
        }
        (Domain::UpTo(Trials::EntryParameter(_)), None)
        | (Domain::Any | Domain::NonNegative | Domain::Positive | Domain::Binary, _) => 1.0,
    };
    (mean / (trials - mean).max(f64::MIN_POSITIVE)).clamp(1e-3, 1e3)
}

/// Checks factors given as a start.
pub(crate) fn given(shapes: &Shapes, factors: &[ArrayD<f64>]) -> Result<Vec<ArrayD<f64>>> {
    let model = shapes.model();
    let count = model.factors().len();
    if factors.len() != count {
        return Err(Error::Init(format!(
            "the start has {} factor{}, but the model {model} has {count}",
            factors.len(),
            if factors.len() == 1 { "" } else { "s" }
        )));
    }
    for (l, factor) in factors.iter().enumerate() {
        check_factor(shapes, l, factor, &format!("theta_{} of the start", l + 1))?;
    }
    Ok(factors.to_vec())
}

/// Uniform random factors between 0 and 1, not scaled.
pub(crate) fn uniform(shapes: &Shapes, seed: u64) -> Result<Vec<ArrayD<f64>>> {
    let factors = random::uniform(shapes, seed).into_iter().enumerate();
    factors.map(|(l, entries)| array(shapes, l, entries)).collect()
}
