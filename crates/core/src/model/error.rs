//! What can be wrong with a model string or with the ranks given for it.

use std::fmt::Write as _;
use std::ops::Range;

use crate::text::carets;

/// A mistake in a model string, or in the ranks and shapes given for it.
///
/// The message of a variant that holds `text` and `at` shows the string as it was given, with
/// carets under the indices concerned:
///
/// ```
/// let error = nneinfact::model::Model::parse("ir,jr->ijk").unwrap_err();
/// assert_eq!(error.to_string(), "\
/// no factor has the index k of the output
///   ir,jr->ijk
///            ^");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The string is empty or only spaces.
    #[error("the model is empty: write the factors, `->` and the data, as in `ir,jr->ij`")]
    Empty,
    /// There is no `->`.
    #[error(
        "no `->`: write the factors, `->` and the indices of the data, as in `ir,jr->ij`{}",
        carets(text, at)
    )]
    NoArrow {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
    },
    /// There is more than one `->`.
    #[error("more than one `->`{}", carets(text, at))]
    SecondArrow {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
    },
    /// A factor has no indices.
    #[error("factor {factor} has no indices{}", carets(text, at))]
    EmptyFactor {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// Which factor, counted from 1.
        factor: usize,
    },
    /// Nothing follows the `->`.
    #[error(
        "no indices after `->`: name the modes of the data, as in `ir,jr->ij`{}",
        carets(text, at)
    )]
    EmptyOutput {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
    },
    /// The string holds `...`.
    #[error("`...` is not supported: name every index by a letter{}", carets(text, at))]
    Ellipsis {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
    },
    /// Something that is not an index, a comma or an arrow.
    #[error("`{found}` is not an index: indices are the letters A–Z and a–z{}", carets(text, at))]
    NotAnIndex {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// The character.
        found: char,
    },
    /// An index stands twice in one factor.
    #[error(
        "the index {index} stands twice in factor {factor}: traces and diagonals are not supported{}",
        carets(text, at)
    )]
    TwiceInFactor {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// The index.
        index: char,
        /// Which factor, counted from 1.
        factor: usize,
    },
    /// An index stands twice after the `->`.
    #[error("the index {index} stands twice in the output{}", carets(text, at))]
    TwiceInOutput {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// The index.
        index: char,
    },
    /// An index of the output is in no factor.
    #[error("no factor has the index {index} of the output{}", carets(text, at))]
    OutputIndexUnused {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// The index.
        index: char,
    },
    /// Models that share an index give it different sizes.
    #[error(
        "the index {index} has size {first} in one model and {second} in another: an index of one name is the same in all models, so give the second another name or data of the same length"
    )]
    SizesDiffer {
        /// The index.
        index: char,
        /// Its size in the first.
        first: usize,
        /// Its size in the second.
        second: usize,
    },
    /// No factor has the name that was given.
    #[error("the model {model} has no factor {name}: its factors are {factors}")]
    FactorUnknown {
        /// The model.
        model: String,
        /// The name.
        name: String,
        /// What the factors are called.
        factors: String,
    },
    /// Several factors have the indices that were given for a name.
    #[error("several factors of the model {model} are called {name}: say which, as {factors}")]
    FactorAmbiguous {
        /// The model.
        model: String,
        /// The name.
        name: String,
        /// What tells the factors apart.
        factors: String,
    },
    /// More than 64 factors.
    #[error("{count} factors: at most 64 are supported")]
    TooManyFactors {
        /// How many there are.
        count: usize,
    },
    /// A latent index was given no rank.
    #[error(
        "no rank given for the latent index {index}: give one, as in {index}=10{}",
        carets(text, at)
    )]
    RankMissing {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// The index.
        index: char,
    },
    /// A rank was given for an index of the output.
    #[error(
        "a rank was given for the index {index}, but it is observed: its size is that of the data{}",
        carets(text, at)
    )]
    RankForObserved {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// The index.
        index: char,
    },
    /// A rank was given for something that is not in the model.
    #[error(
        "a rank was given for {index}, which is not in the model {text}{}",
        latent_list(latent)
    )]
    RankForUnknown {
        /// The string as given.
        text: String,
        /// What the rank was given for.
        index: char,
        /// The indices that take a rank.
        latent: String,
    },
    /// A rank is 0.
    #[error("the rank of {index} is 0: it must be at least 1{}", carets(text, at))]
    RankZero {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// The index.
        index: char,
    },
    /// Two ranks were given for one index.
    #[error("two ranks were given for {index}: {first} and {second}")]
    RankTwice {
        /// The index.
        index: char,
        /// The first rank.
        first: usize,
        /// The second rank.
        second: usize,
    },
    /// The data have another number of modes than the output has indices.
    #[error("the data have {found} mode{} (shape {shape:?}), but the output names {}{}", if *found == 1 { "" } else { "s" }, at.len(), carets(text, at))]
    Modes {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// How many modes the data have.
        found: usize,
        /// The shape of the data.
        shape: Vec<usize>,
    },
    /// A mode of the data has size 0.
    #[error(
        "mode {mode} of the data ({index}) has size 0: there is nothing to fit{}",
        carets(text, at)
    )]
    ModeEmpty {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// Which mode, counted from 1.
        mode: usize,
        /// Its index.
        index: char,
    },
    /// An index that is not latent stands where a latent one has to.
    #[error("{index} is not a latent index of the model {text}{}", latent_list(latent))]
    NotLatent {
        /// The string as given.
        text: String,
        /// The index that was asked for.
        index: char,
        /// The latent indices.
        latent: String,
    },
    /// The sizes multiply to more than can be addressed.
    #[error("{what} would have more than 2^63 entries")]
    TooLarge {
        /// "factor 3 (irk)" or "the data".
        what: String,
    },
}

fn latent_list(latent: &str) -> String {
    let mut out = String::new();
    if latent.is_empty() {
        out.push_str(" (this model has no latent indices: it takes no ranks)");
    } else {
        let indices: Vec<String> = latent.chars().map(String::from).collect();
        let _ = write!(out, " (its latent indices are {})", indices.join(", "));
    }
    out
}
