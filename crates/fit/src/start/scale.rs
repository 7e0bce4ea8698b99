//! The scale of a start that is penalised.

use ndarray::ArrayD;

use crate::constraints::Constraints;
use crate::factors::check_factor;
use nneinfact_core::algebra::balance::{Idle, balance};
use nneinfact_core::engine::{Engine, Precision};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Loss, Majorizer, Penalty};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::Balancing;

/// Cycles of balancing before a fit starts, at most: each lowers the penalty, and they converge
/// linearly.
const CYCLES: usize = 200;
/// Passes over the data between two scales, at most, for losses whose dependence on it has no closed form:
/// about ten are enough.
const ROUNDS: usize = 60;
/// The logarithm of the first scale that is tried for such losses; those after it are ever further off.
const FIRST: f64 = 0.25;
/// Logarithms of scales that are as close as this are the same, where passes have so many digits.
fn close(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-6,
        Precision::F64 => 1e-13,
    }
}
/// The logarithms of scales that are compared, and how many of them.
const REACH: f64 = 80.0;
const SCALES: usize = 8_000;
/// How often an interval between two of them is halved: until nothing of it is left.
const HALVINGS: usize = 64;

/// Brings factors to the division of scale among them that has the least penalty, ŷ staying as it is:
/// what [`Balance::AtStart`](crate::Balance::AtStart) does. Factors without a penalty, or with one of
/// weight 0, are left out.
///
/// ```
/// use ndarray::array;
/// use nneinfact::fit::balanced;
/// use nneinfact::loss::Penalty;
/// use nneinfact::model::{Model, Shapes};
///
/// let shapes = Shapes::new(&Model::parse("ir,jr->ij")?, &[2, 2], &[('r', 1)])?;
/// let factors = [array![[8.0], [0.0]].into_dyn(), array![[1.0], [1.0]].into_dyn()];
/// let ridge = Some(Penalty::l2(1.0));
/// let found = balanced(&shapes, &[ridge, ridge], &factors)?;
/// // 64 and 2 are the norms' squares; both become the root of their product.
/// let square: f64 = found[0].iter().map(|x| x * x).sum();
/// assert!((square - 128f64.sqrt()).abs() < 1e-9);
/// assert!((found[0][[0, 0]] * found[1][[1, 0]] - 8.0).abs() < 1e-12);
/// # Ok::<(), nneinfact::Error>(())
/// ```
///
/// # Errors
/// Where factors or penalties are not as many as the model has factors, or a factor does not have the
/// model's shape.
pub fn balanced(
    shapes: &Shapes,
    penalties: &[Option<Penalty>],
    factors: &[ArrayD<f64>],
) -> Result<Vec<ArrayD<f64>>> {
    let count = shapes.model().factors().len();
    if factors.len() != count || penalties.len() != count {
        return Err(Error::Init(format!(
            "{} factors with {} penalties were given, but the model {} has {count} factors",
            factors.len(),
            penalties.len(),
            shapes.model()
        )));
    }
    for (l, factor) in factors.iter().enumerate() {
        check_factor(shapes, l, factor, &format!("theta_{}", l + 1))?;
    }
    if let Some(problem) = penalties.iter().flatten().find_map(|penalty| penalty.problem()) {
        return Err(Error::Setting(problem));
    }
    let penalties: Vec<Option<Penalty>> =
        penalties.iter().map(|p| p.filter(|penalty| penalty.weight() > 0.0)).collect();
    let rescaled: Vec<usize> = (0..count).filter(|&l| penalties[l].is_some()).collect();
    let balancing = Balancing::new(shapes.model(), &rescaled);
    Ok(on_host(shapes, &balancing, &penalties, factors))
}

/// Balances a start before a device has it.
pub(crate) fn balance_start(
    shapes: &Shapes,
    constraints: &Constraints,
    start: &mut Vec<ArrayD<f64>>,
) {
    if let Some(balancing) = &constraints.balancing {
        *start = on_host(shapes, balancing, &constraints.penalties(), start);
    }
}

