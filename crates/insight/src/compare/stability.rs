//! Which components several fits agree on.

use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use super::nonfinite::worst;
use crate::assignment::best_pairs;
use nneinfact_core::data::Labels;
use nneinfact_core::error::{Error, Result};
use nneinfact_core::model::{Index, IndexSet, Shapes};
use nneinfact_fit::{FactoredTensor, Fit};

/// How far the components of several fits of a model agree: see [`stability`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    /// How many fits were compared, the first of which the components are those of.
    pub fits: usize,
    /// How many of the others are in the better half, which decides.
    pub better: usize,
    /// The latent indices, in the order `A`–`Z`, `a`–`z`.
    #[serde(rename = "letters")]
    pub indices: Vec<IndexStability>,
    /// What was left out, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The components of one latent index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexStability {
    /// Its letter.
    #[serde(rename = "letter")]
    pub index: char,
    /// One for each value of the index, in the order of the first fit.
    pub components: Vec<ComponentStability>,
}

/// One component: a value of a latent index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComponentStability {
    /// The value, counted from 0.
    pub component: usize,
    /// The sum of its part of ŷ, in the data's units
    /// (`Fit::component_weights`).
    pub weight: f64,
    /// What share of the sum of ŷ that is.
    pub share: f64,
    /// The mean similarity to its matches in the other fits.
    pub mean: f64,
    /// The least similarity to its matches in the other fits.
    pub min: f64,
    /// As `mean`, over the better half of the fits: one that got stuck takes no part.
    pub better: f64,
    /// As `min`, over the better half of the fits.
    pub better_min: f64,
    /// The mean over other starts of the same split, in a study.
    pub starts: Option<f64>,
    /// The mean over the best starts of the other splits, in a study.
    pub splits: Option<f64>,
    /// What that means.
    pub verdict: Verdict,
    /// For each mode whose indices have labels, the one with most of the component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub largest: Vec<String>,
}

/// Whether a component is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The mean similarity over the better half of the fits is at least [`Stability::STABLE`].
    Stable,
    /// It is less.
    Unstable,
}

impl Verdict {
    /// "stable" or "unstable".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Stable => "stable",
            Verdict::Unstable => "unstable",
        }
    }
}

impl Stability {
    /// The mean similarity from which on a component counts as stable: the least congruence at which
    /// people call components similar (Lorenzo-Seva & ten Berge 2006, Methodology 2; from 0.95 on
    /// they call them equal).
    pub const STABLE: f64 = 0.85;
    /// The largest rank of an index whose components are compared: finding out which of them belong
    /// together takes time that grows with its cube.
    pub const LARGEST_RANK: usize = 512;
}

impl IndexStability {
    /// The median over the components of their mean similarity, over all fits.
    #[must_use]
    pub fn median(&self) -> f64 {
        median(self.components.iter().map(|c| c.mean).collect())
    }

    /// The least similarity of any component to any of its matches.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.components.iter().map(|c| c.min).fold(f64::INFINITY, f64::min)
    }

    /// As [`median`](Self::median), over the better half of the fits.
    #[must_use]
    pub fn better_median(&self) -> f64 {
        median(self.components.iter().map(|c| c.better).collect())
    }

    /// As [`min`](Self::min), over the better half of the fits.
    #[must_use]
    pub fn better_min(&self) -> f64 {
        self.components.iter().map(|c| c.better_min).fold(f64::INFINITY, f64::min)
    }

    /// How many components are stable.
    #[must_use]
    pub fn stable(&self) -> usize {
        self.components.iter().filter(|c| c.verdict == Verdict::Stable).count()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => 0.5 * (values[n / 2 - 1] + values[n / 2]),
    }
}

