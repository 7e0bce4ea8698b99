//! What a start from singular vectors asks of the data, wherever they are.

use ndarray::Array2;

use nneinfact_core::error::Result;
use nneinfact_core::model::{Index, Shapes};

/// Data that can be seen as matrices: some modes along the rows, the others along the columns.
pub(crate) trait DataMatrices {
    /// The data as a matrix.
    type Matrix<'a>: Unfolded
    where
        Self: 'a;

    /// The number of modes.
    fn modes(&self) -> usize;

    /// The matrix with these modes along its rows and the others along its columns. Indices of rows and
    /// columns run over their modes in C order.
    fn unfold(&self, rows: &[usize]) -> Result<Self::Matrix<'_>>;

    /// `⟨data, component⟩` for each combination of the indices `onto`; `None` where that cannot be
    /// written down.
    fn with_components(
        &self,
        shapes: &Shapes,
        factors: &[Vec<f64>],
        onto: &[Index],
    ) -> Result<Option<Vec<f64>>>;
}

/// The data as a matrix M.
pub(crate) trait Unfolded {
    /// The number of rows.
    fn rows(&self) -> usize;

    /// The number of columns.
    fn columns(&self) -> usize;

    /// `M Mᵀ`.
    fn gram(&self) -> Result<Array2<f64>>;

    /// `M Mᵀ X`, where `M Mᵀ` itself would be too large.
    fn gram_times(&self, x: &Array2<f64>) -> Result<Array2<f64>>;

    /// `M X`.
    fn times(&self, x: &Array2<f64>) -> Result<Array2<f64>>;
}
