//! `nneinfact fit`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::args::DataAsArg;
use super::checkpoint::CheckpointArgs;
use super::components::ComponentArgs;
use super::output::{Outputs, read_factors};
use super::problem::{Problem, ProblemArgs};
use super::progress::{Progress, Show};
use super::report::{self, Report, duration};
use super::rules::RuleArgs;
use super::start::StartArgs;
use super::{complain, print};
use crate::data::{Observations, Values};
use crate::engine::{Device, available_memory};
use crate::error::{Error, Result, bytes};
use crate::fit::{NNEinFact, Start};
use crate::io::{self, FileKind};

/// The arguments of `fit`.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("validating").multiple(true))]
pub struct FitArgs {
    /// The data: .npy, .npz (numeric arrays of any type), or .tns (coordinates counted from 1 and a
    /// value on every line; entries that are not listed are zeros, see --unlisted-missing)
    #[arg(value_name = "DATA")]
    data: PathBuf,

    #[command(flatten)]
    problem: ProblemArgs,

    #[command(flatten)]
    rules: RuleArgs,

    /// The array to read from an .npz [default: the only numeric one]
    #[arg(long, value_name = "NAME")]
    key: Option<String>,

    /// The shape of a .tns, as in 27,24,7,100,100 [default: the largest indices]
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    shape: Option<Vec<usize>>,

    /// A .npy of booleans like the data: true is observed, false is missing
    #[arg(long, value_name = "FILE.npy", conflicts_with = "weights")]
    mask: Option<PathBuf>,

    /// A .npy of numbers like the data: the weight of each entry's loss, 0 is missing
    #[arg(long, value_name = "FILE.npy")]
    weights: Option<PathBuf>,

    /// NaN in the data means missing
    #[arg(long)]
    nan_missing: bool,

    /// Entries that a .tns does not list are missing, not zeros
    #[arg(long)]
    unlisted_missing: bool,

    /// A .tns of the entries that are missing; its values do not matter
    #[arg(long, value_name = "FILE.tns")]
    missing: Option<PathBuf>,

    /// A .tns of the entries that are withheld, and whose loss is reported
    #[arg(long, value_name = "FILE.tns")]
    heldout_coordinates: Option<PathBuf>,

    /// A .tns of the entries that are withheld to decide when to stop
    #[arg(long, value_name = "FILE.tns", group = "validating")]
    validation_coordinates: Option<PathBuf>,

    /// The form in which passes read the data: results are the same up to rounding
    #[arg(long, value_enum, default_value = "auto")]
    data_as: DataAsArg,

    /// Leave the data in their .npy and read them from there in every pass, a slab at a time, with
    /// the same results [default: where the file is larger than half of the memory that is free]
    #[arg(long, conflicts_with = "no_stream")]
    stream: bool,

    /// Read all data into memory, however large they are
    #[arg(long)]
    no_stream: bool,

    /// Withhold this fraction of the observed entries, at random, and report their loss
    #[arg(
        long,
        value_name = "FRACTION",
        allow_negative_numbers = true,
        conflicts_with = "heldout_mask"
    )]
    heldout: Option<f64>,

    /// A .npy of booleans like the data: true is withheld, and its loss is reported
    #[arg(long, value_name = "FILE.npy")]
    heldout_mask: Option<PathBuf>,

    /// Withhold this fraction of the remaining entries, at random, to decide when to stop
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true, group = "validating")]
    validation: Option<f64>,

    /// Stop after 5 rises of the validation loss in a row and return the factors at its lowest
    #[arg(long, requires = "validating")]
    early_stopping: bool,

    /// Start from these factors: arrays theta_1 to theta_L as --out writes them
    #[arg(long, value_name = "FILE.npz", conflicts_with_all = ["start", "gamma_shape", "grow", "starts"])]
    init: Option<PathBuf>,

    #[command(flatten)]
    start: StartArgs,

    /// The seed of the random start, and of what is random in others
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// The seed of --heldout and --validation
    #[arg(long, value_name = "N", default_value_t = 0)]
    split_seed: u64,

    /// The most sweeps; 0 only evaluates the start
    #[arg(long, value_name = "N", default_value_t = NNEinFact::MAX_ITER)]
    max_iter: usize,

    /// Stop when a sweep lowers the training loss by less than this fraction of it, three times in
    /// a row (of the loss, or of all progress so far, whichever is more); 0 never stops early
    #[arg(
        long,
        value_name = "T",
        default_value_t = NNEinFact::TOLERANCE,
        allow_negative_numbers = true
    )]
    tol: f64,

    /// How far a step of --algorithm adam goes: at first every entry changes by a factor of about
    /// exp(±RATE) [default: 0.1]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    learning_rate: Option<f64>,

    /// Look at the losses every so many sweeps only (block and grouped): a GPU need not wait for it
    #[arg(long, value_name = "N", default_value_t = 1)]
    look_every: usize,

    /// How often the factors of a group are updated from one pass
    #[arg(long, value_name = "N", default_value_t = 1)]
    inner_cycles: usize,

    /// What predictions are raised to before a quotient, a power or a logarithm [default: 1e-10 of
    /// the data's mean; more in f32 for losses with large exponents]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    prediction_floor: Option<f64>,

    /// What entries of a factor are raised to after an update, as a fraction of its largest; 0 lets
    /// them reach zero and stay there
    #[arg(
        long,
        value_name = "X",
        default_value_t = NNEinFact::FACTOR_FLOOR,
        allow_negative_numbers = true
    )]
    factor_floor: f64,

    #[command(flatten)]
    components: ComponentArgs,

    /// What to run on: auto, cpu, gpu or part of a name; see `nneinfact devices`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    device: String,

    /// How many threads to use [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Where to write the factors, as arrays theta_1 to theta_L (and weights, see --normalize)
    #[arg(long, value_name = "FACTORS.npz")]
    out: Option<PathBuf>,

    /// Where to write the losses sweep by sweep
    #[arg(long, value_name = "HISTORY.json")]
    history: Option<PathBuf>,

    #[command(flatten)]
    checkpoint: CheckpointArgs,

    /// Show progress also where standard error is not a terminal
    #[arg(long, conflicts_with = "quiet")]
    progress: bool,

    /// No progress and no summary
    #[arg(long)]
    quiet: bool,
}

