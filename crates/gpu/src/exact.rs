//! Exact steps under half the squared distance, as commands: coordinate descent on a group's quadratic
//! objective in place of majorization. The numerator comes from the pass; all else that the loss says about a
//! group is in Q, a contraction of the other factors. Where entries differ in what they count, every row has a Q of
//! its own, which the pass leaves (`masked`).

use std::sync::Arc;

use crate::masked::role_pass;
use crate::program::compiler::Compiler;
use crate::program::products::sums_indices;
use crate::program::recording::{
    Access, Binding, BufferId, BufferKind, Command, Dispatch, DispatchKind, Recording, RecordingId,
    Shader,
};
use crate::program::template::fill;
use crate::program::tuning::Tuning;
use crate::program::views::{TensorView, stride};
use crate::step::constraint_words;
use nneinfact_core::algebra::contract::Walk;
use nneinfact_core::algebra::quadratic::ROW_CYCLES;
use nneinfact_core::engine::Job;
use nneinfact_core::error::Result;
use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::plan::{Contraction, Coupling, Group, Quadratic, RoleTerm};
use nneinfact_shaders::CHUNK;

/// How often the factors of a group are cycled over, where there are several.
const CYCLES: usize = 3;
/// Threads of a workgroup that share a row at most, where the device allows as many; and threads of a
/// workgroup at least.
const LANES: u32 = 256;
const THREADS: usize = 64;

/// The exact objectives of all groups.
#[derive(Clone, Debug)]
pub(crate) struct ExactObjectives {
    /// Whether every row of an output has a Q of its own.
    pub by_rows: bool,
    /// For every group.
    pub of: Arc<[Quadratic]>,
}

impl ExactObjectives {
    /// `None` where steps are majorized: a form is too large to write down, neighbouring entries are tied, or data with
    /// weights are streamed.
    pub fn new(job: &Job, tuning: &Tuning) -> Option<ExactObjectives> {
        let weighted = job.data.weights().is_some();
        // A copy of the weights has no room where the data have none, but majorizing has no place for data
        // below 0.
        let no_room = weighted && tuning.stream.is_some() && !job.data.has_negative();
        if !job.exact || no_room || job.differences.iter().any(Option::is_some) {
            return None;
        }
        let by_rows = weighted || !job.data.is_all_train();
        let shapes = job.plan.shapes();
        let objective = |group: &Group| match by_rows {
            true => {
                role_pass(shapes, group, RoleTerm::Pairs, 0).ok()?;
                // How large it is was looked at before.
                Quadratic::by_rows(shapes, group, f64::INFINITY)
            }
            false => Quadratic::new(shapes, group),
        };
        let of: Option<Vec<Quadratic>> = job.plan.groups().iter().map(objective).collect();
        Some(ExactObjectives { by_rows, of: of?.into() })
    }
}

/// Buffers of exact steps.
#[derive(Clone, Copy)]
pub(crate) struct ExactBuffers {
    /// Q of a group.
    pub gram: BufferId,
    /// The quadratic forms of a factor.
    square: BufferId,
    /// Which latent indices of a factor another factor has zeros alone of.
    asleep: BufferId,
}

