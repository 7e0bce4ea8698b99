//! Puts programs on a GPU.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::handle::{DeviceFault, Gpu, Pipeline};
use super::runtime::{LoadedProgram, PlacedBuffer, PlacedCommand, PlacedRecording};
use super::sharing::Origin;
use crate::program::recording::{
    Binding, Buffer, BufferId, BufferKind, Command, Dispatch, Program, ShaderId,
};
use nneinfact_core::error::{Error, Result};

impl Gpu {
    /// Puts a program on the device: checks it against the limits, compiles its shaders, makes and
    /// fills its buffers, and looks up everything that its recordings need.
    ///
    /// # Errors
    /// [`Error::Device`] where the program is outside of the device's limits,
    /// [`Error::DeviceMemory`] where it takes too much memory, [`Error::DeviceFailed`] where a
    /// shader does not compile or the device fails.
    pub(crate) fn load(&self, mut program: Program) -> Result<LoadedProgram> {
        program.check(self.limits())?;
        self.fits(&program)?;
        // What is dropped on the way is dropped under it too.
        let _lock = self.driver_lock();
        self.alive()?;
        // What was dropped since the device was last looked at is freed by this. A software device
        // may be at work for its owner, and is not to compile meanwhile.
        let software = self.info().is_software();
        self.poll(match software {
            true => wgpu::PollType::wait_indefinitely(),
            false => wgpu::PollType::Poll,
        })?;
        let contents: Vec<Vec<u8>> =
            program.buffers.iter_mut().map(|b| std::mem::take(&mut b.content)).collect();
        let filled: Vec<bool> = contents.iter().map(|content| !content.is_empty()).collect();
        let complete = program;
        let (program, shaders) = (&complete, &complete.shaders);
        let compile = || -> Result<Vec<Arc<Pipeline>>> {
            let pipelines: Vec<Result<Arc<Pipeline>>> = match software {
                true => shaders.iter().map(|shader| self.pipeline(shader)).collect(),
                false => shaders.par_iter().map(|shader| self.pipeline(shader)).collect(),
            };
            pipelines.into_iter().collect()
        };
        // Stored entries are among the contents: they are on their way while shaders are compiled. Where
        // that is done on the same cores, a shader that does not compile is better known before.
        let (pipelines, loaded) = match software {
            true => {
                let pipelines = compile()?;
                (pipelines, self.filled(program, contents)?)
            }
            false => {
                let (pipelines, loaded) = rayon::join(compile, || self.filled(program, contents));
                (pipelines?, loaded?)
            }
        };
        let recordings = self
            .guarded(|| steps(self, program, loaded.buffers(), &pipelines))
            .map_err(|fault| self.failed("binding buffers", fault))?;
        Ok(loaded.with(recordings, Arc::new(Origin::new(complete, pipelines, filled))))
    }

    /// The buffers of a program with what they hold at first, and no recordings yet.
    fn filled(&self, program: &Program, contents: Vec<Vec<u8>>) -> Result<LoadedProgram> {
        let loaded = LoadedProgram::new(self.clone(), self.allocate(program)?);
        for (n, mut content) in contents.into_iter().enumerate() {
            content.resize(content.len().next_multiple_of(4), 0);
            loaded.write(BufferId(n), 0, &content)?;
        }
        Ok(loaded)
    }

    /// Refuses what cannot fit before anything is allocated: some drivers take such a request at its
    /// word, and swap.
    fn fits(&self, program: &Program) -> Result<()> {
        let needed: u64 = program.buffers.iter().map(|b| b.bytes).sum();
        match self.info().memory {
            Some(memory) if needed > memory => Err(self.out_of_memory(program)),
            _ => Ok(()),
        }
    }

