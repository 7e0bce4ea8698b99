//! The rescalings among the factors of a model that leave ŷ as it is.

use std::collections::BTreeSet;

use crate::model::{Index, IndexSet, Model};

/// The rescalings among some factors of a model that leave ŷ as it is.
///
/// Every term of ŷ takes one slice of each factor: if the slices of the factors that have the
/// indices S are multiplied, for each index of S, by numbers whose product is 1, ŷ stays as it is.
/// All such changes of scale are products of rescalings over the sets that
/// [`rescalings`](Self::rescalings) lists: the sets of indices that two or more factors share,
/// their intersections, and ∅ (one scale for a whole factor). One index at a time is not enough:
/// `irk` and `jrk` share r and k jointly.
///
/// ```
/// use nneinfact::model::Model;
/// use nneinfact::plan::Balancing;
///
/// let model = Model::parse("wr,hr,dr,ikr,jkr->whdij")?;
/// let balancing = Balancing::new(&model, &[0, 1, 2, 3, 4]);
/// let rescalings: Vec<String> = balancing.rescalings().iter().map(ToString::to_string).collect();
/// assert_eq!(rescalings, ["kr: factors 4, 5", "r: factors 1, 2, 3, 4, 5"]);
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Balancing {
    rescalings: Vec<Rescaling>,
    rescaling_steps: Vec<RescalingStep>,
}

/// A set of indices over which some factors are rescaled against each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Rescaling {
    /// The indices: there is one scale for each combination of their values. None where each factor
    /// is rescaled as a whole.
    pub indices: Vec<Index>,
    /// The factors (counted from 0) that have all these indices, two or more.
    pub factors: Vec<usize>,
}

impl std::fmt::Display for Rescaling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let indices: String = self.indices.iter().map(|&x| char::from(x)).collect();
        let factors: Vec<String> = self.factors.iter().map(|l| (l + 1).to_string()).collect();
        let indices = if indices.is_empty() { "∅" } else { &indices };
        write!(f, "{indices}: factors {}", factors.join(", "))
    }
}

/// A set of indices over which factors of several tensors are rescaled: where the slices of those
/// on one side are multiplied by a number, those of the other side are divided by it, and every
/// tensor has as many of its factors on one side as on the other.
#[derive(Clone, Debug, PartialEq)]
pub struct RescalingStep {
    /// The indices: there is one scale for each combination of their values. None where each factor
    /// is rescaled as a whole.
    pub indices: Vec<Index>,
    /// The factors (counted from 0) of the two sides.
    pub sides: [Vec<usize>; 2],
}

impl std::fmt::Display for RescalingStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let indices: String = self.indices.iter().map(|&x| char::from(x)).collect();
        let [one, other] = self.sides.each_ref().map(|side| {
            side.iter().map(|l| (l + 1).to_string()).collect::<Vec<String>>().join(", ")
        });
        let indices = if indices.is_empty() { "∅" } else { &indices };
        write!(f, "{indices}: factors {one} against {other}")
    }
}

/// At most this many sets of indices are looked at: among n factors that each lack another index there
/// are 2ⁿ intersections. What is left out is a rescaling less, which costs some balance and nothing else.
const MOST_SETS: usize = 1024;

/// Among more kinds of factors than this no rescaling steps are looked for: the ways to take sides
/// would be too many.
const KINDS: usize = 9;

/// The ways to let some of several things rise and others fall (1, −1, and 0 for neither) so that
/// for each set of them as many rise as fall, without those that others are made up of, and one of
/// each pair of opposites.
pub fn opposites(things: usize, sets: &[Vec<usize>]) -> Vec<Vec<i8>> {
    let mut found: Vec<Vec<i8>> = Vec::new();
    if things > KINDS {
        return found;
    }
    for code in 1..3usize.pow(things as u32) {
        let digit = |i: usize| [0, 1, -1][code / 3usize.pow(i as u32) % 3];
        let signs: Vec<i8> = (0..things).map(digit).collect();
        let first = signs.iter().find(|sign| **sign != 0);
        let even = |set: &Vec<usize>| set.iter().map(|&i| i32::from(signs[i])).sum::<i32>() == 0;
        if first == Some(&1) && sets.iter().all(even) {
            found.push(signs);
        }
    }
    let inside = |part: &Vec<i8>, whole: &Vec<i8>| {
        part != whole && part.iter().zip(whole).all(|(p, w)| *p == 0 || *w != 0)
    };
    let minimal = |signs: &&Vec<i8>| !found.iter().any(|other| inside(other, signs));
    found.iter().filter(minimal).cloned().collect()
}

