//! What a model with its factors answers, against the tensor itself on the whole corpus of models.

use std::collections::BTreeMap;

use crate::common::{CORPUS, Entry, Random, array_deviation};
use ndarray::{ArrayD, Axis, Dimension, IxDyn};
use nneinfact::data::CooTensor;
use nneinfact::fit::{Norm, Saved, ScalesInto};
use nneinfact::model::{Index, Model, Shapes};
use nneinfact::{Device, Error, FactoredTensor, NNEinFact, Observations, Precision, reference};

const SHAPE: [usize; 6] = [4, 3, 5, 2, 3, 2];
const ONES: [usize; 6] = [1, 4, 1, 3, 1, 2];

/// A tensor in factored form, and the same with all its entries.
struct Both {
    name: String,
    factored: FactoredTensor,
    whole: ArrayD<f64>,
}

fn shapes(entry: &Entry, shape: &[usize]) -> Shapes {
    entry.shapes(&shape[..entry.modes()])
}

/// ŷ of factors and weights, by multiplying the weights into nothing: sums over every latent index one by
/// one, without any code that is under test.
fn brute(tensor: &FactoredTensor) -> ArrayD<f64> {
    let model = tensor.model();
    let shapes = tensor.shapes();
    let latent: Vec<Index> = model.latent().iter().collect();
    let sizes = shapes.sizes(&latent);
    ArrayD::from_shape_fn(IxDyn(&shapes.data()), |at| {
        let mut sum = 0.0;
        for l in ndarray::indices(IxDyn(&sizes)) {
            let value = |x: &Index| match model.output().iter().position(|y| y == x) {
                Some(mode) => at[mode],
                None => l[latent.iter().position(|y| y == x).expect("latent")],
            };
            let mut term = tensor.weights().map_or(1.0, |w| w[&l]);
            for (factor, names) in tensor.factors().iter().zip(model.factors()) {
                let index: Vec<usize> = names.iter().map(value).collect();
                term *= factor[index.as_slice()];
            }
            sum += term;
        }
        sum
    })
}

/// The corpus: plain, with weights, and with modes and ranks of size 1.
fn corpus() -> Vec<Both> {
    let mut all = Vec::new();
    for (seed, entry) in CORPUS.iter().enumerate() {
        let mut random = Random::new(seed as u64 + 100);
        for (shape, weighted) in [(&SHAPE, false), (&SHAPE, true), (&ONES, false), (&ONES, true)] {
            let shapes = shapes(entry, shape);
            let mut factors = random.factors(&shapes);
            // Zeros, as fits have them.
            factors[0].iter_mut().skip(2).step_by(5).for_each(|x| *x = 0.0);
            let latent: Vec<usize> =
                shapes.model().latent().iter().map(|x| shapes.size(x)).collect();
            let weights = weighted.then(|| random.tensor(&latent, 0.2, 2.0));
            let factored = FactoredTensor::from_parts(entry.model, factors, weights)
                .expect("factors of the model");
            let whole = brute(&factored);
            let name = format!("{}, {shape:?}, weights: {weighted}", entry.name);
            all.push(Both { name, factored, whole });
        }
    }
    all
}

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-11 * expected.abs().max(1e-300)
}

/// The sums over all axes but these, in this order.
fn sums(whole: &ArrayD<f64>, kept: &[usize]) -> ArrayD<f64> {
    let mut sums: BTreeMap<Vec<usize>, f64> = BTreeMap::new();
    for (at, &y) in whole.indexed_iter() {
        let index: Vec<usize> = kept.iter().map(|&axis| at[axis]).collect();
        *sums.entry(index).or_default() += y;
    }
    let shape: Vec<usize> = kept.iter().map(|&axis| whole.shape()[axis]).collect();
    ArrayD::from_shape_fn(IxDyn(&shape), |at| sums[at.slice()])
}

