//! Sums of powers of penalised factors, as they lie among the results of a pass.

use nneinfact_core::engine::Constraint;
use nneinfact_core::loss::Penalty;

/// The least number of entries that a workgroup adds up powers of.
const CHUNK: usize = 4096;
/// The most sums of powers of a slice: the host, or a thread, adds them up.
const CHUNKS: usize = 256;

/// How a slice is cut for its sums of powers.
#[derive(Clone, Copy)]
pub(crate) struct PowerChunks {
    /// Entries of a chunk.
    pub size: usize,
    pub count: usize,
}

impl PowerChunks {
    /// Those of a slice of so many entries.
    pub fn of(entries: usize) -> PowerChunks {
        let size = entries.div_ceil(CHUNKS).max(CHUNK);
        PowerChunks { size, count: entries.div_ceil(size).max(1) }
    }
}

/// Where the sums of powers of a penalised factor lie among the results.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PenaltySums {
    pub penalty: Penalty,
    /// Behind where those of the slot begin.
    pub at: usize,
    pub chunks: usize,
}

impl PenaltySums {
    /// The penalised factors, and the words that they take in a slot.
    pub fn new(constraints: &[Constraint], places: &[usize]) -> (Vec<PenaltySums>, usize) {
        let mut end = 0;
        let mut all = Vec::new();
        for (l, constraint) in constraints.iter().enumerate() {
            let Some(penalty) = constraint.penalty else { continue };
            let chunks = PowerChunks::of(places[l + 1] - places[l]).count;
            all.push(PenaltySums { penalty, at: end, chunks });
            end += 2 * chunks;
        }
        (all, end)
    }

    /// The penalty of the factor, from the results of its slot.
    pub fn value(&self, slot: &[f32]) -> f64 {
        let pairs = slot[self.at..self.at + 2 * self.chunks].chunks_exact(2);
        pairs.map(|x| self.penalty.value(f64::from(x[0])) * f64::from(x[1])).sum()
    }
}
