//! Newton steps with a logarithmic barrier on data: what [`Algorithm::Barrier`](crate::Algorithm) does
//! between two evaluations of the loss. NTT.md, section 9.

use ndarray::{ArrayD, Dimension, IxDyn};

use crate::monitor::Monitor;
use crate::observe::cancelled;
use crate::settings::Settings;
use nneinfact_core::algebra::rearrange;
use nneinfact_core::data::{Implicit, Prepared, Role};
use nneinfact_core::engine::{Engine, Point};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::{History, StoppedBy};
use nneinfact_core::memory::available_memory;
use nneinfact_core::model::{Index, Model, Shapes};
use nneinfact_core::plan::{Plan, Quadratic};
use nneinfact_density::{DataNewton, Dense, Entries, Network};

/// A model on its way, in double precision on the host.
pub(crate) struct Barrier {
    newton: DataNewton,
    /// Where engines tell of the data factor by factor: for each, which group it is, and the order that
    /// its quadratic form has there and on the host.
    told: Option<Vec<Told>>,
}

/// How an engine tells of a factor.
struct Told {
    group: usize,
    /// The sizes, with a second index for every latent one.
    shapes: Shapes,
    from: Vec<Index>,
    onto: Vec<Index>,
}

impl Barrier {
    /// From the factors that the engine has.
    pub fn new(settings: &Settings, data: &Prepared, engine: &mut dyn Engine) -> Result<Barrier> {
        let model = network(&settings.model, &engine.factors()?)?;
        let limit = settings.memory_limit.or(available_memory()).unwrap_or(u64::MAX);
        let newton = match sparse(data, limit)? {
            Some(entries) => DataNewton::of_entries(model, entries)?,
            None => {
                let (values, weights) = dense(data, limit)?;
                DataNewton::new(model, values, weights)?
            }
        };
        Ok(Barrier { newton, told: None })
    }

    /// From the factors that the engine has, whose data are where it is and have these squares; the plan's
    /// groups have one factor each.
    pub fn of_sums(
        settings: &Settings,
        plan: &Plan,
        squares: f64,
        engine: &mut dyn Engine,
    ) -> Result<Barrier> {
        let model = network(&settings.model, &engine.factors()?)?;
        let shapes = plan.shapes();
        let unknown = || Error::Internal("a barrier without a quadratic form".into());
        let (_, pairs) = shapes.doubled().ok_or_else(unknown)?;
        let mut told = Vec::new();
        for (l, indices) in shapes.model().factors().iter().enumerate() {
            let group = plan.groups().iter().position(|group| group.factors == [l]);
            let group = group.ok_or_else(unknown)?;
            let quadratic = Quadratic::by_rows(shapes, &plan.groups()[group], f64::INFINITY);
            let quadratic = quadratic.ok_or_else(unknown)?;
            let observed = shapes.model().observed();
            let (mut onto, latent): (Vec<Index>, Vec<Index>) =
                indices.iter().partition(|&&index| observed.contains(index));
            let twin = |x: &Index| pairs.iter().find(|pair| pair.0 == *x).map_or(*x, |pair| pair.1);
            onto.extend(&latent);
            onto.extend(latent.iter().map(twin));
            let from = quadratic.gram.output().to_vec();
            told.push(Told { group, shapes: quadratic.shapes, from, onto });
        }
        Ok(Barrier { newton: DataNewton::of_sums(model, squares)?, told: Some(told) })
    }

    /// One step on each factor; the engine has them then.
    fn sweep(&mut self, engine: &mut dyn Engine) -> Result<()> {
        let Some(told) = &self.told else {
            self.newton.sweep()?;
            return engine.load(&self.factors()?);
        };
        for (l, Told { group, shapes, from, onto }) in told.iter().enumerate() {
            engine.pass(*group)?;
            let unchanged = vec![1.0; self.newton.model().tensors()[l].data().len()];
            let (numerator, _) = engine.parts(0, &[unchanged])?;
            let grams = rearrange(shapes, from, &engine.row_grams()?, onto);
            self.newton.step(l, numerator, grams)?;
            engine.load(&self.factors()?)?;
        }
        self.newton.lower_barrier();
        Ok(())
    }