fn on_host(
    shapes: &Shapes,
    balancing: &Balancing,
    penalties: &[Option<Penalty>],
    factors: &[ArrayD<f64>],
) -> Vec<ArrayD<f64>> {
    let mut all: Vec<Vec<f64>> = factors.iter().map(|f| f.iter().copied().collect()).collect();
    balance(shapes, balancing, penalties, &mut all, (CYCLES, Idle::Vanish));
    let mut result = factors.to_vec();
    for (to, from) in result.iter_mut().zip(all) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from);
    }
    result
}

/// What one tensor says about a common scale, at the factors as they are.
#[derive(Clone)]
pub(crate) struct Term {
    pub loss: Loss,
    /// What its losses are multiplied with.
    pub weight: f64,
    /// Σ W a ŷ and Σ W b ŷ.
    pub sums: [f64; 2],
    /// How many of its factors are scaled.
    pub factors: f64,
}

impl Term {
    /// The powers of λ in the loss at λŷ, where they follow from what is known; else those of what
    /// majorizes it.
    fn curve(&self) -> Majorizer {
        match (self.loss.majorizer(), self.loss.homogeneity()) {
            (Majorizer::Power { .. }, Some(degree)) => {
                // a and b as they depend on ŷ: x^α ŷ^(β−1) and ŷ^(α+β−1).
                let beta = degree - 1.0 / self.loss.curvature_constant();
                Majorizer::Power { p_a: beta - 1.0, p_b: degree - 1.0 }
            }
            (majorizer, _) => majorizer,
        }
    }
}

/// The engine of one tensor at a start, and what it says about a common scale.
pub(crate) fn term(
    engine: &mut dyn Engine,
    loss: &Loss,
    constraints: &Constraints,
    start: &[ArrayD<f64>],
) -> Result<Vec<Term>> {
    engine.load(start)?;
    engine.pass(0)?;
    engine.sums()?;
    let factors = (0..start.len()).filter(|&l| constraints.scales(l)).count() as f64;
    let sums = engine.scale_terms()?;
    Ok(vec![Term { loss: loss.clone(), weight: 1.0, sums, factors }])
}

/// Brings a start to the scale, one for all factors that are free and unbounded, at which the
/// penalised objective is least. A warning where that would be zero: then the scale is the one that
/// suits the data alone. Where the data alone would be suited best by zero, too, or by no scale, the
/// start stays as it is.
///
/// `ask` takes an engine to a start and tells what the tensors say about it there: the last time it is
/// called it is with the start as it is returned.
///
/// The scale is found to all digits that passes of this precision have. That few less would do for the
/// objective, which is flat there, does not count: the same data in another unit, or on another
/// processor, are to start at the same place.
pub(crate) fn rescale(
    constraints: &Constraints,
    start: &mut [ArrayD<f64>],
    precision: Precision,
    mut ask: impl FnMut(&[ArrayD<f64>]) -> Result<Vec<Term>>,
) -> Result<Option<String>> {
    let free: Vec<usize> = (0..start.len()).filter(|&l| constraints.scales(l)).collect();
    if free.is_empty() {
        return Ok(None);
    }
    let given = start.to_vec();
    let mut go = |log: f64, start: &mut [ArrayD<f64>]| -> Result<[Curve; 2]> {
        for &l in &free {
            start[l].clone_from(&given[l]);
            start[l].mapv_inplace(|x| x * log.exp());
        }
        let part = |&l: &usize| {
            let penalty = constraints.each[l].penalty?;
            Some((penalty, start[l].iter().map(|&x| penalty.value(x)).sum::<f64>()))
        };
        let parts = free.iter().filter_map(part).collect();
        let terms = ask(start)?;
        Ok([Curve { terms: terms.clone(), parts: Vec::new() }, Curve { terms, parts }])
    };
    let [data, whole] = go(0.0, start)?;
    if data.is_exact() {
        let Some(alone) = data.lowest() else { return Ok(None) };
        let lowest = whole.lowest();
        go(lowest.unwrap_or(alone), start)?;
        return Ok(lowest.is_none().then(outweighed));
    }
    // The losses' curves are not known, but their derivatives are, at any scale that is tried. The penalties
    // draw downwards only, so the way down from what suits the data alone is the way to go.
    let (reach, close) = (REACH / data.most(), close(precision));
    let Some(alone) = valley(reach, close, 0.0, |log| Ok(go(log, start)?[0].derivative(0.0)))?
    else {
        go(0.0, start)?;
        return Ok(None);
    };
    let whole = valley(reach, close, alone, |log| Ok(go(log, start)?[1].derivative(0.0)))?;
    if let Some(log) = whole {
        // What a surrogate says of zero is more than is true of it.
        if go(log, start)?[1].lowest().is_some() {
            return Ok(None);
        }
    }
    go(alone, start)?;
    Ok(Some(outweighed()))
}

