//! What a fit returns.

use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};

use nneinfact_core::algebra::contract_within;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::{History, Unfinished};
use nneinfact_core::memory::available_memory;
use nneinfact_core::model::{Index, Model, Shapes};
use nneinfact_core::plan::{Contraction, Plan};

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
    /// The plan's, until ranks shrink.
    pub(super) shapes: Shapes,
    pub(super) factors: Vec<ArrayD<f64>>,
    /// Over all latent letters, in the order of the set.
    pub(super) weights: Option<ArrayD<f64>>,
    history: History,
    warnings: Vec<String>,
}

/// The factors after the last completed sweep of a fit that broke
/// ([`Error::Broken`](nneinfact_core::error::Error::Broken)).
impl From<Unfinished> for Fit {
    fn from(last: Unfinished) -> Fit {
        Fit::new(last.plan, last.factors, last.history)
    }
}

impl Fit {
    pub(super) fn new(plan: Arc<Plan>, factors: Vec<ArrayD<f64>>, history: History) -> Fit {
        let shapes = plan.shapes().clone();
        Fit { plan, shapes, factors, weights: None, history, warnings: Vec::new() }
    }

    pub(super) fn with_warnings(self, warnings: Vec<String>) -> Fit {
        Fit { warnings, ..self }
    }

    /// What is probably not meant, a sentence each: of penalties and bounds, as
    /// [`NNEinFact::warnings`](super::NNEinFact::warnings) tells without a fit, and what turned out while
    /// fitting.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The factors, in the model's order; the axes of each are its letters.
    #[must_use]
    pub fn factors(&self) -> &[ArrayD<f64>] {
        &self.factors
    }

    /// What every term of ŷ is multiplied with beside the factors, where the scales of
    /// [normalised](Self::normalize) factors were gathered so; `None` where the factors are the
    /// whole model. The axes are the model's latent letters in the order `A`–`Z`, `a`–`z`: for CP a
    /// vector.
    #[must_use]
    pub fn weights(&self) -> Option<&ArrayD<f64>> {
        self.weights.as_ref()
    }

    /// The factors, without a copy. Beside [`weights`](Self::weights), where there are any, they
    /// are not the whole model.
    #[must_use]
    pub fn into_factors(self) -> Vec<ArrayD<f64>> {
        self.factors
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
        &self.shapes
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        self.shapes.model()
    }

    /// ŷ at one index.
    ///
    /// # Errors
    /// [`Error::Shape`] where the index is not one of the data.
    pub fn predict(&self, index: &[usize]) -> Result<f64> {
        let fixed: Vec<Option<usize>> = index.iter().map(|&i| Some(i)).collect();
        Ok(self.slice(&fixed)?.iter().next().copied().unwrap_or(0.0))
    }

    /// ŷ at many indices.
    ///
    /// # Errors
    /// [`Error::Shape`] where an index is not one of the data.
    pub fn predict_many(&self, indices: &[Vec<usize>]) -> Result<Vec<f64>> {
        let modes = vec![Some(0); self.model().output().len()];
        let plan = Slicing::new(self, &modes);
        let predict = |index: &Vec<usize>| -> Result<f64> {
            let fixed: Vec<Option<usize>> = index.iter().map(|&i| Some(i)).collect();
            self.check_index(&fixed)?;
            Ok(plan.at(self, &fixed)?.first().copied().unwrap_or(0.0))
        };
        indices.iter().map(predict).collect()
    }

    /// ŷ with some modes fixed: `Some(i)` takes index `i` of a mode, `None` the whole of it. The
    /// result has the modes that are `None`, in the order of the data.
    ///
    /// # Errors
    /// [`Error::Shape`] where the index does not fit the data; [`Error::Memory`] where the result
    /// would not fit in memory.
    pub fn slice(&self, fixed: &[Option<usize>]) -> Result<ArrayD<f64>> {
        self.check_index(fixed)?;
        let slicing = Slicing::new(self, fixed);
        let sizes = self.shapes.sizes(slicing.plan.output());
        let needed = 8.0 * sizes.iter().map(|&n| n as f64).product::<f64>();
        if let Some(available) = available_memory()
            && needed > available as f64
        {
            return Err(Error::Memory {
                what: "the reconstruction".into(),
                needed: needed as u64,
                available,
                help: "reconstruct slices of it, or predict single entries".into(),
            });
        }
        let result = slicing.at(self, fixed)?;
        ArrayD::from_shape_vec(IxDyn(&sizes), result).map_err(|e| Error::Shape {
            what: "the reconstruction".into(),
            found: e.to_string(),
            expected: format!("{sizes:?}"),
        })
    }

