//! Bad input: NTT.md, section 14. Everything is an error that says what is wrong; nothing panics.

use nneinfact_density::{
    Core, Cross, Dense, Density, Em, Error, Indices, Method, Network, NetworkFit, NonnegativeTrain,
    Schedule, Sketch, Solver, TensorTrain, TrainFit,
};

fn core(shape: [usize; 3]) -> Core {
    Core::new(shape, vec![0.5; shape.iter().product()]).unwrap()
}

fn train() -> TensorTrain {
    TensorTrain::new(vec![core([1, 2, 2]), core([2, 3, 1])], 0.0).unwrap()
}

fn positive() -> NonnegativeTrain {
    train().try_into().unwrap()
}

fn density() -> Density {
    Density::new(&positive()).unwrap()
}

/// The error, whose text has all the words.
fn says<T>(result: Result<T, Error>, words: &[&str]) {
    let Err(error) = result else { panic!("no error; expected one with {words:?}") };
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[test]
fn cores_and_trains() {
    says(Core::new([1, 0, 2], vec![]), &["[1, 0, 2]", "at least 1"]);
    says(Core::new([0, 1, 2], vec![]), &["at least 1"]);
    says(Core::new([1, 2, 2], vec![1.0; 3]), &["3 entries"]);
    says(Core::new([usize::MAX, 2, 2], vec![1.0; 3]), &["3 entries"]);
    says(Core::new([1, 2, 2], vec![1.0, 1.0, f64::NAN, 0.0]), &["NaN", "[0, 1, 0]"]);
    says(Core::new([1, 1, 1], vec![f64::INFINITY]), &["inf", "finite"]);
    says(TensorTrain::new(vec![], 0.0), &["no core"]);
    says(TensorTrain::new(vec![core([1, 2, 2]), core([3, 2, 1])], 0.0), &["core 1", "rank 3", "2"]);
    says(TensorTrain::new(vec![core([2, 2, 1])], 0.0), &["core 0", "rank 2 to the left"]);
    says(TensorTrain::new(vec![core([1, 2, 2])], 0.0), &["core 0", "rank 2 to the right"]);
    says(TensorTrain::new(vec![core([1, 2, 1])], f64::NAN), &["scale"]);
    let other = TensorTrain::new(vec![core([1, 2, 1])], 0.0).unwrap();
    says(train().log_inner(&other), &["sizes [2]", "[2, 3]"]);
    says(train().plus(&other), &["sizes"]);
    says(train().minus(&other), &["sizes"]);
    says(train().rounded(-1.0, None), &["-1"]);
    says(train().rounded(f64::NAN, None), &["NaN"]);
    says(train().rounded(0.0, Some(0)), &["0", "at least 1"]);
    says(train().entries(&Indices::new(1, vec![0]).unwrap()), &["1 indices", "2"]);
    says(train().entries(&Indices::new(2, vec![0, 3]).unwrap()), &["row 0", "mode 1", "3"]);
    let wide = TensorTrain::new(vec![core([1, 10, 1]); 9], 0.0).unwrap();
    says(wide.to_dense(), &["whole tensor"]);
    says(Indices::new(0, vec![]), &["at least one mode"]);
    says(Indices::new(2, vec![0; 3]), &["3 indices"]);
    says(train().scaled(f64::NAN), &["core 0", "NaN"]);
    says(train().scaled(f64::MAX).and_then(|t| t.scaled(f64::MAX)), &["inf"]);
    let zero = train().scaled(0.0).unwrap();
    assert_eq!(zero.log_norm(), f64::NEG_INFINITY);
    says(zero.relative_squared_distance(&train()), &["zero"]);
    assert_eq!(train().minus(&zero).unwrap(), train());
    assert_eq!(zero.rounded(1e-3, None).unwrap(), zero);
}

#[test]
fn nonnegative_trains() {
    let mut data = vec![0.5; 6];
    data[4] = -0.25;
    let bad = vec![core([1, 2, 2]), Core::new([2, 3, 1], data).unwrap()];
    says(NonnegativeTrain::new(bad, 0.0), &["1 negative", "-0.25", "core 1", "[1, 1, 0]"]);
    says(NonnegativeTrain::random(&[usize::MAX], &[], 0), &["memory"]);
    says(NonnegativeTrain::random(&[], &[], 0), &["no mode"]);
    says(NonnegativeTrain::random(&[2, 0], &[1], 0), &["mode 1", "size 0"]);
    says(NonnegativeTrain::random(&[2, 2], &[], 0), &["found 0", "1, one for each bond"]);
    says(NonnegativeTrain::random(&[2, 2], &[0], 0), &["bond 0", "at least 1"]);
    let zero = NonnegativeTrain::try_from(train().scaled(0.0).unwrap()).unwrap();
    says(Density::new(&zero), &["zero"]);
}

#[test]
fn settings_of_a_fit() {
    let run = |fit: TrainFit<'_>| fit.run(&train());
    let base = || TrainFit::new().rank(2);
    says(run(TrainFit::new()), &["neither a rank nor a start"]);
    says(run(base().ranks(vec![2])), &["both"]);
    says(run(TrainFit::new().rank(0)), &["bond 0", "at least 1"]);
    says(run(TrainFit::new().ranks(vec![1, 2])), &["found 2", "1, one for each bond"]);
    for bad in [0.0, 1.0, -0.5, f64::NAN] {
        says(run(base().sigma(bad)), &["sigma", "between 0 and 1"]);
        says(run(base().decay(bad)), &["decay", "between 0 and 1"]);
    }
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        says(run(base().barrier(bad)), &["barrier", "positive"]);
        says(run(base().barrier_min(bad)), &["smallest barrier", "positive"]);
    }
    says(run(base().cg_max(0)), &["CG steps", "at least 1"]);
    says(run(base().cg_tol(-1.0)), &["tolerance of CG"]);
    says(run(base().inner(0)), &["inner", "at least 1"]);
    says(run(base().switch(0)), &["switch", "at least 1"]);
    says(run(base().preconditioner_min(f64::NAN)), &["preconditioner"]);
    says(run(base().target_error(-1.0)), &["target error"]);
    says(TrainFit::new().rank(2).run(&train().scaled(0.0).unwrap()), &["norm 0"]);
    says(TrainFit::new().rank(usize::MAX).run(&train()), &["bonds", "smaller ranks"]);
    says(TrainFit::new().rank(100_000).run(&train()), &["bonds", "smaller ranks"]);
    let big = TensorTrain::new(vec![core([1, 2, 2]), core([2, 2, 2]), core([2, 2, 1])], 0.0);
    let direct = TrainFit::new().rank(200).solver(Solver::Direct);
    says(direct.run(&big.unwrap()), &["Newton system", "conjugate gradients"]);
}

