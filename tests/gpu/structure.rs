//! Ties, smooth modes and rows that add up to 1 on a GPU: steps are made on the host from what it sums.

use crate::common::{
    CORPUS, Random, configurations, data, deviation, gpu_cases, largest_rise, losses, mean_term,
};
use crate::structured_case::Structured;
use nneinfact::fit::Smooth;
use nneinfact::loss::Penalty;
use nneinfact::model::{Model, Shapes};
use nneinfact::reference::predict;
use nneinfact::{Algorithm, Error, Fit, Loss, NNEinFact, Observations, Precision};

#[test]
fn structured_fits_on_a_gpu_are_those_of_the_cpu_and_never_rise() -> Result<(), Error> {
    let mut random = Random::new(71);
    let shapes = Shapes::new(&Model::parse("ir,jr,kr->ijk")?, &[6, 6, 5], &[('r', 2)])?;
    let losses = [
        Loss::kl(),
        Loss::euclidean(),
        Loss::reverse_kl(),
        Loss::itakura_saito(),
        Loss::bernoulli(),
    ];
    for (turn, loss) in losses.into_iter().enumerate() {
        let y = data(&mut random, &shapes, &loss);
        let seen = random.mask(y.shape(), 0.8);
        let observations = Observations::new(&y).mask(&seen)?;
        let algorithm = [Algorithm::Block, Algorithm::Grouped, Algorithm::Accelerated][turn % 3];
        let mut found: Vec<Fit> = Vec::new();
        for configuration in configurations() {
            // Five sweeps: those that follow may be extrapolated differently.
            let settings = NNEinFact::new("ir,jr,kr->ijk")?
                .ranks([('r', 2)])
                .loss(loss.clone())
                .algorithm(algorithm)
                .device(configuration.device.clone())
                .precision(configuration.precision)
                .prediction_floor(1e-6)
                .tie(["ir", "jr"])
                .smooth("kr", Smooth::circle(0.3))
                .tolerance(0.0)
                .max_iter(5);
            let settings = match turn % 2 {
                0 => settings.penalty("ir", Penalty::l2(0.1)),
                _ => settings.simplex("ir", Some("i")),
            };
            let fit = settings.fit(&observations)?;
            let objective = fit.history().objective();
            let term = mean_term(&loss, &y, None, &predict(&shapes, fit.factors()), 1e-6);
            let what = format!("{} {}: {objective:?}", configuration.name, loss.name());
            assert!(largest_rise(&objective, term) <= configuration.rise, "{what}");
            assert!(objective[5] < objective[0], "{what}");
            assert_eq!(fit.factors()[0], fit.factors()[1], "{what}");
            if configuration.precision == Precision::F32 {
                let apart = deviation(fit.factors(), found[0].factors());
                assert!(apart < 5e-3, "{apart} {what}");
            }
            found.push(fit);
        }
    }
    Ok(())
}

#[test]
fn what_a_gpu_lowers_with_structure_never_rises() -> Result<(), Error> {
    let losses = losses();
    for configuration in configurations().iter().filter(|c| c.name == "gpu") {
        // Every loss, and in the course of them every model.
        for turn in gpu_cases(2 * losses.len()) {
            let entry = &CORPUS[turn % CORPUS.len()];
            let loss = losses[(turn + turn / losses.len()) % losses.len()].clone();
            Structured::drawn(20_000 + turn, entry, loss).check(configuration)?;
        }
    }
    Ok(())
}
