//! `nneinfact compare`.

mod links;
pub(super) mod spec;
mod study_file;
mod study_progress;

use std::path::{Path, PathBuf};

use clap::Args;

use self::links::relative_link;
use self::spec::Spec;
use self::study_progress::StudyProgress;
use super::answer::check_output;
use super::args::{self, AlgorithmArg, DataAsArg, PrecisionArg};
use super::fit_progress::Show;
use super::interrupt::INTERRUPTED;
use super::read_data::{self, ReadOptions};
use super::split_args::SplitArgs;
use super::table_args::TableArgs;
use super::{fit, print};
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::{DataRecord, Saved, io};
use nneinfact_insight::compare::{StudyPath, StudyTable};
use nneinfact_insight::report::{Report, study_page, study_svg};

/// The arguments of `compare`. With a .toml, all but the last few belong there.
#[derive(Debug, Args)]
#[group(skip)]
#[command(after_help = HELP)]
pub struct CompareArgs {
    /// A .toml that says what to compare; or the data, as of `fit`, and the options below
    #[arg(value_name = "STUDY.toml|DATA")]
    input: PathBuf,

    /// A model with a name for the table, as in 'custom: wr,hr,dr,ikr,jkr->whdij'; once for each
    #[arg(long = "model", value_name = "NAME: MODEL")]
    models: Vec<String>,

    /// Ranks, as in r=5:10:20,k=6: all combinations of those between colons are tried. For every model
    /// that has the indices; for one of them, and rather than those for all, with its name before:
    /// 'custom: r=40'. k=6! stays as it is with --match-parameters
    #[arg(long = "rank", value_name = "[NAME:] LETTER=N[:N…],…")]
    ranks: Vec<String>,

    /// A loss, with its parameters after colons, as in kl, ab:0.7:0 (alpha-beta), beta:0.5,
    /// negative-binomial:2; once for each [default: kl]
    #[arg(long = "loss", value_name = "NAME[:P…]")]
    losses: Vec<String>,

    /// Penalties that are tried: none, l1=0.1 or l2=0.1 on all factors, or ikr:l1=0.1,jr:l2=0.5; once
    /// for each [default: none]
    #[arg(long = "penalty", value_name = "PENALTIES")]
    penalties: Vec<String>,

    /// How a sweep goes over the factors; once for each that is tried [default: accelerated]
    #[arg(long = "algorithm", value_enum)]
    algorithms: Vec<AlgorithmArg>,

    /// How far a step of --algorithm adam goes; a list, as in 0.03,0.1, tries each [default: 0.1]
    #[arg(
        long = "learning-rate",
        value_name = "RATE[,RATE…]",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    learning_rates: Vec<f64>,

    /// The type of number that passes over the data compute with [default: f32]
    #[arg(long, value_enum)]
    precision: Option<PrecisionArg>,

    /// The most sweeps of a fit [default: 500]
    #[arg(long, value_name = "N")]
    max_iter: Option<usize>,

    /// As of `fit` [default: 0.000001]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    tol: Option<f64>,

    /// How many random splits of the data every model is fitted to [default: 1]
    #[arg(long, value_name = "K")]
    splits: Option<usize>,

    /// From how many starts it is fitted to each; the one with the lowest validation loss (training
    /// loss, without --validation) counts [default: 1]
    #[arg(long, value_name = "S")]
    starts: Option<usize>,

    /// Hold out this fraction of the observed entries, at random
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
    heldout: Option<f64>,

    /// Set aside this fraction of the remaining entries, at random, to decide when to stop
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
    validation: Option<f64>,

    #[command(flatten)]
    split: SplitArgs,

    /// Stop after 5 rises of the validation loss in a row and return the factors at its lowest
    #[arg(long)]
    early_stopping: bool,

    /// The seed of the first split; the others follow [default: 0]
    #[arg(long, value_name = "N")]
    split_seed: Option<u64>,

