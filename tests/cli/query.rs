//! What a file of a fit answers on the command line: predict, ask, match, transform.

use ndarray::{ArrayD, Axis, IxDyn};
use nneinfact::FactoredTensor;
use nneinfact::fit::{LossRecord, Saved};
use nneinfact::io;

use crate::commands::Bench;

/// A fit of 3 × 4 × 2 with two components, as `fit.npz`; of the shape and entries nothing is left to chance.
fn fit(bench: &Bench) -> FactoredTensor {
    let factor = |n: usize, start: f64| {
        ArrayD::from_shape_vec(vec![n, 2], (0..2 * n).map(|i| start + (i * i % 7) as f64).collect())
            .unwrap()
    };
    let tensor = FactoredTensor::from_parts(
        "wr,hr,dr->whd",
        vec![factor(3, 0.5), factor(4, 1.0), factor(2, 0.25)],
        None,
    )
    .unwrap();
    Saved::from(tensor.clone())
        .with_loss(LossRecord::of("kl"))
        .save(bench.path("fit.npz"))
        .unwrap();
    tensor
}

/// With names for the mode h.
fn labelled(bench: &Bench) -> FactoredTensor {
    use nneinfact::data::Labels;
    let tensor = fit(bench);
    let labels = vec![
        Labels::named("Week"),
        Labels::new(["dawn", "noon", "3", "late, very"]).with_name("Hour"),
        Labels::default(),
    ];
    let saved = Saved::from(tensor.clone()).with_labels(labels).unwrap();
    saved.save(bench.path("fit.npz")).unwrap();
    tensor
}

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-12 * expected.abs()
}

fn same(found: &ArrayD<f64>, expected: &ArrayD<f64>) {
    assert_eq!(found.shape(), expected.shape());
    assert!(found.iter().zip(expected).all(|(&f, &e)| near(f, e)), "{found} {expected}");
}

fn array(bench: &Bench, name: &str) -> ArrayD<f64> {
    io::read_array_f64(bench.path(name), None).unwrap()
}

fn text(bench: &Bench, name: &str) -> String {
    std::fs::read_to_string(bench.path(name)).unwrap()
}

#[test]
fn predictions_of_the_whole_tensor_a_slice_and_single_entries() {
    let bench = Bench::new();
    let whole = fit(&bench).reconstruct().unwrap();
    let said = bench.good(&["predict", "fit.npz", "--out", "all.npy"]);
    assert!(said.contains("all.npy: 24 entries, shape [3, 4, 2]"), "{said}");
    same(&array(&bench, "all.npy"), &whole);
    bench.good(&["predict", "fit.npz", "--slice", "h=3,w=1", "--out", "slice.npy"]);
    let slice = whole.index_axis(Axis(1), 3).index_axis(Axis(0), 1).to_owned();
    same(&array(&bench, "slice.npy"), &slice);
    bench.good(&["predict", "fit.npz", "--slice", "w=1,h=3,d=0", "--out", "one.npy"]);
    same(&array(&bench, "one.npy"), &ArrayD::from_elem(vec![1], whole[[1, 3, 0]]));

    bench.text("cells.tns", "# two of them\n3 4 2 17\n1 1 1 0\n3 4 2 17\n");
    bench.good(&["predict", "fit.npz", "--at", "cells.tns", "--out", "cells.npy"]);
    let (last, first) = (whole[[2, 3, 1]], whole[[0, 0, 0]]);
    // In the order of the list, with what stands in it twice.
    same(&array(&bench, "cells.npy"), &ndarray::arr1(&[last, first, last]).into_dyn());
    bench.good(&["predict", "fit.npz", "--at", "cells.tns", "--out", "out.tns"]);
    let written = text(&bench, "out.tns");
    let lines: Vec<&str> = written.lines().collect();
    assert_eq!(lines, [format!("3 4 2 {last}"), format!("1 1 1 {first}"), format!("3 4 2 {last}")]);
    bench.text("cells.csv", "d,value,w,h\n1,99,2,3\n0,99,0,0\n");
    bench.good(&["predict", "fit.npz", "--at", "cells.csv", "--out", "out.csv"]);
    assert_eq!(text(&bench, "out.csv"), format!("w,h,d,prediction\n2,3,1,{last}\n0,0,0,{first}\n"));
    // A slice as text has all indices.
    bench.good(&["predict", "fit.npz", "--slice", "w=0,d=1", "--out", "slice.tns"]);
    let read = io::read_tns(bench.path("slice.tns"), Some(&[3, 4, 2])).unwrap();
    assert_eq!(read.len(), 4);
    for h in 0..4 {
        assert!(near(read.get(&[0, h, 1]).unwrap(), whole[[0, h, 1]]));
    }
}

