//! Fits in buffers that are surrounded by what would spoil them.
//!
//! What a shader reads past the end of a buffer is 0 on some drivers and real data on others, and
//! what it writes there may vanish: such a slip hides. Here every buffer, and what a shader sees of it, is
//! longer than the program asks for by a padding of NaNs, so that an index past the end lands in the
//! padding, or is clamped to its end. Buffers that shaders have to write before they read start as NaNs
//! altogether. A fit has to come out the same to the last bit, and the padding untouched.
//!
//! An index past the end of one tensor that lies in another of the same buffer is not seen so; the
//! comparisons with the CPU in `tests/gpu_fits.rs` see it.

use ndarray::ArrayD;

use crate::device::handle::Gpu;
use crate::engine::GpuEngine;
use crate::program::compile::{Compiled, compile};
use crate::program::recording::{
    Access, Binding, BufferId, BufferKind, Command, FirstUse, Program,
};
use crate::program::tuning::Tuning;
use crate::tests::jobs::{
    CORPUS, MOVING, few, gpu, job_on, job_stored, moving, penalized_job, started, values,
};
use nneinfact_core::data::{Implicit, Observations};
use nneinfact_core::engine::{Engine, Extrapolation, Job, Point};
use nneinfact_core::loss::Loss;
use nneinfact_core::plan::Grouping;

/// Bytes behind every storage buffer: further than a row or a tile of these tests.
const PADDING: u64 = 64 << 10;

/// A NaN as `f32`; 255, 65,535 and 3 as a count or a role.
const SPOILT: u8 = 0xff;

/// Puts padding behind the buffers; returns where they begin.
fn spoil(program: &mut Program) -> Vec<(BufferId, u64)> {
    let mut paddings = Vec::new();
    for (n, buffer) in program.buffers.iter_mut().enumerate() {
        if buffer.kind != BufferKind::Storage {
            continue;
        }
        let fill = match buffer.first_use {
            FirstUse::Written => SPOILT,
            FirstUse::Read => 0,
        };
        buffer.content.resize(buffer.bytes as usize, fill);
        paddings.push((BufferId(n), buffer.bytes));
        buffer.bytes += PADDING;
        buffer.content.resize(buffer.bytes as usize, SPOILT);
    }
    for command in program.recordings.iter().flat_map(|recording| &recording.commands) {
        let Command::Dispatch(dispatch) = command else { continue };
        let access = &program.shaders[dispatch.shader.0].bindings;
        for (binding, access) in dispatch.bindings.iter().zip(access) {
            // A part of a storage buffer would hide what lies past its own end.
            let whole = matches!(binding, Binding::Whole(_));
            assert!(whole || *access == Access::Uniform);
        }
    }
    paddings
}

/// Factors and losses after two accelerated sweeps.
fn fit(engine: &mut GpuEngine, groups: usize) -> (Vec<ArrayD<f64>>, Vec<u64>) {
    let mut losses = Vec::new();
    engine.copy(Point::Current, Point::Anchor).unwrap();
    for _ in 0..2 {
        for group in 0..groups {
            engine.pass(group).unwrap();
            engine.update(group).unwrap();
        }
        engine.balance().unwrap();
        engine.copy(Point::Current, Point::Snapshot).unwrap();
        engine.extrapolate(Extrapolation { momentum: 0.5, relaxation: 0.7, least: 0.9 }).unwrap();
        losses.extend(engine.sums().unwrap());
    }
    engine.evaluate().unwrap();
    losses.extend(engine.sums().unwrap());
    let losses = losses.iter().flat_map(|s| [s.train, s.validation, s.held_out, s.penalty]);
    (engine.factors().unwrap(), losses.map(f64::to_bits).collect())
}

/// Runs a job with and without padding.
pub(crate) fn compare(gpu: &Gpu, job: &Job, tuning: &Tuning, what: &str) {
    let groups = job.plan.groups().len();
    let compiled = || compile(job, gpu.limits(), tuning).unwrap();
    let plain = fit(&mut GpuEngine::placed(gpu, job.clone(), compiled()).unwrap(), groups);
    assert!(plain.0.iter().flatten().all(|x| x.is_finite()), "{what}");
    let mut spoilt: Compiled = compiled();
    let paddings = spoil(&mut spoilt.program);
    let mut engine = GpuEngine::placed(gpu, job.clone(), spoilt).unwrap();
    let found = fit(&mut engine, groups);
    assert!(found == plain, "{what}: something past the end of a buffer was read");
    for (buffer, end) in paddings {
        let padding = engine.loaded().read(buffer, end, PADDING).unwrap();
        assert!(
            padding.iter().all(|&b| b == SPOILT),
            "{what}: past the end of buffer {}",
            buffer.0
        );
    }
}

