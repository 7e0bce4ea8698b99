//! Asking for memory before it is needed.

use std::ops::Range;

/// Asks for a part of several rows to be brought into the caches: the elements `part` of each,
/// counted from where it begins, which is `start` plus one of the `offsets`. What is outside the
/// slice is left out, and a line of the cache is asked for once where parts follow one another.
/// `last` says that none does: then it is one line more, as rows rarely begin with one. Says
/// nothing to processors that are not asked so from Rust.
#[inline(always)]
pub fn prefetch<A>(from: &[A], start: usize, offsets: &[usize], part: Range<usize>, last: bool) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let each = 64 / size_of::<A>();
        let end = if last { part.end + each } else { part.end };
        for offset in offsets {
            let row = start.wrapping_add(*offset);
            for at in (part.start.next_multiple_of(each)..end).step_by(each) {
                let Some(line) = from.get(row.wrapping_add(at)) else { continue };
                // SAFETY: every x86-64 processor has the instruction, and it accesses nothing.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast()) };
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, start, offsets, part, last);
}
