//! Saving a fit that is under way, and going on from there.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ndarray::{ArrayD, IxDyn};
use serde::{Deserialize, Serialize};

use super::builder::{NNEinFact, Start};
use super::rules::{Balance, Constraints};
use super::watch::Watch;
use crate::Device;
use crate::io::{Archive, remove_leftovers};
use nneinfact_core::data::{Fingerprint, digest};
use nneinfact_core::engine::{Engine, EngineState};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::{History, StoppedBy};
use nneinfact_core::loss::Loss;
use nneinfact_core::model::Shapes;
use nneinfact_core::plan::Plan;

/// How often a fit is saved: every so many sweeps, every so often, or both, whichever comes first.
///
/// ```
/// use std::time::Duration;
/// use nneinfact::fit::Every;
///
/// let both = Every::sweeps(100).or(Every::time(Duration::from_secs(300)));
/// assert_eq!(both.to_string(), "100 sweeps or 300 s");
/// assert_eq!(Every::default(), Every::time(Duration::from_secs(60)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every {
    sweeps: Option<usize>,
    time: Option<Duration>,
}

impl Every {
    /// Every so many sweeps. 0 counts as 1.
    #[must_use]
    pub fn sweeps(sweeps: usize) -> Every {
        Every { sweeps: Some(sweeps.max(1)), time: None }
    }

    /// After the sweep at whose end so much time has passed since the last time.
    #[must_use]
    pub fn time(time: Duration) -> Every {
        Every { sweeps: None, time: Some(time) }
    }

    /// As often as either of both says. Of two numbers of sweeps, and of two times, the smaller one
    /// counts.
    #[must_use]
    pub fn or(self, other: Every) -> Every {
        fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            a.into_iter().chain(b).min()
        }
        Every { sweeps: least(self.sweeps, other.sweeps), time: least(self.time, other.time) }
    }
}

impl Default for Every {
    /// Every minute.
    fn default() -> Every {
        Every::time(Duration::from_secs(60))
    }
}

impl std::fmt::Display for Every {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.sweeps == Some(1) { "" } else { "s" };
        match (self.sweeps, self.time) {
            (Some(n), Some(time)) => write!(f, "{n} sweep{plural} or {} s", time.as_secs_f64()),
            (Some(n), None) => write!(f, "{n} sweep{plural}"),
            (None, Some(time)) => write!(f, "{} s", time.as_secs_f64()),
            (None, None) => write!(f, "0 sweeps"),
        }
    }
}

/// A fit as it was when it was saved: what [`NNEinFact::checkpoint`] writes, and
/// [`NNEinFact::resume`] goes on from.
///
/// The file is an `.npz` archive, whatever its name: the arrays of the state, and of the history so
/// far, beside a text that says of which fit. It is as large as the factors in double precision
/// twice over (up to four times, with early stopping and at the end of a fit).
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    about: About,
    history: History,
    pub(super) state: EngineState,
    shapes: Vec<Vec<usize>>,
}

/// The text in a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct About {
    what: String,
    version: u32,
    /// The version of this crate that wrote it.
    program: String,
    /// What the fit is, by which it is known again.
    fit: Identity,
    algorithm: String,
    precision: String,
    device: String,
    seed: u64,
    sweeps: usize,
    #[serde(with = "bits")]
    seconds: f64,
    /// What the start gave reason to say.
    warnings: Vec<String>,
    point: Point,
}

const WHAT: &str = "a checkpoint of nneinfact";
/// Raised where files are no longer understood.
const VERSION: u32 = 1;
const TEXT: &str = "checkpoint.json";

/// Where in its loop a fit was saved.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Point {
    pub stage: Stage,
    /// Of the momentum.
    #[serde(with = "bits")]
    pub t: f64,
    #[serde(with = "bits")]
    pub before: f64,
    /// The objective in the middle of the last sweep; only of use before a look.
    #[serde(with = "bits")]
    pub middle: f64,
}

