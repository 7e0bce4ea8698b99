//! What the examples share: the variants of a fit, side by side from one start, as a table.

use nneinfact_density::{FittedTrain, LineSearch, Method, Schedule, Solver, TensorTrain, TrainFit};

/// Whether the program was started with `--quick`.
pub fn quick() -> bool {
    std::env::args().any(|a| a == "--quick")
}

type Change = fn(TrainFit<'static>) -> TrainFit<'static>;

/// The variants of NTT.md, section 11.
const VARIANTS: [(&str, Change); 10] = [
    ("fixed + direct", |f| {
        f.schedule(Schedule::Fixed).solver(Solver::Direct).line_search(LineSearch::Core)
    }),
    ("adaptive + direct", |f| {
        f.schedule(Schedule::Adaptive).solver(Solver::Direct).line_search(LineSearch::Core)
    }),
    ("adaptive + CG", |f| {
        f.schedule(Schedule::Adaptive).solver(Solver::Cg).line_search(LineSearch::Core)
    }),
    ("adaptive + PCG", |f| {
        let f = f.schedule(Schedule::Adaptive).solver(Solver::Pcg);
        f.line_search(LineSearch::Core).preconditioner_min(1e-12)
    }),
    ("balanced + direct, step per slice", |f| {
        f.schedule(Schedule::Balanced).solver(Solver::Direct)
    }),
    ("adaptive + direct, step per slice", |f| {
        f.schedule(Schedule::Adaptive).solver(Solver::Direct)
    }),
    ("adaptive + Jacobi, step per slice", |f| {
        f.schedule(Schedule::Adaptive).solver(Solver::Jacobi)
    }),
    ("hybrid + direct, step per slice", |f| f.solver(Solver::Direct)),
    ("multiplicative", |f| f.method(Method::Multiplicative)),
    ("coordinate descent", |f| f.method(Method::Descent)),
];

/// Fits all variants from one start and prints their errors. Returns the one with the least error.
pub fn compare(target: &TensorTrain, rank: usize, sweeps: usize) -> FittedTrain {
    println!(
        "\n{:36} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8}",
        "rel² after sweeps", 5, 10, 20, 40, "end", "seconds"
    );
    let mut best: Option<FittedTrain> = None;
    for (name, change) in VARIANTS {
        let fit = TrainFit::new().rank(rank).seed(2).sweeps(sweeps).target_error(0.0);
        let fit = change(fit).run(target).expect("the settings are in range");
        let after =
            |n: usize| fit.history.error.get(n).map_or("–".to_string(), |e| format!("{e:.1e}"));
        println!(
            "{name:36} {:>9} {:>9} {:>9} {:>9} {:>9.1e} {:>8.2}",
            after(5),
            after(10),
            after(20),
            after(40),
            fit.relative_squared_distance,
            fit.history.seconds.last().copied().unwrap_or(0.0)
        );
        let least = best
            .as_ref()
            .is_none_or(|b| fit.relative_squared_distance < b.relative_squared_distance);
        if least {
            best = Some(fit);
        }
    }
    best.expect("there are variants")
}
