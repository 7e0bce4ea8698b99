//! `nneinfact density fit`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::super::output::check_outputs;
use super::super::summary::{FitSummary, duration};
use super::super::{complain, print};
use super::progress::TrainProgress;
use super::{RunArgs, input, written};
use nneinfact_core::error::{Error, Result};
use nneinfact_density::{
    FittedTrain, LineSearch, Method, NonnegativeTrain, Schedule, Solver, StoppedBy, SweepReport,
    TensorTrain, TrainFit,
};
use nneinfact_fit::io;
use nneinfact_fit::{SavedTrain, TrainHistory};

/// The arguments of `density fit`.
#[derive(Debug, Args)]
pub struct TrainFitArgs {
    /// The target: a train of any sign, as `density sketch` and `density cross` write it
    #[arg(value_name = "TRAIN.npz")]
    target: PathBuf,

    /// The rank of the model, or one for each bond between two variables; more than the target's where
    /// a fit stands still
    #[arg(long, value_name = "R|R,R,…", value_delimiter = ',', required_unless_present = "init")]
    rank: Option<Vec<usize>>,

    /// Start from these cores as they are: no multiplicative sweeps, no balancing [default: random ones]
    #[arg(long, value_name = "START.npz")]
    init: Option<PathBuf>,

    /// Entries of --init that are 0 become 1e-12 of the largest of their core
    #[arg(long, requires = "init")]
    raise_zeros: bool,

    #[command(flatten)]
    newton: NewtonArgs,

    /// How many sweeps at most, each over all cores forwards and backwards [default: 50]
    #[arg(long, value_name = "N")]
    sweeps: Option<usize>,

    /// Stop once the squared distance is at most this share of the target's square; with 0 make exactly
    /// the given number of sweeps [default: stop where the error stands still]
    #[arg(long, value_name = "E", allow_negative_numbers = true)]
    target_error: Option<f64>,

    /// The seed of the random start [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Where to write the nonnegative train
    #[arg(long, value_name = "NTT.npz")]
    out: PathBuf,

    /// Where to write error, barrier, step, cg_steps and seconds after each sweep
    #[arg(long, value_name = "H.json")]
    history: Option<PathBuf>,

    #[command(flatten)]
    run: RunArgs,
}

/// How cores are updated.
#[derive(Debug, Args)]
#[group(skip)]
struct NewtonArgs {
    /// How cores are updated
    #[arg(long, value_enum, value_name = "METHOD", default_value = "newton")]
    method: MethodArg,

    /// How Newton directions are found [default: direct where the two ranks of a core have a product of
    /// at most 150, jacobi elsewhere]
    #[arg(long, value_enum, value_name = "SOLVER")]
    solver: Option<SolverArg>,

    /// How the barrier falls [default: hybrid]
    #[arg(long, value_enum, value_name = "SCHEDULE")]
    schedule: Option<ScheduleArg>,

    /// The first barrier: μ_0 under fixed [default: 1e-3] and adaptive [default: 1e-2], τ_0 under
    /// balanced [default: 1e-2] and hybrid, where μ_k = τ_0 times the target's square over the number of
    /// entries of core k [default of hybrid: that of adaptive]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    barrier: Option<f64>,

    /// The smallest barrier μ [default: 1e-20]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    barrier_min: Option<f64>,

    /// What the barrier is multiplied by after a sweep, but under adaptive [default: 0.5]
    #[arg(long, value_name = "D", allow_negative_numbers = true)]
    decay: Option<f64>,

    /// Under adaptive, and hybrid before it turns: the share of the mean of |entry · gradient| that the
    /// barrier is at most [default: 0.1]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    sigma: Option<f64>,

    /// What has a step length of its own [default: slice]
    #[arg(long, value_enum, value_name = "WHAT")]
    line_search: Option<LineSearchArg>,

    /// The most Newton steps at a visit of a core [default: 1]
    #[arg(long, value_name = "N")]
    inner: Option<usize>,

    /// The most steps of conjugate gradients for a direction [default: 10]
    #[arg(long, value_name = "N")]
    cg_max: Option<usize>,

    /// How far conjugate gradients reduce the residual [default: 1e-10]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    cg_tol: Option<f64>,

    /// After how many sweeps hybrid turns from adaptive to balanced [default: 8]
    #[arg(long, value_name = "N")]
    switch: Option<usize>,

    /// The μ below which pcg goes without its preconditioner [default: 0, never]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pre_min: Option<f64>,
}

