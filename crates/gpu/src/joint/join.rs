//! Recordings whose operations share dispatches.

use std::collections::HashMap;

use super::schedule::{Joint, JointLimits, Step, schedule};
use crate::program::compiler::Compiler;
use crate::program::recording::{Command, Program, Recording, ShaderId};
use nneinfact_core::error::Result;

/// Storage buffers that the operations of a fit need a shader to see, at least.
const BUFFERS: u32 = 8;
/// More that one shader sees: fewer shaders have to be compiled then, but longer ones.
const MOST_BUFFERS: u32 = 12;

impl Compiler<'_> {
    /// Whether commands on small tensors share dispatches on this device.
    pub(crate) fn joins(&self) -> bool {
        self.tuning.joint
            && self.limits.storage_buffers >= BUFFERS
            && 8 * self.joint_threads() <= self.limits.workgroup_bytes as usize
    }

    fn joint_limits(&self) -> JointLimits {
        JointLimits {
            threads: self.joint_threads(),
            // The program is one.
            buffers: self.limits.storage_buffers.min(MOST_BUFFERS) as usize - 1,
            turns: self.tuning.joint_turns,
            chain: 256,
            shared: 1 << 16,
            workgroups: 2048.min(self.limits.workgroups as usize / 16).max(1),
        }
    }

    /// Puts the operations of all recordings into joint dispatches.
    pub(crate) fn join(&mut self) -> Result<()> {
        if !self.joins() {
            return Ok(());
        }
        let limits = self.joint_limits();
        let recordings = std::mem::take(&mut self.program.recordings);
        let scheduled: Vec<(String, Vec<Step>)> = recordings
            .into_iter()
            .map(|recording| {
                let Recording { label, commands } = recording;
                (label, schedule(without_copies_alone(commands), &self.program, &limits))
            })
            .collect();
        let joints: Vec<&Joint> = scheduled
            .iter()
            .flat_map(|(_, steps)| steps)
            .filter_map(|step| match step {
                Step::Joint(joint) => Some(joint),
                Step::Command(..) => None,
            })
            .collect();
        let mut dispatches = self.joint_dispatches(&joints, &limits)?.into_iter();
        for (label, steps) in scheduled {
            let commands = steps
                .into_iter()
                .filter_map(|step| match step {
                    Step::Joint(_) => dispatches.next(),
                    Step::Command(command, _) => Some(command),
                })
                .collect();
            self.program.recordings.push(Recording { label, commands });
        }
        drop_unused_shaders(&mut self.program);
        Ok(())
    }
}

/// The commands of a recording that does nothing but copy and clear as they are: drivers do that best.
fn without_copies_alone(commands: Vec<Command>) -> Vec<Command> {
    let copies = |command: &Command| match command {
        Command::Small { otherwise, .. } => {
            matches!(**otherwise, Command::Copy { .. } | Command::Clear { .. })
        }
        Command::Copy { .. } | Command::Clear { .. } => true,
        Command::Dispatch(_) | Command::Indirect { .. } => false,
    };
    if !commands.iter().all(copies) {
        return commands;
    }
    let plain = |command| match command {
        Command::Small { otherwise, .. } => *otherwise,
        other => other,
    };
    commands.into_iter().map(plain).collect()
}

/// Shaders that no command runs any more are not compiled.
fn drop_unused_shaders(program: &mut Program) {
    let mut kept: HashMap<ShaderId, ShaderId> = HashMap::new();
    let mut shaders = Vec::new();
    for command in program.recordings.iter_mut().flat_map(|recording| &mut recording.commands) {
        let (Command::Dispatch(dispatch) | Command::Indirect { dispatch, .. }) = command else {
            continue;
        };
        let next = ShaderId(shaders.len());
        let id = *kept.entry(dispatch.shader).or_insert(next);
        if id == next {
            shaders.push(program.shaders[dispatch.shader.0].clone());
        }
        dispatch.shader = id;
    }
    program.shaders = shaders;
}
