//! Algorithm 1 of NNEinFact (Hood & Schein 2026, arXiv 2602.02759), line by line: the oracle of the
//! tests.
//!
//! Double precision, one loop over all combinations of indices, no plan and no tricks: slow, and
//! meant to be read. For fitting, see [`NNEinFact`](crate::NNEinFact).
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

use crate::loss::Loss;
use crate::model::{Letter, Shapes};

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
    /// What the model's values are raised to before they enter the loss.
    pub floor: f64,
}

/// The index of each letter, by [`Letter::index`].
type Indices = [usize; 52];

/// The model's values ŷ at all entries of the data, as they are (no floor).
///
/// # Panics
/// Where the factors do not have the shapes that the model asks for.
#[must_use]
pub fn predict(shapes: &Shapes, factors: &[ArrayD<f64>]) -> ArrayD<f64> {
    let output = shapes.model().output();
    let mut predicted = ArrayD::zeros(IxDyn(&shapes.data()));
    combinations(shapes, |at| {
        predicted[&*index(output, at)] += product(shapes, factors, at, None);
    });
    predicted
}

impl Problem<'_> {
    /// The weighted mean of the loss, Σ W ℓ(Y, ŷ) / Σ W.
    ///
    /// # Panics
    /// Where the factors do not have the shapes that the model asks for.
    #[must_use]
    pub fn loss(&self, factors: &[ArrayD<f64>]) -> f64 {
        let predicted = predict(self.shapes, factors);
        let (mut sum, mut weight) = (0.0, 0.0);
        for (at, _) in predicted.indexed_iter() {
            let entry = self.entry(&predicted, ndarray::Dimension::slice(&at));
            if entry.w > 0.0 {
                sum += entry.w * self.loss.eval_loss(entry.x, entry.y, &entry.sides);
                weight += entry.w;
            }
        }
        sum / weight
    }

    /// One sweep: updates every factor once, in the model's order, each from new predictions.
    ///
    /// # Panics
    /// As [`update`](Self::update).
    pub fn sweep(&self, factors: &mut [ArrayD<f64>]) {
        for l in 0..factors.len() {
            self.update(l, factors);
        }
    }

    /// Updates factor `l` with the others fixed: Θ ← Θ ⊙ g⁻¹(A / B). An entry that no observed
    /// cell touches (A = B = 0) stays as it is.
    ///
    /// # Panics
    /// Where the factors do not have the shapes that the model asks for.
    pub fn update(&self, l: usize, factors: &mut [ArrayD<f64>]) {
        let model = self.shapes.model();
        let predicted = predict(self.shapes, factors);
        let mut numerator = ArrayD::<f64>::zeros(factors[l].raw_dim());
        let mut denominator = numerator.clone();
        combinations(self.shapes, |at| {
            let entry = self.entry(&predicted, &index(model.output(), at));
            if entry.w > 0.0 {
                let others = product(self.shapes, factors, at, Some(l));
                let target = index(&model.factors()[l], at);
                let a = self.loss.eval_a(entry.x, entry.y, &entry.sides);
                let b = self.loss.eval_b(entry.x, entry.y, &entry.sides);
                numerator[&*target] += entry.w * a * others;
                denominator[&*target] += entry.w * b * others;
            }
        });
        ndarray::Zip::from(&mut factors[l]).and(&numerator).and(&denominator).for_each(
            |theta, &a, &b| {
                if a != 0.0 || b != 0.0 {
                    *theta *= self.loss.majorizer().g_inverse(a / b);
                }
            },
        );
    }

    fn entry(&self, predicted: &ArrayD<f64>, at: &[usize]) -> Entry {
        Entry {
            x: self.y[at],
            y: predicted[at].max(self.floor),
            w: self.weights.map_or(1.0, |weights| weights[at]),
            sides: self.loss.sides().iter().map(|side| side[at]).collect(),
        }
    }
}

/// What the loss is evaluated on.
struct Entry {
    /// The datum.
    x: f64,
    /// The model's value, floored.
    y: f64,
    /// The weight.
    w: f64,
    /// The loss's own parameters.
    sides: Vec<f64>,
}

/// Calls `visit` for every combination of indices of all letters of the model.
fn combinations(shapes: &Shapes, mut visit: impl FnMut(&Indices)) {
    let letters: Vec<Letter> =
        (shapes.model().observed() | shapes.model().latent()).iter().collect();
    let mut at: Indices = [0; 52];
    for combination in ndarray::indices(shapes.sizes(&letters)) {
        for (letter, &i) in letters.iter().zip(ndarray::Dimension::slice(&combination)) {
            at[letter.index()] = i;
        }
        visit(&at);
    }
}

/// The index into a tensor with these letters.
fn index(letters: &[Letter], at: &Indices) -> Vec<usize> {
    letters.iter().map(|letter| at[letter.index()]).collect()
}

/// The product of the factors' entries at one combination of indices, without factor `skip`.
fn product(shapes: &Shapes, factors: &[ArrayD<f64>], at: &Indices, skip: Option<usize>) -> f64 {
    (shapes.model().factors().iter().zip(factors).enumerate())
        .filter(|&(l, _)| Some(l) != skip)
        .map(|(_, (letters, factor))| factor[&*index(letters, at)])
        .product()
}
