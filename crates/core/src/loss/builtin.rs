//! The losses that come with the crate.

use std::sync::Arc;

use ndarray::ArrayD;

use crate::data::scaled;
use crate::error::{Error, Result};

use super::series::Series;
use super::{Domain, EntryParameter, Expr, Loss, Majorizer, Minimizer, ScaleWith, Trials};

/// Below this size β or α + β counts as 0 in the loss (not in the update): the general divergence
/// cancels there in single precision.
const LIMIT: f64 = 1e-3;

/// The smallest size of an α other than 0: with a smaller one nothing is left of the divergence,
/// of the order of 1, in differences of terms of the order of 1/α².
const SMALLEST_ALPHA: f64 = 1e-6;

/// A member of the αβ-family with its exponents, each as exact as it can be had: α + β − 1 has to
/// be 0, and not 1e-17, where that is meant.
#[derive(Clone, Copy)]
struct AlphaBeta {
    alpha: f64,
    beta: f64,
    /// α + β.
    sum: f64,
}

impl AlphaBeta {
    fn new(alpha: f64, beta: f64) -> AlphaBeta {
        AlphaBeta { alpha, beta, sum: tidy(alpha + beta) }
    }
}

/// The decimal number that a sum of two short decimal numbers was meant to be.
fn tidy(value: f64) -> f64 {
    let near = (value * 1e12).round() / 1e12;
    if (near - value).abs() <= 4.0 * f64::EPSILON * (1.0 + value.abs()) { near } else { value }
}

/// The exponents `p_a` and `p_b` of the majorizer of the αβ-divergence, α ≠ 0: of `y^(β−1)` and
/// `y^(α+β−1)`, the power that belongs to the convex part of the loss stays and the one that
/// belongs to the concave part is replaced by its tangent.
fn majorizer(alpha: f64, p: f64, q: f64) -> Majorizer {
    let (p, q) = if alpha > 0.0 { (p.min(0.0), q.max(0.0)) } else { (p.max(0.0), q.min(0.0)) };
    Majorizer::Power { p_a: p, p_b: q }
}

/// `then` where x > 0, else 0: the convention at a datum of 0.
fn where_positive(then: &Expr) -> Expr {
    Expr::select_positive(&Expr::x(), then, &Expr::constant(0.0))
}

/// `then`, a multiple of the logarithm of `ratio`, or 0 where the ratio is 0: at a datum of 0, and
/// where the quotient of a tiny datum and ŷ underflows although the datum is positive. Also where it
/// is not a number: a share of no trials.
fn unless_it_vanishes(ratio: &Expr, then: &Expr) -> Expr {
    Expr::select_positive(ratio, then, &Expr::constant(0.0))
}

/// The αβ-divergence (Cichocki, Cruces & Amari 2011) for α ≠ 0, and what to note about it.
fn divergence(AlphaBeta { alpha, beta, sum }: AlphaBeta) -> (Expr, Vec<String>, f64) {
    let (x, y) = (Expr::x(), Expr::y());
    let note = |what: &str, value: f64, case: &str| {
        vec![format!(
            "{what} = {value} is so close to 0 that the general formula would cancel: the loss is \
             computed as that of {case} (the update is not)"
        )]
    };
    if beta.abs() < LIMIT {
        let notes = if beta == 0.0 { Vec::new() } else { note("beta", beta, "beta = 0") };
        let power = x.pow(alpha);
        let ratio = &x / &y;
        let log = alpha * (&power * ratio.ln());
        let log = if alpha > 0.0 { unless_it_vanishes(&ratio, &log) } else { log };
        return ((log - power + y.pow(alpha)) / (alpha * alpha), notes, alpha);
    }
    if sum.abs() < LIMIT {
        let notes =
            if sum == 0.0 { Vec::new() } else { note("alpha + beta", sum, "beta = -alpha") };
        let ratio = &x / &y;
        let log = if alpha < 0.0 { -alpha * ratio.ln() } else { alpha * (&y / &x).ln() };
        return ((ratio.pow(alpha) - 1.0 + log) / (alpha * alpha), notes, 0.0);
    }
    let loss = if alpha == beta {
        // A square, which cannot cancel.
        (x.pow(alpha) - y.pow(alpha)).pow(2.0) / (2.0 * alpha * alpha)
    } else if (alpha, beta) == (2.0, -1.0) {
        (&x - &y).pow(2.0) / (2.0 * y)
    } else if (alpha, beta) == (-1.0, 2.0) {
        (&x - &y).pow(2.0) / (2.0 * x)
    } else {
        x.pow(sum) / (beta * sum) + y.pow(sum) / (alpha * sum)
            - x.pow(alpha) * y.pow(beta) / (alpha * beta)
    };
    (loss, Vec::new(), sum)
}

