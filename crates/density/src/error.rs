//! The error type of the crate: a part of the one of `nneinfact`, variant for variant, so that this
//! module can be replaced by a re-export.

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, as a sentence that says what is wrong, where, and what would be
/// accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Cores, samples or tables have a shape that does not fit.
    #[error("wrong shape of {what}: found {found}, expected {expected}")]
    Shape {
        /// What has the shape ("core 3", "the samples", …).
        what: String,
        /// The shape that was found.
        found: String,
        /// The shape that would be accepted, and why.
        expected: String,
    },

    /// Samples or weights leave nothing to learn from, or hold values that cannot be used.
    #[error("{0}")]
    Observations(String),

    /// A setting is outside its range, or two settings exclude each other.
    #[error("{0}")]
    Setting(String),

    /// The cores given as a start do not fit.
    #[error("{0}")]
    Init(String),

    /// The problem needs more memory than it may take. Raised before anything is allocated.
    #[error(
        "{what} would take about {} of memory, but only {} may be used; {help}",
        crate::error::bytes(*needed),
        crate::error::bytes(*available)
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

    /// A value is not finite, or a computation cannot go on for numerical reasons.
    #[error("{0}")]
    Numeric(String),

    /// Something that is well defined but that this version does not do.
    #[error("{0}")]
    Unsupported(String),
}

/// A number of bytes as people write it.
#[must_use]
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else if value < 10.0 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}
