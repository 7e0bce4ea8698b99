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

/// Prints the mean negative log-likelihoods of samples that were seen and of others, beside those under
/// the distribution they are from. The last column estimates the Kullback–Leibler divergence: the
/// scatter of the samples, the same for both, drops out of it.
pub fn print_nll(
    truth: [f64; 2],
    learnt: &[(&str, Density)],
    [samples, fresh]: [&Indices; 2],
) -> Result<(), Failure> {
    println!(
        "\n{:36} {:>9} {:>9} {:>9}",
        "mean negative log-likelihood", "samples", "fresh", "above"
    );
    println!("{:36} {:9.4} {:9.4}", "truth", truth[0], truth[1]);
    for (name, density) in learnt {
        let (seen, unseen) = (density.nll(samples, None)?.mean, density.nll(fresh, None)?.mean);
        println!("{name:36} {seen:9.4} {unseen:9.4} {:9.4}", unseen - truth[1]);
    }
    Ok(())
}
