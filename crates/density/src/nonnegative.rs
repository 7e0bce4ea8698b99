//! Nonnegative tensor trains.

use rayon::prelude::*;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::indices::{Indices, check_sizes};
use crate::linalg;
use crate::random::{Purpose, Stream};
use crate::train::{ROWS, TensorTrain};

/// A tensor train whose cores have no negative entry: up to its sum, a distribution.
///
/// ```
/// use nneinfact_density::{Core, NonnegativeTrain};
///
/// let train = NonnegativeTrain::new(vec![
///     Core::new([1, 2, 1], vec![1.0, 2.0])?,
///     Core::new([1, 2, 1], vec![0.5, 0.0])?,
/// ], 0.0)?;
/// assert_eq!(train.train().sizes(), [2, 2]);
/// # Ok::<(), nneinfact_density::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NonnegativeTrain {
    pub(crate) train: TensorTrain,
}

impl NonnegativeTrain {
    /// A train of given cores and logarithm of the scale.
    ///
    /// # Errors
    ///
    /// As [`TensorTrain::new`], and if an entry is negative.
    pub fn new(cores: Vec<Core>, log_scale: f64) -> Result<NonnegativeTrain> {
        TensorTrain::new(cores, log_scale)?.try_into()
    }

    /// A train with entries uniform in [0.1, 1.1), a function of the seed. `ranks` has one entry
    /// for each bond.
    ///
    /// # Errors
    ///
    /// If there is no mode, a size or rank is 0, or there is not one rank for each bond.
    pub fn random(sizes: &[usize], ranks: &[usize], seed: u64) -> Result<NonnegativeTrain> {
        check_sizes(sizes)?;
        check_ranks(sizes.len(), ranks)?;
        let last = sizes.len() - 1;
        check_entries(sizes, ranks)?;
        let cores = sizes.iter().enumerate().map(|(k, &n)| {
            let left = if k == 0 { 1 } else { ranks[k - 1] };
            let right = if k == last { 1 } else { ranks[k] };
            let stream = Stream::new(seed, Purpose::Start, k as u64);
            let entries = (0..(left * n * right) as u64).map(|at| 0.1 + stream.uniform(at));
            Core::raw(left, n, right, entries.collect())
        });
        Ok(NonnegativeTrain { train: TensorTrain { cores: cores.collect(), log_scale: 0.0 } })
    }

    /// The train as one of any sign.
    #[must_use]
    pub fn train(&self) -> &TensorTrain {
        &self.train
    }

    /// The train as one of any sign.
    #[must_use]
    pub fn into_train(self) -> TensorTrain {
        self.train
    }

    /// Logarithms of entries at index tuples: vector times slices, renormalised at every mode, so
    /// they neither overflow nor underflow. −∞ where the entry is zero. NTT.md, section 7.
    ///
    /// # Errors
    ///
    /// If a tuple lies outside the tensor.
    pub fn log_entries(&self, indices: &Indices) -> Result<Vec<f64>> {
        indices.check(&self.train.sizes(), "the indices")?;
        let order = self.train.order();
        Ok(indices
            .data()
            .par_chunks(ROWS * order)
            .flat_map_iter(|rows| rows.chunks_exact(order).map(|row| self.train.log_entry(row).1))
            .collect())
    }

    /// How many entries are zero.
    pub(crate) fn zeros(&self) -> usize {
        self.train.cores.iter().flat_map(Core::data).filter(|&&x| x == 0.0).count()
    }

    /// Entries that are zero become `share` times the largest of their core.
    pub(crate) fn raise_zeros(&mut self, share: f64) {
        for core in &mut self.train.cores {
            let least = share * linalg::largest(core.data());
            core.data_mut().iter_mut().for_each(|x| *x = x.max(least));
        }
    }
}

/// The bytes that a random train may take.
const BYTES: u64 = 8 << 30;

/// The error if a train of these sizes and ranks would take too much memory.
fn check_entries(sizes: &[usize], ranks: &[usize]) -> Result<()> {
    let side = |k: usize| ranks.get(k).map_or(1, |&r| r as u64);
    let entries = sizes.iter().enumerate().fold(0u64, |sum, (k, &n)| {
        let left = if k == 0 { 1 } else { side(k - 1) };
        sum.saturating_add((n as u64).saturating_mul(left).saturating_mul(side(k)))
    });
    let needed = entries.saturating_mul(8);
    if needed <= BYTES {
        return Ok(());
    }
    Err(Error::Memory {
        what: "a train of these sizes and ranks".into(),
        needed,
        available: BYTES,
        help: "use smaller ranks".into(),
    })
}

/// The error if ranks are not those of the bonds of a train with `order` modes.
pub(crate) fn check_ranks(order: usize, ranks: &[usize]) -> Result<()> {
    if ranks.len() + 1 != order {
        return Err(Error::Shape {
            what: "the ranks".into(),
            found: format!("{}", ranks.len()),
            expected: format!("{}, one for each bond between two of {order} modes", order - 1),
        });
    }
    match ranks.iter().position(|&r| r == 0) {
        None => Ok(()),
        Some(bond) => Err(Error::Setting(format!(
            "the rank of bond {bond}, between modes {bond} and {}, is 0; it has to be at least 1",
            bond + 1
        ))),
    }
}

impl TryFrom<TensorTrain> for NonnegativeTrain {
    type Error = Error;

    fn try_from(train: TensorTrain) -> Result<NonnegativeTrain> {
        for (k, core) in train.cores.iter().enumerate() {
            if let Some(at) = core.data().iter().position(|&x| x < 0.0) {
                let count: usize =
                    train.cores.iter().flat_map(Core::data).filter(|&&x| x < 0.0).count();
                return Err(Error::Init(format!(
                    "the train has {count} negative entries: the first is {} in core {k} at index \
                     {:?}; a nonnegative train has none (fit one to this train first)",
                    core.data()[at],
                    core.index_of(at)
                )));
            }
        }
        Ok(NonnegativeTrain { train })
    }
}

impl From<NonnegativeTrain> for TensorTrain {
    fn from(train: NonnegativeTrain) -> TensorTrain {
        train.train
    }
}
