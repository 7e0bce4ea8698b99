//! The element type of passes.

/// The element type of passes over the data.
///
/// Factors are kept and updated in double precision on the CPU either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// Single precision: half the memory traffic, twice the SIMD width.
    #[default]
    F32,
    /// Double precision.
    F64,
}

impl Precision {
    /// "f32" or "f64".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F64 => "f64",
        }
    }

    /// Bytes of an element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Precision::F32 => 4,
            Precision::F64 => 8,
        }
    }
}
