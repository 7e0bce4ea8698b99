//! ŷ in blocks, and at stored entries, folded into sums.

use std::ops::Range;

use ndarray::{ArrayD, Axis, Slice};

use super::FactoredTensor;
use super::network::contracted;
use nneinfact_core::algebra::contract_within;
use nneinfact_core::data::CooTensor;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::parallel;

impl FactoredTensor {
    /// ŷ over a block of entries (a range for each mode of the data), with its axes in the order of
    /// `order`, a permutation of the model's output.
    ///
    /// # Errors
    /// [`Error::Memory`] where the products on the way do not fit in
    /// memory; [`Error::Shape`] where the block is not one of the data,
    /// [`Error::Setting`] where the order is none of its modes.
    pub fn block(&self, ranges: &[Range<usize>], order: &[Index]) -> Result<Vec<f64>> {
        let model = self.model();
        self.check_block(ranges, order)?;
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
        contracted(&local, &parts, self.weights.as_ref(), order, contract_within)
    }

    fn check_block(&self, ranges: &[Range<usize>], order: &[Index]) -> Result<()> {
        let shape = self.shapes.data();
        let inside =
            |(range, &n): (&Range<usize>, &usize)| range.start < range.end && range.end <= n;
        if ranges.len() != shape.len() || !ranges.iter().zip(&shape).all(inside) {
            return Err(Error::Shape {
                what: "the block".into(),
                found: format!("{ranges:?}"),
                expected: format!("{} ranges inside the data's shape {shape:?}", shape.len()),
            });
        }
        let output = self.model().output();
        if order.len() != output.len() || !output.iter().all(|x| order.contains(x)) {
            return Err(Error::Setting(format!(
                "the axes of a block are a permutation of {output:?}, not {order:?}"
            )));
        }
        Ok(())
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
        let output = self.model().output();
        let order: Vec<Index> = blocks.axes.iter().map(|&axis| output[axis]).collect();
        let part = |block: &Vec<Range<usize>>| each(block, &self.block(block, &order)?);
        // A few at a time, so that the parts are added in their order without keeping all of them.
        for batch in blocks.blocks.chunks(AT_ONCE) {
            let parts = parallel::map(batch.len(), &|n| part(&batch[n]));
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
        let batches: Vec<&[usize]> = places.chunks(BATCH).collect();
        let parts: Result<Vec<T>> =
            parallel::map(batches.len(), &|n| part(batches[n])).into_iter().collect();
        parts?.into_iter().for_each(add);
        Ok(())
    }

    pub(super) fn ranks(&self) -> Vec<(char, usize)> {
        let latent = self.model().latent();
        latent.iter().map(|x| (x.into(), self.shapes.size(x))).collect()
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

#[cfg(test)]
mod tests {
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
}
