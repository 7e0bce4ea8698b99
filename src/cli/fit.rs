//! `nneinfact fit`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::args::DataAsArg;
use super::checkpoint::CheckpointArgs;
use super::components::ComponentArgs;
use super::constraints::ConstraintArgs;
use super::fit_progress::{FitProgress, Show};
use super::output::{OutputFiles, read_factors};
use super::problem::{CheckedProblem, ProblemArgs};
use super::read_data::{self, ReadOptions};
use super::report::AppearanceArgs;
use super::start::StartArgs;
use super::summary::{self, FitSummary, duration};
use super::table_args::TableArgs;
use super::{complain, print};
use nneinfact_core::data::Observations;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::Loss;
use nneinfact_core::model::Model;
use nneinfact_fit::Device;
use nneinfact_fit::io;
use nneinfact_fit::{DataRecord, Fit, NNEinFact, Start, Unfinished};
use nneinfact_insight::report::{Report, Residuals};

/// The arguments of `fit`.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("validating").multiple(true))]
pub struct FitArgs {
    /// The data, or a .toml that describes a fit to several tensors (see `nneinfact fit FILE.toml --help`):
    /// a table of events (.csv, .tsv, packed by gzip or not, a quoted pattern as
    /// 'rides-*.csv', or - for standard input; see --modes), what `nneinfact table` wrote, .npy, .npz
    /// (numeric arrays of any type), .tns (coordinates, see --index-base, and a value on every line;
    /// entries that are not listed are zeros, see --unlisted-missing), a sparse matrix (.mtx, scipy's
    /// .npz, a folder of 10x Genomics)
    #[arg(value_name = "DATA")]
    data: PathBuf,

    #[command(flatten)]
    problem: ProblemArgs,

    #[command(flatten)]
    constraints: ConstraintArgs,

    /// The array to read from an .npz [default: the only numeric one]
    #[arg(long, value_name = "NAME")]
    key: Option<String>,

    /// The shape of a .tns, as in 27,24,7,100,100 [default: the largest indices]
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    shape: Option<Vec<usize>>,

    /// What the indices of .tns files, those of the lists too, count from
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    index_base: u8,

    /// A .npy of booleans like the data: true is observed, false is missing
    #[arg(long, value_name = "FILE.npy", conflicts_with = "weights")]
    mask: Option<PathBuf>,

    /// A .npy of numbers like the data: the weight of each entry's loss, 0 is missing
    #[arg(long, value_name = "FILE.npy")]
    weights: Option<PathBuf>,

    /// NaN in the data means missing
    #[arg(long)]
    nan_missing: bool,

    /// Entries that a .tns does not list, or that have no row in a table, are missing, not zeros
    #[arg(long)]
    unlisted_missing: bool,

    /// A .tns of the entries that are missing; its values do not matter and may be left out
    #[arg(long, value_name = "FILE.tns")]
    missing: Option<PathBuf>,

    /// A .tns of the entries that are withheld, and whose loss is reported; without values, too
    #[arg(long, value_name = "FILE.tns")]
    heldout_coordinates: Option<PathBuf>,

    /// A .tns of the entries that are withheld to decide when to stop; without values, too
    #[arg(long, value_name = "FILE.tns", group = "validating")]
    validation_coordinates: Option<PathBuf>,

    /// The format in which passes read the data: results are the same up to rounding
    #[arg(long, value_enum, default_value = "auto")]
    data_as: DataAsArg,

    /// Leave the data in their .npy and read them from there in every pass, a slab at a time, with
    /// the same results [default: where the file is larger than half of the memory that is free]. The
    /// file must stay as it is: where it is made shorter meanwhile, the system ends this process
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

    /// Evaluate the losses every so many sweeps only (block and grouped): a GPU need not wait for it
    #[arg(long, alias = "look-every", value_name = "N", default_value_t = 1)]
    eval_every: usize,

    /// How often the factors of a group are updated from one pass; of no effect where a group has one factor (block),
    /// and on the exact steps of an accelerated Euclidean fit
    #[arg(long, value_name = "N", default_value_t = 1)]
    inner_cycles: usize,

    /// What predictions are clamped to from below before a quotient, a power or a logarithm [default: 1e-10 of
    /// the data's mean, or 1e-10 itself where predictions are odds; more in f32 for losses with large exponents]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    prediction_floor: Option<f64>,

    /// What entries of a factor are clamped to from below after an update, as a fraction of its largest; 0 lets
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

    /// Write the absolute paths of data, masks and lists into --out; without this, their names alone
    #[arg(long)]
    record_paths: bool,

    /// Where to write the losses sweep by sweep
    #[arg(long, value_name = "HISTORY.json")]
    history: Option<PathBuf>,

