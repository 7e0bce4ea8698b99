//! Samples, and likelihoods of samples.

use rayon::prelude::*;

use super::{Density, tables::index_given_state};
use crate::error::{Error, Result};
use crate::indices::{Indices, normalised_weights};
use crate::random::{Purpose, Stream};
use crate::train::ROWS;

/// The negative log-likelihood of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct NegativeLogLikelihood {
    /// Its mean over samples, in nats: infinite if a sample (of positive weight) is impossible.
    pub mean: f64,
    /// How many samples are impossible.
    pub impossible: usize,
    /// Its mean over the samples that are possible; NaN if none is.
    pub mean_of_possible: f64,
}

impl Density {
    /// Samples, a function of the seed: the same for any number of threads, and the first of many are
    /// the same as those of few.
    ///
    /// # Errors
    ///
    /// If there are more than memory can address.
    ///
    /// ```
    /// use nneinfact_density::{Density, NonnegativeTrain};
    ///
    /// let density = Density::new(&NonnegativeTrain::random(&[2, 3], &[2], 1)?)?;
    /// let samples = density.sample(100, 7)?;
    /// assert_eq!(samples.rows(), 100);
    /// assert_eq!(samples, density.sample(100, 7)?);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    pub fn sample(&self, count: usize, seed: u64) -> Result<Indices> {
        let d = self.order();
        let stream = Stream::new(seed, Purpose::Sample, 0);
        self.sample_by(count, |row, mode| stream.uniform((row * d + mode) as u64))
    }

    /// Samples from given numbers in [0, 1): one for each sample and mode, sample by sample. Mode by
    /// mode, the number picks from the cumulative sums of the mode's probabilities.
    ///
    /// # Errors
    ///
    /// If the numbers are not whole samples, or one is outside [0, 1).
    ///
    /// ```
    /// use nneinfact_density::{Core, Density, NonnegativeTrain};
    ///
    /// let coin = NonnegativeTrain::new(vec![Core::new([1, 2, 1], vec![1.0, 3.0])?], 0.0)?;
    /// let samples = Density::new(&coin)?.sample_from(&[0.2, 0.25, 0.9])?;
    /// assert_eq!(samples.data(), [0, 1, 1]);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    pub fn sample_from(&self, uniforms: &[f64]) -> Result<Indices> {
        let d = self.order();
        if !uniforms.len().is_multiple_of(d) {
            return Err(Error::Shape {
                what: "the uniform numbers".into(),
                found: format!("{}", uniforms.len()),
                expected: format!("a multiple of {d}: one for each sample and mode"),
            });
        }
        if let Some(at) = uniforms.iter().position(|u| !(0.0..1.0).contains(u)) {
            return Err(Error::Setting(format!(
                "the uniform number of sample {}, mode {}, is {}; it has to be at least 0 and less \
                 than 1",
                at / d,
                at % d,
                uniforms[at]
            )));
        }
        self.sample_by(uniforms.len() / d, |row, mode| uniforms[row * d + mode])
    }

    fn sample_by(
        &self,
        count: usize,
        uniform: impl Fn(usize, usize) -> f64 + Sync,
    ) -> Result<Indices> {
        let d = self.order();
        let entries = count.saturating_mul(d);
        let mut out: Vec<usize> = Vec::new();
        if out.try_reserve_exact(entries).is_err() {
            return Err(Error::Memory {
                what: format!("{count} samples"),
                needed: (entries as u64).saturating_mul(8),
                available: isize::MAX as u64,
                help: "draw fewer at a time".into(),
            });
        }
        out.resize(entries, 0);
        let given: Vec<Vec<f64>> = self.markov.cores.iter().map(index_given_state).collect();
        out.par_chunks_mut(ROWS * d).enumerate().for_each(|(block, out)| {
            let (mut state, mut next) = (Vec::new(), Vec::new());
            let mut sums = Vec::new();
            for (at, out) in out.chunks_exact_mut(d).enumerate() {
                state.clear();
                state.push(1.0);
                for (k, core) in self.markov.cores.iter().enumerate() {
                    cumulative(&state, &given[k], core.size(), &mut sums);
                    let i = pick(&sums, uniform(block * ROWS + at, k));
                    out[k] = i;
                    core.step(&state, i, &mut next);
                    let sum: f64 = next.iter().sum();
                    next.iter_mut().for_each(|x| *x /= sum);
                    std::mem::swap(&mut state, &mut next);
                }
            }
        });
        Ok(Indices::raw(d, out))
    }

    /// The mean negative log-likelihood of samples, weighted where weights are given.
    ///
    /// # Errors
    ///
    /// If there is no sample, one lies outside, or the weights cannot be used.
    ///
    /// ```
    /// use nneinfact_density::{Core, Density, Indices, NonnegativeTrain};
    ///
    /// let coin = NonnegativeTrain::new(vec![Core::new([1, 2, 1], vec![1.0, 3.0])?], 0.0)?;
    /// let nll = Density::new(&coin)?.nll(&Indices::new(1, vec![1, 1])?, None)?;
    /// assert!((nll.mean + 0.75f64.ln()).abs() < 1e-15);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    pub fn nll(&self, samples: &Indices, weights: Option<&[f64]>) -> Result<NegativeLogLikelihood> {
        samples.check(&self.sizes(), "the samples")?;
        let weights = normalised_weights(weights, samples.rows())?;
        let logs = self.log_probabilities(samples)?;
        let (mut impossible, mut sum, mut weight, mut lost) = (0, 0.0, 0.0, false);
        for (log, w) in logs.iter().zip(&weights) {
            if *log == f64::NEG_INFINITY {
                impossible += 1;
                lost |= *w > 0.0;
            } else {
                sum -= w * log;
                weight += w;
            }
        }
        let mean_of_possible = if weight > 0.0 { sum / weight } else { f64::NAN };
        let mean = if lost { f64::INFINITY } else { sum };
        Ok(NegativeLogLikelihood { mean, impossible, mean_of_possible })
    }
}

/// Cumulative sums of the probabilities of a mode's indices, given weights of the states.
fn cumulative(state: &[f64], given: &[f64], size: usize, sums: &mut Vec<f64>) {
    sums.clear();
    sums.resize(size, 0.0);
    for (w, row) in state.iter().zip(given.chunks_exact(size)) {
        sums.iter_mut().zip(row).for_each(|(sum, p)| *sum += w * p);
    }
    let mut total = 0.0;
    for sum in sums {
        total += *sum;
        *sum = total;
    }
}

/// How many sums are at most u times the last; never an index of probability 0.
fn pick(sums: &[f64], u: f64) -> usize {
    let last = sums.len() - 1;
    let mut i = sums.partition_point(|&c| c <= u * sums[last]).min(last);
    while i > 0 && sums[i] <= sums[i - 1] {
        i -= 1;
    }
    i
}

#[cfg(test)]
mod tests {
    use super::pick;

    #[test]
    fn impossible_indices_are_never_picked() {
        assert_eq!(pick(&[0.0, 0.5, 0.5, 1.0, 1.0], 0.0), 1);
        assert_eq!(pick(&[0.0, 0.5, 0.5, 1.0, 1.0], 0.5), 3);
        assert_eq!(pick(&[0.0, 0.5, 0.5, 1.0, 1.0], 1.0), 3);
        assert_eq!(pick(&[1.0], 0.3), 0);
    }
}
