//! One factor at a time, for any einsum model and target: barrier Newton, multiplicative updates, exact
//! coordinate descent.

use std::ops::ControlFlow;

use super::Network;
use super::environments::FactorEnvironments;
use super::node::{Goal, Update, step};
use crate::error::{Error, Result};
use crate::fit::StoppedBy;
use crate::fit::schedule::Barriers;
use crate::fit::settings::{Method, Schedule};

/// Fits an einsum model without negative entries to a target that is a network too: minimises half the
/// squared distance, one factor at a time, without forming either tensor.
///
/// With a logarithmic barrier ([`Method::Newton`]): for each value of a factor's observed letters the
/// Hessian is one block over its latent letters. Multiplicative updates and coordinate descent read the
/// same contractions.
///
/// ```
/// use nneinfact_density::{Dense, Network, NetworkFit};
///
/// let ones = |r: usize| Dense::new(vec![4, r], (0..4 * r).map(|i| 1.0 + i as f64).collect());
/// let target = Network::new("ia,ja->ij", vec![ones(1)?, ones(1)?])?;
/// let start = Network::new("ia,ja->ij", vec![ones(2)?, ones(2)?])?;
/// let fit = NetworkFit::new().sweeps(40).run(start, &target)?;
/// let distances = &fit.half_squared_distance;
/// assert!(distances[distances.len() - 1] < 1e-6 * distances[0]);
/// # Ok::<(), nneinfact_density::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct NetworkFit {
    method: Method,
    target_error: f64,
    pub(super) schedule: Schedule,
    pub(super) barrier: f64,
    pub(super) barrier_min: f64,
    pub(super) decay: f64,
    sweeps: usize,
}

/// What a fit of a network returns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NetworkFitted {
    /// The model.
    pub model: Network,
    /// `½ ‖model − target‖²` at the start and after each sweep.
    pub half_squared_distance: Vec<f64>,
    /// The objective with the barrier of the visit, where there is one, at the start and after each visit.
    pub objective: Vec<f64>,
    /// Why it stopped.
    pub stopped_by: StoppedBy,
}

impl Default for NetworkFit {
    fn default() -> Self {
        NetworkFit {
            method: Method::Newton,
            target_error: 0.0,
            schedule: Schedule::Balanced,
            barrier: 1e-2,
            barrier_min: 1e-20,
            decay: 0.5,
            sweeps: 50,
        }
    }
}

impl NetworkFit {
    /// A fit with default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How factors are updated. Default: Newton.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// The fit stops once the squared distance is at most this share of the target's square. Default: 0.
    #[must_use]
    pub fn target_error(mut self, target_error: f64) -> Self {
        self.target_error = target_error;
        self
    }

    /// How the barrier falls: `Balanced` (default) or `Fixed`.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// The first barrier: under `Balanced` its share of the target's squared norm. Default: 1e-2.
    #[must_use]
    pub fn barrier(mut self, barrier: f64) -> Self {
        self.barrier = barrier;
        self
    }

    /// The smallest barrier. Default: 1e-20.
    #[must_use]
    pub fn barrier_min(mut self, barrier_min: f64) -> Self {
        self.barrier_min = barrier_min;
        self
    }

    /// What the barrier is multiplied by after a sweep; 1 keeps it. Default: ½.
    #[must_use]
    pub fn decay(mut self, decay: f64) -> Self {
        self.decay = decay;
        self
    }

    /// How many sweeps, each a step on every factor in turn. Default: 50.
    #[must_use]
    pub fn sweeps(mut self, sweeps: usize) -> Self {
        self.sweeps = sweeps;
        self
    }

    /// Runs from a start.
    ///
    /// # Errors
    ///
    /// If the networks have different outputs, an entry of the start is negative (or 0, but for coordinate
    /// descent), a setting is out of range, or values stop being finite.
    pub fn run(&self, model: Network, target: &Network) -> Result<NetworkFitted> {
        self.run_observed(model, target, |_, _| ControlFlow::Continue(()))
    }

