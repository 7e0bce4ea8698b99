//! The fused pass over stored entries: ŷ at the stored entries and at no others (SDDMM), the loss's
//! expressions there, and the shares of numerator and denominator (sparse MTTKRP).
//!
//! Entries are sorted by the row of the output that they add to, so that a row's sums stay in registers.
//! Work is cut by entries, not by rows: a row with many entries is cut into pieces, whose sums are added
//! in their order. The cut is a function of the entries alone.

use nneinfact_core::parallel;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::khatri_rao::KhatriRaoRows;
use crate::dense::sum;
use crate::tape::run_tape;
use nneinfact_core::data::{Dense, Role, StoredEntries};
use nneinfact_core::engine::stored_order::{StoredOrder, StoredPart};
use nneinfact_core::loss::{Scratch, Tape};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::SparsePass;
use nneinfact_simd::{Elementwise, Real};

/// Entries of a unit of parallel work.
const TASK: usize = 8192;
/// Entries whose values are in the first-level cache at a time; sums over as many stay in the
/// precision of the pass.
const BLOCK: usize = 256;

/// Stored entries as one pass reads them: sorted by the row of the output.
pub(crate) struct PassEntries<T> {
    /// The rows of the output that have entries, in order.
    rows: Vec<u32>,
    /// Where the entries of each of them start, and where the last ends.
    starts: Vec<usize>,
    /// For each operand, the row of each entry.
    operands: Vec<Vec<u32>>,
    x: Vec<T>,
    /// The values of the loss's entry parameters, and the weights of masked entries.
    entry_parameters: Vec<Vec<T>>,
    /// Empty where all are for training.
    roles: Vec<Role>,
    tasks: Vec<Task>,
}

struct Task {
    entries: Range<usize>,
    /// The rows among those that have entries.
    rows: Range<usize>,
    /// Whether this is a part of the entries of one row.
    piece: bool,
}

impl<T: Elementwise> PassEntries<T> {
    /// A part of the stored entries, for a pass. `entry_parameters` are in C order; values are multiplied
    /// by `scale`.
    pub fn new(
        shapes: &Shapes,
        pass: &SparsePass,
        stored: &StoredEntries,
        part: StoredPart,
        entry_parameters: &[Dense],
        scale: f64,
    ) -> PassEntries<T> {
        let sorted = StoredOrder::new(shapes, stored, part, &pass.output.rows);
        let parameters = entry_parameters.iter().map(|p| sorted.entry_parameter(p));
        // The weights of masked entries come after these (`MaskedTerms::weight`).
        let weights = (part == StoredPart::Masked).then(|| sorted.weights()).flatten();
        PassEntries {
            operands: pass.operands.iter().map(|table| sorted.rows_of(&table.rows)).collect(),
            x: sorted.values(scale),
            entry_parameters: parameters.chain(weights).collect(),
            roles: match part {
                StoredPart::Train => Vec::new(),
                StoredPart::Masked => sorted.roles(),
            },
            tasks: tasks(&sorted.starts),
            rows: sorted.rows,
            starts: sorted.starts,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.x.is_empty()
    }

    /// The roles of some entries; `None` where all are for training.
    fn roles(&self, entries: Range<usize>) -> Option<&[Role]> {
        if self.roles.is_empty() { None } else { Some(&self.roles[entries]) }
    }

    /// Cuts some entries, the first of them in row number `row`, into runs of one row each. Returns the
    /// number of the row that the entry after them is in.
    fn find_runs(&self, entries: Range<usize>, mut row: usize, runs: &mut Vec<RowRun>) -> usize {
        runs.clear();
        let mut at = entries.start;
        while at < entries.end {
            let stop = self.starts[row + 1].min(entries.end);
            runs.push(RowRun { row: self.rows[row] as usize, start: at, end: stop });
            at = stop;
            if at == self.starts[row + 1] {
                row += 1;
            }
        }
        row
    }

    /// The rows of the output with this many entries.
    pub fn rows_of(&self, entries: u64) -> impl Iterator<Item = usize> {
        let full = move |bounds: &[usize]| (bounds[1] - bounds[0]) as u64 == entries;
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
            let entries = starts[rows.start]..starts[rows.end];
            tasks.push(Task { entries, rows, piece: false });
        }
    };
    for row in 0..starts.len().saturating_sub(1) {
        let len = starts[row + 1] - starts[row];
        if len > 2 * TASK {
            whole(&mut tasks, first..row);
            for start in (starts[row]..starts[row + 1]).step_by(TASK) {
                let entries = start..starts[row + 1].min(start + TASK);
                tasks.push(Task { entries, rows: row..row + 1, piece: true });
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

/// What a pass over stored entries computes, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct SparseOutputs {
    pub numerator: bool,
    pub denominator: bool,
    /// ℓ at the datum.
    pub losses: bool,
    /// ℓ at a datum of 0.
    pub zero_losses: bool,
}

/// A pass over stored entries.
pub(crate) struct EntryPass<'a, T> {
    pub entries: &'a PassEntries<T>,
    /// The output's table first.
    pub tables: &'a [KhatriRaoRows<T>],
    /// K, the number of indices of the contracted modes.
    pub depth: usize,
    /// Where each of these indices stands in a row of numerator and denominator.
    pub onto: &'a [usize],
    /// The length of such a row.
    pub width: usize,
    pub floor: T,
    pub tape: &'a Tape,
    pub outputs: SparseOutputs,
}

/// Losses summed over stored entries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EntryLosses {
    /// Of ℓ.
    pub at_datum: ByRole,
    /// Of ℓ at a datum of 0.
    pub at_zero: ByRole,
}

/// A sum for each role.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ByRole {
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

