//! Ties, smooth modes, rows that add up to 1, bases, several tensors from a file, paths of studies.

use ndarray::{Array2, Axis, Ix2};
use nneinfact::fit::Saved;

use crate::commands::Bench;

fn symmetric(n: usize) -> Array2<f64> {
    Array2::from_shape_fn((n, n), |(i, j)| if i % 3 == j % 3 { 5.0 } else { 1.0 })
}

fn saved(bench: &Bench, name: &str) -> Saved {
    Saved::load(bench.path(name)).unwrap()
}

fn matrix(saved: &Saved, l: usize) -> Array2<f64> {
    saved.factors()[l].clone().into_dimensionality::<Ix2>().unwrap()
}

#[test]
fn ties_smooth_modes_rows_and_bases_are_options() {
    let bench = Bench::new();
    bench.npy("s.npy", &symmetric(9));
    let said = bench.fit(&["s.npy", "--tie", "ir=jr", "--out", "tied.npz"]);
    assert!(said.contains("structure  tie ir=jr"), "{said}");
    let tied = saved(&bench, "tied.npz");
    assert_eq!(tied.factors()[0], tied.factors()[1]);
    assert_eq!(tied.record().structure, ["tie ir=jr"]);
    // From where it ended, and from a checkpoint.
    bench.fit(&["s.npy", "--tie", "ir=jr", "--init", "tied.npz", "--max-iter", "3"]);
    let half = ["s.npy", "--tie", "ir=jr", "--max-iter", "5", "--checkpoint", "c.npz"];
    bench.fit(&half);
    let said = bench.fit(&[&half[..4], &["9", "--checkpoint", "c.npz", "--resume"][..]].concat());
    assert!(said.contains("sweeps     9"), "{said}");

    bench.fit(&[
        "--smooth",
        "ir=0.5,cyclic",
        "--simplex",
        "jr:j",
        "--out",
        "smooth.npz",
        "--max-iter",
        "50",
    ]);
    let smooth = saved(&bench, "smooth.npz");
    assert_eq!(smooth.record().structure, ["smooth ir=0.5,cyclic", "simplex jr:j"]);
    let sums = matrix(&smooth, 1).sum_axis(Axis(0));
    assert!(sums.iter().all(|x| (x - 1.0).abs() < 1e-6), "{sums}");
    assert!(smooth.record().history.as_ref().is_some_and(|h| !h.penalty.is_empty()));
    let mut edges = Array2::<f64>::zeros((6, 6));
    edges[[0, 5]] = 2.0;
    bench.npy("edges.npy", &edges);
    bench.fit(&["--smooth", "ir=0.1,graph=edges.npy", "--penalty", "jr:l2=0.1"]);
    let said = bench.fit(&["--basis", "i=spline:4,cyclic", "--out", "basis.npz"]);
    assert!(said.contains("basis i=spline:4,cyclic"), "{said}");
    assert_eq!(saved(&bench, "basis.npz").factors()[0].shape(), [6, 2]);
}

#[test]
fn what_these_options_cannot_be_is_refused() {
    let bench = Bench::new();
    let model = ["fit", "y.npy", "--model", "ir,jr->ij", "--rank", "r=2"];
    let refused = |more: &[&str], names: &[&str]| {
        bench.refused(&[&model[..], more].concat(), names);
    };
    refused(&["--tie", "ir"], &["--tie", "ir=jr"]);
    refused(&["--tie", "ir=jr"], &["tied", "[6, 2]", "[5, 2]"]);
    refused(&["--tie", "ir=kr"], &["no factor kr"]);
    refused(&["--smooth", "ir"], &["--smooth", "hr=0.1"]);
    refused(&["--smooth", "ir=-1"], &["at least 0"]);
    refused(&["--smooth", "ir=1,round"], &["round", "cyclic"]);
    refused(&["--smooth", "ir:j=1"], &["j is not one of its letters ir"]);
    refused(&["--smooth", "ir=1,graph=y.npy"], &["square", "6 rows and 5 columns"]);
    refused(&["--smooth", "ir=1,graph=none.npy"], &["none.npy"]);
    refused(&["--simplex", "ir:"], &["--simplex"]);
    refused(&["--simplex", "ir:k"], &["k is not one of its letters"]);
    refused(&["--simplex", "ir", "--normalize", "l1"], &["--simplex and --normalize"]);
    refused(&["--simplex", "ir", "--bounds", "ir=0:1"], &["bounds"]);
    refused(&["--basis", "i=12"], &["spline"]);
    refused(&["--basis", "i=spline:7"], &["6 indices", "not 7"]);
    refused(&["--basis", "r=spline:2"], &["r is not a mode"]);
    refused(&["--smooth", "ir=1", "--algorithm", "adam"], &["not for adam"]);
}

