//! A sum of products over latent indices, as small steps that are made very often with other rows: each sums over one
//! latent index, in the order that costs least, so that a chain of matrices is multiplied as one.

use nneinfact_core::model::{Index, Shapes};

/// Multiplications that a sum may take, at most.
const MOST: f64 = 32_768.0;

/// Where an operand of a step lies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    /// In the row of a mode, from a place on.
    Row(usize, usize),
    /// Among the constants.
    Constant(usize),
    /// Among the results of earlier steps.
    Result(usize),
}

/// A tensor over some of the latent indices, and where it lies.
struct Operand {
    names: Vec<Index>,
    source: Source,
}

/// A sum over one latent index of the product of all operands that have it.
struct Step {
    sources: Vec<Source>,
    /// For every entry of the result, every value of the index, and every operand, the place in the operand.
    places: Vec<u32>,
    /// The values of the index.
    summed: usize,
    /// The first of the results of this step.
    first: usize,
    /// How many there are.
    count: usize,
}

/// A sum of products, in which rows of modes are put.
pub(super) struct SumOfProducts {
    steps: Vec<Step>,
    /// What is multiplied at the end.
    last: Vec<Source>,
    constants: Vec<f64>,
    results: usize,
}

/// A factor of the products: the latent indices that it has, and either the mode and the place in its row, or its
/// entries.
pub(super) enum Factor {
    Row(Vec<Index>, usize, usize),
    Constant(Vec<Index>, Vec<f64>),
}

impl SumOfProducts {
    /// `None` where it would take very many multiplications.
    pub fn new(shapes: &Shapes, latent: &[Index], factors: Vec<Factor>) -> Option<SumOfProducts> {
        let mut sum = SumOfProducts {
            steps: Vec::new(),
            last: Vec::new(),
            constants: Vec::new(),
            results: 0,
        };
        let mut open: Vec<Operand> = Vec::new();
        for factor in factors {
            open.push(match factor {
                Factor::Row(names, mode, first) => {
                    Operand { names, source: Source::Row(mode, first) }
                }
                Factor::Constant(names, entries) => {
                    let source = Source::Constant(sum.constants.len());
                    sum.constants.extend(entries);
                    Operand { names, source }
                }
            });
        }
        let mut left = latent.to_vec();
        let mut cost = 0.0;
        while !left.is_empty() {
            let cost_of = |x: &Index| -> f64 {
                let with = open.iter().filter(|o| o.names.contains(x)).count().max(1);
                volume(shapes, &joined(&open, *x)) * with as f64
            };
            let costs: Vec<f64> = left.iter().map(cost_of).collect();
            let next = (0..left.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b]))?;
            cost += costs[next];
            if cost > MOST {
                return None;
            }
            let x = left.remove(next);
            let (with, without): (Vec<Operand>, Vec<Operand>) =
                open.into_iter().partition(|operand| operand.names.contains(&x));
            open = without;
            open.push(sum.push(shapes, x, &with));
        }
        sum.last = open.into_iter().map(|operand| operand.source).collect();
        Some(sum)
    }

    /// One more step; gives its result.
    fn push(&mut self, shapes: &Shapes, x: Index, with: &[Operand]) -> Operand {
        // The index that is summed over comes last.
        let names = joined(with, x);
        let sizes = shapes.sizes(&names);
        let (summed, entries) = (shapes.size(x), sizes.iter().product::<usize>());
        let mut places = Vec::with_capacity(entries * with.len());
        let mut at = vec![0; names.len()];
        for _ in 0..entries {
            for operand in with {
                let value = |y: &Index| names.iter().position(|z| z == y).map_or(0, |n| at[n]);
                let place = operand.names.iter().fold(0, |p, y| p * shapes.size(*y) + value(y));
                places.push(place as u32);
            }
            for (i, &size) in at.iter_mut().zip(&sizes).rev() {
                *i += 1;
                if *i < size {
                    break;
                }
                *i = 0;
            }
        }
        let count = entries / summed.max(1);
        let first = self.results;
        self.results += count;
        let sources = with.iter().map(|operand| operand.source).collect();
        self.steps.push(Step { sources, places, summed, first, count });
        let kept = names[..names.len() - 1].to_vec();
        Operand { names: kept, source: Source::Result(first) }
    }

    /// The sum with these rows of the modes.
    pub fn value(&self, rows: &[&[f64]]) -> f64 {
        let mut results = vec![0.0; self.results];
        for step in &self.steps {
            let (before, own) = results.split_at_mut(step.first);
            let slice = |source: &Source| -> &[f64] {
                match *source {
                    Source::Row(mode, first) => &rows[mode][first..],
                    Source::Constant(first) => &self.constants[first..],
                    Source::Result(first) => &before[first..],
                }
            };
            let each = step.sources.len();
            match &step.sources[..] {
                // A latent index that no factor has counts all the same.
                [] => own[..step.count].fill(step.summed as f64),
                [a, b] => {
                    let (a, b) = (slice(a), slice(b));
                    let all = step.places.chunks_exact(2 * step.summed);
                    for (to, places) in own.iter_mut().zip(all) {
                        let one = |p: &[u32]| a[p[0] as usize] * b[p[1] as usize];
                        *to = places.chunks_exact(2).map(one).sum();
                    }
                }
                sources => {
                    let operands: Vec<&[f64]> = sources.iter().map(slice).collect();
                    let all = step.places.chunks_exact(each * step.summed);
                    for (to, places) in own.iter_mut().zip(all) {
                        let one = |places: &[u32]| -> f64 {
                            operands.iter().zip(places).map(|(o, &p)| o[p as usize]).product()
                        };
                        *to = places.chunks_exact(each).map(one).sum();
                    }
                }
            }
        }
        let at = |source: &Source| match *source {
            Source::Row(mode, first) => rows[mode][first],
            Source::Constant(first) => self.constants[first],
            Source::Result(first) => results[first],
        };
        self.last.iter().map(at).product()
    }
}

/// All indices of the operands that have one, that one last.
fn joined(operands: &[Operand], x: Index) -> Vec<Index> {
    let mut names: Vec<Index> = Vec::new();
    for operand in operands.iter().filter(|operand| operand.names.contains(&x)) {
        for &y in &operand.names {
            if y != x && !names.contains(&y) {
                names.push(y);
            }
        }
    }
    names.push(x);
    names
}

fn volume(shapes: &Shapes, names: &[Index]) -> f64 {
    shapes.sizes(names).iter().map(|&n| n as f64).product()
}
