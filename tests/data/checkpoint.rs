//! Fits that are saved, interrupted and resumed: the same bits as without.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{Random, data, entry};
use ndarray::{Array2, ArrayD};
use nneinfact::data::CooTensor;
use nneinfact::fit::{
    Cancel, Checkpoint, Coupled, Every, Flow, Format, Part, Start, StoppedBy, Sweep,
};
use nneinfact::loss::Penalty;
use nneinfact::{Algorithm, Device, Error, Fit, Loss, NNEinFact, Observations, Precision, io};
use tempfile::TempDir;

/// A fit that is run several times.
struct Case {
    name: String,
    observations: Observations,
    make: Box<dyn Fn() -> NNEinFact>,
}

/// The sweeps of a whole fit, and those before an interruption: more than starts are tried with.
const SWEEPS: usize = 25;
const BEFORE: usize = 13;

/// A problem whose settings say what else it has.
fn case(kind: &str, algorithm: Algorithm, loss: &Loss, device: &Device) -> Case {
    let entry = match kind {
        "tucker" => entry("Tucker"),
        "one factor" => entry("a single factor"),
        "uber" => entry("Uber, second"),
        _ => entry("CP, 3 modes"),
    };
    let modes = entry.modes();
    let shape: Vec<usize> = (0..modes).map(|m| [9, 8, 6, 5, 4][m]).collect();
    let shapes = entry.shapes(&shape);
    let mut random = Random::new(3 * modes as u64 + kind.len() as u64);
    let mut y = data(&mut random, &shapes, loss);
    if kind == "huge" {
        y.mapv_inplace(|x| 3e7 * x);
    }
    let mut observations = match kind {
        "list" => {
            let at = |m: usize| y.indexed_iter().map(|(i, _)| i[m] as u64).collect::<Vec<_>>();
            let values: Vec<f64> = y.iter().copied().collect();
            let indices: Vec<Vec<u64>> = (0..modes).map(at).collect();
            Observations::new(CooTensor::new(&shape, &indices, &values).unwrap())
        }
        _ => Observations::new(&y),
    };
    if ["withheld", "early"].contains(&kind) {
        observations = observations.held_out(0.1, 1).unwrap().validation(0.2, 1).unwrap();
    }
    let (kind, device, loss) = (kind.to_string(), device.clone(), loss.clone());
    let name = format!("{kind}, {}, {}, {device}", algorithm.name(), loss.name());
    let make = move || {
        let fit = NNEinFact::new(entry.model).unwrap();
        let fit = fit.ranks(entry.ranks.iter().copied()).loss(loss.clone()).algorithm(algorithm);
        let fit = fit.device(device.clone()).seed(5).tolerance(0.0).max_iter(SWEEPS);
        match kind.as_str() {
            "double" => fit.precision(Precision::F64),
            "penalized" => fit.penalty_on_all(Penalty::l2(0.3)).bounds("jr", 0.01, 50.0),
            "fixed" => fit.fix("jr", Random::new(8).tensor(&[8, 3], 0.1, 1.3)),
            "early" => fit.early_stopping(true),
            "list" => fit.data_as(Format::Sparse),
            "svd" => fit.start(Start::Svd),
            "starts" => fit.starts(3),
            "cycles" => fit.inner_cycles(3).factor_floor(0.0),
            _ => fit,
        }
    };
    Case { name, observations, make: Box::new(make) }
}

/// All that has to be the same: everything but seconds and device.
fn traces(fit: &Fit) -> (Vec<Vec<u64>>, Vec<usize>, [String; 4]) {
    let bits = |list: &[f64]| list.iter().map(|x| x.to_bits()).collect::<Vec<u64>>();
    let h = fit.history();
    let mut all: Vec<Vec<u64>> =
        fit.factors().iter().map(|f| f.iter().map(|x| x.to_bits()).collect()).collect();
    all.extend([&h.loss, &h.penalty, &h.validation_loss, &h.heldout_loss].map(|list| bits(list)));
    let words = [
        h.stopped_by.to_string(),
        h.iterations.to_string(),
        h.returned.to_string(),
        h.seed.to_string(),
    ];
    (all, h.sweeps.clone(), words)
}

