//! A train from samples, by sketching. NTT.md, section 3.

mod features;

use std::ops::Range;

use faer::Mat;
use rayon::prelude::*;

use self::features::{Features, Monomials, Side, by_cores, check_cores};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::fit::first_modes;
use crate::indices::{Indices, check_sizes, merged, normalised_weights, parts};
use crate::linalg::{self, add_product, product_into, view};
use crate::random::{Purpose, Stream};
use crate::train::{ROWS, TensorTrain};

/// Singular values below this share of the largest are rounding.
const ROUNDING: f64 = 1e-14;
/// The most parts that samples are cut into, each with a matrix of its own.
const PARTS: usize = 64;
/// Entries of the matrices of all parts together, if more than one part is to be made.
const TOGETHER: usize = 1 << 25;
/// The bytes that a matrix of moments, or stored functions, may take.
const BYTES: u64 = 4 << 30;

/// What the functions of the two sides are.
#[derive(Clone, Debug)]
enum Kind {
    Monomials { near: usize, degree: usize },
    Cores { left: Vec<Core>, right: Vec<Core> },
    RandomCores { rank: usize, seed: u64 },
}

/// Turns samples into a tensor train: moments of functions of the modes left and right of each cut,
/// truncated singular value decompositions of these, and the cores from them. The train may have
/// negative entries; [`TrainFit`](crate::TrainFit) makes a distribution of it.
///
/// ```
/// use nneinfact_density::{Density, NonnegativeTrain, Sketch};
///
/// let truth = Density::new(&NonnegativeTrain::random(&[2, 3, 2], &[2, 2], 1)?)?;
/// let samples = truth.sample(20_000, 2)?;
/// let found = Sketch::new(vec![2, 3, 2]).monomials(2, 2).rank(2).run(&samples, None)?;
/// let error = truth.to_train().train().relative_squared_distance(&found.train)?;
/// assert!(error < 1e-3);
/// # Ok::<(), nneinfact_density::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sketch {
    sizes: Vec<usize>,
    kind: Kind,
    ranks: Ranks,
    tol: f64,
}

#[derive(Clone, Debug)]
enum Ranks {
    Any,
    All(usize),
    Each(Vec<usize>),
}

/// What a sketch returns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SketchTrain {
    /// The train, of any sign.
    pub train: TensorTrain,
    /// At each bond, the singular values of the moments. Noise shows as a flat tail.
    pub singular_values: Vec<Vec<f64>>,
    /// Ranks that were lowered.
    pub notices: Vec<String>,
}

impl Sketch {
    /// A sketch of samples over modes of these sizes, by monomials near the cut.
    #[must_use]
    pub fn new(sizes: Vec<usize>) -> Sketch {
        Sketch { sizes, kind: Kind::Monomials { near: 2, degree: 1 }, ranks: Ranks::Any, tol: 0.0 }
    }

    /// Orthogonal polynomials of each mode up to a degree, and products of two modes of which one is
    /// among the `near` next to the cut. Default: 2 and 1. For categories use degree n−1.
    #[must_use]
    pub fn monomials(mut self, near: usize, degree: usize) -> Self {
        self.kind = Kind::Monomials { near, degree };
        self
    }

    /// Functions by recursions with given cores: from the left for all modes but the last, from the
    /// right for all but the first.
    #[must_use]
    pub fn cores(mut self, left: Vec<Core>, right: Vec<Core>) -> Self {
        self.kind = Kind::Cores { left, right };
        self
    }

    /// Functions by recursions with random normal cores, `rank` functions at each cut: cheaper than
    /// monomials where there are many modes, and noisier.
    #[must_use]
    pub fn random_cores(mut self, rank: usize, seed: u64) -> Self {
        self.kind = Kind::RandomCores { rank, seed };
        self
    }

    /// The same rank for all bonds, at most. Without one: what the tolerance leaves.
    #[must_use]
    pub fn rank(mut self, rank: usize) -> Self {
        self.ranks = Ranks::All(rank);
        self
    }

    /// A rank for each bond, at most.
    #[must_use]
    pub fn ranks(mut self, ranks: Vec<usize>) -> Self {
        self.ranks = Ranks::Each(ranks);
        self
    }

