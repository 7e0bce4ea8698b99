//! Sums over the entries of each role, as commands. The columns' product and its sums over all columns are
//! contractions; two dispatches add up what lines list and find what that leaves; the rest of the way to
//! numerator and denominator is contractions again.

use super::role_lists::{
    ListPart, ListedGrid, PartLimits, PartSource, RoleBuffers, role_losses, role_pass,
};
use super::shaders::{
    Counted, LineNumbers, REST_THREADS, RoleSumsShader, role_rest, role_sums, weighted_rest,
};
use crate::exact::twice;
use crate::program::compiler::Compiler;
use crate::program::recording::{Binding, BufferId, Command, Dispatch, DispatchKind};
use crate::program::views::TensorView;
use nneinfact_core::data::Role;
use nneinfact_core::engine::role_lists::ROWS;
use nneinfact_core::engine::{LossSlot, ZeroContraction, ZeroSum};
use nneinfact_core::error::Result;
use nneinfact_core::model::{Index, IndexSet, Shapes};
use nneinfact_core::plan::{RolePass, RoleTerm};

/// What becomes of the sums over training entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoleOutput {
    /// Which of numerator and denominator.
    pub half: usize,
    /// What they are multiplied with.
    pub by: f64,
    /// Whether they are added to what is there.
    pub add: bool,
}

/// Where the sums over training entries go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RoleTarget<'a> {
    /// `Σ W V` to numerator and denominator, which have these indices.
    Sums { outputs: &'a [RoleOutput], indices: &'a [Index] },
    /// `Σ W V Vᵀ`, the quadratic form of every row, to this tensor.
    Forms(&'a TensorView),
}

impl RoleTarget<'_> {
    fn term(self) -> RoleTerm {
        match self {
            RoleTarget::Sums { .. } => RoleTerm::Linear,
            RoleTarget::Forms(_) => RoleTerm::Pairs,
        }
    }
}

/// A pass over lists in the making.
struct PendingLists<'a> {
    pass: &'a RolePass,
    listed: &'a ListedGrid,
    buffers: RoleBuffers,
    numbers: LineNumbers,
    counted: Counted,
    /// What sums of predictions are multiplied with, where they are wanted.
    predicted: Option<f64>,
    sums: RoleSumsShader,
    /// Blocks of columns of a split, and how many splits there are.
    split: [usize; 2],
}

impl PendingLists<'_> {
    /// The uniforms of both shaders; `fold` are the workgroups in x of the one, `rest` of the other.
    fn words(&self, part: &ListPart, fold: u32, rest: u32, losses: usize) -> Vec<u32> {
        let grid = &self.listed.grid;
        let [split_blocks, splits] = self.split;
        let by = self.predicted.unwrap_or(0.0) as f32;
        let mut words: Vec<u32> = [
            part.chunks.len(),
            self.workgroups(),
            fold as usize,
            part.chunks.start,
            grid.rows.div_ceil(ROWS),
            grid.rows,
            grid.columns,
            grid.blocks(),
            split_blocks,
            splits,
            part.lines.len(),
            part.lines.start,
            rest as usize,
            losses,
        ]
        .map(|n| n as u32)
        .to_vec();
        words.extend([by.to_bits(), 0]);
        words
    }

    /// Workgroups of a chunk.
    fn workgroups(&self) -> usize {
        self.listed.grid.rows.min(ROWS).div_ceil(self.sums.lines)
    }
}

