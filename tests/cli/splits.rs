//! How entries are withheld at random, on the command line.

use nneinfact::data::SplitKind;
use nneinfact::fit::Saved;
use serde_json::Value;

use super::commands::Bench;

/// With `list.tns`: 40 entries of any tensor that is large enough for them.
fn bench() -> Bench {
    let bench = Bench::new();
    let line = |i: usize| format!("{} {} {}\n", 1 + i * 7 % 30, 1 + i % 20, 1 + i % 5);
    bench.text("list.tns", &(0..40).map(line).collect::<String>());
    bench
}

const MODEL: [&str; 6] = ["--model", "ir,jr->ij", "--rank", "r=2", "--max-iter", "3"];

fn run(bench: &Bench, command: &str, arguments: &[&str]) -> (String, String) {
    let mut all = vec![command, "list.tns", "--device", "cpu"];
    all.extend(arguments);
    all.extend(MODEL);
    let output = bench.run(&all);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (told, errors) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{errors}");
    (told, errors)
}

#[test]
fn fits_say_how_entries_were_withheld() {
    let bench = bench();
    let files = ["--out", "f.npz", "--history", "h.json"];
    let fit = |arguments: &[&str]| run(&bench, "fit", &[arguments, &files].concat());
    let told = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(bench.path(name)).unwrap()).unwrap()
    };
    let held_out = ["--heldout", "0.3", "--split-seed", "2"];

    // A small list: cells, unless strata are asked for.
    let (text, errors) = fit(&[&held_out[..], &["--shape", "30,20"]].concat());
    assert!(!text.contains("strata") && !errors.contains("strata"), "{text}{errors}");
    assert_eq!(told("h.json")["heldout_as"], "cells");
    let strata = ["--shape", "30,20", "--heldout-as", "strata", "--zeros-per-nonzero", "2"];
    let (text, errors) = fit(&[&held_out[..], &strata].concat());
    assert!(text.contains("stored entries and") && text.contains("by strata"), "{text}");
    assert!(errors.is_empty(), "{errors}");
    assert_eq!(told("h.json")["heldout_as"], "strata");
    let saved = Saved::load(bench.path("f.npz")).unwrap();
    let record = saved.record().data.clone().unwrap();
    assert_eq!(record.heldout_as, Some(SplitKind::Strata));
    assert_eq!(record.zeros_per_nonzero, Some(2.0));
    let history = saved.record().history.clone().unwrap();
    assert_eq!(history.heldout_as, Some(SplitKind::Strata));
    // Its page has the same held-out loss, from what the file says of the split.
    bench.good(&["report", "f.npz", "--data", "list.tns", "--out", "r.html"]);
    let page = std::fs::read_to_string(bench.path("r.html")).unwrap();
    assert!(page.contains("Held-out entries"));

    // A vast one: strata without a word, but with a notice.
    let vast = ["--shape", "1000000,1000000"];
    let (text, errors) = fit(&[&held_out[..], &vast].concat());
    assert!(text.contains("by strata") && text.contains("zeros, each for"), "{text}");
    assert!(errors.contains("notice") && errors.contains("by strata"), "{errors}");
    assert_eq!(told("h.json")["heldout_as"], "strata");
    // Nothing is withheld at random.
    fit(&vast);
    assert_eq!(told("h.json").get("heldout_as"), None);
}

#[test]
fn studies_say_how_entries_were_withheld() {
    let bench = bench();
    let arguments =
        ["--shape", "30,20", "--heldout", "0.3", "--splits", "2", "--heldout-as", "strata"];
    let (text, _) = run(&bench, "compare", &[&arguments[..], &["--out", "out"]].concat());
    assert!(text.contains("30 % held out, by strata"), "{text}");
    let table: Value =
        serde_json::from_slice(&std::fs::read(bench.path("out/table.json")).unwrap()).unwrap();
    assert_eq!(table["heldout_as"], "strata");
    bench.text(
        "study.toml",
        "data = \"list.tns\"\nshape = [30, 20]\nheldout = 0.3\nsplits = 2\nmax_iter = 3\n\
         heldout_as = \"strata\"\n[[model]]\nmodel = \"ir,jr->ij\"\nranks = { r = 2 }\n",
    );
    bench.good(&["compare", "study.toml", "--device", "cpu", "--out", "out"]);
    let again: Value =
        serde_json::from_slice(&std::fs::read(bench.path("out/table.json")).unwrap()).unwrap();
    // The same runs, taken from the folder.
    assert_eq!(again["rows"][0]["heldout_loss"], table["rows"][0]["heldout_loss"]);
    assert_eq!(std::fs::read_dir(bench.path("out/runs")).unwrap().count(), 4);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let bench = bench();
    let refused = |arguments: &[&str], names: &[&str]| {
        let all = [&["fit", "list.tns"], &MODEL[..], arguments].concat();
        bench.refused(&all, names);
    };
    refused(&["--heldout-as", "strata"], &["--heldout-as", "--validation"]);
    refused(&["--zeros-per-nonzero", "2"], &["--zeros-per-nonzero", "--validation"]);
    let cells = ["--heldout", "0.1", "--heldout-as", "cells"];
    refused(&[&cells[..], &["--zeros-per-nonzero", "2"]].concat(), &["strata"]);
    refused(&["--heldout", "0.1", "--zeros-per-nonzero", "0"], &["zeros per nonzero", "0"]);
    refused(&["--heldout", "0.1", "--heldout-as", "rows"], &["rows", "strata"]);
    refused(&[&cells[..], &["--shape", "1000000,1000000"]].concat(), &["--heldout-as strata"]);
    bench.refused(
        &[&["fit", "y.npy", "--heldout", "0.1", "--heldout-as", "strata"], &MODEL[..]].concat(),
        &["lists", "cells"],
    );
}