#[test]
fn starts_of_a_fit() {
    let with = |start: NonnegativeTrain| TrainFit::new().start(start);
    let other = NonnegativeTrain::random(&[2, 4], &[2], 0).unwrap();
    says(with(other).run(&train()), &["the start", "[2, 4]", "[2, 3]"]);
    says(with(positive()).rank(3).run(&train()), &["ranks [2]", "[3]"]);
    let mut data = vec![0.5; 4];
    data[1] = 0.0;
    data[2] = 0.0;
    let cores = vec![Core::new([1, 2, 2], data).unwrap(), core([2, 3, 1])];
    let zeros = NonnegativeTrain::new(cores, 0.0).unwrap();
    says(with(zeros.clone()).run(&train()), &["2 entries", "raised"]);
    says(with(zeros.clone()).method(Method::Multiplicative).run(&train()), &["2 entries"]);
    let fit = with(zeros.clone()).raise_zeros(true).sweeps(1).run(&train()).unwrap();
    assert!(fit.notices.iter().any(|n| n.contains("raised")), "{:?}", fit.notices);
    assert!(with(zeros).method(Method::Descent).sweeps(1).run(&train()).is_ok());
    let none = NonnegativeTrain::try_from(train().scaled(0.0).unwrap()).unwrap();
    says(with(none).raise_zeros(true).run(&train()), &["zero everywhere"]);
    let (cores, _) = train().into_parts();
    let far = NonnegativeTrain::new(cores, 5000.0).unwrap();
    says(with(far).run(&train()), &["larger than the target"]);
}

