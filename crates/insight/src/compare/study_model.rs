//! What takes part in a study: models with their ranks, penalties, losses.

use std::fmt;

use super::ranks::RankGrid;
use super::run_result::loss_terms;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Loss, Penalty};
use nneinfact_core::model::Model;
use nneinfact_fit::{EntryParameterRecord, LossRecord, NNEinFact};

/// A model that takes part in a study, with the ranks that it is tried with.
///
/// ```
/// use nneinfact::compare::StudyModel;
///
/// let spatial = StudyModel::new("spatial", "wr,ikr,jkr->wij")?
///     .rank('r', [5, 10, 20])
///     .rank('k', [6])
///     .fixed('k');
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct StudyModel {
    pub(super) name: String,
    pub(super) model: Model,
    pub(super) grids: Vec<RankGrid>,
    pub(super) penalties: Option<Vec<Penalties>>,
    pub(super) parameters: Vec<u64>,
}

impl StudyModel {
    /// A model written as an einsum string, under a name for the table.
    ///
    /// # Errors
    /// [`Error::Model`] where the string is not a model.
    pub fn new(name: impl Into<String>, model: &str) -> Result<StudyModel> {
        let model = Model::parse(model)?;
        Ok(StudyModel {
            name: name.into(),
            model,
            grids: Vec::new(),
            penalties: None,
            parameters: Vec::new(),
        })
    }

    /// The ranks of a latent index. With several indices all combinations are tried. A second call
    /// for the same index replaces the first.
    pub fn rank(mut self, letter: char, ranks: impl IntoIterator<Item = usize>) -> Self {
        let fixed = self.grids.iter().any(|grid| grid.letter == letter && grid.fixed);
        self.grids.retain(|grid| grid.letter != letter);
        self.grids.push(RankGrid { letter, ranks: ranks.into_iter().collect(), fixed });
        self
    }

    /// Leaves the ranks of an index as they are where ranks are chosen for a
    /// [number of parameters](super::Study::match_parameters).
    pub fn fixed(mut self, letter: char) -> Self {
        match self.grids.iter_mut().find(|grid| grid.letter == letter) {
            Some(grid) => grid.fixed = true,
            None => self.grids.push(RankGrid { letter, ranks: Vec::new(), fixed: true }),
        }
        self
    }

    /// Penalties of this model, in place of those of the study.
    pub fn penalties(mut self, penalties: impl IntoIterator<Item = Penalties>) -> Self {
        self.penalties = Some(penalties.into_iter().collect());
        self
    }

    /// As [`Study::match_parameters`](super::Study::match_parameters), for this model, and in place of
    /// those of the study.
    pub fn match_parameters(mut self, parameters: u64) -> Self {
        self.parameters.push(parameters);
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }
}

/// The penalties of a fit, as one of several that a study tries.
///
/// ```
/// use nneinfact::compare::Penalties;
/// use nneinfact::loss::Penalty;
///
/// assert_eq!(Penalties::none().to_string(), "none");
/// assert_eq!(Penalties::on_all(Penalty::l1(0.1)).to_string(), "l1=0.1");
/// let two = Penalties::none().and_on("ir", Penalty::l1(0.1)).and_on("jr", Penalty::l2(2.0));
/// assert_eq!(two.to_string(), "ir:l1=0.1,jr:l2=2");
/// ```
#[derive(Clone, Debug, PartialEq, Default)]
#[must_use]
pub struct Penalties {
    all: Option<Penalty>,
    single: Vec<(String, Penalty)>,
}

impl Penalties {
    /// No penalty.
    pub fn none() -> Penalties {
        Penalties::default()
    }

    /// A penalty on every factor.
    pub fn on_all(penalty: Penalty) -> Penalties {
        Penalties { all: Some(penalty), single: Vec::new() }
    }

    /// And one on the factor of this name, as in [`NNEinFact::penalty`].
    pub fn and_on(mut self, factor: &str, penalty: Penalty) -> Penalties {
        self.single.push((factor.into(), penalty));
        self
    }

    /// What is wrong with them for a model, whatever the data are.
    pub(super) fn check(&self, model: &Model) -> Result<()> {
        for (factor, _) in &self.single {
            model.factor_named(factor)?;
        }
        match self.all.iter().chain(self.single.iter().map(|(_, p)| p)).find_map(|p| p.problem()) {
            Some(problem) => Err(Error::Setting(problem)),
            None => Ok(()),
        }
    }

    /// The weight of a penalty of this power on all factors, where there is no other one.
    pub(super) fn along(&self, power: f64) -> Option<f64> {
        match (&self.all, self.single.is_empty()) {
            (None, true) => Some(0.0),
            (Some(penalty), true) if penalty.power() == power => Some(penalty.weight()),
            _ => None,
        }
    }

    pub(super) fn apply(&self, mut settings: NNEinFact) -> NNEinFact {
        if let Some(penalty) = self.all {
            settings = settings.penalty_on_all(penalty);
        }
        for (factor, penalty) in &self.single {
            settings = settings.penalty(factor, *penalty);
        }
        settings
    }
}

impl fmt::Display for Penalties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |p: &Penalty| format!("l{}={}", p.power(), p.weight());
        let mut all: Vec<String> = self.all.iter().map(text).collect();
        all.extend(self.single.iter().map(|(factor, p)| format!("{factor}:{}", text(p))));
        match all.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&all.join(",")),
        }
    }
}

/// A loss that is tried, with what a file says of it.
#[derive(Clone, Debug)]
pub(super) struct TriedLoss {
    pub loss: Loss,
    pub record: LossRecord,
    /// A fingerprint of what it computes: names may repeat.
    pub terms: String,
}

impl TriedLoss {
    pub fn new(loss: Loss, record: LossRecord) -> TriedLoss {
        let terms = loss_terms(&loss);
        TriedLoss { loss, record, terms }
    }

    /// The name, with the file of a parameter in the place of "per entry".
    fn named_by_file(&self) -> String {
        let file =
            [&self.record.dispersion, &self.record.trials].into_iter().flatten().find_map(|p| {
                match p {
                    EntryParameterRecord::File(path) => {
                        Some(path.file_name()?.to_string_lossy().into_owned())
                    }
                    EntryParameterRecord::Number(_) | EntryParameterRecord::Unknown => None,
                }
            });
        match file {
            Some(file) => format!("{}({file})", self.record.name),
            None => self.loss.name().into(),
        }
    }
}

/// What losses are called in tables: by their names; where several have the same, by the files of
/// their parameters or, where that does not tell them apart either, with a number.
pub(super) fn labels(losses: &[TriedLoss]) -> Vec<String> {
    let apart = |names: Vec<String>, other: &dyn Fn(usize, &str) -> String| -> Vec<String> {
        let again = |name: &String| names.iter().filter(|other| *other == name).count() > 1;
        let one = |(n, name): (usize, &String)| match again(name) {
            true => other(n, name),
            false => name.clone(),
        };
        names.iter().enumerate().map(one).collect()
    };
    let names = losses.iter().map(|tried| tried.loss.name().to_string()).collect();
    let names = apart(names, &|n, _| losses[n].named_by_file());
    apart(names, &|n, name| format!("{name} #{}", n + 1))
}