    /// Singular values of at most this share of the largest are dropped. Default: 0.
    #[must_use]
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// Sketches samples. Weights, where given, are normalised to sum 1.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, there is no sample, one lies outside, weights cannot be used, or
    /// all moments at a cut are zero.
    pub fn run(&self, samples: &Indices, weights: Option<&[f64]>) -> Result<SketchTrain> {
        check_sizes(&self.sizes)?;
        self.check_settings()?;
        samples.check(&self.sizes, "the samples")?;
        let weights = normalised_weights(weights, samples.rows())?;
        let (rows, weights) = merged(samples, &weights);
        let [left, right] = self.features(&rows)?;
        let d = self.sizes.len();
        let (mut notices, mut singular_values) = (Vec::new(), Vec::new());
        if d > 1 && self.tol == 0.0 && matches!(self.ranks, Ranks::Any) {
            notices.push(
                "neither a rank nor a tolerance is given: all singular values above rounding are \
                 kept, those of the noise too"
                    .into(),
            );
        }
        let mut cores = Vec::with_capacity(d);
        let work = Samples { rows: &rows, weights: &weights };
        let mut before = Reduced::ones(rows.rows());
        for cut in 1..d {
            let z = work.moments(&left, &right, cut)?;
            let (rho, tau) = (left.count(cut), right.count(cut));
            let svd = linalg::svd(&z, rho, tau, "the moments at a cut")?;
            if svd.s[0] == 0.0 {
                return Err(Error::Numeric(format!(
                    "all moments between {} and the others are zero; use a sketch with other functions",
                    first_modes(cut)
                )));
            }
            let r = self.rank_at(cut, &svd.s, &mut notices);
            let (to_left, to_right) = projections(&svd, r);
            let after = work.reduce(&right, cut, &to_right, r);
            cores.push(work.core(&before, &after, cut - 1, self.sizes[cut - 1]));
            before = work.reduce(&left, cut, &to_left, r);
            singular_values.push(svd.s);
        }
        let end = Reduced::ones(rows.rows());
        cores.push(work.core(&before, &end, d - 1, self.sizes[d - 1]));
        let train = TensorTrain::new(cores, 0.0)?;
        Ok(SketchTrain { train, singular_values, notices })
    }

    fn check_settings(&self) -> Result<()> {
        let setting = |text: String| Err(Error::Setting(text));
        if !(0.0..1.0).contains(&self.tol) {
            return setting(format!(
                "the tolerance is {}; it has to be at least 0 and less than 1",
                self.tol
            ));
        }
        match &self.ranks {
            Ranks::All(0) => return setting("the rank is 0; it has to be at least 1".into()),
            Ranks::Each(ranks) => crate::nonnegative::check_ranks(self.sizes.len(), ranks)?,
            _ => {}
        }
        match self.kind {
            Kind::Monomials { degree: 0, .. } => {
                setting("the degree is 0; it has to be at least 1".into())
            }
            Kind::RandomCores { rank: 0, .. } => {
                setting("the number of sketch functions is 0; it has to be at least 1".into())
            }
            _ => Ok(()),
        }
    }

    /// The functions of the left and the right side.
    fn features(&self, rows: &Indices) -> Result<[Features; 2]> {
        let sizes = &self.sizes;
        let of_cores = |left: &[Core], right: &[Core]| {
            check_cores(left, sizes, Side::Left)?;
            check_cores(right, sizes, Side::Right)?;
            let functions: usize = left.iter().map(Core::right).sum::<usize>()
                + right.iter().map(Core::left).sum::<usize>();
            check_bytes("the sketch functions at all samples", functions, rows.rows())?;
            Ok([by_cores(rows, left, Side::Left), by_cores(rows, right, Side::Right)])
        };
        match &self.kind {
            &Kind::Monomials { near, degree } => {
                let longest = sizes.iter().copied().max().unwrap_or(1);
                check_bytes("the polynomials of a mode", longest, degree.min(longest) + 1)?;
                Ok([Side::Left, Side::Right]
                    .map(|side| Features::Monomials(Monomials::new(sizes, side, near, degree))))
            }
            Kind::Cores { left, right } => of_cores(left, right),
            &Kind::RandomCores { rank, seed } => {
                let [left, right] = random_cores(sizes, rank, seed);
                of_cores(&left, &right)
            }
        }
    }

    /// How many singular values are kept.
    fn rank_at(&self, cut: usize, s: &[f64], notices: &mut Vec<String>) -> usize {
        let large = s.iter().filter(|&&x| x > self.tol.max(ROUNDING) * s[0]).count().max(1);
        let wanted = match &self.ranks {
            Ranks::Any => return large,
            Ranks::All(rank) => *rank,
            Ranks::Each(ranks) => ranks[cut - 1],
        };
        if wanted > large {
            notices.push(format!(
                "the rank {wanted} between {} and the others is lowered to {large}: so many of the {} \
                 singular values there are above {:e} of the largest",
                first_modes(cut),
                s.len(),
                self.tol.max(ROUNDING)
            ));
        }
        wanted.min(large)
    }
}

/// Normal cores: from the left for all modes but the last, from the right for all but the first.
fn random_cores(sizes: &[usize], rank: usize, seed: u64) -> [Vec<Core>; 2] {
    let d = sizes.len();
    let core = |purpose, shape: [usize; 3], mode: usize| {
        let stream = Stream::new(seed, purpose, mode as u64);
        let [_, n, right] = shape;
        Core::from_fn(shape, |a, i, b| stream.normal(((a * n + i) * right + b) as u64))
    };
    let left = (0..d - 1)
        .map(|k| core(Purpose::SketchLeft, [if k == 0 { 1 } else { rank }, sizes[k], rank], k));
    let right = (1..d).map(|k| {
        core(Purpose::SketchRight, [rank, sizes[k], if k == d - 1 { 1 } else { rank }], k)
    });
    [left.collect(), right.collect()]
}

