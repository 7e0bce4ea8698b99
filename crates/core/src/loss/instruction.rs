//! The instructions of a tape, and how they are selected from a graph of operations.

use super::graph::{Graph, Id, Op};
use super::series::Series;

/// Where an instruction reads or writes a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    X,
    Y,
    EntryParameter(usize),
    Register(usize),
    Output(usize),
}

/// An instruction over blocks at `P`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Instruction<P> {
    Copy(P),
    Fill(f64),
    /// `factor · a + constant`.
    Affine {
        a: P,
        factor: f64,
        constant: f64,
    },
    Add(P, P),
    Sub(P, P),
    Mul(P, P),
    Div(P, P),
    /// The first times the second, plus the third.
    MulAdd(P, P, P),
    /// A constant by `a`.
    Quotient(f64, P),
    Sqrt(P),
    Rsqrt(P),
    Pow(P, f64),
    Ln(P),
    /// The logarithm of the first, which is 1 plus the second.
    LnNear(P, P),
    Exp(P),
    /// The condition, the value where it is above 0, the value elsewhere.
    Select(P, P, P),
    /// The same with a constant elsewhere.
    SelectOr(P, P, f64),
    /// The scale times the series of the quotient less 1 where that is small, and `far` elsewhere.
    Near {
        quotient: P,
        scale: P,
        far: P,
        series: Series,
    },
    /// `scale · factor · ln of`, and 0 where `of`, which is x / y, is 0.
    Term {
        of: P,
        factor: P,
        scale: f64,
    },
    /// The Kullback–Leibler divergence of y from x, and x / y, which goes to the place named.
    Divergence {
        x: P,
        y: P,
        quotient: P,
    },
}

impl<P: Copy> Instruction<P> {
    pub(super) fn operands(self) -> impl Iterator<Item = P> {
        use Instruction::*;
        let list = match self {
            Fill(_) => [None; 3],
            Copy(a) | Quotient(_, a) | Sqrt(a) | Rsqrt(a) | Pow(a, _) | Ln(a) | Exp(a) => {
                [Some(a), None, None]
            }
            Affine { a, .. } => [Some(a), None, None],
            Add(a, b) | Sub(a, b) | Mul(a, b) | Div(a, b) | LnNear(a, b) | SelectOr(a, b, _) => {
                [Some(a), Some(b), None]
            }
            Near { quotient, scale, far, .. } => [Some(quotient), Some(scale), Some(far)],
            MulAdd(a, b, c) | Select(a, b, c) => [Some(a), Some(b), Some(c)],
            Term { of, factor, .. } => [Some(of), Some(factor), None],
            Divergence { x, y, .. } => [Some(x), Some(y), None],
        };
        list.into_iter().flatten()
    }

    pub(super) fn map<Q>(self, f: impl Fn(P) -> Q) -> Instruction<Q> {
        use Instruction::*;
        match self {
            Copy(a) => Copy(f(a)),
            Fill(c) => Fill(c),
            Affine { a, factor, constant } => Affine { a: f(a), factor, constant },
            Add(a, b) => Add(f(a), f(b)),
            Sub(a, b) => Sub(f(a), f(b)),
            Mul(a, b) => Mul(f(a), f(b)),
            Div(a, b) => Div(f(a), f(b)),
            MulAdd(a, b, c) => MulAdd(f(a), f(b), f(c)),
            Quotient(c, a) => Quotient(c, f(a)),
            Sqrt(a) => Sqrt(f(a)),
            Rsqrt(a) => Rsqrt(f(a)),
            Pow(a, p) => Pow(f(a), p),
            Ln(a) => Ln(f(a)),
            LnNear(a, b) => LnNear(f(a), f(b)),
            Near { quotient, scale, far, series } => {
                Near { quotient: f(quotient), scale: f(scale), far: f(far), series }
            }
            Exp(a) => Exp(f(a)),
            Select(c, a, b) => Select(f(c), f(a), f(b)),
            SelectOr(c, a, k) => SelectOr(f(c), f(a), k),
            Term { of, factor, scale } => Term { of: f(of), factor: f(factor), scale },
            Divergence { x, y, quotient } => Divergence { x: f(x), y: f(y), quotient: f(quotient) },
        }
    }
}