#[test]
fn labels_go_in_and_out() {
    let bench = Bench::new();
    let tensor = labelled(&bench);
    let whole = tensor.reconstruct().unwrap();
    let hour = |name: &str, index: usize| {
        let slice = format!("h={name}");
        bench.good(&["predict", "fit.npz", "--slice", &slice, "--out", "slice.npy"]);
        same(&array(&bench, "slice.npy"), &whole.index_axis(Axis(1), index).to_owned());
    };
    hour("noon", 1);
    // A label that is a number, and an index with it.
    hour("3", 2);
    hour("#3", 3);
    hour("late, very", 3);
    bench.text("cells.csv", "Week,Hour,d\n2,\"late, very\",1\n0,noon,0\n");
    bench.good(&["predict", "fit.npz", "--at", "cells.csv", "--out", "out.csv"]);
    let (a, b) = (whole[[2, 3, 1]], whole[[0, 1, 0]]);
    assert_eq!(
        text(&bench, "out.csv"),
        format!("Week,Hour,d,prediction\n2,\"late, very\",1,{a}\n0,noon,0,{b}\n")
    );
    let said = bench.good(&["ask", "fit.npz", "--marginal", "h"]);
    assert!(
        said.contains("Hour") && said.contains("dawn") && said.contains("late, very"),
        "{said}"
    );
    bench.refused(
        &["predict", "fit.npz", "--slice", "h=evening", "--out", "x.npy"],
        &["Hour", "evening"],
    );
    bench.refused(&["predict", "fit.npz", "--slice", "h=1", "--out", "x.npy"], &["Hour", "1"]);
}

#[test]
fn questions_and_their_files() {
    let bench = Bench::new();
    let tensor = fit(&bench);
    let whole = tensor.reconstruct().unwrap();
    let said = bench.good(&["ask", "fit.npz", "--total", "--components", "--top", "2"]);
    assert!(said.contains("total      "), "{said}");
    assert!(said.contains("components of r") && said.contains("top"), "{said}");
    bench.good(&["ask", "fit.npz", "--marginal", "hw", "--out", "hw.npy"]);
    let expected = whole.sum_axis(Axis(2)).permuted_axes(IxDyn(&[1, 0]));
    same(&array(&bench, "hw.npy"), &expected.as_standard_layout().to_owned());
    // With something known: probabilities of the others.
    bench.good(&["ask", "fit.npz", "--given", "h=2", "--marginal", "d", "--out", "d.csv"]);
    let known = whole.index_axis(Axis(1), 2).to_owned();
    let share = |d: usize| known.index_axis(Axis(1), d).sum() / known.sum();
    let written = text(&bench, "d.csv");
    let lines: Vec<&str> = written.lines().collect();
    assert_eq!(lines[0], "d,probability");
    for d in 0..2 {
        let (index, value) = lines[d + 1].split_once(',').unwrap();
        assert!(index == d.to_string() && near(value.parse().unwrap(), share(d)), "{written}");
    }
    bench.good(&["ask", "fit.npz", "--given", "h=2", "--out", "rest.npy"]);
    same(&array(&bench, "rest.npy"), &(&known / known.sum()));

    bench.good(&["ask", "fit.npz", "--top", "3", "--out", "top.csv"]);
    let mut values: Vec<f64> = whole.iter().copied().collect();
    values.sort_by(|a, b| b.total_cmp(a));
    let written = text(&bench, "top.csv");
    for (line, expected) in written.lines().skip(1).zip(values) {
        let value = line.rsplit(',').next().unwrap().parse().unwrap();
        assert!(near(value, expected), "{written}");
    }
    assert_eq!(written.lines().count(), 4);
    bench.good(&["ask", "fit.npz", "--sample", "50", "--seed", "7", "--out", "drawn.npy"]);
    let drawn = array(&bench, "drawn.npy");
    assert_eq!(drawn.shape(), [50, 3]);
    let expected = tensor.sample(50, 7).unwrap();
    for (row, index) in drawn.outer_iter().zip(expected) {
        assert!(row.iter().zip(index).all(|(&x, i)| x == i as f64));
    }
    bench.good(&["ask", "fit.npz", "--total", "--components", "--out", "all.json"]);
    let json: serde_json::Value = serde_json::from_str(&text(&bench, "all.json")).unwrap();
    assert!(near(json["total"].as_f64().unwrap(), whole.sum()));
    assert_eq!(json["components"]["r"].as_array().unwrap().len(), 2);
}

