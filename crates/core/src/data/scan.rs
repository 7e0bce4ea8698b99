//! What the scans over all entries share: blocks and tasks, buffers, and sums by role.

use super::memory_layout::Runs;
use super::storage::Summary;
use super::{Dense, Role};

/// Entries worked on at a time: their buffers stay in the first-level cache. A multiple of 64.
pub(super) const BLOCK: usize = 1024;
/// Entries of a unit of parallel work. Fixed, as the order of the sums depends on it.
pub(super) const TASK: usize = 128 * BLOCK;

/// Where the blocks of a task start.
pub(super) fn blocks(task: usize, n: usize) -> impl Iterator<Item = usize> {
    (task * TASK..n.min((task + 1) * TASK)).step_by(BLOCK)
}

/// The linear C index of every entry.
pub(super) enum Places {
    Same,
    Runs(Runs),
}

impl Places {
    pub(super) fn new(values: &Dense) -> Places {
        let runs = values.layout().runs_in_c();
        if runs.same() { Places::Same } else { Places::Runs(runs) }
    }

    #[inline(always)]
    pub(super) fn fill(&self, start: usize, out: &mut [u64]) {
        match self {
            Places::Same => {
                for (i, to) in out.iter_mut().enumerate() {
                    *to = (start + i) as u64;
                }
            }
            Places::Runs(runs) => runs.fill(start, out),
        }
    }
}

pub(super) struct Buffers {
    pub(super) values: [f64; BLOCK],
    pub(super) weights: [f64; BLOCK],
    pub(super) missing: [f32; BLOCK],
    pub(super) place: [u64; BLOCK],
    pub(super) random: [u32; BLOCK],
    pub(super) role: [u8; BLOCK],
    pub(super) bits: [u8; BLOCK],
}

impl Buffers {
    pub(super) fn new() -> Box<Buffers> {
        Box::new(Buffers {
            values: [0.0; BLOCK],
            weights: [0.0; BLOCK],
            missing: [0.0; BLOCK],
            place: [0; BLOCK],
            random: [0; BLOCK],
            role: [0; BLOCK],
            bits: [0; BLOCK],
        })
    }
}

#[inline(always)]
pub(super) fn count(roles: &[u8], role: u8) -> u64 {
    // Counts of at most 255 fit a byte, which sixteen or more of are added at once.
    roles
        .chunks(255)
        .map(|chunk| u64::from(chunk.iter().fold(0u8, |n, &r| n + u8::from(r == role))))
        .sum()
}

/// Counts by role, and sums, over a part of the entries or all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals {
    /// The number of entries of each role.
    pub(super) counts: [u64; 4],
    /// The sum of their weights: their number where there are no weights, 0 for missing ones.
    pub(super) weight: [f64; 4],
    /// How many of them are not 0.
    pub(super) nonzero: [u64; 4],
    /// Σ w x over the training entries.
    pub(super) sum: f64,
    /// The largest value of a training entry.
    pub(super) max: f64,
    /// What the values need of an element type. Of values that stay in a file only: those in memory
    /// were looked at when they came there.
    pub(super) summary: Summary,
}

impl Totals {
    pub(super) const EMPTY: Totals = Totals {
        summary: Summary::EMPTY,
        counts: [0; 4],
        weight: [0.0; 4],
        nonzero: [0; 4],
        sum: 0.0,
        max: f64::NEG_INFINITY,
    };

    pub(super) fn add(&mut self, other: &Totals) {
        for r in 0..4 {
            self.counts[r] += other.counts[r];
            self.nonzero[r] += other.nonzero[r];
            self.weight[r] += other.weight[r];
        }
        self.sum += other.sum;
        self.max = self.max.max(other.max);
        self.summary = self.summary.and(other.summary);
    }
}

/// Independent partial sums: as many as the widest vector has lanes, times two to hide the
/// latency of the addition. Fixed, so that the result is the same on every instruction set.
const LANES: usize = 16;

/// The sum over the entries of a role of `term(w, x)`, with `w` and `x` the elements of two lists.
#[inline(always)]
pub(super) fn sum(
    role: &[u8],
    wanted: u8,
    w: &[f64],
    x: &[f64],
    term: impl Fn(f64, f64) -> f64,
) -> f64 {
    let mut lanes = [0.0; LANES];
    let (roles, role_rest) = role.as_chunks::<LANES>();
    let (ws, w_rest) = w.as_chunks::<LANES>();
    let (xs, x_rest) = x.as_chunks::<LANES>();
    for ((role, w), x) in roles.iter().zip(ws).zip(xs) {
        for k in 0..LANES {
            let t = term(w[k], x[k]);
            lanes[k] += if role[k] == wanted { t } else { 0.0 };
        }
    }
    for (((lane, &role), &w), &x) in lanes.iter_mut().zip(role_rest).zip(w_rest).zip(x_rest) {
        *lane += if role == wanted { term(w, x) } else { 0.0 };
    }
    lanes.iter().sum()
}

/// How many entries of each role are not 0, of those that there are.
#[inline(always)]
pub(super) fn nonzero(role: &[u8], values: &[f64], counts: [u64; 4]) -> [u64; 4] {
    let mut found = [0; 4];
    for r in 1..4 {
        if counts[r] > 0 {
            let one = |_: f64, x: f64| if x != 0.0 { 1.0 } else { 0.0 };
            found[r] = sum(role, r as u8, values, values, one) as u64;
        }
    }
    found
}

/// The largest value of a training entry.
#[inline(always)]
pub(super) fn max(role: &[u8], values: &[f64]) -> f64 {
    let mut lanes = [f64::NEG_INFINITY; LANES];
    let larger = |lane: f64, role: u8, x: f64| {
        // False for NaN.
        if (role == Role::Train as u8) & (x > lane) { x } else { lane }
    };
    let (roles, role_rest) = role.as_chunks::<LANES>();
    let (xs, x_rest) = values.as_chunks::<LANES>();
    for (role, x) in roles.iter().zip(xs) {
        for k in 0..LANES {
            lanes[k] = larger(lanes[k], role[k], x[k]);
        }
    }
    for ((lane, &role), &x) in lanes.iter_mut().zip(role_rest).zip(x_rest) {
        *lane = larger(*lane, role, x);
    }
    lanes.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}
