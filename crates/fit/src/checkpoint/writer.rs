//! Writing checkpoints.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ndarray::{ArrayD, IxDyn};

use super::identity::Identity;
use super::read::Checkpoint;
use super::record::{About, Position, Stage, TEXT, VERSION, WHAT};
use crate::io::{Archive, FileLock, remove_leftovers};
use crate::settings::{Every, Settings};
use nneinfact_core::engine::{Engine, EngineState};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::History;
use nneinfact_core::model::Shapes;

/// Writes the checkpoints of a fit.
pub(crate) struct CheckpointWriter {
    path: PathBuf,
    every: Every,
    identity: Identity,
    seed: u64,
    warnings: Vec<String>,
    shapes: Vec<Vec<usize>>,
    /// Whether the snapshot of the engine is the best point so far, which the fit will return.
    keeps_best: bool,
    /// When the file was last tried to be written, after how many sweeps, and at which stage.
    tried: Option<(Instant, usize, Stage)>,
    /// The sweep after which the newest file was written.
    saved: Option<usize>,
    /// How often writing failed, and why the last time.
    failed: Option<(usize, String)>,
    /// How often writing failed in a row, up to now.
    pub failures: usize,
    /// Whether this process writes the file, and not another one of the same fit.
    writes: bool,
    /// Until the fit has ended.
    _lock: Option<FileLock>,
}

/// Keeps others from a file of checkpoints; `None` where nothing has to be kept, or the system does not
/// let anybody.
///
/// # Errors
/// [`Error::File`] where another fit is saved in it.
pub(crate) fn lock(settings: &Settings) -> Result<Option<FileLock>> {
    let Some((path, _)) = &settings.checkpoint else { return Ok(None) };
    // All names of a file have the same lock.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    let name = path.file_name().filter(|_| std::fs::metadata(&path).map_or(true, |m| m.is_file()));
    let Some(name) = name else { return Ok(None) };
    let mut own = name.to_os_string();
    own.push(".lock");
    match FileLock::take(&path.with_file_name(own)) {
        Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => Err(Error::file(path, e)),
        // That the folder cannot be written, the first checkpoint says.
        other => Ok(other.unwrap_or(None)),
    }
}

impl CheckpointWriter {
    /// For a fit that is to be saved; `None` for others. Temporary files that were left behind are
    /// removed, as the fit may go on from the file itself.
    pub fn new(
        settings: &Settings,
        identity: Option<&Identity>,
        shapes: &Shapes,
        seed: u64,
        warnings: &[String],
        lock: Option<FileLock>,
    ) -> Option<CheckpointWriter> {
        let writer = CheckpointWriter::of(settings, identity, shapes, seed, warnings, lock)?;
        remove_leftovers(&writer.path);
        Some(writer)
    }

    /// For a fit that another process saves: it writes nothing.
    pub fn elsewhere(
        settings: &Settings,
        identity: Option<&Identity>,
        shapes: &Shapes,
    ) -> Option<CheckpointWriter> {
        let writer = CheckpointWriter::of(settings, identity, shapes, 0, &[], None)?;
        Some(CheckpointWriter { writes: false, ..writer })
    }

    fn of(
        settings: &Settings,
        identity: Option<&Identity>,
        shapes: &Shapes,
        seed: u64,
        warnings: &[String],
        lock: Option<FileLock>,
    ) -> Option<CheckpointWriter> {
        let ((path, every), identity) = settings.checkpoint.as_ref().zip(identity)?;
        Some(CheckpointWriter {
            path: path.clone(),
            every: *every,
            identity: identity.clone(),
            seed,
            warnings: warnings.to_vec(),
            shapes: (0..shapes.model().factors().len()).map(|l| shapes.factor(l)).collect(),
            keeps_best: settings.early_stopping,
            tried: None,
            saved: None,
            failed: None,
            failures: 0,
            writes: true,
            _lock: lock,
        })
    }

    /// For a fit that goes on from this checkpoint, whose file is up to date if it is the one to write.
    pub fn after(mut self, checkpoint: &Checkpoint) -> CheckpointWriter {
        let same = |a: &Path, b: &Path| {
            a == b
                || std::fs::canonicalize(a)
                    .ok()
                    .is_some_and(|a| std::fs::canonicalize(b).ok() == Some(a))
        };
        if same(&checkpoint.path, &self.path) {
            let About { sweeps, position, .. } = &checkpoint.about;
            self.saved = Some(*sweeps);
            self.tried = Some((Instant::now(), *sweeps, position.stage));
        }
        self
    }

