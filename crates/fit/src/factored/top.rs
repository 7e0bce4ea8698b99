//! The largest entries of ŷ, by branch and bound over the factors.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::FactoredTensor;
use super::blocks::Blocks;
use super::entries::Slicing;
use super::top_tree::TreeSearch;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::memory::available_memory;
use nneinfact_core::model::Index;

/// Partial indices that a search keeps at once, at least.
const KEPT: usize = 1 << 22;
/// The share of the free memory that a search may take.
const SHARE: u64 = 4;
/// About what a partial index takes, in bytes.
const PARTIAL_BYTES: u64 = 96;
/// Entries up to which all of ŷ are gone through where the bounds do not tell enough.
const SCANNED: f64 = 1e9;
/// Values of the first mode from which the search first goes straight down.
const STRAIGHT: usize = 8;

/// An entry of ŷ: see [`FactoredTensor::top`].
#[derive(Clone, Debug, PartialEq)]
pub struct LargestEntry {
    /// The index, mode by mode.
    pub index: Vec<usize>,
    /// ŷ there.
    pub value: f64,
}

/// What a search knows that would have to keep more than it may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unfinished {
    /// The largest entry so far.
    pub found: Option<f64>,
    /// What no entry is above.
    pub bound: f64,
}

impl Unfinished {
    /// As the end of a sentence, with six digits; the bound is rounded up.
    fn say(self) -> String {
        let short = |y: f64| format!("{y:.5e}").parse::<f64>().unwrap_or(y);
        let found = self
            .found
            .map_or_else(String::new, |y| format!("the largest so far is {:?}, ", short(y)));
        format!("{found}none is above {:?}", short(self.bound * (1.0 + 5e-6)))
    }
}

/// Partial indices that a search may keep at once.
fn kept() -> usize {
    let room = available_memory().map_or(0, |free| free / SHARE / PARTIAL_BYTES);
    usize::try_from(room).unwrap_or(usize::MAX).max(KEPT)
}

impl FactoredTensor {
    /// The `count` largest entries of ŷ, the largest first (of equal ones any; all entries where there are
    /// fewer).
    ///
    /// Where no factor has more than one mode (as in CP, Tucker, tensor trains) ŷ is bounded over some of the
    /// indices of every mode by the largest entries of the factors there, and the part of the highest bound is
    /// looked into first. Else it is bounded where only some modes are known by the largest entries of the
    /// factors along the others.
    /// A tensor whose bounds tell little is gone through entry by entry, where it has at most 10⁹.
    ///
    /// # Errors
    /// [`Error::Memory`] where so many entries do not fit in memory, or the search would have to keep more partial indices than
    /// a quarter of the free memory holds (and more than some four million) and there are too many entries to go through.
    pub fn top(&self, count: usize) -> Result<Vec<LargestEntry>> {
        let output = self.model().output();
        let found = (count as f64).min(self.shapes.volume(self.model().observed()));
        let needed = found * (64 + 16 * output.len()) as f64;
        if let Some(available) = available_memory()
            && needed > available as f64
        {
            return Err(Error::Memory {
                what: format!("the {count} largest entries"),
                needed: needed as u64,
                available,
                help: "ask for fewer".into(),
            });
        }
        let kept = kept();
        let found = match TreeSearch::new(self) {
            Some(search) => search.largest(count, kept),
            None => self.search(count, kept)?,
        };
        match found {
            Ok(found) => Ok(found),
            Err(unfinished) => {
                let entries: f64 = self.shapes.volume(self.model().observed());
                if entries <= SCANNED {
                    return self.scan(count);
                }
                Err(Error::Memory {
                    what: format!(
                        "finding the {count} largest of {entries:.3e} entries, whose bounds by the factors are close to each other ({}),",
                        unfinished.say()
                    ),
                    // At least one more than are kept.
                    needed: (kept as u64 + 1) * PARTIAL_BYTES,
                    available: kept as u64 * PARTIAL_BYTES,
                    help: "fix some modes, ask for fewer, or draw a sample and take its largest"
                        .into(),
                })
            }
        }
    }

