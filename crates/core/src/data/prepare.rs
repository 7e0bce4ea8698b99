//! From observations to a role for every entry, and sums over them.

use std::ops::Range;
use std::sync::Arc;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::coo::LinearIndex;
use super::mapped::in_order;
use super::observations::Split;
use super::roles::{Bits, PER_WORD};
use super::scan::{BLOCK, Buffers, Places, TASK, Totals, blocks, count, max, nonzero, sum};
use super::split_kind::MOST_ROLES;
use super::storage::Summary;
use super::storage::sealed::Convert;
use super::stored::Entry;
use super::strata::prepare_strata;
use super::{
    CooTensor, Dense, Implicit, Observations, Prepared, Role, Roles, SplitKind, Storage,
    StoredEntries,
};
use crate::error::{Error, Result};
use crate::memory::zeros;
use crate::parallel;

/// Up to this many entries of a COO tensor are given a role one by one where stored entries would do.
const FEW_ROLES: u64 = 100_000_000;

impl Observations {
    /// Gives every entry its role and sums up what a fit needs to know of the data. One parallel
    /// pass; the result does not depend on the number of threads.
    ///
    /// # Errors
    /// [`Error::Observations`] where the data have no entries, nothing is observed, or the splits
    /// leave nothing to train on.
    pub fn prepare(&self) -> Result<Prepared> {
        let (labels, split_kind) = (Arc::clone(&self.labels), self.split_kind());
        Ok(Prepared { labels, split_kind, ..prepare(self)? })
    }
}

fn prepare(observations: &Observations) -> Result<Prepared> {
    let shape = observations.shape();
    if shape.contains(&0) {
        return Err(Error::Observations(format!(
            "the data have no entries: their shape is {shape:?}"
        )));
    }
    let strata = observations.split_kind() == Some(SplitKind::Strata);
    let Some(coo) = &observations.coordinates else {
        if strata {
            return Err(Error::Observations(
                "splits by strata are for lists of stored entries beside which the others are zeros, and these data have a value for every entry: withhold them as cells (split_as, --heldout-as)".into(),
            ));
        }
        return prepare_all(observations, observations.values.len(), None);
    };
    let volume = coo.exact_volume();
    if let Some(weights) = &observations.weights
        && !zero_one(weights)
    {
        return Err(Error::Observations(
            "weights other than 0 and 1 need the dense form of coo: give the data as a dense tensor"
                .into(),
        ));
    }
    if observations.unlisted_missing {
        return match u64::try_from(volume) {
            Ok(_) => prepare_stored::<u64>(observations, coo),
            Err(_) => prepare_stored::<u128>(observations, coo),
        };
    }
    if strata {
        return match u64::try_from(volume) {
            Ok(_) => prepare_strata::<u64>(observations, coo),
            Err(_) => prepare_strata::<u128>(observations, coo),
        };
    }
    let by_entry = observations.held_out.is_some()
        || observations.validation.is_some()
        || observations.mask.is_some()
        || observations.held_out_mask.is_some()
        || observations.weights.is_some();
    let by_list = observations.nan_missing
        || observations.missing_at.is_some()
        || observations.held_out_at.is_some()
        || observations.validation_at.is_some();
    if by_entry && volume > u128::from(MOST_ROLES) {
        return Err(Error::Observations(format!(
            "masks over all entries, and random splits of every entry by itself, are for COO tensors of up to {MOST_ROLES} entries, and the shape {shape:?} has {volume}: withhold by strata (split_as, --heldout-as strata), or give lists of the entries that are withheld or missing instead (held_out_at, validation_at, missing_at; on the command line --heldout-coordinates, --validation-coordinates, --missing)"
        )));
    }
    if by_entry || (by_list && volume <= u128::from(FEW_ROLES)) {
        let keys = coo.keys();
        return prepare_all(observations, volume as usize, Some(&keys));
    }
    match u64::try_from(volume) {
        Ok(_) => prepare_zeros::<u64>(observations, coo),
        Err(_) => prepare_zeros::<u128>(observations, coo),
    }
}

/// Weights of 0 and 1 only are a mask, which the roles already hold.
fn zero_one(weights: &Dense) -> bool {
    match weights.storage() {
        Storage::U8(v) => v.iter().all(|&w| w <= 1),
        Storage::Mapped(mapped) => mapped.summary().is_some_and(Summary::is_zero_one),
        _ => false,
    }
}

