//! The two families of majorizers.

/// How a loss's `a` and `b` make an update. Two families cover every loss of this crate.
///
/// With c the loss's [curvature constant](super::Loss::curvature_constant), and λ the factor by
/// which the model's value changes from ỹ, the surrogate of ℓ(x, λỹ) has the derivative in λ
///
/// - `Power`: c·ỹ·(λ^p_b · b − λ^p_a · a),
/// - `Log`: c·ỹ·(ln λ · b − a).
///
/// So the update is λ = g⁻¹(A / B) with g(λ) = λ^(p_b − p_a), or g = ln.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Majorizer {
    /// Powers of λ.
    Power {
        /// The power that stands with `a`.
        p_a: f64,
        /// The power that stands with `b`.
        p_b: f64,
    },
    /// The logarithm of λ.
    Log,
}

impl Majorizer {
    /// The exponent γ = 1 / (p_b − p_a) of g⁻¹(t) = t^γ; none for `Log`.
    #[must_use]
    pub fn gamma(self) -> Option<f64> {
        match self {
            Majorizer::Power { p_a, p_b } => Some(1.0 / (p_b - p_a)),
            Majorizer::Log => None,
        }
    }

    /// g(λ).
    #[must_use]
    pub fn g(self, lambda: f64) -> f64 {
        match self {
            Majorizer::Power { p_a, p_b } => lambda.powf(p_b - p_a),
            Majorizer::Log => lambda.ln(),
        }
    }

    /// g⁻¹(t), the factor of the update for t = A / B.
    ///
    /// ```
    /// use nneinfact::loss::Loss;
    ///
    /// assert_eq!(Loss::hellinger().majorizer().g_inverse(3.0), 9.0);
    /// ```
    #[must_use]
    pub fn g_inverse(self, t: f64) -> f64 {
        match self.gamma() {
            // What a power of 1 would give, without the call.
            Some(1.0) => t,
            Some(gamma) => t.powf(gamma),
            None => t.exp(),
        }
    }

    /// The family for a factor that is in `places` places of a model: what stands in a term of ŷ is
    /// then a product of so many of its factors of change, which
    ///
    /// - means bound where the term rises with them: `λ₁ᵖ ⋯ λₙᵖ ≤ (λ₁ⁿᵖ + ⋯ + λₙⁿᵖ) / n`,
    /// - and its tangent in ln λ where it falls: `−λ₁ᵖ ⋯ λₙᵖ ≤ −1 − p (ln λ₁ + ⋯ + ln λₙ)`,
    ///
    /// so that the exponents of the derivative become `n (1 + p) − 1` or −1 (docs/method.md).
    /// `falling` says that the loss's constant c is negative. For `Log`, whose numerator has either
    /// sign, there is no such bound: it stays as it is, and a step has to be checked.
    ///
    /// ```
    /// use nneinfact::loss::{Loss, Majorizer};
    ///
    /// // Of a symmetric matrix: the fourth root under Euclid, the square root under KL.
    /// assert_eq!(Loss::euclidean().majorizer().tied(2, false).gamma(), Some(0.25));
    /// assert_eq!(Loss::kl().majorizer().tied(2, false).gamma(), Some(0.5));
    /// assert_eq!(Loss::kl().majorizer().tied(1, false), Loss::kl().majorizer());
    /// ```
    #[must_use]
    pub fn tied(self, places: usize, falling: bool) -> Majorizer {
        let power = |p: f64| places as f64 * (1.0 + p) - 1.0;
        let rises = |p: f64| power(p).max(-1.0);
        let falls = |p: f64| power(p).min(-1.0);
        match self {
            _ if places < 2 => self,
            Majorizer::Power { p_a, p_b } if falling => {
                Majorizer::Power { p_a: rises(p_a), p_b: falls(p_b) }
            }
            Majorizer::Power { p_a, p_b } => Majorizer::Power { p_a: falls(p_a), p_b: rises(p_b) },
            Majorizer::Log => Majorizer::Log,
        }
    }

    /// The surrogate's rise from ỹ to λỹ, per c·ỹ: the integral from 1 to λ of the derivative
    /// above.
    #[must_use]
    pub fn rise(self, a: f64, b: f64, lambda: f64) -> f64 {
        let integral = |p: f64| {
            if p == -1.0 { lambda.ln() } else { (lambda.powf(p + 1.0) - 1.0) / (p + 1.0) }
        };
        match self {
            Majorizer::Power { p_a, p_b } => b * integral(p_b) - a * integral(p_a),
            Majorizer::Log => b * (lambda * lambda.ln() - lambda + 1.0) - a * (lambda - 1.0),
        }
    }
}
