//! Lists of the entries of each line by their roles, as a device gets them: for every line and block of
//! columns the columns of all roles but the most frequent one of the line, a byte each. Where entries have weights,
//! these instead, by line and column.

use std::ops::Range;
use std::sync::Arc;

use crate::program::buffers::SLOT_SUMS;
use crate::program::recording::{BufferId, BufferKind, Program};
use nneinfact_core::data::{Implicit, Role};
use nneinfact_core::engine::role_lists::{ChunkLists, Grid, by_entries, by_roles, total};
use nneinfact_core::engine::stored_order::StoredPart;
use nneinfact_core::engine::{Job, LossSlot};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::plan::{Group, ROLE_BLOCK, RolePass, RoleTerm};

/// Words of the head of a list in a block: `role_head.wgsl`.
const HEAD: usize = 3;

/// The lists of a job, each once for all groups that cut the data in the same way.
#[derive(Default)]
pub(crate) struct RoleLists {
    grids: Vec<Arc<ListedGrid>>,
    /// How many entries rows list, where data stand in for those of a fit to come.
    expected: Option<u64>,
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
    /// How many entries are added up.
    pub listed: usize,
    pub source: PartSource,
}

/// What says which entries count.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PartSource {
    Lists { places: BufferId, heads: BufferId },
    Weights(BufferId),
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

    /// Makes parts as if rows listed so many entries, and no lists.
    pub fn expect(&mut self, listed: Option<u64>) {
        self.expected = listed;
    }

    /// How many entries lists of a job hold.
    pub fn listed(&self, job: &Job) -> u64 {
        self.expected.unwrap_or_else(|| listed_entries(job))
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
        let shapes = job.plan.shapes();
        let strides = match job.data.coo() {
            None => job.data.values().strides().to_vec(),
            Some(_) => job.plan.data().clone().in_c_order(shapes).strides,
        };
        let grid = Grid::new(shapes, pass, &strides);
        let chunks = grid.chunks();
        let implied = |stored, part, role| by_entries(shapes, pass, &grid, stored, (part, role));
        let lists = match (job.stored.as_deref(), job.data.roles()) {
            _ if self.expected.is_some() => None,
            (Some(stored), _) if stored.implicit() == Implicit::Missing => {
                Some(implied(stored, StoredPart::Train, Role::Missing))
            }
            (Some(stored), _) if stored.implicit() == Implicit::Zeros => {
                Some(implied(stored, StoredPart::Masked, Role::Train))
            }
            _ if job.data.weights().is_some() => None,
            (_, Some(roles)) => Some(by_roles(&grid, roles)),
            (_, None) => {
                return Err(Error::Internal("sums by roles of data without roles".into()));
            }
        };
        let parts = match (lists, self.expected) {
            (_, Some(listed)) => expected_parts(program, &grid, &chunks, limits, listed),
            (Some(lists), None) => parts(program, &grid, &chunks, &lists, limits),
            (None, None) => weighted_parts(program, job, &grid, &chunks, limits),
        };
        let made = Arc::new(ListedGrid { key, grid, parts });
        self.grids.push(Arc::clone(&made));
        Ok(made)
    }
}

/// Chunks that are a part together.
struct Cut {
    chunks: Range<usize>,
    lines: usize,
    /// Entries that they add up.
    listed: usize,
}

/// Cuts chunks into parts whose lines take so many bytes each, and their entries, in one buffer; `counted` are the
/// entries of a chunk.
fn cut(
    chunks: &[Range<usize>],
    limits: &PartLimits,
    [line_bytes, entry_bytes]: [usize; 2],
    counted: impl Fn(usize) -> usize,
) -> Vec<Cut> {
    let mut cuts = Vec::new();
    let mut first = 0;
    while first < chunks.len() {
        let mut end = first;
        let (mut lines, mut entries) = (0usize, 0usize);
        while end < chunks.len() {
            let more = lines + chunks[end].len();
            let most = entries.saturating_add(counted(end));
            let fits = line_bytes.saturating_mul(more) as u64 <= limits.bytes
                && entry_bytes.saturating_mul(most) as u64 <= limits.bytes
                && more <= limits.lines
                && most <= limits.listed;
            if end > first && !fits {
                break;
            }
            (lines, entries, end) = (more, most, end + 1);
        }
        cuts.push(Cut { chunks: first..end, lines, listed: entries });
        first = end;
    }
    cuts
}

