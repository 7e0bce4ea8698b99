//! A list of numbers in the smallest element type that holds all of them exactly.

use std::collections::TryReserveError;
use std::ops::Range;

use super::mapped::{Mapped, Slice};
use crate::parallel;
use nneinfact_simd::{self, Real};
pub(super) use sealed::Convert;

/// Numbers in one of the element types that the passes read.
#[derive(Clone, Debug, PartialEq)]
pub enum Storage {
    /// Whole numbers up to 255.
    U8(Vec<u8>),
    /// Whole numbers up to 65,535.
    U16(Vec<u16>),
    /// Whole numbers up to 2³² − 1.
    U32(Vec<u32>),
    /// Numbers that single precision holds exactly; also NaN and infinities.
    F32(Vec<f32>),
    /// Everything else.
    F64(Vec<f64>),
    /// Numbers that stay in a file and are converted as they are read.
    Mapped(Mapped),
}

/// Entries whose squares are added up before they join the others.
pub(super) const SQUARED: usize = 1 << 14;

/// Runs `$body` with `$v` bound to the vector inside, whatever its element type, and `$other` with
/// `$m` bound to what is mapped.
macro_rules! with_vec {
    ($storage:expr, $v:ident => $body:expr, $m:ident => $other:expr) => {
        match $storage {
            Storage::U8($v) => $body,
            Storage::U16($v) => $body,
            Storage::U32($v) => $body,
            Storage::F32($v) => $body,
            Storage::F64($v) => $body,
            Storage::Mapped($m) => $other,
        }
    };
}

/// As `with_vec`, with a slice wherever the entries lie as memory holds them, mapped or not.
macro_rules! with_slice {
    ($storage:expr, $v:ident => $body:expr, $m:ident => $other:expr) => {
        match $storage.view() {
            View::Slice(Slice::U8($v)) => $body,
            View::Slice(Slice::U16($v)) => $body,
            View::Slice(Slice::U32($v)) => $body,
            View::Slice(Slice::F32($v)) => $body,
            View::Slice(Slice::F64($v)) => $body,
            View::Mapped($m) => $other,
        }
    };
}

