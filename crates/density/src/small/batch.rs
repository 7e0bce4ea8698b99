//! The systems of several slices at a time, by Cholesky's factorization: each lane of a vector has a
//! slice of its own.
//!
//! Factoring one system of tens of rows is mostly waiting: for square roots, divisions and short sums,
//! one after the other. With a slice in each lane these are made for all at once, no lane is wasted on
//! padding or above the diagonal, and all loads are whole vectors.
//!
//! Every operation on a number is the one that [`solve_positive`](super::solve_positive) makes, in its
//! order. So the solution has the same bits, and how many slices are solved together is free to depend on
//! the number of threads.

#![allow(clippy::needless_range_loop, reason = "triangular loops read as they are written down")]

use nneinfact_simd::{Aligned, Real, arch};
use pulp::{Arch, Simd, WithSimd};

use super::LANES;
use super::cholesky::PANEL;
use super::tile::{Tile, add_products, less_product, subtract_from, take_column};

/// Rows of a block. In memory a block has its columns one after the other, up to its own rows.
const ROWS: usize = 4;
/// The largest system. The factors of all lanes should stay in the second-level cache.
const LARGEST: usize = 160;

/// Where a block of rows begins, in entries.
fn offset(block: usize) -> usize {
    ROWS * ROWS * block * (block + 1) / 2
}

/// The entries of `A ⊗ B` on and below the diagonal, in blocks of rows.
pub(crate) struct PackedKronecker {
    size: usize,
    entries: Vec<f64>,
}

impl PackedKronecker {
    /// Of row-major symmetric matrices; `None` where a system at a time is no worse.
    pub fn new(left: usize, a: &[f64], right: usize, b: &[f64]) -> Option<PackedKronecker> {
        let better = lanes() > 1 && (PANEL..=LARGEST).contains(&(left * right));
        better.then(|| PackedKronecker::packed(left, a, right, b))
    }

    fn packed(left: usize, a: &[f64], right: usize, b: &[f64]) -> PackedKronecker {
        let size = left * right;
        let blocks = size.div_ceil(ROWS);
        let mut entries = vec![0.0; offset(blocks)];
        // Rows of both sides for each row of the product: a division each would cost more than the products.
        let places: Vec<(usize, usize)> =
            (0..left).flat_map(|i| (0..right).map(move |j| (i, j))).collect();
        for (block, rows) in places.chunks(ROWS).enumerate() {
            let to = &mut entries[offset(block)..offset(block + 1)];
            for (to, &(i, j)) in to.chunks_exact_mut(ROWS).zip(&places) {
                let (first, second) = (&a[i * left..][..left], &b[j * right..][..right]);
                for (to, &(i, j)) in to.iter_mut().zip(rows) {
                    *to = first[i] * second[j];
                }
            }
        }
        PackedKronecker { size, entries }
    }
}

/// What the systems of a batch are solved in. All arrays have a vector, one element for each slice, where
/// one system has a number.
#[derive(Default)]
pub(crate) struct Batch {
    lanes: usize,
    size: usize,
    /// Whether the system in each lane had a factor.
    solved: [bool; LANES],
    factor: Aligned<f64>,
    pivots: Aligned<f64>,
    reciprocals: Aligned<f64>,
    x: Aligned<f64>,
    y: Aligned<f64>,
}

/// Systems of a full batch.
pub(crate) fn lanes() -> usize {
    lanes_of(arch())
}

fn lanes_of(arch: Arch) -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            size_of::<S::f64s>() / size_of::<f64>()
        }
    }
    arch.dispatch(Lanes)
}

impl Batch {
    /// Begins a batch of systems like `gram`. Those that are not set solve to zero.
    pub fn begin(&mut self, gram: &PackedKronecker) {
        self.begin_for(lanes(), gram);
    }

    fn begin_for(&mut self, lanes: usize, gram: &PackedKronecker) {
        let padded = gram.size.next_multiple_of(ROWS);
        (self.lanes, self.size) = (lanes, gram.size);
        self.factor.resize(gram.entries.len() * lanes);
        for vectors in [&mut self.pivots, &mut self.reciprocals, &mut self.x, &mut self.y] {
            vectors.resize(padded * lanes);
            vectors.fill(0.0);
        }
    }

