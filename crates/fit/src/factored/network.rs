//! Tensors over indices, of one model or of several, and their contractions.

use ndarray::ArrayD;

use super::FactoredTensor;
use nneinfact_core::algebra::{Twofold, contract_twofold, contract_within};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, IndexSet, Shapes};
use nneinfact_core::plan::Contraction;

/// Contracts all tensors of ŷ onto some indices.
pub(super) fn contracted<T>(
    shapes: &Shapes,
    factors: &[ArrayD<f64>],
    weights: Option<&ArrayD<f64>>,
    output: &[Index],
    contract: impl FnOnce(&Shapes, &Contraction, &[&[f64]]) -> T,
) -> T {
    let model = shapes.model();
    let mut indices: Vec<Vec<Index>> = model.factors().to_vec();
    indices.extend(weights.map(|_| model.latent().iter().collect()));
    let data: Vec<Vec<f64>> =
        factors.iter().chain(weights).map(|f| f.iter().copied().collect()).collect();
    let indices: Vec<&[Index]> = indices.iter().map(Vec::as_slice).collect();
    let views: Vec<&[f64]> = data.iter().map(Vec::as_slice).collect();
    contract(shapes, &Contraction::new(shapes, &indices, output), &views)
}

/// Tensors that are multiplied and summed over. Each is divided by a power of two, so that no product of
/// many overflows; that changes no digit of a result.
#[derive(Clone)]
pub(super) struct Network {
    shapes: Shapes,
    names: Vec<Vec<Index>>,
    tensors: Vec<Vec<f64>>,
    /// What all were divided by together, as a power of two.
    exponent: i64,
}

impl Network {
    pub fn of(tensor: &FactoredTensor) -> Network {
        let mut network = Network {
            shapes: tensor.shapes.clone(),
            names: Vec::new(),
            tensors: Vec::new(),
            exponent: 0,
        };
        for (names, array) in tensor.parts() {
            network.push(names, array.iter().copied().collect());
        }
        network
    }

    /// One more tensor, in C order.
    pub fn push(&mut self, names: Vec<Index>, mut entries: Vec<f64>) {
        let most = entries.iter().map(|x| x.abs()).fold(0.0, f64::max);
        if most > 0.0 && most.is_finite() {
            // Within what a double and its reciprocal can be.
            let exponent = (most.log2().floor() as i64).clamp(-1000, 1000);
            let by = power_of_two(-exponent);
            entries.iter_mut().for_each(|x| *x *= by);
            self.exponent += exponent;
        }
        self.names.push(names);
        self.tensors.push(entries);
    }

    /// The network with the tensors of another model, which has the indices of `shared` in common with
    /// it; all other indices of that model are summed over by themselves. With them what each index of
    /// that model is called now.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the alphabet has too few letters.
    pub fn times(
        mut self,
        other: &FactoredTensor,
        shared: IndexSet,
    ) -> Result<(Network, Vec<(Index, Index)>)> {
        let own: IndexSet = self.names.iter().flatten().collect();
        let renamed = rename(other, own, shared)?;
        let to = |x: Index| renamed.iter().find(|(from, _)| *from == x).map_or(x, |(_, to)| *to);
        self.shapes = self.shapes.extended(
            renamed
                .iter()
                .filter(|(_, to)| !own.contains(*to))
                .map(|&(from, to)| (to, other.shapes.size(from))),
        );
        for (names, array) in other.parts() {
            self.push(names.into_iter().map(to).collect(), array.iter().copied().collect());
        }
        Ok((self, renamed))
    }

    /// The sums of the products over all indices but these, each to be multiplied with two to the power
    /// of the number that comes with them.
    ///
    /// # Errors
    /// [`Error::Memory`] where the products on the way, or the result, do not fit in memory.
    pub fn contract(&self, output: &[Index]) -> Result<(Vec<f64>, i64)> {
        let (plan, views) = self.plan(output);
        Ok((contract_within(&self.shapes, &plan, &views)?, self.exponent))
    }

    /// As [`contract`](Self::contract), with the powers of two multiplied in.
    pub fn contract_scaled(&self, output: &[Index]) -> Result<Vec<f64>> {
        let (mut values, exponent) = self.contract(output)?;
        values.iter_mut().for_each(|x| *x = scaled(*x, exponent));
        Ok(values)
    }

    /// The sum over all indices, in twice the precision.
    pub fn total_twofold(&self) -> Result<(Twofold, i64)> {
        let (plan, views) = self.plan(&[]);
        Ok((contract_twofold(&self.shapes, &plan, &views)?, self.exponent))
    }

    fn plan(&self, output: &[Index]) -> (Contraction, Vec<&[f64]>) {
        let indices: Vec<&[Index]> = self.names.iter().map(Vec::as_slice).collect();
        let views = self.tensors.iter().map(Vec::as_slice).collect();
        (Contraction::new(&self.shapes, &indices, output), views)
    }
}

/// What the indices of a model are called beside `taken` ones: those of `shared` as they are, others by
/// letters that nobody has.
pub(super) fn rename(
    other: &FactoredTensor,
    taken: IndexSet,
    shared: IndexSet,
) -> Result<Vec<(Index, Index)>> {
    let model = other.model();
    let mut used = taken | shared;
    let mut renamed = Vec::new();
    for index in (model.observed() | model.latent()).iter() {
        if shared.contains(index) {
            renamed.push((index, index));
            continue;
        }
        let mut all = [index].into_iter().chain(letters());
        let Some(free) = all.find(|&x| !used.contains(x)) else {
            return Err(Error::Unsupported(format!(
                "the product of two models, one of them {model}, needs more than the 52 letters that \
                 there are for indices of their own"
            )));
        };
        used.insert(free);
        renamed.push((index, free));
    }
    Ok(renamed)
}

/// The letters that an index can have.
pub(super) fn letters() -> impl Iterator<Item = Index> {
    ('A'..='Z').chain('a'..='z').filter_map(Index::new)
}

/// A power of two that doubles have.
fn power_of_two(exponent: i64) -> f64 {
    2f64.powi(exponent.clamp(-1022, 1023) as i32)
}

/// A number times a power of two: infinite or zero where doubles do not reach.
pub(super) fn scaled(mut x: f64, mut exponent: i64) -> f64 {
    while exponent != 0 && x != 0.0 && x.is_finite() {
        let step = exponent.clamp(-1000, 1000);
        x *= power_of_two(step);
        exponent -= step;
    }
    x
}
