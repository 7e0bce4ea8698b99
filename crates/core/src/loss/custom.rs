//! Losses of one's own, and the check that they hold together.

use std::sync::Arc;

use ndarray::ArrayD;

use crate::error::{Error, Result};

use super::expr::DEEPEST;
use super::{Domain, Expr, Loss, Majorizer, Trials, wgsl_function};

/// The most operations that an expression of a custom loss may have.
const LARGEST: u64 = 10_000;

/// The largest size of an exponent of a custom majorizer.
const LARGEST_POWER: f64 = 20.0;

/// A custom loss in the making, from [`Loss::custom`].
#[derive(Clone, Debug)]
#[must_use]
pub struct LossBuilder {
    name: String,
    a: Option<Expr>,
    b: Option<Expr>,
    loss: Option<Expr>,
    majorizer: Option<Majorizer>,
    curvature_constant: Option<f64>,
    domain: Domain,
    entry_parameters: Vec<Arc<ArrayD<f64>>>,
    homogeneity: Option<f64>,
}

impl Loss {
    /// Starts a loss of one's own: `a`, `b`, ℓ and the majorizer have to be given.
    ///
    /// The numerator `a`, the denominator `b` and ℓ belong together as [`Majorizer`] and
    /// [`Loss::curvature_constant`] say. [`LossBuilder::build`] checks that.
    ///
    /// ```
    /// use nneinfact::loss::{Expr, Loss, Majorizer};
    ///
    /// let (x, y) = (Expr::x(), Expr::y());
    /// let loss = Loss::custom("poisson")
    ///     .a(&x / &y)
    ///     .b(Expr::constant(1.0))
    ///     .loss(&y - &x * y.ln())
    ///     .majorizer(Majorizer::Power { p_a: -1.0, p_b: 0.0 })
    ///     .build()?;
    /// assert!(loss.numerator_zero_at_zero());
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    pub fn custom(name: impl Into<String>) -> LossBuilder {
        LossBuilder {
            name: name.into(),
            a: None,
            b: None,
            loss: None,
            majorizer: None,
            curvature_constant: None,
            domain: Domain::NonNegative,
            entry_parameters: Vec::new(),
            homogeneity: None,
        }
    }
}

impl LossBuilder {
    /// The numerator's expression, a(x, y).
    pub fn a(mut self, a: Expr) -> Self {
        self.a = Some(a);
        self
    }

    /// The denominator's expression, b(x, y).
    pub fn b(mut self, b: Expr) -> Self {
        self.b = Some(b);
        self
    }

    /// The loss, ℓ(x, y).
    pub fn loss(mut self, loss: Expr) -> Self {
        self.loss = Some(loss);
        self
    }

    /// How `a` and `b` make an update.
    pub fn majorizer(mut self, majorizer: Majorizer) -> Self {
        self.majorizer = Some(majorizer);
        self
    }

    /// The factor c of the derivative (see [`Loss::curvature_constant`]). Left out, it is read off
    /// the derivative of ℓ.
    pub fn curvature_constant(mut self, constant: f64) -> Self {
        self.curvature_constant = Some(constant);
        self
    }

    /// The data that the loss accepts; x ≥ 0 if left out.
    pub fn domain(mut self, domain: Domain) -> Self {
        self.domain = domain;
        self
    }

    /// The tensors that `s0`, `s1`, … stand for, all of the data's shape.
    pub fn entry_parameters(mut self, parameters: impl IntoIterator<Item = ArrayD<f64>>) -> Self {
        self.entry_parameters = parameters.into_iter().map(Arc::new).collect();
        self
    }

    /// The degree d with ℓ(s·x, s·y) = s^d ℓ(x, y), if there is one. It lets data of any scale be
    /// rescaled; left out, data are taken as they are.
    pub fn homogeneity(mut self, degree: f64) -> Self {
        self.homogeneity = Some(degree);
        self
    }

