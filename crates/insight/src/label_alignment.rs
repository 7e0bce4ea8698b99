//! Two fits at the indices that both have, by their labels.

use ndarray::Axis;

use nneinfact_core::data::Labels;
use nneinfact_core::error::Result;
use nneinfact_fit::{FactoredTensor, Saved};

/// Two tensors in factored form whose modes in common have the same indices.
#[derive(Clone, Debug)]
pub struct Aligned {
    /// The first.
    pub first: FactoredTensor,
    /// The second.
    pub second: FactoredTensor,
    /// What was done with modes whose labels differ, a sentence each.
    pub notes: Vec<String>,
}

/// Takes two fits to the indices of their common modes that both have by their labels, in the order of the
/// first: where labels are permuted, or some are in one fit only. A mode that has no labels in one of them,
/// or none in common, stays as it is, to be compared index by index.
///
/// # Errors
/// Where the factors do not go together, which those of a fit do.
pub fn aligned(first: &Saved, second: &Saved) -> Result<Aligned> {
    let mut found = Aligned {
        first: first.factored().clone(),
        second: second.factored().clone(),
        notes: Vec::new(),
    };
    for &index in first.model().output() {
        let letter = char::from(index);
        if !second.model().output().contains(&index) {
            continue;
        }
        let labels = |saved: &Saved| -> Option<Vec<String>> {
            saved.labels(letter).and_then(Labels::indices).map(<[String]>::to_vec)
        };
        let (Some(a), Some(b)) = (labels(first), labels(second)) else {
            if labels(first).is_some() != labels(second).is_some() {
                let which = if labels(first).is_some() { "first" } else { "second" };
                found.notes.push(format!(
                    "the indices of {letter} have labels in the {which} fit only: compared index by index"
                ));
            }
            continue;
        };
        if a == b {
            continue;
        }
        let place = |label: &String| b.iter().position(|other| other == label);
        let pairs: Vec<(usize, usize)> =
            a.iter().enumerate().filter_map(|(i, label)| Some((i, place(label)?))).collect();
        if pairs.is_empty() {
            found.notes.push(format!(
                "no label of {letter} is in both fits ({} and {}, for example): compared index by index",
                a.first().map_or("", String::as_str),
                b.first().map_or("", String::as_str)
            ));
            continue;
        }
        let (of_first, of_second): (Vec<usize>, Vec<usize>) = pairs.into_iter().unzip();
        found.notes.push(match of_first.len() == a.len() && a.len() == b.len() {
            true => format!("the labels of {letter} are in another order in the second fit: compared label by label"),
            false => format!(
                "the labels of {letter} differ: compared at the {} that both fits have, of {} and {}",
                of_first.len(),
                a.len(),
                b.len()
            ),
        });
        found.first = at(&found.first, letter, &of_first)?;
        found.second = at(&found.second, letter, &of_second)?;
    }
    Ok(found)
}

/// A tensor at some indices of a mode.
fn at(tensor: &FactoredTensor, letter: char, indices: &[usize]) -> Result<FactoredTensor> {
    let model = tensor.model();
    let factors = tensor.factors().iter().enumerate().map(|(l, factor)| {
        match model.factor_name(l).chars().position(|x| x == letter) {
            Some(axis) => factor.select(Axis(axis), indices),
            None => factor.clone(),
        }
    });
    FactoredTensor::from_parts(model.text(), factors.collect(), tensor.weights().cloned())
}
