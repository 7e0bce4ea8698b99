//! The buffers of a fit.

use nneinfact_core::engine::LossSlot;
use nneinfact_shaders::LOSS_SUMS;

use super::recording::{Buffer, BufferId, BufferKind, FirstUse, Program};
use crate::dense::entries::EntryFormat;
use crate::dense::geometry::DataPart;

/// Sums of one slot.
pub(crate) const SLOT_SUMS: usize = 3 * LOSS_SUMS;

impl Program {
    /// Adds a buffer.
    pub fn add_buffer(&mut self, label: &str, bytes: u64, kind: BufferKind) -> BufferId {
        let (label, content) = (label.into(), Vec::new());
        self.buffers.push(Buffer { label, bytes, kind, content, first_use: FirstUse::Read });
        BufferId(self.buffers.len() - 1)
    }

    /// Adds a storage buffer of zeros.
    pub fn add_storage(&mut self, label: &str, words: usize) -> BufferId {
        self.add_buffer(label, 4 * words.max(1) as u64, BufferKind::Storage)
    }

    /// Adds a storage buffer whose every part is written before it is read.
    pub fn add_scratch(&mut self, label: &str, words: usize) -> BufferId {
        let id = self.add_storage(label, words);
        self.buffers[id.0].first_use = FirstUse::Written;
        id
    }

    /// Makes a buffer at least this long.
    pub fn grow(&mut self, buffer: BufferId, words: usize) {
        let bytes = &mut self.buffers[buffer.0].bytes;
        *bytes = (*bytes).max(4 * words as u64);
    }
}

/// Sizes of what a fit keeps, in words.
pub(crate) struct FitSizes {
    /// All factors.
    pub parameters: usize,
    /// Stored products.
    pub products: usize,
    /// The largest numerator.
    pub numerator: usize,
    /// The largest factor.
    pub factor: usize,
    /// Sums of powers of penalised factors, for one slot.
    pub penalties: usize,
    /// Chunks of factors, each of which has a largest entry.
    pub chunks: usize,
}

/// The buffers that every fit has. Those of the last group grow with what passes need.
#[derive(Clone, Debug)]
pub(crate) struct FitBuffers {
    pub factors: BufferId,
    /// Multiplicative steps of all factors.
    pub steps: BufferId,
    /// Up to three powers of each factor times its step, which contractions of an update take.
    pub powers: BufferId,
    /// The plain result that extrapolations start from, the point where the sweep began, and the
    /// factors that a fit may go back to.
    pub anchor: BufferId,
    pub origin: BufferId,
    pub snapshot: BufferId,
    /// Stored products.
    pub products: BufferId,
    /// Numerator, then denominator of the last pass.
    pub sums: BufferId,
    /// The same of one factor.
    pub quotients: BufferId,
    /// Sums of losses by slot, then a word that says which factor is not finite (from 1), then sums
    /// of powers of penalised factors by slot.
    pub results: BufferId,
    /// The largest entry of every chunk of factors.
    pub largest: BufferId,
    /// The word that says which factor is not finite.
    pub broken: BufferId,
    /// The weights of the extrapolation.
    pub weights: BufferId,
    /// The course of sweeps that the host does not wait for: what they go by, and what they found.
    pub course: BufferId,
    /// The workgroups of the dispatches of such a sweep.
    pub sizes: BufferId,
    /// Factors, anchor and origin where the first of them began.
    pub begun: [BufferId; 3],
    /// Sums of splits, which a contraction adds up.
    pub partial: BufferId,
    /// a and b of a part of the data.
    pub entries: [BufferId; 2],
    /// Losses of workgroups.
    pub losses: BufferId,
}

impl FitBuffers {
    /// Adds them to a program.
    pub fn new(program: &mut Program, sizes: &FitSizes) -> FitBuffers {
        let parameters = sizes.parameters;
        let penalties_at = LossSlot::COUNT * SLOT_SUMS + 1;
        let p = program;
        FitBuffers {
            factors: p.add_storage("the factors", parameters),
            steps: p.add_scratch("the multiplicative steps", parameters),
            powers: p.add_scratch("powers of the factors", 3 * parameters),
            anchor: p.add_scratch("the anchor", parameters),
            origin: p.add_scratch("the factors where a sweep began", parameters),
            snapshot: p.add_scratch("the snapshot", parameters),
            products: p.add_scratch("products of factors", sizes.products),
            sums: p.add_scratch("numerator and denominator", 2 * sizes.numerator),
            quotients: p.add_scratch("numerator and denominator of a factor", 2 * sizes.factor),
            partial: p.add_scratch("partial sums", 1),
            entries: [p.add_scratch("a of a part", 1), p.add_scratch("b of a part", 1)],
            losses: p.add_scratch("losses of workgroups", 1),
            results: p
                .add_storage("sums of losses", penalties_at + LossSlot::COUNT * sizes.penalties),
            largest: p.add_scratch("largest entries", sizes.chunks),
            broken: p.add_storage("the status", 1),
            weights: p.add_buffer("the weights", 16, BufferKind::Uniform),
            course: p.add_storage("the course of sweeps", 1),
            sizes: p.add_buffer("workgroups of a sweep", 4, BufferKind::Sizes),
            begun: [1, 2, 3].map(|n| p.add_scratch(&format!("where sweeps began ({n})"), 1)),
        }
    }
}

/// A contiguous part of the data with its buffers.
#[derive(Clone, Debug)]
pub(crate) struct Slab {
    pub part: DataPart,
    pub values: BufferId,
    pub roles: Option<BufferId>,
    pub weights: Option<BufferId>,
    /// Entry parameters of the loss.
    pub parameters: Option<BufferId>,
}

impl Slab {
    /// A slab with buffers of its own.
    pub fn new(program: &mut Program, part: DataPart, format: &EntryFormat) -> Slab {
        let words = SlabWords::new(&part, format);
        Slab {
            values: program.add_storage("the data", words.values),
            roles: words.roles.map(|words| program.add_storage("roles", words)),
            weights: words.weights.map(|words| program.add_storage("weights", words)),
            parameters: words
                .parameters
                .map(|words| program.add_storage("entry parameters of the loss", words)),
            part,
        }
    }

    /// A slab in the buffers of another one, which grow if need be.
    pub fn sharing(&self, program: &mut Program, part: DataPart, format: &EntryFormat) -> Slab {
        let words = SlabWords::new(&part, format);
        program.grow(self.values, words.values);
        for (buffer, words) in [
            (self.roles, words.roles),
            (self.weights, words.weights),
            (self.parameters, words.parameters),
        ] {
            if let (Some(buffer), Some(words)) = (buffer, words) {
                program.grow(buffer, words);
            }
        }
        Slab { part, ..self.clone() }
    }
}

/// What a slab takes, in words.
struct SlabWords {
    values: usize,
    roles: Option<usize>,
    weights: Option<usize>,
    parameters: Option<usize>,
}

impl SlabWords {
    fn new(part: &DataPart, format: &EntryFormat) -> SlabWords {
        let entries = part.entries();
        let words = |bytes: u64| (entries as u64 * bytes).div_ceil(4) as usize;
        SlabWords {
            values: words(format.values.bytes()),
            roles: format.roles.then(|| entries.div_ceil(32) * 2),
            weights: format.weights.map(|kind| words(kind.bytes())),
            parameters: (format.parameters > 0).then(|| entries * format.parameters),
        }
    }
}
