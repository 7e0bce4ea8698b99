//! Observations with a role for every cell.

use std::sync::Arc;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::layout::Runs;
use super::observations::Split;
use super::roles::PER_WORD;
use super::{Dense, Indicators, Observations, Role, Roles, Storage};
use crate::{Error, Result};

/// Observations that a fit can run on: values, the role of every cell, weights, and sums over
/// them. Made by [`Observations::prepare`].
#[derive(Clone, Debug)]
pub struct Prepared {
    values: Arc<Dense>,
    roles: Option<Roles>,
    weights: Option<Arc<Dense>>,
    portions: [Portion; 4],
    mean: f64,
    max: f64,
}

/// How much of the data has a role.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Portion {
    /// The number of cells.
    pub cells: u64,
    /// The sum of their weights; the number of cells where there are no weights.
    pub weight: f64,
}

/// Cells that a check found to be outside: see [`Prepared::first_outside`].
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
    /// The values.
    #[must_use]
    pub fn values(&self) -> &Arc<Dense> {
        &self.values
    }

    /// The role of every cell, in the values' order of memory; `None` where all are
    /// [`Role::Train`].
    #[must_use]
    pub fn roles(&self) -> Option<&Roles> {
        self.roles.as_ref()
    }

    /// The weights, in the values' order of memory; `None` where they are 1 on every observed
    /// cell. On a [`Role::Missing`] cell the weight counts as 0, whatever stands here.
    #[must_use]
    pub fn weights(&self) -> Option<&Arc<Dense>> {
        self.weights.as_ref()
    }

    /// The number of cells of a role.
    #[must_use]
    pub fn cells(&self, role: Role) -> u64 {
        self.portion(role).cells
    }

    /// The number of cells of a role and the sum of their weights (0 for [`Role::Missing`]).
    #[must_use]
    pub fn portion(&self, role: Role) -> Portion {
        self.portions[role as usize]
    }

    /// The weighted mean of the values over the training cells. Not finite where a training value
    /// is not.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The largest value of a training cell, NaN passed over; −∞ where all are NaN.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.max
    }

    /// Looks for observed cells (training, validation and held-out) that are not inside a domain:
    /// how many there are, and the first of them in C order. `None` where all are inside.
    ///
    /// `inside` is called with the value and the cell's linear index in C order, from several
    /// threads; the result does not depend on their number.
    pub fn first_outside(&self, inside: impl Fn(f64, usize) -> bool + Sync) -> Option<Outside> {
        let n = self.values.len();
        let places = Places::new(&self.values);
        let found: Vec<Option<(u64, u64)>> = (0..n.div_ceil(TASK))
            .into_par_iter()
            .map(|task| {
                let check = OutsideTask { prepared: self, places: &places, inside: &inside, task };
                pulp::Arch::new().dispatch(check)
            })
            .collect();
        let (count, first) =
            found.into_iter().flatten().reduce(|a, b| (a.0 + b.0, a.1.min(b.1)))?;
        let first = first as usize;
        Some(Outside {
            count,
            index: self.values.index_of_c(first)?,
            value: self.values.get_linear_c(first)?,
        })
    }
}

/// One task of [`Prepared::first_outside`]: how many cells are outside, and the first in C order.
struct OutsideTask<'a, F> {
    prepared: &'a Prepared,
    places: &'a Places,
    inside: &'a F,
    task: usize,
}

