//! `nneinfact density sketch`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::super::output::check_outputs;
use super::super::summary::FitSummary;
use super::super::{complain, print};
use super::{RunArgs, input, written};
use nneinfact_core::error::{Error, Result};
use nneinfact_density::Sketch;
use nneinfact_fit::{SavedTrain, read_cores};

/// The arguments of `density sketch`.
#[derive(Debug, Args)]
pub struct SketchArgs {
    /// The samples: a matrix of whole numbers, a row for each sample and a column for each variable;
    /// values count from 0
    #[arg(value_name = "SAMPLES.npy")]
    samples: PathBuf,

    /// How many values each variable has
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', required = true)]
    sizes: Vec<usize>,

    /// A weight for each sample [default: all alike]
    #[arg(long, value_name = "W.npy")]
    weights: Option<PathBuf>,

    #[command(flatten)]
    how: HowArgs,

    /// The rank of the train, or one for each bond between two variables
    #[arg(long, value_name = "R|R,R,…", value_delimiter = ',')]
    rank: Option<Vec<usize>>,

    /// Drop singular values of at most this share of the largest
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    tol: Option<f64>,

    /// What the functions of the variables on the two sides of a cut are
    #[arg(long, value_enum, value_name = "KIND", default_value = "monomials")]
    sketch: SketchKind,

    /// The cores of --sketch cores: arrays left_1 to left_(d-1) and right_2 to right_d [default:
    /// random ones]
    #[arg(long, value_name = "FILE.npz")]
    sketch_cores: Option<PathBuf>,

    /// How many functions there are at each cut with random cores
    #[arg(long, value_name = "N", default_value_t = 20)]
    functions: usize,

    /// The seed of random cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Where to write the train
    #[arg(long, value_name = "TRAIN.npz")]
    out: PathBuf,

    #[command(flatten)]
    run: RunArgs,
}

/// The monomials of a sketch.
#[derive(Clone, Copy, Debug, Args)]
#[group(skip)]
pub struct HowArgs {
    /// Of two variables whose functions are multiplied, one is among so many next to the cut
    #[arg(long, value_name = "N", default_value_t = 2)]
    near: usize,

    /// The degree of the polynomials of a variable; for categories take the number of values less 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    degree: usize,
}

/// The values of `--sketch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SketchKind {
    /// Polynomials of each variable, and products of two of them
    Monomials,
    /// Recursions with given or random cores: cheaper, noisier
    Cores,
}

impl HowArgs {
    /// A sketch by monomials.
    pub fn sketch(self, sizes: Vec<usize>) -> Sketch {
        Sketch::new(sizes).monomials(self.near, self.degree)
    }
}

/// Sketches samples.
pub fn run(args: &SketchArgs) -> Result<()> {
    let mut inputs = vec![args.samples.as_path()];
    inputs.extend(args.weights.as_deref().into_iter().chain(args.sketch_cores.as_deref()));
    check_outputs(&[("--out", Some(&args.out))], &inputs)?;
    written::check_npz("--out", &args.out)?;
    check_sizes(&args.sizes)?;
    let sketch = args.sketch()?;
    let samples = input::index_rows(&args.samples, &args.sizes)?;
    let weights = args.weights.as_deref().map(|path| input::vector(path, "weights")).transpose()?;
    let found = args.run.on_threads(|| sketch.run(&samples, weights.as_deref()))?;
    for notice in &found.notices {
        complain("notice", notice);
    }
    SavedTrain::new(found.train.clone()).with_method("sketch").save(&args.out)?;
    if args.run.quiet {
        return Ok(());
    }
    let mut summary = FitSummary::default();
    summary.add("samples", format!("{}: {} rows", args.samples.display(), samples.rows()));
    summary.add("train", input::about(&found.train));
    if let Some(values) = found.singular_values.get((args.sizes.len() - 1) / 2) {
        summary.add("singular", format!("values at the middle cut: {}", few(values)));
    }
    summary.add("written", args.out.display().to_string());
    print(&summary.into_text())
}

/// The first of a list of numbers.
fn few(values: &[f64]) -> String {
    const SHOWN: usize = 8;
    let text: Vec<String> = values.iter().take(SHOWN).map(|x| format!("{x:.3}")).collect();
    let more = if values.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", text.join(", "))
}

/// The error if sizes cannot be those of variables.
pub fn check_sizes(sizes: &[usize]) -> Result<()> {
    match sizes.iter().position(|&n| n == 0) {
        None => Ok(()),
        Some(k) => Err(Error::Setting(format!(
            "--sizes: variable {} has 0 values; it has to have at least 1",
            k + 1
        ))),
    }
}

impl SketchArgs {
    fn sketch(&self) -> Result<Sketch> {
        let unused = |option: &str, kind: &str| {
            complain("notice", &format!("{option} has no effect with --sketch {kind}"));
        };
        let mut sketch = match (self.sketch, &self.sketch_cores) {
            (SketchKind::Monomials, cores) => {
                if cores.is_some() {
                    unused("--sketch-cores", "monomials");
                }
                self.how.sketch(self.sizes.clone())
            }
            (SketchKind::Cores, None) => {
                Sketch::new(self.sizes.clone()).random_cores(self.functions, self.seed)
            }
            (SketchKind::Cores, Some(path)) => {
                let (left, right) = sides(path, self.sizes.len())?;
                Sketch::new(self.sizes.clone()).cores(left, right)
            }
        };
        match self.rank.as_deref() {
            None => {}
            Some(&[rank]) => sketch = sketch.rank(rank),
            Some(ranks) => sketch = sketch.ranks(ranks.to_vec()),
        }
        if let Some(tol) = self.tol {
            sketch = sketch.tol(tol);
        }
        Ok(sketch)
    }
}

/// The cores of the two sides.
fn sides(
    path: &Path,
    order: usize,
) -> Result<(Vec<nneinfact_density::Core>, Vec<nneinfact_density::Core>)> {
    Ok((read_cores(path, "left", 1..=order - 1)?, read_cores(path, "right", 2..=order)?))
}
