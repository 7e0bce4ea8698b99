//! Tests of the generated shaders that need no device.

use crate::program::compile::compile;
use crate::program::recording::{
    Access, Binding, BufferId, BufferKind, Command, GpuLimits, Program, Shader,
};
use crate::program::tuning::Tuning;
use crate::tests::jobs::{
    CORPUS, CorpusModel, MOVING, few, job, job_stored, moving, penalized_job,
};
use nneinfact_core::data::{Implicit, Observations};
use nneinfact_core::engine::Job;
use nneinfact_core::loss::Loss;
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::{DataInfo, Grouping, Plan, PlanSettings};

/// Parses and checks every shader as a device's driver would, and holds every dispatch against the
/// limits that WebGPU guarantees and against its buffers.
pub(crate) fn validate(program: &Program, limits: &GpuLimits) {
    for shader in &program.shaders {
        let text = &shader.source;
        let module = naga::front::wgsl::parse_str(text)
            .unwrap_or_else(|e| panic!("{}\n{text}", e.emit_to_string(text)));
        naga::valid::Validator::new(
            naga::valid::ValidationFlags::all(),
            naga::valid::Capabilities::empty(),
        )
        .validate(&module)
        .unwrap_or_else(|e| panic!("{}\n{text}", e.emit_to_string(text)));
        assert!(shader.workgroup_bytes <= limits.workgroup_bytes, "{}", shader.label);
        assert!(shader.invocations <= limits.invocations, "{}", shader.label);
        let storage = shader.bindings.iter().filter(|b| **b != Access::Uniform);
        assert!(storage.count() <= limits.storage_buffers as usize, "{}", shader.label);
        dump(shader);
    }
    for recording in &program.recordings {
        for command in &recording.commands {
            assert!(!matches!(command, Command::Small { .. }));
            let (Command::Dispatch(dispatch) | Command::Indirect { dispatch, .. }) = command else {
                continue;
            };
            let shader = &program.shaders[dispatch.shader.0];
            assert_eq!(shader.bindings.len(), dispatch.bindings.len(), "{}", shader.label);
            assert!(dispatch.workgroups.iter().all(|&n| n > 0 && n <= limits.workgroups));
            for binding in &dispatch.bindings {
                let buffer = &program.buffers[binding.buffer().0];
                let window = binding.window(buffer.bytes);
                assert!(window.bytes > 0 && window.offset + window.bytes <= buffer.bytes);
                if buffer.kind == BufferKind::Storage {
                    assert!(window.bytes <= limits.binding_bytes, "{}", buffer.label);
                }
            }
        }
    }
}

