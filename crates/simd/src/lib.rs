//! Numbers: the two element types, their SIMD vectors, and vectorised functions.
//!
//! This room knows nothing of factorizations. Everything that runs over blocks of entries is
//! written once, generic over [`Real`] and over [`pulp::Simd`], and is compiled for every
//! instruction set that `pulp` selects from at run time.
//!
//! Only what is inlined into the function that `pulp` dispatches to is compiled for its instruction set:
//! everything on that path is `#[inline(always)]`, and types that implement `WithSimd` are used where a
//! closure would not be inlined.

mod aligned;
mod elementwise;
mod prefetch;
mod real;

pub use aligned::Aligned;
pub use elementwise::{Elementwise, has_fused};
pub use prefetch::prefetch;
pub use real::Real;

/// All instruction sets that this machine has, for tests.
#[doc(hidden)]
#[must_use]
pub fn instruction_sets() -> Vec<pulp::Arch> {
    let mut all = vec![pulp::Arch::new(), pulp::Arch::Scalar];
    #[cfg(target_arch = "x86_64")]
    all.extend(pulp::x86::V3::try_new().map(pulp::Arch::V3));
    all
}
