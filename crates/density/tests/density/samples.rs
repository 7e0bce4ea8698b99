//! Golden cases of what is learnt from samples: sketches and expectation maximisation.

use nneinfact_density::{Core, Density, Em, NonnegativeTrain, Sketch};

use crate::fits::assert_cores;
use crate::npz::Case;

/// Cores with names that count from 1.
fn sketch_cores(case: &Case, side: &str, modes: std::ops::RangeInclusive<usize>) -> Vec<Core> {
    let core = |k| {
        let a = case.array(&format!("{side}_{k}"));
        Core::new([a.shape[0], a.shape[1], a.shape[2]], a.data.clone()).unwrap()
    };
    modes.map(core).collect()
}

#[test]
fn a_sketch_by_cores() {
    let case = Case::read("08_sketch_cores");
    let tolerance = case.number("tolerance");
    let sizes: Vec<usize> = case.numbers("n").iter().map(|&n| n as usize).collect();
    let d = sizes.len();
    let (left, right) =
        (sketch_cores(&case, "left", 1..=d - 1), sketch_cores(&case, "right", 2..=d));
    let found = Sketch::new(sizes)
        .cores(left, right)
        .rank(case.number("rank") as usize)
        .run(&case.indices("samples"), None)
        .unwrap();
    for (k, got) in found.singular_values.iter().enumerate() {
        let want = &case.array(&format!("singular_values_{}", k + 1)).data;
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() <= tolerance * got.max(found.singular_values[k][0]));
        }
    }
    let got = found.train.to_dense().unwrap();
    let want = &case.array("expected_full").data;
    let top = want.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= tolerance * top, "{got} for {want}");
    }
    let truth = &case.array("truth_full").data;
    let off: f64 = got.iter().zip(truth).map(|(g, t)| (g - t).powi(2)).sum();
    let all: f64 = truth.iter().map(|t| t * t).sum();
    assert!((off / all - case.number("rel2_to_truth")).abs() < 1e-8);
}

#[test]
fn expectation_maximisation() {
    let case = Case::read("11_em");
    let tolerance = case.number("tolerance");
    let start = Density::new(&NonnegativeTrain::new(case.cores("init"), 0.0).unwrap()).unwrap();
    let weights = &case.array("counts").data;
    let found = Em::new()
        .sweeps(case.number("sweeps") as usize)
        .run(&start, &case.indices("rows"), Some(weights))
        .unwrap();
    assert_cores(found.density.markov_cores(), &case.cores("expected"), tolerance, "EM");
    let want = case.numbers("nll");
    assert_eq!(found.nll.len(), want.len());
    for (got, want) in found.nll.iter().zip(&want) {
        assert!((got - want).abs() <= tolerance * want, "{got} for {want}");
    }
    assert!(found.nll.windows(2).all(|pair| pair[1] <= pair[0] + 1e-12), "it never rises");
}