#[test]
fn options_without_effect_are_told() {
    let fit = TrainFit::new().rank(2).sweeps(1);
    let fit = fit.method(Method::Multiplicative).sigma(0.2).solver(Solver::Cg);
    assert_eq!(fit.run(&train()).unwrap().without_effect, ["solver", "sigma"]);
    let fit = TrainFit::new().rank(2).sweeps(1).schedule(Schedule::Balanced).sigma(0.2);
    assert_eq!(fit.run(&train()).unwrap().without_effect, ["sigma"]);
    let fit = TrainFit::new().rank(2).sweeps(1).sigma(0.2).switch(3).decay(0.4);
    let fit = fit.run(&train()).unwrap();
    assert!(fit.without_effect.is_empty() && fit.notices.is_empty());
}

#[test]
fn functions() {
    let cross = || Cross::new(vec![3, 4, 2]);
    let f = |x: &[usize]| x[0] as f64;
    says(Cross::new(vec![]).run(|_| 1.0), &["no mode"]);
    says(Cross::new(vec![2, 0]).run(|_| 1.0), &["mode 1", "size 0"]);
    for bad in [0.0, 1.0, -1.0, f64::NAN] {
        says(cross().tol(bad).run(f), &["tolerance", "between 0 and 1"]);
    }
    says(cross().max_rank(0).run(f), &["largest rank"]);
    says(cross().max_sweeps(0).run(f), &["sweeps"]);
    says(cross().check(0).run(f), &["check points"]);
    says(
        cross().starts(Indices::new(3, vec![0, 4, 0]).unwrap()).run(f),
        &["start points", "mode 1"],
    );
    says(cross().starts(Indices::new(3, vec![]).unwrap()).run(f), &["no start point"]);
    says(cross().run(|x| if x[1] == 2 { f64::NAN } else { 1.0 }), &["NaN", ", 2, "]);
    says(cross().run(|_| f64::INFINITY), &["inf at index"]);
    says(cross().run(|_| f64::NEG_INFINITY), &["-inf at index"]);
    says(cross().run_log(|_| f64::INFINITY), &["inf at index"]);
    says(cross().run(|_| 0.0), &["zero at all", "points"]);
    says(cross().run_log(|_| f64::NEG_INFINITY), &["zero at all", "points"]);
    says(Cross::new(vec![3]).run(|_| 0.0), &["zero at all 3 points"]);
    says(Cross::new(vec![3]).run_log(|_| f64::NEG_INFINITY), &["zero at all 3 points"]);
    says(cross().check(usize::MAX).run(f), &["check points", "memory"]);
    says(Cross::new(vec![usize::MAX]).run(f), &["memory"]);
    says(cross().max_evaluations(10).run(f), &["10 evaluations"]);
    // No block of two whole modes is looked at.
    assert!(Cross::new(vec![40_000; 2]).run(f).unwrap().converged);
    // A zero in some places is no trouble, but for rounding.
    let found = cross().run_log(|x| if x[0] == 1 { f64::NEG_INFINITY } else { 0.0 }).unwrap();
    assert!(found.train.to_dense().unwrap()[8].abs() < 1e-14);
}

