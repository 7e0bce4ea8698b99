//! Lists of cells as a device gets them: columns of words, cut into parts, blocks and pieces.

use std::ops::Range;

use nneinfact_core::data::{Dense, StoredEntries};
use nneinfact_core::engine::stored_order::{StoredOrder, StoredPart};
use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::plan::SparsePass;

/// Pieces that a thread adds up: a longer row takes several steps.
const FAN: usize = 64;

/// Cells in the order of a pass, sorted by the row of the target.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// The rows of the target that have cells, in order.
    rows: Vec<u32>,
    /// Where the cells of each of them start, and where the last ends.
    starts: Vec<usize>,
    /// For each operand the row of each cell, then the bits of values and of side tensors, then
    /// roles, if any.
    columns: Vec<Vec<u32>>,
}

fn bits(values: Vec<f32>) -> Vec<u32> {
    bytemuck::cast_vec(values)
}

impl Listed {
    /// The cells of a part of a list. `sides` are in C order; values are multiplied by `scale`.
    pub fn new(
        shapes: &Shapes,
        pass: &SparsePass,
        list: &StoredEntries,
        part: StoredPart,
        sides: &[Dense],
        scale: f64,
    ) -> Listed {
        let sorted = StoredOrder::new(shapes, list, part, &pass.output.rows);
        let mut columns: Vec<Vec<u32>> =
            pass.operands.iter().map(|table| sorted.rows_of(&table.rows)).collect();
        columns.push(bits(sorted.values(scale)));
        columns.extend(sides.iter().map(|side| bits(sorted.entry_parameter(side))));
        if part == StoredPart::Masked {
            columns.push(sorted.roles().into_iter().map(|role| role as u32).collect());
        }
        Listed { rows: sorted.rows, starts: sorted.starts, columns }
    }

    /// What the exceptions change in sums over all cells, with a sign for the value of each cell.
    ///
    /// Where at most half of a row are exceptions, they are taken off: −1. What is left of such a
    /// difference has the digits of single precision but one or two. Of a row with more exceptions
    /// than that the sum over all cells is dropped, and the cells that are none are added up: +1.
    /// They are fewer than the exceptions. Returns the rows to drop, too.
    pub fn corrections(
        shapes: &Shapes,
        pass: &SparsePass,
        list: &StoredEntries,
        sides: &[Dense],
    ) -> (Listed, Vec<u32>) {
        let sorted = StoredOrder::new(shapes, list, StoredPart::Masked, &pass.output.rows);
        let output = shapes.model().output();
        let across: Vec<Index> =
            output.iter().copied().filter(|x| !pass.output.rows.contains(x)).collect();
        let row_cells = shapes.volume(across.iter().collect());
        let most = |row: usize| {
            2.0 * (sorted.starts[row + 1] - sorted.starts[row]) as f64 > row_cells
                && row_cells <= f64::from(u32::MAX)
        };
        let tables: Vec<Vec<u32>> =
            pass.operands.iter().map(|table| sorted.rows_of(&table.rows)).collect();
        let side_values: Vec<Vec<u32>> =
            sides.iter().map(|side| bits(sorted.entry_parameter(side))).collect();
        let places = match (0..sorted.rows.len()).any(most) {
            true => sorted.rows_of(&across),
            false => Vec::new(),
        };

        let mut dropped = Vec::new();
        let mut found = Listed {
            columns: vec![Vec::new(); tables.len() + 1 + sides.len()],
            ..Listed::default()
        };
        let mut index = vec![0; output.len()];
        for (row, &number) in sorted.rows.iter().enumerate() {
            let cells = sorted.starts[row]..sorted.starts[row + 1];
            let first = found.columns[0].len();
            if most(row) {
                dropped.push(number);
                let mut missing = places[cells].to_vec();
                missing.sort_unstable();
                let mut missing = missing.into_iter().peekable();
                split(shapes, &pass.output.rows, u64::from(number), &mut index);
                for place in 0..row_cells as u32 {
                    if missing.next_if_eq(&place).is_some() {
                        continue;
                    }
                    split(shapes, &across, u64::from(place), &mut index);
                    let (columns, rest) = found.columns.split_at_mut(tables.len());
                    for (column, table) in columns.iter_mut().zip(&pass.operands) {
                        column.push(join(shapes, &table.rows, &index) as u32);
                    }
                    let (signs, values) = rest.split_at_mut(1);
                    signs[0].push(1f32.to_bits());
                    for (column, side) in values.iter_mut().zip(sides) {
                        let at = join(shapes, output, &index) as usize;
                        let value = side.storage().get(at).unwrap_or(1.0) as f32;
                        column.push(value.to_bits());
                    }
                }
            } else {
                let (columns, rest) = found.columns.split_at_mut(tables.len());
                for (column, table) in columns.iter_mut().zip(&tables) {
                    column.extend(&table[cells.clone()]);
                }
                let (signs, values) = rest.split_at_mut(1);
                signs[0].resize(first + cells.len(), (-1f32).to_bits());
                for (column, side) in values.iter_mut().zip(&side_values) {
                    column.extend(&side[cells.clone()]);
                }
            }
            if found.columns[0].len() > first {
                found.rows.push(number);
                found.starts.push(first);
            }
        }
        found.starts.push(found.columns[0].len());
        (found, dropped)
    }

