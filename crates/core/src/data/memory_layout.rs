//! Where the entries of a tensor stand in memory.

/// A shape with the order of its axes in memory, always compact: the entries fill the offsets
/// 0 … len − 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemoryLayout {
    pub shape: Vec<usize>,
    /// In elements.
    pub strides: Vec<usize>,
}

impl MemoryLayout {
    /// The last axis varies fastest. `None` where the number of entries overflows.
    pub fn c(shape: &[usize]) -> Option<MemoryLayout> {
        MemoryLayout::with_axes(shape, &(0..shape.len()).collect::<Vec<_>>())
    }

    /// The first axis varies fastest. `None` where the number of entries overflows.
    pub fn fortran(shape: &[usize]) -> Option<MemoryLayout> {
        MemoryLayout::with_axes(shape, &(0..shape.len()).rev().collect::<Vec<_>>())
    }

    /// `axes` from the slowest to the fastest; a permutation of all.
    fn with_axes(shape: &[usize], axes: &[usize]) -> Option<MemoryLayout> {
        // An axis of length 0 must not hide that the others overflow: strides are formed from
        // them.
        let mut stride = 1usize;
        let mut strides = vec![0; shape.len()];
        for &axis in axes.iter().rev() {
            strides[axis] = stride;
            stride = stride.checked_mul(shape[axis].max(1))?;
        }
        (stride <= isize::MAX as usize).then(|| MemoryLayout { shape: shape.to_vec(), strides })
    }

    /// The layout of an array that is known to be compact, from its strides in elements. Axes of
    /// length 1 can have any stride; they are given the one that makes the layout C or Fortran
    /// order, if it can be either.
    pub fn of_compact(shape: &[usize], strides: &[isize]) -> Option<MemoryLayout> {
        let mut long: Vec<usize> = (0..shape.len()).filter(|&a| shape[a] > 1).collect();
        long.sort_by_key(|&axis| std::cmp::Reverse(strides[axis]));
        if long.is_sorted() {
            MemoryLayout::c(shape)
        } else if long.is_sorted_by(|a, b| a > b) {
            MemoryLayout::fortran(shape)
        } else {
            let short = (0..shape.len()).filter(|&a| shape[a] <= 1);
            MemoryLayout::with_axes(shape, &short.chain(long.iter().copied()).collect::<Vec<_>>())
        }
    }

    /// The layout with an axis of another length, as an array of that shape in this order has it.
    pub fn cut(&self, axis: usize, length: usize) -> MemoryLayout {
        let mut shape = self.shape.clone();
        shape[axis] = length;
        // Shorter than what is there, so that the number of entries does not overflow.
        let cut = MemoryLayout::with_axes(&shape, &self.axes()).unwrap_or_else(|| self.clone());
        let strides: Vec<isize> = cut.strides.iter().map(|&stride| stride as isize).collect();
        MemoryLayout::of_compact(&shape, &strides).unwrap_or(cut)
    }

    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The axes from the slowest to the fastest.
    pub fn axes(&self) -> Vec<usize> {
        let mut axes: Vec<usize> = (0..self.shape.len()).collect();
        axes.sort_by_key(|&axis| (std::cmp::Reverse(self.strides[axis]), axis));
        // Axes of length 1 share the stride of a neighbour, and their order does not matter.
        axes
    }

    pub fn is_c(&self) -> bool {
        let mut stride = 1;
        self.shape.iter().zip(&self.strides).rev().filter(|&(&n, _)| n != 1).all(|(&n, &s)| {
            let fits = s == stride;
            stride *= n.max(1);
            fits
        })
    }

    /// The offset in memory of an entry, or `None` outside the shape.
    pub fn offset(&self, index: &[usize]) -> Option<usize> {
        if index.len() != self.shape.len() || index.iter().zip(&self.shape).any(|(&i, &n)| i >= n) {
            return None;
        }
        Some(index.iter().zip(&self.strides).map(|(&i, &s)| i * s).sum())
    }

    /// The index of the entry that is `linear`-th in C order.
    pub fn index_of_c(&self, mut linear: usize) -> Vec<usize> {
        let mut index = vec![0; self.shape.len()];
        for (to, &n) in index.iter_mut().zip(&self.shape).rev() {
            *to = linear % n.max(1);
            linear /= n.max(1);
        }
        index
    }

    /// The offset in memory of the entry that is `linear`-th in C order (inside the shape).
    pub fn offset_of_c(&self, mut linear: usize) -> usize {
        let mut offset = 0;
        for (&n, &stride) in self.shape.iter().zip(&self.strides).rev() {
            offset += linear % n.max(1) * stride;
            linear /= n.max(1);
        }
        offset
    }

