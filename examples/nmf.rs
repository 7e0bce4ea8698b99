//! Nonnegative matrix factorization: three spectra unmixed from 60 mixtures of them.
//!
//! Run with `cargo run --example nmf`.

use ndarray::{Array2, ArrayView1, Ix2};
use nneinfact::data::uniform_u32;
use nneinfact::{Loss, NNEinFact};

/// A number in (0, 1) that is the same on every run.
fn uniform(stream: u32, index: usize) -> f64 {
    (f64::from(uniform_u32(1, stream, index as u64)) + 0.5) / 4294967296.0
}

fn cosine(a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>) -> f64 {
    a.dot(&b) / (a.dot(&a) * b.dot(&b)).sqrt()
}

fn main() -> nneinfact::Result<()> {
    // Three substances, each with two peaks, and how much of each is in every sample: most samples
    // lack some of them, which is what makes the factors identifiable.
    let peaks = [(15.0, 60.0), (30.0, 75.0), (45.0, 90.0)];
    let spectra = Array2::from_shape_fn((100, 3), |(w, r)| {
        let peak = |at: f64, width: f64| (-((w as f64 - at) / width).powi(2)).exp();
        peak(peaks[r].0, 4.0) + 0.5 * peak(peaks[r].1, 6.0)
    });
    let amounts = Array2::from_shape_fn((60, 3), |(i, r)| {
        let present = uniform(0, 3 * i + r) < 0.6;
        if present { 50.0 * uniform(1, 3 * i + r) } else { 0.0 }
    });
    let clean = amounts.dot(&spectra.t());
    // Noise of 5 %.
    let y = Array2::from_shape_fn(clean.raw_dim(), |(i, w)| {
        clean[(i, w)] * (0.95 + 0.1 * uniform(2, 100 * i + w))
    });

    let fit = NNEinFact::new("ir,wr->iw")?.ranks([('r', 3)]).loss(Loss::kl()).seed(3).fit(&y)?;

    let history = fit.history();
    println!(
        "{}: the KL divergence per entry fell from {:.4} to {:.6} in {} sweeps (stopped by {}).",
        fit.model(),
        history.loss[0],
        history.last_loss(),
        history.iterations,
        history.stopped_by
    );
    // Components come in any order and scale: compare each spectrum with the most similar one.
    let found = fit.factors()[1].clone().into_dimensionality::<Ix2>().expect("a matrix");
    for (r, truth) in spectra.columns().into_iter().enumerate() {
        let best = found.columns().into_iter().map(|s| cosine(s, truth)).fold(0.0, f64::max);
        println!("Spectrum {} was found with cosine similarity {best:.4}.", r + 1);
    }
    Ok(())
}