    /// As [`run`](Self::run); `observer` is called after every sweep with its number, from 1, and half the
    /// squared distance, and ends the fit with `ControlFlow::Break(())`.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_observed(
        &self,
        mut model: Network,
        target: &Network,
        mut observer: impl FnMut(usize, f64) -> ControlFlow<()>,
    ) -> Result<NetworkFitted> {
        self.check()?;
        model.check_same_output(target)?;
        check_positive(&model, self.method)?;
        let squared_norm = target.inner(target)?;
        if squared_norm.is_nan() || squared_norm <= 0.0 {
            return Err(Error::Numeric("the target is zero; a fit needs one that is not".into()));
        }
        let goal = Goal::Network { target, weights: None };
        let sizes: Vec<usize> = model.tensors.iter().map(|t| t.data.len()).collect();
        let mut barriers = Barriers::steady(
            self.schedule,
            self.barrier,
            self.barrier_min,
            self.decay,
            &sizes,
            squared_norm,
        );
        let mut distance = vec![model.half_squared_distance(target)?];
        let barrier = |model: &Network, mu: &[f64]| match self.method {
            Method::Newton => logs(model, mu),
            Method::Multiplicative | Method::Descent => 0.0,
        };
        let mut objective = vec![distance[0] - barrier(&model, &barriers.mu)];
        let mut stopped_by = StoppedBy::Sweeps;
        for sweep in 0..self.sweeps {
            let mut now = distance[sweep];
            let mut environments = FactorEnvironments::new(&model, goal)?;
            for l in 0..model.tensors.len() {
                let update = match self.method {
                    Method::Newton => Update::Newton(barriers.mu[l]),
                    Method::Multiplicative => Update::Multiplicative,
                    Method::Descent => Update::Descent,
                };
                // The distance is free where all other factors are contracted.
                let node = environments.node(&model)?;
                now = step(&mut model, &node, l, update)? + 0.5 * squared_norm;
                environments.advance(&model)?;
                objective.push(now - barrier(&model, &barriers.mu));
            }
            distance.push(now);
            barriers.after(sweep, 0.0);
            // The observer sees the last sweep too.
            let stop = observer(sweep + 1, now).is_break();
            if 2.0 * now <= self.target_error * squared_norm {
                stopped_by = StoppedBy::Target;
                break;
            }
            if stop {
                stopped_by = StoppedBy::Interrupted;
                break;
            }
        }
        Ok(NetworkFitted { model, half_squared_distance: distance, objective, stopped_by })
    }

    fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::Setting(text));
        if !matches!(self.schedule, Schedule::Fixed | Schedule::Balanced) {
            return Err(Error::Unsupported(
                "a network is fitted with the schedules fixed and balanced".into(),
            ));
        }
        if !(self.target_error >= 0.0 && self.target_error.is_finite()) {
            return wrong(format!(
                "the target error is {}; it has to be 0 or positive",
                self.target_error
            ));
        }
        for (name, x) in [("the barrier", self.barrier), ("the smallest barrier", self.barrier_min)]
        {
            if !(x > 0.0 && x.is_finite()) {
                return wrong(format!("{name} is {x}; it has to be positive"));
            }
        }
        if !(self.decay > 0.0 && self.decay <= 1.0) {
            return wrong(format!("the decay is {}; it has to be in (0, 1]", self.decay));
        }
        Ok(())
    }
}

/// The error if a start has entries that a method cannot use.
pub(super) fn check_positive(model: &Network, method: Method) -> Result<()> {
    for (l, tensor) in model.tensors.iter().enumerate() {
        let zero = method == Method::Descent;
        let refused = |x: f64| x < 0.0 || !zero && x == 0.0;
        let count = tensor.data.iter().filter(|&&x| refused(x)).count();
        if count > 0 {
            let (bad, why) = match method {
                Method::Newton => ("0 or negative", "the barrier needs positive ones"),
                Method::Multiplicative => {
                    ("0 or negative", "a multiplicative update needs positive ones")
                }
                Method::Descent => ("negative", "a nonnegative model has none"),
            };
            return Err(Error::Init(format!(
                "{count} entries of factor {l} of the start are {bad}; {why}"
            )));
        }
    }
    Ok(())
}

