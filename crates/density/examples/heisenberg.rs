//! Example 5: the ground state of an open antiferromagnetic Heisenberg chain by a small two-site
//! DMRG, samples of its squared amplitudes, and a distribution learnt from these. `--quick` for a
//! small run.

mod common;
#[path = "common/dmrg.rs"]
mod dmrg;

use nneinfact_density::{Density, Em, Error, Indices, NonnegativeTrain, Sketch, TrainFit};

fn main() -> Result<(), Error> {
    let (d, samples, sweeps) = if common::quick() { (8, 20_000, 20) } else { (12, 50_000, 60) };
    let state = dmrg::ground_state(d, 32, 4);
    println!("energy {:.9}", state.energy);
    let uniform = |row: usize, mode: usize, seed: f64| {
        // Fractions of an irrational rotation, mixed by a sine: enough for an example.
        let x = (row as f64 + 0.5) * (mode as f64 + 1.7).sqrt() + seed;
        ((x.sin() * 43_758.545_312_3).fract() + 1.0).fract()
    };
    let draw = |seed: f64| {
        let rows = (0..samples).flat_map(|row| state.sample(|mode| uniform(row, mode, seed)));
        Indices::new(d, rows.collect())
    };
    let (train, fresh) = (draw(0.1)?, draw(7.3)?);
    let truth = |tuples: &Indices| {
        -tuples.iter().map(|x| state.log_probability(x)).sum::<f64>() / tuples.rows() as f64
    };
    let found = Sketch::new(vec![2; d]).rank(8).run(&train, None)?;
    common::compare(&found.train, 8, sweeps);
    let fit = TrainFit::new().rank(8).seed(2).sweeps(sweeps).run(&found.train)?;
    let density = Density::new(&fit.train)?;
    let better = Em::new().sweeps(10).run(&density, &train, None)?.density;
    let random = Density::new(&NonnegativeTrain::random(&vec![2; d], &vec![8; d - 1], 3)?)?;
    let alone = Em::new().sweeps(30).run(&random, &train, None)?.density;
    println!("\nnegative log-likelihood of the samples, and of fresh ones");
    println!("{:36} {:9.4} {:9.4}", "truth", truth(&train), truth(&fresh));
    for (name, density) in [
        ("sketch, Newton (hybrid)", &density),
        ("the same, 10 sweeps of EM", &better),
        ("30 sweeps of EM from a random start", &alone),
    ] {
        let (seen, unseen) = (density.nll(&train, None)?.mean, density.nll(&fresh, None)?.mean);
        println!("{name:36} {seen:9.4} {unseen:9.4}");
    }
    Ok(())
}
