//! Conditional distributions.

use super::Density;
use crate::error::{Error, Result};
use crate::nonnegative::NonnegativeTrain;
use crate::train::TensorTrain;

/// A distribution given the values of some modes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Conditional {
    /// The distribution of the others. A mode whose value is given stays, with size 1.
    pub density: Density,
    /// The logarithm of the probability of the given values.
    pub log_probability: f64,
}

impl Density {
    /// The distribution given (mode, value) pairs.
    ///
    /// # Errors
    ///
    /// If a mode or value is not there, a mode is given twice, or the values are impossible.
    ///
    /// ```
    /// use nneinfact_density::{Density, NonnegativeTrain};
    ///
    /// let density = Density::new(&NonnegativeTrain::random(&[2, 3, 4], &[2, 2], 1)?)?;
    /// let given = density.conditional(&[(1, 2)])?;
    /// assert_eq!(given.density.sizes(), [2, 1, 4]);
    /// let p = density.marginal(&[1])?.values()[2];
    /// assert!((given.log_probability - p.ln()).abs() < 1e-12);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    pub fn conditional(&self, given: &[(usize, usize)]) -> Result<Conditional> {
        let mut cores = self.markov.cores.clone();
        for (at, &(mode, value)) in given.iter().enumerate() {
            self.check_mode(mode)?;
            let size = self.markov.cores[mode].size();
            if value >= size {
                return Err(Error::Setting(format!(
                    "mode {mode} has no value {value}: it has {size}, counted from 0"
                )));
            }
            if given[..at].iter().any(|&(other, _)| other == mode) {
                return Err(Error::Setting(format!("mode {mode} is given twice; give it once")));
            }
            cores[mode] = cores[mode].slice(value);
        }
        let fixed = NonnegativeTrain { train: TensorTrain { cores, log_scale: 0.0 } };
        let density = Density::new(&fixed).map_err(|_| {
            Error::Numeric(format!(
                "the given values have probability 0, so nothing can be conditional on them: \
                 {given:?} as (mode, value)"
            ))
        })?;
        let log_probability = density.log_partition;
        // Probabilities given the values are what the result is the distribution of.
        let density = Density { log_partition: 0.0, ..density };
        Ok(Conditional { density, log_probability })
    }
}
