//! Memory that whole vectors are read from without crossing a line of the cache.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

use super::Real;

/// A line of the cache, and the widest vector of any instruction set.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A vector that begins at a line of the cache. A load or store across two lines counts as two, and
/// of what an allocator returns, every 64-byte one is such: passes over blocks that stay in the
/// first-level cache take a quarter longer.
#[derive(Clone, Debug, Default)]
pub struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Real> Aligned<T> {
    /// So many zeros.
    ///
    /// ```
    /// use nneinfact_simd::Aligned;
    ///
    /// let block: Aligned<f32> = Aligned::zeros(20);
    /// assert_eq!(*block, [0.0; 20]);
    /// assert!(block.as_ptr().addr().is_multiple_of(64));
    /// ```
    #[must_use]
    pub fn zeros(len: usize) -> Aligned<T> {
        let mut block = Aligned { lines: Vec::new(), len: 0, elements: PhantomData };
        block.resize(len);
        block
    }

    /// The longest length that there is memory for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.lines.len() * size_of::<Line>() / size_of::<T>()
    }

    /// Changes the length. Elements that are new are 0, or what was there before the length was
    /// last made less.
    pub fn resize(&mut self, len: usize) {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        if lines > self.lines.len() {
            self.lines.resize(lines, Line::zeroed());
        }
        self.len = len;
    }
}

impl<T: Real> Deref for Aligned<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Real> DerefMut for Aligned<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}
