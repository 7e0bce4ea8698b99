//! `nneinfact predict`: what a fit predicts, at all entries, some, or those that are missing.

use std::path::{Path, PathBuf};

use clap::Args;
use ndarray::IxDyn;

use super::answer::{AnswerFile, AnswerKind, Columns};
use super::mode_names::ModeNames;
use super::read_data::{self, ReadOptions};
use super::summary::count;
use super::{entry_list, print};
use nneinfact_core::data::{CooTensor, Observations, Prepared, Role};
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::io::{self, FileKind};
use nneinfact_fit::{Blocks, DataRecord, FactoredTensor, Saved};

/// The arguments of `predict`.
#[derive(Debug, Args)]
pub struct PredictArgs {
    #[command(flatten)]
    fit: FitFile,

    /// Predict the entries that this file lists, in its order: a .tns (indices from 1, a value or
    /// none) or a .csv with a column for each mode, titled by its letter or its name
    #[arg(long, value_name = "CELLS.tns|CELLS.csv", group = "which")]
    at: Option<PathBuf>,

    /// Predict a slice, with some modes fixed, as in w=3,h=8: labels where the fit has labels, else
    /// indices from 0; w=#3 is an index in any case
    #[arg(long, value_name = "MODE=VALUE,…", group = "which")]
    slice: Option<String>,

    /// Predict what is missing in these data: NaN of a .npy or .npz, what a .tns or a table does not
    /// list, and what the fit's --mask and --missing leave out. A .csv or .tns gets these entries only; a .npy
    /// the whole tensor, with the data where there are some
    #[arg(long, value_name = "DATA", group = "which")]
    missing_only: Option<PathBuf>,

    /// The array to read from an .npz with --missing-only
    #[arg(long, value_name = "NAME", requires = "missing_only")]
    key: Option<String>,

    /// Of a loss on odds (bernoulli, binomial), probabilities in place of odds
    #[arg(long)]
    probabilities: bool,

    /// Where to write the predictions: .npy (little-endian f8 in C order, axes as in the model), .tns
    /// or .csv
    #[arg(long, value_name = "FILE.npy|.tns|.csv")]
    out: PathBuf,
}

/// A file of a fit.
#[derive(Debug, Args)]
#[group(skip)]
pub struct FitFile {
    /// A fit as `nneinfact fit --out` writes it, or an .npz of arrays theta_1 to theta_L of another
    /// program, with --model
    #[arg(value_name = "FIT.npz")]
    pub fit: PathBuf,

    /// The model of a file that does not say it
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
}

impl FitFile {
    /// Reads it.
    pub fn load(&self) -> Result<Saved> {
        load(&self.fit, self.model.as_deref())
    }
}

/// Reads a fit.
pub fn load(path: &Path, model: Option<&str>) -> Result<Saved> {
    if path.is_file() && !FileKind::of(path).is_ok_and(|kind| kind == FileKind::Npz) {
        return Err(Error::format(
            path,
            "a fit is expected, an .npz as `nneinfact fit --out` writes it",
        ));
    }
    match model {
        Some(model) => Saved::load_as(path, model),
        None => Saved::load(path).map_err(|e| match e {
            Error::Format { path, reason } if reason.contains("name the model") => {
                Error::Format { path, reason: format!("{reason}, with --model") }
            }
            e => e,
        }),
    }
}

/// What ŷ is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As it is.
    Plain,
    /// Odds as probabilities.
    Probability,
}

impl Scale {
    /// Refuses probabilities of a loss that is not on odds.
    pub fn new(probabilities: bool, saved: &Saved) -> Result<Scale> {
        if !probabilities {
            return Ok(Scale::Plain);
        }
        let loss = saved.record().loss.as_ref();
        if loss.is_some_and(nneinfact_fit::LossRecord::is_odds) {
            return Ok(Scale::Probability);
        }
        let of = match loss {
            Some(loss) => format!("of a fit with the {} loss ŷ is the mean", loss.describe()),
            None => "the file does not say its loss".into(),
        };
        Err(Error::Setting(format!(
            "--probabilities is for losses on odds, bernoulli and binomial: {of}"
        )))
    }

