//! Passes that go over every cell, as commands.

use std::collections::HashSet;

use super::cells::{Terms, Wants};
use super::contract::{Axis, View};
use super::geometry::{Geometry, Part};
use super::numbers::{Number, Uniforms, part_value};
use super::program::{Compiler, Key, Slab, Turns};
use super::recording::{Command, Dispatch, Recording, RecordingId, ShaderId};
use super::rows::RowsShader;
use super::tiles::{self, TileShader};
use nneinfact_core::engine::LossSlot;
use nneinfact_core::error::Result;
use nneinfact_core::model::Index;

/// How a part of the data is cut into blocks, and these are shared out among workgroups.
struct Tiling {
    side_blocks: usize,
    other_blocks: usize,
    blocks: usize,
    fold: [u32; 3],
    /// Units that a workgroup walks over.
    stretch: usize,
    /// Where the sums of the denominator begin.
    half: usize,
}

impl Tiling {
    fn number(&self, number: Number) -> Option<usize> {
        Some(match number {
            Number::SideBlocks => self.side_blocks,
            Number::OtherBlocks => self.other_blocks,
            Number::BlockCount => self.blocks,
            Number::Fold => self.fold[0] as usize,
            Number::Stretch => self.stretch,
            Number::Half => self.half,
            _ => return None,
        })
    }
}

