//! Asking for memory before it is needed.

/// Asks for the elements from `offset` on to be brought into the caches; what is outside the slice is
/// left out. Says nothing to processors that are not asked so from Rust.
#[inline(always)]
pub(crate) fn prefetch<A>(from: &[A], offset: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    // One line more than so many elements fill, as they rarely begin with one.
    let each = 64 / size_of::<A>();
    let Some(from) = from.get(offset..) else { return };
    for line in from.iter().take(len + each).step_by(each) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, and it accesses nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, offset, len);
}
