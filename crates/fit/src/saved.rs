//! A fit as a file holds it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ndarray::{ArrayD, Axis, IxDyn, Slice};
use serde::{Deserialize, Serialize};

use super::{Fit, History};
use crate::io::{self, FileKind};
use nneinfact_core::algebra::{contract, contract_within};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::{EntryParameter, Loss, LossParameter, LossParameters, LossSpec};
use nneinfact_core::model::{Index, Model, Shapes};
use nneinfact_core::plan::Contraction;

/// A fit as a file holds it: the factors, and what is known of where they come from.
///
/// The file is an `.npz` of the arrays `theta_1`, `theta_2`, …, in the model's order, `weights`
/// beside [normalised](Fit::normalize) ones, and the text `fit.json`, a [`Record`], which other
/// programs do not see ([`io::write_npz_with`]).
///
/// ```
/// use ndarray::array;
/// use nneinfact::NNEinFact;
/// use nneinfact::fit::Saved;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("fit.npz");
/// let y = array![[4.0, 2.0, 8.0], [2.0, 1.0, 4.0]];
/// let fit = NNEinFact::new("ir,jr->ij")?.ranks([('r', 1)]).fit(&y)?;
/// fit.save(&path)?;
///
/// let saved = Saved::load(&path)?;
/// assert_eq!(saved.model().text(), "ir,jr->ij");
/// assert_eq!(saved.factors(), fit.factors());
/// assert_eq!(saved.record().loss.as_ref().map(|l| l.name.as_str()), Some("kl"));
/// assert_eq!(saved.record().history.as_ref().map(|h| h.iterations), Some(fit.history().iterations));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Saved {
    shapes: Shapes,
    factors: Vec<ArrayD<f64>>,
    /// Over all latent letters, in the order of the set.
    weights: Option<ArrayD<f64>>,
    record: Record,
}

/// Where factors come from: what `fit.json` in a file of factors holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// The version of this form: [`Record::FORMAT`].
    pub format: u32,
    /// The program that fitted, with its version; empty where that is not known.
    #[serde(default)]
    pub program: String,
    /// When the fit ended (RFC 3339, UTC).
    #[serde(default)]
    pub date: Option<String>,
    /// The model string.
    pub model: String,
    /// The shape of the data.
    pub shape: Vec<usize>,
    /// The rank of every latent letter.
    pub ranks: BTreeMap<char, usize>,
    /// The loss, where it is known.
    #[serde(default)]
    pub loss: Option<LossRecord>,
    /// The losses sweep by sweep, where they are known.
    #[serde(default)]
    pub history: Option<History>,
    /// Where the data are, and which of their entries were fitted; where that is known.
    #[serde(default)]
    pub data: Option<DataRecord>,
}

impl Record {
    /// The version of the form that this version of the program writes.
    pub const FORMAT: u32 = 1;
    /// The name of the text in an `.npz`.
    pub const NAME: &'static str = "fit.json";

    fn of(shapes: &Shapes) -> Record {
        let model = shapes.model();
        Record {
            format: Record::FORMAT,
            program: String::new(),
            date: None,
            model: model.text().into(),
            shape: shapes.data(),
            ranks: model.latent().iter().map(|x| (x.into(), shapes.size(x))).collect(),
            loss: None,
            history: None,
            data: None,
        }
    }
}

/// A loss by its name and parameters, from which it can be made again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossRecord {
    /// The name as [`Loss::named`] takes it, or that of a loss of one's own.
    pub name: String,
    /// As in [`LossParameters`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// As in [`LossParameters`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// As in [`LossParameters`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispersion: Option<EntryParameterRecord>,
    /// As in [`LossParameters`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trials: Option<EntryParameterRecord>,
}

/// A parameter of a loss that may differ from entry to entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryParameterRecord {
    /// One number for all entries.
    Number(f64),
    /// A file with a number per entry.
    File(PathBuf),
    /// A number per entry that no file is known to hold.
    Unknown,
}

