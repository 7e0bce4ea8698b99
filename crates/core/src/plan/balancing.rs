//! Which scales the factors of a model can trade without a change of ŷ.

use crate::model::{Index, IndexSet, Model};

/// The trades of scale among some factors of a model.
///
/// Every term of ŷ takes one slice of each factor: if the slices of the factors that have the letters
/// S are multiplied, for each index of S, by numbers whose product is 1, ŷ stays as it is. All such
/// changes of scale are products of trades over the sets that [`trades`](Self::trades) lists: the
/// sets of letters that two or more factors share, their intersections, and ∅ (one scale for a whole
/// factor). One letter at a time is not enough: `irk` and `jrk` share r and k jointly.
///
/// ```
/// use nneinfact::model::Model;
/// use nneinfact::plan::Balancing;
///
/// let model = Model::parse("wr,hr,dr,ikr,jkr->whdij")?;
/// let balancing = Balancing::new(&model, &[0, 1, 2, 3, 4]);
/// let trades: Vec<String> = balancing.trades().iter().map(ToString::to_string).collect();
/// assert_eq!(trades, ["kr: factors 4, 5", "r: factors 1, 2, 3, 4, 5"]);
/// # Ok::<(), nneinfact::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Balancing {
    rescalings: Vec<Rescaling>,
    rescaling_steps: Vec<RescalingStep>,
}

/// A set of letters over which some factors trade scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Rescaling {
    /// The letters, for each index of which the factors trade; none where they trade as a whole.
    pub indices: Vec<Index>,
    /// The factors (counted from 0) that have all these letters, two or more.
    pub factors: Vec<usize>,
}

impl std::fmt::Display for Rescaling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let letters: String = self.indices.iter().map(|&x| char::from(x)).collect();
        let factors: Vec<String> = self.factors.iter().map(|l| (l + 1).to_string()).collect();
        let letters = if letters.is_empty() { "∅" } else { &letters };
        write!(f, "{letters}: factors {}", factors.join(", "))
    }
}

/// A set of letters over which factors of several tensors exchange scale: where the slices of those on
/// one side are multiplied by a number, those of the other side are divided by it, and every tensor has
/// as many of its factors on one side as on the other.
#[derive(Clone, Debug, PartialEq)]
pub struct RescalingStep {
    /// The letters, for each index of which the factors exchange; none where they do so as a whole.
    pub indices: Vec<Index>,
    /// The factors (counted from 0) of the two sides.
    pub sides: [Vec<usize>; 2],
}

impl std::fmt::Display for RescalingStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let letters: String = self.indices.iter().map(|&x| char::from(x)).collect();
        let [one, other] = self.sides.each_ref().map(|side| {
            side.iter().map(|l| (l + 1).to_string()).collect::<Vec<String>>().join(", ")
        });
        let letters = if letters.is_empty() { "∅" } else { &letters };
        write!(f, "{letters}: factors {one} against {other}")
    }
}

/// More kinds of factors than this do not exchange scale: ways to take sides would be too many.
const KINDS: usize = 9;

