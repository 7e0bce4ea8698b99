//! Algorithm 1 of NNEinFact (Hood & Schein 2026, arXiv 2602.02759), line by line: the oracle of the
//! tests.
//!
//! Double precision, one loop over all combinations of indices, no plan and no tricks: slow, and
//! meant to be read. For fitting, see `NNEinFact`.
//!
//! ```
//! use ndarray::{ArrayD, IxDyn, array};
//! use nneinfact::loss::Loss;
//! use nneinfact::model::{Model, Shapes};
//! use nneinfact::reference::Problem;
//!
//! let y = array![[4.0, 2.0, 8.0], [2.0, 1.0, 4.0]].into_dyn();
//! let shapes = Shapes::new(&Model::parse("ir,jr->ij")?, y.shape(), &[('r', 1)])?;
//! let loss = Loss::kl();
//! let problem = Problem { shapes: &shapes, loss: &loss, y: &y, weights: None, floor: 1e-10 };
//!
//! let mut factors = vec![ArrayD::from_elem(IxDyn(&[2, 1]), 1.0), ArrayD::from_elem(IxDyn(&[3, 1]), 1.0)];
//! let before = problem.loss(&factors);
//! problem.sweep(&mut factors);
//! assert!(problem.loss(&factors) < 1e-12 * before);
//! # Ok::<(), nneinfact::Error>(())
//! ```

use ndarray::{ArrayD, IxDyn};

use crate::loss::{Loss, Majorizer, Penalty};
use crate::model::{Index, Shapes};

/// A factorization problem.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// The model with its sizes.
    pub shapes: &'a Shapes,
    /// What is minimised.
    pub loss: &'a Loss,
    /// The data.
    pub y: &'a ArrayD<f64>,
    /// The weight of each entry's loss, 1 where not given. An entry of weight 0 contributes
    /// nothing, whatever its value.
    pub weights: Option<&'a ArrayD<f64>>,
    /// What the model's values are clamped to from below before they enter the loss.
    pub floor: f64,
}

/// The index of each index, by [`Index::index`].
type Indices = [usize; 52];

/// The model's values ŷ at all entries of the data, as they are (no floor).
///
/// # Panics
/// Where the factors do not have the shapes that the model asks for.
#[must_use]
pub fn predict(shapes: &Shapes, factors: &[ArrayD<f64>]) -> ArrayD<f64> {
    let factors = entries(shapes, factors);
    let output = shapes.model().output();
    let mut predicted = vec![0.0; shapes.data().iter().product()];
    combinations(shapes, |at| {
        predicted[position(shapes, output, at)] += product(shapes, &factors, at, None);
    });
    tensor(&shapes.data(), predicted)
}

