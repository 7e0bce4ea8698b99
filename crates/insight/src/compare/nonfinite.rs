//! Numbers that may be infinite, in JSON, which has none: `"inf"` and `"-inf"`. What is no number at all
//! is written as `null`, and read as one that is worse than all.

use serde::{Deserialize, Deserializer, Serializer};

/// A loss by which nothing that is no number is ever the least. (The sign of such a number decides
/// on which side of all others it is sorted.)
pub fn worst(loss: f64) -> f64 {
    if loss.is_finite() { loss } else { f64::INFINITY }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Either {
    Number(f64),
    Text(String),
}

impl Either {
    fn number<E: serde::de::Error>(self) -> Result<f64, E> {
        match self {
            Either::Number(x) => Ok(x),
            Either::Text(text) => match text.as_str() {
                "inf" => Ok(f64::INFINITY),
                "-inf" => Ok(f64::NEG_INFINITY),
                text => Err(E::custom(format!("{text:?} is no number"))),
            },
        }
    }
}

pub fn serialize<S: Serializer>(x: &f64, to: S) -> Result<S::Ok, S::Error> {
    match x.is_infinite() {
        true => to.serialize_str(&x.to_string()),
        false => to.serialize_f64(*x),
    }
}

pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Option::<Either>::deserialize(from)?.map_or(Ok(f64::INFINITY), Either::number)
}

/// Where there may be none.
pub mod option {
    use super::{Deserialize, Deserializer, Either, Serializer};

    pub fn serialize<S: Serializer>(x: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        match x {
            Some(x) => super::serialize(x, to),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        Option::<Either>::deserialize(from)?.map(Either::number).transpose()
    }
}
