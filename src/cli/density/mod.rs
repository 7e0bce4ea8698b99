//! `nneinfact density`: distributions over many variables as nonnegative tensor trains.

mod ask;
mod cross;
mod fit;
mod input;
mod learn;
mod model;
mod progress;
mod sketch;
mod written;

use clap::{Args, Subcommand};

use super::fit_progress::Show;
use nneinfact_core::error::{Error, Result};

/// The arguments of `density`.
#[derive(Debug, Args)]
pub struct DensityArgs {
    #[command(subcommand)]
    command: DensityCommand,
}

#[derive(Debug, Subcommand)]
enum DensityCommand {
    /// Turn samples into a tensor train of any sign
    Sketch(Box<sketch::SketchArgs>),
    /// Fit a nonnegative tensor train to a train of any sign
    Fit(Box<fit::TrainFitArgs>),
    /// Turn an array, or a saved fit, into a tensor train by some of its entries
    Cross(cross::CrossArgs),
    /// Learn a distribution from samples: sketch, barrier Newton, maximum likelihood
    Learn(Box<learn::LearnArgs>),
    /// Fit any model to a train, or to a saved fit, without forming their tensors
    Model(Box<model::ModelArgs>),
    /// Ask a nonnegative tensor train for marginals, conditionals, moments, samples, likelihoods
    Ask(Box<ask::AskTrainArgs>),
}

/// What all these commands take.
#[derive(Clone, Copy, Debug, Args)]
pub struct RunArgs {
    /// How many threads to use; the result does not depend on it [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Show progress also where standard error is not a terminal
    #[arg(long, conflicts_with = "quiet")]
    progress: bool,

    /// No progress and no summary, but notices and errors
    #[arg(long)]
    quiet: bool,
}

impl RunArgs {
    /// When progress is shown.
    fn show(self) -> Show {
        match (self.quiet, self.progress) {
            (true, _) => Show::Never,
            (_, true) => Show::Always,
            _ => Show::OnTerminal,
        }
    }

    /// Runs a job on the threads that were asked for.
    fn on_threads<T: Send>(self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let Some(threads) = self.threads else { return job() };
        if threads == 0 {
            return Err(Error::Setting("--threads is 0; it has to be at least 1".into()));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.map_err(|e| Error::Setting(format!("--threads {threads}: {e}")))?.install(job)
    }
}

/// Runs a command.
pub fn run(args: &DensityArgs) -> Result<()> {
    match &args.command {
        DensityCommand::Sketch(args) => sketch::run(args),
        DensityCommand::Fit(args) => fit::run(args),
        DensityCommand::Cross(args) => cross::run(args),
        DensityCommand::Learn(args) => learn::run(args),
        DensityCommand::Model(args) => model::run(args),
        DensityCommand::Ask(args) => ask::run(args),
    }
}
