//! A fit as its file holds it: what Python's `Fit` is made of.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::PathBuf;

use nneinfact::data::Labels;
use nneinfact::fit::{Norm, Saved as Inner, ScalesInto};
use nneinfact::report::{Report, Residuals};
use nneinfact::{Error, Loss as RustLoss};
use numpy::{PyArray1, PyArrayDyn, PyReadonlyArray2, PyReadonlyArrayDyn, ToPyArray};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arrays::owned;
use crate::errors::value_error;
use crate::labels::{LabelFields, label_fields, no_labels, read_labels};
use crate::losses::{Loss, is_per_entry};
use crate::observations::Observations;
use crate::wait::released;

/// Factors with what is known of their fit. Never changed.
#[pyclass(frozen, module = "nneinfact._nneinfact")]
pub struct Saved {
    pub inner: Inner,
}

/// How a report looks: title, labels of modes (a name, and one for each index), modes drawn upwards.
type Appearance =
    (Option<String>, BTreeMap<char, (Option<String>, Option<Vec<String>>)>, Vec<char>);

#[pymethods]
impl Saved {
    /// Factors that come from elsewhere.
    #[staticmethod]
    fn from_factors(
        py: Python<'_>,
        model: &str,
        factors: Vec<PyReadonlyArrayDyn<'_, f64>>,
    ) -> PyResult<Saved> {
        let factors: Vec<_> = factors.iter().map(owned).collect();
        released(py, || Ok(Saved { inner: Inner::from_factors(model, factors)? }))
    }

