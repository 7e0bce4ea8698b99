//! What a fit returns.

use std::sync::Arc;

use ndarray::ArrayD;

use crate::factored::FactoredTensor;
use nneinfact_core::data::{Labels, check_labels};
use nneinfact_core::error::Result;
use nneinfact_core::history::{History, Unfinished};
use nneinfact_core::model::{Index, Model, Shapes};
use nneinfact_core::plan::Plan;

/// A fitted model: factors, history, and predictions from them.
///
/// ```
/// use ndarray::array;
/// use nneinfact::NNEinFact;
///
/// let y = array![[4.0, 2.0, 8.0], [2.0, 1.0, 4.0]];
/// let fit = NNEinFact::new("ir,jr->ij")?.ranks([('r', 1)]).fit(&y)?;
/// assert!((fit.predict(&[1, 2])? - 4.0).abs() < 1e-3);
/// let row = fit.slice(&[Some(0), None])?;
/// assert_eq!(row.shape(), [3]);
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fit {
    plan: Arc<Plan>,
    /// Of the plan's sizes, until ranks shrink.
    pub(crate) tensor: FactoredTensor,
    history: History,
    warnings: Vec<String>,
    structure: Vec<String>,
    /// Those of each mode of the data, or none.
    labels: Arc<[Labels]>,
}

/// The factors after the last completed sweep of a fit that broke
/// ([`Error::Broken`](nneinfact_core::error::Error::Broken)).
impl From<Unfinished> for Fit {
    fn from(last: Unfinished) -> Fit {
        Fit::new(last.plan, last.factors, last.history)
    }
}

impl AsRef<FactoredTensor> for Fit {
    fn as_ref(&self) -> &FactoredTensor {
        &self.tensor
    }
}

impl Fit {
    pub(crate) fn new(plan: Arc<Plan>, factors: Vec<ArrayD<f64>>, history: History) -> Fit {
        let tensor = FactoredTensor { shapes: plan.shapes().clone(), factors, weights: None };
        let labels = Arc::new([]);
        Fit { plan, tensor, history, warnings: Vec::new(), structure: Vec::new(), labels }
    }

    pub(crate) fn with_warnings(self, warnings: Vec<String>) -> Fit {
        Fit { warnings, ..self }
    }

    pub(crate) fn with_structure(self, structure: Vec<String>) -> Fit {
        Fit { structure, ..self }
    }

    /// What holds within and among the factors, as the command line takes it: [ties](crate::NNEinFact::tie),
    /// [smooth modes](crate::NNEinFact::smooth), [rows that add up to 1](crate::NNEinFact::simplex) and
    /// [bases](crate::NNEinFact::basis), as in `tie ir=jr`.
    #[must_use]
    pub fn structure(&self) -> &[String] {
        &self.structure
    }

    /// The same with [`Labels`] for each mode of the data, in their order. Those of the observations
    /// are there already.
    ///
    /// # Errors
    /// [`Error::Setting`](nneinfact_core::error::Error::Setting) where there are not as many as
    /// modes, or not as many labels as indices.
    pub fn with_labels(mut self, labels: impl Into<Arc<[Labels]>>) -> Result<Fit> {
        let labels = labels.into();
        check_labels(&labels, modes(self.tensor.shapes()))?;
        self.labels = labels;
        Ok(self)
    }

    /// What a mode of the data and its indices are called; `None` where the letter is that of no
    /// mode, or nothing is known.
    #[must_use]
    pub fn labels(&self, letter: char) -> Option<&Labels> {
        labels_of(&self.labels, self.tensor.shapes(), letter)
    }

    /// What all modes of the data are called, in their order; none where nothing is known.
    #[must_use]
    pub fn all_labels(&self) -> &Arc<[Labels]> {
        &self.labels
    }

    /// What is probably not meant, a sentence each: of penalties and bounds, as
    /// [`NNEinFact::warnings`](crate::NNEinFact::warnings) tells without a fit, and what turned out while
    /// fitting.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The factors, in the model's order; the axes of each are its indices.
    #[must_use]
    pub fn factors(&self) -> &[ArrayD<f64>] {
        &self.tensor.factors
    }

    /// What every term of ŷ is multiplied with beside the factors, where the scales of
    /// [normalised](Self::normalize) factors were gathered so; `None` where the factors are the
    /// whole model. The axes are the model's latent indices in the order `A`–`Z`, `a`–`z`: for CP a
    /// vector.
    #[must_use]
    pub fn weights(&self) -> Option<&ArrayD<f64>> {
        self.tensor.weights.as_ref()
    }

    /// The factors, without a copy. Beside [`weights`](Self::weights), where there are any, they
    /// are not the whole model.
    #[must_use]
    pub fn into_factors(self) -> Vec<ArrayD<f64>> {
        self.tensor.factors
    }

    /// The losses sweep by sweep, and why the fit stopped.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The plan that was carried out, with the ranks of the fit.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The model with its sizes: those of the fit, but for components that were
    /// [left out](Self::without_empty) since.
    #[must_use]
    pub fn shapes(&self) -> &Shapes {
        &self.tensor.shapes
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        self.tensor.model()
    }

    /// The model with its factors, which answers what can be asked of ŷ: marginals, products with other
    /// fits, samples, the largest entries.
    #[must_use]
    pub fn factored(&self) -> &FactoredTensor {
        &self.tensor
    }

    /// ŷ at one index.
    ///
    /// # Errors
    /// [`Error::Shape`](nneinfact_core::error::Error::Shape) where the index is not one of the data.
    pub fn predict(&self, index: &[usize]) -> Result<f64> {
        self.tensor.predict(index)
    }

    /// ŷ at many indices.
    ///
    /// # Errors
    /// [`Error::Shape`](nneinfact_core::error::Error::Shape) where an index is not one of the data.
    pub fn predict_many(&self, indices: &[Vec<usize>]) -> Result<Vec<f64>> {
        self.tensor.predict_many(indices)
    }

    /// ŷ with some modes fixed: `Some(i)` takes index `i` of a mode, `None` the whole of it. The
    /// result has the modes that are `None`, in the order of the data.
    ///
    /// # Errors
    /// [`Error::Shape`](nneinfact_core::error::Error::Shape) where the index does not fit the data; [`Error::Memory`](nneinfact_core::error::Error::Memory) where the result
    /// would not fit in memory.
    pub fn slice(&self, fixed: &[Option<usize>]) -> Result<ArrayD<f64>> {
        self.tensor.slice(fixed)
    }

    /// ŷ at every entry of the data.
    ///
    /// # Errors
    /// [`Error::Memory`](nneinfact_core::error::Error::Memory) where it would not fit in memory.
    pub fn reconstruct(&self) -> Result<ArrayD<f64>> {
        self.tensor.reconstruct()
    }
}

/// The modes of the data with their sizes.
pub(crate) fn modes(shapes: &Shapes) -> impl ExactSizeIterator<Item = (Index, usize)> {
    shapes.model().output().iter().map(|&index| (index, shapes.size(index)))
}

/// The labels of the mode of a letter.
pub(crate) fn labels_of<'a>(
    labels: &'a [Labels],
    shapes: &Shapes,
    letter: char,
) -> Option<&'a Labels> {
    let at = shapes.model().output().iter().position(|&index| char::from(index) == letter)?;
    labels.get(at).filter(|labels| !labels.is_empty())
}