impl Balancing {
    /// The rescalings among these factors (counted from 0), those over more indices first.
    #[must_use]
    pub fn new(model: &Model, factors: &[usize]) -> Balancing {
        let known = factors.iter().filter_map(|&l| Some((l, model.factors().get(l)?)));
        let sets: Vec<(usize, IndexSet)> =
            known.map(|(l, indices)| (l, indices.iter().collect())).collect();
        let mut shared: Vec<IndexSet> = Vec::new();
        // Every factor can be rescaled as a whole, whatever else is left out.
        let most = MOST_SETS - 1;
        let mut seen = BTreeSet::new();
        let mut add = |set: IndexSet, shared: &mut Vec<IndexSet>, most: usize| {
            if shared.len() < most && seen.insert(set) {
                shared.push(set);
            }
        };
        for (i, (_, left)) in sets.iter().enumerate() {
            sets[i + 1..].iter().for_each(|(_, right)| add(*left & *right, &mut shared, most));
        }
        // Closed under intersection: what is added is intersected with all others.
        let mut i = 0;
        while i < shared.len() {
            for j in 0..i {
                add(shared[i] & shared[j], &mut shared, most);
            }
            i += 1;
        }
        if sets.len() > 1 {
            add(IndexSet::EMPTY, &mut shared, MOST_SETS);
        }
        let having = |set: IndexSet| -> Vec<usize> {
            sets.iter().filter(|(_, indices)| indices.contains_all(set)).map(|&(l, _)| l).collect()
        };
        let mut rescalings: Vec<Rescaling> = shared
            .iter()
            .filter(|&&set| {
                // A rescaling over more indices among the same factors does all that this one does.
                let wider = |other: &&IndexSet| **other != set && other.contains_all(set);
                !shared.iter().filter(wider).any(|&other| having(other) == having(set))
            })
            .map(|&set| Rescaling { indices: set.iter().collect(), factors: having(set) })
            .collect();
        rescalings.sort_by_key(|rescaling| std::cmp::Reverse(rescaling.indices.len()));
        Balancing { rescalings, rescaling_steps: Vec::new() }
    }

    /// The rescalings among these factors of a model that is made up of those of several tensors,
    /// each of which has the factors of one list: no tensor's ŷ may change. Factors of the same
    /// tensors are rescaled against each other, and factors of different tensors in rescaling
    /// steps.
    ///
    /// ```
    /// use nneinfact::model::Model;
    /// use nneinfact::plan::Balancing;
    ///
    /// // ir,jr->ij and ir,kr->ik.
    /// let all = Model::parse("ir,jr,kr->ijk")?;
    /// let found = Balancing::coupled(&all, &[0, 1, 2], &[vec![0, 1], vec![0, 2]]);
    /// assert!(found.rescalings().is_empty());
    /// assert_eq!(found.rescaling_steps()[0].to_string(), "r: factors 1 against 2, 3");
    /// # Ok::<(), nneinfact::Error>(())
    /// ```
    #[must_use]
    pub fn coupled(model: &Model, factors: &[usize], tensors: &[Vec<usize>]) -> Balancing {
        let holders =
            |l: usize| -> Vec<bool> { tensors.iter().map(|own| own.contains(&l)).collect() };
        let alike = |factors: &[usize]| -> Vec<Vec<usize>> {
            let mut kinds: Vec<Vec<usize>> = Vec::new();
            for &l in factors {
                match kinds.iter_mut().find(|kind| holders(kind[0]) == holders(l)) {
                    Some(kind) => kind.push(l),
                    None => kinds.push(vec![l]),
                }
            }
            kinds
        };
        let lists = alike(factors);
        let rescalings =
            lists.iter().flat_map(|list| Balancing::new(model, list).rescalings).collect();
        let mut rescaling_steps = Vec::new();
        for Rescaling { indices, factors } in Balancing::new(model, factors).rescalings {
            // One of each kind: a rescaling passes its scale on to the others of its kind.
            let kinds: Vec<usize> = alike(&factors).into_iter().map(|kind| kind[0]).collect();
            let sets: Vec<Vec<usize>> = tensors
                .iter()
                .map(|own| (0..kinds.len()).filter(|&i| own.contains(&kinds[i])).collect())
                .collect();
            for signs in opposites(kinds.len(), &sets) {
                let side = |sign: i8| -> Vec<usize> {
                    kinds.iter().zip(&signs).filter(|(_, s)| **s == sign).map(|(l, _)| *l).collect()
                };
                rescaling_steps
                    .push(RescalingStep { indices: indices.clone(), sides: [side(1), side(-1)] });
            }
        }
        Balancing { rescalings, rescaling_steps }
    }

