//! Paths: every value starts from the fit of the value before.

use std::collections::BTreeMap;
use std::fmt;

use ndarray::{ArrayD, Axis};

use super::setups::Setup;
use super::study::Study;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::Shapes;
use nneinfact_fit::Start;

/// What a study follows: where fits of a model differ in nothing else, each starts from the one before,
/// of the same split and start.
///
/// ```
/// use nneinfact::compare::StudyPath;
///
/// assert_eq!("l1".parse(), Ok(StudyPath::L1));
/// assert!("l3".parse::<StudyPath>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StudyPath {
    /// From the lightest sparse penalty on all factors to the heaviest; none is the lightest of all. What
    /// is zero does not come back, so that components leave one after another.
    L1,
    /// Likewise of ridge penalties.
    L2,
    /// From the smallest ranks to the largest: what is new starts as small random numbers.
    Rank,
}

impl StudyPath {
    /// "l1", "l2" or "rank".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            StudyPath::L1 => "l1",
            StudyPath::L2 => "l2",
            StudyPath::Rank => "rank",
        }
    }

    /// The power of the penalties along it.
    fn power(self) -> Option<f64> {
        match self {
            StudyPath::L1 => Some(1.0),
            StudyPath::L2 => Some(2.0),
            StudyPath::Rank => None,
        }
    }
}

impl fmt::Display for StudyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for StudyPath {
    type Err = String;

    fn from_str(text: &str) -> Result<StudyPath, String> {
        match text.trim() {
            "l1" => Ok(StudyPath::L1),
            "l2" => Ok(StudyPath::L2),
            "rank" => Ok(StudyPath::Rank),
            other => Err(format!("{other:?} is no path: l1, l2 and rank are")),
        }
    }
}

impl Study {
    /// Follows a path through what is tried: every fit starts from the one before it on the path. Default:
    /// none, and every fit starts anew.
    pub fn path(mut self, path: StudyPath) -> Self {
        self.path = Some(path);
        self
    }

    /// For each setup the one before it on the path, and where it stands on it.
    pub(super) fn along(&self, setups: &[Setup]) -> Result<Vec<(Option<usize>, Option<f64>)>> {
        let Some(path) = self.path else { return Ok(vec![(None, None); setups.len()]) };
        let mut places: Vec<(Option<usize>, Option<f64>)> = Vec::new();
        for (n, setup) in setups.iter().enumerate() {
            let value = match path.power() {
                Some(power) => Some(setup.penalties.along(power).ok_or_else(|| {
                    Error::Setting(format!(
                        "a path along {path} has the penalties {path}=MU on all factors, or none, and not {}",
                        setup.penalties
                    ))
                })?),
                None => Some(setup.ranks.iter().map(|(_, rank)| *rank as f64).sum()),
            };
            let kin = |m: &usize| {
                let other = &setups[*m];
                let alike = (&other.name, other.loss, other.algorithm, other.rate)
                    == (&setup.name, setup.loss, setup.algorithm, setup.rate);
                alike
                    && match path {
                        StudyPath::Rank => {
                            other.penalties == setup.penalties && grows(&other.ranks, &setup.ranks)
                        }
                        StudyPath::L1 | StudyPath::L2 => other.ranks == setup.ranks,
                    }
            };
            let before = (0..n).rev().find(kin);
            let last = before.and_then(|m| places[m].1);
            if path.power().is_some() && last >= value && last.is_some() {
                return Err(Error::Setting(format!(
                    "a path goes from the lightest penalty to the heaviest, as what is zero does not come back: {} comes after {}",
                    setup.penalties,
                    before.map_or(String::new(), |m| setups[m].penalties.to_string())
                )));
            }
            places.push((before, value));
        }
        if places.iter().all(|(before, _)| before.is_none()) {
            return Err(Error::Setting(format!(
                "there is no path along {path}: no two fits of a model differ in it, from the smaller to the larger"
            )));
        }
        Ok(places)
    }

    /// The start of a fit from the factors of the one before it.
    pub(super) fn onward(&self, factors: Vec<ArrayD<f64>>) -> Start {
        match self.path {
            Some(StudyPath::Rank) => Start::Grown(factors),
            _ => Start::Factors(factors),
        }
    }
}

/// Whether ranks are those of a smaller fit of the same model.
fn grows(small: &[(char, usize)], large: &[(char, usize)]) -> bool {
    small != large
        && small.len() == large.len()
        && small.iter().zip(large).all(|((a, m), (b, n))| a == b && m <= n)
}

