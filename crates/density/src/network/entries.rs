//! Data as a list of entries: what a factor's step needs of them, without a tensor of all entries.

use std::ops::Range;

use rayon::prelude::*;

use super::Network;
use super::contract::{LIMIT, Labelled, contract};
use super::node::FactorNode;
use crate::error::{Error, Result};

/// The letter that stands for the number of an entry: no model has it.
const ENTRY: char = '\u{e000}';
/// So many entries are contracted at once, and so many of these batches side by side.
const BATCH: usize = 512;
const BATCHES: usize = 32;

/// Entries of a tensor with their values and weights.
///
/// ```
/// use nneinfact_density::{DataNewton, Dense, Entries, Network};
///
/// // A diagonal of ones in zeros.
/// let diagonal = vec![0, 1, 2];
/// let entries = Entries::new(&[3, 3], vec![diagonal.clone(), diagonal], vec![1.0; 3])?;
/// let start = |x: f64| Dense::new(vec![3, 1], vec![1.0, x, 1.0]);
/// let model = Network::new("ia,ja->ij", vec![start(0.5)?, start(1.5)?])?;
/// let mut newton = DataNewton::of_entries(model, entries.rest_of_zeros())?;
/// let first = newton.sweep()?;
/// assert!(newton.sweep()? < first);
/// # Ok::<(), nneinfact_density::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Entries {
    shape: Vec<usize>,
    indices: Vec<Vec<usize>>,
    values: Vec<f64>,
    weights: Option<Vec<f64>>,
    zeros: bool,
}

impl Entries {
    /// Entries of a shape: for each mode the indices, one for each entry, and the values. What is not among
    /// them does not count. An entry that stands there twice counts twice.
    ///
    /// # Errors
    ///
    /// If lengths differ, an index is outside the shape, or a value is not finite.
    pub fn new(shape: &[usize], indices: Vec<Vec<usize>>, values: Vec<f64>) -> Result<Entries> {
        let lengths = indices.iter().all(|list| list.len() == values.len());
        if indices.len() != shape.len() || !lengths {
            return Err(Error::Shape {
                what: "the indices of entries".into(),
                found: format!(
                    "{} lists of {:?} indices",
                    indices.len(),
                    indices.iter().map(Vec::len).collect::<Vec<_>>()
                ),
                expected: format!("{} lists of {} indices", shape.len(), values.len()),
            });
        }
        for (mode, (list, &n)) in indices.iter().zip(shape).enumerate() {
            if let Some(i) = list.iter().find(|&&i| i >= n) {
                return Err(Error::Observations(format!(
                    "an entry has the index {i} along mode {}, which has size {n}",
                    mode + 1
                )));
            }
        }
        if let Some(x) = values.iter().find(|x| !x.is_finite()) {
            return Err(Error::Observations(format!("an entry is {x}; values have to be finite")));
        }
        Ok(Entries { shape: shape.to_vec(), indices, values, weights: None, zeros: false })
    }

    /// What is not among the entries are zeros, each with the weight 1.
    #[must_use]
    pub fn rest_of_zeros(mut self) -> Entries {
        self.zeros = true;
        self
    }

    /// How much each entry counts; 1, if nothing is said.
    ///
    /// # Errors
    ///
    /// If there are not as many as entries, or one is negative or not finite.
    pub fn weights(mut self, weights: Vec<f64>) -> Result<Entries> {
        if weights.len() != self.values.len() {
            return Err(Error::Shape {
                what: "the weights of entries".into(),
                found: weights.len().to_string(),
                expected: self.values.len().to_string(),
            });
        }
        if let Some(w) = weights.iter().find(|w| !(**w >= 0.0 && w.is_finite())) {
            return Err(Error::Observations(format!(
                "a weight is {w}; weights have to be 0 or positive"
            )));
        }
        self.weights = Some(weights);
        Ok(self)
    }