/// The values of `--method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MethodArg {
    /// Newton steps with a logarithmic barrier
    Newton,
    /// Multiplicative updates
    Multiplicative,
    /// Exact coordinate descent
    Descent,
}

/// The values of `--solver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SolverArg {
    /// A factorization for each slice
    Direct,
    /// Conjugate gradients without preconditioner
    Cg,
    /// Conjugate gradients with the barrier as preconditioner
    Pcg,
    /// Conjugate gradients with the diagonal as preconditioner
    Jacobi,
}

/// The values of `--schedule`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScheduleArg {
    /// Adaptive first, then balanced from a barrier that is small against the error
    Hybrid,
    /// In proportion to 1/N_k, multiplied by --decay after every sweep
    Balanced,
    /// A share --sigma of the mean of |entry · gradient|, never rising
    Adaptive,
    /// One barrier for all cores, multiplied by --decay after every sweep
    Fixed,
}

/// The values of `--line-search`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LineSearchArg {
    /// Each slice of a core
    Slice,
    /// The core
    Core,
}

impl MethodArg {
    /// For the file of what was fitted.
    fn in_words(self) -> &'static str {
        match self {
            MethodArg::Newton => "barrier Newton",
            MethodArg::Multiplicative => "multiplicative updates",
            MethodArg::Descent => "coordinate descent",
        }
    }
}

impl From<MethodArg> for Method {
    fn from(method: MethodArg) -> Method {
        match method {
            MethodArg::Newton => Method::Newton,
            MethodArg::Multiplicative => Method::Multiplicative,
            MethodArg::Descent => Method::Descent,
        }
    }
}

impl From<SolverArg> for Solver {
    fn from(solver: SolverArg) -> Solver {
        match solver {
            SolverArg::Direct => Solver::Direct,
            SolverArg::Cg => Solver::Cg,
            SolverArg::Pcg => Solver::Pcg,
            SolverArg::Jacobi => Solver::Jacobi,
        }
    }
}

impl From<ScheduleArg> for Schedule {
    fn from(schedule: ScheduleArg) -> Schedule {
        match schedule {
            ScheduleArg::Hybrid => Schedule::Hybrid,
            ScheduleArg::Balanced => Schedule::Balanced,
            ScheduleArg::Adaptive => Schedule::Adaptive,
            ScheduleArg::Fixed => Schedule::Fixed,
        }
    }
}

impl From<LineSearchArg> for LineSearch {
    fn from(line: LineSearchArg) -> LineSearch {
        match line {
            LineSearchArg::Slice => LineSearch::Slice,
            LineSearchArg::Core => LineSearch::Core,
        }
    }
}

impl NewtonArgs {
    fn apply<'a>(&self, fit: TrainFit<'a>) -> TrainFit<'a> {
        let mut fit = fit.method(self.method.into());
        macro_rules! set {
            ($($option:ident => $setter:ident),* $(,)?) => {
                $(if let Some(x) = self.$option {
                    fit = fit.$setter(x.into());
                })*
            };
        }
        set! {
            solver => solver,
            schedule => schedule,
            barrier => barrier,
            barrier_min => barrier_min,
            decay => decay,
            sigma => sigma,
            line_search => line_search,
            inner => inner,
            cg_max => cg_max,
            cg_tol => cg_tol,
            switch => switch,
            pre_min => preconditioner_min,
        }
        fit
    }
}

/// Fits a train.
pub fn run(args: &TrainFitArgs) -> Result<()> {
    let mut inputs = vec![args.target.as_path()];
    inputs.extend(args.init.as_deref());
    let outputs = [("--out", Some(&args.out)), ("--history", args.history.as_ref())];
    check_outputs(&outputs, &inputs)?;
    written::check_npz("--out", &args.out)?;
    let target = SavedTrain::load(&args.target)?;
    let fit = args.settings(target.train().order())?;
    let fitted = args.run.on_threads(|| {
        let mut progress = TrainProgress::begin(args.run.show());
        fit.observer(|report| progress.say(|| sweep_line(report))).run(target.train())
    })?;
    tell_notices(&fitted);
    let saved = SavedTrain::from(&fitted).with_method(args.newton.method.in_words());
    saved.save(&args.out)?;
    if let Some(path) = &args.history {
        io::write_json(path, &TrainHistory::from(&fitted.history))?;
    }
    if args.run.quiet {
        return Ok(());
    }
    let mut summary = FitSummary::default();
    let about = input::about(target.train());
    summary.add("target", format!("{}: {about}", args.target.display()));
    add_fit(&mut summary, &fitted);
    summary.add("written", args.out.display().to_string());
    if let Some(path) = &args.history {
        summary.add("", format!("{}: the errors sweep by sweep", path.display()));
    }
    print(&summary.into_text())
}