impl Compiler<'_> {
    /// The pass of a group that reads the data.
    pub(super) fn dense_pass(
        &mut self,
        group: usize,
        fresh: &mut HashSet<Key>,
    ) -> Result<RecordingId> {
        let plan = self.plan;
        let pass = &plan.passes()[group];
        let target = &pass.output.indices;
        let slot = self.job.losses.get(group).copied().flatten();
        let mut recording = Recording { label: format!("pass {group}"), commands: Vec::new() };
        let commands = &mut recording.commands;
        let bases = self.tensors(commands, group, fresh)?;

        let closed = plan.settings().closed_denominator;
        if closed {
            let inputs: Vec<View> =
                pass.others.iter().map(|&l| self.factor(l, self.factors, 0, false)).collect();
            let base = self.shapes.sizes(target).iter().product();
            let out = View { buffer: self.sums, base, letters: target.clone(), half: None };
            let constant = self.job.loss.denominator_constant().unwrap_or(1.0) as f32;
            self.contract(commands, &pass.closed_denominator, &inputs, &out, constant, false)?;
        }
        let wants = Wants { numerator: true, denominator: !closed, losses: slot.is_some() };
        let cells = Reading { group, bases, wants, terms: Terms::of(&self.job.loss), target };
        self.clear_losses(commands, slot);
        self.penalties(commands, slot)?;
        let Some(_) = self.streamed() else {
            let losses = self.every_cell(commands, &cells, slot, false, &mut Vec::new())?;
            self.add_losses(commands, slot, losses)?;
            return Ok(self.record(recording));
        };
        // The beginning, the part of each slab, and the end are recordings of their own.
        let mut stages = Vec::new();
        let losses = self.every_cell(commands, &cells, slot, false, &mut stages)?;
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
        self.turns.push(Turns { slabs, end });
        Ok(self.record(recording))
    }

    /// Forms what the dense pass of a group reads; returns where each tensor begins.
    pub(super) fn tensors(
        &mut self,
        commands: &mut Vec<Command>,
        group: usize,
        fresh: &mut HashSet<Key>,
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

    /// Goes over all cells. What it sums is added to what is there, if `add`; else it takes its
    /// place. Returns how many sums of losses are left to be added up. Where slabs take turns, what
    /// comes before each of them moves to `stages`.
    pub(super) fn every_cell(
        &mut self,
        commands: &mut Vec<Command>,
        reading: &Reading<'_>,
        slot: Option<LossSlot>,
        add: bool,
        stages: &mut Vec<Vec<Command>>,
    ) -> Result<usize> {
        let plan = self.plan;
        let pass = &plan.passes()[reading.group];
        let Reading { wants, target, .. } = reading;
        let wants = *wants;
        let geometry = Geometry::new(plan, pass, &reading.bases);
        let mut kernel = self.kernel(reading, &geometry, true)?;
        let mut parts = self.parts(&geometry, &kernel, wants.halves());
        let strides = &plan.data().strides;
        let whole = |(slab, part): &(usize, Part)| {
            let begin = part.offset(strides) - self.slabs[*slab].part.offset(strides);
            begin.is_multiple_of(kernel.aligned())
        };
        if !parts.iter().all(whole) {
            kernel = self.kernel(reading, &geometry, false)?;
            parts = self.parts(&geometry, &kernel, wants.halves());
        }
        let several = parts.len() > 1;
        if several && !add {
            let volume: usize = self.shapes.sizes(target).iter().product();
            commands.push(Command::Clear {
                buffer: self.sums,
                offset: 0,
                bytes: (wants.halves() * volume * 4) as u64,
            });
        }
        let add = add || several;
        let room = self.losses_room();
        let mut losses = 0;
        for (slab, part) in &parts {
            if self.streamed().is_some() && stages.len() <= *slab {
                stages.push(std::mem::take(commands));
            }
            let slab = self.slabs[*slab].clone();
            let mut work = Vec::new();
            let mut left = self.pass_part(
                &mut work, target, &geometry, &kernel, wants, &slab, part, losses, add,
            )?;
            if losses > 0 && losses + left > room {
                // The losses so far make room for those of this part.
                self.add_losses(commands, slot, losses)?;
                losses = 0;
                work.clear();
                left = self.pass_part(
                    &mut work, target, &geometry, &kernel, wants, &slab, part, losses, add,
                )?;
            }
            commands.append(&mut work);
            losses += left;
        }
        Ok(losses)
    }

    /// The shaders of a pass. `whole_words` says that its parts begin at whole words of the data.
    fn kernel(
        &mut self,
        reading: &Reading<'_>,
        geometry: &Geometry,
        whole_words: bool,
    ) -> Result<Kernel> {
        let (plan, limits, cells) = (self.plan, self.limits, &self.cells);
        let Reading { wants, terms, .. } = reading;
        Ok(if geometry.k <= self.tuning.register_k {
            let rows = RowsShader::new(plan, geometry, cells, terms, *wants, whole_words, limits)?;
            let id = self.shader(rows.shader.clone());
            Kernel::Rows(id, Box::new(rows))
        } else {
            let entries = tiles::entries(plan, geometry, cells, terms, *wants, limits)?;
            let sums = tiles::sums(plan, geometry, *wants, limits)?;
            let ids = [self.shader(entries.shader.clone()), self.shader(sums.shader.clone())];
            Kernel::Tiles(ids, Box::new([entries, sums]))
        })
    }

    /// The parts that the data are gone over in, each with its slab.
    fn parts(&self, geometry: &Geometry, kernel: &Kernel, halves: usize) -> Vec<(usize, Part)> {
        let mut parts: Vec<(usize, Part)> = Vec::new();
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
        part: &Part,
        geometry: &Geometry,
        kernel: &Kernel,
        halves: usize,
    ) -> Option<(Part, Part)> {
        let scratch = self.tuning.scratch_bytes.min(self.limits.binding_bytes);
        let size = |letters: &[Index]| part.size(self.shapes, letters);
        let (slices, inner, entries) = match kernel {
            Kernel::Rows(_, rows) => (rows.slices, geometry.target_k(self.shapes), 0),
            Kernel::Tiles(..) => (1, geometry.k, part.entries()),
        };
        let sums = slices * size(&geometry.own) * size(&geometry.side) * inner * halves;
        let sums_fit = 4 * sums as u64 <= scratch;
        let entries_fit = 4 * entries as u64 <= scratch;
        if sums_fit && entries_fit && work(part, geometry) <= self.tuning.work {
            return None;
        }
        // Cutting the target's own letters makes everything smaller.
        let output = self.shapes.model().output();
        let longest = |letters: &mut dyn Iterator<Item = &Index>| {
            letters
                .filter_map(|x| output.iter().position(|y| y == x))
                .filter(|&m| part.ranges[m].1 > 1)
                .max_by_key(|&m| part.ranges[m].1)
        };
        let own = longest(&mut geometry.own.iter().chain(&geometry.side));
        let all = longest(&mut output.iter());
        let mode = if sums_fit { all } else { own.or(all) };
        mode.and_then(|m| part.cut(m))
    }

    /// The commands of a part of a pass; returns how many sums of losses it leaves.
    #[allow(clippy::too_many_arguments)]
    fn pass_part(
        &mut self,
        commands: &mut Vec<Command>,
        target: &[Index],
        geometry: &Geometry,
        kernel: &Kernel,
        wants: Wants,
        slab: &Slab,
        part: &Part,
        losses: usize,
        add: bool,
    ) -> Result<usize> {
        let size = |letters: &[Index]| part.size(self.shapes, letters);
        let (own, side) = (size(&geometry.own), size(&geometry.side));
        let (summed, other) = (size(&geometry.summed), size(&geometry.other));
        let halves = wants.halves();
        let scratch = self.tuning.scratch_bytes.min(self.limits.binding_bytes) as usize / 4;
        let wanted = self.tuning.workgroups;
        let (plan, job) = (self.plan, self.job);
        let fixed = move |number: Number| match number {
            Number::Losses => losses,
            Number::Scale => (1.0 / job.unit as f32).to_bits() as usize,
            Number::Floor => ((job.guards.prediction_floor / job.unit) as f32).to_bits() as usize,
            _ => 0,
        };
        let numbers_of = |numbers: &Uniforms, tiling: &Tiling| {
            numbers.bytes(|n| {
                let value = tiling
                    .number(n)
                    .or_else(|| part_value(n, plan, geometry, part, &slab.part))
                    .unwrap_or_else(|| fixed(n));
                value as u32
            })
        };
        let mut data = vec![self.whole(slab.values)];
        data.extend(slab.roles.map(|b| self.whole(b)));
        data.extend(slab.weights.map(|b| self.whole(b)));
        data.extend(slab.sides.map(|b| self.whole(b)));
        let products = self.whole(self.products);
        let (stretches, slices, inner, left) = match kernel {
            Kernel::Rows(shader, rows) => {
                let side_blocks = side.div_ceil(rows.lanes);
                let other_blocks = other.div_ceil(rows.tile);
                let (blocks, units) = (own * side_blocks, summed * other_blocks);
                let inner = geometry.target_k(self.shapes);
                let each = rows.slices * own * side * inner * halves;
                let exact = (units * rows.tile).div_ceil(rows.slices * self.tuning.terms);
                let stretch =
                    stretch(units, wanted.div_ceil(blocks).max(exact), scratch / each.max(1));
                let stretches = units.div_ceil(stretch);
                let fold = self.fold(blocks);
                let half = stretches * rows.slices * own * side * inner;
                let tiling = Tiling { side_blocks, other_blocks, blocks, fold, stretch, half };
                let numbers = numbers_of(&rows.numbers, &tiling);
                let mut bindings = vec![self.uniform(&numbers), products];
                bindings.extend(data);
                if halves > 0 {
                    self.grow(self.partial, half * halves);
                    bindings.push(self.whole(self.partial));
                }
                let left = if wants.losses { blocks * stretches } else { 0 };
                if wants.losses {
                    bindings.push(self.whole(self.losses));
                }
                commands.push(Command::Dispatch(Dispatch {
                    shader: *shader,
                    bindings,
                    workgroups: [fold[0], fold[1], stretches as u32],
                    work: work(part, geometry),
                }));
                (stretches, rows.slices, &geometry.target_inner, left)
            }
            Kernel::Tiles([entries, sums], shaders) => {
                let [entries_shader, sums_shader] = &**shaders;
                let tile = entries_shader.tile;
                let side_blocks = side.div_ceil(tile);
                let other_blocks = other.div_ceil(tile);
                let blocks = own * summed * side_blocks * other_blocks;
                let fold = self.fold(blocks);
                // A workgroup for every block, which leaves no sums.
                let tiling =
                    Tiling { side_blocks, other_blocks, blocks, fold, stretch: 1, half: 0 };
                let numbers = numbers_of(&entries_shader.numbers, &tiling);
                let mut bindings = vec![self.uniform(&numbers), products];
                bindings.extend(data);
                for i in 0..halves {
                    self.grow(self.entries[i], part.entries());
                    bindings.push(self.whole(self.entries[i]));
                }
                if wants.losses {
                    bindings.push(self.whole(self.losses));
                }
                commands.push(Command::Dispatch(Dispatch {
                    shader: *entries,
                    bindings,
                    workgroups: fold,
                    work: work(part, geometry) / 3.0,
                }));
                let left = if wants.losses { blocks } else { 0 };
                if halves == 0 {
                    return Ok(left);
                }

                let tile = sums_shader.tile;
                let side_blocks = side.div_ceil(tile);
                let other_blocks = other.div_ceil(tiles::DEPTH);
                let blocks = own * side_blocks * geometry.k.div_ceil(tile);
                let units = summed * other_blocks;
                let each = own * side * geometry.k * halves;
                let exact = (units * tiles::DEPTH).div_ceil(self.tuning.terms);
                let stretch =
                    stretch(units, wanted.div_ceil(blocks).max(exact), scratch / each.max(1));
                let stretches = units.div_ceil(stretch);
                let fold = self.fold(blocks);
                let half = stretches * own * side * geometry.k;
                let tiling = Tiling { side_blocks, other_blocks, blocks, fold, stretch, half };
                let numbers = numbers_of(&sums_shader.numbers, &tiling);
                let mut bindings = vec![self.uniform(&numbers), products];
                bindings.extend((0..halves).map(|i| self.whole(self.entries[i])));
                self.grow(self.partial, half * halves);
                bindings.push(self.whole(self.partial));
                commands.push(Command::Dispatch(Dispatch {
                    shader: *sums,
                    bindings,
                    workgroups: [fold[0], fold[1], stretches as u32],
                    work: work(part, geometry) * 2.0 / 3.0,
                }));
                (stretches, 1, &geometry.inner, left)
            }
        };

        if halves == 0 {
            return Ok(left);
        }
        // The partial sums `[stretch and slice][own][inner][side]`, added into the target.
        let mut from: Vec<(Index, usize)> = Vec::new();
        let mut stride = 1;
        for &x in
            geometry.side.iter().rev().chain(inner.iter().rev()).chain(geometry.own.iter().rev())
        {
            from.push((x, stride));
            stride *= self.part_size(part, x);
        }
        let volume: usize = self.shapes.sizes(target).iter().product();
        let (mut outputs, mut terms) = (Vec::new(), Vec::new());
        if halves == 2 {
            let half = stretches * slices * stride;
            outputs.push(Axis { size: 2, out: volume, a: half, b: 0 });
        }
        terms.push(Axis { size: stretches * slices, out: 0, a: stride, b: 0 });
        for &(x, a) in &from {
            let out = super::geometry::stride(self.shapes, target, x);
            let axis = Axis { size: self.part_size(part, x), out, a, b: 0 };
            if target.contains(&x) { outputs.push(axis) } else { terms.push(axis) }
        }
        let output = self.shapes.model().output();
        let first = if wants.numerator { 0 } else { volume };
        let base = output
            .iter()
            .zip(&part.ranges)
            .map(|(&x, r)| r.0 * super::geometry::stride(self.shapes, target, x))
            .sum::<usize>()
            + first;
        self.contraction(
            commands,
            outputs,
            terms,
            Some((self.partial, 0)),
            None,
            (self.sums, base),
            1.0,
            add,
        )?;
        Ok(left)
    }

    /// The size of a letter in a part; latent letters are whole.
    fn part_size(&self, part: &Part, x: Index) -> usize {
        match self.shapes.model().observed().contains(x) {
            true => part.range(self.shapes, x).1,
            false => self.shapes.size(x),
        }
    }
}

