//! Data far from 1, of which neither single precision nor powers in double precision hold the numbers: fits that
//! are those of the same data near 1, or a refusal that says what helps.

use ndarray::{Array2, ArrayD, Ix2};
use nneinfact::fit::{Checkpoint, Every, Format};
use nneinfact::{Device, Error, Fit, Loss, NNEinFact, Precision};

/// Positive numbers with a structure of rank 2 and something on top.
fn data() -> Array2<f64> {
    Array2::from_shape_fn((12, 9), |(i, j)| {
        let structure = (1 + i % 4) as f64 * (1 + j % 3) as f64 + (i / 6 * (j % 2)) as f64;
        structure + 0.25 * ((i * 5 + j * 7) % 6) as f64 + 0.5
    })
}

fn nmf(loss: &Loss, precision: Precision) -> NNEinFact {
    NNEinFact::new("ir,jr->ij")
        .expect("a model")
        .ranks([('r', 2)])
        .loss(loss.clone())
        .device(Device::cpu())
        .precision(precision)
        .max_iter(60)
        .tolerance(0.0)
}

fn homogeneous() -> Vec<Loss> {
    let member = |a, b| Loss::alpha_beta(a, b).expect("a member of the family");
    vec![
        Loss::kl(),
        Loss::euclidean(),
        Loss::itakura_saito(),
        Loss::hellinger(),
        Loss::reverse_kl(),
        Loss::neyman(),
        Loss::pearson(),
        Loss::jensen_shannon(),
        Loss::alpha(-0.5).expect("a member of the family"),
        Loss::beta(0.5).expect("a member of the family"),
        Loss::beta(-1.0).expect("a member of the family"),
        Loss::tweedie(1.5).expect("a member of the family"),
        member(0.7, 0.0),
        member(1.3, 1.0),
    ]
}

/// The largest difference of ŷ from that of `plain`, in parts of its largest entry, once the scale is taken out.
fn apart(moved: &Fit, plain: &Fit, exponent: i32) -> f64 {
    let half = |factor: &ArrayD<f64>, e: i32| {
        let steps = [e / 2, e - e / 2].map(|e| 2f64.powi(-e));
        let factor = factor.mapv(|x| x * steps[0] * steps[1]);
        factor.into_dimensionality::<Ix2>().expect("a matrix")
    };
    let product = |fit: &Fit, e: i32| {
        let (w, h) = (half(&fit.factors()[0], e / 2), half(&fit.factors()[1], e - e / 2));
        w.dot(&h.t())
    };
    let (moved, plain) = (product(moved, exponent), product(plain, 0));
    let largest = plain.iter().copied().fold(0.0, f64::max);
    let difference = (&moved - &plain).iter().fold(0.0f64, |most, x| most.max(x.abs()));
    if moved.iter().all(|x| x.is_finite()) { difference / largest } else { f64::INFINITY }
}

