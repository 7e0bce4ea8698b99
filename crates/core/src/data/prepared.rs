//! Observations with a role for every cell.

use std::sync::Arc;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::mapped::in_order;
use super::memory_layout::Runs;
use super::observations::Split;
use super::roles::{Bits, PER_WORD};
use super::storage::{Convert, Summary};
use super::stored::Entry;
use super::{CooTensor, Dense, Implicit, Observations, Role, Roles, Storage, StoredEntries};
use crate::error::{Error, Result};

/// Observations that a fit can run on: values, the role of every cell, weights, and sums over
/// them. Made by [`Observations::prepare`].
#[derive(Clone, Debug)]
pub struct Prepared {
    shape: Vec<usize>,
    /// Without cells where there are coordinates.
    values: Arc<Dense>,
    coordinates: Option<Arc<CooTensor>>,
    /// The one list that these can be written as, where there are no roles of all cells.
    listed: Option<StoredEntries>,
    nonzero: [u64; 4],
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
    pub entries: u64,
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
    /// The length of each mode.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The entries, where the data were given as a list of them.
    #[must_use]
    pub fn coo(&self) -> Option<&Arc<CooTensor>> {
        self.coordinates.as_ref()
    }

    /// The list of cells, where that is the only form of these observations.
    pub(super) fn listed(&self) -> Option<&StoredEntries> {
        self.listed.as_ref()
    }

    /// The number of cells of a role whose value is not 0.
    #[must_use]
    pub fn nonzero(&self, role: Role) -> u64 {
        self.nonzero[role as usize]
    }

    /// The same observations with a value for every cell.
    ///
    /// # Errors
    /// [`Error::Memory`] where that takes more than `limit` bytes.
    pub fn densified(&self, limit: u64) -> Result<Prepared> {
        let Some(coordinates) = &self.coordinates else { return Ok(self.clone()) };
        let values = Arc::new(coordinates.to_dense(limit)?);
        let roles = match &self.listed {
            Some(listed) => listed.all_roles(values.len()),
            None => self.roles.clone(),
        };
        Ok(Prepared { values, roles, coordinates: None, listed: None, ..self.clone() })
    }

    /// The values of all cells; a tensor without cells where the data were given as
    /// [`coordinates`](Prepared::coordinates).
    #[must_use]
    pub fn values(&self) -> &Arc<Dense> {
        &self.values
    }

    /// The role of every cell, in the values' order of memory (C order for coordinates); `None`
    /// where all are [`Role::Train`], and for a list of cells of which only the listed ones have a
    /// role of their own.
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

    /// The tensors that every dense pass reads: values and weights.
    pub fn tensors(&self) -> Vec<&Dense> {
        std::iter::once(&self.values).chain(&self.weights).map(Arc::as_ref).collect()
    }