fn assert_same(resumed: &Fit, whole: &Fit, what: &str) {
    let (found, expected) = (traces(resumed), traces(whole));
    assert_eq!(found.2, expected.2, "{what}");
    assert_eq!(found.1, expected.1, "{what}");
    assert!(found.0 == expected.0, "{what}: other bits");
    let seconds = &resumed.history().seconds;
    assert!(seconds.is_sorted() && seconds.len() == found.1.len(), "{what}: {seconds:?}");
}

struct Files(TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A fit that stops by itself where it has to be resumed.
fn run(case: &Case, set: impl FnOnce(NNEinFact) -> NNEinFact) -> Fit {
    set((case.make)()).fit(&case.observations).unwrap_or_else(|e| panic!("{}: {e}", case.name))
}

fn resumed(case: &Case, path: &Path) -> Fit {
    let checkpoint = Checkpoint::read(path).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    run(case, |fit| fit.resume(checkpoint))
}

/// Interrupts a fit in every way and resumes it.
fn holds(case: &Case) {
    let files = Files::new();
    let name = &case.name;
    let whole = run(case, |fit| fit);

    // All sweeps that had been asked for, and then more of them.
    let path = files.path("short");
    let short = run(case, |fit| fit.max_iter(BEFORE).checkpoint(&path, Every::default()));
    // That inner cycles do nothing for a case is no matter of checkpoints.
    let idle = |warning: &String| warning.contains("inner cycles are as good as one");
    assert!(short.warnings().iter().all(idle), "{:?}", short.warnings());
    assert_eq!(short.warnings(), whole.warnings());
    assert_same(&resumed(case, &path), &whole, &format!("{name}: more sweeps"));
    // As many as before: nothing is left to do.
    let checkpoint = Checkpoint::read(&path).unwrap();
    let again = run(case, |fit| fit.max_iter(BEFORE).resume(checkpoint));
    assert_same(&again, &short, &format!("{name}: no more sweeps"));

    // Stopped after a look.
    let path = files.path("stopped");
    let stop = |s: &Sweep| if s.iteration == BEFORE { Flow::Stop } else { Flow::Continue };
    run(case, |fit| fit.observe(stop).checkpoint(&path, Every::default()));
    assert_same(&resumed(case, &path), &whole, &format!("{name}: stopped"));

    // From what lay there in the middle of the fit, as after a crash; the resumed fit saves itself too,
    // and is interrupted again.
    let (path, copy) = (files.path("running"), files.path("copy"));
    let (from, to) = (path.clone(), copy.clone());
    let keep = move |s: &Sweep| {
        if s.iteration <= BEFORE {
            std::fs::copy(&from, &to).unwrap();
        }
        Flow::Continue
    };
    let saved = run(case, |fit| fit.observe(keep).checkpoint(&path, Every::sweeps(3)));
    assert_same(&saved, &whole, &format!("{name}: saved"));
    if whole.history().iterations > BEFORE {
        assert_eq!(Checkpoint::read(&copy).unwrap().sweeps(), 12, "{name}");
    }
    let checkpoint = Checkpoint::read(&copy).unwrap();
    let twice = |s: &Sweep| if s.iteration == 19 { Flow::Stop } else { Flow::Continue };
    run(case, |fit| fit.resume(checkpoint).observe(twice).checkpoint(&copy, Every::sweeps(2)));
    assert_same(&resumed(case, &copy), &whole, &format!("{name}: twice"));
    // A fit that has ended is what it was.
    assert_same(&resumed(case, &path), &whole, &format!("{name}: ended"));
}

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated];

fn some_losses() -> Vec<Loss> {
    vec![
        Loss::kl(),
        Loss::euclidean(),
        Loss::alpha_beta(0.7, 0.0).unwrap(),
        Loss::negative_binomial(2.0).unwrap(),
        Loss::jensen_shannon(),
    ]
}

#[test]
fn a_resumed_fit_has_the_same_bits() {
    for algorithm in ALGORITHMS {
        for loss in some_losses() {
            for kind in ["plain", "penalized", "early", "list"] {
                holds(&case(kind, algorithm, &loss, &Device::cpu()));
            }
        }
    }
}