const BOTH: &str = r#"
ranks = { r = 2 }
algorithm = "accelerated"
precision = "f64"
penalties = ["l2=0.01"]
starts = 2
seed = 3

[[part]]
name = "ratings"
data = "y.npy"
model = "ir,jr->ij"
heldout = 0.1

[[part]]
data = "traits.npy"
model = "ir,kr->ik"
loss = "euclidean"
weight = 0.5
"#;

#[test]
fn several_tensors_are_fitted_from_a_file() {
    let bench = Bench::new();
    bench.npy("traits.npy", &Array2::from_shape_fn((6, 4), |(i, k)| (1 + i * (k + 1)) as f64));
    bench.text("both.toml", BOTH);
    let said = bench.good(&["fit", "both.toml", "--out", "out", "--report", "--max-iter", "30"]);
    assert!(said.contains("part       ratings: ir,jr->ij of 6 × 5"), "{said}");
    assert!(said.contains("KKT residual") && said.contains("held-out"), "{said}");
    let [ratings, traits] = ["out/ratings.npz", "out/traits.npz"].map(|name| saved(&bench, name));
    assert_eq!(ratings.factors()[0], traits.factors()[0]);
    assert_eq!(traits.record().loss.as_ref().map(|l| l.name.as_str()), Some("euclidean"));
    assert!(bench.path("out/ratings.html").is_file() && bench.path("out/history.json").is_file());
    bench.good(&["ask", "out/ratings.npz", "--total"]);
    // Interrupted and gone on with, to the bit.
    let short = ["fit", "both.toml", "--checkpoint", "c.npz", "--max-iter"];
    bench.good(&[&short[..], &["11"]].concat());
    bench.good(&[&short[..], &["30", "--resume", "--out", "again"]].concat());
    assert_eq!(saved(&bench, "again/traits.npz").factors(), traits.factors());
    let other = BOTH.replace("weight = 0.5", "weight = 0.25");
    bench.text("other.toml", &other);
    let resumed = ["fit", "other.toml", "--checkpoint", "c.npz", "--resume"];
    bench.refused(&resumed, &["tensor 2: weight", "0.5", "0.25"]);

    bench.text("bad.toml", &BOTH.replace("ir,kr->ik", "ir,ks->ik"));
    bench.refused(&["fit", "bad.toml"], &["s"]);
    bench.text("bad.toml", &BOTH.replace("heldout", "held"));
    bench.refused(&["fit", "bad.toml"], &["bad.toml", "`held`"]);
    bench.text("bad.toml", "ranks = { r = 2 }");
    bench.refused(&["fit", "bad.toml"], &["bad.toml", "part"]);
    bench.refused(&["fit", "both.toml", "--report"], &["--report", "--out"]);
    bench.refused(&["fit", "none.toml"], &["none.toml"]);
}

