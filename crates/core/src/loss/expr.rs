//! Expressions in the datum and the model's value: the one description of a loss.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

use super::graph::Graph;

/// An immutable expression in `x` (the datum), `y` (the model's value ŷ), constants and per-entry
/// entry parameters.
///
/// A loss is three of these, and everything that evaluates it starts from them:
/// [`eval`](Self::eval) in double precision, the vectorised tape of the CPU, and WGSL for a GPU
/// ([`wgsl_function`]). Cloning is cheap: subexpressions are shared.
///
/// Operators and functions simplify as they build: constants are folded, and `e + 0`, `e · 1`,
/// `e / 1`, `−(−e)`, `e⁰` and `e¹` are what they seem. `e · 0` and `0 / e` are kept, since they are
/// NaN where `e` is infinite, NaN or (in the quotient) zero.
///
/// An expression can be up to 500 operations deep: sums of more terms than that are to be made of
/// partial sums. A deeper one evaluates to NaN, and is refused where a loss or a shader is made of
/// it.
///
/// ```
/// use nneinfact::loss::Expr;
///
/// let (x, y) = (Expr::x(), Expr::y());
/// let kl = &x * (&x / &y).ln() - &x + &y;
/// assert_eq!(kl.to_string(), "x * ln(x / y) - x + y");
/// assert_eq!(kl.eval(2.0, 2.0, &[]), 0.0);
/// ```
#[derive(Clone)]
pub struct Expr(Arc<Inner>);

/// A node with its depth: the most operations on a way down to a leaf.
struct Inner {
    node: Node,
    depth: u32,
}

/// The depth above which an expression is [`Node::TooDeep`]. Everything that walks over
/// expressions, dropping them too, goes down by calls, and this many fit the stack of any thread.
pub(super) const DEEPEST: u32 = 500;

/// What an expression is made of.
#[derive(Clone, Debug)]
pub(super) enum Node {
    X,
    Y,
    EntryParameter(usize),
    Constant(f64),
    Add(Expr, Expr),
    Sub(Expr, Expr),
    Mul(Expr, Expr),
    Div(Expr, Expr),
    Neg(Expr),
    Pow(Expr, f64),
    Ln(Expr),
    Exp(Expr),
    /// The condition, the value where it is above 0, the value elsewhere.
    Select(Expr, Expr, Expr),
    /// What stands for an expression deeper than [`DEEPEST`], and for all that is made of it. No
    /// loss is built from one.
    TooDeep,
}

impl Expr {
    pub(super) fn new(node: Node) -> Expr {
        let depth = children(&node).map(|child| child.0.depth + 1).max().unwrap_or(0);
        let deeper = children(&node).any(Expr::is_too_deep);
        match depth > DEEPEST || deeper {
            true => Expr(Arc::new(Inner { node: Node::TooDeep, depth: 0 })),
            false => Expr(Arc::new(Inner { node, depth })),
        }
    }

    /// Whether it was cut off for its depth.
    pub(super) fn is_too_deep(&self) -> bool {
        matches!(self.0.node, Node::TooDeep)
    }

    /// The datum.
    #[must_use]
    pub fn x() -> Expr {
        Expr::new(Node::X)
    }

    /// The model's value ŷ at the entry, positive.
    #[must_use]
    pub fn y() -> Expr {
        Expr::new(Node::Y)
    }

    /// The entry's value in entry parameter `i`, counted from 0: a dispersion, a number of trials.
    #[must_use]
    pub fn entry_parameter(i: usize) -> Expr {
        Expr::new(Node::EntryParameter(i))
    }

    /// A constant.
    #[must_use]
    pub fn constant(value: f64) -> Expr {
        Expr::new(Node::Constant(value))
    }

    /// The natural logarithm. It is −∞ at 0 and NaN below.
    #[must_use]
    pub fn ln(&self) -> Expr {
        match self.as_constant() {
            Some(c) => Expr::constant(c.ln()),
            None => Expr::new(Node::Ln(self.clone())),
        }
    }

    /// The exponential.
    #[must_use]
    pub fn exp(&self) -> Expr {
        match self.as_constant() {
            Some(c) => Expr::constant(c.exp()),
            None => Expr::new(Node::Exp(self.clone())),
        }
    }