    #[command(flatten)]
    table: TableArgs,

    #[command(flatten)]
    checkpoint: CheckpointArgs,

    /// Where to write a page with plots of the fit: see `nneinfact report`
    #[arg(long, value_name = "REPORT.html")]
    report: Option<PathBuf>,

    #[command(flatten)]
    appearance: AppearanceArgs,

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
    let CheckedProblem { model, loss, settings } = args.problem.check()?;
    args.components.check(&model)?;
    let settings = match args.learning_rate {
        Some(rate) => settings.learning_rate(rate),
        None => settings,
    };
    // What is wrong with the settings is said before the data are read.
    settings.check()?;
    args.check()?;
    let outputs = args.outputs(&loss)?;
    outputs.check(&args.inputs())?;
    let written: Vec<&Path> = [&outputs.factors, &outputs.history, &outputs.report]
        .into_iter()
        .filter_map(|p| p.as_deref())
        .collect();
    args.checkpoint.check(&[args.inputs(), args.starts()].concat(), &written)?;
    let device = device(&args.device, args.threads)?;
    let settings = args.settings(settings, &model, &device)?;

    // On the device's threads: not more of them read than fit.
    let (observations, about) = device.install(|| -> Result<_> {
        let letters: Vec<char> = model.output().iter().map(|&index| index.into()).collect();
        let data = read_data::read(&args.record()?, args.read_options(&letters))?;
        let about = match args.quiet {
            true => None,
            false => Some(summary::DataSummary::new(&args.data, &data, &letters)?),
        };
        Ok((data.observations, about))
    })?;

    if !args.quiet {
        for notice in read_data::notices(&args.record()?, &observations)? {
            complain("notice", &notice);
        }
    }
    args.appearance.check(&model, observations.shape())?;
    // The warnings about the model alone were shown before.
    let shown = model.warnings().len();
    let warned = settings.warnings(observations.shape())?.split_off(shown);
    warned.iter().for_each(|warning| complain("warning", warning));
    let show = match (args.quiet, args.progress) {
        (true, _) => Show::Never,
        (false, true) => Show::Always,
        (false, false) => Show::OnTerminal,
    };
    let completes = args.early_stopping && args.checkpoint.is_asked_for();
    let (settings, progress) = FitProgress::attach(settings, show, &device, completes);
    let fitting = Instant::now();
    let fitted = settings.fit(&observations);
    progress.ended();
    if let Err(Error::Broken { last, .. }) = &fitted {
        // What was reached is not lost; the error and its exit status stay.
        let last = Fit::from(Unfinished::clone(last)).with_labels(observations.labels())?;
        let written = outputs.write(args.components.apply(&last).as_ref().unwrap_or(&last));
        if let Some(path) = &written.factors {
            complain(
                "notice",
                &format!("the factors before it were written to {}", path.display()),
            );
        }
        written.problems.iter().for_each(|problem| complain("warning", problem));
    }
    let fitted = fitted?;
    let fitting = fitting.elapsed().as_secs_f64();
    drop(progress);
    let new = fitted.warnings().iter().filter(|warning| !warned.contains(warning));
    new.for_each(|warning| complain("warning", warning));
    let finished = Finished {
        fitted: &fitted,
        observations: &observations,
        loss: &loss,
        about,
        fitting,
        began,
    };
    args.finish(finished, &outputs, &device)
}

/// A fit that is done, with what is said and written of it.
struct Finished<'a> {
    fitted: &'a Fit,
    observations: &'a Observations,
    loss: &'a Loss,
    /// The data and their roles in words, unless nothing is to be said.
    about: Option<summary::DataSummary>,
    /// The seconds that the fit took.
    fitting: f64,
    began: Instant,
}

impl FitArgs {
    /// Refuses options that do not go together.
    fn check(&self) -> Result<()> {
        if self.report.is_none() && self.appearance.any() {
            return Err(Error::Setting("--labels, --upwards and --title are for --report".into()));
        }
        if let Some(option) = self.constraints.bounding().filter(|_| self.components.normalizes()) {
            return Err(Error::Setting(format!(
                "{option} and --normalize exclude each other: normalised factors would not keep to the bounds"
            )));
        }
        Ok(())
    }

