//! Properties: exact invariances, the same bits for any number of threads, and how far fits come.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nneinfact_density::{
    Core, Cross, Density, Em, FittedTrain, LineSearch, Method, NonnegativeTrain, Schedule, Sketch,
    Solver, StoppedBy, TensorTrain, TrainFit,
};

/// The exact train of a periodic Ising chain, of rank 4: the state is (first spin, last spin).
pub fn ising(d: usize, beta: f64) -> NonnegativeTrain {
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
        Core::new([left, 2, right], data).unwrap()
    };
    NonnegativeTrain::new((0..d).map(core).collect(), 0.0).unwrap()
}

/// The train of exp(-β Σ (x_k − x_{k+1})²) on a grid of n points in [-1, 1], by its eigenvectors: of
/// rank n, exactly.
fn gibbs(d: usize, n: usize, beta: f64) -> TensorTrain {
    let x = |i: usize| 2.0 * i as f64 / (n - 1) as f64 - 1.0;
    let core = |k: usize| {
        let (left, right) = (if k == 0 { 1 } else { n }, if k == d - 1 { 1 } else { n });
        let mut data = vec![0.0; left * n * right];
        for a in 0..left {
            for i in 0..n {
                let weight = if k == 0 { 1.0 } else { (-beta * (x(a) - x(i)).powi(2)).exp() };
                data[(a * n + i) * right + if k == d - 1 { 0 } else { i }] = weight;
            }
        }
        Core::new([left, n, right], data).unwrap()
    };
    TensorTrain::new((0..d).map(core).collect(), 0.0).unwrap()
}

fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn bits(train: &TensorTrain) -> Vec<u64> {
    train.cores().iter().flat_map(Core::data).map(|x| x.to_bits()).collect()
}

/// The same tensor, with cores times powers of two.
fn shifted(start: &NonnegativeTrain, shifts: [i32; 5]) -> NonnegativeTrain {
    assert_eq!(shifts.iter().sum::<i32>(), 0);
    let cores = start.train().cores().iter().zip(shifts).map(|(c, e)| {
        let data = c.data().iter().map(|x| x * 2f64.powi(e)).collect();
        Core::new(c.shape(), data).unwrap()
    });
    NonnegativeTrain::new(cores.collect(), start.train().log_scale()).unwrap()
}

#[test]
fn powers_of_two_between_the_cores_change_no_bit() {
    let target = gibbs(5, 6, 1.0).rounded(1e-4, None).unwrap();
    let ones = target.scaled((-target.log_norm()).exp()).unwrap();
    let start = TrainFit::new().rank(3).sweeps(0).seed(7).run(&ones).unwrap().train;
    let shifts = [7, -12, 9, 3, -7];
    let moved = shifted(&start, shifts);
    // So far that a sweep ends with powers of two moved between the cores.
    let far = shifted(&start, [80, -75, 0, -5, 0]);
    let newton = [Solver::Direct, Solver::Pcg, Solver::Jacobi].map(|s| (Method::Newton, Some(s)));
    let first_order = [(Method::Multiplicative, None), (Method::Descent, None)];
    for (method, solver) in newton.into_iter().chain(first_order) {
        for schedule in [Schedule::Fixed, Schedule::Adaptive, Schedule::Balanced, Schedule::Hybrid]
        {
            if method != Method::Newton && schedule != Schedule::Fixed {
                continue;
            }
            let run = |start: &NonnegativeTrain| {
                let mut fit = TrainFit::new().start(start.clone()).method(method).sweeps(12);
                if let Some(solver) = solver {
                    fit = fit.solver(solver).schedule(schedule);
                }
                fit.target_error(0.0).run(&ones).unwrap()
            };
            let (one, other) = (run(&start), run(&moved));
            let what = format!("{method:?} {solver:?} {schedule:?}");
            assert_eq!(one.history.error, other.history.error, "{what}");
            assert_eq!(one.history.step, other.history.step, "{what}");
            assert_eq!(one.history.error, run(&far).history.error, "{what}");
            let cores = one.train.train().cores().iter().zip(other.train.train().cores());
            for ((a, b), e) in cores.zip(shifts) {
                let b: Vec<f64> = b.data().iter().map(|x| x * 2f64.powi(-e)).collect();
                assert_eq!(a.data(), b, "{what}");
            }
        }
    }
}