    /// ŷ on the scale.
    pub fn of(self, y: f64) -> f64 {
        match self {
            Scale::Plain => y,
            Scale::Probability if y.is_finite() => y / (1.0 + y),
            Scale::Probability => 1.0,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Scale::Plain => "prediction",
            Scale::Probability => "probability",
        }
    }
}

/// Predicts, and writes a file.
pub fn run(args: &PredictArgs) -> Result<()> {
    let optional = [args.at.as_deref(), args.missing_only.as_deref()];
    let inputs: Vec<&Path> =
        std::iter::once(args.fit.fit.as_path()).chain(optional.into_iter().flatten()).collect();
    let out = AnswerFile::new("--out", &args.out, &inputs)?;
    let saved = args.fit.load()?;
    let names = ModeNames::of(&saved);
    let job = PredictJob {
        saved: &saved,
        names: &names,
        out: &out,
        scale: Scale::new(args.probabilities, &saved)?,
    };
    let written = match (&args.at, &args.slice, &args.missing_only) {
        (Some(path), ..) => job.at(&entry_list::read(path, &names)?)?,
        (_, Some(slice), _) => job.slice(&names.fixed("--slice", slice)?)?,
        (.., Some(data)) => job.missing(data, args.key.as_deref())?,
        (None, None, None) => job.slice(&vec![None; names.shape().len()])?,
    };
    print(&format!("{}: {written}\n", args.out.display()))
}

/// What predictions are made of, and where they go.
struct PredictJob<'a> {
    saved: &'a Saved,
    names: &'a ModeNames,
    out: &'a AnswerFile,
    scale: Scale,
}

impl PredictJob<'_> {
    fn columns<'a>(&self, modes: &'a [usize], shape: &'a [usize]) -> Columns<'a> {
        Columns { modes, value: Some(self.scale.title()), shape }
    }

    /// At single entries.
    fn at(&self, entries: &[Vec<usize>]) -> Result<String> {
        let predicted = self.saved.factored().predict_many(entries)?;
        let modes: Vec<usize> = (0..self.names.shape().len()).collect();
        self.out.write(self.names, &self.columns(&modes, &[entries.len()]), |put| {
            entries.iter().zip(predicted).try_for_each(|(index, y)| put(index, self.scale.of(y)))
        })?;
        Ok(format!("{} entries", count(entries.len() as u64)))
    }

    /// With some modes fixed.
    fn slice(&self, fixed: &[Option<usize>]) -> Result<String> {
        if fixed.iter().all(Option::is_some) {
            return self.at(&[fixed.iter().map(|i| i.unwrap_or(0)).collect()]);
        }
        let known: Vec<(char, usize)> = fixed
            .iter()
            .enumerate()
            .filter_map(|(mode, i)| Some((self.names.letter(mode), (*i)?)))
            .collect();
        let tensor = match known.is_empty() {
            true => self.saved.factored().clone(),
            false => self.saved.factored().given(&known)?,
        };
        let shape = tensor.shapes().data();
        let rows: f64 = shape.iter().map(|&n| n as f64).product();
        let what = if known.is_empty() { "the tensor" } else { "the slice" };
        self.out.check_size(what, rows, fixed.len())?;
        let modes: Vec<usize> = (0..fixed.len()).collect();
        self.out.write(self.names, &self.columns(&modes, &shape), |put| {
            each_entry(&tensor, |own, y| {
                let mut own = own.iter();
                let index: Vec<usize> = fixed
                    .iter()
                    .map(|i| i.unwrap_or_else(|| own.next().copied().unwrap_or(0)))
                    .collect();
                put(&index, self.scale.of(y))
            })
        })?;
        Ok(format!("{} entries, shape {shape:?}", count(rows as u64)))
    }

    /// At the entries that data lack.
    fn missing(&self, path: &Path, key: Option<&str>) -> Result<String> {
        let record = self.record(path, key);
        let observations = self.data(&record)?;
        let implicit_missing = observations.coordinates().is_some();
        let prepared = observations.prepare()?;
        let tensor = self.saved.factored();
        let shape = tensor.shapes().data();
        let listed = match &record.missing {
            Some(path) => Some(io::read_tns(path, Some(&shape))?),
            None => None,
        };
        let absent = MissingEntries { prepared: &prepared, implicit_missing, listed };
        let rows: f64 = shape.iter().map(|&n| n as f64).product();
        self.out.check_size("the tensor", rows, shape.len())?;
        let modes: Vec<usize> = (0..shape.len()).collect();
        let whole = self.out.kind == AnswerKind::Npy;
        let mut found = 0u64;
        self.out.write(self.names, &self.columns(&modes, &shape), |put| {
            each_entry(tensor, |index, y| match absent.is_missing(index) {
                true => {
                    found += 1;
                    put(index, self.scale.of(y))
                }
                false if whole => put(index, observations.value(index).unwrap_or(f64::NAN)),
                false => Ok(()),
            })
        })?;
        let all = if whole { ", the others as they are in the data" } else { "" };
        Ok(format!("{} missing entries of {} predicted{all}", count(found), count(rows as u64)))
    }

    /// Where the data are, and what is left out of them.
    fn record(&self, path: &Path, key: Option<&str>) -> DataRecord {
        let known = self.saved.record().data.clone().unwrap_or_default();
        let packed = FileKind::of(path).is_ok_and(|kind| kind == FileKind::Npz);
        let coordinates = FileKind::of(path).is_ok_and(|kind| kind == FileKind::Tns);
        DataRecord {
            path: path.into(),
            key: key.map(String::from).or(known.key.filter(|_| packed)),
            shape: coordinates.then(|| self.names.shape()),
            mask: known.mask,
            missing: known.missing,
            table: known.table,
            row_names: known.row_names,
            column_names: known.column_names,
            ..DataRecord::default()
        }
    }

    fn data(&self, record: &DataRecord) -> Result<Observations> {
        let letters: Vec<char> =
            (0..self.names.shape().len()).map(|m| self.names.letter(m)).collect();
        let options = ReadOptions { letters: Some(&letters), stream: None, quiet: true };
        let observations = read_data::observations(record, options)?;
        let (observations, _) =
            self.saved.relabeled(observations, &letters.iter().collect::<String>())?;
        let shape = self.names.shape();
        if observations.shape() != shape {
            return Err(Error::Shape {
                what: format!("the data in {}", record.path.display()),
                found: format!("{:?}", observations.shape()),
                expected: format!("{shape:?}, that of the fit's"),
            });
        }
        Ok(match observations.coordinates() {
            Some(_) => observations.unlisted_missing(),
            None => observations.nan_missing(),
        })
    }
}

