//! Modes whose factor is a sum of smooth functions: `hr` becomes `hb,br` with B-splines in `hb`, which
//! are fixed, and is multiplied out again when the fit is done.

use std::sync::Arc;

use ndarray::{Array2, ArrayD, Ix2};

use crate::format;
use crate::result::Fit;
use crate::settings::{FactorSetting, Settings, Start};
use crate::structure::Splines;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::Unfinished;
use nneinfact_core::model::{Index, Model, Shapes};
use nneinfact_core::plan::DataInfo;

/// A factor that was made of two.
struct Split {
    /// Its number in the user's model, and the axis of the mode.
    factor: usize,
    axis: usize,
    /// The letter of the functions.
    letter: char,
    values: Array2<f64>,
}

/// A fit in whose place another one is made, with fixed functions in a factor of their own.
pub(crate) struct Rewritten {
    /// The settings of that fit.
    pub settings: Settings,
    splits: Vec<Split>,
    /// Where each factor of the user's model is in the other one.
    places: Vec<usize>,
    /// The settings that were given.
    given: Settings,
}

/// The fit to make for settings with bases, to data of this shape.
pub(crate) fn rewrite(settings: &Settings, shape: &[usize]) -> Result<Rewritten> {
    let model = &settings.model;
    let shapes = Shapes::new(model, shape, &settings.ranks)?;
    refuse_start(settings)?;
    if settings.groups.is_some() {
        return Err(Error::Setting("groups are of a model without a basis".into()));
    }
    let mut splits: Vec<Split> = Vec::new();
    for &(mode, basis) in &settings.bases {
        let split = split(&shapes, settings, mode, basis, &splits)?;
        splits.push(split);
    }
    let mut ranks = settings.ranks.clone();
    let (mut parts, mut places, mut fixed) = (Vec::new(), Vec::new(), Vec::new());
    for l in 0..model.factors().len() {
        let mut name: Vec<char> = model.factor_name(l).chars().collect();
        for split in splits.iter().filter(|split| split.factor == l) {
            fixed.push((format!("theta_{}", parts.len() + 1), split));
            parts.push(format!("{}{}", name[split.axis], split.letter));
            name[split.axis] = split.letter;
            ranks.push((split.letter, split.values.ncols()));
        }
        places.push(parts.len());
        parts.push(name.into_iter().collect());
    }
    let output: String = model.output().iter().map(|&x| char::from(x)).collect();
    let text = format!("{}->{output}", parts.join(","));
    let renamed = |name: &String| -> Result<String> {
        Ok(format!("theta_{}", places[model.factor_named(name)?] + 1))
    };
    let mut factor_settings = Vec::new();
    for (name, setting) in &settings.factor_settings {
        let split = splits.iter().find(|split| Ok(split.factor) == model.factor_named(name));
        if let Some(split) = split
            && !matches!(setting, FactorSetting::Penalty(_))
        {
            return Err(Error::Setting(format!(
                "factor {name} has a basis along {}, and is a sum of its functions: only a penalty (on their coefficients) goes with it",
                model.factor_name(split.factor).chars().nth(split.axis).unwrap_or(' ')
            )));
        }
        factor_settings.push((renamed(name)?, setting.clone()));
    }
    for (name, split) in fixed {
        factor_settings.push((name, FactorSetting::Fixed(split.values.clone().into_dyn())));
    }
    let ties: Result<Vec<Vec<String>>> =
        settings.ties.iter().map(|tie| tie.iter().map(renamed).collect()).collect();
    let inner = Settings {
        model: Model::parse(&text)?,
        ranks,
        factor_settings,
        ties: ties?,
        bases: Vec::new(),
        ..settings.clone()
    };
    Ok(Rewritten { settings: inner, splits, places, given: settings.clone() })
}

/// Refuses factors to start from, which are not those of the fit that is made.
pub(crate) fn refuse_start(settings: &Settings) -> Result<()> {
    match settings.start {
        Start::Factors(_) | Start::Grown(_) => Err(Error::Setting(
            "a fit with a basis starts at random or from singular vectors: given factors are those of the model without it"
                .into(),
        )),
        Start::Random | Start::Gamma { .. } | Start::Svd => Ok(()),
    }
}

