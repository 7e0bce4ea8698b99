//! Expressions as a graph of operations that a processor has, each value computed once: what the
//! tape and the shaders are generated from.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::error::{Error, Result};

use super::expr::{Expr, Node, half_steps};
use super::series::Series;

/// The index of an operation in a [`Graph`].
pub(super) type Id = usize;

/// An operation. Constants and exponents are kept as bits, so that operations can be hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Op {
    X,
    Y,
    EntryParameter(usize),
    Constant(u64),
    Add(Id, Id),
    Sub(Id, Id),
    Mul(Id, Id),
    Div(Id, Id),
    Neg(Id),
    Sqrt(Id),
    /// 1/√.
    Rsqrt(Id),
    /// A power that is neither an integer nor a half-integer of modest size.
    Pow(Id, u64),
    Ln(Id),
    /// The logarithm of the first, which is 1 plus the second.
    LnNear(Id, Id),
    Exp(Id),
    /// The condition, the value where it is above 0, the value elsewhere.
    Select(Id, Id, Id),
    /// A quotient, the scale of its series near 1, the value elsewhere.
    Near(Id, Id, Id, Series),
}

impl Op {
    /// What the operation reads.
    pub(super) fn operands(self) -> impl Iterator<Item = Id> {
        let list: [Option<Id>; 3] = match self {
            Op::X | Op::Y | Op::EntryParameter(_) | Op::Constant(_) => [None; 3],
            Op::Neg(a) | Op::Sqrt(a) | Op::Rsqrt(a) | Op::Pow(a, _) | Op::Ln(a) | Op::Exp(a) => {
                [Some(a), None, None]
            }
            Op::Add(a, b) | Op::Sub(a, b) | Op::Mul(a, b) | Op::Div(a, b) | Op::LnNear(a, b) => {
                [Some(a), Some(b), None]
            }
            Op::Select(c, a, b) | Op::Near(c, a, b, _) => [Some(c), Some(a), Some(b)],
        };
        list.into_iter().flatten()
    }
}

/// Operations in an order in which each comes after its operands.
pub(super) struct Graph {
    pub(super) ops: Vec<Op>,
    /// The values asked for, in the order of the expressions.
    pub(super) outputs: Vec<Id>,
    known: HashMap<Op, Id>,
}

impl Graph {
    pub(super) fn new(outputs: &[&Expr]) -> Graph {
        let mut graph = Graph { ops: Vec::new(), outputs: Vec::new(), known: HashMap::new() };
        let mut lowered = HashMap::new();
        for e in outputs {
            let id = graph.lower(e, &mut lowered);
            graph.outputs.push(id);
        }
        graph
    }

    /// The value of a constant.
    pub(super) fn constant(&self, id: Id) -> Option<f64> {
        match self.ops[id] {
            Op::Constant(bits) => Some(f64::from_bits(bits)),
            _ => None,
        }
    }