fn letters(tensor: &FactoredTensor) -> Vec<char> {
    tensor.model().output().iter().map(|&x| char::from(x)).collect()
}

#[test]
fn the_brute_force_is_the_reference_where_there_are_no_weights() {
    for both in corpus().iter().filter(|b| b.factored.weights().is_none()) {
        let expected = reference::predict(both.factored.shapes(), both.factored.factors());
        assert!(array_deviation(&both.whole, &expected) < 1e-13, "{}", both.name);
    }
}

#[test]
fn entries_and_slices() {
    for Both { name, factored, whole } in corpus() {
        let all: Vec<Vec<usize>> =
            whole.indexed_iter().map(|(at, _)| at.slice().to_vec()).collect();
        let many = factored.predict_many(&all).expect("inside");
        let lists: Vec<Vec<usize>> =
            (0..whole.ndim()).map(|mode| all.iter().map(|at| at[mode]).collect()).collect();
        let batched = factored.at(&lists).expect("inside");
        for ((at, &found), &other) in all.iter().zip(&many).zip(&batched) {
            let expected = whole[at.as_slice()];
            assert!(near(found, expected) && near(other, expected), "{name} {at:?}");
        }
        assert!(array_deviation(&factored.reconstruct().expect("small"), &whole) < 1e-12, "{name}");
        for mode in 0..whole.ndim() {
            let i = whole.shape()[mode] - 1;
            let mut fixed = vec![None; whole.ndim()];
            fixed[mode] = Some(i);
            let found = factored.slice(&fixed).expect("small");
            let expected = whole.index_axis(Axis(mode), i).to_owned();
            assert!(array_deviation(&found, &expected) < 1e-12, "{name} {mode}");
        }
    }
}

#[test]
fn marginals_of_any_modes_in_any_order_and_by_component() {
    for Both { name, factored, whole } in corpus() {
        let modes = letters(&factored);
        let count = modes.len();
        let choices =
            [vec![], vec![0], vec![count - 1], vec![count - 1, 0], (0..count).rev().collect()];
        for mut kept in choices {
            kept.dedup();
            let text: String = kept.iter().map(|&axis| modes[axis]).collect();
            let expected = sums(&whole, &kept);
            let found = factored.marginal(&text).expect("small");
            assert!(array_deviation(&found, &expected) < 1e-12, "{name} {text}");
            if !kept.is_empty() {
                let model = factored.marginal_model(&text).expect("modes");
                let formed = model.reconstruct().expect("small");
                assert!(array_deviation(&formed, &expected) < 1e-12, "{name} {text} as a model");
            }
        }
        assert!(near(factored.total().expect("small"), whole.sum()), "{name}");
        for latent in factored.model().latent().iter() {
            let text = format!("{latent}{}", modes[0]);
            let found = factored.marginal(&text).expect("small");
            let expected = sums(&whole, &[0]);
            assert!(array_deviation(&found.sum_axis(Axis(0)), &expected) < 1e-12, "{name} {text}");
            let shares = factored.component_shares(latent.into()).expect("latent");
            assert!(near(shares.iter().sum(), 1.0), "{name}");
            for (i, &share) in shares.iter().enumerate() {
                let part = factored.given(&[(latent.into(), i)]).expect("a component");
                assert!(near(share, brute(&part).sum() / whole.sum()), "{name} {latent} {i}");
            }
        }
    }
}

