//! The fused pass over a list of cells: ŷ, the loss's expressions and the shares of numerator and
//! denominator at the listed cells, and at no other.
//!
//! Cells are sorted by the row of the target that they add to, so that a row's sums stay in
//! registers. Work is cut by cells, not by rows: a row with many cells is cut into pieces, whose
//! sums are added in their order. The cut is a function of the cells alone.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::evaluate::sum;
use nneinfact_core::data::{Dense, Role, StoredEntries};
use nneinfact_core::engine::stored_order::StoredOrder;
pub(super) use nneinfact_core::engine::stored_order::StoredPart;
use nneinfact_core::loss::{Scratch, Tape};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::SparsePass;
use nneinfact_simd::{Elementwise, Real};

/// Cells of a unit of parallel work.
const TASK: usize = 8192;
/// Cells whose values are in the first-level cache at a time; sums over as many stay in the
/// precision of the pass.
const BLOCK: usize = 256;

/// Cells as one pass reads them: sorted by the row of the target.
pub(super) struct Cells<T> {
    /// The rows of the target that have cells, in order.
    rows: Vec<u32>,
    /// Where the cells of each of them start, and where the last ends.
    starts: Vec<usize>,
    /// For each operand, the row of each cell.
    operands: Vec<Vec<u32>>,
    x: Vec<T>,
    /// The values of the loss's side tensors.
    sides: Vec<Vec<T>>,
    /// Empty where all are for training.
    roles: Vec<Role>,
    tasks: Vec<Task>,
}

struct Task {
    cells: Range<usize>,
    /// The rows among those that have cells.
    rows: Range<usize>,
    /// A part of the cells of one row.
    piece: bool,
}

impl<T: Elementwise> Cells<T> {
    /// The cells of a part of a list, for a pass. `sides` are in C order; values are multiplied by
    /// `scale`.
    pub fn new(
        shapes: &Shapes,
        pass: &SparsePass,
        list: &StoredEntries,
        part: StoredPart,
        sides: &[Dense],
        scale: f64,
    ) -> Cells<T> {
        let sorted = StoredOrder::new(shapes, list, part, &pass.output.rows);
        Cells {
            operands: pass.operands.iter().map(|table| sorted.rows_of(&table.rows)).collect(),
            x: sorted.values(scale),
            sides: sides.iter().map(|side| sorted.entry_parameter(side)).collect(),
            roles: match part {
                StoredPart::Train => Vec::new(),
                StoredPart::Masked => sorted.roles(),
            },
            tasks: tasks(&sorted.starts),
            rows: sorted.rows,
            starts: sorted.starts,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.x.is_empty()
    }

    /// The rows of the target with this many cells.
    pub fn rows_of(&self, cells: u64) -> impl Iterator<Item = usize> {
        let full = move |bounds: &[usize]| (bounds[1] - bounds[0]) as u64 == cells;
        let bounds = self.starts.windows(2).map(full);
        self.rows.iter().zip(bounds).filter(|&(_, full)| full).map(|(&row, _)| row as usize)
    }
}

/// Cuts rows into tasks: whole rows together, and long rows into pieces.
fn tasks(starts: &[usize]) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut first = 0;
    let whole = |tasks: &mut Vec<Task>, rows: Range<usize>| {
        if !rows.is_empty() {
            let cells = starts[rows.start]..starts[rows.end];
            tasks.push(Task { cells, rows, piece: false });
        }
    };
    for row in 0..starts.len().saturating_sub(1) {
        let len = starts[row + 1] - starts[row];
        if len > 2 * TASK {
            whole(&mut tasks, first..row);
            for start in (starts[row]..starts[row + 1]).step_by(TASK) {
                let cells = start..starts[row + 1].min(start + TASK);
                tasks.push(Task { cells, rows: row..row + 1, piece: true });
            }
            first = row + 1;
        } else if starts[row + 1] - starts[first] >= TASK {
            whole(&mut tasks, first..row + 1);
            first = row + 1;
        }
    }
    whole(&mut tasks, first..starts.len().saturating_sub(1));
    tasks
}

