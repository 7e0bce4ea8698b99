//! Tables and sparse matrices on the command line: from the file to the picture, and bad input.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use nneinfact::data::LabelKind;
use nneinfact::fit::Saved;
use nneinfact::io::{self, NamedTensor};
use tempfile::TempDir;

/// A folder with a table of rides, and the program to run in it.
struct Desk {
    folder: TempDir,
}

const MODES: &str = "hour(time),weekday(time),zone";
const MODEL: [&str; 6] = ["--model", "hr,dr,zr->hdz", "--rank", "r=2", "--max-iter", "20"];

/// Rides over two weeks: to work on weekday mornings, to the bars on Friday and Saturday nights.
fn rides() -> String {
    let mut text = String::from("time,lat,lon,zone,fare\n");
    for day in 1..=14 {
        for i in 0..6 {
            let weekend = matches!(day % 7, 5 | 6);
            // 2014-09-01 is a Monday.
            let (hour, zone) = if weekend { (23, "SoHo") } else { (8, "Harlem") };
            let minute = (7 * i + day) % 60;
            let (lat, lon) = if weekend { (40.72, -74.0) } else { (40.81, -73.95) };
            let jitter = f64::from(i) / 100.0;
            text += &format!(
                "2014-09-{day:02} {hour:02}:{minute:02}:00,{:.3},{:.3},{zone},{}.5\n",
                lat + jitter,
                lon + jitter,
                i + 3
            );
        }
    }
    text
}

