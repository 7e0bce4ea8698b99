//! What processes tell each other besides sums: that one has failed, and why.

use std::ops::Range;

use super::slabs::Split;
use super::tree::{Merge, Numbers, Tree};
use nneinfact_core::engine::Reducer;
use nneinfact_core::engine::collectives::{self, agree, broadcast, failure};
use nneinfact_core::error::{Error, Result};

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
        self.check()?;
        let own = self.pending.take().map_or(own, Err);
        let found = collectives::together(self.reducer.as_mut(), own);
        self.broken = found.is_err();
        found
    }

    /// The text of process 0.
    pub fn first(&mut self, text: &str) -> Result<String> {
        self.check()?;
        let said = broadcast(self.reducer.as_mut(), 0, text.as_bytes())?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// What the others have for this process, by rank, where each has something for all.
    pub fn all_to_all(&mut self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        self.check()?;
        collectives::all_to_all(self.reducer.as_mut(), parts)
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
        // The largest is that of the first process that has failed.
        let size = self.reducer.size();
        let status = if error.is_some() { (size - rank) as f64 } else { 0.0 };
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
                failure(self.reducer.as_mut(), size - found[0] as usize, error)
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
