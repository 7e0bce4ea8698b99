//! What is shown of distributions that are learnt from samples.

use nneinfact::density::{Density, Em, Indices, NonnegativeTrain, TensorTrain, TrainFit};

use crate::Failure;

/// Fits a sketch and raises the likelihood of its samples: distributions with their names, and as a
/// yardstick one by maximum likelihood alone.
pub fn learn(
    sketch: &TensorTrain,
    samples: &Indices,
    rank: usize,
    sweeps: usize,
) -> Result<Vec<(&'static str, Density)>, Failure> {
    let sizes = sketch.sizes();
    let fit = TrainFit::new().rank(rank).seed(2).sweeps(sweeps).target_error(0.0).run(sketch)?;
    let density = Density::new(&fit.train)?;
    let better = Em::new().sweeps(10).run(&density, samples, None)?.density;
    let random = NonnegativeTrain::random(&sizes, &vec![rank; sizes.len() - 1], 3)?;
    let alone = Em::new().sweeps(30).run(&Density::new(&random)?, samples, None)?.density;
    Ok(vec![
        ("sketch, Newton (hybrid)", density),
        ("the same, 10 sweeps of EM", better),
        ("30 sweeps of EM from a random start", alone),
    ])
}

/// Prints the negative log-likelihoods of samples that were seen, and of others.
pub fn print_nll(
    learnt: &[(&str, Density)],
    [samples, fresh]: [&Indices; 2],
) -> Result<(), Failure> {
    for (name, density) in learnt {
        let (seen, unseen) = (density.nll(samples, None)?.mean, density.nll(fresh, None)?.mean);
        println!("{name:36} {seen:9.4} {unseen:9.4}");
    }
    Ok(())
}
