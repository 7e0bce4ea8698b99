//! Several fits on one device that share data, lists and shaders.

use crate::engine::GpuEngine;
use crate::program::compile::compile;
use crate::program::tuning::Tuning;
use crate::tests::jobs::{CORPUS, few, gpu, job_on, job_stored, started};
use nneinfact_core::data::{Implicit, Observations};
use nneinfact_core::engine::{Engine, Extrapolation, Job, Point};
use nneinfact_core::loss::Loss;
use nneinfact_core::plan::Grouping;

fn split(o: Observations) -> Observations {
    o.held_out(0.2, 1).unwrap().validation(0.1, 1).unwrap()
}

fn jobs() -> [Job; 3] {
    let (model, shape, ranks) = CORPUS[15];
    let y = few(shape);
    let grouping = Grouping::Grouped;
    let dense = job_on(&y, model, ranks, Loss::kl(), grouping.clone(), u64::MAX, split);
    let stored = job_stored(&y, model, ranks, Loss::kl(), grouping.clone(), Implicit::Zeros, split);
    let exact = job_on(&y, model, ranks, Loss::euclidean(), grouping, u64::MAX, |o| o);
    [started(dense), started(stored), Job { exact: true, ..started(exact) }]
}

/// A sweep that ends with an extrapolation, and what it finds, to the bit.
fn sweep(engine: &mut dyn Engine, groups: usize) -> Vec<u64> {
    for group in 0..groups {
        engine.pass(group).unwrap();
        engine.update(group).unwrap();
    }
    engine.extrapolate(Extrapolation { momentum: 0.2, relaxation: 0.3, least: 0.9 }).unwrap();
    let sums = engine.sums().unwrap();
    let losses = sums.iter().flat_map(|s| [s.train, s.validation, s.held_out]);
    let factors = engine.factors().unwrap();
    losses.chain(factors.iter().flatten().copied()).map(f64::to_bits).collect()
}

#[test]
fn fits_that_share_data_do_not_see_each_other() {
    let Some(gpu) = gpu() else { return };
    for (n, job) in jobs().into_iter().enumerate() {
        let groups = job.plan.groups().len();
        let fresh = || {
            let compiled = compile(&job, gpu.limits(), &Tuning::joined()).unwrap();
            GpuEngine::placed(&gpu, job.clone(), compiled).unwrap()
        };
        let expected: Vec<Vec<u64>> = {
            let mut alone = fresh();
            alone.copy(Point::Current, Point::Anchor).unwrap();
            (0..3).map(|_| sweep(&mut alone, groups)).collect()
        };
        let mut first = fresh();
        let mut second = first.another().unwrap().expect("there is memory for it");
        assert_eq!(second.is_exact(), first.is_exact());
        first.copy(Point::Current, Point::Anchor).unwrap();
        second.copy(Point::Current, Point::Anchor).unwrap();
        // In turn, the second being one sweep behind; and on without the first.
        assert!(sweep(&mut first, groups) == expected[0], "job {n}");
        assert!(sweep(second.as_mut(), groups) == expected[0], "job {n}");
        assert!(sweep(&mut first, groups) == expected[1], "job {n}");
        drop(first);
        let third = second.another().unwrap().expect("one more, of the second");
        assert!(sweep(second.as_mut(), groups) == expected[1], "job {n}");
        drop(third);
        assert!(sweep(second.as_mut(), groups) == expected[2], "job {n}");
    }
}

#[test]
fn fits_to_streamed_data_share_nothing() {
    let Some(gpu) = gpu() else { return };
    let [job, ..] = jobs();
    let tuning = Tuning { stream: Some(97), ..Tuning::default() };
    let compiled = compile(&job, gpu.limits(), &tuning).unwrap();
    let engine = GpuEngine::placed(&gpu, job, compiled).unwrap();
    assert!(engine.another().unwrap().is_none());
}
