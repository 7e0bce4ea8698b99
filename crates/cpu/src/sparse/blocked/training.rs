//! The training entries in C order, which the orders of all passes are made from.

use std::borrow::Cow;

use super::compact::{Codes, Values};
use nneinfact_core::data::{Dense, Indices, Role, StoredEntries};
use nneinfact_core::model::{Index, Shapes};
use nneinfact_core::parallel;
use nneinfact_simd::Elementwise;

/// The training entries among the stored ones, in C order, which the orders of all passes are made from.
pub(crate) struct TrainingEntries<'a> {
    pub(super) shapes: &'a Shapes,
    stored: &'a StoredEntries,
    /// Their places among the stored entries; `None` where all are for training.
    places: Option<Vec<u32>>,
    codes: Option<Codes<'a>>,
}

impl<'a> TrainingEntries<'a> {
    pub fn new(shapes: &'a Shapes, stored: &'a StoredEntries) -> TrainingEntries<'a> {
        let trains = |roles: &[Role]| -> Vec<u32> {
            (0..roles.len()).filter(|&i| roles[i] == Role::Train).map(|i| i as u32).collect()
        };
        let places = stored.roles().map(trains);
        let codes = Codes::new(stored.entries().values());
        TrainingEntries { shapes, stored, places, codes }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.as_ref().map_or(self.stored.entries().len(), Vec::len)
    }

    fn place(&self, entry: u32) -> usize {
        self.places.as_ref().map_or(entry, |places| places[entry as usize]) as usize
    }

    /// Something of each entry that is made up of its indices along some modes, the last running fastest.
    fn numbers<N>(&self, indices: &[Index], number: impl Fn(N, u64, u64) -> N + Sync) -> Vec<N>
    where
        N: Copy + Default + Send + Sync,
    {
        let mut numbers = vec![N::default(); self.len()];
        for &x in indices {
            let output = self.shapes.model().output();
            let mode = output.iter().position(|&y| y == x).unwrap_or(0);
            let size = self.shapes.size(x) as u64;
            let column = &self.stored.entries().indices()[mode];
            parallel::chunks(&mut numbers, parallel::ENTRIES, &|first, numbers| {
                let each = numbers.iter_mut();
                match (column, &self.places) {
                    (Indices::U32(column), None) => each
                        .zip(&column[first..])
                        .for_each(|(to, &index)| *to = number(*to, size, index.into())),
                    (Indices::U32(column), Some(places)) => each
                        .zip(&places[first..])
                        .for_each(|(to, &i)| *to = number(*to, size, column[i as usize].into())),
                    (Indices::U64(column), _) => each.zip(first..).for_each(|(to, i)| {
                        *to = number(*to, size, column[self.place(i as u32)]);
                    }),
                }
            });
        }
        numbers
    }

    /// The row of every entry in a table whose rows these indices number.
    pub fn rows(&self, indices: &[Index]) -> Cow<'_, [u32]> {
        if let ([x], None) = (indices, &self.places) {
            let output = self.shapes.model().output();
            let mode = output.iter().position(|y| y == x).unwrap_or(0);
            if let Indices::U32(column) = &self.stored.entries().indices()[mode] {
                return Cow::Borrowed(column);
            }
        }
        let rows = self.numbers(indices, |row: u32, size, index| {
            row.wrapping_mul(size as u32).wrapping_add(index as u32)
        });
        Cow::Owned(rows)
    }

    /// What an entry parameter in C order holds at entries in some order.
    pub fn entry_parameter<T: Elementwise>(&self, order: &[u32], parameter: &Dense) -> Vec<T> {
        let output = self.shapes.model().output();
        let linear = self.numbers(output, |at: u64, size, index| at * size + index);
        let value = |&entry: &u32| {
            let value = parameter.storage().get(linear[entry as usize] as usize);
            T::from_f64(value.unwrap_or(1.0))
        };
        parallel::entries(order.len(), |n| value(&order[n]))
    }

    /// The values of entries in some order, times `scale`.
    pub(super) fn values<T: Elementwise>(&self, order: &[u32], scale: f64) -> Values<T> {
        if let Some(Codes { codes, table }) = &self.codes {
            let mut table: Vec<T> = table.iter().map(|x| T::from_f64(x * scale)).collect();
            if let [same] = table[..] {
                return Values::Same(same);
            }
            table.resize(256, T::ZERO);
            let code = |&entry: &u32| codes[self.place(entry)];
            return Values::Coded(parallel::entries(order.len(), |n| code(&order[n])), table);
        }
        let values = self.stored.entries().values();
        let value = |&entry: &u32| values.get(self.place(entry)).unwrap_or(0.0) * scale;
        Values::Each(parallel::entries(order.len(), |n| T::from_f64(value(&order[n]))))
    }
}
