//! Components in a form to be read: normalised, sorted, without empty ones. ŷ stays what it was.

use std::fmt;

use ndarray::{ArrayD, Axis, IxDyn};

use crate::result::Fit;
use nneinfact_core::algebra::rearrange;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::memory::available_memory;
use nneinfact_core::model::{Index, IndexSet, Model, ModelError, Shapes};

/// What is 1 of a normalised column: see [`Fit::normalize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// The sum of the entries: columns become distributions.
    L1,
    /// The Euclidean length.
    L2,
    /// The largest entry.
    Max,
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Norm::L1 => "l1",
            Norm::L2 => "l2",
            Norm::Max => "max",
        })
    }
}

impl Norm {
    fn of(self, column: &[f64]) -> f64 {
        let max = column.iter().copied().fold(0.0, f64::max);
        if max == 0.0 {
            return 0.0;
        }
        // Relative to the largest entry, so that squares neither overflow nor vanish.
        match self {
            Norm::L1 => max * column.iter().map(|x| x / max).sum::<f64>(),
            Norm::L2 => max * column.iter().map(|x| (x / max).powi(2)).sum::<f64>().sqrt(),
            Norm::Max => max,
        }
    }
}

/// Where the scales of normalised factors go: see [`Fit::normalize`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ScalesInto {
    /// Into a tensor over all latent indices of the model, [`Fit::weights`]; every factor is
    /// normalised.
    #[default]
    Weights,
    /// Into the factor of this name, its indices or `theta_4` for the fourth
    /// ([`Model::factor_named`]); all others are normalised. It has to have all of their latent
    /// indices.
    Factor(String),
}

impl ScalesInto {
    /// The factor of a model that the scales go into, counted from 0; `None` where they become
    /// weights.
    ///
    /// # Errors
    /// [`Error::Model`] where the model has no factor of the name; [`Error::Setting`] where it lacks
    /// latent indices of the others.
    pub fn check(&self, model: &Model) -> Result<Option<usize>> {
        let name = match self {
            ScalesInto::Factor(name) => name,
            // Sets of tensors are kept in 64 bits.
            ScalesInto::Weights if model.factors().len() >= 64 => {
                return Err(Error::Setting(
                    "weights beside 64 factors are not supported: gather the scales in a factor"
                        .into(),
                ));
            }
            ScalesInto::Weights => return Ok(None),
        };
        let target = model.factor_named(name)?;
        let has: IndexSet = model.factors()[target].iter().collect();
        let missing = model.latent() - has;
        if missing.is_empty() {
            return Ok(Some(target));
        }
        let holders: Vec<String> = (0..model.factors().len())
            .filter(|&l| model.factors()[l].iter().any(|&x| missing.contains(x)))
            .map(|l| model.factor_name(l))
            .collect();
        let letters: Vec<String> = missing.iter().map(|x| x.to_string()).collect();
        Err(Error::Setting(format!(
            "the scales cannot be gathered in theta_{} ({}), which lacks the latent letter{} {} of {}: name a factor that has all latent letters, or gather them in a tensor of weights",
            target + 1,
            model.factor_name(target),
            if missing.len() == 1 { "" } else { "s" },
            letters.join(", "),
            holders.join(", ")
        )))
    }
}

impl Fit {
    /// The threshold that suits [`without_empty`](Self::without_empty) where components died out in
    /// the fit.
    pub const EMPTY: f64 = 1e-12;

