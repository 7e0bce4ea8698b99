//! Penalties on differences between neighbouring entries of a factor.

/// A penalty `Σ w (θ_i − θ_j)²` on differences between neighbours along axes of a factor, at every index of
/// its other axes. Entries are in C order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Differences {
    axes: Vec<DifferencedAxis>,
}

/// The neighbours along an axis of a factor.
#[derive(Clone, Debug, PartialEq)]
pub struct DifferencedAxis {
    /// Which axis it is.
    pub axis: usize,
    /// How many indices it has.
    pub size: usize,
    /// The entries from one of its indices to the next.
    pub stride: usize,
    /// Two indices and the weight w of their difference.
    pub edges: Vec<(usize, usize, f64)>,
}

impl DifferencedAxis {
    /// For every index its neighbours, with the weights.
    #[must_use]
    pub fn neighbours(&self) -> Vec<Vec<(usize, f64)>> {
        let mut all = vec![Vec::new(); self.size];
        for &(i, j, w) in &self.edges {
            all[i].push((j, w));
            all[j].push((i, w));
        }
        all
    }
}

impl Differences {
    /// One more axis.
    pub fn push(&mut self, axis: DifferencedAxis) {
        self.axes.push(axis);
    }

    /// The axes with neighbours.
    #[must_use]
    pub fn axes(&self) -> &[DifferencedAxis] {
        &self.axes
    }

    /// Whether nothing costs anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.axes.iter().all(|axis| axis.edges.iter().all(|&(_, _, w)| w == 0.0))
    }

    /// The same penalty on θ, written for θ / `unit`, the objective being divided by `scale`.
    #[must_use]
    pub fn rescaled(mut self, unit: f64, scale: f64) -> Differences {
        let edges = self.axes.iter_mut().flat_map(|axis| &mut axis.edges);
        edges.for_each(|(_, _, w)| *w *= unit * unit / scale);
        self
    }

    /// Calls with every pair of neighbouring entries and the weight of their difference.
    fn each(&self, entries: usize, mut call: impl FnMut(usize, usize, f64)) {
        for axis in &self.axes {
            for before in 0..entries / (axis.size * axis.stride).max(1) {
                for &(i, j, w) in &axis.edges {
                    let [i, j] = [i, j].map(|k| (before * axis.size + k) * axis.stride);
                    (0..axis.stride).for_each(|after| call(i + after, j + after, w));
                }
            }
        }
    }

    /// What the differences cost.
    #[must_use]
    pub fn value(&self, theta: &[f64]) -> f64 {
        let mut sum = 0.0;
        self.each(theta.len(), |i, j, w| sum += w * (theta[i] - theta[j]) * (theta[i] - theta[j]));
        sum
    }

    /// For each entry a and b such that, λ being its factor of change, the penalty is bounded by a convex
    /// function of all λ whose derivative (over θ) is `b λ − a` in each: a difference is bounded by squares
    /// of its own two entries, `(x − y)² ≤ 2 (x − m)² + 2 (y − m)²` with m the mean of both as they are.
    #[must_use]
    pub fn parts(&self, theta: &[f64]) -> Vec<[f64; 2]> {
        let mut parts = vec![[0.0; 2]; theta.len()];
        self.each(theta.len(), |i, j, w| {
            let both = 2.0 * w * (theta[i] + theta[j]);
            for entry in [i, j] {
                parts[entry][0] += both;
                parts[entry][1] += 4.0 * w * theta[entry];
            }
        });
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Circles along the axes of a factor of 3 × 2 × 4 entries.
    fn circles(weight: f64) -> Differences {
        let mut all = Differences::default();
        for (axis, size, stride) in [(0, 3, 8), (2, 4, 1)] {
            let edges = (0..size).map(|i| (i, (i + 1) % size, weight)).collect();
            all.push(DifferencedAxis { axis, size, stride, edges });
        }
        all
    }

    fn theta() -> Vec<f64> {
        (0..24).map(|n| 0.1 + ((n * 7) % 11) as f64).collect()
    }

    #[test]
    fn parts_bound_the_penalty_and_touch_it() {
        let (penalty, theta) = (circles(0.7), theta());
        let parts = penalty.parts(&theta);
        for turn in 1..20 {
            let change = |n: usize| 1.0 + ((n * turn) % 5) as f64;
            let moved: Vec<f64> = theta.iter().enumerate().map(|(n, x)| x * change(n)).collect();
            // The integral of b λ − a from 1, times θ.
            let bound: f64 = (0..24)
                .map(|n| {
                    let ([a, b], lambda) = (parts[n], change(n));
                    theta[n] * (0.5 * b * (lambda * lambda - 1.0) - a * (lambda - 1.0))
                })
                .sum();
            let rise = penalty.value(&moved) - penalty.value(&theta);
            assert!(rise <= bound + 1e-9 * bound.abs(), "{rise} {bound}");
        }
        // The derivative at the point itself.
        for entry in 0..theta.len() {
            let step = 1e-6;
            let mut moved = theta.clone();
            moved[entry] += step;
            let difference = (penalty.value(&moved) - penalty.value(&theta)) / step;
            let found = parts[entry][1] - parts[entry][0];
            assert!((difference - found).abs() < 1e-3, "{difference} {found}");
        }
    }

    #[test]
    fn units_leave_the_penalty_as_it_is() {
        let (penalty, theta) = (circles(0.7), theta());
        let halves: Vec<f64> = theta.iter().map(|x| x / 2.0).collect();
        let (whole, rescaled) =
            (penalty.value(&theta), penalty.clone().rescaled(2.0, 8.0).value(&halves));
        assert!((whole - 8.0 * rescaled).abs() < 1e-12 * whole);
        assert!(!penalty.is_empty() && circles(0.0).is_empty());
        // Every edge is one of each of its ends.
        let neighbours = penalty.axes()[1].neighbours();
        assert_eq!(neighbours[0], [(1, 0.7), (3, 0.7)]);
    }
}
