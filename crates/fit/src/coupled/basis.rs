//! Modes of a coupled fit whose factor is a sum of smooth functions: `hr` becomes `hb,br` in every part that
//! has it, and is multiplied out again when the fit is done.

use std::sync::Arc;

use ndarray::{Array2, ArrayD};

use super::part::Part;
use super::run::Outcome;
use crate::basis::{along, refuse_start};
use crate::format;
use crate::result::Fit;
use crate::settings::{FactorSetting, Settings};
use crate::structure::Splines;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Model, Shapes};
use nneinfact_core::plan::DataInfo;

/// A factor, by its letters, that is made of two or more.
struct Split {
    /// What it is called in the user's models.
    name: String,
    /// What its coefficients are called.
    coefficients: String,
    /// For each mode with a basis the axis, the letter of the functions, and their values.
    along: Vec<(usize, char, Array2<f64>)>,
}

/// A fit in whose place another one is made, with fixed functions in factors of their own.
pub(super) struct RewrittenParts {
    pub settings: Settings,
    pub parts: Vec<Part>,
    splits: Vec<Split>,
    given: Settings,
    /// The user's models.
    models: Vec<Model>,
}

/// The fit to make in the place of one with bases.
pub(super) fn rewrite(settings: Settings, parts: Vec<Part>) -> Result<RewrittenParts> {
    refuse_start(&settings)?;
    let models: Vec<Model> = parts.iter().map(|part| part.model.clone()).collect();
    let names = |model: &Model| -> Vec<String> {
        (0..model.factors().len()).map(|l| model.factor_name(l)).collect()
    };
    let mut union: Vec<String> = Vec::new();
    for name in models.iter().flat_map(names) {
        if !union.contains(&name) {
            union.push(name);
        }
    }
    let mut splits: Vec<Split> = Vec::new();
    for &(mode, basis) in &settings.bases {
        split(&parts, &union, &mut splits, (mode, basis))?;
    }
    // Factors are called by their letters here: their numbers become others.
    let letters = |name: &String| -> Result<String> {
        let number = name.strip_prefix("theta_").and_then(|n| n.parse::<usize>().ok());
        match number {
            None => Ok(name.clone()),
            Some(n) => union.get(n.wrapping_sub(1)).cloned().ok_or_else(|| {
                Error::Setting(format!(
                    "there is no factor {name}: all models have {}",
                    union.len()
                ))
            }),
        }
    };
    let mut factor_settings = Vec::new();
    for (name, setting) in &settings.factor_settings {
        let name = letters(name)?;
        let split = splits.iter().find(|split| split.name == name);
        if split.is_some() && !matches!(setting, FactorSetting::Penalty(_)) {
            return Err(Error::Setting(format!(
                "factor {name} has a basis, and is a sum of its functions: only a penalty (on their coefficients) goes with it"
            )));
        }
        let name = split.map_or(name, |split| split.coefficients.clone());
        factor_settings.push((name, setting.clone()));
    }
    let mut ranks = settings.ranks.clone();
    for split in &splits {
        for (axis, letter, values) in &split.along {
            let name = format!("{}{letter}", &split.name[*axis..=*axis]);
            factor_settings.push((name, FactorSetting::Fixed(values.clone().into_dyn())));
            ranks.push((*letter, values.ncols()));
        }
    }
    let mut ties = settings.ties.clone();
    for name in ties.iter_mut().flatten() {
        *name = letters(name)?;
        if splits.iter().any(|split| split.name == *name) {
            return Err(Error::Setting(format!(
                "factor {name} is tied: it would be a sum of functions in one place only"
            )));
        }
    }
    let parts: Result<Vec<Part>> = parts.into_iter().map(|part| rewritten(part, &splits)).collect();
    let inner = Settings { ranks, factor_settings, ties, bases: Vec::new(), ..settings.clone() };
    Ok(RewrittenParts { settings: inner, parts: parts?, splits, given: settings, models })
}

