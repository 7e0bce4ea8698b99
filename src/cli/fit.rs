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
use super::processes::{Process, ProcessArgs, fit, together};
use super::read_data::{self, ReadOptions};
use super::read_part;
use super::report::AppearanceArgs;
use super::split_args::SplitArgs;
use super::start::StartArgs;
use super::summary::{DataSummary, FitSummary, duration};
use super::table_args::TableArgs;
use super::{complain, is_mute, print};
use nneinfact_core::data::{Observations, Part};
use nneinfact_core::engine::collectives;
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

    #[command(flatten)]
    split: SplitArgs,

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
    processes: ProcessArgs,

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
    args.processes.run(args.quiet, |process| args.run(process))
}

/// A fit to be, as far as it is known before the data are read.
struct Fitting {
    model: Model,
    loss: Loss,
    outputs: OutputFiles,
    /// What it runs on: the device, or several of which this is the first.
    device: Device,
    settings: NNEinFact,
    /// The fits of the other devices.
    others: Vec<NNEinFact>,
}

/// The data of a fit.
struct FitData {
    observations: Observations,
    /// Of which part they are, where other processes have the rest.
    part: Option<Part>,
    /// Of all data.
    shape: Vec<usize>,
    /// What is to be said of them.
    about: Option<DataSummary>,
}

/// A fit that is done, with what is said and written of it.
struct Finished<'a> {
    fitted: &'a Fit,
    /// Where this process has all of them.
    observations: Option<&'a Observations>,
    loss: &'a Loss,
    /// The data and their roles in words, unless nothing is to be said.
    about: Option<DataSummary>,
    /// The seconds that the fit took.
    fitting: f64,
    began: Instant,
}

impl FitArgs {
    /// Fits as one of several processes, or alone. Process 0 writes.
    fn run(&self, mut process: Option<Process>) -> Result<()> {
        let began = Instant::now();
        let Fitting { model, loss, outputs, device, settings, others } =
            together(&mut process, self.begin())?;
        let first = process.as_ref().is_none_or(|process| process.rank == 0);
        let FitData { observations, part, shape, about } =
            self.read(&model, &device, &mut process)?;
        let settings = match together(&mut process, self.part_loss(&loss, part.as_ref()))? {
            Some(loss) => settings.loss(loss),
            None => settings,
        };
        if part.is_none() && !self.quiet {
            for notice in read_data::notices(&self.record()?, &observations)? {
                complain("notice", &notice);
            }
        }
        // The same on all processes, and so no failure of one.
        self.appearance.check(&model, &shape)?;
        // The warnings about the model alone were shown before.
        let shown = model.warnings().len();
        let warned = settings.warnings(&shape)?.split_off(shown);
        warned.iter().for_each(|warning| complain("warning", warning));
        let show = match (self.quiet || is_mute(), self.progress) {
            (true, _) => Show::Never,
            (false, true) => Show::Always,
            (false, false) => Show::OnTerminal,
        };
        let completes = self.early_stopping && self.checkpoint.is_asked_for();
        let (settings, progress) = FitProgress::attach(settings, show, &device, completes);
        let started = Instant::now();
        let fitted = fit(settings, others, process, &observations, part.as_ref());
        progress.ended();
        if let (Err(Error::Broken { last, .. }), true) = (&fitted, first) {
            let last = Fit::from(Unfinished::clone(last));
            // Labels of a part are not those of the fit.
            let last = match part {
                Some(_) => last,
                None => last.with_labels(observations.labels())?,
            };
            outputs.rescue(self.components.apply(&last).as_ref().unwrap_or(&last));
        }
        let fitted = fitted?;
        let fitting = started.elapsed().as_secs_f64();
        drop(progress);
        let new = fitted.warnings().iter().filter(|warning| !warned.contains(warning));
        new.for_each(|warning| complain("warning", warning));
        if !first {
            return Ok(());
        }
        let observations = part.is_none().then_some(&observations);
        let finished =
            Finished { fitted: &fitted, observations, loss: &loss, about, fitting, began };
        self.finish(finished, &outputs, &device)
    }

