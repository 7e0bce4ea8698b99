//! Why there is no plan.

use crate::memory::bytes;

/// Why there is no plan: an [`Error`](crate::error::Error) of the same words is made of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No plan stays within the memory that it may take.
    #[error(
        "{what} would take about {} of memory, but only {} may be used; {help}",
        bytes(*needed),
        bytes(*available)
    )]
    Memory {
        /// What needs it.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes that may be used.
        available: u64,
        /// What would need less.
        help: String,
    },

    /// The groups asked for are no partition of the factors, or there is nothing to fit.
    #[error("{0}")]
    Groups(String),
}