/// The ways to let some of several things rise and others fall (1, −1, and 0 for neither) so that for
/// each set of them as many rise as fall, without those that others are made up of, and one of each
/// pair of opposites.
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
    /// The trades among these factors (counted from 0), those over more letters first.
    #[must_use]
    pub fn new(model: &Model, factors: &[usize]) -> Balancing {
        let known = factors.iter().filter_map(|&l| Some((l, model.factors().get(l)?)));
        let sets: Vec<(usize, IndexSet)> =
            known.map(|(l, letters)| (l, letters.iter().collect())).collect();
        let mut shared: Vec<IndexSet> = Vec::new();
        let add = |set: IndexSet, shared: &mut Vec<IndexSet>| {
            if !shared.contains(&set) {
                shared.push(set);
            }
        };
        for (i, (_, left)) in sets.iter().enumerate() {
            sets[i + 1..].iter().for_each(|(_, right)| add(*left & *right, &mut shared));
        }
        // Closed under intersection: what is added is met with all others in turn.
        let mut i = 0;
        while i < shared.len() {
            for j in 0..i {
                add(shared[i] & shared[j], &mut shared);
            }
            i += 1;
        }
        if sets.len() > 1 {
            add(IndexSet::EMPTY, &mut shared);
        }
        let having = |set: IndexSet| -> Vec<usize> {
            sets.iter().filter(|(_, letters)| letters.contains_all(set)).map(|&(l, _)| l).collect()
        };
        let mut trades: Vec<Rescaling> = shared
            .iter()
            .filter(|&&set| {
                // A trade over more letters among the same factors does all that this one does.
                let wider = |other: &&IndexSet| **other != set && other.contains_all(set);
                !shared.iter().filter(wider).any(|&other| having(other) == having(set))
            })
            .map(|&set| Rescaling { indices: set.iter().collect(), factors: having(set) })
            .collect();
        trades.sort_by_key(|trade| std::cmp::Reverse(trade.indices.len()));
        Balancing { rescalings: trades, rescaling_steps: Vec::new() }
    }

    /// The trades among these factors of a model that is made up of those of several tensors, each of
    /// which has the factors of one list: no tensor's ŷ may change. So factors trade with those that are
    /// in the same tensors, and exchange scale with others.
    ///
    /// ```
    /// use nneinfact::model::Model;
    /// use nneinfact::plan::Balancing;
    ///
    /// // ir,jr->ij and ir,kr->ik.
    /// let all = Model::parse("ir,jr,kr->ijk")?;
    /// let found = Balancing::coupled(&all, &[0, 1, 2], &[vec![0, 1], vec![0, 2]]);
    /// assert!(found.trades().is_empty());
    /// assert_eq!(found.exchanges()[0].to_string(), "r: factors 1 against 2, 3");
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
        let trades = lists.iter().flat_map(|list| Balancing::new(model, list).rescalings).collect();
        let mut exchanges = Vec::new();
        for Rescaling { indices: letters, factors } in Balancing::new(model, factors).rescalings {
            // One of each kind: what it gets, it trades with the others of its kind.
            let kinds: Vec<usize> = alike(&factors).into_iter().map(|kind| kind[0]).collect();
            let sets: Vec<Vec<usize>> = tensors
                .iter()
                .map(|own| (0..kinds.len()).filter(|&i| own.contains(&kinds[i])).collect())
                .collect();
            for signs in opposites(kinds.len(), &sets) {
                let side = |sign: i8| -> Vec<usize> {
                    kinds.iter().zip(&signs).filter(|(_, s)| **s == sign).map(|(l, _)| *l).collect()
                };
                exchanges
                    .push(RescalingStep { indices: letters.clone(), sides: [side(1), side(-1)] });
            }
        }
        Balancing { rescalings: trades, rescaling_steps: exchanges }
    }

    /// Whether there is nothing to trade.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rescalings.is_empty() && self.rescaling_steps.is_empty()
    }

    /// The factors that take part in a trade or an exchange.
    #[must_use]
    pub fn factors(&self) -> Vec<usize> {
        let trading = self.rescalings.iter().flat_map(|trade| trade.factors.iter().copied());
        let exchanging =
            self.rescaling_steps.iter().flat_map(|x| x.sides.iter().flatten().copied());
        let all = trading.chain(exchanging);
        all.collect::<std::collections::BTreeSet<usize>>().into_iter().collect()
    }

    /// The exchanges among factors of several tensors, which are made after the trades.
    #[must_use]
    pub fn rescaling_steps(&self) -> &[RescalingStep] {
        &self.rescaling_steps
    }

    /// The trades, in the order in which they are made.
    #[must_use]
    pub fn rescalings(&self) -> &[Rescaling] {
        &self.rescalings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trades(model: &str) -> Vec<String> {
        let model = Model::parse(model).unwrap();
        let all: Vec<usize> = (0..model.factors().len()).collect();
        Balancing::new(&model, &all).rescalings().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn sets_shared_by_factors_and_their_intersections() {
        assert_eq!(trades("ir,jr->ij"), ["r: factors 1, 2"]);
        assert_eq!(trades("ir,jr,kr->ijk"), ["r: factors 1, 2, 3"]);
        // No letter is in all factors of a Tucker model: they trade as a whole, too.
        assert_eq!(
            trades("ia,jb,kc,abc->ijk"),
            ["a: factors 1, 4", "b: factors 2, 4", "c: factors 3, 4", "∅: factors 1, 2, 3, 4"]
        );
        // Observed letters count.
        assert_eq!(trades("ijr,jkr->ijk"), ["jr: factors 1, 2"]);
        assert_eq!(
            trades("ia,ajb,bk->ijk"),
            ["a: factors 1, 2", "b: factors 2, 3", "∅: factors 1, 2, 3"]
        );
        assert!(trades("ij->ij").is_empty());
    }

    #[test]
    fn factors_left_out_do_not_trade() {
        let model = Model::parse("ir,jr,kr->ijk").unwrap();
        let found = Balancing::new(&model, &[0, 2]);
        assert_eq!(found.rescalings()[0].to_string(), "r: factors 1, 3");
        assert!(Balancing::new(&model, &[1]).rescalings().is_empty());
    }

    #[test]
    fn factors_of_several_tensors_exchange_what_leaves_each_as_it_is() {
        let exchanges = |model: &str, tensors: &[&[usize]]| -> Vec<String> {
            let model = Model::parse(model).unwrap();
            let all: Vec<usize> = (0..model.factors().len()).collect();
            let tensors: Vec<Vec<usize>> = tensors.iter().map(|own| own.to_vec()).collect();
            let found = Balancing::coupled(&model, &all, &tensors);
            found.rescaling_steps().iter().map(ToString::to_string).collect()
        };
        // One tensor has nothing to exchange with.
        assert!(exchanges("ir,jr,kr->ijk", &[&[0, 1, 2]]).is_empty());
        assert_eq!(
            exchanges("ir,jr,kr,lr->ijkl", &[&[0, 1], &[0, 2], &[0, 3]]),
            ["r: factors 1 against 2, 3, 4"]
        );
        // A chain of tensors: what the first factor gets goes on to the last.
        assert_eq!(
            exchanges("ir,jr,kr,lr->ijkl", &[&[0, 1], &[1, 2], &[2, 3]]),
            ["r: factors 1, 3 against 2, 4"]
        );
        // What a factor of one tensor gets, others would have to give in both.
        assert!(exchanges("ir,jr,kr->ijk", &[&[0, 1, 2], &[0, 1]]).is_empty());
        // Letters that only some of them have: those trade as a whole.
        assert_eq!(exchanges("ir,jr,is->ijs", &[&[0, 1], &[0, 2]]), ["∅: factors 1 against 2, 3"]);
    }
}
