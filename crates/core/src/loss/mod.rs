//! Losses: what is minimised, as expressions, with their majorizers and domains.
//!
//! A [`Loss`] is a divergence ℓ(x, y) between a datum `x` and the model's value `y`, together with
//! what its multiplicative update needs: two expressions `a` and `b`, and the [`Majorizer`] that
//! says how they combine. The update of a factor Θ is Θ ← Θ ⊙ g⁻¹(A / B), where A and B are the
//! contractions of `a` and `b` with the other factors (Hood & Schein 2026, arXiv 2602.02759,
//! Algorithm 1).
//!
//! Every loss is written once, as [`Expr`]s, and runs from there in double precision, vectorised
//! on the CPU, and as WGSL on a GPU. A loss of one's own is built with [`Loss::custom`].

#[cfg(test)]
mod accuracy;
mod builtin;
mod custom;
mod differences;
mod domain;
mod entry_parameter;
mod expr;
mod graph;
mod instruction;
mod majorizer;
mod named;
mod operators;
mod penalty;
mod separable;
mod series;
mod tape;
mod text;
mod zero;

use std::sync::Arc;

use ndarray::ArrayD;

pub use custom::LossBuilder;
pub use differences::{DifferencedAxis, Differences};
pub use domain::{Domain, Trials};
pub use entry_parameter::EntryParameter;
pub use expr::{Expr, wgsl_function};
pub use majorizer::Majorizer;
pub use named::{LOSSES, LossParameter, LossParameters, LossSpec, NAMES};
pub use penalty::{Penalty, Share};
pub use separable::Separable;
#[doc(hidden)]
pub use tape::weighted;
pub use tape::{PredictionPower, Scratch, Tape};
pub use zero::{AtZero, Monomial, ZeroTerm};

/// A loss ℓ(x, y) with the update that decreases it.
///
/// ```
/// use nneinfact::loss::Loss;
///
/// let loss = Loss::alpha_beta(0.7, 0.0)?;
/// assert_eq!(loss.name(), "alpha-beta(0.7, 0)");
/// assert_eq!(loss.a().to_string(), "x^0.7 / y");
/// assert_eq!(loss.b().to_string(), "y^(-0.3)");
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Loss {
    name: String,
    description: String,
    notes: Vec<String>,
    a: Expr,
    b: Expr,
    loss: Expr,
    /// `loss` less `offset`, in a form without cancellation; `None` where that is `loss` itself.
    divergence: Option<Expr>,
    /// The least ℓ(x, y) over y, where it is not 0.
    offset: Option<Expr>,
    /// What its parameter has to be scaled with for the divergence to scale too, and the parameter
    /// where it is one number.
    scale_with: Option<(ScaleWith, Option<f64>)>,
    cancels: bool,
    majorizer: Majorizer,
    curvature_constant: f64,
    domain: Domain,
    entry_parameters: Vec<Arc<ArrayD<f64>>>,
    homogeneity: Option<f64>,
    largest_exponent: f64,
    minimizer: Minimizer,
}

/// What a parameter of a loss is measured in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScaleWith {
    /// In the unit of the data, which ŷ has too: a dispersion.
    DataAndModel,
    /// In the unit of the data, which ŷ does not have: a number of trials.
    Data,
}

/// Where a loss has its minimum over y.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Minimizer {
    /// At y = x.
    Datum,
    /// At the odds x / (n − x), with n = 1 or the number of trials.
    Odds,
}

impl Loss {
    /// The name with the parameters, as in "alpha-beta(0.7, 0)".
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the name stands for, in a sentence: for a member of the αβ-family its (α, β).
    #[must_use]
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// What a user should know about how this loss is computed. Mostly empty.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The numerator's expression, a(x, y).
    #[must_use]
    pub fn a(&self) -> &Expr {
        &self.a
    }

    /// The denominator's expression, b(x, y).
    #[must_use]
    pub fn b(&self) -> &Expr {
        &self.b
    }