/// The same where x and y are close and the formula would cancel in single precision; `None` where
/// it does not: squares, and the Kullback–Leibler divergence, whose x ln(x/y) is off by 2⁻²⁴ x at
/// most and which the CPU forms in registers, at a cost of its own.
fn without_cancellation(AlphaBeta { alpha, beta, sum }: AlphaBeta, loss: &Expr) -> Option<Expr> {
    let (x, y) = (Expr::x(), Expr::y());
    let apart = &x - &y;
    // Squares do not cancel, but may leave the range of single precision although the loss does not.
    if (alpha, beta) == (2.0, -1.0) {
        return Some(0.5 * (&apart * (&apart / &y)));
    }
    if (alpha, beta) == (-1.0, 2.0) {
        return Some(0.5 * (&apart * (&apart / &x)));
    }
    if alpha == beta || (alpha, beta) == (1.0, 0.0) {
        return None;
    }
    // As in `divergence`.
    let sum = match (beta.abs() < LIMIT, sum.abs() < LIMIT) {
        (true, _) => alpha,
        (false, true) => 0.0,
        (false, false) => sum,
    };
    let series = Series::alpha_beta(alpha, sum);
    Some(Expr::near(&(&x / &y), &y.pow(sum), loss, series))
}

impl Loss {
    /// The generalised Kullback–Leibler divergence, x ln(x/y) − x + y: Poisson counts. x ≥ 0.
    #[must_use]
    pub fn kl() -> Loss {
        Loss::family("kl".into(), AlphaBeta::new(1.0, 0.0))
    }

    /// Half the squared distance, ½(x − y)²: Gaussian noise. x ≥ 0.
    #[must_use]
    pub fn euclidean() -> Loss {
        Loss::family("euclidean".into(), AlphaBeta::new(1.0, 1.0))
    }

    /// The Itakura–Saito divergence, x/y − 1 + ln(y/x): multiplicative noise. x > 0.
    #[must_use]
    pub fn itakura_saito() -> Loss {
        Loss::family("itakura-saito".into(), AlphaBeta::new(1.0, -1.0))
    }

    /// The Hellinger distance as the αβ-divergence with α = β = ½, 2(√x − √y)². x ≥ 0.
    #[must_use]
    pub fn hellinger() -> Loss {
        Loss::family("hellinger".into(), AlphaBeta::new(0.5, 0.5))
    }

    /// The reverse Kullback–Leibler divergence, y ln(y/x) − y + x. x > 0.
    #[must_use]
    pub fn reverse_kl() -> Loss {
        let (x, y) = (Expr::x(), Expr::y());
        let loss = &y * (&y / &x).ln() - &y + &x;
        // y times the Itakura–Saito divergence.
        let series = Series::alpha_beta(1.0, 0.0);
        Loss {
            description: "reverse-kl, that is alpha-beta(0, 1)".into(),
            a: (&x / &y).ln(),
            b: Expr::constant(1.0),
            divergence: Some(Expr::near(&(&x / &y), &y, &loss, series)),
            loss,
            majorizer: Majorizer::Log,
            domain: Domain::Positive,
            homogeneity: Some(1.0),
            ..Loss::plain("reverse-kl")
        }
    }

    /// Neyman's χ² as the αβ-divergence with α = −1, β = 2, (x − y)²/(2x). x > 0.
    #[must_use]
    pub fn neyman() -> Loss {
        Loss::family("neyman".into(), AlphaBeta::new(-1.0, 2.0))
    }

    /// Pearson's χ² as the αβ-divergence with α = 2, β = −1, (x − y)²/(2y). x ≥ 0.
    #[must_use]
    pub fn pearson() -> Loss {
        Loss::family("pearson".into(), AlphaBeta::new(2.0, -1.0))
    }

    /// The α-divergence, the αβ-divergence with β = 1 − α. x ≥ 0, or x > 0 where α ≤ 0.
    ///
    /// # Errors
    /// [`Error::Loss`] where α is not finite, or so close to 0 that nothing is left of the
    /// divergence (α = 0 itself is the reverse Kullback–Leibler divergence).
    pub fn alpha(alpha: f64) -> Result<Loss> {
        let name = format!("alpha({alpha})");
        let beta = tidy(1.0 - alpha);
        Loss::checked_family(name, AlphaBeta { alpha, beta, sum: 1.0 })
    }

