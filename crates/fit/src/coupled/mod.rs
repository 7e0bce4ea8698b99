//! Fits to several tensors that share factors.

mod basis;
pub(crate) mod engine;
mod identity;
mod labels;
pub(crate) mod member;
mod part;
mod plan;
mod run;
mod start;
mod step;

use ndarray::ArrayD;

pub use self::part::Part;
use self::run::Outcome;
use crate::builder::NNEinFact;
use crate::result::Fit;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::History;

/// A fit to several tensors that share factors: it minimises `Σ_t weight_t Σ W_t ℓ_t(Y_t, ŷ_t)` and the
/// penalties, and like that of one tensor this never rises.
///
/// The parts may have different losses, shapes, masks and forms of data. A sweep updates groups of
/// factors from a pass over every tensor that has one of them; what the tensors say about a factor that
/// they share adds up.
///
/// Modes of the same letter are the same things, by their labels where there are any: every part gets the
/// labels of all, and entries at those that it had not are implicit ones of a list, and missing in an array
/// ([`Observations::relabeled`](nneinfact_core::data::Observations::relabeled)).
///
/// ```
/// use ndarray::Array2;
/// use nneinfact::fit::{Coupled, Part};
/// use nneinfact::{Loss, Observations};
///
/// // Ratings of a few items only, and what is known of all people.
/// let ratings = Array2::from_shape_fn((12, 8), |(i, j)| ((i % 3 + 1) * (j + 1)) as f64);
/// let seen = Array2::from_shape_fn((12, 8), |(i, j)| (5 * i + j) % 4 == 0);
/// let traits = Array2::from_shape_fn((12, 5), |(i, k)| ((i % 3 + 1) * (k + 2)) as f64);
///
/// let ratings = Observations::new(&ratings).mask(&seen)?;
/// let fit = Coupled::new([
///     Part::new("ir,jr->ij", &ratings)?,
///     Part::new("ir,kr->ik", &traits)?.loss(Loss::euclidean()).weight(0.5),
/// ])
/// .settings(|all| all.ranks([('r', 2)]).seed(3))
/// .fit()?;
///
/// assert_eq!(fit.factor("ir")?.shape(), [12, 2]);
/// let predicted = fit.parts()[0].predict(&[1, 1])?;
/// assert!((predicted - 4.0).abs() < 1.0);
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[must_use]
pub struct Coupled {
    parts: Vec<Part>,
    base: Option<NNEinFact>,
    configure: Vec<Configure>,
}

/// Settings that are made once the union of the models is known.
type Configure = Box<dyn FnOnce(NNEinFact) -> NNEinFact + Send>;

impl Coupled {
    /// A fit to these tensors.
    pub fn new(parts: impl IntoIterator<Item = Part>) -> Coupled {
        Coupled { parts: parts.into_iter().collect(), base: None, configure: Vec::new() }
    }

    /// As [`settings`](Self::settings), with settings that were made before, of whatever model; what was
    /// set so far is kept only where it comes after them. Those of data and loss are the parts' own.
    pub fn with_settings(mut self, settings: NNEinFact) -> Coupled {
        self.base = Some(settings);
        self
    }

    /// Settings of the fit: ranks (of the letters that are latent in every part), penalties, bounds, fixed,
    /// tied and smooth factors, algorithm, device, precision, seed, starts, stopping, observers, checkpoints.
    /// Those of data and loss are the parts' own.
    pub fn settings(
        mut self,
        set: impl FnOnce(NNEinFact) -> NNEinFact + Send + 'static,
    ) -> Coupled {
        self.configure.push(Box::new(set));
        self
    }

    /// Fits.
    ///
    /// # Errors
    /// As [`NNEinFact::fit`], of any of the parts; and where a letter has different sizes in two parts, or
    /// labels of which none is in both.
    pub fn fit(self) -> Result<CoupledFit> {
        let Coupled { parts, base, configure } = self;
        if parts.is_empty() {
            return Err(Error::Setting("a coupled fit needs at least one tensor".into()));
        }
        for (t, part) in parts.iter().enumerate() {
            if !(part.weight > 0.0 && part.weight.is_finite()) {
                return Err(Error::Setting(format!(
                    "the weight of tensor {} must be a finite number above 0, not {}",
                    t + 1,
                    part.weight
                )));
            }
        }
        // The ranks are among the settings, which need a model.
        let mut builder = base.unwrap_or_else(|| NNEinFact::of(parts[0].model.clone()));
        for set in configure {
            builder = set(builder);
        }
        let NNEinFact { settings, hooks, resume } = builder;
        run::fit(settings, hooks, resume, parts).map(CoupledFit)
    }
}

impl std::fmt::Debug for Coupled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coupled").field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// What a coupled fit returns.
#[derive(Clone, Debug)]
pub struct CoupledFit(Outcome);

impl CoupledFit {
    /// All factors, those of the first part first, each once.
    #[must_use]
    pub fn factors(&self) -> &[ArrayD<f64>] {
        &self.0.factors
    }

    /// The factor of these indices, as in `ir`.
    ///
    /// # Errors
    /// Where there is none, or there are several.
    pub fn factor(&self, name: &str) -> Result<&ArrayD<f64>> {
        Ok(&self.0.factors[self.0.model.factor_named(name)?])
    }

    /// What holds within and among the factors, as [`Fit::structure`].
    #[must_use]
    pub fn structure(&self) -> &[String] {
        &self.0.structure
    }

    /// What is probably not meant, a sentence each, and what turned out while fitting.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    /// The losses of all parts together, each with its weight, divided by the sum of the weights of all
    /// observed entries (times those of the parts).
    #[must_use]
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// The fits to the single tensors: factors, predictions, and a history of one element, their own
    /// losses at the end.
    #[must_use]
    pub fn parts(&self) -> &[Fit] {
        &self.0.parts
    }
}
