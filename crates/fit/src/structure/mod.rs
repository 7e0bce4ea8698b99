//! What holds within and among factors besides bounds and separable penalties: factors that are the
//! same in several places, smooth modes, rows that add up to 1.
//!
//! Their steps are made on the host (`coupled/engine.rs`), from what an engine says of each entry.

mod builder;
mod simplex;
mod smooth;
mod splines;
pub(crate) mod ties;

pub(crate) use self::simplex::Simplex;
pub(crate) use self::smooth::Roughness;
pub use self::smooth::Smooth;
pub use self::splines::Splines;

/// The structure of all factors of a model.
#[derive(Clone, Default)]
pub(crate) struct Structure {
    /// For each factor the first one of those that it is the same as: itself, where it is alone.
    pub ties: Vec<usize>,
    /// Of the first one of factors that are the same.
    pub roughness: Vec<Option<Roughness>>,
    /// Likewise.
    pub simplex: Vec<Option<Simplex>>,
}

impl Structure {
    /// That of factors without any.
    pub fn none(factors: usize) -> Structure {
        Structure {
            ties: (0..factors).collect(),
            roughness: vec![None; factors],
            simplex: vec![None; factors],
        }
    }

    /// Whether there is any, so that steps are made on the host.
    pub fn is_any(&self) -> bool {
        self.ties.iter().enumerate().any(|(l, &first)| l != first)
            || self.roughness.iter().any(Option::is_some)
            || self.simplex.iter().any(Option::is_some)
    }

    /// How many places a factor has.
    pub fn places(&self, l: usize) -> usize {
        self.ties.iter().filter(|&&first| first == self.ties[l]).count()
    }

    /// Whether a factor is bound to nothing but itself, so that slices of it may be rescaled.
    pub fn is_free(&self, l: usize) -> bool {
        self.places(l) == 1 && self.roughness[l].is_none() && self.simplex[l].is_none()
    }

    /// Whether a factor's part in half the squared distance can be lowered exactly: it is in one place, and
    /// its rows need not add up.
    pub fn steps_exactly(&self, l: usize) -> bool {
        self.places(l) == 1 && self.simplex[l].is_none()
    }

    /// What differences along smooth modes cost at these factors.
    pub fn penalty(&self, factors: &[Vec<f64>]) -> f64 {
        let one = |(roughness, factor): (&Option<Roughness>, &Vec<f64>)| {
            roughness.as_ref().map_or(0.0, |roughness| roughness.differences().value(factor))
        };
        self.roughness.iter().zip(factors).map(one).sum()
    }

    /// What holds for a factor, in words; empty where nothing does.
    pub fn describe(&self, l: usize) -> String {
        let first = self.ties[l];
        let mut text = match first == l {
            true => String::new(),
            false => format!(", the same as factor {}", first + 1),
        };
        if let Some(roughness) = &self.roughness[l] {
            text.push_str(&roughness.describe());
        }
        if let Some(simplex) = &self.simplex[l] {
            text.push_str(&simplex.describe());
        }
        text
    }
}
