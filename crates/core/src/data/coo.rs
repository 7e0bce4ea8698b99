//! A tensor as the list of its entries.

use std::collections::TryReserveError;

use rayon::prelude::*;

use super::storage::StorageBuilder;
use super::{Dense, Storage};
use crate::error::{Error, Result};
use crate::memory::{entries, refused, zeros};
use crate::parallel;

/// A tensor as the list of its entries (coordinate format): for every entry an index for each
/// mode, counted from 0, and a value.
///
/// The entries are sorted in C order and no index is there twice: duplicates are summed, and
/// [`CooTensor::duplicates`] says how many there were. Explicit zeros are kept.
///
/// ```
/// use nneinfact::data::CooTensor;
///
/// let list = CooTensor::new(&[2, 3], &[vec![1, 0, 1], vec![2, 1, 2]], &[5.0, 1.0, 4.0])?;
/// assert_eq!((list.len(), list.duplicates()), (2, 1));
/// let tensor = list.to_dense(1_000_000)?;
/// assert_eq!(tensor.get(&[1, 2]), Some(9.0));
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CooTensor {
    pub(super) shape: Vec<usize>,
    pub(super) indices: Vec<Indices>,
    pub(super) values: Storage,
    pub(super) duplicates: u64,
}

/// The indices of all entries along one mode, counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Indices {
    /// For modes of up to 2³² − 1.
    U32(Vec<u32>),
    /// For longer modes.
    U64(Vec<u64>),
}

impl Indices {
    /// The index of entry `i`, or `None` where there is none.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<u64> {
        match self {
            Indices::U32(v) => v.get(i).map(|&x| x.into()),
            Indices::U64(v) => v.get(i).copied(),
        }
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Indices::U32(v) => v.len(),
            Indices::U64(v) => v.len(),
        }
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&mut self, index: u64) -> Result<(), TryReserveError> {
        match self {
            Indices::U64(v) => {
                v.try_reserve(1)?;
                v.push(index);
            }
            Indices::U32(v) => match u32::try_from(index) {
                Ok(index) => {
                    v.try_reserve(1)?;
                    v.push(index);
                }
                Err(_) => {
                    let mut wide: Vec<u64> = Vec::new();
                    wide.try_reserve(v.len() + 1)?;
                    wide.extend(v.iter().map(|&x| u64::from(x)));
                    wide.push(index);
                    *self = Indices::U64(wide);
                }
            },
        }
        Ok(())
    }

    /// Multiplies every key by the length of the mode and adds the index.
    fn append_to<K: LinearIndex>(&self, keys: &mut [(K, f64)], length: u64) {
        let length = K::from(length);
        self.onto(keys, |key, index| key.0 = key.0 * length + K::from(index));
    }

    /// Calls `append` with every key and its index.
    fn onto<K: Send>(&self, keys: &mut [K], append: impl Fn(&mut K, u64) + Sync) {
        parallel::chunks(keys, parallel::ENTRIES, &|first, keys| {
            let keys = keys.iter_mut();
            match self {
                Indices::U32(v) => {
                    keys.zip(&v[first..]).for_each(|(key, &index)| append(key, index.into()));
                }
                Indices::U64(v) => {
                    keys.zip(&v[first..]).for_each(|(key, &index)| append(key, index));
                }
            }
        });
    }
}

/// A linear C index, wide enough for the shape: `u64`, or `u128` for the largest tensors, of which only
/// lists can be kept.
pub(super) trait LinearIndex:
    Copy
    + Ord
    + Send
    + Sync
    + From<u64>
    + std::ops::Mul<Output = Self>
    + std::ops::Add<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Rem<Output = Self>
{
    /// Of an index along a single mode, or into something that is in memory, all of it.
    fn low(self) -> u64;

    /// What random numbers are drawn by.
    fn folded(self) -> u64;

    /// The same in 128 bits.
    fn wide(self) -> u128;
}

impl LinearIndex for u64 {
    fn low(self) -> u64 {
        self
    }

    fn folded(self) -> u64 {
        self
    }

    fn wide(self) -> u128 {
        self.into()
    }
}

impl LinearIndex for u128 {
    fn low(self) -> u64 {
        self as u64
    }

