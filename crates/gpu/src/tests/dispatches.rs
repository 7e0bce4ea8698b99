//! How many dispatches a sweep is, of models and data of the sizes that people fit.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::program::compile::{Compiled, compile};
use crate::program::recording::{Binding, Command, GpuLimits, Program};
use crate::program::tuning::Tuning;
use crate::tests::jobs::{job, job_of_list};
use nneinfact_core::data::CooTensor;
use nneinfact_core::engine::Job;
use nneinfact_core::loss::Loss;
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::{DataInfo, Grouping, Plan, PlanSettings};

/// A model of the guide on data of the sizes that it is fitted to, and how many entries of them are not 0.
struct Sized {
    name: &'static str,
    model: &'static str,
    shape: &'static [usize],
    ranks: &'static [(char, usize)],
    stored: usize,
}

const SIZED: &[Sized] = &[
    Sized {
        name: "NMF",
        model: "ir,jr->ij",
        shape: &[20_000, 10_000],
        ranks: &[('r', 50)],
        stored: 200_000,
    },
    Sized {
        name: "CP3",
        model: "ir,jr,ar->ija",
        shape: &[250, 250, 1200],
        ranks: &[('r', 20)],
        stored: 200_000,
    },
    Sized {
        name: "CP4",
        model: "ir,jr,ar,tr->ijat",
        shape: &[249, 249, 20, 228],
        ranks: &[('r', 20)],
        stored: 200_000,
    },
    // The paper's pickups.
    Sized {
        name: "spatial",
        model: "wr,dr,hr,ikr,jkr->wdhij",
        shape: &[27, 24, 7, 100, 100],
        ranks: &[('r', 10), ('k', 6)],
        stored: 286_000,
    },
];

impl Sized {
    /// Its job over all entries. Programs depend on the data by their kind alone, so few entries are
    /// enough beside a plan of its sizes.
    fn dense(&self, loss: &Loss) -> Job {
        let few = vec![2; self.shape.len()];
        let small = job(self.model, &few, self.ranks, loss.clone(), Grouping::Grouped, |o| o);
        let shapes = Shapes::new(small.plan.shapes().model(), self.shape, self.ranks).unwrap();
        let settings = PlanSettings {
            grouping: Grouping::Grouped,
            closed_denominator: loss.denominator_constant().is_some(),
            ..PlanSettings::default()
        };
        let plan = Plan::new(&shapes, &DataInfo::c_order(&shapes, 1), &settings).unwrap();
        Job { plan: Arc::new(plan), ..small }
    }

    /// As many entries anywhere.
    fn list(&self) -> CooTensor {
        let mut random = 1u64;
        let mut below = |most: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % most as u64
        };
        let indices: Vec<Vec<u64>> =
            self.shape.iter().map(|&n| (0..self.stored).map(|_| below(n)).collect()).collect();
        CooTensor::new(self.shape, &indices, &vec![1.0; self.stored]).unwrap()
    }
}

fn losses() -> [Loss; 4] {
    [
        Loss::kl(),
        Loss::alpha_beta(0.7, 0.0).unwrap(),
        Loss::euclidean(),
        Loss::negative_binomial(2.0).unwrap(),
    ]
}

/// What WebGPU guarantees, but for bindings, which take all of the data.
fn guaranteed() -> GpuLimits {
    let bytes = (1 << 31) - 4;
    GpuLimits { binding_bytes: bytes, buffer_bytes: bytes, ..GpuLimits::default() }
}

/// What graphics cards of today have.
fn usual() -> GpuLimits {
    GpuLimits { storage_buffers: 16, invocations: 1024, workgroup_bytes: 32 << 10, ..guaranteed() }
}

fn compiled(job: &Job, limits: &GpuLimits, joint: bool) -> Compiled {
    compile(job, limits, &Tuning { joint, ..Tuning::default() }).unwrap()
}

/// The commands of a sweep that ends with an extrapolation, a line each.
fn sweep(program: &Program) -> String {
    let sweep = program.recordings.iter().find(|r| r.label == "sweep with an extrapolation");
    let mut text = String::new();
    for command in &sweep.unwrap().commands {
        let (Command::Dispatch(dispatch) | Command::Indirect { dispatch, .. }) = command else {
            panic!("{command:?} cannot be stopped")
        };
        let note = dispatch.bindings.iter().find_map(|binding| match binding {
            Binding::Part(window) => program.notes.get(window),
            Binding::Whole(_) => None,
        });
        let label = note.unwrap_or(&program.shaders[dispatch.shader.0].label);
        let _ = writeln!(text, "{:?}: {label}", dispatch.workgroups);
    }
    text
}

/// The counts of every model under every loss, over all entries and over a list; and that sharing never
/// makes more of them.
#[test]
fn a_sweep_is_few_dispatches() {
    let mut table = String::new();
    for sized in SIZED {
        let list = sized.list();
        for loss in losses() {
            let dense = sized.dense(&loss);
            let stored = job_of_list(list.clone(), sized.model, sized.ranks, &loss);
            for (kind, job) in [("dense", dense), ("list", stored)] {
                let groups = job.plan.groups().len();
                let count = |limits, joint| compiled(&job, &limits, joint).dispatches();
                let alone = count(guaranteed(), false);
                let [joint, more] = [guaranteed(), usual()].map(|limits| count(limits, true));
                assert!(joint.max(more) < alone, "{} {} {kind}", sized.name, loss.name());
                let _ = writeln!(
                    table,
                    "{:8} {:24} {kind:5} {groups} passes: {alone:3} alone, {joint:3} joint, {more:3} on graphics cards",
                    sized.name,
                    loss.name(),
                );
            }
        }
    }
    insta::assert_snapshot!("dispatches_of_a_sweep", table);
}

/// Exact steps go through the factors of a group one by one, several times over: more dispatches, but fewer sweeps.
#[test]
fn exact_steps_are_counted() {
    let mut table = String::new();
    let loss = Loss::euclidean();
    for sized in SIZED {
        for (kind, job) in [
            ("dense", sized.dense(&loss)),
            ("list", job_of_list(sized.list(), sized.model, sized.ranks, &loss)),
        ] {
            let exact = Job { exact: true, ..job.clone() };
            let count = |job, limits| compiled(job, &limits, true).dispatches();
            let [own, more] = [guaranteed(), usual()].map(|limits| count(&exact, limits));
            if sized.name == "spatial" {
                assert_ne!(own, count(&job, guaranteed()), "{kind}");
            }
            let _ =
                writeln!(table, "{:8} {kind:5} {own:3}, {more:3} on graphics cards", sized.name);
        }
    }
    insta::assert_snapshot!("dispatches_of_exact_steps", table);
}

/// A sweep of the paper's model is at most 15 dispatches, the passes over the data among them.
#[test]
fn a_sweep_of_the_spatial_model_is_fifteen_dispatches_at_most() {
    let sized = &SIZED[3];
    let dense = sized.dense(&Loss::kl());
    let list = job_of_list(sized.list(), sized.model, sized.ranks, &Loss::kl());
    let mut counts = Vec::new();
    for (kind, job) in [("dense", &dense), ("list", &list)] {
        for (name, limits) in [("guaranteed", guaranteed()), ("usual", usual())] {
            let compiled = compiled(job, &limits, true);
            let sweep = sweep(&compiled.program);
            assert_eq!(compiled.dispatches(), sweep.lines().count());
            counts.push(compiled.dispatches());
            insta::assert_snapshot!(format!("sweep_of_the_spatial_model_{kind}_{name}"), sweep);
        }
    }
    assert!(counts.iter().all(|&count| count <= 15), "{counts:?}");
}