/// A stored product with its rows padded to whole vectors and, where these are cache lines, aligned
/// to them.
pub(super) struct Rows<T> {
    lines: Vec<Line>,
    element: std::marker::PhantomData<T>,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl<T: Elementwise> Rows<T> {
    /// From a matrix with `inner` elements a row, times `scale`.
    pub fn new(data: &[f64], inner: usize, scale: f64) -> Rows<T> {
        let width = padded::<T>(inner);
        let rows = data.len() / inner;
        let lines = vec![Line([0; 64]); (rows * width * T::BYTES).div_ceil(64)];
        let mut table = Rows { lines, element: std::marker::PhantomData };
        let to: &mut [T] = bytemuck::cast_slice_mut(&mut table.lines);
        let few = (1 << 14) / width + 1;
        let convert = |(to, from): (&mut [T], &[f64])| {
            for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(inner)) {
                to.iter_mut().zip(from).for_each(|(to, x)| *to = T::from_f64(x * scale));
            }
        };
        to.par_chunks_mut(width * few).zip(data.par_chunks(inner * few)).for_each(convert);
        table
    }

    fn data(&self) -> &[T] {
        bytemuck::cast_slice(&self.lines)
    }
}

/// Elements of a row whose length is a multiple of this machine's vectors.
fn padded<T: Elementwise>(inner: usize) -> usize {
    struct Lanes<T>(std::marker::PhantomData<T>);
    impl<T: Elementwise> WithSimd for Lanes<T> {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            size_of::<T::Vector<S>>() / T::BYTES
        }
    }
    let lanes = Arch::new().dispatch(Lanes(std::marker::PhantomData::<T>));
    inner.div_ceil(lanes) * lanes
}

/// What a pass over a list computes, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Outputs {
    pub numerator: bool,
    pub denominator: bool,
    /// ℓ at the datum.
    pub losses: bool,
    /// ℓ at a datum of 0.
    pub zero_losses: bool,
}

/// A pass over cells.
pub(super) struct Sampler<'a, T> {
    pub cells: &'a Cells<T>,
    /// The target first.
    pub tables: &'a [Rows<T>],
    /// The size of the inner letters.
    pub inner: usize,
    /// Where each of them stands in a row of numerator and denominator.
    pub onto: &'a [usize],
    /// The length of such a row.
    pub width: usize,
    pub floor: T,
    pub tape: &'a Tape,
    pub outputs: Outputs,
}

/// Sums over listed cells.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Listed {
    /// Of ℓ.
    pub losses: ByRole,
    /// Of ℓ at a datum of 0.
    pub zeros: ByRole,
}

/// A sum for each role.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ByRole {
    pub missing: f64,
    pub train: f64,
    pub validation: f64,
    pub held_out: f64,
}

impl ByRole {
    fn add(&mut self, other: &ByRole) {
        self.missing += other.missing;
        self.train += other.train;
        self.validation += other.validation;
        self.held_out += other.held_out;
    }

    pub fn all(&self) -> f64 {
        self.missing + self.train + self.validation + self.held_out
    }
}

impl Listed {
    fn add(&mut self, other: &Listed) {
        self.losses.add(&other.losses);
        self.zeros.add(&other.zeros);
    }
}

/// Rows of numerator or denominator that a task adds to.
enum Share<'a> {
    Unwanted,
    /// From the task's first row to its last.
    Rows(&'a mut [f64]),
    /// The one row that a piece belongs to, apart.
    Piece(Vec<f64>),
}

/// The row that a piece belongs to, with its sums.
type Piece<'a> = (usize, [Share<'a>; 2]);

impl Share<'_> {
    fn data(&mut self) -> &mut [f64] {
        match self {
            Share::Unwanted => &mut [],
            Share::Rows(data) => data,
            Share::Piece(data) => data,
        }
    }

    fn into_piece(self) -> Vec<f64> {
        match self {
            Share::Piece(data) => data,
            Share::Unwanted | Share::Rows(_) => Vec::new(),
        }
    }
}

