//! The engine against the reference, on random problems of every kind at once.

use crate::common::{
    CORPUS, Random, array_deviation, data, deviation, entry, largest_rise, losses, mean_parts,
    mean_term, partitions, repeatable,
};
use ndarray::ArrayD;
use nneinfact::fit::{Format, Start};
use nneinfact::model::Shapes;
use nneinfact::reference::{self, Problem};
use nneinfact::{Algorithm, Device, Error, Fit, Loss, NNEinFact, Observations, Precision};
use proptest::prelude::*;

/// ŷ is raised to this, in engine and reference alike.
const FLOOR: f64 = 1e-6;

/// What is drawn; the problem follows from it.
#[derive(Clone, Copy, Debug)]
struct Draw {
    model: usize,
    loss: usize,
    seed: u64,
    weighting: Weighting,
    precision: Precision,
    /// Whether intermediates get as little memory as a plan can do with.
    tight: bool,
    /// Whether the data lie in another order in memory than C.
    permuted: bool,
    /// Which partition of the factors is taken, of those there are.
    partition: usize,
    cycles: usize,
}

#[derive(Clone, Copy, Debug)]
enum Weighting {
    None,
    Mask,
    /// With zeros, and NaN in the data there.
    Weights,
}

fn draws() -> impl Strategy<Value = Draw> {
    let weighting =
        prop_oneof![Just(Weighting::None), Just(Weighting::Mask), Just(Weighting::Weights)];
    let precision = prop_oneof![Just(Precision::F64), Just(Precision::F32)];
    let problem = (0..CORPUS.len(), 0..losses().len() + SIDED, any::<u64>());
    let run = (weighting, precision, any::<bool>(), any::<bool>(), any::<usize>(), 1usize..4);
    (problem, run).prop_map(|((model, loss, seed), run)| {
        let (weighting, precision, tight, permuted, partition, cycles) = run;
        Draw { model, loss, seed, weighting, precision, tight, permuted, partition, cycles }
    })
}

/// A problem that was drawn.
struct Drawn {
    draw: Draw,
    shapes: Shapes,
    loss: Loss,
    y: ArrayD<f64>,
    mask: Option<ArrayD<bool>>,
    weights: Option<ArrayD<f64>>,
    start: Vec<ArrayD<f64>>,
    axes: Vec<usize>,
}

/// Losses with a tensor of parameters, which [`sided`] makes.
const SIDED: usize = 2;

fn sided(i: usize, random: &mut Random, shape: &[usize]) -> Loss {
    match i {
        0 => Loss::negative_binomial(random.tensor(shape, 0.5, 4.0)).expect("dispersions"),
        _ => {
            let trials = random.tensor(shape, 1.0, 9.0).mapv(f64::round);
            Loss::binomial(trials).expect("numbers of trials")
        }
    }
}

impl Draw {
    fn problem(self) -> Drawn {
        let mut random = Random::new(self.seed);
        let entry = CORPUS[self.model];
        let modes = entry.modes();
        let most = if modes > 4 { 4 } else { 6 };
        let mut shape: Vec<usize> = (0..modes).map(|_| 1 + random.below(most)).collect();
        if random.uniform() < 0.5 {
            // More than a vector, and mostly no multiple of one.
            shape[random.below(modes)] = 15 + random.below(25);
        }
        let shapes = entry.shapes(&shape);
        let mut named = losses();
        let loss = if self.loss < named.len() {
            named.swap_remove(self.loss)
        } else {
            sided(self.loss - named.len(), &mut random, &shape)
        };
        let mut y = data(&mut random, &shapes, &loss);
        let (mut mask, mut weights) = (None, None);
        match self.weighting {
            Weighting::None => {}
            Weighting::Mask => {
                let mut cells = random.mask(&shape, 0.6);
                *cells.first_mut().expect("a cell") = true;
                weights = Some(cells.mapv(|m| f64::from(u8::from(m))));
                mask = Some(cells);
            }
            Weighting::Weights => {
                let mut w = random.tensor(&shape, -0.5, 2.0).mapv(|w| w.max(0.0));
                *w.first_mut().expect("a cell") = 1.0;
                ndarray::Zip::from(&mut y).and(&w).for_each(|y, &w| {
                    if w == 0.0 {
                        *y = f64::NAN;
                    }
                });
                weights = Some(w);
            }
        }
        if self.precision == Precision::F32 {
            // Rounding the data is no part of what is compared.
            y.mapv_inplace(|x| f64::from(x as f32));
            weights = weights.map(|w| w.mapv(|w| f64::from(w as f32)));
        }
        let start = random.factors(&shapes);
        let mut axes: Vec<usize> = (0..modes).collect();
        if self.permuted {
            for i in (1..modes).rev() {
                axes.swap(i, random.below(i + 1));
            }
        }
        Drawn { draw: self, shapes, loss, y, mask, weights, start, axes }
    }
}

