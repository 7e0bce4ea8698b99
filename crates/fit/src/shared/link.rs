//! What processes tell each other besides sums: that one has failed, and why.

use std::ops::Range;

use super::slabs::Split;
use super::tree::{Merge, Numbers, Tree};
use nneinfact_core::engine::Reducer;
use nneinfact_core::error::{Error, Result};

/// Words from here on say that a process has failed: the first that of process 0.
const FAILED: u64 = 1 << 48;
/// A failure is told in so many characters at most.
const MOST_TOLD: usize = 4000;
/// Bytes in a number: of as many bits every number is exact.
const BYTES: usize = 6;

/// A process by itself.
pub(super) struct Alone;

impl Reducer for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn exchange(&mut self, with: usize, _: &[f64], _: &mut [f64]) -> Result<()> {
        Err(Error::Internal(format!("there is no process {with}")))
    }

    fn agree(&mut self, word: u64) -> Result<u64> {
        Ok(word)
    }
}

fn lost() -> Error {
    Error::Internal("a failure got lost".into())
}

/// The largest word of all processes.
pub(super) fn agree(reducer: &mut dyn Reducer, own: Result<u64>) -> Result<u64> {
    let (word, error) = match own {
        Ok(word) => (word.min(FAILED - 1), None),
        Err(error) => {
            reducer.failing(&error);
            (FAILED + reducer.rank() as u64, Some(error))
        }
    };
    let found = match (reducer.agree(word), error) {
        (Ok(found), None) => found,
        // Its own failure says more than that others cannot be reached.
        (Err(_), Some(error)) => return Err(error),
        (Err(unreachable), None) => return Err(unreachable),
        (Ok(found), error) => return Err(tell(reducer, (found - FAILED) as usize, error)),
    };
    match found.checked_sub(FAILED) {
        None => Ok(found),
        Some(rank) => Err(tell(reducer, rank as usize, None)),
    }
}

/// Tells all processes why this one has failed: a text, and whether the input is at fault.
fn tell(reducer: &mut dyn Reducer, rank: usize, own: Option<Error>) -> Error {
    let mine = reducer.rank() == rank;
    let text = own.as_ref().filter(|_| mine).map(|error| {
        let kind = if error.is_input() { 'i' } else { 'm' };
        std::iter::once(kind).chain(error.to_string().chars().take(MOST_TOLD)).collect::<String>()
    });
    let told = broadcast(reducer, rank, text.as_deref().unwrap_or("m"));
    match (own, told) {
        // The first of several is what all but itself say.
        (Some(own), _) => own,
        (None, Err(unreachable)) => unreachable,
        (None, Ok(text)) => Error::Process {
            rank,
            input: text.starts_with('i'),
            message: text.get(1..).unwrap_or("").to_string(),
        },
    }
}

/// Gives a text of one process to all.
pub(super) fn broadcast(reducer: &mut dyn Reducer, from: usize, text: &str) -> Result<String> {
    if reducer.rank() == from {
        let numbers = packed(text);
        for to in (0..reducer.size()).filter(|&to| to != from) {
            reducer.exchange(to, &[numbers.len() as f64], &mut [])?;
            reducer.exchange(to, &numbers, &mut [])?;
        }
        return Ok(text.into());
    }
    let mut length = [0.0];
    reducer.exchange(from, &[], &mut length)?;
    let mut numbers = vec![0.0; length[0] as usize];
    reducer.exchange(from, &[], &mut numbers)?;
    Ok(unpacked(&numbers))
}

/// A text as numbers: how many bytes, and the bytes, six in a number.
pub(super) fn packed(text: &str) -> Vec<f64> {
    let bytes = text.as_bytes();
    let number = |chunk: &[u8]| chunk.iter().rev().fold(0u64, |all, &b| all << 8 | u64::from(b));
    let numbers = bytes.chunks(BYTES).map(|chunk| number(chunk) as f64);
    std::iter::once(bytes.len() as f64).chain(numbers).collect()
}

