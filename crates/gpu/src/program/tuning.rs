//! Choices that change speed and memory but no result beyond rounding.

/// How programs are laid out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// Up to this inner dimension K a thread keeps its row and its sums in registers.
    pub register_k: usize,
    /// Workgroups that a pass is cut into where there is enough to do.
    pub workgroups: usize,
    /// Terms that a thread adds up in single precision.
    pub terms: usize,
    /// Bytes that partial sums, or a and b of a pass in two halves, may take.
    pub scratch_bytes: u64,
    /// Operations after which a dispatch is cut in two: none may run for more than 0.1 s, where a small
    /// GPU does some 10¹¹ a second of what passes are made of. Drivers, and browsers sooner, end those
    /// that run for long.
    pub work: f64,
    /// The most memory that a fit may take on the device, if less than there is.
    pub memory: Option<u64>,
    /// Whether commands on small tensors share dispatches. Bits do not depend on it.
    pub joint: bool,
    /// The most reads that a thread there makes one after another before many workgroups share what
    /// there is to do.
    pub joint_turns: usize,
    /// The data are streamed through the device, in slabs of at most so many entries.
    pub stream: Option<usize>,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            register_k: 48,
            workgroups: 1024,
            terms: 4096,
            scratch_bytes: 64 << 20,
            work: 1e10,
            memory: None,
            joint: true,
            joint_turns: 32,
            stream: None,
        }
    }
}

#[cfg(test)]
impl Tuning {
    /// Commands on small tensors share dispatches, whatever the default is.
    pub fn joined() -> Tuning {
        Tuning { joint: true, ..Tuning::default() }
    }
}
