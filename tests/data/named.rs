//! Archives of named tensors and of sparse matrices: what they hold comes back, and whatever else is
//! in them is an error and no panic.

use ndarray::{Array1, ArrayD};
use nneinfact::data::{CooTensor, LabelKind, Labels};
use nneinfact::io::{self, NamedTensor, read_scipy};
use nneinfact::{Error, Observations};

use crate::archives::{archive, damaged, numbers, odd_archive};
use crate::common::Random;

fn tensor() -> NamedTensor {
    let list = CooTensor::new(&[2, 3], &[vec![0, 1, 1], vec![2, 0, 1]], &[5.0, -1.5, 4.0]);
    let edges = vec![0.0, 0.5, 1.0, 1.5];
    let labels = vec![
        Labels::new(["ann", "bøb"]).with_name("who/what"),
        Labels::new(["a", "b", "c"]).with_name("x").with_kind(LabelKind::Bins { edges }),
    ];
    let data = Observations::new(list.unwrap()).unlisted_missing().with_labels(labels).unwrap();
    NamedTensor { observations: data, letters: vec![None, Some('x')] }
}

fn same(a: &NamedTensor, b: &NamedTensor) {
    assert_eq!(a.letters, b.letters);
    assert_eq!(a.observations.coordinates(), b.observations.coordinates());
    assert_eq!(a.observations.labels(), b.observations.labels());
    assert_eq!(a.observations.is_unlisted_missing(), b.observations.is_unlisted_missing());
}

#[test]
fn named_tensors_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.npz");
    tensor().save(&path).unwrap();
    same(&NamedTensor::load(&path).unwrap().unwrap(), &tensor());
    let names: Vec<String> = io::npz_names(&path).unwrap().into_iter().map(|i| i.name).collect();
    let expected = ["coords", "values", "shape", "modes", "labels_who_what", "labels_x"];
    assert_eq!(names[..6], expected);

    // In the order of a model: ŷ of entry [1, 0] is that of [0, 1].
    let turned = NamedTensor { letters: vec![Some('w'), Some('x')], ..tensor() };
    let turned = turned.arranged(&['x', 'w']).unwrap();
    assert_eq!(turned.observations.shape(), [3, 2]);
    assert_eq!(turned.observations.labels()[1].get(0), Some("ann"));
    assert!(turned.observations.is_unlisted_missing());
    let list = turned.observations.coordinates().unwrap().to_dense(1 << 20).unwrap();
    assert_eq!((list.get(&[0, 1]), list.get(&[2, 0])), (Some(-1.5), Some(5.0)));
    same(
        &turned.arranged(&['w', 'x']).unwrap(),
        &NamedTensor { letters: vec![Some('w'), Some('x')], ..tensor() },
    );
}

#[test]
fn archives_of_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.npz");
    let arrays = [
        ("coords", numbers(&[2, 3], &[0.0, 1.0, 1.0, 2.0, 0.0, 1.0])),
        ("values", numbers(&[3], &[5.0, -1.5, 4.0])),
    ];
    let modes = ["who".to_string(), "x".to_string()];
    let who = ["ann".to_string(), "bøb".to_string()];
    archive(&path, &arrays, &[("modes", &modes), ("labels_who", &who)]);
    let found = NamedTensor::load(&path).unwrap().unwrap();
    assert_eq!(found.observations.shape(), [2, 3]);
    let labels = found.observations.labels();
    assert_eq!((labels[0].get(1), labels[1].name()), (Some("bøb"), Some("x")));
    assert!(labels[1].indices().is_none());
    // An ordinary archive is none.
    archive(&path, &arrays[1..], &[]);
    assert!(NamedTensor::load(&path).unwrap().is_none() && read_scipy(&path).unwrap().is_none());

    let refused = |coords: ArrayD<f64>, values: ArrayD<f64>, part: &str| {
        archive(&path, &[("coords", coords), ("values", values)], &[]);
        let error = NamedTensor::load(&path).unwrap_err().to_string();
        assert!(error.contains("t.npz") && error.contains(part), "{part}: {error}");
    };
    let three = || numbers(&[3], &[1.0, 2.0, 3.0]);
    refused(numbers(&[3, 2], &[0.0; 6]), three(), "transpose it");
    refused(numbers(&[6], &[0.0; 6]), three(), "modes × entries");
    refused(numbers(&[2, 3], &[0.0, 0.5, 1.0, 0.0, 1.0, 2.0]), three(), "0.5");
    refused(numbers(&[2, 3], &[0.0, -1.0, 1.0, 0.0, 1.0, 2.0]), three(), "-1");
}

#[test]
fn sparse_matrices_of_scipy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.npz");
    let array = |x: &[f64]| Array1::from(x.to_vec()).into_dyn();
    let write = |format: &str, arrays: &[(&str, ArrayD<f64>)]| {
        archive(&path, arrays, &[("format", &[format.to_string()])]);
        read_scipy(&path).map(|matrix| matrix.expect("it is one").coords)
    };
    let csr = [
        ("shape", array(&[2.0, 3.0])),
        ("data", array(&[5.0, 7.0])),
        ("indices", array(&[2.0, 0.0])),
        ("indptr", array(&[0.0, 1.0, 2.0])),
    ];
    assert_eq!(write("csr", &csr).unwrap(), [[0, 1], [2, 0]]);
    let mut broken = csr.clone();
    broken[3].1 = array(&[0.0, 2.0, 1.0]);
    assert!(write("csr", &broken).unwrap_err().to_string().contains("indptr"));
    let error = write("bsr", &csr).unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)) && error.to_string().contains("tocsr"));
}

#[test]
fn damaged_archives_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.npz");
    let random = &mut Random::new(7);
    let rounds: usize =
        std::env::var("NNEINFACT_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let (mut good, mut bad) = (0, 0);
    let mut count = |result: Result<bool, Error>| match result {
        Ok(_) => good += 1,
        Err(error) => {
            bad += 1;
            assert!(!error.to_string().is_empty());
        }
    };
    for _ in 0..rounds {
        odd_archive(&path, random);
        count(NamedTensor::load(&path).map(|tensor| tensor.is_some()));
        count(read_scipy(&path).map(|matrix| matrix.is_some()));
    }
    // Bytes of a whole file.
    tensor().save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for _ in 0..rounds {
        damaged(&path, &whole, random);
        count(NamedTensor::load(&path).map(|tensor| tensor.is_some()));
        count(read_scipy(&path).map(|matrix| matrix.is_some()));
    }
    assert!(good > 10 && bad > 100, "{good} {bad}");
}
