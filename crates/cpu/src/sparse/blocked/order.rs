//! The order of a pass over stored entries: tasks, tiles, rows.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, Ordering};

use super::compact::of_each;
use super::task::{Task, Tile};
use super::training::TrainingEntries;
use nneinfact_core::model::Index;
use nneinfact_core::parallel;
use nneinfact_core::plan::SparsePass;

/// How large tasks and tiles are.
#[derive(Clone, Copy)]
pub(super) struct OrderSizes {
    /// The least and the most entries of a task.
    pub task: [usize; 2],
    /// What the blocks of a tile may take together.
    pub tile_bytes: usize,
}

impl OrderSizes {
    /// Blocks that stay in the second-level cache of most processors.
    pub const USUAL: OrderSizes = OrderSizes { task: [8192, 1 << 17], tile_bytes: 512 << 10 };
}

/// How many tasks there are where neither bound applies.
const TASKS: usize = 32;
/// How often a tile has to look up each row of its blocks for tables to be cut, and how many entries it has
/// to have in each row of the output.
const LEAST_REUSE: usize = 2;
const LEAST_RUN: usize = 8;
/// The most bits of a tile's number.
const MOST_TILE_BITS: u32 = 12;
/// A line of the cache. Rows count as whole lines here, whatever the vectors of this machine.
const LINE: usize = 64;

/// Entries in the order of a pass.
pub(super) struct Order {
    /// Their numbers among the training entries.
    pub places: Vec<u32>,
    /// The row of the output of each.
    pub output_rows: Vec<u32>,
    /// For each operand, the binary logarithm of the rows of a block.
    pub shifts: Vec<u32>,
    pub tasks: Vec<Task>,
    pub tiles: Vec<Tile>,
}

impl Order {
    pub fn new(entries: &TrainingEntries<'_>, pass: &SparsePass, sizes: OrderSizes) -> Order {
        let shapes = entries.shapes;
        let size = |indices: &[Index]| -> usize { shapes.sizes(indices).iter().product() };
        let (mut places, mut output_rows) =
            by_row(entries.rows(&pass.output.rows), size(&pass.output.rows));
        let [least, most] = sizes.task;
        let share = (entries.len() / TASKS).clamp(least, most);
        let (mut tasks, distinct) = tasks(&output_rows, share);

        let tables: Vec<usize> = pass.operands.iter().map(|table| size(&table.rows)).collect();
        let row_bytes = (pass.contracted_size(shapes) * 4).next_multiple_of(LINE);
        let density = Density {
            task: entries.len() / tasks.len().max(1),
            row: entries.len() / distinct.max(1),
        };
        let shifts = block_shifts(&tables, sizes.tile_bytes / row_bytes, density);
        let cut: Vec<TileBits> = TileBits::new(&tables, &shifts);
        let mut tiles = Vec::new();
        if cut.is_empty() {
            for (at, task) in tasks.iter_mut().enumerate() {
                tiles.push(Tile { end: task.entries.end });
                task.tiles = at..at + 1;
            }
            return Order { places, output_rows, shifts, tasks, tiles };
        }

        let mut numbers = vec![0u16; entries.len()];
        for bits in cut {
            let rows = entries.rows(&pass.operands[bits.operand].rows);
            parallel::chunks(&mut numbers, parallel::ENTRIES, &|first, numbers| {
                let rows = &rows[first..];
                numbers.iter_mut().zip(rows).for_each(|(number, &row)| *number |= bits.of(row));
            });
        }
        let shares = of_each(&mut places, &tasks).into_iter();
        let mut shares: Vec<_> = shares.zip(of_each(&mut output_rows, &tasks)).collect();
        let found: Vec<Vec<Tile>> = parallel::map_each(&mut shares, &|n, (places, rows)| {
            by_tile(places, rows, &numbers, tasks[n].entries.start)
        });
        for (task, found) in tasks.iter_mut().zip(found) {
            task.tiles = tiles.len()..tiles.len() + found.len();
            tiles.extend(found);
        }
        Order { places, output_rows, shifts, tasks, tiles }
    }
}

/// The entries sorted by their row out of so many, those of a row in the order that they have, and the row of
/// each.
fn by_row(rows: Cow<'_, [u32]>, count: usize) -> (Vec<u32>, Vec<u32>) {
    if rows.is_sorted() {
        return ((0..rows.len() as u32).collect(), rows.into_owned());
    }
    if count / 4 > rows.len() {
        // Rows are so many that counting them takes longer than comparing.
        let mut keys = parallel::entries(rows.len(), |i| u64::from(rows[i]) << 32 | i as u64);
        parallel::sort(&mut keys);
        let places = parallel::entries(keys.len(), |n| keys[n] as u32);
        return (places, parallel::entries(keys.len(), |n| (keys[n] >> 32) as u32));
    }
    by_counting(&rows, count)
}

/// Parts that entries are counted in: a part has its own counts of all rows.
const COUNTED_PARTS: usize = 8;