    /// Row `row` of the system in a lane, from its column on: entries of x and of the right side.
    pub fn set(&mut self, lane: usize, from: usize, x: &[f64], rhs: &[f64]) {
        let at = from * self.lanes + lane;
        for (to, from) in [(&mut self.x, x), (&mut self.y, rhs)] {
            let to = to[at..].iter_mut().step_by(self.lanes);
            to.zip(from).for_each(|(to, &from)| *to = from);
        }
    }

    /// Part of the solution of the system in a lane.
    pub fn get(&self, lane: usize, from: usize, to: &mut [f64]) {
        let solution = self.y[from * self.lanes + lane..].iter().step_by(self.lanes);
        to.iter_mut().zip(solution).for_each(|(to, &from)| *to = from);
    }

    /// Solves `(x Γ x + μ) y = rhs` for all, where x stands for the diagonal matrix of its entries.
    pub fn solve(&mut self, gram: &PackedKronecker, mu: f64) {
        self.solve_on(arch(), gram, mu);
    }

    fn solve_on(&mut self, arch: Arch, gram: &PackedKronecker, mu: f64) {
        let Batch { size, factor, pivots, reciprocals, x, y, .. } = self;
        let size = *size;
        arch.dispatch(Factor { gram, x, size, diagonal: mu, factor, pivots, reciprocals });
        arch.dispatch(Substitute { size, factor, reciprocals, y });
        self.solved = [true; LANES];
        for pivots in self.pivots.chunks_exact(self.lanes).take(size) {
            for (solved, &pivot) in self.solved.iter_mut().zip(pivots) {
                *solved &= pivot > 0.0 && pivot < f64::INFINITY;
            }
        }
    }

    /// Whether the system in a lane could be factored. Where rounding prevented it, there is no solution.
    pub fn solved(&self, lane: usize) -> bool {
        self.solved[lane]
    }
}

/// `x Γ x` with something added to the diagonal, factored for all lanes.
struct Factor<'a> {
    gram: &'a PackedKronecker,
    x: &'a [f64],
    size: usize,
    diagonal: f64,
    factor: &'a mut [f64],
    pivots: &'a mut [f64],
    reciprocals: &'a mut [f64],
}

impl WithSimd for Factor<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many sums on their way as there are registers for.
        if S::REGISTER_COUNT >= 32 { self.run::<S, 4>(simd) } else { self.run::<S, 2>(simd) }
    }
}

impl Factor<'_> {
    /// A few columns at a time, each for all rows from the diagonal on.
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) {
        let Factor { gram, x, size, diagonal, factor, pivots, reciprocals } = self;
        let (x, _) = f64::as_vectors::<S>(x);
        let (factor, _) = f64::as_vectors_mut::<S>(factor);
        let (pivots, _) = f64::as_vectors_mut::<S>(pivots);
        let (reciprocals, _) = f64::as_vectors_mut::<S>(reciprocals);
        let added = simd.splat_f64s(diagonal);
        for first in (0..size).step_by(C) {
            // Of the panel that one system is factored by.
            let start = first / PANEL * PANEL;
            let columns = Columns::<C> { start, first };
            for block in first / ROWS..size.div_ceil(ROWS) {
                let mut tile: Tile<S, C, ROWS> = columns.before(simd, block, factor);
                columns.subtract_from(simd, block, &gram.entries, x, &mut tile);
                // Rows of the panel itself are not fused there.
                if block == first / ROWS {
                    let at = first % ROWS;
                    for (c, column) in tile.iter_mut().enumerate() {
                        column[at + c] = simd.add_f64s(column[at + c], added);
                    }
                    columns.inside::<S, true>(simd, block, factor, &mut tile);
                    let many = C.min(size - first);
                    let pivots = &mut pivots[first..first + many];
                    let reciprocals = &mut reciprocals[first..first + many];
                    columns.pivot(simd, &mut tile, pivots, reciprocals);
                } else if ROWS * block < start + PANEL {
                    columns.inside::<S, true>(simd, block, factor, &mut tile);
                    columns.below::<S, true>(simd, factor, reciprocals, &mut tile);
                } else {
                    columns.inside::<S, false>(simd, block, factor, &mut tile);
                    columns.below::<S, false>(simd, factor, reciprocals, &mut tile);
                }
                let to = &mut factor[offset(block) + ROWS * first..][..ROWS * C];
                for (to, column) in to.chunks_exact_mut(ROWS).zip(&tile) {
                    to.copy_from_slice(column);
                }
            }
        }
    }
}

