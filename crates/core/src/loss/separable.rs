//! Steps where a quadratic function of an entry adds to what losses and a penalty say of it.

use super::penalty::logarithm_and_power;
use super::{Majorizer, Share};

/// A function of an entry's factor of change λ with the derivative (over θ) `square λ + constant`: of
/// differences between neighbours, and of what makes rows add up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Separable {
    /// At least 0.
    pub square: f64,
    /// Of either sign.
    pub constant: f64,
}

/// How far factors of change can be told from 0 and infinity, in ln λ.
const FAR: f64 = 100.0;
/// The most Newton steps of a solve.
const STEPS: usize = 100;

/// A loss's part of the derivative that is least at the step: `rise λ^up − fall λ^down`.
#[derive(Clone, Copy)]
struct Powers {
    fall: f64,
    down: f64,
    rise: f64,
    up: f64,
}

impl Powers {
    fn of(share: Share, p_a: f64, p_b: f64) -> Powers {
        match share.falling {
            true => Powers { fall: share.b, down: p_b, rise: share.a, up: p_a },
            false => Powers { fall: share.a, down: p_a, rise: share.b, up: p_b },
        }
    }
}

impl Share {
    /// The factor of change at which the surrogates of these losses, a penalty and a quadratic function are
    /// least together; `gradient` and `power` as in [`joint_step`](Self::joint_step).
    ///
    /// ```
    /// use nneinfact::loss::{Loss, Separable, Share};
    ///
    /// // Under KL the root of 2 λ² + (1 − 4) λ − 9 = 0.
    /// let kl = Share { majorizer: Loss::kl().majorizer(), falling: false, a: 9.0, b: 1.0 };
    /// let quadratic = Separable { square: 2.0, constant: -4.0 };
    /// let step = Share::joint_step_beside([kl].into_iter(), 0.0, 1.0, quadratic);
    /// assert!((step - 3.0).abs() < 1e-15);
    /// ```
    #[must_use]
    pub fn joint_step_beside(
        shares: impl Iterator<Item = Share> + Clone,
        gradient: f64,
        power: f64,
        beside: Separable,
    ) -> f64 {
        let Separable { mut square, mut constant } = beside;
        // Linear and quadratic penalties are of that kind.
        let rest = match power {
            _ if gradient <= 0.0 => None,
            1.0 => {
                constant += gradient;
                None
            }
            2.0 => {
                square += gradient;
                None
            }
            _ => Some((gradient, power - 1.0)),
        };
        let closed = match rest {
            None => one_family(shares.clone(), square, constant),
            Some(_) => None,
        };
        closed.unwrap_or_else(|| newton(shares, rest, square, constant))
    }
}

/// The step where all losses are of one family that has a closed form.
fn one_family(mut shares: impl Iterator<Item = Share>, square: f64, constant: f64) -> Option<f64> {
    let Some(mut sum) = shares.next() else {
        return Some(root_of_line(-constant, square));
    };
    for share in shares {
        if (share.majorizer, share.falling) != (sum.majorizer, sum.falling) {
            return None;
        }
        sum.a += share.a;
        sum.b += share.b;
    }
    match sum.majorizer {
        Majorizer::Log => Some(logarithm_and_power(sum.a - constant, sum.b, square, 1.0)),
        Majorizer::Power { p_a, p_b } => {
            let Powers { fall, down, rise, up } = Powers::of(sum, p_a, p_b);
            match (down, up) {
                (-1.0, 0.0) => Some(root_of_quadratic(square, rise + constant, fall)),
                (-1.0, 1.0) => Some(root_of_quadratic(square + rise, constant, fall)),
                (0.0, 1.0) => Some(root_of_line(fall - constant, square + rise)),
                _ => None,
            }
        }
    }
}

/// λ with `rise λ = fall`: 0 where nothing rises to it, infinite where nothing stops it, 1 where nothing
/// depends on it.
fn root_of_line(fall: f64, rise: f64) -> f64 {
    match (fall > 0.0, rise > 0.0) {
        (true, true) => fall / rise,
        (true, false) => f64::INFINITY,
        (false, false) if fall == 0.0 => 1.0,
        (false, _) => 0.0,
    }
}