    /// Writes and prints what was asked for of a fit, which nothing that happens here may lose.
    fn finish(&self, finished: Finished<'_>, outputs: &OutputFiles, device: &Device) -> Result<()> {
        let Finished { fitted, observations, loss, about, fitting, began } = finished;
        let arranged = self.components.apply(fitted);
        let fit = arranged.as_ref().unwrap_or(fitted);
        let mut written = outputs.write(fit);
        if let Err(error) = &arranged {
            let problem = format!("{error}; the components are left as they were fitted");
            written.problems.insert(0, problem);
        }
        if let Some(path) = &self.report {
            let page = || -> Result<()> {
                let saved = outputs.saved(fit);
                let report = self.appearance.apply(Report::new(&saved))?;
                let residuals =
                    device.install(|| Residuals::new(&saved, observations, Some(loss)))?;
                io::write_text(path, &report.residuals(residuals).html())
            };
            written.report = written.keep(path, page());
        }
        if let Some(about) = about {
            let seconds = [fitting, began.elapsed().as_secs_f64()];
            let mut text = self.summary(fit, loss, about, arranged.is_ok(), seconds)?;
            text.add_outputs(&written, self.out.is_some(), fit);
            self.checkpoint.describe(fit, &mut text);
            print(&text.into_text())?;
        }
        written.check()
    }

    /// The files that are written, with what they say of the loss and the data.
    fn outputs(&self, loss: &Loss) -> Result<OutputFiles> {
        Ok(OutputFiles {
            factors: self.out.clone(),
            history: self.history.clone(),
            report: self.report.clone(),
            loss: Some(self.problem.loss.record(loss, self.record_paths)),
            data: Some(read_data::recorded(&self.record()?, self.record_paths)),
        })
    }

    /// What is printed of a fit, but for what was written; `arranged` says that its components are as they
    /// were asked for, `seconds` are those of the fit and those of the whole command.
    fn summary(
        &self,
        fit: &Fit,
        loss: &Loss,
        data: summary::DataSummary,
        arranged: bool,
        [fitting, whole]: [f64; 2],
    ) -> Result<FitSummary> {
        let mut summary = FitSummary::default();
        summary.add_model(fit, loss);
        summary.add_data(data);
        self.start.describe(fit, &mut summary);
        summary.add_fit(fit, self.tol);
        if arranged {
            self.components.describe(&mut summary, fit)?;
        }
        let time = format!("{} for the fit, {} in all", duration(fitting), duration(whole));
        summary.add("time", time);
        summary.add_memory();
        Ok(summary)
    }

    /// The settings of the fit; reads the files of the start and of fixed factors.
    fn settings(&self, settings: NNEinFact, model: &Model, device: &Device) -> Result<NNEinFact> {
        let mut settings = settings
            .device(device.clone())
            .seed(self.seed)
            .starts(self.start.starts)
            .max_iter(self.max_iter)
            .tolerance(self.tol)
            .early_stopping(self.early_stopping)
            .inner_cycles(self.inner_cycles)
            .eval_every(self.eval_every)
            .factor_floor(self.factor_floor)
            .data_as(self.data_as.into())
            .kkt_residual(!self.quiet);
        if let Some(floor) = self.prediction_floor {
            settings = settings.prediction_floor(floor);
        }
        if let Some(start) = self.start.start(model)? {
            settings = settings.start(start);
        }
        if let Some(path) = &self.init {
            settings = settings.start(Start::Factors(read_factors(path, model)?));
        }
        settings = self.constraints.apply(model, settings)?;
        self.checkpoint.apply(settings, self.quiet)
    }

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
        std::iter::once(self.data.as_path())
            .chain(optional)
            .chain(self.constraints.inputs())
            .chain(self.appearance.inputs())
            .chain(self.table.inputs())
            .collect()
    }

    /// The files that the start is read from.
    fn starts(&self) -> Vec<&Path> {
        self.init.as_deref().into_iter().chain(self.start.input()).collect()
    }

    /// Where the data are, and what decides which of them are fitted.
    fn record(&self) -> Result<DataRecord> {
        self.table.apply(DataRecord {
            path: self.data.clone(),
            key: self.key.clone(),
            shape: self.shape.clone(),
            mask: self.mask.clone(),
            weights: self.weights.clone(),
            zero_based: self.index_base == 0,
            nan_missing: self.nan_missing,
            unlisted_missing: self.unlisted_missing,
            missing: self.missing.clone(),
            heldout: self.heldout,
            heldout_mask: self.heldout_mask.clone(),
            heldout_coordinates: self.heldout_coordinates.clone(),
            validation: self.validation,
            validation_coordinates: self.validation_coordinates.clone(),
            split_seed: self.split_seed,
            ..DataRecord::default()
        })
    }

    /// How the data are read.
    fn read_options<'a>(&self, letters: &'a [char]) -> ReadOptions<'a> {
        let stream = match (self.stream, self.no_stream) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        };
        ReadOptions { letters: Some(letters), stream, quiet: self.quiet }
    }
}