/// `Σ_l μ_l Σ log θ_l`.
fn logs(model: &Network, mu: &[f64]) -> f64 {
    let sums = model.tensors.iter().map(|t| t.data.iter().map(|x| x.ln()).sum::<f64>());
    sums.zip(mu).map(|(sum, mu)| mu * sum).sum()
}

#[cfg(test)]
mod tests {
    use super::super::contract::{Labelled, contract};
    use super::super::{DataNewton, Dense};
    use super::*;

    fn dense(shape: &[usize], s: f64) -> Dense {
        let n: usize = shape.iter().product();
        let data = (0..n).map(|i| 0.2 + (i as f64 * s).sin().powi(2)).collect();
        Dense::new(shape.to_vec(), data).unwrap()
    }

    /// Models with own, shared, latent and lone letters, each with a target that has its output.
    fn pairs() -> Vec<(Network, Network)> {
        let network = |text: &str, shapes: &[&[usize]], s: f64| {
            let tensors =
                shapes.iter().enumerate().map(|(l, shape)| dense(shape, s + 0.37 * l as f64));
            Network::new(text, tensors.collect()).unwrap()
        };
        let train = network("ir,rjs,sk->ijk", &[&[3, 2], &[2, 4, 2], &[2, 2]], 0.9);
        vec![
            (network("ia,ja,ka->ijk", &[&[3, 2], &[4, 2], &[2, 2]], 0.3), train.clone()),
            (
                network("ia,jb,kc,abc->ijk", &[&[3, 2], &[4, 3], &[2, 2], &[2, 3, 2]], 0.5),
                train.clone(),
            ),
            (network("ija,jka->ijk", &[&[3, 4, 2], &[4, 2, 2]], 0.7), train.clone()),
            (network("ia,jab,k->kij", &[&[3, 2], &[4, 2, 3], &[2]], 0.4), train),
        ]
    }

    #[test]
    fn gradients_are_those_of_differences() {
        for (model, target) in pairs() {
            let goal = Goal::Network { target: &target, weights: None };
            let mut environments = FactorEnvironments::new(&model, goal).unwrap();
            for l in 0..model.tensors.len() {
                let node = environments.node(&model).unwrap();
                environments.advance(&model).unwrap();
                let order: Vec<char> = node.letters.concat();
                let r = node.counts[2];
                let x = model.labelled(std::iter::once(l), false).remove(0).permuted(&order);
                let g: Vec<f64> = (0..x.data.len() / r)
                    .flat_map(|block| node.times(block, &x.data[block * r..(block + 1) * r]))
                    .zip(&node.numerator)
                    .map(|(d, n)| d - n)
                    .collect();
                let g = Labelled { data: g, ..x }.permuted(&model.factors[l]);
                for e in 0..g.data.len() {
                    let moved = |by: f64| {
                        let mut model = model.clone();
                        model.tensors[l].data[e] += by;
                        model.half_squared_distance(&target).unwrap()
                    };
                    let want = (moved(1e-4) - moved(-1e-4)) / 2e-4;
                    assert!((g.data[e] - want).abs() < 1e-7 * (1.0 + want.abs()), "{l} {e}");
                }
            }
        }
    }

    /// What contractions say, and what both tensors formed say.
    #[test]
    fn distances_are_those_of_formed_tensors() {
        for (model, target) in pairs() {
            let formed = |network: &Network| -> Vec<f64> {
                let parts = network.labelled(0..network.factors.len(), false);
                contract(parts, &['i', 'j', 'k']).unwrap().data
            };
            let goal = formed(&target);
            for method in [Method::Newton, Method::Multiplicative, Method::Descent] {
                let fit = NetworkFit::new().method(method).sweeps(6);
                let found = fit.run(model.clone(), &target).unwrap();
                let off = formed(&found.model);
                let want: f64 =
                    0.5 * off.iter().zip(&goal).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
                let got = found.half_squared_distance[6];
                let scale: f64 = goal.iter().map(|y| y * y).sum();
                assert!((got - want).abs() < 1e-12 * scale, "{method:?}: {got} {want}");
                assert!(want < 0.5 * found.half_squared_distance[0]);
            }
        }
    }