    fn factors(&self) -> Result<Vec<ArrayD<f64>>> {
        let arrays = self.newton.model().tensors().iter().map(|t| {
            ArrayD::from_shape_vec(IxDyn(t.shape()), t.data().to_vec())
                .map_err(|e| Error::Internal(format!("a factor has another shape: {e}")))
        });
        arrays.collect()
    }
}

/// Factors as the network of a model.
fn network(model: &Model, factors: &[ArrayD<f64>]) -> Result<Network> {
    let factors =
        factors.iter().map(|f| Dense::new(f.shape().to_vec(), f.iter().copied().collect()));
    Network::new(model.text(), factors.collect::<Result<_>>()?)
}

/// Tensors of fewer entries are held as a whole.
const SMALL: f64 = 1e6;
/// A product of factors at one entry takes about so much longer than one of many by a tensor.
const SPARSE: f64 = 16.0;

/// What holding a tensor takes: values, weights, and their product.
fn dense_bytes(data: &Prepared) -> f64 {
    24.0 * volume(data)
}

fn volume(data: &Prepared) -> f64 {
    data.shape().iter().map(|&n| n as f64).product()
}

/// The training entries as a list, with zeros beside them where these train; `None` where the whole tensor
/// is small, or is the faster way and fits.
fn sparse(data: &Prepared, limit: u64) -> Result<Option<Entries>> {
    let counts = data.stored_counts(true).into_iter();
    let listed = counts.filter(|counts| counts.implicit != Implicit::ByRole);
    let Some(counts) = listed.min_by_key(|counts| counts.train + counts.masked) else {
        return Ok(None);
    };
    let stored = (counts.train + counts.masked) as f64;
    let fits = dense_bytes(data) <= limit as f64;
    if fits && (volume(data) <= SMALL || SPARSE * stored > volume(data)) {
        return Ok(None);
    }
    let modes = data.shape().len();
    // Indices, values and weights, and the list that they are made from.
    let needed = 2.0 * stored * (8 * modes + 16) as f64;
    if needed > limit as f64 {
        return Err(too_large("the list of its entries", needed, limit));
    }
    let stored = data.stored(counts.implicit);
    let list = stored.entries();
    let indices = list
        .indices()
        .iter()
        .map(|mode| (0..list.len()).map(|i| mode.get(i).unwrap_or_default() as usize).collect());
    let values = (0..list.len()).map(|i| list.values().get(i).unwrap_or_default()).collect();
    let mut entries = Entries::new(data.shape(), indices.collect(), values)?;
    if counts.implicit == Implicit::Zeros {
        entries = entries.rest_of_zeros();
    }
    if counts.masked > 0 {
        let trains = |i| if stored.role(i) == Role::Train { 1.0 } else { 0.0 };
        entries = entries.weights((0..list.len()).map(trains).collect())?;
    }
    Ok(Some(entries))
}

fn too_large(what: &str, needed: f64, limit: u64) -> Error {
    Error::Memory {
        what: format!("the barrier algorithm, which holds {what} in double precision,"),
        needed: needed as u64,
        available: limit,
        help: "the other algorithms read the data as they are".into(),
    }
}

/// Values and weights of the training entries as tensors in C order; no weights where all are 1.
fn dense(data: &Prepared, limit: u64) -> Result<(Dense, Option<Dense>)> {
    let needed = dense_bytes(data);
    if needed > limit as f64 {
        return Err(too_large("all entries", needed, limit));
    }
    let data = data.densified(limit)?;
    let stored = data.values();
    let mut values = stored.to_array();
    let shape = values.shape().to_vec();
    if data.roles().is_none() && data.weights().is_none() {
        return Ok((Dense::new(shape, values.into_iter().collect())?, None));
    }
    let weights_of = data.weights().map(|w| w.to_array());
    let mut weights = Vec::with_capacity(values.len());
    for (index, value) in values.indexed_iter_mut() {
        let trains = match (data.roles(), stored.offset(index.slice())) {
            (Some(roles), Some(offset)) => roles.get(offset) == Role::Train,
            (_, offset) => offset.is_some(),
        };
        let weight = match &weights_of {
            Some(weights) => weights[&index],
            None => 1.0,
        };
        weights.push(if trains { weight } else { 0.0 });
        if !trains {
            // It may be NaN.
            *value = 0.0;
        }
    }
    let values = Dense::new(shape.clone(), values.into_iter().collect())?;
    Ok((values, Some(Dense::new(shape, weights)?)))
}

