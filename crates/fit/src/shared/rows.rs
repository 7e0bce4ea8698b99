//! The rows of a factor that belong to a slab: its indices along the mode that the data are cut along.

use std::ops::Range;

/// A factor in C order seen along one of its axes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    outer: usize,
    length: usize,
    inner: usize,
}

impl Rows {
    pub fn new(shape: &[usize], axis: usize) -> Rows {
        Rows {
            outer: shape[..axis].iter().product(),
            length: shape[axis],
            inner: shape[axis + 1..].iter().product(),
        }
    }

    /// How many entries have one of so many indices.
    pub fn entries(self, indices: usize) -> usize {
        self.outer * indices * self.inner
    }

    /// The entries with these indices, in C order.
    pub fn cut(self, factor: &[f64], range: &Range<usize>) -> Vec<f64> {
        let mut rows = Vec::with_capacity(self.entries(range.len()));
        for block in factor.chunks(self.length * self.inner) {
            rows.extend(&block[range.start * self.inner..range.end * self.inner]);
        }
        rows
    }

    /// The place in the factor of an entry of those with these indices.
    pub fn whole(self, place: usize, range: &Range<usize>) -> u64 {
        let run = range.len() * self.inner;
        (place / run * self.length * self.inner + range.start * self.inner + place % run) as u64
    }

    /// The factor of which each range of indices has its entries in `rows`, one range behind the other.
    pub fn joined(self, rows: &[f64], ranges: &[Range<usize>]) -> Vec<f64> {
        let mut factor = vec![0.0; self.entries(self.length)];
        let mut rest = rows;
        for range in ranges {
            let (own, after) = rest.split_at(self.entries(range.len()));
            rest = after;
            let run = range.len() * self.inner;
            for (outer, from) in own.chunks(run.max(1)).enumerate() {
                let start = (outer * self.length + range.start) * self.inner;
                factor[start..start + run].copy_from_slice(from);
            }
        }
        factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_joined_again() {
        let shape = [3, 7, 2];
        let factor: Vec<f64> = (0..42).map(f64::from).collect();
        for (axis, ranges) in
            [(0, vec![0..1, 1..3]), (1, vec![0..2, 2..3, 3..7]), (2, vec![0..1, 1..2])]
        {
            let rows = Rows::new(&shape, axis);
            let cut: Vec<f64> = ranges.iter().flat_map(|r| rows.cut(&factor, r)).collect();
            assert_eq!(rows.joined(&cut, &ranges), factor, "{axis}");
            for range in &ranges {
                for (place, x) in rows.cut(&factor, range).into_iter().enumerate() {
                    assert_eq!(rows.whole(place, range), x as u64, "{axis}");
                }
            }
        }
        assert_eq!(Rows::new(&shape, 1).cut(&factor, &(2..3)), [4., 5., 18., 19., 32., 33.]);
    }
}
