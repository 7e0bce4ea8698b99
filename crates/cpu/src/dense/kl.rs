//! The microkernel of the Kullback–Leibler divergence, the default loss.
//!
//! Prediction, quotient and divergence of a register block are one piece of code, in registers: ŷ is not
//! written to memory and read again. Where K is small, a block's share of the sums is added right there,
//! too, to the numerator and the denominator at once. The memory of the next rows is prefetched block by
//! block, as processors wait where they have a dozen cache lines on their way. It takes up to a tenth less
//! time than one loop after another over a row panel at K up to thirty or so, and the same time beyond.

use pulp::{Simd, WithSimd};

use super::evaluate::RowPanel;
use super::kernel::{MR, MR_LARGE, has_many_registers, has_vectors, microkernel, nr};
use super::work::Wants;
use nneinfact_core::plan::OperandSide;
use nneinfact_simd::{Elementwise, Real};

/// Quotients and divergences of a row panel.
pub(crate) struct KlPanel<'a, T> {
    pub panel: RowPanel<'a, T>,
    /// The A panel, row-major (`[m][depth]`), a multiple of [`MR`] rows.
    pub lhs: &'a [T],
    /// The B panel, with `panel.ld` elements from one of its rows to the next.
    pub rhs: &'a [T],
    pub depth: usize,
    pub output: KlOutput<'a, T>,
}

