//! Where fits start: what starts promise, for models of every kind.

use std::sync::Arc;

use crate::common::{CORPUS, Random, array_deviation, entry, settings};
use ndarray::{Array2, ArrayD, Axis, IxDyn};
use nneinfact::data::{CooTensor, Dense};
use nneinfact::fit::{Cancel, Format, Source, Start, StoppedBy};
use nneinfact::model::Shapes;
use nneinfact::reference;
use nneinfact::{Device, Error, Fit, Loss, NNEinFact, Observations, Precision};

/// Models that people have, with shapes that a start can be told from.
const MODELS: [&str; 5] = ["NMF", "CP, 3 modes", "Tucker", "tensor train", "Uber, second"];

/// Only the start.
fn at(settings: NNEinFact, start: Start, data: impl Source) -> Fit {
    settings.start(start).max_iter(0).fit(data).expect("it starts")
}

fn loss(fit: &Fit) -> f64 {
    fit.history().loss[0]
}

/// Low-rank data with a structure that is not that of a constant.
fn planted(shapes: &Shapes, seed: u64) -> ArrayD<f64> {
    let mut random = Random::new(seed);
    let factors: Vec<ArrayD<f64>> = random
        .factors(shapes)
        .into_iter()
        .map(|f| f.mapv(|x| if x < 0.7 { 0.02 * x } else { x * x }))
        .collect();
    let noise = random.tensor(&shapes.data(), 0.9, 1.1);
    reference::predict(shapes, &factors) * noise + 1e-3
}

fn sizes(name: &str) -> Shapes {
    let entry = entry(name);
    entry.shapes(
        &[[14, 12, 10, 8, 9], [30, 25, 0, 0, 0]][usize::from(entry.modes() == 2)][..entry.modes()],
    )
}

fn is_a_start(fit: &Fit, what: &str) {
    for factor in fit.factors() {
        assert!(factor.iter().all(|&x| x > 0.0 && x.is_finite()), "{what}");
    }
}

#[test]
fn random_starts_are_what_they_always_were() {
    // From the generator and the streams of its first version.
    let y = Array2::from_shape_fn((3, 2), |(i, j)| (1 + i + 2 * j) as f64);
    let fit = at(
        NNEinFact::new("ir,jr->ij").expect("a model").ranks([('r', 2)]).seed(7),
        Start::Random,
        &y,
    );
    let uniform = |l: u32, i: u64| {
        let bits = nneinfact::data::uniform_u32(7, 0x5741_5254 + l, i);
        (f64::from(bits) + 0.5) / 4294967296.0
    };
    let a = Array2::from_shape_fn((3, 2), |(i, r)| uniform(0, (2 * i + r) as u64));
    let b = Array2::from_shape_fn((2, 2), |(j, r)| uniform(1, (2 * j + r) as u64));
    let mean = a.dot(&b.t()).mean().expect("entries");
    let scale = (y.mean().expect("entries") / mean).sqrt();
    assert!(array_deviation(&fit.factors()[0], &(a * scale).into_dyn()) < 1e-15);
    assert!(array_deviation(&fit.factors()[1], &(b * scale).into_dyn()) < 1e-15);
}

#[test]
fn every_start_has_the_mean_of_the_data() {
    for (seed, entry) in CORPUS.iter().enumerate() {
        let shapes = entry.shapes(&[6, 5, 4, 3, 4, 3][..entry.modes()]);
        let y = planted(&shapes, seed as u64);
        let mask = Random::new(seed as u64).mask(&shapes.data(), 0.9);
        let observed = Observations::new(&y).mask(&mask).expect("a mask");
        let weight = mask.iter().filter(|&&m| m).count() as f64;
        let mean = y.iter().zip(&mask).filter(|(_, m)| **m).map(|(y, _)| y).sum::<f64>() / weight;
        for start in
            [Start::Random, Start::Gamma { shape: 0.5 }, Start::Gamma { shape: 9.0 }, Start::Svd]
        {
            let what = format!("{}, {start:?}", entry.name);
            let fit = at(settings(&shapes).seed(3), start.clone(), &observed);
            is_a_start(&fit, &what);
            let found = fit.reconstruct().expect("small").mean().expect("entries");
            assert!((found / mean - 1.0).abs() < 1e-12, "{what}: {found} {mean}");
            // The same seed gives the same bits, with any number of threads.
            let one = Device::cpu().threads(1).expect("one");
            let again = at(settings(&shapes).seed(3).device(one), start, &observed);
            assert_eq!(fit.factors(), again.factors(), "{what}");
        }
    }
}