    /// The loss itself, ℓ(x, y), in natural units (nats, or the square of the data's unit).
    #[must_use]
    pub fn loss(&self) -> &Expr {
        &self.loss
    }

    /// What engines sum in place of ℓ: ℓ(x, y) less its least value over y
    /// ([`offset`](Self::offset)), in a form that does not cancel where x and y are close or large.
    #[must_use]
    pub fn divergence(&self) -> &Expr {
        self.divergence.as_ref().unwrap_or(&self.loss)
    }

    /// The least ℓ(x, y) over y, an expression of `x` and entry parameters; `None` where it is 0 (and
    /// for custom losses, which are summed as they are). ℓ is [`divergence`](Self::divergence) plus
    /// this.
    #[must_use]
    pub fn offset(&self) -> Option<&Expr> {
        self.offset.as_ref()
    }

    /// Whether engines sum a form of it whose terms cancel where x and y are close, so that its
    /// rounding errors are those of |c| ŷ (a + b) and not of what is left: the Kullback–Leibler
    /// divergence, which the CPU forms in registers, and custom losses.
    #[must_use]
    pub fn cancels(&self) -> bool {
        self.cancels
    }

    /// What is to be scaled with the loss's parameter for the divergence to be scaled as much, where
    /// there is such a thing: see [`rescaled`](Self::rescaled).
    #[must_use]
    pub fn scale_with(&self) -> Option<ScaleWith> {
        self.scale_with.map(|(with, _)| with)
    }

    /// How `a` and `b` make an update.
    #[must_use]
    pub fn majorizer(&self) -> Majorizer {
        self.majorizer
    }

    /// The factor c of the derivative: ∂ℓ/∂y is c·(b − a) under [`Majorizer::Power`] and −c·a
    /// under [`Majorizer::Log`].
    #[must_use]
    pub fn curvature_constant(&self) -> f64 {
        self.curvature_constant
    }

    /// The data that the loss accepts.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether the loss accepts a datum of 0.
    #[must_use]
    pub fn accepts_zeros(&self) -> bool {
        match self.domain {
            Domain::Any | Domain::NonNegative | Domain::Binary | Domain::UpTo(_) => true,
            Domain::Positive => false,
        }
    }

    /// The tensors that `s0`, `s1`, … of the expressions stand for. They have the data's shape;
    /// whoever has the data checks that.
    #[must_use]
    pub fn entry_parameters(&self) -> &[Arc<ArrayD<f64>>] {
        &self.entry_parameters
    }

    /// The loss with other entry parameters, as many as it has: those of a part of the data.
    #[must_use]
    pub fn with_entry_parameters(&self, entry_parameters: Vec<Arc<ArrayD<f64>>>) -> Loss {
        Loss { entry_parameters, ..self.clone() }
    }

    /// The degree d with ℓ(s·x, s·y) = s^d ℓ(x, y) for every s > 0, if there is one: α + β for the
    /// αβ-divergence, 1 for Jensen–Shannon.
    ///
    /// Where the loss is computed by the formula of a limit case (see [`notes`](Self::notes)) it is
    /// the degree of that formula.
    #[must_use]
    pub fn homogeneity(&self) -> Option<f64> {
        self.homogeneity
    }

    /// Whether the model's value is the odds p/(1−p) of the datum, and not its mean.
    #[must_use]
    pub fn is_odds(&self) -> bool {
        self.minimizer == Minimizer::Odds
    }

    /// The model's value that fits `x` best: `x` itself, or the odds x/(n−x), infinite at x = n.
    /// `parameters` are the entry's entry parameters.
    #[must_use]
    pub fn minimizer(&self, x: f64, parameters: &[f64]) -> f64 {
        match self.minimizer {
            Minimizer::Datum => x,
            Minimizer::Odds => x / (self.domain.trials(parameters).unwrap_or(1.0) - x),
        }
    }

    /// a(0, y), where it is finite and the same for all positive `y` and entry parameters: 0 for
    /// most losses, −ln 2 for Jensen–Shannon.
    #[must_use]
    pub fn numerator_at_zero(&self) -> Option<f64> {
        self.a.at_zero_datum().as_constant().filter(|c| c.is_finite())
    }

