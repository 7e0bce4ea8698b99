//! Expectations.

use rayon::prelude::*;

use super::{Density, tables::index_given_state, times};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::linalg;
use crate::train::TensorTrain;

/// Means and covariances of one function of each mode.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Covariance {
    /// The mean of each mode's function.
    pub mean: Vec<f64>,
    /// The covariance of every two, a symmetric matrix row by row.
    pub covariance: Vec<f64>,
}

impl Density {
    /// `E[Π_k f_k(x_k)]`; `None` stands for the function that is 1.
    ///
    /// # Errors
    ///
    /// If there is not one entry for each mode, or a function has not one finite value for each
    /// index of its mode.
    ///
    /// ```
    /// use nneinfact_density::{Density, NonnegativeTrain};
    ///
    /// let density = Density::new(&NonnegativeTrain::random(&[2, 3], &[2], 1)?)?;
    /// let second = [0.0, 0.0, 1.0];
    /// let p = density.expectation(&[None, Some(&second)])?;
    /// assert!((p - density.marginal(&[1])?.values()[2]).abs() < 1e-12);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    pub fn expectation(&self, f: &[Option<&[f64]>]) -> Result<f64> {
        self.check_count(f.len())?;
        let (mut v, mut exponent) = (vec![1.0], 0i64);
        for (k, core) in self.markov.cores.iter().enumerate() {
            let sum = match f[k] {
                None => core.sum_over_mode(),
                Some(values) => {
                    check_values(values, core, k)?;
                    core.weighted_sum(|i| values[i])
                }
            };
            v = times(&v, &sum, core.right());
            exponent += i64::from(linalg::take_exponent(&mut v));
        }
        Ok(linalg::scale2(v[0], exponent.clamp(-5000, 5000) as i32))
    }

    /// The mean of a function that is itself a tensor train: `Σ_x P(x) g(x)`.
    ///
    /// # Errors
    ///
    /// If the sizes differ.
    ///
    /// ```
    /// use nneinfact_density::{Density, NonnegativeTrain};
    ///
    /// let density = Density::new(&NonnegativeTrain::random(&[2, 3, 2], &[2, 2], 1)?)?;
    /// let g = NonnegativeTrain::random(&[2, 3, 2], &[3, 3], 2)?.into_train();
    /// let mean = density.mean_of_train(&g)?;
    /// let p = density.to_train().train().to_dense()?;
    /// let want: f64 = p.iter().zip(g.to_dense()?).map(|(p, g)| p * g).sum();
    /// assert!((mean - want).abs() < 1e-12);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    pub fn mean_of_train(&self, g: &TensorTrain) -> Result<f64> {
        let (sign, log) = self.markov.log_inner(g)?;
        Ok(if sign == 0.0 { 0.0 } else { sign * log.exp() })
    }

    /// The mean of a function of each mode.
    ///
    /// # Errors
    ///
    /// If there is not one function for each mode, with one finite value for each index.
    ///
    /// ```
    /// use nneinfact_density::{Density, NonnegativeTrain};
    ///
    /// let density = Density::new(&NonnegativeTrain::random(&[2, 2], &[2], 1)?)?;
    /// let mean = density.mean(&[vec![0.0, 1.0], vec![0.0, 1.0]])?;
    /// assert!((mean[0] - density.marginal(&[0])?.values()[1]).abs() < 1e-12);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    pub fn mean(&self, f: &[Vec<f64>]) -> Result<Vec<f64>> {
        self.check_count(f.len())?;
        for (k, (f, core)) in f.iter().zip(&self.markov.cores).enumerate() {
            check_values(f, core, k)?;
        }
        let singles = self.single_marginals();
        Ok(f.iter().zip(&singles).map(|(f, p)| f.iter().zip(p).map(|(f, p)| f * p).sum()).collect())
    }

    /// Means and covariances of a function of each mode, over all pairs: O(d² r²) after O(d n r²).
    ///
    /// # Errors
    ///
    /// As [`mean`](Self::mean).
    ///
    /// ```
    /// use nneinfact_density::{Density, NonnegativeTrain};
    ///
    /// let density = Density::new(&NonnegativeTrain::random(&[2, 2], &[2], 1)?)?;
    /// let moments = density.covariance(&[vec![0.0, 1.0], vec![0.0, 1.0]])?;
    /// let p = moments.mean[0];
    /// assert!((moments.covariance[0] - p * (1.0 - p)).abs() < 1e-12);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    pub fn covariance(&self, f: &[Vec<f64>]) -> Result<Covariance> {
        let mean = self.mean(f)?;
        // Less their means, so that products of means need not cancel.
        let centred: Vec<Vec<f64>> =
            f.iter().zip(&mean).map(|(f, m)| f.iter().map(|f| f - m).collect()).collect();
        let d = self.order();
        let states = self.left_states();
        let cores = &self.markov.cores;
        let sums: Vec<Vec<f64>> = cores.iter().map(Core::sum_over_mode).collect();
        let ends: Vec<Vec<f64>> = cores
            .iter()
            .zip(&centred)
            .map(|(core, f)| {
                let given = index_given_state(core);
                let rows = given.chunks_exact(core.size());
                rows.map(|row| row.iter().zip(f).map(|(p, f)| p * f).sum()).collect()
            })
            .collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let rows: Vec<Vec<f64>> = (0..d)
            .into_par_iter()
            .map(|k| {
                let (core, f) = (&cores[k], &centred[k]);
                let square: Vec<f64> = index_given_state(core)
                    .chunks_exact(core.size())
                    .map(|row| row.iter().zip(f).map(|(p, f)| p * f * f).sum())
                    .collect();
                let mut row = vec![dot(&states[k], &square)];
                let mut v = times(&states[k], &core.weighted_sum(|i| f[i]), core.right());
                for l in k + 1..d {
                    row.push(dot(&v, &ends[l]));
                    v = times(&v, &sums[l], cores[l].right());
                }
                row
            })
            .collect();
        let mut covariance = vec![0.0; d * d];
        for (k, row) in rows.iter().enumerate() {
            for (step, &x) in row.iter().enumerate() {
                covariance[k * d + k + step] = x;
                covariance[(k + step) * d + k] = x;
            }
        }
        Ok(Covariance { mean, covariance })
    }

    fn check_count(&self, functions: usize) -> Result<()> {
        if functions == self.order() {
            return Ok(());
        }
        Err(Error::Shape {
            what: "the functions".into(),
            found: format!("{functions}"),
            expected: format!("{}, one for each mode", self.order()),
        })
    }
}

fn check_values(values: &[f64], core: &Core, mode: usize) -> Result<()> {
    if values.len() != core.size() {
        return Err(Error::Shape {
            what: format!("the function of mode {mode}"),
            found: format!("{} values", values.len()),
            expected: format!("{}, one for each index", core.size()),
        });
    }
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::Numeric(format!(
            "the function of mode {mode} is {} at index {i}; it has to be finite",
            values[i]
        ))),
    }
}
