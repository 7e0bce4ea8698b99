//! What the integration tests share: models, losses, data, configurations and comparisons.

#![allow(dead_code, reason = "every test binary uses its own part of it")]

pub mod golden;
pub mod many;

use ndarray::{ArrayD, IxDyn};
use nneinfact::fit::Start;
use nneinfact::loss::Domain;
use nneinfact::model::{Model, Shapes};
use nneinfact::{Device, Fit, Loss, NNEinFact, Observations, Precision};
use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// A device and precision that the suites run on, and how exactly it has to agree with f64.
#[derive(Clone)]
pub struct Configuration {
    /// For messages.
    pub name: &'static str,
    /// Where fits run.
    pub device: Device,
    /// The element type of passes.
    pub precision: Precision,
    /// Deviation allowed from ten exact sweeps, relative to each factor's largest entry.
    pub tolerance: f64,
    /// Rise allowed in a sweep that may not raise the loss, relative to the larger of |F| and the
    /// mean |term|.
    pub rise: f64,
}

/// The GPU of this machine, a software one where there is no other; opened once, so that all tests
/// of a binary share its compiled shaders. `None` only where the person running the tests says that
/// there is none, with `NNEINFACT_NO_GPU=1`.
///
/// # Panics
/// Where there is no adapter and nobody said so: a suite that silently leaves out the GPU would
/// pass for the wrong reason.
#[cfg(feature = "gpu")]
pub fn gpu() -> Option<Device> {
    use std::sync::OnceLock;
    static GPU: OnceLock<Option<Device>> = OnceLock::new();
    GPU.get_or_init(|| {
        if std::env::var("NNEINFACT_NO_GPU").is_ok_and(|v| v == "1") {
            eprintln!("skipped: NNEINFACT_NO_GPU=1");
            return None;
        }
        let device = Device::gpu().unwrap_or_else(|error| {
            panic!(
                "{error}\n.ci/drivers installs a software one for the tests; NNEINFACT_NO_GPU=1 \
                 skips those that need it"
            )
        });
        Some(device)
    })
    .clone()
}

/// This build has no engine for GPUs.
#[cfg(not(feature = "gpu"))]
pub fn gpu() -> Option<Device> {
    None
}

/// Which of this many cases run on a GPU: all, or as many as `NNEINFACT_GPU_CASES` says, spread
/// evenly. Software drivers need seconds for what others do in milliseconds, and a second one need
/// not repeat everything.
pub fn gpu_cases(count: usize) -> impl Iterator<Item = usize> {
    let most = std::env::var("NNEINFACT_GPU_CASES").ok().map_or(count, |v| {
        v.parse().unwrap_or_else(|_| panic!("NNEINFACT_GPU_CASES is a number, not {v:?}"))
    });
    let taken = most.clamp(1, count.max(1)).min(count);
    (0..taken).map(move |n| n * count / taken)
}

/// Every configuration of this build and machine.
pub fn configurations() -> Vec<Configuration> {
    let mut all = cpu_configurations();
    all.extend(gpu().map(|device| Configuration {
        name: "gpu",
        device,
        precision: Precision::F32,
        tolerance: 2e-4,
        rise: 1e-4,
    }));
    all
}

/// The configurations of the CPU.
pub fn cpu_configurations() -> Vec<Configuration> {
    vec![
        Configuration {
            name: "cpu f64",
            device: Device::cpu(),
            precision: Precision::F64,
            tolerance: 1e-9,
            rise: 1e-9,
        },
        Configuration {
            name: "cpu f32",
            device: Device::cpu(),
            precision: Precision::F32,
            tolerance: 2e-4,
            rise: 1e-4,
        },
    ]
}

/// Random numbers that are the same on every run and machine (SplitMix64, Steele et al. 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1).
    pub fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Uniform among 0, …, n − 1.
    pub fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }

    /// A tensor of uniform numbers between two bounds.
    pub fn tensor(&mut self, shape: &[usize], from: f64, to: f64) -> ArrayD<f64> {
        ArrayD::from_shape_simple_fn(IxDyn(shape), || from + (to - from) * self.uniform())
    }

    /// One factor per element of the model, with entries between 0.2 and 1.2.
    pub fn factors(&mut self, shapes: &Shapes) -> Vec<ArrayD<f64>> {
        (0..shapes.model().factors().len())
            .map(|l| self.tensor(&shapes.factor(l), 0.2, 1.2))
            .collect()
    }

    /// true with the probability given.
    pub fn mask(&mut self, shape: &[usize], probability: f64) -> ArrayD<bool> {
        self.tensor(shape, 0.0, 1.0).mapv(|u| u < probability)
    }
}