    /// Adds a block of losses. Where there are no roles, all are of training entries.
    #[inline(always)]
    fn add_terms<T: Elementwise>(&mut self, terms: &[T], roles: Option<&[Role]>) {
        let Some(roles) = roles else {
            self.train += sum(terms);
            return;
        };
        for (term, role) in terms.iter().zip(roles) {
            match role {
                Role::Missing => self.missing += term.to_f64(),
                Role::Train => self.train += term.to_f64(),
                Role::Validation => self.validation += term.to_f64(),
                Role::HeldOut => self.held_out += term.to_f64(),
            }
        }
    }

    /// The sum over all roles.
    pub fn all(&self) -> f64 {
        self.missing + self.train + self.validation + self.held_out
    }
}

impl EntryLosses {
    fn add(&mut self, other: &EntryLosses) {
        self.at_datum.add(&other.at_datum);
        self.at_zero.add(&other.at_zero);
    }
}

/// Rows of numerator or denominator that a task adds to.
enum TaskSums<'a> {
    Unwanted,
    /// From the task's first row to its last.
    Rows(&'a mut [f64]),
    /// The one row that a piece belongs to, apart.
    Piece(Vec<f64>),
}

impl TaskSums<'_> {
    fn data(&mut self) -> &mut [f64] {
        match self {
            TaskSums::Unwanted => &mut [],
            TaskSums::Rows(data) => data,
            TaskSums::Piece(data) => data,
        }
    }

    fn into_piece(self) -> Vec<f64> {
        match self {
            TaskSums::Piece(data) => data,
            TaskSums::Unwanted | TaskSums::Rows(_) => Vec::new(),
        }
    }
}

