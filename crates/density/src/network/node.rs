//! The objective at one factor, all others held, and what is done with it.

use super::contract::{Labelled, contract};
use super::entries::Entries;
use super::{Dense, Network, prime};
use crate::error::{Error, Result};
use crate::fit::newton::Line;
use crate::linalg::largest;
use crate::small::{Kronecker, System, solve_positive};

/// What a model is fitted to.
#[derive(Clone, Copy)]
pub(crate) enum Goal<'a> {
    /// All entries of a tensor.
    Network {
        /// The target; of weighted data the product of weights and values.
        target: &'a Network,
        /// A weight of each entry; `None` where all are 1.
        weights: Option<&'a Labelled>,
    },
    /// Those of a list, and zeros beside them where they count.
    Entries(&'a Entries),
}

/// The objective at one factor, all others held.
pub(crate) struct FactorNode {
    /// Letters that are observed and in no other factor, observed and in others, and latent.
    pub letters: [Vec<char>; 3],
    /// How many values each kind has.
    pub counts: [usize; 3],
    /// For each value of the shared letters, a matrix over the latent ones.
    gram: Vec<f64>,
    /// Whether there is such a matrix for each value of the own letters too.
    own_too: bool,
    /// The target contracted with the other factors, in the order of `letters`.
    pub numerator: Vec<f64>,
}

/// The letters of a factor by what they are for its step.
struct Letters {
    /// Observed and in no other factor, observed and in others, and latent.
    kinds: [Vec<char>; 3],
    counts: [usize; 3],
    /// Latent letters that no other factor has, which have an environment of ones, with their sizes.
    lone: Vec<(char, usize)>,
}

impl Letters {
    fn of(model: &Network, l: usize) -> Letters {
        let f = &model.factors[l];
        let others = || (0..model.factors.len()).filter(move |&m| m != l);
        let elsewhere = |c: &char| others().any(|m| model.factors[m].contains(c));
        let observed = |c: &char| model.output.contains(c);
        let pick = |keep: &dyn Fn(&char) -> bool| f.iter().copied().filter(keep).collect();
        let own: Vec<char> = pick(&|c| observed(c) && !elsewhere(c));
        let shared: Vec<char> = pick(&|c| observed(c) && elsewhere(c));
        let latent: Vec<char> = pick(&|c| !observed(c));
        let size = |c: char| model.size_of(c).unwrap_or(1);
        let count = |letters: &[char]| letters.iter().map(|&c| size(c)).product::<usize>();
        let counts = [count(&own), count(&shared), count(&latent)];
        let lone = latent.iter().filter(|c| !elsewhere(c)).map(|&c| (c, size(c))).collect();
        Letters { kinds: [own, shared, latent], counts, lone }
    }
}

impl FactorNode {
    /// From the other factors contracted with themselves, and weights where there are any, as far as they
    /// are; and from the other factors contracted with the target.
    pub fn new(
        model: &Network,
        l: usize,
        mut gram: Vec<Labelled>,
        weighted: bool,
        mut numerator: Vec<Labelled>,
    ) -> Result<FactorNode> {
        let Letters { kinds, counts, lone } = Letters::of(model, l);
        let [own, shared, latent] = &kinds;
        for &(c, n) in &lone {
            gram.extend([Labelled::ones(c, n), Labelled::ones(prime(c), n)]);
            numerator.push(Labelled::ones(c, n));
        }
        let twin = latent.iter().map(|&c| prime(c));
        let first = if weighted { &own[..] } else { &[] };
        let out: Vec<char> =
            first.iter().chain(shared).chain(latent).copied().chain(twin).collect();
        let gram = contract(gram, &out)?.data;
        let order: Vec<char> = kinds.concat();
        let numerator = contract(numerator, &order)?.data;
        let own_too = weighted;
        Ok(FactorNode { letters: kinds, counts, gram, own_too, numerator })
    }

