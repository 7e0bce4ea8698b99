//! Expressions compiled for the CPU: a straight line of instructions over blocks of entries.

use pulp::Simd;

use nneinfact_simd::{Aligned, Elementwise, has_fused};

use super::expr::Expr;
use super::graph::{Graph, Id, Op};
use super::instruction::{Instruction, Place, fuse, fuse_terms, select};
use super::zero::monomial;

/// A program that evaluates several expressions over blocks of entries.
///
/// Common subexpressions are computed once, and every instruction is a plain loop over slices.
/// Called from within a `pulp` dispatch, where [`run_with`](Self::run_with) is inlined, the loops
/// are compiled for the instruction set at hand.
///
/// ```
/// use nneinfact::loss::{Loss, Scratch, Tape};
///
/// let loss = Loss::kl();
/// let tape = Tape::compile(&[loss.a(), loss.b()]);
/// let (x, y) = ([1.0f32, 0.0, 6.0], [2.0, 1.0, 3.0]);
/// let (mut a, mut b) = ([0.0; 3], [0.0; 3]);
/// tape.run(&x, &y, &[], &mut Scratch::new(), &mut [&mut a, &mut b]);
/// assert_eq!((a, b), ([0.5, 0.0, 2.0], [1.0, 1.0, 1.0]));
/// ```
#[derive(Clone, Debug)]
pub struct Tape {
    instructions: Vec<(Place, Instruction<Place>)>,
    registers: usize,
    parameters: usize,
    outputs: usize,
    reads_y: bool,
    prediction_power: Option<PredictionPower>,
}

/// What a [`Tape`] computes where its first output is a power of `y`, and the second, if there is one, a
/// multiple of `y` times that: a denominator and a loss at a datum of 0.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PredictionPower {
    /// The exponent of the first output.
    pub power: f64,
    /// The second output by `y` times the first.
    pub loss: Option<f64>,
}

impl PredictionPower {
    fn of(outputs: &[&Expr]) -> Option<PredictionPower> {
        let first = monomial(outputs.first()?).filter(|m| m.coefficient == 1.0)?;
        let loss = match outputs {
            [_] => None,
            [_, second] => {
                let second = monomial(second)?;
                let once_more = (second.power - first.power - 1.0).abs() < 1e-12;
                Some(second.coefficient).filter(|_| once_more).map(Some)?
            }
            _ => return None,
        };
        Some(PredictionPower { power: first.power, loss })
    }
}

/// The registers of a [`Tape`]: memory that is kept between calls.
#[derive(Clone, Debug, Default)]
pub struct Scratch<T> {
    registers: Vec<Aligned<T>>,
}

impl<T> Scratch<T> {
    /// No registers yet: the first run makes them.
    #[must_use]
    pub fn new() -> Scratch<T> {
        Scratch { registers: Vec::new() }
    }
}

