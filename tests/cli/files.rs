//! What is in files, and what the program makes of it: lists and their indices, names that steer a
//! terminal, links, files that are not to be replaced, data that a fit names.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ndarray::{Array2, ArrayD};
use nneinfact::fit::Saved;
use nneinfact::io;
use tempfile::TempDir;

struct Bench(TempDir);

impl Bench {
    /// With `y.npy`: 6 × 5 positive whole numbers.
    fn new() -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        io::write_npy(bench.path("y.npy"), &matrix(6, 5)).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nneinfact"));
        command.args(arguments).current_dir(self.0.path()).output().unwrap()
    }

    /// Runs what ends with this status; gives what it said on standard error.
    fn ends(&self, arguments: &[&str], status: i32) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        said
    }

    fn fit(&self, data: &str, more: &[&str], status: i32) -> String {
        let fixed = ["fit", data, "--model", "ir,jr->ij", "--rank", "r=1", "--device", "cpu"];
        self.ends(&[&fixed[..], &["--max-iter", "3"], more].concat(), status)
    }
}

fn matrix(rows: usize, columns: usize) -> ArrayD<f64> {
    Array2::from_shape_fn((rows, columns), |(i, j)| (1 + (i * j + i) % 7) as f64).into_dyn()
}

fn factors(path: &Path) -> Vec<ArrayD<f64>> {
    Saved::load(path).unwrap().factors().to_vec()
}

#[test]
fn indices_count_from_0_where_that_is_said() {
    let bench = Bench::new();
    bench.text("one.tns", "1 1 2\n2 3 4\n3 2 1\n");
    bench.text("zero.tns", "0 0 2\n1 2 4\n2 1 1\n");
    bench.fit("one.tns", &["--out", "one.npz"], 0);
    let said = bench.fit("zero.tns", &[], 2);
    assert!(said.contains("index 0") && said.contains("--index-base 0"), "{said}");
    bench.text("list.tns", "1 2\n");
    let more = ["--index-base", "0", "--heldout-coordinates", "list.tns"];
    bench.fit("zero.tns", &[&more[..2], &["--out", "zero.npz"]].concat(), 0);
    assert_eq!(factors(&bench.path("zero.npz")), factors(&bench.path("one.npz")));
    // The lists count as the data do.
    bench.fit("zero.tns", &more, 0);
    bench.text("last.tns", "2 3\n");
    bench.fit("one.tns", &["--missing", "last.tns"], 0);
    let said = bench.fit("zero.tns", &["--index-base", "0", "--missing", "last.tns"], 2);
    assert!(said.contains("beyond") && said.contains("from 0"), "{said}");
    bench.fit("zero.tns", &["--index-base", "2"], 2);
}

#[test]
fn lists_of_entries_need_no_values() {
    let bench = Bench::new();
    bench.text("with.tns", "1 2 7\n4 4 1\n");
    bench.text("without.tns", "1 2\n4 4\n");
    for option in ["--missing", "--heldout-coordinates", "--validation-coordinates"] {
        bench.fit("y.npy", &[option, "with.tns", "--out", "with.npz"], 0);
        bench.fit("y.npy", &[option, "without.tns", "--out", "without.npz"], 0);
        assert_eq!(factors(&bench.path("without.npz")), factors(&bench.path("with.npz")));
    }
    bench.text("short.tns", "1\n");
    let said = bench.fit("y.npy", &["--missing", "short.tns"], 2);
    assert!(said.contains("line 1"), "{said}");
    // Values of data matter.
    let said = bench.fit("without.tns", &["--shape", "6,5"], 2);
    assert!(said.contains("line 1"), "{said}");
}