#[test]
fn so_with_every_other_setting() {
    for algorithm in ALGORITHMS {
        for kind in [
            "double",
            "huge",
            "fixed",
            "withheld",
            "svd",
            "starts",
            "cycles",
            "tucker",
            "one factor",
            "uber",
        ] {
            for loss in [Loss::kl(), Loss::euclidean()] {
                holds(&case(kind, algorithm, &loss, &Device::cpu()));
            }
        }
    }
}

#[cfg(feature = "gpu")]
#[test]
fn so_on_a_gpu() {
    let Some(device) = crate::common::gpu() else { return };
    let cases = [
        ("plain", Algorithm::Accelerated, Loss::kl()),
        ("penalized", Algorithm::Accelerated, Loss::alpha_beta(0.7, 0.0).unwrap()),
        ("list", Algorithm::Grouped, Loss::kl()),
        ("early", Algorithm::Accelerated, Loss::euclidean()),
        ("huge", Algorithm::Block, Loss::euclidean()),
        ("fixed", Algorithm::Accelerated, Loss::kl()),
        ("starts", Algorithm::Accelerated, Loss::jensen_shannon()),
        ("early", Algorithm::Grouped, Loss::kl()),
    ];
    for i in crate::common::gpu_cases(cases.len()) {
        let (kind, algorithm, loss) = &cases[i];
        holds(&case(kind, *algorithm, loss, &device));
    }
}

#[test]
fn losses_that_are_looked_at_now_and_then() {
    for before in [6, 8, 9] {
        let mut case = case("plain", Algorithm::Grouped, &Loss::kl(), &Device::cpu());
        let make = case.make;
        case.make = Box::new(move || make().eval_every(4));
        let files = Files::new();
        let path = files.path("state");
        let whole = run(&case, |fit| fit);
        run(&case, |fit| fit.max_iter(before).checkpoint(&path, Every::sweeps(1)));
        assert_same(&resumed(&case, &path), &whole, &format!("after {before}"));
    }
}

#[test]
fn threads_do_not_matter_and_other_stops_are_the_same() {
    let files = Files::new();
    let path = files.path("state");
    let mut case = case("plain", Algorithm::Accelerated, &Loss::kl(), &Device::cpu());
    let make = case.make;
    case.make = Box::new(move || make().tolerance(1e-3).max_iter(400));
    let whole = run(&case, |fit| fit);
    assert_eq!(whole.history().stopped_by, StoppedBy::Tolerance);
    run(&case, |fit| fit.max_iter(5).checkpoint(&path, Every::default()));
    let one = Device::cpu().threads(1).unwrap();
    let checkpoint = Checkpoint::read(&path).unwrap();
    assert_eq!((checkpoint.sweeps(), checkpoint.history().loss.len()), (5, 5));
    let resumed_fit =
        run(&case, |fit| fit.device(one).resume(checkpoint).checkpoint(&path, Every::default()));
    assert_same(&resumed_fit, &whole, "tolerance");

    // It has stopped, and a smaller tolerance lets it go on, as if that had been asked for.
    assert_same(&resumed(&case, &path), &whole, "stopped");
    let checkpoint = Checkpoint::read(&path).unwrap();
    let further = run(&case, |fit| fit.tolerance(1e-5).resume(checkpoint));
    assert!(further.history().iterations > whole.history().iterations);
    assert_same(&further, &run(&case, |fit| fit.tolerance(1e-5)), "further");
}

/// A matrix whose sweeps take long enough to be interrupted in their middle.
fn large(algorithm: Algorithm, early: bool) -> Case {
    let y =
        Array2::from_shape_fn((300, 200), |(i, j)| ((i * j + i) % 17 + (i % 5) * (j % 3)) as f64);
    let observations = Observations::new(&y).validation(0.1, 3).unwrap();
    let make = move || {
        let fit = NNEinFact::new("ir,jr->ij").unwrap().ranks([('r', 8)]).device(Device::cpu());
        let fit = fit.algorithm(algorithm).tolerance(0.0).max_iter(60).early_stopping(early);
        fit.loss(Loss::alpha_beta(0.7, 0.0).unwrap()).groups(vec![vec![0], vec![1]])
    };
    Case {
        name: format!("large, {}, {early}", algorithm.name()),
        observations,
        make: Box::new(make),
    }
}

