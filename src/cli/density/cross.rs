//! `nneinfact density cross`.

use std::path::{Path, PathBuf};

use clap::Args;
use ndarray::ArrayD;

use super::super::output::check_outputs;
use super::super::summary::{FitSummary, count};
use super::super::{complain, print};
use super::{RunArgs, input, written};
use nneinfact_core::error::Result;
use nneinfact_density::{Cross, CrossTrain, Indices};
use nneinfact_fit::io::{self, FileKind};
use nneinfact_fit::{Saved, SavedTrain, factor_name};

/// The arguments of `density cross`.
#[derive(Debug, Args)]
pub struct CrossArgs {
    /// The function: an array, whose entries are its values, or a fit as `nneinfact fit --out` writes
    /// it, whose predictions are
    #[arg(value_name = "DATA.npy|FIT.npz")]
    function: PathBuf,

    /// The array to read from an .npz that is no fit [default: the only numeric one]
    #[arg(long, value_name = "NAME")]
    key: Option<String>,

    /// The relative error to reach, on random entries
    #[arg(long, value_name = "T", default_value_t = 1e-8, allow_negative_numbers = true)]
    tol: f64,

    /// The largest rank
    #[arg(long, value_name = "R", default_value_t = 64)]
    max_rank: usize,

    /// The seed of start points, check points and random directions
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Where to write the train
    #[arg(long, value_name = "TRAIN.npz")]
    out: PathBuf,

    #[command(flatten)]
    run: RunArgs,
}

/// Interpolates an array or a fit.
pub fn run(args: &CrossArgs) -> Result<()> {
    check_outputs(&[("--out", Some(&args.out))], &[&args.function])?;
    written::check_npz("--out", &args.out)?;
    let found = args.run.on_threads(|| args.interpolate())?;
    for notice in &found.notices {
        complain("notice", notice);
    }
    let error = found.errors.last().copied().unwrap_or(f64::NAN);
    if !found.converged {
        complain(
            "warning",
            &format!(
                "the error {error:.1e} on random entries is above the tolerance {:e}{}",
                args.tol,
                if found.truncated { ": a larger --max-rank may help" } else { "" }
            ),
        );
    }
    SavedTrain::new(found.train.clone()).with_method("cross interpolation").save(&args.out)?;
    if args.run.quiet {
        return Ok(());
    }
    let mut summary = FitSummary::default();
    summary.add("function", args.function.display().to_string());
    summary.add("train", input::about(&found.train));
    summary.add("entries", format!("{} were looked at", count(found.evaluations)));
    let errors: Vec<String> = found.errors.iter().map(|e| format!("{e:.1e}")).collect();
    summary.add("error", format!("{} after each sweep, on random entries", errors.join(", ")));
    summary.add("written", args.out.display().to_string());
    print(&summary.into_text())
}

impl CrossArgs {
    fn interpolate(&self) -> Result<CrossTrain> {
        if self.key.is_none() && is_fit(&self.function) {
            let saved = Saved::load(&self.function)?;
            return self.of_fit(&saved);
        }
        let array = io::read_array_f64(&self.function, self.key.as_deref())?;
        self.of_array(&array)
    }

    fn cross(&self, sizes: Vec<usize>) -> Cross {
        Cross::new(sizes).tol(self.tol).max_rank(self.max_rank).seed(self.seed)
    }

    fn of_array(&self, array: &ArrayD<f64>) -> Result<CrossTrain> {
        self.cross(array.shape().to_vec()).run(|x| array.get(x).copied().unwrap_or(f64::NAN))
    }

    fn of_fit(&self, saved: &Saved) -> Result<CrossTrain> {
        let predictions = saved.factored();
        self.cross(saved.shapes().data()).run_batched(|tuples: &Indices, out: &mut [f64]| {
            // Mode by mode.
            let indices: Vec<Vec<usize>> = (0..tuples.order())
                .map(|mode| tuples.iter().map(|tuple| tuple[mode]).collect())
                .collect();
            // What cannot be predicted is told of as a value that is none.
            match predictions.at(&indices) {
                Ok(values) => out.copy_from_slice(&values),
                Err(_) => out.fill(f64::NAN),
            }
        })
    }
}

/// Whether a file holds the factors of a fit.
pub fn is_fit(path: &Path) -> bool {
    let first = factor_name(0);
    FileKind::of(path).is_ok_and(|kind| kind == FileKind::Npz)
        && io::npz_names(path).is_ok_and(|list| list.iter().any(|info| info.name == first))
}
