//! From the text of a model to its indices.

use std::fmt;
use std::ops::Range;

use super::{Index, IndexSet, ModelError};

/// A model string `f_1,f_2,…,f_L->out`, read and checked.
///
/// The indices of `out` are *observed* (their sizes come from the data), all others are *latent*
/// (their sizes are ranks). Case matters, spaces do not.
///
/// ```
/// use nneinfact::model::Model;
///
/// let model = Model::parse("wr,hr,dr,ikr,jkr->whdij")?;
/// assert_eq!(model.factors().len(), 5);
/// assert_eq!(model.latent().iter().map(char::from).collect::<String>(), "kr");
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Model {
    text: String,
    factors: Vec<Vec<Index>>,
    output: Vec<Index>,
    /// Where `out` stands in `text`, in bytes.
    output_at: Range<usize>,
}

impl Model {
    /// Reads a model string.
    ///
    /// # Errors
    /// [`ModelError`], with carets under what is wrong, where the string is not a model.
    pub fn parse(text: &str) -> Result<Model, ModelError> {
        if text.trim().is_empty() {
            return Err(ModelError::Empty);
        }
        let err_at = |at: Range<usize>| (text.to_string(), at);
        if let Some(start) = text.find("...").or_else(|| text.find('…')) {
            let len = if text[start..].starts_with('…') { '…'.len_utf8() } else { 3 };
            let (text, at) = err_at(start..start + len);
            return Err(ModelError::Ellipsis { text, at });
        }
        let Some(arrow) = text.find("->") else {
            let (text, at) = err_at(text.len()..text.len());
            return Err(ModelError::NoArrow { text, at });
        };
        if let Some(second) = text[arrow + 2..].find("->") {
            let start = arrow + 2 + second;
            let (text, at) = err_at(start..start + 2);
            return Err(ModelError::SecondArrow { text, at });
        }

        let mut factors = Vec::new();
        let mut start = 0;
        for part in text[..arrow].split(',') {
            let factor = factors.len() + 1;
            let indices = read_letters(text, start..start + part.len())?;
            if indices.is_empty() {
                // Something to point at: the comma or arrow that ends the empty factor.
                let end = start + part.len();
                let (text, at) = err_at(end..end + 1);
                return Err(ModelError::EmptyFactor { text, at, factor });
            }
            if let Some((index, at)) = first_repeat(&indices) {
                let (text, at) = err_at(at);
                return Err(ModelError::TwiceInFactor { text, at, index, factor });
            }
            factors.push(indices.into_iter().map(|(index, _)| index).collect::<Vec<_>>());
            start += part.len() + 1;
        }
        if factors.len() > 64 {
            return Err(ModelError::TooManyFactors { count: factors.len() });
        }

        let output = read_letters(text, arrow + 2..text.len())?;
        if output.is_empty() {
            let (text, at) = err_at(arrow..arrow + 2);
            return Err(ModelError::EmptyOutput { text, at });
        }
        if let Some((index, at)) = first_repeat(&output) {
            let (text, at) = err_at(at);
            return Err(ModelError::TwiceInOutput { text, at, index });
        }
        let used: IndexSet = factors.iter().flatten().collect();
        if let Some((index, at)) = output.iter().find(|(index, _)| !used.contains(*index)) {
            let (text, at) = err_at(*at..*at + 1);
            return Err(ModelError::OutputIndexUnused { text, at, index: (*index).into() });
        }
        let output_at = output[0].1..output[output.len() - 1].1 + 1;
        Ok(Model {
            text: text.to_string(),
            factors,
            output: output.into_iter().map(|(index, _)| index).collect(),
            output_at,
        })
    }

    /// The string as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The indices of each factor, in the order of the factor's axes.
    #[must_use]
    pub fn factors(&self) -> &[Vec<Index>] {
        &self.factors
    }

    /// The indices of the data, in the order of its axes.
    #[must_use]
    pub fn output(&self) -> &[Index] {
        &self.output
    }

    /// The observed indices.
    #[must_use]
    pub fn observed(&self) -> IndexSet {
        self.output.iter().collect()
    }

    /// The latent indices, which take a rank.
    #[must_use]
    pub fn latent(&self) -> IndexSet {
        self.factors.iter().flatten().collect::<IndexSet>() - self.observed()
    }

