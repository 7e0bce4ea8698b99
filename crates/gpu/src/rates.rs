//! What a device can do at best: measured, not read off a data sheet.

use super::Gpu;
use super::recording::{
    Access, Buffer, BufferId, BufferKind, Command, Dispatch, Program, Recording, RecordingId,
    Shader, ShaderId, Window,
};
use super::runtime::Loaded;
use super::text::fill;
use nneinfact_core::engine::RooflinePeaks;
use nneinfact_core::error::Result;

/// Multiply-adds of four components that a thread does one after another, in each of eight chains.
const STEPS: usize = 512;
const CHAINS: usize = 8;
/// Powers, or logarithms, of four components that a thread computes.
const POWERS: usize = 64;
/// Each measurement is the best of this many.
const REPEATS: usize = 5;

/// Measures a device.
pub fn measure(gpu: &Gpu, quick: bool) -> Result<Option<RooflinePeaks>> {
    let limits = gpu.limits();
    let most: u64 = if quick { 4 << 20 } else { 512 << 20 };
    let bytes = limits.binding_bytes.min(limits.buffer_bytes).min(most) / 16 * 16;
    let threads = bytes / 16;
    let workgroups = threads.div_ceil(256);
    let x = workgroups.min(u64::from(limits.workgroups)) as u32;
    let fold = [x, workgroups.div_ceil(u64::from(x)) as u32, 1];
    // Arithmetic needs fewer threads, but enough to fill the device.
    let some: u64 = threads.min(if quick { 1 << 12 } else { 1 << 20 });
    let few = [some.div_ceil(256).min(u64::from(limits.workgroups)) as u32, 1, 1];
    let some = u64::from(few[0]) * 256;

    let chains: String =
        (0..CHAINS).map(|i| format!("var v{i} = x + {i}.0;\n")).collect::<String>();
    let steps: String =
        (0..CHAINS).map(|i| format!("    v{i} = fma(v{i}, x, y);\n")).collect::<String>();
    let sum: Vec<String> = (0..CHAINS).map(|i| format!("v{i}")).collect();
    let bodies = [
        "result[at] = source[at];".to_string(),
        format!(
            "let x = source[at];\nlet y = x * 0.5;\n{chains}for (var i = 0u; i < {STEPS}u; i++) {{\n{steps}}}\nresult[at] = {};",
            sum.join(" + ")
        ),
        format!(
            "var x = source[at] + 1.5;\nfor (var i = 0u; i < {POWERS}u; i++) {{\n    x = pow(x, vec4<f32>(0.7)) + 0.5;\n}}\nresult[at] = x;"
        ),
        format!(
            "var x = source[at] + 1.5;\nfor (var i = 0u; i < {POWERS}u; i++) {{\n    x = log(x) + 2.0;\n}}\nresult[at] = x;"
        ),
    ];
    let storage = |label: &str| Buffer {
        label: label.into(),
        bytes,
        kind: BufferKind::Storage,
        content: Vec::new(),
    };
    let mut program = Program {
        buffers: vec![storage("what is copied"), storage("the copy")],
        ..Program::default()
    };
    let window = |buffer: usize, bytes: u64| Window { buffer: BufferId(buffer), offset: 0, bytes };
    for (i, body) in bodies.into_iter().enumerate() {
        let source = fill(nneinfact_shaders::RATES, &[("body", body)])?;
        program.shaders.push(Shader {
            label: ["copy", "multiply-adds", "powers", "logarithms"][i].into(),
            source,
            bindings: vec![Access::Read, Access::ReadWrite],
            invocations: 256,
            workgroup_bytes: 0,
        });
        let (workgroups, bytes) = if i == 0 { (fold, bytes) } else { (few, 16 * some) };
        program.recordings.push(Recording {
            label: program.shaders[i].label.clone(),
            commands: vec![Command::Dispatch(Dispatch {
                shader: ShaderId(i),
                bindings: vec![window(0, bytes), window(1, bytes)],
                workgroups,
                work: 0.0,
            })],
        });
    }
    let loaded = gpu.load(program)?;
    let mut best = [f64::INFINITY; 4];
    for _ in 0..REPEATS {
        for (i, best) in best.iter_mut().enumerate() {
            let Some(seconds) = time(&loaded, RecordingId(i))? else { return Ok(None) };
            *best = best.min(seconds);
        }
    }
    let copied = 2.0 * bytes as f64 / best[0];
    Ok(Some(RooflinePeaks {
        read_bytes_per_second: copied,
        copy_bytes_per_second: copied,
        multiply_adds_per_second: (some as usize * STEPS * CHAINS * 4) as f64 / best[1],
        powers_per_second: (some as usize * POWERS * 4) as f64 / best[2],
        logarithms_per_second: (some as usize * POWERS * 4) as f64 / best[3],
    }))
}

/// Seconds of all dispatches of a recording, by the device's clock.
fn time(loaded: &Loaded, recording: RecordingId) -> Result<Option<f64>> {
    let seconds = loaded.profile(recording)?;
    Ok(seconds.map(|s| s.iter().sum()).filter(|&s: &f64| s > 0.0))
}