#[test]
fn seeds_differ_and_gamma_has_its_shape() {
    let shapes = entry("NMF").shapes(&[60, 50]);
    let y = planted(&shapes, 1);
    for start in [Start::Random, Start::Gamma { shape: 2.0 }] {
        let [a, b] = [1, 2].map(|seed| at(settings(&shapes).seed(seed), start.clone(), &y));
        assert!(a.factors()[0] != b.factors()[0]);
    }
    for shape in [0.5, 2.0, 20.0] {
        let fit = at(settings(&shapes), Start::Gamma { shape }, &y);
        let all: Vec<f64> = fit.factors().iter().flatten().copied().collect();
        let n = all.len() as f64;
        let mean = all.iter().sum::<f64>() / n;
        let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        // Both factors are scaled alike, so this does not depend on the scale.
        let found = mean * mean / variance;
        assert!((found / shape - 1.0).abs() < 0.35, "{found} for {shape}");
    }
}

#[test]
fn singular_vectors_start_lower_than_random_numbers() {
    for name in MODELS {
        let shapes = sizes(name);
        for seed in 0..5 {
            let y = planted(&shapes, 50 + seed);
            for of in [Loss::euclidean(), Loss::kl()] {
                let go =
                    |start| loss(&at(settings(&shapes).loss(of.clone()).seed(seed), start, &y));
                let (svd, random) = (go(Start::Svd), go(Start::Random));
                assert!(svd < 0.8 * random, "{name}, {}: {svd} {random}", of.name());
            }
        }
    }
}

#[test]
fn a_matrix_of_rank_1_is_found_by_its_singular_vectors() {
    let y = Array2::from_shape_fn((30, 20), |(i, j)| ((i % 7 + 1) * (j % 5 + 2)) as f64);
    let fit = at(
        NNEinFact::new("ir,jr->ij").expect("a model").ranks([('r', 1)]).precision(Precision::F64),
        Start::Svd,
        &y,
    );
    assert!(array_deviation(&fit.reconstruct().expect("small"), &y.into_dyn()) < 1e-10);
    // So are two blocks, up to what fills the zeros.
    let y = Array2::from_shape_fn((30, 20), |(i, j)| match (i < 12, j < 9) {
        (true, true) => 3.0 + (i % 3) as f64,
        (false, false) => 2.0 + (j % 2) as f64,
        _ => 0.0,
    });
    let fit = at(
        NNEinFact::new("ir,jr->ij").expect("a model").ranks([('r', 2)]).precision(Precision::F64),
        Start::Svd,
        &y,
    );
    assert!(array_deviation(&fit.reconstruct().expect("small"), &y.into_dyn()) < 0.05);
}

#[test]
fn a_start_from_singular_vectors_ends_as_well_as_a_random_one() {
    for name in MODELS {
        let shapes = sizes(name);
        let y = planted(&shapes, 7);
        let go = |start| {
            let fit = settings(&shapes).start(start).max_iter(150).fit(&y).expect("it fits");
            fit.history().last_loss()
        };
        let (svd, random) = (go(Start::Svd), go(Start::Random));
        assert!(svd < 2.0 * random, "{name}: {svd} {random}");
    }
}