    /// `self` to a constant power.
    ///
    /// Integers and half-integers up to 8 in size are computed by multiplications, a square root
    /// and a reciprocal. Any other power wants a base that is not negative; on a CPU it is NaN for
    /// one that is.
    #[must_use]
    pub fn pow(&self, exponent: f64) -> Expr {
        if exponent == 0.0 {
            return Expr::constant(1.0);
        }
        if exponent == 1.0 {
            return self.clone();
        }
        match self.as_constant() {
            Some(c) => Expr::constant(power(c, exponent)),
            None => Expr::new(Node::Pow(self.clone(), exponent)),
        }
    }

    /// The square root.
    #[must_use]
    pub fn sqrt(&self) -> Expr {
        self.pow(0.5)
    }

    /// `then` where `condition > 0`, else (also where the condition is NaN) `otherwise`.
    ///
    /// Both are evaluated and one is discarded, with whatever it holds: a NaN or an infinity in
    /// the branch that is not taken does not show.
    #[must_use]
    pub fn select_positive(condition: &Expr, then: &Expr, otherwise: &Expr) -> Expr {
        if let Some(c) = condition.as_constant() {
            return if c > 0.0 { then.clone() } else { otherwise.clone() };
        }
        if then == otherwise {
            return then.clone();
        }
        Expr::new(Node::Select(condition.clone(), then.clone(), otherwise.clone()))
    }

    /// The value in double precision. An entry parameter that `parameters` does not hold is NaN.
    #[must_use]
    pub fn eval(&self, x: f64, y: f64, parameters: &[f64]) -> f64 {
        let value = |e: &Expr| e.eval(x, y, parameters);
        match self.node() {
            Node::X => x,
            Node::Y => y,
            Node::EntryParameter(i) => parameters.get(*i).copied().unwrap_or(f64::NAN),
            Node::Constant(c) => *c,
            Node::TooDeep => f64::NAN,
            Node::Add(a, b) => value(a) + value(b),
            Node::Sub(a, b) => value(a) - value(b),
            Node::Mul(a, b) => value(a) * value(b),
            Node::Div(a, b) => value(a) / value(b),
            Node::Neg(a) => -value(a),
            Node::Pow(a, p) => power(value(a), *p),
            Node::Ln(a) => value(a).ln(),
            Node::Exp(a) => value(a).exp(),
            Node::Select(c, a, b) => {
                if value(c) > 0.0 {
                    value(a)
                } else {
                    value(b)
                }
            }
        }
    }

    /// Its value, if the expression is a constant.
    #[must_use]
    pub fn as_constant(&self) -> Option<f64> {
        match *self.node() {
            Node::Constant(c) => Some(c),
            _ => None,
        }
    }

    /// Whether it is a logarithm.
    pub(super) fn is_logarithm(&self) -> bool {
        matches!(self.node(), Node::Ln(_))
    }

    /// Whether the datum occurs.
    #[must_use]
    pub fn depends_on_x(&self) -> bool {
        self.any(&|node| matches!(node, Node::X))
    }

    /// Whether the model's value occurs.
    #[must_use]
    pub fn depends_on_y(&self) -> bool {
        self.any(&|node| matches!(node, Node::Y))
    }

    /// How many entry parameters are needed: one more than the largest index that occurs.
    #[must_use]
    pub fn entry_parameter_count(&self) -> usize {
        match self.node() {
            Node::EntryParameter(i) => i.saturating_add(1),
            node => children(node).map(Expr::entry_parameter_count).max().unwrap_or(0),
        }
    }

    /// The expression with the datum replaced by a constant.
    #[must_use]
    pub fn substitute_x(&self, value: f64) -> Expr {
        let value = Expr::constant(value);
        self.rebuild(&|node| matches!(node, Node::X).then(|| value.clone()), &|e| e)
    }

