//! What can be given as the data of a fit.

use std::borrow::Cow;
use std::sync::Arc;

use ndarray::{ArrayBase, Data, Dimension};

use nneinfact_core::data::{CooTensor, Dense, Element, Observations};
use nneinfact_core::error::Result;

/// What a fit can be run on: an array, a [`Dense`] tensor, [`CooTensor`], or [`Observations`].
pub trait Source {
    /// The data as observations.
    ///
    /// # Errors
    /// Where the data cannot be used.
    fn observations(&self) -> Result<Cow<'_, Observations>>;
}

impl Source for &Observations {
    fn observations(&self) -> Result<Cow<'_, Observations>> {
        Ok(Cow::Borrowed(self))
    }
}

impl Source for Observations {
    fn observations(&self) -> Result<Cow<'_, Observations>> {
        Ok(Cow::Borrowed(self))
    }
}

impl Source for Arc<Dense> {
    fn observations(&self) -> Result<Cow<'_, Observations>> {
        Ok(Cow::Owned(Observations::shared(Arc::clone(self))))
    }
}

impl Source for Arc<CooTensor> {
    fn observations(&self) -> Result<Cow<'_, Observations>> {
        Ok(Cow::Owned(Observations::new(Arc::clone(self))))
    }
}

impl Source for &CooTensor {
    fn observations(&self) -> Result<Cow<'_, Observations>> {
        Ok(Cow::Owned(Observations::new((*self).clone())))
    }
}

impl<S, D> Source for &ArrayBase<S, D>
where
    S: Data,
    S::Elem: Element,
    D: Dimension,
{
    fn observations(&self) -> Result<Cow<'_, Observations>> {
        Ok(Cow::Owned(Observations::new(Dense::from_array(self))))
    }
}
