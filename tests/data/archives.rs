//! Archives as another program may write them, whole and damaged.

use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use nneinfact::io::{self, NpzMember};

use crate::common::Random;

/// Numbers of a shape.
pub fn numbers(shape: &[usize], numbers: &[f64]) -> ArrayD<f64> {
    ArrayD::from_shape_vec(IxDyn(shape), numbers.to_vec()).unwrap()
}

/// Writes arrays of numbers, and lists of texts.
pub fn archive(path: &Path, arrays: &[(&str, ArrayD<f64>)], texts: &[(&str, &[String])]) {
    let mut members: Vec<(&str, NpzMember<'_>)> = Vec::new();
    members.extend(arrays.iter().map(|(name, a)| (*name, NpzMember::Numbers(a.view()))));
    members.extend(texts.iter().map(|(name, texts)| (*name, NpzMember::Texts(texts))));
    io::write_members(path, &members).unwrap();
}

/// Writes the members of lists and of sparse matrices of all formats, with lengths and numbers that seldom go
/// together: mostly small whole numbers, so that some archives are whole.
pub fn odd_archive(path: &Path, random: &mut Random) {
    const ODD: [f64; 10] =
        [0.0, 1.0, 2.0, 3.0, -1.0, 0.5, 1e18, f64::NAN, f64::INFINITY, 4_294_967_296.0];
    let n = random.below(5);
    let most = if random.below(3) == 0 { ODD.len() } else { 3 };
    let mut list = |shape: &[usize], most: usize| {
        let some: Vec<f64> =
            (0..shape.iter().product::<usize>()).map(|_| ODD[random.below(most)]).collect();
        numbers(shape, &some)
    };
    let arrays = [
        ("coords", list(&[2, n], most)),
        ("values", list(&[n], most)),
        ("shape", list(&[2], most.max(4))),
        ("data", list(&[n], most)),
        ("row", list(&[n], most)),
        ("col", list(&[n], most)),
        ("indices", list(&[n], most)),
        ("indptr", list(&[3], most)),
    ];
    let format = ["csr", "csc", "coo", "dia", ""][random.below(5)].to_string();
    archive(path, &arrays, &[("format", &[format])]);
}

/// Writes the bytes of a file with a few of them changed, and sometimes without its end.
pub fn damaged(path: &Path, whole: &[u8], random: &mut Random) {
    let mut bytes = whole.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        bytes[at] = random.below(256) as u8;
    }
    bytes.truncate(if random.below(4) == 0 { random.below(bytes.len()) } else { bytes.len() });
    std::fs::write(path, &bytes).unwrap();
}