/// A COO tensor of which only the stored entries are observed.
fn prepare_stored<K: LinearIndex>(
    observations: &Observations,
    coo: &Arc<CooTensor>,
) -> Result<Prepared> {
    let keys: Vec<K> = coo.linear();
    let of = |list: &Option<Arc<CooTensor>>| list.as_ref().map(|l| l.linear::<K>());
    let (missing, held_out, validation) = (
        of(&observations.missing_at),
        of(&observations.held_out_at),
        of(&observations.validation_at),
    );
    let within = |list: &Option<Vec<K>>, key: K| {
        list.as_ref().is_some_and(|l| l.binary_search(&key).is_ok())
    };
    let bit = |bits: &Option<Arc<Bits>>, key: K| bits.as_ref().map(|b| b.get(key.low() as usize));
    let drawn = |split: Option<Split>, key: K| {
        let place = || match &observations.within {
            Some(within) => within.folded(key.wide()),
            None => key.folded(),
        };
        split.is_some_and(|Split { key: stream, threshold }| stream.at(place()) < threshold)
    };
    let entry = |(i, &key): (usize, &K)| -> Entry<K> {
        let x = coo.values().get(i).unwrap_or(0.0);
        let weight =
            observations.weights.as_ref().and_then(|w| w.storage().get(key.low() as usize));
        let role = if bit(&observations.mask, key) == Some(false)
            || weight == Some(0.0)
            || (observations.nan_missing && x.is_nan())
            || within(&missing, key)
        {
            Role::Missing
        } else if bit(&observations.held_out_mask, key) == Some(true)
            || within(&held_out, key)
            || drawn(observations.held_out, key)
        {
            Role::HeldOut
        } else if within(&validation, key) || drawn(observations.validation, key) {
            Role::Validation
        } else {
            Role::Train
        };
        (key, x, role)
    };
    let mut entries: Vec<Entry<K>> = keys.par_iter().enumerate().map(entry).collect();
    entries.retain(|e| e.2 != Role::Missing);
    let stored = match entries.len() == coo.len() {
        true if entries.iter().all(|e| e.2 == Role::Train) => {
            StoredEntries::of(Arc::clone(coo), Implicit::Missing)
        }
        _ => StoredEntries::from_entries(coo.shape(), &entries, Implicit::Missing),
    };
    finish_stored(coo, stored, observations)
}

/// A COO tensor whose implicit entries are zeros, but for stored entries that are missing or
/// withheld.
fn prepare_zeros<K: LinearIndex>(
    observations: &Observations,
    coo: &Arc<CooTensor>,
) -> Result<Prepared> {
    let lists = [&observations.missing_at, &observations.held_out_at, &observations.validation_at];
    if lists.iter().all(|list| list.is_none()) && !observations.nan_missing {
        let stored = StoredEntries::of(Arc::clone(coo), Implicit::Zeros);
        return finish_stored(coo, stored, observations);
    }
    let entries: Vec<Entry<K>> = listed(observations, coo, Vec::new());
    let stored = StoredEntries::from_entries(coo.shape(), &entries, Implicit::Zeros);
    finish_stored(coo, stored, observations)
}

/// The entries of a COO tensor beside which the others are zeros, with those that lists take out of the
/// training and `more` such, in C order and each there once.
pub(super) fn listed<K: LinearIndex>(
    observations: &Observations,
    coo: &CooTensor,
    more: Vec<Entry<K>>,
) -> Vec<Entry<K>> {
    let lists = [
        (&observations.missing_at, Role::Missing),
        (&observations.held_out_at, Role::HeldOut),
        (&observations.validation_at, Role::Validation),
    ];
    let missing = |x: f64| observations.nan_missing && x.is_nan();
    let mut entries: Vec<Entry<K>> = coo
        .linear::<K>()
        .into_iter()
        .enumerate()
        .map(|(i, key)| {
            let x = coo.values().get(i).unwrap_or(0.0);
            if missing(x) { (key, 0.0, Role::Missing) } else { (key, x, Role::Train) }
        })
        .collect();
    entries.extend(more);
    for (list, role) in lists {
        entries.extend(list.iter().flat_map(|l| l.linear::<K>()).map(|key| (key, 0.0, role)));
    }
    // Of several roles, missing comes before held out, that before validation, that before
    // training.
    let rank = |role: Role| match role {
        Role::Missing => 0,
        Role::HeldOut => 1,
        Role::Validation => 2,
        Role::Train => 3,
    };
    entries.par_sort_by_key(|e| (e.0, rank(e.2)));
    entries.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same && next.1 != 0.0 && kept.2 != Role::Missing {
            kept.1 = next.1;
        }
        same
    });
    entries
}

