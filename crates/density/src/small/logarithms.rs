//! Sums of logarithms along a line.

use nneinfact_simd::{Elementwise, arch, has_fused};
use pulp::{Arch, Simd, WithSimd};

use super::LANES;

/// Logarithms at a time.
const BLOCK: usize = 64;

/// `Σ ln(1 + t y)` with all digits of small `t y`. −∞ or NaN where some `1 + t y` is not positive.
pub(crate) fn log_sum(t: f64, y: &[f64]) -> f64 {
    log_sum_on(arch(), t, y)
}

fn log_sum_on(arch: Arch, t: f64, y: &[f64]) -> f64 {
    arch.dispatch(LogSum { t, y })
}

struct LogSum<'a> {
    t: f64,
    y: &'a [f64],
}

impl WithSimd for LogSum<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let mut sums = [0.0; LANES];
        let mut terms = [0.0; BLOCK];
        for y in self.y.chunks(BLOCK) {
            let terms = &mut terms[..y.len()];
            // A loop of its own, whose length is not known before, becomes one over vectors.
            for (term, y) in terms.iter_mut().zip(y) {
                let excess = self.t * y;
                *term = (1.0 + excess).ln_near(excess, has_fused::<S>());
            }
            for terms in terms.chunks(LANES) {
                sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            }
        }
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_standard_library() {
        for arch in nneinfact_simd::instruction_sets() {
            for n in [0, 1, 7, 8, 21, 64, 150] {
                for scale in [1e-12, 1e-3, 0.9, 40.0] {
                    let y: Vec<f64> =
                        (0..n).map(|i| scale * (i as f64 * 0.7).sin().abs()).collect();
                    let want: f64 = y.iter().map(|y| (0.5 * y).ln_1p()).sum();
                    let got = log_sum_on(arch, 0.5, &y);
                    assert!((got - want).abs() <= 4e-15 * want.abs(), "{n} {scale}: {got} {want}");
                }
            }
            for outside in [-1.0, -1.5, f64::NAN] {
                let mut y = [0.1; 11];
                y[9] = outside;
                assert!(!log_sum_on(arch, 1.0, &y).is_finite());
            }
        }
    }
}
