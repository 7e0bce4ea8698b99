//! Fits to lists of cells, against fits to the same data in dense form and against sums over the
//! factors.

use std::sync::Arc;

use crate::common::{
    CORPUS, Random, data, deviation, entry, history_deviation, largest_rise, losses,
};
use ndarray::{ArrayD, IxDyn};
use nneinfact::data::{CooBuilder, CooTensor, SplitKind};
use nneinfact::fit::{Format, Start};
use nneinfact::model::{Model, Shapes};
use nneinfact::{Algorithm, Device, Error, Fit, Loss, NNEinFact, Observations, Precision};

const FLOOR: f64 = 1e-9;

/// The cells of a tensor that `keep` says, as a list.
fn cells(y: &ArrayD<f64>, keep: impl Fn(&[usize], f64) -> bool) -> CooTensor {
    let mut builder = CooBuilder::new(y.ndim());
    for (at, &x) in y.indexed_iter() {
        let at = ndarray::Dimension::slice(&at).to_vec();
        if keep(&at, x) {
            let index: Vec<u64> = at.iter().map(|&i| i as u64).collect();
            builder.push(&index, x).expect("an index of every mode");
        }
    }
    builder.finish(Some(y.shape())).expect("indices inside the shape")
}

/// How cells are missing or withheld.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Weighting {
    None,
    /// A mask with this share observed.
    Mask(f64),
    /// A list of missing cells, this share of all.
    List(f64),
    /// Random splits.
    Split,
    /// Lists of withheld cells.
    SplitLists,
}

impl Weighting {
    const ALL: [Weighting; 7] = [
        Weighting::None,
        Weighting::Mask(0.08),
        Weighting::Mask(0.6),
        Weighting::List(0.03),
        Weighting::List(0.5),
        Weighting::Split,
        Weighting::SplitLists,
    ];

    fn apply(self, observations: Observations, y: &ArrayD<f64>, seed: u64) -> Observations {
        let mut random = Random::new(seed);
        let mut list = |share: f64| {
            let mut chosen = random.mask(y.shape(), share);
            // Something is left of every tensor, however small.
            *chosen.first_mut().expect("a cell") = false;
            cells(y, |at, _| chosen[at])
        };
        match self {
            Weighting::None => Ok(observations),
            Weighting::Mask(share) => {
                let mut mask = random.mask(y.shape(), share);
                *mask.first_mut().expect("a cell") = true;
                observations.mask(&mask)
            }
            Weighting::List(share) => observations.missing_at(list(share)),
            Weighting::Split => observations.held_out(0.1, seed).and_then(|o| o.validation(0.2, 7)),
            Weighting::SplitLists => observations
                .held_out_at(list(0.1))
                .and_then(|o| o.validation_at(list(0.2)))
                .and_then(|o| o.missing_at(list(0.1))),
        }
        .expect("good observations")
    }
}

/// Mostly zeros, and the rest inside the loss's domain.
fn sparse_data(random: &mut Random, shapes: &Shapes, loss: &Loss) -> ArrayD<f64> {
    let mut y = data(random, shapes, loss);
    y.mapv_inplace(|x| if random.uniform() < 0.7 { 0.0 } else { x });
    // Not a tensor of zeros, and not a first cell of the start that nothing is trained on.
    *y.first_mut().expect("a cell") = 1.0;
    y
}

fn accepts_zeros(loss: &Loss) -> bool {
    loss.domain().contains(0.0, &[])
}

struct Run {
    algorithm: Algorithm,
    precision: Precision,
    sweeps: usize,
}

fn run(
    shapes: &Shapes,
    loss: &Loss,
    start: &[ArrayD<f64>],
    form: Format,
    how: &Run,
    observations: &Observations,
) -> Fit {
    run_on(&Device::cpu(), shapes, loss, start, form, how, observations)
}

fn run_on(
    device: &Device,
    shapes: &Shapes,
    loss: &Loss,
    start: &[ArrayD<f64>],
    form: Format,
    run: &Run,
    observations: &Observations,
) -> Fit {
    let model = shapes.model();
    let ranks = model.latent().iter().map(|x| (char::from(x), shapes.size(x)));
    let count = start.len();
    let settings = NNEinFact::new(model.text())
        .expect("a model")
        .ranks(ranks.collect::<Vec<_>>())
        .loss(loss.clone())
        .device(device.clone())
        .precision(run.precision)
        .algorithm(run.algorithm)
        .start(Start::Factors(start.to_vec()))
        .prediction_floor(FLOOR)
        .tolerance(0.0)
        .max_iter(run.sweeps)
        .data_as(form);
    // Which groups there are is the planner's choice, and depends on the form.
    let settings = match run.algorithm {
        Algorithm::Block => settings,
        _ if count == 1 => settings.groups(vec![vec![0]]),
        _ => settings.groups(vec![(0..count / 2).collect(), (count / 2..count).collect()]),
    };
    settings.fit(observations).expect("it fits")
}

