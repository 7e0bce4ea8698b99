//! Lists in `.npz` files of which a process reads its part, against the same lists read as a whole.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use nneinfact::data::{CooTensor, Labels};
use nneinfact::io::{self, NamedTensor, SparseMatrix, read_scipy, read_scipy_part};
use nneinfact::{Error, Observations};
use tempfile::TempDir;

use crate::archives::{archive, damaged, numbers, odd_archive};
use crate::common::Random;

const SHAPE: [usize; 2] = [24, 9];

fn floats(list: &[usize]) -> ArrayD<f64> {
    numbers(&[list.len()], &list.iter().map(|&n| n as f64).collect::<Vec<f64>>())
}

/// Entries of a matrix, some places twice, sorted by rows, or by columns where `along` is 1.
fn entries(along: usize) -> Vec<([usize; 2], f64)> {
    let random = &mut Random::new(3);
    let mut all: Vec<([usize; 2], f64)> = (0..80)
        .map(|n| ([random.below(SHAPE[0]), random.below(SHAPE[1])], 0.1 + (n * n % 17) as f64))
        .collect();
    // Rows and columns without entries.
    all.retain(|(at, _)| ![4, 5, 23].contains(&at[0]) && at[1] != 0);
    all.sort_by_key(|(at, _)| at[along]);
    all
}

fn scipy(folder: &TempDir, format: &str) -> PathBuf {
    let path = folder.path().join(format!("{format}.npz"));
    let along = usize::from(format == "csc");
    let all = entries(along);
    let column = |axis: usize| floats(&all.iter().map(|(at, _)| at[axis]).collect::<Vec<usize>>());
    let values: Vec<f64> = all.iter().map(|(_, value)| *value).collect();
    let mut arrays = vec![("shape", floats(&SHAPE)), ("data", numbers(&[all.len()], &values))];
    if format == "coo" {
        arrays.extend([("row", column(0)), ("col", column(1))]);
    } else {
        let starts: Vec<usize> = (0..=SHAPE[along])
            .map(|line| all.partition_point(|(at, _)| at[along] < line))
            .collect();
        arrays.extend([("indices", column(1 - along)), ("indptr", floats(&starts))]);
    }
    archive(&path, &arrays, &[("format", &[format.to_string()])]);
    path
}

/// The entries of a matrix with these rows or columns, in bits.
fn cut(matrix: &SparseMatrix, axis: usize, range: &Range<usize>) -> Vec<([u32; 2], u64)> {
    let all = matrix.coords[0].iter().zip(&matrix.coords[1]).zip(&matrix.values);
    let inside =
        all.filter(|((row, column), _)| range.contains(&([**row, **column][axis] as usize)));
    let own = |((&row, &column), value): ((&u32, &u32), &f64)| {
        let mut at = [row, column];
        at[axis] -= range.start as u32;
        (at, value.to_bits())
    };
    inside.map(own).collect()
}

#[test]
fn parts_of_matrices_of_scipy() {
    let folder = tempfile::tempdir().unwrap();
    for format in ["csr", "csc", "coo"] {
        let path = scipy(&folder, format);
        let whole = read_scipy(&path).unwrap().unwrap();
        for axis in [0, 1] {
            for range in [0..3, 3..8, 4..6, 8..9, 0..SHAPE[axis], SHAPE[axis]..SHAPE[axis]] {
                let part = read_scipy_part(&path, &|shape| {
                    assert_eq!(shape, SHAPE);
                    (axis, range.clone())
                });
                let (part, shape) = part.unwrap().unwrap();
                assert_eq!(shape, SHAPE);
                let at = format!("{format} along {axis}, {range:?}");
                let mut expected = SHAPE;
                expected[axis] = range.len().max(1);
                assert_eq!([part.rows.len, part.columns.len], expected, "{at}");
                let all = 0..expected[axis];
                assert_eq!(cut(&part, axis, &all), cut(&whole, axis, &range), "{at}");
            }
        }
        // Entries of one place are added up, and counted.
        let all = read_scipy_part(&path, &|shape| (0, 0..shape[0])).unwrap().unwrap().0;
        assert_eq!(all, whole);
        assert!(all.duplicates > 0);
    }
}