impl Tape {
    /// Compiles expressions into one program, with an output for each.
    #[must_use]
    pub fn compile(outputs: &[&Expr]) -> Tape {
        let graph = Graph::new(outputs);
        let uses = graph.uses();

        // Which operations become instructions: from the outputs down, what is not absorbed.
        let mut chosen: Vec<Option<Instruction<Id>>> = vec![None; graph.ops.len()];
        let mut last_use: Vec<Id> = vec![0; graph.ops.len()];
        let mut wanted = vec![false; graph.ops.len()];
        for &id in &graph.outputs {
            wanted[id] = true;
            // Outputs are never given up to another value.
            last_use[id] = usize::MAX;
        }
        for id in (0..graph.ops.len()).rev().filter(|&id| uses[id] > 0) {
            if !wanted[id] {
                continue;
            }
            let instruction = select(&graph, &uses, id);
            chosen[id] = Some(instruction);
            for operand in instruction.operands().filter(|&o| o != id) {
                last_use[operand] = last_use[operand].max(id);
                let leaf = matches!(graph.ops[operand], Op::X | Op::Y | Op::EntryParameter(_));
                wanted[operand] |= !leaf;
            }
        }

        let mut places: Vec<Option<Place>> = graph
            .ops
            .iter()
            .map(|op| match *op {
                Op::X => Some(Place::X),
                Op::Y => Some(Place::Y),
                Op::EntryParameter(i) => Some(Place::EntryParameter(i)),
                _ => None,
            })
            .collect();
        let mut instructions = Vec::new();
        let mut registers = 0;
        if let Some(quotient) = fuse(&graph, &uses, &mut chosen) {
            places[quotient] = match graph.outputs.iter().position(|&o| o == quotient) {
                Some(k) => Some(Place::Output(k)),
                None => {
                    registers += 1;
                    Some(Place::Register(0))
                }
            };
        }
        fuse_terms(&graph, &uses, &mut chosen, &mut last_use);
        let mut free: Vec<usize> = Vec::new();
        for (id, instruction) in chosen.into_iter().enumerate() {
            let Some(instruction) = instruction else { continue };
            let output = graph.outputs.iter().position(|&o| o == id);
            // A block is written while its operands are read, so it takes none of their places.
            let to = match output {
                Some(k) => Place::Output(k),
                None => Place::Register(free.pop().unwrap_or_else(|| {
                    registers += 1;
                    registers - 1
                })),
            };
            let at = |o: Id| places[o].unwrap_or(Place::X);
            instructions.push((to, instruction.map(at)));
            for operand in instruction.operands().filter(|&o| o != id && last_use[o] == id) {
                if let Some(Place::Register(r)) = places[operand]
                    && !free.contains(&r)
                {
                    free.push(r);
                }
            }
            // What reads x, y or an entry parameter reads it where it is, even if it is an output,
            // too.
            if places[id].is_none() {
                places[id] = Some(to);
            }
        }
        for (k, &id) in graph.outputs.iter().enumerate() {
            let first = graph.outputs.iter().position(|&o| o == id).unwrap_or(k);
            if first != k {
                instructions.push((Place::Output(k), Instruction::Copy(Place::Output(first))));
            }
        }
        let reads_y = instructions.iter().any(|(_, i)| i.operands().any(|p| p == Place::Y));
        Tape {
            reads_y,
            prediction_power: PredictionPower::of(outputs),
            instructions,
            registers,
            parameters: outputs.iter().map(|e| e.entry_parameter_count()).max().unwrap_or(0),
            outputs: outputs.len(),
        }
    }

    /// The number of instructions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Whether there are no instructions, because there are no outputs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }

    /// Whether an output depends on `y`.
    #[must_use]
    pub fn reads_y(&self) -> bool {
        self.reads_y
    }

    /// The number of registers, each a block of the scratch memory.
    #[must_use]
    pub fn registers(&self) -> usize {
        self.registers
    }

    /// The number of logarithms, exponentials and powers per entry. A power costs about twice a
    /// logarithm.
    #[must_use]
    pub fn transcendentals(&self) -> usize {
        self.powers() + self.logarithms()
    }

    /// The number of powers per entry, square roots not counted.
    #[must_use]
    pub fn powers(&self) -> usize {
        self.count(|i| matches!(i, Instruction::Pow(..)))
    }

    /// The number of logarithms and exponentials per entry.
    #[must_use]
    pub fn logarithms(&self) -> usize {
        use Instruction::{Divergence, Exp, Ln, LnNear, Term};
        self.count(|i| matches!(i, Ln(_) | LnNear(..) | Exp(_) | Term { .. } | Divergence { .. }))
    }

    fn count(&self, which: impl Fn(&Instruction<Place>) -> bool) -> usize {
        self.instructions.iter().filter(|(_, i)| which(i)).count()
    }

    /// Whether this computes x / y, perhaps 1, and the Kullback–Leibler divergence, in this order,
    /// or the divergence alone: what the CPU engine does in registers.
    pub fn is_divergence(&self) -> bool {
        use Instruction::{Divergence, Fill};
        let (one, last) = match *self.instructions {
            [last] => (false, last),
            [(Place::Output(1), Fill(1.0)), last] => (true, last),
            _ => return false,
        };
        let (Place::Output(loss), Divergence { x: Place::X, y: Place::Y, quotient }) = last else {
            return false;
        };
        let first = match quotient {
            Place::Output(0) => 1 + usize::from(one),
            _ => 0,
        };
        loss == first && self.outputs == loss + 1
    }

    /// Whether this computes a power of `y`, and perhaps a multiple of `y` times that, in this order: what
    /// the CPU engine does in registers where it goes over implicit zeros.
    pub fn prediction_power(&self) -> Option<PredictionPower> {
        self.prediction_power
    }

    /// Evaluates the expressions at every entry of a block, anywhere.
    ///
    /// # Panics
    /// As [`run_with`](Self::run_with).
    #[inline(always)]
    pub fn run<T: Elementwise>(
        &self,
        x: &[T],
        y: &[T],
        parameters: &[&[T]],
        scratch: &mut Scratch<T>,
        outputs: &mut [&mut [T]],
    ) {
        self.run_with(pulp::Scalar::new(), x, y, parameters, scratch, outputs);
    }

