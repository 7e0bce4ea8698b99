//! Sweeps that the host does not wait for.
//!
//! A sweep from the first update to the first pass of the next one is a recording. After that pass the
//! device keeps the losses for the host, and decides by itself whether it may go on: where an
//! extrapolation is not clearly accepted, or something is not finite, it stops (`decide.wgsl`): the
//! dispatches of the sweeps that the host has sent off beyond have no workgroups any more. The host reads
//! what was found, and decides what the device did not.

use std::collections::HashMap;

use crate::program::buffers::SLOT_SUMS;
use crate::program::compiler::Compiler;
use crate::program::recording::{
    Access, Binding, BufferId, Command, Dispatch, DispatchKind, Recording, RecordingId, Shader,
};
use nneinfact_core::engine::LossSlot;
use nneinfact_core::error::Result;
use nneinfact_shaders::COURSE_HEAD;

/// The most sweeps at a time.
pub(crate) const MOST_SWEEPS: usize = 128;
/// Words of what a sweep found: sums of losses by slot, and which factor is not finite.
pub(crate) const ROW: usize = LossSlot::COUNT * SLOT_SUMS + 1;
/// Where these begin.
pub(crate) const ROWS_AT: usize = COURSE_HEAD + 4 * MOST_SWEEPS;

/// The recordings of sweeps that the host does not wait for.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    /// Keeps factors, anchor and origin.
    pub keep: RecordingId,
    /// Goes back to them.
    pub go_back: RecordingId,
    /// What comes before the first sweep, its pass being done.
    pub begin: RecordingId,
    /// A sweep that ends in its plain result.
    pub plain: RecordingId,
    /// A sweep whose plain result becomes the anchor.
    pub anchored: RecordingId,
    /// A sweep that ends with an extrapolation; `None` where that is held against more than a sweep
    /// tells.
    pub extrapolated: Option<RecordingId>,
    /// The workgroups of the dispatches of all of these.
    pub sizes: Vec<u32>,
}

impl Compiler<'_> {
    /// Records sweeps, where the device can do without the host between them.
    pub(crate) fn course(
        &mut self,
        passes: &[RecordingId],
        updates: &[RecordingId],
    ) -> Result<Option<Course>> {
        // Penalties are summed up on the host, in double precision.
        let by_host = self.penalty_words > 0 || self.job.balancing.is_some();
        let bytes = 4 * (ROWS_AT + MOST_SWEEPS * ROW) as u64;
        if bytes > self.limits.binding_bytes {
            return Ok(None);
        }
        if !self.joins() || by_host || self.streamed().is_some() {
            return Ok(None);
        }
        let first: Vec<Command> = self.recorded(updates[0]);
        let sums = self.buffers.sums;
        let ahead = first.iter().take_while(|command| does_without(command, sums)).count();
        let (begin, rest) = first.split_at(ahead);
        let mut sweep = rest.to_vec();
        for (pass, update) in passes.iter().zip(updates).skip(1) {
            sweep.extend(self.recorded(*pass));
            sweep.extend(self.recorded(*update));
        }
        let mut end = self.recorded(passes[0]);
        end.extend(begin.iter().cloned());
        end.push(self.decide());
        let plain = record_with(self, "sweep", &sweep, Vec::new(), &end);
        let (factors, anchor, origin) =
            (self.buffers.factors, self.buffers.anchor, self.buffers.origin);
        let set = vec![self.copied(factors, anchor)?, self.copied(factors, origin)?];
        let anchored = record_with(self, "sweep to an anchor", &sweep, set, &end);
        let guarded = passes.len() > 1
            && self.job.losses.first() == Some(&Some(LossSlot::Start))
            && self.job.losses.last() == Some(&Some(LossSlot::Middle));
        let extrapolated = match self.follow()? {
            Some(follow) if guarded => {
                Some(record_with(self, "sweep with an extrapolation", &sweep, follow, &end))
            }
            _ => None,
        };
        let label = "begin of sweeps".to_string();
        let begin = self.record(Recording { label, commands: begin.to_vec() });
        let begun = self.buffers.begun;
        let words = self.places[self.places.len() - 1];
        for buffer in begun {
            self.grow(buffer, words);
        }
        self.grow(self.buffers.course, ROWS_AT + MOST_SWEEPS * ROW);
        let pairs = [factors, anchor, origin].into_iter().zip(begun);
        let (mut keep, mut go_back) = (Vec::new(), Vec::new());
        for (from, to) in pairs {
            keep.push(self.copied(from, to)?);
            go_back.push(self.copied(to, from)?);
        }
        let keep =
            self.record(Recording { label: "keep where sweeps begin".into(), commands: keep });
        let label = "go back to where sweeps began".to_string();
        let go_back = self.record(Recording { label, commands: go_back });
        let sizes = Vec::new();
        Ok(Some(Course { keep, go_back, begin, plain, anchored, extrapolated, sizes }))
    }

    /// Decides whether the device may go on.
    fn decide(&mut self) -> Command {
        let words = [ROW - 1, MOST_SWEEPS, LossSlot::Middle as usize * SLOT_SUMS, 0];
        let (read, written) = (Access::Read, Access::ReadWrite);
        let shader = self.shader(Shader {
            label: "decide".into(),
            source: nneinfact_shaders::DECIDE.into(),
            bindings: vec![Access::Uniform, read, read, written, written],
            invocations: 64,
            workgroup_bytes: 512,
        });
        let mut bindings = vec![self.words(&words.map(|n| n as u32))];
        let b = &self.buffers;
        bindings.extend([b.results, b.broken, b.course, b.sizes].map(Binding::Whole));
        Command::Dispatch(Dispatch {
            shader,
            kind: DispatchKind::Small,
            bindings,
            workgroups: [1, 1, 1],
            work: 1e4,
        })
    }

    /// Lets the device itself say how large the dispatches of sweeps are: nothing where it has stopped.
    /// Forgets the course where something is left that it could not stop.
    pub(crate) fn stoppable(&mut self, course: Option<Course>) -> Option<Course> {
        let mut course = course?;
        let sizes = self.buffers.sizes;
        let mut places: HashMap<[u32; 3], u64> = HashMap::new();
        let all = [Some(course.plain), Some(course.anchored), course.extrapolated];
        for id in all.into_iter().flatten() {
            let recording = &mut self.program.recordings[id.0];
            for command in &mut recording.commands {
                let Command::Dispatch(dispatch) = command else { return None };
                if dispatch.bindings.iter().any(|b| b.buffer() == sizes) {
                    continue;
                }
                let next = places.len() as u64;
                let place = *places.entry(dispatch.workgroups).or_insert(next);
                if place == next {
                    course.sizes.extend(dispatch.workgroups);
                }
                let dispatch = dispatch.clone();
                *command = Command::Indirect { dispatch, sizes, offset: 12 * place };
            }
        }
        self.grow(sizes, course.sizes.len());
        Some(course)
    }
}

fn record_with(
    compiler: &mut Compiler<'_>,
    label: &str,
    sweep: &[Command],
    middle: Vec<Command>,
    end: &[Command],
) -> RecordingId {
    let commands = [sweep.to_vec(), middle, end.to_vec()].concat();
    compiler.record(Recording { label: label.into(), commands })
}

/// Whether a command, of those that operations may be in place of, does not see a buffer.
fn does_without(command: &Command, buffer: BufferId) -> bool {
    let Command::Small { operations, .. } = command else { return false };
    operations.iter().flat_map(|operation| &operation.text.seen).all(|seen| seen.buffer != buffer)
}