/// A fit of the model of these shapes on the CPU, in double precision.
pub fn settings(shapes: &Shapes) -> NNEinFact {
    let model = shapes.model();
    let ranks: Vec<_> = model.latent().iter().map(|x| (char::from(x), shapes.size(x))).collect();
    NNEinFact::new(model.text())
        .expect("a model")
        .ranks(ranks)
        .device(Device::cpu())
        .precision(Precision::F64)
}

/// A problem of the corpus on data of some shape that single precision holds, with a start.
pub struct Case {
    pub shapes: Shapes,
    pub loss: Loss,
    pub y: ArrayD<f64>,
    pub start: Vec<ArrayD<f64>>,
}

impl Case {
    /// ŷ is raised to this.
    pub const FLOOR: f64 = 1e-6;

    pub fn new(name: &str, shape: &[usize], loss: Loss, seed: u64) -> Case {
        let mut random = Random::new(seed);
        let shapes = entry(name).shapes(shape);
        let y = data(&mut random, &shapes, &loss).mapv(|x| f64::from(x as f32));
        let start = random.factors(&shapes);
        Case { shapes, loss, y, start }
    }

    /// In single precision, from the start, without an early stop.
    pub fn settings(&self, device: &Device) -> NNEinFact {
        settings(&self.shapes)
            .loss(self.loss.clone())
            .device(device.clone())
            .precision(Precision::F32)
            .start(Start::Factors(self.start.clone()))
            .prediction_floor(Case::FLOOR)
            .tolerance(0.0)
    }

    pub fn observations(&self) -> Observations {
        Observations::new(&self.y)
    }

    /// The mean |term| at the end of a fit.
    pub fn term(&self, fit: &Fit) -> f64 {
        let predicted = nneinfact::reference::predict(&self.shapes, fit.factors());
        mean_term(&self.loss, &self.y, None, &predicted, Case::FLOOR)
    }
}

/// A model with ranks, for any sizes of its observed letters.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub name: &'static str,
    pub model: &'static str,
    pub ranks: &'static [(char, usize)],
}

/// Models of every kind that there is a name for, and some that there is none for.
pub const CORPUS: &[Entry] = &[
    Entry { name: "NMF", model: "ir,jr->ij", ranks: &[('r', 3)] },
    Entry { name: "NMF, transposed output", model: "ir,jr->ji", ranks: &[('r', 3)] },
    Entry { name: "tri-NMF", model: "ic,ce,je->ij", ranks: &[('c', 2), ('e', 3)] },
    Entry { name: "CP, 3 modes", model: "ir,jr,ar->ija", ranks: &[('r', 3)] },
    Entry { name: "CP, 4 modes", model: "ir,jr,ar,tr->ijat", ranks: &[('r', 3)] },
    Entry { name: "CP, 5 modes", model: "ir,jr,ar,tr,ur->ijatu", ranks: &[('r', 2)] },
    Entry { name: "CP, 6 modes", model: "ir,jr,ar,tr,ur,vr->ijatuv", ranks: &[('r', 2)] },
    Entry { name: "CP with weights", model: "ir,jr,ar,r->ija", ranks: &[('r', 3)] },
    Entry {
        name: "CP with a factored mode",
        model: "ir,jr,ak,kr,tr->ijat",
        ranks: &[('k', 2), ('r', 3)],
    },
    Entry { name: "Tucker", model: "ic,je,af,cef->ija", ranks: &[('c', 2), ('e', 3), ('f', 2)] },
    Entry {
        name: "low-rank Tucker",
        model: "ic,je,ak,cq,eq,kq->ija",
        ranks: &[('c', 2), ('e', 3), ('k', 2), ('q', 3)],
    },
    Entry { name: "tensor train", model: "ic,jce,ae->ija", ranks: &[('c', 2), ('e', 3)] },
    Entry {
        name: "tensor train, 4 modes",
        model: "ia,ajb,bkc,cl->ijkl",
        ranks: &[('a', 2), ('b', 3), ('c', 2)],
    },
    Entry {
        name: "tensor ring",
        model: "aib,bjc,cka->ijk",
        ranks: &[('a', 2), ('b', 3), ('c', 2)],
    },
    Entry { name: "many-body", model: "ij,ja,ia->ija", ranks: &[] },
    Entry { name: "many-body of rank r", model: "ijr,jkr,ikr->ijk", ranks: &[('r', 2)] },
    Entry { name: "Uber, first", model: "wr,dr,hr,irk,jrk->wdhij", ranks: &[('r', 3), ('k', 2)] },
    Entry { name: "Uber, second", model: "wr,hr,dr,ikr,jkr->whdij", ranks: &[('r', 3), ('k', 2)] },
    Entry { name: "the paper's third", model: "ik,jqk,aiq,q->ija", ranks: &[('k', 2), ('q', 3)] },
    Entry { name: "observed letters twice", model: "ij,jr,kr->ijk", ranks: &[('r', 2)] },
    Entry { name: "a latent letter alone", model: "irz,jr->ij", ranks: &[('r', 2), ('z', 3)] },
    Entry { name: "a single factor", model: "ijr->ij", ranks: &[('r', 2)] },
    Entry { name: "an outer product", model: "i,j,k->ijk", ranks: &[] },
];