/// λ ≥ 0 with `square λ² + linear λ = fall`, where square and fall are at least 0.
fn root_of_quadratic(square: f64, linear: f64, fall: f64) -> f64 {
    if fall <= 0.0 {
        return root_of_line(-linear, square);
    }
    if square <= 0.0 {
        return if linear > 0.0 { fall / linear } else { f64::INFINITY };
    }
    // Without the difference that cancels.
    let root = linear.hypot(2.0 * square.sqrt() * fall.sqrt());
    match linear >= 0.0 {
        true => 2.0 * fall / (linear + root),
        false => (root - linear) / (2.0 * square),
    }
}

/// The step where there is no closed form: Newton's, in ln λ, between bounds. Every term of the derivative
/// rises or stays, so there is one root.
fn newton(
    shares: impl Iterator<Item = Share> + Clone,
    rest: Option<(f64, f64)>,
    square: f64,
    constant: f64,
) -> f64 {
    // What is 0 has no part, whatever it is multiplied with.
    let term = |weight: f64, power: f64, u: f64| -> [f64; 2] {
        if weight == 0.0 {
            return [0.0; 2];
        }
        let value = weight * (power * u).exp();
        [value, power * value]
    };
    let at = |u: f64| -> [f64; 2] {
        let mut sum = [constant, 0.0];
        let mut add = |[value, change]: [f64; 2], sign: f64| {
            sum[0] += sign * value;
            sum[1] += sign * change;
        };
        for share in shares.clone() {
            match share.majorizer {
                Majorizer::Log => {
                    let value = if share.b == 0.0 { 0.0 } else { share.b * u };
                    add([value - share.a, share.b], 1.0);
                }
                Majorizer::Power { p_a, p_b } => {
                    let Powers { fall, down, rise, up } = Powers::of(share, p_a, p_b);
                    add(term(rise, up, u), 1.0);
                    add(term(fall, down, u), -1.0);
                }
            }
        }
        add(term(square, 1.0, u), 1.0);
        if let Some((gradient, power)) = rest {
            add(term(gradient, power, u), 1.0);
        }
        sum
    };
    match (at(-FAR)[0] < 0.0, at(FAR)[0] > 0.0) {
        (false, false) => return 1.0,
        (false, true) => return 0.0,
        (true, false) => return f64::INFINITY,
        (true, true) => {}
    }
    let (mut low, mut high, mut u) = (-FAR, FAR, 0.0f64);
    for _ in 0..STEPS {
        let [value, change] = at(u);
        let next = u - value / change;
        if (next - u).abs() <= 1e-15 * u.abs().max(1.0) {
            return next.exp();
        }
        if value < 0.0 {
            low = u;
        } else {
            high = u;
        }
        u = if next > low && next < high { next } else { 0.5 * (low + high) };
    }
    u.exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::Loss;

    fn share(majorizer: Majorizer, a: f64, b: f64) -> Share {
        Share { majorizer, falling: false, a, b }
    }

    /// The derivative that a step is to make 0, and what its terms add up to without their signs.
    fn derivative(shares: &[Share], beside: Separable, lambda: f64) -> [f64; 2] {
        let mut sum = [beside.constant + beside.square * lambda, 0.0];
        sum[1] = beside.constant.abs() + beside.square * lambda;
        for share in shares {
            let (a, b) = match share.majorizer {
                Majorizer::Power { p_a, p_b } => {
                    (share.a * lambda.powf(p_a), share.b * lambda.powf(p_b))
                }
                Majorizer::Log => (share.a, share.b * lambda.ln()),
            };
            sum[0] += if share.falling { a - b } else { b - a };
            // What the last digit of λ makes of the largest term.
            let digits = if share.majorizer == Majorizer::Log { share.b } else { 0.0 };
            sum[1] += a.abs() + b.abs() + digits;
        }
        sum
    }

    #[test]
    fn steps_are_where_the_derivative_vanishes() {
        let losses = [
            Loss::kl(),
            Loss::euclidean(),
            Loss::itakura_saito(),
            Loss::hellinger(),
            Loss::reverse_kl(),
        ];
        let mut tried = 0;
        for loss in &losses {
            for places in [1, 2, 3] {
                let majorizer = loss.majorizer().tied(places, false);
                for (a, b) in [(1.0, 1.0), (3.0, 0.5), (0.01, 40.0), (700.0, 0.2)] {
                    for (square, constant) in [(0.0, 0.3), (2.0, -3.0), (1e-6, 0.0), (50.0, 20.0)] {
                        let beside = Separable { square, constant };
                        let all = [share(majorizer, a, b)];
                        let found = Share::joint_step_beside(all.into_iter(), 0.0, 1.0, beside);
                        if found == 0.0 || found.is_infinite() {
                            // Everything rises from 0 on, or nothing stops it.
                            let at = if found == 0.0 { 1e-12 } else { 1e12 };
                            let sign = derivative(&all, beside, at)[0];
                            assert!(if found == 0.0 { sign >= 0.0 } else { sign <= 0.0 });
                            continue;
                        }
                        let [left, size] = derivative(&all, beside, found);
                        assert!(left.abs() <= 1e-13 * size, "{majorizer:?} {a} {b} {beside:?}");
                        tried += 1;
                    }
                }
            }
        }
        assert!(tried > 150, "{tried}");
    }

    #[test]
    fn several_losses_and_penalties_go_together() {
        let all = [
            share(Loss::kl().majorizer(), 4.0, 1.0),
            share(Loss::euclidean().majorizer(), 2.0, 3.0),
            share(Majorizer::Log, 0.5, 1.5),
        ];
        let beside = Separable { square: 0.7, constant: -0.2 };
        let found = Share::joint_step_beside(all.into_iter(), 0.0, 1.0, beside);
        let [left, size] = derivative(&all, beside, found);
        assert!(left.abs() < 1e-13 * size, "{found}");
        // A linear penalty is a constant, a quadratic one a square; others have their own power.
        for (power, with) in [
            (1.0, Separable { constant: 1.1, ..beside }),
            (2.0, Separable { square: 2.0, ..beside }),
        ] {
            let (gradient, without) = (1.3, beside);
            let found = Share::joint_step_beside(all.into_iter(), gradient, power, without);
            let other = Share::joint_step_beside(all.into_iter(), 0.0, 1.0, with);
            assert!((found - other).abs() < 1e-12 * other, "{power}: {found} {other}");
        }
        let found = Share::joint_step_beside(all.into_iter(), 1.3, 1.5, beside);
        let [left, size] = derivative(&all, beside, found);
        assert!((left + 1.3 * found.sqrt()).abs() < 1e-12 * size, "{found}");
        // Without anything beside it is the joint step.
        let none = Separable::default();
        let (found, other) = (
            Share::joint_step_beside(all.into_iter(), 0.4, 1.0, none),
            Share::joint_step(&all, 0.4, 1.0),
        );
        assert!((found - other).abs() < 1e-12 * other, "{found} {other}");
    }

    #[test]
    fn where_nothing_depends_on_an_entry_it_stays() {
        let none = Separable::default();
        for majorizer in [Loss::kl().majorizer(), Loss::euclidean().majorizer(), Majorizer::Log] {
            let all = [share(majorizer, 0.0, 0.0)];
            assert_eq!(Share::joint_step_beside(all.into_iter(), 0.0, 1.0, none), 1.0);
        }
        assert_eq!(Share::joint_step_beside(std::iter::empty(), 0.0, 1.0, none), 1.0);
        let rising = Separable { square: 0.0, constant: 2.0 };
        assert_eq!(Share::joint_step_beside(std::iter::empty(), 0.0, 1.0, rising), 0.0);
    }
}