/// Stored entries that are summed up at a time.
const SUMMED: usize = 1 << 16;

/// Sums up what the stored and the implicit entries hold.
pub(super) fn finish_stored(
    coo: &Arc<CooTensor>,
    stored: StoredEntries,
    observations: &Observations,
) -> Result<Prepared> {
    let list = Arc::clone(stored.entries());
    let totals_of = |entries: Range<usize>| {
        let mut total = Totals::EMPTY;
        for i in entries {
            let role = stored.role(i);
            let x = list.values().get(i).unwrap_or(0.0);
            total.counts[role as usize] += 1;
            total.nonzero[role as usize] += u64::from(x != 0.0);
            if role == Role::Train {
                total.sum += x;
                total.max = if x > total.max { x } else { total.max };
            }
        }
        total
    };
    let mut total = match list.values().kind().is_whole() {
        // Sums of whole numbers are the same in any order.
        true => {
            let part = |i: usize| totals_of(i * SUMMED..list.len().min((i + 1) * SUMMED));
            let parts = parallel::map(list.len().div_ceil(SUMMED), &part);
            parts.iter().fold(Totals::EMPTY, |mut sum, part| {
                sum.add(part);
                sum
            })
        }
        false => totals_of(0..list.len()),
    };
    // There may be more of them than a count holds; the weight, which means are taken by, is right.
    let implicit = coo.exact_volume().saturating_sub(list.len() as u128);
    let counted = u64::try_from(implicit).unwrap_or(u64::MAX);
    let role = match stored.implicit() {
        Implicit::Missing => Role::Missing,
        Implicit::Zeros | Implicit::ByRole => Role::Train,
    } as usize;
    let stored_there = total.counts[role];
    total.counts[role] = stored_there.saturating_add(counted);
    for r in 1..4 {
        total.weight[r] = total.counts[r] as f64;
    }
    if role == Role::Train as usize {
        if total.counts[role] == u64::MAX {
            total.weight[role] = stored_there as f64 + implicit as f64;
        }
        if implicit > 0 {
            total.max = total.max.max(0.0);
        }
    }
    // Of a slab nothing needs to be there.
    if observations.within.is_none() {
        check_counts(total.counts)?;
    }
    Ok(Prepared {
        shape: coo.shape().to_vec(),
        values: Arc::new(Dense::empty()),
        // The stored entries with their roles take the place of those given.
        coo: Some(list),
        only_stored: Some(stored),
        roles: None,
        weights: None,
        weight_exponent: observations.weight_exponent,
        totals: total,
        split_kind: None,
        strata: None,
        level: None,
        labels: Arc::new([]),
    })
}

/// Refuses data that leave nothing to train on, by the number of entries of each role.
///
/// # Errors
/// [`Error::Observations`] where nothing is observed, or all of it is withheld.
pub fn check_counts(counts: [u64; 4]) -> Result<()> {
    let [missing, train, validation, held_out] = counts;
    if train == 0 && validation == 0 && held_out == 0 {
        return Err(Error::Observations(format!(
            "nothing is observed: mask, weights and missing values leave none of the {missing} entries"
        )));
    }
    if train == 0 {
        return Err(Error::Observations(format!(
            "nothing is left to train on: of {} observed entries, {held_out} are held out and {validation} are for validation",
            validation + held_out
        )));
    }
    Ok(())
}

