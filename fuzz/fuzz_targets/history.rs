//! Histories of fits (JSON), and the pages that show them.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use nneinfact::fit::{History, Saved};
use nneinfact::report::Report;

static FIT: OnceLock<Saved> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let Ok(history) = serde_json::from_slice::<History>(bytes) else { return };
    let saved = FIT.get_or_init(|| {
        let theta = ndarray::arr2(&[[1.0, 2.0], [3.0, 4.0], [0.5, 0.0]]).into_dyn();
        Saved::from_factors("ir,jr->ij", vec![theta.clone(), theta]).expect("factors of the model")
    });
    let saved = saved.clone().with_history(history);
    let report = Report::new(&saved);
    assert!(!report.html().contains("NaN"), "a page shows NaN");
    let _ = report.svg();
});
