//! Normalised, sorted and dropped components: the numbers change, ŷ does not.

mod common;

use common::{CORPUS, Random, array_deviation, entry};
use ndarray::{ArrayD, Axis, Slice};
use nneinfact::fit::{Norm, ScalesInto, Start};
use nneinfact::model::{Index, ModelError, Shapes};
use nneinfact::reference;
use nneinfact::{Device, Error, Fit, NNEinFact, Observations, Precision};

const NORMS: [Norm; 3] = [Norm::L1, Norm::L2, Norm::Max];

/// A fit that returns these factors as they are.
fn fit_of(shapes: &Shapes, factors: Vec<ArrayD<f64>>) -> Fit {
    let model = shapes.model();
    let ranks: Vec<_> = model.latent().iter().map(|x| (char::from(x), shapes.size(x))).collect();
    let y = reference::predict(shapes, &factors);
    NNEinFact::new(model.text())
        .expect("a model")
        .ranks(ranks)
        .device(Device::cpu())
        .precision(Precision::F64)
        .factor_floor(0.0)
        .start(Start::Factors(factors))
        .max_iter(0)
        .fit(&y)
        .expect("it fits")
}

fn random_fit(name: &str, seed: u64) -> Fit {
    let entry = entry(name);
    let shapes = entry.shapes(&[5, 4, 6, 3, 4, 3][..entry.modes()]);
    let factors = Random::new(seed).factors(&shapes);
    fit_of(&shapes, factors)
}

/// How far apart two fits' ŷ are, relative to its largest entry; predictions of single entries too.
fn apart(a: &Fit, b: &Fit) -> f64 {
    let (a_all, b_all) = (a.reconstruct().expect("small"), b.reconstruct().expect("small"));
    let last: Vec<usize> = a.shapes().data().iter().map(|n| n - 1).collect();
    let single = (b.predict(&last).expect("inside") / a_all[last.as_slice()] - 1.0).abs();
    array_deviation(&b_all, &a_all).max(single)
}

/// The norms of a factor's columns.
fn norms(fit: &Fit, l: usize, norm: Norm) -> Vec<f64> {
    let observed = fit.model().observed();
    let mut columns = fit.factors()[l].mapv(|x| match norm {
        Norm::L2 => x * x,
        _ => x,
    });
    for axis in (0..columns.ndim()).rev() {
        if observed.contains(fit.model().factors()[l][axis]) {
            columns = columns.fold_axis(Axis(axis), 0.0, |&a: &f64, &x| match norm {
                Norm::Max => a.max(x),
                _ => a + x,
            });
        }
    }
    columns.iter().map(|x| if norm == Norm::L2 { x.sqrt() } else { *x }).collect()
}

fn has_all_latent(fit: &Fit, l: usize) -> bool {
    fit.model().latent().iter().all(|x| fit.model().factors()[l].contains(&x))
}

#[test]
fn normalised_factors_have_the_norm_and_the_same_predictions() {
    for (seed, entry) in CORPUS.iter().enumerate() {
        let fit = random_fit(entry.name, seed as u64);
        let count = fit.factors().len();
        for norm in NORMS {
            let mut into = vec![(None, ScalesInto::Weights)];
            for l in (0..count).filter(|&l| has_all_latent(&fit, l)) {
                into.push((Some(l), ScalesInto::Factor(format!("theta_{}", l + 1))));
            }
            for (target, into) in into {
                let what = format!("{}, {norm}, {into:?}", entry.name);
                let normal = fit.normalize(norm, into).expect("it normalises");
                assert!(apart(&fit, &normal) < 1e-12, "{what}");
                assert_eq!(normal.weights().is_some(), target.is_none(), "{what}");
                for l in (0..count).filter(|&l| Some(l) != target) {
                    let off =
                        norms(&normal, l, norm).iter().map(|n| (n - 1.0).abs()).fold(0.0, f64::max);
                    assert!(off < 1e-12, "{what}, theta_{}: {off:e}", l + 1);
                }
                // Once more, from weights into wherever they can go.
                for l in (0..count).filter(|&l| has_all_latent(&fit, l)) {
                    let into = ScalesInto::Factor(format!("theta_{}", l + 1));
                    let again = normal.normalize(Norm::Max, into).expect("it normalises");
                    assert!(again.weights().is_none() && apart(&fit, &again) < 1e-12, "{what}");
                }
                let again = normal.normalize(Norm::L2, ScalesInto::Weights).expect("it does");
                assert!(apart(&fit, &again) < 1e-12, "{what}");
            }
        }
    }
}

