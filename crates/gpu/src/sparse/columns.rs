//! Stored entries as a device gets them: columns of words, cut into parts, blocks and pieces.

use std::ops::Range;

use rayon::prelude::*;

use nneinfact_core::data::{Dense, StoredEntries};
use nneinfact_core::engine::stored_order::{StoredOrder, StoredPart};
use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::plan::SparsePass;

/// Bytes that a core copies at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces that a thread adds up: a longer row takes several steps.
const FAN: usize = 64;

/// Stored entries in the order of a pass, sorted by the row of the output.
#[derive(Debug, Default)]
pub(crate) struct EntryColumns {
    /// The rows of the output that have entries, in order.
    rows: Vec<u32>,
    /// Where the entries of each of them start, and where the last ends.
    starts: Vec<usize>,
    /// For each operand the row of each entry, then the bits of values and of entry parameters (with the
    /// weights of masked entries after them), then roles, if any.
    columns: Vec<Vec<u32>>,
    /// Entry parameters, weights included.
    parameters: usize,
}

fn bits(values: Vec<f32>) -> Vec<u32> {
    bytemuck::cast_vec(values)
}

/// Masked entries on their way to what they change in sums over all entries.
struct Corrections<'a> {
    shapes: &'a Shapes,
    pass: &'a SparsePass,
    /// Entry parameters in C order.
    parameters: &'a [Dense],
    found: EntryColumns,
}

impl Corrections<'_> {
    /// Takes the masked entries of a row off: the sign −1.
    fn take_off(
        &mut self,
        entries: Range<usize>,
        tables: &[Vec<u32>],
        parameter_bits: &[Vec<u32>],
    ) {
        let (columns, others) = self.found.columns.split_at_mut(tables.len());
        for (column, table) in columns.iter_mut().zip(tables) {
            column.extend(&table[entries.clone()]);
        }
        let (signs, values) = others.split_at_mut(1);
        signs[0].extend(entries.clone().map(|_| (-1f32).to_bits()));
        for (column, parameter) in values.iter_mut().zip(parameter_bits) {
            column.extend(&parameter[entries.clone()]);
        }
    }

    /// Adds up the entries of a row that are not masked: the sign +1. `masked` are the places in the row
    /// of those that are, of all `row_entries`; `across` are the indices that a row does not have.
    fn add_up(&mut self, row: u32, mut masked: Vec<u32>, across: &[Index], row_entries: u32) {
        let (shapes, pass) = (self.shapes, self.pass);
        let output = shapes.model().output();
        let mut index = vec![0; output.len()];
        masked.sort_unstable();
        let mut masked = masked.into_iter().peekable();
        split(shapes, &pass.output.rows, u64::from(row), &mut index);
        for place in 0..row_entries {
            if masked.next_if_eq(&place).is_some() {
                continue;
            }
            split(shapes, across, u64::from(place), &mut index);
            let (columns, others) = self.found.columns.split_at_mut(pass.operands.len());
            for (column, table) in columns.iter_mut().zip(&pass.operands) {
                column.push(join(shapes, &table.rows, &index) as u32);
            }
            let (signs, values) = others.split_at_mut(1);
            signs[0].push(1f32.to_bits());
            for (column, parameter) in values.iter_mut().zip(self.parameters) {
                let at = join(shapes, output, &index) as usize;
                let value = parameter.storage().get(at).unwrap_or(1.0) as f32;
                column.push(value.to_bits());
            }
        }
    }
}

impl EntryColumns {
    /// Those of a part of the stored entries. Entry parameters are in C order; values are multiplied by
    /// `scale`.
    pub fn new(
        shapes: &Shapes,
        pass: &SparsePass,
        stored: &StoredEntries,
        part: StoredPart,
        parameters: &[Dense],
        scale: f64,
    ) -> EntryColumns {
        let sorted = StoredOrder::new(shapes, stored, part, &pass.output.rows);
        let mut columns: Vec<Vec<u32>> =
            pass.operands.iter().map(|table| sorted.rows_of(&table.rows)).collect();
        columns.push(bits(sorted.values(scale)));
        columns.extend(parameters.iter().map(|parameter| bits(sorted.entry_parameter(parameter))));
        let mut count = parameters.len();
        if part == StoredPart::Masked {
            let weights = sorted.weights().map(bits);
            count += usize::from(weights.is_some());
            columns.extend(weights);
            columns.push(sorted.roles().into_iter().map(|role| role as u32).collect());
        }
        EntryColumns { rows: sorted.rows, starts: sorted.starts, columns, parameters: count }
    }