/// What a pass over every cell computes, and where it belongs.
pub(super) struct Reading<'a> {
    pub group: usize,
    /// Where each tensor of the dense pass begins among the products.
    pub bases: Vec<usize>,
    pub wants: Wants,
    pub terms: Terms,
    /// The letters of numerator and denominator.
    pub target: &'a [Index],
}

/// The shaders of a pass.
enum Kernel {
    Rows(ShaderId, Box<RowsShader>),
    Tiles([ShaderId; 2], Box<[TileShader; 2]>),
}

impl Kernel {
    /// At multiples of how many cells its parts have to begin.
    fn aligned(&self) -> usize {
        match self {
            Kernel::Rows(_, rows) => rows.aligned,
            Kernel::Tiles(..) => 1,
        }
    }
}

/// Floating-point operations of a part, roughly.
fn work(part: &Part, geometry: &Geometry) -> f64 {
    part.entries() as f64 * (6.0 * geometry.k as f64 + 50.0)
}

/// How many units a workgroup walks over: there are `wanted` stretches, if there are as many units
/// and their sums have room.
fn stretch(units: usize, wanted: usize, room: usize) -> usize {
    const MOST: usize = 65_535;
    let stretches = wanted.min(room).min(units).clamp(1, MOST);
    units.div_ceil(stretches)
}