pub(super) fn unpacked(numbers: &[f64]) -> String {
    let Some((&length, numbers)) = numbers.split_first() else { return String::new() };
    let mut bytes: Vec<u8> =
        numbers.iter().flat_map(|&x| (x as u64).to_le_bytes().into_iter().take(BYTES)).collect();
    bytes.truncate(length as usize);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What connects the processes of a fit whose data are cut.
pub(super) struct Link {
    reducer: Box<dyn Reducer>,
    owned: Vec<Range<usize>>,
    /// What this process has failed at, and the others do not know yet.
    pending: Option<Error>,
    /// All processes know that one has failed: nobody answers any more.
    broken: bool,
}

impl Link {
    pub fn new(reducer: Box<dyn Reducer>, split: &Split) -> Link {
        Link { reducer, owned: split.owned.clone(), pending: None, broken: false }
    }

    pub fn rank(&self) -> usize {
        self.reducer.rank()
    }

    /// Keeps what this process alone has failed at until all are told. `None` is no more than that.
    pub fn hold<T>(&mut self, own: Result<T>) -> Option<T> {
        match own {
            Ok(value) => Some(value),
            Err(error) => {
                self.pending.get_or_insert(error);
                None
            }
        }
    }

    /// As [`Engine::agree`](nneinfact_core::engine::Engine::agree).
    pub fn agree(&mut self, own: Result<u64>) -> Result<u64> {
        self.check()?;
        let own = self.pending.take().map_or(own, Err);
        let found = agree(self.reducer.as_mut(), own);
        self.broken = found.is_err();
        found
    }

    /// As [`together`].
    pub fn together<T>(&mut self, own: Result<T>) -> Result<T> {
        match own {
            Ok(value) => self.agree(Ok(0)).map(|_| value),
            Err(error) => Err(self.agree(Err(error)).err().unwrap_or_else(lost)),
        }
    }

    /// The text of process 0.
    pub fn first(&mut self, text: &str) -> Result<String> {
        self.check()?;
        broadcast(self.reducer.as_mut(), 0, text)
    }

    /// So many numbers of every slab, added up over all slabs.
    pub fn sum(&mut self, count: usize, own: Vec<Option<Numbers>>) -> Result<Numbers> {
        self.reduce(Merge::Add(count), own)
    }

    /// The numbers of all slabs, one list behind the other; `counts` says how many each has.
    pub fn join(&mut self, counts: &[usize], own: Vec<Option<Numbers>>) -> Result<Numbers> {
        self.reduce(Merge::Join(counts), own)
    }

    /// `None` of a slab stands for zeros.
    fn reduce(&mut self, merge: Merge<'_>, own: Vec<Option<Numbers>>) -> Result<Numbers> {
        self.check()?;
        let rank = self.reducer.rank();
        let error = self.pending.take();
        let status = if error.is_some() { rank as f64 + 1.0 } else { 0.0 };
        let slabs = self.owned[rank].clone();
        let numbers = slabs.zip(own).map(|(slab, own)| {
            let length = merge.length(&(slab..slab + 1));
            let mut numbers = vec![status];
            numbers.extend(own.into_iter().flatten());
            // One that has failed has nothing to say.
            numbers.resize(length, 0.0);
            numbers
        });
        let numbers = numbers.collect();
        let mut tree = Tree { owned: &self.owned, merge, reducer: self.reducer.as_mut() };
        let failed = match tree.reduce(numbers) {
            Ok(mut found) if found[0] == 0.0 && error.is_none() => {
                found.remove(0);
                return Ok(found);
            }
            Ok(found) if found[0] > 0.0 => {
                tell(self.reducer.as_mut(), found[0] as usize - 1, error)
            }
            // A process without slabs tells at the next word.
            Ok(mut found) => {
                self.pending = error;
                found.remove(0);
                return Ok(found);
            }
            Err(unreachable) => error.unwrap_or(unreachable),
        };
        self.broken = true;
        Err(failed)
    }

    fn check(&self) -> Result<()> {
        match self.broken {
            true => Err(Error::Internal("the processes of this fit have parted".into())),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_as_numbers() {
        for text in ["", "a", "sixsix", "seven77", "größer ≥ 3 \u{1f600}", &"x".repeat(1000)] {
            assert_eq!(unpacked(&packed(text)), text);
        }
    }
}
