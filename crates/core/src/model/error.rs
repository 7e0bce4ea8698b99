//! What can be wrong with a model string or with the ranks given for it.

use std::fmt::Write as _;
use std::ops::Range;

/// A mistake in a model string, or in the ranks and shapes given for it.
///
/// The message of a variant that holds `text` and `at` shows the string as it was given, with
/// carets under the letters concerned:
///
/// ```
/// let error = nneinfact::model::Model::parse("ir,jr->ijk").unwrap_err();
/// assert_eq!(error.to_string(), "\
/// no factor has the letter k of the output
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
        "no `->`: write the factors, `->` and the letters of the data, as in `ir,jr->ij`{}",
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
    /// A factor has no letters.
    #[error("factor {factor} has no letters{}", carets(text, at))]
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
        "no letters after `->`: name the modes of the data, as in `ir,jr->ij`{}",
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
    /// Something that is not a letter, a comma or an arrow.
    #[error("`{found}` is not an index: indices are the letters A–Z and a–z{}", carets(text, at))]
    NotALetter {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// The character.
        found: char,
    },
    /// A letter stands twice in one factor.
    #[error(
        "the letter {letter} stands twice in factor {factor}: traces and diagonals are not supported{}",
        carets(text, at)
    )]
    TwiceInFactor {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// The letter.
        letter: char,
        /// Which factor, counted from 1.
        factor: usize,
    },
    /// A letter stands twice after the `->`.
    #[error("the letter {letter} stands twice in the output{}", carets(text, at))]
    TwiceInOutput {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// The letter.
        letter: char,
    },
    /// A letter of the output is in no factor.
    #[error("no factor has the letter {letter} of the output{}", carets(text, at))]
    OutputLetterUnused {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// The letter.
        letter: char,
    },
    /// Models that share a letter give it different sizes.
    #[error(
        "the letter {letter} has size {first} in one model and {second} in another: a letter is the same index in all of them, so give the second another name or data of the same length"
    )]
    SizesDiffer {
        /// The letter.
        letter: char,
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
    /// Several factors have the letters that were given for a name.
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
    /// A latent letter was given no rank.
    #[error(
        "no rank given for the latent letter {letter}: give one, as in {letter}=10{}",
        carets(text, at)
    )]
    RankMissing {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// The letter.
        letter: char,
    },
    /// A rank was given for a letter of the output.
    #[error(
        "a rank was given for the letter {letter}, but it is observed: its size is that of the data{}",
        carets(text, at)
    )]
    RankForObserved {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// The letter.
        letter: char,
    },
    /// A rank was given for something that is not in the model.
    #[error(
        "a rank was given for {letter}, which is not in the model {text}{}",
        latent_list(latent)
    )]
    RankForUnknown {
        /// The string as given.
        text: String,
        /// What the rank was given for.
        letter: char,
        /// The letters that take a rank.
        latent: String,
    },
    /// A rank is 0.
    #[error("the rank of {letter} is 0: it must be at least 1{}", carets(text, at))]
    RankZero {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// The letter.
        letter: char,
    },
    /// Two ranks were given for one letter.
    #[error("two ranks were given for {letter}: {first} and {second}")]
    RankTwice {
        /// The letter.
        letter: char,
        /// The first rank.
        first: usize,
        /// The second rank.
        second: usize,
    },
    /// The data have another number of modes than the output has letters.
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
        "mode {mode} of the data ({letter}) has size 0: there is nothing to fit{}",
        carets(text, at)
    )]
    ModeEmpty {
        /// The string as given.
        text: String,
        /// Where, in bytes.
        at: Range<usize>,
        /// Which mode, counted from 1.
        mode: usize,
        /// Its letter.
        letter: char,
    },
    /// A letter that is not latent stands where a latent one has to.
    #[error("{letter} is not a latent letter of the model {text}{}", latent_list(latent))]
    NotLatent {
        /// The string as given.
        text: String,
        /// The letter that was asked for.
        letter: char,
        /// The latent letters.
        latent: String,
    },
    /// The sizes multiply to more than can be addressed.
    #[error("{what} would have more than 2^63 entries")]
    TooLarge {
        /// "factor 3 (irk)" or "the data".
        what: String,
    },
}

/// The string on a line of its own, and carets under `at` on the next.
fn carets(text: &str, at: &Range<usize>) -> String {
    let mut shown = String::from("\n  ");
    // Control characters (a tab, say) would shift the carets.
    shown.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
    shown.push_str("\n  ");
    for (byte, c) in text.char_indices() {
        if byte >= at.end {
            break;
        }
        shown.push(if byte >= at.start { '^' } else { ' ' });
        let _ = c;
    }
    if at.start >= text.len() {
        shown.push('^');
    }
    shown
}

fn latent_list(latent: &str) -> String {
    let mut out = String::new();
    if latent.is_empty() {
        out.push_str(" (this model has no latent letters: it takes no ranks)");
    } else {
        let letters: Vec<String> = latent.chars().map(String::from).collect();
        let _ = write!(out, " (its latent letters are {})", letters.join(", "));
    }
    out
}