/// C columns from the first on, in the panel that begins at `start`.
#[derive(Clone, Copy)]
struct Columns<const C: usize> {
    start: usize,
    first: usize,
}

impl<const C: usize> Columns<C> {
    /// Where the rows with the numbers of these columns stand in their block.
    #[inline(always)]
    fn place(self) -> usize {
        if C == ROWS { 0 } else { self.first % ROWS }
    }

    /// The products of all columns before the panel.
    #[inline(always)]
    fn before<S: Simd>(self, simd: S, block: usize, factor: &[S::f64s]) -> Tile<S, C, ROWS> {
        let mut sums = [[simd.splat_f64s(0.0); ROWS]; C];
        let len = ROWS * self.start;
        let (rows, _) = factor[offset(block)..][..len].as_chunks::<ROWS>();
        let (own, _) = factor[offset(self.first / ROWS)..][..len].as_chunks::<ROWS>();
        let at = self.place();
        for (rows, own) in rows.iter().zip(own) {
            add_products(simd, &mut sums, rows, |c| own[at + c]);
        }
        sums
    }

    /// The matrix less these sums.
    #[inline(always)]
    fn subtract_from<S: Simd>(
        self,
        simd: S,
        block: usize,
        gram: &[f64],
        x: &[S::f64s],
        tile: &mut Tile<S, C, ROWS>,
    ) {
        let gram = &gram[offset(block) + ROWS * self.first..][..ROWS * C];
        let x_rows = &x[ROWS * block..][..ROWS];
        let x_columns = &x[self.first..];
        for (c, sums) in tile.iter_mut().enumerate() {
            let gram = |r: usize| simd.splat_f64s(gram[ROWS * c + r]);
            subtract_from(simd, sums, x_rows, gram, x_columns[c]);
        }
    }

    /// Less the products of the panel's columns before these.
    #[inline(always)]
    fn inside<S: Simd, const ROUNDED: bool>(
        self,
        simd: S,
        block: usize,
        factor: &[S::f64s],
        tile: &mut Tile<S, C, ROWS>,
    ) {
        let range = ROWS * self.start..ROWS * self.first;
        let (rows, _) = factor[offset(block)..][range.clone()].as_chunks::<ROWS>();
        let (own, _) = factor[offset(self.first / ROWS)..][range].as_chunks::<ROWS>();
        let at = self.place();
        for (rows, own) in rows.iter().zip(own) {
            for (c, column) in tile.iter_mut().enumerate() {
                for (x, &row) in column.iter_mut().zip(rows) {
                    *x = less_product::<S, ROUNDED>(simd, *x, row, own[at + c]);
                }
            }
        }
    }

    /// The block on the diagonal.
    #[inline(always)]
    fn pivot<S: Simd>(
        self,
        simd: S,
        tile: &mut Tile<S, C, ROWS>,
        pivots: &mut [S::f64s],
        reciprocals: &mut [S::f64s],
    ) {
        let (one, at) = (simd.splat_f64s(1.0), self.place());
        for (c, (pivot, reciprocal)) in pivots.iter_mut().zip(reciprocals).enumerate() {
            *pivot = tile[c][at + c];
            *reciprocal = simd.div_f64s(one, simd.sqrt_f64s(*pivot));
            let own = |column: &[S::f64s; ROWS], k: usize| column[at + k];
            take_column::<S, C, ROWS, true>(simd, tile, c, *reciprocal, own);
        }
    }