    /// Refuses what is no index of the data.
    fn check_index(&self, fixed: &[Option<usize>]) -> Result<()> {
        let shape = self.shapes.data();
        let inside = |(i, &n): (&Option<usize>, &usize)| i.is_none_or(|i| i < n);
        if fixed.len() == shape.len() && fixed.iter().zip(&shape).all(inside) {
            return Ok(());
        }
        let found: Vec<String> =
            fixed.iter().map(|i| i.map_or("all".into(), |i| i.to_string())).collect();
        Err(Error::Shape {
            what: "the index".into(),
            found: format!("[{}]", found.join(", ")),
            expected: format!("{} indices inside the data's shape {shape:?}", shape.len()),
        })
    }

    /// ŷ at every entry of the data.
    ///
    /// # Errors
    /// [`Error::Memory`] where it would not fit in memory.
    pub fn reconstruct(&self) -> Result<ArrayD<f64>> {
        self.slice(&vec![None; self.model().output().len()])
    }
}

/// How ŷ is computed where the same modes are fixed, whatever they are fixed at.
struct Slicing {
    plan: Contraction,
    /// For each axis of each factor, the mode that fixes it.
    axes: Vec<Vec<Option<usize>>>,
    weights: Option<Vec<f64>>,
}

impl Slicing {
    /// `fixed` has an entry for each mode of the data.
    fn new(fit: &Fit, fixed: &[Option<usize>]) -> Slicing {
        let model = fit.model();
        let modes = model.output().iter().zip(fixed).enumerate();
        let fixed: Vec<(Index, usize)> =
            modes.filter(|(_, (_, i))| i.is_some()).map(|(mode, (&x, _))| (x, mode)).collect();
        let mode = |x: Index| fixed.iter().find(|(y, _)| *y == x).map(|&(_, mode)| mode);
        let keep = |letters: &[Index]| -> Vec<Index> {
            letters.iter().copied().filter(|&x| mode(x).is_none()).collect()
        };
        let mut letters: Vec<Vec<Index>> = model.factors().iter().map(|x| keep(x)).collect();
        if fit.weights.is_some() {
            letters.push(model.latent().iter().collect());
        }
        let views: Vec<&[Index]> = letters.iter().map(Vec::as_slice).collect();
        Slicing {
            plan: Contraction::new(&fit.shapes, &views, &keep(model.output())),
            axes: model.factors().iter().map(|x| x.iter().map(|&x| mode(x)).collect()).collect(),
            weights: fit.weights.as_ref().map(|w| w.iter().copied().collect()),
        }
    }

    /// ŷ at these indices of the fixed modes, which are inside the data.
    fn at(&self, fit: &Fit, fixed: &[Option<usize>]) -> Result<Vec<f64>> {
        let slice = |(factor, axes): (&ArrayD<f64>, &Vec<Option<usize>>)| -> Vec<f64> {
            let mut view = factor.view();
            // From the last axis to the first, so that the others keep their numbers.
            for (axis, mode) in axes.iter().enumerate().rev() {
                if let Some(i) = mode.and_then(|mode| fixed[mode]) {
                    view.index_axis_inplace(ndarray::Axis(axis), i);
                }
            }
            view.iter().copied().collect()
        };
        let data: Vec<Vec<f64>> = fit.factors.iter().zip(&self.axes).map(slice).collect();
        let slices: Vec<&[f64]> = data.iter().chain(&self.weights).map(Vec::as_slice).collect();
        contract_within(&fit.shapes, &self.plan, &slices)
    }
}
