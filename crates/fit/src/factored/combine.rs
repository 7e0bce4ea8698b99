//! Tensors in factored form made of others: with modes fixed, summed over, or of two tensors.

use ndarray::{ArrayD, Axis, IxDyn, Slice};

use super::network::{letters, rename};
use super::sums::nothing;
use super::{FactoredTensor, Part};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, IndexSet};

/// How the entries along an axis become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduce {
    /// By their sum.
    Sum,
    /// By the largest of them.
    Max,
}

impl FactoredTensor {
    /// ŷ with some indices fixed, as a tensor of the modes that are left: a value, counted from 0, for each
    /// letter. A latent letter is allowed too: the part of ŷ that goes through one of its components.
    ///
    /// # Errors
    /// [`Error::Setting`] where a letter is not one of the model, stands twice, or no mode would be left;
    /// [`Error::Shape`] where a value is not below the letter's size.
    pub fn given(&self, fixed: &[(char, usize)]) -> Result<FactoredTensor> {
        let text: String = fixed.iter().map(|f| f.0).collect();
        let indices = self.indices_of(&text)?;
        for (&index, &(letter, value)) in indices.iter().zip(fixed) {
            let size = self.shapes.size(index);
            if value >= size {
                return Err(Error::Shape {
                    what: format!("the index of {letter}"),
                    found: value.to_string(),
                    expected: format!("a number below {size}"),
                });
            }
        }
        let output = self.left_over(indices.iter().collect())?;
        let value = |x: &Index| indices.iter().position(|y| y == x).map(|n| fixed[n].1);
        let part = |(names, array): Part| -> Part {
            let mut view = array.view();
            // From the last axis to the first, so that the others keep their numbers.
            for (axis, name) in names.iter().enumerate().rev() {
                if let Some(i) = value(name) {
                    view.index_axis_inplace(Axis(axis), i);
                }
            }
            let kept = names.iter().copied().filter(|x| value(x).is_none()).collect();
            (kept, view.as_standard_layout().to_owned())
        };
        let parts = self.parts().into_iter().map(part).collect();
        FactoredTensor::of_parts(parts, &output, &self.shapes)
    }

    /// The distribution over the modes that are left where some are known: [`given`](Self::given), divided
    /// by its sum.
    ///
    /// # Errors
    /// As [`given`](Self::given), and [`Error::Numeric`] where ŷ is 0 wherever they have these values.
    pub fn conditional(&self, fixed: &[(char, usize)]) -> Result<FactoredTensor> {
        let mut given = self.given(fixed)?;
        let total = given.total()?;
        if total <= 0.0 || !total.is_finite() {
            let known: Vec<String> = fixed.iter().map(|(x, i)| format!("{x} = {i}")).collect();
            return Err(Error::Numeric(format!(
                "ŷ is {total} in sum where {}: there is no distribution over the other modes",
                known.join(", ")
            )));
        }
        if let Some(first) = given.factors.first_mut() {
            first.mapv_inplace(|x| x / total);
        }
        Ok(given)
    }

    /// The sums of ŷ over all modes but these, as a tensor in factored form: what
    /// [`marginal`](Self::marginal) forms. The modes are in the order of the letters.
    ///
    /// # Errors
    /// [`Error::Setting`] where there is no letter, or one is not a mode or stands twice.
    pub fn marginal_model(&self, letters: &str) -> Result<FactoredTensor> {
        let output = self.indices_of(letters)?;
        let modes = self.model().observed();
        if let Some(latent) = output.iter().find(|&&x| !modes.contains(x)) {
            return Err(Error::Setting(format!("{latent} is no mode of {}", self.model())));
        }
        if output.is_empty() {
            return Err(Error::Setting("a marginal needs a mode at least".into()));
        }
        self.onto(&output)
    }

    /// As [`marginal_model`](Self::marginal_model), of modes that are known to be.
    pub(super) fn onto(&self, output: &[Index]) -> Result<FactoredTensor> {
        let parts = self.parts();
        let kept: IndexSet = output.iter().collect();
        let holders = |x: Index| parts.iter().filter(|(names, _)| names.contains(&x)).count();
        // A sum over what only one factor has is the factor's own; others become latent.
        let alone: IndexSet =
            (self.model().observed() - kept).iter().filter(|&x| holders(x) == 1).collect();
        let parts = parts.into_iter().map(|part| reduced(part, alone, Reduce::Sum)).collect();
        FactoredTensor::of_parts(parts, output, &self.shapes)
    }

