//! A tensor with a value in every entry.

use std::collections::TryReserveError;
use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayBase, ArrayD, Data, Dimension, IxDyn};

use super::mapped::in_order;
use super::memory_layout::MemoryLayout;
use super::storage::{SQUARED, StorageBuilder};
use super::{Element, Mapped, Slabs, Storage};
use crate::error::{Error, Result};
use crate::memory::entries;
use nneinfact_simd::Real;

/// A tensor with a value in every entry, held once in the smallest element type that is exact.
///
/// Whole numbers become `u8`, `u16` or `u32`, whatever type they came in; other numbers `f32`
/// where that is exact, else `f64`. Only integers beyond 2⁵³ are rounded, to the nearest `f64`.
/// Nothing is refused here: negative values, NaN and infinities are stored, and it is the fit
/// that checks them against the domain of its loss. (The sign of −0 and the payload of a NaN are
/// not kept.)
///
/// The entries may stand in memory in C order, Fortran order or any other permutation of the axes,
/// always without gaps; a fit reads them as they are.
///
/// ```
/// use nneinfact::data::{Dense, Storage};
///
/// let counts = ndarray::array![[0.0, 3.0], [1.0, 300.0]];
/// let tensor = Dense::from_array(&counts);
/// assert_eq!(tensor.shape(), [2, 2]);
/// assert_eq!(tensor.storage(), &Storage::U16(vec![0, 3, 1, 300]));
/// assert_eq!(tensor.get(&[1, 1]), Some(300.0));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    layout: MemoryLayout,
    storage: Storage,
}

/// The order of the entries in a stream or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// The last index varies fastest (C, numpy's default).
    #[default]
    C,
    /// The first index varies fastest (Fortran, MATLAB, Julia).
    Fortran,
}

impl Dense {
    /// The tensor in an array, in the array's own order of memory if that has no gaps, else in C
    /// order.
    pub fn from_array<S, D>(array: &ArrayBase<S, D>) -> Dense
    where
        S: Data,
        S::Elem: Element,
        D: Dimension,
    {
        let compact = array.strides().iter().all(|&s| s >= 0) && !array.is_empty();
        if let Some(entries) = array.as_slice_memory_order().filter(|_| compact)
            && let Some(layout) = MemoryLayout::of_compact(array.shape(), array.strides())
        {
            let mut builder = StorageBuilder::new(entries.len());
            builder.push(entries);
            return Dense { layout, storage: builder.finish() };
        }
        let mut builder = StorageBuilder::new(array.len());
        let mut buffer = Vec::with_capacity(4096);
        for &x in array {
            buffer.push(x);
            if buffer.len() == buffer.capacity() {
                builder.push(&buffer);
                buffer.clear();
            }
        }
        builder.push(&buffer);
        Dense { layout: c_layout_of(array.shape()), storage: builder.finish() }
    }

    /// The tensor of this shape whose entries are given in C order.
    ///
    /// # Errors
    /// [`Error::Shape`] where the number of entries is not that of the shape.
    pub fn from_vec<T: Element>(shape: &[usize], entries: Vec<T>) -> Result<Dense> {
        let mut builder = DenseBuilder::new(entries.len());
        builder.push(&entries);
        builder.finish(shape, Order::C)
    }

    /// The tensor of this shape whose storage is given in C order and kept as it is.
    pub(super) fn from_storage(shape: &[usize], storage: Storage) -> Result<Dense> {
        DenseBuilder::with_layout(shape, Order::C, storage)
    }

    /// The tensor of this shape whose entries stay in a source, in this order.
    pub fn from_slabs(shape: &[usize], order: Order, source: Arc<dyn Slabs>) -> Result<Dense> {
        DenseBuilder::with_layout(shape, order, Storage::Mapped(Mapped::new(source)))
    }

