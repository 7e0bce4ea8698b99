//! Microkernels that keep ŷ of a register block in registers, whatever is formed of it there.
//!
//! Prediction, `a` or `b` and loss of a register block are one piece of code: ŷ is not written to memory
//! and read again. Where K is small, a block's share of the sums is added right there, too. The memory of
//! the next rows is prefetched block by block, as processors wait where they have a dozen cache lines on
//! their way. What is formed of ŷ is a [`BlockFormula`]: `kl` and `power` have one each.

use pulp::{Simd, WithSimd};

use super::evaluate::{BlockRoles, RowPanel};
use super::kernel::{MR, MR_LARGE, has_many_registers, has_vectors, microkernel, nr};
use nneinfact_core::data::Role;
use nneinfact_core::plan::OperandSide;
use nneinfact_simd::{Elementwise, Real};

/// What is formed of the predictions of a register block: one of `a` and `b`, and the loss.
pub(crate) trait BlockFormula<T: Elementwise>: Copy {
    /// Which it is: 0 for `a`, 1 for `b`.
    const OUTPUT: usize;
    /// Whether `b` is 1 everywhere, where it is not what is formed.
    const B_IS_ONE: bool;
    /// Whether data are read.
    const READS_X: bool;
    /// Whether losses are always wanted.
    const LOSSES_ALWAYS: bool;
    /// Whether blocks whose entries are written out are of [`MR_LARGE`] rows where there are registers for
    /// them.
    const LARGE: bool;

    /// What is computed of a whole block at once.
    fn prepare<S: Simd, const M: usize, const V: usize>(
        self,
        simd: S,
        y: &[[T::Vector<S>; V]; M],
    ) -> [[T::Vector<S>; V]; M];

    /// Value and loss of some entries from x, ŷ and what was prepared.
    fn entries<S: Simd>(
        self,
        simd: S,
        x: T::Vector<S>,
        y: T::Vector<S>,
        prepared: T::Vector<S>,
    ) -> (T::Vector<S>, T::Vector<S>);

    /// A sum of losses plus those of some entries, whose values and losses are given.
    fn add_loss<S: Simd>(
        self,
        simd: S,
        sum: T::Vector<S>,
        y: T::Vector<S>,
        both: (T::Vector<S>, T::Vector<S>),
    ) -> T::Vector<S>;

    /// The losses that a sum of them stands for.
    fn losses<S: Simd>(self, simd: S, sum: T::Vector<S>) -> T::Vector<S>;
}

/// Values and losses of a row panel.
pub(crate) struct BlockPanel<'a, T, F> {
    pub panel: RowPanel<'a, T>,
    /// The A panel, row-major (`[m][depth]`), a multiple of [`MR`] rows.
    pub lhs: &'a [T],
    /// The B panel, with `panel.ld` elements from one of its rows to the next.
    pub rhs: &'a [T],
    pub depth: usize,
    pub formula: F,
    pub output: BlockOutput<'a, T>,
}

/// What becomes of `a` and `b`, those of them that are wanted.
pub(crate) enum BlockOutput<'a, T> {
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
const NR_SUMS: usize = 4;

