//! ŷ of a model with its factors: in blocks, at stored entries, with some modes fixed, and its sums.

use std::ops::Range;

use ndarray::{ArrayD, Axis, IxDyn, Slice};
use rayon::prelude::*;

use nneinfact_core::algebra::{contract, contract_within};
use nneinfact_core::data::CooTensor;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::memory::available_memory;
use nneinfact_core::model::{Index, Model, Shapes};
use nneinfact_core::plan::Contraction;

/// The predictions ŷ of a model: its factors, and the weights beside normalised ones.
#[derive(Clone, Copy, Debug)]
pub struct Predictions<'a> {
    shapes: &'a Shapes,
    factors: &'a [ArrayD<f64>],
    /// Over all latent indices, in the order of the set.
    weights: Option<&'a ArrayD<f64>>,
}

impl<'a> Predictions<'a> {
    /// The predictions of factors, in the model's order and of the model's sizes.
    #[must_use]
    pub fn new(
        shapes: &'a Shapes,
        factors: &'a [ArrayD<f64>],
        weights: Option<&'a ArrayD<f64>>,
    ) -> Predictions<'a> {
        Predictions { shapes, factors, weights }
    }

    /// The model with its sizes.
    #[must_use]
    pub fn shapes(&self) -> &'a Shapes {
        self.shapes
    }

    /// ŷ over a block of entries (a range for each mode of the data), with its axes in the order of
    /// `order`, a permutation of the model's output.
    ///
    /// # Errors
    /// [`Error::Memory`] where the products on the way do not fit in memory.
    pub fn block(&self, ranges: &[Range<usize>], order: &[Index]) -> Result<Vec<f64>> {
        let model = self.shapes.model();
        let shape: Vec<usize> = ranges.iter().map(Range::len).collect();
        let local = Shapes::new(model, &shape, &self.ranks())?;
        let parts: Vec<ArrayD<f64>> = self
            .factors
            .iter()
            .zip(model.factors())
            .map(|(factor, indices)| {
                let mut view = factor.view();
                for (axis, index) in indices.iter().enumerate() {
                    if let Some(mode) = model.output().iter().position(|x| x == index) {
                        view.slice_axis_inplace(Axis(axis), Slice::from(ranges[mode].clone()));
                    }
                }
                view.to_owned()
            })
            .collect();
        Predictions::new(&local, &parts, self.weights).contracted(order, contract_within)
    }

    /// Folds ŷ over all entries of the data, block by block: `each` takes a block and ŷ there, with its
    /// axes in the order of `blocks`, on several threads; `add` takes what comes of it, block after block
    /// in their order, so that sums do not depend on the number of threads.
    ///
    /// # Errors
    /// As [`block`](Self::block), and what `each` returns.
    pub fn fold_blocks<T: Send>(
        &self,
        blocks: &Blocks,
        each: impl Fn(&[Range<usize>], &[f64]) -> Result<T> + Sync,
        mut add: impl FnMut(&[Range<usize>], T),
    ) -> Result<()> {
        let output = self.shapes.model().output();
        let order: Vec<Index> = blocks.axes.iter().map(|&axis| output[axis]).collect();
        let part = |block: &Vec<Range<usize>>| each(block, &self.block(block, &order)?);
        // A few at a time, so that the parts are added in their order without keeping all of them.
        for batch in blocks.blocks.chunks(AT_ONCE) {
            let parts: Vec<Result<T>> = batch.par_iter().map(part).collect();
            for (block, part) in batch.iter().zip(parts) {
                add(block, part?);
            }
        }
        Ok(())
    }

    /// Folds ŷ over some of the entries of a list, which are given by their places in it, a batch at a
    /// time: `each` takes the places, the indices mode by mode, and ŷ; `add` takes what comes of it, batch
    /// after batch in their order.
    ///
    /// # Errors
    /// As [`at`](Self::at).
    pub fn fold_stored<T: Send>(
        &self,
        list: &CooTensor,
        places: &[usize],
        each: impl Fn(&[usize], &[Vec<usize>], &[f64]) -> T + Sync,
        add: impl FnMut(T),
    ) -> Result<()> {
        let part = |batch: &[usize]| -> Result<T> {
            let index = |mode: usize| -> Vec<usize> {
                let of = |&i: &usize| list.indices()[mode].get(i).unwrap_or(0) as usize;
                batch.iter().map(of).collect()
            };
            let indices: Vec<Vec<usize>> = (0..list.shape().len()).map(index).collect();
            let predicted = self.at(&indices)?;
            Ok(each(batch, &indices, &predicted))
        };
        let parts: Result<Vec<T>> = places.par_chunks(BATCH).map(part).collect();
        parts?.into_iter().for_each(add);
        Ok(())
    }

    /// ŷ at single entries, whose indices are given mode by mode.
    ///
    /// # Errors
    /// [`Error::Shape`] where there is not a list for each mode, all of one length, with indices that are
    /// there; [`Error::Memory`] where the products on the way do not fit in memory;
    /// [`Error::Unsupported`] for factors beside weights.
    pub fn at(&self, indices: &[Vec<usize>]) -> Result<Vec<f64>> {
        if self.weights.is_some() {
            return Err(Error::Unsupported("single entries of ŷ beside weights".into()));
        }
        let model = self.shapes.model();
        let count = indices.first().map_or(0, Vec::len);
        let sizes = self.shapes.data();
        let inside = |(list, &size): (&Vec<usize>, &usize)| {
            list.len() == count && list.iter().all(|&i| i < size)
        };
        if indices.len() != sizes.len() || !indices.iter().zip(&sizes).all(inside) {
            return Err(Error::Shape {
                what: "the indices of single entries".into(),
                found: format!("{} lists, or an index outside", indices.len()),
                expected: format!("a list for each mode of {sizes:?}, all of one length"),
            });
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        // A model of its own, whose only mode counts the entries.
        let used = model.latent();
        let free = ('A'..='Z')
            .chain('a'..='z')
            .find(|&c| Index::new(c).is_some_and(|x| !used.contains(x)));
        // Some letter is a mode of the data, and not latent.
        let Some(entry) = free else {
            return Err(Error::Unsupported("a model without modes".into()));
        };
        let mode = |x: &Index| model.output().iter().position(|y| y == x);
        let mut names = Vec::new();
        let mut data = Vec::new();
        for (factor, own) in self.factors.iter().zip(model.factors()) {
            let observed: Vec<(usize, usize)> =
                own.iter().enumerate().filter_map(|(a, x)| Some((a, mode(x)?))).collect();
            let mut name: String =
                own.iter().filter(|x| mode(x).is_none()).map(|&x| char::from(x)).collect();
            if observed.is_empty() {
                data.push(factor.iter().copied().collect());
                names.push(name);
                continue;
            }
            name.insert(0, entry);
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
        let entries = Model::parse(&format!("{}->{entry}", names.join(",")))?;
        let local = Shapes::new(&entries, &[count], &self.ranks())?;
        let factors: Vec<&[Index]> = entries.factors().iter().map(Vec::as_slice).collect();
        let plan = Contraction::new(&local, &factors, entries.output());
        let slices: Vec<&[f64]> = data.iter().map(Vec::as_slice).collect();
        contract_within(&local, &plan, &slices)
    }

    /// ŷ with some modes fixed: `Some(i)` takes index `i` of a mode, `None` the whole of it. The
    /// result has the modes that are `None`, in the order of the data.
    ///
    /// # Errors
    /// [`Error::Shape`] where the index does not fit the data; [`Error::Memory`] where the result
    /// would not fit in memory.
    pub fn slice(&self, fixed: &[Option<usize>]) -> Result<ArrayD<f64>> {
        self.check_index(fixed)?;
        let slicing = Slicing::new(self, fixed);
        let sizes = self.shapes.sizes(slicing.plan.output());
        let needed = 8.0 * sizes.iter().map(|&n| n as f64).product::<f64>();
        if let Some(available) = available_memory()
            && needed > available as f64
        {
            return Err(Error::Memory {
                what: "the reconstruction".into(),
                needed: needed as u64,
                available,
                help: "reconstruct slices of it, or predict single entries".into(),
            });
        }
        let result = slicing.at(self, fixed)?;
        ArrayD::from_shape_vec(IxDyn(&sizes), result).map_err(|e| Error::Shape {
            what: "the reconstruction".into(),
            found: e.to_string(),
            expected: format!("{sizes:?}"),
        })
    }

    /// ŷ at many entries, each by its index, as [`slice`](Self::slice) gives it at each of them.
    ///
    /// # Errors
    /// [`Error::Shape`] where an index is not one of the data.
    pub fn slices_of_one(&self, indices: &[Vec<usize>]) -> Result<Vec<f64>> {
        let plan = Slicing::new(self, &vec![Some(0); self.shapes.model().output().len()]);
        let predict = |index: &Vec<usize>| -> Result<f64> {
            let fixed: Vec<Option<usize>> = index.iter().map(|&i| Some(i)).collect();
            self.check_index(&fixed)?;
            Ok(plan.at(self, &fixed)?.first().copied().unwrap_or(0.0))
        };
        indices.iter().map(predict).collect()
    }

    /// The sums of the terms of ŷ over all indices but these, in C order of these: with a latent
    /// index its component weights, with the index of a mode the totals of ŷ along it.
    #[must_use]
    pub fn totals(&self, indices: &[Index]) -> Vec<f64> {
        self.contracted(indices, contract)
    }

    /// The sums of ŷ² over all modes but these, in C order of these; `None` where the alphabet has no
    /// letters left for that, or the products on the way do not fit in memory.
    #[must_use]
    pub fn totals_of_squares(&self, indices: &[Index]) -> Option<Vec<f64>> {
        let (shapes, pairs) = self.shapes.doubled()?;
        let other = |x: Index| pairs.iter().find(|(y, _)| *y == x).map_or(x, |pair| pair.1);
        let (names, data) = self.tensors();
        let twin: Vec<Vec<Index>> =
            names.iter().map(|n| n.iter().map(|&x| other(x)).collect()).collect();
        let all: Vec<&[Index]> = names.iter().chain(&twin).map(Vec::as_slice).collect();
        let views: Vec<&[f64]> = data.iter().chain(&data).map(Vec::as_slice).collect();
        contract_within(&shapes, &Contraction::new(&shapes, &all, indices), &views).ok()
    }

    fn ranks(&self) -> Vec<(char, usize)> {
        let latent = self.shapes.model().latent();
        latent.iter().map(|x| (x.into(), self.shapes.size(x))).collect()
    }

    /// The factors, and the weights where there are any: their indices, and their entries in C order.
    fn tensors(&self) -> (Vec<Vec<Index>>, Vec<Vec<f64>>) {
        let model = self.shapes.model();
        let mut indices: Vec<Vec<Index>> = model.factors().to_vec();
        let mut data: Vec<Vec<f64>> =
            self.factors.iter().map(|f| f.iter().copied().collect()).collect();
        if let Some(weights) = self.weights {
            indices.push(model.latent().iter().collect());
            data.push(weights.iter().copied().collect());
        }
        (indices, data)
    }

    /// Contracts all tensors of ŷ onto some indices.
    fn contracted<T>(
        &self,
        output: &[Index],
        contract: impl FnOnce(&Shapes, &Contraction, &[&[f64]]) -> T,
    ) -> T {
        let (indices, data) = self.tensors();
        let indices: Vec<&[Index]> = indices.iter().map(Vec::as_slice).collect();
        let views: Vec<&[f64]> = data.iter().map(Vec::as_slice).collect();
        contract(self.shapes, &Contraction::new(self.shapes, &indices, output), &views)
    }

    /// Refuses what is no index of the data.
    fn check_index(&self, fixed: &[Option<usize>]) -> Result<()> {
        let shape = self.shapes.data();
        let inside = |(i, &n): (&Option<usize>, &usize)| i.is_none_or(|i| i < n);
        if fixed.len() == shape.len() && fixed.iter().zip(&shape).all(inside) {
            return Ok(());
        }
        let found: Vec<String> =
            fixed.iter().map(|i| i.map_or("all".into(), |i| i.to_string())).collect();
        Err(Error::Shape {
            what: "the index".into(),
            found: format!("[{}]", found.join(", ")),
            expected: format!("{} indices inside the data's shape {shape:?}", shape.len()),
        })
    }
}

/// Entries of a block of ŷ, at most.
const BLOCK: usize = 1 << 19;
/// Blocks that are folded at once.
const AT_ONCE: usize = 16;
/// Stored entries whose ŷ are formed at a time.
const BATCH: usize = 1 << 12;

/// Blocks of entries that make up all of a tensor: a few hundred thousand entries each, one after the
/// other in the order of some of its axes.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// From the slowest to the fastest.
    axes: Vec<usize>,
    blocks: Vec<Vec<Range<usize>>>,
}

