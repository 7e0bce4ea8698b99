//! A loss of the αβ-family where datum and model are close: its Taylor series.
//!
//! The formulas of these losses are differences of terms that are nearly equal there. With
//! u = x/y − 1 the loss is `y^(α+β) · u² · (e₀ + e₁ u + …)`, which has as many correct digits as `u`.

/// Coefficients of a [`Series`].
const TERMS: usize = 8;
/// The largest size of u at which a series stands for its loss: beyond it little cancels.
const WIDEST: f64 = 0.2;
/// The share of the sum that the terms left out may have.
const LEFT_OUT: f64 = 3e-8;

/// The sum `u² · (e₀ + e₁ u + … )` for sizes of u up to a bound, in single precision. Numbers are kept
/// as bits, so that operations with one can be hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Series {
    bound: u64,
    coefficients: [u64; TERMS],
}

impl Series {
    /// The series of the αβ-divergence with β = `sum` − `alpha`, α ≠ 0, by y^`sum`.
    pub(super) fn alpha_beta(alpha: f64, sum: f64) -> Series {
        let beta = sum - alpha;
        // Of (1 + u)^p, of its product with ln(1 + u), and of ln(1 + u).
        const COUNT: usize = TERMS + 4;
        let power = |p: f64| {
            let mut of = [1.0; COUNT];
            for k in 1..COUNT {
                of[k] = of[k - 1] * (p - (k - 1) as f64) / k as f64;
            }
            of
        };
        let log = |k: usize| if k % 2 == 1 { 1.0 / k as f64 } else { -1.0 / k as f64 };
        let own = power(alpha);
        let at = |k: usize| -> f64 {
            if beta == 0.0 {
                let with_log: f64 = (1..=k).map(|n| own[k - n] * log(n)).sum();
                (alpha * with_log - own[k]) / (alpha * alpha)
            } else if sum == 0.0 {
                (own[k] - alpha * log(k)) / (alpha * alpha)
            } else {
                (alpha / sum * power(sum)[k] - own[k]) / (alpha * beta)
            }
        };
        let all: Vec<f64> = (2..COUNT).map(at).collect();
        let left_out =
            |u: f64| -> f64 { (TERMS..COUNT - 2).map(|k| all[k].abs() * u.powi(k as i32)).sum() };
        let mut bound = WIDEST;
        while left_out(bound) > LEFT_OUT * all[0].abs() && bound > 1e-3 {
            bound *= 0.9;
        }
        let mut coefficients = [0; TERMS];
        for (to, from) in coefficients.iter_mut().zip(&all) {
            *to = from.to_bits();
        }
        Series { bound: bound.to_bits(), coefficients }
    }

    /// The largest size of u that it is good for.
    pub(super) fn bound(&self) -> f64 {
        f64::from_bits(self.bound)
    }

    /// The coefficients, from that of u² on.
    pub(super) fn coefficients(&self) -> [f64; TERMS] {
        self.coefficients.map(f64::from_bits)
    }

    /// The body of a WGSL function of the quotient, the scale and the value `far` from 1.
    pub(super) fn wgsl(&self) -> String {
        let [first, rest @ ..] = self.coefficients();
        let literal = |x: f64| format!("{:?}", x as f32);
        let mut sum = literal(rest[rest.len() - 1]);
        for &next in rest[..rest.len() - 1].iter().rev().chain([&first]) {
            sum = format!("fma(u, {sum}, {})", literal(next));
        }
        format!(
            "    let u = quotient - 1.0;\n    let near = scale * u * u * {sum};\n    return select(far, near, abs(u) < {});\n",
            literal(self.bound())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(series: &Series, u: f64) -> f64 {
        let of = |sum: f64, e: &f64| sum * u + e;
        u * u * series.coefficients().iter().rev().fold(0.0, of)
    }

    #[test]
    fn it_is_the_divergence_over_its_range() {
        let pairs = [
            (0.7, 0.0),
            (1.0, 0.0),
            (1.0, -1.0),
            (-2.0, 2.0),
            (1.3, 1.0),
            (0.5, -0.7),
            (-1.5, 0.3),
            (0.1, 1.1),
            (1.0, -0.5),
            (3.0, 2.5),
            (0.01, 1.0),
            (5.0, -2.0),
            (2.0, 0.002),
        ];
        for (alpha, beta) in pairs {
            let total = alpha + beta;
            let series = Series::alpha_beta(alpha, total);
            assert!(series.bound() > 0.02, "{alpha}, {beta}: {}", series.bound());
            for share in [-1.0, -0.5, 0.3, 1.0] {
                let u = share * series.bound();
                let x: f64 = 1.0 + u;
                let want = if beta == 0.0 {
                    (1.0 - x.powf(alpha) + alpha * x.powf(alpha) * x.ln()) / (alpha * alpha)
                } else if total == 0.0 {
                    (x.powf(alpha) - 1.0 - alpha * x.ln()) / (alpha * alpha)
                } else {
                    (alpha / total * x.powf(total) + beta / total - x.powf(alpha)) / (alpha * beta)
                };
                let error = (sum(&series, u) / want - 1.0).abs();
                assert!(error < 1e-6, "{alpha}, {beta} at {u}: off by {error:e}");
            }
        }
    }
}
