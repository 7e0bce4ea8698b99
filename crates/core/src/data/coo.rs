//! A tensor as the list of its entries.

use rayon::prelude::*;

use super::storage::StorageBuilder;
use super::{Dense, Element, Storage};
use crate::error::{Error, Result};

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
    shape: Vec<usize>,
    indices: Vec<Indices>,
    values: Storage,
    duplicates: u64,
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

    fn push(&mut self, index: u64) {
        match self {
            Indices::U64(v) => v.push(index),
            Indices::U32(v) => match u32::try_from(index) {
                Ok(index) => v.push(index),
                Err(_) => {
                    let mut wide: Vec<u64> = v.iter().map(|&x| x.into()).collect();
                    wide.push(index);
                    *self = Indices::U64(wide);
                }
            },
        }
    }

    /// Multiplies every key by the length of the mode and adds the index.
    fn append_to<K: Key>(&self, keys: &mut [(K, f64)], length: u64) {
        let length = K::from(length);
        let append = |(key, index): (&mut (K, f64), u64)| key.0 = key.0 * length + K::from(index);
        match self {
            Indices::U32(v) => {
                keys.par_iter_mut().zip(v).map(|(k, &i)| (k, i.into())).for_each(append);
            }
            Indices::U64(v) => keys.par_iter_mut().zip(v).map(|(k, &i)| (k, i)).for_each(append),
        }
    }
}