fn check_bytes(what: &str, rows: usize, cols: usize) -> Result<()> {
    let needed = (rows as u64).saturating_mul(cols as u64).saturating_mul(8);
    if needed <= BYTES {
        return Ok(());
    }
    Err(Error::Memory {
        what: what.into(),
        needed,
        available: BYTES,
        help: "use fewer sketch functions (a lower degree, or fewer near modes)".into(),
    })
}

/// From functions to states: `(U Σ)⁺` of the left side and `(Vᵀ)⁺` of the right, as matrices
/// (functions × states). The largest entry of each left vector is positive.
fn projections(svd: &linalg::ThinSvd, r: usize) -> (Vec<f64>, Vec<f64>) {
    let sign = |j: usize| {
        let mut top = 0.0f64;
        for i in 0..svd.u.nrows() {
            if svd.u[(i, j)].abs() > top.abs() {
                top = svd.u[(i, j)];
            }
        }
        if top < 0.0 { -1.0 } else { 1.0 }
    };
    let signs: Vec<f64> = (0..r).map(sign).collect();
    let left = Mat::from_fn(svd.u.nrows(), r, |i, j| signs[j] * svd.u[(i, j)] / svd.s[j]);
    let right = Mat::from_fn(svd.v.nrows(), r, |i, j| signs[j] * svd.v[(i, j)]);
    (linalg::row_major(left.as_ref()), linalg::row_major(right.as_ref()))
}

/// For each sample, a vector over the states of a bond.
struct Reduced {
    states: usize,
    data: Vec<f64>,
}

impl Reduced {
    fn ones(rows: usize) -> Reduced {
        Reduced { states: 1, data: vec![1.0; rows] }
    }
}

/// Samples with weights.
struct Samples<'a> {
    rows: &'a Indices,
    weights: &'a [f64],
}

impl Samples<'_> {
    /// The sum of a matrix over parts of the samples, in a fixed order.
    fn sum(&self, entries: usize, add: impl Fn(Range<usize>, &mut [f64]) + Sync) -> Vec<f64> {
        let most = (TOGETHER / entries.max(1)).clamp(1, PARTS);
        let of_parts: Vec<Vec<f64>> = parts(self.rows.rows(), ROWS, most)
            .into_par_iter()
            .map(|range| {
                let mut sum = vec![0.0; entries];
                add(range, &mut sum);
                sum
            })
            .collect();
        let mut all = vec![0.0; entries];
        for part in &of_parts {
            all.iter_mut().zip(part).for_each(|(all, part)| *all += part);
        }
        all
    }

    /// The moments `E[S_ζ T_ω]` at a cut.
    fn moments(&self, left: &Features, right: &Features, cut: usize) -> Result<Vec<f64>> {
        let (rho, tau) = (left.count(cut), right.count(cut));
        check_bytes("the moments of the sketch", rho, tau)?;
        Ok(self.sum(rho * tau, |range, z| {
            let (mut s, mut t) = (Vec::new(), Vec::new());
            for start in range.clone().step_by(ROWS) {
                let rows = start..(start + ROWS).min(range.end);
                left.fill(self.rows, cut, rows.clone(), &mut s);
                right.fill(self.rows, cut, rows.clone(), &mut t);
                for (s, w) in s.chunks_exact_mut(rho).zip(&self.weights[rows.clone()]) {
                    s.iter_mut().for_each(|s| *s *= w);
                }
                let s = view(&s, rows.len(), rho);
                add_product(s.transpose(), view(&t, rows.len(), tau), z);
            }
        }))
    }

    /// The functions of a side at each sample, times a matrix (functions × states).
    fn reduce(&self, side: &Features, cut: usize, to: &[f64], states: usize) -> Reduced {
        let functions = side.count(cut);
        let mut data = vec![0.0; self.rows.rows() * states];
        data.par_chunks_mut(ROWS * states).enumerate().for_each(|(block, out)| {
            let rows = block * ROWS..block * ROWS + out.len() / states;
            let mut values = Vec::new();
            side.fill(self.rows, cut, rows.clone(), &mut values);
            let values = view(&values, rows.len(), functions);
            product_into(values, view(to, functions, states), out);
        });
        Reduced { states, data }
    }

    /// A core: weighted sums over the samples with each index, of the states on both sides.
    fn core(&self, left: &Reduced, right: &Reduced, mode: usize, size: usize) -> Core {
        let (l, r) = (left.states, right.states);
        let data = self.sum(l * size * r, |range, core| {
            for row in range {
                let (i, w) = (self.rows.at(row)[mode], self.weights[row]);
                let right = &right.data[row * r..(row + 1) * r];
                for (a, left) in left.data[row * l..(row + 1) * l].iter().enumerate() {
                    let (share, start) = (w * left, (a * size + i) * r);
                    let out = &mut core[start..start + r];
                    out.iter_mut().zip(right).for_each(|(out, x)| *out += share * x);
                }
            }
        });
        Core::raw(l, size, r, data)
    }
}
