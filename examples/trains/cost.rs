//! What a sweep costs: seconds against the number of modes, against the rank, and against the size of
//! the modes, each beside what the formula of NTT.md, section 4.2, predicts from the first row.

use nneinfact::density::{Core, Solver, TensorTrain, TrainFit};

use crate::{Failure, Options};

/// A chain of rank n: exp(−(x_k − x_{k+1})²) on n points in [−1, 1].
fn chain(d: usize, n: usize) -> Result<TensorTrain, Failure> {
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
    Ok(TensorTrain::new((0..d).map(core).collect::<Result<_, _>>()?, 0.0)?)
}

/// Seconds of a sweep, the least of several.
fn seconds(target: &TensorTrain, rank: usize, solver: Solver) -> Result<f64, Failure> {
    let fit = TrainFit::new().rank(rank).solver(solver).sweeps(5).target_error(0.0);
    let seconds = fit.run(target)?.history.seconds;
    Ok(seconds.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min))
}

/// Multiplications of a direct sweep at an inner core: contractions of model and target, and n
/// factorizations of size r².
fn direct(n: usize, r: usize, s: usize) -> f64 {
    let (n, r, s) = (n as f64, r as f64, s as f64);
    contractions(n, r, s) + n * (r.powi(6) / 3.0 + r.powi(4))
}

/// Multiplications of a sweep by ten steps of conjugate gradients.
fn conjugate(n: usize, r: usize, s: usize) -> f64 {
    let (n, r, s) = (n as f64, r as f64, s as f64);
    contractions(n, r, s) + 10.0 * n * 2.0 * r.powi(3)
}

fn contractions(n: f64, r: f64, s: f64) -> f64 {
    n * (6.0 * r.powi(3) + 4.0 * r * r * s + 2.0 * r * s * s)
}

pub fn run(options: &Options) -> Result<(), Failure> {
    let quick = options.quick;
    println!("direct, rank 6, targets of rank 8, 8 values");
    println!("{:>6} {:>12} {:>14}", "modes", "s a sweep", "µs a visit");
    for d in if quick { vec![10, 30] } else { vec![10, 30, 100, 300, 1000] } {
        let s = seconds(&chain(d, 8)?, 6, Solver::Direct)?;
        println!("{d:>6} {s:>12.5} {:>14.2}", s * 1e6 / (2 * d) as f64);
    }
    println!(
        "\n12 modes, targets of rank 8, 8 values: seconds a sweep, and what is predicted from the first"
    );
    println!(
        "{:>6} {:>11} {:>11} {:>11} {:>11}",
        "rank", "direct", "predicted", "Jacobi", "predicted"
    );
    let target = chain(12, 8)?;
    let ranks = if quick { vec![4, 8] } else { vec![4, 6, 8, 12, 16, 24] };
    table(&ranks, |r| Ok((r, 8)), |_| Ok(target.clone()))?;
    println!("\n12 modes, model of rank 6, targets of rank n, n values: seconds a sweep");
    println!(
        "{:>6} {:>11} {:>11} {:>11} {:>11}",
        "values", "direct", "predicted", "Jacobi", "predicted"
    );
    let sizes = if quick { vec![4, 8] } else { vec![4, 8, 16, 32, 64] };
    table(&sizes, |n| Ok((6, n)), |n| chain(12, n))
}

/// A row for each number: measured, and predicted from the first row.
fn table(
    numbers: &[usize],
    sides: impl Fn(usize) -> Result<(usize, usize), Failure>,
    target: impl Fn(usize) -> Result<TensorTrain, Failure>,
) -> Result<(), Failure> {
    let mut first: Option<[f64; 2]> = None;
    for &number in numbers {
        let (r, n) = sides(number)?;
        let target = target(number)?;
        let measured = [seconds(&target, r, Solver::Direct)?, seconds(&target, r, Solver::Jacobi)?];
        let work = [direct(n, r, n), conjugate(n, r, n)];
        let rate = *first.get_or_insert([measured[0] / work[0], measured[1] / work[1]]);
        println!(
            "{number:>6} {:>11.5} {:>11.5} {:>11.5} {:>11.5}",
            measured[0],
            rate[0] * work[0],
            measured[1],
            rate[1] * work[1]
        );
    }
    Ok(())
}
