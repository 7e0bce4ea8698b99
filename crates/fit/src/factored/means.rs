//! Sums of ŷ from factors that no fit has yet.

use ndarray::ArrayD;

use nneinfact_core::algebra::contract_within;
use nneinfact_core::error::Result;
use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::plan::Contraction;

/// The sum of ŷ over all entries of the data, from factors in C order.
///
/// # Errors
/// [`Error::Memory`] where the products of factors on the way do not fit in memory.
pub(crate) fn total(shapes: &Shapes, factors: &[Vec<f64>]) -> Result<f64> {
    let indices: Vec<&[Index]> = shapes.model().factors().iter().map(Vec::as_slice).collect();
    let views: Vec<&[f64]> = factors.iter().map(Vec::as_slice).collect();
    let sum = contract_within(shapes, &Contraction::new(shapes, &indices, &[]), &views)?;
    Ok(sum.first().copied().unwrap_or(0.0))
}

/// The mean of ŷ over all entries of the data.
///
/// # Errors
/// As [`total`].
pub(crate) fn mean(shapes: &Shapes, factors: &[ArrayD<f64>]) -> Result<f64> {
    let data: Vec<Vec<f64>> = factors.iter().map(|f| f.iter().copied().collect()).collect();
    Ok(total(shapes, &data)? / shapes.volume(shapes.model().observed()))
}
