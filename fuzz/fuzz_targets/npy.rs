//! Any bytes as an `.npy` file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nneinfact::io::read_npy_from;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(dense) = read_npy_from(bytes, "input.npy") {
        assert_eq!(dense.shape().iter().product::<usize>(), dense.len());
        assert!(dense.len() <= bytes.len());
    }
});