    /// Evaluates the expressions at every entry of a block, within a dispatch to the instruction
    /// set `S`.
    ///
    /// # Panics
    /// Where the slices differ in length, or there are fewer blocks of entry parameters or outputs
    /// than the expressions have. This is for the engines; what users give is checked long before.
    #[inline(always)]
    pub fn run_with<S: Simd, T: Elementwise>(
        &self,
        simd: S,
        x: &[T],
        y: &[T],
        parameters: &[&[T]],
        scratch: &mut Scratch<T>,
        outputs: &mut [&mut [T]],
    ) {
        let fused = has_fused::<S>();
        let n = x.len();
        assert_eq!(y.len(), n, "x and y differ in length");
        assert!(
            parameters.len() >= self.parameters && parameters.iter().all(|s| s.len() == n),
            "parameters"
        );
        assert!(outputs.len() == self.outputs && outputs.iter().all(|o| o.len() == n), "outputs");
        let registers = &mut scratch.registers;
        if registers.len() < self.registers {
            registers.resize_with(self.registers, || Aligned::zeros(0));
        }
        for register in registers.iter_mut().take(self.registers) {
            if register.len() < n {
                register.resize(n);
            }
        }
        for &(to, instruction) in &self.instructions {
            // The block is taken out while it is written, so that the others can be read.
            if let (Place::Output(k), Instruction::Divergence { quotient, .. }) = (to, instruction)
            {
                let loss = std::mem::take(&mut outputs[k]);
                match quotient {
                    Place::Register(r) => divergence(x, y, &mut registers[r][..n], loss, fused),
                    Place::Output(q) => divergence(x, y, outputs[q], loss, fused),
                    Place::X | Place::Y | Place::EntryParameter(_) => {}
                }
                outputs[k] = loss;
                continue;
            }
            match to {
                Place::Register(r) => {
                    let mut block = std::mem::take(&mut registers[r]);
                    step(simd, instruction, &mut block[..n], x, y, parameters, registers, outputs);
                    registers[r] = block;
                }
                Place::Output(k) => {
                    let block = std::mem::take(&mut outputs[k]);
                    step(simd, instruction, block, x, y, parameters, registers, outputs);
                    outputs[k] = block;
                }
                Place::X | Place::Y | Place::EntryParameter(_) => {}
            }
        }
    }
}

/// x / y, and x ln(x / y) − x + y.
#[inline(always)]
fn divergence<T: Elementwise>(
    x: &[T],
    y: &[T],
    quotients: &mut [T],
    losses: &mut [T],
    fused: bool,
) {
    let terms = x.iter().zip(y).zip(quotients.iter_mut()).zip(losses.iter_mut());
    for (((&x, &y), quotient), loss) in terms {
        (*quotient, *loss) = divergence_of(x, y, fused);
    }
}

/// `x · w`, and 0 where the weight is, whatever `x` is.
#[inline(always)]
pub fn weighted<T: Elementwise>(x: T, w: T) -> T {
    if w > T::ZERO { x * w } else { T::ZERO }
}

#[inline(always)]
fn divergence_of<T: Elementwise>(x: T, y: T, fused: bool) -> (T, T) {
    let quotient = x / y;
    // Of a quotient that is 0 or subnormal the logarithm is some number, which does not matter:
    // beside y, so many times x is nothing.
    let log = quotient.ln_normal(fused);
    (quotient, x.multiply_add(log, y - x, fused))
}

/// Powers of a block, some vectors side by side.
#[inline(always)]
fn powers<S: Simd, T: Elementwise>(simd: S, from: &[T], p: T::Fraction, to: &mut [T]) {
    const TOGETHER: usize = 4;
    let (from, last_from) = T::as_vectors::<S>(from);
    let (to, last_to) = T::as_vectors_mut::<S>(to);
    let (from, rest_from) = from.as_chunks::<TOGETHER>();
    let (to, rest_to) = to.as_chunks_mut::<TOGETHER>();
    for (to, &x) in to.iter_mut().zip(from) {
        *to = T::pow_fraction_vectors(simd, x, p);
    }
    for (to, &x) in rest_to.iter_mut().zip(rest_from) {
        *to = T::pow_fraction_vectors(simd, [x], p)[0];
    }
    for (to, &x) in last_to.iter_mut().zip(last_from) {
        *to = x.pow_fraction(p, has_fused::<S>());
    }
}