/// The corpus entry of this name.
pub fn entry(name: &str) -> &'static Entry {
    CORPUS.iter().find(|e| e.name == name).expect("an entry of the corpus")
}

impl Entry {
    /// The model for data of this shape.
    pub fn shapes(&self, shape: &[usize]) -> Shapes {
        let model = Model::parse(self.model).expect("a model of the corpus is a model");
        Shapes::new(&model, shape, self.ranks).expect("the ranks of the corpus fit")
    }

    /// The number of observed letters.
    pub fn modes(&self) -> usize {
        Model::parse(self.model).expect("a model of the corpus is a model").output().len()
    }
}

/// Every named loss, and members of the αβ-family in every region of its majorizer.
pub fn losses() -> Vec<Loss> {
    let alpha_beta = |alpha, beta| Loss::alpha_beta(alpha, beta).expect("a member of the family");
    vec![
        Loss::kl(),
        Loss::euclidean(),
        Loss::itakura_saito(),
        Loss::hellinger(),
        Loss::reverse_kl(),
        Loss::neyman(),
        Loss::pearson(),
        Loss::alpha(0.3).expect("alpha 0.3"),
        Loss::alpha(-0.5).expect("alpha -0.5"),
        Loss::beta(0.5).expect("beta 0.5"),
        Loss::beta(1.5).expect("beta 1.5"),
        Loss::beta(3.0).expect("beta 3"),
        alpha_beta(0.7, 0.0),
        alpha_beta(1.3, 1.0),
        alpha_beta(0.8, -0.5),
        alpha_beta(-0.6, -0.7),
        alpha_beta(-1.0, 0.4),
        alpha_beta(0.5, -0.5),
        Loss::negative_binomial(2.0).expect("dispersion 2"),
        Loss::geometric(),
        Loss::bernoulli(),
        Loss::binomial(5.0).expect("5 trials"),
        Loss::jensen_shannon(),
    ]
}

/// Data inside the domain of the loss that a model of this kind fits better than it fits noise:
/// predictions of random factors with noise. Where the domain has zeros, some entries are zero.
pub fn data(random: &mut Random, shapes: &Shapes, loss: &Loss) -> ArrayD<f64> {
    let factors = random.factors(shapes);
    let mut y = nneinfact::reference::predict(shapes, &factors);
    let mean = y.mean().unwrap_or(1.0);
    y.mapv_inplace(|x| 3.0 * x / mean * (0.3 + 1.4 * random.uniform()));
    match *loss.domain() {
        Domain::Positive => y.mapv_inplace(|x| x + 0.05),
        Domain::Any | Domain::NonNegative => {
            y.mapv_inplace(|x| if random.uniform() < 0.15 { 0.0 } else { (4.0 * x).round() / 4.0 });
        }
        Domain::Binary => {
            y.mapv_inplace(|x| f64::from(u8::from(x / (1.0 + x) > 0.4 + 0.5 * random.uniform())));
        }
        Domain::UpTo(_) => {
            for (at, x) in y.indexed_iter_mut() {
                let sides: Vec<f64> =
                    loss.entry_parameters().iter().map(|side| side[&at]).collect();
                *x = x.round().min(loss.domain().trials(&sides).unwrap_or(1.0));
            }
        }
    }
    y
}