/// Writes a shader to the folder in `NNEINFACT_DUMP_SHADERS`, for a second compiler to check.
fn dump(shader: &Shader) {
    use std::hash::{Hash, Hasher};
    let Some(folder) = std::env::var_os("NNEINFACT_DUMP_SHADERS") else { return };
    let mut hasher = std::hash::DefaultHasher::new();
    shader.source.hash(&mut hasher);
    let name: String = shader.label.replace(' ', "-");
    let path = std::path::Path::new(&folder).join(format!("{name}-{:016x}.wgsl", hasher.finish()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(path, &shader.source).unwrap();
}

fn losses() -> Vec<Loss> {
    vec![
        Loss::kl(),
        Loss::euclidean(),
        Loss::alpha_beta(0.7, 0.0).unwrap(),
        Loss::alpha_beta(-1.0, 0.4).unwrap(),
        Loss::reverse_kl(),
        Loss::negative_binomial(2.0).unwrap(),
        Loss::bernoulli(),
        Loss::jensen_shannon(),
    ]
}

#[test]
fn every_shader_of_the_corpus_validates() {
    let limits = GpuLimits::default();
    let plain = |o: Observations| o;
    let masked = |o: Observations| o.held_out(0.2, 1).unwrap().validation(0.1, 1).unwrap();
    for (model, shape, ranks) in CORPUS {
        for grouping in [Grouping::Block, Grouping::Grouped] {
            for register_k in [48, 0] {
                let tuning = Tuning { register_k, ..Tuning::joined() };
                for loss in losses() {
                    let job = job(model, shape, ranks, loss, grouping.clone(), plain);
                    validate(&compile(&job, &limits, &tuning).unwrap().program, &limits);
                }
                let job = job(model, shape, ranks, Loss::kl(), grouping.clone(), masked);
                validate(&compile(&job, &limits, &tuning).unwrap().program, &limits);
            }
        }
    }
}

#[test]
fn every_shader_of_penalised_fits_validates() {
    let limits = GpuLimits::default();
    let plain = |o: Observations| o;
    let every = losses();
    for (n, (model, shape, ranks)) in CORPUS.iter().enumerate() {
        for (kind, grouping) in [Grouping::Block, Grouping::Grouped].into_iter().enumerate() {
            // Every loss meets every power, alone and in groups, somewhere.
            for loss in [&every[n % every.len()], &every[(n + 3) % every.len()]] {
                let job = job(model, shape, ranks, loss.clone(), grouping.clone(), plain);
                let job = penalized_job(job, n / every.len() + 2 * kind + n);
                validate(&compile(&job, &limits, &Tuning::joined()).unwrap().program, &limits);
            }
        }
    }
}

#[test]
fn every_shader_of_stored_entries_validates() {
    let limits = GpuLimits::default();
    let plain = |o: Observations| o;
    let split = |o: Observations| o.held_out(0.2, 1).unwrap().validation(0.1, 1).unwrap();
    for (n, (model, shape, ranks)) in CORPUS.iter().enumerate() {
        for (grouping, register_k) in [(Grouping::Block, 48), (Grouping::Grouped, 0)] {
            let tuning = Tuning { register_k, ..Tuning::joined() };
            let zeros = losses().into_iter().filter(|l| l.domain().contains(0.0, &[]));
            for (l, loss) in zeros.enumerate() {
                let y = few(shape);
                let make = |implicit, observe: &dyn Fn(Observations) -> Observations| {
                    job_stored(&y, model, ranks, loss.clone(), grouping.clone(), implicit, observe)
                };
                let job = match (n + l) % 4 {
                    0 => make(Implicit::Zeros, &plain),
                    1 => make(Implicit::Zeros, &split),
                    2 => make(Implicit::ByRole, &split),
                    _ => make(Implicit::Missing, &split),
                };
                validate(&compile(&job, &limits, &tuning).unwrap().program, &limits);
            }
        }
    }
}

#[test]
fn every_kind_of_data_validates() {
    let limits = GpuLimits::default();
    let weights = |o: Observations| {
        let shape = o.values().shape().to_vec();
        o.weights(nneinfact_core::data::Dense::from_array(&ndarray::ArrayD::from_elem(shape, 0.5)))
            .unwrap()
    };
    let trials = Loss::binomial(ndarray::ArrayD::from_elem(vec![5, 7], 9.0)).unwrap();
    for register_k in [48, 0] {
        let tuning = Tuning { register_k, ..Tuning::joined() };
        for loss in [trials.clone(), Loss::kl()] {
            let job = job("ir,jr->ij", &[5, 7], &[('r', 3)], loss, Grouping::Block, weights);
            validate(&compile(&job, &limits, &tuning).unwrap().program, &limits);
        }
    }
}

/// The program of a job under the limits that WebGPU guarantees.
fn program(job: &Job, register_k: usize) -> Program {
    let tuning = Tuning { register_k, ..Tuning::joined() };
    compile(job, &GpuLimits::default(), &tuning).unwrap().program
}

/// The same with a dispatch for every small operation.
fn alone(job: &Job) -> Program {
    let tuning = Tuning { joint: false, ..Tuning::default() };
    compile(job, &GpuLimits::default(), &tuning).unwrap().program
}

/// The first shader of a program whose label begins like this.
fn source(program: &Program, label: &str) -> String {
    let found = program.shaders.iter().find(|s| s.label.starts_with(label));
    found.unwrap_or_else(|| panic!("no shader is called {label}")).source.clone()
}

/// What a program does, a line for each command.
fn commands(program: &Program) -> String {
    use std::fmt::Write as _;
    let label = |id: BufferId| &program.buffers[id.0].label;
    let mut text = String::new();
    for recording in &program.recordings {
        let _ = writeln!(text, "{}:", recording.label);
        for command in &recording.commands {
            let _ = match command {
                Command::Dispatch(dispatch) | Command::Indirect { dispatch, .. } => {
                    let shader = &program.shaders[dispatch.shader.0];
                    let seen = dispatch.bindings.iter().zip(&shader.bindings);
                    let bound: Vec<String> = seen
                        .filter(|(_, access)| **access != Access::Uniform)
                        .map(|(binding, access)| {
                            let written = if *access == Access::ReadWrite { "*" } else { "" };
                            format!("{written}{}", label(binding.buffer()))
                        })
                        .collect();
                    let [x, y, z] = dispatch.workgroups;
                    let note = dispatch.bindings.iter().find_map(|binding| match binding {
                        Binding::Part(window) => program.notes.get(window),
                        Binding::Whole(_) => None,
                    });
                    match note {
                        Some(note) => writeln!(text, "  {x} workgroups: {note}"),
                        None => writeln!(
                            text,
                            "  {} {x} x {y} x {z}: {}",
                            shader.label,
                            bound.join(", ")
                        ),
                    }
                }
                Command::Small { .. } => unreachable!("programs that are complete have none"),
                Command::Copy { from, to, bytes, .. } => {
                    writeln!(text, "  copy {bytes} bytes: {} -> *{}", label(*from), label(*to))
                }
                Command::Clear { buffer, bytes, .. } => {
                    writeln!(text, "  clear {bytes} bytes: *{}", label(*buffer))
                }
            };
        }
    }
    text
}

/// A model of the paper, on data small enough to be made here.
const UBER: CorpusModel = ("wr,hr,dr,ikr,jkr->whdij", &[9, 8, 7, 6, 10], &[('r', 4), ('k', 3)]);

fn split(o: Observations) -> Observations {
    o.held_out(0.2, 1).unwrap().validation(0.1, 1).unwrap()
}

/// What is generated, to be read by people: after a change, `INSTA_UPDATE=always cargo test --lib
/// -p nneinfact-gpu shaders` rewrites the snapshots; read the difference before committing it.
#[test]
fn shaders_are_what_one_would_write() {
    let alpha_beta = || Loss::alpha_beta(0.7, 0.0).unwrap();
    let plain = |o: Observations| o;
    let nmf = |rank: usize, loss: Loss| {
        job("ir,jr->ij", &[300, 200], &[('r', rank)], loss, Grouping::Block, plain)
    };
    insta::assert_snapshot!("kl_nmf", source(&program(&nmf(10, Loss::kl()), 48), "pass with"));
    let (model, shape, ranks) = UBER;
    let uber = job(model, shape, ranks, alpha_beta(), Grouping::Grouped, split);
    let joint = program(&uber, 48);
    insta::assert_snapshot!("small_operations", source(&joint, "small operations"));
    let uber = alone(&uber);
    insta::assert_snapshot!("uber_alpha_beta_split", source(&uber, "pass with"));
    insta::assert_snapshot!("step_power", source(&uber, "step"));
    insta::assert_snapshot!("contraction", source(&uber, "contraction"));

    let ones = ndarray::ArrayD::from_elem(MOVING, 1.0);
    let moving = moving(alpha_beta(), plain, &ones);
    for (name, register_k, label) in [
        ("moving_co_operands", 48, "pass"),
        ("tile_sums_of_moving_co_operands", 0, "sums of a pass"),
    ] {
        let program = program(&moving, register_k);
        validate(&program, &GpuLimits::default());
        let moves = |s: &&Shader| {
            s.label.starts_with(label) && s.source.contains("let before = reduced_at(")
        };
        insta::assert_snapshot!(name, program.shaders.iter().find(moves).unwrap().source);
    }

    let wide = program(&nmf(64, alpha_beta()), 48);
    insta::assert_snapshot!("tile_entries_of_64", source(&wide, "entries"));
    insta::assert_snapshot!("tile_sums_of_64", source(&wide, "sums"));

    let stored = |rank: usize, loss: Loss, implicit: Implicit| {
        let ranks = [('r', rank)];
        let y = few(&[40, 30, 9]);
        let job = job_stored(&y, "ir,jr,ar->ija", &ranks, loss, Grouping::Block, implicit, split);
        alone(&job)
    };
    let kl = stored(10, Loss::kl(), Implicit::Zeros);
    insta::assert_snapshot!("sparse_pass_of_kl", source(&kl, "pass over stored entries with"));
    insta::assert_snapshot!("gather", source(&kl, "gather"));
    let odds = stored(10, Loss::bernoulli(), Implicit::ByRole);
    insta::assert_snapshot!("implicit_zero_pass", source(&odds, "pass with"));

    // Two factors in a group, so that the surrogate of logarithms needs its third power.
    let log = Loss::alpha_beta(0.0, 1.0).unwrap();
    assert_eq!(log.majorizer(), nneinfact_core::loss::Majorizer::Log);
    let (model, shape, ranks) = UBER;
    let log = alone(&job(model, shape, ranks, log, Grouping::Grouped, plain));
    insta::assert_snapshot!("step_log", source(&log, "step"));

    // A penalty of p = 3, whose step has no closed form.
    let cp = ("ir,jr,ar->ija", [5, 7, 4], [('r', 3)]);
    let cp = job(cp.0, &cp.1, &cp.2, alpha_beta(), Grouping::Block, plain);
    let cp = alone(&penalized_job(cp, 3));
    insta::assert_snapshot!("step_of_a_penalty", source(&cp, "step"));
    insta::assert_snapshot!("commands_of_balancing", {
        let all = commands(&cp);
        all[all.find("balance:").unwrap()..].to_string()
    });
}

#[test]
fn a_fit_does_what_one_would_do() {
    let (model, shape, ranks) = UBER;
    let job =
        job(model, shape, ranks, Loss::alpha_beta(0.7, 0.0).unwrap(), Grouping::Grouped, split);
    insta::assert_snapshot!("commands_of_uber", commands(&program(&job, 48)));
}

#[test]
fn a_sparse_fit_does_what_one_would_do() {
    // Of row 0 most is missing, and nothing of the others.
    let y = few(&[8, 30, 9]);
    let mask = y.mapv(|_| true);
    let mask = {
        let mut mask = mask;
        mask.index_axis_mut(ndarray::Axis(0), 0).fill(false);
        mask[[0, 0, 0]] = true;
        mask
    };
    let masked = |o: Observations| o.mask(&mask).unwrap();
    let job = job_stored(
        &y,
        "ir,jr,ar->ija",
        &[('r', 3)],
        Loss::euclidean(),
        Grouping::Given(vec![vec![0], vec![1, 2]]),
        Implicit::Zeros,
        masked,
    );
    insta::assert_snapshot!("commands_of_a_sparse_fit", commands(&program(&job, 48)));
}

/// The paper's Uber tensor: 45 million entries.
const UBER_SHAPE: &[usize] = &[27, 24, 7, 100, 100];

/// The paper's model of it, on a plan of its sizes. Programs depend on the data by their kind alone, so
/// few entries are enough where passes go over all.
fn full_uber(loss: Loss) -> Job {
    let (model, ranks) = ("wr,dr,hr,ikr,jkr->wdhij", [('r', 10), ('k', 6)]);
    let small = job(model, &[3, 2, 4, 3, 5], &ranks, loss, Grouping::Grouped, |o| o);
    let shapes = Shapes::new(small.plan.shapes().model(), UBER_SHAPE, &ranks).unwrap();
    let settings = PlanSettings {
        grouping: Grouping::Grouped,
        closed_denominator: small.loss.denominator_constant().is_some(),
        ..PlanSettings::default()
    };
    let plan = Plan::new(&shapes, &DataInfo::c_order(&shapes, 1), &settings).unwrap();
    Job { plan: std::sync::Arc::new(plan), ..small }
}

/// The commands of a recording.
fn recorded(program: &Program, label: &str) -> String {
    let all = commands(program);
    let from = all.find(&format!("{label}:\n")).unwrap_or_else(|| panic!("{label} is recorded"));
    let lines = all[from..].lines();
    let own = lines.take(1).chain(all[from..].lines().skip(1).take_while(|l| l.starts_with(' ')));
    own.map(|line| format!("{line}\n")).collect()
}

/// A sweep of the paper's model over all entries is few dispatches, on the least that WebGPU guarantees.
#[test]
fn a_sweep_is_few_dispatches() {
    let program = program(&full_uber(Loss::kl()), 48);
    let sweep = recorded(&program, "sweep with an extrapolation");
    let count = sweep.lines().count() - 1;
    assert!(count <= 16, "{count}: {sweep}");
}
