//! A nonnegative train as a probability distribution. NTT.md, section 7.

mod condition;
mod moments;
mod sample;
mod states;
mod tables;

pub use condition::Conditional;
pub use moments::Covariance;
pub use sample::NegativeLogLikelihood;
pub use tables::Table;

use rayon::prelude::*;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::indices::Indices;
use crate::nonnegative::NonnegativeTrain;
use crate::train::{ROWS, TensorTrain};

/// A probability distribution over index tuples, as a nonnegative train in Markov form: `K_k[a,i,b]`
/// is the probability of index i and state b, given state a. Everything it is asked is exact.
///
/// ```
/// use nneinfact_density::{Core, Density, Indices, NonnegativeTrain};
///
/// // Two coins that are always alike: the state is what the first shows.
/// let train = NonnegativeTrain::new(vec![
///     Core::new([1, 2, 2], vec![3.0, 0.0, 0.0, 1.0])?,
///     Core::new([2, 2, 1], vec![1.0, 0.0, 0.0, 1.0])?,
/// ], 0.0)?;
/// let density = Density::new(&train)?;
/// assert!((density.log_partition() - 4f64.ln()).abs() < 1e-15);
/// let log_p = density.log_probabilities(&Indices::new(2, vec![0, 0, 0, 1])?)?;
/// assert!((log_p[0] - 0.75f64.ln()).abs() < 1e-15 && log_p[1] == f64::NEG_INFINITY);
/// assert_eq!(density.marginal(&[1])?.values(), [0.75, 0.25]);
/// # Ok::<(), nneinfact_density::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Density {
    /// The train of probabilities: cores in Markov form, scale 1.
    markov: TensorTrain,
    log_partition: f64,
}

impl Density {
    /// The distribution that is proportional to a nonnegative train.
    ///
    /// # Errors
    ///
    /// If all entries are zero.
    pub fn new(train: &NonnegativeTrain) -> Result<Density> {
        let cores = &train.train.cores;
        let d = cores.len();
        let mut markov = vec![None; d];
        // The sum of everything to the right, for each state; its scale is kept as a logarithm.
        let (mut right, mut log) = (vec![1.0], train.train.log_scale);
        for k in (0..d).rev() {
            let core = &cores[k];
            let [left, n, r] = core.shape();
            let weighted = Core::from_fn([left, n, r], |a, i, b| core.at(a, i, b) * right[b]);
            let sums: Vec<f64> =
                weighted.data().chunks_exact(n * r).map(|row| row.iter().sum()).collect();
            let top = sums.iter().copied().fold(0.0, f64::max);
            if top.is_nan() || top <= 0.0 {
                return Err(Error::Numeric(format!(
                    "the sum of all entries of the train is zero: no state left of mode {k} can go \
                     on; a distribution needs an entry that is positive"
                )));
            }
            let data = weighted.data().chunks_exact(n * r).zip(&sums);
            // A state from which nothing can follow keeps a row of zeros.
            let data = data.flat_map(|(row, &sum)| {
                row.iter().map(move |x| if sum > 0.0 { x / sum } else { 0.0 })
            });
            markov[k] = Some(Core::raw(left, n, r, data.collect()));
            log += top.ln();
            right = sums.iter().map(|s| s / top).collect();
        }
        let cores: Vec<Core> = markov.into_iter().flatten().collect();
        let markov = TensorTrain { cores, log_scale: 0.0 };
        Ok(Density { markov, log_partition: log + right[0].ln() })
    }

    /// A distribution of cores that are in Markov form already.
    pub(crate) fn from_markov(cores: Vec<Core>, log_partition: f64) -> Density {
        Density { markov: TensorTrain { cores, log_scale: 0.0 }, log_partition }
    }

    /// The logarithm of the sum of all entries of the train it came from.
    #[must_use]
    pub fn log_partition(&self) -> f64 {
        self.log_partition
    }

    /// The cores in Markov form.
    #[must_use]
    pub fn markov_cores(&self) -> &[Core] {
        &self.markov.cores
    }

    /// The train of probabilities.
    #[must_use]
    pub fn to_train(&self) -> NonnegativeTrain {
        NonnegativeTrain { train: self.markov.clone() }
    }

    /// How many modes there are.
    #[must_use]
    pub fn order(&self) -> usize {
        self.markov.order()
    }

    /// The sizes of the modes.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        self.markov.sizes()
    }

    /// The numbers of states between neighbouring modes.
    #[must_use]
    pub fn ranks(&self) -> Vec<usize> {
        self.markov.ranks()
    }

    /// Logarithms of probabilities of index tuples; −∞ for an impossible one.
    ///
    /// # Errors
    ///
    /// If a tuple lies outside the distribution's sizes.
    pub fn log_probabilities(&self, indices: &Indices) -> Result<Vec<f64>> {
        indices.check(&self.sizes(), "the indices")?;
        let order = self.order();
        Ok(indices
            .data()
            .par_chunks(ROWS * order)
            .flat_map_iter(|rows| rows.chunks_exact(order).map(|row| self.markov.log_entry(row).1))
            .collect())
    }

    /// Logarithms of entries of the train it came from, at index tuples.
    ///
    /// # Errors
    ///
    /// If a tuple lies outside the distribution's sizes.
    pub fn log_entries(&self, indices: &Indices) -> Result<Vec<f64>> {
        let mut logs = self.log_probabilities(indices)?;
        logs.iter_mut().for_each(|x| *x += self.log_partition);
        Ok(logs)
    }

    /// The error if a mode is not there.
    fn check_mode(&self, mode: usize) -> Result<()> {
        if mode < self.order() {
            return Ok(());
        }
        Err(Error::Setting(format!(
            "there is no mode {mode}: the distribution has {} modes, counted from 0",
            self.order()
        )))
    }

    /// Probabilities of the states left of each mode, from those of the modes before.
    fn left_states(&self) -> Vec<Vec<f64>> {
        let mut out = Vec::with_capacity(self.order());
        let mut state = vec![1.0];
        for core in &self.markov.cores {
            let next = times(&state, &core.sum_over_mode(), core.right());
            out.push(std::mem::replace(&mut state, next));
        }
        out
    }
}

/// A row vector times a row-major matrix.
fn times(v: &[f64], m: &[f64], cols: usize) -> Vec<f64> {
    let mut out = vec![0.0; cols];
    for (v, row) in v.iter().zip(m.chunks_exact(cols)) {
        out.iter_mut().zip(row).for_each(|(out, m)| *out += v * m);
    }
    out
}
