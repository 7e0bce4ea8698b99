//! Scores of held-out cells that can be compared between losses.

use std::fmt;
use std::ops::Range;

use ndarray::{ArrayD, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::run::limitless;
use nneinfact_core::algebra::contract_within;
use nneinfact_core::data::{Implicit, Prepared, Role};
use nneinfact_core::error::{Error, Result};
use nneinfact_core::loss::Loss;
use nneinfact_core::model::{Index, Model, Shapes};
use nneinfact_core::plan::Contraction;
use nneinfact_fit::Predictions;

/// How well held-out cells are predicted, in terms that do not depend on the loss that was fitted.
///
/// All are means over the held-out cells that are observed, with the weights of the data where they
/// have any. For losses on odds the prediction is the mean that goes with the odds ŷ, n·ŷ/(1+ŷ).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Score {
    /// The mean Poisson log-likelihood, x ln ŷ − ŷ − ln x!, in nats a cell: higher is better. For
    /// counts. Predictions count as at least 10⁻¹⁰ of the mean of the training cells, as in fits:
    /// else one cell predicted as 0 would decide.
    Poisson,
    /// The root of the mean squared difference, in the data's units: lower is better.
    Rmse,
    /// The mean absolute difference, in the data's units: lower is better.
    Mae,
}

impl Score {
    /// All scores.
    pub const ALL: [Score; 3] = [Score::Poisson, Score::Rmse, Score::Mae];

    /// "poisson", "rmse" or "mae".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Score::Poisson => "poisson",
            Score::Rmse => "rmse",
            Score::Mae => "mae",
        }
    }

    /// In words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Score::Poisson => "mean Poisson log-likelihood of held-out cells (higher is better)",
            Score::Rmse => "root mean squared error of held-out cells (lower is better)",
            Score::Mae => "mean absolute error of held-out cells (lower is better)",
        }
    }

    /// Whether higher is better.
    #[must_use]
    pub fn higher_is_better(self) -> bool {
        self == Score::Poisson
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The scores of one fit; those that do not apply are `None`. What is too large for a number, or none,
/// is infinite (minus infinity for [`Score::Poisson`]), worse than any other; in JSON it is `"inf"`.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Scores {
    /// [`Score::Poisson`]; only for counts.
    #[serde(with = "limitless::option")]
    pub poisson: Option<f64>,
    /// [`Score::Rmse`].
    #[serde(with = "limitless::option")]
    pub rmse: Option<f64>,
    /// [`Score::Mae`].
    #[serde(with = "limitless::option")]
    pub mae: Option<f64>,
}

impl Scores {
    /// The value of a score.
    #[must_use]
    pub fn get(&self, score: Score) -> Option<f64> {
        match score {
            Score::Poisson => self.poisson,
            Score::Rmse => self.rmse,
            Score::Mae => self.mae,
        }
    }
}

/// Entries of ŷ that are formed at a time.
const BLOCK: usize = 1 << 19;
/// Listed cells that are predicted at a time.
const BATCH: usize = 1 << 12;
/// What predictions count at least as for the Poisson score, relative to the mean of the data.
const FLOOR: f64 = 1e-10;

/// Sums over held-out cells.
#[derive(Clone, Copy, Default)]
struct Sums {
    weight: f64,
    poisson: f64,
    squared: f64,
    absolute: f64,
}

impl Sums {
    fn cell(&mut self, scorer: &Scorer<'_>, weight: f64, x: f64, y: f64) {
        self.weight += weight;
        self.squared += weight * (x - y) * (x - y);
        self.absolute += weight * (x - y).abs();
        if scorer.counts {
            let y = y.max(scorer.floor);
            let known = if x > 0.0 { x * y.ln() - libm::lgamma(x + 1.0) } else { 0.0 };
            self.poisson += weight * (known - y);
        }
    }

    fn add(&mut self, other: Sums) {
        self.weight += other.weight;
        self.poisson += other.poisson;
        self.squared += other.squared;
        self.absolute += other.absolute;
    }
}

/// What predictions are held against.
pub(super) struct Scorer<'a> {
    pub data: &'a Prepared,
    pub loss: &'a Loss,
    /// Whether the data are counts.
    pub counts: bool,
    floor: f64,
    /// EntryParameter values in C order, of losses on odds.
    sides: Vec<Vec<f64>>,
}

