//! A fit to data, or to another network: stage two of NTT.md for any model, section 9.

use std::ops::ControlFlow;
use std::time::Instant;

use ndarray::{ArrayD, IxDyn};

use crate::NNEinFact;
use crate::factored::FactoredTensor;
use crate::observe::{Flow, Hooks, Sweep};
use crate::record::LossRecord;
use crate::run::uncut;
use crate::saved::Saved;
use crate::settings::{Algorithm, Settings, Start};
use crate::start::uniform_entries;
use nneinfact_core::data::Observations;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::{History, StoppedBy};
use nneinfact_core::loss::Loss;
use nneinfact_core::model::{Index, Shapes};
use nneinfact_density::{Dense, Method, Network, NetworkFit};

/// What a model is fitted to.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Target<'a> {
    /// Data: every entry is looked at.
    Data(&'a Observations),
    /// A contraction of factors of any sign, such as a tensor train or a larger model that was fitted:
    /// neither its tensor nor the model's is formed.
    Network(&'a Network),
}

impl<'a> From<&'a Observations> for Target<'a> {
    fn from(data: &'a Observations) -> Target<'a> {
        Target::Data(data)
    }
}

impl<'a> From<&'a Network> for Target<'a> {
    fn from(network: &'a Network) -> Target<'a> {
        Target::Network(network)
    }
}

impl NNEinFact {
    /// Fits the model to data or to another network with the same output letters.
    ///
    /// To a network under the Euclidean loss only. [`Algorithm::Block`] and [`Algorithm::Grouped`] are
    /// then multiplicative updates, [`Algorithm::Accelerated`] is exact coordinate descent, and
    /// [`Algorithm::Barrier`] takes Newton steps; each reads contractions of the factors of both. Losses
    /// of the history are means over all entries, as of data.
    ///
    /// ```
    /// use nneinfact::density::{Dense, Network};
    /// use nneinfact::fit::Algorithm;
    /// use nneinfact::{Loss, NNEinFact};
    ///
    /// // A Tucker model of a train of three modes.
    /// let core = |shape: Vec<usize>, step: f64| {
    ///     let n: usize = shape.iter().product();
    ///     Dense::new(shape, (0..n).map(|i| 1.5 + (i as f64 * step).sin()).collect())
    /// };
    /// let train = Network::new(
    ///     "ir,rjs,sk->ijk",
    ///     vec![core(vec![5, 2], 0.3)?, core(vec![2, 4, 2], 0.7)?, core(vec![2, 6], 1.1)?],
    /// )?;
    /// let saved = NNEinFact::new("ia,jb,kc,abc->ijk")?
    ///     .ranks([('a', 2), ('b', 3), ('c', 2)])
    ///     .loss(Loss::euclidean())
    ///     .algorithm(Algorithm::Barrier)
    ///     .max_iter(60)
    ///     .fit_target(&train)?;
    /// let losses = &saved.record().history.as_ref().unwrap().loss;
    /// assert!(losses.last() < losses.first().map(|l| 1e-4 * l).as_ref());
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`fit`](Self::fit); [`Error::Unsupported`] for settings that a fit to a network does not have.
    pub fn fit_target<'a>(self, target: impl Into<Target<'a>>) -> Result<Saved> {
        match target.into() {
            Target::Data(data) => Ok(Saved::new(&self.fit(data)?)),
            Target::Network(network) => self.fit_target_with(network, &NetworkFit::new()),
        }
    }

    /// As [`fit_target`](Self::fit_target) to a network, with a barrier that falls as `steps` says: its
    /// schedule, first and smallest barrier, and decay. What else `steps` has is these settings' own: the
    /// algorithm, and how many sweeps.
    ///
    /// ```
    /// use nneinfact::density::{Dense, Network, NetworkFit, Schedule};
    /// use nneinfact::fit::Algorithm;
    /// use nneinfact::{Loss, NNEinFact};
    ///
    /// let column = |n: usize| Dense::new(vec![n, 1], (0..n).map(|i| 1.0 + i as f64).collect());
    /// let target = Network::new("ir,jr->ij", vec![column(4)?, column(5)?])?;
    /// // The same barrier in all sweeps: the minimum of the objective with it.
    /// let steps = NetworkFit::new().schedule(Schedule::Fixed).barrier(1e-2).decay(1.0);
    /// let saved = NNEinFact::new("ir,jr->ij")?
    ///     .ranks([('r', 2)])
    ///     .loss(Loss::euclidean())
    ///     .algorithm(Algorithm::Barrier)
    ///     .fit_target_with(&target, &steps)?;
    /// assert!(saved.factors()[0].iter().all(|&x| x > 0.0));
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`fit_target`](Self::fit_target); [`Error::Setting`] for a barrier that is not positive and a decay
    /// outside of (0, 1], [`Error::Unsupported`] for other schedules than fixed and balanced.
    pub fn fit_target_with(self, target: &Network, steps: &NetworkFit) -> Result<Saved> {
        self.settings.check()?;
        if self.hooks.reducer.is_some() || self.settings.is_cut() {
            return Err(uncut("a fit to a network"));
        }
        fit_network(&self.settings, self.hooks, target, steps)
    }
}