#[test]
fn matrices_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.npz");
    let arrays = |indices: &[f64], starts: &[f64]| {
        vec![
            ("shape", numbers(&[2], &[3.0, 3.0])),
            ("data", numbers(&[2], &[5.0, 7.0])),
            ("indices", numbers(&[indices.len()], indices)),
            ("indptr", numbers(&[starts.len()], starts)),
        ]
    };
    let first = |path: &Path| read_scipy_part(path, &|_| (0, 0..2));
    let refused = |format: &str, indices: &[f64], starts: &[f64], said: &str| {
        archive(&path, &arrays(indices, starts), &[("format", &[format.to_string()])]);
        let error = first(&path).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("m.npz"), "{error}");
    };
    refused("csr", &[2.0, 0.0], &[0.0, 2.0, 1.0, 2.0], "indptr");
    refused("csr", &[2.0, 0.0], &[0.0, 1.0, 2.0], "indptr");
    refused("csr", &[2.0], &[0.0, 1.0, 2.0, 2.0], "differ in length");
    refused("csr", &[2.0, -1.0], &[0.0, 1.0, 2.0, 2.0], "holds -1");
    refused("csr", &[2.0, 3.0], &[0.0, 1.0, 2.0, 2.0], "column 4");
    refused("coo", &[2.0, 0.0], &[0.0], "differ in length");
    refused("bsr", &[2.0, 0.0], &[0.0], "tocsr");
    // Of rows that the process does not have nothing is read.
    archive(
        &path,
        &arrays(&[2.0, 0.0], &[0.0, 1.0, 1.0, 2.0]),
        &[("format", &["csr".to_string()])],
    );
    assert_eq!(first(&path).unwrap().unwrap().0.values, [5.0]);
    // Other archives are none.
    io::write_npz(&path, &[("y", numbers(&[1], &[1.0]))]).unwrap();
    assert!(first(&path).unwrap().is_none());
    assert!(NamedTensor::load_part(&path, None, &|_| (0, 0..1)).unwrap().is_none());
}

/// Three modes with letters, the last two with labels.
fn tensor() -> NamedTensor {
    let random = &mut Random::new(5);
    let mut list = |most: usize| (0..120).map(|_| random.below(most) as u64).collect::<Vec<u64>>();
    let indices = [list(12), list(7), list(5)];
    let values: Vec<f64> = (0..120).map(|n| 0.5 + f64::from(n % 9)).collect();
    let list = CooTensor::new(&[12, 7, 5], &indices, &values).unwrap();
    let names = |from: &str, n: usize| Labels::new((0..n).map(|i| format!("{from}{i}")));
    let labels = vec![Labels::named("time"), names("zone ", 7).with_name("zone"), names("d", 5)];
    let data = Observations::new(list).unlisted_missing().with_labels(labels).unwrap();
    NamedTensor { observations: data, letters: vec![Some('t'), Some('z'), Some('d')] }
}

/// The labels of a part, and its entries as the whole has them.
fn same_part(part: &NamedTensor, whole: &NamedTensor, mode: usize, range: &Range<usize>) {
    let list = |named: &NamedTensor| named.observations.coordinates().unwrap().clone();
    let expected = CooTensor::clone(&list(whole)).into_part(mode, range.clone()).unwrap();
    assert_eq!(*list(part), expected);
    assert_eq!(part.letters, whole.letters);
    assert!(part.observations.is_unlisted_missing());
    let labels = |named: &NamedTensor| named.observations.labels().to_vec();
    for (other, (own, all)) in labels(part).iter().zip(labels(whole)).enumerate() {
        assert_eq!(own.name(), all.name());
        match (own.indices(), all.indices()) {
            (Some(own), Some(all)) if other == mode => {
                assert_eq!(own, &all[if range.is_empty() { 0..1 } else { range.clone() }]);
            }
            (own, all) => assert_eq!(own, all),
        }
    }
}

