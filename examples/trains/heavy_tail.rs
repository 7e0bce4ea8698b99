//! Example 3: a multivariate t density with two degrees of freedom, by cross interpolation.

use nneinfact::density::{Cross, Density};

use crate::variants::Comparison;
use crate::{Failure, Options, errors};

/// The logarithm of the density of `d` values at `n` points in [−1, 1].
pub fn log_density(d: usize, n: usize) -> impl Fn(&[usize]) -> f64 + Sync {
    let nu = 2.0;
    let x = move |i: usize| 2.0 * i as f64 / (n - 1) as f64 - 1.0;
    move |i: &[usize]| {
        let square: f64 = i.iter().map(|&i| x(i) * x(i)).sum();
        -0.5 * (nu + d as f64) * (square / nu).ln_1p()
    }
}

pub fn run(options: &Options) -> Result<(), Failure> {
    let (d, n, sweeps) = if options.quick { (8, 10, 10) } else { (16, 16, 40) };
    let log_f = log_density(d, n);
    let found = Cross::new(vec![n; d]).max_rank(8).run_log(&log_f)?;
    errors::print_cross(&found);
    let title = "Heavy tail";
    let compared = Comparison { title, file: "heavy_tail", target: &found.train, rank: 8, sweeps };
    let best = compared.run(options)?;
    let density = Density::new(&best.train)?;
    errors::relative_errors("stage one", &found.train, &density, &log_f)?;
    errors::relative_errors("the best fit", best.train.train(), &density, &log_f)
}