impl<T: Elementwise> EntryPass<'_, T> {
    /// Adds the sums over the entries to numerator and denominator, where they are wanted.
    pub fn run(&self, numerator: &mut [f64], denominator: &mut [f64]) -> EntryLosses {
        let wanted = [self.outputs.numerator, self.outputs.denominator];
        let row = |at: usize| self.entries.rows[at] as usize;
        let mut shares: Vec<(&Task, [TaskSums<'_>; 2])> =
            Vec::with_capacity(self.entries.tasks.len());
        let mut left = [&mut *numerator, &mut *denominator];
        // Rows before `reached` belong to tasks before.
        let mut reached = 0;
        for task in &self.entries.tasks {
            let (first, end) = (row(task.rows.start), row(task.rows.end - 1) + 1);
            let mut both = [TaskSums::Unwanted, TaskSums::Unwanted];
            for ((share, left), wanted) in both.iter_mut().zip(&mut left).zip(wanted) {
                if !wanted {
                    continue;
                }
                if task.piece {
                    *share = TaskSums::Piece(vec![0.0; self.width]);
                } else {
                    let tail = std::mem::take(left);
                    let (_, tail) = tail.split_at_mut((first - reached) * self.width);
                    let (own, tail) = tail.split_at_mut((end - first) * self.width);
                    (*share, *left) = (TaskSums::Rows(own), tail);
                }
            }
            if !task.piece {
                reached = end;
            }
            shares.push((task, both));
        }
        let losses = parallel::map_each(&mut shares, &|_, (task, [n, d])| {
            let run = RunTask { pass: self, task, sums: [n.data(), d.data()] };
            nneinfact_simd::arch().dispatch(run)
        });
        let pieces_of = |(task, both): (&Task, [TaskSums<'_>; 2])| {
            task.piece.then(|| (row(task.rows.start), both.map(TaskSums::into_piece)))
        };
        // In the order of the tasks, whichever thread ran them.
        let mut total = EntryLosses::default();
        let mut pieces = Vec::new();
        for (losses, share) in losses.into_iter().zip(shares) {
            total.add(&losses);
            pieces.extend(pieces_of(share));
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
struct RunTask<'a, T> {
    pass: &'a EntryPass<'a, T>,
    task: &'a Task,
    sums: [&'a mut [f64]; 2],
}

/// Entries of one row inside a block.
#[derive(Clone, Copy)]
struct RowRun {
    row: usize,
    start: usize,
    end: usize,
}

impl<T: Elementwise> WithSimd for RunTask<'_, T> {
    type Output = EntryLosses;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> EntryLosses {
        let RunTask { pass, task, sums } = self;
        let EntryPass { entries, outputs, .. } = *pass;
        let [numerator, denominator] = sums;
        let mut tables: Vec<&[T::Vector<S>]> = Vec::with_capacity(pass.tables.len());
        for table in pass.tables {
            tables.push(T::as_vectors::<S>(table.data()).0);
        }
        let lanes = size_of::<T::Vector<S>>() / T::BYTES;
        let kv = pass.depth.div_ceil(lanes);
        let first = entries.rows[task.rows.start] as usize;

        let mut y = [T::ZERO; BLOCK];
        let mut blocks = [[T::ZERO; BLOCK]; 4];
        let mut scratch = Scratch::default();
        let mut runs: Vec<RowRun> = Vec::with_capacity(BLOCK);
        let mut parameters: Vec<&[T]> = Vec::with_capacity(entries.entry_parameters.len());
        let mut acc: Vec<T::Vector<S>> = vec![T::splat(simd, T::ZERO); kv];
        let mut losses = EntryLosses::default();
        let mut row = task.rows.start;
        for start in task.entries.clone().step_by(BLOCK) {
            let end = task.entries.end.min(start + BLOCK);
            let len = end - start;
            row = entries.find_runs(start..end, row, &mut runs);
            match (kv, tables.len()) {
                (1, 2) => forward::<S, T, 1, 2>(simd, &tables, entries, &runs, start, kv, &mut y),
                (1, 3) => forward::<S, T, 1, 3>(simd, &tables, entries, &runs, start, kv, &mut y),
                (2, 2) => forward::<S, T, 2, 2>(simd, &tables, entries, &runs, start, kv, &mut y),
                _ => forward::<S, T, 0, 0>(simd, &tables, entries, &runs, start, kv, &mut y),
            }
            let floor = T::splat(simd, pass.floor);
            for y in T::as_vectors_mut::<S>(&mut y).0 {
                *y = T::at_least(simd, *y, floor);
            }

            parameters.clear();
            for parameter in &entries.entry_parameters {
                parameters.push(&parameter[start..end]);
            }
            let wanted =
                [outputs.numerator, outputs.denominator, outputs.losses, outputs.zero_losses];
            // The block of each output: those that are wanted follow one another.
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
                let (x, y, outputs) = (&entries.x[start..end], &y[..len], &mut all[..count]);
                run_tape(simd, pass.tape, x, y, &parameters, &mut scratch, outputs);
            }

            for (wanted, of, to) in
                [(wanted[0], of[0], &mut *numerator), (wanted[1], of[1], &mut *denominator)]
            {
                if !wanted {
                    continue;
                }
                let f = &blocks[of];
                let backward = Backward { entries, runs: &runs, start, first, pass, f };
                match (kv, tables.len()) {
                    (1, 2) => backward.run::<S, 1, 2>(simd, &tables, &mut acc, to),
                    (1, 3) => backward.run::<S, 1, 3>(simd, &tables, &mut acc, to),
                    (2, 2) => backward.run::<S, 2, 2>(simd, &tables, &mut acc, to),
                    _ => backward.run::<S, 0, 0>(simd, &tables, &mut acc, to),
                }
            }
            if wanted[2] {
                losses.at_datum.add_terms(&blocks[of[2]][..len], entries.roles(start..end));
            }
            if wanted[3] {
                losses.at_zero.add_terms(&blocks[of[3]][..len], entries.roles(start..end));
            }
        }
        losses
    }
}

/// ŷ at the entries of a block. Rows of `KV` vectors and a number of `TABLES` stay in registers; where
/// these are 0, any number will do.
#[inline(always)]
fn forward<S: Simd, T: Elementwise, const KV: usize, const TABLES: usize>(
    simd: S,
    tables: &[&[T::Vector<S>]],
    entries: &PassEntries<T>,
    runs: &[RowRun],
    start: usize,
    kv: usize,
    y: &mut [T; BLOCK],
) {
    let zero = T::splat(simd, T::ZERO);
    let count = if TABLES > 0 { TABLES } else { tables.len() };
    let tables = &tables[..count];
    let others = &entries.operands[..count - 1];
    for run in runs {
        let at = run.start..run.end;
        let y = &mut y[run.start - start..run.end - start];
        let v = &others[0][at.clone()];
        if KV > 0 {
            let u: [T::Vector<S>; KV] = row(tables[0], run.row);
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
            let u = &tables[0][run.row * kv..][..kv];
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
struct Backward<'a, T> {
    entries: &'a PassEntries<T>,
    runs: &'a [RowRun],
    start: usize,
    /// The row that the sums begin with.
    first: usize,
    pass: &'a EntryPass<'a, T>,
    f: &'a [T; BLOCK],
}

impl<T: Elementwise> Backward<'_, T> {
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
        let others = &self.entries.operands[..count - 1];
        let zero = T::splat(simd, T::ZERO);
        let width = self.pass.width;
        for run in self.runs {
            let at = run.start..run.end;
            let f = &self.f[run.start - self.start..run.end - self.start];
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
            let to = &mut to[(run.row - self.first) * width..][..width];
            let from: &[T] = bytemuck::cast_slice(acc);
            for (&k, &x) in self.pass.onto.iter().zip(from) {
                to[k] += x.to_f64();
            }
        }
    }
}
