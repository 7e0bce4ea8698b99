//! A study as it is described, on the command line or in a file.

use std::path::{Path, PathBuf};

use crate::cli::args::NumberOrFile;
use crate::cli::{constraints, read_data};
use nneinfact_core::data::SplitKind;
use nneinfact_core::engine::Precision;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{EntryParameter, Loss, LossParameters, NAMES};
use nneinfact_core::model::{Index, Model};
use nneinfact_fit::{Algorithm, DataRecord, EntryParameterRecord, Format, LossRecord};
use nneinfact_insight::compare::{Penalties, Score, Study, StudyModel, StudyPath};

/// All that a study can be told; what is `None` or empty has the default of the library.
pub struct Spec {
    pub data: DataRecord,
    pub models: Vec<ModelSpec>,
    pub losses: Vec<(Loss, LossRecord)>,
    pub penalties: Vec<Penalties>,
    pub algorithms: Vec<Algorithm>,
    pub learning_rates: Vec<f64>,
    pub precision: Option<Precision>,
    pub max_iter: Option<usize>,
    pub tol: Option<f64>,
    pub memory_limit: Option<u64>,
    pub data_as: Option<Format>,
    pub heldout: Option<f64>,
    pub validation: Option<f64>,
    pub heldout_as: Option<SplitKind>,
    pub zeros_per_nonzero: Option<f64>,
    pub early_stopping: bool,
    pub splits: Option<usize>,
    pub starts: Option<usize>,
    pub split_seed: Option<u64>,
    pub seed: Option<u64>,
    pub match_parameters: Vec<u64>,
    pub path: Option<StudyPath>,
    /// `Some(None)` for no score.
    pub score: Option<Option<Score>>,
    pub device: Option<String>,
    pub threads: Option<usize>,
    pub out: Option<PathBuf>,
}

/// A model with its ranks.
#[derive(Debug)]
pub struct ModelSpec {
    pub name: String,
    pub model: String,
    pub ranks: Vec<RankSpec>,
    pub match_parameters: Vec<u64>,
    pub penalties: Vec<Penalties>,
}

/// The ranks of a latent index.
#[derive(Clone, Debug, PartialEq)]
pub struct RankSpec {
    pub letter: char,
    pub ranks: Vec<usize>,
    pub fixed: bool,
}

impl Spec {
    /// The letters of the modes of the data, as the first model has them.
    pub fn letters(&self) -> Result<Vec<char>> {
        let Some(model) = self.models.first() else { return Ok(Vec::new()) };
        let model = Model::parse(&model.model)?;
        Ok(model.output().iter().map(|&index| index.into()).collect())
    }

    /// The study, without device and folder; whether its files have the paths of the data.
    pub fn study(&self, record_paths: bool) -> Result<Study> {
        let record = read_data::recorded(&self.data, record_paths);
        let mut study = Study::new().early_stopping(self.early_stopping).data_record(record);
        for model in &self.models {
            let mut candidate = StudyModel::new(&model.name, &model.model)?;
            for rank in &model.ranks {
                candidate = candidate.rank(rank.letter, rank.ranks.iter().copied());
                if rank.fixed {
                    candidate = candidate.fixed(rank.letter);
                }
            }
            for &parameters in &model.match_parameters {
                candidate = candidate.match_parameters(parameters);
            }
            if !model.penalties.is_empty() {
                candidate = candidate.penalties(model.penalties.iter().cloned());
            }
            study = study.model(candidate);
        }
        for (loss, record) in &self.losses {
            let recorded = |parameter: &Option<EntryParameterRecord>| {
                parameter.clone().map(|parameter| match parameter {
                    EntryParameterRecord::File(path) => {
                        EntryParameterRecord::File(read_data::recorded_path(&path, record_paths))
                    }
                    other => other,
                })
            };
            let record = LossRecord {
                dispersion: recorded(&record.dispersion),
                trials: recorded(&record.trials),
                ..record.clone()
            };
            study = study.loss_from(loss.clone(), record);
        }
        for penalties in &self.penalties {
            study = study.penalties(penalties.clone());
        }
        for &algorithm in &self.algorithms {
            study = study.algorithm(algorithm);
        }
        for &rate in &self.learning_rates {
            study = study.learning_rate(rate);
        }
        for &parameters in &self.match_parameters {
            study = study.match_parameters(parameters);
        }
        macro_rules! set {
            ($($setting:ident = $value:expr),+ $(,)?) => {
                $(if let Some(value) = $value { study = study.$setting(value); })+
            };
        }
        set! {
            precision = self.precision,
            max_iter = self.max_iter,
            tolerance = self.tol,
            memory_limit = self.memory_limit,
            data_as = self.data_as,
            held_out = self.heldout,
            validation = self.validation,
            split_as = self.heldout_as,
            zeros_per_nonzero = self.zeros_per_nonzero,
            splits = self.splits,
            starts = self.starts,
            split_seed = self.split_seed,
            seed = self.seed,
            path = self.path,
            score = self.score,
        }
        Ok(study)
    }
}