#[test]
fn weights_of_cp_are_the_masses_and_a_core_is_absorbed() {
    let fit = random_fit("CP, 3 modes", 5);
    let normal = fit.normalize(Norm::L1, ScalesInto::Weights).expect("it normalises");
    let weights = normal.weights().expect("asked for");
    assert_eq!(weights.shape(), [3]);
    let masses = fit.component_weights('r').expect("latent");
    for (w, m) in weights.iter().zip(&masses) {
        assert!((w / m - 1.0).abs() < 1e-12, "{w} {m}");
    }

    let fit = random_fit("Tucker", 6);
    let normal = fit.normalize(Norm::L2, ScalesInto::Weights).expect("it normalises");
    assert_eq!(normal.weights().expect("asked for").shape(), [2, 3, 2]);
    assert!(normal.factors()[3].iter().all(|&x| x == 1.0));
}

#[test]
fn axes_of_weights_are_in_the_order_of_the_alphabet() {
    // Letters whose order in the model is not that of the alphabet, capitals included.
    let model = nneinfact::model::Model::parse("iz,jA,kc,Azc->ijk").expect("a model");
    let shapes = Shapes::new(&model, &[4, 3, 5], &[('z', 2), ('A', 3), ('c', 4)]).expect("sizes");
    let fit = fit_of(&shapes, Random::new(8).factors(&shapes));
    let normal = fit.normalize(Norm::L1, ScalesInto::Weights).expect("it normalises");
    assert_eq!(normal.weights().expect("asked for").shape(), [3, 4, 2]);
    assert!(apart(&fit, &normal) < 1e-12);
    assert!(apart(&fit, &normal.sorted()) < 1e-12);
    let letters: Vec<char> = model.latent().iter().map(char::from).collect();
    assert_eq!(letters, ['A', 'c', 'z']);
}

#[test]
fn columns_of_zeros_stay() {
    for name in ["NMF", "CP, 3 modes", "Tucker", "tensor train", "Uber, second"] {
        let entry = entry(name);
        let shapes = entry.shapes(&[5, 4, 6, 3, 4][..entry.modes()]);
        let mut factors = Random::new(9).factors(&shapes);
        let axis = factors[0].ndim() - 1;
        factors[0].index_axis_mut(Axis(axis), 1).fill(0.0);
        let fit = fit_of(&shapes, factors);
        for norm in NORMS {
            let normal = fit.normalize(norm, ScalesInto::Weights).expect("it normalises");
            assert!(apart(&fit, &normal) < 1e-12, "{name}");
            assert!(normal.factors()[0].index_axis(Axis(axis), 1).iter().all(|&x| x == 0.0));
            assert!(normal.weights().expect("asked for").iter().any(|&w| w == 0.0), "{name}");
        }
    }
}

#[test]
fn norms_neither_overflow_nor_vanish() {
    let shapes = entry("NMF").shapes(&[5, 4]);
    for scale in [1e-250, 1e250] {
        let mut factors = Random::new(10).factors(&shapes);
        factors[0] *= scale;
        factors[1] /= scale;
        let fit = fit_of(&shapes, factors);
        for norm in NORMS {
            let normal = fit.normalize(norm, ScalesInto::Weights).expect("it normalises");
            assert!(apart(&fit, &normal) < 1e-12, "{scale:e}, {norm}");
        }
    }
}

#[test]
fn component_weights_are_parts_of_the_sum() {
    for entry in CORPUS {
        let fit = random_fit(entry.name, 3);
        let total = fit.reconstruct().expect("small").sum();
        for letter in fit.model().latent().iter() {
            let weights = fit.component_weights(letter.into()).expect("latent");
            assert_eq!(weights.len(), fit.shapes().size(letter));
            let off = (weights.iter().sum::<f64>() / total - 1.0).abs();
            assert!(off < 1e-12, "{}, {letter}: {off:e}", entry.name);
            // Against ŷ without that index.
            for (index, &weight) in weights.iter().enumerate() {
                let mut without = fit.factors().to_vec();
                for (factor, letters) in without.iter_mut().zip(fit.model().factors()) {
                    if let Some(axis) = letters.iter().position(|&x| x == letter) {
                        factor.index_axis_mut(Axis(axis), index).fill(0.0);
                    }
                }
                let rest = reference::predict(fit.shapes(), &without).sum();
                assert!((weight - (total - rest)).abs() < 1e-11 * total, "{}", entry.name);
            }
        }
        // Normalising changes nothing of it.
        let normal = fit.normalize(Norm::Max, ScalesInto::Weights).expect("it normalises");
        for letter in fit.model().latent().iter() {
            let before = fit.component_weights(letter.into()).expect("latent");
            let after = normal.component_weights(letter.into()).expect("latent");
            assert!(before.iter().zip(&after).all(|(b, a)| (a / b - 1.0).abs() < 1e-12));
        }
    }
}

