//! The one error type of the crate.

use std::path::PathBuf;

pub use crate::memory::bytes;
use crate::model::ModelError;
use crate::plan::PlanError;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, as a sentence that says what is wrong, where, and what would be
/// accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model string cannot be read, or the ranks do not fit it. The message shows the string
    /// with carets under the indices concerned.
    #[error(transparent)]
    Model(#[from] ModelError),

    /// The data, a mask, weights or a start have a shape that the model or the data do not allow.
    #[error("wrong shape of {what}: found {found}, expected {expected}")]
    Shape {
        /// What has the shape ("the data", "the mask", "theta_2 of the start", …).
        what: String,
        /// The shape that was found.
        found: String,
        /// The shape that would be accepted, and why.
        expected: String,
    },

    /// Observed entries lie outside the domain of the loss.
    #[error(
        "{count} observed {} outside the domain of the {loss} loss ({domain}): the first is {value} at index {named}; {help}",
        if *count == 1 { "entry is" } else { "entries are" }
    )]
    Domain {
        /// How many observed entries are outside.
        count: u64,
        /// The index of the first of them, in C order.
        index: Vec<usize>,
        /// The same for a message, with the names of the index where the data have them.
        named: Box<str>,
        /// Its value.
        value: f64,
        /// The loss, by name.
        loss: String,
        /// What the loss accepts, in words.
        domain: Box<str>,
        /// What would help: another loss, or masking them.
        help: String,
    },

    /// A mask, weights or a split leave nothing to fit, or hold values that cannot be weights.
    #[error("{0}")]
    Observations(String),

    /// A parameter of a loss is outside its range, or a custom loss does not hold together.
    #[error("{0}")]
    Loss(String),

    /// A setting of the fit is outside its range, or two settings exclude each other.
    #[error("{0}")]
    Setting(String),

    /// The factors given as a start do not fit the model.
    #[error("{0}")]
    Init(String),

    /// The problem needs more memory than it may take. Raised before anything is allocated.
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

    /// A device that was asked for is not there or cannot be used.
    #[error("{0}")]
    Device(String),

    /// A device ran out of memory, or would.
    #[error(
        "out of memory on {device}: this takes about {} there, {} of it in one piece ({largest_is}){}; {help}",
        bytes(*needed),
        bytes(*largest),
        memory.map_or(String::new(), |m| format!(", and it has {}", bytes(m)))
    )]
    DeviceMemory {
        /// The device.
        device: String,
        /// Bytes needed on the device, all buffers together.
        needed: u64,
        /// Bytes of the largest buffer.
        largest: u64,
        /// What the largest buffer holds.
        largest_is: String,
        /// Bytes of memory that the device has, where its driver tells.
        memory: Option<u64>,
        /// What would need less.
        help: String,
    },

    /// A device failed while it was at work: it was lost, or refused what it was given.
    #[error("{0}")]
    DeviceFailed(String),

    /// An update or a loss produced a value that is not finite.
    #[error("{0}")]
    Numeric(String),

    /// A fit broke in its middle: the device failed, or a value was not finite. What it had reached
    /// before is not lost.
    #[error("{cause} (after {} completed sweeps, whose factors are kept)", last.history.iterations)]
    Broken {
        /// What went wrong.
        cause: Box<Error>,
        /// The fit as it was after the last completed sweep; `Fit::from` makes a fit of it.
        last: Box<crate::history::Unfinished>,
    },

    /// Another process of a fit that several share has failed, and so all have ended.
    #[error("process {rank} (counted from 0) has failed: {message}")]
    Process {
        /// Which of the processes.
        rank: usize,
        /// What it said.
        message: String,
        /// Whether the input is at fault, as [`is_input`](Error::is_input) says there.
        input: bool,
    },

    /// The work was done, but not all of its results could be written, and what became of them.
    #[error("{0}")]
    Unwritten(String),

    /// Work was cancelled before it had anything to give.
    #[error("{0} was cancelled")]
    Cancelled(String),

    /// A part of this library was used against its contract: a defect, here or in a program that
    /// builds engines from parts.
    #[error("internal error: {0}")]
    Internal(String),

    /// Something that is well defined but that this version does not do.
    #[error("{0}")]
    Unsupported(String),
}

impl Error {
    /// An error of opening, reading or writing `path`.
    pub fn file(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Error::File { path: path.into(), source }
    }

    /// An error in the content of `path`.
    pub fn format(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Error::Format { path: path.into(), reason: reason.into() }
    }

    /// Whether the caller's input is at fault (exit status 2 of the command line) and not the
    /// machine or the device (exit status 1).
    #[must_use]
    pub fn is_input(&self) -> bool {
        match self {
            Error::File { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::NotFound
                    | std::io::ErrorKind::PermissionDenied
                    | std::io::ErrorKind::IsADirectory
                    | std::io::ErrorKind::NotADirectory
                    | std::io::ErrorKind::InvalidInput
                    | std::io::ErrorKind::InvalidFilename
            ),
            Error::Process { input, .. } => *input,
            Error::Numeric(_)
            | Error::Internal(_)
            | Error::Unwritten(_)
            | Error::Cancelled(_)
            | Error::Broken { .. }
            | Error::DeviceFailed(_)
            | Error::DeviceMemory { .. } => false,
            _ => true,
        }
    }
}

impl From<PlanError> for Error {
    fn from(error: PlanError) -> Error {
        match error {
            PlanError::Memory { what, needed, available, help } => {
                Error::Memory { what, needed, available, help }
            }
            PlanError::Groups(what) => Error::Setting(what),
        }
    }
}

/// Whether a character steers a terminal or turns the direction of the text around it.
#[must_use]
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text from a file as a message may show it: what would steer a terminal or turn the direction of what
/// follows is written out, as `\u{1b}`.
#[must_use]
pub fn escaped(text: &str) -> String {
    escaped_but(text, &[])
}

/// As [`escaped`], but for some characters, such as the ends of lines of a longer text.
#[must_use]
pub fn escaped_but(text: &str, kept: &[char]) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match steers(c) && !kept.contains(&c) {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    shown
}