/// The factor that has a mode, and the functions along it.
fn split(
    shapes: &Shapes,
    settings: &Settings,
    mode: char,
    basis: Splines,
    before: &[Split],
) -> Result<Split> {
    let model = shapes.model();
    let refuse = |what: String| Err(Error::Setting(format!("the basis along {mode}: {what}")));
    let index = Index::new(mode).filter(|x| model.output().contains(x));
    let Some(index) = index else {
        return refuse(format!("{mode} is not a mode of the data of {model}"));
    };
    let holders: Vec<usize> =
        (0..model.factors().len()).filter(|&l| model.factors()[l].contains(&index)).collect();
    let [factor] = holders[..] else {
        return refuse(format!(
            "several factors of {model} have {mode}: a basis is for one that is in one factor only"
        ));
    };
    let axis = model.factors()[factor].iter().position(|&x| x == index).unwrap_or(0);
    if before.iter().any(|split| (split.factor, split.axis) == (factor, axis)) {
        return refuse("it is given twice".into());
    }
    let named = |name: &String| model.factor_named(name) == Ok(factor);
    if settings.ties.iter().flatten().any(named) {
        return refuse(format!(
            "factor {} is tied: it would be a sum of functions in one place only",
            model.factor_name(factor)
        ));
    }
    let used = |x: char| model.text().contains(x) || before.iter().any(|split| split.letter == x);
    // As near to the alphabet's end as the model's own letters let it be.
    let Some(letter) = ('a'..='z').chain('A'..='Z').rev().find(|&x| !used(x)) else {
        return refuse("the model has all letters that there are, and none is left".into());
    };
    let values = basis.values(shapes.size(index))?;
    Ok(Split { factor, axis, letter, values })
}

impl Rewritten {
    /// The factors of the user's model, from those of the other one.
    fn factors(&self, factors: &[ArrayD<f64>]) -> Result<Vec<ArrayD<f64>>> {
        let mut multiplied: Vec<ArrayD<f64>> =
            self.places.iter().map(|&place| factors[place].clone()).collect();
        for split in &self.splits {
            multiplied[split.factor] = along(&split.values, &multiplied[split.factor], split.axis)?;
        }
        Ok(multiplied)
    }

    /// The fit of the user's model, from that of the other one.
    pub fn fit(&self, fit: Fit) -> Result<Fit> {
        let factors = self.factors(fit.factors())?;
        let shapes = Shapes::new(&self.given.model, &fit.shapes().data(), &self.given.ranks)?;
        let info = DataInfo::c_order(&shapes, 4);
        let plan = Arc::new(format::plan(&self.given, &shapes, info, None)?);
        let made = Fit::new(plan, factors, fit.history().clone())
            .with_warnings(fit.warnings().to_vec())
            .with_structure(fit.structure().to_vec());
        made.with_labels(Arc::clone(fit.all_labels()))
    }

    /// The same error of the user's model.
    pub fn error(&self, error: Error) -> Error {
        let Error::Broken { cause, last } = error else { return error };
        match self.fit(Fit::from(Unfinished::clone(&last))) {
            Ok(fit) => {
                let plan = Arc::new(fit.plan().clone());
                let history = fit.history().clone();
                let last = Box::new(Unfinished { plan, factors: fit.into_factors(), history });
                Error::Broken { cause, last }
            }
            Err(_) => *cause,
        }
    }
}

/// A factor whose axis has coefficients, with the functions in their place.
pub(crate) fn along(
    values: &Array2<f64>,
    factor: &ArrayD<f64>,
    axis: usize,
) -> Result<ArrayD<f64>> {
    let internal = |e: ndarray::ShapeError| Error::Internal(format!("a basis: {e}"));
    let mut order: Vec<usize> = (0..factor.ndim()).collect();
    order.swap(0, axis);
    let first = factor.view().permuted_axes(order.clone()).as_standard_layout().into_owned();
    let mut shape = first.shape().to_vec();
    let (rows, columns) = (shape[0], first.len() / shape[0].max(1));
    let flat = first.into_shape_with_order((rows, columns)).map_err(internal)?;
    let flat = flat.into_dimensionality::<Ix2>().map_err(internal)?;
    shape[0] = values.nrows();
    let made = values.dot(&flat).into_shape_with_order(shape).map_err(internal)?;
    Ok(made.permuted_axes(order).as_standard_layout().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_multiplied_where_they_are() -> Result<()> {
        let factor = ArrayD::from_shape_fn(vec![2, 3, 4], |x| (x[0] * 12 + x[1] * 4 + x[2]) as f64);
        let values = Array2::from_shape_fn((5, 3), |(i, k)| (i + 2 * k) as f64);
        let found = along(&values, &factor, 1)?;
        assert_eq!(found.shape(), [2, 5, 4]);
        for ((a, i), c) in (0..2).flat_map(|a| (0..5).map(move |i| (a, i))).zip((0..4).cycle()) {
            let expected: f64 = (0..3).map(|k| values[[i, k]] * factor[[a, k, c]]).sum();
            assert_eq!(found[[a, i, c]], expected);
        }
        Ok(())
    }
}