impl LossRecord {
    /// What a loss's [name](Loss::name) says of it. Where a parameter differs from entry to entry, the
    /// name does not say where it is kept: it is [`EntryParameterRecord::Unknown`]. A name that is not one
    /// of [`LOSSES`](nneinfact_core::loss::LOSSES) with its parameters, such as that of a custom loss, is
    /// kept as it is.
    ///
    /// ```
    /// use nneinfact::Loss;
    /// use nneinfact::fit::LossRecord;
    ///
    /// let record = LossRecord::of(Loss::alpha_beta(0.7, 0.0)?.name());
    /// assert_eq!((record.alpha, record.beta), (Some(0.7), Some(0.0)));
    /// assert_eq!(record.loss()?.name(), "alpha-beta(0.7, 0)");
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    #[must_use]
    pub fn of(name: &str) -> LossRecord {
        let whole = || LossRecord { name: name.into(), ..LossRecord::default() };
        let Some((base, rest)) = name.strip_suffix(')').and_then(|n| n.split_once('(')) else {
            return whole();
        };
        let numbers: Vec<Option<f64>> = rest.split(',').map(|x| x.trim().parse().ok()).collect();
        let Some(spec) = LossSpec::find(base).filter(|s| s.parameters.len() == numbers.len())
        else {
            return whole();
        };
        let mut record = LossRecord { name: base.into(), ..LossRecord::default() };
        for (parameter, number) in spec.parameters.iter().zip(numbers) {
            let entry = number.map_or(EntryParameterRecord::Unknown, EntryParameterRecord::Number);
            match (parameter, number) {
                (LossParameter::Alpha | LossParameter::Beta, None) => return whole(),
                (LossParameter::Alpha, Some(alpha)) => record.alpha = Some(alpha),
                (LossParameter::Beta, Some(beta)) => record.beta = Some(beta),
                (LossParameter::Dispersion, _) => record.dispersion = Some(entry),
                (LossParameter::Trials, _) => record.trials = Some(entry),
            }
        }
        record
    }

    /// The loss; reads the files of its parameters.
    ///
    /// # Errors
    /// [`Error::Loss`] for a loss that is none of [`NAMES`](nneinfact_core::loss::NAMES), or has a parameter that
    /// no file is known to hold; as [`io::read_array_f64`] where a file cannot be read.
    pub fn loss(&self) -> Result<Loss> {
        let side = |what: &str,
                    record: &Option<EntryParameterRecord>|
         -> Result<Option<EntryParameter>> {
            Ok(match record {
                None => None,
                Some(EntryParameterRecord::Number(number)) => Some(EntryParameter::Scalar(*number)),
                Some(EntryParameterRecord::File(path)) => {
                    Some(EntryParameter::Tensor(io::read_array_f64(path, None)?))
                }
                Some(EntryParameterRecord::Unknown) => {
                    return Err(Error::Loss(format!(
                        "the {} loss cannot be made again: its {what} differs from entry to entry, \
                         and no file is known that holds it",
                        self.name
                    )));
                }
            })
        };
        let parameters = LossParameters {
            alpha: self.alpha,
            beta: self.beta,
            dispersion: side("dispersion", &self.dispersion)?,
            trials: side("number of trials", &self.trials)?,
        };
        Loss::named(&self.name, &parameters)
    }

    /// The name with the parameters, as [`Loss::name`] writes it.
    #[must_use]
    pub fn describe(&self) -> String {
        let numbers = [self.alpha, self.beta].into_iter().flatten().map(|x| x.to_string());
        let sides = [&self.dispersion, &self.trials].into_iter().flatten().map(|side| match side {
            EntryParameterRecord::Number(number) => number.to_string(),
            EntryParameterRecord::File(_) | EntryParameterRecord::Unknown => "per entry".into(),
        });
        let parameters: Vec<String> = numbers.chain(sides).collect();
        match parameters.as_slice() {
            [] => self.name.clone(),
            parameters => format!("{}({})", self.name, parameters.join(", ")),
        }
    }
}