    /// What can be known and checked before the data are read.
    fn begin(&self) -> Result<Fitting> {
        let CheckedProblem { model, loss, settings } = self.problem.check()?;
        self.components.check(&model)?;
        let with_rate = |settings: NNEinFact| match self.learning_rate {
            Some(rate) => settings.learning_rate(rate),
            None => settings,
        };
        let settings = with_rate(settings);
        // What is wrong with the settings is said before the data are read.
        settings.check()?;
        self.check()?;
        let outputs = self.outputs(&loss)?;
        if !is_mute() {
            outputs.check(&self.inputs())?;
            let written: Vec<&Path> = [&outputs.factors, &outputs.history, &outputs.report]
                .into_iter()
                .filter_map(|p| p.as_deref())
                .collect();
            self.checkpoint.check(&[self.inputs(), self.starts()].concat(), &written)?;
        }
        let several = self.processes.devices(self.threads)?;
        let device = match several.first() {
            Some(first) => first.clone(),
            None => device(&self.device, self.threads)?,
        };
        let settings = self.settings(settings, &model, &device)?;
        let other = |device: &Device| -> Result<NNEinFact> {
            let settings = with_rate(self.problem.settings(&loss)?);
            self.settings(settings, &model, device)
        };
        let others: Result<Vec<NNEinFact>> = several.iter().skip(1).map(other).collect();
        Ok(Fitting { model, loss, outputs, device, settings, others: others? })
    }

    /// Reads the data: all of them, or the part of a process.
    fn read(
        &self,
        model: &Model,
        device: &Device,
        process: &mut Option<Process>,
    ) -> Result<FitData> {
        let letters: Vec<char> = model.output().iter().map(|&index| index.into()).collect();
        let record = self.record();
        // On the device's threads: not more of them read than fit.
        let (data, part) = device.install(|| -> Result<_> {
            let options = self.read_options(&letters);
            match process {
                None => Ok((read_data::read(&record?, options)?, None)),
                Some(process) => {
                    let record = collectives::together(process.reducer.as_mut(), record)?;
                    read_part::read(&record, options, self.processes.slabs(), process)
                }
            }
        })?;
        let own = data.observations.shape();
        let shape = part.as_ref().map_or_else(|| own.to_vec(), |part| part.shape(own));
        let quiet = self.quiet || is_mute() || part.as_ref().is_some_and(|p| p.range.is_empty());
        let about = match quiet {
            true => None,
            false => {
                let size = process.as_ref().map_or(1, |process| process.size);
                let about = || match &part {
                    Some(part) => {
                        Ok(DataSummary::of_part(&self.data, &data, &letters, (part, size)))
                    }
                    None => DataSummary::new(&self.data, &data, &letters),
                };
                Some(device.install(about)?)
            }
        };
        Ok(FitData { observations: data.observations, part, shape, about })
    }

    /// The loss of the part of a process, where it has parameters for each entry.
    fn part_loss(&self, loss: &Loss, part: Option<&Part>) -> Result<Option<Loss>> {
        let part =
            part.filter(|part| !part.range.is_empty() && !loss.entry_parameters().is_empty());
        part.map(|part| self.problem.loss.loss_of_part(part)).transpose()
    }

    /// Refuses options that do not go together.
    fn check(&self) -> Result<()> {
        self.split.check(self.heldout.is_some() || self.validation.is_some())?;
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
                let report = match observations {
                    // Of a part there are no residuals of the whole.
                    None => report,
                    Some(observations) => {
                        let residuals =
                            device.install(|| Residuals::new(&saved, observations, Some(loss)))?;
                        report.residuals(residuals)
                    }
                };
                io::write_text(path, &report.html())
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
        data: DataSummary,
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
        let mut settings = self
            .processes
            .apply(settings)
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
            heldout_as: self.split.kind(),
            zeros_per_nonzero: self.split.zeros_per_nonzero,
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