#[test]
fn weights_of_normalised_factors_enter_every_answer() {
    let bench = Bench::new();
    bench.fit(&["--out", "plain.npz", "--max-iter", "5"]);
    bench.fit(&["--out", "weights.npz", "--max-iter", "5", "--normalize", "l1"]);
    for name in ["plain", "weights"] {
        let file = format!("{name}.npz");
        bench.good(&["predict", &file, "--out", &format!("{name}.npy")]);
        bench.good(&["ask", &file, "--marginal", "i", "--out", &format!("{name}_i.npy")]);
    }
    let close = |a: &ArrayD<f64>, b: &ArrayD<f64>| {
        assert!(a.iter().zip(b).all(|(a, b)| (a / b - 1.0).abs() < 1e-6), "{a} {b}");
    };
    close(&array(&bench, "plain.npy"), &array(&bench, "weights.npy"));
    close(&array(&bench, "plain_i.npy"), &array(&bench, "weights_i.npy"));
}

#[test]
fn odds_become_probabilities_where_asked() {
    let bench = Bench::new();
    let y = ndarray::Array2::from_shape_fn((6, 5), |(i, j)| f64::from(u8::from((i + j) % 3 == 0)));
    bench.npy("binary.npy", &y);
    let arguments = ["--loss", "bernoulli", "--out", "odds.npz", "--max-iter", "10"];
    bench.fit(&[&["binary.npy"], &arguments[..]].concat());
    bench.good(&["predict", "odds.npz", "--out", "odds.npy"]);
    bench.good(&["predict", "odds.npz", "--probabilities", "--out", "p.npy"]);
    let odds = array(&bench, "odds.npy");
    same(&array(&bench, "p.npy"), &odds.mapv(|y| y / (1.0 + y)));
    fit(&bench);
    bench.refused(
        &["predict", "fit.npz", "--probabilities", "--out", "p.tns"],
        &["bernoulli", "kl", "mean"],
    );
}

