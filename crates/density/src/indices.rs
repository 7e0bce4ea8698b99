//! Index tuples: samples, and places where entries are asked for.

use crate::error::{Error, Result};

/// A list of index tuples of one length, such as samples: a matrix (rows × modes), row by row.
///
/// ```
/// use nneinfact_density::Indices;
///
/// let samples = Indices::new(3, vec![0, 1, 2, 1, 1, 0])?;
/// assert_eq!(samples.rows(), 2);
/// assert_eq!(samples.row(1), Some(&[1, 1, 0][..]));
/// # Ok::<(), nneinfact_density::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indices {
    order: usize,
    data: Vec<usize>,
}

impl Indices {
    /// Index tuples with `order` modes each, from their concatenation.
    ///
    /// # Errors
    ///
    /// If `order` is 0 or does not divide the number of indices.
    pub fn new(order: usize, data: Vec<usize>) -> Result<Indices> {
        if order == 0 || !data.len().is_multiple_of(order) {
            return Err(Error::Shape {
                what: "index tuples".into(),
                found: format!("{} indices in tuples of {order}", data.len()),
                expected: "whole tuples of at least one mode".into(),
            });
        }
        Ok(Indices { order, data })
    }

    pub(crate) fn raw(order: usize, data: Vec<usize>) -> Indices {
        debug_assert!(order > 0 && data.len().is_multiple_of(order));
        Indices { order, data }
    }

    /// How many modes a tuple has.
    #[must_use]
    pub fn order(&self) -> usize {
        self.order
    }

    /// How many tuples there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.data.len() / self.order
    }

    /// One tuple; `None` outside the list.
    #[must_use]
    pub fn row(&self, row: usize) -> Option<&[usize]> {
        (row < self.rows()).then(|| self.at(row))
    }

    pub(crate) fn at(&self, row: usize) -> &[usize] {
        &self.data[row * self.order..][..self.order]
    }

    /// All tuples, one after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[usize]> {
        self.data.chunks_exact(self.order)
    }

    /// The indices, tuple by tuple.
    #[must_use]
    pub fn data(&self) -> &[usize] {
        &self.data
    }

    /// The error if a tuple does not fit into a tensor of these sizes.
    pub(crate) fn check(&self, sizes: &[usize], what: &str) -> Result<()> {
        if self.order != sizes.len() {
            return Err(Error::Shape {
                what: what.into(),
                found: format!("tuples of {} indices", self.order),
                expected: format!("{}, one for each mode", sizes.len()),
            });
        }
        for (row, tuple) in self.iter().enumerate() {
            if let Some(mode) = (0..sizes.len()).find(|&k| tuple[k] >= sizes[k]) {
                return Err(Error::Observations(format!(
                    "{what}: row {row} has index {} in mode {mode}, which has {} values; indices \
                     count from 0, modes too",
                    tuple[mode], sizes[mode]
                )));
            }
        }
        Ok(())
    }
}

/// The error if sizes of modes cannot be those of a tensor.
pub(crate) fn check_sizes(sizes: &[usize]) -> Result<()> {
    if sizes.is_empty() {
        return Err(Error::Shape {
            what: "the tensor".into(),
            found: "no mode".into(),
            expected: "at least one".into(),
        });
    }
    match sizes.iter().position(|&n| n == 0) {
        None => Ok(()),
        Some(mode) => Err(Error::Shape {
            what: format!("mode {mode}"),
            found: "size 0".into(),
            expected: "a size of at least 1".into(),
        }),
    }
}