fn outweighed() -> String {
    "with penalties this large a model that is zero everywhere would be best at the start's shape: the start is at the scale that suits the data alone"
        .to_string()
}

/// Where a function falls no further, walking downhill from a place, told by its derivatives; `None` where
/// it falls as far as `reach` from 0. Places that are `close` are the same.
fn valley(
    reach: f64,
    close: f64,
    from: f64,
    mut derivative: impl FnMut(f64) -> Result<f64>,
) -> Result<Option<f64>> {
    let first = derivative(from)?;
    if first == 0.0 || first.is_nan() {
        return Ok(Some(from));
    }
    // With the sign that makes the first derivative negative, and the other side's positive.
    let sign = -first.signum();
    let mut near = (from, -first.abs());
    let mut step = FIRST;
    let mut value = |at: f64| -> Result<f64> {
        let value = sign * derivative(at)?;
        // Out of range is too far.
        Ok(if value.is_nan() { f64::INFINITY } else { value })
    };
    let far = loop {
        let next = near.0 + sign * step;
        if next.abs() > reach {
            return Ok(None);
        }
        let found = (next, value(next)?);
        if found.1 >= 0.0 {
            break found;
        }
        near = found;
        step *= 2.0;
    };
    // Chandrupatla's: by the inverse quadratic through the last three places where that is known to be
    // one to one, else by halves. `one` and `other` have the zero between them.
    let (mut one, mut other) = (near, far);
    let mut share: f64 = 0.5;
    for _ in 0..ROUNDS {
        let apart = other.0 - one.0;
        let least = 0.5 * close / apart.abs();
        if least >= 0.5 || one.1 == 0.0 || other.1 == 0.0 {
            break;
        }
        let next = one.0 + share.clamp(least, 1.0 - least) * apart;
        let found = (next, value(next)?);
        let last;
        (other, last) = if (found.1 < 0.0) == (one.1 < 0.0) { (other, one) } else { (one, other) };
        one = found;
        let xi = (one.0 - other.0) / (last.0 - other.0);
        let phi = (one.1 - other.1) / (last.1 - other.1);
        let quadratic = phi * phi < xi && (1.0 - phi) * (1.0 - phi) < 1.0 - xi;
        share = match quadratic {
            true => {
                let rest = (last.0 - one.0) / (other.0 - one.0);
                one.1 / (other.1 - one.1) * last.1 / (other.1 - last.1)
                    + rest * one.1 / (last.1 - one.1) * other.1 / (last.1 - other.1)
            }
            false => 0.5,
        };
    }
    Ok(Some(if one.1.abs() <= other.1.abs() { one.0 } else { other.0 }))
}

/// The objective against ln of the scale of each factor, up to a constant: exact, or what majorizes it.
struct Curve {
    terms: Vec<Term>,
    /// The penalties of the factors that are scaled, with the values that they have.
    parts: Vec<(Penalty, f64)>,
}