/// A tensor with 60 % missing from a table, fitted, completed to a file: errors as worked out here.
#[test]
fn a_table_with_most_entries_missing_is_completed() {
    let bench = Bench::new();
    let shape = [12usize, 10, 8];
    let truth = ArrayD::from_shape_fn(IxDyn(&shape), |at| {
        let part = |k: usize| {
            (1 + (at[0] * (k + 2)) % 5) as f64
                * (1 + (at[1] * (k + 3)) % 4) as f64
                * (1 + (at[2] + k) % 3) as f64
        };
        0.3 * part(0) + 0.2 * part(1)
    });
    // A fixed pattern of which 40 % are there.
    let there = |at: &[usize]| (at[0] * 7 + at[1] * 13 + at[2] * 29 + at[0] * at[1]) % 5 < 2;
    let mut table = String::from("shop,item,month,price\n");
    let mut absent = Vec::new();
    for (at, &y) in truth.indexed_iter() {
        let at = ndarray::Dimension::slice(&at);
        match there(at) {
            true => table += &format!("s{:02},i{:02},m{},{y}\n", at[0], at[1], at[2]),
            false => absent.push(at.to_vec()),
        }
    }
    let share = absent.len() as f64 / truth.len() as f64;
    assert!((0.55..0.65).contains(&share), "{share}");
    bench.text("prices.csv", &table);
    bench.good(&[
        "fit",
        "prices.csv",
        "--modes",
        "shop,item,month",
        "--mean",
        "price",
        "--model",
        "ar,br,cr->abc",
        "--rank",
        "r=2",
        "--loss",
        "euclidean",
        "--precision",
        "f64",
        "--max-iter",
        "2000",
        "--tol",
        "1e-10",
        "--starts",
        "3",
        "--out",
        "prices.npz",
    ]);
    bench.good(&["predict", "prices.npz", "--missing-only", "prices.csv", "--out", "filled.csv"]);
    let written = text(&bench, "filled.csv");
    let mut lines = written.lines();
    let head: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(head, ["shop", "item", "month", "prediction"]);
    let number = |label: &str| label[1..].parse::<usize>().unwrap();
    let (mut found, mut worst) = (Vec::new(), 0.0f64);
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let at = vec![number(fields[0]), number(fields[1]), number(fields[2])];
        let predicted: f64 = fields[3].parse().unwrap();
        worst = worst.max((predicted / truth[at.as_slice()] - 1.0).abs());
        found.push(at);
    }
    found.sort();
    absent.sort();
    assert_eq!(found, absent);
    // The planted tensor has rank 2 and no noise.
    assert!(worst < 0.02, "the largest error of what was missing is {worst}");
    // As an array: the data where there are some.
    bench.good(&["predict", "prices.npz", "--missing-only", "prices.csv", "--out", "filled.npy"]);
    let filled = array(&bench, "filled.npy");
    for (at, &y) in truth.indexed_iter() {
        let at = ndarray::Dimension::slice(&at);
        let error = (filled[at] / y - 1.0).abs();
        assert!(if there(at) { error < 1e-6 } else { error < 0.02 }, "{at:?} {error}");
    }
}

#[test]
fn missing_entries_of_arrays_and_lists() {
    let bench = Bench::new();
    let whole = fit(&bench).reconstruct().unwrap();
    let mut data = whole.mapv(f64::round);
    for at in [[0, 0, 0], [2, 1, 1], [1, 3, 0]] {
        data[at] = f64::NAN;
    }
    bench.npy("data.npy", &data);
    let said = bench.good(&["predict", "fit.npz", "--missing-only", "data.npy", "--out", "m.tns"]);
    assert!(said.contains("3 missing entries of 24"), "{said}");
    let read = io::read_tns(bench.path("m.tns"), Some(&[3, 4, 2])).unwrap();
    assert_eq!(read.len(), 3);
    assert!(near(read.get(&[2, 1, 1]).unwrap(), whole[[2, 1, 1]]));
    bench.good(&["predict", "fit.npz", "--missing-only", "data.npy", "--out", "m.npy"]);
    let filled = array(&bench, "m.npy");
    for (at, &y) in data.indexed_iter() {
        let expected = if y.is_nan() { whole[&at] } else { y };
        assert!(near(filled[&at], expected));
    }
    bench.text("data.tns", "1 1 1 5\n3 4 2 6\n");
    let said = bench.good(&["predict", "fit.npz", "--missing-only", "data.tns", "--out", "n.csv"]);
    assert!(said.contains("22 missing entries of 24"), "{said}");
    bench.npy("other.npy", &ArrayD::<f64>::zeros(vec![3, 4]));
    bench.refused(
        &["predict", "fit.npz", "--missing-only", "other.npy", "--out", "m.csv"],
        &["[3, 4]", "[3, 4, 2]"],
    );
}

