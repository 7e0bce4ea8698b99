//! The folder of a study: every finished run in two files of its own.

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use super::run_result::{RunResult, RunSettings};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::Shapes;
use nneinfact_fit::io::{self, FileLock};
use nneinfact_fit::{History, Saved};

/// What says that a folder is one of ours.
const STUDY_FILE: &str = "study.json";
/// While a study is at work on the folder.
const LOCK_FILE: &str = "study.lock";
const FORMAT: &str = "nneinfact study";
const RUN: &str = "nneinfact run";
/// No file of a study or a run is longer, in bytes.
const LONGEST: u64 = 256 << 20;
const VERSION: u32 = 1;
/// Of runs. Those of another version are done again.
const RUN_VERSION: u32 = 2;

/// A folder that runs are kept in.
pub(super) struct Store {
    folder: PathBuf,
    /// Until the study has ended.
    _lock: Option<FileLock>,
}

#[derive(Serialize, Deserialize)]
struct StudyMark {
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
        let study_file = folder.join(STUDY_FILE);
        match io::read_text(&study_file, "this file", LONGEST) {
            Ok(text) => match serde_json::from_str::<StudyMark>(&text) {
                Ok(found) if found.format == FORMAT && found.version == VERSION => Ok(()),
                Ok(found) if found.format == FORMAT => refuse(format!(
                    "its {STUDY_FILE} is of version {}, and this program writes version {VERSION}: choose another folder",
                    found.version
                )),
                _ => refuse(format!(
                    "it has a {STUDY_FILE} that is none of ours: choose another folder"
                )),
            },
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                let mut entries = fs::read_dir(folder).map_err(|e| Error::file(folder, e))?;
                // What a process left that was killed while it wrote this file is ours.
                let other = |entry: std::io::Result<fs::DirEntry>| {
                    !entry.is_ok_and(|entry| {
                        let name = entry.file_name();
                        name == LOCK_FILE || io::is_leftover(&study_file, &name)
                    })
                };
                match entries.any(other) {
                    false => Ok(()),
                    // Another process made a study of it between the two looks.
                    true if study_file.exists() => Store::check(folder),
                    true => refuse(format!(
                        "it holds other files and no {STUDY_FILE}: choose an empty or a new folder"
                    )),
                }
            }
            Err(e) => Err(e),
        }
    }

    /// Opens a folder, making it where it is not there.
    ///
    /// # Errors
    /// [`Error::File`] where another study is at work on it, or it cannot be written.
    pub fn open(folder: &Path) -> Result<Store> {
        Store::check(folder)?;
        let runs = folder.join("runs");
        fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let lock = FileLock::take(&folder.join(LOCK_FILE)).map_err(|e| Error::file(folder, e))?;
        let study_file = folder.join(STUDY_FILE);
        if !study_file.exists() {
            let about = "runs/ has a run in every .json, with its factors in the .npz of the same name; \
                         nneinfact compare takes finished runs from here and rewrites the tables";
            let content =
                StudyMark { format: FORMAT.into(), version: VERSION, about: about.into() };
            io::write_json(&study_file, &content)?;
        }
        fs::create_dir_all(&runs).map_err(|e| Error::file(&runs, e))?;
        io::remove_leftovers_in(folder);
        io::remove_leftovers_in(&runs);
        Ok(Store { folder: folder.to_path_buf(), _lock: lock })
    }

    /// The file of a run, relative to the folder.
    pub fn run_file(settings: &RunSettings) -> String {
        format!("runs/{}.json", settings.file_name())
    }

    /// The file of a run's factors, relative to the folder.
    pub fn factors_name(settings: &RunSettings) -> String {
        format!("runs/{}.npz", settings.file_name())
    }

    fn factors_file(&self, settings: &RunSettings) -> PathBuf {
        self.folder.join(Store::factors_name(settings))
    }

    /// The result of a run that was finished before; `None` where there is none, or its files are not
    /// what they should be. Then it has to be done again.
    pub fn load(&self, settings: &RunSettings, shapes: &Shapes) -> Option<RunResult> {
        let file = self.folder.join(Store::run_file(settings));
        let text = io::read_text(file, "a run", LONGEST).ok()?;
        let known: Known = serde_json::from_str(&text).ok()?;
        // The name is a hash, so that everything is compared.
        let same =
            known.format == RUN && known.version == RUN_VERSION && known.settings == *settings;
        (same && self.factors(settings, shapes).is_ok()).then_some(known.result)
    }

    /// Keeps the factors of a finished run, as a file that can be reported.
    pub fn save_factors(&self, settings: &RunSettings, saved: &Saved) -> Result<()> {
        saved.save(self.factors_file(settings))
    }

    /// Keeps a finished run. Its factors come first: the run is there once its .json is, whole.
    pub fn save(
        &self,
        settings: &RunSettings,
        result: &RunResult,
        history: &History,
    ) -> Result<()> {
        let run = RunFile { format: RUN, version: RUN_VERSION, settings, result, history };
        io::write_json(self.folder.join(Store::run_file(settings)), &run)
    }

    /// The factors of a run that was finished.
    pub fn factors(&self, settings: &RunSettings, shapes: &Shapes) -> Result<Vec<ArrayD<f64>>> {
        let path = self.factors_file(settings);
        let saved = Saved::load_as(&path, shapes.model().text())?;
        let sizes = |shapes: &Shapes| -> Vec<Vec<usize>> {
            (0..shapes.model().factors().len()).map(|l| shapes.factor(l)).collect()
        };
        match sizes(saved.shapes()) == sizes(shapes) {
            true => Ok(saved.factors().to_vec()),
            false => Err(Error::format(
                &path,
                format!(
                    "the factors have shapes {:?}, not {:?}",
                    sizes(saved.shapes()),
                    sizes(shapes)
                ),
            )),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
