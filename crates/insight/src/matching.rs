//! Two fits side by side: which component of one is which of the other.

use serde::{Deserialize, Serialize};

use crate::assignment::best_pairs;
use crate::label_alignment::aligned;
use nneinfact_core::error::{Error, Result};
use nneinfact_fit::{FactoredTensor, Saved};

/// Which components of two tensors in factored form belong together: see [`matching`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matching {
    /// The model of the first.
    pub first_model: String,
    /// The model of the second.
    pub second_model: String,
    /// The modes that parts are compared over.
    pub modes: String,
    /// The factor whose columns are compared, where it is not the parts of ŷ.
    pub factor: Option<String>,
    /// For each pair of latent indices the components.
    pub indices: Vec<IndexMatching>,
    /// What was done about modes whose labels are not the same in both, a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The components of a latent index of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexMatching {
    /// The index of the first.
    pub first: char,
    /// The index of the second.
    pub second: char,
    /// The pairs, by what the components of the first add to ŷ, most first.
    pub pairs: Vec<MatchedPair>,
    /// Components of the first without a match, counted from 0.
    pub unmatched_first: Vec<usize>,
    /// Components of the second without a match.
    pub unmatched_second: Vec<usize>,
    /// The mean cosine of the pairs.
    pub mean_cosine: f64,
    /// The factor match score: the mean over the pairs of the cosine times 1 − |a − b| / max(a, b), with a
    /// and b the norms of their parts of ŷ. For CP it is that of Acar et al. (2011). `None` where the
    /// columns of one factor are compared, whose scale says nothing.
    pub factor_match_score: Option<f64>,
}

/// Two components that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatchedPair {
    /// The component of the first, counted from 0.
    pub first: usize,
    /// The component of the second.
    pub second: usize,
    /// The cosine of their parts of ŷ, or of their columns.
    pub cosine: f64,
    /// What share of the sum of ŷ the first has.
    pub first_share: f64,
    /// What share of the sum of ŷ the second has.
    pub second_share: f64,
}

/// Pairs the components of two tensors in factored form, of the same or of different models that have modes
/// in common, so that the sum of the cosines between their parts of ŷ is largest (Kuhn–Munkres). A latent
/// index is paired with that of the same letter, or with the only one where each has one. Of different
/// ranks the rest stays without a match. With `factor`, a factor that both have by the letters of its indices, its columns
/// are compared in place of the parts of ŷ.
///
/// ```
/// use ndarray::{Axis, array};
/// use nneinfact::FactoredTensor;
/// use nneinfact::matching::matching;
///
/// let (a, b) = (array![[1.0, 0.0], [2.0, 1.0]].into_dyn(), array![[1.0, 3.0], [0.0, 1.0]].into_dyn());
/// let swapped = |x: &ndarray::ArrayD<f64>| x.select(Axis(1), &[1, 0]);
/// let first = FactoredTensor::from_parts("ir,jr->ij", vec![a.clone(), b.clone()], None)?;
/// let second = FactoredTensor::from_parts("is,js->ij", vec![swapped(&a), swapped(&b)], None)?;
/// let found = matching(&first, &second, None)?;
/// let pair = found.indices[0].pairs.iter().find(|p| p.first == 0).expect("all are paired");
/// assert_eq!(pair.second, 1);
/// assert!(found.indices[0].factor_match_score > Some(0.999));
/// # Ok::<(), nneinfact::Error>(())
/// ```
///
/// # Errors
/// [`Error::Setting`] where there is no mode or no latent index in common, or a letter has different sizes;
/// [`Error::Model`] where one has no factor of that name; [`Error::Unsupported`] where both need more
/// letters than there are; [`Error::Memory`] where the products on the way do not fit in memory.
pub fn matching(
    first: &FactoredTensor,
    second: &FactoredTensor,
    factor: Option<&str>,
) -> Result<Matching> {
    let columns = match factor {
        Some(name) => Some((alone(first, name)?, alone(second, name)?)),
        None => None,
    };
    let (a, b) = columns.as_ref().map_or((first, second), |(a, b)| (a, b));
    let modes = a.common_modes(b)?;
    let mut indices = Vec::new();
    for (x, y) in letters(a, b)? {
        indices.push(match_index((a, b), (first, second), (x, y), factor.is_some())?);
    }
    Ok(Matching {
        first_model: first.model().to_string(),
        second_model: second.model().to_string(),
        modes: a
            .model()
            .output()
            .iter()
            .filter(|&&x| modes.contains(x))
            .map(|&x| char::from(x))
            .collect(),
        factor: factor.map(String::from),
        indices,
        notes: Vec::new(),
    })
}

