//! Lists of the entries of each row by their roles, for sums over the entries of a role, for every
//! engine.
//!
//! A place in a list is a column within a block of 256, in one byte. In every row the role that has
//! most entries is *implied*: it is not listed, and what the listed ones leave of all entries is its.

use std::ops::Range;

use super::stored_order::{StoredOrder, StoredPart};
use crate::algebra::contract::Walk;
use crate::data::{Prepared, Role, Roles, StoredEntries};
use crate::model::{Index, Shapes};
use crate::parallel;
use crate::plan::{ROLE_BLOCK, RolePass};
use nneinfact_simd::Elementwise;

/// Rows of a unit of parallel work.
pub const ROWS: usize = 256;

/// How entries lie along rows and columns.
pub struct Grid {
    /// Rows in each batch.
    pub rows: usize,
    /// Values of the indices that rows and the columns' product share.
    pub batches: usize,
    /// Columns of a row.
    pub columns: usize,
    /// The place in memory of each row's first entry, over all batches.
    row_offsets: Vec<usize>,
    /// What each column adds to it.
    column_offsets: Vec<usize>,
}

impl Grid {
    /// The grid of a pass over entries that lie at these strides.
    #[must_use]
    pub fn new(shapes: &Shapes, pass: &RolePass, strides: &[usize]) -> Grid {
        let stride = |x: &Index| {
            let mode = shapes.model().output().iter().position(|y| y == x);
            mode.and_then(|mode| strides.get(mode)).copied().unwrap_or(0)
        };
        let offsets = |indices: &[Index]| -> Vec<usize> {
            let sizes = shapes.sizes(indices);
            let strides: Vec<usize> = indices.iter().map(stride).collect();
            let mut walk = Walk::new(&sizes, &strides);
            let mut offsets = Vec::with_capacity(sizes.iter().product());
            for _ in 0..sizes.iter().product() {
                offsets.push(walk.offset());
                walk.skip(1);
            }
            offsets
        };
        let row_offsets = offsets(&[pass.batch.as_slice(), &pass.rows].concat());
        Grid {
            rows: shapes.sizes(&pass.rows).iter().product(),
            batches: shapes.sizes(&pass.batch).iter().product(),
            columns: shapes.sizes(&pass.columns).iter().product(),
            row_offsets,
            column_offsets: offsets(&pass.columns),
        }
    }

    /// Blocks of columns.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.columns.div_ceil(ROLE_BLOCK)
    }

    /// The columns of a block.
    #[must_use]
    pub fn block(&self, block: usize) -> Range<usize> {
        block * ROLE_BLOCK..self.columns.min((block + 1) * ROLE_BLOCK)
    }

    /// Rows that are gone over together, counted over all batches; all of one batch.
    #[must_use]
    pub fn chunks(&self) -> Vec<Range<usize>> {
        let of = |batch: usize| {
            let (first, end) = (batch * self.rows, (batch + 1) * self.rows);
            (first..end).step_by(ROWS).map(move |start| start..end.min(start + ROWS))
        };
        (0..self.batches).flat_map(of).collect()
    }

    /// The places in memory of the first entries of some rows.
    #[must_use]
    pub fn row_offsets(&self, rows: Range<usize>) -> &[usize] {
        &self.row_offsets[rows]
    }

    /// What the columns of a block add to them.
    #[must_use]
    pub fn column_offsets(&self, block: usize) -> &[usize] {
        &self.column_offsets[self.block(block)]
    }
}

/// The columns that some rows list.
#[derive(Default)]
pub struct ChunkLists {
    /// The role of each row that is not listed.
    pub implied: Vec<Role>,
    /// Columns within their block: by block, then by row, then by role.
    places: Vec<u8>,
    /// How many of each role, by block, then by row.
    counts: Vec<[u16; 4]>,
    /// Where the places of each block begin, and where the last end.
    starts: Vec<usize>,
}

impl ChunkLists {
    /// The places of a block, and how many each row has of each role.
    #[must_use]
    pub fn block(&self, block: usize) -> (&[u8], &[[u16; 4]]) {
        let rows = self.implied.len();
        let places = &self.places[self.starts[block]..self.starts[block + 1]];
        (places, &self.counts[block * rows..][..rows])
    }

