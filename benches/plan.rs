//! How long planning takes by the number of factors: `cargo bench --bench plan`.
//!
//! Data are dense, or coordinates of a million entries. Up to eight factors everything is compared,
//! beyond that the search is of polynomial time.

#[path = "../tests/common/many.rs"]
mod many;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use nneinfact::plan::{DataInfo, ImplicitForm, Plan, PlanSettings, SparseInfo};

fn planning(c: &mut Criterion) {
    let stored = SparseInfo { stored: 1_000_000, masked: 0, implicit: ImplicitForm::Gram };
    for (form, sparse) in [("dense", None), ("sparse", Some(stored))] {
        let mut group = c.benchmark_group(format!("plan {form}"));
        group.sample_size(10);
        for kind in many::KINDS {
            for factors in [4, 8, 12, 16, 24, 32, 48, 64] {
                let shapes = many::model(kind, factors);
                let data = DataInfo::c_order(&shapes, 4);
                let settings = PlanSettings { sparse, ..PlanSettings::default() };
                group.bench_function(BenchmarkId::new(kind, factors), |b| {
                    b.iter(|| Plan::new(&shapes, &data, &settings).expect("a plan"));
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, planning);
criterion_main!(benches);