/// What becomes of `a` and `b`, those of them that are wanted.
pub(crate) enum KlOutput<'a, T> {
    /// They are written out, row by row.
    Entries([&'a mut [T]; 2]),
    /// They are summed up, as [`gemm_nt_dot`](super::kernel::gemm_nt_dot) or
    /// [`gemm_tn`](super::kernel::gemm_tn) does. The number is that of the panel's first row among those
    /// that have sums.
    Sums(OperandSide, usize, [&'a mut [T]; 2]),
}

/// MR of a block whose sums are added at once. Smaller than that of others: the B panel is in the
/// first-level cache, and what is read of the rows is to stay there beside it.
const MR_SUMS: usize = MR;
/// The largest NR of such a block.
pub(super) const NR_SUMS: usize = 4;

impl<T: Elementwise> WithSimd for KlPanel<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let KlPanel { mut panel, lhs, rhs, depth, output } = self;
        let lanes = size_of::<T::Vector<S>>() / T::BYTES;
        let many = const { has_many_registers::<S>() };
        let (rhs, _) = T::as_vectors::<S>(rhs);
        let ld = panel.ld / lanes;
        let mut output = match output {
            KlOutput::Entries(to) => VectorOutput::Entries(to.map(vectors::<S, T>)),
            KlOutput::Sums(side, start, to) => {
                VectorOutput::Sums(side, start, to.map(vectors::<S, T>))
            }
        };
        let step = match output {
            VectorOutput::Entries(_) if many => MR_LARGE,
            _ => MR_SUMS,
        };
        let mut first = 0;
        while first < panel.rows.len() {
            let rows = panel.read(simd, first, step);
            // Blocks without padding, of entries that have no weights, need no weights.
            let plain = if panel.source.weighs() { 0 } else { panel.columns / lanes };
            if !panel.source.weighs() && panel.columns < panel.ld {
                panel.weigh_padding(rows, plain.saturating_sub(NR_SUMS) * lanes);
            }
            let mut kl = KlRows::new(simd, &panel, &lhs[first * depth..], rhs, depth, first, rows);
            let mut j = 0;
            while j < ld {
                let vectors = match (&output, ld - j) {
                    (VectorOutput::Entries(_), left) if many => nr::<S>(left),
                    (VectorOutput::Sums(..), NR_SUMS..) if many => NR_SUMS,
                    (_, 2..) if const { has_vectors::<S>() } => 2,
                    _ => 1,
                };
                let end = j + vectors;
                panel.prefetch(first + step..first + 2 * step, j * lanes..end * lanes);
                macro_rules! block {
                    ($mr:expr, $nr:expr) => {
                        match end <= plain {
                            true => kl.block::<{ $mr }, { $nr }, false>(j, &mut output),
                            false => kl.block::<{ $mr }, { $nr }, true>(j, &mut output),
                        }
                    };
                }
                if const { has_many_registers::<S>() } {
                    match (&output, vectors) {
                        (VectorOutput::Entries(_), 3) => block!(MR_LARGE, 3),
                        (VectorOutput::Entries(_), 2) => block!(MR_LARGE, 2),
                        (VectorOutput::Entries(_), _) => block!(MR_LARGE, 1),
                        (VectorOutput::Sums(..), NR_SUMS) => block!(MR_SUMS, NR_SUMS),
                        (VectorOutput::Sums(..), 2) => block!(MR_SUMS, 2),
                        (VectorOutput::Sums(..), _) => block!(MR_SUMS, 1),
                    }
                } else if const { has_vectors::<S>() } {
                    match vectors {
                        2 => block!(MR_SUMS, 2),
                        _ => block!(MR_SUMS, 1),
                    }
                } else {
                    block!(MR_SUMS, 1);
                }
                j = end;
            }
            let losses = kl.losses;
            let roles = if panel.source.weighs() { 3 } else { 1 };
            panel.losses.collect(bytemuck::cast_slice::<_, T>(&losses[..roles]), lanes);
            first += step;
        }
    }
}

#[inline(always)]
pub(super) fn vectors<S: Simd, T: Real>(values: &mut [T]) -> &mut [T::Vector<S>] {
    T::as_vectors_mut::<S>(values).0
}

/// [`KlOutput`], in vectors.
pub(super) enum VectorOutput<'a, V> {
    Entries([&'a mut [V]; 2]),
    Sums(OperandSide, usize, [&'a mut [V]; 2]),
}

/// Some rows, of which register blocks are taken from left to right.
struct KlRows<'a, S: Simd, T: Elementwise> {
    simd: S,
    /// The A panel from the first of the rows on.
    lhs: &'a [T],
    rhs: &'a [T::Vector<S>],
    depth: usize,
    /// Vectors from one row of `rhs`, `x` and the weights to the next.
    ld: usize,
    floor: T::Vector<S>,
    x: &'a [T::Vector<S>],
    /// Weights for training, validation and held-out entries.
    weights: [&'a [T::Vector<S>]; 3],
    withheld: [bool; 2],
    wants: Wants,
    /// The number of the first row in the panel, and how many rows there are: the others of a block are
    /// padding.
    first: usize,
    rows: usize,
    /// Sums of losses, for each of the weights.
    losses: [T::Vector<S>; 3],
}

impl<'a, S: Simd, T: Elementwise> KlRows<'a, S, T> {
    /// The rows of a panel from the row `first` on, whose entries are read.
    #[inline(always)]
    fn new(
        simd: S,
        panel: &'a RowPanel<'_, T>,
        lhs: &'a [T],
        rhs: &'a [T::Vector<S>],
        depth: usize,
        first: usize,
        rows: usize,
    ) -> Self {
        let [train, validation, held_out] = panel.entries.weights();
        KlRows {
            simd,
            lhs,
            rhs,
            depth,
            ld: panel.ld / (size_of::<T::Vector<S>>() / T::BYTES),
            floor: T::splat(simd, panel.source.floor),
            x: T::as_vectors::<S>(&panel.entries.x).0,
            weights: [
                T::as_vectors::<S>(train).0,
                T::as_vectors::<S>(validation).0,
                T::as_vectors::<S>(held_out).0,
            ],
            withheld: panel.source.withheld(),
            wants: panel.source.wants,
            first,
            rows,
            losses: [T::splat(simd, T::ZERO); 3],
        }
    }

    /// The `M` rows by `V` vectors from vector `j` on, with weights or without any.
    #[inline(always)]
    fn block<const M: usize, const V: usize, const WEIGHTED: bool>(
        &mut self,
        j: usize,
        output: &mut VectorOutput<'_, T::Vector<S>>,
    ) {
        let KlRows { simd, lhs, rhs, depth, ld, floor, x, weights, rows, .. } = *self;
        let zero = T::splat(simd, T::ZERO);
        // Padding rows repeat the last row here, and get a quotient of 0.
        let lhs = &lhs[..(M * depth).min(lhs.len())];
        let products = microkernel::<S, T, M, V>(simd, lhs, rows, depth, depth, rhs, ld, j);
        // In an array of its own: the one that the products are summed in is to stay in registers.
        let mut a = [[floor; V]; M];
        for m in 0..M {
            for v in 0..V {
                a[m][v] = T::at_least(simd, products[m][v], floor);
            }
        }
        if WEIGHTED {
            let mut losses = [[zero; V]; M];
            for m in 0..M {
                if m >= rows {
                    a[m] = [zero; V];
                    continue;
                }
                let (x, w) = (&x[m * ld + j..][..V], &weights[0][m * ld + j..][..V]);
                for v in 0..V {
                    let quotient;
                    (quotient, losses[m][v]) = divergence::<S, T>(simd, x[v], a[m][v]);
                    a[m][v] = weighted::<S, T>(simd, quotient, w[v]);
                }
            }
            let asked = [true, self.withheld[0], self.withheld[1]];
            let by_role = weights.iter().zip(&mut self.losses).zip(asked);
            for ((weights, sum), _) in by_role.filter(|(_, asked)| *asked) {
                for m in 0..M.min(rows) {
                    let weights = &weights[m * ld + j..][..V];
                    for v in 0..V {
                        let loss = weighted::<S, T>(simd, losses[m][v], weights[v]);
                        *sum = <T as Real>::add(simd, *sum, loss);
                    }
                }
            }
        } else {
            let mut sum = self.losses[0];
            for m in 0..M {
                if m >= rows {
                    a[m] = [zero; V];
                    continue;
                }
                let x = &x[m * ld + j..][..V];
                for v in 0..V {
                    let loss;
                    (a[m][v], loss) = divergence::<S, T>(simd, x[v], a[m][v]);
                    sum = <T as Real>::add(simd, sum, loss);
                }
            }
            self.losses[0] = sum;
        }

        if self.wants.numerator {
            self.put::<M, V>(j, lhs, &a, 0, output);
        }
        if self.wants.denominator {
            let mut b = [[T::splat(simd, T::ONE); V]; M];
            if WEIGHTED {
                for m in 0..M.min(rows) {
                    b[m].copy_from_slice(&weights[0][m * ld + j..][..V]);
                }
            }
            self.put::<M, V>(j, lhs, &b, 1, output);
        }
    }

    /// Writes values of a block out, or adds them up.
    #[inline(always)]
    fn put<const M: usize, const V: usize>(
        &self,
        j: usize,
        lhs: &[T],
        values: &[[T::Vector<S>; V]; M],
        which: usize,
        output: &mut VectorOutput<'_, T::Vector<S>>,
    ) {
        let KlRows { simd, rhs, depth, ld, .. } = *self;
        match output {
            VectorOutput::Entries(to) => {
                let rows = to[which][self.first * ld..].chunks_exact_mut(ld);
                for (values, to) in values.iter().zip(rows) {
                    to[j..j + V].copy_from_slice(values);
                }
            }
            VectorOutput::Sums(side, start, to) => {
                // Blocks whose sums are added at once are never taller: this is not to be compiled.
                if const { M == MR_SUMS } {
                    let to = &mut *to[which];
                    match side {
                        OperandSide::Lhs => {
                            let sums = &mut to[(*start + self.first) * depth..][..M * depth];
                            add_nt_dot::<S, T, M, V>(simd, values, rhs, ld, j, depth, sums);
                        }
                        OperandSide::Rhs => {
                            add_tn::<S, T, M, V>(simd, values, lhs, ld, j, depth, to);
                        }
                    }
                }
            }
        }
    }
}

/// The quotient of x and ŷ, and the Kullback–Leibler divergence of ŷ from x.
#[inline(always)]
fn divergence<S: Simd, T: Elementwise>(
    simd: S,
    x: T::Vector<S>,
    y: T::Vector<S>,
) -> (T::Vector<S>, T::Vector<S>) {
    let quotient = <T as Real>::div(simd, x, y);
    // Of a quotient that is 0 or subnormal the logarithm is some number, which does not matter: beside
    // y, so many times x is nothing.
    let log = T::ln_normal_vector(simd, quotient);
    (quotient, T::mul_add(simd, x, log, <T as Real>::sub(simd, y, x)))
}

/// `x · w`, and 0 where the weight is, whatever `x` is.
#[inline(always)]
pub(super) fn weighted<S: Simd, T: Real>(
    simd: S,
    x: T::Vector<S>,
    w: T::Vector<S>,
) -> T::Vector<S> {
    T::choose(simd, w, <T as Real>::mul(simd, x, w), T::splat(simd, T::ZERO))
}

/// A·Bᵀ of a block: `sums[m, k] += Σ_n a[m, n] · rhs[k, n]` over the vectors n from `j` on.
#[inline(always)]
pub(super) fn add_nt_dot<S: Simd, T: Real, const M: usize, const V: usize>(
    simd: S,
    a: &[[T::Vector<S>; V]; M],
    rhs: &[T::Vector<S>],
    ld: usize,
    j: usize,
    depth: usize,
    sums: &mut [T::Vector<S>],
) {
    let (left, right) = sums.split_at_mut(2 * depth);
    let ((s0, s1), (s2, s3)) = (left.split_at_mut(depth), right.split_at_mut(depth));
    let sums = s0.iter_mut().zip(s1).zip(s2.iter_mut().zip(s3));
    for (rhs, ((s0, s1), (s2, s3))) in rhs.chunks_exact(ld).zip(sums) {
        let rhs = &rhs[j..j + V];
        let mut sums = [*s0, *s1, *s2, *s3];
        for v in 0..V {
            for m in 0..MR_SUMS {
                sums[m] = T::mul_add(simd, a[m][v], rhs[v], sums[m]);
            }
        }
        [*s0, *s1, *s2, *s3] = sums;
    }
}

/// Aᵀ·B of a block: `sums[k, n] += Σ_m lhs[m, k] · a[m, n]` for the vectors n from `j` on.
#[inline(always)]
pub(super) fn add_tn<S: Simd, T: Real, const M: usize, const V: usize>(
    simd: S,
    a: &[[T::Vector<S>; V]; M],
    lhs: &[T],
    ld: usize,
    j: usize,
    depth: usize,
    sums: &mut [T::Vector<S>],
) {
    let (left, right) = lhs.split_at(2 * depth);
    let ((r0, r1), (r2, r3)) = (left.split_at(depth), right.split_at(depth));
    let lhs = r0.iter().zip(r1).zip(r2.iter().zip(r3));
    for (sums, ((&r0, &r1), (&r2, &r3))) in sums.chunks_exact_mut(ld).zip(lhs) {
        let sums = &mut sums[j..j + V];
        let [r0, r1] = [T::splat(simd, r0), T::splat(simd, r1)];
        let [r2, r3] = [T::splat(simd, r2), T::splat(simd, r3)];
        let r = [r0, r1, r2, r3];
        for v in 0..V {
            let mut sum = sums[v];
            for m in 0..MR_SUMS {
                sum = T::mul_add(simd, r[m], a[m][v], sum);
            }
            sums[v] = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use pulp::Arch;

    use super::super::axis::Run;
    use super::super::evaluate::{EntryBlock, LossAccumulator};
    use super::super::kernel;
    use super::super::work::Source;
    use super::*;
    use nneinfact_core::data::{Dense, Observations, Prepared, Role};
    use nneinfact_core::loss::{Loss, Tape};
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
            None => KlOutput::Entries([a, b]),
            Some(side) => KlOutput::Sums(side, start, [a, b]),
        };
        arch.dispatch(KlPanel { panel, lhs: &typed(&r), rhs: &typed(&c), depth, output });

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
