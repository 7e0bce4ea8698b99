//! Random splits by strata, for lists of vast tensors: stored entries one by one, and a few zeros drawn
//! from all the implicit ones.
//!
//! To draw every entry by itself takes a role for every entry, which a tensor of 10¹² entries has no
//! room for. Nearly all of its entries are implicit zeros, and a mean over them is known well enough
//! from a few. So the observed entries are two strata: the stored ones, each withheld with the
//! probability that was asked for, and the implicit zeros, of which some are drawn.
//!
//! With N entries and M zeros in the strata, and n and m of them withheld, a loss is estimated by
//! `(N mean(ℓ of the n) + M mean(ℓ of the m)) / (N + M)`, without bias as long as n > 0. This is the
//! weighted mean of the withheld entries where stored ones have weight 1 and zeros `(M/m) / (N/n)`.

use std::sync::Arc;

use rayon::prelude::*;

use super::coo::LinearIndex;
use super::drawn_zeros::{DrawnZeros, Strata, Stratum, check_zeros_per_nonzero};
use super::observations::Split;
use super::part::Within;
use super::prepare::{finish_stored, listed};
use super::random::Key;
use super::split_kind::SplitKind;
use super::stored::Entry;
use super::{CooTensor, Observations, Prepared, Role, StoredEntries};
use crate::error::{Error, Result};
use crate::parallel;

/// The most entries that masks may take out of data that are split by strata: each is kept as a stored one.
const MOST_MASKED: usize = 100_000_000;
/// The streams of random numbers, of those of a split, that zeros are drawn from: two for each mode, or one
/// for all entries.
const MODE_STREAMS: u32 = 16;
const ENTRY_STREAM: u32 = 8;

impl Observations {
    /// How [`held_out`](Observations::held_out) and [`validation`](Observations::validation) withhold
    /// entries at random; [`SplitKind::Auto`] without this.
    ///
    /// By strata, a stored entry is withheld as it would be otherwise. Of the implicit zeros about as
    /// many are drawn for each role ([`zeros_per_nonzero`](Observations::zeros_per_nonzero)), each of
    /// which has a weight, so that the weighted mean loss of a role estimates the mean over all observed
    /// entries without bias: what a random fraction of all entries would give. The factors are fitted to
    /// all entries but those. Which zeros are drawn depends on seed and shape, and where many of the
    /// draws hit stored entries on these.
    ///
    /// Where implicit entries are missing there are no zeros to draw.
    ///
    /// ```
    /// use nneinfact::Observations;
    /// use nneinfact::data::{CooTensor, Role, SplitKind};
    ///
    /// // A tensor of 10¹² entries, of which a thousand are not zero.
    /// let at: Vec<u64> = (0..1000).collect();
    /// let list = CooTensor::new(&[1_000_000, 1_000_000], &[at.clone(), at], &[1.0; 1000])?;
    /// let data = Observations::new(list).held_out(0.1, 7)?;
    /// assert_eq!(data.split_kind(), Some(SplitKind::Strata));
    /// let prepared = data.prepare()?;
    /// let drawn = prepared.strata().expect("a split by strata").held_out;
    /// assert_eq!(drawn.zeros, drawn.stored);
    /// assert_eq!(prepared.count(Role::HeldOut), drawn.stored + drawn.zeros);
    /// // Each zero stands for as many zeros as there are to each that was drawn.
    /// assert!(drawn.zero_weight > 1e8);
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    #[must_use]
    pub fn split_as(mut self, kind: SplitKind) -> Self {
        self.split_as = kind;
        self
    }

    /// How many implicit zeros a split by strata draws beside each stored entry that it withholds; 1
    /// without this. More of them make the reported losses less noisy, and cost as much as stored
    /// entries. At least one is drawn where a stored entry is, and no larger share of the zeros than of the
    /// stored entries.
    ///
    /// # Errors
    /// [`Error::Observations`] where it is not above 0 and at most 10⁶.
    pub fn zeros_per_nonzero(mut self, ratio: f64) -> Result<Self> {
        check_zeros_per_nonzero(ratio)?;
        self.zeros_per_nonzero = ratio;
        Ok(self)
    }