impl Curve {
    /// Whether the losses at ŷ times λ follow from what is known.
    fn is_exact(&self) -> bool {
        self.terms.iter().all(|term| {
            term.loss.homogeneity().is_some()
                && matches!(term.loss.majorizer(), Majorizer::Power { .. })
        })
    }

    /// The most factors of a tensor that are scaled.
    fn most(&self) -> f64 {
        self.terms.iter().map(|term| term.factors).fold(1.0, f64::max)
    }

    /// The derivative; at 0 it is exact, whether the curve is or not.
    fn derivative(&self, log: f64) -> f64 {
        let data = |term: &Term| {
            let log = term.factors * log;
            let [a, b] = term.sums;
            let derivative = match term.curve() {
                Majorizer::Power { p_a, p_b } => {
                    b * ((p_b + 1.0) * log).exp() - a * ((p_a + 1.0) * log).exp()
                }
                Majorizer::Log => (b * log - a) * log.exp(),
            };
            term.weight * term.factors * term.loss.curvature_constant() * derivative
        };
        let penalty = |(penalty, value): &(Penalty, f64)| {
            let power = penalty.power();
            power * value * (power * log).exp()
        };
        self.terms.iter().map(data).sum::<f64>() + self.parts.iter().map(penalty).sum::<f64>()
    }

    /// The rise from a scale of 1.
    fn at(&self, log: f64) -> f64 {
        let data = |term: &Term| {
            let lambda = (term.factors * log).exp();
            let [a, b] = term.sums;
            term.weight * term.loss.curvature_constant() * term.curve().rise(a, b, lambda)
        };
        let penalty =
            |(penalty, value): &(Penalty, f64)| value * ((penalty.power() * log).exp() - 1.0);
        self.terms.iter().map(data).sum::<f64>() + self.parts.iter().map(penalty).sum::<f64>()
    }