/// Where the data of a fit are, and what decides the role of their entries. Paths are as they were
/// given, or absolute; `--help` of `nneinfact fit` says what each stands for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataRecord {
    /// The file.
    pub path: PathBuf,
    /// The array in an `.npz`.
    pub key: Option<String>,
    /// The shape that was given with a `.tns`.
    pub shape: Option<Vec<usize>>,
    /// A mask of what is observed.
    pub mask: Option<PathBuf>,
    /// Weights.
    pub weights: Option<PathBuf>,
    /// NaN means missing.
    pub nan_missing: bool,
    /// What a `.tns` does not list is missing.
    pub unlisted_missing: bool,
    /// A list of missing entries.
    pub missing: Option<PathBuf>,
    /// The fraction that is held out at random.
    pub heldout: Option<f64>,
    /// A mask of what is held out.
    pub heldout_mask: Option<PathBuf>,
    /// A list of held-out entries.
    pub heldout_coordinates: Option<PathBuf>,
    /// The fraction that validates, at random.
    pub validation: Option<f64>,
    /// A list of validation entries.
    pub validation_coordinates: Option<PathBuf>,
    /// The seed of the random splits.
    pub split_seed: u64,
}

/// The name in files of the weights that go with normalised factors.
pub const WEIGHTS: &str = "weights";

/// The name of factor `l`, counted from 0, in files.
pub fn factor_name(l: usize) -> String {
    format!("theta_{}", l + 1)
}

impl Fit {
    /// Writes the factors, with what is known of the fit, to an `.npz` that [`Saved::load`] reads.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be written; what stood there before is then still there.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Saved::new(self).save(path)
    }
}

/// Factors in the model's order, and weights where there are any.
type Arrays = (Vec<ArrayD<f64>>, Option<ArrayD<f64>>);

