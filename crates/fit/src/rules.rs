//! What holds for factors besides the data: penalties, bounds, values that are given.

use ndarray::ArrayD;

use super::builder::NNEinFact;
use super::start::total;
use nneinfact_core::data::digest;
use nneinfact_core::engine::Constraint;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::Penalty;
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::Balancing;

/// When the factors of a penalised fit trade scale among each other.
///
/// ŷ does not tell how its scale is divided among the factors, but penalties do: balancing brings
/// every set of factors that can trade scale to the division of least penalty, leaving ŷ as it is. It
/// costs next to nothing, and without it a fit can be stuck for thousands of sweeps at a division
/// that it started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Balance {
    /// Never, and the start is taken at the scale that it has.
    Never,
    /// Before the first sweep; then the scale of the start is the one of least penalised objective.
    AtStart,
    /// Before the first sweep and after every sweep.
    #[default]
    EverySweep,
}

/// A wish for one factor, by its name.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Penalty(Penalty),
    Bounds(f64, f64),
    Fixed(ArrayD<f64>),
}

/// The wishes, checked.
#[derive(Clone)]
pub(super) struct Constraints {
    /// For each factor of the model.
    pub rules: Vec<Constraint>,
    /// The values of those that are fixed.
    given: Vec<Option<ArrayD<f64>>>,
    /// The trades among the penalised factors; `None` where there are none to make.
    pub balancing: Option<Balancing>,
}

impl Constraints {
    pub fn new(settings: &NNEinFact, shapes: &Shapes) -> Result<Constraints> {
        let model = shapes.model();
        let count = model.factors().len();
        let mut rules = vec![Constraint::default(); count];
        let mut given: Vec<Option<ArrayD<f64>>> = vec![None; count];
        let mut own = vec![false; count];
        for (name, wish) in &settings.wishes {
            let l = model.factor_named(name)?;
            let refuse = |what: String| {
                Err(Error::Setting(format!("factor {} ({}): {what}", l + 1, model.factor_name(l))))
            };
            match wish {
                Wish::Penalty(penalty) => {
                    if let Some(problem) = penalty.problem() {
                        return refuse(problem);
                    }
                    own[l] = true;
                    rules[l].penalty = Some(*penalty);
                }
                &Wish::Bounds(lower, upper) => {
                    if !(lower >= 0.0 && lower.is_finite() && upper > 0.0 && lower <= upper) {
                        return refuse(format!(
                            "bounds are two numbers from 0 on, the first finite and not above the second, which is not 0; not {lower} and {upper}"
                        ));
                    }
                    (rules[l].lower, rules[l].upper) = (lower, upper);
                }
                Wish::Fixed(values) => {
                    rules[l].fixed = true;
                    checked(
                        shapes,
                        l,
                        values,
                        &format!("the fixed factor {}", model.factor_name(l)),
                    )?;
                    given[l] = Some(values.clone());
                }
            }
        }
        if let Some(problem) = settings.penalty.and_then(Penalty::problem) {
            return Err(Error::Setting(problem));
        }
        for (l, rule) in rules.iter_mut().enumerate() {
            let refuse = |what: &str| {
                Err(Error::Setting(format!(
                    "factor {} ({}) is fixed and has {what}: give one or the other",
                    l + 1,
                    model.factor_name(l)
                )))
            };
            match rule {
                Constraint { fixed: true, penalty: Some(_), .. } => return refuse("a penalty"),
                Constraint { fixed: true, .. } if !rule.is_unbounded() => return refuse("bounds"),
                Constraint { fixed: true, .. } => {}
                _ if !own[l] => rule.penalty = settings.penalty,
                _ => {}
            }
            rule.penalty = rule.penalty.filter(|penalty| penalty.weight() > 0.0);
        }
        let trading: Vec<usize> =
            (0..count).filter(|&l| rules[l].penalty.is_some() && rules[l].is_unbounded()).collect();
        let balancing = Some(Balancing::new(model, &trading)).filter(|b| !b.is_empty());
        Ok(Constraints { rules, given, balancing })
    }

    pub fn is_penalized(&self) -> bool {
        self.rules.iter().any(|rule| rule.penalty.is_some())
    }

    /// What holds for a factor, in words.
    pub fn describe(&self, l: usize) -> String {
        let Constraint { penalty, lower, upper, .. } = self.rules[l];
        if let Some(values) = &self.given[l] {
            return format!("fixed {:016x}", digest(values.iter().map(|x| x.to_bits())));
        }
        let bounds = match self.rules[l].is_unbounded() {
            true => String::new(),
            false => format!(", from {lower} to {upper}"),
        };
        match penalty {
            Some(penalty) => format!("l{}={}{bounds}", penalty.power(), penalty.weight()),
            None => format!("no penalty{bounds}"),
        }
    }

    pub fn penalties(&self) -> Vec<Option<Penalty>> {
        self.rules.iter().map(|rule| rule.penalty).collect()
    }

    /// Whether the scale of a factor is free.
    pub fn scales(&self, l: usize) -> bool {
        !self.rules[l].fixed && self.rules[l].is_unbounded()
    }

    /// What the user should know.
    pub fn warnings(&self, shapes: &Shapes) -> Vec<String> {
        let all = |which: fn(&Constraints, usize) -> bool| -> Vec<usize> {
            (0..self.rules.len()).filter(|&l| which(self, l)).collect()
        };
        let [falling, loose] = [all(Constraints::can_vanish), all(Constraints::is_loose)];
        match falling.is_empty() || loose.is_empty() {
            true => Vec::new(),
            false => vec![void(shapes, &falling, &loose)],
        }
    }

