//! The data of one process as matrices.

use ndarray::Array2;

use super::matrices::{DataMatrices, Unfolded};
use super::refine::with_data;
use super::unfold::{DataSource, Unfolding};
use nneinfact_core::error::Result;
use nneinfact_core::model::{Index, Shapes};

impl DataMatrices for DataSource<'_> {
    type Matrix<'b>
        = Unfolding<'b>
    where
        Self: 'b;

    fn modes(&self) -> usize {
        DataSource::modes(self)
    }

    fn unfold(&self, rows: &[usize]) -> Result<Unfolding<'_>> {
        Ok(self.matrix(rows))
    }

    fn with_components(
        &self,
        shapes: &Shapes,
        factors: &[Vec<f64>],
        onto: &[Index],
    ) -> Result<Option<Vec<f64>>> {
        Ok(with_data(shapes, self, factors, onto))
    }
}

impl Unfolded for Unfolding<'_> {
    fn rows(&self) -> usize {
        Unfolding::rows(self)
    }

    fn columns(&self) -> usize {
        Unfolding::columns(self)
    }

    fn gram(&self) -> Result<Array2<f64>> {
        Ok(Unfolding::gram(self))
    }

    fn gram_times(&self, x: &Array2<f64>) -> Result<Array2<f64>> {
        Ok(Unfolding::gram_times(self, x))
    }

    fn times(&self, x: &Array2<f64>) -> Result<Array2<f64>> {
        Ok(Unfolding::times(self, x))
    }
}