#[test]
fn components_of_two_fits_are_paired() {
    let bench = Bench::new();
    let tensor = fit(&bench);
    let swapped: Vec<ArrayD<f64>> =
        tensor.factors().iter().map(|f| f.select(Axis(1), &[1, 0])).collect();
    Saved::from(FactoredTensor::from_parts("wr,hr,dr->whd", swapped, None).unwrap())
        .save(bench.path("other.npz"))
        .unwrap();
    let said = bench.good(&[
        "match",
        "fit.npz",
        "other.npz",
        "--out",
        "match.json",
        "--report",
        "match.html",
    ]);
    assert!(said.contains("factor match score 1"), "{said}");
    let json: serde_json::Value = serde_json::from_str(&text(&bench, "match.json")).unwrap();
    let pairs = json["indices"][0]["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 2);
    for pair in pairs {
        assert_eq!(pair["first"].as_u64().unwrap() + pair["second"].as_u64().unwrap(), 1);
        assert!(pair["cosine"].as_f64().unwrap() > 1.0 - 1e-12);
    }
    let page = text(&bench, "match.html");
    roxmltree::Document::parse_with_options(
        &page,
        roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() },
    )
    .unwrap();
    assert!(
        page.contains("fit.npz")
            && page.contains("other.npz")
            && page.matches("<svg").count() == 12
    );

    // Of different ranks, as far as they go; on the columns of one factor.
    let more = |f: &ArrayD<f64>| {
        let third = f.index_axis(Axis(1), 0).mapv(|x| 3.0 / (1.0 + x));
        ndarray::concatenate(Axis(1), &[f.view(), third.insert_axis(Axis(1)).view()]).unwrap()
    };
    let longer: Vec<ArrayD<f64>> = tensor.factors().iter().map(more).collect();
    Saved::from(FactoredTensor::from_parts("ws,hs,ds->whd", longer, None).unwrap())
        .save(bench.path("longer.npz"))
        .unwrap();
    let said = bench.good(&["match", "fit.npz", "longer.npz", "--out", "match.json"]);
    assert!(said.contains("without a match in the second: 2"), "{said}");
    bench.refused(&["match", "fit.npz", "longer.npz", "--on", "wr"], &["no factor wr", "ws"]);
    let said = bench.good(&["match", "fit.npz", "other.npz", "--on", "wr"]);
    assert!(said.contains("the columns of wr") && said.contains("mean cosine 1"), "{said}");

    // What was done about labels is told on the terminal, in the file and on the page.
    let label = |labels: [&str; 4]| {
        let hours = nneinfact::data::Labels::new(labels);
        vec![Default::default(), hours, Default::default()]
    };
    let turned: Vec<ArrayD<f64>> = tensor
        .factors()
        .iter()
        .enumerate()
        .map(|(l, f)| if l == 1 { f.select(Axis(0), &[3, 2, 1, 0]) } else { f.clone() })
        .collect();
    let named = |factors: Vec<ArrayD<f64>>, labels, name: &str| {
        let tensor = FactoredTensor::from_parts("wr,hr,dr->whd", factors, None).unwrap();
        let saved = Saved::from(tensor).with_labels(label(labels)).unwrap();
        saved.save(bench.path(name)).unwrap();
    };
    named(tensor.factors().to_vec(), ["a", "b", "c", "<d>"], "named.npz");
    named(turned, ["<d>", "c", "b", "a"], "turned.npz");
    let said = bench.good(&[
        "match",
        "named.npz",
        "turned.npz",
        "--out",
        "match.json",
        "--report",
        "match.html",
    ]);
    let note = "the labels of h are in another order in the second fit: compared label by label";
    assert!(said.contains("mean cosine 1.00000") && said.contains(note), "{said}");
    assert!(text(&bench, "match.html").contains(note));
    let json: serde_json::Value = serde_json::from_str(&text(&bench, "match.json")).unwrap();
    assert_eq!(json["notes"], serde_json::json!([note]));
}