impl FactoredTensor {
    /// This tensor as a [`Network`], to fit another model to: weights, where there are any, are a factor
    /// more.
    ///
    /// # Errors
    /// If an entry is not finite.
    pub fn network(&self) -> Result<Network> {
        let model = self.model();
        let mut factors: Vec<String> =
            model.factors().iter().map(|f| letters(f.iter().copied())).collect();
        let mut arrays: Vec<&ArrayD<f64>> = self.factors().iter().collect();
        if let Some(weights) = self.weights() {
            factors.push(letters(model.latent().iter()));
            arrays.push(weights);
        }
        let output = letters(model.output().iter().copied());
        let tensors =
            arrays.iter().map(|a| Dense::new(a.shape().to_vec(), a.iter().copied().collect()));
        Network::new(&format!("{}->{output}", factors.join(",")), tensors.collect::<Result<_>>()?)
    }
}

/// Indices as a model string has them.
fn letters(indices: impl Iterator<Item = Index>) -> String {
    indices.map(char::from).collect()
}

/// What updates the factors under an algorithm.
fn method(algorithm: Algorithm) -> Result<Method> {
    match algorithm {
        Algorithm::Block | Algorithm::Grouped => Ok(Method::Multiplicative),
        Algorithm::Accelerated => Ok(Method::Descent),
        Algorithm::Barrier => Ok(Method::Newton),
        Algorithm::Adam => Err(Error::Unsupported(
            "Adam fits a model to data only; to a network block, accelerated and barrier do".into(),
        )),
    }
}

/// The error for settings that go with data.
fn check(settings: &Settings) -> Result<()> {
    let only = |what: &str| {
        Err(Error::Unsupported(format!("{what} not part of a fit to a network: leave them out")))
    };
    if settings.loss.name() != Loss::euclidean().name() {
        return Err(Error::Setting(format!(
            "a model is fitted to a network under the euclidean loss, not under {}",
            settings.loss.name()
        )));
    }
    if settings.penalty.is_some() || !settings.factor_settings.is_empty() {
        return only("penalties, bounds, fixed and smooth factors are");
    }
    if !settings.ties.is_empty() || !settings.bases.is_empty() {
        return only("ties and bases are");
    }
    if settings.checkpoint.is_some() || settings.resumes {
        return only("checkpoints are");
    }
    if settings.early_stopping || settings.starts > 1 {
        return only("early stopping and several starts are");
    }
    Ok(())
}

