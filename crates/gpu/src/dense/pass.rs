//! Passes that go over every entry, as commands.

use super::entries::{EntryTerms, PassOutputs};
use super::geometry::{DataPart, Geometry};
use super::pass_text::PassText;
use super::rows::RowsShader;
use super::tiles::{TileShader, tile_entries, tile_sums};
use crate::contract::LoopAxis;
use crate::masked::{RoleOutput, RoleTarget};
use crate::program::buffers::Slab;
use crate::program::compiler::{Compiler, StreamedPass};
use crate::program::products::FreshProducts;
use crate::program::recording::{
    Binding, Command, Dispatch, DispatchKind, Recording, RecordingId, ShaderId,
};
use crate::program::uniforms::{Uniform, Uniforms, part_value};
use crate::program::views::{TensorView, stride};
use nneinfact_core::engine::LossSlot;
use nneinfact_core::error::Result;
use nneinfact_core::model::Index;
use nneinfact_shaders::TILE_DEPTH;

/// What a pass over every entry computes, and where it belongs.
pub(crate) struct DenseReading<'a> {
    pub group: usize,
    /// Where each tensor of the dense pass begins among the products.
    pub bases: Vec<usize>,
    pub wants: PassOutputs,
    pub terms: EntryTerms,
    /// The indices of numerator and denominator.
    pub output: &'a [Index],
}

/// The shaders of a pass.
enum DenseKernel {
    /// One, with K in registers.
    Rows(ShaderId, Box<RowsShader>),
    /// A pair, with a and b in memory between them.
    Tiles([ShaderId; 2], Box<[TileShader; 2]>),
}

impl DenseKernel {
    /// At multiples of how many entries its parts have to begin.
    fn aligned(&self) -> usize {
        match self {
            DenseKernel::Rows(_, rows) => rows.aligned,
            DenseKernel::Tiles(..) => 1,
        }
    }
}

/// A part of the data in a slab, on its way to dispatches.
struct PartPass<'a> {
    reading: &'a DenseReading<'a>,
    geometry: &'a Geometry,
    kernel: &'a DenseKernel,
    slab: &'a Slab,
    part: &'a DataPart,
    /// Where its losses begin.
    losses: usize,
    /// Whether its sums are added to what is there.
    add: bool,
}

/// Values of the indices of a part by what a thread does with them.
#[derive(Clone, Copy)]
struct PartSizes {
    batch: usize,
    rows: usize,
    reduced: usize,
    columns: usize,
}

/// How a part of the data is cut into blocks, and these are shared out among workgroups.
struct Tiling {
    row_blocks: usize,
    column_blocks: usize,
    blocks: usize,
    fold: [u32; 3],
    /// Units (blocks of columns, for each reduced batch index) of a split.
    split_units: usize,
    /// Where the partial sums of the denominator begin.
    half: usize,
}

impl Tiling {
    fn uniform(&self, uniform: Uniform) -> Option<usize> {
        Some(match uniform {
            Uniform::RowBlocks => self.row_blocks,
            Uniform::ColumnBlocks => self.column_blocks,
            Uniform::BlockCount => self.blocks,
            Uniform::Fold => self.fold[0] as usize,
            Uniform::SplitUnits => self.split_units,
            Uniform::Half => self.half,
            _ => return None,
        })
    }
}

/// Partial sums that a part left, to be added to numerator and denominator.
struct PartialSums {
    /// How many there are of each: splits, and threads that share a row.
    count: usize,
    /// The contracted indices that they have.
    contracted: Vec<Index>,
}

