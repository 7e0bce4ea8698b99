//! Reads the data of a fit from files, with the role of every entry.

use std::path::{Path, PathBuf};

use super::part_files::{PartFiles, read_tns};
use super::read_table::{self, DataKind};
use super::{complain, summary};
use crate::io::{NamedTensor, read_scipy};
use nneinfact_core::data::{Observations, Role, SplitKind};
use nneinfact_core::error::{Error, Result, bytes};
use nneinfact_core::memory::available_memory;
use nneinfact_fit::DataRecord;
use nneinfact_fit::io::{self, FileKind, TnsOptions};
use nneinfact_table as table;

/// How data are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions<'a> {
    /// The letters of the modes, in the order that the model has them.
    pub letters: Option<&'a [char]>,
    /// Whether they stay in their file; where nothing is said, large ones do.
    pub stream: Option<bool>,
    /// Without a notice.
    pub quiet: bool,
}

/// A path as a file of factors has it: where the file is, if that is asked for, or its name alone, which
/// says nothing of the machine.
pub fn recorded_path(path: &Path, absolute: bool) -> PathBuf {
    match (absolute, path.file_name()) {
        (false, Some(name)) => name.into(),
        (true, _) | (false, None) => {
            std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
        }
    }
}

/// A record with its files as a file of factors has them.
pub fn recorded(record: &DataRecord, absolute: bool) -> DataRecord {
    let whole = |path: &PathBuf| recorded_path(path, absolute);
    let optional = |path: &Option<PathBuf>| path.as_ref().map(whole);
    let path = match read_table::is_standard_input(&record.path) {
        true => record.path.clone(),
        false => whole(&record.path),
    };
    let table = record.table.clone().map(|mut table| {
        table.orders.iter_mut().for_each(|(_, path)| *path = whole(path));
        table
    });
    DataRecord {
        path,
        table,
        row_names: optional(&record.row_names),
        column_names: optional(&record.column_names),
        mask: optional(&record.mask),
        weights: optional(&record.weights),
        missing: optional(&record.missing),
        heldout_mask: optional(&record.heldout_mask),
        heldout_coordinates: optional(&record.heldout_coordinates),
        validation_coordinates: optional(&record.validation_coordinates),
        ..record.clone()
    }
}

/// The data of a fit, and what is to be said of them.
pub struct ReadData {
    /// The data with what goes with them.
    pub observations: Observations,
    /// The letters that the modes were given before there was a model.
    pub letters: Vec<Option<char>>,
    /// What became of the rows of a table.
    pub rows: Option<table::Counts>,
}

/// Reads the data and what goes with them.
pub fn observations(record: &DataRecord, options: ReadOptions<'_>) -> Result<Observations> {
    Ok(read(record, options)?.observations)
}

/// As [`observations`], with what is to be said of them.
pub fn read(record: &DataRecord, options: ReadOptions<'_>) -> Result<ReadData> {
    let (named, rows) = values(record, options)?;
    let NamedTensor { observations, letters } = match options.letters {
        // Arrays know no letters, and what is wrong with their shape is said elsewhere.
        Some(letters) if named.letters.iter().any(Option::is_some) => named.arranged(letters)?,
        _ => named,
    };
    let observations = with_roles(observations, record, &PartFiles(None))?;
    Ok(ReadData { observations, letters, rows })
}

