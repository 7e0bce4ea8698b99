//! The constraints on factors: penalties, bounds, fixed values.

use ndarray::{ArrayD, Axis};

use crate::factored::mean;
use crate::factors::check_factor;
use crate::settings::{FactorSetting, Settings};
use crate::structure::{Roughness, Simplex, Structure, ties};
use nneinfact_core::data::{Outside, Prepared, digest};
use nneinfact_core::engine::Constraint;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::Penalty;
use nneinfact_core::model::{Model, Shapes};
use nneinfact_core::plan::Balancing;

/// What the settings ask of the factors, checked.
#[derive(Clone)]
pub(crate) struct Constraints {
    /// For each factor of the model. Of factors that are the same only the first one has a penalty, so
    /// that it counts once.
    pub each: Vec<Constraint>,
    /// Ties, smooth modes, rows that add up to 1.
    pub structure: Structure,
    /// The values of factors that are fixed.
    fixed: Vec<Option<ArrayD<f64>>>,
    /// The rescaling among the penalised factors; `None` where there is none to do.
    pub balancing: Option<Balancing>,
}

impl Constraints {
    pub fn new(settings: &Settings, shapes: &Shapes) -> Result<Constraints> {
        let model = shapes.model();
        let count = model.factors().len();
        let mut each = vec![Constraint::default(); count];
        let mut fixed: Vec<Option<ArrayD<f64>>> = vec![None; count];
        let mut own = vec![false; count];
        let mut structure = Structure::none(count);
        structure.ties = ties::first_of_each(model, &settings.ties)?;
        ties::check_sizes(&structure.ties, shapes)?;
        for (name, setting) in &settings.factor_settings {
            // Letters are those of the factor as it was called.
            let called = model.factor_named(name)?;
            let l = structure.ties[called];
            let refuse = |what: String| {
                Err(Error::Setting(format!("factor {} ({}): {what}", l + 1, model.factor_name(l))))
            };
            match setting {
                FactorSetting::Penalty(penalty) => {
                    if let Some(problem) = penalty.problem() {
                        return refuse(problem);
                    }
                    own[l] = true;
                    each[l].penalty = Some(*penalty);
                }
                &FactorSetting::Bounds(lower, upper) => {
                    if !(lower >= 0.0 && lower.is_finite() && upper > 0.0 && lower <= upper) {
                        return refuse(format!(
                            "bounds are two numbers from 0 on, the first finite and not above the second, which is not 0; not {lower} and {upper}"
                        ));
                    }
                    (each[l].lower, each[l].upper) = (lower, upper);
                }
                FactorSetting::Fixed(values) => {
                    each[l].fixed = true;
                    check_factor(
                        shapes,
                        l,
                        values,
                        &format!("the fixed factor {}", model.factor_name(l)),
                    )?;
                    fixed[l] = Some(values.clone());
                }
                FactorSetting::Smooth(smooth) => {
                    let roughness = structure.roughness[l].get_or_insert_with(Roughness::default);
                    roughness.add(shapes, called, smooth)?;
                }
                FactorSetting::Simplex(letters) => {
                    let simplex = Simplex::new(shapes, called, letters.as_deref())?;
                    structure.simplex[l] = Some(simplex);
                }
            }
        }
        if let Some(problem) = settings.penalty.and_then(Penalty::problem) {
            return Err(Error::Setting(problem));
        }
        for (l, constraint) in each.iter_mut().enumerate() {
            if constraint.fixed {
                check_fixed(constraint, &structure, l, model)?;
            } else if !own[l] {
                constraint.penalty = settings.penalty;
            }
            constraint.penalty = constraint.penalty.filter(|penalty| penalty.weight() > 0.0);
        }
        share(&mut each, &mut fixed, &mut structure, model)?;
        let rescaled: Vec<usize> = (0..count)
            .filter(|&l| each[l].penalty.is_some() && each[l].is_unbounded())
            .filter(|&l| structure.is_free(l))
            .collect();
        let balancing = Some(Balancing::new(model, &rescaled)).filter(|b| !b.is_empty());
        Ok(Constraints { each, structure, fixed, balancing })
    }

    /// The same constraints beside sums of losses that are divided by this.
    pub fn rescaled(mut self, sums_unit: f64) -> Constraints {
        for constraint in &mut self.each {
            constraint.penalty = constraint.penalty.map(|p| p.rescaled(1.0, sums_unit));
        }
        for roughness in &mut self.structure.roughness {
            *roughness = roughness.take().map(|roughness| roughness.rescaled(sums_unit));
        }
        self
    }

    /// Whether entries have penalties of their own.
    pub fn is_penalized(&self) -> bool {
        self.each.iter().any(|constraint| constraint.penalty.is_some())
    }