/// Elements as they can be read.
enum View<'a> {
    Slice(Slice<'a>),
    Mapped(&'a Mapped),
}

impl Storage {
    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        with_vec!(self, v => v.len(), m => m.len())
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory that the elements take, in bytes; 0 where they stay in a file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        with_vec!(self, v => size_of_val(v.as_slice()) as u64, _m => 0)
    }

    /// The name of the element type, as Rust writes it ("u16"); that of the file where the elements
    /// stay in one.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Storage::U8(_) => "u8",
            Storage::U16(_) => "u16",
            Storage::U32(_) => "u32",
            Storage::F32(_) => "f32",
            Storage::F64(_) => "f64",
            Storage::Mapped(mapped) => mapped.file_type(),
        }
    }

    /// What stays in a file, if it does.
    #[must_use]
    pub fn mapped(&self) -> Option<&Mapped> {
        match self {
            Storage::Mapped(mapped) => Some(mapped),
            _ => None,
        }
    }

    /// The element type in memory, which for elements that stay in a file is what they would be
    /// kept as if they were read; F64 where nobody has looked at all of them.
    pub fn kind(&self) -> ElementKind {
        match self {
            Storage::U8(_) => ElementKind::U8,
            Storage::U16(_) => ElementKind::U16,
            Storage::U32(_) => ElementKind::U32,
            Storage::F32(_) => ElementKind::F32,
            Storage::F64(_) => ElementKind::F64,
            Storage::Mapped(mapped) => mapped.kind().unwrap_or(ElementKind::F64),
        }
    }

    #[inline(always)]
    fn view(&self) -> View<'_> {
        match self {
            Storage::U8(v) => View::Slice(Slice::U8(v)),
            Storage::U16(v) => View::Slice(Slice::U16(v)),
            Storage::U32(v) => View::Slice(Slice::U32(v)),
            Storage::F32(v) => View::Slice(Slice::F32(v)),
            Storage::F64(v) => View::Slice(Slice::F64(v)),
            Storage::Mapped(mapped) => match mapped.slice() {
                Some(slice) => View::Slice(slice),
                None => View::Mapped(mapped),
            },
        }
    }

    /// Element `i`, or `None` where there is none.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<f64> {
        with_vec!(self, v => v.get(i).map(|&x| Convert::to_f64(x)), m => {
            let mut value = [0.0];
            (i < m.len()).then(|| {
                m.load(i, 1, &mut value);
                value[0]
            })
        })
    }

    /// Whether any of `len` elements from `start` is not 0 (NaN is not).
    #[must_use]
    pub(super) fn any(&self, start: usize, len: usize) -> bool {
        // Without a way out of the loop, so that it becomes vectors.
        match self.view() {
            View::Slice(Slice::U8(v)) => v[start..start + len].iter().fold(0, |or, &x| or | x) != 0,
            View::Slice(Slice::U16(v)) => {
                v[start..start + len].iter().fold(0, |or, &x| or | x) != 0
            }
            View::Slice(Slice::U32(v)) => {
                v[start..start + len].iter().fold(0, |or, &x| or | x) != 0
            }
            View::Slice(Slice::F32(v)) => {
                v[start..start + len].iter().fold(false, |or, &x| or | (x != 0.0))
            }
            View::Slice(Slice::F64(v)) => {
                v[start..start + len].iter().fold(false, |or, &x| or | (x != 0.0))
            }
            View::Mapped(mapped) => {
                let mut values = [0.0f64; 64];
                (start..start + len).step_by(values.len()).any(|at| {
                    let values = &mut values[..(start + len - at).min(64)];
                    mapped.load(at, 1, values);
                    values.iter().any(|&x| x != 0.0)
                })
            }
        }
    }

    /// Adds the squares of some entries to a sum, in blocks of `SQUARED` in their order.
    pub fn add_squares(&self, range: Range<usize>, sum: &mut f64) {
        let starts: Vec<usize> = range.clone().step_by(SQUARED).collect();
        let block = |&start: &usize| -> f64 {
            let mut values = vec![0.0; SQUARED.min(range.end - start)];
            self.load(start, 1, &mut values);
            values.iter().map(|x: &f64| x * x).sum()
        };
        parallel::map(starts.len(), &|n| block(&starts[n])).iter().for_each(|x| *sum += x);
    }

    /// Asks for the elements from `offset` on to be brought into the caches; what is outside the
    /// list is left out. Says nothing to processors that are not asked so from Rust.
    #[inline(always)]
    pub fn prefetch(&self, start: usize, rows: &[usize], part: Range<usize>, last: bool) {
        with_slice!(self, v => nneinfact_simd::prefetch(v, start, rows, part, last), _m => ());
    }

    /// Reads the elements `offset`, `offset + stride`, … into `out`.
    ///
    /// # Panics
    /// Where the run leaves the list, as indexing a slice does.
    #[inline(always)]
    pub fn load<T: Real>(&self, offset: usize, stride: usize, out: &mut [T]) {
        with_slice!(self, v => load(v, offset, stride, out), m => m.load(offset, stride, out));
    }
}

/// One run of [`Storage::load`]. Always inlined, so that it is compiled for the instruction set
/// of the pass around it.
#[inline(always)]
fn load<A: Copy + Into<f64>, T: Real>(from: &[A], offset: usize, stride: usize, out: &mut [T]) {
    // Through f64, which every element type fits exactly: the compiler folds the two conversions
    // into one.
    if stride == 1 {
        let run = &from[offset..offset + out.len()];
        for (to, &x) in out.iter_mut().zip(run) {
            *to = T::from_f64(x.into());
        }
    } else {
        let from = &from[offset.min(from.len())..];
        for (i, to) in out.iter_mut().enumerate() {
            *to = T::from_f64(from[i * stride].into());
        }
    }
}

/// An element type that tensors can be given in: `bool`, all integers up to 64 bits, `f32`, `f64`.
///
/// The trait is sealed: it lists what can be converted, it is not for implementing.
pub trait Element: Convert {}

pub(super) mod sealed {
    use super::Summary;

    /// Conversions to the element types of [`super::Storage`]. Those to integers are only called
    /// on blocks whose [`Summary`] says that they are exact.
    pub trait Convert: Copy + Send + Sync + 'static {
        /// What element type a block needs.
        fn summary(block: &[Self]) -> Summary;
        /// Truncates to 32 bits.
        fn to_u32(self) -> u32;
        /// The nearest single.
        fn to_f32(self) -> f32;
        /// The nearest double.
        fn to_f64(self) -> f64;
    }
}

/// What a list of numbers needs of its element type. Summaries of parts combine to that of the
/// whole, so the type does not depend on how a list was cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// All are whole numbers from 0 to 2³² − 1.
    whole: bool,
    /// The bitwise or of them, if they are: it has as many bits as the largest.
    bits: u32,
    /// Single precision holds all of them.
    single: bool,
}

