//! The file that describes a fit to several tensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args::{AlgorithmArg, DataAsArg, PrecisionArg, value};
use super::compare::spec::losses;
use super::constraints;
use super::data_keys::with_data_keys;
use super::structure;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{Loss, Penalty};
use nneinfact_core::model::Model;
use nneinfact_fit::{DataRecord, LossRecord, NNEinFact, io};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    ranks: BTreeMap<char, usize>,
    algorithm: Option<String>,
    precision: Option<String>,
    data_as: Option<String>,
    max_iter: Option<usize>,
    tol: Option<f64>,
    seed: Option<u64>,
    starts: Option<usize>,
    inner_cycles: Option<usize>,
    prediction_floor: Option<f64>,
    factor_floor: Option<f64>,
    #[serde(default)]
    early_stopping: bool,
    #[serde(default)]
    penalties: Vec<String>,
    #[serde(default)]
    bounds: BTreeMap<String, [f64; 2]>,
    #[serde(default)]
    fix: BTreeMap<String, PathBuf>,
    #[serde(default)]
    tie: Vec<String>,
    #[serde(default)]
    smooth: Vec<String>,
    #[serde(default)]
    simplex: Vec<String>,
    #[serde(default)]
    basis: Vec<String>,
    out: Option<PathBuf>,
    part: Vec<FilePart>,
}

with_data_keys! {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct FilePart {
        name: Option<String>,
        model: String,
        loss: Option<String>,
        weight: Option<f64>,
    }
}

/// One of the tensors.
pub struct PartSpec {
    /// What its files are called.
    pub name: String,
    pub model: Model,
    pub loss: Loss,
    pub loss_record: LossRecord,
    pub weight: f64,
    pub data: DataRecord,
}

/// A fit to several tensors.
pub struct CoupledSpec {
    pub parts: Vec<PartSpec>,
    /// The folder that results are written to.
    pub out: Option<PathBuf>,
    file: File,
    folder: PathBuf,
}

/// No description is longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// Reads a fit from a file. Paths in it are relative to its folder.
pub fn read(path: &Path) -> Result<CoupledSpec> {
    parse(&io::read_text(path, "a description of a fit", LONGEST)?, path)
}

fn parse(text: &str, path: &Path) -> Result<CoupledSpec> {
    let mut file: File = toml::from_str(text).map_err(|e| {
        let why =
            format!("this does not describe a fit to several tensors: {}", e.to_string().trim());
        Error::format(path, why)
    })?;
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let parts = std::mem::take(&mut file.part).into_iter().enumerate();
    let parts: Result<Vec<PartSpec>> = parts.map(|(t, given)| part(t, given, &folder)).collect();
    let parts = parts.map_err(|error| named(path, error))?;
    for (t, part) in parts.iter().enumerate() {
        if parts[..t].iter().any(|other| other.name == part.name) {
            return Err(Error::format(
                path,
                format!(
                    "two parts have the name {:?}: give every part a name of its own",
                    part.name
                ),
            ));
        }
    }
    let out = file.out.take().map(|out| folder.join(out));
    Ok(CoupledSpec { parts, out, file, folder })
}

/// What is wrong with a value is said with the file's name before it.
fn named(path: &Path, error: Error) -> Error {
    match error {
        error @ (Error::File { .. } | Error::Format { .. }) => error,
        error => Error::format(path, error.to_string()),
    }
}

fn part(t: usize, mut given: FilePart, folder: &Path) -> Result<PartSpec> {
    let name = given.name.clone().unwrap_or_else(|| {
        given.data.file_stem().map_or_else(|| (t + 1).to_string(), |s| s.to_string_lossy().into())
    });
    let refuse = |why: String| Err(Error::Setting(format!("part {name:?}: {why}")));
    if name.is_empty() || name.contains(['/', '\\', ':']) || name.starts_with('.') {
        return refuse("its name is to be that of a file: no slash, no colon, no dot first".into());
    }
    let about = |error: Error| match error {
        error @ (Error::File { .. } | Error::Format { .. }) => error,
        error => Error::Setting(format!("part {name:?}: {error}")),
    };
    let data = given.data_keys().record(folder).map_err(about)?;
    let text = given.loss.unwrap_or_else(|| "kl".into());
    let tried = losses(&[text], folder).map_err(about)?;
    let Some((loss, loss_record)) = tried.into_iter().next() else {
        return refuse("it has no loss".into());
    };
    Ok(PartSpec {
        model: Model::parse(&given.model).map_err(|error| about(error.into()))?,
        loss,
        loss_record,
        weight: given.weight.unwrap_or(1.0),
        data,
        name,
    })
}

