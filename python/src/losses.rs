//! Losses: named ones, and those of one's own.

use ndarray::ArrayD;
use nneinfact::Loss as Inner;
use nneinfact::fit::{EntryParameterRecord, LossRecord};
use nneinfact::loss::{Domain, EntryParameter, Expr, LOSSES, LossParameters, Majorizer, Trials};
use numpy::PyReadonlyArrayDyn;
use pyo3::prelude::*;

use crate::arrays::owned;
use crate::errors::{raised, value_error};
use crate::wait::released;

/// A loss, with what a file says of it.
#[pyclass(frozen, module = "nneinfact._nneinfact")]
pub struct Loss {
    pub inner: Inner,
    pub record: LossRecord,
}

/// A parameter: one number, or one for each entry.
#[derive(FromPyObject)]
pub enum Parameter<'py> {
    Number(f64),
    Entries(PyReadonlyArrayDyn<'py, f64>),
}

impl Parameter<'_> {
    fn read(self) -> EntryParameter {
        match self {
            Parameter::Number(number) => EntryParameter::Scalar(number),
            Parameter::Entries(array) => EntryParameter::Tensor(owned(&array)),
        }
    }
}

/// A node of an expression: what it does, the nodes before it that it takes, and a number.
type Node = (String, Vec<usize>, f64);

/// The parts of a loss of one's own.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Custom<'py> {
    name: String,
    a: Vec<Node>,
    b: Vec<Node>,
    loss: Vec<Node>,
    /// The powers of a power majorizer; `None` for the logarithm.
    powers: Option<(f64, f64)>,
    curvature_constant: Option<f64>,
    /// "nonnegative", "positive", "binary", or "upto" with the number of trials or of the parameter.
    domain: (String, Option<f64>, Option<usize>),
    entry_parameters: Vec<PyReadonlyArrayDyn<'py, f64>>,
    homogeneity: Option<f64>,
}

#[pymethods]
impl Loss {
    /// A loss of the library's table.
    #[staticmethod]
    fn named(
        name: &str,
        alpha: Option<f64>,
        beta: Option<f64>,
        dispersion: Option<Parameter<'_>>,
        trials: Option<Parameter<'_>>,
        power: Option<f64>,
    ) -> PyResult<Loss> {
        let parameters = LossParameters {
            alpha,
            beta,
            dispersion: dispersion.map(Parameter::read),
            trials: trials.map(Parameter::read),
            power,
        };
        let inner = Inner::named(name, &parameters).map_err(raised)?;
        let record = LossRecord::of(inner.name());
        Ok(Loss { inner, record })
    }

    /// A loss of one's own, checked.
    #[staticmethod]
    fn custom(py: Python<'_>, parts: Custom<'_>) -> PyResult<Loss> {
        let expressions: PyResult<Vec<Expr>> =
            [&parts.a, &parts.b, &parts.loss].into_iter().map(|nodes| expression(nodes)).collect();
        let [a, b, loss] = <[Expr; 3]>::try_from(expressions?)
            .map_err(|_| value_error("a, b and the loss are expected"))?;
        let majorizer = match parts.powers {
            Some((p_a, p_b)) => Majorizer::Power { p_a, p_b },
            None => Majorizer::Log,
        };
        let domain = match (parts.domain.0.as_str(), parts.domain.1, parts.domain.2) {
            ("nonnegative", ..) => Domain::NonNegative,
            ("positive", ..) => Domain::Positive,
            ("binary", ..) => Domain::Binary,
            ("upto", Some(trials), _) => Domain::UpTo(Trials::Scalar(trials)),
            ("upto", None, Some(i)) => Domain::UpTo(Trials::EntryParameter(i)),
            (other, ..) => {
                return Err(value_error(format!(
                    "there is no domain {other:?}: nonnegative, positive, binary and upto are"
                )));
            }
        };
        let parameters: Vec<ArrayD<f64>> = parts.entry_parameters.iter().map(owned).collect();
        let builder = Inner::custom(parts.name).a(a).b(b).loss(loss).majorizer(majorizer);
        let mut builder = builder.domain(domain).entry_parameters(parameters);
        if let Some(constant) = parts.curvature_constant {
            builder = builder.curvature_constant(constant);
        }
        if let Some(degree) = parts.homogeneity {
            builder = builder.homogeneity(degree);
        }
        let inner = released(py, || builder.build())?;
        let record = LossRecord::of(inner.name());
        Ok(Loss { inner, record })
    }

    /// The name with its parameters.
    #[getter]
    fn name(&self) -> &str {
        self.inner.name()
    }

    /// What it is and does, in words.
    fn describe(&self) -> String {
        self.inner.describe().to_string()
    }
}

/// The expression that the last node is.
fn expression(nodes: &[Node]) -> PyResult<Expr> {
    let mut made: Vec<Expr> = Vec::with_capacity(nodes.len());
    for (what, takes, number) in nodes {
        let taken: Option<Vec<&Expr>> = takes.iter().map(|&i| made.get(i)).collect();
        let taken = taken.ok_or_else(|| value_error("a node of an expression is missing"))?;
        let node = match (what.as_str(), taken.as_slice()) {
            ("x", []) => Expr::x(),
            ("y", []) => Expr::y(),
            ("s", []) => Expr::entry_parameter(*number as usize),
            ("constant", []) => Expr::constant(*number),
            ("add", &[a, b]) => a + b,
            ("sub", &[a, b]) => a - b,
            ("mul", &[a, b]) => a * b,
            ("div", &[a, b]) => a / b,
            ("neg", &[a]) => -a,
            ("pow", &[a]) => a.pow(*number),
            ("log", &[a]) => a.ln(),
            ("exp", &[a]) => a.exp(),
            ("where_positive", &[c, a, b]) => Expr::select_positive(c, a, b),
            (other, taken) => {
                return Err(value_error(format!("there is no {other} of {} parts", taken.len())));
            }
        };
        made.push(node);
    }
    made.pop().ok_or_else(|| value_error("an expression is empty"))
}

/// The named losses, each with the names of its parameters.
#[pyfunction]
pub fn loss_names() -> Vec<(&'static str, Vec<&'static str>)> {
    LOSSES.iter().map(|spec| (spec.name, spec.parameter_names())).collect()
}

/// What a file says of the loss of a fit, where its parameters differ from entry to entry.
pub fn is_per_entry(record: &LossRecord) -> bool {
    let unknown = |p: &Option<EntryParameterRecord>| {
        matches!(p, Some(EntryParameterRecord::Unknown | EntryParameterRecord::File(_)))
    };
    unknown(&record.dispersion) || unknown(&record.trials)
}