    /// The expression at x = 0, simplified for positive finite `y` and entry parameters: there `0 ·
    /// e` and `0 / e` are 0.
    #[must_use]
    pub fn at_zero_datum(&self) -> Expr {
        let is_zero = |e: &Expr| e.as_constant() == Some(0.0);
        // Constants that are not finite come from the datum (ln 0, 0⁻¹): they do not vanish.
        let tame = |e: &Expr| e.as_constant().is_none_or(|c| c.is_finite() && c != 0.0);
        self.rebuild(&|node| matches!(node, Node::X).then(|| Expr::constant(0.0)), &|e| {
            let vanishes = match e.node() {
                Node::Mul(a, b) => (is_zero(a) && tame(b)) || (tame(a) && is_zero(b)),
                Node::Div(a, b) => is_zero(a) && tame(b),
                _ => false,
            };
            if vanishes { Expr::constant(0.0) } else { e }
        })
    }

    /// A bound on the powers of `y` that occur on the way to the value: sums of the exponents
    /// over products and quotients, their maximum over sums. A logarithm counts as 0 beyond its
    /// argument, an exponential as its argument.
    #[must_use]
    pub fn largest_exponent(&self) -> f64 {
        match self.node() {
            Node::Y => 1.0,
            Node::Mul(a, b) | Node::Div(a, b) => a.largest_exponent() + b.largest_exponent(),
            Node::Pow(a, p) => p.abs() * a.largest_exponent(),
            node => children(node).map(Expr::largest_exponent).fold(0.0, f64::max),
        }
    }

    /// The number of operations and leaves, shared ones counted each time. Saturates.
    pub(super) fn size(&self) -> u64 {
        fn count(e: &Expr, known: &mut HashMap<*const Node, u64>) -> u64 {
            let at: *const Node = e.node();
            if let Some(&n) = known.get(&at) {
                return n;
            }
            let n = children(e.node()).fold(1u64, |n, child| n.saturating_add(count(child, known)));
            known.insert(at, n);
            n
        }
        count(self, &mut HashMap::new())
    }

    pub(super) fn node(&self) -> &Node {
        &self.0.node
    }

    fn any(&self, found: &impl Fn(&Node) -> bool) -> bool {
        found(self.node()) || children(self.node()).any(|child| child.any(found))
    }

    /// The expression with some nodes replaced and the rest built anew, each result passed
    /// through `then`.
    fn rebuild(
        &self,
        replace: &impl Fn(&Node) -> Option<Expr>,
        then: &impl Fn(Expr) -> Expr,
    ) -> Expr {
        if let Some(e) = replace(self.node()) {
            return e;
        }
        let again = |e: &Expr| e.rebuild(replace, then);
        then(match self.node() {
            Node::X | Node::Y | Node::EntryParameter(_) | Node::Constant(_) | Node::TooDeep => {
                self.clone()
            }
            Node::Add(a, b) => again(a) + again(b),
            Node::Sub(a, b) => again(a) - again(b),
            Node::Mul(a, b) => again(a) * again(b),
            Node::Div(a, b) => again(a) / again(b),
            Node::Neg(a) => -again(a),
            Node::Pow(a, p) => again(a).pow(*p),
            Node::Ln(a) => again(a).ln(),
            Node::Exp(a) => again(a).exp(),
            Node::Select(c, a, b) => Expr::select_positive(&again(c), &again(a), &again(b)),
        })
    }
}

fn children(node: &Node) -> impl Iterator<Item = &Expr> {
    let list: [Option<&Expr>; 3] = match node {
        Node::X | Node::Y | Node::EntryParameter(_) | Node::Constant(_) | Node::TooDeep => {
            [None; 3]
        }
        Node::Neg(a) | Node::Pow(a, _) | Node::Ln(a) | Node::Exp(a) => [Some(a), None, None],
        Node::Add(a, b) | Node::Sub(a, b) | Node::Mul(a, b) | Node::Div(a, b) => {
            [Some(a), Some(b), None]
        }
        Node::Select(c, a, b) => [Some(c), Some(a), Some(b)],
    };
    list.into_iter().flatten()
}

/// The largest size of an exponent that is computed by multiplications.
const SHORT: f64 = 8.0;

