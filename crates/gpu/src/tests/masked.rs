//! Sums over the entries of each role in closed form, against the CPU in double precision, entry by entry.

use std::sync::Arc;

use ndarray::ArrayD;

use crate::device::handle::Gpu;
use crate::engine::GpuEngine;
use crate::program::compile::compile;
use crate::program::recording::{Command, GpuLimits, Program};
use crate::program::tuning::Tuning;
use crate::tests::jobs::{CORPUS, few, gpu, job_on, job_stored, started, values};
use crate::tests::joint::check_sweeps;
use crate::tests::nan_padding;
use crate::tests::shaders::validate;
use nneinfact_core::data::{Implicit, Observations};
use nneinfact_core::engine::{Engine, Job, LossSums, Precision};
use nneinfact_core::loss::Loss;
use nneinfact_core::plan::{Grouping, ImplicitForm, Plan, PlanSettings, SparseInfo};

fn split(o: Observations) -> Observations {
    o.held_out(0.2, 1).unwrap().validation(0.1, 1).unwrap()
}

/// The job with sums by roles in place of what its passes would sum entry by entry.
fn by_role(job: &Job) -> Job {
    let plan = &job.plan;
    let groups = plan.groups().iter().map(|group| group.factors.clone()).collect();
    let sparse = plan.settings().sparse;
    let settings = PlanSettings {
        grouping: Grouping::Given(groups),
        closed_denominator: sparse.is_none(),
        sparse: sparse.map(|sparse| SparseInfo { implicit: ImplicitForm::ByRole, ..sparse }),
        ..plan.settings().clone()
    };
    let plan = Plan::new(plan.shapes(), plan.data(), &settings).unwrap();
    Job { plan: Arc::new(plan), ..job.clone() }
}

/// Factors and losses after some sweeps.
fn fitted(engine: &mut dyn Engine, groups: usize) -> (Vec<ArrayD<f64>>, Vec<LossSums>) {
    let mut losses = Vec::new();
    for _ in 0..3 {
        for group in 0..groups {
            engine.pass(group).unwrap();
            engine.update(group).unwrap();
        }
        losses.extend(engine.sums().unwrap());
    }
    engine.evaluate().unwrap();
    losses.push(engine.sums().unwrap()[0]);
    (engine.factors().unwrap(), losses)
}

fn on_gpu(gpu: &Gpu, job: &Job, tuning: &Tuning) -> GpuEngine {
    let compiled = compile(job, gpu.limits(), tuning).unwrap();
    GpuEngine::placed(gpu, job.clone(), compiled).unwrap()
}

/// Holds the closed forms of a job against the CPU, which sums its entries.
fn check(gpu: &Gpu, job: &Job, tuning: &Tuning, what: &str) {
    let groups = job.plan.groups().len();
    let mut cpu = nneinfact_cpu::engine(job.clone(), Precision::F64).unwrap();
    let (expected, losses) = fitted(cpu.as_mut(), groups);
    let job = by_role(job);
    assert!(
        job.plan.passes().is_empty() || job.stored.is_none(),
        "{what}: no pass over all entries"
    );
    let (found, own) = fitted(&mut on_gpu(gpu, &job, tuning), groups);
    for (l, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let most = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= 1e-4 * most, "{what}: factor {l}, {f} for {e}");
        }
    }
    for (found, expected) in own.iter().zip(&losses) {
        let most = expected.train.abs() + expected.validation.abs() + expected.held_out.abs();
        for (f, e) in [
            (found.train, expected.train),
            (found.validation, expected.validation),
            (found.held_out, expected.held_out),
        ] {
            assert!((f - e).abs() <= 1e-4 * most, "{what}: {found:?} for {expected:?}");
        }
    }
}

/// Both ways to read the same data: over all entries, and the stored ones.
fn both(
    n: usize,
    loss: &Loss,
    observe: impl Fn(Observations) -> Observations,
) -> [(&'static str, Job); 2] {
    let (model, shape, ranks) = CORPUS[n];
    let (y, kl, grouping) = (few(shape), loss.clone(), Grouping::Grouped);
    let dense = job_on(&y, model, ranks, kl.clone(), grouping.clone(), u64::MAX, &observe);
    let stored = job_stored(&y, model, ranks, kl, grouping, Implicit::ByRole, &observe);
    [("dense", started(dense)), ("stored", started(stored))]
}

/// The models of the corpus by what is special about them: groups of one and several factors, batches, a
/// latent index of one factor alone, factors without latent indices, long sums.
const SOME: [usize; 9] = [0, 1, 3, 8, 12, 14, 15, 17, 21];

#[test]
fn sums_by_roles_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for n in SOME {
        for (kind, job) in both(n, &Loss::kl(), split) {
            // By one workgroup, and by many that share the blocks of a line, in many parts.
            let tuning = match n % 2 {
                0 => Tuning::joined(),
                _ => Tuning { work: 1e5, scratch_bytes: 4 << 10, ..Tuning::default() },
            };
            check(&gpu, &job, &tuning, &format!("{} {kind}", CORPUS[n].0));
        }
    }
    // A loss whose zeros have a numerator, and a constant loss.
    let (model, shape, ranks) = CORPUS[3];
    for loss in [Loss::jensen_shannon(), Loss::kl()] {
        let (y, what) = (few(shape), format!("{} stored", loss.name()));
        let job = job_stored(&y, model, ranks, loss, Grouping::Block, Implicit::ByRole, split);
        check(&gpu, &started(job), &Tuning::joined(), &what);
    }
}