#[test]
fn samples() {
    let sketch = || Sketch::new(vec![2, 3]);
    let good = Indices::new(2, vec![0, 1, 1, 2]).unwrap();
    let none = Indices::new(2, vec![]).unwrap();
    let outside = Indices::new(2, vec![0, 1, 1, 3]).unwrap();
    let short = Indices::new(1, vec![0]).unwrap();
    says(sketch().run(&none, None), &["no sample"]);
    says(sketch().run(&outside, None), &["row 1", "mode 1", "3"]);
    says(sketch().run(&short, None), &["1 indices"]);
    says(sketch().run(&good, Some(&[1.0])), &["found 1", "2, one for each sample"]);
    says(sketch().run(&good, Some(&[1.0, -1.0])), &["sample 1", "-1"]);
    says(sketch().run(&good, Some(&[1.0, f64::NAN])), &["sample 1", "NaN"]);
    says(sketch().run(&good, Some(&[0.0, 0.0])), &["all weights are 0"]);
    says(sketch().rank(0).run(&good, None), &["rank is 0"]);
    says(sketch().ranks(vec![1, 1]).run(&good, None), &["found 2"]);
    says(sketch().tol(1.0).run(&good, None), &["tolerance"]);
    says(sketch().tol(f64::NAN).run(&good, None), &["tolerance"]);
    says(sketch().monomials(2, 0).run(&good, None), &["degree"]);
    says(Sketch::new(vec![1 << 40, 3]).monomials(0, 9).run(&good, None), &["polynomials"]);
    says(sketch().random_cores(0, 1).run(&good, None), &["sketch functions"]);
    says(Sketch::new(vec![2, 0]).run(&good, None), &["size 0"]);
    let lowered = sketch().rank(7).run(&good, None).unwrap();
    assert!(lowered.notices[0].contains("rank 7") && lowered.train.ranks() == [2]);
    let zero = |shape: [usize; 3]| Core::new(shape, vec![0.0; shape.iter().product()]).unwrap();
    let dead = sketch().cores(vec![zero([1, 2, 2])], vec![zero([2, 3, 1])]);
    says(dead.run(&good, None), &["moments", "zero"]);
    says(sketch().cores(vec![], vec![]).run(&good, None), &["left sketch", "0 cores"]);
    let wrong = sketch().cores(vec![core([1, 3, 2])], vec![core([2, 3, 1])]);
    says(wrong.run(&good, None), &["core 0 of the left sketch", "size 3"]);
    let wrong = sketch().cores(vec![core([1, 2, 2])], vec![core([2, 3, 2])]);
    says(wrong.run(&good, None), &["core 0 of the right sketch", "outer rank 2"]);
    says(Em::new().run(&density(), &none, None), &["no sample"]);
    says(Em::new().run(&density(), &outside, None), &["row 1"]);
    says(Em::new().tol(-1.0).run(&density(), &good, None), &["tolerance"]);
    let coin = |p: f64| Core::new([1, 2, 1], vec![p, 1.0 - p]).unwrap();
    let sure = NonnegativeTrain::new(vec![coin(1.0), coin(0.5)], 0.0).unwrap();
    let sure = Density::new(&sure).unwrap();
    let tuples = Indices::new(2, vec![0, 0, 1, 0]).unwrap();
    says(Em::new().run(&sure, &tuples, None), &["1 samples", "probability 0"]);
    let nll = sure.nll(&tuples, None).unwrap();
    assert_eq!((nll.mean, nll.impossible), (f64::INFINITY, 1));
    assert!((nll.mean_of_possible - 2f64.ln()).abs() < 1e-15);
}

#[test]
fn histograms() {
    let samples = Indices::new(1, vec![2, 0, 2, 2]).unwrap();
    let found = Sketch::new(vec![3]).run(&samples, Some(&[1.0, 2.0, 0.5, 0.5])).unwrap();
    assert_eq!(found.train.to_dense().unwrap(), [0.5, 0.0, 0.5]);
}

