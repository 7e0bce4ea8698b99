//! One core of a train.

use crate::error::{Error, Result};
use crate::linalg;

/// One core of a train: an array of shape (left rank, size, right rank), in C order.
///
/// ```
/// use nneinfact_density::Core;
///
/// let core = Core::new([1, 2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!(core.get(0, 1, 2), Some(6.0));
/// # Ok::<(), nneinfact_density::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Core {
    left: usize,
    size: usize,
    right: usize,
    data: Vec<f64>,
}

impl Core {
    /// A core of shape `[left rank, size, right rank]` with its entries in C order.
    ///
    /// # Errors
    ///
    /// If the shape and the number of entries differ, a side of the shape is 0, or an entry is not
    /// finite.
    pub fn new(shape: [usize; 3], data: Vec<f64>) -> Result<Core> {
        let entries = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
        if shape.contains(&0) {
            return Err(Error::Shape {
                what: "a core".into(),
                found: format!("{shape:?}"),
                expected: "ranks and a size of at least 1".into(),
            });
        }
        if entries != Some(data.len()) {
            return Err(Error::Shape {
                what: "a core".into(),
                found: format!("{} entries", data.len()),
                expected: format!("the product of its shape {shape:?}"),
            });
        }
        let core = Core { left: shape[0], size: shape[1], right: shape[2], data };
        core.check_finite("a core")?;
        Ok(core)
    }

    /// A core without checks, from inside the crate.
    pub(crate) fn raw(left: usize, size: usize, right: usize, data: Vec<f64>) -> Core {
        debug_assert_eq!(left * size * right, data.len());
        Core { left, size, right, data }
    }

    /// A core whose entries are a function of (left state, index, right state).
    pub(crate) fn from_fn(
        [left, size, right]: [usize; 3],
        f: impl Fn(usize, usize, usize) -> f64,
    ) -> Core {
        let mut data = Vec::with_capacity(left * size * right);
        for a in 0..left {
            for i in 0..size {
                data.extend((0..right).map(|b| f(a, i, b)));
            }
        }
        Core { left, size, right, data }
    }

    /// The error if an entry is not finite.
    pub(crate) fn check_finite(&self, what: &str) -> Result<()> {
        if linalg::largest(&self.data).is_finite() {
            return Ok(());
        }
        match self.data.iter().position(|x| !x.is_finite()) {
            None => Ok(()),
            Some(at) => Err(Error::Numeric(format!(
                "{what} holds {} at index {:?}; entries have to be finite",
                self.data[at],
                self.index_of(at)
            ))),
        }
    }

    /// The index (left state, index, right state) of a place in C order.
    pub(crate) fn index_of(&self, at: usize) -> [usize; 3] {
        [at / (self.size * self.right), at / self.right % self.size, at % self.right]
    }

    /// The shape `[left rank, size, right rank]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        [self.left, self.size, self.right]
    }

    /// The rank of the bond to the left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// The size of the mode.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The rank of the bond to the right.
    #[must_use]
    pub fn right(&self) -> usize {
        self.right
    }

    /// The entries in C order.
    #[must_use]
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    pub(crate) fn data_mut(&mut self) -> &mut [f64] {
        &mut self.data
    }

    /// The entries in C order.
    #[must_use]
    pub fn into_data(self) -> Vec<f64> {
        self.data
    }

    /// The entry of left state `a`, index `i` and right state `b`; `None` outside the core.
    #[must_use]
    pub fn get(&self, a: usize, i: usize, b: usize) -> Option<f64> {
        let inside = a < self.left && i < self.size && b < self.right;
        inside.then(|| self.at(a, i, b))
    }

    pub(crate) fn at(&self, a: usize, i: usize, b: usize) -> f64 {
        self.data[(a * self.size + i) * self.right + b]
    }

    /// The row of right states for a left state and an index.
    pub(crate) fn row(&self, a: usize, i: usize) -> &[f64] {
        let start = (a * self.size + i) * self.right;
        &self.data[start..start + self.right]
    }

    /// `w · core[:, i, :]` for a vector over the left states, into one over the right states.
    pub(crate) fn step(&self, w: &[f64], i: usize, out: &mut Vec<f64>) {
        out.clear();
        out.resize(self.right, 0.0);
        for (a, &w) in w.iter().enumerate() {
            if w != 0.0 {
                out.iter_mut().zip(self.row(a, i)).for_each(|(out, x)| *out += w * x);
            }
        }
    }

    /// `core[:, i, :] · w` for a vector over the right states, into one over the left states.
    pub(crate) fn step_back(&self, w: &[f64], i: usize, out: &mut Vec<f64>) {
        out.clear();
        out.extend(
            (0..self.left).map(|a| self.row(a, i).iter().zip(w).map(|(x, w)| x * w).sum::<f64>()),
        );
    }

    /// The matrix (left × right) of sums over the mode, with a weight for each index.
    pub(crate) fn weighted_sum(&self, weights: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut out = vec![0.0; self.left * self.right];
        for (a, out) in out.chunks_exact_mut(self.right).enumerate() {
            for i in 0..self.size {
                let w = weights(i);
                out.iter_mut().zip(self.row(a, i)).for_each(|(out, x)| *out += w * x);
            }
        }
        out
    }

    /// The matrix (left × right) of sums over the mode.
    pub(crate) fn sum_over_mode(&self) -> Vec<f64> {
        self.weighted_sum(|_| 1.0)
    }

    /// The Frobenius norm.
    pub(crate) fn norm(&self) -> f64 {
        linalg::norm(&self.data)
    }

    /// The slice of one index, a core of size 1.
    pub(crate) fn slice(&self, i: usize) -> Core {
        Core::from_fn([self.left, 1, self.right], |a, _, b| self.at(a, i, b))
    }
}