impl PartPass<'_> {
    fn halves(&self) -> usize {
        self.reading.wants.halves()
    }

    /// The bytes of a shader's uniforms.
    fn uniforms(&self, c: &Compiler<'_>, uniforms: &Uniforms, tiling: &Tiling) -> Vec<u8> {
        let (plan, job) = (c.plan, c.job);
        let fixed = |uniform: Uniform| match uniform {
            Uniform::Losses => self.losses,
            Uniform::Scale => (job.value_scale as f32).to_bits() as usize,
            Uniform::Floor => ((job.guards.prediction_floor / job.unit) as f32).to_bits() as usize,
            _ => 0,
        };
        uniforms.bytes(|uniform| {
            let value = tiling
                .uniform(uniform)
                .or_else(|| part_value(uniform, plan, self.geometry, self.part, &self.slab.part))
                .unwrap_or_else(|| fixed(uniform));
            value as u32
        })
    }

    /// Bindings of the data.
    fn data(&self) -> impl Iterator<Item = Binding> {
        let slab = self.slab;
        let others = [slab.roles, slab.weights, slab.parameters];
        std::iter::once(slab.values).chain(others.into_iter().flatten()).map(Binding::Whole)
    }

    fn sizes(&self, c: &Compiler<'_>) -> PartSizes {
        let size = |indices: &[Index]| self.part.size(c.shapes, indices);
        PartSizes {
            batch: size(&self.geometry.batch),
            rows: size(&self.geometry.rows),
            reduced: size(&self.geometry.reduced),
            columns: size(&self.geometry.columns),
        }
    }
}