/// The instruction that computes an operation, absorbing operands that only it needs.
pub(super) fn select(graph: &Graph, uses: &[usize], id: Id) -> Instruction<Id> {
    let constant = |id: Id| graph.constant(id);
    let product = |id: Id| match graph.ops[id] {
        Op::Mul(a, b) if uses[id] == 1 => Some((a, b)),
        _ => None,
    };
    let affine = |a: Id, factor: f64, constant: f64| Instruction::Affine { a, factor, constant };
    // k · a + c, where a itself may be a multiple.
    let shifted = |a: Id, k: f64, c: f64| match product(a) {
        Some((base, m)) if constant(m).is_some() => affine(base, k * constant(m).unwrap_or(1.0), c),
        Some((m, base)) if constant(m).is_some() => affine(base, k * constant(m).unwrap_or(1.0), c),
        _ => affine(a, k, c),
    };
    match graph.ops[id] {
        // Leaves get here only as outputs, or where a block of a constant is needed.
        Op::X | Op::Y | Op::EntryParameter(_) => Instruction::Copy(id),
        Op::Constant(bits) => Instruction::Fill(f64::from_bits(bits)),
        Op::Add(a, b) => match (constant(a), constant(b), product(a), product(b)) {
            (Some(c), None, ..) => shifted(b, 1.0, c),
            (None, Some(c), ..) => shifted(a, 1.0, c),
            (_, _, Some((m, n)), _) => fused(graph, m, n, b, Instruction::Add(a, b)),
            (_, _, None, Some((m, n))) => fused(graph, m, n, a, Instruction::Add(a, b)),
            _ => Instruction::Add(a, b),
        },
        Op::Sub(a, b) => match (constant(a), constant(b)) {
            (Some(c), None) => shifted(b, -1.0, c),
            (None, Some(c)) => shifted(a, 1.0, -c),
            _ => Instruction::Sub(a, b),
        },
        Op::Mul(a, b) => match (constant(a), constant(b)) {
            (Some(c), None) => affine(b, c, 0.0),
            (None, Some(c)) => affine(a, c, 0.0),
            _ => Instruction::Mul(a, b),
        },
        Op::Div(a, b) => match constant(a) {
            Some(c) => Instruction::Quotient(c, b),
            None => Instruction::Div(a, b),
        },
        Op::Neg(a) => affine(a, -1.0, 0.0),
        Op::Sqrt(a) => Instruction::Sqrt(a),
        Op::Rsqrt(a) => Instruction::Rsqrt(a),
        Op::Pow(a, bits) => Instruction::Pow(a, f64::from_bits(bits)),
        Op::Ln(a) => Instruction::Ln(a),
        Op::LnNear(a, b) => Instruction::LnNear(a, b),
        Op::Near(quotient, scale, far, series) => {
            Instruction::Near { quotient, scale, far, series }
        }
        Op::Exp(a) => Instruction::Exp(a),
        Op::Select(c, a, b) => match constant(b) {
            Some(k) => Instruction::SelectOr(c, a, k),
            None => Instruction::Select(c, a, b),
        },
    }
}

/// Where an output is the Kullback–Leibler divergence, makes one instruction of it and of x / y,
/// which is `a` of that loss: together they take half the time of one loop after another, as most
/// of it goes into a quotient, a logarithm and the memory between them, which wait for different
/// units. Returns the quotient.
pub(super) fn fuse(
    graph: &Graph,
    uses: &[usize],
    chosen: &mut [Option<Instruction<Id>>],
) -> Option<Id> {
    use Instruction::*;
    for &loss in &graph.outputs {
        // From the end: s − x + y, s = x ln q where q > 0, else 0.
        let Some(Add(a, b)) = chosen[loss] else { continue };
        let (difference, y) = if graph.ops[a] == Op::Y { (b, a) } else { (a, b) };
        let Some(Sub(select, x)) = chosen[difference] else { continue };
        let Some(SelectOr(quotient, product, 0.0)) = chosen[select] else { continue };
        let Some(Mul(a, b)) = chosen[product] else { continue };
        let log = if a == x { b } else { a };
        let expected = graph.ops[x] == Op::X
            && graph.ops[y] == Op::Y
            && (a == x || b == x)
            && matches!(chosen[log], Some(Ln(of)) if of == quotient)
            && matches!(chosen[quotient], Some(Div(n, d)) if (n, d) == (x, y));
        // What is not an instruction of its own any more must not be read by another one.
        let asked = graph.outputs.iter().filter(|&&o| o == quotient).count();
        let inside = [difference, select, product, log];
        let alone = inside.iter().all(|&id| uses[id] == 1) && uses[quotient] == 2 + asked;
        if expected && alone {
            inside.iter().for_each(|&id| chosen[id] = None);
            chosen[quotient] = None;
            chosen[loss] = Some(Divergence { x, y, quotient });
            return Some(quotient);
        }
    }
    None
}

/// Makes one instruction of each guarded product with the logarithm of x / y, as it stands in the
/// loss of other divergences: the guard is one for the logarithm, too, which then needs none of its
/// own.
pub(super) fn fuse_terms(
    graph: &Graph,
    uses: &[usize],
    chosen: &mut [Option<Instruction<Id>>],
    last_use: &mut [Id],
) {
    use Instruction::*;
    for id in 0..chosen.len() {
        let Some(SelectOr(of, value, 0.0)) = chosen[id] else { continue };
        let (product, scale) = match chosen[value] {
            Some(Affine { a, factor, constant: 0.0 }) => (a, factor),
            _ => (value, 1.0),
        };
        let Some(Mul(a, b)) = chosen[product] else { continue };
        let is_log = |id: Id| matches!(chosen[id], Some(Ln(x)) if x == of);
        let (log, factor) = if is_log(a) { (a, b) } else { (b, a) };
        let quotient =
            matches!(chosen[of], Some(Div(x, y)) if (graph.ops[x], graph.ops[y]) == (Op::X, Op::Y));
        let inside = [value, product, log];
        if is_log(log) && quotient && inside.iter().all(|&id| uses[id] == 1) {
            inside.iter().for_each(|&id| chosen[id] = None);
            chosen[id] = Some(Term { of, factor, scale });
            last_use[factor] = last_use[factor].max(id);
        }
    }
}

/// m · n + c as one instruction, unless a factor is a constant: then the product is cheaper as it
/// is.
fn fused(graph: &Graph, m: Id, n: Id, c: Id, otherwise: Instruction<Id>) -> Instruction<Id> {
    if graph.constant(m).is_some() || graph.constant(n).is_some() {
        otherwise
    } else {
        Instruction::MulAdd(m, n, c)
    }
}
