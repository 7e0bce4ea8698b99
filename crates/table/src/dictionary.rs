//! Texts and numbers as small integers, in the order in which they were first seen.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// The distinct texts of a column, one after the other in one piece of memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dictionary {
    bytes: Vec<u8>,
    /// Where each text ends.
    ends: Vec<usize>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

/// Why a text could not be taken up.
#[derive(Debug, PartialEq)]
pub(crate) enum LabelRefusal {
    /// There is no memory, or more than 2^32 texts.
    Full,
    /// It is not UTF-8.
    NotText,
}

impl Dictionary {
    /// The number of a text; a new one if it was not seen before.
    pub fn intern(&mut self, text: &[u8]) -> Result<u32, LabelRefusal> {
        let hash = self.hasher.hash_one(text);
        if let Some(id) = self.table.find(hash, |&id| slice(&self.bytes, &self.ends, id) == text) {
            return Ok(*id);
        }
        std::str::from_utf8(text).map_err(|_| LabelRefusal::NotText)?;
        let id = u32::try_from(self.ends.len()).map_err(|_| LabelRefusal::Full)?;
        self.bytes.try_reserve(text.len()).map_err(|_| LabelRefusal::Full)?;
        self.ends.try_reserve(1).map_err(|_| LabelRefusal::Full)?;
        let Dictionary { bytes, ends, table, hasher } = self;
        let again = |&id: &u32| hasher.hash_one(slice(bytes, ends, id));
        table.try_reserve(1, again).map_err(|_| LabelRefusal::Full)?;
        bytes.extend_from_slice(text);
        ends.push(bytes.len());
        let again = |&id: &u32| hasher.hash_one(slice(bytes, ends, id));
        table.insert_unique(hash, id, again);
        Ok(id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text of a number.
    pub fn get(&self, id: u32) -> &str {
        std::str::from_utf8(slice(&self.bytes, &self.ends, id)).unwrap_or_default()
    }

    /// The memory that it takes, in bytes.
    pub fn memory(&self) -> u64 {
        (self.bytes.capacity() + 8 * self.ends.capacity() + 6 * self.table.capacity()) as u64
    }
}

fn slice<'a>(bytes: &'a [u8], ends: &[usize], id: u32) -> &'a [u8] {
    let id = id as usize;
    let start = if id == 0 { 0 } else { ends.get(id - 1).copied().unwrap_or(0) };
    let end = ends.get(id).copied().unwrap_or(start);
    bytes.get(start..end).unwrap_or_default()
}

/// The distinct numbers of a column.
#[derive(Clone, Debug, Default)]
pub(crate) struct NumberLabels {
    values: Vec<i64>,
    table: hashbrown::HashMap<i64, u32>,
    last: Option<(i64, u32)>,
}

impl NumberLabels {
    /// The number of a value; a new one if it was not seen before.
    pub fn intern(&mut self, value: i64) -> Result<u32, LabelRefusal> {
        if let Some((last, id)) = self.last
            && last == value
        {
            return Ok(id);
        }
        let id = match self.table.get(&value) {
            Some(&id) => id,
            None => {
                let id = u32::try_from(self.values.len()).map_err(|_| LabelRefusal::Full)?;
                self.values.try_reserve(1).map_err(|_| LabelRefusal::Full)?;
                self.table.try_reserve(1).map_err(|_| LabelRefusal::Full)?;
                self.values.push(value);
                self.table.insert(value, id);
                id
            }
        };
        self.last = Some((value, id));
        Ok(id)
    }

    /// The values, in the order of their numbers.
    pub fn values(&self) -> &[i64] {
        &self.values
    }

    /// The memory that it takes, in bytes.
    pub fn memory(&self) -> u64 {
        (8 * self.values.capacity() + 20 * self.table.capacity()) as u64
    }
}