/// The data, or a part of them, with what goes with them.
pub fn with_roles(
    mut observations: Observations,
    record: &DataRecord,
    files: &PartFiles<'_>,
) -> Result<Observations> {
    // What goes with the data is as large as they are.
    let streamed = observations.values().is_mapped();
    if let Some(path) = &record.mask {
        observations = match streamed {
            true => observations.mask_from(&files.mapped_mask(path)?)?,
            false => observations.mask(&files.mask(path)?)?,
        };
    }
    if let Some(path) = &record.weights {
        observations = observations.weights(files.weights(path, streamed)?)?;
    }
    if record.nan_missing {
        observations = observations.nan_missing();
    }
    if record.unlisted_missing {
        if observations.coordinates().is_none() {
            return Err(Error::Setting(format!(
                "--unlisted-missing is for coordinates and tables, not for {}, which has all entries",
                record.path.display()
            )));
        }
        observations = observations.unlisted_missing();
    }
    let shape = observations.shape().to_vec();
    let coordinates = |path: &Path| files.coordinates(path, &shape, record.zero_based);
    if let Some(path) = &record.missing {
        observations = observations.missing_at(coordinates(path)?)?;
    }
    if let Some(path) = &record.heldout_coordinates {
        observations = observations.held_out_at(coordinates(path)?)?;
    }
    if let Some(path) = &record.validation_coordinates {
        observations = observations.validation_at(coordinates(path)?)?;
    }
    if let Some(fraction) = record.heldout {
        observations = observations.held_out(fraction, record.split_seed)?;
    }
    if let Some(path) = &record.heldout_mask {
        observations = match streamed {
            true => observations.held_out_mask_from(&files.mapped_mask(path)?)?,
            false => observations.held_out_mask(&files.mask(path)?)?,
        };
    }
    if let Some(fraction) = record.validation {
        observations = observations.validation(fraction, record.split_seed)?;
    }
    if let Some(kind) = record.heldout_as {
        observations = observations.split_as(kind);
    }
    if let Some(ratio) = record.zeros_per_nonzero {
        observations = observations.zeros_per_nonzero(ratio)?;
    }
    Ok(observations)
}

/// What a user should know of what is withheld: that it is not every entry by itself, or that it is
/// nothing.
pub fn notices(record: &DataRecord, observations: &Observations) -> Result<Vec<String>> {
    // Of many entries a share is never nothing.
    const FEW: f64 = 1000.0;
    let mut notices: Vec<String> = split_notice(record, observations).into_iter().collect();
    let entries = match observations.coordinates() {
        Some(list) if record.unlisted_missing => list.len() as f64,
        Some(list) => list.volume(),
        None => observations.values().len() as f64,
    };
    let drawn = |share: Option<f64>| share.filter(|&s| s > 0.0 && s * entries < FEW).is_some();
    let held_out = drawn(record.heldout) || record.heldout_coordinates.is_some();
    let validating = drawn(record.validation) || record.validation_coordinates.is_some();
    if !held_out && !validating {
        return Ok(notices);
    }
    let prepared = observations.prepare()?;
    if held_out && prepared.count(Role::HeldOut) == 0 {
        notices.push(match record.heldout {
            Some(share) => format!(
                "--heldout {share} picked none of the entries that there are: no held-out loss is reported"
            ),
            None => "none of the entries of --heldout-coordinates is held out: they are missing".into(),
        });
    }
    if validating && prepared.count(Role::Validation) == 0 {
        notices.push(match record.validation {
            Some(share) => format!(
                "--validation {share} picked none of the entries that there are: no validation loss is reported"
            ),
            None => "none of the entries of --validation-coordinates validates: they are held out, or missing".into(),
        });
    }
    Ok(notices)
}

/// That splits are by strata where nobody asked for that, or that they are not where zeros were asked for.
fn split_notice(record: &DataRecord, observations: &Observations) -> Option<String> {
    let kind = observations.split_kind()?;
    let entries = observations.shape().iter().map(|&n| n as f64).product::<f64>();
    match (record.heldout_as, kind) {
        (None | Some(SplitKind::Auto), SplitKind::Strata) => Some(format!(
            "entries are withheld by strata, as there are {entries:.1e} of them: stored entries by themselves, \
             and as many zeros (--zeros-per-nonzero) drawn from all others, each of which counts for many \
             (--heldout-as strata takes that for granted)"
        )),
        (_, SplitKind::Cells) if record.zeros_per_nonzero.is_some() => Some(format!(
            "--zeros-per-nonzero has no effect: of {entries:.1e} entries every one is withheld by itself, where \
             --heldout-as strata is not given"
        )),
        _ => None,
    }
}

/// Whether the data, a .npy, stay in their file.
pub fn streams(path: &Path, options: ReadOptions<'_>) -> Result<bool> {
    if let Some(stream) = options.stream {
        return Ok(stream);
    }
    let file = std::fs::metadata(path).map_err(|e| Error::file(path, e))?;
    let Some(available) = available_memory().filter(|_| file.is_file()) else {
        return Ok(false);
    };
    if file.len() <= available / 2 {
        return Ok(false);
    }
    if !options.quiet {
        complain(
            "notice",
            &format!(
                "{}: its {} are more than half of the {} of memory that are free, so they are \
                 read from the file in every pass (--no-stream reads them into memory)",
                path.display(),
                bytes(file.len()),
                bytes(available)
            ),
        );
    }
    Ok(true)
}

