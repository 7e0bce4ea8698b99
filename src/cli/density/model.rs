//! `nneinfact density model`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::super::args;
use super::super::output::{check_outputs, read_factors};
use super::super::summary::{FitSummary, duration};
use super::super::{complain, print};
use super::cross::is_fit;
use super::fit::MethodArg;
use super::progress::TrainProgress;
use super::{RunArgs, input, written};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::Loss;
use nneinfact_core::model::Model;
use nneinfact_density::{Network, NetworkFit, Schedule};
use nneinfact_fit::{
    Algorithm, Flow, History, NNEinFact, Saved, SavedTrain, Start, StoppedBy, Sweep,
};

/// The arguments of `density model`.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// The target: a train of any sign, as `density sketch` and `density cross` write it, or a fit, as
    /// `nneinfact fit --out` and this command do
    #[arg(value_name = "TRAIN.npz|FIT.npz")]
    target: PathBuf,

    /// The model as an einsum string. The letters after `->` are the variables of a train, in their order;
    /// of a fit they are those of its own model
    #[arg(long, value_name = "EINSUM")]
    model: String,

    /// The size of each latent index, as in a=10,b=6 [default: those of --init]
    #[arg(long = "rank", value_name = "LETTER=N", value_delimiter = ',', value_parser = args::rank)]
    #[arg(required_unless_present = "init")]
    ranks: Vec<(char, usize)>,

    /// Start from these factors: arrays theta_1 to theta_L as --out writes them [default: random ones]
    #[arg(long, value_name = "START.npz", conflicts_with_all = ["ranks", "seed"])]
    init: Option<PathBuf>,

    /// How factors are updated
    #[arg(long, value_enum, value_name = "METHOD", default_value = "newton")]
    method: MethodArg,

    /// How the barrier falls [default: balanced]
    #[arg(long, value_enum, value_name = "SCHEDULE")]
    schedule: Option<NetworkScheduleArg>,

    /// The first barrier: μ of all factors under fixed, τ under balanced, where a factor of N entries has
    /// μ = τ/N times the target's square [default: 1e-2]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    barrier: Option<f64>,

    /// The smallest barrier [default: 1e-20]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    barrier_min: Option<f64>,

    /// What the barrier is multiplied by after a sweep; 1 keeps it [default: 0.5]
    #[arg(long, value_name = "D", allow_negative_numbers = true)]
    decay: Option<f64>,

    /// How many sweeps at most, each over all factors
    #[arg(long, value_name = "N", default_value_t = 50)]
    sweeps: usize,

    /// Stop when a sweep lowers the squared distance by less than this fraction of it, three times in a row;
    /// 0 makes all sweeps
    #[arg(long, value_name = "T", default_value_t = NNEinFact::TOLERANCE, allow_negative_numbers = true)]
    tol: f64,

    /// The seed of the random start
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Where to write the fit: what reads one of `nneinfact fit` reads it
    #[arg(long, value_name = "FIT.npz")]
    out: PathBuf,

    #[command(flatten)]
    run: RunArgs,
}

/// The values of `--schedule` where the target is a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NetworkScheduleArg {
    /// In proportion to one over a factor's number of entries
    Balanced,
    /// The same for all factors
    Fixed,
}

/// Fits a model to a train or to a fit.
pub fn run(args: &ModelArgs) -> Result<()> {
    let mut inputs = vec![args.target.as_path()];
    inputs.extend(args.init.as_deref());
    check_outputs(&[("--out", Some(&args.out))], &inputs)?;
    written::check_npz("--out", &args.out)?;
    let model = Model::parse(&args.model)?;
    for warning in model.warnings() {
        complain("warning", &warning);
    }
    let (about, target) = target(&args.target, &model)?;
    args.tell_unused();
    let saved = args.run.on_threads(|| {
        let mut progress = TrainProgress::begin(args.run.show());
        let observer = move |sweep: &Sweep| match progress.say(|| sweep_line(sweep)) {
            ControlFlow::Continue(()) => Flow::Continue,
            ControlFlow::Break(()) => Flow::Stop,
        };
        args.settings(&model)?.observe(observer).fit_target_with(&target, &args.steps())
    })?;
    saved.save(&args.out)?;
    if args.run.quiet {
        return Ok(());
    }
    let mut summary = FitSummary::default();
    summary.add("target", format!("{}: {about}", args.target.display()));
    let numbers: usize = saved.factors().iter().map(|f| f.len()).sum();
    summary.add("model", format!("{model}: {numbers} numbers"));
    if let Some(history) = &saved.record().history {
        add_history(&mut summary, history, &target, &saved)?;
    }
    summary.add("written", args.out.display().to_string());
    print(&summary.into_text())
}