/// Which components of the first of several fits are found again in the others: what is real, and
/// what is an accident of a start or a split.
///
/// A component c of a latent index is the part of ŷ that goes through it: the sum of the terms with
/// that index. Two components are as similar as their parts, by the cosine ⟨p, p′⟩ / (‖p‖·‖p′‖),
/// which is 1 where one is a multiple of the other. It does not depend on scales, nor on the order of
/// the components of any latent index. For CP it is the product of the cosines of the factors' columns
/// (Tucker's congruence). It is computed by contractions of the factors, without forming ŷ. For each
/// latent index the components of the first fit are matched one to one with those of every other fit so that
/// the sum of the similarities is largest (Kuhn–Munkres); what has no match, and what is 0, has
/// similarity 0.
///
/// A fit that got stuck agrees with nothing, and says nothing of the components of others. So the
/// verdict is by the better half of the other fits (at least one), those of lowest training loss with
/// penalties; the mean and the minimum over all are there too. Letters of more than
/// [`Stability::LARGEST_RANK`] components are left out, with a note.
///
/// ```
/// use ndarray::Array2;
/// use nneinfact::NNEinFact;
/// use nneinfact::compare::{Verdict, stability};
///
/// // Two blocks.
/// let y = Array2::from_shape_fn((12, 9), |(i, j)| if i % 2 == j % 2 { 1.0 + (i * j) as f64 } else { 0.0 });
/// let fit = |seed| NNEinFact::new("ir,jr->ij")?.ranks([('r', 2)]).seed(seed).fit(&y);
/// let (first, second, third) = (fit(0)?, fit(1)?, fit(2)?);
///
/// let stability = stability(&[&first, &second, &third])?;
/// let components = &stability.indices[0].components;
/// assert_eq!(components.len(), 2);
/// assert!(components.iter().all(|c| c.verdict == Verdict::Stable && c.min > 0.99));
/// # Ok::<(), nneinfact::Error>(())
/// ```
///
/// # Errors
/// [`Error::Setting`] where there are less than two fits, or they are not of the same model for data
/// of the same shape; [`Error::Unsupported`] where two copies of the model need more letters than
/// there are; [`Error::Memory`] where their product does not fit in memory.
pub fn stability(fits: &[&Fit]) -> Result<Stability> {
    let tensors: Vec<&FactoredTensor> = fits.iter().map(|fit| fit.factored()).collect();
    let reached = |fit: &&Fit| {
        let history = fit.history();
        worst(history.objective().get(history.returned).copied().unwrap_or(f64::INFINITY))
    };
    let losses: Vec<f64> = fits.iter().skip(1).map(reached).collect();
    let better = better_half(&losses);
    let kin: Vec<Kin> = better.iter().map(|&better| Kin { better, ..Kin::default() }).collect();
    let labels = fits.first().map_or(&[][..], |fit| fit.all_labels());
    between(&tensors, &kin, labels)
}

/// How a fit is related to the first one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kin {
    /// Whether it is in the better half.
    pub better: bool,
    /// Whether it is another start of the same split.
    pub start: bool,
    /// Whether it is the best start of another split.
    pub split: bool,
}

/// Which of some losses are in the lower half, rounded up.
pub(super) fn better_half(losses: &[f64]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..losses.len()).collect();
    order.sort_by(|&a, &b| losses[a].total_cmp(&losses[b]));
    let mut better = vec![false; losses.len()];
    order.iter().take(losses.len().div_ceil(2)).for_each(|&n| better[n] = true);
    better
}

/// As [`stability`], of fits of which there are only the factors; what the others are to the first.
pub(super) fn stability_of(
    shapes: &Shapes,
    fits: &[Vec<ArrayD<f64>>],
    kin: &[Kin],
    labels: &[Labels],
) -> Result<Stability> {
    let tensors: Result<Vec<FactoredTensor>> = fits
        .iter()
        .map(|factors| FactoredTensor::new(shapes.clone(), factors.clone(), None))
        .collect();
    between(&tensors?.iter().collect::<Vec<_>>(), kin, labels)
}