    /// Whether it is time to save the fit again.
    pub fn is_due(&self, sweeps: usize) -> bool {
        let Some((at, before, _)) = self.tried else { return true };
        self.every.sweeps.is_some_and(|n| sweeps.saturating_sub(before) >= n)
            || self.every.time.is_some_and(|time| at.elapsed() >= time)
    }

    /// Whether the fit was last saved after this many sweeps, as the last one ended.
    pub fn has_swept(&self, sweeps: usize) -> bool {
        self.tried.is_some_and(|(_, n, stage)| (n, stage) == (sweeps, Stage::Swept))
    }

    /// Saves the fit as it is after so many seconds. That the file cannot be written is an error the
    /// first time, where nothing is lost by it; later the fit goes on, and it is tried again.
    pub fn save(
        &mut self,
        engine: &dyn Engine,
        history: &History,
        position: Position,
        seconds: f64,
    ) -> Result<()> {
        if !self.writes {
            self.tried = Some((Instant::now(), history.iterations, position.stage));
            return Ok(());
        }
        let mut state = engine.state()?;
        if position.stage == Stage::Evaluated {
            // The next sweep begins at the factors, and they are the next snapshot.
            state.origin = None;
            if !self.keeps_best {
                state.snapshot = None;
            }
        }
        let archive = self.archive(state, history, position, seconds);
        let written = archive.and_then(|archive| archive.write(&self.path));
        self.tried = Some((Instant::now(), history.iterations, position.stage));
        match written {
            Ok(()) => {
                self.saved = Some(history.iterations);
                self.failures = 0;
                Ok(())
            }
            Err(error) if self.saved.is_none() => Err(error),
            Err(error) => {
                self.failures += 1;
                let before = self.failed.take().map_or(0, |(n, _)| n);
                self.failed = Some((before + 1, error.to_string()));
                Ok(())
            }
        }
    }

    fn archive(
        &self,
        state: EngineState,
        history: &History,
        position: Position,
        seconds: f64,
    ) -> Result<Archive> {
        let about = About {
            what: WHAT.into(),
            version: VERSION,
            program: concat!("nneinfact ", env!("CARGO_PKG_VERSION")).into(),
            fit: self.identity.clone(),
            algorithm: history.algorithm.clone(),
            precision: history.precision.clone(),
            device: history.device.clone(),
            seed: self.seed,
            sweeps: history.iterations,
            seconds,
            warnings: self.warnings.clone(),
            position,
        };
        let refuse = |e: &dyn std::fmt::Display| Error::format(&self.path, e.to_string());
        let text = serde_json::to_string_pretty(&about).map_err(|e| refuse(&e))?;
        let sweeps: Vec<f64> = history.sweeps.iter().map(|&n| n as f64).collect();
        let mut arrays: Vec<(String, ArrayD<f64>)> = [
            ("scales", &state.scales),
            ("loss", &history.loss),
            ("penalty", &history.penalty),
            ("validation_loss", &history.validation_loss),
            ("heldout_loss", &history.heldout_loss),
            ("seconds", &history.seconds),
            ("sweeps", &sweeps),
        ]
        .into_iter()
        .map(|(name, list)| (name.to_string(), ndarray::aview1(list).to_owned().into_dyn()))
        .collect();
        let sets = [
            ("theta", Some(state.factors)),
            ("plain", state.anchor),
            ("origin", state.origin),
            ("remembered", state.snapshot),
        ];
        for (name, set) in sets {
            for (l, (factor, shape)) in set.into_iter().flatten().zip(&self.shapes).enumerate() {
                let array = ArrayD::from_shape_vec(IxDyn(shape), factor).map_err(|e| refuse(&e))?;
                arrays.push((format!("{name}_{}", l + 1), array));
            }
        }
        Ok(Archive { text: (TEXT.into(), text), arrays })
    }

    /// A sentence for the user where checkpoints could not be written.
    pub fn warning(&self) -> Option<String> {
        let (count, why) = self.failed.as_ref()?;
        let plural = if *count == 1 { " was" } else { "s were" };
        let sweep = self.saved.unwrap_or(0);
        Some(format!(
            "{count} checkpoint{plural} not written ({why}): the fit went on without; the file is that of sweep {sweep}"
        ))
    }
}