/// The same by counting: each part of the entries knows where its entries of a row go.
fn by_counting(rows: &[u32], count: usize) -> (Vec<u32>, Vec<u32>) {
    let part = rows.len().div_ceil(COUNTED_PARTS).max(4 * count).max(1);
    let parts: Vec<&[u32]> = rows.chunks(part).collect();
    let mut next: Vec<Vec<u32>> = parallel::map(parts.len(), &|n| {
        let mut counts = vec![0; count];
        parts[n].iter().for_each(|&row| counts[row as usize] += 1);
        counts
    });
    let mut sorted_rows = vec![0; rows.len()];
    let mut at = 0;
    for row in 0..count {
        let first = at;
        for counts in &mut next {
            at += std::mem::replace(&mut counts[row], at);
        }
        sorted_rows[first as usize..at as usize].fill(row as u32);
    }
    // Parts write here and there, though no two of them to the same place.
    let order: Vec<AtomicU32> = (0..rows.len()).map(|_| AtomicU32::new(0)).collect();
    parallel::for_each_of(&mut next, &|n, next| {
        for (i, &row) in parts[n].iter().enumerate() {
            let at = &mut next[row as usize];
            order[*at as usize].store((n * part + i) as u32, Ordering::Relaxed);
            *at += 1;
        }
    });
    (order.into_iter().map(AtomicU32::into_inner).collect(), sorted_rows)
}

/// Cuts sorted rows into tasks of about `share` entries: whole rows together, and long rows into pieces.
/// Gives the number of different rows, too.
fn tasks(rows: &[u32], share: usize) -> (Vec<Task>, usize) {
    let mut tasks = Vec::new();
    let mut distinct = 0;
    let mut add = |entries: std::ops::Range<usize>, piece| {
        if let (Some(&first), Some(&last)) = (rows.get(entries.start), rows[entries.clone()].last())
        {
            let rows = first as usize..last as usize + 1;
            tasks.push(Task { entries, tiles: 0..0, rows, piece });
        }
    };
    let (mut first, mut at) = (0, 0);
    while at < rows.len() {
        let end = at + rows[at..].iter().take_while(|&&row| row == rows[at]).count();
        distinct += 1;
        if end - at > 2 * share {
            add(first..at, false);
            for start in (at..end).step_by(share) {
                add(start..end.min(start + share), true);
            }
            first = end;
        } else if end - first >= share {
            add(first..end, false);
            first = end;
        }
        at = end;
    }
    add(first..rows.len(), false);
    (tasks, distinct)
}

/// The bits that a number below `count` takes.
fn bits(count: usize) -> u32 {
    usize::BITS - count.saturating_sub(1).leading_zeros()
}

/// The entries of a task, and how many of them each row of the output has, on average.
#[derive(Clone, Copy)]
struct Density {
    task: usize,
    row: usize,
}

/// For each table of so many rows the binary logarithm of the rows of a block: the largest block is
/// halved until there are at most `tile_rows` in all of them together. None is cut where that would leave too few entries of a
/// tile to a row, of the output or of a block: then what a tile begins with costs more than what the cache
/// gives.
fn block_shifts(tables: &[usize], tile_rows: usize, density: Density) -> Vec<u32> {
    let whole: Vec<u32> = tables.iter().map(|&rows| bits(rows)).collect();
    let mut shifts = whole.clone();
    for cut in 0..=MOST_TILE_BITS {
        let rows: usize = tables.iter().zip(&shifts).map(|(&n, &s)| n.min(1 << s)).sum();
        if rows <= tile_rows {
            let reused = density.task >> cut >= LEAST_REUSE * rows;
            let long = density.row >> cut >= LEAST_RUN;
            return if cut == 0 || reused && long { shifts } else { whole };
        }
        match shifts.iter_mut().max() {
            Some(largest) if *largest > 0 => *largest -= 1,
            _ => return whole,
        }
    }
    whole
}

/// Where the bits of an operand's block stand in the number of a tile.
struct TileBits {
    operand: usize,
    shift: u32,
    /// The place of each bit of the block's number, from the lowest on.
    places: Vec<u32>,
}

impl TileBits {
    /// Of the operands that are cut: the bits of their blocks in turn, which is a Z-order curve.
    fn new(tables: &[usize], shifts: &[u32]) -> Vec<TileBits> {
        let widths: Vec<u32> = tables.iter().zip(shifts).map(|(&n, &s)| bits(n) - s).collect();
        let mut all: Vec<TileBits> = (0..tables.len())
            .map(|operand| TileBits { operand, shift: shifts[operand], places: Vec::new() })
            .collect();
        let mut next = 0;
        for bit in 0..widths.iter().copied().max().unwrap_or(0) {
            for (table, &width) in all.iter_mut().zip(&widths) {
                if bit < width {
                    table.places.push(next);
                    next += 1;
                }
            }
        }
        all.retain(|table| !table.places.is_empty());
        all
    }

    fn of(&self, row: u32) -> u16 {
        let block = u64::from(row) >> self.shift;
        let bit = |(bit, &place): (usize, &u32)| ((block >> bit & 1) as u16) << place;
        self.places.iter().enumerate().map(bit).sum()
    }
}

/// Sorts the entries of a task by the numbers of their tiles, those of a tile in the order that they have.
/// `start` is the task's first entry.
fn by_tile(places: &mut [u32], rows: &mut [u32], numbers: &[u16], start: usize) -> Vec<Tile> {
    let mut next = vec![0u32; (1 << MOST_TILE_BITS) + 1];
    for &place in &*places {
        next[numbers[place as usize] as usize + 1] += 1;
    }
    let mut tiles = Vec::new();
    for number in 0..1 << MOST_TILE_BITS {
        let count = next[number + 1];
        next[number + 1] += next[number];
        if count > 0 {
            tiles.push(Tile { end: start + next[number + 1] as usize });
        }
    }
    let mut sorted = vec![(0, 0); places.len()];
    for (&place, &row) in places.iter().zip(&*rows) {
        let at = &mut next[numbers[place as usize] as usize];
        sorted[*at as usize] = (place, row);
        *at += 1;
    }
    for ((to, row), found) in places.iter_mut().zip(rows).zip(sorted) {
        (*to, *row) = found;
    }
    tiles
}
