//! Factors as arrays: their names in files, and what is refused of those that are given.

use ndarray::{ArrayD, IxDyn};

use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::Shapes;

/// The name in files of the weights that go with normalised factors.
pub const WEIGHTS: &str = "weights";

/// The name of factor `l`, counted from 0, in files.
#[must_use]
pub fn factor_name(l: usize) -> String {
    format!("theta_{}", l + 1)
}

/// Factor `l` of a model from its entries in C order.
pub(crate) fn array(shapes: &Shapes, l: usize, entries: Vec<f64>) -> Result<ArrayD<f64>> {
    ArrayD::from_shape_vec(IxDyn(&shapes.factor(l)), entries)
        .map_err(|e| Error::Internal(format!("{}: {e}", factor_name(l))))
}

/// Checks a factor that was given: `what` as in "theta_1 of the start".
pub(crate) fn check_factor(
    shapes: &Shapes,
    l: usize,
    factor: &ArrayD<f64>,
    what: &str,
) -> Result<()> {
    let expected = shapes.factor(l);
    if factor.shape() != expected {
        return Err(Error::Shape {
            what: what.into(),
            found: format!("{:?}", factor.shape()),
            expected: format!(
                "{expected:?}, the sizes of its letters {} in {}",
                shapes.model().factor_name(l),
                shapes.model()
            ),
        });
    }
    check_entries(factor, what)
}

/// Refuses entries that no factor can have, and a factor without any mass.
pub(crate) fn check_entries(factor: &ArrayD<f64>, what: &str) -> Result<()> {
    let good = |x: &f64| x.is_finite() && *x >= 0.0;
    // Indices are looked for only where some entry is bad: they take far longer than entries.
    if !factor.iter().all(good)
        && let Some((index, x)) = factor.indexed_iter().find(|(_, x)| !good(x))
    {
        return Err(Error::Init(format!(
            "{what} is {x} at index {:?}: factors must be finite and at least 0",
            ndarray::Dimension::slice(&index)
        )));
    }
    if factor.iter().all(|&x| x == 0.0) {
        return Err(Error::Init(format!(
            "{what} is zero everywhere: the model would be zero and stay so"
        )));
    }
    Ok(())
}
