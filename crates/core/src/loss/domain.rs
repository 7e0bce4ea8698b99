//! The data that a loss accepts.

use std::fmt;

/// The values that a loss accepts at an observed entry. All are finite.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Domain {
    /// Any x.
    Any,
    /// x ≥ 0.
    NonNegative,
    /// x > 0.
    Positive,
    /// 0 or 1.
    Binary,
    /// 0 ≤ x ≤ n.
    UpTo(Trials),
}

/// A number of trials: one for all entries, or each entry's own.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Trials {
    /// The same for all entries.
    Scalar(f64),
    /// The entry's value in this entry parameter.
    EntryParameter(usize),
}

impl Domain {
    /// Whether the loss accepts `x` at an entry with these entry parameters.
    #[must_use]
    pub fn contains(&self, x: f64, parameters: &[f64]) -> bool {
        x.is_finite()
            && match self {
                Domain::Any => true,
                Domain::NonNegative => x >= 0.0,
                Domain::Positive => x > 0.0,
                Domain::Binary => x == 0.0 || x == 1.0,
                Domain::UpTo(_) => x >= 0.0 && self.trials(parameters).is_some_and(|n| x <= n),
            }
    }

    /// The number of trials at an entry with these entry parameters, where the domain has one.
    #[must_use]
    pub fn trials(&self, parameters: &[f64]) -> Option<f64> {
        match *self {
            Domain::UpTo(Trials::Scalar(n)) => Some(n),
            Domain::UpTo(Trials::EntryParameter(i)) => parameters.get(i).copied(),
            _ => None,
        }
    }

    /// The domain in words, as in "x > 0".
    #[must_use]
    pub fn describe(&self) -> String {
        self.to_string()
    }

    /// What would help with data outside it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Domain::Any => "mask these entries",
            Domain::NonNegative => {
                "mask these entries, shift or clip the data, or choose euclidean, which accepts \
                 negative data"
            }
            Domain::Positive => {
                "mask these entries, or where they are zeros choose a loss that accepts zeros \
                 (kl, euclidean, hellinger, pearson)"
            }
            Domain::Binary => {
                "mask these entries, or choose binomial for fractions of a number of trials or kl \
                 for any nonnegative data"
            }
            Domain::UpTo(_) => {
                "mask these entries, give a larger number of trials, or choose negative-binomial or kl \
                 for counts without a limit"
            }
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Domain::Any => f.write_str("finite x"),
            Domain::NonNegative => f.write_str("finite x >= 0"),
            Domain::Positive => f.write_str("finite x > 0"),
            Domain::Binary => f.write_str("x = 0 or x = 1"),
            Domain::UpTo(Trials::Scalar(n)) => write!(f, "0 <= x <= {n}"),
            Domain::UpTo(Trials::EntryParameter(_)) => {
                f.write_str("0 <= x <= n, the entry's number of trials")
            }
        }
    }
}
