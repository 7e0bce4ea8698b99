//! The pass over training entries in blocked order: ŷ, the loss's expressions, and the sums.

use nneinfact_core::parallel;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::entries::BlockedEntries;
use super::kernel::{BLOCK, Gather, RowRun, RowSums, find_runs, predict, scatter};
use super::task::Task;
use crate::dense::sum;
use crate::sparse::khatri_rao::KhatriRaoRows;
use crate::sparse::pass::SparseOutputs;
use crate::tape::run_tape;
use nneinfact_core::loss::{Scratch, Tape};
use nneinfact_simd::Elementwise;

/// What the rows that a block looks up in one table may take, to be in the first-level cache when they are
/// looked up for the second time; and the fewest entries of a block.
const ROWS_BYTES: usize = 24 << 10;
const LEAST_BLOCK: usize = 32;

/// A pass over training entries.
pub(crate) struct BlockedPass<'a, T> {
    pub entries: &'a BlockedEntries<T>,
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

/// Losses summed over entries.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct TrainingLosses {
    /// Of ℓ.
    pub at_datum: f64,
    /// Of ℓ at a datum of 0.
    pub at_zero: f64,
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
}

impl<T: Elementwise> BlockedPass<'_, T> {
    /// Adds the sums over the entries to numerator and denominator, where they are wanted.
    pub fn run(&self, numerator: &mut [f64], denominator: &mut [f64]) -> TrainingLosses {
        let wanted = [self.outputs.numerator, self.outputs.denominator];
        let mut shares = self.shares([&mut *numerator, &mut *denominator], wanted);
        let losses = parallel::map_each(&mut shares, &|at, [n, d]: &mut [TaskSums<'_>; 2]| {
            let task = &self.entries.tasks[at];
            let run = RunTask { pass: self, task, sums: [n.data(), d.data()] };
            nneinfact_simd::arch().dispatch(run)
        });
        // In the order of the tasks, whichever thread ran them.
        let mut total = TrainingLosses::default();
        let mut pieces = Vec::new();
        for ((losses, both), task) in losses.into_iter().zip(shares).zip(&self.entries.tasks) {
            total.at_datum += losses.at_datum;
            total.at_zero += losses.at_zero;
            pieces.extend(both.into_iter().enumerate().filter_map(|(of, sums)| match sums {
                TaskSums::Piece(sums) => Some((of, task.rows.start, sums)),
                TaskSums::Rows(_) | TaskSums::Unwanted => None,
            }));
        }
        for (of, row, sums) in pieces {
            let to = if of == 0 { &mut *numerator } else { &mut *denominator };
            let to = &mut to[row * self.width..][..self.width];
            to.iter_mut().zip(sums).for_each(|(to, x)| *to += x);
        }
        total
    }

    /// What each task adds to.
    fn shares<'a>(
        &self,
        mut left: [&'a mut [f64]; 2],
        wanted: [bool; 2],
    ) -> Vec<[TaskSums<'a>; 2]> {
        // Rows before it belong to tasks before.
        let mut reached = 0;
        let mut shares = Vec::with_capacity(self.entries.tasks.len());
        for task in &self.entries.tasks {
            let mut both = [TaskSums::Unwanted, TaskSums::Unwanted];
            for ((share, left), _) in
                both.iter_mut().zip(&mut left).zip(wanted).filter(|&(_, wanted)| wanted)
            {
                if task.piece {
                    *share = TaskSums::Piece(vec![0.0; self.width]);
                    continue;
                }
                let (_, tail) =
                    std::mem::take(left).split_at_mut((task.rows.start - reached) * self.width);
                let (own, tail) = tail.split_at_mut(task.rows.len() * self.width);
                (*share, *left) = (TaskSums::Rows(own), tail);
            }
            if !task.piece {
                reached = task.rows.end;
            }
            shares.push(both);
        }
        shares
    }

    /// Entries of a block: a function of the plan, not of the machine's vectors.
    fn block(&self) -> usize {
        let row = self.depth * T::BYTES * (self.tables.len() - 1).max(1);
        (ROWS_BYTES / row.max(1)).clamp(LEAST_BLOCK, BLOCK)
    }
}

/// A task. A type of its own, and not a closure, as only what is inlined into the dispatched
/// function is compiled for its instruction set.
struct RunTask<'a, T> {
    pass: &'a BlockedPass<'a, T>,
    task: &'a Task,
    sums: [&'a mut [f64]; 2],
}

impl<T: Elementwise> WithSimd for RunTask<'_, T> {
    type Output = TrainingLosses;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> TrainingLosses {
        let mut tables: Vec<&[T::Vector<S>]> = Vec::with_capacity(self.pass.tables.len());
        for table in self.pass.tables {
            tables.push(T::as_vectors::<S>(table.data()).0);
        }
        let lanes = size_of::<T::Vector<S>>() / T::BYTES;
        let kv = self.pass.depth.div_ceil(lanes);
        match (kv, tables.len()) {
            (1, 2) => self.run::<S, 1, 2>(simd, &tables, kv),
            (1, 3) => self.run::<S, 1, 3>(simd, &tables, kv),
            (2, 2) => self.run::<S, 2, 2>(simd, &tables, kv),
            (3, 2) => self.run::<S, 3, 2>(simd, &tables, kv),
            (4, 2) => self.run::<S, 4, 2>(simd, &tables, kv),
            (2, 3) => self.run::<S, 2, 3>(simd, &tables, kv),
            (_, 2) => self.run::<S, 0, 2>(simd, &tables, kv),
            (_, 3) => self.run::<S, 0, 3>(simd, &tables, kv),
            _ => self.run::<S, 0, 0>(simd, &tables, kv),
        }
    }
}

