//! What processes tell each other besides sums, made of the two calls of a [`Reducer`].

use std::ops::Range;

use super::reducer::Reducer;
use crate::error::{Error, Result};

/// How data of some shape are shared: the mode along which, and of every process the range of its indices
/// that it has. The ranges follow each other; some may be empty.
pub type Shares<'a> = dyn Fn(&[usize]) -> Result<(usize, Vec<Range<usize>>)> + 'a;

/// The bytes of all processes, by rank; each gives its own.
///
/// # Errors
/// Where another process cannot be reached any more.
pub fn all_gather(reducer: &mut dyn Reducer, own: &[u8]) -> Result<Vec<Vec<u8>>> {
    let rank = reducer.rank();
    let mut all = vec![Vec::new(); reducer.size()];
    for with in rounds(rank, reducer.size()) {
        all[with] = exchange_bytes(reducer, with, own)?;
    }
    all[rank] = own.to_vec();
    Ok(all)
}

/// Gives every process the bytes that are meant for it, and answers what the others meant for this one,
/// by rank. There are as many as processes.
///
/// # Errors
/// [`Error::Internal`] where there are not; and where another process cannot be reached any more.
pub fn all_to_all(reducer: &mut dyn Reducer, mut parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    let (rank, size) = (reducer.rank(), reducer.size());
    if parts.len() != size {
        return Err(Error::Internal(format!("{} parts for {size} processes", parts.len())));
    }
    for with in rounds(rank, size) {
        let part = std::mem::take(&mut parts[with]);
        parts[with] = exchange_bytes(reducer, with, &part)?;
    }
    Ok(parts)
}

/// Goes on where all processes can: where one of them has failed, all fail with its message. Of several
/// the one of the lowest rank counts; whoever has failed keeps its own error.
///
/// To be called by all processes after everything that one alone may fail at, such as reading its data:
/// whoever left without a word would keep the others waiting.
///
/// ```
/// use nneinfact::engine::Reducer;
/// use nneinfact::fit::together;
/// # use nneinfact::Error;
/// # struct Alone;
/// # impl Reducer for Alone {
/// #     fn rank(&self) -> usize { 0 }
/// #     fn size(&self) -> usize { 1 }
/// #     fn exchange(&mut self, _: usize, _: &[f64], _: &mut [f64]) -> Result<(), Error> { Ok(()) }
/// #     fn agree(&mut self, word: u64) -> Result<u64, Error> { Ok(word) }
/// # }
/// # let mut reducer = Alone;
///
/// let read: Result<Vec<f64>, Error> = Ok(vec![1.0, 2.0]);
/// let mine = together(&mut reducer, read)?;
/// assert_eq!(mine.len(), 2);
/// # Ok::<(), nneinfact::Error>(())
/// ```
///
/// # Errors
/// Its own; [`Error::Process`] where another one has failed; and where one cannot be reached any more.
pub fn together<T>(reducer: &mut dyn Reducer, own: Result<T>) -> Result<T> {
    match own {
        Ok(value) => agree(reducer, Ok(0)).map(|_| value),
        Err(error) => Err(agree(reducer, Err(error)).err().unwrap_or_else(lost)),
    }
}

/// Words from here on say that a process has failed: the largest that it is process 0.
const FAILED: u64 = 1 << 48;
/// Of so many processes each has a word of its own.
const MOST_PROCESSES: u64 = 1 << 32;
/// A failure is told in so many characters at most.
const MOST_TOLD: usize = 4000;

/// The largest word of all processes; an error where one of them has failed, as in [`together`]. Words are
/// below 2⁴⁸.
///
/// # Errors
/// As [`together`].
pub fn agree(reducer: &mut dyn Reducer, own: Result<u64>) -> Result<u64> {
    if reducer.size() == 1 {
        return own;
    }
    let (word, error) = match own {
        Ok(word) => (word.min(FAILED - 1), None),
        Err(error) => {
            reducer.failing(&error);
            (FAILED + MOST_PROCESSES.saturating_sub(reducer.rank() as u64), Some(error))
        }
    };
    let found = match (reducer.agree(word), error) {
        (Ok(found), None) if found < FAILED => return Ok(found),
        (Ok(found), error) => (found, error),
        // What has happened here says more than that others cannot be reached.
        (Err(_), Some(error)) => return Err(error),
        (Err(unreachable), None) => return Err(unreachable),
    };
    let first = (FAILED + MOST_PROCESSES).saturating_sub(found.0) as usize;
    Err(failure(reducer, first, found.1))
}

/// What this process is to fail with where all know that process `rank` has failed, the first of those that
/// have: its `own` error, or what that process tells all now.
pub fn failure(reducer: &mut dyn Reducer, rank: usize, own: Option<Error>) -> Error {
    let mine = reducer.rank() == rank;
    // What an error is comes first, so that the exit status is the same everywhere.
    let text = own.as_ref().filter(|_| mine).map(|error| {
        let kind = if error.is_input() { 'i' } else { 'm' };
        std::iter::once(kind).chain(error.to_string().chars().take(MOST_TOLD)).collect::<String>()
    });
    let told = broadcast(reducer, rank, text.as_deref().unwrap_or("m").as_bytes());
    match (own, told) {
        // The first of several is what all but itself say.
        (Some(own), _) => own,
        (None, Err(unreachable)) => unreachable,
        (None, Ok(said)) => {
            let said = String::from_utf8_lossy(&said);
            let message = said.chars().skip(1).collect();
            Error::Process { rank, input: said.starts_with('i'), message }
        }
    }
}

