//! A model with its factors: a tensor that is never formed, and what can be asked of it.
//!
//! All answers are contractions of the factors, planned for each question; what would take the
//! tensor's size is done in blocks or refused.

mod blocks;
mod combine;
mod entries;
mod means;
mod network;
mod parts;
mod sample;
mod sum_of_products;
mod sums;
mod top;
mod top_tree;

use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn};

use crate::factors::{WEIGHTS, factor_name};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, IndexSet, Model, Shapes};

pub use blocks::Blocks;
pub(crate) use means::{mean, total};
pub use top::LargestEntry;

/// A model with its factors, and the weights beside normalised ones: what a fit predicts, ŷ, as a
/// tensor in factored form.
///
/// A live fit has one ([`Fit::factored`](crate::Fit::factored)), a file of a fit too
/// ([`Saved::factored`](crate::Saved::factored)), and factors from elsewhere become one with
/// [`from_parts`](Self::from_parts). It answers without forming ŷ: entries, slices, sums, products with
/// other tensors, samples, the largest entries. Sums and products of two are again of this kind.
///
/// ```
/// use ndarray::array;
/// use nneinfact::FactoredTensor;
///
/// let hours = array![[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]].into_dyn();
/// let places = array![[0.5, 0.0], [0.5, 1.0]].into_dyn();
/// let y = FactoredTensor::from_parts("hr,pr->hp", vec![hours, places], None)?;
/// assert_eq!(y.predict(&[1, 0])?, 1.0);
/// assert_eq!(y.total()?, 6.0);
/// assert_eq!(y.marginal("p")?.into_raw_vec_and_offset().0, [1.5, 4.5]);
/// assert_eq!(y.top(1)?[0].index, [2, 1]);
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FactoredTensor {
    pub(crate) shapes: Shapes,
    pub(crate) factors: Vec<ArrayD<f64>>,
    /// Over all latent indices, in the order of the set.
    pub(crate) weights: Option<ArrayD<f64>>,
}

impl AsRef<FactoredTensor> for FactoredTensor {
    fn as_ref(&self) -> &FactoredTensor {
        self
    }
}

impl FactoredTensor {
    /// Factors in the model's order and of the model's sizes; the weights, where there are any, over all
    /// latent indices in the order `A`–`Z`, `a`–`z`. Entries are taken as they are.
    ///
    /// # Errors
    /// [`Error::Shape`] where a factor or the weights have another shape.
    pub fn new(
        shapes: Shapes,
        factors: Vec<ArrayD<f64>>,
        weights: Option<ArrayD<f64>>,
    ) -> Result<FactoredTensor> {
        let model = shapes.model();
        let count = model.factors().len();
        if factors.len() != count {
            return Err(Error::Shape {
                what: format!("the factors of {model}"),
                found: format!("{} arrays", factors.len()),
                expected: format!("{count}"),
            });
        }
        let latent: Vec<Index> = model.latent().iter().collect();
        let expected = (0..count).map(|l| shapes.factor(l)).chain([shapes.sizes(&latent)]);
        let names = (0..count).map(factor_name).chain([WEIGHTS.into()]);
        for ((array, expected), what) in factors.iter().chain(&weights).zip(expected).zip(names) {
            if array.shape() != expected {
                return Err(Error::Shape {
                    what,
                    found: format!("{:?}", array.shape()),
                    expected: format!("{expected:?} in {model}"),
                });
            }
        }
        Ok(FactoredTensor { shapes, factors, weights })
    }

    /// Factors of a model that come from elsewhere: one for each factor of the model string, whose axes are
    /// its letters, all entries finite and at least 0. The sizes of all indices are theirs.
    ///
    /// # Errors
    /// [`Error::Model`] where the string is no model. [`Error::Init`] where the factors do not have the
    /// letters of the model, letters have different sizes, or an entry is negative or not finite.
    pub fn from_parts(
        model: &str,
        factors: Vec<ArrayD<f64>>,
        weights: Option<ArrayD<f64>>,
    ) -> Result<FactoredTensor> {
        FactoredTensor::assemble(Model::parse(model)?, factors, weights)
    }

    pub(crate) fn assemble(
        model: Model,
        factors: Vec<ArrayD<f64>>,
        weights: Option<ArrayD<f64>>,
    ) -> Result<FactoredTensor> {
        let shapes = shapes_of(&model, &factors)?;
        for (l, factor) in factors.iter().enumerate() {
            check_entries(&factor_name(l), factor)?;
        }
        let weights = match weights {
            None => None,
            Some(weights) => {
                check_entries(WEIGHTS, &weights)?;
                let latent: Vec<usize> = model.latent().iter().map(|x| shapes.size(x)).collect();
                // Single numbers are written as arrays of one.
                let scalar = latent.is_empty() && weights.len() == 1;
                if weights.shape() != latent && !scalar {
                    return Err(Error::Init(format!(
                        "the weights have shape {:?}, but the latent letters of {model} have {latent:?}",
                        weights.shape()
                    )));
                }
                let entries = weights.iter().copied().collect();
                ArrayD::from_shape_vec(IxDyn(&latent), entries).ok()
            }
        };
        Ok(FactoredTensor { shapes, factors, weights })
    }

