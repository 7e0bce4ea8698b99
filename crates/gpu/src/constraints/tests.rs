//! Penalised steps against double precision, and rescaling against the CPU.

use ndarray::ArrayD;

use super::*;
use crate::device::handle::Gpu;
use crate::engine::GpuEngine;
use crate::program::compile::compile;
use crate::program::recording::{BufferKind, Program, ShaderId, Window};
use crate::program::tuning::Tuning;
use crate::step::{constraint_words, step};
use crate::tests::jobs::{CORPUS, gpu, job_on, penalized_job, started, values};
use nneinfact_core::data::Observations;
use nneinfact_core::engine::{Constraint, Engine};
use nneinfact_core::loss::{Loss, Majorizer};
use nneinfact_core::plan::Grouping;
use nneinfact_core::reference::predict;

/// Numerators, denominators and weights of penalties that are tried in all combinations.
const VALUES: [f32; 7] = [0.0, 1e-12, 1e-5, 0.7, 3.0, 2e4, 1e12];
const WEIGHTS: [f32; 7] = [1e-12, 1e-6, 0.02, 0.3, 5.0, 1e5, 1e12];
/// Powers of two, so that the penalty gradient of a ridge is not rounded.
const ENTRIES: [f32; 3] = [0.00390625, 1.0, 32.0];

/// The steps that the shader of a step finds for all combinations: by weight, then
/// entry, numerator and denominator.
fn found(gpu: &Gpu, loss: &Loss, p: f64) -> Vec<f32> {
    let (mut quotients, mut factors) = ([Vec::new(), Vec::new()], Vec::new());
    for theta in ENTRIES {
        for a in VALUES {
            for b in VALUES {
                factors.push(theta);
                quotients[0].push(a);
                quotients[1].push(b);
            }
        }
    }
    let count = factors.len();
    let align = gpu.limits().uniform_align.max(16) as usize;
    let mut uniforms = vec![0u32; align / 4 * (WEIGHTS.len() + 1)];
    uniforms[..4].copy_from_slice(&[0, count as u32, count.div_ceil(64) as u32, 0]);
    let constraint = |weight: f64| Constraint {
        penalty: Some(Penalty::new(weight, p)),
        ..Constraint::default()
    };
    for (n, weight) in WEIGHTS.map(f64::from).into_iter().enumerate() {
        let words =
            constraint_words(&constraint(weight), loss.curvature_constant()).map(f32::to_bits);
        uniforms[align / 4 * (n + 1)..][..4].copy_from_slice(&words);
    }
    let mut program = Program {
        shaders: vec![step(loss, &constraint(1.0), false).unwrap()],
        ..Program::default()
    };
    for (label, kind, content) in [
        ("uniforms", BufferKind::Uniform, bytemuck::cast_slice(&uniforms).to_vec()),
        ("quotients", BufferKind::Storage, bytemuck::cast_slice(&quotients.concat()).to_vec()),
        ("factors", BufferKind::Storage, bytemuck::cast_slice(&factors).to_vec()),
        ("steps", BufferKind::Storage, vec![0; 4 * count]),
    ] {
        let id = program.add_buffer(label, content.len() as u64, kind);
        program.buffers[id.0].content = content;
    }
    let uniform = |n: usize| {
        Binding::Part(Window { buffer: BufferId(0), offset: (n * align) as u64, bytes: 16 })
    };
    for n in 0..WEIGHTS.len() {
        let mut bindings = vec![uniform(0)];
        bindings.extend((1..4).map(|n| Binding::Whole(BufferId(n))));
        bindings.push(uniform(n + 1));
        let workgroups = [count.div_ceil(64) as u32, 1, 1];
        program.recordings.push(Recording {
            label: "step".into(),
            commands: vec![small(ShaderId(0), bindings, workgroups, 1.0)],
        });
    }
    let loaded = gpu.load(program).unwrap();
    let mut found = Vec::new();
    for n in 0..WEIGHTS.len() {
        loaded.run(RecordingId(n)).unwrap();
        let bytes = loaded.read(BufferId(3), 0, 4 * count as u64).unwrap();
        found.extend(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes));
    }
    found
}

