//! Small operations that share dispatches, and sweeps that the host does not wait for: to the bit what
//! dispatches of their own, and the host, make of a fit.

use std::collections::BTreeMap;

use ndarray::ArrayD;

use crate::device::handle::Gpu;
use crate::engine::GpuEngine;
use crate::joint::operation::{
    Element, Elementwise, Operation, OperationText, Reach, Reaches, Seen,
};
use crate::joint::schedule::{JointLimits, Step, buffers, schedule};
use crate::program::compile::compile;
use crate::program::recording::{Access, BufferId, Command, Program};
use crate::program::tuning::Tuning;
use crate::tests::jobs::{CORPUS, few, gpu, job_on, job_stored, penalized_job, started, values};
use nneinfact_core::data::{Implicit, Observations};
use nneinfact_core::engine::{Engine, Extrapolation, Job, LossSums, Point, SweepEnd};
use nneinfact_core::loss::Loss;
use nneinfact_core::plan::Grouping;

fn split(o: Observations) -> Observations {
    o.held_out(0.2, 1).unwrap().validation(0.1, 1).unwrap()
}

fn bits(sums: &[LossSums]) -> Vec<u64> {
    let all = sums.iter().flat_map(|s| [s.train, s.validation, s.held_out, s.penalty]);
    all.map(f64::to_bits).collect()
}

fn engine(gpu: &Gpu, job: &Job, tuning: &Tuning) -> GpuEngine {
    let compiled = compile(job, gpu.limits(), tuning).unwrap();
    GpuEngine::placed(gpu, job.clone(), compiled).unwrap()
}

/// What a fit of three sweeps, two of them extrapolated, comes to.
fn fitted(mut engine: GpuEngine, groups: usize) -> (Vec<ArrayD<f64>>, Vec<u64>) {
    let mut losses = Vec::new();
    engine.copy(Point::Current, Point::Anchor).unwrap();
    let of = |momentum, relaxation| Extrapolation { momentum, relaxation, least: 0.9 };
    for extrapolation in [None, Some(of(0.3, 0.6)), Some(of(0.4, 0.5))] {
        for group in 0..groups {
            engine.pass(group).unwrap();
            engine.update(group).unwrap();
        }
        engine.balance().unwrap();
        match extrapolation {
            Some(by) => engine.extrapolate(by).unwrap(),
            None => engine.copy(Point::Current, Point::Anchor).unwrap(),
        }
        losses.extend(bits(&engine.sums().unwrap()));
    }
    (engine.factors().unwrap(), losses)
}

fn compare(gpu: &Gpu, job: &Job, what: &str) {
    let groups = job.plan.groups().len();
    let alone = Tuning { joint: false, ..Tuning::default() };
    let expected = fitted(engine(gpu, job, &alone), groups);
    // By one workgroup where it can be, and by as many as can share it.
    for joint_turns in [32, 0] {
        let tuning = Tuning { joint_turns, ..Tuning::joined() };
        let found = fitted(engine(gpu, job, &tuning), groups);
        assert!(found == expected, "{what}, {joint_turns} turns");
    }
}

#[test]
fn joint_dispatches_do_to_the_bit_what_dispatches_alone_do() {
    let Some(gpu) = gpu() else { return };
    let losses = [
        Loss::kl(),
        Loss::alpha_beta(0.7, 0.0).unwrap(),
        Loss::alpha_beta(0.0, 1.0).unwrap(),
        Loss::euclidean(),
        Loss::alpha_beta(-1.0, 0.4).unwrap(),
    ];
    for (n, (model, shape, ranks)) in CORPUS.iter().enumerate() {
        // Groups of one, two and three factors, long sums, factors of many indices.
        if ![0, 3, 6, 7, 12, 15, 21].contains(&n) {
            continue;
        }
        let loss = &losses[n % losses.len()];
        let grouping = if n == 0 { Grouping::Block } else { Grouping::Grouped };
        let y = values(shape);
        let job = job_on(&y, model, ranks, loss.clone(), grouping.clone(), u64::MAX, split);
        let job = started(job);
        compare(&gpu, &job, &format!("{model} dense"));
        if n % 2 == 0 {
            compare(&gpu, &penalized_job(job, n), &format!("{model} penalised"));
        } else if loss.domain().contains(0.0, &[]) {
            let job = job_stored(
                &few(shape),
                model,
                ranks,
                loss.clone(),
                grouping,
                Implicit::Zeros,
                split,
            );
            compare(&gpu, &started(job), &format!("{model} stored"));
        }
    }
}

