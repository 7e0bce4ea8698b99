//! Any bytes as an `.npz` file.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use nneinfact::io::read_npz_from;

fuzz_target!(|bytes: &[u8]| {
    for key in [None, Some("Y")] {
        if let Ok(dense) = read_npz_from(Cursor::new(bytes), "input.npz", key) {
            assert_eq!(dense.shape().iter().product::<usize>(), dense.len());
        }
    }
});