#[test]
fn a_fit_has_the_same_bits_for_any_number_of_threads() {
    let target = gibbs(4, 12, 1.0).rounded(1e-5, None).unwrap();
    for solver in [Solver::Direct, Solver::Cg, Solver::Pcg, Solver::Jacobi] {
        for line in [LineSearch::Core, LineSearch::Slice] {
            let run = || {
                let fit = TrainFit::new().rank(8).sweeps(3).seed(1);
                fit.solver(solver).line_search(line).run(&target).unwrap()
            };
            let (one, two, three) =
                (with_threads(1, run), with_threads(2, run), with_threads(3, run));
            assert_eq!(bits(one.train.train()), bits(two.train.train()), "{solver:?} {line:?}");
            assert_eq!(bits(one.train.train()), bits(three.train.train()), "{solver:?} {line:?}");
            assert_eq!(one.history.error, two.history.error);
        }
    }
}

#[test]
fn everything_else_has_the_same_bits_for_any_number_of_threads() {
    let truth = Density::new(&ising(12, 0.5)).unwrap();
    let all = || {
        let samples = truth.sample(3000, 5).unwrap();
        let sketch = Sketch::new(vec![2; 12]).rank(4).run(&samples, None).unwrap().train;
        let start = NonnegativeTrain::random(&[2; 12], &[4; 11], 1).unwrap();
        let em = Em::new().sweeps(3).run(&Density::new(&start).unwrap(), &samples, None).unwrap();
        let f = |x: &[usize]| 1.0 / (1.0 + x.iter().sum::<usize>() as f64);
        let cross = Cross::new(vec![8; 6]).tol(1e-7).run(f).unwrap();
        let numbers = [truth.mutual_information(), em.nll, cross.errors].concat();
        let numbers: Vec<u64> = numbers.iter().map(|x| x.to_bits()).collect();
        let em = bits(em.density.to_train().train());
        (samples, bits(&sketch), em, bits(&cross.train), numbers)
    };
    let one = with_threads(1, all);
    assert!(one == with_threads(2, all));
    assert!(one == with_threads(3, all));
}

fn fit(target: &TensorTrain, rank: usize, schedule: Schedule, sweeps: usize) -> FittedTrain {
    let fit = TrainFit::new().rank(rank).schedule(schedule).sweeps(sweeps).target_error(0.0);
    fit.seed(2).run(target).unwrap()
}

/// The goals of NTT.md, section 11, for the Gibbs kernel and the periodic chain.
#[test]
fn a_gibbs_kernel_is_fitted_to_machine_precision() {
    let target = gibbs(12, 16, 1.0).rounded(1e-15, Some(4)).unwrap();
    let balanced = fit(&target, 6, Schedule::Balanced, 60);
    assert!(balanced.relative_squared_distance <= 1e-13, "{balanced:?}");
    let first = fit(&target, 6, Schedule::Hybrid, 10).relative_squared_distance;
    let slow = TrainFit::new().rank(6).method(Method::Multiplicative).sweeps(40).target_error(0.0);
    let slow = slow.seed(2).run(&target).unwrap().relative_squared_distance;
    assert!(first < 1e-3 && slow > 1e-3, "{first} {slow}");
}

#[test]
fn a_periodic_chain_leaves_its_plateau() {
    let target = ising(30, 0.5).into_train();
    let reached = (2..5)
        .map(|seed| {
            let fit = TrainFit::new().rank(8).sweeps(40).target_error(0.0).seed(seed);
            fit.run(&target).unwrap().relative_squared_distance
        })
        .filter(|&error| error <= 1e-3)
        .count();
    assert!(reached >= 2, "{reached}");
    let slow = TrainFit::new().rank(8).method(Method::Multiplicative).sweeps(40).target_error(0.0);
    assert!(slow.seed(2).run(&target).unwrap().relative_squared_distance > 0.1);
}

#[test]
fn fits_do_not_depend_on_the_scale_of_the_target() {
    let target = gibbs(5, 6, 1.0);
    let (cores, _) = target.clone().into_parts();
    let huge = TensorTrain::new(cores, 5000.0).unwrap();
    let (a, b) = (fit(&target, 4, Schedule::Hybrid, 12), fit(&huge, 4, Schedule::Hybrid, 12));
    for (a, b) in a.history.error.iter().zip(&b.history.error) {
        assert!((a - b).abs() < 1e-9 * a + 1e-13);
    }
    let shift = b.train.train().log_norm() - a.train.train().log_norm();
    assert!((shift - 5000.0).abs() < 1e-6, "{shift}");
}

