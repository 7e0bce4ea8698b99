//! Any bytes as a checkpoint, and a fit that is to go on from it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nneinfact::fit::Checkpoint;
use nneinfact::{Device, NNEinFact};

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("nneinfact-fuzz-{}", std::process::id()));
    if std::fs::write(&path, bytes).is_err() {
        return;
    }
    let Ok(checkpoint) = Checkpoint::read(&path) else { return };
    let y = ndarray::arr2(&[[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]);
    let fit = NNEinFact::new("ir,jr->ij").map(|fit| fit.ranks([('r', 2)]).device(Device::cpu()));
    let _ = fit.and_then(|fit| fit.max_iter(6).resume(checkpoint).fit(&y));
});