    /// Whether nothing can be rescaled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rescalings.is_empty() && self.rescaling_steps.is_empty()
    }

    /// The factors that take part in a rescaling or a rescaling step.
    #[must_use]
    pub fn factors(&self) -> Vec<usize> {
        let rescaled =
            self.rescalings.iter().flat_map(|rescaling| rescaling.factors.iter().copied());
        let exchanging =
            self.rescaling_steps.iter().flat_map(|x| x.sides.iter().flatten().copied());
        let all = rescaled.chain(exchanging);
        all.collect::<BTreeSet<usize>>().into_iter().collect()
    }

    /// The rescaling steps among factors of several tensors, which are made after the rescalings.
    #[must_use]
    pub fn rescaling_steps(&self) -> &[RescalingStep] {
        &self.rescaling_steps
    }

    /// The rescalings, in the order in which they are made.
    #[must_use]
    pub fn rescalings(&self) -> &[Rescaling] {
        &self.rescalings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rescalings(model: &str) -> Vec<String> {
        let model = Model::parse(model).unwrap();
        let all: Vec<usize> = (0..model.factors().len()).collect();
        Balancing::new(&model, &all).rescalings().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn sets_shared_by_factors_and_their_intersections() {
        assert_eq!(rescalings("ir,jr->ij"), ["r: factors 1, 2"]);
        assert_eq!(rescalings("ir,jr,kr->ijk"), ["r: factors 1, 2, 3"]);
        // No index is in all factors of a Tucker model: they are rescaled as a whole, too.
        assert_eq!(
            rescalings("ia,jb,kc,abc->ijk"),
            ["a: factors 1, 4", "b: factors 2, 4", "c: factors 3, 4", "∅: factors 1, 2, 3, 4"]
        );
        // Observed indices count.
        assert_eq!(rescalings("ijr,jkr->ijk"), ["jr: factors 1, 2"]);
        assert_eq!(
            rescalings("ia,ajb,bk->ijk"),
            ["a: factors 1, 2", "b: factors 2, 3", "∅: factors 1, 2, 3"]
        );
        assert!(rescalings("ij->ij").is_empty());
    }

    /// Each of 24 factors lacks another latent index: their intersections would be 2²⁴ sets.
    #[test]
    fn intersections_without_end_are_cut_short() {
        let latent: Vec<char> = ('a'..='x').collect();
        let factors: Vec<String> = ('A'..='X')
            .zip(&latent)
            .map(|(mode, lacks)| {
                std::iter::once(mode).chain(latent.iter().copied().filter(|l| l != lacks)).collect()
            })
            .collect();
        let modes: String = ('A'..='X').collect();
        let found = rescalings(&format!("{}->{modes}", factors.join(",")));
        assert!(found.len() > 500 && found.len() <= MOST_SETS, "{}", found.len());
        // Whole factors are rescaled nevertheless: the last, and over no index.
        let last = found.last().unwrap();
        assert!(last.starts_with("∅: factors 1, 2, 3"), "{last}");
    }

    #[test]
    fn factors_left_out_are_not_rescaled() {
        let model = Model::parse("ir,jr,kr->ijk").unwrap();
        let found = Balancing::new(&model, &[0, 2]);
        assert_eq!(found.rescalings()[0].to_string(), "r: factors 1, 3");
        assert!(Balancing::new(&model, &[1]).rescalings().is_empty());
    }

    #[test]
    fn rescaling_steps_leave_every_tensor_as_it_is() {
        let steps = |model: &str, tensors: &[&[usize]]| -> Vec<String> {
            let model = Model::parse(model).unwrap();
            let all: Vec<usize> = (0..model.factors().len()).collect();
            let tensors: Vec<Vec<usize>> = tensors.iter().map(|own| own.to_vec()).collect();
            let found = Balancing::coupled(&model, &all, &tensors);
            found.rescaling_steps().iter().map(ToString::to_string).collect()
        };
        // With one tensor there is nothing to rescale against.
        assert!(steps("ir,jr,kr->ijk", &[&[0, 1, 2]]).is_empty());
        assert_eq!(
            steps("ir,jr,kr,lr->ijkl", &[&[0, 1], &[0, 2], &[0, 3]]),
            ["r: factors 1 against 2, 3, 4"]
        );
        // A chain of tensors: what the first factor gets goes on to the last.
        assert_eq!(
            steps("ir,jr,kr,lr->ijkl", &[&[0, 1], &[1, 2], &[2, 3]]),
            ["r: factors 1, 3 against 2, 4"]
        );
        // What a factor of one tensor gets, others would have to give in both.
        assert!(steps("ir,jr,kr->ijk", &[&[0, 1, 2], &[0, 1]]).is_empty());
        // Indices that only some of them have: those are rescaled as a whole.
        assert_eq!(steps("ir,jr,is->ijs", &[&[0, 1], &[0, 2]]), ["∅: factors 1 against 2, 3"]);
    }
}
