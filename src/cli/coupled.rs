//! `nneinfact fit` of a file that describes a fit to several tensors.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::checkpoint::CheckpointArgs;
use super::coupled_file::{self, CoupledSpec, PartSpec};
use super::fit::device;
use super::fit_progress::{FitProgress, Show};
use super::output::check_outputs;
use super::read_data::{self, ReadOptions};
use super::summary::{self, FitSummary, duration, number};
use super::{complain, print};
use nneinfact_core::data::Observations;
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::{Coupled, CoupledFit, NNEinFact, Part, Saved, io};
use nneinfact_insight::report::{Report, Residuals};

/// Fit several tensors that share factors.
///
/// The file names the tensors, each with its model, loss and weight; factors with the same letters are
/// the same factor, and what the tensors say of it adds up:
///
///   ranks = { r = 5 }
///   penalties = ["l2=0.1"]             # also bounds, fix, tie, smooth, simplex, basis, algorithm, tol,
///   seed = 1                           # precision, starts, max_iter, early_stopping, data_as, inner_cycles
///
///   [[part]]
///   data = "ratings.npy"
///   model = "ir,jr->ij"
///   heldout = 0.1                      # and the other keys about data that a study has
///
///   [[part]]
///   name = "traits"                    # of its files; by default that of the data
///   data = "people.npy"
///   model = "ir,kr->ik"
///   loss = "euclidean"
///   weight = 0.5
///
///   [[part]]
///   data = "events.csv"                # a table, as `nneinfact table` reads it
///   modes = "i=person,hour(time)"
///   model = "ir,hr->ih"
///
/// A letter is the same mode in all parts, by its labels where it has any: each part gets those of all.
/// At labels that are in other parts only, counts and other lists have zeros (or nothing, with
/// unlisted_missing), and all else is missing.
///
/// Paths are relative to the file's folder. FOLDER gets NAME.npz with the factors of each part, which
/// every other command takes, and history.json.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, override_usage = "nneinfact fit [OPTIONS] <FILE.toml>")]
pub struct CoupledArgs {
    /// The file
    #[arg(value_name = "FILE.toml")]
    input: PathBuf,

    /// The folder for the results [default: `out` of the file]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// Write a page for each part beside its factors, NAME.html
    #[arg(long)]
    report: bool,

    /// The most sweeps [default: that of the file, or 500]
    #[arg(long, value_name = "N")]
    max_iter: Option<usize>,

    /// As of a fit to one tensor [default: that of the file, or 0.000001]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    tol: Option<f64>,

    /// The seed of the start [default: that of the file, or 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    #[command(flatten)]
    checkpoint: CheckpointArgs,

    /// Where to run: auto, cpu, gpu, or part of a name that `nneinfact devices` lists
    #[arg(long, value_name = "NAME", default_value = "auto")]
    device: String,

    /// How many threads of this machine are used [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Write the absolute paths of data into the files; without this, their names alone
    #[arg(long)]
    record_paths: bool,

    /// Show the progress even where standard error is no terminal
    #[arg(long, conflicts_with = "quiet")]
    progress: bool,

    /// Print nothing but warnings and errors
    #[arg(long)]
    quiet: bool,
}

/// Whether `fit` is asked for a file that describes a fit to several tensors.
pub fn is_asked_for(arguments: &[std::ffi::OsString]) -> bool {
    let [_, command, rest @ ..] = arguments else { return false };
    let toml = |argument: &std::ffi::OsString| {
        !argument.to_string_lossy().starts_with('-')
            && Path::new(argument).extension().is_some_and(|e| e.eq_ignore_ascii_case("toml"))
    };
    command == "fit" && rest.first().is_some_and(toml)
}

/// Reads, fits, writes, reports.
pub fn run(args: &CoupledArgs) -> Result<()> {
    let began = Instant::now();
    let spec = coupled_file::read(&args.input)?;
    let first = spec.parts.first().ok_or_else(|| {
        Error::format(&args.input, "there is no [[part]]: a coupled fit has at least one tensor")
    })?;
    let settings = spec.settings(NNEinFact::new(first.model.text())?)?;
    let settings = args.settings(settings)?;
    settings.check()?;
    let out = args.out.clone().or_else(|| spec.out.clone());
    let files = args.files(&spec, out.as_deref())?;
    let device = device(&args.device, args.threads)?;
    let settings = args.checkpoint.apply(settings.device(device.clone()), args.quiet)?;
    let data: Result<Vec<Observations>> =
        device.install(|| spec.parts.iter().map(|part| args.read(part)).collect());
    let data = data?;
    let show = match (args.quiet, args.progress) {
        (true, _) => Show::Never,
        (false, true) => Show::Always,
        (false, false) => Show::OnTerminal,
    };
    let (settings, progress) = FitProgress::attach(settings, show, &device, false);
    let parts: Result<Vec<Part>> = spec.parts.iter().zip(&data).map(coupled_part).collect();
    let fitting = Instant::now();
    let fitted = Coupled::new(parts?).with_settings(settings.kkt_residual(!args.quiet)).fit();
    progress.ended();
    let fitted = fitted?;
    let seconds = fitting.elapsed().as_secs_f64();
    fitted.warnings().iter().for_each(|warning| complain("warning", warning));
    let mut problems = Vec::new();
    if let Some(out) = &out {
        let history = io::write_json(out.join(HISTORY), fitted.history());
        problems.extend(history.err());
    }
    for ((part, fit), (file, data)) in
        spec.parts.iter().zip(fitted.parts()).zip(files.iter().zip(&data))
    {
        let saved = Saved::new(fit)
            .with_loss(part.loss_record.clone())
            .with_data(read_data::recorded(&part.data, args.record_paths));
        problems.extend(saved.save(file).err());
        if args.report {
            let page = || -> Result<()> {
                // Letters that parts share have the labels of all of them by now.
                let modes: String = saved.model().output().iter().map(|&x| char::from(x)).collect();
                let (data, _) = saved.relabeled(data.clone(), &modes)?;
                let residuals =
                    device.install(|| Residuals::new(&saved, &data, Some(&part.loss)))?;
                let page = Report::new(&saved).residuals(residuals).html();
                io::write_text(file.with_extension("html"), &page)
            };
            problems.extend(page().err());
        }
    }
    if !args.quiet {
        let text = told(&spec, &fitted, (&files, args.report), seconds, began);
        print(&text.into_text())?;
    }
    match problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(()),
    }
}