#[test]
fn conditionals_and_expectations() {
    for Both { name, factored, whole } in corpus() {
        let modes = letters(&factored);
        let last = modes.len() - 1;
        let fixed = whole.shape()[last] - 1;
        let slice = whole.index_axis(Axis(last), fixed).to_owned();
        let given = factored.given(&[(modes[last], fixed)]).expect("a mode is left");
        assert!(array_deviation(&brute(&given), &slice) < 1e-12, "{name}");
        let conditional = factored.conditional(&[(modes[last], fixed)]).expect("positive");
        let expected = &slice / slice.sum();
        assert!(array_deviation(&brute(&conditional), &expected) < 1e-12, "{name}");
        // A function of one mode, and one of two.
        let f: Vec<f64> = (0..whole.shape()[0]).map(|i| (i as f64 - 0.7) * 1.5).collect();
        let g: Vec<f64> = (0..whole.shape()[last]).map(|i| (i as f64).sin() + 0.2).collect();
        let mean = |of: &dyn Fn(&IxDyn) -> f64| {
            whole.indexed_iter().map(|(at, y)| y * of(&at)).sum::<f64>() / whole.sum()
        };
        let one = factored.expectation(&[(modes[0], &f)]).expect("positive");
        assert!((one - mean(&|at| f[at[0]])).abs() < 1e-11, "{name}");
        if last > 0 {
            let two = factored.expectation(&[(modes[last], &g), (modes[0], &f)]).expect("positive");
            assert!((two - mean(&|at| f[at[0]] * g[at[last]])).abs() < 1e-11, "{name}");
        }
    }
}

/// Two tensors for every two models of the corpus that have modes of the same letters and sizes.
fn pairs() -> Vec<(Both, Both)> {
    let mut pairs = Vec::new();
    let all = corpus();
    for (n, a) in all.iter().enumerate() {
        for b in &all[n..] {
            let (x, y) = (a.factored.model(), b.factored.model());
            let sizes = |t: &FactoredTensor| -> Vec<usize> {
                x.output().iter().map(|&i| t.shapes().size(i)).collect()
            };
            if x.observed() == y.observed() && sizes(&a.factored) == sizes(&b.factored) {
                let copy = |of: &Both| Both {
                    name: of.name.clone(),
                    factored: of.factored.clone(),
                    whole: of.whole.clone(),
                };
                pairs.push((copy(a), copy(b)));
            }
        }
    }
    pairs
}

/// The second tensor with its axes in the order of the first.
fn aligned(a: &Both, b: &Both) -> ArrayD<f64> {
    let order: Vec<usize> = a
        .factored
        .model()
        .output()
        .iter()
        .map(|x| b.factored.model().output().iter().position(|y| x == y).expect("the same modes"))
        .collect();
    b.whole.clone().permuted_axes(order).as_standard_layout().to_owned()
}

#[test]
fn products_sums_and_distances_of_two() {
    let pairs = pairs();
    assert!(pairs.len() > 200, "{}", pairs.len());
    for (a, b) in &pairs {
        let name = format!("{} and {}", a.name, b.name);
        let other = aligned(a, b);
        let dot = |x: &ArrayD<f64>, y: &ArrayD<f64>| (x * y).sum();
        let (x, y) = (&a.factored, &b.factored);
        assert!(near(x.inner(y).expect("small"), dot(&a.whole, &other)), "{name}");
        assert!(near(x.norm().expect("small"), dot(&a.whole, &a.whole).sqrt()), "{name}");
        let apart = &a.whole - &other;
        let (found, expected) = (x.distance(y).expect("small"), dot(&apart, &apart).sqrt());
        assert!((found - expected).abs() <= 1e-12 * (1.0 + expected), "{name}: {found} {expected}");
        let sum = x.sum(y).expect("enough letters");
        assert!(array_deviation(&brute(&sum), &(&a.whole + &other)) < 1e-12, "{name}: sum");
        let product = x.hadamard(y).expect("enough letters");
        assert!(array_deviation(&brute(&product), &(&a.whole * &other)) < 1e-12, "{name}");
    }
    // Of the same model and connected: the same model again.
    let cp = |n: f64| {
        FactoredTensor::from_parts(
            "ir,jr->ij",
            vec![ArrayD::from_elem(vec![3, 2], n), ArrayD::from_elem(vec![4, 2], 1.0)],
            None,
        )
    };
    let sum = cp(1.0).and_then(|a| a.sum(&cp(2.0)?)).expect("the same model");
    assert_eq!(sum.model().text(), "ir,jr->ij");
    assert_eq!(sum.factors()[0].shape(), [3, 4]);
}

