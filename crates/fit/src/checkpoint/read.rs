//! Reading a checkpoint.

use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn};

use super::identity::Identity;
use super::record::{About, Position, Stage, TEXT, VERSION, WHAT};
use crate::io::Archive;
use nneinfact_core::engine::EngineState;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::{History, StoppedBy};
use nneinfact_core::model::Shapes;

/// A fit as it was when it was saved: what [`NNEinFact::checkpoint`](crate::NNEinFact::checkpoint) writes, and
/// [`NNEinFact::resume`](crate::NNEinFact::resume) goes on from.
///
/// The file is an `.npz` archive, whatever its name: the arrays of the state, and of the history so
/// far, beside a text that says of which fit. It is as large as the factors in double precision
/// twice over (up to four times, with early stopping and at the end of a fit).
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub(super) path: PathBuf,
    pub(super) about: About,
    history: History,
    pub(crate) state: EngineState,
    shapes: Vec<Vec<usize>>,
}

impl Checkpoint {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be read; [`Error::Format`] where it is not a checkpoint,
    /// or a damaged one.
    pub fn read(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        let refuse = |why: String| Error::format(path, format!("not a checkpoint: {why}"));
        let mut archive = Archive::read(path, TEXT)?;
        let about: About = serde_json::from_str(&archive.text.1)
            .map_err(|e| refuse(format!("its {TEXT} cannot be read: {e}")))?;
        if about.what != WHAT || about.version != VERSION {
            return Err(refuse(format!(
                "this program reads version {VERSION} of checkpoints, and the file is version {} of \"{}\" (written by {})",
                about.version, about.what, about.program
            )));
        }
        let mut list = |name: &str| -> Result<Vec<f64>> {
            let array =
                archive.take(name).ok_or_else(|| refuse(format!("it has no \"{name}\"")))?;
            Ok(array.into_raw_vec_and_offset().0)
        };
        let scales = list("scales")?;
        if !scales.iter().all(|scale| scale.is_normal() && *scale > 0.0) {
            return Err(refuse("its scales are none".into()));
        }
        let mut history = History {
            loss: list("loss")?,
            penalty: list("penalty")?,
            validation_loss: list("validation_loss")?,
            heldout_loss: list("heldout_loss")?,
            seconds: list("seconds")?,
            // Whole numbers that were written as such; casts saturate.
            sweeps: list("sweeps")?.into_iter().map(|n| n as usize).collect(),
            stopped_by: StoppedBy::Interrupted,
            loss_name: about.fit.loss().into(),
            algorithm: about.algorithm.clone(),
            device: about.device.clone(),
            seed: about.seed,
            precision: about.precision.clone(),
            prediction_floor: about.fit.prediction_floor(),
            iterations: about.sweeps,
            returned: 0,
            slabs: None,
            kkt_residual: None,
            heldout_as: None,
        };
        history.returned = history.loss.len().saturating_sub(1);
        let evaluations = history.loss.len();
        let optional = [&history.penalty, &history.validation_loss, &history.heldout_loss];
        if about.sweeps as u64 >= 1 << 53
            || history.seconds.len() != evaluations
            || history.sweeps.len() != evaluations
            || optional.iter().any(|list| !list.is_empty() && list.len() != evaluations)
            || about.position.stage == Stage::Evaluated
                && history.sweeps.last() != Some(&about.sweeps)
        {
            return Err(refuse("its history does not hold together".into()));
        }
        let mut shapes = Vec::new();
        let mut set = |name: &str| factor_set(path, &mut archive, name, scales.len(), &mut shapes);
        let state = EngineState {
            factors: set("theta")?.ok_or_else(|| refuse("it has no factors".into()))?,
            anchor: set("plain")?,
            origin: set("origin")?,
            snapshot: set("remembered")?,
            scales,
        };
        Ok(Checkpoint { path: path.into(), about, history, state, shapes })
    }

    /// The losses so far. [`stopped_by`](History::stopped_by) says interrupted.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// How many sweeps had been completed.
    #[must_use]
    pub fn sweeps(&self) -> usize {
        self.about.sweeps
    }

    /// Refuses to go on with another fit.
    pub(crate) fn check(&self, here: &Identity, shapes: &Shapes) -> Result<()> {
        let differences = self.about.fit.differences(here);
        if differences.is_empty() {
            let expected: Vec<Vec<usize>> =
                (0..shapes.model().factors().len()).map(|l| shapes.factor(l)).collect();
            return match self.shapes == expected {
                true => Ok(()),
                false => Err(Error::format(
                    &self.path,
                    format!(
                        "the factors in this checkpoint have the shapes {:?}, and those of the model {expected:?}",
                        self.shapes
                    ),
                )),
            };
        }
        const SHOWN: usize = 4;
        let more = match differences.len().saturating_sub(SHOWN) {
            0 => String::new(),
            n => format!("; and {n} more"),
        };
        Err(Error::format(
            &self.path,
            format!(
                "this is the checkpoint of another fit: {}{more}. Only the number of sweeps and the tolerance may differ; to start anew, remove the file or name another",
                differences[..differences.len().min(SHOWN)].join("; ")
            ),
        ))
    }

    /// The factors in the user's units.
    pub(crate) fn factors(&self) -> Result<Vec<ArrayD<f64>>> {
        let parts = self.state.factors.iter().zip(&self.state.scales).zip(&self.shapes);
        let of = |((factor, scale), shape): ((&Vec<f64>, &f64), &Vec<usize>)| {
            let values = factor.iter().map(|x| x / scale).collect();
            ArrayD::from_shape_vec(IxDyn(shape), values)
                .map_err(|e| Error::format(&self.path, e.to_string()))
        };
        parts.map(of).collect()
    }

    pub(crate) fn seed(&self) -> u64 {
        self.about.seed
    }

    pub(crate) fn warnings(&self) -> &[String] {
        &self.about.warnings
    }

    /// Where the fit was, how many seconds it had taken until then, and its history, which now goes on
    /// on the device of `now`.
    pub(crate) fn into_parts(self, now: &History) -> (Position, f64, History) {
        let About { position, seconds, .. } = self.about;
        let history = History {
            stopped_by: now.stopped_by,
            algorithm: now.algorithm.clone(),
            device: now.device.clone(),
            precision: now.precision.clone(),
            ..self.history
        };
        (position, seconds, history)
    }
}

/// The arrays `name_1`, `name_2`, … of an archive, one for each of so many factors; `None` where there is
/// none. `shapes` are those of the sets before, and are filled in by the first.
fn factor_set(
    path: &Path,
    archive: &mut Archive,
    name: &str,
    count: usize,
    shapes: &mut Vec<Vec<usize>>,
) -> Result<Option<Vec<Vec<f64>>>> {
    let refuse = |why: String| Err(Error::format(path, format!("not a checkpoint: {why}")));
    let mut factors = Vec::new();
    for l in 0..count {
        let name = format!("{name}_{}", l + 1);
        let Some(array) = archive.take(&name) else { break };
        if array.iter().any(|x| !(x.is_finite() && *x >= 0.0)) {
            return refuse(format!("a number in \"{name}\" is not one of a factor"));
        }
        if shapes.len() == l {
            shapes.push(array.shape().to_vec());
        } else if shapes[l] != array.shape() {
            return refuse(format!("\"{name}\" has the shape {:?}", array.shape()));
        }
        factors.push(array.into_raw_vec_and_offset().0);
    }
    match factors.len() {
        0 => Ok(None),
        n if n == count => Ok(Some(factors)),
        n => refuse(format!("it has {n} of {count} arrays \"{name}_…\"")),
    }
}
