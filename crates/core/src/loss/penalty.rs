//! Penalties on the entries of a factor, and the step of an entry that has one.

use super::Majorizer;

/// A penalty μ Σ θᵖ on the entries of a factor, p ≥ 1.
///
/// It adds to the *sum* of the losses, Σ W ℓ, not to their mean, and without the ½ that some papers
/// put before a ridge.
///
/// ```
/// use nneinfact::loss::Penalty;
///
/// let ridge = Penalty::l2(0.5);
/// assert_eq!(ridge.value(3.0), 4.5);
/// assert_eq!(ridge.derivative(3.0), 3.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalty {
    weight: f64,
    power: f64,
}

impl Penalty {
    /// μ Σ θ: entries become exactly zero (the factor floor) where the data do not need them.
    #[must_use]
    pub fn l1(weight: f64) -> Penalty {
        Penalty { weight, power: 1.0 }
    }

    /// μ Σ θ²: entries stay small. On all factors it prunes whole components that the data do not
    /// need, where a component is a product of three factors or more; of two factors it draws the
    /// product softly to lower rank, as the nuclear norm does, and leaves components that stand
    /// there twice.
    #[must_use]
    pub fn l2(weight: f64) -> Penalty {
        Penalty { weight, power: 2.0 }
    }

    /// μ Σ θᵖ.
    ///
    /// With p above 1, but by less than about 0.05, steps on a GPU are less exact than others where
    /// the loss's numerator does not fall with λ (as Euclid's, or reverse KL): the equation is
    /// nearly one of ℓ1 then. Take p = 1, or the CPU.
    #[must_use]
    pub fn new(weight: f64, power: f64) -> Penalty {
        Penalty { weight, power }
    }

    /// μ.
    #[must_use]
    pub fn weight(self) -> f64 {
        self.weight
    }

    /// p.
    #[must_use]
    pub fn power(self) -> f64 {
        self.power
    }

    /// What is wrong with it, in words; `None` where nothing is: μ has to be finite and at least 0,
    /// p finite and at least 1.
    #[must_use]
    pub fn problem(self) -> Option<String> {
        if !(self.weight >= 0.0 && self.weight.is_finite()) {
            return Some(format!(
                "the weight of a penalty must be a finite number of at least 0, not {}",
                self.weight
            ));
        }
        if !(self.power >= 1.0 && self.power.is_finite()) {
            return Some(format!(
                "the power of a penalty must be a finite number of at least 1 (1 is sparse, 2 is ridge), not {}: with smaller ones it is not convex",
                self.power
            ));
        }
        None
    }

    /// The same penalty on θ, written for θ / `unit`, the whole objective being divided by `scale`.
    #[must_use]
    pub fn rescaled(self, unit: f64, scale: f64) -> Penalty {
        Penalty { weight: self.weight * unit.powf(self.power) / scale, power: self.power }
    }

    /// μ θᵖ of one entry.
    #[must_use]
    pub fn value(self, theta: f64) -> f64 {
        self.weight * self.of(theta)
    }

    /// θᵖ.
    #[must_use]
    pub fn of(self, theta: f64) -> f64 {
        match self.power {
            1.0 => theta,
            2.0 => theta * theta,
            p => theta.powf(p),
        }
    }

    /// μ p θᵖ⁻¹, its derivative at one entry.
    #[must_use]
    pub fn derivative(self, theta: f64) -> f64 {
        let derivative = match self.power {
            1.0 => 1.0,
            2.0 => theta,
            p => theta.powf(p - 1.0),
        };
        self.weight * self.power * derivative
    }
}

/// The most Newton steps of a solve; six give all digits where numbers are of usual size.
const STEPS: usize = 60;

