//! Memory that passes have done with: what is asked for anew in every pass, the system clears anew.

use nneinfact_core::parallel;

use nneinfact_simd::{Aligned, Elementwise};

/// The tables and sums of earlier passes, whose memory later ones take.
pub(crate) struct SpareMemory<T> {
    tables: Vec<Aligned<T>>,
    sums: Vec<Vec<f64>>,
}

impl<T> Default for SpareMemory<T> {
    fn default() -> SpareMemory<T> {
        SpareMemory { tables: Vec::new(), sums: Vec::new() }
    }
}

/// The most of each that are kept: those of one pass.
const MOST_TABLES: usize = 8;
const MOST_SUMS: usize = 2;

impl<T: Elementwise> SpareMemory<T> {
    /// A table of so many elements, which hold anything.
    pub fn table(&mut self, len: usize) -> Aligned<T> {
        match take_fitting(&mut self.tables, len, Aligned::room) {
            Some(mut table) => {
                table.resize(len);
                table
            }
            None => Aligned::zeros(len),
        }
    }

    /// So many sums, all 0.
    pub fn zeros(&mut self, len: usize) -> Vec<f64> {
        if len == 0 {
            return Vec::new();
        }
        match take_fitting(&mut self.sums, len, Vec::capacity) {
            Some(mut sums) => {
                sums.truncate(len);
                parallel::chunks(&mut sums, parallel::ENTRIES, &|_, sums| sums.fill(0.0));
                sums.resize(len, 0.0);
                sums
            }
            None => vec![0.0; len],
        }
    }

    /// Takes tables that are not needed any more.
    pub fn keep_tables(&mut self, tables: impl Iterator<Item = Aligned<T>>) {
        self.tables.extend(tables);
        keep_largest(&mut self.tables, MOST_TABLES, Aligned::room);
    }

    /// Takes the sums of a pass whose update is made.
    pub fn keep_sums(&mut self, sums: [Vec<f64>; 2]) {
        self.sums.extend(sums);
        keep_largest(&mut self.sums, MOST_SUMS, Vec::capacity);
    }
}

/// The least of some memory that has room for `len`.
fn take_fitting<M>(all: &mut Vec<M>, len: usize, room: impl Fn(&M) -> usize) -> Option<M> {
    let fitting = (0..all.len()).filter(|&i| room(&all[i]) >= len);
    let least = fitting.min_by_key(|&i| room(&all[i]))?;
    Some(all.swap_remove(least))
}

fn keep_largest<M>(all: &mut Vec<M>, most: usize, room: impl Fn(&M) -> usize) {
    all.sort_by_key(|memory| std::cmp::Reverse(room(memory)));
    all.truncate(most);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_held_other_numbers_is_cleared() {
        let mut spare = SpareMemory::<f32>::default();
        let numerator = vec![3.0; 100_000];
        spare.keep_sums([numerator, vec![2.0; 10]]);
        // The smaller is taken where it is enough, and no more is there than what is asked for.
        assert_eq!(spare.zeros(7), [0.0; 7]);
        assert_eq!(spare.zeros(99_000), vec![0.0; 99_000]);
        assert!(spare.sums.is_empty());
    }
}