impl<'a> Scorer<'a> {
    pub fn new(data: &'a Prepared, loss: &'a Loss, counts: bool) -> Scorer<'a> {
        let sides = match loss.is_odds() {
            true => loss.sides().iter().map(|side| side.iter().copied().collect()).collect(),
            false => Vec::new(),
        };
        let floor = FLOOR * if data.mean() > 0.0 { data.mean() } else { 1.0 };
        Scorer { data, loss, counts, floor, sides }
    }

    /// The scores of a model with these factors. The result does not depend on the number of threads.
    pub fn scores(&self, shapes: &Shapes, factors: &[ArrayD<f64>]) -> Result<Scores> {
        if self.data.cells(Role::HeldOut) == 0 {
            return Ok(Scores::default());
        }
        let parts = match (self.data.roles(), self.data.coordinates()) {
            (None, Some(_)) => self.listed(shapes, factors)?,
            _ => self.grid(shapes, factors)?,
        };
        let mut sums = Sums::default();
        parts.into_iter().for_each(|part| sums.add(part));
        let mean = |sum: f64| (sums.weight > 0.0).then(|| sum / sums.weight);
        Ok(Scores {
            // Higher is better: what is no number is the lowest.
            poisson: mean(-sums.poisson).filter(|_| self.counts).map(|x| -limitless::worst(x)),
            rmse: mean(sums.squared).map(|x| limitless::worst(x.sqrt())),
            mae: mean(sums.absolute).map(limitless::worst),
        })
    }

    /// The mean that a prediction stands for; `cell` counts in C order.
    fn mean(&self, y: f64, cell: usize) -> f64 {
        if !self.loss.is_odds() {
            return y;
        }
        let sides: Vec<f64> =
            self.sides.iter().map(|side| side.get(cell).copied().unwrap_or(1.0)).collect();
        // Odds that overflowed are certainty.
        let share = if y.is_finite() { y / (1.0 + y) } else { 1.0 };
        self.loss.domain().trials(&sides).unwrap_or(1.0) * share
    }

    /// Cells with a role of their own each: ŷ is formed block by block, in C order.
    fn grid(&self, shapes: &Shapes, factors: &[ArrayD<f64>]) -> Result<Vec<Sums>> {
        let data = self.data;
        let Some(roles) = data.roles() else { return Ok(Vec::new()) };
        let shape = data.shape();
        let keys = data.coordinates().map(|list| list.keys());
        let strides = match &keys {
            Some(_) => c_strides(shape),
            None => data.values().strides().to_vec(),
        };
        let c = c_strides(shape);
        let score = |block: &[Range<usize>]| -> Result<Sums> {
            let predicted =
                Predictions::new(shapes, factors, None).block(block, shapes.model().output())?;
            let run = block.last().map_or(1, Range::len);
            let step = strides.last().copied().unwrap_or(1);
            let mut held_out = vec![0.0; run];
            let mut values = vec![0.0; run];
            let mut weights = vec![1.0; run];
            let mut sums = Sums::default();
            let mut index: Vec<usize> = block.iter().map(|range| range.start).collect();
            for row in predicted.chunks(run.max(1)) {
                let place = |strides: &[usize]| -> usize {
                    index.iter().zip(strides).map(|(i, s)| i * s).sum()
                };
                let (offset, cell) = (place(&strides), place(&c));
                roles.indicator(pulp::Scalar::new(), Role::HeldOut, offset, step, &mut held_out);
                if held_out.iter().any(|&h| h != 0.0) {
                    match (&keys, data.coordinates()) {
                        (Some(keys), Some(list)) => {
                            values.fill(0.0);
                            let from = keys.partition_point(|&key| key < cell as u64);
                            let inside =
                                keys[from..].iter().take_while(|&&key| key < (cell + run) as u64);
                            for (i, &key) in inside.enumerate() {
                                values[key as usize - cell] =
                                    list.values().get(from + i).unwrap_or(0.0);
                            }
                        }
                        _ => data.values().load(offset, step, &mut values),
                    }
                    if let Some(all) = data.weights() {
                        all.load(offset, step, &mut weights);
                    }
                    for (i, &y) in row.iter().enumerate() {
                        if held_out[i] != 0.0 {
                            sums.cell(self, weights[i], values[i], self.mean(y, cell + i));
                        }
                    }
                }
                // To the next row of the block.
                for mode in (0..index.len().saturating_sub(1)).rev() {
                    index[mode] += 1;
                    if index[mode] < block[mode].end {
                        break;
                    }
                    index[mode] = block[mode].start;
                }
            }
            Ok(sums)
        };
        let blocks = blocks(shape);
        let parts: Result<Vec<Sums>> = blocks.par_iter().map(|block| score(block)).collect();
        data.check()?;
        parts
    }

    /// Cells of a list: ŷ is formed at those that are held out.
    fn listed(&self, shapes: &Shapes, factors: &[ArrayD<f64>]) -> Result<Vec<Sums>> {
        // The rest makes no difference where there is one list only.
        let sparse = self.data.list(Implicit::Missing);
        let list = sparse.list();
        let cells: Vec<usize> =
            (0..list.len()).filter(|&i| sparse.role(i) == Role::HeldOut).collect();
        let c = c_strides(self.data.shape());
        cells
            .par_chunks(BATCH)
            .map(|batch| {
                let index = |mode: usize| -> Vec<usize> {
                    let of = |&i: &usize| list.indices()[mode].get(i).unwrap_or(0) as usize;
                    batch.iter().map(of).collect()
                };
                let indices: Vec<Vec<usize>> = (0..list.shape().len()).map(index).collect();
                let predicted = predict_at(shapes, factors, &indices)?;
                let mut sums = Sums::default();
                for (n, (&i, &y)) in batch.iter().zip(&predicted).enumerate() {
                    let cell = indices
                        .iter()
                        .zip(&c)
                        .fold(0usize, |at, (mode, &s)| at.wrapping_add(mode[n].wrapping_mul(s)));
                    let x = list.values().get(i).unwrap_or(0.0);
                    sums.cell(self, 1.0, x, self.mean(y, cell));
                }
                Ok(sums)
            })
            .collect()
    }
}

