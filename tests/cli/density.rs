//! `nneinfact density`: golden cases as far as options reach, good runs, and bad input.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ndarray::{Array2, ArrayD, Axis, IxDyn};
use nneinfact::density::{Density, Indices, NonnegativeTrain, SavedTrain};
use nneinfact::io;
use serde_json::Value;
use tempfile::TempDir;

/// A folder to run the program in.
struct Folder(TempDir);

type Arrays = BTreeMap<String, ArrayD<f64>>;

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_nneinfact"))
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    /// Runs what has to succeed; gives what it says on both outputs.
    fn good(&self, arguments: &[&str]) -> (String, String) {
        let output = self.run(arguments);
        let said = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (out, errors) = (said(output.stdout), said(output.stderr));
        assert!(output.status.success(), "{arguments:?}: {errors}");
        (out, errors)
    }

    /// Runs what has to fail as the user's mistake, with these words.
    fn refused(&self, arguments: &[&str], words: &[&str]) {
        let output = self.run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        for word in words {
            assert!(errors.contains(word), "{arguments:?}: no {word:?} in: {errors}");
        }
        assert!(!errors.contains("panicked"), "{errors}");
    }

    /// Writes arrays `from_1`, … of a case as `to_1`, ….
    fn series(&self, name: &str, case: &Arrays, from: &str, to: &str) {
        let of = |k: usize| case.get(&format!("{from}_{k}"));
        let arrays: Vec<(String, ArrayD<f64>)> =
            (1..).map_while(|k| of(k).map(|array| (format!("{to}_{k}"), array.clone()))).collect();
        assert!(!arrays.is_empty(), "{from}");
        io::write_npz(self.path(name), &arrays).unwrap();
    }

    fn npy(&self, name: &str, array: &ArrayD<f64>) {
        io::write_npy(self.path(name), array).unwrap();
    }

    fn arrays(&self, name: &str) -> Arrays {
        io::read_npz_arrays(self.path(name)).unwrap().into_iter().collect()
    }

    fn array(&self, name: &str) -> ArrayD<f64> {
        io::read_array_f64(self.path(name), None).unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }

    /// A random distribution over 2 × 3 × 4 × 2 values.
    fn distribution(&self, name: &str) -> Density {
        let train = NonnegativeTrain::random(&[2, 3, 4, 2], &[2, 3, 2], 5).unwrap();
        SavedTrain::new(train.clone().into_train()).save(self.path(name)).unwrap();
        Density::new(&train).unwrap()
    }
}

fn golden_file(name: &str, file: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/density/tests/golden");
    root.join(name).join(file)
}

