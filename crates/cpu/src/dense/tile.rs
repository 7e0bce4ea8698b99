//! A thread's buffers, and the work on one tile: its panels, its entries and its share of the sums.

use std::ops::Range;

use pulp::Arch;

use super::axis::is_contiguous;
use super::evaluate::{EntryBlock, LossAccumulator, RowPanel, TapePanel};
use super::geometry::Geometry;
use super::kernel::{self, MR, MR_LARGE};
use super::kl::Kl;
use super::panel::{LhsPanel, RhsPanel};
use super::register_block::{BlockFormula, BlockOutput, BlockPanel};
use super::strategy::{Evaluation, Microkernel, Reduction};
use super::work::{PartialSums, PassInput, WorkItem};
use nneinfact_core::engine::LossSums;
use nneinfact_core::plan::OperandSide;
use nneinfact_simd::{Aligned, Elementwise};

/// Forms values and losses of a row panel in registers; the operands are its A and B panel.
fn run_blocks<T: Elementwise, F: BlockFormula<T>>(
    arch: Arch,
    formula: F,
    panel: RowPanel<'_, T>,
    [lhs, rhs]: [&[T]; 2],
    depth: usize,
    output: BlockOutput<'_, T>,
) {
    arch.dispatch(BlockPanel { panel, lhs, rhs, depth, formula, output });
}

/// What a thread works with: the panels of the tile at hand, and buffers.
pub(crate) struct TileWorker<'a, T: Elementwise> {
    pass: PassInput<'a, T>,
    arch: Arch,
    /// The offset of the batch index in each tensor, and in the data.
    batch_offsets: Vec<usize>,
    data_batch: usize,
    lhs: LhsPanel<T>,
    rhs: RhsPanel<T>,
    /// The panels on the output's side of the items of a wave that are not at hand.
    waiting: WaitingPanels<T>,
    rows: RowOffsets,
    buffers: Buffers<T>,
    losses: LossAccumulator,
    /// Work items that are done, for their memory.
    spare: Vec<WorkItem<T>>,
}

/// Panels on the output's side, one for each item of a wave.
enum WaitingPanels<T> {
    Lhs(Vec<LhsPanel<T>>),
    Rhs(Vec<RhsPanel<T>>),
}

/// Offsets of rows in the data, all from the same batch index and the same columns on.
#[derive(Default)]
struct RowOffsets {
    /// Those of the tile that most likely comes next, to be prefetched.
    next: Vec<usize>,
    /// Those of the tile at hand, and `next`.
    upcoming: Vec<usize>,
}

/// Memory for the values of a row block.
struct Buffers<T> {
    y: Aligned<T>,
    a: Aligned<T>,
    b: Aligned<T>,
    entries: EntryBlock<T>,
    /// Sums of dot products, in one number each.
    collected: Vec<T>,
}

impl<T: Elementwise> Buffers<T> {
    fn new(pass: PassInput<'_, T>) -> Buffers<T> {
        let PassInput { geometry, source, evaluation, .. } = pass;
        let (tile, wants) = (&geometry.tile, source.wants);
        let block = match evaluation {
            Evaluation::Sums(_) => 0,
            Evaluation::Tape | Evaluation::Entries(_) => tile.block_rows * tile.width,
        };
        let (panel, rows) = match evaluation {
            Evaluation::Tape => (tile.panel_rows * tile.width, 1),
            Evaluation::Entries(_) | Evaluation::Sums(_) => (0, MR_LARGE),
        };
        Buffers {
            y: Aligned::zeros(panel),
            a: Aligned::zeros(if wants.numerator { block } else { 0 }),
            b: Aligned::zeros(if wants.denominator { block } else { 0 }),
            entries: EntryBlock::new(source, rows, tile.width),
            collected: Vec::new(),
        }
    }
}