/// Calls `each` with every entry of ŷ in C order.
fn each_entry(
    tensor: &FactoredTensor,
    mut each: impl FnMut(&[usize], f64) -> Result<()>,
) -> Result<()> {
    let blocks = Blocks::in_c_order(&tensor.shapes().data());
    let mut failed = Ok(());
    tensor.fold_blocks(
        &blocks,
        |_, values| Ok(values.to_vec()),
        |block, values| {
            if failed.is_err() {
                return;
            }
            let sizes: Vec<usize> = block.iter().map(ExactSizeIterator::len).collect();
            failed = ndarray::indices(IxDyn(&sizes)).into_iter().zip(values).try_for_each(
                |(within, value)| {
                    let index: Vec<usize> =
                        (0..sizes.len()).map(|mode| block[mode].start + within[mode]).collect();
                    each(&index, value)
                },
            );
        },
    )?;
    failed
}

/// Which entries data lack.
struct MissingEntries<'a> {
    prepared: &'a Prepared,
    implicit_missing: bool,
    /// Those that are listed as missing.
    listed: Option<CooTensor>,
}

impl MissingEntries<'_> {
    fn is_missing(&self, index: &[usize]) -> bool {
        let data = self.prepared;
        match (data.roles(), data.coo()) {
            (Some(roles), Some(_)) => {
                let place = index.iter().zip(data.shape()).fold(0, |at, (&i, &n)| at * n + i);
                roles.get(place) == Role::Missing
            }
            (Some(roles), None) => {
                data.values().offset(index).is_none_or(|at| roles.get(at) == Role::Missing)
            }
            (None, Some(list)) => {
                let listed = self.listed.as_ref().is_some_and(|l| l.get(index).is_some());
                listed || (self.implicit_missing && list.get(index).is_none())
            }
            (None, None) => false,
        }
    }
}