/// The ends of plain sweeps, and then of extrapolated ones.
fn ends(plain: usize, extrapolated: usize) -> Vec<SweepEnd> {
    let end = |n: usize| {
        let momentum = 0.2 + 0.02 * n as f64;
        SweepEnd::Extrapolate(Extrapolation {
            momentum,
            relaxation: 0.5,
            least: 0.9 - 0.01 * n as f64,
        })
    };
    (0..plain).map(|_| SweepEnd::Anchor).chain((0..extrapolated).map(end)).collect()
}

/// Sweeps as the host makes them: losses, and factors after each.
fn by_host(
    engine: &mut GpuEngine,
    groups: usize,
    ends: &[SweepEnd],
) -> Vec<(Vec<u64>, Vec<ArrayD<f64>>)> {
    engine.copy(Point::Current, Point::Anchor).unwrap();
    engine.pass(0).unwrap();
    let mut found = Vec::new();
    for end in ends {
        engine.update(0).unwrap();
        for group in 1..groups {
            engine.pass(group).unwrap();
            engine.update(group).unwrap();
        }
        match *end {
            SweepEnd::Plain => {}
            SweepEnd::Anchor => engine.copy(Point::Current, Point::Anchor).unwrap(),
            SweepEnd::Extrapolate(by) => engine.extrapolate(by).unwrap(),
        }
        engine.pass(0).unwrap();
        found.push((bits(&engine.sums().unwrap()), engine.factors().unwrap()));
    }
    found
}

pub(crate) fn check_sweeps(gpu: &Gpu, job: &Job, what: &str) {
    let groups = job.plan.groups().len();
    let ends = ends(2, 12);
    let expected = by_host(&mut engine(gpu, job, &Tuning::joined()), groups, &ends);
    let mut ahead = engine(gpu, job, &Tuning::joined());
    ahead.copy(Point::Current, Point::Anchor).unwrap();
    ahead.pass(0).unwrap();
    let mut made = 0;
    while made < ends.len() {
        let found = ahead.sweeps(&ends[made..]).unwrap();
        assert!(!found.is_empty(), "{what}: no sweep after {made}");
        for (n, sums) in found.iter().enumerate() {
            assert_eq!(bits(sums), expected[made + n].0, "{what}: sweep {}", made + n);
        }
        let there = |engine: &GpuEngine, sweeps: usize| {
            assert!(engine.factors().unwrap() == expected[made + sweeps - 1].1, "{what}");
        };
        there(&ahead, found.len());
        // Back to its middle, and on from there.
        let half = found.len().div_ceil(2);
        ahead.repeat_sweeps(half).unwrap();
        there(&ahead, half);
        made += half;
        if expected
            .get(made)
            .is_some_and(|(_, factors)| factors.iter().flatten().any(|x| !x.is_finite()))
        {
            return;
        }
    }
}

#[test]
fn sweeps_without_the_host_are_to_the_bit_those_with_it() {
    let Some(gpu) = gpu() else { return };
    for n in [3, 5, 15, 8] {
        let (model, shape, ranks) = CORPUS[n];
        let y = values(shape);
        let job = job_on(&y, model, ranks, Loss::kl(), Grouping::Grouped, u64::MAX, split);
        if job.plan.groups().len() > 1 {
            check_sweeps(&gpu, &started(job), &format!("{model} dense"));
        }
        let y = few(shape);
        let job =
            job_stored(&y, model, ranks, Loss::kl(), Grouping::Grouped, Implicit::Zeros, split);
        if job.plan.groups().len() > 1 {
            check_sweeps(&gpu, &started(job), &format!("{model} stored"));
        }
    }
}

