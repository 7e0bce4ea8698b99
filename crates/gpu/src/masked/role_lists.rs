//! Lists of the entries of each line by their roles, as a device gets them: for every line and block of
//! columns the columns of all roles but the most frequent one of the line, a byte each.

use std::ops::Range;
use std::sync::Arc;

use crate::program::buffers::SLOT_SUMS;
use crate::program::recording::{BufferId, BufferKind, Program};
use nneinfact_core::engine::role_lists::{ChunkLists, Grid, by_roles, total};
use nneinfact_core::engine::{Job, LossSlot};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::plan::{Group, RolePass, RoleTerm};

/// Words of the head of a list in a block: `role_head.wgsl`.
const HEAD: usize = 3;

/// The lists of a job, each once for all groups that cut the data in the same way.
#[derive(Default)]
pub(crate) struct RoleLists {
    grids: Vec<Arc<ListedGrid>>,
    buffers: Option<RoleBuffers>,
}

/// What passes leave on their way, for all groups.
#[derive(Clone, Copy)]
pub(crate) struct RoleBuffers {
    /// The columns' product.
    pub columns: BufferId,
    /// Its sums over all columns.
    pub all: BufferId,
    /// What is summed over listed columns, by splits.
    pub partials: BufferId,
    /// The sums over training entries, by line.
    pub sums: BufferId,
    /// The rows' product.
    pub rows: BufferId,
}

/// The lists along one cut of the data into lines and columns.
pub(crate) struct ListedGrid {
    /// The observed indices of batches, lines and columns.
    key: [Vec<Index>; 3],
    pub grid: Grid,
    pub parts: Vec<ListPart>,
}

/// Chunks whose lists one dispatch goes over.
#[derive(Clone, Debug)]
pub(crate) struct ListPart {
    pub chunks: Range<usize>,
    pub lines: Range<usize>,
    /// How many entries they list.
    pub listed: usize,
    pub places: BufferId,
    pub heads: BufferId,
}

/// The most that a part may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartLimits {
    /// Bytes of places, and of heads.
    pub bytes: u64,
    /// Lines, as far as their sums need room.
    pub lines: usize,
    /// Entries, as far as a dispatch of them takes time.
    pub listed: usize,
}

impl RoleLists {
    /// The buffers that passes share.
    pub fn buffers(&mut self, program: &mut Program) -> RoleBuffers {
        *self.buffers.get_or_insert_with(|| RoleBuffers {
            columns: program.add_scratch("product of columns", 1),
            all: program.add_scratch("sums over all columns", 1),
            partials: program.add_scratch("sums over listed columns", 1),
            sums: program.add_scratch("sums over training entries", 1),
            rows: program.add_scratch("product of lines", 1),
        })
    }

    /// The lists of a pass.
    pub fn grid(
        &mut self,
        program: &mut Program,
        job: &Job,
        pass: &RolePass,
        limits: &PartLimits,
    ) -> Result<Arc<ListedGrid>> {
        let key = [pass.batch.clone(), pass.rows.clone(), pass.columns.clone()];
        if let Some(grid) = self.grids.iter().find(|grid| grid.key == key) {
            return Ok(Arc::clone(grid));
        }
        let Some(roles) = job.data.roles() else {
            return Err(Error::Internal("sums by roles of data without roles".into()));
        };
        let shapes = job.plan.shapes();
        let strides = match job.data.coo() {
            None => job.data.values().strides().to_vec(),
            Some(_) => job.plan.data().clone().in_c_order(shapes).strides,
        };
        let grid = Grid::new(shapes, pass, &strides);
        let lists = by_roles(&grid, roles);
        let chunks = grid.chunks();
        let parts = parts(program, &grid, &chunks, &lists, limits);
        let made = Arc::new(ListedGrid { key, grid, parts });
        self.grids.push(Arc::clone(&made));
        Ok(made)
    }
}

/// Cuts chunks into parts, and gives each its buffers.
fn parts(
    program: &mut Program,
    grid: &Grid,
    chunks: &[Range<usize>],
    lists: &[ChunkLists],
    limits: &PartLimits,
) -> Vec<ListPart> {
    let blocks = grid.blocks();
    let counted: Vec<usize> = lists.iter().map(|list| listed(list, blocks)).collect();
    let mut parts = Vec::new();
    let mut first = 0;
    while first < chunks.len() {
        let mut end = first;
        let (mut lines, mut entries) = (0, 0);
        while end < chunks.len() {
            let (more, most) = (lines + chunks[end].len(), entries + counted[end]);
            let fits = (4 * HEAD * more * blocks) as u64 <= limits.bytes
                && most as u64 <= limits.bytes
                && more <= limits.lines
                && most <= limits.listed;
            if end > first && !fits {
                break;
            }
            (lines, entries, end) = (more, most, end + 1);
        }
        let (places, heads) = content(&lists[first..end], lines, blocks);
        parts.push(ListPart {
            chunks: first..end,
            lines: chunks[first].start..chunks[end - 1].end,
            listed: entries,
            places: filled(program, "listed columns", places),
            heads: filled(program, "heads of lists", bytemuck::cast_slice(&heads).to_vec()),
        });
        first = end;
    }
    parts
}

