//! From a job to a program: every buffer, shader and command of a fit.

use std::collections::{HashMap, HashSet};

use super::cells::{Cells, Wants};
use super::contract::{Axis, View};
use super::geometry::{Geometry, Part};
use super::numbers::{Number, Numbers, part_value};
use super::recording::{
    Access, Buffer, BufferId, BufferKind, Command, Dispatch, GpuLimits, Program, Recording,
    RecordingId, Shader, ShaderId, Window,
};
use super::rows::RowsShader;
use super::tiles::{self, TileShader};
use crate::engine::{Job, Slot};
use crate::error::{Error, Result};
use crate::loss::Majorizer;
use crate::model::{Letter, Shapes};
use crate::plan::{Contraction, Pass, Plan};

/// Sums of losses that a pass leaves for each role: the host adds them in double precision.
pub(super) const LOSS_SUMS: usize = 32;
/// Sums of one slot.
pub(super) const SLOT_SUMS: usize = 3 * LOSS_SUMS;

/// Bytes that the losses of workgroups may take before they are added up.
const MOST_LOSSES: u64 = 16 << 20;

/// Choices that change speed and memory but no result beyond rounding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tuning {
    /// Up to this inner dimension a thread keeps its row and its sums in registers.
    pub register_k: usize,
    /// Workgroups that a pass is cut into where there is enough to do.
    pub workgroups: usize,
    /// Terms that a thread adds up in single precision.
    pub terms: usize,
    /// Bytes that partial sums, or entries of a pass in two halves, may take.
    pub scratch_bytes: u64,
    /// Operations after which a dispatch is cut in two: none may run for seconds.
    pub work: f64,
    /// The most memory that a fit may take on the device, if less than there is.
    pub memory: Option<u64>,
    /// The data take turns on the device, in slabs of at most so many cells.
    pub stream: Option<usize>,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            register_k: 48,
            workgroups: 1024,
            terms: 4096,
            scratch_bytes: 64 << 20,
            work: 2e10,
            memory: None,
            stream: None,
        }
    }
}

/// A program with what the host needs to know to run it.
#[derive(Debug)]
pub(super) struct Compiled {
    pub program: Program,
    /// Where each factor begins among the factors, and one more for their end.
    pub places: Vec<usize>,
    pub factors: BufferId,
    /// Sums of losses by slot, then a word that says which factor is not finite (from 1).
    pub results: BufferId,
    /// The weight of the extrapolation.
    pub weight: BufferId,
    pub slabs: Vec<Slab>,
    /// Raises the start above the factor floor.
    pub begin: RecordingId,
    pub passes: Vec<RecordingId>,
    /// Where slabs take turns, what follows on the beginning of each pass; else empty.
    pub turns: Vec<Turns>,
    /// For each pass, which of its dispatches work on the data and not on small tensors.
    pub reads_data: Vec<Vec<bool>>,
    pub updates: Vec<RecordingId>,
    pub mark: RecordingId,
    pub extrapolate: RecordingId,
    pub retreat: RecordingId,
    pub remember: RecordingId,
    pub recall: RecordingId,
    /// Copies the word of `broken` to the results and clears it.
    pub report: RecordingId,
}

/// What a pass runs where slabs take turns on the device.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    /// For each slab.
    pub slabs: Vec<RecordingId>,
    /// After the last.
    pub end: RecordingId,
}

/// A contiguous part of the data with its buffers.
#[derive(Clone, Debug)]
pub(super) struct Slab {
    pub part: Part,
    pub values: BufferId,
    pub roles: Option<BufferId>,
    pub weights: Option<BufferId>,
    pub sides: Option<BufferId>,
}

/// Compiles a job.
///
/// # Errors
/// [`Error::Memory`] where a tensor is larger than what a shader of this device may see;
/// [`Error::Loss`] where a constant of the loss is out of the range of single precision.
pub(super) fn compile(job: &Job, limits: &GpuLimits, tuning: &Tuning) -> Result<Compiled> {
    Compiler::new(job, limits, tuning)?.run()
}

/// Stored products of factors, by the factors and the order of the letters.
type Key = (Vec<usize>, Vec<Letter>);

pub(super) struct Compiler<'a> {
    job: &'a Job,
    pub(super) plan: &'a Plan,
    pub(super) shapes: &'a Shapes,
    limits: &'a GpuLimits,
    tuning: &'a Tuning,
    cells: Cells,
    program: Program,
    shaders: HashMap<Shader, ShaderId>,
    /// The last of the uniform buffers.
    numbers: BufferId,
    places: Vec<usize>,
    pub(super) factors: BufferId,
    lambda: BufferId,
    powers: BufferId,
    plain: BufferId,
    remembered: BufferId,
    products: BufferId,
    product_places: HashMap<Key, usize>,
    /// Whether every product has a place of its own, so that it may outlive a pass.
    lasting: bool,
    sums: BufferId,
    quotients: BufferId,
    partial: BufferId,
    entries: [BufferId; 2],
    losses: BufferId,
    results: BufferId,
    largest: BufferId,
    largest_places: Vec<usize>,
    broken: BufferId,
    weight: BufferId,
    pub(super) temporaries: Vec<BufferId>,
    slabs: Vec<Slab>,
    turns: Vec<Turns>,
}

