//! What a file of factors says of the fit that they come from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::io;
use nneinfact_core::data::{LabelKind, Labels, SplitKind};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::History;
use nneinfact_core::loss::{EntryParameter, Loss, LossParameter, LossParameters, LossSpec};
use nneinfact_core::model::Shapes;

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
    /// The rank of every latent index.
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
    /// What holds within and among the factors, as the command line takes it: `tie ir=jr`,
    /// `smooth hr=0.1,cyclic`, `simplex wr`, `basis h=spline:12`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub structure: Vec<String>,
    /// What the modes of the data are called, in their order; none where nothing is known. The
    /// labels of a mode are the array `labels_h` beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modes: Vec<ModeRecord>,
}

/// What a file says of a mode besides its labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModeRecord {
    /// What it is called.
    #[serde(default)]
    pub name: Option<String>,
    /// What its labels are.
    #[serde(default)]
    pub labels: LabelKind,
}

impl ModeRecord {
    /// What labels say of their mode.
    #[must_use]
    pub fn of(labels: &Labels) -> ModeRecord {
        ModeRecord { name: labels.name().map(Into::into), labels: labels.kind().clone() }
    }

    /// The labels, with those of the indices where there are any.
    #[must_use]
    pub fn labels(&self, indices: Option<Vec<String>>) -> Labels {
        let labels = indices.map_or_else(Labels::default, Labels::new);
        let labels = labels.with_kind(self.labels.clone());
        match &self.name {
            Some(name) => labels.with_name(name),
            None => labels,
        }
    }
}

impl Record {
    /// The version of the form that this version of the program writes.
    pub const FORMAT: u32 = 1;
    /// The name of the text in an `.npz`.
    pub const NAME: &'static str = "fit.json";

    pub(crate) fn of(shapes: &Shapes) -> Record {
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
            structure: Vec::new(),
            modes: Vec::new(),
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
    /// As in [`LossParameters`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
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
                (LossParameter::Power, None) => return whole(),
                (LossParameter::Power, Some(power)) => record.power = Some(power),
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
        let parameter = |what: &str,
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
            dispersion: parameter("dispersion", &self.dispersion)?,
            trials: parameter("number of trials", &self.trials)?,
            power: self.power,
        };
        Loss::named(&self.name, &parameters)
    }

    /// As [`Loss::is_odds`], also of a loss that cannot be made again: whether ŷ is the odds p/(1−p) of
    /// the datum, or of the share of its trials, and not its mean.
    #[must_use]
    pub fn is_odds(&self) -> bool {
        matches!(self.name.as_str(), "bernoulli" | "binomial")
    }

    /// The name with the parameters, as [`Loss::name`] writes it.
    #[must_use]
    pub fn describe(&self) -> String {
        let numbers =
            [self.alpha, self.beta, self.power].into_iter().flatten().map(|x| x.to_string());
        let per_entry = [&self.dispersion, &self.trials].into_iter().flatten();
        let per_entry = per_entry.map(|parameter| match parameter {
            EntryParameterRecord::Number(number) => number.to_string(),
            EntryParameterRecord::File(_) | EntryParameterRecord::Unknown => "per entry".into(),
        });
        let parameters: Vec<String> = numbers.chain(per_entry).collect();
        match parameters.as_slice() {
            [] => self.name.clone(),
            parameters => format!("{}({})", self.name, parameters.join(", ")),
        }
    }
}

/// Where the data of a fit are, and what decides the role of their entries. Paths are the names of the
/// files alone, or absolute where that was asked for; `--help` of `nneinfact fit` says what each stands for.
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
    /// The indices of `.tns` files count from 0.
    pub zero_based: bool,
    /// NaN means missing.
    pub nan_missing: bool,
    /// What coordinates do not list is missing.
    pub unlisted_missing: bool,
    /// What coordinates do not list is zero, also where a table's means or maxima would have it
    /// missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unlisted_zero: bool,
    /// How the file is read as a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<TableRecord>,
    /// The names of the rows of a sparse matrix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_names: Option<PathBuf>,
    /// The names of its columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column_names: Option<PathBuf>,
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
    /// How the random splits withhold entries, where that was said; what came of it is in
    /// [`History::heldout_as`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heldout_as: Option<SplitKind>,
    /// How many zeros are drawn beside each nonzero that a split by strata withholds, where that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zeros_per_nonzero: Option<f64>,
    /// The seed of the random splits.
    pub split_seed: u64,
}

/// How a table becomes a tensor, as the options of `nneinfact fit` say it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableRecord {
    /// The modes: `week(time),bin(lat,100)`.
    pub modes: String,
    /// What the values are.
    pub values: ValuesRecord,
    /// Conditions that rows have to meet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    /// Modes whose labels, in their order, stand in a file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<(String, PathBuf)>,
    /// Rows that cannot be read are skipped.
    pub skip_bad: bool,
    /// The texts that stand for a missing value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_texts: Option<Vec<String>>,
    /// How times are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_format: Option<String>,
    /// The zone that times are shown in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What stands between cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separator: Option<char>,
    /// What stands around cells; empty where quotes are ordinary characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quote: Option<String>,
    /// Columns are named by their numbers.
    pub no_header: bool,
    /// The most memory that entries and labels may take, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

/// What the values of a table's tensor are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValuesRecord {
    /// How many rows an entry has.
    #[default]
    Count,
    /// The sum of a column.
    Sum(String),
    /// The mean of a column.
    Mean(String),
    /// The largest value of a column.
    Max(String),
}