    /// Whether a(0, y) = 0, so that the numerator needs only the nonzero data.
    #[must_use]
    pub fn numerator_zero_at_zero(&self) -> bool {
        self.numerator_at_zero() == Some(0.0)
    }

    /// The value of `b`, where it is a constant.
    #[must_use]
    pub fn denominator_constant(&self) -> Option<f64> {
        self.b.as_constant()
    }

    /// Whether this is half the squared distance, ½(x − y)².
    #[must_use]
    pub fn is_half_squared_distance(&self) -> bool {
        let probes = [(0.0, 1.0), (2.0, 3.5), (1.0, 1.0), (5.0, 0.25)];
        let same = |(x, y): (f64, f64)| self.loss.eval(x, y, &[]) == 0.5 * (x - y) * (x - y);
        matches!((self.a.node(), self.b.node()), (expr::Node::X, expr::Node::Y))
            && self.entry_parameters.is_empty()
            && probes.into_iter().all(same)
    }

    /// This loss with the majorizer for data of which some are negative. Under half the squared
    /// distance −xŷ is linear in ŷ and positive there, as an ℓ1 penalty is: it joins the denominator,
    /// `a = max(x, 0)` and `b = y + max(−x, 0)`, and updates lower the loss as before. Other losses
    /// stay as they are.
    ///
    /// ```
    /// use nneinfact::Loss;
    ///
    /// let loss = Loss::euclidean().for_negative_data();
    /// assert_eq!((loss.eval_a(-3.0, 2.0, &[]), loss.eval_b(-3.0, 2.0, &[])), (0.0, 5.0));
    /// assert_eq!((loss.eval_a(3.0, 2.0, &[]), loss.eval_b(3.0, 2.0, &[])), (3.0, 2.0));
    /// assert_eq!(loss.eval_loss(-3.0, 2.0, &[]), 12.5);
    /// ```
    #[must_use]
    pub fn for_negative_data(&self) -> Loss {
        if !self.is_half_squared_distance() {
            return self.clone();
        }
        let zero = Expr::constant(0.0);
        let positive = |x: &Expr| Expr::select_positive(x, x, &zero);
        let (x, y) = (Expr::x(), Expr::y());
        Loss { a: positive(&x), b: y + positive(&-&x), ..self.clone() }
    }

    /// Whether `b` depends on the datum.
    #[must_use]
    pub fn denominator_depends_on_x(&self) -> bool {
        self.b.depends_on_x()
    }

    /// Whether `b` depends on the model's value.
    #[must_use]
    pub fn denominator_depends_on_y(&self) -> bool {
        self.b.depends_on_y()
    }

    /// The largest size of a power of `y` in `a`, `b` and ℓ: what decides how small `y` may become
    /// before an expression overflows in single precision.
    #[must_use]
    pub fn largest_exponent(&self) -> f64 {
        self.largest_exponent
    }

    /// a(x, y) in double precision.
    #[must_use]
    pub fn eval_a(&self, x: f64, y: f64, parameters: &[f64]) -> f64 {
        self.a.eval(x, y, parameters)
    }

    /// b(x, y) in double precision.
    #[must_use]
    pub fn eval_b(&self, x: f64, y: f64, parameters: &[f64]) -> f64 {
        self.b.eval(x, y, parameters)
    }

    /// ℓ(x, y) in double precision.
    ///
    /// ```
    /// use nneinfact::loss::Loss;
    ///
    /// assert_eq!(Loss::euclidean().eval_loss(1.0, 3.0, &[]), 2.0);
    /// assert_eq!(Loss::kl().eval_loss(0.0, 3.0, &[]), 3.0);
    /// ```
    #[must_use]
    pub fn eval_loss(&self, x: f64, y: f64, parameters: &[f64]) -> f64 {
        self.loss.eval(x, y, parameters)
    }
}