    /// Whether a factor has a penalty that nothing keeps from going to 0.
    pub fn can_vanish(&self, l: usize) -> bool {
        self.rules[l].penalty.is_some() && self.rules[l].lower == 0.0
    }

    /// Whether a factor can take any scale, at no cost. A lower bound does not keep it from growing.
    pub fn is_loose(&self, l: usize) -> bool {
        let Constraint { penalty, upper, fixed, .. } = self.rules[l];
        !fixed && upper == f64::INFINITY && penalty.is_none()
    }

    /// Puts the given values in, and brings the others inside their bounds. A start that was made, and
    /// not given, gets back the mean of ŷ that it had.
    ///
    /// # Errors
    /// [`Error::Memory`] where that mean takes more memory than there is.
    pub fn place(&self, shapes: &Shapes, start: &mut [ArrayD<f64>], made: bool) -> Result<()> {
        let before = if made { mean(shapes, start)? } else { 0.0 };
        let mut changed = false;
        for (l, factor) in start.iter_mut().enumerate() {
            if let Some(values) = &self.given[l] {
                factor.clone_from(values);
                changed = true;
            } else if !self.rules[l].is_unbounded() {
                let Constraint { lower, upper, .. } = self.rules[l];
                factor.mapv_inplace(|x| x.max(lower).min(upper));
                changed = true;
            }
        }
        if !(made && changed) {
            return Ok(());
        }
        let free: Vec<usize> = (0..start.len()).filter(|&l| self.scales(l)).collect();
        let scale = (before / mean(shapes, start)?).powf(1.0 / free.len().max(1) as f64);
        if scale > 0.0 && scale.is_finite() {
            free.into_iter().for_each(|l| start[l].mapv_inplace(|x| x * scale));
        }
        Ok(())
    }
}

/// That the penalty on some factors is void, as others are loose.
pub(super) fn void(shapes: &Shapes, penalized: &[usize], loose: &[usize]) -> String {
    let names = |which: &[usize]| -> String {
        let model = shapes.model();
        let names = which.iter().map(|&l| format!("{} ({})", l + 1, model.factor_name(l)));
        names.collect::<Vec<String>>().join(", ")
    };
    format!(
        "the penalty on factor {} is void in the long run: its scale can go over to factor {}, which has none, at no cost; penalise all factors, or fix or bound the others",
        names(penalized),
        names(loose)
    )
}

/// What to say of a penalised fit whose model ended at zero: ŷ has this mean, the data that one.
pub(super) fn vanished(factors: &[ArrayD<f64>], predicted: f64, data: f64) -> Option<String> {
    if predicted > VANISHED * data || data <= 0.0 {
        return None;
    }
    let zero = |factor: &ArrayD<f64>| factor.iter().all(|&x| x == 0.0);
    let zeros: Vec<String> =
        (0..factors.len()).filter(|&l| zero(&factors[l])).map(|l| (l + 1).to_string()).collect();
    let which = match zeros.as_slice() {
        [] => String::new(),
        zeros => format!(" (factor {} is)", zeros.join(", ")),
    };
    Some(format!(
        "the model ended at zero everywhere{which}: the penalties outweigh the data, and what is zero does not come back; lower their weights"
    ))
}

/// A model whose mean is a smaller share of that of the data than this is zero.
const VANISHED: f64 = 1e-12;

/// Checks a factor that was given: `what` as in "theta_1 of the start".
pub(super) fn checked(shapes: &Shapes, l: usize, factor: &ArrayD<f64>, what: &str) -> Result<()> {
    let expected = shapes.factor(l);
    if factor.shape() != expected {
        return Err(Error::Shape {
            what: what.into(),
            found: format!("{:?}", factor.shape()),
            expected: format!(
                "{expected:?}, the sizes of its letters {} in {}",
                shapes.model().factor_name(l),
                shapes.model()
            ),
        });
    }
    entries(factor, what)
}

/// Refuses entries that no factor can have, and a factor without any mass.
pub(super) fn entries(factor: &ArrayD<f64>, what: &str) -> Result<()> {
    let bad = factor.indexed_iter().find(|(_, x)| !(x.is_finite() && **x >= 0.0));
    if let Some((index, x)) = bad {
        return Err(Error::Init(format!(
            "{what} is {x} at index {:?}: factors must be finite and at least 0",
            ndarray::Dimension::slice(&index)
        )));
    }
    if factor.iter().all(|&x| x == 0.0) {
        return Err(Error::Init(format!(
            "{what} is zero everywhere: the model would be zero and stay so"
        )));
    }
    Ok(())
}

/// The mean of ŷ over all cells.
pub(super) fn mean(shapes: &Shapes, factors: &[ArrayD<f64>]) -> Result<f64> {
    let data: Vec<Vec<f64>> = factors.iter().map(|f| f.iter().copied().collect()).collect();
    Ok(total(shapes, &data)? / shapes.volume(shapes.model().observed()))
}

/// The factors that settings fix, whatever their values.
pub(super) fn fixed(settings: &NNEinFact) -> Result<Vec<usize>> {
    let fixed = settings.wishes.iter().filter(|(_, wish)| matches!(wish, Wish::Fixed(_)));
    fixed.map(|(name, _)| Ok(settings.model.factor_named(name)?)).collect()
}