/// The same array with its axes in another order in memory.
fn in_memory_order(array: &ArrayD<f64>, axes: &[usize]) -> ArrayD<f64> {
    let mut back = vec![0; axes.len()];
    axes.iter().enumerate().for_each(|(i, &axis)| back[axis] = i);
    let permuted = array.view().permuted_axes(axes);
    permuted.as_standard_layout().into_owned().permuted_axes(back)
}

impl Drawn {
    fn reference(&self) -> Problem<'_> {
        Problem {
            shapes: &self.shapes,
            loss: &self.loss,
            y: &self.y,
            weights: self.weights.as_ref(),
            floor: self.floor(),
        }
    }

    /// Steps on the exact objective of half the squared distance know no floor of ŷ.
    fn floor(&self) -> f64 {
        if self.loss.is_half_squared_distance() { 1e-200 } else { FLOOR }
    }

    fn observations(&self, axes: &[usize]) -> Observations {
        let observations = Observations::new(in_memory_order(&self.y, axes));
        match (&self.mask, &self.weights) {
            (Some(mask), _) => observations.mask(mask),
            (None, Some(weights)) => observations.weights(weights),
            (None, None) => Ok(observations),
        }
        .expect("the observations are good")
    }

    fn settings(&self) -> NNEinFact {
        let model = self.shapes.model();
        let ranks = model.latent().iter().map(|x| (char::from(x), self.shapes.size(x)));
        NNEinFact::new(model.text())
            .expect("a model")
            .ranks(ranks.collect::<Vec<_>>())
            .loss(self.loss.clone())
            .device(Device::cpu())
            .precision(self.draw.precision)
            .start(Start::Factors(self.start.clone()))
            .prediction_floor(self.floor())
            .factor_floor(0.0)
            .tolerance(0.0)
            // Sums over zeros in closed form are not clamped at so high a floor as the reference's;
            // tests/sparse.rs has the passes over lists.
            .data_as(Format::Dense)
    }

    fn partition(&self) -> Vec<Vec<usize>> {
        let mut all = partitions(self.start.len());
        all.swap_remove(self.draw.partition % all.len())
    }

    /// A fit in the order and with the memory that were drawn.
    fn fit(&self, settings: impl Fn() -> NNEinFact) -> Fit {
        let observations = self.observations(&self.axes);
        if !self.draw.tight {
            return settings().fit(&observations).expect("it fits");
        }
        // Each refusal says what one pass needs.
        let mut limit = 1;
        for _ in 0..=self.start.len() {
            match settings().memory_limit(limit).fit(&observations) {
                Err(Error::Memory { needed, available, .. }) => {
                    assert_eq!(available, limit);
                    assert!(needed > limit, "{needed} bytes were not enough");
                    limit = needed;
                }
                fitted => return fitted.expect("it fits"),
            }
        }
        panic!("no limit was enough");
    }

    /// The mean |term| of the loss at the start, but not less than what single precision makes out.
    fn term(&self) -> f64 {
        let predicted = reference::predict(&self.shapes, &self.start);
        let term = mean_term(&self.loss, &self.y, self.weights.as_ref(), &predicted, self.floor());
        // A term near its minimum is a difference of parts of the size of ŷ·(a + b), which is twice
        // either part there. Sixteen roundings of them are allowed, as a share of the 2e-4 of the checks.
        let parts =
            mean_parts(&self.loss, &self.y, self.weights.as_ref(), &predicted, self.floor());
        term.max(self.pick(0.0, 16.0 * f64::from(f32::EPSILON) / 2e-4 * parts))
    }

    fn pick(&self, in_f64: f64, in_f32: f64) -> f64 {
        match self.draw.precision {
            Precision::F64 => in_f64,
            Precision::F32 => in_f32,
        }
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, ..repeatable() }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn a_block_sweep_is_that_of_the_reference(draw in draws()) {
        let drawn = draw.problem();
        let fit = drawn.fit(|| drawn.settings().algorithm(Algorithm::Block).max_iter(1));
        let problem = drawn.reference();
        let mut expected = drawn.start.clone();
        let losses = [problem.loss(&expected), {
            problem.sweep(&mut expected);
            problem.loss(&expected)
        }];
        let apart = deviation(fit.factors(), &expected);
        prop_assert!(apart <= drawn.pick(1e-10, 2e-4), "{}: factors {apart:e}", drawn.loss.name());
        let term = drawn.term().max(1e-3);
        for (found, expected) in fit.history().loss.iter().zip(losses) {
            let apart = (found - expected).abs() / term;
            prop_assert!(apart <= drawn.pick(1e-10, 2e-4), "{}: losses {apart:e}", drawn.loss.name());
        }
    }

    #[test]
    fn grouped_sweeps_never_raise_the_loss(draw in draws(), planned in any::<bool>()) {
        let drawn = draw.problem();
        let fit = drawn.fit(|| {
            let settings = drawn.settings().max_iter(6).inner_cycles(draw.cycles);
            if planned { settings } else { settings.groups(drawn.partition()) }
        });
        let rise = largest_rise(&fit.history().loss, drawn.term());
        prop_assert!(rise <= drawn.pick(1e-9, 1e-4), "{}: rise {rise:e}", drawn.loss.name());
        prop_assert!(fit.factors().iter().flatten().all(|x| x.is_finite() && *x >= 0.0));
        // What the history says of the result is true.
        let expected = drawn.reference().loss(fit.factors());
        let apart = (fit.history().last_loss() - expected).abs() / drawn.term().max(1e-3);
        prop_assert!(apart <= drawn.pick(1e-9, 2e-4), "{}: loss {apart:e}", drawn.loss.name());
    }

    #[test]
    fn a_grouped_sweep_does_not_depend_on_layout_or_memory(draw in draws()) {
        let drawn = draw.problem();
        // Where every row has a quadratic form of its own, memory decides whether steps are exact.
        let by_rows =
            drawn.loss.is_half_squared_distance() && !matches!(draw.weighting, Weighting::None);
        let settings = || {
            let settings =
                drawn.settings().groups(drawn.partition()).inner_cycles(draw.cycles).max_iter(2);
            if by_rows { settings.algorithm(Algorithm::Grouped) } else { settings }
        };
        let found = drawn.fit(settings);
        let in_order: Vec<usize> = (0..drawn.axes.len()).collect();
        let expected = settings().fit(drawn.observations(&in_order)).expect("it fits");
        let apart = deviation(found.factors(), expected.factors());
        prop_assert!(apart <= drawn.pick(1e-9, 1e-3), "{}: {apart:e}", drawn.loss.name());
    }

    #[test]
    fn predictions_are_those_of_the_reference(draw in draws()) {
        let drawn = draw.problem();
        let fit = drawn.fit(|| drawn.settings().max_iter(0));
        let expected = reference::predict(&drawn.shapes, fit.factors());
        let whole = fit.reconstruct().expect("it fits in memory");
        prop_assert!(array_deviation(&whole, &expected) <= 1e-12);
        let mut random = Random::new(draw.seed ^ 1);
        let at: Vec<usize> = expected.shape().iter().map(|&n| random.below(n)).collect();
        let one = fit.predict(&at).expect("an index of the data");
        prop_assert!((one - expected[&*at]).abs() <= 1e-12 * expected[&*at]);
        let fixed: Vec<Option<usize>> =
            at.iter().map(|&i| (random.uniform() < 0.5).then_some(i)).collect();
        let slice = fit.slice(&fixed).expect("a slice of the data");
        let mut sliced = expected.view();
        for axis in (0..fixed.len()).rev() {
            if let Some(i) = fixed[axis] {
                sliced = sliced.index_axis_move(ndarray::Axis(axis), i);
            }
        }
        prop_assert!(array_deviation(&slice, &sliced.into_owned()) <= 1e-12);
    }
}

