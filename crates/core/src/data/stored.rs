//! Observations as stored entries, with what is known of the implicit ones.

use std::sync::Arc;

use rayon::prelude::*;

use super::coo::LinearIndex;
use super::drawn_zeros::DrawnZeros;
use super::mapped::in_order;
use super::roles::{LOW, PER_WORD};
use super::storage::StorageBuilder;
use super::{CooTensor, Dense, Prepared, Role, Roles, Storage};
use crate::error::{Error, Result};
use crate::memory::zeros;
use crate::parallel;

/// What the implicit entries are, those that are not among the [`StoredEntries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implicit {
    /// Missing.
    Missing,
    /// Zeros that the factors are fitted to.
    Zeros,
    /// Zeros, each with the role that [`Prepared::roles`] gives it.
    ByRole,
}

/// How many entries would be stored beside implicit ones of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoredCounts {
    /// What the implicit entries are.
    pub implicit: Implicit,
    /// Stored entries that the factors are fitted to.
    pub train: u64,
    /// Masked entries: stored ones that the factors are not fitted to, missing or withheld.
    pub masked: u64,
}

/// Stored entries with their values and roles, in C order: what sparse passes are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEntries {
    entries: Arc<CooTensor>,
    /// `None` where all are for training.
    roles: Option<Vec<Role>>,
    implicit: Implicit,
    /// The implicit zeros that a split by strata drew, which are stored with the others.
    drawn: Option<Arc<DrawnZeros>>,
}

/// A stored entry: its index in C order, value and role.
pub(super) type Entry<K = u64> = (K, f64, Role);

impl StoredEntries {
    /// All entries of a list for training.
    pub(super) fn of(list: Arc<CooTensor>, implicit: Implicit) -> StoredEntries {
        StoredEntries { entries: list, roles: None, implicit, drawn: None }
    }

    /// From entries sorted by index.
    pub(super) fn from_entries<K: LinearIndex>(
        shape: &[usize],
        entries: &[Entry<K>],
        implicit: Implicit,
    ) -> StoredEntries {
        StoredEntries::from_parts(shape, &entries.chunks(1 << 16).collect::<Vec<_>>(), implicit)
    }

    /// From entries sorted by index, in parts.
    fn from_parts<K: LinearIndex>(
        shape: &[usize],
        parts: &[&[Entry<K>]],
        implicit: Implicit,
    ) -> StoredEntries {
        let mut values = StorageBuilder::new(parts.iter().map(|part| part.len()).sum());
        values.push(&of_all(parts, 0.0, |e| e.1));
        let keys = of_all(parts, K::from(0), |e| e.0);
        let list = Arc::new(CooTensor::from_keys(shape, keys, values.finish()));
        let plain = |n: usize| parts[n].iter().all(|e| e.2 == Role::Train);
        let plain = parallel::map(parts.len(), &plain).into_iter().all(|plain| plain);
        let roles = (!plain).then(|| parts.iter().copied().flatten().map(|e| e.2).collect());
        StoredEntries { entries: list, roles, implicit, drawn: None }
    }

    /// From entries sorted by index beside implicit zeros, with those of them that were drawn.
    pub(super) fn of_strata<K: LinearIndex>(
        shape: &[usize],
        entries: &[Entry<K>],
        drawn: Option<DrawnZeros>,
    ) -> StoredEntries {
        let stored = StoredEntries::from_entries(shape, entries, Implicit::Zeros);
        StoredEntries { drawn: drawn.map(Arc::new), ..stored }
    }

    /// The drawn zeros among the entries.
    pub(super) fn drawn(&self) -> Option<&DrawnZeros> {
        self.drawn.as_deref()
    }

    /// The weight of stored entry `i` in the mean loss of its role: that of a zero which a split
    /// [by strata](super::Observations::split_as) drew, else 1.
    #[must_use]
    pub fn weight(&self, i: usize) -> f64 {
        self.drawn.as_ref().map_or(1.0, |drawn| drawn.weight(i, self.role(i)))
    }