/// Weights of samples: given ones checked and normalised to sum 1, or equal ones.
pub(crate) fn normalised_weights(weights: Option<&[f64]>, rows: usize) -> Result<Vec<f64>> {
    if rows == 0 {
        return Err(Error::Observations("no sample; at least one is needed".into()));
    }
    let Some(weights) = weights else { return Ok(vec![1.0 / rows as f64; rows]) };
    if weights.len() != rows {
        return Err(Error::Shape {
            what: "the weights".into(),
            found: format!("{}", weights.len()),
            expected: format!("{rows}, one for each sample"),
        });
    }
    if let Some(row) = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
        return Err(Error::Observations(format!(
            "the weight of sample {row} is {}; weights have to be finite and not negative",
            weights[row]
        )));
    }
    let top = weights.iter().copied().fold(0.0, f64::max);
    if top == 0.0 {
        return Err(Error::Observations(
            "all weights are 0; at least one has to be positive".into(),
        ));
    }
    // Divided by the largest first: the sum of huge weights would overflow.
    let sum: f64 = weights.iter().map(|w| w / top).sum();
    Ok(weights.iter().map(|w| w / top / sum).collect())
}

/// Different tuples with the sums of their weights, in lexicographic order; those of weight 0 are
/// dropped. Whatever is summed over samples is then summed over fewer rows.
pub(crate) fn merged(samples: &Indices, weights: &[f64]) -> (Indices, Vec<f64>) {
    let mut order: Vec<usize> = (0..samples.rows()).filter(|&row| weights[row] > 0.0).collect();
    // Stable, so that weights are summed in the order of the samples.
    order.sort_by(|&a, &b| samples.at(a).cmp(samples.at(b)));
    let (mut data, mut sums) = (Vec::new(), Vec::new());
    let mut last = None;
    for row in order {
        let tuple = samples.at(row);
        if last == Some(tuple)
            && let Some(sum) = sums.last_mut()
        {
            *sum += weights[row];
        } else {
            data.extend_from_slice(tuple);
            sums.push(weights[row]);
            last = Some(tuple);
        }
    }
    (Indices::raw(samples.order(), data), sums)
}

/// Ranges that cut `rows` into at most `most` parts of whole blocks of `block` rows: sums over parts
/// are then the same for any number of threads.
pub(crate) fn parts(rows: usize, block: usize, most: usize) -> Vec<std::ops::Range<usize>> {
    let blocks = rows.div_ceil(block).div_ceil(most.max(1)).max(1);
    (0..rows)
        .step_by(blocks * block)
        .map(|start| start..(start + blocks * block).min(rows))
        .collect()
}

/// Runs over all tuples of a tensor of these sizes in C order.
pub(crate) fn advance(tuple: &mut [usize], sizes: &[usize]) -> bool {
    for k in (0..tuple.len()).rev() {
        tuple[k] += 1;
        if tuple[k] < sizes[k] {
            return true;
        }
        tuple[k] = 0;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_checked_and_normalised() {
        assert_eq!(normalised_weights(None, 4).unwrap(), vec![0.25; 4]);
        assert_eq!(normalised_weights(Some(&[1e308, 1e308]), 2).unwrap(), vec![0.5; 2]);
        for bad in [vec![], vec![1.0, -1.0], vec![0.0, 0.0], vec![f64::NAN, 1.0]] {
            assert!(normalised_weights(Some(&bad), 2).is_err(), "{bad:?}");
        }
        assert!(normalised_weights(None, 0).is_err());
    }

    #[test]
    fn repeated_tuples_are_merged() {
        let samples = Indices::new(2, vec![1, 0, 0, 1, 1, 0, 2, 2]).unwrap();
        let (rows, weights) = merged(&samples, &[0.5, 0.25, 0.125, 0.0]);
        assert_eq!(rows.data(), [0, 1, 1, 0]);
        assert_eq!(weights, [0.25, 0.625]);
    }

    #[test]
    fn parts_cover_all_rows() {
        for (rows, block, most) in [(1, 4, 8), (100, 4, 8), (8, 4, 1), (33, 4, 8)] {
            let parts = parts(rows, block, most);
            assert!(parts.len() <= most);
            let all: Vec<usize> = parts.into_iter().flatten().collect();
            assert_eq!(all, (0..rows).collect::<Vec<_>>());
        }
    }

    #[test]
    fn tuples_run_in_c_order() {
        let mut tuple = [0, 0];
        let mut all = vec![tuple];
        while advance(&mut tuple, &[2, 3]) {
            all.push(tuple);
        }
        assert_eq!(all, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]);
    }
}
