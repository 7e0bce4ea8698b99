//! What is formed of ŷ under the Kullback–Leibler divergence, the default loss, in registers
//! ([`register_block`](super::register_block)). It takes up to a tenth less time than one loop after another
//! over a row panel at K up to thirty or so, and the same time beyond.

use pulp::Simd;

use super::register_block::BlockFormula;
use nneinfact_simd::{Elementwise, Real};

/// The quotient of x and ŷ, and the Kullback–Leibler divergence of ŷ from x.
#[derive(Clone, Copy)]
pub(crate) struct Kl;

impl<T: Elementwise> BlockFormula<T> for Kl {
    const OUTPUT: usize = 0;
    const B_IS_ONE: bool = true;
    const READS_X: bool = true;
    const LOSSES_ALWAYS: bool = true;
    const LARGE: bool = true;

    #[inline(always)]
    fn prepare<S: Simd, const M: usize, const V: usize>(
        self,
        _: S,
        y: &[[T::Vector<S>; V]; M],
    ) -> [[T::Vector<S>; V]; M] {
        *y
    }

    #[inline(always)]
    fn entries<S: Simd>(
        self,
        simd: S,
        x: T::Vector<S>,
        y: T::Vector<S>,
        _: T::Vector<S>,
    ) -> (T::Vector<S>, T::Vector<S>) {
        let quotient = <T as Real>::div(simd, x, y);
        // Of a quotient that is 0 or subnormal the logarithm is some number, which does not matter: beside
        // y, so many times x is nothing.
        let log = T::ln_normal_vector(simd, quotient);
        (quotient, T::mul_add(simd, x, log, <T as Real>::sub(simd, y, x)))
    }

    #[inline(always)]
    fn add_loss<S: Simd>(
        self,
        simd: S,
        sum: T::Vector<S>,
        _: T::Vector<S>,
        (_, loss): (T::Vector<S>, T::Vector<S>),
    ) -> T::Vector<S> {
        <T as Real>::add(simd, sum, loss)
    }