impl Saved {
    /// What [`Fit::save`] writes.
    #[must_use]
    pub fn new(fit: &Fit) -> Saved {
        let shapes = fit.shapes().clone();
        let record = Record {
            program: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).into(),
            date: Some(humantime::format_rfc3339_seconds(SystemTime::now()).to_string()),
            loss: Some(LossRecord::of(&fit.history().loss_name)),
            history: Some(fit.history().clone()),
            ..Record::of(&shapes)
        };
        Saved { shapes, factors: fit.factors().to_vec(), weights: fit.weights().cloned(), record }
    }

    /// Factors of a model that come from elsewhere, with nothing known of their fit.
    ///
    /// # Errors
    /// [`Error::Model`] where the string is no model. [`Error::Init`] where the factors do not have the
    /// letters of the model, letters have different sizes, or an entry is negative or not finite.
    pub fn from_factors(model: &str, factors: Vec<ArrayD<f64>>) -> Result<Saved> {
        let model = Model::parse(model)?;
        Saved::assemble(model, factors, None)
    }

    /// Reads a file that [`Fit::save`] or `nneinfact fit --out` wrote.
    ///
    /// # Errors
    /// [`Error::File`] where it cannot be read; [`Error::Format`] where it does not hold what it should,
    /// also where it was written without `fit.json`: [`Saved::load_as`] reads such files.
    pub fn load(path: impl AsRef<Path>) -> Result<Saved> {
        let path = path.as_ref();
        match Saved::record_in(path)? {
            Some(record) => Saved::with_record(path, record),
            None => Err(Error::format(
                path,
                format!(
                    "there is no {} that says of which model these are the factors: name the model",
                    Record::NAME
                ),
            )),
        }
    }

    /// Reads the factors of a model from a file, whoever wrote it: arrays `theta_1`, `theta_2`, … in
    /// the model's order.
    ///
    /// # Errors
    /// As [`Saved::load`], and [`Error::Model`] where the string is no model; [`Error::Format`] also
    /// where the file says that it holds factors of another model.
    pub fn load_as(path: impl AsRef<Path>, model: &str) -> Result<Saved> {
        let path = path.as_ref();
        let model = Model::parse(model)?;
        let Some(record) = Saved::record_in(path)? else {
            let (factors, weights) = Saved::arrays(path, &model)?;
            return Saved::assemble(model, factors, weights).map_err(|e| in_file(path, &e));
        };
        if Model::parse(&record.model)?.factors() != model.factors()
            || Model::parse(&record.model)?.output() != model.output()
        {
            return Err(Error::format(
                path,
                format!("these are the factors of {}, not of {model}", record.model),
            ));
        }
        Saved::with_record(path, record)
    }

    fn record_in(path: &Path) -> Result<Option<Record>> {
        if FileKind::of(path)? != FileKind::Npz {
            return Err(Error::format(path, "a fit is read from a .npz file"));
        }
        let Some(text) = io::read_npz_text(path, Record::NAME)? else { return Ok(None) };
        let wrong = |why: String| Error::format(path, format!("{}: {why}", Record::NAME));
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        let format = value.get("format").and_then(serde_json::Value::as_u64);
        if format != Some(Record::FORMAT.into()) {
            let found = format.map_or("no form".into(), |n| format!("form {n}"));
            return Err(wrong(format!(
                "it has {found}, but this version reads form {} only",
                Record::FORMAT
            )));
        }
        serde_json::from_value(value).map(Some).map_err(|e| wrong(e.to_string()))
    }

    fn with_record(path: &Path, record: Record) -> Result<Saved> {
        let model = Model::parse(&record.model)
            .map_err(|e| Error::format(path, format!("{}: {e}", Record::NAME)))?;
        let (factors, weights) = Saved::arrays(path, &model)?;
        let saved = Saved::assemble(model, factors, weights).map_err(|e| in_file(path, &e))?;
        if (&record.shape, &record.ranks) != (&saved.record.shape, &saved.record.ranks) {
            return Err(Error::format(
                path,
                format!(
                    "{} says shape {:?} and ranks {:?}, but the factors have shape {:?} and ranks {:?}",
                    Record::NAME,
                    record.shape,
                    record.ranks,
                    saved.record.shape,
                    saved.record.ranks
                ),
            ));
        }
        Ok(Saved { record, ..saved })
    }

    /// The arrays of a file: factors, weights.
    fn arrays(path: &Path, model: &Model) -> Result<Arrays> {
        let mut arrays = io::read_npz_arrays(path)?;
        let found: Vec<String> = arrays.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let mut take = |name: &str| {
            let at = arrays.iter().position(|(n, _)| n == name)?;
            Some(arrays.swap_remove(at).1)
        };
        let count = model.factors().len();
        let mut factors = Vec::with_capacity(count);
        for l in 0..count {
            factors.push(take(&factor_name(l)).ok_or_else(|| {
                Error::format(
                    path,
                    format!(
                        "the model {model} has {count} factors, but there is no array {}; found {}",
                        factor_name(l),
                        found.join(", ")
                    ),
                )
            })?);
        }
        if let Some((extra, _)) = arrays.iter().find(|(name, _)| name.starts_with("theta_")) {
            return Err(Error::format(
                path,
                format!("the model {model} has {count} factors, but there is an array {extra} too"),
            ));
        }
        let at = arrays.iter().position(|(name, _)| name == WEIGHTS);
        Ok((factors, at.map(|at| arrays.swap_remove(at).1)))
    }

    fn assemble(
        model: Model,
        factors: Vec<ArrayD<f64>>,
        weights: Option<ArrayD<f64>>,
    ) -> Result<Saved> {
        let count = model.factors().len();
        if factors.len() != count {
            return Err(Error::Init(format!(
                "the model {model} has {count} factors, not {}",
                factors.len()
            )));
        }
        let mut sizes: BTreeMap<Index, usize> = BTreeMap::new();
        for (l, (factor, letters)) in factors.iter().zip(model.factors()).enumerate() {
            let name = factor_name(l);
            if factor.ndim() != letters.len() {
                return Err(Error::Init(format!(
                    "{name} has shape {:?}, but the factor {} of {model} has {} letters",
                    factor.shape(),
                    model.factor_name(l),
                    letters.len()
                )));
            }
            for (&letter, &size) in letters.iter().zip(factor.shape()) {
                let known = *sizes.entry(letter).or_insert(size);
                if known != size {
                    return Err(Error::Init(format!(
                        "{name} has size {size} along {letter}, but another factor has {known}"
                    )));
                }
            }
            check_entries(&name, factor)?;
        }
        let size = |x: Index| sizes.get(&x).copied().unwrap_or(0);
        let shape: Vec<usize> = model.output().iter().map(|&x| size(x)).collect();
        let ranks: Vec<(char, usize)> =
            model.latent().iter().map(|x| (x.into(), size(x))).collect();
        let shapes = Shapes::new(&model, &shape, &ranks)?;
        let weights = match weights {
            None => None,
            Some(weights) => {
                check_entries(WEIGHTS, &weights)?;
                let latent: Vec<usize> = ranks.iter().map(|r| r.1).collect();
                // Single numbers are written as arrays of one.
                let scalar = latent.is_empty() && weights.len() == 1;
                if weights.shape() != latent && !scalar {
                    return Err(Error::Init(format!(
                        "the weights have shape {:?}, but the latent letters of {model} have {latent:?}",
                        weights.shape()
                    )));
                }
                let entries = weights.iter().copied().collect();
                ArrayD::from_shape_vec(IxDyn(&latent), entries).ok()
            }
        };
        let record = Record::of(&shapes);
        Ok(Saved { shapes, factors, weights, record })
    }

    /// Writes it to an `.npz`.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be written; what stood there before is then still there.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut arrays: Vec<(String, ndarray::ArrayViewD<'_, f64>)> =
            self.factors.iter().enumerate().map(|(l, f)| (factor_name(l), f.view())).collect();
        if let Some(weights) = &self.weights {
            let view = weights.view();
            // Readers pass over single numbers.
            let view = if view.ndim() == 0 { view.insert_axis(Axis(0)) } else { view };
            arrays.push((WEIGHTS.into(), view));
        }
        let text = serde_json::to_string_pretty(&self.record)
            .map_err(|e| Error::file(path, std::io::Error::other(e)))?;
        io::write_npz_with(path, &arrays, &[(Record::NAME, &(text + "\n"))])
    }

    /// The same with a loss of which more is known.
    #[must_use]
    pub fn with_loss(mut self, loss: LossRecord) -> Saved {
        self.record.loss = Some(loss);
        self
    }

    /// The same with another history.
    #[must_use]
    pub fn with_history(mut self, history: History) -> Saved {
        self.record.history = Some(history);
        self
    }

    /// The same with the place of its data.
    #[must_use]
    pub fn with_data(mut self, data: DataRecord) -> Saved {
        self.record.data = Some(data);
        self
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        self.shapes.model()
    }

    /// The model with its sizes.
    #[must_use]
    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// The factors, in the model's order; the axes of each are its letters.
    #[must_use]
    pub fn factors(&self) -> &[ArrayD<f64>] {
        &self.factors
    }

    /// As [`Fit::weights`].
    #[must_use]
    pub fn weights(&self) -> Option<&ArrayD<f64>> {
        self.weights.as_ref()
    }

    /// What is known of the fit.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The sums of the terms of ŷ over all letters but these, in C order of these: with a latent
    /// letter its component weights, with the letter of a mode the totals of ŷ along it.
    #[must_use]
    pub fn totals(&self, letters: &[Index]) -> Vec<f64> {
        totals(&self.shapes, &self.factors, self.weights.as_ref(), letters)
    }

    /// The sums of ŷ² over all modes but these, in C order of these; `None` where the alphabet has no
    /// letters left for that, or the products on the way do not fit in memory.
    pub fn totals_of_squares(&self, letters: &[Index]) -> Option<Vec<f64>> {
        let (shapes, pairs) = self.shapes.doubled()?;
        let other = |x: Index| pairs.iter().find(|(y, _)| *y == x).map_or(x, |pair| pair.1);
        let latent: Vec<Index> = self.model().latent().iter().collect();
        let mut names: Vec<Vec<Index>> = self.model().factors().to_vec();
        let mut data: Vec<Vec<f64>> =
            self.factors.iter().map(|f| f.iter().copied().collect()).collect();
        if let Some(weights) = &self.weights {
            names.push(latent);
            data.push(weights.iter().copied().collect());
        }
        let twin: Vec<Vec<Index>> =
            names.iter().map(|n| n.iter().map(|&x| other(x)).collect()).collect();
        let all: Vec<&[Index]> = names.iter().chain(&twin).map(Vec::as_slice).collect();
        let views: Vec<&[f64]> = data.iter().chain(&data).map(Vec::as_slice).collect();
        contract_within(&shapes, &Contraction::new(&shapes, &all, letters), &views).ok()
    }

    /// ŷ over a block of indices (a range for each mode of the data), with its axes in the order of
    /// `order`, a permutation of the model's output.
    pub fn block(&self, ranges: &[Range<usize>], order: &[Index]) -> Result<Vec<f64>> {
        block_of(&self.shapes, &self.factors, self.weights.as_ref(), ranges, order)
    }
}