    /// How entries are withheld at random, [`SplitKind::Auto`] decided; `None` where none are.
    #[must_use]
    pub fn split_kind(&self) -> Option<SplitKind> {
        if self.held_out.is_none() && self.validation.is_none() {
            return None;
        }
        Some(match (&self.coordinates, self.split_as) {
            (Some(list), kind) if !self.unlisted_missing => {
                let volume = list.exact_volume();
                kind.of_list(self.within.map_or(volume, |within| within.whole(volume)))
            }
            (_, SplitKind::Auto) => SplitKind::Cells,
            (_, kind) => kind,
        })
    }

    /// How many zeros a split by strata is to draw beside each withheld stored entry; `None` where there
    /// is no such split.
    #[must_use]
    pub fn strata_ratio(&self) -> Option<f64> {
        (self.split_kind() == Some(SplitKind::Strata)).then_some(self.zeros_per_nonzero)
    }
}

/// A COO tensor whose implicit entries are zeros, split by strata.
pub(super) fn prepare_strata<K: LinearIndex>(
    observations: &Observations,
    coo: &Arc<CooTensor>,
) -> Result<Prepared> {
    let ratio = observations.zeros_per_nonzero;
    let mut entries: Vec<Entry<K>> = listed(observations, coo, masks(observations)?);
    let free = coo.exact_volume().saturating_sub(entries.len() as u128);
    let splits = [observations.held_out, observations.validation];
    // Nobody but the splits withholds these.
    let stored = entries.iter().filter(|entry| entry.2 == Role::Train).count() as u64;
    let within = observations.within;
    let [held_out, validation] = withhold(&mut entries, splits, within);

    let keys: Vec<K> = entries.iter().map(|entry| entry.0).collect();
    let draw = |split: Option<Split>, withheld: u64, taken: &[K]| -> Result<Vec<K>> {
        let Some(split) = split else { return Ok(Vec::new()) };
        let left = free.saturating_sub(taken.len() as u128);
        let count = zeros_for(split, withheld, ratio, left);
        let most = (u32::MAX as usize).saturating_sub(keys.len() + taken.len()) as u64;
        if count > most {
            return Err(Error::Observations(format!(
                "{ratio} zeros beside each of {withheld} withheld stored entries are {count}, and {most} can be drawn: ask for fewer (zeros_per_nonzero, --zeros-per-nonzero)"
            )));
        }
        // A slab draws zeros of its own, whichever process has it.
        let key = within.map_or(split.key, |within| within.stream(split.key));
        Ok(Draw { shape: coo.shape(), stored: &keys, taken, key }.zeros(count as usize))
    };
    let zeros_out = draw(splits[0], held_out, &[])?;
    let zeros_validation = draw(splits[1], validation, &zeros_out)?;
    let stratum = |withheld: u64, zeros: &[K]| {
        let each = free as f64 / zeros.len().max(1) as f64;
        let zero_weight = each * withheld as f64 / stored.max(1) as f64;
        Stratum { stored: withheld, zeros: zeros.len() as u64, zero_weight }
    };
    let strata = Strata {
        stored,
        zeros: free as f64,
        zeros_per_nonzero: ratio,
        validation: stratum(validation, &zeros_validation),
        held_out: stratum(held_out, &zeros_out),
    };

    let mut zeros: Vec<(K, Role)> = zeros_out.into_iter().map(|key| (key, Role::HeldOut)).collect();
    zeros.extend(zeros_validation.into_iter().map(|key| (key, Role::Validation)));
    zeros.par_sort_unstable_by_key(|zero| zero.0);
    let weights = [0.0, 1.0, strata.validation.zero_weight, strata.held_out.zero_weight];
    let (entries, drawn) = merged(entries, zeros, weights);
    let stored = StoredEntries::of_strata(coo.shape(), &entries, drawn);
    let mut prepared = finish_stored(coo, stored, observations)?;
    for (role, drawn) in [(Role::Validation, strata.validation), (Role::HeldOut, strata.held_out)] {
        prepared.totals.weight[role as usize] += drawn.zeros as f64 * (drawn.zero_weight - 1.0);
    }
    prepared.strata = Some(strata);
    Ok(prepared)
}

