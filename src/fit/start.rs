//! Where a fit starts.

use ndarray::{ArrayD, IxDyn};

use crate::data::{Prepared, uniform_u32};
use crate::engine::cpu::contract;
use crate::error::{Error, Result};
use crate::loss::{Domain, Loss};
use crate::model::{Letter, Shapes};
use crate::plan::Contraction;

/// The stream of random numbers of the first factor; factor l has stream `STREAM + l`.
const STREAM: u32 = 0x5741_5254;

/// Uniform random factors, scaled so that the mean of ŷ over all entries is the weighted mean of
/// the data, or the odds that go with it.
pub(super) fn random(
    shapes: &Shapes,
    loss: &Loss,
    data: &Prepared,
    seed: u64,
) -> Result<Vec<ArrayD<f64>>> {
    let factors = shapes.model().factors();
    let mut start: Vec<Vec<f64>> = (0..factors.len())
        .map(|l| {
            let n: usize = shapes.factor(l).iter().product();
            (0..n as u64)
                .map(|i| {
                    // Never 0: a multiplicative update could not leave it.
                    (f64::from(uniform_u32(seed, STREAM + l as u32, i)) + 0.5) / 4294967296.0
                })
                .collect()
        })
        .collect();

    let letters: Vec<&[Letter]> = factors.iter().map(Vec::as_slice).collect();
    let views: Vec<&[f64]> = start.iter().map(Vec::as_slice).collect();
    let sum = contract(shapes, &Contraction::new(shapes, &letters, &[]), &views);
    let mean = sum.first().copied().unwrap_or(0.0) / shapes.volume(shapes.model().observed());
    let scale = (target(loss, data) / mean).powf(1.0 / factors.len() as f64);
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(Error::Observations(format!(
            "no start can be scaled to the data, whose mean is {}",
            data.mean()
        )));
    }
    start.iter_mut().flatten().for_each(|x| *x *= scale);
    start.into_iter().enumerate().map(|(l, data)| array(shapes, l, data)).collect()
}

/// The mean of ŷ at the start.
fn target(loss: &Loss, data: &Prepared) -> f64 {
    let mean = data.mean();
    if !loss.is_odds() {
        // All zero: any small start will do, and 0 itself would stay 0.
        return if mean > 0.0 { mean } else { 1e-3 };
    }
    let trials = match (loss.domain(), loss.sides().first()) {
        (Domain::UpTo(crate::loss::Trials::Scalar(n)), _) => *n,
        (Domain::UpTo(_), Some(side)) => side.mean().unwrap_or(1.0),
        _ => 1.0,
    };
    (mean / (trials - mean).max(f64::MIN_POSITIVE)).clamp(1e-3, 1e3)
}

/// Checks factors given as a start.
pub(super) fn given(shapes: &Shapes, factors: &[ArrayD<f64>]) -> Result<Vec<ArrayD<f64>>> {
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
        let expected = shapes.factor(l);
        if factor.shape() != expected {
            return Err(Error::Shape {
                what: format!("theta_{} of the start", l + 1),
                found: format!("{:?}", factor.shape()),
                expected: format!(
                    "{expected:?}, the sizes of its letters {} in {model}",
                    model.factor_name(l)
                ),
            });
        }
        let bad = factor.indexed_iter().find(|(_, x)| !(x.is_finite() && **x >= 0.0));
        if let Some((index, x)) = bad {
            return Err(Error::Init(format!(
                "theta_{} of the start is {x} at index {:?}: factors must be finite and at least 0",
                l + 1,
                ndarray::Dimension::slice(&index)
            )));
        }
        if factor.iter().all(|&x| x == 0.0) {
            return Err(Error::Init(format!(
                "theta_{} of the start is zero everywhere: the model would be zero and stay so",
                l + 1
            )));
        }
    }
    Ok(factors.to_vec())
}

fn array(shapes: &Shapes, l: usize, data: Vec<f64>) -> Result<ArrayD<f64>> {
    ArrayD::from_shape_vec(IxDyn(&shapes.factor(l)), data)
        .map_err(|e| Error::Init(format!("theta_{}: {e}", l + 1)))
}