    /// The strides that a tensor of this shape has in `other`'s memory, seen along this one's:
    /// what turns offsets here into offsets there.
    pub fn runs_in(&self, other: &[usize]) -> Runs {
        let mut axes: Vec<(usize, usize)> = Vec::new();
        for axis in self.axes() {
            let (n, stride) = (self.shape[axis], other[axis]);
            match axes.last_mut() {
                _ if n == 1 => {}
                // Two axes that are neighbours in both memories are one.
                Some(slow) if slow.1 == n * stride => *slow = (slow.0 * n, stride),
                _ => axes.push((n, stride)),
            }
        }
        Runs { axes }
    }

    /// [`MemoryLayout::runs_in`] C order: turns offsets into linear C indices.
    pub fn runs_in_c(&self) -> Runs {
        // The layout itself shows that the number of entries does not overflow.
        let mut strides = vec![1; self.shape.len()];
        for axis in (1..self.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * self.shape[axis].max(1);
        }
        self.runs_in(&strides)
    }
}

/// Translates segments of one memory into runs of another.
#[derive(Clone, Debug)]
pub(super) struct Runs {
    /// Length and stride in the other memory, from the slowest to the fastest in this one.
    axes: Vec<(usize, usize)>,
}

impl Runs {
    /// Whether the two memories have the same order.
    pub fn same(&self) -> bool {
        matches!(self.axes.as_slice(), [] | [(_, 1)])
    }

    /// Writes the places in the other memory of the entries `start`, `start + 1`, … of this one.
    pub fn fill(&self, start: usize, out: &mut [u64]) {
        let Some((&(innermost, stride), others)) = self.axes.split_last() else {
            out.fill(0);
            return;
        };
        let mut start = start;
        let mut out = out;
        while !out.is_empty() {
            let mut rest = start / innermost;
            let mut place = 0;
            for &(n, stride) in others.iter().rev() {
                place += rest % n * stride;
                rest /= n;
            }
            let from = start % innermost;
            let (run, tail) = out.split_at_mut(out.len().min(innermost - from));
            let (first, stride) = ((place + from * stride) as u64, stride as u64);
            for (i, to) in run.iter_mut().enumerate() {
                *to = first + i as u64 * stride;
            }
            start += run.len();
            out = tail;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        let c = MemoryLayout::c(&[2, 3, 4]).unwrap();
        assert_eq!(c.strides, [12, 4, 1]);
        assert!(c.is_c());
        let f = MemoryLayout::fortran(&[2, 3, 4]).unwrap();
        assert_eq!(f.strides, [1, 2, 6]);
        assert!(!f.is_c());
        assert_eq!(f.axes(), [2, 1, 0]);
        let mixed = MemoryLayout::of_compact(&[2, 1, 3, 4], &[4, 99, 8, 1]).unwrap();
        assert_eq!(mixed.strides, [4, 24, 8, 1]);
        assert!(MemoryLayout::of_compact(&[1, 5, 1], &[7, 1, 3]).unwrap().is_c());
        assert!(MemoryLayout::fortran(&[1, 5]).unwrap().is_c());
        assert!(MemoryLayout::c(&[]).unwrap().is_c());
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        assert!(MemoryLayout::c(&[usize::MAX, 2]).is_none());
        assert!(MemoryLayout::c(&[0, usize::MAX, 2]).is_none());
        assert!(MemoryLayout::fortran(&[1 << 32, 1 << 31]).is_none());
    }

    #[test]
    fn runs_agree_with_offsets() {
        for (shape, axes) in
            [(vec![3, 4, 5], [1, 0, 2]), (vec![3, 4, 5], [2, 1, 0]), (vec![3, 1, 5], [2, 0, 1])]
        {
            let layout = MemoryLayout::with_axes(&shape, &axes).unwrap();
            let runs = layout.runs_in_c();
            for start in 0..layout.len() {
                let mut places = vec![0; layout.len() - start];
                runs.fill(start, &mut places);
                for (i, &place) in places.iter().enumerate() {
                    let index = layout.index_of_c(place as usize);
                    assert_eq!(layout.offset(&index), Some(start + i));
                    assert_eq!(layout.offset_of_c(place as usize), start + i);
                }
            }
        }
        assert!(MemoryLayout::c(&[4, 1, 6]).unwrap().runs_in_c().same());
        assert!(!MemoryLayout::fortran(&[4, 6]).unwrap().runs_in_c().same());
    }
}