/// The data themselves with their names, and what became of the rows of a table.
fn values(
    record: &DataRecord,
    options: ReadOptions<'_>,
) -> Result<(NamedTensor, Option<table::Counts>)> {
    let path = &record.path;
    let kind = DataKind::of(record)?;
    refuse_options(record, options, kind)?;
    let plain = |observations: Observations| Ok((observations.into(), None));
    match (kind, record.key.as_deref()) {
        (DataKind::File(FileKind::Npy), _) if streams(path, options)? => {
            plain(Observations::new(io::map_npy(path)?))
        }
        (DataKind::File(FileKind::Npz), None) => {
            if let Some(named) = NamedTensor::load(path)? {
                return Ok((named, None));
            }
            match read_scipy(path)? {
                Some(matrix) => Ok((read_table::matrix(matrix, record)?, None)),
                None => plain(Observations::new(io::read_dense(path, None)?)),
            }
        }
        (DataKind::File(FileKind::Npy | FileKind::Npz), key) => {
            plain(Observations::new(io::read_dense(path, key)?))
        }
        (DataKind::File(FileKind::Tns) | DataKind::PackedTns, _) => {
            let options = TnsOptions {
                shape: record.shape.as_deref(),
                zero_based: record.zero_based,
                value_optional: false,
            };
            let coordinates = read_tns(path, &options)?;
            if coordinates.duplicates() > 0 {
                complain(
                    "notice",
                    &format!(
                        "{}: {} at the same place as another one and added to it",
                        path.display(),
                        match coordinates.duplicates() {
                            1 => "1 entry stands".into(),
                            n => format!("{} stand", summary::entries(n)),
                        }
                    ),
                );
            }
            plain(Observations::new(coordinates))
        }
        (DataKind::MatrixMarket, _) => {
            let matrix = table::read_matrix_market(path)?;
            Ok((read_table::matrix(matrix, record)?, None))
        }
        (DataKind::TenX, _) => Ok((read_table::matrix(table::read_10x(path)?, record)?, None)),
        (DataKind::Table, _) => {
            let table = read_table::table(record, options.letters)?;
            Ok((NamedTensor::of(&table)?, Some(table.counts)))
        }
    }
}

/// Refuses options that say nothing for data of a kind, which would be lost otherwise.
pub fn refuse_options(record: &DataRecord, options: ReadOptions<'_>, kind: DataKind) -> Result<()> {
    let path = record.path.display();
    let refuse = |option: &str, what: &str| {
        Err(Error::Setting(format!("{option} is for {what}, not for {path}")))
    };
    let (npz, tns) = match kind {
        DataKind::File(kind) => (kind == FileKind::Npz, kind == FileKind::Tns),
        DataKind::PackedTns => (false, true),
        DataKind::MatrixMarket | DataKind::TenX | DataKind::Table => (false, false),
    };
    let named =
        matches!(kind, DataKind::MatrixMarket | DataKind::TenX) || (npz && record.key.is_none());
    if record.shape.is_some() && !tns {
        return refuse("--shape", ".tns files");
    }
    if record.key.is_some() && !npz {
        return refuse("--key", ".npz files");
    }
    if record.table.is_some() && kind != DataKind::Table {
        return refuse("--modes", "tables");
    }
    if record.unlisted_zero && kind != DataKind::Table {
        return refuse("--unlisted-zero", "tables");
    }
    if (record.row_names.is_some() || record.column_names.is_some()) && !named {
        let option = if record.row_names.is_some() { "--row-names" } else { "--column-names" };
        return refuse(option, "sparse matrices");
    }
    if options.stream != Some(true) {
        return Ok(());
    }
    match kind {
        DataKind::File(FileKind::Npy) => Ok(()),
        DataKind::File(FileKind::Npz) => Err(Error::Setting(format!(
            "--stream is for .npy files, whose entries lie in the file as they are; those of {path} are packed: save the array by itself, with numpy.save"
        ))),
        DataKind::File(FileKind::Tns)
        | DataKind::PackedTns
        | DataKind::MatrixMarket
        | DataKind::TenX
        | DataKind::Table => Err(Error::Setting(format!(
            "--stream is for .npy files; {path} has coordinates and values, which are kept in memory as they are"
        ))),
    }
}
