//! Example 2: a Gibbs kernel exp(−β Σ (x_k − x_{k+1})²), by cross interpolation.

use nneinfact::density::{Cross, Density};

use crate::variants::Comparison;
use crate::{Failure, Options, errors};

/// The logarithm of the density of any number of values at `n` points in [−1, 1].
pub fn log_density(n: usize) -> impl Fn(&[usize]) -> f64 + Sync {
    let x = move |i: usize| 2.0 * i as f64 / (n - 1) as f64 - 1.0;
    move |i: &[usize]| -i.windows(2).map(|w| (x(w[0]) - x(w[1])).powi(2)).sum::<f64>()
}

pub fn run(options: &Options) -> Result<(), Failure> {
    let (d, n, sweeps) = if options.quick { (8, 10, 20) } else { (12, 16, 60) };
    let log_f = log_density(n);
    let found = Cross::new(vec![n; d]).max_rank(4).run_log(&log_f)?;
    errors::print_cross(&found);
    let title = "Gibbs kernel";
    let compared =
        Comparison { title, file: "gibbs_kernel", target: &found.train, rank: 6, sweeps };
    let best = compared.run(options)?;
    let density = Density::new(&best.train)?;
    errors::relative_errors("stage one", &found.train, &density, &log_f)?;
    errors::relative_errors("the best fit", best.train.train(), &density, &log_f)
}