impl Majorizer {
    /// The factor of change λ at which the surrogate of one entry and its penalty together are
    /// least.
    ///
    /// `a` and `b` are the entry's numerator and denominator at the reference θ̃ per |c|, the
    /// loss's [curvature constant](super::Loss::curvature_constant); `gradient` is μ p θ̃ᵖ⁻¹ / |c|,
    /// the penalty's derivative there, and `power` its p. `falling` says that c is negative, as it
    /// is for α < 0. So λ solves
    ///
    /// - `Power`: ±(b λ^p_b − a λ^p_a) + gradient λᵖ⁻¹ = 0, the minus where `falling`,
    /// - `Log`: b ln λ − a + gradient λᵖ⁻¹ = 0.
    ///
    /// It is 0 where the objective falls all the way down to 0, infinite where all the way up, and
    /// 1 where it does not depend on λ.
    ///
    /// ```
    /// use nneinfact::loss::Loss;
    ///
    /// // Under KL an ℓ1 penalty adds to the denominator.
    /// let lambda = Loss::kl().majorizer().penalized(6.0, 2.0, 1.0, 1.0, false);
    /// assert_eq!(lambda, 2.0);
    /// ```
    #[must_use]
    pub fn penalized(self, a: f64, b: f64, gradient: f64, power: f64, falling: bool) -> f64 {
        match self {
            Majorizer::Power { p_a, p_b } if falling => {
                balance_of_powers([b, a, gradient], [p_b, p_a, power - 1.0])
            }
            Majorizer::Power { p_a, p_b } => {
                balance_of_powers([a, b, gradient], [p_a, p_b, power - 1.0])
            }
            Majorizer::Log => logarithm_and_power(a, b, gradient, power - 1.0),
        }
    }
}

/// The root of `rise λ^e₁ + gradient λ^e₂ = fall λ^e₀`, where e₁ > e₀ and e₂ ≥ e₀.
fn balance_of_powers([fall, rise, gradient]: [f64; 3], [e0, e1, e2]: [f64; 3]) -> f64 {
    let (c1, c2) = (e1 - e0, e2 - e0);
    if fall <= 0.0 {
        return if rise <= 0.0 && gradient <= 0.0 { 1.0 } else { 0.0 };
    }
    if gradient <= 0.0 {
        return if rise <= 0.0 { f64::INFINITY } else { (fall / rise).powf(1.0 / c1) };
    }
    if c2 == 0.0 {
        // The penalty takes a constant off the numerator.
        return match fall > gradient {
            false => 0.0,
            true if rise <= 0.0 => f64::INFINITY,
            true => ((fall - gradient) / rise).powf(1.0 / c1),
        };
    }
    if rise <= 0.0 {
        return (fall / gradient).powf(1.0 / c2);
    }
    if c1 == c2 {
        return (fall / (rise + gradient)).powf(1.0 / c1);
    }
    // The quadratic in one of the powers, without the difference that cancels.
    let quadratic = |linear: f64, square: f64| {
        2.0 * fall / (linear + linear.hypot(2.0 * square.sqrt() * fall.sqrt()))
    };
    if c2 == 2.0 * c1 {
        return quadratic(rise, gradient).powf(1.0 / c1);
    }
    if c1 == 2.0 * c2 {
        return quadratic(gradient, rise).powf(1.0 / c2);
    }
    // In u = ln λ: ln(e^(c₁u + ln rise) + e^(c₂u + ln gradient)) = ln fall, increasing and convex.
    // Where one of the terms alone is as large as the right side the left side is at most ln 2
    // above it.
    let (fall, rise, gradient) = (fall.ln(), rise.ln(), gradient.ln());
    let mut u = ((fall - rise) / c1).min((fall - gradient) / c2);
    for _ in 0..STEPS {
        let (x, y) = (c1 * u + rise, c2 * u + gradient);
        let most = x.max(y);
        let (x, y) = ((x - most).exp(), (y - most).exp());
        let step = (most + (x + y).ln() - fall) * (x + y) / (c1 * x + c2 * y);
        u -= step;
        if step.is_nan() || step.abs() <= 1e-15 * u.abs().max(1.0) {
            break;
        }
    }
    u.exp()
}

