//! Latent states: a nonnegative train is a hidden Markov chain whose cores differ.

use super::{Density, times};
use crate::error::{Error, Result};
use crate::indices::Indices;

impl Density {
    /// Probabilities of the states between neighbouring modes given one index tuple, by forward and
    /// backward sums: one vector for each bond.
    ///
    /// # Errors
    ///
    /// If the tuple lies outside, or is impossible.
    ///
    /// ```
    /// use nneinfact_density::{Density, NonnegativeTrain};
    ///
    /// let density = Density::new(&NonnegativeTrain::random(&[2, 3, 2], &[2, 3], 1)?)?;
    /// let states = density.states_given(&[1, 2, 0])?;
    /// assert_eq!((states[0].len(), states[1].len()), (2, 3));
    /// assert!((states[1].iter().sum::<f64>() - 1.0).abs() < 1e-12);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    pub fn states_given(&self, tuple: &[usize]) -> Result<Vec<Vec<f64>>> {
        Indices::new(tuple.len().max(1), tuple.to_vec())?.check(&self.sizes(), "the tuple")?;
        let cores = &self.markov.cores;
        let impossible = || {
            Error::Numeric(format!(
                "the tuple {tuple:?} has probability 0, so its states have no probabilities"
            ))
        };
        let mut forward = vec![vec![1.0]];
        for (core, &i) in cores.iter().zip(tuple) {
            let mut next = times(&forward[forward.len() - 1], core.slice(i).data(), core.right());
            normalise(&mut next).ok_or_else(impossible)?;
            forward.push(next);
        }
        let (mut back, mut step) = (vec![1.0], Vec::new());
        let mut out = Vec::with_capacity(cores.len() - 1);
        for k in (1..cores.len()).rev() {
            cores[k].step_back(&back, tuple[k], &mut step);
            std::mem::swap(&mut back, &mut step);
            normalise(&mut back).ok_or_else(impossible)?;
            let mut joint: Vec<f64> = forward[k].iter().zip(&back).map(|(a, b)| a * b).collect();
            normalise(&mut joint).ok_or_else(impossible)?;
            out.push(joint);
        }
        out.reverse();
        Ok(out)
    }
}

/// Divided by the sum; `None` if that is 0.
fn normalise(p: &mut [f64]) -> Option<()> {
    let sum: f64 = p.iter().sum();
    (sum > 0.0).then(|| p.iter_mut().for_each(|x| *x /= sum))
}