/// Withholds where `held` says so, by the place of the first two modes and the number of the entry.
pub(crate) fn withheld(o: Observations, held: impl Fn(&[usize], usize) -> bool) -> Observations {
    let mut n = 0;
    let shape = o.shape().to_vec();
    let mut index = vec![0; shape.len()];
    let mask = ArrayD::from_shape_simple_fn(shape.as_slice(), || {
        let found = held(&index, n);
        n += 1;
        for mode in (0..shape.len()).rev() {
            index[mode] += 1;
            if index[mode] < shape[mode] {
                break;
            }
            index[mode] = 0;
        }
        found
    });
    o.held_out_mask(&mask).unwrap()
}

#[test]
fn extreme_shares_are_summed_well() {
    let Some(gpu) = gpu() else { return };
    type Held = fn(&[usize], usize) -> bool;
    let cases: [(&str, Held); 5] = [
        ("one entry left in a row, none in another", |index, _| match index[0] {
            0 => index[1..].iter().any(|&i| i > 0),
            1 => true,
            _ => false,
        }),
        ("a single entry withheld", |_, n| n == 17),
        ("one entry left in every row", |index, _| index[1..].iter().any(|&i| i > 0)),
        ("all but a few withheld", |_, n| n % 11 != 0),
        ("half of every row", |_, n| n % 2 == 0),
    ];
    for (what, held) in cases {
        for n in [3, 15] {
            for (kind, job) in both(n, &Loss::kl(), |o| withheld(o, held)) {
                check(&gpu, &job, &Tuning::joined(), &format!("{what}, {} {kind}", CORPUS[n].0));
            }
        }
    }
}

/// Nearly all of a sum over all columns lies in columns that a row withholds: what is left of it in single
/// precision would be rounding errors.
#[test]
fn what_a_difference_would_lose_is_summed_anew() {
    let Some(gpu) = gpu() else { return };
    let observe = |o| withheld(o, |index, _| index[1] < 2);
    for (kind, mut job) in both(3, &Loss::kl(), observe) {
        // Components that lie in the first two values of the second mode, but for a millionth.
        for ((j, _), x) in job.start[1].indexed_iter_mut().map(|(at, x)| ((at[0], at[1]), x)) {
            *x = if j < 2 { 1.0 } else { 1e-6 };
        }
        check(&gpu, &job, &Tuning::joined(), &format!("lost digits, {kind}"));
    }
}

#[test]
fn what_is_streamed_is_summed_by_roles_to_the_bit() {
    let Some(gpu) = gpu() else { return };
    let [(_, job), _] = both(15, &Loss::kl(), split);
    let (job, groups) = (by_role(&job), job.plan.groups().len());
    let whole = fitted(&mut on_gpu(&gpu, &job, &Tuning::default()), groups);
    let entries = job.data.values().len();
    let streamed = Tuning { stream: Some(entries), ..Tuning::default() };
    let found = fitted(&mut on_gpu(&gpu, &job, &streamed), groups);
    assert!(found == whole);
    check(
        &gpu,
        &both(15, &Loss::kl(), split)[0].1,
        &Tuning { stream: Some(97), ..streamed },
        "slabs",
    );
}

#[test]
fn nothing_past_the_end_of_lists_is_touched() {
    let Some(gpu) = gpu() else { return };
    for n in [3, 12, 15, 21] {
        let small = Tuning { work: 1e5, scratch_bytes: 4 << 10, ..Tuning::joined() };
        for (kind, job) in both(n, &Loss::kl(), split) {
            let what = format!("lists of {} {kind}", CORPUS[n].0);
            nan_padding::compare(&gpu, &by_role(&job), &small, &what);
        }
    }
}

#[test]
fn sweeps_without_the_host_have_sums_by_roles() {
    let Some(gpu) = gpu() else { return };
    for (kind, job) in both(15, &Loss::kl(), split) {
        check_sweeps(&gpu, &by_role(&job), &format!("by roles, {kind}"));
    }
}

/// The dispatches of a program's passes over the data, by the labels of their shaders.
fn dispatches(program: &Program, label: &str) -> usize {
    let commands = program.recordings.iter().flat_map(|recording| &recording.commands);
    let shaders = commands.filter_map(|command| match command {
        Command::Dispatch(dispatch) | Command::Indirect { dispatch, .. } => Some(dispatch.shader.0),
        _ => None,
    });
    shaders.filter(|&id| program.shaders[id].label.starts_with(label)).count()
}

#[test]
fn every_shader_of_sums_by_roles_validates() {
    let limits = GpuLimits::default();
    for (n, (model, shape, ranks)) in CORPUS.iter().enumerate() {
        for (kind, job) in both(n, &Loss::kl(), split) {
            let tuning = Tuning { joint: n % 2 == 0, ..Tuning::joined() };
            let program = compile(&by_role(&job), &limits, &tuning).unwrap().program;
            validate(&program, &limits);
            assert!(dispatches(&program, "sums over listed columns") > 0, "{model} {kind}");
            if kind == "stored" {
                assert_eq!(dispatches(&program, "pass over all"), 0, "{model}");
            }
        }
        // Of many numbers a line, and none.
        let ranks: Vec<(char, usize)> = ranks.iter().map(|&(x, rank)| (x, 7 * rank)).collect();
        let y = values(shape);
        let job = job_on(&y, model, &ranks, Loss::kl(), Grouping::Block, u64::MAX, split);
        validate(&compile(&by_role(&job), &limits, &Tuning::joined()).unwrap().program, &limits);
    }
}
