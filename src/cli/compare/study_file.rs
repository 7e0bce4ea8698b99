//! The file that describes a study.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::spec::{self, ModelSpec, RankSpec, Spec};
use crate::cli::args::{self, AlgorithmArg, DataAsArg, PrecisionArg, value};
use crate::cli::data_keys::{OneOrMany, with_data_keys};
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::{DataRecord, io};
use nneinfact_insight::compare::StudyPath;

with_data_keys! {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(default)]
        early_stopping: bool,
        #[serde(default)]
        losses: Vec<String>,
        #[serde(default)]
        penalties: Vec<String>,
        #[serde(default)]
        algorithms: Vec<String>,
        learning_rate: Option<OneOrMany<f64>>,
        precision: Option<String>,
        max_iter: Option<usize>,
        tol: Option<f64>,
        memory_limit: Option<String>,
        data_as: Option<String>,
        splits: Option<usize>,
        starts: Option<usize>,
        seed: Option<u64>,
        match_parameters: Option<OneOrMany<u64>>,
        path: Option<String>,
        score: Option<String>,
        device: Option<String>,
        threads: Option<usize>,
        out: Option<PathBuf>,
        model: Vec<FileModel>,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileModel {
    name: Option<String>,
    model: String,
    #[serde(default)]
    ranks: BTreeMap<String, toml::Value>,
    #[serde(default)]
    fixed: Vec<String>,
    match_parameters: Option<OneOrMany<u64>>,
    #[serde(default)]
    penalties: Vec<String>,
}

/// No study is longer, in bytes.
const LONGEST: u64 = 16 << 20;