/// The entries of a chunk's lists.
fn listed(list: &ChunkLists, blocks: usize) -> usize {
    (0..blocks).map(|block| list.block(block).0.len()).sum()
}

/// Places in order, and the heads of all lines in every block.
fn content(lists: &[ChunkLists], lines: usize, blocks: usize) -> (Vec<u8>, Vec<u32>) {
    let mut places = Vec::new();
    let mut heads = vec![0u32; HEAD * lines * blocks];
    let mut first = 0;
    for list in lists {
        for block in 0..blocks {
            let (own, counts) = list.block(block);
            let mut begin = places.len();
            places.extend_from_slice(own);
            for (row, (counts, implied)) in counts.iter().zip(&list.implied).enumerate() {
                let [missing, train, validation, held_out] = counts.map(u32::from);
                let head = &mut heads[HEAD * (block * lines + first + row)..][..HEAD];
                head.copy_from_slice(&[
                    begin as u32,
                    missing | train << 16 | (*implied as u32) << 30,
                    validation | held_out << 16,
                ]);
                begin += total(counts);
            }
        }
        first += list.implied.len();
    }
    places.resize(places.len().next_multiple_of(4), 0);
    (places, heads)
}

/// A storage buffer that begins as these bytes.
fn filled(program: &mut Program, label: &str, content: Vec<u8>) -> BufferId {
    let id = program.add_buffer(label, content.len().max(4) as u64, BufferKind::Storage);
    program.buffers[id.0].content = content;
    id
}

/// The pass of a group's sums.
pub(super) fn role_pass(shapes: &Shapes, group: &Group, listed: u64) -> Result<RolePass> {
    RolePass::new(shapes, group, RoleTerm::Linear, listed, size_of::<f32>()).ok_or_else(|| {
        Error::Internal(format!("{}: no indices are left for sums by roles", shapes.model()))
    })
}

/// Where the sums of a role's losses begin among those of a slot.
pub(super) fn role_losses(slot: LossSlot, role: usize) -> usize {
    slot as usize * SLOT_SUMS + role * nneinfact_shaders::LOSS_SUMS
}

#[cfg(test)]
mod tests {
    use super::*;
    use nneinfact_core::data::{Observations, Prepared};
    use nneinfact_core::model::Model;

    fn split(shape: &[usize]) -> Prepared {
        let y = ndarray::ArrayD::from_elem(shape, 1.0);
        let observations = Observations::new(&y).held_out(0.2, 1).unwrap();
        observations.validation(0.1, 2).unwrap().prepare().unwrap()
    }

    #[test]
    fn parts_hold_the_places_of_all_lines() {
        let (model, data) = (Model::parse("ir,jr->ij").unwrap(), split(&[600, 300]));
        let shapes = Shapes::new(&model, &[600, 300], &[('r', 3)]).unwrap();
        let group = Group { factors: vec![0], updates: Vec::new() };
        let pass = role_pass(&shapes, &group, data.minority()).unwrap();
        let grid = Grid::new(&shapes, &pass, data.values().strides());
        let lists = by_roles(&grid, data.roles().unwrap());
        let chunks = grid.chunks();
        let whole = PartLimits { bytes: u64::MAX, lines: usize::MAX, listed: usize::MAX };
        let small = PartLimits { lines: 300, ..whole };
        for (limits, count) in [(whole, 1), (small, 3)] {
            let mut program = Program::default();
            let parts = parts(&mut program, &grid, &chunks, &lists, &limits);
            assert_eq!(parts.len(), count);
            assert_eq!(parts.iter().map(|part| part.listed as u64).sum::<u64>(), data.minority());
            for part in parts {
                let places = &program.buffers[part.places.0].content;
                let heads: Vec<u32> =
                    bytemuck::pod_collect_to_vec(&program.buffers[part.heads.0].content);
                for (n, line) in part.lines.clone().enumerate() {
                    let mut found = vec![1u32; 300];
                    for block in 0..grid.blocks() {
                        let head = &heads[3 * (block * part.lines.len() + n)..][..3];
                        assert_eq!(head[1] >> 30, 1, "training entries are most of a line");
                        let mut at = head[0] as usize;
                        let counts = [head[1] & 0x3ff, head[1] >> 16 & 0x3ff];
                        let counts = [counts[0], counts[1], head[2] & 0x3ff, head[2] >> 16];
                        for (role, count) in counts.into_iter().enumerate() {
                            for _ in 0..count {
                                found[256 * block + places[at] as usize] = role as u32;
                                at += 1;
                            }
                        }
                    }
                    let offsets = grid.row_offsets(line..line + 1);
                    for (column, &role) in found.iter().enumerate() {
                        let at = offsets[0] + grid.column_offsets(column / 256)[column % 256];
                        assert_eq!(role, data.roles().unwrap().get(at) as u32, "{line} {column}");
                    }
                }
            }
        }
    }
}