impl<T: Elementwise> Sampler<'_, T> {
    /// Adds the sums over the cells to numerator and denominator, where they are wanted.
    pub fn run(&self, numerator: &mut [f64], denominator: &mut [f64]) -> Listed {
        let wanted = [self.outputs.numerator, self.outputs.denominator];
        let row = |at: usize| self.cells.rows[at] as usize;
        let mut shares: Vec<(&Task, [Share<'_>; 2])> = Vec::with_capacity(self.cells.tasks.len());
        let mut left = [&mut *numerator, &mut *denominator];
        // Rows before `reached` belong to tasks before.
        let mut reached = 0;
        for task in &self.cells.tasks {
            let (first, end) = (row(task.rows.start), row(task.rows.end - 1) + 1);
            let mut both = [Share::Unwanted, Share::Unwanted];
            for ((share, left), wanted) in both.iter_mut().zip(&mut left).zip(wanted) {
                if !wanted {
                    continue;
                }
                if task.piece {
                    *share = Share::Piece(vec![0.0; self.width]);
                } else {
                    let tail = std::mem::take(left);
                    let (_, tail) = tail.split_at_mut((first - reached) * self.width);
                    let (own, tail) = tail.split_at_mut((end - first) * self.width);
                    (*share, *left) = (Share::Rows(own), tail);
                }
            }
            if !task.piece {
                reached = end;
            }
            shares.push((task, both));
        }
        let done: Vec<(Listed, Option<Piece<'_>>)> = shares
            .into_par_iter()
            .map(|(task, mut both)| {
                let [n, d] = &mut both;
                let run = Run { sampler: self, task, sums: [n.data(), d.data()] };
                let listed = Arch::new().dispatch(run);
                (listed, task.piece.then(|| (row(task.rows.start), both)))
            })
            .collect();
        // In the order of the tasks, whichever thread ran them.
        let mut total = Listed::default();
        let mut pieces = Vec::new();
        for (listed, piece) in done {
            total.add(&listed);
            pieces.extend(piece.map(|(row, both)| (row, both.map(Share::into_piece))));
        }
        for (row, sums) in pieces {
            for (to, from) in [&mut *numerator, &mut *denominator].into_iter().zip(sums) {
                if !from.is_empty() {
                    let to = &mut to[row * self.width..][..self.width];
                    to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
                }
            }
        }
        total
    }
}

/// A task. A type of its own, and not a closure, as only what is inlined into the dispatched
/// function is compiled for its instruction set.
struct Run<'a, T> {
    sampler: &'a Sampler<'a, T>,
    task: &'a Task,
    sums: [&'a mut [f64]; 2],
}

/// Cells of one row inside a block.
#[derive(Clone, Copy)]
struct Stretch {
    row: usize,
    start: usize,
    end: usize,
}

impl<T: Elementwise> WithSimd for Run<'_, T> {
    type Output = Listed;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Listed {
        let Run { sampler, task, sums } = self;
        let Sampler { cells, outputs, .. } = *sampler;
        let [numerator, denominator] = sums;
        let mut tables: Vec<&[T::Vector<S>]> = Vec::with_capacity(sampler.tables.len());
        for table in sampler.tables {
            tables.push(T::as_vectors::<S>(table.data()).0);
        }
        let lanes = size_of::<T::Vector<S>>() / T::BYTES;
        let kv = sampler.inner.div_ceil(lanes);
        let first = cells.rows[task.rows.start] as usize;

        let mut y = [T::ZERO; BLOCK];
        let mut blocks = [[T::ZERO; BLOCK]; 4];
        let mut scratch = Scratch::default();
        let mut stretches: Vec<Stretch> = Vec::with_capacity(BLOCK);
        let mut sides: Vec<&[T]> = Vec::with_capacity(cells.sides.len());
        let mut acc: Vec<T::Vector<S>> = vec![T::splat(simd, T::ZERO); kv];
        let mut listed = Listed::default();
        let mut row = task.rows.start;
        for start in task.cells.clone().step_by(BLOCK) {
            let end = task.cells.end.min(start + BLOCK);
            let len = end - start;
            stretches.clear();
            let mut at = start;
            while at < end {
                let stop = cells.starts[row + 1].min(end);
                stretches.push(Stretch { row: cells.rows[row] as usize, start: at, end: stop });
                at = stop;
                if at == cells.starts[row + 1] {
                    row += 1;
                }
            }

            match (kv, tables.len()) {
                (1, 2) => {
                    forward::<S, T, 1, 2>(simd, &tables, cells, &stretches, start, kv, &mut y)
                }
                (1, 3) => {
                    forward::<S, T, 1, 3>(simd, &tables, cells, &stretches, start, kv, &mut y)
                }
                (2, 2) => {
                    forward::<S, T, 2, 2>(simd, &tables, cells, &stretches, start, kv, &mut y)
                }
                _ => forward::<S, T, 0, 0>(simd, &tables, cells, &stretches, start, kv, &mut y),
            }
            let floor = T::splat(simd, sampler.floor);
            for y in T::as_vectors_mut::<S>(&mut y).0 {
                *y = T::at_least(simd, *y, floor);
            }

            sides.clear();
            for side in &cells.sides {
                sides.push(&side[start..end]);
            }
            let wanted =
                [outputs.numerator, outputs.denominator, outputs.losses, outputs.zero_losses];
            let mut of: [usize; 4] = [0; 4];
            let mut count = 0;
            for (of, wanted) in of.iter_mut().zip(wanted) {
                *of = count;
                count += usize::from(wanted);
            }
            {
                let [b0, b1, b2, b3] = &mut blocks;
                let mut all: [&mut [T]; 4] =
                    [&mut b0[..len], &mut b1[..len], &mut b2[..len], &mut b3[..len]];
                let x = &cells.x[start..end];
                sampler.tape.run_with(simd, x, &y[..len], &sides, &mut scratch, &mut all[..count]);
            }

            for (wanted, of, to) in
                [(wanted[0], of[0], &mut *numerator), (wanted[1], of[1], &mut *denominator)]
            {
                if !wanted {
                    continue;
                }
                let f = &blocks[of];
                let back = Back { cells, stretches: &stretches, start, first, sampler, f };
                match (kv, tables.len()) {
                    (1, 2) => back.run::<S, 1, 2>(simd, &tables, &mut acc, to),
                    (1, 3) => back.run::<S, 1, 3>(simd, &tables, &mut acc, to),
                    (2, 2) => back.run::<S, 2, 2>(simd, &tables, &mut acc, to),
                    _ => back.run::<S, 0, 0>(simd, &tables, &mut acc, to),
                }
            }
            for (wanted, of, to) in
                [(wanted[2], of[2], &mut listed.losses), (wanted[3], of[3], &mut listed.zeros)]
            {
                if !wanted {
                    continue;
                }
                let terms = &blocks[of][..len];
                if cells.roles.is_empty() {
                    to.train += sum(terms);
                } else {
                    for (term, role) in terms.iter().zip(&cells.roles[start..end]) {
                        match role {
                            Role::Missing => to.missing += term.to_f64(),
                            Role::Train => to.train += term.to_f64(),
                            Role::Validation => to.validation += term.to_f64(),
                            Role::HeldOut => to.held_out += term.to_f64(),
                        }
                    }
                }
            }
        }
        listed
    }
}

/// ŷ at the cells of a block. Rows of `KV` vectors and a number of `TABLES` stay in registers; where
/// these are 0, any number will do.
#[inline(always)]
fn forward<S: Simd, T: Elementwise, const KV: usize, const TABLES: usize>(
    simd: S,
    tables: &[&[T::Vector<S>]],
    cells: &Cells<T>,
    stretches: &[Stretch],
    start: usize,
    kv: usize,
    y: &mut [T; BLOCK],
) {
    let zero = T::splat(simd, T::ZERO);
    let count = if TABLES > 0 { TABLES } else { tables.len() };
    let tables = &tables[..count];
    let others = &cells.operands[..count - 1];
    for stretch in stretches {
        let at = stretch.start..stretch.end;
        let y = &mut y[stretch.start - start..stretch.end - start];
        let v = &others[0][at.clone()];
        if KV > 0 {
            let u: [T::Vector<S>; KV] = row(tables[0], stretch.row);
            for (i, (y, &v)) in y.iter_mut().zip(v).enumerate() {
                let mut product: [T::Vector<S>; KV] = row(tables[1], v as usize);
                for (table, rows) in tables[2..].iter().zip(&others[1..]) {
                    let more: [T::Vector<S>; KV] = row(table, rows[at.start + i] as usize);
                    for k in 0..KV {
                        product[k] = <T as Real>::mul(simd, product[k], more[k]);
                    }
                }
                let mut total = <T as Real>::mul(simd, u[0], product[0]);
                for k in 1..KV {
                    total = T::mul_add(simd, u[k], product[k], total);
                }
                *y = T::reduce_sum(simd, total);
            }
        } else {
            let u = &tables[0][stretch.row * kv..][..kv];
            for (i, (y, &v)) in y.iter_mut().zip(v).enumerate() {
                let v = &tables[1][v as usize * kv..][..kv];
                let mut total = zero;
                for k in 0..kv {
                    let mut product = v[k];
                    for (table, rows) in tables[2..].iter().zip(&others[1..]) {
                        let row = rows[at.start + i] as usize;
                        product = <T as Real>::mul(simd, product, table[row * kv + k]);
                    }
                    total = T::mul_add(simd, u[k], product, total);
                }
                *y = T::reduce_sum(simd, total);
            }
        }
    }
}

/// A row of a table with rows of `KV` vectors.
#[inline(always)]
fn row<V: Copy, const KV: usize>(table: &[V], row: usize) -> [V; KV] {
    let from = &table[row * KV..][..KV];
    std::array::from_fn(|k| from[k])
}

/// The sums of a block.
struct Back<'a, T> {
    cells: &'a Cells<T>,
    stretches: &'a [Stretch],
    start: usize,
    /// The row that the sums begin with.
    first: usize,
    sampler: &'a Sampler<'a, T>,
    f: &'a [T; BLOCK],
}

