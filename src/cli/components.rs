//! What `fit` does with components before it writes them.

use clap::{Args, ValueEnum};

use super::summary::{FitSummary, percent};
use nneinfact_core::error::Result;
use nneinfact_core::model::Model;
use nneinfact_fit::{Fit, Norm, ScalesInto};

/// How components are written. None of it changes what the model predicts.
#[derive(Debug, Args)]
#[group(skip)]
pub struct ComponentArgs {
    /// Write factors whose columns (the entries for one combination of the factor's latent indices)
    /// have this norm 1; their scales go into an extra array, weights, over all latent indices in
    /// the order A–Z, a–z
    #[arg(long, value_enum, value_name = "NORM")]
    normalize: Option<NormArg>,

    /// Multiply the scales of --normalize into this factor instead, named by its letters or as
    /// theta_4; it has to have all latent indices
    #[arg(long, value_name = "FACTOR", requires = "normalize")]
    scales_into: Option<String>,

    /// Write the components of each latent index in the order of what they add to the sum of ŷ, most
    /// first
    #[arg(long)]
    sort: bool,

    /// Leave out the components of latent indices that add less to the sum of ŷ than this share of what
    /// the index's first adds [default without a share: 1e-12, which is nothing]
    #[arg(
        long,
        value_name = "SHARE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1e-12",
        allow_negative_numbers = true
    )]
    drop_empty: Option<f64>,
}

/// The values of `--normalize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NormArg {
    /// Their sum is 1
    L1,
    /// Their Euclidean length is 1
    L2,
    /// Their largest entry is 1
    Max,
}

impl ComponentArgs {
    /// Refuses what the model does not allow, before data are read.
    pub fn check(&self, model: &Model) -> Result<()> {
        if let Some(threshold) = self.drop_empty {
            Fit::check_threshold(threshold)?;
        }
        match self.normalize {
            Some(_) => self.scales_into().check(model).map(drop),
            None => Ok(()),
        }
    }

    /// Whether columns are brought to a norm.
    pub fn normalizes(&self) -> bool {
        self.normalize.is_some()
    }

    /// The fit with its components as they are to be written.
    pub fn apply(&self, fit: &Fit) -> Result<Fit> {
        let mut fit = match self.drop_empty {
            Some(threshold) => fit.without_empty(threshold)?,
            None => fit.clone(),
        };
        if self.sort {
            fit = fit.sorted();
        }
        match self.normalize {
            Some(norm) => fit.normalize(norm.into(), self.scales_into()),
            None => Ok(fit),
        }
    }

    /// Says what was done.
    pub fn describe(&self, summary: &mut FitSummary, fit: &Fit) -> Result<()> {
        let mut title = "components";
        let mut add = |fact: String| summary.add(std::mem::take(&mut title), fact);
        if self.drop_empty.is_some() && !fit.model().latent().is_empty() {
            let (before, after) = (fit.plan().shapes(), fit.shapes());
            let ranks: Vec<String> = fit
                .model()
                .latent()
                .iter()
                .map(|x| match (before.size(x), after.size(x)) {
                    (all, kept) if all == kept => format!("all {all} of {x}"),
                    (all, kept) => format!("{kept} of the {all} of {x}"),
                })
                .collect();
            add(format!("without empty ones: {} kept", ranks.join(", ")));
        }
        if self.sort {
            for index in fit.model().latent().iter() {
                let weights = fit.component_weights(index.into())?;
                let total: f64 = weights.iter().sum();
                let shares: Vec<String> = weights
                    .iter()
                    .take(SHOWN)
                    .map(|w| if total > 0.0 { percent(100.0 * w / total) } else { "0 %".into() })
                    .collect();
                let more = if weights.len() > SHOWN { ", …" } else { "" };
                add(format!("sorted, {index}: {}{more} of the sum of ŷ", shares.join(", ")));
            }
        }
        if let Some(norm) = self.normalize {
            let into = match fit.weights() {
                Some(_) => "the array weights".into(),
                None => self.scales_into.clone().unwrap_or_default(),
            };
            add(format!("columns of {} norm 1, their scales in {into}", Norm::from(norm)));
        }
        Ok(())
    }

    fn scales_into(&self) -> ScalesInto {
        self.scales_into.clone().map_or(ScalesInto::Weights, ScalesInto::Factor)
    }
}

/// How many shares are shown of each latent index.
const SHOWN: usize = 5;

impl From<NormArg> for Norm {
    fn from(norm: NormArg) -> Norm {
        match norm {
            NormArg::L1 => Norm::L1,
            NormArg::L2 => Norm::L2,
            NormArg::Max => Norm::Max,
        }
    }
}