/// An exponent as twice its value, if it is an integer or a half-integer of modest size.
pub(super) fn half_steps(exponent: f64) -> Option<i32> {
    let twice = 2.0 * exponent;
    // The cast is exact: an integer of at most 16 in size.
    (twice == twice.trunc() && exponent.abs() <= SHORT).then_some(twice as i32)
}

fn power(base: f64, exponent: f64) -> f64 {
    if base < 0.0 && half_steps(exponent).is_none() { f64::NAN } else { base.powf(exponent) }
}

/// Prints expressions as one WGSL function `name(x: f32, y: f32, s0: f32, …)` of `x`, `y` and
/// `parameters` entry parameters, which returns `f32` for one expression and a vector for two to
/// four.
///
/// What the expressions share is computed once.
///
/// # Errors
/// `Error::Loss` where there are no expressions or more than four, where one
/// needs an entry parameter beyond `parameters`, and where a constant is not a normal number in
/// single precision (WGSL refuses such a shader), and where an expression is too deep.
///
/// ```
/// use nneinfact::loss::{Expr, wgsl_function};
///
/// let text = wgsl_function("numerator", &[&(Expr::x() / Expr::y())], 0)?;
/// assert_eq!(text, "fn numerator(x: f32, y: f32) -> f32 {\n    return x / y;\n}\n");
/// # Ok::<(), nneinfact::Error>(())
/// ```
pub fn wgsl_function(name: &str, outputs: &[&Expr], parameters: usize) -> Result<String> {
    if outputs.iter().any(|e| e.is_too_deep()) {
        return Err(Error::Loss(format!("an expression is more than {DEEPEST} operations deep")));
    }
    Graph::new(outputs).wgsl(name, parameters)
}

impl PartialEq for Expr {
    /// Whether the trees are the same; constants by their bits.
    fn eq(&self, other: &Expr) -> bool {
        use Node::*;
        Arc::ptr_eq(&self.0, &other.0)
            || match (self.node(), other.node()) {
                (X, X) | (Y, Y) | (TooDeep, TooDeep) => true,
                (EntryParameter(i), EntryParameter(j)) => i == j,
                (Constant(a), Constant(b)) => a.to_bits() == b.to_bits(),
                (Add(a, b), Add(c, d))
                | (Sub(a, b), Sub(c, d))
                | (Mul(a, b), Mul(c, d))
                | (Div(a, b), Div(c, d)) => a == c && b == d,
                (Pow(a, p), Pow(b, q)) => p.to_bits() == q.to_bits() && a == b,
                (Neg(a), Neg(b)) | (Ln(a), Ln(b)) | (Exp(a), Exp(b)) => a == b,
                (Select(a, b, c), Select(d, e, f)) => a == d && b == e && c == f,
                _ => false,
            }
    }
}

impl Eq for Expr {}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expr({self})")
    }
}

impl fmt::Display for Expr {
    /// As mathematics is typed: `x * ln(x / y) - x + y`, entry parameters as `s0`, `s1`, ….
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(f, 0)
    }
}

