//! Rows and values of entries in as few bits as they need.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use super::task::Task;
use nneinfact_core::data::Storage;
use nneinfact_core::parallel;
use nneinfact_simd::Elementwise;

/// Rows relative to the first of a block.
pub(super) enum LocalRows {
    /// Of blocks of up to 256 rows.
    U8(Vec<u8>),
    /// Of blocks of up to 65,536 rows.
    U16(Vec<u16>),
    /// Of larger ones.
    U32(Vec<u32>),
}

impl LocalRows {
    /// Of so many entries, the largest of which is `most`; all are 0.
    fn zeros(entries: usize, most: u64) -> LocalRows {
        match most {
            0..=0xff => LocalRows::U8(vec![0; entries]),
            0x100..=0xffff => LocalRows::U16(vec![0; entries]),
            _ => LocalRows::U32(vec![0; entries]),
        }
    }

    /// Rows of the output, from the first of their task on.
    pub fn of_tasks(rows: &[u32], tasks: &[Task]) -> LocalRows {
        fn fill<R: TryFrom<u32> + Send>(to: &mut [R], rows: &[u32], tasks: &[Task]) {
            parallel::for_each_of(&mut of_each(to, tasks), &|n, to| {
                let task = &tasks[n];
                let first = task.rows.start as u32;
                for (to, &row) in to.iter_mut().zip(&rows[task.entries.clone()]) {
                    set(to, row - first);
                }
            });
        }
        let most = tasks.iter().map(|task| task.rows.len() as u64 - 1).max().unwrap_or(0);
        let mut local = LocalRows::zeros(rows.len(), most);
        match &mut local {
            LocalRows::U8(to) => fill(to, rows, tasks),
            LocalRows::U16(to) => fill(to, rows, tasks),
            LocalRows::U32(to) => fill(to, rows, tasks),
        }
        local
    }

    /// Rows at these places, each from the first of its block of 2^`shift` rows on.
    pub fn within(places: &[u32], rows: &[u32], shift: u32) -> LocalRows {
        fn fill<R: TryFrom<u32> + Send>(to: &mut [R], places: &[u32], rows: &[u32], mask: u64) {
            parallel::chunks(to, parallel::ENTRIES, &|first, to| {
                for (to, &place) in to.iter_mut().zip(&places[first..]) {
                    set(to, (u64::from(rows[place as usize]) & mask) as u32);
                }
            });
        }
        let mask = (1u64 << shift) - 1;
        let mut local = LocalRows::zeros(places.len(), mask);
        match &mut local {
            LocalRows::U8(to) => fill(to, places, rows, mask),
            LocalRows::U16(to) => fill(to, places, rows, mask),
            LocalRows::U32(to) => fill(to, places, rows, mask),
        }
        local
    }

    /// Writes the rows of some entries, of a block that begins with row `base`.
    #[inline(always)]
    pub fn decode(&self, entries: Range<usize>, base: u32, to: &mut [u32]) {
        match self {
            LocalRows::U8(local) => {
                to.iter_mut()
                    .zip(&local[entries])
                    .for_each(|(to, &row)| *to = base + u32::from(row));
            }
            LocalRows::U16(local) => {
                to.iter_mut()
                    .zip(&local[entries])
                    .for_each(|(to, &row)| *to = base + u32::from(row));
            }
            LocalRows::U32(local) => {
                to.iter_mut().zip(&local[entries]).for_each(|(to, &row)| *to = base + row);
            }
        }
    }
}

/// Sets a row that fits into its type, as [`LocalRows::zeros`] sees to it.
fn set<R: TryFrom<u32>>(to: &mut R, row: u32) {
    if let Ok(row) = R::try_from(row) {
        *to = row;
    }
}

/// The parts of something of all entries that belong to each task.
pub(super) fn of_each<'a, A>(mut all: &'a mut [A], tasks: &[Task]) -> Vec<&'a mut [A]> {
    let mut parts = Vec::with_capacity(tasks.len());
    for task in tasks {
        let (part, after) = std::mem::take(&mut all).split_at_mut(task.entries.len());
        parts.push(part);
        all = after;
    }
    parts
}

/// Values of entries.
pub(super) enum Values<T> {
    /// All have the same.
    Same(T),
    /// The place of each in a table of the different ones.
    Coded(Vec<u8>, Vec<T>),
    /// Each its own.
    Each(Vec<T>),
}

impl<T: Elementwise> Values<T> {
    /// Writes the values of some entries.
    #[inline(always)]
    pub fn decode(&self, entries: Range<usize>, to: &mut [T]) {
        match self {
            Values::Same(value) => to.fill(*value),
            Values::Coded(codes, table) => {
                let codes = &codes[entries];
                // A table of 256 needs no bounds check, as no code is beyond it.
                if let Ok(table) = <&[T; 256]>::try_from(table.as_slice()) {
                    to.iter_mut().zip(codes).for_each(|(to, &code)| *to = table[code as usize]);
                }
            }
            Values::Each(values) => to.copy_from_slice(&values[entries]),
        }
    }
}

/// The different values of entries, where these are at most 256, and the place of each entry's among
/// them.
pub(super) struct Codes<'a> {
    pub codes: Cow<'a, [u8]>,
    pub table: Vec<f64>,
}

impl Codes<'_> {
    /// `None` where there are more.
    pub fn new(values: &Storage) -> Option<Codes<'_>> {
        if let Storage::U8(bytes) = values
            && let Some(first) = bytes.first()
            && bytes.iter().any(|x| x != first)
        {
            // Bytes are such codes as they are.
            let table = (0..=u8::MAX).map(f64::from).collect();
            return Some(Codes { codes: Cow::Borrowed(bytes), table });
        }
        let mut table: Vec<f64> = Vec::new();
        let mut known: HashMap<u64, u8> = HashMap::new();
        // What was found last at each of these places, as hashing every value takes longer.
        let mut recent = [(u64::MAX, 0u8); 256];
        let mut codes = Vec::with_capacity(values.len());
        for i in 0..values.len() {
            let value = values.get(i).unwrap_or(0.0);
            let bits = value.to_bits();
            let at = &mut recent[(bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize];
            if at.0 != bits {
                let code = match known.get(&bits) {
                    Some(&code) => code,
                    None => {
                        let code = u8::try_from(table.len()).ok()?;
                        table.push(value);
                        known.insert(bits, code);
                        code
                    }
                };
                *at = (bits, code);
            }
            codes.push(at.1);
        }
        Some(Codes { codes: Cow::Owned(codes), table })
    }
}