    /// The model with its sizes.
    #[must_use]
    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        self.shapes.model()
    }

    /// The factors, in the model's order; the axes of each are its indices.
    #[must_use]
    pub fn factors(&self) -> &[ArrayD<f64>] {
        &self.factors
    }

    /// What every term of ŷ is multiplied with beside the factors: an axis for each latent index, in the
    /// order `A`–`Z`, `a`–`z`.
    #[must_use]
    pub fn weights(&self) -> Option<&ArrayD<f64>> {
        self.weights.as_ref()
    }

    /// The factors, and the weights where there are any: their indices, and the arrays.
    fn parts(&self) -> Vec<Part> {
        let model = self.model();
        let weights =
            self.weights.iter().map(|w| (model.latent().iter().collect::<Vec<_>>(), w.clone()));
        let factors = model.factors().iter().cloned().zip(self.factors.iter().cloned());
        factors.chain(weights).collect()
    }

    /// The model of these tensors with these modes. Those without an index are numbers, and go into the
    /// first of the others.
    fn of_parts(parts: Vec<Part>, output: &[Index], shapes: &Shapes) -> Result<FactoredTensor> {
        let (numbers, mut tensors): (Vec<Part>, Vec<Part>) =
            parts.into_iter().partition(|(names, _)| names.is_empty());
        let text = |names: &[Index]| names.iter().map(|&x| char::from(x)).collect::<String>();
        for (_, number) in numbers {
            if let Some((_, first)) = tensors.first_mut() {
                let number = number.iter().copied().next().unwrap_or(1.0);
                first.mapv_inplace(|x| x * number);
            }
        }
        let names: Vec<String> = tensors.iter().map(|(names, _)| text(names)).collect();
        let model = Model::parse(&format!("{}->{}", names.join(","), text(output)))?;
        let ranks: Vec<(char, usize)> =
            model.latent().iter().map(|x| (x.into(), shapes.size(x))).collect();
        let shapes = Shapes::new(&model, &shapes.sizes(output), &ranks)?;
        FactoredTensor::new(shapes, tensors.into_iter().map(|(_, array)| array).collect(), None)
    }

    /// Indices by their letters, each once.
    fn indices_of(&self, letters: &str) -> Result<Vec<Index>> {
        let mut indices = Vec::new();
        for letter in letters.chars().filter(|c| !c.is_whitespace()) {
            let index = self.index_of(letter)?;
            if indices.contains(&index) {
                return Err(Error::Setting(format!("{letter} stands twice in {letters}")));
            }
            indices.push(index);
        }
        Ok(indices)
    }

    /// The index of a letter, a mode's or a latent one.
    fn index_of(&self, letter: char) -> Result<Index> {
        let model = self.model();
        let known = model.observed() | model.latent();
        Index::new(letter).filter(|&x| known.contains(x)).ok_or_else(|| {
            let list = |set: IndexSet| {
                let letters: Vec<String> = set.iter().map(|x| x.to_string()).collect();
                letters.join(", ")
            };
            let modes: Vec<String> = model.output().iter().map(ToString::to_string).collect();
            let latent = match model.latent() {
                latent if latent.is_empty() => String::new(),
                latent => format!(", and its latent indices {}", list(latent)),
            };
            Error::Setting(format!(
                "the model {model} has no index {letter}: its modes are {}{latent}",
                modes.join(", ")
            ))
        })
    }
}

/// A tensor of a model with its indices.
type Part = (Vec<Index>, ArrayD<f64>);

/// The sizes that factors give the indices of their model.
fn shapes_of(model: &Model, factors: &[ArrayD<f64>]) -> Result<Shapes> {
    let count = model.factors().len();
    if factors.len() != count {
        return Err(Error::Init(format!(
            "the model {model} has {count} factors, not {}",
            factors.len()
        )));
    }
    let mut sizes: BTreeMap<Index, usize> = BTreeMap::new();
    for (l, (factor, own)) in factors.iter().zip(model.factors()).enumerate() {
        let name = factor_name(l);
        if factor.ndim() != own.len() {
            return Err(Error::Init(format!(
                "{name} has shape {:?}, but the factor {} of {model} has {} letters",
                factor.shape(),
                model.factor_name(l),
                own.len()
            )));
        }
        for (&letter, &size) in own.iter().zip(factor.shape()) {
            let known = *sizes.entry(letter).or_insert(size);
            if known != size {
                return Err(Error::Init(format!(
                    "{name} has size {size} along {letter}, but another factor has {known}"
                )));
            }
        }
    }
    let size = |x: Index| sizes.get(&x).copied().unwrap_or(0);
    let shape: Vec<usize> = model.output().iter().map(|&x| size(x)).collect();
    let ranks: Vec<(char, usize)> = model.latent().iter().map(|x| (x.into(), size(x))).collect();
    Ok(Shapes::new(model, &shape, &ranks)?)
}

fn check_entries(name: &str, array: &ArrayD<f64>) -> Result<()> {
    let good = |x: &f64| x.is_finite() && *x >= 0.0;
    // Indices are looked for only where some entry is bad: they take far longer than entries.
    if array.iter().all(good) {
        return Ok(());
    }
    match array.indexed_iter().find(|(_, x)| !good(x)) {
        None => Ok(()),
        Some((index, x)) => Err(Error::Init(format!(
            "{name} is {x} at index {:?}, but entries have to be finite and at least 0",
            ndarray::Dimension::slice(&index)
        ))),
    }
}