    /// Checks the parts against each other and makes the loss.
    ///
    /// On a mesh over the domain and over ten decades of `y`: the derivative of ℓ has to be what
    /// `a`, `b` and the curvature constant say, and the surrogate has to lie above ℓ, for a single
    /// factor λ of change and for a model value that is a sum of parts which change by different
    /// factors, ℓ(x, Σ w_k λ_k y) ≤ Σ w_k G(λ_k). Then no update can increase the loss.
    ///
    /// # Errors
    /// [`Error::Loss`] where a part is missing or cannot be used, or where the check fails, with
    /// the x, y and λ of the failure.
    pub fn build(self) -> Result<Loss> {
        let LossBuilder {
            name,
            a,
            b,
            loss,
            majorizer,
            curvature_constant: constant,
            domain,
            entry_parameters: parameters,
            homogeneity,
        } = self;
        let wrong = |what: String| Error::Loss(format!("the custom loss {name:?}: {what}"));
        let missing = |what: &str| wrong(format!("{what} is missing"));
        let a = a.ok_or_else(|| missing("a, the numerator's expression,"))?;
        let b = b.ok_or_else(|| missing("b, the denominator's expression,"))?;
        let expression = loss.ok_or_else(|| missing("the expression of the loss"))?;
        let majorizer = majorizer.ok_or_else(|| missing("the majorizer"))?;
        for (what, e) in [("a", &a), ("b", &b), ("the loss", &expression)] {
            if e.is_too_deep() {
                return Err(wrong(format!(
                    "{what} is more than {DEEPEST} operations deep: make long sums and products of \
                     parts of about the same size"
                )));
            }
            if e.size() > LARGEST {
                return Err(wrong(format!("{what} has more than {LARGEST} operations")));
            }
        }
        if let Majorizer::Power { p_a, p_b } = majorizer {
            let usable = |p: f64| p.abs() <= LARGEST_POWER;
            if !(usable(p_a) && usable(p_b) && p_a != p_b) {
                return Err(wrong(format!(
                    "the majorizer's exponents are {p_a} and {p_b}, but have to be two different \
                     numbers of at most {LARGEST_POWER} in size"
                )));
            }
        }
        if let Some(other) = parameters.iter().find(|s| s.shape() != parameters[0].shape()) {
            return Err(wrong(format!(
                "the entry parameters have shapes {:?} and {:?}, but need the same",
                parameters[0].shape(),
                other.shape()
            )));
        }
        if parameters.iter().any(|s| s.is_empty() || s.iter().any(|v| !v.is_finite())) {
            return Err(wrong("the entry parameters need entries, all of them finite".into()));
        }
        match domain {
            Domain::UpTo(Trials::EntryParameter(i)) if i >= parameters.len() => {
                return Err(wrong(format!(
                    "its domain needs entry parameter s{i}, but {} are given",
                    parameters.len()
                )));
            }
            Domain::UpTo(Trials::Scalar(n)) if !(n > 0.0 && n.is_finite()) => {
                return Err(wrong(format!("the number of trials {n} has to be positive")));
            }
            _ => {}
        }
        if homogeneity.is_some_and(|d| !d.is_finite()) {
            return Err(wrong("the degree of homogeneity has to be finite".into()));
        }
        wgsl_function("f", &[&a, &b, &expression], parameters.len())
            .map_err(|e| wrong(e.to_string()))?;
        let largest_exponent =
            [&a, &b, &expression].into_iter().fold(0.0, |m: f64, e| m.max(e.largest_exponent()));
        let mut loss = Loss {
            description: format!("{name}, a custom loss"),
            a,
            b,
            loss: expression,
            cancels: true,
            majorizer,
            domain,
            entry_parameters: parameters,
            homogeneity,
            largest_exponent,
            ..Loss::plain(name.clone())
        };
        let mesh = Mesh::new(&loss).map_err(&wrong)?;
        loss.curvature_constant = match constant {
            Some(c) => c,
            None => mesh.infer_curvature_constant(&loss).map_err(&wrong)?,
        };
        if !(loss.curvature_constant.is_finite() && loss.curvature_constant != 0.0) {
            return Err(wrong(format!(
                "the curvature constant is {}, but has to be finite and not 0",
                loss.curvature_constant
            )));
        }
        // Negative data are fitted under terms of their own.
        let checked = if domain == Domain::Any { loss.for_negative_data() } else { loss.clone() };
        mesh.check(&checked).map_err(&wrong)?;
        Ok(loss)
    }
}

/// Rounding errors of ℓ and of the surrogate, relative to the size of their terms.
const TOLERANCE: f64 = 1e-9;

/// The points at which a custom loss is checked.
struct Mesh {
    /// A datum, a value of the model and the entry parameters of an entry.
    points: Vec<(f64, f64, Vec<f64>)>,
    /// The factors of change.
    lambdas: Vec<f64>,
}