    /// Rows below that block.
    #[inline(always)]
    fn below<S: Simd, const ROUNDED: bool>(
        self,
        simd: S,
        factor: &[S::f64s],
        reciprocals: &[S::f64s],
        tile: &mut Tile<S, C, ROWS>,
    ) {
        let own = &factor[offset(self.first / ROWS) + ROWS * self.first..][..ROWS * C];
        let reciprocals = &reciprocals[self.first..][..C];
        let at = self.place();
        for c in 0..C {
            let own = |_: &[S::f64s; ROWS], k: usize| own[ROWS * c + at + k];
            take_column::<S, C, ROWS, ROUNDED>(simd, tile, c, reciprocals[c], own);
        }
    }
}

/// Forward and backward substitution for all lanes.
struct Substitute<'a> {
    size: usize,
    factor: &'a [f64],
    reciprocals: &'a [f64],
    y: &'a mut [f64],
}

impl WithSimd for Substitute<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Substitute { size, factor, reciprocals, y } = self;
        let (factor, _) = f64::as_vectors::<S>(factor);
        let (reciprocals, _) = f64::as_vectors::<S>(reciprocals);
        let (y, _) = f64::as_vectors_mut::<S>(y);
        for block in 0..size.div_ceil(ROWS) {
            forward(simd, block, factor, reciprocals, y);
        }
        for start in (0..size).step_by(PANEL).rev() {
            backward(simd, start, size, factor, reciprocals, y);
        }
    }
}

/// One block of rows, all before it being done.
#[inline(always)]
fn forward<S: Simd>(
    simd: S,
    block: usize,
    factor: &[S::f64s],
    reciprocals: &[S::f64s],
    y: &mut [S::f64s],
) {
    let first = ROWS * block;
    let start = first / PANEL * PANEL;
    let (columns, _) = factor[offset(block)..offset(block + 1)].as_chunks::<ROWS>();
    let (done, rest) = y.split_at_mut(first);
    let mut own = [simd.splat_f64s(0.0); ROWS];
    own.copy_from_slice(&rest[..ROWS]);
    for (column, &z) in columns.iter().zip(&done[..start]) {
        let z = simd.neg_f64s(z);
        for (own, &l) in own.iter_mut().zip(column) {
            *own = simd.mul_add_e_f64s(l, z, *own);
        }
    }
    for (column, &z) in columns[start..].iter().zip(&done[start..]) {
        for (own, &l) in own.iter_mut().zip(column) {
            *own = simd.sub_f64s(*own, simd.mul_f64s(z, l));
        }
    }
    for c in 0..ROWS {
        own[c] = simd.mul_f64s(own[c], reciprocals[first + c]);
        for r in c + 1..ROWS {
            let product = simd.mul_f64s(own[c], columns[first + c][r]);
            own[r] = simd.sub_f64s(own[r], product);
        }
    }
    rest[..ROWS].copy_from_slice(&own);
}