#[test]
fn distances_lose_nothing_where_tensors_are_nearly_the_same() {
    let mut random = Random::new(5);
    let factors = vec![random.tensor(&[40, 3], 0.5, 1.5), random.tensor(&[30, 3], 0.5, 1.5)];
    let a = FactoredTensor::from_parts("ir,jr->ij", factors.clone(), None).expect("factors");
    let mut moved = factors.clone();
    moved[0][[7, 1]] *= 1.0 + 1e-10;
    let moved_by = moved[0][[7, 1]] - factors[0][[7, 1]];
    let column: f64 = factors[1].index_axis(Axis(1), 1).iter().map(|x| x * x).sum();
    let b = FactoredTensor::from_parts("ir,jr->ij", moved, None).expect("factors");
    let expected = moved_by * column.sqrt();
    let found = a.distance(&b).expect("small");
    // In doubles, norms of some 50 would leave nothing of 5e-10.
    assert!((found / expected - 1.0).abs() < 1e-6, "{found:e} {expected:e}");
    assert_eq!(a.distance(&a).expect("small"), 0.0);
}

#[test]
fn scales_beyond_doubles_on_the_way_do_no_harm() {
    let of = |x: f64, y: f64| {
        FactoredTensor::from_parts(
            "ir,jr->ij",
            vec![ArrayD::from_elem(vec![3, 2], x), ArrayD::from_elem(vec![5, 2], y)],
            None,
        )
        .expect("factors")
    };
    for (x, y) in [(1e250, 1e-250), (1e-300, 1e300), (1e200, 1e50)] {
        let a = of(x, y);
        let each = 2.0 * x * y;
        assert!((a.norm().expect("small") / (each * 15f64.sqrt()) - 1.0).abs() < 1e-12, "{x} {y}");
        assert!((a.total().expect("small") / (each * 15.0) - 1.0).abs() < 1e-12, "{x} {y}");
        assert_eq!(a.distance(&a).expect("small"), 0.0);
    }
}

#[test]
fn the_largest_entries() {
    for Both { name, factored, whole } in corpus() {
        let mut expected: Vec<f64> = whole.iter().copied().collect();
        expected.sort_by(|a, b| b.total_cmp(a));
        for count in [1, 7, whole.len(), whole.len() + 5] {
            let found = factored.top(count).expect("few entries");
            assert_eq!(found.len(), count.min(whole.len()), "{name}");
            for (n, entry) in found.iter().enumerate() {
                assert!(near(entry.value, expected[n]), "{name} {n}");
                assert!(near(entry.value, whole[entry.index.as_slice()]), "{name} {n}");
            }
            let mut indices: Vec<_> = found.iter().map(|e| &e.index).collect();
            indices.sort();
            indices.dedup();
            assert_eq!(indices.len(), found.len(), "{name}: an entry twice");
        }
    }
}

#[test]
fn samples_have_the_distribution() {
    const DRAWN: usize = 4000;
    for Both { name, factored, whole } in corpus() {
        let drawn = factored.sample(DRAWN, 3).expect("positive");
        assert_eq!(drawn.len(), DRAWN);
        let mut counts = ArrayD::<f64>::zeros(whole.raw_dim());
        drawn.iter().for_each(|index| counts[index.as_slice()] += 1.0);
        // Entries of probability 0 are never drawn; χ² over the others is near their number.
        let (mut chi, mut some) = (0.0, 0.0f64);
        for (&count, &y) in counts.iter().zip(&whole) {
            let expected = DRAWN as f64 * y / whole.sum();
            assert!(y > 0.0 || count == 0.0, "{name}");
            if y > 0.0 {
                chi += (count - expected).powi(2) / expected;
                some += 1.0;
            }
        }
        let free = some - 1.0;
        // Six standard deviations, and what few expected counts add to them.
        assert!(chi <= free + 8.0 * (2.0 * free).sqrt() + 1e-9, "{name}: {chi} of {free}");
        // The same again, and more begin with the fewer.
        assert_eq!(factored.sample(50, 3).expect("positive"), drawn[..50], "{name}");
        if some > 20.0 {
            assert_ne!(factored.sample(50, 4).expect("positive"), drawn[..50], "{name}");
        }
    }
}