impl<'a, T: Elementwise> TileWorker<'a, T> {
    pub fn new(pass: PassInput<'a, T>) -> Self {
        TileWorker {
            pass,
            arch: nneinfact_simd::arch(),
            batch_offsets: vec![0; pass.tensors.len()],
            data_batch: 0,
            lhs: LhsPanel::new(),
            rhs: RhsPanel::new(pass.geometry),
            waiting: match pass.geometry.output_side {
                OperandSide::Lhs => WaitingPanels::Lhs(Vec::new()),
                OperandSide::Rhs => WaitingPanels::Rhs(Vec::new()),
            },
            rows: RowOffsets::default(),
            buffers: Buffers::new(pass),
            losses: LossAccumulator::default(),
            spare: Vec::new(),
        }
    }

    /// Works on a wave: some output tiles, each over the same reduction units.
    pub fn run(&mut self, output_tiles: Range<usize>, units: (usize, usize)) -> Vec<PartialSums> {
        let g = self.pass.geometry;
        let mut items: Vec<WorkItem<T>> =
            output_tiles.map(|tile| self.begin(tile, units)).collect();
        match &mut self.waiting {
            WaitingPanels::Lhs(panels) => panels.resize_with(items.len(), LhsPanel::new),
            WaitingPanels::Rhs(panels) => panels.resize_with(items.len(), || RhsPanel::new(g)),
        }
        // Step by step for all items, as they have the panel of the other side in common, which is formed
        // once for all; and what they read of the data lies side by side, too.
        for step in 0..g.steps(units) {
            for i in 0..items.len() {
                let next = if i + 1 < items.len() { i + 1 } else { 0 };
                let same_batch = items[next].partial.batch == items[i].partial.batch;
                self.swap_panel(i);
                self.form_panels(&items[i], step);
                self.find_next_rows(next, same_batch);
                self.step(&mut items[i], step);
                self.swap_panel(i);
            }
        }
        items.into_iter().map(|item| self.end(item)).collect()
    }

    /// Takes up the panel of an item on the output's side, or puts it aside.
    fn swap_panel(&mut self, item: usize) {
        match &mut self.waiting {
            WaitingPanels::Lhs(panels) => std::mem::swap(&mut self.lhs, &mut panels[item]),
            WaitingPanels::Rhs(panels) => std::mem::swap(&mut self.rhs, &mut panels[item]),
        }
    }

    /// Finds the rows of the tile that comes after the one at hand, for item `next` of a wave; `same_batch`
    /// says whether that is at the same batch index. A guess is enough, as they are only prefetched.
    fn find_next_rows(&mut self, next: usize, same_batch: bool) {
        let g = self.pass.geometry;
        let rows = &mut self.rows.next;
        rows.clear();
        match &self.waiting {
            WaitingPanels::Lhs(panels) => {
                // After the last item come the next columns, which most likely follow these in memory.
                let shift = if next == 0 { self.rhs.at.1 } else { 0 };
                // The panel of an item alone is at hand, and not among those that wait.
                let lhs = if panels.len() == 1 { &self.lhs } else { &panels[next] };
                if same_batch {
                    rows.extend(lhs.offsets.iter().map(|row| row + shift));
                }
            }
            WaitingPanels::Rhs(panels) => {
                let rhs = if panels.len() == 1 { &self.rhs } else { &panels[next] };
                let shift = rhs.data_offset().wrapping_sub(self.rhs.data_offset());
                if next == 0 {
                    let below = self.lhs.at.0 + self.lhs.at.1;
                    let len = g.tile.panel_rows.min(g.rows.len - below);
                    g.rows.data_offsets(below, len, rows);
                } else if same_batch {
                    rows.extend(&self.lhs.offsets);
                }
                rows.iter_mut().for_each(|row| *row = row.wrapping_add(shift));
            }
        }
    }

    /// A work item to which nothing has been added.
    pub fn begin(&mut self, output_tile: usize, units: (usize, usize)) -> WorkItem<T> {
        let g = self.pass.geometry;
        let (batch, blocks) = g.output_tile(output_tile);
        let (start, len) = match g.disjoint {
            true => g.output_block(blocks.start),
            false => (0, g.output_extent),
        };
        let size = len * g.output_depth;
        let wants = self.pass.source.wants;
        let partial = PartialSums {
            batch,
            start,
            len,
            numerator: vec![0.0; if wants.numerator { size } else { 0 }],
            denominator: vec![0.0; if wants.denominator { size } else { 0 }],
            losses: LossSums::default(),
        };
        match self.spare.pop() {
            // Its running sums have all been moved, and are 0.
            Some(spare) => WorkItem { output_tile, units, partial, pending: 0, ..spare },
            None => {
                let room = |wanted| Aligned::zeros(if wanted { g.running_sums::<T>() } else { 0 });
                let sums = [room(wants.numerator), room(wants.denominator)];
                WorkItem { output_tile, units, partial, sums, pending: 0 }
            }
        }
    }

