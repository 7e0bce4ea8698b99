//! Fits with ties, smooth modes, rows that add up to 1, bounds and penalties together, on every model and loss.

use crate::common::{CORPUS, Configuration, Random, array_deviation, cpu_configurations, losses};
use crate::structured_case::Structured;
use ndarray::{Array2, ArrayD};
use nneinfact::data::CooTensor;
use nneinfact::fit::{Checkpoint, Every, Smooth, Start};
use nneinfact::model::{Model, Shapes};
use nneinfact::reference::predict;
use nneinfact::{Algorithm, Device, Error, Fit, Loss, NNEinFact, Observations, Precision};

/// What is lowered never rises, for every model with every loss.
fn never_rise(configuration: &Configuration, first: usize) -> Result<(), Error> {
    let mut turn = first;
    for entry in CORPUS {
        for loss in losses() {
            turn += 1;
            Structured::drawn(turn, entry, loss).check(configuration)?;
        }
    }
    Ok(())
}

#[test]
fn fits_in_double_precision_lower_what_they_say() -> Result<(), Error> {
    never_rise(&cpu_configurations()[0], 0)
}

#[test]
fn fits_in_single_precision_lower_what_they_say() -> Result<(), Error> {
    never_rise(&cpu_configurations()[1], 10_000)
}

/// Half the squared distance over every model, where steps are exact.
#[test]
fn exact_steps_never_raise_what_is_lowered() -> Result<(), Error> {
    for configuration in cpu_configurations() {
        for (n, entry) in CORPUS.iter().enumerate() {
            // Turns whose algorithm is the accelerated one.
            for turn in (0..18).filter(|turn| turn / 2 % 3 == 0) {
                Structured::drawn(36 * n + turn, entry, Loss::euclidean()).check(&configuration)?;
            }
        }
    }
    Ok(())
}

fn euclid(model: &str, ranks: &[(char, usize)]) -> Result<NNEinFact, Error> {
    Ok(NNEinFact::new(model)?
        .ranks(ranks.iter().copied())
        .loss(Loss::euclidean())
        .device(Device::cpu())
        .precision(Precision::F64)
        .prediction_floor(1e-200)
        .kkt_residual(true)
        .tolerance(0.0))
}

/// A tensor with smooth profiles along its first mode, and noise.
fn bumps(random: &mut Random, shape: [usize; 3]) -> ArrayD<f64> {
    let shapes = Shapes::new(&Model::parse("hr,ir,jr->hij").unwrap(), &shape, &[('r', 3)]).unwrap();
    let mut factors = random.factors(&shapes);
    for ((h, r), x) in factors[0].indexed_iter_mut().map(|(at, x)| ((at[0], at[1]), x)) {
        let angle = (h as f64 / shape[0] as f64 - r as f64 / 3.0) * std::f64::consts::TAU;
        *x = (2.0 * angle.cos()).exp();
    }
    predict(&shapes, &factors).mapv(|x| (x + 0.4 * random.uniform()).max(0.0))
}

#[test]
fn exact_smooth_steps_get_further_than_majorized_ones() -> Result<(), Error> {
    let mut random = Random::new(81);
    let y = bumps(&mut random, [24, 9, 7]);
    let seen = random.mask(y.shape(), 0.6);
    let weights = random.tensor(y.shape(), 0.1, 2.0);
    let mut coordinates = vec![Vec::new(); 3];
    let mut values = Vec::new();
    for (at, &y) in y.indexed_iter().filter(|(_, y)| **y > 2.0) {
        coordinates.iter_mut().zip([at[0], at[1], at[2]]).for_each(|(to, i)| to.push(i as u64));
        values.push(y);
    }
    let kinds: [(&str, Observations); 4] = [
        ("all", Observations::new(&y)),
        ("masked", Observations::new(&y).mask(&seen)?),
        ("weighted", Observations::new(&y).weights(weights)?),
        ("stored", Observations::new(CooTensor::new(y.shape(), &coordinates, &values)?)),
    ];
    for (name, observations) in &kinds {
        let run = |algorithm, sweeps| -> Result<Fit, Error> {
            euclid("hr,ir,jr->hij", &[('r', 3)])?
                .smooth("hr", Smooth::circle(2.0))
                .bounds("ir", 0.0, 1.5)
                .bounds("jr", 0.0, 1.5)
                .algorithm(algorithm)
                .seed(2)
                .max_iter(sweeps)
                .fit(observations)
        };
        let [exact, majorized] = [run(Algorithm::Accelerated, 25)?, run(Algorithm::Block, 25)?];
        let last = |fit: &Fit| fit.history().objective()[fit.history().returned];
        assert!(last(&exact) < last(&majorized), "{name}: {} {}", last(&exact), last(&majorized));
        let residual = |fit: &Fit| fit.history().kkt_residual.expect("asked for");
        let ended = run(Algorithm::Accelerated, 400)?;
        assert!(residual(&ended) < 5e-3, "{name}: {}", residual(&ended));
        // No step down is left, whichever way it is made.
        let on = euclid("hr,ir,jr->hij", &[('r', 3)])?
            .smooth("hr", Smooth::circle(2.0))
            .bounds("ir", 0.0, 1.5)
            .bounds("jr", 0.0, 1.5)
            .algorithm(Algorithm::Block)
            .start(Start::Factors(ended.factors().to_vec()))
            .max_iter(50)
            .fit(observations)?;
        assert!(last(&on) > last(&ended) * (1.0 - 1e-3), "{name}: {} {}", last(&on), last(&ended));
    }
    Ok(())
}