#[test]
fn cosines_between_components_are_those_of_their_parts() {
    for (a, b) in pairs().iter().filter(|(a, b)| a.name != b.name).step_by(3) {
        let (x, y) = (&a.factored, &b.factored);
        let (Some(l), Some(m)) =
            (x.model().latent().iter().next(), y.model().latent().iter().next())
        else {
            continue;
        };
        let parts = |t: &Both, l: Index| -> Vec<ArrayD<f64>> {
            (0..t.factored.shapes().size(l))
                .map(|i| {
                    let factored = t.factored.given(&[(l.into(), i)]).expect("a component");
                    let whole = brute(&factored);
                    aligned(a, &Both { name: String::new(), factored, whole })
                })
                .collect()
        };
        let found = x.cosines(l.into(), y, m.into()).expect("the same modes");
        for (p, row) in parts(a, l).iter().zip(&found) {
            for (q, &cosine) in parts(b, m).iter().zip(row) {
                let dot = |x: &ArrayD<f64>, y: &ArrayD<f64>| (x * y).sum();
                let lengths = (dot(p, p) * dot(q, q)).sqrt();
                // A component that is 0 is like nothing.
                let expected = if lengths > 0.0 { dot(p, q) / lengths } else { 0.0 };
                assert!((cosine - expected).abs() < 1e-11, "{} and {}", a.name, b.name);
            }
        }
    }
}

#[test]
fn components_of_models_with_only_some_modes_in_common() {
    let mut random = Random::new(8);
    let a = vec![random.tensor(&[4, 2], 0.1, 1.0), random.tensor(&[5, 2], 0.1, 1.0)];
    let b = vec![
        random.tensor(&[4, 3], 0.1, 1.0),
        random.tensor(&[6, 3], 0.1, 1.0),
        random.tensor(&[2, 3], 0.1, 1.0),
    ];
    let x = FactoredTensor::from_parts("wr,hr->wh", a.clone(), None).expect("factors");
    let y = FactoredTensor::from_parts("ws,is,js->wij", b.clone(), None).expect("factors");
    let found = x.cosines('r', &y, 's').expect("w is in both");
    for (r, row) in found.iter().enumerate() {
        for (s, &cosine) in row.iter().enumerate() {
            let (p, q) = (a[0].index_axis(Axis(1), r), b[0].index_axis(Axis(1), s));
            let dot = |x: &ndarray::ArrayViewD<'_, f64>, y: &ndarray::ArrayViewD<'_, f64>| {
                x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>()
            };
            let expected = dot(&p, &q) / (dot(&p, &p) * dot(&q, &q)).sqrt();
            assert!((cosine - expected).abs() < 1e-12);
        }
    }
    let none = FactoredTensor::from_parts("ks,ls->kl", vec![b[0].clone(), b[1].clone()], None);
    let error = x.cosines('r', &none.expect("factors"), 's').expect_err("no mode in common");
    assert!(error.to_string().contains("no mode in common"), "{error}");
}