    /// Reads a file; of one that does not say its model, with the model.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, model: Option<&str>) -> PyResult<Saved> {
        released(py, || {
            let inner = match model {
                Some(model) => Inner::load_as(&path, model)?,
                None => Inner::load(&path)?,
            };
            Ok(Saved { inner })
        })
    }

    /// Reads the bytes of a file.
    #[staticmethod]
    fn read(py: Python<'_>, bytes: &[u8]) -> PyResult<Saved> {
        released(py, || Ok(Saved { inner: Inner::read_from(Cursor::new(bytes), "the fit")? }))
    }

    /// The bytes of a file.
    fn write<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = released(py, || {
            let mut bytes = Cursor::new(Vec::new());
            self.inner.write_to(&mut bytes)?;
            Ok(bytes.into_inner())
        })?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Writes a file, as a whole or not at all.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        released(py, || self.inner.save(&path))
    }

    /// What is known of the fit, as JSON.
    fn record(&self) -> PyResult<String> {
        serde_json::to_string(self.inner.record()).map_err(|e| value_error(e.to_string()))
    }

    /// The letters of every factor, and of the data.
    fn letters(&self) -> (Vec<String>, String) {
        let model = self.inner.model();
        let text =
            |letters: &[nneinfact::model::Index]| letters.iter().map(|&x| char::from(x)).collect();
        (model.factors().iter().map(|f| text(f)).collect(), text(model.output()))
    }

    /// What each mode of the data and its indices are called.
    fn labels(&self) -> Vec<LabelFields> {
        let model = self.inner.model();
        let of = |&x: &nneinfact::model::Index| {
            self.inner.labels(x.into()).map_or_else(no_labels, label_fields)
        };
        model.output().iter().map(of).collect()
    }

    /// The same with labels for each mode of the data.
    fn with_labels(&self, labels: Vec<LabelFields>) -> PyResult<Saved> {
        let labels: PyResult<Vec<Labels>> = labels.into_iter().map(read_labels).collect();
        let inner = self.inner.clone().with_labels(labels?).map_err(crate::errors::raised)?;
        Ok(Saved { inner })
    }

    /// The place of a factor by its letters, or as theta_N.
    fn factor_named(&self, name: &str) -> PyResult<usize> {
        self.inner.model().factor_named(name).map_err(|e| crate::errors::raised(e.into()))
    }

    /// Copies of the factors, in the model's order.
    fn factors<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyArrayDyn<f64>>> {
        self.inner.factors().iter().map(|factor| factor.to_pyarray(py)).collect()
    }

    /// A copy of the weights beside normalised factors, over all latent letters in alphabetical order.
    fn weights<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArrayDyn<f64>>> {
        self.inner.weights().map(|weights| weights.to_pyarray(py))
    }

    /// With columns of norm 1.
    fn normalize(&self, py: Python<'_>, norm: &str, into: Option<String>) -> PyResult<Saved> {
        let norm = [Norm::L1, Norm::L2, Norm::Max]
            .into_iter()
            .find(|n| n.to_string() == norm)
            .ok_or_else(|| {
                value_error(format!("there is no norm {norm:?}: the names are l1, l2 and max"))
            })?;
        let into = into.map_or(ScalesInto::Weights, ScalesInto::Factor);
        self.changed(py, move |fit| fit.normalize(norm, into))
    }

    /// With components in the order of what they add to the sum of the predictions.
    fn sorted(&self, py: Python<'_>) -> PyResult<Saved> {
        self.changed(py, |fit| Ok(fit.sorted()))
    }

    /// Without components that add next to nothing.
    fn without_empty(&self, py: Python<'_>, threshold: f64) -> PyResult<Saved> {
        self.changed(py, move |fit| fit.without_empty(threshold))
    }

    /// What each value of a latent letter adds to the sum of the predictions.
    fn component_weights<'py>(
        &self,
        py: Python<'py>,
        letter: char,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let weights = released(py, || self.inner.to_fit()?.component_weights(letter))?;
        Ok(weights.to_pyarray(py))
    }

    /// The prediction at each row of indices.
    fn predict<'py>(
        &self,
        py: Python<'py>,
        indices: PyReadonlyArray2<'py, i64>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let rows = indices.as_array();
        let values = released(py, || {
            let shape = self.inner.shapes().data();
            let mut columns = Vec::with_capacity(shape.len());
            for (mode, (column, &size)) in rows.columns().into_iter().zip(&shape).enumerate() {
                let index = |&i: &i64| usize::try_from(i).ok().filter(|&i| i < size);
                let list: Option<Vec<usize>> = column.iter().map(index).collect();
                columns.push(list.ok_or_else(|| {
                    let bad = column.iter().find(|i| index(i).is_none()).copied().unwrap_or(0);
                    Error::Shape {
                        what: "the indices".into(),
                        found: format!("index {bad} along mode {}", mode + 1),
                        expected: format!("indices from 0 to {}", size - 1),
                    }
                })?);
            }
            self.inner.factored().at(&columns)
        })?;
        Ok(values.to_pyarray(py))
    }

    /// The predictions with some modes fixed.
    fn slice<'py>(
        &self,
        py: Python<'py>,
        fixed: Vec<Option<usize>>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f64>>> {
        let slice = released(py, || self.inner.factored().slice(&fixed))?;
        Ok(slice.to_pyarray(py))
    }

    /// The sums of the predictions over all modes but these, in the order of the letters.
    fn marginal<'py>(
        &self,
        py: Python<'py>,
        letters: &str,
    ) -> PyResult<Bound<'py, PyArrayDyn<f64>>> {
        Ok(released(py, || self.inner.factored().marginal(letters))?.to_pyarray(py))
    }

    /// The sum of all predictions.
    fn total(&self, py: Python<'_>) -> PyResult<f64> {
        released(py, || self.inner.factored().total())
    }

    /// The largest predictions: their indices, and the values.
    fn top(&self, py: Python<'_>, count: usize) -> PyResult<(Vec<Vec<usize>>, Vec<f64>)> {
        let found = released(py, || self.inner.factored().top(count))?;
        Ok(found.into_iter().map(|entry| (entry.index, entry.value)).unzip())
    }

    /// Indices drawn in proportion to the predictions.
    fn sample(&self, py: Python<'_>, count: usize, seed: u64) -> PyResult<Vec<Vec<usize>>> {
        released(py, || self.inner.factored().sample(count, seed))
    }

    /// The model of the other modes where some have these values; of probabilities, or as it is.
    fn given(
        &self,
        py: Python<'_>,
        fixed: Vec<(char, usize)>,
        probabilities: bool,
    ) -> PyResult<Saved> {
        released(py, || {
            let tensor = match probabilities {
                true => self.inner.factored().conditional(&fixed)?,
                false => self.inner.factored().given(&fixed)?,
            };
            let inner = Inner::from(tensor);
            let of = |&x: &nneinfact::model::Index| {
                self.inner.labels(x.into()).cloned().unwrap_or_default()
            };
            let labels: Vec<Labels> = inner.model().output().iter().map(of).collect();
            let inner = match labels.iter().all(Labels::is_empty) {
                true => inner,
                false => inner.with_labels(labels)?,
            };
            Ok(Saved { inner })
        })
    }

    /// The expectation of a product of functions of single modes, under the predictions as probabilities.
    fn expectation(&self, py: Python<'_>, functions: Vec<(char, Vec<f64>)>) -> PyResult<f64> {
        released(py, || {
            let functions: Vec<(char, &[f64])> =
                functions.iter().map(|(letter, values)| (*letter, &values[..])).collect();
            self.inner.factored().expectation(&functions)
        })
    }

    /// The distance of the predictions to those of another fit.
    fn distance(&self, py: Python<'_>, other: &Saved) -> PyResult<f64> {
        released(py, || self.inner.factored().distance(other.inner.factored()))
    }

    /// Which components of another fit are which of this one, as JSON.
    fn matching(&self, py: Python<'_>, other: &Saved, factor: Option<&str>) -> PyResult<String> {
        let found = released(py, || {
            nneinfact::matching::matching_by_labels(&self.inner, &other.inner, factor)
        })?;
        serde_json::to_string(&found).map_err(|e| value_error(e.to_string()))
    }

    /// The page of the report; with data, of what the fit leaves over too.
    fn html(
        &self,
        py: Python<'_>,
        appearance: Appearance,
        data: Option<&Observations>,
        loss: Option<&Loss>,
    ) -> PyResult<String> {
        let residuals = match data {
            None => None,
            Some(data) => Some(released(py, || {
                let known = self.loss(loss)?;
                Residuals::new(&self.inner, &data.inner, known.as_ref())
            })?),
        };
        released(py, || {
            let mut report = self.report(appearance)?;
            if let Some(residuals) = residuals {
                report = report.residuals(residuals);
            }
            Ok(report.html())
        })
    }

    /// The figure of losses and components.
    fn svg(&self, py: Python<'_>, appearance: Appearance) -> PyResult<String> {
        released(py, || Ok(self.report(appearance)?.svg()))
    }
}