/// The distances of neighbours in C order. They wrap around for tensors of more cells than there are
/// numbers, which have no side values.
fn c_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for mode in (1..shape.len()).rev() {
        strides[mode - 1] = strides[mode].wrapping_mul(shape[mode]);
    }
    strides
}

/// Blocks of at most [`BLOCK`] cells that make up all of a tensor, in C order.
fn blocks(shape: &[usize]) -> Vec<Vec<Range<usize>>> {
    // Modes before the cut are walked over index by index, the one at the cut in ranges.
    let mut inner = 1usize;
    let mut cut = shape.len().saturating_sub(1);
    while cut > 0 && inner.saturating_mul(shape[cut]) <= BLOCK {
        inner *= shape[cut];
        cut -= 1;
    }
    let mut all: Vec<Vec<Range<usize>>> = vec![Vec::new()];
    for (mode, &n) in shape.iter().enumerate() {
        let step = match mode.cmp(&cut) {
            std::cmp::Ordering::Less => 1,
            std::cmp::Ordering::Equal => (BLOCK / inner).max(1),
            std::cmp::Ordering::Greater => n.max(1),
        };
        let starts: Vec<usize> = (0..n).step_by(step).collect();
        all = all
            .into_iter()
            .flat_map(|block| {
                starts.iter().map(move |&from| {
                    let mut block = block.clone();
                    block.push(from..n.min(from + step));
                    block
                })
            })
            .collect();
    }
    all
}

