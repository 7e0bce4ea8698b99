//! Sums of ŷ over modes, lengths, products and distances, by contractions of the factors.

use ndarray::{ArrayD, IxDyn};

use super::FactoredTensor;
use super::network::{Network, contracted, scaled};
use nneinfact_core::algebra::{Twofold, contract, contract_within};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::memory::available_memory;
use nneinfact_core::model::{Index, IndexSet};
use nneinfact_core::plan::Contraction;

impl FactoredTensor {
    /// The sums of ŷ over all modes but these letters, with its axes in their order. A latent letter is
    /// allowed too: the terms of ŷ with each of its values, as in `"hr"` the profile over `h` of every
    /// component in the units of the data.
    ///
    /// # Errors
    /// [`Error::Setting`] where a letter is not one of the model or stands twice; [`Error::Memory`] where
    /// the result or the products on the way do not fit in memory.
    pub fn marginal(&self, letters: &str) -> Result<ArrayD<f64>> {
        let indices = self.indices_of(letters)?;
        let sizes = self.shapes.sizes(&indices);
        let needed = 8.0 * sizes.iter().map(|&n| n as f64).product::<f64>();
        if let Some(available) = available_memory()
            && needed > available as f64
        {
            return Err(Error::Memory {
                what: format!("the marginal over {letters}"),
                needed: needed as u64,
                available,
                help: "ask for fewer letters, or fix some modes first".into(),
            });
        }
        let sums = Network::of(self).contract_scaled(&indices)?;
        ArrayD::from_shape_vec(IxDyn(&sizes), sums)
            .map_err(|e| Error::Internal(format!("the marginal over {letters}: {e}")))
    }

    /// The sum of ŷ over all entries.
    ///
    /// # Errors
    /// [`Error::Memory`] where the products on the way do not fit in memory.
    pub fn total(&self) -> Result<f64> {
        Ok(first(&Network::of(self).contract_scaled(&[])?))
    }

    /// The mean of a product of functions, one of the index of each mode given, where an entry has the
    /// probability ŷ/Σŷ: with `[('h', &hours)]` the mean hour. A mode that is not given counts as 1. A
    /// list has a number, of any sign, for every value of its letter; latent letters are allowed.
    ///
    /// # Errors
    /// [`Error::Setting`] where a letter is not one of the model or stands twice, or a list has another
    /// length or a number that is not finite; [`Error::Numeric`] where ŷ is 0 everywhere;
    /// [`Error::Memory`] where the products on the way do not fit in memory.
    pub fn expectation(&self, functions: &[(char, &[f64])]) -> Result<f64> {
        let letters: String = functions.iter().map(|f| f.0).collect();
        let mut network = Network::of(self);
        for (index, (letter, values)) in self.indices_of(&letters)?.into_iter().zip(functions) {
            let size = self.shapes.size(index);
            if values.len() != size || values.iter().any(|x| !x.is_finite()) {
                return Err(Error::Setting(format!(
                    "the function of {letter} has {} values: {size} finite ones are expected",
                    values.len()
                )));
            }
            network.push(vec![index], values.to_vec());
        }
        let (sum, exponent) = network.contract(&[])?;
        let (total, all) = Network::of(self).contract(&[])?;
        let (sum, total) = (first(&sum), first(&total));
        if total > 0.0 { Ok(scaled(sum / total, exponent - all)) } else { Err(nothing()) }
    }

    /// The Euclidean norm of ŷ, (Σ ŷ²)^½.
    ///
    /// # Errors
    /// [`Error::Memory`] where the products on the way do not fit in memory; [`Error::Unsupported`] where
    /// two copies of the model need more letters than there are.
    pub fn norm(&self) -> Result<f64> {
        let (square, exponent) = self.product(self)?.contract(&[])?;
        Ok(root(first(&square), exponent))
    }

    /// The inner product Σ ŷ·ẑ with another tensor of the same modes: the same letters and sizes, in any
    /// order.
    ///
    /// # Errors
    /// [`Error::Setting`] where the modes are others; else as [`norm`](Self::norm).
    pub fn inner(&self, other: &FactoredTensor) -> Result<f64> {
        Ok(first(&self.product(other)?.contract_scaled(&[])?))
    }