impl Blocks {
    /// Blocks in C order.
    #[must_use]
    pub fn in_c_order(shape: &[usize]) -> Blocks {
        Blocks::along(shape, (0..shape.len()).collect())
    }

    /// Blocks whose entries lie in memory without gaps, where a tensor without gaps has these strides.
    #[must_use]
    pub fn in_memory_order(shape: &[usize], strides: &[usize]) -> Blocks {
        let mut axes: Vec<usize> = (0..shape.len()).collect();
        axes.sort_by_key(|&axis| (std::cmp::Reverse(strides[axis]), shape[axis] > 1, axis));
        Blocks::along(shape, axes)
    }

    fn along(shape: &[usize], axes: Vec<usize>) -> Blocks {
        let volume =
            |p: usize| axes[p..].iter().map(|&axis| shape[axis]).fold(1, usize::saturating_mul);
        // The first axis that is cut, so that what is inside of one of its indices is small enough.
        let last = axes.len().saturating_sub(1);
        let cut = (0..axes.len()).find(|&p| volume(p + 1) <= BLOCK).unwrap_or(last);
        let step = (BLOCK / volume((cut + 1).min(axes.len())).max(1)).max(1);
        let mut blocks = vec![shape.iter().map(|&n| 0..n).collect::<Vec<_>>()];
        for (p, &axis) in axes.iter().enumerate().take(cut + 1) {
            let step = if p == cut { step } else { 1 };
            blocks = blocks
                .into_iter()
                .flat_map(|block| {
                    (0..shape[axis]).step_by(step).map(move |start| {
                        let mut block = block.clone();
                        block[axis] = start..(start + step).min(block[axis].end);
                        block
                    })
                })
                .collect();
        }
        Blocks { axes, blocks }
    }

