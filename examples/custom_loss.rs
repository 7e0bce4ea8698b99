//! A loss of one's own: counts over a known background.
//!
//! A detector counts photons of a signal ŷ that is to be factorized, on top of a background of
//! known rate s that differs from entry to entry: x ~ Poisson(ŷ + s). Up to a constant, the
//! negative log-likelihood is
//!
//!     ℓ(x, y) = (y + s) − x ln(y + s).
//!
//! Run with `cargo run --example custom_loss`.

use ndarray::{Array2, ArrayD};
use nneinfact::data::uniform_u32;
use nneinfact::loss::{Expr, Majorizer};
use nneinfact::{Fit, Loss, NNEinFact};

/// A number in (0, 1) that is the same on every run.
fn uniform(stream: u32, index: usize) -> f64 {
    (f64::from(uniform_u32(5, stream, index as u64)) + 0.5) / 4294967296.0
}

/// A Poisson count of this rate: arrivals before time 1.
fn poisson(rate: f64, entry: usize) -> f64 {
    let mut time = 0.0;
    let mut count = 0;
    loop {
        time -= uniform(10, 10_000 * entry + count).ln();
        if time > rate {
            return count as f64;
        }
        count += 1;
    }
}

/// The loss, with the background as an entry parameter `s0`.
fn counts_over(background: Array2<f64>) -> nneinfact::Result<Loss> {
    let (x, y, s) = (Expr::x(), Expr::y(), Expr::entry_parameter(0));
    let rate = &y + &s;
    Loss::custom("Poisson over a background")
        .loss(&rate - &x * rate.ln())
        // Its derivative is 1 − x/(y + s). It has to be c · (b − a), here with the curvature constant c = 1.
        .a(&x / &rate)
        .b(Expr::constant(1.0))
        // What makes the updates decrease the loss is a surrogate above it. ŷ = Σ_k y_k is a sum of
        // parts, and an update multiplies part k by λ_k. The term y + s is linear in the parts.
        // For −x ln(Σ_k λ_k y_k + s) Jensen's inequality, with the shares y_k/(y + s) of the parts
        // and s/(y + s) of the background, which does not change (λ = 1), gives
        //
        //     −x ln(Σ_k λ_k y_k + s)  ≤  −x Σ_k y_k/(y + s) ln λ_k + constant,
        //
        // and both sides agree at λ = 1. The derivative of the surrogate in λ_k is therefore
        // y_k · (1 − x/(y + s) · λ_k⁻¹) = y_k · (λ_k⁰ b − λ_k⁻¹ a): the powers are p_b = 0 and
        // p_a = −1, and the update is Θ ← Θ · A/B. `build` checks all that on a grid.
        .majorizer(Majorizer::Power { p_a: -1.0, p_b: 0.0 })
        .entry_parameters([background.into_dyn()])
        .build()
}

fn main() -> nneinfact::Result<()> {
    let (rows, columns) = (60, 50);
    let signal = Array2::from_shape_fn((rows, columns), |(i, j)| {
        // Two blocks, one of them weak.
        let first = if i < 30 && j < 25 { 6.0 } else { 0.0 };
        let second = if i >= 20 && j >= 20 { 2.0 } else { 0.0 };
        first + second
    });
    let background =
        Array2::from_shape_fn((rows, columns), |(i, j)| 1.0 + 8.0 * uniform(0, i * columns + j));
    let y = Array2::from_shape_fn((rows, columns), |(i, j)| {
        poisson(signal[(i, j)] + background[(i, j)], i * columns + j)
    });

    let fit = |loss: Loss| {
        NNEinFact::new("ir,jr->ij")?.ranks([('r', 2)]).loss(loss).seed(1).max_iter(2000).fit(&y)
    };
    let error = |fit: &Fit| -> nneinfact::Result<f64> {
        let found: ArrayD<f64> = fit.reconstruct()?;
        let apart: f64 = found.iter().zip(&signal).map(|(f, s)| (f - s).abs()).sum();
        Ok(apart / signal.sum())
    };

    let custom = fit(counts_over(background.clone())?)?;
    let history = custom.history();
    println!(
        "{} sweeps took the loss from {:.4} to {:.4}; it never rose: {}.",
        history.iterations,
        history.loss[0],
        history.last_loss(),
        history.loss.windows(2).all(|f| f[1] <= f[0] + 1e-4 * f[0].abs())
    );
    println!(
        "With the background in the loss, the signal is off by {:.0} %.",
        100.0 * error(&custom)?
    );
    let plain = fit(Loss::kl())?;
    println!("Without it (plain KL), it is off by {:.0} %.", 100.0 * error(&plain)?);
    Ok(())
}