    /// The logarithm of the scale of least objective; `None` where the objective is less at zero.
    fn lowest(&self) -> Option<f64> {
        let log = |i: usize| (2.0 * i as f64 / SCALES as f64 - 1.0) * REACH / self.most();
        let values: Vec<f64> = (0..=SCALES).map(|i| self.at(log(i))).collect();
        let usable = |i: &usize| values[*i].is_finite();
        let least = (0..=SCALES).filter(usable).min_by(|&i, &j| values[i].total_cmp(&values[j]))?;
        if least == 0 {
            return None;
        }
        // By the derivatives: the values of what is flat at its lowest tell half of the digits only.
        let (mut low, mut high) = (log(least - 1), log((least + 1).min(SCALES)));
        let mut middle = log(least);
        for _ in 0..HALVINGS {
            if self.derivative(middle) < 0.0 {
                low = middle
            } else {
                high = middle
            }
            middle = 0.5 * (low + high);
        }
        Some(middle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_of_several_roots() {
        // ½ (s⁴ − 1) · 2 − 3 (s² − 1) + μ (s − 1), s being the scale of each of two factors: with a
        // small μ the minimum is near s² = 1.5, with a large one at 0.
        let loss = Loss::euclidean();
        let term = Term { loss, weight: 1.0, sums: [3.0, 2.0], factors: 2.0 };
        let curve = |weight: f64| Curve {
            terms: vec![term.clone()],
            parts: vec![(Penalty::l1(1.0), weight)],
        };
        let log = curve(0.5).lowest().unwrap();
        let s = log.exp();
        assert!((4.0 * s.powi(3) - 6.0 * s + 0.5).abs() < 1e-13, "{s}");
        assert!(curve(100.0).lowest().is_none());
    }

    #[test]
    fn the_lowest_is_found_to_the_last_digits_in_any_unit() {
        let (penalty, value) = (Penalty::new(1.0, 3.0), 0.4);
        for loss in [Loss::kl(), Loss::euclidean(), Loss::itakura_saito()] {
            let lowest = |unit: f64| {
                let (weight, sums) = (1.0, [3.0 * unit, 2.0 * unit]);
                let term = Term { loss: loss.clone(), weight, sums, factors: 3.0 };
                let curve = Curve { terms: vec![term], parts: vec![(penalty, value * unit)] };
                let log = curve.lowest().unwrap();
                // The curve has its zero here, and a derivative that is no less than its parts.
                assert!(curve.derivative(log).abs() < 1e-13 * unit, "{}", loss.name());
                log
            };
            let log = lowest(1.0);
            for unit in [1e-18, 1e-9, 0.3, 1e9, 1e18] {
                let apart = (lowest(unit) - log).abs();
                assert!(apart < 1e-14, "{}, {unit}: {apart:e}", loss.name());
            }
        }
    }

    #[test]
    fn the_derivative_is_the_curves() {
        let alpha_beta = Loss::alpha_beta(0.7, 0.5).unwrap();
        for loss in [Loss::kl(), Loss::itakura_saito(), Loss::reverse_kl(), alpha_beta] {
            let term = Term { loss: loss.clone(), weight: 0.5, sums: [3.0, 2.0], factors: 2.0 };
            let curve = Curve { terms: vec![term], parts: vec![(Penalty::l2(1.0), 0.3)] };
            for log in [-1.0, 0.0, 0.2] {
                let step = 1e-5;
                let expected = (curve.at(log + step) - curve.at(log - step)) / (2.0 * step);
                let apart = (curve.derivative(log) - expected).abs();
                assert!(apart < 1e-8 * (1.0 + expected.abs()), "{}, {log}: {apart:e}", loss.name());
            }
        }
    }

    /// Where a derivative is zero, found from a place, and how often it was asked.
    fn found(from: f64, close: f64, derivative: impl Fn(f64) -> f64) -> (Option<f64>, usize) {
        let mut asked = 0;
        let found = valley(80.0, close, from, |u| {
            asked += 1;
            Ok(derivative(u))
        });
        (found.unwrap(), asked)
    }

    #[test]
    fn a_valley_is_found_from_far_away() {
        // Nearly flat on one side, as a negative binomial with a small φ is.
        let flat = |u: f64| (u - 3.0).exp().min(1.0) * 1e-3 - 1e-3 * (-2f64).exp();
        // Steep, and out of range.
        let steep = |u: f64| if u > 20.0 { f64::NAN } else { (3.0 * u).exp() - 1e4 };
        // Steeper where one comes from than anything near the zero.
        let tall = |u: f64| (3.0 * u).exp() + 0.2 * u.exp() - 4.0;
        let level = |u: f64| (u - 0.3).tanh();
        let derivatives: [(&dyn Fn(f64) -> f64, f64); 4] = [
            (&flat, 1.0),
            (&steep, 1e4f64.ln() / 3.0),
            (&tall, 0.435_291_668_287_944),
            (&level, 0.3),
        ];
        for (n, (derivative, expected)) in derivatives.into_iter().enumerate() {
            for from in [-40.0, -30.0, 0.0, 1.5, 6.0, 18.0] {
                for close in [1e-6, 1e-13] {
                    let (place, asked) = found(from, close, derivative);
                    let apart = (place.unwrap() - expected).abs();
                    assert!(apart <= close.max(1e-14), "{n}, {from}, {close}: {apart:e}");
                    assert!(asked <= 30, "{n}, {from}, {close}: {asked}");
                }
            }
        }
        assert_eq!(found(0.0, 1e-6, |_| 1.0).0, None);
    }

    #[test]
    fn noise_does_not_hold_the_search_up() {
        // What single precision leaves of a derivative.
        let noisy = |u: f64| f64::from((u.exp() - 1.25) as f32 + 1.0) - 1.0;
        let (place, asked) = found(3.0, 1e-13, noisy);
        assert!((place.unwrap() - 1.25f64.ln()).abs() < 1e-6 && asked <= 60, "{asked}");
    }
}