    /// The same model with factors whose columns have norm 1, and their scales in one place.
    ///
    /// A column is the part of a factor with one combination of its latent indices: of `irk` the
    /// entries over i for some r and k, of a factor `i` all of it, and of a core `abc` a single
    /// entry, which becomes 1. Columns of zeros stay zeros, with the scale 0. ŷ stays the same up to
    /// rounding, history and plan as they are.
    ///
    /// ```
    /// use ndarray::{Array2, Axis};
    /// use nneinfact::NNEinFact;
    /// use nneinfact::fit::{Norm, ScalesInto};
    ///
    /// let y = Array2::from_shape_fn((8, 6), |(i, j)| ((i + 1) * (j + 2) + i % 3) as f64);
    /// let fit = NNEinFact::new("ir,jr->ij")?.ranks([('r', 2)]).fit(&y)?;
    ///
    /// let fit = fit.normalize(Norm::L1, ScalesInto::Weights)?.sorted();
    /// assert!(fit.factors().iter().all(|f| (f.sum_axis(Axis(0))[0] - 1.0).abs() < 1e-12));
    /// // The weights are what each component adds to the sum of ŷ.
    /// let weights = fit.weights().expect("asked for");
    /// assert!(weights[0] >= weights[1]);
    /// assert!((weights.sum() / y.sum() - 1.0).abs() < 1e-3);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`ScalesInto::check`]; [`Error::Memory`] where the tensor of weights would not fit in
    /// memory; [`Error::Numeric`] where a scale is beyond what a double holds.
    pub fn normalize(&self, norm: Norm, into: ScalesInto) -> Result<Fit> {
        let shapes = &self.tensor.shapes;
        let model = shapes.model();
        let target = into.check(model)?;
        let observed = model.observed();
        let latent_of = |l: usize| -> Vec<Index> {
            model.factors()[l].iter().copied().filter(|&x| !observed.contains(x)).collect()
        };
        let all: Vec<Index> = model.latent().iter().collect();
        let onto = target.map_or_else(|| all.clone(), latent_of);
        let needed = 16.0 * shapes.volume(onto.iter().collect());
        if let Some(available) = available_memory()
            && needed > available as f64
        {
            return Err(Error::Memory {
                what: format!("the weights over {} latent letters", onto.len()),
                needed: needed as u64,
                available,
                help: "gather the scales in a factor".into(),
            });
        }
        let mut gathered = vec![1.0; shapes.sizes(&onto).iter().product()];
        if let Some(weights) = &self.tensor.weights {
            let weights: Vec<f64> = weights.iter().copied().collect();
            multiply(&mut gathered, &rearrange(shapes, &all, &weights, &onto))?;
        }
        let mut factors = Vec::with_capacity(self.tensor.factors.len());
        for (l, factor) in self.tensor.factors.iter().enumerate() {
            if Some(l) == target {
                factors.push(factor.clone());
                continue;
            }
            let (indices, latent) = (&model.factors()[l], latent_of(l));
            let mut columns = latent.clone();
            columns.extend(indices.iter().filter(|&&x| observed.contains(x)));
            let entries: Vec<f64> = factor.iter().copied().collect();
            let mut entries = rearrange(shapes, indices, &entries, &columns);
            let scales: Vec<f64> =
                entries.chunks_mut(column_length(shapes, indices)).map(|c| unit(c, norm)).collect();
            multiply(&mut gathered, &rearrange(shapes, &latent, &scales, &onto))?;
            factors.push(array(shapes, indices, rearrange(shapes, &columns, &entries, indices))?);
        }
        let mut fit = self.clone();
        (fit.tensor.factors, fit.tensor.weights) = (factors, None);
        match target {
            None => fit.tensor.weights = Some(array(shapes, &onto, gathered)?),
            Some(target) => {
                let indices = &model.factors()[target];
                let mut entries: Vec<f64> = fit.tensor.factors[target].iter().copied().collect();
                multiply(&mut entries, &rearrange(shapes, &onto, &gathered, indices))?;
                fit.tensor.factors[target] = array(shapes, indices, entries)?;
            }
        }
        Ok(fit)
    }

    /// For each value of a latent index, the sum over all entries of ŷ of the terms with that
    /// index: how much of the model goes through it, in the units of the data. Their sum is that of
    /// ŷ.
    ///
    /// # Errors
    /// [`Error::Model`] where the letter is not a latent one of the model.
    pub fn component_weights(&self, letter: char) -> Result<Vec<f64>> {
        let model = self.tensor.shapes.model();
        let latent = model.latent();
        match Index::new(letter).filter(|&x| latent.contains(x)) {
            Some(letter) => Ok(self.through(letter)),
            None => Err(Error::Model(ModelError::NotLatent {
                text: model.text().into(),
                index: letter,
                latent: latent.iter().map(char::from).collect(),
            })),
        }
    }