    /// The Euclidean distance (Σ (ŷ − ẑ)²)^½ to another tensor of the same modes, without forming either.
    /// It is ‖ŷ‖² + ‖ẑ‖² − 2⟨ŷ, ẑ⟩ in twice the double precision, so that nothing of it is lost where
    /// the two are nearly the same.
    ///
    /// # Errors
    /// As [`inner`](Self::inner).
    pub fn distance(&self, other: &FactoredTensor) -> Result<f64> {
        let terms = [
            (self.product(self)?.total_twofold()?, 1.0),
            (other.product(other)?.total_twofold()?, 1.0),
            (self.product(other)?.total_twofold()?, -2.0),
        ];
        // An even exponent for all, so that the root of the power is one too.
        let most = terms.iter().map(|((_, exponent), _)| *exponent).max().unwrap_or(0);
        let most = most + (most & 1);
        let sum = terms.iter().fold(Twofold::default(), |sum, ((x, exponent), sign)| {
            // What is too small for a double beside the largest term does not count.
            sum.plus(x.scaled(sign * scaled(1.0, exponent - most)))
        });
        Ok(root(sum.value().max(0.0), most))
    }

    /// The sums of the terms of ŷ over all indices but these, in C order of these: with a latent
    /// index its component weights, with the index of a mode the totals of ŷ along it.
    #[must_use]
    pub fn totals(&self, indices: &[Index]) -> Vec<f64> {
        contracted(&self.shapes, &self.factors, self.weights.as_ref(), indices, contract)
    }

    /// The sums of ŷ² over all modes but these, in C order of these; `None` where the alphabet has no
    /// letters left for that, or the products on the way do not fit in memory.
    #[must_use]
    pub fn totals_of_squares(&self, indices: &[Index]) -> Option<Vec<f64>> {
        let (shapes, pairs) = self.shapes.doubled()?;
        let other = |x: Index| pairs.iter().find(|(y, _)| *y == x).map_or(x, |pair| pair.1);
        let (names, data): (Vec<Vec<Index>>, Vec<Vec<f64>>) =
            self.parts().into_iter().map(|(n, a)| (n, a.iter().copied().collect())).unzip();
        let twin: Vec<Vec<Index>> =
            names.iter().map(|n| n.iter().map(|&x| other(x)).collect()).collect();
        let all: Vec<&[Index]> = names.iter().chain(&twin).map(Vec::as_slice).collect();
        let views: Vec<&[f64]> = data.iter().chain(&data).map(Vec::as_slice).collect();
        contract_within(&shapes, &Contraction::new(&shapes, &all, indices), &views).ok()
    }

    /// The tensors of both, over the same modes.
    fn product(&self, other: &FactoredTensor) -> Result<Network> {
        Ok(Network::of(self).times(other, self.same_modes(other)?)?.0)
    }

    /// The modes of both.
    pub(super) fn same_modes(&self, other: &FactoredTensor) -> Result<IndexSet> {
        let (own, others) = (self.model().observed(), other.model().observed());
        let sizes = |of: &FactoredTensor| -> Vec<String> {
            own.iter().map(|x| format!("{x}={}", of.shapes.size(x))).collect()
        };
        if own != others {
            return Err(Error::Setting(format!(
                "{} and {} have other modes: the letters after the arrow have to be the same, in any order",
                self.model(),
                other.model()
            )));
        }
        if sizes(self) != sizes(other) {
            return Err(Error::Setting(format!(
                "{} and {} have modes of other sizes: {} and {}",
                self.model(),
                other.model(),
                sizes(self).join(", "),
                sizes(other).join(", ")
            )));
        }
        Ok(own)
    }
}

/// The refusal of shares of a sum that is 0.
pub(super) fn nothing() -> Error {
    Error::Numeric("ŷ is 0 everywhere: there are no shares of its sum".into())
}

fn first(values: &[f64]) -> f64 {
    values.first().copied().unwrap_or(0.0)
}

/// The square root of a number times a power of two.
fn root(x: f64, exponent: i64) -> f64 {
    let odd = exponent & 1;
    scaled((x * scaled(1.0, odd)).sqrt(), (exponent - odd) / 2)
}