/// The device of `--device` and `--threads`.
pub fn device(name: &str, threads: Option<usize>) -> Result<Device> {
    let device = Device::named(name)?;
    match threads {
        Some(threads) => device.threads(threads),
        None => Ok(device),
    }
}

/// Reads, fits, writes, reports.
pub fn run(args: &FitArgs) -> Result<()> {
    let began = Instant::now();
    let Problem { model, loss, settings } = args.problem.check()?;
    args.components.check(&model)?;
    let settings = match args.learning_rate {
        Some(rate) => settings.learning_rate(rate),
        None => settings,
    };
    // What is wrong with the settings is told before the data are read.
    settings.check()?;
    let outputs = Outputs { factors: args.out.clone(), history: args.history.clone() };
    outputs.check(&args.inputs())?;
    let written: Vec<&Path> =
        [&outputs.factors, &outputs.history].into_iter().filter_map(|p| p.as_deref()).collect();
    args.checkpoint.check(&[args.inputs(), args.starts()].concat(), &written)?;
    let device = device(&args.device, args.threads)?;
    let mut settings = settings
        .device(device.clone())
        .seed(args.seed)
        .starts(args.start.starts)
        .max_iter(args.max_iter)
        .tolerance(args.tol)
        .early_stopping(args.early_stopping)
        .inner_cycles(args.inner_cycles)
        .look_every(args.look_every)
        .factor_floor(args.factor_floor)
        .data_as(args.data_as.into());
    if let Some(floor) = args.prediction_floor {
        settings = settings.prediction_floor(floor);
    }
    if let Some(start) = args.start.start(&model)? {
        settings = settings.start(start);
    }
    if let Some(path) = &args.init {
        settings = settings.start(Start::Factors(read_factors(path, &model)?));
    }
    settings = args.rules.apply(&model, settings)?;
    settings = args.checkpoint.apply(settings, args.quiet)?;

    let mut report = Report::default();
    // On the device's threads: not more of them read than fit.
    let (observations, about) = device.install(|| -> Result<_> {
        let observations = args.observations()?;
        let about = match args.quiet {
            true => None,
            false => Some((report::data(&args.data, &observations), report::roles(&observations)?)),
        };
        Ok((observations, about))
    })?;

    // Those of the model alone have been told.
    let told = model.warnings().len();
    for warning in settings.warnings(observations.shape())?.iter().skip(told) {
        complain("warning", warning);
    }
    let show = match (args.quiet, args.progress) {
        (true, _) => Show::Never,
        (false, true) => Show::Always,
        (false, false) => Show::OnTerminal,
    };
    let (settings, progress) = Progress::attach(settings, show, &device);
    let fitting = Instant::now();
    let fitted = settings.fit(&observations);
    if let Err(Error::Broken { last, .. }) = &fitted {
        // What was reached is not lost; the error and its exit status stay.
        outputs.write(args.components.apply(last).as_ref().unwrap_or(last))?;
        if let Some(path) = &args.out {
            complain(
                "notice",
                &format!("the factors before it were written to {}", path.display()),
            );
        }
    }
    let fit = args.components.apply(&fitted?)?;
    let fitting = fitting.elapsed().as_secs_f64();
    drop(progress);
    fit.warnings().iter().for_each(|warning| complain("warning", warning));
    outputs.write(&fit)?;

    let Some((data, roles)) = about else { return Ok(()) };
    report.add_model(&fit, &loss);
    report.add("data", data);
    if !roles.is_empty() {
        report.add("", roles.join(", "));
    }
    args.start.report(&fit, &mut report);
    report.add_fit(&fit, args.tol);
    args.components.report(&mut report, &fit)?;
    let whole = began.elapsed().as_secs_f64();
    report.add("time", format!("{} for the fit, {} in all", duration(fitting), duration(whole)));
    report.add_memory();
    report.add_outputs(&outputs, &fit);
    args.checkpoint.report(&fit, &mut report);
    print(&report.into_text())
}