#[test]
fn nothing_past_the_end_of_a_buffer_is_touched() {
    let Some(gpu) = gpu() else { return };
    let losses = [
        Loss::kl(),
        Loss::alpha_beta(0.7, 0.0).unwrap(),
        Loss::alpha_beta(0.0, 1.0).unwrap(),
        Loss::euclidean(),
    ];
    let split = |o: Observations| o.held_out(0.2, 1).unwrap().validation(0.1, 1).unwrap();
    for (n, (model, shape, ranks)) in CORPUS.iter().enumerate() {
        // Every model in one way, every way on some models.
        let tuning = Tuning {
            register_k: if n % 2 == 0 { 48 } else { 0 },
            workgroups: if n % 3 == 0 { 1024 } else { 4 },
            ..Tuning::joined()
        };
        let grouping = if n % 4 < 2 { Grouping::Grouped } else { Grouping::Block };
        let loss = losses[n % losses.len()].clone();
        let what = format!("{model} under {} with {tuning:?}", loss.name());
        let observe = |o: Observations| if n % 3 == 1 { o } else { split(o) };
        let job = started(job_on(&values(shape), model, ranks, loss, grouping, u64::MAX, observe));
        // Every fourth one penalised, and every kind of penalty.
        let job = if n % 4 == 2 { penalized_job(job, n) } else { job };
        compare(&gpu, &job, &tuning, &what);
    }
    // Larger than a tile in both directions, in parts, and of an inner dimension with a remainder.
    for (register_k, rank) in [(48, 7), (0, 37)] {
        let tuning = Tuning { register_k, work: 1e5, scratch_bytes: 64 << 10, ..Tuning::joined() };
        let job = job_on(
            &values(&[70, 133]),
            "ir,jr->ij",
            &[('r', rank)],
            Loss::alpha_beta(0.7, 0.0).unwrap(),
            Grouping::Block,
            u64::MAX,
            split,
        );
        compare(&gpu, &started(job), &tuning, &format!("NMF of rank {rank}"));
        let job = moving(Loss::kl(), split, &values(MOVING));
        compare(&gpu, &started(job), &tuning, "co-operands that move");
    }
}

#[test]
fn nothing_past_the_end_of_stored_entries_is_touched() {
    let Some(gpu) = gpu() else { return };
    let split = |o: Observations| o.held_out(0.2, 1).unwrap().validation(0.1, 1).unwrap();
    let implicits = [Implicit::Zeros, Implicit::ByRole, Implicit::Missing];
    let losses = [Loss::kl(), Loss::euclidean(), Loss::alpha_beta(0.7, 0.0).unwrap()];
    for (n, (model, shape, ranks)) in CORPUS.iter().enumerate() {
        let (implicit, loss) = (implicits[n % 3], losses[n / 3 % 3].clone());
        let grouping = if n % 4 < 2 { Grouping::Grouped } else { Grouping::Block };
        let what = format!("{model} under {} with {implicit:?}", loss.name());
        let y = few(shape);
        let job = started(job_stored(&y, model, ranks, loss, grouping, implicit, split));
        compare(&gpu, &job, &Tuning::joined(), &what);
    }
    // In many parts, and rows of many pieces.
    let tuning = Tuning { work: 1e5, scratch_bytes: 16 << 10, ..Tuning::joined() };
    for rank in [3, 37] {
        let (y, ranks) = (few(&[2, 133, 90]), [('r', rank)]);
        let model = "ir,jr,ar->ija";
        let job =
            job_stored(&y, model, &ranks, Loss::kl(), Grouping::Block, Implicit::Zeros, split);
        compare(&gpu, &started(job), &tuning, &format!("CP of rank {rank}"));
    }
}

/// Whether the padding would tell: the same fit with a shader that reads past the end.
#[test]
fn what_is_read_past_the_end_shows() {
    let Some(gpu) = gpu() else { return };
    let (model, shape, ranks) = CORPUS[0];
    let job = job_on(&values(shape), model, ranks, Loss::kl(), Grouping::Block, u64::MAX, |o| o);
    let job = started(job);
    let run = |wrong: bool| {
        let tuning = Tuning { joint: false, ..Tuning::default() };
        let mut compiled = compile(&job, gpu.limits(), &tuning).unwrap();
        for shader in &mut compiled.program.shaders {
            if wrong && shader.label == "step" {
                let right = "let a = quotients[i];";
                assert!(shader.source.contains(right));
                let past = "let a = quotients[i] + quotients[arrayLength(&quotients) - 1u];";
                shader.source = shader.source.replace(right, past);
            }
        }
        spoil(&mut compiled.program);
        fit(&mut GpuEngine::placed(&gpu, job.clone(), compiled).unwrap(), job.plan.groups().len())
    };
    assert!(run(false) != run(true));
}