#[test]
fn parts_of_coordinates_with_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.npz");
    tensor().save(&path).unwrap();
    for letters in [['t', 'z', 'd'], ['d', 't', 'z']] {
        let whole = NamedTensor::load(&path).unwrap().unwrap().arranged(&letters).unwrap();
        for mode in 0..3 {
            let length = whole.observations.shape()[mode];
            for range in [0..2, 1..4, 0..length, length..length] {
                let keep = |shape: &[usize]| {
                    assert_eq!(shape, whole.observations.shape());
                    (mode, range.clone())
                };
                let (part, own) =
                    NamedTensor::load_part(&path, Some(&letters), &keep).unwrap().unwrap();
                assert_eq!((own.mode, own.whole, &own.range), (mode, length, &range));
                same_part(&part, &whole, mode, &range);
            }
        }
    }
    let said = NamedTensor::load_part(&path, Some(&['x', 'y', 'z']), &|_| (0, 0..1));
    assert!(matches!(said, Err(Error::Setting(_))));
    let said = NamedTensor::load_part(&path, None, &|_| (3, 0..1)).unwrap_err().to_string();
    assert!(said.contains("is no part of the shape"), "{said}");
}

#[test]
fn coordinates_of_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.npz");
    let coords = numbers(&[2, 3], &[0.0, 1.0, 1.0, 2.0, 0.0, 1.0]);
    let values = numbers(&[3], &[5.0, -1.5, 4.0]);
    let second = |path: &Path| NamedTensor::load_part(path, None, &|_| (0, 1..2));
    // Without a shape, which is that of the largest indices.
    io::write_npz(&path, &[("coords", coords.clone()), ("values", values.clone())]).unwrap();
    let (part, own) = second(&path).unwrap().unwrap();
    assert_eq!((part.observations.shape(), own.whole), (&[1, 3][..], 2));
    assert_eq!(part.observations.value(&[0, 1]), Some(4.0));
    let refused = |arrays: &[(&str, ArrayD<f64>)], said: &str| {
        io::write_npz(&path, arrays).unwrap();
        let error = second(&path).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("t.npz"), "{error}");
    };
    let of = |coords: &ArrayD<f64>, shape: &[f64]| {
        vec![
            ("coords", coords.clone()),
            ("values", values.clone()),
            ("shape", numbers(&[shape.len()], shape)),
        ]
    };
    // An index outside, which no process would miss, is no entry of another one.
    refused(&of(&coords, &[2.0, 2.0]), "the index 2 (counted from 0) along a mode of 2 indices");
    refused(&of(&coords, &[2.0, 3.0, 1.0]), "shape has 3 modes");
    refused(&of(&coords, &[2.0, 0.0]), "length 0");
    let mut odd = coords.clone();
    odd[[1, 2]] = 0.5;
    refused(&of(&odd, &[2.0, 3.0]), "holds 0.5");
    refused(&[("coords", values.clone()), ("values", values.clone())], "modes × entries");
}

#[test]
fn damaged_lists_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.npz");
    let random = &mut Random::new(11);
    let half = |shape: &[usize]| (0, 0..shape.first().map_or(0, |n| n.div_ceil(2)));
    let (mut good, mut bad) = (0, 0);
    let mut count = |failed: bool| *(if failed { &mut bad } else { &mut good }) += 1;
    for _ in 0..300 {
        odd_archive(&path, random);
        count(NamedTensor::load_part(&path, None, &half).is_err());
        count(read_scipy_part(&path, &|shape| half(&shape)).is_err());
    }
    tensor().save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for _ in 0..200 {
        damaged(&path, &whole, random);
        count(NamedTensor::load_part(&path, Some(&['d', 't', 'z']), &half).is_err());
    }
    assert!(good > 20 && bad > 100, "{good} {bad}");
}
