//! Sweeps of the CPU engine: `cargo bench --bench sweep`.
//!
//! Each figure is the time of a fit of [`SWEEPS`] grouped sweeps on made-up counts, the upload and
//! the evaluation of the last point included; the throughput counts entries × passes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array4;
use nneinfact::{Algorithm, Loss, NNEinFact, Observations, Precision};

const SWEEPS: usize = 3;

/// Sparse counts over 24 × 24 × 64 × 64 cells.
fn counts() -> Observations {
    let mut state = 1u64;
    let y = Array4::from_shape_simple_fn((24, 24, 64, 64), || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        if state >> 58 == 0 { ((state >> 40) & 15) as u16 } else { 0 }
    });
    Observations::new(&y)
}

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
                        NNEinFact::new("ar,br,ir,jr->abij")
                            .and_then(|fit| {
                                fit.ranks([('r', rank)])
                                    .loss(loss.clone())
                                    .precision(precision)
                                    .algorithm(Algorithm::Grouped)
                                    .max_iter(SWEEPS)
                                    .tolerance(0.0)
                                    .fit(&data)
                            })
                            .expect("the fit runs")
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, sweeps);
criterion_main!(benches);
