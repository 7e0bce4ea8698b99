//! Passes and sweeps of the CPU engine: `cargo bench --bench sweep`.
//!
//! A figure of `pass` is the time of the passes of one sweep, from the factors to the sums, on data
//! that are in memory. A figure of the others is the time of a fit of [`SWEEPS`] sweeps on made-up
//! counts, the upload and the evaluation of the last point included. The throughput counts entries
//! (nonzeros where the data are a list) × passes, for block sweeps a pass for each factor.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array4;
use nneinfact::data::CooTensor;
use nneinfact::fit::Format;
use nneinfact::{Algorithm, Device, Loss, NNEinFact, Observations, Precision};

const SWEEPS: usize = 3;
const MODEL: &str = "ar,br,ir,jr->abij";

/// Sparse counts over 24 × 24 × 64 × 64 cells.
fn counts() -> Observations {
    let mut state = 1u64;
    let y = Array4::from_shape_simple_fn((24, 24, 64, 64), || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        if state >> 58 == 0 { ((state >> 40) & 15) as u16 } else { 0 }
    });
    Observations::new(&y)
}

/// Counts at cells that are spread evenly over 2000 × 2000 × 500.
fn listed(nonzeros: usize) -> Observations {
    let shape = [2000, 2000, 500];
    let mut state = 1u64;
    let mut indices = vec![Vec::new(); shape.len()];
    for _ in 0..nonzeros {
        for (index, n) in indices.iter_mut().zip(shape) {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            index.push((state >> 33) % n as u64);
        }
    }
    let values: Vec<f64> = (0..nonzeros).map(|i| (i % 7 + 1) as f64).collect();
    Observations::new(CooTensor::new(&shape, &indices, &values).expect("valid coordinates"))
}

fn settings(model: &str, rank: usize, loss: &Loss) -> NNEinFact {
    NNEinFact::new(model)
        .expect("a valid model")
        .ranks([('r', rank)])
        .loss(loss.clone())
        .device(Device::cpu())
        .max_iter(SWEEPS)
        .tolerance(0.0)
}

/// Dense passes, at several inner sizes.
fn passes(c: &mut Criterion) {
    let data = counts();
    let entries = data.values().len() as u64;
    let losses = [
        ("kl", Loss::kl()),
        ("alpha-beta(0.7, 0)", Loss::alpha_beta(0.7, 0.0).expect("a valid loss")),
    ];
    let mut group = c.benchmark_group("pass");
    group.sample_size(10).throughput(Throughput::Elements(entries * 2));
    for (name, loss) in losses {
        for rank in [4, 10, 40, 195] {
            group.bench_function(BenchmarkId::new(name, rank), |b| {
                b.iter_custom(|iterations| {
                    let (_, times, _) = settings(MODEL, rank, &loss)
                        .data_as(Format::Dense)
                        .profile(&data, iterations as usize)
                        .expect("the passes run");
                    let seconds: f64 = times.iter().map(|time| time.seconds).sum();
                    Duration::from_secs_f64(seconds * iterations as f64)
                });
            });
        }
    }
    group.finish();
}

/// The algorithms side by side.
fn algorithms(c: &mut Criterion) {
    let data = counts();
    let entries = data.values().len() as u64;
    let mut group = c.benchmark_group("algorithm");
    group.sample_size(10);
    for (algorithm, passes) in
        [(Algorithm::Block, 4), (Algorithm::Grouped, 2), (Algorithm::Accelerated, 2)]
    {
        group.throughput(Throughput::Elements(entries * passes * SWEEPS as u64));
        group.bench_function(algorithm.name(), |b| {
            b.iter(|| {
                settings(MODEL, 10, &Loss::kl())
                    .data_as(Format::Dense)
                    .algorithm(algorithm)
                    .fit(&data)
                    .expect("the fit runs")
            });
        });
    }
    group.finish();
}

/// Data given as a list of what is not 0.
fn lists(c: &mut Criterion) {
    let mut group = c.benchmark_group("list");
    group.sample_size(10);
    for nonzeros in [10_000, 300_000] {
        let data = listed(nonzeros);
        group.throughput(Throughput::Elements((nonzeros * 2 * SWEEPS) as u64));
        for (name, loss) in [("kl", Loss::kl()), ("euclidean", Loss::euclidean())] {
            group.bench_function(BenchmarkId::new(name, nonzeros), |b| {
                b.iter(|| {
                    settings("ir,jr,kr->ijk", 10, &loss)
                        .algorithm(Algorithm::Grouped)
                        .fit(&data)
                        .expect("the fit runs")
                });
            });
        }
    }
    group.finish();
}

/// Grouped sweeps by loss, inner size and precision.
fn sweeps(c: &mut Criterion) {
    let data = counts();
    let entries = data.values().len() as u64;
    let losses = [
        ("kl", Loss::kl()),
        ("euclidean", Loss::euclidean()),
        ("alpha-beta(0.7, 0)", Loss::alpha_beta(0.7, 0.0).expect("a valid loss")),
        ("alpha-beta(1.3, 1)", Loss::alpha_beta(1.3, 1.0).expect("a valid loss")),
    ];
    let mut group = c.benchmark_group("sweep");
    group.sample_size(10).throughput(Throughput::Elements(entries * 2 * SWEEPS as u64));
    for (name, loss) in losses {
        for rank in [4, 10, 40] {
            for precision in [Precision::F32, Precision::F64] {
                let id = BenchmarkId::new(format!("{name} {}", precision.name()), rank);
                group.bench_function(id, |b| {
                    b.iter(|| {
                        settings(MODEL, rank, &loss)
                            .precision(precision)
                            .algorithm(Algorithm::Grouped)
                            .fit(&data)
                            .expect("the fit runs")
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, passes, algorithms, lists, sweeps);
criterion_main!(benches);
