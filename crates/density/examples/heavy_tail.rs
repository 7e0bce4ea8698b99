//! Example 3: a multivariate t density with two degrees of freedom, by cross interpolation. `--quick`
//! for a small run.

mod common;
#[path = "common/errors.rs"]
mod errors;

use nneinfact_density::{Cross, Density, Error};

fn main() -> Result<(), Error> {
    let (d, n, sweeps) = if common::quick() { (8, 10, 10) } else { (16, 16, 40) };
    let nu = 2.0;
    let x = |i: usize| 2.0 * i as f64 / (n - 1) as f64 - 1.0;
    let log_f = |i: &[usize]| {
        let square: f64 = i.iter().map(|&i| x(i) * x(i)).sum();
        -0.5 * (nu + d as f64) * (square / nu).ln_1p()
    };
    let found = Cross::new(vec![n; d]).max_rank(8).run_log(log_f)?;
    errors::print_cross(&found);
    let best = common::compare(&found.train, 8, sweeps);
    let density = Density::new(&best.train)?;
    errors::relative_errors("stage one", &found.train, &density, log_f);
    errors::relative_errors("the best fit", best.train.train(), &density, log_f);
    Ok(())
}