#[test]
fn a_scale_that_is_free_changes_nothing() {
    let y = data();
    for loss in homogeneous() {
        let degree = loss.homogeneity().expect("a degree");
        for precision in [Precision::F32, Precision::F64] {
            for form in [Format::Dense, Format::Sparse] {
                let fit = |exponent: i32| {
                    let moved = y.mapv(|x| x * 2f64.powi(exponent));
                    nmf(&loss, precision).data_as(form).fit(&moved)
                };
                let plain = fit(0).expect("it fits");
                for exponent in [-997, -700, -332, -133, -100, 100, 133, 332, 700, 997] {
                    let what = format!("{} {precision:?} {form:?} 2^{exponent}", loss.name());
                    match fit(exponent) {
                        Ok(moved) => {
                            let found = apart(&moved, &plain, exponent);
                            // In single precision rounding can turn over one decision of the extrapolation's
                            // guard, after which a fit goes another way by a thousandth.
                            let most = if precision == Precision::F64 { 1e-9 } else { 3e-3 };
                            assert!(found < most, "{what}: {found:e}");
                            let losses = [&moved, &plain].map(|fit| fit.history().last_loss());
                            let scale = 2f64.powf(degree * f64::from(exponent) / 2.0);
                            let ratio = losses[0] / scale / losses[1] / scale;
                            assert!((ratio - 1.0).abs() < 1e-3, "{what}: {losses:?}");
                        }
                        // The loss itself is beyond double precision.
                        Err(error) => {
                            let size = (degree * f64::from(exponent)).abs();
                            assert!(size > 1000.0, "{what}: {error}");
                            assert!(matches!(error, Error::Observations(_)), "{what}: {error}");
                            let text = error.to_string();
                            assert!(text.contains("multiply the data by 2^"), "{what}: {text}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn one_factor_may_be_of_its_own_size() {
    let y = data();
    let w = Array2::from_shape_fn((12, 2), |(i, r)| (1 + (i + 2 * r) % 4) as f64);
    for (factor, first) in [("ir", true), ("jr", false)] {
        let (model, data) = match first {
            true => ("ir,jr->ij", y.clone()),
            false => ("ir,jr->ij", y.t().to_owned()),
        };
        for loss in [Loss::kl(), Loss::euclidean(), Loss::itakura_saito()] {
            let fit = |scale: f64| {
                let settings = NNEinFact::new(model).expect("a model").ranks([('r', 2)]);
                let settings = settings.fix(factor, w.clone()).loss(loss.clone());
                let settings = settings.device(Device::cpu()).max_iter(80).tolerance(0.0);
                settings.fit(&data.mapv(|x| x * scale)).expect("it fits")
            };
            let free = usize::from(first);
            let plain = fit(1.0);
            for exponent in [-400, -332, -133, 133, 332, 400] {
                let moved = fit(2f64.powi(exponent));
                let (a, b) = (&moved.factors()[free], &plain.factors()[free]);
                let scale = 2f64.powi(-exponent);
                let most = b.iter().copied().fold(0.0, f64::max);
                let apart =
                    a.iter().zip(b).fold(0.0f64, |m, (x, y)| m.max((x * scale - y).abs() / most));
                assert!(apart < 1e-3, "{} {factor} 2^{exponent}: {apart:e}", loss.name());
            }
        }
    }
}

#[test]
fn slabs_and_checkpoints_keep_the_scales() {
    let folder = tempfile::tempdir().expect("a folder");
    let y = data();
    let loss = Loss::kl();
    for exponent in [-332, 332] {
        let moved = y.mapv(|x| x * 2f64.powi(exponent));
        for slabs in [None, Some(3)] {
            let settings = || match slabs {
                Some(slabs) => nmf(&loss, Precision::F32).slabs(slabs),
                None => nmf(&loss, Precision::F32),
            };
            let plain = settings().fit(&y).expect("it fits");
            let whole = settings().fit(&moved).expect("it fits");
            let found = apart(&whole, &plain, exponent);
            assert!(found < 1e-3, "2^{exponent}, {slabs:?} slabs: {found:e}");
            let path = folder.path().join(format!("{exponent} {slabs:?}"));
            let short = settings().max_iter(20).checkpoint(&path, Every::sweeps(5));
            short.fit(&moved).expect("it fits");
            let checkpoint = Checkpoint::read(&path).expect("a checkpoint");
            let resumed = settings().resume(checkpoint).fit(&moved).expect("it goes on");
            assert_eq!(resumed.factors(), whole.factors(), "2^{exponent}, {slabs:?} slabs");
        }
    }
}

#[test]
fn a_loss_with_a_scale_of_its_own_is_refused_beyond_single_precision() {
    let y = data();
    let losses = [Loss::geometric(), Loss::negative_binomial(2.0).expect("a dispersion")];
    let custom =
        Loss::parse("custom: a = x/y; b = 1; loss = y - x*ln(y); power = -1, 0").expect("a loss");
    for loss in losses.into_iter().chain([custom]) {
        for scale in [1e-100, 1e-300, 1e100, 1e300] {
            let moved = y.mapv(|x| x * scale);
            let error = nmf(&loss, Precision::F32).fit(&moved).expect_err("refused");
            assert!(matches!(error, Error::Observations(_)), "{error}");
            assert!(error.to_string().contains("take double precision"), "{error}");
            let fit = nmf(&loss, Precision::F64).fit(&moved).expect("it fits");
            assert!(fit.factors().iter().flatten().all(|x| x.is_finite()));
        }
    }
}
