//! Entries that stay where they are, in a file mapped into the address space, and are read in
//! slabs.
//!
//! What is read does not depend on the slabs: a mapped tensor answers any read at any time, only
//! slower where its pages have to come from the file first. Slabs decide when pages are fetched
//! and when they are given back.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::storage::{Convert, ElementKind, Summary};
use super::{Dense, Storage};
use crate::error::Result;
use nneinfact_simd::Real;

/// A source of slabs of entries, in their order of memory. `io` implements it for files.
pub trait Slabs: Debug + Send + Sync {
    /// The number of entries.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Bytes of an entry where it lies.
    fn cell_bytes(&self) -> usize;
    /// The element type of the source, as Rust writes it.
    fn type_name(&self) -> &'static str;
    /// The entries as a slice, where they lie as memory would hold them.
    fn slice(&self) -> Option<Slice<'_>>;
    /// Reads the entries `offset`, `offset + stride`, … in any type.
    ///
    /// # Panics
    /// Where the run leaves the tensor, as indexing a slice does.
    fn read(&self, offset: usize, stride: usize, out: &mut [f64]);
    /// Brings entries into memory, and returns when they are there.
    fn fetch(&self, entries: Range<usize>);
    /// These entries are not needed soon.
    fn release(&self, entries: Range<usize>);
    /// How many bytes are to be worked on at a time.
    fn slab_bytes(&self) -> u64;
    /// Whether the source is still what it was when it was opened.
    fn check(&self) -> Result<()>;
    /// Whether the entries stay in a file. Else they are in memory, and belong to another tensor too.
    fn is_file(&self) -> bool {
        true
    }
}

/// Entries of a type that passes read without a conversion of their own.
#[derive(Clone, Copy, Debug)]
pub enum Slice<'a> {
    /// Whole numbers up to 2⁸ − 1.
    U8(&'a [u8]),
    /// Whole numbers up to 2¹⁶ − 1.
    U16(&'a [u16]),
    /// Whole numbers up to 2³² − 1.
    U32(&'a [u32]),
    /// Single precision.
    F32(&'a [f32]),
    /// Double precision.
    F64(&'a [f64]),
}

impl<'a> Slice<'a> {
    fn part(self, range: Range<usize>) -> Slice<'a> {
        match self {
            Slice::U8(v) => Slice::U8(&v[range]),
            Slice::U16(v) => Slice::U16(&v[range]),
            Slice::U32(v) => Slice::U32(&v[range]),
            Slice::F32(v) => Slice::F32(&v[range]),
            Slice::F64(v) => Slice::F64(&v[range]),
        }
    }
}

/// The entries of a [`Dense`](super::Dense) tensor that stay in a file: see
/// `map_npy`.
#[derive(Clone, Debug)]
pub struct Mapped {
    source: Arc<dyn Slabs>,
    /// What the entries need of an element type in memory, once somebody has read all of them.
    /// Plans depend on it, and they are to be those of the same data in memory.
    summary: Arc<OnceLock<Summary>>,
}

impl Mapped {
    pub(super) fn new(source: Arc<dyn Slabs>) -> Mapped {
        Mapped { source, summary: Arc::default() }
    }

    pub(super) fn source(&self) -> &Arc<dyn Slabs> {
        &self.source
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that the entries take in their file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.len() as u64 * self.source.cell_bytes() as u64
    }

    /// How many bytes of the file a fit works on at a time. About three times as many are in
    /// memory: those being worked on, those being fetched, and those on their way out.
    #[must_use]
    pub fn slab_bytes(&self) -> u64 {
        self.source.slab_bytes()
    }

    /// The element type of the file, as Rust writes it ("u16").
    #[must_use]
    pub fn file_type(&self) -> &'static str {
        self.source.type_name()
    }

    /// Some entries of a tensor in memory, which follow one another.
    pub(super) fn of_memory(of: Arc<Dense>, range: Range<usize>) -> Mapped {
        let mut summary = Summary::EMPTY;
        let mut values = vec![0.0f64; 4096];
        for start in range.clone().step_by(values.len()) {
            let values = &mut values[..4096.min(range.end - start)];
            of.load(start, 1, values);
            summary = summary.and(Convert::summary(values));
        }
        let mapped = Mapped::new(Arc::new(OfMemory { of, range }));
        mapped.set_summary(summary);
        mapped
    }

    /// Whether the entries stay in a file, and not in memory.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.source.is_file()
    }

    /// These entries alone.
    pub(super) fn window(&self, range: Range<usize>) -> Mapped {
        Mapped::new(Arc::new(Window { of: Arc::clone(&self.source), range }))
    }

    pub(super) fn set_summary(&self, summary: Summary) {
        // The same whoever comes first: all have read the same entries.
        let _ = self.summary.set(summary);
    }

    pub(super) fn summary(&self) -> Option<Summary> {
        self.summary.get().copied()
    }

    /// The smallest type that is exact, where it is known.
    pub(super) fn kind(&self) -> Option<ElementKind> {
        self.summary().map(Summary::kind)
    }

    pub(super) fn slice(&self) -> Option<Slice<'_>> {
        self.source.slice()
    }

    /// [`Storage::load`](super::Storage::load) by way of doubles.
    #[inline(never)]
    pub(super) fn load<T: Real>(&self, offset: usize, stride: usize, out: &mut [T]) {
        let mut buffer = [0.0; 256];
        for (i, out) in out.chunks_mut(buffer.len()).enumerate() {
            let values = &mut buffer[..out.len()];
            self.source.read(offset + i * 256 * stride, stride, values);
            out.iter_mut().zip(&*values).for_each(|(to, &x)| *to = T::from_f64(x));
        }
    }

    pub(super) fn fetch(&self, entries: Range<usize>) {
        self.source.fetch(entries);
    }

    pub(super) fn release(&self, entries: Range<usize>) {
        self.source.release(entries);
    }

    pub(super) fn check(&self) -> Result<()> {
        self.source.check()
    }

    /// Bytes of an entry in the file.
    pub(super) fn cell_bytes(&self) -> usize {
        self.source.cell_bytes()
    }
}