    /// The β-divergence with `b` as Févotte & Idier (2011) and scikit-learn write it, that is 2
    /// for Euclidean, 1 for Kullback–Leibler, 0 for Itakura–Saito: the αβ-divergence with α = 1,
    /// β = b − 1. x ≥ 0, or x > 0 where b ≤ 0.
    ///
    /// # Errors
    /// [`Error::Loss`] where `b` is not finite.
    ///
    /// ```
    /// use nneinfact::loss::Loss;
    ///
    /// assert_eq!(
    ///     Loss::beta(0.5)?.describe(),
    ///     "beta-divergence b = 0.5, that is alpha-beta(1, -0.5)"
    /// );
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    pub fn beta(b: f64) -> Result<Loss> {
        let family = AlphaBeta { alpha: 1.0, beta: tidy(b - 1.0), sum: b };
        let mut loss = Loss::checked_family(format!("beta({b})"), family)?;
        loss.description =
            format!("beta-divergence b = {b}, that is alpha-beta(1, {})", family.beta);
        Ok(loss)
    }

    /// The αβ-divergence of Cichocki, Cruces & Amari (2011). With `s = α + β`,
    ///
    /// | case | ℓ(x, y) |
    /// | --- | --- |
    /// | α, β, s ≠ 0 | 1/(αβ) · [α/s · x^s + β/s · y^s − x^α y^β] |
    /// | β = 0 | 1/α² · [y^α − x^α + α x^α ln(x/y)] |
    /// | α = −β | 1/α² · [(x/y)^α − 1 + α ln(y/x)] |
    /// | α = 0, β = 1 | y ln(y/x) − y + x |
    ///
    /// with a = x^α y^(β−1) and b = y^(α+β−1). x ≥ 0, or x > 0 where α ≤ 0 or α + β ≤ 0.
    ///
    /// # Errors
    /// [`Error::Loss`] where a parameter is not finite, for α = 0 with β ≠ 1, whose update has no
    /// closed form, and for an α so close to 0 that nothing is left of the divergence.
    pub fn alpha_beta(alpha: f64, beta: f64) -> Result<Loss> {
        Loss::checked_family(format!("alpha-beta({alpha}, {beta})"), AlphaBeta::new(alpha, beta))
    }

    /// Negative-binomial counts with dispersion φ > 0, up to terms constant in y:
    /// (φ+x) ln(φ+y) − x ln y. The variance at mean y is y + y²/φ. x ≥ 0.
    ///
    /// # Errors
    /// [`Error::Loss`] where a φ is not a positive number.
    pub fn negative_binomial(dispersion: impl Into<EntryParameter>) -> Result<Loss> {
        let dispersion = dispersion.into();
        dispersion.check_positive("the dispersion of the negative-binomial loss", false)?;
        Ok(Loss::negative_binomial_of(dispersion))
    }

    /// Geometric counts: negative-binomial with dispersion 1. x ≥ 0.
    #[must_use]
    pub fn geometric() -> Loss {
        Loss {
            name: "geometric".into(),
            description: "geometric, that is negative-binomial(1)".into(),
            ..Loss::negative_binomial_of(EntryParameter::Scalar(1.0))
        }
    }

    /// Zeros and ones, the model's value being the odds y = p/(1−p): ln(1+y) − x ln y.
    #[must_use]
    pub fn bernoulli() -> Loss {
        let (x, y) = (Expr::x(), Expr::y());
        Loss {
            description: "bernoulli, the model's values being odds".into(),
            a: &x / &y,
            b: 1.0 / (1.0 + &y),
            loss: (1.0 + &y).ln() - where_positive(&(&x * y.ln())),
            divergence: Some(Expr::select_positive(&x, &(1.0 / &y), &y).ln_1p()),
            domain: Domain::Binary,
            minimizer: Minimizer::Odds,
            ..Loss::plain("bernoulli")
        }
    }

