//! Numbers: the two element types, their SIMD vectors, and vectorised functions.
//!
//! This room knows nothing of factorizations. Everything that runs over blocks of entries is
//! written once, generic over [`Real`] and over [`pulp::Simd`], and is compiled for every
//! instruction set that `pulp` selects from at run time.

mod aligned;
mod elementwise;
mod prefetch;
mod real;

pub use aligned::Aligned;
pub use elementwise::{Elementwise, has_fused};
pub(crate) use prefetch::prefetch;
pub use real::Real;
