//! Reads the data of a fit from files, with the role of every entry.

use std::path::{Path, PathBuf};

use super::{complain, summary};
use nneinfact_core::data::{Observations, Role, Values};
use nneinfact_core::error::{Error, Result, bytes};
use nneinfact_core::memory::available_memory;
use nneinfact_fit::DataRecord;
use nneinfact_fit::io::{self, FileKind, TnsOptions};

/// How data are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
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
    DataRecord {
        path: whole(&record.path),
        mask: optional(&record.mask),
        weights: optional(&record.weights),
        missing: optional(&record.missing),
        heldout_mask: optional(&record.heldout_mask),
        heldout_coordinates: optional(&record.heldout_coordinates),
        validation_coordinates: optional(&record.validation_coordinates),
        ..record.clone()
    }
}

/// Reads the data and what goes with them.
pub fn observations(record: &DataRecord, options: ReadOptions) -> Result<Observations> {
    let mut observations = Observations::new(values(record, options)?);
    // What goes with the data is as large as they are.
    let streamed = observations.values().is_mapped();
    if let Some(path) = &record.mask {
        observations = match streamed {
            true => observations.mask_from(&io::map_bool(path)?)?,
            false => observations.mask(&io::read_bool(path)?)?,
        };
    }
    if let Some(path) = &record.weights {
        let weights = match FileKind::of(path)? {
            FileKind::Npy if streamed => io::map_npy(path)?,
            FileKind::Npy | FileKind::Npz | FileKind::Tns => io::read_dense(path, None)?,
        };
        observations = observations.weights(weights)?;
    }
    if record.nan_missing {
        observations = observations.nan_missing();
    }
    if record.unlisted_missing {
        if observations.coordinates().is_none() {
            return Err(Error::Setting(format!(
                "--unlisted-missing is for .tns files, not for {}, which has all entries",
                record.path.display()
            )));
        }
        observations = observations.unlisted_missing();
    }
    let shape = observations.shape().to_vec();
    let zero_based = record.zero_based;
    let options = TnsOptions { shape: Some(&shape), zero_based, value_optional: true };
    let coordinates = |path: &Path| io::read_tns_with(path, &options);
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
            true => observations.held_out_mask_from(&io::map_bool(path)?)?,
            false => observations.held_out_mask(&io::read_bool(path)?)?,
        };
    }
    if let Some(fraction) = record.validation {
        observations = observations.validation(fraction, record.split_seed)?;
    }
    Ok(observations)
}

/// What is legal but probably not meant: that something was to be withheld, and nothing is.
pub fn notices(record: &DataRecord, observations: &Observations) -> Result<Vec<String>> {
    // Of many entries a share is never nothing.
    const FEW: f64 = 1000.0;
    let entries = match observations.coordinates() {
        Some(list) if record.unlisted_missing => list.len() as f64,
        Some(list) => list.volume(),
        None => observations.values().len() as f64,
    };
    let drawn = |share: Option<f64>| share.filter(|&s| s > 0.0 && s * entries < FEW).is_some();
    let held_out = drawn(record.heldout) || record.heldout_coordinates.is_some();
    let validating = drawn(record.validation) || record.validation_coordinates.is_some();
    if !held_out && !validating {
        return Ok(Vec::new());
    }
    let mut notices = Vec::new();
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

/// Whether the data, a .npy, stay in their file.
fn streams(path: &Path, options: ReadOptions) -> Result<bool> {
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

fn values(record: &DataRecord, options: ReadOptions) -> Result<Values> {
    let path = &record.path;
    let refuse = |option: &str, kind: &str| {
        Err(Error::Setting(format!("{option} is for {kind} files, not for {}", path.display())))
    };
    match (FileKind::of(path)?, &record.key, &record.shape) {
        (FileKind::Npy | FileKind::Npz, _, Some(_)) => refuse("--shape", ".tns"),
        (FileKind::Npy | FileKind::Tns, Some(_), _) => refuse("--key", ".npz"),
        (FileKind::Npz, ..) if options.stream == Some(true) => Err(Error::Setting(format!(
            "--stream is for .npy files, whose entries lie in the file as they are; those of {} are packed: save the array by itself, with numpy.save",
            path.display()
        ))),
        (FileKind::Tns, ..) if options.stream == Some(true) => Err(Error::Setting(format!(
            "--stream is for .npy files; {} has coordinates and values, which are kept in memory as they are",
            path.display()
        ))),
        (FileKind::Npy, None, None) if streams(path, options)? => Ok(io::map_npy(path)?.into()),
        (FileKind::Npy | FileKind::Npz, key, None) => {
            Ok(io::read_dense(path, key.as_deref())?.into())
        }
        (FileKind::Tns, None, shape) => {
            let options = TnsOptions {
                shape: shape.as_deref(),
                zero_based: record.zero_based,
                value_optional: false,
            };
            let coordinates = io::read_tns_with(path, &options)?;
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
            Ok(coordinates.into())
        }
    }
}