    /// What has been added to a work item that has taken all of its steps.
    pub fn end(&mut self, mut item: WorkItem<T>) -> PartialSums {
        let partial = std::mem::take(&mut item.partial);
        self.spare.push(item);
        partial
    }

    /// Adds some of its steps to a work item: every block of the output's side with every reduction unit,
    /// in this order.
    pub fn advance(&mut self, item: &mut WorkItem<T>, steps: Range<usize>) {
        // Nothing is prefetched beyond the tile: data that stay in a file are read slab by slab, and
        // processors find out soon enough where the next tile is.
        self.rows.next.clear();
        for step in steps {
            self.form_panels(item, step);
            self.step(item, step);
        }
    }

    /// The block of the output's side that a step works on, and its reduction unit.
    fn position(&self, item: &WorkItem<T>, step: usize) -> (usize, usize) {
        let (_, blocks) = self.pass.geometry.output_tile(item.output_tile);
        (blocks.start + step / item.units.1, item.units.0 + step % item.units.1)
    }

    /// Forms the panels for a step of a work item.
    fn form_panels(&mut self, item: &WorkItem<T>, step: usize) {
        let (g, tensors) = (self.pass.geometry, self.pass.tensors);
        let (block, unit) = self.position(item, step);
        let (reduced_batch, other) = (unit / g.other_blocks(), unit % g.other_blocks());
        let (batch, _) = g.output_tile(item.output_tile);
        for (t, offset) in self.batch_offsets.iter_mut().enumerate() {
            *offset = g.batch.offset(t, batch) + g.reduced_batch.offset(t, reduced_batch);
        }
        self.data_batch = g.batch.data_offset(batch) + g.reduced_batch.data_offset(reduced_batch);
        let batch = &self.batch_offsets;
        match g.output_side {
            OperandSide::Lhs => {
                self.lhs.form(g, tensors, batch, block, g.output_block(block));
                self.rhs.form(g, tensors, batch, other, g.other_block(other));
            }
            OperandSide::Rhs => {
                self.rhs.form(g, tensors, batch, block, g.output_block(block));
                self.lhs.form(g, tensors, batch, other, g.other_block(other));
            }
        }
    }

    /// Works on the tile of a step, for which the panels are formed.
    fn step(&mut self, item: &mut WorkItem<T>, step: usize) {
        let g = self.pass.geometry;
        let (block, unit) = self.position(item, step);
        self.tile(item);
        let losses = self.losses.take();
        item.partial.losses.train += losses.train;
        item.partial.losses.validation += losses.validation;
        item.partial.losses.held_out += losses.held_out;

        item.pending += 1;
        let last = unit + 1 == item.units.0 + item.units.1;
        // The co-operand changes with the batch index.
        let others = g.other_blocks();
        let changes = g.has_co_operand && (unit + 1) / others != unit / others;
        if item.pending == g.tile.per_flush || last || changes {
            self.flush(item, g.output_block(block));
            item.pending = 0;
        }
    }

    /// Computes one tile and adds its share to the running sums, a row block at a time: what is computed
    /// for a row block stays in the first-level cache until it is summed up.
    fn tile(&mut self, item: &mut WorkItem<T>) {
        let upcoming = &mut self.rows.upcoming;
        upcoming.clear();
        upcoming.extend(&self.lhs.offsets);
        upcoming.extend(&self.rows.next);
        let rows = self.lhs.at.1;
        if let Evaluation::Sums(_) = self.pass.evaluation {
            self.evaluate(0, rows, item);
            return;
        }
        let step = self.pass.geometry.tile.block_rows;
        for start in (0..rows).step_by(step) {
            let rows = step.min(rows - start);
            self.evaluate(start, rows, item);
            self.reduce(start, rows, item);
        }
    }

