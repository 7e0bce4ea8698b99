//! Errors of trains against the function they are to be.

use nneinfact::density::{CrossTrain, Density, Indices, TensorTrain};

use crate::Failure;

/// What a cross interpolation did, in one line.
pub fn print_cross(found: &CrossTrain) {
    let errors: Vec<String> = found.errors.iter().map(|e| format!("{e:.1e}")).collect();
    println!("cross: {} evaluations, errors {}", found.evaluations, errors.join(", "));
}

/// Mean relative errors of a train against a function, on uniform tuples and on tuples drawn from a
/// distribution: the first measure tails.
pub fn relative_errors(
    what: &str,
    train: &TensorTrain,
    density: &Density,
    log_f: impl Fn(&[usize]) -> f64,
) -> Result<(), Failure> {
    let sizes = train.sizes();
    let drawn = density.sample(10_000, 5)?;
    let uniform = spread(&sizes, 10_000)?;
    let error = |tuples: &Indices| -> Result<(f64, f64), Failure> {
        let got = train.log_entries(tuples)?;
        let off = got.iter().zip(tuples.iter()).map(|(&(sign, log), x)| {
            let ratio = sign * (log - log_f(x)).exp();
            (ratio - 1.0).abs()
        });
        let mut off: Vec<f64> = off.collect();
        off.sort_by(f64::total_cmp);
        Ok((off.iter().sum::<f64>() / off.len() as f64, off[off.len() / 2]))
    };
    let ((drawn, _), (uniform, median)) = (error(&drawn)?, error(&uniform)?);
    println!(
        "{what}: mean relative error {drawn:.1e} on drawn entries, {uniform:.1e} on uniform ones \
         (median {median:.1e})"
    );
    Ok(())
}

/// Tuples that are spread evenly: digits of multiples of irrational numbers.
pub fn spread(sizes: &[usize], rows: u64) -> Result<Indices, Failure> {
    let tuples = (0..rows).flat_map(|row| {
        sizes.iter().enumerate().map(move |(k, &n)| {
            let u = (row as f64 * (k as f64 + 2.0).sqrt() + k as f64 * 0.37).fract();
            ((u * n as f64) as usize).min(n - 1)
        })
    });
    Ok(Indices::new(sizes.len(), tuples.collect())?)
}
