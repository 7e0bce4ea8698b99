//! Tensor trains of any sign.

use std::f64::consts::LN_2;

use rayon::prelude::*;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::indices::{Indices, advance};
use crate::linalg;

/// The most entries that are formed at once: of a whole tensor, or of a table of marginals.
pub(crate) const TABLE_LIMIT: usize = 10_000_000;

/// Rows of index tuples that one task works on.
pub(crate) const ROWS: usize = 256;

/// A tensor train: `exp(log_scale) · G_1[x_1] G_2[x_2] ··· G_d[x_d]`, with cores `G_k` of shape
/// `(r_{k-1}, n_k, r_k)` and entries of any sign.
///
/// The scale is a logarithm of its own, so trains with many modes neither overflow nor underflow.
/// Here cores and modes count from 0. Formulas: Oseledets 2011; NTT.md, sections 1 and 6.
///
/// ```
/// use nneinfact_density::{Core, Indices, TensorTrain};
///
/// // A 2 × 3 matrix of rank 1.
/// let train = TensorTrain::new(vec![
///     Core::new([1, 2, 1], vec![1.0, 2.0])?,
///     Core::new([1, 3, 1], vec![3.0, -4.0, 5.0])?,
/// ], 0.0)?;
/// assert_eq!(train.sizes(), [2, 3]);
/// assert_eq!(train.entries(&Indices::new(2, vec![1, 1, 0, 2])?)?, [-8.0, 5.0]);
/// assert!((train.log_norm() - 250f64.sqrt().ln()).abs() < 1e-12);
/// # Ok::<(), nneinfact_density::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TensorTrain {
    pub(crate) cores: Vec<Core>,
    pub(crate) log_scale: f64,
}

impl TensorTrain {
    /// A train of given cores and scale.
    ///
    /// # Errors
    ///
    /// If there is no core, neighbours differ in the rank of the bond between them, the outer ranks
    /// are not 1, or an entry or the scale is not finite.
    pub fn new(cores: Vec<Core>, log_scale: f64) -> Result<TensorTrain> {
        let (Some(first), Some(last)) = (cores.first(), cores.last()) else {
            return Err(Error::Shape {
                what: "the train".into(),
                found: "no core".into(),
                expected: "at least one".into(),
            });
        };
        if first.left() != 1 || last.right() != 1 {
            let (side, rank, k) = if first.left() == 1 {
                ("right", last.right(), cores.len() - 1)
            } else {
                ("left", first.left(), 0)
            };
            return Err(Error::Shape {
                what: format!("core {k}"),
                found: format!("rank {rank} to the {side}"),
                expected: "1, as the train ends there".into(),
            });
        }
        for (k, pair) in cores.windows(2).enumerate() {
            if pair[0].right() != pair[1].left() {
                return Err(Error::Shape {
                    what: format!("core {}", k + 1),
                    found: format!("rank {} to the left", pair[1].left()),
                    expected: format!("{}, the rank of core {k} to the right", pair[0].right()),
                });
            }
        }
        for (k, core) in cores.iter().enumerate() {
            core.check_finite(&format!("core {k}"))?;
        }
        if !log_scale.is_finite() {
            return Err(Error::Numeric(format!(
                "the logarithm of the train's scale is {log_scale}; it has to be finite"
            )));
        }
        Ok(TensorTrain { cores, log_scale })
    }

    /// The cores.
    #[must_use]
    pub fn cores(&self) -> &[Core] {
        &self.cores
    }

