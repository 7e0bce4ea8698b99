//! Fits on several devices, in slabs, and with MPI where this build has it.

use std::path::PathBuf;
use std::process::{Command, Output};

use ndarray::Array3;
use nneinfact::Device;
use nneinfact::fit::{History, Saved};
use nneinfact::io;
use tempfile::TempDir;

struct Bench(TempDir);

impl Bench {
    /// With `y.npy`: 20 × 9 × 7 counts.
    fn new() -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        let y = Array3::from_shape_fn((20, 9, 7), |(i, j, k)| ((i * j + k * i + j) % 6) as f64);
        io::write_npy(bench.path("y.npy"), &y).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn fit(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nneinfact"));
        let fixed = ["fit", "y.npy", "--model", "ir,jr,kr->ijk", "--rank", "r=3"];
        command.args(fixed).args(["--max-iter", "8", "--tol", "0"]).args(more);
        command.current_dir(self.0.path()).output().unwrap()
    }

    fn fitted(&self, name: &str, more: &[&str]) -> Saved {
        let output = self.fit(&[more, &["--out", name]].concat());
        assert!(output.status.success(), "{}", said(&output));
        Saved::load(self.path(name)).unwrap()
    }
}

fn history(saved: &Saved) -> &History {
    saved.record().history.as_ref().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn devices_that_fit_together_give_the_bits_of_one() {
    let bench = Bench::new();
    let cut = ["--slabs", "5", "--heldout", "0.1"];
    let one = bench.fitted("one.npz", &[&cut[..], &["--device", "cpu", "--threads", "1"]].concat());
    let history = history(&one);
    assert_eq!(history.slabs.map(|slabs| (slabs.mode, slabs.count)), Some((0, 5)));
    for devices in ["cpu", "cpu,cpu", "cpu,cpu,cpu"] {
        let several = bench.fitted("several.npz", &[&cut[..], &["--devices", devices]].concat());
        assert_eq!(several.factors(), one.factors(), "{devices}");
        assert_eq!(self::history(&several).loss, history.loss);
    }
    // Another number of slabs differs by rounding, and so does none.
    let other = bench.fitted("other.npz", &["--device", "cpu", "--heldout", "0.1"]);
    assert_eq!(self::history(&other).slabs, None);
    for (a, b) in self::history(&other).loss.iter().zip(&history.loss) {
        assert!((a - b).abs() < 1e-3 * b.abs(), "{a} {b}");
    }
}

#[test]
fn a_failure_on_one_of_several_devices_is_said_once() {
    let bench = Bench::new();
    let output = bench.fit(&["--devices", "cpu,no-such-device"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(said(&output).matches("error:").count(), 1, "{}", said(&output));
    assert!(said(&output).contains("no-such-device"));
    let output = bench.fit(&["--devices", "cpu,cpu", "--checkpoint", "missing/folder/file"]);
    assert_eq!(output.status.code(), Some(2));
    let output = bench.fit(&["--devices", "cpu", "--device", "cpu"]);
    assert!(said(&output).contains("cannot be used with"));
    let output = bench.fit(&["--slabs", "0"]);
    assert_eq!(output.status.code(), Some(2));
}

/// Alone, as without mpirun, it is one process; a build without MPI says how to build one.
#[test]
fn mpi_needs_a_build_with_it() {
    let bench = Bench::new();
    let output = bench.fit(&["--mpi", "--device", "cpu", "--out", "mpi.npz"]);
    if cfg!(feature = "mpi") {
        assert!(output.status.success(), "{}", said(&output));
    } else {
        assert_eq!(output.status.code(), Some(2));
        assert!(
            said(&output).contains("cargo build --release --features mpi"),
            "{}",
            said(&output)
        );
        assert!(!bench.path("mpi.npz").exists());
    }
    let output = bench.fit(&["--patience", "5"]);
    assert!(said(&output).contains("--mpi"), "{}", said(&output));
}

/// On a software driver here; two times the same device is two engines on it.
#[test]
fn gpus_that_fit_together_give_the_bits_of_one() {
    let gpu = Device::list().iter().any(|device| device.adapter.is_some());
    if !gpu || std::env::var_os("NNEINFACT_NO_GPU").is_some() {
        println!("skipped: there is no GPU");
        return;
    }
    let bench = Bench::new();
    let one = bench.fitted("one.npz", &["--slabs", "4", "--device", "gpu"]);
    let two = bench.fitted("two.npz", &["--slabs", "4", "--devices", "gpu,gpu"]);
    assert_eq!(one.factors(), two.factors());
    assert_eq!(history(&one).loss, history(&two).loss);
}
