//! Reads the arrays of a golden case: uncompressed `.npz` files of little-endian `f8` and `i8`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nneinfact_density::{Core, Indices, TensorTrain};
use serde_json::Value;

/// An array in C order.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

/// A golden case: its description and its arrays.
pub struct Case {
    pub json: Value,
    pub arrays: BTreeMap<String, Array>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

impl Case {
    pub fn read(name: &str) -> Case {
        let folder = folder().join(name);
        let text = std::fs::read_to_string(folder.join("case.json")).unwrap();
        let bytes = std::fs::read(folder.join("arrays.npz")).unwrap();
        Case { json: serde_json::from_str(&text).unwrap(), arrays: arrays(&bytes) }
    }

    pub fn array(&self, name: &str) -> &Array {
        self.arrays.get(name).unwrap_or_else(|| panic!("no array {name}"))
    }

    /// Cores `name_1`, `name_2`, …
    pub fn cores(&self, name: &str) -> Vec<Core> {
        let cores = (1..).map_while(|k| self.arrays.get(&format!("{name}_{k}")));
        let cores: Vec<Core> = cores
            .map(|a| Core::new([a.shape[0], a.shape[1], a.shape[2]], a.data.clone()).unwrap())
            .collect();
        assert!(!cores.is_empty(), "no cores {name}");
        cores
    }

    pub fn train(&self, name: &str) -> TensorTrain {
        TensorTrain::new(self.cores(name), 0.0).unwrap()
    }

    pub fn indices(&self, name: &str) -> Indices {
        let a = self.array(name);
        Indices::new(a.shape[1], a.data.iter().map(|&x| x as usize).collect()).unwrap()
    }

    pub fn number(&self, key: &str) -> f64 {
        self.json[key].as_f64().unwrap_or_else(|| panic!("no number {key}"))
    }

    pub fn numbers(&self, key: &str) -> Vec<f64> {
        let list = self.json[key].as_array().unwrap_or_else(|| panic!("no list {key}"));
        list.iter().map(|x| x.as_f64().unwrap()).collect()
    }
}

fn u16_at(b: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes(b[at..at + 2].try_into().unwrap()))
}

fn u32_at(b: &[u8], at: usize) -> usize {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap()) as usize
}

/// The arrays of an archive, by the central directory at its end.
fn arrays(bytes: &[u8]) -> BTreeMap<String, Array> {
    let end = bytes.windows(4).rposition(|w| w == b"PK\x05\x06").unwrap();
    let (count, mut at) = (u16_at(bytes, end + 10), u32_at(bytes, end + 16));
    let mut out = BTreeMap::new();
    for _ in 0..count {
        assert_eq!(&bytes[at..at + 4], b"PK\x01\x02");
        assert_eq!(u16_at(bytes, at + 10), 0, "only uncompressed arrays are read");
        let (size, name) = (u32_at(bytes, at + 24), u16_at(bytes, at + 28));
        let local = u32_at(bytes, at + 42);
        let text = std::str::from_utf8(&bytes[at + 46..at + 46 + name]).unwrap();
        let start = local + 30 + u16_at(bytes, local + 26) + u16_at(bytes, local + 28);
        out.insert(text.trim_end_matches(".npy").to_string(), array(&bytes[start..start + size]));
        at += 46 + name + u16_at(bytes, at + 30) + u16_at(bytes, at + 32);
    }
    out
}

fn array(bytes: &[u8]) -> Array {
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    let data = 10 + u16_at(bytes, 8);
    let header = std::str::from_utf8(&bytes[10..data]).unwrap();
    assert!(header.contains("'fortran_order': False"));
    let shape = header.split_once("'shape': (").unwrap().1.split_once(')').unwrap().0;
    let sides = shape.split(',').map(str::trim).filter(|s| !s.is_empty());
    let shape: Vec<usize> = sides.map(|s| s.parse().unwrap()).collect();
    let integers = header.contains("'<i8'");
    assert!(integers || header.contains("'<f8'"), "{header}");
    let number = |b: &[u8]| {
        let b = b.try_into().unwrap();
        if integers { i64::from_le_bytes(b) as f64 } else { f64::from_le_bytes(b) }
    };
    let data: Vec<f64> = bytes[data..].chunks_exact(8).map(number).collect();
    assert_eq!(data.len(), shape.iter().product::<usize>());
    Array { shape, data }
}
