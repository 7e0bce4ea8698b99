//! Small dense problems, many of them: the matrices of a Newton step have tens of rows, and a call of a
//! library that serves matrices of any size, its copies and its blocking for caches, costs more there
//! than the arithmetic. benches/TRAINS.md has the measurement.
//!
//! Everything here is written over vectors of the instruction set that is chosen at run time. Rows
//! are padded with zeros to whole vectors of the widest set.

mod batch;
mod cholesky;
mod logarithms;
mod product;
mod scratch;
mod slices;
mod tile;

pub(crate) use batch::{Batch, PackedKronecker, lanes};
pub(crate) use cholesky::{Kronecker, solve_positive};
pub(crate) use logarithms::log_sum;
pub(crate) use product::{Left, product_nn, product_nt, product_tn, times};
pub(crate) use scratch::{Pool, Scratch, System};
pub(crate) use slices::Slices;

use nneinfact_simd::Real;

/// Elements of the widest vector.
pub(crate) const LANES: usize = <f64 as Real>::MAX_LANES;

/// The length of a row with its padding.
pub(crate) fn padded(n: usize) -> usize {
    n.next_multiple_of(LANES)
}