impl Compiler<'_> {
    /// The update of a group by exact steps.
    pub(crate) fn exact_update(
        &mut self,
        group: usize,
        quadratic: &Quadratic,
    ) -> Result<RecordingId> {
        let members = self.plan.groups()[group].factors.clone();
        let mut recording = Recording { label: format!("update {group}"), commands: Vec::new() };
        let commands = &mut recording.commands;
        let buffers = self.exact_buffers();
        let gram = match self.forms_of_rows(group) {
            Some(forms) => forms,
            None => self.gram_of_others(commands, quadratic)?,
        };
        let cycles = if members.len() > 1 { CYCLES } else { 1 };
        for cycle in 0..cycles {
            for (at, &l) in members.iter().enumerate() {
                let coupling = &quadratic.factors[at];
                let co_operands: Vec<TensorView> =
                    members.iter().filter(|&&m| m != l).map(|&m| self.factor(m)).collect();
                self.linear_terms(commands, group, at, &co_operands)?;
                let form = &coupling.contraction;
                let square = self.exact_tensor(&quadratic.shapes, buffers.square, form.output());
                let inputs = twice(vec![gram.clone()], &co_operands, form);
                let shapes = &quadratic.shapes;
                self.contract_of(commands, shapes, form, &inputs, &square, 1.0, false)?;
                let idles = self.asleep(commands, l, coupling, buffers)?;
                self.largest_entries(commands, l)?;
                // A sweep halves idle entries once.
                let idle = idles.then_some(cycle == 0);
                self.descend(commands, (l, coupling), buffers, idle)?;
            }
        }
        Ok(self.record(recording))
    }

    /// Q of a group, from the factors outside it.
    fn gram_of_others(
        &mut self,
        commands: &mut Vec<Command>,
        quadratic: &Quadratic,
    ) -> Result<TensorView> {
        let buffer = self.exact_buffers().gram;
        let others: Vec<TensorView> = quadratic.others.iter().map(|&l| self.factor(l)).collect();
        let gram = self.exact_tensor(&quadratic.shapes, buffer, quadratic.gram.output());
        let inputs = twice(Vec::new(), &others, &quadratic.gram);
        self.contract_of(commands, &quadratic.shapes, &quadratic.gram, &inputs, &gram, 1.0, false)?;
        Ok(gram)
    }

    /// The Q of every row of a group's output, which its pass leaves; `None` where there is one for all.
    pub(crate) fn forms_of_rows(&mut self, group: usize) -> Option<TensorView> {
        let exact = self.exact.clone().filter(|exact| exact.by_rows)?;
        let (quadratic, buffer) = (&exact.of[group], self.exact_buffers().gram);
        Some(self.exact_tensor(&quadratic.shapes, buffer, quadratic.gram.output()))
    }

    fn exact_buffers(&mut self) -> ExactBuffers {
        let program = &mut self.program;
        *self.exact_buffers.get_or_insert_with(|| ExactBuffers {
            gram: program.add_scratch("the other factors' product with itself", 1),
            square: program.add_scratch("quadratic forms of a factor", 1),
            asleep: program.add_scratch("latent indices that lie idle", 1),
        })
    }

    /// A tensor in a buffer that has room for it.
    fn exact_tensor(&mut self, shapes: &Shapes, buffer: BufferId, indices: &[Index]) -> TensorView {
        self.grow(buffer, shapes.sizes(indices).iter().product());
        TensorView { buffer, base: 0, indices: indices.to_vec(), half: None }
    }

    /// The numerator contracted with the other factors of the group, in the factor's order.
    fn linear_terms(
        &mut self,
        commands: &mut Vec<Command>,
        group: usize,
        at: usize,
        co_operands: &[TensorView],
    ) -> Result<()> {
        let members = &self.plan.groups()[group];
        let indices = sums_indices(self.plan, group).to_vec();
        let buffer = self.buffers.sums;
        let mut inputs = vec![TensorView { buffer, base: 0, indices, half: None }];
        inputs.extend(co_operands.iter().cloned());
        let out = TensorView {
            buffer: self.buffers.quotients,
            base: 0,
            ..self.factor(members.factors[at])
        };
        self.contract(commands, &members.updates[at], &inputs, &out, 1.0, false)
    }

    /// Finds the latent indices of a factor of which another one that is fitted has zeros alone, for
    /// [`descend`](Self::descend). `false` where there are none, or no penalty asks for them.
    fn asleep(
        &mut self,
        commands: &mut Vec<Command>,
        l: usize,
        coupling: &Coupling,
        buffers: ExactBuffers,
    ) -> Result<bool> {
        let shapes = self.shapes;
        let factors = shapes.model().factors();
        let shares = |m: &usize| {
            *m != l
                && !self.constraints[*m].fixed
                && factors[*m].iter().any(|x| coupling.latent.contains(x))
        };
        let others: Vec<usize> = (0..factors.len()).filter(shares).collect();
        if self.constraints[l].penalty.is_none() || others.is_empty() {
            return Ok(false);
        }
        let size = |indices: &[Index]| shapes.sizes(indices).iter().product::<usize>();
        let (k, batches) = (size(&coupling.latent), size(&coupling.batch));
        let fold = self.fold(k);
        let mut words = vec![fold[0], batches as u32, 0, 0];
        let mut offsets = Vec::new();
        let mut work = (k * batches) as f64;
        for &m in &others {
            let own = &factors[m];
            let alone: Vec<Index> =
                own.iter().copied().filter(|x| !coupling.latent.contains(x)).collect();
            let slices = offsets.len();
            offsets.extend(places(shapes, own, &coupling.latent));
            let entries = offsets.len();
            offsets.extend(places(shapes, own, &alone));
            let about = [self.places[m], slices, entries, offsets.len() - entries];
            words.extend(about.map(|n| n as u32));
            work += 3.0 * (k * about[3]) as f64;
        }
        let offsets = self.exact_offsets(offsets);
        self.grow(buffers.asleep, k);
        let threads = self.limits.most_threads(LANES);
        let words_of_shader = [
            ("k", format!("{k}u")),
            ("others", format!("{}u", others.len())),
            ("threads", format!("{threads}u")),
        ];
        let read = Access::Read;
        let shader = self.shader(Shader {
            label: "latent indices that lie idle".into(),
            source: fill(nneinfact_shaders::ASLEEP, &[], &words_of_shader)?,
            bindings: vec![Access::Uniform, read, read, read, Access::ReadWrite],
            invocations: threads,
            workgroup_bytes: 4 * threads,
        });
        let bound = [self.buffers.factors, buffers.square, offsets, buffers.asleep];
        let mut bindings = vec![self.words(&words)];
        bindings.extend(bound.map(Binding::Whole));
        commands.push(Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Small,
            bindings,
            workgroups: fold,
            work,
        }));
        Ok(true)
    }

    /// Runs `descend.wgsl` on all rows of a factor. `idle` says whether idle entries are halved; `None` where there
    /// are no such entries.
    fn descend(
        &mut self,
        commands: &mut Vec<Command>,
        (l, coupling): (usize, &Coupling),
        buffers: ExactBuffers,
        idle: Option<bool>,
    ) -> Result<()> {
        let shapes = self.shapes;
        let size = |indices: &[Index]| shapes.sizes(indices).iter().product::<usize>();
        let (batches, batch_rows) = (size(&coupling.batch), size(&coupling.rows));
        let (rows, k) = (batches * batch_rows, size(&coupling.latent));
        let own = &shapes.model().factors()[l];
        let mut offsets =
            places(shapes, own, &[coupling.batch.as_slice(), &coupling.rows].concat());
        offsets.extend(places(shapes, own, &coupling.latent));
        let offsets = self.exact_offsets(offsets);
        let (shader, together) = self.descend_shader(k, idle.is_some())?;
        let shader = self.shader(shader);
        let [strength, lower, upper, _] =
            constraint_words(&self.constraints[l], self.job.loss.curvature_constant());
        let linear = self.constraints[l].penalty.is_some_and(|penalty| penalty.power() == 1.0);
        let penalties = if linear { [strength, 0.0] } else { [0.0, strength] };
        // A product of q and a row to begin with, and a step of each entry in every cycle.
        let work = 14.0 * (k * k) as f64;
        let most = ((self.tuning.work / work) as usize / together).max(1) * together;
        for first in (0..rows).step_by(most) {
            let count = most.min(rows - first);
            let fold = self.fold(count.div_ceil(together));
            let mut words: Vec<u32> = [
                first,
                count,
                fold[0] as usize,
                batch_rows,
                self.places[l],
                self.factor_size(l).div_ceil(CHUNK),
                self.largest_places[l],
                l,
            ]
            .map(|n| n as u32)
            .to_vec();
            words.extend([penalties[0], penalties[1], lower, upper].map(f32::to_bits));
            words.extend([rows as u32, u32::from(idle == Some(true)), 0, 0]);
            let b = &self.buffers;
            let bound = [b.factors, b.quotients, buffers.square, offsets, b.largest, b.broken];
            let mut bindings = vec![self.words(&words)];
            bindings.extend(bound.map(Binding::Whole));
            bindings.extend(idle.map(|_| Binding::Whole(buffers.asleep)));
            commands.push(Command::Dispatch(Dispatch {
                shader,
                kind: DispatchKind::Small,
                bindings,
                workgroups: fold,
                work: work * count as f64,
            }));
        }
        Ok(())
    }

    /// A buffer of these places, one for all that have the same.
    fn exact_offsets(&mut self, offsets: Vec<usize>) -> BufferId {
        let words: Vec<u32> = offsets.into_iter().map(|n| n as u32).collect();
        let content: Vec<u8> = bytemuck::cast_slice(&words).to_vec();
        let label = "places of rows and entries";
        let same = |buffer: &crate::program::recording::Buffer| {
            buffer.label == label && buffer.content == content
        };
        if let Some(at) = self.program.buffers.iter().position(same) {
            return BufferId(at);
        }
        let id = self.program.add_buffer(label, content.len() as u64, BufferKind::Storage);
        self.program.buffers[id.0].content = content;
        id
    }

    /// The shader for rows of so many entries, and how many rows a workgroup has.
    fn descend_shader(&self, k: usize, idle: bool) -> Result<(Shader, usize)> {
        let most = self.limits.most_threads(LANES) as usize;
        let lanes = k.next_power_of_two().min(most);
        let threads = THREADS.min(most).max(lanes);
        let rows = threads / lanes;
        let words = [
            ("k", format!("{k}u")),
            ("lanes", format!("{lanes}u")),
            ("rows", format!("{rows}u")),
            ("threads", format!("{threads}u")),
            ("own", format!("{}u", k.div_ceil(lanes))),
            ("shared_entries", format!("{}", rows * k)),
            ("steps", format!("{}", 2 * rows)),
            ("cycles", format!("{ROW_CYCLES}u")),
        ];
        let (read, written) = (Access::Read, Access::ReadWrite);
        let mut bindings = vec![Access::Uniform, written, read, read, read, read, written];
        bindings.extend(idle.then_some(read));
        let shader = Shader {
            label: "descend".into(),
            source: fill(nneinfact_shaders::DESCEND, &[("idle", idle)], &words)?,
            bindings,
            invocations: threads as u32,
            workgroup_bytes: 4 * (2 * threads + rows * k + 2 * rows) as u32,
        };
        Ok((shader, rows))
    }
}

/// The inputs of a contraction that takes some tensors twice, the second time under other indices.
pub(crate) fn twice(
    first: Vec<TensorView>,
    factors: &[TensorView],
    contraction: &Contraction,
) -> Vec<TensorView> {
    let all = first.into_iter().chain(factors.iter().cloned()).chain(factors.iter().cloned());
    all.zip(contraction.inputs())
        .map(|(view, indices)| TensorView { indices: indices.clone(), ..view })
        .collect()
}

/// Where each value of some indices begins in a tensor.
fn places(shapes: &Shapes, tensor: &[Index], indices: &[Index]) -> Vec<usize> {
    let sizes = shapes.sizes(indices);
    let strides: Vec<usize> = indices.iter().map(|&x| stride(shapes, tensor, x)).collect();
    let mut walk = Walk::new(&sizes, &strides);
    (0..sizes.iter().product::<usize>())
        .map(|_| {
            let at = walk.offset();
            walk.skip(1);
            at
        })
        .collect()
}
