//! The microkernel of implicit zeros whose denominator is a power of ŷ, as under αβ-divergences.
//!
//! Prediction, power and loss of a register block are one piece of code, in registers, as in `kl`: of the
//! tape's loops, a sum, a power, two products and the sum of the losses, each would read and write a
//! panel. The powers of a block are computed side by side, as one is a chain of two dozen steps.

use pulp::{Simd, WithSimd};

use super::evaluate::RowPanel;
use super::kernel::{MR, has_many_registers, has_vectors, microkernel};
use super::kl::{NR_SUMS, VectorOutput, add_nt_dot, add_tn, vectors, weighted};
use super::strategy::Power;
use nneinfact_core::plan::OperandSide;
use nneinfact_simd::{Elementwise, Real};

/// Powers and losses of a row panel.
pub(crate) struct PowerPanel<'a, T: Elementwise> {
    pub panel: RowPanel<'a, T>,
    /// The A panel, row-major (`[m][depth]`), a multiple of [`MR`] rows.
    pub lhs: &'a [T],
    /// The B panel, with `panel.ld` elements from one of its rows to the next.
    pub rhs: &'a [T],
    pub depth: usize,
    pub power: Power<T>,
    pub output: PowerOutput<'a, T>,
}

/// What becomes of the powers.
pub(crate) enum PowerOutput<'a, T> {
    /// They are written out, row by row.
    Entries(&'a mut [T]),
    /// They are summed up, as by [`KlOutput::Sums`](super::kl::KlOutput::Sums).
    Sums(OperandSide, usize, &'a mut [T]),
}

impl<T: Elementwise> WithSimd for PowerPanel<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let PowerPanel { mut panel, lhs, rhs, depth, power, output } = self;
        let lanes = size_of::<T::Vector<S>>() / T::BYTES;
        let (rhs, _) = T::as_vectors::<S>(rhs);
        let ld = panel.ld / lanes;
        let mut output = match output {
            PowerOutput::Entries(to) => VectorOutput::Entries([&mut [], vectors::<S, T>(to)]),
            PowerOutput::Sums(side, start, to) => {
                VectorOutput::Sums(side, start, [&mut [], vectors::<S, T>(to)])
            }
        };
        let mut first = 0;
        while first < panel.rows.len() {
            let rows = panel.read(simd, first, MR);
            // Blocks without padding, of entries that have no weights, need no weights.
            let plain = if panel.source.weighs() { 0 } else { panel.columns / lanes };
            if !panel.source.weighs() && panel.columns < panel.ld {
                panel.weigh_padding(rows, plain.saturating_sub(NR_SUMS) * lanes);
            }
            let lhs = &lhs[first * depth..];
            let mut block_rows = PowerRows::new(simd, &panel, lhs, rhs, depth, power, first, rows);
            let mut j = 0;
            while j < ld {
                let vectors = match ld - j {
                    NR_SUMS.. if const { has_many_registers::<S>() } => NR_SUMS,
                    2.. if const { has_vectors::<S>() } => 2,
                    _ => 1,
                };
                let end = j + vectors;
                panel.prefetch(first + MR..first + 2 * MR, j * lanes..end * lanes);
                macro_rules! block {
                    ($nr:expr) => {
                        match end <= plain {
                            true => block_rows.block::<{ $nr }, false>(j, &mut output),
                            false => block_rows.block::<{ $nr }, true>(j, &mut output),
                        }
                    };
                }
                if const { has_many_registers::<S>() } && vectors == NR_SUMS {
                    block!(NR_SUMS);
                } else if const { has_vectors::<S>() } && vectors == 2 {
                    block!(2);
                } else {
                    block!(1);
                }
                j = end;
            }
            let mut losses = block_rows.losses;
            for sum in &mut losses {
                *sum = <T as Real>::mul(simd, *sum, T::splat(simd, power.loss));
            }
            let roles = if panel.source.weighs() { 3 } else { 1 };
            panel.losses.collect(bytemuck::cast_slice::<_, T>(&losses[..roles]), lanes);
            first += MR;
        }
    }
}

/// Some rows, of which register blocks are taken from left to right.
struct PowerRows<'a, S: Simd, T: Elementwise> {
    simd: S,
    /// The A panel from the first of the rows on.
    lhs: &'a [T],
    rhs: &'a [T::Vector<S>],
    depth: usize,
    /// Vectors from one row of `rhs` and the weights to the next.
    ld: usize,
    floor: T::Vector<S>,
    power: Power<T>,
    /// Weights for training, validation and held-out entries.
    weights: [&'a [T::Vector<S>]; 3],
    /// Which of the weights losses are asked for with.
    asked: [bool; 3],
    /// The number of the first row in the panel, and how many rows there are: the others of a block are
    /// padding.
    first: usize,
    rows: usize,
    /// Sums of ŷ times its power, for each of the weights.
    losses: [T::Vector<S>; 3],
}

