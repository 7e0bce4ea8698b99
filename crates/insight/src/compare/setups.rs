//! The setups of a study, a row of the table each, and its runs.

use std::collections::BTreeMap;

use super::ranks::{combinations, matched, ranks_text};
use super::run_result::RunSettings;
use super::study::{Study, about};
use super::study_model::{Penalties, TriedLoss, labels};
use nneinfact_core::error::Result;
use nneinfact_core::model::Shapes;
use nneinfact_fit::Algorithm;

/// One row of the table to be.
pub(super) struct Setup {
    pub name: String,
    pub shapes: Shapes,
    pub ranks: Vec<(char, usize)>,
    /// The number of parameters that the ranks were chosen for.
    pub wanted: Option<u64>,
    pub loss: usize,
    pub penalties: Penalties,
    pub algorithm: Algorithm,
    pub rate: Option<f64>,
}

impl Setup {
    pub fn ranks_text(&self) -> String {
        ranks_text(&self.ranks.iter().copied().collect())
    }

    /// The algorithm as a table has it, with a learning rate that was given.
    pub fn algorithm_text(&self) -> String {
        match self.rate {
            Some(rate) => format!("{}({rate})", self.algorithm.name()),
            None => self.algorithm.name().into(),
        }
    }

    /// What setups share that have the same runs.
    fn key(&self) -> String {
        format!("{} {} {}", self.shapes.model(), self.ranks_text(), self.kind())
    }

    /// What setups share that differ in model and ranks only.
    pub fn kind(&self) -> String {
        format!("{} {} {}", self.loss, self.penalties, self.algorithm_text())
    }
}

/// A run to be.
pub(super) struct Planned {
    pub setup: usize,
    pub split: usize,
    pub start: usize,
    /// The run that it starts from.
    pub before: Option<usize>,
    pub settings: RunSettings,
}