/// Reads a study from a file. Paths in it are relative to its folder.
pub fn read(path: &Path) -> Result<Spec> {
    let text = io::read_text(path, "a study", LONGEST)?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<Spec> {
    let mut file: File = toml::from_str(text).map_err(|e| {
        Error::format(path, format!("this is not a study: {}", e.to_string().trim()))
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    // What is wrong with a value is said with the file's name before it.
    let of = |error: Error| match error {
        error @ (Error::File { .. } | Error::Format { .. }) => error,
        error => Error::format(path, error.to_string()),
    };
    let near = |path: PathBuf| folder.join(path);
    let mut models = Vec::new();
    for model in std::mem::take(&mut file.model) {
        models.push(model_spec(model).map_err(of)?);
    }
    let keys = file.data_keys();
    let (heldout, validation, split_seed) = (keys.heldout, keys.validation, keys.split_seed);
    let data = keys.record(folder).map_err(of)?;
    let algorithms: Result<Vec<AlgorithmArg>> =
        file.algorithms.iter().map(|text| value("algorithms", text)).collect();
    let memory_limit = file.memory_limit.as_deref().map(|text| {
        args::bytes(text).map_err(|e| Error::Setting(format!("memory_limit = {text:?}: {e}")))
    });
    let precision = file.precision.as_deref().map(|text| value::<PrecisionArg>("precision", text));
    let data_as = file.data_as.as_deref().map(|text| value::<DataAsArg>("data_as", text));
    Ok(Spec {
        heldout,
        validation,
        heldout_as: data.heldout_as,
        zeros_per_nonzero: data.zeros_per_nonzero,
        // The study withholds anew in every split.
        data: DataRecord {
            heldout: None,
            validation: None,
            heldout_as: None,
            zeros_per_nonzero: None,
            split_seed: 0,
            ..data
        },
        models,
        losses: spec::losses(&file.losses, folder).map_err(of)?,
        penalties: spec::penalties(&file.penalties).map_err(of)?,
        algorithms: algorithms.map_err(of)?.into_iter().map(Into::into).collect(),
        learning_rates: OneOrMany::to_vec(file.learning_rate),
        precision: precision.transpose().map_err(of)?.map(Into::into),
        max_iter: file.max_iter,
        tol: file.tol,
        memory_limit: memory_limit.transpose().map_err(of)?,
        data_as: data_as.transpose().map_err(of)?.map(Into::into),
        early_stopping: file.early_stopping,
        splits: file.splits,
        starts: file.starts,
        split_seed,
        seed: file.seed,
        match_parameters: OneOrMany::to_vec(file.match_parameters),
        path: file.path.as_deref().map(study_path).transpose().map_err(of)?,
        score: file.score.as_deref().map(spec::score).transpose().map_err(of)?,
        device: file.device,
        threads: file.threads,
        out: Some(file.out.map_or_else(|| path.with_extension(""), near)),
    })
}

fn study_path(text: &str) -> Result<StudyPath> {
    text.parse().map_err(|why| Error::Setting(format!("path: {why}")))
}

fn model_spec(model: FileModel) -> Result<ModelSpec> {
    let name = match model.name {
        Some(name) => name,
        None => model.model.split_whitespace().collect(),
    };
    spec::check_name(&name)?;
    let refuse = |what: String| Err(Error::Setting(format!("model {name:?}: {what}")));
    let one = |text: &str| {
        let mut letters = text.chars();
        letters.next().filter(|_| letters.next().is_none())
    };
    let mut ranks = Vec::new();
    for (key, value) in &model.ranks {
        let Some(letter) = one(key) else {
            return refuse(format!("ranks: {key:?} is not one letter"));
        };
        let values = match value {
            toml::Value::Array(values) => values.clone(),
            value => vec![value.clone()],
        };
        let sizes: Option<Vec<usize>> = values
            .iter()
            .map(|v| usize::try_from(v.as_integer()?).ok().filter(|&n| n > 0))
            .collect();
        match sizes {
            Some(sizes) if !sizes.is_empty() => {
                ranks.push(RankSpec { letter, ranks: sizes, fixed: false });
            }
            _ => {
                return refuse(format!(
                    "ranks: {letter} = {value}, but a whole number of at least 1 or a list of such is expected"
                ));
            }
        }
    }
    for text in &model.fixed {
        match ranks.iter_mut().find(|rank| one(text) == Some(rank.letter)) {
            Some(rank) => rank.fixed = true,
            None => return refuse(format!("fixed: {text:?} is not a letter that has ranks here")),
        }
    }
    Ok(ModelSpec {
        penalties: spec::penalties(&model.penalties)
            .map_err(|e| Error::Setting(format!("model {name:?}: {e}")))?,
        name,
        model: model.model,
        ranks,
        match_parameters: OneOrMany::to_vec(model.match_parameters),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        data = "uber.npz"
        key = "Y"
        heldout = 0.1
        validation = 0.05
        early_stopping = true
        splits = 3
        losses = ["kl", "ab:0.7:0"]
        penalties = ["none", "l2=0.1"]
        algorithms = ["grouped", "adam"]
        learning_rate = 0.05
        precision = "f64"
        score = "mae"
        match_parameters = [25000, 50000]

        [[model]]
        name = "custom"
        model = "wr,hr,dr,ikr,jkr->whdij"
        ranks = { r = 40, k = [4, 6] }
        fixed = ["k"]

        [[model]]
        model = "wr,hr,dr,ir,jr -> whdij"
        ranks = { r = 195 }
        match_parameters = 20000
    "#;

    #[test]
    fn damaged_studies_never_panic() {
        crate::cli::damaged_texts::check_reader(WHOLE, parse);
    }

    #[test]
    fn a_file_says_what_to_compare() {
        let spec = parse(WHOLE, Path::new("studies/uber.toml")).unwrap();
        assert_eq!(spec.data.path, Path::new("studies/uber.npz"));
        assert_eq!(spec.out.as_deref(), Some(Path::new("studies/uber")));
        let [custom, cp] = &spec.models[..] else { panic!("two models") };
        assert_eq!((custom.name.as_str(), cp.name.as_str()), ("custom", "wr,hr,dr,ir,jr->whdij"));
        let k = RankSpec { letter: 'k', ranks: vec![4, 6], fixed: true };
        let r = RankSpec { letter: 'r', ranks: vec![40], fixed: false };
        assert_eq!(custom.ranks, [k, r]);
        assert_eq!(spec.match_parameters, [25_000, 50_000]);
        assert_eq!(
            (&cp.match_parameters[..], &spec.learning_rates[..]),
            (&[20_000][..], &[0.05][..])
        );
        assert_eq!((spec.losses.len(), spec.penalties.len(), spec.splits), (2, 2, Some(3)));
        spec.study(false).unwrap().check().unwrap();
    }

    #[test]
    fn mistakes_are_named() {
        let refused = |from: &str, to: &str, parts: &[&str]| {
            let text = WHOLE.replacen(from, to, 1);
            assert_ne!(text, WHOLE);
            let error = match parse(&text, Path::new("uber.toml")) {
                Err(error) => error,
                Ok(spec) => spec.study(false).and_then(|s| s.check()).unwrap_err(),
            };
            let message = error.to_string();
            assert!(error.is_input(), "{message}");
            for part in parts {
                assert!(message.contains(part), "`{part}` is not in: {message}");
            }
        };
        refused("splits", "split", &["uber.toml", "`split`", "`splits`"]);
        refused("fixed", "fix", &["`fix`", "`fixed`", "`ranks`"]);
        refused("splits = 3", "splits = \"three\"", &["splits", "three"]);
        refused("splits = 3", "splits = -3", &["splits", "-3"]);
        refused("\"ab:0.7:0\"", "\"ab:0.7\"", &["uber.toml", "alpha-beta:ALPHA:BETA"]);
        refused("\"l2=0.1\"", "\"l3\"", &["penalty", "l3"]);
        refused("\"grouped\"", "\"sgd\"", &["algorithms", "sgd", "block, grouped, accelerated"]);
        refused("\"f64\"", "\"f16\"", &["precision", "f16", "f32, f64"]);
        refused("\"mae\"", "\"auc\"", &["auc", "poisson"]);
        refused("r = 40", "r = 0", &["custom", "r = 0"]);
        refused("r = 40", "r = 4.5", &["custom", "r = 4.5"]);
        refused("r = 40", "rr = 40", &["custom", "\"rr\""]);
        refused("r = 40, ", "", &["custom", "r"]);
        refused("25000", "many", &["uber.toml"]);
        refused("[25000, 50000]", "\"many\"", &["match_parameters", "a list of them"]);
        refused("[25000, 50000]", "[0]", &["at least 1"]);
        refused("0.05\n        early", "0.0\n        early", &["early stopping", "validation"]);
        refused("rate = 0.05", "rate = -1.0", &["learning rate", "-1"]);
        refused(", \"adam\"]", "]", &["learning rate", "adam"]);
        refused("\"kl\", ", "\"ab:0.7:0\", ", &["alpha-beta(0.7, 0)", "twice"]);
        refused("[\"k\"]", "[\"z\"]", &["custom", "\"z\""]);
        refused("jkr->whdij", "jkr>whdij", &["->"]);
        refused("heldout = 0.1", "heldout = 1.5", &["held-out", "1.5"]);
        let with = |line: &str| format!("heldout = 0.1\n{line}");
        let more = with("heldout_as = \"stratum\"");
        refused("heldout = 0.1", &more, &["heldout_as", "stratum", "strata"]);
        refused("heldout = 0.1", &with("zeros_per_nonzero = 0"), &["zeros per nonzero", "0"]);
        refused("data = \"uber.npz\"", "", &["data"]);
        refused("data = \"uber.npz\"", "data = ", &["uber.toml"]);
    }
}