/// Entries that are a smaller share of their factor's largest are zero.
const ZERO: f64 = 1e-10;

/// How many components of each latent index are kept: those with entries that are not zero in every factor
/// that has the index.
pub(super) fn components(shapes: &Shapes, factors: &[ArrayD<f64>]) -> BTreeMap<char, usize> {
    let model = shapes.model();
    let largest: Vec<f64> =
        factors.iter().map(|factor| factor.iter().copied().fold(0.0, f64::max)).collect();
    let kept = |index| {
        let holders = (0..factors.len())
            .filter_map(|l| Some((l, model.factors()[l].iter().position(|&x| x == index)?)));
        let holders: Vec<(usize, usize)> = holders.collect();
        let alive = |value: &usize| {
            holders.iter().all(|&(l, axis)| {
                let slice = factors[l].index_axis(Axis(axis), *value);
                slice.iter().any(|&x| x > ZERO * largest[l])
            })
        };
        (0..shapes.size(index)).filter(alive).count()
    };
    model.latent().iter().map(|index| (char::from(index), kept(index))).collect()
}

/// The share of all entries of factors that are zero.
pub(super) fn zeros(factors: &[ArrayD<f64>]) -> f64 {
    let (mut zeros, mut all) = (0usize, 0usize);
    for factor in factors {
        let largest = factor.iter().copied().fold(0.0, f64::max);
        zeros += factor.iter().filter(|&&x| x <= ZERO * largest).count();
        all += factor.len();
    }
    zeros as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Penalties, StudyModel};
    use ndarray::array;
    use nneinfact_core::loss::Penalty;
    use nneinfact_core::model::Model;

    fn places(study: &Study) -> Result<Vec<(Option<usize>, Option<f64>)>> {
        study.along(&study.setups(&[5, 6], &study.all_losses(), &mut Vec::new())?)
    }

    #[test]
    fn a_path_goes_through_penalties_or_ranks_of_each_model() -> Result<()> {
        let nmf = |name: &str, ranks: &[usize]| -> Result<StudyModel> {
            Ok(StudyModel::new(name, "ir,jr->ij")?.rank('r', ranks.iter().copied()))
        };
        let with = |study: Study, weights: &[f64]| {
            weights
                .iter()
                .fold(study, |study, &w| study.penalties(Penalties::on_all(Penalty::l1(w))))
        };
        let study = Study::new().model(nmf("a", &[1, 2])?).penalties(Penalties::none());
        let study = with(study, &[0.1, 1.0]).path(StudyPath::L1);
        let found = places(&study)?;
        assert_eq!(
            found.iter().map(|p| p.0).collect::<Vec<_>>(),
            [None, Some(0), Some(1), None, Some(3), Some(4)]
        );
        assert_eq!(found[2].1, Some(1.0));
        let down = with(Study::new().model(nmf("a", &[2])?), &[1.0, 0.1]).path(StudyPath::L1);
        assert!(places(&down).is_err_and(|e| e.to_string().contains("lightest")));
        let ridge = with(Study::new().model(nmf("a", &[2])?), &[0.1, 1.0]).path(StudyPath::L2);
        assert!(places(&ridge).is_err_and(|e| e.to_string().contains("l2=MU")));
        let ranks = with(Study::new().model(nmf("a", &[1, 3, 2])?), &[0.5]).path(StudyPath::Rank);
        assert_eq!(
            places(&ranks)?.iter().map(|p| p.0).collect::<Vec<_>>(),
            [None, Some(0), Some(0)]
        );
        let none = Study::new().model(nmf("a", &[2])?).path(StudyPath::Rank);
        assert!(places(&none).is_err_and(|e| e.to_string().contains("no path")));
        Ok(())
    }

    #[test]
    fn what_is_zero_is_counted() -> Result<()> {
        let shapes = Shapes::new(&Model::parse("ir,jr->ij")?, &[2, 2], &[('r', 3)])?;
        let factors = vec![
            array![[1.0, 0.0, 2.0], [1e-12, 0.0, 1.0]].into_dyn(),
            array![[1.0, 2.0, 0.0], [0.0, 1.0, 0.0]].into_dyn(),
        ];
        assert_eq!(components(&shapes, &factors), BTreeMap::from([('r', 1)]));
        assert_eq!(zeros(&factors), 0.5);
        Ok(())
    }
}