impl Study {
    /// All rows of the table, in the order of the study. What is the same is there once, and a note
    /// says so.
    pub(super) fn setups(
        &self,
        shape: &[usize],
        losses: &[TriedLoss],
        notes: &mut Vec<String>,
    ) -> Result<Vec<Setup>> {
        let mut all: Vec<Setup> = Vec::new();
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        let mut note = |text: String| {
            if !notes.contains(&text) {
                notes.push(text);
            }
        };
        for candidate in &self.models {
            let context = format!("model {:?}", candidate.name);
            let penalties = self.penalties_of(candidate);
            let fixed: Vec<char> =
                candidate.grids.iter().filter(|g| g.fixed).map(|g| g.letter).collect();
            let own = match candidate.parameters.is_empty() {
                true => &self.parameters,
                false => &candidate.parameters,
            };
            let wanted: Vec<Option<u64>> = match own.is_empty() {
                true => vec![None],
                false => own.iter().map(|&n| Some(n)).collect(),
            };
            let mut seen: Vec<Vec<(char, usize)>> = Vec::new();
            for given in combinations(&candidate.grids) {
                // Refuses ranks that do not go with the model before they are used.
                Shapes::new(&candidate.model, shape, &given)
                    .map_err(|e| about(&context, e.into()))?;
                for &wanted in &wanted {
                    let ranks = match wanted {
                        Some(n) => matched(&candidate.model, shape, &given, &fixed, n)
                            .map_err(|e| about(&context, e))?,
                        None => given.clone(),
                    };
                    let shapes = Shapes::new(&candidate.model, shape, &ranks)
                        .map_err(|e| about(&context, e.into()))?;
                    // Different proportions, or numbers of parameters, may lead to the same ranks.
                    if seen.contains(&ranks) {
                        let ranks = ranks_text(&ranks.iter().copied().collect());
                        note(format!(
                            "{context}: what was asked for leads to the ranks {ranks} more than once; they are fitted once"
                        ));
                        continue;
                    }
                    seen.push(ranks.clone());
                    for loss in 0..losses.len() {
                        for penalties in &penalties {
                            for (algorithm, rate) in self.all_algorithms() {
                                let setup = Setup {
                                    name: candidate.name.clone(),
                                    shapes: shapes.clone(),
                                    ranks: ranks.clone(),
                                    wanted,
                                    loss,
                                    penalties: penalties.clone(),
                                    algorithm,
                                    rate,
                                };
                                match known.get(&setup.key()) {
                                    Some(other) => note(format!(
                                        "{context} with {} is model {other:?} with these ranks, and fitted once, in the row of that",
                                        setup.ranks_text()
                                    )),
                                    None => {
                                        known.insert(setup.key(), setup.name.clone());
                                        all.push(setup);
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        Ok(all)
    }

    /// How many runs there will be for data of this shape.
    ///
    /// # Errors
    /// As [`check`](Self::check), and where a model does not go with the shape.
    pub fn runs(&self, shape: &[usize]) -> Result<usize> {
        self.check()?;
        let setups: Vec<Setup> = self.setups(shape, &self.all_losses(), &mut Vec::new())?;
        Ok(setups.len() * self.splits * self.starts)
    }

    /// Every run, split by split, of data with a fingerprint. Splits by strata draw some zeros beside each
    /// nonzero that they withhold.
    pub(super) fn all_runs(
        &self,
        setups: &[Setup],
        losses: &[TriedLoss],
        (print, zeros_per_nonzero): (&str, Option<f64>),
        places: &[(Option<usize>, Option<f64>)],
    ) -> Vec<Planned> {
        let mut runs: Vec<Planned> = Vec::new();
        for split in 0..self.splits {
            for (n, setup) in setups.iter().enumerate() {
                for start in 0..self.starts {
                    let offset = (split as u64).wrapping_mul(self.starts as u64) + start as u64;
                    // Of this split, and of an earlier setup.
                    let before =
                        places[n].0.map(|m| (split * setups.len() + m) * self.starts + start);
                    let from = before.map(|m| runs[m].settings.file_name());
                    let path =
                        self.path.zip(from).map(|(path, from)| format!("{path} from {from}"));
                    let settings = RunSettings {
                        library: env!("CARGO_PKG_VERSION").into(),
                        data: print.into(),
                        model: setup.shapes.model().to_string(),
                        ranks: setup.ranks.iter().copied().collect(),
                        loss: losses[setup.loss].loss.name().into(),
                        loss_terms: losses[setup.loss].terms.clone(),
                        penalty: setup.penalties.to_string(),
                        algorithm: setup.algorithm.name().into(),
                        learning_rate: setup.rate,
                        precision: self.precision.name().into(),
                        max_iter: self.max_iter,
                        tolerance: self.tolerance,
                        early_stopping: self.early_stopping,
                        heldout: self.heldout,
                        validation: self.validation,
                        zeros_per_nonzero,
                        split_seed: self.split_seed.wrapping_add(split as u64),
                        seed: self.seed.wrapping_add(offset),
                        path: path.unwrap_or_default(),
                    };
                    runs.push(Planned { setup: n, split, start, before, settings });
                }
            }
        }
        runs
    }

    /// What a run is of, as far as it differs from others.
    pub(super) fn label(&self, setup: &Setup, losses: &[TriedLoss], run: &Planned) -> String {
        let mut label = setup.name.clone();
        if !setup.ranks.is_empty() {
            label += &format!(" {}", setup.ranks_text());
        }
        if losses.len() > 1 {
            label += &format!(", {}", labels(losses)[setup.loss]);
        }
        if setup.penalties != Penalties::none() {
            label += &format!(", {}", setup.penalties);
        }
        if self.all_algorithms().len() > 1 {
            label += &format!(", {}", setup.algorithm_text());
        }
        if self.splits > 1 {
            label += &format!(", split {}", run.split + 1);
        }
        if self.starts > 1 {
            label += &format!(", start {}", run.start + 1);
        }
        label
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::StudyModel;
    use nneinfact_core::loss::{Loss, Penalty};

    fn study() -> Study {
        Study::new().model(
            StudyModel::new("custom", "wr,ikr,jkr->wij")
                .unwrap()
                .rank('r', [2, 3])
                .rank('k', [1, 2, 4]),
        )
    }

    #[test]
    fn everything_is_combined() {
        let study = study()
            .loss(Loss::kl())
            .loss(Loss::euclidean())
            .penalties(Penalties::none())
            .penalties(Penalties::on_all(Penalty::l1(0.1)))
            .algorithm(Algorithm::Grouped)
            .algorithm(Algorithm::Accelerated)
            .splits(3)
            .starts(2)
            .held_out(0.1);
        let setups = study.setups(&[4, 5, 6], &study.all_losses(), &mut Vec::new()).unwrap();
        assert_eq!(setups.len(), 6 * 2 * 2 * 2);
        assert_eq!(study.runs(&[4, 5, 6]).unwrap(), 48 * 6);
        let places = study.along(&setups).unwrap();
        let runs = study.all_runs(&setups, &study.all_losses(), ("data", None), &places);
        assert_eq!(runs.len(), 48 * 6);
        // Every run has settings of its own, and no start of a setup is there twice.
        let names: std::collections::BTreeSet<String> =
            runs.iter().map(|run| run.settings.file_name()).collect();
        assert_eq!(names.len(), runs.len());
        let seeds: Vec<u64> =
            runs.iter().filter(|run| run.setup == 7).map(|run| run.settings.seed).collect();
        assert_eq!(seeds, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn proportions_that_lead_to_the_same_ranks_are_one_setup() {
        let cp = StudyModel::new("cp", "ir,jr->ij").unwrap().rank('r', [1, 5, 50]);
        let study = Study::new().model(cp).match_parameters(110);
        let mut notes = Vec::new();
        let setups = study.setups(&[5, 6], &study.all_losses(), &mut notes).unwrap();
        assert_eq!(setups.len(), 1);
        assert_eq!(setups[0].ranks, [('r', 10)]);
        assert!(notes.len() == 1 && notes[0].contains("r=10"), "{notes:?}");
    }

    #[test]
    fn numbers_of_parameters_and_learning_rates_are_grids_too() {
        let nmf = |name: &str| StudyModel::new(name, "ir,jr->ij").unwrap().rank('r', [1]);
        let study = Study::new()
            .model(nmf("one"))
            .model(nmf("two").match_parameters(44))
            .match_parameters(22)
            .match_parameters(33)
            .algorithm(Algorithm::Grouped)
            .algorithm(Algorithm::Adam)
            .learning_rate(0.1)
            .learning_rate(0.5);
        study.check().unwrap();
        let setups = study.setups(&[5, 6], &study.all_losses(), &mut Vec::new()).unwrap();
        let of = |setup: &Setup| (setup.wanted.unwrap(), setup.ranks[0].1, setup.algorithm_text());
        let found: Vec<_> = setups.iter().map(of).collect();
        let texts = ["grouped", "adam(0.1)", "adam(0.5)"];
        let expected: Vec<_> = [(22, 2), (33, 3), (44, 4)]
            .iter()
            .flat_map(|&(n, r)| texts.map(|text| (n, r, text.to_string())))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_same_model_under_two_names_is_fitted_once() {
        let nmf = |name: &str| StudyModel::new(name, "ir,jr->ij").unwrap().rank('r', [1, 2]);
        let study = Study::new().model(nmf("one")).model(nmf("two").rank('r', [2, 3]));
        let mut notes = Vec::new();
        let setups = study.setups(&[5, 6], &study.all_losses(), &mut notes).unwrap();
        let names: Vec<&str> = setups.iter().map(|setup| setup.name.as_str()).collect();
        assert_eq!(names, ["one", "one", "two"]);
        assert!(notes[0].contains("\"two\"") && notes[0].contains("\"one\""), "{notes:?}");
    }
}