    /// Successes in n trials, the model's value being the odds y = p/(1−p), up to terms constant in
    /// y: n ln(1+y) − x ln y. 0 ≤ x ≤ n. An entry without trials says nothing: its loss is 0, and it
    /// counts in a mean unless it is masked.
    ///
    /// # Errors
    /// [`Error::Loss`] where an n is not a positive number, or 0 at some entries of a tensor.
    pub fn binomial(trials: impl Into<EntryParameter>) -> Result<Loss> {
        let trials = trials.into();
        trials.check_positive("the number of trials of the binomial loss", true)?;
        let scale_with = Some((ScaleWith::Data, trials.scalar()));
        let (x, y) = (Expr::x(), Expr::y());
        let label = trials.label();
        let domain = Domain::UpTo(match trials {
            EntryParameter::Scalar(n) => Trials::Scalar(n),
            EntryParameter::Tensor(_) => Trials::EntryParameter(0),
        });
        let (n, parameters) = trials.into_expr();
        let term = |x: &Expr| unless_it_vanishes(x, &(x * x.ln()));
        let failures = &n - &x;
        // x/n and (n−x)/n over what ŷ says they are, and by how much these are not 1.
        let (share, rest) = ((&x / &n) * (1.0 + 1.0 / &y), (&failures / &n) * (1.0 + &y));
        let apart = (&x - &failures * &y) / &n;
        let log = Expr::ln_near_one(&share, &(&apart / &y));
        let log_of_rest = Expr::ln_near_one(&rest, &-&apart);
        let divergence = unless_it_vanishes(&share, &(&x * log))
            + unless_it_vanishes(&rest, &(&failures * log_of_rest));
        Ok(Loss {
            divergence: Some(divergence),
            offset: Some(term(&n) - term(&failures) - term(&x)),
            scale_with,
            description: format!(
                "binomial with number of trials {label}, the model's values being odds"
            ),
            a: &x / &y,
            b: &n / (1.0 + &y),
            loss: &n * (1.0 + &y).ln() - where_positive(&(&x * y.ln())),
            domain,
            entry_parameters: parameters,
            minimizer: Minimizer::Odds,
            ..Loss::plain(format!("binomial({label})"))
        })
    }

    /// The Jensen–Shannon divergence ½[x ln(x/m) + y ln(y/m)] with m = (x + y)/2. x ≥ 0.
    #[must_use]
    pub fn jensen_shannon() -> Loss {
        let (x, y) = (Expr::x(), Expr::y());
        let mean = 0.5 * (&x + &y);
        let ratio = &x / &mean;
        let apart = 0.5 * (&x - &y) / &mean;
        let log = Expr::ln_near_one(&ratio, &apart);
        let log_of_model = Expr::ln_near_one(&(&y / &mean), &-&apart);
        Loss {
            // ln((x+y)/(2y)), written so that the value at x = 0 is a constant.
            a: (0.5 * (&x / &y) + 0.5).ln(),
            b: Expr::constant(1.0),
            // −m ln m + ½(x ln x + y ln y), which would cancel where x and y are large.
            loss: 0.5 * (unless_it_vanishes(&ratio, &(&x * ratio.ln())) + &y * (&y / &mean).ln()),
            divergence: Some(0.5 * (unless_it_vanishes(&ratio, &(&x * log)) + &y * log_of_model)),
            majorizer: Majorizer::Log,
            curvature_constant: 0.5,
            homogeneity: Some(1.0),
            ..Loss::plain("jensen-shannon")
        }
    }

    /// The loss for data and entry parameters times 2^`exponent`, where its
    /// [`divergence`](Self::divergence) of these is the same times 2^`exponent` (ŷ scaled as
    /// [`scale_with`](Self::scale_with) says). `None` where there is no such loss, or a parameter
    /// would leave the range of single precision.
    #[must_use]
    pub fn rescaled(&self, exponent: i32) -> Option<Loss> {
        let (with, scalar) = self.scale_with?;
        let fits = |v: f64| v == 0.0 || (v as f32).is_normal();
        let Some(value) = scalar else {
            let moved = |p: &Arc<ArrayD<f64>>| Arc::new(p.mapv(|v| scaled(v, exponent)));
            let entry_parameters: Vec<_> = self.entry_parameters.iter().map(moved).collect();
            let all_fit = entry_parameters.iter().all(|p| p.iter().all(|&v| fits(v)));
            return all_fit.then(|| Loss { entry_parameters, ..self.clone() });
        };
        let value = Some(scaled(value, exponent)).filter(|&v| fits(v))?;
        let loss = match with {
            ScaleWith::DataAndModel => Loss::negative_binomial(value),
            ScaleWith::Data => Loss::binomial(value),
        };
        Some(Loss { name: self.name.clone(), ..loss.ok()? })
    }

