//! What can be refused of a study before data are read.

use super::ranks::combinations;
use super::store::Store;
use super::study::{Study, about};
use super::study_model::{StudyModel, TriedLoss};
use nneinfact_core::data::{SplitKind, check_zeros_per_nonzero};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::Shapes;
use nneinfact_fit::Algorithm;

impl Study {
    /// The most runs that a study can have.
    pub const MAX_RUNS: usize = 100_000;

    /// Refuses what can be refused without data.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Model`]: no models, two of the same name, anything that is tried
    /// twice, ranks or penalties that do not go with a model's indices and factors, numbers outside
    /// their range, more than [`MAX_RUNS`](Self::MAX_RUNS) runs, a folder that cannot be one of a study.
    pub fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::Setting(message));
        if self.models.is_empty() {
            return refuse("there is no model to fit: a study compares at least one".into());
        }
        if self.splits == 0 || self.starts == 0 {
            let what = if self.splits == 0 { "split" } else { "start" };
            return refuse(format!("a study has at least 1 {what}, not 0"));
        }
        self.check_size()?;
        self.check_repetitions()?;
        for (n, model) in self.models.iter().enumerate() {
            if self.models[..n].iter().any(|other| other.name == model.name) {
                return refuse(format!(
                    "two models have the name {:?}: give every model a name of its own",
                    model.name
                ));
            }
            self.check_model(model)
                .map_err(|error| about(&format!("model {:?}", model.name), error))?;
        }
        for (what, fraction) in [("held-out", self.heldout), ("validation", self.validation)] {
            if !(0.0..1.0).contains(&fraction) {
                return refuse(format!(
                    "the {what} fraction must be at least 0 and below 1, not {fraction}"
                ));
            }
        }
        if let Some(ratio) = self.zeros_per_nonzero {
            check_zeros_per_nonzero(ratio)?;
            if self.split_as == Some(SplitKind::Cells) {
                return refuse(
                    "zeros per nonzero are for splits by strata, and these are to be of cells"
                        .into(),
                );
            }
        }
        if self.splits > 1 && self.heldout == 0.0 && self.validation == 0.0 {
            return refuse(format!(
                "{} splits differ in what they withhold at random, and nothing is: hold out a fraction of the entries, or ask for several starts of one split",
                self.splits
            ));
        }
        // Observations may have validation entries of their own; a record says whether they have.
        if self.early_stopping
            && self.validation == 0.0
            && self.record.as_ref().is_some_and(|record| record.validation_coordinates.is_none())
        {
            return refuse(
                "early stopping needs a validation split: set aside a fraction of the entries for it"
                    .into(),
            );
        }
        let mut counts =
            self.parameters.iter().chain(self.models.iter().flat_map(|m| &m.parameters));
        if counts.any(|&n| n == 0) {
            return refuse("a number of parameters to match is at least 1, not 0".into());
        }
        if let Some(folder) = &self.folder {
            Store::check(folder)?;
        }
        Ok(())
    }

    /// Refuses more runs than can be counted, before they are.
    fn check_size(&self) -> Result<()> {
        let one = |n: usize| n.max(1);
        let rates = one(self.learning_rates.len());
        let algorithms: usize = match self.algorithms.is_empty() {
            true => 1,
            false => self
                .algorithms
                .iter()
                .map(|&a| if a == Algorithm::Adam { rates } else { 1 })
                .fold(0, usize::saturating_add),
        };
        let rows = |model: &StudyModel| {
            let penalties = model.penalties.as_ref().filter(|own| !own.is_empty());
            let counts = one(model.parameters.len().max(self.parameters.len()));
            let penalties = one(penalties.map_or(self.penalties.len(), Vec::len));
            [one(self.losses.len()), algorithms, counts, penalties]
                .into_iter()
                .chain(model.grids.iter().map(|grid| grid.ranks.len()))
                .fold(1, usize::saturating_mul)
        };
        let rows = self.models.iter().map(rows).fold(0, usize::saturating_add);
        let runs = rows.checked_mul(self.splits).and_then(|n| n.checked_mul(self.starts));
        match runs {
            Some(runs) if runs <= Self::MAX_RUNS => Ok(()),
            _ => Err(Error::Setting(format!(
                "{rows} setups with {} splits and {} starts each are more than {} runs, the most that a study can have",
                self.splits,
                self.starts,
                Self::MAX_RUNS
            ))),
        }
    }

    /// Refuses what would be fitted twice.
    fn check_repetitions(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::Setting(format!("{what} is there twice")));
        for (n, one) in self.losses.iter().enumerate() {
            let same = |other: &TriedLoss| {
                other.loss.name() == one.loss.name() && other.terms == one.terms
            };
            if self.losses[..n].iter().any(same) {
                return refuse(format!("the loss {}", one.loss.name()));
            }
        }
        for (n, one) in self.algorithms.iter().enumerate() {
            if self.algorithms[..n].contains(one) {
                return refuse(format!("the algorithm {}", one.name()));
            }
        }
        for (n, one) in self.learning_rates.iter().enumerate() {
            if self.learning_rates[..n].contains(one) {
                return refuse(format!("the learning rate {one}"));
            }
        }
        let own = self.models.iter().filter_map(|model| {
            Some((format!("model {:?}: ", model.name), model.penalties.as_ref()?))
        });
        for (whose, penalties) in std::iter::once((String::new(), &self.penalties)).chain(own) {
            for (n, one) in penalties.iter().enumerate() {
                if penalties[..n].contains(one) {
                    return refuse(format!("{whose}the penalty {one}"));
                }
            }
        }
        Ok(())
    }

    /// Refuses ranks, penalties and settings that do not go with a model.
    fn check_model(&self, candidate: &StudyModel) -> Result<()> {
        let model = &candidate.model;
        let ones = vec![1; model.output().len()];
        for grid in &candidate.grids {
            if grid.ranks.is_empty() {
                // Of an index that was only said to be fixed.
                let other: Vec<(char, usize)> = Vec::new();
                Shapes::new(model, &ones, &other)?;
                return Err(Error::Setting(format!("the index {} has no ranks", grid.letter)));
            }
        }
        for ranks in combinations(&candidate.grids) {
            Shapes::new(model, &ones, &ranks)?;
        }
        for penalties in self.penalties_of(candidate) {
            penalties.check(model)?;
        }
        for algorithm in self.all_algorithms() {
            self.settings_of(model.text(), algorithm)?.check()?;
        }
        // Rates without Adam are refused as a fit refuses them.
        if let Some(&rate) = self.learning_rates.first()
            && !self.algorithms.contains(&Algorithm::Adam)
        {
            let algorithm = self.algorithms.first().copied().unwrap_or_default();
            self.settings_of(model.text(), (algorithm, Some(rate)))?.check()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Penalties, Study};
    use nneinfact_core::loss::Loss;
    use nneinfact_core::loss::Penalty;
    use nneinfact_fit::{DataRecord, LossRecord};

    fn study() -> Study {
        Study::new().model(
            StudyModel::new("custom", "wr,ikr,jkr->wij")
                .unwrap()
                .rank('r', [2, 3])
                .rank('k', [1, 2, 4]),
        )
    }

    #[test]
    fn bad_studies_are_refused() {
        let refused = |study: Study, part: &str| {
            let error = study.check().unwrap_err();
            assert!(error.is_input() && error.to_string().contains(part), "{part}: {error}");
        };
        let nmf = |name: &str| StudyModel::new(name, "ir,jr->ij").unwrap();
        refused(Study::new(), "no model");
        refused(study().model(nmf("custom").rank('r', [1])), "\"custom\"");
        refused(study().model(nmf("nmf")), "model \"nmf\": ");
        refused(study().model(nmf("nmf").rank('r', [2, 0])), "model \"nmf\": ");
        refused(study().model(nmf("nmf").rank('r', [2]).rank('z', [2])), "z");
        refused(study().model(nmf("nmf").rank('r', [])), "no rank given for the latent index r");
        refused(study().splits(0), "1 split");
        refused(study().starts(0), "1 start");
        refused(study().held_out(1.0), "held-out fraction");
        for ratio in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            refused(study().held_out(0.1).zeros_per_nonzero(ratio), "zeros per nonzero");
        }
        let cells = study().held_out(0.1).split_as(SplitKind::Cells);
        refused(cells.zeros_per_nonzero(2.0), "strata");
        refused(study().validation(-0.5), "validation fraction");
        refused(study().splits(2), "2 splits");
        refused(study().match_parameters(0), "at least 1");
        refused(study().loss(Loss::kl()).loss(Loss::kl()), "the loss kl is there twice");
        let block = |study: Study| study.algorithm(Algorithm::Block);
        refused(block(block(study())), "the algorithm block is there twice");
        let ridge = || Penalties::on_all(Penalty::l2(0.1));
        refused(study().penalties(ridge()).penalties(ridge()), "the penalty l2=0.1 is there twice");
        let own = nmf("nmf").rank('r', [1]).penalties([ridge(), ridge()]);
        refused(study().model(own), "model \"nmf\": the penalty l2=0.1 is there twice");
        // All of these before any data are read.
        refused(study().tolerance(-1.0), "tolerance");
        refused(study().tolerance(f64::NAN), "tolerance");
        refused(study().penalties(Penalties::none().and_on("zr", Penalty::l1(0.1))), "zr");
        refused(study().penalties(Penalties::on_all(Penalty::l1(-1.0))), "-1");
        refused(study().early_stopping(true).data_record(DataRecord::default()), "early stopping");
        refused(study().learning_rate(0.1), "adam");
        let adam = || study().algorithm(Algorithm::Adam);
        refused(adam().learning_rate(0.0), "learning rate");
        refused(adam().learning_rate(0.1).learning_rate(0.1), "0.1 is there twice");
        // More than there can be, and more than can be counted.
        refused(study().held_out(0.1).splits(100).starts(1000), "100000");
        refused(study().held_out(0.1).splits(usize::MAX).starts(usize::MAX), "100000");
        let all = || 1..=100_000;
        let vast =
            StudyModel::new("vast", "ir,jk,kr->ij").unwrap().rank('r', all()).rank('k', all());
        refused(study().model(vast), "100000");
    }

    #[test]
    fn losses_of_one_name_are_told_apart() {
        let dispersion = |x: f64| ndarray::Array2::from_elem((5, 6), x);
        let loss = |x: f64| Loss::negative_binomial(dispersion(x)).unwrap();
        let record = |file: &str| LossRecord {
            name: "negative-binomial".into(),
            dispersion: Some(nneinfact_fit::EntryParameterRecord::File(file.into())),
            ..LossRecord::default()
        };
        let study = Study::new()
            .model(StudyModel::new("nmf", "ir,jr->ij").unwrap().rank('r', [1]))
            .loss(Loss::kl())
            .loss_from(loss(1.0), record("a/low.npy"))
            .loss_from(loss(2.0), record("a/high.npy"))
            .loss(loss(3.0));
        study.check().unwrap();
        let names = super::super::study_model::labels(&study.all_losses());
        assert_eq!(names[0], "kl");
        assert_eq!(names[1], "negative-binomial(low.npy)");
        assert_eq!(names[2], "negative-binomial(high.npy)");
        assert_eq!(names[3], "negative-binomial(per entry)");
        let again = study.loss(loss(4.0)).loss(loss(5.0));
        again.check().unwrap();
        let names = super::super::study_model::labels(&again.all_losses());
        assert_eq!(
            names[4..],
            ["negative-binomial(per entry) #5", "negative-binomial(per entry) #6"]
        );
        assert!(again.loss(loss(5.0)).check().is_err());
    }
}
