//! Distributions and trains against forming everything.

use nneinfact_density::{Core, Density, Indices, NonnegativeTrain, TensorTrain};

use crate::properties::ising;

const SIZES: [usize; 5] = [3, 2, 4, 1, 3];

fn all_tuples() -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for n in SIZES {
        all = all
            .iter()
            .flat_map(|t: &Vec<usize>| (0..n).map(move |i| [&t[..], &[i]].concat()))
            .collect();
    }
    all
}

fn density(seed: u64) -> (Density, Vec<f64>) {
    let train = NonnegativeTrain::random(&SIZES, &[2, 3, 3, 2], seed).unwrap();
    let entries = train.train().to_dense().unwrap();
    let sum: f64 = entries.iter().sum();
    let density = Density::new(&train).unwrap();
    assert!((density.log_partition() - sum.ln()).abs() < 1e-12);
    (density, entries.iter().map(|x| x / sum).collect())
}

fn close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() < 1e-12, "{got} {want}");
    }
}

/// The marginal of some modes, by adding up the table of all.
fn marginal(p: &[f64], modes: &[usize]) -> Vec<f64> {
    let mut out = vec![0.0; modes.iter().map(|&k| SIZES[k]).product()];
    for (tuple, p) in all_tuples().iter().zip(p) {
        out[modes.iter().fold(0, |at, &k| at * SIZES[k] + tuple[k])] += p;
    }
    out
}

#[test]
fn probabilities_and_the_markov_form() {
    let (density, p) = density(1);
    let tuples = Indices::new(5, all_tuples().concat()).unwrap();
    let got: Vec<f64> =
        density.log_probabilities(&tuples).unwrap().iter().map(|x| x.exp()).collect();
    close(&got, &p);
    for core in density.markov_cores() {
        for row in core.data().chunks_exact(core.size() * core.right()) {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-14);
        }
    }
    let again = Density::new(&density.to_train()).unwrap();
    assert!(again.log_partition().abs() < 1e-13);
}

#[test]
fn marginals_and_conditionals() {
    let (density, p) = density(2);
    for modes in [vec![], vec![0], vec![3], vec![1, 4], vec![0, 2, 3], vec![0, 1, 2, 3, 4]] {
        close(density.marginal(&modes).unwrap().values(), &marginal(&p, &modes));
    }
    for (k, single) in density.single_marginals().iter().enumerate() {
        close(single, &marginal(&p, &[k]));
    }
    let given = density.conditional(&[(2, 3), (0, 1)]).unwrap();
    let fixed: Vec<f64> = all_tuples()
        .iter()
        .zip(&p)
        .map(|(t, &p)| if t[2] == 3 && t[0] == 1 { p } else { 0.0 })
        .collect();
    let sum: f64 = fixed.iter().sum();
    assert!((given.log_probability - sum.ln()).abs() < 1e-12);
    let want: Vec<f64> = marginal(&fixed, &[1, 4]).iter().map(|x| x / sum).collect();
    close(given.density.marginal(&[1, 4]).unwrap().values(), &want);
    let samples = given.density.sample(50, 3).unwrap();
    assert!(samples.iter().all(|t| t[0] == 0 && t[2] == 0), "modes of size 1");
}

#[test]
fn moments_and_information() {
    let (density, p) = density(3);
    let f: Vec<Vec<f64>> =
        SIZES.iter().map(|&n| (0..n).map(|i| 5.0 + (i as f64 * 1.7).sin()).collect()).collect();
    let tuples = all_tuples();
    let mean =
        |g: &dyn Fn(&[usize]) -> f64| -> f64 { tuples.iter().zip(&p).map(|(t, p)| p * g(t)).sum() };
    let moments = density.covariance(&f).unwrap();
    for k in 0..5 {
        let m = mean(&|t| f[k][t[k]]);
        assert!((moments.mean[k] - m).abs() < 1e-12);
        for l in 0..5 {
            let n = mean(&|t| f[l][t[l]]);
            let want = mean(&|t| (f[k][t[k]] - m) * (f[l][t[l]] - n));
            assert!((moments.covariance[k * 5 + l] - want).abs() < 1e-13);
        }
    }
    let some: Vec<Option<&[f64]>> =
        f.iter().enumerate().map(|(k, f)| (k % 2 == 0).then_some(&f[..])).collect();
    let want = mean(&|t| f[0][t[0]] * f[2][t[2]] * f[4][t[4]]);
    assert!((density.expectation(&some).unwrap() - want).abs() < 1e-10);
    let information = density.mutual_information();
    for k in 0..5 {
        for l in 0..5 {
            let (a, b) = (marginal(&p, &[k]), marginal(&p, &[l]));
            let want: f64 = if k == l {
                a.iter().map(|p| -p * p.ln()).sum()
            } else {
                let joint = marginal(&p, &[k.min(l), k.max(l)]);
                let (a, b) = if k < l { (a, b) } else { (b, a) };
                let pairs = a.iter().flat_map(|a| b.iter().map(move |b| a * b));
                joint.iter().zip(pairs).map(|(p, q)| p * (p / q).ln()).sum()
            };
            assert!((information[k * 5 + l] - want).abs() < 1e-12, "{k} {l}");
        }
    }
}

