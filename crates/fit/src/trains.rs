//! Tensor trains as files hold them.

use std::io::{BufReader, Read, Seek};
use std::path::Path;
use std::time::SystemTime;

use ndarray::{ArrayD, Dimension, IxDyn, arr0};
use serde::{Deserialize, Serialize};

use crate::io::{self, FileKind};
use nneinfact_core::error::{Error, Result};
use nneinfact_density::{Core, FittedTrain, NonnegativeTrain, TensorTrain};

/// The name of the number that the product of the cores is multiplied by, as a logarithm.
const LOG_SCALE: &str = "log_scale";
/// What the names of cores begin with.
const CORE: &str = "core";

/// How a fit of a train went, sweep by sweep; element 0 is the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainHistory {
    /// `‖P_H − P_G‖² / ‖P_G‖²`.
    pub error: Vec<f64>,
    /// The largest barrier μ_k of a core; 0 without barrier.
    pub barrier: Vec<f64>,
    /// The smallest step length of the sweep.
    pub step: Vec<f64>,
    /// Steps of conjugate gradients of the sweep.
    pub cg_steps: Vec<usize>,
    /// Seconds since the fit began.
    pub seconds: Vec<f64>,
    /// Why it stopped: `target`, `sweeps`, `stalled`, `time` or `interrupted`.
    pub stopped_by: String,
}

impl From<&nneinfact_density::History> for TrainHistory {
    fn from(history: &nneinfact_density::History) -> TrainHistory {
        TrainHistory {
            error: history.error.clone(),
            barrier: history.barrier.clone(),
            step: history.step.clone(),
            cg_steps: history.cg_steps.clone(),
            seconds: history.seconds.clone(),
            stopped_by: history.stopped_by.name().into(),
        }
    }
}

/// Where a train comes from: what `train.json` in its file holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TrainRecord {
    /// The version of this form: [`TrainRecord::FORMAT`].
    pub format: u32,
    /// The program that made it, with its version.
    #[serde(default)]
    pub program: String,
    /// When it was made (RFC 3339, UTC).
    #[serde(default)]
    pub date: Option<String>,
    /// How it was made, in a few words.
    #[serde(default)]
    pub method: Option<String>,
    /// Of a fit, `‖P_H − P_G‖² / ‖P_G‖²` at its end.
    #[serde(default)]
    pub error: Option<f64>,
    /// Of a fit, how it went.
    #[serde(default)]
    pub history: Option<TrainHistory>,
}

impl TrainRecord {
    /// The version of the form that this version of the program writes.
    pub const FORMAT: u32 = 1;
    /// The name of the text in an `.npz`.
    pub const NAME: &'static str = "train.json";
}

/// A tensor train as a file holds it.
///
/// The file is an `.npz` of the arrays `core_1`, …, `core_d`, core k of shape (r_{k−1}, n_k, r_k), and
/// of `log_scale`, all as `<f8` in C order; `log_scale` may be absent and is then 0. The member
/// `train.json`, a [`TrainRecord`], may be absent too.
///
/// ```
/// use nneinfact::density::{NonnegativeTrain, SavedTrain};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("train.npz");
/// let train = NonnegativeTrain::random(&[2, 3, 2], &[2, 2], 1)?;
/// SavedTrain::new(train.clone().into_train()).save(&path)?;
/// assert_eq!(SavedTrain::load(&path)?.nonnegative()?, train);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SavedTrain {
    train: TensorTrain,
    record: TrainRecord,
}

impl From<&FittedTrain> for SavedTrain {
    fn from(fit: &FittedTrain) -> SavedTrain {
        let mut saved = SavedTrain::new(fit.train.train().clone());
        saved.record.error = Some(fit.relative_squared_distance);
        saved.record.history = Some((&fit.history).into());
        saved
    }
}

impl SavedTrain {
    /// A train to be written.
    #[must_use]
    pub fn new(train: TensorTrain) -> SavedTrain {
        let record = TrainRecord {
            format: TrainRecord::FORMAT,
            program: concat!("nneinfact ", env!("CARGO_PKG_VERSION")).into(),
            date: Some(humantime::format_rfc3339_seconds(SystemTime::now()).to_string()),
            ..TrainRecord::default()
        };
        SavedTrain { train, record }
    }