impl<'a> Compiler<'a> {
    fn new(job: &'a Job, limits: &'a GpuLimits, tuning: &'a Tuning) -> Result<Compiler<'a>> {
        let plan: &Plan = &job.plan;
        let shapes = plan.shapes();
        let mut places = vec![0];
        for l in 0..shapes.model().factors().len() {
            let size: usize = shapes.factor(l).iter().product();
            places.push(places[l] + size);
        }
        let parameters = places[places.len() - 1];
        let mut largest_places = vec![0];
        for l in 1..places.len() {
            let chunks = (places[l] - places[l - 1]).div_ceil(1024);
            largest_places.push(largest_places[l - 1] + chunks);
        }

        // Every product has its own place if all fit, and stays for the passes after the one that
        // formed it; else the passes take turns.
        let volume = |letters: &[Letter]| shapes.sizes(letters).iter().product::<usize>();
        let keys = |pass: &Pass| -> Vec<Key> {
            std::iter::once(&pass.target)
                .chain(&pass.operands)
                .map(|o| (o.factors.clone(), o.letters.clone()))
                .collect()
        };
        let mut product_places: HashMap<Key, usize> = HashMap::new();
        let mut end = 0;
        for key in plan.passes().iter().flat_map(keys) {
            let size = volume(&key.1);
            product_places.entry(key).or_insert_with(|| {
                end += size;
                end - size
            });
        }
        let lasting = 4 * end as u64 <= limits.binding_bytes;
        if !lasting {
            product_places.clear();
            let taken = |pass| keys(pass).iter().map(|key| volume(&key.1)).sum();
            end = plan.passes().iter().map(taken).max().unwrap_or(0);
        }
        let target = plan.passes().iter().map(|p| volume(&p.target.letters)).max().unwrap_or(1);
        let widest = plan
            .groups()
            .iter()
            .flat_map(|g| &g.factors)
            .map(|&l| places[l + 1] - places[l])
            .max()
            .unwrap_or(1);

        let mut compiler = Compiler {
            cells: Cells::new(&job.data, &job.loss),
            job,
            plan,
            shapes,
            limits,
            tuning,
            program: Program::default(),
            shaders: HashMap::new(),
            numbers: BufferId(0),
            factors: BufferId(0),
            lambda: BufferId(0),
            powers: BufferId(0),
            plain: BufferId(0),
            remembered: BufferId(0),
            products: BufferId(0),
            product_places,
            lasting,
            sums: BufferId(0),
            quotients: BufferId(0),
            partial: BufferId(0),
            entries: [BufferId(0); 2],
            losses: BufferId(0),
            results: BufferId(0),
            largest: BufferId(0),
            broken: BufferId(0),
            weight: BufferId(0),
            temporaries: Vec::new(),
            slabs: Vec::new(),
            turns: Vec::new(),
            places,
            largest_places,
        };
        let c = &mut compiler;
        c.numbers = c.buffer("numbers", 0, BufferKind::Uniform);
        c.factors = c.storage("the factors", parameters);
        c.lambda = c.storage("the factors of change", parameters);
        c.powers = c.storage("powers of the factors", 3 * parameters);
        c.plain = c.storage("the factors of the sweep before", parameters);
        c.remembered = c.storage("the remembered factors", parameters);
        c.products = c.storage("products of factors", end);
        c.sums = c.storage("numerator and denominator", 2 * target);
        c.quotients = c.storage("numerator and denominator of a factor", 2 * widest);
        // The sizes of these are known once all passes are compiled.
        c.partial = c.storage("partial sums", 1);
        c.entries = [c.storage("a of a part", 1), c.storage("b of a part", 1)];
        c.losses = c.storage("losses of workgroups", 1);
        c.results = c.storage("sums of losses", Slot::COUNT * SLOT_SUMS + 1);
        let chunks = c.largest_places[c.largest_places.len() - 1];
        c.largest = c.storage("largest entries", chunks);
        c.broken = c.storage("the status", 1);
        c.weight = c.buffer("the weight", 16, BufferKind::Uniform);
        Ok(compiler)
    }

    fn run(mut self) -> Result<Compiled> {
        self.lay_out_data();
        let begin = self.begin()?;
        let mut fresh = HashSet::new();
        let mut passes = Vec::new();
        let mut updates = Vec::new();
        for group in 0..self.plan.groups().len() {
            if group == 0 || !self.lasting {
                fresh.clear();
            }
            passes.push(self.pass(group, &mut fresh)?);
            updates.push(self.update(group)?);
            let members = &self.plan.groups()[group].factors;
            fresh.retain(|key: &Key| !key.0.iter().any(|l| members.contains(l)));
        }
        let mark = self.copy("mark", self.factors, self.plain);
        let retreat = self.copy("retreat", self.plain, self.factors);
        let remember = self.copy("remember", self.factors, self.remembered);
        let recall = self.copy("recall", self.remembered, self.factors);
        let extrapolate = self.extrapolate()?;
        let status = (Slot::COUNT * SLOT_SUMS * 4) as u64;
        let report = self.record(Recording {
            label: "report".into(),
            commands: vec![
                Command::Copy {
                    from: self.broken,
                    from_offset: 0,
                    to: self.results,
                    to_offset: status,
                    bytes: 4,
                },
                Command::Clear { buffer: self.broken, offset: 0, bytes: 4 },
            ],
        });
        for buffer in &mut self.program.buffers {
            buffer.bytes = buffer.bytes.max(buffer.content.len() as u64);
        }
        // Windows of buffers whose size was not known when they were bound.
        let sizes: Vec<u64> = self.program.buffers.iter().map(|b| b.bytes).collect();
        for recording in &mut self.program.recordings {
            for command in &mut recording.commands {
                if let Command::Dispatch(dispatch) = command {
                    for window in &mut dispatch.bindings {
                        if window.bytes == 0 {
                            window.bytes = sizes[window.buffer.0];
                        }
                    }
                }
            }
        }
        for buffer in &self.program.buffers {
            let limit = match buffer.kind {
                BufferKind::Storage => self.limits.binding_bytes,
                BufferKind::Uniform => self.limits.buffer_bytes,
            };
            if buffer.bytes > limit {
                return Err(Error::Memory {
                    what: format!("{} on the device", buffer.label),
                    needed: buffer.bytes,
                    available: limit,
                    help: "a shader of this device sees no more at once: lower the ranks, lower the memory limit of the plan, or use the CPU"
                        .into(),
                });
            }
        }
        let reads_data = |id: &RecordingId| {
            let dispatches = self.program.recordings[id.0].commands.iter();
            dispatches
                .filter_map(|command| match command {
                    Command::Dispatch(dispatch) => {
                        Some(self.program.shaders[dispatch.shader.0].label.contains("pass"))
                    }
                    _ => None,
                })
                .collect()
        };
        let reads_data = passes.iter().map(reads_data).collect();
        Ok(Compiled {
            program: self.program,
            reads_data,
            places: self.places,
            factors: self.factors,
            results: self.results,
            weight: self.weight,
            slabs: self.slabs,
            turns: self.turns,
            begin,
            passes,
            updates,
            mark,
            extrapolate,
            retreat,
            remember,
            recall,
            report,
        })
    }

    fn buffer(&mut self, label: &str, bytes: u64, kind: BufferKind) -> BufferId {
        self.program.buffers.push(Buffer { label: label.into(), bytes, kind, content: Vec::new() });
        BufferId(self.program.buffers.len() - 1)
    }

    fn storage(&mut self, label: &str, words: usize) -> BufferId {
        self.buffer(label, 4 * words.max(1) as u64, BufferKind::Storage)
    }

    /// Makes a buffer at least this long.
    fn grow(&mut self, buffer: BufferId, words: usize) {
        let bytes = &mut self.program.buffers[buffer.0].bytes;
        *bytes = (*bytes).max(4 * words as u64);
    }

    /// The temporary of a step of a contraction.
    pub(super) fn temporary(&mut self, step: usize, words: usize) -> BufferId {
        while self.temporaries.len() <= step {
            let label = format!("temporary {}", self.temporaries.len() + 1);
            let id = self.storage(&label, 1);
            self.temporaries.push(id);
        }
        self.grow(self.temporaries[step], words);
        self.temporaries[step]
    }

    pub(super) fn shader(&mut self, shader: Shader) -> ShaderId {
        let next = ShaderId(self.program.shaders.len());
        let id = *self.shaders.entry(shader.clone()).or_insert(next);
        if id == next {
            self.program.shaders.push(shader);
        }
        id
    }

    fn record(&mut self, recording: Recording) -> RecordingId {
        self.program.recordings.push(recording);
        RecordingId(self.program.recordings.len() - 1)
    }

    /// The whole of a buffer, whatever its size will be.
    pub(super) fn whole(&self, buffer: BufferId) -> Window {
        Window { buffer, offset: 0, bytes: 0 }
    }

    /// A window with these numbers.
    pub(super) fn uniform(&mut self, bytes: &[u8]) -> Window {
        let align = self.limits.uniform_align.max(16) as usize;
        let taken = self.program.buffers[self.numbers.0].content.len().next_multiple_of(align);
        let size = bytes.len().next_multiple_of(16);
        let full = (taken + size) as u64 > self.limits.buffer_bytes && taken > 0;
        if full {
            self.numbers = self.buffer("numbers", 0, BufferKind::Uniform);
        }
        let offset = if full { 0 } else { taken };
        let content = &mut self.program.buffers[self.numbers.0].content;
        content.resize(offset, 0);
        content.extend(bytes);
        content.resize(offset + size, 0);
        Window { buffer: self.numbers, offset: offset as u64, bytes: size as u64 }
    }

    pub(super) fn words(&mut self, words: &[u32]) -> Window {
        self.uniform(bytemuck::cast_slice(words))
    }

    /// Workgroups folded into two dimensions.
    pub(super) fn fold(&self, count: usize) -> [u32; 3] {
        let most = self.limits.workgroups as usize;
        let x = count.clamp(1, most);
        [x as u32, count.div_ceil(x).max(1) as u32, 1]
    }

    fn lay_out_data(&mut self) {
        let strides = self.plan.data().strides.clone();
        let most = self.limits.binding_bytes.min(self.limits.buffer_bytes)
            / self.cells.bytes_per_cell().max(1);
        // Whole words, also of sixteen roles.
        let most = (most as usize).saturating_sub(32).max(1);
        let most = self.tuning.stream.map_or(most, |cells| cells.clamp(1, most));
        for part in Part::slabs(self.shapes, &strides, most) {
            let cells = part.entries();
            let words =
                |kind: super::cells::Kind| (cells as u64 * kind.bytes()).div_ceil(4) as usize;
            if self.tuning.stream.is_some() && self.slabs.len() >= 2 {
                // The buffers of the last but one, of which the device is done soonest.
                let slab = Slab { part, ..self.slabs[self.slabs.len() - 2].clone() };
                self.grow(slab.values, words(self.cells.values));
                let others = [
                    (slab.roles, cells.div_ceil(32) * 2),
                    (slab.weights, self.cells.weights.map_or(0, words)),
                    (slab.sides, cells * self.cells.sides),
                ];
                for (buffer, words) in others {
                    buffer.into_iter().for_each(|buffer| self.grow(buffer, words));
                }
                self.slabs.push(slab);
                continue;
            }
            let values = self.storage("the data", words(self.cells.values));
            let roles = self.cells.roles.then(|| self.storage("roles", cells.div_ceil(32) * 2));
            let weights = self.cells.weights.map(words);
            let weights = weights.map(|words| self.storage("weights", words));
            let sides = (self.cells.sides > 0)
                .then(|| self.storage("side tensors of the loss", cells * self.cells.sides));
            self.slabs.push(Slab { part, values, roles, weights, sides });
        }
    }

    fn copy(&mut self, label: &str, from: BufferId, to: BufferId) -> RecordingId {
        let bytes = self.program.buffers[from.0].bytes;
        self.record(Recording {
            label: label.into(),
            commands: vec![Command::Copy { from, from_offset: 0, to, to_offset: 0, bytes }],
        })
    }

    /// A factor, or a part of the buffer of its powers.
    fn factor(&self, l: usize, buffer: BufferId, part: usize, paired: bool) -> View {
        let parameters = self.places[self.places.len() - 1];
        View {
            buffer,
            base: self.places[l] + part * parameters,
            letters: self.shapes.model().factors()[l].clone(),
            half: paired.then_some(parameters),
        }
    }

    /// The pass of a group.
    fn pass(&mut self, group: usize, fresh: &mut HashSet<Key>) -> Result<RecordingId> {
        let plan = self.plan;
        let pass = &plan.passes()[group];
        let slot = self.job.losses.get(group).copied().flatten();
        let mut recording = Recording { label: format!("pass {group}"), commands: Vec::new() };
        let commands = &mut recording.commands;

        let mut bases = Vec::new();
        for operand in std::iter::once(&pass.target).chain(&pass.operands) {
            let key = (operand.factors.clone(), operand.letters.clone());
            let base = if self.lasting { self.product_places[&key] } else { self.turn(pass, &key) };
            bases.push(base);
            if fresh.insert(key) || !self.lasting {
                let inputs: Vec<View> = operand
                    .factors
                    .iter()
                    .map(|&l| self.factor(l, self.factors, 0, false))
                    .collect();
                let out = View {
                    buffer: self.products,
                    base,
                    letters: operand.letters.clone(),
                    half: None,
                };
                self.contract(commands, &operand.form, &inputs, &out, 1.0, false)?;
            }
        }
        let geometry = Geometry::new(plan, pass, &bases);

        let closed = plan.settings().closed_denominator;
        let volume: usize = self.shapes.sizes(&pass.target.letters).iter().product();
        if closed {
            let inputs: Vec<View> =
                pass.others.iter().map(|&l| self.factor(l, self.factors, 0, false)).collect();
            let out = View {
                buffer: self.sums,
                base: volume,
                letters: pass.target.letters.clone(),
                half: None,
            };
            let constant = self.job.loss.denominator_constant().unwrap_or(1.0) as f32;
            self.contract(commands, &pass.closed_denominator, &inputs, &out, constant, false)?;
        }
        let wants = Wants { numerator: true, denominator: !closed, losses: slot.is_some() };
        let halves = if closed { 1 } else { 2 };

        let kernel = if geometry.k <= self.tuning.register_k {
            let rows =
                RowsShader::new(plan, &geometry, &self.cells, &self.job.loss, wants, self.limits)?;
            let id = self.shader(rows.shader.clone());
            Kernel::Rows(id, Box::new(rows))
        } else {
            let entries =
                tiles::entries(plan, &geometry, &self.cells, &self.job.loss, wants, self.limits)?;
            let sums = tiles::sums(plan, &geometry, wants, self.limits)?;
            let ids = [self.shader(entries.shader.clone()), self.shader(sums.shader.clone())];
            Kernel::Tiles(ids, Box::new([entries, sums]))
        };

        let mut parts: Vec<(usize, Part)> = Vec::new();
        for slab in 0..self.slabs.len() {
            let mut stack = vec![self.slabs[slab].part.clone()];
            while let Some(part) = stack.pop() {
                match self.too_large(&part, &geometry, &kernel, halves) {
                    Some((first, second)) => stack.extend([second, first]),
                    None => parts.push((slab, part)),
                }
            }
        }
        let alone = parts.len() == 1;
        if !alone {
            commands.push(Command::Clear {
                buffer: self.sums,
                offset: 0,
                bytes: (halves * volume * 4) as u64,
            });
        }
        if let Some(slot) = slot {
            commands.push(Command::Clear {
                buffer: self.results,
                offset: (4 * slot as usize * SLOT_SUMS) as u64,
                bytes: 4 * SLOT_SUMS as u64,
            });
        }
        let room = (self.limits.binding_bytes.min(MOST_LOSSES) / 12) as usize;
        let mut losses = 0;
        // What comes before each slab but the first, where they take turns.
        let mut before: Vec<Vec<Command>> = Vec::new();
        for (slab, part) in &parts {
            if self.tuning.stream.is_some() && before.len() <= *slab {
                before.push(std::mem::take(commands));
            }
            let slab = self.slabs[*slab].clone();
            let mut work = Vec::new();
            let mut left = self.pass_part(
                &mut work, pass, &geometry, &kernel, wants, &slab, part, losses, alone,
            )?;
            if losses > 0 && losses + left > room {
                // The losses so far make room for those of this part.
                self.add_losses(commands, slot, losses);
                losses = 0;
                work.clear();
                left = self.pass_part(
                    &mut work, pass, &geometry, &kernel, wants, &slab, part, losses, alone,
                )?;
            }
            commands.append(&mut work);
            losses += left;
        }
        if self.tuning.stream.is_some() {
            let mut stages = before;
            stages.push(std::mem::take(&mut recording.commands));
            let mut end = Recording { label: format!("end of pass {group}"), commands: Vec::new() };
            self.add_losses(&mut end.commands, slot, losses);
            let mut stages = stages.into_iter();
            recording.commands = stages.next().unwrap_or_default();
            let slabs = stages.map(|commands| {
                self.record(Recording { label: format!("a slab of pass {group}"), commands })
            });
            let slabs = slabs.collect();
            let end = self.record(end);
            self.turns.push(Turns { slabs, end });
            return Ok(self.record(recording));
        }
        self.add_losses(commands, slot, losses);
        Ok(self.record(recording))
    }

    /// Adds the losses of this many workgroups to those of the slot.
    fn add_losses(&mut self, commands: &mut Vec<Command>, slot: Option<Slot>, losses: usize) {
        let Some(slot) = slot else { return };
        self.grow(self.losses, 3 * losses);
        let numbers = self.words(&[losses as u32, (slot as usize * SLOT_SUMS) as u32, 0, 0]);
        let shader = self.shader(Shader {
            label: "losses".into(),
            source: include_str!("../../../shaders/losses.wgsl").into(),
            bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite],
            invocations: 32,
            workgroup_bytes: 0,
        });
        commands.push(Command::Dispatch(Dispatch {
            shader,
            bindings: vec![numbers, self.whole(self.losses), self.whole(self.results)],
            workgroups: [3, 1, 1],
            work: 3.0 * losses as f64,
        }));
    }