/// What the masks of all entries say of some, as entries beside the stored ones.
fn masks<K: LinearIndex>(observations: &Observations) -> Result<Vec<Entry<K>>> {
    let mut found: Vec<Entry<K>> = Vec::new();
    let mut add = |entry: usize, role: Role| -> Result<()> {
        if found.len() == MOST_MASKED {
            return Err(Error::Observations(format!(
                "masks and weights take more than {MOST_MASKED} entries out of these data, which are more than a split by strata keeps: withhold cells (split_as, --heldout-as cells), or give the stored entries alone (unlisted_missing, --unlisted-missing)"
            )));
        }
        found.push((K::from(entry as u64), 0.0, role));
        Ok(())
    };
    // Where there is a mask of it, a shape is no larger than memory.
    let volume = observations.shape().iter().fold(1usize, |all, &n| all.saturating_mul(n));
    if let Some(mask) = &observations.mask {
        (0..volume).filter(|&entry| !mask.get(entry)).try_for_each(|e| add(e, Role::Missing))?;
    }
    if let Some(weights) = &observations.weights {
        let weights = weights.storage();
        let zero = |&entry: &usize| weights.get(entry) == Some(0.0);
        (0..volume).filter(zero).try_for_each(|entry| add(entry, Role::Missing))?;
    }
    if let Some(mask) = &observations.held_out_mask {
        (0..volume).filter(|&entry| mask.get(entry)).try_for_each(|e| add(e, Role::HeldOut))?;
    }
    Ok(found)
}

/// Withholds stored entries for training, each by itself; how many are held out and for validation.
fn withhold<K: LinearIndex>(
    entries: &mut [Entry<K>],
    splits: [Option<Split>; 2],
    within: Option<Within>,
) -> [u64; 2] {
    let drawn = |split: Option<Split>, key: K| {
        let place = || within.map_or_else(|| key.folded(), |within| within.folded(key.wide()));
        split.is_some_and(|Split { key: stream, threshold }| stream.at(place()) < threshold)
    };
    let one = |entry: &mut Entry<K>| -> [u64; 2] {
        if entry.2 != Role::Train {
            return [0, 0];
        }
        if drawn(splits[0], entry.0) {
            entry.2 = Role::HeldOut;
            [1, 0]
        } else if drawn(splits[1], entry.0) {
            entry.2 = Role::Validation;
            [0, 1]
        } else {
            [0, 0]
        }
    };
    let mut parts: Vec<&mut [Entry<K>]> = entries.chunks_mut(parallel::ENTRIES).collect();
    let sum = |a: [u64; 2], b: [u64; 2]| [a[0] + b[0], a[1] + b[1]];
    let of_part = |_, part: &mut &mut [Entry<K>]| part.iter_mut().map(one).fold([0, 0], sum);
    parallel::map_each(&mut parts, &of_part).into_iter().fold([0, 0], sum)
}

/// How many zeros are drawn beside so many stored entries, of `free` ones.
fn zeros_for(split: Split, withheld: u64, ratio: f64, free: u128) -> u64 {
    if withheld == 0 || free == 0 {
        return 0;
    }
    let share = f64::from(split.threshold) / 2f64.powi(32);
    let most = (free as f64 * share).ceil().max(1.0);
    (ratio * withheld as f64).round().clamp(1.0, most) as u64
}

