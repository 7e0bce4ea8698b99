//! What a device can do at best: measured, not read off a data sheet.

use crate::device::handle::Gpu;
use crate::device::runtime::LoadedProgram;
use crate::program::recording::{
    Access, Binding, BufferId, BufferKind, Command, Dispatch, DispatchKind, Program, Recording,
    RecordingId, Shader, ShaderId, Window,
};
use crate::program::template::fill;
use nneinfact_core::engine::RooflinePeaks;
use nneinfact_core::error::Result;
use nneinfact_shaders::{CHAINS, MULTIPLY_ADDS, POWERS};

/// Each measurement is the best of this many.
const REPEATS: usize = 5;

/// What is measured: the label and the flag of the shader.
const MEASURED: [(&str, &str); 4] = [
    ("copy", "copy"),
    ("multiply-adds", "multiply_adds"),
    ("powers", "powers"),
    ("logarithms", "logarithms"),
];

/// How many bytes and threads measurements have.
struct MeasureSizes {
    /// Of a copy.
    bytes: u64,
    fold: [u32; 3],
    /// Threads of arithmetic, which needs fewer, but enough to fill the device.
    threads: u64,
    few: [u32; 3],
}

/// Measures what a device can do at best; nothing where it has no clock. `quick` only shows that it
/// works.
///
/// # Errors
/// Where the device fails.
pub fn measure(gpu: &Gpu, quick: bool) -> Result<Option<RooflinePeaks>> {
    let sizes = MeasureSizes::new(gpu, quick);
    let loaded = gpu.load(program(&sizes)?)?;
    let mut best = [f64::INFINITY; 4];
    for _ in 0..REPEATS {
        for (i, best) in best.iter_mut().enumerate() {
            let Some(seconds) = time(&loaded, RecordingId(i))? else { return Ok(None) };
            *best = best.min(seconds);
        }
    }
    let copied = 2.0 * sizes.bytes as f64 / best[0];
    let threads = sizes.threads as usize;
    Ok(Some(RooflinePeaks {
        read_bytes_per_second: copied,
        copy_bytes_per_second: copied,
        multiply_adds_per_second: (threads * MULTIPLY_ADDS * CHAINS * 4) as f64 / best[1],
        powers_per_second: (threads * POWERS * 4) as f64 / best[2],
        logarithms_per_second: (threads * POWERS * 4) as f64 / best[3],
        gathered_lines_per_second: None,
        distant_lines_per_second: None,
    }))
}

impl MeasureSizes {
    fn new(gpu: &Gpu, quick: bool) -> MeasureSizes {
        let limits = gpu.limits();
        let most: u64 = if quick { 4 << 20 } else { 512 << 20 };
        let bytes = limits.binding_bytes.min(limits.buffer_bytes).min(most) / 16 * 16;
        let threads = bytes / 16;
        let workgroups = threads.div_ceil(256);
        let x = workgroups.min(u64::from(limits.workgroups)) as u32;
        let fold = [x, workgroups.div_ceil(u64::from(x)) as u32, 1];
        let some: u64 = threads.min(if quick { 1 << 12 } else { 1 << 20 });
        let few = [some.div_ceil(256).min(u64::from(limits.workgroups)) as u32, 1, 1];
        MeasureSizes { bytes, fold, threads: u64::from(few[0]) * 256, few }
    }
}

/// A recording for each measurement.
fn program(sizes: &MeasureSizes) -> Result<Program> {
    let mut program = Program::default();
    for label in ["what is copied", "the copy"] {
        program.add_buffer(label, sizes.bytes, BufferKind::Storage);
    }
    let window = |buffer: usize, bytes: u64| {
        Binding::Part(Window { buffer: BufferId(buffer), offset: 0, bytes })
    };
    for (i, (label, _)) in MEASURED.into_iter().enumerate() {
        let flags: Vec<(&str, bool)> =
            MEASURED.iter().enumerate().map(|(j, &(_, flag))| (flag, i == j)).collect();
        program.shaders.push(Shader {
            label: label.into(),
            source: fill(nneinfact_shaders::ROOFLINE, &flags, &[])?,
            bindings: vec![Access::Read, Access::ReadWrite],
            invocations: 256,
            workgroup_bytes: 0,
        });
        let (workgroups, bytes) = match i {
            0 => (sizes.fold, sizes.bytes),
            _ => (sizes.few, 16 * sizes.threads),
        };
        program.recordings.push(Recording {
            label: label.into(),
            commands: vec![Command::Dispatch(Dispatch {
                shader: ShaderId(i),
                kind: DispatchKind::Data,
                bindings: vec![window(0, bytes), window(1, bytes)],
                workgroups,
                work: 0.0,
            })],
        });
    }
    Ok(program)
}

/// Seconds of all dispatches of a recording, by the device's clock.
fn time(loaded: &LoadedProgram, recording: RecordingId) -> Result<Option<f64>> {
    let seconds = loaded.profile(recording)?;
    Ok(seconds.map(|s| s.iter().sum()).filter(|&s: &f64| s > 0.0))
}