#[test]
fn a_study_follows_a_path() {
    let bench = Bench::new();
    let y = Array2::from_shape_fn((12, 10), |(i, j)| {
        f64::from(u8::from(i % 2 == j % 2)) * 6.0 + ((i * 7 + j * 3) % 4) as f64
    });
    bench.npy("z.npy", &y);
    bench.text(
        "path.toml",
        r#"
data = "z.npy"
heldout = 0.1
path = "l1"
penalties = ["none", "l1=0.5", "l1=8", "l1=60"]
max_iter = 200
[[model]]
name = "nmf"
model = "ir,jr->ij"
ranks = { r = 5 }
"#,
    );
    let figures = ["--plot", "path.svg", "--report", "path.html"];
    let said = bench.good(&[&["compare", "path.toml"][..], &figures].concat());
    assert!(said.contains("kept") && said.contains("zeros"), "{said}");
    let text = std::fs::read_to_string(bench.path("path/table.json")).unwrap();
    let table: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(table["path"], "l1");
    let mut rows: Vec<&serde_json::Value> = table["rows"].as_array().unwrap().iter().collect();
    rows.sort_by(|a, b| a["place"].as_f64().unwrap().total_cmp(&b["place"].as_f64().unwrap()));
    let of =
        |key: &str| -> Vec<f64> { rows.iter().map(|row| row[key].as_f64().unwrap()).collect() };
    assert_eq!(of("place"), [0.0, 0.5, 8.0, 60.0]);
    // What is zero does not come back.
    assert!(of("zeros").windows(2).all(|pair| pair[1] >= pair[0]), "{:?}", of("zeros"));
    let kept: Vec<f64> = rows.iter().map(|row| row["components"]["r"].as_f64().unwrap()).collect();
    assert!(kept.windows(2).all(|pair| pair[1] <= pair[0]) && kept[3] < 5.0, "{kept:?}");
    assert!(rows[1]["penalty_value"]["mean"].as_f64().unwrap() > 0.0);
    for name in ["path.svg", "path.html"] {
        let figure = std::fs::read_to_string(bench.path(name)).unwrap();
        assert!(figure.contains("components kept") && figure.contains("weight of the penalty"));
        assert!(figure.contains("nmf r=5: held-out loss"), "{name}");
    }
    // The page links to others by the way from its own folder, and says nothing of the folders above.
    assert!(
        said.contains("the figure: path.svg") && said.contains("the page: path.html"),
        "{said}"
    );
    let page = std::fs::read_to_string(bench.path("path.html")).unwrap();
    assert!(page.contains("href=\"path/runs/") && !page.contains("file:"));
    // The same study again takes what is there.
    bench.good(&["compare", "path.toml"]);
    let bad = std::fs::read_to_string(bench.path("path.toml")).unwrap();
    bench.text(
        "down.toml",
        &bad.replace("\"none\", ", "").replace("\"l1=0.5\", \"l1=8\"", "\"l1=8\", \"l1=0.5\""),
    );
    bench.refused(&["compare", "down.toml"], &["lightest"]);
    bench.text("bad.toml", &bad.replace("path = \"l1\"", "path = \"l3\""));
    bench.refused(&["compare", "bad.toml"], &["l3", "l1, l2 and rank"]);
    let rank = ["--model", "ir,jr->ij", "--rank", "r=1:2:4", "--heldout", "0.1", "--path", "rank"];
    let said = bench.good(&[&["compare", "z.npy", "--out", "ranks"][..], &rank].concat());
    assert!(said.contains("kept"), "{said}");
}

#[test]
fn hours_are_asked_for_by_their_numbers_and_fits_matched_by_labels() {
    use nneinfact::FactoredTensor;
    use nneinfact::data::Labels;
    let bench = Bench::new();
    let factor = |n: usize| {
        ndarray::ArrayD::from_shape_vec(
            vec![n, 2],
            (0..2 * n).map(|i| 1.0 + (i * i % 7) as f64).collect(),
        )
        .unwrap()
    };
    let hours: Vec<String> = (0..24).map(|h| format!("{h:02}:00")).collect();
    let save = |name: &str, order: &[usize]| {
        let hr = factor(24).select(Axis(0), order);
        let tensor = FactoredTensor::from_parts("hr,wr->hw", vec![hr, factor(3)], None).unwrap();
        let labels = order.iter().map(|&h| hours[h].clone());
        Saved::from(tensor)
            .with_labels(vec![Labels::new(labels), Labels::default()])
            .unwrap()
            .save(bench.path(name))
            .unwrap();
    };
    let whole: Vec<usize> = (0..24).collect();
    save("fit.npz", &whole);
    let ask = |given: &str| bench.good(&["ask", "fit.npz", "--total", "--given", given]);
    assert_eq!(ask("h=8"), ask("h=08:00"));
    assert_eq!(ask("h=8"), ask("h=#8"));
    bench.refused(&["ask", "fit.npz", "--total", "--given", "h=24"], &["24"]);

    let turned: Vec<usize> = (0..24).map(|h| (h + 5) % 24).collect();
    save("turned.npz", &turned);
    let said = bench.good(&["match", "fit.npz", "turned.npz"]);
    assert!(said.contains("another order") && said.contains("mean cosine 1"), "{said}");
    save("day.npz", &turned[1..15]);
    let said = bench.good(&["match", "fit.npz", "day.npz"]);
    assert!(said.contains("at the 14 that both fits have, of 24 and 14"), "{said}");
    assert!(said.contains("mean cosine 1"), "{said}");
}
