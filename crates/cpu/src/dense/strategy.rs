//! How the tiles of a pass are computed: the few choices that a pass makes once, before it begins.

use nneinfact_core::loss::Tape;
use nneinfact_core::plan::OperandSide;
use nneinfact_simd::Elementwise;

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

/// A power of ŷ that is computed in registers, and the loss.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Power<T: Elementwise> {
    pub fraction: T::Fraction,
    /// Whether the exponent is the small one plus 1.
    pub plus_one: bool,
    /// The loss by ŷ times the power; 0 where none is wanted.
    pub loss: T,
}

impl<T: Elementwise> Power<T> {
    /// What a tape computes where that is a power, and perhaps the loss, of predictions that are at least
    /// `floor`; `None` where it is not, or has no faster way in this precision, or they may be subnormal.
    pub fn of(tape: &Tape, floor: T) -> Option<Power<T>> {
        let found = tape.prediction_power()?;
        let plus_one = found.power > 0.9;
        let fraction = T::fraction(found.power - f64::from(u8::from(plus_one)))?;
        (floor >= T::LEAST_NORMAL).then(|| Power {
            fraction,
            plus_one,
            loss: T::from_f64(found.loss.unwrap_or(0.0)),
        })
    }
}

/// What computes `a`, `b` and the losses of a tile.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Evaluation<T: Elementwise> {
    /// The tape of any loss: ŷ of a row panel is written to memory, and each instruction of the tape is a
    /// loop over it ([`TapePanel`](super::evaluate::TapePanel)).
    Tape,
    /// A microkernel that keeps ŷ in registers and writes `a` and `b` for the [`Reduction`].
    Entries(Microkernel<T>),
    /// The same microkernel, which also adds to the sums right there, where K is small.
    Sums(Microkernel<T>),
}

/// What is computed of ŷ in registers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Microkernel<T: Elementwise> {
    /// The Kullback–Leibler divergence ([`Kl`](super::kl::Kl)).
    Kl,
    /// A power of ŷ at implicit zeros.
    Power(Power<T>),
}

impl<T: Elementwise> Evaluation<T> {
    /// The fastest for this tape and contractions of size `depth`, where ŷ is at least `floor`.
    /// `denominator_alone` says that no data are read and no numerator is asked for.
    pub fn choose(tape: &Tape, depth: usize, denominator_alone: bool, floor: T) -> Evaluation<T> {
        let microkernel = match tape.is_divergence() {
            true => Some(Microkernel::Kl),
            false if denominator_alone => Power::of(tape, floor).map(Microkernel::Power),
            false => None,
        };
        match microkernel {
            None => Evaluation::Tape,
            Some(kernel) if depth < MIN_PACKED_DEPTH => Evaluation::Sums(kernel),
            Some(kernel) => Evaluation::Entries(kernel),
        }
    }
}