#[test]
fn a_fit_is_taken_to_new_data() {
    let bench = Bench::new();
    bench.fit(&["--out", "fit.npz"]);
    bench.npy("new.npy", &ndarray::Array2::from_shape_fn((6, 3), |(i, j)| (i * 2 + j + 1) as f64));
    let said = bench.good(&["transform", "fit.npz", "new.npy", "--free", "jr", "--out", "new.npz"]);
    assert!(said.contains("free") && said.contains("jr"), "{said}");
    let (old, new) =
        (Saved::load(bench.path("fit.npz")).unwrap(), Saved::load(bench.path("new.npz")).unwrap());
    assert_eq!(old.factors()[0], new.factors()[0]);
    assert_eq!(new.factors()[1].shape(), [3, 2]);
    bench.refused(&["transform", "fit.npz", "new.npy", "--free", "kr"], &["kr", "ir, jr"]);
    bench.refused(
        &["transform", "fit.npz", "new.npy", "--free", "ir"],
        &["fixed factor jr", "[5, 2]", "[3, 2]"],
    );
    bench.refused(&["transform", "fit.npz", "new.npy"], &["--free"]);
}

#[test]
fn losses_as_text_are_fitted_and_come_back_from_their_files() {
    let bench = Bench::new();
    let loss = "custom: a = x/y; b = 1; loss = y - x*ln(y) + x*ln(x) - x; power = -1, 0";
    bench.fit(&["--loss", loss, "--precision", "f64", "--max-iter", "20", "--out", "custom.npz"]);
    bench.fit(&["--precision", "f64", "--max-iter", "20", "--out", "kl.npz"]);
    bench.fit(&["--precision", "f64", "--loss", "poisson", "--max-iter", "20", "--out", "p.npz"]);
    for name in ["custom.npz", "kl.npz", "p.npz"] {
        bench.good(&["predict", name, "--out", &name.replace("npz", "npy")]);
    }
    let kl = array(&bench, "kl.npy");
    for name in ["custom.npy", "p.npy"] {
        let found = array(&bench, name);
        assert!(found.iter().zip(&kl).all(|(a, b)| (a / b - 1.0).abs() < 1e-6), "{name}");
    }
    let saved = Saved::load(bench.path("custom.npz")).unwrap();
    let again = saved.record().loss.as_ref().unwrap().loss().unwrap();
    assert!(again.name().starts_with("custom: a = x/y; b = 1;"), "{}", again.name());
    bench.good(&["transform", "custom.npz", "y.npy", "--free", "jr"]);
    bench.refused(
        &[
            "fit",
            "y.npy",
            "--model",
            "ir,jr->ij",
            "--rank",
            "r=2",
            "--loss",
            "custom: a = x/q; b = 1; loss = y; power = -1, 0",
        ],
        &["`q` is not known", "^"],
    );
    bench.refused(
        &[
            "fit",
            "y.npy",
            "--model",
            "ir,jr->ij",
            "--rank",
            "r=2",
            "--loss",
            "tweedie",
            "--power",
            "0.5",
        ],
        &["tweedie", "0.5"],
    );
}