    /// The sizes of the modes.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn weight(&self, entry: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |weights| weights[entry])
    }

    /// `Σ w y²`.
    pub(crate) fn squared_norm(&self) -> f64 {
        self.values.iter().enumerate().map(|(e, y)| self.weight(e) * y * y).sum()
    }

    /// Whether all entries of the tensor count 1: then they share one matrix of latent letters for each
    /// value of a factor's shared letters.
    pub(crate) fn is_uniform(&self) -> bool {
        self.zeros && self.weights.is_none()
    }

    /// Whether what is not among the entries counts.
    pub(crate) fn has_zeros(&self) -> bool {
        self.zeros
    }

    /// Adds to a node's matrices and numerators what is due to the entries: `w y E` to the numerator of an
    /// entry's block, and `(w − w₀) E Eᵀ` to its matrix, where E is the product of the other factors there
    /// and `w₀` the weight that the matrix has for it already.
    pub(crate) fn add_to(&self, model: &Network, l: usize, node: &mut FactorNode) -> Result<()> {
        let place = |c: char| model.output.iter().position(|&o| o == c);
        // Blocks count the own letters and then the shared ones, in C order.
        let observed: Vec<usize> =
            node.letters[..2].iter().flatten().filter_map(|&c| place(c)).collect();
        let block = |e: usize| {
            observed.iter().fold(0, |b, &mode| b * self.shape[mode] + self.indices[mode][e])
        };
        let before = if self.zeros { 1.0 } else { 0.0 };
        let others = Others::of(model, l, &node.letters[2]);
        let starts: Vec<usize> = (0..self.values.len()).step_by(BATCH).collect();
        for starts in starts.chunks(BATCHES) {
            let products: Vec<Vec<f64>> = starts
                .par_iter()
                .map(|&start| others.products(self, start..(start + BATCH).min(self.values.len())))
                .collect::<Result<_>>()?;
            for (&start, products) in starts.iter().zip(&products) {
                for (e, product) in (start..).zip(products.chunks_exact(node.counts[2])) {
                    let (at, w) = (block(e), self.weight(e));
                    node.add(at, (w * self.values[e], w - before), product);
                }
            }
        }
        Ok(())
    }

    /// The error where the matrices of a factor's blocks would take too much memory.
    pub(crate) fn check_blocks(blocks: usize, latent: usize) -> Result<()> {
        let entries = (blocks as u64).saturating_mul(latent as u64).saturating_mul(latent as u64);
        if entries <= LIMIT {
            return Ok(());
        }
        Err(Error::Memory {
            what: "a matrix of latent values for each row of a factor".into(),
            needed: entries.saturating_mul(8),
            available: LIMIT * 8,
            help: "smaller ranks need less; so do data without weights and missing entries".into(),
        })
    }
}

/// The factors but one, to be multiplied at entries.
struct Others {
    /// Each with its observed letters first, and the modes that these are.
    factors: Vec<(Labelled, Vec<usize>)>,
    /// What does not depend on the entry.
    ones: Vec<Labelled>,
    /// The letters of the products behind that of the entry.
    latent: Vec<char>,
}

impl Others {
    fn of(model: &Network, l: usize, latent: &[char]) -> Others {
        let observed = |c: &char| model.output.contains(c);
        let place = |c: &char| model.output.iter().position(|o| o == c);
        let others = || (0..model.factors.len()).filter(move |&m| m != l);
        let factors = model.labelled(others(), false).into_iter().map(|factor| {
            let (first, rest): (Vec<char>, Vec<char>) =
                factor.letters.iter().partition(|c| observed(c));
            let modes = first.iter().filter_map(place).collect();
            (factor.permuted(&[first, rest].concat()), modes)
        });
        let factors = factors.collect();
        let elsewhere = |c: &char| others().any(|m| model.factors[m].contains(c));
        let lone = latent.iter().copied().filter(|c| !elsewhere(c));
        let ones = lone.map(|c| Labelled::ones(c, model.size_of(c).unwrap_or(1))).collect();
        Others { factors, ones, latent: latent.to_vec() }
    }

    /// Their products at some entries, over the latent letters.
    fn products(&self, entries: &Entries, which: Range<usize>) -> Result<Vec<f64>> {
        let mut parts = self.ones.clone();
        parts.extend(self.factors.iter().map(|(factor, modes)| {
            if modes.is_empty() {
                factor.clone()
            } else {
                gather(factor, modes, entries, which.clone())
            }
        }));
        if !parts.iter().any(|part| part.letters.contains(&ENTRY)) {
            parts.push(Labelled::ones(ENTRY, which.len()));
        }
        let out: Vec<char> = std::iter::once(ENTRY).chain(self.latent.iter().copied()).collect();
        Ok(contract(parts, &out)?.data)
    }
}

/// The rows of a factor at some entries: the number of the entry stands for its observed letters.
fn gather(factor: &Labelled, modes: &[usize], entries: &Entries, which: Range<usize>) -> Labelled {
    let sizes = &factor.shape[..modes.len()];
    let width: usize = factor.shape[modes.len()..].iter().product();
    let count = which.len();
    let mut data = Vec::with_capacity(count * width);
    for e in which {
        let pairs = sizes.iter().zip(modes);
        let row = pairs.fold(0, |row, (&n, &mode)| row * n + entries.indices[mode][e]);
        data.extend_from_slice(&factor.data[row * width..(row + 1) * width]);
    }
    let letters = [&[ENTRY][..], &factor.letters[modes.len()..]].concat();
    let shape = [&[count][..], &factor.shape[modes.len()..]].concat();
    Labelled { letters, shape, data }
}