    /// The cores and the logarithm of the scale.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Core>, f64) {
        (self.cores, self.log_scale)
    }

    /// The logarithm of the number that the product of the cores is to be multiplied by.
    #[must_use]
    pub fn log_scale(&self) -> f64 {
        self.log_scale
    }

    /// How many modes the tensor has.
    #[must_use]
    pub fn order(&self) -> usize {
        self.cores.len()
    }

    /// The sizes of the modes.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        self.cores.iter().map(Core::size).collect()
    }

    /// The ranks of the bonds between neighbouring cores, one fewer than there are cores.
    #[must_use]
    pub fn ranks(&self) -> Vec<usize> {
        self.cores[1..].iter().map(Core::left).collect()
    }

    /// Signs and logarithms of absolute values of entries: never an overflow. An entry that is zero
    /// has sign 0 and logarithm −∞.
    ///
    /// # Errors
    ///
    /// If a tuple lies outside the tensor.
    pub fn log_entries(&self, indices: &Indices) -> Result<Vec<(f64, f64)>> {
        indices.check(&self.sizes(), "the indices")?;
        let order = self.order();
        Ok(indices
            .data()
            .par_chunks(ROWS * order)
            .flat_map_iter(|rows| rows.chunks_exact(order).map(|row| self.log_entry(row)))
            .collect())
    }

    /// Entries at index tuples.
    ///
    /// # Errors
    ///
    /// If a tuple lies outside the tensor. Entries beyond double precision become infinite or 0;
    /// [`log_entries`](Self::log_entries) has them all.
    pub fn entries(&self, indices: &Indices) -> Result<Vec<f64>> {
        indices.check(&self.sizes(), "the indices")?;
        Ok(self.values_at(indices))
    }

    /// Entries at index tuples that lie inside the tensor.
    pub(crate) fn values_at(&self, indices: &Indices) -> Vec<f64> {
        let order = self.order();
        // The scale as a power of two times a factor near 1, so that nothing overflows on the way.
        let twos = (self.log_scale / LN_2).round();
        let factor = (self.log_scale - twos * LN_2).exp();
        let value = |row| {
            let (x, e) = self.entry_parts(row);
            let e = (e as f64 + twos).clamp(-1e9, 1e9);
            linalg::scale2(x * factor, e as i32)
        };
        indices
            .data()
            .par_chunks(ROWS * order)
            .flat_map_iter(|rows| rows.chunks_exact(order).map(value))
            .collect()
    }

    /// One entry without the scale, as x·2^e.
    fn entry_parts(&self, row: &[usize]) -> (f64, i64) {
        let (mut v, mut next) = (vec![1.0], Vec::new());
        let mut exponent = 0i64;
        for (core, &i) in self.cores.iter().zip(row) {
            core.step(&v, i, &mut next);
            std::mem::swap(&mut v, &mut next);
            exponent += i64::from(linalg::take_exponent(&mut v));
        }
        (v[0], exponent)
    }

    /// Sign and logarithm of one entry.
    pub(crate) fn log_entry(&self, row: &[usize]) -> (f64, f64) {
        let (x, e) = self.entry_parts(row);
        signed_log(x, e, self.log_scale)
    }

    /// All entries in C order.
    ///
    /// # Errors
    ///
    /// If there are more than 10⁷.
    pub fn to_dense(&self) -> Result<Vec<f64>> {
        let sizes = self.sizes();
        let entries = sizes.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
        let Some(entries) = entries.filter(|&n| n <= TABLE_LIMIT) else {
            return Err(Error::Memory {
                what: "the whole tensor".into(),
                needed: entries.map_or(u64::MAX, |n| 8 * n as u64),
                available: 8 * TABLE_LIMIT as u64,
                help: "ask for entries or marginals".into(),
            });
        };
        let mut all = Vec::with_capacity(entries * sizes.len());
        let mut tuple = vec![0; sizes.len()];
        loop {
            all.extend_from_slice(&tuple);
            if !advance(&mut tuple, &sizes) {
                break;
            }
        }
        let indices = Indices::raw(sizes.len(), all);
        self.entries(&indices)
    }

    /// Cores of equal Frobenius norms, and the logarithm of the scale that makes them the same
    /// tensor with those norms 1. Needs cores that are not zero.
    pub(crate) fn unit_cores(&self) -> Option<(Vec<Core>, f64)> {
        let mut log = self.log_scale;
        let mut cores = self.cores.clone();
        for core in &mut cores {
            let norm = core.norm();
            if norm == 0.0 {
                return None;
            }
            // Twice, as the reciprocal of a subnormal number overflows.
            let e = linalg::exponent(norm);
            let m = linalg::scale2(norm, -e);
            core.data_mut().iter_mut().for_each(|x| *x = linalg::scale2(*x, -e) / m);
            log += norm.ln();
        }
        Some((cores, log))
    }

    /// The same tensor with the logarithm `log` of its scale put into the cores, in equal parts.
    pub(crate) fn spread(cores: &mut [Core], log: f64) {
        let factor = (log / cores.len() as f64).exp();
        for core in cores {
            core.data_mut().iter_mut().for_each(|x| *x *= factor);
        }
    }

    /// The same tensor with cores of equal Frobenius norms, all of the scale in them. A zero tensor
    /// stays as it is.
    ///
    /// # Errors
    ///
    /// If the cores would leave double precision: a tensor of few modes with an extreme scale.
    pub fn balanced(&self) -> Result<TensorTrain> {
        let Some((mut cores, log)) = self.unit_cores() else { return Ok(self.clone()) };
        let share = log / cores.len() as f64;
        if share.abs() > 600.0 {
            return Err(Error::Numeric(format!(
                "cores of equal norms would have norms e^{share:.0}, which double precision cannot \
                 hold; keep the scale apart"
            )));
        }
        TensorTrain::spread(&mut cores, log);
        Ok(TensorTrain { cores, log_scale: 0.0 })
    }

    /// Sign and logarithm of the absolute value of the sum of all entries.
    #[must_use]
    pub fn log_sum(&self) -> (f64, f64) {
        let mut v = vec![1.0];
        let mut exponent = 0i64;
        for core in &self.cores {
            let sum = core.sum_over_mode();
            v = linalg::product(
                linalg::view(&v, 1, core.left()),
                linalg::view(&sum, core.left(), core.right()),
            );
            exponent += i64::from(linalg::take_exponent(&mut v));
        }
        signed_log(v[0], exponent, self.log_scale)
    }
}

/// Sign and logarithm of x·2^e·exp(log).
pub(crate) fn signed_log(x: f64, e: i64, log: f64) -> (f64, f64) {
    if x == 0.0 {
        return (0.0, f64::NEG_INFINITY);
    }
    (x.signum(), x.abs().ln() + e as f64 * LN_2 + log)
}
