//! One of the tensors of a coupled fit.

use crate::source::Source;
use nneinfact_core::data::Observations;
use nneinfact_core::error::Result;
use nneinfact_core::loss::Loss;
use nneinfact_core::model::Model;

/// One of the tensors of a coupled fit: a model, data, a loss, and how much it counts.
#[derive(Debug)]
pub struct Part {
    pub(super) model: Model,
    pub(super) observations: Observations,
    pub(super) loss: Loss,
    pub(super) weight: f64,
}

impl Part {
    /// A tensor (an array, coordinates or observations) and its model. A factor with the same letters as
    /// one of another part is the same factor, and a letter is the same index everywhere.
    ///
    /// # Errors
    /// Where the string is not a model, or the data cannot be used.
    pub fn new(model: &str, data: impl Source) -> Result<Part> {
        Ok(Part {
            model: Model::parse(model)?,
            observations: data.observations()?.into_owned(),
            loss: Loss::kl(),
            weight: 1.0,
        })
    }

    /// The loss. Default: [`Loss::kl`].
    #[must_use]
    pub fn loss(mut self, loss: Loss) -> Part {
        self.loss = loss;
        self
    }

    /// What the sum of this part's losses is multiplied with, a number above 0. Default: 1.
    #[must_use]
    pub fn weight(mut self, weight: f64) -> Part {
        self.weight = weight;
        self
    }
}