    /// A factor's indices as text, for messages.
    #[must_use]
    pub fn factor_name(&self, factor: usize) -> String {
        self.factors
            .get(factor)
            .map_or_else(String::new, |f| f.iter().map(|&l| char::from(l)).collect())
    }

    /// The factor (counted from 0) of a name: its indices, or `theta_N`, counted from 1, as files
    /// call it.
    ///
    /// ```
    /// use nneinfact::model::Model;
    ///
    /// let model = Model::parse("wr,hr,dr,ikr,jkr->whdij")?;
    /// assert_eq!(model.factor_named("ikr")?, 3);
    /// assert_eq!(model.factor_named("theta_4")?, 3);
    /// assert_eq!(
    ///     model.factor_named("kr").unwrap_err().to_string(),
    ///     "the model wr,hr,dr,ikr,jkr->whdij has no factor kr: its factors are wr, hr, dr, ikr, jkr"
    /// );
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    ///
    /// # Errors
    /// Where no factor has that name, or several have these indices.
    pub fn factor_named(&self, name: &str) -> Result<usize, ModelError> {
        let name: String = name.chars().filter(|c| !c.is_whitespace()).collect();
        let count = self.factors.len();
        let number = name.strip_prefix("theta_").and_then(|n| n.parse::<usize>().ok());
        if let Some(number) = number.filter(|n| (1..=count).contains(n)) {
            return Ok(number - 1);
        }
        let found: Vec<usize> = (0..count).filter(|&l| self.factor_name(l) == name).collect();
        let list = |names: Vec<String>| names.join(", ");
        match found[..] {
            [l] => Ok(l),
            [] => Err(ModelError::FactorUnknown {
                model: self.to_string(),
                name,
                factors: list((0..count).map(|l| self.factor_name(l)).collect()),
            }),
            _ => Err(ModelError::FactorAmbiguous {
                model: self.to_string(),
                name,
                factors: list(found.iter().map(|l| format!("theta_{}", l + 1)).collect()),
            }),
        }
    }

    /// What is legal but probably not meant, a sentence each: a latent index that is in one
    /// factor only (its sum is absorbed: it adds entries, not expressiveness).
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.latent()
            .iter()
            .filter_map(|index| {
                let holders: Vec<usize> = (0..self.factors.len()).filter(|&l| self.factors[l].contains(&index)).collect();
                (holders.len() == 1).then(|| {
                    format!(
                        "the latent index {index} is in factor {} ({}) only: its sum is absorbed, a rank above 1 for it adds parameters but no expressiveness",
                        holders[0] + 1,
                        self.factor_name(holders[0])
                    )
                })
            })
            .collect()
    }

    /// Where the output stands in the text, in bytes.
    pub(super) fn output_at(&self) -> Range<usize> {
        self.output_at.clone()
    }

    /// Where an index first stands in the text, in bytes.
    pub(super) fn position(&self, index: Index) -> Range<usize> {
        let start = self.text.find(char::from(index)).unwrap_or(0);
        start..start + 1
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for l in 0..self.factors.len() {
            write!(f, "{}{}", if l > 0 { "," } else { "" }, self.factor_name(l))?;
        }
        write!(f, "->")?;
        self.output.iter().try_for_each(|index| write!(f, "{index}"))
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model({self})")
    }
}

/// The indices in a part of the text with their byte positions; spaces are passed over.
fn read_letters(text: &str, range: Range<usize>) -> Result<Vec<(Index, usize)>, ModelError> {
    let mut indices = Vec::new();
    for (offset, found) in text[range.clone()].char_indices() {
        let at = range.start + offset;
        if found.is_whitespace() {
            continue;
        }
        match Index::new(found) {
            Some(index) => indices.push((index, at)),
            None => {
                return Err(ModelError::NotAnIndex {
                    text: text.to_string(),
                    at: at..at + found.len_utf8(),
                    found,
                });
            }
        }
    }
    Ok(indices)
}

/// The first index that stands a second time, and where.
fn first_repeat(indices: &[(Index, usize)]) -> Option<(char, Range<usize>)> {
    let mut seen = IndexSet::EMPTY;
    for &(index, at) in indices {
        if seen.contains(index) {
            return Some((index.into(), at..at + 1));
        }
        seen.insert(index);
    }
    None
}
