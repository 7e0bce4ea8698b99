//! Memory that is used again and again.

use std::sync::{Mutex, PoisonError};

use nneinfact_simd::Aligned;

use super::{Batch, LANES};

/// What a system of equations is solved in.
#[derive(Default)]
pub(crate) struct System {
    /// The factor, column by column.
    pub factor: Aligned<f64>,
    /// Reciprocals of its diagonal.
    pub reciprocals: Vec<f64>,
    /// The rows of one panel in the columns before it.
    pub coefficients: Vec<[f64; LANES]>,
    /// What the matrix is scaled by from both sides.
    pub x: Aligned<f64>,
    /// The right side, and then the solution.
    pub y: Aligned<f64>,
}

/// What the Newton steps of slices are worked out in.
#[derive(Default)]
pub(crate) struct Scratch {
    pub system: System,
    pub batch: Batch,
    /// Vectors as long as a slice.
    pub vectors: [Aligned<f64>; 8],
}

/// Memory for as many tasks as run at a time.
#[derive(Default)]
pub(crate) struct Pool {
    free: Mutex<Vec<Scratch>>,
}

impl Pool {
    /// Calls a function with memory that nobody else uses meanwhile. It may hold anything.
    pub fn with<T>(&self, f: impl FnOnce(&mut Scratch) -> T) -> T {
        let taken = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = taken.unwrap_or_default();
        let out = f(&mut scratch);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        out
    }
}
