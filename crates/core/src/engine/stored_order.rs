//! Stored entries in the order in which a sparse pass goes over them, for every engine.

use crate::data::{Dense, Role, StoredEntries};
use crate::model::{Index, Shapes};
use crate::parallel;
use nneinfact_simd::Elementwise;

/// Which of the stored entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredPart {
    /// Those that the factors are fitted to.
    Train,
    /// The masked ones: missing and withheld entries.
    Masked,
}

/// A part of the stored entries, sorted by a row of the output, so that a row's sums stay together,
/// and in C order within a row.
pub struct StoredOrder<'a> {
    shapes: &'a Shapes,
    stored: &'a StoredEntries,
    /// The places of the entries among all stored ones.
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
        stored: &'a StoredEntries,
        part: StoredPart,
        rows: &[Index],
    ) -> StoredOrder<'a> {
        let chosen: Option<Vec<u32>> = stored.roles().map(|roles| {
            let wanted = |role: Role| (role == Role::Train) == (part == StoredPart::Train);
            (0..roles.len()).filter(|&i| wanted(roles[i])).map(|i| i as u32).collect()
        });
        let count = match (&chosen, part) {
            (Some(chosen), _) => chosen.len(),
            (None, StoredPart::Train) => stored.entries().len(),
            (None, StoredPart::Masked) => 0,
        };
        let entry = |i: usize| chosen.as_ref().map_or(i, |c| c[i] as usize);
        let key = |i: usize| number(shapes, stored, rows, entry(i)) << 32 | i as u64;
        let mut order: Vec<u64> = parallel::entries(count, key);
        parallel::sort(&mut order);

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
        let places = parallel::entries(count, |i| place(&order[i]));
        StoredOrder { shapes, stored, places, rows: found, starts }
    }

    /// The row of every entry in a table whose rows these indices number.
    pub fn rows_of(&self, indices: &[Index]) -> Vec<u32> {
        let row = |&place: &u32| number(self.shapes, self.stored, indices, place as usize) as u32;
        parallel::entries(self.places.len(), |i| row(&self.places[i]))
    }

    /// The value of every entry, times `scale`.
    pub fn values<T: Elementwise>(&self, scale: f64) -> Vec<T> {
        let values = self.stored.entries().values();
        let value = |&place: &u32| values.get(place as usize).unwrap_or(0.0) * scale;
        parallel::entries(self.places.len(), |i| T::from_f64(value(&self.places[i])))
    }

    /// What an entry parameter in C order holds at every entry.
    pub fn entry_parameter<T: Elementwise>(&self, side: &Dense) -> Vec<T> {
        let output = self.shapes.model().output();
        let value = |&place: &u32| {
            let linear = number(self.shapes, self.stored, output, place as usize) as usize;
            T::from_f64(side.storage().get(linear).unwrap_or(1.0))
        };
        parallel::entries(self.places.len(), |i| value(&self.places[i]))
    }

    /// The weight of every entry in the loss of its role, where some are not 1.
    pub fn weights<T: Elementwise>(&self) -> Option<Vec<T>> {
        let weight = |&place: &u32| T::from_f64(self.stored.weight(place as usize));
        let all = || parallel::entries(self.places.len(), |i| weight(&self.places[i]));
        self.stored.is_weighted().then(all)
    }

    /// The role of every entry.
    pub fn roles(&self) -> Vec<Role> {
        self.places.iter().map(|&place| self.stored.role(place as usize)).collect()
    }
}

/// The number that these indices make of the place of a stored entry, the last running fastest.
fn number(shapes: &Shapes, stored: &StoredEntries, indices: &[Index], place: usize) -> u64 {
    indices.iter().fold(0, |row, &x| {
        let mode = shapes.model().output().iter().position(|&y| y == x).unwrap_or(0);
        let index = stored.entries().indices()[mode].get(place).unwrap_or(0);
        row * shapes.size(x) as u64 + index
    })
}
