//! Any bytes as the file of a tensor train.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use nneinfact::density::{Density, NonnegativeTrain, SavedTrain};

fuzz_target!(|bytes: &[u8]| {
    let Ok(train) = SavedTrain::train_from(Cursor::new(bytes), "input.npz") else { return };
    assert_eq!(train.ranks().len() + 1, train.order());
    // What was read can be used.
    if let Ok(train) = NonnegativeTrain::try_from(train) {
        let _ = Density::new(&train).map(|density| density.single_marginals());
    }
});
