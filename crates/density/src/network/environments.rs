//! What a factor's step needs of all other factors, kept from one step to the next.
//!
//! Factors are visited in their order. What stands before the one that is visited is contracted as far as
//! it gets smaller by that, and so is what stands behind it: in a chain, a train say, it is one small
//! tensor on each side. A sweep over a chain takes as many contractions as it has factors then, and not
//! the square of that.

use super::Network;
use super::contract::{Labelled, reduce};
use super::node::{FactorNode, Goal};
use crate::error::Result;

/// The contractions of one sweep.
pub(crate) struct FactorEnvironments<'a> {
    goal: Goal<'a>,
    /// The model with itself, and with the target.
    itself: Sides,
    target: Sides,
    /// The tensors of the target that are contracted along with each factor.
    companions: Vec<Vec<usize>>,
    /// The factor whose step comes next.
    next: usize,
}

/// What is contracted before the next factor, and behind every factor.
struct Sides {
    before: Vec<Labelled>,
    behind: Vec<Vec<Labelled>>,
}

/// What the model is contracted with.
#[derive(Clone, Copy)]
enum With {
    Itself,
    Target,
}

impl<'a> Goal<'a> {
    fn target(&self) -> Option<&'a Network> {
        match self {
            Goal::Network { target, .. } => Some(target),
            Goal::Entries(_) => None,
        }
    }

    fn weights(&self) -> Option<&'a Labelled> {
        match self {
            Goal::Network { weights, .. } => *weights,
            Goal::Entries(_) => None,
        }
    }

    /// The contractions that steps read.
    fn needs(&self) -> &'static [With] {
        match self {
            Goal::Network { .. } => &[With::Itself, With::Target],
            Goal::Entries(entries) if entries.has_zeros() => &[With::Itself],
            Goal::Entries(_) => &[],
        }
    }
}