    pub(crate) fn allocate(&self, program: &Program) -> Result<Vec<PlacedBuffer>> {
        let make = |buffer: &Buffer| {
            let usage = match buffer.kind {
                BufferKind::Uniform => wgpu::BufferUsages::UNIFORM,
                BufferKind::Storage => wgpu::BufferUsages::STORAGE,
                BufferKind::Sizes => wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::INDIRECT,
            };
            self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(&buffer.label),
                size: buffer.bytes,
                usage: usage | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let mut placed = Vec::with_capacity(program.buffers.len());
        for buffer in &program.buffers {
            match self.guarded(|| make(buffer)) {
                Ok(made) => placed.push(PlacedBuffer {
                    label: buffer.label.clone(),
                    bytes: buffer.bytes,
                    buffer: made,
                }),
                Err(fault) => {
                    // What there is already is given back now, not when the device next looks.
                    let lock = self.driver_lock();
                    placed.iter().for_each(|p: &PlacedBuffer| p.buffer.destroy());
                    drop(lock);
                    return Err(match fault {
                        DeviceFault::Memory => self.out_of_memory(program),
                        fault => self.failed(&format!("making `{}`", buffer.label), fault),
                    });
                }
            }
        }
        Ok(placed)
    }

    pub(crate) fn out_of_memory(&self, program: &Program) -> Error {
        let largest = program.buffers.iter().max_by_key(|b| b.bytes);
        Error::DeviceMemory {
            device: self.name(),
            needed: program.buffers.iter().map(|b| b.bytes).sum(),
            largest: largest.map_or(0, |b| b.bytes),
            largest_is: largest.map_or(String::new(), |b| b.label.clone()),
            memory: self.info().memory,
            help: "lower the ranks or the memory limit, free memory on the device, or use \
                   --device cpu"
                .into(),
        }
    }
}

/// Looks up what the recordings name. Dispatches that bind the same share a bind group.
pub(super) fn steps(
    gpu: &Gpu,
    program: &Program,
    buffers: &[PlacedBuffer],
    pipelines: &[Arc<Pipeline>],
) -> Vec<PlacedRecording> {
    let mut groups: HashMap<(ShaderId, &[Binding]), wgpu::BindGroup> = HashMap::new();
    let buffer = |id: BufferId| buffers[id.0].buffer.clone();
    let mut recordings = Vec::with_capacity(program.recordings.len());
    for recording in &program.recordings {
        let mut steps = Vec::with_capacity(recording.commands.len());
        for command in &recording.commands {
            let sizes = match command {
                Command::Indirect { sizes, offset, .. } => Some((buffer(*sizes), *offset)),
                _ => None,
            };
            steps.push(match command {
                Command::Dispatch(dispatch) | Command::Indirect { dispatch, .. } => {
                    let Dispatch { shader, bindings, workgroups, work, .. } = dispatch;
                    let pipeline = Arc::clone(&pipelines[shader.0]);
                    let group = groups
                        .entry((*shader, bindings))
                        .or_insert_with(|| bind(gpu, &pipeline, bindings, buffers))
                        .clone();
                    PlacedCommand::Dispatch {
                        pipeline,
                        group,
                        workgroups: *workgroups,
                        sizes,
                        work: *work,
                    }
                }
                // Refused when the program was checked.
                Command::Small { .. } => continue,
                &Command::Copy { from, from_offset, to, to_offset, bytes } => PlacedCommand::Copy {
                    from: buffer(from),
                    from_offset,
                    to: buffer(to),
                    to_offset,
                    bytes,
                },
                &Command::Clear { buffer: id, offset, bytes } => {
                    PlacedCommand::Clear { buffer: buffer(id), offset, bytes }
                }
            });
        }
        recordings.push(PlacedRecording { label: recording.label.clone(), steps });
    }
    recordings
}

fn bind(
    gpu: &Gpu,
    pipeline: &Pipeline,
    bindings: &[Binding],
    buffers: &[PlacedBuffer],
) -> wgpu::BindGroup {
    let entry = |(number, binding): (u32, &Binding)| {
        let placed = &buffers[binding.buffer().0];
        let window = binding.window(placed.bytes);
        wgpu::BindGroupEntry {
            binding: number,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &placed.buffer,
                offset: window.offset,
                size: wgpu::BufferSize::new(window.bytes),
            }),
        }
    };
    let entries: Vec<wgpu::BindGroupEntry<'_>> = (0..).zip(bindings).map(entry).collect();
    gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.layout,
        entries: &entries,
    })
}
