//! What a sweep costs: seconds against the number of modes, and against the rank. `--quick` for a small
//! run.

use nneinfact_density::{Core, Error, Solver, TensorTrain, TrainFit};

/// A chain of rank n: exp(−(x_k − x_{k+1})²) on n points in [−1, 1].
fn chain(d: usize, n: usize) -> Result<TensorTrain, Error> {
    let x = |i: usize| 2.0 * i as f64 / (n - 1) as f64 - 1.0;
    let core = |k: usize| {
        let (left, right) = (if k == 0 { 1 } else { n }, if k == d - 1 { 1 } else { n });
        let mut data = vec![0.0; left * n * right];
        for a in 0..left {
            for i in 0..n {
                let weight = if k == 0 { 1.0 } else { (-(x(a) - x(i)).powi(2)).exp() };
                data[(a * n + i) * right + if k == d - 1 { 0 } else { i }] = weight;
            }
        }
        Core::new([left, n, right], data)
    };
    TensorTrain::new((0..d).map(core).collect::<Result<_, _>>()?, 0.0)
}

/// Seconds of a sweep, the least of three.
fn seconds(target: &TensorTrain, rank: usize, solver: Solver) -> Result<f64, Error> {
    let fit = TrainFit::new().rank(rank).solver(solver).sweeps(3).target_error(0.0);
    let seconds = fit.run(target)?.history.seconds;
    Ok(seconds.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min))
}

fn main() -> Result<(), Error> {
    let quick = std::env::args().any(|a| a == "--quick");
    println!("{:>6} {:>12} {:>14}", "modes", "s a sweep", "µs a visit");
    for d in if quick { vec![10, 30, 100] } else { vec![10, 30, 100, 300, 1000] } {
        let s = seconds(&chain(d, 8)?, 6, Solver::Direct)?;
        println!("{d:>6} {s:>12.4} {:>14.1}", s * 1e6 / (2 * d) as f64);
    }
    println!("\n{:>6} {:>14} {:>14}", "rank", "direct, s", "Jacobi, s");
    let target = chain(12, 8)?;
    for rank in if quick { vec![4, 8] } else { vec![4, 8, 12, 16, 24] } {
        let (direct, jacobi) =
            (seconds(&target, rank, Solver::Direct)?, seconds(&target, rank, Solver::Jacobi)?);
        println!("{rank:>6} {direct:>14.4} {jacobi:>14.4}");
    }
    Ok(())
}
