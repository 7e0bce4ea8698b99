//! Maximum likelihood from samples: expectation maximisation of the Markov form. NTT.md, section 8.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::core::Core;
use crate::density::Density;
use crate::error::{Error, Result};
use crate::fit::StoppedBy;
use crate::indices::{Indices, merged, normalised_weights, parts};
use crate::linalg;
use crate::train::ROWS;

/// The most parts that samples are cut into, each with counts of its own.
const PARTS: usize = 64;
/// The counts of all parts together, in entries, if more than one part is to be made.
const COUNTS: usize = 1 << 25;

/// Called after every sweep with its number, from 1, and the negative log-likelihood after it.
type Observer<'a> = Box<dyn FnMut(usize, f64) -> ControlFlow<()> + Send + 'a>;

/// Raises the likelihood of samples, from a distribution that is near already: the algorithm of Baum
/// and Welch for a chain whose cores differ. From a random start it ends on a plateau; after a
/// [`TrainFit`](crate::TrainFit) to a [`Sketch`](crate::Sketch) a few sweeps improve the fit.
///
/// ```
/// use nneinfact_density::{Density, Em, NonnegativeTrain};
///
/// let truth = Density::new(&NonnegativeTrain::random(&[2, 3, 2], &[2, 2], 1)?)?;
/// let samples = truth.sample(500, 2)?;
/// let start = Density::new(&NonnegativeTrain::random(&[2, 3, 2], &[2, 2], 3)?)?;
/// let found = Em::new().sweeps(10).run(&start, &samples, None)?;
/// assert!(found.nll.windows(2).all(|pair| pair[1] <= pair[0] + 1e-12));
/// # Ok::<(), nneinfact_density::Error>(())
/// ```
#[derive(Default)]
pub struct Em<'a> {
    sweeps: Option<usize>,
    tol: f64,
    cancel: Option<Arc<AtomicBool>>,
    observer: Option<Observer<'a>>,
}

/// What expectation maximisation returns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmFit {
    /// The distribution.
    pub density: Density,
    /// The weighted mean of the negative log-likelihood, at the start and after each sweep.
    pub nll: Vec<f64>,
    /// Why it stopped.
    pub stopped_by: StoppedBy,
}

impl<'a> Em<'a> {
    /// With 50 sweeps and nothing else that ends it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The most sweeps. Default: 50.
    #[must_use]
    pub fn sweeps(mut self, sweeps: usize) -> Self {
        self.sweeps = Some(sweeps);
        self
    }

    /// It ends once a sweep lowers the negative log-likelihood by less than this. Default: 0, never.
    #[must_use]
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// A flag that ends it once it is true: after the sweep at hand.
    #[must_use]
    pub fn cancel(mut self, cancel: Arc<AtomicBool>) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// Called after every sweep with its number, from 1, and the negative log-likelihood after it;
    /// `ControlFlow::Break(())` ends it.
    #[must_use]
    pub fn observer(
        mut self,
        observer: impl FnMut(usize, f64) -> ControlFlow<()> + Send + 'a,
    ) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Runs from a distribution. Weights of samples, where given, are normalised to sum 1.
    ///
    /// # Errors
    ///
    /// If there is no sample, one lies outside or is impossible at the start (counted), or the
    /// weights cannot be used.
    pub fn run(
        mut self,
        start: &Density,
        samples: &Indices,
        weights: Option<&[f64]>,
    ) -> Result<EmFit> {
        if !(self.tol >= 0.0 && self.tol.is_finite()) {
            return Err(Error::Setting(format!(
                "the tolerance is {}; it has to be 0 or positive",
                self.tol
            )));
        }
        samples.check(&start.sizes(), "the samples")?;
        let weights = normalised_weights(weights, samples.rows())?;
        let impossible = start.nll(samples, Some(&weights))?.impossible;
        if impossible > 0 {
            return Err(Error::Observations(format!(
                "{impossible} samples have probability 0 at the start, which no sweep can change; \
                 start from a distribution that is positive there"
            )));
        }
        let (rows, weights) = merged(samples, &weights);
        let mut cores = start.markov_cores().to_vec();
        let mut nll = Vec::new();
        let mut stopped_by = StoppedBy::Sweeps;
        let sweeps = self.sweeps.unwrap_or(50);
        for sweep in 0..=sweeps {
            // The likelihood of cores comes out with the counts for the next ones.
            let (now, counts) = expected_counts(&cores, &rows, &weights)?;
            nll.push(now);
            if sweep > 0
                && let Some(reason) = self.ended(sweep, &nll)
            {
                stopped_by = reason;
                break;
            }
            if sweep < sweeps {
                maximise(&mut cores, &counts);
            }
        }
        Ok(EmFit { density: Density::from_markov(cores, 0.0), nll, stopped_by })
    }