/// 10¹⁵ entries of which no more is in memory than the factors.
#[test]
fn vast_models_answer_within_the_memory_of_their_factors() {
    let sizes = [100_000usize, 100_000, 100_000];
    let mut random = Random::new(21);
    let mut factors: Vec<ArrayD<f64>> =
        sizes.iter().map(|&n| random.tensor(&[n, 4], 0.0, 1.0)).collect();
    // One entry that stands out.
    for (factor, at) in factors.iter_mut().zip([77_777, 5, 99_999]) {
        factor[[at, 2]] = 40.0;
    }
    let y = FactoredTensor::from_parts("ir,jr,kr->ijk", factors.clone(), None).expect("factors");
    let column = |l: usize, r: usize| factors[l].index_axis(Axis(1), r).sum();
    let total: f64 = (0..4).map(|r| column(0, r) * column(1, r) * column(2, r)).sum();
    assert!(near(y.total().expect("small"), total));
    let top = y.top(3).expect("one stands out");
    assert_eq!(top[0].index, [77_777, 5, 99_999]);
    let at = |index: &[usize]| -> f64 {
        (0..4).map(|r| (0..3).map(|l| factors[l][[index[l], r]]).product::<f64>()).sum()
    };
    assert!(top.iter().all(|e| near(e.value, at(&e.index))));
    assert!(y.sample(100, 1).expect("positive").iter().all(|i| i.iter().all(|&i| i < 100_000)));
    assert!(near(y.distance(&y).expect("small") + 1.0, 1.0));
    assert!(y.marginal("k").expect("small").len() == 100_000);
    let weekday = y.conditional(&[('j', 5)]).expect("positive");
    assert!((weekday.total().expect("small") - 1.0).abs() < 1e-12);
    // What would be of the tensor's size is refused, with the size.
    let error = y.reconstruct().expect_err("8 PB").to_string();
    assert!(error.contains("would take about") && error.contains("PiB"), "{error}");
    let error = y.top(usize::MAX).expect_err("more than there is memory").to_string();
    assert!(error.contains("would take about"), "{error}");
    let error = y.marginal("ijk").expect_err("8 PB").to_string();
    assert!(error.contains("would take about"), "{error}");
}

#[test]
fn what_cannot_be_answered_is_refused() {
    let factors = vec![ArrayD::from_elem(vec![3, 2], 1.0), ArrayD::from_elem(vec![4, 2], 1.0)];
    let y = FactoredTensor::from_parts("ir,jr->ij", factors.clone(), None).expect("factors");
    let said = |error: Error, words: &[&str]| {
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "{word} is not in {text}");
        }
    };
    said(y.predict(&[3, 0]).expect_err("outside"), &["[3, 0]", "[3, 4]"]);
    said(y.predict(&[0]).expect_err("a mode is missing"), &["2 indices"]);
    said(y.at(&[vec![0], vec![4]]).expect_err("outside"), &["[3, 4]"]);
    said(y.at(&[vec![0, 1], vec![0]]).expect_err("lengths"), &["same length"]);
    said(y.at(&[]).expect_err("no modes"), &["2 lists"]);
    said(y.marginal("ix").expect_err("no letter"), &["no index x", "i, j", "latent indices r"]);
    said(y.marginal("ii").expect_err("twice"), &["twice"]);
    said(y.marginal_model("r").expect_err("latent"), &["no mode"]);
    said(y.marginal_model("").expect_err("none"), &["a mode"]);
    said(y.given(&[('j', 4)]).expect_err("outside"), &["below 4"]);
    said(y.given(&[('i', 0), ('j', 0)]).expect_err("all"), &["single entry"]);
    said(y.expectation(&[('j', &[1.0])]).expect_err("length"), &["j", "4 finite"]);
    said(y.expectation(&[('i', &[f64::NAN; 3])]).expect_err("NaN"), &["finite"]);
    said(y.component_shares('i').expect_err("a mode"), &["not a latent"]);
    let other = FactoredTensor::from_parts("ir,kr->ik", factors.clone(), None).expect("factors");
    said(y.inner(&other).expect_err("modes"), &["other modes"]);
    let longer = vec![ArrayD::from_elem(vec![3, 2], 1.0), ArrayD::from_elem(vec![5, 2], 1.0)];
    let longer = FactoredTensor::from_parts("ir,jr->ij", longer, None).expect("factors");
    said(y.sum(&longer).expect_err("sizes"), &["j=4", "j=5"]);
    let zero = FactoredTensor::from_parts(
        "i,j->ij",
        vec![ArrayD::zeros(vec![2]), ArrayD::from_elem(vec![2], 1.0)],
        None,
    )
    .expect("factors");
    said(zero.sample(1, 0).expect_err("zero"), &["0 everywhere"]);
    said(zero.conditional(&[('i', 1)]).expect_err("zero"), &["i = 1"]);
    assert_eq!(zero.top(2).expect("zeros").len(), 2);
    let parts = FactoredTensor::from_parts;
    said(parts("ir,jr->ij", vec![], None).expect_err("none"), &["2 factors, not 0"]);
    let mut bad = factors.clone();
    bad[1][[3, 0]] = -1.0;
    said(parts("ir,jr->ij", bad, None).expect_err("negative"), &["theta_2", "[3, 0]"]);
    let weights = ArrayD::from_elem(vec![3], 1.0);
    said(parts("ir,jr->ij", factors, Some(weights)).expect_err("weights"), &["weights", "[2]"]);
}

