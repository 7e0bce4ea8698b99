//! Archives of sparse matrices and of tensors with names.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nneinfact::io::{NamedTensor, read_scipy};

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("nneinfact-fuzz-{}.npz", std::process::id()));
    if std::fs::write(&path, bytes).is_err() {
        return;
    }
    if let Ok(Some(matrix)) = read_scipy(&path) {
        let _ = matrix.observations();
    }
    if let Ok(Some(tensor)) = NamedTensor::load(&path) {
        assert_eq!(tensor.letters.len(), tensor.observations.shape().len());
    }
});
