//! Barrier Newton on one factor at a time, for any einsum model and target.

use faer::Mat;

use super::contract::{Labelled, contract};
use super::{Dense, Network, prime};
use crate::error::{Error, Result};
use crate::fit::newton::{Candidate, Line, slice_length};
use crate::fit::schedule::Barriers;
use crate::fit::settings::Schedule;
use crate::linalg::solve_positive;

/// Fits an einsum model with positive factors to a target that is a network too: minimises half the
/// squared distance with a logarithmic barrier, one factor at a time, without forming either tensor.
///
/// For each value of a factor's observed letters the Hessian is one block over its latent letters.
///
/// ```
/// use nneinfact_density::{Dense, Network, NetworkFit};
///
/// let ones = |r: usize| Dense::new(vec![4, r], (0..4 * r).map(|i| 1.0 + i as f64).collect());
/// let target = Network::new("ia,ja->ij", vec![ones(1)?, ones(1)?])?;
/// let start = Network::new("ia,ja->ij", vec![ones(2)?, ones(2)?])?;
/// let fit = NetworkFit::new().sweeps(40).run(start, &target)?;
/// assert!(fit.half_squared_distance[40] < 1e-6 * fit.half_squared_distance[0]);
/// # Ok::<(), nneinfact_density::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct NetworkFit {
    schedule: Schedule,
    barrier: f64,
    barrier_min: f64,
    decay: f64,
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
    /// The objective with the barrier of the visit, at the start and after each visit.
    pub objective: Vec<f64>,
}