    /// With a few words on how it was made.
    #[must_use]
    pub fn with_method(mut self, method: impl Into<String>) -> SavedTrain {
        self.record.method = Some(method.into());
        self
    }

    /// With how its fit went, in place of what was known.
    #[must_use]
    pub fn with_history(mut self, history: TrainHistory) -> SavedTrain {
        self.record.history = Some(history);
        self
    }

    /// The train.
    #[must_use]
    pub fn train(&self) -> &TensorTrain {
        &self.train
    }

    /// The train as one without negative entries.
    ///
    /// # Errors
    /// [`Error::Init`] where a core has a negative entry.
    pub fn nonnegative(&self) -> Result<NonnegativeTrain> {
        self.train.clone().try_into()
    }

    /// Where it comes from.
    #[must_use]
    pub fn record(&self) -> &TrainRecord {
        &self.record
    }

    /// Writes it to an `.npz`.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be written; what stood there before is then still there.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut arrays: Vec<(String, ArrayD<f64>)> = Vec::new();
        for (k, core) in self.train.cores().iter().enumerate() {
            let array = ArrayD::from_shape_vec(IxDyn(&core.shape()), core.data().to_vec())
                .map_err(|e| Error::Internal(format!("core {k} has another shape: {e}")))?;
            arrays.push((name(CORE, k + 1), array));
        }
        arrays.push((LOG_SCALE.into(), arr0(self.train.log_scale()).into_dyn()));
        let record = serde_json::to_string(&self.record)
            .map_err(|e| Error::Internal(format!("a record cannot be written: {e}")))?;
        io::write_npz_with(path, &arrays, &[(TrainRecord::NAME, &record)])
    }

    /// Reads a file that [`SavedTrain::save`], or `numpy.savez`, wrote.
    ///
    /// # Errors
    /// [`Error::File`] where it cannot be read; [`Error::Format`] where it holds no train: a core is
    /// missing, has not three axes or an entry that is not finite, or neighbours differ in their rank.
    pub fn load(path: impl AsRef<Path>) -> Result<SavedTrain> {
        let path = path.as_ref();
        if FileKind::of(path)? != FileKind::Npz {
            return Err(Error::format(path, "a train is read from a .npz file"));
        }
        let train = read(BufReader::with_capacity(1 << 16, io::open(path)?), path)?;
        Ok(SavedTrain { train, record: record(path)? })
    }

    /// The train of a file in memory, or of any other source; `name` stands for the file in messages.
    ///
    /// # Errors
    /// As [`SavedTrain::load`].
    pub fn train_from(reader: impl Read + Seek, name: impl AsRef<Path>) -> Result<TensorTrain> {
        read(BufReader::new(reader), name.as_ref())
    }

    /// Whether a file holds an array `core_1`, as a train does.
    #[must_use]
    pub fn is_in(path: impl AsRef<Path>) -> bool {
        let first = name(CORE, 1);
        io::npz_names(path).is_ok_and(|list| list.iter().any(|info| info.name == first))
    }
}

/// Reads the arrays `side_first`, …, `side_last` of an `.npz` as cores, such as those of a sketch.
///
/// # Errors
/// As [`SavedTrain::load`], but neighbours are not compared.
pub fn read_cores(
    path: impl AsRef<Path>,
    side: &str,
    modes: std::ops::RangeInclusive<usize>,
) -> Result<Vec<Core>> {
    let path = path.as_ref();
    let file = BufReader::with_capacity(1 << 16, io::open(path)?);
    let wanted = |text: &str| number(side, text).is_some_and(|k| modes.contains(&k));
    let found = io::read_npz_numbers(file, path, wanted, &[])?;
    modes.map(|k| core(path, &found.list, &found.arrays, &name(side, k))).collect()
}

/// The name of an array of a series, counted from 1.
fn name(series: &str, k: usize) -> String {
    format!("{series}_{k}")
}

/// The number of an array of a series.
fn number(series: &str, text: &str) -> Option<usize> {
    let digits = text.strip_prefix(series)?.strip_prefix('_')?;
    digits.parse().ok().filter(|k| *k > 0 && name(series, *k) == text)
}

