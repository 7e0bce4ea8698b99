//! `nneinfact compare` as a user meets it: from flags and files, interrupted and killed, and every kind
//! of bad input.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ndarray::{Array3, ArrayD};
use nneinfact::io;
use serde_json::Value;
use tempfile::TempDir;

/// A folder of its own with counts in `y.npy`, and the program to run in it.
struct Bench {
    folder: TempDir,
}

/// 20 × 12 × 10 counts, three quarters of them zeros.
fn tensor() -> ArrayD<f64> {
    Array3::from_shape_fn((20, 12, 10), |(i, j, k)| {
        let x = (1 + i % 3) * (1 + j % 4) + k;
        if (i * 7 + j * 5 + k * 3) % 4 == 0 { x as f64 } else { 0.0 }
    })
    .into_dyn()
}

const MODELS: [&str; 6] =
    ["--model", "cp: ir,jr,kr->ijk", "--model", "train: ir,rjq,qk->ijk", "--rank", "r=1:2,q=2"];

impl Bench {
    fn new() -> Bench {
        let bench = Bench { folder: tempfile::tempdir().unwrap() };
        io::write_npy(bench.path("y.npy"), &tensor()).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nneinfact"));
        command.arg("compare").args(arguments).current_dir(self.folder.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs what has to succeed; gives its standard output.
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs what has to be refused as bad input: with status 2, one message that has all of `parts` in
    /// it, and no folder left behind.
    fn refused(&self, arguments: &[&str], parts: &[&str]) {
        let output = self.run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        let context = format!("{arguments:?}: {errors}");
        assert_eq!(output.status.code(), Some(2), "{context}");
        assert_eq!(errors.matches("error:").count(), 1, "{context}");
        for part in parts {
            assert!(errors.contains(part), "`{part}` is not in the message of {context}");
        }
        assert!(output.stdout.is_empty() && !self.path("out").exists(), "{context}");
    }

    fn table(&self, folder: &str) -> Value {
        let bytes = std::fs::read(self.path(folder).join("table.json")).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn stability(&self, folder: &str) -> Value {
        let bytes = std::fs::read(self.path(folder).join("stability.json")).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }
}

/// Without what differs from run to run.
fn timeless(mut value: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("seconds");
                map.remove("wall_seconds");
                map.values_mut().for_each(strip);
            }
            Value::Array(all) => all.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut value);
    value
}

/// How many runs a folder holds.
fn runs(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder.join("runs")) else { return 0 };
    let json = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|e| e.path().extension().is_some_and(|x| x == "json"))
    };
    entries.map(json).filter(|&json| json).count()
}

