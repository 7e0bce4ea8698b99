//! Small programs made by hand.

use crate::device::runtime::LoadedProgram;
use crate::program::recording::{
    Access, Binding, Buffer, BufferId, BufferKind, Command, Dispatch, DispatchKind, FirstUse,
    Program, Recording, RecordingId, Shader, ShaderId, Window,
};

pub(crate) fn storage(label: &str, content: &[f32], count: usize) -> Buffer {
    Buffer {
        label: label.into(),
        bytes: 4 * count as u64,
        kind: BufferKind::Storage,
        content: bytemuck::cast_slice(content).to_vec(),
        first_use: FirstUse::Read,
    }
}

/// Multiplies what lies in binding 0 by a factor, through the number of workgroups in any folding.
pub(crate) fn scaling(factor: f32) -> Shader {
    Shader {
        label: format!("times {factor}"),
        source: format!(
            "@group(0) @binding(0) var<storage, read_write> x: array<f32>;
            @compute @workgroup_size(64)
            fn main(
                @builtin(workgroup_id) group: vec3<u32>,
                @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) local: u32,
            ) {{
                let i = (group.x + groups.x * (group.y + groups.y * group.z)) * 64u + local;
                if i < arrayLength(&x) {{ x[i] *= {factor:?}; }}
            }}"
        ),
        bindings: vec![Access::ReadWrite],
        invocations: 64,
        workgroup_bytes: 0,
    }
}

pub(crate) fn dispatch_of(
    shader: usize,
    windows: Vec<Window>,
    workgroups: [u32; 3],
    work: f64,
) -> Command {
    let bindings = windows.into_iter().map(Binding::Part).collect();
    let (shader, kind) = (ShaderId(shader), DispatchKind::Data);
    Command::Dispatch(Dispatch { shader, kind, bindings, workgroups, work })
}

pub(crate) fn dispatch(shader: usize, bindings: Vec<Window>, workgroups: [u32; 3]) -> Command {
    dispatch_of(shader, bindings, workgroups, 1.0)
}

pub(crate) fn whole(buffer: usize, count: usize) -> Window {
    Window { buffer: BufferId(buffer), offset: 0, bytes: 4 * count as u64 }
}

pub(crate) fn recording(label: &str, commands: Vec<Command>) -> Recording {
    Recording { label: label.into(), commands }
}

/// Doubles `count` numbers, which are 0, 1, 2, … at first.
pub(crate) fn doubling(count: usize) -> Program {
    let numbers: Vec<f32> = (0..count).map(|i| i as f32).collect();
    let groups = count.div_ceil(64) as u32;
    Program {
        buffers: vec![storage("numbers", &numbers, count)],
        shaders: vec![scaling(2.0)],
        recordings: vec![recording(
            "double",
            vec![dispatch(0, vec![whole(0, count)], [groups, 1, 1])],
        )],
        ..Program::default()
    }
}

pub(crate) fn read(loaded: &LoadedProgram, buffer: usize, count: usize) -> Vec<f32> {
    let bytes = loaded.read(BufferId(buffer), 0, 4 * count as u64).unwrap();
    bytemuck::pod_collect_to_vec(&bytes)
}

pub(crate) const RUN: RecordingId = RecordingId(0);