    fn ended(&mut self, sweep: usize, nll: &[f64]) -> Option<StoppedBy> {
        let now = nll[sweep];
        if let Some(observer) = &mut self.observer
            && observer(sweep, now).is_break()
        {
            return Some(StoppedBy::Interrupted);
        }
        if self.cancel.as_ref().is_some_and(|c| c.load(Ordering::Relaxed)) {
            return Some(StoppedBy::Interrupted);
        }
        (self.tol > 0.0 && nll[sweep - 1] - now < self.tol).then_some(StoppedBy::Stalled)
    }
}

/// The counts `Σ_m w_m α[a] β[b] / (α K β)` of each core over samples, which times the core are how
/// often a transition is expected; and the negative log-likelihood.
fn expected_counts(
    cores: &[Core],
    rows: &Indices,
    weights: &[f64],
) -> Result<(f64, Vec<Vec<f64>>)> {
    let entries: usize = cores.iter().map(|c| c.data().len()).sum();
    let parts = parts(rows.rows(), ROWS, (COUNTS / entries.max(1)).clamp(1, PARTS));
    let zeros = || cores.iter().map(|c| vec![0.0; c.data().len()]).collect::<Vec<_>>();
    let found: Option<Vec<(f64, Vec<Vec<f64>>)>> = parts
        .into_par_iter()
        .map(|range| {
            let (mut nll, mut counts, mut work) = (0.0, zeros(), Work::default());
            for row in range {
                nll -= weights[row] * work.add(cores, rows.at(row), weights[row], &mut counts)?;
            }
            Some((nll, counts))
        })
        .collect();
    let found = found.ok_or_else(|| {
        Error::Numeric(
            "a sample's probability underflowed, so its states have no probabilities".into(),
        )
    })?;
    let (mut nll, mut counts) = (0.0, zeros());
    for (part, of_part) in &found {
        nll += part;
        for (all, of_part) in counts.iter_mut().zip(of_part) {
            all.iter_mut().zip(of_part).for_each(|(all, part)| *all += part);
        }
    }
    Ok((nll, counts))
}

/// Forward vectors and room for one sample.
#[derive(Default)]
struct Work {
    forward: Vec<Vec<f64>>,
    back: Vec<f64>,
    step: Vec<f64>,
}

impl Work {
    /// Adds one sample to the counts, and returns the logarithm of its probability; `None` if that
    /// is 0.
    fn add(
        &mut self,
        cores: &[Core],
        tuple: &[usize],
        weight: f64,
        counts: &mut [Vec<f64>],
    ) -> Option<f64> {
        self.forward.resize(cores.len() + 1, Vec::new());
        self.forward[0] = vec![1.0];
        let mut log = 0.0;
        for (k, (core, &i)) in cores.iter().zip(tuple).enumerate() {
            let (before, after) = self.forward.split_at_mut(k + 1);
            core.step(&before[k], i, &mut after[0]);
            let sum: f64 = after[0].iter().sum();
            if sum.is_nan() || sum <= 0.0 {
                return None;
            }
            after[0].iter_mut().for_each(|x| *x /= sum);
            log += sum.ln();
        }
        self.back.clear();
        self.back.push(1.0);
        for (k, core) in cores.iter().enumerate().rev() {
            let (left, right) = (&self.forward[k], core.right());
            core.step_back(&self.back, tuple[k], &mut self.step);
            let z: f64 = left.iter().zip(&self.step).map(|(a, b)| a * b).sum();
            let top = linalg::largest(&self.step);
            if z.is_nan() || z <= 0.0 {
                return None;
            }
            for (a, left) in left.iter().enumerate() {
                let share = left * (weight / z);
                let start = (a * core.size() + tuple[k]) * right;
                let counts = &mut counts[k][start..start + right];
                counts.iter_mut().zip(&self.back).for_each(|(c, b)| *c += share * b);
            }
            self.step.iter_mut().for_each(|x| *x /= top);
            std::mem::swap(&mut self.back, &mut self.step);
        }
        Some(log)
    }
}

/// Each core becomes its expected counts, normalised for each state. A state that no sample visits
/// keeps its row.
fn maximise(cores: &mut [Core], counts: &[Vec<f64>]) {
    for (core, counts) in cores.iter_mut().zip(counts) {
        let row = core.size() * core.right();
        let rows = core.data_mut().chunks_exact_mut(row).zip(counts.chunks_exact(row));
        for (row, counts) in rows {
            let sum: f64 = row.iter().zip(counts).map(|(k, c)| k * c).sum();
            if sum > 0.0 {
                row.iter_mut().zip(counts).for_each(|(k, c)| *k = *k * c / sum);
            }
        }
    }
}