#[test]
fn sorted_components_descend() {
    for (seed, entry) in CORPUS.iter().enumerate() {
        let fit = random_fit(entry.name, 100 + seed as u64);
        let normal = fit.normalize(Norm::L1, ScalesInto::Weights).expect("it normalises");
        for fit in [fit, normal] {
            let sorted = fit.sorted();
            assert!(apart(&fit, &sorted) < 1e-12, "{}", entry.name);
            assert_eq!(sorted.shapes(), fit.shapes());
            for letter in fit.model().latent().iter() {
                let weights = sorted.component_weights(letter.into()).expect("latent");
                assert!(weights.is_sorted_by(|a, b| a >= b), "{}: {weights:?}", entry.name);
            }
            // Entries are permuted and not touched.
            let sum = |fit: &Fit| {
                let mut all: Vec<f64> = fit.factors().iter().flatten().copied().collect();
                all.sort_by(f64::total_cmp);
                all
            };
            assert_eq!(sum(&fit), sum(&sorted), "{}", entry.name);
        }
    }
}

#[test]
fn equal_components_keep_their_order() {
    let shapes = entry("NMF").shapes(&[3, 3]);
    let theta_1 = ndarray::array![[1.0, 3.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]];
    let theta_2 = ndarray::array![[1.0, 1.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]];
    let fit = fit_of(&shapes, vec![theta_1.clone().into_dyn(), theta_2.into_dyn()]);
    assert_eq!(fit.component_weights('r').expect("latent"), [1.0, 3.0, 1.0]);
    let sorted = fit.sorted();
    assert_eq!(sorted.factors()[0], theta_1.select(Axis(1), &[1, 0, 2]).into_dyn());
}

#[test]
fn empty_components_go() {
    for name in ["NMF", "CP, 3 modes", "Tucker", "tensor train", "Uber, second", "tensor ring"] {
        let fit = random_fit(name, 12);
        let model = fit.model().clone();
        // One component more of each letter, of zeros in one factor and dust in the others.
        let mut ranks = Vec::new();
        for letter in model.latent().iter() {
            ranks.push((char::from(letter), fit.shapes().size(letter) + 1));
        }
        let wide = Shapes::new(&model, &fit.shapes().data(), &ranks).expect("sizes");
        let mut seen = Vec::new();
        let factors: Vec<ArrayD<f64>> = (0..fit.factors().len())
            .map(|l| {
                let letters = &model.factors()[l];
                let mut wider = ArrayD::from_elem(wide.factor(l), 1e-3);
                let small = fit.factors()[l].shape().to_vec();
                wider
                    .slice_each_axis_mut(|axis| Slice::from(..small[axis.axis.index()]))
                    .assign(&fit.factors()[l]);
                for (axis, &letter) in letters.iter().enumerate() {
                    if model.latent().contains(letter) && !seen.contains(&letter) {
                        seen.push(letter);
                        wider.index_axis_mut(Axis(axis), small[axis]).fill(0.0);
                    }
                }
                wider
            })
            .collect();
        let wide = fit_of(&wide, factors);
        for threshold in [0.0, Fit::EMPTY] {
            let narrow = wide.without_empty(threshold).expect("it drops them");
            assert_eq!(narrow.shapes(), fit.shapes(), "{name}");
            assert_eq!(narrow.factors(), fit.factors(), "{name}");
            // The plan is the one that was carried out.
            assert_eq!(narrow.plan().shapes(), wide.shapes());
            assert!(apart(&wide, &narrow) < 1e-12, "{name}");
        }
        let normal = wide.normalize(Norm::L1, ScalesInto::Weights).expect("it normalises");
        let narrow = normal.without_empty(Fit::EMPTY).expect("it drops them");
        assert_eq!(narrow.shapes(), fit.shapes(), "{name}");
        let sizes: Vec<usize> = model.latent().iter().map(|x| fit.shapes().size(x)).collect();
        assert_eq!(narrow.weights().expect("kept").shape(), sizes);
        assert!(apart(&wide, &narrow) < 1e-12, "{name}");
    }
}

#[test]
fn what_is_dropped_is_bounded_and_one_component_stays() {
    let fit = random_fit("CP, 3 modes", 14);
    let weights = fit.component_weights('r').expect("latent");
    let max = weights.iter().copied().fold(0.0, f64::max);
    let min = weights.iter().copied().fold(f64::INFINITY, f64::min);
    let threshold = 0.5 * (min + max) / max;
    let kept: Vec<usize> = (0..3).filter(|&r| weights[r] > threshold * max).collect();
    assert!(kept.len() < 3);
    let narrow = fit.without_empty(threshold).expect("it drops some");
    for (n, f) in narrow.factors().iter().zip(fit.factors()) {
        assert_eq!(n, &f.select(Axis(1), &kept));
    }
    let (before, after) = (fit.reconstruct().expect("small"), narrow.reconstruct().expect("small"));
    assert!(before.iter().zip(&after).all(|(b, a)| *a <= b * (1.0 + 1e-15)));
    assert!(before.sum() - after.sum() <= threshold * before.sum() * (3 - kept.len()) as f64);

    // Factors that are not zero, and a product that is.
    let shapes = entry("NMF").shapes(&[3, 2]);
    let mut factors = Random::new(15).factors(&shapes);
    factors[0]
        .slice_each_axis_mut(|a| Slice::from(if a.axis.index() == 1 { 0..2 } else { 0..3 }))
        .fill(0.0);
    factors[1].index_axis_mut(Axis(1), 2).fill(0.0);
    let fit = fit_of(&shapes, factors);
    let narrow = fit.without_empty(0.0).expect("it drops all but one");
    assert_eq!(narrow.shapes().size(Index::new('r').expect("a letter")), 1);
    assert!(narrow.reconstruct().expect("small").iter().all(|&y| y == 0.0));
}