    /// The number of cells.
    pub fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Words that a cell takes.
    pub fn words(&self) -> usize {
        self.columns.len()
    }

    /// The words of some cells, column by column.
    pub fn content(&self, cells: &Range<usize>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 * cells.len() * self.columns.len());
        for column in &self.columns {
            bytes.extend_from_slice(bytemuck::cast_slice(&column[cells.clone()]));
        }
        bytes
    }

    /// Cuts the list into what a dispatch each goes over.
    pub fn cut(&self, cut: &Cut) -> Vec<ListPart> {
        let mut parts = Vec::new();
        let (mut at, mut row) = (0, 0);
        while at < self.len() {
            parts.push(self.part(cut, &mut at, &mut row));
        }
        parts
    }

    /// The next part, from the cell `at` of the row `row` on.
    fn part(&self, cut: &Cut, at: &mut usize, row: &mut usize) -> ListPart {
        let first = *at;
        let (mut pieces, mut rows, mut blocks) = (Vec::new(), Vec::new(), vec![0]);
        let mut taken = 0;
        while *at < self.len() {
            if taken == cut.block {
                let full = *at - first + cut.block > cut.cells
                    || pieces.len() + cut.block > cut.pieces
                    || blocks.len() >= cut.blocks;
                if full {
                    break;
                }
                blocks.push(pieces.len() as u32);
                taken = 0;
            }
            let end = self.starts[*row + 1];
            let step = (end - *at).min(cut.piece).min(cut.block - taken);
            pieces.push((*at - first) as u32);
            rows.push(self.rows[*row]);
            *at += step;
            taken += step;
            if *at == end {
                *row += 1;
            }
        }
        // Neighbouring pieces of a row, to be added in steps of at most `FAN`.
        let mut sums: Vec<[u32; 3]> = Vec::new();
        for (piece, &row) in rows.iter().enumerate() {
            match sums.last_mut() {
                Some(sum) if sum[0] == row => sum[2] += 1,
                _ => sums.push([row, piece as u32, piece as u32 + 1]),
            }
        }
        let count = pieces.len();
        let mut slots = count as u32;
        let mut steps: Vec<Vec<[u32; 3]>> = Vec::new();
        loop {
            let mut tasks = Vec::new();
            for sum in sums.iter_mut().filter(|sum| (sum[2] - sum[1]) as usize > FAN) {
                let start = slots;
                for from in (sum[1]..sum[2]).step_by(FAN) {
                    tasks.push([slots, from, sum[2].min(from + FAN as u32)]);
                    slots += 1;
                }
                (sum[1], sum[2]) = (start, slots);
            }
            if tasks.is_empty() {
                break;
            }
            steps.push(tasks);
        }

        let cells = first..*at;
        let mut index = pieces;
        index.push(cells.len() as u32);
        let rows_at = index.len();
        index.extend(rows);
        let blocks_at = index.len();
        let block_count = blocks.len();
        index.extend(blocks);
        index.push(count as u32);
        let mut tasks = |tasks: &[[u32; 3]]| {
            let at = index.len();
            index.extend(tasks.iter().flatten());
            Tasks { at, count: tasks.len() }
        };
        let steps = steps.iter().map(|step| tasks(step)).collect();
        let sums = tasks(&sums);
        ListPart {
            cells,
            rows_at,
            blocks_at,
            blocks: block_count,
            slots: slots as usize,
            steps,
            sums,
            index,
        }
    }
}