fn read(reader: impl Read + Seek, path: &Path) -> Result<TensorTrain> {
    let wanted = |text: &str| number(CORE, text).is_some();
    let found = io::read_npz_numbers(reader, path, wanted, &[LOG_SCALE])?;
    // Of all that are named so, those that are no arrays of numbers too: they are told of one by one.
    let last = found.list.iter().filter_map(|info| number(CORE, &info.name)).max();
    let Some(last) = last else {
        return Err(Error::format(
            path,
            format!(
                "a train is held by the arrays core_1, core_2, …, each of shape (left rank, size, right \
                 rank); there is {}",
                io::listed(&found.list)
            ),
        ));
    };
    let count = found.list.iter().filter(|info| number(CORE, &info.name).is_some()).count();
    if last > count {
        // Not one message for each: the largest number may be any.
        let missing = (1..=last).find(|&k| found.list.iter().all(|i| i.name != name(CORE, k)));
        return Err(Error::format(
            path,
            format!(
                "there is {}, but no {}: cores are counted from 1 without a gap",
                name(CORE, last),
                name(CORE, missing.unwrap_or(1))
            ),
        ));
    }
    let cores = (1..=last).map(|k| core(path, &found.list, &found.arrays, &name(CORE, k)));
    let cores: Vec<Core> = cores.collect::<Result<_>>()?;
    check_chain(path, &cores)?;
    let log_scale = match found.numbers.first() {
        None => 0.0,
        Some((_, scale)) if scale.is_finite() => *scale,
        Some((_, scale)) => {
            return Err(Error::format(
                path,
                format!("{LOG_SCALE} is {scale}; it has to be finite"),
            ));
        }
    };
    TensorTrain::new(cores, log_scale).map_err(|e| Error::format(path, e.to_string()))
}

/// One core out of the arrays of a file.
fn core(
    path: &Path,
    list: &[io::ArrayInfo],
    arrays: &[(String, ArrayD<f64>)],
    name: &str,
) -> Result<Core> {
    let refuse = |why: String| Err(Error::format(path, why));
    let Some(info) = list.iter().find(|info| info.name == name) else {
        return refuse(format!("there is no array {name}; there is {}", io::listed(list)));
    };
    let Some((_, array)) = arrays.iter().find(|(other, _)| other == name) else {
        return refuse(format!("{info} is no array of numbers with the axes of a core"));
    };
    let &[left, size, right] = array.shape() else {
        return refuse(format!(
            "{name} has shape {:?}, but a core has three axes: left rank, size, right rank (at the \
             ends of a train a rank is 1)",
            array.shape()
        ));
    };
    if let Some((at, x)) = array.indexed_iter().find(|(_, x)| !x.is_finite()) {
        return refuse(format!(
            "{name} is {x} at index {:?}; entries have to be finite",
            at.slice()
        ));
    }
    Core::new([left, size, right], array.iter().copied().collect())
        .map_err(|e| Error::format(path, format!("{name}: {e}")))
}

/// The error if cores do not make a train, with the names that they have in their file.
fn check_chain(path: &Path, cores: &[Core]) -> Result<()> {
    let refuse = |why: String| Err(Error::format(path, why));
    let (first, last) = (&cores[0], &cores[cores.len() - 1]);
    for (core, k, rank, side) in
        [(first, 1, first.left(), "left"), (last, cores.len(), last.right(), "right")]
    {
        if rank != 1 {
            return refuse(format!(
                "{} has shape {:?}: its rank to the {side} has to be 1, as the train ends there",
                name(CORE, k),
                core.shape()
            ));
        }
    }
    for (k, pair) in cores.windows(2).enumerate() {
        if pair[0].right() != pair[1].left() {
            return refuse(format!(
                "{} has shape {:?} and {} has {:?}: the right rank of the one has to be the left rank \
                 of the other",
                name(CORE, k + 1),
                pair[0].shape(),
                name(CORE, k + 2),
                pair[1].shape()
            ));
        }
    }
    Ok(())
}

/// What a file says of its train; nothing where another program wrote it.
fn record(path: &Path) -> Result<TrainRecord> {
    let Some(text) = io::read_npz_text(path, TrainRecord::NAME)? else {
        return Ok(TrainRecord::default());
    };
    let wrong = |why: String| Error::format(path, format!("{}: {why}", TrainRecord::NAME));
    let record: TrainRecord = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    if record.format != TrainRecord::FORMAT {
        return Err(wrong(format!(
            "it has form {}, but this version reads form {} only",
            record.format,
            TrainRecord::FORMAT
        )));
    }
    Ok(record)
}
