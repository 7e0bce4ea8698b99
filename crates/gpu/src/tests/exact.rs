//! Exact steps under half the squared distance, against those of the CPU in double precision.

use std::sync::Arc;

use crate::device::handle::Gpu;
use crate::engine::GpuEngine;
use crate::program::compile::compile;
use crate::program::recording::GpuLimits;
use crate::program::tuning::Tuning;
use crate::tests::jobs::{CORPUS, CorpusModel, few, gpu, job_on, job_stored, started, values};
use crate::tests::joint::check_sweeps;
use crate::tests::masked::withheld;
use crate::tests::nan_padding;
use crate::tests::shaders::validate;
use nneinfact_core::data::{Implicit, Observations};
use nneinfact_core::engine::{Engine, Extrapolation, Job, Point, Precision};
use nneinfact_core::loss::{Loss, Penalty};
use nneinfact_core::plan::{Balancing, Grouping, ImplicitForm, Plan, PlanSettings, SparseInfo};

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

/// Jobs with exact steps on data of which `observe` leaves some out, in every form that passes read them: over all
/// entries, and as lists beside which the others are zeros, missing, or have roles.
fn under(
    n: usize,
    grouping: Grouping,
    observe: &dyn Fn(Observations) -> Observations,
) -> Vec<(&'static str, Job)> {
    let (model, shape, ranks) = CORPUS[n];
    let loss = Loss::euclidean;
    let y = few(shape);
    let dense = job_on(&y, model, ranks, loss(), grouping.clone(), u64::MAX, observe);
    let stored =
        |implicit| job_stored(&y, model, ranks, loss(), grouping.clone(), implicit, observe);
    let jobs = vec![
        ("dense", dense),
        ("zeros", stored(Implicit::Zeros)),
        ("missing", stored(Implicit::Missing)),
        ("zeros over all entries", stored(Implicit::ByRole)),
        ("by roles", closed_by_role(stored(Implicit::ByRole))),
    ];
    jobs.into_iter().map(|(kind, job)| (kind, Job { exact: true, ..started(job) })).collect()
}

/// The same with closed forms for the losses of zeros.
fn closed_by_role(job: Job) -> Job {
    let plan = &job.plan;
    let groups = plan.groups().iter().map(|group| group.factors.clone()).collect();
    let sparse = plan.settings().sparse.map(|s| SparseInfo { implicit: ImplicitForm::ByRole, ..s });
    let grouping = Grouping::Given(groups);
    let settings = PlanSettings { grouping, sparse, ..plan.settings().clone() };
    let plan = Plan::new(plan.shapes(), plan.data(), &settings).unwrap();
    Job { plan: Arc::new(plan), ..job }
}

fn split(o: Observations) -> Observations {
    o.held_out(0.2, 1).unwrap().validation(0.1, 1).unwrap()
}

/// What every pass says of the objective of its group, and the losses of some sweeps. (None is extrapolated: where few
/// entries are left in a row, the minimum lies anywhere along some directions, and an extrapolation without its
/// guard ends anywhere.)
fn check_forms(gpu: &Gpu, job: &Job, tuning: &Tuning, what: &str) {
    let groups = job.plan.groups().len();
    let mut cpu = nneinfact_cpu::engine(job.clone(), Precision::F64).unwrap();
    let mut engine = on_gpu(gpu, job, tuning);
    assert!(cpu.is_exact() && engine.is_exact(), "{what}");
    let mut both: [&mut dyn Engine; 2] = [cpu.as_mut(), &mut engine];
    for group in 0..groups {
        let [expected, found] = both.each_mut().map(|engine| {
            engine.pass(group).unwrap();
            let terms = engine.scale_terms().unwrap().to_vec();
            let (numerator, curved) = engine.parts(0, &[]).unwrap();
            [terms, numerator, curved]
        });
        for (expected, found) in expected.iter().zip(&found) {
            let most = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
            for (e, f) in expected.iter().zip(found) {
                assert!((f - e).abs() <= 1e-5 * most, "{what}, group {group}: {f} for {e}");
            }
        }
    }
    let [expected, found] = both.map(|engine| {
        let mut losses = Vec::new();
        for _ in 0..4 {
            for group in 0..groups {
                engine.pass(group).unwrap();
                engine.update(group).unwrap();
            }
            let [start, ..] = engine.sums().unwrap();
            losses.push([start.train, start.validation + start.held_out]);
        }
        losses
    });
    let start: f64 = expected[0].iter().sum();
    for (sweep, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let apart = (found[0] - expected[0]).abs();
        // Beside zeros a loss is a difference of sums over all entries, and what is withheld may be predicted far off.
        let rounding = 1e-6 * expected[1];
        assert!(
            apart <= 1e-3 * (expected[0] + 0.1 * start) + rounding,
            "{what}, sweep {sweep}: {found:?} for {expected:?}"
        );
    }
    assert!(
        (found[0][1] - expected[0][1]).abs() <= 1e-5 * start,
        "{what}: {found:?} for {expected:?}"
    );
}

