//! From a job to a program: every buffer, shader and command of a fit. What passes do is in
//! [`dense::pass`](crate::dense::pass) and [`sparse::pass`](crate::sparse::pass), what updates do in
//! [`update`](crate::update) and [`constraints`](crate::constraints).

use super::buffers::{FitBuffers, SLOT_SUMS, Slab};
use super::compiler::{Compiler, StreamedPass};
use super::products::{FreshProducts, ProductKey};
use super::recording::{
    BufferId, BufferKind, Command, DispatchKind, GpuLimits, Program, Recording, RecordingId,
};
use super::tuning::Tuning;
use crate::course::Course;
use crate::exact::ExactObjectives;
use crate::penalty_sums::PenaltySums;
use nneinfact_core::engine::{Job, LossSlot, level_scales};
use nneinfact_core::error::{Error, Result};

/// A program with what the host needs to know to run it.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    pub program: Program,
    pub buffers: FitBuffers,
    /// Where each factor begins among the factors, and one more for their end.
    pub places: Vec<usize>,
    /// What each factor is multiplied with on the device: a power of two.
    pub scales: Vec<f64>,
    /// Words of the results.
    pub result_words: usize,
    /// The penalised factors, where their sums of powers begin, and how many of these a slot has.
    pub penalty_sums: Vec<PenaltySums>,
    pub penalties_at: usize,
    pub penalty_words: usize,
    /// Where steps are exact, the objectives of all groups.
    pub exact: Option<ExactObjectives>,
    /// Where passes leave the Q of every row, if they do.
    pub forms_of_rows: Option<BufferId>,
    pub slabs: Vec<Slab>,
    /// Clamps the start to the factor floor.
    pub begin: RecordingId,
    pub passes: Vec<RecordingId>,
    /// Where slabs are streamed, what follows on the beginning of each pass; else empty.
    pub streamed_passes: Vec<StreamedPass>,
    /// For each pass, what its dispatches work on.
    pub dispatch_kinds: Vec<Vec<DispatchKind>>,
    pub updates: Vec<RecordingId>,
    /// A cycle over the rescaling steps, where there are any.
    pub balance: Option<RecordingId>,
    /// The factors become the anchor, and the point where a sweep begins.
    pub set_anchor: RecordingId,
    pub extrapolate: RecordingId,
    /// The anchor becomes the factors, and the point where a sweep begins.
    pub return_to_anchor: RecordingId,
    pub save_snapshot: RecordingId,
    pub restore_snapshot: RecordingId,
    /// Copies the word of `broken` to the results and clears it.
    pub report: RecordingId,
    /// Sweeps that the host does not wait for, where the device can do them.
    pub course: Option<Course>,
}

impl Compiled {
    /// The penalties of a slot in the engine's unit, from all results.
    pub fn penalty(&self, found: &[f32], slot: usize) -> f64 {
        let first = self.penalties_at + slot * self.penalty_words;
        let slot = &found[first..first + self.penalty_words];
        self.penalty_sums.iter().map(|sums| sums.value(slot)).sum()
    }
}

/// Compiles a job.
///
/// # Errors
/// [`Error::Memory`] where a tensor is larger than what a shader of this device may see;
/// [`Error::Loss`] where a constant of the loss is out of the range of single precision.
pub(crate) fn compile(job: &Job, limits: &GpuLimits, tuning: &Tuning) -> Result<Compiled> {
    compile_expecting(job, limits, tuning, None)
}

/// The same where data stand in for others, of which rows list so many entries if some are withheld.
///
/// # Errors
/// As [`compile`].
pub(crate) fn compile_expecting(
    job: &Job,
    limits: &GpuLimits,
    tuning: &Tuning,
    listed: Option<u64>,
) -> Result<Compiled> {
    let factors = job.plan.shapes().model().factors().len();
    let scales = match &job.scales {
        Some(given) if given.len() == factors => given.clone(),
        _ => level_scales(&job.start, factors, job.unit),
    };
    let mut compiler = Compiler::new(job, limits, tuning, scales);
    compiler.role_lists.expect(listed);
    run(compiler)
}