impl Desk {
    fn new() -> Desk {
        let desk = Desk { folder: tempfile::tempdir().unwrap() };
        desk.text("rides.csv", &rides());
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nneinfact"));
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn good(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Fits on the CPU, with a small model of three modes unless the arguments have another.
    fn fit(&self, arguments: &[&str]) -> String {
        self.good(&fitting(arguments))
    }

    fn refused(&self, arguments: &[&str], parts: &[&str]) {
        let output = self.output(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(output.stdout.is_empty() && !errors.contains("panicked"), "{errors}");
        for part in parts {
            assert!(errors.contains(part), "`{part}` is not in: {errors}");
        }
    }

    fn fit_refused(&self, arguments: &[&str], parts: &[&str]) {
        self.refused(&fitting(arguments), parts);
    }

    fn saved(&self, name: &str) -> Saved {
        Saved::load(self.path(name)).unwrap()
    }
}

fn fitting<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["fit"];
    all.extend(arguments);
    all.extend(["--device", "cpu"]);
    if !arguments.contains(&"--model") {
        all.extend(MODEL);
    }
    all
}

#[test]
fn from_a_table_to_a_page_with_names() {
    let desk = Desk::new();
    let told = desk.fit(&["rides.csv", "--modes", MODES, "--count", "--out", "f.npz"]);
    for said in ["84 rows read", "24 × 7 × 2", "h = hour(time): 24", "z = zone: 2, Harlem, SoHo"]
    {
        assert!(told.contains(said), "{said}: {told}");
    }
    let saved = desk.saved("f.npz");
    assert_eq!(saved.labels('d').unwrap().get(0), Some("Mon"));
    assert_eq!(saved.labels('h').unwrap().kind(), &LabelKind::Cycle);
    let [hour, zone] = [('h', "08:00"), ('z', "Harlem")]
        .map(|(letter, label)| saved.labels(letter).unwrap().index_of(label).unwrap());
    let fitted = saved.factored().slice(&[Some(hour), None, Some(zone)]).unwrap();
    assert!((fitted.sum() - 60.0).abs() < 1.0, "{fitted}");

    // The page finds the table by what the fit says of it, and reads it in the same way.
    desk.good(&["report", "f.npz"]);
    let page = std::fs::read_to_string(desk.path("f.html")).unwrap();
    for said in ["Harlem", "08:00", "Mon", "hour(time)", "Observed"] {
        assert!(page.contains(said), "{said}");
    }
    // Other names overrule those of the table.
    desk.text("zones.txt", "# Quarter\nUptown\nDowntown\n");
    desk.good(&["report", "f.npz", "--labels", "z=zones.txt", "--out", "other.html"]);
    let page = std::fs::read_to_string(desk.path("other.html")).unwrap();
    assert!(page.contains("Uptown") && page.contains("Quarter") && !page.contains("Harlem"));

    // A table that has changed since is not what was fitted.
    desk.text("rides.csv", &rides().replace("SoHo", "Tribeca"));
    desk.refused(&["report", "f.npz"], &["not the data that were fitted", "'SoHo'", "'Tribeca'"]);
    std::fs::remove_file(desk.path("rides.csv")).unwrap();
    desk.good(&["report", "f.npz"]);
}

#[test]
fn every_way_to_the_same_tensor() {
    let desk = Desk::new();
    desk.fit(&["rides.csv", "--modes", MODES, "--out", "a.npz", "--quiet"]);
    let expected = desk.saved("a.npz").factors().to_vec();
    let same = |name: &str| {
        assert_eq!(desk.saved(name).factors(), expected, "{name}");
        assert_eq!(desk.saved(name).all_labels(), desk.saved("a.npz").all_labels(), "{name}");
    };

    // Letters, in whatever order they stand.
    let mixed = "z=zone,d=weekday(time),h=hour(time)";
    desk.fit(&["rides.csv", "--modes", mixed, "--out", "b.npz", "--quiet"]);
    same("b.npz");

    // The tensor in a file of its own.
    let told = desk.good(&["table", "rides.csv", "--modes", mixed, "--out", "counts.npz"]);
    for said in ["84 rows read", "2 × 7 × 24", "z = zone", "in sum 84", "all others zero"] {
        assert!(told.contains(said), "{said}: {told}");
    }
    let names: BTreeMap<String, String> = io::npz_names(desk.path("counts.npz"))
        .unwrap()
        .into_iter()
        .map(|info| (info.name, info.dtype))
        .collect();
    for (name, dtype) in [("coords", "<i8"), ("values", "<f8"), ("shape", "<i8"), ("modes", "<U13")]
    {
        assert_eq!(names[name], dtype, "{name}");
    }
    assert_eq!(names["labels_z"], "<U6");
    desk.fit(&["counts.npz", "--out", "c.npz", "--quiet"]);
    same("c.npz");

    // Standard input, another separator, packed parts.
    let tabs = rides().replace(',', "\t");
    let arguments = fitting(&["-", "--modes", MODES, "--separator", "tab", "--out", "d.npz"]);
    let mut command = desk.command(&arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(tabs.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    same("d.npz");
    let page = desk.good(&["report", "d.npz"]);
    assert!(page.contains("d.html"));
    let page = std::fs::read_to_string(desk.path("d.html")).unwrap();
    assert!(page.contains("the data came on standard input"));

    let lines: Vec<String> = rides().lines().map(String::from).collect();
    for (name, part) in [("part-1.csv", &lines[1..40]), ("part-2.csv", &lines[40..])] {
        desk.text(name, &format!("{}\n{}\n", lines[0], part.join("\n")));
    }
    desk.fit(&["part-*.csv", "--modes", MODES, "--out", "e.npz", "--quiet"]);
    same("e.npz");
    desk.good(&["report", "e.npz"]);
}

#[test]
fn values_filters_and_missing_entries() {
    let desk = Desk::new();
    let table = |arguments: &[&str]| {
        let mut all = vec!["table", "rides.csv", "--out", "t.npz", "--quiet"];
        all.extend(arguments);
        desk.good(&all);
        NamedTensor::load(desk.path("t.npz")).unwrap().unwrap().observations
    };
    let modes = ["--modes", "weekday(time),zone"];
    let with = |more: &[&'static str]| table(&[&modes[..], more].concat());
    let value = |observations: &nneinfact::Observations| {
        observations.coordinates().unwrap().values().get(0).unwrap()
    };
    assert_eq!(value(&with(&[])), 12.0);
    assert_eq!(value(&with(&["--sum", "fare"])), 72.0);
    assert_eq!(value(&with(&["--mean", "fare"])), 6.0);
    assert_eq!(value(&with(&["--max", "fare"])), 8.5);
    assert!(!with(&["--sum", "fare"]).is_unlisted_missing());
    assert!(with(&["--max", "fare"]).is_unlisted_missing());
    assert!(!with(&["--max", "fare", "--unlisted-zero"]).is_unlisted_missing());
    assert!(with(&["--unlisted-missing"]).is_unlisted_missing());
    assert_eq!(value(&with(&["--where", "fare > 7", "--where", "zone == 'Harlem'"])), 4.0);
    desk.text("zones.txt", "SoHo\nHarlem\nInwood\n");
    let ordered = with(&["--order", "zone=zones.txt"]);
    assert_eq!(ordered.labels()[1].indices().unwrap(), ["SoHo", "Harlem", "Inwood"]);

    // Bins keep their edges, for the page.
    let told = desk.fit(&[
        "rides.csv",
        "--modes",
        "hour(time),bin(lat,4),bin(lon,-74.1:-73.8:0.1)",
        "--model",
        "hr,ir,jr->hij",
        "--rank",
        "r=2",
        "--out",
        "m.npz",
        "--report",
        "m.html",
    ]);
    assert!(told.contains("24 × 4 × 3"), "{told}");
    let LabelKind::Bins { edges } = desk.saved("m.npz").labels('j').unwrap().kind().clone() else {
        panic!("bins")
    };
    assert_eq!(edges.len(), 4);
    let page = std::fs::read_to_string(desk.path("m.html")).unwrap();
    assert!(page.contains(">−74.0<") && page.contains(">40.75<"), "coordinates on the axes");
}

#[test]
fn studies_begin_at_a_table() {
    let desk = Desk::new();
    desk.text(
        "study.toml",
        "data = \"rides.csv\"\nmodes = \"hour(time),weekday(time),zone\"\nsum = \"fare\"\n\
         where = \"fare < 8\"\nheldout = 0.1\nstarts = 2\nmax_iter = 20\nscore = \"rmse\"\n\
         device = \"cpu\"\n[[model]]\nname = \"cp\"\nmodel = \"hr,dr,zr->hdz\"\nranks = { r = 2 }\n",
    );
    desk.good(&["compare", "study.toml", "--quiet"]);
    let stability = std::fs::read_to_string(desk.path("study/stability.txt")).unwrap();
    assert!(stability.contains("largest at") && stability.contains("08:00"), "{stability}");
    let runs = std::fs::read_dir(desk.path("study/runs")).unwrap();
    let run = runs
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "npz"))
        .unwrap();
    assert_eq!(Saved::load(&run).unwrap().labels('z').unwrap().get(1), Some("SoHo"));
    desk.good(&["report", run.to_str().unwrap(), "--out", "run.html"]);
    let page = std::fs::read_to_string(desk.path("run.html")).unwrap();
    assert!(page.contains("Harlem") && page.contains("Held-out entries"), "residuals");

    // The same on the command line.
    desk.good(&[
        "compare",
        "rides.csv",
        "--modes",
        MODES,
        "--sum",
        "fare",
        "--where",
        "fare < 8",
        "--model",
        "cp: hr,dr,zr->hdz",
        "--rank",
        "r=2",
        "--heldout",
        "0.1",
        "--starts",
        "2",
        "--max-iter",
        "20",
        "--score",
        "rmse",
        "--device",
        "cpu",
        "--out",
        "line",
        "--quiet",
    ]);
    let table =
        |folder: &str| std::fs::read_to_string(desk.path(folder).join("table.csv")).unwrap();
    let losses = |text: String| -> Vec<String> {
        text.lines().map(|line| line.split(',').take(3).collect::<Vec<_>>().join(",")).collect()
    };
    assert_eq!(losses(table("line")), losses(table("study")));
    desk.refused(&["compare", "study.toml", "--modes", MODES], &["--modes belongs in study.toml"]);
    desk.text("bad.toml", "data = \"rides.csv\"\ncount = true\nsum = \"fare\"\n[[model]]\nmodel = \"hr,dr->hd\"\nranks = { r = 2 }\n");
    desk.refused(&["compare", "bad.toml"], &["bad.toml", "count, sum, mean and max"]);
}

#[test]
fn sparse_matrices_with_names() {
    let desk = Desk::new();
    let matrix = "%%MatrixMarket matrix coordinate integer general\n3 4 5\n1 1 5\n1 3 2\n2 2 7\n3 3 1\n3 4 4\n";
    desk.text("m.mtx", matrix);
    desk.text("genes.txt", "# Gene\nCD4\nCD8\nMS4A1\n");
    desk.text("cells.txt", "AAAC\nAAAG\nAAAT\nAACA\n");
    let model = ["--model", "gr,cr->gc", "--rank", "r=2", "--max-iter", "20"];
    let names = ["--row-names", "genes.txt", "--column-names", "cells.txt"];
    let said = desk.fit(&[&["m.mtx", "--out", "a.npz"], &model[..], &names[..]].concat());
    // The files do not say what rows and columns are.
    assert!(said.contains("g: 3, CD4 … MS4A1") && said.contains("c: 4, AAAC … AACA"), "{said}");
    assert_eq!(desk.saved("a.npz").labels('g').unwrap().index_of("MS4A1"), Some(2));
    desk.good(&["report", "a.npz"]);

    // A folder of 10x Genomics.
    let folder = desk.path("filtered");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("matrix.mtx"), matrix).unwrap();
    let features =
        "E1\tCD4\tGene Expression\nE2\tCD8\tGene Expression\nE3\tMS4A1\tGene Expression\n";
    std::fs::write(folder.join("features.tsv"), features).unwrap();
    std::fs::write(folder.join("barcodes.tsv"), "AAAC\nAAAG\nAAAT\nAACA\n").unwrap();
    desk.fit(&[&["filtered", "--out", "b.npz"], &model[..]].concat());
    assert_eq!(desk.saved("b.npz").factors(), desk.saved("a.npz").factors());
    assert_eq!(desk.saved("b.npz").labels('c').unwrap().get(3), Some("AACA"));

    // As scipy.sparse.save_npz has it.
    let numbers = |numbers: &[f64]| ndarray::Array1::from(numbers.to_vec()).into_dyn();
    let arrays = [
        ("indices", numbers(&[0.0, 2.0, 1.0, 2.0, 3.0])),
        ("indptr", numbers(&[0.0, 2.0, 3.0, 5.0])),
        ("shape", numbers(&[3.0, 4.0])),
        ("data", numbers(&[5.0, 2.0, 7.0, 1.0, 4.0])),
    ];
    let csr = ["csr".to_string()];
    let mut members: Vec<(&str, io::NpzMember<'_>)> =
        arrays.iter().map(|(name, a)| (*name, io::NpzMember::Numbers(a.view()))).collect();
    members.push(("format", io::NpzMember::Texts(&csr)));
    io::write_members(&desk.path("s.npz"), &members).unwrap();
    desk.fit(&[&["s.npz", "--out", "c.npz"], &model[..], &names[..]].concat());
    assert_eq!(desk.saved("c.npz").factors(), desk.saved("a.npz").factors());
    assert_eq!(desk.saved("c.npz").labels('g').unwrap().name(), None);

    desk.text("genes.txt", "CD4\nCD8\n");
    let few = [&["m.mtx"], &model[..], &names[..2]].concat();
    desk.fit_refused(&few, &["genes.txt", "2 names for 3 rows"]);
    let table = [&["rides.csv", "--modes", "zone,hour(time)"], &model[..], &names[..2]].concat();
    desk.fit_refused(&table, &["--row-names is for sparse matrices"]);
}

#[test]
fn bad_tables_are_refused_with_line_and_column() {
    let desk = Desk::new();
    desk.fit_refused(&["rides.csv"], &["--modes", "its columns are time, lat, lon, zone, fare"]);
    desk.fit_refused(&["rides.csv", "--count"], &["--count is for tables", "--modes is missing"]);
    desk.fit_refused(
        &["rides.csv", "--modes", "hour(when),zone,lat"],
        &["no column 'when'", "'time'"],
    );
    desk.fit_refused(&["rides.csv", "--modes", "hour(time),zone"], &["2 modes", "3", "h, d, z"]);
    let letters = "x=hour(time),d=weekday(time),z=zone";
    desk.fit_refused(&["rides.csv", "--modes", letters], &["letters x, d, z", "h, d, z"]);
    desk.fit_refused(
        &["rides.csv", "--modes", "hours(time),zone"],
        &["hours is not a function", "^^^^^"],
    );
    desk.fit_refused(
        &["rides.csv", "--modes", MODES, "--sum", "fare", "--count"],
        &["--sum", "--count", "cannot be used with"],
    );
    desk.fit_refused(&["rides.csv", "--modes", MODES, "--where", "fare >"], &["^"]);
    desk.fit_refused(&["rides.csv", "--modes", MODES, "--shape", "2,2"], &["--shape", ".tns"]);
    desk.fit_refused(&["rides.csv", "--modes", MODES, "--stream"], &["--stream is for .npy"]);
    desk.fit_refused(&["rides.csv", "--modes", MODES, "--time-zone", "Mars"], &["Mars"]);
    desk.fit_refused(&["no.csv", "--modes", MODES], &["no.csv"]);
    desk.fit_refused(&["events.h5ad", "--modes", MODES], &["AnnData", "python -c"]);
    let parquet: &[&str] = match cfg!(feature = "parquet") {
        true => &["events.parquet is a table", "--modes"],
        false => &["Parquet", "read_parquet"],
    };
    desk.fit_refused(&["events.parquet"], parquet);

    desk.text("bad.csv", &rides().replacen("2014-09-03 08:17:00", "soon", 1));
    desk.fit_refused(
        &["bad.csv", "--modes", MODES],
        &["bad.csv", "line 16, column 1 (time)", "'soon'"],
    );
    let told = desk.fit(&["bad.csv", "--modes", MODES, "--skip-bad"]);
    assert!(told.contains("1 skipped") && told.contains("line 16"), "{told}");

    desk.text("negative.csv", "who,what,v\nann,\u{1b}[31mx,1\nbob,y,-2\nann,y,1\n");
    let all = ["negative.csv", "--modes", "who,what", "--sum", "v"];
    let model = ["--model", "ir,jr->ij", "--rank", "r=1"];
    // Names say which entry is meant, and do not steer the terminal.
    desk.fit_refused(&[&all[..], &model].concat(), &["-2 at index [1, 1] (bob, y)"]);
    desk.text("red.csv", "who,what,v\nann,\u{1b}[31mx,-1\nbob,y,2\n");
    let red = ["red.csv", "--modes", "who,what", "--sum", "v"];
    desk.fit_refused(&[&red[..], &model].concat(), &["(ann, \\u{1b}[31mx)"]);

    std::fs::write(desk.path("a.npy"), b"").unwrap();
    desk.fit_refused(&["a.npy", "--modes", MODES], &["--modes is for tables, not for a.npy"]);
    desk.refused(&["table", "rides.csv", "--modes", "zone", "--out", "t.csv"], &["end in .npz"]);
}

#[test]
fn the_demo_keeps_its_table() {
    let desk = Desk::new();
    let told = desk.good(&["demo", "--scale", "small", "--out", "city", "--keep"]);
    for said in
        ["rows read", "w = week(time): 9, 2014-W14 … 2014-W22", "nneinfact fit", "rides.csv"]
    {
        assert!(told.contains(said), "{said}: {told}");
    }
    let saved = desk.saved("city/factors.npz");
    assert_eq!(saved.labels('d').unwrap().get(6), Some("Sun"));
    // The commands that it prints are those to type.
    let modes = told.split('\'').nth(1).unwrap();
    desk.good(&["table", "city/rides.csv", "--modes", modes, "--out", "city/again.npz", "--quiet"]);
    let again = NamedTensor::load(desk.path("city/again.npz")).unwrap().unwrap().observations;
    assert_eq!(again.shape(), saved.shapes().data());
    assert_eq!(again.labels(), &saved.all_labels()[..]);
}

#[test]
fn new_rows_are_read_as_those_of_the_fit_were() {
    let desk = Desk::new();
    let modes = "w=date(time),z=zone,b=bin(lat,4)";
    let model = ["--model", "wr,zr,br->wzb", "--rank", "r=2"];
    desk.fit(&[&["rides.csv", "--modes", modes, "--out", "f.npz"][..], &model].concat());
    // Later rows, of one of the zones, with smaller numbers along the bins than there were.
    let rides = rides();
    let mut later = String::from("fare,time,zone,lat\n");
    for row in rides.lines().filter(|row| row.contains("SoHo")) {
        let cells: Vec<&str> = row.split(',').collect();
        let time = cells[0].replace("2014-09", "2014-10");
        later += &format!("{},{time},{},{}\n", cells[4], cells[3], cells[1]);
    }
    desk.text("later.csv", &later);
    let output = desk.output(&[
        "transform",
        "f.npz",
        "later.csv",
        "--free",
        "wr",
        "--out",
        "n.npz",
        "--device",
        "cpu",
    ]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    for said in ["read as the table of the fit", "1 of the 2 labels of z", "'Harlem'", "zeros"] {
        assert!(told.contains(said), "`{said}` is not in: {told}");
    }
    let (old, new) = (desk.saved("f.npz"), desk.saved("n.npz"));
    assert_eq!(old.factors()[1..], new.factors()[1..]);
    assert_eq!(old.labels('z'), new.labels('z'));
    assert_eq!(old.labels('b'), new.labels('b'));
    assert_eq!(new.labels('w').unwrap().get(0), Some("2014-10-05"));
    // All 24 rows are where they were: with the second zone, and in the first two of the fit's bins.
    let sums = |letters: &str| new.factored().marginal(letters).unwrap();
    for (letters, expected) in [("z", &[0.0, 24.0][..]), ("b", &[16.0, 8.0, 0.0, 0.0])] {
        let found = sums(letters);
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(x, y)| (x - y).abs() < 0.2), "{letters} {found}");
    }

    desk.text("other.csv", &later.replace("SoHo", "Bronx"));
    desk.refused(
        &["transform", "f.npz", "other.csv", "--free", "wr"],
        &["'Bronx'", "of z", "Harlem, SoHo", "leave such entries out"],
    );
    // What is said of the table counts rather than what the fit was told.
    let said = ["transform", "f.npz", "later.csv", "--free", "wr", "--modes", "zone,lat"];
    desk.refused(&said, &["2 modes", "3"]);
}
