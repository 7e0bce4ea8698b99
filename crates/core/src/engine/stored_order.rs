//! A list of entries in the order in which a pass over it goes, for every engine.

use rayon::prelude::*;

use crate::data::{Dense, Role, StoredEntries};
use crate::model::{Index, Shapes};
use nneinfact_simd::Elementwise;

/// Which entries of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredPart {
    /// Those that the factors are fitted to.
    Train,
    /// The others: missing and withheld ones.
    Masked,
}

/// The entries of a part of a list sorted by a row of the target, so that a row's sums stay together,
/// and in C order within a row.
pub struct StoredOrder<'a> {
    shapes: &'a Shapes,
    list: &'a StoredEntries,
    /// The places of the entries in the list.
    places: Vec<u32>,
    /// The rows that have entries, in order.
    pub rows: Vec<u32>,
    /// Where the entries of each of them start, and where the last ends.
    pub starts: Vec<usize>,
}

impl<'a> StoredOrder<'a> {
    /// Sorts by the row that these observed indices number, the last running fastest.
    pub fn new(
        shapes: &'a Shapes,
        list: &'a StoredEntries,
        part: StoredPart,
        rows: &[Index],
    ) -> StoredOrder<'a> {
        let chosen: Option<Vec<u32>> = list.roles().map(|roles| {
            let wanted = |role: Role| (role == Role::Train) == (part == StoredPart::Train);
            (0..roles.len()).filter(|&i| wanted(roles[i])).map(|i| i as u32).collect()
        });
        let count = match (&chosen, part) {
            (Some(chosen), _) => chosen.len(),
            (None, StoredPart::Train) => list.entries().len(),
            (None, StoredPart::Masked) => 0,
        };
        let entry = |i: usize| chosen.as_ref().map_or(i, |c| c[i] as usize);
        let mut order: Vec<u64> = (0..count)
            .into_par_iter()
            .map(|i| number(shapes, list, rows, entry(i)) << 32 | i as u64)
            .collect();
        order.par_sort_unstable();

        let mut found = Vec::new();
        let mut starts = Vec::new();
        for (i, &key) in order.iter().enumerate() {
            let row = (key >> 32) as u32;
            if found.last() != Some(&row) {
                found.push(row);
                starts.push(i);
            }
        }
        starts.push(count);
        let place = |key: &u64| entry((key & 0xffff_ffff) as usize) as u32;
        let places = order.par_iter().map(place).collect();
        StoredOrder { shapes, list, places, rows: found, starts }
    }

    /// The row of every entry in a table whose rows these indices number.
    pub fn rows_of(&self, indices: &[Index]) -> Vec<u32> {
        let row = |&place: &u32| number(self.shapes, self.list, indices, place as usize) as u32;
        self.places.par_iter().map(row).collect()
    }

    /// The value of every entry, times `scale`.
    pub fn values<T: Elementwise>(&self, scale: f64) -> Vec<T> {
        let values = self.list.entries().values();
        let value = |&place: &u32| values.get(place as usize).unwrap_or(0.0) * scale;
        self.places.par_iter().map(|place| T::from_f64(value(place))).collect()
    }

    /// What a side tensor in C order holds at every entry.
    pub fn entry_parameter<T: Elementwise>(&self, side: &Dense) -> Vec<T> {
        let output = self.shapes.model().output();
        let value = |&place: &u32| {
            let linear = number(self.shapes, self.list, output, place as usize) as usize;
            T::from_f64(side.storage().get(linear).unwrap_or(1.0))
        };
        self.places.par_iter().map(value).collect()
    }

    /// The role of every entry.
    pub fn roles(&self) -> Vec<Role> {
        self.places.iter().map(|&place| self.list.role(place as usize)).collect()
    }
}

/// The number that these indices make of a listed entry's indices, the last running fastest.
fn number(shapes: &Shapes, list: &StoredEntries, indices: &[Index], place: usize) -> u64 {
    indices.iter().fold(0, |row, &x| {
        let mode = shapes.model().output().iter().position(|&y| y == x).unwrap_or(0);
        let index = list.entries().indices()[mode].get(place).unwrap_or(0);
        row * shapes.size(x) as u64 + index
    })
}