/// Adds a mode with its functions to the factor that has it.
fn split(
    parts: &[Part],
    union: &[String],
    splits: &mut Vec<Split>,
    (mode, basis): (char, Splines),
) -> Result<()> {
    let refuse = |what: String| Err(Error::Setting(format!("the basis along {mode}: {what}")));
    let size = parts.iter().find_map(|part| {
        let at = part.model.output().iter().position(|&x| char::from(x) == mode)?;
        part.observations.shape().get(at).copied()
    });
    let Some(size) = size else {
        return refuse(format!("{mode} is not a mode of the data of any of the models"));
    };
    let holders: Vec<&String> = union.iter().filter(|name| name.contains(mode)).collect();
    let [name] = holders[..] else {
        return refuse(format!(
            "several factors have {mode} ({}): a basis is for one that is in one factor only",
            holders.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
        ));
    };
    let axis = name.chars().position(|x| x == mode).unwrap_or(0);
    let at = match splits.iter().position(|split| split.name == *name) {
        Some(at) => at,
        None => {
            let coefficients = name.clone();
            splits.push(Split { name: name.clone(), coefficients, along: Vec::new() });
            splits.len() - 1
        }
    };
    if splits[at].along.iter().any(|(other, ..)| *other == axis) {
        return refuse("it is given twice".into());
    }
    let taken = |x: char| {
        parts.iter().any(|part| part.model.text().contains(x))
            || splits.iter().any(|split| split.along.iter().any(|(_, letter, _)| *letter == x))
    };
    let Some(letter) = ('a'..='z').chain('A'..='Z').rev().find(|&x| !taken(x)) else {
        return refuse("the models have all letters that there are, and none is left".into());
    };
    let split = &mut splits[at];
    split.coefficients = split.coefficients.replace(mode, &letter.to_string());
    split.along.push((axis, letter, basis.values(size)?));
    Ok(())
}

/// A part whose factors are replaced by functions and coefficients.
fn rewritten(part: Part, splits: &[Split]) -> Result<Part> {
    let model = &part.model;
    let mut names = Vec::new();
    for l in 0..model.factors().len() {
        let name = model.factor_name(l);
        match splits.iter().find(|split| split.name == name) {
            Some(split) => {
                let functions = split.along.iter();
                names.extend(functions.map(|(axis, x, _)| format!("{}{x}", &name[*axis..=*axis])));
                names.push(split.coefficients.clone());
            }
            None => names.push(name),
        }
    }
    let output: String = model.output().iter().map(|&x| char::from(x)).collect();
    let model = Model::parse(&format!("{}->{output}", names.join(",")))?;
    Ok(Part { model, ..part })
}

impl RewrittenParts {
    /// The factors of a model of the user's, from those of `from`, the model that was fitted.
    fn factors(
        &self,
        model: &Model,
        from: &Model,
        found: &[ArrayD<f64>],
    ) -> Result<Vec<ArrayD<f64>>> {
        let mut left: Vec<(String, &ArrayD<f64>)> =
            (0..found.len()).map(|l| from.factor_name(l)).zip(found).collect();
        let mut factors = Vec::new();
        for l in 0..model.factors().len() {
            let name = model.factor_name(l);
            let split = self.splits.iter().find(|split| split.name == name);
            let wanted = split.map_or(&name, |split| &split.coefficients);
            let at = left.iter().position(|(other, _)| other == wanted).ok_or_else(|| {
                Error::Internal(format!("a fit with a basis lost its factor {wanted}"))
            })?;
            let mut factor = left.remove(at).1.clone();
            for (axis, _, values) in split.iter().flat_map(|split| &split.along) {
                factor = along(values, &factor, *axis)?;
            }
            factors.push(factor);
        }
        Ok(factors)
    }

    /// What came out, in the user's models.
    pub fn outcome(&self, found: Outcome) -> Result<Outcome> {
        let Outcome { model: inner, factors, history, parts, warnings, .. } = found;
        let structure = self.given.structure();
        let mut fits = Vec::new();
        for (model, fit) in self.models.iter().zip(parts) {
            let latent = model.latent();
            let own = |x: char| latent.iter().any(|y| char::from(y) == x);
            let ranks = fit_ranks(&fit).into_iter().filter(|(x, _)| own(*x)).collect();
            let settings = Settings { ranks, ..self.given.alike(model.clone()) };
            let shapes = Shapes::new(model, &fit.shapes().data(), &settings.ranks)?;
            let info = DataInfo::c_order(&shapes, 4);
            let plan = Arc::new(format::plan(&settings, &shapes, info, None)?);
            let own = self.factors(model, fit.model(), fit.factors())?;
            let made = Fit::new(plan, own, fit.history().clone())
                .with_warnings(fit.warnings().to_vec())
                .with_structure(structure.clone());
            fits.push(made.with_labels(Arc::clone(fit.all_labels()))?);
        }
        let all: Vec<Shapes> = fits.iter().map(|fit| fit.shapes().clone()).collect();
        let model = Shapes::union(&all)?.0.model().clone();
        let factors = self.factors(&model, &inner, &factors)?;
        Ok(Outcome { model, factors, history, parts: fits, structure, warnings })
    }
}

/// The sizes of the latent letters of a fit.
fn fit_ranks(fit: &Fit) -> Vec<(char, usize)> {
    fit.model().latent().iter().map(|x| (char::from(x), fit.shapes().size(x))).collect()
}