    /// Branch and bound; an inner error where it would keep more partial indices than `kept`.
    fn search(&self, count: usize, kept: usize) -> Result<Result<Vec<LargestEntry>, Unfinished>> {
        let output = self.model().output();
        let mut found = Found::new(count);
        if count == 0 {
            return Ok(Ok(Vec::new()));
        }
        // Small modes first: the last is gone through with exact values.
        let mut order: Vec<usize> = (0..output.len()).collect();
        order.sort_by_key(|&mode| (self.shapes.size(output[mode]), mode));
        let levels: Vec<Level> =
            (1..=order.len()).map(|n| Level::new(self, &order[..n])).collect::<Result<_>>()?;
        let full = |known: &[usize]| -> Vec<usize> {
            let mut index = vec![0; order.len()];
            known.iter().zip(&order).for_each(|(&i, &mode)| index[mode] = i);
            index
        };
        // Straight down from the highest bounds first, for something to hold others against.
        let mut begin: Vec<(usize, f64)> = levels[0].bounds(&[])?.into_iter().enumerate().collect();
        begin.sort_by(|a, b| b.1.total_cmp(&a.1));
        if order.len() > 1 {
            for &(i, _) in begin.iter().take(STRAIGHT) {
                let mut known = vec![i];
                while known.len() + 1 < order.len() {
                    let bounds = levels[known.len()].bounds(&known)?;
                    let best = (0..bounds.len()).max_by(|&a, &b| bounds[a].total_cmp(&bounds[b]));
                    known.push(best.unwrap_or(0));
                }
                found.add(&levels[known.len()].bounds(&known)?, &known, full);
            }
            found.forget_where();
        }
        let mut open = BinaryHeap::new();
        open.push(Partial { bound: f64::INFINITY, known: Box::default() });
        while let Some(Partial { bound, known }) = open.pop() {
            if !found.wants(bound) {
                break;
            }
            let bounds = levels[known.len()].bounds(&known)?;
            if known.len() + 1 == order.len() {
                found.add(&bounds, &known, full);
                continue;
            }
            for (i, &bound) in bounds.iter().enumerate().filter(|(_, bound)| found.wants(**bound)) {
                let known: Box<[usize]> = known.iter().copied().chain([i]).collect();
                open.push(Partial { bound, known });
            }
            if open.len() > kept {
                let bound = open.peek().map_or(bound, |open| open.bound);
                return Ok(Err(Unfinished { found: found.largest(), bound }));
            }
        }
        Ok(Ok(found.sorted()))
    }

    /// All entries, block by block.
    fn scan(&self, count: usize) -> Result<Vec<LargestEntry>> {
        let shape = self.shapes.data();
        let blocks = Blocks::in_c_order(&shape);
        let mut all = Found::new(count);
        self.fold_blocks(
            &blocks,
            |block, values| {
                let sizes: Vec<usize> = block.iter().map(ExactSizeIterator::len).collect();
                let mut index = vec![0; sizes.len()];
                let mut found = Found::new(count);
                for &value in values {
                    if found.wants(value) {
                        let at = index.iter().zip(block).map(|(i, range)| range.start + i);
                        found.push(value, at.collect());
                    }
                    blocks.advance(&mut index, &sizes);
                }
                Ok(found)
            },
            |_, part| part.entries.into_iter().for_each(|e| all.push(e.0.value, e.0.index)),
        )?;
        Ok(all.sorted())
    }
}

/// Bounds over one more mode than is known.
struct Level {
    tensor: FactoredTensor,
    slicing: Slicing,
}

impl Level {
    fn new(of: &FactoredTensor, modes: &[usize]) -> Result<Level> {
        let output = of.model().output();
        let indices: Vec<Index> = modes.iter().map(|&mode| output[mode]).collect();
        let tensor = of.bound(&indices)?;
        let mut pattern = vec![Some(0); modes.len()];
        pattern[modes.len() - 1] = None;
        let slicing = Slicing::new(&tensor, &pattern);
        Ok(Level { tensor, slicing })
    }

    /// For each index of the level's mode what ŷ is not above.
    fn bounds(&self, known: &[usize]) -> Result<Vec<f64>> {
        let fixed: Vec<Option<usize>> = known.iter().map(|&i| Some(i)).chain([None]).collect();
        self.slicing.at(&self.tensor, &fixed)
    }
}

/// An index of the first modes, and what ŷ is not above there.
struct Partial {
    bound: f64,
    known: Box<[usize]>,
}

impl PartialEq for Partial {
    fn eq(&self, other: &Partial) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Partial {}

impl PartialOrd for Partial {
    fn partial_cmp(&self, other: &Partial) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Partial {
    /// By the bound; of the same bound what is known further comes first.
    fn cmp(&self, other: &Partial) -> Ordering {
        let length = |p: &Partial| p.known.len();
        self.bound
            .total_cmp(&other.bound)
            .then(length(self).cmp(&length(other)))
            .then_with(|| other.known.cmp(&self.known))
    }
}

/// The largest entries so far.
struct Found {
    count: usize,
    /// The least of them on top.
    entries: BinaryHeap<std::cmp::Reverse<Kept>>,
    /// What is not worth to be looked at.
    least: f64,
}

struct Kept {
    value: f64,
    index: Vec<usize>,
}

impl PartialEq for Kept {
    fn eq(&self, other: &Kept) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Kept {}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Kept) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kept {
    /// By the value; of the same value that of the earlier index.
    fn cmp(&self, other: &Kept) -> Ordering {
        self.value.total_cmp(&other.value).then_with(|| other.index.cmp(&self.index))
    }
}

impl Found {
    fn new(count: usize) -> Found {
        Found { count, entries: BinaryHeap::new(), least: f64::NEG_INFINITY }
    }

