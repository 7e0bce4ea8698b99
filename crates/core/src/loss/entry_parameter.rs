//! Parameters of a loss that may differ from entry to entry.

use std::sync::Arc;

use ndarray::{Array, ArrayD, Dimension};

use crate::error::{Error, Result};

use super::Expr;

/// A parameter of a loss: one number, or a tensor of the data's shape with a value per entry.
///
/// Functions take `impl Into<EntryParameter>`, so a number or an `ndarray` array of `f64` or `f32`
/// can be given as it is.
#[derive(Clone, PartialEq, Debug)]
pub enum EntryParameter {
    /// One value for all entries.
    Scalar(f64),
    /// A value per entry.
    Tensor(ArrayD<f64>),
}

impl EntryParameter {
    /// The parameter as an expression (a constant, or `s0`), with the tensor if it is one.
    pub(super) fn into_expr(self) -> (Expr, Vec<Arc<ArrayD<f64>>>) {
        match self {
            EntryParameter::Scalar(value) => (Expr::constant(value), Vec::new()),
            EntryParameter::Tensor(values) => (Expr::entry_parameter(0), vec![Arc::new(values)]),
        }
    }

    /// The value in a loss's name.
    pub(super) fn label(&self) -> String {
        match self {
            EntryParameter::Scalar(value) => value.to_string(),
            EntryParameter::Tensor(_) => "per entry".to_string(),
        }
    }

    /// The value, where there is one for all entries.
    pub(super) fn scalar(&self) -> Option<f64> {
        match self {
            EntryParameter::Scalar(value) => Some(*value),
            EntryParameter::Tensor(_) => None,
        }
    }

    /// Checks that every value is positive and a normal number in single precision. Where `or_zero`
    /// says so, values of a tensor may be 0, if not all are.
    pub(super) fn check_positive(&self, what: &str, or_zero: bool) -> Result<()> {
        let fits = |v: f64| v > 0.0 && (v as f32).is_normal();
        let wanted = "a positive number between 1.2e-38 and 3.4e38";
        match self {
            EntryParameter::Scalar(v) if fits(*v) => Ok(()),
            EntryParameter::Tensor(values) if or_zero => {
                let bad = |&(_, &v): &(_, &f64)| v != 0.0 && !fits(v);
                if let Some((index, v)) = values.indexed_iter().find(bad) {
                    return Err(Error::Loss(format!(
                        "{what} is {v} at index {:?}, but has to be 0 (an entry that says nothing) \
                         or {wanted}",
                        ndarray::Dimension::slice(&index)
                    )));
                }
                match values.iter().any(|&v| v > 0.0) {
                    true => Ok(()),
                    false => Err(Error::Loss(format!("{what} is 0 at every entry"))),
                }
            }
            EntryParameter::Scalar(v) => {
                Err(Error::Loss(format!("{what} is {v}, but has to be {wanted}")))
            }
            EntryParameter::Tensor(values) => match values.indexed_iter().find(|&(_, &v)| !fits(v))
            {
                None => Ok(()),
                Some((index, v)) => Err(Error::Loss(format!(
                    "{what} is {v} at index {:?}, but has to be {wanted} at every entry, missing \
                     ones included",
                    ndarray::Dimension::slice(&index)
                ))),
            },
        }
    }
}

impl From<f64> for EntryParameter {
    fn from(value: f64) -> EntryParameter {
        EntryParameter::Scalar(value)
    }
}

impl<D: Dimension> From<Array<f64, D>> for EntryParameter {
    fn from(values: Array<f64, D>) -> EntryParameter {
        EntryParameter::Tensor(values.into_dyn())
    }
}

impl<D: Dimension> From<Array<f32, D>> for EntryParameter {
    fn from(values: Array<f32, D>) -> EntryParameter {
        EntryParameter::Tensor(values.mapv(f64::from).into_dyn())
    }
}