impl Cut {
    fn part(&self, chunks: &[Range<usize>], source: PartSource) -> ListPart {
        let own = &chunks[self.chunks.clone()];
        let lines = own.first().map_or(0, |c| c.start)..own.last().map_or(0, |c| c.end);
        ListPart { chunks: self.chunks.clone(), lines, listed: self.listed, source }
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
    let part = |cut: Cut| {
        let (places, heads) = content(&lists[cut.chunks.clone()], cut.lines, blocks);
        let source = PartSource::Lists {
            places: filled(program, "listed columns", places),
            heads: filled(program, "heads of lists", bytemuck::cast_slice(&heads).to_vec()),
        };
        cut.part(chunks, source)
    };
    cut(chunks, limits, [4 * HEAD * blocks, 1], |at| counted[at]).into_iter().map(part).collect()
}

/// The same of data whose rows list so many entries in all: a program without the lists.
fn expected_parts(
    program: &mut Program,
    grid: &Grid,
    chunks: &[Range<usize>],
    limits: &PartLimits,
    listed: u64,
) -> Vec<ListPart> {
    let lines = (grid.batches * grid.rows).max(1) as f64;
    let counted = |at: usize| (listed as f64 / lines * chunks[at].len() as f64) as usize;
    let part = |cut: Cut| {
        let source = PartSource::Lists {
            places: filled(program, "listed columns", Vec::new()),
            heads: filled(program, "heads of lists", Vec::new()),
        };
        cut.part(chunks, source)
    };
    let bytes = [4 * HEAD * grid.blocks(), 1];
    cut(chunks, limits, bytes, counted).into_iter().map(part).collect()
}

/// The same of data whose entries have weights.
fn weighted_parts(
    program: &mut Program,
    job: &Job,
    grid: &Grid,
    chunks: &[Range<usize>],
    limits: &PartLimits,
) -> Vec<ListPart> {
    let blocks = grid.blocks();
    let part = |cut: Cut| {
        let mut weights: Vec<f32> = vec![0.0; ROLE_BLOCK * blocks * cut.lines];
        for (block, weights) in weights.chunks_exact_mut(ROLE_BLOCK * cut.lines).enumerate() {
            let mut rest = weights;
            for chunk in &chunks[cut.chunks.clone()] {
                let (own, after) = rest.split_at_mut(ROLE_BLOCK * chunk.len());
                grid.weights(&job.data, chunk, block, own);
                rest = after;
            }
        }
        let content = bytemuck::cast_slice(&weights).to_vec();
        cut.part(chunks, PartSource::Weights(filled(program, "weights of columns", content)))
    };
    let bytes = [size_of::<f32>() * ROLE_BLOCK * blocks, 0];
    let counted = |at: usize| chunks[at].len().saturating_mul(grid.columns);
    cut(chunks, limits, bytes, counted).into_iter().map(part).collect()
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

/// How many entries lists of a job hold.
fn listed_entries(job: &Job) -> u64 {
    match job.stored.as_deref().map(|stored| (stored.implicit(), stored.counts())) {
        Some((Implicit::Missing, counts)) => counts.train,
        Some((Implicit::Zeros, counts)) => counts.masked,
        Some((Implicit::ByRole, _)) | None => job.data.minority(),
    }
}

/// The pass of a group's sums, whose rows list so many entries.
///
/// # Errors
/// Where there are not enough indices to write it with.
pub(crate) fn role_pass(
    shapes: &Shapes,
    group: &Group,
    term: RoleTerm,
    listed: u64,
) -> Result<RolePass> {
    RolePass::new(shapes, group, term, listed, size_of::<f32>()).ok_or_else(|| {
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
        let pass = role_pass(&shapes, &group, RoleTerm::Linear, data.minority()).unwrap();
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
                let PartSource::Lists { places, heads } = part.source else {
                    panic!("lists, not {part:?}");
                };
                let places = &program.buffers[places.0].content;
                let heads: Vec<u32> =
                    bytemuck::pod_collect_to_vec(&program.buffers[heads.0].content);
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