#[test]
fn what_is_withheld_in_name_only_is_noticed() {
    let bench = Bench::new();
    let said = bench.fit("y.npy", &["--heldout", "0.001"], 0);
    assert!(said.contains("notice: --heldout 0.001 picked none"), "{said}");
    let said = bench.fit("y.npy", &["--validation", "0.001"], 0);
    assert!(said.contains("notice: --validation 0.001 picked none"), "{said}");
    assert_eq!(bench.fit("y.npy", &["--heldout", "0.001", "--quiet"], 0), "");
    bench.text("list.tns", "1 2\n4 4\n");
    let both = ["--heldout-coordinates", "list.tns", "--validation-coordinates", "list.tns"];
    let said = bench.fit("y.npy", &both, 0);
    assert!(said.contains("none of the entries of --validation-coordinates validates"), "{said}");
    assert_eq!(bench.fit("y.npy", &both[..2], 0), "");
    assert_eq!(bench.fit("y.npy", &["--heldout", "0.3"], 0), "");
}

#[test]
fn options_that_do_not_go_together_and_labels_that_are_none() {
    let bench = Bench::new();
    let said = bench.fit("y.npy", &["--bounds", "ir=0:1", "--normalize", "l1"], 2);
    assert!(said.contains("--bounds") && said.contains("--normalize"), "{said}");
    bench.text("empty.txt", "\n");
    let said = bench.fit("y.npy", &["--report", "r.html", "--labels", "i=empty.txt"], 0);
    assert!(said.contains("notice: empty.txt: there are no labels"), "{said}");
    bench.text("one.tns", "1 1 3\n");
    let output = bench.run(&["fit", "one.tns", "--model", "ir,jr->ij", "--rank", "r=1"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("1 entry,") && !said.contains("1 entries"), "{said}");
}

#[test]
fn members_packed_in_other_ways_are_named() {
    let bench = Bench::new();
    io::write_npz(bench.path("y.npz"), &[("Y", matrix(6, 5))]).unwrap();
    let good = std::fs::read(bench.path("y.npz")).unwrap();
    for (method, name) in [(12u8, "bzip2"), (14, "LZMA"), (93, "Zstandard"), (95, "XZ")] {
        let mut other = good.clone();
        // In the header of the member, and in the directory.
        let local = other.windows(4).position(|w| w == b"PK\x03\x04").unwrap();
        let central = other.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        (other[local + 8], other[central + 10]) = (method, method);
        std::fs::write(bench.path("y.npz"), &other).unwrap();
        for key in [&[][..], &["--key", "Y"]] {
            let said = bench.fit("y.npz", key, 2);
            assert!(said.contains(name) && said.contains("\"Y\""), "{said}");
        }
    }
}

#[test]
fn names_in_files_steer_nothing() {
    let bench = Bench::new();
    let red = "a\u{1b}[31m\u{202e}b";
    io::write_npz(bench.path("y.npz"), &[(red, matrix(6, 5)), ("other", matrix(6, 5))]).unwrap();
    let said = bench.fit("y.npz", &[], 2);
    assert!(said.contains("\\u{1b}") && !said.contains(['\u{1b}', '\u{202e}']), "{said:?}");
    // File names, too.
    let name = "y\u{1b}[31m.npy";
    std::fs::copy(bench.path("y.npy"), bench.path(name)).unwrap();
    let output = bench.run(&["fit", name, "--model", "ir,jr->ij", "--rank", "r=1"]);
    assert!(output.status.success() && !output.stdout.contains(&0x1b));
    // Nor a page.
    bench.text("labels.txt", "a\u{202e}b\nc\nd\ne\nf\u{2066}\ng\n");
    let more = ["--report", "r.html", "--labels", "i=labels.txt", "--title", "x\u{202e}y"];
    bench.fit("y.npy", &more, 0);
    let page = std::fs::read_to_string(bench.path("r.html")).unwrap();
    assert!(!page.contains(['\u{202e}', '\u{2066}']));
}

#[test]
fn a_file_of_factors_says_nothing_of_the_machine() {
    let bench = Bench::new();
    let folder = bench.0.path().canonicalize().unwrap();
    let folder = folder.to_str().unwrap();
    let text = |name: &str| io::read_npz_text(bench.path(name), "fit.json").unwrap().unwrap();
    io::write_npy(bench.path("n.npy"), &matrix(6, 5).mapv(|x| x + 1.0)).unwrap();
    let more = ["--loss", "binomial", "--trials", "n.npy", "--out", "f.npz"];
    bench.fit("y.npy", &more, 0);
    assert!(text("f.npz").contains("\"y.npy\"") && !text("f.npz").contains(folder));
    bench.fit("y.npy", &[&more[..], &["--record-paths"]].concat(), 0);
    assert!(text("f.npz").contains(&format!("{folder}/y.npy")), "{}", text("f.npz"));
    let study = ["compare", "y.npy", "--model", "m: ir,jr->ij", "--rank", "r=1", "--max-iter", "2"];
    bench.ends(&[&study[..], &["--out", "study", "--quiet"]].concat(), 0);
    for run in std::fs::read_dir(bench.path("study/runs")).unwrap() {
        let path = run.unwrap().path();
        if path.extension().is_some_and(|e| e == "npz") {
            assert!(!text(path.to_str().unwrap()).contains(folder));
        }
    }
}

#[test]
fn a_report_opens_what_lies_beside_the_fit_or_is_named() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("fits")).unwrap();
    bench.fit("y.npy", &["--out", "fits/f.npz", "--record-paths"], 0);
    let page = || std::fs::read_to_string(bench.path("fits/f.html")).unwrap();
    let said = bench.ends(&["report", "fits/f.npz"], 0);
    assert!(said.contains("notice:") && said.contains("does not lie beside the fit"), "{said}");
    assert!(page().contains("There are no residuals"));
    assert_eq!(bench.ends(&["report", "fits/f.npz", "--data", "y.npy"], 0), "");
    assert!(!page().contains("There are no residuals"));
    std::fs::copy(bench.path("y.npy"), bench.path("fits/y.npy")).unwrap();
    assert_eq!(bench.ends(&["report", "fits/f.npz"], 0), "");
    assert!(!page().contains("There are no residuals"));

    // Of another shape: not unpacked, and a page without residuals. The header alone is there.
    let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (100000, 1000000), }\n";
    let mut vast = b"\x93NUMPY\x01\x00".to_vec();
    vast.extend((header.len() as u16).to_le_bytes());
    vast.extend(header.bytes());
    std::fs::write(bench.path("fits/y.npy"), vast).unwrap();
    for more in [&[][..], &["--data", "fits/y.npy"]] {
        let said = bench.ends(&[&["report", "fits/f.npz"][..], more].concat(), 0);
        assert!(said.contains("notice:") && said.contains("[100000, 1000000]"), "{said}");
        assert!(page().contains("There are no residuals"));
    }
    bench.ends(&["report", "fits/f.npz", "--data", "nowhere.npy"], 2);
}