fn between(tensors: &[&FactoredTensor], kin: &[Kin], labels: &[Labels]) -> Result<Stability> {
    let [first, others @ ..] = tensors else {
        return Err(Error::Setting("stability is that of at least two fits, not of none".into()));
    };
    if others.is_empty() {
        return Err(Error::Setting(
            "stability is that of at least two fits, not of one: fit from several starts (seeds) or splits"
                .into(),
        ));
    }
    let alike = |other: &&&FactoredTensor| {
        other.model().to_string() == first.model().to_string()
            && other.shapes().data() == first.shapes().data()
    };
    if let Some(other) = others.iter().find(|other| !alike(other)) {
        return Err(Error::Setting(format!(
            "the fits whose components are compared have to be of the same model and of data of the same shape: {} {:?} and {} {:?} are not",
            first.model(),
            first.shapes().data(),
            other.model(),
            other.shapes().data()
        )));
    }
    // Where no fit is in the better half, all of them count.
    let some = kin.iter().any(|kin| kin.better);
    let better: Vec<bool> =
        (0..others.len()).map(|n| !some || kin.get(n).is_some_and(|kin| kin.better)).collect();
    let latent: IndexSet = first.model().latent();
    let mut notes = Vec::new();
    let mut indices = Vec::new();
    for index in latent.iter() {
        let rank = tensors.iter().map(|tensor| tensor.shapes().size(index)).max().unwrap_or(0);
        if rank > Stability::LARGEST_RANK {
            notes.push(format!(
                "the components of {index} are not compared: there are {rank}, and finding out which belong together is done for up to {}",
                Stability::LARGEST_RANK
            ));
            continue;
        }
        let letter = char::from(index);
        let shares = first.component_shares(letter)?;
        let weights = first.marginal(&letter.to_string())?;
        let mut found: Vec<Vec<f64>> = vec![Vec::new(); shares.len()];
        for other in others {
            let similarities = first.cosines(letter, other, letter)?;
            for (to, x) in found.iter_mut().zip(matched(&similarities)) {
                to.push(x);
            }
        }
        let component =
            |(component, ((&share, &weight), found)): (usize, ((&f64, &f64), &Vec<f64>))| {
                summarise(ComponentPart { component, weight, share }, found, &better, kin)
            };
        let mut components: Vec<ComponentStability> =
            shares.iter().zip(&weights).zip(&found).enumerate().map(component).collect();
        name(&mut components, first, index, labels)?;
        indices.push(IndexStability { index: index.into(), components });
    }
    let better = better.iter().filter(|&&better| better).count();
    Ok(Stability { fits: tensors.len(), better, indices, notes })
}

/// Says along which labels the components of an index are largest.
fn name(
    components: &mut [ComponentStability],
    tensor: &FactoredTensor,
    index: Index,
    labels: &[Labels],
) -> Result<()> {
    let modes = tensor.model().output().iter().zip(labels);
    for (&mode, labels) in modes.filter(|(_, labels)| labels.indices().is_some()) {
        let sums = tensor.marginal(&format!("{index}{mode}"))?;
        for (component, row) in components.iter_mut().zip(sums.outer_iter()) {
            let most = (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b]));
            component.largest.extend(most.map(|at| labels.describe(at)));
        }
    }
    Ok(())
}

/// A component of the first fit.
struct ComponentPart {
    component: usize,
    weight: f64,
    share: f64,
}

/// What the similarities of a component to its matches in the other fits say.
fn summarise(
    ComponentPart { component, weight, share }: ComponentPart,
    found: &[f64],
    better: &[bool],
    kin: &[Kin],
) -> ComponentStability {
    let of = |takes: &dyn Fn(usize) -> bool| -> Vec<f64> {
        found.iter().enumerate().filter(|(n, _)| takes(*n)).map(|(_, &x)| x).collect()
    };
    let mean = |all: &[f64]| match all.len() {
        0 => None,
        n => Some(all.iter().sum::<f64>() / n as f64),
    };
    let least = |all: &[f64]| all.iter().copied().fold(f64::INFINITY, f64::min);
    let good = of(&|n| better[n]);
    // There is one at least.
    let over_good = mean(&good).unwrap_or(0.0);
    ComponentStability {
        component,
        weight,
        share,
        mean: mean(found).unwrap_or(0.0),
        min: least(found),
        better: over_good,
        better_min: least(&good),
        starts: mean(&of(&|n| kin.get(n).is_some_and(|kin| kin.start))),
        splits: mean(&of(&|n| kin.get(n).is_some_and(|kin| kin.split))),
        verdict: match over_good >= Stability::STABLE {
            true => Verdict::Stable,
            false => Verdict::Unstable,
        },
        largest: Vec::new(),
    }
}