impl Default for NetworkFit {
    fn default() -> Self {
        NetworkFit {
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
    /// If the networks have different outputs, an entry of the start is not positive, a setting is
    /// out of range, or values stop being finite.
    pub fn run(&self, mut model: Network, target: &Network) -> Result<NetworkFitted> {
        self.check()?;
        model.check_same_output(target)?;
        for (l, tensor) in model.tensors.iter().enumerate() {
            let count = tensor.data.iter().filter(|&&x| x <= 0.0).count();
            if count > 0 {
                return Err(Error::Init(format!(
                    "{count} entries of factor {l} of the start are 0 or negative; the barrier needs \
                     positive ones"
                )));
            }
        }
        let squared_norm = target.inner(target)?;
        if squared_norm.is_nan() || squared_norm <= 0.0 {
            return Err(Error::Numeric("the target is zero; a fit needs one that is not".into()));
        }
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
        let mut objective = vec![distance[0] - logs(&model, &barriers.mu)];
        for sweep in 0..self.sweeps {
            for l in 0..model.tensors.len() {
                step(&mut model, target, l, barriers.mu[l])?;
                let now = model.half_squared_distance(target)?;
                objective.push(now - logs(&model, &barriers.mu));
            }
            distance.push(model.half_squared_distance(target)?);
            barriers.after(sweep, 0.0);
        }
        Ok(NetworkFitted { model, half_squared_distance: distance, objective })
    }

    fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::Setting(text));
        if !matches!(self.schedule, Schedule::Fixed | Schedule::Balanced) {
            return Err(Error::Unsupported(
                "a network is fitted with the schedules fixed and balanced".into(),
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

/// `Σ_l μ_l Σ log θ_l`.
fn logs(model: &Network, mu: &[f64]) -> f64 {
    let sums = model.tensors.iter().map(|t| t.data.iter().map(|x| x.ln()).sum::<f64>());
    sums.zip(mu).map(|(sum, mu)| mu * sum).sum()
}

/// The objective at one factor, all others held.
struct FactorNode {
    /// Letters that are observed and in no other factor, observed and in others, and latent.
    letters: [Vec<char>; 3],
    /// How many values each kind has.
    counts: [usize; 3],
    /// For each value of the shared letters, a matrix over the latent ones.
    gram: Vec<f64>,
    /// The target contracted with the other factors, in the order of `letters`.
    numerator: Vec<f64>,
}

impl FactorNode {
    fn new(model: &Network, target: &Network, l: usize) -> Result<FactorNode> {
        let f = &model.factors[l];
        let others = || (0..model.factors.len()).filter(move |&m| m != l);
        let elsewhere = |c: &char| others().any(|m| model.factors[m].contains(c));
        let observed = |c: &char| model.output.contains(c);
        let pick = |keep: &dyn Fn(&char) -> bool| f.iter().copied().filter(keep).collect();
        let own: Vec<char> = pick(&|c| observed(c) && !elsewhere(c));
        let shared: Vec<char> = pick(&|c| observed(c) && elsewhere(c));
        let latent: Vec<char> = pick(&|c| !observed(c));
        let size = |c: char| model.size_of(c).unwrap_or(1);
        let count = |letters: &[char]| letters.iter().map(|&c| size(c)).product::<usize>();
        let counts = [count(&own), count(&shared), count(&latent)];
        // A latent letter of this factor alone has an environment of ones.
        let lone = || latent.iter().copied().filter(|c| !elsewhere(c));
        let mut parts = model.labelled(others(), false);
        parts.extend(model.labelled(others(), true));
        parts.extend(lone().map(|c| Labelled::ones(c, size(c))));
        parts.extend(lone().map(|c| Labelled::ones(prime(c), size(c))));
        let twin = latent.iter().map(|&c| prime(c));
        let out: Vec<char> = shared.iter().chain(&latent).copied().chain(twin).collect();
        let gram = contract(parts, &out)?.data;
        let mut parts = model.labelled(others(), false);
        parts.extend(target.labelled(0..target.factors.len(), true));
        parts.extend(lone().map(|c| Labelled::ones(c, size(c))));
        let order: Vec<char> = own.iter().chain(&shared).chain(&latent).copied().collect();
        let numerator = contract(parts, &order)?.data;
        Ok(FactorNode { letters: [own, shared, latent], counts, gram, numerator })
    }

    /// `Γ x` of one block.
    fn times(&self, shared: usize, x: &[f64]) -> Vec<f64> {
        let r = self.counts[2];
        let gram = &self.gram[shared * r * r..(shared + 1) * r * r];
        gram.chunks_exact(r).map(|row| row.iter().zip(x).map(|(g, x)| g * x).sum()).collect()
    }
}

/// One Newton step on factor l, with a step length for each block.
fn step(model: &mut Network, target: &Network, l: usize, mu: f64) -> Result<()> {
    let node = FactorNode::new(model, target, l)?;
    let order: Vec<char> = node.letters.concat();
    let labelled = model.labelled(std::iter::once(l), false).remove(0).permuted(&order);
    let [_, shared, r] = node.counts;
    let mut x = labelled.data;
    for (block, x) in x.chunks_exact_mut(r).enumerate() {
        let s = block % shared;
        let n = &node.numerator[block * r..(block + 1) * r];
        let g: Vec<f64> = node.times(s, x).iter().zip(n).map(|(d, n)| d - n).collect();
        let found = candidate(&node, s, x, &g, mu).ok_or_else(|| {
            Error::Numeric(format!("a Newton step on factor {l} met values that are not finite"))
        })?;
        let t = slice_length(&found, mu);
        x.iter_mut().zip(&found.y).for_each(|(x, y)| *x *= 1.0 + t * y);
    }
    let shape = labelled.shape;
    let back = Labelled { letters: order, shape, data: x }.permuted(&model.factors[l]);
    model.tensors[l] = Dense::new(back.shape, back.data)?;
    Ok(())
}

/// The direction of one block, and the objective along it.
fn candidate(node: &FactorNode, s: usize, x: &[f64], g: &[f64], mu: f64) -> Option<Candidate> {
    let r = x.len();
    let gram = &node.gram[s * r * r..(s + 1) * r * r];
    let mut m = Mat::from_fn(r, r, |i, j| x[i] * gram[i * r + j] * x[j]);
    (0..r).for_each(|i| m[(i, i)] += mu);
    let rhs: Vec<f64> = x.iter().zip(g).map(|(x, g)| mu - x * g).collect();
    let y = solve_positive(&mut m, &rhs)?;
    let delta: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x * y).collect();
    let line = Line::new(&rhs, &y, g, &delta, &node.times(s, &delta));
    Some(Candidate { y, line, cg_steps: 0 })
}

#[cfg(test)]
mod tests {
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
            for l in 0..model.tensors.len() {
                let node = FactorNode::new(&model, &target, l).unwrap();
                let order: Vec<char> = node.letters.concat();
                let [_, shared, r] = node.counts;
                let x = model.labelled(std::iter::once(l), false).remove(0).permuted(&order);
                let g: Vec<f64> = (0..x.data.len() / r)
                    .flat_map(|block| {
                        node.times(block % shared, &x.data[block * r..(block + 1) * r])
                    })
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
