//! The scale of a start that is penalised.

use ndarray::ArrayD;

use crate::constraints::Constraints;
use crate::factors::check_factor;
use nneinfact_core::algebra::balance::balance;
use nneinfact_core::engine::Engine;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Loss, Majorizer, Penalty};
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::Balancing;

/// Cycles of balancing before a fit starts, at most: each lowers the penalty, and they converge
/// linearly.
const CYCLES: usize = 200;
/// Passes over the data between two scales, for losses whose dependence on it has no closed form: enough
/// to halve any bracket down to what is close.
const ROUNDS: usize = 60;
/// The logarithm of the first scale that is tried for such losses; those after it are ever further off.
const FIRST: f64 = 0.25;
/// Logarithms of scales that are as close as this are the same.
const CLOSE: f64 = 1e-6;
/// The logarithms of scales that are compared, and how many of them.
const REACH: f64 = 80.0;
const SCALES: usize = 8_000;

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
    balance(shapes, balancing, penalties, &mut all, CYCLES);
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
pub(crate) fn rescale(
    constraints: &Constraints,
    start: &mut [ArrayD<f64>],
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
    let reach = REACH / data.most();
    let Some(alone) = valley(reach, 0.0, |log| Ok(go(log, start)?[0].derivative()))? else {
        go(0.0, start)?;
        return Ok(None);
    };
    if let Some(log) = valley(reach, alone, |log| Ok(go(log, start)?[1].derivative()))? {
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
/// it falls as far as `reach` from 0.
fn valley(
    reach: f64,
    from: f64,
    mut derivative: impl FnMut(f64) -> Result<f64>,
) -> Result<Option<f64>> {
    let first = derivative(from)?;
    if first == 0.0 || first.is_nan() {
        return Ok(Some(from));
    }
    // With the sign that makes the first derivative negative, and the other side's positive.
    let sign = -first.signum();
    let (mut near, mut step) = ((from, -first.abs()), FIRST);
    let mut far = loop {
        let next = near.0 + sign * step;
        if next.abs() > reach {
            return Ok(None);
        }
        let value = sign * derivative(next)?;
        // Out of range is too far.
        if value.is_nan() || value >= 0.0 {
            break (next, if value.is_finite() { value } else { f64::INFINITY });
        }
        near = (next, value);
        step *= 2.0;
    };
    // False position (Illinois), which halves the bracket where that is not done otherwise.
    let mut width = f64::INFINITY;
    let mut nears = [near.1, far.1];
    for _ in 0..ROUNDS {
        let apart = far.0 - near.0;
        if apart.abs() <= CLOSE {
            break;
        }
        let guess = near.0 - nears[0] * apart / (nears[1] - nears[0]);
        let slow = apart.abs() > 0.5 * width;
        let inside = (guess - near.0) * (far.0 - guess) > 0.0;
        let next = if inside && !slow { guess } else { near.0 + 0.5 * apart };
        width = apart.abs();
        let value = sign * derivative(next)?;
        if value.abs() <= 1e-7 * first.abs() {
            return Ok(Some(next));
        }
        if value < 0.0 {
            near = (next, value);
            nears = [value, 0.5 * nears[1]];
        } else {
            far = (next, if value.is_finite() { value } else { f64::INFINITY });
            nears = [0.5 * nears[0], far.1];
        }
    }
    Ok(Some(if -near.1 <= far.1 { near.0 } else { far.0 }))
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

    /// The derivative at 0, which is exact.
    fn derivative(&self) -> f64 {
        let data = |term: &Term| {
            let [a, b] = term.sums;
            let derivative = match term.loss.majorizer() {
                Majorizer::Power { .. } => b - a,
                Majorizer::Log => -a,
            };
            term.weight * term.factors * term.loss.curvature_constant() * derivative
        };
        self.terms.iter().map(data).sum::<f64>()
            + self.parts.iter().map(|(penalty, value)| penalty.power() * value).sum::<f64>()
    }

    /// The rise from a scale of 1.
    fn at(&self, log: f64) -> f64 {
        let data = |term: &Term| {
            let lambda = (term.factors * log).exp();
            let curvature = term.loss.curvature_constant();
            let [a, b] = term.sums;
            let rise = match (term.loss.majorizer(), term.loss.homogeneity()) {
                (Majorizer::Power { .. }, Some(degree)) => {
                    // a and b as they depend on ŷ: x^α ŷ^(β−1) and ŷ^(α+β−1).
                    let beta = degree - 1.0 / curvature;
                    Majorizer::Power { p_a: beta - 1.0, p_b: degree - 1.0 }.rise(a, b, lambda)
                }
                (majorizer, _) => majorizer.rise(a, b, lambda),
            };
            term.weight * curvature * rise
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
        let (mut low, mut high) = (log(least - 1), log((least + 1).min(SCALES)));
        for _ in 0..100 {
            let (left, right) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
            if self.at(left) <= self.at(right) { high = right } else { low = left }
        }
        Some(0.5 * (low + high))
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
        assert!((4.0 * s.powi(3) - 6.0 * s + 0.5).abs() < 1e-6, "{s}");
        assert!(curve(100.0).lowest().is_none());
    }

    #[test]
    fn a_valley_is_found_from_far_away() {
        let find = |from: f64, derivative: fn(f64) -> f64| {
            let mut asked = 0;
            let found = valley(80.0, from, |u| {
                asked += 1;
                Ok(derivative(u))
            });
            assert!(asked < 50, "{asked}");
            found.unwrap()
        };
        // Nearly flat on one side, as a negative binomial with a small φ is.
        let flat = |u: f64| (u - 3.0).exp().min(1.0) * 1e-3 - 1e-3 * (-2f64).exp();
        for from in [-30.0, 0.0, 1.0, 6.0, 30.0] {
            let found = find(from, flat).unwrap();
            assert!((found - 1.0).abs() < 1e-3, "{from}: {found}");
        }
        // Steep, and out of range.
        let steep = |u: f64| if u > 20.0 { f64::NAN } else { (3.0 * u).exp() - 1e4 };
        let found = find(-40.0, steep).unwrap();
        assert!((found - 1e4f64.ln() / 3.0).abs() < 1e-3, "{found}");
        assert_eq!(find(0.0, |_| 1.0), None);
    }
}