/// The indices of all entries along one mode, counted from 0, in a type that others keep them in.
#[derive(Clone, Copy, Debug)]
pub enum Column<'a> {
    /// 32 bits, with a sign.
    I32(&'a [i32]),
    /// 64 bits, with a sign.
    I64(&'a [i64]),
    /// 32 bits.
    U32(&'a [u32]),
    /// 64 bits.
    U64(&'a [u64]),
}

impl Column<'_> {
    fn len(self) -> usize {
        match self {
            Column::I32(v) => v.len(),
            Column::I64(v) => v.len(),
            Column::U32(v) => v.len(),
            Column::U64(v) => v.len(),
        }
    }

    /// The least index, where one is negative (else 0), and the largest.
    fn extremes(self) -> (i64, u64) {
        fn signed<T: Copy + Into<i64> + Sync>(list: &[T]) -> (i64, u64) {
            let both = |a: (i64, i64), b: (i64, i64)| (a.0.min(b.0), a.1.max(b.1));
            let (least, largest) =
                list.par_iter().map(|&i| (i.into(), i.into())).reduce(|| (0, 0), both);
            (least, largest.max(0) as u64)
        }
        fn unsigned<T: Copy + Into<u64> + Sync>(list: &[T]) -> (i64, u64) {
            (0, list.par_iter().map(|&i| i.into()).max().unwrap_or(0))
        }
        match self {
            Column::I32(v) => signed(v),
            Column::I64(v) => signed(v),
            Column::U32(v) => unsigned(v),
            Column::U64(v) => unsigned(v),
        }
    }

    /// As [`Indices::append_to`]; no index is negative.
    fn append_to<K: Key>(self, keys: &mut [(K, f64)], length: u64) {
        let length = K::from(length);
        let append = |(key, index): (&mut (K, f64), u64)| key.0 = key.0 * length + K::from(index);
        let keys = keys.par_iter_mut();
        match self {
            Column::I32(v) => keys.zip(v).map(|(k, &i)| (k, i as u64)).for_each(append),
            Column::I64(v) => keys.zip(v).map(|(k, &i)| (k, i as u64)).for_each(append),
            Column::U32(v) => keys.zip(v).map(|(k, &i)| (k, i.into())).for_each(append),
            Column::U64(v) => keys.zip(v).map(|(k, &i)| (k, i)).for_each(append),
        }
    }
}

/// A linear C index, wide enough for the shape.
trait Key:
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
    /// The key of a single mode.
    fn low(self) -> u64;
}

impl Key for u64 {
    fn low(self) -> u64 {
        self
    }
}

impl Key for u128 {
    fn low(self) -> u64 {
        self as u64
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
            list.iter().for_each(|&i| to.push(i));
        }
        for (max, list) in builder.max.iter_mut().zip(indices) {
            *max = list.iter().copied().max().unwrap_or(0);
        }
        builder.values.extend_from_slice(values);
        builder.finish(Some(shape))
    }

    /// As [`new`](Self::new), from columns and values in the types that their owner keeps them in: nothing
    /// is copied but into the sorted entries. Without a shape, every mode is as long as its largest
    /// index asks for.
    ///
    /// ```
    /// use nneinfact::data::{Column, CooTensor};
    ///
    /// let (i, j) = ([1i32, 0, 1], [2i64, 1, 2]);
    /// let columns = [Column::I32(&i), Column::I64(&j)];
    /// let list = CooTensor::from_columns(Some(&[2, 3]), &columns, &[5.0f32, 1.0, 4.0])?;
    /// assert_eq!((list.len(), list.duplicates()), (2, 1));
    /// let error = CooTensor::from_columns(None, &[Column::I32(&[0, -1])], &[1u8, 2]).unwrap_err();
    /// assert!(error.to_string().contains("index -1"), "{error}");
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::Shape`] also where an index is negative.
    pub fn from_columns<T: Element>(
        shape: Option<&[usize]>,
        columns: &[Column<'_>],
        values: &[T],
    ) -> Result<CooTensor> {
        let mut max = Vec::with_capacity(columns.len());
        for (mode, column) in columns.iter().enumerate() {
            if column.len() != values.len() {
                return Err(wrong_length(mode, column.len(), values.len()));
            }
            let (least, largest) = column.extremes();
            if least < 0 {
                return Err(Error::Shape {
                    what: "the coordinates".into(),
                    found: format!("index {least} along mode {}", mode + 1),
                    expected: "indices that count from 0".into(),
                });
            }
            max.push(largest);
        }
        let shape = checked_shape(shape, &max, values.is_empty())?;
        match volume(&shape) {
            Some(all) if u64::try_from(all).is_ok() => {
                Ok(gathered::<u64, T>(shape, columns, values))
            }
            Some(_) => Ok(gathered::<u128, T>(shape, columns, values)),
            None => Err(too_large(&shape)),
        }
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
            match list {
                Indices::U32(v) => keys
                    .par_iter_mut()
                    .zip(v)
                    .for_each(|(k, &i)| *k = k.wrapping_mul(n).wrapping_add(i.into())),
                Indices::U64(v) => keys
                    .par_iter_mut()
                    .zip(v)
                    .for_each(|(k, &i)| *k = k.wrapping_mul(n).wrapping_add(i)),
            }
        }
        keys
    }

    /// From indices in C order, sorted and each there once, that lie inside the shape.
    pub(super) fn from_keys(shape: &[usize], mut keys: Vec<u64>, values: Storage) -> CooTensor {
        let mut indices = Vec::with_capacity(shape.len());
        for &n in shape.iter().rev() {
            let n = (n as u64).max(1);
            let split = |key: &mut u64| {
                let index = *key % n;
                *key /= n;
                index
            };
            indices.push(if u32::try_from(n).is_ok() {
                Indices::U32(keys.par_iter_mut().map(|k| split(k) as u32).collect())
            } else {
                Indices::U64(keys.par_iter_mut().map(split).collect())
            });
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
                    "the dense form of the coordinates (shape {:?}, {} entries)",
                    self.shape,
                    self.len()
                ),
                needed: needed.unwrap_or(u64::MAX),
                available: limit,
                help: "a tensor with smaller modes, or a higher limit, would fit".into(),
            });
        };
        let storage = match &self.values {
            Storage::U8(v) => Storage::U8(self.scatter(v, volume)),
            Storage::U16(v) => Storage::U16(self.scatter(v, volume)),
            Storage::U32(v) => Storage::U32(self.scatter(v, volume)),
            Storage::F32(v) => Storage::F32(self.scatter(v, volume)),
            Storage::F64(v) => Storage::F64(self.scatter(v, volume)),
            Storage::Mapped(mapped) => {
                let mut values = vec![0.0; mapped.len()];
                mapped.load(0, 1, &mut values);
                Storage::F64(self.scatter(&values, volume))
            }
        };
        Dense::from_storage(&self.shape, storage)
    }

    fn scatter<A: Copy + Default>(&self, values: &[A], volume: usize) -> Vec<A> {
        let mut all = vec![A::default(); volume];
        for (i, &value) in values.iter().enumerate() {
            let place = self.indices.iter().zip(&self.shape).fold(0usize, |place, (list, &n)| {
                // Every list has an index for every value, below the length of its mode.
                place * n + list.get(i).unwrap_or(0) as usize
            });
            all[place] = value;
        }
        all
    }
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

    /// Appends an entry; `index` counts from 0.
    ///
    /// # Errors
    /// [`Error::Shape`] where the number of indices is not that of the modes.
    pub fn push(&mut self, index: &[u64], value: f64) -> Result<()> {
        if index.len() != self.indices.len() {
            return Err(Error::Shape {
                what: "the index of an entry".into(),
                found: format!("{} modes", index.len()),
                expected: format!("{}", self.indices.len()),
            });
        }
        for ((list, max), &i) in self.indices.iter_mut().zip(&mut self.max).zip(index) {
            list.push(i);
            *max = (*max).max(i);
        }
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

    /// Sorts the entries and sums duplicates. Without a shape, every mode is as long as its
    /// largest index asks for.
    ///
    /// # Errors
    /// [`Error::Shape`] where an index is not below the length of its mode, a mode is empty, the
    /// number of modes differs, or the shape has more than 2¹²⁸ entries.
    pub fn finish(self, shape: Option<&[usize]>) -> Result<CooTensor> {
        let shape = checked_shape(shape, &self.max, self.values.is_empty())?;
        match volume(&shape) {
            Some(all) if u64::try_from(all).is_ok() => Ok(self.gathered::<u64>(shape)),
            Some(_) => Ok(self.gathered::<u128>(shape)),
            None => Err(too_large(&shape)),
        }
    }

    fn gathered<K: Key>(self, shape: Vec<usize>) -> CooTensor {
        let mut entries: Vec<(K, f64)> =
            self.values.iter().map(|&value| (K::from(0), value)).collect();
        drop(self.values);
        for (list, &n) in self.indices.into_iter().zip(&shape) {
            list.append_to(&mut entries, n as u64);
        }
        sorted(shape, entries)
    }
}

fn wrong_length(mode: usize, found: usize, expected: usize) -> Error {
    Error::Shape {
        what: format!("the list of indices of mode {}", mode + 1),
        found: format!("{found} entries"),
        expected: format!("{expected}, as many as there are values"),
    }
}

fn too_large(shape: &[usize]) -> Error {
    Error::Shape {
        what: "the coordinates".into(),
        found: format!("{shape:?}"),
        expected: "a shape of at most 2^128 entries".into(),
    }
}

/// The number of entries, where 128 bits hold it.
fn volume(shape: &[usize]) -> Option<u128> {
    shape.iter().try_fold(1u128, |volume, &n| volume.checked_mul(n as u128))
}

/// The shape, or that which the largest indices ask for; an error where they do not go together.
fn checked_shape(shape: Option<&[usize]>, max: &[u64], no_entries: bool) -> Result<Vec<usize>> {
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

/// Entries of columns, none of which is longer or shorter than the values.
fn gathered<K: Key, T: Element>(
    shape: Vec<usize>,
    columns: &[Column<'_>],
    values: &[T],
) -> CooTensor {
    let mut entries: Vec<(K, f64)> =
        values.par_iter().map(|value| (K::from(0), value.to_f64())).collect();
    for (column, &n) in columns.iter().zip(&shape) {
        column.append_to(&mut entries, n as u64);
    }
    sorted(shape, entries)
}

/// Sorts entries by their keys, and sums duplicates.
fn sorted<K: Key>(shape: Vec<usize>, mut entries: Vec<(K, f64)>) -> CooTensor {
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
        indices.push(if u32::try_from(n).is_ok() {
            Indices::U32(entries.par_iter_mut().map(|e| split(e) as u32).collect())
        } else {
            Indices::U64(entries.par_iter_mut().map(split).collect())
        });
    }
    indices.reverse();
    CooTensor { shape, indices, values: values.finish(), duplicates }
}