/// Gives each of `n` entries its role; `keys` are the indices of a COO tensor in C order.
fn prepare_all(observations: &Observations, n: usize, keys: Option<&[u64]>) -> Result<Prepared> {
    let values = &observations.values;
    let places = match keys {
        Some(_) => Places::Same,
        None => Places::new(values),
    };
    // COO tensors, in the order of memory.
    let bits = |list: &Option<Arc<CooTensor>>| {
        list.as_ref().map(|list| {
            let offset = |i: usize, key: u64| match keys {
                Some(_) => key as usize,
                None => {
                    let at = |mode: &super::Indices| mode.get(i).unwrap_or(0) as usize;
                    list.indices().iter().map(at).zip(values.strides()).map(|(i, s)| i * s).sum()
                }
            };
            Bits::from_list(list.keys().into_iter().enumerate().map(|(i, k)| offset(i, k)), n)
        })
    };
    let all_train = observations.all_train();
    let pass = Pass {
        observations,
        all_train,
        places,
        n,
        keys,
        missing: bits(&observations.missing_at),
        held_out: bits(&observations.held_out_at),
        validation: bits(&observations.validation_at),
    };

    let mut totals: Vec<Totals> = Vec::new();
    let mut words: Vec<u64> = Vec::new();
    if !all_train {
        words = zeros(n.div_ceil(PER_WORD) + 1, "the roles of all entries")?;
    }
    let streamed: Vec<&Dense> = std::iter::once(values)
        .filter(|_| keys.is_none())
        .chain(&observations.weights)
        .map(Arc::as_ref)
        .collect();
    in_order(&streamed, n, TASK, |range| {
        let first = range.start / TASK;
        if all_train {
            let tasks = range.end.div_ceil(TASK) - first;
            totals.extend(parallel::map(tasks, &|task| pass.task(first + task, &mut [])));
        } else {
            let words = &mut words[range.start / PER_WORD..range.end.div_ceil(PER_WORD)];
            let mut tasks: Vec<&mut [u64]> = words.chunks_mut(TASK / PER_WORD).collect();
            let task = |task: usize, words: &mut &mut [u64]| pass.task(first + task, words);
            totals.extend(parallel::map_each(&mut tasks, &task));
        }
    });
    streamed.iter().try_for_each(|tensor| tensor.check())?;
    let mut total = Totals::EMPTY;
    totals.iter().for_each(|part| total.add(part));
    if let Some(mapped) = values.storage().mapped() {
        mapped.set_summary(total.summary);
    }

    if observations.within.is_none() {
        check_counts(total.counts)?;
    }
    let train = total.counts[Role::Train as usize];
    let roles = (train < n as u64).then(|| Roles::from_words(words, n, total.counts));
    Ok(Prepared {
        shape: observations.shape().to_vec(),
        values: Arc::clone(values),
        coo: observations.coordinates.clone(),
        only_stored: None,
        roles,
        weights: observations.weights.clone().filter(|w| !zero_one(w)),
        weight_exponent: observations.weight_exponent,
        totals: total,
        split_kind: None,
        strata: None,
        level: None,
        labels: Arc::new([]),
    })
}

/// The pass that decides the roles.
struct Pass<'a> {
    observations: &'a Observations,
    all_train: bool,
    places: Places,
    n: usize,
    /// The indices of a COO tensor in C order, in place of dense values.
    keys: Option<&'a [u64]>,
    missing: Option<Bits>,
    held_out: Option<Bits>,
    validation: Option<Bits>,
}

/// One task of the pass. Not a closure: closures are called through code that is not inlined, and
/// only what is inlined is compiled for the instruction set that was found.
struct PassTask<'a, 'b> {
    pass: &'a Pass<'b>,
    task: usize,
    words: &'a mut [u64],
}

impl WithSimd for PassTask<'_, '_> {
    type Output = Totals;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> Totals {
        let mut buffers = Buffers::new();
        let mut totals = Totals::EMPTY;
        let mut words = self.words.chunks_mut(BLOCK / PER_WORD);
        for start in blocks(self.task, self.pass.n) {
            let len = BLOCK.min(self.pass.n - start);
            let words = words.next().unwrap_or_default();
            self.pass.block(start, len, &mut buffers, words, &mut totals);
        }
        totals
    }
}