    /// Whether an entry of at most this value could be among the largest.
    fn wants(&self, value: f64) -> bool {
        let full = self.entries.len() >= self.count;
        let least = self.entries.peek().filter(|_| full).map_or(f64::NEG_INFINITY, |e| e.0.value);
        self.count > 0 && value > least && value >= self.least
    }

    fn push(&mut self, value: f64, index: Vec<usize>) {
        if !self.wants(value) {
            return;
        }
        self.entries.push(std::cmp::Reverse(Kept { value, index }));
        if self.entries.len() > self.count {
            self.entries.pop();
        }
    }

    /// Adds the entries along the last mode.
    fn add(&mut self, values: &[f64], known: &[usize], full: impl Fn(&[usize]) -> Vec<usize>) {
        for (i, &value) in values.iter().enumerate() {
            if self.wants(value) {
                let known: Vec<usize> = known.iter().copied().chain([i]).collect();
                self.push(value, full(&known));
            }
        }
    }

    /// Keeps only how large they are: so many entries of at least the least of these there are.
    fn forget_where(&mut self) {
        if self.entries.len() >= self.count {
            // A little less: bounds of partial indices are rounded otherwise than entries.
            let least = self.entries.peek().map_or(f64::NEG_INFINITY, |e| e.0.value);
            self.least = least * (1.0 - 1e-9);
        }
        self.entries.clear();
    }

    /// The value of the largest.
    fn largest(&self) -> Option<f64> {
        self.entries.iter().map(|e| e.0.value).max_by(f64::total_cmp)
    }

    fn sorted(self) -> Vec<LargestEntry> {
        let mut kept: Vec<Kept> = self.entries.into_iter().map(|e| e.0).collect();
        kept.sort_by(|a, b| b.cmp(a));
        kept.into_iter().map(|Kept { value, index }| LargestEntry { index, value }).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayD;

    use super::*;

    /// All values of 1 in 4 × 5 × 3 entries.
    fn flat() -> FactoredTensor {
        let ones = |n: usize| ArrayD::from_elem(vec![n], 1.0);
        FactoredTensor::from_parts("i,j,k->ijk", vec![ones(4), ones(5), ones(3)], None).unwrap()
    }

    #[test]
    fn a_search_that_keeps_too_much_gives_up_and_all_entries_are_gone_through() {
        let shape = [4usize, 5, 3];
        let factors: Vec<ArrayD<f64>> = shape
            .iter()
            .enumerate()
            .map(|(l, &n)| {
                let entry = |i: usize| ((i * 7 + l * 3) % 11) as f64 * 0.1 + 0.5;
                ArrayD::from_shape_vec(vec![n, 2], (0..2 * n).map(entry).collect()).unwrap()
            })
            .collect();
        let y = FactoredTensor::from_parts("ir,jr,kr->ijk", factors, None).unwrap();
        let unfinished = y.search(60, 2).unwrap().unwrap_err();
        let most = y.scan(1).unwrap()[0].value;
        assert!(unfinished.bound >= most * (1.0 - 1e-12));
        assert!(unfinished.found.is_none_or(|y| y <= most * (1.0 + 1e-12)));
        let said = Unfinished { found: Some(1.25), bound: 2e-9 }.say();
        assert_eq!(said, "the largest so far is 1.25, none is above 2.00001e-9");
        assert_eq!(Unfinished { found: None, bound: 8.0 }.say(), "none is above 8.00004");
        let (found, scanned) = (y.search(7, KEPT).unwrap().unwrap(), y.scan(7).unwrap());
        let values = |of: &[LargestEntry]| of.iter().map(|e| e.value).collect::<Vec<_>>();
        assert_eq!(found.len(), 7);
        for (a, b) in values(&found).iter().zip(values(&scanned)) {
            assert!((a / b - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn equal_entries_are_found_as_many_as_wanted() {
        for count in [0, 1, 7, 60, 100] {
            let found = flat().top(count).unwrap();
            assert_eq!(found.len(), count.min(60));
            let mut indices: Vec<Vec<usize>> = found.iter().map(|e| e.index.clone()).collect();
            indices.sort();
            indices.dedup();
            assert_eq!(indices.len(), count.min(60));
            assert!(found.iter().all(|e| e.value == 1.0));
        }
    }
}