/// An element type that a [`Storage`] holds in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ElementKind {
    /// Whole numbers up to 2⁸ − 1.
    U8,
    /// Whole numbers up to 2¹⁶ − 1.
    U16,
    /// Whole numbers up to 2³² − 1.
    U32,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
}

impl ElementKind {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            ElementKind::U8 => 1,
            ElementKind::U16 => 2,
            ElementKind::U32 | ElementKind::F32 => 4,
            ElementKind::F64 => 8,
        }
    }

    /// Whether it holds whole numbers.
    pub fn is_whole(self) -> bool {
        matches!(self, ElementKind::U8 | ElementKind::U16 | ElementKind::U32)
    }
}

impl Summary {
    pub const EMPTY: Summary = Summary { whole: true, bits: 0, single: true };

    /// Whether all numbers are 0 or 1.
    pub fn is_zero_one(self) -> bool {
        self.whole && self.bits <= 1
    }

    pub fn and(self, other: Summary) -> Summary {
        Summary {
            whole: self.whole && other.whole,
            bits: self.bits | other.bits,
            single: self.single && other.single,
        }
    }

    pub(super) fn kind(self) -> ElementKind {
        match self {
            Summary { whole: true, bits: 0..=0xff, .. } => ElementKind::U8,
            Summary { whole: true, bits: 0..=0xffff, .. } => ElementKind::U16,
            Summary { whole: true, .. } => ElementKind::U32,
            Summary { single: true, .. } => ElementKind::F32,
            _ => ElementKind::F64,
        }
    }
}

macro_rules! integer {
    ($($t:ty),*) => {$(
        impl Element for $t {}
        impl Convert for $t {
            #[inline]
            fn summary(block: &[Self]) -> Summary {
                // The or of all has the sign bit if one is negative, and otherwise the bits of
                // the largest: one operation an element, which every instruction set has.
                let or = block.iter().fold(0, |or: $t, &x| or | x);
                #[allow(unused_comparisons, clippy::cast_lossless)]
                let whole = or >= 0 && or as u64 <= u64::from(u32::MAX);
                let single = (whole && or as u64 <= 1 << 24)
                    || block.iter().all(|&x| f64::from(x as f32) == x as f64);
                Summary { whole, bits: if whole { or as u32 } else { 0 }, single }
            }
            #[inline(always)]
            fn to_u32(self) -> u32 { self as u32 }
            #[inline(always)]
            fn to_f32(self) -> f32 { self as f32 }
            #[inline(always)]
            fn to_f64(self) -> f64 { self as f64 }
        }
    )*};
}
integer!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

/// 2⁵²: adding it to a double in [0, 2⁵²) rounds it to a whole number, which then stands in the
/// low bits. Unlike a cast, every instruction set does this in vectors.
const TWO_52: f64 = 4_503_599_627_370_496.0;

macro_rules! float {
    ($($t:ty),*) => {$(
        impl Element for $t {}
        impl Convert for $t {
            #[inline]
            fn summary(block: &[Self]) -> Summary {
                let (mut whole, mut single, mut bits) = (true, true, 0);
                for &x in block {
                    let x = f64::from(x);
                    let shifted = x + TWO_52;
                    whole &= (shifted - TWO_52 == x) & (x >= 0.0) & (x <= f64::from(u32::MAX));
                    single &= (f64::from(x as f32) == x) | x.is_nan();
                    bits |= shifted.to_bits();
                }
                Summary { whole, bits: if whole { bits as u32 } else { 0 }, single }
            }
            #[inline(always)]
            fn to_u32(self) -> u32 { (f64::from(self) + TWO_52).to_bits() as u32 }
            #[inline(always)]
            fn to_f32(self) -> f32 { self as f32 }
            #[inline(always)]
            fn to_f64(self) -> f64 { f64::from(self) }
        }
    )*};
}
float!(f32, f64);

impl Element for bool {}
impl Convert for bool {
    fn summary(block: &[Self]) -> Summary {
        Summary { bits: u32::from(block.contains(&true)), ..Summary::EMPTY }
    }
    #[inline(always)]
    fn to_u32(self) -> u32 {
        u32::from(self)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(u8::from(self))
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(u8::from(self))
    }
}

/// Grows a [`Storage`] from blocks of any element type and widens it when a block needs it.
#[derive(Clone, Debug)]
pub(super) struct StorageBuilder {
    storage: Storage,
    summary: Summary,
    /// How many elements to expect, so that the list is not moved while it grows.
    expected: usize,
}