    /// From what somebody else has summed: numerator and matrices, in the order of the factor's letters, the
    /// observed ones first in the matrices.
    pub fn of_sums(
        model: &Network,
        l: usize,
        numerator: Vec<f64>,
        gram: Vec<f64>,
    ) -> Result<FactorNode> {
        let Letters { kinds, counts, .. } = Letters::of(model, l);
        let [own, shared, latent] = &kinds;
        let letters = &model.factors[l];
        let observed = letters.iter().copied().filter(|c| model.output.contains(c));
        let twins = |latent: &[char]| latent.iter().map(|&c| prime(c)).collect::<Vec<char>>();
        let from: Vec<char> = observed.chain(latent.iter().copied()).chain(twins(latent)).collect();
        let labelled = |letters: Vec<char>, data: Vec<f64>, what: &str| -> Result<Labelled> {
            let size = |&c: &char| model.size_of(model_letter(latent, c)).unwrap_or(1);
            let shape: Vec<usize> = letters.iter().map(size).collect();
            let expected: usize = shape.iter().product();
            match data.len() == expected {
                true => Ok(Labelled { letters, shape, data }),
                false => Err(Error::Shape {
                    what: format!("{what} of factor {l}"),
                    found: format!("{} numbers", data.len()),
                    expected: expected.to_string(),
                }),
            }
        };
        let onto = [&own[..], shared, latent, &twins(latent)].concat();
        let gram = labelled(from, gram, "the matrices")?.permuted(&onto).data;
        let numerator = labelled(letters.clone(), numerator, "the numerator")?;
        let numerator = numerator.permuted(&kinds.concat()).data;
        Ok(FactorNode { letters: kinds, counts, gram, own_too: true, numerator })
    }

    /// For data in a list, from the other factors contracted with themselves where zeros that are not in
    /// it count.
    pub fn of_entries(
        model: &Network,
        l: usize,
        entries: &Entries,
        others: Option<Vec<Labelled>>,
    ) -> Result<FactorNode> {
        let Letters { kinds, counts, lone } = Letters::of(model, l);
        let [_, shared, latent] = &kinds;
        let (own_too, size) = (!entries.is_uniform(), counts[2] * counts[2]);
        let blocks = if own_too { counts[0] * counts[1] } else { counts[1] };
        Entries::check_blocks(blocks, counts[2])?;
        let gram = match others {
            Some(mut parts) => {
                for &(c, n) in &lone {
                    parts.extend([Labelled::ones(c, n), Labelled::ones(prime(c), n)]);
                }
                let twin = latent.iter().map(|&c| prime(c));
                let out: Vec<char> = shared.iter().chain(latent).copied().chain(twin).collect();
                let of_shared = contract(parts, &out)?.data;
                if own_too { of_shared.repeat(counts[0]) } else { of_shared }
            }
            None => vec![0.0; blocks * size],
        };
        let numerator = vec![0.0; counts.iter().product()];
        let mut node = FactorNode { letters: kinds, counts, gram, own_too, numerator };
        entries.add_to(model, l, &mut node)?;
        Ok(node)
    }

    /// Adds what is due to an entry of a block: shares of the product of the other factors there, and of
    /// its square.
    pub fn add(&mut self, block: usize, (first, second): (f64, f64), product: &[f64]) {
        let r = self.counts[2];
        let numerator = &mut self.numerator[block * r..(block + 1) * r];
        numerator.iter_mut().zip(product).for_each(|(to, p)| *to += first * p);
        if second == 0.0 {
            return;
        }
        let at = if self.own_too { block } else { block % self.counts[1] };
        let gram = &mut self.gram[at * r * r..(at + 1) * r * r];
        for (row, p) in gram.chunks_exact_mut(r).zip(product) {
            row.iter_mut().zip(product).for_each(|(to, q)| *to += second * p * q);
        }
    }

    /// The matrix of one block.
    fn gram_of(&self, block: usize) -> &[f64] {
        let (shared, size) = (self.counts[1], self.counts[2] * self.counts[2]);
        let at = if self.own_too { block } else { block % shared };
        &self.gram[at * size..(at + 1) * size]
    }

    /// `Γ x` of one block.
    pub fn times(&self, block: usize, x: &[f64]) -> Vec<f64> {
        let r = self.counts[2];
        self.gram_of(block)
            .chunks_exact(r)
            .map(|row| row.iter().zip(x).map(|(g, x)| g * x).sum())
            .collect()
    }
}

/// The letter that a twin stands beside, or the letter itself.
fn model_letter(latent: &[char], letter: char) -> char {
    latent.iter().copied().find(|&c| prime(c) == letter).unwrap_or(letter)
}

/// What is done with a factor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Update {
    /// A Newton step with this barrier, and a step length for each block.
    Newton(f64),
    Multiplicative,
    Descent,
}

