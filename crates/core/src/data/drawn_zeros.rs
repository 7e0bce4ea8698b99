//! What splits by strata drew: how much of each stratum, and which stored entries are drawn zeros.

use super::Role;
use crate::error::{Error, Result};

/// What splits by strata drew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strata {
    /// The stored entries that could be drawn: observed ones that no list withholds.
    pub stored: u64,
    /// The implicit zeros that could be drawn. (There may be more than an integer holds.)
    pub zeros: f64,
    /// How many zeros were asked for beside each stored entry.
    pub zeros_per_nonzero: f64,
    /// Of the validation entries.
    pub validation: Stratum,
    /// Of the held-out entries.
    pub held_out: Stratum,
}

/// What a split by strata drew for one role.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stratum {
    /// Stored entries, each of weight 1.
    pub stored: u64,
    /// Implicit zeros.
    pub zeros: u64,
    /// The weight of each of these zeros in the mean loss of the role.
    pub zero_weight: f64,
}

impl Strata {
    /// What was drawn for a role; `None` for roles that nothing is drawn for.
    #[must_use]
    pub fn of(&self, role: Role) -> Option<Stratum> {
        match role {
            Role::Validation => Some(self.validation),
            Role::HeldOut => Some(self.held_out),
            Role::Missing | Role::Train => None,
        }
    }

    /// How many implicit zeros each drawn one of a role stands for; `None` where none was drawn.
    #[must_use]
    pub fn zeros_each(&self, role: Role) -> Option<f64> {
        self.of(role).filter(|drawn| drawn.zeros > 0).map(|drawn| self.zeros / drawn.zeros as f64)
    }
}

/// Which of some stored entries are drawn zeros, and what such a zero weighs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DrawnZeros {
    /// A bit for every stored entry.
    words: Vec<u64>,
    /// By role.
    weights: [f64; 4],
}

impl DrawnZeros {
    pub fn none_of(entries: usize, weights: [f64; 4]) -> DrawnZeros {
        DrawnZeros { words: vec![0; entries.div_ceil(64)], weights }
    }

    pub fn insert(&mut self, entry: usize) {
        if let Some(word) = self.words.get_mut(entry / 64) {
            *word |= 1 << (entry % 64);
        }
    }

    fn contains(&self, entry: usize) -> bool {
        self.words.get(entry / 64).is_some_and(|word| word >> (entry % 64) & 1 == 1)
    }

    /// The weight of an entry of this role.
    pub fn weight(&self, entry: usize, role: Role) -> f64 {
        if self.contains(entry) { self.weights[role as usize] } else { 1.0 }
    }

    /// Those of some of the entries, in this order.
    pub fn select(&self, entries: impl ExactSizeIterator<Item = usize>) -> DrawnZeros {
        let mut found = DrawnZeros::none_of(entries.len(), self.weights);
        for (to, from) in entries.enumerate() {
            if self.contains(from) {
                found.insert(to);
            }
        }
        found
    }

    /// Numbers that tell it apart from others.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        self.weights.iter().map(|weight| weight.to_bits()).chain(self.words.iter().copied())
    }
}

/// Without a word about it, as many zeros are drawn as stored entries are withheld.
pub(super) const ZEROS_PER_NONZERO: f64 = 1.0;
/// No more zeros are drawn beside each withheld stored entry.
const MOST_ZEROS: f64 = 1e6;
/// Checks a number of zeros beside each nonzero: see [`Observations::zeros_per_nonzero`](super::Observations::zeros_per_nonzero).
///
/// # Errors
/// [`Error::Observations`] where it is not above 0 and at most 10⁶.
pub fn check_zeros_per_nonzero(ratio: f64) -> Result<()> {
    if ratio > 0.0 && ratio <= MOST_ZEROS {
        return Ok(());
    }
    Err(Error::Observations(format!(
        "the number of zeros per nonzero must be above 0 and at most {MOST_ZEROS}, not {ratio}"
    )))
}