#[test]
fn letters_that_run_out_are_said() {
    // 27 latent letters, which two copies of cannot have.
    let latent: String = ('a'..='z').chain('A'..='A').collect();
    let model = format!("{},Z{latent}->ZY", "Ya");
    let shapes = Shapes::new(
        &Model::parse(&model).expect("a model"),
        &[2, 2],
        &latent.chars().map(|x| (x, 1)).collect::<Vec<_>>(),
    )
    .expect("sizes");
    let factors = Random::new(1).factors(&shapes);
    let y = FactoredTensor::new(shapes, factors, None).expect("factors");
    for error in [y.norm().map(drop), y.hadamard(&y).map(drop)] {
        let text = error.expect_err("too few letters").to_string();
        assert!(text.contains("52 letters"), "{text}");
    }
}

#[test]
fn residuals_are_what_the_model_leaves_over() {
    let factors = vec![ArrayD::from_elem(vec![3, 1], 1.0), ArrayD::from_elem(vec![4, 1], 2.0)];
    let y = FactoredTensor::from_parts("ir,jr->ij", factors, None).expect("factors");
    let mut data = ArrayD::from_elem(vec![3, 4], 5.0);
    data[[1, 1]] = f64::NAN;
    let dense = Observations::new(&data).nan_missing();
    assert_eq!(y.residual(&dense, &[2, 3]).expect("inside"), 3.0);
    assert!(y.residual(&dense, &[1, 1]).expect("inside").is_nan());
    let list = || {
        CooTensor::new(&[3, 4], &[vec![2, 0, 1], vec![1, 3, 0]], &[7.0, 9.0, 4.0]).expect("inside")
    };
    let stored = Observations::new(list());
    for (index, expected) in [([2, 1], 5.0), ([0, 3], 7.0), ([1, 0], 2.0), ([1, 1], -2.0)] {
        assert_eq!(y.residual(&stored, &index).expect("inside"), expected, "{index:?}");
    }
    let missing = Observations::new(list()).unlisted_missing();
    assert!(y.residual(&missing, &[1, 1]).expect("inside").is_nan());
    assert!(y.residual(&dense, &[3, 0]).is_err());
    assert!(y.residual(&Observations::new(ArrayD::<f64>::zeros(vec![2, 2])), &[0, 0]).is_err());
}

