//! Several processes at once, interruptions, and results that cannot be written where they should be.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use ndarray::{Array2, ArrayD, IxDyn};
use nneinfact::fit::Saved;
use nneinfact::io::{self, FileLock};
use tempfile::TempDir;

struct Bench(TempDir);

impl Bench {
    /// With `y.npy`: 12 × 9 positive whole numbers.
    fn new() -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        let y = Array2::from_shape_fn((12, 9), |(i, j)| (1 + (i * j + i) % 7) as f64);
        io::write_npy(bench.path("y.npy"), &y).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A program whose folder for temporary files is the one it works in.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nneinfact"));
        command.args(arguments).current_dir(self.0.path()).env("TMPDIR", self.0.path());
        command
    }

    fn fit(&self, more: &[&str]) -> Command {
        let fixed = ["fit", "y.npy", "--model", "ir,jr->ij", "--rank", "r=2", "--device", "cpu"];
        self.command(&[&fixed[..], &["--threads", "1", "--max-iter", "5"], more].concat())
    }

    fn compare(&self) -> Command {
        let fixed = ["compare", "y.npy", "--model", "nmf: ir,jr->ij", "--rank", "r=1:2:3"];
        let more = ["--starts", "4", "--max-iter", "3", "--out", "out", "--quiet"];
        self.command(&[&fixed[..], &more, &["--device", "cpu", "--threads", "1"]].concat())
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs what ends with this status; gives what it said on standard error.
fn ends(command: &mut Command, status: i32) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(status), "{command:?}: {}", errors(&output));
    errors(&output)
}

fn factors(path: &Path) -> Vec<ArrayD<f64>> {
    Saved::load(path).unwrap().factors().to_vec()
}

#[test]
fn fits_that_write_one_file_all_end_well() {
    let bench = Bench::new();
    let seeds = ["1", "2", "3", "4", "5"];
    let alone: Vec<Vec<ArrayD<f64>>> = seeds
        .iter()
        .map(|seed| {
            ends(&mut bench.fit(&["--seed", seed, "--out", "alone.npz"]), 0);
            factors(&bench.path("alone.npz"))
        })
        .collect();
    for round in 0..5 {
        let fits = seeds.map(|seed| start(&mut bench.fit(&["--seed", seed, "--out", "f.npz"])));
        for fit in fits {
            let output = fit.wait_with_output().unwrap();
            assert!(output.status.success(), "round {round}: {}", errors(&output));
        }
        // The file is whole, and one of theirs.
        assert!(alone.contains(&factors(&bench.path("f.npz"))), "round {round}");
        let names = bench.names(".");
        assert!(!names.iter().any(|name| name.ends_with(".tmp")), "{names:?}");
    }
}

#[test]
fn studies_in_one_folder_share_it_or_say_so() {
    let bench = Bench::new();
    let mut well = 0;
    for round in 0..3 {
        let studies: Vec<Child> = (0..5).map(|_| start(&mut bench.compare())).collect();
        for study in studies {
            let output = study.wait_with_output().unwrap();
            let said = errors(&output);
            match output.status.code() {
                Some(0) => well += 1,
                Some(1) => assert!(said.contains("already being worked on by"), "{round}: {said}"),
                other => panic!("{round}: {other:?}: {said}"),
            }
        }
    }
    assert!(well >= 3, "{well}");
    let runs = bench.names("out/runs");
    assert_eq!(runs.len(), 24, "{runs:?}");
    let mut names = bench.names("out");
    names.sort();
    assert!(!names.iter().any(|name| name.contains("lock") || name.contains("tmp")), "{names:?}");
}

#[test]
fn what_is_being_worked_on_is_left_alone() {
    let bench = Bench::new();
    let words = format!("already being worked on by process {}", std::process::id());
    std::fs::create_dir(bench.path("out")).unwrap();
    let lock = FileLock::take(&bench.path("out/study.lock")).unwrap();
    let said = ends(&mut bench.compare(), 1);
    assert!(said.contains("out: ") && said.contains(&words), "{said}");
    drop(lock);
    ends(&mut bench.compare(), 0);

    let saved = ["--checkpoint", "c", "--checkpoint-every", "1"];
    let lock = FileLock::take(&bench.path("c.lock")).unwrap();
    let said = ends(&mut bench.fit(&saved), 1);
    assert!(said.contains("c: ") && said.contains(&words), "{said}");
    assert!(!bench.path("c").exists());
    drop(lock);
    ends(&mut bench.fit(&saved), 0);
    assert!(bench.path("c").exists() && !bench.path("c.lock").exists());
}

/// The file that a message says the factors were written to instead.
fn rescued(bench: &Bench, said: &str) -> PathBuf {
    let rest = said.split("the factors were written to ").nth(1);
    let name = rest.unwrap_or_else(|| panic!("no place in: {said}")).split(" instead").next();
    bench.path(name.unwrap())
}