fn refuse<T>(message: String) -> Result<T> {
    Err(Error::Setting(message))
}

/// The models of `--model` with the ranks of `--rank`.
pub fn models(texts: &[String], ranks: &[String]) -> Result<Vec<ModelSpec>> {
    let mut models: Vec<ModelSpec> = Vec::new();
    for text in texts {
        // Model strings have no colons.
        let (name, model) = match text.rsplit_once(':') {
            Some((name, model)) => (name.trim().to_string(), model.trim()),
            None => (text.split_whitespace().collect(), text.trim()),
        };
        check_name(&name)?;
        let model = model.to_string();
        models.push(ModelSpec {
            name,
            model,
            ranks: Vec::new(),
            match_parameters: Vec::new(),
            penalties: Vec::new(),
        });
    }
    if models.is_empty() {
        return refuse(
            "no --model: name at least one, as in --model 'cp: ir,jr,kr->ijk', or give a .toml"
                .into(),
        );
    }
    let mut own: Vec<(String, Vec<RankSpec>)> = Vec::new();
    let mut all: Vec<RankSpec> = Vec::new();
    for text in ranks {
        // What stands before the first colon is a name, unless a rank begins before it.
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) if !name.contains('=') => (Some(name.trim()), rest),
            _ => (None, text.as_str()),
        };
        let specs = rank_list(rest)?;
        let Some(name) = name else {
            all.extend(specs);
            continue;
        };
        if !models.iter().any(|model| model.name == name) {
            let names: Vec<&str> = models.iter().map(|m| m.name.as_str()).collect();
            return refuse(format!(
                "--rank {text:?}: no model is named {name:?}; the names are {}",
                names.join(", ")
            ));
        }
        own.push((name.into(), specs));
    }
    twice(&all, "--rank")?;
    let mut used = vec![false; all.len()];
    for model in &mut models {
        let latent = Model::parse(&model.model)?.latent();
        model.ranks =
            own.iter().filter(|(n, _)| *n == model.name).flat_map(|(_, r)| r.clone()).collect();
        twice(&model.ranks, &format!("--rank '{}: …'", model.name))?;
        for (spec, used) in all.iter().zip(&mut used) {
            let has = Index::new(spec.letter).is_some_and(|x| latent.contains(x));
            *used |= has;
            if has && !model.ranks.iter().any(|own| own.letter == spec.letter) {
                model.ranks.push(spec.clone());
            }
        }
    }
    match all.iter().zip(&used).find(|(_, used)| !**used) {
        Some((spec, _)) => refuse(format!(
            "--rank {}=…: no model has the latent letter {}",
            spec.letter, spec.letter
        )),
        None => Ok(models),
    }
}

/// Refuses names that other options could not refer to.
pub fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.contains([':', '=', '\n']) {
        return refuse(format!(
            "{name:?} is no name of a model: names are not empty and have no colon, equals sign or line break"
        ));
    }
    Ok(())
}

fn twice(specs: &[RankSpec], what: &str) -> Result<()> {
    for (n, spec) in specs.iter().enumerate() {
        if specs[..n].iter().any(|other| other.letter == spec.letter) {
            return refuse(format!(
                "{what} gives ranks of {} twice: put all of them into one, as in {}=5:10:20",
                spec.letter, spec.letter
            ));
        }
    }
    Ok(())
}

/// Ranks, as in `r=5:10:20,k=6!`.
fn rank_list(text: &str) -> Result<Vec<RankSpec>> {
    let expected = "letters and their ranks are expected, as in r=5:10:20,k=6 or k=6!";
    let mut specs = Vec::new();
    for part in text.split(',') {
        let wrong = |what: String| format!("--rank {:?}: {what}", part.trim());
        let Some((letter, ranks)) = part.split_once('=') else {
            return refuse(wrong(expected.into()));
        };
        let mut letters = letter.trim().chars();
        let (Some(letter), None) = (letters.next(), letters.next()) else {
            return refuse(wrong(format!("{:?} is not one letter: {expected}", letter.trim())));
        };
        let ranks = ranks.trim();
        let (ranks, fixed) = match ranks.strip_suffix('!') {
            Some(ranks) => (ranks, true),
            None => (ranks, false),
        };
        let ranks: Result<Vec<usize>> = ranks
            .split(':')
            .map(|rank| match rank.trim().parse() {
                Ok(rank) if rank > 0 => Ok(rank),
                _ => refuse(wrong(format!(
                    "{:?} is no rank, but a whole number of at least 1 is expected",
                    rank.trim()
                ))),
            })
            .collect();
        specs.push(RankSpec { letter, ranks: ranks?, fixed });
    }
    Ok(specs)
}