/// The indices, mode by mode, of the letters that make a number, the last running fastest.
fn split(shapes: &Shapes, letters: &[Index], mut number: u64, index: &mut [u64]) {
    for &x in letters.iter().rev() {
        let size = shapes.size(x) as u64;
        if let Some(mode) = shapes.model().output().iter().position(|&y| y == x) {
            index[mode] = number % size;
        }
        number /= size;
    }
}

/// The number that some letters make of indices.
fn join(shapes: &Shapes, letters: &[Index], index: &[u64]) -> u64 {
    letters.iter().fold(0, |number, &x| {
        let mode = shapes.model().output().iter().position(|&y| y == x).unwrap_or(0);
        number * shapes.size(x) as u64 + index[mode]
    })
}

/// How a list is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Cells of a block.
    pub block: usize,
    /// The most cells of a piece.
    pub piece: usize,
    /// The most cells, pieces and blocks of a part.
    pub cells: usize,
    pub pieces: usize,
    pub blocks: usize,
}

impl Cut {
    /// The most pieces of a part whose sums, with those of all steps, have this many places.
    pub fn pieces(slots: usize) -> usize {
        // A long row adds a place for every `FAN` of its pieces, one for every `FAN` of these, ….
        slots - slots / 16
    }
}

/// What a dispatch goes over.
#[derive(Debug)]
pub(super) struct ListPart {
    pub cells: Range<usize>,
    /// Where pieces begin; the row of each; the first piece of each block; tasks.
    pub index: Vec<u32>,
    pub rows_at: usize,
    pub blocks_at: usize,
    pub blocks: usize,
    /// Places for sums of pieces, and for sums of these.
    pub slots: usize,
    /// What adds the pieces of long rows to fewer, step by step.
    pub steps: Vec<Tasks>,
    /// What adds the pieces of each row to numerator and denominator.
    pub sums: Tasks,
}

