//! The program as a user meets it: good runs, and every kind of bad input.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ndarray::{Array1, Array2, Array3, ArrayD, IxDyn};
use nneinfact::io;
use tempfile::TempDir;

/// A folder of its own with files to fit, and the program to run in it.
pub(super) struct Bench {
    folder: TempDir,
}

impl Bench {
    /// With `y.npy`: 6 × 5 positive whole numbers.
    pub(super) fn new() -> Bench {
        let bench = Bench { folder: tempfile::tempdir().unwrap() };
        bench.npy("y.npy", &matrix());
        bench
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn npy<D: ndarray::Dimension>(&self, name: &str, array: &ndarray::Array<f64, D>) {
        io::write_npy(self.path(name), array).unwrap();
    }

    fn npz(&self, name: &str, arrays: &[(&str, ArrayD<f64>)]) {
        io::write_npz(self.path(name), arrays).unwrap();
    }

    pub(super) fn text(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The writers of the crate write numbers only, so masks are put together by hand.
    fn mask(&self, name: &str, shape: &[usize], cells: &[bool]) {
        let shape: String = shape.iter().map(|n| format!("{n}, ")).collect();
        let mut header =
            format!("{{'descr': '|b1', 'fortran_order': False, 'shape': ({shape}), }}");
        header += &" ".repeat(127 - 10 - header.len());
        header.push('\n');
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(cells.iter().map(|&c| u8::from(c)));
        std::fs::write(self.path(name), file).unwrap();
    }

    /// What is in the folder.
    pub(super) fn listing(&self) -> BTreeSet<String> {
        std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nneinfact"));
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    /// Runs what has to succeed; gives its standard output.
    pub(super) fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        assert!(!errors.contains("error:"), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Fits `y.npy`, or other data where the first argument is not an option, with a matrix model
    /// of rank 2, unless the arguments say otherwise.
    fn fit_arguments<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["fit"];
        if arguments.first().is_none_or(|a| a.starts_with("--")) {
            all.push("y.npy");
        }
        all.extend(arguments);
        if !arguments.contains(&"--model") {
            all.extend(["--model", "ir,jr->ij"]);
        }
        if !arguments.contains(&"--rank") {
            all.extend(["--rank", "r=2"]);
        }
        all
    }

    pub(super) fn fit(&self, arguments: &[&str]) -> String {
        self.good(&self.fit_arguments(arguments))
    }

    /// Runs what has to be refused as bad input: with status 2, one message that has all of
    /// `names` in it, nothing on standard output and nothing left behind.
    pub(super) fn refused(&self, arguments: &[&str], names: &[&str]) {
        let before = self.listing();
        let output = self.run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        let context = format!("{arguments:?}: {errors}");
        assert_eq!(output.status.code(), Some(2), "{context}");
        assert_eq!(errors.matches("error:").count(), 1, "{context}");
        assert!(!errors.contains("panicked"), "{context}");
        for name in names {
            assert!(errors.contains(name), "`{name}` is not in the message of {context}");
        }
        assert!(output.stdout.is_empty(), "{context}");
        assert_eq!(self.listing(), before, "{context}");
    }

    fn fit_refused(&self, arguments: &[&str], names: &[&str]) {
        let mut all = self.fit_arguments(arguments);
        // So that there is something to leave behind.
        if !arguments.contains(&"--out") {
            all.extend(["--out", "f.npz"]);
        }
        if !arguments.contains(&"--history") {
            all.extend(["--history", "h.json"]);
        }
        self.refused(&all, names);
    }

    fn history(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }

    fn losses(&self, name: &str) -> Vec<f64> {
        numbers(&self.history(name), "loss")
    }
}

fn numbers(history: &serde_json::Value, key: &str) -> Vec<f64> {
    history[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// 6 × 5, of rank 2 and a little more, all above 0.
fn matrix() -> Array2<f64> {
    Array2::from_shape_fn((6, 5), |(i, j)| ((i + 1) * (j + 2) + 3 * (5 - i) + (i * j) % 3) as f64)
}

/// The matrix as a start of rank 2.
fn start() -> Vec<(&'static str, ArrayD<f64>)> {
    let factor = |n| Array2::from_shape_fn((n, 2), |(i, r)| 1.0 + ((i + r) % 3) as f64).into_dyn();
    vec![("theta_1", factor(6)), ("theta_2", factor(5))]
}

// Good runs.

#[test]
fn a_fit_writes_factors_and_history() {
    let bench = Bench::new();
    let summary = bench.fit(&["--out", "f.npz", "--history", "h.json", "--max-iter", "30"]);
    for said in ["ir,jr->ij", "r = 2", "6 × 5", "kl", "cpu", "f32", "f.npz", "h.json"] {
        assert!(summary.contains(said), "{said}: {summary}");
    }
    let factors = io::read_npz_arrays(bench.path("f.npz")).unwrap();
    let named: Vec<_> = factors.iter().map(|(n, f)| (n.as_str(), f.shape().to_vec())).collect();
    assert_eq!(named, [("theta_1", vec![6, 2]), ("theta_2", vec![5, 2])]);
    assert!(factors.iter().all(|(_, f)| f.iter().all(|&x| x >= 0.0 && x.is_finite())));
    let predicted = |i: usize, j: usize| -> f64 {
        (0..2).map(|r| factors[0].1[[i, r]] * factors[1].1[[j, r]]).sum()
    };
    // Generalised Kullback–Leibler from the definition.
    let y = matrix();
    let loss = y
        .indexed_iter()
        .map(|((i, j), &x)| x * (x / predicted(i, j)).ln() - x + predicted(i, j))
        .sum::<f64>()
        / 30.0;

    let history = bench.history("h.json");
    let losses = numbers(&history, "loss");
    let iterations = history["iterations"].as_u64().unwrap() as usize;
    assert_eq!(losses.len(), iterations + 1);
    assert_eq!(numbers(&history, "seconds").len(), iterations + 1);
    assert!(numbers(&history, "validation_loss").is_empty());
    assert!(numbers(&history, "heldout_loss").is_empty());
    assert!(["tolerance", "max_iter"].contains(&history["stopped_by"].as_str().unwrap()));
    assert_eq!(history["algorithm"], "accelerated");
    assert_eq!(history["precision"], "f32");
    assert!(history["device"].as_str().unwrap().starts_with("cpu"));
    assert!(losses[iterations] < 0.1 * losses[0], "{losses:?}");
    let last = losses[iterations];
    assert!((last - loss).abs() < 1e-5 * (1.0 + loss), "{last} is said, {loss} is true");
    // Nothing else is left, temporary files in particular.
    let expected = ["f.npz", "h.json", "y.npy"].map(String::from);
    assert_eq!(bench.listing(), BTreeSet::from(expected));
}

#[test]
fn files_of_the_golden_case_give_its_factors() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/01_kl");
    let file = |name: &str| golden.join(name).to_str().unwrap().to_string();
    let case: serde_json::Value =
        serde_json::from_slice(&std::fs::read(golden.join("case.json")).unwrap()).unwrap();
    let iterations = case["iterations"].to_string();
    let bench = Bench::new();
    bench.good(&[
        "fit",
        &file("data.npy"),
        "--model",
        case["model"].as_str().unwrap(),
        "--rank",
        &format!("r={}", case["ranks"]["r"]),
        "--init",
        &file("init.npz"),
        "--algorithm",
        "block",
        "--precision",
        "f64",
        "--tol",
        "0",
        "--max-iter",
        &iterations,
        "--out",
        "f.npz",
        "--history",
        "h.json",
    ]);
    let expected = io::read_npz_arrays(golden.join("expected.npz")).unwrap();
    let found = io::read_npz_arrays(bench.path("f.npz")).unwrap();
    assert_eq!(found.len(), expected.len());
    for (name, factor) in &found {
        let truth = &expected.iter().find(|(n, _)| n == name).unwrap().1;
        let largest = truth.iter().copied().fold(0.0, f64::max);
        let worst = (factor - truth).iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        assert!(worst <= 1e-9 * largest, "{name} is off by {worst:e} of {largest}");
    }
    let losses = bench.losses("h.json");
    let truth = numbers(&case, "loss_history");
    assert_eq!(losses.len(), truth.len());
    for (n, (a, b)) in losses.iter().zip(&truth).enumerate() {
        assert!((a - b).abs() < 1e-9 * truth[0], "element {n}: {a} for {b}");
    }
}

#[test]
fn the_same_seed_gives_the_same_factors_with_any_number_of_threads() {
    let bench = Bench::new();
    // What the file says of the fit beside its arrays has its seconds in it.
    let file = |name: &str| io::read_npz_arrays(bench.path(name)).unwrap();
    bench.fit(&["--out", "a.npz", "--seed", "5", "--quiet"]);
    bench.fit(&["--out", "b.npz", "--seed", "5", "--quiet"]);
    bench.fit(&["--out", "c.npz", "--seed", "5", "--quiet", "--threads", "3"]);
    bench.fit(&["--out", "d.npz", "--seed", "6", "--quiet"]);
    assert_eq!(file("a.npz"), file("b.npz"));
    assert_eq!(file("a.npz"), file("c.npz"));
    assert_ne!(file("a.npz"), file("d.npz"));
}

#[test]
fn npz_and_tns_are_the_data_that_npy_is() {
    let bench = Bench::new();
    let y = matrix().into_dyn();
    bench.npz("one.npz", &[("anything", y.clone())]);
    bench.npz("two.npz", &[("other", Array1::ones(3).into_dyn()), ("Y", y)]);
    let lines: Vec<String> =
        matrix().indexed_iter().map(|((i, j), x)| format!("{} {} {x}\n", i + 1, j + 1)).collect();
    bench.text("y.tns", &lines.concat());
    let history = ["--history", "h.json", "--quiet"];
    let losses = |arguments: &[&str]| {
        bench.fit(&[arguments, &history].concat());
        bench.losses("h.json")
    };
    let expected = losses(&["y.npy"]);
    assert_eq!(losses(&["one.npz"]), expected);
    assert_eq!(losses(&["two.npz", "--key", "Y"]), expected);
    assert_eq!(losses(&["y.tns"]), expected);
    assert_eq!(losses(&["y.tns", "--shape", "6,5"]), expected);
    // A longer mode is one with more zeros.
    assert_ne!(losses(&["y.tns", "--shape", "6,7"]), expected);
    bench.fit_refused(&["two.npz"], &["two.npz", "other", "Y"]);
    bench.fit_refused(&["two.npz", "--key", "Z"], &["two.npz", "\"Z\"", "\"Y\""]);
}

#[test]
fn coordinates_are_fitted_without_their_zeros() {
    let bench = Bench::new();
    bench.text("y.tns", "1 1 4\n2 3 1\n5 2 6\n6 5 2\n3 3 3\n1 4 2\n");
    bench.text("some.tns", "2 3 1\n4 4 1\n");
    let losses = |arguments: &[&str]| {
        let always = ["y.tns", "--precision", "f64", "--history", "h.json", "--quiet"];
        bench.fit(&[&always, arguments].concat());
        bench.losses("h.json")
    };
    let near = |a: &[f64], b: &[f64]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9)
    };
    for options in [
        vec!["--max-iter", "3"],
        vec!["--max-iter", "3", "--missing", "some.tns"],
        vec!["--max-iter", "3", "--heldout-coordinates", "some.tns"],
        vec!["--max-iter", "3", "--validation-coordinates", "some.tns", "--early-stopping"],
        vec!["--max-iter", "3", "--heldout", "0.2", "--algorithm", "block"],
        vec!["--max-iter", "3", "--unlisted-missing", "--algorithm", "block"],
    ] {
        let form = |form: &'static str| losses(&[&options[..], &["--data-as", form]].concat());
        let (dense, sparse) = (form("dense"), form("sparse"));
        assert!(near(&dense, &sparse), "{options:?}: {dense:?} {sparse:?}");
    }
    let output = bench.run(&bench.fit_arguments(&["y.tns", "--data-as", "sparse"]));
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains("6 of them stored") && report.contains("6 stored entries"), "{report}");
    bench.fit_refused(&["y.npy", "--unlisted-missing"], &["--unlisted-missing", "y.npy"]);
    bench.text("far.tns", "9 9 1\n");
    bench.fit_refused(&["y.tns", "--missing", "far.tns"], &["far.tns", "line 1"]);
}

#[test]
fn duplicates_in_coordinates_are_added_with_a_notice() {
    let bench = Bench::new();
    bench.text("twice.tns", "1 1 2\n1 2 1\n2 1 4\n2 2 1\n1 1 3\n");
    bench.text("once.tns", "1 1 5\n1 2 1\n2 1 4\n2 2 1\n");
    let output = bench.run(&bench.fit_arguments(&["twice.tns", "--history", "a.json"]));
    assert!(output.status.success());
    let notice = String::from_utf8(output.stderr).unwrap();
    assert!(notice.contains("notice:") && notice.contains("1 entry stands"), "{notice}");
    bench.fit(&["once.tns", "--history", "b.json"]);
    assert_eq!(bench.losses("a.json"), bench.losses("b.json"));
}

#[test]
fn missing_entries_can_be_said_in_three_ways() {
    let bench = Bench::new();
    let missing = |i: usize, j: usize| (i + 2 * j).is_multiple_of(5);
    let cells: Vec<bool> = matrix().indexed_iter().map(|((i, j), _)| !missing(i, j)).collect();
    bench.mask("mask.npy", &[6, 5], &cells);
    bench.npy(
        "weights.npy",
        &Array2::from_shape_fn((6, 5), |(i, j)| if missing(i, j) { 0.0 } else { 1.0 }),
    );
    let mut holes = matrix();
    holes.indexed_iter_mut().filter(|((i, j), _)| missing(*i, *j)).for_each(|(_, x)| *x = f64::NAN);
    bench.npy("holes.npy", &holes);
    let losses = |arguments: &[&str]| {
        let summary = bench.fit(&[arguments, &["--history", "h.json"]].concat());
        assert!(summary.contains("6 missing"), "{summary}");
        bench.losses("h.json")
    };
    let expected = losses(&["y.npy", "--mask", "mask.npy"]);
    assert_eq!(losses(&["holes.npy", "--mask", "mask.npy"]), expected);
    assert_eq!(losses(&["holes.npy", "--nan-missing"]), expected);
    let weighted = losses(&["y.npy", "--weights", "weights.npy"]);
    assert!((weighted[0] - expected[0]).abs() < 1e-5 * expected[0]);
    bench.fit(&["--history", "all.json"]);
    assert_ne!(bench.losses("all.json"), expected);
}

#[test]
fn weights_weigh() {
    let bench = Bench::new();
    let weights = Array2::from_shape_fn((6, 5), |(i, _)| if i == 0 { 3.0 } else { 0.5 });
    bench.npy("w.npy", &weights);
    bench.npz("start.npz", &start());
    bench.fit(&[
        "--weights",
        "w.npy",
        "--init",
        "start.npz",
        "--max-iter",
        "0",
        "--history",
        "h.json",
        "--precision",
        "f64",
    ]);
    let start = start();
    let predicted = |i: usize, j: usize| -> f64 {
        (0..2).map(|r| start[0].1[[i, r]] * start[1].1[[j, r]]).sum()
    };
    let sum: f64 = matrix()
        .indexed_iter()
        .map(|((i, j), &x)| {
            let y = predicted(i, j);
            weights[[i, j]] * (x * (x / y).ln() - x + y)
        })
        .sum();
    let losses = bench.losses("h.json");
    assert_eq!(losses.len(), 1);
    assert!((losses[0] - sum / weights.sum()).abs() < 1e-9 * losses[0]);
}

#[test]
fn withheld_entries_are_reported_and_do_not_train() {
    let bench = Bench::new();
    let held: Vec<bool> = (0..30).map(|n| n % 7 == 0).collect();
    bench.mask("held.npy", &[6, 5], &held);
    let summary = bench.fit(&["--heldout-mask", "held.npy", "--history", "a.json"]);
    assert!(summary.contains("5 held out"), "{summary}");
    // What is held out can be anything that the loss accepts: it does not matter for training.
    let mut other = matrix();
    other.iter_mut().zip(&held).filter(|(_, held)| **held).for_each(|(x, _)| *x += 1.0);
    bench.npy("other.npy", &other);
    bench.fit(&["other.npy", "--heldout-mask", "held.npy", "--history", "b.json"]);
    let (a, b) = (bench.history("a.json"), bench.history("b.json"));
    assert_eq!(numbers(&a, "loss"), numbers(&b, "loss"));
    assert_eq!(numbers(&a, "heldout_loss").len(), numbers(&a, "loss").len());
    assert_ne!(numbers(&a, "heldout_loss"), numbers(&b, "heldout_loss"));
}

#[test]
fn random_splits_follow_their_own_seed() {
    let bench = Bench::new();
    bench.npy(
        "large.npy",
        &Array2::from_shape_fn((40, 30), |(i, j)| ((i * 7 + j * 3) % 11 + i) as f64),
    );
    let history = |name: &str, seed: &str| {
        bench.fit(&[
            "large.npy",
            "--heldout",
            "0.2",
            "--validation",
            "0.1",
            "--split-seed",
            seed,
            "--early-stopping",
            "--max-iter",
            "20",
            "--history",
            name,
        ]);
        let history = bench.history(name);
        let n = numbers(&history, "loss").len();
        assert_eq!(numbers(&history, "heldout_loss").len(), n);
        assert_eq!(numbers(&history, "validation_loss").len(), n);
        numbers(&history, "heldout_loss")
    };
    let first = history("a.json", "1");
    assert_eq!(history("b.json", "1"), first);
    assert_ne!(history("c.json", "2"), first);
}

#[test]
fn a_fit_goes_on_from_its_own_factors() {
    let bench = Bench::new();
    let common = ["--tol", "0", "--precision", "f64", "--quiet", "--out", "f.npz"];
    bench.fit(&[&common[..], &["--max-iter", "8", "--history", "a.json"]].concat());
    let there_and_on = ["--init", "f.npz", "--max-iter", "4", "--history", "b.json"];
    bench.fit(&[&common[..], &there_and_on].concat());
    let (a, b) = (bench.losses("a.json"), bench.losses("b.json"));
    assert!((b[0] - a[8]).abs() < 1e-9 * a[0], "{} after {}", b[0], a[8]);
    assert!(b[4] < b[0]);
}

#[test]
fn every_loss_has_a_name() {
    let bench = Bench::new();
    bench.npy("ones.npy", &Array2::from_shape_fn((6, 5), |(i, j)| ((i + j) % 2) as f64));
    bench.npy("phi.npy", &Array2::from_shape_fn((6, 5), |(i, _)| 1.0 + i as f64));
    let losses: [&[&str]; 17] = [
        &["y.npy", "--loss", "kl"],
        &["y.npy", "--loss", "euclidean"],
        &["y.npy", "--loss", "itakura-saito"],
        &["y.npy", "--loss", "hellinger"],
        &["y.npy", "--loss", "reverse-kl"],
        &["y.npy", "--loss", "neyman"],
        &["y.npy", "--loss", "pearson"],
        &["y.npy", "--loss", "alpha", "--alpha", "-0.5"],
        &["y.npy", "--loss", "beta", "--beta", "-1"],
        &["y.npy", "--loss", "alpha-beta", "--alpha", "0.7", "--beta", "0.5"],
        &["y.npy", "--loss", "negative-binomial", "--dispersion", "2"],
        &["y.npy", "--loss", "negative-binomial", "--dispersion", "phi.npy"],
        &["y.npy", "--loss", "geometric"],
        &["ones.npy", "--loss", "bernoulli"],
        &["y.npy", "--loss", "binomial", "--trials", "100"],
        &["ones.npy", "--loss", "binomial", "--trials", "phi.npy"],
        &["y.npy", "--loss", "jensen-shannon"],
    ];
    for loss in losses {
        let arguments = ["--history", "h.json", "--precision", "f64", "--max-iter", "10"];
        let summary = bench.fit(&[loss, &arguments].concat());
        assert!(summary.contains(loss[2]), "{summary}");
        let losses = bench.losses("h.json");
        let rises = losses.windows(2).any(|w| w[1] > w[0] + 1e-9 * losses[0].abs());
        assert!(!rises && losses[losses.len() - 1] < losses[0], "{loss:?}: {losses:?}");
    }
}

#[test]
fn quiet_is_quiet_and_progress_is_asked_for() {
    let bench = Bench::new();
    let output = bench.run(&bench.fit_arguments(&["--quiet"]));
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
    let output = bench.run(&bench.fit_arguments(&[]));
    assert!(output.stderr.is_empty(), "no progress where there is no terminal");
    assert!(String::from_utf8(output.stdout).unwrap().contains("--out"));
    let output = bench.run(&bench.fit_arguments(&["--progress"]));
    assert!(String::from_utf8(output.stderr).unwrap().contains("sweep 0/500"));
}

#[test]
fn a_latent_letter_in_one_factor_is_warned_about() {
    let bench = Bench::new();
    let arguments =
        bench.fit_arguments(&["--model", "irs,jr->ij", "--rank", "r=2", "--rank", "s=3"]);
    let output = bench.run(&arguments);
    assert!(output.status.success());
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(warning.starts_with("warning: ") && warning.contains("index s"), "{warning}");
}

#[test]
fn devices_and_explain() {
    let bench = Bench::new();
    let devices = bench.good(&["devices"]);
    assert!(devices.contains("cpu") && devices.contains("auto"), "{devices}");
    let explain = ["explain", "--model", "wr,hr,dr,ikr,jkr->whdij", "--rank", "r=10,k=6"];
    let plan = bench.good(&[&explain[..], &["--shape", "27,24,7,100,100"]].concat());
    for said in ["wr,hr,dr | ikr,jkr", "2 passes", "45.4 M", "kl"] {
        assert!(plan.contains(said), "{said}: {plan}");
    }
    #[cfg(feature = "gpu")]
    assert!(plan.ends_with("on a GPU 14 dispatches a sweep\n"), "{plan}");
    let block = ["--shape", "27,24,7,100,100", "--algorithm", "block", "--value-bytes", "2"];
    assert!(bench.good(&[&explain[..], &block].concat()).contains("5 passes"));
    #[cfg(feature = "gpu")]
    {
        let list = ["--shape", "27,24,7,100,100", "--nonzeros", "286000"];
        let told = bench.good(&[&explain[..], &list].concat());
        assert!(
            told.contains("on a GPU at least ") && told.ends_with("dispatches a sweep\n"),
            "{told}"
        );
        let adam = [&explain[..], &list[..2], &["--algorithm", "adam"]].concat();
        assert!(bench.good(&adam).ends_with("on a GPU the steps are made on the host\n"));
    }
    let split = ["--shape", "27,24,7,100,100", "--heldout", "0.1", "--validation", "0.5"];
    let told = bench.good(&[&explain[..], &split].concat());
    assert!(told.contains("withheld 2.495e7 entries") && told.contains("closed form"), "{told}");
    #[cfg(feature = "gpu")]
    assert!(told.ends_with(" dispatches a sweep\n"), "{told}");
    let sparse = [&explain[..], &split[..4], &["--nonzeros", "286000"]].concat();
    let told = bench.good(&sparse);
    assert!(told.contains("withheld 4.536e6 entries"), "{told}");
    assert!(told.contains("9.072e7 additions a sweep"), "{told}");
    let vast = ["--shape", "27000,24,7,1000,1000", "--heldout", "0.1", "--nonzeros", "286000"];
    let vast = [&explain[..], &vast].concat();
    let told = bench.good(&[&vast[..], &["--zeros-per-nonzero", "2"]].concat());
    assert!(told.contains("by strata 2.860e4 stored entries and 5.720e4 zeros"), "{told}");
    // As a fit would.
    bench.refused(&[&vast[..], &["--heldout-as", "cells"]].concat(), &["by strata", "4.5e12"]);
    let dense = [&explain[..], &split, &["--heldout-as", "strata"]].concat();
    bench.refused(&dense, &["--nonzeros"]);
    let exact = bench.good(&[&sparse[..], &["--loss", "euclidean"]].concat());
    assert!(exact.contains("quadratic form of every row"), "{exact}");
    #[cfg(feature = "gpu")]
    assert!(exact.contains("on a GPU at least "), "{exact}");
    let none = bench.good(&[&sparse[..], &["--loss", "geometric"]].concat());
    assert!(none.contains("no closed form"), "{none}");
    let bad = ["--shape", "27,24,7,100,100", "--heldout", "1.5"];
    bench.refused(&[&explain[..], &bad].concat(), &["--heldout", "0 to 1", "1.5"]);
    bench.refused(&[&explain[..], &["--shape", "27,24"]].concat(), &["2 modes", "whdij"]);
    bench.refused(&explain, &["--shape"]);
}

#[test]
fn the_instruction_set_can_be_chosen() {
    let bench = Bench::new();
    let run = |word: &str, arguments: &[&str]| {
        let mut command = bench.command(arguments);
        command.env("NNEINFACT_SIMD", word).output().unwrap()
    };
    let scalar = run("scalar", &["devices"]);
    let told = String::from_utf8(scalar.stdout).unwrap();
    assert!(scalar.status.success() && told.contains("no SIMD"), "{told}");
    for arguments in [bench.fit_arguments(&["--out", "f.npz"]), vec!["devices"]] {
        let refused = run("sse9", &arguments);
        let told = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{told}");
        assert!(told.contains("NNEINFACT_SIMD is \"sse9\"") && told.contains("avx2"), "{told}");
        assert!(refused.stdout.is_empty() && !bench.path("f.npz").exists());
    }
}

#[test]
fn the_demo_finds_what_was_planted() {
    let bench = Bench::new();
    let told = bench.good(&["demo", "--scale", "small", "--out", "made/here", "--save-data"]);
    for said in ["held-out", "truth", "commuters", "airports", "factors.npz"] {
        assert!(told.contains(said), "{said}: {told}");
    }
    let folder = bench.path("made/here");
    let names: BTreeSet<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = ["counts.npz", "factors.npz", "history.json", "planted.npz"];
    assert_eq!(names, BTreeSet::from(expected.map(String::from)));
    let counts = io::read_npz(folder.join("counts.npz"), None).unwrap();
    assert_eq!(counts.shape(), [9, 7, 24, 20, 20]);
    // The last column of the table: 1 is perfect.
    let whole: Vec<f64> = told
        .lines()
        .skip_while(|line| !line.trim_start().starts_with("pattern"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().last().unwrap().parse().unwrap())
        .collect();
    assert_eq!(whole.len(), 5, "{told}");
    assert!(whole.iter().all(|&cosine| cosine > 0.95), "{told}");
    assert!(told.contains("All 5 patterns were found"), "{told}");

    bench.good(&["demo", "--scale", "small", "--out", "again", "--quiet", "--threads", "1"]);
    let file = |path: &str| io::read_npz_arrays(bench.path(path)).unwrap();
    assert_eq!(file("made/here/factors.npz"), file("again/factors.npz"));
}

// Bad input.

#[test]
fn bad_models() {
    let bench = Bench::new();
    let models: [(&str, &[&str]); 12] = [
        ("", &["model is empty"]),
        ("ir,jr", &["no `->`"]),
        ("ir->jr->ij", &["more than one `->`"]),
        ("ir,,jr->ij", &["factor 2 has no indices"]),
        ("ir,jr->", &["no indices after `->`"]),
        ("...r,jr->ij", &["`...`"]),
        ("i1,j1->ij", &["`1`"]),
        ("iir,jr->ij", &["index i stands twice in factor 1"]),
        ("ir,jr->ii", &["index i stands twice in the output"]),
        ("ir,jr->ik", &["index k"]),
        ("ir,jr->ijk", &["index k"]),
        ("ir,jr,kr->ijk", &["2 modes", "ijk"]),
    ];
    for (model, names) in models {
        bench.fit_refused(&["--model", model], names);
    }
    bench.refused(&["fit", "y.npy"], &["--model"]);
}

#[test]
fn bad_ranks() {
    let bench = Bench::new();
    let ranks: [(&str, &[&str]); 9] = [
        ("s=2", &["s"]),
        ("r=2,s=2", &["s"]),
        ("r=2,i=6", &["index i", "observed"]),
        ("r=0", &["rank of r is 0"]),
        ("r=2,r=3", &["r: 2 and 3"]),
        ("r", &["--rank", "r=10"]),
        ("r=two", &["--rank", "two"]),
        ("r=-1", &["--rank", "-1"]),
        ("r=2,", &["--rank"]),
    ];
    for (rank, names) in ranks {
        bench.fit_refused(&["--rank", rank], names);
    }
    bench.refused(&["fit", "y.npy", "--model", "ir,jr->ij"], &["no rank given", "index r"]);
    // More than any machine has, said before any of it is taken.
    bench.fit_refused(&["--rank", "r=1000000000000"], &["memory", "TiB"]);
    bench.fit_refused(&["--rank", "r=9223372036854775807"], &["factor 1", "2^63"]);
}

#[test]
fn bad_files() {
    let bench = Bench::new();
    bench.fit_refused(&["nowhere.npy"], &["nowhere.npy"]);
    bench.text("y.csv", "1,2,3\n");
    bench.fit_refused(&["y.csv"], &["y.csv", "--modes", "its columns are 1, 2, 3"]);
    bench.text("y.dat", "1,2,3\n");
    bench.fit_refused(&["y.dat"], &["y.dat", ".npy"]);
    std::fs::create_dir(bench.path("folder.npy")).unwrap();
    bench.fit_refused(&["folder.npy"], &["folder.npy"]);
    for name in ["empty.npy", "empty.npz", "empty.tns"] {
        bench.text(name, "");
        bench.fit_refused(&[name], &[name]);
    }
    let whole = std::fs::read(bench.path("y.npy")).unwrap();
    for length in [3, 20, whole.len() - 1] {
        std::fs::write(bench.path("short.npy"), &whole[..length]).unwrap();
        bench.fit_refused(&["short.npy"], &["short.npy"]);
    }
    bench.npz("whole.npz", &[("Y", matrix().into_dyn())]);
    let whole = std::fs::read(bench.path("whole.npz")).unwrap();
    std::fs::write(bench.path("short.npz"), &whole[..whole.len() / 2]).unwrap();
    bench.fit_refused(&["short.npz"], &["short.npz"]);
    bench.mask("not_numbers.npy", &[6, 5], &[true; 30]);
    bench.npy("no_cells.npy", &Array2::zeros((0, 5)));
    bench.fit_refused(&["no_cells.npy"], &["no_cells.npy", "no entries"]);
    bench.text("words.tns", "1 1 2\n1 two 3\n");
    bench.fit_refused(&["words.tns"], &["words.tns", "line 2", "two"]);
    bench.text("zero.tns", "1 1 2\n0 1 3\n");
    bench.fit_refused(&["zero.tns"], &["zero.tns", "line 2", "index 0"]);
    bench.text("far.tns", "1 1 2\n7 1 3\n");
    bench.fit_refused(&["far.tns", "--shape", "6,5"], &["far.tns", "line 2", "7"]);
    // It is not the cells but the factors that are too many.
    bench.text("vast.tns", "1 1 2\n90000000000 90000000000 3\n");
    bench.fit_refused(&["vast.tns"], &["memory", "factors"]);
    bench.text("long.tns", "1 1 2\n900000000000 2 3\n");
    bench.fit_refused(&["long.tns"], &["memory", "factors"]);
    // Options of other kinds of files.
    bench.fit_refused(&["--key", "Y"], &["--key", "y.npy"]);
    bench.fit_refused(&["--shape", "6,5"], &["--shape", "y.npy"]);
    bench.fit_refused(&["words.tns", "--key", "Y"], &["--key", "words.tns"]);
    // Strings instead of numbers.
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/refused_string.npy");
    bench.fit_refused(&[fixture.to_str().unwrap()], &["refused_string.npy"]);
}

#[test]
fn values_outside_the_domain() {
    let bench = Bench::new();
    for (value, shown) in
        [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf"), (-1.0, "-1")]
    {
        let mut y = matrix();
        y[[2, 3]] = value;
        y[[4, 1]] = value;
        bench.npy("bad.npy", &y);
        let names = ["2 observed entries", shown, "[2, 3]", "kl"];
        bench.fit_refused(&["bad.npy"], &names);
        bench.fit_refused(&["bad.npy", "--heldout", "0.5"], &["observed entries"]);
    }
    let mut y = matrix();
    y[[0, 0]] = 0.0;
    bench.npy("zero.npy", &y);
    bench.fit(&["zero.npy", "--quiet"]);
    let names = ["1 observed entry", "0 at index [0, 0]", "itakura-saito", "mask"];
    bench.fit_refused(&["zero.npy", "--loss", "itakura-saito"], &names);
    bench.fit_refused(&["--loss", "bernoulli"], &["bernoulli", "observed entries"]);
    bench.fit_refused(&["--loss", "binomial", "--trials", "3"], &["binomial", "x <= 3"]);
}

#[test]
fn bad_masks_and_weights() {
    let bench = Bench::new();
    bench.mask("all.npy", &[6, 5], &[true; 30]);
    bench.mask("none.npy", &[6, 5], &[false; 30]);
    bench.mask("other.npy", &[5, 6], &[true; 30]);
    bench.fit(&["--mask", "all.npy", "--quiet"]);
    bench.fit_refused(&["--mask", "none.npy"], &["mask hides every entry"]);
    bench.fit_refused(&["--mask", "other.npy"], &["mask", "[5, 6]", "[6, 5]"]);
    bench.fit_refused(&["--mask", "y.npy"], &["y.npy", "bool"]);
    bench.fit_refused(&["--mask", "nowhere.npy"], &["nowhere.npy"]);
    bench.fit_refused(&["--heldout-mask", "y.npy"], &["y.npy", "bool"]);
    bench.fit_refused(&["--heldout-mask", "other.npy"], &["held-out mask", "[5, 6]"]);
    bench.fit_refused(&["--heldout-mask", "all.npy"], &["train"]);
    bench.npy("minus.npy", &matrix().mapv(|x| if x > 20.0 { -1.0 } else { 1.0 }));
    bench.npy("zeros.npy", &Array2::zeros((6, 5)));
    bench.npy("long.npy", &Array3::ones((6, 5, 1)));
    bench.fit_refused(&["--weights", "minus.npy"], &["weight", "-1"]);
    bench.fit_refused(&["--weights", "zeros.npy"], &["weights are 0"]);
    bench.fit_refused(&["--weights", "long.npy"], &["weights", "[6, 5, 1]", "[6, 5]"]);
    bench.fit_refused(&["--weights", "all.npy", "--mask", "all.npy"], &["--mask", "--weights"]);
}

#[test]
fn bad_losses() {
    let bench = Bench::new();
    let losses: [(&[&str], &[&str]); 11] = [
        (&["--loss", "l2"], &["l2", "euclidean"]),
        (&["--loss", "alpha"], &["alpha is missing"]),
        (&["--loss", "alpha-beta", "--alpha", "1"], &["beta is missing"]),
        (&["--loss", "kl", "--alpha", "1"], &["kl", "alpha"]),
        (&["--alpha", "1"], &["kl", "alpha"]),
        (&["--loss", "beta", "--beta", "inf"], &["beta", "finite"]),
        (&["--loss", "beta", "--beta", "one"], &["--beta", "one"]),
        (&["--loss", "alpha-beta", "--alpha", "0", "--beta", "2"], &["alpha = 0"]),
        (&["--loss", "negative-binomial", "--dispersion", "-1"], &["dispersion", "-1"]),
        (&["--loss", "negative-binomial", "--dispersion", "no.npy"], &["no.npy"]),
        (&["--loss", "binomial"], &["trials is missing"]),
    ];
    for (arguments, names) in losses {
        bench.fit_refused(arguments, names);
    }
    bench.npy("phi.npy", &Array2::ones((5, 6)));
    let phi = ["--loss", "negative-binomial", "--dispersion", "phi.npy"];
    bench.fit_refused(&phi, &["negative-binomial", "[5, 6]", "[6, 5]"]);
}

#[test]
fn bad_starts() {
    let bench = Bench::new();
    let refused = |arrays: &[(&str, ArrayD<f64>)], names: &[&str]| {
        bench.npz("start.npz", arrays);
        bench.fit_refused(&["--init", "start.npz"], names);
    };
    let [first, second] = <[_; 2]>::try_from(start()).unwrap();
    let both = ["theta_1, theta_2"];
    let named = |name: &'static str, array: &(&str, ArrayD<f64>)| (name, array.1.clone());
    refused(std::slice::from_ref(&first), &[&both[..], &["found \"theta_1\""]].concat());
    refused(&[first.clone(), named("b", &second)], &[&both[..], &["\"theta_1\", \"b\""]].concat());
    let more = [first.clone(), second.clone(), named("theta_3", &second)];
    refused(&more, &[&both[..], &["\"theta_3\""]].concat());
    refused(&[named("theta_1", &second), named("theta_2", &first)], &["theta_1", "[5, 2]"]);
    let mut wrong = first.clone();
    wrong.1[[1, 1]] = -1.0;
    refused(&[wrong.clone(), second.clone()], &["theta_1", "-1", "[1, 1]"]);
    wrong.1[[1, 1]] = f64::NAN;
    refused(&[wrong, second.clone()], &["theta_1", "NaN", "[1, 1]"]);
    refused(&[first, ("theta_2", ArrayD::zeros(IxDyn(&[5, 2])))], &["theta_2", "zero"]);
    bench.fit_refused(&["--init", "y.npy"], &["y.npy", ".npz"]);
    bench.fit_refused(&["--init", "nowhere.npz"], &["nowhere.npz"]);
}

#[test]
fn bad_settings() {
    let bench = Bench::new();
    let settings: [(&[&str], &[&str]); 19] = [
        (&["--heldout", "1"], &["held-out fraction", "1"]),
        (&["--heldout", "-0.1"], &["held-out fraction", "-0.1"]),
        (&["--heldout", "NaN"], &["held-out fraction", "NaN"]),
        (&["--heldout", "half"], &["--heldout", "half"]),
        (&["--validation", "1.5"], &["validation fraction", "1.5"]),
        (&["--heldout", "0.1", "--heldout-mask", "m.npy"], &["--heldout", "--heldout-mask"]),
        (&["--early-stopping"], &["--validation"]),
        (&["--early-stopping", "--validation", "0"], &["validation"]),
        (&["--tol", "-1"], &["tolerance", "-1"]),
        (&["--tol", "NaN"], &["tolerance"]),
        (&["--max-iter", "-1"], &["-1"]),
        (&["--inner-cycles", "0"], &["inner cycles"]),
        (&["--factor-floor", "-1"], &["factor floor", "-1"]),
        (&["--prediction-floor", "0"], &["prediction floor", "0"]),
        (&["--threads", "0"], &["threads"]),
        (&["--device", "abacus"], &["abacus", "cpu"]),
        (&["--precision", "f16"], &["--precision", "f16", "f64"]),
        (&["--algorithm", "fast"], &["--algorithm", "fast", "block"]),
        (&["--memory-limit", "lots"], &["--memory-limit", "512MiB"]),
    ];
    for (arguments, names) in settings {
        bench.fit_refused(arguments, names);
    }
    bench.refused(&["fit"], &["DATA"]);
    bench.refused(&["fiit"], &["fiit"]);
}

#[test]
fn bad_outputs() {
    let bench = Bench::new();
    bench.fit_refused(&["--out", "no/such/f.npz"], &["--out", "no/such"]);
    bench.fit_refused(&["--history", "no/such/h.json"], &["--history", "no/such"]);
    bench.fit_refused(&["--out", "."], &["--out", "folder"]);
    bench.fit_refused(&["--out", "y.npy"], &["--out", "y.npy", "replace"]);
    bench.fit_refused(&["--out", "same", "--history", "same"], &["same file"]);
    let before = std::fs::read(bench.path("y.npy")).unwrap();
    // A fit that is refused late leaves what stood there before.
    bench.text("f.npz", "precious");
    bench.fit_refused(&["--loss", "bernoulli"], &["bernoulli"]);
    assert_eq!(std::fs::read(bench.path("f.npz")).unwrap(), b"precious");
    assert_eq!(std::fs::read(bench.path("y.npy")).unwrap(), before);
    bench.refused(&["demo", "--scale", "small", "--out", "y.npy"], &["--out", "y.npy"]);
    bench.refused(&["demo", "--scale", "medium"], &["--scale", "medium"]);
}

#[test]
fn bad_components() {
    let bench = Bench::new();
    let settings: [(&[&str], &[&str]); 11] = [
        (&["--normalize", "l3"], &["--normalize", "l3", "l1", "max"]),
        (&["--normalize"], &["--normalize"]),
        (&["--scales-into", "jr"], &["--normalize"]),
        (&["--normalize", "l1", "--scales-into", "kr"], &["kr", "ir, jr"]),
        (&["--normalize", "l1", "--scales-into", "theta_3"], &["theta_3", "ir, jr"]),
        (&["--drop-empty=1"], &["at least 0 and below 1", "not 1"]),
        (&["--drop-empty=-0.5"], &["at least 0 and below 1", "-0.5"]),
        (&["--drop-empty=NaN"], &["at least 0 and below 1", "NaN"]),
        (&["--drop-empty=few"], &["--drop-empty", "few"]),
        (&["--sort=yes"], &["--sort"]),
        (
            &[
                "--normalize",
                "l1",
                "--scales-into",
                "ia",
                "--model",
                "ia,ab,jb->ij",
                "--rank",
                "a=2,b=3",
            ],
            &["theta_1 (ia)", "latent letter b", "ab, jb"],
        ),
    ];
    for (arguments, names) in settings {
        bench.fit_refused(arguments, names);
        // Before the data are read, which can take long.
        let first = arguments[0];
        if !first.ends_with("=few") && !first.ends_with("=yes") {
            let nowhere = [&["nowhere.npy"], arguments].concat();
            bench.fit_refused(&nowhere, names);
        }
    }
}

#[test]
fn components_are_normalised_sorted_and_dropped() {
    let bench = Bench::new();
    let arrays = |name: &str| io::read_npz_arrays(bench.path(name)).unwrap();
    let predicted = |arrays: &[(String, ArrayD<f64>)]| {
        Array2::from_shape_fn((6, 5), |(i, j)| -> f64 {
            let ranks = arrays[0].1.shape()[1];
            let weight = |r: usize| arrays.get(2).map_or(1.0, |w| w.1[[r]]);
            (0..ranks).map(|r| arrays[0].1[[i, r]] * arrays[1].1[[j, r]] * weight(r)).sum()
        })
    };
    let same = |a: &Array2<f64>, b: &Array2<f64>| {
        let apart = a.iter().zip(b).fold(0.0f64, |m, (a, b)| m.max((a / b - 1.0).abs()));
        assert!(apart < 1e-12, "{apart:e}");
    };
    let sums = |array: &ArrayD<f64>| array.sum_axis(ndarray::Axis(0));

    // The heavier component last, and one of zeros.
    let theta_1 = Array2::from_shape_fn((6, 3), |(i, r)| [1.0, 5.0 + i as f64, 0.0][r]);
    let theta_2 = Array2::from_shape_fn((5, 3), |(j, r)| [2.0 + j as f64, 3.0, 1.0][r]);
    let start = [("theta_1", theta_1.into_dyn()), ("theta_2", theta_2.into_dyn())];
    bench.npz("start.npz", &start);
    let fit = |extra: &[&str], out: &str| {
        let first = ["--init", "start.npz", "--rank", "r=3", "--max-iter", "0", "--out", out];
        bench.fit(&[&first, extra].concat())
    };
    let plain = fit(&[], "plain.npz");
    assert!(!plain.contains("components"), "{plain}");
    let expected = predicted(&arrays("plain.npz"));

    let said = fit(&["--normalize", "l1", "--sort", "--drop-empty"], "all.npz");
    for part in ["2 of the 3 of r", "sorted, r:", "l1 norm 1", "weights", "theta_2, weights"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let all = arrays("all.npz");
    let names: Vec<&str> = all.iter().map(|a| a.0.as_str()).collect();
    assert_eq!(names, ["theta_1", "theta_2", "weights"]);
    assert_eq!(all[2].1.shape(), [2]);
    same(&predicted(&all), &expected);
    for factor in &all[..2] {
        assert!(sums(&factor.1).iter().all(|s| (s - 1.0).abs() < 1e-12), "{}", factor.0);
    }
    assert!(all[2].1[[0]] > all[2].1[[1]]);
    assert!((all[2].1.sum() / expected.sum() - 1.0).abs() < 1e-12);

    fit(&["--normalize", "max", "--scales-into", "jr"], "into.npz");
    let into = arrays("into.npz");
    assert_eq!(into.len(), 2);
    same(&predicted(&into), &expected);
    assert_eq!(into[0].1[[5, 1]], 1.0);

    // Such a file is a start again.
    bench.fit(&["--init", "all.npz", "--max-iter", "0", "--out", "again.npz"]);
    same(&predicted(&arrays("again.npz")), &expected);
    let mut wrong = all.clone();
    wrong[2].1 = ArrayD::ones(IxDyn(&[3]));
    io::write_npz(bench.path("wrong.npz"), &wrong).unwrap();
    bench.fit_refused(&["--init", "wrong.npz"], &["wrong.npz", "weights", "[3]"]);
}

#[test]
fn starts_are_chosen() {
    let bench = Bench::new();
    let fit = |extra: &[&str]| {
        let first = ["--max-iter", "0", "--history", "h.json", "--out", "f.npz"];
        let said = bench.fit(&[&first, extra].concat());
        let losses = bench.losses("h.json");
        (said, losses[0], io::read_npz_arrays(bench.path("f.npz")).unwrap())
    };
    let (said, random, plain) = fit(&[]);
    assert!(!said.contains("start"), "{said}");
    assert_eq!(fit(&["--start", "random"]).2, plain);
    let (said, _, gamma) = fit(&["--start", "gamma"]);
    assert!(said.contains("gamma") && said.contains("shape 1"), "{said}");
    assert_eq!(fit(&["--start", "gamma", "--gamma-shape", "1"]).2, gamma);
    let other = fit(&["--start", "gamma", "--gamma-shape", "0.3"]).2;
    assert!(other != gamma && gamma != plain);
    let (said, svd, _) = fit(&["--start", "svd"]);
    assert!(said.contains("singular vectors"), "{said}");
    assert!(svd < 0.5 * random, "{svd} {random}");

    bench.fit(&["--rank", "r=1", "--out", "one.npz", "--history", "one.json"]);
    let (said, grown, _) = fit(&["--grow", "one.npz"]);
    assert!(said.contains("one.npz"), "{said}");
    let last = *bench.losses("one.json").last().unwrap();
    assert!((grown / last - 1.0).abs() < 0.05, "{grown} {last}");
    // Normalised factors as well.
    bench.fit(&["--rank", "r=1", "--normalize", "l2", "--out", "one.npz"]);
    let (_, again, _) = fit(&["--grow", "one.npz"]);
    assert!((again / last - 1.0).abs() < 0.05, "{again} {last}");
}

#[test]
fn bad_choices_of_a_start() {
    let bench = Bench::new();
    bench.npz("start.npz", &start());
    let settings: [(&[&str], &[&str]); 10] = [
        (&["--start", "warm"], &["--start", "warm", "gamma", "svd"]),
        (&["--gamma-shape", "2"], &["--start"]),
        (&["--start", "svd", "--gamma-shape", "2"], &["--gamma-shape", "--start gamma"]),
        (&["--start", "gamma", "--gamma-shape", "0"], &["gamma", "positive", "0"]),
        (&["--start", "gamma", "--gamma-shape", "-1"], &["gamma", "positive", "-1"]),
        (&["--start", "gamma", "--gamma-shape", "inf"], &["gamma", "positive", "inf"]),
        (&["--start", "svd", "--init", "start.npz"], &["--init", "--start"]),
        (&["--grow", "start.npz", "--init", "start.npz"], &["--init", "--grow"]),
        (&["--grow", "start.npz", "--start", "random"], &["--start", "--grow"]),
        (&["--grow", "start.npz", "--rank", "r=1"], &["latent letter r", "rank is 1"]),
    ];
    for (arguments, names) in settings {
        bench.fit_refused(arguments, names);
    }
    bench.fit_refused(&["--grow", "nowhere.npz"], &["nowhere.npz"]);
    bench.fit_refused(&["--stream", "--start", "svd"], &["singular vectors", "--no-stream"]);
}

#[test]
fn data_that_stay_in_their_file_give_the_same_factors() {
    let bench = Bench::new();
    let y = Array2::from_shape_fn((70, 90), |(i, j)| 0.1 + ((i * 31 + j * 17) % 23) as f64);
    bench.npy("large.npy", &y);
    let observed: Vec<bool> = (0..70 * 90).map(|i| i % 11 != 0).collect();
    bench.mask("mask.npy", &[70, 90], &observed);
    let held_out: Vec<bool> = (0..70 * 90).map(|i| i % 7 == 0).collect();
    bench.mask("held.npy", &[70, 90], &held_out);
    bench.npy("weights.npy", &y.mapv(|x| 1.0 + x % 2.0));
    let fit = |extra: &[&str], stream: &str, out: &str| {
        let mut all = vec!["large.npy", "--max-iter", "5", "--device", "cpu", "--out", out, stream];
        all.extend(extra);
        bench.fit(&all)
    };
    let cases: [&[&str]; 4] = [
        &[],
        &["--mask", "mask.npy", "--heldout", "0.1"],
        &["--weights", "weights.npy", "--heldout-mask", "held.npy"],
        &["--nan-missing", "--validation", "0.2", "--early-stopping"],
    ];
    for case in cases {
        let streamed = fit(case, "--stream", "streamed.npz");
        assert!(streamed.contains("streamed from the file"), "{streamed}");
        let in_memory = fit(case, "--no-stream", "memory.npz");
        assert!(!in_memory.contains("streamed"), "{in_memory}");
        let factors = |name: &str| io::read_npz_arrays(bench.path(name)).unwrap();
        assert_eq!(factors("streamed.npz"), factors("memory.npz"), "{case:?}");
    }
    // Data this small are read, if nobody says otherwise.
    assert!(!bench.fit(&["large.npy", "--max-iter", "1"]).contains("streamed"));
}

#[test]
fn only_npy_files_are_streamed() {
    let bench = Bench::new();
    bench.npz("y.npz", &[("Y", matrix().into_dyn())]);
    bench.text("y.tns", "1 1 3\n2 2 4\n");
    bench.fit_refused(&["y.npz", "--stream"], &["--stream is for .npy files", "y.npz"]);
    bench.fit_refused(&["y.tns", "--stream"], &["--stream is for .npy files", "y.tns"]);
    bench.fit_refused(&["--stream", "--no-stream"], &["cannot be used with"]);
    bench.npy("short.npy", &matrix());
    let bytes = std::fs::read(bench.path("short.npy")).unwrap();
    std::fs::write(bench.path("short.npy"), &bytes[..bytes.len() - 3]).unwrap();
    bench.fit_refused(&["short.npy", "--stream"], &["short.npy", "bytes follow"]);
}

#[test]
fn factors_are_penalised_bounded_and_fixed() {
    let bench = Bench::new();
    let cpu = ["--device", "cpu", "--max-iter", "30", "--out", "f.npz", "--history", "h.json"];
    let fit = |extra: &[&str]| {
        let arguments: Vec<&str> = cpu.iter().chain(extra).copied().collect();
        bench.fit(&arguments)
    };
    let history = || -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(bench.path("h.json")).unwrap()).unwrap()
    };
    let factors = || io::read_npz_arrays(bench.path("f.npz")).unwrap();

    let plain = fit(&[]);
    assert!(!plain.contains("penalty"), "{plain}");
    assert_eq!(history()["penalty"].as_array().unwrap().len(), 0);
    for penalty in
        [&["--l1", "0.5"][..], &["--l2", "0.1"], &["--penalty", "ir:l1=0.2", "--l2", "0.3"]]
    {
        let report = fit(penalty);
        assert!(report.contains("penalty    per entry"), "{report}");
        let history = history();
        let numbers = |name: &str| -> Vec<f64> {
            history[name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let both: Vec<f64> =
            numbers("loss").iter().zip(numbers("penalty")).map(|(l, p)| l + p).collect();
        assert!(both.windows(2).all(|pair| pair[1] <= pair[0] * (1.0 + 1e-4)), "{both:?}");
        // Balanced: p μ Σ θ^p of a component is the same in both factors.
        let values = factors();
        let level = |l: usize, p: f64, weight: f64| -> Vec<f64> {
            let powers = values[l].1.mapv(|x| p * weight * x.powf(p));
            powers.sum_axis(ndarray::Axis(0)).into_iter().collect()
        };
        let [left, right] = match penalty {
            ["--l1", ..] => [level(0, 1.0, 0.5), level(1, 1.0, 0.5)],
            ["--l2", ..] => [level(0, 2.0, 0.1), level(1, 2.0, 0.1)],
            _ => [level(0, 1.0, 0.2), level(1, 2.0, 0.3)],
        };
        for (x, y) in left.iter().zip(&right) {
            assert!(*x > 0.0 && (x - y).abs() < 1e-3 * x, "{penalty:?}: {left:?} {right:?}");
        }
    }

    let known = Array2::from_shape_fn((6, 2), |(i, r)| ((i + r) % 3) as f64);
    bench.npy("A.npy", &known);
    fit(&["--fix", "ir=A.npy"]);
    assert_eq!(factors()[0].1, known.clone().into_dyn());
    bench.npz("all.npz", &[("theta_1", known.clone().into_dyn()), ("theta_2", known.into_dyn())]);
    fit(&["--fix", "ir=all.npz"]);
    fit(&["--bounds", "ir=0.2:0.5"]);
    assert!(factors()[0].1.iter().all(|x| (0.2..=0.5).contains(x)));
    let report = fit(&["--starts", "4"]);
    assert!(report.contains("4 were tried; seed"), "{report}");

    // A penalty that scale can run away from is told on standard error.
    let output = bench.run(&bench.fit_arguments(&["--penalty", "ir:l1=1", "--max-iter", "2"]));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.matches("is void").count() == 1, "{told}");
}

#[test]
fn fixed_factors_of_a_normalised_file_are_those_that_were_fitted() {
    let bench = Bench::new();
    let cpu = ["--device", "cpu", "--precision", "f64", "--max-iter", "5"];
    let fit = |extra: &[&str]| bench.fit(&[&cpu[..], extra].concat());
    fit(&["--normalize", "l1", "--out", "normal.npz"]);
    let arrays = io::read_npz_arrays(bench.path("normal.npz")).unwrap();
    let array = |name: &str| arrays.iter().find(|(n, _)| n == name).unwrap().1.clone();
    // The weights go into the first factor that has their letters, as with --init.
    let scaled = &array("theta_1") * &array("weights");
    let kept = |factor: &str, l: usize| {
        fit(&["--fix", &format!("{factor}=normal.npz"), "--out", "f.npz"]);
        io::read_npz_arrays(bench.path("f.npz")).unwrap().swap_remove(l).1
    };
    let found = kept("ir", 0);
    assert!(found.iter().zip(&scaled).all(|(f, e)| (f - e).abs() <= 1e-12 * e), "{found} {scaled}");
    assert_eq!(kept("jr", 1), array("theta_2"));
    // Of another model, whose factor the weights belong into is not there.
    bench.npz("part.npz", &[("theta_1", array("theta_1")), ("weights", array("weights"))]);
    bench.fit_refused(&["--fix", "ir=part.npz"], &["part.npz", "weights", "--normalize"]);
}

#[test]
fn bad_penalties_bounds_and_fixed_factors() {
    let bench = Bench::new();
    bench.npy("A.npy", &Array2::from_elem((5, 2), 1.0));
    bench.npy("negative.npy", &Array2::from_elem((6, 2), -1.0));
    let cases: [(&[&str], &[&str]); 20] = [
        (&["--penalty", "ir:l1=1", "--penalty", "ir:l2=1"], &["--penalty", "twice", "ir"]),
        (&["--bounds", "ir=0:1", "--bounds", "theta_1=0:2"], &["--bounds", "twice"]),
        (&["--fix", "ir=A.npy", "--fix", "ir=A.npy"], &["--fix", "twice", "ir"]),
        (&["--l1", "-1"], &["at least 0", "-1"]),
        (&["--l2", "nan"], &["at least 0"]),
        (&["--l1", "1", "--l2", "1"], &["--l1", "--l2"]),
        (&["--penalty", "ir=1"], &["ikr:l1=0.1"]),
        (&["--penalty", "ir:l0.5=1"], &["at least 1", "0.5"]),
        (&["--penalty", "ir:ridge=1"], &["ridge", "l2"]),
        (&["--penalty", "kr:l1=1"], &["kr", "ir, jr"]),
        (&["--balance", "often"], &["often", "sweep"]),
        (&["--fix", "ir"], &["ma=A.npy"]),
        (&["--fix", "ir=nowhere.npy"], &["nowhere.npy"]),
        (&["--fix", "ir=A.npy"], &["[5, 2]", "[6, 2]"]),
        (&["--fix", "ir=negative.npy"], &["ir", "at least 0"]),
        (&["--fix", "jr=A.npy", "--penalty", "jr:l1=1"], &["jr", "fixed"]),
        (&["--bounds", "ir=1"], &["ikr=0:1"]),
        (&["--bounds", "ir=2:1"], &["bounds", "2 and 1"]),
        (&["--bounds", "ir=-1:1"], &["bounds", "-1"]),
        (&["--starts", "0"], &["at least 1"]),
    ];
    for (arguments, names) in cases {
        bench.fit_refused(arguments, names);
    }
}

#[test]
fn adam_and_its_learning_rate() {
    let bench = Bench::new();
    let adam = ["--algorithm", "adam", "--max-iter", "30", "--precision", "f64"];
    let run = |more: &[&str]| {
        let all = [&adam[..], more, &["--history", "h.json"]].concat();
        let report = bench.fit(&all);
        assert!(report.contains("adam"), "{report}");
        let text = std::fs::read_to_string(bench.path("h.json")).unwrap();
        let history: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(history["algorithm"], "adam");
        let returned = history["returned"].as_u64().unwrap() as usize;
        history["loss"][returned].as_f64().unwrap()
    };
    // The default is 0.1.
    assert_eq!(run(&[]), run(&["--learning-rate", "0.1"]));
    assert_ne!(run(&[]), run(&["--learning-rate", "0.01"]));

    let cases: [(&[&str], &[&str]); 7] = [
        (&["--learning-rate", "0.1"], &["learning rate", "accelerated"]),
        (&["--learning-rate", "0.1", "--algorithm", "block"], &["learning rate", "block"]),
        (&["--algorithm", "adam", "--learning-rate", "0"], &["above 0", "0"]),
        (&["--algorithm", "adam", "--learning-rate", "-0.1"], &["above 0", "-0.1"]),
        (&["--algorithm", "adam", "--learning-rate", "nan"], &["above 0", "NaN"]),
        (&["--algorithm", "adam", "--learning-rate", "inf"], &["above 0", "inf"]),
        (&["--algorithm", "adam", "--learning-rate", "fast"], &["--learning-rate", "fast"]),
    ];
    for (arguments, names) in cases {
        bench.fit_refused(arguments, names);
    }
    // Before the data are read.
    bench.fit_refused(&["nowhere.npy", "--learning-rate", "0.1"], &["learning rate"]);
}

#[test]
fn a_benchmark_measures_the_processor_and_sets_passes_beside_it() {
    let bench = Bench::new();
    let report =
        bench.good(&["bench", "--quick", "--device", "cpu", "--threads", "2", "--only", "pickups"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let rates = report["measured_rates"].as_object().unwrap();
    for name in ["read_bytes", "copy_bytes", "multiply_adds", "powers", "logarithms"] {
        let rate = rates[&format!("{name}_per_second")].as_f64().unwrap();
        assert!(rate > 0.0 && rate.is_finite(), "{name}: {rate}");
    }
    let rate = |name: &str| rates[&format!("{name}_per_second")].as_f64().unwrap();
    let mut kl = Vec::new();
    for problem in report["problems"].as_array().unwrap() {
        let name = problem["problem"].as_str().unwrap();
        assert!(problem.get("error").is_none(), "{problem}");
        let passes = problem["passes"].as_array().unwrap();
        assert!(!passes.is_empty(), "{name}");
        assert!(problem.get("dispatches_per_sweep").is_some_and(|n| n.is_null()), "{name}");
        for pass in passes {
            let number = |key: &str| pass[key].as_f64().unwrap();
            // The longer of what reading and what computing would take at the rates above.
            let memory = number("bytes") / rate("read_bytes");
            let arithmetic = number("multiply_adds") / rate("multiply_adds")
                + number("powers") / rate("powers")
                + number("logarithms") / rate("logarithms");
            let bound = memory.max(arithmetic);
            assert!((number("bound_seconds") / bound - 1.0).abs() < 1e-9, "{name}: {pass}");
            let fraction = number("fraction_of_bound") * number("seconds");
            assert!(bound > 0.0 && (fraction / bound - 1.0).abs() < 1e-9, "{name}: {pass}");
        }
        let first = &passes[0];
        let entries: f64 =
            problem["shape"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).product();
        match name.rsplit_once(", ").unwrap().1 {
            // x/ŷ has no power, and the loss one logarithm of the ratio.
            "kl" => {
                assert_eq!(first["powers"].as_f64(), Some(0.0), "{name}");
                assert_eq!(first["logarithms"].as_f64(), Some(entries), "{name}");
                kl.push(first["inner"].as_f64().unwrap());
            }
            _ => assert!(
                first["powers"].as_f64().unwrap() + first["logarithms"].as_f64().unwrap() > 0.0,
                "{name}"
            ),
        }
    }
    assert_eq!(kl, [4.0, 10.0, 40.0, 195.0]);
}