impl<T: Elementwise, F: BlockFormula<T>> WithSimd for BlockPanel<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let BlockPanel { mut panel, lhs, rhs, depth, formula, output } = self;
        let lanes = size_of::<T::Vector<S>>() / T::BYTES;
        let (rhs, _) = T::as_vectors::<S>(rhs);
        let ld = panel.ld / lanes;
        let mut output = match output {
            BlockOutput::Entries(to) => VectorOutput::Entries(to.map(vectors::<S, T>)),
            BlockOutput::Sums(side, start, to) => {
                VectorOutput::Sums(side, start, to.map(vectors::<S, T>))
            }
        };
        let large = const { has_many_registers::<S>() && F::LARGE }
            && matches!(output, VectorOutput::Entries(_));
        let step = if large { MR_LARGE } else { MR_SUMS };
        let mut first = 0;
        while first < panel.rows.len() {
            let rows = panel.read(simd, first, step);
            // Blocks without padding, of entries that all count once, need no roles.
            let plain = if panel.source.weighs() { 0 } else { panel.columns / lanes };
            if !panel.source.weighs() && panel.columns < panel.ld {
                panel.tell_padding(rows);
            }
            let lhs = &lhs[first * depth..];
            let mut block_rows =
                BlockRows::new(simd, &panel, lhs, rhs, depth, formula, first, rows);
            let mut j = 0;
            while j < ld {
                let vectors = match ld - j {
                    left if large => nr::<S>(left),
                    NR_SUMS.. if const { has_many_registers::<S>() } => NR_SUMS,
                    2.. if const { has_vectors::<S>() } => 2,
                    _ => 1,
                };
                let end = j + vectors;
                panel.prefetch(first + step..first + 2 * step, j * lanes..end * lanes);
                macro_rules! block {
                    ($mr:expr, $nr:expr) => {
                        match end <= plain {
                            true => block_rows.block::<{ $mr }, { $nr }, false>(j, &mut output),
                            false => block_rows.block::<{ $mr }, { $nr }, true>(j, &mut output),
                        }
                    };
                }
                if const { has_many_registers::<S>() && F::LARGE } && large {
                    match vectors {
                        3 => block!(MR_LARGE, 3),
                        2 => block!(MR_LARGE, 2),
                        _ => block!(MR_LARGE, 1),
                    }
                } else if const { has_many_registers::<S>() } && vectors == NR_SUMS {
                    block!(MR_SUMS, NR_SUMS);
                } else if const { has_vectors::<S>() } && vectors == 2 {
                    block!(MR_SUMS, 2);
                } else {
                    block!(MR_SUMS, 1);
                }
                j = end;
            }
            let mut losses = block_rows.losses;
            for sum in &mut losses {
                *sum = formula.losses(simd, *sum);
            }
            let roles = if panel.source.weighs() { 3 } else { 1 };
            panel.losses.collect(bytemuck::cast_slice::<_, T>(&losses[..roles]), lanes);
            first += step;
        }
    }
}

#[inline(always)]
fn vectors<S: Simd, T: Real>(values: &mut [T]) -> &mut [T::Vector<S>] {
    T::as_vectors_mut::<S>(values).0
}

