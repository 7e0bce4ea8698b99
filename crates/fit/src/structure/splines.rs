//! B-splines: fixed functions of the indices of a mode.

use ndarray::{Array2, Axis};

use nneinfact_core::error::{Error, Result};

/// Smooth functions of the indices of a mode: B-splines, which are not negative and add up to 1 at every
/// index. They are cubic, or of lower degree where they are fewer than 4.
///
/// ```
/// use ndarray::Axis;
/// use nneinfact::fit::Splines;
///
/// let splines = Splines::new(5).values(24)?;
/// assert_eq!(splines.dim(), (24, 5));
/// assert!(splines.sum_axis(Axis(1)).iter().all(|sum| (sum - 1.0).abs() < 1e-12));
/// // The last hour is followed by the first one.
/// let cyclic = Splines::new(6).cyclic().values(24)?;
/// assert!((cyclic[[23, 0]] - cyclic[[1, 0]]).abs() < 1e-12);
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splines {
    count: usize,
    cyclic: bool,
}

const DEGREE: usize = 3;

impl Splines {
    /// So many B-splines, at equal distances from the first index to the last.
    #[must_use]
    pub fn new(count: usize) -> Splines {
        Splines { count, cyclic: false }
    }

    /// The same for a mode whose last index is followed by the first, as hours of the day.
    #[must_use]
    pub fn cyclic(self) -> Splines {
        Splines { cyclic: true, ..self }
    }

    /// The functions, in columns, at the indices of a mode of this size.
    ///
    /// # Errors
    /// [`Error::Setting`] where there are fewer than 2 functions, or more than indices.
    pub fn values(self, size: usize) -> Result<Array2<f64>> {
        let Splines { count, cyclic } = self;
        if count < 2 || count > size {
            return Err(Error::Setting(format!(
                "a basis has from 2 functions to one for each of the mode's {size} indices, not {count}"
            )));
        }
        let mut values = Array2::zeros((size, count));
        for (i, mut row) in values.axis_iter_mut(Axis(0)).enumerate() {
            let found = match cyclic {
                true => periodic(i as f64 * count as f64 / size as f64, count),
                false => clamped(i as f64 / (size - 1).max(1) as f64, count),
            };
            row.iter_mut().zip(found).for_each(|(to, x)| *to = x);
            let sum: f64 = row.sum();
            row.mapv_inplace(|x| x / sum);
        }
        Ok(values)
    }
}

impl std::fmt::Display for Splines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "spline:{}{}", self.count, if self.cyclic { ",cyclic" } else { "" })
    }
}

/// Cubic B-splines around a circle of length `count`, their peaks at whole numbers, at x.
fn periodic(x: f64, count: usize) -> Vec<f64> {
    let cardinal = |t: f64| match t.abs() {
        t if t < 1.0 => 2.0 / 3.0 - t * t + 0.5 * t * t * t,
        t if t < 2.0 => (2.0 - t).powi(3) / 6.0,
        _ => 0.0,
    };
    let mut values = vec![0.0; count];
    let near = x.floor() as i64;
    for k in near - 2..=near + 3 {
        values[k.rem_euclid(count as i64) as usize] += cardinal(x - k as f64);
    }
    values
}

/// B-splines on [0, 1] whose knots at both ends are repeated, at x (Cox and de Boor's recursion).
fn clamped(x: f64, count: usize) -> Vec<f64> {
    let degree = DEGREE.min(count - 1);
    let spans = count - degree;
    let knot = |k: usize| (k.saturating_sub(degree) as f64 / spans as f64).min(1.0);
    let span = ((x * spans as f64) as usize).min(spans - 1) + degree;
    let mut values = vec![0.0; count + degree + 1];
    values[span] = 1.0;
    for d in 1..=degree {
        for k in span - d..=span {
            let ratio = |from: usize, value: f64| {
                let width = knot(from + d) - knot(from);
                if width > 0.0 && value > 0.0 { value / width } else { 0.0 }
            };
            values[k] = (x - knot(k)) * ratio(k, values[k])
                + (knot(k + d + 1) - x) * ratio(k + 1, values[k + 1]);
        }
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_not_negative_and_add_up_to_one() -> Result<()> {
        for (count, size) in [(2, 2), (2, 9), (3, 7), (4, 4), (5, 24), (12, 24), (24, 24)] {
            for basis in [Splines::new(count), Splines::new(count).cyclic()] {
                let values = basis.values(size)?;
                assert!(values.iter().all(|&x| x >= 0.0), "{basis} {values}");
                let sums = values.sum_axis(Axis(1));
                assert!(sums.iter().all(|x| (x - 1.0).abs() < 1e-12), "{basis} {sums}");
                assert!(values.sum_axis(Axis(0)).iter().all(|&x| x > 0.0), "{basis}");
            }
        }
        // The ends of what is not cyclic are the functions' own.
        let values = Splines::new(6).values(10)?;
        assert_eq!((values[[0, 0]], values[[9, 5]]), (1.0, 1.0));
        for count in [0, 1, 11] {
            assert!(Splines::new(count).values(10).is_err(), "{count}");
        }
        Ok(())
    }

    #[test]
    fn cubics_are_in_the_span_of_cubic_splines() -> Result<()> {
        // Greville's points: Σ_k ξ_k B_k(x) = x for clamped splines.
        let (count, size) = (7, 25);
        let values = Splines::new(count).values(size)?;
        let knot = |k: i64| ((k - 3) as f64 / 4.0).clamp(0.0, 1.0);
        for i in 0..size {
            let sum: f64 = (0..count)
                .map(|k| {
                    let greville: f64 = (1..=3).map(|d| knot((k + d) as i64)).sum::<f64>() / 3.0;
                    greville * values[[i, k]]
                })
                .sum();
            assert!((sum - i as f64 / 24.0).abs() < 1e-12, "{i} {sum}");
        }
        Ok(())
    }
}