#[test]
fn cancelled_at_any_moment() {
    for (algorithm, early) in [
        (Algorithm::Block, false),
        (Algorithm::Accelerated, false),
        (Algorithm::Grouped, true),
        (Algorithm::Accelerated, true),
    ] {
        let case = large(algorithm, early);
        let whole = run(&case, |fit| fit);
        let files = Files::new();
        let path = files.path("state");
        let mut random = Random::new(4);
        let mut interruptions = 0;
        for _ in 0..200 {
            let cancel = Cancel::new();
            let switch = cancel.clone();
            let after = Duration::from_micros((1e4 * random.uniform()) as u64);
            // From the second sweep that it sees on, so that it gets on.
            let mut seen = 0;
            let start = move |_: &Sweep| {
                seen += 1;
                if seen == 2 {
                    let switch = switch.clone();
                    std::thread::spawn(move || {
                        std::thread::sleep(after);
                        switch.cancel();
                    });
                }
                Flow::Continue
            };
            let checkpoint = path.exists().then(|| Checkpoint::read(&path).unwrap());
            let fit = run(&case, |fit| {
                let fit = fit.cancel(&cancel).observe(start).checkpoint(&path, Every::sweeps(1000));
                match checkpoint {
                    Some(checkpoint) => fit.resume(checkpoint),
                    None => fit,
                }
            });
            if fit.history().stopped_by != StoppedBy::Interrupted {
                assert_same(&fit, &whole, &case.name);
                break;
            }
            interruptions += 1;
        }
        assert!((1..200).contains(&interruptions), "{}: {interruptions}", case.name);
    }
}

