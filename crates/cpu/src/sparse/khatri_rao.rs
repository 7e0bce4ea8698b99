//! Khatri–Rao tables as passes look them up.

use nneinfact_core::parallel;
use pulp::{Simd, WithSimd};

use super::spare::SpareMemory;
use nneinfact_simd::{Aligned, Elementwise};

/// The rows of a Khatri–Rao table, padded to whole vectors and, where these are cache lines, aligned to
/// them.
pub(crate) struct KhatriRaoRows<T>(Aligned<T>);

impl<T: Elementwise> KhatriRaoRows<T> {
    /// From a matrix with `depth` elements a row, times `scale`.
    pub fn new(data: &[f64], depth: usize, scale: f64) -> KhatriRaoRows<T> {
        KhatriRaoRows::within(&mut SpareMemory::default(), data, depth, scale)
    }

    /// The same in memory that others have done with.
    pub fn within(
        spare: &mut SpareMemory<T>,
        data: &[f64],
        depth: usize,
        scale: f64,
    ) -> KhatriRaoRows<T> {
        let width = padded::<T>(depth);
        let rows = data.len() / depth;
        let mut table = spare.table(rows * width);
        let few = parallel::ENTRIES / width + 1;
        parallel::chunks(&mut table, width * few, &|first, to| {
            let from = data[first / width * depth..].chunks_exact(depth);
            for (to, from) in to.chunks_exact_mut(width).zip(from) {
                let (to, padding) = to.split_at_mut(depth);
                to.iter_mut().zip(from).for_each(|(to, x)| *to = T::from_f64(x * scale));
                padding.fill(T::ZERO);
            }
        });
        KhatriRaoRows(table)
    }

    /// All rows, one after another.
    pub fn data(&self) -> &[T] {
        &self.0
    }

    /// Their memory.
    pub fn into_memory(self) -> Aligned<T> {
        self.0
    }
}

/// Elements of a row whose length is a multiple of this machine's vectors.
fn padded<T: Elementwise>(depth: usize) -> usize {
    struct Lanes<T>(std::marker::PhantomData<T>);
    impl<T: Elementwise> WithSimd for Lanes<T> {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            size_of::<T::Vector<S>>() / T::BYTES
        }
    }
    let lanes = nneinfact_simd::arch().dispatch(Lanes(std::marker::PhantomData::<T>));
    depth.div_ceil(lanes) * lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_memory_of_wider_ones_are_padded_with_zeros() {
        let mut spare = SpareMemory::<f32>::default();
        let ones = |len: usize| vec![1.0; len];
        let wide = KhatriRaoRows::within(&mut spare, &ones(500), 50, 1.0);
        let room = wide.data().len();
        spare.keep_tables(std::iter::once(wide.into_memory()));
        let narrow = KhatriRaoRows::within(&mut spare, &ones(6), 3, 2.0);
        // The memory is that of the wide rows.
        assert!(narrow.0.room() >= room);
        let width = narrow.data().len() / 2;
        for row in narrow.data().chunks(width) {
            assert_eq!(row[..3], [2.0; 3]);
            assert!(row[3..].iter().all(|&x| x == 0.0));
        }
    }
}