    /// For every operation, how many operations and outputs read it, those that no output needs
    /// left out.
    pub(super) fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.ops.len()];
        for &id in &self.outputs {
            uses[id] += 1;
        }
        for id in (0..self.ops.len()).rev() {
            if uses[id] > 0 {
                for operand in self.ops[id].operands() {
                    uses[operand] += 1;
                }
            }
        }
        uses
    }

    fn push(&mut self, op: Op) -> Id {
        *self.known.entry(op).or_insert_with(|| {
            self.ops.push(op);
            self.ops.len() - 1
        })
    }

    fn literal(&mut self, value: f64) -> Id {
        self.push(Op::Constant(value.to_bits()))
    }

    fn lower(&mut self, e: &Expr, lowered: &mut HashMap<*const Node, Id>) -> Id {
        let at: *const Node = e.node();
        if let Some(&id) = lowered.get(&at) {
            return id;
        }
        let id = match e.node() {
            Node::X => self.push(Op::X),
            Node::Y => self.push(Op::Y),
            Node::EntryParameter(i) => self.push(Op::EntryParameter(*i)),
            Node::Constant(c) => self.literal(*c),
            Node::TooDeep => self.literal(f64::NAN),
            Node::Add(a, b) => {
                let (a, b) = (self.lower(a, lowered), self.lower(b, lowered));
                self.push(Op::Add(a.min(b), a.max(b)))
            }
            Node::Sub(a, b) => {
                let (a, b) = (self.lower(a, lowered), self.lower(b, lowered));
                self.push(Op::Sub(a, b))
            }
            Node::Mul(a, b) => {
                let (a, b) = (self.lower(a, lowered), self.lower(b, lowered));
                self.mul(a, b)
            }
            Node::Div(a, b) => {
                let a = self.lower(a, lowered);
                match b.node() {
                    // A product with 1/√y is one operation less than a quotient by √y.
                    Node::Pow(base, 0.5) => {
                        let base = self.lower(base, lowered);
                        let root = self.push(Op::Rsqrt(base));
                        self.mul(a, root)
                    }
                    Node::Constant(c) if (1.0 / c).is_normal() => {
                        let inverse = self.literal(1.0 / c);
                        self.mul(a, inverse)
                    }
                    _ => {
                        let b = self.lower(b, lowered);
                        self.push(Op::Div(a, b))
                    }
                }
            }
            Node::Neg(a) => {
                let a = self.lower(a, lowered);
                self.push(Op::Neg(a))
            }
            Node::Pow(a, p) => {
                let a = self.lower(a, lowered);
                self.power(a, *p)
            }
            Node::Ln(a) => {
                let a = self.lower(a, lowered);
                self.push(Op::Ln(a))
            }
            Node::LnNear(a, b) => {
                let (a, b) = (self.lower(a, lowered), self.lower(b, lowered));
                self.push(Op::LnNear(a, b))
            }
            Node::Near(q, scale, far, series) => {
                // First, so that powers that the loss has in common are found.
                let far = self.lower(far, lowered);
                let (q, scale) = (self.lower(q, lowered), self.lower(scale, lowered));
                self.push(Op::Near(q, scale, far, *series))
            }
            Node::Exp(a) => {
                let a = self.lower(a, lowered);
                self.push(Op::Exp(a))
            }
            Node::Select(c, a, b) => {
                let c = self.lower(c, lowered);
                let (a, b) = (self.lower(a, lowered), self.lower(b, lowered));
                self.push(Op::Select(c, a, b))
            }
        };
        lowered.insert(at, id);
        id
    }

    fn mul(&mut self, a: Id, b: Id) -> Id {
        if self.constant(a) == Some(1.0) {
            return b;
        }
        self.push(Op::Mul(a.min(b), a.max(b)))
    }

    fn power(&mut self, base: Id, exponent: f64) -> Id {
        if let Some(steps) = half_steps(exponent) {
            return self.short_power(base, steps);
        }
        // y^(β−1), y^(α+β−1), y^β and y^(α+β) often differ by a power that is cheap. Only near
        // ones are taken, and where the base may be 0 only those that stay on one side of it: the
        // detour must not lead over 0 · ∞ where the power itself has a value.
        let positive = self.ops[base] == Op::Y;
        let near = self
            .ops
            .iter()
            .enumerate()
            .filter_map(|(id, op)| match *op {
                Op::Pow(b, bits) if b == base => {
                    let known = f64::from_bits(bits);
                    let steps = half_steps(near_half(exponent - known)?)?;
                    let safe = positive || steps == 0 || (known > 0.0) == (steps > 0);
                    (safe && steps.abs() <= 4).then_some((id, steps))
                }
                _ => None,
            })
            .min_by_key(|&(_, steps)| steps.abs());
        match near {
            Some((id, 0)) => id,
            Some((id, steps)) if steps > 0 || steps == -1 => {
                let rest = self.short_power(base, steps);
                self.mul(id, rest)
            }
            Some((id, steps)) => {
                let rest = self.short_power(base, -steps);
                self.push(Op::Div(id, rest))
            }
            None => match self.related_power(base, exponent) {
                Some(op) => self.push(op),
                None => self.push(Op::Pow(base, exponent.to_bits())),
            },
        }
    }

    /// A power as the square or the root of one that is known, whose exponent is half as large or twice: in
    /// αβ(0.1, 1.1), ŷ^(α+β−1) is the square of ŷ^(β−1). Roots only of powers that do not leave the range of
    /// normal numbers where the base does not.
    fn related_power(&self, base: Id, exponent: f64) -> Option<Op> {
        let same = |a: f64, b: f64| (a - b).abs() <= 1e-14 * b.abs();
        self.ops.iter().enumerate().find_map(|(id, op)| match *op {
            Op::Pow(b, bits) if b == base => {
                let known = f64::from_bits(bits);
                if same(2.0 * known, exponent) {
                    Some(Op::Mul(id, id))
                } else if same(known, 2.0 * exponent) && known.abs() <= 1.0 {
                    Some(Op::Sqrt(id))
                } else {
                    None
                }
            }
            _ => None,
        })
    }

    /// `base` to the power `steps / 2`.
    fn short_power(&mut self, base: Id, steps: i32) -> Id {
        match steps {
            0 => self.literal(1.0),
            1 => self.push(Op::Sqrt(base)),
            -1 => self.push(Op::Rsqrt(base)),
            2 => base,
            _ if steps < 0 => {
                let one = self.literal(1.0);
                let positive = self.short_power(base, -steps);
                self.push(Op::Div(one, positive))
            }
            _ if steps % 2 == 1 => {
                let (whole, root) = (self.short_power(base, steps - 1), self.push(Op::Sqrt(base)));
                self.mul(whole, root)
            }
            _ if steps % 4 == 2 => {
                let rest = self.short_power(base, steps - 2);
                self.mul(rest, base)
            }
            _ => {
                let half = self.short_power(base, steps / 2);
                self.mul(half, half)
            }
        }
    }

    /// The series that occur, each once.
    fn series(&self, uses: &[usize]) -> Vec<Series> {
        let mut found = Vec::new();
        for (op, &n) in self.ops.iter().zip(uses) {
            if let Op::Near(_, _, _, series) = op
                && n > 0
                && !found.contains(series)
            {
                found.push(*series);
            }
        }
        found
    }

    /// The functions that the one of [`wgsl`](Self::wgsl) calls.
    fn wgsl_functions(&self, name: &str, uses: &[usize], series: &[Series]) -> String {
        let any = |called: &dyn Fn(&Op) -> bool| {
            self.ops.iter().zip(uses).any(|(op, &n)| n > 0 && called(op))
        };
        let of_quotient = |a: Id| matches!(self.ops[a], Op::Div(..));
        let functions = [
            (LN, any(&|op| matches!(op, Op::Ln(a) if !of_quotient(*a)))),
            (LN_OF_QUOTIENT, any(&|op| matches!(op, Op::Ln(a) if of_quotient(*a)))),
            (LN_NEAR, any(&|op| matches!(op, Op::LnNear(..)))),
        ];
        let mut text = String::new();
        for (function, _) in functions.into_iter().filter(|(_, called)| *called) {
            text += &function.replace("$name", name);
        }
        for (number, series) in series.iter().enumerate() {
            let _ = writeln!(
                text,
                "fn {name}_near{number}(quotient: f32, scale: f32, far: f32) -> f32 {{\n{}}}",
                series.wgsl()
            );
        }
        text
    }

    /// The WGSL function of [`wgsl_function`](super::wgsl_function).
    pub(super) fn wgsl(&self, name: &str, parameters: usize) -> Result<String> {
        let result = match self.outputs.len() {
            1 => "f32".to_string(),
            n @ 2..=4 => format!("vec{n}<f32>"),
            n => {
                return Err(Error::Loss(format!(
                    "a WGSL function of {n} expressions was asked for: one to four are possible"
                )));
            }
        };
        let uses = self.uses();
        let series = self.series(&uses);
        let mut text = self.wgsl_functions(name, &uses, &series);
        let _ = write!(text, "fn {name}(x: f32, y: f32");
        for i in 0..parameters {
            let _ = write!(text, ", s{i}: f32");
        }
        let _ = writeln!(text, ") -> {result} {{");
        let mut printed: Vec<String> = Vec::with_capacity(self.ops.len());
        let mut names = 0usize;
        for (id, &op) in self.ops.iter().enumerate() {
            if uses[id] == 0 {
                printed.push(String::new());
                continue;
            }
            let p = |i: Id| printed[i].as_str();
            let (value, leaf) = match op {
                Op::X => ("x".to_string(), true),
                Op::Y => ("y".to_string(), true),
                Op::EntryParameter(i) if i < parameters => (format!("s{i}"), true),
                Op::EntryParameter(i) => {
                    return Err(Error::Loss(format!(
                        "an expression needs entry parameter s{i}, but only {parameters} are given"
                    )));
                }
                Op::Constant(bits) => (wgsl_literal(f64::from_bits(bits))?, true),
                Op::Add(a, b) => (format!("{} + {}", p(a), p(b)), false),
                Op::Sub(a, b) => (format!("{} - {}", p(a), p(b)), false),
                Op::Mul(a, b) => (format!("{} * {}", p(a), p(b)), false),
                Op::Div(a, b) => (format!("{} / {}", p(a), p(b)), false),
                Op::Neg(a) => (format!("-{}", p(a)), false),
                Op::Sqrt(a) => (format!("sqrt({})", p(a)), false),
                Op::Rsqrt(a) => (format!("inverseSqrt({})", p(a)), false),
                Op::Pow(a, bits) => {
                    let exponent = f64::from_bits(bits);
                    let power = format!("pow({}, {})", p(a), wgsl_literal(exponent)?);
                    // WGSL derives pow from log2, whose value at 0 it leaves open. ŷ is positive.
                    if exponent > 0.0 && self.ops[a] != Op::Y {
                        (format!("select(0.0, {power}, {} > 0.0)", p(a)), false)
                    } else {
                        (power, false)
                    }
                }
                Op::Ln(a) => match self.ops[a] {
                    Op::Div(above, below) => {
                        (format!("{name}_ln_of_quotient({}, {})", p(above), p(below)), false)
                    }
                    _ => (format!("{name}_ln({})", p(a)), false),
                },
                Op::LnNear(a, b) => (format!("{name}_ln_near({}, {})", p(a), p(b)), false),
                Op::Near(q, scale, far, of) => {
                    let number = series.iter().position(|known| *known == of).unwrap_or(0);
                    let operands = [q, scale, far].map(p).join(", ");
                    (format!("{name}_near{number}({operands})"), false)
                }
                Op::Exp(a) => (format!("exp({})", p(a)), false),
                Op::Select(c, a, b) => {
                    (format!("select({}, {}, {} > 0.0)", p(b), p(a), p(c)), false)
                }
            };
            let returned = self.outputs.contains(&id) && uses[id] == 1;
            if leaf || returned {
                printed.push(value);
            } else {
                let _ = writeln!(text, "    let t{names} = {value};");
                printed.push(format!("t{names}"));
                names += 1;
            }
        }
        let values: Vec<&str> = self.outputs.iter().map(|&id| printed[id].as_str()).collect();
        if values.len() == 1 {
            let _ = writeln!(text, "    return {};", values[0]);
        } else {
            let _ = writeln!(text, "    return {result}({});", values.join(", "));
        }
        text.push_str("}\n");
        Ok(text)
    }
}

