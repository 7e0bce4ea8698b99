//! The kinds of random splits.

use std::fmt;

use serde::{Deserialize, Serialize};

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