#[test]
fn data_in_every_form_give_the_same_singular_vectors() {
    for name in ["NMF", "CP, 3 modes", "Tucker", "Uber, second"] {
        let shapes = sizes(name);
        let mut random = Random::new(4);
        let y = planted(&shapes, 11)
            .mapv(|x| if random.uniform() < 0.8 { 0.0 } else { (9.0 * x).ceil() });
        let shape = shapes.data();
        let mut indices = vec![Vec::new(); shape.len()];
        let mut values = Vec::new();
        for (at, &x) in y.indexed_iter().filter(|(_, x)| **x != 0.0) {
            let at = ndarray::Dimension::slice(&at);
            indices.iter_mut().zip(at).for_each(|(list, &i)| list.push(i as u64));
            values.push(x);
        }
        let list = Arc::new(CooTensor::new(&shape, &indices, &values).expect("coordinates"));
        let fortran = y.t().as_standard_layout().into_owned().reversed_axes();
        let mask = random.mask(&shape, 0.3);
        let of = |observations: Observations, split: usize| {
            let mut o = observations;
            if split & 1 == 1 {
                o = o.held_out(0.2, 1).expect("a split");
            }
            if split & 2 == 2 {
                o = o.mask(&mask).expect("a mask");
            }
            o
        };
        for split in 0..4 {
            let go = |observations: Observations, form: Format| {
                at(settings(&shapes).data_as(form), Start::Svd, of(observations, split))
                    .reconstruct()
                    .expect("small")
            };
            let dense = go(Observations::new(&y), Format::Dense);
            let others = [
                go(Observations::new(&fortran), Format::Dense),
                go(Observations::new(&y), Format::Sparse),
                go(Observations::new(Arc::clone(&list)), Format::Sparse),
                go(Observations::new(Arc::clone(&list)), Format::Dense),
            ];
            for (form, other) in others.iter().enumerate() {
                let apart = array_deviation(other, &dense);
                assert!(apart < 1e-6, "{name}, split {split}, form {form}: {apart:e}");
            }
        }
        // Listed cells only.
        let go = |observations: Observations, form: Format| {
            at(settings(&shapes).data_as(form), Start::Svd, &observations)
                .reconstruct()
                .expect("small")
        };
        let nan = y.mapv(|x| if x == 0.0 { f64::NAN } else { x });
        let dense = go(Observations::new(&nan).nan_missing(), Format::Dense);
        let sparse = go(Observations::new(Arc::clone(&list)).unlisted_missing(), Format::Sparse);
        let apart = array_deviation(&sparse, &dense);
        assert!(apart < 1e-6, "{name}: {apart:e}");
    }
}

#[test]
fn withheld_cells_do_not_tell_the_start_anything() {
    let shapes = sizes("CP, 3 modes");
    let y = planted(&shapes, 3);
    let mask = Random::new(5).mask(&shapes.data(), 0.7);
    let mut other = y.clone();
    other.zip_mut_with(&mask, |x, &m| {
        if !m {
            *x = 1e6;
        }
    });
    let start = |y: &ArrayD<f64>, held: bool| {
        let observations = match held {
            true => Observations::new(y).held_out_mask(&mask.mapv(|m| !m)).expect("a mask"),
            false => Observations::new(y).mask(&mask).expect("a mask"),
        };
        at(settings(&shapes), Start::Svd, &observations)
    };
    // The largest value is that of training cells.
    let plain = start(&y, false);
    for held in [false, true] {
        assert_eq!(start(&other, held).factors(), plain.factors());
    }
    // With a third of the cells missing the start is still far below a random one.
    let random =
        at(settings(&shapes), Start::Random, Observations::new(&y).mask(&mask).expect("a mask"));
    assert!(loss(&plain) < 0.8 * loss(&random));
}

#[test]
fn large_matrices_go_through_subspace_iterations() {
    // Sides above and below what a Gram matrix, and all its eigenvectors, are computed for.
    for (rows, columns) in [(900, 700), (2300, 2200), (40, 3000), (3000, 40)] {
        let y = Array2::from_shape_fn((rows, columns), |(i, j)| {
            let block =
                |a: usize, b: usize| f64::from(u8::from(i * 3 / rows == a && j * 3 / columns == b));
            4.0 * block(0, 0)
                + 3.0 * block(1, 1)
                + 2.0 * block(2, 2)
                + ((i * 7 + j * 5) % 11) as f64 * 0.01
        });
        let settings = || {
            NNEinFact::new("ir,jr->ij")
                .expect("a model")
                .ranks([('r', 3)])
                .loss(Loss::euclidean())
                .device(Device::cpu())
        };
        let svd = loss(&at(settings(), Start::Svd, &y));
        let random = loss(&at(settings(), Start::Random, &y));
        assert!(svd < 0.02 * random, "{rows} × {columns}: {svd} {random}");
    }
}

