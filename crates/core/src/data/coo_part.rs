//! The entries of a list with some of the indices along a mode.

use std::ops::Range;

use super::coo::{CooBuilder, CooTensor, Indices};
use super::storage::StorageBuilder;
use crate::error::{Error, Result};
use crate::parallel;

impl CooTensor {
    /// The entries with these indices along a mode, which counts from the first of them.
    pub(super) fn slab(&self, mode: usize, range: Range<usize>) -> CooTensor {
        let first = range.start as u64;
        let inside =
            |i: &usize| self.indices[mode].get(*i).is_some_and(|x| range.contains(&(x as usize)));
        let parts = parallel::map(self.len().div_ceil(parallel::ENTRIES), &|part| -> Vec<usize> {
            let first = part * parallel::ENTRIES;
            (first..self.len().min(first + parallel::ENTRIES)).filter(inside).collect()
        });
        let kept = parts.concat();
        let mut shape = self.shape.clone();
        shape[mode] = range.len();
        let mut indices = Vec::with_capacity(shape.len());
        for (other, (list, &n)) in self.indices.iter().zip(&shape).enumerate() {
            let base = if other == mode { first } else { 0 };
            let index = |i: usize| list.get(kept[i]).unwrap_or(0) - base;
            indices.push(match u32::try_from(n) {
                Ok(_) => Indices::U32(parallel::entries(kept.len(), |i| index(i) as u32)),
                Err(_) => Indices::U64(parallel::entries(kept.len(), index)),
            });
        }
        let mut values = StorageBuilder::new(kept.len());
        for block in kept.chunks(4096) {
            let all: Vec<f64> = block.iter().map(|&i| self.values.get(i).unwrap_or(0.0)).collect();
            values.push(&all);
        }
        CooTensor { shape, indices, values: values.finish(), duplicates: 0 }
    }

    /// The entries with an index in `range` along a mode, which counts from the first of them; the mode has one
    /// index, and no entry, where the range is empty, as no mode has none. Where these are all entries they
    /// stay where they are in memory.
    ///
    /// ```
    /// use nneinfact::data::CooTensor;
    ///
    /// let list = CooTensor::new(&[9, 3], &[vec![4, 5, 5], vec![2, 0, 1]], &[5.0, 1.0, 4.0])?;
    /// let part = list.into_part(0, 4..8)?;
    /// assert_eq!((part.shape(), part.get(&[1, 1])), (&[4, 3][..], Some(4.0)));
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where the mode does not have these indices.
    pub fn into_part(mut self, mode: usize, range: Range<usize>) -> Result<CooTensor> {
        let length = self.shape.get(mode).copied().unwrap_or(0);
        if range.start > range.end || range.end > length || length == 0 {
            return Err(Error::Shape {
                what: format!("a part of the coordinates along mode {}", mode + 1),
                found: format!("indices {range:?}"),
                expected: format!("indices of the shape {:?}", self.shape),
            });
        }
        if range.is_empty() {
            self.shape[mode] = 1;
            let builder = CooBuilder::new(self.shape.len());
            return builder.finish(Some(&self.shape));
        }
        let inside = |&index: &u64| range.contains(&(index as usize));
        let (short, all) = match &self.indices[mode] {
            Indices::U32(v) => (true, v.iter().all(|&index| inside(&index.into()))),
            Indices::U64(v) => (false, v.iter().all(inside)),
        };
        // As short as the part allows, and so are the values.
        if !all || short != u32::try_from(range.len()).is_ok() {
            return Ok(self.slab(mode, range));
        }
        self.indices[mode].shift(range.start as u64);
        self.shape[mode] = range.len();
        self.duplicates = 0;
        Ok(self)
    }
}

impl Indices {
    /// Takes the same off every index; none is less.
    fn shift(&mut self, by: u64) {
        match self {
            Indices::U32(v) => v.iter_mut().for_each(|index| *index -= by as u32),
            Indices::U64(v) => v.iter_mut().for_each(|index| *index -= by),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 × 7 × 4, with an entry at every third place.
    fn list() -> CooTensor {
        let places: Vec<u64> = (0..560).step_by(3).collect();
        let of = |f: fn(u64) -> u64| places.iter().map(|&at| f(at)).collect::<Vec<u64>>();
        let indices = [of(|at| at / 28), of(|at| at / 4 % 7), of(|at| at % 4)];
        let values: Vec<f64> = places.iter().map(|&at| if at < 300 { 2.0 } else { 0.5 }).collect();
        CooTensor::new(&[20, 7, 4], &indices, &values).unwrap()
    }

    #[test]
    fn parts_have_the_entries_of_slabs() {
        for mode in 0..3 {
            for range in [0..2, 1..3, 3..4] {
                let part = list().into_part(mode, range.clone()).unwrap();
                assert_eq!(part, list().slab(mode, range));
            }
            let whole = list().shape()[mode];
            assert_eq!(list().into_part(mode, 0..whole).unwrap(), list());
            let none = list().into_part(mode, 2..2).unwrap();
            assert_eq!((none.len(), none.shape()[mode]), (0, 1));
            let error = list().into_part(mode, 2..whole + 1).unwrap_err().to_string();
            assert!(error.contains(&format!("along mode {}", mode + 1)), "{error}");
        }
        assert!(list().into_part(3, 0..1).is_err());
    }

    #[test]
    fn entries_that_are_all_in_the_part_stay_where_they_are() {
        let place = |list: &CooTensor| match &list.indices[1] {
            Indices::U32(v) => v.as_ptr() as usize,
            Indices::U64(v) => v.as_ptr() as usize,
        };
        let own = list().slab(0, 4..9);
        // The share of a process, with the indices of the whole.
        let shape = [20, 7, 4];
        let of = |mode: usize, by: u64| -> Vec<u64> {
            (0..own.len()).map(|i| own.indices[mode].get(i).unwrap() + by).collect()
        };
        let values: Vec<f64> = (0..own.len()).map(|i| own.values.get(i).unwrap()).collect();
        let share = CooTensor::new(&shape, &[of(0, 4), of(1, 0), of(2, 0)], &values).unwrap();
        let before = place(&share);
        let part = share.into_part(0, 4..9).unwrap();
        assert_eq!(place(&part), before);
        assert_eq!(part, own);
        // A mode that is too long for 32 bits is not, once it is cut.
        let long =
            CooTensor::new(&[1 << 40, 2], &[vec![1 << 35, 1 << 35], vec![0, 1]], &[1.0, 2.0]);
        let part = long.unwrap().into_part(0, 1 << 35..(1 << 35) + 3).unwrap();
        assert_eq!(part.indices[0], Indices::U32(vec![0, 0]));
    }
}