fn lost() -> Error {
    Error::Internal("a failure got lost".into())
}

/// Gives bytes of process `from` to all.
///
/// # Errors
/// Where another process cannot be reached any more, or this one has no memory for them.
pub fn broadcast(reducer: &mut dyn Reducer, from: usize, own: &[u8]) -> Result<Vec<u8>> {
    if reducer.rank() == from {
        let length = [f64::from_bits(own.len() as u64)];
        let numbers = numbers(own);
        for to in (0..reducer.size()).filter(|&to| to != from) {
            reducer.exchange(to, &length, &mut [])?;
            reducer.exchange(to, &numbers, &mut [])?;
        }
        return Ok(own.to_vec());
    }
    let mut length = [0.0];
    reducer.exchange(from, &[], &mut length)?;
    let length = usize::try_from(length[0].to_bits()).unwrap_or(usize::MAX);
    let mut received: Vec<f64> = Vec::new();
    if received.try_reserve_exact(length.div_ceil(8)).is_err() {
        return Err(no_room(length, &format!("what process {from} sends to all")));
    }
    received.resize(length.div_ceil(8), 0.0);
    reducer.exchange(from, &[], &mut received)?;
    Ok(bytes(&received, length))
}

/// Bytes as numbers with these bits, eight in each.
pub fn numbers(bytes: &[u8]) -> Vec<f64> {
    let mut numbers = Vec::new();
    pack(bytes, &mut numbers);
    numbers
}

/// So many bytes, from the [`numbers`] that they were made.
pub fn bytes(numbers: &[f64], length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

/// The other processes in an order in which all can meet all: in every round the ranks that add up to one
/// number, so that whoever this one meets meets this one. No process waits for another in a circle, as
/// each waits only for those that are in an earlier round.
fn rounds(rank: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..size).map(move |round| (round + size - rank) % size).filter(move |&with| with != rank)
}

/// How many numbers go in one message at most.
const LONGEST: usize = 1 << 24;

fn exchange_bytes(reducer: &mut dyn Reducer, with: usize, own: &[u8]) -> Result<Vec<u8>> {
    let mut length = [0.0];
    reducer.exchange(with, &[f64::from_bits(own.len() as u64)], &mut length)?;
    let length = usize::try_from(length[0].to_bits()).ok().filter(|&n| n < isize::MAX as usize);
    let mut found: Vec<u8> = Vec::new();
    let room = length.filter(|&length| found.try_reserve_exact(length).is_ok());
    // Whether there is room is told before the other process sends.
    let mut others = [0.0];
    reducer.exchange(with, &[f64::from(u8::from(room.is_some()))], &mut others)?;
    if let (Some(length), [1.0]) = (room, others) {
        let (mut send, mut receive) = (Vec::new(), Vec::new());
        let messages = own.len().max(length).div_ceil(8 * LONGEST);
        for message in 0..messages {
            let at = message * 8 * LONGEST;
            pack(&own[at.min(own.len())..own.len().min(at + 8 * LONGEST)], &mut send);
            receive.clear();
            receive.resize(length.saturating_sub(at).min(8 * LONGEST).div_ceil(8), 0.0);
            reducer.exchange(with, &send, &mut receive)?;
            found.extend(receive.iter().flat_map(|x| x.to_bits().to_le_bytes()));
            found.truncate(length);
        }
        return Ok(found);
    }
    let what =
        format!("what process {with} sends to process {}, or the other way,", reducer.rank());
    Err(no_room(length.unwrap_or(usize::MAX), &what))
}

fn no_room(bytes: usize, what: &str) -> Error {
    Error::Memory {
        what: what.into(),
        needed: bytes as u64,
        available: crate::memory::available_memory().unwrap_or(0),
        help: "more processes, each with a smaller part, or fewer on a machine would fit".into(),
    }
}

/// Bytes as numbers with these bits.
fn pack(bytes: &[u8], numbers: &mut Vec<f64>) {
    numbers.clear();
    numbers.extend(bytes.chunks(8).map(|chunk| {
        let mut eight = [0; 8];
        eight[..chunk.len()].copy_from_slice(chunk);
        f64::from_bits(u64::from_le_bytes(eight))
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_is_a_matching_and_all_meet_all() {
        for size in 1..10 {
            for rank in 0..size {
                let mut met: Vec<usize> = rounds(rank, size).collect();
                met.sort_unstable();
                let others: Vec<usize> = (0..size).filter(|&other| other != rank).collect();
                assert_eq!(met, others);
            }
            for round in 0..size {
                for rank in 0..size {
                    let with = (round + size - rank) % size;
                    assert_eq!((round + size - with) % size, rank);
                }
            }
        }
    }

    #[test]
    fn bytes_are_numbers_and_back() {
        for length in [0, 1, 7, 8, 9, 33] {
            let bytes: Vec<u8> = (0..length).map(|i| 255 - i).collect();
            assert_eq!(super::bytes(&numbers(&bytes), bytes.len()), bytes);
        }
    }
}