#[test]
fn latent_states() {
    let (density, _) = density(4);
    let tuple = [1, 0, 2, 0, 1];
    let cores = density.markov_cores();
    let states = density.states_given(&tuple).unwrap();
    for (bond, states) in states.iter().enumerate() {
        // Probabilities of the tuple together with each state of the bond.
        let through = |state: usize| -> f64 {
            let mut v = vec![1.0];
            for (k, core) in cores.iter().enumerate() {
                let next = (0..core.right()).map(|b| {
                    let sum: f64 =
                        (0..core.left()).map(|a| v[a] * core.get(a, tuple[k], b).unwrap()).sum();
                    if k == bond && b != state { 0.0 } else { sum }
                });
                v = next.collect();
            }
            v[0]
        };
        let joint: Vec<f64> = (0..states.len()).map(through).collect();
        let sum: f64 = joint.iter().sum();
        close(states, &joint.iter().map(|x| x / sum).collect::<Vec<_>>());
    }
}

#[test]
fn samples_have_the_distribution() {
    let (density, p) = density(5);
    let n = 200_000;
    let samples = density.sample(n, 11).unwrap();
    let mut counts = vec![0.0; p.len()];
    for tuple in samples.iter() {
        counts[tuple.iter().zip(SIZES).fold(0, |at, (&i, n)| at * n + i)] += 1.0;
    }
    let chi2: f64 =
        counts.iter().zip(&p).map(|(c, p)| (c - n as f64 * p).powi(2) / (n as f64 * p)).sum();
    // 71 degrees of freedom: mean 71, standard deviation 12.
    assert!((30.0..120.0).contains(&chi2), "{chi2}");
    // Few samples are the first of many.
    assert_eq!(density.sample(100, 11).unwrap().data(), &samples.data()[..500]);
}

#[test]
fn the_periodic_chain_in_closed_form() {
    for (d, beta) in [(14, 0.7), (30, 0.5), (200, 1.3)] {
        let density = Density::new(&ising(d, beta)).unwrap();
        let t = f64::tanh(beta);
        let n = d as f64;
        let log_z = n * (2.0 * beta.cosh()).ln() + t.powi(d as i32).ln_1p();
        assert!((density.log_partition() - log_z).abs() < 1e-10 * log_z);
        // Neighbours: E[s s'] = (t + t^(d-1)) / (1 + t^d).
        let moments = density.covariance(&vec![vec![-1.0, 1.0]; d]).unwrap();
        let want = (t + t.powi(d as i32 - 1)) / (1.0 + t.powi(d as i32));
        assert!((moments.covariance[1] - want).abs() < 1e-11);
        assert!((moments.covariance[d - 1] - want).abs() < 1e-11);
        assert!(moments.mean.iter().all(|m| m.abs() < 1e-12));
    }
}

/// Two trains of any sign.
fn pair() -> (TensorTrain, TensorTrain) {
    let train = |seed: u64, ranks: &[usize]| {
        let (cores, _) =
            NonnegativeTrain::random(&SIZES, ranks, seed).unwrap().into_train().into_parts();
        let cores = cores
            .into_iter()
            .map(|c| Core::new(c.shape(), c.data().iter().map(|x| x - 0.5).collect()).unwrap());
        TensorTrain::new(cores.collect(), 1.5).unwrap()
    };
    (train(1, &[2, 3, 3, 2]), train(2, &[3, 1, 2, 3]))
}

#[test]
fn algebra_of_trains() {
    let (a, b) = pair();
    let (x, y) = (a.to_dense().unwrap(), b.to_dense().unwrap());
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let scale = dot(&x, &x).sqrt();
    let (sign, log) = a.log_inner(&b).unwrap();
    assert!((sign * log.exp() - dot(&x, &y)).abs() < 1e-11 * scale);
    assert!((a.log_norm().exp() - scale).abs() < 1e-12 * scale);
    let sum: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
    let difference: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x - y).collect();
    for (got, want) in [(a.plus(&b).unwrap(), &sum), (a.minus(&b).unwrap(), &difference)] {
        for (got, want) in got.to_dense().unwrap().iter().zip(want) {
            assert!((got - want).abs() < 1e-12 * scale);
        }
    }
    let relative = a.relative_squared_distance(&b).unwrap();
    assert!((relative / (dot(&difference, &difference) / dot(&x, &x)) - 1.0).abs() < 1e-12);
    let (sign, log) = a.log_sum();
    assert!((sign * log.exp() - x.iter().sum::<f64>()).abs() < 1e-12 * scale);
    let balanced = a.balanced().unwrap();
    assert!(a.relative_squared_distance(&balanced).unwrap() < 1e-28);
}

#[test]
fn rounding_keeps_what_it_promises() {
    let (a, b) = pair();
    let sum = a.plus(&b).unwrap();
    let double = sum.plus(&sum).unwrap();
    let exact = double.rounded(1e-13, None).unwrap();
    assert!(exact.ranks().iter().zip(sum.ranks()).all(|(&r, s)| r <= s), "{:?}", exact.ranks());
    assert!(double.relative_squared_distance(&exact).unwrap() < 1e-25);
    for tol in [0.5, 0.1, 0.01] {
        let rounded = sum.rounded(tol, None).unwrap();
        assert!(sum.relative_squared_distance(&rounded).unwrap() <= tol * tol);
        assert!(rounded.ranks().iter().zip(sum.ranks()).all(|(&r, s)| r <= s));
    }
    let one = sum.rounded(0.0, Some(1)).unwrap();
    assert_eq!(one.ranks(), [1; 4]);
}
