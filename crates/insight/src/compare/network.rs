//! Fits as tensor networks: sums, lengths and inner products of their components, by contractions of the
//! factors and without forming ŷ.

use ndarray::ArrayD;

use nneinfact_core::algebra::contract_within;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, Model, Shapes};
use nneinfact_core::plan::Contraction;

/// A fit as a tensor network: factors over einsum indices.
pub(super) struct Network<'a> {
    pub shapes: &'a Shapes,
    /// The factors' indices, and those of the weights.
    names: Vec<Vec<Index>>,
    /// Each divided by its largest entry, so that no product of many overflows.
    tensors: Vec<Vec<f64>>,
    /// The product of what they were divided by.
    pub scale: f64,
}

impl<'a> Network<'a> {
    pub fn new(
        shapes: &'a Shapes,
        factors: &[ArrayD<f64>],
        weights: Option<&ArrayD<f64>>,
    ) -> Result<Network<'a>> {
        let model = shapes.model();
        let mut names = model.factors().to_vec();
        // Weights without axes are a number, which no similarity depends on.
        let weights = weights.filter(|w| w.ndim() > 0);
        names.extend(weights.map(|_| model.latent().iter().collect()));
        let mut scale = 1.0;
        let tensors = factors.iter().chain(weights).map(|tensor| {
            let most = tensor.iter().copied().fold(0.0, f64::max);
            let by = if most > 0.0 { most } else { 1.0 };
            scale *= by;
            tensor.iter().map(|x| x / by).collect()
        });
        let tensors = tensors.collect();
        Ok(Network { shapes, names, tensors, scale })
    }

    /// The sums of the terms of ŷ over all indices but these, in C order of these, over the scale.
    pub fn sums(&self, kept: &[Index]) -> Result<Vec<f64>> {
        let indices: Vec<&[Index]> = self.names.iter().map(Vec::as_slice).collect();
        let views: Vec<&[f64]> = self.tensors.iter().map(Vec::as_slice).collect();
        let plan = Contraction::new(self.shapes, &indices, kept);
        contract_within(self.shapes, &plan, &views)
    }

    /// The inner products of parts of this network with parts of another one, for every pair of
    /// components of a latent index; with itself only those of every component with itself.
    fn products(&self, other: &Network<'_>, index: Index) -> Result<Vec<f64>> {
        let own = std::ptr::eq(self, other);
        let model = self.shapes.model();
        let taken = model.observed() | model.latent();
        let mut spare =
            ('A'..='Z').chain('a'..='z').filter_map(Index::new).filter(|&x| !taken.contains(x));
        let mut renamed: Vec<(Index, Index)> = Vec::new();
        for latent in model.latent().iter() {
            if own && latent == index {
                continue;
            }
            let Some(new) = spare.next() else {
                return Err(Error::Unsupported(format!(
                    "components of {model} cannot be compared: two copies of it with latent letters of their own need more than 52 letters"
                )));
            };
            renamed.push((latent, new));
        }
        let rename =
            |x: Index| renamed.iter().find(|(from, _)| *from == x).map_or(x, |(_, to)| *to);
        let primed: Vec<Vec<Index>> =
            other.names.iter().map(|name| name.iter().map(|&x| rename(x)).collect()).collect();
        // A model whose modes are what is asked for, and whose ranks are all other indices.
        let output = match own {
            true => vec![index],
            false => vec![index, rename(index)],
        };
        let text = |indices: &[Index]| indices.iter().map(|&x| char::from(x)).collect::<String>();
        let names: Vec<String> = self.names.iter().chain(&primed).map(|name| text(name)).collect();
        if names.len() > 64 {
            return Err(Error::Unsupported(format!(
                "components of {model} cannot be compared: two copies of it have more than 64 factors"
            )));
        }
        let pair = Model::parse(&format!("{}->{}", names.join(","), text(&output)))?;
        let size = |x: Index| match renamed.iter().find(|(_, to)| *to == x) {
            Some((from, _)) => other.shapes.size(*from),
            None => self.shapes.size(x),
        };
        let shape: Vec<usize> = output.iter().map(|&x| size(x)).collect();
        let ranks: Vec<(char, usize)> =
            pair.latent().iter().map(|x| (char::from(x), size(x))).collect();
        let shapes = Shapes::new(&pair, &shape, &ranks)?;
        let indices: Vec<&[Index]> = pair.factors().iter().map(Vec::as_slice).collect();
        let views: Vec<&[f64]> =
            self.tensors.iter().chain(&other.tensors).map(Vec::as_slice).collect();
        let plan = Contraction::new(&shapes, &indices, &output);
        contract_within(&shapes, &plan, &views)
    }
}

/// The lengths of the parts of the components of a latent index.
pub(super) fn norms(network: &Network<'_>, index: Index) -> Result<Vec<f64>> {
    Ok(network.products(network, index)?.into_iter().map(|x| x.max(0.0).sqrt()).collect())
}

/// The cosines of parts: a row for each component of the first network.
pub(super) fn similarities(
    first: &Network<'_>,
    lengths: &[f64],
    other: &Network<'_>,
    index: Index,
) -> Result<Vec<Vec<f64>>> {
    let others = norms(other, index)?;
    let products = first.products(other, index)?;
    let cosine = |product: f64, a: f64, b: f64| match a > 0.0 && b > 0.0 {
        // Divided one after the other: the product of two small lengths may be 0.
        true => (product / a / b).clamp(0.0, 1.0),
        false => 0.0,
    };
    let row = |(row, &a): (&[f64], &f64)| -> Vec<f64> {
        row.iter().zip(&others).map(|(&product, &b)| cosine(product, a, b)).collect()
    };
    Ok(products.chunks(others.len().max(1)).zip(lengths).map(row).collect())
}