/// One panel of columns, all after it being done.
#[inline(always)]
fn backward<S: Simd>(
    simd: S,
    start: usize,
    size: usize,
    factor: &[S::f64s],
    reciprocals: &[S::f64s],
    y: &mut [S::f64s],
) {
    let lanes = size_of::<S::f64s>() / size_of::<f64>();
    let zero = simd.splat_f64s(0.0);
    let columns = PANEL.min(size - start);
    let (panel, rest) = y[start..].split_at_mut(columns.next_multiple_of(ROWS));
    for (j, z) in panel[..columns].iter_mut().enumerate() {
        // As many sums as one system has lanes for, added up in the same order.
        let mut sums = [zero; PANEL];
        for (group, y) in rest.chunks(PANEL).enumerate() {
            let block = (start + PANEL * (group + 1)) / ROWS;
            for (half, y) in y.chunks_exact(ROWS).enumerate() {
                let column = &factor[offset(block + half) + ROWS * (start + j)..][..ROWS];
                for r in 0..ROWS {
                    let sum = &mut sums[(ROWS * half + r) % lanes];
                    *sum = simd.mul_add_e_f64s(column[r], y[r], *sum);
                }
            }
        }
        let mut many = lanes.min(PANEL);
        while many > 1 {
            many /= 2;
            for i in 0..many {
                sums[i] = simd.add_f64s(sums[i], sums[i + many]);
            }
        }
        *z = simd.sub_f64s(*z, sums[0]);
    }
    for j in (0..columns).rev() {
        for i in j + 1..columns {
            let block = (start + i) / ROWS;
            let l = factor[offset(block) + ROWS * (start + j) + i % ROWS];
            panel[j] = simd.sub_f64s(panel[j], simd.mul_f64s(l, panel[i]));
        }
        panel[j] = simd.mul_f64s(panel[j], reciprocals[start + j]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::System;
    use super::super::cholesky::{Kronecker, gram, solve_on};
    use super::*;

    /// Entries and right side of a slice.
    fn slice(size: usize, at: usize) -> (Vec<f64>, Vec<f64>) {
        let x = |e: usize| 0.1 + ((e + 31 * at) as f64 * 0.37).fract();
        let rhs = |e: usize| ((e + 17 * at) as f64).cos();
        ((0..size).map(x).collect(), (0..size).map(rhs).collect())
    }

    #[test]
    fn solutions_have_the_bits_of_one_system_at_a_time() {
        for arch in nneinfact_simd::instruction_sets() {
            let lanes = lanes_of(arch);
            if lanes == 1 {
                continue;
            }
            let (mut batch, mut system) = (Batch::default(), System::default());
            for (left, right) in
                [(8, 8), (1, 8), (6, 6), (5, 7), (12, 3), (1, 17), (3, 3), (12, 12)]
            {
                let (a, b) = (gram(left, 0.7), gram(right, 0.3));
                let size = left * right;
                let packed = PackedKronecker::packed(left, &a, right, &b);
                let kronecker = Kronecker::new(left, &a, right, &b);
                for many in [1, lanes - 1, lanes] {
                    batch.begin_for(lanes, &packed);
                    for lane in 0..many {
                        let (x, rhs) = slice(size, lane);
                        // In two parts, as rows are set one by one.
                        batch.set(lane, 0, &x[..3], &rhs[..3]);
                        batch.set(lane, 3, &x[3..], &rhs[3..]);
                    }
                    batch.solve_on(arch, &packed, 1e-3);
                    for lane in 0..many {
                        let (x, rhs) = slice(size, lane);
                        for (to, from) in [(&mut system.x, x), (&mut system.y, rhs)] {
                            to.resize(size);
                            to.copy_from_slice(&from);
                        }
                        assert!(solve_on(arch, &kronecker, 1e-3, &mut system));
                        assert!(batch.solved(lane));
                        let mut got = vec![0.0; size];
                        batch.get(lane, 0, &mut got);
                        let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                        let want = bits(&system.y[..size]);
                        assert_eq!(bits(&got), want, "{lanes} {left} {right} {many} {lane}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_system_without_a_factor_leaves_the_others_alone() {
        let size = 9;
        // Of rank one, so that only the barrier makes it definite.
        let ones = vec![1.0; size * size];
        let Some(packed) = PackedKronecker::new(1, &[1.0], size, &ones) else { return };
        let (x, rhs) = slice(size, 0);
        let mut batch = Batch::default();
        batch.begin(&packed);
        batch.set(0, 0, &x, &rhs);
        batch.set(1, 0, &vec![f64::NAN; size], &rhs);
        batch.solve(&packed, 1e-3);
        assert!(batch.solved(0));
        assert!(!batch.solved(1));
        let mut alone = Batch::default();
        alone.begin(&packed);
        alone.set(0, 0, &x, &rhs);
        alone.solve(&packed, 1e-3);
        let (mut got, mut want) = (vec![0.0; size], vec![0.0; size]);
        batch.get(0, 0, &mut got);
        alone.get(0, 0, &mut want);
        assert_eq!(got, want);
        // Without a barrier the second pivot is 0, or below by rounding.
        batch.begin(&packed);
        batch.set(0, 0, &vec![1.0; size], &rhs);
        batch.solve(&packed, 0.0);
        assert!(!batch.solved(0));
    }
}