#[test]
fn exact_steps_under_splits_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for n in [0, 3, 8, 12, 14, 15, 17] {
        let grouping = if n % 2 == 0 { Grouping::Block } else { Grouping::Grouped };
        for (kind, job) in under(n, grouping, &split) {
            // In one part, and in many.
            let tuning = match n % 3 {
                0 => Tuning::joined(),
                _ => Tuning { work: 1e5, scratch_bytes: 4 << 10, ..Tuning::default() },
            };
            check_forms(&gpu, &job, &tuning, &format!("{}, {kind}", CORPUS[n].0));
        }
    }
}

#[test]
fn exact_steps_under_extreme_masks_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    type Held = fn(&[usize], usize) -> bool;
    let cases: [(&str, Held); 4] = [
        ("one entry left in a row, none in another", |index, _| match index[0] {
            0 => index[1..].iter().any(|&i| i > 0),
            1 => true,
            _ => false,
        }),
        ("a single entry withheld", |_, n| n == 17),
        ("one entry left in every row", |index, _| index[1..].iter().any(|&i| i > 0)),
        ("all but a few withheld", |_, n| n % 11 != 0),
    ];
    for (what, held) in cases {
        for (kind, job) in under(3, Grouping::Block, &|o| withheld(o, held)) {
            check_forms(&gpu, &job, &Tuning::joined(), &format!("{what}, {kind}"));
        }
    }
}

#[test]
fn exact_steps_under_weights_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (n, with_split) in [(3, false), (15, true), (21, true), (12, false)] {
        let (model, shape, ranks) = CORPUS[n];
        let observe = |o: Observations| {
            let weighted = o.weights(&(values(shape) / 8.0)).unwrap();
            if with_split { split(weighted) } else { weighted }
        };
        let (y, loss) = (values(shape), Loss::euclidean());
        let job = job_on(&y, model, ranks, loss, Grouping::Grouped, u64::MAX, observe);
        let job = Job { exact: true, ..started(job) };
        let small = Tuning { work: 1e4, scratch_bytes: 4 << 10, ..Tuning::joined() };
        for tuning in [Tuning::joined(), small] {
            check(&gpu, &job, &tuning, &format!("{model} with weights"));
        }
        if n == 15 {
            nan_padding::compare(&gpu, &job, &small, "weights");
        }
    }
}

/// Many numbers of a row: their pairs take several workgroups.
#[test]
fn forms_of_many_components_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let y = values(&[40, 300]);
    let (loss, grouping) = (Loss::euclidean(), Grouping::Block);
    let job = job_on(&y, "ir,jr->ij", &[('r', 23)], loss, grouping, u64::MAX, split);
    let job = Job { exact: true, ..started(job) };
    check_some(&gpu, &job, &Tuning::joined(), "23 components", (2, 1e-2));
}

/// A job whose second component lacks a column of its first factor, with penalties on all factors, balanced in every
/// sweep.
fn with_idle_component(
    (model, shape, ranks): CorpusModel,
    penalty: Penalty,
    observe: impl Fn(Observations) -> Observations,
) -> Job {
    let (y, loss) = (values(shape), Loss::euclidean());
    let job = job_on(&y, model, ranks, loss, Grouping::Grouped, u64::MAX, observe);
    let mut job = Job { exact: true, ..started(job) };
    job.start[0].index_axis_mut(ndarray::Axis(1), 1).fill(0.0);
    let count = job.constraints.len();
    job.constraints.iter_mut().for_each(|constraint| constraint.penalty = Some(penalty));
    let all: Vec<usize> = (0..count).collect();
    let balancing = Balancing::new(job.plan.shapes().model(), &all);
    job.balancing = Some(Arc::new(balancing));
    job
}

/// The penalised objective where sweeps begin, and the largest entry of every column of the factors at the end.
fn penalised(engine: &mut dyn Engine, groups: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    let mut objectives = Vec::new();
    for _ in 0..10 {
        for group in 0..groups {
            engine.pass(group).unwrap();
            engine.update(group).unwrap();
        }
        engine.balance().unwrap();
        objectives.push(engine.sums().unwrap()[0].objective());
    }
    let columns = |factor: &ndarray::ArrayD<f64>| {
        let columns = factor.lanes(ndarray::Axis(0));
        columns.into_iter().map(|c| c.iter().fold(0.0, |m: f64, &x| m.max(x))).collect()
    };
    (objectives, engine.factors().unwrap().iter().map(columns).collect())
}