/// Entries of a source that follow one another.
#[derive(Debug)]
struct Window {
    of: Arc<dyn Slabs>,
    range: Range<usize>,
}

impl Window {
    fn moved(&self, entries: Range<usize>) -> Range<usize> {
        self.range.start + entries.start..self.range.start + entries.end
    }
}

impl Slabs for Window {
    fn len(&self) -> usize {
        self.range.len()
    }

    fn cell_bytes(&self) -> usize {
        self.of.cell_bytes()
    }

    fn type_name(&self) -> &'static str {
        self.of.type_name()
    }

    fn slice(&self) -> Option<Slice<'_>> {
        Some(self.of.slice()?.part(self.range.clone()))
    }

    fn read(&self, offset: usize, stride: usize, out: &mut [f64]) {
        self.of.read(self.range.start + offset, stride, out);
    }

    fn fetch(&self, entries: Range<usize>) {
        self.of.fetch(self.moved(entries));
    }

    fn release(&self, entries: Range<usize>) {
        self.of.release(self.moved(entries));
    }

    fn slab_bytes(&self) -> u64 {
        self.of.slab_bytes()
    }

    fn check(&self) -> Result<()> {
        self.of.check()
    }

    fn is_file(&self) -> bool {
        self.of.is_file()
    }
}

/// Entries of a tensor in memory that follow one another.
#[derive(Debug)]
struct OfMemory {
    of: Arc<Dense>,
    range: Range<usize>,
}

impl Slabs for OfMemory {
    fn len(&self) -> usize {
        self.range.len()
    }

    fn cell_bytes(&self) -> usize {
        self.of.entry_bytes()
    }

    fn type_name(&self) -> &'static str {
        self.of.storage().type_name()
    }

    fn slice(&self) -> Option<Slice<'_>> {
        let all = match self.of.storage() {
            Storage::U8(v) => Slice::U8(v),
            Storage::U16(v) => Slice::U16(v),
            Storage::U32(v) => Slice::U32(v),
            Storage::F32(v) => Slice::F32(v),
            Storage::F64(v) => Slice::F64(v),
            Storage::Mapped(mapped) => mapped.slice()?,
        };
        Some(all.part(self.range.clone()))
    }

    fn read(&self, offset: usize, stride: usize, out: &mut [f64]) {
        self.of.load(self.range.start + offset, stride, out);
    }

    fn fetch(&self, _: Range<usize>) {}

    fn release(&self, _: Range<usize>) {}

    fn slab_bytes(&self) -> u64 {
        u64::MAX
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn is_file(&self) -> bool {
        false
    }
}

impl PartialEq for Mapped {
    /// Whether they are the same file, opened once.
    fn eq(&self, other: &Mapped) -> bool {
        Arc::ptr_eq(&self.source, &other.source)
    }
}

/// Entries that are read at about the same time: ranges in order of memory that do not touch.
pub type Ranges = Vec<Range<usize>>;