/// For each row the similarity to its match, 0 where it has none.
fn matched(similarities: &[Vec<f64>]) -> Vec<f64> {
    let mut found = vec![0.0; similarities.len()];
    for (i, j) in best_pairs(similarities) {
        found[i] = similarities[i][j];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Axis, IxDyn};
    use nneinfact_core::model::{Index, Model};

    fn factors(shapes: &Shapes, seed: f64) -> Vec<ArrayD<f64>> {
        (0..shapes.model().factors().len())
            .map(|l| {
                let mut n = seed + 10.0 * l as f64;
                ArrayD::from_shape_simple_fn(IxDyn(&shapes.factor(l)), || {
                    n += 1.0;
                    (n * n * 0.7391).sin().abs() + 0.01
                })
            })
            .collect()
    }

    fn shapes(model: &str, data: &[usize], ranks: &[(char, usize)]) -> Shapes {
        Shapes::new(&Model::parse(model).unwrap(), data, ranks).unwrap()
    }

    /// The part of ŷ that goes through a component of a latent index, by leaving all others out.
    fn part(
        shapes: &Shapes,
        factors: &[ArrayD<f64>],
        index: char,
        component: usize,
    ) -> ArrayD<f64> {
        let index = Index::new(index).unwrap();
        let mut factors = factors.to_vec();
        let holder = shapes.model().factors().iter().position(|f| f.contains(&index)).unwrap();
        let axis = shapes.model().factors()[holder].iter().position(|&x| x == index).unwrap();
        for i in (0..shapes.size(index)).filter(|&i| i != component) {
            factors[holder].index_axis_mut(Axis(axis), i).fill(0.0);
        }
        nneinfact_core::reference::predict(shapes, &factors)
    }

    #[test]
    fn similarities_are_cosines_of_parts_for_models_of_every_kind() {
        type Case = (&'static str, &'static [usize], &'static [(char, usize)]);
        let cases: [Case; 5] = [
            ("ir,jr,kr->ijk", &[4, 5, 3], &[('r', 3)]),
            ("ia,jb,kc,abc->ijk", &[4, 5, 3], &[('a', 2), ('b', 3), ('c', 2)]),
            ("ia,ajb,bk->ijk", &[4, 5, 3], &[('a', 2), ('b', 3)]),
            ("wr,hr,ikr,jkr->whij", &[3, 2, 4, 5], &[('r', 3), ('k', 2)]),
            ("irz,jr->ij", &[4, 5], &[('r', 3), ('z', 2)]),
        ];
        for (text, data, ranks) in cases {
            let shapes = shapes(text, data, ranks);
            let (one, two) = (factors(&shapes, 0.3), factors(&shapes, 7.7));
            let (a, b) = (
                FactoredTensor::new(shapes.clone(), one.clone(), None).unwrap(),
                FactoredTensor::new(shapes.clone(), two.clone(), None).unwrap(),
            );
            for index in shapes.model().latent().iter() {
                let found = a.cosines(index.into(), &b, index.into()).unwrap();
                let parts = |factors: &[ArrayD<f64>]| -> Vec<ArrayD<f64>> {
                    (0..shapes.size(index))
                        .map(|i| part(&shapes, factors, index.into(), i))
                        .collect()
                };
                let (ones, twos) = (parts(&one), parts(&two));
                for (i, p) in ones.iter().enumerate() {
                    for (j, q) in twos.iter().enumerate() {
                        let dot = |x: &ArrayD<f64>, y: &ArrayD<f64>| (x * y).sum();
                        let expected = dot(p, q) / (dot(p, p) * dot(q, q)).sqrt();
                        assert!((found[i][j] - expected).abs() < 1e-10, "{text} {index} {i} {j}");
                    }
                }
                let total: f64 = ones.iter().map(|p| p.sum()).sum();
                for (i, share) in a.component_shares(index.into()).unwrap().iter().enumerate() {
                    assert!((share * total / ones[i].sum() - 1.0).abs() < 1e-10);
                }
            }
        }
    }

    #[test]
    fn order_and_scale_do_not_matter() {
        let shapes = shapes("wr,hr,ikr,jkr->whij", &[3, 2, 4, 5], &[('r', 3), ('k', 2)]);
        let one = factors(&shapes, 0.3);
        let mut two = one.clone();
        // Other orders of r and k, and another scale of every component of r.
        for (factor, indices) in two.iter_mut().zip(shapes.model().factors()) {
            for (axis, index) in indices.iter().enumerate() {
                match char::from(*index) {
                    'r' => *factor = factor.select(Axis(axis), &[2, 0, 1]),
                    'k' => *factor = factor.select(Axis(axis), &[1, 0]),
                    _ => {}
                }
            }
        }
        two[0] *= 1e-200;
        two[1] *= 1e190;
        let stability = stability_of(&shapes, &[one, two], &[]).unwrap();
        assert_eq!(stability.indices.len(), 2);
        for index in &stability.indices {
            for component in &index.components {
                assert!(component.min > 1.0 - 1e-9, "{component:?}");
                assert_eq!(component.verdict, Verdict::Stable);
            }
            let shares: f64 = index.components.iter().map(|c| c.share).sum();
            assert!((shares - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn congruence_of_cp_is_a_product_of_cosines() {
        let shapes = shapes("ir,jr->ij", &[6, 5], &[('r', 1)]);
        let (one, two) = (factors(&shapes, 1.0), factors(&shapes, 2.0));
        let cosine = |a: &ArrayD<f64>, b: &ArrayD<f64>| {
            (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()
        };
        let expected = cosine(&one[0], &two[0]) * cosine(&one[1], &two[1]);
        let found = stability_of(&shapes, &[one, two], &[]).unwrap();
        let component = &found.indices[0].components[0];
        assert!((component.mean - expected).abs() < 1e-12 && component.mean == component.min);
    }

    #[test]
    fn the_best_assignment_is_taken_and_what_is_left_has_no_match() {
        // Taking the largest first (0.9) would leave 0.1 for the other row.
        let near = |found: &[f64], expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-12), "{found:?}");
        };
        near(&matched(&[vec![0.9, 0.8], vec![0.8, 0.1]]), &[0.8, 0.8]);
        near(&matched(&[vec![0.9, 0.8, 0.95]]), &[0.95]);
        near(&matched(&[vec![0.2], vec![0.7], vec![0.4]]), &[0.0, 0.7, 0.0]);
        near(&matched(&[]), &[]);
        near(&matched(&[vec![0.0, 0.0], vec![0.0, 0.0]]), &[0.0, 0.0]);
    }

    #[test]
    fn one_fit_has_no_stability() {
        let shapes = shapes("ir,jr->ij", &[6, 5], &[('r', 2)]);
        let error = stability_of(&shapes, &[factors(&shapes, 1.0)], &[]).unwrap_err().to_string();
        assert!(error.contains("two fits"), "{error}");
        assert!(stability(&[]).is_err());
    }

    #[test]
    fn an_empty_component_is_unstable() {
        let shapes = shapes("ir,jr->ij", &[6, 5], &[('r', 2)]);
        let mut one = factors(&shapes, 1.0);
        one[0].index_axis_mut(Axis(1), 1).fill(0.0);
        let found = stability_of(&shapes, &[one.clone(), one], &[]).unwrap();
        let components = &found.indices[0].components;
        assert!(components[0].mean > 0.999 && components[0].share == 1.0);
        assert_eq!((components[1].mean, components[1].verdict), (0.0, Verdict::Unstable));
    }

    #[test]
    fn a_stuck_fit_does_not_decide() {
        let shapes = shapes("ir,jr->ij", &[6, 5], &[('r', 2)]);
        let one = factors(&shapes, 1.0);
        let mut stuck = one.clone();
        stuck[0].index_axis_mut(Axis(1), 0).fill(0.0);
        let kin = |better, start, split| Kin { better, start, split };
        let all = [kin(true, true, false), kin(true, false, true), kin(false, true, false)];
        let fits = [one.clone(), one.clone(), one.clone(), stuck];
        let found = stability_of(&shapes, &fits, &all).unwrap();
        let component = &found.indices[0].components[0];
        assert_eq!((found.fits, found.better, component.verdict), (4, 2, Verdict::Stable));
        assert!(component.better_min > 0.999 && component.min == 0.0, "{component:?}");
        assert!((component.mean - 2.0 / 3.0).abs() < 1e-9, "{component:?}");
        assert!((component.starts.unwrap() - 0.5).abs() < 1e-9, "{component:?}");
        assert!((component.splits.unwrap() - 1.0).abs() < 1e-9, "{component:?}");
        // Where no fit is said to be better, all decide.
        let found = stability_of(&shapes, &fits, &[]).unwrap();
        assert_eq!(found.indices[0].components[0].verdict, Verdict::Unstable);
        assert_eq!(found.better, 3);
        assert_eq!(better_half(&[3.0, f64::INFINITY, 1.0]), [true, false, true]);
        assert_eq!(better_half(&[]), [false; 0]);
    }

    #[test]
    fn indices_of_many_components_are_left_out() {
        let rank = Stability::LARGEST_RANK + 1;
        let shapes = shapes("ir,rk,kj->ij", &[3, 4], &[('r', rank), ('k', 2)]);
        let one = factors(&shapes, 1.0);
        let found = stability_of(&shapes, &[one.clone(), one], &[]).unwrap();
        assert_eq!(found.indices.iter().map(|l| l.index).collect::<String>(), "k");
        assert!(found.notes.len() == 1 && found.notes[0].contains("513"), "{:?}", found.notes);
    }
}
