//! The error type: the part of the project's own that a reader of tables needs.

use std::path::PathBuf;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, as a sentence that says what is wrong, where, and what would be
/// accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is outside its range, or two settings exclude each other.
    #[error("{0}")]
    Setting(String),

    /// The problem needs more memory than it may take.
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

    /// A file cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// A file does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what would be accepted.
        reason: String,
    },

    /// Something that is well defined but that this version does not do.
    #[error("{0}")]
    Unsupported(String),
}

impl Error {
    /// An error of opening, reading or writing `path`.
    pub(crate) fn file(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Error::File { path: path.into(), source }
    }

    /// An error in the content of `path`.
    pub(crate) fn format(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Error::Format { path: path.into(), reason: reason.into() }
    }
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
