//! How the data of a shared fit are cut: into slabs along one mode, whatever the number of processes, and
//! which slabs belong to which process.

use std::ops::Range;

use crate::settings::Settings;
use nneinfact_core::data::Part;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::history::SlabRecord;

/// The indices of each slab along a mode of this length: as many slabs as are asked for, or as there are
/// indices, of lengths that differ by at most 1.
///
/// ```
/// use nneinfact::fit::slab_ranges;
///
/// assert_eq!(slab_ranges(10, 4), [0..2, 2..5, 5..7, 7..10]);
/// assert_eq!(slab_ranges(2, 8), [0..1, 1..2]);
/// ```
#[must_use]
pub fn slab_ranges(whole: usize, slabs: usize) -> Vec<Range<usize>> {
    shares(whole, slabs.min(whole))
}

/// The numbers of the slabs that each of so many processes has: consecutive ones, of which the numbers
/// differ by at most 1. Where there are more processes than slabs, the last ones have none.
///
/// ```
/// use nneinfact::fit::slabs_of_processes;
///
/// assert_eq!(slabs_of_processes(8, 3), [0..2, 2..5, 5..8]);
/// assert_eq!(slabs_of_processes(2, 3), [0..1, 1..2, 2..2]);
/// ```
#[must_use]
pub fn slabs_of_processes(slabs: usize, processes: usize) -> Vec<Range<usize>> {
    let mut owned = shares(slabs, processes.min(slabs));
    owned.resize(processes, slabs..slabs);
    owned
}

fn shares(whole: usize, count: usize) -> Vec<Range<usize>> {
    // In 128 bits, as a mode can be very long.
    let at = |k: usize| (k as u128 * whole as u128 / count as u128) as usize;
    (0..count).map(|k| at(k)..at(k + 1)).collect()
}

/// The mode that data of this shape are cut along where nobody says which: the first where it has an index
/// for every slab, as files have it outermost, else the longest.
///
/// ```
/// use nneinfact::fit::split_mode;
///
/// assert_eq!(split_mode(&[100, 2000], 8), 0);
/// assert_eq!(split_mode(&[5, 20, 2000], 8), 2);
/// ```
#[must_use]
pub fn split_mode(shape: &[usize], slabs: usize) -> usize {
    match shape.first() {
        Some(&n) if n >= slabs => 0,
        _ => (0..shape.len()).rev().max_by_key(|&mode| shape[mode]).unwrap_or(0),
    }
}

/// How the data of a fit are cut.
#[derive(Clone, Debug)]
pub(super) struct Split {
    pub mode: usize,
    /// The shape of the whole data.
    pub shape: Vec<usize>,
    /// The indices of each slab.
    pub ranges: Vec<Range<usize>>,
    /// The slabs of each process.
    pub owned: Vec<Range<usize>>,
    /// Of the process that this is.
    pub rank: usize,
}

impl Split {
    /// That of data of which this process has this `part`, or all where it is `None`.
    pub fn new(
        settings: &Settings,
        found: &[usize],
        part: Option<&Part>,
        rank: usize,
        size: usize,
    ) -> Result<Split> {
        let refuse = |message: String| Err(Error::Setting(message));
        if rank >= size {
            return refuse(format!("there is no process {rank} (counted from 0) of {size}"));
        }
        let slabs = settings.slabs.unwrap_or(Settings::SLABS);
        let shape = part.map_or_else(|| found.to_vec(), |part| part.shape(found));
        let mode = match (part, settings.split_along) {
            (Some(part), Some(mode)) if part.mode != mode => {
                return refuse(format!(
                    "the data are a part along mode {}, but are to be split along mode {}",
                    part.mode + 1,
                    mode + 1
                ));
            }
            (Some(part), _) => part.mode,
            (None, Some(mode)) => mode,
            (None, None) => split_mode(&shape, slabs),
        };
        let Some(&whole) = shape.get(mode) else {
            return refuse(format!(
                "the data cannot be split along mode {}: they have {} modes",
                mode + 1,
                shape.len()
            ));
        };
        if whole == 0 {
            return refuse(format!("mode {} of the data is empty", mode + 1));
        }
        let ranges = slab_ranges(whole, slabs);
        let owned = slabs_of_processes(ranges.len(), size);
        let split = Split { mode, shape, ranges, owned, rank };
        if let Some(part) = part {
            split.check(part, found[mode])?;
        }
        Ok(split)
    }

    /// Refuses a part that is not the one of this process.
    fn check(&self, part: &Part, found: usize) -> Result<()> {
        let expected = self.part();
        let Part { mode, range, whole } = part;
        if *range != expected && !(range.is_empty() && expected.is_empty()) {
            return Err(Error::Setting(format!(
                "process {} has the indices {range:?} of mode {}, but with {} slabs of {whole} indices on {} processes its part is {expected:?} (slab_ranges and slabs_of_processes tell)",
                self.rank,
                mode + 1,
                self.ranges.len(),
                self.owned.len()
            )));
        }
        // The data of a process without slabs are not looked at.
        if found != range.len() && !range.is_empty() {
            return Err(Error::Shape {
                what: format!("mode {} of the part of process {}", mode + 1, self.rank),
                found: format!("{found} indices"),
                expected: format!("{}, those from {} to {}", range.len(), range.start, range.end),
            });
        }
        Ok(())
    }

    /// The indices that this process has; an empty range where it has none.
    pub fn part(&self) -> Range<usize> {
        let own = self.own();
        match own.is_empty() {
            true => 0..0,
            false => self.ranges[own.start].start..self.ranges[own.end - 1].end,
        }
    }

    /// The numbers of the slabs of this process.
    pub fn own(&self) -> Range<usize> {
        self.owned[self.rank].clone()
    }

    /// The shape of a slab.
    pub fn slab_shape(&self, slab: usize) -> Vec<usize> {
        let mut shape = self.shape.clone();
        shape[self.mode] = self.ranges[slab].len();
        shape
    }

    pub fn record(&self) -> SlabRecord {
        SlabRecord { mode: self.mode, count: self.ranges.len() }
    }
}
