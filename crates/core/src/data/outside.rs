//! The search for observed entries that a loss does not accept.

use pulp::{Simd, WithSimd};

use super::coo::LinearIndex;
use super::mapped::in_order;
use super::scan::{BLOCK, Buffers, Places, TASK, blocks, count};
use super::{CooTensor, Prepared, Role, Roles};
use crate::parallel;

/// Entries that a check found to be outside: see [`Prepared::first_outside`].
#[derive(Clone, Debug, PartialEq)]
pub struct Outside {
    /// How many there are.
    pub count: u64,
    /// The index of the first of them in C order.
    pub index: Vec<usize>,
    /// Its value.
    pub value: f64,
}

impl Prepared {
    /// Looks for observed entries (training, validation and held-out) that are not inside a domain:
    /// how many there are, and the first of them in C order. `None` where all are inside.
    ///
    /// `inside` is called with the value and the entry's linear index in C order, from several
    /// threads; the result does not depend on their number.
    pub fn first_outside(&self, inside: impl Fn(f64, usize) -> bool + Sync) -> Option<Outside> {
        if let Some(coo) = &self.coo {
            return match u64::try_from(coo.exact_volume()) {
                Ok(_) => self.first_stored_outside::<u64>(coo, &inside),
                Err(_) => self.first_stored_outside::<u128>(coo, &inside),
            };
        }
        let n = self.values.len();
        let places = Places::new(&self.values);
        let mut found: Vec<Option<(u64, u64)>> = Vec::new();
        in_order(&[&self.values], n, TASK, |range| {
            let tasks = range.start / TASK..range.end.div_ceil(TASK);
            found.extend(parallel::map(tasks.len(), &|task| {
                let task = tasks.start + task;
                let check = OutsideTask { prepared: self, places: &places, inside: &inside, task };
                pulp::Arch::new().dispatch(check)
            }));
        });
        let (count, first) =
            found.into_iter().flatten().reduce(|a, b| (a.0 + b.0, a.1.min(b.1)))?;
        let first = first as usize;
        Some(Outside {
            count,
            index: self.values.index_of_c(first)?,
            value: self.values.get_linear_c(first)?,
        })
    }

    /// [`Prepared::first_outside`] for a COO tensor: the stored entries, and then the zeros.
    fn first_stored_outside<K: LinearIndex>(
        &self,
        coo: &CooTensor,
        inside: &(impl Fn(f64, usize) -> bool + Sync),
    ) -> Option<Outside> {
        let entries = self.only_stored.as_ref().map_or(coo, |s| s.entries());
        let role = |i: usize, key: K| match (&self.only_stored, &self.roles) {
            (Some(stored), _) => stored.role(i),
            (None, Some(roles)) => roles.get(key.low() as usize),
            (None, None) => Role::Train,
        };
        let keys: Vec<K> = entries.linear();
        let observed: u64 = [Role::Train, Role::Validation, Role::HeldOut]
            .map(|role| self.count(role))
            .iter()
            .fold(0, |all, &n| all.saturating_add(n));
        let (mut count, mut first, mut stored) = (0u64, None, 0u64);
        for (i, &key) in keys.iter().enumerate() {
            if role(i, key) != Role::Missing {
                stored += 1;
                let value = entries.values().get(i).unwrap_or(0.0);
                if !inside(value, key.low() as usize) {
                    count += 1;
                    first = first.or(Some((key, value)));
                }
            }
        }
        let implicit = observed.saturating_sub(stored);
        if implicit > 0 && !inside(0.0, 0) {
            count = count.saturating_add(implicit);
            // The first observed entry that is not stored.
            let mut at = keys.iter().peekable();
            let mut gap = K::from(0);
            let free = |entry: K| {
                let missing = |r: &Roles| r.get(entry.low() as usize) == Role::Missing;
                !self.roles.as_ref().is_some_and(missing)
            };
            loop {
                while at.next_if(|&&key| key < gap).is_some() {}
                if at.peek() != Some(&&gap) && free(gap) {
                    break;
                }
                gap = gap + K::from(1);
            }
            if first.is_none_or(|(key, _)| gap < key) {
                first = Some((gap, 0.0));
            }
        }
        let (mut key, value) = first?;
        let mut index = vec![0; self.shape.len()];
        for (to, &n) in index.iter_mut().zip(&self.shape).rev() {
            let length = K::from(n as u64);
            *to = (key % length).low() as usize;
            key = key / length;
        }
        Some(Outside { count, index, value })
    }
}

/// One task of [`Prepared::first_outside`]: how many entries are outside, and the first in C order.
struct OutsideTask<'a, F> {
    prepared: &'a Prepared,
    places: &'a Places,
    inside: &'a F,
    task: usize,
}

impl<F: Fn(f64, usize) -> bool> WithSimd for OutsideTask<'_, F> {
    type Output = Option<(u64, u64)>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let n = self.prepared.values.len();
        let mut buffers = Buffers::new();
        let Buffers { values, role: flags, place, missing, .. } = &mut *buffers;
        let mut found: Option<(u64, u64)> = None;
        for start in blocks(self.task, n) {
            let len = BLOCK.min(n - start);
            let (values, flags, place) = (&mut values[..len], &mut flags[..len], &mut place[..len]);
            self.prepared.values.load(start, 1, values);
            self.places.fill(start, place);
            for ((flag, &x), &c) in flags.iter_mut().zip(&*values).zip(&*place) {
                *flag = u8::from(!(self.inside)(x, c as usize));
            }
            if let Some(roles) = &self.prepared.roles {
                let missing = &mut missing[..len];
                roles.indicator(simd, Role::Missing, start, 1, missing);
                for (flag, &missing) in flags.iter_mut().zip(&*missing) {
                    *flag &= u8::from(missing == 0.0);
                }
            }
            let outside = count(flags, 1);
            if outside > 0 {
                let flagged = flags.iter().zip(&*place).filter(|&(&flag, _)| flag != 0);
                let first = flagged.map(|(_, &c)| c).min().unwrap_or(u64::MAX);
                let (count, least) = found.unwrap_or((0, u64::MAX));
                found = Some((count + outside, least.min(first)));
            }
        }
        found
    }
}
