//! What is formed of ŷ at implicit zeros whose denominator is a power of ŷ, as under αβ-divergences, in
//! registers ([`register_block`](super::register_block)): of the tape's loops, a sum, a power, two products
//! and the sum of the losses, each would read and write a panel. The powers of a block are computed side by
//! side, as one is a chain of two dozen steps.

use pulp::Simd;

use super::kernel::has_many_registers;
use super::register_block::BlockFormula;
use super::strategy::Power;
use nneinfact_simd::{Elementwise, Real};

impl<T: Elementwise> BlockFormula<T> for Power<T> {
    const OUTPUT: usize = 1;
    const B_IS_ONE: bool = false;
    const READS_X: bool = false;
    const LOSSES_ALWAYS: bool = false;
    const LARGE: bool = false;

    #[inline(always)]
    fn prepare<S: Simd, const M: usize, const V: usize>(
        self,
        simd: S,
        y: &[[T::Vector<S>; V]; M],
    ) -> [[T::Vector<S>; V]; M] {
        let mut b = *y;
        if const { has_many_registers::<S>() } {
            // So many at a time as there are registers for.
            for m in 0..M {
                [b[m]] = T::pow_normal_vectors::<S, 1, V>(simd, &[y[m]], self.fraction);
            }
        } else {
            b = T::pow_normal_vectors::<S, M, V>(simd, y, self.fraction);
        }
        if self.plus_one {
            for m in 0..M {
                for v in 0..V {
                    b[m][v] = <T as Real>::mul(simd, b[m][v], y[m][v]);
                }
            }
        }
        b
    }

    #[inline(always)]
    fn entries<S: Simd>(
        self,
        simd: S,
        _: T::Vector<S>,
        y: T::Vector<S>,
        power: T::Vector<S>,
    ) -> (T::Vector<S>, T::Vector<S>) {
        (power, <T as Real>::mul(simd, y, power))
    }

    #[inline(always)]
    fn add_loss<S: Simd>(
        self,
        simd: S,
        sum: T::Vector<S>,
        y: T::Vector<S>,
        (power, _): (T::Vector<S>, T::Vector<S>),
    ) -> T::Vector<S> {
        T::mul_add(simd, y, power, sum)
    }

    #[inline(always)]
    fn losses<S: Simd>(self, simd: S, sum: T::Vector<S>) -> T::Vector<S> {
        <T as Real>::mul(simd, sum, T::splat(simd, self.loss))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use pulp::Arch;

    use super::super::axis::Run;
    use super::super::evaluate::{EntryBlock, LossAccumulator, RowPanel};
    use super::super::kernel::{MR, MR_LARGE, collect_dot_sums};
    use super::super::register_block::{BlockOutput, BlockPanel};
    use super::super::work::{Source, Wants};
    use super::*;
    use nneinfact_core::data::{Dense, Observations, Prepared, Role};
    use nneinfact_core::engine::LossSums;
    use nneinfact_core::loss::{Loss, Tape};
    use nneinfact_core::plan::OperandSide;
    use nneinfact_simd::instruction_sets;

    fn source<'a>(data: &'a Prepared, tape: &'a Tape, losses: bool, floor: f32) -> Source<'a, f32> {
        let wants = Wants { numerator: false, denominator: true, losses };
        let roles = data.roles();
        Source { data, roles, zeros: true, entry_parameters: &[], scale: 1.0, floor, tape, wants }
    }

    fn tape(alpha: f64, beta: f64, losses: bool) -> Tape {
        let zero = Loss::alpha_beta(alpha, beta).expect("a loss").at_zero();
        let outputs = [zero.b.expr(), zero.loss.expr()];
        Tape::compile(&outputs[..1 + usize::from(losses)])
    }

    #[test]
    fn a_power_is_recognised_where_it_is_one() {
        let of = |alpha, beta, losses, floor| {
            let found = Power::<f32>::of(&tape(alpha, beta, losses), floor);
            found.map(|power| (power.plus_one, power.loss))
        };
        assert_eq!(of(0.7, 0.0, false, 1e-10), Some((false, 0.0)));
        assert!(
            of(0.7, 0.0, true, 1e-10).is_some_and(|(_, loss)| (loss * 0.49 - 1.0).abs() < 1e-6)
        );
        assert!(of(1.3, 1.0, true, 1e-10).is_some_and(|(plus_one, _)| plus_one));
        // An exponent that is too large, and a floor that is none.
        assert_eq!(of(2.2, 1.5, true, 1e-10), None);
        assert_eq!(of(0.7, 0.0, true, 0.0), None);
    }

    /// Numbers in (0, 1] without a pattern.
    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mix = |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 16;
        (0..n).map(|i| (1 + mix(i)) as f32 / 65_536.0).collect()
    }

    fn zeros(rows: usize, columns: usize, withheld: bool) -> Prepared {
        let data = Observations::new(Dense::from_array(&Array2::<f64>::zeros((rows, columns))));
        if !withheld {
            return data.prepare().expect("data");
        }
        let held_out = Array2::from_shape_fn((rows, columns), |(m, n)| (m * 7 + n * 3) % 6 == 1);
        let data = data.held_out_mask(&held_out).expect("a mask");
        data.validation(0.1, 3).expect("a fraction").prepare().expect("data")
    }