/// Logarithms of devices are as exact as their argument's exponent is large: near 1, where the
/// terms of a loss are at a good fit, an absolute error of 2^-21 is all that WGSL asks for. There
/// it is the series of 2 artanh((x - 1) / (x + 1)), whose first term left out is below 2^-31 of the
/// sum.
const LN: &str = "\
fn $name_ln(x: f32) -> f32 {
    let d = x - 1.0;
    if abs(d) < 0.25 {
        let s = d / (x + 1.0);
        let q = s * s;
        return 2.0 * s * fma(q, fma(q, fma(q, fma(q, 0.11111111, 0.14285715), 0.2), 0.33333334), 1.0);
    }
    return log(x);
}
";

/// As [`LN`], of a quotient: its rounding, 2.5 units of the last place on a device, is not in the
/// logarithm.
const LN_OF_QUOTIENT: &str = "\
fn $name_ln_of_quotient(above: f32, below: f32) -> f32 {
    let d = above - below;
    if abs(d) < 0.25 * below {
        let s = d / (above + below);
        let q = s * s;
        return 2.0 * s * fma(q, fma(q, fma(q, fma(q, 0.11111111, 0.14285715), 0.2), 0.33333334), 1.0);
    }
    return log(above / below);
}
";

/// As [`LN`], of 1 plus an excess that has more digits than the whole.
const LN_NEAR: &str = "\
fn $name_ln_near(whole: f32, excess: f32) -> f32 {
    if abs(excess) < 0.25 {
        let s = excess / (excess + 2.0);
        let q = s * s;
        return 2.0 * s * fma(q, fma(q, fma(q, fma(q, 0.11111111, 0.14285715), 0.2), 0.33333334), 1.0);
    }
    return log(whole);
}
";

/// The half-integer that a difference of two exponents is, up to its rounding.
fn near_half(difference: f64) -> Option<f64> {
    let half = (2.0 * difference).round() / 2.0;
    ((difference - half).abs() <= 1e-14).then_some(half)
}

fn wgsl_literal(value: f64) -> Result<String> {
    let single = value as f32;
    if !(single.is_normal() || value == 0.0) {
        return Err(Error::Loss(format!(
            "the constant {value} of an expression is outside the normal range of single \
             precision, 1.2e-38 to 3.4e38"
        )));
    }
    Ok(if single < 0.0 { format!("({single:?})") } else { format!("{single:?}") })
}