    /// A loss with the most common properties, to be completed: Poisson-like, without parameters.
    pub(super) fn plain(name: impl Into<String>) -> Loss {
        let name = name.into();
        Loss {
            description: name.clone(),
            name,
            notes: Vec::new(),
            a: Expr::x(),
            b: Expr::y(),
            loss: Expr::constant(0.0),
            divergence: None,
            offset: None,
            scale_with: None,
            cancels: false,
            majorizer: Majorizer::Power { p_a: -1.0, p_b: 0.0 },
            curvature_constant: 1.0,
            domain: Domain::NonNegative,
            entry_parameters: Vec::new(),
            homogeneity: None,
            largest_exponent: 1.0,
            minimizer: Minimizer::Datum,
        }
    }

    fn negative_binomial_of(dispersion: EntryParameter) -> Loss {
        let (x, y) = (Expr::x(), Expr::y());
        let label = dispersion.label();
        let scale_with = Some((ScaleWith::DataAndModel, dispersion.scalar()));
        let (phi, parameters) = dispersion.into_expr();
        let (apart, own, of_model) = (&x - &y, &phi + &x, &phi + &y);
        // x (φ+y) / (y (φ+x)), and by how much it is not 1.
        let ratio = (&x / &y) / (&own / &of_model);
        let excess = (&apart / &y) * (&phi / &own);
        let log = Expr::ln_near_one(&ratio, &excess);
        let log_of_sums = Expr::ln_near_one(&(&own / &of_model), &(&apart / &of_model));
        Loss {
            divergence: Some(unless_it_vanishes(&ratio, &(&x * log)) - &phi * log_of_sums),
            offset: Some(&own * own.ln() - where_positive(&(&x * x.ln()))),
            scale_with,
            description: format!("negative-binomial with dispersion {label}"),
            a: &x / &y,
            b: (&phi + &x) / (&phi + &y),
            loss: (&phi + &x) * (&phi + &y).ln() - where_positive(&(&x * y.ln())),
            entry_parameters: parameters,
            ..Loss::plain(format!("negative-binomial({label})"))
        }
    }

    /// A member of the αβ-family with parameters that a user chose.
    fn checked_family(name: String, family: AlphaBeta) -> Result<Loss> {
        let AlphaBeta { alpha, beta, sum } = family;
        if !(alpha.is_finite() && beta.is_finite() && sum.is_finite()) {
            return Err(Error::Loss(format!("{name}: the parameters have to be finite numbers")));
        }
        if alpha == 0.0 {
            if beta != 1.0 {
                return Err(Error::Loss(format!(
                    "{name}: with alpha = 0 only beta = 1 (reverse-kl) has a multiplicative \
                     update, but beta is {beta}; choose beta = 1 or an alpha other than 0"
                )));
            }
            let reverse = Loss::reverse_kl();
            let description = format!("{name}, that is alpha-beta(0, 1)");
            return Ok(Loss { name, description, ..reverse });
        }
        if alpha.abs() < SMALLEST_ALPHA {
            return Err(Error::Loss(format!(
                "{name}: alpha = {alpha} is too close to 0, where the divergence cancels; choose \
                 an alpha of at least {SMALLEST_ALPHA} in size, or reverse-kl (alpha = 0, beta = 1)"
            )));
        }
        let loss = Loss::family(name, family);
        // Constants such as 1/(αβ) have to exist in single precision, too.
        super::wgsl_function("f", &[&loss.a, &loss.b, &loss.loss], 0)
            .map_err(|e| Error::Loss(format!("{}: {e}", loss.name)))?;
        Ok(loss)
    }

    /// A member of the αβ-family with α ≠ 0.
    fn family(name: String, family: AlphaBeta) -> Loss {
        let AlphaBeta { alpha, beta, sum } = family;
        let (x, y) = (Expr::x(), Expr::y());
        let (p, q) = (tidy(beta - 1.0), tidy(sum - 1.0));
        let (loss, notes, homogeneity) = divergence(family);
        Loss {
            description: format!("{name}, that is alpha-beta({alpha}, {beta})"),
            notes,
            a: x.pow(alpha) * y.pow(p),
            b: y.pow(q),
            divergence: without_cancellation(family, &loss),
            cancels: (alpha, beta) == (1.0, 0.0),
            loss,
            majorizer: majorizer(alpha, p, q),
            curvature_constant: 1.0 / alpha,
            domain: match (alpha, beta) {
                (1.0, 1.0) => Domain::Any,
                _ if alpha <= 0.0 || sum <= 0.0 => Domain::Positive,
                _ => Domain::NonNegative,
            },
            homogeneity: Some(homogeneity),
            largest_exponent: [p, q, beta, sum].into_iter().fold(0.0, |m, e| m.max(e.abs())),
            ..Loss::plain(name)
        }
    }
}
