//! Numbers: the two element types, their SIMD vectors, and vectorised functions.
//!
//! This room knows nothing of factorizations. Everything that runs over blocks of entries is
//! written once, generic over [`Real`] and over [`pulp::Simd`], and is compiled for every
//! instruction set that `pulp` knows; [`arch`] selects one of them at run time.
//!
//! Only what is inlined into the function that `pulp` dispatches to is compiled for its instruction set:
//! everything on that path is `#[inline(always)]`, and types that implement `WithSimd` are used where a
//! closure would not be inlined.

#![deny(missing_docs)]

mod aligned;
mod arch;
mod elementwise;
mod prefetch;
mod real;

pub use aligned::Aligned;
pub use arch::{arch, arch_problem};
pub use elementwise::{Elementwise, has_fused};
pub use prefetch::prefetch;
pub use real::Real;

/// All instruction sets that this machine has, for tests.
#[doc(hidden)]
#[must_use]
pub fn instruction_sets() -> Vec<pulp::Arch> {
    let named = arch::instruction_sets().into_iter().map(|(_, arch)| arch);
    // Elsewhere the best one has no name.
    let best = (!cfg!(target_arch = "x86_64")).then(pulp::Arch::new);
    named.chain(best).collect()
}
