//! Names of modes and of their indices, from the data to the file of a fit.

use std::path::Path;

use ndarray::{Array3, array};
use nneinfact::data::{LabelKind, Labels};
use nneinfact::fit::{Coupled, Norm, Part, Saved, ScalesInto};
use nneinfact::{Device, Fit, NNEinFact, Observations, io};

fn labels() -> Vec<Labels> {
    let edges = vec![40.0, 40.5, 41.0];
    vec![
        Labels::new(["Mon", "Tue", "Wed"]).with_name("weekday").with_kind(LabelKind::Cycle),
        Labels::new(["東京", "שלום", "<b>\u{1b}[31m", ""]).with_name("place"),
        Labels::new(["[40.0, 40.5)", "[40.5, 41.0]"])
            .with_name("lat")
            .with_kind(LabelKind::Bins { edges }),
    ]
}

fn data() -> Observations {
    let y = Array3::from_shape_fn((3, 4, 2), |(i, j, k)| ((i + 1) * (j + 2) + k) as f64);
    Observations::new(&y).with_labels(labels()).unwrap()
}

fn settings() -> NNEinFact {
    let settings = NNEinFact::new("dr,pr,ir->dpi").unwrap();
    settings.ranks([('r', 2)]).device(Device::cpu()).max_iter(5)
}

fn known(fit: &Fit) {
    assert_eq!(&fit.all_labels()[..], labels());
    assert_eq!(fit.labels('p').and_then(|place| place.get(1)), Some("שלום"));
    assert_eq!(fit.labels('d').and_then(|day| day.index_of("Wed")), Some(2));
    // What is not a mode of the data has none.
    assert!(fit.labels('r').is_none() && fit.labels('x').is_none());
}

#[test]
fn a_fit_and_its_file_know_the_names() {
    let fit = settings().fit(data()).unwrap();
    known(&fit);
    known(&settings().fit_prepared(&data().prepare().unwrap()).unwrap());
    let read = fit.normalize(Norm::L1, ScalesInto::Weights).unwrap().sorted();
    known(&read.without_empty(0.0).unwrap());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fit.npz");
    fit.save(&path).unwrap();
    let saved = Saved::load(&path).unwrap();
    assert_eq!(&saved.all_labels()[..], labels());
    assert_eq!(saved.labels('i').unwrap().find("40.7").unwrap(), 1);
    assert_eq!(saved.factors(), fit.factors());
    let texts = io::read_npz_strings(&path, "labels_d").unwrap();
    assert_eq!(texts.as_deref(), labels()[0].indices());
    let as_model = Saved::load_as(&path, "dr,pr,ir->dpi").unwrap();
    assert_eq!(&as_model.all_labels()[..], labels());
    // Written anew, it is the same file but for nothing.
    let anew = folder.path().join("anew.npz");
    saved.save(&anew).unwrap();
    assert_eq!(std::fs::read(&anew).unwrap(), std::fs::read(&path).unwrap());
}

#[test]
fn without_names_files_are_as_they_were() {
    let y = array![[4.0, 2.0, 8.0], [2.0, 1.0, 4.0]];
    let fit = NNEinFact::new("ir,jr->ij").unwrap().ranks([('r', 1)]).fit(&y).unwrap();
    assert!(fit.all_labels().is_empty() && fit.labels('i').is_none());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fit.npz");
    fit.save(&path).unwrap();
    let names: Vec<String> =
        io::npz_names(&path).unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["theta_1", "theta_2", "fit.json"]);
    assert!(!io::read_npz_text(&path, "fit.json").unwrap().unwrap().contains("modes"));
    assert!(Saved::load(&path).unwrap().all_labels().is_empty());
}

#[test]
fn parts_of_a_coupled_fit_have_their_own() {
    let other = Observations::new(&array![[1.0, 2.0], [3.0, 1.0], [2.0, 2.0]])
        .with_labels(vec![labels().remove(0), Labels::named("shop")])
        .unwrap();
    let fit = Coupled::new([
        Part::new("dr,pr,ir->dpi", data()).unwrap(),
        Part::new("dr,sr->ds", other).unwrap(),
    ])
    .settings(|s| s.ranks([('r', 2)]).device(Device::cpu()).max_iter(3))
    .fit()
    .unwrap();
    known(&fit.parts()[0]);
    assert_eq!(fit.parts()[1].labels('s').and_then(Labels::name), Some("shop"));
}

#[test]
fn labels_that_do_not_go_with_the_data_are_refused() {
    let y = array![[4.0, 2.0, 8.0], [2.0, 1.0, 4.0]];
    let refused = |labels: Vec<Labels>, parts: &[&str]| {
        let error = Observations::new(&y).with_labels(labels).unwrap_err();
        assert!(error.is_input());
        parts.iter().for_each(|part| assert!(error.to_string().contains(part), "{error}"));
    };
    refused(vec![Labels::named("row")], &["labels for 1 modes", "the data have 2"]);
    let short = vec![Labels::named("row"), Labels::new(["a", "b"])];
    refused(short, &["2 labels", "mode 2", "3 indices"]);

    let fit = settings().fit(data()).unwrap();
    let mut wrong = labels();
    wrong[2] = Labels::new(["one"]);
    let error = fit.with_labels(wrong).unwrap_err().to_string();
    assert!(error.contains("1 labels") && error.contains("mode i"), "{error}");
}

#[test]
fn a_file_with_other_labels_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fit.npz");
    settings().fit(data()).unwrap().save(&path).unwrap();
    let factors = io::read_npz_arrays(&path).unwrap();
    let record = io::read_npz_text(&path, "fit.json").unwrap().unwrap();
    write(&path, &factors, &record, io::NpzMember::Texts(&["Mon".into()]));
    let error = Saved::load(&path).unwrap_err().to_string();
    assert!(error.contains("fit.npz") && error.contains("1 labels"), "{error}");
    write(&path, &factors, &record, io::NpzMember::Lengths(&[1, 2, 3]));
    let error = Saved::load(&path).unwrap_err().to_string();
    assert!(error.contains("labels_d") && error.contains("texts are expected"), "{error}");
}

/// A file of a fit with something else in place of the labels of its first mode.
fn write<'a>(
    path: &Path,
    factors: &'a [(String, ndarray::ArrayD<f64>)],
    record: &'a str,
    labels: io::NpzMember<'a>,
) {
    let mut members: Vec<(&str, io::NpzMember<'a>)> = vec![("labels_d", labels)];
    for (name, array) in factors {
        members.push((name, io::NpzMember::Numbers(array.view())));
    }
    members.push(("fit.json", io::NpzMember::Text(record)));
    io::write_members(path, &members).unwrap();
}