    /// The seed of the first start; the others follow [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Choose the ranks of every model so that it has about so many parameters: those given are
    /// proportions. A list, as in 25000,50000,100000, tries each
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',')]
    match_parameters: Vec<u64>,

    /// Follow a path: along l1 or l2 every fit starts from the one with the next lighter penalty, along
    /// rank from the one with the next smaller ranks; the table says how many components are kept
    #[arg(long, value_name = "l1|l2|rank")]
    path: Option<StudyPath>,

    /// A score that can be compared between losses: poisson, rmse, mae or none [default: poisson for
    /// counts, rmse for others]
    #[arg(long, value_name = "SCORE")]
    score: Option<String>,

    /// As of `fit`
    #[arg(long, value_name = "BYTES", value_parser = args::bytes)]
    memory_limit: Option<u64>,

    /// As of `fit`
    #[arg(long, value_enum)]
    data_as: Option<DataAsArg>,

    #[command(flatten)]
    data: DataArgs,

    /// Write the absolute paths of data, masks and lists into the files of runs; without this, their
    /// names alone
    #[arg(long)]
    record_paths: bool,

    /// The folder for runs and tables [default: beside a .toml, of its name without the extension].
    /// Runs that are there already are taken from it
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// Where to write figures: losses of every row with median and quartiles over splits, and losses
    /// against sweeps and seconds
    #[arg(long, value_name = "STUDY.svg")]
    plot: Option<PathBuf>,

    /// Where to write a page with the same, and links to reports of the best runs, which are written
    /// beside their files
    #[arg(long, value_name = "STUDY.html")]
    report: Option<PathBuf>,

    /// What to run on: auto, cpu, gpu or part of a name; see `nneinfact devices` [default: auto]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,

    /// How many threads to use [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Show progress also where standard error is not a terminal
    #[arg(long, conflicts_with = "quiet")]
    progress: bool,

    /// No progress and no table on standard output
    #[arg(long)]
    quiet: bool,

    #[command(flatten)]
    table: TableArgs,
}

/// What goes with the data. All as of `fit`.
#[derive(Debug, Args)]
#[group(skip)]
struct DataArgs {
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

    /// A .tns of the entries that are missing; its values do not matter
    #[arg(long, value_name = "FILE.tns")]
    missing: Option<PathBuf>,

    /// A .npy of booleans like the data: true is held out, in every split
    #[arg(long, value_name = "FILE.npy", conflicts_with = "heldout")]
    heldout_mask: Option<PathBuf>,

    /// A .tns of the entries that are held out, in every split
    #[arg(long, value_name = "FILE.tns")]
    heldout_coordinates: Option<PathBuf>,

    /// A .tns of the entries that are for validation, in every split
    #[arg(long, value_name = "FILE.tns")]
    validation_coordinates: Option<PathBuf>,
}