#[test]
fn real_fits_keep_their_loss() {
    // With a mask and a rank that is too high for the data.
    let mut random = Random::new(21);
    let true_shapes = entry("CP, 3 modes").shapes(&[9, 8, 7]);
    let y = reference::predict(&true_shapes, &random.factors(&true_shapes));
    let mask = random.mask(&[9, 8, 7], 0.8);
    let observations = Observations::new(&y).mask(&mask).expect("a mask");
    let fit = NNEinFact::new("ir,jr,kr->ijk")
        .expect("a model")
        .ranks([('r', 6)])
        .device(Device::cpu())
        .max_iter(200)
        .fit(&observations)
        .expect("it fits");
    let tidy = fit
        .without_empty(Fit::EMPTY)
        .and_then(|fit| fit.sorted().normalize(Norm::L2, ScalesInto::Factor("kr".into())))
        .expect("it tidies");
    assert!(apart(&fit, &tidy) < 1e-11);
    assert_eq!(tidy.history(), fit.history());
}

#[test]
fn bad_input_is_refused() {
    let fit = random_fit("CP with a factored mode", 1);
    let error = |into: &str| {
        let refused = fit.normalize(Norm::L1, ScalesInto::Factor(into.into()));
        refused.expect_err("refused").to_string()
    };
    // ir,jr,ak,kr,tr->ijat
    let lacks = error("ir");
    for said in ["theta_1 (ir)", "latent letter k", "ak, kr"] {
        assert!(lacks.contains(said), "{lacks}");
    }
    assert!(fit.normalize(Norm::L1, ScalesInto::Factor("kr".into())).is_ok());
    let unknown = error("rk");
    assert!(unknown.contains("rk") && unknown.contains("ir, jr, ak, kr, tr"), "{unknown}");
    assert!(error("theta_6").contains("theta_6"));
    assert!(error("").contains("ir, jr, ak, kr, tr"));

    for bad in ['i', 'x', '1', 'é'] {
        let error = fit.component_weights(bad).expect_err("refused");
        assert!(matches!(error, Error::Model(ModelError::NotLatent { index, .. }) if index == bad));
        let said = error.to_string();
        assert!(said.contains("k, r") && said.contains(bad), "{said}");
    }
    for bad in [-1e-3, 1.0, 2.0, f64::NAN, f64::INFINITY] {
        let error = fit.without_empty(bad).expect_err("refused");
        assert!(matches!(&error, Error::Setting(m) if m.contains(&bad.to_string())), "{error}");
    }
    // No factor has a, b and c, so only weights can take all scales.
    let train = random_fit("tensor train, 4 modes", 2);
    assert!(train.normalize(Norm::L1, ScalesInto::Weights).is_ok());
    let lacks = train.normalize(Norm::L1, ScalesInto::Factor("bkc".into())).expect_err("refused");
    assert!(lacks.to_string().contains("latent letter a"), "{lacks}");
    assert!(matches!(
        ScalesInto::Factor("ia".into()).check(train.model()),
        Err(Error::Setting(m)) if m.contains("letters b, c")
    ));
}

#[test]
fn two_factors_of_the_same_letters_are_told_apart() {
    let model = nneinfact::model::Model::parse("ir,ir,jr->ij").expect("a model");
    let shapes = Shapes::new(&model, &[4, 3], &[('r', 2)]).expect("sizes");
    let fit = fit_of(&shapes, Random::new(30).factors(&shapes));
    let error = fit.normalize(Norm::L1, ScalesInto::Factor("ir".into())).expect_err("refused");
    assert!(error.to_string().contains("theta_1, theta_2"), "{error}");
    let normal = fit.normalize(Norm::L1, ScalesInto::Factor("theta_2".into())).expect("it does");
    assert!(apart(&fit, &normal) < 1e-12);
    assert!(norms(&normal, 0, Norm::L1).iter().all(|n| (n - 1.0).abs() < 1e-12));
}
