//! Numbers at the edges of what floating point holds: scales that are free, losses that would cancel,
//! zeros that are not there, and the order of memory.

use ndarray::{Array2, Array3, ArrayD, IxDyn};
use nneinfact::data::CooTensor;
use nneinfact::fit::{Format, Start, StoppedBy};
use nneinfact::loss::Penalty;
use nneinfact::{Algorithm, Device, Error, Fit, Loss, NNEinFact, Observations, Precision};

/// Numbers in [0, 1) from a seed (SplitMix64).
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64
    }

    fn matrix(&mut self, rows: usize, columns: usize, low: f64, high: f64) -> Array2<f64> {
        Array2::from_shape_fn((rows, columns), |_| low + (high - low) * self.next())
    }

    /// The standard normal distribution (Box & Muller 1958).
    fn normal(&mut self) -> f64 {
        let (a, b) = (self.next().max(1e-300), self.next());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

/// A product of random factors, with noise.
fn product(seed: u64, rows: usize, columns: usize, rank: usize) -> Array2<f64> {
    let mut random = Uniform(seed);
    let (w, h) = (random.matrix(rows, rank, 0.0, 1.0), random.matrix(rank, columns, 0.0, 1.0));
    w.dot(&h).mapv(|x| x * (0.5 + random.next()))
}

fn nmf(rank: usize) -> NNEinFact {
    NNEinFact::new("ir,jr->ij").expect("a model").ranks([('r', rank)]).device(Device::cpu())
}

fn close(a: f64, b: f64, share: f64) -> bool {
    (a - b).abs() <= share * b.abs()
}

// ---- Free scales ----

#[test]
fn only_ratios_of_weights_matter() {
    let y = product(1, 12, 9, 3);
    let weights = Uniform(2).matrix(12, 9, 0.1, 3.0).mapv(|w| w as f32).mapv(f64::from);
    let fit = |scale: f64, precision| {
        let data = Observations::new(&y).weights(weights.mapv(|w| w * scale)).expect("weights");
        nmf(3).precision(precision).max_iter(50).tolerance(0.0).fit(&data).expect("it fits")
    };
    for precision in [Precision::F32, Precision::F64] {
        let plain = fit(1.0, precision);
        assert!(plain.history().last_loss() > 1e-4);
        for exponent in [-1000, -150, 121, 900] {
            let moved = fit(2f64.powi(exponent), precision);
            assert_eq!(moved.history().loss, plain.history().loss, "2^{exponent}");
            assert_eq!(moved.factors(), plain.factors(), "2^{exponent}");
        }
        for scale in [1e-46, 1e-44, 1e36, 1e-310, 1e300] {
            let (found, want) = (fit(scale, precision).history().last_loss(), plain.history());
            let share = if scale < 1e-300 { 1e-3 } else { 1e-5 };
            assert!(close(found, want.last_loss(), share), "{scale:e}: {found}");
        }
    }
}

#[test]
fn penalties_scale_with_tiny_weights() {
    let y = product(3, 10, 8, 2);
    let fit = |scale: f64| {
        let data = Observations::new(&y).weights(y.mapv(|x| (1.0 + x) * scale)).expect("weights");
        let penalized = nmf(2).penalty_on_all(Penalty::l2(0.3 * scale));
        penalized.max_iter(40).tolerance(0.0).fit(&data).expect("it fits")
    };
    let (plain, tiny) = (fit(1.0), fit(2f64.powi(-150)));
    for (a, b) in tiny.history().objective().iter().zip(plain.history().objective()) {
        assert!(close(*a, b, 1e-9), "{a} and {b}");
    }
    assert!(plain.history().penalty[0] > 0.0);
}

#[test]
fn tiny_and_huge_data_fit_in_single_precision() {
    let y = product(4, 12, 9, 3);
    let losses = [Loss::kl(), Loss::euclidean(), Loss::itakura_saito(), Loss::hellinger()];
    for loss in losses {
        let fit = |y: &Array2<f64>, form| {
            let all = nmf(2).loss(loss.clone()).max_iter(60).tolerance(0.0).data_as(form);
            all.fit(y).expect("it fits")
        };
        for form in [Format::Dense, Format::Sparse] {
            let plain = fit(&y, form);
            for exponent in [-133, -115, 90, 120] {
                let scale = 2f64.powi(exponent);
                let moved = fit(&y.mapv(|x| x * scale), form);
                let degree = loss.homogeneity().expect("a degree");
                let want = plain.history().last_loss() * scale.powf(degree);
                let found = moved.history().last_loss();
                assert!(
                    close(found, want, 1e-3),
                    "{} 2^{exponent}: {found:e}, {want:e}",
                    loss.name()
                );
            }
        }
    }
}

#[test]
fn trials_and_dispersion_scale_with_the_data() {
    let mut random = Uniform(5);
    let n = random.matrix(10, 8, 2.0, 30.0).mapv(f64::round);
    let x = n.mapv(|n| (n * random.next()).round());
    let scale = 2f64.powi(-110);
    let binomial = |scale: f64| {
        let loss = Loss::binomial(n.mapv(|n| n * scale)).expect("trials");
        let fit = nmf(2).loss(loss).max_iter(40).tolerance(0.0).fit(&x.mapv(|x| x * scale));
        fit.expect("it fits")
    };
    let negative = |scale: f64| {
        let loss = Loss::negative_binomial(3.0 * scale).expect("a dispersion");
        let fit = nmf(2).loss(loss).max_iter(40).tolerance(0.0).fit(&x.mapv(|x| x * scale));
        fit.expect("it fits")
    };
    let (plain, tiny) = (binomial(1.0), binomial(scale));
    let moved = |fit: &Fit| (0..2).map(|l| fit.factors()[l].sum()).product::<f64>();
    assert!(close(moved(&tiny), moved(&plain), 1e-4));
    let want = plain.history().last_loss() * scale;
    assert!(close(tiny.history().last_loss(), want, 1e-4), "{:e}", tiny.history().last_loss());
    let (plain, tiny) = (negative(1.0), negative(scale));
    assert!(close(moved(&tiny), moved(&plain) * scale, 1e-3));
    // ℓ is not homogeneous, only what the factors can change of it is.
    let fall = |fit: &Fit| fit.history().loss[0] - fit.history().last_loss();
    assert!(close(fall(&tiny), fall(&plain) * scale, 1e-3), "{:e}", fall(&tiny));
}

// ---- Lists ----

fn listed(y: &Array2<f64>, keep: impl Fn(usize, usize) -> bool) -> CooTensor {
    let at: Vec<(usize, usize)> =
        y.indexed_iter().map(|(at, _)| at).filter(|&(i, j)| keep(i, j)).collect();
    let rows = at.iter().map(|a| a.0 as u64).collect();
    let columns = at.iter().map(|a| a.1 as u64).collect();
    let values: Vec<f64> = at.iter().map(|a| y[*a]).collect();
    let (m, n) = y.dim();
    CooTensor::new(&[m, n], &[rows, columns], &values).expect("a list")
}

fn positive_losses() -> Vec<Loss> {
    let member = |a, b| Loss::alpha_beta(a, b).expect("a member of the family");
    vec![
        Loss::itakura_saito(),
        Loss::reverse_kl(),
        Loss::neyman(),
        Loss::alpha(-0.5).expect("a member of the family"),
        Loss::beta(-0.5).expect("a member of the family"),
        member(0.5, -1.0),
        member(-1.0, 0.5),
    ]
}

#[test]
fn a_list_without_zeros_fits_under_losses_that_need_positive_data() {
    let y = product(6, 10, 8, 3).mapv(|x| x + 0.05);
    for loss in positive_losses() {
        let settings = || {
            let fit =
                nmf(2).loss(loss.clone()).precision(Precision::F64).algorithm(Algorithm::Block);
            fit.max_iter(30).tolerance(0.0)
        };
        let same = |found: Fit, dense: &Fit| {
            let (found, want) = (found.history().last_loss(), dense.history().last_loss());
            assert!(close(found, want, 1e-8), "{}: {found} and {want}", loss.name());
        };
        let dense = settings().data_as(Format::Dense).fit(&y).expect("it fits");
        let sparse = || settings().data_as(Format::Sparse);
        same(sparse().fit(&y).expect("it fits"), &dense);
        same(sparse().fit(Observations::new(listed(&y, |_, _| true))).expect("it fits"), &dense);

        // With entries missing, by a list of them or as all that is not listed.
        let keep = |i: usize, j: usize| !(3 * i + j).is_multiple_of(5);
        let mask = Array2::from_shape_fn(y.dim(), |(i, j)| keep(i, j));
        let masked = Observations::new(&y).mask(&mask).expect("a mask");
        let dense = settings().data_as(Format::Dense).fit(&masked).expect("it fits");
        same(sparse().fit(&masked).expect("it fits"), &dense);
        let unlisted = Observations::new(listed(&y, keep)).unlisted_missing();
        same(sparse().fit(&unlisted).expect("it fits"), &dense);
        let missing = listed(&y, |i, j| !keep(i, j));
        let all = Observations::new(listed(&y, |_, _| true)).missing_at(missing).expect("a list");
        same(sparse().fit(&all).expect("it fits"), &dense);
    }
}

#[test]
fn zeros_of_a_list_are_refused_as_zeros() {
    let y = product(7, 10, 8, 3).mapv(|x| x + 0.05);
    let list = listed(&y, |i, j| i != j);
    for loss in positive_losses() {
        let error = nmf(2).loss(loss).fit(Observations::new(list.clone())).expect_err("zeros");
        let Error::Domain { count, index, .. } = &error else { panic!("{error}") };
        assert_eq!((*count, index.as_slice()), (8, &[0, 0][..]));
        let text = error.to_string();
        assert!(text.contains("not listed") && text.contains("--unlisted-missing"), "{text}");
    }
}

// ---- Entries that say nothing ----

#[test]
fn no_trials_say_nothing() {
    let mut random = Uniform(8);
    let mut n = random.matrix(10, 8, 1.0, 20.0).mapv(f64::round);
    let mut x = n.mapv(|n| (n * random.next()).round());
    let mask = Array2::from_shape_fn((10, 8), |(i, j)| (i + 2 * j) % 4 != 0);
    for (at, &seen) in mask.indexed_iter() {
        if !seen {
            n[at] = 0.0;
        }
    }
    let start =
        vec![random.matrix(10, 2, 0.2, 1.0).into_dyn(), random.matrix(8, 2, 0.2, 1.0).into_dyn()];
    let fit = |x: &Array2<f64>, masked: bool, form| {
        let loss = Loss::binomial(n.clone()).expect("trials");
        let data = Observations::new(x);
        let data = if masked { data.mask(&mask).expect("a mask") } else { data };
        let fit = nmf(2).loss(loss).precision(Precision::F64).data_as(form);
        fit.start(Start::Factors(start.clone())).max_iter(30).tolerance(0.0).fit(&data)
    };
    // A masked entry may have any value.
    let masked = fit(&x, true, Format::Dense).expect("it fits");
    // Elsewhere more successes than trials are refused still.
    assert!(matches!(fit(&x, false, Format::Dense), Err(Error::Domain { .. })));
    x.zip_mut_with(&n, |x, &n| *x = x.min(n));
    let seen = mask.iter().filter(|&&seen| seen).count() as f64;
    for form in [Format::Dense, Format::Sparse] {
        let open = fit(&x, false, form).expect("it fits");
        // The mean counts them; the sum and the factors do not.
        let sum = open.history().last_loss() * 80.0;
        assert!(close(sum, masked.history().last_loss() * seen, 1e-6), "{sum}");
    }
    assert!(Loss::binomial(Array2::<f64>::zeros((2, 2))).is_err());
    assert!(Loss::binomial(0.0).is_err());
}

// ---- Losses without cancellation ----

/// Negative-binomial counts with means of about 20,000.
fn large_counts() -> Array2<f64> {
    let mut random = Uniform(9);
    let (w, h) = (random.matrix(40, 3, 0.0, 1.0), random.matrix(3, 30, 0.0, 1.0));
    // Gamma noise of shape 2, as the sum of two exponentials.
    let mut gamma = || -0.5 * (random.next().max(1e-12).ln() + random.next().max(1e-12).ln());
    w.dot(&h).mapv(|mean| (2e4 * mean * gamma()).round())
}

#[test]
fn single_precision_fits_large_counts_as_double_does() {
    let y = large_counts();
    for loss in [Loss::negative_binomial(2.0).expect("positive"), Loss::geometric()] {
        let fit = |precision| {
            let fit = nmf(4).loss(loss.clone()).seed(1).precision(precision).max_iter(300);
            fit.tolerance(1e-7).fit(&y).expect("it fits")
        };
        let (single, double) = (fit(Precision::F32), fit(Precision::F64));
        let (found, want) = (single.history().last_loss(), double.history().last_loss());
        assert!((found - want).abs() < 5e-3, "{}: {found} and {want}", loss.name());
        // What is reported is ℓ itself.
        let by_hand = |fit: &Fit| -> f64 {
            let predicted = fit.reconstruct().expect("small");
            let each = y.iter().zip(&predicted).map(|(&x, &p)| loss.eval_loss(x, p, &[]));
            each.sum::<f64>() / y.len() as f64
        };
        assert!(close(want, by_hand(&double), 1e-10), "{want}");
        assert!(close(found, by_hand(&single), 1e-6), "{found}");
        for pair in single.history().loss.windows(2) {
            assert!(pair[1] <= pair[0] + 1e-5, "{} rises by {:e}", loss.name(), pair[1] - pair[0]);
        }
    }
}

#[test]
fn offsets_are_reported_by_role_and_weight() {
    let y = large_counts();
    let phi = Uniform(10).matrix(40, 30, 0.5, 5.0);
    let weights = Uniform(11).matrix(40, 30, 0.2, 2.0);
    let loss = Loss::negative_binomial(phi.clone()).expect("positive");
    let data = Observations::new(&y).weights(weights.clone()).expect("weights");
    let data = data.held_out(0.2, 3).expect("a fraction");
    let prepared = data.prepare().expect("data");
    let fit = nmf(3).loss(loss.clone()).precision(Precision::F64).max_iter(5);
    let fit = fit.fit(&data).expect("it fits");
    let predicted = fit.reconstruct().expect("small");
    let mut sums = [[0.0; 2]; 2];
    for (i, ((&x, &y), (&phi, &w))) in
        y.iter().zip(&predicted).zip(phi.iter().zip(&weights)).enumerate()
    {
        let held = prepared.roles().expect("roles").get(i) == nneinfact::data::Role::HeldOut;
        let sum = &mut sums[usize::from(held)];
        sum[0] += w * loss.eval_loss(x, y, &[phi]);
        sum[1] += w;
    }
    let [train, held] = sums.map(|[loss, weight]| loss / weight);
    assert!(close(fit.history().last_loss(), train, 1e-10));
    assert!(close(fit.history().heldout_loss[5], held, 1e-10));
}

#[test]
fn rounding_is_not_called_convergence() {
    // Means that a model of this rank has exactly, and noise of Poisson counts.
    let mut random = Uniform(12);
    let y = product(13, 30, 20, 2).mapv(|mean| {
        let mean = 3e5 * mean;
        (mean + mean.sqrt() * random.normal()).max(0.0).round()
    });
    let fit = |tolerance| {
        nmf(2).max_iter(3000).tolerance(tolerance).fit(&y).expect("it fits").history().stopped_by
    };
    assert_eq!(fit(1e-5), StoppedBy::Tolerance);
    assert_eq!(fit(1e-13), StoppedBy::Precision);
}

// ---- Where acceleration ends ----

impl Uniform {
    /// A Poisson count (Knuth 1969).
    fn poisson(&mut self, mean: f64) -> f64 {
        let (least, mut product, mut count) = ((-mean).exp(), self.next(), 0.0);
        while product > least {
            product *= self.next();
            count += 1.0;
        }
        count
    }

    /// A number that is often small: a power of a uniform one.
    fn skewed(&mut self) -> f64 {
        self.next().powi(4) * 5.0
    }
}

/// Sparse counts around a product of this rank, with a mean; `spread` makes them vary more than
/// Poisson counts.
fn sparse_counts(
    seed: u64,
    shape: [usize; 3],
    rank: usize,
    mean: f64,
    spread: bool,
) -> ArrayD<f64> {
    let mut random = Uniform(seed);
    let mut factor = |n: usize| Array2::from_shape_fn((n, rank), |_| random.skewed());
    let [a, b, c] = shape.map(&mut factor);
    let truth = Array3::from_shape_fn(shape, |(i, j, k)| {
        (0..rank).map(|r| a[[i, r]] * b[[j, r]] * if shape[2] == 1 { 1.0 } else { c[[k, r]] }).sum()
    });
    let scale = mean / truth.mean().expect("entries");
    let counts = truth.mapv(|x: f64| {
        let more = if spread { -2.0 * (random.next().max(1e-9)).ln() * random.next() } else { 1.0 };
        random.poisson(scale * x * more)
    });
    match shape[2] {
        1 => counts.index_axis_move(ndarray::Axis(2), 0).into_dyn(),
        _ => counts.into_dyn(),
    }
}

#[test]
fn accelerated_fits_of_sparse_counts_end_no_higher_than_block_fits() {
    let median = |mut all: Vec<f64>| -> f64 {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let data = [
        ("ir,jr->ij", sparse_counts(21, [60, 50, 1], 5, 0.4, false)),
        ("ir,jr->ij", sparse_counts(22, [50, 40, 1], 6, 0.6, true)),
        ("ir,jr,kr->ijk", sparse_counts(23, [20, 16, 12], 5, 0.2, false)),
        ("ir,jr,kr->ijk", sparse_counts(24, [24, 20, 6], 5, 0.4, true)),
        ("ir,jr->ij", sparse_counts(25, [80, 30, 1], 5, 0.3, false)),
    ];
    let mut ratios = Vec::new();
    let member = |a, b| Loss::alpha_beta(a, b).expect("a member of the family");
    for (number, (model, y)) in data.iter().enumerate() {
        for loss in [member(0.7, 0.0), member(0.5, 0.0), member(1.0, -0.5)] {
            let ends = |algorithm| {
                let end = |seed| {
                    let fit = NNEinFact::new(model).expect("a model").ranks([('r', 5)]);
                    let fit = fit.device(Device::cpu()).precision(Precision::F64).seed(seed);
                    let fit = fit.algorithm(algorithm).loss(loss.clone()).max_iter(2000);
                    fit.fit(y).expect("it fits").history().last_loss()
                };
                median((0..10).map(end).collect())
            };
            let (block, accelerated) = (ends(Algorithm::Block), ends(Algorithm::Accelerated));
            // A joint surrogate of two factors, as in the third data, is looser than one for each.
            assert!(
                accelerated <= 1.01 * block,
                "{} of data {number}: {accelerated} and {block}",
                loss.name()
            );
            ratios.push(accelerated / block);
        }
    }
    let middle = median(ratios.clone());
    assert!(middle <= 1.0, "{middle}: {ratios:?}");
}

// ---- Notices ----

#[test]
fn inner_cycles_that_do_nothing_are_told() {
    let y = Array3::from_shape_fn((6, 5, 4), |(i, j, k)| ((i * j + k) % 5) as f64);
    let told = |algorithm, loss: Loss, cycles| -> bool {
        let fit = NNEinFact::new("ir,jr,kr->ijk").expect("a model").ranks([('r', 2)]);
        let fit = fit.device(Device::cpu()).algorithm(algorithm).loss(loss);
        let fit = fit.inner_cycles(cycles).max_iter(3).fit(&y).expect("it fits");
        fit.warnings().iter().any(|warning| warning.contains("inner cycles"))
    };
    assert!(told(Algorithm::Block, Loss::kl(), 3));
    assert!(told(Algorithm::Accelerated, Loss::euclidean(), 2));
    assert!(!told(Algorithm::Grouped, Loss::kl(), 3));
    assert!(!told(Algorithm::Block, Loss::kl(), 1));
}

#[test]
fn data_out_of_reach_of_a_fixed_factor_are_told() {
    let y = product(14, 6, 5, 2);
    let mut operator = Uniform(15).matrix(6, 2, 0.1, 1.0);
    operator.row_mut(4).fill(0.0);
    let warnings = |y: &Array2<f64>| {
        let fit = nmf(2).fix("ir", operator.clone()).max_iter(3).fit(y).expect("it fits");
        fit.warnings().to_vec()
    };
    let found = warnings(&y);
    assert!(
        found.iter().any(|w| w.contains("5 positive entries") && w.contains("[4, 0]")),
        "{found:?}"
    );
    let mut zero = y.clone();
    zero.row_mut(4).fill(0.0);
    assert_eq!(warnings(&zero), Vec::<String>::new());
}

// ---- Order of memory ----

#[test]
fn the_order_of_memory_changes_nothing_but_rounding() {
    type Case = (&'static str, &'static [usize], &'static [(char, usize)]);
    let models: [Case; 4] = [
        ("ir,jr,kr->ijk", &[30, 12, 5], &[('r', 3)]),
        ("ir,jr,kr->ijk", &[5, 12, 30], &[('r', 3)]),
        ("ia,jb,kc,abc->ijk", &[24, 6, 11], &[('a', 2), ('b', 3), ('c', 2)]),
        ("wr,hr,ikr,jkr->whij", &[7, 6, 9, 8], &[('r', 3), ('k', 2)]),
    ];
    for (model, shape, ranks) in models {
        for loss in [Loss::kl(), Loss::alpha_beta(0.7, 0.0).expect("a member of the family")] {
            let mut random = Uniform(16);
            let y = ArrayD::from_shape_fn(IxDyn(shape), |_| (4.0 * random.next()).floor());
            let turned = y.t().as_standard_layout().to_owned().reversed_axes();
            assert_eq!(turned, y);
            let fit = |y: &ArrayD<f64>| {
                let fit = NNEinFact::new(model).expect("a model").ranks(ranks.iter().copied());
                let fit = fit.device(Device::cpu()).precision(Precision::F64).loss(loss.clone());
                fit.max_iter(12).tolerance(0.0).fit(y).expect("it fits")
            };
            let (c, fortran) = (fit(&y), fit(&turned));
            assert_eq!(c.plan().cut().to_string(), fortran.plan().cut().to_string(), "{model}");
            for (a, b) in c.history().loss.iter().zip(&fortran.history().loss) {
                assert!(close(*b, *a, 1e-9), "{model} {}: {a} and {b}", loss.name());
            }
        }
    }
}