    /// Where a product of a pass lies when passes take turns.
    fn turn(&self, pass: &Pass, key: &Key) -> usize {
        let mut at = 0;
        for operand in std::iter::once(&pass.target).chain(&pass.operands) {
            if operand.factors == key.0 && operand.letters == key.1 {
                break;
            }
            at += self.shapes.sizes(&operand.letters).iter().product::<usize>();
        }
        at
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
        let size = |letters: &[Letter]| part.size(self.shapes, letters);
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
        let longest = |letters: &mut dyn Iterator<Item = &Letter>| {
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
        pass: &Pass,
        geometry: &Geometry,
        kernel: &Kernel,
        wants: Wants,
        slab: &Slab,
        part: &Part,
        losses: usize,
        alone: bool,
    ) -> Result<usize> {
        let size = |letters: &[Letter]| part.size(self.shapes, letters);
        let (own, side) = (size(&geometry.own), size(&geometry.side));
        let (summed, other) = (size(&geometry.summed), size(&geometry.other));
        let halves = usize::from(wants.numerator) + usize::from(wants.denominator);
        let scratch = self.tuning.scratch_bytes.min(self.limits.binding_bytes) as usize / 4;
        let wanted = self.tuning.workgroups;
        let (plan, job) = (self.plan, self.job);
        let fixed = move |number: Number| match number {
            Number::Losses => losses,
            Number::Scale => (1.0 / job.unit as f32).to_bits() as usize,
            Number::Floor => ((job.numbers.prediction_floor / job.unit) as f32).to_bits() as usize,
            _ => 0,
        };
        let numbers_of = |numbers: &Numbers, own_value: &dyn Fn(Number) -> Option<usize>| {
            numbers.bytes(|n| {
                let value = own_value(n)
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
                let numbers = numbers_of(&rows.numbers, &|n| match n {
                    Number::SideBlocks => Some(side_blocks),
                    Number::OtherBlocks => Some(other_blocks),
                    Number::BlockCount => Some(blocks),
                    Number::Fold => Some(fold[0] as usize),
                    Number::Stretch => Some(stretch),
                    Number::Half => Some(half),
                    _ => None,
                });
                let mut bindings = vec![self.uniform(&numbers), products];
                bindings.extend(data);
                self.grow(self.partial, half * halves);
                bindings.push(self.whole(self.partial));
                let left = blocks * stretches;
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
                let numbers = numbers_of(&entries_shader.numbers, &|n| match n {
                    Number::SideBlocks => Some(side_blocks),
                    Number::OtherBlocks => Some(other_blocks),
                    Number::BlockCount => Some(blocks),
                    Number::Fold => Some(fold[0] as usize),
                    _ => None,
                });
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
                let left = blocks;

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
                let numbers = numbers_of(&sums_shader.numbers, &|n| match n {
                    Number::SideBlocks => Some(side_blocks),
                    Number::OtherBlocks => Some(other_blocks),
                    Number::BlockCount => Some(blocks),
                    Number::Fold => Some(fold[0] as usize),
                    Number::Stretch => Some(stretch),
                    Number::Half => Some(half),
                    _ => None,
                });
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

        // The partial sums `[stretch and slice][own][inner][side]`, added into the target.
        let target = &pass.target.letters;
        let mut from: Vec<(Letter, usize)> = Vec::new();
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
        let base = output
            .iter()
            .zip(&part.ranges)
            .map(|(&x, r)| r.0 * super::geometry::stride(self.shapes, target, x))
            .sum();
        self.contraction(
            commands,
            outputs,
            terms,
            Some((self.partial, 0)),
            None,
            (self.sums, base),
            1.0,
            !alone,
        )?;
        Ok(left)
    }

    /// The size of a letter in a part; latent letters are whole.
    fn part_size(&self, part: &Part, x: Letter) -> usize {
        match self.shapes.model().observed().contains(x) {
            true => part.range(self.shapes, x).1,
            false => self.shapes.size(x),
        }
    }

    /// The update of a group from the sums of its pass: docs/method.md.
    fn update(&mut self, group: usize) -> Result<RecordingId> {
        let plan = self.plan;
        let members = plan.groups()[group].factors.clone();
        let target = &plan.passes()[group].target.letters;
        let volume: usize = self.shapes.sizes(target).iter().product();
        let single = members.len() == 1;
        let majorizer = self.job.loss.majorizer();
        let mut recording = Recording { label: format!("update {group}"), commands: Vec::new() };
        let commands = &mut recording.commands;
        if !single {
            for &l in &members {
                self.begin_factor(commands, l);
            }
        }
        let cycles = if single { 1 } else { self.job.numbers.inner_cycles };
        for _ in 0..cycles {
            for (at, &l) in members.iter().enumerate() {
                let others: Vec<usize> = members.iter().copied().filter(|&m| m != l).collect();
                let contraction = &plan.groups()[group].updates[at];
                let sums = |half: usize, paired: bool| View {
                    buffer: self.sums,
                    base: half * volume,
                    letters: target.clone(),
                    half: paired.then_some(volume),
                };
                let size = self.places[l + 1] - self.places[l];
                let mut inputs = vec![sums(0, true)];
                inputs.extend(others.iter().map(|&m| self.factor(m, self.powers, 0, true)));
                let letters = self.shapes.model().factors()[l].clone();
                let out = View {
                    buffer: self.quotients,
                    base: 0,
                    letters: letters.clone(),
                    half: Some(size),
                };
                let denominators = sums(1, false);
                self.contract(commands, contraction, &inputs, &out, 1.0, false)?;
                if majorizer == Majorizer::Log {
                    for i in 0..others.len() {
                        let mut inputs = vec![denominators.clone()];
                        inputs.extend(others.iter().enumerate().map(|(j, &m)| {
                            self.factor(m, self.powers, if i == j { 2 } else { 0 }, false)
                        }));
                        let out = View {
                            buffer: self.quotients,
                            base: 0,
                            letters: letters.clone(),
                            half: None,
                        };
                        self.contract(commands, contraction, &inputs, &out, -1.0, true)?;
                    }
                }
                let shader = self.shader(step(majorizer, single)?);
                let (fold, numbers) = self.each_entry(l);
                let mut bindings = vec![
                    numbers,
                    self.whole(self.quotients),
                    self.whole(self.factors),
                    self.whole(self.lambda),
                ];
                if !single {
                    bindings.push(self.whole(self.powers));
                }
                commands.push(Command::Dispatch(Dispatch {
                    shader,
                    bindings,
                    workgroups: fold,
                    work: 20.0 * size as f64,
                }));
            }
        }
        for &l in &members {
            self.apply(commands, l, Change::Multiply)?;
        }
        Ok(self.record(recording))
    }

    /// A thread for each entry of a factor: workgroups, and the numbers of begin.wgsl and step.wgsl.
    fn each_entry(&mut self, l: usize) -> ([u32; 3], Window) {
        let size = self.places[l + 1] - self.places[l];
        let parameters = self.places[self.places.len() - 1];
        let fold = self.fold(size.div_ceil(64));
        let words = [self.places[l], size, fold[0] as usize, parameters].map(|n| n as u32);
        (fold, self.words(&words))
    }

    fn begin_factor(&mut self, commands: &mut Vec<Command>, l: usize) {
        let size = self.places[l + 1] - self.places[l];
        let (fold, numbers) = self.each_entry(l);
        let shader = self.shader(Shader {
            label: "begin".into(),
            source: include_str!("../../../shaders/begin.wgsl").into(),
            bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite, Access::ReadWrite],
            invocations: 64,
            workgroup_bytes: 0,
        });
        commands.push(Command::Dispatch(Dispatch {
            shader,
            bindings: vec![
                numbers,
                self.whole(self.factors),
                self.whole(self.lambda),
                self.whole(self.powers),
            ],
            workgroups: fold,
            work: size as f64,
        }));
    }

    /// Changes a factor and raises it to its floor.
    fn apply(&mut self, commands: &mut Vec<Command>, l: usize, change: Change) -> Result<()> {
        let size = self.places[l + 1] - self.places[l];
        let chunks = size.div_ceil(1024);
        let numbers = self.words(&[
            self.places[l] as u32,
            size as u32,
            self.largest_places[l] as u32,
            l as u32,
        ]);
        let shader = self.shader(change.shader()?);
        let mut bindings = vec![numbers, self.whole(self.factors)];
        match change {
            Change::Multiply => bindings.push(self.whole(self.lambda)),
            Change::Extrapolate | Change::Nothing => bindings.push(self.whole(self.plain)),
        }
        bindings.extend([self.whole(self.largest), self.whole(self.broken)]);
        if change == Change::Extrapolate {
            bindings.push(self.whole(self.weight));
        }
        let x = chunks.min(32_768).min(self.limits.workgroups as usize);
        if x < 32_768 && chunks > x {
            return Err(Error::Device(
                "the device allows fewer than 32,768 workgroups in a dimension".into(),
            ));
        }
        commands.push(Command::Dispatch(Dispatch {
            shader,
            bindings,
            workgroups: [x as u32, chunks.div_ceil(x) as u32, 1],
            work: 4.0 * size as f64,
        }));
        let floor = self.job.numbers.factor_floor;
        if floor > 0.0 {
            let fold = self.fold(size.div_ceil(64));
            let numbers = self.words(&[
                self.places[l] as u32,
                size as u32,
                self.largest_places[l] as u32,
                chunks as u32,
                fold[0],
                (floor as f32).to_bits(),
                1e-37f32.to_bits(),
                0,
            ]);
            let shader = self.shader(Shader {
                label: "raise".into(),
                source: include_str!("../../../shaders/raise.wgsl").into(),
                bindings: vec![Access::Uniform, Access::ReadWrite, Access::Read],
                invocations: 64,
                workgroup_bytes: 256,
            });
            commands.push(Command::Dispatch(Dispatch {
                shader,
                bindings: vec![numbers, self.whole(self.factors), self.whole(self.largest)],
                workgroups: fold,
                work: size as f64,
            }));
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<RecordingId> {
        let mut recording = Recording { label: "begin".into(), commands: Vec::new() };
        for l in 0..self.places.len() - 1 {
            self.apply(&mut recording.commands, l, Change::Nothing)?;
        }
        Ok(self.record(recording))
    }

    fn extrapolate(&mut self) -> Result<RecordingId> {
        let mut recording = Recording { label: "extrapolate".into(), commands: Vec::new() };
        for l in 0..self.places.len() - 1 {
            self.apply(&mut recording.commands, l, Change::Extrapolate)?;
        }
        Ok(self.record(recording))
    }

    /// Plans a contraction's steps as dispatches.
    pub(super) fn contract(
        &mut self,
        commands: &mut Vec<Command>,
        contraction: &Contraction,
        inputs: &[View],
        out: &View,
        scale: f32,
        add: bool,
    ) -> Result<()> {
        super::contract::steps(self, commands, contraction, inputs, out, scale, add)
    }
}

/// The shaders of a pass.
enum Kernel {
    Rows(ShaderId, Box<RowsShader>),
    Tiles([ShaderId; 2], Box<[TileShader; 2]>),
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

/// What happens to a factor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Multiply,
    Extrapolate,
    Nothing,
}

impl Change {
    fn shader(self) -> Result<Shader> {
        let value = match self {
            Change::Multiply => "let value = factors[at] * other[at];",
            Change::Nothing => "let value = factors[at];",
            Change::Extrapolate => {
                "// In log space: P * (P / C)^weight, where C is the plain result before P.\n\
                 let before = other[at];\n\
                 var value = factors[at];\n\
                 other[at] = value;\n\
                 if value > 0.0 && before > 0.0 {\n\
                 \x20   let moved = value * pow(value / before, weight.x);\n\
                 \x20   if (bitcast<u32>(moved) & 0x7f800000u) != 0x7f800000u {\n\
                 \x20       value = moved;\n\
                 \x20   }\n\
                 }"
            }
        };
        let more = match self {
            Change::Extrapolate => "@group(0) @binding(5) var<uniform> weight: vec4<f32>;",
            _ => "",
        };
        let mut bindings = vec![
            Access::Uniform,
            Access::ReadWrite,
            Access::Read,
            Access::ReadWrite,
            Access::ReadWrite,
        ];
        let mut template = include_str!("../../../shaders/apply.wgsl").to_string();
        if self == Change::Extrapolate {
            bindings[2] = Access::ReadWrite;
            bindings.push(Access::Uniform);
            template =
                template.replace("var<storage, read> other", "var<storage, read_write> other");
        }
        Ok(Shader {
            label: match self {
                Change::Multiply => "apply".into(),
                Change::Extrapolate => "extrapolate".into(),
                Change::Nothing => "largest".into(),
            },
            source: super::text::fill(
                &template,
                &[("new_value", value.into()), ("more", more.into())],
            )?,
            bindings,
            invocations: 64,
            workgroup_bytes: 256,
        })
    }
}

/// `base` to a constant power, as text.
fn power(base: &str, exponent: f64) -> String {
    match exponent {
        0.0 => "1.0".into(),
        1.0 => base.into(),
        2.0 => format!("({base} * {base})"),
        0.5 => format!("sqrt({base})"),
        -1.0 => format!("(1.0 / {base})"),
        p => format!("pow({base}, {:?})", p as f32),
    }
}

/// The shader of a step of the update.
fn step(majorizer: Majorizer, single: bool) -> Result<Shader> {
    let finish = match single {
        true => {
            "// Only what is not finite is brought back to the interval.\n\
             if (bitcast<u32>(moved) & 0x7f800000u) != 0x7f800000u {\n    change = moved;\n} else {\n    change = MOST;\n}"
        }
        false => "change = clamp(moved, LEAST, MOST);",
    };
    let indent = |text: &str| -> String { text.lines().map(|l| format!("    {l}\n")).collect() };
    let change = match majorizer {
        Majorizer::Power { .. } => {
            let gamma = majorizer.gamma().unwrap_or(1.0);
            let (at_zero, at_infinity) =
                if gamma > 0.0 { ("0.0", "MOST") } else { ("MOST", "0.0") };
            let mut text =
                "// Where no observed entry touches the factor's entry, both are 0.\n".to_string();
            text += "if a > 0.0 || b > 0.0 {\n";
            text += &format!("    var moved = {at_zero};\n");
            text += &format!(
                "    if b <= 0.0 {{\n        moved = {at_infinity};\n    }} else if a > 0.0 {{\n"
            );
            text += &format!(
                "        let quotient = a / b;\n        moved = {};\n    }}\n",
                power("quotient", gamma)
            );
            text + &indent(finish) + "}"
        }
        Majorizer::Log => {
            let mut text =
                "if b != 0.0 {\n    let moved = exp(clamp(a / b, -80.0, 80.0));\n".to_string();
            text += &indent(finish);
            text + "}"
        }
    };
    let powers = match (single, majorizer) {
        (true, _) => String::new(),
        (false, Majorizer::Power { p_a, p_b }) => {
            let power = |p: f64| match 1.0 + p {
                0.0 => "x".to_string(),
                e => format!("x * {}", power("change", e)),
            };
            format!(
                "let x = factors[at];\npowers[at] = {};\npowers[at + numbers.w] = {};",
                power(p_a),
                power(p_b)
            )
        }
        (false, Majorizer::Log) => "let x = factors[at] * change;\n\
             powers[at] = x;\n\
             powers[at + numbers.w] = x;\n\
             powers[at + 2u * numbers.w] = x * log(change);"
            .into(),
    };
    let mut template = include_str!("../../../shaders/step.wgsl").to_string();
    let mut bindings = vec![Access::Uniform, Access::Read, Access::Read, Access::ReadWrite];
    if single {
        template = template
            .replace("@group(0) @binding(4) var<storage, read_write> powers: array<f32>;\n", "");
    } else {
        bindings.push(Access::ReadWrite);
    }
    Ok(Shader {
        label: "step".into(),
        source: super::text::fill(&template, &[("change", change), ("powers", powers)])?,
        bindings,
        invocations: 64,
        workgroup_bytes: 0,
    })
}
