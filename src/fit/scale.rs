//! The scale of a start that is penalised.

use ndarray::ArrayD;

use super::rules::{Rules, checked};
use crate::engine::Engine;
use crate::engine::cpu::balance;
use crate::error::{Error, Result};
use crate::loss::{Loss, Majorizer, Penalty};
use crate::model::Shapes;
use crate::plan::{Balancing, Plan};

/// Cycles of balancing before a fit starts, at most: each lowers the penalty, and they converge
/// linearly.
const CYCLES: usize = 200;
/// Passes over the data for losses whose dependence on a common scale has no closed form.
const ROUNDS: usize = 25;
/// The logarithms of scales that are compared.
const REACH: f64 = 80.0;
const GRID: usize = 8_000;

/// Brings factors to the division of scale among them that has the least penalty, ŷ staying as it is:
/// what [`Balance::AtStart`](super::Balance::AtStart) does. Factors without a penalty, or with one of
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
        checked(shapes, l, factor, &format!("theta_{}", l + 1))?;
    }
    if let Some(problem) = penalties.iter().flatten().find_map(|penalty| penalty.problem()) {
        return Err(Error::Setting(problem));
    }
    let penalties: Vec<Option<Penalty>> =
        penalties.iter().map(|p| p.filter(|penalty| penalty.weight() > 0.0)).collect();
    let trading: Vec<usize> = (0..count).filter(|&l| penalties[l].is_some()).collect();
    let balancing = Balancing::new(shapes.model(), &trading);
    Ok(on_host(shapes, &balancing, &penalties, factors))
}

/// Balances a start before a device has it.
pub(super) fn start(shapes: &Shapes, rules: &Rules, start: &mut Vec<ArrayD<f64>>) {
    if let Some(balancing) = &rules.balancing {
        *start = on_host(shapes, balancing, &rules.penalties(), start);
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

/// Brings a start to the scale, one for all factors that are free and unbounded, at which the
/// penalised objective is least. A warning where that would be zero: then the scale is the one that
/// suits the data alone.
pub(super) fn rescale(
    engine: &mut dyn Engine,
    plan: &Plan,
    loss: &Loss,
    rules: &Rules,
    start: &mut [ArrayD<f64>],
) -> Result<Option<String>> {
    let free: Vec<usize> = (0..start.len()).filter(|&l| rules.scales(l)).collect();
    if free.is_empty() || plan.groups().is_empty() {
        return Ok(None);
    }
    let mut warning = None;
    for _ in 0..ROUNDS {
        engine.pass(0)?;
        engine.sums()?;
        let [a, b] = engine.scale_terms()?;
        let parts: Vec<(Penalty, f64)> = free
            .iter()
            .filter_map(|&l| {
                let penalty = rules.rules[l].penalty?;
                Some((penalty, start[l].iter().map(|&x| penalty.value(x)).sum::<f64>()))
            })
            .collect();
        let curve = Curve { loss, a, b, factors: free.len() as f64, parts };
        let log = match curve.lowest() {
            Some(log) => log,
            None => {
                warning = Some(
                    "with penalties this large a model that is zero everywhere would be best at the start's shape: the start is at the scale that suits the data alone"
                        .to_string(),
                );
                let data = Curve { parts: Vec::new(), ..curve };
                data.lowest().unwrap_or(0.0)
            }
        };
        let scale = log.exp();
        free.iter().for_each(|&l| start[l].mapv_inplace(|x| x * scale));
        engine.load(start)?;
        if is_exact(loss) || log.abs() < 3e-4 {
            break;
        }
    }
    Ok(warning)
}

/// Whether the loss at ŷ times λ follows from one pass.
fn is_exact(loss: &Loss) -> bool {
    loss.homogeneity().is_some() && matches!(loss.majorizer(), Majorizer::Power { .. })
}

/// The objective against ln of the scale of each factor, up to a constant.
struct Curve<'a> {
    loss: &'a Loss,
    /// Σ W a ŷ and Σ W b ŷ.
    a: f64,
    b: f64,
    /// How many factors are scaled.
    factors: f64,
    /// Their penalties, with the values that they have.
    parts: Vec<(Penalty, f64)>,
}

impl Curve<'_> {
    /// The rise from a scale of 1.
    fn at(&self, log: f64) -> f64 {
        let lambda = (self.factors * log).exp();
        let slope = self.loss.slope();
        let data = match (self.loss.majorizer(), self.loss.homogeneity()) {
            (Majorizer::Power { .. }, Some(degree)) => {
                // a and b as they depend on ŷ: x^α ŷ^(β−1) and ŷ^(α+β−1).
                let beta = degree - 1.0 / slope;
                Majorizer::Power { p_a: beta - 1.0, p_b: degree - 1.0 }.rise(self.a, self.b, lambda)
            }
            (majorizer, _) => majorizer.rise(self.a, self.b, lambda),
        };
        let rise =
            |(penalty, value): &(Penalty, f64)| value * ((penalty.power() * log).exp() - 1.0);
        slope * data + self.parts.iter().map(rise).sum::<f64>()
    }

    /// The logarithm of the scale of least objective; `None` where the objective is less at zero.
    fn lowest(&self) -> Option<f64> {
        let log = |i: usize| (2.0 * i as f64 / GRID as f64 - 1.0) * REACH / self.factors;
        let values: Vec<f64> = (0..=GRID).map(|i| self.at(log(i))).collect();
        let usable = |i: &usize| values[*i].is_finite();
        let least = (0..=GRID).filter(usable).min_by(|&i, &j| values[i].total_cmp(&values[j]))?;
        if least == 0 {
            return None;
        }
        let (mut low, mut high) = (log(least - 1), log((least + 1).min(GRID)));
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
        let curve = |weight: f64| Curve {
            loss: &loss,
            a: 3.0,
            b: 2.0,
            factors: 2.0,
            parts: vec![(Penalty::l1(1.0), weight)],
        };
        let log = curve(0.5).lowest().unwrap();
        let s = log.exp();
        assert!((4.0 * s.powi(3) - 6.0 * s + 0.5).abs() < 1e-6, "{s}");
        assert!(curve(100.0).lowest().is_none());
    }
}
