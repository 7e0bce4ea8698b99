//! Tucker decomposition: three modes grouped into clusters, and a core that says which clusters go
//! together.
//!
//! Run with `cargo run --example tucker`.

use ndarray::{Array2, Array3, Ix2};
use nneinfact::data::uniform_u32;
use nneinfact::{Loss, NNEinFact};

/// A number in (0, 1) that is the same on every run.
fn uniform(stream: u32, index: usize) -> f64 {
    (f64::from(uniform_u32(3, stream, index as u64)) + 0.5) / 4294967296.0
}

/// Every row belongs to one cluster, more or less strongly.
fn memberships(rows: usize, clusters: usize, stream: u32) -> Array2<f64> {
    Array2::from_shape_fn((rows, clusters), |(i, c)| {
        if i % clusters == c { 0.5 + uniform(stream, i) } else { 0.0 }
    })
}

fn main() -> nneinfact::Result<()> {
    let (users, shops, hours) =
        (memberships(36, 3, 0), memberships(28, 2, 1), memberships(24, 2, 2));
    let core = Array3::from_shape_fn((3, 2, 2), |(c, e, f)| 10.0 * uniform(3, 4 * c + 2 * e + f));
    let y = Array3::from_shape_fn((36, 28, 24), |(i, j, a)| {
        let mut rate = 0.0;
        for ((c, e, f), weight) in core.indexed_iter() {
            rate += users[(i, c)] * shops[(j, e)] * hours[(a, f)] * weight;
        }
        // Counts: the rate, rounded up or down at random.
        (rate + uniform(4, (28 * i + j) * 24 + a)).floor()
    });

    let fit = NNEinFact::new("ic,je,af,cef->ija")?
        .ranks([('c', 3), ('e', 2), ('f', 2)])
        .loss(Loss::kl())
        .seed(4)
        .max_iter(2000)
        .fit(&y)?;

    let history = fit.history();
    println!("{} entries are described by {} parameters.", y.len(), fit.shapes().parameters());
    println!(
        "The KL divergence per entry fell from {:.3} to {:.4} in {} sweeps.",
        history.loss[0],
        history.last_loss(),
        history.iterations
    );
    // Rows are clustered by their largest entry; clusters come in any order, so what is checked is
    // whether two rows are together.
    let found = fit.factors()[0].clone().into_dimensionality::<Ix2>().expect("a matrix");
    let cluster: Vec<usize> = (found.rows().into_iter())
        .map(|row| (0..3).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0))
        .collect();
    let pairs: Vec<(usize, usize)> = (0..36).flat_map(|i| (0..i).map(move |j| (i, j))).collect();
    let right =
        pairs.iter().filter(|&&(i, j)| (cluster[i] == cluster[j]) == (i % 3 == j % 3)).count();
    println!("Of {} pairs of users, {right} are rightly together or apart.", pairs.len());
    println!("\nThe plan that was carried out:\n{}", fit.plan());
    Ok(())
}