/// The least an entry is after a multiplicative update, as a share of the largest of its factor.
const FLOOR: f64 = 1e-12;

/// Updates factor l, for which the node is. Gives half the squared distance but for that of the target.
pub(crate) fn step(
    model: &mut Network,
    node: &FactorNode,
    l: usize,
    update: Update,
) -> Result<f64> {
    let order: Vec<char> = node.letters.concat();
    let labelled = model.labelled(std::iter::once(l), false).remove(0).permuted(&order);
    let r = node.counts[2];
    let mut x = labelled.data;
    let mut system = System::default();
    for (block, x) in x.chunks_exact_mut(r).enumerate() {
        let n = &node.numerator[block * r..(block + 1) * r];
        let d = node.times(block, x);
        match update {
            Update::Newton(mu) => {
                newton(node, block, x, (&d, n), mu, &mut system).ok_or_else(|| {
                    Error::Numeric(format!(
                        "a Newton step on factor {l} met values that are not finite"
                    ))
                })?
            }
            Update::Multiplicative => {
                let moved = x.iter_mut().zip(d.iter().zip(n)).filter(|(_, (d, _))| **d > 0.0);
                moved.for_each(|(x, (d, n))| *x *= n.max(0.0) / d);
            }
            Update::Descent => descend(node, block, x, (&d, n)),
        }
    }
    if let Update::Multiplicative = update {
        let least = FLOOR * largest(&x);
        x.iter_mut().for_each(|x| *x = x.max(least));
    }
    let distance: f64 = x
        .chunks_exact(r)
        .zip(node.numerator.chunks_exact(r))
        .enumerate()
        .map(|(block, (x, n))| {
            let d = node.times(block, x);
            x.iter().zip(d.iter().zip(n)).map(|(x, (d, n))| x * (0.5 * d - n)).sum::<f64>()
        })
        .sum();
    let shape = labelled.shape;
    let back = Labelled { letters: order, shape, data: x }.permuted(&model.factors[l]);
    model.tensors[l] = Dense::new(back.shape, back.data)?;
    Ok(distance)
}

/// One Newton step on a block, given `Γ x` and the numerator.
fn newton(
    node: &FactorNode,
    block: usize,
    x: &mut [f64],
    (d, n): (&[f64], &[f64]),
    mu: f64,
    system: &mut System,
) -> Option<()> {
    let g: Vec<f64> = d.iter().zip(n).map(|(d, n)| d - n).collect();
    let line = candidate(node, block, x, &g, mu, system)?;
    let y = &system.y[..x.len()];
    let t = line.slice_length(y, mu);
    x.iter_mut().zip(y).for_each(|(x, y)| *x *= 1.0 + t * y);
    Some(())
}

/// One cycle of exact coordinate descent on a block.
fn descend(node: &FactorNode, block: usize, x: &mut [f64], (d, n): (&[f64], &[f64])) {
    let r = x.len();
    let gram = node.gram_of(block);
    let mut g: Vec<f64> = d.iter().zip(n).map(|(d, n)| d - n).collect();
    for at in 0..r {
        let curvature = gram[at * r + at];
        if curvature.is_nan() || curvature <= 0.0 {
            continue;
        }
        let new = (x[at] - g[at] / curvature).max(0.0);
        let change = new - x[at];
        x[at] = new;
        g.iter_mut().zip(&gram[at * r..(at + 1) * r]).for_each(|(g, c)| *g += c * change);
    }
}

/// The direction of one block, and the objective along it.
fn candidate(
    node: &FactorNode,
    block: usize,
    x: &[f64],
    g: &[f64],
    mu: f64,
    system: &mut System,
) -> Option<Line> {
    let r = x.len();
    let rhs: Vec<f64> = x.iter().zip(g).map(|(x, g)| mu - x * g).collect();
    system.x.resize(r);
    system.x.copy_from_slice(x);
    system.y.resize(r);
    system.y.copy_from_slice(&rhs);
    if !solve_positive(&Kronecker::single(r, node.gram_of(block)), mu, system) {
        return None;
    }
    let y = &system.y[..r];
    let delta: Vec<f64> = x.iter().zip(y).map(|(x, y)| x * y).collect();
    Some(Line::new(&rhs, y, g, &delta, &node.times(block, &delta)))
}
