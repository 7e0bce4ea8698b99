//! What the rooms of passes and updates share while they compile a job: its plan, the program so
//! far, and the buffers of the fit.

use std::collections::HashMap;

use nneinfact_core::data::Implicit;
use nneinfact_core::engine::{Constraint, Job, LossSlot};
use nneinfact_core::error::Result;
use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::plan::Plan;
use nneinfact_shaders::CHUNK;

use super::buffers::{FitBuffers, FitSizes, SLOT_SUMS, Slab};
use super::products::{ProductLayout, sums_indices};
use super::recording::{
    Access, Binding, BufferId, BufferKind, Command, Dispatch, DispatchKind, GpuLimits, Program,
    Recording, RecordingId, Shader, ShaderId, Window,
};
use super::template::fill;
use super::temporaries::Temporaries;
use super::tuning::Tuning;
use super::views::TensorView;
use crate::dense::entries::EntryFormat;
use crate::dense::geometry::DataPart;
use crate::exact::{ExactBuffers, ExactObjectives};
use crate::masked::RoleLists;
use crate::penalty_sums::PenaltySums;

/// Bytes that the losses of workgroups may take before they are added up.
const MOST_LOSSES: u64 = 16 << 20;

/// What a pass runs where slabs are streamed through the device.
#[derive(Clone, Debug)]
pub(crate) struct StreamedPass {
    /// For each slab.
    pub slabs: Vec<RecordingId>,
    /// After the last.
    pub end: RecordingId,
}

/// A job on its way to a program.
pub(crate) struct Compiler<'a> {
    pub job: &'a Job,
    pub plan: &'a Plan,
    pub shapes: &'a Shapes,
    pub limits: &'a GpuLimits,
    pub tuning: &'a Tuning,
    /// How the data are stored, as far as shaders depend on it.
    pub format: EntryFormat,
    /// What holds for the factors on the device.
    pub constraints: Vec<Constraint>,
    /// What each factor is multiplied with on the device: a power of two.
    pub scales: Vec<f64>,
    /// Where each factor begins among the factors, and one more for their end.
    pub places: Vec<usize>,
    /// The penalised factors, where their sums of powers begin, and how many of these a slot has.
    pub penalty_sums: Vec<PenaltySums>,
    pub penalties_at: usize,
    pub penalty_words: usize,
    pub program: Program,
    pub buffers: FitBuffers,
    pub product_layout: ProductLayout,
    /// Where the largest entries of the chunks of each factor are.
    pub largest_places: Vec<usize>,
    pub slabs: Vec<Slab>,
    pub streamed_passes: Vec<StreamedPass>,
    /// Where steps are exact, the objectives of all groups.
    pub exact: Option<ExactObjectives>,
    pub exact_buffers: Option<ExactBuffers>,
    /// Lists for sums over the entries of each role.
    pub role_lists: RoleLists,
    shaders: HashMap<Shader, ShaderId>,
    /// The last of the uniform buffers.
    uniforms: BufferId,
    /// What steps of contractions leave for the next.
    temporaries: Vec<BufferId>,
    pub small_temporaries: Temporaries,
}

/// Where each of some sizes begins, and one more for the end.
fn running_sums(sizes: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut sums = vec![0];
    for size in sizes {
        sums.push(sums[sums.len() - 1] + size);
    }
    sums
}