    /// Whether some entries have another weight than 1; such are masked ones.
    #[must_use]
    pub fn is_weighted(&self) -> bool {
        self.drawn.is_some()
    }

    /// The weights of all entries in C order, where some are not 1.
    ///
    /// # Errors
    /// `Error::Memory` where that takes more than `limit` bytes.
    pub(super) fn all_weights(&self, limit: u64) -> Result<Option<Dense>> {
        if self.drawn.is_none() {
            return Ok(None);
        }
        let shape = self.entries.shape();
        let volume = shape.iter().fold(1usize, |n, &m| n.saturating_mul(m));
        let needed = (volume as u64).saturating_mul(8);
        if needed > limit {
            return Err(Error::Memory {
                what: "the weights of drawn zeros among all entries".into(),
                needed,
                available: limit,
                help: "leave the data as a list".into(),
            });
        }
        let mut weights: Vec<f64> = zeros(volume, "the weights of drawn zeros")?;
        weights.fill(1.0);
        for (i, key) in self.entries.keys().into_iter().enumerate() {
            weights[key as usize] = self.weight(i);
        }
        Dense::from_storage(shape, Storage::F64(weights)).map(Some)
    }

    /// The same roles with other values.
    pub(super) fn with_entries(&self, entries: Arc<CooTensor>) -> StoredEntries {
        StoredEntries { entries, ..self.clone() }
    }

    /// The observed ones of these entries beside implicit ones that are missing: for a loss that
    /// accepts no zeros, so that none of the implicit entries is observed.
    fn without_zeros(self) -> StoredEntries {
        let missing = self.roles.iter().flatten().any(|&role| role == Role::Missing);
        if !missing {
            return StoredEntries { implicit: Implicit::Missing, ..self };
        }
        let keys = self.entries.keys();
        let places: Vec<usize> =
            (0..keys.len()).filter(|&i| self.role(i) != Role::Missing).collect();
        let entry = |&i: &usize| -> Entry {
            (keys[i], self.entries.values().get(i).unwrap_or(0.0), self.role(i))
        };
        let observed: Vec<Entry> = places.iter().map(entry).collect();
        let drawn = self.drawn.as_ref().map(|drawn| Arc::new(drawn.select(places.into_iter())));
        let shape = self.entries.shape();
        StoredEntries { drawn, ..StoredEntries::from_entries(shape, &observed, Implicit::Missing) }
    }

    /// The stored entries and their values. A missing entry has the value 0.
    #[must_use]
    pub fn entries(&self) -> &Arc<CooTensor> {
        &self.entries
    }

    /// The roles of the stored entries; `None` where all are for training.
    #[must_use]
    pub fn roles(&self) -> Option<&[Role]> {
        self.roles.as_deref()
    }

    /// What the implicit entries are.
    #[must_use]
    pub fn implicit(&self) -> Implicit {
        self.implicit
    }

    /// The role of stored entry `i`.
    #[must_use]
    pub fn role(&self, i: usize) -> Role {
        self.roles.as_ref().map_or(Role::Train, |r| r.get(i).copied().unwrap_or(Role::Missing))
    }

    /// How many entries are stored.
    #[must_use]
    pub fn counts(&self) -> StoredCounts {
        let all = self.entries.len() as u64;
        let train = match &self.roles {
            Some(roles) => roles.iter().filter(|&&r| r == Role::Train).count() as u64,
            None => all,
        };
        StoredCounts { implicit: self.implicit, train, masked: all - train }
    }

