//! The folder of a study: every finished run in two files of its own.

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use super::run::{RunResult, RunSettings};
use crate::error::{Error, Result};
use crate::fit::{Fit, History};
use crate::io;

/// What says that a folder is one of ours.
const MARK: &str = "study.json";
const FORMAT: &str = "nneinfact study";
const RUN: &str = "nneinfact run";
/// Of both files.
const VERSION: u32 = 1;

/// A folder that runs are kept in.
pub(super) struct Store {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Mark {
    format: String,
    version: u32,
    about: String,
}

#[derive(Serialize)]
struct RunFile<'a> {
    format: &'a str,
    version: u32,
    settings: &'a RunSettings,
    result: &'a RunResult,
    history: &'a History,
}

/// Of a run's file what is read again.
#[derive(Deserialize)]
struct Known {
    format: String,
    version: u32,
    settings: RunSettings,
    result: RunResult,
}

impl Store {
    /// Takes a folder that is not there yet, empty, or one of a study. Nothing is written.
    pub fn check(folder: &Path) -> Result<()> {
        let refuse = |why: String| {
            Err(Error::Setting(format!(
                "{} cannot be the folder of a study: {why}",
                folder.display()
            )))
        };
        let metadata = match fs::metadata(folder) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let parent = match folder.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => parent,
                    _ => Path::new("."),
                };
                return match parent.is_dir() {
                    true => Ok(()),
                    false => refuse(format!("there is no folder {}", parent.display())),
                };
            }
            Err(e) => return Err(Error::file(folder, e)),
        };
        if !metadata.is_dir() {
            return refuse("it is a file".into());
        }
        let mark = folder.join(MARK);
        match fs::read(&mark) {
            Ok(bytes) => match serde_json::from_slice::<Mark>(&bytes) {
                Ok(mark) if mark.format == FORMAT && mark.version == VERSION => Ok(()),
                Ok(mark) if mark.format == FORMAT => refuse(format!(
                    "its {MARK} is of version {}, and this program writes version {VERSION}: choose another folder",
                    mark.version
                )),
                _ => refuse(format!("it has a {MARK} that is none of ours: choose another folder")),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let mut entries = fs::read_dir(folder).map_err(|e| Error::file(folder, e))?;
                match entries.next() {
                    None => Ok(()),
                    Some(_) => refuse(format!(
                        "it holds other files and no {MARK}: choose an empty or a new folder"
                    )),
                }
            }
            Err(e) => Err(Error::file(mark, e)),
        }
    }

    /// Opens a folder, making it where it is not there.
    pub fn open(folder: &Path) -> Result<Store> {
        Store::check(folder)?;
        let runs = folder.join("runs");
        fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let mark = folder.join(MARK);
        if !mark.exists() {
            let about = "runs/ has a run in every .json, with its factors in the .npz of the same name; \
                         nneinfact compare takes finished runs from here and rewrites the tables";
            let mark_is = Mark { format: FORMAT.into(), version: VERSION, about: about.into() };
            io::write_json(&mark, &mark_is)?;
        }
        fs::create_dir_all(&runs).map_err(|e| Error::file(&runs, e))?;
        Ok(Store { folder: folder.to_path_buf() })
    }

    /// The file of a run, relative to the folder.
    pub fn run_file(settings: &RunSettings) -> String {
        format!("runs/{}.json", settings.file_name())
    }

    fn factors_file(&self, settings: &RunSettings) -> PathBuf {
        self.folder.join(format!("runs/{}.npz", settings.file_name()))
    }

    /// The result of a run that was finished before; `None` where there is none, or its files are not
    /// what they should be.
    pub fn load(&self, settings: &RunSettings) -> Option<RunResult> {
        let bytes = fs::read(self.folder.join(Store::run_file(settings))).ok()?;
        let known: Known = serde_json::from_slice(&bytes).ok()?;
        // The name is a hash, so that everything is compared.
        let same = known.format == RUN && known.version == VERSION && known.settings == *settings;
        (same && self.factors_file(settings).is_file()).then_some(known.result)
    }

    /// Keeps a finished run. The factors come first: the run is there once its .json is, whole.
    pub fn save(&self, settings: &RunSettings, result: &RunResult, fit: &Fit) -> Result<()> {
        fit.save(self.factors_file(settings))?;
        let history = fit.history();
        let run = RunFile { format: RUN, version: VERSION, settings, result, history };
        io::write_json(self.folder.join(Store::run_file(settings)), &run)
    }

    /// The factors of a run that was finished.
    pub fn factors(&self, settings: &RunSettings, count: usize) -> Result<Vec<ArrayD<f64>>> {
        let path = self.factors_file(settings);
        let mut arrays = io::read_npz_arrays(&path)?;
        (1..=count)
            .map(|l| {
                let name = format!("theta_{l}");
                match arrays.iter().position(|(n, _)| *n == name) {
                    Some(at) => Ok(arrays.swap_remove(at).1),
                    None => Err(Error::format(&path, format!("there is no array {name} in it"))),
                }
            })
            .collect()
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