/// A fit is saved at one of two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// A sweep has ended in the factors, and nothing came after it: no extrapolation, no look. The
    /// start is such a place too.
    Swept,
    /// The losses at the factors are the last element of the history.
    Looked,
}

/// Guards as their bits: decimal places that a parser rounds would not be the same numbers.
mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(x: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(x.to_bits())
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
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
        };
        history.returned = history.loss.len().saturating_sub(1);
        let looks = history.loss.len();
        let optional = [&history.penalty, &history.validation_loss, &history.heldout_loss];
        if about.sweeps as u64 >= 1 << 53
            || history.seconds.len() != looks
            || history.sweeps.len() != looks
            || optional.iter().any(|list| !list.is_empty() && list.len() != looks)
            || about.point.stage == Stage::Looked && history.sweeps.last() != Some(&about.sweeps)
        {
            return Err(refuse("its history does not hold together".into()));
        }
        let count = scales.len();
        let mut shapes: Vec<Vec<usize>> = Vec::new();
        let mut set = |name: &str| -> Result<Option<Vec<Vec<f64>>>> {
            let mut factors = Vec::new();
            for l in 0..count {
                let name = format!("{name}_{}", l + 1);
                let Some(array) = archive.take(&name) else { break };
                if array.iter().any(|x| !(x.is_finite() && *x >= 0.0)) {
                    return Err(refuse(format!("a number in \"{name}\" is not one of a factor")));
                }
                if shapes.len() == l {
                    shapes.push(array.shape().to_vec());
                } else if shapes[l] != array.shape() {
                    return Err(refuse(format!("\"{name}\" has the shape {:?}", array.shape())));
                }
                factors.push(array.into_raw_vec_and_offset().0);
            }
            match factors.len() {
                0 => Ok(None),
                n if n == count => Ok(Some(factors)),
                n => Err(refuse(format!("it has {n} of {count} arrays \"{name}_…\""))),
            }
        };
        let state = EngineState {
            factors: set("theta")?.ok_or_else(|| refuse("it has no factors".into()))?,
            plain: set("plain")?,
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
    pub(super) fn check(&self, here: &Identity, shapes: &Shapes) -> Result<()> {
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
    pub(super) fn factors(&self) -> Result<Vec<ArrayD<f64>>> {
        let parts = self.state.factors.iter().zip(&self.state.scales).zip(&self.shapes);
        let of = |((factor, scale), shape): ((&Vec<f64>, &f64), &Vec<usize>)| {
            let values = factor.iter().map(|x| x / scale).collect();
            ArrayD::from_shape_vec(IxDyn(shape), values)
                .map_err(|e| Error::format(&self.path, e.to_string()))
        };
        parts.map(of).collect()
    }

    /// The same keeper, whose file is this one already if it is this one.
    pub(super) fn kept_by(&self, mut keeper: Keeper) -> Keeper {
        let same = |a: &Path, b: &Path| {
            a == b
                || std::fs::canonicalize(a)
                    .ok()
                    .is_some_and(|a| std::fs::canonicalize(b).ok() == Some(a))
        };
        if same(&self.path, &keeper.path) {
            let stage = self.about.point.stage;
            keeper.saved = Some(self.about.sweeps);
            keeper.tried = Some((Instant::now(), self.about.sweeps, stage));
        }
        keeper
    }

    pub(super) fn seed(&self) -> u64 {
        self.about.seed
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.about.warnings
    }

    /// Puts the watch and the history where they were.
    pub(super) fn go_on(self, watch: &mut Watch<'_>, history: &mut History) -> Point {
        let About { point, seconds, .. } = self.about;
        watch.go_on(&self.history, seconds);
        let now = history.clone();
        *history = History {
            stopped_by: now.stopped_by,
            algorithm: now.algorithm,
            device: now.device,
            precision: now.precision,
            ..self.history
        };
        point
    }
}

/// What a fit is, apart from how far it goes: pairs of what and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity(Vec<(String, String)>);

impl Identity {
    /// The name of the loss.
    fn loss(&self) -> &str {
        self.0.iter().find(|(what, _)| what == "loss").map_or("", |(_, how)| how)
    }

    /// The floor of ŷ, where one was asked for.
    fn prediction_floor(&self) -> Option<f64> {
        self.0.iter().find(|(what, _)| what == "prediction floor")?.1.parse().ok()
    }

    /// That of the fit to be, before its start is taken out of the settings.
    pub fn new(
        settings: &NNEinFact,
        data: Fingerprint,
        rules: &Constraints,
        plan: &Plan,
        device: &Device,
    ) -> Identity {
        let shapes = plan.shapes();
        let model = shapes.model();
        let mut list = Vec::new();
        let mut add = |what: &str, how: String| list.push((what.to_string(), how));
        add("model", model.to_string());
        add("shape of the data", format!("{:?}", shapes.data()));
        let ranks = model.latent().iter().map(|x| format!("{x}={}", shapes.size(x)));
        add("ranks", ranks.collect::<Vec<String>>().join(","));
        add("values of the data", fingerprint(data.values));
        add("missing and withheld entries", fingerprint(data.roles));
        add("weights of the data", fingerprint(data.weights));
        add("loss", settings.loss.name().to_string());
        add("expressions of the loss", fingerprint(of_loss(&settings.loss)));
        add("algorithm", settings.algorithm.name().into());
        add("division into groups", plan.cut());
        let passes =
            if plan.sparse_passes().is_empty() { "over all cells" } else { "over a list of cells" };
        add("form of the data", passes.into());
        add("precision", settings.precision.name().into());
        add("device", device.kind_name().into());
        add("start", start(settings));
        for l in 0..model.factors().len() {
            add(&format!("factor {} ({})", l + 1, model.factor_name(l)), rules.describe(l));
        }
        let balance = match settings.balance.unwrap_or_default() {
            _ if !rules.is_penalized() => "no penalties",
            Balance::Never => "never",
            Balance::AtStart => "at the start",
            Balance::EverySweep => "every sweep",
        };
        add("balancing", balance.into());
        let or_default = |x: Option<String>| x.unwrap_or_else(|| "the default".into());
        add("prediction floor", or_default(settings.prediction_floor.map(|x| x.to_string())));
        add("factor floor", settings.factor_floor.to_string());
        add("number of inner cycles", settings.inner_cycles.to_string());
        add("number of sweeps from look to look", settings.eval_every.to_string());
        add("early stopping", if settings.early_stopping { "on" } else { "off" }.into());
        add("memory limit", or_default(settings.memory_limit.map(|n| n.to_string())));
        Identity(list)
    }

    /// What is not the same, a phrase each.
    fn differences(&self, here: &Identity) -> Vec<String> {
        let of = |list: &Identity, what: &str| {
            let found = list.0.iter().find(|(other, _)| other == what);
            found.map_or_else(|| "not known".to_string(), |(_, how)| how.clone())
        };
        let new = here.0.iter().filter(|(what, _)| !self.0.iter().any(|(other, _)| other == what));
        let all = self.0.iter().chain(new);
        all.map(|(what, _)| (what, of(self, what), of(here, what)))
            .filter(|(_, there, here)| there != here)
            .map(|(what, there, here)| format!("{what}: {there} in the file, {here} here"))
            .collect()
    }
}

fn fingerprint(x: u64) -> String {
    format!("fingerprint {x:016x}")
}

fn of_loss(loss: &Loss) -> u64 {
    let text = format!("{} | {} | {} | {:?}", loss.a(), loss.b(), loss.loss(), loss.majorizer());
    let sides = loss.entry_parameters().iter().flat_map(|side| side.iter().map(|x| x.to_bits()));
    digest(text.bytes().map(u64::from).chain([loss.curvature_constant().to_bits()]).chain(sides))
}

fn start(settings: &NNEinFact) -> String {
    let NNEinFact { seed, starts, .. } = settings;
    let of = match starts {
        1 => format!("seed {seed}"),
        n => format!("the best of {n} from seed {seed} on"),
    };
    match &settings.start {
        Start::Random => format!("random, {of}"),
        Start::Gamma { shape } => format!("gamma of shape {shape}, {of}"),
        Start::Svd => format!("svd, {of}"),
        Start::Grown(_) => format!("grown, {of}"),
        // The file that they came from may be the one that the interrupted fit wrote.
        Start::Factors(_) => "given factors".into(),
    }
}

/// Saves a fit now and then.
pub(super) struct Keeper {
    path: PathBuf,
    every: Every,
    about: Identity,
    seed: u64,
    warnings: Vec<String>,
    shapes: Vec<Vec<usize>>,
    /// When it was tried last, and where the fit was.
    tried: Option<(Instant, usize, Stage)>,
    /// The sweep that the file is of.
    saved: Option<usize>,
    /// How often it failed, and why the last time.
    failed: Option<(usize, String)>,
    /// How often in a row.
    pub failures: usize,
}

impl Keeper {
    /// For a fit that may go on from the file itself.
    pub fn new(
        path: PathBuf,
        every: Every,
        about: Identity,
        shapes: &Shapes,
        seed: u64,
        warnings: &[String],
    ) -> Keeper {
        remove_leftovers(&path);
        Keeper {
            path,
            every,
            about,
            seed,
            warnings: warnings.to_vec(),
            shapes: (0..shapes.model().factors().len()).map(|l| shapes.factor(l)).collect(),
            tried: None,
            saved: None,
            failed: None,
            failures: 0,
        }
    }

    /// Whether it is time.
    pub fn is_due(&self, sweeps: usize) -> bool {
        let Some((at, before, _)) = self.tried else { return true };
        self.every.sweeps.is_some_and(|n| sweeps.saturating_sub(before) >= n)
            || self.every.time.is_some_and(|time| at.elapsed() >= time)
    }

    /// Whether the fit was last saved after this many sweeps, as the last one ended.
    pub fn has_swept(&self, sweeps: usize) -> bool {
        self.tried.is_some_and(|(_, n, stage)| (n, stage) == (sweeps, Stage::Swept))
    }

    /// Saves the fit as it is. That the file cannot be written is an error the first time, where
    /// nothing is lost by it; later the fit goes on, and it is tried again.
    pub fn save(
        &mut self,
        engine: &dyn Engine,
        watch: &Watch<'_>,
        history: &History,
        point: Point,
    ) -> Result<()> {
        let mut state = engine.state()?;
        if point.stage == Stage::Looked {
            // That is where the next sweep begins, and what is remembered next.
            state.origin = None;
            if !watch.early_stopping {
                state.snapshot = None;
            }
        }
        let written = self.archive(state, watch, history, point).and_then(|a| a.write(&self.path));
        self.tried = Some((Instant::now(), history.iterations, point.stage));
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
        watch: &Watch<'_>,
        history: &History,
        point: Point,
    ) -> Result<Archive> {
        let about = About {
            what: WHAT.into(),
            version: VERSION,
            program: concat!("nneinfact ", env!("CARGO_PKG_VERSION")).into(),
            fit: self.about.clone(),
            algorithm: history.algorithm.clone(),
            precision: history.precision.clone(),
            device: history.device.clone(),
            seed: self.seed,
            sweeps: history.iterations,
            seconds: watch.seconds(),
            warnings: self.warnings.clone(),
            point,
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
            ("plain", state.plain),
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

    /// What the user should know: where checkpoints could not be written.
    pub fn warning(&self) -> Option<String> {
        let (count, why) = self.failed.as_ref()?;
        let plural = if *count == 1 { " was" } else { "s were" };
        let sweep = self.saved.unwrap_or(0);
        Some(format!(
            "{count} checkpoint{plural} not written ({why}): the fit went on without; the file is that of sweep {sweep}"
        ))
    }
}