#[test]
fn bad_questions_are_refused() {
    let bench = Bench::new();
    fit(&bench);
    for (arguments, names) in [
        (&["predict", "fit.npz"][..], &["--out"][..]),
        (&["predict", "fit.npz", "--out", "x.txt"], &["x.txt", ".npy", ".tns", ".csv"]),
        (&["predict", "fit.npz", "--out", "fit.npy/x.npy"], &["fit.npy"]),
        (&["predict", "none.npz", "--out", "x.npy"], &["none.npz"]),
        (&["predict", "fit.npz", "--slice", "h=4", "--out", "x.npy"], &["h", "0 to 3"]),
        (&["predict", "fit.npz", "--slice", "x=1", "--out", "x.npy"], &["x=1", "w, h, d"]),
        (&["predict", "fit.npz", "--slice", "h=1,h=2", "--out", "x.npy"], &["twice"]),
        (&["predict", "fit.npz", "--slice", "", "--out", "x.npy"], &["w=3"]),
        (&["predict", "fit.npz", "--slice", "h=1", "--at", "y.npy", "--out", "x.npy"], &["--at"]),
        (&["predict", "fit.npz", "--at", "y.npy", "--out", "x.npy"], &[".tns or a .csv"]),
        (&["ask", "fit.npz"], &["nothing is asked", "--total"]),
        (&["ask", "fit.npz", "--marginal", "wr"], &["r is no mode"]),
        (&["ask", "fit.npz", "--marginal", "ww"], &["twice"]),
        (&["ask", "fit.npz", "--given", "h=1", "--marginal", "h"], &["known by --given"]),
        (&["ask", "fit.npz", "--given", "w=0,h=0,d=0"], &["single entry"]),
        (&["ask", "fit.npz", "--top", "-3"], &["-3"]),
        (&["ask", "fit.npz", "--seed", "3"], &["--sample"]),
        (&["ask", "fit.npz", "--total", "--out", "x.npy"], &[".json"]),
        (&["ask", "fit.npz", "--top", "2", "--sample", "2", "--out", "x.csv"], &["one answer"]),
        (&["match", "fit.npz"], &["B.npz"]),
        (&["match", "fit.npz", "fit.npz", "--out", "fit.npz"], &["would replace"]),
    ] {
        bench.refused(arguments, names);
    }
    bench.text("cells.tns", "1 1 1\n4 1 1\n");
    bench.refused(
        &["predict", "fit.npz", "--at", "cells.tns", "--out", "x.npy"],
        &["line 2", "1 to 3"],
    );
    bench.text("cells.csv", "w,h\n0,0\n");
    bench.refused(&["predict", "fit.npz", "--at", "cells.csv", "--out", "x.npy"], &["mode d"]);
    bench.text("cells.csv", "w,h,d\n0,0,0\n0,9,0\n");
    bench.refused(
        &["predict", "fit.npz", "--at", "cells.csv", "--out", "x.npy"],
        &["line 3", "0 to 3"],
    );
}