impl<F: Fn(f64, usize) -> bool> WithSimd for OutsideTask<'_, F> {
    type Output = Option<(u64, u64)>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> Self::Output {
        let n = self.prepared.values.len();
        let mut buffers = Buffers::new();
        let Buffers { values, role: flags, place, missing, .. } = &mut *buffers;
        let mut found: Option<(u64, u64)> = None;
        let table = Indicators::new();
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
                roles.indicator(&table, Role::Missing, start, 1, missing);
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

/// Cells worked on at a time: their buffers stay in the first-level cache. A multiple of 64.
const BLOCK: usize = 1024;
/// Cells of a unit of parallel work. Fixed, as the order of the sums depends on it.
const TASK: usize = 128 * BLOCK;

/// Where the blocks of a task start.
fn blocks(task: usize, n: usize) -> impl Iterator<Item = usize> {
    (task * TASK..n.min((task + 1) * TASK)).step_by(BLOCK)
}

/// The linear C index of every cell.
enum Places {
    Same,
    Runs(Runs),
}

impl Places {
    fn new(values: &Dense) -> Places {
        let runs = values.layout().runs_in_c();
        if runs.same() { Places::Same } else { Places::Runs(runs) }
    }

    #[inline(always)]
    fn fill(&self, start: usize, out: &mut [u64]) {
        match self {
            Places::Same => {
                for (i, to) in out.iter_mut().enumerate() {
                    *to = (start + i) as u64;
                }
            }
            Places::Runs(runs) => runs.fill(start, out),
        }
    }
}

struct Buffers {
    values: [f64; BLOCK],
    weights: [f64; BLOCK],
    missing: [f32; BLOCK],
    place: [u64; BLOCK],
    random: [u32; BLOCK],
    role: [u8; BLOCK],
    bits: [u8; BLOCK],
}

impl Buffers {
    fn new() -> Box<Buffers> {
        Box::new(Buffers {
            values: [0.0; BLOCK],
            weights: [0.0; BLOCK],
            missing: [0.0; BLOCK],
            place: [0; BLOCK],
            random: [0; BLOCK],
            role: [0; BLOCK],
            bits: [0; BLOCK],
        })
    }
}

#[inline(always)]
fn count(roles: &[u8], role: u8) -> u64 {
    // Counts of at most 255 fit a byte, which sixteen or more of are added at once.
    roles
        .chunks(255)
        .map(|chunk| u64::from(chunk.iter().fold(0u8, |n, &r| n + u8::from(r == role))))
        .sum()
}

/// Sums over a part of the cells.
#[derive(Clone, Copy)]
struct Totals {
    cells: [u64; 4],
    weight: [f64; 4],
    /// Σ w x over the training cells.
    sum: f64,
    max: f64,
}

impl Totals {
    const EMPTY: Totals =
        Totals { cells: [0; 4], weight: [0.0; 4], sum: 0.0, max: f64::NEG_INFINITY };

    fn add(&mut self, other: &Totals) {
        for r in 0..4 {
            self.cells[r] += other.cells[r];
            self.weight[r] += other.weight[r];
        }
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }
}

pub(super) fn prepare(observations: &Observations) -> Result<Prepared> {
    let values = &observations.values;
    let n = values.len();
    if n == 0 {
        return Err(Error::Observations(format!(
            "the data have no entries: their shape is {:?}",
            values.shape()
        )));
    }
    let all_train = observations.mask.is_none()
        && observations.weights.is_none()
        && observations.held_out.is_none()
        && observations.held_out_mask.is_none()
        && observations.validation.is_none()
        && !observations.nan_missing;
    let pass = Pass { observations, all_train, places: Places::new(values), n };

    let totals: Vec<Totals>;
    let mut words = Vec::new();
    if all_train {
        totals = (0..n.div_ceil(TASK)).into_par_iter().map(|t| pass.task(t, &mut [])).collect();
    } else {
        words = vec![0u64; n.div_ceil(PER_WORD) + 1];
        totals = words[..n.div_ceil(PER_WORD)]
            .par_chunks_mut(TASK / PER_WORD)
            .enumerate()
            .map(|(task, words)| pass.task(task, words))
            .collect();
    }
    let mut total = Totals::EMPTY;
    totals.iter().for_each(|part| total.add(part));

    let [missing, train, validation, held_out] = total.cells;
    if missing == n as u64 {
        return Err(Error::Observations(format!(
            "nothing is observed: mask, weights and missing values leave none of the {n} entries"
        )));
    }
    if train == 0 {
        return Err(Error::Observations(format!(
            "nothing is left to train on: of {} observed entries, {held_out} are held out and {validation} are for validation",
            n as u64 - missing
        )));
    }
    let roles = (train < n as u64).then(|| Roles::from_words(words, n, total.cells));
    // Weights of 0 and 1 only are a mask, which the roles already hold.
    let zero_one = |w: &Dense| matches!(w.storage(), Storage::U8(v) if v.iter().all(|&w| w <= 1));
    let weights = observations.weights.clone().filter(|w| !zero_one(w));
    let portion = |role: Role| Portion {
        cells: total.cells[role as usize],
        weight: total.weight[role as usize],
    };
    Ok(Prepared {
        values: Arc::clone(values),
        roles,
        weights,
        portions: Role::ALL.map(portion),
        mean: total.sum / total.weight[Role::Train as usize],
        max: total.max,
    })
}

/// The pass that decides the roles.
struct Pass<'a> {
    observations: &'a Observations,
    all_train: bool,
    places: Places,
    n: usize,
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
        o.values.load(start, 1, values);

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
        if let Some(held_out) = &o.held_out_mask {
            held_out.expand(start, bits);
            role.iter_mut().zip(&*bits).for_each(|(r, &b)| *r |= (*r & b) << 1);
        }
        if o.held_out.is_some() || o.validation.is_some() {
            self.places.fill(start, &mut buffers.place[..len]);
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

        if !self.all_train {
            for (word, roles) in words.iter_mut().zip(role.chunks(PER_WORD)) {
                *word = pack(roles);
            }
        }
        let mut part = Totals::EMPTY;
        if o.weights.is_some() {
            for r in 0..4 {
                part.cells[r] = count(role, r as u8);
                if r > 0 {
                    part.weight[r] = sum(role, r as u8, weights, weights, |w, _| w);
                }
            }
            part.sum = sum(role, 1, weights, values, |w, x| w * x);
        } else {
            for r in 0..4 {
                part.cells[r] = count(role, r as u8);
                part.weight[r] = if r > 0 { part.cells[r] as f64 } else { 0.0 };
            }
            part.sum = sum(role, 1, values, values, |_, x| x);
        }
        part.max = max(role, values);
        totals.add(&part);
    }
}

