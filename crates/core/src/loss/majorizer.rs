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