/// As [`Saved::block`], of factors.
pub fn block_of(
    shapes: &Shapes,
    factors: &[ArrayD<f64>],
    weights: Option<&ArrayD<f64>>,
    ranges: &[Range<usize>],
    order: &[Index],
) -> Result<Vec<f64>> {
    let model = shapes.model();
    let shape: Vec<usize> = ranges.iter().map(Range::len).collect();
    let ranks: Vec<(char, usize)> =
        model.latent().iter().map(|x| (x.into(), shapes.size(x))).collect();
    let local = Shapes::new(model, &shape, &ranks)?;
    let parts: Vec<ArrayD<f64>> = factors
        .iter()
        .zip(model.factors())
        .map(|(factor, letters)| {
            let mut view = factor.view();
            for (axis, letter) in letters.iter().enumerate() {
                if let Some(mode) = model.output().iter().position(|x| x == letter) {
                    view.slice_axis_inplace(Axis(axis), Slice::from(ranges[mode].clone()));
                }
            }
            view.to_owned()
        })
        .collect();
    totals_within(&local, &parts, weights, order)
}

/// The sums of the terms of ŷ over all letters but `output`.
pub(super) fn totals(
    shapes: &Shapes,
    factors: &[ArrayD<f64>],
    weights: Option<&ArrayD<f64>>,
    output: &[Index],
) -> Vec<f64> {
    with_all(shapes, factors, weights, output, contract)
}