/// ŷ at some cells, whose indices are given mode by mode.
fn predict_at(
    shapes: &Shapes,
    factors: &[ArrayD<f64>],
    indices: &[Vec<usize>],
) -> Result<Vec<f64>> {
    let model = shapes.model();
    let count = indices.first().map_or(0, Vec::len);
    if count == 0 {
        return Ok(Vec::new());
    }
    // A model of its own, whose only mode counts the cells.
    let used = model.latent();
    let free =
        ('A'..='Z').chain('a'..='z').find(|&c| Index::new(c).is_some_and(|x| !used.contains(x)));
    // Some letter is a mode of the data, and not latent.
    let Some(cell) = free else { return Err(Error::Unsupported("a model without modes".into())) };
    let mode = |x: &Index| model.output().iter().position(|y| y == x);
    let mut names = Vec::new();
    let mut data = Vec::new();
    for (factor, letters) in factors.iter().zip(model.factors()) {
        let observed: Vec<(usize, usize)> =
            letters.iter().enumerate().filter_map(|(a, x)| Some((a, mode(x)?))).collect();
        let mut name: String =
            letters.iter().filter(|x| mode(x).is_none()).map(|&x| char::from(x)).collect();
        if observed.is_empty() {
            data.push(factor.iter().copied().collect());
            names.push(name);
            continue;
        }
        name.insert(0, cell);
        let mut rows = Vec::new();
        (0..count).for_each(|n| {
            let mut view = factor.view();
            // From the last axis to the first, so that the others keep their numbers.
            for &(axis, mode) in observed.iter().rev() {
                view.index_axis_inplace(Axis(axis), indices[mode][n]);
            }
            rows.extend(view.iter().copied());
        });
        data.push(rows);
        names.push(name);
    }
    let cells = Model::parse(&format!("{}->{cell}", names.join(",")))?;
    let local = Shapes::new(&cells, &[count], &ranks(shapes))?;
    let letters: Vec<&[Index]> = cells.factors().iter().map(Vec::as_slice).collect();
    let plan = Contraction::new(&local, &letters, cells.output());
    let slices: Vec<&[f64]> = data.iter().map(Vec::as_slice).collect();
    contract_within(&local, &plan, &slices)
}

fn ranks(shapes: &Shapes) -> Vec<(char, usize)> {
    shapes.model().latent().iter().map(|x| (x.into(), shapes.size(x))).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::Dimension;

    use super::*;

    #[test]
    fn blocks_cover_every_cell_once_in_order() {
        for shape in [vec![3, 4], vec![7, 1 << 18, 5], vec![1 << 21], vec![5, 1, 1 << 20], vec![1]]
        {
            let mut next = 0;
            let strides = c_strides(&shape);
            for block in blocks(&shape) {
                let cells: usize = block.iter().map(Range::len).product();
                assert!(cells <= BLOCK && cells > 0, "{shape:?}");
                let start: usize = block.iter().zip(&strides).map(|(r, s)| r.start * s).sum();
                assert_eq!(start, next, "{shape:?}");
                next += cells;
            }
            assert_eq!(next, shape.iter().product::<usize>(), "{shape:?}");
        }
    }

    #[test]
    fn predictions_are_those_of_the_reference() -> Result<()> {
        let cases = [
            ("wr,hr,ikr,jkr->whij", vec![4, 3, 5, 6], vec![('r', 3), ('k', 2)]),
            ("ia,jb,kc,abc->ijk", vec![4, 3, 5], vec![('a', 2), ('b', 3), ('c', 2)]),
            ("ij,ja,ia->ija", vec![4, 3, 5], vec![]),
            ("ir,jr->ji", vec![4, 3], vec![('r', 2)]),
        ];
        for (text, shape, given) in cases {
            let model = Model::parse(text)?;
            let shapes = Shapes::new(&model, &shape, &given)?;
            let factors: Vec<ArrayD<f64>> = (0..model.factors().len())
                .map(|l| {
                    let mut n = l as f64;
                    ArrayD::from_shape_simple_fn(shapes.factor(l), || {
                        n += 1.0;
                        (n * 0.7391).sin() + 1.5
                    })
                })
                .collect();
            let all = nneinfact_core::reference::predict(&shapes, &factors);
            let near = |found: f64, expected: f64| (found - expected).abs() < 1e-12 * expected;
            let block: Vec<Range<usize>> = shape.iter().map(|&n| 1..n).collect();
            let found = Predictions::new(&shapes, &factors, None).block(&block, model.output())?;
            let inner = all.indexed_iter().filter(|(at, _)| at.slice().iter().all(|&i| i > 0));
            let expected: Vec<f64> = inner.map(|(_, &y)| y).collect();
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(&expected).all(|(&f, &e)| near(f, e)), "{text}");

            let indices: Vec<Vec<usize>> = shape
                .iter()
                .enumerate()
                .map(|(m, &n)| (0..7).map(|c| (c * (m + 2)) % n).collect())
                .collect();
            for (c, &found) in predict_at(&shapes, &factors, &indices)?.iter().enumerate() {
                let at: Vec<usize> = indices.iter().map(|mode| mode[c]).collect();
                assert!(near(found, all[at.as_slice()]), "{text} {at:?}");
            }
        }
        Ok(())
    }
}