#[test]
fn questions() {
    let d = density();
    says(d.marginal(&[2]), &["no mode 2", "2 modes"]);
    says(d.marginal(&[1, 0]), &["increase"]);
    says(d.marginal(&[1, 1]), &["increase"]);
    says(d.conditional(&[(2, 0)]), &["no mode 2"]);
    says(d.conditional(&[(1, 3)]), &["mode 1 has no value 3"]);
    says(d.conditional(&[(1, 0), (1, 0)]), &["twice"]);
    says(d.expectation(&[None]), &["found 1", "2, one for each mode"]);
    says(d.expectation(&[None, Some(&[1.0])]), &["mode 1", "1 values", "3"]);
    says(d.mean(&[vec![0.0, f64::NAN], vec![0.0; 3]]), &["mode 0", "NaN at index 1"]);
    says(d.covariance(&[vec![0.0; 2]]), &["found 1"]);
    says(d.sample_from(&[0.5]), &["found 1", "multiple of 2"]);
    says(d.sample_from(&[0.5, 1.0]), &["sample 0, mode 1", "less than 1"]);
    says(d.sample_from(&[0.5, f64::NAN]), &["NaN"]);
    says(d.sample(usize::MAX, 0), &["samples"]);
    says(d.states_given(&[0]), &["1 indices"]);
    says(d.states_given(&[]), &["indices"]);
    says(d.log_probabilities(&Indices::new(2, vec![2, 0]).unwrap()), &["row 0", "mode 0"]);
    says(d.mean_of_train(&TensorTrain::new(vec![core([1, 2, 1])], 0.0).unwrap()), &["sizes"]);
    let many = NonnegativeTrain::random(&[10; 9], &[1; 8], 0).unwrap();
    let all: Vec<usize> = (0..9).collect();
    says(Density::new(&many).unwrap().marginal(&all), &["marginal of 9 modes", "fewer"]);
    let coin = |p: f64| Core::new([1, 2, 1], vec![p, 1.0 - p]).unwrap();
    let sure = NonnegativeTrain::new(vec![coin(1.0), coin(0.5)], 0.0).unwrap();
    let sure = Density::new(&sure).unwrap();
    says(sure.conditional(&[(0, 1)]), &["probability 0", "(0, 1)"]);
    says(sure.states_given(&[1, 0]), &["probability 0"]);
}

#[test]
fn networks() {
    let dense =
        |shape: &[usize]| Dense::new(shape.to_vec(), vec![0.5; shape.iter().product()]).unwrap();
    says(Dense::new(vec![2, 0], vec![]), &["[2, 0]"]);
    says(Dense::new(vec![2], vec![1.0]), &["1 entries"]);
    says(Dense::new(vec![1], vec![f64::NAN]), &["NaN"]);
    says(Network::new("ia,ja", vec![]), &["no `->`"]);
    says(Network::new("i1->i", vec![dense(&[2, 2])]), &["`1`"]);
    says(Network::new("iia->i", vec![dense(&[2, 2, 2])]), &["`i` is twice"]);
    says(Network::new("ia->j", vec![dense(&[2, 2])]), &["`j`", "no factor"]);
    says(Network::new("ia,ja->ij", vec![dense(&[2, 2])]), &["2 factors, but 1"]);
    says(Network::new("ia->i", vec![dense(&[2])]), &["shape [2]"]);
    says(Network::new("ia,ja->ij", vec![dense(&[2, 2]), dense(&[2, 3])]), &["`a`", "2 and 3"]);
    let model = || Network::new("ia,ja->ij", vec![dense(&[2, 1]), dense(&[3, 1])]).unwrap();
    let other = Network::new("ia,ka->ik", vec![dense(&[2, 1]), dense(&[3, 1])]).unwrap();
    says(model().inner(&other), &["k of size 3", "j of size 3"]);
    says(NetworkFit::new().run(model(), &other), &["output"]);
    says(NetworkFit::new().barrier(0.0).run(model(), &model()), &["barrier"]);
    says(NetworkFit::new().decay(1.5).run(model(), &model()), &["decay"]);
    says(NetworkFit::new().schedule(Schedule::Hybrid).run(model(), &model()), &["schedules"]);
    let zero = Dense::new(vec![2, 1], vec![0.0, 1.0]).unwrap();
    let start = Network::new("ia,ja->ij", vec![zero, dense(&[3, 1])]).unwrap();
    says(NetworkFit::new().run(start, &model()), &["factor 0", "positive"]);
}