    /// Whether the entries stay in a file: see `map_npy`.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.storage.mapped().is_some_and(Mapped::is_file)
    }

    /// Whether the file that the entries stay in is what it was when it was opened.
    pub fn check(&self) -> Result<()> {
        self.storage.mapped().map_or(Ok(()), Mapped::check)
    }

    /// Bytes of an entry, in memory or in the file that it stays in.
    pub fn entry_bytes(&self) -> usize {
        self.storage.mapped().map_or(self.storage.kind().bytes(), Mapped::cell_bytes)
    }

    /// The sum of the squares of all entries, in the order of memory.
    pub fn sum_of_squares(&self) -> f64 {
        let mut sum = 0.0;
        in_order(&[self], self.storage.len(), SQUARED, |entries| {
            self.storage.add_squares(entries, &mut sum);
        });
        sum
    }

    /// The length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }

    /// The distance in memory between neighbours along each axis, in elements; never negative.
    #[must_use]
    pub fn strides(&self) -> &[usize] {
        &self.layout.strides
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.storage.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.storage.is_empty()
    }

    /// The memory that the entries take, in bytes; 0 where they stay in a file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.storage.bytes()
    }

    /// The entries in their order of memory.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Whether the entries stand in C order (axes of length 1 do not matter).
    #[must_use]
    pub fn is_c_order(&self) -> bool {
        self.layout.is_c()
    }

    /// The offset in memory of an entry, in elements, or `None` outside the tensor.
    #[must_use]
    pub fn offset(&self, index: &[usize]) -> Option<usize> {
        self.layout.offset(index)
    }

    /// The value of an entry, or `None` outside the tensor.
    #[must_use]
    pub fn get(&self, index: &[usize]) -> Option<f64> {
        self.storage.get(self.offset(index)?)
    }

    /// The value of the entry that is `linear`-th in C order, whatever the order of memory; `None`
    /// outside the tensor.
    #[must_use]
    pub fn get_linear_c(&self, linear: usize) -> Option<f64> {
        if linear >= self.len() {
            return None;
        }
        self.storage.get(self.layout.offset_of_c(linear))
    }

    /// The index of the entry that is `linear`-th in C order.
    #[must_use]
    pub fn index_of_c(&self, linear: usize) -> Option<Vec<usize>> {
        (linear < self.len()).then(|| self.layout.index_of_c(linear))
    }

    /// The values in C order.
    pub fn iter(&self) -> impl Iterator<Item = f64> + '_ {
        const BUFFER: usize = 1024;
        let c = c_layout_of(self.shape());
        let runs = c.runs_in(self.strides());
        let in_order = runs.same();
        (0..self.len()).step_by(BUFFER).flat_map(move |start| {
            let n = BUFFER.min(self.len() - start);
            let mut values = vec![0.0; n];
            if in_order {
                self.load(start, 1, &mut values);
            } else {
                let mut places = vec![0; n];
                runs.fill(start, &mut places);
                for (to, &place) in values.iter_mut().zip(&places) {
                    self.load(place as usize, 1, std::slice::from_mut(to));
                }
            }
            values
        })
    }

    /// A copy in double precision, in C order.
    #[must_use]
    pub fn to_array(&self) -> ArrayD<f64> {
        // Collected into a list of exactly the entries, so the shape always fits.
        ArrayD::from_shape_vec(IxDyn(self.shape()), self.iter().collect()).unwrap_or_default()
    }

    /// Asks for a part of some rows, in the order of memory, as
    /// [`math::prefetch`](nneinfact_simd::prefetch).
    #[inline(always)]
    pub fn prefetch(&self, start: usize, rows: &[usize], part: Range<usize>, last: bool) {
        self.storage.prefetch(start, rows, part, last);
    }

    /// Reads the entries at the offsets `offset`, `offset + stride`, … of the memory (in elements)
    /// into `out`. This is what a pass reads its data with: contiguous runs (`stride` 1) are
    /// converted in vectors of the instruction set that the caller is compiled for.
    ///
    /// # Panics
    /// Where the run leaves the tensor, as indexing a slice does.
    #[inline(always)]
    pub fn load<T: Real>(&self, offset: usize, stride: usize, out: &mut [T]) {
        self.storage.load(offset, stride, out);
    }

    /// This tensor with its entries in memory.
    pub fn in_memory(&self) -> Dense {
        if self.storage.mapped().is_none() {
            return self.clone();
        }
        let mut builder = StorageBuilder::new(self.len());
        let mut values = vec![0.0f64; 1 << 16];
        in_order(&[self], self.len(), 1, |range| {
            for start in range.clone().step_by(values.len()) {
                let values = &mut values[..(range.end - start).min(1 << 16)];
                self.load(start, 1, values);
                builder.push(values);
            }
        });
        Dense { layout: self.layout.clone(), storage: builder.finish() }
    }

    /// The entries with these indices along an axis, in the same order of memory and in the smallest
    /// type that is exact for them. What lies in one piece stays where it is, in a file or in memory.
    pub(super) fn slab(self: &Arc<Self>, axis: usize, range: Range<usize>) -> Dense {
        let layout = self.layout.cut(axis, range.len());
        let (stride, all) = (self.layout.strides[axis], self.layout.shape[axis]);
        let (step, first, length) = (all * stride, range.start * stride, range.len() * stride);
        if step == self.len() {
            let own = first..first + length;
            let mapped = match self.storage.mapped() {
                Some(mapped) if mapped.is_file() => mapped.window(own),
                _ => Mapped::of_memory(Arc::clone(self), own),
            };
            return Dense { layout, storage: Storage::Mapped(mapped) };
        }
        let mut builder = StorageBuilder::new(self.len() / all.max(1) * range.len());
        for outer in (0..self.len()).step_by(step.max(1)) {
            let run = outer + first..outer + first + length;
            match &self.storage {
                Storage::U8(v) => builder.push(&v[run]),
                Storage::U16(v) => builder.push(&v[run]),
                Storage::U32(v) => builder.push(&v[run]),
                Storage::F32(v) => builder.push(&v[run]),
                Storage::F64(v) => builder.push(&v[run]),
                Storage::Mapped(_) => {
                    let mut values = [0.0f64; 4096];
                    for start in run.clone().step_by(values.len()) {
                        let values = &mut values[..4096.min(run.end - start)];
                        self.load(start, 1, values);
                        builder.push(values);
                    }
                }
            }
        }
        Dense { layout, storage: builder.finish() }
    }

    /// Other entries in the same order of memory.
    pub(super) fn with_storage(&self, storage: Storage) -> Dense {
        Dense { layout: self.layout.clone(), storage }
    }

    pub(super) fn layout(&self) -> &MemoryLayout {
        &self.layout
    }

    /// A tensor without entries.
    pub(super) fn empty() -> Dense {
        Dense { layout: c_layout_of(&[0]), storage: Storage::U8(Vec::new()) }
    }

    /// This tensor in C order.
    pub fn in_c_order(self) -> Dense {
        let like = Dense { layout: c_layout_of(self.shape()), storage: Storage::U8(Vec::new()) };
        self.in_layout_of(&like)
    }

    /// This tensor in the order of memory of another of the same shape.
    pub fn in_layout_of(self, other: &Dense) -> Dense {
        let runs = other.layout.runs_in(self.strides());
        if runs.same() {
            return Dense { layout: other.layout.clone(), storage: self.storage };
        }
        let mut places = vec![0u64; 4096];
        let storage = match &self.storage {
            Storage::U8(v) => Storage::U8(permuted(v, &runs, &mut places)),
            Storage::U16(v) => Storage::U16(permuted(v, &runs, &mut places)),
            Storage::U32(v) => Storage::U32(permuted(v, &runs, &mut places)),
            Storage::F32(v) => Storage::F32(permuted(v, &runs, &mut places)),
            Storage::F64(v) => Storage::F64(permuted(v, &runs, &mut places)),
            // It has to come into memory for this. In its own order, so that the file is read once
            // from beginning to end.
            Storage::Mapped(_) => return self.in_memory().in_layout_of(other),
        };
        Dense { layout: other.layout.clone(), storage }
    }
}

