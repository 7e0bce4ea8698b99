//! `nneinfact explain`.

use clap::Args;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;

use super::print;
use super::problem::ProblemArgs;
use nneinfact_core::error::Result;

/// The arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    problem: ProblemArgs,

    /// The shape of the data, as in 27,24,7,100,100
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', required = true)]
    shape: Vec<usize>,

    /// The bytes that a value of the data takes in memory
    #[arg(
        long,
        value_name = "N",
        default_value = "4",
        value_parser = PossibleValuesParser::new(["1", "2", "4", "8"])
            .map(|s| s.parse::<usize>().unwrap_or(4))
    )]
    value_bytes: usize,

    /// Plan for sparse data: so many entries are not zero
    #[arg(long, value_name = "N")]
    nonzeros: Option<u64>,
}

/// Prints the plan for data of a given shape.
pub fn run(args: &ExplainArgs) -> Result<()> {
    let problem = args.problem.check()?;
    let plan = match args.nonzeros {
        Some(nonzeros) => problem.settings.sparse_plan(&args.shape, nonzeros)?,
        None => problem.settings.plan(&args.shape, args.value_bytes)?,
    };
    print(&format!("{plan}\nloss     {}\n", problem.loss.describe()))
}