    /// What masked entries change in sums over all entries, with a sign for the value of each entry.
    ///
    /// Where at most half of a row is masked, the masked entries are taken off: −1. What is left of such
    /// a difference has the digits of single precision but one or two. Of a row with more masked entries
    /// than that the sum over all entries is set to zero, and the entries that are not masked are added
    /// up: +1. They are fewer than the masked ones. Returns the rows to set to zero, too.
    pub fn corrections(
        shapes: &Shapes,
        pass: &SparsePass,
        stored: &StoredEntries,
        parameters: &[Dense],
    ) -> (EntryColumns, Vec<u32>) {
        let sorted = StoredOrder::new(shapes, stored, StoredPart::Masked, &pass.output.rows);
        let output = shapes.model().output();
        let across: Vec<Index> =
            output.iter().copied().filter(|x| !pass.output.rows.contains(x)).collect();
        let row_entries = shapes.volume(across.iter().collect());
        let most = |row: usize| {
            2.0 * (sorted.starts[row + 1] - sorted.starts[row]) as f64 > row_entries
                && row_entries <= f64::from(u32::MAX)
        };
        let tables: Vec<Vec<u32>> =
            pass.operands.iter().map(|table| sorted.rows_of(&table.rows)).collect();
        let parameter_bits: Vec<Vec<u32>> =
            parameters.iter().map(|parameter| bits(sorted.entry_parameter(parameter))).collect();
        let places = match (0..sorted.rows.len()).any(most) {
            true => sorted.rows_of(&across),
            false => Vec::new(),
        };

        let mut zeroed = Vec::new();
        let columns = vec![Vec::new(); tables.len() + 1 + parameters.len()];
        let found =
            EntryColumns { columns, parameters: parameters.len(), ..EntryColumns::default() };
        let mut corrections = Corrections { shapes, pass, parameters, found };
        for (row, &number) in sorted.rows.iter().enumerate() {
            let entries = sorted.starts[row]..sorted.starts[row + 1];
            let first = corrections.found.columns[0].len();
            if most(row) {
                zeroed.push(number);
                let masked = places[entries].to_vec();
                corrections.add_up(number, masked, &across, row_entries as u32);
            } else {
                corrections.take_off(entries, &tables, &parameter_bits);
            }
            let found = &mut corrections.found;
            if found.columns[0].len() > first {
                found.rows.push(number);
                found.starts.push(first);
            }
        }
        let mut found = corrections.found;
        found.starts.push(found.columns[0].len());
        (found, zeroed)
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// How many entry parameters an entry has, its weight included where it has one.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// Words that an entry takes.
    pub fn words(&self) -> usize {
        self.columns.len()
    }

    /// The words of some entries, column by column.
    pub fn content(&self, entries: &Range<usize>) -> Vec<u8> {
        if entries.is_empty() {
            return Vec::new();
        }
        // A column may be tens of millions of words: a piece of each for every core.
        let mut bytes = vec![0u8; 4 * entries.len() * self.columns.len()];
        bytes.par_chunks_mut(4 * entries.len()).zip(&self.columns).for_each(|(to, column)| {
            let from: &[u8] = bytemuck::cast_slice(&column[entries.clone()]);
            let pieces = to.par_chunks_mut(PIECE_BYTES).zip(from.par_chunks(PIECE_BYTES));
            pieces.for_each(|(to, from)| to.copy_from_slice(from));
        });
        bytes
    }

    /// Cuts the entries into what a dispatch each goes over.
    pub fn cut(&self, cut: &CutLimits) -> Vec<SparsePart> {
        let mut parts = Vec::new();
        let (mut at, mut row) = (0, 0);
        while at < self.len() {
            parts.push(self.part(cut, &mut at, &mut row));
        }
        parts
    }

    /// The next part, from the entry `at` of the row `row` on.
    fn part(&self, cut: &CutLimits, at: &mut usize, row: &mut usize) -> SparsePart {
        let first = *at;
        let (mut pieces, mut rows, mut blocks) = (Vec::new(), Vec::new(), vec![0]);
        let mut taken = 0;
        while *at < self.len() {
            if taken == cut.block {
                let full = *at - first + cut.block > cut.entries
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

        let entries = first..*at;
        let mut index = pieces;
        index.push(entries.len() as u32);
        let rows_at = index.len();
        index.extend(rows);
        let blocks_at = index.len();
        let block_count = blocks.len();
        index.extend(blocks);
        index.push(count as u32);
        let mut tasks = |tasks: &[[u32; 3]]| {
            let at = index.len();
            index.extend(tasks.iter().flatten());
            GatherTasks { at, count: tasks.len() }
        };
        let steps = steps.iter().map(|step| tasks(step)).collect();
        let sums = tasks(&sums);
        SparsePart {
            entries,
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

/// The values, mode by mode, of the indices that make a flat number, the last running fastest.
fn split(shapes: &Shapes, indices: &[Index], mut number: u64, index: &mut [u64]) {
    for &x in indices.iter().rev() {
        let size = shapes.size(x) as u64;
        if let Some(mode) = shapes.model().output().iter().position(|&y| y == x) {
            index[mode] = number % size;
        }
        number /= size;
    }
}

/// The flat number that some indices make, from the values of all modes.
fn join(shapes: &Shapes, indices: &[Index], index: &[u64]) -> u64 {
    indices.iter().fold(0, |number, &x| {
        let mode = shapes.model().output().iter().position(|&y| y == x).unwrap_or(0);
        number * shapes.size(x) as u64 + index[mode]
    })
}

/// How stored entries are cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutLimits {
    /// Entries of a block.
    pub block: usize,
    /// The most entries of a piece.
    pub piece: usize,
    /// The most entries, pieces and blocks of a part.
    pub entries: usize,
    pub pieces: usize,
    pub blocks: usize,
}

impl CutLimits {
    /// The most pieces of a part whose sums, with those of all steps, have this many places.
    pub fn pieces(slots: usize) -> usize {
        // A long row adds a place for every `FAN` of its pieces, one for every `FAN` of these, ….
        slots - slots / 16
    }
}

/// What a dispatch goes over.
#[derive(Debug)]
pub(crate) struct SparsePart {
    pub entries: Range<usize>,
    /// Where pieces begin; the row of each; the first piece of each block; tasks.
    pub index: Vec<u32>,
    pub rows_at: usize,
    pub blocks_at: usize,
    pub blocks: usize,
    /// Places for sums of pieces, and for sums of these.
    pub slots: usize,
    /// What adds the pieces of long rows to fewer, step by step.
    pub steps: Vec<GatherTasks>,
    /// What adds the pieces of each row to numerator and denominator.
    pub sums: GatherTasks,
}

/// Tasks of `gather.wgsl`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatherTasks {
    /// Where they are in the index.
    pub at: usize,
    pub count: usize,
}

#[cfg(test)]
mod tests;
