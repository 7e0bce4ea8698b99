//! How much memory there is.

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
