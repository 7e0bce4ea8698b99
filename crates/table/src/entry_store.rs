//! The distinct entries of the tensor while rows arrive.

use std::hash::Hash;
use std::mem::size_of;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::error::Error;

/// What becomes of several rows of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Sum,
    Mean,
    Max,
}

/// Why an entry could not be taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// So many bytes would be needed.
    Memory(u64),
    /// The labels of all modes together do not fit in 128 bits.
    TooManyLabels,
}

pub(crate) const HELP: &str =
    "fewer labels (bins, rounded numbers, the most frequent values) or a higher limit would help";

/// The error for entries that could not be taken up.
pub(crate) fn refused(refusal: Refusal, limit: Option<u64>) -> Error {
    match refusal {
        Refusal::Memory(needed) => Error::Memory {
            what: "the entries of the tensor".into(),
            needed,
            available: limit.unwrap_or(needed),
            help: HELP.into(),
        },
        Refusal::TooManyLabels => Error::Unsupported(
            "the tensor would have more than 2^128 cells: fewer modes or fewer labels are needed"
                .into(),
        ),
    }
}

/// The finished entries: indices of every mode, and values, in C order.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub coords: Vec<Vec<u32>>,
    pub values: Vec<f64>,
}

/// How the codes of the rows become indices of the tensor.
#[derive(Debug)]
pub(crate) struct Finish<'a> {
    /// For every mode the index of every code.
    pub maps: Vec<&'a [u32]>,
    /// The lengths of the modes.
    pub shape: &'a [usize],
    /// Whether several codes can have one index.
    pub merges: bool,
}

/// A key made of the codes of all modes.
trait Key: Copy + Eq + Ord + Hash + Default + 'static {
    fn push(self, code: u32, width: u32) -> Self;
    fn pop(&mut self, width: u32) -> u32;
    fn times_plus(self, length: u64, index: u32) -> Self;
    fn divide(&mut self, length: u64) -> u32;
}

macro_rules! key {
    ($type:ty) => {
        impl Key for $type {
            fn push(self, code: u32, width: u32) -> Self {
                self << width | <$type>::from(code)
            }
            fn pop(&mut self, width: u32) -> u32 {
                let code = *self & ((1 << width) - 1);
                *self >>= width;
                code as u32
            }
            fn times_plus(self, length: u64, index: u32) -> Self {
                self.wrapping_mul(length.into()).wrapping_add(index.into())
            }
            fn divide(&mut self, length: u64) -> u32 {
                let length = <$type>::from(length.max(1));
                let index = *self % length;
                *self /= length;
                index as u32
            }
        }
    };
}
key!(u64);
key!(u128);

/// What is kept for an entry.
trait Cell: Copy + 'static {
    fn new(value: f64, operation: Operation) -> Self;
    fn add(&mut self, other: Self, operation: Operation);
    fn value(self) -> f64;
}

impl Cell for f64 {
    fn new(value: f64, operation: Operation) -> f64 {
        // A sum begins at zero: the sum of negative zeros is not one.
        if operation == Operation::Max { value } else { 0.0 + value }
    }

    fn add(&mut self, other: f64, operation: Operation) {
        match operation {
            Operation::Max => *self = if other > *self { other } else { *self },
            Operation::Sum | Operation::Mean => *self += other,
        }
    }

    fn value(self) -> f64 {
        self
    }
}

/// A sum and how many there were.
impl Cell for (f64, u64) {
    fn new(value: f64, _: Operation) -> Self {
        (0.0 + value, 1)
    }

    fn add(&mut self, other: Self, _: Operation) {
        self.0 += other.0;
        self.1 += other.1;
    }

    fn value(self) -> f64 {
        self.0 / self.1 as f64
    }
}

/// The entries so far. Their keys have as many bits as the codes seen so far need.
pub(crate) struct EntryStore {
    widths: Vec<u32>,
    operation: Operation,
    /// The most memory that the entries may take.
    pub allowance: u64,
    store: Box<dyn Store>,
}

impl EntryStore {
    /// No entries. `widths` are the bits to begin with.
    pub fn new(widths: Vec<u32>, operation: Operation) -> EntryStore {
        let wide = widths.iter().sum::<u32>() > 64;
        let store = empty(wide, operation);
        EntryStore { widths, operation, allowance: u64::MAX, store }
    }