    /// A tensor over these modes that is nowhere below ŷ, whatever the index of the others.
    pub(super) fn bound(&self, output: &[Index]) -> Result<FactoredTensor> {
        let others = self.model().observed() - output.iter().collect();
        let parts = self.parts().into_iter().map(|part| reduced(part, others, Reduce::Max));
        FactoredTensor::of_parts(parts.collect(), output, &self.shapes)
    }

    fn left_over(&self, fixed: IndexSet) -> Result<Vec<Index>> {
        let output: Vec<Index> =
            self.model().output().iter().copied().filter(|&x| !fixed.contains(x)).collect();
        if output.is_empty() {
            return Err(Error::Setting(format!(
                "all modes of {} are fixed: that is a single entry, to be predicted",
                self.model()
            )));
        }
        Ok(output)
    }

    /// The entrywise product ŷ·ẑ with another tensor of the same modes, as a model of the factors of both.
    ///
    /// # Errors
    /// [`Error::Setting`] where the modes are others; [`Error::Unsupported`] where both need more letters
    /// than there are; [`Error::Model`] where both have more than 64 factors together.
    pub fn hadamard(&self, other: &FactoredTensor) -> Result<FactoredTensor> {
        let shared = self.same_modes(other)?;
        let (renamed, sizes) = self.beside(other, shared)?;
        let parts = self.parts().into_iter().chain(renamed).collect();
        FactoredTensor::of_parts(parts, self.model().output(), &sizes)
    }

    /// The sum ŷ + ẑ with another tensor of the same modes. Two tensors of the same model, connected by
    /// latent indices in every factor as CP, Tucker and trains are, give one of that model whose ranks are the
    /// sums of theirs; other two a model of the factors of both with one more latent index, of size 2,
    /// that says which of them a term is of.
    ///
    /// # Errors
    /// As [`hadamard`](Self::hadamard).
    pub fn sum(&self, other: &FactoredTensor) -> Result<FactoredTensor> {
        let shared = self.same_modes(other)?;
        if let Some(sum) = self.concatenated(other)? {
            return Ok(sum);
        }
        let (renamed, sizes) = self.beside(other, shared)?;
        let own = self.parts();
        let used: IndexSet = own.iter().chain(&renamed).flat_map(|(names, _)| names).collect();
        let Some(which) = letters().find(|&x| !used.contains(x)) else {
            return Err(Error::Unsupported(format!(
                "the sum of {} and {} needs more than 52 letters",
                self.model(),
                other.model()
            )));
        };
        let modes = self.model().observed();
        let sizes = sizes.extended([(which, 2)]);
        let parts = own
            .into_iter()
            .map(|part| either(part, which, 0, modes))
            .chain(renamed.into_iter().map(|part| either(part, which, 1, modes)))
            .collect();
        FactoredTensor::of_parts(parts, self.model().output(), &sizes)
    }

    /// The tensors of another model with latent indices of their own, and the sizes of the indices of both.
    fn beside(
        &self,
        other: &FactoredTensor,
        shared: IndexSet,
    ) -> Result<(Vec<Part>, nneinfact_core::model::Shapes)> {
        let own = self.model().observed() | self.model().latent();
        let renamed = rename(other, own, shared)?;
        let to = |x: Index| renamed.iter().find(|(from, _)| *from == x).map_or(x, |(_, to)| *to);
        let parts = other
            .parts()
            .into_iter()
            .map(|(names, array)| (names.into_iter().map(to).collect(), array))
            .collect();
        let sizes =
            self.shapes.extended(renamed.iter().map(|&(from, to)| (to, other.shapes.size(from))));
        Ok((parts, sizes))
    }