fn check(what: &str, found: &Fit, expected: &Fit, tolerance: f64) {
    let apart = deviation(found.factors(), expected.factors());
    assert!(apart <= tolerance, "{what}: factors {apart:e}");
    let (f, e) = (found.history(), expected.history());
    for (found, expected, which) in [
        (&f.loss, &e.loss, "training"),
        (&f.validation_loss, &e.validation_loss, "validation"),
        (&f.heldout_loss, &e.heldout_loss, "held-out"),
    ] {
        let apart = history_deviation(found, expected);
        assert!(apart <= tolerance, "{what}: {which} losses {apart:e}");
    }
}

#[test]
fn every_form_gives_the_same_fit() {
    let runs = [
        Run { algorithm: Algorithm::Block, precision: Precision::F64, sweeps: 2 },
        Run { algorithm: Algorithm::Grouped, precision: Precision::F64, sweeps: 2 },
        Run { algorithm: Algorithm::Accelerated, precision: Precision::F64, sweeps: 4 },
        Run { algorithm: Algorithm::Block, precision: Precision::F32, sweeps: 1 },
    ];
    for (m, entry) in CORPUS.iter().enumerate() {
        let shape: Vec<usize> = [5, 4, 3, 4, 2, 3].into_iter().take(entry.modes()).collect();
        let shapes = entry.shapes(&shape);
        for (l, loss) in losses().into_iter().filter(accepts_zeros).enumerate() {
            let seed = (m * 100 + l) as u64;
            let mut random = Random::new(seed);
            let y = sparse_data(&mut random, &shapes, &loss);
            let start = random.factors(&shapes);
            // Each case a few of the many combinations, and all cases together all of them.
            let weightings = [Weighting::ALL[0], Weighting::ALL[1 + (m + l) % 6]];
            for weighting in weightings {
                let run_at = &runs[(m + 2 * l + usize::from(weighting == Weighting::None)) % 4];
                let tolerance = match run_at.precision {
                    Precision::F64 => 1e-8,
                    Precision::F32 => 3e-4,
                };
                let dense = weighting.apply(Observations::new(&y), &y, seed);
                let expected = run(&shapes, &loss, &start, Format::Dense, run_at, &dense);
                // Exact steps may fit the few entries that are left exactly: what goes on from there
                // is rounding errors.
                let losses = &expected.history().loss;
                if losses.last().is_some_and(|last| *last <= 1e-12 * losses[0]) {
                    continue;
                }
                let what = format!(
                    "{}, {}, {weighting:?}, {}, {:?}",
                    entry.name,
                    loss.name(),
                    run_at.algorithm.name(),
                    run_at.precision
                );
                let found = run(&shapes, &loss, &start, Format::Sparse, run_at, &dense);
                check(&format!("{what}, from dense"), &found, &expected, tolerance);
                let list = weighting.apply(Observations::new(cells(&y, |_, x| x != 0.0)), &y, seed);
                let found = run(&shapes, &loss, &start, Format::Sparse, run_at, &list);
                check(&format!("{what}, from a list"), &found, &expected, tolerance);
                let found = run(&shapes, &loss, &start, Format::Dense, run_at, &list);
                check(&format!("{what}, from a list as dense"), &found, &expected, tolerance);
            }
        }
    }
}

#[test]
fn the_order_of_memory_does_not_matter() {
    let shapes = entry("CP, 3 modes").shapes(&[7, 6, 5]);
    let mut random = Random::new(3);
    let y = sparse_data(&mut random, &shapes, &Loss::kl());
    let start = random.factors(&shapes);
    let case = Run { algorithm: Algorithm::Block, precision: Precision::F64, sweeps: 3 };
    let c = Weighting::Split.apply(Observations::new(&y), &y, 4);
    let expected = run(&shapes, &Loss::kl(), &start, Format::Sparse, &case, &c);
    let mut fortran = ArrayD::zeros(IxDyn(&[5, 6, 7])).permuted_axes(IxDyn(&[2, 1, 0]));
    fortran.assign(&y);
    let f = Weighting::Split.apply(Observations::new(&fortran), &y, 4);
    let found = run(&shapes, &Loss::kl(), &start, Format::Sparse, &case, &f);
    check("Fortran order", &found, &expected, 1e-12);
}

#[test]
fn side_values_are_those_of_the_cells() {
    let shapes = entry("CP, 3 modes").shapes(&[6, 5, 4]);
    let mut random = Random::new(5);
    let dispersion = random.tensor(&[6, 5, 4], 0.5, 4.0);
    let loss = Loss::negative_binomial(dispersion).expect("dispersions");
    let y = sparse_data(&mut random, &shapes, &loss);
    let start = random.factors(&shapes);
    let case = Run { algorithm: Algorithm::Grouped, precision: Precision::F64, sweeps: 2 };
    for weighting in Weighting::ALL {
        let dense = weighting.apply(Observations::new(&y), &y, 1);
        let list = weighting.apply(Observations::new(cells(&y, |_, x| x != 0.0)), &y, 1);
        let expected = run(&shapes, &loss, &start, Format::Dense, &case, &dense);
        let found = run(&shapes, &loss, &start, Format::Sparse, &case, &list);
        check(&format!("{weighting:?}"), &found, &expected, 1e-9);
    }
}