impl<'a, S: Simd, T: Elementwise> PowerRows<'a, S, T> {
    /// The rows of a panel from the row `first` on, whose entries are read.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn new(
        simd: S,
        panel: &'a RowPanel<'_, T>,
        lhs: &'a [T],
        rhs: &'a [T::Vector<S>],
        depth: usize,
        power: Power<T>,
        first: usize,
        rows: usize,
    ) -> Self {
        let [train, validation, held_out] = panel.entries.weights();
        let losses = panel.source.wants.losses;
        let withheld = panel.source.withheld();
        PowerRows {
            simd,
            lhs,
            rhs,
            depth,
            ld: panel.ld / (size_of::<T::Vector<S>>() / T::BYTES),
            floor: T::splat(simd, panel.source.floor),
            power,
            weights: [
                T::as_vectors::<S>(train).0,
                T::as_vectors::<S>(validation).0,
                T::as_vectors::<S>(held_out).0,
            ],
            asked: [losses, withheld[0], withheld[1]],
            first,
            rows,
            losses: [T::splat(simd, T::ZERO); 3],
        }
    }

    /// The [`MR`] rows by `V` vectors from vector `j` on, with weights or without any.
    #[inline(always)]
    fn block<const V: usize, const WEIGHTED: bool>(
        &mut self,
        j: usize,
        output: &mut VectorOutput<'_, T::Vector<S>>,
    ) {
        let PowerRows { simd, lhs, rhs, depth, ld, floor, power, rows, .. } = *self;
        let zero = T::splat(simd, T::ZERO);
        // Padding rows repeat the last row here, and get a power of 0.
        let lhs = &lhs[..(MR * depth).min(lhs.len())];
        let products = microkernel::<S, T, MR, V>(simd, lhs, rows, depth, depth, rhs, ld, j);
        let mut y = [[floor; V]; MR];
        for m in 0..MR {
            for v in 0..V {
                y[m][v] = T::at_least(simd, products[m][v], floor);
            }
        }
        let mut b = y;
        if const { has_many_registers::<S>() } {
            // So many at a time as there are registers for.
            for m in 0..MR {
                [b[m]] = T::pow_normal_vectors::<S, 1, V>(simd, &[y[m]], power.fraction);
            }
        } else {
            b = T::pow_normal_vectors::<S, MR, V>(simd, &y, power.fraction);
        }
        if power.plus_one {
            for m in 0..MR {
                for v in 0..V {
                    b[m][v] = <T as Real>::mul(simd, b[m][v], y[m][v]);
                }
            }
        }
        b.iter_mut().skip(rows).for_each(|padding| *padding = [zero; V]);
        match WEIGHTED {
            true => self.add_weighted_losses(j, &y, &b),
            false if self.asked[0] => {
                let mut sum = self.losses[0];
                for m in 0..MR {
                    for v in 0..V {
                        sum = T::mul_add(simd, y[m][v], b[m][v], sum);
                    }
                }
                self.losses[0] = sum;
            }
            false => {}
        }
        if WEIGHTED {
            for (m, b) in b.iter_mut().enumerate().take(rows) {
                let weights = &self.weights[0][m * ld + j..][..V];
                for (b, &weight) in b.iter_mut().zip(weights) {
                    *b = weighted::<S, T>(simd, *b, weight);
                }
            }
        }
        match output {
            VectorOutput::Entries([_, to]) => {
                let to = to[self.first * ld..].chunks_exact_mut(ld);
                for (values, to) in b.iter().zip(to) {
                    to[j..j + V].copy_from_slice(values);
                }
            }
            VectorOutput::Sums(OperandSide::Lhs, start, [_, to]) => {
                let sums = &mut to[(*start + self.first) * depth..][..MR * depth];
                add_nt_dot::<S, T, MR, V>(simd, &b, rhs, ld, j, depth, sums);
            }
            VectorOutput::Sums(OperandSide::Rhs, _, [_, to]) => {
                add_tn::<S, T, MR, V>(simd, &b, lhs, ld, j, depth, to);
            }
        }
    }

    /// Adds the losses of a block by the roles of its entries.
    #[inline(always)]
    fn add_weighted_losses<const V: usize>(
        &mut self,
        j: usize,
        y: &[[T::Vector<S>; V]; MR],
        b: &[[T::Vector<S>; V]; MR],
    ) {
        let (simd, ld) = (self.simd, self.ld);
        let by_role = self.weights.iter().zip(&mut self.losses).zip(self.asked);
        for ((weights, sum), _) in by_role.filter(|(_, asked)| *asked) {
            for m in 0..MR.min(self.rows) {
                let weights = &weights[m * ld + j..][..V];
                for v in 0..V {
                    let loss = <T as Real>::mul(simd, y[m][v], b[m][v]);
                    let loss = weighted::<S, T>(simd, loss, weights[v]);
                    *sum = <T as Real>::add(simd, *sum, loss);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use pulp::Arch;

    use super::super::axis::Run;
    use super::super::evaluate::{EntryBlock, LossAccumulator};
    use super::super::kernel::{MR_LARGE, collect_dot_sums};
    use super::super::work::{Source, Wants};
    use super::*;
    use nneinfact_core::data::{Dense, Observations, Prepared, Role};
    use nneinfact_core::engine::LossSums;
    use nneinfact_core::loss::{Loss, Tape};
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
            None => PowerOutput::Entries(&mut result),
            Some(side) => PowerOutput::Sums(side, start, &mut result),
        };
        let power = Power::of(&tape, floor).expect("a power");
        arch.dispatch(PowerPanel { panel, lhs: &r, rhs: &c, depth, power, output });

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