    /// The sum of two tensors of the same model, with their components side by side; `None` where the
    /// models differ or components are not enough to tell the terms of one from those of the other.
    fn concatenated(&self, other: &FactoredTensor) -> Result<Option<FactoredTensor>> {
        let model = self.model();
        let latent = model.latent();
        if model.factors() != other.model().factors() || !connected(model.factors(), latent) {
            return Ok(None);
        }
        // Weights of one alone are beside ones of the other.
        let with_weights = self.weights.is_some() || other.weights.is_some();
        let parts = |of: &FactoredTensor| -> Vec<Part> {
            let mut parts = of.parts();
            if with_weights && of.weights.is_none() {
                let names: Vec<Index> = latent.iter().collect();
                let sizes = of.shapes.sizes(&names);
                parts.push((names, ArrayD::from_elem(IxDyn(&sizes), 1.0)));
            }
            parts
        };
        let sizes = self.shapes.extended([]);
        let ranks: Vec<(char, usize)> =
            latent.iter().map(|x| (x.into(), self.shapes.size(x) + other.shapes.size(x))).collect();
        let shapes = nneinfact_core::model::Shapes::new(model, &sizes.data(), &ranks)?;
        let diagonal = |(names, first): Part, second: ArrayD<f64>| -> ArrayD<f64> {
            let mut both = ArrayD::zeros(IxDyn(&shapes.sizes(&names)));
            for (array, second) in [(&first, false), (&second, true)] {
                let mut view = both.view_mut();
                for (axis, &name) in names.iter().enumerate() {
                    if latent.contains(name) {
                        let (split, len) = (self.shapes.size(name), view.len_of(Axis(axis)));
                        let part = if second { split..len } else { 0..split };
                        view.slice_axis_inplace(Axis(axis), Slice::from(part));
                    }
                }
                view.assign(array);
            }
            both
        };
        let mut tensors: Vec<ArrayD<f64>> = parts(self)
            .into_iter()
            .zip(parts(other))
            .map(|(first, (_, second))| diagonal(first, second))
            .collect();
        let weights = if with_weights { tensors.pop() } else { None };
        FactoredTensor::new(shapes, tensors, weights).map(Some)
    }

    /// The tensor divided by a number, as [`conditional`](Self::conditional) does it.
    ///
    /// # Errors
    /// [`Error::Numeric`] where ŷ is 0 everywhere.
    pub fn normalized(&self) -> Result<FactoredTensor> {
        let total = self.total()?;
        if total <= 0.0 || !total.is_finite() {
            return Err(nothing());
        }
        let mut shares = self.clone();
        if let Some(first) = shares.factors.first_mut() {
            first.mapv_inplace(|x| x / total);
        }
        Ok(shares)
    }
}

/// A tensor without some of its axes.
fn reduced((names, array): Part, without: IndexSet, reduce: Reduce) -> Part {
    let mut array = array;
    for (axis, &name) in names.iter().enumerate().rev() {
        if without.contains(name) {
            array = match reduce {
                Reduce::Sum => array.sum_axis(Axis(axis)),
                Reduce::Max => array.fold_axis(Axis(axis), 0.0, |&most, &x| f64::max(most, x)),
            };
        }
    }
    (names.into_iter().filter(|&x| !without.contains(x)).collect(), array)
}

/// A tensor with one more axis: itself at one of its two values; at the other 1 where all of its latent
/// indices are 0, so that the sum over them is 1, and 0 elsewhere.
fn either((mut names, array): Part, which: Index, own: usize, modes: IndexSet) -> Part {
    let mut sizes = array.shape().to_vec();
    sizes.push(2);
    let mut both = ArrayD::zeros(IxDyn(&sizes));
    let last = Axis(names.len());
    both.index_axis_mut(last, own).assign(&array);
    let mut neutral = both.index_axis_mut(last, 1 - own);
    for (axis, &name) in names.iter().enumerate() {
        if !modes.contains(name) {
            neutral.slice_axis_inplace(Axis(axis), Slice::from(0..1));
        }
    }
    neutral.fill(1.0);
    names.push(which);
    (names, both)
}

/// Whether every factor has a latent index, and all of them hang together by these.
fn connected(factors: &[Vec<Index>], latent: IndexSet) -> bool {
    let own = |factor: &Vec<Index>| -> IndexSet {
        factor.iter().copied().filter(|&x| latent.contains(x)).collect()
    };
    let sets: Vec<IndexSet> = factors.iter().map(own).collect();
    let Some(&first) = sets.first() else { return false };
    let mut reached = first;
    loop {
        let next =
            sets.iter().filter(|set| set.intersects(reached)).fold(reached, |all, &set| all | set);
        if next == reached {
            return sets.iter().all(|set| set.intersects(reached));
        }
        reached = next;
    }
}