#[test]
fn steps_agree_with_double_precision() {
    let Some(gpu) = gpu() else { return };
    let alpha_beta = |alpha, beta| Loss::alpha_beta(alpha, beta).unwrap();
    let losses = [
        Loss::kl(),
        Loss::euclidean(),
        Loss::itakura_saito(),
        Loss::hellinger(),
        Loss::reverse_kl(),
        Loss::beta(3.0).unwrap(),
        alpha_beta(0.7, 0.0),
        alpha_beta(-1.0, 0.4),
        alpha_beta(-0.6, -0.7),
        Loss::bernoulli(),
        Loss::jensen_shannon(),
    ];
    let mut wrong = Vec::new();
    for loss in &losses {
        for p in [1.0, 1.05, 1.5, 2.0, 3.0, 6.0] {
            // A power of 1 / (p − 1) multiplies the roundings of a logarithm.
            let near = p < 1.5 && p > 1.0 && loss.majorizer() == Majorizer::Log;
            let exact = if near { 3e-4 } else { 1e-5 };
            let found = found(&gpu, loss, p);
            let mut found = found.iter();
            for weight in WEIGHTS.map(f64::from) {
                for (theta, (a, b)) in ENTRIES.iter().flat_map(|&theta| {
                    VALUES.iter().flat_map(move |&a| VALUES.iter().map(move |&b| (theta, (a, b))))
                }) {
                    let found = f64::from(*found.next().unwrap());
                    let gradient = Penalty::new(weight, p).derivative(f64::from(theta))
                        / loss.curvature_constant().abs();
                    let solve = |by: f64| {
                        let (a, b) = (f64::from(a), f64::from(b));
                        let falling = loss.curvature_constant() < 0.0;
                        loss.majorizer().penalized(a, b, gradient * by, p, falling)
                    };
                    let expected = solve(1.0);
                    // What a rounding of the gradient changes by itself.
                    let rounding = (solve(1.0 + 2e-7) - solve(1.0 - 2e-7)).abs();
                    let right = match expected {
                        x if x < 1e-20 => found < 1e-19,
                        x if x > 1e20 => found >= 1e6,
                        x => (found - x).abs() <= exact * x + rounding,
                    };
                    if !right {
                        wrong.push(format!(
                            "{} p {p} mu {weight:e} theta {theta} A {a:e} B {b:e}: {found:e}, not {expected:e}",
                            loss.name()
                        ));
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}

/// A cycle of rescaling steps, sums of penalties and what a pass says about the scale.
#[test]
fn rescaling_sums_and_terms_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (n, (model, shape, ranks)) in CORPUS.iter().enumerate() {
        let loss = [Loss::kl(), Loss::alpha_beta(0.7, 0.0).unwrap()][n % 2].clone();
        let grouping = if n % 3 == 0 { Grouping::Block } else { Grouping::Grouped };
        let all = |o: Observations| o;
        let job = job_on(&values(shape), model, ranks, loss, grouping, u64::MAX, all);
        let mut job = penalized_job(started(job), n);
        // Scales far apart, and a slice of zeros.
        for (l, factor) in job.start.iter_mut().enumerate() {
            let by = [30.0, 1.0, 0.02, 5.0][(l + n) % 4];
            factor.mapv_inplace(|x| x * by);
        }
        if job.start.len() > 1 && job.start[0].shape()[job.start[0].ndim() - 1] > 1 {
            let last = ndarray::Axis(job.start[0].ndim() - 1);
            job.start[0].index_axis_mut(last, 0).fill(0.0);
        }
        let compiled = compile(&job, gpu.limits(), &Tuning::default()).unwrap();
        let mut device = GpuEngine::placed(&gpu, job.clone(), compiled).unwrap();
        let mut cpu =
            nneinfact_cpu::engine(job.clone(), nneinfact_core::engine::Precision::F32).unwrap();
        let near = |found: f64, expected: f64, tolerance: f64, what: &str| {
            assert!(
                (found - expected).abs() <= tolerance * expected.abs(),
                "{model}: {what} is {found:e}, not {expected:e}"
            );
        };
        let sums = |engine: &mut dyn Engine| {
            engine.pass(0).unwrap();
            let sums = engine.sums().unwrap()[0];
            (sums, engine.scale_terms().unwrap())
        };
        let (first, terms) = sums(&mut device);
        let (expected, expected_terms) = sums(cpu.as_mut());
        near(first.penalty, expected.penalty, 1e-6, "the penalty");
        for (found, expected) in terms.into_iter().zip(expected_terms) {
            near(found, expected, 1e-5, "what the pass says about the scale");
        }
        let before = device.factors().unwrap();
        device.balance().unwrap();
        cpu.balance().unwrap();
        let (found, expected) = (device.factors().unwrap(), cpu.factors().unwrap());
        let shapes = job.plan.shapes();
        let apart = |found: &ArrayD<f64>, expected: &ArrayD<f64>| {
            let most = expected.iter().copied().fold(0.0, f64::max);
            let pairs = found.iter().zip(expected);
            pairs.fold(0.0, |m: f64, (f, e)| m.max((f - e).abs())) / most
        };
        let moved = apart(&predict(shapes, &found), &predict(shapes, &before));
        assert!(moved <= 1e-5, "{model}: the prediction moves by {moved:.1e}");
        for (l, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let apart = apart(found, expected);
            assert!(apart <= 1e-4, "{model}: factor {l} is {apart:.1e} apart");
        }
        let (after, expected) = (sums(&mut device).0, sums(cpu.as_mut()).0);
        near(after.penalty, expected.penalty, 1e-5, "the penalty afterwards");
        assert!(after.penalty <= first.penalty * (1.0 + 1e-6), "{model}: the penalty rises");
    }
}