#[test]
fn tied_and_summing_factors_go_with_exact_steps_of_the_others() -> Result<(), Error> {
    let mut random = Random::new(82);
    let y = bumps(&mut random, [6, 5, 6]);
    let last = |fit: &Fit| fit.history().objective()[fit.history().returned];
    let tied = |algorithm| {
        euclid("ir,kr,jr->ikj", &[('r', 3)])?
            .tie(["ir", "jr"])
            .algorithm(algorithm)
            .max_iter(40)
            .fit(&y)
    };
    let [exact, majorized] = [tied(Algorithm::Accelerated)?, tied(Algorithm::Block)?];
    assert!(last(&exact) < last(&majorized), "{} {}", last(&exact), last(&majorized));
    assert_eq!(exact.factors()[0], exact.factors()[2]);
    let summing = |algorithm| {
        euclid("ir,kr,jr->ikj", &[('r', 3)])?
            .simplex("ir", Some("i"))
            .smooth("kr", Smooth::line(0.3))
            .algorithm(algorithm)
            .max_iter(40)
            .fit(&y)
    };
    let [exact, majorized] = [summing(Algorithm::Accelerated)?, summing(Algorithm::Block)?];
    assert!(last(&exact) < last(&majorized), "{} {}", last(&exact), last(&majorized));
    let sums = exact.factors()[0].sum_axis(ndarray::Axis(0));
    assert!(sums.iter().all(|x| (x - 1.0).abs() < 1e-9), "{sums}");
    Ok(())
}

#[test]
fn exact_smooth_fits_go_on_to_the_same_bits() -> Result<(), Error> {
    let y = Array2::from_shape_fn((12, 8), |(h, i)| if h < 5 { (i + 1) as f64 } else { 0.0 });
    let settings = |sweeps: usize| -> Result<NNEinFact, Error> {
        Ok(euclid("hr,ir->hi", &[('r', 2)])?
            .smooth("hr", Smooth::line(0.05))
            .bounds("ir", 0.0, 3.0)
            .max_iter(sweeps))
    };
    let whole = settings(40)?.fit(&y)?;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fit.npz");
    settings(13)?.checkpoint(&path, Every::sweeps(1)).fit(&y)?;
    let on = settings(40)?.resume(Checkpoint::read(&path)?).fit(&y)?;
    assert_eq!(on.factors(), whole.factors());
    assert_eq!(on.history().loss, whole.history().loss);
    Ok(())
}

#[test]
fn exact_smoothness_follows_the_unit_of_the_data() -> Result<(), Error> {
    let mut random = Random::new(83);
    let y = random.tensor(&[7, 6], 0.5, 3.0);
    let start = [random.tensor(&[7, 2], 0.5, 1.5), random.tensor(&[6, 2], 0.5, 1.5)];
    let run = |scale: f64| {
        let start = vec![&start[0] * scale, start[1].clone()];
        euclid("hr,ir->hi", &[('r', 2)])?
            .smooth("hr", Smooth::circle(0.3))
            .bounds("ir", 0.0, 2.0)
            .start(Start::Factors(start))
            .max_iter(20)
            .fit(&(&y * scale))
    };
    let scale = 1_048_576.0;
    let [one, large] = [run(1.0)?, run(scale)?];
    let first = array_deviation(&(&large.factors()[0] / scale), &one.factors()[0]);
    let second = array_deviation(&large.factors()[1], &one.factors()[1]);
    assert!(first < 1e-9 && second < 1e-9, "{first} {second}");
    Ok(())
}
