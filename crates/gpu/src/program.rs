//! From a job to a program: every buffer, shader and command of a fit. What a pass does is in
//! [`dense`](super::dense) and [`sampled`](super::sampled), what an update does in
//! [`updates`](super::updates) and [`penalties`](super::penalties).

use std::collections::{HashMap, HashSet};

use ndarray::ArrayD;

use super::cells::Cells;
use super::contract::View;
use super::geometry::Part;
use super::penalties::{PenaltySums, rules};
use super::recording::{
    Access, Buffer, BufferId, BufferKind, Command, Dispatch, GpuLimits, Program, Recording,
    RecordingId, Shader, ShaderId, Window,
};
use super::text::fill;
use nneinfact_core::data::Implicit;
use nneinfact_core::engine::{Constraint, Job, LossSlot};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::plan::{Contraction, Plan};

/// Sums of losses that a pass leaves for each role: the host adds them in double precision.
pub(super) const LOSS_SUMS: usize = 32;
/// Sums of one slot.
pub(super) const SLOT_SUMS: usize = 3 * LOSS_SUMS;

/// Bytes that the losses of workgroups may take before they are added up.
const MOST_LOSSES: u64 = 16 << 20;

/// Choices that change speed and memory but no result beyond rounding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
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
    /// Where [`Engine::copy`](nneinfact_core::engine::Engine::copy) keeps factors.
    pub plain: BufferId,
    pub origin: BufferId,
    pub remembered: BufferId,
    /// What each factor is multiplied with on the device: a power of two.
    pub scales: Vec<f64>,
    /// Numerator, then denominator of the last pass.
    pub sums: BufferId,
    /// Sums of losses by slot, then a word that says which factor is not finite (from 1), then sums
    /// of powers of penalised factors by slot.
    pub results: BufferId,
    /// Words of the results.
    pub result_words: usize,
    /// The penalised factors, where their sums of powers begin, and how many of these a slot has.
    pub penalties: Vec<PenaltySums>,
    pub penalties_at: usize,
    pub penalty_words: usize,
    /// The weights of the extrapolation.
    pub weights: BufferId,
    pub slabs: Vec<Slab>,
    /// Raises the start above the factor floor.
    pub begin: RecordingId,
    pub passes: Vec<RecordingId>,
    /// Where slabs take turns, what follows on the beginning of each pass; else empty.
    pub turns: Vec<Turns>,
    /// For each pass, which of its dispatches work on the data and not on small tensors.
    pub reads_data: Vec<Vec<bool>>,
    pub updates: Vec<RecordingId>,
    /// A cycle over the trades of scale, where there are any.
    pub balance: Option<RecordingId>,
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

/// Powers of two, one for each factor, that bring their largest entries to the same size and their
/// product to 1 / `unit`: single precision holds neither very large nor very small factors, and ŷ
/// depends on their product alone. `start` may be empty, where a program is looked at and not run.
fn scales(start: &[ArrayD<f64>], factors: usize, unit: f64) -> Vec<f64> {
    let exponents: Vec<i32> = (0..factors)
        .map(|l| {
            let entries = start.get(l).into_iter().flatten();
            let largest = entries.copied().fold(0.0, f64::max);
            if largest > 0.0 && largest.is_finite() { largest.log2().floor() as i32 } else { 0 }
        })
        .collect();
    let goal = exponents.iter().sum::<i32>() - unit.log2().round() as i32;
    let count = exponents.len().max(1) as i32;
    exponents
        .iter()
        .enumerate()
        .map(|(l, e)| {
            // The remainder goes to the first factors.
            let share = goal.div_euclid(count) + i32::from((l as i32) < goal.rem_euclid(count));
            2f64.powi(share - e)
        })
        .collect()
}

/// Stored products of factors, by the factors and the order of the letters.
pub(super) type Key = (Vec<usize>, Vec<Index>);