    /// The roles of all entries in C order, for a shape of `n` entries.
    pub(super) fn all_roles(&self, n: usize) -> Option<Roles> {
        let other = match self.implicit {
            Implicit::Missing => Role::Missing,
            Implicit::Zeros | Implicit::ByRole => Role::Train,
        };
        if self.roles.is_none() && other == Role::Train {
            return None;
        }
        let mut words = vec![LOW * other as u64; n.div_ceil(PER_WORD)];
        if !n.is_multiple_of(PER_WORD)
            && let Some(last) = words.last_mut()
        {
            *last &= (1 << (2 * (n % PER_WORD))) - 1;
        }
        words.push(0);
        let mut counts = [0; 4];
        counts[other as usize] = (n - self.entries.len()) as u64;
        for (i, key) in self.entries.keys().into_iter().enumerate() {
            let role = self.role(i);
            let (word, shift) = (key as usize / PER_WORD, 2 * (key as usize % PER_WORD));
            words[word] = words[word] & !(3 << shift) | (role as u64) << shift;
            counts[role as usize] += 1;
        }
        Some(Roles::from_words(words, n, counts))
    }
}

/// Something of all entries, in their order.
fn of_all<K: LinearIndex, T: Copy + Send>(
    parts: &[&[Entry<K>]],
    zero: T,
    of: impl Fn(&Entry<K>) -> T + Sync,
) -> Vec<T> {
    let mut all = vec![zero; parts.iter().map(|part| part.len()).sum()];
    let mut left = all.as_mut_slice();
    let mut places = Vec::with_capacity(parts.len());
    for part in parts {
        let (place, after) = std::mem::take(&mut left).split_at_mut(part.len());
        places.push(place);
        left = after;
    }
    parallel::for_each_of(&mut places, &|n, place| {
        for (to, entry) in place.iter_mut().zip(parts[n]) {
            *to = of(entry);
        }
    });
    all
}

/// Entries of a unit of parallel work; a multiple of the entries in a word of roles.
const TASK: usize = 1 << 17;

/// Where the values of entries are looked up.
pub(super) enum Lookup<'a> {
    Dense(&'a Dense),
    /// Indices in C order, sorted, with their values.
    List(&'a [u64], &'a Storage),
}

impl Lookup<'_> {
    /// The values of the entries from `start` in memory order (C order for a list). `false` where
    /// all are 0, and then they are not written.
    fn values(&self, start: usize, out: &mut [f64]) -> bool {
        match self {
            Lookup::Dense(dense) => {
                let any = dense.storage().any(start, out.len());
                if any {
                    dense.load(start, 1, out);
                }
                any
            }
            Lookup::List(keys, values) => {
                let end = (start + out.len()) as u64;
                let from = keys.partition_point(|&k| k < start as u64);
                let stored = keys[from..].iter().take_while(|&&k| k < end);
                let mut any = false;
                for (i, &key) in stored.enumerate() {
                    if !any {
                        out.fill(0.0);
                    }
                    out[key as usize - start] = values.get(from + i).unwrap_or(0.0);
                    any = true;
                }
                any
            }
        }
    }
}

/// Collects the entries that have to be stored, out of `n` entries in some order of memory; in
/// parts that follow one another.
fn entries(
    lookup: &Lookup<'_>,
    roles: Option<&Roles>,
    n: usize,
    implicit: Implicit,
) -> Vec<Vec<Entry>> {
    let dense: &[&Dense] = match lookup {
        Lookup::Dense(dense) => &[*dense],
        Lookup::List(..) => &[],
    };
    let mut parts: Vec<Vec<Entry>> = Vec::new();
    in_order(dense, n, TASK, |range| {
        let tasks = range.start / TASK..range.end.div_ceil(TASK);
        parts.extend(parallel::map(tasks.len(), &|task| {
            let task = tasks.start + task;
            let mut found = Vec::new();
            let mut values = [0.0; PER_WORD];
            for start in (task * TASK..n.min((task + 1) * TASK)).step_by(PER_WORD) {
                let len = PER_WORD.min(n - start);
                let word = roles.map_or(LOW, |r| r.words()[start / PER_WORD]);
                let skip = implicit == Implicit::Missing && word == 0;
                if skip {
                    continue;
                }
                let any = lookup.values(start, &mut values[..len]);
                let plain = word == LOW;
                if !any {
                    match implicit {
                        Implicit::ByRole => continue,
                        Implicit::Zeros if plain => continue,
                        _ => values[..len].fill(0.0),
                    }
                }
                for (i, &x) in values[..len].iter().enumerate() {
                    let role = Role::ALL[(word >> (2 * i) & 3) as usize];
                    let stored = match implicit {
                        Implicit::Missing => role != Role::Missing,
                        Implicit::Zeros => role != Role::Train || x != 0.0,
                        Implicit::ByRole => role != Role::Missing && x != 0.0,
                    };
                    if stored {
                        let x = if role == Role::Missing { 0.0 } else { x };
                        found.push(((start + i) as u64, x, role));
                    }
                }
            }
            found
        }));
    });
    parts
}

