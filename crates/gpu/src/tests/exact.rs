//! Exact steps under half the squared distance, against those of the CPU in double precision.

use crate::device::handle::Gpu;
use crate::engine::GpuEngine;
use crate::program::compile::compile;
use crate::program::recording::GpuLimits;
use crate::program::tuning::Tuning;
use crate::tests::jobs::{CORPUS, few, gpu, job_on, job_stored, started, values};
use crate::tests::joint::check_sweeps;
use crate::tests::nan_padding;
use crate::tests::shaders::validate;
use nneinfact_core::data::{Implicit, Observations};
use nneinfact_core::engine::{Engine, Extrapolation, Job, Point, Precision};
use nneinfact_core::loss::{Loss, Penalty};
use nneinfact_core::plan::Grouping;

fn plain(o: Observations) -> Observations {
    o
}

/// A model of the corpus on all entries, or on those that are not 0, with exact steps.
fn exact(n: usize, grouping: Grouping, stored: bool) -> Job {
    let (model, shape, ranks) = CORPUS[n];
    let loss = Loss::euclidean();
    let job = match stored {
        false => job_on(&values(shape), model, ranks, loss, grouping, u64::MAX, plain),
        true => job_stored(&few(shape), model, ranks, loss, grouping, Implicit::Zeros, plain),
    };
    Job { exact: true, ..started(job) }
}

/// The training loss at every point of some sweeps, two of them extrapolated, and what the last pass says of
/// the scale of the data and of every entry of the first factor of its group.
fn losses(engine: &mut dyn Engine, groups: usize) -> (Vec<f64>, Vec<f64>) {
    let mut losses = Vec::new();
    engine.copy(Point::Current, Point::Anchor).unwrap();
    for sweep in 0..4 {
        for group in 0..groups {
            engine.pass(group).unwrap();
            engine.update(group).unwrap();
        }
        losses.push(engine.sums().unwrap()[0].objective());
        match sweep {
            0 => engine.copy(Point::Current, Point::Anchor).unwrap(),
            _ => engine
                .extrapolate(Extrapolation { momentum: 0.2, relaxation: 0.3, least: 0.9 })
                .unwrap(),
        }
    }
    engine.pass(0).unwrap();
    losses.push(engine.sums().unwrap()[0].objective());
    let mut told = engine.scale_terms().unwrap().to_vec();
    let (numerator, denominator) = engine.parts(0, &[]).unwrap();
    told.extend([numerator.iter().sum::<f64>(), denominator.iter().sum()]);
    (losses, told)
}

fn on_gpu(gpu: &Gpu, job: &Job, tuning: &Tuning) -> GpuEngine {
    let compiled = compile(job, gpu.limits(), tuning).unwrap();
    GpuEngine::placed(gpu, job.clone(), compiled).unwrap()
}

fn check(gpu: &Gpu, job: &Job, tuning: &Tuning, what: &str) {
    check_some(gpu, job, tuning, what, (usize::MAX, 1e-3));
}

/// So many losses agree to this fraction, and if all do, what the last pass says agrees to a thousandth.
fn check_some(gpu: &Gpu, job: &Job, tuning: &Tuning, what: &str, (count, apart_by): (usize, f64)) {
    let groups = job.plan.groups().len();
    let mut cpu = nneinfact_cpu::engine(job.clone(), Precision::F64).unwrap();
    let mut engine = on_gpu(gpu, job, tuning);
    assert!(cpu.is_exact() && engine.is_exact(), "{what}");
    let (expected, told) = losses(cpu.as_mut(), groups);
    let (found, own) = losses(&mut engine, groups);
    let squares: f64 = match &job.stored {
        Some(stored) => stored.entries().sum_of_squares(),
        None => job.data.values().sum_of_squares(),
    };
    for (found, expected) in found.iter().zip(&expected).take(count) {
        let apart = (found - expected).abs();
        assert!(
            apart <= apart_by * expected.abs() + 1e-6 * squares,
            "{what}: {found} for {expected}"
        );
    }
    if count < found.len() {
        return;
    }
    for (found, expected) in own.iter().zip(&told) {
        let apart = (found - expected).abs();
        assert!(apart <= 1e-3 * (expected.abs() + squares), "{what}: {found} for {expected}");
    }
}