/// Stored entries and drawn zeros in one order, with which of them are drawn zeros.
fn merged<K: LinearIndex>(
    entries: Vec<Entry<K>>,
    zeros: Vec<(K, Role)>,
    weights: [f64; 4],
) -> (Vec<Entry<K>>, Option<DrawnZeros>) {
    if zeros.is_empty() {
        return (entries, None);
    }
    let count = entries.len() + zeros.len();
    let (mut all, mut drawn) = (Vec::with_capacity(count), DrawnZeros::none_of(count, weights));
    let mut zeros = zeros.into_iter().peekable();
    for entry in entries {
        while let Some((key, role)) = zeros.next_if(|zero| zero.0 < entry.0) {
            drawn.insert(all.len());
            all.push((key, 0.0, role));
        }
        all.push(entry);
    }
    for (key, role) in zeros {
        drawn.insert(all.len());
        all.push((key, 0.0, role));
    }
    (all, Some(drawn))
}

/// Implicit zeros of a shape to be drawn, all with the same probability.
struct Draw<'a, K> {
    shape: &'a [usize],
    /// Entries that are not implicit, sorted.
    stored: &'a [K],
    /// Zeros that are drawn already, sorted.
    taken: &'a [K],
    /// The stream of the split, from which others are derived.
    key: Key,
}