    #[inline(always)]
    fn losses<S: Simd>(self, _: S, sum: T::Vector<S>) -> T::Vector<S> {
        sum
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use pulp::Arch;

    use super::super::axis::Run;
    use super::super::evaluate::{EntryBlock, LossAccumulator, RowPanel};
    use super::super::kernel::{self, MR, MR_LARGE};
    use super::super::register_block::{BlockOutput, BlockPanel};
    use super::super::work::{Source, Wants};
    use super::*;
    use nneinfact_core::data::{Dense, Observations, Prepared, Role};
    use nneinfact_core::loss::{Loss, Tape};
    use nneinfact_core::plan::OperandSide;
    use nneinfact_simd::instruction_sets;

    /// Numbers in (0, 1] without a pattern.
    fn noise(n: usize, seed: u32) -> Vec<f64> {
        let mix = |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 16;
        (0..n).map(|i| f64::from(1 + mix(i)) / 65_536.0).collect()
    }

    fn counts(rows: usize, columns: usize, weighted: bool) -> Prepared {
        let pick = |m: usize, n: usize, of: usize| (m * 7 + n * 3) % of;
        let mut x = Array2::from_shape_fn((rows, columns), |(m, n)| pick(m, n, 5) as f64);
        if !weighted {
            return Observations::new(Dense::from_array(&x)).prepare().unwrap();
        }
        let pick_one_of =
            |of: usize| Array2::from_shape_fn((rows, columns), |(m, n)| pick(m, n, of) == 1);
        let weights = Array2::from_shape_fn((rows, columns), |(m, n)| 0.5 + pick(m, n, 4) as f64);
        // A missing entry may hold anything.
        x.zip_mut_with(&pick_one_of(11), |x, &missing| *x = if missing { f64::NAN } else { *x });
        let observations = Observations::new(Dense::from_array(&x));
        let observations = observations.mask(&pick_one_of(11).mapv(|missing| !missing)).unwrap();
        let observations = observations.held_out_mask(&pick_one_of(6)).unwrap();
        let observations = observations.weights(Dense::from_array(&weights)).unwrap();
        observations.validation(0.1, 3).unwrap().prepare().unwrap()
    }

    /// `a` and `b` of all entries, times their weights, and the losses for training, validation and
    /// held-out entries, computed one by one.
    fn expected<T: Elementwise>(
        data: &Prepared,
        (rows, columns): (usize, usize),
        predict: impl Fn(usize, usize) -> f64,
    ) -> ([Array2<f64>; 2], [f64; 3]) {
        let mut want = [Array2::zeros((rows, columns)), Array2::zeros((rows, columns))];
        let mut sums = [0.0; 3];
        for m in 0..rows {
            for n in 0..columns {
                let at = m * columns + n;
                let role = data.roles().map_or(Role::Train, |roles| roles.get(at));
                let mut weight = [T::ONE];
                if let Some(weights) = data.weights() {
                    weights.load(at, 1, &mut weight);
                }
                let w = weight[0].to_f64();
                let mut x = [T::ZERO];
                data.values().load(at, 1, &mut x);
                let (x, y) = (x[0].to_f64(), predict(m, n));
                let loss = w * (if x > 0.0 { x * (x / y).ln() - x + y } else { y });
                match role {
                    Role::Train => {
                        (want[0][[m, n]], want[1][[m, n]]) = (w * x / y, w);
                        sums[0] += loss;
                    }
                    Role::Validation => sums[1] += loss,
                    Role::HeldOut => sums[2] += loss,
                    Role::Missing => {}
                }
            }
        }
        (want, sums)
    }

    /// Compares `a` and `b`, or their sums, and the losses with the same entry by entry.
    // Long, as it builds everything that a panel refers to.
    fn check<T: Elementwise>(
        arch: Arch,
        (rows, columns, depth): (usize, usize, usize),
        side: Option<OperandSide>,
        data: &Prepared,
        [numerator, denominator]: [bool; 2],
    ) {
        let loss = Loss::kl();
        let mut outputs = vec![loss.divergence()];
        if denominator {
            outputs.insert(0, loss.b());
        }
        if numerator {
            outputs.insert(0, loss.a());
        }
        let tape = Tape::compile(&outputs);
        assert!(tape.is_divergence());
        let floor = 0.02;
        let source = Source {
            data,
            roles: data.roles(),
            zeros: false,
            entry_parameters: &[],
            scale: T::ONE,
            floor: T::from_f64(floor),
            tape: &tape,
            wants: Wants { numerator, denominator, losses: true },
        };
        let padded = rows.next_multiple_of(MR);
        let ld = columns.next_multiple_of(T::MAX_LANES);
        let typed = |x: &[f64]| x.iter().map(|&x| T::from_f64(x)).collect::<Vec<T>>();
        let (mut r, mut c) = (noise(padded * depth, 1), noise(depth * ld, 2));
        r[rows * depth..].fill(0.0);
        c.chunks_exact_mut(ld).for_each(|row| row[columns..].fill(0.0));
        // So little that some predictions are below the floor.
        c.chunks_exact_mut(ld).for_each(|row| row[0] = 1e-6);

        let mut losses = LossAccumulator::default();
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
            losses: &mut losses,
        };
        let start = MR;
        let size = match side {
            None => padded * ld,
            Some(OperandSide::Lhs) => (start + padded) * depth * T::MAX_LANES,
            Some(OperandSide::Rhs) => depth * ld,
        };
        let mut results = [vec![T::ZERO; size], vec![T::ZERO; size]];
        let [a, b] = &mut results;
        let output = match side {
            None => BlockOutput::Entries([a, b]),
            Some(side) => BlockOutput::Sums(side, start, [a, b]),
        };
        let (lhs, rhs) = (&typed(&r), &typed(&c));
        arch.dispatch(BlockPanel { panel, lhs, rhs, depth, formula: Kl, output });

        let near = |got: f64, want: f64, what: &str| {
            let tolerance = if T::BYTES == 4 { 2e-5 } else { 1e-12 };
            let off = (got - want).abs();
            assert!(off <= tolerance * (1.0 + want.abs()), "{what}: {got} {want}");
        };
        let predict = |m: usize, n: usize| -> f64 {
            let y: f64 = (0..depth).map(|k| r[m * depth + k] * c[k * ld + n]).sum();
            y.max(floor)
        };
        let (want, sums) = expected::<T>(data, (rows, columns), predict);
        let got = losses.take();
        near(got.train, sums[0], "train");
        near(got.validation, sums[1], "validation");
        near(got.held_out, sums[2], "held out");

        for ((want, wanted), result) in want.iter().zip([numerator, denominator]).zip(&mut results)
        {
            if !wanted {
                assert!(result.iter().all(|&x| x == T::ZERO));
                continue;
            }
            match side {
                None => {
                    for ((m, n), &want) in want.indexed_iter() {
                        near(result[m * ld + n].to_f64(), want, "entry");
                    }
                }
                Some(OperandSide::Lhs) => {
                    let mut collected = vec![T::ZERO; (start + padded) * depth];
                    kernel::collect_dot_sums(arch, result, &mut collected);
                    for (m, k) in (0..rows).flat_map(|m| (0..depth).map(move |k| (m, k))) {
                        let want = (0..columns).map(|n| want[[m, n]] * c[k * ld + n]).sum();
                        near(collected[(start + m) * depth + k].to_f64(), want, "row");
                    }
                }
                Some(OperandSide::Rhs) => {
                    for (k, n) in (0..depth).flat_map(|k| (0..columns).map(move |n| (k, n))) {
                        let want = (0..rows).map(|m| want[[m, n]] * r[m * depth + k]).sum();
                        near(result[k * ld + n].to_f64(), want, "column");
                    }
                }
            }
        }
    }

    #[test]
    fn row_panels_are_those_of_the_entries_one_by_one() {
        for (rows, columns) in [(1, 1), (3, 15), (4, 16), (5, 17), (8, 64), (9, 100), (13, 200)] {
            for weighted in [false, true] {
                // Too few entries for all roles.
                if weighted && rows * columns < 100 {
                    continue;
                }
                let data = counts(rows, columns, weighted);
                for arch in instruction_sets() {
                    for depth in [1, 2, 5, 33] {
                        let size = (rows, columns, depth);
                        for side in [None, Some(OperandSide::Lhs), Some(OperandSide::Rhs)] {
                            for wanted in [[false, false], [true, false], [true, true]] {
                                check::<f32>(arch, size, side, &data, wanted);
                                check::<f64>(arch, size, side, &data, wanted);
                            }
                        }
                    }
                }
            }
        }
    }
}
