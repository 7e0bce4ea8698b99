//! Sums of slabs in a fixed binary tree, whoever has the slabs.
//!
//! A node of the tree is a range of slabs; its value is made of those of its two halves, by every process
//! that has one of its slabs. So the order of additions is a function of the number of slabs alone. Where
//! the halves are on different processes, these tell each other their values in pairs (recursive
//! doubling): with P processes a value travels log2 P times.

use std::ops::Range;

use nneinfact_core::engine::Reducer;
use nneinfact_core::error::{Error, Result};

/// Numbers of a slab, or of several together. The first is a status: 0, or that of a process that failed.
pub(super) type Numbers = Vec<f64>;

/// How numbers of two neighbouring ranges of slabs become those of both.
#[derive(Clone, Copy, Debug)]
pub(super) enum Merge<'a> {
    /// So many numbers, added up.
    Add(usize),
    /// One list behind the other, of which every slab has so many numbers.
    Join(&'a [usize]),
}

impl Merge<'_> {
    /// How many numbers a range of slabs has, the status included.
    pub fn length(self, slabs: &Range<usize>) -> usize {
        1 + match self {
            Merge::Add(count) => count,
            Merge::Join(counts) => counts[slabs.clone()].iter().sum(),
        }
    }

    fn merge(self, mut left: Numbers, right: &[f64]) -> Numbers {
        left[0] = left[0].max(right[0]);
        match self {
            Merge::Add(_) => left[1..].iter_mut().zip(&right[1..]).for_each(|(x, y)| *x += y),
            Merge::Join(_) => left.extend(&right[1..]),
        }
        left
    }
}

/// The tree over the slabs of all processes.
pub(super) struct Tree<'a> {
    /// The slabs of each process.
    pub owned: &'a [Range<usize>],
    pub merge: Merge<'a>,
    pub reducer: &'a mut dyn Reducer,
}

impl Tree<'_> {
    /// The numbers of all slabs together, the same on every process, from those of the slabs that this
    /// process has.
    pub fn reduce(&mut self, own: Vec<Numbers>) -> Result<Numbers> {
        let slabs = self.owned.iter().map(|own| own.end).max().unwrap_or(0);
        let mut own = own.into_iter();
        let found = self.node(0..slabs, &mut own)?;
        // Processes without slabs have it from those with some.
        let with = self.owned.iter().filter(|own| !own.is_empty()).count().max(1);
        let all = 0..slabs;
        let mut found = found;
        for idle in with..self.owned.len() {
            found = self.send(idle % with, idle, found, &all)?;
        }
        found.ok_or_else(|| Error::Internal("a process without a sum".into()))
    }

    /// The numbers of a range of slabs; `None` where this process has none of them.
    fn node(
        &mut self,
        slabs: Range<usize>,
        own: &mut impl Iterator<Item = Numbers>,
    ) -> Result<Option<Numbers>> {
        let rank = self.reducer.rank();
        let mine = &self.owned[rank];
        if mine.start >= slabs.end || mine.end <= slabs.start {
            return Ok(None);
        }
        if slabs.len() == 1 {
            return match own.next() {
                Some(numbers) => Ok(Some(numbers)),
                None => Err(Error::Internal("a slab without numbers".into())),
            };
        }
        let (left, right) = halves(&slabs);
        let mut one = self.node(left.clone(), own)?;
        let mut other = self.node(right.clone(), own)?;
        let [having_left, having_right] = [self.having(&left), self.having(&right)];
        // A process in the middle has both.
        let common = having_left.end.saturating_sub(having_right.start);
        let lefts = having_left.start..having_left.end - common;
        let rights = having_right.start + common..having_right.end;
        let rounds = lefts.len().max(rights.len());
        for round in 0..rounds {
            // Of fewer processes some serve several of the other half.
            let pick = |range: &Range<usize>, all: &Range<usize>| match round < range.len() {
                true => (range.start + round, true),
                false => (all.start + round % all.len(), false),
            };
            let ((a, needs_right), (b, needs_left)) =
                (pick(&lefts, &having_left), pick(&rights, &having_right));
            if rank == a {
                let sent = if needs_left { one.as_deref().unwrap_or(&[]) } else { &[] };
                let mut got = vec![0.0; if needs_right { self.merge.length(&right) } else { 0 }];
                self.reducer.exchange(b, sent, &mut got)?;
                other = if needs_right { Some(got) } else { other };
            } else if rank == b {
                let sent = if needs_right { other.as_deref().unwrap_or(&[]) } else { &[] };
                let mut got = vec![0.0; if needs_left { self.merge.length(&left) } else { 0 }];
                self.reducer.exchange(a, sent, &mut got)?;
                one = if needs_left { Some(got) } else { one };
            }
        }
        match (one, other) {
            (Some(one), Some(other)) => Ok(Some(self.merge.merge(one, &other))),
            _ => Err(Error::Internal("half of a sum is missing".into())),
        }
    }

    /// The processes that have some of these slabs.
    fn having(&self, slabs: &Range<usize>) -> Range<usize> {
        let has = |own: &Range<usize>| own.start < slabs.end && own.end > slabs.start;
        let first = self.owned.iter().position(has).unwrap_or(0);
        first..first + self.owned[first..].iter().take_while(|own| has(own)).count()
    }

    /// Gives the numbers of these slabs from one process to another.
    fn send(
        &mut self,
        from: usize,
        to: usize,
        numbers: Option<Numbers>,
        slabs: &Range<usize>,
    ) -> Result<Option<Numbers>> {
        let rank = self.reducer.rank();
        if rank == from {
            self.reducer.exchange(to, numbers.as_deref().unwrap_or(&[]), &mut [])?;
        } else if rank == to {
            let mut got = vec![0.0; self.merge.length(slabs)];
            self.reducer.exchange(from, &[], &mut got)?;
            return Ok(Some(got));
        }
        Ok(numbers)
    }
}

/// The halves of a range of slabs from the root down: the left one is the largest power of two below its
/// length.
fn halves(slabs: &Range<usize>) -> (Range<usize>, Range<usize>) {
    let middle = slabs.start + slabs.len().div_ceil(2).next_power_of_two();
    (slabs.start..middle, middle..slabs.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_left_half_is_the_largest_power_of_two() {
        for (n, left) in [(2, 1), (3, 2), (4, 2), (5, 4), (6, 4), (7, 4), (8, 4), (9, 8), (16, 8)] {
            assert_eq!(halves(&(3..3 + n)), (3..3 + left, 3 + left..3 + n), "{n}");
        }
    }
}
