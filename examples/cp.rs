//! CP decomposition: a tensor of rank 3 taken apart, under several losses.
//!
//! Run with `cargo run --example cp`.

use ndarray::{Array2, Array3};
use nneinfact::data::uniform_u32;
use nneinfact::{Loss, NNEinFact};

const RANK: usize = 3;

/// A number in (0, 1) that is the same on every run.
fn uniform(stream: u32, index: usize) -> f64 {
    (f64::from(uniform_u32(2, stream, index as u64)) + 0.5) / 4294967296.0
}

/// A factor with many small entries and some large ones.
fn factor(rows: usize, stream: u32) -> Array2<f64> {
    Array2::from_shape_fn((rows, RANK), |(i, r)| 0.02 + uniform(stream, RANK * i + r).powi(4))
}

/// The cosine between column `r` of one factor and column `s` of another.
fn cosine(a: &Array2<f64>, r: usize, b: &Array2<f64>, s: usize) -> f64 {
    let (a, b) = (a.column(r), b.column(s));
    a.dot(&b) / (a.dot(&a) * b.dot(&b)).sqrt()
}

fn main() -> nneinfact::Result<()> {
    let truth = [factor(30, 0), factor(25, 1), factor(20, 2)];
    let y = Array3::from_shape_fn((30, 25, 20), |(i, j, a)| {
        let signal: f64 =
            (0..RANK).map(|r| truth[0][(i, r)] * truth[1][(j, r)] * truth[2][(a, r)]).sum();
        signal * (0.9 + 0.2 * uniform(3, (25 * i + j) * 20 + a))
    });

    println!("ir,jr,ar->ija on data of rank {RANK} with 10 % noise:");
    for loss in [Loss::kl(), Loss::euclidean(), Loss::itakura_saito(), Loss::hellinger()] {
        let name = loss.name().to_string();
        let fit = NNEinFact::new("ir,jr,ar->ija")?
            .ranks([('r', RANK)])
            .loss(loss)
            .seed(1)
            .max_iter(1000)
            .fit(&y)?;
        let mut found = Vec::new();
        for factor in fit.factors() {
            found.push(factor.clone().into_dimensionality::<ndarray::Ix2>().expect("a matrix"));
        }
        // A component is found if it is found in all three modes: the least similar one counts.
        let matched: Vec<f64> = (0..RANK)
            .map(|r| {
                let in_all = |s: usize| {
                    truth.iter().zip(&found).map(|(t, f)| cosine(t, r, f, s)).fold(1.0, f64::min)
                };
                (0..RANK).map(in_all).fold(0.0, f64::max)
            })
            .collect();
        let history = fit.history();
        println!(
            "{name:>14}: loss {:9.3e} -> {:9.3e} in {:4} sweeps; components found with similarity {:.3}, {:.3}, {:.3}",
            history.loss[0],
            history.last_loss(),
            history.iterations,
            matched[0],
            matched[1],
            matched[2]
        );
    }
    Ok(())
}
