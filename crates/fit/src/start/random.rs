//! Random factors.

use std::f64::consts::TAU;

use nneinfact_core::data::uniform_u32;
use nneinfact_core::model::Shapes;

/// The stream of random numbers of the first factor; factor l has stream `STREAM + l`.
const STREAM: u32 = 0x5741_5254;
/// As [`STREAM`], for gamma-distributed numbers.
const GAMMA: u32 = 0x4741_4d4d;

/// A gamma-distributed entry is at least this share of the distribution's mean: small shapes draw
/// numbers that are zero in double precision, and a multiplicative update could not leave that.
const LEAST: f64 = 1e-16;

/// Uniform factors, each in C order.
pub fn uniform(shapes: &Shapes, seed: u64) -> Vec<Vec<f64>> {
    let numbers = |l: usize| {
        let n: usize = shapes.factor(l).iter().product();
        (0..n as u64).map(|i| uniform_at(seed, STREAM + l as u32, i)).collect()
    };
    (0..shapes.model().factors().len()).map(numbers).collect()
}

/// A uniform number in (0, 1).
pub fn uniform_at(seed: u64, stream: u32, index: u64) -> f64 {
    // Never 0: a multiplicative update could not leave it.
    (f64::from(uniform_u32(seed, stream, index)) + 0.5) / 4294967296.0
}

/// Gamma-distributed factors of this shape and mean 1, each in C order.
pub fn gamma(shapes: &Shapes, seed: u64, shape: f64) -> Vec<Vec<f64>> {
    let numbers = |l: usize| {
        let n: usize = shapes.factor(l).iter().product();
        (0..n as u64)
            .map(|i| {
                let mut draws = Draws::new(seed, GAMMA + l as u32, i);
                (draws.gamma(shape) / shape).max(LEAST)
            })
            .collect()
    };
    (0..shapes.model().factors().len()).map(numbers).collect()
}

/// As many random numbers as one entry needs, a function of seed, stream and entry.
struct Draws {
    seed: u64,
    stream: u32,
    next: u64,
}

impl Draws {
    /// Entries draw some tens of numbers at most, and no factor has 2⁴⁴ entries.
    fn new(seed: u64, stream: u32, entry: u64) -> Draws {
        Draws { seed, stream, next: entry << 20 }
    }

    /// Uniform in (0, 1], with 53 bits.
    fn uniform(&mut self) -> f64 {
        let [high, low] =
            [0, 1].map(|i| u64::from(uniform_u32(self.seed, self.stream, self.next + i)));
        self.next += 2;
        ((high << 32 | low) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON / 4.0
    }

    /// Standard normal (Box & Muller 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (TAU * self.uniform()).cos()
    }

    /// Gamma-distributed with scale 1 (Marsaglia & Tsang 2000, ACM TOMS 26).
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            return self.gamma(shape + 1.0) * self.uniform().powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
                return d * v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_numbers_have_the_moments_of_their_distribution() {
        for shape in [0.1, 0.5, 1.0, 3.0, 50.0] {
            let n = 20_000u64;
            let all: Vec<f64> = (0..n).map(|i| Draws::new(3, GAMMA, i).gamma(shape)).collect();
            let mean = all.iter().sum::<f64>() / n as f64;
            let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
            // Five standard errors: the variance of a variance is that of a fourth moment.
            let (error, of_variance) =
                ((shape / n as f64).sqrt(), shape * ((2.0 + 6.0 / shape) / n as f64).sqrt());
            assert!((mean - shape).abs() < 5.0 * error, "{shape}: mean {mean}");
            assert!((variance - shape).abs() < 5.0 * of_variance, "{shape}: variance {variance}");
        }
    }

    #[test]
    fn shapes_at_the_edges_are_finite() {
        for shape in [f64::MIN_POSITIVE, 1e-300, 1e-10, 1e10, 1e300, f64::MAX] {
            for i in 0..100 {
                let x = (Draws::new(1, GAMMA, i).gamma(shape) / shape).max(LEAST);
                assert!(x > 0.0 && x.is_finite(), "{shape:e}: {x}");
            }
        }
    }
}
