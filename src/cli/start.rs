//! Where `fit` starts.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::output::read_factors;
use super::summary::FitSummary;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::Model;
use nneinfact_fit::{Fit, Start};

/// The start, but for `--init`.
#[derive(Debug, Args)]
#[group(skip)]
pub struct StartArgs {
    /// Where to start [default: random]
    #[arg(long, value_enum, value_name = "START", conflicts_with = "grow")]
    start: Option<StartArg>,

    /// The shape of --start gamma: 1 is exponential, below 1 nearly sparse, far above 1 nearly
    /// constant [default: 1]
    #[arg(long, value_name = "SHAPE", requires = "start", allow_negative_numbers = true)]
    gamma_shape: Option<f64>,

    /// Try so many random starts, of consecutive seeds from --seed on, for 10 sweeps each, and fit from
    /// the best
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "grow")]
    pub starts: usize,

    /// Start from a fit of the same model with smaller or equal ranks, in a file as --out writes
    /// it: what is new starts small
    #[arg(long, value_name = "FACTORS.npz")]
    grow: Option<PathBuf>,
}

/// The values of `--start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StartArg {
    /// Uniform random numbers
    Random,
    /// Gamma-distributed random numbers
    Gamma,
    /// Singular vectors of the data: NNDSVD for products of two factors, and the like for others
    Svd,
}

/// The default of `--gamma-shape`.
const SHAPE: f64 = 1.0;

impl StartArgs {
    /// The start, where one was asked for.
    pub fn start(&self, model: &Model) -> Result<Option<Start>> {
        if self.gamma_shape.is_some() && self.start != Some(StartArg::Gamma) {
            return Err(Error::Setting("--gamma-shape is for --start gamma".into()));
        }
        Ok(match (self.start, &self.grow) {
            (None, None) => None,
            (None, Some(path)) => Some(Start::Grown(read_factors(path, model)?)),
            (Some(StartArg::Random), _) => Some(Start::Random),
            (Some(StartArg::Gamma), _) => {
                Some(Start::Gamma { shape: self.gamma_shape.unwrap_or(SHAPE) })
            }
            (Some(StartArg::Svd), _) => Some(Start::Svd),
        })
    }

    /// The file that is read.
    pub fn input(&self) -> Option<&Path> {
        self.grow.as_deref()
    }

    /// Says where the fit started, where that was asked for.
    pub fn describe(&self, fit: &Fit, summary: &mut FitSummary) {
        if self.starts > 1 {
            let best =
                format!("{} were tried; seed {} was the best", self.starts, fit.history().seed);
            summary.add("starts", best);
        }
        match (self.start, &self.grow) {
            (None, None) => {}
            (None, Some(path)) => {
                summary.add("start", format!("grown from {}", path.display()));
            }
            (Some(StartArg::Random), _) => summary.add("start", "uniform random numbers"),
            (Some(StartArg::Gamma), _) => {
                let shape = self.gamma_shape.unwrap_or(SHAPE);
                summary.add("start", format!("gamma-distributed random numbers, shape {shape}"));
            }
            (Some(StartArg::Svd), _) => summary.add("start", "singular vectors of the data"),
        }
    }
}