/// Sweeps until there is a reason to stop. The engine evaluates losses, and is left at the factors to
/// return.
pub(crate) fn sweeps(
    engine: &mut dyn Engine,
    mut barrier: Barrier,
    monitor: &mut Monitor<'_>,
    history: &mut History,
) -> Result<()> {
    let mut kept = false;
    loop {
        engine.evaluate()?;
        let [sums, _] = engine.sums()?;
        let validation = monitor.best;
        let stop = monitor.record(sums, engine, history)?;
        if monitor.early_stopping && monitor.best < validation {
            // The monitor took the snapshot.
            history.returned = history.loss.len() - 1;
            kept = true;
        }
        if !monitor.early_stopping {
            history.returned = history.loss.len() - 1;
        }
        if let Some(reason) = stop {
            history.stopped_by = reason;
            break;
        }
        if cancelled(monitor.cancel, engine)? {
            history.stopped_by = StoppedBy::Interrupted;
            break;
        }
        barrier.sweep(engine)?;
        history.iterations += 1;
    }
    if kept {
        engine.copy(Point::Snapshot, Point::Current)?;
    }
    Ok(())
}

/// What the barrier algorithm cannot do, in words.
pub(crate) fn refusal(settings: &Settings) -> Option<String> {
    let refuse = |what: &str| {
        Some(format!(
            "the barrier algorithm is for the euclidean loss without penalties, bounds, fixed factors \
             and checkpoints: {what}"
        ))
    };
    if settings.loss.name() != nneinfact_core::loss::Loss::euclidean().name() {
        return refuse(&format!("the loss is {}", settings.loss.name()));
    }
    if settings.penalty.is_some() || !settings.factor_settings.is_empty() {
        return refuse("a factor has one of them");
    }
    if settings.is_saved() {
        return refuse("a checkpoint is asked for");
    }
    None
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, ArrayD, IxDyn};

    use crate::{Algorithm, NNEinFact};
    use nneinfact_core::data::{CooTensor, Observations};
    use nneinfact_core::loss::{Loss, Penalty};

    fn data() -> Array3<f64> {
        let f = |i: usize, s: f64| 1.2 + (i as f64 * s).sin();
        Array3::from_shape_fn((7, 6, 5), |(i, j, k)| {
            f(i, 0.7) * f(j, 1.1) * f(k, 0.4) + f(i, 2.1) * f(j, 0.3) * f(k, 1.7)
        })
    }

    fn fit(algorithm: Algorithm, sweeps: usize) -> NNEinFact {
        NNEinFact::new("ir,jr,kr->ijk")
            .unwrap()
            .ranks([('r', 3)])
            .loss(Loss::euclidean())
            .algorithm(algorithm)
            .precision(nneinfact_core::engine::Precision::F64)
            .tolerance(0.0)
            .max_iter(sweeps)
            .seed(3)
    }

    #[test]
    fn many_digits_are_reached() {
        let y = data();
        let barrier = fit(Algorithm::Barrier, 60).fit(&y).unwrap();
        let block = fit(Algorithm::Block, 60).fit(&y).unwrap();
        let (got, other) = (barrier.history().last_loss(), block.history().last_loss());
        assert!(got < 1e-3 * other, "{got:e} {other:e}");
        // What is told is what the factors say.
        let predicted = barrier.factored().slice(&[None; 3]).unwrap();
        let off = predicted.iter().zip(&y).map(|(p, y)| 0.5 * (p - y).powi(2));
        let want = off.sum::<f64>() / y.len() as f64;
        assert!((got - want).abs() <= 1e-12, "{got:e} {want:e}");
        assert!(barrier.factors().iter().flatten().all(|&x| x > 0.0));
    }

    #[test]
    fn withheld_entries_do_not_matter() {
        let mut y = data().into_dyn();
        let run = |y: &ArrayD<f64>| {
            let data = Observations::new(y).held_out(0.3, 5).unwrap();
            fit(Algorithm::Barrier, 12).fit(&data).unwrap()
        };
        let first = run(&y);
        assert!(!first.history().heldout_loss.is_empty());
        // The entries that are held out take other values.
        let held = Observations::new(&y).held_out(0.3, 5).unwrap().prepare().unwrap();
        let roles = held.roles().unwrap();
        for (at, value) in y.iter_mut().enumerate() {
            if roles.get(at) == nneinfact_core::data::Role::HeldOut {
                *value += 3.0;
            }
        }
        let second = run(&y);
        assert_eq!(first.factors(), second.factors());
        assert!(second.history().heldout_loss != first.history().heldout_loss);
    }

    #[test]
    fn lists_are_fitted_as_arrays_are() {
        let mut y = data();
        y.iter_mut().enumerate().filter(|(i, _)| i % 3 != 0).for_each(|(_, x)| *x = 0.0);
        let (mut indices, mut values) = (vec![Vec::new(); 3], Vec::new());
        for ((i, j, k), &x) in y.indexed_iter().filter(|(_, x)| **x > 0.0) {
            [i, j, k].iter().zip(&mut indices).for_each(|(&i, list)| list.push(i as u64));
            values.push(x);
        }
        let list = CooTensor::new(&[7, 6, 5], &indices, &values).unwrap();
        let (a, b) = (
            fit(Algorithm::Barrier, 8).fit(&list).unwrap(),
            fit(Algorithm::Barrier, 8).fit(&y).unwrap(),
        );
        for (a, b) in a.factors().iter().zip(b.factors()) {
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-8 * (1.0 + b.abs())));
        }
    }

    /// A list whose tensor would take 2.4 TB, with zeros, with some withheld, and with the rest missing.
    #[test]
    fn lists_of_vast_tensors_are_fitted_as_they_are() {
        let n = 5_000u64;
        // A block of twelve indices of each mode, spread over the tensor, that is a product.
        let places: Vec<[u64; 3]> =
            (0..1728).map(|e| [e / 144, e / 12 % 12, e % 12].map(|i| i * 401)).collect();
        let values: Vec<f64> = places
            .iter()
            .map(|at| at.iter().map(|&i| 1.0 + (i as f64).sin().abs()).product())
            .collect();
        let list = |n: u64| {
            let indices = [0, 1, 2].map(|mode| places.iter().map(|at| at[mode]).collect());
            CooTensor::new(&[n as usize; 3], &indices, &values).unwrap()
        };
        let zeros = Observations::new(list(n));
        let missing = Observations::new(list(n)).unlisted_missing();
        let withheld = Observations::new(list(n)).unlisted_missing().held_out(0.2, 1).unwrap();
        for (data, held_out) in [(zeros, false), (missing, false), (withheld, true)] {
            let fitted = fit(Algorithm::Barrier, 15).fit(&data).unwrap();
            let history = fitted.history();
            assert!(history.last_loss() < 0.1 * history.loss[0], "{:?}", history.loss);
            assert_eq!(!history.heldout_loss.is_empty(), held_out);
        }
        let error = fit(Algorithm::Barrier, 2).memory_limit(50_000).fit(&list(n)).unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
    }

    #[test]
    fn what_it_cannot_do_is_refused() {
        let y = ArrayD::from_elem(IxDyn(&[3, 3, 3]), 1.0);
        let says = |fit: NNEinFact, word: &str| {
            let error = fit.fit(&y).unwrap_err().to_string();
            assert!(error.contains("barrier") && error.contains(word), "{error}");
        };
        says(fit(Algorithm::Barrier, 2).loss(Loss::kl()), "the loss is kl");
        let penalty = Penalty::new(0.1, 1.0);
        says(fit(Algorithm::Barrier, 2).penalty_on_all(penalty), "one of them");
    }
}