/// What a block of entries is read into.
struct BlockBuffers<T> {
    /// For each table, the output's first.
    rows: Vec<[u32; BLOCK]>,
    runs: Vec<RowRun>,
    x: [T; BLOCK],
    y: [T; BLOCK],
}

impl<T: Elementwise> BlockBuffers<T> {
    fn new(tables: usize) -> BlockBuffers<T> {
        BlockBuffers {
            rows: vec![[0; BLOCK]; tables],
            runs: Vec::with_capacity(BLOCK),
            x: [T::ZERO; BLOCK],
            y: [T::ONE; BLOCK],
        }
    }

    /// Reads entries of a task, the first of which is in tile number `tile`. Returns the tile of the entry
    /// after them.
    #[inline(always)]
    fn read(
        &mut self,
        from: &BlockedEntries<T>,
        task: &Task,
        entries: Range<usize>,
        mut tile: usize,
    ) -> usize {
        let len = entries.len();
        from.values.decode(entries.clone(), &mut self.x[..len]);
        let [output, operands @ ..] = &mut self.rows[..] else { return tile };
        from.rows[0].decode(entries.clone(), task.rows.start as u32, &mut output[..len]);
        let mut start = entries.start;
        while start < entries.end {
            let end = from.tiles[tile].end.min(entries.end);
            let to = start - entries.start..end - entries.start;
            let bases = &from.bases[tile * operands.len()..][..operands.len()];
            for ((rows, local), &base) in operands.iter_mut().zip(&from.rows[1..]).zip(bases) {
                local.decode(start..end, base, &mut rows[to.clone()]);
            }
            tile += usize::from(end == from.tiles[tile].end);
            start = end;
        }
        find_runs(&output[..len], &mut self.runs);
        tile
    }
}

impl<T: Elementwise> RunTask<'_, T> {
    #[inline(always)]
    fn run<S: Simd, const KV: usize, const TABLES: usize>(
        self,
        simd: S,
        tables: &[&[T::Vector<S>]],
        kv: usize,
    ) -> TrainingLosses {
        let RunTask { pass, task, sums } = self;
        let (entries, outputs) = (pass.entries, pass.outputs);
        let in_place =
            pass.onto.len() == pass.width && pass.onto.iter().enumerate().all(|(k, &to)| k == to);
        let mut sums = sums.map(|data| RowSums {
            data,
            first: task.rows.start,
            width: pass.width,
            onto: pass.onto,
            in_place,
        });

        let mut buffers = BlockBuffers::new(tables.len());
        let mut blocks = [[T::ZERO; BLOCK]; 4];
        let mut scratch = Scratch::default();
        let mut parameters: Vec<&[T]> = Vec::with_capacity(entries.entry_parameters.len());
        let mut acc: Vec<T::Vector<S>> = vec![T::splat(simd, T::ZERO); kv];
        let mut losses = TrainingLosses::default();
        let reads_y = pass.tape.reads_y();
        // The block of each output: those that are wanted follow one another.
        let wanted = [outputs.numerator, outputs.denominator, outputs.losses, outputs.zero_losses];
        let mut of = [0; 4];
        let mut count = 0;
        for (of, wanted) in of.iter_mut().zip(wanted) {
            *of = count;
            count += usize::from(wanted);
        }
        let mut tile = task.tiles.start;
        for start in task.entries.clone().step_by(pass.block()) {
            let end = task.entries.end.min(start + pass.block());
            let len = end - start;
            tile = buffers.read(entries, task, start..end, tile);
            let BlockBuffers { rows, runs, x, y } = &mut buffers;
            let gather = Gather::<_, KV, TABLES> { tables, rows, kv };
            if reads_y {
                predict::<S, T, KV, TABLES>(simd, &gather, runs, y);
                let floor = T::splat(simd, pass.floor);
                for y in T::as_vectors_mut::<S>(y).0 {
                    *y = T::at_least(simd, *y, floor);
                }
            }

            parameters.clear();
            for parameter in &entries.entry_parameters {
                parameters.push(&parameter[start..end]);
            }
            {
                let [b0, b1, b2, b3] = &mut blocks;
                let mut all: [&mut [T]; 4] =
                    [&mut b0[..len], &mut b1[..len], &mut b2[..len], &mut b3[..len]];
                let outputs = &mut all[..count];
                run_tape(simd, pass.tape, &x[..len], &y[..len], &parameters, &mut scratch, outputs);
            }
            for (at, to) in sums.iter_mut().enumerate() {
                if wanted[at] {
                    let f = &blocks[of[at]];
                    scatter::<S, T, KV, TABLES>(simd, &gather, runs, f, &mut acc, to);
                }
            }
            if wanted[2] {
                losses.at_datum += sum(&blocks[of[2]][..len]);
            }
            if wanted[3] {
                losses.at_zero += sum(&blocks[of[3]][..len]);
            }
        }
        losses
    }
}