impl Mesh {
    fn new(loss: &Loss) -> Result<Mesh, String> {
        let entries: Vec<Vec<f64>> = match loss.entry_parameters.first() {
            None => vec![Vec::new()],
            // Some entries all over the tensors, and those with the extreme values.
            Some(first) => {
                let all: Vec<Vec<f64>> =
                    loss.entry_parameters.iter().map(|s| s.iter().copied().collect()).collect();
                let n = first.len();
                let mut at: Vec<usize> = (0..4).map(|i| i * (n - 1) / 3).collect();
                for values in &all {
                    let order = |&i: &usize, &j: &usize| values[i].total_cmp(&values[j]);
                    at.extend((0..n).min_by(order));
                    at.extend((0..n).max_by(order));
                }
                at.sort_unstable();
                at.dedup();
                at.into_iter().map(|i| all.iter().map(|values| values[i]).collect()).collect()
            }
        };
        let decades: [f64; 11] = [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.7, 1.0, 6.0, 40.0, 1e3, 1e5];
        let mut points = Vec::new();
        for parameters in entries {
            let data: Vec<f64> = match loss.domain {
                Domain::Binary => vec![0.0, 1.0],
                Domain::Any => {
                    let negative = decades.iter().map(|x| -x);
                    [0.0].into_iter().chain(decades).chain(negative).collect()
                }
                Domain::Positive => decades.to_vec(),
                Domain::NonNegative => [0.0].into_iter().chain(decades).collect(),
                Domain::UpTo(_) => {
                    let n = loss.domain.trials(&parameters).unwrap_or(1.0);
                    [0.0, 1e-3, 0.1, 0.5, 0.9, 1.0].iter().map(|share| share * n).collect()
                }
            };
            for x in data.into_iter().filter(|&x| loss.domain.contains(x, &parameters)) {
                points.extend(decades.iter().map(|&y| (x, y, parameters.clone())));
            }
        }
        if points.is_empty() {
            return Err("its domain holds no datum at the entries looked at".into());
        }
        let lambdas = vec![1e-4, 0.01, 0.2, 0.6, 0.9, 1.0, 1.1, 1.7, 5.0, 100.0, 1e4];
        Ok(Mesh { points, lambdas })
    }

    /// The curvature constant at the first point where it can be read off well.
    fn infer_curvature_constant(&self, loss: &Loss) -> Result<f64, String> {
        for (x, y, parameters) in &self.points {
            let unit = unit_derivative(loss, *x, *y, parameters);
            let (derivative, error) = derivative(loss, *x, *y, parameters);
            let constant = derivative / unit;
            if constant.is_finite() && constant != 0.0 && error <= 1e-7 * derivative.abs() {
                // The constants are simple numbers, if anything.
                let simple = (constant * 720.0).round() / 720.0;
                let near = (simple - constant).abs() <= 1e-6 * constant.abs();
                return Ok(if near { simple } else { constant });
            }
        }
        Err("the curvature constant cannot be read off the derivative of the loss; give it".into())
    }