fn permuted<A: Copy>(from: &[A], runs: &super::memory_layout::Runs, places: &mut [u64]) -> Vec<A> {
    let mut to = Vec::with_capacity(from.len());
    while to.len() < from.len() {
        let n = places.len().min(from.len() - to.len());
        runs.fill(to.len(), &mut places[..n]);
        to.extend(places[..n].iter().map(|&place| from[place as usize]));
    }
    to
}

/// C order for a shape that an existing array has, so that it cannot overflow.
fn c_layout_of(shape: &[usize]) -> MemoryLayout {
    MemoryLayout::c(shape)
        .unwrap_or_else(|| MemoryLayout { shape: shape.to_vec(), strides: shape.to_vec() })
}

impl<S, D> From<&ArrayBase<S, D>> for Dense
where
    S: Data,
    S::Elem: Element,
    D: Dimension,
{
    fn from(array: &ArrayBase<S, D>) -> Dense {
        Dense::from_array(array)
    }
}

impl<S, D> From<ArrayBase<S, D>> for Dense
where
    S: Data,
    S::Elem: Element,
    D: Dimension,
{
    fn from(array: ArrayBase<S, D>) -> Dense {
        Dense::from_array(&array)
    }
}

/// Builds a [`Dense`] from a stream of entries without ever holding them in the type they come in.
///
/// ```
/// use nneinfact::data::{DenseBuilder, Order, Storage};
///
/// let mut builder = DenseBuilder::new(4);
/// builder.push(&[1i64, 2]);
/// builder.push(&[3i64, 400]);
/// let tensor = builder.finish(&[2, 2], Order::Fortran)?;
/// assert_eq!(tensor.storage(), &Storage::U16(vec![1, 2, 3, 400]));
/// assert_eq!(tensor.get(&[0, 1]), Some(3.0));
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DenseBuilder {
    storage: StorageBuilder,
}