    /// Computes `a`, `b` and the losses of a row block, and under [`Evaluation::Sums`] its share of the
    /// sums.
    fn evaluate(&mut self, start: usize, rows: usize, item: &mut WorkItem<T>) {
        let PassInput { geometry: g, source, tensors, evaluation } = self.pass;
        let wants = source.wants;
        let (ld, depth) = (self.rhs.ld, g.depth);
        let lhs = &self.lhs.data(tensors)[start * depth..];
        let rhs = &self.rhs.data[..depth * ld];
        let Buffers { y, a, b, entries, .. } = &mut self.buffers;
        let panel_rows = match evaluation {
            Evaluation::Tape => g.tile.panel_rows,
            // The microkernel goes through all rows of the block by itself.
            Evaluation::Entries(_) | Evaluation::Sums(_) => rows,
        };
        for first in (0..rows).step_by(panel_rows) {
            let rows = panel_rows.min(rows - first);
            let padded = rows.next_multiple_of(MR);
            let lhs = &lhs[first * depth..][..padded * depth];
            let (at, upcoming) = (start + first, &self.rows.upcoming);
            let ahead = match evaluation {
                Evaluation::Tape => upcoming.len().min(at + panel_rows),
                Evaluation::Entries(_) | Evaluation::Sums(_) => at,
            };
            let panel = RowPanel {
                source,
                rows: &upcoming[at..at + rows],
                ahead: &upcoming[ahead..],
                runs: &self.rhs.runs,
                data_batch: self.data_batch,
                columns: self.rhs.at.1,
                ld,
                entries,
                losses: &mut self.losses,
            };
            let places = first * ld..(first + padded) * ld;
            let [a, b] = match evaluation {
                Evaluation::Sums(_) => [&mut [][..], &mut [][..]],
                Evaluation::Tape | Evaluation::Entries(_) => [
                    if wants.numerator { &mut a[places.clone()] } else { &mut [] },
                    if wants.denominator { &mut b[places] } else { &mut [] },
                ],
            };
            match evaluation {
                Evaluation::Tape => {
                    if source.tape.reads_y() {
                        let y = &mut y[..padded * ld];
                        kernel::gemm_nn(self.arch, lhs, rhs, depth, ld, ld, source.floor, y);
                    }
                    self.arch.dispatch(TapePanel { panel, y, a, b });
                }
                Evaluation::Entries(microkernel) | Evaluation::Sums(microkernel) => {
                    let output = match evaluation {
                        Evaluation::Sums(_) => {
                            let [numerator, denominator] = &mut item.sums;
                            BlockOutput::Sums(g.output_side, start, [numerator, denominator])
                        }
                        Evaluation::Tape | Evaluation::Entries(_) => BlockOutput::Entries([a, b]),
                    };
                    let (arch, operands) = (self.arch, [lhs, rhs]);
                    match microkernel {
                        Microkernel::Kl => run_blocks(arch, Kl, panel, operands, depth, output),
                        Microkernel::Power(of) => {
                            run_blocks(arch, of, panel, operands, depth, output);
                        }
                    }
                }
            }
        }
    }

    /// Adds the share of a row block to the running sums.
    fn reduce(&mut self, start: usize, rows: usize, item: &mut WorkItem<T>) {
        let PassInput { geometry: g, source, tensors, .. } = self.pass;
        let (ld, depth, arch) = (self.rhs.ld, g.depth, self.arch);
        let padded = rows.next_multiple_of(MR);
        let lhs = &self.lhs.data(tensors)[start * depth..][..padded * depth];
        let rhs = &self.rhs.data[..depth * ld];
        let [numerator, denominator] = &mut item.sums;
        let wanted = [
            (source.wants.numerator, &self.buffers.a, numerator),
            (source.wants.denominator, &self.buffers.b, denominator),
        ];
        for (_, entries, sums) in wanted.into_iter().filter(|(wanted, ..)| *wanted) {
            let entries = &entries[..padded * ld];
            match g.reduction {
                Reduction::NtDot => {
                    kernel::gemm_nt_dot(arch, entries, rhs, (start, padded), depth, ld, ld, sums);
                }
                Reduction::NtPacked { stride } => {
                    let packed = &self.rhs.packed[..ld * stride];
                    let sums = &mut sums[start * stride..][..padded * stride];
                    kernel::gemm_nt_packed(arch, entries, packed, ld, ld, stride, sums);
                }
                Reduction::Tn => {
                    kernel::gemm_tn(arch, lhs, entries, rows, depth, ld, ld, sums);
                }
            }
        }
    }