impl<'a> FactorEnvironments<'a> {
    /// Those of the first factor.
    pub fn new(model: &Network, goal: Goal<'a>) -> Result<FactorEnvironments<'a>> {
        let factors = model.factors.len();
        let mut companions = vec![Vec::new(); factors];
        let of_target = goal.target().map_or(&[][..], |target| &target.factors);
        for (t, letters) in of_target.iter().enumerate() {
            let common = |f: &Vec<char>| {
                f.iter().filter(|c| model.output.contains(c) && letters.contains(c)).count()
            };
            let most = model.factors.iter().map(common).max().unwrap_or(0);
            let first = model.factors.iter().position(|f| common(f) == most);
            companions[first.unwrap_or(0)].push(t);
        }
        let sides = || Sides { before: Vec::new(), behind: vec![Vec::new(); factors] };
        let (itself, target) = (sides(), sides());
        let mut all = FactorEnvironments { goal, itself, target, companions, next: 0 };
        for &with in goal.needs() {
            for l in (1..factors).rev() {
                let mut parts = all.sides(with).behind[l].clone();
                parts.extend(all.group(model, l, with));
                let behind = reduce(parts, &all.letters(model, 0..l, with), all.most(model, with))?;
                all.sides_mut(with).behind[l - 1] = behind;
            }
        }
        Ok(all)
    }

    /// The objective at the factor whose step comes next.
    pub fn node(&self, model: &Network) -> Result<FactorNode> {
        let l = self.next;
        let others = |sides: &Sides| -> Vec<Labelled> {
            sides.before.iter().chain(&sides.behind[l]).cloned().collect()
        };
        let mut gram = others(&self.itself);
        match self.goal {
            Goal::Network { target, weights } => {
                gram.extend(weights.filter(|_| l == 0).cloned());
                let mut numerator = others(&self.target);
                numerator.extend(target.labelled(self.companions[l].iter().copied(), true));
                FactorNode::new(model, l, gram, weights.is_some(), numerator)
            }
            Goal::Entries(entries) => {
                FactorNode::of_entries(model, l, entries, entries.has_zeros().then_some(gram))
            }
        }
    }

    /// Goes on to the next factor, with this one as it is now.
    pub fn advance(&mut self, model: &Network) -> Result<()> {
        let l = self.next;
        self.next += 1;
        if self.next == model.factors.len() {
            return Ok(());
        }
        for &with in self.goal.needs() {
            let mut parts = std::mem::take(&mut self.sides_mut(with).before);
            parts.extend(self.group(model, l, with));
            let outside = self.letters(model, self.next..model.factors.len(), with);
            let before = reduce(parts, &outside, self.most(model, with))?;
            let sides = self.sides_mut(with);
            sides.before = before;
            sides.behind[l] = Vec::new();
        }
        Ok(())
    }

    fn sides(&self, with: With) -> &Sides {
        match with {
            With::Itself => &self.itself,
            With::Target => &self.target,
        }
    }

    fn sides_mut(&mut self, with: With) -> &mut Sides {
        match with {
            With::Itself => &mut self.itself,
            With::Target => &mut self.target,
        }
    }

    /// A factor with what is contracted along with it. The weights go with the first.
    fn group(&self, model: &Network, l: usize, with: With) -> Vec<Labelled> {
        let one = || std::iter::once(l);
        let mut parts = model.labelled(one(), false);
        match with {
            With::Itself => {
                parts.extend(model.labelled(one(), true));
                parts.extend(self.goal.weights().filter(|_| l == 0).cloned());
            }
            With::Target => {
                let companions = || self.companions[l].iter().copied();
                parts
                    .extend(self.goal.target().iter().flat_map(|t| t.labelled(companions(), true)));
            }
        }
        parts
    }

    /// The letters of the groups of some factors.
    fn letters(&self, model: &Network, which: std::ops::Range<usize>, with: With) -> Vec<char> {
        let mut letters = Vec::new();
        for l in which {
            letters.extend_from_slice(&model.factors[l]);
            match with {
                With::Itself => {
                    letters.extend(model.factors[l].iter().map(|&c| model.letter(c, true)));
                    let weights = self.goal.weights().filter(|_| l == 0);
                    letters.extend(weights.iter().flat_map(|weights| &weights.letters));
                }
                With::Target => {
                    let Some(target) = self.goal.target() else { continue };
                    let of = |&t: &usize| target.factors[t].iter().map(|&c| target.letter(c, true));
                    letters.extend(self.companions[l].iter().flat_map(of));
                }
            }
        }
        letters
    }

    /// How large what is kept may become where a letter is summed over: as the largest tensor is.
    fn most(&self, model: &Network, with: With) -> usize {
        let largest = |n: &Network| n.tensors.iter().map(|t| t.data.len()).max().unwrap_or(0);
        match with {
            With::Itself => largest(model),
            With::Target => largest(model).max(self.goal.target().map_or(0, largest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Dense, Network};
    use super::*;

    /// A train of as many cores as there are letters for.
    fn chain(cores: usize, n: usize, r: usize, s: f64) -> Network {
        let observed: Vec<char> = ('a'..='z').take(cores).collect();
        let bond = |k: usize| char::from_u32('A' as u32 + k as u32).unwrap();
        let (mut texts, mut tensors) = (Vec::new(), Vec::new());
        for (k, &letter) in observed.iter().enumerate() {
            let (mut text, mut shape) = (String::from(letter), vec![n]);
            if k > 0 {
                text.insert(0, bond(k - 1));
                shape.insert(0, r);
            }
            if k + 1 < cores {
                text.push(bond(k));
                shape.push(r);
            }
            let entries: usize = shape.iter().product();
            let data = (0..entries).map(|i| 0.3 + (i as f64 * s + k as f64).sin().powi(2));
            tensors.push(Dense::new(shape, data.collect()).unwrap());
            texts.push(text);
        }
        let output: String = observed.iter().collect();
        Network::new(&format!("{}->{output}", texts.join(",")), tensors).unwrap()
    }

    #[test]
    fn of_a_chain_one_small_tensor_is_kept_on_each_side() {
        let (model, target) = (chain(26, 2, 3, 0.7), chain(26, 2, 4, 0.4));
        let goal = Goal::Network { target: &target, weights: None };
        let mut all = FactorEnvironments::new(&model, goal).unwrap();
        for l in 0..26 {
            for (sides, most) in [(&all.itself, 3 * 3), (&all.target, 3 * 4)] {
                for kept in [&sides.before, &sides.behind[l]] {
                    let entries: usize = kept.iter().map(|part| part.data.len()).sum();
                    assert!(kept.len() <= 1 && entries <= most, "{l}: {} {entries}", kept.len());
                }
            }
            // What is kept gives the same as a contraction of everything.
            let node = all.node(&model).unwrap();
            let x = model.tensors[l].data();
            let order = node.letters.concat();
            let x = Labelled {
                letters: model.factors[l].clone(),
                shape: model.tensors[l].shape.clone(),
                data: x.to_vec(),
            }
            .permuted(&order);
            let r = node.counts[2];
            let blocks = x.data.chunks_exact(r).enumerate();
            let own: f64 = blocks
                .map(|(b, x)| node.times(b, x).iter().zip(x).map(|(d, x)| d * x).sum::<f64>())
                .sum();
            let with: f64 = x.data.iter().zip(&node.numerator).map(|(x, n)| x * n).sum();
            let (norm, inner) = (model.inner(&model).unwrap(), model.inner(&target).unwrap());
            assert!((own - norm).abs() < 1e-12 * norm, "{l}: {own} {norm}");
            assert!((with - inner).abs() < 1e-12 * inner, "{l}: {with} {inner}");
            all.advance(&model).unwrap();
        }
    }

    #[test]
    fn what_shares_no_letter_stays_apart() {
        // The matrices of a Tucker model meet at its core only.
        let dense = |shape: &[usize]| {
            Dense::new(shape.to_vec(), vec![0.5; shape.iter().product()]).unwrap()
        };
        let tensors = vec![dense(&[9, 4]), dense(&[9, 4]), dense(&[9, 4]), dense(&[4, 4, 4])];
        let model = Network::new("ia,jb,kc,abc->ijk", tensors).unwrap();
        let goal = Goal::Network { target: &model, weights: None };
        let mut all = FactorEnvironments::new(&model, goal).unwrap();
        (0..3).for_each(|_| all.advance(&model).unwrap());
        assert_eq!(all.itself.before.len(), 3);
        assert!(all.itself.before.iter().all(|part| part.shape == [4, 4]));
    }
}
