//! Coordinate descent where entries of a factor are bound to their neighbours: a quadratic penalty on
//! differences beside the quadratic form of every row.

use crate::loss::Differences;

/// The most cycles over all entries, in alternating directions: what one entry learns of its neighbours goes
/// on to theirs in the next step of the same cycle.
const CYCLES: usize = 12;

/// The objective of a factor whose axes lie in some order in memory: `½ θᵀ q θ − nᵀ θ` for every row θ over
/// its latent indices, and `Σ w (θ_i − θ_j)²`.
pub(super) struct Bound<'a> {
    /// n, as the entries lie.
    pub linear: &'a [f64],
    /// For every index of the batch, a square matrix.
    pub square: &'a [f64],
    /// Rows with the same matrix, one after another.
    pub rows: usize,
    pub latent: usize,
    /// What entries may be, from and to.
    pub bounds: [f64; 2],
    /// The axes with neighbours.
    pub axes: Vec<BoundAxis>,
}

/// The neighbours along an axis of the entries as they lie.
pub(super) struct BoundAxis {
    size: usize,
    stride: usize,
    neighbours: Vec<Vec<(usize, f64)>>,
}

impl BoundAxis {
    /// Those of a penalty, where `strides` has the entries from one index to the next along each axis of
    /// the factor.
    pub fn all(differences: &Differences, strides: &[usize]) -> Vec<BoundAxis> {
        let of = |axis: &crate::loss::DifferencedAxis| BoundAxis {
            size: axis.size,
            stride: strides[axis.axis],
            neighbours: axis.neighbours(),
        };
        differences.axes().iter().map(of).collect()
    }

    /// What the differences of an entry to its neighbours add to minus its derivative and to its curvature.
    fn terms(&self, theta: &[f64], entry: usize) -> [f64; 2] {
        let index = entry / self.stride % self.size;
        let first = entry - index * self.stride;
        let mut sums = [0.0; 2];
        for &(other, w) in &self.neighbours[index] {
            sums[0] += 2.0 * w * (theta[first + other * self.stride] - theta[entry]);
            sums[1] += 2.0 * w;
        }
        sums
    }
}

impl Bound<'_> {
    /// Moves every entry to its minimum, one after another, until steps are short beside those of the first
    /// cycle (`short`, a share).
    pub fn descend(&self, theta: &mut [f64], short: f64) {
        let mut first = 0.0;
        for cycle in 0..CYCLES {
            let mut moved = 0.0;
            match cycle % 2 {
                0 => (0..theta.len()).for_each(|entry| moved += self.step(theta, entry)),
                _ => (0..theta.len()).rev().for_each(|entry| moved += self.step(theta, entry)),
            }
            if cycle == 0 {
                first = moved;
            }
            if moved <= short * short * first {
                break;
            }
        }
    }

    /// Moves an entry to its minimum; gives the square of the step times the curvature.
    fn step(&self, theta: &mut [f64], entry: usize) -> f64 {
        let k = self.latent;
        let (row, s) = (entry / k, entry % k);
        let q = &self.square[row / self.rows * k * k + s * k..][..k];
        let own = q.iter().zip(&theta[row * k..][..k]).map(|(q, x)| q * x).sum::<f64>();
        let (mut descent, mut curvature) = (self.linear[entry] - own, q[s]);
        for axis in &self.axes {
            let [more, curved] = axis.terms(theta, entry);
            descent += more;
            curvature += curved;
        }
        let [lower, upper] = self.bounds;
        let x = theta[entry];
        if curvature > 0.0 {
            // As f64::max and min do, these take the bound for what is not a number.
            let step = (descent / curvature).max(lower - x).min(upper - x);
            theta[entry] = x + step;
            step * step * curvature
        } else {
            // No data depend on the entry; a penalty does all the same.
            theta[entry] = if descent < 0.0 { lower } else { x };
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::DifferencedAxis;

    /// Two rows of two entries each in a batch of two, all four rows being neighbours in a line.
    fn value(bound: &Bound<'_>, differences: &Differences, theta: &[f64]) -> f64 {
        let mut sum = differences.value(theta);
        for (row, theta) in theta.chunks(2).enumerate() {
            let q = &bound.square[row / 2 * 4..][..4];
            for (s, x) in theta.iter().enumerate() {
                sum -= bound.linear[row * 2 + s] * x;
                sum += 0.5 * x * (q[s * 2] * theta[0] + q[s * 2 + 1] * theta[1]);
            }
        }
        sum
    }

    #[test]
    fn it_ends_where_nothing_lowers_the_objective() {
        let mut differences = Differences::default();
        let edges = (1..4).map(|i| (i - 1, i, 0.8)).collect();
        differences.push(DifferencedAxis { axis: 0, size: 4, stride: 2, edges });
        let bound = Bound {
            linear: &[3.0, -1.0, 0.5, 2.0, 7.0, 0.1, 1.0, 1.0],
            square: &[2.0, 0.3, 0.3, 1.5, 1.0, 0.2, 0.2, 3.0],
            rows: 2,
            latent: 2,
            bounds: [0.0, 3.0],
            axes: BoundAxis::all(&differences, &[2, 1]),
        };
        let mut theta = vec![1.0; 8];
        let mut before = value(&bound, &differences, &theta);
        for _ in 0..40 {
            bound.descend(&mut theta, 1e-3);
            let after = value(&bound, &differences, &theta);
            assert!(after <= before + 1e-12, "{before} {after}");
            before = after;
        }
        assert!(theta.iter().all(|x| (0.0..=3.0).contains(x)), "{theta:?}");
        assert!(theta.contains(&0.0) && theta.contains(&3.0), "{theta:?}");
        for entry in 0..8 {
            for step in [1e-4, -1e-4] {
                let mut moved = theta.clone();
                moved[entry] = (moved[entry] + step).clamp(0.0, 3.0);
                let other = value(&bound, &differences, &moved);
                assert!(other >= before - 1e-12, "{entry} {step}: {other} {before}");
            }
        }
    }

    #[test]
    fn an_entry_that_only_its_neighbours_know_of_goes_to_them() {
        let mut differences = Differences::default();
        differences.push(DifferencedAxis {
            axis: 0,
            size: 3,
            stride: 1,
            edges: vec![(0, 1, 1.0), (1, 2, 3.0)],
        });
        let bound = Bound {
            linear: &[1e6, 0.0, 2e6],
            square: &[1e6, 0.0, 1e6],
            rows: 1,
            latent: 1,
            bounds: [0.0, f64::INFINITY],
            axes: BoundAxis::all(&differences, &[1]),
        };
        let mut theta = vec![1.0, 40.0, 2.0];
        (0..20).for_each(|_| bound.descend(&mut theta, 1e-6));
        // The weighted mean of 1 and 2.
        assert!((theta[1] - 1.75).abs() < 1e-4, "{theta:?}");
    }
}