    /// The places of one row in a block.
    #[must_use]
    pub fn row(&self, block: usize, row: usize) -> &[u8] {
        let (places, counts) = self.block(block);
        let before: usize = counts[..row].iter().map(total).sum();
        &places[before..][..total(&counts[row])]
    }

    /// Adds a block from what it lists: the row, the column, the role.
    fn push(&mut self, found: &[(u16, u8, Role)]) {
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        let rows = self.implied.len();
        let mut counts = vec![[0u16; 4]; rows];
        for &(row, _, role) in found {
            counts[usize::from(row)][role as usize] += 1;
        }
        let mut next = self.places.len();
        let mut places = vec![[0usize; 4]; rows];
        for (place, count) in places.iter_mut().flatten().zip(counts.iter().flatten()) {
            *place = next;
            next += usize::from(*count);
        }
        self.places.resize(next, 0);
        for &(row, column, role) in found {
            let place = &mut places[usize::from(row)][role as usize];
            self.places[*place] = column;
            *place += 1;
        }
        self.counts.extend(counts);
        self.starts.push(next);
    }
}

/// How many entries of any role.
#[must_use]
pub fn total(counts: &[u16; 4]) -> usize {
    counts.iter().map(|&n| usize::from(n)).sum()
}

impl Grid {
    /// The weights of the training entries of some rows in a block, 0 for all others.
    pub fn weights<T: Elementwise>(
        &self,
        data: &Prepared,
        rows: &Range<usize>,
        block: usize,
        to: &mut [T],
    ) {
        let Some(weights) = data.weights() else { return };
        let (row_offsets, column_offsets) =
            (self.row_offsets(rows.clone()), self.column_offsets(block));
        to.fill(T::ZERO);
        let (along_rows, along_columns) = (runs(row_offsets), runs(column_offsets));
        if along_rows.len() * column_offsets.len() < along_columns.len() * row_offsets.len() {
            let mut run = vec![T::ZERO; row_offsets.len()];
            for (column, offset) in column_offsets.iter().enumerate() {
                for &(start, len) in &along_rows {
                    weights.load(row_offsets[start] + offset, 1, &mut run[..len]);
                    for (row, &weight) in (start..).zip(&run[..len]) {
                        to[row * ROLE_BLOCK + column] = weight;
                    }
                }
            }
        } else {
            for (row, offset) in row_offsets.iter().enumerate() {
                for &(start, len) in &along_columns {
                    let to = &mut to[row * ROLE_BLOCK + start..][..len];
                    weights.load(offset + column_offsets[start], 1, to);
                }
            }
        }
        if let Some(roles) = data.roles() {
            scan((self, roles, Role::Train), rows, block, |row, column, _| {
                to[row * ROLE_BLOCK + column] = T::ZERO;
            });
        }
    }
}

/// The lists of all rows.
#[must_use]
pub fn by_roles(grid: &Grid, roles: &Roles) -> Vec<ChunkLists> {
    let most = Role::ALL.into_iter().max_by_key(|&role| roles.count(role));
    let common = most.unwrap_or(Role::Train);
    let chunks = grid.chunks();
    parallel::map(chunks.len(), &|at| chunk(grid, roles, common, chunks[at].clone()))
}

/// Runs of neighbours in memory: where each begins, and its length.
fn runs(offsets: &[usize]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (i, &offset) in offsets.iter().enumerate() {
        match runs.last_mut() {
            Some((start, len)) if offsets[*start] + *len == offset => *len += 1,
            _ => runs.push((i, 1)),
        }
    }
    runs
}

