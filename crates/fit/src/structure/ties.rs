//! Factors that are the same in several places of a model.

use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Model, Shapes};

/// For each factor of a model the first one of those that it is the same as.
pub(crate) fn first_of_each(model: &Model, ties: &[Vec<String>]) -> Result<Vec<usize>> {
    let mut first: Vec<usize> = (0..model.factors().len()).collect();
    for tie in ties {
        let places: Result<Vec<usize>, _> =
            tie.iter().map(|name| model.factor_named(name)).collect();
        let places = places?;
        let written = tie.join("=");
        if places.len() < 2 {
            return Err(Error::Setting(format!(
                "the tie {written} names {} factor: two or more that are to be the same are expected, as in ir=jr",
                places.len()
            )));
        }
        if let Some(twice) = places.iter().enumerate().find(|(n, l)| places[..*n].contains(l)) {
            return Err(Error::Setting(format!(
                "the tie {written} names {} twice: it is the same as itself already",
                model.factor_name(*twice.1)
            )));
        }
        let joined: Vec<usize> = places.iter().map(|&l| first[l]).collect();
        let least = joined.iter().copied().min().unwrap_or(0);
        first.iter_mut().filter(|l| joined.contains(l)).for_each(|l| *l = least);
    }
    Ok(first)
}

/// Checks that factors that are to be the same have the same sizes.
pub(crate) fn check_sizes(first: &[usize], shapes: &Shapes) -> Result<()> {
    let model = shapes.model();
    for (l, &one) in first.iter().enumerate() {
        let (found, expected) = (shapes.factor(l), shapes.factor(one));
        if found != expected {
            return Err(Error::Setting(format!(
                "the factors {} and {} are tied, letter by letter, but their sizes are {expected:?} and {found:?}: they have to be the same",
                model.factor_name(one),
                model.factor_name(l)
            )));
        }
    }
    Ok(())
}

/// The groups of passes of a fit with ties: every factor that is not fixed by itself, those that are
/// the same one after another; `None` where there are no ties, or something is wrong with a name.
pub(crate) fn groups(
    model: &Model,
    ties: &[Vec<String>],
    fixed: &[&str],
) -> Option<Vec<Vec<usize>>> {
    if ties.is_empty() {
        return None;
    }
    let first = first_of_each(model, ties).ok()?;
    let fixed: Result<Vec<usize>, _> =
        fixed.iter().map(|name| model.factor_named(name).map(|l| first[l])).collect();
    let fixed = fixed.ok()?;
    let mut order: Vec<usize> = (0..first.len()).filter(|&l| !fixed.contains(&first[l])).collect();
    order.sort_by_key(|&l| (first[l], l));
    (!order.is_empty()).then(|| order.into_iter().map(|l| vec![l]).collect())
}