impl CoupledSpec {
    /// The files that are read.
    pub fn inputs(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = self.file.fix.values().map(PathBuf::as_path).collect();
        for PartSpec { data, .. } in &self.parts {
            all.push(&data.path);
            let optional = [
                &data.mask,
                &data.weights,
                &data.missing,
                &data.heldout_mask,
                &data.heldout_coordinates,
                &data.validation_coordinates,
            ];
            all.extend(optional.into_iter().filter_map(|path| path.as_deref()));
            let orders = data.table.iter().flat_map(|table| &table.orders);
            all.extend(orders.map(|(_, path)| path.as_path()));
            let names = [&data.row_names, &data.column_names];
            all.extend(names.into_iter().filter_map(|path| path.as_deref()));
        }
        all
    }

    /// Puts what the file says into the settings of a fit; reads fixed factors and graphs.
    ///
    /// # Errors
    /// Where something of it cannot be read or is not what is expected, with the key that says it.
    pub fn settings(&self, mut settings: NNEinFact) -> Result<NNEinFact> {
        let File { ranks, penalties, bounds, fix, tie, smooth, simplex, basis, .. } = &self.file;
        settings = settings
            .ranks(ranks.iter().map(|(&letter, &rank)| (letter, rank)))
            .early_stopping(self.file.early_stopping);
        macro_rules! set {
            ($($setting:ident = $value:expr),+ $(,)?) => {
                $(if let Some(value) = $value { settings = settings.$setting(value); })+
            };
        }
        set! {
            max_iter = self.file.max_iter,
            tolerance = self.file.tol,
            seed = self.file.seed,
            starts = self.file.starts,
            inner_cycles = self.file.inner_cycles,
            prediction_floor = self.file.prediction_floor,
            factor_floor = self.file.factor_floor,
        }
        if let Some(text) = &self.file.algorithm {
            settings = settings.algorithm(value::<AlgorithmArg>("algorithm", text)?.into());
        }
        if let Some(text) = &self.file.precision {
            settings = settings.precision(value::<PrecisionArg>("precision", text)?.into());
        }
        if let Some(text) = &self.file.data_as {
            settings = settings.data_as(value::<DataAsArg>("data_as", text)?.into());
        }
        let wrong =
            |key: &str, text: &str, why: String| Error::Setting(format!("{key}: {text:?}: {why}"));
        for text in penalties {
            match all(text) {
                Some(penalty) => settings = settings.penalty_on_all(penalty),
                None => {
                    let (factor, penalty) =
                        constraints::penalty(text).map_err(|e| wrong("penalties", text, e))?;
                    settings = settings.penalty(&factor, penalty);
                }
            }
        }
        for (factor, &[lower, upper]) in bounds {
            settings = settings.bounds(factor, lower, upper);
        }
        for (factor, path) in fix {
            settings = settings.fix(factor, io::read_array_f64(self.folder.join(path), None)?);
        }
        for text in tie {
            let tie = structure::tie(text).map_err(|e| wrong("tie", text, e))?;
            settings = settings.tie(tie.factors());
        }
        for text in smooth {
            let smoothing = structure::smooth(text).map_err(|e| wrong("smooth", text, e))?;
            let near = smoothing.near(&self.folder);
            settings = settings.smooth(near.factor(), near.smooth()?);
        }
        for text in simplex {
            let simplex = structure::simplex(text).map_err(|e| wrong("simplex", text, e))?;
            settings = settings.simplex(&simplex.factor, simplex.over.as_deref());
        }
        for text in basis {
            let (mode, basis) = structure::basis(text).map_err(|e| wrong("basis", text, e))?;
            settings = settings.basis(mode, basis);
        }
        Ok(settings)
    }
}