impl Compiler<'_> {
    /// The pass of a group that reads the data.
    pub(crate) fn dense_pass(
        &mut self,
        group: usize,
        fresh: &mut FreshProducts,
    ) -> Result<RecordingId> {
        let plan = self.plan;
        let pass = &plan.passes()[group];
        let output = &pass.output.indices;
        let slot = self.job.losses.get(group).copied().flatten();
        let mut recording = Recording { label: format!("pass {group}"), commands: Vec::new() };
        let commands = &mut recording.commands;
        let bases = self.tensors(commands, group, fresh)?;

        let closed = plan.settings().closed_denominator;
        if closed && self.job.data.roles().is_some() {
            let by = self.job.loss.denominator_constant().unwrap_or(1.0);
            let outputs = &[RoleOutput { half: 1, by, add: false }];
            let target = RoleTarget::Sums { outputs, indices: output };
            self.role_sums(commands, group, target, None)?;
        } else if closed {
            self.closed_denominator(commands, group)?;
        }
        // Exact steps have their quadratic form in place of a denominator.
        if let Some(forms) = self.forms_of_rows(group) {
            self.role_sums(commands, group, RoleTarget::Forms(&forms), None)?;
        }
        let denominator = !closed && self.exact.is_none();
        let wants = PassOutputs { numerator: true, denominator, losses: slot.is_some() };
        let terms = EntryTerms::of(&self.job.loss);
        let reading = DenseReading { group, bases, wants, terms, output };
        self.clear_losses(commands, slot)?;
        self.penalties(commands, slot)?;
        let Some(_) = self.streamed() else {
            let losses = self.over_all_entries(commands, &reading, slot, false, &mut Vec::new())?;
            self.add_losses(commands, slot, losses)?;
            return Ok(self.record(recording));
        };
        // The beginning, the part of each slab, and the end are recordings of their own.
        let mut stages = Vec::new();
        let losses = self.over_all_entries(commands, &reading, slot, false, &mut stages)?;
        stages.push(std::mem::take(commands));
        let mut end = Recording { label: format!("end of pass {group}"), commands: Vec::new() };
        self.add_losses(&mut end.commands, slot, losses)?;
        let mut stages = stages.into_iter();
        recording.commands = stages.next().unwrap_or_default();
        let label = format!("a slab of pass {group}");
        let slabs = stages
            .map(|commands| self.record(Recording { label: label.clone(), commands }))
            .collect();
        let end = self.record(end);
        self.streamed_passes.push(StreamedPass { slabs, end });
        Ok(self.record(recording))
    }

    /// The denominator where it depends on the factors alone: first along the indices that these have, and
    /// then repeated along the others.
    fn closed_denominator(&mut self, commands: &mut Vec<Command>, group: usize) -> Result<()> {
        let pass = &self.plan.passes()[group];
        let output = &pass.output.indices;
        let contraction = &pass.closed_denominator;
        let inputs: Vec<TensorView> = pass.others.iter().map(|&l| self.factor(l)).collect();
        let base = self.shapes.sizes(output).iter().product();
        let out =
            TensorView { buffer: self.buffers.sums, base, indices: output.clone(), half: None };
        let constant = self.job.loss.denominator_constant().unwrap_or(1.0) as f32;
        let has = |x: &Index| inputs.iter().any(|view| view.indices.contains(x));
        let indices: Vec<Index> = output.iter().copied().filter(has).collect();
        if indices.len() == output.len() {
            return self.contract(commands, contraction, &inputs, &out, constant, false);
        }
        let at = 3 * contraction.steps().len();
        let sum = self.result_view(self.shapes, at, &inputs, indices);
        self.contract(commands, contraction, &inputs, &sum, 1.0, false)?;
        self.repeated(commands, &sum, &out, constant, false)
    }

    /// Forms what the dense pass of a group reads; returns where each tensor begins.
    pub(crate) fn tensors(
        &mut self,
        commands: &mut Vec<Command>,
        group: usize,
        fresh: &mut FreshProducts,
    ) -> Result<Vec<usize>> {
        let pass = &self.plan.passes()[group];
        std::iter::once(&pass.output)
            .chain(&pass.operands)
            .map(|operand| {
                let key = (operand.factors.clone(), operand.indices.clone());
                self.product(commands, group, key, &operand.contraction, fresh)
            })
            .collect()
    }

    /// Goes over all entries. What it sums is added to what is there, if `add`; else it takes its
    /// place. Returns how many sums of losses are left to be added up. Where slabs are streamed, what
    /// comes before each of them moves to `stages`.
    pub(crate) fn over_all_entries(
        &mut self,
        commands: &mut Vec<Command>,
        reading: &DenseReading<'_>,
        slot: Option<LossSlot>,
        add: bool,
        stages: &mut Vec<Vec<Command>>,
    ) -> Result<usize> {
        let plan = self.plan;
        let halves = reading.wants.halves();
        let geometry = Geometry::new(plan, &plan.passes()[reading.group], &reading.bases);
        let mut kernel = self.kernel(reading, &geometry, true)?;
        let mut parts = self.parts(&geometry, &kernel, halves);
        let strides = &plan.data().strides;
        let whole = |(slab, part): &(usize, DataPart)| {
            let begin = part.offset(strides) - self.slabs[*slab].part.offset(strides);
            begin.is_multiple_of(kernel.aligned())
        };
        if !parts.iter().all(whole) {
            kernel = self.kernel(reading, &geometry, false)?;
            parts = self.parts(&geometry, &kernel, halves);
        }
        let several = parts.len() > 1;
        if several && !add {
            let volume: usize = self.shapes.sizes(reading.output).iter().product();
            self.clear(commands, self.buffers.sums, 0, halves * volume)?;
        }
        let add = add || several;
        let room = self.losses_room();
        let mut losses = 0;
        for (slab, part) in &parts {
            if self.streamed().is_some() && stages.len() <= *slab {
                stages.push(std::mem::take(commands));
            }
            let slab = self.slabs[*slab].clone();
            let (geometry, kernel) = (&geometry, &kernel);
            let mut pass = PartPass { reading, geometry, kernel, slab: &slab, part, losses, add };
            let mut work = Vec::new();
            let mut left = self.pass_part(&mut work, &pass)?;
            if losses > 0 && losses + left > room {
                // The losses so far make room for those of this part.
                self.add_losses(commands, slot, losses)?;
                losses = 0;
                pass.losses = 0;
                work.clear();
                left = self.pass_part(&mut work, &pass)?;
            }
            commands.append(&mut work);
            losses += left;
        }
        Ok(losses)
    }

    /// The shaders of a pass. `whole_words` says that its parts begin at whole words of the data.
    fn kernel(
        &mut self,
        reading: &DenseReading<'_>,
        geometry: &Geometry,
        whole_words: bool,
    ) -> Result<DenseKernel> {
        let text = PassText {
            plan: self.plan,
            geometry,
            format: &self.format,
            terms: &reading.terms,
            wants: reading.wants,
            limits: self.limits,
        };
        Ok(if geometry.k <= self.tuning.register_k {
            let rows = RowsShader::new(text, whole_words)?;
            let id = self.shader(rows.shader.clone());
            DenseKernel::Rows(id, Box::new(rows))
        } else {
            let (entries, sums) = (tile_entries(text)?, tile_sums(text)?);
            let ids = [self.shader(entries.shader.clone()), self.shader(sums.shader.clone())];
            DenseKernel::Tiles(ids, Box::new([entries, sums]))
        })
    }

    /// The parts that the data are gone over in, each with its slab.
    fn parts(
        &self,
        geometry: &Geometry,
        kernel: &DenseKernel,
        halves: usize,
    ) -> Vec<(usize, DataPart)> {
        let mut parts: Vec<(usize, DataPart)> = Vec::new();
        for slab in 0..self.slabs.len() {
            let mut stack = vec![self.slabs[slab].part.clone()];
            while let Some(part) = stack.pop() {
                match self.too_large(&part, geometry, kernel, halves) {
                    Some((first, second)) => stack.extend([second, first]),
                    None => parts.push((slab, part)),
                }
            }
        }
        parts
    }

    /// Cuts a part that would take too long, or too much memory for its sums.
    fn too_large(
        &self,
        part: &DataPart,
        geometry: &Geometry,
        kernel: &DenseKernel,
        halves: usize,
    ) -> Option<(DataPart, DataPart)> {
        let scratch = self.tuning.scratch_bytes.min(self.limits.binding_bytes);
        let size = |indices: &[Index]| part.size(self.shapes, indices);
        let (slices, k, entries) = match kernel {
            DenseKernel::Rows(_, rows) => (rows.slices, geometry.output_k(self.shapes), 0),
            DenseKernel::Tiles(..) => (1, geometry.k, part.entries()),
        };
        let sums = slices * size(&geometry.batch) * size(&geometry.rows) * k * halves;
        let sums_fit = 4 * sums as u64 <= scratch;
        let entries_fit = 4 * entries as u64 <= scratch;
        if sums_fit && entries_fit && work(part, geometry) <= self.tuning.work {
            return None;
        }
        // Cutting the output's own indices makes everything smaller.
        let output = self.shapes.model().output();
        let longest = |indices: &mut dyn Iterator<Item = &Index>| {
            indices
                .filter_map(|x| output.iter().position(|y| y == x))
                .filter(|&m| part.ranges[m].1 > 1)
                .max_by_key(|&m| part.ranges[m].1)
        };
        let own = longest(&mut geometry.batch.iter().chain(&geometry.rows));
        let all = longest(&mut output.iter());
        let mode = if sums_fit { all } else { own.or(all) };
        mode.and_then(|m| part.cut(m))
    }

    /// The commands of a part of a pass; returns how many sums of losses it leaves.
    fn pass_part(&mut self, commands: &mut Vec<Command>, pass: &PartPass<'_>) -> Result<usize> {
        let (partial, losses) = match pass.kernel {
            DenseKernel::Rows(shader, rows) => self.rows_dispatch(commands, pass, *shader, rows),
            DenseKernel::Tiles([entries, sums], shaders) => {
                let losses = self.entries_dispatch(commands, pass, *entries, &shaders[0]);
                if pass.halves() == 0 {
                    return Ok(losses);
                }
                (self.sums_dispatch(commands, pass, *sums, &shaders[1]), losses)
            }
        };
        if pass.halves() > 0 {
            self.add_partial_sums(commands, pass, &partial)?;
        }
        Ok(losses)
    }

    /// Words that partial sums, or a and b, may take.
    fn scratch_words(&self) -> usize {
        self.tuning.scratch_bytes.min(self.limits.binding_bytes) as usize / 4
    }

    /// Runs `dense_pass.wgsl`; returns what it leaves: partial sums, and sums of losses.
    fn rows_dispatch(
        &mut self,
        commands: &mut Vec<Command>,
        pass: &PartPass<'_>,
        shader: ShaderId,
        kernel: &RowsShader,
    ) -> (PartialSums, usize) {
        let PartPass { geometry, part, .. } = pass;
        let (wants, halves) = (pass.reading.wants, pass.halves());
        let PartSizes { batch, rows, reduced, columns } = pass.sizes(self);
        let row_blocks = rows.div_ceil(kernel.rows);
        let column_blocks = columns.div_ceil(kernel.tile);
        let (blocks, units) = (batch * row_blocks, reduced * column_blocks);
        let k = geometry.output_k(self.shapes);
        let each = kernel.slices * batch * rows * k * halves;
        let exact = (units * kernel.tile).div_ceil(kernel.slices * self.tuning.terms);
        let wanted = self.tuning.workgroups.div_ceil(blocks).max(exact);
        let split_units = split_units(units, wanted, self.scratch_words() / each.max(1));
        let splits = units.div_ceil(split_units);
        let fold = self.fold(blocks);
        let half = splits * kernel.slices * batch * rows * k;
        let tiling = Tiling { row_blocks, column_blocks, blocks, fold, split_units, half };
        let uniforms = pass.uniforms(self, &kernel.uniforms, &tiling);
        let mut bindings = vec![self.uniform(&uniforms), Binding::Whole(self.buffers.products)];
        bindings.extend(pass.data());
        if halves > 0 {
            self.grow(self.buffers.partial, half * halves);
            bindings.push(Binding::Whole(self.buffers.partial));
        }
        if wants.losses {
            bindings.push(Binding::Whole(self.buffers.losses));
        }
        commands.push(Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Data,
            bindings,
            workgroups: [fold[0], fold[1], splits as u32],
            work: work(part, geometry),
        }));
        let contracted = geometry.output_contracted.clone();
        let partial = PartialSums { count: splits * kernel.slices, contracted };
        (partial, if wants.losses { blocks * splits } else { 0 })
    }

    /// Runs `tile_entries.wgsl`; returns how many sums of losses it leaves.
    fn entries_dispatch(
        &mut self,
        commands: &mut Vec<Command>,
        pass: &PartPass<'_>,
        shader: ShaderId,
        kernel: &TileShader,
    ) -> usize {
        let PartPass { geometry, part, .. } = pass;
        let wants = pass.reading.wants;
        let PartSizes { batch, rows, reduced, columns } = pass.sizes(self);
        let row_blocks = rows.div_ceil(kernel.tile);
        let column_blocks = columns.div_ceil(kernel.tile);
        let blocks = batch * reduced * row_blocks * column_blocks;
        let fold = self.fold(blocks);
        // A workgroup for every block, which leaves no sums.
        let tiling = Tiling { row_blocks, column_blocks, blocks, fold, split_units: 1, half: 0 };
        let uniforms = pass.uniforms(self, &kernel.uniforms, &tiling);
        let mut bindings = vec![self.uniform(&uniforms), Binding::Whole(self.buffers.products)];
        bindings.extend(pass.data());
        for i in 0..pass.halves() {
            self.grow(self.buffers.entries[i], part.entries());
            bindings.push(Binding::Whole(self.buffers.entries[i]));
        }
        if wants.losses {
            bindings.push(Binding::Whole(self.buffers.losses));
        }
        commands.push(Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Data,
            bindings,
            workgroups: fold,
            work: work(part, geometry) / 3.0,
        }));
        if wants.losses { blocks } else { 0 }
    }

    /// Runs `tile_sums.wgsl`; returns the partial sums that it leaves.
    fn sums_dispatch(
        &mut self,
        commands: &mut Vec<Command>,
        pass: &PartPass<'_>,
        shader: ShaderId,
        kernel: &TileShader,
    ) -> PartialSums {
        let PartPass { geometry, part, .. } = pass;
        let halves = pass.halves();
        let PartSizes { batch, rows, reduced, columns } = pass.sizes(self);
        let row_blocks = rows.div_ceil(kernel.tile);
        let column_blocks = columns.div_ceil(TILE_DEPTH);
        let blocks = batch * row_blocks * geometry.k.div_ceil(kernel.tile);
        let units = reduced * column_blocks;
        let each = batch * rows * geometry.k * halves;
        let exact = (units * TILE_DEPTH).div_ceil(self.tuning.terms);
        let wanted = self.tuning.workgroups.div_ceil(blocks).max(exact);
        let split_units = split_units(units, wanted, self.scratch_words() / each.max(1));
        let splits = units.div_ceil(split_units);
        let fold = self.fold(blocks);
        let half = splits * batch * rows * geometry.k;
        let tiling = Tiling { row_blocks, column_blocks, blocks, fold, split_units, half };
        let uniforms = pass.uniforms(self, &kernel.uniforms, &tiling);
        let mut bindings = vec![self.uniform(&uniforms), Binding::Whole(self.buffers.products)];
        bindings.extend((0..halves).map(|i| Binding::Whole(self.buffers.entries[i])));
        self.grow(self.buffers.partial, half * halves);
        bindings.push(Binding::Whole(self.buffers.partial));
        commands.push(Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Data,
            bindings,
            workgroups: [fold[0], fold[1], splits as u32],
            work: work(part, geometry) * 2.0 / 3.0,
        }));
        PartialSums { count: splits, contracted: geometry.contracted.clone() }
    }

    /// Adds the partial sums `[split and slice][batch][contracted][row]` to numerator and denominator.
    fn add_partial_sums(
        &mut self,
        commands: &mut Vec<Command>,
        pass: &PartPass<'_>,
        partial: &PartialSums,
    ) -> Result<()> {
        let PartPass { reading, geometry, part, .. } = pass;
        let output = reading.output;
        let mut from: Vec<(Index, usize)> = Vec::new();
        let mut length = 1;
        let slowest_last = geometry.rows.iter().rev();
        for &x in
            slowest_last.chain(partial.contracted.iter().rev()).chain(geometry.batch.iter().rev())
        {
            from.push((x, length));
            length *= self.part_size(part, x);
        }
        let volume: usize = self.shapes.sizes(output).iter().product();
        let (mut outputs, mut terms) = (Vec::new(), Vec::new());
        if pass.halves() == 2 {
            outputs.push(LoopAxis { size: 2, out: volume, a: partial.count * length, b: 0 });
        }
        terms.push(LoopAxis { size: partial.count, out: 0, a: length, b: 0 });
        for &(x, a) in &from {
            let out = stride(self.shapes, output, x);
            let axis = LoopAxis { size: self.part_size(part, x), out, a, b: 0 };
            if output.contains(&x) { outputs.push(axis) } else { terms.push(axis) }
        }
        let first = if reading.wants.numerator { 0 } else { volume };
        let modes = self.shapes.model().output().iter().zip(&part.ranges);
        let begin: usize = modes.map(|(&x, r)| r.0 * stride(self.shapes, output, x)).sum();
        let a = Some((self.buffers.partial, 0));
        let out = (self.buffers.sums, begin + first);
        self.contraction(commands, outputs, terms, a, None, out, 1.0, pass.add)
    }

    /// The size of an index in a part; latent indices are whole.
    fn part_size(&self, part: &DataPart, x: Index) -> usize {
        match self.shapes.model().observed().contains(x) {
            true => part.range(self.shapes, x).1,
            false => self.shapes.size(x),
        }
    }
}

/// Floating-point operations of a part, roughly.
fn work(part: &DataPart, geometry: &Geometry) -> f64 {
    part.entries() as f64 * (6.0 * geometry.k as f64 + 50.0)
}

/// How many units a split has: there are `wanted` splits, if there are as many units and their sums
/// have room.
fn split_units(units: usize, wanted: usize, room: usize) -> usize {
    const MOST: usize = 65_535;
    let splits = wanted.min(room).min(units).clamp(1, MOST);
    units.div_ceil(splits)
}
