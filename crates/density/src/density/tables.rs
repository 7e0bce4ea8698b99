//! Marginals and mutual information.

use rayon::prelude::*;

use super::{Density, times};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::train::TABLE_LIMIT;

/// A table of probabilities over some modes, in C order.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    modes: Vec<usize>,
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Table {
    /// The modes, increasing.
    #[must_use]
    pub fn modes(&self) -> &[usize] {
        &self.modes
    }

    /// Their sizes.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The probabilities, in C order.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The probabilities, in C order.
    #[must_use]
    pub fn into_values(self) -> Vec<f64> {
        self.values
    }
}

impl Density {
    /// The joint distribution of some modes, given in increasing order. Of no mode it is the number 1.
    ///
    /// # Errors
    ///
    /// If a mode is not there or the modes do not increase, or the table would have more than 10⁷
    /// entries.
    ///
    /// ```
    /// use nneinfact_density::{Density, NonnegativeTrain};
    ///
    /// let density = Density::new(&NonnegativeTrain::random(&[2, 3, 4], &[2, 2], 1)?)?;
    /// let table = density.marginal(&[0, 2])?;
    /// assert_eq!(table.shape(), [2, 4]);
    /// assert!((table.values().iter().sum::<f64>() - 1.0).abs() < 1e-12);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    pub fn marginal(&self, modes: &[usize]) -> Result<Table> {
        modes.iter().try_for_each(|&mode| self.check_mode(mode))?;
        if let Some(pair) = modes.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(Error::Setting(format!(
                "the modes of a marginal have to increase: {} comes before {}",
                pair[0], pair[1]
            )));
        }
        let sizes = self.sizes();
        let shape: Vec<usize> = modes.iter().map(|&mode| sizes[mode]).collect();
        let entries = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
        if entries.is_none_or(|n| n > TABLE_LIMIT) {
            return Err(Error::Memory {
                what: format!("the marginal of {} modes", modes.len()),
                needed: entries.map_or(u64::MAX, |n| (n as u64).saturating_mul(8)),
                available: 8 * TABLE_LIMIT as u64,
                help: "ask for fewer modes".into(),
            });
        }
        // For each value of the modes so far, probabilities of the states.
        let mut table = vec![1.0];
        for (k, core) in self.markov.cores.iter().enumerate() {
            let r = core.right();
            let rows = table.chunks_exact(core.left());
            table = if modes.contains(&k) {
                rows.flat_map(|row| times(row, core.data(), core.size() * r)).collect()
            } else {
                let sum = core.sum_over_mode();
                rows.flat_map(|row| times(row, &sum, r)).collect()
            };
        }
        normalise(&mut table);
        Ok(Table { modes: modes.to_vec(), shape, values: table })
    }

    /// The distribution of each mode by itself: O(d n r²) for all of them.
    ///
    /// ```
    /// use nneinfact_density::{Density, NonnegativeTrain};
    ///
    /// let density = Density::new(&NonnegativeTrain::random(&[2, 3, 4], &[2, 2], 1)?)?;
    /// assert_eq!(density.single_marginals()[2], density.marginal(&[2])?.values());
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    #[must_use]
    pub fn single_marginals(&self) -> Vec<Vec<f64>> {
        let states = self.left_states();
        let cores = self.markov.cores.iter().zip(&states);
        cores
            .map(|(core, state)| {
                let joint = times(state, core.data(), core.size() * core.right());
                let mut out: Vec<f64> =
                    joint.chunks_exact(core.right()).map(|row| row.iter().sum()).collect();
                normalise(&mut out);
                out
            })
            .collect()
    }

    /// The mutual information of every two modes, in nats: a symmetric matrix, row by row, with the
    /// entropies of single modes on its diagonal. O(d² n r²).
    ///
    /// ```
    /// use nneinfact_density::{Density, NonnegativeTrain};
    ///
    /// let density = Density::new(&NonnegativeTrain::random(&[2, 3, 4], &[2, 2], 1)?)?;
    /// let information = density.mutual_information();
    /// assert_eq!(information.len(), 9);
    /// assert!(information.iter().all(|&x| x >= 0.0));
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    #[must_use]
    pub fn mutual_information(&self) -> Vec<f64> {
        let d = self.order();
        let (states, singles) = (self.left_states(), self.single_marginals());
        let sums: Vec<Vec<f64>> = self.markov.cores.iter().map(Core::sum_over_mode).collect();
        let ends: Vec<Vec<f64>> = self.markov.cores.iter().map(index_given_state).collect();
        let rows: Vec<Vec<f64>> = (0..d)
            .into_par_iter()
            .map(|k| {
                let core = &self.markov.cores[k];
                // For each index of mode k, probabilities of the states right of it.
                let mut joint = times(&states[k], core.data(), core.size() * core.right());
                let mut row = Vec::with_capacity(d - k);
                row.push(entropy(&singles[k]));
                for l in k + 1..d {
                    let other = &self.markov.cores[l];
                    let rows = joint.chunks_exact(other.left());
                    let pair: Vec<f64> =
                        rows.flat_map(|row| times(row, &ends[l], other.size())).collect();
                    row.push(information(pair, &singles[k], &singles[l]));
                    let rows = joint.chunks_exact(other.left());
                    joint = rows.flat_map(|row| times(row, &sums[l], other.right())).collect();
                }
                row
            })
            .collect();
        let mut out = vec![0.0; d * d];
        for (k, row) in rows.iter().enumerate() {
            for (step, &x) in row.iter().enumerate() {
                out[k * d + k + step] = x;
                out[(k + step) * d + k] = x;
            }
        }
        out
    }
}

/// The matrix (left state × index) of probabilities of the index.
pub(super) fn index_given_state(core: &Core) -> Vec<f64> {
    core.data().chunks_exact(core.right()).map(|row| row.iter().sum()).collect()
}

/// Divided by the sum, which is 1 but for rounding.
fn normalise(table: &mut [f64]) {
    let sum: f64 = table.iter().sum();
    if sum > 0.0 {
        table.iter_mut().for_each(|x| *x /= sum);
    }
}

fn entropy(p: &[f64]) -> f64 {
    p.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum::<f64>().max(0.0)
}

/// The mutual information of a joint table (rows × columns) with its marginals.
fn information(mut joint: Vec<f64>, rows: &[f64], cols: &[f64]) -> f64 {
    normalise(&mut joint);
    let mut sum = 0.0;
    for (joint, row) in joint.chunks_exact(cols.len()).zip(rows) {
        for (&p, col) in joint.iter().zip(cols) {
            if p > 0.0 {
                sum += p * (p / row / col).ln();
            }
        }
    }
    sum.max(0.0)
}
