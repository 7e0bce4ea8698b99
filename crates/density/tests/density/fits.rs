//! Golden fits: every core of every fit, within the tolerance of the case.

use nneinfact_density::{Core, LineSearch, Method, NonnegativeTrain, Schedule, Solver, TrainFit};
use serde_json::Value;

use crate::npz::Case;

/// A fit with the options of a case, for so many sweeps.
pub fn fit_of(case: &Case, sweeps: usize) -> TrainFit<'static> {
    let start = NonnegativeTrain::new(case.cores("init"), 0.0).unwrap();
    let fit = TrainFit::new().start(start).sweeps(sweeps).target_error(0.0);
    match case.json["method"].as_str().unwrap() {
        "newton" => newton(fit, &case.json["options"]),
        "multiplicative" => fit.method(Method::Multiplicative),
        "coordinate descent" => fit.method(Method::Descent),
        other => panic!("{other}"),
    }
}

fn newton(fit: TrainFit<'static>, options: &Value) -> TrainFit<'static> {
    let number = |key: &str| options[key].as_f64().unwrap();
    let count = |key: &str| options[key].as_u64().unwrap() as usize;
    let word = |key: &str| options[key].as_str().unwrap();
    assert_eq!((number("armijo"), number("shrink")), (0.1, 0.5), "constants of the line search");
    fit.schedule(match word("schedule") {
        "fixed" => Schedule::Fixed,
        "adaptive" => Schedule::Adaptive,
        "balanced" => Schedule::Balanced,
        "hybrid" => Schedule::Hybrid,
        other => panic!("{other}"),
    })
    .solver(match word("solver") {
        "direct" => Solver::Direct,
        "plain" | "cg" => Solver::Cg,
        "barrier" | "pcg" => Solver::Pcg,
        "jacobi" => Solver::Jacobi,
        other => panic!("{other}"),
    })
    .line_search(match word("line") {
        "core" => LineSearch::Core,
        "slice" => LineSearch::Slice,
        other => panic!("{other}"),
    })
    .sigma(number("sigma"))
    .barrier(number("mu0"))
    .barrier_min(number("mu_min"))
    .cg_max(count("cg_max"))
    .cg_tol(number("cg_tol"))
    .preconditioner_min(number("pre_min"))
    .decay(number("decay"))
    .switch(count("switch"))
    .inner(count("inner"))
}

/// Cores agree to a tolerance relative to the largest entry of each.
pub fn assert_cores(got: &[Core], want: &[Core], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len());
    for (k, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.shape(), want.shape());
        let top = want.data().iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        for (g, w) in got.data().iter().zip(want.data()) {
            assert!((g - w).abs() <= tolerance * top, "{what}, core {k}: {g} for {w}");
        }
    }
}

fn check(name: &str) {
    let case = Case::read(name);
    let tolerance = case.number("tolerance");
    let target = case.train("target");
    let one = fit_of(&case, 1).run(&target).unwrap();
    assert_cores(one.train.train().cores(), &case.cores("after1"), tolerance, "after one sweep");
    let sweeps = case.number("sweeps") as usize;
    let fit = fit_of(&case, sweeps).run(&target).unwrap();
    assert_eq!(fit.train.train().log_scale(), 0.0);
    assert_cores(fit.train.train().cores(), &case.cores("expected"), tolerance, "at the end");
    assert_eq!(fit.history.sweeps, sweeps);
    let close = |got: &[f64], want: &[f64], what: &str| {
        assert_eq!(got.len(), want.len());
        for (sweep, (g, w)) in got.iter().zip(want).enumerate() {
            let allowed = 1e-13 + tolerance * w.abs();
            assert!((g - w).abs() <= allowed, "{what} after sweep {sweep}: {g} for {w}");
        }
    };
    close(&fit.history.error, &case.numbers("rel2"), "error");
    let accurate = case.number("rel2_final_accurate");
    assert!((fit.relative_squared_distance / accurate - 1.0).abs() < 100.0 * tolerance);
    if case.json["method"] == "newton" {
        close(&fit.history.barrier, &case.numbers("mu_after"), "barrier");
        close(&fit.history.step, &case.numbers("tmin"), "step");
    }
}

#[test]
fn newton_with_a_fixed_barrier() {
    check("01_newton_fixed_direct");
}

#[test]
fn newton_with_an_adaptive_barrier() {
    check("02_newton_adaptive_direct");
}

#[test]
fn newton_by_preconditioned_conjugate_gradients() {
    check("03_newton_adaptive_pcg");
}

#[test]
fn newton_by_jacobi_and_a_step_per_slice() {
    check("04_newton_adaptive_jacobi_slice");
}

#[test]
fn multiplicative_updates() {
    check("05_multiplicative");
}

#[test]
fn coordinate_descent() {
    check("06_coordinate_descent");
}
