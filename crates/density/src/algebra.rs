//! Norms, inner products, sums and rounding of trains.

use faer::Mat;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::linalg::{self, product, product_nn, product_nt, product_tn, view};
use crate::train::{TensorTrain, signed_log};

impl TensorTrain {
    /// The error if two trains have different sizes.
    fn check_same_sizes(&self, other: &TensorTrain) -> Result<()> {
        if self.sizes() == other.sizes() {
            return Ok(());
        }
        Err(Error::Shape {
            what: "the second train".into(),
            found: format!("sizes {:?}", other.sizes()),
            expected: format!("those of the first, {:?}", self.sizes()),
        })
    }

    /// The logarithm of the Frobenius norm, by QR from the left: accurate to a few units in the last
    /// place of the norm even where the sum of squares cancels. −∞ for a zero tensor.
    #[must_use]
    pub fn log_norm(&self) -> f64 {
        let Some((cores, log)) = self.unit_cores() else { return f64::NEG_INFINITY };
        log_norm_of(&cores) + log
    }

    /// Sign and logarithm of the absolute value of the inner product `⟨self, other⟩`.
    ///
    /// # Errors
    ///
    /// If the sizes differ.
    ///
    /// ```
    /// use nneinfact_density::{Core, TensorTrain};
    ///
    /// let a = TensorTrain::new(vec![Core::new([1, 2, 1], vec![1.0, 2.0])?], 1000.0)?;
    /// let (sign, log) = a.log_inner(&a)?;
    /// assert_eq!(sign, 1.0);
    /// assert!((log - (2000.0 + 5f64.ln())).abs() < 1e-9);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    pub fn log_inner(&self, other: &TensorTrain) -> Result<(f64, f64)> {
        self.check_same_sizes(other)?;
        let (mut m, mut exponent) = (vec![1.0], 0i64);
        for (a, b) in self.cores.iter().zip(&other.cores) {
            m = contract_left(&m, a, b);
            exponent += i64::from(linalg::take_exponent(&mut m));
        }
        Ok(signed_log(m[0], exponent, self.log_scale + other.log_scale))
    }

    /// `‖other − self‖² / ‖self‖²`, by QR of the difference and so without cancellation: down to
    /// about 1e-30 it has a meaning. NTT.md, section 4.5.
    ///
    /// # Errors
    ///
    /// If the sizes differ, or this tensor is zero.
    ///
    /// ```
    /// use nneinfact_density::{Core, TensorTrain};
    ///
    /// let a = TensorTrain::new(vec![Core::new([1, 2, 1], vec![3.0, 4.0])?], 0.0)?;
    /// let b = TensorTrain::new(vec![Core::new([1, 2, 1], vec![3.0, 4.0 + 5e-12])?], 0.0)?;
    /// assert!((a.relative_squared_distance(&b)? / 1e-24 - 1.0).abs() < 1e-3);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    pub fn relative_squared_distance(&self, other: &TensorTrain) -> Result<f64> {
        let norm = self.log_norm();
        if norm == f64::NEG_INFINITY {
            return Err(Error::Numeric(
                "the tensor is zero, so no distance is relative to it".into(),
            ));
        }
        Ok((2.0 * (self.minus(other)?.log_norm() - norm)).exp())
    }

    /// The sum of two tensors: a train whose ranks are the sums of theirs.
    ///
    /// # Errors
    ///
    /// If the sizes differ.
    pub fn plus(&self, other: &TensorTrain) -> Result<TensorTrain> {
        self.combined(other, 1.0)
    }

    /// The difference of two tensors: a train whose ranks are the sums of theirs.
    ///
    /// # Errors
    ///
    /// If the sizes differ.
    pub fn minus(&self, other: &TensorTrain) -> Result<TensorTrain> {
        self.combined(other, -1.0)
    }

    /// `self + sign · other`, with the larger of the two scales taken out.
    fn combined(&self, other: &TensorTrain, sign: f64) -> Result<TensorTrain> {
        self.check_same_sizes(other)?;
        let (mut first, mut second) = match (self.unit_cores(), other.unit_cores()) {
            (Some(a), Some(b)) => (a, b),
            (Some(_), None) => return Ok(self.clone()),
            (None, Some(_)) => return other.scaled(sign),
            (None, None) => return Ok(self.clone()),
        };
        // Unit cores may have a tensor far smaller than 1; scaled by its norm it is as large as it
        // says.
        let log = f64::max(first.1, second.1);
        TensorTrain::spread(&mut first.0, first.1 - log);
        TensorTrain::spread(&mut second.0, second.1 - log);
        let last = first.0.len() - 1;
        let blocks = first.0.iter().zip(&second.0).enumerate();
        let cores = blocks.map(|(k, (a, b))| {
            let sign = if k == 0 { sign } else { 1.0 };
            block_diagonal(a, b, sign, k == 0, k == last)
        });
        Ok(TensorTrain { cores: cores.collect(), log_scale: log })
    }

    /// The tensor times a number, which goes into the first core.
    ///
    /// # Errors
    ///
    /// If an entry of that core would not be finite.
    pub fn scaled(&self, factor: f64) -> Result<TensorTrain> {
        let mut out = self.clone();
        out.cores[0].data_mut().iter_mut().for_each(|x| *x *= factor);
        out.cores[0].check_finite(&format!("core 0, times {factor},"))?;
        Ok(out)
    }

    /// A train of lower ranks near this one: QR from the right, truncated singular value
    /// decompositions from the left. The relative Frobenius error is at most `tol`, unless
    /// `max_rank` allows no more. NTT.md, section 2; Oseledets 2011.
    ///
    /// # Errors
    ///
    /// If `tol` is negative or not a number, `max_rank` is 0, or a decomposition fails.
    ///
    /// ```
    /// use nneinfact_density::{Core, TensorTrain};
    ///
    /// let ones = |shape: [usize; 3]| Core::new(shape, vec![1.0; shape.iter().product()]);
    /// let train = TensorTrain::new(vec![ones([1, 2, 4])?, ones([4, 3, 1])?], 0.0)?;
    /// let rounded = train.rounded(1e-12, None)?;
    /// assert_eq!(rounded.ranks(), [1]);
    /// assert!(train.relative_squared_distance(&rounded)? < 1e-28);
    /// # Ok::<(), nneinfact_density::Error>(())
    /// ```
    pub fn rounded(&self, tol: f64, max_rank: Option<usize>) -> Result<TensorTrain> {
        if !(tol >= 0.0 && tol.is_finite()) {
            return Err(Error::Setting(format!(
                "the tolerance of rounding is {tol}; it has to be 0 or positive"
            )));
        }
        if max_rank == Some(0) {
            return Err(Error::Setting("the largest rank is 0; it has to be at least 1".into()));
        }
        let Some((mut cores, mut log)) = self.unit_cores() else { return Ok(self.clone()) };
        orthogonalise_from_right(&mut cores, &mut log);
        let share = tol / ((cores.len() - 1).max(1) as f64).sqrt();
        for k in 0..cores.len() - 1 {
            let [a, n, b] = cores[k].shape();
            let svd = linalg::svd(cores[k].data(), a * n, b, &format!("core {k}"))?;
            let r = rank_of(&svd.s, share, max_rank.unwrap_or(usize::MAX));
            let left = linalg::row_major(svd.u.as_ref().subcols(0, r));
            let rest = Mat::from_fn(r, b, |i, j| svd.s[i] * svd.v[(j, i)]);
            let next = &cores[k + 1];
            let [_, m, c] = next.shape();
            let moved = product(rest.as_ref(), view(next.data(), b, m * c));
            cores[k] = Core::raw(a, n, r, left);
            cores[k + 1] = Core::raw(r, m, c, moved);
        }
        Ok(TensorTrain { cores, log_scale: log })
    }
}