/// All partitions of 0, …, n − 1 into groups.
pub fn partitions(n: usize) -> Vec<Vec<Vec<usize>>> {
    let mut all: Vec<Vec<Vec<usize>>> = vec![Vec::new()];
    for l in 0..n {
        let mut longer = Vec::new();
        for partition in all {
            for g in 0..partition.len() {
                let mut joined = partition.clone();
                joined[g].push(l);
                longer.push(joined);
            }
            let mut apart = partition;
            apart.push(vec![l]);
            longer.push(apart);
        }
        all = longer;
    }
    all
}

/// The largest deviation of a factor from what is expected, relative to the largest entry
/// expected in that factor. Infinite where shapes differ or an entry is not a number.
pub fn deviation(found: &[ArrayD<f64>], expected: &[ArrayD<f64>]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    found.iter().zip(expected).map(|(f, e)| array_deviation(f, e)).fold(0.0, f64::max)
}

/// As [`deviation`], of one array.
pub fn array_deviation(found: &ArrayD<f64>, expected: &ArrayD<f64>) -> f64 {
    if found.shape() != expected.shape() || found.iter().any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    let largest = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let apart = found.iter().zip(expected).fold(0.0, |m: f64, (f, e)| m.max((f - e).abs()));
    if apart == 0.0 { 0.0 } else { apart / largest }
}

/// The largest deviation of a history from what is expected, relative to max(|value|, 1).
pub fn history_deviation(found: &[f64], expected: &[f64]) -> f64 {
    if found.len() != expected.len() || found.iter().any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    let relative = |(f, e): (&f64, &f64)| (f - e).abs() / e.abs().max(1.0);
    found.iter().zip(expected).map(relative).fold(0.0, f64::max)
}

/// The mean of |W ℓ| at a point: the size of the terms that F is the mean of, which rounding
/// errors are relative to.
pub fn mean_term(
    loss: &Loss,
    y: &ArrayD<f64>,
    weights: Option<&ArrayD<f64>>,
    predicted: &ArrayD<f64>,
    floor: f64,
) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for (at, &x) in y.indexed_iter() {
        let w = weights.map_or(1.0, |w| w[&at]);
        if w > 0.0 {
            let sides: Vec<f64> = loss.entry_parameters().iter().map(|s| s[&at]).collect();
            sum += w * loss.eval_loss(x, predicted[&at].max(floor), &sides).abs();
            total += w;
        }
    }
    sum / total
}

/// The mean of ŷ·(a + b): the size of the parts whose difference a term of the loss is near its minimum.
pub fn mean_parts(
    loss: &Loss,
    y: &ArrayD<f64>,
    weights: Option<&ArrayD<f64>>,
    predicted: &ArrayD<f64>,
    floor: f64,
) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for (at, &x) in y.indexed_iter() {
        let w = weights.map_or(1.0, |w| w[&at]);
        if w > 0.0 {
            let sides: Vec<f64> = loss.entry_parameters().iter().map(|s| s[&at]).collect();
            let y = predicted[&at].max(floor);
            sum += w * y * (loss.eval_a(x, y, &sides) + loss.eval_b(x, y, &sides));
            total += w;
        }
    }
    sum / total
}

/// How random problems are drawn: the same in every run, so that a failure belongs to the change that
/// brought it. `PROPTEST_RNG_SEED=N` draws others.
pub fn repeatable() -> ProptestConfig {
    let config = ProptestConfig::default();
    let rng_seed = match config.rng_seed {
        RngSeed::Random => RngSeed::Fixed(20_261_130),
        given @ RngSeed::Fixed(_) => given,
    };
    // A failure prints all that it takes to repeat it.
    ProptestConfig { rng_seed, failure_persistence: None, ..config }
}

/// The largest rise between consecutive elements, relative to max(|F|, `term`).
pub fn largest_rise(history: &[f64], term: f64) -> f64 {
    let rise = |pair: &[f64]| {
        if pair.iter().all(|f| f.is_finite()) {
            (pair[1] - pair[0]) / pair[0].abs().max(term)
        } else {
            f64::INFINITY
        }
    };
    history.windows(2).map(rise).fold(0.0, f64::max)
}