/// Independent partial sums: as many as the widest vector has lanes, times two to hide the
/// latency of the addition. Fixed, so that the result is the same on every instruction set.
const LANES: usize = 16;

/// The sum over the cells of a role of `term(w, x)`, with `w` and `x` the elements of two lists.
#[inline(always)]
fn sum(role: &[u8], wanted: u8, w: &[f64], x: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let (roles, role_rest) = role.as_chunks::<LANES>();
    let (ws, w_rest) = w.as_chunks::<LANES>();
    let (xs, x_rest) = x.as_chunks::<LANES>();
    for ((role, w), x) in roles.iter().zip(ws).zip(xs) {
        for k in 0..LANES {
            let t = term(w[k], x[k]);
            lanes[k] += if role[k] == wanted { t } else { 0.0 };
        }
    }
    for (((lane, &role), &w), &x) in lanes.iter_mut().zip(role_rest).zip(w_rest).zip(x_rest) {
        *lane += if role == wanted { term(w, x) } else { 0.0 };
    }
    lanes.iter().sum()
}

/// The largest value of a training cell.
#[inline(always)]
fn max(role: &[u8], values: &[f64]) -> f64 {
    let mut lanes = [f64::NEG_INFINITY; LANES];
    let larger = |lane: f64, role: u8, x: f64| {
        // False for NaN.
        if (role == Role::Train as u8) & (x > lane) { x } else { lane }
    };
    let (roles, role_rest) = role.as_chunks::<LANES>();
    let (xs, x_rest) = values.as_chunks::<LANES>();
    for (role, x) in roles.iter().zip(xs) {
        for k in 0..LANES {
            lanes[k] = larger(lanes[k], role[k], x[k]);
        }
    }
    for ((lane, &role), &x) in lanes.iter_mut().zip(role_rest).zip(x_rest) {
        *lane = larger(*lane, role, x);
    }
    lanes.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// The roles of up to 32 cells, from a byte to two bits each.
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