/// QR from the right: all cores but the first get orthonormal rows, the first is scaled to norm 1.
fn orthogonalise_from_right(cores: &mut [Core], log: &mut f64) {
    for k in (1..cores.len()).rev() {
        let [a, n, b] = cores[k].shape();
        let (q, r) = linalg::qr(view(cores[k].data(), a, n * b).transpose());
        let rank = q.ncols();
        cores[k] = Core::raw(rank, n, b, linalg::row_major(q.transpose()));
        let before = &cores[k - 1];
        let [c, m, _] = before.shape();
        let upper = Mat::from_fn(a, rank, |i, j| if j <= i { r[(j, i)] } else { 0.0 });
        let mut moved = product(view(before.data(), c * m, a), upper.as_ref());
        *log += f64::from(linalg::take_exponent(&mut moved)) * std::f64::consts::LN_2;
        cores[k - 1] = Core::raw(c, m, rank, moved);
    }
}

/// The logarithm of the norm of the product of cores, by QR from the left.
fn log_norm_of(cores: &[Core]) -> f64 {
    let (mut c, mut rows, mut exponent) = (vec![1.0], 1, 0i64);
    for core in cores {
        let [a, n, b] = core.shape();
        let t = product(view(&c, rows, a), view(core.data(), a, n * b));
        let r = linalg::qr_r(view(&t, rows * n, b));
        rows = r.nrows();
        c = linalg::row_major(r.as_ref());
        exponent += i64::from(linalg::take_exponent(&mut c));
    }
    match linalg::norm(&c) {
        0.0 => f64::NEG_INFINITY,
        norm => norm.ln() + exponent as f64 * std::f64::consts::LN_2,
    }
}

