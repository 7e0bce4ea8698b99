//! What stage one costs: evaluations, seconds and error of the cross interpolation of the first three
//! examples' functions against the largest rank. `benches/trains.py` prints the same of a peer.

use std::time::Instant;

use nneinfact::density::{Cross, Indices};

use crate::{Failure, Options, errors, gibbs_kernel, ginzburg_landau, heavy_tail};

/// The logarithm of a function of index tuples.
type LogFunction = Box<dyn Fn(&[usize]) -> f64 + Sync>;

pub fn run(options: &Options) -> Result<(), Failure> {
    let (d, n) = if options.quick { (6, 8) } else { (16, 16) };
    let functions: [(&str, usize, LogFunction); 3] = [
        ("ginzburg_landau", d, Box::new(ginzburg_landau::log_density(d, n))),
        ("gibbs_kernel", 3 * d / 4, Box::new(gibbs_kernel::log_density(n))),
        ("heavy_tail", d, Box::new(heavy_tail::log_density(d, n))),
    ];
    println!(
        "{:18} {:>5} {:>7} {:>12} {:>8} {:>10}",
        "function", "rank", "sweeps", "evaluations", "seconds", "error"
    );
    for (name, d, log_f) in &functions {
        let sizes = vec![n; *d];
        let check = errors::spread(&sizes, 10_000)?;
        for rank in if options.quick { vec![2, 4] } else { vec![4, 6, 8, 10, 12, 16, 24, 64] } {
            let began = Instant::now();
            let found = Cross::new(sizes.clone()).max_rank(rank).run_log(log_f)?;
            let seconds = began.elapsed().as_secs_f64();
            let error = relative_error(&found.train, &check, log_f)?;
            let (sweeps, evaluations) = (found.errors.len(), found.evaluations);
            println!(
                "{name:18} {rank:>5} {sweeps:>7} {evaluations:>12} {seconds:>8.3} {error:>10.1e}"
            );
        }
    }
    Ok(())
}

/// The relative Frobenius error on some entries.
fn relative_error(
    train: &nneinfact::density::TensorTrain,
    check: &Indices,
    log_f: impl Fn(&[usize]) -> f64,
) -> Result<f64, Failure> {
    let want: Vec<f64> = check.iter().map(log_f).collect();
    let top = want.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (mut off, mut all) = (0.0, 0.0);
    for ((sign, log), want) in train.log_entries(check)?.into_iter().zip(want) {
        let want = (want - top).exp();
        off += (sign * (log - top).exp() - want).powi(2);
        all += want * want;
    }
    Ok((off / all).sqrt())
}