    /// Whether what is lowered is more than the losses.
    pub fn has_penalties(&self) -> bool {
        self.is_penalized() || self.structure.roughness.iter().any(Option::is_some)
    }

    /// What holds for a factor, in words.
    pub fn describe(&self, l: usize) -> String {
        let Constraint { penalty, lower, upper, .. } = self.each[l];
        if let Some(values) = &self.fixed[l] {
            return format!("fixed {:016x}", digest(values.iter().map(|x| x.to_bits())));
        }
        let bounds = match self.each[l].is_unbounded() {
            true => String::new(),
            false => format!(", from {lower} to {upper}"),
        };
        let more = self.structure.describe(l);
        match penalty {
            Some(penalty) => format!("l{}={}{bounds}{more}", penalty.power(), penalty.weight()),
            None => format!("no penalty{bounds}{more}"),
        }
    }

    pub fn penalties(&self) -> Vec<Option<Penalty>> {
        self.each.iter().map(|constraint| constraint.penalty).collect()
    }

    /// Whether the scale of a factor is free.
    pub fn scales(&self, l: usize) -> bool {
        !self.each[l].fixed && self.each[l].is_unbounded()
    }

    /// What the user should know.
    pub fn warnings(&self, shapes: &Shapes) -> Vec<String> {
        let all = |which: fn(&Constraints, usize) -> bool| -> Vec<usize> {
            let firsts = (0..self.each.len()).filter(|&l| self.structure.ties[l] == l);
            firsts.filter(|&l| which(self, l)).collect()
        };
        let [falling, loose] = [all(Constraints::can_vanish), all(Constraints::is_loose)];
        match falling.is_empty() || loose.is_empty() {
            true => Vec::new(),
            false => vec![void(shapes, &falling, &loose)],
        }
    }

    /// Fixed factors that leave the model no way to data that are positive: ŷ is 0 wherever an
    /// observed index has a value at which such a factor is 0.
    pub fn dead(&self, shapes: &Shapes, data: &Prepared) -> Vec<String> {
        let all = self.zero_slices(shapes.model()).into_iter();
        let found = all.filter_map(|slices| {
            let outside = slices.out_of_reach(data, None)?;
            Some(slices.warning(shapes.model(), outside.count, &outside.index))
        });
        found.collect()
    }

    /// The modes along which a fixed factor is zero at some values.
    pub fn zero_slices(&self, model: &Model) -> Vec<ZeroSlices> {
        let mut found = Vec::new();
        for (l, values) in self.fixed.iter().enumerate() {
            let Some(values) = values else { continue };
            for (axis, &index) in model.factors()[l].iter().enumerate() {
                let Some(mode) = model.output().iter().position(|&x| x == index) else { continue };
                let slices = values.axis_iter(Axis(axis));
                let zero: Vec<bool> = slices.map(|s| s.iter().all(|&x| x == 0.0)).collect();
                if zero.contains(&true) {
                    found.push(ZeroSlices { factor: l, mode, zero });
                }
            }
        }
        found
    }

    /// Whether a factor has a penalty that nothing keeps from going to 0.
    pub fn can_vanish(&self, l: usize) -> bool {
        self.costs(l) && self.each[l].lower == 0.0 && self.structure.simplex[l].is_none()
    }

    /// Whether a factor, or the one that it is the same as, has a penalty.
    fn costs(&self, l: usize) -> bool {
        let first = self.structure.ties[l];
        self.each[first].penalty.is_some() || self.structure.roughness[first].is_some()
    }

    /// Whether a factor can take any scale, at no cost. A lower bound does not keep it from growing.
    pub fn is_loose(&self, l: usize) -> bool {
        let Constraint { upper, fixed, .. } = self.each[l];
        !fixed && upper == f64::INFINITY && !self.costs(l)
    }

    /// Makes the factors the same that are tied.
    pub fn tie(&self, factors: &mut [ArrayD<f64>]) {
        for (l, &first) in self.structure.ties.iter().enumerate() {
            if first != l {
                factors[l] = factors[first].clone();
            }
        }
    }