/// The core of a sum: both side by side at the ends, block diagonal between them.
fn block_diagonal(a: &Core, b: &Core, sign: f64, first: bool, last: bool) -> Core {
    let [al, n, ar] = a.shape();
    let [bl, _, br] = b.shape();
    let (row, left) = if first { (0, 1) } else { (al, al + bl) };
    let (col, right) = if last { (0, 1) } else { (ar, ar + br) };
    Core::from_fn([left, n, right], |p, i, q| {
        let mut x = 0.0;
        if p < al && q < ar {
            x += a.at(p, i, q);
        }
        if p >= row && q >= col {
            x += sign * b.at(p - row, i, q - col);
        }
        x
    })
}

/// `Σ_i A[:,i,:]ᵀ M B[:,i,:]` for a matrix M (left of A × left of B).
pub(crate) fn contract_left(m: &[f64], a: &Core, b: &Core) -> Vec<f64> {
    let [al, n, ar] = a.shape();
    let [bl, _, br] = b.shape();
    let t = product_tn(m, a.data(), [bl, al, n * ar]);
    product_tn(&t, b.data(), [ar, bl * n, br])
}

/// `Σ_i A[:,i,:] M B[:,i,:]ᵀ` for a matrix M (right of A × right of B).
pub(crate) fn contract_right(m: &[f64], a: &Core, b: &Core) -> Vec<f64> {
    let [al, n, ar] = a.shape();
    let [bl, _, br] = b.shape();
    let t = product_nn(a.data(), m, [al * n, ar, br]);
    product_nt(&t, b.data(), [al, n * br, bl])
}

/// The smallest r ≥ 1 whose remaining singular values have a norm of at most `tol` times that of
/// all, at most `max_rank`.
pub(crate) fn rank_of(s: &[f64], tol: f64, max_rank: usize) -> usize {
    let mut tail = vec![0.0; s.len() + 1];
    // Squares of the values over the largest, summed from the small end.
    let top = s.first().copied().filter(|&x| x > 0.0).unwrap_or(1.0);
    for r in (0..s.len()).rev() {
        tail[r] = tail[r + 1] + (s[r] / top).powi(2);
    }
    let enough = tail.iter().position(|t| t.sqrt() <= tol * tail[0].sqrt()).unwrap_or(s.len());
    enough.min(max_rank).min(s.len()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_by_what_is_left() {
        assert_eq!(rank_of(&[1.0, 0.1, 0.01], 0.0, 9), 3);
        assert_eq!(rank_of(&[1.0, 0.1, 0.01], 0.02, 9), 2);
        assert_eq!(rank_of(&[1.0, 0.1, 0.01], 2.0, 9), 1);
        assert_eq!(rank_of(&[1.0, 0.1, 0.0], 0.0, 9), 2);
        assert_eq!(rank_of(&[1.0, 0.1, 0.01], 0.0, 2), 2);
        assert_eq!(rank_of(&[0.0, 0.0], 1e-8, 9), 1);
    }
}