#[test]
fn the_device_stops_where_an_extrapolation_is_not_clearly_better() {
    let Some(gpu) = gpu() else { return };
    let (model, shape, ranks) = CORPUS[3];
    let job = job_on(
        &values(shape),
        model,
        ranks,
        Loss::kl(),
        Grouping::Grouped,
        u64::MAX,
        |o: Observations| o,
    );
    let job = started(job);
    let groups = job.plan.groups().len();
    // Far beyond what pays.
    let mut all = ends(3, 0);
    all.push(SweepEnd::Extrapolate(Extrapolation {
        momentum: 0.99,
        relaxation: 40.0,
        least: 0.01,
    }));
    let expected = by_host(&mut engine(&gpu, &job, &Tuning::joined()), groups, &all);
    all.extend(ends(0, 4));
    let mut ahead = engine(&gpu, &job, &Tuning::joined());
    ahead.copy(Point::Current, Point::Anchor).unwrap();
    ahead.pass(0).unwrap();
    let mut found = Vec::new();
    while found.len() < 4 {
        found.extend(ahead.sweeps(&all[found.len()..]).unwrap());
    }
    let last = found.last().unwrap();
    assert!(last[0].objective() > last[1].objective());
    assert_eq!(found.len(), 4);
    let seen: Vec<Vec<u64>> = found.iter().map(|sums| bits(sums)).collect();
    let host: Vec<Vec<u64>> = expected.iter().map(|(losses, _)| losses.clone()).collect();
    assert_eq!(seen, host);
    assert!(ahead.factors().unwrap() == expected[3].1);
    assert_eq!(bits(&ahead.sums().unwrap()), expected[3].0);
    // The host goes back, and on.
    ahead.copy(Point::Anchor, Point::Current).unwrap();
    ahead.pass(0).unwrap();
    let sums = ahead.sums().unwrap();
    assert!(sums[0].objective() < last[0].objective());
    assert!(!ahead.sweeps(&ends(0, 2)).unwrap().is_empty());
}

/// Numbers below another, of no pattern.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// An operation on some words of two of a few buffers, with a number of its own.
fn some_operation(random: &mut Random, number: u32) -> Operation {
    let mut reach = || {
        let buffer = BufferId(random.below(6) as usize);
        Reach::new(buffer, random.below(12) as usize, 4)
    };
    let (read, written) = (reach(), reach());
    let seen = |reach: &Reach, access| Seen {
        name: format!("b{}", reach.buffer.0),
        buffer: reach.buffer,
        element: Element::Float,
        access,
    };
    Operation {
        text: OperationText {
            label: "test",
            body: String::new(),
            seen: vec![seen(&read, Access::Read), seen(&written, Access::ReadWrite)],
        },
        head: [1, 1],
        words: vec![number, 0, 0, 0],
        elements: (random.below(2) == 0).then_some(4),
        turns: random.below(8) as usize + 1,
        elementwise: match random.below(3) {
            0 => Elementwise::Leaves(written.buffer),
            1 => Elementwise::Takes(read.buffer),
            _ => Elementwise::No,
        },
        reaches: Reaches::new(vec![read], vec![written]),
        repeatable: false,
    }
}

/// Chains of a joint dispatch are done in any order, at once: what one writes no other may see. And what
/// an operation needs is there before it, whatever else is moved to the front.
#[test]
fn chains_do_not_see_each_other() {
    let limits =
        JointLimits { threads: 64, buffers: 3, turns: 4, chain: 12, shared: 20, workgroups: 8 };
    let mut random = Random(1);
    let mut together = 0;
    for _ in 0..300 {
        let told: Vec<Operation> = (0..30).map(|n| some_operation(&mut random, n)).collect();
        let small = |operation: &Operation| {
            let (from, to) = (operation.reaches.reads[0].buffer, BufferId(6));
            let copy = Command::Copy { from, from_offset: 0, to, to_offset: 0, bytes: 4 };
            Command::Small { otherwise: Box::new(copy), operations: vec![operation.clone()] }
        };
        let steps = schedule(told.iter().map(small).collect(), &Program::default(), &limits);
        // Which dispatch, which chain, which place in it.
        let mut places: BTreeMap<u32, (usize, usize, usize)> = BTreeMap::new();
        for (s, step) in steps.iter().enumerate() {
            let Step::Joint(joint) = step else { panic!("every operation may be in one") };
            assert!(buffers(&joint.operations()).len() <= limits.buffers);
            let turns: usize = joint.operations().iter().map(|operation| operation.turns).sum();
            assert!(turns <= limits.shared);
            for (c, chain) in joint.chains.iter().enumerate() {
                for (o, operation) in chain.operations.iter().enumerate() {
                    assert!(places.insert(operation.words[0], (s, c, o)).is_none());
                    assert!(chain.shared.is_none_or(|n| operation.elements == Some(n)));
                }
            }
        }
        assert_eq!(places.len(), told.len());
        together += told.len() - steps.len();
        for (i, first) in told.iter().enumerate() {
            for second in &told[i + 1..] {
                let (a, b) = (places[&first.words[0]], places[&second.words[0]]);
                let after = a.0 < b.0 || (a.0 == b.0 && a.1 == b.1 && a.2 < b.2);
                assert!(after || !first.reaches.meets(&second.reaches), "{a:?} {b:?}");
            }
        }
    }
    assert!(together > 300);
}