#[test]
fn components_that_lie_idle_are_kept_as_the_cpu_keeps_them() {
    let Some(gpu) = gpu() else { return };
    let plain: fn(Observations) -> Observations = plain;
    for (n, observe) in [(4, plain), (15, plain), (3, split)] {
        for (strength, power) in [(0.01, 1.0), (0.01, 2.0), (8.0, 1.0)] {
            let job = with_idle_component(CORPUS[n], Penalty::new(strength, power), observe);
            let groups = job.plan.groups().len();
            let what = format!("{}, {strength} of power {power}", CORPUS[n].0);
            let mut cpu = nneinfact_cpu::engine(job.clone(), Precision::F64).unwrap();
            let (expected, kept) = penalised(cpu.as_mut(), groups);
            for tuning in [Tuning::joined(), Tuning { joint: false, ..Tuning::default() }] {
                let mut engine = on_gpu(&gpu, &job, &tuning);
                assert!(engine.is_exact(), "{what}");
                let (found, own) = penalised(&mut engine, groups);
                for (sweep, (f, e)) in found.iter().zip(&expected).enumerate() {
                    assert!((f - e).abs() <= 1e-3 * e.abs(), "{what}, sweep {sweep}: {f} for {e}");
                }
                for (l, (own, kept)) in own.iter().zip(&kept).enumerate() {
                    let alive = |all: &[f64]| all.iter().map(|&x| x > 0.0).collect::<Vec<_>>();
                    assert_eq!(alive(own), alive(kept), "{what}: columns of factor {l}");
                }
            }
        }
    }
}

/// What no data depend on is halved by a sweep, not set to zero.
#[test]
fn idle_columns_are_halved() {
    let Some(gpu) = gpu() else { return };
    let job = with_idle_component(CORPUS[4], Penalty::new(0.01, 1.0), plain);
    let groups = job.plan.groups().len();
    let mut engine = on_gpu(&gpu, &job, &Tuning::joined());
    // The first factor is updated last, and gives them nothing to come back by.
    let first = (0..groups).find(|&g| !job.plan.groups()[g].factors.contains(&0)).unwrap();
    let member = job.plan.groups()[first].factors[0];
    let before = engine.factors().unwrap()[member].clone();
    engine.pass(first).unwrap();
    engine.update(first).unwrap();
    let after = engine.factors().unwrap()[member].clone();
    let column = |f: &ndarray::ArrayD<f64>| f.index_axis(ndarray::Axis(1), 1).to_owned();
    let (before, after) = (column(&before), column(&after));
    for (x, y) in before.iter().zip(&after) {
        assert!((y - 0.5 * x).abs() <= 1e-6 * x, "{y} for half of {x}");
    }
}

#[test]
fn nothing_past_the_end_of_forms_is_touched() {
    let Some(gpu) = gpu() else { return };
    for n in [3, 12, 15] {
        let job = exact(n, Grouping::Grouped, n == 15);
        nan_padding::compare(&gpu, &job, &Tuning::joined(), &format!("exact, {}", CORPUS[n].0));
    }
    for (kind, job) in under(15, Grouping::Grouped, &split) {
        let small = Tuning { work: 1e5, scratch_bytes: 4 << 10, ..Tuning::joined() };
        nan_padding::compare(&gpu, &job, &small, &format!("forms of rows, {kind}"));
    }
    let job = with_idle_component(CORPUS[4], Penalty::new(0.01, 1.0), plain);
    nan_padding::compare(&gpu, &job, &Tuning::joined(), "idle components");
}

#[test]
fn sweeps_without_the_host_take_exact_steps() {
    let Some(gpu) = gpu() else { return };
    for stored in [false, true] {
        check_sweeps(&gpu, &exact(3, Grouping::Block, stored), &format!("exact, stored {stored}"));
    }
    for (kind, job) in under(15, Grouping::Grouped, &split) {
        check_sweeps(&gpu, &job, &format!("exact under splits, {kind}"));
    }
}

#[test]
fn every_shader_of_exact_steps_validates() {
    let limits = GpuLimits::default();
    for n in 0..CORPUS.len() {
        for grouping in [Grouping::Block, Grouping::Grouped] {
            let job = exact(n, grouping.clone(), n % 2 == 0);
            let tuning = Tuning { joint: n % 3 > 0, ..Tuning::joined() };
            validate(&compile(&job, &limits, &tuning).unwrap().program, &limits);
            for (_, job) in under(n, grouping, &split) {
                validate(&compile(&job, &limits, &tuning).unwrap().program, &limits);
            }
        }
    }
}