    /// Moves the running sums of a work item to double precision, times the co-operand. `block` is where
    /// its block of the output's side begins, and its length.
    fn flush(&mut self, item: &mut WorkItem<T>, block: (usize, usize)) {
        let g = self.pass.geometry;
        // Where each index of the block stands in the partial sums.
        let mut places = Vec::new();
        if g.disjoint {
            places.extend(0..block.1);
        } else {
            let axis = if g.output_side == OperandSide::Lhs { &g.rows } else { &g.columns };
            // The offsets in the output along its side, in units of its own index of that side.
            axis.offsets(0, block.0, block.1, &mut places);
            if g.output_side == OperandSide::Lhs {
                places.iter_mut().for_each(|p| *p /= g.output_depth);
            }
        }
        let PartialSums { len, numerator, denominator, .. } = &mut item.partial;
        for (sums, to) in item.sums.iter_mut().zip([numerator, denominator]) {
            if to.is_empty() {
                continue;
            }
            match g.reduction {
                Reduction::NtDot => {
                    let collected = &mut self.buffers.collected;
                    collected.clear();
                    collected.resize(block.1 * g.depth, T::ZERO);
                    kernel::collect_dot_sums(self.arch, sums, collected);
                    flush_rows(g, collected, g.depth, &places, &self.lhs.co_operand, to);
                    // Padding rows have sums too, which are dropped.
                    sums.fill(T::ZERO);
                }
                Reduction::NtPacked { stride } => {
                    flush_rows(g, sums, stride, &places, &self.lhs.co_operand, to);
                    sums.fill(T::ZERO);
                }
                Reduction::Tn => {
                    let co_operand = &self.rhs.co_operand;
                    flush_columns(g, sums, self.rhs.ld, &places, co_operand, to, *len);
                }
            }
        }
    }
}

/// Adds sums whose rows have `stride` elements to the rows of an output tile at `places`.
fn flush_rows<T: Elementwise>(
    g: &Geometry,
    sums: &[T],
    stride: usize,
    places: &[usize],
    co_operand: &[T],
    to: &mut [f64],
) {
    let map = &g.output_depth_map;
    if g.disjoint && !g.has_co_operand && is_contiguous(map) {
        let rows = sums.chunks_exact(stride);
        for (to, from) in to.chunks_exact_mut(g.output_depth).zip(rows) {
            to.iter_mut().zip(from).for_each(|(to, &x)| *to += x.to_f64());
        }
        return;
    }
    for (m, &place) in places.iter().enumerate() {
        let to = &mut to[place * g.output_depth..][..g.output_depth];
        for (k, (&x, &at)) in sums[m * stride..].iter().zip(map).enumerate() {
            let mut value = x.to_f64();
            if g.has_co_operand {
                value *= co_operand[m * g.depth + k].to_f64();
            }
            to[at] += value;
        }
    }
}

/// Adds sums whose rows have `ld` elements to the columns of an output tile at `places`, which has `len`
/// of them, and clears the sums.
fn flush_columns<T: Elementwise>(
    g: &Geometry,
    sums: &mut [T],
    ld: usize,
    places: &[usize],
    co_operand: &[T],
    to: &mut [f64],
    len: usize,
) {
    for k in 0..g.depth {
        let from = &mut sums[k * ld..][..ld];
        let to = &mut to[g.output_depth_map[k] * len..][..len];
        if g.disjoint && !g.has_co_operand {
            for (to, &x) in to.iter_mut().zip(&*from) {
                *to += x.to_f64();
            }
        } else {
            for (n, &place) in places.iter().enumerate() {
                let mut value = from[n].to_f64();
                if g.has_co_operand {
                    value *= co_operand[k * ld + n].to_f64();
                }
                to[place] += value;
            }
        }
        from.fill(T::ZERO);
    }
}