/// A model, the shape of its data, and its ranks.
type LargeProblem = (&'static str, &'static [usize], &'static [(char, usize)]);

#[test]
fn tiles_of_every_kind_are_those_of_the_reference() {
    // Sizes beyond a tile in rows, lanes and inner letters, none of them a multiple of anything.
    let problems: [LargeProblem; 10] = [
        ("ir,jr->ij", &[37, 1103], &[('r', 21)]),
        // Rows that are used where they stand: in panels of four, and of eight as `C` is large.
        ("ir,jr->ij", &[140, 1103], &[('r', 21)]),
        ("ir,jr->ij", &[148, 531], &[('r', 6)]),
        ("ir,jr->ij", &[44, 301], &[('r', 130)]),
        ("ir,jr->ij", &[1403, 3], &[('r', 5)]),
        ("ir,jr->ij", &[3, 2], &[('r', 129)]),
        ("ir,jr,ar->ija", &[33, 19, 47], &[('r', 9)]),
        ("wr,hr,dr,ikr,jkr->whdij", &[3, 5, 3, 21, 37], &[('r', 10), ('k', 3)]),
        ("ijr,jkr,ikr->ijk", &[31, 37, 71], &[('r', 3)]),
        ("aib,bjc,cka->ijk", &[21, 17, 33], &[('a', 3), ('b', 2), ('c', 5)]),
    ];
    for (text, shape, ranks) in problems {
        let model = nneinfact::model::Model::parse(text).expect("a model");
        let shapes = Shapes::new(&model, shape, ranks).expect("ranks");
        for loss in [Loss::kl(), Loss::beta(1.5).expect("beta 1.5")] {
            let mut random = Random::new(11);
            let y = data(&mut random, &shapes, &loss);
            let mask = random.mask(shape, 0.8);
            let weights = mask.mapv(|m| f64::from(u8::from(m)));
            let start = random.factors(&shapes);
            for masked in [false, true] {
                let weights = masked.then_some(&weights);
                let problem =
                    Problem { shapes: &shapes, loss: &loss, y: &y, weights, floor: FLOOR };
                let mut expected = start.clone();
                problem.sweep(&mut expected);
                let observations = Observations::new(&y);
                let observations = match masked {
                    true => observations.mask(&mask).expect("a mask"),
                    false => observations,
                };
                for (precision, allowed) in [(Precision::F64, 1e-10), (Precision::F32, 2e-4)] {
                    let fit = NNEinFact::new(text)
                        .expect("a model")
                        .ranks(ranks.iter().copied())
                        .loss(loss.clone())
                        .precision(precision)
                        .algorithm(Algorithm::Block)
                        .start(Start::Factors(start.clone()))
                        .prediction_floor(FLOOR)
                        .factor_floor(0.0)
                        .max_iter(1)
                        .fit(&observations)
                        .expect("it fits");
                    let apart = deviation(fit.factors(), &expected);
                    let what = format!("{text} {shape:?}, {}, {precision:?}", loss.name());
                    assert!(apart <= allowed, "{what}, masked {masked}: {apart:e}");
                }
            }
        }
    }
}

/// A problem large enough to be split into several tasks.
fn large(loss: &Loss) -> (Shapes, Observations) {
    let mut random = Random::new(7);
    let shapes = entry("Uber, second").shapes(&[9, 8, 7, 31, 33]);
    let y = data(&mut random, &shapes, loss);
    let mask = random.mask(y.shape(), 0.9);
    let observations = Observations::new(&y)
        .mask(&mask)
        .and_then(|o| o.held_out(0.1, 3))
        .and_then(|o| o.validation(0.1, 3))
        .expect("the observations are good");
    (shapes, observations)
}

fn bits(fit: &Fit) -> Vec<u64> {
    let history = fit.history();
    let losses = history.loss.iter().chain(&history.validation_loss).chain(&history.heldout_loss);
    fit.factors().iter().flatten().chain(losses).map(|x| x.to_bits()).collect()
}

#[test]
fn threads_and_repetition_do_not_change_a_bit() {
    for loss in [Loss::kl(), Loss::alpha_beta(1.3, 1.0).expect("a member of the family")] {
        let (shapes, observations) = large(&loss);
        for precision in [Precision::F32, Precision::F64] {
            for algorithm in [Algorithm::Block, Algorithm::Grouped] {
                let run = |device: Device| {
                    let fit = NNEinFact::new(shapes.model().text())
                        .expect("a model")
                        .ranks([('r', 3), ('k', 2)])
                        .loss(loss.clone())
                        .precision(precision)
                        .algorithm(algorithm)
                        .seed(5)
                        .max_iter(3)
                        .device(device)
                        .fit(&observations)
                        .expect("it fits");
                    bits(&fit)
                };
                let threads = |n| Device::cpu().threads(n).expect("threads start");
                let one = run(threads(1));
                for n in [1, 2, 3] {
                    assert!(one == run(threads(n)), "{n} threads, {precision:?}, {algorithm:?}");
                }
                assert!(one == run(Device::cpu()), "all threads, {precision:?}, {algorithm:?}");
            }
        }
    }
}

#[test]
fn another_seed_is_another_start() {
    let loss = Loss::kl();
    let (shapes, observations) = large(&loss);
    let run = |seed| {
        NNEinFact::new(shapes.model().text())
            .expect("a model")
            .ranks([('r', 3), ('k', 2)])
            .seed(seed)
            .max_iter(0)
            .fit(&observations)
            .expect("it fits")
    };
    assert_ne!(bits(&run(1)), bits(&run(2)));
    assert_ne!(bits(&run(1)), bits(&run(1 << 32 | 1)), "all bits of the seed count");
}