#[test]
fn a_loaded_fit_is_taken_to_new_data_with_its_other_factors_as_they_are() {
    let mut random = Random::new(13);
    let y = random.tensor(&[6, 8], 0.5, 4.0);
    let builder = || {
        NNEinFact::new("ir,jr->ij")
            .expect("a model")
            .device(Device::cpu())
            .precision(Precision::F64)
            .max_iter(20)
    };
    let fit = builder().ranks([('r', 3)]).fit(&y).expect("it fits");
    let folder = tempfile::tempdir().expect("a folder");
    let weighted = fit.normalize(Norm::L1, ScalesInto::Weights).expect("weights");
    for (name, fit) in [("plain", &fit), ("weights", &weighted)] {
        let path = folder.path().join(format!("{name}.npz"));
        fit.save(&path).expect("written");
        let saved = Saved::load(&path).expect("read");
        let new = random.tensor(&[6, 3], 0.5, 4.0);
        let moved = builder()
            .transform_factors(&saved, &["jr"])
            .and_then(|b| b.fit(&new))
            .expect("it fits");
        assert_eq!(moved.factors()[0], fit.factors()[0], "{name}");
        assert_eq!(moved.factors()[1].shape(), [3, 3]);
        let by_mode = builder().transform(&saved, "j").and_then(|b| b.fit(&new)).expect("it fits");
        assert_eq!(by_mode.factors(), moved.factors(), "{name}");
    }
    let saved = Saved::new(&fit);
    let error = builder().transform_factors(&saved, &["kr"]).expect_err("no such factor");
    assert!(error.to_string().contains("ir, jr"), "{error}");
}

/// |min(θ/s, q)| of the entries of a factor of `ir,jr->ij` under KL, from sums written out.
fn kkt_of_kl(y: &ArrayD<f64>, factors: &[ArrayD<f64>]) -> f64 {
    let (a, b) = (&factors[0], &factors[1]);
    let predicted = |i: usize, j: usize| (0..3).map(|r| a[[i, r]] * b[[j, r]]).sum::<f64>();
    let mut most = 0.0f64;
    let largest = |f: &ArrayD<f64>| f.iter().copied().fold(0.0, f64::max);
    for r in 0..3 {
        for i in 0..6 {
            let numerator: f64 = (0..5).map(|j| y[[i, j]] / predicted(i, j) * b[[j, r]]).sum();
            let denominator: f64 = (0..5).map(|j| b[[j, r]]).sum();
            let q = 1.0 - numerator / denominator;
            most = most.max((a[[i, r]] / largest(a)).min(q).abs());
        }
        for j in 0..5 {
            let numerator: f64 = (0..6).map(|i| y[[i, j]] / predicted(i, j) * a[[i, r]]).sum();
            let denominator: f64 = (0..6).map(|i| a[[i, r]]).sum();
            let q = 1.0 - numerator / denominator;
            most = most.max((b[[j, r]] / largest(b)).min(q).abs());
        }
    }
    most
}

#[test]
fn the_kkt_residual_is_what_it_says_and_vanishes_where_a_fit_ends() {
    let mut random = Random::new(44);
    let y = random.tensor(&[6, 5], 0.2, 5.0);
    let start = vec![random.tensor(&[6, 3], 0.2, 1.5), random.tensor(&[5, 3], 0.2, 1.5)];
    let builder = |sweeps: usize| {
        NNEinFact::new("ir,jr->ij")
            .expect("a model")
            .ranks([('r', 3)])
            .device(Device::cpu())
            .precision(Precision::F64)
            .start(nneinfact::fit::Start::Factors(start.clone()))
            .tolerance(0.0)
            .max_iter(sweeps)
            .kkt_residual(true)
    };
    let mut before = f64::INFINITY;
    for sweeps in [0, 20, 4000] {
        let fit = builder(sweeps).fit(&y).expect("it fits");
        let found = fit.history().kkt_residual.expect("asked for");
        let expected = kkt_of_kl(&y, fit.factors());
        assert!((found - expected).abs() < 1e-8, "{sweeps}: {found} {expected}");
        assert!(found < before, "{sweeps}: {found} after {before}");
        before = found;
    }
    assert!(before < 1e-4, "{before}");
    let fit = builder(3).kkt_residual(false).fit(&y).expect("it fits");
    assert_eq!(fit.history().kkt_residual, None);
}