    /// The axes, from the slowest to the fastest.
    #[must_use]
    pub fn axes(&self) -> &[usize] {
        &self.axes
    }

    /// Goes to the next index inside of a block whose axes have these lengths.
    pub fn advance(&self, index: &mut [usize], sizes: &[usize]) {
        Blocks::step(index, sizes, &self.axes);
    }

    /// Goes to the next run along the fastest axis of a block whose axes have these lengths.
    pub fn advance_run(&self, index: &mut [usize], sizes: &[usize]) {
        Blocks::step(index, sizes, &self.axes[..self.axes.len().saturating_sub(1)]);
    }

    fn step(index: &mut [usize], sizes: &[usize], axes: &[usize]) {
        for &axis in axes.iter().rev() {
            index[axis] += 1;
            if index[axis] < sizes[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

/// How ŷ is computed where the same modes are fixed, whatever they are fixed at.
struct Slicing {
    plan: Contraction,
    /// For each axis of each factor, the mode that fixes it.
    axes: Vec<Vec<Option<usize>>>,
    weights: Option<Vec<f64>>,
}

impl Slicing {
    /// `fixed` has an entry for each mode of the data.
    fn new(of: &Predictions<'_>, fixed: &[Option<usize>]) -> Slicing {
        let model = of.shapes.model();
        let modes = model.output().iter().zip(fixed).enumerate();
        let fixed: Vec<(Index, usize)> =
            modes.filter(|(_, (_, i))| i.is_some()).map(|(mode, (&x, _))| (x, mode)).collect();
        let mode = |x: Index| fixed.iter().find(|(y, _)| *y == x).map(|&(_, mode)| mode);
        let keep = |indices: &[Index]| -> Vec<Index> {
            indices.iter().copied().filter(|&x| mode(x).is_none()).collect()
        };
        let mut indices: Vec<Vec<Index>> = model.factors().iter().map(|x| keep(x)).collect();
        if of.weights.is_some() {
            indices.push(model.latent().iter().collect());
        }
        let views: Vec<&[Index]> = indices.iter().map(Vec::as_slice).collect();
        Slicing {
            plan: Contraction::new(of.shapes, &views, &keep(model.output())),
            axes: model.factors().iter().map(|x| x.iter().map(|&x| mode(x)).collect()).collect(),
            weights: of.weights.map(|w| w.iter().copied().collect()),
        }
    }

    /// ŷ at these indices of the fixed modes, which are inside the data.
    fn at(&self, of: &Predictions<'_>, fixed: &[Option<usize>]) -> Result<Vec<f64>> {
        let slice = |(factor, axes): (&ArrayD<f64>, &Vec<Option<usize>>)| -> Vec<f64> {
            let mut view = factor.view();
            // From the last axis to the first, so that the others keep their numbers.
            for (axis, mode) in axes.iter().enumerate().rev() {
                if let Some(i) = mode.and_then(|mode| fixed[mode]) {
                    view.index_axis_inplace(Axis(axis), i);
                }
            }
            view.iter().copied().collect()
        };
        let data: Vec<Vec<f64>> = of.factors.iter().zip(&self.axes).map(slice).collect();
        let slices: Vec<&[f64]> = data.iter().chain(&self.weights).map(Vec::as_slice).collect();
        contract_within(of.shapes, &self.plan, &slices)
    }
}

/// The sum of ŷ over all entries of the data, from factors in C order.
///
/// # Errors
/// [`Error::Memory`] where the products of factors on the way do not fit in memory.
pub(crate) fn total(shapes: &Shapes, factors: &[Vec<f64>]) -> Result<f64> {
    let indices: Vec<&[Index]> = shapes.model().factors().iter().map(Vec::as_slice).collect();
    let views: Vec<&[f64]> = factors.iter().map(Vec::as_slice).collect();
    let sum = contract_within(shapes, &Contraction::new(shapes, &indices, &[]), &views)?;
    Ok(sum.first().copied().unwrap_or(0.0))
}

/// The mean of ŷ over all entries of the data.
///
/// # Errors
/// As [`total`].
pub(crate) fn mean(shapes: &Shapes, factors: &[ArrayD<f64>]) -> Result<f64> {
    let data: Vec<Vec<f64>> = factors.iter().map(|f| f.iter().copied().collect()).collect();
    Ok(total(shapes, &data)? / shapes.volume(shapes.model().observed()))
}

#[cfg(test)]
mod tests {
    use ndarray::Dimension;

    use super::*;

    #[test]
    fn blocks_cover_every_entry_once_in_order() {
        for shape in [vec![3, 4], vec![7, 1 << 18, 5], vec![1 << 21], vec![5, 1, 1 << 20], vec![1]]
        {
            let mut next = 0;
            let mut strides = vec![1; shape.len()];
            for mode in (1..shape.len()).rev() {
                strides[mode - 1] = strides[mode] * shape[mode];
            }
            for block in Blocks::in_c_order(&shape).blocks {
                let entries: usize = block.iter().map(Range::len).product();
                assert!(entries <= BLOCK && entries > 0, "{shape:?}");
                let start: usize = block.iter().zip(&strides).map(|(r, s)| r.start * s).sum();
                assert_eq!(start, next, "{shape:?}");
                next += entries;
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
            let predictions = Predictions::new(&shapes, &factors, None);
            let found = predictions.block(&block, model.output())?;
            let inner = all.indexed_iter().filter(|(at, _)| at.slice().iter().all(|&i| i > 0));
            let expected: Vec<f64> = inner.map(|(_, &y)| y).collect();
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(&expected).all(|(&f, &e)| near(f, e)), "{text}");

            let indices: Vec<Vec<usize>> = shape
                .iter()
                .enumerate()
                .map(|(m, &n)| (0..7).map(|c| (c * (m + 2)) % n).collect())
                .collect();
            for (c, &found) in predictions.at(&indices)?.iter().enumerate() {
                let at: Vec<usize> = indices.iter().map(|mode| mode[c]).collect();
                assert!(near(found, all[at.as_slice()]), "{text} {at:?}");
            }
        }
        Ok(())
    }
}
