//! How much memory there is.

use crate::error::{Error, Result};

/// The memory that this process may still take, in bytes, where the system tells.
#[must_use]
pub fn available_memory() -> Option<u64> {
    memory(sysinfo::System::available_memory, |group| group.free_memory)
}

/// The memory that this process may take where nothing else does, in bytes, where the system tells.
/// Choices that decide about results are made by this and not by what is free at the moment: the
/// same fit on the same machine comes out the same.
#[must_use]
pub fn total_memory() -> Option<u64> {
    memory(sysinfo::System::total_memory, |group| group.total_memory)
}

/// Memory of the host, or of the control group where that has less.
fn memory(
    host: impl Fn(&sysinfo::System) -> u64,
    group: impl Fn(&sysinfo::CGroupLimits) -> u64,
) -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let limit = system.cgroup_limits().map(|limits| group(&limits)).filter(|&bytes| bytes > 0);
    let bytes = limit.map_or(host(&system), |limit| host(&system).min(limit));
    (bytes > 0).then_some(bytes)
}

/// Room for what a file's words ask for: zeros, or an error where the system refuses it.
///
/// # Errors
/// [`Error::Memory`].
pub(crate) fn zeros<T: Clone + Default>(n: usize, what: &str) -> Result<Vec<T>> {
    // Asked for and given back, since only a vector that is made as a whole is not written to.
    let mut room: Vec<T> = Vec::new();
    room.try_reserve_exact(n)
        .map_err(|_| refused(what, n.saturating_mul(size_of::<T>()) as u64))?;
    drop(room);
    Ok(vec![T::default(); n])
}

/// That the system refused memory for something.
#[must_use]
pub fn refused(what: &str, needed: u64) -> Error {
    Error::Memory {
        what: what.into(),
        needed,
        available: available_memory().unwrap_or(0).min(needed),
        help: "the system gives this process no more".into(),
    }
}

/// So many entries, in words: "1 entry", "12 entries".
#[must_use]
pub fn entries(n: u64) -> String {
    format!("{n} {}", if n == 1 { "entry" } else { "entries" })
}

/// A number of bytes as people write it.
#[must_use]
pub fn bytes(n: u64) -> String {
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
