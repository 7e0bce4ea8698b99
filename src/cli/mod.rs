//! The command line: `nneinfact fit`, `table`, `compare`, `report`, `predict`, `ask`, `match`,
//! `transform`, `density`, `explain`, `devices`, `demo` and `bench`.
//!
//! Results go to standard output; warnings, progress and errors go to standard error. The exit
//! status is 0 where the work was done (an interrupted fit that wrote its factors included), 2
//! where the command line or the input is wrong, 130 where a study was interrupted, and 1 for
//! anything else.

mod answer;
mod args;
mod ask;
mod bench;
mod bench_lists;
mod checkpoint;
mod compare;
mod components;
mod constraints;
mod coupled;
mod coupled_file;
#[cfg(test)]
mod damaged_texts;
mod data_keys;
mod demo;
mod density;
mod devices;
mod entry_list;
mod explain;
mod fit;
mod fit_progress;
mod interrupt;
mod matching;
mod mode_names;
mod output;
mod part_files;
mod predict;
mod problem;
mod processes;
mod read_data;
mod read_part;
mod read_table;
mod report;
mod split_args;
mod start;
mod structure;
mod summary;
mod table;
mod table_args;
mod transform;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Parser, Subcommand};

use nneinfact_core::error::{Error, Result, escaped_but};
use nneinfact_fit::Device;

/// Fits nonnegative tensor factorizations written as einsum strings.
#[derive(Debug, Parser)]
#[command(name = "nneinfact", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Fit a model to a tensor in a file
    Fit(Box<fit::FitArgs>),
    /// Fit several tensors that share factors: what `fit` does of a .toml
    #[command(hide = true)]
    FitCoupled(Box<coupled::CoupledArgs>),
    /// Fit many models to a tensor and compare how well they predict what was held out
    Compare(Box<compare::CompareArgs>),
    /// Make a tensor of a table of events, and tell what is in it
    Table(Box<table::TableCommandArgs>),
    /// Show a fit as a page with plots, and as a figure
    Report(Box<report::ReportArgs>),
    /// Write what a fit predicts: everywhere, at some entries, or where data are missing
    Predict(Box<predict::PredictArgs>),
    /// Ask a fit: sums, conditionals, the largest entries, samples, components
    Ask(Box<ask::AskArgs>),
    /// Pair the components of two fits
    Match(Box<matching::MatchArgs>),
    /// Take a fit to new data, with some of its factors fitted again
    Transform(Box<transform::TransformArgs>),
    /// Distributions over many variables as nonnegative tensor trains: from samples, from functions, and back
    Density(density::DensityArgs),
    /// List what this program can run on
    Devices,
    /// Show how a model would be fitted and what that costs, without data
    Explain(explain::ExplainArgs),
    /// Make a tensor with a known structure, fit it, and tell how much of it was found again
    Demo(demo::DemoArgs),
    /// Time passes and fits of fixed problems on a device; prints JSON
    Bench(bench::BenchArgs),
}

/// Runs the command that the arguments of this process ask for.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os()))
}

/// Runs the command that these arguments ask for, and gives the exit status. The first of them is the
/// name of the program. For programs that are not started with these arguments themselves, such as an
/// interpreter.
///
/// Usage errors, help and the version are printed as by the program.
///
/// ```
/// assert_eq!(nneinfact::cli::run(["nneinfact", "devices"]), 0);
/// assert_eq!(nneinfact::cli::run(["nneinfact", "fit", "--no-such-option"]), 2);
/// ```
#[must_use]
pub fn run<A: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = A>) -> u8 {
    let mut arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    if coupled::is_asked_for(&arguments) {
        arguments[1] = "fit-coupled".into();
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(asked) => return told(&asked),
    };
    cap_threads();
    let done = match &cli.command {
        CliCommand::Fit(args) => fit::run(args),
        CliCommand::FitCoupled(args) => coupled::run(args),
        CliCommand::Compare(args) => compare::run(args),
        CliCommand::Table(args) => table::run(args),
        CliCommand::Report(args) => report::run(args),
        CliCommand::Predict(args) => predict::run(args),
        CliCommand::Ask(args) => ask::run(args),
        CliCommand::Match(args) => matching::run(args),
        CliCommand::Transform(args) => transform::run(args),
        CliCommand::Density(args) => density::run(args),
        CliCommand::Devices => devices::run(),
        CliCommand::Explain(args) => explain::run(args),
        CliCommand::Demo(args) => demo::run(args),
        CliCommand::Bench(args) => bench::run(args),
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            complain("error", &error.to_string());
            if error.is_input() { 2 } else { 1 }
        }
    }
}

/// Prints help, the version, or what is wrong with the command line, which exits with 2.
fn told(asked: &clap::Error) -> u8 {
    let done = asked.print().and_then(|()| io::stdout().flush());
    match done {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            complain("error", &Error::file("standard output", e).to_string());
            1
        }
        _ => u8::try_from(asked.exit_code()).unwrap_or(2),
    }
}

/// Starts no more threads than are of use, whatever the environment asks for: far too many take all of
/// a machine's memory.
fn cap_threads() {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.trim().parse::<u64>().ok());
    let most = Device::most_threads();
    if let Some(asked) = asked.filter(|&n| n > most as u64) {
        complain("notice", &format!("RAYON_NUM_THREADS asks for {asked} threads: {most} are used"));
        // Nobody can have made this pool before.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(most).build_global();
    }
}

/// Whether this process has nothing to say, as another one speaks for it.
static MUTE: AtomicBool = AtomicBool::new(false);

/// From here on this process says nothing but errors: another one speaks for it.
fn mute() {
    MUTE.store(true, Ordering::Relaxed);
}

fn is_mute() -> bool {
    MUTE.load(Ordering::Relaxed)
}

/// Prints `kind: message` on standard error. There is nobody left to tell if that fails.
fn complain(kind: &str, message: &str) {
    if is_mute() && kind != "error" {
        return;
    }
    let _ = writeln!(io::stderr().lock(), "{kind}: {}", shown(message));
}

/// Text of several lines without what would steer a terminal, wherever it comes from: names in files, and
/// those of files.
fn shown(text: &str) -> String {
    escaped_but(text, &['\n', '\t'])
}

/// Prints text on standard output. A reader that has gone away (`| head`) is not an error.
fn print(text: &str) -> Result<()> {
    if is_mute() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    match out.write_all(shown(text).as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::file("standard output", e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