#[test]
fn exact_steps_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    // Groups of one factor and of several, batches, cores, long sums, factors without latent indices.
    for n in [0, 1, 3, 6, 8, 10, 12, 15, 17, 18, 22] {
        let grouping = if n % 3 == 0 { Grouping::Block } else { Grouping::Grouped };
        let stored = n % 2 == 1;
        let tuning = if n % 4 < 2 { Tuning::joined() } else { Tuning::default() };
        check(&gpu, &exact(n, grouping, stored), &tuning, CORPUS[n].0);
    }
    // More entries in a row than threads that share it, and rows in several dispatches.
    let y = values(&[7, 300]);
    for (rank, work) in [(300, 1e10), (5, 1e4)] {
        let job = job_on(
            &y,
            "ir,jr->ij",
            &[('r', rank)],
            Loss::euclidean(),
            Grouping::Block,
            u64::MAX,
            plain,
        );
        let job = Job { exact: true, ..started(job) };
        let what = format!("NMF of rank {rank}");
        // 300 components of seven rows: rounding decides which of them takes what, and extrapolations differ.
        let agreed = if rank > 7 { (1, 2e-2) } else { (usize::MAX, 1e-3) };
        check_some(&gpu, &job, &Tuning { work, ..Tuning::joined() }, &what, agreed);
    }
}

#[test]
fn exact_steps_keep_to_penalties_bounds_and_negative_data() {
    let Some(gpu) = gpu() else { return };
    let (model, shape, ranks) = CORPUS[3];
    let y = values(shape) - 6.0;
    let loss = Loss::euclidean();
    let job = job_on(&y, model, ranks, loss, Grouping::Block, u64::MAX, plain);
    let mut job = Job { exact: true, ..started(job) };
    check(&gpu, &job, &Tuning::joined(), "negative data");
    job.constraints[0].penalty = Some(Penalty::new(0.8, 1.0));
    job.constraints[1].penalty = Some(Penalty::new(0.5, 2.0));
    (job.constraints[2].lower, job.constraints[2].upper) = (0.2, 0.7);
    check(&gpu, &job, &Tuning::joined(), "penalties and bounds");
    let mut engine = on_gpu(&gpu, &job, &Tuning::joined());
    losses(&mut engine, 3);
    let factors = engine.factors().unwrap();
    assert!(factors[2].iter().all(|x| (0.2..=0.7).contains(x)));
    assert!(factors[0].iter().any(|&x| x == 0.0), "an l1 penalty brings entries to 0");
}

#[test]
fn entries_that_differ_in_what_they_count_are_majorized() {
    let (model, shape, ranks) = CORPUS[3];
    let split = |o: Observations| o.held_out(0.2, 1).unwrap();
    let y = values(shape);
    let job = job_on(&y, model, ranks, Loss::euclidean(), Grouping::Block, u64::MAX, split);
    let job = Job { exact: true, ..started(job) };
    let compiled = compile(&job, &GpuLimits::default(), &Tuning::joined()).unwrap();
    assert!(compiled.exact.is_none());
}

#[test]
fn nothing_past_the_end_of_forms_is_touched() {
    let Some(gpu) = gpu() else { return };
    for n in [3, 12, 15] {
        let job = exact(n, Grouping::Grouped, n == 15);
        nan_padding::compare(&gpu, &job, &Tuning::joined(), &format!("exact, {}", CORPUS[n].0));
    }
}

#[test]
fn sweeps_without_the_host_take_exact_steps() {
    let Some(gpu) = gpu() else { return };
    for stored in [false, true] {
        check_sweeps(&gpu, &exact(3, Grouping::Block, stored), &format!("exact, stored {stored}"));
    }
}

#[test]
fn every_shader_of_exact_steps_validates() {
    let limits = GpuLimits::default();
    for n in 0..CORPUS.len() {
        for grouping in [Grouping::Block, Grouping::Grouped] {
            let job = exact(n, grouping, n % 2 == 0);
            let tuning = Tuning { joint: n % 3 > 0, ..Tuning::joined() };
            validate(&compile(&job, &limits, &tuning).unwrap().program, &limits);
        }
    }
}