#[test]
fn a_start_comes_back_at_the_targets_scale() {
    let target = gibbs(4, 5, 1.0);
    let start = NonnegativeTrain::random(&[5; 4], &[3; 3], 1).unwrap();
    let fit = TrainFit::new().start(start.clone()).sweeps(0).run(&target).unwrap();
    let want = start.train();
    assert!(want.relative_squared_distance(fit.train.train()).unwrap() < 1e-26);
    // With a target of norm 1, in its own gauge.
    let unit = target.scaled((-target.log_norm()).exp()).unwrap();
    let fit = TrainFit::new().start(start.clone()).sweeps(0).run(&unit).unwrap();
    assert_eq!(fit.train, start);
}

#[test]
fn fits_stop_for_the_reason_they_say() {
    let target = gibbs(5, 6, 1.0);
    let base = || TrainFit::new().rank(4).seed(2);
    let stopped = |fit: TrainFit<'_>| fit.run(&target).unwrap().history;
    let history = stopped(base().sweeps(3));
    assert_eq!(
        (history.stopped_by, history.sweeps, history.error.len()),
        (StoppedBy::Sweeps, 3, 4)
    );
    let history = stopped(base().target_error(1e-2));
    assert_eq!(history.stopped_by, StoppedBy::Target);
    assert!(history.error[history.sweeps] <= 1e-2 && history.error[history.sweeps - 1] > 1e-2);
    let history = stopped(base().time_limit(Duration::ZERO));
    assert_eq!((history.stopped_by, history.sweeps), (StoppedBy::Time, 0));
    let history = stopped(base().cancel(Arc::new(AtomicBool::new(true))));
    assert_eq!(history.stopped_by, StoppedBy::Interrupted);
    let mut seen = Vec::new();
    let watch = base().observer(|report| {
        seen.push((report.sweep, report.error));
        if report.sweep == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let history = stopped(watch);
    assert_eq!((history.stopped_by, history.sweeps), (StoppedBy::Interrupted, 2));
    assert_eq!(seen, [(1, history.error[1]), (2, history.error[2])]);
    // At rank 1 there is nothing more to gain after a few sweeps.
    let history = stopped(TrainFit::new().rank(1).schedule(Schedule::Balanced).sweeps(300));
    assert_eq!(history.stopped_by, StoppedBy::Stalled);
    assert!(history.sweeps < 100, "{}", history.sweeps);
    let exact = stopped(TrainFit::new().rank(1).sweeps(70).target_error(0.0));
    assert_eq!((exact.stopped_by, exact.sweeps), (StoppedBy::Sweeps, 70));
}

#[test]
fn one_mode_and_modes_of_size_one() {
    let one = TensorTrain::new(vec![Core::new([1, 4, 1], vec![3.0, -1.0, 0.5, 2.0]).unwrap()], 0.0);
    let one = one.unwrap();
    for method in [Method::Newton, Method::Multiplicative, Method::Descent] {
        let fit = TrainFit::new().rank(1).method(method).sweeps(60).run(&one).unwrap();
        // All that can be had: the negative entry becomes zero.
        assert!((fit.relative_squared_distance - 1.0 / 14.25).abs() < 1e-6, "{method:?}");
    }
    let thin = NonnegativeTrain::random(&[1, 3, 1, 2], &[2, 2, 2], 3).unwrap().into_train();
    let fit = TrainFit::new().rank(2).sweeps(30).run(&thin).unwrap();
    assert!(fit.relative_squared_distance < 1e-6);
    assert!(fit.notices.iter().any(|n| n.contains("more than the 1 ")), "{:?}", fit.notices);
}

#[test]
fn many_modes_are_no_trouble() {
    // Norms far beyond double precision, on both sides.
    let cores = ising(400, 2.5).into_train();
    let fit = TrainFit::new().rank(4).sweeps(2).run(&cores).unwrap();
    assert!(fit.history.error.iter().all(|e| e.is_finite()));
    let density = Density::new(&ising(1000, 0.5)).unwrap();
    let want = 1000.0 * (2.0 * 0.5f64.cosh()).ln();
    assert!((density.log_partition() - want).abs() < 1e-8);
    assert_eq!(density.sample(3, 1).unwrap().order(), 1000);
}