/// As [`matching`] of two fits whose modes may have labels: they are compared label by label where labels are in
/// another order or partly the same, and index by index where one has none or none are in common;
/// [`Matching::notes`] says where that is so.
///
/// ```
/// use ndarray::array;
/// use nneinfact::data::Labels;
/// use nneinfact::matching::matching_by_labels;
/// use nneinfact::fit::Saved;
/// use nneinfact::{NNEinFact, Observations};
///
/// let fit = |y: ndarray::Array2<f64>, labels: [&str; 2]| -> nneinfact::Result<Saved> {
///     let y = Observations::new(&y).with_labels(vec![Labels::new(labels), Labels::default()])?;
///     Ok(Saved::new(&NNEinFact::new("ir,jr->ij")?.ranks([('r', 1)]).fit(&y)?))
/// };
/// let first = fit(array![[4.0, 2.0], [1.0, 0.5]], ["Mon", "Tue"])?;
/// let second = fit(array![[1.0, 0.5], [4.0, 2.0]], ["Tue", "Mon"])?;
/// let found = matching_by_labels(&first, &second, None)?;
/// assert!(found.indices[0].pairs[0].cosine > 0.999);
/// assert!(found.notes[0].contains("label by label"));
/// # Ok::<(), nneinfact::Error>(())
/// ```
///
/// # Errors
/// As [`matching`].
pub fn matching_by_labels(first: &Saved, second: &Saved, factor: Option<&str>) -> Result<Matching> {
    let both = aligned(first, second)?;
    let found = matching(&both.first, &both.second, factor)?;
    Ok(Matching { notes: both.notes, ..found })
}

/// A factor as a tensor of its own, over the modes that it has.
fn alone(tensor: &FactoredTensor, name: &str) -> Result<FactoredTensor> {
    let model = tensor.model();
    let l = model.factor_named(name)?;
    let modes: String = model.factors()[l]
        .iter()
        .filter(|&&x| model.observed().contains(x))
        .map(|&x| char::from(x))
        .collect();
    if modes.is_empty() {
        return Err(Error::Setting(format!(
            "the factor {name} of {model} has no mode of the data: its columns are single numbers"
        )));
    }
    let text = format!("{}->{modes}", model.factor_name(l));
    FactoredTensor::from_parts(&text, vec![tensor.factors()[l].clone()], None)
}

/// The latent indices that are held against each other.
fn letters(a: &FactoredTensor, b: &FactoredTensor) -> Result<Vec<(char, char)>> {
    let (x, y) = (a.model().latent(), b.model().latent());
    let both: Vec<(char, char)> = (x & y).iter().map(|l| (l.into(), l.into())).collect();
    if !both.is_empty() {
        return Ok(both);
    }
    let list = |set: nneinfact_core::model::IndexSet| -> Vec<char> {
        set.iter().map(char::from).collect()
    };
    match (&list(x)[..], &list(y)[..]) {
        ([x], [y]) => Ok(vec![(*x, *y)]),
        _ => Err(Error::Setting(format!(
            "{} and {} have no latent index in common, and more than one or none each: which components \
             to compare is not clear",
            a.model(),
            b.model()
        ))),
    }
}

fn match_index(
    (a, b): (&FactoredTensor, &FactoredTensor),
    (first, second): (&FactoredTensor, &FactoredTensor),
    (x, y): (char, char),
    columns: bool,
) -> Result<IndexMatching> {
    let cosines = a.cosines(x, b, y)?;
    let shares = (first.component_shares(x)?, second.component_shares(y)?);
    let mut pairs: Vec<MatchedPair> = best_pairs(&cosines)
        .into_iter()
        .map(|(i, j)| MatchedPair {
            first: i,
            second: j,
            cosine: cosines[i][j],
            first_share: shares.0[i],
            second_share: shares.1[j],
        })
        .collect();
    pairs.sort_by(|p, q| q.first_share.total_cmp(&p.first_share).then(p.first.cmp(&q.first)));
    let mean = |of: &dyn Fn(&MatchedPair) -> f64| match pairs.len() {
        0 => 0.0,
        n => pairs.iter().map(of).sum::<f64>() / n as f64,
    };
    let factor_match_score = match columns {
        true => None,
        false => {
            let norms = (first.component_norms(x)?, second.component_norms(y)?);
            Some(mean(&|p| {
                let (a, b) = (norms.0[p.first], norms.1[p.second]);
                let most = a.max(b);
                if most > 0.0 { p.cosine * (1.0 - (a - b).abs() / most) } else { 0.0 }
            }))
        }
    };
    let without = |count: usize, taken: &dyn Fn(&MatchedPair) -> usize| -> Vec<usize> {
        (0..count).filter(|i| pairs.iter().all(|p| taken(p) != *i)).collect()
    };
    Ok(IndexMatching {
        first: x,
        second: y,
        mean_cosine: mean(&|p| p.cosine),
        factor_match_score,
        unmatched_first: without(shares.0.len(), &|p| p.first),
        unmatched_second: without(shares.1.len(), &|p| p.second),
        pairs,
    })
}
