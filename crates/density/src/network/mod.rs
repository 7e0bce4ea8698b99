//! Stage two for any einsum model and any einsum target. NTT.md, section 9.

mod contract;
mod data;
mod entries;
mod environments;
mod fit;
mod kkt;
mod node;
mod train;

pub use data::DataNewton;
pub use entries::Entries;
pub use fit::{NetworkFit, NetworkFitted};

use self::contract::{Labelled, contract};
use crate::error::{Error, Result};

/// One dense tensor, in C order.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    shape: Vec<usize>,
    data: Vec<f64>,
}

impl Dense {
    /// A tensor of a shape with its entries in C order.
    ///
    /// # Errors
    ///
    /// If shape and number of entries differ, a side is 0, or an entry is not finite.
    pub fn new(shape: Vec<usize>, data: Vec<f64>) -> Result<Dense> {
        let entries = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
        if shape.contains(&0) || entries != Some(data.len()) {
            return Err(Error::Shape {
                what: "a tensor".into(),
                found: format!("shape {shape:?} and {} entries", data.len()),
                expected: "sides of at least 1, whose product is the number of entries".into(),
            });
        }
        match data.iter().position(|x| !x.is_finite()) {
            None => Ok(Dense { shape, data }),
            Some(at) => Err(Error::Numeric(format!(
                "a tensor holds {} at place {at} in C order; entries have to be finite",
                data[at]
            ))),
        }
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The entries in C order.
    #[must_use]
    pub fn data(&self) -> &[f64] {
        &self.data
    }
}

/// A tensor as a contraction of factors, written as an einsum: `ia,jb,kc,abc->ijk`. Factors may have
/// entries of any sign.
///
/// ```
/// use nneinfact_density::{Dense, Network};
///
/// let a = Dense::new(vec![2, 1], vec![1.0, 2.0])?;
/// let b = Dense::new(vec![3, 1], vec![1.0, 1.0, 2.0])?;
/// let outer = Network::new("ia,ja->ij", vec![a, b])?;
/// assert!((outer.inner(&outer)? - 30.0).abs() < 1e-12);
/// # Ok::<(), nneinfact_density::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    factors: Vec<Vec<char>>,
    output: Vec<char>,
    tensors: Vec<Dense>,
}

impl Network {
    /// A contraction of tensors. Spaces in the text do not count.
    ///
    /// # Errors
    ///
    /// If the text is not an einsum of that many factors, a factor has a letter twice, an output
    /// letter is in no factor, or sizes of a letter differ.
    pub fn new(einsum: &str, tensors: Vec<Dense>) -> Result<Network> {
        let text: String = einsum.chars().filter(|c| !c.is_whitespace()).collect();
        let wrong = |why: String| Err(Error::Setting(format!("the einsum `{einsum}`: {why}")));
        let Some((left, output)) = text.split_once("->") else {
            return wrong("it has no `->`; write it like `ia,ja->ij`".into());
        };
        let factors: Vec<Vec<char>> = left.split(',').map(|f| f.chars().collect()).collect();
        let output: Vec<char> = output.chars().collect();
        for letters in factors.iter().chain([&output]) {
            if let Some(c) = letters.iter().find(|c| !c.is_ascii_alphabetic()) {
                return wrong(format!("`{c}` is not a letter a–z or A–Z"));
            }
            let twice = (1..letters.len()).find(|&at| letters[..at].contains(&letters[at]));
            if let Some(at) = twice {
                return wrong(format!("the letter `{}` is twice in one factor", letters[at]));
            }
        }
        if let Some(c) = output.iter().find(|c| !factors.iter().any(|f| f.contains(c))) {
            return wrong(format!("the letter `{c}` of the output is in no factor"));
        }
        if factors.len() != tensors.len() {
            return wrong(format!("{} factors, but {} tensors", factors.len(), tensors.len()));
        }
        let mut sizes: Vec<(char, usize)> = Vec::new();
        for (letters, tensor) in factors.iter().zip(&tensors) {
            if letters.len() != tensor.shape.len() {
                return wrong(format!(
                    "factor `{}` has a tensor of shape {:?}",
                    letters.iter().collect::<String>(),
                    tensor.shape
                ));
            }
            for (&c, &n) in letters.iter().zip(&tensor.shape) {
                match sizes.iter().find(|(other, _)| *other == c) {
                    Some(&(_, m)) if m != n => {
                        return wrong(format!("the letter `{c}` has sizes {m} and {n}"));
                    }
                    Some(_) => {}
                    None => sizes.push((c, n)),
                }
            }
        }
        Ok(Network { factors, output, tensors })
    }

    /// The factors' tensors.
    #[must_use]
    pub fn tensors(&self) -> &[Dense] {
        &self.tensors
    }

    /// The inner product of two networks with the same output letters, in any order; neither tensor
    /// is formed.
    ///
    /// # Errors
    ///
    /// If the output letters or their sizes differ, or a contraction would need too much memory.
    pub fn inner(&self, other: &Network) -> Result<f64> {
        self.check_same_output(other)?;
        let mut parts = self.labelled(0..self.factors.len(), false);
        parts.extend(other.labelled(0..other.factors.len(), true));
        Ok(contract(parts, &[])?.data[0])
    }

    /// `½ ‖self − other‖²`, from inner products: it cancels where the two are near.
    ///
    /// # Errors
    ///
    /// As [`inner`](Self::inner).
    pub fn half_squared_distance(&self, other: &Network) -> Result<f64> {
        Ok(0.5 * self.inner(self)? - self.inner(other)? + 0.5 * other.inner(other)?)
    }

    /// The size of a letter of the output; `None` for any other letter.
    #[must_use]
    pub fn size_of_output(&self, letter: char) -> Option<usize> {
        self.size_of(letter).filter(|_| self.output.contains(&letter))
    }

    fn size_of(&self, letter: char) -> Option<usize> {
        let mut all = self.factors.iter().zip(&self.tensors);
        all.find_map(|(f, t)| f.iter().position(|&c| c == letter).map(|at| t.shape[at]))
    }

    fn check_same_output(&self, other: &Network) -> Result<()> {
        let sorted = |n: &Network| {
            let mut letters = n.output.clone();
            letters.sort_unstable();
            letters.iter().map(|&c| (c, n.size_of(c))).collect::<Vec<_>>()
        };
        let (a, b) = (sorted(self), sorted(other));
        if a == b {
            return Ok(());
        }
        let text = |list: &[(char, Option<usize>)]| {
            let words = list.iter().map(|(c, n)| format!("{c} of size {}", n.unwrap_or(0)));
            words.collect::<Vec<_>>().join(", ")
        };
        Err(Error::Shape {
            what: "the output of the second network".into(),
            found: text(&b),
            expected: format!("that of the first: {}", text(&a)),
        })
    }

    /// Factors with their letters. Primed, the letters that are not in the output are others.
    fn labelled(&self, which: impl Iterator<Item = usize>, primed: bool) -> Vec<Labelled> {
        let label = |l: usize| Labelled {
            letters: self.factors[l].iter().map(|&c| self.letter(c, primed)).collect(),
            shape: self.tensors[l].shape.clone(),
            data: self.tensors[l].data.clone(),
        };
        which.map(label).collect()
    }

    fn letter(&self, c: char, primed: bool) -> char {
        if primed && !self.output.contains(&c) { prime(c) } else { c }
    }
}

/// Another letter for each of a–z and A–Z, outside of these.
fn prime(c: char) -> char {
    char::from_u32(c as u32 + 0x1_0000).unwrap_or(c)
}
