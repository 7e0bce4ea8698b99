//! Example 5: the ground state of an open antiferromagnetic Heisenberg chain by a small two-site
//! DMRG, samples of its squared amplitudes, and a distribution learnt from these.

use nneinfact::density::{Indices, Sketch};

use crate::variants::Comparison;
use crate::{Failure, Options, dmrg, samples};

pub fn run(options: &Options) -> Result<(), Failure> {
    let (d, count, sweeps) = if options.quick { (8, 20_000, 20) } else { (12, 50_000, 60) };
    let state = dmrg::ground_state(d, 32, 4)?;
    println!("energy {:.9}", state.energy);
    let uniform = |row: usize, mode: usize, seed: f64| {
        // Fractions of an irrational rotation, mixed by a sine: enough for an example.
        let x = (row as f64 + 0.5) * (mode as f64 + 1.7).sqrt() + seed;
        ((x.sin() * 43_758.545_312_3).fract() + 1.0).fract()
    };
    let draw = |seed: f64| {
        let rows = (0..count).flat_map(|row| state.sample(|mode| uniform(row, mode, seed)));
        Indices::new(d, rows.collect())
    };
    let (train, fresh) = (draw(0.1)?, draw(7.3)?);
    let truth = |tuples: &Indices| {
        -tuples.iter().map(|x| state.log_probability(x)).sum::<f64>() / tuples.rows() as f64
    };
    let found = Sketch::new(vec![2; d]).rank(8).run(&train, None)?;
    let title = "Heisenberg chain";
    let compared = Comparison { title, file: "heisenberg", target: &found.train, rank: 8, sweeps };
    compared.run(options)?;
    let learnt = samples::learn(&found.train, &train, 8, sweeps)?;
    samples::print_nll([truth(&train), truth(&fresh)], &learnt, [&train, &fresh])
}
