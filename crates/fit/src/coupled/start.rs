//! Where a coupled fit starts.

use ndarray::ArrayD;

use super::plan::Ready;
use crate::constraints::Constraints;
use crate::factored::mean;
use crate::settings::{Balance, Settings, Start};
use crate::start::{self, scale};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::Shapes;

/// The factors to start from. Random ones are scaled so that the mean of every ŷ suits its tensor, as far
/// as that goes together.
pub(super) fn start(
    settings: &mut Settings,
    shapes: &Shapes,
    constraints: &Constraints,
    ready: &[Ready],
    places: &[Vec<usize>],
) -> Result<Vec<ArrayD<f64>>> {
    let (mut factors, made) = match std::mem::take(&mut settings.start) {
        Start::Factors(factors) => (start::given(shapes, &factors)?, false),
        Start::Random => (start::uniform(shapes, settings.seed)?, true),
        Start::Gamma { .. } | Start::Svd | Start::Grown(_) => {
            return Err(Error::Unsupported(
                "several tensors start from random or from given factors".into(),
            ));
        }
    };
    constraints.apply(shapes, &mut factors, false)?;
    if made {
        // The scale of one tensor disturbs that of another one: after some rounds they agree.
        for _ in 0..ROUNDS {
            for (part, own) in ready.iter().zip(places) {
                let free: Vec<usize> =
                    own.iter().copied().filter(|&l| constraints.scales(l)).collect();
                let parts: Vec<ArrayD<f64>> = own.iter().map(|&l| factors[l].clone()).collect();
                let goal = start::mean_wanted(&part.settings.loss, &part.data);
                let scale =
                    (goal / mean(&part.shapes, &parts)?).powf(1.0 / free.len().max(1) as f64);
                if scale > 0.0 && scale.is_finite() {
                    free.into_iter().for_each(|l| factors[l].mapv_inplace(|x| x * scale));
                }
            }
        }
    }
    if settings.balance.unwrap_or_default() != Balance::Never && constraints.is_penalized() {
        scale::balance_start(shapes, constraints, &mut factors);
    }
    Ok(factors)
}

/// How often every tensor scales a start, one tensor after the other.
const ROUNDS: usize = 50;