    /// The same model with the values of each latent index in the order of descending
    /// [weight](Self::component_weights); where weights are equal, in the order that they had.
    #[must_use]
    pub fn sorted(&self) -> Fit {
        let mut fit = self.clone();
        for letter in self.tensor.shapes.model().latent().iter() {
            let weights = self.through(letter);
            let mut order: Vec<usize> = (0..weights.len()).collect();
            order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
            fit.select(letter, &order);
        }
        fit
    }

    /// The model without the values of latent indices whose [weight](Self::component_weights) is
    /// at most `threshold` times that of the letter's heaviest; one index of each stays in any case.
    ///
    /// What is left out of the sum of ŷ is at most `threshold` times that sum for every index that
    /// is left out, and ŷ rises nowhere: with [`Fit::EMPTY`] it is the same to twelve digits of the
    /// sum. Higher thresholds leave out components that the data have some use for.
    ///
    /// # Errors
    /// [`Error::Setting`] where the threshold is not at least 0 and below 1.
    pub fn without_empty(&self, threshold: f64) -> Result<Fit> {
        Fit::check_threshold(threshold)?;
        let model = self.tensor.shapes.model();
        let mut fit = self.clone();
        let mut ranks = Vec::new();
        for letter in model.latent().iter() {
            let weights = self.through(letter);
            let least = threshold * weights.iter().copied().fold(0.0, f64::max);
            let mut kept: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > least).collect();
            if kept.is_empty() {
                kept.push(0);
            }
            ranks.push((char::from(letter), kept.len()));
            if kept.len() < weights.len() {
                fit.select(letter, &kept);
            }
        }
        fit.tensor.shapes = Shapes::new(model, &self.tensor.shapes.data(), &ranks)?;
        Ok(fit)
    }

    /// Refuses what [`without_empty`](Self::without_empty) refuses.
    pub fn check_threshold(threshold: f64) -> Result<()> {
        if (0.0..1.0).contains(&threshold) {
            return Ok(());
        }
        Err(Error::Setting(format!(
            "the share of the heaviest component below which others are empty must be at least 0 and below 1, not {threshold}"
        )))
    }

    /// The sum of the terms of ŷ for each value of an index.
    fn through(&self, index: Index) -> Vec<f64> {
        self.tensor.totals(&[index])
    }

    /// Keeps these values of a latent index, in this order, from all that have it.
    fn select(&mut self, index: Index, kept: &[usize]) {
        let model = self.tensor.shapes.model();
        let latent: Vec<Index> = model.latent().iter().collect();
        let all = self.tensor.factors.iter_mut().zip(model.factors());
        for (tensor, own) in all.chain(self.tensor.weights.iter_mut().zip([&latent])) {
            if let Some(axis) = own.iter().position(|&x| x == index) {
                *tensor = tensor.select(Axis(axis), kept).as_standard_layout().into_owned();
            }
        }
    }
}

/// The number of entries of a column.
fn column_length(shapes: &Shapes, indices: &[Index]) -> usize {
    let observed = shapes.model().observed();
    indices.iter().filter(|&&x| observed.contains(x)).map(|&x| shapes.size(x)).product()
}

/// Brings a column to norm 1; gives what it had.
fn unit(column: &mut [f64], norm: Norm) -> f64 {
    let scale = norm.of(column);
    if scale > 0.0 {
        column.iter_mut().for_each(|x| *x /= scale);
    }
    scale
}

/// Multiplies entry by entry; refuses what doubles cannot hold.
fn multiply(entries: &mut [f64], by: &[f64]) -> Result<()> {
    for (x, &scale) in entries.iter_mut().zip(by) {
        let product = *x * scale;
        if !product.is_finite() || (product == 0.0 && *x != 0.0 && scale != 0.0) {
            return Err(Error::Numeric(format!(
                "the factors cannot be normalised: the product of the scales {x:e} and {scale:e} is beyond double precision"
            )));
        }
        *x = product;
    }
    Ok(())
}

fn array(shapes: &Shapes, indices: &[Index], entries: Vec<f64>) -> Result<ArrayD<f64>> {
    let sizes = shapes.sizes(indices);
    ArrayD::from_shape_vec(IxDyn(&sizes), entries).map_err(|e| Error::Shape {
        what: "a normalised factor".into(),
        found: e.to_string(),
        expected: format!("{sizes:?}"),
    })
}