/// The root of `b ln λ − a + gradient λ^q = 0`, with q ≥ 0.
pub(super) fn logarithm_and_power(a: f64, b: f64, gradient: f64, q: f64) -> f64 {
    let far = |derivative: f64| match derivative {
        s if s > 0.0 => f64::INFINITY,
        s if s < 0.0 => 0.0,
        _ => 1.0,
    };
    if gradient <= 0.0 {
        return if b > 0.0 { (a / b).exp() } else { far(a) };
    }
    if q == 0.0 {
        return if b > 0.0 { ((a - gradient) / b).exp() } else { far(a - gradient) };
    }
    if b <= 0.0 {
        return if a > 0.0 { (a / gradient).powf(1.0 / q) } else { 0.0 };
    }
    // With t = q ln λ + ln(gradient q / b): t + eᵗ = s, the logarithm of Lambert's W.
    let shift = gradient.ln() + q.ln() - b.ln();
    let s = q * (a / b) + shift;
    let mut t = if s > 1.0 { s.ln() } else { s.min(0.0) };
    for _ in 0..STEPS {
        let e = t.exp();
        // For large s as ln of both sides, which is nearly straight there.
        let step = match s > 1.0 {
            true => (t - (s - t).ln()) * (s - t) / (s - t + 1.0),
            false => (t + e - s) / (1.0 + e),
        };
        t -= step;
        if step.is_nan() || step.abs() <= 1e-15 * t.abs().max(1.0) {
            break;
        }
    }
    ((t - shift) / q).exp()
}

/// What one of several losses says about an entry that they share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The family of the loss.
    pub majorizer: Majorizer,
    /// Whether the loss's curvature constant is negative.
    pub falling: bool,
    /// The entry's numerator, times |c| and the weight of the loss.
    pub a: f64,
    /// The entry's denominator, likewise.
    pub b: f64,
}

impl Share {
    /// The factor of change at which the sum of the surrogates and a penalty is least: see
    /// [`Majorizer::penalized`], of which this is the case of several losses. `gradient` is μ p
    /// θ̃ᵖ⁻¹.
    #[must_use]
    pub fn joint_step(shares: &[Share], gradient: f64, power: f64) -> f64 {
        let Some((first, rest)) = shares.split_first() else {
            return if gradient > 0.0 { 0.0 } else { 1.0 };
        };
        if rest.iter().all(|s| s.majorizer == first.majorizer && s.falling == first.falling) {
            let sum = |part: fn(&Share) -> f64| shares.iter().map(part).sum::<f64>();
            let (a, b) = (sum(|s| s.a), sum(|s| s.b));
            return first.majorizer.penalized(a, b, gradient, power, first.falling);
        }
        // Sums of terms of different powers: every part increases, so there is one root.
        let derivative = |u: f64| {
            let part = |weight: f64, value: f64| if weight == 0.0 { 0.0 } else { weight * value };
            let of = |share: &Share| match share.majorizer {
                Majorizer::Power { p_a, p_b } => {
                    let sign = if share.falling { -1.0 } else { 1.0 };
                    sign * (part(share.b, (p_b * u).exp()) - part(share.a, (p_a * u).exp()))
                }
                Majorizer::Log => part(share.b, u) - share.a,
            };
            shares.iter().map(of).sum::<f64>() + part(gradient, ((power - 1.0) * u).exp())
        };
        // As far as a factor of change can be told from 0 and infinity.
        let (mut low, mut high) = (-100.0, 100.0);
        match (derivative(low) < 0.0, derivative(high) > 0.0) {
            (false, false) => return 1.0,
            (false, true) => return 0.0,
            (true, false) => return f64::INFINITY,
            (true, true) => {}
        }
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if derivative(middle) < 0.0 { low = middle } else { high = middle }
        }
        (0.5 * (low + high)).exp()
    }
}