impl ModelArgs {
    fn settings(&self, model: &Model) -> Result<NNEinFact> {
        let mut ranks = self.ranks.clone();
        let mut start = Start::Random;
        if let Some(path) = &self.init {
            let factors = read_factors(path, model)?;
            for (letters, factor) in model.factors().iter().zip(&factors) {
                let letters = letters.iter().map(|&index| char::from(index));
                ranks.extend(letters.zip(factor.shape().iter().copied()));
            }
            let observed: Vec<char> = model.output().iter().map(|&x| char::from(x)).collect();
            ranks.retain(|(letter, _)| !observed.contains(letter));
            ranks.sort_by_key(|&(letter, _)| letter);
            ranks.dedup_by_key(|&mut (letter, _)| letter);
            start = Start::Factors(factors);
        }
        Ok(NNEinFact::new(&self.model)?
            .ranks(ranks)
            .loss(Loss::euclidean())
            .algorithm(match self.method {
                MethodArg::Newton => Algorithm::Barrier,
                MethodArg::Multiplicative => Algorithm::Block,
                MethodArg::Descent => Algorithm::Accelerated,
            })
            .start(start)
            .seed(self.seed)
            .max_iter(self.sweeps)
            .tolerance(self.tol))
    }

    /// How the barrier falls.
    fn steps(&self) -> NetworkFit {
        let mut steps = NetworkFit::new();
        if self.schedule == Some(NetworkScheduleArg::Fixed) {
            steps = steps.schedule(Schedule::Fixed);
        }
        if let Some(barrier) = self.barrier {
            steps = steps.barrier(barrier);
        }
        if let Some(least) = self.barrier_min {
            steps = steps.barrier_min(least);
        }
        if let Some(decay) = self.decay {
            steps = steps.decay(decay);
        }
        steps
    }

    fn tell_unused(&self) {
        if self.method == MethodArg::Newton {
            return;
        }
        for (option, given) in [
            ("--schedule", self.schedule.is_some()),
            ("--barrier", self.barrier.is_some()),
            ("--barrier-min", self.barrier_min.is_some()),
            ("--decay", self.decay.is_some()),
        ] {
            if given {
                complain("notice", &format!("{option} has no effect: this method has no barrier"));
            }
        }
    }
}

/// Reads what the model is fitted to; also what it is, in words.
fn target(path: &Path, model: &Model) -> Result<(String, Network)> {
    let in_file = |e: nneinfact_density::Error| Error::format(path, e.to_string());
    if is_fit(path) {
        let saved = Saved::load(path)?;
        let network = saved.factored().network()?;
        return Ok((format!("a fit of {}", saved.model()), network));
    }
    let saved = SavedTrain::load(path)?;
    let output: String = model.output().iter().map(|&index| char::from(index)).collect();
    let network = Network::from_train(saved.train(), &output).map_err(in_file)?;
    Ok((input::about(saved.train()), network))
}

fn sweep_line(sweep: &Sweep) -> String {
    format!("sweep {}  loss {:.6e}  {}", sweep.iteration, sweep.loss, duration(sweep.seconds))
}

/// What a fit did.
fn add_history(
    summary: &mut FitSummary,
    history: &History,
    target: &Network,
    saved: &Saved,
) -> Result<()> {
    let why = match history.stopped_by {
        StoppedBy::Tolerance | StoppedBy::Precision => "the distance stands still (--tol)",
        StoppedBy::MaxIter => "all that were asked for",
        _ => "interrupted",
    };
    summary.add("sweeps", format!("{}, {why}", history.iterations));
    // Losses are half the squared distances over the number of entries.
    let entries: f64 = saved.shapes().data().iter().map(|&n| n as f64).product();
    let square = target.inner(target)?;
    let error = |loss: Option<&f64>| loss.map_or(f64::NAN, |loss| 2.0 * loss * entries / square);
    summary.add(
        "error",
        format!(
            "{:.3e} -> {:.3e}, the squared distance over the target's square",
            error(history.loss.first()),
            error(history.loss.last())
        ),
    );
    summary.add("time", duration(history.seconds.last().copied().unwrap_or(0.0)));
    Ok(())
}
