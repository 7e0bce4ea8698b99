//! Several programs of one kind on a device: each has buffers of its own for what is written, and all share
//! the others (data, lists, uniforms) and the compiled shaders.

use std::sync::Arc;

use super::handle::{Gpu, Pipeline};
use super::loading::steps;
use super::runtime::{LoadedProgram, PlacedBuffer};
use crate::program::recording::{Access, BufferId, Command, Program};
use nneinfact_core::error::{Error, Result};

/// What a program on a device was made from.
pub(crate) struct Origin {
    /// Without the texts of shaders, and without what buffers held at first.
    program: Program,
    pipelines: Vec<Arc<Pipeline>>,
    /// Which buffers began with a content.
    filled: Vec<bool>,
}

impl Origin {
    /// Of a program whose contents were taken.
    pub fn new(mut program: Program, pipelines: Vec<Arc<Pipeline>>, filled: Vec<bool>) -> Origin {
        program.shaders.iter_mut().for_each(|shader| shader.source = String::new());
        Origin { program, pipelines, filled }
    }
}

/// Which buffers the commands of a program write.
fn written(program: &Program) -> Vec<bool> {
    let mut written = vec![false; program.buffers.len()];
    for command in program.recordings.iter().flat_map(|recording| &recording.commands) {
        match command {
            Command::Dispatch(dispatch) | Command::Indirect { dispatch, .. } => {
                let access = &program.shaders[dispatch.shader.0].bindings;
                for (binding, access) in dispatch.bindings.iter().zip(access) {
                    written[binding.buffer().0] |= *access == Access::ReadWrite;
                }
            }
            Command::Copy { to: buffer, .. } | Command::Clear { buffer, .. } => {
                written[buffer.0] = true;
            }
            // A program that is complete has none.
            Command::Small { .. } => {}
        }
    }
    written
}

impl LoadedProgram {
    /// The same program again, with zeros in every buffer that it or the host (`by_host`) writes, and the others
    /// in common with this one. `None` where the device has no memory for that, or what is written had a
    /// content at first.
    ///
    /// # Errors
    /// Where the device fails.
    pub(crate) fn another(&self, by_host: &[BufferId]) -> Result<Option<LoadedProgram>> {
        let (gpu, origin) = (self.gpu(), self.origin());
        let Some(origin) = origin else { return Ok(None) };
        let mut own = written(&origin.program);
        by_host.iter().for_each(|id| own[id.0] = true);
        if own.iter().zip(&origin.filled).any(|(&own, &filled)| own && filled) {
            return Ok(None);
        }
        let all = &origin.program.buffers;
        let apart = || all.iter().zip(&own).filter(|(_, own)| **own).map(|(buffer, _)| buffer);
        let needed = all.iter().chain(apart()).map(|buffer| buffer.bytes).sum::<u64>();
        if gpu.info().memory.is_some_and(|memory| needed > memory) {
            return Ok(None);
        }
        let program = Program { buffers: apart().cloned().collect(), ..Program::default() };
        let _lock = gpu.driver_lock();
        gpu.alive()?;
        let mut made = match gpu.allocate(&program) {
            Ok(made) => made.into_iter(),
            Err(Error::DeviceMemory { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let common = |placed: &PlacedBuffer| PlacedBuffer {
            label: placed.label.clone(),
            bytes: placed.bytes,
            buffer: placed.buffer.clone(),
        };
        let buffers: Vec<PlacedBuffer> = self
            .buffers()
            .iter()
            .zip(&own)
            .filter_map(|(placed, &own)| if own { made.next() } else { Some(common(placed)) })
            .collect();
        placed(gpu, origin, buffers).map(Some)
    }
}

/// A program in these buffers.
fn placed(gpu: &Gpu, origin: &Arc<Origin>, buffers: Vec<PlacedBuffer>) -> Result<LoadedProgram> {
    let loaded = LoadedProgram::new(gpu.clone(), buffers);
    let recordings = gpu
        .guarded(|| steps(gpu, &origin.program, loaded.buffers(), &origin.pipelines))
        .map_err(|fault| gpu.failed("binding buffers", fault))?;
    Ok(loaded.with(recordings, Arc::clone(origin)))
}