const HELP: &str = "\
STUDY.toml has the same things under the same names, with lists where an option can be repeated \
(losses, penalties, algorithms), and a [[model]] for each model. Paths are relative to the file:

  data = \"rides.csv.gz\"              # or an array: data = \"uber.npz\", key = \"Y\"
  modes = \"week(time),hour(time),weekday(time),bin(lat,100),bin(lon,100)\"
  count = true                       # or sum = \"fare\", mean, max; where, order, skip_bad, …
  heldout = 0.1
  validation = 0.05
  early_stopping = true
  splits = 3
  losses = [\"kl\", \"ab:0.7:0\"]
  match_parameters = 50000           # or a list, [25000, 50000, 100000]

  [[model]]
  name = \"custom\"
  model = \"wr,hr,dr,ikr,jkr->whdij\"
  ranks = { r = 40, k = [4, 6] }     # a list is a grid; with match_parameters, proportions
  fixed = [\"k\"]                      # but not these

Every finished run is kept in FOLDER/runs. The same command goes on where it was interrupted, and \
one with more models, splits or starts takes what is there. FOLDER/table.txt, .csv and .json have \
the table, the last with every run; stability.txt which components of the best row of each model are \
found again, stability.json those of all rows. `nneinfact report FOLDER/runs/….npz` makes a page of a \
run; the table has the file of the best run of each row.";

impl CompareArgs {
    /// The study that the command line or its file describes.
    fn spec(&self) -> Result<Spec> {
        let is_toml = self.input.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml"));
        if is_toml {
            if let Some(option) = self.belongs_in_file() {
                return Err(Error::Setting(format!(
                    "{option} belongs in {}: beside a .toml only --out, --plot, --report, --record-paths, --device, --threads, --progress and --quiet are options",
                    self.input.display()
                )));
            }
            return study_file::read(&self.input);
        }
        self.split.check(self.heldout.is_some() || self.validation.is_some())?;
        Ok(Spec {
            data: self.record()?,
            models: spec::models(&self.models, &self.ranks)?,
            losses: spec::losses(&self.losses, Path::new(""))?,
            penalties: spec::penalties(&self.penalties)?,
            algorithms: self.algorithms.iter().map(|&a| a.into()).collect(),
            learning_rates: self.learning_rates.clone(),
            precision: self.precision.map(Into::into),
            max_iter: self.max_iter,
            tol: self.tol,
            memory_limit: self.memory_limit,
            data_as: self.data_as.map(Into::into),
            heldout: self.heldout,
            validation: self.validation,
            heldout_as: self.split.kind(),
            zeros_per_nonzero: self.split.zeros_per_nonzero,
            early_stopping: self.early_stopping,
            splits: self.splits,
            starts: self.starts,
            split_seed: self.split_seed,
            seed: self.seed,
            match_parameters: self.match_parameters.clone(),
            path: self.path,
            score: self.score.as_deref().map(spec::score).transpose()?,
            device: None,
            threads: None,
            out: None,
        })
    }

    fn record(&self) -> Result<DataRecord> {
        let DataArgs {
            key,
            shape,
            index_base,
            mask,
            weights,
            nan_missing,
            unlisted_missing,
            missing,
            heldout_mask,
            heldout_coordinates,
            validation_coordinates,
        } = &self.data;
        self.table.apply(DataRecord {
            path: self.input.clone(),
            key: key.clone(),
            shape: shape.clone(),
            mask: mask.clone(),
            weights: weights.clone(),
            zero_based: *index_base == 0,
            nan_missing: *nan_missing,
            unlisted_missing: *unlisted_missing,
            missing: missing.clone(),
            heldout: None,
            heldout_mask: heldout_mask.clone(),
            heldout_coordinates: heldout_coordinates.clone(),
            validation: None,
            validation_coordinates: validation_coordinates.clone(),
            split_seed: 0,
            ..DataRecord::default()
        })
    }

    /// The first option that was given and that a .toml has a key for.
    fn belongs_in_file(&self) -> Option<&'static str> {
        let data = &self.data;
        let given = [
            ("--model", !self.models.is_empty()),
            ("--rank", !self.ranks.is_empty()),
            ("--loss", !self.losses.is_empty()),
            ("--penalty", !self.penalties.is_empty()),
            ("--algorithm", !self.algorithms.is_empty()),
            ("--learning-rate", !self.learning_rates.is_empty()),
            ("--precision", self.precision.is_some()),
            ("--path", self.path.is_some()),
            ("--max-iter", self.max_iter.is_some()),
            ("--tol", self.tol.is_some()),
            ("--splits", self.splits.is_some()),
            ("--starts", self.starts.is_some()),
            ("--heldout", self.heldout.is_some()),
            ("--validation", self.validation.is_some()),
            ("--early-stopping", self.early_stopping),
            ("--split-seed", self.split_seed.is_some()),
            ("--seed", self.seed.is_some()),
            ("--match-parameters", !self.match_parameters.is_empty()),
            ("--score", self.score.is_some()),
            ("--memory-limit", self.memory_limit.is_some()),
            ("--data-as", self.data_as.is_some()),
            ("--key", data.key.is_some()),
            ("--shape", data.shape.is_some()),
            ("--index-base", data.index_base != 1),
            ("--mask", data.mask.is_some()),
            ("--weights", data.weights.is_some()),
            ("--nan-missing", data.nan_missing),
            ("--unlisted-missing", data.unlisted_missing),
            ("--missing", data.missing.is_some()),
            ("--heldout-mask", data.heldout_mask.is_some()),
            ("--heldout-coordinates", data.heldout_coordinates.is_some()),
            ("--validation-coordinates", data.validation_coordinates.is_some()),
        ];
        let first = given.into_iter().find(|(_, given)| *given).map(|(option, _)| option);
        first.or_else(|| self.split.any()).or_else(|| self.table.any())
    }
}

/// Whether a file lies in a folder, and not deeper.
fn is_inside(path: &Path, folder: &Path) -> bool {
    let whole = std::path::absolute(path).ok();
    let parent = whole.as_deref().and_then(Path::parent);
    parent.is_some_and(|parent| std::path::absolute(folder).is_ok_and(|folder| folder == parent))
}

/// Writes the figures that were asked for.
fn figures(args: &CompareArgs, table: &StudyTable, folder: &Path) -> Result<()> {
    if args.plot.is_none() && args.report.is_none() {
        return Ok(());
    }
    let courses = table.courses()?;
    if let Some(path) = &args.plot {
        io::write_text(path, &study_svg(table, &courses))?;
    }
    let Some(path) = &args.report else { return Ok(()) };
    for row in table.rows().iter().filter(|row| row.best_of_model) {
        if let Some(file) = row.best.as_ref().and_then(|best| best.file.as_ref()) {
            let file = folder.join(file);
            let saved = Saved::load(&file)?;
            let report = Report::new(&saved).title(row.label());
            io::write_text(file.with_extension("html"), &report.html())?;
        }
    }
    let link = |file: &Path| {
        let report = folder.join(file).with_extension("html");
        if report.is_file() { relative_link(path, &report) } else { None }
    };
    let title = folder.file_name().map_or("A study".into(), |n| n.to_string_lossy().into_owned());
    io::write_text(path, &study_page(table, &courses, &title, link))
}

/// Reads, carries the study out, writes, prints.
pub fn run(args: &CompareArgs) -> Result<()> {
    let spec = args.spec()?;
    let Some(folder) = args.out.clone().or_else(|| spec.out.clone()) else {
        return Err(Error::Setting(
            "--out is missing: runs and tables are written to a folder, as in --out study".into(),
        ));
    };
    for (option, path) in [("--plot", &args.plot), ("--report", &args.report)] {
        // The folder of the study is made on the way.
        if let Some(path) =
            path.as_ref().filter(|path| folder.is_dir() || !is_inside(path, &folder))
        {
            check_output(option, path, &[&args.input])?;
        }
    }
    let study = spec.study(args.record_paths)?.folder(&folder);
    // Before anything that takes time.
    study.check()?;
    let device = args.device.as_deref().or(spec.device.as_deref()).unwrap_or("auto");
    let device = fit::device(device, args.threads.or(spec.threads))?;
    let letters = spec.letters()?;
    let options = ReadOptions { letters: Some(&letters), stream: None, quiet: args.quiet };
    let observations = device.install(|| read_data::observations(&spec.data, options))?;
    let show = match (args.quiet, args.progress) {
        (true, _) => Show::Never,
        (false, true) => Show::Always,
        (false, false) => Show::OnTerminal,
    };
    let (study, progress) = StudyProgress::attach(study.device(device), show);
    let table = study.run(&observations);
    drop(progress);
    let table = table?;
    if !args.quiet {
        let files = match table.rows().iter().any(|row| row.stability.is_some()) {
            true => "table.txt, table.csv, table.json, stability.txt, stability.json, runs/",
            false => "table.txt, table.csv, table.json, runs/",
        };
        print(&format!("{table}\nwritten to {}: {files}\n", folder.display()))?;
    }
    figures(args, &table, &folder)?;
    if !args.quiet {
        for (what, path) in [("the figure", &args.plot), ("the page", &args.report)] {
            if let Some(path) = path {
                print(&format!("{what}: {}\n", path.display()))?;
            }
        }
    }
    if !table.is_complete() {
        let (done, all) = table.progress();
        super::complain(
            "interrupted",
            &format!(
                "{done} of {all} runs are done and in {}; the run in progress is not kept; the same command goes on from there",
                folder.display()
            ),
        );
        std::process::exit(INTERRUPTED);
    }
    if table.rows().iter().all(|row| row.training_loss.is_none()) {
        return Err(Error::Numeric(format!(
            "no run came to its end; why is in {}",
            folder.join("table.txt").display()
        )));
    }
    Ok(())
}
