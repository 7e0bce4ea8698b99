//! The operators of expressions, which simplify as they build.

use std::ops::{Add, Div, Mul, Neg, Sub};

use super::Expr;
use super::expr::{Node, half_steps};

impl From<f64> for Expr {
    fn from(value: f64) -> Expr {
        Expr::constant(value)
    }
}

fn add(a: Expr, b: Expr) -> Expr {
    match (a.node(), b.node()) {
        (Node::Constant(p), Node::Constant(q)) => Expr::constant(p + q),
        (Node::Constant(0.0), _) => b,
        (_, Node::Constant(0.0)) => a,
        (_, Node::Neg(e)) => sub(a.clone(), e.clone()),
        _ => Expr::new(Node::Add(a, b)),
    }
}

fn sub(a: Expr, b: Expr) -> Expr {
    match (a.node(), b.node()) {
        (Node::Constant(p), Node::Constant(q)) => Expr::constant(p - q),
        (Node::Constant(0.0), _) => neg(b),
        (_, Node::Constant(0.0)) => a,
        (_, Node::Neg(e)) => add(a.clone(), e.clone()),
        _ => Expr::new(Node::Sub(a, b)),
    }
}

fn mul(a: Expr, b: Expr) -> Expr {
    match (a.node(), b.node()) {
        (Node::Constant(p), Node::Constant(q)) => Expr::constant(p * q),
        (Node::Constant(1.0), _) => b,
        (_, Node::Constant(1.0)) => a,
        (Node::Constant(-1.0), _) => neg(b),
        (_, Node::Constant(-1.0)) => neg(a),
        // x · y⁻¹ is one division instead of a reciprocal and a product. A power that has to be
        // computed as such takes its sign for free.
        (_, Node::Pow(e, p)) if *p < 0.0 && half_steps(*p).is_some() => {
            let e = e.pow(-p);
            div(a, e)
        }
        (Node::Pow(e, p), _) if *p < 0.0 && half_steps(*p).is_some() => {
            let e = e.pow(-p);
            div(b, e)
        }
        _ => Expr::new(Node::Mul(a, b)),
    }
}

fn div(a: Expr, b: Expr) -> Expr {
    match (a.node(), b.node()) {
        (Node::Constant(p), Node::Constant(q)) => Expr::constant(p / q),
        (_, Node::Constant(1.0)) => a,
        (_, Node::Constant(-1.0)) => neg(a),
        _ => Expr::new(Node::Div(a, b)),
    }
}

fn neg(a: Expr) -> Expr {
    match a.node() {
        Node::Constant(c) => Expr::constant(-c),
        Node::Neg(e) => e.clone(),
        _ => Expr::new(Node::Neg(a)),
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident) => {
        operator!(@impl $trait, $method, Expr, Expr, |e| e, |e| e);
        operator!(@impl $trait, $method, &Expr, Expr, |e| e.clone(), |e| e);
        operator!(@impl $trait, $method, Expr, &Expr, |e| e, |e| e.clone());
        operator!(@impl $trait, $method, &Expr, &Expr, |e| e.clone(), |e| e.clone());
        operator!(@impl $trait, $method, Expr, f64, |e| e, Expr::constant);
        operator!(@impl $trait, $method, &Expr, f64, |e| e.clone(), Expr::constant);
        operator!(@impl $trait, $method, f64, Expr, Expr::constant, |e| e);
        operator!(@impl $trait, $method, f64, &Expr, Expr::constant, |e| e.clone());
    };
    (@impl $trait:ident, $method:ident, $a:ty, $b:ty, $left:expr, $right:expr) => {
        impl $trait<$b> for $a {
            type Output = Expr;
            fn $method(self, other: $b) -> Expr {
                let left: fn($a) -> Expr = $left;
                let right: fn($b) -> Expr = $right;
                $method(left(self), right(other))
            }
        }
    };
}

operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
operator!(Div, div);

impl Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        neg(self)
    }
}

impl Neg for &Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        neg(self.clone())
    }
}