/// The name of the history in the folder of results.
const HISTORY: &str = "history.json";

fn coupled_part((part, data): (&PartSpec, &Observations)) -> Result<Part> {
    let made = Part::new(part.model.text(), data).map_err(|e| about(part, e))?;
    Ok(made.loss(part.loss.clone()).weight(part.weight))
}

/// An error with the part that it is about.
fn about(part: &PartSpec, error: Error) -> Error {
    match error {
        Error::Setting(what) => Error::Setting(format!("part {:?}: {what}", part.name)),
        error => error,
    }
}

impl CoupledArgs {
    fn settings(&self, mut settings: NNEinFact) -> Result<NNEinFact> {
        if let Some(max_iter) = self.max_iter {
            settings = settings.max_iter(max_iter);
        }
        if let Some(tol) = self.tol {
            settings = settings.tolerance(tol);
        }
        if let Some(seed) = self.seed {
            settings = settings.seed(seed);
        }
        Ok(settings)
    }

    /// The file of the factors of each part, checked; none where nothing is written.
    fn files(&self, spec: &CoupledSpec, out: Option<&Path>) -> Result<Vec<PathBuf>> {
        let Some(out) = out else {
            if self.report {
                return Err(Error::Setting(
                    "--report writes pages into the folder of the results: name one with --out, or `out` in the file"
                        .into(),
                ));
            }
            self.checkpoint.check(&spec.inputs(), &[])?;
            return Ok(Vec::new());
        };
        std::fs::create_dir_all(out).map_err(|e| Error::file(out, e))?;
        let files: Vec<PathBuf> =
            spec.parts.iter().map(|part| out.join(format!("{}.npz", part.name))).collect();
        let mut all = vec![out.join(HISTORY)];
        all.extend(files.iter().cloned());
        let outputs: Vec<(&str, Option<&PathBuf>)> =
            all.iter().map(|file| ("--out", Some(file))).collect();
        let mut inputs = spec.inputs();
        inputs.push(&self.input);
        check_outputs(&outputs, &inputs)?;
        let written: Vec<&Path> = all.iter().map(PathBuf::as_path).collect();
        self.checkpoint.check(&inputs, &written)?;
        Ok(files)
    }

    fn read(&self, part: &PartSpec) -> Result<Observations> {
        let letters: Vec<char> = part.model.output().iter().map(|&index| index.into()).collect();
        let options = ReadOptions { letters: Some(&letters), stream: None, quiet: self.quiet };
        read_data::observations(&part.data, options).map_err(|e| about(part, e))
    }
}

/// What is printed of a fit.
fn told(
    spec: &CoupledSpec,
    fitted: &CoupledFit,
    (files, report): (&[PathBuf], bool),
    seconds: f64,
    began: Instant,
) -> FitSummary {
    let mut text = FitSummary::default();
    for (n, (part, fit)) in spec.parts.iter().zip(fitted.parts()).enumerate() {
        let history = fit.history();
        let shape: Vec<String> = fit.shapes().data().iter().map(ToString::to_string).collect();
        text.add("part", format!("{}: {} of {}", part.name, fit.model(), shape.join(" × ")));
        text.add("", format!("{}, weight {}", part.loss.describe(), part.weight));
        let losses = [("training", &history.loss), ("held-out", &history.heldout_loss)];
        for (title, losses) in losses {
            if let Some(&last) = losses.last() {
                text.add(title, format!("mean loss {}", number(last)));
            }
        }
        if let Some(file) = files.get(n) {
            text.add("factors", file.display().to_string());
            if report {
                text.add("page", file.with_extension("html").display().to_string());
            }
        }
    }
    if let Some(fit) = fitted.parts().first() {
        text.add("device", format!("{}, {}", fit.history().device, fit.history().precision));
    }
    if !fitted.structure().is_empty() {
        text.add("structure", fitted.structure().join("; "));
    }
    let history = fitted.history();
    text.add("sweeps", format!("{} ({})", history.iterations, history.stopped_by));
    if let Some(residual) = history.kkt_residual {
        text.add("", summary::kkt(residual));
    }
    if let (Some(&first), Some(&last)) = (history.loss.first(), history.loss.get(history.returned))
    {
        text.add("all", format!("mean loss {} -> {}", number(first), number(last)));
    }
    if let (Some(&first), Some(&last)) =
        (history.penalty.first(), history.penalty.get(history.returned))
    {
        text.add("penalty", format!("per entry {} -> {}", number(first), number(last)));
    }
    let whole = began.elapsed().as_secs_f64();
    text.add("time", format!("{} for the fit, {} in all", duration(seconds), duration(whole)));
    text.add_memory();
    text
}