    fn folded(self) -> u64 {
        self as u64 ^ ((self >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn wide(self) -> u128 {
        self
    }
}

impl CooTensor {
    /// The tensor of this shape with these entries: one list of indices (counted from 0) for each
    /// mode, all as long as `values`, in any order.
    ///
    /// # Errors
    /// [`Error::Shape`] where the number of lists is not that of the modes, lists differ in
    /// length, an index is not below the length of its mode, a mode is empty, or the shape has
    /// more than 2¹²⁸ entries.
    pub fn new(shape: &[usize], indices: &[Vec<u64>], values: &[f64]) -> Result<CooTensor> {
        if indices.len() != shape.len() {
            return Err(Error::Shape {
                what: "the coordinates".into(),
                found: format!("{} lists of indices", indices.len()),
                expected: format!("{}, one for each mode of the shape {shape:?}", shape.len()),
            });
        }
        if let Some(mode) = indices.iter().position(|list| list.len() != values.len()) {
            return Err(wrong_length(mode, indices[mode].len(), values.len()));
        }
        let mut builder = CooBuilder::new(shape.len());
        for (to, list) in builder.indices.iter_mut().zip(indices) {
            list.iter().try_for_each(|&i| to.push(i)).map_err(|_| crowded(values.len()))?;
        }
        for (max, list) in builder.max.iter_mut().zip(indices) {
            *max = list.iter().copied().max().unwrap_or(0);
        }
        builder.values.extend_from_slice(values);
        builder.finish(Some(shape))
    }

    /// The length of each mode.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The indices, one list for each mode.
    #[must_use]
    pub fn indices(&self) -> &[Indices] {
        &self.indices
    }

    /// The value of an entry, where it is stored.
    #[must_use]
    pub fn get(&self, index: &[usize]) -> Option<f64> {
        let order = |i: usize| {
            // Entries are in C order.
            let stored = self.indices.iter().map(|list| list.get(i).unwrap_or(0));
            stored.cmp(index.iter().map(|&i| i as u64))
        };
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from + (to - from) / 2;
            match order(middle) {
                std::cmp::Ordering::Equal => return self.values.get(middle),
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        None
    }

    /// The sum of the squares of the values, in their order.
    pub fn sum_of_squares(&self) -> f64 {
        let mut sum = 0.0;
        self.values.add_squares(0..self.values.len(), &mut sum);
        sum
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> &Storage {
        &self.values
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// How many of the entries given were added to another one of the same index.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// The number of entries of the tensor, stored or not, as a float: it can be beyond any
    /// integer.
    #[must_use]
    pub fn volume(&self) -> f64 {
        self.shape.iter().map(|&n| n as f64).product()
    }

    /// The index of every entry in C order, for shapes of less than 2⁶⁴ entries.
    pub fn keys(&self) -> Vec<u64> {
        let mut keys = vec![0u64; self.len()];
        for (list, &n) in self.indices.iter().zip(&self.shape) {
            let n = n as u64;
            list.onto(&mut keys, |key, index| *key = key.wrapping_mul(n).wrapping_add(index));
        }
        keys
    }

    /// The number of entries of the tensor, stored or not, exactly.
    pub(super) fn exact_volume(&self) -> u128 {
        // A builder refuses shapes of more.
        self.shape.iter().fold(1u128, |all, &n| all.saturating_mul(n as u128))
    }

    /// The linear index of every entry in C order, by integers that hold them.
    pub(super) fn linear<K: LinearIndex>(&self) -> Vec<K> {
        let mut keys = vec![K::from(0); self.len()];
        for (list, &n) in self.indices.iter().zip(&self.shape) {
            let length = K::from(n as u64);
            list.onto(&mut keys, |key, index| *key = *key * length + K::from(index));
        }
        keys
    }

    /// The same indices with other values.
    pub(super) fn with_values(&self, values: Storage) -> CooTensor {
        CooTensor { values, ..self.clone() }
    }

    /// From indices in C order, sorted and each there once, that lie inside the shape.
    pub(super) fn from_keys<K: LinearIndex>(
        shape: &[usize],
        mut keys: Vec<K>,
        values: Storage,
    ) -> CooTensor {
        let mut indices = Vec::with_capacity(shape.len());
        for &n in shape.iter().rev() {
            let length = K::from((n as u64).max(1));
            let split = |key: &mut K| {
                let index = (*key % length).low();
                *key = *key / length;
                index
            };
            indices.push(split_off(&mut keys, n, &split));
        }
        indices.reverse();
        CooTensor { shape: shape.to_vec(), indices, values, duplicates: 0 }
    }

    /// The tensor with all its entries, with 0 for those that are not stored, in C order.
    ///
    /// # Errors
    /// [`Error::Memory`] where that takes more than `limit` bytes.
    pub fn to_dense(&self, limit: u64) -> Result<Dense> {
        let each = self.values.kind().bytes() as u64;
        let volume = self.shape.iter().try_fold(1usize, |n, &m| n.checked_mul(m));
        let needed = volume.and_then(|n| each.checked_mul(n as u64));
        let (Some(volume), true) =
            (volume, needed.is_some_and(|n| n <= limit.min(isize::MAX as u64)))
        else {
            return Err(Error::Memory {
                what: format!(
                    "the dense form of the coordinates (shape {:?}, {})",
                    self.shape,
                    entries(self.len() as u64)
                ),
                needed: needed.unwrap_or(u64::MAX),
                available: limit,
                help: "a tensor with smaller modes, or a higher limit, would fit".into(),
            });
        };
        let storage = match &self.values {
            Storage::U8(v) => Storage::U8(self.scatter(v, volume)?),
            Storage::U16(v) => Storage::U16(self.scatter(v, volume)?),
            Storage::U32(v) => Storage::U32(self.scatter(v, volume)?),
            Storage::F32(v) => Storage::F32(self.scatter(v, volume)?),
            Storage::F64(v) => Storage::F64(self.scatter(v, volume)?),
            Storage::Mapped(mapped) => {
                let mut values = vec![0.0; mapped.len()];
                mapped.load(0, 1, &mut values);
                Storage::F64(self.scatter(&values, volume)?)
            }
        };
        Dense::from_storage(&self.shape, storage)
    }

    fn scatter<A: Copy + Default>(&self, values: &[A], volume: usize) -> Result<Vec<A>> {
        let mut all: Vec<A> = zeros(volume, "the dense form of the coordinates")?;
        for (i, &value) in values.iter().enumerate() {
            let place = self.indices.iter().zip(&self.shape).fold(0usize, |place, (list, &n)| {
                // Every list has an index for every value, below the length of its mode.
                place * n + list.get(i).unwrap_or(0) as usize
            });
            all[place] = value;
        }
        Ok(all)
    }
}

/// That there is no memory for more entries than these.
pub(super) fn crowded(entries: usize) -> Error {
    refused("the stored entries", 16 * entries as u64)
}

/// Builds [`CooTensor`] entry by entry.
#[derive(Clone, Debug)]
pub struct CooBuilder {
    indices: Vec<Indices>,
    max: Vec<u64>,
    values: Vec<f64>,
}

impl CooBuilder {
    /// A builder for a tensor with this many modes.
    #[must_use]
    pub fn new(modes: usize) -> CooBuilder {
        CooBuilder {
            indices: vec![Indices::U32(Vec::new()); modes],
            max: vec![0; modes],
            values: Vec::new(),
        }
    }

    /// [`new`](CooBuilder::new) with room for so many entries, so that none is moved while they come.
    ///
    /// # Errors
    /// [`Error::Memory`] where the system refuses the memory.
    pub fn with_room(modes: usize, entries: usize) -> Result<CooBuilder> {
        let mut builder = CooBuilder::new(modes);
        let mut reserved = builder.values.try_reserve_exact(entries);
        for list in &mut builder.indices {
            if let Indices::U32(v) = list {
                reserved = reserved.and_then(|()| v.try_reserve_exact(entries));
            }
        }
        reserved.map_err(|_| crowded(entries))?;
        Ok(builder)
    }

    /// Appends an entry; `index` counts from 0.
    ///
    /// # Errors
    /// [`Error::Shape`] where the number of indices is not that of the modes; [`Error::Memory`] where the
    /// system refuses the memory.
    pub fn push(&mut self, index: &[u64], value: f64) -> Result<()> {
        if index.len() != self.indices.len() {
            return Err(Error::Shape {
                what: "the index of an entry".into(),
                found: format!("{} modes", index.len()),
                expected: format!("{}", self.indices.len()),
            });
        }
        for ((list, max), &i) in self.indices.iter_mut().zip(&mut self.max).zip(index) {
            list.push(i).map_err(|_| crowded(self.values.len()))?;
            *max = (*max).max(i);
        }
        self.values.try_reserve(1).map_err(|_| crowded(self.values.len()))?;
        self.values.push(value);
        Ok(())
    }

    /// The number of entries so far, duplicates included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no entry yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The largest index of each mode so far; 0 where there is no entry.
    #[must_use]
    pub fn largest(&self) -> &[u64] {
        &self.max
    }

    /// The value of the entry that was appended as number `i`, with its index in `index`, an element a mode.
    pub fn entry(&self, i: usize, index: &mut [u64]) -> Option<f64> {
        for (to, list) in index.iter_mut().zip(&self.indices) {
            *to = list.get(i)?;
        }
        self.values.get(i).copied()
    }

    /// Sorts the entries and sums duplicates. Without a shape, every mode is as long as its
    /// largest index asks for.
    ///
    /// # Errors
    /// [`Error::Shape`] where an index is not below the length of its mode, a mode is empty, the
    /// number of modes differs, or the shape has more than 2¹²⁸ entries.
    pub fn finish(self, shape: Option<&[usize]>) -> Result<CooTensor> {
        let shape = checked_shape(shape, &self.max, self.values.is_empty())?;
        match volume(&shape) {
            Some(all) if u64::try_from(all).is_ok() => self.gathered::<u64>(shape),
            Some(_) => self.gathered::<u128>(shape),
            None => Err(too_large(&shape)),
        }
    }

    fn gathered<K: LinearIndex>(self, shape: Vec<usize>) -> Result<CooTensor> {
        let mut entries: Vec<(K, f64)> = Vec::new();
        entries.try_reserve_exact(self.values.len()).map_err(|_| crowded(self.values.len()))?;
        entries.extend(self.values.iter().map(|&value| (K::from(0), value)));
        drop(self.values);
        for (list, &n) in self.indices.into_iter().zip(&shape) {
            list.append_to(&mut entries, n as u64);
        }
        Ok(sorted(shape, entries))
    }
}

pub(super) fn wrong_length(mode: usize, found: usize, expected: usize) -> Error {
    Error::Shape {
        what: format!("the list of indices of mode {}", mode + 1),
        found: entries(found as u64),
        expected: format!("{expected}, as many as there are values"),
    }
}

pub(super) fn too_large(shape: &[usize]) -> Error {
    Error::Shape {
        what: "the coordinates".into(),
        found: format!("{shape:?}"),
        expected: "a shape of at most 2^128 entries".into(),
    }
}

/// The number of entries, where 128 bits hold it.
pub(super) fn volume(shape: &[usize]) -> Option<u128> {
    shape.iter().try_fold(1u128, |volume, &n| volume.checked_mul(n as u128))
}

/// The shape, or that which the largest indices ask for; an error where they do not go together.
pub(super) fn checked_shape(
    shape: Option<&[usize]>,
    max: &[u64],
    no_entries: bool,
) -> Result<Vec<usize>> {
    let what = || "the coordinates".to_string();
    let shape: Vec<usize> = match shape {
        Some(shape) => shape.to_vec(),
        None if no_entries => vec![0; max.len()],
        None => max.iter().map(|&m| (m as usize).saturating_add(1)).collect(),
    };
    if shape.len() != max.len() {
        return Err(Error::Shape {
            what: what(),
            found: format!("indices for {} modes", max.len()),
            expected: format!("{} modes, as the shape {shape:?} has", shape.len()),
        });
    }
    if let Some(mode) = shape.iter().position(|&n| n == 0) {
        return Err(Error::Shape {
            what: what(),
            found: format!("mode {} of length 0", mode + 1),
            expected: "at least 1".into(),
        });
    }
    for (mode, (&max, &n)) in max.iter().zip(&shape).enumerate() {
        if !no_entries && max >= n as u64 {
            return Err(Error::Shape {
                what: what(),
                found: format!("index {max} (counted from 0) along mode {}", mode + 1),
                expected: format!("indices below {n}, as the shape {shape:?} has"),
            });
        }
    }
    Ok(shape)
}

/// Takes the index along the last mode that is left, of length `n`, off every entry.
fn split_off<E: Send>(
    entries: &mut [E],
    n: usize,
    split: &(impl Fn(&mut E) -> u64 + Sync),
) -> Indices {
    let few = parallel::ENTRIES;
    if u32::try_from(n).is_ok() {
        let mut column = vec![0u32; entries.len()];
        parallel::chunks_of_two(entries, &mut column, few, &|_, entries, to| {
            to.iter_mut().zip(entries).for_each(|(to, entry)| *to = split(entry) as u32);
        });
        return Indices::U32(column);
    }
    let mut column = vec![0u64; entries.len()];
    parallel::chunks_of_two(entries, &mut column, few, &|_, entries, to| {
        to.iter_mut().zip(entries).for_each(|(to, entry)| *to = split(entry));
    });
    Indices::U64(column)
}

/// Sorts entries by their keys, and sums duplicates.
pub(super) fn sorted<K: LinearIndex>(shape: Vec<usize>, mut entries: Vec<(K, f64)>) -> CooTensor {
    // Files are usually sorted already. By value too, so that duplicates are always summed
    // in the same order.
    let order = |a: &(K, f64), b: &(K, f64)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
    if !entries.is_sorted_by(|a, b| order(a, b).is_le()) {
        entries.par_sort_unstable_by(order);
    }
    let before = entries.len();
    entries.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    let duplicates = (before - entries.len()) as u64;

    let mut values = StorageBuilder::new(entries.len());
    for block in entries.chunks(4096) {
        values.push(&block.iter().map(|e| e.1).collect::<Vec<f64>>());
    }
    let mut indices = Vec::with_capacity(shape.len());
    for &n in shape.iter().rev() {
        let length = K::from(n as u64);
        let split = |e: &mut (K, f64)| {
            let index = (e.0 % length).low();
            e.0 = e.0 / length;
            index
        };
        indices.push(split_off(&mut entries, n, &split));
    }
    indices.reverse();
    CooTensor { shape, indices, values: values.finish(), duplicates }
}
