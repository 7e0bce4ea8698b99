//! `nneinfact explain`.

use clap::Args;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;

use super::print;
use super::problem::{CheckedProblem, ProblemArgs};
use super::split_args::SplitArgs;
use nneinfact_core::data::SplitKind;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::plan::Plan;
use nneinfact_fit::SplitPlan;

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

    /// Plan for data of which this share of the entries is held out, as fit --heldout does
    #[arg(long, value_name = "FRACTION")]
    heldout: Option<f64>,

    /// Plan for data of which this share of the others is for validation
    #[arg(long, value_name = "FRACTION")]
    validation: Option<f64>,

    #[command(flatten)]
    splits: SplitArgs,
}

/// Prints the plan for data of a given shape.
pub fn run(args: &ExplainArgs) -> Result<()> {
    let problem = args.problem.check()?;
    let splits = args.heldout.is_some() || args.validation.is_some();
    args.splits.check(splits)?;
    if splits {
        let share = |name: &str, share: Option<f64>| match share.unwrap_or(0.0) {
            share if (0.0..1.0).contains(&share) => Ok(share),
            share => Err(Error::Setting(format!("{name} is a fraction from 0 to 1, not {share}"))),
        };
        let held_out = share("--heldout", args.heldout)?;
        let validation = share("--validation", args.validation)?;
        let withheld = held_out + (1.0 - held_out) * validation;
        if withheld > 0.0 {
            let plan = split_plan(args, &problem, withheld)?;
            let on_gpu = dispatches(&problem, plan.plan(), Some(&plan))?;
            return print(&format!("{plan}\nloss     {}\n{on_gpu}", problem.loss.describe()));
        }
    }
    let plan = match args.nonzeros {
        Some(nonzeros) => problem.settings.sparse_plan(&args.shape, nonzeros)?,
        None => problem.settings.plan(&args.shape, args.value_bytes)?,
    };
    let on_gpu = dispatches(&problem, &plan, None)?;
    print(&format!("{plan}\nloss     {}\n{on_gpu}", problem.loss.describe()))
}

/// A line about dispatches on a GPU.
#[cfg(feature = "gpu")]
fn dispatches(problem: &CheckedProblem, plan: &Plan, split: Option<&SplitPlan>) -> Result<String> {
    let least = if plan.sparse_passes().is_empty() { "" } else { "at least " };
    let count = match split {
        Some(split) => problem.settings.gpu_dispatches_of_split(split),
        None => problem.settings.gpu_dispatches(plan),
    };
    Ok(match count {
        Ok(Some(count)) => format!("on a GPU {least}{count} dispatches a sweep\n"),
        Ok(None) => "on a GPU the steps are made on the host\n".into(),
        // The plan is good for a CPU all the same.
        Err(error @ (Error::Memory { .. } | Error::Loss(_))) => format!("on a GPU {error}\n"),
        Err(error) => return Err(error),
    })
}

#[cfg(not(feature = "gpu"))]
fn dispatches(_: &CheckedProblem, _: &Plan, _: Option<&SplitPlan>) -> Result<String> {
    Ok(String::new())
}

/// The plan for data of which a share is withheld, as cells or by strata.
fn split_plan(args: &ExplainArgs, problem: &CheckedProblem, withheld: f64) -> Result<SplitPlan> {
    let (shape, bytes) = (&args.shape, args.value_bytes);
    let asked = args.splits.kind().unwrap_or_default();
    let Some(nonzeros) = args.nonzeros else {
        if asked == SplitKind::Strata {
            return Err(Error::Setting(
                "--heldout-as strata is for lists: say how many entries are stored (--nonzeros)"
                    .into(),
            ));
        }
        return problem.settings.split_plan(shape, bytes, None, withheld);
    };
    // Shapes beyond any list are refused by the plan.
    let volume = shape.iter().fold(1u128, |all, &n| all.saturating_mul(n as u128));
    match asked.of_list(volume) {
        SplitKind::Strata => {
            let zeros = args.splits.zeros_per_nonzero.unwrap_or(1.0);
            problem.settings.strata_plan(shape, nonzeros, withheld, zeros)
        }
        _ => problem.settings.split_plan(shape, bytes, Some(nonzeros), withheld),
    }
}