/// The products that the passes of a group read.
fn keys(plan: &Plan, group: usize) -> Vec<Key> {
    let mut keys = Vec::new();
    if let Some(pass) = plan.sparse_passes().get(group) {
        let tables = std::iter::once(&pass.output).chain(&pass.operands);
        keys.extend(tables.map(|t| (t.factors.clone(), t.contraction.output().to_vec())));
    }
    if let Some(pass) = plan.passes().get(group) {
        let operands = std::iter::once(&pass.output).chain(&pass.operands);
        keys.extend(operands.map(|o| (o.factors.clone(), o.indices.clone())));
    }
    keys
}

/// The letters of a group's numerator and denominator, in their order in memory.
pub(super) fn sums_letters(plan: &Plan, group: usize) -> &[Index] {
    match plan.sparse_passes().get(group) {
        Some(pass) => &pass.indices,
        None => &plan.passes()[group].output.indices,
    }
}

pub(super) struct Compiler<'a> {
    pub(super) job: &'a Job,
    pub(super) plan: &'a Plan,
    pub(super) shapes: &'a Shapes,
    pub(super) limits: &'a GpuLimits,
    pub(super) tuning: &'a Tuning,
    pub(super) cells: Cells,
    /// What holds for the factors on the device.
    pub(super) rules: Vec<Constraint>,
    pub(super) scales: Vec<f64>,
    pub(super) penalty_sums: Vec<PenaltySums>,
    pub(super) penalties_at: usize,
    pub(super) penalty_words: usize,
    pub(super) program: Program,
    pub(super) shaders: HashMap<Shader, ShaderId>,
    /// The last of the uniform buffers.
    pub(super) numbers: BufferId,
    pub(super) places: Vec<usize>,
    pub(super) factors: BufferId,
    pub(super) lambda: BufferId,
    pub(super) powers: BufferId,
    pub(super) plain: BufferId,
    pub(super) origin: BufferId,
    pub(super) remembered: BufferId,
    pub(super) products: BufferId,
    pub(super) product_places: HashMap<Key, usize>,
    /// Whether every product has a place of its own, so that it may outlive a pass.
    pub(super) lasting: bool,
    pub(super) sums: BufferId,
    pub(super) quotients: BufferId,
    pub(super) partial: BufferId,
    pub(super) entries: [BufferId; 2],
    pub(super) losses: BufferId,
    pub(super) results: BufferId,
    pub(super) largest: BufferId,
    pub(super) largest_places: Vec<usize>,
    pub(super) broken: BufferId,
    pub(super) weights: BufferId,
    pub(super) temporaries: Vec<BufferId>,
    pub(super) slabs: Vec<Slab>,
    pub(super) turns: Vec<Turns>,
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
        let volume = |letters: &[Index]| shapes.sizes(letters).iter().product::<usize>();
        let mut product_places: HashMap<Key, usize> = HashMap::new();
        let mut end = 0;
        let groups = 0..plan.groups().len();
        for key in groups.clone().flat_map(|group| keys(plan, group)) {
            let size = volume(&key.1);
            product_places.entry(key).or_insert_with(|| {
                end += size;
                end - size
            });
        }
        let lasting = 4 * end as u64 <= limits.binding_bytes;
        if !lasting {
            product_places.clear();
            let taken = |group| keys(plan, group).iter().map(|key| volume(&key.1)).sum();
            end = groups.clone().map(taken).max().unwrap_or(0);
        }
        let target = groups.map(|group| volume(sums_letters(plan, group))).max().unwrap_or(1);
        let widest = plan
            .groups()
            .iter()
            .flat_map(|g| &g.factors)
            .map(|&l| places[l + 1] - places[l])
            .max()
            .unwrap_or(1);

        let scales = match &job.scales {
            Some(given) if given.len() + 1 == places.len() => given.clone(),
            _ => scales(&job.start, places.len() - 1, job.unit),
        };
        let rules = rules(job, &scales);
        let (penalty_sums, penalty_words) = PenaltySums::new(&rules, &places);
        let penalties_at = LossSlot::COUNT * SLOT_SUMS + 1;

        let mut compiler = Compiler {
            rules,
            scales,
            penalty_sums,
            penalties_at,
            penalty_words,
            cells: match &job.stored {
                Some(list) => {
                    Cells::zeros(&job.data, &job.loss, list.implicit() == Implicit::ByRole)
                }
                None => Cells::new(&job.data, &job.loss),
            },
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
            origin: BufferId(0),
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
            weights: BufferId(0),
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
        c.origin = c.storage("the factors where a sweep began", parameters);
        c.remembered = c.storage("the remembered factors", parameters);
        c.products = c.storage("products of factors", end);
        c.sums = c.storage("numerator and denominator", 2 * target);
        c.quotients = c.storage("numerator and denominator of a factor", 2 * widest);
        // The sizes of these are known once all passes are compiled.
        c.partial = c.storage("partial sums", 1);
        c.entries = [c.storage("a of a part", 1), c.storage("b of a part", 1)];
        c.losses = c.storage("losses of workgroups", 1);
        c.results = c.storage("sums of losses", penalties_at + LossSlot::COUNT * penalty_words);
        let chunks = c.largest_places[c.largest_places.len() - 1];
        c.largest = c.storage("largest entries", chunks);
        c.broken = c.storage("the status", 1);
        c.weights = c.buffer("the weights", 16, BufferKind::Uniform);
        Ok(compiler)
    }

    fn run(mut self) -> Result<Compiled> {
        if !self.plan.passes().is_empty() {
            self.lay_out_data();
        }
        let begin = self.begin()?;
        let mut fresh = HashSet::new();
        let mut passes = Vec::new();
        let mut updates = Vec::new();
        for group in 0..self.plan.groups().len() {
            if group == 0 || !self.lasting {
                fresh.clear();
            }
            passes.push(match self.plan.sparse_passes().is_empty() {
                true => self.dense_pass(group, &mut fresh)?,
                false => self.sampled_pass(group, &mut fresh)?,
            });
            updates.push(self.update(group)?);
            let members = &self.plan.groups()[group].factors;
            fresh.retain(|key: &Key| !key.0.iter().any(|l| members.contains(l)));
        }
        let (factors, plain, origin) = (self.factors, self.plain, self.origin);
        let mark = self.copy("mark", &[(factors, plain), (factors, origin)]);
        let retreat = self.copy("retreat", &[(plain, factors), (plain, origin)]);
        let remember = self.copy("remember", &[(factors, self.remembered)]);
        let recall = self.copy("recall", &[(self.remembered, factors)]);
        let extrapolate = self.extrapolate()?;
        let balance = self.balance()?;
        let status = (LossSlot::COUNT * SLOT_SUMS * 4) as u64;
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
            plain: self.plain,
            origin: self.origin,
            remembered: self.remembered,
            scales: self.scales,
            sums: self.sums,
            results: self.results,
            result_words: self.penalties_at + LossSlot::COUNT * self.penalty_words,
            penalties: self.penalty_sums,
            penalties_at: self.penalties_at,
            penalty_words: self.penalty_words,
            weights: self.weights,
            slabs: self.slabs,
            turns: self.turns,
            begin,
            passes,
            updates,
            balance,
            mark,
            extrapolate,
            retreat,
            remember,
            recall,
            report,
        })
    }

    pub(super) fn buffer(&mut self, label: &str, bytes: u64, kind: BufferKind) -> BufferId {
        self.program.buffers.push(Buffer { label: label.into(), bytes, kind, content: Vec::new() });
        BufferId(self.program.buffers.len() - 1)
    }

    pub(super) fn storage(&mut self, label: &str, words: usize) -> BufferId {
        self.buffer(label, 4 * words.max(1) as u64, BufferKind::Storage)
    }

    /// Makes a buffer at least this long.
    pub(super) fn grow(&mut self, buffer: BufferId, words: usize) {
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

    pub(super) fn record(&mut self, recording: Recording) -> RecordingId {
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

    /// Where the data take turns, the most cells of a slab. A list of cells stays on the device.
    pub(super) fn streamed(&self) -> Option<usize> {
        self.tuning.stream.filter(|_| self.job.stored.is_none())
    }

    fn lay_out_data(&mut self) {
        let strides = self.plan.data().strides.clone();
        let most = self.limits.binding_bytes.min(self.limits.buffer_bytes)
            / self.cells.bytes_per_cell().max(1);
        // Whole words, also of sixteen roles.
        let most = (most as usize).saturating_sub(32).max(1);
        let streamed = self.streamed();
        let most = streamed.map_or(most, |cells| cells.clamp(1, most));
        for part in Part::slabs(self.shapes, &strides, most) {
            let cells = part.entries();
            let words =
                |kind: super::cells::Kind| (cells as u64 * kind.bytes()).div_ceil(4) as usize;
            if streamed.is_some() && self.slabs.len() >= 2 {
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

    fn copy(&mut self, label: &str, buffers: &[(BufferId, BufferId)]) -> RecordingId {
        let commands = buffers.iter().map(|&(from, to)| self.copied(from, to)).collect();
        self.record(Recording { label: label.into(), commands })
    }

    pub(super) fn copied(&self, from: BufferId, to: BufferId) -> Command {
        let bytes = self.program.buffers[from.0].bytes;
        Command::Copy { from, from_offset: 0, to, to_offset: 0, bytes }
    }

    /// A factor, or a part of the buffer of its powers.
    pub(super) fn factor(&self, l: usize, buffer: BufferId, part: usize, paired: bool) -> View {
        let parameters = self.places[self.places.len() - 1];
        View {
            buffer,
            base: self.places[l] + part * parameters,
            letters: self.shapes.model().factors()[l].clone(),
            half: paired.then_some(parameters),
        }
    }

    /// Adds the losses of this many workgroups to those of the slot.
    pub(super) fn add_losses(
        &mut self,
        commands: &mut Vec<Command>,
        slot: Option<LossSlot>,
        losses: usize,
    ) -> Result<()> {
        let Some(slot) = slot else { return Ok(()) };
        self.grow(self.losses, 3 * losses);
        let threads = self.limits.most_threads(256);
        let numbers = self.words(&[losses as u32, (slot as usize * SLOT_SUMS) as u32, 0, 0]);
        let shader = self.shader(Shader {
            label: "losses".into(),
            source: fill(nneinfact_shaders::LOSSES, &[("lanes", format!("{}u", threads / 32))])?,
            bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite],
            invocations: threads,
            workgroup_bytes: 4 * threads,
        });
        commands.push(Command::Dispatch(Dispatch {
            shader,
            bindings: vec![numbers, self.whole(self.losses), self.whole(self.results)],
            workgroups: [3, 1, 1],
            work: 3.0 * losses as f64,
        }));
        Ok(())
    }

    /// Forms a product that the passes of a group read, where it is not there yet; returns where it
    /// begins. `fresh` has those that are up to date.
    pub(super) fn product(
        &mut self,
        commands: &mut Vec<Command>,
        group: usize,
        key: Key,
        form: &Contraction,
        fresh: &mut HashSet<Key>,
    ) -> Result<usize> {
        let base = match self.lasting {
            true => self.product_places[&key],
            // The passes take turns.
            false => keys(self.plan, group)
                .iter()
                .take_while(|other| **other != key)
                .map(|other| self.shapes.sizes(&other.1).iter().product::<usize>())
                .sum(),
        };
        if fresh.insert(key.clone()) || !self.lasting {
            let inputs: Vec<View> =
                key.0.iter().map(|&l| self.factor(l, self.factors, 0, false)).collect();
            let out = View { buffer: self.products, base, letters: key.1, half: None };
            self.contract(commands, form, &inputs, &out, 1.0, false)?;
        }
        Ok(base)
    }

    /// Takes the losses of a slot to 0.
    pub(super) fn clear_losses(&self, commands: &mut Vec<Command>, slot: Option<LossSlot>) {
        if let Some(slot) = slot {
            commands.push(Command::Clear {
                buffer: self.results,
                offset: (4 * slot as usize * SLOT_SUMS) as u64,
                bytes: 4 * SLOT_SUMS as u64,
            });
        }
    }

    /// How many sums of losses of workgroups there is room for before they are added up.
    pub(super) fn losses_room(&self) -> usize {
        (self.limits.binding_bytes.min(MOST_LOSSES) / 12) as usize
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
        super::contract::steps(self, commands, self.shapes, contraction, inputs, out, scale, add)
    }
}
