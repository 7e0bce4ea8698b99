//! The kinds of random splits.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Up to this many entries of a COO tensor are given a role one by one where random splits or masks
/// ask for it: 250 MB of roles.
pub(super) const MOST_ROLES: u64 = 1_000_000_000;

/// How entries are withheld at random ([`Observations::split_as`](super::Observations::split_as)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitKind {
    /// By strata where a list's implicit entries are zeros and its tensor has more than 10⁹ entries,
    /// else every entry by itself.
    #[default]
    Auto,
    /// Every observed entry by itself, stored or not, with the same probability.
    Cells,
    /// Stored entries by themselves, and some of the implicit zeros, each of which stands for many.
    Strata,
}

impl SplitKind {
    /// All kinds.
    pub const ALL: [SplitKind; 3] = [SplitKind::Auto, SplitKind::Cells, SplitKind::Strata];

    /// The kind for a list of a tensor of so many entries, of which those that are not listed are zeros:
    /// [`Auto`](Self::Auto) is decided.
    #[must_use]
    pub fn of_list(self, volume: u128) -> SplitKind {
        match self {
            SplitKind::Auto if volume > u128::from(MOST_ROLES) => SplitKind::Strata,
            SplitKind::Auto => SplitKind::Cells,
            kind => kind,
        }
    }

    /// "auto", "cells" or "strata".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SplitKind::Auto => "auto",
            SplitKind::Cells => "cells",
            SplitKind::Strata => "strata",
        }
    }
}

impl fmt::Display for SplitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