    fn check(&self, loss: &Loss) -> Result<(), String> {
        let c = loss.curvature_constant;
        if let Majorizer::Power { p_a, p_b } = loss.majorizer
            && c * (p_b - p_a) < 0.0
        {
            return Err(format!(
                "curvature constant · (p_b − p_a) has to be positive, or the update would maximise the \
                 surrogate; the curvature constant is {c}, p_a {p_a} and p_b {p_b}"
            ));
        }
        if loss.majorizer == Majorizer::Log && c < 0.0 {
            return Err(format!(
                "under the Log majorizer the curvature constant has to be positive, but it is {c}"
            ));
        }
        let mut random = Uniform(0x9e37_79b9_7f4a_7c15);
        for (x, y, parameters) in &self.points {
            let (x, y) = (*x, *y);
            let (a, b) = (loss.eval_a(x, y, parameters), loss.eval_b(x, y, parameters));
            let at = |what: &str| format!("{what} at x = {x}, y = {y}, parameters {parameters:?}");
            let value = loss.eval_loss(x, y, parameters);
            if !(a.is_finite() && b.is_finite() && value.is_finite()) {
                return Err(at(&format!("a = {a}, b = {b} and loss = {value} have to be finite")));
            }
            let power = loss.majorizer != Majorizer::Log;
            if b < 0.0 || (power && a < 0.0) {
                return Err(at(&format!(
                    "b = {b} (and a = {a} under a Power majorizer) must not be negative"
                )));
            }
            let (found, error) = derivative(loss, x, y, parameters);
            let claimed = c * unit_derivative(loss, x, y, parameters);
            let size = if power { c.abs() * (a + b) } else { (c * a).abs() };
            if (found - claimed).abs() > 1e-5 * size + 10.0 * error {
                return Err(at(&format!(
                    "the derivative of the loss is {found}, but a, b and the curvature constant say {claimed}"
                )));
            }
            let surrogate = |lambda: f64| value + c * y * loss.majorizer.rise(a, b, lambda);
            let size = |lambda: f64| {
                let m = loss.majorizer;
                (c * y).abs() * (m.rise(a, 0.0, lambda).abs() + m.rise(0.0, b, lambda).abs())
            };
            let above = |parts: &[(f64, f64)]| -> Result<(), String> {
                let lambda: f64 = parts.iter().map(|(w, l)| w * l).sum();
                let bound: f64 = parts.iter().map(|&(w, l)| w * surrogate(l)).sum();
                let terms: f64 = parts.iter().map(|&(w, l)| w * size(l)).sum();
                let reached = loss.eval_loss(x, lambda * y, parameters);
                let rounding = TOLERANCE
                    * (reached.abs()
                        + value.abs()
                        + terms
                        + loss_terms(loss, x, lambda * y, parameters));
                // The comparison is this way round so that a NaN fails it.
                if reached <= bound + rounding {
                    return Ok(());
                }
                let factors: Vec<f64> = parts.iter().map(|p| p.1).collect();
                let weights: Vec<f64> = parts.iter().map(|p| p.0).collect();
                Err(at(&format!(
                    "the majorizer does not lie above the loss: with y changed by λ = {factors:?} \
                     in parts of {weights:?} the loss is {reached}, the surrogate {bound},"
                )))
            };
            for &lambda in &self.lambdas {
                above(&[(1.0, lambda)])?;
            }
            for terms in [2usize, 3, 4, 2, 3, 4] {
                let weights: Vec<f64> = (0..terms).map(|_| random.next() + 1e-3).collect();
                let total: f64 = weights.iter().sum();
                let parts: Vec<(f64, f64)> = weights
                    .iter()
                    .map(|w| (w / total, 10f64.powf(6.0 * random.next() - 3.0)))
                    .collect();
                above(&parts)?;
            }
        }
        Ok(())
    }
}

/// The derivative of the loss in y that `a` and `b` claim, for a curvature constant of 1.
fn unit_derivative(loss: &Loss, x: f64, y: f64, parameters: &[f64]) -> f64 {
    let a = loss.eval_a(x, y, parameters);
    match loss.majorizer {
        Majorizer::Power { .. } => loss.eval_b(x, y, parameters) - a,
        Majorizer::Log => -a,
    }
}

/// The derivative of the loss in y by central differences, extrapolated once, with an estimate of
/// its error.
fn derivative(loss: &Loss, x: f64, y: f64, parameters: &[f64]) -> (f64, f64) {
    let central = |h: f64| {
        let rise = loss.eval_loss(x, y + h, parameters) - loss.eval_loss(x, y - h, parameters);
        rise / (2.0 * h)
    };
    let h = 1e-3 * y;
    let (coarse, fine) = (central(h), central(0.5 * h));
    let extrapolated = fine + (fine - coarse) / 3.0;
    let rounding = f64::EPSILON * loss_terms(loss, x, y, parameters) / h;
    (extrapolated, (extrapolated - fine).abs() * 1e-3 + rounding)
}

/// The size of the terms that cancel in the loss, as far as its values at x, 2x and y, 2y tell.
fn loss_terms(loss: &Loss, x: f64, y: f64, parameters: &[f64]) -> f64 {
    let at = |y: f64| loss.eval_loss(x, y, parameters).abs();
    let a = loss.eval_a(x, y, parameters).abs();
    let b = loss.eval_b(x, y, parameters).abs();
    at(y) + at(0.5 * y) + at(2.0 * y) + loss.curvature_constant.abs() * y * (a + b)
}

/// Uniform numbers in [0, 1), the same on every run (SplitMix64, Steele et al. 2014).
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}
