//! Where a fit starts.

mod basis;
pub(crate) mod entry_matrix;
mod grown;
mod in_memory;
pub(crate) mod matrices;
mod random;
pub(crate) mod refine;
pub(crate) mod scale;
mod svd;
pub(crate) mod unfold;

use ndarray::ArrayD;

pub(crate) use self::basis::Basis;
use self::matrices::DataMatrices;
pub(crate) use self::random::uniform as uniform_entries;
pub(crate) use self::svd::SvdStart;
use self::unfold::DataSource;
use crate::factored::total;
use crate::factors::{array, check_factor};
use crate::settings::Start;
use nneinfact_core::data::Prepared;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Domain, Loss, Trials};
use nneinfact_core::model::Shapes;

/// The factors that a fit starts with, in the model's order.
pub(crate) fn make(start: Start, basis: &Basis<'_>) -> Result<Vec<ArrayD<f64>>> {
    let goal = Goal { mean: basis.data.level(), wanted: mean_wanted(basis.loss, basis.data) };
    match start {
        Start::Svd => {
            let &Basis { shapes, seed, cancel, .. } = basis;
            of_singular_vectors(&DataSource::new(basis)?, goal, &SvdStart { shapes, seed, cancel })
        }
        other => make_without_data(other, basis.shapes, goal, basis.seed),
    }
}

/// The factors of a start from singular vectors of the data.
pub(crate) fn of_singular_vectors(
    source: &impl DataMatrices,
    goal: Goal,
    wanted: &SvdStart<'_>,
) -> Result<Vec<ArrayD<f64>>> {
    scaled(wanted.shapes, goal, svd::start(source, wanted)?)
}

/// The factors of a start that looks at no data, but for their mean.
pub(crate) fn make_without_data(
    start: Start,
    shapes: &Shapes,
    goal: Goal,
    seed: u64,
) -> Result<Vec<ArrayD<f64>>> {
    match start {
        Start::Random => scaled(shapes, goal, random::uniform(shapes, seed)),
        Start::Gamma { shape } => scaled(shapes, goal, random::gamma(shapes, seed, shape)),
        Start::Grown(factors) => grown::start(shapes, &factors, seed),
        Start::Factors(factors) => given(shapes, &factors),
        Start::Svd => Err(Error::Internal("singular vectors without data".into())),
    }
}

/// What a start is scaled to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    /// The weighted mean of the training entries.
    pub mean: f64,
    /// The mean that ŷ is to have.
    pub wanted: f64,
}

/// Scales factors so that the mean of ŷ over all entries is the weighted mean of the data, or the
/// odds that go with it.
fn scaled(shapes: &Shapes, goal: Goal, mut start: Vec<Vec<f64>>) -> Result<Vec<ArrayD<f64>>> {
    let factors = shapes.model().factors();
    let mean = total(shapes, &start)? / shapes.volume(shapes.model().observed());
    let scale = (goal.wanted / mean).powf(1.0 / factors.len() as f64);
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(Error::Observations(format!(
            "no start can be scaled to the data, whose mean is {}",
            goal.mean
        )));
    }
    start.iter_mut().flatten().for_each(|x| *x *= scale);
    start.into_iter().enumerate().map(|(l, data)| array(shapes, l, data)).collect()
}

/// The mean that ŷ is to have at the start.
pub(crate) fn mean_wanted(loss: &Loss, data: &Prepared) -> f64 {
    mean_wanted_of(loss, data.level(), trials_of(loss))
}

/// Of a loss with a number of trials for every entry: how many entries have any, and the sum.
pub(crate) fn trials_of(loss: &Loss) -> Option<[f64; 2]> {
    match (loss.domain(), loss.entry_parameters().first()) {
        (Domain::UpTo(Trials::EntryParameter(_)), Some(trials)) => {
            // Entries without trials say nothing, missing ones mostly.
            Some([trials.iter().filter(|&&n| n > 0.0).count() as f64, trials.sum()])
        }
        (
            Domain::UpTo(_) | Domain::Any | Domain::NonNegative | Domain::Positive | Domain::Binary,
            _,
        ) => None,
    }
}

/// [`mean_wanted`] for data of this mean, with the [trials](trials_of) of all of them.
pub(crate) fn mean_wanted_of(loss: &Loss, mean: f64, trials: Option<[f64; 2]>) -> f64 {
    if !loss.is_odds() {
        // All zero: any small start will do, and 0 itself would stay 0.
        return if mean > 0.0 { mean } else { 1e-3 };
    }
    let trials = match (loss.domain(), trials) {
        (Domain::UpTo(Trials::Scalar(n)), _) => *n,
        (Domain::UpTo(Trials::EntryParameter(_)), Some([given, sum])) if given > 0.0 => sum / given,
        (
            Domain::UpTo(Trials::EntryParameter(_))
            | Domain::Any
            | Domain::NonNegative
            | Domain::Positive
            | Domain::Binary,
            _,
        ) => 1.0,
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