/// Tasks of `gather.wgsl`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tasks {
    /// Where they are in the index.
    pub at: usize,
    pub count: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shaders::{few, job_listed};
    use nneinfact_core::data::{Implicit, Observations};
    use nneinfact_core::engine::Job;
    use nneinfact_core::loss::Loss;
    use nneinfact_core::plan::Grouping;

    fn list(y: &ndarray::ArrayD<f64>, observe: impl Fn(Observations) -> Observations) -> Job {
        let ranks = [('r', 2)];
        let (loss, grouping) = (Loss::kl(), Grouping::Block);
        job_listed(y, "ir,jr,ar->ija", &ranks, loss, grouping, Implicit::Zeros, observe)
    }

    /// Adds up numbers of cells as `listed.wgsl` and `gather.wgsl` do, by the row of the target.
    fn sums(listed: &Listed, parts: &[ListPart], cut: &Cut, rows: usize, x: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; rows];
        let mut end = 0;
        for part in parts {
            assert_eq!(part.cells.start, end, "parts follow one another");
            end = part.cells.end;
            let index = |at: usize| part.index[at] as usize;
            let mut slots = vec![f64::NAN; part.slots];
            for block in 0..part.blocks {
                let (first, end) =
                    (index(part.blocks_at + block), index(part.blocks_at + block + 1));
                assert!((1..=cut.block).contains(&(index(end) - index(first))));
                for (piece, slot) in slots.iter_mut().enumerate().take(end).skip(first) {
                    let cells = index(piece)..index(piece + 1);
                    assert!((1..=cut.piece).contains(&cells.len()));
                    let cells = part.cells.start + cells.start..part.cells.start + cells.end;
                    let row =
                        listed.rows.iter().position(|&r| r as usize == index(part.rows_at + piece));
                    let row = row.expect("a row with cells");
                    assert!(
                        listed.starts[row] <= cells.start && cells.end <= listed.starts[row + 1]
                    );
                    *slot = x[cells].iter().sum();
                }
            }
            let task = |at: usize| [index(at), index(at + 1), index(at + 2)];
            for step in &part.steps {
                for i in 0..step.count {
                    let [to, from, end] = task(step.at + 3 * i);
                    assert!(end - from <= FAN && slots[to].is_nan() && to >= end);
                    slots[to] = slots[from..end].iter().sum();
                }
            }
            for i in 0..part.sums.count {
                let [row, from, end] = task(part.sums.at + 3 * i);
                assert!(end - from <= FAN);
                sums[row] += slots[from..end].iter().sum::<f64>();
            }
        }
        assert_eq!(end, listed.len());
        sums
    }

    #[test]
    fn every_cell_is_summed_once_into_its_row() {
        // A row with most of the cells, rows with a few, and rows without any.
        let y = ndarray::ArrayD::from_shape_fn(vec![9, 90, 80], |at| {
            let chance = match at[0] {
                4 => 100,
                2 | 7 => 0,
                _ => 2,
            };
            let hash = ((at[0] * 90 + at[1]) * 80 + at[2]).wrapping_mul(2_654_435_761) >> 8;
            if hash % 100 < chance { 1.0 } else { 0.0 }
        });
        let job = list(&y, |o| o);
        let (plan, cells) = (&job.plan, job.stored.as_ref().expect("a list"));
        let pass = &plan.sparse_passes()[0];
        let listed = Listed::new(plan.shapes(), pass, cells, StoredPart::Train, &[], 1.0);
        assert!(listed.len() > 7000);
        let x: Vec<f64> = (0..listed.len()).map(|i| (i % 13) as f64).collect();
        let mut expected = vec![0.0; 9];
        for (row, bounds) in listed.rows.iter().zip(listed.starts.windows(2)) {
            expected[*row as usize] = x[bounds[0]..bounds[1]].iter().sum();
        }
        for (block, piece) in [(1, 1), (7, 3), (128, 16), (128, 128)] {
            for (cells, pieces, blocks) in [(1 << 20, 1 << 20, 1 << 20), (500, 300, 5), (1, 1, 1)] {
                let cut = Cut { block, piece, cells, pieces: pieces.max(block), blocks };
                let parts = listed.cut(&cut);
                assert_eq!(sums(&listed, &parts, &cut, 9, &x), expected, "{cut:?}");
                for part in &parts {
                    let most = (1..).find(|&slots| Cut::pieces(slots) >= part.rows_at - 1);
                    assert!(part.slots <= most.expect("a number of places"));
                }
            }
        }
    }

    #[test]
    fn rows_with_little_left_are_summed_as_they_are() {
        let y = few(&[4, 6, 5]);
        // Missing: nothing of row 0, a bit of row 1, most of row 2, all of row 3.
        let mask = ndarray::ArrayD::from_shape_fn(vec![4, 6, 5], |at| match at[0] {
            0 => true,
            1 => at[1] != 3,
            2 => at[1] == 4 && at[2] != 0,
            _ => false,
        });
        let job = list(&y, |o| o.mask(&mask).expect("a mask"));
        let (plan, cells) = (&job.plan, job.stored.as_ref().expect("a list"));
        let pass = &plan.sparse_passes()[0];
        let (found, dropped) = Listed::corrections(plan.shapes(), pass, cells, &[]);
        assert_eq!(dropped, [2, 3]);
        assert_eq!((found.rows.as_slice(), found.starts.as_slice()), (&[1, 2][..], &[0, 5, 9][..]));
        let signs: Vec<f32> =
            found.columns[pass.operands.len()].iter().map(|&x| f32::from_bits(x)).collect();
        assert_eq!(signs, [[-1.0; 5].as_slice(), &[1.0; 4]].concat());
        let along = |mode: char| {
            let letter = nneinfact_core::model::Index::new(mode).expect("a letter");
            pass.operands.iter().position(|t| t.rows == [letter])
        };
        if let (Some(j), Some(a)) = (along('j'), along('a')) {
            assert_eq!(found.columns[j], [3, 3, 3, 3, 3, 4, 4, 4, 4]);
            assert_eq!(found.columns[a], [0, 1, 2, 3, 4, 1, 2, 3, 4]);
        } else {
            // One table of both.
            assert_eq!(found.columns[0], [15, 16, 17, 18, 19, 21, 22, 23, 24]);
        }
    }
}
