//! A loss at a datum of 0: what the implicit entries of a sparse tensor add.

use super::expr::Node;
use super::{Expr, Loss};

/// `coefficient · y^power`: what can be summed over all entries of a model without looking at them,
/// for small whole powers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Monomial {
    /// The factor in front.
    pub coefficient: f64,
    /// The exponent of `y`.
    pub power: f64,
}

/// An expression of a loss at x = 0.
#[derive(Clone, Debug)]
pub struct ZeroTerm {
    expr: Expr,
    monomial: Option<Monomial>,
}

impl ZeroTerm {
    fn new(expr: &Expr) -> ZeroTerm {
        let expr = expr.at_zero_datum();
        let monomial = monomial(&expr)
            .filter(|m| m.coefficient.is_finite())
            .map(|m| if m.coefficient == 0.0 { Monomial { power: 0.0, ..m } } else { m });
        ZeroTerm { expr, monomial }
    }

    /// The expression, of `y` and entry parameters.
    #[must_use]
    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    /// The expression as a multiple of a power of `y`, where it is one.
    #[must_use]
    pub fn monomial(&self) -> Option<Monomial> {
        self.monomial
    }

    /// The coefficient, where the expression is a multiple of this power of `y`.
    #[must_use]
    pub fn coefficient(&self, power: f64) -> Option<f64> {
        self.monomial.filter(|m| m.power == power).map(|m| m.coefficient)
    }

    /// Whether the expression is 0.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.coefficient(0.0) == Some(0.0)
    }
}

/// What `a`, `b` and ℓ are at x = 0.
#[derive(Clone, Debug)]
pub struct AtZero {
    /// The numerator's expression.
    pub a: ZeroTerm,
    /// The denominator's expression.
    pub b: ZeroTerm,
    /// The loss as engines sum it, its [divergence](Loss::divergence).
    pub loss: ZeroTerm,
}

impl Loss {
    /// The loss at a datum of 0.
    ///
    /// ```
    /// use nneinfact::Loss;
    ///
    /// let zero = Loss::kl().at_zero();
    /// assert!(zero.a.is_zero());
    /// assert_eq!(zero.b.coefficient(0.0), Some(1.0));
    /// assert_eq!(zero.loss.coefficient(1.0), Some(1.0));
    /// assert_eq!(Loss::euclidean().at_zero().loss.coefficient(2.0), Some(0.5));
    /// ```
    #[must_use]
    pub fn at_zero(&self) -> AtZero {
        AtZero {
            a: ZeroTerm::new(self.a()),
            b: ZeroTerm::new(self.b()),
            loss: ZeroTerm::new(self.divergence()),
        }
    }
}

/// The expression as a multiple of a power of `y`, as far as its form shows that.
pub(super) fn monomial(e: &Expr) -> Option<Monomial> {
    let of = |coefficient: f64, power: f64| Some(Monomial { coefficient, power });
    match e.node() {
        Node::Constant(c) => of(*c, 0.0),
        Node::Y => of(1.0, 1.0),
        Node::X | Node::EntryParameter(_) | Node::Exp(_) | Node::Select(..) | Node::TooDeep => None,
        Node::Near(_, _, far, _) => monomial(far),
        Node::Neg(a) => monomial(a).and_then(|a| of(-a.coefficient, a.power)),
        Node::Mul(a, b) => {
            let (a, b) = (monomial(a)?, monomial(b)?);
            of(a.coefficient * b.coefficient, a.power + b.power)
        }
        Node::Div(a, b) => {
            let (a, b) = (monomial(a)?, monomial(b)?);
            of(a.coefficient / b.coefficient, a.power - b.power)
        }
        Node::Add(a, b) => sum(monomial(a)?, monomial(b)?),
        Node::Sub(a, b) => {
            let b = monomial(b)?;
            sum(monomial(a)?, Monomial { coefficient: -b.coefficient, ..b })
        }
        Node::Pow(a, p) => {
            let a = monomial(a)?;
            let whole = *p == p.trunc();
            (a.coefficient >= 0.0 || whole)
                .then(|| Monomial { coefficient: a.coefficient.powf(*p), power: a.power * p })
        }
        Node::Ln(a) | Node::LnNear(a, _) => {
            let a = monomial(a)?;
            (a.power == 0.0 && a.coefficient > 0.0)
                .then(|| Monomial { coefficient: a.coefficient.ln(), power: 0.0 })
        }
    }
}

fn sum(a: Monomial, b: Monomial) -> Option<Monomial> {
    match (a.coefficient, b.coefficient) {
        (0.0, _) => Some(b),
        (_, 0.0) => Some(a),
        _ if a.power == b.power => {
            Some(Monomial { coefficient: a.coefficient + b.coefficient, power: a.power })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms_are_found() {
        let alpha = |a| Loss::alpha(a).expect("a member of the family");
        // b, then ℓ, as coefficient and power.
        let cases = [
            (Loss::kl(), (1.0, 0.0), (1.0, 1.0)),
            (Loss::euclidean(), (1.0, 1.0), (0.5, 2.0)),
            (Loss::hellinger(), (1.0, 0.0), (2.0, 1.0)),
            (alpha(0.25), (1.0, 0.0), (4.0, 1.0)),
            (Loss::jensen_shannon(), (1.0, 0.0), (0.5 * 2f64.ln(), 1.0)),
            (Loss::pearson(), (1.0, 0.0), (0.5, 1.0)),
        ];
        for (loss, b, l) in cases {
            let zero = loss.at_zero();
            for (term, (coefficient, power), what) in [(&zero.b, b, "b"), (&zero.loss, l, "loss")] {
                let found = term.coefficient(power).unwrap_or(f64::NAN);
                assert!((found - coefficient).abs() < 1e-12, "{} {what}: {term:?}", loss.name());
            }
        }
        let half = Loss::jensen_shannon().at_zero().a.coefficient(0.0);
        assert_eq!(half, Some(0.5f64.ln()));
    }

    #[test]
    fn what_needs_the_cells_is_not_called_closed() {
        for loss in [Loss::geometric(), Loss::bernoulli()] {
            let zero = loss.at_zero();
            assert!(zero.a.is_zero());
            assert!(zero.b.monomial().is_none() && zero.loss.monomial().is_none());
        }
        let zero = Loss::alpha_beta(1.3, 1.0).expect("a member of the family").at_zero();
        assert_eq!(zero.b.monomial().map(|m| m.power), Some(1.3));
    }

    #[test]
    fn every_closed_form_is_the_value() {
        let named = |a, b| Loss::alpha_beta(a, b).expect("a member of the family");
        let losses = [
            Loss::kl(),
            Loss::euclidean(),
            Loss::hellinger(),
            Loss::jensen_shannon(),
            named(0.7, 0.0),
            named(1.3, 1.0),
        ];
        for loss in losses {
            let zero = loss.at_zero();
            for y in [0.01, 1.0, 37.0f64] {
                for (term, value) in [
                    (&zero.a, loss.eval_a(0.0, y, &[])),
                    (&zero.b, loss.eval_b(0.0, y, &[])),
                    (&zero.loss, loss.eval_loss(0.0, y, &[])),
                ] {
                    let m = term.monomial().expect("a multiple of a power");
                    let closed = m.coefficient * y.powf(m.power);
                    assert!((closed - value).abs() <= 1e-12 * value.abs(), "{}", loss.name());
                }
            }
        }
    }
}