#[test]
fn only_listed_cells_are_observed_if_that_is_said() {
    let shapes = entry("Tucker").shapes(&[7, 6, 5]);
    for loss in [Loss::kl(), Loss::euclidean(), Loss::itakura_saito()] {
        let mut random = Random::new(8);
        let y = data(&mut random, &shapes, &loss);
        let listed = random.mask(y.shape(), 0.3);
        let start = random.factors(&shapes);
        let case = Run { algorithm: Algorithm::Accelerated, precision: Precision::F64, sweeps: 4 };
        let dense = Observations::new(&y)
            .mask(&listed)
            .and_then(|o| o.held_out(0.2, 3))
            .and_then(|o| o.validation(0.2, 3))
            .expect("good observations");
        let list = Observations::new(cells(&y, |at, _| listed[at]))
            .unlisted_missing()
            .held_out(0.2, 3)
            .and_then(|o| o.validation(0.2, 3))
            .expect("good observations");
        let expected = run(&shapes, &loss, &start, Format::Dense, &case, &dense);
        for form in [Format::Sparse, Format::Dense] {
            let found = run(&shapes, &loss, &start, form, &case, &list);
            check(&format!("{} as {form}", loss.name()), &found, &expected, 1e-9);
        }
    }
}

/// A tensor with a row that holds most of what is there.
fn skewed() -> (Shapes, CooTensor, ArrayD<f64>) {
    let shapes = entry("CP, 3 modes").shapes(&[40, 190, 180]);
    let mut random = Random::new(9);
    let mut y = ArrayD::zeros(IxDyn(&[40, 190, 180]));
    for (at, x) in y.indexed_iter_mut() {
        let chance = if at[0] == 3 { 0.9 } else { 0.01 };
        if random.uniform() < chance {
            *x = 1.0 + (4.0 * random.uniform()).floor();
        }
    }
    (shapes, cells(&y, |_, x| x != 0.0), y)
}

#[test]
fn a_row_with_most_of_the_cells_is_right_with_any_number_of_threads() {
    let (shapes, list, y) = skewed();
    let start = Random::new(1).factors(&shapes);
    let list = Arc::new(list);
    for loss in [Loss::kl(), Loss::beta(1.5).expect("beta 1.5")] {
        for precision in [Precision::F32, Precision::F64] {
            let fit = |threads: usize, data: Format, observations: &Observations| {
                NNEinFact::new("ir,jr,ar->ija")
                    .expect("a model")
                    .ranks([('r', 3)])
                    .loss(loss.clone())
                    .precision(precision)
                    .algorithm(Algorithm::Block)
                    .start(Start::Factors(start.clone()))
                    .device(Device::cpu().threads(threads).expect("threads start"))
                    .data_as(data)
                    .max_iter(2)
                    .fit(observations)
                    .expect("it fits")
            };
            let observations = Weighting::None.apply(Observations::new(Arc::clone(&list)), &y, 0);
            let withheld = observations
                .clone()
                .held_out(0.1, 1)
                .and_then(|o| o.missing_at(cells(&y, |at, _| at[1] == 3)))
                .expect("good observations");
            for observations in [&observations, &withheld] {
                let one = fit(1, Format::Sparse, observations);
                for threads in [2, 3] {
                    let other = fit(threads, Format::Sparse, observations);
                    assert_eq!(one.factors(), other.factors(), "{threads} threads");
                    assert_eq!(one.history().loss, other.history().loss, "{threads} threads");
                }
                let dense = fit(2, Format::Dense, observations);
                let tolerance = if precision == Precision::F64 { 1e-9 } else { 2e-4 };
                check(&format!("{}, {precision:?}", loss.name()), &one, &dense, tolerance);
            }
        }
    }
}

/// The losses whose zeros enter in different ways: closed forms of b, of a and b, Gram products,
/// and dense passes without values.
fn losses_at_zero() -> Vec<Loss> {
    vec![
        Loss::kl(),
        Loss::euclidean(),
        Loss::hellinger(),
        Loss::negative_binomial(2.0).expect("a dispersion"),
        Loss::jensen_shannon(),
        Loss::bernoulli(),
        Loss::alpha_beta(0.7, 0.0).expect("a member of the family"),
    ]
}