/// [`BlockOutput`], in vectors.
enum VectorOutput<'a, V> {
    Entries([&'a mut [V]; 2]),
    Sums(OperandSide, usize, [&'a mut [V]; 2]),
}

/// Some rows, of which register blocks are taken from left to right.
struct BlockRows<'a, S: Simd, T: Elementwise, F> {
    simd: S,
    /// The A panel from the first of the rows on.
    lhs: &'a [T],
    rhs: &'a [T::Vector<S>],
    depth: usize,
    /// Vectors from one row of `rhs`, `x` and the weights to the next.
    ld: usize,
    floor: T::Vector<S>,
    formula: F,
    x: &'a [T::Vector<S>],
    roles: BlockRoles<'a, T::Vector<S>>,
    /// For which roles losses are asked for: training, validation, held out.
    asked: [bool; 3],
    /// Whether `a` and `b` are.
    wanted: [bool; 2],
    /// The number of the first row in the panel, and how many rows there are: the others of a block are
    /// padding.
    first: usize,
    rows: usize,
    /// Sums of losses, for each of the roles.
    losses: [T::Vector<S>; 3],
}

/// The roles that have losses.
const ROLES: [Role; 3] = [Role::Train, Role::Validation, Role::HeldOut];

impl<'a, S: Simd, T: Elementwise, F: BlockFormula<T>> BlockRows<'a, S, T, F> {
    /// The rows of a panel from the row `first` on, whose entries are read.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn new(
        simd: S,
        panel: &'a RowPanel<'_, T>,
        lhs: &'a [T],
        rhs: &'a [T::Vector<S>],
        depth: usize,
        formula: F,
        first: usize,
        rows: usize,
    ) -> Self {
        let wants = panel.source.wants;
        let [validation, held_out] = panel.source.withheld();
        BlockRows {
            simd,
            lhs,
            rhs,
            depth,
            ld: panel.ld / (size_of::<T::Vector<S>>() / T::BYTES),
            floor: T::splat(simd, panel.source.floor),
            formula,
            x: T::as_vectors::<S>(&panel.entries.x).0,
            roles: panel.entries.roles::<S>(panel.source),
            asked: [F::LOSSES_ALWAYS || wants.losses, validation, held_out],
            wanted: [wants.numerator, wants.denominator],
            first,
            rows,
            losses: [T::splat(simd, T::ZERO); 3],
        }
    }

    /// The `M` rows by `V` vectors from vector `j` on, with roles or without any.
    #[inline(always)]
    fn block<const M: usize, const V: usize, const BY_ROLE: bool>(
        &mut self,
        j: usize,
        output: &mut VectorOutput<'_, T::Vector<S>>,
    ) {
        let BlockRows { simd, lhs, rhs, depth, ld, floor, formula, x, roles, rows, .. } = *self;
        let zero = T::splat(simd, T::ZERO);
        // Padding rows repeat the last row here, and get a value of 0.
        let lhs = &lhs[..(M * depth).min(lhs.len())];
        let products = microkernel::<S, T, M, V>(simd, lhs, rows, depth, depth, rhs, ld, j);
        // In an array of its own: the one that the products are summed in is to stay in registers.
        let mut y = [[floor; V]; M];
        for m in 0..M {
            for v in 0..V {
                y[m][v] = T::at_least(simd, products[m][v], floor);
            }
        }
        let mut values = formula.prepare(simd, &y);
        for m in 0..M {
            if m >= rows {
                values[m] = [zero; V];
                continue;
            }
            let at = m * ld + j;
            let mut own = [zero; V];
            if const { F::READS_X } {
                own.copy_from_slice(&x[at..][..V]);
            }
            match BY_ROLE {
                true => self.row_by_role(at, &own, &y[m], &mut values[m]),
                false => {
                    for v in 0..V {
                        let both = formula.entries(simd, own[v], y[m][v], values[m][v]);
                        values[m][v] = both.0;
                        if F::LOSSES_ALWAYS || self.asked[0] {
                            self.losses[0] = formula.add_loss(simd, self.losses[0], y[m][v], both);
                        }
                    }
                }
            }
        }

        if self.wanted[F::OUTPUT] {
            self.put::<M, V>(j, lhs, &values, F::OUTPUT, output);
        }
        if F::B_IS_ONE && self.wanted[1] {
            let mut b = [[T::splat(simd, T::ONE); V]; M];
            if BY_ROLE {
                for (m, b) in b.iter_mut().take(rows).enumerate() {
                    let roles = roles.part(m * ld + j, V);
                    for (v, b) in b.iter_mut().enumerate() {
                        *b = roles.keep::<S, T>(simd, Role::Train, v, *b);
                    }
                }
            }
            self.put::<M, V>(j, lhs, &b, 1, output);
        }
    }

    /// The entries of a row from a vector on, and their losses, by their roles.
    #[inline(always)]
    fn row_by_role<const V: usize>(
        &mut self,
        at: usize,
        x: &[T::Vector<S>; V],
        y: &[T::Vector<S>; V],
        values: &mut [T::Vector<S>; V],
    ) {
        let BlockRows { simd, formula, asked, .. } = *self;
        let roles = self.roles.part(at, V);
        let mut losses = [T::splat(simd, T::ZERO); V];
        for v in 0..V {
            let value;
            (value, losses[v]) = formula.entries(simd, x[v], y[v], values[v]);
            values[v] = roles.keep::<S, T>(simd, Role::Train, v, value);
        }
        for ((role, sum), _) in
            ROLES.into_iter().zip(&mut self.losses).zip(asked).filter(|(_, asked)| *asked)
        {
            for (v, &loss) in losses.iter().enumerate() {
                let loss = roles.keep::<S, T>(simd, role, v, loss);
                *sum = <T as Real>::add(simd, *sum, loss);
            }
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
        let BlockRows { simd, rhs, depth, ld, .. } = *self;
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

/// A·Bᵀ of a block: `sums[m, k] += Σ_n a[m, n] · rhs[k, n]` over the vectors n from `j` on.
#[inline(always)]
fn add_nt_dot<S: Simd, T: Real, const M: usize, const V: usize>(
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
fn add_tn<S: Simd, T: Real, const M: usize, const V: usize>(
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
