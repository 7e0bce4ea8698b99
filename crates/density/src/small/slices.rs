//! The slices of a core as matrices.

use nneinfact_simd::Aligned;

use super::padded;

/// The slices of a core, one after the other; each is a row-major matrix (left × right) whose rows
/// are padded with zeros to whole vectors.
#[derive(Clone)]
pub(crate) struct Slices {
    left: usize,
    count: usize,
    right: usize,
    data: Aligned<f64>,
}

impl Slices {
    /// Of an array of shape (left, slices, right) in C order.
    pub fn new([left, count, right]: [usize; 3], entries: &[f64]) -> Slices {
        let mut out = Slices::zeros([left, count, right]);
        let (width, len) = (out.width(), out.len());
        for (row, entries) in entries.chunks_exact(right).enumerate() {
            let (a, i) = (row / count, row % count);
            out.data[i * len + a * width..][..right].copy_from_slice(entries);
        }
        out
    }

    /// Zeros.
    pub fn zeros([left, count, right]: [usize; 3]) -> Slices {
        Slices { left, count, right, data: Aligned::zeros(left * count * padded(right)) }
    }

    /// Writes the entries back into an array in C order.
    pub fn store(&self, entries: &mut [f64]) {
        let (width, len) = (self.width(), self.len());
        for (row, entries) in entries.chunks_exact_mut(self.right).enumerate() {
            let (a, i) = (row / self.count, row % self.count);
            entries.copy_from_slice(&self.data[i * len + a * width..][..self.right]);
        }
    }

    /// Elements of a row, with its padding.
    pub fn width(&self) -> usize {
        padded(self.right)
    }

    /// Elements of a slice, with the padding of its rows.
    pub fn len(&self) -> usize {
        self.left * self.width()
    }

    /// All slices.
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    pub fn data_mut(&mut self) -> &mut [f64] {
        &mut self.data
    }

    /// Slice by slice.
    pub fn iter(&self) -> impl Iterator<Item = &[f64]> {
        self.data.chunks_exact(self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back() {
        for shape in [[2, 3, 5], [1, 4, 8], [3, 1, 9], [1, 1, 1]] {
            let entries: Vec<f64> = (1..=shape.iter().product()).map(|e| e as f64).collect();
            let slices = Slices::new(shape, &entries);
            assert_eq!(slices.data().iter().sum::<f64>(), entries.iter().sum::<f64>());
            // The second row of the last slice.
            if shape[0] > 1 {
                let last = slices.iter().last().unwrap();
                let at = (shape[1] + shape[1] - 1) * shape[2];
                assert_eq!(last[slices.width()], entries[at]);
            }
            let mut back = vec![0.0; entries.len()];
            slices.store(&mut back);
            assert_eq!(back, entries);
        }
    }
}