    /// Puts the fixed values in, brings the others inside their bounds, and makes those the same that are
    /// tied. A start that was made, and not given, gets back the mean of ŷ that it had.
    ///
    /// # Errors
    /// [`Error::Memory`] where that mean takes more memory than there is; [`Error::Init`] where tied
    /// factors are given and differ.
    pub fn apply(&self, shapes: &Shapes, start: &mut [ArrayD<f64>], made: bool) -> Result<()> {
        let before = if made { mean(shapes, start)? } else { 0.0 };
        let mut changed = false;
        for (l, factor) in start.iter_mut().enumerate() {
            if let Some(values) = &self.fixed[l] {
                factor.clone_from(values);
                changed = true;
            } else if let Some(simplex) = &self.structure.simplex[l] {
                // No entry is above its bound of 1 then, and none was cut on the way.
                simplex.normalize_array(factor);
                changed = true;
            } else if !self.each[l].is_unbounded() {
                let Constraint { lower, upper, .. } = self.each[l];
                factor.mapv_inplace(|x| x.max(lower).min(upper));
                changed = true;
            }
        }
        for (l, &first) in self.structure.ties.iter().enumerate().filter(|(l, first)| l != *first) {
            if !made && start[l] != start[first] {
                return Err(Error::Init(format!(
                    "the factors {} and {} are tied, but those to start from are not the same",
                    first + 1,
                    l + 1
                )));
            }
            start[l] = start[first].clone();
            changed = true;
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

/// Refuses what a factor that is fixed cannot have.
fn check_fixed(
    constraint: &Constraint,
    structure: &Structure,
    l: usize,
    model: &Model,
) -> Result<()> {
    let what = match constraint {
        Constraint { penalty: Some(_), .. } => "a penalty",
        _ if !constraint.is_unbounded() => "bounds",
        _ if structure.roughness[l].is_some() => "a smooth mode",
        _ if structure.simplex[l].is_some() => "rows that are to add up to 1",
        _ => return Ok(()),
    };
    Err(Error::Setting(format!(
        "factor {} ({}) is fixed and has {what}: give one or the other",
        l + 1,
        model.factor_name(l)
    )))
}

/// Gives factors what holds for those that they are the same as, and refuses what does not go together.
fn share(
    each: &mut [Constraint],
    fixed: &mut [Option<ArrayD<f64>>],
    structure: &mut Structure,
    model: &Model,
) -> Result<()> {
    for l in 0..each.len() {
        structure.roughness[l] = structure.roughness[l].take().filter(|r| !r.is_empty());
        if structure.simplex[l].is_some() {
            if !each[l].is_unbounded() {
                return Err(Error::Setting(format!(
                    "factor {} ({}) has bounds, and rows that are to add up to 1: give one or the other",
                    l + 1,
                    model.factor_name(l)
                )));
            }
            // No entry is larger.
            each[l].upper = 1.0;
        }
        let first = structure.ties[l];
        if first < l {
            each[l] = Constraint { penalty: None, ..each[first] };
            fixed[l] = fixed[first].clone();
        }
    }
    Ok(())
}

/// Where a fixed factor is zero along a mode of the data.
pub(crate) struct ZeroSlices {
    factor: usize,
    mode: usize,
    /// For each index of the mode.
    zero: Vec<bool>,
}

impl ZeroSlices {
    /// The positive entries of data that no model with such a factor reaches. Of a slab along a mode,
    /// `slab` has that mode and where the slab begins.
    pub fn out_of_reach(&self, data: &Prepared, slab: Option<(usize, usize)>) -> Option<Outside> {
        let (shape, mode) = (data.shape(), self.mode);
        let first = slab.filter(|(along, _)| *along == mode).map_or(0, |(_, first)| first);
        let after: usize = shape[mode + 1..].iter().product();
        data.first_outside(|x, at| {
            let hit = self.zero.get(first + at / after % shape[mode]).is_some_and(|&zero| zero);
            x <= 0.0 || !hit
        })
    }

    pub fn warning(&self, model: &Model, count: u64, index: &[usize]) -> String {
        format!(
            "factor {} ({}), which is fixed, is zero at some values of {} where the data are not: the model cannot reach {count} positive entries, the first at index {index:?}",
            self.factor + 1,
            model.factor_name(self.factor),
            char::from(model.output()[self.mode]),
        )
    }
}

/// That the penalty on some factors is void, as others are loose.
pub(crate) fn void(shapes: &Shapes, penalized: &[usize], loose: &[usize]) -> String {
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
pub(crate) fn vanished(factors: &[ArrayD<f64>], predicted: f64, data: f64) -> Option<String> {
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

/// The factors that settings fix, whatever their values, with those that are the same.
pub(crate) fn fixed(settings: &Settings) -> Result<Vec<usize>> {
    let first = ties::first_of_each(&settings.model, &settings.ties)?;
    let fixed = settings
        .factor_settings
        .iter()
        .filter(|(_, setting)| matches!(setting, FactorSetting::Fixed(_)));
    let fixed: Result<Vec<usize>> =
        fixed.map(|(name, _)| Ok(first[settings.model.factor_named(name)?])).collect();
    let fixed = fixed?;
    Ok((0..first.len()).filter(|&l| fixed.contains(&first[l])).collect())
}