/// Losses with their parameters after colons; files are relative to a folder.
pub fn losses(texts: &[String], folder: &Path) -> Result<Vec<(Loss, LossRecord)>> {
    texts.iter().map(|text| loss(text, folder)).collect()
}

fn loss(text: &str, folder: &Path) -> Result<(Loss, LossRecord)> {
    if text.trim_start().starts_with("custom:") {
        let loss = Loss::named(text, &LossParameters::default())?;
        let record = LossRecord::of(loss.name());
        return Ok((loss, record));
    }
    let mut parts = text.split(':').map(str::trim);
    let name = match parts.next().unwrap_or_default() {
        "ab" => "alpha-beta",
        name => name,
    };
    let values: Vec<&str> = parts.collect();
    let takes: &[&str] = match name {
        "alpha" => &["alpha"],
        "beta" => &["beta"],
        "alpha-beta" => &["alpha", "beta"],
        "negative-binomial" => &["dispersion"],
        "binomial" => &["trials"],
        "tweedie" => &["power"],
        name if NAMES.contains(&name) => &[],
        _ => {
            return refuse(format!(
                "there is no loss {text:?}: the names are {}, and ab is short for alpha-beta; parameters follow after colons, as in ab:0.7:0",
                NAMES.join(", ")
            ));
        }
    };
    if values.len() != takes.len() {
        let form: String = takes.iter().map(|p| format!(":{}", p.to_uppercase())).collect();
        return refuse(format!(
            "the loss {text:?} has {} parameter{}, and {name} takes {}: write {name}{form}",
            values.len(),
            if values.len() == 1 { "" } else { "s" },
            if takes.is_empty() { "none".into() } else { takes.join(" and ") }
        ));
    }
    let number = |n: usize| -> Result<f64> {
        values[n].parse().or_else(|_| {
            refuse(format!("the loss {text:?}: {} is not a number, but {:?}", takes[n], values[n]))
        })
    };
    let entry_parameter = || -> Result<(EntryParameter, EntryParameterRecord)> {
        let parsed = NumberOrFile::parse(values[0])
            .map_err(|e| Error::Setting(format!("the loss {text:?}: {e}")))?;
        let (parsed, record) = match parsed {
            NumberOrFile::Number(number) => (parsed, EntryParameterRecord::Number(number)),
            NumberOrFile::File(path) => {
                let path = folder.join(path);
                let whole = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
                (NumberOrFile::File(path), EntryParameterRecord::File(whole))
            }
        };
        Ok((parsed.entry_parameter()?, record))
    };
    let mut parameters = LossParameters::default();
    let (mut dispersion, mut trials) = (None, None);
    match name {
        "alpha" => parameters.alpha = Some(number(0)?),
        "beta" => parameters.beta = Some(number(0)?),
        "tweedie" => parameters.power = Some(number(0)?),
        "alpha-beta" => (parameters.alpha, parameters.beta) = (Some(number(0)?), Some(number(1)?)),
        "negative-binomial" => {
            let (parameter, record) = entry_parameter()?;
            (parameters.dispersion, dispersion) = (Some(parameter), Some(record));
        }
        "binomial" => {
            let (parameter, record) = entry_parameter()?;
            (parameters.trials, trials) = (Some(parameter), Some(record));
        }
        _ => {}
    }
    let loss = Loss::named(name, &parameters)?;
    let record = LossRecord { dispersion, trials, ..LossRecord::of(loss.name()) };
    Ok((loss, record))
}

/// Penalties that are tried: each none, one on all factors, or some on single ones.
pub fn penalties(texts: &[String]) -> Result<Vec<Penalties>> {
    texts.iter().map(|text| one_penalties(text)).collect()
}

fn one_penalties(text: &str) -> Result<Penalties> {
    let parse = |part: &str| {
        constraints::penalty(part).map_err(|e| Error::Setting(format!("penalty {text:?}: {e}")))
    };
    if text.trim() == "none" {
        return Ok(Penalties::none());
    }
    if !text.contains(':') {
        let (_, penalty) = parse(&format!("all:{}", text.trim()))?;
        return Ok(Penalties::on_all(penalty));
    }
    let mut penalties = Penalties::none();
    for part in text.split(',') {
        let (factor, penalty) = parse(part)?;
        penalties = penalties.and_on(&factor, penalty);
    }
    Ok(penalties)
}

