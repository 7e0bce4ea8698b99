//! The setups of a study, a row of the table each, and its runs.

use std::collections::BTreeMap;

use super::candidate::{Penalties, Tried, labels};
use super::ranks::{combinations, matched};
use super::run::RunSettings;
use super::study::{Study, about};
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

pub(super) fn ranks_text(ranks: &BTreeMap<char, usize>) -> String {
    let each: Vec<String> = ranks.iter().map(|(letter, rank)| format!("{letter}={rank}")).collect();
    if each.is_empty() { "-".into() } else { each.join(",") }
}

/// A run to be.
pub(super) struct Planned {
    pub setup: usize,
    pub split: usize,
    pub start: usize,
    pub settings: RunSettings,
}

impl Study {
    /// All rows of the table, in the order of the study. What is the same is there once, and a note
    /// says so.
    pub(super) fn setups(
        &self,
        shape: &[usize],
        losses: &[Tried],
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

    /// Every run, split by split.
    pub(super) fn all_runs(&self, setups: &[Setup], losses: &[Tried], print: &str) -> Vec<Planned> {
        let mut runs = Vec::new();
        for split in 0..self.splits {
            for (n, setup) in setups.iter().enumerate() {
                for start in 0..self.starts {
                    let offset = (split as u64).wrapping_mul(self.starts as u64) + start as u64;
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
                        split_seed: self.split_seed.wrapping_add(split as u64),
                        seed: self.seed.wrapping_add(offset),
                    };
                    runs.push(Planned { setup: n, split, start, settings });
                }
            }
        }
        runs
    }

    /// What a run is of, as far as it differs from others.
    pub(super) fn label(&self, setup: &Setup, losses: &[Tried], run: &Planned) -> String {
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