impl Saved {
    fn changed(
        &self,
        py: Python<'_>,
        change: impl FnOnce(nneinfact::Fit) -> nneinfact::Result<nneinfact::Fit> + Send,
    ) -> PyResult<Saved> {
        released(py, || Ok(Saved { inner: self.inner.with_components(change)? }))
    }

    /// The loss of the fit, where it is given or can be made again.
    fn loss(&self, given: Option<&Loss>) -> nneinfact::Result<Option<RustLoss>> {
        if let Some(loss) = given {
            return Ok(Some(loss.inner.clone()));
        }
        match &self.inner.record().loss {
            Some(record) if !is_per_entry(record) => match record.loss() {
                Ok(loss) => Ok(Some(loss)),
                Err(Error::Loss(_)) => Ok(None),
                Err(error) => Err(error),
            },
            _ => Ok(None),
        }
    }

    fn report(&self, (title, labels, upwards): Appearance) -> nneinfact::Result<Report<'_>> {
        let mut report = Report::new(&self.inner);
        if let Some(title) = title {
            report = report.title(title);
        }
        for (mode, (name, indices)) in labels {
            let labels = indices.map_or_else(Labels::default, Labels::new);
            let labels = match name {
                Some(name) => labels.with_name(name),
                None => labels,
            };
            report = report.labels(mode, labels)?;
        }
        for mode in upwards {
            report = report.upwards(mode)?;
        }
        Ok(report)
    }
}