    fn near(got: f64, want: f64, what: &str) {
        assert!((got - want).abs() <= 2e-5 * (1.0 + want.abs()), "{what}: {got} {want}");
    }

    /// Powers of a panel, or their sums, and the losses, beside the same entry by entry.
    fn check(
        arch: Arch,
        (rows, columns, depth): (usize, usize, usize),
        side: Option<OperandSide>,
        (alpha, beta): (f64, f64),
        (withheld, losses): (bool, bool),
    ) {
        let data = zeros(rows, columns, withheld);
        let (tape, floor) = (tape(alpha, beta, losses), 0.02);
        let source = source(&data, &tape, losses, floor);
        let (padded, ld) = (rows.next_multiple_of(MR), columns.next_multiple_of(16));
        let (mut r, mut c) = (noise(padded * depth, 1), noise(depth * ld, 2));
        r[rows * depth..].fill(0.0);
        c.chunks_exact_mut(ld).for_each(|row| row[columns..].fill(0.0));
        // So little that some predictions are below the floor.
        c.chunks_exact_mut(ld).for_each(|row| row[0] = 1e-6);

        let mut sums = LossAccumulator::default();
        let mut entries = EntryBlock::new(&source, MR_LARGE, ld);
        let offsets: Vec<usize> = (0..rows).map(|m| m * columns).collect();
        let panel = RowPanel {
            source: &source,
            rows: &offsets,
            ahead: &offsets,
            runs: &[Run { start: 0, len: columns, offset: 0, stride: 1 }],
            data_batch: 0,
            columns,
            ld,
            entries: &mut entries,
            losses: &mut sums,
        };
        let start = MR;
        let mut result = match side {
            None => vec![0.0; padded * ld],
            Some(OperandSide::Lhs) => vec![0.0; (start + padded) * depth * 16],
            Some(OperandSide::Rhs) => vec![0.0; depth * ld],
        };
        let output = match side {
            None => BlockOutput::Entries([&mut [], &mut result]),
            Some(side) => BlockOutput::Sums(side, start, [&mut [], &mut result]),
        };
        let power = Power::of(&tape, floor).expect("a power");
        arch.dispatch(BlockPanel { panel, lhs: &r, rhs: &c, depth, formula: power, output });

        let (mut want, mut by_role) = (Array2::<f64>::zeros((rows, columns)), [0.0; 3]);
        let loss = Loss::alpha_beta(alpha, beta).expect("a loss");
        for ((m, n), want) in want.indexed_iter_mut() {
            let y: f32 = (0..depth).map(|k| r[m * depth + k] * c[k * ld + n]).sum();
            let y = f64::from(y.max(floor));
            let role = data.roles().map_or(Role::Train, |roles| roles.get(m * columns + n));
            *want = if role == Role::Train { y.powf(alpha + beta - 1.0) } else { 0.0 };
            let at = [Role::Train, Role::Validation, Role::HeldOut].iter().position(|r| *r == role);
            by_role[at.expect("none is missing")] += loss.eval_loss(0.0, y, &[]);
        }
        let LossSums { train, validation, held_out, .. } = sums.take();
        for (got, want) in [train, validation, held_out].into_iter().zip(by_role) {
            near(got, if losses { want } else { 0.0 }, "loss");
        }
        match side {
            None => {
                for ((m, n), &want) in want.indexed_iter() {
                    near(f64::from(result[m * ld + n]), want, "entry");
                }
            }
            Some(OperandSide::Lhs) => {
                let mut collected = vec![0.0; (start + padded) * depth];
                collect_dot_sums(arch, &mut result, &mut collected);
                for (m, k) in (0..rows).flat_map(|m| (0..depth).map(move |k| (m, k))) {
                    let want = (0..columns).map(|n| want[[m, n]] * f64::from(c[k * ld + n])).sum();
                    near(f64::from(collected[(start + m) * depth + k]), want, "row");
                }
            }
            Some(OperandSide::Rhs) => {
                for (k, n) in (0..depth).flat_map(|k| (0..columns).map(move |n| (k, n))) {
                    let want = (0..rows).map(|m| want[[m, n]] * f64::from(r[m * depth + k])).sum();
                    near(f64::from(result[k * ld + n]), want, "column");
                }
            }
        }
    }

    #[test]
    fn row_panels_are_those_of_the_entries_one_by_one() {
        let sides = [None, Some(OperandSide::Lhs), Some(OperandSide::Rhs)];
        for (rows, columns) in [(1, 1), (3, 15), (4, 16), (5, 17), (8, 64), (9, 100), (13, 200)] {
            for (arch, depth) in instruction_sets().into_iter().flat_map(|a| [(a, 1), (a, 5)]) {
                for (side, exponents) in
                    sides.into_iter().flat_map(|s| [(s, (0.7, 0.0)), (s, (1.3, 1.0))])
                {
                    for flags in [(false, false), (false, true), (true, true), (true, false)] {
                        // Too few entries for all roles.
                        if flags.0 && rows * columns < 100 {
                            continue;
                        }
                        check(arch, (rows, columns, depth), side, exponents, flags);
                    }
                }
            }
        }
    }
}
