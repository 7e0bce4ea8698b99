//! Golden cases of what is learnt from samples: sketches and expectation maximisation.

use nneinfact_density::{Core, Density, Em, Indices, NonnegativeTrain, Sketch, TrainFit};

use crate::fits::assert_cores;
use crate::npz::Case;
use crate::properties::ising;

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

/// All tuples of a tensor, in C order.
fn all(sizes: &[usize]) -> Indices {
    let entries: usize = sizes.iter().product();
    let tuple = |mut at: usize| {
        let mut tuple = vec![0; sizes.len()];
        for (i, n) in tuple.iter_mut().zip(sizes).rev() {
            (*i, at) = (at % n, at / n);
        }
        tuple
    };
    Indices::new(sizes.len(), (0..entries).flat_map(tuple).collect()).unwrap()
}

#[test]
fn sketches_of_exact_distributions_are_exact() {
    let sizes = [3, 2, 4, 3];
    let truth = Density::new(&NonnegativeTrain::random(&sizes, &[2, 3, 2], 8).unwrap()).unwrap();
    let truth = truth.to_train().into_train();
    let (tuples, weights) = (all(&sizes), truth.to_dense().unwrap());
    let sketch = || Sketch::new(sizes.to_vec());
    for sketch in [
        sketch().monomials(4, 3),
        sketch().monomials(1, 3).rank(3),
        sketch().random_cores(6, 1).tol(1e-10),
        sketch().random_cores(5, 2).ranks(vec![2, 3, 2]),
    ] {
        let found = sketch.clone().tol(1e-10).run(&tuples, Some(&weights)).unwrap();
        let error = truth.relative_squared_distance(&found.train).unwrap();
        assert!(error < 1e-20, "{error} {sketch:?}");
        assert_eq!(found.train.ranks(), [2, 3, 2]);
    }
    let found = sketch().run(&tuples, Some(&weights)).unwrap();
    assert!(found.notices[0].contains("neither a rank nor a tolerance"), "{:?}", found.notices);
}

#[test]
fn sketches_come_nearer_with_samples() {
    let truth = Density::new(&ising(16, 0.5)).unwrap();
    let error = |count: usize| {
        let samples = truth.sample(count, 3).unwrap();
        let found = Sketch::new(vec![2; 16]).rank(4).run(&samples, None).unwrap();
        truth.to_train().train().relative_squared_distance(&found.train).unwrap()
    };
    let (few, many) = (error(5_000), error(80_000));
    assert!(many < 0.2 * few && many < 0.01, "{few} {many}");
    // Merged rows and weights are the same samples.
    let samples = Indices::new(2, vec![0, 1, 1, 0, 0, 1, 1, 1]).unwrap();
    let merged = Indices::new(2, vec![0, 1, 1, 0, 1, 1]).unwrap();
    let sketch = Sketch::new(vec![2, 2]).rank(2);
    let one = sketch.run(&samples, None).unwrap();
    let other = sketch.run(&merged, Some(&[2.0, 1.0, 1.0])).unwrap();
    assert_eq!(one.train, other.train);
}

/// Sketch, barrier Newton, maximum likelihood: the likelihood of fresh samples near that of the
/// truth, where maximum likelihood from a random start ends on a plateau.
#[test]
fn the_pipeline_for_samples() {
    let truth = Density::new(&ising(16, 0.5)).unwrap();
    let (samples, fresh) = (truth.sample(20_000, 1).unwrap(), truth.sample(20_000, 2).unwrap());
    let nll = |density: &Density| density.nll(&fresh, None).unwrap().mean;
    let found = Sketch::new(vec![2; 16]).rank(4).run(&samples, None).unwrap();
    let fit = TrainFit::new().rank(8).seed(2).sweeps(30).run(&found.train).unwrap();
    let fitted = Density::new(&fit.train).unwrap();
    let better = Em::new().sweeps(10).run(&fitted, &samples, None).unwrap().density;
    let start = NonnegativeTrain::random(&[2; 16], &[8; 15], 3).unwrap();
    let start = Density::new(&start).unwrap();
    let alone = Em::new().sweeps(10).run(&start, &samples, None).unwrap().density;
    assert!(nll(&fitted) - nll(&truth) < 0.02, "{} {}", nll(&fitted), nll(&truth));
    assert!(nll(&better) < nll(&fitted) && nll(&fitted) < nll(&alone) - 0.05);
}