    /// Whether values or weights stay in a file.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.tensors().iter().any(|tensor| tensor.is_mapped())
    }

    /// Whether the files that values and weights stay in are what they were when they were opened.
    pub fn check(&self) -> Result<()> {
        self.tensors().iter().try_for_each(|tensor| tensor.check())
    }

    /// The number of cells of a role.
    #[must_use]
    pub fn count(&self, role: Role) -> u64 {
        self.portion(role).entries
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
        if let Some(coordinates) = &self.coordinates {
            return self.first_listed_outside(coordinates, &inside);
        }
        let n = self.values.len();
        let places = Places::new(&self.values);
        let mut found: Vec<Option<(u64, u64)>> = Vec::new();
        in_order(&[&self.values], n, TASK, |cells| {
            let tasks = (cells.start / TASK..cells.end.div_ceil(TASK)).into_par_iter();
            found.par_extend(tasks.map(|task| {
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
}

impl Prepared {
    /// [`Prepared::first_outside`] for coordinates: the listed cells, and then the zeros.
    fn first_listed_outside(
        &self,
        coordinates: &CooTensor,
        inside: &(impl Fn(f64, usize) -> bool + Sync),
    ) -> Option<Outside> {
        let list = self.listed.as_ref().map_or(coordinates, |l| l.entries());
        let role = |i: usize, key: u64| match (&self.listed, &self.roles) {
            (Some(listed), _) => listed.role(i),
            (None, Some(roles)) => roles.get(key as usize),
            (None, None) => Role::Train,
        };
        let keys = list.keys();
        let observed: u64 = [Role::Train, Role::Validation, Role::HeldOut]
            .map(|role| self.count(role))
            .iter()
            .sum();
        let (mut count, mut first, mut listed) = (0u64, None, 0u64);
        for (i, &key) in keys.iter().enumerate() {
            if role(i, key) != Role::Missing {
                listed += 1;
                let value = list.values().get(i).unwrap_or(0.0);
                if !inside(value, key as usize) {
                    count += 1;
                    first = first.or(Some((key, value)));
                }
            }
        }
        let unlisted = observed.saturating_sub(listed);
        if unlisted > 0 && !inside(0.0, 0) {
            count += unlisted;
            // The first observed cell that is not in the list.
            let mut at = keys.iter().peekable();
            let gap = (0u64..).find(|cell| {
                while at.next_if(|&key| key < cell).is_some() {}
                at.peek() != Some(&cell)
                    && self.roles.as_ref().is_none_or(|r| r.get(*cell as usize) != Role::Missing)
            })?;
            if first.is_none_or(|(key, _)| gap < key) {
                first = Some((gap, 0.0));
            }
        }
        let (mut key, value) = first?;
        let mut index = vec![0; self.shape.len()];
        for (to, &n) in index.iter_mut().zip(&self.shape).rev() {
            *to = (key % n as u64) as usize;
            key /= n as u64;
        }
        Some(Outside { count, index, value })
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
    nonzero: [u64; 4],
    /// Σ w x over the training cells.
    sum: f64,
    max: f64,
    /// What the values need of an element type. Of values that stay in a file only: those in memory
    /// were looked at when they came there.
    summary: Summary,
}

impl Totals {
    const EMPTY: Totals = Totals {
        summary: Summary::EMPTY,
        cells: [0; 4],
        weight: [0.0; 4],
        nonzero: [0; 4],
        sum: 0.0,
        max: f64::NEG_INFINITY,
    };

    fn add(&mut self, other: &Totals) {
        for r in 0..4 {
            self.cells[r] += other.cells[r];
            self.nonzero[r] += other.nonzero[r];
            self.weight[r] += other.weight[r];
        }
        self.sum += other.sum;
        self.max = self.max.max(other.max);
        self.summary = self.summary.and(other.summary);
    }
}

/// Up to this many cells of coordinates are given a role one by one where random splits or masks
/// ask for it: 250 MB of roles.
const MOST_ROLES: u64 = 1_000_000_000;
/// Up to this many cells of coordinates are given a role one by one where lists of cells would do.
const FEW_ROLES: u64 = 100_000_000;

pub(super) fn prepare(observations: &Observations) -> Result<Prepared> {
    let shape = observations.shape();
    if shape.contains(&0) {
        return Err(Error::Observations(format!(
            "the data have no entries: their shape is {shape:?}"
        )));
    }
    let Some(coordinates) = &observations.coordinates else {
        return prepare_all(observations, observations.values.len(), None);
    };
    let cells = shape.iter().try_fold(1u64, |n, &m| n.checked_mul(m as u64));
    let Some(cells) = cells.filter(|&n| n <= i64::MAX as u64) else {
        return Err(Error::Observations(format!(
            "the shape {shape:?} has more than 2^63 cells, and their indices have to fit 63 bits"
        )));
    };
    if let Some(weights) = &observations.weights
        && !zero_one(weights)
    {
        return Err(Error::Observations(
            "weights other than 0 and 1 need the dense form of coordinates: give the data as a dense tensor"
                .into(),
        ));
    }
    if observations.unlisted_missing {
        return prepare_listed(observations, coordinates, cells);
    }
    let of_cells = observations.held_out.is_some()
        || observations.validation.is_some()
        || observations.mask.is_some()
        || observations.held_out_mask.is_some()
        || observations.weights.is_some();
    let of_lists = observations.nan_missing
        || observations.missing_at.is_some()
        || observations.held_out_at.is_some()
        || observations.validation_at.is_some();
    if of_cells && cells > MOST_ROLES {
        return Err(Error::Observations(format!(
            "random splits and masks over all cells are for coordinates of up to {MOST_ROLES} cells, and the shape {shape:?} has {cells}: give lists of the cells that are withheld or missing instead (held_out_at, validation_at, missing_at; on the command line --heldout-coordinates, --validation-coordinates, --missing)"
        )));
    }
    if of_cells || (of_lists && cells <= FEW_ROLES) {
        let keys = coordinates.keys();
        return prepare_all(observations, cells as usize, Some(&keys));
    }
    prepare_zeros(observations, coordinates, cells)
}

/// Weights of 0 and 1 only are a mask, which the roles already hold.
fn zero_one(weights: &Dense) -> bool {
    match weights.storage() {
        Storage::U8(v) => v.iter().all(|&w| w <= 1),
        Storage::Mapped(mapped) => mapped.summary().is_some_and(Summary::is_zero_one),
        _ => false,
    }
}

/// CooTensor of which only the listed cells are observed.
fn prepare_listed(
    observations: &Observations,
    coordinates: &Arc<CooTensor>,
    cells: u64,
) -> Result<Prepared> {
    let keys = coordinates.keys();
    let of = |list: &Option<Arc<CooTensor>>| list.as_ref().map(|l| l.keys());
    let (missing, held_out, validation) = (
        of(&observations.missing_at),
        of(&observations.held_out_at),
        of(&observations.validation_at),
    );
    let within = |list: &Option<Vec<u64>>, key: u64| {
        list.as_ref().is_some_and(|l| l.binary_search(&key).is_ok())
    };
    let bit = |bits: &Option<Arc<Bits>>, key: u64| bits.as_ref().map(|b| b.get(key as usize));
    let drawn = |split: Option<Split>, key: u64| {
        split.is_some_and(|Split { key: stream, threshold }| stream.at(key) < threshold)
    };
    let entry = |(i, &key): (usize, &u64)| -> Entry {
        let x = coordinates.values().get(i).unwrap_or(0.0);
        let weight = observations.weights.as_ref().and_then(|w| w.storage().get(key as usize));
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
    let mut entries: Vec<Entry> = keys.par_iter().enumerate().map(entry).collect();
    entries.retain(|e| e.2 != Role::Missing);
    let listed = match entries.len() == coordinates.len() {
        true if entries.iter().all(|e| e.2 == Role::Train) => {
            StoredEntries::of(Arc::clone(coordinates), Implicit::Missing)
        }
        _ => StoredEntries::from_entries(coordinates.shape(), &entries, Implicit::Missing),
    };
    finish_listed(coordinates, listed, cells)
}

/// CooTensor whose other cells are zeros, but for lists of cells that are missing or withheld.
fn prepare_zeros(
    observations: &Observations,
    coordinates: &Arc<CooTensor>,
    cells: u64,
) -> Result<Prepared> {
    let lists = [
        (&observations.missing_at, Role::Missing),
        (&observations.held_out_at, Role::HeldOut),
        (&observations.validation_at, Role::Validation),
    ];
    if lists.iter().all(|(list, _)| list.is_none()) && !observations.nan_missing {
        let listed = StoredEntries::of(Arc::clone(coordinates), Implicit::Zeros);
        return finish_listed(coordinates, listed, cells);
    }
    let missing = |x: f64| observations.nan_missing && x.is_nan();
    let mut entries: Vec<Entry> = coordinates
        .keys()
        .into_iter()
        .enumerate()
        .map(|(i, key)| {
            let x = coordinates.values().get(i).unwrap_or(0.0);
            if missing(x) { (key, 0.0, Role::Missing) } else { (key, x, Role::Train) }
        })
        .collect();
    for (list, role) in lists {
        entries.extend(list.iter().flat_map(|l| l.keys()).map(|key| (key, 0.0, role)));
    }
    // Of several roles, missing comes before held out, that before validation, that before training.
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
    let listed = StoredEntries::from_entries(coordinates.shape(), &entries, Implicit::Zeros);
    finish_listed(coordinates, listed, cells)
}

/// Sums up what a list of cells and the others hold.
fn finish_listed(
    coordinates: &Arc<CooTensor>,
    listed: StoredEntries,
    cells: u64,
) -> Result<Prepared> {
    let list = Arc::clone(listed.entries());
    let mut total = Totals::EMPTY;
    for i in 0..list.len() {
        let role = listed.role(i);
        let x = list.values().get(i).unwrap_or(0.0);
        total.cells[role as usize] += 1;
        total.nonzero[role as usize] += u64::from(x != 0.0);
        if role == Role::Train {
            total.sum += x;
            total.max = if x > total.max { x } else { total.max };
        }
    }
    let unlisted = cells - list.len() as u64;
    match listed.implicit() {
        Implicit::Missing => total.cells[Role::Missing as usize] += unlisted,
        Implicit::Zeros | Implicit::ByRole => {
            total.cells[Role::Train as usize] += unlisted;
            if unlisted > 0 {
                total.max = total.max.max(0.0);
            }
        }
    }
    for r in 1..4 {
        total.weight[r] = total.cells[r] as f64;
    }
    check_portions(&total, cells)?;
    Ok(Prepared {
        shape: coordinates.shape().to_vec(),
        values: Arc::new(Dense::empty()),
        // The list with the roles takes its place.
        coordinates: Some(list),
        listed: Some(listed),
        nonzero: total.nonzero,
        roles: None,
        weights: None,
        portions: total.portions(),
        mean: total.sum / total.weight[Role::Train as usize],
        max: total.max,
    })
}

impl Totals {
    fn portions(&self) -> [Portion; 4] {
        Role::ALL.map(|role| Portion {
            entries: self.cells[role as usize],
            weight: self.weight[role as usize],
        })
    }
}

fn check_portions(total: &Totals, n: u64) -> Result<()> {
    let [missing, train, validation, held_out] = total.cells;
    if missing == n {
        return Err(Error::Observations(format!(
            "nothing is observed: mask, weights and missing values leave none of the {n} entries"
        )));
    }
    if train == 0 {
        return Err(Error::Observations(format!(
            "nothing is left to train on: of {} observed entries, {held_out} are held out and {validation} are for validation",
            n - missing
        )));
    }
    Ok(())
}

/// Gives each of `n` cells its role; `keys` are the indices of coordinates in C order.
fn prepare_all(observations: &Observations, n: usize, keys: Option<&[u64]>) -> Result<Prepared> {
    let values = &observations.values;
    let places = match keys {
        Some(_) => Places::Same,
        None => Places::new(values),
    };
    // Lists of cells, in the order of memory.
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
    let mut words = Vec::new();
    if !all_train {
        words = vec![0u64; n.div_ceil(PER_WORD) + 1];
    }
    let streamed: Vec<&Dense> = std::iter::once(values)
        .filter(|_| keys.is_none())
        .chain(&observations.weights)
        .map(Arc::as_ref)
        .collect();
    in_order(&streamed, n, TASK, |cells| {
        let first = cells.start / TASK;
        if all_train {
            let tasks = (first..cells.end.div_ceil(TASK)).into_par_iter();
            totals.par_extend(tasks.map(|task| pass.task(task, &mut [])));
        } else {
            let words = &mut words[cells.start / PER_WORD..cells.end.div_ceil(PER_WORD)];
            let tasks = words.par_chunks_mut(TASK / PER_WORD).enumerate();
            totals.par_extend(tasks.map(|(task, words)| pass.task(first + task, words)));
        }
    });
    streamed.iter().try_for_each(|tensor| tensor.check())?;
    let mut total = Totals::EMPTY;
    totals.iter().for_each(|part| total.add(part));
    if let Some(mapped) = values.storage().mapped() {
        mapped.set_summary(total.summary);
    }

    check_portions(&total, n as u64)?;
    let train = total.cells[Role::Train as usize];
    let roles = (train < n as u64).then(|| Roles::from_words(words, n, total.cells));
    Ok(Prepared {
        shape: observations.shape().to_vec(),
        values: Arc::clone(values),
        coordinates: observations.coordinates.clone(),
        listed: None,
        nonzero: total.nonzero,
        roles,
        weights: observations.weights.clone().filter(|w| !zero_one(w)),
        portions: total.portions(),
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
    /// The indices of coordinates in C order, in place of dense values.
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
            (Some(keys), Some(coordinates)) => {
                values.fill(0.0);
                let from = keys.partition_point(|&k| k < start as u64);
                let inside = keys[from..].iter().take_while(|&&k| k < (start + len) as u64);
                for (i, &key) in inside.enumerate() {
                    values[key as usize - start] =
                        coordinates.values().get(from + i).unwrap_or(0.0);
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
        part.nonzero = nonzero(role, values, part.cells);
        part.max = max(role, values);
        if o.values.is_mapped() {
            part.summary = Convert::summary(values);
        }
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

/// How many cells of each role are not 0, of those that there are.
#[inline(always)]
fn nonzero(role: &[u8], values: &[f64], cells: [u64; 4]) -> [u64; 4] {
    let mut found = [0; 4];
    for r in 1..4 {
        if cells[r] > 0 {
            let one = |_: f64, x: f64| if x != 0.0 { 1.0 } else { 0.0 };
            found[r] = sum(role, r as u8, values, values, one) as u64;
        }
    }
    found
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