fn slices(parts: &[Vec<Entry>]) -> Vec<&[Entry]> {
    parts.iter().map(Vec::as_slice).collect()
}

impl Prepared {
    /// The ways to write these observations as stored entries, for a loss that accepts zeros or one
    /// that does not, in which case no observed entry may be one. None with weights other than 0
    /// and 1, which implicit zeros do not have.
    #[must_use]
    pub fn stored_counts(&self, accepts_zeros: bool) -> Vec<StoredCounts> {
        if self.weights().is_some() {
            return Vec::new();
        }
        let count = |role| self.count(role);
        let (train, withheld) =
            (count(Role::Train), count(Role::Validation) + count(Role::HeldOut));
        if !accepts_zeros {
            return vec![StoredCounts { implicit: Implicit::Missing, train, masked: withheld }];
        }
        if let Some(stored) = self.only_stored() {
            return vec![stored.counts()];
        }
        let nonzero = |role| self.nonzero(role);
        let mut found = vec![StoredCounts {
            implicit: Implicit::Zeros,
            train: nonzero(Role::Train),
            masked: withheld + count(Role::Missing),
        }];
        if self.roles().is_some() {
            found.push(StoredCounts { implicit: Implicit::Missing, train, masked: withheld });
            found.push(StoredCounts {
                implicit: Implicit::ByRole,
                train: nonzero(Role::Train),
                masked: nonzero(Role::Validation) + nonzero(Role::HeldOut),
            });
        }
        found
    }

    /// The stored entries that go with one of [`Prepared::stored_counts`].
    #[must_use]
    pub fn stored(&self, implicit: Implicit) -> StoredEntries {
        if let Some(stored) = self.only_stored() {
            return match (implicit, stored.implicit) {
                (Implicit::Missing, Implicit::Zeros) => stored.clone().without_zeros(),
                _ => stored.clone(),
            };
        }
        let n = self.shape().iter().product();
        if let Some(coordinates) = self.coo() {
            if self.roles().is_none() {
                return StoredEntries::of(Arc::clone(coordinates), implicit);
            }
            let keys = coordinates.keys();
            let lookup = Lookup::List(&keys, coordinates.values());
            let parts = entries(&lookup, self.roles(), n, implicit);
            return StoredEntries::from_parts(self.shape(), &slices(&parts), implicit);
        }
        let values = self.values();
        let parts = entries(&Lookup::Dense(values), self.roles(), n, implicit);
        if values.is_c_order() {
            return StoredEntries::from_parts(self.shape(), &slices(&parts), implicit);
        }
        let mut entries = parts.concat();
        let runs = values.layout().runs_in_c();
        parallel::chunks(&mut entries, parallel::ENTRIES, &|_, entries| {
            for entry in entries {
                let mut place = [0];
                runs.fill(entry.0 as usize, &mut place);
                entry.0 = place[0];
            }
        });
        entries.par_sort_unstable_by_key(|entry| entry.0);
        StoredEntries::from_entries(self.shape(), &entries, implicit)
    }
}
