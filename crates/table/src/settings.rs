//! What is asked of a table.

use std::io::Read;
use std::path::PathBuf;

use crate::ahead::Switch;
use crate::filter::Filter;
use crate::spec::Modes;
use crate::tensor::Implicit;
use crate::time::{TimeFormat, Zones};

/// What the values of the tensor are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Values {
    /// How many rows an entry has.
    #[default]
    Count,
    /// The sum of a column over the rows of an entry.
    Sum(String),
    /// The mean of a column over the rows of an entry.
    Mean(String),
    /// The largest value of a column over the rows of an entry.
    Max(String),
}

impl Values {
    /// What entries without a row are, if nothing else is said: zeros of counts and sums, and
    /// missing among means and maxima.
    #[must_use]
    pub fn implicit(&self) -> Implicit {
        match self {
            Values::Count | Values::Sum(_) => Implicit::Zero,
            Values::Mean(_) | Values::Max(_) => Implicit::Missing,
        }
    }
}

/// Where the rows are.
pub(crate) enum Source<'a> {
    Files(Vec<PathBuf>),
    Stream { from: Option<Input<'a>>, name: PathBuf },
}

/// What is read once, from its beginning to its end.
pub(crate) enum Input<'a> {
    Standard,
    Reader(Box<dyn Read + 'a>),
}

/// What is asked of a table.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub modes: Modes,
    pub values: Values,
    pub implicit: Option<Implicit>,
    pub filter: Option<Filter>,
    pub orders: Vec<(String, Vec<String>)>,
    pub header: bool,
    pub separator: Option<u8>,
    pub quote: Option<u8>,
    pub skip_bad: bool,
    pub missing: Vec<Vec<u8>>,
    pub time_format: TimeFormat,
    pub zones: Zones,
    pub memory: Option<u64>,
    pub cancel: Switch,
}
