//! Which scales the factors of a model can trade without a change of ŷ.

use crate::model::{Letter, Letters, Model};

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
    trades: Vec<Trade>,
}

/// A set of letters over which some factors trade scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Trade {
    /// The letters, for each index of which the factors trade; none where they trade as a whole.
    pub letters: Vec<Letter>,
    /// The factors (counted from 0) that have all these letters, two or more.
    pub factors: Vec<usize>,
}

impl std::fmt::Display for Trade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let letters: String = self.letters.iter().map(|&x| char::from(x)).collect();
        let factors: Vec<String> = self.factors.iter().map(|l| (l + 1).to_string()).collect();
        let letters = if letters.is_empty() { "∅" } else { &letters };
        write!(f, "{letters}: factors {}", factors.join(", "))
    }
}

impl Balancing {
    /// The trades among these factors (counted from 0), those over more letters first.
    #[must_use]
    pub fn new(model: &Model, factors: &[usize]) -> Balancing {
        let known = factors.iter().filter_map(|&l| Some((l, model.factors().get(l)?)));
        let sets: Vec<(usize, Letters)> =
            known.map(|(l, letters)| (l, letters.iter().collect())).collect();
        let mut shared: Vec<Letters> = Vec::new();
        let add = |set: Letters, shared: &mut Vec<Letters>| {
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
            add(Letters::EMPTY, &mut shared);
        }
        let having = |set: Letters| -> Vec<usize> {
            sets.iter().filter(|(_, letters)| letters.contains_all(set)).map(|&(l, _)| l).collect()
        };
        let mut trades: Vec<Trade> = shared
            .iter()
            .filter(|&&set| {
                // A trade over more letters among the same factors does all that this one does.
                let wider = |other: &&Letters| **other != set && other.contains_all(set);
                !shared.iter().filter(wider).any(|&other| having(other) == having(set))
            })
            .map(|&set| Trade { letters: set.iter().collect(), factors: having(set) })
            .collect();
        trades.sort_by_key(|trade| std::cmp::Reverse(trade.letters.len()));
        Balancing { trades }
    }

    /// Trades among factors of several lists, each for itself.
    #[must_use]
    pub fn among(model: &Model, lists: &[Vec<usize>]) -> Balancing {
        let trades = lists.iter().flat_map(|list| Balancing::new(model, list).trades);
        Balancing { trades: trades.collect() }
    }

    /// The factors that take part in a trade.
    #[must_use]
    pub fn factors(&self) -> Vec<usize> {
        let all = self.trades.iter().flat_map(|trade| trade.factors.iter().copied());
        all.collect::<std::collections::BTreeSet<usize>>().into_iter().collect()
    }

    /// The trades, in the order in which they are made.
    #[must_use]
    pub fn trades(&self) -> &[Trade] {
        &self.trades
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trades(model: &str) -> Vec<String> {
        let model = Model::parse(model).unwrap();
        let all: Vec<usize> = (0..model.factors().len()).collect();
        Balancing::new(&model, &all).trades().iter().map(ToString::to_string).collect()
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
        assert_eq!(found.trades()[0].to_string(), "r: factors 1, 3");
        assert!(Balancing::new(&model, &[1]).trades().is_empty());
    }
}
