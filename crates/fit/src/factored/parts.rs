//! Components: the parts of ŷ that go through the values of a latent index, and how alike they are.

use super::FactoredTensor;
use super::network::{Network, scaled};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, IndexSet};

/// Numbers that share a power of two.
type Scaled = (Vec<f64>, i64);

impl FactoredTensor {
    /// For each value of a latent index, what share of the sum of ŷ the terms with it have.
    ///
    /// # Errors
    /// [`Error::Setting`] where the letter is not a latent one; [`Error::Memory`] where the products on
    /// the way do not fit in memory.
    pub fn component_shares(&self, letter: char) -> Result<Vec<f64>> {
        let index = self.latent_of(letter)?;
        let sums = Network::of(self).contract(&[index])?.0;
        let total: f64 = sums.iter().sum();
        Ok(sums.into_iter().map(|x| if total > 0.0 { x / total } else { 0.0 }).collect())
    }

    /// The Euclidean norms of the parts of ŷ that go through the components of a latent index.
    ///
    /// # Errors
    /// As [`component_shares`](Self::component_shares), and [`Error::Unsupported`] where two copies of the
    /// model need more letters than there are.
    pub fn component_norms(&self, letter: char) -> Result<Vec<f64>> {
        let (norms, exponent) =
            self.part_norms(self.latent_of(letter)?, self.model().observed())?;
        Ok(norms.into_iter().map(|x| scaled(x, exponent)).collect())
    }

    /// How alike the components of a latent index are to those of a latent index of another tensor: the
    /// cosines ⟨p, q⟩ / (‖p‖·‖q‖) of their parts of ŷ, a row for each component of this one. Where the two
    /// have not all modes in common, parts are summed over the others. A component that is 0 has
    /// cosines of 0. For CP these are products of the cosines of the factors' columns.
    ///
    /// # Errors
    /// [`Error::Setting`] where a letter is not a latent one, or the tensors have no mode in common, of the
    /// same letter and size; [`Error::Unsupported`] where both need more letters than there are;
    /// [`Error::Memory`] where the products on the way do not fit in memory.
    pub fn cosines(
        &self,
        letter: char,
        other: &FactoredTensor,
        other_letter: char,
    ) -> Result<Vec<Vec<f64>>> {
        let (index, other_index) = (self.latent_of(letter)?, other.latent_of(other_letter)?);
        let shared = self.common_modes(other)?;
        let lengths = self.part_norms(index, shared)?;
        let others = other.part_norms(other_index, shared)?;
        let (network, renamed) = Network::of(self).times(other, shared)?;
        let column = renamed
            .iter()
            .find(|(from, _)| *from == other_index)
            .map_or(other_index, |(_, to)| *to);
        let (products, exponent) = network.contract(&[index, column])?;
        let cosine = |product: f64, a: f64, b: f64| match a > 0.0 && b > 0.0 {
            // Divided one after the other: the product of two small lengths may be 0.
            true => scaled(product / a / b, exponent - lengths.1 - others.1).clamp(0.0, 1.0),
            false => 0.0,
        };
        let row = |(row, &a): (&[f64], &f64)| -> Vec<f64> {
            row.iter().zip(&others.0).map(|(&product, &b)| cosine(product, a, b)).collect()
        };
        Ok(products.chunks(others.0.len().max(1)).zip(&lengths.0).map(row).collect())
    }

    /// The modes that both have, by letter and size.
    ///
    /// # Errors
    /// [`Error::Setting`] where there is none, or a letter has different sizes.
    pub fn common_modes(&self, other: &FactoredTensor) -> Result<IndexSet> {
        let shared = self.model().observed() & other.model().observed();
        if shared.is_empty() {
            return Err(Error::Setting(format!(
                "{} and {} have no mode in common: the letters after the arrow",
                self.model(),
                other.model()
            )));
        }
        let (a, b) = (&self.shapes, &other.shapes);
        match shared.iter().find(|&x| a.size(x) != b.size(x)) {
            None => Ok(shared),
            Some(x) => Err(Error::Setting(format!(
                "the mode {x} has {} indices in one tensor and {} in the other",
                a.size(x),
                b.size(x)
            ))),
        }
    }

    /// The lengths of the parts of a latent index's components, summed over all modes but these.
    fn part_norms(&self, index: Index, modes: IndexSet) -> Result<Scaled> {
        let mut shared = modes;
        shared.insert(index);
        let (network, _) = Network::of(self).times(self, shared)?;
        let (squares, exponent) = network.contract(&[index])?;
        // Both copies were divided by the same.
        Ok((squares.into_iter().map(|x| x.max(0.0).sqrt()).collect(), exponent / 2))
    }

    fn latent_of(&self, letter: char) -> Result<Index> {
        let index = self.index_of(letter)?;
        if self.model().observed().contains(index) {
            return Err(Error::Setting(format!(
                "{letter} is a mode of the data of {}, not a latent letter",
                self.model()
            )));
        }
        Ok(index)
    }
}
