//! Five distributions as nonnegative tensor trains, after Tang, Dwaraknath & Ying 2025 (arXiv
//! 2507.21519): each is compressed to a train of any sign, and that is fitted by all variants of the
//! barrier Newton method, by multiplicative updates and by coordinate descent, from one start. Prints a
//! table for each, and draws the errors against sweeps and seconds where a folder is given.
//!
//! ```text
//! cargo run --release --example trains [-- NAME…] [--quick] [--plots FOLDER] [--save FOLDER]
//! ```
//!
//! Names: `ginzburg-landau`, `gibbs-kernel`, `heavy-tail`, `periodic-ising`, `heisenberg`; and, only where
//! they are named, `cost` (what a sweep costs) and `cross` (what stage one costs). With `--quick` all are small, to see that they run. `--save`
//! writes the trains of any sign that are fitted.

mod cost;
mod dmrg;
mod errors;
mod gibbs_kernel;
mod ginzburg_landau;
mod heavy_tail;
mod heisenberg;
mod periodic_ising;
mod plot;
mod ranks;
mod samples;
mod variants;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// What goes wrong in a program.
type Failure = Box<dyn Error>;

/// How an example runs.
struct Options {
    quick: bool,
    /// Where plots are written.
    plots: Option<PathBuf>,
    /// Where the targets are written.
    targets: Option<PathBuf>,
}

type Example = fn(&Options) -> Result<(), Failure>;

/// The examples, each with its name.
const EXAMPLES: [(&str, Example); 7] = [
    ("ginzburg-landau", ginzburg_landau::run),
    ("gibbs-kernel", gibbs_kernel::run),
    ("heavy-tail", heavy_tail::run),
    ("periodic-ising", periodic_ising::run),
    ("heisenberg", heisenberg::run),
    ("cost", cost::run),
    ("cross", ranks::run),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut options = Options { quick: false, plots: None, targets: None };
    let mut names: Vec<String> = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--plots" => {
                options.plots = Some(arguments.next().ok_or("--plots needs a folder")?.into())
            }
            "--save" => {
                options.targets = Some(arguments.next().ok_or("--save needs a folder")?.into())
            }
            name if EXAMPLES.iter().any(|(known, _)| *known == name) => names.push(argument),
            other => {
                let known: Vec<&str> = EXAMPLES.iter().map(|(name, _)| *name).collect();
                return Err(format!("no example {other}; there are {}", known.join(", ")).into());
            }
        }
    }
    for folder in options.plots.iter().chain(&options.targets) {
        std::fs::create_dir_all(folder)?;
    }
    for (name, example) in EXAMPLES {
        let wanted = names.iter().any(|n| n == name)
            || names.is_empty() && !matches!(name, "cost" | "cross");
        if wanted {
            println!("=== {name}");
            example(&options)?;
            println!();
        }
    }
    Ok(())
}