/// The description of a golden case.
fn described(name: &str) -> Value {
    let text = std::fs::read_to_string(golden_file(name, "case.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The arrays and the description of a golden case.
fn golden(name: &str) -> (Arrays, Value) {
    let arrays = io::read_npz_arrays(golden_file(name, "arrays.npz")).unwrap();
    (arrays.into_iter().collect(), described(name))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[track_caller]
fn close(got: &ArrayD<f64>, want: &ArrayD<f64>, tolerance: f64) {
    assert_eq!(got.shape(), want.shape());
    let top = want.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= tolerance * top, "{g} for {w}");
    }
}

/// The options of a golden fit.
fn options(case: &Value) -> Vec<String> {
    let method = match case["method"].as_str().unwrap() {
        "coordinate descent" => "descent",
        other => other,
    };
    let mut all = vec!["--method".to_string(), method.into()];
    let given = &case["options"];
    for (option, key) in [
        ("--schedule", "schedule"),
        ("--solver", "solver"),
        ("--line-search", "line"),
        ("--sigma", "sigma"),
        ("--barrier", "mu0"),
        ("--barrier-min", "mu_min"),
        ("--cg-max", "cg_max"),
        ("--cg-tol", "cg_tol"),
        ("--pre-min", "pre_min"),
        ("--decay", "decay"),
        ("--switch", "switch"),
        ("--inner", "inner"),
    ] {
        match &given[key] {
            Value::Null => continue,
            Value::String(word) => all.extend([option.to_string(), word.clone()]),
            number => all.extend([option.to_string(), number.to_string()]),
        }
    }
    all
}

fn check_fit(name: &str) {
    let (arrays, case) = golden(name);
    let folder = Folder::new();
    folder.series("target.npz", &arrays, "target", "core");
    folder.series("init.npz", &arrays, "init", "core");
    let tolerance = case["tolerance"].as_f64().unwrap();
    let options = options(&case);
    let run = |sweeps: &str, threads: &str, out: &str| {
        let fixed = ["density", "fit", "target.npz", "--init", "init.npz", "--target-error", "0"];
        let wanted =
            ["--sweeps", sweeps, "--threads", threads, "--out", out, "--history", "h.json"];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        folder.good(&[&fixed[..], &wanted, &options].concat());
        folder.arrays(out)
    };
    let cores = |got: &Arrays, series: &str| {
        let order = case["n"].as_array().unwrap().len();
        for k in 1..=order {
            close(&got[&format!("core_{k}")], &arrays[&format!("{series}_{k}")], tolerance);
        }
    };
    cores(&run("1", "1", "one.npz"), "after1");
    let sweeps = case["sweeps"].to_string();
    let one = run(&sweeps, "1", "a.npz");
    cores(&one, "expected");
    assert_eq!(one, run(&sweeps, "2", "b.npz"), "other bits with two threads");
    let history = folder.json("h.json");
    assert_eq!(history["stopped_by"], "sweeps");
    let same = |got: &Value, want: &Value| {
        let (got, want) = (numbers(got), numbers(want));
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(&want) {
            assert!((g - w).abs() <= 1e-13 + tolerance * w.abs(), "{g} for {w}");
        }
    };
    same(&history["error"], &case["rel2"]);
    if case["method"] == "newton" {
        same(&history["barrier"], &case["mu_after"]);
        same(&history["step"], &case["tmin"]);
    }
    assert_eq!(numbers(&history["cg_steps"]).len(), numbers(&case["rel2"]).len());
}

#[test]
fn golden_fits() {
    for name in [
        "01_newton_fixed_direct",
        "02_newton_adaptive_direct",
        "03_newton_adaptive_pcg",
        "04_newton_adaptive_jacobi_slice",
        "05_multiplicative",
        "06_coordinate_descent",
    ] {
        check_fit(name);
    }
}

/// All entries of a train in a file.
fn full(path: PathBuf) -> ArrayD<f64> {
    let train = SavedTrain::load(path).unwrap().train().clone();
    ArrayD::from_shape_vec(IxDyn(&train.sizes()), train.to_dense().unwrap()).unwrap()
}

#[test]
fn golden_sketch() {
    let (arrays, case) = golden("08_sketch_cores");
    let folder = Folder::new();
    folder.npy("samples.npy", &arrays["samples"]);
    let all: Vec<(String, ArrayD<f64>)> = arrays.clone().into_iter().collect();
    io::write_npz(folder.path("cores.npz"), &all).unwrap();
    let sizes: Vec<String> = numbers(&case["n"]).iter().map(ToString::to_string).collect();
    let rank = case["rank"].to_string();
    let (sizes, run) = (sizes.join(","), ["density", "sketch", "samples.npy", "--sizes"]);
    let how = ["--rank", &rank, "--sketch", "cores", "--sketch-cores", "cores.npz"];
    for (threads, out) in [("1", "one.npz"), ("2", "two.npz")] {
        let rest = [&sizes[..], "--threads", threads, "--out", out];
        folder.good(&[&run[..], &rest, &how].concat());
    }
    assert_eq!(folder.arrays("one.npz"), folder.arrays("two.npz"));
    let tolerance = case["tolerance"].as_f64().unwrap();
    close(&full(folder.path("one.npz")), &arrays["expected_full"], tolerance);
    // The singular values are told of, as noise shows in them.
    let (said, notices) = folder.good(&[&run[..], &[&sizes[..], "--out", "m.npz"]].concat());
    assert!(said.contains("values at the middle cut: "), "{said}");
    assert!(notices.contains("neither a rank nor a tolerance"), "{notices}");
}

fn check_use(name: &str) {
    let (arrays, case) = golden(name);
    let folder = Folder::new();
    folder.series("ntt.npz", &arrays, "model", "core");
    folder.series("f.npz", &arrays, "f", "f");
    for name in ["uniforms", "samples"] {
        folder.npy(&format!("{name}.npy"), &arrays[name]);
    }
    let tolerance = case["tolerance"].as_f64().unwrap();
    let near = |got: f64, want: f64| {
        assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{got} for {want}");
    };
    let ask = |rest: &[&str]| folder.good(&[&["density", "ask", "ntt.npz"], rest].concat()).0;
    let answer = |rest: &[&str]| {
        ask(&[rest, &["--out", "out.npy"]].concat());
        folder.array("out.npy")
    };
    let number = |rest: &[&str]| -> f64 {
        let text = ask(rest);
        let number = text.trim().rsplit_once(": ").unwrap().1;
        number.split(' ').next().unwrap().parse().unwrap()
    };
    let list = |value: &Value| {
        let all: Vec<String> = numbers(value).iter().map(ToString::to_string).collect();
        all.join(",")
    };
    near(number(&["--log-partition"]), case["log_z"].as_f64().unwrap());
    close(&answer(&["--marginal", &list(&case["keep"])]), &arrays["marginal"], tolerance);
    // Values are counted from 1 in the case, from 0 on the command line.
    let given = case["given"].as_object().unwrap().iter();
    let given: Vec<String> =
        given.map(|(k, value)| format!("{k}={}", value.as_u64().unwrap() - 1)).collect();
    let given = given.join(",");
    near(number(&["--given", &given]), case["log_prob_given"].as_f64().unwrap());
    let asked = ["--given", &given, "--marginal", &list(&case["conditional_modes"])];
    close(&answer(&asked), &arrays["conditional"], tolerance);
    for (got, want) in answer(&["--mean", "f.npz"]).iter().zip(numbers(&case["mean_f"])) {
        near(*got, want);
    }
    let covariance = answer(&["--covariance", "f.npz"]);
    let d = covariance.shape()[0];
    near(covariance[[0, 1]], case["covariance_1_2"].as_f64().unwrap());
    near(covariance[[0, d - 1]], case["covariance_1_d"].as_f64().unwrap());
    assert_eq!(answer(&["--mean", "f.npz", "--covariance"]), covariance);
    assert_eq!(answer(&["--uniforms", "uniforms.npy"]), arrays["samples"]);
    near(number(&["--nll", "samples.npy"]), case["nll"].as_f64().unwrap());
    close(&answer(&["--nll", "samples.npy"]).mapv(|x| -x), &arrays["log_prob"], tolerance);
    let entries = answer(&["--entries", "samples.npy"]);
    let log_z = case["log_z"].as_f64().unwrap();
    entries.iter().zip(&arrays["log_prob"]).for_each(|(e, p)| near(*e, p + log_z));
}

#[test]
fn golden_answers() {
    check_use("09_use");
    check_use("10_use_long");
}

/// Samples are repeated as often as they were counted.
#[test]
fn golden_expectation_maximisation() {
    let (arrays, case) = golden("11_em");
    let folder = Folder::new();
    folder.series("start.npz", &arrays, "init", "core");
    let rows = arrays["rows"].outer_iter().zip(&arrays["counts"]);
    let repeated = rows.flat_map(|(row, &count)| {
        let row: Vec<f64> = row.iter().copied().collect();
        std::iter::repeat_n(row, count as usize)
    });
    let repeated: Vec<f64> = repeated.flatten().collect();
    let sizes: Vec<String> = numbers(&case["n"]).iter().map(ToString::to_string).collect();
    let shape = [repeated.len() / sizes.len(), sizes.len()];
    folder.npy("x.npy", &ArrayD::from_shape_vec(IxDyn(&shape), repeated).unwrap());
    let (sizes, sweeps) = (sizes.join(","), case["sweeps"].to_string());
    let learn = ["density", "learn", "x.npy", "--init", "start.npz", "--out", "o.npz"];
    let how = ["--sizes", &sizes, "--validation", "0", "--em-sweeps", &sweeps];
    let (said, _) = folder.good(&[&learn[..], &how].concat());
    let tolerance = case["tolerance"].as_f64().unwrap();
    let found = folder.arrays("o.npz");
    for k in 1..=shape[1] {
        close(&found[&format!("core_{k}")], &arrays[&format!("expected_{k}")], tolerance);
    }
    let nll = numbers(&case["nll"]);
    for (line, want) in said.lines().filter(|l| l.starts_with("NLL")).zip([nll[0], nll[15]]) {
        let got: f64 =
            line.split("training ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!((got - want).abs() < 1e-4 * want, "{line}: {want}");
    }
    // What the start decides is told, and a start of other sizes refused.
    let (_, notices) = folder.good(&[&learn[..], &how, &["--rank", "3"]].concat());
    assert!(notices.contains("--rank has no effect"), "{notices}");
    let wrong = ["--sizes", "3,2,3,2,3,3", "--validation", "0"];
    folder.refused(&[&learn[..], &wrong].concat(), &["start.npz", "3, 2, 3, 2, 3, 2"]);
    folder
        .refused(&["density", "learn", "x.npy", "--sizes", &sizes, "--out", "o.npz"], &["--rank"]);
}

/// Some of the golden functions of the cross, as arrays; and a fit as a function.
#[test]
fn cross_of_arrays_and_fits() {
    let folder = Folder::new();
    let product = ArrayD::from_shape_fn(IxDyn(&[5, 4, 3, 6, 2]), |i| {
        (0..5).map(|k| 1.0 + i[k] as f64).product::<f64>()
    });
    let sine = ArrayD::from_shape_fn(IxDyn(&[7, 7, 7, 7]), |i| {
        let sum: f64 = (0..4).map(|k| 0.11 * (1.0 + (k + 1) as f64 / 4.0) * i[k] as f64).sum();
        2.5 + (0.3 + sum).sin()
    });
    for (array, ranks) in [(&product, vec![1; 4]), (&sine, vec![3; 3])] {
        folder.npy("data.npy", array);
        let run = ["density", "cross", "data.npy", "--tol", "1e-12", "--threads"];
        let (said, _) = folder.good(&[&run[..], &["1", "--out", "one.npz"]].concat());
        assert!(said.contains("were looked at"), "{said}");
        folder.good(&[&run[..], &["2", "--out", "two.npz"]].concat());
        assert_eq!(folder.arrays("one.npz"), folder.arrays("two.npz"));
        assert_eq!(SavedTrain::load(folder.path("one.npz")).unwrap().train().ranks(), ranks);
        close(&full(folder.path("one.npz")), array, 1e-11);
    }
    folder.npy("data.npy", &product);
    folder.good(&[
        "fit",
        "data.npy",
        "--model",
        "ir,jr,kr,lr,mr->ijklm",
        "--rank",
        "r=2",
        "--out",
        "fit.npz",
        "--max-iter",
        "20",
        "--quiet",
    ]);
    folder.good(&["density", "cross", "fit.npz", "--out", "train.npz", "--quiet"]);
    let saved = nneinfact::fit::Saved::load(folder.path("fit.npz")).unwrap();
    let want = saved.factored().slice(&[None; 5]).unwrap();
    close(&full(folder.path("train.npz")), &want, 1e-6);
    // What a rank cuts off is told of, and the train is there nevertheless.
    let inverse =
        ArrayD::from_shape_fn(IxDyn(&[9, 9, 9]), |i| 1.0 / (1 + i[0] + i[1] + i[2]) as f64);
    folder.npy("data.npy", &inverse);
    let (_, errors) =
        folder.good(&["density", "cross", "data.npy", "--max-rank", "2", "--out", "low.npz"]);
    assert!(errors.contains("warning: the error") && errors.contains("--max-rank"), "{errors}");
}

/// Those golden functions of the cross that are fits without negative entries: the periodic chain of
/// 30 spins, whose array nobody could hold, and the exponential of a sum.
#[test]
fn golden_crosses_of_fits() {
    let golden = described("07_cross");
    let case = |start: &str| {
        let mut cases = golden["cases"].as_array().unwrap().iter();
        cases.find(|c| c["function"].as_str().unwrap().starts_with(start)).unwrap().clone()
    };
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
    let folder = Folder::new();
    let check =
        |case: &Value, texts: Vec<String>, factor: ArrayD<f64>, log_f: &dyn Fn(&[usize]) -> f64| {
            let sizes: Vec<usize> = numbers(&case["n"]).iter().map(|&n| n as usize).collect();
            let output: String = letters[..sizes.len()].iter().collect();
            let model = format!("{}->{output}", texts.join(","));
            let factors = vec![factor; texts.len()];
            let fit = nneinfact::fit::Saved::from_factors(&model, factors).unwrap();
            fit.save(folder.path("fit.npz")).unwrap();
            let tol = case["tol"].to_string();
            folder.good(&["density", "cross", "fit.npz", "--tol", &tol, "--out", "train.npz"]);
            let train = SavedTrain::load(folder.path("train.npz")).unwrap().train().clone();
            let most = case["ranks_at_most"].as_u64().unwrap() as usize;
            assert!(train.ranks().iter().all(|&r| r <= most), "{:?}", train.ranks());
            // The relative Frobenius error on 2000 random entries.
            let mut state = 7u64;
            let mut draw = |n: usize| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % n
            };
            let tuples: Vec<usize> = (0..2000).flat_map(|_| sizes.clone()).map(&mut draw).collect();
            let tuples = Indices::new(sizes.len(), tuples).unwrap();
            let want: Vec<f64> = tuples.iter().map(log_f).collect();
            let top = want.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let (mut off, mut all) = (0.0, 0.0);
            for ((sign, log), want) in train.log_entries(&tuples).unwrap().into_iter().zip(want) {
                let want = (want - top).exp();
                off += (sign * (log - top).exp() - want).powi(2);
                all += want * want;
            }
            let error = (off / all).sqrt();
            assert!(error <= case["max_relative_error"].as_f64().unwrap(), "{model}: {error}");
            train
        };

    let spin = |i: usize| 2.0 * i as f64 - 1.0;
    let bond = ArrayD::from_shape_fn(IxDyn(&[2, 2]), |i| (0.7 * spin(i[0]) * spin(i[1])).exp());
    let ring = (0..30).map(|k| format!("{}{}", letters[k], letters[(k + 1) % 30])).collect();
    check(&case("exp(0.7"), ring, bond, &|x| {
        (0..30).map(|k| 0.7 * spin(x[k]) * spin(x[(k + 1) % 30])).sum()
    });

    // Without its factor e^-800, which only a function given by its logarithm can have.
    let case = case("exp(-800");
    let part = ArrayD::from_shape_fn(IxDyn(&[9]), |i| (-(i[0] as f64) / 7.0).exp());
    let texts = letters[..20].iter().map(char::to_string).collect();
    let train = check(&case, texts, part, &|x| -(x.iter().sum::<usize>() as f64) / 7.0);
    let log_z = 800.0 + case["log_z"].as_f64().unwrap();
    assert!((train.log_sum().1 - log_z).abs() < 1e-9, "{:?}", train.log_sum());
}

#[test]
fn from_samples_to_answers() {
    let folder = Folder::new();
    let truth = folder.distribution("truth.npz");
    let draw = ["density", "ask", "truth.npz", "--sample", "4000", "--seed", "3", "--out", "x.npy"];
    folder.good(&draw);
    let samples = folder.array("x.npy");
    assert_eq!(samples.shape(), [4000, 4]);
    let learn = ["density", "learn", "x.npy", "--sizes", "2,3,4,2", "--rank", "4", "--degree", "3"];
    let mut said = Vec::new();
    for (threads, out) in [("1", "one.npz"), ("2", "two.npz")] {
        said.push(folder.good(&[&learn[..], &["--threads", threads, "--out", out]].concat()).0);
    }
    assert_eq!(folder.arrays("one.npz"), folder.arrays("two.npz"));
    let last = said[0].lines().rfind(|line| line.starts_with("NLL")).unwrap();
    let withheld: f64 =
        last.split("withheld ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let order = samples.iter().map(|&x| x as usize).collect();
    let all = nneinfact::density::Indices::new(4, order).unwrap();
    let of_truth = truth.nll(&all, None).unwrap().mean;
    assert!((withheld - of_truth).abs() < 0.1, "{withheld} for {of_truth}");
    // What was learnt is a train of probabilities.
    let (text, _) = folder.good(&["density", "ask", "one.npz", "--log-partition"]);
    let log_z: f64 = text.trim().split(": ").nth(1).unwrap().parse().unwrap();
    assert!(log_z.abs() < 1e-9, "{text}");
    // Samples given a value have it; rows of another are impossible.
    folder
        .good(&["density", "ask", "one.npz", "--given", "2=1", "--sample", "50", "--out", "g.npy"]);
    assert!(folder.array("g.npy").outer_iter().all(|row| row[1] == 1.0));
    let (text, _) = folder.good(&["density", "ask", "one.npz", "--given", "2=1", "--nll", "x.npy"]);
    assert!(text.contains("NLL: inf") && text.contains("have probability 0"), "{text}");
}

#[test]
fn answers_are_printed_too() {
    let folder = Folder::new();
    let density = folder.distribution("d.npz");
    let (text, _) = folder.good(&["density", "ask", "d.npz", "--marginal", "3,1", "--mean"]);
    let table = density.marginal(&[0, 2]).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("marginal of 3,1 (4 × 2):"));
    // Axes are in the order that was asked for.
    let first: Vec<f64> = lines.next().unwrap().split(' ').map(|x| x.parse().unwrap()).collect();
    assert_eq!(first, [table.values()[0], table.values()[4]]);
    assert_eq!(lines.nth(3), Some("mean (4):"));
}

#[test]
fn fits_are_told_and_reported() {
    let folder = Folder::new();
    folder.distribution("target.npz");
    let fit = ["density", "fit", "target.npz", "--rank", "3", "--seed", "2", "--out", "ntt.npz"];
    let (said, errors) =
        folder.good(&[&fit[..], &["--sweeps", "30", "--history", "h.json"]].concat());
    assert!(said.contains("all that were asked for") && said.contains("model"), "{said}");
    assert!(errors.contains("the rank 3"), "a rank above what the first bond needs: {errors}");
    let (_, errors) = folder.good(
        &[
            &fit[..],
            &["--method", "multiplicative", "--sigma", "0.2", "--pre-min", "1", "--sweeps", "2"],
        ]
        .concat(),
    );
    for option in ["--sigma", "--pre-min"] {
        assert!(errors.contains(&format!("notice: {option} has no effect")), "{errors}");
    }
    folder.good(&[&fit[..], &["--sweeps", "30", "--quiet"]].concat());
    let (said, _) = folder.good(&["report", "ntt.npz", "--plot", "ntt.svg", "--out", "ntt.html"]);
    assert!(said.contains("ntt.html") && said.contains("ntt.svg"), "{said}");
    let page = std::fs::read_to_string(folder.path("ntt.html")).unwrap();
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    for text in [&page, &std::fs::read_to_string(folder.path("ntt.svg")).unwrap()] {
        roxmltree::Document::parse_with_options(text, options).unwrap();
    }
    for word in ["Single marginals", "Mutual information", "Ranks", "Convergence", "variable 4"] {
        assert!(page.contains(word), "{word}");
    }
    // A history from elsewhere; a file without one.
    let (cores, _) = SavedTrain::load(folder.path("ntt.npz")).unwrap().train().clone().into_parts();
    let arrays: Vec<(String, ArrayD<f64>)> = cores
        .iter()
        .enumerate()
        .map(|(k, core)| {
            let array = ArrayD::from_shape_vec(IxDyn(&core.shape()), core.data().to_vec());
            (format!("core_{}", k + 1), array.unwrap())
        })
        .collect();
    io::write_npz(folder.path("bare.npz"), &arrays).unwrap();
    folder.good(&["report", "bare.npz"]);
    let bare = std::fs::read_to_string(folder.path("bare.html")).unwrap();
    assert!(!bare.contains("Convergence"));
    folder.good(&["report", "bare.npz", "--history", "h.json"]);
    assert!(std::fs::read_to_string(folder.path("bare.html")).unwrap().contains("Convergence"));
}

/// Arrays of a file, and what has to be said of them.
type BadTrain<'a> = (Vec<(&'a str, ArrayD<f64>)>, Vec<&'a str>);

/// Files of trains that are none.
#[test]
fn bad_trains() {
    let folder = Folder::new();
    let ones = |shape: &[usize]| ArrayD::<f64>::ones(IxDyn(shape));
    let mut nan = ones(&[2, 3, 1]);
    nan[[1, 2, 0]] = f64::NAN;
    let good = ones(&[1, 2, 2]);
    let cases: Vec<BadTrain<'_>> = vec![
        (vec![("theta_1", good.clone())], vec!["core_1, core_2", "theta_1"]),
        (vec![("core_1", good.clone()), ("core_3", good.clone())], vec!["no core_2"]),
        (vec![("core_0", good.clone())], vec!["core_1, core_2"]),
        (vec![("core_1", good.clone()), ("core_2", nan)], vec!["core_2 is NaN at index [1, 2, 0]"]),
        (vec![("core_1", ones(&[2, 2]))], vec!["core_1 has shape [2, 2]", "three axes"]),
        (vec![("core_1", good.clone())], vec!["core_1", "right has to be 1"]),
        (vec![("core_1", ones(&[2, 2, 1]))], vec!["core_1", "left has to be 1"]),
        (
            vec![("core_1", good.clone()), ("core_2", ones(&[3, 2, 1]))],
            vec!["core_1", "core_2", "left rank"],
        ),
        (
            vec![
                ("core_1", ones(&[1, 2, 1])),
                ("log_scale", ArrayD::from_elem(IxDyn(&[]), f64::NAN)),
            ],
            vec!["log_scale is NaN"],
        ),
        (
            vec![("core_1", ones(&[1, 2, 1])), ("log_scale", ones(&[2]))],
            vec!["log_scale", "one number is expected"],
        ),
    ];
    for (arrays, words) in cases {
        io::write_npz(folder.path("bad.npz"), &arrays).unwrap();
        let words: Vec<&str> = std::iter::once("bad.npz").chain(words).collect();
        folder.refused(&["density", "fit", "bad.npz", "--rank", "2", "--out", "o.npz"], &words);
        folder.refused(&["density", "ask", "bad.npz", "--log-partition"], &words);
    }
    std::fs::write(folder.path("bad.npz"), b"PK\x03\x04 no archive").unwrap();
    folder.refused(&["density", "ask", "bad.npz", "--log-partition"], &["bad.npz"]);
    assert!(!folder.path("o.npz").exists());
    // The scale counts, and may be absent.
    let scaled = [("core_1", ones(&[1, 2, 1])), ("log_scale", ArrayD::from_elem(IxDyn(&[]), 2.0))];
    io::write_npz(folder.path("s.npz"), &scaled).unwrap();
    let (text, _) = folder.good(&["density", "ask", "s.npz", "--log-partition"]);
    let log: f64 = text.trim().split(": ").nth(1).unwrap().parse().unwrap();
    assert!((log - (2.0 + 2f64.ln())).abs() < 1e-12, "{text}");
}