/// As [`totals`], over sizes that may be large.
///
/// # Errors
/// [`Error::Memory`] where the products on the way do not fit in memory.
fn totals_within(
    shapes: &Shapes,
    factors: &[ArrayD<f64>],
    weights: Option<&ArrayD<f64>>,
    output: &[Index],
) -> Result<Vec<f64>> {
    with_all(shapes, factors, weights, output, contract_within)
}

/// Contracts all tensors of ŷ onto some letters.
fn with_all<T>(
    shapes: &Shapes,
    factors: &[ArrayD<f64>],
    weights: Option<&ArrayD<f64>>,
    output: &[Index],
    contract: impl FnOnce(&Shapes, &Contraction, &[&[f64]]) -> T,
) -> T {
    let model = shapes.model();
    let latent: Vec<Index> = model.latent().iter().collect();
    let mut letters: Vec<&[Index]> = model.factors().iter().map(Vec::as_slice).collect();
    let mut data: Vec<Vec<f64>> = factors.iter().map(|f| f.iter().copied().collect()).collect();
    if let Some(weights) = weights {
        letters.push(&latent);
        data.push(weights.iter().copied().collect());
    }
    let views: Vec<&[f64]> = data.iter().map(Vec::as_slice).collect();
    contract(shapes, &Contraction::new(shapes, &letters, output), &views)
}

fn check_entries(name: &str, array: &ArrayD<f64>) -> Result<()> {
    match array.indexed_iter().find(|(_, x)| !(x.is_finite() && **x >= 0.0)) {
        None => Ok(()),
        Some((index, x)) => Err(Error::Init(format!(
            "{name} is {x} at index {:?}, but entries have to be finite and at least 0",
            ndarray::Dimension::slice(&index)
        ))),
    }
}

fn in_file(path: &Path, error: &Error) -> Error {
    Error::format(path, error.to_string())
}
