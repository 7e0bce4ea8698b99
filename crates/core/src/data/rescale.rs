//! Tensors multiplied by a power of two, which changes no digit: for numbers whose scale is free but
//! out of the range of single precision.

use std::ops::Range;
use std::sync::Arc;

use super::mapped::{Slabs, Slice, in_order};
use super::storage::{Storage, StorageBuilder};
use super::{CooTensor, Dense, Prepared, StoredEntries};
use crate::error::Result;

/// 2^`exponent` as two factors, each a normal number although their product may not be one.
fn halves(exponent: i32) -> [f64; 2] {
    let half = exponent / 2;
    [2f64.powi(half), 2f64.powi(exponent - half)]
}

/// `x · 2^exponent`, for exponents of up to 2000 in size.
#[must_use]
pub fn scaled(x: f64, exponent: i32) -> f64 {
    let [first, second] = halves(exponent);
    x * first * second
}

/// The exponent that brings a number of this size between 1 and 2; 0 where the size is not a
/// positive number, and where it lies within 2^±`within`, so that nothing needs to be done.
#[must_use]
pub fn normalizing_exponent(size: f64, within: i32) -> i32 {
    if !(size > 0.0 && size.is_finite()) {
        return 0;
    }
    let exponent = size.log2().floor() as i32;
    if exponent.abs() <= within { 0 } else { -exponent }
}

/// The entries of a source times a power of two.
#[derive(Debug)]
struct Scaled {
    of: Arc<dyn Slabs>,
    halves: [f64; 2],
}

impl Slabs for Scaled {
    fn len(&self) -> usize {
        self.of.len()
    }

    fn cell_bytes(&self) -> usize {
        self.of.cell_bytes()
    }

    fn type_name(&self) -> &'static str {
        self.of.type_name()
    }

    fn slice(&self) -> Option<Slice<'_>> {
        None
    }

    fn read(&self, offset: usize, stride: usize, out: &mut [f64]) {
        self.of.read(offset, stride, out);
        let [first, second] = self.halves;
        out.iter_mut().for_each(|x| *x = *x * first * second);
    }

    fn fetch(&self, entries: Range<usize>) {
        self.of.fetch(entries);
    }

    fn release(&self, entries: Range<usize>) {
        self.of.release(entries);
    }

    fn slab_bytes(&self) -> u64 {
        self.of.slab_bytes()
    }

    fn check(&self) -> Result<()> {
        self.of.check()
    }
}

impl Storage {
    fn scaled(&self, exponent: i32) -> Storage {
        if let Some(mapped) = self.mapped().filter(|mapped| mapped.is_file()) {
            let of = Arc::clone(mapped.source());
            return Storage::Mapped(super::Mapped::new(Arc::new(Scaled {
                of,
                halves: halves(exponent),
            })));
        }
        let mut builder = StorageBuilder::new(self.len());
        let mut block = [0.0f64; 4096];
        for start in (0..self.len()).step_by(block.len()) {
            let block = &mut block[..4096.min(self.len() - start)];
            self.load(start, 1, block);
            block.iter_mut().for_each(|x| *x = scaled(*x, exponent));
            builder.push(block);
        }
        builder.finish()
    }
}

impl Dense {
    /// All entries times 2^`exponent`; what stays in a file stays there.
    #[must_use]
    pub fn scaled(&self, exponent: i32) -> Dense {
        match exponent {
            0 => self.clone(),
            _ => self.with_storage(self.storage().scaled(exponent)),
        }
    }

    /// The largest entry that is a number; 0 where none is above it.
    pub(super) fn largest(&self) -> f64 {
        let mut largest = 0.0f64;
        let mut block = [0.0f64; 4096];
        in_order(&[self], self.len(), 1, |entries| {
            for start in entries.clone().step_by(block.len()) {
                let block = &mut block[..4096.min(entries.end - start)];
                self.load(start, 1, block);
                largest = block.iter().fold(largest, |most, &x| most.max(x));
            }
        });
        largest
    }
}

impl Prepared {
    /// The same observations with values times 2^`exponent`. The sums that they tell
    /// ([`mean`](Prepared::mean), [`max`](Prepared::max)) stay those of the values before.
    #[must_use]
    pub fn with_scaled_values(&self, exponent: i32) -> Prepared {
        if exponent == 0 {
            return self.clone();
        }
        let list = |list: &Arc<CooTensor>| Arc::new(list.scaled(exponent));
        Prepared {
            values: Arc::new(self.values.scaled(exponent)),
            coo: self.coo.as_ref().map(list),
            only_stored: self.only_stored.as_ref().map(|stored| stored.scaled(exponent)),
            ..self.clone()
        }
    }
}

impl CooTensor {
    fn scaled(&self, exponent: i32) -> CooTensor {
        self.with_values(self.values().scaled(exponent))
    }
}

impl StoredEntries {
    /// The same entries with values times 2^`exponent`.
    #[must_use]
    pub fn scaled(&self, exponent: i32) -> StoredEntries {
        match exponent {
            0 => self.clone(),
            _ => self.with_entries(Arc::new(self.entries().scaled(exponent))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_change_no_digit() {
        let tiny = ndarray::array![[3e-40, 0.0], [1.25e-320, 7e-41]];
        let dense = Dense::from_array(&tiny).scaled(133);
        let wanted = [3e-40, 0.0, 1.25e-320, 7e-41].map(|x: f64| x * 2f64.powi(133));
        assert_eq!(dense.iter().collect::<Vec<_>>(), wanted);
        assert_eq!(scaled(scaled(0.7, -1022), 1022), 0.7);
        assert_eq!(scaled(5e-324, 1074), 1.0);
    }

    #[test]
    fn only_what_is_out_of_range_is_moved() {
        assert_eq!(normalizing_exponent(1.0, 40), 0);
        assert_eq!(normalizing_exponent(1e-3, 40), 0);
        for size in [1e-46, 3e36, 1e-320, 1e308] {
            let moved = scaled(size, normalizing_exponent(size, 40));
            assert!((1.0..2.0).contains(&moved), "{size} becomes {moved}");
        }
        assert_eq!([0.0, f64::NAN, f64::INFINITY].map(|x| normalizing_exponent(x, 0)), [0; 3]);
    }
}
