//! Observations with a role for every entry.

use std::sync::Arc;

use super::scan::Totals;
use super::{CooTensor, Dense, Labels, Role, Roles, SplitKind, StoredEntries, Strata};
use crate::error::Result;

/// Observations that a fit can run on: values, the role of every entry, weights, and sums over
/// them. Made by `Observations::prepare`.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(super) shape: Vec<usize>,
    /// Without entries where there is a COO tensor.
    pub(super) values: Arc<Dense>,
    pub(super) coo: Option<Arc<CooTensor>>,
    /// The one way to write these as stored entries, where there are no roles of all entries.
    pub(super) only_stored: Option<StoredEntries>,
    pub(super) roles: Option<Roles>,
    pub(super) weights: Option<Arc<Dense>>,
    /// The weights that were given are those kept times 2^this.
    pub(super) weight_exponent: i32,
    pub(super) totals: Totals,
    pub(super) split_kind: Option<SplitKind>,
    pub(super) strata: Option<Strata>,
    /// Where some values are negative: the mean of max(x, 0) over the training entries.
    pub(super) level: Option<f64>,
    pub(super) labels: Arc<[Labels]>,
}

/// How much of the data has a role.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Portion {
    /// The number of entries.
    pub entries: u64,
    /// The sum of their weights; the number of entries where there are no weights.
    pub weight: f64,
}

impl Prepared {
    /// The length of each mode.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What the modes and their indices are called, as
    /// [`Observations::labels`](super::Observations::labels).
    #[must_use]
    pub fn labels(&self) -> &Arc<[Labels]> {
        &self.labels
    }

    /// The entries, where the data were given as a list of them (COO).
    #[must_use]
    pub fn coo(&self) -> Option<&Arc<CooTensor>> {
        self.coo.as_ref()
    }

    /// The stored entries, where that is the only way to write these observations.
    pub(super) fn only_stored(&self) -> Option<&StoredEntries> {
        self.only_stored.as_ref()
    }

    /// The number of entries of a role whose value is not 0.
    #[must_use]
    pub fn nonzero(&self, role: Role) -> u64 {
        self.totals.nonzero[role as usize]
    }

    /// The same observations with a value for every entry.
    ///
    /// # Errors
    /// `Error::Memory` where that takes more than `limit` bytes.
    pub fn densified(&self, limit: u64) -> Result<Prepared> {
        let Some(coo) = &self.coo else { return Ok(self.clone()) };
        let values = Arc::new(coo.to_dense(limit)?);
        let left = limit.saturating_sub(values.bytes());
        let (roles, weights) = match &self.only_stored {
            Some(stored) => (stored.all_roles(values.len()), stored.all_weights(left)?),
            None => (self.roles.clone(), None),
        };
        let weights = weights.map(Arc::new).or_else(|| self.weights.clone());
        Ok(Prepared { values, roles, weights, coo: None, only_stored: None, ..self.clone() })
    }

    /// Bytes of a weight in the [dense form](Prepared::densified) of a list; 0 without weights.
    #[must_use]
    pub fn dense_weight_bytes(&self) -> usize {
        if self.only_stored.as_ref().is_some_and(StoredEntries::is_weighted) { 8 } else { 0 }
    }

    /// How entries were withheld at random; `None` where none were.
    #[must_use]
    pub fn split_kind(&self) -> Option<SplitKind> {
        self.split_kind
    }

    /// What was drawn where entries were withheld [by strata](super::Observations::split_as). `None` where
    /// they were not, and where implicit entries are missing, so that there was no zero to draw.
    #[must_use]
    pub fn strata(&self) -> Option<&Strata> {
        self.strata.as_ref()
    }

    /// The values of all entries; a tensor without entries where the data were given as a
    /// [COO tensor](Prepared::coo).
    #[must_use]
    pub fn values(&self) -> &Arc<Dense> {
        &self.values
    }

    /// The role of every entry, in the values' order of memory (C order for a COO tensor); `None`
    /// where all are [`Role::Train`], and where only the stored entries have a role of their own.
    #[must_use]
    pub fn roles(&self) -> Option<&Roles> {
        self.roles.as_ref()
    }

    /// The weights, in the values' order of memory; `None` where they are 1 on every observed
    /// entry. On a [`Role::Missing`] entry the weight counts as 0, whatever stands here.
    #[must_use]
    pub fn weights(&self) -> Option<&Arc<Dense>> {
        self.weights.as_ref()
    }

    /// What the kept weights are multiples of, a power of two: 1 but where those that were given are
    /// too far from 1 for single precision. All sums of weights here are of the kept ones, and a
    /// penalty, which is added to the sum of the weighted losses, is to be divided by this.
    #[must_use]
    pub fn weight_unit(&self) -> f64 {
        super::scaled(1.0, self.weight_exponent)
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

    /// The number of entries of a role; where more than a `u64` holds are implicit, the largest one.
    /// (The weight of the [`portion`](Prepared::portion) is right then, too.)
    #[must_use]
    pub fn count(&self, role: Role) -> u64 {
        self.totals.counts[role as usize]
    }

    /// Lets go of the stored entries of a list: for an engine that has sorted them for its passes, and asks no
    /// more of these observations than what it has noted of roles, weights and sums.
    pub fn drop_entries(&mut self) {
        self.coo = None;
        self.only_stored = None;
    }

    /// How many entries do not have the role that most have.
    #[must_use]
    pub fn minority(&self) -> u64 {
        let counts = &self.totals.counts;
        let most = counts.iter().copied().max().unwrap_or(0);
        counts.iter().fold(0u64, |sum, &n| sum.saturating_add(n)).saturating_sub(most)
    }

    /// Whether all entries are trained on.
    #[must_use]
    pub fn is_all_train(&self) -> bool {
        [Role::Missing, Role::Validation, Role::HeldOut].iter().all(|&role| self.count(role) == 0)
    }

    /// The number of entries of a role and the sum of their weights (0 for [`Role::Missing`]).
    #[must_use]
    pub fn portion(&self, role: Role) -> Portion {
        let role = role as usize;
        Portion { entries: self.totals.counts[role], weight: self.totals.weight[role] }
    }

    /// The weighted mean of the values over the training entries. Not finite where a training value
    /// is not.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.totals.sum / self.totals.weight[Role::Train as usize]
    }

    /// The weighted sum of the values over the training entries.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.totals.sum
    }

    /// The same observations, of which some are negative, `level` being the weighted mean of max(x, 0)
    /// over the training entries.
    #[must_use]
    pub fn with_negative(self, level: f64) -> Prepared {
        Prepared { level: Some(level), ..self }
    }

    /// Whether some observed values are known to be negative: see
    /// [`with_negative`](Prepared::with_negative).
    #[must_use]
    pub fn has_negative(&self) -> bool {
        self.level.is_some()
    }

    /// The size of what is fitted: the mean, or where values are negative the weighted mean of
    /// max(x, 0), over the training entries.
    #[must_use]
    pub fn level(&self) -> f64 {
        self.level.unwrap_or_else(|| self.mean())
    }

    /// The largest value of a training entry, NaN passed over; −∞ where all are NaN.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.totals.max
    }
}