fn fit_network(
    settings: &Settings,
    mut hooks: Hooks,
    target: &Network,
    steps: &NetworkFit,
) -> Result<Saved> {
    check(settings)?;
    let method = method(settings.algorithm)?;
    let shapes = shapes(settings, target)?;
    let model = start(settings, &shapes, target)?;
    let entries: f64 = shapes.data().iter().map(|&n| n as f64).product();
    let mut course = Course {
        history: History {
            device: "cpu".into(),
            precision: "f64".into(),
            ..settings.empty_history()
        },
        began: Instant::now(),
        max_iter: settings.max_iter,
        tolerance: settings.tolerance,
        quiet: 0,
    };
    let first = model.half_squared_distance(target)?.max(0.0) / entries;
    let mut stopped = course.push(&mut hooks, 0, first);
    let sweeps = if stopped.is_some() { 0 } else { settings.max_iter };
    let fit = steps.clone().method(method).sweeps(sweeps).target_error(0.0);
    let fitted = fit.run_observed(model, target, |sweep, half| {
        stopped = course.push(&mut hooks, sweep, half.max(0.0) / entries);
        if stopped.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let mut history = course.history;
    history.stopped_by = stopped.unwrap_or(match fitted.stopped_by {
        // No distance is left that contractions could tell.
        nneinfact_density::StoppedBy::Target => StoppedBy::Precision,
        _ => StoppedBy::MaxIter,
    });
    history.iterations = history.sweeps.last().copied().unwrap_or(0);
    history.returned = history.loss.len() - 1;
    if settings.kkt_residual {
        history.kkt_residual = Some(fitted.model.kkt_residual(target)?);
    }
    let factors = fitted.model.tensors().iter().map(|t| {
        ArrayD::from_shape_vec(IxDyn(t.shape()), t.data().to_vec())
            .map_err(|e| Error::Internal(format!("a factor has another shape: {e}")))
    });
    let saved = Saved::from_factors(settings.model.text(), factors.collect::<Result<_>>()?)?;
    Ok(saved.with_loss(LossRecord::of(settings.loss.name())).with_history(history))
}

/// A fit on its way.
struct Course {
    history: History,
    began: Instant,
    max_iter: usize,
    tolerance: f64,
    /// How many sweeps in a row the loss has hardly fallen.
    quiet: usize,
}

impl Course {
    /// Sweeps in a row that have to lower the loss by less than the tolerance.
    const PATIENCE: usize = 3;

    /// Takes note of a sweep; says why to stop, if so.
    fn push(&mut self, hooks: &mut Hooks, sweep: usize, loss: f64) -> Option<StoppedBy> {
        let before = self.history.loss.last().copied();
        self.history.loss.push(loss);
        self.history.sweeps.push(sweep);
        let seconds = self.began.elapsed().as_secs_f64();
        self.history.seconds.push(seconds);
        let seen = Sweep {
            iteration: sweep,
            max_iter: self.max_iter,
            loss,
            validation_loss: None,
            heldout_loss: None,
            seconds,
            device_memory: None,
            failed_checkpoints: 0,
        };
        // All of them see it, whatever the first one says.
        let mut stop = false;
        for observer in &mut hooks.observers {
            stop |= observer.sweep(&seen) == Flow::Stop;
        }
        if stop {
            return Some(StoppedBy::Observer);
        }
        if hooks.cancel.is_cancelled() {
            return Some(StoppedBy::Interrupted);
        }
        let still = before.is_some_and(|before| before - loss < self.tolerance * loss.abs());
        self.quiet = if still { self.quiet + 1 } else { 0 };
        (self.tolerance > 0.0 && self.quiet >= Self::PATIENCE).then_some(StoppedBy::Tolerance)
    }
}

/// The sizes of the model's letters: those of the data from the target's output.
fn shapes(settings: &Settings, target: &Network) -> Result<Shapes> {
    let model = &settings.model;
    let size = |letter: char| {
        target.size_of_output(letter).ok_or_else(|| Error::Shape {
            what: "the output of the network".into(),
            found: format!("no letter {letter}"),
            expected: format!("the letters of the model {model}"),
        })
    };
    let data: Vec<usize> = model.output().iter().map(|&x| size(x.into())).collect::<Result<_>>()?;
    Ok(Shapes::new(model, &data, &settings.ranks)?)
}

/// The first factors: random ones at the best scale, or given ones.
fn start(settings: &Settings, shapes: &Shapes, target: &Network) -> Result<Network> {
    let count = settings.model.factors().len();
    let network = |factors: Vec<Vec<f64>>| -> Result<Network> {
        let factors = factors.into_iter().enumerate();
        let factors = factors.map(|(l, data)| Dense::new(shapes.factor(l), data));
        Network::new(settings.model.text(), factors.collect::<Result<_>>()?)
    };
    match &settings.start {
        Start::Random => {
            let mut factors = uniform_entries(shapes, settings.seed);
            // Away from 0, where a barrier is steep.
            factors.iter_mut().flatten().for_each(|x| *x += 0.1);
            let first = network(factors.clone())?;
            let (own, inner) = (first.inner(&first)?, first.inner(target)?);
            let best = match inner / own {
                x if x > 0.0 => x,
                _ => (target.inner(target)? / own).sqrt(),
            };
            let scale = best.powf(1.0 / count as f64);
            if !(scale > 0.0 && scale.is_finite()) {
                return Err(Error::Numeric(
                    "the network is zero, or its scale is beyond double precision".into(),
                ));
            }
            factors.iter_mut().flatten().for_each(|x| *x *= scale);
            network(factors)
        }
        Start::Factors(factors) => {
            if factors.len() != count {
                return Err(Error::Init(format!(
                    "the start has {} factors, but the model {count}",
                    factors.len()
                )));
            }
            for (l, factor) in factors.iter().enumerate() {
                if factor.shape() != shapes.factor(l) {
                    return Err(Error::Shape {
                        what: format!("theta_{} of the start", l + 1),
                        found: format!("{:?}", factor.shape()),
                        expected: format!("{:?}", shapes.factor(l)),
                    });
                }
            }
            network(factors.iter().map(|f| f.iter().copied().collect()).collect())
        }
        Start::Gamma { .. } | Start::Svd | Start::Grown(_) => Err(Error::Unsupported(
            "a fit to a network starts at uniform random factors, or at given ones".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factor(shape: &[usize], step: f64, shift: f64) -> Dense {
        let n: usize = shape.iter().product();
        let data = (0..n).map(|i| shift + (i as f64 * step).sin()).collect();
        Dense::new(shape.to_vec(), data).unwrap()
    }

    /// A train with negative entries.
    fn train() -> Network {
        let cores = vec![
            factor(&[5, 2], 0.3, 1.2),
            factor(&[2, 4, 2], 0.7, 0.9),
            factor(&[2, 6], 1.1, 1.3),
        ];
        Network::new("ir,rjs,sk->ijk", cores).unwrap()
    }

    fn formed(network: &Network, letters: [usize; 3]) -> ArrayD<f64> {
        // By unit vectors: an inner product for each entry.
        ArrayD::from_shape_fn(IxDyn(&letters), |at| {
            let unit = |n: usize, i: usize| {
                Dense::new(vec![n], (0..n).map(|k| f64::from(k == i)).collect()).unwrap()
            };
            let units = (0..3).map(|k| unit(letters[k], at[k])).collect();
            network.inner(&Network::new("i,j,k->ijk", units).unwrap()).unwrap()
        })
    }

    #[test]
    fn networks_are_fitted_as_formed_tensors_are() {
        let target = train();
        let dense = formed(&target, [5, 4, 6]);
        for algorithm in [Algorithm::Block, Algorithm::Accelerated, Algorithm::Barrier] {
            let saved = NNEinFact::new("ia,jb,kc,abc->ijk")
                .unwrap()
                .ranks([('a', 2), ('b', 3), ('c', 2)])
                .loss(Loss::euclidean())
                .algorithm(algorithm)
                .max_iter(40)
                .seed(1)
                .fit_target(&target)
                .unwrap();
            let losses = saved.record().history.as_ref().unwrap().loss.clone();
            let predicted = saved.factored().slice(&[None; 3]).unwrap();
            let off: f64 = predicted.iter().zip(&dense).map(|(p, y)| (p - y).powi(2)).sum();
            let scale: f64 = dense.iter().map(|y| y * y).sum();
            let want = 0.5 * off / 120.0;
            let got = *losses.last().unwrap();
            assert!((got - want).abs() < 1e-12 * scale, "{algorithm:?}: {got} {want}");
            assert!(want < 0.05 * losses[0], "{algorithm:?}: {want} {}", losses[0]);
            if algorithm != Algorithm::Barrier {
                assert!(losses.windows(2).all(|pair| pair[1] <= pair[0] + 1e-12 * losses[0]));
            }
        }
    }

    /// Multiplicative updates read the same numerators and denominators as those of data.
    #[test]
    fn multiplicative_steps_are_those_of_data() {
        let factors = vec![
            factor(&[5, 2], 0.3, 1.2),
            factor(&[2, 4, 2], 0.7, 1.1),
            factor(&[2, 6], 1.1, 1.3),
        ];
        let target = Network::new("ir,rjs,sk->ijk", factors).unwrap();
        let dense = formed(&target, [5, 4, 6]);
        let start = |shape: &[usize], step: f64| {
            let f = factor(shape, step, 1.4);
            ArrayD::from_shape_vec(IxDyn(shape), f.data().to_vec()).unwrap()
        };
        let given = vec![start(&[5, 2], 0.9), start(&[4, 2], 1.3), start(&[6, 2], 0.2)];
        let fit = || {
            NNEinFact::new("ir,jr,kr->ijk")
                .unwrap()
                .ranks([('r', 2)])
                .loss(Loss::euclidean())
                .algorithm(Algorithm::Block)
                .precision(nneinfact_core::engine::Precision::F64)
                .start(Start::Factors(given.clone()))
                .kkt_residual(true)
                .tolerance(0.0)
                .max_iter(5)
        };
        let network = fit().fit_target(&target).unwrap();
        let data = Observations::new(&dense);
        let data = fit().fit_target(&data).unwrap();
        for (a, b) in network.factors().iter().zip(data.factors()) {
            let top = b.iter().fold(0.0, |m: f64, x| m.max(*x));
            a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() < 1e-9 * top, "{a} {b}"));
        }
        let residual =
            |saved: &Saved| saved.record().history.as_ref().unwrap().kkt_residual.unwrap();
        let (a, b) = (residual(&network), residual(&data));
        assert!(a > 1e-4 && (a - b).abs() < 1e-6 * b, "{a} {b}");
    }

    #[test]
    fn what_goes_with_data_is_refused() {
        let target = train();
        let fit = || NNEinFact::new("ir,jr,kr->ijk").unwrap().ranks([('r', 2)]);
        let says = |fit: NNEinFact, word: &str| {
            let error = fit.fit_target(&target).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        says(fit(), "euclidean");
        let euclid = || fit().loss(Loss::euclidean());
        says(euclid().algorithm(Algorithm::Adam), "Adam");
        says(euclid().start(Start::Svd), "uniform");
        says(euclid().starts(3), "several starts");
        let other = NNEinFact::new("ir,jr->ij").unwrap().ranks([('r', 2)]);
        says(other.loss(Loss::euclidean()), "output");
        let other = NNEinFact::new("ir,jr,mr->ijm").unwrap().ranks([('r', 2)]);
        says(other.loss(Loss::euclidean()), "no letter m");
    }
}
