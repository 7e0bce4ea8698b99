//! A model that has no name, on data with holes, judged on entries that the fit has not seen.
//!
//! Run with `cargo run --example custom_model`.

use ndarray::Array3;
use nneinfact::data::uniform_u32;
use nneinfact::{Fit, Loss, NNEinFact, Observations};

/// Any einsum string is a model: communities `k`, topics `q`, and activity that depends on the
/// individual.
const MODEL: &str = "ik,jqk,aiq,q->ija";
const SHAPE: (usize, usize, usize) = (24, 20, 16);

/// A number in (0, 1) that is the same on every run.
fn uniform(stream: u32, index: usize) -> f64 {
    (f64::from(uniform_u32(4, stream, index as u64)) + 0.5) / 4294967296.0
}

/// Entries that are mostly small.
fn sparse(stream: u32, index: usize) -> f64 {
    0.02 + uniform(stream, index).powi(3)
}

fn planted() -> Array3<f64> {
    let (individuals, objects, _) = SHAPE;
    let (k_rank, q_rank) = (3, 2);
    Array3::from_shape_fn(SHAPE, |(i, j, a)| {
        let mut rate = 0.0;
        for k in 0..k_rank {
            for q in 0..q_rank {
                rate += sparse(0, i * k_rank + k)
                    * sparse(1, (j * q_rank + q) * k_rank + k)
                    * sparse(2, (a * individuals + i) * q_rank + q)
                    * (1.0 + q as f64);
            }
        }
        10.0 * rate * (0.9 + 0.2 * uniform(3, (i * objects + j) * 16 + a))
    })
}

fn report(name: &str, fit: &Fit) {
    let history = fit.history();
    println!(
        "{name:>20}: {:5} parameters, {:4} sweeps, loss {:.5} on the entries fitted, {:.5} on those held out",
        fit.shapes().parameters(),
        history.iterations,
        history.last_loss(),
        history.heldout_loss.last().copied().unwrap_or(f64::NAN)
    );
}

fn main() -> nneinfact::Result<()> {
    let y = planted();
    // A fifth of the data was never measured: what stands there does not matter.
    let measured =
        Array3::from_shape_fn(SHAPE, |(i, j, a)| uniform(9, (i * 20 + j) * 16 + a) > 0.2);
    let mut holed = y.clone();
    holed.zip_mut_with(&measured, |y, &m| {
        if !m {
            *y = f64::NAN;
        }
    });
    // And a tenth of what was measured is withheld, to judge the models by.
    let observations = Observations::new(&holed).mask(&measured)?.held_out(0.1, 1)?;

    let loss = Loss::alpha_beta(0.7, 0.3)?;
    println!("{}: {}", loss.name(), loss.describe());
    let custom = NNEinFact::new(MODEL)?
        .ranks([('k', 3), ('q', 2)])
        .loss(loss.clone())
        .seed(1)
        .max_iter(2000)
        .fit(&observations)?;
    report(MODEL, &custom);
    for rank in [1, 6] {
        let cp = NNEinFact::new("ir,jr,ar->ija")?
            .ranks([('r', rank)])
            .loss(loss.clone())
            .seed(1)
            .max_iter(2000)
            .fit(&observations)?;
        report(&format!("CP of rank {rank}"), &cp);
    }

    // The entries that were never measured can be predicted all the same; here the truth is known.
    let whole = custom.reconstruct()?;
    let (mut error, mut total) = (0.0, 0.0);
    for ((at, &truth), &m) in y.indexed_iter().zip(&measured) {
        if !m {
            error += (whole[[at.0, at.1, at.2]] - truth).abs();
            total += truth;
        }
    }
    println!(
        "The entries that were never measured are predicted to within {:.1} % on average; the noise is 5 %.",
        100.0 * error / total
    );
    Ok(())
}