impl Problem<'_> {
    /// The weighted mean of the loss, Σ W ℓ(Y, ŷ) / Σ W.
    ///
    /// # Panics
    /// Where the factors do not have the shapes that the model asks for, or data, weights or the
    /// loss's own tensors not that of the data.
    #[must_use]
    pub fn loss(&self, factors: &[ArrayD<f64>]) -> f64 {
        let predicted = predict(self.shapes, factors);
        let losses =
            self.weighted(&predicted, |x, y, parameters| self.loss.eval_loss(x, y, parameters));
        losses.sum() / self.weights.map_or(losses.len() as f64, |w| w.sum())
    }

    /// One sweep: updates every factor once, in the model's order, each from new predictions.
    ///
    /// # Panics
    /// As [`loss`](Self::loss).
    pub fn sweep(&self, factors: &mut [ArrayD<f64>]) {
        for l in 0..factors.len() {
            self.update(l, factors);
        }
    }

    /// Updates factor `l` with the others fixed: Θ ← Θ ⊙ g⁻¹(A / B). An entry that no observed
    /// entry touches (A = B = 0) stays as it is.
    ///
    /// # Panics
    /// As [`loss`](Self::loss).
    pub fn update(&self, l: usize, factors: &mut [ArrayD<f64>]) {
        let (numerator, denominator) = self.sums(l, factors);
        let old: Vec<f64> = factors[l].iter().copied().collect();
        let new = (0..old.len()).map(|i| {
            let untouched = numerator[i] == 0.0 && denominator[i] == 0.0;
            let quotient = numerator[i] / denominator[i];
            old[i] * if untouched { 1.0 } else { self.loss.majorizer().g_inverse(quotient) }
        });
        factors[l] = tensor(&self.shapes.factor(l), new.collect());
    }

    /// Numerator and denominator of every entry of factor `l`.
    fn sums(&self, l: usize, factors: &[ArrayD<f64>]) -> (Vec<f64>, Vec<f64>) {
        let (shapes, model) = (self.shapes, self.shapes.model());
        let predicted = predict(shapes, factors);
        let a = self.weighted(&predicted, |x, y, parameters| self.loss.eval_a(x, y, parameters));
        let b = self.weighted(&predicted, |x, y, parameters| self.loss.eval_b(x, y, parameters));
        let (a, b): (Vec<f64>, Vec<f64>) = (a.into_iter().collect(), b.into_iter().collect());
        let old = entries(shapes, factors);
        let mut numerator = vec![0.0; old[l].len()];
        let mut denominator = vec![0.0; old[l].len()];
        combinations(shapes, |at| {
            let datum = position(shapes, model.output(), at);
            let entry = position(shapes, &model.factors()[l], at);
            let others = product(shapes, &old, at, Some(l));
            numerator[entry] += a[datum] * others;
            denominator[entry] += b[datum] * others;
        });
        (numerator, denominator)
    }

    /// As [`update`](Self::update), of a factor with a penalty: every factor of change λ is where
    /// the derivative of the surrogate and the penalty is 0, found by bisection of ln λ.
    ///
    /// # Panics
    /// As [`loss`](Self::loss).
    pub fn update_penalized(&self, l: usize, factors: &mut [ArrayD<f64>], penalty: Penalty) {
        let (a, b) = self.sums(l, factors);
        let constant = self.loss.curvature_constant();
        let change = |(&theta, (&a, &b)): (&f64, (&f64, &f64))| {
            let derivative = |u: f64| {
                // In units of the factor of change, where a part without weight has no value at
                // all.
                let part =
                    |weight: f64, value: f64| if weight == 0.0 { 0.0 } else { weight * value };
                let data = match self.loss.majorizer() {
                    Majorizer::Power { p_a, p_b } => {
                        part(b, (p_b * u).exp()) - part(a, (p_a * u).exp())
                    }
                    Majorizer::Log => part(b, u) - a,
                };
                let penalty_gradient = penalty.derivative(theta);
                constant * data + part(penalty_gradient, ((penalty.power() - 1.0) * u).exp())
            };
            let (mut low, mut high) = (-600.0, 600.0);
            if derivative(low) >= 0.0 && derivative(high) <= 0.0 {
                return theta;
            }
            for _ in 0..200 {
                let middle = 0.5 * (low + high);
                if derivative(middle) < 0.0 { low = middle } else { high = middle }
            }
            theta * low.exp()
        };
        let old: Vec<f64> = factors[l].iter().copied().collect();
        let new = old.iter().zip(a.iter().zip(&b)).map(change).collect();
        factors[l] = tensor(&self.shapes.factor(l), new);
    }

    /// W·f(Y, Ŷ) at every entry of the data, 0 where W = 0.
    fn weighted(
        &self,
        predicted: &ArrayD<f64>,
        f: impl Fn(f64, f64, &[f64]) -> f64,
    ) -> ArrayD<f64> {
        ArrayD::from_shape_fn(predicted.raw_dim(), |at| {
            let w = self.weights.map_or(1.0, |weights| weights[&at]);
            if w == 0.0 {
                return 0.0;
            }
            let parameters: Vec<f64> =
                self.loss.entry_parameters().iter().map(|side| side[&at]).collect();
            w * f(self.y[&at], predicted[&at].max(self.floor), &parameters)
        })
    }
}

/// Calls `visit` for every combination of indices of all indices of the model, the last index
/// running fastest.
fn combinations(shapes: &Shapes, mut visit: impl FnMut(&Indices)) {
    let indices = shapes.model().observed() | shapes.model().latent();
    let indices: Vec<Index> = indices.iter().collect();
    let mut at: Indices = [0; 52];
    loop {
        visit(&at);
        // Counts up: the last index that is not at its end moves on, those after it start anew.
        let free = indices.iter().rposition(|&x| at[x.index()] + 1 < shapes.size(x));
        let Some(free) = free else { return };
        at[indices[free].index()] += 1;
        indices[free + 1..].iter().for_each(|x| at[x.index()] = 0);
    }
}

/// Where an entry stands in a tensor with these indices, in C order.
fn position(shapes: &Shapes, indices: &[Index], at: &Indices) -> usize {
    indices.iter().fold(0, |position, &x| position * shapes.size(x) + at[x.index()])
}

/// The product of the factors' entries at one combination of indices, without factor `skip`.
fn product(shapes: &Shapes, factors: &[Vec<f64>], at: &Indices, skip: Option<usize>) -> f64 {
    let indices = shapes.model().factors();
    (0..factors.len())
        .filter(|&l| Some(l) != skip)
        .map(|l| factors[l][position(shapes, &indices[l], at)])
        .product()
}

/// The entries of each factor in C order.
fn entries(shapes: &Shapes, factors: &[ArrayD<f64>]) -> Vec<Vec<f64>> {
    assert_eq!(factors.len(), shapes.model().factors().len(), "the number of factors");
    let entries = |(l, factor): (usize, &ArrayD<f64>)| {
        assert_eq!(factor.shape(), shapes.factor(l), "the shape of factor {}", l + 1);
        factor.iter().copied().collect()
    };
    factors.iter().enumerate().map(entries).collect()
}

/// The tensor with these entries in C order.
fn tensor(shape: &[usize], entries: Vec<f64>) -> ArrayD<f64> {
    ArrayD::from_shape_vec(IxDyn(shape), entries).expect("the entries are made for the shape")
}