/// One instruction over a block.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a struct of them would be taken apart right away")]
fn step<S: Simd, T: Elementwise>(
    simd: S,
    instruction: Instruction<Place>,
    to: &mut [T],
    x: &[T],
    y: &[T],
    parameters: &[&[T]],
    registers: &[Aligned<T>],
    outputs: &[&mut [T]],
) {
    let n = to.len();
    let fused = has_fused::<S>();
    let c = T::from_f64;
    // Loops are written out by a macro: a closure is not sure to be inlined, and one that is not
    // is compiled for the oldest processor.
    macro_rules! at {
        ($place:expr) => {
            match $place {
                Place::X => &x[..n],
                Place::Y => &y[..n],
                Place::EntryParameter(i) => &parameters[i][..n],
                Place::Register(r) => &registers[r][..n],
                Place::Output(k) => &outputs[k][..n],
            }
        };
    }
    macro_rules! each {
        ($a:ident => $value:expr) => {
            for (to, &$a) in to.iter_mut().zip(at!($a)) {
                *to = $value;
            }
        };
        ($a:ident, $b:ident => $value:expr) => {
            for ((to, &$a), &$b) in to.iter_mut().zip(at!($a)).zip(at!($b)) {
                *to = $value;
            }
        };
        ($a:ident, $b:ident, $c:ident => $value:expr) => {
            for (((to, &$a), &$b), &$c) in to.iter_mut().zip(at!($a)).zip(at!($b)).zip(at!($c)) {
                *to = $value;
            }
        };
    }
    match instruction {
        Instruction::Copy(a) => to.copy_from_slice(at!(a)),
        Instruction::Fill(k) => to.fill(c(k)),
        Instruction::Affine { a, factor, constant } => {
            let (factor, constant) = (c(factor), c(constant));
            each!(a => factor.multiply_add(a, constant, fused));
        }
        Instruction::Add(a, b) => each!(a, b => a + b),
        Instruction::Sub(a, b) => each!(a, b => a - b),
        Instruction::Mul(a, b) => each!(a, b => a * b),
        Instruction::Div(a, b) => each!(a, b => a / b),
        Instruction::MulAdd(a, b, c) => each!(a, b, c => a.multiply_add(b, c, fused)),
        Instruction::Quotient(k, a) => {
            let k = c(k);
            each!(a => k / a);
        }
        Instruction::Sqrt(a) => each!(a => a.sqrt()),
        Instruction::Rsqrt(a) => each!(a => T::ONE / a.sqrt()),
        Instruction::Pow(a, p) => {
            // A factor of x costs nearly nothing, and what is left is a small exponent.
            let whole = p.trunc();
            match (T::fraction(p - whole), whole as i64) {
                (Some(rest), 0) => powers(simd, at!(a), rest, to),
                (Some(rest), 1) => {
                    powers(simd, at!(a), rest, to);
                    for (to, &a) in to.iter_mut().zip(at!(a)) {
                        *to = a * *to;
                    }
                }
                (Some(rest), -1) => {
                    powers(simd, at!(a), rest, to);
                    for (to, &a) in to.iter_mut().zip(at!(a)) {
                        *to = *to / a;
                    }
                }
                _ => {
                    let p = T::exponent(p);
                    each!(a => a.pow(p, fused));
                }
            }
        }
        Instruction::Ln(a) => each!(a => a.ln(fused)),
        Instruction::LnNear(a, b) => each!(a, b => a.ln_near(b, fused)),
        // Double precision has digits to spare.
        Instruction::Near { far, .. } if T::BYTES == 8 => to.copy_from_slice(at!(far)),
        Instruction::Near { quotient, scale, far, series } => {
            let bound = c(series.bound());
            let [e0, e1, e2, e3, e4, e5, e6, e7] = series.coefficients().map(c);
            each!(quotient, scale, far => {
                let u = quotient - T::ONE;
                let sum = e7.multiply_add(u, e6, fused);
                let sum = sum.multiply_add(u, e5, fused);
                let sum = sum.multiply_add(u, e4, fused);
                let sum = sum.multiply_add(u, e3, fused);
                let sum = sum.multiply_add(u, e2, fused);
                let sum = sum.multiply_add(u, e1, fused);
                let sum = sum.multiply_add(u, e0, fused);
                let near = scale * (u * u * sum);
                let outside = (u > bound) | (-u > bound);
                if outside { far } else { near }
            });
        }
        Instruction::Exp(a) => each!(a => a.exp(fused)),
        Instruction::Select(c, a, b) => each!(c, a, b => if c > T::ZERO { a } else { b }),
        Instruction::SelectOr(condition, a, k) => {
            let k = c(k);
            each!(condition, a => if condition > T::ZERO { a } else { k });
        }
        Instruction::Term { of, factor, scale } => {
            let scale = c(scale);
            each!(of, factor => {
                let term = scale * factor * of.ln_positive(fused);
                if of > T::ZERO { term } else { T::ZERO }
            });
        }
        // It writes two blocks, and is carried out where both are at hand.
        Instruction::Divergence { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_square_or_the_root_of_a_power_takes_no_other() {
        let pair = |p: f64, q: f64| Tape::compile(&[&Expr::y().pow(p), &Expr::y().pow(q)]);
        let cases = [(0.1, 0.2), (-0.3, -0.6), (-0.6, -0.3), (1.3, 2.6)];
        let y: Vec<f64> = (0..200).map(|i| 1.7f64.powi(i - 100)).collect();
        for (p, q) in cases {
            let tape = pair(p, q);
            assert_eq!(tape.powers(), 1, "{p} and {q}");
            let mut outputs = [vec![0.0; y.len()], vec![0.0; y.len()]];
            let [first, second] = &mut outputs;
            tape.run(&y, &y, &[], &mut Scratch::new(), &mut [&mut first[..], &mut second[..]]);
            for (outputs, power) in outputs.iter().zip([p, q]) {
                for (found, y) in outputs.iter().zip(&y) {
                    let expected = y.powf(power);
                    assert!((found / expected - 1.0).abs() < 1e-13, "{y}^{power}: {found}");
                }
            }
        }
        // Neither: the root of a power that might leave the range, and other exponents.
        assert_eq!([pair(2.6, 1.3).powers(), pair(0.1, 0.3).powers()], [2, 2]);
    }

    #[test]
    fn zeros_of_alpha_beta_are_a_power_of_the_prediction() {
        let of = |expressions: &[&Expr]| Tape::compile(expressions).prediction_power();
        for (alpha, beta) in [(0.7, 0.0), (1.3, 1.0), (0.5, 0.3)] {
            let loss = crate::loss::Loss::alpha_beta(alpha, beta).unwrap();
            let zero = loss.at_zero();
            let (b, loss) = (zero.b.expr(), zero.loss.expr());
            let alone = of(&[b]).expect("a power");
            assert!((alone.power - (alpha + beta - 1.0)).abs() < 1e-12 && alone.loss.is_none());
            let both = of(&[b, loss]).expect("a power and the loss");
            let y = 1.7f64;
            let mut outputs = [[0.0]; 2];
            let [first, second] = &mut outputs;
            let tape = Tape::compile(&[b, loss]);
            tape.run(&[0.0], &[y], &[], &mut Scratch::new(), &mut [first, second]);
            let power = y.powf(both.power);
            assert!((outputs[0][0] / power - 1.0).abs() < 1e-12);
            assert!((outputs[1][0] / (both.loss.unwrap() * y * power) - 1.0).abs() < 1e-12);
            assert_eq!(of(&[loss, b]), None);
        }
        let y = Expr::y();
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[&(2.0 * &y)]), None);
        assert_eq!(of(&[&y.pow(0.3), &y.pow(0.7)]), None);
        assert_eq!(of(&[&(1.0 + &y)]), None);
    }

    #[test]
    fn only_the_update_and_the_loss_of_kl_are_a_divergence() {
        let kl = crate::loss::Loss::kl();
        let (a, b, loss) = (kl.a(), kl.b(), kl.loss());
        let is = |outputs: &[&Expr]| Tape::compile(outputs).is_divergence();
        assert!(is(&[a, loss]) && is(&[a, b, loss]) && is(&[loss]));
        let two = Expr::constant(2.0);
        let others: [&[&Expr]; 6] =
            [&[a], &[a, b], &[loss, a], &[a, loss, b], &[b, a, loss], &[a, &two, loss]];
        assert!(others.iter().all(|outputs| !is(outputs)));
        let euclidean = crate::loss::Loss::euclidean();
        assert!(!is(&[euclidean.a(), euclidean.b(), euclidean.loss()]));
    }
}