/// Refused, with all of these words.
fn refused(fit: NNEinFact, observations: &Observations, words: &[&str]) {
    let error = fit.fit(observations).map(|_| words).expect_err("another fit");
    assert!(matches!(error, Error::Format { .. }) && error.is_input(), "{error:?}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn another_fit_is_refused() {
    let files = Files::new();
    let path = files.path("state");
    let shape = [9, 8, 6];
    let y = Random::new(1).tensor(&shape, 0.5, 3.0);
    let plain = Observations::new(&y).held_out(0.1, 1).unwrap();
    let make = |model: &str| NNEinFact::new(model).unwrap().device(Device::cpu()).max_iter(4);
    let cp = || make("ir,jr,kr->ijk").ranks([('r', 2)]);
    cp().checkpoint(&path, Every::default()).fit(&plain).unwrap();
    let back = || Checkpoint::read(&path).unwrap();

    // What may differ.
    cp().max_iter(6).tolerance(1e-9).resume(back()).fit(&plain).unwrap();

    let fixed = || Random::new(2).tensor(&[8, 2], 0.1, 1.0);
    let settings: Vec<(NNEinFact, &[&str])> = vec![
        (make("ir,kr,jr->ijk").ranks([('r', 2)]), &["model", "ir,kr,jr->ijk here"]),
        (make("ir,jr,kr->ijk").ranks([('r', 3)]), &["ranks", "r=2 in the file, r=3 here"]),
        (cp().loss(Loss::euclidean()), &["loss", "kl in the file", "euclidean here"]),
        (cp().algorithm(Algorithm::Block), &["algorithm", "accelerated", "block"]),
        (
            cp().groups(vec![vec![0], vec![1], vec![2]]),
            &["division into groups", "ir | jr | kr here"],
        ),
        (cp().precision(Precision::F64), &["precision", "f32", "f64"]),
        (cp().seed(7), &["start", "seed 0", "seed 7"]),
        (cp().starts(2), &["start", "best of 2"]),
        (cp().start(Start::Svd), &["start", "svd"]),
        (cp().penalty_on_all(Penalty::l1(0.5)), &["factor 1 (ir)", "l1=0.5"]),
        (cp().bounds("kr", 0.0, 9.0), &["factor 3 (kr)", "from 0 to 9"]),
        (cp().fix("jr", fixed()), &["factor 2 (jr)", "fixed"]),
        (cp().factor_floor(1e-12), &["factor floor"]),
        (cp().prediction_floor(1e-12), &["prediction floor", "the default"]),
        (cp().inner_cycles(2), &["inner cycles"]),
        (cp().eval_every(2), &["look"]),
        (cp().data_as(Format::Sparse), &["form of the data", "list"]),
    ];
    for (fit, words) in settings {
        refused(fit.resume(back()), &plain, words);
    }

    let mut other = y.clone();
    other[[4, 4, 4]] += 1e-9;
    let other = Observations::new(&other).held_out(0.1, 1).unwrap();
    refused(cp().resume(back()), &other, &["values of the data"]);
    let split = Observations::new(&y).held_out(0.1, 2).unwrap();
    refused(cp().resume(back()), &split, &["missing and withheld entries"]);
    let weights = Observations::new(&y).held_out(0.1, 1).unwrap();
    let weights = weights.weights(Random::new(5).tensor(&shape, 0.5, 1.0)).unwrap();
    refused(cp().resume(back()), &weights, &["weights of the data"]);
    let longer = Observations::new(Random::new(1).tensor(&[9, 8, 7], 0.5, 3.0));
    refused(cp().resume(back()), &longer, &["shape of the data", "[9, 8, 6]", "[9, 8, 7]"]);

    // The dispersion of every entry is a part of the loss.
    let dispersed = |x: f64| {
        let all = ArrayD::from_elem(shape.as_slice(), x);
        cp().loss(Loss::negative_binomial(all).unwrap())
    };
    dispersed(2.0).checkpoint(&path, Every::default()).fit(&plain).unwrap();
    dispersed(2.0).resume(back()).fit(&plain).unwrap();
    refused(dispersed(2.5).resume(back()), &plain, &["expressions of the loss"]);
}

#[cfg(feature = "gpu")]
#[test]
fn another_kind_of_device_is_refused() {
    let Some(device) = crate::common::gpu() else { return };
    let files = Files::new();
    let path = files.path("state");
    let case = case("plain", Algorithm::Grouped, &Loss::kl(), &Device::cpu());
    run(&case, |fit| fit.max_iter(2).checkpoint(&path, Every::default()));
    let fit = (case.make)().device(device).resume(Checkpoint::read(&path).unwrap());
    refused(fit, &case.observations, &["device", "cpu in the file", "gpu here"]);
}

#[test]
fn several_tensors_are_saved() {
    let files = Files::new();
    let path = files.path("state");
    let y = Array2::from_elem((4, 3), 2.0);
    let to = path.clone();
    let fit = Coupled::new([Part::new("ir,jr->ij", &y).unwrap()])
        .settings(move |all| all.ranks([('r', 1)]).checkpoint(to, Every::default()))
        .fit()
        .unwrap();
    let saved = Checkpoint::read(&path).unwrap();
    assert_eq!(saved.sweeps(), fit.history().iterations);
}

#[test]
fn a_damaged_file_is_an_error() {
    let files = Files::new();
    let path = files.path("state");
    let case = case("early", Algorithm::Accelerated, &Loss::kl(), &Device::cpu());
    run(&case, |fit| fit.max_iter(3).checkpoint(&path, Every::default()));
    let good = std::fs::read(&path).unwrap();
    for cut in (0..good.len()).step_by(11).chain([good.len() - 1]) {
        std::fs::write(&path, &good[..cut]).unwrap();
        let error = Checkpoint::read(&path).expect_err("a part of a file");
        assert!(matches!(error, Error::Format { .. }), "{cut}: {error:?}");
        assert!(error.is_input() && error.to_string().contains("state"), "{error}");
    }
    for at in (0..good.len()).step_by(5) {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        std::fs::write(&path, &bad).unwrap();
        // Times and flags of the archive do not matter.
        if let Ok(checkpoint) = Checkpoint::read(&path) {
            assert_eq!(checkpoint.sweeps(), 3, "{at}");
        }
    }
    let text = |path: &Path| Checkpoint::read(path).unwrap_err().to_string();
    nneinfact::io::write_npz(&path, &[("theta_1", Array2::<f64>::ones((2, 2)))]).unwrap();
    assert!(text(&path).contains("compressed"), "{}", text(&path));
    std::fs::write(&path, "hello").unwrap();
    assert!(text(&path).contains("state"), "{}", text(&path));
    assert!(matches!(Checkpoint::read(files.path("none")), Err(Error::File { .. })));
    assert!(Checkpoint::read(files.0.path()).is_err());
}

#[test]
fn a_file_that_cannot_be_written() {
    let files = Files::new();
    let folder = files.path("folder");
    let path = folder.join("state");
    let case = case("plain", Algorithm::Accelerated, &Loss::kl(), &Device::cpu());
    let whole = run(&case, |fit| fit);

    // From the beginning: nothing is lost by an error.
    let error = (case.make)().checkpoint(&path, Every::default()).fit(&case.observations);
    assert!(matches!(error, Err(Error::File { .. })), "{error:?}");

    // In the middle, for a while.
    std::fs::create_dir(&folder).unwrap();
    let (gone, tell) = (folder.clone(), std::sync::mpsc::channel());
    let trouble = move |s: &Sweep| {
        match s.iteration {
            4 => std::fs::remove_dir_all(&gone).unwrap(),
            9 => std::fs::create_dir(&gone).unwrap(),
            _ => {}
        }
        tell.0.send(s.failed_checkpoints).unwrap();
        Flow::Continue
    };
    let fit = run(&case, |fit| fit.observe(trouble).checkpoint(&path, Every::sweeps(1)));
    assert_same(&fit, &whole, "trouble");
    // Each is told at the look after it.
    let told: Vec<usize> = tell.1.iter().collect();
    assert_eq!(told[..12], [0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0]);
    let [warning] = fit.warnings() else { panic!("{:?}", fit.warnings()) };
    for said in ["5 checkpoints were not written", "state", &format!("sweep {SWEEPS}")] {
        assert!(warning.contains(said), "{warning}");
    }
    assert_same(&resumed(&case, &path), &whole, "after trouble");
}

#[cfg(all(unix, feature = "cli"))]
mod program {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Output, Stdio};

    struct Bench(Files);

    impl Bench {
        /// With data whose fit takes some seconds where it is asked for many sweeps.
        fn new() -> Bench {
            let files = Files::new();
            let y = Array2::from_shape_fn((120, 90), |(i, j)| {
                ((i * j + i) % 17 + (i % 5) * (j % 3)) as f64
            });
            nneinfact::io::write_npy(files.path("y.npy"), &y).unwrap();
            Bench(files)
        }

        fn command(&self, more: &[&str]) -> Command {
            let mut command = Command::new(env!("CARGO_BIN_EXE_nneinfact"));
            command.args([
                "fit",
                "y.npy",
                "--model",
                "ir,jr->ij",
                "--rank",
                "r=6",
                "--device",
                "cpu",
            ]);
            command.args(["--tol", "0", "--validation", "0.1", "--loss", "alpha-beta"]);
            command.args(["--alpha", "0.7", "--beta", "0"]);
            command.args(more).current_dir(self.0.0.path());
            command
        }

        fn run(&self, more: &[&str]) -> Output {
            self.command(more).output().unwrap()
        }

        fn good(&self, more: &[&str]) -> (String, String) {
            let output = self.run(more);
            let errors = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{more:?}: {errors}");
            (String::from_utf8(output.stdout).unwrap(), errors)
        }

        fn refused(&self, more: &[&str], words: &[&str]) {
            let output = self.run(more);
            let errors = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{more:?}: {errors}");
            for word in words {
                assert!(errors.contains(word), "{word}: {errors}");
            }
        }

        fn bytes(&self, name: &str) -> Vec<u8> {
            std::fs::read(self.0.path(name)).unwrap()
        }

        /// Without what the file says of the fit beside its arrays, which has its seconds in it.
        fn arrays(&self, name: &str) -> Vec<(String, ArrayD<f64>)> {
            io::read_npz_arrays(self.0.path(name)).unwrap()
        }

        fn history(&self, name: &str) -> serde_json::Value {
            serde_json::from_slice(&self.bytes(name)).unwrap()
        }

        fn leftovers(&self) -> usize {
            let entries = std::fs::read_dir(self.0.0.path()).unwrap();
            let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name.ends_with(".tmp")).count()
        }
    }

    /// Waits until a child that shows its progress has completed sweeps.
    fn wait_for_sweeps(child: &mut Child) {
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            let line = line.unwrap();
            if line.starts_with("sweep ") && !line.starts_with("sweep 0/") {
                return;
            }
        }
        panic!("it ended before it could be interrupted");
    }

    fn signal(child: &Child, name: &str) {
        let done = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    #[test]
    fn the_same_command_line_starts_and_goes_on() {
        let bench = Bench::new();
        let all = ["--checkpoint", "c", "--resume", "--out", "f.npz", "--history", "h.json"];
        let of = |n: &'static str| [&all[..], &["--max-iter", n]].concat();
        bench.good(&["--max-iter", "25", "--out", "whole.npz", "--history", "whole.json"]);
        let (summary, told) = bench.good(&of("10"));
        assert!(told.contains("notice: there is no c to go on from"), "{told}");
        assert!(summary.contains("c: --resume with a larger --max-iter"), "{summary}");
        let (summary, told) = bench.good(&of("25"));
        assert!(told.contains("notice: going on from c, after sweep 10"), "{told}");
        assert!(summary.contains("25, all that were asked for"), "{summary}");
        assert_eq!(bench.arrays("f.npz"), bench.arrays("whole.npz"));
        for list in ["loss", "validation_loss", "sweeps", "stopped_by"] {
            assert_eq!(bench.history("h.json")[list], bench.history("whole.json")[list], "{list}");
        }
        // Again: there is nothing left to do.
        bench.good(&of("25"));
        assert_eq!(bench.arrays("f.npz"), bench.arrays("whole.npz"));
        let quiet = bench.run(&[&of("25")[..], &["--quiet"]].concat());
        assert!(quiet.status.success() && quiet.stdout.is_empty() && quiet.stderr.is_empty());
        assert_eq!(bench.leftovers(), 0);
    }

    #[test]
    fn bad_arguments() {
        let bench = Bench::new();
        bench.good(&["--max-iter", "3", "--checkpoint", "c"]);
        let before = bench.bytes("c");
        bench.refused(&["--checkpoint", "c"], &["c is there already", "--resume"]);
        bench.refused(&["--resume"], &["--checkpoint"]);
        bench.refused(&["--checkpoint-every", "3"], &["--checkpoint"]);
        for bad in ["0", "x", "5 weeks", "-3s", "3,"] {
            let every = format!("--checkpoint-every={bad}");
            bench.refused(&["--checkpoint", "d", &every], &["5min"]);
        }
        bench.refused(&["--checkpoint", "y.npy", "--resume"], &["y.npy, which is read"]);
        bench.refused(&["--checkpoint", "f.npz", "--out", "f.npz"], &["another name"]);
        bench.refused(&["--checkpoint", "no/c"], &["no folder"]);
        bench.refused(&["--checkpoint", "."], &["folder"]);
        let other = ["--checkpoint", "c", "--resume", "--seed", "4"];
        bench.refused(&other, &["another fit", "seed 0", "seed 4"]);
        assert_eq!(bench.bytes("c"), before);
        std::fs::write(bench.0.path("c"), &before[..before.len() / 2]).unwrap();
        bench.refused(&["--checkpoint", "c", "--resume"], &["c: "]);
    }

    #[test]
    fn interrupted_it_writes_what_it_has_and_goes_on() {
        let bench = Bench::new();
        let all = ["--checkpoint", "c", "--resume", "--out", "f.npz", "--history", "h.json"];
        for name in ["-INT", "-TERM"] {
            let _ = std::fs::remove_file(bench.0.path("c"));
            let more = [&all[..], &["--max-iter", "100000000", "--progress"]].concat();
            let mut child =
                bench.command(&more).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            // What it says later is lost, which is none of its business.
            wait_for_sweeps(&mut child);
            signal(&child, name);
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{name}");
            let summary = String::from_utf8(output.stdout).unwrap();
            for said in [", interrupted", "f.npz: theta_1", "c: --resume goes on"] {
                assert!(summary.contains(said), "{said}: {summary}");
            }
            let history = bench.history("h.json");
            assert_eq!(history["stopped_by"], "interrupted");
            let done = history["iterations"].as_u64().unwrap();
            assert!(done >= 1);
            assert_eq!(history["loss"].as_array().unwrap().len() as u64, done + 1);

            // To a few sweeps more, as without the interruption.
            let most = (done + 5).to_string();
            let factors = bench.arrays("f.npz");
            bench.good(&[&all[..], &["--max-iter", &most]].concat());
            assert_ne!(bench.arrays("f.npz"), factors);
            bench.good(&["--max-iter", &most, "--out", "whole.npz"]);
            assert_eq!(bench.arrays("f.npz"), bench.arrays("whole.npz"), "{name}");
        }
    }

    #[test]
    fn interrupted_twice_it_ends_at_once() {
        let bench = Bench::new();
        // A sweep of these takes far longer than two signals.
        let y = Array2::from_shape_fn((4000, 3000), |(i, j)| ((i * j + i) % 17 + 1) as f64);
        nneinfact::io::write_npy(bench.0.path("y.npy"), &y).unwrap();
        let more = ["--max-iter", "100000000", "--progress", "--checkpoint", "c"];
        let mut command = bench.command(&more);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with("sweep ")));
        signal(&child, "-INT");
        assert!(lines.any(|line| line.unwrap().contains("once more ends at once")));
        signal(&child, "-INT");
        let output = child.wait_with_output().unwrap();
        // Between two signals it may have come to an end of its own.
        match output.status.code() {
            Some(130) => assert!(output.stdout.is_empty()),
            code => assert_eq!(code, Some(0)),
        }
        Checkpoint::read(bench.0.path("c")).unwrap();
    }

    #[test]
    fn killed_at_any_moment_the_last_one_is_whole() {
        let bench = Bench::new();
        bench.good(&["--max-iter", "400", "--out", "whole.npz", "--early-stopping"]);
        let all = ["--max-iter", "400", "--out", "f.npz", "--early-stopping", "--checkpoint", "c"];
        let all = [&all[..], &["--checkpoint-every", "1", "--resume"]].concat();
        let mut random = Random::new(2);
        let mut reached = 0;
        for round in 0..12 {
            let mut child =
                bench.command(&all).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
            // Some in the middle of starting, most in the middle of writing.
            std::thread::sleep(Duration::from_millis((300.0 * random.uniform()) as u64));
            child.kill().unwrap();
            child.wait().unwrap();
            let path = bench.0.path("c");
            if path.exists() {
                let now = Checkpoint::read(&path).unwrap_or_else(|e| panic!("{round}: {e}"));
                assert!(now.sweeps() >= reached, "{round}");
                reached = now.sweeps();
            }
        }
        let (_, told) = bench.good(&all);
        assert!(reached == 0 || told.contains("going on from c"), "{told}");
        assert_eq!(bench.arrays("f.npz"), bench.arrays("whole.npz"));
        assert_eq!(bench.leftovers(), 0);
    }

    #[test]
    fn a_full_disk_is_told_and_survived() {
        let bench = Bench::new();
        bench.good(&["--max-iter", "900", "--out", "whole.npz"]);
        // A checkpoint grows with its history: at some sweep it becomes too large.
        let fit = bench.command(&[]);
        let program = fit.get_program().to_str().unwrap();
        let arguments: Vec<&str> = fit.get_args().map(|a| a.to_str().unwrap()).collect();
        let script = "trap '' XFSZ; ulimit -f 100; exec \"$@\"";
        let output = Command::new("sh")
            .args(["-c", script, "sh", program])
            .args(&arguments)
            .args(["--max-iter", "900", "--out", "f.npz"])
            .args(["--checkpoint", "c", "--checkpoint-every", "10"])
            .current_dir(bench.0.0.path())
            .output()
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{errors}");
        assert!(errors.contains("warning: ") && errors.contains("not written"), "{errors}");
        assert_eq!(bench.arrays("f.npz"), bench.arrays("whole.npz"));
        let last = Checkpoint::read(bench.0.path("c")).unwrap();
        assert!((1..900).contains(&last.sweeps()), "{}", last.sweeps());
        bench.good(&["--max-iter", "900", "--out", "f.npz", "--checkpoint", "c", "--resume"]);
        assert_eq!(bench.arrays("f.npz"), bench.arrays("whole.npz"));
        assert_eq!(bench.leftovers(), 0);

        // Where not even the first one can be written, nothing has been lost yet.
        let output = bench.run(&["--max-iter", "9", "--checkpoint", "/dev/full"]);
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains("error: /dev/full: "), "{errors}");
    }
}