#[test]
fn a_study_has_figures_with_quartiles_and_links() {
    let bench = Bench::new();
    let run = [
        "compare",
        "y.npy",
        "--model",
        "nmf: ir,jr->ij",
        "--rank",
        "r=1:2",
        "--loss",
        "kl",
        "--loss",
        "euclidean",
        "--heldout",
        "0.2",
        "--splits",
        "4",
        "--max-iter",
        "20",
        "--out",
        "study",
    ];
    let figures = ["--plot", "study.svg", "--report", "study/study.html"];
    // The page goes into the folder of the study, which is made on the way; then runs are taken from it.
    bench.good(&[&run[..], &figures[2..]].concat());
    bench.good(&[&run[..], &figures[..]].concat());
    let parse = |text: &str| {
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        roxmltree::Document::parse_with_options(text, options).map(drop).unwrap();
    };
    let (svg, page) = (text(&bench, "study.svg"), text(&bench, "study/study.html"));
    parse(&svg);
    parse(&page);
    for of in [&svg, &page] {
        assert!(of.contains("held-out loss") && of.contains("sweeps") && of.contains("seconds"));
        assert!(of.contains("nmf r=1") && of.contains("euclidean"));
    }
    // What was compared is said at the head of the page, and more of every row in its table.
    for said in ["4 splits, 1 start each, 20 % held out", "<dt>Score</dt>", "<th>KKT residual</th>"]
    {
        assert!(page.contains(said), "{said}");
    }
    // Two losses, one best row of the model in each, with its report.
    let links: Vec<&str> =
        page.split("href=\"runs/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(links.len(), 2);
    assert!(links.iter().all(|link| bench.path("study/runs").join(link).is_file()), "{links:?}");

    let table: serde_json::Value = serde_json::from_str(&text(&bench, "study/table.json")).unwrap();
    let csv = text(&bench, "study/table.csv");
    let titles: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    let column = |title: &str| titles.iter().position(|t| *t == title).unwrap();
    for (row, line) in table["rows"].as_array().unwrap().iter().zip(csv.lines().skip(1)) {
        let mut losses: Vec<f64> = row["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["outcome"]["finished"]["heldout_loss"].as_f64().unwrap())
            .collect();
        losses.sort_by(f64::total_cmp);
        let mean = &row["heldout_loss"];
        let expected = [
            0.5 * (losses[1] + losses[2]),
            losses[0] + 0.75 * (losses[1] - losses[0]),
            losses[2] + 0.25 * (losses[3] - losses[2]),
        ];
        let found = [&mean["median"], &mean["quartiles"][0], &mean["quartiles"][1]];
        let fields: Vec<&str> = line.split(',').collect();
        let names = ["heldout_loss_median", "heldout_loss_q1", "heldout_loss_q3"];
        for ((found, expected), name) in found.iter().zip(expected).zip(names) {
            assert!(near(found.as_f64().unwrap(), expected), "{mean} {losses:?}");
            // From the end: the model, in quotes, has a comma.
            let place = fields.len() - (titles.len() - column(name));
            assert!(near(fields[place].parse().unwrap(), expected), "{line}");
        }
    }
    bench.refused(&[&run[..], &["--plot", "y.npy"]].concat(), &["would replace"]);
}

#[test]
fn what_is_predicted_can_be_asked_for_again() {
    use nneinfact::data::Labels;
    let bench = Bench::new();
    let factor =
        |of: &[f64]| ArrayD::from_shape_vec(vec![of.len(), 1], of.to_vec()).expect("a column");
    let (tiny, huge) = (0.5f64.powi(70), 2f64.powi(80));
    let factors = vec![factor(&[tiny, 3.0, huge]), factor(&[1.0, 0.5])];
    let tensor = FactoredTensor::from_parts("ir,jr->ij", factors, None).unwrap();
    // Labels that only a quoted field can have.
    let names = Labels::new(["two\nlines", "say \"hi\"", "a, b"]).with_name("what");
    let saved = Saved::from(tensor).with_labels(vec![names, Labels::default()]).unwrap();
    saved.save(bench.path("fit.npz")).unwrap();
    bench.good(&["predict", "fit.npz", "--out", "all.csv"]);
    let written = text(&bench, "all.csv");
    let first = format!("what,j,prediction\n\"two\nlines\",0,{tiny:e}\n\"two\nlines\",1,");
    assert!(written.starts_with(&first), "{written}");
    assert!(written.ends_with(&format!("\"a, b\",1,{:e}\n", 0.5 * huge)), "{written}");
    bench.good(&["predict", "fit.npz", "--at", "all.csv", "--out", "again.csv"]);
    assert_eq!(text(&bench, "again.csv"), written);
    bench.good(&["predict", "fit.npz", "--out", "all.tns"]);
    let read = io::read_tns(bench.path("all.tns"), Some(&[3, 2])).unwrap();
    assert_eq!([read.get(&[0, 0]), read.get(&[2, 1])], [Some(tiny), Some(0.5 * huge)]);
    // The line of the file, and not of the row.
    bench.text("open.csv", "what,j\n\"two\nlines\",0\n\"two,1\n");
    let at = ["predict", "fit.npz", "--at", "open.csv", "--out", "out.csv"];
    bench.refused(&at, &["open.csv", "line 4", "not closed"]);
    bench.refused(&["ask", "all.csv", "--total"], &["all.csv", "a fit is expected"]);
}

#[test]
fn answers_for_the_hours_of_a_day_are_shown_as_a_whole() {
    let bench = Bench::new();
    let factors = [24, 32].map(|n| ArrayD::from_elem(vec![n, 1], 1.0)).to_vec();
    let tensor = FactoredTensor::from_parts("hr,ir->hi", factors, None).unwrap();
    Saved::from(tensor).save(bench.path("fit.npz")).unwrap();
    let hours = bench.good(&["ask", "fit.npz", "--marginal", "h"]);
    assert!(hours.contains("\n  23  32") && !hours.contains("more"), "{hours}");
    let others = bench.good(&["ask", "fit.npz", "--marginal", "i"]);
    assert!(others.contains("\n  19  24") && others.contains("… and 12 more"), "{others}");
}