/// A score, or none.
pub fn score(text: &str) -> Result<Option<Score>> {
    if text == "none" {
        return Ok(None);
    }
    match Score::ALL.into_iter().find(|score| score.name() == text) {
        Some(score) => Ok(Some(score)),
        None => refuse(format!("there is no score {text:?}: poisson, rmse, mae and none are")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    fn read(texts: &[&str], ranks: &[&str]) -> Result<Vec<ModelSpec>> {
        models(&strings(texts), &strings(ranks))
    }

    #[test]
    fn ranks_go_to_models_that_have_the_letters() {
        let found = read(
            &["cp: ir,jr->ij", "custom: ir,jk,kr->ij", "ir,jr->ij"],
            &["r=5:10,k=6!", "custom: r=40"],
        )
        .unwrap();
        let names: Vec<&str> = found.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["cp", "custom", "ir,jr->ij"]);
        let rank =
            |letter, ranks: &[usize], fixed| RankSpec { letter, ranks: ranks.to_vec(), fixed };
        assert_eq!(found[0].ranks, [rank('r', &[5, 10], false)]);
        assert_eq!(found[1].ranks, [rank('r', &[40], false), rank('k', &[6], true)]);
        assert_eq!(found[2].ranks, [rank('r', &[5, 10], false)]);
    }

    #[test]
    fn bad_models_and_ranks_name_what_is_wrong() {
        let refused = |models: &[&str], ranks: &[&str], part: &str| {
            let error = read(models, ranks).unwrap_err();
            assert!(error.is_input() && error.to_string().contains(part), "{part}: {error}");
        };
        let cp = ["cp: ir,jr->ij"];
        refused(&[], &["r=2"], "--model");
        refused(&[": ir,jr->ij"], &["r=2"], "no name");
        refused(&["cp: ir,jr"], &["r=2"], "->");
        refused(&cp, &["r"], "letters and their ranks");
        refused(&cp, &["rs=2"], "\"rs\" is not one letter");
        refused(&cp, &["r=2:x"], "\"x\" is no rank");
        refused(&cp, &["r=0"], "\"0\" is no rank");
        refused(&cp, &["r=2", "r=3"], "twice");
        refused(&cp, &["r=2,k=3"], "latent letter k");
        refused(&cp, &["tucker: r=2"], "no model is named \"tucker\"; the names are cp");
    }

    #[test]
    fn losses_take_parameters_after_colons() {
        let name = |text: &str| loss(text, Path::new("")).map(|(loss, _)| loss.name().to_string());
        assert_eq!(name("kl").unwrap(), "kl");
        assert_eq!(name("ab:0.7:0").unwrap(), "alpha-beta(0.7, 0)");
        assert_eq!(name(" alpha-beta : 0.7 : -0.5 ").unwrap(), "alpha-beta(0.7, -0.5)");
        assert_eq!(name("beta:0.5").unwrap(), "beta(0.5)");
        assert_eq!(name("negative-binomial:2").unwrap(), "negative-binomial(2)");
        assert_eq!(name("binomial:5").unwrap(), "binomial(5)");
        for (text, part) in [
            ("lk", "there is no loss \"lk\""),
            ("kl:1", "takes none"),
            ("ab:0.7", "write alpha-beta:ALPHA:BETA"),
            ("beta:x", "beta is not a number, but \"x\""),
            ("ab:0:0", "alpha = 0"),
            ("negative-binomial:nowhere.npy", "nowhere.npy"),
        ] {
            let error = name(text).unwrap_err();
            assert!(error.is_input() && error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn penalties_and_scores() {
        let text = |text: &str| one_penalties(text).map(|p| p.to_string());
        assert_eq!(text("none").unwrap(), "none");
        assert_eq!(text("l1=0.1").unwrap(), "l1=0.1");
        assert_eq!(text("ikr:l1=0.1,jr:l2=0.5").unwrap(), "ikr:l1=0.1,jr:l2=0.5");
        for bad in ["", "l1", "l0.5=1", "ikr:l1=x", "l1=0.1,l2=0.2"] {
            let error = text(bad).unwrap_err();
            assert!(error.is_input() && error.to_string().contains(bad), "{bad}: {error}");
        }
        assert_eq!(score("rmse").unwrap(), Some(Score::Rmse));
        assert_eq!(score("none").unwrap(), None);
        assert!(score("auc").unwrap_err().to_string().contains("poisson, rmse, mae and none"));
    }
}