/// A fit to a list on the GPU and one on the CPU in double precision; how far they are apart beyond
/// what is allowed.
fn on_both(
    what: &str,
    device: &Device,
    (shapes, loss): (&Shapes, &Loss),
    start: &[ArrayD<f64>],
    how: &Run,
    observations: &Observations,
) -> Option<String> {
    let single = Run { precision: Precision::F32, ..*how };
    let found = run_on(device, shapes, loss, start, Format::Sparse, &single, observations);
    let exact = Run { precision: Precision::F64, ..*how };
    let expected = run(shapes, loss, start, Format::Sparse, &exact, observations);
    assert!(!found.plan().sparse_passes().is_empty(), "{what}: not over a list");
    let apart = deviation(found.factors(), expected.factors());
    let (f, e) = (found.history(), expected.history());
    let lost = history_deviation(&f.loss, &e.loss)
        .max(history_deviation(&f.validation_loss, &e.validation_loss))
        .max(history_deviation(&f.heldout_loss, &e.heldout_loss));
    let right = apart <= 2e-4 && lost <= 2e-4;
    (!right).then(|| format!("{what}: factors {apart:.1e}, losses {lost:.1e} apart"))
}

#[test]
fn lists_on_a_gpu_agree_with_the_cpu_over_the_corpus() {
    let Some(device) = crate::common::gpu() else { return };
    let every = losses_at_zero();
    let mut wrong = Vec::new();
    for m in crate::common::gpu_cases(CORPUS.len()) {
        let entry = &CORPUS[m];
        let shape: Vec<usize> = [9, 7, 8, 5, 2, 3].into_iter().take(entry.modes()).collect();
        let shapes = entry.shapes(&shape);
        for n in 0..2 {
            let loss = &every[(3 * m + n) % every.len()];
            let seed = (2 * m + n) as u64;
            let mut random = Random::new(seed);
            let y = sparse_data(&mut random, &shapes, loss);
            let start = random.factors(&shapes);
            let weighting = Weighting::ALL[(m + 4 * n) % Weighting::ALL.len()];
            let algorithm = if n == 0 { Algorithm::Grouped } else { Algorithm::Block };
            let how = Run { algorithm, precision: Precision::F32, sweeps: 10 };
            let what = format!("{}, {}, {weighting:?}, {algorithm:?}", entry.name, loss.name());
            let list = Observations::new(cells(&y, |_, x| x != 0.0));
            let list = weighting.apply(list, &y, seed);
            wrong.extend(on_both(&what, &device, (&shapes, loss), &start, &how, &list));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lists_on_a_gpu_agree_with_the_cpu_for_every_loss_and_way_of_missing() {
    let Some(device) = crate::common::gpu() else { return };
    let shapes = entry("CP, 3 modes").shapes(&[14, 11, 13]);
    let mut wrong = Vec::new();
    let (losses, ways) = (losses_at_zero(), Weighting::ALL);
    for case in crate::common::gpu_cases(losses.len() * ways.len()) {
        let (loss, weighting) = (&losses[case % losses.len()], ways[case / losses.len()]);
        let mut random = Random::new(case as u64);
        let y = sparse_data(&mut random, &shapes, loss);
        let start = random.factors(&shapes);
        let algorithms = [Algorithm::Grouped, Algorithm::Block];
        let how = Run { algorithm: algorithms[case % 2], precision: Precision::F32, sweeps: 10 };
        let what = format!("{}, {weighting:?}", loss.name());
        // Which cells are listed is the same for both, but not what all cells have.
        let observations = match case / 2 % 2 {
            0 => Observations::new(&y),
            _ => Observations::new(cells(&y, |_, x| x != 0.0)),
        };
        let observations = weighting.apply(observations, &y, case as u64);
        wrong.extend(on_both(&what, &device, (&shapes, loss), &start, &how, &observations));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lists_on_a_gpu_agree_with_the_cpu_at_every_rank() {
    let Some(device) = crate::common::gpu() else { return };
    let shape = [25, 31, 17];
    let mut wrong = Vec::new();
    for rank in [1, 10, 60, 131] {
        let model = Model::parse("ir,jr,ar->ija").expect("a model");
        let shapes = Shapes::new(&model, &shape, &[('r', rank)]).expect("a rank");
        for loss in [Loss::kl(), Loss::negative_binomial(2.0).expect("a dispersion")] {
            let mut random = Random::new(rank as u64);
            let y = sparse_data(&mut random, &shapes, &loss);
            let start = random.factors(&shapes);
            let list = Observations::new(cells(&y, |_, x| x != 0.0));
            let list = Weighting::SplitLists.apply(list, &y, 5);
            let how = Run { algorithm: Algorithm::Grouped, precision: Precision::F32, sweeps: 10 };
            let what = format!("rank {rank}, {}", loss.name());
            wrong.extend(on_both(&what, &device, (&shapes, &loss), &start, &how, &list));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_row_with_most_of_the_cells_is_right_on_a_gpu_and_the_same_each_time() {
    let Some(device) = crate::common::gpu() else { return };
    let (shapes, list, y) = skewed();
    let start = Random::new(1).factors(&shapes);
    let observations = Observations::new(list);
    let withheld = observations
        .clone()
        .held_out(0.1, 1)
        .and_then(|o| o.missing_at(cells(&y, |at, _| at[1] == 3 || at[0] == 5)))
        .expect("good observations");
    let how = Run { algorithm: Algorithm::Block, precision: Precision::F32, sweeps: 3 };
    for loss in [Loss::kl(), Loss::euclidean()] {
        for observations in [&observations, &withheld] {
            let wrong = on_both(loss.name(), &device, (&shapes, &loss), &start, &how, observations);
            assert!(wrong.is_none(), "{wrong:?}");
        }
        let fit = || run_on(&device, &shapes, &loss, &start, Format::Sparse, &how, &withheld);
        let (one, other) = (fit(), fit());
        assert_eq!(one.factors(), other.factors());
        assert_eq!(one.history().loss, other.history().loss);
        assert_eq!(one.history().heldout_loss, other.history().heldout_loss);
        // Nothing is known of row 5.
        let row = |f: &ArrayD<f64>| f.index_axis(ndarray::Axis(0), 5).mapv(|x| x as f32);
        assert_eq!(row(&one.factors()[0]), row(&start[0]));
    }
}

#[test]
fn rows_without_a_cell_follow_their_closed_forms_on_a_gpu() {
    let Some(device) = crate::common::gpu() else { return };
    let shapes = entry("NMF").shapes(&[50, 40]);
    let mut random = Random::new(4);
    let mut y = ArrayD::zeros(IxDyn(&[50, 40]));
    for (at, x) in y.indexed_iter_mut() {
        // Rows 7 and the last have no cell, and nor have columns 0 and 39.
        if at[0] != 7 && at[0] != 49 && at[1] % 39 != 0 && random.uniform() < 0.1 {
            *x = 1.0 + (3.0 * random.uniform()).floor();
        }
    }
    let start = random.factors(&shapes);
    let how = Run { algorithm: Algorithm::Block, precision: Precision::F32, sweeps: 3 };
    for loss in losses_at_zero() {
        let inside = |x: f64| if loss.domain().contains(x, &[]) { x } else { 1.0 };
        let list = Observations::new(cells(&y.mapv(inside), |_, x| x != 0.0));
        let wrong = on_both(loss.name(), &device, (&shapes, &loss), &start, &how, &list);
        assert!(wrong.is_none(), "{wrong:?}");
    }
}

/// EntryParameter tensors and roles of all cells lie as the data do, those of listed cells by the list.
#[test]
fn side_values_and_any_order_of_memory_on_a_gpu() {
    let Some(device) = crate::common::gpu() else { return };
    let shapes = entry("CP, 3 modes").shapes(&[6, 5, 4]);
    let mut random = Random::new(5);
    let dispersion = random.tensor(&[6, 5, 4], 0.5, 4.0);
    let loss = Loss::negative_binomial(dispersion).expect("dispersions");
    let y = sparse_data(&mut random, &shapes, &loss);
    let mut fortran = ArrayD::zeros(IxDyn(&[4, 5, 6])).permuted_axes(IxDyn(&[2, 1, 0]));
    fortran.assign(&y);
    let start = random.factors(&shapes);
    let how = Run { algorithm: Algorithm::Grouped, precision: Precision::F32, sweeps: 4 };
    for weighting in Weighting::ALL {
        let list = Observations::new(cells(&y, |_, x| x != 0.0));
        for (what, observations) in
            [("C", Observations::new(&y)), ("Fortran", Observations::new(&fortran)), ("list", list)]
        {
            let observations = weighting.apply(observations, &y, 1);
            let what = format!("{what}, {weighting:?}");
            let wrong = on_both(&what, &device, (&shapes, &loss), &start, &how, &observations);
            assert!(wrong.is_none(), "{wrong:?}");
        }
    }
}

/// Random entries of a tensor that nothing could hold.
fn vast(entries: usize) -> (Vec<usize>, Vec<Vec<u64>>, Vec<f64>) {
    let shape = vec![100_000, 100_000, 1_000, 1_000];
    let mut random = Random::new(12);
    let indices: Vec<Vec<u64>> = shape
        .iter()
        .map(|&n| (0..entries).map(|_| (random.uniform().powi(2) * n as f64) as u64).collect())
        .collect();
    let values = (0..entries).map(|_| 1.0 + (5.0 * random.uniform()).floor()).collect();
    (shape, indices, values)
}

/// Σ over all cells of ŷ and of ŷ² of a CP model: products of sums over each mode.
fn totals(factors: &[ArrayD<f64>]) -> (f64, f64) {
    let rank = factors[0].shape()[1];
    let (mut linear, mut square) = (0.0, 0.0);
    for r in 0..rank {
        linear += factors.iter().map(|f| f.index_axis(ndarray::Axis(1), r).sum()).product::<f64>();
        for s in 0..rank {
            let dot = |f: &ArrayD<f64>| {
                let (a, b) = (f.index_axis(ndarray::Axis(1), r), f.index_axis(ndarray::Axis(1), s));
                (&a * &b).sum()
            };
            square += factors.iter().map(dot).product::<f64>();
        }
    }
    (linear, square)
}

#[test]
fn a_tensor_of_1e16_cells_is_never_expanded() {
    let (shape, indices, values) = vast(20_000);
    let list = CooTensor::new(&shape, &indices, &values).expect("indices inside the shape");
    let sizes: f64 = list.volume();
    let model = Model::parse("ir,jr,ar,tr->ijat").expect("a model");
    let observations = Observations::new(list.clone());
    for (loss, square) in [(Loss::kl(), false), (Loss::euclidean(), true)] {
        let settings =
            || NNEinFact::new(model.text()).expect("a model").ranks([('r', 4)]).loss(loss.clone());
        let plan = settings().sparse_plan(&shape, list.len() as u64).expect("a plan");
        assert!(plan.memory() < 200 << 20, "{} bytes", plan.memory());
        let fit = settings().precision(Precision::F64).max_iter(15).tolerance(0.0);
        let fit = fit.fit(&observations).expect("it fits");
        let losses = &fit.history().loss;
        assert_eq!(losses.len(), 16);
        assert!(largest_rise(losses, losses[0].abs()) <= 1e-9);
        assert!(losses[15] < losses[0]);

        // The loss is the sum over all 10^16 cells.
        let (linear, squares) = totals(fit.factors());
        let mut expected = if square { squares / 2.0 } else { linear };
        for i in 0..list.len() {
            let at: Vec<usize> =
                list.indices().iter().map(|l| l.get(i).expect("an index") as usize).collect();
            let x = list.values().get(i).expect("a value");
            let y = fit.predict(&at).expect("an index of the data");
            expected += loss.eval_loss(x, y, &[]) - loss.eval_loss(0.0, y, &[]);
        }
        let apart = (fit.history().last_loss() * sizes / expected - 1.0).abs();
        assert!(apart < 1e-9, "{}: {apart:e}", loss.name());

        // At a minimum over one factor of a KL fit, what the model expects of each index of a mode is
        // what the data have there: the last factor's update was exact.
        if !square {
            let fit = settings()
                .precision(Precision::F64)
                .algorithm(Algorithm::Block)
                .start(Start::Factors(fit.factors().to_vec()))
                .max_iter(1)
                .fit(&observations)
                .expect("it fits");
            let total: f64 = (0..list.len()).map(|i| list.values().get(i).expect("a value")).sum();
            let (linear, _) = totals(fit.factors());
            assert!((linear / total - 1.0).abs() < 1e-9);
        }
    }
}

#[test]
fn a_tensor_of_1e16_cells_is_never_expanded_on_a_gpu() {
    let Some(device) = crate::common::gpu() else { return };
    let (shape, indices, values) = vast(20_000);
    let list = CooTensor::new(&shape, &indices, &values).expect("indices inside the shape");
    let observations = Observations::new(list);
    let model = Model::parse("ir,jr,ar,tr->ijat").expect("a model");
    let shapes = Shapes::new(&model, &shape, &[('r', 4)]).expect("a rank");
    let start = Random::new(3).factors(&shapes);
    let how = Run { algorithm: Algorithm::Block, precision: Precision::F32, sweeps: 4 };
    for loss in [Loss::kl(), Loss::euclidean()] {
        let wrong = on_both(loss.name(), &device, (&shapes, &loss), &start, &how, &observations);
        assert!(wrong.is_none(), "{wrong:?}");
    }
    let refused = NNEinFact::new("ir,jr,ar,tr->ijat")
        .expect("a model")
        .ranks([('r', 2)])
        .loss(Loss::beta(1.5).expect("beta 1.5"))
        .device(device)
        .fit(&observations)
        .expect_err("a pass over all cells")
        .to_string();
    assert!(refused.contains("beta(1.5)") && refused.contains("unlisted_missing"), "{refused}");
}

#[test]
fn vast_tensors_take_lists_of_missing_and_withheld_cells() {
    let (shape, indices, values) = vast(3_000);
    let list = CooTensor::new(&shape, &indices, &values).expect("indices inside the shape");
    let pick = |from: usize, to: usize| {
        let indices: Vec<Vec<u64>> = indices.iter().map(|l| l[from..to].to_vec()).collect();
        CooTensor::new(&shape, &indices, &values[from..to]).expect("indices inside the shape")
    };
    let observations = Observations::new(list.clone())
        .held_out_at(pick(0, 300))
        .and_then(|o| o.validation_at(pick(300, 600)))
        .and_then(|o| o.missing_at(pick(600, 900)))
        .expect("good observations");
    for observations in [observations.clone(), observations.unlisted_missing()] {
        let fit = NNEinFact::new("ir,jr,ar,tr->ijat")
            .expect("a model")
            .ranks([('r', 2)])
            .precision(Precision::F64)
            .prediction_floor(1e-12)
            .max_iter(5)
            .fit(&observations)
            .expect("it fits");
        let mut held_out = 0.0;
        let withheld = pick(0, 300);
        for i in 0..withheld.len() {
            let at: Vec<usize> =
                withheld.indices().iter().map(|l| l.get(i).expect("an index") as usize).collect();
            let x = withheld.values().get(i).expect("a value");
            let y = fit.predict(&at).expect("a prediction").max(1e-12);
            held_out += Loss::kl().eval_loss(x, y, &[]);
        }
        let expected = held_out / withheld.len() as f64;
        let found = *fit.history().heldout_loss.last().expect("a held-out loss");
        assert!((found / expected - 1.0).abs() < 1e-6, "{found} {expected}");
        assert_eq!(fit.history().validation_loss.len(), fit.history().loss.len());
    }
}

#[test]
fn what_cannot_be_done_with_a_vast_tensor_is_said() {
    let (shape, indices, values) = vast(100);
    let list = CooTensor::new(&shape, &indices, &values).expect("indices inside the shape");
    let fit = |loss: Loss, observations: Observations, form: Format| {
        NNEinFact::new("ir,jr,ar,tr->ijat")
            .expect("a model")
            .ranks([('r', 2)])
            .loss(loss)
            .data_as(form)
            .fit(&observations)
            .expect_err("it cannot be done")
    };
    let whole = || Observations::new(list.clone());
    let split = whole().held_out(0.1, 1).expect("a fraction").split_as(SplitKind::Cells);
    let error = fit(Loss::kl(), split, Format::Auto).to_string();
    assert!(error.contains("held_out_at") && error.contains("1000000000"), "{error}");
    let error = fit(Loss::beta(1.5).expect("a loss"), whole(), Format::Auto).to_string();
    assert!(error.contains("beta(1.5)") && error.contains("unlisted_missing"), "{error}");
    let error = fit(Loss::kl(), whole(), Format::Dense);
    assert!(matches!(error, Error::Memory { .. }), "{error}");
    let Error::Domain { count, index, value, .. } =
        fit(Loss::itakura_saito(), whole(), Format::Auto)
    else {
        panic!("zeros are outside the domain")
    };
    assert_eq!((count, index, value), (9_999_999_999_999_900, vec![0, 0, 0, 0], 0.0));
}

#[test]
fn zeros_outside_the_domain_are_counted_as_in_dense_data() {
    let mut y = ArrayD::from_elem(IxDyn(&[4, 5]), 2.0);
    y[[1, 2]] = 0.0;
    y[[3, 3]] = 0.0;
    y[[0, 4]] = 0.0;
    let list = cells(&y, |_, x| x != 0.0);
    let mask = ArrayD::from_shape_fn(IxDyn(&[4, 5]), |at| (at[0], at[1]) != (0, 4));
    for masked in [false, true] {
        let refused = |observations: Observations| {
            let observations = match masked {
                true => observations.mask(&mask).expect("a mask"),
                false => observations,
            };
            let fit = NNEinFact::new("ir,jr->ij").expect("a model").ranks([('r', 1)]);
            match fit.loss(Loss::itakura_saito()).fit(&observations) {
                Err(Error::Domain { count, index, value, .. }) => (count, index, value),
                other => panic!("not refused as outside of the domain: {other:?}"),
            }
        };
        let found = refused(Observations::new(list.clone()));
        assert_eq!(found, refused(Observations::new(&y)));
        assert_eq!(found.0, if masked { 2 } else { 3 });
    }
}

#[test]
fn rows_with_next_to_nothing_observed_are_exact_in_single_precision() {
    // Of row 0 two cells of 4000 are left, of row 1 none, of the others all: so many that the list
    // is of the nonzeros with the missing cells as exceptions, and not of what is observed.
    let (rows, n) = (60, 4000);
    let mut random = Random::new(20);
    let mut y = ArrayD::zeros(IxDyn(&[rows, n]));
    for (_, x) in y.indexed_iter_mut() {
        if random.uniform() < 0.02 {
            *x = 1.0 + (3.0 * random.uniform()).floor();
        }
    }
    y[[0, 17]] = 5.0;
    y[[0, 18]] = 0.0;
    let missing = cells(&y, |at, _| at[0] == 1 || (at[0] == 0 && at[1] != 17 && at[1] != 18));
    let list = Observations::new(cells(&y, |_, x| x != 0.0))
        .missing_at(missing)
        .expect("a list of the same shape");
    let shapes = entry("NMF").shapes(&[rows, n]);
    let start = random.factors(&shapes);
    for loss in [Loss::kl(), Loss::euclidean()] {
        let exact = Run { algorithm: Algorithm::Block, precision: Precision::F64, sweeps: 1 };
        let single = Run { precision: Precision::F32, ..exact };
        let expected = run(&shapes, &loss, &start, Format::Dense, &exact, &list);
        let found = run(&shapes, &loss, &start, Format::Sparse, &single, &list);
        check(loss.name(), &found, &expected, 2e-4);
        // Nothing is known of row 1.
        let row = |f: &ArrayD<f64>| f.index_axis(ndarray::Axis(0), 1).to_owned();
        assert_eq!(row(&found.factors()[0]), row(&start[0]));

        let Some(device) = crate::common::gpu() else { continue };
        let found = run_on(&device, &shapes, &loss, &start, Format::Sparse, &single, &list);
        check(&format!("{} on a GPU", loss.name()), &found, &expected, 2e-4);
        let single = |f: ArrayD<f64>| f.mapv(|x| x as f32);
        assert_eq!(single(row(&found.factors()[0])), single(row(&start[0])));
    }
}

#[test]
fn explicit_zeros_and_duplicates_are_what_they_add_up_to() {
    let once = CooTensor::new(&[3, 4], &[vec![0, 1, 2], vec![1, 3, 0]], &[5.0, 2.0, 1.0]);
    let twice = CooTensor::new(
        &[3, 4],
        &[vec![0, 1, 2, 0, 2], vec![1, 3, 0, 1, 2]],
        &[3.0, 2.0, 1.0, 2.0, 0.0],
    );
    let fit = |list: CooTensor| {
        NNEinFact::new("ir,jr->ij")
            .expect("a model")
            .ranks([('r', 2)])
            .data_as(Format::Sparse)
            .precision(Precision::F64)
            .max_iter(5)
            .fit(Observations::new(list))
            .expect("it fits")
    };
    let (once, twice) = (fit(once.expect("a list")), fit(twice.expect("a list")));
    check("duplicates", &twice, &once, 1e-12);
}

#[test]
fn sparse_data_are_recognised() {
    let mut random = Random::new(2);
    let y = random.mask(&[60, 50, 40], 0.004).mapv(|m| f64::from(u8::from(m)));
    let dense = y.mapv(|x| x + 1.0);
    let fit = |y: &ArrayD<f64>, device: Device| {
        NNEinFact::new("ir,jr,ar->ija")
            .expect("a model")
            .ranks([('r', 3)])
            .device(device)
            .max_iter(1)
            .fit(y)
            .expect("it fits")
    };
    assert!(!fit(&y, Device::cpu()).plan().sparse_passes().is_empty());
    assert!(fit(&dense, Device::cpu()).plan().sparse_passes().is_empty());
    let Some(device) = crate::common::gpu() else { return };
    assert!(!fit(&y, device.clone()).plan().sparse_passes().is_empty());
    assert!(fit(&dense, device).plan().sparse_passes().is_empty());
}

#[test]
fn data_of_extreme_size_are_fitted_as_lists() {
    let shapes = entry("CP, 3 modes").shapes(&[6, 5, 4]);
    for loss in [Loss::kl(), Loss::euclidean(), Loss::beta(1.5).expect("beta 1.5")] {
        let mut random = Random::new(31);
        let y = sparse_data(&mut random, &shapes, &loss);
        let plain = |scale: f64, form: Format, algorithm: Algorithm| {
            NNEinFact::new("ir,jr,ar->ija")
                .expect("a model")
                .ranks([('r', 3)])
                .loss(loss.clone())
                .precision(Precision::F64)
                .data_as(form)
                .algorithm(algorithm)
                .groups(vec![vec![0, 1], vec![2]])
                .max_iter(4)
                .fit(&y.mapv(|x| x * scale))
                .expect("it fits")
        };
        for scale in [2f64.powi(-40), 2f64.powi(40)] {
            let fit = |form| plain(scale, form, Algorithm::Accelerated);
            let (sparse, dense) = (fit(Format::Sparse), fit(Format::Dense));
            let apart = deviation(sparse.factors(), dense.factors());
            assert!(apart < 1e-8, "{} at {scale:e}: {apart:e}", loss.name());
            let (s, d) = (sparse.history().last_loss(), dense.history().last_loss());
            assert!((s / d - 1.0).abs() < 1e-8, "{} at {scale:e}: {s} {d}", loss.name());

            let Some(device) = crate::common::gpu() else { continue };
            // Accelerated fits of Euclid go another way on a GPU.
            let dense = plain(scale, Format::Dense, Algorithm::Grouped);
            let d = dense.history().last_loss();
            let single = NNEinFact::new("ir,jr,ar->ija")
                .expect("a model")
                .ranks([('r', 3)])
                .loss(loss.clone())
                .device(device)
                .data_as(Format::Sparse)
                .algorithm(Algorithm::Grouped)
                .groups(vec![vec![0, 1], vec![2]])
                .max_iter(4)
                .fit(&y.mapv(|x| x * scale))
                .expect("it fits");
            let apart = deviation(single.factors(), dense.factors());
            assert!(apart < 2e-4, "{} at {scale:e} on a GPU: {apart:e}", loss.name());
            let s = single.history().last_loss();
            assert!((s / d - 1.0).abs() < 1e-4, "{} at {scale:e}: {s} {d}", loss.name());
        }
    }
}
