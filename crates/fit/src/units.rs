//! What data are divided by on their way to an engine: numbers far from 1 are beyond single precision, and
//! powers of them beyond double precision.

use nneinfact_core::data::{normalizing_exponent, scaled};
use nneinfact_core::engine::Precision;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Loss, ScaleWith};

/// The unit that the data are divided by inside the engine: 1 for data of usual size, else the
/// power of two nearest to their mean.
pub(crate) fn unit(loss: &Loss, mean: f64) -> f64 {
    if loss.homogeneity().is_none() || mean <= 0.0 || (1e-4..1e4).contains(&mean) {
        return 1.0;
    }
    2f64.powi(mean.log2().round() as i32)
}

/// What data and loss are rescaled by on their way to an engine, all powers of two.
#[derive(Debug)]
pub(crate) struct Units {
    /// The loss, its parameters rescaled with the data.
    pub loss: Loss,
    /// That of ŷ and the factors.
    pub unit: f64,
    /// Values are multiplied with 2^this beforehand; 0 where the engine's number type holds values
    /// and unit as they are.
    pub exponent: i32,
    /// What sums of losses are divided by besides.
    pub sums_unit: f64,
}

/// Losses of the size of 2^±this are as large as double precision holds, and sums of them.
const LARGEST: f64 = 1010.0;

impl Units {
    /// Those of data with this mean.
    ///
    /// # Errors
    /// [`Error::Observations`] where numbers of this size are beyond the precision of the passes and cannot
    /// be rescaled, or their losses beyond double precision.
    pub fn of(loss: Loss, mean: f64, precision: Precision) -> Result<Units> {
        let within = match precision {
            Precision::F32 => 60,
            Precision::F64 => 900,
        };
        let Some(with) = loss.scale_with() else {
            let unit = unit(&loss, mean);
            let exponent = normalizing_exponent(unit, within);
            check_losses(&loss, mean, unit)?;
            if loss.homogeneity().is_none() {
                check_range(&loss, mean, precision)?;
            }
            return Ok(Units { loss, unit, exponent, sums_unit: 1.0 });
        };
        let exponent = normalizing_exponent(mean, within);
        let rescaled = match exponent {
            0 => None,
            _ => loss.rescaled(exponent),
        };
        let Some(rescaled) = rescaled else {
            check_range(&loss, mean, precision)?;
            return Ok(Units { loss, unit: 1.0, exponent: 0, sums_unit: 1.0 });
        };
        let sums_unit = scaled(1.0, -exponent);
        let unit = match with {
            ScaleWith::DataAndModel => sums_unit,
            ScaleWith::Data => 1.0,
        };
        Ok(Units { loss: rescaled, unit, exponent, sums_unit })
    }
}

/// Refuses data of which double precision does not hold the losses.
fn check_losses(loss: &Loss, mean: f64, unit: f64) -> Result<()> {
    let exponent = unit.log2();
    let largest = loss.homogeneity().unwrap_or(0.0).abs().max(1.0);
    if (largest * exponent).abs() <= LARGEST {
        return Ok(());
    }
    Err(Error::Observations(format!(
        "the mean of the data is {mean:e}, and the {} loss of such data is beyond double precision: multiply the \
         data by 2^{}, say, and divide what the fit predicts by it",
        loss.name(),
        -exponent
    )))
}

/// Refuses data that single precision does not hold, where a loss has a scale of its own.
fn check_range(loss: &Loss, mean: f64, precision: Precision) -> Result<()> {
    // Of odds, x is at most the number of trials, and what is too small for that is 0.
    let holds = |x: f64| (x as f32).is_normal() || (loss.is_odds() && x < 1.0);
    if precision == Precision::F64 || mean <= 0.0 || holds(mean) {
        return Ok(());
    }
    Err(Error::Observations(format!(
        "the mean of the data is {mean:e}, which is beyond single precision, and the {} loss has a scale of its own, \
         by which data cannot be rescaled: take double precision (Precision::F64, --precision f64)",
        loss.name()
    )))
}