impl FitArgs {
    /// The files that are read while or after the outputs could be taken for them. The start is not
    /// among them: to go on from a file and replace it is what one wants.
    fn inputs(&self) -> Vec<&Path> {
        let optional = [
            &self.mask,
            &self.weights,
            &self.heldout_mask,
            &self.missing,
            &self.heldout_coordinates,
            &self.validation_coordinates,
        ];
        let optional = optional.into_iter().filter_map(|path| path.as_deref());
        std::iter::once(self.data.as_path()).chain(optional).chain(self.rules.inputs()).collect()
    }

    /// The files that the start is read from.
    fn starts(&self) -> Vec<&Path> {
        self.init.as_deref().into_iter().chain(self.start.input()).collect()
    }

    /// Reads the data and what goes with them.
    fn observations(&self) -> Result<Observations> {
        let mut observations = Observations::new(self.values()?);
        // What goes with the data is as large as they are.
        let streamed = observations.values().is_mapped();
        if let Some(path) = &self.mask {
            observations = match streamed {
                true => observations.mask_from(&io::map_bool(path)?)?,
                false => observations.mask(&io::read_bool(path)?)?,
            };
        }
        if let Some(path) = &self.weights {
            let weights = match FileKind::of(path)? {
                FileKind::Npy if streamed => io::map_npy(path)?,
                _ => io::read_dense(path, None)?,
            };
            observations = observations.weights(weights)?;
        }
        if self.nan_missing {
            observations = observations.nan_missing();
        }
        if self.unlisted_missing {
            if observations.coordinates().is_none() {
                return Err(Error::Setting(format!(
                    "--unlisted-missing is for .tns files, not for {}, which has all entries",
                    self.data.display()
                )));
            }
            observations = observations.unlisted_missing();
        }
        let shape = observations.shape().to_vec();
        let cells = |path: &Path| io::read_tns(path, Some(&shape));
        if let Some(path) = &self.missing {
            observations = observations.missing_at(cells(path)?)?;
        }
        if let Some(path) = &self.heldout_coordinates {
            observations = observations.held_out_at(cells(path)?)?;
        }
        if let Some(path) = &self.validation_coordinates {
            observations = observations.validation_at(cells(path)?)?;
        }
        if let Some(fraction) = self.heldout {
            observations = observations.held_out(fraction, self.split_seed)?;
        }
        if let Some(path) = &self.heldout_mask {
            observations = match streamed {
                true => observations.held_out_mask_from(&io::map_bool(path)?)?,
                false => observations.held_out_mask(&io::read_bool(path)?)?,
            };
        }
        if let Some(fraction) = self.validation {
            observations = observations.validation(fraction, self.split_seed)?;
        }
        Ok(observations)
    }

    /// Whether the data, a .npy, stay in their file.
    fn streams(&self) -> Result<bool> {
        if self.stream || self.no_stream {
            return Ok(self.stream);
        }
        let file = std::fs::metadata(&self.data).map_err(|e| Error::file(&self.data, e))?;
        let Some(available) = available_memory().filter(|_| file.is_file()) else {
            return Ok(false);
        };
        if file.len() <= available / 2 {
            return Ok(false);
        }
        if !self.quiet {
            complain(
                "notice",
                &format!(
                    "{}: its {} are more than half of the {} of memory that are free, so they are \
                     read from the file in every pass (--no-stream reads them into memory)",
                    self.data.display(),
                    bytes(file.len()),
                    bytes(available)
                ),
            );
        }
        Ok(true)
    }

    fn values(&self) -> Result<Values> {
        let path = &self.data;
        let refuse = |option: &str, kind: &str| {
            Err(Error::Setting(format!("{option} is for {kind} files, not for {}", path.display())))
        };
        match (FileKind::of(path)?, &self.key, &self.shape) {
            (FileKind::Npy | FileKind::Npz, _, Some(_)) => refuse("--shape", ".tns"),
            (FileKind::Npy | FileKind::Tns, Some(_), _) => refuse("--key", ".npz"),
            (FileKind::Npz, ..) if self.stream => Err(Error::Setting(format!(
                "--stream is for .npy files, whose entries lie in the file as they are; those of {} are packed: save the array by itself, with numpy.save",
                path.display()
            ))),
            (FileKind::Tns, ..) if self.stream => Err(Error::Setting(format!(
                "--stream is for .npy files; {} is a list of entries, which is kept in memory as a list",
                path.display()
            ))),
            (FileKind::Npy, None, None) if self.streams()? => Ok(io::map_npy(path)?.into()),
            (FileKind::Npy | FileKind::Npz, key, None) => {
                Ok(io::read_dense(path, key.as_deref())?.into())
            }
            (FileKind::Tns, None, shape) => {
                let coordinates = io::read_tns(path, shape.as_deref())?;
                if coordinates.duplicates() > 0 {
                    complain(
                        "notice",
                        &format!(
                            "{}: {} entries stand at the same place as another one and were added \
                             to it",
                            path.display(),
                            report::count(coordinates.duplicates())
                        ),
                    );
                }
                Ok(coordinates.into())
            }
        }
    }
}