impl TrainFitArgs {
    fn settings(&self, order: usize) -> Result<TrainFit<'static>> {
        let mut fit = self.newton.apply(TrainFit::new()).raise_zeros(self.raise_zeros);
        match self.rank.as_deref() {
            None => {}
            // Told here, as the library counts bonds from 0.
            Some(&[0]) => {
                return Err(Error::Setting("--rank is 0; it has to be at least 1".into()));
            }
            Some(&[rank]) => fit = fit.rank(rank),
            Some(ranks) => {
                check_ranks(ranks, order)?;
                fit = fit.ranks(ranks.to_vec());
            }
        }
        if let Some(path) = &self.init {
            if self.seed.is_some() {
                complain("notice", "--seed has no effect with --init: nothing is random then");
            }
            let start = input::nonnegative(path)?;
            self.check_zeros(path, &start)?;
            fit = fit.start(start);
        }
        if let Some(sweeps) = self.sweeps {
            fit = fit.sweeps(sweeps);
        }
        if let Some(target) = self.target_error {
            fit = fit.target_error(target);
        }
        Ok(fit.seed(self.seed.unwrap_or(0)))
    }
}

impl TrainFitArgs {
    /// The error if a start has zeros where the method needs positive entries.
    fn check_zeros(&self, path: &Path, start: &NonnegativeTrain) -> Result<()> {
        let entries = start.train().cores().iter().flat_map(|core| core.data());
        let zeros = entries.filter(|&&x| x == 0.0).count();
        if zeros == 0 || self.raise_zeros || self.newton.method == MethodArg::Descent {
            return Ok(());
        }
        Err(Error::format(
            path,
            format!(
                "{zeros} of its entries are 0, but a barrier, and a multiplicative update, need \
                 positive ones (--raise-zeros makes them so)"
            ),
        ))
    }
}

/// The error if there is not one rank for each bond.
fn check_ranks(ranks: &[usize], order: usize) -> Result<()> {
    if let Some(k) = ranks.iter().position(|&r| r == 0) {
        return Err(Error::Setting(format!(
            "--rank: the rank between variables {} and {} is 0; it has to be at least 1",
            k + 1,
            k + 2
        )));
    }
    if ranks.len() + 1 == order {
        return Ok(());
    }
    Err(Error::Setting(format!(
        "--rank has {} numbers, but one for all bonds or {} are expected: one for each bond between two \
         of {order} variables",
        ranks.len(),
        order.saturating_sub(1)
    )))
}

/// A sweep on one line.
pub fn sweep_line(report: &SweepReport) -> String {
    let barrier = match report.barrier {
        0.0 => String::new(),
        mu => format!("  barrier {mu:.1e}"),
    };
    format!(
        "sweep {}  error {:.3e}{barrier}  step {:.2}  {}",
        report.sweep,
        report.error,
        report.step,
        duration(report.seconds)
    )
}

/// Notices of a fit, with settings by the names of their options.
pub fn tell_notices(fitted: &FittedTrain) {
    for name in &fitted.without_effect {
        let option = match *name {
            "preconditioner_min" => "--pre-min".to_string(),
            name => format!("--{}", name.replace('_', "-")),
        };
        complain("notice", &format!("{option} has no effect with these other options"));
    }
    for notice in &fitted.notices {
        complain("notice", notice);
    }
}

/// What a fit did.
pub fn add_fit(summary: &mut FitSummary, fitted: &FittedTrain) {
    let train: &TensorTrain = fitted.train.train();
    summary.add("model", input::about(train));
    let history = &fitted.history;
    let why = match history.stopped_by {
        StoppedBy::Target => "the error that was asked for is reached (--target-error)",
        StoppedBy::Sweeps => "all that were asked for",
        StoppedBy::Stalled => "the error stands still",
        StoppedBy::Time => "the time is up",
        StoppedBy::Interrupted => "interrupted",
        _ => "stopped",
    };
    summary.add("sweeps", format!("{}, {why}", history.sweeps));
    summary.add(
        "error",
        format!(
            "{:.3e} -> {:.3e}, the squared distance over the target's square",
            history.error.first().copied().unwrap_or(f64::NAN),
            fitted.relative_squared_distance
        ),
    );
    summary.add("time", duration(history.seconds.last().copied().unwrap_or(0.0)));
}