    /// Adds a row to its entry.
    #[inline]
    pub fn add(&mut self, codes: &[u32], value: f64) -> Result<(), Refusal> {
        if codes.iter().zip(&self.widths).any(|(&code, width)| u64::from(code) >> width != 0) {
            self.widen(codes)?;
        }
        self.store.add(codes, &self.widths, value, self.operation, self.allowance)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// The memory that they take, in bytes.
    pub fn memory(&self) -> u64 {
        self.store.memory()
    }

    /// Shows the codes of all entries, in no order.
    pub fn visit(&self, see: &mut dyn FnMut(&[u32])) {
        self.store.visit(&self.widths, see);
    }

    /// Shows the codes of all entries with their sums and, of means, how many rows they are of, in no order.
    pub fn visit_sums(&self, see: &mut dyn FnMut(&[u32], f64, u64)) {
        self.store.visit_sums(&self.widths, see);
    }

    /// Adds what another store has of an entry, as [`visit_sums`](EntryStore::visit_sums) shows it.
    pub fn add_sum(&mut self, codes: &[u32], sum: f64, count: u64) -> Result<(), Refusal> {
        if codes.iter().zip(&self.widths).any(|(&code, width)| u64::from(code) >> width != 0) {
            self.widen(codes)?;
        }
        self.store.add_sum(codes, &self.widths, (sum, count), self.operation, self.allowance)
    }

    /// The entries as indices and values, in C order.
    pub fn finish(self, finish: &Finish<'_>) -> Result<Entries, Refusal> {
        self.store.finish(&self.widths, finish, self.operation, self.allowance)
    }

    #[cold]
    fn widen(&mut self, codes: &[u32]) -> Result<(), Refusal> {
        let needed = |(&code, &width): (&u32, &u32)| width.max(32 - code.leading_zeros());
        let exact: Vec<u32> = codes.iter().zip(&self.widths).map(needed).collect();
        // A bit to spare for what grew, as long as keys stay short.
        let spare: Vec<u32> = exact
            .iter()
            .zip(&self.widths)
            .map(|(&new, &old)| if new > old { (new + 1).min(32) } else { new })
            .collect();
        let short = |widths: &[u32], most| widths.iter().sum::<u32>() <= most;
        let widths = match () {
            () if short(&spare, 64) => spare,
            () if short(&exact, 64) => exact,
            () if short(&spare, 128) => spare,
            () if short(&exact, 128) => exact,
            () => return Err(Refusal::TooManyLabels),
        };
        let mut store = empty(!short(&widths, 64), self.operation);
        let old = std::mem::replace(&mut self.store, empty(false, self.operation));
        old.pour(&self.widths, &widths, &mut *store, self.allowance)?;
        self.store = store;
        self.widths = widths;
        Ok(())
    }
}

fn empty(wide: bool, operation: Operation) -> Box<dyn Store> {
    match (wide, operation) {
        (false, Operation::Mean) => Box::new(Map::<u64, (f64, u64)>::default()),
        (false, _) => Box::new(Map::<u64, f64>::default()),
        (true, Operation::Mean) => Box::new(Map::<u128, (f64, u64)>::default()),
        (true, _) => Box::new(Map::<u128, f64>::default()),
    }
}

/// A map of one type of keys and cells.
trait Store {
    fn add(
        &mut self,
        codes: &[u32],
        widths: &[u32],
        value: f64,
        operation: Operation,
        allowance: u64,
    ) -> Result<(), Refusal>;
    fn add_sum(
        &mut self,
        codes: &[u32],
        widths: &[u32],
        sum: (f64, u64),
        operation: Operation,
        allowance: u64,
    ) -> Result<(), Refusal>;
    fn put(&mut self, codes: &[u32], widths: &[u32], sum: f64, count: u64);
    fn reserve(&mut self, more: usize, allowance: u64) -> Result<(), Refusal>;
    fn len(&self) -> usize;
    fn memory(&self) -> u64;
    fn visit(&self, widths: &[u32], see: &mut dyn FnMut(&[u32]));
    fn visit_sums(&self, widths: &[u32], see: &mut dyn FnMut(&[u32], f64, u64));
    /// Moves all entries to another store with other widths.
    fn pour(
        self: Box<Self>,
        widths: &[u32],
        to_widths: &[u32],
        to: &mut dyn Store,
        allowance: u64,
    ) -> Result<(), Refusal>;
    fn finish(
        self: Box<Self>,
        widths: &[u32],
        finish: &Finish<'_>,
        operation: Operation,
        allowance: u64,
    ) -> Result<Entries, Refusal>;
}

struct Map<K, C>(HashMap<K, C>);

impl<K, C> Default for Map<K, C> {
    fn default() -> Self {
        Map(HashMap::new())
    }
}

fn pack<K: Key>(codes: &[u32], widths: &[u32]) -> K {
    codes.iter().zip(widths).fold(K::default(), |key, (&code, &width)| key.push(code, width))
}

fn unpack<K: Key>(mut key: K, widths: &[u32], codes: &mut [u32]) {
    for (code, &width) in codes.iter_mut().zip(widths).rev() {
        *code = key.pop(width);
    }
}

/// Cells that can be taken apart for another store.
trait Parts: Cell {
    fn parts(self) -> (f64, u64);
    fn of_parts(sum: f64, count: u64) -> Self;
}

impl Parts for f64 {
    fn parts(self) -> (f64, u64) {
        (self, 0)
    }
    fn of_parts(sum: f64, _: u64) -> f64 {
        sum
    }
}

impl Parts for (f64, u64) {
    fn parts(self) -> (f64, u64) {
        self
    }
    fn of_parts(sum: f64, count: u64) -> Self {
        (sum, count)
    }
}

impl<K: Key, C: Parts> Store for Map<K, C> {
    #[inline]
    fn add(
        &mut self,
        codes: &[u32],
        widths: &[u32],
        value: f64,
        operation: Operation,
        allowance: u64,
    ) -> Result<(), Refusal> {
        if self.0.len() == self.0.capacity() {
            self.reserve(1, allowance)?;
        }
        match self.0.entry(pack(codes, widths)) {
            Entry::Occupied(mut entry) => entry.get_mut().add(C::new(value, operation), operation),
            Entry::Vacant(entry) => {
                entry.insert(C::new(value, operation));
            }
        }
        Ok(())
    }