#[test]
fn bad_questions_and_samples() {
    let folder = Folder::new();
    folder.distribution("d.npz");
    let ask = |rest: &[&str], words: &[&str]| {
        folder.refused(&[&["density", "ask", "d.npz"], rest].concat(), words);
    };
    ask(&[], &["required"]);
    ask(&["--marginal", "0"], &["no variable 0", "counted from 1"]);
    ask(&["--marginal", "5"], &["no variable 5", "has 4"]);
    ask(&["--marginal", "2,2"], &["there twice"]);
    ask(&["--given", "2=3"], &["variable 2 has no value 3", "0 to 2"]);
    ask(&["--given", "2=0,2=1"], &["there twice"]);
    ask(&["--given", "2=0", "--marginal", "2"], &["variable 2 is given"]);
    ask(&["--given", "2"], &["as in 2=0"]);
    ask(&["--mean", "--log-partition", "--out", "x.npy"], &["one question"]);
    ask(&["--mean", "--out", "x.txt"], &[".npy"]);
    ask(&["--mean", "d.npz"], &["f_1"]);
    ask(&["--seed", "1", "--mean"], &["--sample"]);
    let rows = |rows: &[[f64; 4]]| {
        let data = rows.iter().flatten().copied().collect();
        let array = Array2::from_shape_vec((rows.len(), 4), data).unwrap();
        folder.npy("x.npy", &array.into_dyn());
    };
    let sketch = ["density", "sketch", "x.npy", "--rank", "2", "--out", "o.npz", "--sizes"];
    let refuse = |sizes: &str, words: &[&str]| {
        folder.refused(&[&sketch[..], &[sizes]].concat(), words);
    };
    rows(&[[0.0, 1.0, 2.0, 1.0], [0.0, 3.0, 2.0, 1.0]]);
    refuse("2,3,4,2", &["row 1", "value 3 of variable 2", "0 to 2"]);
    refuse("2,3,4", &["4 values", "3 variables"]);
    refuse("2,0,4,2", &["variable 2 has 0 values"]);
    rows(&[[0.0, 1.5, 2.0, 1.0]]);
    refuse("2,3,4,2", &["1.5"]);
    rows(&[[0.0, f64::NAN, 2.0, 1.0]]);
    refuse("2,3,4,2", &["NaN"]);
    rows(&[[0.0, 1.0, 2.0, 1.0], [1.0, 1.0, 2.0, 1.0]]);
    folder.npy("w.npy", &ArrayD::from_shape_vec(IxDyn(&[2]), vec![1.0, -1.0]).unwrap());
    folder
        .refused(&[&sketch[..], &["2,3,4,2", "--weights", "w.npy"]].concat(), &["sample 1", "-1"]);
    folder.refused(&[&sketch[..], &["2,3,4,2", "--degree", "0"]].concat(), &["degree"]);
    folder.refused(
        &[
            "density",
            "learn",
            "x.npy",
            "--sizes",
            "2,3,4,2",
            "--rank",
            "2",
            "--validation",
            "1",
            "--out",
            "o.npz",
        ],
        &["--validation is 1"],
    );
    assert!(!folder.path("o.npz").exists());
}

