//! The text in a checkpoint's file.

use serde::{Deserialize, Serialize};

use super::identity::Identity;

/// The text in a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct About {
    pub what: String,
    pub version: u32,
    /// The version of this crate that wrote it.
    pub program: String,
    /// What the fit is, by which it is known again.
    pub fit: Identity,
    pub algorithm: String,
    pub precision: String,
    pub device: String,
    pub seed: u64,
    pub sweeps: usize,
    #[serde(with = "bits")]
    pub seconds: f64,
    /// What the start gave reason to say.
    pub warnings: Vec<String>,
    /// Files call it a point.
    #[serde(rename = "point")]
    pub position: Position,
}

pub(super) const WHAT: &str = "a checkpoint of nneinfact";
/// Raised by one where files are no longer understood.
pub(super) const VERSION: u32 = 1;
/// The name of the text in the archive.
pub(super) const TEXT: &str = "checkpoint.json";

/// Where in its loop a fit was saved.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub stage: Stage,
    /// Of the momentum.
    #[serde(with = "bits")]
    pub t: f64,
    /// The objective in the middle of the last sweep; only of use before an evaluation.
    #[serde(with = "bits")]
    pub middle: f64,
}

/// A fit is saved at one of two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// A sweep has ended in the factors, and nothing came after it: no extrapolation, no evaluation. The
    /// start is such a place too.
    Swept,
    /// The losses at the factors are the last element of the history.
    #[serde(rename = "looked")]
    Evaluated,
}

/// Numbers are kept as their bits: decimal places that a parser rounds would not give the same numbers
/// back.
mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(x: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(x.to_bits())
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}
