//! Any bytes as a `.tns` file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nneinfact::io::read_tns_from;

fuzz_target!(|bytes: &[u8]| {
    for shape in [None, Some(&[2usize, 3, 4][..])] {
        if let Ok(list) = read_tns_from(bytes, "input.tns", shape) {
            assert!(!list.is_empty());
            let _ = list.to_dense(1 << 16);
        }
    }
});