#[test]
fn bad_settings_of_fits() {
    let folder = Folder::new();
    folder.distribution("d.npz");
    let fit = |rest: &[&str], words: &[&str]| {
        let fixed = ["density", "fit", "d.npz", "--out", "o.npz"];
        folder.refused(&[&fixed[..], rest].concat(), words);
    };
    fit(&[], &["--rank"]);
    fit(&["--rank", "0"], &["--rank is 0"]);
    fit(&["--rank", "2,2"], &["--rank has 2 numbers", "or 3"]);
    fit(&["--rank", "2,0,2"], &["between variables 2 and 3 is 0"]);
    fit(&["--rank", "2", "--sigma", "1"], &["sigma is 1"]);
    fit(&["--rank", "2", "--decay", "0"], &["decay is 0"]);
    fit(&["--rank", "2", "--barrier", "-1"], &["barrier is -1"]);
    fit(&["--rank", "2", "--cg-max", "0"], &["CG steps is 0"]);
    fit(&["--rank", "2", "--target-error", "-1"], &["target error"]);
    fit(&["--rank", "2", "--threads", "0"], &["--threads"]);
    fit(&["--rank", "2", "--out", "o.txt"], &["cannot be used multiple times"]);
    folder.refused(&["density", "fit", "d.npz", "--rank", "2", "--out", "o.txt"], &[".npz"]);
    folder
        .refused(&["density", "fit", "d.npz", "--rank", "2", "--out", "d.npz"], &["would replace"]);
    // Zeros of a start are counted, and become positive on request.
    let mut cores: Vec<(&str, ArrayD<f64>)> = Vec::new();
    for (name, shape) in
        [("core_1", [1, 2, 2]), ("core_2", [2, 3, 2]), ("core_3", [2, 4, 2]), ("core_4", [2, 2, 1])]
    {
        cores.push((name, ArrayD::ones(IxDyn(&shape))));
    }
    cores[1].1[[0, 0, 0]] = 0.0;
    io::write_npz(folder.path("zero.npz"), &cores).unwrap();
    fit(&["--init", "zero.npz"], &["zero.npz", "1 of its entries are 0", "--raise-zeros"]);
    let raised = ["density", "fit", "d.npz", "--init", "zero.npz", "--raise-zeros", "--seed", "1"];
    let (_, errors) = folder.good(&[&raised[..], &["--out", "o.npz"]].concat());
    assert!(errors.contains("are raised") && errors.contains("--seed has no effect"), "{errors}");
    cores[1].1[[0, 0, 0]] = -1.0;
    io::write_npz(folder.path("zero.npz"), &cores).unwrap();
    fit(&["--init", "zero.npz", "--raise-zeros"], &["zero.npz", "1 negative entries"]);
}