#[test]
fn ranks_beyond_the_data_and_data_without_any_structure() {
    // More components than singular vectors; one vector only; zeros everywhere.
    for (shape, rank) in [([3, 4], 9), ([1, 6], 4), ([6, 1], 4), ([1, 1], 2)] {
        let shapes =
            Shapes::new(&entry("NMF").shapes(&[2, 2]).model().clone(), &shape, &[('r', rank)])
                .expect("sizes");
        for y in [ArrayD::from_elem(IxDyn(&shape), 2.0), ArrayD::zeros(IxDyn(&shape))] {
            let fit = at(settings(&shapes), Start::Svd, &y);
            is_a_start(&fit, &format!("{shape:?}"));
            // Components differ, or no update could tell them apart.
            let columns: Vec<Vec<f64>> = (0..rank)
                .map(|r| {
                    let of = |f: &ArrayD<f64>| f.index_axis(Axis(1), r).to_owned();
                    fit.factors().iter().flat_map(of).collect()
                })
                .collect();
            let twice = (0..rank).any(|r| columns[..r].contains(&columns[r]));
            assert!(!twice || shape == [1, 1], "{shape:?}: {columns:?}");
        }
    }
}

#[test]
fn extreme_units_do_not_matter() {
    let shapes = sizes("Tucker");
    let y = planted(&shapes, 2);
    let plain = at(settings(&shapes), Start::Svd, &y).reconstruct().expect("small");
    for unit in [1e-180, 1e180] {
        let scaled = y.mapv(|x| x * unit);
        let fit = at(settings(&shapes), Start::Svd, &scaled).reconstruct().expect("small");
        assert!(array_deviation(&(fit / unit), &plain) < 1e-6, "{unit:e}");
    }
}

#[test]
fn losses_on_odds_start_at_the_odds() {
    let shapes = sizes("NMF");
    let y = planted(&shapes, 8).mapv(|x| f64::from(u8::from(x > 0.3)));
    let mean = y.mean().expect("entries");
    let fit = at(settings(&shapes).loss(Loss::bernoulli()), Start::Svd, &y);
    let found = fit.reconstruct().expect("small").mean().expect("entries");
    assert!((found / (mean / (1.0 - mean)) - 1.0).abs() < 1e-12);
}

#[test]
fn a_grown_start_is_nearly_the_fit_that_it_comes_from() {
    for name in ["NMF", "CP, 3 modes", "Tucker", "tensor train", "Uber, second", "low-rank Tucker"]
    {
        let entry = entry(name);
        let large = entry.shapes(&[9, 8, 7, 6, 5][..entry.modes()]);
        let less: Vec<_> = entry.ranks.iter().map(|&(x, n)| (x, n - 1)).collect();
        let small = Shapes::new(large.model(), &large.data(), &less).expect("sizes");
        let y = planted(&large, 21);
        let mask = Random::new(2).mask(&large.data(), 0.85);
        let observations = Observations::new(&y).mask(&mask).expect("a mask");
        for of in [Loss::kl(), Loss::euclidean()] {
            let fitted =
                settings(&small).loss(of.clone()).max_iter(60).fit(&observations).expect("it fits");
            let factors = fitted.factors().to_vec();
            let start = Start::Grown(factors.clone());
            let grown = at(settings(&large).loss(of.clone()).seed(4), start.clone(), &observations);
            // Exact steps under Euclid reach 0.
            let kept = |x: &f64| *x >= 0.0 && x.is_finite();
            assert!(grown.factors().iter().flatten().all(kept), "{name}");
            let (before, after) = (fitted.history().last_loss(), loss(&grown));
            assert!((after / before - 1.0).abs() < 0.05, "{name}, {}: {before} {after}", of.name());
            // What was there stays as it was.
            for (new, old) in grown.factors().iter().zip(&factors) {
                assert!(old.indexed_iter().all(|(at, x)| new[&at] == *x), "{name}");
            }
            // And the fit goes on from there to something better.
            let on = settings(&large).loss(of.clone()).start(start).max_iter(60);
            let better = on.fit(&observations).expect("it fits").history().last_loss();
            assert!(better < before, "{name}: {better} {before}");
            // Without new indices it is the fit itself.
            let same =
                at(settings(&small).loss(of.clone()), Start::Grown(factors.clone()), &observations);
            assert_eq!(same.factors(), factors, "{name}");
        }
    }
}