impl<T: Elementwise> Back<'_, T> {
    #[inline(always)]
    fn run<S: Simd, const KV: usize, const TABLES: usize>(
        &self,
        simd: S,
        tables: &[&[T::Vector<S>]],
        acc: &mut [T::Vector<S>],
        to: &mut [f64],
    ) {
        let kv = acc.len();
        let count = if TABLES > 0 { TABLES } else { tables.len() };
        let tables = &tables[..count];
        let others = &self.cells.operands[..count - 1];
        let zero = T::splat(simd, T::ZERO);
        let width = self.sampler.width;
        for stretch in self.stretches {
            let at = stretch.start..stretch.end;
            let f = &self.f[stretch.start - self.start..stretch.end - self.start];
            let v = &others[0][at.clone()];
            if KV > 0 {
                let mut sums = [zero; KV];
                for (i, (&f, &v)) in f.iter().zip(v).enumerate() {
                    let mut product: [T::Vector<S>; KV] = row(tables[1], v as usize);
                    for (table, rows) in tables[2..].iter().zip(&others[1..]) {
                        let more: [T::Vector<S>; KV] = row(table, rows[at.start + i] as usize);
                        for k in 0..KV {
                            product[k] = <T as Real>::mul(simd, product[k], more[k]);
                        }
                    }
                    let f = T::splat(simd, f);
                    for k in 0..KV {
                        sums[k] = T::mul_add(simd, f, product[k], sums[k]);
                    }
                }
                acc.copy_from_slice(&sums);
            } else {
                acc.fill(zero);
                for (i, (&f, &v)) in f.iter().zip(v).enumerate() {
                    let v = &tables[1][v as usize * kv..][..kv];
                    let f = T::splat(simd, f);
                    for k in 0..kv {
                        let mut product = v[k];
                        for (table, rows) in tables[2..].iter().zip(&others[1..]) {
                            let row = rows[at.start + i] as usize;
                            product = <T as Real>::mul(simd, product, table[row * kv + k]);
                        }
                        acc[k] = T::mul_add(simd, f, product, acc[k]);
                    }
                }
            }
            let to = &mut to[(stretch.row - self.first) * width..][..width];
            let from: &[T] = bytemuck::cast_slice(acc);
            for (&k, &x) in self.sampler.onto.iter().zip(from) {
                to[k] += x.to_f64();
            }
        }
    }
}