/// A Tucker model fitted to a train by steps of one barrier.
#[test]
fn golden_network() {
    let (arrays, case) = golden("12_network_tucker_from_train");
    let folder = Folder::new();
    // The cores of a file have ranks of 1 at the ends.
    let core = |k: usize, axis: Option<usize>| {
        let core = arrays[&format!("target_{k}")].clone();
        let core = axis.map_or(core.clone(), |axis| core.insert_axis(Axis(axis)));
        (format!("core_{k}"), core)
    };
    let cores = [core(1, Some(0)), core(2, None), core(3, Some(2))];
    io::write_npz(folder.path("target.npz"), &cores).unwrap();
    folder.series("start.npz", &arrays, "init", "theta");
    let model = case["model"].as_str().unwrap();
    let (mu, sweeps) = (case["mu"].to_string(), case["sweeps"].to_string());
    let run = ["density", "model", "target.npz", "--model", model, "--init", "start.npz"];
    let how = ["--schedule", "fixed", "--barrier", &mu, "--decay", "1", "--tol", "0"];
    let rest = ["--sweeps", &sweeps, "--threads"];
    for (threads, out) in [("1", "one.npz"), ("2", "two.npz")] {
        folder.good(&[&run[..], &how, &rest, &[threads, "--out", out]].concat());
    }
    let (one, two) = (folder.arrays("one.npz"), folder.arrays("two.npz"));
    assert_eq!(one, two, "other bits with two threads");
    let tolerance = case["tolerance"].as_f64().unwrap();
    for l in 1..=4 {
        close(&one[&format!("theta_{l}")], &arrays[&format!("expected_{l}")], tolerance);
    }
    let saved = nneinfact::fit::Saved::load(folder.path("one.npz")).unwrap();
    let entries: f64 = saved.shapes().data().iter().map(|&n| n as f64).product();
    let losses = &saved.record().history.as_ref().unwrap().loss;
    let halves = numbers(&case["half_squared_distance"]);
    assert_eq!(losses.len(), halves.len());
    for (loss, want) in losses.iter().zip(&halves) {
        // They come from a difference of numbers near 400.
        assert!((loss * entries - want).abs() <= tolerance * want + 1e-11, "{loss} {want}");
    }
}