fn run(mut compiler: Compiler<'_>) -> Result<Compiled> {
    let c = &mut compiler;
    let begin = c.begin()?;
    let mut fresh = FreshProducts::new();
    let mut passes = Vec::new();
    let mut updates = Vec::new();
    for group in 0..c.plan.groups().len() {
        if group == 0 || !c.product_layout.lasts() || c.job.steps_elsewhere {
            fresh.clear();
        }
        passes.push(match c.plan.sparse_passes().is_empty() {
            true => c.dense_pass(group, &mut fresh)?,
            false => c.sparse_pass(group, &mut fresh)?,
        });
        updates.push(match c.exact.clone() {
            Some(exact) => c.exact_update(group, &exact.of[group])?,
            None => c.update(group)?,
        });
        let members = &c.plan.groups()[group].factors;
        fresh.retain(|key: &ProductKey| !key.0.iter().any(|l| members.contains(l)));
    }
    let FitBuffers { factors, anchor, origin, snapshot, .. } = c.buffers;
    let set_anchor = copy(c, "set anchor", &[(factors, anchor), (factors, origin)])?;
    let return_to_anchor = copy(c, "return to anchor", &[(anchor, factors), (anchor, origin)])?;
    let save_snapshot = copy(c, "save snapshot", &[(factors, snapshot)])?;
    let restore_snapshot = copy(c, "restore snapshot", &[(snapshot, factors)])?;
    let extrapolate = c.extrapolate()?;
    let balance = c.balance()?;
    let report = report(c);
    let course = c.course(&passes, &updates)?;
    c.join()?;
    let course = c.stoppable(course);
    for buffer in &mut c.program.buffers {
        buffer.bytes = buffer.bytes.max(buffer.content.len() as u64);
    }
    check_bindings(&c.program, c.limits)?;
    let dispatch_kinds = passes.iter().map(|id| kinds(&c.program.recordings[id.0])).collect();
    let by_rows = c.exact.as_ref().is_some_and(|exact| exact.by_rows);
    let forms_of_rows = c.exact_buffers.filter(|_| by_rows).map(|buffers| buffers.gram);
    let c = compiler;
    Ok(Compiled {
        program: c.program,
        buffers: c.buffers,
        places: c.places,
        scales: c.scales,
        result_words: c.penalties_at + LossSlot::COUNT * c.penalty_words,
        penalty_sums: c.penalty_sums,
        penalties_at: c.penalties_at,
        penalty_words: c.penalty_words,
        exact: c.exact,
        forms_of_rows,
        slabs: c.slabs,
        begin,
        passes,
        streamed_passes: c.streamed_passes,
        dispatch_kinds,
        updates,
        balance,
        set_anchor,
        extrapolate,
        return_to_anchor,
        save_snapshot,
        restore_snapshot,
        report,
        course,
    })
}

/// A recording that copies whole buffers.
fn copy(
    c: &mut Compiler<'_>,
    label: &str,
    buffers: &[(BufferId, BufferId)],
) -> Result<RecordingId> {
    let copied = buffers.iter().map(|&(from, to)| c.copied(from, to));
    let commands = copied.collect::<Result<_>>()?;
    Ok(c.record(Recording { label: label.into(), commands }))
}

/// Copies the word that says which factor is not finite to the results, and clears it.
fn report(c: &mut Compiler<'_>) -> RecordingId {
    let FitBuffers { broken, results, .. } = c.buffers;
    let to_offset = (LossSlot::COUNT * SLOT_SUMS * 4) as u64;
    let commands = vec![
        Command::Copy { from: broken, from_offset: 0, to: results, to_offset, bytes: 4 },
        Command::Clear { buffer: broken, offset: 0, bytes: 4 },
    ];
    c.record(Recording { label: "report".into(), commands })
}

/// What the dispatches of a recording work on.
fn kinds(recording: &Recording) -> Vec<DispatchKind> {
    let kind = |command: &Command| match command {
        Command::Dispatch(dispatch) | Command::Indirect { dispatch, .. } => Some(dispatch.kind),
        Command::Copy { .. } | Command::Clear { .. } | Command::Small { .. } => None,
    };
    recording.commands.iter().filter_map(kind).collect()
}

/// Refuses buffers that no shader of the device may see at once.
fn check_bindings(program: &Program, limits: &GpuLimits) -> Result<()> {
    for buffer in &program.buffers {
        let limit = match buffer.kind {
            BufferKind::Storage | BufferKind::Sizes => limits.binding_bytes,
            BufferKind::Uniform => limits.buffer_bytes,
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
    Ok(())
}