#[test]
fn growth_is_small_also_where_scales_differ() {
    // The means of these factors say nothing of single components.
    let small = entry("NMF").shapes(&[8, 6]);
    let mut factors = Random::new(6).factors(&small);
    for (r, scale) in [1e6, 1.0, 1e-6].into_iter().enumerate() {
        factors[0].index_axis_mut(Axis(1), r).mapv_inplace(|x| x * scale);
        factors[1].index_axis_mut(Axis(1), r).mapv_inplace(|x| x / scale);
    }
    let y = reference::predict(&small, &factors);
    let large = Shapes::new(small.model(), &[8, 6], &[('r', 5)]).expect("sizes");
    let grown = at(settings(&large), Start::Grown(factors), &y);
    let sum = grown.reconstruct().expect("small").sum();
    assert!(sum > y.sum() && sum <= 1.01 * y.sum(), "{sum} {}", y.sum());
}

#[test]
fn bad_input_is_refused() {
    let shapes = entry("Tucker").shapes(&[5, 4, 6]);
    let y = planted(&shapes, 1);
    let refused =
        |start: Start| settings(&shapes).start(start).max_iter(0).fit(&y).expect_err("refused");
    for shape in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = refused(Start::Gamma { shape });
        assert!(matches!(&error, Error::Setting(m) if m.contains(&shape.to_string())), "{error}");
    }
    let good = Random::new(1).factors(&shapes);
    let grown = |change: &dyn Fn(&mut Vec<ArrayD<f64>>)| {
        let mut factors = good.clone();
        change(&mut factors);
        refused(Start::Grown(factors)).to_string()
    };
    let says = |error: String, parts: &[&str]| {
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    says(grown(&|f| drop(f.pop())), &["3 factors", "has 4"]);
    // ic,je,af,cef->ija with c = 2, e = 3, f = 2
    says(grown(&|f| f[0] = ArrayD::ones(IxDyn(&[5, 3]))), &["theta_1", "letter c", "rank is 2"]);
    says(
        grown(&|f| f[0] = ArrayD::ones(IxDyn(&[5, 1]))),
        &["theta_4", "letter c", "theta_1 has 1"],
    );
    says(grown(&|f| f[0] = ArrayD::ones(IxDyn(&[6, 2]))), &["theta_1", "[6, 2]", "5 along i"]);
    says(grown(&|f| f[0] = ArrayD::ones(IxDyn(&[5]))), &["theta_1", "2 axes", "ic"]);
    says(grown(&|f| f[0] = ArrayD::ones(IxDyn(&[5, 0]))), &["theta_1", "0 indices", "letter c"]);
    says(grown(&|f| f[1][[2, 1]] = -1.0), &["theta_2", "-1", "[2, 1]"]);
    says(grown(&|f| f[1][[2, 1]] = f64::NAN), &["theta_2", "NaN"]);
    says(grown(&|f| f[2].fill(0.0)), &["theta_3", "zero"]);
}

#[test]
fn a_start_from_the_data_is_not_finished_for_a_fit_that_was_cancelled() {
    let cancel = Cancel::new();
    cancel.cancel();
    for name in ["NMF", "CP, 3 modes", "Tucker"] {
        let shapes = sizes(name);
        let y = planted(&shapes, 4);
        let whole = at(settings(&shapes), Start::Svd, &y);
        let cut = settings(&shapes).start(Start::Svd).cancel(&cancel).fit(&y).expect("it starts");
        assert_eq!(cut.history().stopped_by, StoppedBy::Interrupted, "{name}");
        assert_eq!(cut.history().iterations, 0, "{name}");
        // A start like any other, but not from the data.
        assert!(cut.factors().iter().flatten().all(|&x| x > 0.0 && x.is_finite()), "{name}");
        assert!(loss(&cut) > loss(&whole), "{name}: {} {}", loss(&cut), loss(&whole));
    }
}

#[test]
fn data_that_stay_in_a_file_are_refused_by_the_start_that_needs_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("y.npy");
    let shapes = entry("NMF").shapes(&[30, 25]);
    let y = planted(&shapes, 1);
    nneinfact::io::write_npy(&path, &y).expect("written");
    let mapped: Arc<Dense> = Arc::new(nneinfact::io::map_npy(&path).expect("mapped"));
    let error = settings(&shapes).start(Start::Svd).fit(Arc::clone(&mapped)).expect_err("refused");
    assert!(matches!(&error, Error::Unsupported(m) if m.contains("memory")), "{error}");
    assert!(error.is_input());
    at(settings(&shapes), Start::Gamma { shape: 1.0 }, mapped);
}