impl<K: LinearIndex> Draw<'_, K> {
    /// So many different zeros, sorted; there are at least as many.
    fn zeros(&self, count: usize) -> Vec<K> {
        if count == 0 {
            return Vec::new();
        }
        let volume = self.shape.iter().fold(1u128, |all, &n| all.saturating_mul(n as u128));
        // Where many draws would be in vain, all entries are hardly more than what is kept of some.
        let kept = (self.stored.len() + self.taken.len() + count) as u128;
        let mut found = match volume <= 4 * kept {
            true => self.of_all(volume as u64, count),
            false => self.of_draws(count),
        };
        found.par_sort_unstable();
        found
    }

    /// Those of all zeros with the least random numbers.
    fn of_all(&self, volume: u64, count: usize) -> Vec<K> {
        let key = self.key.derived(ENTRY_STREAM);
        let (mut stored, mut taken) = (self.stored.iter().peekable(), self.taken.iter().peekable());
        let mut zeros: Vec<(u32, u64)> = Vec::new();
        for entry in 0..volume {
            let here = |key: &&K| key.low() == entry;
            if stored.next_if(here).is_none() && taken.next_if(here).is_none() {
                zeros.push((key.at(entry), entry));
            }
        }
        if count < zeros.len() {
            zeros.select_nth_unstable(count);
            zeros.truncate(count);
        }
        zeros.into_iter().map(|(_, entry)| K::from(entry)).collect()
    }

    /// The first ones of a sequence of draws from all entries, those that are drawn again or are no zeros
    /// to be had being passed over.
    fn of_draws(&self, count: usize) -> Vec<K> {
        let modes: Vec<([Key; 2], u64)> = (MODE_STREAMS..)
            .step_by(2)
            .zip(self.shape)
            .map(|(stream, &n)| ([stream, stream + 1].map(|s| self.key.derived(s)), n as u64))
            .collect();
        let at = |draw: u64| -> K {
            modes.iter().fold(K::from(0), |entry, &([high, low], n)| {
                let word = u64::from(high.at(draw)) << 32 | u64::from(low.at(draw));
                let index = (u128::from(word) * u128::from(n)) >> 64;
                entry * K::from(n) + K::from(index as u64)
            })
        };
        let free = |entry: &K| {
            self.stored.binary_search(entry).is_err() && self.taken.binary_search(entry).is_err()
        };
        let mut found: Vec<(K, u64)> = Vec::new();
        let mut begin = 0u64;
        while found.len() < count {
            // More draws than needed change nothing: what counts is which come first.
            let missing = (count - found.len()) as u64;
            let end = begin + missing + missing / 4 + 64;
            let more = (begin..end).into_par_iter().map(|draw| (at(draw), draw));
            found.par_extend(more.filter(|(entry, _)| free(entry)));
            found.par_sort_unstable();
            found.dedup_by_key(|(entry, _)| *entry);
            begin = end;
        }
        found.par_sort_unstable_by_key(|&(_, draw)| draw);
        found.truncate(count);
        found.into_iter().map(|(entry, _)| entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeros(shape: &[usize], stored: &[u64], taken: &[u64], seed: u64, count: usize) -> Vec<u64> {
        Draw { shape, stored, taken, key: Key::new(seed, 1) }.zeros(count)
    }

    fn assert_sorted_and_free(found: &[u64], stored: &[u64], volume: u64) {
        assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{found:?}");
        assert!(found.iter().all(|key| *key < volume && stored.binary_search(key).is_err()));
    }

    #[test]
    fn drawn_zeros_are_free_and_different() {
        let stored: Vec<u64> = (0..40).map(|i| i * 7).collect();
        // Few are left: all entries are looked at; and many: they are drawn.
        for (shape, volume) in [(vec![20, 15], 300), (vec![500, 40, 30], 600_000)] {
            for count in [1, 2, 17, 200] {
                let found = zeros(&shape, &stored, &[], 5, count);
                assert_eq!(found.len(), count);
                assert_sorted_and_free(&found, &stored, volume);
                // Those that are taken are not drawn again.
                let other = zeros(&shape, &stored, &found, 5, 50);
                assert!(other.iter().all(|key| found.binary_search(key).is_err()));
            }
        }
        // All of them.
        let all = zeros(&[20, 15], &stored, &[], 5, 300 - 40);
        assert_eq!(all.len(), 260);
        assert_sorted_and_free(&all, &stored, 300);
    }

    #[test]
    fn fewer_zeros_are_some_of_more() {
        for shape in [vec![20, 15], vec![1 << 20, 1 << 15]] {
            let many = zeros(&shape, &[3, 5, 8], &[], 9, 60);
            let few = zeros(&shape, &[3, 5, 8], &[], 9, 20);
            assert!(few.iter().all(|key| many.binary_search(key).is_ok()), "{shape:?}");
        }
    }

    #[test]
    fn every_zero_is_drawn_as_often_as_any_other() {
        let mut stored: Vec<u64> = (0..30).map(|i| i * i % 211).collect();
        stored.sort_unstable();
        stored.dedup();
        // 8 of the zeros of 12 × 20 entries, by both ways to draw.
        for few in [true, false] {
            let mut hits = vec![0u32; 240];
            let seeds = 20_000;
            for seed in 0..seeds {
                let key = Key::new(seed, 2);
                let draw = Draw { shape: &[12, 20], stored: &stored, taken: &[], key };
                let found = if few { draw.of_all(240, 8) } else { draw.of_draws(8) };
                found.iter().for_each(|&entry| hits[entry as usize] += 1);
            }
            let free = 240 - stored.len();
            let p = 8.0 / free as f64;
            let (mean, variance) = (seeds as f64 * p, seeds as f64 * p * (1.0 - p));
            let mut chi = 0.0;
            for (entry, &hits) in hits.iter().enumerate() {
                if stored.binary_search(&(entry as u64)).is_ok() {
                    assert_eq!(hits, 0);
                } else {
                    chi += (f64::from(hits) - mean).powi(2) / variance;
                }
            }
            // χ² of `free` terms whose sum is fixed: mean free − 1, variance about twice that.
            let degrees = free as f64 - 1.0;
            let z = (chi * (degrees / free as f64) - degrees) / (2.0 * degrees).sqrt();
            assert!(z.abs() < 4.0, "z = {z}, {few}");
        }
    }

    #[test]
    fn as_many_zeros_as_were_asked_for() {
        let split = Split { key: Key::new(0, 1), threshold: 1 << 30 };
        assert_eq!(zeros_for(split, 100, 1.0, 1 << 40), 100);
        assert_eq!(zeros_for(split, 100, 2.5, 1 << 40), 250);
        assert_eq!(zeros_for(split, 100, 1e-6, 1 << 40), 1);
        // No larger a share of the zeros than of the stored entries, which is a quarter.
        assert_eq!(zeros_for(split, 100, 1.0, 40), 10);
        assert_eq!(zeros_for(split, 0, 1.0, 40), 0);
        assert_eq!(zeros_for(split, 100, 1.0, 0), 0);
    }
}
