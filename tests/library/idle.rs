//! Components that a factor cuts off for a while, where exact steps have penalties beside them.

use crate::common::Random;
use ndarray::{Array1, ArrayD};
use nneinfact::fit::Smooth;
use nneinfact::loss::Penalty;
use nneinfact::model::{Model, Shapes};
use nneinfact::reference::predict;
use nneinfact::{Algorithm, Device, Error, Fit, Loss, NNEinFact, Precision};

const MODEL: &str = "ar,br,cr,dr->abcd";

/// Four components of which every factor has few large entries, with a mean of 1.
fn planted(random: &mut Random) -> ArrayD<f64> {
    let model = Model::parse(MODEL).unwrap();
    let shapes = Shapes::new(&model, &[5, 6, 4, 7], &[('r', 4)]).unwrap();
    let factors: Vec<ArrayD<f64>> = random
        .factors(&shapes)
        .into_iter()
        .map(|factor| factor.mapv(|x| (x - 0.2).powi(6)))
        .collect();
    let y = predict(&shapes, &factors);
    let mean = y.sum() / y.len() as f64;
    y.mapv(|x| x / mean)
}

fn settings(seed: u64) -> Result<NNEinFact, Error> {
    Ok(NNEinFact::new(MODEL)?
        .ranks([('r', 4)])
        .loss(Loss::euclidean())
        .algorithm(Algorithm::Accelerated)
        .device(Device::cpu())
        .precision(Precision::F64)
        .tolerance(0.0)
        .max_iter(100)
        .seed(seed))
}

/// The mean loss where a fit ends, which nothing on the way was below.
fn end(fit: &Fit) -> f64 {
    let history = fit.history();
    let objective = history.objective();
    for pair in objective.windows(2) {
        // The entries have a mean of 1: what is far below their rounding is none of the fit.
        assert!(pair[1] <= pair[0] * (1.0 + 1e-9) + 1e-12, "{pair:?}");
    }
    history.loss[history.returned]
}

/// Data that four components hold without a rest: a weak penalty leaves as many starts at that as none does,
/// but for one in ten.
#[test]
fn a_weak_penalty_costs_no_component() -> Result<(), Error> {
    let tensors = [87, 94, 95].map(|seed| planted(&mut Random::new(seed)));
    let found = |with: &dyn Fn(NNEinFact) -> NNEinFact| -> Result<usize, Error> {
        let mut count = 0;
        for y in &tensors {
            for seed in 0..8 {
                count += usize::from(end(&with(settings(seed)?).fit(y)?) < 1e-5);
            }
        }
        Ok(count)
    };
    let plain = found(&|settings| settings)?;
    assert!(plain >= 20, "{plain}");
    for penalty in [Penalty::l1(1e-4), Penalty::l2(1e-4)] {
        let penalised = found(&|settings| settings.penalty_on_all(penalty))?;
        assert!(penalised + 2 >= plain, "{penalty:?}: {penalised} of {plain}");
    }
    let smooth = found(&|settings| {
        settings.penalty_on_all(Penalty::l2(1e-4)).smooth("br", Smooth::line(1e-7))
    })?;
    assert!(smooth + 2 >= plain, "smooth: {smooth} of {plain}");
    Ok(())
}

/// A penalty that is too strong for a component still takes all of it.
#[test]
fn a_component_that_does_not_pay_goes_in_all_its_factors() -> Result<(), Error> {
    // One component, and a fit of two.
    let profile = |n: usize| Array1::from_shape_fn(n, |i| 1.0 + (i % 3) as f64);
    let y = ndarray::Array3::from_shape_fn((6, 5, 4), |(i, j, k)| {
        profile(6)[i] * profile(5)[j] * profile(4)[k]
    });
    for penalty in [Penalty::l1(0.5), Penalty::l2(0.5)] {
        let fit = NNEinFact::new("ir,jr,kr->ijk")?
            .ranks([('r', 2)])
            .loss(Loss::euclidean())
            .device(Device::cpu())
            .precision(Precision::F64)
            .penalty_on_all(penalty)
            .tolerance(0.0)
            .max_iter(300)
            .seed(3)
            .fit(&y)?;
        end(&fit);
        let largest = |l: usize, r: usize| {
            fit.factors()[l].index_axis(ndarray::Axis(1), r).iter().fold(0f64, |m, &x| m.max(x))
        };
        let alive: Vec<bool> = (0..2).map(|r| (0..3).any(|l| largest(l, r) > 1e-6)).collect();
        assert_eq!(alive.iter().filter(|alive| **alive).count(), 1, "{penalty:?}");
    }
    Ok(())
}