#[test]
fn factors_that_cannot_be_written_are_written_elsewhere() {
    let bench = Bench::new();
    ends(&mut bench.fit(&["--out", "good.npz"]), 0);
    let good = factors(&bench.path("good.npz"));

    // Longer than a name can be.
    let long = format!("{}.npz", "x".repeat(300));
    let said = ends(&mut bench.fit(&["--out", &long, "--history", "h.json"]), 1);
    assert_eq!(factors(&rescued(&bench, &said)), good);
    assert!(bench.path("h.json").exists(), "{said}");

    // The history and the page are tried each for itself.
    let long = format!("{}.json", "x".repeat(300));
    let more = ["--out", "f.npz", "--history", &long, "--report", "r.html"];
    let said = ends(&mut bench.fit(&more), 1);
    assert!(said.contains("xxx.json"), "{said}");
    assert_eq!(factors(&bench.path("f.npz")), good);
    assert!(bench.path("r.html").exists());
}

#[test]
#[cfg(target_os = "linux")]
fn factors_are_not_lost_to_a_full_disk() {
    let bench = Bench::new();
    ends(&mut bench.fit(&["--out", "good.npz"]), 0);
    let said = ends(&mut bench.fit(&["--out", "/dev/full", "--history", "h.json"]), 1);
    assert_eq!(factors(&rescued(&bench, &said)), factors(&bench.path("good.npz")));
    assert!(bench.path("h.json").exists(), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn factors_are_not_lost_to_a_normalisation_that_fails() {
    let bench = Bench::new();
    let tiny = |n: usize| {
        ArrayD::from_shape_fn(
            IxDyn(&[n, 2]),
            |at| if at[1] == 0 { 1.0 + at[0] as f64 } else { 1e-250 },
        )
    };
    io::write_npz(bench.path("s.npz"), &[("theta_1", tiny(12)), ("theta_2", tiny(9))]).unwrap();
    let more = ["--init", "s.npz", "--max-iter", "0", "--factor-floor", "0", "--precision", "f64"];
    let fixed = ["fit", "y.npy", "--model", "ir,jr->ij", "--rank", "r=2", "--device", "cpu"];
    let all = [&fixed[..], &more, &["--normalize", "l1", "--out", "f.npz"]].concat();
    let said = ends(&mut bench.command(&all), 1);
    assert!(
        said.contains("cannot be normalised") && said.contains("as they were fitted"),
        "{said}"
    );
    assert_eq!(factors(&bench.path("f.npz"))[0].shape(), [12, 2]);
}

#[test]
#[cfg(unix)]
fn interrupted_before_the_first_sweep_it_ends_at_once() {
    use std::os::unix::process::ExitStatusExt;
    let bench = Bench::new();
    // It would try starts for hours.
    let mut child = start(&mut bench.fit(&["--starts", "100000000", "--out", "f.npz"]));
    std::thread::sleep(std::time::Duration::from_millis(700));
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let status = child.wait().unwrap();
    // Before its handler is there, the system ends it.
    assert!(status.code() == Some(130) || status.signal() == Some(15), "{status:?}");
    assert!(!bench.path("f.npz").exists());
}

#[test]
#[cfg(unix)]
fn interrupted_while_a_table_is_read_it_ends_at_once() {
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    let bench = Bench::new();
    let arguments = ["fit", "-", "--modes", "a,b", "--model", "ir,jr->ij", "--rank", "r=2"];
    let command = [&arguments[..], &["--out", "f.npz"]].concat();
    let mut child = start(bench.command(&command).stdin(Stdio::piped()));
    // More rows may always come.
    let mut rows = child.stdin.take().unwrap();
    rows.write_all(b"a,b\n1,2\n2,1\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let status = child.wait().unwrap();
    assert!(status.code() == Some(130) || status.signal() == Some(15), "{status:?}");
    assert!(!bench.path("f.npz").exists());
    drop(rows);
}

#[test]
fn shapes_beyond_any_count_are_fitted_as_lists() {
    let bench = Bench::new();
    // As lbnl-network of FROSTT: about 10^21 entries.
    let shape = [1605usize, 4198, 1631, 4209, 868131];
    let mut text = String::new();
    for n in 0..60usize {
        let index = shape.map(|size| (n * n * 7919 + n * 131) % size + 1);
        let words: Vec<String> = index.iter().map(ToString::to_string).collect();
        text += &format!("{} {}\n", words.join(" "), 1 + n % 5);
    }
    text += "1605 4198 1631 4209 868131 2\n";
    std::fs::write(bench.path("vast.tns"), text).unwrap();
    std::fs::write(bench.path("out.tns"), "1605 4198 1631 4209 868131 1\n").unwrap();
    let fixed = ["fit", "vast.tns", "--model", "ar,br,cr,dr,er->abcde", "--rank", "r=2"];
    let more = ["--device", "cpu", "--max-iter", "3", "--out", "f.npz"];
    for extra in [
        &[][..],
        &["--unlisted-missing"],
        &["--heldout-coordinates", "out.tns"],
        &["--unlisted-missing", "--heldout", "0.2", "--report", "r.html"],
        &["--loss", "euclidean"],
        &["--start", "svd"],
    ] {
        let arguments = [&fixed[..], &more, extra].concat();
        let output = bench.command(&arguments).output().unwrap();
        assert!(output.status.success(), "{extra:?}: {}", errors(&output));
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("61 of them stored"), "{said}");
        assert!(factors(&bench.path("f.npz")).iter().flatten().all(|x| x.is_finite()));
    }
}