/// A penalty on all factors, as in `l2=0.1`.
fn all(text: &str) -> Option<Penalty> {
    (!text.contains(':'))
        .then(|| constraints::penalty(&format!("all:{text}")).ok())?
        .map(|(_, p)| p)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        ranks = { r = 2 }
        algorithm = "grouped"
        penalties = ["l2=0.1", "ir:l1=0.2"]
        smooth = ["jr=0.1"]
        seed = 4

        [[part]]
        data = "ratings.npy"
        model = "ir,jr->ij"

        [[part]]
        name = "traits"
        data = "people.tns"
        model = "ir,kr->ik"
        loss = "euclidean"
        weight = 0.5
        heldout = 0.1
    "#;

    #[test]
    fn damaged_descriptions_never_panic() {
        crate::cli::damaged_texts::check_reader(WHOLE, parse);
    }

    #[test]
    fn a_file_says_what_to_fit() -> Result<()> {
        let spec = parse(WHOLE, Path::new("studies/both.toml"))?;
        let [ratings, traits] = &spec.parts[..] else { panic!("two parts") };
        assert_eq!((ratings.name.as_str(), traits.name.as_str()), ("ratings", "traits"));
        assert_eq!(ratings.data.path, Path::new("studies/ratings.npy"));
        assert_eq!((ratings.weight, traits.weight), (1.0, 0.5));
        assert_eq!(traits.loss.name(), "euclidean");
        assert_eq!(traits.data.heldout, Some(0.1));
        spec.settings(NNEinFact::new("ir,jr->ij")?)?.check()
    }

    #[test]
    fn mistakes_are_named() {
        let refused = |from: &str, to: &str, parts: &[&str]| {
            let text = WHOLE.replacen(from, to, 1);
            assert_ne!(text, WHOLE);
            let done = parse(&text, Path::new("both.toml"))
                .and_then(|spec| spec.settings(NNEinFact::new("ir,jr->ij")?));
            let error = match done {
                Err(error) => error,
                Ok(_) => panic!("{to} is taken"),
            };
            let message = error.to_string();
            assert!(error.is_input(), "{message}");
            for part in parts {
                assert!(message.contains(part), "`{part}` is not in: {message}");
            }
        };
        refused("seed", "sed", &["both.toml", "`sed`"]);
        refused("heldout", "held", &["`held`", "`heldout`"]);
        refused("\"grouped\"", "\"sgd\"", &["algorithm", "sgd", "block, grouped"]);
        refused("l2=0.1", "l0.2=0.1", &["penalties", "l0.2"]);
        refused("jr=0.1", "jr", &["smooth", "jr"]);
        refused("ir,kr->ik", "ir,kr-ik", &["traits"]);
        refused("euclidean", "euclid3", &["traits", "euclid3"]);
        refused("\"traits\"", "\"ratings\"", &["two parts", "ratings"]);
        refused("\"traits\"", "\"../x\"", &["name"]);
        refused("r = 2", "r = \"two\"", &["both.toml", "ranks"]);
        let with = |line: &str| format!("heldout = 0.1\n{line}");
        refused("heldout = 0.1", &with("count = true"), &["traits", "--count", "--modes"]);
        refused(
            "heldout = 0.1",
            &with("modes = \"a,b\"\ncount = true\nsum = \"x\""),
            &["traits", "exclude each other"],
        );
        refused("heldout = 0.1", &with("separator = \"ab\""), &["traits", "separator", "ab"]);
        refused("heldout = 0.1", "heldout_as = \"cells\"", &["traits", "neither is given"]);
        refused("heldout = 0.1", &with("heldout_as = \"stratum\""), &["traits", "stratum"]);
        refused("smooth = [\"jr=0.1\"]", "basis = [\"j=line:3\"]", &["basis", "j=line:3"]);
    }
}
