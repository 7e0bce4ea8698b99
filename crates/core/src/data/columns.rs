//! Coordinates from the columns of others, as they lie in memory.

use super::coo::{LinearIndex, checked_shape, crowded, sorted, too_large, volume, wrong_length};
use super::{CooTensor, Element};
use crate::error::{Error, Result};
use crate::parallel;

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
            let parts = of_parts(list, &|part| {
                part.iter().map(|&i| (i.into(), i.into())).fold((0, 0), both)
            });
            let (least, largest) = parts.into_iter().fold((0, 0), both);
            (least, largest.max(0) as u64)
        }
        fn unsigned<T: Copy + Into<u64> + Sync>(list: &[T]) -> (i64, u64) {
            let largest = |part: &[T]| part.iter().map(|&i| i.into()).max().unwrap_or(0);
            (0, of_parts(list, &largest).into_iter().max().unwrap_or(0))
        }
        fn of_parts<T: Sync, S: Send>(list: &[T], of: &(dyn Fn(&[T]) -> S + Sync)) -> Vec<S> {
            let parts: Vec<&[T]> = list.chunks(parallel::ENTRIES).collect();
            parallel::map(parts.len(), &|n| of(parts[n]))
        }
        match self {
            Column::I32(v) => signed(v),
            Column::I64(v) => signed(v),
            Column::U32(v) => unsigned(v),
            Column::U64(v) => unsigned(v),
        }
    }

    /// As [`Indices::append_to`]; no index is negative.
    fn append_to<K: LinearIndex>(self, keys: &mut [(K, f64)], length: u64) {
        let length = K::from(length);
        let append = |(key, index): (&mut (K, f64), u64)| key.0 = key.0 * length + K::from(index);
        parallel::chunks(keys, parallel::ENTRIES, &|first, keys| {
            let keys = keys.iter_mut();
            match self {
                Column::I32(v) => {
                    keys.zip(&v[first..]).map(|(k, &i)| (k, i as u64)).for_each(append)
                }
                Column::I64(v) => {
                    keys.zip(&v[first..]).map(|(k, &i)| (k, i as u64)).for_each(append)
                }
                Column::U32(v) => {
                    keys.zip(&v[first..]).map(|(k, &i)| (k, i.into())).for_each(append)
                }
                Column::U64(v) => keys.zip(&v[first..]).map(|(k, &i)| (k, i)).for_each(append),
            }
        });
    }
}

impl CooTensor {
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
            Some(all) if u64::try_from(all).is_ok() => gathered::<u64, T>(shape, columns, values),
            Some(_) => gathered::<u128, T>(shape, columns, values),
            None => Err(too_large(&shape)),
        }
    }
}

/// Entries of columns, none of which is longer or shorter than the values.
fn gathered<K: LinearIndex, T: Element>(
    shape: Vec<usize>,
    columns: &[Column<'_>],
    values: &[T],
) -> Result<CooTensor> {
    let mut entries: Vec<(K, f64)> = Vec::new();
    entries.try_reserve_exact(values.len()).map_err(|_| crowded(values.len()))?;
    entries.resize(values.len(), (K::from(0), 0.0));
    parallel::chunks(&mut entries, parallel::ENTRIES, &|first, entries| {
        entries.iter_mut().zip(&values[first..]).for_each(|(to, value)| to.1 = value.to_f64());
    });
    for (column, &n) in columns.iter().zip(&shape) {
        column.append_to(&mut entries, n as u64);
    }
    Ok(sorted(shape, entries))
}