/// Elements summarised and converted at a time: small enough to stay in the first-level cache
/// between the two.
const BLOCK: usize = 2048;

impl StorageBuilder {
    pub fn new(expected: usize) -> Self {
        let mut v = Vec::new();
        reserve(&mut v, expected);
        StorageBuilder { storage: Storage::U8(v), summary: Summary::EMPTY, expected }
    }

    pub fn len(&self) -> usize {
        self.storage.len()
    }

    /// Appends elements that are in memory already.
    pub fn push<T: Element>(&mut self, elements: &[T]) {
        if self.try_push(elements).is_err() {
            // As a vector would.
            let layout = std::alloc::Layout::for_value(elements);
            std::alloc::handle_alloc_error(layout);
        }
    }

    /// Appends elements of which there may be more than memory holds.
    pub fn try_push<T: Element>(&mut self, elements: &[T]) -> Result<(), TryReserveError> {
        for block in elements.chunks(BLOCK) {
            let summary = self.summary.and(T::summary(block));
            if summary != self.summary {
                self.widen(summary.kind())?;
                self.summary = summary;
            }
            with_vec!(&mut self.storage, v => v.try_reserve(block.len())?, _m => ());
            match &mut self.storage {
                Storage::U8(v) => v.extend(block.iter().map(|x| x.to_u32() as u8)),
                Storage::U16(v) => v.extend(block.iter().map(|x| x.to_u32() as u16)),
                Storage::U32(v) => v.extend(block.iter().map(|x| x.to_u32())),
                Storage::F32(v) => v.extend(block.iter().map(|x| x.to_f32())),
                Storage::F64(v) => v.extend(block.iter().map(|&x| Convert::to_f64(x))),
                // A builder holds what it was given.
                Storage::Mapped(_) => {}
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Storage {
        let mut storage = self.storage;
        with_vec!(&mut storage, v => v.shrink_to_fit(), _m => ());
        storage
    }

    fn widen(&mut self, kind: ElementKind) -> Result<(), TryReserveError> {
        let n = self.expected;
        let old = std::mem::replace(&mut self.storage, Storage::U8(Vec::new()));
        self.storage = match (kind, old) {
            (_, old @ Storage::Mapped(_))
            | (ElementKind::U8, old @ Storage::U8(_))
            | (ElementKind::U16, old @ Storage::U16(_))
            | (ElementKind::U32, old @ Storage::U32(_))
            | (ElementKind::F32, old @ Storage::F32(_))
            | (ElementKind::F64, old @ Storage::F64(_)) => old,
            (ElementKind::U16, old) => {
                with_vec!(old, v => Storage::U16(widened(v, |x| x.to_u32() as u16, n)?), m => Storage::Mapped(m))
            }
            (ElementKind::U32, old) => {
                with_vec!(old, v => Storage::U32(widened(v, Convert::to_u32, n)?), m => Storage::Mapped(m))
            }
            (ElementKind::F32, old) => {
                with_vec!(old, v => Storage::F32(widened(v, Convert::to_f32, n)?), m => Storage::Mapped(m))
            }
            (ElementKind::U8 | ElementKind::F64, old) => {
                with_vec!(old, v => Storage::F64(widened(v, Convert::to_f64, n)?), m => Storage::Mapped(m))
            }
        };
        Ok(())
    }
}

/// Converts from the end, giving the old memory back on the way: at no time are both lists held
/// whole, as zeroed memory is not backed before it is written to.
fn widened<A: Copy, B: Copy + Default>(
    mut old: Vec<A>,
    convert: impl Fn(A) -> B,
    expected: usize,
) -> Result<Vec<B>, TryReserveError> {
    let step = (old.len() / 16).max(1 << 20);
    let mut room: Vec<B> = Vec::new();
    room.try_reserve_exact(old.len())?;
    drop(room);
    let mut new = vec![B::default(); old.len()];
    reserve(&mut new, expected);
    while !old.is_empty() {
        let start = old.len().saturating_sub(step);
        for (to, &x) in new[start..].iter_mut().zip(&old[start..]) {
            *to = convert(x);
        }
        old.truncate(start);
        old.shrink_to_fit();
    }
    Ok(new)
}

/// Makes room for `expected` elements in all. Only a hint, so failing is not an error: what does
/// arrive is appended as usual.
fn reserve<A>(v: &mut Vec<A>, expected: usize) {
    let _ = v.try_reserve_exact(expected.saturating_sub(v.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored<T: Element>(blocks: &[&[T]]) -> Storage {
        let mut builder = StorageBuilder::new(0);
        blocks.iter().for_each(|b| builder.push(b));
        builder.finish()
    }

    #[test]
    fn takes_the_smallest_exact_type() {
        assert_eq!(stored(&[&[0i64, 255]]), Storage::U8(vec![0, 255]));
        assert_eq!(stored(&[&[0i64, 256]]), Storage::U16(vec![0, 256]));
        assert_eq!(stored(&[&[65_535.0f64]]), Storage::U16(vec![65_535]));
        assert_eq!(stored(&[&[65_536.0f32]]), Storage::U32(vec![65_536]));
        assert_eq!(stored(&[&[u64::from(u32::MAX)]]), Storage::U32(vec![u32::MAX]));
        assert_eq!(stored(&[&[4_294_967_295.0f64]]), Storage::U32(vec![u32::MAX]));
        assert_eq!(stored(&[&[4_294_967_296.0f64]]), Storage::F32(vec![4_294_967_296.0]));
        assert_eq!(stored(&[&[4_294_967_297i64]]), Storage::F64(vec![4_294_967_297.0]));
        assert_eq!(stored(&[&[0.5f64, 3.0]]), Storage::F32(vec![0.5, 3.0]));
        assert_eq!(stored(&[&[0.1f64]]), Storage::F64(vec![0.1]));
        assert_eq!(stored(&[&[-1i8]]), Storage::F32(vec![-1.0]));
        assert_eq!(stored(&[&[true, false]]), Storage::U8(vec![1, 0]));
        assert_eq!(stored(&[&[-0.0f64]]), Storage::U8(vec![0]));
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        let Storage::F32(v) = stored(&[&odd]) else { panic!("not f32") };
        assert!(v[0].is_nan() && v[1] == f32::INFINITY && v[2] == f32::NEG_INFINITY);
    }

    #[test]
    fn rounds_only_integers_beyond_2_to_the_53() {
        assert_eq!(stored(&[&[(1i64 << 53) - 1]]), Storage::F64(vec![9_007_199_254_740_991.0]));
        let v = stored(&[&[(1u64 << 53) + 1, 3, u64::MAX]]);
        assert_eq!(v.get(1), Some(3.0));
        assert_eq!(v.get(0), Some(9_007_199_254_740_992.0));
    }

    #[test]
    fn widening_keeps_what_is_there() {
        // Every order in which the types can grow, with enough elements for several steps.
        let kinds: [&[f64]; 5] = [&[7.0], &[300.0], &[70_001.0], &[0.25], &[0.1]];
        for first in 0..5 {
            for second in 0..5 {
                let many = vec![kinds[first][0]; (1 << 21) + 3];
                let v = stored(&[&many, kinds[second], &[16_777_217.0], kinds[first]]);
                assert_eq!(v.len(), many.len() + 3);
                assert_eq!(v.get(0), Some(kinds[first][0]));
                assert_eq!(v.get(many.len() - 1), Some(kinds[first][0]));
                assert_eq!(v.get(many.len()), Some(kinds[second][0]));
                assert_eq!(v.get(many.len() + 1), Some(16_777_217.0));
            }
        }
    }

    #[test]
    fn whole_numbers_join_singles_only_if_they_fit() {
        // 2²⁴ + 1 is the first whole number that single precision does not hold.
        assert_eq!(stored(&[&[16_777_216.0, 0.5f64]]), Storage::F32(vec![16_777_216.0, 0.5]));
        assert_eq!(stored(&[&[16_777_217.0], &[0.5f64]]), Storage::F64(vec![16_777_217.0, 0.5]));
        assert_eq!(stored(&[&[0.5f64], &[16_777_217.0]]), Storage::F64(vec![0.5, 16_777_217.0]));
    }

    #[test]
    fn loads_runs() {
        for storage in [
            stored(&[&[1u8, 2, 3, 4, 5, 6, 7]]),
            stored(&[&[1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 0.1]]),
        ] {
            let mut run = [0.0f32; 3];
            storage.load(2, 1, &mut run);
            assert_eq!(run, [3.0, 4.0, 5.0]);
            storage.load(0, 3, &mut run);
            assert_eq!(run, [1.0, 4.0, 7.0]);
            storage.load(6, 0, &mut run);
            assert_eq!(run, [7.0; 3]);
            storage.load(7, 1, &mut run[..0]);
            let mut run = [0.0f64; 2];
            storage.load(5, 1, &mut run);
            assert_eq!(run, [6.0, 7.0]);
        }
    }
}