impl Expr {
    /// Prints with parentheses where the expression binds less tightly than `strength`: 1 a sum,
    /// 2 a product, 3 a sign, 4 a power.
    fn print(&self, f: &mut fmt::Formatter<'_>, strength: u8) -> fmt::Result {
        let own = match self.node() {
            Node::Add(..) | Node::Sub(..) => 1,
            Node::Mul(..) | Node::Div(..) => 2,
            Node::Neg(_) => 3,
            Node::Constant(c) if *c < 0.0 => 3,
            Node::Pow(..) => 4,
            _ => 5,
        };
        if own < strength {
            f.write_str("(")?;
        }
        let mut binary = |a: &Expr, sign: &str, b: &Expr, right: u8| {
            a.print(f, own)?;
            f.write_str(sign)?;
            b.print(f, right)
        };
        match self.node() {
            Node::X => f.write_str("x"),
            Node::Y => f.write_str("y"),
            Node::EntryParameter(i) => write!(f, "s{i}"),
            Node::Constant(c) => write!(f, "{c}"),
            Node::TooDeep => f.write_str("…"),
            Node::Add(a, b) => binary(a, " + ", b, 1),
            Node::Sub(a, b) => binary(a, " - ", b, 2),
            Node::Mul(a, b) => binary(a, " * ", b, 3),
            Node::Div(a, b) => binary(a, " / ", b, 3),
            Node::Neg(a) => {
                f.write_str("-")?;
                a.print(f, 4)
            }
            Node::Pow(a, p) => {
                a.print(f, 5)?;
                if *p < 0.0 { write!(f, "^({p})") } else { write!(f, "^{p}") }
            }
            Node::Ln(a) => write!(f, "ln({a})"),
            Node::Exp(a) => write!(f, "exp({a})"),
            Node::Select(c, a, b) => write!(f, "({a} if {c} > 0 else {b})"),
        }?;
        if own < strength {
            f.write_str(")")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x() -> Expr {
        Expr::x()
    }

    fn y() -> Expr {
        Expr::y()
    }

    #[test]
    fn building_simplifies() {
        assert_eq!(x() * 1.0, x());
        assert_eq!(0.0 + x(), x());
        assert_eq!(x() - 0.0, x());
        assert_eq!(x() / 1.0, x());
        assert_eq!(-(-x()), x());
        assert_eq!(x().pow(1.0), x());
        assert_eq!(x().pow(0.0), Expr::constant(1.0));
        assert_eq!((Expr::constant(2.0) + 3.0).exp(), Expr::constant(5f64.exp()));
        assert_eq!(x() * y().pow(-1.0), x() / y());
        assert_eq!(y().pow(-2.0) * x(), x() / y().pow(2.0));
        assert_eq!(x() - -y(), x() + y());
        assert_eq!(Expr::select_positive(&1.0.into(), &x(), &y()), x());
    }

    #[test]
    fn zero_times_what_may_be_infinite_is_kept() {
        let product = 0.0 * y().ln();
        assert_eq!(product.as_constant(), None);
        assert!(product.eval(0.0, 0.0, &[]).is_nan());
        assert_eq!((0.0 / y()).as_constant(), None);
    }

    #[test]
    fn the_datum_can_be_put_in() {
        let e = (x() + y()) / x();
        assert_eq!(e.substitute_x(2.0).to_string(), "(2 + y) / 2");
        assert!(!e.substitute_x(2.0).depends_on_x() && e.depends_on_x());
        assert_eq!((x() * y().ln() + 3.0).at_zero_datum().as_constant(), Some(3.0));
        assert_eq!((0.5 * (x() / y()) + 0.5).ln().at_zero_datum().as_constant(), Some(0.5f64.ln()));
        // What blows up at 0 does not vanish, whatever it is multiplied by.
        assert!((x() * x().ln()).at_zero_datum().as_constant().is_none_or(f64::is_nan));
    }

    #[test]
    fn printing_keeps_the_meaning() {
        let cases = [
            (x() - (y() - 1.0), "x - (y - 1)"),
            (x() - y() - 1.0, "x - y - 1"),
            (x() / (y() * 2.0), "x / (y * 2)"),
            (-(x() + y()), "-(x + y)"),
            ((x() + y()).pow(-1.5), "(x + y)^(-1.5)"),
            ((-x()).pow(2.0), "(-x)^2"),
            (Expr::constant(-2.0).pow(2.0) * x(), "4 * x"),
            (Expr::entry_parameter(1) * -2.0, "s1 * -2"),
            (Expr::select_positive(&x(), &y(), &0.0.into()) + 1.0, "(y if x > 0 else 0) + 1"),
        ];
        for (e, text) in cases {
            assert_eq!(e.to_string(), text);
        }
    }

    #[test]
    fn powers_of_y_add_up() {
        assert_eq!((x() * y().pow(-1.5) / y()).largest_exponent(), 2.5);
        assert_eq!((y().pow(3.0) + y().ln()).largest_exponent(), 3.0);
        assert_eq!(x().largest_exponent(), 0.0);
    }

    #[test]
    fn side_values_that_are_missing_are_nan() {
        assert_eq!((Expr::entry_parameter(2) + 1.0).entry_parameter_count(), 3);
        assert!(Expr::entry_parameter(2).eval(1.0, 1.0, &[1.0]).is_nan());
    }
}