impl DenseBuilder {
    /// A builder that makes room for `expected` entries. A wrong number costs time or address
    /// space, nothing else; 0 is fine.
    #[must_use]
    pub fn new(expected: usize) -> DenseBuilder {
        DenseBuilder { storage: StorageBuilder::new(expected) }
    }

    /// Appends entries, and widens what is there where they need it.
    pub fn push<T: Element>(&mut self, entries: &[T]) {
        self.storage.push(entries);
    }

    /// As [`push`](DenseBuilder::push), for entries that may be more than memory holds.
    ///
    /// # Errors
    /// Where the system refuses the memory. What was there before still is.
    pub fn try_push<T: Element>(&mut self, entries: &[T]) -> Result<(), TryReserveError> {
        self.storage.try_push(entries)
    }

    /// The number of entries so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.storage.len()
    }

    /// Whether there is no entry yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensor of this shape whose entries were pushed in this order.
    ///
    /// # Errors
    /// [`Error::Shape`] where the number of entries is not that of the shape.
    pub fn finish(self, shape: &[usize], order: Order) -> Result<Dense> {
        DenseBuilder::with_layout(shape, order, self.storage.finish())
    }

    fn with_layout(shape: &[usize], order: Order, storage: Storage) -> Result<Dense> {
        let layout = match order {
            Order::C => MemoryLayout::c(shape),
            Order::Fortran => MemoryLayout::fortran(shape),
        };
        match layout {
            Some(layout) if layout.len() == storage.len() => Ok(Dense { layout, storage }),
            _ => Err(Error::Shape {
                what: "the data".into(),
                found: entries(storage.len() as u64),
                expected: format!("as many entries as the shape {shape:?} has"),
            }),
        }
    }
}
