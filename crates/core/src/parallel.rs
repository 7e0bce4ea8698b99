//! Loops that all threads of the current pool share, for every crate above this one.
//!
//! Parallel iterators are compiled anew wherever one stands, with the whole machinery of sharing work: they
//! were a quarter to a half of what the compiler had to translate of `core` and `cpu`. Here that
//! machinery is compiled once, and what runs in it is called by pointer, so **what a call does should be worth
//! some microseconds**: an item is a task, a row of a matrix or some thousand entries ([`ENTRIES`]), never
//! one number. Who runs what is not determined; results come in the order of their numbers, and
//! sums over them therefore do not depend on the number of threads.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

/// Entries of an array that are worth a call, where little is done with each.
pub const ENTRIES: usize = 1 << 14;

/// Calls `work` with every number below `count`.
pub fn for_each(count: usize, work: &(dyn Fn(usize) + Sync)) {
    match count {
        0 => {}
        1 => work(0),
        _ => (0..count).into_par_iter().with_max_len(1).for_each(work),
    }
}

/// Calls `work` with every item and its number.
///
/// ```
/// use nneinfact_core::parallel;
///
/// let mut words = ["a".to_string(), "b".to_string()];
/// parallel::for_each_of(&mut words, &|n, word| *word += &n.to_string());
/// assert_eq!(words, ["a0", "b1"]);
/// ```
pub fn for_each_of<T: Send>(items: &mut [T], work: &(dyn Fn(usize, &mut T) + Sync)) {
    if let [one] = items {
        return work(0, one);
    }
    // Each lock is taken once, and nobody waits for it: it shows that items have one owner at a time.
    let items: Vec<Mutex<&mut T>> = items.iter_mut().map(Mutex::new).collect();
    for_each(items.len(), &|n| {
        let mut item = items[n].lock().unwrap_or_else(PoisonError::into_inner);
        work(n, &mut **item);
    });
}

/// What `work` makes of every number below `count`, in their order.
///
/// ```
/// assert_eq!(nneinfact_core::parallel::map(4, &|n| n * n), [0, 1, 4, 9]);
/// ```
pub fn map<T: Send>(count: usize, work: &(dyn Fn(usize) -> T + Sync)) -> Vec<T> {
    let mut found: Vec<Option<T>> = (0..count).map(|_| None).collect();
    for_each_of(&mut found, &|n, to| *to = Some(work(n)));
    found.into_iter().flatten().collect()
}

/// What `work` makes of every item, which it may change, and its number, in their order.
pub fn map_each<I: Send, T: Send>(
    items: &mut [I],
    work: &(dyn Fn(usize, &mut I) -> T + Sync),
) -> Vec<T> {
    let mut both: Vec<(&mut I, Option<T>)> = items.iter_mut().map(|item| (item, None)).collect();
    for_each_of(&mut both, &|n, (item, to)| *to = Some(work(n, item)));
    both.into_iter().filter_map(|(_, made)| made).collect()
}

/// Calls `work` with parts of so many entries (the last may have fewer), and the number of the first entry of each.
///
/// ```
/// let mut squares = vec![0; 10];
/// nneinfact_core::parallel::chunks(&mut squares, 4, &|first, to| {
///     to.iter_mut().zip(first..).for_each(|(to, n)| *to = n * n);
/// });
/// assert_eq!(squares[9], 81);
/// ```
pub fn chunks<T: Send>(data: &mut [T], size: usize, work: &(dyn Fn(usize, &mut [T]) + Sync)) {
    let size = size.max(1);
    let mut parts: Vec<&mut [T]> = data.chunks_mut(size).collect();
    for_each_of(&mut parts, &|n, part| work(n * size, part));
}

/// What is called with parts of two arrays.
pub type OfTwo<'a, A, B> = dyn Fn(usize, &mut [A], &mut [B]) + Sync + 'a;

/// As [`chunks`], of two arrays at once, which are as long as each other.
pub fn chunks_of_two<A: Send, B: Send>(
    a: &mut [A],
    b: &mut [B],
    size: usize,
    work: &OfTwo<'_, A, B>,
) {
    let size = size.max(1);
    let mut parts: Vec<_> = a.chunks_mut(size).zip(b.chunks_mut(size)).collect();
    for_each_of(&mut parts, &|n, (a, b)| work(n * size, a, b));
}

/// An array of so many entries, from the number of each.
pub fn entries<T: Copy + Default + Send>(len: usize, entry: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let mut all = vec![T::default(); len];
    chunks(&mut all, ENTRIES, &|first, to| {
        to.iter_mut().zip(first..).for_each(|(to, n)| *to = entry(n));
    });
    all
}

/// Sorts numbers, in place.
pub fn sort(numbers: &mut [u64]) {
    numbers.par_sort_unstable();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_had_once_and_in_order() {
        for count in [0, 1, 2, 3, 100, 5000] {
            let expected: Vec<usize> = (0..count).map(|n| 3 * n).collect();
            assert_eq!(map(count, &|n| 3 * n), expected);
            assert_eq!(entries(count, |n| 3 * n), expected);
            let mut items: Vec<usize> = (0..count).collect();
            let before = map_each(&mut items, &|n, item| std::mem::replace(item, 3 * n));
            assert_eq!((items, before), (expected, (0..count).collect()));
        }
        assert_eq!(entries(3 * ENTRIES + 1, |n| n)[3 * ENTRIES], 3 * ENTRIES);
    }

    #[test]
    fn parts_cover_both_arrays() {
        for size in [0, 1, 3, 10, 11] {
            let (mut a, mut b) = ([0; 10], [0u8; 10]);
            chunks_of_two(&mut a, &mut b, size, &|first, a, b| {
                assert_eq!(a.len(), b.len());
                a.iter_mut().zip(first..).for_each(|(a, n)| *a += n);
                b.iter_mut().for_each(|b| *b += 1);
            });
            assert_eq!((a, b), (std::array::from_fn(|n| n), [1; 10]));
        }
    }

    #[test]
    fn nested_loops_share_the_same_threads() {
        let sums = map(20, &|i| map(30, &|j| i * j).into_iter().sum::<usize>());
        assert_eq!(sums[19], 19 * 435);
    }

    #[test]
    fn a_panic_comes_out() {
        let all = std::panic::catch_unwind(|| for_each(8, &|n| assert!(n < 5, "number {n}")));
        assert!(all.is_err());
    }
}