impl<'a> Compiler<'a> {
    /// Sets out on a job whose factors are multiplied with `scales` on the device.
    pub fn new(
        job: &'a Job,
        limits: &'a GpuLimits,
        tuning: &'a Tuning,
        scales: Vec<f64>,
    ) -> Compiler<'a> {
        let plan: &Plan = &job.plan;
        let shapes = plan.shapes();
        let sizes: Vec<usize> = (0..shapes.model().factors().len())
            .map(|l| shapes.factor(l).iter().product())
            .collect();
        let places = running_sums(sizes.iter().copied());
        let largest_places = running_sums(sizes.iter().map(|size| size.div_ceil(CHUNK)));
        let product_layout = ProductLayout::new(plan, limits.binding_bytes);
        let objective = job.objective_unit();
        let rescaled = |(constraint, scale): (&Constraint, &f64)| {
            // Factors on the device are the user's times `scales`, the objective is in the
            // engine's unit.
            constraint.rescaled(1.0 / scale, objective)
        };
        let constraints: Vec<Constraint> =
            job.constraints.iter().zip(&scales).map(rescaled).collect();
        let (penalty_sums, penalty_words) = PenaltySums::new(&constraints, &places);
        let volume = |indices: &[Index]| shapes.sizes(indices).iter().product::<usize>();
        let groups = 0..plan.groups().len();
        let members = plan.groups().iter().flat_map(|g| &g.factors);
        let mut program = Program::default();
        let uniforms = program.add_buffer("uniforms", 0, BufferKind::Uniform);
        let fit_sizes = FitSizes {
            parameters: places[places.len() - 1],
            products: product_layout.words(),
            numerator: groups.map(|group| volume(sums_indices(plan, group))).max().unwrap_or(1),
            factor: members.map(|&l| sizes[l]).max().unwrap_or(1),
            penalties: penalty_words,
            chunks: largest_places[largest_places.len() - 1],
        };
        let buffers = FitBuffers::new(&mut program, &fit_sizes);
        let mut compiler = Compiler {
            format: match &job.stored {
                Some(list) => {
                    EntryFormat::zeros(&job.data, &job.loss, list.implicit() == Implicit::ByRole)
                }
                None => EntryFormat::new(&job.data, &job.loss),
            },
            job,
            plan,
            shapes,
            limits,
            tuning,
            constraints,
            scales,
            places,
            penalty_sums,
            penalties_at: LossSlot::COUNT * SLOT_SUMS + 1,
            penalty_words,
            program,
            buffers,
            product_layout,
            largest_places,
            slabs: Vec::new(),
            streamed_passes: Vec::new(),
            exact: ExactObjectives::new(job, tuning),
            exact_buffers: None,
            role_lists: RoleLists::default(),
            shaders: HashMap::new(),
            uniforms,
            temporaries: Vec::new(),
            small_temporaries: Temporaries::default(),
        };
        if !plan.passes().is_empty() {
            compiler.lay_out_data();
        }
        compiler
    }

    /// Makes a buffer at least this long.
    pub fn grow(&mut self, buffer: BufferId, words: usize) {
        self.program.grow(buffer, words);
    }

    /// The temporary of a step of a contraction.
    pub fn temporary(&mut self, step: usize, words: usize) -> BufferId {
        while self.temporaries.len() <= step {
            let label = format!("temporary {}", self.temporaries.len() + 1);
            self.temporaries.push(self.program.add_scratch(&label, 1));
        }
        self.grow(self.temporaries[step], words);
        self.temporaries[step]
    }

    /// The shader, added to the program if it is not there yet.
    pub fn shader(&mut self, shader: Shader) -> ShaderId {
        let next = ShaderId(self.program.shaders.len());
        let id = *self.shaders.entry(shader.clone()).or_insert(next);
        if id == next {
            self.program.shaders.push(shader);
        }
        id
    }

    /// Adds a recording to the program.
    pub fn record(&mut self, recording: Recording) -> RecordingId {
        self.program.recordings.push(recording);
        RecordingId(self.program.recordings.len() - 1)
    }

    /// What a recording is to do.
    pub fn recorded(&self, id: RecordingId) -> Vec<Command> {
        self.program.recordings[id.0].commands.clone()
    }

    /// Binds a part of a uniform buffer that holds these bytes.
    pub fn uniform(&mut self, bytes: &[u8]) -> Binding {
        let align = self.limits.uniform_align.max(16) as usize;
        let taken = self.program.buffers[self.uniforms.0].content.len().next_multiple_of(align);
        let size = bytes.len().next_multiple_of(16);
        let full = (taken + size) as u64 > self.limits.buffer_bytes && taken > 0;
        if full {
            self.uniforms = self.program.add_buffer("uniforms", 0, BufferKind::Uniform);
        }
        let offset = if full { 0 } else { taken };
        let content = &mut self.program.buffers[self.uniforms.0].content;
        content.resize(offset, 0);
        content.extend(bytes);
        content.resize(offset + size, 0);
        let (offset, bytes) = (offset as u64, size as u64);
        Binding::Part(Window { buffer: self.uniforms, offset, bytes })
    }

    /// As [`uniform`](Self::uniform), of words.
    pub fn words(&mut self, words: &[u32]) -> Binding {
        self.uniform(bytemuck::cast_slice(words))
    }

    /// Workgroups folded into two dimensions.
    pub fn fold(&self, count: usize) -> [u32; 3] {
        let most = self.limits.workgroups as usize;
        let x = count.clamp(1, most);
        [x as u32, count.div_ceil(x).max(1) as u32, 1]
    }

    /// The entries of a factor.
    pub fn factor_size(&self, l: usize) -> usize {
        self.places[l + 1] - self.places[l]
    }

    /// A factor.
    pub fn factor(&self, l: usize) -> TensorView {
        TensorView {
            buffer: self.buffers.factors,
            base: self.places[l],
            indices: self.shapes.model().factors()[l].clone(),
            half: None,
        }
    }

    /// A command that copies all factors from one buffer to another.
    pub fn copied(&self, from: BufferId, to: BufferId) -> Result<Command> {
        let words = self.places[self.places.len() - 1];
        let copy = Command::Copy {
            from,
            from_offset: 0,
            to,
            to_offset: 0,
            bytes: 4 * words.max(1) as u64,
        };
        Ok(self.or_jointly(copy, vec![self.copy_operation(from, to, words)?]))
    }

    /// Where the data are streamed, the most entries of a slab. Stored entries stay on the device.
    pub fn streamed(&self) -> Option<usize> {
        self.tuning.stream.filter(|_| self.job.stored.is_none())
    }

    /// Cuts the data into slabs that fit a binding, and gives each its buffers.
    fn lay_out_data(&mut self) {
        let strides = self.plan.data().strides.clone();
        let most = self.limits.binding_bytes.min(self.limits.buffer_bytes)
            / self.format.bytes_per_entry().max(1);
        // Whole words, also of sixteen roles.
        let most = (most as usize).saturating_sub(32).max(1);
        let streamed = self.streamed();
        let most = streamed.map_or(most, |entries| entries.clamp(1, most));
        for part in DataPart::slabs(self.shapes, &strides, most) {
            let slab = match self.slabs.len().checked_sub(2).filter(|_| streamed.is_some()) {
                // The buffers of the last but one, of which the device is done soonest.
                Some(before) => {
                    let before = self.slabs[before].clone();
                    before.sharing(&mut self.program, part, &self.format)
                }
                None => Slab::new(&mut self.program, part, &self.format),
            };
            self.slabs.push(slab);
        }
    }

    /// Adds the losses of this many workgroups to those of the slot.
    pub fn add_losses(
        &mut self,
        commands: &mut Vec<Command>,
        slot: Option<LossSlot>,
        losses: usize,
    ) -> Result<()> {
        let Some(slot) = slot else { return Ok(()) };
        self.grow(self.buffers.losses, 3 * losses);
        let threads = self.limits.most_threads(256);
        let uniforms = self.words(&[losses as u32, (slot as usize * SLOT_SUMS) as u32, 0, 0]);
        let words = [("lanes", format!("{}u", threads / 32))];
        let shader = self.shader(Shader {
            label: "losses".into(),
            source: fill(nneinfact_shaders::SUM_LOSSES, &[], &words)?,
            bindings: vec![Access::Uniform, Access::Read, Access::ReadWrite],
            invocations: threads,
            workgroup_bytes: 4 * threads,
        });
        let (losses_of, results) = (self.buffers.losses, self.buffers.results);
        let dispatch = Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Small,
            bindings: vec![uniforms, Binding::Whole(losses_of), Binding::Whole(results)],
            workgroups: [3, 1, 1],
            work: 3.0 * losses as f64,
        });
        let operations = self.losses_operations(losses, slot as usize * SLOT_SUMS);
        commands.push(self.or_jointly(dispatch, operations));
        Ok(())
    }

    /// Sets the losses of a slot to 0.
    pub fn clear_losses(&self, commands: &mut Vec<Command>, slot: Option<LossSlot>) -> Result<()> {
        let Some(slot) = slot else { return Ok(()) };
        self.clear(commands, self.buffers.results, slot as usize * SLOT_SUMS, SLOT_SUMS)
    }

    /// Sets so many words of a buffer to 0, from one on.
    pub fn clear(
        &self,
        commands: &mut Vec<Command>,
        buffer: BufferId,
        first: usize,
        count: usize,
    ) -> Result<()> {
        let (offset, bytes) = (4 * first as u64, 4 * count as u64);
        let operation = self.clear_operation(buffer, first, count)?;
        commands.push(self.or_jointly(Command::Clear { buffer, offset, bytes }, vec![operation]));
        Ok(())
    }

    /// How many sums of losses of workgroups there is room for before they are added up.
    pub fn losses_room(&self) -> usize {
        (self.limits.binding_bytes.min(MOST_LOSSES) / 12) as usize
    }
}
