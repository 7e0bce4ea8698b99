//! Any text as a model string; what parses gets shapes and ranks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nneinfact::model::{Model, Shapes};

fuzz_target!(|input: (&str, Vec<usize>, Vec<(char, usize)>)| {
    let (text, shape, ranks) = input;
    let Ok(model) = Model::parse(text) else { return };
    // What is shown parses to the same model.
    assert_eq!(Model::parse(&model.to_string()).unwrap().factors(), model.factors());
    let _ = model.warnings();
    let _ = Shapes::new(&model, &shape, &ranks);
});
