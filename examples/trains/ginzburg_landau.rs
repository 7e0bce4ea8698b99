//! Example 1: a Ginzburg–Landau field on a chain with fixed ends, by cross interpolation of the
//! logarithm of its density.

use nneinfact::density::{Cross, Density};

use crate::variants::Comparison;
use crate::{Failure, Options, errors};

/// The logarithm of the density of `d` values at `n` points in [−2, 2].
pub fn log_density(d: usize, n: usize) -> impl Fn(&[usize]) -> f64 + Sync {
    let (lambda, beta) = (0.5, 1.0);
    let x = move |i: usize| 4.0 * i as f64 / (n - 1) as f64 - 2.0;
    move |i: &[usize]| {
        let at = |k: usize| if k == 0 || k > d { 0.0 } else { x(i[k - 1]) };
        let bonds: f64 = (0..=d).map(|k| (at(k) - at(k + 1)).powi(2)).sum();
        let wells: f64 = (1..=d).map(|k| (1.0 - at(k) * at(k)).powi(2)).sum();
        -beta * (0.5 * lambda * bonds + wells / (4.0 * lambda))
    }
}

pub fn run(options: &Options) -> Result<(), Failure> {
    let (d, n, sweeps) = if options.quick { (8, 10, 10) } else { (16, 16, 40) };
    let log_f = log_density(d, n);
    let found = Cross::new(vec![n; d]).max_rank(8).run_log(&log_f)?;
    errors::print_cross(&found);
    let title = "Ginzburg–Landau";
    let compared =
        Comparison { title, file: "ginzburg_landau", target: &found.train, rank: 8, sweeps };
    let best = compared.run(options)?;
    let density = Density::new(&best.train)?;
    errors::relative_errors("stage one", &found.train, &density, &log_f)?;
    errors::relative_errors("the best fit", best.train.train(), &density, &log_f)?;
    if !options.quick {
        let title = "Ginzburg–Landau, rank 16";
        Comparison { title, file: "ginzburg_landau_16", rank: 16, ..compared }.run(options)?;
    }
    Ok(())
}
