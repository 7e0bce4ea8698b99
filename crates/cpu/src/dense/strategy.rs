//! How the tiles of a pass are computed: the few choices that a pass makes once, before it begins.

use nneinfact_core::loss::Tape;
use nneinfact_core::plan::OperandSide;

/// Contraction sizes K from which on [`Reduction::NtPacked`] is chosen: below, too many elements of its
/// vectors would be padding.
const MIN_PACKED_DEPTH: usize = 32;

/// The matrix product that adds a tile's entries `a` (or `b`) to the sums over the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// The output is among the rows and K is small: A·Bᵀ by dot products along the columns
    /// ([`gemm_nt_dot`](super::kernel::gemm_nt_dot)).
    NtDot,
    /// The output is among the rows and K fills a few vectors: A·Bᵀ with a transposed copy of B, whose
    /// rows, as those of the sums, are so many elements apart
    /// ([`gemm_nt_packed`](super::kernel::gemm_nt_packed)).
    NtPacked {
        /// K, padded to whole vectors.
        stride: usize,
    },
    /// The output is among the columns: Aᵀ·B ([`gemm_tn`](super::kernel::gemm_tn)).
    Tn,
}

impl Reduction {
    /// The one for an output on this side, contractions of size `depth` and vectors of at most
    /// `max_lanes` elements.
    pub fn choose(output_side: OperandSide, depth: usize, max_lanes: usize) -> Reduction {
        match output_side {
            OperandSide::Rhs => Reduction::Tn,
            OperandSide::Lhs if depth >= MIN_PACKED_DEPTH => {
                Reduction::NtPacked { stride: depth.next_multiple_of(max_lanes) }
            }
            OperandSide::Lhs => Reduction::NtDot,
        }
    }

    /// Elements from one row of the packed B panel to the next; `None` where none is packed.
    pub fn packed_stride(self) -> Option<usize> {
        match self {
            Reduction::NtPacked { stride } => Some(stride),
            Reduction::NtDot | Reduction::Tn => None,
        }
    }
}

/// What computes `a`, `b` and the losses of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evaluation {
    /// The tape of any loss: ŷ of a row panel is written to memory, and each instruction of the tape is a
    /// loop over it ([`TapePanel`](super::evaluate::TapePanel)).
    Tape,
    /// The microkernel for the Kullback–Leibler divergence, which keeps ŷ in registers and writes `a` and
    /// `b` for the [`Reduction`] ([`KlPanel`](super::kl::KlPanel)).
    KlEntries,
    /// The same microkernel, which also adds to the sums right there, where K is small.
    KlSums,
}

impl Evaluation {
    /// The fastest for this tape and contractions of size `depth`.
    pub fn choose(tape: &Tape, depth: usize) -> Evaluation {
        match tape.is_divergence() {
            false => Evaluation::Tape,
            true if depth < MIN_PACKED_DEPTH => Evaluation::KlSums,
            true => Evaluation::KlEntries,
        }
    }
}