#[test]
#[cfg(unix)]
fn links_are_written_through_and_read_only_files_are_kept() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let bench = Bench::new();
    std::fs::create_dir(bench.path("there")).unwrap();
    symlink("there/f.npz", bench.path("link.npz")).unwrap();
    bench.fit("y.npy", &["--out", "link.npz"], 0);
    assert!(std::fs::symlink_metadata(bench.path("link.npz")).unwrap().is_symlink());
    assert_eq!(factors(&bench.path("there/f.npz")).len(), 2);
    symlink("nowhere/f.npz", bench.path("lost.npz")).unwrap();
    let said = bench.fit("y.npy", &["--out", "lost.npz"], 2);
    assert!(said.contains("no folder"), "{said}");

    bench.text("kept.npz", "kept");
    let path = bench.path("kept.npz");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
    let said = bench.fit("y.npy", &["--out", "kept.npz"], 2);
    assert!(said.contains("read-only"), "{said}");
    assert!(io::write_npz(&path, &[("a", matrix(2, 2))]).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"kept");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_device_is_told_of() {
    let shell = |line: &str| {
        let program = env!("CARGO_BIN_EXE_nneinfact");
        Command::new("bash").args(["-c", line, "bash", program]).output().unwrap()
    };
    for option in ["--help", "--version", "fit --help"] {
        let output = shell(&format!("\"$1\" {option} >/dev/full"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{option}: {said}");
        assert!(said.contains("error: standard output"), "{option}: {said}");
    }
    // A limit on the size of files, which the system enforces as a full disk does.
    let bench = Bench::new();
    let y = Array2::from_shape_fn((300, 200), |(i, j)| (i * 31 + j * 17) as f64 % 97.0);
    io::write_npy(bench.path("large.npy"), &y).unwrap();
    let folder = bench.0.path().display();
    let output = shell(&format!(
        "trap '' XFSZ; ulimit -f 8; cd '{folder}'; TMPDIR=. \"$1\" fit large.npy --model 'ir,jr->ij' \
         --rank r=20 --max-iter 2 --device cpu --out f.npz"
    ));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: the fit has ended") && said.lines().count() == 1, "{said}");
    assert!(!bench.path("f.npz").exists());
}

#[test]
#[cfg(target_os = "linux")]
fn memory_that_the_system_refuses_is_an_error() {
    let bench = Bench::new();
    bench.text("corners.tns", "1 1 1\n40000 50000 2\n");
    // 2 GB of bytes, of which the disk holds none.
    let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (40000, 50000), }\n";
    let mut start = b"\x93NUMPY\x01\x00".to_vec();
    start.extend((header.len() as u16).to_le_bytes());
    start.extend(header.bytes());
    std::fs::write(bench.path("vast.npy"), &start).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(bench.path("vast.npy")).unwrap();
    file.set_len(start.len() as u64 + 2_000_000_000).unwrap();
    let folder = bench.0.path().display();
    for data in ["corners.tns --data-as dense", "vast.npy --no-stream"] {
        let line = format!(
            "ulimit -v 1500000; cd '{folder}'; RAYON_NUM_THREADS=1 \"$1\" fit {data} \
             --model 'ir,jr->ij' --rank r=1 --max-iter 1 --device cpu --threads 1"
        );
        let program = env!("CARGO_BIN_EXE_nneinfact");
        let output = Command::new("bash").args(["-c", &line, "bash", program]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{data}: {said}");
        assert!(said.contains("memory"), "{data}: {said}");
    }
}

#[test]
fn far_too_many_threads_are_not_started() {
    let bench = Bench::new();
    let said = bench.fit("y.npy", &["--threads", "100000"], 2);
    assert!(said.contains("100000 threads"), "{said}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nneinfact"));
    command.args(["fit", "y.npy", "--model", "ir,jr->ij", "--rank", "r=1", "--device", "cpu"]);
    command.env("RAYON_NUM_THREADS", "60000").current_dir(bench.0.path());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("RAYON_NUM_THREADS"), "{said}");
}

#[test]
fn texts_have_an_end() {
    let bench = Bench::new();
    bench.fit("y.npy", &["--out", "f.npz"], 0);
    for (name, bytes) in [("study.toml", 17u64 << 20), ("h.json", 257 << 20), ("l.txt", 257 << 20)]
    {
        std::fs::File::create(bench.path(name)).unwrap().set_len(bytes).unwrap();
    }
    let said = bench.ends(&["compare", "study.toml"], 2);
    assert!(said.contains("at most 16 MiB"), "{said}");
    for more in [["--history", "h.json"], ["--labels", "i=l.txt"]] {
        let said = bench.ends(&[&["report", "f.npz"][..], &more].concat(), 2);
        assert!(said.contains("at most 256 MiB"), "{said}");
    }
}
