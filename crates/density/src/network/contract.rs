//! Contractions of small dense tensors with named indices.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::linalg::{product_into, view};

/// The most entries of an intermediate tensor.
pub(crate) const LIMIT: u64 = 1 << 29;

/// A dense tensor whose axes have letters.
#[derive(Clone, Debug)]
pub(crate) struct Labelled {
    pub letters: Vec<char>,
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Labelled {
    pub fn ones(letter: char, size: usize) -> Labelled {
        Labelled { letters: vec![letter], shape: vec![size], data: vec![1.0; size] }
    }

    fn size_of(&self, letter: char) -> usize {
        self.letters.iter().position(|&l| l == letter).map_or(1, |at| self.shape[at])
    }

    /// With axes in the order of `letters`, which are all of its own.
    pub fn permuted(&self, letters: &[char]) -> Labelled {
        if letters == self.letters {
            return self.clone();
        }
        let at: Vec<usize> =
            letters.iter().filter_map(|l| self.letters.iter().position(|own| own == l)).collect();
        let mut strides = vec![1; self.shape.len()];
        for axis in (1..self.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * self.shape[axis];
        }
        let shape: Vec<usize> = at.iter().map(|&a| self.shape[a]).collect();
        let strides: Vec<usize> = at.iter().map(|&a| strides[a]).collect();
        let mut data = Vec::with_capacity(self.data.len());
        let mut tuple = vec![0; shape.len()];
        loop {
            data.push(self.data[tuple.iter().zip(&strides).map(|(i, s)| i * s).sum::<usize>()]);
            if !crate::indices::advance(&mut tuple, &shape) {
                break;
            }
        }
        Labelled { letters: letters.to_vec(), shape, data }
    }

    /// Summed over all letters but those to keep.
    fn summed_to(self, keep: impl Fn(char) -> bool) -> Labelled {
        let kept: Vec<char> = self.letters.iter().copied().filter(|&l| keep(l)).collect();
        if kept.len() == self.letters.len() {
            return self;
        }
        let dropped = self.letters.iter().copied().filter(|&l| !keep(l));
        let order: Vec<char> = kept.iter().copied().chain(dropped).collect();
        let p = self.permuted(&order);
        let shape = p.shape[..kept.len()].to_vec();
        let rest: usize = p.shape[kept.len()..].iter().product();
        let data = p.data.chunks_exact(rest.max(1)).map(|row| row.iter().sum()).collect();
        Labelled { letters: kept, shape, data }
    }
}

/// The contraction of tensors to the letters `out`, pair by pair, the cheapest first.
pub(crate) fn contract(mut parts: Vec<Labelled>, out: &[char]) -> Result<Labelled> {
    while let Some(at) = cheapest(&parts, out, |_| true) {
        join(&mut parts, at, out)?;
    }
    let Some(last) = parts.pop() else {
        return Ok(Labelled { letters: Vec::new(), shape: Vec::new(), data: vec![1.0] });
    };
    Ok(last.summed_to(|l| out.contains(&l)).permuted(out))
}

/// Contracts pairs as long as there is less after it, or a letter of both is summed over and the result
/// has at most so many entries. Letters that are outside are kept.
pub(crate) fn reduce(
    mut parts: Vec<Labelled>,
    outside: &[char],
    most: usize,
) -> Result<Vec<Labelled>> {
    let admitted = |pair: &Pair| pair.gain <= 0.0 || (pair.sums && pair.entries <= most as f64);
    while let Some(at) = cheapest(&parts, outside, admitted) {
        join(&mut parts, at, outside)?;
    }
    // A letter that no other part has is summed over within its own.
    let needed: Vec<Vec<char>> = (0..parts.len())
        .map(|i| {
            let others = parts.iter().enumerate().filter(|&(k, _)| k != i);
            others.flat_map(|(_, part)| part.letters.iter().copied()).collect()
        })
        .collect();
    let summed = parts
        .into_iter()
        .zip(&needed)
        .map(|(part, others)| part.summed_to(|l| outside.contains(&l) || others.contains(&l)));
    Ok(summed.collect())
}

/// Contracts two of the parts.
fn join(parts: &mut Vec<Labelled>, (i, j): (usize, usize), out: &[char]) -> Result<()> {
    let b = parts.remove(j);
    let a = parts.remove(i);
    let keep = |l: char| out.contains(&l) || parts.iter().any(|part| part.letters.contains(&l));
    let joined = pair(a, b, keep)?;
    parts.push(joined);
    Ok(())
}

/// What the contraction of two tensors gives.
struct Pair {
    entries: f64,
    /// The entries against those that it replaces.
    gain: f64,
    /// Whether a letter of both is summed over.
    sums: bool,
}

/// The pair whose product is smallest, against what it replaces, among those that are admitted.
fn cheapest(
    parts: &[Labelled],
    out: &[char],
    admitted: impl Fn(&Pair) -> bool,
) -> Option<(usize, usize)> {
    let (mut best, mut least) = (None, f64::INFINITY);
    for i in 0..parts.len() {
        for j in i + 1..parts.len() {
            let needed = |l: char| {
                let others = parts.iter().enumerate().filter(|&(k, _)| k != i && k != j);
                out.contains(&l) || others.into_iter().any(|(_, p)| p.letters.contains(&l))
            };
            let mut sizes = BTreeMap::new();
            for part in [&parts[i], &parts[j]] {
                part.letters.iter().zip(&part.shape).for_each(|(&l, &n)| {
                    sizes.insert(l, n as f64);
                });
            }
            let entries: f64 = sizes.iter().filter(|&(&l, _)| needed(l)).map(|(_, n)| n).product();
            let gain = entries - (parts[i].data.len() + parts[j].data.len()) as f64;
            let shared = parts[i].letters.iter().filter(|l| parts[j].letters.contains(l));
            let sums = shared.copied().any(|l| !needed(l));
            if gain < least && admitted(&Pair { entries, gain, sums }) {
                (best, least) = (Some((i, j)), gain);
            }
        }
    }
    best
}

/// The product of two tensors, summed over the letters that need not be kept.
fn pair(a: Labelled, b: Labelled, keep: impl Fn(char) -> bool) -> Result<Labelled> {
    let a = {
        let other = b.letters.clone();
        a.summed_to(|l| keep(l) || other.contains(&l))
    };
    let b = {
        let other = a.letters.clone();
        b.summed_to(|l| keep(l) || other.contains(&l))
    };
    let shared = |l: &char| b.letters.contains(l);
    let batch: Vec<char> = a.letters.iter().copied().filter(|l| shared(l) && keep(*l)).collect();
    let summed: Vec<char> = a.letters.iter().copied().filter(|l| shared(l) && !keep(*l)).collect();
    let rows: Vec<char> = a.letters.iter().copied().filter(|l| !shared(l)).collect();
    let cols: Vec<char> = b.letters.iter().copied().filter(|l| !a.letters.contains(l)).collect();
    let count = |of: &Labelled, letters: &[char]| -> usize {
        letters.iter().map(|&l| of.size_of(l)).product()
    };
    let (n, m, k, c) = (count(&a, &batch), count(&a, &rows), count(&a, &summed), count(&b, &cols));
    let entries = (n as u64).saturating_mul(m as u64).saturating_mul(c as u64);
    if entries > LIMIT {
        return Err(Error::Memory {
            what: "an intermediate tensor of a contraction".into(),
            needed: entries.saturating_mul(8),
            available: LIMIT * 8,
            help: "the model or the target would need smaller ranks".into(),
        });
    }
    let x = a.permuted(&[&batch[..], &rows, &summed].concat());
    let y = b.permuted(&[&batch[..], &summed, &cols].concat());
    let mut data = vec![0.0; n * m * c];
    if m * k * c == 1 {
        data.iter_mut().zip(x.data.iter().zip(&y.data)).for_each(|(to, (x, y))| *to = x * y);
    }
    for at in (0..n).filter(|_| m * k * c > 1) {
        let x = view(&x.data[at * m * k..(at + 1) * m * k], m, k);
        let y = view(&y.data[at * k * c..(at + 1) * k * c], k, c);
        product_into(x, y, &mut data[at * m * c..(at + 1) * m * c]);
    }
    let letters = [&batch[..], &rows, &cols].concat();
    let shape = letters
        .iter()
        .map(|&l| if a.letters.contains(&l) { a.size_of(l) } else { b.size_of(l) })
        .collect();
    Ok(Labelled { letters, shape, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contractions_are_those_of_loops() {
        let tensor = |letters: &str, shape: &[usize], s: f64| Labelled {
            letters: letters.chars().collect(),
            shape: shape.to_vec(),
            data: (0..shape.iter().product::<usize>()).map(|i| (i as f64 * s).sin()).collect(),
        };
        // The letter b is a batch, c is summed, e is summed in one tensor alone.
        let a = tensor("abc", &[2, 3, 4], 0.3);
        let b = tensor("cbe", &[4, 3, 5], 0.7);
        let got = contract(vec![a.clone(), b.clone()], &['b', 'a']).unwrap();
        assert_eq!(got.shape, [3, 2]);
        for i in 0..2 {
            for j in 0..3 {
                let mut want = 0.0;
                for k in 0..4 {
                    for l in 0..5 {
                        want += a.data[(i * 3 + j) * 4 + k] * b.data[(k * 3 + j) * 5 + l];
                    }
                }
                assert!((got.data[j * 2 + i] - want).abs() < 1e-12);
            }
        }
    }
}