impl Pass<'_> {
    fn task(&self, task: usize, words: &mut [u64]) -> Totals {
        pulp::Arch::new().dispatch(PassTask { pass: self, task, words })
    }

    #[inline(always)]
    fn block(
        &self,
        start: usize,
        len: usize,
        buffers: &mut Buffers,
        words: &mut [u64],
        totals: &mut Totals,
    ) {
        let o = self.observations;
        let values = &mut buffers.values[..len];
        let weights = &mut buffers.weights[..len];
        let role = &mut buffers.role[..len];
        let bits = &mut buffers.bits[..len];
        match (self.keys, &o.coordinates) {
            (Some(keys), Some(coo)) => {
                values.fill(0.0);
                let from = keys.partition_point(|&k| k < start as u64);
                let inside = keys[from..].iter().take_while(|&&k| k < (start + len) as u64);
                for (i, &key) in inside.enumerate() {
                    values[key as usize - start] = coo.values().get(from + i).unwrap_or(0.0);
                }
            }
            _ => o.values.load(start, 1, values),
        }

        // 1 where observed, until the splits.
        role.fill(Role::Train as u8);
        if let Some(mask) = &o.mask {
            mask.expand(start, bits);
            role.iter_mut().zip(&*bits).for_each(|(r, &b)| *r &= b);
        }
        if let Some(all) = &o.weights {
            all.load(start, 1, weights);
            role.iter_mut().zip(&*weights).for_each(|(r, &w)| *r &= u8::from(w > 0.0));
        }
        if o.nan_missing {
            role.iter_mut().zip(&*values).for_each(|(r, x)| *r &= u8::from(!x.is_nan()));
        }
        if let Some(missing) = &self.missing {
            missing.expand(start, bits);
            role.iter_mut().zip(&*bits).for_each(|(r, &b)| *r &= !b);
        }
        for held_out in [o.held_out_mask.as_deref(), self.held_out.as_ref()].into_iter().flatten() {
            held_out.expand(start, bits);
            role.iter_mut().zip(&*bits).for_each(|(r, &b)| *r |= (*r & b) << 1);
        }
        if o.held_out.is_some() || o.validation.is_some() {
            self.places.fill(start, &mut buffers.place[..len]);
            if let Some(within) = &o.within {
                let places = buffers.place[..len].iter_mut();
                places.for_each(|place| *place = within.folded(u128::from(*place)));
            }
        }
        let place = &buffers.place[..len];
        let random = &mut buffers.random[..len];
        if let Some(Split { key, threshold }) = o.held_out {
            key.fill(place, random);
            for (r, &x) in role.iter_mut().zip(&*random) {
                // From 1 to 3; 0 and 3 stay.
                *r |= (*r & u8::from(x < threshold)) << 1;
            }
        }
        if let Some(Split { key, threshold }) = o.validation {
            key.fill(place, random);
            for (r, &x) in role.iter_mut().zip(&*random) {
                // From 1 to 2; 0 and 3 stay.
                *r ^= u8::from((*r == 1) & (x < threshold)) * 3;
            }
        }

        if let Some(validation) = &self.validation {
            validation.expand(start, bits);
            for (r, &b) in role.iter_mut().zip(&*bits) {
                *r ^= (u8::from(*r == 1) & b) * 3;
            }
        }

        if !self.all_train {
            for (word, roles) in words.iter_mut().zip(role.chunks(PER_WORD)) {
                *word = pack(roles);
            }
        }
        let mut part = Totals::EMPTY;
        if o.weights.is_some() {
            for r in 0..4 {
                part.counts[r] = count(role, r as u8);
                if r > 0 {
                    part.weight[r] = sum(role, r as u8, weights, weights, |w, _| w);
                }
            }
            part.sum = sum(role, 1, weights, values, |w, x| w * x);
        } else {
            for r in 0..4 {
                part.counts[r] = count(role, r as u8);
                part.weight[r] = if r > 0 { part.counts[r] as f64 } else { 0.0 };
            }
            part.sum = sum(role, 1, values, values, |_, x| x);
        }
        part.nonzero = nonzero(role, values, part.counts);
        part.max = max(role, values);
        if o.values.is_mapped() {
            part.summary = Convert::summary(values);
        }
        totals.add(&part);
    }
}

/// The roles of up to 32 entries, from a byte to two bits each.
#[inline(always)]
fn pack(roles: &[u8]) -> u64 {
    let mut word = 0;
    for (i, eight) in roles.chunks(8).enumerate() {
        let mut bytes = [0; 8];
        bytes[..eight.len()].copy_from_slice(eight);
        // Neighbours are moved together, then pairs, then fours.
        let x = u64::from_le_bytes(bytes);
        let x = (x | x >> 6) & 0x000f_000f_000f_000f;
        let x = (x | x >> 12) & 0x0000_00ff_0000_00ff;
        let x = (x | x >> 24) & 0xffff;
        word |= x << (16 * i);
    }
    word
}
