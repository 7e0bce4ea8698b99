//! Tapes of a loss under the instruction set of a pass.

use pulp::{Simd, WithSimd};

use nneinfact_core::loss::{Scratch, Tape};
use nneinfact_simd::Elementwise;

/// [`Tape::run_with`] as a function of its own, called from within a dispatch to the instruction set `S`.
///
/// The interpreter has a loop for every instruction, and each becomes vectors. Inlined wherever a tape is
/// run it would be most of the program's build time, so it is compiled once for every instruction set and
/// precision. A block of entries is long enough for a call not to matter.
#[inline(never)]
pub(crate) fn run_tape<S: Simd, T: Elementwise>(
    simd: S,
    tape: &Tape,
    x: &[T],
    y: &[T],
    entry_parameters: &[&[T]],
    scratch: &mut Scratch<T>,
    outputs: &mut [&mut [T]],
) {
    simd.vectorize(RunTape { tape, x, y, entry_parameters, scratch, outputs });
}

/// The call that [`run_tape`] makes. A type, as only what is inlined into the function that
/// [`Simd::vectorize`] calls is compiled for the instruction set.
struct RunTape<'a, 'b, T> {
    tape: &'a Tape,
    x: &'a [T],
    y: &'a [T],
    entry_parameters: &'a [&'a [T]],
    scratch: &'a mut Scratch<T>,
    outputs: &'a mut [&'b mut [T]],
}

impl<T: Elementwise> WithSimd for RunTape<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let RunTape { tape, x, y, entry_parameters, scratch, outputs } = self;
        tape.run_with(simd, x, y, entry_parameters, scratch, outputs);
    }
}