/// Models of trains and of fits; what is refused, and what is told.
#[test]
fn models_of_trains_and_fits() {
    let folder = Folder::new();
    folder.distribution("ntt.npz");
    let model = |target: &'static str, text: &'static str, rest: &[&'static str]| {
        [&["density", "model", target, "--model", text, "--out", "out.npz"][..], rest].concat()
    };
    let cp = ["--rank", "r=6", "--seed", "1"];
    for method in ["newton", "descent", "multiplicative"] {
        let (said, _) = folder.good(
            &[&model("ntt.npz", "ir,jr,kr,lr->ijkl", &cp)[..], &["--method", method]].concat(),
        );
        let words = said.lines().find(|line| line.starts_with("error")).unwrap();
        let number = |at: usize| -> f64 {
            words.split_whitespace().nth(at).unwrap().trim_end_matches(',').parse().unwrap()
        };
        assert!(number(3) < 0.05 * number(1), "{method}: {words}");
    }
    // What `fit` writes is a target too, with the weights of its components.
    folder.npy("data.npy", &full(folder.path("ntt.npz")));
    let cp = ["fit", "data.npy", "--model", "ir,jr,kr,lr->ijkl", "--rank", "r=3"];
    folder.good(&[&cp[..], &["--normalize", "l1", "--quiet", "--out", "unit.npz"]].concat());
    assert!(folder.arrays("unit.npz").contains_key("weights"));
    let (said, _) = folder.good(&[
        "density",
        "model",
        "unit.npz",
        "--model",
        "ia,jb,kc,ld,abcd->ijkl",
        "--rank",
        "a=2,b=2,c=2,d=2",
        "--out",
        "tucker.npz",
    ]);
    assert!(said.contains("a fit of ir,jr,kr,lr->ijkl"), "{said}");
    let predicted = |name: &str| {
        let saved = nneinfact::fit::Saved::load(folder.path(name)).unwrap();
        saved.factored().slice(&[None; 4]).unwrap()
    };
    let (got, want) = (predicted("tucker.npz"), predicted("unit.npz"));
    let square = |x: ArrayD<f64>| x.iter().map(|x| x * x).sum::<f64>();
    let off = square(&got - &want) / square(want);
    assert!(off < 0.05, "{off}");
    // Without a barrier its options have no effect.
    let multiplicative = ["--rank", "r=2", "--method", "multiplicative", "--barrier", "1"];
    let (_, notices) = folder.good(&model("ntt.npz", "ir,jr,kr,lr->ijkl", &multiplicative));
    assert!(notices.contains("--barrier has no effect"), "{notices}");
    type Words = &'static [&'static str];
    let refused: [(&str, Words, Words); 8] = [
        ("ir,jr,kr->ijk", &["--rank", "r=2"], &["ntt.npz", "one for each mode"]),
        ("ir,jr,kr,lr->ijkl", &[], &["--rank"]),
        ("ir,jr,kr,lr->ijkl", &["--rank", "s=2"], &["s"]),
        ("ir,jr,kr,lr->ijkl", &["--rank", "r=2", "--barrier", "0"], &["barrier", "positive"]),
        ("ir,jr,kr,lr->ijkl", &["--rank", "r=2", "--decay", "1.5"], &["decay", "(0, 1]"]),
        ("ir,jr,kr,lr->ijkl", &["--rank", "r=2", "--tol", "-1"], &["tol"]),
        ("ir,jr,kr,lr->ijkl", &["--init", "ntt.npz"], &["ntt.npz", "theta_1"]),
        ("ir,jr", &["--rank", "r=2"], &["->"]),
    ];
    for (text, rest, words) in refused {
        folder.refused(&model("ntt.npz", text, rest), words);
    }
    folder.refused(&model("out.npz", "ir,jr,kr,mr->ijkm", &["--rank", "r=2"]), &["m"]);
    folder.refused(&model("none.npz", "ir,jr->ij", &["--rank", "r=2"]), &["none.npz"]);
}