impl Compiler<'_> {
    /// Brings the sums over training entries of a group where they belong, and the loss of implicit entries
    /// to those of each role. Returns how many sums of losses are left to be added up.
    pub(crate) fn role_sums(
        &mut self,
        commands: &mut Vec<Command>,
        group: usize,
        target: RoleTarget<'_>,
        loss: Option<(LossSlot, &ZeroSum)>,
    ) -> Result<usize> {
        let (job, shapes) = (self.job, self.shapes);
        let closed = loss.and_then(|(slot, sum)| Some((slot, sum.contraction()?)));
        let mut predicted = None;
        if let Some((slot, (by, of))) = closed {
            match of {
                ZeroContraction::EntryCount => self.counted_losses(commands, slot, by)?,
                _ => predicted = Some(by),
            }
        }
        let entries = self.role_lists.listed(job);
        let pass = role_pass(shapes, &self.plan.groups()[group], target.term(), entries)?;
        let latent = shapes.sizes(&pass.latent).iter().product();
        let numbers = LineNumbers { term: pass.term, latent };
        let limits = self.part_limits(numbers.all());
        let mut lists = std::mem::take(&mut self.role_lists);
        let listed = lists.grid(&mut self.program, job, &pass, &limits);
        let buffers = lists.buffers(&mut self.program);
        self.role_lists = lists;
        let listed = listed?;
        let weighted = |part: &ListPart| matches!(part.source, PartSource::Weights(_));
        let counted = match predicted.is_some() {
            true => Counted::Roles,
            false if listed.parts.iter().any(weighted) => Counted::Weights,
            false => Counted::Train,
        };
        let sums = role_sums(numbers, counted, self.limits)?;
        let split = self.splits(&listed, &sums, counted.slots() * numbers.listed());
        let (pass, listed) = (&pass, listed.as_ref());
        let own = PendingLists { pass, listed, buffers, numbers, counted, predicted, sums, split };
        self.column_sums(commands, &own)?;
        let mut losses = 0;
        for part in &listed.parts {
            let left = (part.lines.len() * numbers.all()).div_ceil(REST_THREADS);
            let slot = loss.map(|(slot, _)| slot).filter(|_| predicted.is_some());
            if losses > 0 && losses + left > self.losses_room() {
                self.add_losses(commands, slot, losses)?;
                losses = 0;
            }
            self.over_lists(commands, &own, part, losses)?;
            if slot.is_some() {
                losses += left;
            }
        }
        match target {
            RoleTarget::Sums { outputs, indices } => {
                self.fold_sums(commands, &own, outputs, indices)?;
            }
            RoleTarget::Forms(out) => self.fold_forms(commands, &own, out)?,
        }
        Ok(losses)
    }

    /// What lists of so many numbers a line may have in a part.
    fn part_limits(&self, k: usize) -> PartLimits {
        let bytes = self.limits.binding_bytes.min(self.limits.buffer_bytes);
        // As many sums as a line has at most, so that all passes cut in the same way.
        let line = Counted::Roles.slots() * k.max(1);
        let words = (self.tuning.scratch_bytes.min(self.limits.binding_bytes) / 4) as usize;
        let room = self.losses_room() * REST_THREADS / k.max(1);
        PartLimits {
            bytes,
            lines: (words / line).min(room).max(1),
            listed: (self.tuning.work / (4 * line) as f64) as usize,
        }
    }

    /// Blocks of a split, and the splits: enough workgroups, as far as sums have room.
    fn splits(&self, listed: &ListedGrid, sums: &RoleSumsShader, each: usize) -> [usize; 2] {
        let grid = &listed.grid;
        let lines = listed.parts.iter().map(|part| part.lines.len()).max().unwrap_or(1);
        let chunks = listed.parts.iter().map(|part| part.chunks.len()).max().unwrap_or(1);
        let workgroups = chunks * grid.rows.min(ROWS).div_ceil(sums.lines) * sums.tiles;
        let words = (self.tuning.scratch_bytes.min(self.limits.binding_bytes) / 4) as usize;
        let room =
            (words / (lines * each).max(1)).min(self.limits.workgroups as usize / sums.tiles);
        let wanted = self.tuning.workgroups.div_ceil(workgroups.max(1));
        let splits = wanted.min(room).clamp(1, grid.blocks().max(1));
        let blocks = grid.blocks().div_ceil(splits).max(1);
        [blocks, grid.blocks().div_ceil(blocks).max(1)]
    }

    /// Adds the number of entries of each role, times a coefficient, to their losses.
    fn counted_losses(
        &mut self,
        commands: &mut Vec<Command>,
        slot: LossSlot,
        by: f64,
    ) -> Result<()> {
        let buffer = self.buffers.results;
        for (n, role) in [Role::Train, Role::Validation, Role::HeldOut].into_iter().enumerate() {
            let by = (by * self.job.data.count(role) as f64) as f32;
            let to = (buffer, role_losses(slot, n));
            self.contraction(commands, Vec::new(), Vec::new(), None, None, to, by, true)?;
        }
        Ok(())
    }

    /// A tensor of a pass in a buffer of its own.
    fn role_view(&mut self, buffer: BufferId, indices: &[&[Index]]) -> TensorView {
        self.role_view_of(self.shapes, buffer, indices)
    }

    /// The same under other sizes.
    fn role_view_of(
        &mut self,
        shapes: &Shapes,
        buffer: BufferId,
        indices: &[&[Index]],
    ) -> TensorView {
        let indices = indices.concat();
        let words = shapes.sizes(&indices).iter().product();
        self.grow(buffer, words);
        TensorView { buffer, base: 0, indices, half: None }
    }

    /// The columns' product, its sums over all columns, and the lines' product where sums of predictions are
    /// wanted.
    fn column_sums(&mut self, commands: &mut Vec<Command>, own: &PendingLists<'_>) -> Result<()> {
        let PendingLists { pass, buffers, .. } = *own;
        let RolePass { batch, rows, columns, latent, .. } = pass;
        let of = |c: &Self, factors: &[usize]| -> Vec<TensorView> {
            factors.iter().map(|&l| c.factor(l)).collect()
        };
        let product = self.role_view(buffers.columns, &[batch, columns, latent]);
        let inputs = of(self, &pass.column_factors);
        self.contract(commands, &pass.column_product, &inputs, &product, 1.0, false)?;
        match pass.term {
            _ if own.counted == Counted::Weights => {}
            RoleTerm::Linear => {
                let all = self.role_view(buffers.all, &[batch, latent]);
                self.repeated(commands, &product, &all, 1.0, false)?;
            }
            RoleTerm::Pairs => {
                let second = second_names(pass);
                let all = self.role_view_of(&pass.shapes, buffers.all, &[batch, latent, &second]);
                let indices = [batch.as_slice(), columns, &second].concat();
                let again = TensorView { indices, ..product.clone() };
                let pair = [Some(&product), Some(&again)];
                self.contract_pair(commands, &pass.shapes, pair, &all, 1.0, false)?;
            }
        }
        if own.predicted.is_some() {
            let lines = self.role_view(buffers.rows, &[batch, rows, latent]);
            let inputs = of(self, &pass.row_factors);
            self.contract(commands, &pass.row_product, &inputs, &lines, 1.0, false)?;
        }
        Ok(())
    }

    /// Sums over the lists of a part, and finds what they leave; `losses` are there before.
    fn over_lists(
        &mut self,
        commands: &mut Vec<Command>,
        own: &PendingLists<'_>,
        part: &ListPart,
        losses: usize,
    ) -> Result<()> {
        let PendingLists { buffers, predicted, sums, .. } = own;
        let with_losses = predicted.is_some();
        let (lines, width) = (part.lines.len(), own.numbers.listed());
        let fold = self.fold(part.chunks.len() * own.workgroups());
        let numbers = lines * own.numbers.all();
        let rest = self.fold(numbers.div_ceil(REST_THREADS));
        let uniforms = self.words(&own.words(part, fold[0], rest[0], losses));
        let [_, splits] = own.split;
        self.grow(buffers.partials, splits * own.counted.slots() * lines * width);
        let whole_lines = own.listed.grid.batches * own.listed.grid.rows;
        self.grow(buffers.sums, whole_lines * own.numbers.all());
        let lists = match part.source {
            PartSource::Lists { places, heads } => {
                vec![buffers.columns, places, heads, buffers.partials]
            }
            PartSource::Weights(weights) => vec![buffers.columns, weights, buffers.partials],
        };
        let lists: Vec<Binding> = lists.into_iter().map(Binding::Whole).collect();
        let bound = |more: &[Binding]| [std::slice::from_ref(&uniforms), &lists, more].concat();
        let shader = self.shader(sums.shader.clone());
        commands.push(Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Data,
            bindings: bound(&[]),
            workgroups: [fold[0], fold[1], (splits * sums.tiles) as u32],
            work: 4.0 * (part.listed * width) as f64,
        }));
        if own.counted == Counted::Weights {
            let shader = self.shader(weighted_rest(own.numbers)?);
            let bound = [buffers.partials, buffers.sums].map(Binding::Whole);
            commands.push(Command::Dispatch(Dispatch {
                shader,
                kind: DispatchKind::Small,
                bindings: [std::slice::from_ref(&uniforms), bound.as_slice()].concat(),
                workgroups: rest,
                work: (4 * splits * numbers) as f64,
            }));
            return Ok(());
        }
        let mut more: Vec<Binding> = [buffers.all, buffers.sums].map(Binding::Whole).to_vec();
        if with_losses {
            self.grow(self.buffers.losses, 3 * (losses + numbers.div_ceil(REST_THREADS)));
            more.extend([buffers.rows, self.buffers.losses].map(Binding::Whole));
        }
        let shader = self.shader(role_rest(own.numbers, with_losses)?);
        commands.push(Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Small,
            bindings: bound(&more),
            workgroups: rest,
            work: (8 * splits * numbers) as f64,
        }));
        Ok(())
    }

    /// Brings the sums over training entries to numerator and denominator.
    fn fold_sums(
        &mut self,
        commands: &mut Vec<Command>,
        own: &PendingLists<'_>,
        outputs: &[RoleOutput],
        indices: &[Index],
    ) -> Result<()> {
        let PendingLists { pass, buffers, .. } = *own;
        let sums = self.role_view(buffers.sums, &[&pass.batch, &pass.rows, &pass.latent]);
        let mut inputs = vec![sums];
        inputs.extend(pass.fold_factors.iter().map(|&l| self.factor(l)));
        let volume: usize = self.shapes.sizes(indices).iter().product();
        let all: IndexSet = pass.indices().iter().collect();
        let wider = indices.iter().any(|&x| !all.contains(x));
        for output in outputs.iter().filter(|output| output.by != 0.0) {
            let out = TensorView {
                buffer: self.buffers.sums,
                base: output.half * volume,
                indices: indices.to_vec(),
                half: None,
            };
            let by = output.by as f32;
            if !wider {
                self.contract(commands, &pass.fold, &inputs, &out, by, output.add)?;
                continue;
            }
            // First where they are small, and then along the indices that they do not have.
            let folded = pass.indices().to_vec();
            let words = self.shapes.sizes(&folded).iter().product();
            let buffer = self.temporary(3 * pass.fold.steps().len(), words);
            let small = TensorView { buffer, base: 0, indices: folded, half: None };
            self.contract(commands, &pass.fold, &inputs, &small, 1.0, false)?;
            self.repeated(commands, &small, &out, by, output.add)?;
        }
        Ok(())
    }

    /// Brings the sums of pairs to the quadratic form of every row of the group's output.
    fn fold_forms(
        &mut self,
        commands: &mut Vec<Command>,
        own: &PendingLists<'_>,
        out: &TensorView,
    ) -> Result<()> {
        let PendingLists { pass, buffers, .. } = *own;
        let indices: [&[Index]; 4] = [&pass.batch, &pass.rows, &pass.latent, &second_names(pass)];
        let sums = self.role_view_of(&pass.shapes, buffers.sums, &indices);
        let factors: Vec<TensorView> = pass.fold_factors.iter().map(|&l| self.factor(l)).collect();
        let inputs = twice(vec![sums], &factors, &pass.fold);
        self.contract_of(commands, &pass.shapes, &pass.fold, &inputs, out, 1.0, false)
    }
}

/// The second names of the latent indices of a pass for pairs.
fn second_names(pass: &RolePass) -> Vec<Index> {
    let sums = pass.fold.inputs().first().map_or(&[][..], Vec::as_slice);
    sums[sums.len().saturating_sub(pass.latent.len())..].to_vec()
}