    fn add_sum(
        &mut self,
        codes: &[u32],
        widths: &[u32],
        (sum, count): (f64, u64),
        operation: Operation,
        allowance: u64,
    ) -> Result<(), Refusal> {
        if self.0.len() == self.0.capacity() {
            self.reserve(1, allowance)?;
        }
        let more = C::of_parts(sum, count);
        match self.0.entry(pack(codes, widths)) {
            Entry::Occupied(mut entry) => entry.get_mut().add(more, operation),
            Entry::Vacant(entry) => {
                entry.insert(more);
            }
        }
        Ok(())
    }

    fn put(&mut self, codes: &[u32], widths: &[u32], sum: f64, count: u64) {
        self.0.insert(pack(codes, widths), C::of_parts(sum, count));
    }

    #[cold]
    fn reserve(&mut self, more: usize, allowance: u64) -> Result<(), Refusal> {
        // A map grows to the next power of two, and both are there for a moment.
        let slots = (8 * (self.0.len() + more) as u64 / 7 + 1).next_power_of_two();
        let slots = slots.max(2 * self.0.capacity() as u64);
        let needed = self.memory() + slots * (size_of::<(K, C)>() as u64 + 1);
        if needed > allowance {
            return Err(Refusal::Memory(needed));
        }
        self.0.try_reserve(more).map_err(|_| Refusal::Memory(needed))
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn memory(&self) -> u64 {
        self.0.allocation_size() as u64
    }

    fn visit(&self, widths: &[u32], see: &mut dyn FnMut(&[u32])) {
        let mut codes = vec![0; widths.len()];
        for &key in self.0.keys() {
            unpack(key, widths, &mut codes);
            see(&codes);
        }
    }

    fn visit_sums(&self, widths: &[u32], see: &mut dyn FnMut(&[u32], f64, u64)) {
        let mut codes = vec![0; widths.len()];
        for (&key, &cell) in &self.0 {
            unpack(key, widths, &mut codes);
            let (sum, count) = cell.parts();
            see(&codes, sum, count);
        }
    }

    fn pour(
        self: Box<Self>,
        widths: &[u32],
        to_widths: &[u32],
        to: &mut dyn Store,
        allowance: u64,
    ) -> Result<(), Refusal> {
        to.reserve(self.0.len(), allowance.saturating_sub(self.memory()))?;
        let mut codes = vec![0; widths.len()];
        for (key, cell) in self.0 {
            unpack(key, widths, &mut codes);
            let (sum, count) = cell.parts();
            to.put(&codes, to_widths, sum, count);
        }
        Ok(())
    }

    fn finish(
        self: Box<Self>,
        widths: &[u32],
        finish: &Finish<'_>,
        operation: Operation,
        allowance: u64,
    ) -> Result<Entries, Refusal> {
        let cells = finish.shape.iter().try_fold(1u128, |n, &len| n.checked_mul(len as u128));
        match cells {
            Some(cells) if u64::try_from(cells).is_ok() => {
                sorted::<K, u64, C>(self.0, widths, finish, operation, allowance)
            }
            Some(_) => sorted::<K, u128, C>(self.0, widths, finish, operation, allowance),
            None => Err(Refusal::TooManyLabels),
        }
    }
}

/// The entries sorted by their index in C order.
fn sorted<K: Key, I: Key, C: Cell>(
    map: HashMap<K, C>,
    widths: &[u32],
    finish: &Finish<'_>,
    operation: Operation,
    allowance: u64,
) -> Result<Entries, Refusal> {
    let modes = widths.len();
    let each = size_of::<(I, C)>() + 4 * modes + 8;
    let needed = map.allocation_size() as u64 + (map.len() * each) as u64;
    let refusal = |_| Refusal::Memory(needed);
    if needed > allowance {
        return Err(Refusal::Memory(needed));
    }
    let mut codes = vec![0u32; modes];
    let mut place = |key: K| {
        unpack(key, widths, &mut codes);
        let indices = codes.iter().zip(&finish.maps).zip(finish.shape);
        indices.fold(I::default(), |place, ((&code, map), &length)| {
            let index = map.get(code as usize).copied().unwrap_or(0);
            place.times_plus(length as u64, index)
        })
    };
    let mut list: Vec<(I, C)> = Vec::new();
    list.try_reserve_exact(map.len()).map_err(refusal)?;
    if finish.merges {
        // Entries that become one are added in the order of their codes, always the same.
        let mut ordered: Vec<(K, C)> = Vec::new();
        ordered.try_reserve_exact(map.len()).map_err(refusal)?;
        ordered.extend(map);
        ordered.sort_unstable_by_key(|entry| entry.0);
        list.extend(ordered.into_iter().map(|(key, cell)| (place(key), cell)));
        list.sort_by_key(|entry| entry.0);
        list.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1.add(next.1, operation);
            }
            same
        });
    } else {
        list.extend(map.into_iter().map(|(key, cell)| (place(key), cell)));
        list.sort_unstable_by_key(|entry| entry.0);
    }

    let mut values = Vec::new();
    values.try_reserve_exact(list.len()).map_err(refusal)?;
    values.extend(list.iter().map(|entry| entry.1.value()));
    let mut coords = Vec::with_capacity(modes);
    for &length in finish.shape.iter().rev() {
        let mut indices = Vec::new();
        indices.try_reserve_exact(list.len()).map_err(refusal)?;
        indices.extend(list.iter_mut().map(|entry| entry.0.divide(length as u64)));
        coords.push(indices);
    }
    coords.reverse();
    Ok(Entries { coords, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_widen_without_loss() {
        for (modes, operation) in [(2, Operation::Sum), (4, Operation::Mean), (3, Operation::Max)] {
            let mut cells = EntryStore::new(vec![1; modes], operation);
            let codes = |i: u32| -> Vec<u32> { (0..modes).map(|m| i << (5 * m)).collect() };
            for i in 0..2000 {
                cells.add(&codes(i), f64::from(i)).unwrap();
                cells.add(&codes(i), 1.0 + f64::from(i)).unwrap();
            }
            assert_eq!(cells.len(), 2000);
            let mut seen = 0;
            cells.visit(&mut |c| {
                assert_eq!(c, codes(c[0]));
                seen += 1;
            });
            assert_eq!(seen, 2000);
            let same: Vec<u32> = (0..2000).collect();
            let none = vec![0; 2000 << (5 * (modes - 1))];
            let mut maps: Vec<&[u32]> = vec![&none; modes];
            maps[0] = &same;
            let mut shape = vec![1; modes];
            shape[0] = 2000;
            let entries = cells.finish(&Finish { maps, shape: &shape, merges: false }).unwrap();
            assert_eq!(entries.coords[0], same);
            let expected = match operation {
                Operation::Sum => 2.0 * 7.0 + 1.0,
                Operation::Mean => 7.5,
                Operation::Max => 8.0,
            };
            assert_eq!(entries.values[7], expected);
        }
    }

    #[test]
    fn too_much_is_refused() {
        let mut cells = EntryStore::new(vec![32; 4], Operation::Sum);
        cells.allowance = 10_000;
        let refused = (0..10_000u32).find_map(|i| cells.add(&[i, i, i, i], 1.0).err());
        assert!(matches!(refused, Some(Refusal::Memory(n)) if n > 10_000));
        let mut cells = EntryStore::new(vec![1; 5], Operation::Sum);
        assert_eq!(cells.add(&[u32::MAX; 5], 1.0), Err(Refusal::TooManyLabels));
    }
}
