//! Example 4: a periodic Ising chain from samples: sketch, barrier Newton, maximum likelihood.

use nneinfact::density::{Core, Density, NonnegativeTrain, Sketch};

use crate::variants::Comparison;
use crate::{Failure, Options, samples};

/// The exact train, of rank 4: the state is (first spin, last spin).
fn chain(d: usize, beta: f64) -> Result<NonnegativeTrain, Failure> {
    let bond = |s: usize, t: usize| if s == t { beta.exp() } else { (-beta).exp() };
    let core = |k: usize| {
        let (left, right) = (if k == 0 { 1 } else { 4 }, if k == d - 1 { 1 } else { 4 });
        let mut data = vec![0.0; left * 2 * right];
        for a in 0..left {
            for i in 0..2 {
                let first = if k == 0 { i } else { a / 2 };
                let weight = if k == 0 { 1.0 } else { bond(a % 2, i) };
                let (b, close) =
                    if k == d - 1 { (0, bond(i, first)) } else { (2 * first + i, 1.0) };
                data[(a * 2 + i) * right + b] = weight * close;
            }
        }
        Core::new([left, 2, right], data)
    };
    Ok(NonnegativeTrain::new((0..d).map(core).collect::<Result<_, _>>()?, 0.0)?)
}

pub fn run(options: &Options) -> Result<(), Failure> {
    let (d, samples, sweeps) = if options.quick { (16, 20_000, 15) } else { (30, 50_000, 40) };
    let beta: f64 = 0.5;
    let truth = Density::new(&chain(d, beta)?)?;
    let t = beta.tanh();
    let n = d as f64;
    let entropy =
        truth.log_partition() - beta * n * (t + t.powi(d as i32 - 1)) / (1.0 + t.powi(d as i32));
    let (train, fresh) = (truth.sample(samples, 1)?, truth.sample(samples, 2)?);
    let found = Sketch::new(vec![2; d]).rank(4).run(&train, None)?;
    let middle = &found.singular_values[d / 2 - 1];
    println!("sketch: singular values in the middle {:.3?}", &middle[..6.min(middle.len())]);
    let distance = truth.to_train().train().relative_squared_distance(&found.train)?;
    println!("squared relative distance of the sketch to the truth {distance:.1e}");
    let title = "Periodic Ising chain";
    let compared =
        Comparison { title, file: "periodic_ising", target: &found.train, rank: 8, sweeps };
    compared.run(options)?;
    let learnt = samples::learn(&found.train, &train, 8, sweeps)?;
    println!("\nentropy {entropy:.4}, which the truth's likelihood of infinitely many samples has");
    let of_truth = [truth.nll(&train, None)?.mean, truth.nll(&fresh, None)?.mean];
    samples::print_nll(of_truth, &learnt, [&train, &fresh])
}
