//! Files of fits: any bytes as the archive, or as the record in one whose factors are good.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use nneinfact::fit::Saved;
use nneinfact::io::write_npz_with;
use nneinfact::report::Report;

fuzz_target!(|bytes: &[u8]| {
    let read = match std::str::from_utf8(bytes) {
        // No archive is a text.
        Ok(record) => {
            let name = format!("nneinfact-fuzz-{}.npz", std::process::id());
            let path = std::env::temp_dir().join(name);
            let theta = ndarray::arr2(&[[1.0, 2.0], [3.0, 4.0], [0.5, 0.0]]);
            let factors = [("theta_1", theta.clone()), ("theta_2", theta)];
            if write_npz_with(&path, &factors, &[("fit.json", record)]).is_err() {
                return;
            }
            Saved::load(&path)
        }
        Err(_) => Saved::read_from(Cursor::new(bytes), "input.npz"),
    };
    let Ok(saved) = read else { return };
    let _ = saved.factored().predict(&vec![0; saved.shapes().data().len()]);
    assert!(Report::new(&saved).html().starts_with("<!DOCTYPE html>"));
});