/// Calls `found` with row, column within the block and role of each entry that does not have the
/// `common` role, along whichever of rows and columns memory runs.
fn scan(
    (grid, roles, common): (&Grid, &Roles, Role),
    rows: &Range<usize>,
    block: usize,
    mut found: impl FnMut(usize, usize, Role),
) {
    let row_offsets = grid.row_offsets(rows.clone());
    let column_offsets = grid.column_offsets(block);
    let (along_rows, along_columns) = (runs(row_offsets), runs(column_offsets));
    if along_rows.len() * column_offsets.len() < along_columns.len() * row_offsets.len() {
        for (column, offset) in column_offsets.iter().enumerate() {
            for &(start, len) in &along_rows {
                roles.others(common, row_offsets[start] + offset, len, |i, role| {
                    found(start + i, column, role);
                });
            }
        }
    } else {
        for (row, offset) in row_offsets.iter().enumerate() {
            for &(start, len) in &along_columns {
                roles.others(common, offset + column_offsets[start], len, |i, role| {
                    found(row, start + i, role);
                });
            }
        }
    }
}

fn chunk(grid: &Grid, roles: &Roles, common: Role, rows: Range<usize>) -> ChunkLists {
    let mut counts = vec![[0u64; 4]; rows.len()];
    for block in 0..grid.blocks() {
        scan((grid, roles, common), &rows, block, |row, _, role| counts[row][role as usize] += 1);
    }
    let implied = counts.iter_mut().map(|counts| {
        counts[common as usize] = grid.columns as u64 - counts.iter().sum::<u64>();
        // Of roles with equally many entries the first in this order.
        let order = [Role::Train, Role::Missing, Role::HeldOut, Role::Validation];
        let least = |role: &Role| std::cmp::Reverse(counts[*role as usize]);
        order.into_iter().min_by_key(least).unwrap_or(Role::Train)
    });
    let mut lists = ChunkLists { implied: implied.collect(), ..ChunkLists::default() };
    let mut found = Vec::new();
    for block in 0..grid.blocks() {
        found.clear();
        let implied = &lists.implied;
        scan((grid, roles, common), &rows, block, |row, column, role| {
            if implied[row] == common {
                found.push((row as u16, column as u8, role));
            }
        });
        // Rows in which another role is implied list the common one, too.
        let row_offsets = grid.row_offsets(rows.clone());
        for (row, &implied) in lists.implied.iter().enumerate().filter(|(_, role)| **role != common)
        {
            for (column, offset) in grid.column_offsets(block).iter().enumerate() {
                let role = roles.get(row_offsets[row] + offset);
                if role != implied {
                    found.push((row as u16, column as u8, role));
                }
            }
        }
        lists.push(&found);
    }
    lists
}

/// The lists of a part of the stored entries, beside which all others have the role `implied`.
#[must_use]
pub fn by_entries(
    shapes: &Shapes,
    pass: &RolePass,
    grid: &Grid,
    stored: &StoredEntries,
    (part, implied): (StoredPart, Role),
) -> Vec<ChunkLists> {
    let rows = [pass.batch.as_slice(), &pass.rows].concat();
    let order = StoredOrder::new(shapes, stored, part, &rows);
    let columns = order.rows_of(&pass.columns);
    let roles = order.roles();
    let of = |rows: Range<usize>| {
        let mut lists = ChunkLists { implied: vec![implied; rows.len()], ..ChunkLists::default() };
        let at = |row: usize| order.rows.partition_point(|&x| (x as usize) < row);
        let mut entries: Vec<(u32, u16, Role)> = Vec::new();
        for at in at(rows.start)..at(rows.end) {
            let row = (order.rows[at] as usize - rows.start) as u16;
            let own = order.starts[at]..order.starts[at + 1];
            entries.extend(own.map(|entry| (columns[entry], row, roles[entry])));
        }
        entries.sort_unstable_by_key(|&(column, row, _)| (column, row));
        let mut left = entries.as_slice();
        let mut found = Vec::new();
        for block in 0..grid.blocks() {
            let end = left.partition_point(|e| (e.0 as usize) < (block + 1) * ROLE_BLOCK);
            let (own, after) = left.split_at(end);
            found.clear();
            found.extend(own.iter().map(|e| (e.1, (e.0 as usize % ROLE_BLOCK) as u8, e.2)));
            lists.push(&found);
            left = after;
        }
        lists
    };
    let chunks = grid.chunks();
    parallel::map(chunks.len(), &|at| of(chunks[at].clone()))
}
