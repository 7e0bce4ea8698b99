//! Matrix Market files.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nneinfact::io::read_matrix_market_from;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(matrix) = read_matrix_market_from(bytes, "m.mtx") {
        assert_eq!(matrix.coords[0].len(), matrix.values.len());
        let _ = matrix.observations();
    }
});