/// Works through slabs one after the other, with the next one being fetched meanwhile and those
/// behind released. `work` is called with the number of each slab, in order, on this thread.
///
/// Only speed and memory depend on what the slabs say; tensors that are in memory do not matter.
pub fn in_slabs(
    tensors: &[&Dense],
    slabs: impl Iterator<Item = Ranges> + Send,
    mut work: impl FnMut(usize),
) {
    let mapped = in_files(tensors);
    let fetch = |slab: &Ranges| {
        for range in slab {
            mapped.iter().for_each(|m| m.fetch(range.clone()));
        }
    };
    let release = |range: Range<usize>| mapped.iter().for_each(|m| m.release(range.clone()));
    let mut now: Ranges = Vec::new();
    let mut number = 0;
    let mut step = |next: Ranges, released: &dyn Fn()| {
        without(&now, &next, &mut |range| release(range));
        released();
        now = next;
        work(number);
        number += 1;
    };
    let mut slabs = slabs;
    if !mapped.is_empty() {
        std::thread::scope(|scope| {
            // No room in the channel: it fetches a slab, hands it over, and goes on to the next.
            let (sender, receiver) = std::sync::mpsc::sync_channel::<Ranges>(0);
            // What is behind goes before it fetches: the slab after the next may want it back.
            let (go, gone) = std::sync::mpsc::channel::<()>();
            let slabs = &mut slabs;
            let helper = move || {
                for slab in slabs {
                    fetch(&slab);
                    if sender.send(slab).is_err() || gone.recv().is_err() {
                        break;
                    }
                }
            };
            let named = std::thread::Builder::new().name("nneinfact-slabs".into());
            // Without a helper nothing arrives here, and pages come as they are read.
            let _ = named.spawn_scoped(scope, helper);
            // A helper that is gone needs no word.
            let released = || go.send(()).unwrap_or_default();
            receiver.iter().for_each(|slab| step(slab, &released));
        });
    }
    slabs.for_each(|slab| step(slab, &|| ()));
    now.into_iter().for_each(release);
}

/// Works through all entries in their order of memory, a slab at a time where tensors stay in files
/// and at once where none does. Every range but the last is a multiple of `unit` long.
pub fn in_order(
    tensors: &[&Dense],
    entries: usize,
    unit: usize,
    mut work: impl FnMut(Range<usize>),
) {
    let step = slab_entries(tensors).map_or(entries, |n| n / unit * unit).max(unit);
    let range = |number: usize| number * step..entries.min((number + 1) * step);
    let slabs = (0..entries.div_ceil(step)).map(|number| vec![range(number)]);
    in_slabs(tensors, slabs, |number| work(range(number)));
}

/// How many entries make a slab of all tensors that stay in files together; `None` where none does.
pub fn slab_entries(tensors: &[&Dense]) -> Option<usize> {
    let mapped = in_files(tensors);
    let bytes = mapped.iter().map(|m| m.slab_bytes()).min()?;
    let each: usize = mapped.iter().map(|m| m.cell_bytes()).sum();
    Some((bytes as usize / each.max(1)).max(1))
}

/// What stays in files of these tensors.
fn in_files<'a>(tensors: &[&'a Dense]) -> Vec<&'a Mapped> {
    tensors.iter().filter_map(|t| t.storage().mapped()).filter(|m| m.is_file()).collect()
}

/// The parts of `a` that are not in `b`.
fn without(a: &[Range<usize>], b: &[Range<usize>], found: &mut impl FnMut(Range<usize>)) {
    let mut b = b.iter().peekable();
    for range in a {
        let mut start = range.start;
        while let Some(other) = b.peek() {
            if other.end <= start {
                b.next();
                continue;
            }
            if other.start >= range.end {
                break;
            }
            if other.start > start {
                found(start..other.start);
            }
            start = other.end;
            if start >= range.end {
                break;
            }
        }
        if start < range.end {
            found(start..range.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_ranges() {
        let mut found = Vec::new();
        without(&[0..10, 20..30, 40..50], &[2..4, 6..22, 24..26, 29..60], &mut |r| found.push(r));
        assert_eq!(found, [0..2, 4..6, 22..24, 26..29]);
        found.clear();
        without(&[5..9, 12..14], &[0..5, 9..12], &mut |r| found.push(r));
        assert_eq!(found, [5..9, 12..14]);
        found.clear();
        without(&[5..9, 11..12], &[0..10, 11..50], &mut |r| found.push(r));
        assert!(found.is_empty());
    }
}