    /// A train with negative entries, so that numerators are negative too.
    #[test]
    fn first_order_methods_never_rise() {
        for (model, mut target) in pairs() {
            target.tensors[1].data.iter_mut().for_each(|x| *x -= 0.5);
            for method in [Method::Multiplicative, Method::Descent] {
                let fit = NetworkFit::new().method(method).sweeps(20);
                let found = fit.run(model.clone(), &target).unwrap();
                for pair in found.objective.windows(2) {
                    assert!(pair[1] <= pair[0] + 1e-12 * found.objective[0], "{method:?} {pair:?}");
                }
                assert!(found.model.tensors.iter().flat_map(|t| &t.data).all(|&x| x >= 0.0));
            }
        }
    }

    /// Weights in contractions, against sums over entries.
    #[test]
    fn weighted_newton_lowers_the_weighted_objective() {
        for (model, target) in pairs() {
            let formed = |network: &Network| -> Vec<f64> {
                let parts = network.labelled(0..network.factors.len(), false);
                contract(parts, &model.output).unwrap().data
            };
            let shape: Vec<usize> =
                model.output.iter().map(|&c| model.size_of(c).unwrap()).collect();
            let y = formed(&target);
            // Entries without weight, and some that count double.
            let w: Vec<f64> = (0..y.len()).map(|i| [1.0, 0.0, 2.0, 1.0, 1.0][i % 5]).collect();
            let half = |network: &Network| -> f64 {
                let off = formed(network);
                let terms = off.iter().zip(&y).zip(&w).map(|((x, y), w)| w * (x - y).powi(2));
                0.5 * terms.sum::<f64>()
            };
            let dense = |data: &[f64]| Dense::new(shape.clone(), data.to_vec()).unwrap();
            let mut newton = DataNewton::new(model.clone(), dense(&y), Some(dense(&w))).unwrap();
            let first = half(&model);
            for _ in 0..40 {
                let told = newton.sweep().unwrap();
                let want = half(newton.model());
                let scale: f64 = y.iter().map(|y| y * y).sum();
                assert!((told - want).abs() < 1e-12 * scale, "{told} {want}");
            }
            assert!(half(newton.model()) < 0.3 * first, "{} {first}", half(newton.model()));
            // Without weights it is the fit to the same tensor as a network.
            let mut plain = DataNewton::new(model.clone(), dense(&y), None).unwrap();
            for _ in 0..5 {
                plain.sweep().unwrap();
            }
            let found = NetworkFit::new().sweeps(5).run(model.clone(), &target).unwrap().model;
            for (a, b) in plain.model().tensors.iter().zip(&found.tensors) {
                let top = b.data.iter().fold(0.0, |m: f64, x| m.max(*x));
                assert!(a.data.iter().zip(&b.data).all(|(a, b)| (a - b).abs() < 1e-6 * top));
            }
        }
    }

    #[test]
    fn fits_end_at_the_target_or_when_observed() {
        let (model, target) = pairs().remove(0);
        let fit = NetworkFit::new().method(Method::Descent).sweeps(500);
        let found = fit.clone().target_error(0.05).run(model.clone(), &target).unwrap();
        assert_eq!(found.stopped_by, StoppedBy::Target);
        let stop =
            |sweep, _| if sweep == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let found = fit.run_observed(model, &target, stop).unwrap();
        assert_eq!(
            (found.stopped_by, found.half_squared_distance.len()),
            (StoppedBy::Interrupted, 4)
        );
    }

    #[test]
    fn the_objective_never_rises() {
        for (model, target) in pairs() {
            let fit = NetworkFit::new().schedule(Schedule::Fixed).barrier(1e-3).decay(1.0);
            let found = fit.sweeps(15).run(model, &target).unwrap();
            for pair in found.objective.windows(2) {
                assert!(pair[1] <= pair[0] + 1e-9 * pair[0].abs(), "{pair:?}");
            }
            let last = found.half_squared_distance[15];
            assert!(last < 0.5 * found.half_squared_distance[0], "{last}");
        }
    }
}