/// Waits until so many runs are done.
fn wait(child: &mut Child, folder: &Path, count: usize) {
    let began = Instant::now();
    while runs(folder) < count {
        assert!(child.try_wait().unwrap().is_none(), "the study ended before it was interrupted");
        assert!(began.elapsed() < Duration::from_secs(120), "no {count} runs were done");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A study of 40 runs that take some time each.
fn long(out: &str) -> Vec<&str> {
    let mut arguments = vec!["y.npy"];
    arguments.extend(MODELS);
    arguments.extend(["--heldout", "0.1", "--splits", "5", "--starts", "2", "--loss", "ab:0.7:0"]);
    arguments.extend(["--max-iter", "300", "--tol", "0", "--device", "cpu", "--out", out]);
    arguments
}

#[test]
fn tables_are_printed_and_written() {
    let bench = Bench::new();
    let mut arguments = vec!["y.npy"];
    arguments.extend(MODELS);
    arguments.extend(["--heldout", "0.2", "--validation", "0.1", "--early-stopping"]);
    arguments.extend(["--splits", "2", "--loss", "kl", "--loss", "ab:0.7:0", "--max-iter", "20"]);
    arguments.extend(["--penalty", "none", "--penalty", "l1=0.01", "--out", "out"]);
    let text = bench.good(&arguments);
    for part in [
        "loss kl",
        "loss alpha-beta(0.7, 0)",
        "held-out",
        "poisson",
        "l1=0.01",
        "train",
        "written to out",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    let table = bench.table("out");
    // Ranks 1 and 2 of each model, two losses, with and without penalty.
    assert_eq!(table["rows"].as_array().unwrap().len(), 2 * 2 * 2 * 2);
    assert_eq!(table["complete"], true);
    let losses: Vec<f64> = table["rows"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["loss"] == "kl")
        .map(|row| row["heldout_loss"]["mean"].as_f64().unwrap())
        .collect();
    assert!(losses.len() == 8 && losses.is_sorted(), "{losses:?}");
    assert_eq!(runs(&bench.path("out")), 32);
    let csv = std::fs::read_to_string(bench.path("out/table.csv")).unwrap();
    assert_eq!(csv.lines().count(), 17);
    let printed = std::fs::read_to_string(bench.path("out/table.txt")).unwrap();
    assert!(text.starts_with(&printed), "{printed}");
    let stability = bench.stability("out");
    let component = &stability["rows"][0]["letters"][0]["components"][0];
    assert!(
        component["mean"].as_f64().is_some() && component["verdict"].is_string(),
        "{stability}"
    );
    // A run's factors are a start for `fit`.
    let file = table["rows"][0]["runs"][0]["file"].as_str().unwrap().replace(".json", ".npz");
    assert!(bench.path("out").join(file).is_file());
    // Quiet is quiet.
    assert_eq!(bench.good(&[&arguments[..], &["--quiet"]].concat()), "");
}

#[test]
fn the_best_run_is_reported_by_the_command_in_the_table() {
    let bench = Bench::new();
    // A dispersion per entry, in two files: two losses of one name.
    for (name, value) in [("low.npy", 1.0), ("high.npy", 5.0)] {
        io::write_npy(bench.path(name), &tensor().mapv(|_| value)).unwrap();
    }
    let mut arguments = vec!["y.npy"];
    arguments.extend(["--model", "cp: ir,jr,kr->ijk", "--rank", "r=2", "--heldout", "0.2"]);
    arguments.extend([
        "--validation",
        "0.1",
        "--splits",
        "2",
        "--max-iter",
        "10",
        "--out",
        "a study",
    ]);
    arguments.extend(["--loss", "negative-binomial:low.npy", "--device", "cpu"]);
    arguments.extend(["--loss", "negative-binomial:high.npy"]);
    let text = bench.good(&arguments);
    assert!(text.contains("loss negative-binomial(low.npy)"), "{text}");
    assert!(text.contains("loss negative-binomial(high.npy)"), "{text}");
    let table = bench.table("a study");
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert!(text.contains(&format!("a study/{}", row["best"]["file"].as_str().unwrap())));
    }
    let command = text.lines().find_map(|l| l.split_once("nneinfact report ")).unwrap().1;
    let file = command.trim_matches('\'');
    let output = Command::new(env!("CARGO_BIN_EXE_nneinfact"))
        .args(["report", file])
        .current_dir(bench.folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.is_empty(), "{said}");
    let page = std::fs::read_to_string(bench.path(file).with_extension("html")).unwrap();
    assert!(page.contains("Held-out entries") && page.contains("Validation entries"), "{file}");
    assert!(!page.contains("There are no residuals"), "{file}");
}

#[test]
fn every_kind_of_file_gives_the_same_table() {
    let bench = Bench::new();
    let y = tensor();
    io::write_npz(bench.path("y.npz"), &[("counts", y.view()), ("other", y.view())]).unwrap();
    let lines: Vec<String> = y
        .indexed_iter()
        .filter(|(_, x)| **x != 0.0)
        .map(|(at, x)| format!("{} {} {} {x}\n", at[0] + 1, at[1] + 1, at[2] + 1))
        .collect();
    bench.text("y.tns", &lines.concat());
    let run = |data: &[&str], out: &str| -> Vec<f64> {
        let mut arguments = data.to_vec();
        arguments.extend(MODELS);
        arguments.extend(["--heldout", "0.2", "--splits", "2", "--max-iter", "8", "--tol", "0"]);
        arguments.extend(["--out", out, "--quiet", "--device", "cpu"]);
        bench.good(&arguments);
        let table = bench.table(out);
        let rows = table["rows"].as_array().unwrap();
        rows.iter().map(|row| row["score"]["mean"].as_f64().unwrap()).collect()
    };
    let npy = run(&["y.npy"], "npy");
    for other in [run(&["y.npz", "--key", "counts"], "npz"), run(&["y.tns"], "tns")] {
        assert_eq!(npy.len(), 4);
        for (a, b) in npy.iter().zip(&other) {
            assert!((a - b).abs() < 1e-3 * a.abs(), "{npy:?} {other:?}");
        }
    }
}

#[test]
fn a_file_describes_a_study() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("studies")).unwrap();
    bench.text(
        "studies/first.toml",
        r#"
            data = "../y.npy"
            heldout = 0.2
            splits = 2
            max_iter = 10
            match_parameters = 126

            [[model]]
            name = "cp"
            model = "ir,jr,kr->ijk"
            ranks = { r = 1 }

            [[model]]
            name = "train"
            model = "ir,rjq,qk->ijk"
            ranks = { r = 1, q = 2 }
            fixed = ["q"]
        "#,
    );
    bench.good(&["studies/first.toml", "--quiet"]);
    let table = bench.table("studies/first");
    let ranks = |name: &str| -> Value {
        let rows = table["rows"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap()["ranks"].clone()
    };
    // 42 parameters a component; 20 + 12 · 2 a component, and 20 more: 108 is closer than 152.
    assert_eq!(ranks("cp"), serde_json::json!({ "r": 3 }));
    assert_eq!(ranks("train"), serde_json::json!({ "q": 2, "r": 2 }));
    // Elsewhere, and nothing but where.
    bench.good(&["studies/first.toml", "--quiet", "--out", "elsewhere", "--threads", "1"]);
    assert_eq!(bench.table("elsewhere")["complete"], true);
    bench.refused(
        &["studies/first.toml", "--splits", "3", "--out", "out"],
        &["--splits", "first.toml"],
    );
}

#[test]
fn a_killed_study_goes_on_to_the_same_table() {
    let bench = Bench::new();
    bench.good(&[&long("whole")[..], &["--quiet"]].concat());
    let mut child =
        bench.command(&long("killed")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait(&mut child, &bench.path("killed"), 5);
    // SIGKILL: nothing of the program runs any more.
    child.kill().unwrap();
    child.wait().unwrap();
    let done = runs(&bench.path("killed"));
    assert!((5..40).contains(&done), "{done} of 40 runs were done");
    let output = bench.run(&[&long("killed")[..], &["--progress"]].concat());
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    // Runs that went on at once are not finished in their order, and told of where they come.
    let before = said.lines().filter(|line| line.ends_with("finished before"));
    let counts = before.map(|line| line.split(' ').next().unwrap().parse::<usize>().unwrap());
    assert_eq!(counts.sum::<usize>(), done, "{said}");
    assert!(said.contains("about ") && said.contains(" left"), "{said}");
    assert_eq!(runs(&bench.path("killed")), 40);
    assert_eq!(timeless(bench.table("killed")), timeless(bench.table("whole")));
    assert_eq!(bench.stability("killed"), bench.stability("whole"));
}

#[test]
#[cfg(unix)]
fn an_interrupted_study_says_how_to_go_on() {
    let bench = Bench::new();
    let mut child =
        bench.command(&long("out")).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait(&mut child, &bench.path("out"), 2);
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8(output.stderr).unwrap();
    for part in [
        "the run under way is given up",
        "of 40 runs are done and in out",
        "the same command goes on",
    ] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("not complete"), "{printed}");
    assert_eq!(bench.table("out")["complete"], false);
    bench.good(&[&long("out")[..], &["--quiet"]].concat());
    assert_eq!(bench.table("out")["complete"], true);
}

#[test]
fn bad_options_are_refused() {
    let bench = Bench::new();
    let refused = |extra: &[&str], parts: &[&str]| {
        let mut arguments = vec!["y.npy"];
        arguments.extend(MODELS);
        arguments.extend(["--out", "out"]);
        arguments.extend(extra);
        bench.refused(&arguments, parts);
    };
    refused(&["--loss", "lk"], &["\"lk\"", "kl"]);
    refused(&["--loss", "ab:0.7"], &["ab:0.7", "ALPHA:BETA"]);
    refused(&["--loss", "itakura-saito"], &["itakura-saito", "outside the domain"]);
    refused(&["--penalty", "l0.5=1"], &["penalty", "l0.5"]);
    refused(&["--penalty", "zr:l1=1"], &["zr"]);
    refused(&["--algorithm", "sgd"], &["--algorithm", "sgd"]);
    refused(&["--precision", "f16"], &["--precision", "f16"]);
    refused(&["--rank", "z=3"], &["latent letter z"]);
    refused(&["--rank", "r=3"], &["r twice"]);
    refused(&["--rank", "tucker: r=3"], &["\"tucker\"", "cp, train"]);
    refused(&["--model", "cp: i,j,k->ijk"], &["\"cp\""]);
    refused(&["--model", "bad: ir,jr->ij"], &["bad"]);
    refused(&["--model", "bad: ix,jx,kx->ijk"], &["bad", "x"]);
    refused(&["--splits", "0"], &["1 split"]);
    refused(&["--splits", "2"], &["2 splits"]);
    refused(&["--starts", "0"], &["1 start"]);
    refused(&["--starts", "many"], &["--starts"]);
    refused(&["--heldout", "1.5"], &["held-out", "1.5"]);
    refused(&["--validation", "-1"], &["validation", "-1"]);
    refused(&["--early-stopping"], &["early stopping", "validation"]);
    refused(&["--score", "auc"], &["auc", "poisson"]);
    refused(&["--score", "mae"], &["mae", "held out"]);
    refused(&["--match-parameters", "7"], &["7"]);
    refused(&["--match-parameters", "many"], &["--match-parameters"]);
    refused(&["--match-parameters", "200,many"], &["--match-parameters", "many"]);
    refused(&["--loss", "kl", "--loss", "kl"], &["loss kl", "twice"]);
    refused(&["--penalty", "l1=1", "--penalty", "l1=1"], &["penalty l1=1", "twice"]);
    refused(&["--algorithm", "block", "--algorithm", "block"], &["algorithm block", "twice"]);
    refused(&["--learning-rate", "0.1"], &["learning rate", "adam"]);
    refused(&["--algorithm", "adam", "--learning-rate", "0,0.1"], &["learning rate", "0"]);
    refused(&["--heldout", "0.1", "--splits", "99999999999"], &["100000 runs"]);
    refused(&["--tol", "-1"], &["tolerance", "-1"]);
    refused(&["--key", "Y"], &["--key"]);
    refused(&["--mask", "nowhere.npy"], &["nowhere.npy"]);
    refused(&["--device", "abacus"], &["abacus"]);
    refused(&["--threads", "0"], &["threads"]);
    bench.refused(&["y.npy", "--out", "out"], &["--model"]);
    bench.refused(
        &["nowhere.npy", "--model", "ir,jr->ij", "--rank", "r=2", "--out", "out"],
        &["nowhere.npy"],
    );
    bench.refused(&["nowhere.toml", "--out", "out"], &["nowhere.toml"]);
    // What has nothing to do with the data is said before they are looked for.
    let early = ["nowhere.npy", "--model", "ir,jr->ij", "--rank", "r=2", "--out", "out"];
    let before =
        |extra: &[&str], parts: &[&str]| bench.refused(&[&early[..], extra].concat(), parts);
    before(&["--tol", "-1"], &["tolerance", "-1"]);
    before(&["--penalty", "zr:l1=1"], &["zr"]);
    before(&["--early-stopping"], &["early stopping", "validation"]);
    let mut arguments = vec!["y.npy"];
    arguments.extend(MODELS);
    bench.refused(&arguments, &["--out"]);
}

#[test]
fn folders_of_others_are_refused() {
    let bench = Bench::new();
    let mut arguments = vec!["y.npy"];
    arguments.extend(MODELS);
    arguments.extend(["--max-iter", "2", "--quiet", "--out"]);
    let with = |out: &'static str| [&arguments[..], &[out]].concat();
    bench.refused(&with("."), &["other files", "study.json"]);
    bench.refused(&with("y.npy"), &["it is a file"]);
    bench.refused(&with("no/where"), &["no folder no"]);
    std::fs::create_dir(bench.path("theirs")).unwrap();
    bench.text("theirs/study.json", "{}");
    bench.refused(&with("theirs"), &["none of ours"]);
    // Empty ones are fine.
    std::fs::create_dir(bench.path("empty")).unwrap();
    bench.good(&with("empty"));
    assert_eq!(runs(&bench.path("empty")), 4);
}
